"""Clients of servers that are told by PROXY protocol whose connection it is: what they are, and what the server was told."""

import hashlib
import ipaddress
import socket

from .peer_server import blocks
from .proxy_server import GREETING

# One header per connection: what a real server was told is the client's and the address that it dialled.
NGINX_SAYS = "$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_addr $proxy_protocol_server_port"


def end(address, port):
    address = ipaddress.ip_address(address)
    return getattr(address, "ipv4_mapped", None) or address, int(port)


def ask_http(lab, vip, port, timeout=5.0):
    """One request: both ends as the client knows them, and as the server was told (perhaps the client's alone)."""
    with lab.client.connect(vip, port, timeout=timeout) as client:
        mine = end(*client.getsockname()[:2]), end(vip, port)
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        words = b"".join(iter(lambda: client.recv(4096), b"")).split(b"\r\n\r\n", 1)[1].decode().split()
    told = tuple(end(*words[at:at + 2]) for at in range(1, len(words), 2))
    return mine[:len(told)], told


def ask_peer(lab, vip, port, size=0, timeout=5.0, meanwhile=lambda mine: None):
    """The greeting before a byte is sent, whose connection the server was told it is, and `size` bytes back again."""
    with lab.client.connect(vip, port, timeout=timeout) as client:
        mine = end(*client.getsockname()[:2]), end(vip, port)
        file = client.makefile("rb")
        assert file.readline() == GREETING
        words = file.readline().decode().split()
        meanwhile(mine[0])
        sent, got = hashlib.sha256(), hashlib.sha256()
        for block in blocks(size, 3):
            for at in range(0, len(block), 1 << 15):
                piece = block[at:at + (1 << 15)]
                client.sendall(piece)
                sent.update(piece)
                got.update(file.read(len(piece)))
        client.shutdown(socket.SHUT_WR)
        assert file.read() == b""
    assert got.digest() == sent.digest()
    return mine, (end(*words[:2]), end(*words[2:]))


def discarded_sacks(namespaces):
    """SACK blocks that kernels took for nonsense. Those are not counted that are D-SACKs which came more often than there
    were retransmissions ("dubious"): Linux repeats one on every segment that it cuts a burst into."""
    counted = [one.counters("TcpExtTCPSACKDiscard", "TcpExtTCPDSACKIgnoredDubious").values() for one in namespaces]
    return sum(discarded - dubious for discarded, dubious in counted)
