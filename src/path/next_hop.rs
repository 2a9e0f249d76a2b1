//! The path's dealings with its neighbours: next hops of sessions, packets that wait for one, ARP and ND.

use super::classify::Place;
use super::drop_reason::DropReason;
use super::icmp::Message;
use super::neighbour::{NeighbourFact, NeighbourIndex, OwnAddresses};
use super::packet::{Io, Packet};
use super::shard::{Shard, Turn};
use crate::id::PortId;
use crate::service::route::NextHop;
use crate::session::SessionIndex;
use crate::wire::icmp::Embedded;
use crate::wire::{Address, ethernet};

/// Neighbour entries looked at per turn.
const TICK_BUDGET: usize = 16;

impl<P: Packet> Shard<P> {
    /// The neighbour that packets to `destination` go to.
    #[inline]
    pub(super) fn next_hop<I: Io>(
        &mut self,
        turn: &Turn<'_, I>,
        route: &NextHop,
        destination: &Address,
    ) -> Result<NeighbourIndex, DropReason> {
        let address = route.via.as_ref().unwrap_or(destination);
        self.neighbours.next_hop(route.port, address, turn.now).map_err(|_| DropReason::NeighbourTableFull)
    }

    /// The neighbours that a session's packets go to, inbound and outbound, retained.
    #[inline]
    pub(super) fn next_hops<I: Io>(
        &mut self,
        turn: &Turn<'_, I>,
        (to_server, rip): (&NextHop, &Address),
        (to_client, client): (&NextHop, &Address),
    ) -> Result<[NeighbourIndex; 2], DropReason> {
        let inbound = self.next_hop(turn, to_server, rip)?;
        // Before the next one is looked for, which may take the place of any that nobody retains.
        self.neighbours.retain(inbound);
        let outbound =
            self.next_hop(turn, to_client, client).inspect_err(|_| self.neighbours.release(inbound))?;
        self.neighbours.retain(outbound);
        Ok([inbound, outbound])
    }

    /// Sees to it that a session's next hops are those of the routes in force. The error says why there is no way any
    /// more; the next packet looks again.
    #[inline(always)]
    pub(super) fn ensure_route<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        index: SessionIndex,
    ) -> Result<(), DropReason> {
        if self.sessions.hot(index).route_epoch == turn.snapshot.route_epoch {
            return Ok(());
        }
        self.reroute(turn, index)
    }

    /// Finds a session's next hops anew after the routes have changed.
    #[cold]
    fn reroute<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        index: SessionIndex,
    ) -> Result<(), DropReason> {
        let (client, rip) = (self.sessions.inbound(index).src, self.sessions.outbound(index).src);
        let routes = &turn.snapshot.routes;
        let to_server = routes.lookup(&rip).ok_or(DropReason::NoRoute)?;
        let to_client = routes.lookup(&client).ok_or(DropReason::NoRoute)?;
        let next_hops = self.next_hops(turn, (to_server, &rip), (to_client, &client))?;
        let hot = self.sessions.hot_mut(index);
        hot.next_hops.into_iter().for_each(|next_hop| self.neighbours.release(NeighbourIndex(next_hop)));
        hot.next_hops = next_hops.map(|next_hop| next_hop.0);
        hot.route_epoch = turn.snapshot.route_epoch;
        Ok(())
    }

    /// Gives a finished packet its Ethernet addresses and sends it, or lets it wait until they are known.
    #[inline]
    pub(super) fn send_to<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        neighbour: NeighbourIndex,
        mut packet: P,
    ) {
        let adjacency = self.neighbours.adjacency(neighbour);
        if !adjacency.is_usable() {
            return self.hold(turn, neighbour, packet);
        }
        let port = adjacency.port();
        packet.head_mut()[..12].copy_from_slice(adjacency.header());
        if adjacency.wants_mark() {
            self.neighbours.mark_used(neighbour, turn.now);
        }
        self.transmit(turn, port, packet);
    }

    #[cold]
    fn hold<I: Io<Packet = P>>(&mut self, turn: &mut Turn<'_, I>, neighbour: NeighbourIndex, packet: P) {
        let own = OwnAddresses::of(turn.snapshot);
        if let Err(packet) = self.neighbours.hold(own, neighbour, packet, turn.now, turn.io) {
            self.drop(packet, DropReason::NeighbourQueueFull);
        }
    }

    /// An ARP message.
    pub(super) fn arp<I: Io<Packet = P>>(&mut self, turn: &mut Turn<'_, I>, port: PortId, packet: P) {
        let own = OwnAddresses::of(turn.snapshot);
        let reason = self.neighbours.handle_arp(own, port, packet.head(), turn.now, turn.io);
        self.drop(packet, reason);
    }

    /// A neighbour discovery message.
    pub(super) fn neighbour_discovery<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        port: PortId,
        mut packet: P,
        place: &Place,
    ) {
        if !packet.pull_up(place.end as usize) {
            return self.drop(packet, DropReason::NdMalformed);
        }
        let own = OwnAddresses::of(turn.snapshot);
        let reason = self.neighbours.handle_nd(own, port, packet.head(), turn.now, turn.io);
        self.drop(packet, reason);
    }

    /// Something another worker learned.
    pub(super) fn learn<I: Io<Packet = P>>(&mut self, turn: &mut Turn<'_, I>, fact: NeighbourFact) {
        self.neighbours.learn(OwnAddresses::of(turn.snapshot), fact, turn.now, turn.io);
    }

    /// Probes, ageing, announcements; packets whose next hop did not answer end here, and their senders are told.
    #[inline]
    pub(super) fn tick_neighbours<I: Io<Packet = P>>(&mut self, turn: &mut Turn<'_, I>) {
        self.neighbours.tick(OwnAddresses::of(turn.snapshot), turn.now, TICK_BUDGET, turn.io);
        while let Some(packet) = self.neighbours.take_unreachable() {
            self.report_unreachable(turn, &packet);
            self.drop(packet, DropReason::NeighbourUnreachable);
        }
    }

    /// RFC 1812 §5.2.7.1: host unreachable. The held packet carries the addresses of the far side already; an error
    /// about it is carried back like one that a router there had sent.
    #[cold]
    fn report_unreachable<I: Io<Packet = P>>(&mut self, turn: &mut Turn<'_, I>, packet: &P) {
        let head = packet.head();
        let Some(quote) = head.get(ethernet::HEADER_LEN..) else { return };
        let v4 = quote.first().is_some_and(|first| first >> 4 == 4);
        let embedded = if v4 { Embedded::parse_v4(quote) } else { Embedded::parse_v6(quote) };
        let Ok(embedded) = embedded else { return };
        let Some(found) = self.sessions.find(&embedded.tuple.reversed()) else { return };
        if !self.may_answer(turn) {
            return;
        }
        let message = Message::host_unreachable(v4);
        if let Ok((neighbour, answer)) = self.translate_error(turn, quote, message, &embedded, found) {
            self.counters.originated += 1;
            self.send_to(turn, neighbour, answer);
        }
    }
}
