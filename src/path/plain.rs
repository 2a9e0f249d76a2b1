//! Plain frames: the straight line of checks that nearly every frame passes.
//!
//! A plain frame is addressed to us, untagged and in one segment; it holds a whole IPv4 packet without options or IPv6
//! packet without extension headers, of TCP or UDP, no fragment, with hops left. That is asked of every frame. What else a
//! packet may have wrong is asked by [`is_sound`], of those that do not belong to an established session: no session has a
//! key with such addresses or ports, and the express lane takes only segments with usual flags. [`super::classify`] looks
//! closely at everything else and names what is wrong with it; whatever is plain and sound it would call a flow and
//! describe the same.

use super::classify::{is_martian_v4, is_martian_v6};
use super::packet::Packet;
use super::parsed::Parsed;
use crate::cpu;
use crate::service::snapshot::PortView;
use crate::wire::field::{get_array, get_u16, get_u32};
use crate::wire::{Address, Protocol, Tuple, ethernet, ipv4, ipv6, tcp, udp};

/// Bytes of the Ethernet, IP and UDP header of a plain frame of UDP over IPv4. Of each kind it is another length, so that
/// a length names the kind.
pub const UDP4: usize = Parsed::L3 + ipv4::HEADER_LEN + udp::HEADER_LEN;
/// The same of TCP over IPv4.
pub const TCP4: usize = Parsed::L3 + ipv4::HEADER_LEN + tcp::HEADER_LEN;
/// The same of UDP over IPv6.
pub const UDP6: usize = Parsed::L3 + ipv6::HEADER_LEN + udp::HEADER_LEN;
/// The same of TCP over IPv6.
pub const TCP6: usize = Parsed::L3 + ipv6::HEADER_LEN + tcp::HEADER_LEN;

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

    /// What has headers of this length.
    pub const fn with_headers(len: usize) -> Kind {
        match len {
            UDP4 => Kind::Udp4,
            TCP4 => Kind::Tcp4,
            UDP6 => Kind::Udp6,
            TCP6 => Kind::Tcp6,
            _ => panic!("no kind of plain frame has headers of this length"),
        }
    }

    /// Where its UDP or TCP header begins.
    #[inline(always)]
    pub const fn l4(self) -> usize {
        Parsed::L3 + if self.is_v6() { ipv6::HEADER_LEN } else { ipv4::HEADER_LEN }
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

    /// What it holds.
    #[inline(always)]
    pub const fn protocol(self) -> Protocol {
        match self {
            Kind::Udp4 | Kind::Udp6 => Protocol::Udp,
            Kind::Tcp4 | Kind::Tcp6 => Protocol::Tcp,
        }
    }
}

/// What is asked of every frame of a port, looked up once per burst.
#[derive(Clone, Copy)]
pub struct Gate {
    mac: [u8; 6],
    mtu: usize,
}

impl Gate {
    /// Of this port, where no other one has a smaller MTU than `mtu`.
    #[inline]
    pub fn of(port: &PortView, mtu: u16) -> Self {
        Gate { mac: port.mac, mtu: mtu.into() }
    }

    /// Bytes that a plain packet has at most: with them it may leave by any port.
    #[inline(always)]
    pub const fn mtu(&self) -> usize {
        self.mtu
    }

    /// How plain frames of this kind begin.
    #[inline(always)]
    const fn front(&self, kind: Kind) -> Front {
        let mut front = FRONTS[kind as usize];
        let [a, b, c, d, e, f] = self.mac;
        [front.bytes[0], front.bytes[1], front.bytes[2]] = [a, b, c];
        [front.bytes[3], front.bytes[4], front.bytes[5]] = [d, e, f];
        front
    }
}

/// The bytes that a frame begins with, and which of their bits matter.
#[derive(Clone, Copy)]
struct Front {
    bytes: [u8; 32],
    mask: [u8; 32],
}

impl Front {
    /// Of plain frames of a kind, to the station of six zeros.
    const fn to_anybody(kind: Kind) -> Front {
        let mut front = Front { bytes: [0; 32], mask: [0; 32] };
        let mut at = 0;
        while at < 6 {
            front.mask[at] = 0xff;
            at += 1;
        }
        // the bit of the source that says that it is a group
        front.mask[6] = 1;
        let protocol = kind.protocol() as u8;
        if kind.is_v6() {
            front.set(12, &ethernet::TYPE_IPV6.to_be_bytes(), 0xff);
            front.set(Parsed::L3, &[0x60], 0xf0);
            front.set(Parsed::L3 + 6, &[protocol], 0xff);
        } else {
            front.set(12, &ethernet::TYPE_IPV4.to_be_bytes(), 0xff);
            front.set(Parsed::L3, &[0x45], 0xff);
            // RFC 791 §3.1: neither more fragments nor an offset
            front.set(Parsed::L3 + 6, &[0], 0x3f);
            front.set(Parsed::L3 + 7, &[0], 0xff);
            front.set(Parsed::L3 + 9, &[protocol], 0xff);
        }
        front
    }

    const fn set(&mut self, at: usize, bytes: &[u8], mask: u8) {
        let mut i = 0;
        while i < bytes.len() {
            self.bytes[at + i] = bytes[i];
            self.mask[at + i] = mask;
            i += 1;
        }
    }
}

/// Of each kind.
const FRONTS: [Front; 4] = [
    Front::to_anybody(Kind::Udp4),
    Front::to_anybody(Kind::Tcp4),
    Front::to_anybody(Kind::Udp6),
    Front::to_anybody(Kind::Tcp6),
];

/// What a frame would hold if it were a plain one: by its EtherType and protocol alone.
#[inline(always)]
pub fn kind_by_type(frame: &[u8]) -> Option<Kind> {
    let headers = frame.first_chunk::<UDP4>()?;
    let (v6, protocol) = match get_u16(headers, 12) {
        ethernet::TYPE_IPV4 => (false, headers[Parsed::L3 + 9]),
        ethernet::TYPE_IPV6 => (true, headers[Parsed::L3 + 6]),
        _ => return None,
    };
    match protocol {
        udp::PROTOCOL => Some(Kind::of(v6, false)),
        tcp::PROTOCOL => Some(Kind::of(v6, true)),
        _ => None,
    }
}

/// The flow of a frame if it is a plain one whose headers have this length.
#[inline(always)]
pub fn recognise_as<P: Packet, const HEADERS: usize>(packet: &P, gate: &Gate) -> Option<Tuple> {
    let kind = const { Kind::with_headers(HEADERS) };
    let front = gate.front(kind);
    let frame = packet.head();
    let headers = frame.first_chunk::<HEADERS>()?;
    let begins_so =
        cpu::equal_under(&front.mask, &front.bytes, headers.first_chunk().expect("within the headers"));
    if frame.len() != packet.len() || !begins_so {
        return None;
    }
    let (l3_len, shortest) = (kind.l4() - Parsed::L3, HEADERS - Parsed::L3);
    let ip_len = ip_len(headers);
    // One subtraction asks for both the shortest and the longest.
    let fits = ip_len.wrapping_sub(shortest) <= gate.mtu.saturating_sub(shortest)
        && Parsed::L3 + ip_len <= frame.len();
    let hops = headers[Parsed::L3 + if kind.is_v6() { 7 } else { 8 }];
    if !(fits && hops > 1) {
        return None;
    }
    let (ip, l4) = headers[Parsed::L3..].split_at(l3_len);
    let checksum_ok = kind.is_v6() || ipv4::plain_checksum_ok(ip.first_chunk().expect("an IPv4 header"));
    let whole = kind.is_tcp() || udp::len(l4) == ip_len - l3_len;
    (checksum_ok && whole).then(|| tuple(headers))
}

/// Whether a plain frame, as it was described, has nothing wrong with what no established session vouches for: its
/// addresses, its ports, the flags and the length of a TCP header, the checksum that UDP over IPv6 must have.
#[inline]
pub fn is_sound(frame: &[u8], parsed: &Parsed) -> bool {
    let Tuple { src, dst, dport, protocol, .. } = &parsed.tuple;
    let martian = if parsed.v6 { is_martian_v6(src) } else { is_martian_v4(src.v4_octets()[0]) };
    let l4 = usize::from(parsed.l4);
    let header = &frame[l4..];
    let header_ok = match protocol {
        Protocol::Tcp => {
            let header_len = tcp::header_len(header);
            let within = header_len >= tcp::HEADER_LEN && l4 + header_len <= parsed.end as usize;
            within && tcp::flags_plausible(parsed.tcp_flags)
        }
        // RFC 8200 §8.1: IPv6 has no UDP without a checksum
        Protocol::Udp => *dport != 0 && !(parsed.v6 && udp::checksum(header) == 0),
    };
    src != dst && !martian && header_ok
}

/// The flow of a plain frame, whose kind is known by its headers' length.
#[inline(always)]
pub fn tuple<const HEADERS: usize>(headers: &[u8; HEADERS]) -> Tuple {
    let kind = const { Kind::with_headers(HEADERS) };
    let (src, dst) = if kind.is_v6() {
        (Address::from_v6(get_array(headers, 22)), Address::from_v6(get_array(headers, 38)))
    } else {
        (Address::from_v4(get_array(headers, 26)), Address::from_v4(get_array(headers, 30)))
    };
    let ports = get_u32(headers, kind.l4());
    Tuple { src, dst, sport: (ports >> 16) as u16, dport: ports as u16, protocol: kind.protocol() }
}

/// Bytes of the IP packet in a plain frame, whose kind is known by its headers' length.
#[inline(always)]
pub fn ip_len<const HEADERS: usize>(headers: &[u8; HEADERS]) -> usize {
    if const { Kind::with_headers(HEADERS) }.is_v6() {
        ipv6::HEADER_LEN + usize::from(get_u16(headers, Parsed::L3 + 4))
    } else {
        usize::from(get_u16(headers, Parsed::L3 + 2))
    }
}

/// The headers of a plain frame.
#[inline(always)]
fn headers<const HEADERS: usize>(frame: &[u8]) -> &[u8; HEADERS] {
    frame.first_chunk().expect("a plain frame")
}

/// The flow of a plain frame.
#[inline(always)]
pub fn tuple_of(frame: &[u8], kind: Kind) -> Tuple {
    match kind {
        Kind::Udp4 => tuple::<UDP4>(headers(frame)),
        Kind::Tcp4 => tuple::<TCP4>(headers(frame)),
        Kind::Udp6 => tuple::<UDP6>(headers(frame)),
        Kind::Tcp6 => tuple::<TCP6>(headers(frame)),
    }
}

/// Describes a plain frame in full, for those who look closely at it.
#[inline]
pub fn describe(frame: &[u8], kind: Kind) -> Parsed {
    match kind {
        Kind::Udp4 => describe_as::<UDP4>(headers(frame)),
        Kind::Tcp4 => describe_as::<TCP4>(headers(frame)),
        Kind::Udp6 => describe_as::<UDP6>(headers(frame)),
        Kind::Tcp6 => describe_as::<TCP6>(headers(frame)),
    }
}

/// [`describe`] of a frame whose kind is known by its headers' length.
#[inline(always)]
fn describe_as<const HEADERS: usize>(headers: &[u8; HEADERS]) -> Parsed {
    let kind = const { Kind::with_headers(HEADERS) };
    Parsed {
        tuple: tuple(headers),
        l4: kind.l4() as u16,
        end: (Parsed::L3 + ip_len(headers)) as u32,
        tcp_flags: if kind.is_tcp() { tcp::flags(&headers[kind.l4()..]) } else { 0 },
        v6: kind.is_v6(),
        hops: 0,
    }
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
        let packet = HeapPacket::new(frame);
        let kind = kind_by_type(frame)?;
        let tuple = match kind {
            Kind::Udp4 => recognise_as::<_, UDP4>(&packet, &gate),
            Kind::Tcp4 => recognise_as::<_, TCP4>(&packet, &gate),
            Kind::Udp6 => recognise_as::<_, UDP6>(&packet, &gate),
            Kind::Tcp6 => recognise_as::<_, TCP6>(&packet, &gate),
        }?;
        let parsed = describe(frame, kind);
        assert_eq!(parsed.tuple, tuple);
        Some((kind, parsed))
    }

    #[test]
    fn usual_frames_are_plain_padded_or_not() {
        for kind in [Kind::Udp4, Kind::Tcp4, Kind::Udp6, Kind::Tcp6] {
            for (payload, padding) in [(0, 0), (0, 18), (1, 0), (18, 0), (18, 6)] {
                let frame =
                    [frame(kind.is_v6(), kind.is_tcp(), &vec![1; payload]), vec![0; padding]].concat();
                let (recognised, parsed) = recognised(&frame).expect("a plain frame");
                assert_eq!((parsed.v6, parsed.tuple.protocol), (kind.is_v6(), kind.protocol()));
                assert_eq!((recognised, parsed.end as usize), (kind, frame.len() - padding));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        /// Bytes of headers changed at will, checksums put right, frames cut or padded.
        #[test]
        fn what_is_plain_and_sound_is_the_same_flow_to_a_closer_look(
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
                prop_assert_eq!(class == Class::Flow, is_sound(&frame, &plain), "{:?}", class);
                if class == Class::Flow {
                    prop_assert_eq!(parsed, plain);
                }
            }
        }
    }
}
