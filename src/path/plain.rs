//! Plain frames: the straight line of checks that nearly every frame passes.
//!
//! A plain frame is addressed to us, untagged and in one segment; it holds a whole IPv4 packet without options or IPv6
//! packet without extension headers, of TCP or UDP, no fragment, with hops left. [`super::classify`] looks closely at
//! everything else and names what is wrong with it; whatever is plain it would call a flow and describe the same.

use super::classify::{is_martian_v4, is_martian_v6};
use super::packet::Packet;
use super::parsed::Parsed;
use crate::service::snapshot::PortView;
use crate::wire::field::{get_array, get_u16};
use crate::wire::{Address, Protocol, Tuple, ethernet, ipv4, ipv6, tcp, udp};

/// Start of the TCP or UDP header of a plain IPv4 frame.
pub const L4_V4: usize = Parsed::L3 + ipv4::HEADER_LEN;
/// Start of the TCP or UDP header of a plain IPv6 frame.
pub const L4_V6: usize = Parsed::L3 + ipv6::HEADER_LEN;
/// The headers of a plain IPv4 frame, those of UDP with some payload.
const HEADERS_V4: usize = L4_V4 + tcp::HEADER_LEN;
/// The headers of a plain IPv6 frame, those of UDP with some payload.
const HEADERS_V6: usize = L4_V6 + tcp::HEADER_LEN;

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

/// Describes a plain frame in `parsed` and returns true; false for all others, whatever they are.
#[inline(always)]
pub fn recognise<P: Packet>(packet: &P, port: &PortView, parsed: &mut Parsed) -> bool {
    let head = packet.head();
    if head.len() != packet.len() {
        return false;
    }
    let Some(headers) = head.first_chunk::<HEADERS_V4>() else { return false };
    let for_us = headers[..6] == port.mac && headers[6] & 1 == 0;
    if !for_us {
        return false;
    }
    match get_u16(headers, ethernet::HEADER_LEN - 2) {
        ethernet::TYPE_IPV4 => recognise_ipv4(headers, head.len(), port, parsed),
        ethernet::TYPE_IPV6 => {
            let Some(headers) = head.first_chunk() else { return false };
            recognise_ipv6(headers, head.len(), port, parsed)
        }
        _ => false,
    }
}

#[inline(always)]
fn recognise_ipv4(
    headers: &[u8; HEADERS_V4],
    frame_len: usize,
    port: &PortView,
    parsed: &mut Parsed,
) -> bool {
    let ip: &[u8; ipv4::HEADER_LEN] = headers[Parsed::L3..].first_chunk().expect("within the headers");
    let l4: &[u8; tcp::HEADER_LEN] = headers[L4_V4..].first_chunk().expect("within the headers");
    let total_len = usize::from(get_u16(ip, 2));
    let end = Parsed::L3 + total_len;
    let (src, dst) = (Address::from_v4(get_array(ip, 12)), Address::from_v4(get_array(ip, 16)));
    // RFC 791 §3.1: neither more fragments nor an offset
    let whole = ip[0] == 0x45 && get_u16(ip, 6) & 0x3fff == 0;
    let fits = end <= frame_len && total_len <= usize::from(port.mtu);
    if !(whole && fits && ip[8] > 1 && src != dst && !is_martian_v4(ip[12])) {
        return false;
    }
    if !ipv4::plain_checksum_ok(ip) {
        return false;
    }
    let Some(len) = end.checked_sub(L4_V4) else { return false };
    let place = Parsed { l4: L4_V4 as u16, end: end as u32, ..Parsed::EMPTY };
    if ip[9] == udp::PROTOCOL && is_udp(l4, len) {
        *parsed = Parsed { tuple: tuple(src, dst, l4, Protocol::Udp), plain: Some(Kind::Udp4), ..place };
        true
    } else if ip[9] == tcp::PROTOCOL && is_tcp(l4, len) {
        let tuple = tuple(src, dst, l4, Protocol::Tcp);
        *parsed = Parsed { tuple, tcp_flags: tcp::flags(l4), plain: Some(Kind::Tcp4), ..place };
        true
    } else {
        false
    }
}

#[inline(always)]
fn recognise_ipv6(
    headers: &[u8; HEADERS_V6],
    frame_len: usize,
    port: &PortView,
    parsed: &mut Parsed,
) -> bool {
    let ip: &[u8; ipv6::HEADER_LEN] = headers[Parsed::L3..].first_chunk().expect("within the headers");
    let l4: &[u8; tcp::HEADER_LEN] = headers[L4_V6..].first_chunk().expect("within the headers");
    let len = usize::from(get_u16(ip, 4));
    let end = L4_V6 + len;
    let (src, dst) = (Address::from_v6(get_array(ip, 8)), Address::from_v6(get_array(ip, 24)));
    let fits = end <= frame_len && end - Parsed::L3 <= usize::from(port.mtu);
    if !(ip[0] >> 4 == 6 && fits && ip[7] > 1 && src != dst && !is_martian_v6(&src)) {
        return false;
    }
    let place = Parsed { l4: L4_V6 as u16, end: end as u32, v6: true, ..Parsed::EMPTY };
    // RFC 8200 §8.1: IPv6 has no UDP without a checksum
    if ip[6] == udp::PROTOCOL && is_udp(l4, len) && get_u16(l4, udp::CHECKSUM_OFFSET) != 0 {
        *parsed = Parsed { tuple: tuple(src, dst, l4, Protocol::Udp), plain: Some(Kind::Udp6), ..place };
        true
    } else if ip[6] == tcp::PROTOCOL && is_tcp(l4, len) {
        let tuple = tuple(src, dst, l4, Protocol::Tcp);
        *parsed = Parsed { tuple, tcp_flags: tcp::flags(l4), plain: Some(Kind::Tcp6), ..place };
        true
    } else {
        false
    }
}

#[inline(always)]
fn tuple(src: Address, dst: Address, l4: &[u8; tcp::HEADER_LEN], protocol: Protocol) -> Tuple {
    Tuple { src, dst, sport: get_u16(l4, 0), dport: get_u16(l4, 2), protocol }
}

/// Whether `len` bytes that begin with `header` are a whole datagram to some port.
#[inline(always)]
fn is_udp(header: &[u8; tcp::HEADER_LEN], len: usize) -> bool {
    let udp_len = udp::len(header);
    udp_len >= udp::HEADER_LEN && udp_len <= len && get_u16(header, 2) != 0
}

/// Whether `len` bytes that begin with `header` are a segment with flags that stacks send.
#[inline(always)]
fn is_tcp(header: &[u8; tcp::HEADER_LEN], len: usize) -> bool {
    let header_len = tcp::header_len(header);
    header_len >= tcp::HEADER_LEN && header_len <= len && tcp::flags_plausible(tcp::flags(header))
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

    fn recognised(frame: &[u8]) -> Option<Parsed> {
        let mut parsed = Parsed::EMPTY;
        recognise(&HeapPacket::new(frame), &port(), &mut parsed).then_some(parsed)
    }

    #[test]
    fn usual_frames_are_plain_padded_or_not() {
        for (v6, tcp) in [(false, false), (false, true), (true, false), (true, true)] {
            for padding in [0, 6] {
                let frame = [frame(v6, tcp, &[1; 18]), vec![0; padding]].concat();
                let parsed = recognised(&frame).expect("a plain frame");
                let kind = match (v6, tcp) {
                    (false, false) => Kind::Udp4,
                    (false, true) => Kind::Tcp4,
                    (true, false) => Kind::Udp6,
                    (true, true) => Kind::Tcp6,
                };
                assert_eq!((parsed.v6, parsed.tuple.protocol == Protocol::Tcp), (v6, tcp));
                assert_eq!((parsed.plain, parsed.end as usize), (Some(kind), frame.len() - padding));
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
                ipv4::fill_checksum(&mut frame[Parsed::L3..L4_V4]);
            }
            frame.truncate(len);
            if let Some(plain) = recognised(&frame) {
                let mut parsed = Parsed::EMPTY;
                let class = classify(&mut HeapPacket::new(&frame), &port(), &mut parsed);
                prop_assert_eq!((class, Parsed { plain: plain.plain, ..parsed }), (Class::Flow, plain));
            }
        }
    }
}
