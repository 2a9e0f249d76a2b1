"""The frames of the benches, and the arithmetic of results."""

import ipaddress
import itertools
import pathlib
import struct
import sys
import tomllib

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import instructions  # noqa: E402
import opener  # noqa: E402
import readme  # noqa: E402
import results  # noqa: E402
import traffic  # noqa: E402


def frames(path):
    data = path.read_bytes()
    at = 24
    while at < len(data):
        length = struct.unpack_from("<I", data, at + 8)[0]
        yield data[at + 16:at + 16 + length]
        at += 16 + length


def test_every_session_is_in_the_file_once_and_in_no_order(tmp_path):
    count = traffic.write_pcap(tmp_path / "a.pcap", 10_000)
    found = list(frames(tmp_path / "a.pcap"))
    assert len(found) == count == 10_000 + len(traffic.introductions())
    flows = [(frame[26:30], frame[34:36]) for frame in found if frame[12:14] == b"\x08\x00"]
    assert len(set(flows)) == 10_000
    assert flows != sorted(flows)


def test_few_sessions_are_drawn_until_the_file_is_long_enough(tmp_path):
    traffic.write_pcap(tmp_path / "a.pcap", 10)
    flows = [frame[26:36] for frame in frames(tmp_path / "a.pcap") if frame[12:14] == b"\x08\x00"]
    assert len(set(flows)) == 10 and len(flows) == traffic.FRAMES_MIN


@pytest.mark.parametrize("kind, length, protocol", [("udp4", 60, 17), ("tcp4", 66, 6)])
def test_checksums_are_right(kind, length, protocol):
    frame = traffic.FRAMES[kind](12345)
    assert len(frame) == length
    assert traffic.checksum(frame[14:34]) == 0
    pseudo = frame[26:34] + struct.pack("!BBH", 0, protocol, length - 34)
    assert traffic.checksum(pseudo + frame[34:]) == 0


def test_a_client_says_which_flow_it_is():
    for number in (0, 1, 63, 64, 999_999):
        assert traffic.flow(*traffic.client(number)) == number


def test_the_frames_of_a_tcp_file_continue_the_handshake(tmp_path):
    traffic.write_pcap(tmp_path / "a.pcap", 10_000, "tcp4")
    segments = [frame for frame in frames(tmp_path / "a.pcap") if frame[12:14] == b"\x08\x00"]
    assert {struct.unpack_from("!II", frame, 38) for frame in segments} == {(1_001, 5_001)}
    assert {frame[46:48] for frame in segments} == {b"\x80\x10"}, "32 bytes of header, ACK"
    assert len({frame[26:30] + frame[34:36] for frame in segments}) == 10_000


@pytest.mark.parametrize("kind", ["udp4", "tcp4"])
def test_the_configuration_fits_the_frames(kind):
    toml = tomllib.loads(traffic.gateway_toml("net_pcap0", 100_000, 1_000, (1, 0), kind, toa=True, side="net_tap0"))
    [service] = toml["service"]
    frame = traffic.FRAMES[kind](0)
    vip = ipaddress.IPv4Address(frame[30:34])
    assert service["listen"] == f"{vip}:{struct.unpack_from('!H', frame, 36)[0]}"
    assert service["protocol"] == {17: "udp", 6: "tcp"}[frame[23]]
    assert service["client_address"] == "toa"
    assert [port["name"] for port in toml["port"]] == ["wire", "side"]


class Gateway:
    """What a gateway would say to a frame, which may get lost: other ports and sequence numbers, both ways."""

    ISN = 77_000

    def __init__(self, lost):
        self.lost, self.inbox, self.clients, self.established = lost, [], {}, set()

    def fileno(self):
        return 0

    def send(self, frame):
        if next(self.lost):
            return
        if frame[12:14] == b"\x08\x06":
            asks = frame[20:22] == b"\x00\x01"
            self.inbox += [traffic.arp_frame(2, traffic.SIDE_GATEWAY)] if asks else []
            return
        assert traffic.checksum(frame[14:34]) == 0
        src, dst = frame[26:30], frame[30:34]
        sport, dport, seq, ack = struct.unpack_from("!HHII", frame, 34)
        lip, rip = traffic.packed("10.1.0.128"), traffic.packed("10.3.0.11")
        if frame[47] == traffic.SYN:
            lport = 2_000 + len(self.clients)
            self.clients[lport] = (src, sport)
            self.inbox.append(traffic.segment((lip, lport, rip, 8080), traffic.SYN, self.ISN, timestamps=(9, 0)))
        elif frame[47] == traffic.SYN | traffic.ACK:
            assert (src, sport, dst, ack) == (rip, 8080, lip, self.ISN + 1)
            assert struct.unpack_from("!II", frame, 58) == (1, 9), "the SYN's own time stamp comes back"
            self.inbox.append(traffic.segment((traffic.packed(traffic.VIP), 80, *self.clients[dport]), traffic.SYN | traffic.ACK, seq,
                                              traffic.CLIENT_ISN + 1))
        else:
            assert (frame[47], seq, ack) == (traffic.ACK, traffic.CLIENT_ISN + 1, traffic.SERVER_ISN + 1)
            self.established.add((src, sport))

    def recv(self, _):
        if not self.inbox:
            raise BlockingIOError
        return self.inbox.pop(0)


@pytest.mark.parametrize("lost", [itertools.repeat(False), itertools.cycle([False] * 10 + [True])],
                         ids=["nothing", "some"])
def test_the_opener_completes_every_handshake(monkeypatch, lost):
    gateway = Gateway(lost)
    monkeypatch.setattr(opener, "PATIENCE_SECS", 0)
    monkeypatch.setattr(opener.select, "select", lambda *_: None)
    player = opener.Opener.__new__(opener.Opener)
    player.__dict__.update(socket=gateway, gateway_mac=traffic.GATEWAY_MAC, sessions=3_000, opened=0, under_way={},
                           begun=0, introduced=0)
    assert player.run()
    assert player.opened == 3_000
    # The last ACK may get lost; every frame of the file repeats it.
    assert len(gateway.established) > 2_500


def test_readme_shows_the_curves_that_there_are(tmp_path):
    text = (pathlib.Path(__file__).resolve().parents[3] / "README.md").read_text(encoding="utf-8")
    (tmp_path / "cycles.svg").touch()
    once = readme.shown(text, tmp_path, tmp_path)
    assert once.count("](cycles.svg)") == 1 and "](forward.svg)" not in once
    (tmp_path / "forward.svg").touch()
    assert readme.shown(once, tmp_path, tmp_path).count(".svg)") == 2
    (tmp_path / "cycles.svg").unlink()
    (tmp_path / "forward.svg").unlink()
    assert ".svg)" not in readme.shown(once, tmp_path, tmp_path)


def test_what_is_measured_once_has_a_minimum_too():
    entry = results.result("case", {}, 5, "s")
    assert entry["runs"] == {"min": 5, "median": 5, "max": 5, "count": 1}


def test_a_dearer_part_fails_and_a_cheaper_one_does_not():
    lines, wrong = instructions.compare({"a": 104.0, "b": 96.0, "c": 102.0}, {"a": 100.0, "b": 100.0, "c": 100.0})
    assert len(lines) == 3
    assert len(wrong) == 1 and wrong[0].startswith("a: 104.0 instructions, +4.0%")


def test_a_part_that_is_not_recorded_or_not_counted_fails():
    _, wrong = instructions.compare({"new": 1.0}, {"gone": 1.0})
    assert len(wrong) == 2


@pytest.mark.parametrize("goal, met", [((">=", 0.75, "ratio"), True), (("<=", 0.5, "ratio"), False),
                                       (("<=", 100, "value"), True)])
def test_goals_are_told(goal, met):
    entry = results.result("case", {"n": 1}, 80, "x", "reference", 100, goal=goal)
    assert entry["ratio"] == 0.8 and entry["goal"]["met"] is met


def test_a_disturbance_of_both_cancels_out():
    assert results.paired([10, 5, 10], [20, 10, 20]) == 0.5
