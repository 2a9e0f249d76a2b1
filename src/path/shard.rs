//! One worker's part of the gateway: everything a packet may touch, owned by nobody else.

use std::sync::Arc;

use super::counters::{PathCounters, RealServerCounters};
use super::drop_reason::DropReason;
use super::guests::Guests;
use super::limiter::Bucket;
use super::neighbour::{NeighbourConfig, NeighbourTable};
use super::packet::{Io, Packet};
use super::rewrite::Identification;
use crate::clock::Now;
use crate::id::{PortId, ServiceId, WorkerId};
use crate::local_pool::{LocalPools, NoMemory, PoolsConfig, ReclaimLinks};
use crate::service::scheduler::SchedulerState;
use crate::service::snapshot::Snapshot;
use crate::session::sequence::IsnGenerator;
use crate::session::wheel::TimerWheel;
use crate::session::{SessionIndex, SessionTable, TableConfig, TableError, Timeouts};
use crate::steering::Steering;
use crate::wire::Address;

/// What a shard is made of; everything is allocated from this at start and nothing grows later.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// whose shard
    pub worker: WorkerId,
    /// how many workers there are
    pub workers: u16,
    /// sessions this worker may hold
    pub sessions_max: u32,
    /// whether the session table asks for huge pages
    pub huge_pages: bool,
    /// (local address, real server) pairs with leases at one time
    pub lease_books_max: usize,
    /// real servers, by address and port, with leases at one time
    pub destinations_max: usize,
    /// sessions of this worker that others may keep for it
    pub guests_max: usize,
    /// neighbour table
    pub neighbours: NeighbourConfig,
    /// entropy for hashes, port choice and sequence numbers; different for each worker
    pub seed: [u8; 32],
    /// entropy for sequence numbers; the same for all workers
    pub isn_secret: [u8; 16],
}

/// The kernel refused a shard's memory.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ShardError {
    /// see [`TableError`]
    #[error(transparent)]
    Table(#[from] TableError),
    /// see [`NoMemory`]
    #[error(transparent)]
    Leases(#[from] NoMemory),
}

/// A worker's state. See ARCHITECTURE.md for who touches what.
pub struct Shard<P> {
    pub(super) worker: WorkerId,
    pub(super) workers: u16,
    pub(super) sessions: SessionTable,
    pub(super) wheel: TimerWheel,
    pub(super) pools: LocalPools,
    pub(super) neighbours: NeighbourTable<P>,
    pub(super) guests: Guests,
    pub(super) schedulers: Vec<SchedulerState>,
    pub(super) real_servers: Vec<RealServerCounters>,
    /// whom the counters of each slot are of
    counted: Vec<Option<Counted>>,
    pub(super) isn: IsnGenerator,
    pub(super) identification: Identification,
    pub(super) refusals: Bucket,
    pub(super) counters: PathCounters,
    pub(super) default_timeouts: Timeouts,
    /// the smallest of all ports
    pub(super) mtu: u16,
}

/// A real server as its counters know it.
type Counted = (ServiceId, Address, Option<u16>);

/// What a phase needs besides the shard: the configuration, the outside, the time.
pub(super) struct Turn<'a, I> {
    pub snapshot: &'a Snapshot,
    pub io: &'a mut I,
    pub now: Now,
}

/// The local pool's lists of finished sessions run through the sessions' cold lines.
impl ReclaimLinks for SessionTable {
    fn get(&self, session: SessionIndex) -> (u32, u32) {
        let cold = self.cold(session);
        (cold.reclaim_next, cold.reclaim_prev)
    }

    fn set(&mut self, session: SessionIndex, next: u32, prev: u32) {
        let cold = self.cold_mut(session);
        (cold.reclaim_next, cold.reclaim_prev) = (next, prev);
    }
}

impl<P: Packet> Shard<P> {
    pub(super) fn new(config: &ShardConfig, steering: Arc<Steering>, now: Now) -> Result<Self, ShardError> {
        let mut seed =
            config.seed.chunks_exact(8).map(|lane| u64::from_ne_bytes(lane.try_into().expect("8 bytes")));
        let seed = [(); 4].map(|()| seed.next().expect("four lanes"));
        Ok(Shard {
            worker: config.worker,
            workers: config.workers,
            sessions: SessionTable::new(TableConfig {
                sessions_max: config.sessions_max,
                huge_pages: config.huge_pages,
                seed,
            })?,
            wheel: TimerWheel::new(now.tick()),
            pools: LocalPools::new(PoolsConfig {
                worker: config.worker,
                steering,
                books_max: config.lease_books_max,
                destinations_max: config.destinations_max,
                seed: config.seed,
            })?,
            neighbours: NeighbourTable::new(config.neighbours),
            guests: Guests::new(config.guests_max),
            schedulers: Vec::new(),
            real_servers: Vec::new(),
            counted: Vec::new(),
            isn: IsnGenerator::new(config.isn_secret),
            identification: Identification::new(config.worker.0, config.workers),
            refusals: Bucket::default(),
            counters: PathCounters::default(),
            default_timeouts: Timeouts::default(),
            mtu: 0,
        })
    }

    /// Takes note of a new configuration: slots for new services and real servers, removed ones marked.
    pub(super) fn apply(&mut self, snapshot: &Snapshot) {
        self.mtu = snapshot.ports.iter().map(|port| port.mtu).min().unwrap_or(0);
        let services = snapshot.services.len().max(self.schedulers.len());
        self.schedulers.resize(services, SchedulerState::new(self.worker, self.workers));
        let real_servers = snapshot.real_servers.len().max(self.real_servers.len());
        self.real_servers.resize_with(real_servers, RealServerCounters::default);
        self.counted.resize(real_servers, None);
        let slots = self.real_servers.iter_mut().zip(&mut self.counted).enumerate();
        for (slot, (counters, counted)) in slots {
            let real_server = snapshot.real_servers.get(slot).and_then(Option::as_ref);
            counters.removed = real_server.is_none_or(|real_server| real_server.removed);
            let Some(real_server) = real_server else { continue };
            let service = snapshot.services[real_server.service.index()].as_ref();
            counters.toa = service.and_then(|service| service.client_address.toa());
            let now = (real_server.service, real_server.address, real_server.port);
            if counted.replace(now).is_some_and(|before| before != now) {
                // The number is another's now. Sessions of the one before, should there be any, will still end.
                let RealServerCounters { active, inactive, removed, toa, .. } = *counters;
                *counters = RealServerCounters { active, inactive, removed, toa, ..Default::default() };
            }
        }
        self.pools.apply(snapshot);
    }

    #[inline]
    pub(super) fn transmit<I: Io<Packet = P>>(&mut self, turn: &mut Turn<'_, I>, port: PortId, packet: P) {
        self.counters.transmitted += 1;
        turn.io.transmit(port, packet);
    }

    /// Sends a frame that the gateway made itself.
    pub(super) fn originate<I: Io<Packet = P>>(&mut self, turn: &mut Turn<'_, I>, port: PortId, packet: P) {
        self.counters.originated += 1;
        self.transmit(turn, port, packet);
    }

    #[inline]
    pub(super) fn drop(&mut self, packet: P, reason: DropReason) {
        self.counters.drops.count(reason);
        drop(packet);
    }

    /// The counters of a session's real server.
    #[inline(always)]
    pub(super) fn real_server_of(&self, index: SessionIndex) -> &RealServerCounters {
        &self.real_servers[self.sessions.real_server(index).index()]
    }

    /// How long session `index` may stay without packets in its present state.
    pub(super) fn timeout_ticks(&self, snapshot: &Snapshot, index: SessionIndex) -> u32 {
        let hot = self.sessions.hot(index);
        self.timeouts(snapshot, index).ticks(hot.protocol(), hot.state)
    }

    /// The time-outs of session `index`: its service's, the usual ones if that is gone.
    pub(super) fn timeouts<'a>(&'a self, snapshot: &'a Snapshot, index: SessionIndex) -> &'a Timeouts {
        let service = snapshot.service(self.sessions.cold(index).service);
        service.map_or(&self.default_timeouts, |service| &service.timeouts)
    }
}
