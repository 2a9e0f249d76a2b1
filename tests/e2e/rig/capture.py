"""What passed an interface, kept in memory: a packet socket in the namespace and a thread that empties it."""

import os
import select
import socket
import struct
import threading
from dataclasses import dataclass

from .frames import Ether
from .netns import wait_until

ETH_P_ALL = 0x0003
SOL_PACKET = 263
PACKET_STATISTICS = 6
PACKET_AUXDATA = 8
PACKET_OUTGOING = 4
TP_STATUS_CSUMNOTREADY = 1 << 3
SO_RCVBUFFORCE = 33


@dataclass
class Frame:
    """One frame as the kernel showed it."""

    raw: bytes
    outgoing: bool
    """sent by this namespace itself"""
    checksum_complete: bool
    """false: CHECKSUM_PARTIAL, the checksum was left to a device that will never see the frame"""

    @property
    def packet(self):
        return Ether(self.raw)


class Capture:
    """Frames of one interface from now on; stops by itself after `limit` frames so that bulk traffic is not slowed."""

    def __init__(self, namespace, interface, limit=4000):
        self.namespace, self.interface, self.limit = namespace, interface, limit
        self.frames = []
        self.dropped = 0
        """frames for which the socket had no room"""
        self._socket = namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
        self._socket.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        self._socket.bind((interface, ETH_P_ALL))
        self._socket.setblocking(False)
        self._wake_read, self._wake_write = os.pipe()
        self._thread = threading.Thread(target=self._collect, name=f"capture-{namespace.role}", daemon=True)
        self._thread.start()

    def _collect(self):
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        poller.register(self._wake_read, select.POLLIN)
        while len(self.frames) < self.limit:
            ready = poller.poll()
            self._drain()
            if any(fd == self._wake_read for fd, _ in ready):
                break
        # tpacket_stats: frames that passed the filter, frames dropped of them; what came after the limit does not count.
        if len(self.frames) < self.limit:
            self.dropped = struct.unpack("II", self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[1]
        self._socket.close()

    def _drain(self):
        while len(self.frames) < self.limit:
            try:
                raw, ancillary, _, address = self._socket.recvmsg(65600, 128)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:  # the interface went down; whatever was queued has been read
                return
            status = 0
            for level, kind, data in ancillary:
                if level == SOL_PACKET and kind == PACKET_AUXDATA:
                    status = struct.unpack_from("I", data)[0]
            self.frames.append(Frame(raw, address[2] == PACKET_OUTGOING, not status & TP_STATUS_CSUMNOTREADY))

    def stop(self):
        """Ends the capture; everything that had arrived by now is in `frames`."""
        if self._wake_write is not None:
            os.write(self._wake_write, b"x")
            self._thread.join()
            os.close(self._wake_write)
            os.close(self._wake_read)
            self._wake_write = None
        return self.frames

    def received(self, match=lambda packet: True):
        """Parsed frames that came in over the wire and match."""
        return [p for p in (f.packet for f in list(self.frames) if not f.outgoing) if match(p)]

    def wait_for(self, match, seconds=2.0, what="a frame that matches"):
        """The first frame from the wire that matches."""
        return wait_until(lambda: self.received(match), seconds, lambda: f"{what}; seen: {self.summary()}")[0]

    def summary(self):
        return [f.packet.summary() for f in list(self.frames)[-20:]]
