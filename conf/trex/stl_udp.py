"""Stateless UDP through the gateway: `forward` and RFC 2544 throughput on real NICs.

    start -f stl_udp.py -t sessions=1000000,size=64 --port 0 -m 100%

Every packet belongs to one of `sessions` flows drawn at random (RFC 4814 §4). The gateway's answers to nobody: real servers
that do not answer are fine, TRex counts what arrives at its other port.
"""

import argparse
import ipaddress
import os
import sys

from trex.stl.api import Ether, IP, STLPktBuilder, STLScVmRaw, STLStream, STLTXCont, STLVmFixChecksumHw
from trex.stl.api import CTRexVmInsFixHwCs, STLVmFlowVarRepeatableRandom, STLVmWrFlowVar, UDP

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import gateway  # noqa: E402

FLOWS_PER_CLIENT = 64


class UdpProfile:
    """One stream of one frame size."""

    def get_streams(self, direction=0, tunables=(), **_):
        options = _arguments().parse_args(list(tunables))
        facts = gateway.load(options.gateway)
        return [STLStream(packet=self.packet(facts, options.sessions, options.size), mode=STLTXCont())]

    def packet(self, facts, sessions, size):
        """The frame with its variables: client address and port."""
        target = gateway.service(facts, "udp")
        first = ipaddress.ip_address(facts["clients_first"])
        clients = max(1, sessions // FLOWS_PER_CLIENT)
        ports = min(sessions, FLOWS_PER_CLIENT)
        base = Ether(dst=facts["wan_mac"]) if facts.get("wan_mac") else Ether()
        base /= IP(src=str(first), dst=target["vip"]) / UDP(sport=1024, dport=target["port"])
        payload = max(0, size - 4 - len(base)) * b"x"
        program = STLScVmRaw([
            STLVmFlowVarRepeatableRandom("client", min_value=int(first), max_value=int(first) + clients - 1, size=4,
                                         limit=clients),
            STLVmFlowVarRepeatableRandom("port", min_value=1024, max_value=1024 + ports - 1, size=2, limit=ports),
            STLVmWrFlowVar(fv_name="client", pkt_offset="IP.src"),
            STLVmWrFlowVar(fv_name="port", pkt_offset="UDP.sport"),
            STLVmFixChecksumHw(l3_offset="IP", l4_offset="UDP", l4_type=CTRexVmInsFixHwCs.L4_TYPE_UDP),
        ])
        return STLPktBuilder(pkt=base / payload, vm=program)


def _arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sessions", type=int, default=1_000_000, help="flows")
    parser.add_argument("--size", type=int, default=64, help="bytes of the frame, its checksum included")
    parser.add_argument("--gateway", help="gateway.json")
    return parser


def register():
    """What TRex calls."""
    return UdpProfile()
