"""MPTCP (RFC 8684) by hand: a client whose segments carry any further options, and a server that says its peer."""

import hashlib
import hmac
import subprocess
import sys

from .frames import TCP
from .netns import wait_until
from .servers import listening

KIND = 30
CAPABLE, JOIN, DSS = 0x0, 0x1, 0x2
VERSION, HMAC_SHA256 = 1, 0x01
DATA_ACK_8 = 0x03
SERVER = """
import socket, sys
listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP)
listener.bind(("0.0.0.0", int(sys.argv[1])))
listener.listen()
connection, client = listener.accept()
print(*client, flush=True)
for _ in sys.stdin:
    print(*connection.getpeername(), flush=True)
"""


class Server:
    """One connection: whom accept() named, and whom getpeername() names whenever it is asked."""

    def __init__(self, namespace, port, inside):
        # A second subflow is refused unless it may come.
        namespace.run("ip", "mptcp", "limits", "set", "subflow", 2)
        self.namespace = namespace
        self.process = namespace.start(*inside(sys.executable, "-c", SERVER, port), stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE, text=True)
        wait_until(lambda: listening(namespace, port), 5, "the MPTCP server")

    def accepted(self):
        return self.process.stdout.readline().split()

    def peer(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().split()

    def close(self):
        self.namespace.end(self.process)


class Client:
    """The keys of a connection; each subflow is a port of its own. `frame`: everything below TCP."""

    KEY, NONCE = b"fullnat!", b"once"

    def __init__(self, host, frame, port):
        self.host, self.frame, self.port = host, frame, port
        self.server_key = None

    def connect(self, sport, *options):
        """The first subflow; the options go with the segment that completes the handshake."""
        begin = bytes([CAPABLE << 4 | VERSION, HMAC_SHA256])
        isn, answer = self._begin(sport, begin)
        self.server_key = answer[2:10]
        self._send(sport, "A", isn, (KIND, begin + self.KEY + self.server_key), *options)
        # Until it has an acknowledgement of data the server takes no second subflow.
        first = int.from_bytes(hashlib.sha256(self.server_key).digest()[-8:], "big") + 1
        self._send(sport, "A", isn, (KIND, bytes([DSS << 4, DATA_ACK_8]) + (first % (1 << 64)).to_bytes(8, "big")))

    def join(self, sport, *options):
        """A second subflow of the same connection, likewise."""
        token = hashlib.sha256(self.server_key).digest()[:4]
        isn, answer = self._begin(sport, bytes([JOIN << 4, 1]) + token + self.NONCE)
        proof = hmac.digest(self.KEY + self.server_key, self.NONCE + answer[-4:], "sha256")[:20]
        self._send(sport, "A", isn, (KIND, bytes([JOIN << 4, 0]) + proof), *options)

    def _begin(self, sport, option):
        self._send(sport, "S", None, (KIND, option))
        answer = self.host.wait_for(lambda p: TCP in p and p[TCP].dport == sport and p[TCP].flags == "SA")[TCP]
        return answer.seq, next(bytes(value) for kind, value in answer.options if kind == KIND)

    def _send(self, sport, flags, isn, *options):
        numbers = {"seq": 1000} if isn is None else {"seq": 1001, "ack": isn + 1}
        self.host.send(self.frame / TCP(sport=sport, dport=self.port, flags=flags, window=65535, options=list(options),
                                        **numbers))
