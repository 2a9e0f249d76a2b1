"""Checks on frames with scapy's parser: a parser that the gateway does not share a line with."""

import ipaddress
import logging

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)

from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption, in4_chksum  # noqa: E402
from scapy.layers.inet6 import IPv6, in6_chksum  # noqa: E402
from scapy.layers.l2 import ARP, Ether  # noqa: E402
from scapy.utils import checksum  # noqa: E402

__all__ = ["ARP", "Ether", "ICMP", "IP", "IPv6", "TCP", "UDP", "defects", "find_address", "ip_options", "packed", "toa_of",
           "toa_options", "uoa_of"]

# Option kinds that carry a client's address: (kind, length) -> bytes of the address.
TOA_FORMS = {(254, 8): 4, (254, 20): 16, (253, 20): 16}
ICMPV6 = 58


def packed(address):
    return ipaddress.ip_address(address).packed


def defects(raw, checksums=True):
    """What is wrong with a frame, as a list of sentences. Everything is looked at but ARP's contents."""
    if len(raw) < 14:
        return [f"runt of {len(raw)} bytes"]
    kind = int.from_bytes(raw[12:14], "big")
    if kind == 0x0800:
        return _defects_v4(raw[14:], checksums)
    if kind == 0x86DD:
        return _defects_v6(raw[14:], checksums)
    if kind == 0x0806:
        return [] if len(raw) >= 42 and not any(raw[42:]) else ["ARP message short or padded with garbage"]
    return [f"unexpected EtherType {kind:#06x}"]


def _padding(trailer):
    return ["padding is not zero"] if any(trailer) else []


def _defects_v4(data, checksums):
    header = IP(data)
    size = header.ihl * 4
    if header.version != 4 or size < 20 or not size <= header.len <= len(data):
        return [f"IPv4 lengths: ihl {header.ihl}, total {header.len}, frame {len(data)}"]
    found = _padding(data[header.len:])
    if checksum(bytes(data[:size])) != 0:
        found.append("IPv4 header checksum")
    if header.flags.MF or header.frag:
        return found
    segment = bytes(data[size:header.len])
    if header.proto == 1:
        if checksum(segment) != 0:
            found.append("ICMP checksum")
    elif checksums and header.proto in (6, 17):
        if header.proto == 17 and segment[6:8] == b"\0\0":
            return found + _lengths(17, segment)
        if in4_chksum(header.proto, header, segment) not in (0, 0xFFFF):
            found.append(f"layer 4 checksum of protocol {header.proto}")
    return found + _lengths(header.proto, segment)


def _defects_v6(data, checksums):
    header = IPv6(data)
    if header.version != 6 or header.plen + 40 > len(data):
        return [f"IPv6 payload length {header.plen}, frame {len(data)}"]
    found = _padding(data[40 + header.plen:])
    segment = bytes(data[40:40 + header.plen])
    if header.nh in (6, 17, ICMPV6):
        if header.nh == 17 and segment[6:8] == b"\0\0":
            found.append("UDP over IPv6 without checksum")
        elif (checksums or header.nh == ICMPV6) and in6_chksum(header.nh, header, segment) not in (0, 0xFFFF):
            found.append(f"layer 4 checksum of next header {header.nh}")
    return found + _lengths(header.nh, segment)


def _lengths(protocol, segment):
    if protocol == 6 and (len(segment) < 20 or not 20 <= (segment[12] >> 4) * 4 <= len(segment)):
        return ["TCP data offset"]
    if protocol == 17 and (len(segment) < 8 or int.from_bytes(segment[4:6], "big") != len(segment)):
        return ["UDP length"]
    return []


def toa_options(packet):
    """Every TCP option of a scapy packet that any receiver would take for a client's address."""
    if TCP not in packet:
        return []
    return [(kind, bytes(value)) for kind, value in packet[TCP].options
            if isinstance(kind, int) and isinstance(value, bytes) and (kind, len(value) + 2) in TOA_FORMS]


def ip_options(raw):
    """Bytes as the options of a scapy IPv4 header."""
    return [IPOption(raw)]


def uoa_of(raw):
    """(address, port) that the first option of a frame's IPv4 header names, or None."""
    if raw[12:14] != b"\x08\x00" or raw[14] & 15 <= 5 or raw[34] != 31:
        return None
    return str(ipaddress.ip_address(raw[38:34 + raw[35]])), int.from_bytes(raw[36:38], "big")


def toa_of(packet):
    """(address, port) that the TCP option names, or None."""
    found = toa_options(packet)
    if not found:
        return None
    value = found[0][1]
    return str(ipaddress.ip_address(value[2:])), int.from_bytes(value[:2], "big")


def _headers_end(raw):
    """Where the TCP or UDP payload of a frame begins; its end if it carries neither."""
    kind = int.from_bytes(raw[12:14], "big")
    if kind == 0x0800 and len(raw) > 34:
        protocol, at = raw[23], 14 + (raw[14] & 15) * 4
    elif kind == 0x86DD and len(raw) > 54:
        protocol, at = raw[20], 54
    else:
        return len(raw)
    if protocol == 6 and len(raw) > at + 12:
        return at + (raw[at + 12] >> 4) * 4
    return at + 8 if protocol == 17 else len(raw)


def find_address(raw, address):
    """Offsets at which an address stands in a frame other than inside a TOA or UOA option.

    Of TCP and UDP the headers are searched: payload holds any four bytes sooner or later, a DNS header with an id that
    ends in 0x0a holds 10.1.0.1. Of everything else, such as an ICMP error with what it quotes, all is searched.
    """
    needle = packed(address)
    haystack = raw[:_headers_end(raw)]
    found, at = [], haystack.find(needle)
    while at >= 0:
        # In front of the address in a TOA option: kind, length, two bytes of port.
        inside_toa = at >= 4 and TOA_FORMS.get((raw[at - 4], raw[at - 3])) == len(needle)
        # UOA stands first among the options of an IPv4 header.
        inside_uoa = at == 38 and raw[34:36] == bytes([31, 4 + len(needle)])
        if not inside_toa and not inside_uoa:
            found.append(at)
        at = haystack.find(needle, at + 1)
    return found
