"""Frames for the gateway in the files that net_pcap plays for ever, and configurations that fit them.

One-armed: clients behind a router and real servers share the one port, `wire`. The neighbours introduce themselves in
the same file, by an ARP request (the gateway makes an entry) and an ARP reply (the entry is fresh).

A file cannot answer a SYN, for nobody knows before which port and sequence number the gateway will choose. TCP sessions
are therefore opened through a second port, `side`, where opener.py plays clients and real servers; then one change of
the routes moves both to `wire` (forward.py).
"""

import ipaddress
import random
import struct

# What net_pcap calls its first device.
GATEWAY_MAC = bytes.fromhex("027063617000")
PEER_MAC = bytes.fromhex("020000000101")
GATEWAY, ROUTER, VIP = "10.1.0.254", "10.1.0.1", "10.1.0.100"
REAL_SERVERS = [f"10.1.0.{n}" for n in range(11, 15)]
LIPS = "10.1.0.128-10.1.0.135"
SERVICE_PORT, SERVER_PORT = 80, 8080
# The side port: where TCP sessions are opened, or (both_ways.py) where real servers are.
SIDE_GATEWAY, SIDE_ROUTER = "10.2.0.254", "10.2.0.1"
# Of TCP: real servers of a subnet that is only reached by a route, which moves.
ROUTED_SERVERS, ROUTED_NETWORK = [f"10.3.0.{n}" for n in range(11, 15)], "10.3.0.0/24"
CLIENT_ISN, SERVER_ISN = 1_000, 5_000
FIN, SYN, RST, ACK = 1, 2, 4, 16
CLIENTS_FROM = int(ipaddress.IPv4Address("11.0.0.0"))
FLOWS_PER_CLIENT = 64
# A file at least so long: the ring of net_pcap and the ARP messages cost the same share for every number of sessions.
FRAMES_MIN = 8192


def checksum(data):
    """RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def packed(address):
    return ipaddress.IPv4Address(address).packed


def client(number):
    """Address and port of the n-th flow's client."""
    return CLIENTS_FROM + number // FLOWS_PER_CLIENT, 1024 + number % FLOWS_PER_CLIENT * 997


def flow(cip, cport):
    """The number of the flow with this client."""
    return (cip - CLIENTS_FROM) * FLOWS_PER_CLIENT + (cport - 1024) // 997


def udp_frame(number, vip=packed(VIP)):
    """60 bytes, 64 with the frame's own checksum: the first and every other packet of the n-th flow."""
    cip, cport = client(number)
    ip = struct.pack("!BBHHHBBHI4s", 0x45, 0, 46, 0, 0x4000, 64, 17, 0, cip, vip)
    ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
    udp = struct.pack("!HHHH", cport, SERVICE_PORT, 26, 0)
    pseudo = struct.pack("!I4sBBH", cip, vip, 0, 17, 26)
    udp = udp[:6] + struct.pack("!H", checksum(pseudo + udp) or 0xFFFF)
    return GATEWAY_MAC + PEER_MAC + b"\x08\x00" + ip + udp + bytes(18)


def segment(ends, flags, seq, ack=0, timestamps=(1, 1), to=GATEWAY_MAC):
    """A TCP segment of 66 bytes without data: 12 bytes of options, the timestamps. `ends`: (source address, port,
    destination address, port), addresses as four bytes."""
    src, sport, dst, dport = ends
    ip = IP_FIXED.pack(0x45, 0, 52, 0, 0x4000, 64, 6, 0, src, dst)
    ip = ip[:10] + checksum(ip).to_bytes(2, "big") + ip[12:]
    tcp = TCP_FIXED.pack(sport, dport, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, 0x80, flags, 0xFFFF, 0, 0, 0x0101080A,
                         *timestamps)
    tcp = tcp[:16] + checksum(src + dst + b"\x00\x06\x00\x20" + tcp).to_bytes(2, "big") + tcp[18:]
    return to + PEER_MAC + b"\x08\x00" + ip + tcp


IP_FIXED, TCP_FIXED = struct.Struct("!BBHHHBBH4s4s"), struct.Struct("!HHIIBBHHHIII")


def client_ends(number, vip=packed(VIP)):
    """The ends of the n-th flow's inbound segments."""
    cip, cport = client(number)
    return cip.to_bytes(4, "big"), cport, vip, SERVICE_PORT


def established_frame(number, to=GATEWAY_MAC):
    """An acknowledgement of the n-th flow's client: the last of the handshake and every later one. It acknowledges no
    byte of the real server, so TOA, where configured, goes into every one."""
    return segment(client_ends(number), ACK, CLIENT_ISN + 1, SERVER_ISN + 1, to=to)


FRAMES = {"udp4": udp_frame, "tcp4": established_frame}
FRAME_LEN = {"udp4": 64, "tcp4": 66}


def arp_frame(operation, sender, to=GATEWAY_MAC, gateway=GATEWAY):
    """A neighbour asks for the gateway (1) or answers it (2)."""
    body = struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, operation, PEER_MAC, packed(sender), to, packed(gateway))
    return to + PEER_MAC + b"\x08\x06" + body + bytes(18)


def introductions():
    """What makes the gateway know its neighbours."""
    return [arp_frame(op, sender) for sender in (ROUTER, *REAL_SERVERS) for op in (1, 2)]


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
        for frame in _all_frames(order, FRAMES[kind]):
            file.write(record.pack(0, 0, len(frame), len(frame)))
            file.write(frame)
            frames += 1
    return frames


def _all_frames(order, frame):
    yield from introductions()
    for number in order:
        yield frame(number)


def gateway_toml(device, mbufs, sessions, cores, kind="udp4", toa=False, side=None, real_servers=None):
    """The configuration that fits the frames; its socket is to be filled in.

    `cores`: those of the worker and of control. `side`: a second device.
    """
    worker_core, control_core = cores
    found = real_servers or (ROUTED_SERVERS if kind == "tcp4" else REAL_SERVERS)
    servers = "\n".join(f'[[service.real_server]]\naddress = "{rip}:{SERVER_PORT}"' for rip in found)
    second = f'[[port]]\nname = "side"\ndevice = "{side}"\naddresses = ["{SIDE_GATEWAY}/24"]\n' if side else ""
    # Clients, and routed real servers, are where TCP sessions are opened first.
    router = SIDE_ROUTER if kind == "tcp4" else ROUTER
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
addresses = ["{GATEWAY}/24"]

{second}
[[route]]
to = "0.0.0.0/0"
via = "{router}"

[[local_pool]]
name = "pool"
port = "wire"
addresses = ["{LIPS}"]

[[service]]
name = "{kind}"
listen = "{VIP}:{SERVICE_PORT}"
protocol = "{kind[:3]}"
scheduler = "rr"
local_pool = "pool"
client_address = "{"toa" if toa else "none"}"
{servers}
"""
