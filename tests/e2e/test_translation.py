"""Sessions byte by byte: what the gateway changes in a packet, and what it must leave as it is."""

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror
from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6
from scapy.packet import Raw
from scapy.utils import checksum

from rig.frames import defects, toa_of, toa_options
from rig.lab import LIPS, RAW_CLIENT, RAW_SERVER, VIP, VIP6
from rig.wire import drops_after, renewed

pytestmark = pytest.mark.daemon


@pytest.mark.parametrize("tos", [0xBB, 0x03, 0x28])
def test_conformance_C11_dscp_and_ecn_survive_both_ways(gateway, wire, tos):
    wire.client.send(wire.from_client(tos=tos) / UDP(sport=1401, dport=7000) / b"q")
    seen = wire.at_server(UDP)
    assert seen[IP].tos == tos
    wire.server.send(wire.from_server(seen[IP].src, tos=tos) / UDP(sport=7000, dport=seen[UDP].sport) / b"a")
    assert wire.at_client(UDP)[IP].tos == tos


def test_conformance_G2_corruption_is_never_laundered(gateway, any_wire):
    """A segment with a wrong checksum leaves with a wrong one or not at all."""
    wire = any_wire
    gateway.watch.stop()  # the wrong checksum is on purpose; these frames are judged here
    gateway.watch.servers.clear()
    session = wire.open_tcp()
    good = bytes(wire.inbound(session, b"precious payload", flags="PA", seq=1001, ack=wire.SERVER_ISN + 1))
    for bit in range(0, 128, 7):
        bad = bytearray(good)
        bad[-16 + bit // 8] ^= 1 << (bit % 8)
        wire.client.send(bytes(bad))
    wire.exchange(session)
    for packet in wire.server.drain():
        if packet.src == wire.lan_mac and TCP in packet and len(packet[TCP].payload) and \
                bytes(packet[TCP].payload) != b"still here":
            assert defects(bytes(packet)), "a corrupted segment got a right checksum"


def test_conformance_G3_udp_without_checksum_stays_without(gateway, wire):
    wire.client.send(wire.from_client() / UDP(sport=1500, dport=7000, chksum=0) / b"bare")
    seen = wire.at_server(UDP)
    assert seen[UDP].chksum == 0
    wire.server.send(wire.from_server(seen[IP].src) / UDP(sport=7000, dport=seen[UDP].sport, chksum=0) / b"bare")
    assert wire.at_client(UDP)[UDP].chksum == 0


def test_conformance_G4_no_udp_checksum_is_ever_computed_to_zero(gateway, wire):
    """2-byte payloads swept so that some sum comes to 0 on the way out: it must be sent as 0xffff."""
    session, seen = wire.open_udp(b"\0\0")
    # With payload 0 the checksum seen is c; payload c makes the ones' complement sum come to 0.
    critical = seen[UDP].chksum
    for value in {critical, (critical - 1) % 65536, (critical + 1) % 65536, 0xFFFF}:
        wire.client.send(wire.from_client() / UDP(sport=session.cport, dport=7000) / value.to_bytes(2, "big"))
        out = wire.at_server(UDP)
        assert out[UDP].chksum != 0
        assert bytes(out[UDP].payload) == value.to_bytes(2, "big")


def test_conformance_G5_every_odd_length(gateway, any_wire):
    wire = any_wire
    session = wire.open_tcp()
    for length in (1, 2, 3, 5, 17, 63, 255, 1399):
        payload = bytes(range(256)) * 6
        wire.client.send(wire.inbound(session, payload[:length], flags="PA", seq=1001, ack=wire.SERVER_ISN + 1))
        seen = wire.at_server(TCP, match=lambda p: len(p[TCP].payload) == length)
        assert toa_of(seen) == (wire.cip, session.cport)


@pytest.mark.parametrize("quoted", [8, 20], ids=["8bytes", "20bytes"])
@pytest.mark.parametrize("kind,code,mtu", [(3, 4, 1300), (3, 1, 0), (11, 0, 0)])
def test_conformance_F3_a_clients_error_reaches_the_real_server(gateway, wire, kind, code, mtu, quoted):
    session = wire.open_tcp()
    wire.server.send(wire.outbound(session, b"to be complained about", flags="PA", seq=wire.SERVER_ISN + 1,
                                   ack=session.seen_isn + 1))
    data = wire.at_client(TCP, match=lambda p: p[TCP].dport == session.cport and len(p[TCP].payload))
    quote = bytes(data[IP])[:20 + quoted]
    wire.client.send(wire.from_client() / ICMP(type=kind, code=code, nexthopmtu=mtu) / Raw(quote))
    error = wire.at_server(ICMP)
    assert error[IP].src in LIPS and error[IP].src == session.lip
    assert (error[ICMP].type, error[ICMP].code) == (kind, code)
    if mtu:
        # Nothing is added on the way to the client: the figure stays as it is.
        assert error[ICMP].nexthopmtu == mtu
    embedded = error[IPerror]
    assert (embedded.src, embedded.dst) == (RAW_SERVER, session.lip)
    raw = bytes(error[ICMP].payload)
    assert (int.from_bytes(raw[20:22], "big"), int.from_bytes(raw[22:24], "big")) == (7000, session.lport)
    assert int.from_bytes(raw[24:28], "big") == wire.SERVER_ISN + 1
    assert checksum(raw[:20]) == 0, "checksum of the embedded IP header"
    wire.exchange(session)


@pytest.mark.parametrize("kind,code", [(11, 0), (3, 4), (3, 13)])
def test_conformance_F4_F9_an_error_of_the_inside_reaches_the_client(gateway, wire, kind, code):
    session = wire.open_tcp()
    wire.client.send(wire.inbound(session, b"to be complained about", flags="PA", seq=1001, ack=wire.SERVER_ISN + 1))
    data = wire.at_server(TCP, match=lambda p: p[TCP].sport == session.lport and len(p[TCP].payload))
    quote = bytes(data[IP])[:28]
    # The router between gateway and server complains.
    wire.server.send(wire.server.ether(wire.lan_mac) / IP(src="10.2.0.253", dst=session.lip)
                     / ICMP(type=kind, code=code, nexthopmtu=1400 if code == 4 else 0) / Raw(quote))
    error = wire.at_client(ICMP)
    assert error[IP].src == VIP and (error[ICMP].type, error[ICMP].code) == (kind, code)
    if code == 4:
        assert error[ICMP].nexthopmtu == 1400 - 8, "row F9: what TOA adds, the client must leave free"
    embedded = error[IPerror]
    assert (embedded.src, embedded.dst) == (RAW_CLIENT, VIP)
    raw = bytes(error[ICMP].payload)
    assert (int.from_bytes(raw[20:22], "big"), int.from_bytes(raw[22:24], "big")) == (session.cport, 7000)
    assert int.from_bytes(raw[24:28], "big") == 1001, "the sequence number as the client sent it"
    wire.exchange(session)


def test_conformance_F7_errors_never_end_a_session(gateway, wire):
    session = wire.open_tcp()
    data = renewed(wire.from_client(src=VIP, dst=RAW_CLIENT) / TCP(sport=7000, dport=session.cport, seq=wire.SERVER_ISN))
    for kind, code in ((3, 1), (3, 3), (3, 4), (11, 0)) * 25:
        wire.client.send(wire.from_client() / ICMP(type=kind, code=code, nexthopmtu=1400) / Raw(bytes(data[IP])[:28]))
    wire.exchange(session)


def test_conformance_F13_port_unreachable_v6(gateway, wire6):
    session, seen = wire6.open_udp()
    wire6.server.send(wire6.server.ether(wire6.lan_mac) / IPv6(src=wire6.rip, dst=session.lip)
                      / ICMPv6DestUnreach(code=4) / Raw(bytes(seen[IPv6])))
    error = wire6.at_client(ICMPv6DestUnreach)
    assert error[ICMPv6DestUnreach].code == 4 and error[IPv6].src == VIP6
    raw = bytes(error[ICMPv6DestUnreach].payload)
    assert int.from_bytes(raw[40:42], "big") == session.cport


def test_conformance_H12_retransmissions_keep_their_lease(gateway, wire):
    session, _ = wire.open_udp()
    for _ in range(5):
        wire.client.send(wire.from_client() / UDP(sport=session.cport, dport=7000) / b"again")
        assert wire.at_server(UDP)[UDP].sport == session.lport
    packet = wire.from_client() / TCP(sport=19999, dport=7000, flags="S", seq=5)
    wire.client.send(*[packet] * 5)
    seen = [wire.at_server(TCP, match=lambda p: p[TCP].flags == "S") for _ in range(5)]
    assert len({(p[IP].src, p[TCP].sport, p[TCP].seq) for p in seen}) == 1
    assert len(gateway.control.sessions(client=f"{RAW_CLIENT}:19999")) == 1


def test_conformance_H14_a_stranger_on_the_inside_reaches_nobody(gateway, wire):
    session = wire.open_tcp()
    stranger = wire.server.ether(wire.lan_mac) / IP(src="10.2.0.78", dst=session.lip)
    frames = [stranger / TCP(sport=7000, dport=session.lport, flags="A"),
              stranger / UDP(sport=7000, dport=session.lport) / b"x",
              wire.from_server(session.lip) / TCP(sport=7001, dport=session.lport, flags="PA") / b"x"]
    drops_after(gateway, lambda: wire.server.send(*frames), "no_session_outbound", 3)
    assert not [p for p in wire.client.drain() if p.src == wire.wan_mac and (TCP in p or UDP in p)]
    wire.exchange(session)


def test_conformance_I4_a_segment_without_session_is_reset(gateway, any_wire):
    wire = any_wire
    def send():
        wire.client.send(wire.from_client() / TCP(sport=18000, dport=7000, flags="PA", seq=77, ack=88) / b"lost")
    drops_after(gateway, send, "no_session", 1)
    reset = wire.at_client(TCP)
    assert "R" in reset[TCP].flags and reset[TCP].seq == 88


def test_conformance_I7_a_blind_reset_ends_nothing(gateway, any_wire):
    wire = any_wire
    session = wire.open_tcp()
    wire.exchange(session)
    for offset in (0x10000000, 0x40000000, 0x7FFFFFFF, 0xC0000000):
        wire.client.send(wire.inbound(session, flags="R", seq=(1001 + offset) % 2**32))
        wire.server.send(wire.outbound(session, flags="R", seq=(wire.SERVER_ISN + offset) % 2**32))
    wire.exchange(session)
    assert gateway.control.sessions(client=wire.client_endpoint(session))[0]["state"] == "ESTABLISHED"


def test_conformance_I17_options_pass_untouched(gateway, wire):
    options = [("MSS", 1200), ("NOP", None), ("WScale", 7), ("SAckOK", b""), (34, b"\x01\x02\x03\x04"), (77, b"ab")]
    wire.client.send(wire.from_client() / TCP(sport=17001, dport=7000, flags="SEC", seq=9, urgptr=3, reserved=2,
                                              options=options))
    seen = wire.at_server(TCP)
    kept = [(k, v) for k, v in seen[TCP].options if k not in ("EOL",) and k != 254]
    assert [k for k, _ in kept if k != "NOP"] == ["MSS", "WScale", "SAckOK", "TFO", 77]
    assert seen[TCP].flags == "SEC" and seen[TCP].urgptr == 3


@pytest.mark.parametrize("kind,length", [(254, 8), (253, 20), (254, 20)])
def test_conformance_J2_a_forged_toa_never_arrives(gateway, any_wire, kind, length):
    wire = any_wire
    forged = [(kind, b"\x12\x34" + b"\x0a" * (length - 4))]
    cport = 16000 + kind + length
    wire.client.send(wire.from_client() / TCP(sport=cport, dport=7000, flags="S", seq=1, options=forged))
    seen = wire.at_server(TCP)
    assert toa_options(seen) == [] or toa_of(seen) == (wire.cip, cport)
    session = wire.open_tcp()
    wire.client.send(wire.inbound(session, b"data", flags="PA", seq=1001, ack=wire.SERVER_ISN + 1, options=forged))
    data = wire.at_server(TCP, match=lambda p: len(p[TCP].payload))
    assert len(toa_options(data)) == 1 and toa_of(data) == (wire.cip, session.cport)
    # After the server's first byte was acknowledged no TOA is due: then there must be none at all.
    wire.server.send(wire.outbound(session, b"four", flags="PA", seq=wire.SERVER_ISN + 1, ack=session.seen_isn + 5))
    wire.at_client(TCP, match=lambda p: bytes(p[TCP].payload) == b"four")
    wire.client.send(wire.inbound(session, b"more", flags="PA", seq=1005, ack=wire.SERVER_ISN + 5, options=forged))
    later = wire.at_server(TCP, match=lambda p: bytes(p[TCP].payload) == b"more")
    assert toa_options(later) == []


def test_conformance_J3_no_room_for_toa_breaks_nothing(gateway, wire):
    session = wire.open_tcp()
    full = [("NOP", None)] * 2 + [("Timestamp", (5, 6)), ("SAck", (1, 2, 3, 4, 5, 6))] + [("NOP", None)] * 2
    wire.client.send(wire.inbound(session, b"squeezed", flags="PA", seq=1001, ack=wire.SERVER_ISN + 1, options=full))
    seen = wire.at_server(TCP, match=lambda p: bytes(p[TCP].payload) == b"squeezed")
    # Their values are translated with the sequence numbers; none is given up for TOA.
    assert len(dict(o for o in seen[TCP].options if o[0] == "SAck")["SAck"]) == 6
    assert toa_options(seen) == [], "40 bytes of options leave no room"
    wire.exchange(session)


@pytest.mark.parametrize("flags", [0, "DF"], ids=["may-fragment", "dont-fragment"])
def test_conformance_J4_a_full_sized_first_segment_arrives(gateway, wire, flags):
    """1,500 bytes as the first data of a session: there is no room for TOA, and nothing is lost for it."""
    session = wire.open_tcp()
    payload = b"m" * 1460
    packet = wire.inbound(session, payload, flags="PA", seq=1001, ack=wire.SERVER_ISN + 1)
    packet[IP].flags = flags
    wire.client.send(packet)
    seen = wire.at_server(TCP, match=lambda p: len(p[TCP].payload))
    assert bytes(seen[TCP].payload) == payload and len(seen) == 1514
    assert seen[IP].flags == packet[IP].flags and toa_of(seen) is None


def test_conformance_J4_a_full_sized_first_segment_arrives_v6(gateway, wire6):
    session = wire6.open_tcp()
    payload = b"m" * 1440
    wire6.client.send(wire6.inbound(session, payload, flags="PA", seq=1001, ack=wire6.SERVER_ISN + 1))
    seen = wire6.at_server(TCP, match=lambda p: len(p[TCP].payload))
    assert bytes(seen[TCP].payload) == payload and toa_of(seen) is None


@pytest.mark.parametrize("mss", [1460, 1400, 536, None])
def test_conformance_J5_the_servers_mss_makes_room_and_never_grows(gateway, wire, mss):
    options = [("MSS", mss)] if mss else []
    cport = 15000 + (mss or 0)
    wire.client.send(wire.from_client() / TCP(sport=cport, dport=7000, flags="S", seq=1, options=options))
    syn_seen = wire.at_server(TCP, match=lambda p: p[TCP].flags == "S")
    told = dict(o for o in syn_seen[TCP].options if o[0] == "MSS").get("MSS")
    assert told is None if mss is None else told <= mss
    wire.server.send(wire.from_server(syn_seen[IP].src) / TCP(
        sport=7000, dport=syn_seen[TCP].sport, flags="SA", seq=9, ack=syn_seen[TCP].seq + 1, options=options))
    answer = wire.at_client(TCP, match=lambda p: p[TCP].dport == cport)
    told = dict(o for o in answer[TCP].options if o[0] == "MSS").get("MSS")
    assert told is None if mss is None else told <= min(mss, 1460 - 8)


def test_conformance_A10_short_frames_carry_no_foreign_bytes(gateway, wire):
    """A frame full of secrets first, then answers that are padded: every pad byte is zero (the watch checks all)."""
    session = wire.open_tcp()
    wire.client.send(wire.inbound(session, b"\xee" * 1000, flags="PA", seq=1001, ack=wire.SERVER_ISN + 1))
    wire.at_server(TCP, match=lambda p: len(p[TCP].payload) == 1000)
    for _ in range(50):
        wire.client.send(wire.from_client() / TCP(sport=14000, dport=4444, flags="S"))
        assert not any(bytes(wire.at_client(TCP))[54:])
