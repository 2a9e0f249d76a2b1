"""Loss, reordering and duplication on the way into a namespace, without netem.

nftables' ingress hook drops a share of the frames, sends a share through a TAP device where a thread keeps each for a
few milliseconds before it comes back (so it arrives late: reordering), and copies a share into the same TAP (it
arrives twice). The TAP has the interface's MAC, so the kernel takes what comes out of it as its own.
"""

import fcntl
import os
import select
import struct
import threading
import time
from collections import deque

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000


class Disorder:
    """In force between `with` and its end; shares are per thousand frames."""

    def __init__(self, namespace, interface="eth0", loss=0, late=0, twice=0, delay=0.003):
        self.namespace, self.interface, self.delay = namespace, interface, delay
        self.loss, self.late, self.twice = loss, late, twice
        self.returned = 0

    def __enter__(self):
        with self.namespace.entered():
            self._tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(self._tap, TUNSETIFF, struct.pack("16sH", b"late0", IFF_TAP | IFF_NO_PI))
        mac = self.namespace.mac(self.interface)
        self.namespace.run("ip", "link", "set", "dev", "late0", "address", mac, "arp", "off", "up")
        rules = [f"numgen random mod 1000 < {share} {verdict}" for share, verdict in (
            (self.loss, "counter drop"), (self.late, 'counter fwd to "late0"'), (self.twice, 'counter dup to "late0"'))
            if share]
        self.namespace.nft("\n".join(["table netdev disorder {", "chain arriving {",
                                      f'type filter hook ingress device "{self.interface}" priority 0;',
                                      *rules, "}", "}"]))
        self._end_read, self._end_write = os.pipe()
        self._thread = threading.Thread(target=self._hold, name="disorder", daemon=True)
        self._thread.start()
        return self

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
        self.namespace.run("nft", "delete", "table", "netdev", "disorder")
        os.write(self._end_write, b"x")
        self._thread.join()
        for fd in (self._tap, self._end_read, self._end_write):
            os.close(fd)
