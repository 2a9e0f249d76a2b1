//! The packet's journey, one burst at a time.
//!
//! 1. **classify** each frame: headers checked once, the odd ones leave the way here
//! 2. **steer**: flows whose home is another worker go into its ring
//! 3. **look up**: hash all, prefetch all buckets, probe all, prefetch all sessions
//! 4. **forward** each: state, translation, addresses, next hop, nearly all by the express lane; a miss begins a session
//!    or is refused
//!
//! Between bursts [`Engine::tick`] does a bounded slice of everything that time brings.

use std::sync::Arc;

use arrayvec::ArrayVec;

use super::classify::{Class, classify};
use super::counters::{PathCounters, RealServerCounters};
use super::drop_reason::DropReason;
use super::neighbour::{NeighbourTable, OwnAddresses};
use super::packet::{HandOff, Io, Packet};
use super::parsed::Parsed;
use super::phase::{Observer, Phase};
use super::plain;
use super::shard::{Shard, ShardConfig, ShardError, Turn};
use crate::clock::Now;
use crate::id::{PortId, WorkerId};
use crate::local_pool::LocalPools;
use crate::service::snapshot::Snapshot;
use crate::session::{Candidate, Direction, KeyHash, SessionIndex, SessionTable};

/// Packets that travel together.
pub const BURST: usize = 32;

/// One worker's engine: its shard and the configuration it works by.
pub struct Engine<P> {
    snapshot: Arc<Snapshot>,
    shard: Shard<P>,
}

/// What the phases find out about one packet: one cache line.
#[derive(Clone, Copy)]
struct Flow {
    parsed: Parsed,
    hash: KeyHash,
    candidate: Candidate,
}

const _: () = assert!(size_of::<Flow>() <= 64);

impl Flow {
    const EMPTY: Flow = Flow { parsed: Parsed::EMPTY, hash: KeyHash(0), candidate: Candidate::NONE };
}

/// The flows of one burst, packet and description side by side.
struct Flows<P> {
    packets: ArrayVec<P, BURST>,
    described: [Flow; BURST],
}

impl<P> Flows<P> {
    fn new() -> Self {
        Flows { packets: ArrayVec::new(), described: [Flow::EMPTY; BURST] }
    }

    /// Where the next packet is described before it is pushed.
    #[inline(always)]
    fn next(&mut self) -> &mut Parsed {
        &mut self.described[self.packets.len()].parsed
    }

    #[inline(always)]
    fn described(&mut self) -> &mut [Flow] {
        &mut self.described[..self.packets.len()]
    }
}

impl<P: Packet> Engine<P> {
    /// Allocates a shard; the only place where memory is taken.
    pub fn new(config: &ShardConfig, snapshot: Arc<Snapshot>, now: Now) -> Result<Self, ShardError> {
        let mut shard = Shard::new(config, snapshot.steering.clone(), now)?;
        shard.apply(&snapshot);
        shard.neighbours.announce_all(OwnAddresses::of(&snapshot), now);
        Ok(Engine { snapshot, shard })
    }

    /// Takes the next configuration and gives the old one back. Addresses that are new are announced.
    pub fn apply(&mut self, snapshot: Arc<Snapshot>, now: Now) -> Arc<Snapshot> {
        self.shard.apply(&snapshot);
        let (before, after) = (OwnAddresses::of(&self.snapshot), OwnAddresses::of(&snapshot));
        self.shard.neighbours.announce_added(before, after, now);
        std::mem::replace(&mut self.snapshot, snapshot)
    }

    /// Forwards one burst received on `port`; `packets` is empty afterwards.
    pub fn process<I: Io<Packet = P>>(
        &mut self,
        io: &mut I,
        now: Now,
        port: PortId,
        packets: &mut ArrayVec<P, BURST>,
    ) {
        self.process_observed(io, now, port, packets, &mut ());
    }

    /// As [`Engine::process`], telling `observer` where each phase ends.
    #[inline]
    pub fn process_observed<I: Io<Packet = P>>(
        &mut self,
        io: &mut I,
        now: Now,
        port: PortId,
        packets: &mut ArrayVec<P, BURST>,
        observer: &mut impl Observer,
    ) {
        let mut turn = Turn { snapshot: &self.snapshot, io, now };
        let shard = &mut self.shard;
        shard.counters.received += packets.len() as u64;
        let mut flows = Flows::new();
        shard.classify_all(&mut turn, port, packets, &mut flows);
        observer.ended(Phase::Classify);
        if shard.workers > 1 {
            shard.steer_all(&mut turn, port, &mut flows);
        }
        observer.ended(Phase::Steer);
        shard.forward_all(&mut turn, port, &mut flows, observer);
        observer.ended(Phase::Forward);
    }

    /// Takes one item from another worker's hands.
    pub fn take<I: Io<Packet = P>>(&mut self, io: &mut I, now: Now, item: HandOff<P>) {
        let mut turn = Turn { snapshot: &self.snapshot, io, now };
        let shard = &mut self.shard;
        match item {
            HandOff::Packet { port, packet, hops } => {
                shard.counters.taken += 1;
                shard.take_packet(&mut turn, port, packet, hops);
            }
            HandOff::Transmit { port, packet } => {
                shard.counters.relays_taken += 1;
                turn.io.transmit(port, packet);
            }
            HandOff::Neighbour(fact) => shard.learn(&mut turn, fact),
            HandOff::GuestBegan { inbound, host } => shard.guests.began(inbound, host),
            HandOff::GuestEnded { inbound } => shard.guests.ended(&inbound),
        }
    }

    /// A bounded slice of what time brings: expiry, rested leases, neighbours.
    pub fn tick<I: Io<Packet = P>>(&mut self, io: &mut I, now: Now) {
        let mut turn = Turn { snapshot: &self.snapshot, io, now };
        self.shard.expire(&mut turn);
        self.shard.pools.advance(now.tick(), BURST);
        self.shard.tick_neighbours(&mut turn);
    }

    /// Announces the addresses of a port whose link came up.
    #[cold]
    pub fn announce(&mut self, port: PortId, now: Now) {
        self.shard.neighbours.announce_port(OwnAddresses::of(&self.snapshot), port, now);
    }

    /// The configuration in force.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// What was counted.
    pub fn counters(&self) -> &PathCounters {
        &self.shard.counters
    }

    /// Counts per real server, indexed by its slot.
    pub fn real_servers(&self) -> &[RealServerCounters] {
        &self.shard.real_servers
    }

    /// Packets that the gateway made itself.
    pub fn originated(&self) -> u64 {
        self.shard.counters.originated + self.shard.neighbours.counters().originated
    }

    /// Packets given to a port, those included that waited for their next hop.
    pub fn transmitted(&self) -> u64 {
        let neighbours = self.shard.neighbours.counters();
        self.shard.counters.transmitted + neighbours.originated + neighbours.released
    }

    /// The sessions, to look at.
    pub fn sessions(&self) -> &SessionTable {
        &self.shard.sessions
    }

    /// The neighbours, to look at.
    pub fn neighbours(&self) -> &NeighbourTable<P> {
        &self.shard.neighbours
    }

    /// The leases, to look at.
    pub fn pools(&self) -> &LocalPools {
        &self.shard.pools
    }
}

impl<P: Packet> Shard<P> {
    #[inline]
    fn classify_all<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        port: PortId,
        packets: &mut ArrayVec<P, BURST>,
        flows: &mut Flows<P>,
    ) {
        packets.iter().for_each(P::prefetch);
        let view = &turn.snapshot.ports[port.index()];
        for packet in packets.drain(..) {
            if plain::recognise(&packet, view, flows.next()) {
                flows.packets.push(packet);
            } else {
                self.classify_closely(turn, port, packet, flows);
            }
        }
    }

    #[cold]
    fn classify_closely<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        port: PortId,
        mut packet: P,
        flows: &mut Flows<P>,
    ) {
        let mut parsed = Parsed::EMPTY;
        match classify(&mut packet, &turn.snapshot.ports[port.index()], &mut parsed) {
            Class::Flow => {
                *flows.next() = parsed;
                flows.packets.push(packet);
            }
            other => self.leave_the_way(turn, port, packet, &parsed, other, false),
        }
    }

    /// Everything that is not a flow to forward.
    #[cold]
    fn leave_the_way<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        port: PortId,
        packet: P,
        parsed: &Parsed,
        class: Class,
        steered: bool,
    ) {
        match class {
            Class::Flow => unreachable!("flows stay on the way"),
            Class::Drop(reason) => self.drop(packet, reason),
            Class::Expiring => self.refuse_expired_ttl(turn, port, packet, parsed),
            Class::Icmp(place) => self.icmp(turn, port, packet, place, steered),
            Class::Arp => self.arp(turn, port, packet),
            Class::NeighbourDiscovery(place) => self.neighbour_discovery(turn, port, packet, &place),
            Class::OtherProtocol(place) => {
                let ours = turn.snapshot.owned.contains_key(&place.dst);
                self.drop(packet, if ours { DropReason::IpUnknownProtocol } else { DropReason::IpNotForUs });
            }
        }
    }

    #[inline]
    fn steer_all<I: Io<Packet = P>>(&mut self, turn: &mut Turn<'_, I>, port: PortId, flows: &mut Flows<P>) {
        let steering = &turn.snapshot.steering;
        let homes: ArrayVec<WorkerId, BURST> =
            flows.described().iter().map(|flow| steering.home(&flow.parsed.tuple)).collect();
        if homes.iter().any(|&home| home != self.worker) {
            self.hand_off_all(turn, port, flows, &homes);
        }
    }

    /// Gives the flows of others to them and keeps its own.
    fn hand_off_all<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        port: PortId,
        flows: &mut Flows<P>,
        homes: &[WorkerId],
    ) {
        let packets = std::mem::take(&mut flows.packets);
        for ((at, packet), &home) in packets.into_iter().enumerate().zip(homes) {
            if home == self.worker {
                *flows.next() = flows.described[at].parsed;
                flows.packets.push(packet);
            } else {
                self.hand_off(turn, home, port, packet, 0);
            }
        }
    }

    #[inline]
    fn forward_all<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        port: PortId,
        flows: &mut Flows<P>,
        observer: &mut impl Observer,
    ) {
        for flow in flows.described() {
            flow.hash = self.sessions.hash(&flow.parsed.tuple, flow.parsed.v6);
            self.sessions.prefetch_buckets(flow.hash);
        }
        observer.ended(Phase::Hash);
        for flow in flows.described() {
            flow.candidate = self.sessions.probe(flow.hash);
            self.sessions.prefetch_entry(flow.candidate, flow.parsed.v6);
        }
        observer.ended(Phase::Probe);
        for (packet, flow) in flows.packets.drain(..).zip(&flows.described) {
            let parsed = &flow.parsed;
            match self.sessions.confirm(&parsed.tuple, parsed.v6, flow.hash, flow.candidate) {
                Some(found) => self.send_on(turn, port, packet, parsed, found),
                None => self.open(turn, port, packet, parsed),
            }
        }
    }

    /// Sends a packet that has a session on its way, by the shorter lane if it may take that.
    #[inline(always)]
    fn send_on<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        port: PortId,
        packet: P,
        parsed: &Parsed,
        found: (SessionIndex, Direction),
    ) {
        if let Err(packet) = self.express(turn, port, packet, parsed, found) {
            self.forward(turn, port, packet, parsed, found);
        }
    }

    /// A packet that another worker passed on: its home is here, or its home has no local port left.
    fn take_packet<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        port: PortId,
        mut packet: P,
        hops: u16,
    ) {
        let view = &turn.snapshot.ports[port.index()];
        let mut parsed = Parsed::EMPTY;
        let plain = plain::recognise(&packet, view, &mut parsed);
        match if plain { Class::Flow } else { classify(&mut packet, view, &mut parsed) } {
            Class::Flow => {
                parsed.hops = hops;
                match self.sessions.find(&parsed.tuple) {
                    Some(found) => self.send_on(turn, port, packet, &parsed, found),
                    None => self.open(turn, port, packet, &parsed),
                }
            }
            other => self.leave_the_way(turn, port, packet, &parsed, other, true),
        }
    }
}
