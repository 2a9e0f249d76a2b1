"""Stateless UDP through the gateway: `forward` and RFC 2544 throughput on real NICs.

    start -f stl_udp.py --port 0 -m 1% -t --sessions 1000000 --opening_rounds 2      opens the sessions, then ends
    start -f stl_udp.py --port 0 -m 100% -t --sessions 1000000 --size 64

`-t` comes last. There are exactly `sessions` flows, and in every round each of them has one packet. Trials go through
them in strides of 0.618 of all, so that neither addresses nor what the gateway keeps in the order of opening is met in
sequence (RFC 4814 §4); the opening goes step by step. Real servers need not answer: TRex counts what arrives at its
other port. `--latency_pps 1000` adds a stream of its own that is time-stamped
(RFC 2544 §26.2); TRex knows its packets by the IPv4 identification, which the gateway leaves as it is in
packets that must not be fragmented.
"""

import argparse
import ipaddress
import itertools
import math
import os
import sys

from trex.stl.api import Ether, IP, STLFlowLatencyStats, STLPktBuilder, STLScVmRaw, STLStream, STLTXCont
from trex.stl.api import CTRexVmInsFixHwCs, STLTXSingleBurst, STLVmFixChecksumHw, STLVmFlowVar, STLVmWrFlowVar, UDP

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import gateway  # noqa: E402

FLOWS_PER_CLIENT = 64
FIRST_PORT = 1024


def divided(sessions):
    """(clients, ports) whose product is `sessions`, without a common divisor.

    TRex advances both variables with every packet, on every core: only then do they meet in every pair.
    """
    ports = max(ports for ports in range(1, FLOWS_PER_CLIENT + 1)
                if sessions % ports == 0 and math.gcd(ports, sessions // ports) == 1)
    return sessions // ports, ports


def stride(sessions):
    """How far to go from flow to flow: about the golden section, and without a divisor in common with `sessions`."""
    return next(step for step in itertools.count(max(1, round(sessions * 0.618))) if math.gcd(step, sessions) == 1)


class UdpProfile:
    """One stream of one frame size, and perhaps one whose delay is measured."""

    def get_streams(self, direction=0, tunables=(), **_):
        options = _arguments().parse_args(list(tunables))
        facts = gateway.load(options.gateway)
        if options.opening_rounds:
            packets = options.opening_rounds * options.sessions
            return [STLStream(packet=self.packet(facts, options.sessions, options.size, 1),
                              mode=STLTXSingleBurst(total_pkts=packets))]
        packet = self.packet(facts, options.sessions, options.size, stride(options.sessions))
        streams = [STLStream(packet=packet, mode=STLTXCont())]
        if options.latency_pps:
            # One flow more, whose client no other packet has; a time stamp needs 16 bytes of payload.
            packet = STLPktBuilder(pkt=self.frame(facts, max(options.size, 64), sport=1023))
            streams.append(STLStream(packet=packet, mode=STLTXCont(pps=options.latency_pps),
                                     flow_stats=STLFlowLatencyStats(pg_id=1)))
        return streams

    def frame(self, facts, size, sport=FIRST_PORT):
        """The first client's frame."""
        target = gateway.service(facts, "udp")
        base = Ether(dst=facts["wan_mac"]) if facts.get("wan_mac") else Ether()
        base /= IP(src=facts["clients_first"], dst=target["vip"], flags="DF") / UDP(sport=sport, dport=target["port"])
        return base / (max(0, size - 4 - len(base)) * b"x")

    def packet(self, facts, sessions, size, step):
        """The frame with its variables, client address and port; those that have one value stay as the frame has them."""
        first = int(ipaddress.ip_address(facts["clients_first"]))
        clients, ports = divided(sessions)
        program = [*self.variable("client", first, clients, 4, step, "IP.src"),
                   *self.variable("port", FIRST_PORT, ports, 2, step, "UDP.sport")]
        if not program:
            return STLPktBuilder(pkt=self.frame(facts, size))
        checksum = STLVmFixChecksumHw(l3_offset="IP", l4_offset="UDP", l4_type=CTRexVmInsFixHwCs.L4_TYPE_UDP)
        return STLPktBuilder(pkt=self.frame(facts, size), vm=STLScVmRaw([*program, checksum]))

    def variable(self, name, first, count, size, step, field):
        """What advances a field from packet to packet. TRex goes on at `first` with what a step has left at the end of the
        range: a step without a divisor in common with `count` meets every value."""
        if count == 1:
            return []
        return [STLVmFlowVar(name, min_value=first, max_value=first + count - 1, size=size, step=step % count, op="inc"),
                STLVmWrFlowVar(fv_name=name, pkt_offset=field)]


def _flows(text):
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{number} flows send nothing; give 1 or more")
    return number


def _arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sessions", type=_flows, default=1_000_000, help="flows, exactly")
    parser.add_argument("--opening_rounds", type=int, default=0, help="packets per flow, then end; 0: trials, without end")
    parser.add_argument("--size", type=int, default=64, help="bytes of the frame, its checksum included")
    parser.add_argument("--latency_pps", type=int, default=0, help="time-stamped packets per second")
    parser.add_argument("--gateway", help="gateway.json")
    return parser


def register():
    """What TRex calls."""
    return UdpProfile()
