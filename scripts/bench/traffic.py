"""Frames for the gateway in the files that net_pcap plays for ever.

One-armed: clients behind a router and real servers share the one port. The neighbours introduce themselves in the same
file, by an ARP request (the gateway makes an entry) and an ARP reply (the entry is fresh).
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


def udp_frame(number, vip=packed(VIP)):
    """60 bytes, 64 with the frame's own checksum: the first and every other packet of the n-th flow."""
    cip, cport = client(number)
    ip = struct.pack("!BBHHHBBHI4s", 0x45, 0, 46, 0, 0x4000, 64, 17, 0, cip, vip)
    ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
    udp = struct.pack("!HHHH", cport, SERVICE_PORT, 26, 0)
    pseudo = struct.pack("!I4sBBH", cip, vip, 0, 17, 26)
    udp = udp[:6] + struct.pack("!H", checksum(pseudo + udp) or 0xFFFF)
    return GATEWAY_MAC + PEER_MAC + b"\x08\x00" + ip + udp + bytes(18)


def arp_frame(operation, sender):
    """A neighbour asks for the gateway (1) or answers it (2)."""
    body = struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, operation, PEER_MAC, packed(sender), GATEWAY_MAC,
                       packed(GATEWAY))
    return GATEWAY_MAC + PEER_MAC + b"\x08\x06" + body + bytes(18)


def introductions():
    """What makes the gateway know its neighbours."""
    return [arp_frame(op, sender) for sender in (ROUTER, *REAL_SERVERS) for op in (1, 2)]


def write_pcap(path, sessions, seed=1):
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
        for frame in _all_frames(order):
            file.write(record.pack(0, 0, len(frame), len(frame)))
            file.write(frame)
            frames += 1
    return frames


def _all_frames(order):
    yield from introductions()
    for number in order:
        yield udp_frame(number)


def gateway_toml(device, mbufs, socket, sessions, worker_core, control_core, eal, toa=False):
    """The configuration that fits the frames."""
    servers = "\n".join(f'[[service.real_server]]\naddress = "{rip}:{SERVER_PORT}"' for rip in REAL_SERVERS)
    arguments = ", ".join(f'"{word}"' for word in eal)
    return f"""[dataplane]
workers = 1
worker_cores = [{worker_core}]
control_core = {control_core}
idle = "poll"
eal = [{arguments}]
sessions_max = {max(sessions, 1024)}
mbufs = {mbufs}

[control]
socket = "{socket}"

[[port]]
name = "wire"
device = "{device}"
addresses = ["{GATEWAY}/24"]

[[route]]
to = "0.0.0.0/0"
via = "{ROUTER}"

[[local_pool]]
name = "pool"
port = "wire"
addresses = ["{LIPS}"]

[[service]]
name = "udp"
listen = "{VIP}:{SERVICE_PORT}"
protocol = "udp"
scheduler = "rr"
local_pool = "pool"
client_address = "none"
{servers}
"""
