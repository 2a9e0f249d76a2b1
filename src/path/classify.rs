//! The first look at a frame: which way it goes, or why it goes no further.
//!
//! Everything that later phases read is checked here once: lengths, versions, header checksums, addresses that no
//! host may have. Cost: the frame's first one or two cache lines. Anything that is not a whole TCP or UDP packet leaves
//! the fast way here. Nearly every frame is a [`super::plain`] one, which does not come here.

use super::drop_reason::DropReason;
use super::packet::Packet;
use super::parsed::Parsed;
use crate::service::snapshot::PortView;
use crate::wire::{Address, Protocol, Tuple, checksum, ethernet, icmp, ipv4, ipv6, nd, tcp};

/// Headers are read from the first segment; this many bytes of a longer chain are made contiguous.
const HEADERS_LEN_MAX: usize = 512;

/// Where a packet stands whose layer 4 is not a session's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// start of the IP header
    pub l3: u16,
    /// start of what follows it
    pub l4: u16,
    /// end of the IP packet
    pub end: u32,
    /// source address
    pub src: Address,
    /// destination address
    pub dst: Address,
    /// whether both are IPv6
    pub v6: bool,
}

/// What a frame turned out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// a TCP or UDP packet, described in the [`Parsed`]
    Flow,
    /// a TCP or UDP packet whose TTL ends here, described in the [`Parsed`]
    Expiring,
    /// an ARP message
    Arp,
    /// an ICMP or ICMPv6 message other than neighbour discovery
    Icmp(Place),
    /// a neighbour discovery message
    NeighbourDiscovery(Place),
    /// a packet of a protocol that the gateway does not forward
    OtherProtocol(Place),
    /// nothing to go on with
    Drop(DropReason),
}

/// Looks closely at one received frame and fills in `parsed` if it is a TCP or UDP packet.
#[cold]
#[inline(never)]
pub fn classify<P: Packet>(packet: &mut P, port: &PortView, parsed: &mut Parsed) -> Class {
    let frame_len = packet.len();
    if packet.head().len() != frame_len && !pull_up_headers(packet, frame_len) {
        return Class::Drop(DropReason::EthernetRunt);
    }
    if frame_len < ethernet::HEADER_LEN {
        return Class::Drop(DropReason::EthernetRunt);
    }
    let head = packet.head();
    let (destination, source) = (ethernet::destination(head), ethernet::source(head));
    if source[0] & 1 != 0 {
        return Class::Drop(DropReason::EthernetGroupSource);
    }
    let to_us = destination == port.mac;
    if !to_us && !ethernet::is_group(&destination) {
        return Class::Drop(DropReason::EthernetNotForUs);
    }
    match ethernet::ethertype(head) {
        ethernet::TYPE_IPV4 => classify_ipv4(head, frame_len, port, to_us, parsed),
        ethernet::TYPE_IPV6 => classify_ipv6(head, frame_len, port, to_us, parsed),
        ethernet::TYPE_ARP => Class::Arp,
        ethernet::TYPE_VLAN => strip_priority_tag(packet, port, parsed),
        ethernet::TYPE_QINQ => Class::Drop(DropReason::EthernetVlan),
        _ => Class::Drop(DropReason::EthernetUnknownType),
    }
}

#[cold]
fn pull_up_headers<P: Packet>(packet: &mut P, frame_len: usize) -> bool {
    // A first segment may be too small for as many; it then holds what it can, and the checks say whether that is enough.
    [HEADERS_LEN_MAX, 256, 128, 64].into_iter().any(|len| {
        let wanted = frame_len.min(len);
        packet.head().len() >= wanted || packet.pull_up(wanted)
    })
}

/// IEEE 802.1Q: VLAN 0 only carries a priority; the frame belongs to the untagged network.
#[cold]
fn strip_priority_tag<P: Packet>(packet: &mut P, port: &PortView, parsed: &mut Parsed) -> Class {
    let head = packet.head_mut();
    if head.len() < ethernet::HEADER_LEN + ethernet::VLAN_LEN {
        return Class::Drop(DropReason::EthernetRunt);
    }
    let vlan = u16::from_be_bytes([head[14], head[15]]) & 0x0fff;
    let inner = u16::from_be_bytes([head[16], head[17]]);
    if vlan != 0 || inner == ethernet::TYPE_VLAN || inner == ethernet::TYPE_QINQ {
        return Class::Drop(DropReason::EthernetVlan);
    }
    head.copy_within(0..12, ethernet::VLAN_LEN);
    packet.shrink_front(ethernet::VLAN_LEN);
    classify(packet, port, parsed)
}

#[inline]
fn classify_ipv4(head: &[u8], frame_len: usize, port: &PortView, to_us: bool, parsed: &mut Parsed) -> Class {
    const L3: usize = ethernet::HEADER_LEN;
    let Some(header) = head.get(L3..).and_then(|rest| rest.first_chunk::<20>()) else {
        return Class::Drop(DropReason::EthernetRunt);
    };
    let header_len = usize::from(header[0] & 0x0f) * 4;
    let total_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header[0] >> 4 != 4 || header_len < 20 || total_len < header_len || L3 + total_len > frame_len {
        return Class::Drop(cut_off_or(DropReason::Ipv4Header, total_len, port));
    }
    if header_len == 20 {
        if !ipv4::plain_checksum_ok(header) {
            return Class::Drop(DropReason::Ipv4Checksum);
        }
    } else if let Err(reason) = check_ipv4_options(head, L3, header_len) {
        return Class::Drop(reason);
    }
    if !to_us {
        return Class::Drop(DropReason::EthernetGroupDestination);
    }
    if total_len > usize::from(port.mtu) {
        return Class::Drop(cut_off_or(DropReason::EthernetOversize, total_len, port));
    }
    let src = Address::from_v4([header[12], header[13], header[14], header[15]]);
    let dst = Address::from_v4([header[16], header[17], header[18], header[19]]);
    if is_martian_v4(header[12]) {
        return Class::Drop(DropReason::IpMartianSource);
    }
    // RFC 791 §3.1: more fragments, or an offset
    if u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0 {
        return Class::Drop(DropReason::IpFragment);
    }
    let place = Place {
        l3: L3 as u16,
        l4: (L3 + header_len) as u16,
        end: (L3 + total_len) as u32,
        src,
        dst,
        v6: false,
    };
    match header[9] {
        6 => classify_tcp(head, place, header[8], parsed),
        17 => classify_udp(head, place, header[8], parsed),
        icmp::PROTOCOL_V4 => Class::Icmp(place),
        _ => Class::OtherProtocol(place),
    }
}

#[cold]
fn check_ipv4_options(head: &[u8], l3: usize, header_len: usize) -> Result<(), DropReason> {
    let header = head.get(l3..l3 + header_len).ok_or(DropReason::EthernetRunt)?;
    if checksum::fold(checksum::sum(header)) != 0xffff {
        return Err(DropReason::Ipv4Checksum);
    }
    match ipv4::options_policy(&header[20..]) {
        Ok(()) => Ok(()),
        Err(ipv4::OptionProblem::SourceRoute) => Err(DropReason::Ipv4SourceRoute),
        Err(_) => Err(DropReason::Ipv4Options),
    }
}

/// More than the MTU from a kernel of this machine is a frame that was meant for segmentation offload.
#[cold]
fn cut_off_or(reason: DropReason, ip_len: usize, port: &PortView) -> DropReason {
    if port.partial_checksums && ip_len > usize::from(port.mtu) { DropReason::SuperFrame } else { reason }
}

/// RFC 6890: 0/8, 127/8, 224/4 and 240/4 are no host's source address.
#[inline(always)]
pub(super) const fn is_martian_v4(first_octet: u8) -> bool {
    // one subtraction asks for both 0 and 224 and above
    first_octet == 127 || first_octet.wrapping_sub(1) >= 223
}

#[inline]
fn classify_ipv6(head: &[u8], frame_len: usize, port: &PortView, to_us: bool, parsed: &mut Parsed) -> Class {
    const L3: usize = ethernet::HEADER_LEN;
    let Some(header) = head.get(L3..).and_then(|rest| rest.first_chunk::<40>()) else {
        return Class::Drop(DropReason::EthernetRunt);
    };
    let payload_len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let end = L3 + ipv6::HEADER_LEN + payload_len;
    if header[0] >> 4 != 6 || payload_len == 0 || end > frame_len {
        return Class::Drop(cut_off_or(DropReason::Ipv6Header, end - L3, port));
    }
    let src = Address::from_v6(*header[8..].first_chunk().expect("a 40-byte header"));
    let dst = Address::from_v6(*header[24..].first_chunk().expect("a 40-byte header"));
    let mut place =
        Place { l3: L3 as u16, l4: (L3 + ipv6::HEADER_LEN) as u16, end: end as u32, src, dst, v6: true };
    let mut protocol = header[6];
    if !matches!(protocol, 6 | 17 | icmp::PROTOCOL_V6) {
        match walk_extensions(&head[..end.min(head.len())], L3) {
            Ok((found, l4)) => (protocol, place.l4) = (found, l4),
            Err(reason) => return Class::Drop(reason),
        }
    }
    if protocol == icmp::PROTOCOL_V6 {
        // Neighbour discovery comes in multicast frames and has checks of its own.
        return match head.get(usize::from(place.l4)) {
            Some(133..=137) => Class::NeighbourDiscovery(place),
            Some(_) if !to_us => Class::Drop(DropReason::EthernetGroupDestination),
            // A host on the link may ping from its link-local address; what no host has is answered by nobody.
            Some(_) if is_martian_v6(&src) && !nd::is_link_local(src) => {
                Class::Drop(DropReason::IpMartianSource)
            }
            Some(_) => Class::Icmp(place),
            None => Class::Drop(DropReason::IcmpMalformed),
        };
    }
    if !to_us {
        return Class::Drop(DropReason::EthernetGroupDestination);
    }
    if end - L3 > usize::from(port.mtu) {
        return Class::Drop(cut_off_or(DropReason::EthernetOversize, end - L3, port));
    }
    if is_martian_v6(&src) {
        return Class::Drop(DropReason::IpMartianSource);
    }
    match protocol {
        6 => classify_tcp(head, place, header[7], parsed),
        17 => classify_udp(head, place, header[7], parsed),
        _ => Class::OtherProtocol(place),
    }
}

#[cold]
fn walk_extensions(packet: &[u8], l3: usize) -> Result<(u8, u16), DropReason> {
    match ipv6::walk_extensions(&packet[l3..]) {
        Ok(walk) if walk.fragment.is_some() => Err(DropReason::IpFragment),
        Ok(walk) => Ok((walk.protocol, (l3 + walk.l4_offset) as u16)),
        Err(ipv6::ExtensionError::RoutingHeader) => Err(DropReason::Ipv6RoutingHeader),
        Err(ipv6::ExtensionError::UnknownProtocol) => Err(DropReason::IpUnknownProtocol),
        Err(_) => Err(DropReason::Ipv6Extension),
    }
}

/// RFC 4291: unspecified, loopback, multicast, link-local and IPv4-mapped addresses are not forwarded.
#[inline(always)]
pub(super) fn is_martian_v6(src: &Address) -> bool {
    let octets = src.octets();
    octets[0] == 0xff
        || (octets[0] == 0xfe && octets[1] & 0xc0 == 0x80)
        || (octets[..10] == [0; 10] && (src.is_v4() || octets[..15] == [0; 15]))
}

#[inline(always)]
fn classify_tcp(head: &[u8], place: Place, ttl: u8, parsed: &mut Parsed) -> Class {
    let l4 = usize::from(place.l4);
    let Some(header) = head.get(l4..).and_then(|rest| rest.first_chunk::<20>()) else {
        return Class::Drop(DropReason::TcpHeader);
    };
    let header_len = usize::from(header[12] >> 4) * 4;
    if header_len < 20 || l4 + header_len > place.end as usize || l4 + header_len > head.len() {
        return Class::Drop(DropReason::TcpHeader);
    }
    let flags = header[13];
    if !tcp::flags_plausible(flags) {
        return Class::Drop(DropReason::TcpFlags);
    }
    classify_flow(header, place, Protocol::Tcp, flags, ttl, parsed)
}

#[inline(always)]
fn classify_udp(head: &[u8], place: Place, ttl: u8, parsed: &mut Parsed) -> Class {
    let l4 = usize::from(place.l4);
    let Some(header) = head.get(l4..).and_then(|rest| rest.first_chunk::<8>()) else {
        return Class::Drop(DropReason::UdpHeader);
    };
    let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    if len < 8 || l4 + len > place.end as usize || (header[2] == 0 && header[3] == 0) {
        return Class::Drop(DropReason::UdpHeader);
    }
    if header[6] == 0 && header[7] == 0 && place.v6 {
        return Class::Drop(DropReason::UdpChecksumMissing);
    }
    classify_flow(header, place, Protocol::Udp, 0, ttl, parsed)
}

#[inline(always)]
fn classify_flow(
    l4: &[u8],
    place: Place,
    protocol: Protocol,
    flags: u8,
    ttl: u8,
    parsed: &mut Parsed,
) -> Class {
    *parsed = Parsed {
        tuple: Tuple {
            src: place.src,
            dst: place.dst,
            sport: u16::from_be_bytes([l4[0], l4[1]]),
            dport: u16::from_be_bytes([l4[2], l4[3]]),
            protocol,
        },
        l4: place.l4,
        end: place.end,
        tcp_flags: flags,
        v6: place.v6,
        hops: 0,
    };
    if place.src == place.dst {
        return Class::Drop(DropReason::Land);
    }
    if ttl > 1 { Class::Flow } else { Class::Expiring }
}
