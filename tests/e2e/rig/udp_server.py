#!/usr/bin/python3
"""A UDP server that says whom it takes for its client, run inside a real server's namespace.

usage: udp_server.py echo|connected ADDRESS PORT
Answers JSON: `from`, what recvfrom() said of the datagram, an address and a port.
echo: one socket answers everybody by sendto().
connected: the first datagram of a client gets a socket of its own on the same port, connected to the client, which answers
by send() from then on; answers also have `peer`, what its getpeername() says.
"""

import json
import selectors
import socket
import sys


def bound(family, address, port):
    made = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # SO_RCVBUFFORCE: a burst waits for an interpreter.
    made.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)
    made.bind((address, port))
    return made


def main():
    mode, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = bound(family, address, port)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            _, peer = key.fileobj.recvfrom(2048)
            answer = {"from": peer[:2]}
            if mode == "echo":
                listener.sendto(json.dumps(answer).encode(), peer)
                continue
            own = key.fileobj
            if own is listener:
                own = bound(family, address, port)
                own.connect(peer)
                selector.register(own, selectors.EVENT_READ)
            own.send(json.dumps({**answer, "peer": own.getpeername()[:2]}).encode())


if __name__ == "__main__":
    main()
