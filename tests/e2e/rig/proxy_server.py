#!/usr/bin/python3
"""A server that speaks first and reads PROXY protocol headers itself, run inside a real server's namespace.

usage: proxy_server.py PORT
TCP, IPv4 and IPv6: sends `220 hello` at once, reads a header of version 1 or 2, answers `SOURCE PORT DESTINATION PORT` in a
line as the header has it, and sends back whatever comes after until the client's end.
UDP: answers `SOURCE PORT DESTINATION PORT ` and what follows the header; `- ` and the datagram if it has none.
"""

import asyncio
import ipaddress
import socket
import struct
import sys

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
GREETING = b"220 hello\n"
ADDRESS_LEN = {1: 4, 2: 16}


def read_v2(header):
    """What a whole header of version 2 says: (source, its port, destination, its port), and the transport."""
    command, kind, length = struct.unpack("!BBH", header[12:16])
    size = ADDRESS_LEN[kind >> 4]
    assert command == 0x21 and length == 2 * size + 4 == len(header) - 16, header
    addresses = [ipaddress.ip_address(header[16 + at:16 + at + size]) for at in (0, size)]
    ports = struct.unpack("!HH", header[16 + 2 * size:])
    return (addresses[0], ports[0], addresses[1], ports[1]), kind & 15


def read_v1(line):
    word, family, src, dst, sport, dport = line.removesuffix(b"\r\n").decode().split(" ")
    version = {"TCP4": 4, "TCP6": 6}[family]
    addresses = [ipaddress.ip_address(text) for text in (src, dst)]
    assert word == "PROXY" and all(address.version == version for address in addresses), line
    return addresses[0], int(sport), addresses[1], int(dport)


def line_of(said):
    return " ".join(map(str, said)).encode()


async def serve(reader, writer):
    try:
        writer.write(GREETING)
        header = await reader.readexactly(12)
        if header == SIGNATURE:
            header += await reader.readexactly(4)
            said, transport = read_v2(header + await reader.readexactly(int.from_bytes(header[14:16], "big")))
            assert transport == 1, "not a stream"
        else:
            said = read_v1(header + await reader.readuntil(b"\r\n"))
        writer.write(line_of(said) + b"\n")
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except (AssertionError, ValueError, KeyError, asyncio.IncompleteReadError) as error:
        writer.write(f"bad header: {error!r}\n".encode())
    except ConnectionError:
        pass
    finally:
        writer.close()


class Datagrams(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, peer):
        if not data.startswith(SIGNATURE):
            return self.transport.sendto(b"- " + data, peer)
        end = 16 + int.from_bytes(data[14:16], "big")
        said, transport = read_v2(data[:end])
        assert transport == 2, "not a datagram"
        self.transport.sendto(line_of(said) + b" " + data[end:], peer)


async def main():
    port = int(sys.argv[1])
    loop = asyncio.get_running_loop()
    for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        datagrams = socket.socket(family, socket.SOCK_DGRAM)
        if family == socket.AF_INET6:
            datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        datagrams.bind((host, port))
        await loop.create_datagram_endpoint(Datagrams, sock=datagrams)
    listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
    async with await asyncio.start_server(serve, sock=listener) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
