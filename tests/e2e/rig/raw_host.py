"""A host that is not a kernel: scapy frames on a packet socket beside the kernel's stack of a namespace.

It has a MAC and addresses of its own that the kernel there knows nothing about, answers ARP and ND for them while it
waits, and sends whatever a test wants, well formed or not.
"""

import select
import socket
import time

from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptDstLLAddr, ICMPv6NDOptSrcLLAddr
from scapy.utils6 import in6_getnsma, in6_getnsmac, inet_pton

from .frames import ARP, Ether, IPv6

ETH_P_ALL = 0x0003


class RawHost:
    """A MAC with addresses on one interface."""

    def __init__(self, namespace, interface, mac, addresses):
        self.mac, self.addresses = mac, list(addresses)
        self._socket = namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)
        self._socket.bind((interface, ETH_P_ALL))
        self._pending = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()

    def send(self, *packets):
        for packet in packets:
            self._socket.send(packet if isinstance(packet, bytes) else bytes(packet))

    def ether(self, destination):
        return Ether(src=self.mac, dst=destination)

    def _next(self, deadline):
        """The next frame from the wire, ARP and ND for our addresses answered on the way; None at the deadline."""
        while True:
            left = deadline - time.monotonic()
            if not select.select([self._socket], [], [], max(left, 0))[0]:
                return None
            raw, address = self._socket.recvfrom(65600)
            if address[2] == 4 or raw[6:12].hex(":") == self.mac:
                continue
            packet = Ether(raw)
            self._answer(packet)
            return packet

    def _answer(self, packet):
        if ARP in packet and packet[ARP].op == 1 and packet[ARP].pdst in self.addresses:
            asked = packet[ARP]
            self.send(self.ether(packet.src) / ARP(op=2, hwsrc=self.mac, psrc=asked.pdst, hwdst=asked.hwsrc,
                                                   pdst=asked.psrc))
        elif ICMPv6ND_NS in packet and packet[ICMPv6ND_NS].tgt in self.addresses:
            asked = packet[ICMPv6ND_NS].tgt
            self.send(self.ether(packet.src) / IPv6(src=asked, dst=packet[IPv6].src, hlim=255)
                      / ICMPv6ND_NA(tgt=asked, R=0, S=1, O=1) / ICMPv6NDOptDstLLAddr(lladdr=self.mac))

    def wait_for(self, match, seconds=2.0, what="a frame that matches"):
        """The first frame not yet taken that matches; others stay for later calls."""
        for index, packet in enumerate(self._pending):
            if match(packet):
                return self._pending.pop(index)
        deadline = time.monotonic() + seconds
        seen = []
        while (packet := self._next(deadline)) is not None:
            if match(packet):
                return packet
            seen.append(packet.summary())
            self._pending.append(packet)
        raise AssertionError(f"no frame within {seconds} s: {what}; seen {seen[-20:]}")

    def drain(self, seconds=0.0):
        """Everything that arrived and was not taken."""
        deadline = time.monotonic() + seconds
        while (packet := self._next(deadline)) is not None:
            self._pending.append(packet)
        taken, self._pending = self._pending, []
        return taken

    def resolve(self, address, seconds=2.0):
        """The MAC that answers for an address."""
        ours = next(a for a in self.addresses if (":" in a) == (":" in address))
        if ":" in address:
            group = in6_getnsma(inet_pton(socket.AF_INET6, address))
            self.send(self.ether(in6_getnsmac(group)) / IPv6(src=ours, dst=socket.inet_ntop(socket.AF_INET6, group),
                      hlim=255) / ICMPv6ND_NS(tgt=address) / ICMPv6NDOptSrcLLAddr(lladdr=self.mac))
            answer = self.wait_for(lambda p: ICMPv6ND_NA in p and p[ICMPv6ND_NA].tgt == address, seconds,
                                   f"neighbour advertisement for {address}")
            return answer[ICMPv6NDOptDstLLAddr].lladdr
        self.send(self.ether("ff:ff:ff:ff:ff:ff") / ARP(op=1, hwsrc=self.mac, psrc=ours, pdst=address))
        answer = self.wait_for(lambda p: ARP in p and p[ARP].op == 2 and p[ARP].psrc == address, seconds,
                               f"ARP reply for {address}")
        return answer[ARP].hwsrc
