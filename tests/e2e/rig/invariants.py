"""What holds at the end of every test, whatever it was about (see README, "what is promised").

* every frame the gateway sent parses clean, with right lengths, checksums and zero padding;
* the client side never sees an address of the inside anywhere in a frame, the server side never a client's address
  outside TOA and UOA; neither ever appears on the client side;
* rx + originated = tx + drops + held, exactly.
"""

from .capture import Capture
from .frames import ARP, Ether, defects, find_address, toa_options, uoa_of
from .lab import INSIDE, OUTSIDE
from .netns import wait_until


class Watch:
    """Captures on both sides of the gateway from construction to `check()`."""

    def __init__(self, lab, gateway, limit=3000, hairpin=False):
        self.lab, self.gateway, self.hairpin = lab, gateway, hairpin
        self.gateway_macs = set()
        self.client = Capture(lab.client, "eth0", limit)
        self.servers = {name: Capture(ns, "eth0", limit) for name, ns in lab.servers.items() if name != "rs3"}
        self.servers["router"] = Capture(lab.router, "eth0", limit)

    def learn(self):
        """To be called once the gateway runs: which frames are its own."""
        self.gateway_macs = set(self.gateway.macs().values())

    def _from_gateway(self, capture):
        return [f for f in capture.frames if not f.outgoing and f.raw[6:12].hex(":") in self.gateway_macs]

    def stop(self):
        for capture in (self.client, *self.servers.values()):
            capture.stop()

    def check(self):
        """Fails with every violation found."""
        self.stop()
        assert self.gateway_macs, "the gateway never ran"
        lost = {capture.namespace.role: capture.dropped for capture in (self.client, *self.servers.values())
                if capture.dropped}
        assert not lost, f"frames that no capture saw: {lost}"
        found = []
        for frame in self._from_gateway(self.client):
            found += [("client side", text, frame) for text in self._frame(frame, INSIDE)]
            if toa_options(frame.packet):
                found.append(("client side", "a TOA option", frame))
            if uoa_of(frame.raw):
                found.append(("client side", "a UOA option", frame))
        for name, capture in self.servers.items():
            for frame in self._from_gateway(capture):
                found += [(name, text, frame) for text in self._frame(frame, OUTSIDE)]
        assert not found, "\n".join(
            f"{where}: {text} in {frame.packet.summary()} {frame.raw[:120].hex()}" for where, text, frame in found[:10])

    def _frame(self, frame, foreign):
        found = defects(frame.raw, checksums=frame.checksum_complete)
        if self.hairpin or ARP in Ether(frame.raw):
            return found
        return found + [f"address {a} of the other side" for a in foreign if find_address(frame.raw, a)]


def check_accounting(control, seconds=3.0):
    """Every worker's books balance, and between the workers nothing got lost."""
    wait_until(control.at_rest, seconds, lambda: f"packets between workers: {control.workers()}")
    for number, (came, went) in enumerate(control.accounting()):
        assert came == went, (f"worker {number}: rx + handed in + originated = {came}, "
                              f"tx + handed off + drops + held = {went}; drops {control.drops()}")
