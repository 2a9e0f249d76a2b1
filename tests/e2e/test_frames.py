"""Frame in, frame or named drop out: rows of the conformance table, byte by byte with scapy."""

import pytest
from scapy.layers.inet import (ICMP, IP, TCP, UDP, IPerror, IPOption_LSRR, IPOption_NOP, IPOption_RR, IPOption_SSRR,
                               UDPerror)
from scapy.layers.inet6 import (ICMPv6DestUnreach, ICMPv6EchoReply, ICMPv6EchoRequest, ICMPv6ND_NA, ICMPv6ND_NS,
                                ICMPv6ParamProblem, ICMPv6TimeExceeded, IPv6, IPv6ExtHdrFragment, IPv6ExtHdrRouting)
from scapy.layers.l2 import ARP, LLC, Dot1AD, Dot1Q, Ether
from scapy.packet import Raw
from scapy.utils import checksum

from rig import gateway as gateways
from rig.lab import (LAN, LIPS, LIPS6, RAW_CLIENT, RAW_CLIENT_MAC, RAW_SERVER, RAW_SERVER_MAC, RIPS, VIP, VIP6, WAN)
from rig.wire import Wire, drops_after, renewed

pytestmark = pytest.mark.daemon


def syn(wire, **ip):
    return wire.from_client(**ip) / TCP(sport=1234, dport=7000, flags="S")


def udp(wire, **ip):
    return wire.from_client(**ip) / UDP(sport=1234, dport=7000) / b"payload"


def edited(packet, offset, data):
    """The bytes of a frame with some of the IP packet overwritten."""
    raw = bytearray(bytes(packet))
    raw[14 + offset:14 + offset + len(data)] = data
    return bytes(raw)


def reheaded(packet, offset, data):
    """The same inside the IPv4 header, whose checksum is right again: only the edit itself is wrong."""
    raw = bytearray(edited(packet, offset, data))
    raw[24:26] = b"\0\0"
    raw[24:26] = checksum(bytes(raw[14:34 + (4 if offset >= 20 else 0)])).to_bytes(2, "big")
    return bytes(raw)


def frame(wire, destination=None, source=None, kind=None, payload=b""):
    header = Ether(dst=destination or wire.wan_mac, src=source or RAW_CLIENT_MAC)
    return (Ether(dst=header.dst, src=header.src, type=kind) if kind else header) / payload


def inner(packet):
    return packet.payload


# id -> (reasons, frames of the client's side)
DROPS_V4 = {
    "A1_broadcast": ("ethernet_group_destination", lambda w: [
        Ether(dst=mac, src=RAW_CLIENT_MAC) / inner(udp(w)) for mac in ("ff:ff:ff:ff:ff:ff", "01:00:5e:01:00:64")]),
    "A2_other_host": ("ethernet_not_for_us", lambda w: [
        Ether(dst="02:00:00:00:99:77", src=RAW_CLIENT_MAC) / inner(udp(w))]),
    "A3_group_source": ("ethernet_group_source", lambda w: [Ether(dst=w.wan_mac, src="01:00:5e:00:00:05") / inner(udp(w))]),
    "A4_vlan": ("ethernet_vlan", lambda w: [
        frame(w, payload=Dot1Q(vlan=10) / inner(udp(w))),
        frame(w, payload=Dot1AD(vlan=10) / Dot1Q(vlan=20) / inner(udp(w)))]),
    "A5_unknown_ethertype": ("ethernet_unknown_type", lambda w: [
        frame(w, kind=0x88B5, payload=b"\0" * 46), frame(w, kind=0x9000, payload=b"\0" * 46),
        bytes(frame(w)[Ether])[:12] + (43).to_bytes(2, "big") + bytes(LLC(dsap=0x42, ssap=0x42, ctrl=3)) + b"\0" * 40]),
    "C1_ip_header": ("ipv4_header", lambda w: [
        reheaded(syn(w), 0, b"\x65"), reheaded(syn(w), 0, b"\x44"), reheaded(syn(w), 0, b"\x4f"),
        reheaded(syn(w), 2, b"\0\x13"), reheaded(syn(w), 2, b"\x05\0")]),
    "C1_ip_checksum": ("ipv4_checksum", lambda w: [edited(syn(w), 10, b"\x12\x34")]),
    "C4_source_route": ("ipv4_source_route", lambda w: [
        syn(w, options=[IPOption_LSRR(routers=["10.2.0.11"])]), syn(w, options=[IPOption_SSRR(routers=["10.2.0.11"])])]),
    "C4_bad_options": ("ipv4_options", lambda w: [
        reheaded(syn(w, options=[IPOption_NOP()] * 4), 20, b"\x07\x27\x04\0"),
        reheaded(syn(w, options=[IPOption_NOP()] * 4), 20, b"\x07\x01\x04\0")]),
    "C5_martians": ("ip_martian_source", lambda w: [
        udp(w, src=src) for src in ("0.1.2.3", "127.0.0.1", "224.0.0.5", "240.0.0.1", "255.255.255.255")]),
    "C6_land": (("land", "ip_spoofed_source"), lambda w: [syn(w, src=VIP), syn(w, src=LIPS[0])]),
    "C8_not_for_us": ("ip_not_for_us", lambda w: [udp(w, dst=dst) for dst in ("10.1.0.255", "224.0.0.5", "192.0.2.9")]),
    "C10_protocols": ("ip_unknown_protocol", lambda w: [
        w.from_client(proto=proto) / bytes(UDP(sport=1234, dport=7000, len=15) / b"payload")
        for proto in (136, 132, 33, 47, 50)]),
    "F2_icmp_checksum": ("icmp_checksum", lambda w: [
        edited(renewed(w.from_client() / ICMP() / b"xxxxxxxx"), 22, b"\x12\x34")]),
    "F6_error_without_session": ("icmp_no_session", lambda w: [
        w.from_client() / ICMP(type=3, code=4, nexthopmtu=1300) / IP(src=VIP, dst=RAW_CLIENT) / TCP(sport=7000, dport=1)]),
    "F10_unhandled_icmp": ("icmp_unhandled", lambda w: [
        w.from_client() / ICMP(type=kind) / bytes(20) for kind in (4, 13, 15, 17)]),
    "B14_redirect": (("icmp_unhandled", "icmp_no_session"), lambda w: [
        w.from_client() / ICMP(type=5, code=1, gw="10.1.0.66") / IP(src=VIP, dst=RAW_CLIENT) / TCP(sport=7000, dport=1)]),
    "I5_flags": (("tcp_flags", "no_session"), lambda w: [
        w.from_client() / TCP(sport=1235, dport=7000, flags=flags) for flags in ("SF", "SR", "", "FPU", "SA")]),
    "I6_data_offset": ("tcp_header", lambda w: [
        w.from_client() / TCP(sport=1236, dport=7000, flags="S", dataofs=4),
        w.from_client() / TCP(sport=1236, dport=7000, flags="S", dataofs=15),
        w.from_client(proto=6) / Raw(b"\x04\xd2\x1b\x58" + b"\0" * 8)]),
    "K2_udp_length": ("udp_header", lambda w: [
        w.from_client() / UDP(sport=1237, dport=7000, len=7) / b"payload",
        w.from_client() / UDP(sport=1237, dport=7000, len=900) / b"payload",
        w.from_client(proto=17) / Raw(b"\x04\xd2\x1b\x58")]),
    "K3_port_zero": ("udp_header", lambda w: [w.from_client() / UDP(sport=1238, dport=0) / b"payload"]),
}


def nothing_at_server(wire):
    for packet in wire.server.drain():
        assert packet.src != wire.lan_mac or not (TCP in packet or UDP in packet), packet.summary()


# The row's id stands in the function's name as well: that is what scripts/conformance.sh reads.
@pytest.mark.parametrize("case", DROPS_V4)
def test_conformance_A1_A2_A3_A4_A5_C1_C4_C5_C6_C8_C10_F2_F6_F10_B14_I5_I6_K2_K3_dropped_by_name(
        gateway, wire, case):
    reasons, build = DROPS_V4[case]
    frames = build(wire)
    drops_after(gateway, lambda: wire.client.send(*frames), reasons, len(frames))
    nothing_at_server(wire)


DROPS_V6 = {
    "D2_routing_header": ("ipv6_routing_header", lambda w: [
        w.from_client() / IPv6ExtHdrRouting(type=0, addresses=["2001:db8:1::100"]) / UDP(sport=1, dport=7000)]),
    "D5_no_udp_checksum": ("udp_checksum_missing", lambda w: [
        edited(renewed(w.from_client() / UDP(sport=1, dport=7000) / b"payload"), 46, b"\0\0")]),
    "D7_sources": ("ip_martian_source", lambda w: [
        w.from_client(src=src) / UDP(sport=1, dport=7000) / b"x" for src in ("ff02::1", "::", "::ffff:10.1.0.77", "::1")]),
    "D9_payload_length": ("ipv6_header", lambda w: [
        edited(renewed(w.from_client() / UDP(sport=1, dport=7000) / b"x"), 4, b"\x05\x00")]),
    "E1_fragments": ("ip_fragment", lambda w: [
        w.from_client() / IPv6ExtHdrFragment(m=1, id=7) / UDP(sport=1234, dport=7000) / b"payload!",
        w.from_client() / IPv6ExtHdrFragment(offset=2, id=7, nh=17) / Raw(b"\0" * 64)]),
    "E3_tiny_first_fragment": ("ip_fragment", lambda w: [
        w.from_client() / IPv6ExtHdrFragment(m=1, id=8, nh=6) / Raw(bytes(TCP(sport=1, dport=7000, flags="S"))[:8])]),
    "D1_truncated_chain": (("ipv6_extension", "ipv6_header"), lambda w: [
        w.from_client(nh=0) / Raw(b"\x3c\0\0\0\0\0\0\0"), w.from_client(nh=60) / Raw(b"\x11\x09\0\0\0\0\0\0")]),
    "K2_udp_length": ("udp_header", lambda w: [
        w.from_client() / UDP(sport=1, dport=7000, len=7) / b"payload",
        w.from_client() / UDP(sport=1, dport=7000, len=900) / b"payload"]),
    "I5_flags": ("tcp_flags", lambda w: [
        w.from_client() / TCP(sport=1235, dport=7000, flags=flags) for flags in ("SF", "SR", "", "FPU")]),
}


@pytest.mark.parametrize("case", DROPS_V6)
def test_conformance_D1_D2_D5_D7_D9_E1_E3_dropped_by_name(gateway, wire6, case):
    reasons, build = DROPS_V6[case]
    frames = build(wire6)
    drops_after(gateway, lambda: wire6.client.send(*frames), reasons, len(frames))
    nothing_at_server(wire6)


def test_conformance_A4_a_priority_tag_is_no_vlan(gateway, wire):
    tagged = frame(wire, payload=Dot1Q(vlan=0, prio=5) / inner(udp(wire)))
    wire.client.send(tagged)
    assert bytes(wire.at_server(UDP)[UDP].payload).startswith(b"payload")


def test_conformance_A6_trailer_is_not_data(gateway, wire):
    wire.client.send(bytes(wire.from_client() / UDP(sport=1300, dport=7000) / b"five!") + b"\xaa" * 18)
    seen = wire.at_server(UDP)
    assert seen[IP].len == 33
    assert bytes(seen[UDP].payload) == b"five!" and b"\xaa\xaa\xaa" not in bytes(seen)


def test_conformance_A7_truncated_frames_of_every_length(gateway, wire):
    whole = bytes(syn(wire))
    assert len(whole) == 54
    frames = [whole[:length] for length in range(14, 54)]
    reasons = ("ethernet_runt", "ipv4_header", "tcp_header", "ethernet_unknown_type")
    drops_after(gateway, lambda: wire.client.send(*frames), reasons, len(frames))
    nothing_at_server(wire)


def arp(wire, asked, port="wan", **fields):
    mac, ip, host, ours = ((RAW_CLIENT_MAC, RAW_CLIENT, wire.client, wire.wan_mac) if port == "wan"
                           else (RAW_SERVER_MAC, RAW_SERVER, wire.server, wire.lan_mac))
    host.send(Ether(src=mac, dst="ff:ff:ff:ff:ff:ff") / ARP(**{"op": 1, "hwsrc": mac, "psrc": ip, "pdst": asked, **fields}))
    return host, mac, ours


@pytest.mark.parametrize("asked,port", [(VIP, "wan"), (WAN, "wan"), (LAN, "lan"), *((lip, "lan") for lip in LIPS)])
def test_conformance_B1_B2_who_has_is_answered_by_unicast(gateway, wire, asked, port):
    host, mac, ours = arp(wire, asked, port)
    answer = host.wait_for(lambda p: ARP in p and p[ARP].op == 2 and p[ARP].psrc == asked)
    assert (answer.dst, answer.src, answer[ARP].hwsrc, answer[ARP].hwdst) == (mac, ours, ours, mac)
    assert not [p for p in host.drain() if ARP in p and p[ARP].op == 2 and p[ARP].psrc == asked], "one reply"


@pytest.mark.parametrize("asked,port", [(VIP, "lan"), (LIPS[0], "wan"), (LAN, "wan"), ("10.1.0.55", "wan")])
def test_conformance_B3_no_answer_for_what_is_not_on_that_port(gateway, wire, asked, port):
    host, _, _ = arp(wire, asked, port)
    # Frames of one host are answered in order: when this answer is there, that one would be.
    held = WAN if port == "wan" else LIPS[1]
    arp(wire, held, port)
    host.wait_for(lambda p: ARP in p and p[ARP].op == 2 and p[ARP].psrc == held)
    assert not [p for p in host.drain() if ARP in p and p[ARP].op == 2 and p[ARP].psrc == asked]


@pytest.mark.parametrize("asked,port", [(VIP, "wan"), (LIPS[0], "lan")])
def test_conformance_B4_an_arp_probe_is_answered(gateway, wire, asked, port):
    host, _, _ = arp(wire, asked, port, psrc="0.0.0.0")
    host.wait_for(lambda p: ARP in p and p[ARP].op == 2 and p[ARP].psrc == asked)


def test_conformance_B8_malformed_arp_changes_nothing(gateway, wire):
    whole = bytes(ARP(op=1, hwsrc=RAW_CLIENT_MAC, psrc=RAW_CLIENT, pdst=VIP))
    head = bytes(Ether(src=RAW_CLIENT_MAC, dst="ff:ff:ff:ff:ff:ff", type=0x0806))

    def variant(at, data):
        return head + whole[:at] + data + whole[at + len(data):]

    frames = [
        variant(4, b"\x07"), variant(5, b"\x05"), variant(2, b"\x86\xdd"), variant(6, b"\0\0"), variant(6, b"\0\x09"),
        head + whole[:27], variant(14, b"\xe0\0\0\x05"), variant(14, b"\xff\xff\xff\xff"),
        variant(8, b"\xff" * 6), variant(8, b"\0" * 6),
    ]
    before = gateway.control.get("/v1/neighbours")
    drops_after(gateway, lambda: wire.client.send(*frames), ("arp_malformed", "ethernet_runt"), len(frames))
    known = {(n["address"], n.get("mac")) for n in before}
    after = {(n["address"], n.get("mac")) for n in gateway.control.get("/v1/neighbours")}
    assert after == known


@pytest.mark.parametrize("asked,side", [(VIP6, "client"), (LIPS6[0], "server")])
def test_conformance_B13_neighbour_solicitation_is_answered(gateway, wire6, asked, side):
    host = getattr(wire6, side)
    assert host.resolve(asked) == (wire6.wan_mac if side == "client" else wire6.lan_mac)


def test_conformance_B13_a_solicitation_from_afar_is_not_answered(gateway, wire6):

    packet = wire6.from_client(dst=VIP6, hlim=64) / ICMPv6ND_NS(tgt=VIP6)
    drops_after(gateway, lambda: wire6.client.send(packet), "nd_malformed", 1)
    assert not [p for p in wire6.client.drain() if ICMPv6ND_NA in p and p[ICMPv6ND_NA].tgt == VIP6]


def test_conformance_C2_ttl(gateway, wire):
    wire.client.send(udp(wire, ttl=64))
    assert wire.at_server(UDP)[IP].ttl == 63
    # The lowest that still goes on.
    wire.client.send(udp(wire, ttl=2))
    assert wire.at_server(UDP)[IP].ttl == 1
    drops_after(gateway, lambda: wire.client.send(udp(wire, ttl=1)), "ip_ttl_exceeded", 1)
    error = wire.at_client(ICMP)
    assert (error[ICMP].type, error[ICMP].code) == (11, 0) and error[IP].src in (VIP, WAN)
    assert (error[IPerror].src, error[IPerror].dst, error[UDPerror].dport) == (RAW_CLIENT, VIP, 7000)
    drops_after(gateway, lambda: wire.client.send(udp(wire, ttl=0)), ("ip_ttl_exceeded", "ipv4_header"), 1)


def test_conformance_D3_hop_limit(gateway, wire6):
    wire6.client.send(wire6.from_client(hlim=64) / UDP(sport=1, dport=7000) / b"x")
    assert wire6.at_server(UDP)[IPv6].hlim == 63
    wire6.client.send(wire6.from_client(hlim=1) / UDP(sport=1, dport=7000) / b"x")
    error = wire6.at_client(ICMPv6TimeExceeded)
    assert error[ICMPv6TimeExceeded].code == 0


def test_conformance_C3_C5_nothing_is_answered_with_an_error_that_must_not_be(gateway, wire):
    """Packets whose TTL is over and that no error may be sent about: RFC 1812 4.3.2.7."""
    expired = udp(wire, ttl=1)
    about = IP(src=VIP, dst=RAW_CLIENT) / TCP(sport=7000, dport=1)
    wire.client.send(
        wire.from_client(ttl=1) / ICMP(type=3, code=1) / about,
        wire.from_client(ttl=1) / ICMP(type=11, code=0) / about,
        frame(wire, destination="ff:ff:ff:ff:ff:ff", payload=inner(expired)),
        frame(wire, destination="01:00:5e:01:00:64", payload=inner(expired)),
        udp(wire, ttl=1, dst="224.0.0.5"), udp(wire, ttl=1, dst="255.255.255.255"), udp(wire, ttl=1, dst="10.1.0.255"),
        udp(wire, ttl=1, src="0.0.0.0"), udp(wire, ttl=1, src="127.0.0.1"), udp(wire, ttl=1, src="224.0.0.5"),
        udp(wire, ttl=1, src="255.255.255.255"))
    wire.client.send(renewed(expired))
    error = wire.client.wait_for(lambda p: ICMP in p and p[ICMP].type in (3, 11), 2, "the one error that is due")
    assert error[IP].dst == RAW_CLIENT and error[ICMP].type == 11 and UDPerror in error
    assert not [p.summary() for p in wire.client.drain(0.1) if p.src == wire.wan_mac and ICMP in p]


def test_conformance_D4_nothing_is_answered_with_an_error_that_must_not_be_v6(gateway, wire6):
    """RFC 4443 2.4 (e)."""
    def expired(**ip):
        return wire6.from_client(hlim=1, **ip) / UDP(sport=1, dport=7000) / b"x"

    about = IPv6(src=VIP6, dst=wire6.cip) / TCP(sport=7000, dport=1)
    wire6.client.send(
        wire6.from_client(hlim=1) / ICMPv6TimeExceeded() / about,
        wire6.from_client(hlim=1) / ICMPv6DestUnreach() / about,
        frame(wire6, destination="33:33:00:00:00:01", payload=inner(expired())),
        expired(dst="ff02::1"), expired(dst="ff05::2"), expired(src="::"), expired(src="ff02::1"), expired(src="::1"))
    wire6.client.send(expired())
    error = wire6.at_client(ICMPv6TimeExceeded)
    assert error[IPv6].dst == wire6.cip
    errors = (ICMPv6TimeExceeded, ICMPv6DestUnreach, ICMPv6ParamProblem)
    assert not [p.summary() for p in wire6.client.drain(0.1)
                if p.src == wire6.wan_mac and any(kind in p for kind in errors)]


def test_conformance_C4_record_route_goes_on_intact(gateway, wire):
    wire.client.send(wire.from_client(options=[IPOption_RR(routers=["0.0.0.0"] * 3)]) / UDP(sport=1, dport=7000) / b"opt")
    seen = wire.at_server(UDP)
    assert seen[IP].ihl == 9 and bytes(seen[UDP].payload) == b"opt"


def test_conformance_C14_the_evil_bit_changes_nothing(gateway, wire):
    wire.client.send(udp(wire, flags="evil"))
    wire.at_server(UDP)


def test_conformance_F1_echo_keeps_id_sequence_and_payload(gateway, wire):
    wire.client.send(wire.from_client() / ICMP(id=0x1234, seq=7) / b"0123456789")
    reply = wire.at_client(ICMP)
    assert (reply[ICMP].type, reply[ICMP].id, reply[ICMP].seq) == (0, 0x1234, 7)
    assert reply[IP].src == VIP and bytes(reply[ICMP].payload) == b"0123456789"


def test_conformance_F1_echo_v6(gateway, wire6):
    wire6.client.send(wire6.from_client() / ICMPv6EchoRequest(id=0x1234, seq=7, data=b"0123456789"))
    reply = wire6.at_client(ICMPv6EchoReply)
    assert (reply[ICMPv6EchoReply].id, reply[ICMPv6EchoReply].data, reply[IPv6].src) == (0x1234, b"0123456789", VIP6)


def test_conformance_C7_a_source_of_the_inside_from_outside_is_refused(start, lab, workers):
    settings = gateways.config(workers)
    for port in settings["port"]:
        port["reverse_path_filter"] = True
    gateway = start(settings)
    wire = Wire(lab)
    try:
        drops_after(gateway, lambda: wire.client.send(syn(wire, src=RIPS["rs1"])), "ip_spoofed_source", 1)
        nothing_at_server(wire)
        wire.open_tcp()
    finally:
        wire.close()
