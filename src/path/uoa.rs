//! The client's address in an IPv4 option (UOA): which datagrams carry it, and putting it there.
//!
//! It rides on a session's first datagrams toward an IPv4 real server until that has answered one that carried it, on
//! `datagrams_max` at most. Such sessions bear [`Flags::TOA`] and stay out of the express lane until then. Whatever a
//! client sent under the option's type is erased from every packet, of every service: an identity must not be forged.

use super::client_address::NoRoomFor;
use super::packet::{Io, Packet};
use super::parsed::Parsed;
use super::rewrite::{Layout, NoRoomInBuffer};
use super::shard::{Shard, Turn};
use crate::service::snapshot::{ClientAddress, UoaSettings};
use crate::session::{Direction, Flags, Hot, SessionIndex};
use crate::wire::{ipv4, uoa};

/// An IPv4 header has room for so many bytes of options.
const OPTIONS_LEN_MAX: usize = ipv4::HEADER_LEN_MAX - ipv4::HEADER_LEN;

/// A session that had no room in so many packets is not told of: it shall not take the long way for ever.
const PACKETS_WITHOUT_ROOM_MAX: u32 = 256;

/// Erases what anybody else put in under the option's type, before anything else reads the header. What that does to the
/// header checksum is made good by the rewrite, which computes it anew where there are options.
#[inline]
pub fn erase_forged<P: Packet>(packet: &mut P, parsed: &Parsed) {
    let (l3, l4) = (Parsed::L3, usize::from(parsed.l4));
    if !parsed.v6 && l4 > l3 + ipv4::HEADER_LEN {
        uoa::erase(&mut packet.head_mut()[l3..l4]);
    }
}

/// Whether sessions of a service begin with the option. IPv6 real servers have no place for it.
pub fn is_told(client_address: &ClientAddress, hot: &Hot) -> bool {
    matches!(client_address, ClientAddress::Uoa(_)) && !hot.flags.has(Flags::SERVER_V6)
}

impl<P: Packet> Shard<P> {
    /// Whether this packet of a session whose real server is still to be told shall carry the option, decided before
    /// it is touched. `out_len` is the length of the IP packet behind the gateway, `mtu` what it may have there.
    #[cold]
    pub(super) fn uoa_due<I: Io<Packet = P>>(
        &mut self,
        turn: &Turn<'_, I>,
        parsed: &Parsed,
        (index, direction): (SessionIndex, Direction),
        out_len: usize,
        mtu: usize,
    ) -> bool {
        let client = self.sessions.client_flow(index);
        let (hot, cold) = self.sessions.lines_mut(index);
        let Some(settings) = uoa_settings(turn, cold.service) else {
            hot.flags.clear(Flags::TOA);
            return false;
        };
        if direction == Direction::Outbound {
            // An answer to what did not carry the option, for want of room, tells nothing.
            if cold.uoa_sent() > 0 {
                hot.flags.clear(Flags::TOA);
            }
            return false;
        }
        if cold.uoa_sent() >= settings.datagrams_max.into() {
            hot.flags.clear(Flags::TOA);
            return false;
        }
        let len = uoa::len_for(&client.src);
        let options_len = if parsed.v6 { 0 } else { usize::from(parsed.l4) - Parsed::L3 - ipv4::HEADER_LEN };
        let no_room = if options_len + len > OPTIONS_LEN_MAX {
            NoRoomFor::Options
        } else if out_len + len > mtu {
            NoRoomFor::Mtu
        } else {
            return true;
        };
        if hot.packets >= PACKETS_WITHOUT_ROOM_MAX {
            hot.flags.clear(Flags::TOA);
        }
        match no_room {
            NoRoomFor::Options => self.counters.uoa_no_option_room += 1,
            NoRoomFor::Mtu => self.counters.uoa_no_mtu_room += 1,
        }
        false
    }

    /// Puts the option into a packet that has its new IPv4 header, right behind the fixed part. The header's front moves,
    /// the rest stays where it is. Returns where things stand.
    #[cold]
    pub(super) fn insert_uoa(
        &mut self,
        packet: &mut P,
        layout: Layout,
        index: SessionIndex,
    ) -> Result<Layout, NoRoomInBuffer> {
        let client = self.sessions.client_flow(index);
        let len = uoa::len_for(&client.src);
        let head = packet.grow_front(len).ok_or(NoRoomInBuffer)?;
        let Layout { l3, l4, end } = layout;
        let layout = Layout { l3, l4: l4 + len, end: end + len };
        let option_at = l3 + ipv4::HEADER_LEN;
        head.copy_within(len..len + option_at, 0);
        uoa::write(&mut head[option_at..option_at + len], &client.src, client.sport);
        let header = &mut head[l3..layout.l4];
        ipv4::set_header_len(header, layout.l4 - l3);
        ipv4::set_total_len(header, (layout.end - l3) as u16);
        ipv4::fill_checksum(header);
        self.sessions.cold_mut(index).count_uoa_sent();
        self.counters.uoa_sent += 1;
        Ok(layout)
    }
}

fn uoa_settings<I: Io>(turn: &Turn<'_, I>, service: u16) -> Option<UoaSettings> {
    match turn.snapshot.service(service)?.client_address {
        ClientAddress::Uoa(settings) => Some(settings),
        _ => None,
    }
}
