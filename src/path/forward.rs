//! A packet that has a session: from the session's line to the wire.
//!
//! The order is fixed: state first (it may refuse), then everything that needs room (decided before the packet is
//! touched), then the L4 header, the IP header, the next hop. The usual packet, data or ACK of an established session
//! on a port like any other, took the shorter way of [`super::express`].

use super::client_address::{self, NoRoomFor};
use super::drop_reason::DropReason;
use super::neighbour::NeighbourIndex;
use super::packet::{Io, Packet, ReceivedChecksum};
use super::parsed::Parsed;
use super::proxy_header;
use super::rewrite::{self, Ends, Layout};
use super::shard::{Shard, Turn};
use super::tcp_track::{self, Segment, Tracked};
use super::tcp_translate;
use super::uoa;
use crate::id::PortId;
use crate::service::snapshot::{NoRoom, OnRemove, PortView, Snapshot, ToaSettings};
use crate::session::tcp_state::is_active;
use crate::session::{Cold, Direction, Flags, Hot, SessionIndex, State};
use crate::wire::checksum::Delta;
use crate::wire::{Protocol, ethernet, ipv4, ipv6, tcp, tcp_option};

/// What became of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// it goes to this next hop
    Send(NeighbourIndex),
    /// it ends here
    Drop(DropReason),
    /// its session is over; it starts a new one
    Reopen,
    /// its session is over, and whoever sent it is told
    Reset(DropReason),
    /// there is no way on at present; whoever sent it is told, its session lives
    Unroutable(DropReason),
    /// it exceeds the MTU of its way out; the sender is told how large it may be
    TooBig(usize),
}

impl<P: Packet> Shard<P> {
    /// Sends a packet of session `index` on its way, whatever it is.
    #[inline]
    pub(super) fn forward<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        rx_port: PortId,
        packet: P,
        parsed: &Parsed,
        found: (SessionIndex, Direction),
    ) {
        if self.sessions.hot(found.0).flags.has(Flags::PROXY_HEADER) {
            self.forward_with_header(turn, rx_port, packet, parsed, found);
        } else {
            self.pass_on(turn, rx_port, packet, parsed, found);
        }
    }

    /// [`Shard::forward`], where there is no PROXY protocol header to see to, or that is done. Whether the packet itself
    /// goes on.
    #[inline(never)]
    pub(super) fn pass_on<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        rx_port: PortId,
        mut packet: P,
        parsed: &Parsed,
        (index, direction): (SessionIndex, Direction),
    ) -> bool {
        let verdict = self.rewrite(turn, rx_port, &mut packet, parsed, index, direction);
        match verdict {
            Verdict::Send(next_hop) => self.send_to(turn, next_hop, packet),
            Verdict::Drop(reason) => self.drop(packet, reason),
            Verdict::Reopen => {
                self.end_session(turn, index);
                let hash = self.sessions.hash(&parsed.tuple, parsed.v6);
                self.open(turn, rx_port, packet, parsed, (hash, None));
            }
            Verdict::Reset(reason) => {
                self.end_session(turn, index);
                self.refuse(turn, rx_port, packet, parsed, reason);
            }
            Verdict::Unroutable(reason) => self.refuse_unroutable(turn, rx_port, packet, parsed, reason),
            Verdict::TooBig(mtu) => self.refuse_too_big(turn, rx_port, packet, parsed, mtu),
        }
        matches!(verdict, Verdict::Send(_))
    }

    #[inline]
    fn rewrite<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        rx_port: PortId,
        packet: &mut P,
        parsed: &Parsed,
        index: SessionIndex,
        direction: Direction,
    ) -> Verdict {
        let rx = &turn.snapshot.ports[rx_port.index()];
        if let Err(reason) = self.ensure_route(turn, index) {
            return Verdict::Unroutable(reason);
        }
        let hot = self.sessions.hot(index);
        let (ahead, behind) = hot.next_hops(direction);
        if rx.reverse_path_filter && self.neighbours.adjacency(NeighbourIndex(behind)).port() != rx_port {
            return Verdict::Drop(DropReason::IpSpoofedSource);
        }
        if self.real_server_of(index).removed
            && let Some(verdict) = self.without_real_server(turn, parsed, index, direction)
        {
            return verdict;
        }
        let egress_port = self.neighbours.adjacency(NeighbourIndex(ahead)).port();
        let egress = &turn.snapshot.ports[egress_port.index()];

        let layout = Layout::from(parsed);
        // Before anything is changed: the sender is told about the packet that it sent.
        let hot = self.sessions.hot(index);
        let to_v6 = hot.flags.has(match direction {
            Direction::Inbound => Flags::SERVER_V6,
            Direction::Outbound => Flags::CLIENT_V6,
        });
        let out_len = length_behind(&layout, parsed, to_v6);
        if out_len > usize::from(egress.mtu) {
            return Verdict::TooBig(usize::from(egress.mtu) + parsed.ip_len() - out_len);
        }
        let partial = rx.partial_checksums && rewrite::has_partial_checksum(packet.head(), &layout, parsed);
        if partial && packet.received_checksum() == ReceivedChecksum::Bad {
            return Verdict::Drop(DropReason::L4Checksum);
        }
        uoa::erase_forged(packet, parsed);
        let protocol = parsed.tuple.protocol;
        let (done, uoa_due) = match protocol {
            Protocol::Tcp => {
                (self.edit_tcp(turn, packet, layout, index, direction, (out_len, egress)), false)
            }
            Protocol::Udp => self.edit_udp(turn, packet, parsed, layout, index, direction, (out_len, egress)),
        };
        let (layout, delta) = match done {
            Ok(done) => done,
            Err(verdict) => return verdict,
        };

        let ends = Ends::of(&self.sessions, index, direction);
        let real_server = self.sessions.real_server(index);
        let hot = self.sessions.hot_mut(index);
        hot.stamp = turn.now.tick();
        hot.packets = hot.packets.wrapping_add(1);
        let delta = delta.add_delta(hot.ends_delta(direction));
        let families = (parsed.v6, to_v6);
        let rewritten =
            rewrite::rewrite(packet, layout, protocol, &ends, families, delta, &mut self.identification);
        let grown = match rewritten {
            Ok(layout) if uoa_due => self.insert_uoa(packet, layout, index),
            rewritten => rewritten,
        };
        let Ok(layout) = grown else { return Verdict::Drop(DropReason::Headroom) };
        if partial && rewrite::complete_checksum(packet, &layout, protocol, &ends, egress).is_err() {
            return Verdict::Drop(DropReason::Headroom);
        }
        packet.truncate(layout.end);
        self.real_servers[real_server.index()].count(direction, parsed.ip_len());

        let ethertype = if to_v6 { ethernet::TYPE_IPV6 } else { ethernet::TYPE_IPV4 };
        packet.head_mut()[12..14].copy_from_slice(&ethertype.to_be_bytes());
        Verdict::Send(NeighbourIndex(ahead))
    }

    /// What a datagram tells its real server of the client: a PROXY protocol header is put in; whether an option shall
    /// follow, once it has its IP header, stands beside.
    #[inline]
    #[allow(clippy::too_many_arguments)]
    fn edit_udp<I: Io<Packet = P>>(
        &mut self,
        turn: &Turn<'_, I>,
        packet: &mut P,
        parsed: &Parsed,
        layout: Layout,
        index: SessionIndex,
        direction: Direction,
        (out_len, egress): (usize, &PortView),
    ) -> (Result<(Layout, Delta), Verdict>, bool) {
        let flags = self.sessions.hot(index).flags;
        if direction == Direction::Inbound
            && flags.has(Flags::PROXY_HEADER)
            && let Some(settings) = self.proxy_header_due(turn, index)
        {
            let room = (out_len, egress);
            return (self.insert_proxy_header(packet, parsed, layout, index, room, settings), false);
        }
        let due = flags.has(Flags::TOA)
            && self.uoa_due(turn, parsed, (index, direction), out_len, egress.mtu.into());
        (Ok((layout, Delta::default())), due)
    }

    /// State, translation and options of a TCP segment. `Err` holds the verdict if it goes no further.
    #[inline]
    #[allow(clippy::too_many_arguments)]
    fn edit_tcp<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        packet: &mut P,
        layout: Layout,
        index: SessionIndex,
        direction: Direction,
        (out_len, egress): (usize, &PortView),
    ) -> Result<(Layout, Delta), Verdict> {
        let header_len = tcp::header_len(&packet.head()[layout.l4..]);
        let segment = Segment::read(&packet.head()[layout.l4..], layout.end - layout.l4);
        let settings = self.real_server_of(index).toa;
        let (hot, cold) = self.sessions.lines_mut(index);
        let before = hot.state;
        let tracked = tcp_track::track(hot, cold, direction, &segment);

        let toa = match direction {
            Direction::Inbound => client_address::due(hot, cold, &segment, settings),
            Direction::Outbound => None,
        };
        let state = hot.state;
        match tracked {
            Tracked::Forward => {}
            Tracked::Changed => self.note_state_change(turn, index, before),
            Tracked::PerhapsReset => self.note_perhaps_reset(turn, index),
            Tracked::Reopen => return Err(Verdict::Reopen),
            Tracked::OutsideWindow => return Err(Verdict::Drop(DropReason::RstOutsideWindow)),
        }
        let is_syn = segment.flags & tcp::SYN != 0;
        if is_syn && direction == Direction::Inbound && self.has_no_hope(turn, index, &segment) {
            return Err(Verdict::Reopen);
        }

        // Everything that may refuse the segment comes before its first change.
        let toa = match toa {
            None => None,
            Some(settings) => {
                let client = self.sessions.client_flow(index);
                let toa_len = client_address::option_len(!client.src.is_v4());
                match client_address::fits(header_len, toa_len, out_len, egress.mtu.into()) {
                    Ok(()) => Some((settings, client)),
                    Err(why) => {
                        let header = &packet.head()[layout.l4..layout.l4 + header_len];
                        self.without_toa(turn, header, index, why, &settings)?;
                        None
                    }
                }
            }
        };
        let header = &mut packet.head_mut()[layout.l4..layout.l4 + header_len];
        if state != State::Established && direction == Direction::Inbound {
            self.note_last_timestamp(index, header);
        }
        let mut delta = Delta::default();
        let hot = self.sessions.hot(index);
        if is_syn {
            let mss = mss_limit(turn.snapshot, hot, self.sessions.cold(index), &self.neighbours, direction);
            // No MPTCP: a subflow that joins could not find the same real server (RFC 8684 §3.2).
            delta = delta.combine(tcp_option::edit_syn(&mut header[tcp::HEADER_LEN..], mss));
        }
        if direction == Direction::Outbound && tcp_option::may_hold_sack(&header[tcp::HEADER_LEN..]) {
            let cold = self.sessions.cold(index);
            if cold.header.times_sent > 0 {
                delta = delta.combine(proxy_header::hide_blocks(header, hot, cold));
            }
        }
        delta = delta.combine(tcp_translate::translate(header, hot, direction));
        if direction == Direction::Inbound && client_address::may_be_forged(header) {
            let kinds = client_address::kinds(settings.as_ref());
            delta = delta.combine(client_address::erase_forged(header, &kinds));
        }
        let Some((settings, client)) = toa else { return Ok((layout, delta)) };
        let named = (&client.src, client.sport);
        let inserted = client_address::insert(packet, layout.l4, named, &settings)
            .ok_or(Verdict::Drop(DropReason::Headroom))?;
        self.counters.toa_sent += 1;
        let end = layout.end + client_address::option_len(!client.src.is_v4());
        Ok((Layout { end, ..layout }, delta.combine(inserted)))
    }

    /// Once a side closes, the last TSval that the real server saw decides how soon it accepts another connection.
    #[cold]
    fn note_last_timestamp(&mut self, index: SessionIndex, header: &[u8]) {
        if let Some((value, _)) = sent_timestamps(header) {
            self.sessions.cold_mut(index).last_timestamp = value;
        }
    }

    /// A SYN, sent again because its real server does not answer, and that one takes no new sessions any more.
    #[cold]
    fn has_no_hope<I: Io>(&self, turn: &Turn<'_, I>, index: SessionIndex, segment: &Segment) -> bool {
        let real_server = self.sessions.real_server(index).index();
        let real_server = turn.snapshot.real_servers.get(real_server).and_then(Option::as_ref);
        segment.flags & tcp::ACK == 0
            && !self.sessions.hot(index).flags.has(Flags::ANSWERED)
            && real_server.is_none_or(|real_server| real_server.weight == 0)
    }

    /// A segment that has no room for the client's address. `header` is its TCP header as the client sent it.
    #[cold]
    fn without_toa<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        header: &[u8],
        index: SessionIndex,
        why: NoRoomFor,
        settings: &ToaSettings,
    ) -> Result<(), Verdict> {
        client_address::count_no_room(&mut self.counters, why);
        match settings.no_room {
            NoRoom::Forward => {}
            NoRoom::BareAck => self.send_toa_ahead(turn, header, index, settings),
            NoRoom::Reset => return Err(Verdict::Reset(DropReason::SessionReset)),
        }
        Ok(())
    }

    /// The session's real server is gone: what its next packet does, `None` to go on as if nothing had happened.
    #[cold]
    fn without_real_server<I: Io<Packet = P>>(
        &mut self,
        turn: &Turn<'_, I>,
        parsed: &Parsed,
        index: SessionIndex,
        direction: Direction,
    ) -> Option<Verdict> {
        if direction == Direction::Outbound {
            return None;
        }
        let opens =
            parsed.tuple.protocol == Protocol::Udp || parsed.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN;
        if opens {
            return Some(Verdict::Reopen);
        }
        let service = turn.snapshot.service(self.sessions.cold(index).service);
        service
            .is_some_and(|service| service.on_remove == OnRemove::Reset)
            .then_some(Verdict::Reset(DropReason::SessionReset))
    }

    /// Books a session's move to another state: its real server's counts, its timer, its lease once it is over.
    #[cold]
    pub(super) fn note_state_change<I: Io>(
        &mut self,
        turn: &Turn<'_, I>,
        index: SessionIndex,
        before: State,
    ) {
        let hot = self.sessions.hot(index);
        let (state, finished) = (hot.state, hot.flags.has(Flags::FINISHED));
        let real_server = self.sessions.real_server(index).index();
        let counters = &mut self.real_servers[real_server];
        match (is_active(before), is_active(state)) {
            (true, false) => {
                counters.active -= 1;
                counters.inactive += 1;
            }
            (false, true) => {
                counters.inactive -= 1;
                counters.active += 1;
            }
            _ => {}
        }
        let deadline = turn.now.tick().plus(self.timeout_ticks(turn.snapshot, index));
        self.wheel.reschedule_if_sooner(&mut self.sessions, index, deadline);
        if finished && !self.sessions.hot(index).flags.has(Flags::OFFERED) {
            self.sessions.hot_mut(index).flags.set(Flags::OFFERED);
            let slot = self.sessions.cold(index).lease_slot;
            self.pools.offer(slot, index, &mut self.sessions);
        }
    }
}

/// Bytes of the IP packet behind the gateway.
#[inline(always)]
fn length_behind(layout: &Layout, parsed: &Parsed, to_v6: bool) -> usize {
    match (parsed.v6, to_v6) {
        (true, true) | (false, false) => layout.end - layout.l3,
        (false, true) => layout.end - layout.l4 + ipv6::HEADER_LEN,
        (true, false) => layout.end - layout.l4 + ipv4::HEADER_LEN,
    }
}

/// The largest segment the receiver of this SYN may send back through the gateway: the MTU of the leg behind which the
/// sender of the SYN sits, less headers; less TOA where the answers to a SYN-ACK carry it.
#[inline]
pub(super) fn mss_limit<P: Packet>(
    snapshot: &Snapshot,
    hot: &Hot,
    cold: &Cold,
    neighbours: &super::neighbour::NeighbourTable<P>,
    direction: Direction,
) -> u16 {
    let port = neighbours.adjacency(NeighbourIndex(hot.next_hops(direction).1)).port();
    let v6 = hot.flags.has(match direction {
        Direction::Inbound => Flags::CLIENT_V6,
        Direction::Outbound => Flags::SERVER_V6,
    });
    let headers = tcp::HEADER_LEN + if v6 { ipv6::HEADER_LEN } else { ipv4::HEADER_LEN };
    let toa = match direction {
        Direction::Outbound if hot.flags.has(Flags::TOA) => client_address::option_len_max(hot, cold),
        _ => 0,
    };
    (usize::from(snapshot.ports[port.index()].mtu).saturating_sub(headers + toa)) as u16
}

/// TSval and TSecr of a segment, if it carries them.
#[inline]
pub(super) fn sent_timestamps(header: &[u8]) -> Option<(u32, u32)> {
    tcp_option::timestamps(&header[tcp::HEADER_LEN..])
}
