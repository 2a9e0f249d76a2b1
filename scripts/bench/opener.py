"""Opens sessions through the gateway: plays clients and real servers on one interface, both behind one router.

usage: opener.py INTERFACE GATEWAY-MAC SESSIONS KIND, the kind as traffic.py has it. Run in the network namespace of the
interface; ends when every session is open, or with status 1 if some do not open. Without state for a session but whether
it is open: a SYN that comes out of the gateway is answered by SYN-ACK, a SYN-ACK by the client's ACK, a datagram that comes
out says itself whose it is, and what does not get on is begun again.
"""

import errno
import select
import socket
import struct
import sys
import time

import traffic

ETH_P_ALL, SO_RCVBUFFORCE = 3, 33
# Sessions under way: fewer frames than a ring of af_packet holds, with those that the gateway sends for each.
WINDOW = 512
PATIENCE_SECS = 0.2
GIVE_UP_SECS = 10
# Of the number that a datagram carries.
NUMBER_LEN = 8
# Sessions between two words about how it goes.
TOLD = 100_000


class Opener:
    """Flows 0 to `sessions` - 1."""

    def __init__(self, interface, gateway_mac, sessions, kind):
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self.socket.bind((interface, 0))
        self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        self.socket.setblocking(False)
        self.gateway_mac, self.sessions, self.kind, self.family = gateway_mac, sessions, kind, traffic.family(kind)
        self.opened, self.under_way = 0, {}
        self.begun = self.introduced = 0

    def run(self):
        """Whether all sessions are open."""
        progress = time.monotonic()
        while self.opened < self.sessions:
            before = self.opened, self.introduced
            self.begin()
            if not self.receive():
                self.begin_again()
                select.select([self.socket], [], [], PATIENCE_SECS)
            now = time.monotonic()
            if before != (self.opened, self.introduced):
                progress = now
                if before[0] // TOLD != self.opened // TOLD:
                    self.tell()
            elif now - progress > GIVE_UP_SECS:
                return False
        return True

    def tell(self):
        """How it goes, on the standard error."""
        print(f"opened {self.opened:,} of {self.sessions:,} sessions", file=sys.stderr, flush=True)

    def begin(self):
        """Introduces the router, then keeps the window full."""
        if not self.introduced:
            for answers in (False, True):
                self.introduce(answers)
            return
        now = time.monotonic()
        while len(self.under_way) < WINDOW and self.begun < self.sessions:
            self.begin_session(self.begun, now)
            self.begun += 1

    def introduce(self, answers):
        """The router asks for the gateway or answers it."""
        self.send(traffic.neighbour_frame(answers, self.family.side_router, self.family.side_gateway, self.gateway_mac))

    def begin_again(self):
        """What has not got on for a while."""
        now = time.monotonic()
        for number in [number for number, since in self.under_way.items() if now - since > PATIENCE_SECS]:
            self.begin_session(number, now)

    def begin_session(self, number, now):
        self.under_way[number] = now
        ends = traffic.client_ends(number, self.family)
        if self.kind.startswith("tcp"):
            self.send(traffic.segment(ends, traffic.SYN, traffic.CLIENT_ISN, timestamps=(1, 0), to=self.gateway_mac))
        else:
            self.send(traffic.datagram(ends, number.to_bytes(NUMBER_LEN, "big"), self.gateway_mac))

    def receive(self):
        """Answers what has come; how many frames that were."""
        count = 0
        while count < 4 * WINDOW:
            try:
                frame = self.socket.recv(2048)
            except BlockingIOError:
                break
            count += 1
            of = self.family
            if frame[12:14] == traffic.ETHERTYPE_ARP:
                self.arp(frame)
            elif frame[12:14] == of.ethertype and len(frame) >= of.l4_at + 16:
                if frame[of.protocol_at] == traffic.TCP:
                    self.tcp(frame)
                elif frame[of.protocol_at] == traffic.UDP:
                    self.is_open(int.from_bytes(frame[of.l4_at + 8:of.l4_at + 8 + NUMBER_LEN], "big"))
                elif frame[of.protocol_at] == traffic.ICMPV6:
                    self.neighbour_discovery(frame[of.l4_at:])
        return count

    def arp(self, frame):
        """The gateway's answer to our question, or its own about our router."""
        self.neighbour(frame[20:22] == b"\x00\x02", frame[20:22] == b"\x00\x01", frame[38:42])

    def neighbour_discovery(self, message):
        """The same. What the gateway advertises unasked answers nothing."""
        flags, target = struct.unpack_from("!I16s", message, 4)
        answers = message[0] == traffic.ADVERTISEMENT and flags & traffic.SOLICITED
        self.neighbour(answers, message[0] == traffic.SOLICITATION, target)

    def neighbour(self, answers, asks, target):
        if answers:
            self.introduced += 1
        elif asks and target == traffic.packed(self.family.side_router):
            self.introduce(True)

    def tcp(self, frame):
        of = self.family
        src, dst = frame[of.source], frame[of.destination]
        sport, dport, seq = struct.unpack_from("!HHI", frame, of.l4_at)
        flags = frame[of.l4_at + 13]
        if flags == traffic.SYN:
            at = frame.find(b"\x08\x0a", of.l4_at + 20)
            sent, = struct.unpack_from("!I", frame, at + 2)
            self.send(traffic.segment((dst, dport, src, sport), traffic.SYN | traffic.ACK, traffic.SERVER_ISN, seq + 1,
                                      timestamps=(1, sent), to=self.gateway_mac))
        elif flags == traffic.SYN | traffic.ACK and src == traffic.packed(of.vip):
            number = traffic.flow(dst, dport)
            self.send(traffic.established_frame(number, of, self.gateway_mac))
            self.is_open(number)

    def is_open(self, number):
        if self.under_way.pop(number, None) is not None:
            self.opened += 1

    def send(self, frame):
        while True:
            try:
                self.socket.send(frame)
                return
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.ENOBUFS):
                    raise
                select.select([], [self.socket], [], 0.01)


def main(interface, gateway_mac, sessions, kind):
    opener = Opener(interface, bytes.fromhex(gateway_mac.replace(":", "")), int(sessions), kind)
    done = opener.run()
    opener.tell()
    return 0 if done else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
