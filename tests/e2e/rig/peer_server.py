#!/usr/bin/python3
"""A server that does what a client asks of it, run inside a real server's namespace.

usage: peer_server.py NAME PORT
TCP and UDP, IPv4 and IPv6 on one port. UDP: answers `NAME CLIENT-ADDRESS CLIENT-PORT ` + the datagram.
TCP: the client sends one line:
    who          answers `NAME ADDRESS PORT` and closes first
    stay         answers the same and leaves closing to the client
    echo         sends back whatever comes until the client's end
    sink         reads until the client's end, then answers the sha256 and closes
    source N S   sends N bytes drawn from seed S and closes
    halfclose N  waits for the client's end first, then sends N bytes
"""

import asyncio
import hashlib
import random
import socket
import sys

CHUNK = 1 << 18


def blocks(count, seed):
    """`count` bytes that depend on `seed`; cheap: one random block, shifted by its number."""
    block = random.Random(seed).randbytes(CHUNK)
    number = 0
    while count > 0:
        stamped = number.to_bytes(8, "big") + block[8:]
        yield stamped[:count]
        count -= CHUNK
        number += 1


class Server:
    def __init__(self, name):
        self.name = name.encode()

    async def serve(self, reader, writer):
        try:
            words = (await reader.readline()).split()
            peer = writer.get_extra_info("peername")
            who = b"%s %s %d\n" % (self.name, peer[0].removeprefix("::ffff:").encode(), peer[1])
            await getattr(self, (words or [b"none"])[0].decode())(reader, writer, who, *map(int, words[1:]))
        except (ConnectionError, AttributeError):
            pass
        finally:
            writer.close()

    async def who(self, reader, writer, who):
        writer.write(who)
        await writer.drain()

    async def stay(self, reader, writer, who):
        writer.write(who)
        await reader.read()

    async def echo(self, reader, writer, who):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()

    async def sink(self, reader, writer, who):
        digest = hashlib.sha256()
        while data := await reader.read(CHUNK):
            digest.update(data)
        writer.write(digest.hexdigest().encode() + b"\n")
        await writer.drain()

    async def source(self, reader, writer, who, count, seed):
        for block in blocks(count, seed):
            writer.write(block)
            await writer.drain()

    async def halfclose(self, reader, writer, who, count):
        await reader.read()
        await self.source(reader, writer, who, count, 1)


class Echo(asyncio.DatagramProtocol):
    def __init__(self, name):
        self.name = name.encode()

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, peer):
        address = peer[0].removeprefix("::ffff:").encode()
        self.transport.sendto(b"%s %s %d " % (self.name, address, peer[1]) + data, peer)


async def main():
    name, port = sys.argv[1], int(sys.argv[2])
    listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=4096)
    server = await asyncio.start_server(Server(name).serve, sock=listener, limit=1 << 20)
    # UDP sockets of their own per family: the answer must leave from the address that was asked.
    for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        sock = socket.socket(family, socket.SOCK_DGRAM)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # SO_RCVBUFFORCE: a burst waits for an interpreter.
        sock.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)
        sock.bind((host, port))
        await asyncio.get_running_loop().create_datagram_endpoint(lambda: Echo(name), sock=sock)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
