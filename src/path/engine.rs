//! The packet's journey, one burst at a time.
//!
//! 1. **classify** each frame: headers checked once, the odd ones leave the way here; keys hashed, buckets prefetched
//! 2. **probe** all buckets, prefetch all sessions
//! 3. **steer** what has no session here: flows whose home is another worker go into its ring
//! 4. **forward** each: state, translation, addresses, next hop, nearly all by the express lane; a miss begins a session
//!    or is refused
//!
//! Between bursts [`Engine::tick`] does a bounded slice of everything that time brings.

use std::cmp::Ordering;
use std::sync::Arc;

use arrayvec::ArrayVec;

use super::classify::{Class, classify};
use super::counters::{PathCounters, RealServerCounters};
use super::drop_reason::DropReason;
use super::express::Lane;
use super::flows::{Flow, Flows, bits};
use super::neighbour::{NeighbourTable, OwnAddresses};
use super::packet::{HandOff, Io, Origin, Packet};
use super::parsed::Parsed;
use super::phase::{Observer, Phase};
use super::plain::{self, Kind, TCP4, TCP6, UDP4, UDP6};
use super::shard::{Shard, ShardConfig, ShardError, Turn};
use crate::clock::Now;
use crate::id::PortId;
use crate::local_pool::LocalPools;
use crate::service::snapshot::Snapshot;
use crate::session::{KeyHash, SessionTable};
use crate::wire::Tuple;

/// Packets that travel together.
pub const BURST: usize = 32;

/// One worker's engine: its shard and the configuration it works by.
pub struct Engine<P> {
    snapshot: Arc<Snapshot>,
    shard: Shard<P>,
    flows: Flows,
}

impl<P: Packet> Engine<P> {
    /// Allocates a shard; the only place where memory is taken.
    pub fn new(config: &ShardConfig, snapshot: Arc<Snapshot>, now: Now) -> Result<Self, ShardError> {
        let mut shard = Shard::new(config, snapshot.steering.clone(), now)?;
        shard.apply(&snapshot);
        shard.neighbours.announce_all(OwnAddresses::of(&snapshot), now);
        Ok(Engine { snapshot, shard, flows: Flows::new() })
    }

    /// Takes the next configuration and gives the old one back. Addresses that are new are announced.
    pub fn apply(&mut self, snapshot: Arc<Snapshot>, now: Now) -> Arc<Snapshot> {
        self.shard.apply(&snapshot);
        let (before, after) = (OwnAddresses::of(&self.snapshot), OwnAddresses::of(&snapshot));
        self.shard.neighbours.announce_added(before, after, now);
        std::mem::replace(&mut self.snapshot, snapshot)
    }

    /// Forwards one burst received on `port`; `packets` is empty afterwards. How many bytes they were.
    pub fn process<I: Io<Packet = P>>(
        &mut self,
        io: &mut I,
        now: Now,
        port: PortId,
        packets: &mut ArrayVec<P, BURST>,
    ) -> u64 {
        self.process_observed(io, now, port, packets, &mut ())
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
    ) -> u64 {
        self.shard.counters.received += packets.len() as u64;
        self.send_on_its_way(io, now, Origin::Queue(port), packets, observer)
    }

    /// Takes what other workers handed over: packets that follow each other as bursts, notes in their order among them;
    /// frames that only leave here do so at once. How many items they were.
    #[inline]
    pub fn take<I: Io<Packet = P>>(
        &mut self,
        io: &mut I,
        now: Now,
        items: impl IntoIterator<Item = HandOff<P>>,
    ) -> usize {
        let (mut taken, mut origin, mut burst) = (0, Origin::Queue(PortId(0)), ArrayVec::new());
        for item in items {
            taken += 1;
            match item {
                HandOff::Packet { port, packet, hops } => {
                    let its = Origin::Worker { port, hops };
                    if its != origin || burst.is_full() {
                        self.send_taken(io, now, origin, &mut burst);
                        origin = its;
                    }
                    burst.push(packet);
                }
                HandOff::Transmit { port, packet } => {
                    self.shard.counters.relays_taken += 1;
                    io.transmit(port, packet);
                }
                note => {
                    self.send_taken(io, now, origin, &mut burst);
                    self.heed(io, now, note);
                }
            }
        }
        self.send_taken(io, now, origin, &mut burst);
        taken
    }

    fn send_taken<I: Io<Packet = P>>(
        &mut self,
        io: &mut I,
        now: Now,
        origin: Origin,
        packets: &mut ArrayVec<P, BURST>,
    ) {
        if !packets.is_empty() {
            self.shard.counters.taken += packets.len() as u64;
            self.send_on_its_way(io, now, origin, packets, &mut ());
        }
    }

    /// What another worker tells.
    #[cold]
    fn heed<I: Io<Packet = P>>(&mut self, io: &mut I, now: Now, note: HandOff<P>) {
        let mut turn = Turn { snapshot: &self.snapshot, io, now };
        let shard = &mut self.shard;
        match note {
            HandOff::Packet { .. } | HandOff::Transmit { .. } => unreachable!("packets are no notes"),
            HandOff::Neighbour(fact) => shard.learn(&mut turn, fact),
            HandOff::GuestBegan { inbound, host } => shard.guests.began(inbound, host),
            HandOff::GuestEnded { inbound, host } => shard.guests.ended(&inbound, host),
        }
    }

    /// All phases of one burst; how many bytes it was.
    #[inline(always)]
    fn send_on_its_way<I: Io<Packet = P>>(
        &mut self,
        io: &mut I,
        now: Now,
        origin: Origin,
        packets: &mut ArrayVec<P, BURST>,
        observer: &mut impl Observer,
    ) -> u64 {
        let mut turn = Turn { snapshot: &self.snapshot, io, now };
        let (shard, flows) = (&mut self.shard, &mut self.flows);
        let lane = Lane::of(&turn, origin, shard.mtu);
        let bytes = shard.classify_all(&mut turn, &lane, packets, flows);
        observer.ended(Phase::Classify);
        shard.probe_all(packets.len(), flows);
        observer.ended(Phase::Probe);
        if shard.workers > 1 && !origin.is_steered() {
            let strangers = flows.strangers(packets.len());
            if strangers != 0 {
                shard.steer(&mut turn, origin.port(), packets, flows, strangers);
            }
        }
        observer.ended(Phase::Steer);
        shard.forward_all(&mut turn, &lane, packets, flows);
        observer.ended(Phase::Forward);
        bytes
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
    /// Begins to look for the sessions of a burst, and keeps what is a flow; the bytes of all that was received.
    #[inline]
    fn classify_all<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        lane: &Lane,
        packets: &mut ArrayVec<P, BURST>,
        flows: &mut Flows,
    ) -> u64 {
        packets.iter().for_each(P::prefetch);
        let mut received = 0;
        let (mut at, mut all_plain) = (0, true);
        while let packets @ [first, ..] = &packets[at..] {
            let flows = &mut flows.looked_up[at..];
            flows[0].plain = None;
            let kind = plain::kind_by_type(first.head());
            let (run, bytes) = match kind {
                Some(Kind::Udp4) => self.look_up_run::<UDP4>(lane, packets, flows),
                Some(Kind::Tcp4) => self.look_up_run::<TCP4>(lane, packets, flows),
                Some(Kind::Udp6) => self.look_up_run::<UDP6>(lane, packets, flows),
                Some(Kind::Tcp6) => self.look_up_run::<TCP6>(lane, packets, flows),
                None => (0, 0),
            };
            if run > 0 {
                received += bytes;
                at += run;
            } else {
                received += first.len() as u64;
                all_plain = false;
                at += 1;
            }
        }
        if !all_plain {
            self.classify_closely(turn, lane.origin, packets, flows);
        }
        received
    }

    /// Begins to look for the sessions of plain frames of one kind, until there comes another one; of how many, and the
    /// bytes of these.
    #[inline(never)]
    fn look_up_run<const HEADERS: usize>(
        &self,
        lane: &Lane,
        packets: &[P],
        flows: &mut [Flow],
    ) -> (usize, u64) {
        let kind = const { Kind::with_headers(HEADERS) };
        let (mut run, mut bytes) = (0, 0);
        for (packet, flow) in packets.iter().zip(flows) {
            let Some(tuple) = plain::recognise_as::<P, HEADERS>(packet, &lane.gate) else { break };
            flow.hash = self.look_up(&tuple, kind.is_v6());
            flow.plain = Some(kind);
            bytes += packet.len() as u64;
            run += 1;
        }
        (run, bytes)
    }

    /// Begins to look for a session.
    #[inline(always)]
    fn look_up(&self, tuple: &Tuple, v6: bool) -> KeyHash {
        let hash = self.sessions.hash(tuple, v6);
        self.sessions.prefetch_buckets(hash);
        hash
    }

    /// Those that are not plain: flows are described and stay, all others leave the way.
    #[cold]
    fn classify_closely<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        origin: Origin,
        packets: &mut ArrayVec<P, BURST>,
        flows: &mut Flows,
    ) {
        let port = origin.port();
        flows.retain(packets, |flows, at, mut packet| {
            if flows.looked_up[at].plain.is_some() {
                return Some(packet);
            }
            let parsed = &mut flows.described[at];
            match classify(&mut packet, &turn.snapshot.ports[port.index()], parsed) {
                Class::Flow => {
                    flows.looked_up[at].hash = self.look_up(&parsed.tuple, parsed.v6);
                    Some(packet)
                }
                other => {
                    self.leave_the_way(turn, port, packet, parsed, other, origin.is_steered());
                    None
                }
            }
        });
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

    /// Finds what may be the sessions of packets.
    #[inline]
    fn probe_all(&self, count: usize, flows: &mut Flows) {
        for flow in &mut flows.looked_up[..count] {
            flow.candidate = self.sessions.probe(flow.hash);
            self.sessions.prefetch_entry(flow.candidate);
        }
    }

    /// Gives packets without a session here that are of others to them. One with a session is where it belongs, with its
    /// home or its host; if only its tag looked so, [`Shard::open`] sees to it.
    #[inline(never)]
    fn steer<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        port: PortId,
        packets: &mut ArrayVec<P, BURST>,
        flows: &mut Flows,
        strangers: u32,
    ) {
        let (mut homes, mut leaving) = ([self.worker; BURST], 0);
        for at in bits(strangers) {
            homes[at] = turn.snapshot.steering.home(&flows.tuple(at, &packets[at]));
            leaving |= u32::from(homes[at] != self.worker) << at;
        }
        if leaving != 0 {
            let hand_off = |at: usize, packet| self.hand_off(turn, homes[at], port, packet, 0);
            flows.take_out(packets, leaving, hand_off);
        }
    }

    /// Sends a burst on its way: nearly every one passes the express lane as a whole.
    #[inline]
    fn forward_all<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        lane: &Lane,
        packets: &mut ArrayVec<P, BURST>,
        flows: &mut Flows,
    ) {
        let departing = self.express_all(lane, packets, &flows.looked_up);
        match departing.only_way() {
            Some(way) if departing.packets == packets.len() => {
                self.counters.transmitted += departing.packets as u64;
                turn.io.transmit_all(way, packets, departing.bytes);
            }
            _ => self.forward_each(turn, lane, packets, flows, departing.packets),
        }
    }

    /// Sends a burst on its way whose first `passed` packets have passed the express lane, and perhaps leave by several
    /// ports, and the next one, if there is one, has not: packet by packet, so that they keep their order.
    #[cold]
    #[inline(never)]
    fn forward_each<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        lane: &Lane,
        packets: &mut ArrayVec<P, BURST>,
        flows: &Flows,
        passed: usize,
    ) {
        for (at, mut packet) in packets.take().into_iter().enumerate() {
            let flow = &flows.looked_up[at];
            let way = match at.cmp(&passed) {
                Ordering::Less => Some(self.way(flow.candidate)),
                Ordering::Equal => None,
                Ordering::Greater if flow.candidate.is_none() => None,
                Ordering::Greater => self.express(lane, &mut packet, flow),
            };
            match way {
                Some(port) => self.transmit(turn, port, packet),
                None => {
                    let parsed = Parsed { hops: lane.origin.hops(), ..flows.describe(at, &packet) };
                    self.go_the_long_way(turn, lane, packet, parsed, (flow.hash, flow.plain));
                }
            }
        }
    }

    /// What the express lane is not for.
    #[cold]
    #[inline(never)]
    fn go_the_long_way<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        lane: &Lane,
        mut packet: P,
        mut parsed: Parsed,
        (hash, plain): (KeyHash, Option<Kind>),
    ) {
        if plain.is_some() && !plain::is_sound(packet.head(), &parsed) {
            let port = &turn.snapshot.ports[lane.origin.port().index()];
            match classify(&mut packet, port, &mut parsed) {
                Class::Flow => parsed.hops = lane.origin.hops(),
                other => {
                    let steered = lane.origin.is_steered();
                    return self.leave_the_way(turn, lane.origin.port(), packet, &parsed, other, steered);
                }
            }
        }
        // An earlier packet of the same burst may have begun its session.
        match self.sessions.find_hashed(&parsed.tuple, hash) {
            Some(found) => self.forward(turn, lane.origin.port(), packet, &parsed, found),
            None => {
                self.open(turn, lane.origin.port(), packet, &parsed, (hash, plain.map(|kind| (lane, kind))))
            }
        }
    }
}
