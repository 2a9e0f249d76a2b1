"""Stateful HTTP through the gateway: connection rate and concurrency (RFC 9411 §7.2, §7.4; RFC 3511 §5.2, §5.3).

Two TRex in ASTF mode, since the gateway rewrites both addresses: clients dial the VIP, servers are the real servers.

    clients:  t-rex-64 -i --astf --astf-client-mask 1     start -f astf_http.py -t --side client --cps 10000
    servers:  t-rex-64 -i --astf --astf-server-only       start -f astf_http.py -t --side server

cps: connections begun per second. delay_ms: how long a connection stays open between request and answer; concurrency is
cps x delay_ms / 1000. size: bytes of the answer; 1 for connection rate, 65536 for throughput.
"""

import argparse
import ipaddress
import os
import sys

from trex.astf.api import ASTFAssociationRule, ASTFIPGen, ASTFIPGenDist, ASTFIPGenGlobal, ASTFProfile, ASTFProgram
from trex.astf.api import ASTFTCPClientTemplate, ASTFTCPServerTemplate, ASTFTemplate

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import gateway  # noqa: E402

REQUEST = b"GET / HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n"


def answer(size):
    """An HTTP answer with so many bytes of body."""
    return f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n".encode() + b"x" * size


class HttpProfile:
    """One request and one answer per connection."""

    def get_profile(self, tunables=(), **_):
        options = _arguments().parse_args(list(tunables))
        facts = gateway.load(options.gateway)
        target = gateway.service(facts, "tcp")
        return ASTFProfile(default_ip_gen=self.addresses(facts, target, options.side),
                           templates=ASTFTemplate(**self.templates(target, options)))

    def addresses(self, facts, target, side):
        """Clients dial the VIP; servers listen on the real servers' addresses, whoever dials."""
        first = ipaddress.ip_address(facts["clients_first"])
        clients = ASTFIPGenDist(ip_range=[str(first), str(first + 65_535)], distribution="seq")
        if side == "client":
            servers = ASTFIPGenDist(ip_range=[target["vip"], target["vip"]], distribution="seq")
        else:
            rips = sorted(ipaddress.ip_address(address) for address, _ in target["real_servers"])
            servers = ASTFIPGenDist(ip_range=[str(rips[0]), str(rips[-1])], distribution="seq")
        return ASTFIPGen(glob=ASTFIPGenGlobal(ip_offset="0.0.0.0"), dist_client=clients, dist_server=servers)

    def templates(self, target, options):
        """What both sides of a connection say."""
        reply = answer(options.size)
        client = ASTFProgram()
        client.send(REQUEST)
        client.recv(len(reply))
        server = ASTFProgram()
        server.recv(len(REQUEST))
        if options.delay_ms:
            server.delay(options.delay_ms * 1000)
        server.send(reply)
        port = target["port"] if options.side == "client" else target["real_servers"][0][1]
        generator = self.addresses(gateway.load(options.gateway), target, options.side)
        return {
            "client_template": ASTFTCPClientTemplate(program=client, ip_gen=generator, cps=options.cps, port=port),
            "server_template": ASTFTCPServerTemplate(program=server, assoc=ASTFAssociationRule(port=port)),
        }


def _arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", choices=("client", "server"), default="client")
    parser.add_argument("--cps", type=int, default=10_000)
    parser.add_argument("--delay_ms", type=int, default=0)
    parser.add_argument("--size", type=int, default=1)
    parser.add_argument("--gateway", help="gateway.json")
    return parser


def register():
    """What TRex calls."""
    return HttpProfile()
