#!/usr/bin/python3
"""A name server that knows every name, run inside a real server's namespace: A is 192.0.2.1, AAAA 2001:db8::1.

usage: dns_server.py PORT
UDP and TCP, IPv4 and IPv6 (RFC 1035): the question comes back with one answer of its type, or none for other types.
"""

import asyncio
import ipaddress
import socket
import struct
import sys

ADDRESSES = {1: ipaddress.ip_address("192.0.2.1").packed, 28: ipaddress.ip_address("2001:db8::1").packed}


def answer(query):
    """The message that answers `query`, which holds one question."""
    end = query.index(b"\0", 12) + 5
    kind = int.from_bytes(query[end - 4:end - 2], "big")
    data = ADDRESSES.get(kind)
    # QR, AA and the client's own RD; the name is the question's, by a pointer.
    flags = 0x8400 | int.from_bytes(query[2:4], "big") & 0x0100
    record = b"" if data is None else struct.pack("!HHHIH", 0xC00C, kind, 1, 60, len(data)) + data
    return query[:2] + struct.pack("!HHHHH", flags, 1, 1 if record else 0, 0, 0) + query[12:end] + record


class Datagrams(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, peer):
        self.transport.sendto(answer(data), peer)


async def stream(reader, writer):
    try:
        while True:
            size = int.from_bytes(await reader.readexactly(2), "big")
            reply = answer(await reader.readexactly(size))
            writer.write(len(reply).to_bytes(2, "big") + reply)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main():
    port = int(sys.argv[1])
    listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
    server = await asyncio.start_server(stream, sock=listener)
    for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        sock = socket.socket(family, socket.SOCK_DGRAM)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sock.bind((host, port))
        await asyncio.get_running_loop().create_datagram_endpoint(Datagrams, sock=sock)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
