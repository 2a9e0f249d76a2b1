//! Plain frames: the straight line of checks that nearly every frame passes.
//!
//! A plain frame is addressed to us, untagged and in one segment; it holds a whole IPv4 packet without options or IPv6
//! packet without extension headers, of TCP or UDP, no fragment, with hops left. [`super::classify`] looks closely at
//! everything else and names what is wrong with it; whatever is plain it would call a flow and describe the same.

use super::classify::{is_martian_v4, is_martian_v6};
use super::packet::Packet;
use super::parsed::Parsed;
use crate::service::snapshot::PortView;
use crate::wire::field::{get_array, get_u16, get_u32};
use crate::wire::{Address, Protocol, Tuple, ethernet, ipv4, ipv6, tcp, udp};

/// Ethernet, IP and TCP header of a plain IPv4 frame, or UDP header and some payload.
pub const HEADERS_V4: usize = Parsed::L3 + ipv4::HEADER_LEN + tcp::HEADER_LEN;
/// The same of a plain IPv6 frame.
pub const HEADERS_V6: usize = Parsed::L3 + ipv6::HEADER_LEN + tcp::HEADER_LEN;

/// EtherType, version and header length of IPv4 without options, as a frame has them, and a fourth byte of its own.
const IPV4_FRONT: (u32, u32) = front([0x08, 0x00, 0x45, 0], [0xff, 0xff, 0xff, 0]);
/// EtherType and version of IPv6, likewise.
const IPV6_FRONT: (u32, u32) = front([0x86, 0xdd, 0x60, 0], [0xff, 0xff, 0xf0, 0]);

/// Bytes and which of their bits matter.
const fn front(bytes: [u8; 4], mask: [u8; 4]) -> (u32, u32) {
    (u32::from_ne_bytes(bytes), u32::from_ne_bytes(mask))
}

/// Whether the EtherType and the two bytes behind it are as asked.
#[inline(always)]
fn begins_as(headers: &[u8; HEADERS_V4], (bytes, mask): (u32, u32)) -> bool {
    u32::from_ne_bytes(get_array(headers, ethernet::HEADER_LEN - 2)) & mask == bytes
}

/// What a plain frame holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// UDP over IPv4
    Udp4,
    /// TCP over IPv4
    Tcp4,
    /// UDP over IPv6
    Udp6,
    /// TCP over IPv6
    Tcp6,
}

impl Kind {
    /// What holds TCP or UDP over IPv6 or IPv4.
    pub const fn of(v6: bool, tcp: bool) -> Kind {
        match (v6, tcp) {
            (false, false) => Kind::Udp4,
            (false, true) => Kind::Tcp4,
            (true, false) => Kind::Udp6,
            (true, true) => Kind::Tcp6,
        }
    }

    /// Whether it is an IPv6 packet.
    #[inline(always)]
    pub const fn is_v6(self) -> bool {
        matches!(self, Kind::Udp6 | Kind::Tcp6)
    }

    /// Whether it holds TCP.
    #[inline(always)]
    pub const fn is_tcp(self) -> bool {
        matches!(self, Kind::Tcp4 | Kind::Tcp6)
    }

    #[inline(always)]
    const fn protocol(self) -> Protocol {
        match self {
            Kind::Udp4 | Kind::Udp6 => Protocol::Udp,
            Kind::Tcp4 | Kind::Tcp6 => Protocol::Tcp,
        }
    }
}

/// What is asked of every frame of a port, looked up once per burst.
#[derive(Clone, Copy)]
pub struct Gate {
    /// the port's MAC address as it stands in the first eight bytes of a frame
    mac: u64,
    mtu: usize,
}

impl Gate {
    /// The destination, and the bit of the source that says that it is a group.
    const MACS: u64 = u64::from_le_bytes([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0]);

    /// Of this port, where no other one has a smaller MTU than `mtu`.
    #[inline]
    pub fn of(port: &PortView, mtu: u16) -> Self {
        let [a, b, c, d, e, f] = port.mac;
        Gate { mac: u64::from_le_bytes([a, b, c, d, e, f, 0, 0]), mtu: mtu.into() }
    }

    /// Bytes that a plain packet has at most: with them it may leave by any port.
    #[inline(always)]
    pub const fn mtu(&self) -> usize {
        self.mtu
    }
}

/// What a frame holds if it is a plain one, and what `of_flow` makes of its flow and of whether it is an IPv6 one; `None`
/// for all others, whatever they are. A flow of a known family stays in registers.
#[inline(always)]
pub fn recognise<P: Packet, T>(
    packet: &P,
    gate: &Gate,
    of_flow: impl Fn(&Tuple, bool) -> T,
) -> Option<(Kind, T)> {
    let head = packet.head();
    let headers = head.first_chunk::<HEADERS_V4>()?;
    let for_us = u64::from_le_bytes(get_array(headers, 0)) & Gate::MACS == gate.mac;
    if head.len() != packet.len() || !for_us {
        return None;
    }
    if begins_as(headers, IPV4_FRONT) {
        let kind = recognise_ipv4(headers, head.len(), gate)?;
        Some((kind, of_flow(&tuple(headers, kind.protocol()), false)))
    } else if begins_as(headers, IPV6_FRONT) {
        let headers = head.first_chunk::<HEADERS_V6>()?;
        let kind = recognise_ipv6(headers, head.len(), gate)?;
        Some((kind, of_flow(&tuple(headers, kind.protocol()), true)))
    } else {
        None
    }
}

#[inline(always)]
fn recognise_ipv4(headers: &[u8; HEADERS_V4], frame_len: usize, gate: &Gate) -> Option<Kind> {
    let (ip, l4): (&[u8; ipv4::HEADER_LEN], _) = split(headers);
    let total_len = usize::from(get_u16(ip, 2));
    // RFC 791 §3.1: neither more fragments nor an offset
    let whole = get_u16(ip, 6) & 0x3fff == 0;
    let fits = Parsed::L3 + total_len <= frame_len && total_len <= gate.mtu;
    let from_elsewhere = get_array::<4>(ip, 12) != get_array(ip, 16) && !is_martian_v4(ip[12]);
    if !(whole && fits && ip[8] > 1 && from_elsewhere && ipv4::plain_checksum_ok(ip)) {
        return None;
    }
    match ip[9] {
        udp::PROTOCOL if is_udp(l4, ipv4::HEADER_LEN, total_len) => Some(Kind::Udp4),
        tcp::PROTOCOL if is_tcp(l4, ipv4::HEADER_LEN, total_len) => Some(Kind::Tcp4),
        _ => None,
    }
}

#[inline(always)]
fn recognise_ipv6(headers: &[u8; HEADERS_V6], frame_len: usize, gate: &Gate) -> Option<Kind> {
    let (ip, l4): (&[u8; ipv6::HEADER_LEN], _) = split(headers);
    let ip_len = ipv6::HEADER_LEN + usize::from(get_u16(ip, 4));
    let (src, dst) = (Address::from_v6(get_array(ip, 8)), Address::from_v6(get_array(ip, 24)));
    let fits = Parsed::L3 + ip_len <= frame_len && ip_len <= gate.mtu;
    if !(fits && ip[7] > 1 && src != dst && !is_martian_v6(&src)) {
        return None;
    }
    // RFC 8200 §8.1: IPv6 has no UDP without a checksum
    let summed = get_u16(l4, udp::CHECKSUM_OFFSET) != 0;
    match ip[6] {
        udp::PROTOCOL if is_udp(l4, ipv6::HEADER_LEN, ip_len) && summed => Some(Kind::Udp6),
        tcp::PROTOCOL if is_tcp(l4, ipv6::HEADER_LEN, ip_len) => Some(Kind::Tcp6),
        _ => None,
    }
}

/// The IP header of `L3` bytes, and the first bytes behind it.
#[inline(always)]
fn split<const N: usize, const L3: usize>(headers: &[u8; N]) -> (&[u8; L3], &[u8; tcp::HEADER_LEN]) {
    let (ip, l4) = headers[Parsed::L3..].split_first_chunk().expect("within the headers");
    (ip, l4.first_chunk().expect("within the headers"))
}

/// Whether a packet of `ip_len` bytes with `header` behind `before` bytes holds a whole datagram to some port.
#[inline(always)]
fn is_udp(header: &[u8; tcp::HEADER_LEN], before: usize, ip_len: usize) -> bool {
    let udp_len = udp::len(header);
    udp_len >= udp::HEADER_LEN && before + udp_len <= ip_len && get_u16(header, 2) != 0
}

/// Whether a packet of `ip_len` bytes with `header` behind `before` bytes holds a segment with flags that stacks send.
#[inline(always)]
fn is_tcp(header: &[u8; tcp::HEADER_LEN], before: usize, ip_len: usize) -> bool {
    let header_len = tcp::header_len(header);
    header_len >= tcp::HEADER_LEN && before + header_len <= ip_len && tcp::flags_plausible(tcp::flags(header))
}

/// The flow of a plain frame, whose family is known by its headers' length.
#[inline(always)]
pub fn tuple<const HEADERS: usize>(headers: &[u8; HEADERS], protocol: Protocol) -> Tuple {
    let (src, dst) = if HEADERS == HEADERS_V6 {
        (Address::from_v6(get_array(headers, 22)), Address::from_v6(get_array(headers, 38)))
    } else {
        (Address::from_v4(get_array(headers, 26)), Address::from_v4(get_array(headers, 30)))
    };
    let l4 = HEADERS - tcp::HEADER_LEN;
    let ports = get_u32(headers, l4);
    Tuple { src, dst, sport: (ports >> 16) as u16, dport: ports as u16, protocol }
}

/// Bytes of the IP packet in a plain frame, whose family is known by its headers' length.
#[inline(always)]
pub fn ip_len<const HEADERS: usize>(headers: &[u8; HEADERS]) -> usize {
    if HEADERS == HEADERS_V6 {
        ipv6::HEADER_LEN + usize::from(get_u16(headers, Parsed::L3 + 4))
    } else {
        usize::from(get_u16(headers, Parsed::L3 + 2))
    }
}

/// The flow of a plain frame.
#[inline(always)]
pub fn tuple_of(frame: &[u8], kind: Kind) -> Tuple {
    if kind.is_v6() {
        tuple::<HEADERS_V6>(frame.first_chunk().expect("a plain IPv6 frame"), kind.protocol())
    } else {
        tuple::<HEADERS_V4>(frame.first_chunk().expect("a plain IPv4 frame"), kind.protocol())
    }
}

/// Describes a plain frame in full, for those who look closely at it.
#[cold]
pub fn describe(frame: &[u8], kind: Kind) -> Parsed {
    let tuple = tuple_of(frame, kind);
    let (l4, ip_len) = if kind.is_v6() {
        let headers: &[u8; HEADERS_V6] = frame.first_chunk().expect("a plain IPv6 frame");
        (Parsed::L3 + ipv6::HEADER_LEN, ip_len(headers))
    } else {
        let headers: &[u8; HEADERS_V4] = frame.first_chunk().expect("a plain IPv4 frame");
        (Parsed::L3 + ipv4::HEADER_LEN, ip_len(headers))
    };
    let tcp_flags = match kind.protocol() {
        Protocol::Tcp => tcp::flags(&frame[l4..]),
        Protocol::Udp => 0,
    };
    Parsed { tuple, l4: l4 as u16, end: (Parsed::L3 + ip_len) as u32, tcp_flags, v6: kind.is_v6(), hops: 0 }
}

#[cfg(test)]
mod tests {
    use super::super::classify::{Class, classify};
    use super::super::heap::HeapPacket;
    use super::*;
    use crate::id::PortId;
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn port() -> PortView {
        PortView {
            id: PortId(0),
            name: "wan".into(),
            mac: MAC,
            mtu: 1500,
            addresses: Vec::new(),
            checksum_offload: false,
            partial_checksums: false,
            reverse_path_filter: false,
            answer_for_other_ports: false,
        }
    }

    fn frame(v6: bool, tcp: bool, payload: &[u8]) -> Vec<u8> {
        let ethernet = PacketBuilder::ethernet2([2; 6], MAC);
        let ip = if v6 {
            ethernet.ipv6([0x20; 16], [0xfd; 16], 64)
        } else {
            ethernet.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        };
        let mut bytes = Vec::new();
        if tcp {
            ip.tcp(1000, 80, 7, 100).ack(9).write(&mut bytes, payload).unwrap();
        } else {
            ip.udp(1000, 80).write(&mut bytes, payload).unwrap();
        }
        bytes
    }

    fn recognised(frame: &[u8]) -> Option<(Kind, Parsed)> {
        let port = port();
        let gate = Gate::of(&port, port.mtu);
        let (kind, tuple) = recognise(&HeapPacket::new(frame), &gate, |tuple, _| *tuple)?;
        let parsed = describe(frame, kind);
        assert_eq!(parsed.tuple, tuple);
        Some((kind, parsed))
    }

    #[test]
    fn usual_frames_are_plain_padded_or_not() {
        for (v6, tcp) in [(false, false), (false, true), (true, false), (true, true)] {
            for padding in [0, 6] {
                let frame = [frame(v6, tcp, &[1; 18]), vec![0; padding]].concat();
                let (recognised, parsed) = recognised(&frame).expect("a plain frame");
                let kind = match (v6, tcp) {
                    (false, false) => Kind::Udp4,
                    (false, true) => Kind::Tcp4,
                    (true, false) => Kind::Udp6,
                    (true, true) => Kind::Tcp6,
                };
                assert_eq!((parsed.v6, parsed.tuple.protocol == Protocol::Tcp), (v6, tcp));
                assert_eq!((recognised, parsed.end as usize), (kind, frame.len() - padding));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        /// Bytes of headers changed at will, checksums put right, frames cut or padded.
        #[test]
        fn what_is_plain_is_the_same_flow_to_a_closer_look(
            v6: bool,
            tcp: bool,
            payload in prop::collection::vec(any::<u8>(), 0..40),
            damage in prop::collection::vec((0usize..74, any::<u8>()), 0..3),
            repair: bool,
            len in prop_oneof![Just(2000), 0usize..100],
        ) {
            let mut frame = frame(v6, tcp, &payload);
            for (at, value) in damage {
                let at = at % frame.len();
                frame[at] = value;
            }
            if repair && !v6 {
                ipv4::fill_checksum(&mut frame[Parsed::L3..Parsed::L3 + ipv4::HEADER_LEN]);
            }
            frame.truncate(len);
            if let Some((_, plain)) = recognised(&frame) {
                let mut parsed = Parsed::EMPTY;
                let class = classify(&mut HeapPacket::new(&frame), &port(), &mut parsed);
                prop_assert_eq!((class, parsed), (Class::Flow, plain));
            }
        }
    }
}
