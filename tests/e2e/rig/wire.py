"""Both ends of the wire in the test's own hands: a raw client, a raw real server, the gateway between them."""

import itertools
from dataclasses import dataclass

from . import lab as addresses
from .frames import IP, TCP, UDP, Ether, IPv6
from .netns import wait_until
from .raw_host import RawHost

_ports = itertools.count(20000)


@dataclass
class Session:
    """A TCP or UDP session through the gateway, as both ends see it."""

    cport: int
    lip: str
    lport: int
    client_isn: int = 0
    """as the client chose it"""
    seen_isn: int = 0
    """the client's as the real server sees it: the gateway rewrites it"""
    server_isn: int = 0


class Wire:
    """`family` 4 or 6; `RAW_CLIENT` dials VIP:7000, `RAW_SERVER` is the one real server of that service."""

    PORT = 7000
    SERVER_ISN = 0x51000000

    def __init__(self, lab, family=4, macs=None):
        """`macs` of the gateway's ports by name, where they are not those of the interfaces behind them."""
        self.lab, self.family = lab, family
        six = family == 6
        self.ip = IPv6 if six else IP
        self.cip = addresses.RAW_CLIENT6 if six else addresses.RAW_CLIENT
        self.rip = addresses.RAW_SERVER6 if six else addresses.RAW_SERVER
        self.vip = addresses.VIP6 if six else addresses.VIP
        self.lips = addresses.LIPS6 if six else addresses.LIPS
        macs = macs or {side: lab.gateway.mac(f"gw-{side}") for side in ("wan", "lan")}
        self.wan_mac, self.lan_mac = macs["wan"], macs["lan"]
        # At the gateway's own link: a bridge in between would drop the frames that are malformed on purpose.
        self.client = RawHost(lab.switch, "wan", addresses.RAW_CLIENT_MAC, [addresses.RAW_CLIENT, addresses.RAW_CLIENT6])
        self.server = RawHost(lab.servers["rs1"], "eth0", addresses.RAW_SERVER_MAC,
                              [addresses.RAW_SERVER, addresses.RAW_SERVER6])

    def close(self):
        self.client.__exit__()
        self.server.__exit__()

    def from_client(self, **ip):
        """Ethernet and IP headers of a packet to the VIP; fields as given."""
        return self.client.ether(self.wan_mac) / self.ip(**{"src": self.cip, "dst": self.vip, **ip})

    def from_server(self, lip, **ip):
        return self.server.ether(self.lan_mac) / self.ip(**{"src": self.rip, "dst": lip, **ip})

    def at_server(self, layer, seconds=2.0, match=lambda p: True):
        """The next packet of a protocol that the gateway sends to the raw server's service."""
        return self.server.wait_for(
            lambda p: p.src == self.lan_mac and self.ip in p and p[self.ip].dst == self.rip and layer in p and match(p),
            seconds, f"{layer.__name__} at the real server")

    def at_client(self, layer, seconds=2.0, match=lambda p: True):
        return self.client.wait_for(
            lambda p: p.src == self.wan_mac and self.ip in p and p[self.ip].dst == self.cip and layer in p and match(p),
            seconds, f"{layer.__name__} at the client")

    def open_tcp(self, cport=None, options=()):
        """A complete handshake; everything as a real stack would send it."""
        cport = cport or next(_ports)
        self.client.send(self.from_client() / TCP(sport=cport, dport=self.PORT, flags="S", seq=1000, window=65535,
                                                  options=list(options)))
        syn = self.at_server(TCP, match=lambda p: p[TCP].flags == "S")
        session = Session(cport, syn[self.ip].src, syn[TCP].sport, 1000, syn[TCP].seq, self.SERVER_ISN)
        self.server.send(self.outbound(session, flags="SA", seq=self.SERVER_ISN, ack=session.seen_isn + 1,
                                       options=list(options)))
        answer = self.at_client(TCP, match=lambda p: p[TCP].dport == cport and p[TCP].flags == "SA")
        assert (answer[TCP].seq, answer[TCP].ack) == (self.SERVER_ISN, 1001)
        self.client.send(self.inbound(session, flags="A", seq=1001, ack=self.SERVER_ISN + 1))
        self.at_server(TCP, match=lambda p: p[TCP].sport == session.lport and p[TCP].flags == "A")
        return session

    def inbound(self, session, payload=b"", **tcp):
        packet = self.from_client() / TCP(**{"sport": session.cport, "dport": self.PORT, "window": 65535, **tcp})
        return packet / payload if payload else packet

    def outbound(self, session, payload=b"", **tcp):
        packet = self.from_server(session.lip) / TCP(
            **{"sport": self.PORT, "dport": session.lport, "window": 65535, **tcp})
        return packet / payload if payload else packet

    def open_udp(self, payload=b"ping", cport=None):
        """One datagram to the real server."""
        cport = cport or next(_ports)
        self.client.send(self.from_client() / UDP(sport=cport, dport=self.PORT) / payload)
        seen = self.at_server(UDP)
        return Session(cport, seen[self.ip].src, seen[UDP].sport), seen

    def client_endpoint(self, session):
        """CIP:cport as the control socket writes it."""
        return f"[{self.cip}]:{session.cport}" if self.family == 6 else f"{self.cip}:{session.cport}"

    def exchange(self, session, payload=b"still here"):
        """Payload in both directions of an open TCP session: the session works."""
        self.client.send(self.inbound(session, payload, flags="PA", seq=1001, ack=self.SERVER_ISN + 1))
        seen = self.at_server(TCP, match=lambda p: p[TCP].sport == session.lport and bytes(p[TCP].payload) == payload)
        assert (seen[TCP].seq - session.seen_isn) % 2**32 == 1
        self.server.send(self.outbound(session, payload, flags="PA", seq=self.SERVER_ISN + 1, ack=session.seen_isn + 1))
        self.at_client(TCP, match=lambda p: p[TCP].dport == session.cport and bytes(p[TCP].payload) == payload)


def renewed(packet):
    """A frame parsed back from its bytes: all computed fields filled in."""
    return Ether(bytes(packet))


def drops_after(gateway, send, reasons, count):
    """Sends, then waits until exactly `count` more packets have been dropped for one of the reasons."""
    reasons = reasons if isinstance(reasons, tuple) else (reasons,)

    def total():
        drops = gateway.control.drops()
        return sum(drops.get(reason, 0) for reason in reasons)

    before, all_before = total(), gateway.control.drops()
    send()

    def moved():
        now = gateway.control.drops()
        return {k: v - all_before.get(k, 0) for k, v in now.items() if v != all_before.get(k, 0)}

    wait_until(lambda: total() - before >= count, 2, lambda: f"{count} x {reasons}; instead {moved()}")
    assert total() - before == count, moved()
