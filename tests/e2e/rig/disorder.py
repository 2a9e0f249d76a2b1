"""Loss, reordering and duplication on a bridge, without netem: before frames reach the gateway and after they left it.

The ingress hook of each of the bridge's ports drops a share of the frames, sends a share through a TAP device where a
thread keeps each for a few milliseconds before it comes back (so it arrives late: reordering), and copies a share into
the same TAP (it arrives twice). The TAP is a port of the bridge that learns no address and is flooded with none: what
comes out of it goes on to where it was going.
"""

import fcntl
import json
import os
import select
import struct
import threading
import time
from collections import deque

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000


class Disorder:
    """In force between `with` and its end on what comes in at `ports` of a bridge; shares are per thousand frames."""

    def __init__(self, namespace, bridge, ports, lost=0, late=0, twice=0, delay=0.003):
        self.namespace, self.bridge, self.ports, self.delay = namespace, bridge, ports, delay
        self.shares = {"lost": lost, "late": late, "twice": twice}
        self.returned = 0
        self._tap_name = f"late-{bridge}"
        self._table = f"disorder-{bridge}"

    def __enter__(self):
        with self.namespace.entered():
            self._tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(self._tap, TUNSETIFF, struct.pack("16sH", self._tap_name.encode(), IFF_TAP | IFF_NO_PI))
        self.namespace.run("ip", "link", "set", "dev", self._tap_name, "master", self.bridge, "up")
        self.namespace.run("bridge", "link", "set", "dev", self._tap_name, "learning", "off", "flood", "off",
                           "mcast_flood", "off", "bcast_flood", "off")
        self.namespace.nft("\n".join([f"table netdev {self._table} {{", *self._counters(), *self._chains(), "}"]))
        self._end_read, self._end_write = os.pipe()
        self._thread = threading.Thread(target=self._hold, name="disorder", daemon=True)
        self._thread.start()
        return self

    def _in_use(self):
        return [kind for kind, share in self.shares.items() if share]

    def _counters(self):
        return [f"counter {port}-{kind} {{ }}" for port in self.ports for kind in self._in_use()]

    def _chains(self):
        verdicts = {"lost": "drop", "late": f'fwd to "{self._tap_name}"', "twice": f'dup to "{self._tap_name}"'}
        for port in self.ports:
            yield f'chain {port} {{ type filter hook ingress device "{port}" priority 0;'
            for kind in self._in_use():
                yield f'numgen random mod 1000 < {self.shares[kind]} counter name "{port}-{kind}" {verdicts[kind]}'
            yield "}"

    def counts(self):
        """Frames by `port-lost`, `port-late` and `port-twice`."""
        listed = json.loads(self.namespace.run("nft", "-j", "list", "table", "netdev", self._table).stdout)["nftables"]
        return {entry["counter"]["name"]: entry["counter"]["packets"] for entry in listed if "counter" in entry}

    def _hold(self):
        waiting = deque()
        while True:
            pause = None if not waiting else max(0, (waiting[0][0] - time.monotonic()) * 1000)
            ready = select.select([self._tap, self._end_read], [], [], None if pause is None else pause / 1000)[0]
            if self._end_read in ready:
                return
            if self._tap in ready:
                try:
                    while True:
                        waiting.append((time.monotonic() + self.delay, os.read(self._tap, 65536)))
                except BlockingIOError:
                    pass
            while waiting and waiting[0][0] <= time.monotonic():
                try:
                    os.write(self._tap, waiting.popleft()[1])
                    self.returned += 1
                except OSError:  # no room for a moment: one more lost frame
                    pass

    def __exit__(self, *_):
        self.namespace.run("nft", "delete", "table", "netdev", self._table)
        os.write(self._end_write, b"x")
        self._thread.join()
        for fd in (self._tap, self._end_read, self._end_write):
            os.close(fd)
