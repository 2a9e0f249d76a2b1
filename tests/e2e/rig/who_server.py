#!/usr/bin/python3
"""Python's own http.server, which says whom it takes for its client.

usage: who_server.py ADDRESS PORT
Answers JSON: `accepted`, what accept() said; `peer`, what getpeername() says now; `looked_up`, what
getsockopt(IPPROTO_IP, 4096) says as toa.ko of DPVS would (an IPv6 client of an IPv4 socket), or null. Each is an address and
a port. Connections are kept for further requests.
"""

import http.server
import json
import socket
import sys

SO_TOA_LOOKUP = 4096


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        try:
            found = self.connection.getsockopt(socket.IPPROTO_IP, SO_TOA_LOOKUP, 20)
            looked_up = [socket.inet_ntop(socket.AF_INET6, found[:16]), int.from_bytes(found[16:18], "big")]
        except OSError:
            looked_up = None
        body = json.dumps({"accepted": self.client_address[:2], "peer": self.connection.getpeername()[:2],
                           "looked_up": looked_up}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
    request_queue_size = 1024


if __name__ == "__main__":
    Server((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
