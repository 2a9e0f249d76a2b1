"""The frames of the benches, and the arithmetic of results."""

import ipaddress
import itertools
import pathlib
import struct
import sys
import tomllib

import pytest
from scapy.layers.inet import TCP, UDP
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptDstLLAddr, ICMPv6NDOptSrcLLAddr
from scapy.layers.l2 import Ether

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
    flows = [(frame[26:30], frame[34:36]) for frame in of_clients(tmp_path / "a.pcap", "udp4")]
    assert len(set(flows)) == 10_000
    assert flows != sorted(flows)


def test_few_sessions_are_drawn_until_the_file_is_long_enough(tmp_path):
    traffic.write_pcap(tmp_path / "a.pcap", 10)
    flows = [frame[26:36] for frame in of_clients(tmp_path / "a.pcap", "udp4")]
    assert len(set(flows)) == 10 and len(flows) == traffic.FRAMES_MIN


def of_clients(path, kind):
    """Without the neighbours' introductions."""
    protocol_at = traffic.family(kind).protocol_at
    return [frame for frame in frames(path) if frame[protocol_at] in (traffic.TCP, traffic.UDP)]


def as_computed(frame):
    """The same with lengths and checksums as scapy computes them."""
    packet = Ether(frame)
    for layer in packet.iterpayloads():
        for field in ("chksum", "cksum", "len", "plen", "dataofs"):
            if field in layer.fields:
                delattr(layer, field)
    return bytes(packet)


@pytest.mark.parametrize("kind, length", [("udp4", 60), ("tcp4", 66), ("udp6", 64), ("tcp6", 86)])
def test_checksums_and_lengths_are_right(kind, length):
    for number in range(0, 100_000, 977):
        frame = traffic.FRAMES[kind](number, traffic.family(kind))
        assert len(frame) == length
        assert as_computed(frame) == frame
        layer = Ether(frame)[{"udp": UDP, "tcp": TCP}[kind[:3]]]
        assert (layer.sport, layer.dport) == (traffic.client(number)[1], 80)


@pytest.mark.parametrize("of", [traffic.V4, traffic.V6])
def test_a_client_says_which_flow_it_is(of):
    for number in (0, 1, 63, 64, 999_999):
        assert traffic.flow(*traffic.client(number, of)) == number


def test_neighbours_of_ipv6_introduce_themselves_by_neighbour_discovery():
    found = [Ether(frame) for frame in traffic.introductions(traffic.V6)]
    asked, answered = found[::2], found[1::2]
    neighbours = [traffic.V6.router, *traffic.V6.real_servers]
    assert [message["IPv6"].src for message in asked] == [message["IPv6"].src for message in answered] == neighbours
    assert {message["IPv6"].hlim for message in found} == {255}
    assert {message[ICMPv6ND_NS].tgt for message in asked} == {traffic.V6.gateway}
    assert [message[ICMPv6ND_NA].tgt for message in answered] == neighbours
    assert {(message[ICMPv6ND_NA].S, message[ICMPv6ND_NA].O) for message in answered} == {(1, 1)}
    told = [*(message[ICMPv6NDOptSrcLLAddr] for message in asked), *(message[ICMPv6NDOptDstLLAddr] for message in answered)]
    assert {option.lladdr for option in told} == {traffic.PEER_MAC.hex(":")}
    assert all(as_computed(bytes(message)) == bytes(message) for message in found)


@pytest.mark.parametrize("kind", ["tcp4", "tcp6"])
def test_the_frames_of_a_tcp_file_continue_the_handshake(tmp_path, kind):
    traffic.write_pcap(tmp_path / "a.pcap", 10_000, kind)
    segments, of = of_clients(tmp_path / "a.pcap", kind), traffic.family(kind)
    assert {struct.unpack_from("!II", frame, of.l4_at + 4) for frame in segments} == {(1_001, 5_001)}
    assert {frame[of.l4_at + 12:of.l4_at + 14] for frame in segments} == {b"\x80\x10"}, "32 bytes of header, ACK"
    assert len({frame[of.source] + frame[of.l4_at:of.l4_at + 2] for frame in segments}) == 10_000


@pytest.mark.parametrize("kind", traffic.FRAMES)
def test_the_configuration_fits_the_frames(kind):
    toml = tomllib.loads(traffic.gateway_toml("net_pcap0", 100_000, 1_000, (1, 0), kind, toa=True, side="net_tap0"))
    [service] = toml["service"]
    of = traffic.family(kind)
    frame = traffic.FRAMES[kind](0, of)
    vip = ipaddress.ip_address(frame[of.destination])
    port = struct.unpack_from("!H", frame, of.l4_at + 2)[0]
    assert service["listen"] == (f"{vip}:{port}" if kind.endswith("4") else f"[{vip}]:{port}")
    assert service["protocol"] == {17: "udp", 6: "tcp"}[frame[of.protocol_at]]
    assert service["client_address"] == "toa"
    assert [port["name"] for port in toml["port"]] == ["wire", "side"]
    wire, side = (ipaddress.ip_interface(port["addresses"][0]).network for port in toml["port"])
    assert vip in wire
    [route] = toml["route"]
    assert ipaddress.ip_address(frame[of.source]) in ipaddress.ip_network(route["to"])
    servers = [ipaddress.ip_address(address_of(server["address"])) for server in service["real_server"]]
    assert ipaddress.ip_address(route["via"]) in side and not any(rip in wire or rip in side for rip in servers)


@pytest.mark.parametrize("kind", traffic.FRAMES)
def test_what_is_not_opened_aside_is_on_the_wire(kind):
    """Without a second port, or with real servers behind it."""
    of = traffic.family(kind)
    for side, servers in (None, None), ("net_memif0", of.real_servers):
        toml = tomllib.loads(traffic.gateway_toml("net_pcap0", 100_000, 1_000, (1, 0), kind, side=side, real_servers=servers))
        wire = ipaddress.ip_interface(toml["port"][0]["addresses"][0]).network
        [route], [service] = toml["route"], toml["service"]
        assert ipaddress.ip_address(route["via"]) in wire
        assert all(ipaddress.ip_address(address_of(server["address"])) in wire for server in service["real_server"])


def address_of(written):
    """The address of an address with a port."""
    return written.rpartition(":")[0].strip("[]")


def router(of, answers):
    """The router of the side port asks or answers the gateway."""
    return traffic.neighbour_frame(answers, of.side_router, of.side_gateway)


class Gateway:
    """What a gateway would say to a frame, which may get lost: other ports and sequence numbers, both ways."""

    ISN = 77_000

    def __init__(self, lost, of):
        self.lost, self.of, self.inbox, self.clients, self.established = lost, of, [], {}, set()

    def fileno(self):
        return 0

    def send(self, frame):
        if next(self.lost):
            return
        of = self.of
        if frame == router(of, answers=True):
            return
        if frame == router(of, answers=False):
            self.inbox.append(traffic.neighbour_frame(True, of.side_gateway, of.side_router))
            return
        protocol = frame[of.protocol_at]
        length = struct.pack("!HH", protocol, len(frame) - of.l4_at)
        assert traffic.checksum(frame[of.source] + frame[of.destination] + length + frame[of.l4_at:]) == 0
        assert of is traffic.V6 or traffic.checksum(frame[14:34]) == 0
        src, dst = frame[of.source], frame[of.destination]
        sport, dport, seq, ack = struct.unpack_from("!HHII", frame, of.l4_at)
        lip, rip = traffic.packed(of.lips.split("-")[0]), traffic.packed(of.routed_servers[0])
        if protocol == traffic.UDP:
            assert (dst, dport) == (traffic.packed(of.vip), 80)
            self.established.add((src, sport))
            self.inbox.append(traffic.datagram((lip, 2_000, rip, 8080), frame[of.l4_at + 8:]))
            return
        flags = frame[of.l4_at + 13]
        if flags == traffic.SYN:
            lport = 2_000 + len(self.clients)
            self.clients[lport] = (src, sport)
            self.inbox.append(traffic.segment((lip, lport, rip, 8080), traffic.SYN, self.ISN, timestamps=(9, 0)))
        elif flags == traffic.SYN | traffic.ACK:
            assert (src, sport, dst, ack) == (rip, 8080, lip, self.ISN + 1)
            assert struct.unpack_from("!II", frame, of.l4_at + 24) == (1, 9), "the SYN's own time stamp comes back"
            self.inbox.append(traffic.segment((traffic.packed(of.vip), 80, *self.clients[dport]),
                                              traffic.SYN | traffic.ACK, seq, traffic.CLIENT_ISN + 1))
        else:
            assert (flags, seq, ack) == (traffic.ACK, traffic.CLIENT_ISN + 1, traffic.SERVER_ISN + 1)
            self.established.add((src, sport))

    def recv(self, _):
        if not self.inbox:
            raise BlockingIOError
        return self.inbox.pop(0)


def player_at(gateway, kind):
    player = opener.Opener.__new__(opener.Opener)
    player.__dict__.update(socket=gateway, gateway_mac=traffic.GATEWAY_MAC, sessions=3_000, opened=0, under_way={},
                           begun=0, introduced=0, kind=kind, family=traffic.family(kind))
    return player


@pytest.mark.parametrize("kind", traffic.FRAMES)
@pytest.mark.parametrize("lost", [[False], [False] * 10 + [True]], ids=["nothing", "some"])
def test_the_opener_opens_every_session(monkeypatch, lost, kind):
    gateway = Gateway(itertools.cycle(lost), traffic.family(kind))
    monkeypatch.setattr(opener, "PATIENCE_SECS", 0)
    monkeypatch.setattr(opener.select, "select", lambda *_: None)
    player = player_at(gateway, kind)
    assert player.run()
    assert player.opened == 3_000
    # The last ACK may get lost; every frame of the file repeats it.
    assert len(gateway.established) > 2_500


@pytest.mark.parametrize("kind", ["tcp4", "tcp6"])
def test_the_opener_answers_for_its_router_alone(kind):
    of = traffic.family(kind)
    gateway = Wire(traffic.neighbour_frame(False, of.side_gateway, of.side_router),
                   traffic.neighbour_frame(False, of.side_gateway, of.router))
    player = player_at(gateway, kind)
    assert player.receive() == 2
    assert gateway.sent == [router(of, answers=True)] and not player.introduced


def test_what_the_gateway_advertises_unasked_introduces_nobody():
    of = traffic.V6
    solicited = traffic.neighbour_frame(True, of.side_gateway, of.side_router)
    unasked = Ether(solicited)
    unasked[ICMPv6ND_NA].S = 0
    player = player_at(Wire(bytes(unasked)), "tcp6")
    player.receive()
    assert not player.introduced
    player.socket.inbox.append(solicited)
    player.receive()
    assert player.introduced


class Wire(Gateway):
    """What has come, and what was sent in answer."""

    def __init__(self, *frames):
        self.inbox, self.sent = list(frames), []

    def send(self, frame):
        self.sent.append(frame)


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
