"""Frames for the gateway in the files that net_pcap plays for ever, and configurations that fit them.

One-armed: clients behind a router and real servers share the one port, `wire`. The neighbours introduce themselves in
the same file, by a question for the gateway (it makes an entry) and an answer (the entry is fresh): ARP for IPv4,
neighbour discovery for IPv6.

A file cannot answer a SYN, for nobody knows before which port and sequence number the gateway will choose. And what a
file opens lies in the gateway's memory in the file's order, which a processor foresees. TCP sessions, and many of UDP, are
therefore opened through a second port, `side`, where opener.py plays clients and real servers; then one change of the
routes moves both to `wire` (forward.py).
"""

import functools
import ipaddress
import random
import struct
from typing import NamedTuple

# What net_pcap calls its first device.
GATEWAY_MAC = bytes.fromhex("027063617000")
PEER_MAC = bytes.fromhex("020000000101")
SERVICE_PORT, SERVER_PORT = 80, 8080
CLIENT_ISN, SERVER_ISN = 1_000, 5_000
FIN, SYN, RST, ACK = 1, 2, 4, 16
ETHERTYPE_ARP = b"\x08\x06"
TCP, UDP, ICMPV6 = 6, 17, 58
# Neighbour discovery: the types and flags of its messages.
SOLICITATION, ADVERTISEMENT, SOLICITED, OVERRIDES = 135, 136, 1 << 30, 1 << 29
IPV4_HEADER, IPV6_HEADER = struct.Struct("!BBHHHBBH4s4s"), struct.Struct("!IHBB16s16s")
# Of TCP with the option of timestamps.
UDP_HEADER, TCP_HEADER, PSEUDO_HEADER = struct.Struct("!HHHH"), struct.Struct("!HHIIBBHHHIII"), struct.Struct("!HH")
FLOWS_PER_CLIENT = 64
# A file at least so long: the ring of net_pcap and the neighbours' messages cost the same share for every number of
# sessions.
FRAMES_MIN = 8192


class Family(NamedTuple):
    """One version of IP: where its frames have what, and who has which address."""

    ethertype: bytes
    # In a frame.
    protocol_at: int
    source: slice
    destination: slice
    l4_at: int
    # Of a UDP datagram: no padding is needed.
    data_len: int
    prefix_len: int
    anywhere: str
    gateway: str
    router: str
    vip: str
    real_servers: list
    lips: str
    # The side port: where sessions are opened, or (both_ways.py) where real servers are.
    side_gateway: str
    side_router: str
    # Where sessions are opened aside: real servers of a subnet that is only reached by a route, which moves.
    routed_servers: list
    routed_network: str
    clients_from: int


V4 = Family(
    ethertype=b"\x08\x00", protocol_at=23, source=slice(26, 30), destination=slice(30, 34), l4_at=34, data_len=18,
    prefix_len=24, anywhere="0.0.0.0/0", gateway="10.1.0.254", router="10.1.0.1", vip="10.1.0.100",
    real_servers=[f"10.1.0.{n}" for n in range(11, 15)], lips="10.1.0.128-10.1.0.135",
    side_gateway="10.2.0.254", side_router="10.2.0.1",
    routed_servers=[f"10.3.0.{n}" for n in range(11, 15)], routed_network="10.3.0.0/24",
    clients_from=int(ipaddress.ip_address("11.0.0.0")))
V6 = Family(
    ethertype=b"\x86\xdd", protocol_at=20, source=slice(22, 38), destination=slice(38, 54), l4_at=54, data_len=2,
    prefix_len=64, anywhere="::/0", gateway="2001:db8:1::fe", router="2001:db8:1::1", vip="2001:db8:1::100",
    real_servers=[f"2001:db8:1::{n}" for n in range(11, 15)], lips="2001:db8:1::80-2001:db8:1::87",
    side_gateway="2001:db8:2::fe", side_router="2001:db8:2::1",
    routed_servers=[f"2001:db8:3::{n}" for n in range(11, 15)], routed_network="2001:db8:3::/64",
    clients_from=int(ipaddress.ip_address("2001:db8:b::")))


def family(kind):
    """That of `udp4`, `tcp6` and so on."""
    return V6 if kind.endswith("6") else V4


def _family_of(address):
    """That of a packed address."""
    return V4 if len(address) == 4 else V6


@functools.cache
def packed(address):
    return ipaddress.ip_address(address).packed


def checksum(data):
    """RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def client(number, of=V4):
    """Address and port of the n-th flow's client."""
    address = of.clients_from + number // FLOWS_PER_CLIENT
    return address.to_bytes(len(packed(of.vip)), "big"), 1024 + number % FLOWS_PER_CLIENT * 997


def flow(address, port):
    """The number of the flow with this client."""
    number = int.from_bytes(address, "big") - _family_of(address).clients_from
    return number * FLOWS_PER_CLIENT + (port - 1024) // 997


def _frame(ends, protocol, l4, checksum_at, to, hops=64):
    """`l4` with its checksum, in IP, in Ethernet. `ends`: source and destination."""
    src, dst = ends
    # The pseudo header of either family sums up to this (RFC 9293 §3.1, RFC 8200 §8.1).
    whole = checksum(src + dst + PSEUDO_HEADER.pack(protocol, len(l4)) + l4)
    if protocol == UDP:
        whole = whole or 0xFFFF
    l4 = l4[:checksum_at] + whole.to_bytes(2, "big") + l4[checksum_at + 2:]
    of = _family_of(src)
    if of is V4:
        ip = IPV4_HEADER.pack(0x45, 0, 20 + len(l4), 0, 0x4000, hops, protocol, 0, src, dst)
        ip = ip[:10] + checksum(ip).to_bytes(2, "big") + ip[12:]
    else:
        ip = IPV6_HEADER.pack(0x60000000, len(l4), protocol, hops, src, dst)
    return to + PEER_MAC + of.ethertype + ip + l4


def udp_frame(number, of=V4):
    """60 bytes of IPv4, 64 with the frame's own checksum; 64 of IPv6, without it: a packet of the n-th flow."""
    return datagram(client_ends(number, of), bytes(of.data_len))


def datagram(ends, data, to=GATEWAY_MAC):
    """A UDP datagram. `ends` as for `segment`."""
    src, sport, dst, dport = ends
    udp = UDP_HEADER.pack(sport, dport, UDP_HEADER.size + len(data), 0) + data
    return _frame((src, dst), UDP, udp, 6, to)


def segment(ends, flags, seq, ack=0, timestamps=(1, 1), to=GATEWAY_MAC):
    """A TCP segment without data, 66 bytes of IPv4 or 86 of IPv6: 12 bytes of options, the timestamps. `ends`: (source
    address, port, destination address, port), packed addresses."""
    src, sport, dst, dport = ends
    tcp = TCP_HEADER.pack(sport, dport, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, 0x80, flags, 0xFFFF, 0, 0, 0x0101080A,
                          *timestamps)
    return _frame((src, dst), TCP, tcp, 16, to)


def client_ends(number, of=V4):
    """The ends of the n-th flow's inbound segments."""
    return *client(number, of), packed(of.vip), SERVICE_PORT


def established_frame(number, of=V4, to=GATEWAY_MAC):
    """An acknowledgement of the n-th flow's client: the last of the handshake and every later one. It acknowledges no
    byte of the real server, so TOA, where configured, goes into every one."""
    return segment(client_ends(number, of), ACK, CLIENT_ISN + 1, SERVER_ISN + 1, to=to)


FRAMES = {"udp4": udp_frame, "tcp4": established_frame, "udp6": udp_frame, "tcp6": established_frame}
FRAME_LEN = {"udp4": 64, "tcp4": 66, "udp6": 64, "tcp6": 86}


def neighbour_frame(answers, sender, gateway, to=GATEWAY_MAC):
    """A neighbour asks for the gateway, or answers it: ARP, or neighbour discovery (RFC 4861)."""
    sender, gateway = packed(sender), packed(gateway)
    if _family_of(sender) is V4:
        body = struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 2 if answers else 1, PEER_MAC, sender, to, gateway)
        return to + PEER_MAC + ETHERTYPE_ARP + body + bytes(18)
    # Solicited, and it overrides; the option names our MAC address in either message.
    kind, flags, target, option = ((ADVERTISEMENT, SOLICITED | OVERRIDES, sender, 2) if answers else
                                   (SOLICITATION, 0, gateway, 1))
    body = struct.pack("!BBHI16sBB6s", kind, 0, 0, flags, target, option, 1, PEER_MAC)
    return _frame((sender, gateway), ICMPV6, body, 2, to, hops=255)


def introductions(of=V4):
    """What makes the gateway know its neighbours."""
    return [neighbour_frame(answers, sender, of.gateway)
            for sender in (of.router, *of.real_servers) for answers in (False, True)]


def write_pcap(path, sessions, kind="udp4", seed=1):
    """Every session once in random order, or, of few sessions, draws at random; how many frames that are."""
    draw = random.Random(seed)
    if sessions >= FRAMES_MIN:
        order = list(range(sessions))
        draw.shuffle(order)
    else:
        order = [*range(sessions), *(draw.randrange(sessions) for _ in range(FRAMES_MIN - sessions))]
    frames = 0
    with open(path, "wb", buffering=1 << 20) as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        record = struct.Struct("<IIII")
        for frame in _all_frames(order, kind):
            file.write(record.pack(0, 0, len(frame), len(frame)))
            file.write(frame)
            frames += 1
    return frames


def _all_frames(order, kind):
    of, frame = family(kind), FRAMES[kind]
    yield from introductions(of)
    for number in order:
        yield frame(number, of)


def with_port(address, port):
    """As a configuration writes it."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def gateway_toml(device, mbufs, sessions, cores, kind="udp4", toa=False, side=None, real_servers=None):
    """The configuration that fits the frames; its socket is to be filled in.

    `cores`: those of the worker and of control. `side`: a second device, where sessions are opened if `real_servers` does
    not say that these are there.
    """
    worker_core, control_core = cores
    of, aside = family(kind), side and not real_servers
    found = real_servers or (of.routed_servers if aside else of.real_servers)
    servers = "\n".join(f'[[service.real_server]]\naddress = "{with_port(rip, SERVER_PORT)}"' for rip in found)
    side_address = f"{of.side_gateway}/{of.prefix_len}"
    second = f'[[port]]\nname = "side"\ndevice = "{side}"\naddresses = ["{side_address}"]\n' if side else ""
    # Clients, and routed real servers, are where sessions are opened first.
    router = of.side_router if aside else of.router
    return f"""[dataplane]
workers = 1
worker_cores = [{worker_core}]
control_core = {control_core}
idle = "poll"
eal = ["--no-pci", "--in-memory"]
sessions_max = {max(sessions, 1024)}
mbufs = {mbufs}

[control]
socket = "@SOCKET@"

[neighbours]
reachable_secs = 600

[timeouts]
tcp_syn_recv_secs = 900

[[port]]
name = "wire"
device = "{device}"
addresses = ["{of.gateway}/{of.prefix_len}"]

{second}
[[route]]
to = "{of.anywhere}"
via = "{router}"

[[local_pool]]
name = "pool"
port = "wire"
addresses = ["{of.lips}"]

[[service]]
name = "{kind}"
listen = "{with_port(of.vip, SERVICE_PORT)}"
protocol = "{kind[:3]}"
scheduler = "rr"
local_pool = "pool"
client_address = "{"toa" if toa else "none"}"
{servers}
"""
