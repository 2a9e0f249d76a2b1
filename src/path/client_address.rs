//! The client's address in a TCP option (TOA): whether it goes into a segment, and putting it there.
//!
//! It rides on every segment toward the real server until the client has acknowledged the server's first byte, first
//! among the options. A TOA that the client sent itself is erased on every segment: an identity must not be forged.

use super::counters::PathCounters;
use super::packet::Packet;
use super::rewrite::{Layout, NoRoomInBuffer};
use super::tcp_track::Segment;
use crate::service::snapshot::ToaSettings;
use crate::session::{Cold, Flags, Hot};
use crate::wire::checksum::Delta;
use crate::wire::{Address, tcp, tcp_option, toa};

/// RFC 9293 §3.1: options take at most 40 bytes.
const OPTIONS_LEN_MAX: usize = 40;

/// RFC 6994 and the first TCP Fast Open drafts: kind 254 with these two bytes asks a listener for a cookie.
const FAST_OPEN_MAGIC: u16 = 0xf989;

/// Option kinds of the TOA family; the configured one is erased too.
const TOA_KINDS: [u8; 2] = [253, 254];

/// Overwrites with NOPs whatever TOA the client put in. Returns what that contributes to the TCP checksum.
#[inline]
pub fn erase_forged(segment: &mut [u8]) -> Delta {
    let options = &mut segment[tcp::HEADER_LEN..];
    if options.is_empty() || tcp_option::is_only_timestamps(options) {
        return Delta::default();
    }
    tcp_option::erase_kinds(options, &TOA_KINDS)
}

/// Whether this inbound segment shall carry TOA; ends the session's TOA phase when the client has acknowledged the
/// real server's first payload byte.
#[inline]
pub fn is_due(hot: &mut Hot, cold: &Cold, segment: &Segment, settings: &ToaSettings) -> bool {
    if segment.flags & tcp::RST != 0 {
        return false;
    }
    if segment.flags & tcp::SYN != 0 {
        let magic = settings.kind_v4 == 254 && !hot.flags.has(Flags::CLIENT_V6) && hot.cport == FAST_OPEN_MAGIC;
        return settings.on_syn && !magic;
    }
    if !hot.flags.has(Flags::ANSWERED) || segment.flags & tcp::ACK == 0 {
        return true;
    }
    if tcp::seq_after(segment.ack, cold.server_isn.wrapping_add(1)) {
        hot.flags.clear(Flags::TOA);
        return false;
    }
    true
}

/// Bytes the option takes for a client of this family.
#[inline(always)]
pub const fn option_len(client_v6: bool) -> usize {
    if client_v6 { toa::LEN_V6 } else { toa::LEN_V4 }
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
    if segment_header_len - tcp::HEADER_LEN + len > OPTIONS_LEN_MAX {
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

/// Puts the option in, right behind the fixed TCP header. The headers move forward, the payload stays where it is.
/// Returns where things stand and what the TCP checksum changes by.
#[inline(never)]
pub fn insert<P: Packet>(
    packet: &mut P,
    layout: Layout,
    client: &Address,
    cport: u16,
    settings: &ToaSettings,
) -> Result<(Layout, Delta), NoRoomInBuffer> {
    let len = option_len(!client.is_v4());
    if !packet.grow_front(len) {
        return Err(NoRoomInBuffer);
    }
    let option_at = layout.l4 + tcp::HEADER_LEN;
    let head = packet.head_mut();
    head.copy_within(len..len + option_at, 0);
    let option = &mut head[option_at..option_at + len];
    match option.first_chunk_mut() {
        Some(out) if len == toa::LEN_V6 => toa::write_v6(out, settings.kind_v6, cport, *client.octets()),
        _ => toa::write_v4(
            option.first_chunk_mut().expect("an option of eight bytes"),
            settings.kind_v4,
            cport,
            client.v4_octets(),
        ),
    }
    let mut delta = Delta::default().replace_bytes(&[], &head[option_at..option_at + len]);
    let offset_at = layout.l4 + tcp::DATA_OFFSET;
    let offset = head[offset_at];
    let longer = offset + ((len as u8 / 4) << 4);
    head[offset_at] = longer;
    delta = delta.replace_u16(u16::from(offset) << 8, u16::from(longer) << 8);
    // the pseudo header's length
    delta = delta.replace_u16(0, len as u16);
    Ok((Layout { end: layout.end + len, ..layout }, delta))
}
