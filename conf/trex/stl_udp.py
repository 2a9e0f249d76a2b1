"""Stateless UDP through the gateway: `forward` and RFC 2544 throughput on real NICs.

    start -f stl_udp.py --port 0 -m 100% -t --sessions 1000000 --size 64

`-t` comes last. Every packet belongs to one of `sessions` flows drawn at random (RFC 4814 §4). Real servers need not
answer: TRex counts what arrives at its other port. `--latency_pps 1000` adds a stream of its own that is time-stamped
(RFC 2544 §26.2); TRex knows its packets by the IPv4 identification, which the gateway leaves as it is in
packets that must not be fragmented.
"""

import argparse
import ipaddress
import os
import sys

from trex.stl.api import Ether, IP, STLFlowLatencyStats, STLPktBuilder, STLScVmRaw, STLStream, STLTXCont
from trex.stl.api import CTRexVmInsFixHwCs, STLVmFixChecksumHw, STLVmFlowVarRepeatableRandom, STLVmWrFlowVar, UDP

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import gateway  # noqa: E402

FLOWS_PER_CLIENT = 64


class UdpProfile:
    """One stream of one frame size, and perhaps one whose delay is measured."""

    def get_streams(self, direction=0, tunables=(), **_):
        options = _arguments().parse_args(list(tunables))
        facts = gateway.load(options.gateway)
        streams = [STLStream(packet=self.packet(facts, options.sessions, options.size), mode=STLTXCont())]
        if options.latency_pps:
            # One flow more, whose client no other packet has; a time stamp needs 16 bytes of payload.
            packet = STLPktBuilder(pkt=self.frame(facts, max(options.size, 64), sport=1023))
            streams.append(STLStream(packet=packet, mode=STLTXCont(pps=options.latency_pps),
                                     flow_stats=STLFlowLatencyStats(pg_id=1)))
        return streams

    def frame(self, facts, size, sport=1024):
        """The first client's frame."""
        target = gateway.service(facts, "udp")
        base = Ether(dst=facts["wan_mac"]) if facts.get("wan_mac") else Ether()
        base /= IP(src=facts["clients_first"], dst=target["vip"], flags="DF") / UDP(sport=sport, dport=target["port"])
        return base / (max(0, size - 4 - len(base)) * b"x")

    def packet(self, facts, sessions, size):
        """The frame with its variables: client address and port."""
        first = ipaddress.ip_address(facts["clients_first"])
        clients = max(1, sessions // FLOWS_PER_CLIENT)
        ports = min(sessions, FLOWS_PER_CLIENT)
        program = STLScVmRaw([
            STLVmFlowVarRepeatableRandom("client", min_value=int(first), max_value=int(first) + clients - 1, size=4,
                                         limit=clients),
            STLVmFlowVarRepeatableRandom("port", min_value=1024, max_value=1024 + ports - 1, size=2, limit=ports),
            STLVmWrFlowVar(fv_name="client", pkt_offset="IP.src"),
            STLVmWrFlowVar(fv_name="port", pkt_offset="UDP.sport"),
            STLVmFixChecksumHw(l3_offset="IP", l4_offset="UDP", l4_type=CTRexVmInsFixHwCs.L4_TYPE_UDP),
        ])
        return STLPktBuilder(pkt=self.frame(facts, size), vm=program)


def _arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sessions", type=int, default=1_000_000, help="flows")
    parser.add_argument("--size", type=int, default=64, help="bytes of the frame, its checksum included")
    parser.add_argument("--latency_pps", type=int, default=0, help="time-stamped packets per second")
    parser.add_argument("--gateway", help="gateway.json")
    return parser


def register():
    """What TRex calls."""
    return UdpProfile()
