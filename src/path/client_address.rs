//! The client's address in a TCP option (TOA): whether it goes into a segment, and putting it there.
//!
//! It rides on every segment toward the real server until the client has acknowledged the server's first byte, first
//! among the options. A TOA that the client sent itself is erased on every segment: an identity must not be forged.

use std::ops::Range;

use super::counters::PathCounters;
use super::packet::Packet;
use super::parsed::Parsed;
use super::plain::Kind;
use super::tcp_track::Segment;
use crate::service::snapshot::ToaSettings;
use crate::session::{Cold, Flags, Hot, ProxyFacts};
use crate::wire::checksum::Delta;
use crate::wire::{Address, Tuple, ethernet, ipv4, ipv6, tcp, tcp_option, toa};

/// Whether a segment has options beyond the usual timestamps, among which a TOA may be.
#[inline(always)]
pub fn may_be_forged(segment: &[u8]) -> bool {
    let options = &segment[tcp::HEADER_LEN..];
    !options.is_empty() && !tcp_option::is_only_timestamps(options)
}

/// The option kinds that receivers take for TOA, and those that the service sends. Of one that sends none all others pass
/// as what nobody here knows.
pub fn kinds(settings: Option<&ToaSettings>) -> [u8; 5] {
    let [alternate, default] = toa::KINDS;
    let (ca, v4, v6) = settings
        .map_or((default, default, default), |settings| (toa::KIND_CA, settings.kind_v4, settings.kind_v6));
    [alternate, default, ca, v4, v6]
}

/// Overwrites with NOPs whatever TOA the client put in. Returns what that contributes to the TCP checksum.
#[cold]
pub fn erase_forged(segment: &mut [u8], kinds: &[u8]) -> Delta {
    tcp_option::erase_kind(&mut segment[tcp::HEADER_LEN..], kinds).unwrap_or_default()
}

/// The settings by which this inbound segment shall carry TOA, if it shall. A service that has ceased to tell does not
/// begin again in the middle of a connection.
#[inline]
pub fn due(
    hot: &mut Hot,
    cold: &Cold,
    segment: &Segment,
    settings: Option<ToaSettings>,
) -> Option<ToaSettings> {
    if settings.is_none() {
        hot.flags.clear(Flags::TOA);
    }
    settings.filter(|settings| hot.flags.has(Flags::TOA) && is_due(hot, cold, segment, settings))
}

/// Whether an inbound segment of a session in its TOA phase shall carry TOA; ends the phase when the client has acknowledged
/// the real server's first payload byte: one that the real server has sent, or a client could end it before it began.
#[inline]
fn is_due(hot: &mut Hot, cold: &Cold, segment: &Segment, settings: &ToaSettings) -> bool {
    if segment.flags & tcp::RST != 0 {
        return false;
    }
    if segment.flags & tcp::SYN != 0 {
        // Experimental TCP Fast Open (RFC 6994 §3.1, Linux `tcp_parse_fastopen_option`) is kind 254 with that port first.
        let kind = if hot.flags.has(Flags::CLIENT_V6) { settings.kind_v6 } else { settings.kind_v4 };
        let is_fast_open = kind == toa::KIND_DEFAULT && hot.cport == toa::FAST_OPEN_PORT;
        // A front names its client behind the handshake.
        return settings.on_syn && !is_fast_open && !cold.header.facts.has(ProxyFacts::FROM_FRONT);
    }
    segment.flags & tcp::ACK == 0 || !ends_by(hot, cold, segment.ack)
}

/// Whether this acknowledgement of the client's ends the session's TOA phase, and so it has. Without data of the real
/// server's there is none that could, which the hot line knows.
fn ends_by(hot: &mut Hot, cold: &Cold, ack: u32) -> bool {
    let acknowledges = hot.flags.has(Flags::SERVER_DATA)
        && tcp::seq_after(ack, cold.server_isn.wrapping_add(1))
        && !tcp::seq_after(ack, hot.next_seq_outbound);
    if acknowledges {
        hot.flags.clear(Flags::TOA);
    }
    acknowledges
}

/// Whether every segment of an established session shall carry TOA, whatever it acknowledges.
#[inline(always)]
pub const fn is_due_anyway(flags: Flags) -> bool {
    flags.has(Flags::TOA) && !flags.has(Flags::SERVER_DATA)
}

/// Bytes the option takes for a client of this family.
#[inline(always)]
pub const fn option_len(client_v6: bool) -> usize {
    if client_v6 { toa::V6_LEN } else { toa::V4_LEN }
}

/// Bytes the option can come to take in a session: a front may name a client of either family.
pub fn option_len_max(hot: &Hot, cold: &Cold) -> usize {
    option_len(hot.flags.has(Flags::CLIENT_V6) || cold.header.facts.has(ProxyFacts::FROM_FRONT))
}

/// Why a segment goes without TOA.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoRoomFor {
    /// 40 bytes of options are used up
    Options,
    /// the packet would exceed the MTU toward the real server
    Mtu,
}

/// Whether the option fits; decided before the packet is touched.
#[inline]
pub fn fits(segment_header_len: usize, len: usize, packet_len: usize, mtu: usize) -> Result<(), NoRoomFor> {
    if segment_header_len - tcp::HEADER_LEN + len > tcp::OPTIONS_LEN_MAX {
        Err(NoRoomFor::Options)
    } else if packet_len + len > mtu {
        Err(NoRoomFor::Mtu)
    } else {
        Ok(())
    }
}

/// Notes that a segment went without.
#[cold]
pub fn count_no_room(counters: &mut PathCounters, why: NoRoomFor) {
    match why {
        NoRoomFor::Options => counters.toa_no_option_room += 1,
        NoRoomFor::Mtu => counters.toa_no_mtu_room += 1,
    }
}

/// Puts the option in, right behind the fixed TCP header, which begins at `l4` of a packet of the client's side. That the
/// packet has become longer is the IP header's to say when it is rewritten. Returns what the TCP checksum changes by; `None`
/// if the buffer has no room.
pub fn insert<P: Packet>(
    packet: &mut P,
    l4: usize,
    (client, cport): (&Address, u16),
    settings: &ToaSettings,
) -> Option<Delta> {
    let client_v6 = !client.is_v4();
    let head = make_room(packet, l4, option_len(client_v6))?;
    Some(put(head, l4, client_v6, (client, cport), settings))
}

/// [`insert`] for a plain packet, whose IP header says at once that it has become longer. Returns the headers, what follows
/// the option, and what the TCP checksum changes by.
#[inline(always)]
pub fn insert_plain<'a, P: Packet, const HEADERS: usize>(
    packet: &'a mut P,
    tuple: &Tuple,
    settings: &ToaSettings,
) -> Option<(&'a mut [u8; HEADERS], &'a mut [u8], Delta)> {
    let kind = const { Kind::with_headers(HEADERS) };
    let (v6, l4) = (kind.is_v6(), kind.l4());
    let len = option_len(v6);
    let head = make_room(packet, l4, len)?;
    let ip = &mut head[Parsed::L3..l4];
    if v6 {
        ipv6::lengthen(ip, len)
    } else {
        ipv4::lengthen(ip, len)
    }
    let delta = put(head, l4, v6, (&tuple.src, tuple.sport), settings);
    let (headers, behind) = head.split_first_chunk_mut().expect("it has grown");
    Some((headers, &mut behind[len..], delta))
}

/// Makes room for `len` bytes of option. The headers move forward but for the MAC addresses, which are the sender's to write;
/// the payload stays where it is.
#[inline(always)]
fn make_room<P: Packet>(packet: &mut P, l4: usize, len: usize) -> Option<&mut [u8]> {
    let head = packet.grow_front(len)?;
    let option_at = l4 + tcp::HEADER_LEN;
    let front = &mut head[..option_at + len];
    // In pieces none of which crosses the line of memory at which the frame began, nor ends within what is read at once
    // afterwards: reading that back would wait for the stores.
    let mut advance =
        |piece: Range<usize>| front.copy_within(piece.start + len..piece.end + len, piece.start);
    let began = len.max(Parsed::L3);
    advance(ethernet::ADDRESSES_LEN..began);
    advance(began..Parsed::L3 + 8);
    advance(Parsed::L3 + 8..option_at);
    Some(head)
}

/// Writes the option where there is room for it, for a client of a family that the compiler may know, as the lengths of all
/// that is written. Returns what the TCP checksum changes by.
#[inline(always)]
fn put(
    head: &mut [u8],
    l4: usize,
    client_v6: bool,
    (client, cport): (&Address, u16),
    settings: &ToaSettings,
) -> Delta {
    let len = option_len(client_v6);
    let option_at = l4 + tcp::HEADER_LEN;
    tcp::lengthen_options(&mut head[l4..option_at], len);
    let kind = if client_v6 { settings.kind_v6 } else { settings.kind_v4 };
    write(&mut head[option_at..option_at + len], client_v6, client, cport, settings);
    let delta = Delta::default()
        .insert_u16(tcp::with_more_options(0, len))
        // the pseudo header's length
        .insert_u16(len as u16)
        .insert_u32(toa::front(kind, len, cport));
    if client_v6 {
        delta.insert_octets(client.octets())
    } else {
        delta.insert_u32(u32::from_be_bytes(client.v4_octets()))
    }
}

/// Fills `option`, [`option_len`] bytes, with the client's address.
#[inline(always)]
pub fn write(option: &mut [u8], client_v6: bool, client: &Address, cport: u16, settings: &ToaSettings) {
    if client_v6 {
        let out = option.first_chunk_mut().expect("the option's length");
        toa::write_v6(out, settings.kind_v6, cport, *client.octets());
    } else {
        let out = option.first_chunk_mut().expect("the option's length");
        toa::write_v4(out, settings.kind_v4, cport, client.v4_octets());
    }
}
