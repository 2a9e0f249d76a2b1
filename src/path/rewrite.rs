//! New addresses for a packet: IP header, L4 ports, checksums; within a family and across.
//!
//! Checksums are updated, not recomputed (RFC 1624), so that a payload damaged before the gateway is still seen to be
//! damaged behind it. Only a frame whose sender left the checksum to its device (CHECKSUM_PARTIAL) gets a new one.

use zerocopy::transmute;

use super::packet::{ChecksumOffload, Packet};
use super::parsed::Parsed;
use super::plain::{self, Kind};
use crate::service::snapshot::PortView;
use crate::session::{Direction, Hot, SessionIndex, SessionTable};
use crate::wire::checksum::{self, Delta};
use crate::wire::field::{get_array, get_u16, put_array, put_u16, put_u32};
use crate::wire::ipv4::Ipv4Header;
use crate::wire::ipv6::Ipv6Header;
use crate::wire::{Address, Protocol, Tuple, ethernet, ipv4, ipv6, tcp, udp};

/// Where the headers of a packet stand; bytes from the start of the frame.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// start of the IP header
    pub l3: usize,
    /// start of the TCP or UDP header
    pub l4: usize,
    /// end of the IP packet
    pub end: usize,
}

impl From<&Parsed> for Layout {
    fn from(parsed: &Parsed) -> Self {
        Layout { l3: Parsed::L3, l4: parsed.l4.into(), end: parsed.end as usize }
    }
}

/// Addresses and ports that a packet gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ends {
    /// source address
    pub src: Address,
    /// destination address
    pub dst: Address,
    /// source port
    pub sport: u16,
    /// destination port
    pub dport: u16,
}

impl Ends {
    /// What a session's packets carry behind the gateway.
    #[inline(always)]
    pub fn of(sessions: &SessionTable, session: SessionIndex, direction: Direction) -> Ends {
        let Tuple { src, dst, sport, dport, protocol: _ } = sessions.behind(session, direction);
        Ends { src, dst, sport, dport }
    }

    /// [`Ends::of`] a session with two IPv4 sides.
    #[inline(always)]
    pub fn of_v4(hot: &Hot, direction: Direction) -> Ends {
        let (sport, dport) = hot.ports_behind(direction);
        let [a, b, c, d, e, f, g, h] = hot.addresses_behind(direction);
        Ends { src: Address::from_v4([a, b, c, d]), dst: Address::from_v4([e, f, g, h]), sport, dport }
    }
}

/// The difference that new ends make in an L4 checksum; across families too, since both pseudo headers sum up
/// addresses, protocol and length alike (RFC 9293 §3.1, RFC 8200 §8.1).
#[inline(always)]
pub fn ends_delta(old: &Tuple, new: &Ends) -> u16 {
    Delta::default()
        .replace_address(&old.src, &new.src)
        .replace_address(&old.dst, &new.dst)
        .replace_u16(old.sport, new.sport)
        .replace_u16(old.dport, new.dport)
        .fold()
}

/// IPv4 identification values for packets that a receiver may have to reassemble: unique per worker and, by slices of
/// the number space, between workers (RFC 6864 §4.3). The senders' own would collide behind one local address.
#[derive(Clone, Debug)]
pub struct Identification {
    next: u16,
    first: u16,
    len: u16,
}

impl Identification {
    /// The slice of worker `worker` of `workers`.
    pub fn new(worker: u16, workers: u16) -> Self {
        let len = 65_535 / workers.max(1);
        let first = 1 + worker * len;
        Identification { next: 0, first, len }
    }

    /// The value that a packet with this header gets; `None` if it keeps the one it has: that of an atomic datagram (DF, no
    /// fragment) has no meaning (RFC 6864 §4.1).
    #[inline(always)]
    fn of(&mut self, header: &[u8]) -> Option<u16> {
        if ipv4::dont_fragment(header) { None } else { Some(self.next_value()) }
    }

    /// The next value, never 0. Most packets of today may not be fragmented and do without.
    #[cold]
    pub fn next_value(&mut self) -> u16 {
        let value = self.first + self.next;
        self.next = if self.next + 1 == self.len { 0 } else { self.next + 1 };
        value
    }
}

/// Why a packet could not be rewritten.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoRoomInBuffer;

/// Whether the sender left the L4 checksum to its device: the field holds the pseudo header's sum alone.
pub fn has_partial_checksum(head: &[u8], layout: &Layout, parsed: &Parsed) -> bool {
    is_pseudo_sum_alone(head, layout, &parsed.tuple)
}

/// [`has_partial_checksum`] of a plain packet.
#[inline(always)]
pub fn plain_has_partial_checksum<const HEADERS: usize>(headers: &[u8; HEADERS], tuple: &Tuple) -> bool {
    let end = Parsed::L3 + plain::ip_len(headers);
    let l4 = const { Kind::with_headers(HEADERS) }.l4();
    is_pseudo_sum_alone(headers, &Layout { l3: Parsed::L3, l4, end }, tuple)
}

#[inline(always)]
fn is_pseudo_sum_alone(head: &[u8], layout: &Layout, tuple: &Tuple) -> bool {
    let len = (layout.end - layout.l4) as u32;
    let pseudo = checksum::pseudo_header_sum(&tuple.src, &tuple.dst, tuple.protocol as u8, len);
    checksum::is_partial(l4_checksum_field(head, layout.l4, tuple.protocol), pseudo)
}

#[inline(always)]
const fn checksum_offset(protocol: Protocol) -> usize {
    match protocol {
        Protocol::Tcp => tcp::CHECKSUM_OFFSET,
        Protocol::Udp => udp::CHECKSUM_OFFSET,
    }
}

#[inline(always)]
fn l4_checksum_field(head: &[u8], l4: usize, protocol: Protocol) -> u16 {
    let at = l4 + checksum_offset(protocol);
    u16::from_be_bytes([head[at], head[at + 1]])
}

#[inline(always)]
fn set_l4_checksum_field(head: &mut [u8], l4: usize, protocol: Protocol, value: u16) {
    let at = l4 + checksum_offset(protocol);
    head[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Gives the packet its new IP header and ports and brings the L4 checksum up to date with `delta`, which holds every
/// change made to addresses, ports and L4 header. Returns where things stand afterwards.
#[inline]
pub fn rewrite<P: Packet>(
    packet: &mut P,
    layout: Layout,
    protocol: Protocol,
    ends: &Ends,
    (from_v6, to_v6): (bool, bool),
    delta: Delta,
    identification: &mut Identification,
) -> Result<Layout, NoRoomInBuffer> {
    let layout = match (from_v6, to_v6) {
        (false, false) | (true, true) => {
            rewrite_in_place(packet.head_mut(), &layout, from_v6, protocol, ends, delta, identification);
            return Ok(layout);
        }
        (false, true) => translate_4_to_6(packet, layout, protocol, ends)?,
        (true, false) => translate_6_to_4(packet, layout, protocol, ends, identification)?,
    };
    rewrite_l4(packet.head_mut(), layout.l4, protocol, (ends.sport, ends.dport), delta);
    Ok(layout)
}

/// [`rewrite`] within a family: nothing moves. `head` begins at the Ethernet header.
#[inline(always)]
fn rewrite_in_place(
    head: &mut [u8],
    layout: &Layout,
    v6: bool,
    protocol: Protocol,
    ends: &Ends,
    delta: Delta,
    identification: &mut Identification,
) {
    let header = &mut head[layout.l3..layout.l4];
    if v6 {
        ipv6::set_payload_len(header, (layout.end - layout.l3 - ipv6::HEADER_LEN) as u16);
        readdress_ipv6(header, ends.src.octets(), ends.dst.octets());
    } else {
        readdress_ipv4(header, (layout.end - layout.l3) as u16, ends, identification);
    }
    rewrite_l4(head, layout.l4, protocol, (ends.sport, ends.dport), delta);
}

/// [`rewrite`] for a plain packet of a session within its family. `delta` holds every change made but that of the addresses
/// and ports.
#[inline(always)]
pub fn rewrite_plain<const HEADERS: usize>(
    headers: &mut [u8; HEADERS],
    sessions: &SessionTable,
    (index, direction): (SessionIndex, Direction),
    delta: Delta,
    identification: &mut Identification,
) {
    let kind = const { Kind::with_headers(HEADERS) };
    let l4 = kind.l4();
    let hot = sessions.hot(index);
    let ip = &mut headers[Parsed::L3..l4];
    if kind.is_v6() {
        let [src, dst] = sessions.addresses_behind_v6(index, direction);
        readdress_ipv6(ip, src.octets(), dst.octets());
    } else {
        let ip: &mut [u8; ipv4::HEADER_LEN] = ip.try_into().expect("a plain header");
        let id = identification.of(ip);
        ipv4::readdress_plain(ip, None, id, hot.addresses_behind(direction));
    }
    rewrite_l4(
        headers,
        l4,
        kind.protocol(),
        hot.ports_behind(direction),
        delta.add_delta(hot.ends_delta(direction)),
    );
}

/// New ports, and the checksum that the changes of `delta` make.
#[inline(always)]
fn rewrite_l4(head: &mut [u8], l4: usize, protocol: Protocol, (sport, dport): (u16, u16), delta: Delta) {
    let ports = u32::from(sport) << 16 | u32::from(dport);
    put_u32(head, l4, ports);
    // The order of bytes within words does not matter (RFC 1071 §2 (B)): only the difference is brought into that of the
    // field.
    let at = l4 + checksum_offset(protocol);
    match protocol {
        Protocol::Tcp => put_u16(head, at, delta.adjust(get_u16(head, at))),
        Protocol::Udp => {
            let old = u16::from_ne_bytes(get_array(head, at));
            put_array(head, at, checksum::adjust_udp(old, delta.fold().to_be()).to_ne_bytes());
        }
    }
}

/// This total length, one hop less and new addresses for an IPv4 header.
#[inline(always)]
fn readdress_ipv4(header: &mut [u8], total_len: u16, ends: &Ends, identification: &mut Identification) {
    let (src, dst) = (ends.src.v4_octets(), ends.dst.v4_octets());
    let id = identification.of(header);
    if let Ok(plain) = header.try_into() {
        return ipv4::readdress_plain(plain, Some(total_len), id, transmute!([src, dst]));
    }
    ipv4::set_total_len(header, total_len);
    if let Some(id) = id {
        ipv4::set_id(header, id);
    }
    ipv4::decrement_ttl(header);
    ipv4::set_src(header, src);
    ipv4::set_dst(header, dst);
    ipv4::fill_checksum(header);
}

/// One hop less and new addresses for an IPv6 header.
#[inline(always)]
fn readdress_ipv6(header: &mut [u8], src: &[u8; 16], dst: &[u8; 16]) {
    let header = &mut header[..ipv6::HEADER_LEN];
    ipv6::decrement_hop_limit(header);
    ipv6::set_src(header, *src);
    ipv6::set_dst(header, *dst);
}

/// RFC 7915 §4.1: traffic class from TOS, hop limit from TTL, flow label 0.
fn translate_4_to_6<P: Packet>(
    packet: &mut P,
    layout: Layout,
    protocol: Protocol,
    ends: &Ends,
) -> Result<Layout, NoRoomInBuffer> {
    let (tos, ttl) = (packet.head()[layout.l3 + 1], packet.head()[layout.l3 + 8]);
    if protocol == Protocol::Udp && l4_checksum_field(packet.head(), layout.l4, protocol) == 0 {
        fill_missing_udp_checksum(packet, &layout)?;
    }
    let layout = place_header(packet, layout, ipv6::HEADER_LEN)?;
    let payload_len = (layout.end - layout.l4) as u16;
    let header = Ipv6Header {
        traffic_class: tos,
        flow_label: 0,
        payload_len,
        next_header: protocol as u8,
        hop_limit: ttl - 1,
        src: *ends.src.octets(),
        dst: *ends.dst.octets(),
    };
    ipv6::write_header(&mut packet.head_mut()[layout.l3..], &header);
    Ok(layout)
}

/// RFC 7915 §5.1: TOS from traffic class, TTL from hop limit; may be fragmented up to 1,260 bytes, DF above.
fn translate_6_to_4<P: Packet>(
    packet: &mut P,
    layout: Layout,
    protocol: Protocol,
    ends: &Ends,
    identification: &mut Identification,
) -> Result<Layout, NoRoomInBuffer> {
    let header = &packet.head()[layout.l3..];
    let traffic_class = header[0] << 4 | header[1] >> 4;
    let hop_limit = header[7];
    let layout = place_header(packet, layout, ipv4::HEADER_LEN)?;
    let total_len = (layout.end - layout.l3) as u16;
    let dont_fragment = total_len > 1260;
    let id = if dont_fragment { 0 } else { identification.next_value() };
    let header = Ipv4Header {
        tos: traffic_class,
        total_len,
        id,
        dont_fragment,
        ttl: hop_limit - 1,
        protocol: protocol as u8,
        src: ends.src.v4_octets(),
        dst: ends.dst.v4_octets(),
    };
    ipv4::write_header(&mut packet.head_mut()[layout.l3..], &header);
    Ok(layout)
}

/// Moves the front of the frame so that an IP header of `header_len` bytes fits right before the L4 header.
fn place_header<P: Packet>(
    packet: &mut P,
    layout: Layout,
    header_len: usize,
) -> Result<Layout, NoRoomInBuffer> {
    let wanted = ethernet::HEADER_LEN + header_len;
    if wanted > layout.l4 {
        packet.grow_front(wanted - layout.l4).ok_or(NoRoomInBuffer)?;
    } else {
        packet.shrink_front(layout.l4 - wanted);
    }
    let end = layout.end + wanted - layout.l4;
    Ok(Layout { l3: ethernet::HEADER_LEN, l4: wanted, end })
}

/// RFC 7915 §4.5: IPv6 has no UDP without checksum. The sum is that of the IPv4 side; the rewrite adjusts it.
#[cold]
fn fill_missing_udp_checksum<P: Packet>(packet: &mut P, layout: &Layout) -> Result<(), NoRoomInBuffer> {
    if !packet.pull_up(layout.end) {
        return Err(NoRoomInBuffer);
    }
    let head = packet.head_mut();
    let src = Address::from_v4(*head[layout.l3 + 12..].first_chunk().expect("checked by classification"));
    let dst = Address::from_v4(*head[layout.l3 + 16..].first_chunk().expect("checked by classification"));
    let datagram = summed(head, layout, Protocol::Udp);
    let sum = checksum::l4_checksum(&src, &dst, Protocol::Udp as u8, datagram);
    set_l4_checksum_field(head, layout.l4, Protocol::Udp, checksum::never_zero(sum));
    Ok(())
}

/// What an L4 checksum covers: of UDP the datagram, which may end before the packet (RFC 9868 §6).
fn summed<'a>(head: &'a [u8], layout: &Layout, protocol: Protocol) -> &'a [u8] {
    let l4 = &head[layout.l4..layout.end];
    match protocol {
        Protocol::Tcp => l4,
        Protocol::Udp => &l4[..udp::len(l4).min(l4.len())],
    }
}

/// Computes the whole L4 checksum, or leaves that to the device where it can.
#[cold]
pub fn complete_checksum<P: Packet>(
    packet: &mut P,
    layout: &Layout,
    protocol: Protocol,
    ends: &Ends,
    egress: &PortView,
) -> Result<(), NoRoomInBuffer> {
    let len = (layout.end - layout.l4) as u32;
    if egress.checksum_offload {
        let pseudo = checksum::pseudo_header_sum(&ends.src, &ends.dst, protocol as u8, len);
        let seed = checksum::fold(pseudo);
        set_l4_checksum_field(packet.head_mut(), layout.l4, protocol, seed);
        packet.offload_checksum(ChecksumOffload {
            l2_len: layout.l3 as u8,
            l3_len: (layout.l4 - layout.l3) as u8,
            ipv4: ends.src.is_v4(),
            protocol,
        });
        return Ok(());
    }
    if packet.head().len() < layout.end && !packet.pull_up(layout.end) {
        return Err(NoRoomInBuffer);
    }
    let head = packet.head_mut();
    set_l4_checksum_field(head, layout.l4, protocol, 0);
    let sum = checksum::l4_checksum(&ends.src, &ends.dst, protocol as u8, summed(head, layout, protocol));
    let sum = if protocol == Protocol::Udp { checksum::never_zero(sum) } else { sum };
    set_l4_checksum_field(head, layout.l4, protocol, sum);
    Ok(())
}
