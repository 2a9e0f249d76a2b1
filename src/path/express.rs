//! The express lane: a packet that needs nothing but new addresses and numbers, in one straight line.
//!
//! It is for a [`super::plain`] packet of an established session, within one family, whose next hop is in order:
//! nearly every packet there is. What happens to it is what [`Shard::forward`] would do, by the same functions; here
//! their arguments are constants and every condition is asked once. Nothing is changed before all conditions hold, so
//! that everything else can still go the long way.

use super::client_address;
use super::drop_reason::DropReason;
use super::forward::toa_settings;
use super::neighbour::NeighbourIndex;
use super::packet::{Io, Packet};
use super::parsed::Parsed;
use super::plain::{Kind, L4_V4, L4_V6};
use super::rewrite::{self, Ends, Layout};
use super::shard::{Shard, Turn};
use super::tcp_track::{self, Segment};
use super::tcp_translate;
use crate::id::PortId;
use crate::session::{Direction, Flags, SessionIndex};
use crate::wire::checksum::Delta;
use crate::wire::{Address, Protocol, tcp, tcp_option};

/// Where a packet goes, or why it goes no further.
type Passed = Result<PortId, DropReason>;

impl<P: Packet> Shard<P> {
    /// Sends a packet on its way; `Err` gives it back untouched if this lane is not for it.
    #[inline(always)]
    pub(super) fn express<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        rx_port: PortId,
        mut packet: P,
        parsed: &Parsed,
        (index, direction): (SessionIndex, Direction),
    ) -> Result<(), P> {
        let on = &mut packet;
        let passed = match parsed.plain {
            Some(Kind::Udp4) => self.pass::<I, L4_V4, false>(turn, rx_port, on, parsed, index, direction),
            Some(Kind::Tcp4) => self.pass::<I, L4_V4, true>(turn, rx_port, on, parsed, index, direction),
            Some(Kind::Udp6) => self.pass::<I, L4_V6, false>(turn, rx_port, on, parsed, index, direction),
            Some(Kind::Tcp6) => self.pass::<I, L4_V6, true>(turn, rx_port, on, parsed, index, direction),
            None => None,
        };
        match passed {
            Some(Ok(port)) => self.transmit(turn, port, packet),
            Some(Err(reason)) => self.drop(packet, reason),
            None => return Err(packet),
        }
        Ok(())
    }

    /// Rewrites a packet whose layer 4 starts at `L4` and is TCP or UDP; `None` if this lane is not for it.
    #[inline(always)]
    fn pass<I: Io<Packet = P>, const L4: usize, const TCP: bool>(
        &mut self,
        turn: &Turn<'_, I>,
        rx_port: PortId,
        packet: &mut P,
        parsed: &Parsed,
        index: SessionIndex,
        direction: Direction,
    ) -> Option<Passed> {
        let ports = &turn.snapshot.ports[..];
        let rx = &ports[rx_port.index()];
        let hot = self.sessions.hot_mut(index);
        let (ahead, behind) = hot.next_hops(direction);
        let next_hop = self.neighbours.adjacency(NeighbourIndex(ahead));
        let families = if L4 == L4_V6 { Flags::WIDE } else { 0 };
        let protocol = if TCP { Protocol::Tcp } else { Protocol::Udp };
        if !hot.is_established(protocol, families)
            || hot.route_epoch != turn.snapshot.route_epoch
            || self.real_servers[hot.real_server as usize].removed
            || !next_hop.is_settled()
            || rx.partial_checksums
        {
            return None;
        }
        if rx.reverse_path_filter && self.neighbours.adjacency(NeighbourIndex(behind)).port() != rx_port {
            return None;
        }
        let (ip_len, mtu) = (parsed.ip_len(), usize::from(ports[next_hop.port().index()].mtu));
        if ip_len > mtu || packet.head().len() < L4 + tcp::HEADER_LEN {
            return None;
        }

        let layout = Layout { l4: L4, ..Layout::from(parsed) };
        let (next_hop, place) = (*next_hop, (layout, mtu));
        let (layout, delta) = if TCP {
            match self.edit_segment::<I, L4>(turn, packet, parsed, index, direction, place)? {
                Ok(edited) => edited,
                Err(reason) => return Some(Err(reason)),
            }
        } else {
            (layout, Delta::default())
        };

        let (hot, _, wide) = self.sessions.lines_mut(index);
        self.real_servers[hot.real_server as usize].count(direction, ip_len);
        hot.stamp = turn.now.tick();
        hot.packets = hot.packets.wrapping_add(1);
        let delta = delta.add_delta(hot.ends_delta(direction));
        let ends = Ends::of(hot, wide, direction);
        let head = &mut packet.head_mut()[..L4 + tcp::HEADER_LEN];
        rewrite::rewrite_in_place(
            head,
            &layout,
            L4 == L4_V6,
            protocol,
            &ends,
            delta,
            &mut self.identification,
        );
        head[..12].copy_from_slice(next_hop.header());
        packet.truncate(layout.end);
        Some(Ok(next_hop.port()))
    }

    /// Numbers and options of a segment; `None`, with nothing changed, if it is no plain one.
    #[inline(always)]
    fn edit_segment<I: Io<Packet = P>, const L4: usize>(
        &mut self,
        turn: &Turn<'_, I>,
        packet: &mut P,
        parsed: &Parsed,
        index: SessionIndex,
        direction: Direction,
        (layout, mtu): (Layout, usize),
    ) -> Option<Result<(Layout, Delta), DropReason>> {
        let bytes = packet.head_mut().get_mut(L4..)?;
        let PlainSegment { fixed, timestamps, numbers } =
            PlainSegment::of(bytes, layout.end - L4, parsed.tcp_flags)?;
        let header_len = tcp::header_len(fixed);
        let carries_toa = direction == Direction::Inbound && self.sessions.hot(index).flags.has(Flags::TOA);
        let toa = if carries_toa {
            let (hot, cold, _) = self.sessions.lines_mut(index);
            toa_settings(turn, cold.service)
                .filter(|settings| client_address::is_due(hot, cold, &numbers, settings))
        } else {
            None
        };
        let toa_len = client_address::option_len(L4 == L4_V6);
        if toa.is_some() && client_address::fits(header_len, toa_len, parsed.ip_len(), mtu).is_err() {
            return None;
        }
        let hot = self.sessions.hot_mut(index);
        tcp_track::advance(hot, direction, &numbers);
        let delta = tcp_translate::translate_plain(fixed, timestamps, hot, direction);
        let Some(settings) = toa else { return Some(Ok((layout, delta))) };
        let (client, cport) = (parsed.tuple.src, parsed.tuple.sport);
        // Known to be IPv4, the option and all that moves for it have lengths known to the compiler.
        let client = if L4 == L4_V6 { client } else { Address::from_v4(client.v4_octets()) };
        let inserted = client_address::insert(packet, layout, &client, cport, &settings);
        self.counters.toa_sent += u64::from(inserted.is_ok());
        Some(match inserted {
            Ok((layout, inserted)) => Ok((layout, delta.combine(inserted))),
            Err(_) => Err(DropReason::Headroom),
        })
    }
}

/// Data or an acknowledgement, with the usual timestamps or without options.
struct PlainSegment<'a> {
    fixed: &'a mut [u8; tcp::HEADER_LEN],
    timestamps: Option<&'a mut [u8; tcp_option::TIMESTAMPS_ALIGNED_LEN]>,
    numbers: Segment,
}

impl PlainSegment<'_> {
    /// A segment of `len` bytes, of which `bytes` are the first ones; `None` if it is no plain one.
    #[inline(always)]
    fn of(bytes: &mut [u8], len: usize, flags: u8) -> Option<PlainSegment<'_>> {
        const CONTROLS: u8 = tcp::SYN | tcp::FIN | tcp::RST;
        const WITH_TIMESTAMPS: usize = tcp::HEADER_LEN + tcp_option::TIMESTAMPS_ALIGNED_LEN;
        if flags & (CONTROLS | tcp::ACK) != tcp::ACK {
            return None;
        }
        let (fixed, rest) = bytes.split_first_chunk_mut()?;
        let header_len = tcp::header_len(fixed);
        let timestamps = match header_len {
            tcp::HEADER_LEN => None,
            WITH_TIMESTAMPS => {
                let options = rest.first_chunk_mut()?;
                if !tcp_option::is_only_timestamps(options) {
                    return None;
                }
                Some(options)
            }
            _ => return None,
        };
        let payload_len = (len - header_len) as u32;
        let numbers = Segment { seq: tcp::seq(fixed), ack: tcp::ack(fixed), flags: tcp::ACK, payload_len };
        Some(PlainSegment { fixed, timestamps, numbers })
    }
}
