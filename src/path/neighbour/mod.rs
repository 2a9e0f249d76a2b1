//! Neighbours: which MAC address stands behind a next hop, learned by ARP (RFC 826) and ND (RFC 4861).
//!
//! Every worker owns one [`NeighbourTable`] and shares it with nobody; what one learns it tells the others as a
//! [`NeighbourFact`]. Sessions remember a [`NeighbourIndex`] for each direction.
//!
//! ```text
//!  a packet                                        between bursts
//!     |  adjacency(index)                             | tick: probes, ageing, announcements
//!     |    Reachable: copy 12 bytes of header         | take_unreachable: held packets without hope
//!     |    usable but older: mark_used, copy          |
//!     |    else: hold until resolved                 ARP / ND message -> handle_arp, handle_nd
//!     v                                               `-> learn -> told to the other workers -> their learn
//! ```
//!
//! State machine (RFC 4861 §7.3.2, for ARP too):
//!
//! ```text
//! next_hop -> Incomplete --answer--> Reachable --time--> Stale --use--> Delay --5 s--> Probe --answer--> Reachable
//!                 | no answer            ^ answer, at any time                            | no answer: unicast, then
//!                 v                                                                       v asked of everybody
//!               Failed <------------------------------------------------------------------'
//!                 `--next packet--> Incomplete
//! ```
//!
//! Invariants: an index names the same (port, address) while somebody retains it or packets wait for it. A packet given
//! to [`NeighbourTable::hold`] is transmitted, in order, or comes back from [`NeighbourTable::take_unreachable`]. No
//! message can make the table or a queue grow beyond what the configuration allows. Nothing allocates after start.
//!
//! Cost: one 16-byte read per packet; a tick looks at `budget` entries.

mod announce;
mod conflict;
mod limit;
mod message;
mod own;
mod queue;
mod resolve;
#[cfg(test)]
mod tests;

use hashbrown::HashMap;
use zerocopy::FromZeros;

use super::packet::{HandOff, Io, Packet};
use crate::clock::{Now, Tick};
use crate::id::{PortId, WorkerId};
use crate::wire::Address;

use announce::Announcements;
pub use conflict::Conflict;
use conflict::Conflicts;
use limit::Limiter;
pub use own::OwnAddresses;
use queue::{Queue, Waiting};

/// Limits and times of a neighbour table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NeighbourConfig {
    /// entries, 1 to 65535
    pub capacity: u16,
    /// ticks after which an answer is no longer fresh
    pub reachable_ticks: u32,
    /// ticks between two solicitations
    pub retry_ticks: u32,
    /// solicitations without an answer before a neighbour is given up
    pub attempts: u8,
    /// packets that may wait for one neighbour
    pub queue_len: u16,
    /// packets that may wait in all
    pub queue_total: u16,
    /// ARP and ND messages acted on per second: so many questions for our addresses and so many others
    pub messages_per_second: u32,
    /// whose table this is; worker 0 announces our addresses
    pub worker: WorkerId,
    /// how many workers there are
    pub workers: u16,
    /// keys the hashes of the table; unpredictable in earnest
    pub seed: u64,
}

impl Default for NeighbourConfig {
    /// RFC 4861 §10, a queue of 32, the only worker; `seed` is still to be drawn.
    fn default() -> Self {
        NeighbourConfig {
            capacity: 4096,
            reachable_ticks: 30 * Tick::PER_SECOND,
            retry_ticks: Tick::PER_SECOND,
            attempts: 3,
            queue_len: 32,
            queue_total: 1024,
            messages_per_second: 2000,
            worker: WorkerId(0),
            workers: 1,
            seed: 0,
        }
    }
}

/// The index of a neighbour in its worker's table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct NeighbourIndex(pub u16);

impl NeighbourIndex {
    /// No neighbour: no table is large enough to give this index away.
    pub const NONE: NeighbourIndex = NeighbourIndex(u16::MAX);

    #[inline(always)]
    const fn index(self) -> usize {
        self.0 as usize
    }
}

/// What is known of a neighbour (RFC 4861 §7.3.2; `Failed` is RFC 7048's UNREACHABLE without its sending). In the order
/// of how little stands between it and a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromZeros)]
#[repr(u8)]
pub enum NeighbourState {
    /// did not answer
    Failed,
    /// asked for, or not even that; no MAC address yet
    Incomplete,
    /// answered long ago, or was heard of without having been asked
    Stale,
    /// answered a moment ago
    Reachable,
    /// stale and in use: about to be probed
    Delay,
    /// being probed
    Probe,
}

/// What every packet reads of its next hop.
#[derive(Clone, Copy, Debug, FromZeros)]
#[repr(C, align(16))]
pub struct Adjacency {
    header: [u8; 12],
    port: PortId,
    state: NeighbourState,
}

const _: () = assert!(size_of::<Adjacency>() == 16);

impl Adjacency {
    /// Destination and source MAC: the Ethernet header up to the EtherType. Right only if [`Self::is_usable`].
    #[inline(always)]
    pub const fn header(&self) -> &[u8; 12] {
        &self.header
    }

    /// The port the neighbour is reached through.
    #[inline(always)]
    pub const fn port(&self) -> PortId {
        self.port
    }

    /// The neighbour's state.
    #[inline(always)]
    pub const fn state(&self) -> NeighbourState {
        self.state
    }

    /// Whether packets may be sent to it; otherwise they go to [`NeighbourTable::hold`].
    #[inline(always)]
    pub const fn is_usable(&self) -> bool {
        self.state as u8 >= NeighbourState::Stale as u8
    }

    /// Whether [`NeighbourTable::mark_used`] wants to know of its use.
    #[inline(always)]
    pub const fn wants_mark(&self) -> bool {
        matches!(self.state, NeighbourState::Stale)
    }

    /// Usable, and nobody wants to know of it: what a neighbour in traffic is nearly always.
    #[inline(always)]
    pub const fn is_settled(&self) -> bool {
        self.state as u8 >= NeighbourState::Reachable as u8
    }

    fn mac(&self) -> [u8; 6] {
        let [a, b, c, d, e, f, ..] = self.header;
        [a, b, c, d, e, f]
    }

    fn set_macs(&mut self, neighbour: [u8; 6], own: [u8; 6]) {
        self.header[..6].copy_from_slice(&neighbour);
        self.header[6..].copy_from_slice(&own);
    }
}

/// What one worker learned about a neighbour and tells the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NeighbourFact {
    /// the port it is reached through
    pub port: PortId,
    /// its address
    pub address: Address,
    /// its MAC address; `None` if it answered without naming one, which confirms the known one (RFC 4861 §7.2.4)
    pub mac: Option<[u8; 6]>,
    /// what the fact was read from
    pub evidence: Evidence,
}

/// How a fact became known, which decides what it may change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Evidence {
    /// It asked for an address of ours: it will be talked to, an entry may be made.
    Asked,
    /// It told without being asked: known entries change, none is made.
    Announced {
        /// replaces a different known MAC address
        overrides: bool,
    },
    /// It answered: the way to it works.
    Answered {
        /// replaces a different known MAC address
        overrides: bool,
    },
}

/// No entry is free and none can be freed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the neighbour table is full of neighbours in use; raise its capacity")]
pub struct NeighbourTableFull;

/// What the table did by itself, since start. What a caller needs for exact accounting: every originated frame and
/// every released packet went to [`Io::transmit`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NeighbourCounters {
    /// own frames transmitted: solicitations, answers, announcements
    pub originated: u64,
    /// held packets transmitted after their next hop was resolved
    pub released: u64,
    /// own frames not sent for want of a buffer
    pub buffers_missing: u64,
    /// facts that another worker's ring had no room for
    pub facts_lost: u64,
    /// announcements not scheduled for want of room
    pub announcements_lost: u64,
    /// messages in which another host claimed an address of ours
    pub conflicts: u64,
    /// own addresses announced in defence
    pub defences: u64,
}

/// A neighbour as control shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NeighbourView {
    /// the port it is reached through
    pub port: PortId,
    /// its address
    pub address: Address,
    /// its MAC address, if known
    pub mac: Option<[u8; 6]>,
    /// its state
    pub state: NeighbourState,
    /// ticks since it was last confirmed or asked for
    pub age_ticks: u32,
    /// packets waiting for it
    pub queue_len: u16,
    /// how often it is retained
    pub references: u32,
}

/// What packets do not touch.
struct Entry {
    address: Address,
    queue: Queue,
    references: u32,
    /// The last sign of use that was noted.
    used: Tick,
    /// When the state was last confirmed.
    since: Tick,
    attempts: u8,
    live: bool,
}

/// The neighbours of one worker.
pub struct NeighbourTable<P> {
    /// a place for every index there can be, so that none has to be checked
    adjacencies: Box<[Adjacency; 1 << 16]>,
    entries: Vec<Entry>,
    /// When the state's timer runs out; `None`: it has none. Apart from the entries because every tick reads it.
    due: Vec<Option<Tick>>,
    free: Vec<u16>,
    index: HashMap<(PortId, Address), u16, ahash::RandomState>,
    /// who was asked for last of those whose address ends alike: a guess that saves most questions to `index`
    hints: [u16; HINTS],
    waiting: Waiting<P>,
    unreachable: Queue,
    /// the entry that the scan for what is due goes on with
    scan_cursor: usize,
    /// when it was last through: no need to begin anew before time has passed
    scanned: Option<Tick>,
    evict_cursor: usize,
    announcements: Announcements,
    conflicts: Conflicts,
    limiter: Limiter,
    counters: NeighbourCounters,
    config: NeighbourConfig,
}

/// Places for guesses: one for each last byte of an address.
const HINTS: usize = 256;

/// How many entries an eviction looks at.
const EVICTION_WINDOW: usize = 64;

impl<P: Packet> NeighbourTable<P> {
    /// An empty table; allocates all it will ever need.
    ///
    /// # Panics
    /// If `config.capacity` is 0.
    pub fn new(config: NeighbourConfig) -> Self {
        assert!(config.capacity > 0, "a neighbour table needs a capacity of 1 at least");
        let capacity = usize::from(config.capacity);
        let hasher = ahash::RandomState::with_seed(config.seed as usize);
        NeighbourTable {
            adjacencies: FromZeros::new_box_zeroed().expect("memory for the neighbours of a worker"),
            entries: Vec::with_capacity(capacity),
            due: Vec::with_capacity(capacity),
            free: Vec::with_capacity(capacity),
            // Twice the capacity: hashbrown then clears its tombstones in place and never grows.
            index: HashMap::with_capacity_and_hasher(2 * capacity, hasher.clone()),
            hints: [u16::MAX; HINTS],
            waiting: Waiting::new(config.queue_total),
            unreachable: Queue::default(),
            scan_cursor: 0,
            scanned: None,
            evict_cursor: 0,
            announcements: Announcements::new(config.worker == WorkerId(0)),
            conflicts: Conflicts::new(),
            limiter: Limiter::new(config.messages_per_second, hasher),
            counters: NeighbourCounters::default(),
            config,
        }
    }

    /// What every packet needs of its next hop. Of an index that this table never gave out: one that has failed.
    #[inline(always)]
    pub fn adjacency(&self, index: NeighbourIndex) -> &Adjacency {
        &self.adjacencies[index.index()]
    }

    /// Notes that a neighbour whose adjacency [wants it](Adjacency::wants_mark) is in use, so that it will be probed.
    #[cold]
    pub fn mark_used(&mut self, index: NeighbourIndex, now: Now) {
        self.entries[index.index()].used = now.tick();
        if self.adjacencies[index.index()].state == NeighbourState::Stale {
            self.adjacencies[index.index()].state = NeighbourState::Delay;
            self.due[index.index()] = Some(now.tick().plus(resolve::DELAY_FIRST_PROBE_TICKS));
        }
    }

    /// The neighbour `address` behind `port`, made if it is not known. Nothing is sent before a packet is held for it.
    ///
    /// The index is safe from eviction only once it is [retained](Self::retain), before the next call of this.
    #[inline]
    pub fn next_hop(
        &mut self,
        port: PortId,
        address: &Address,
        now: Now,
    ) -> Result<NeighbourIndex, NeighbourTableFull> {
        let [.., last_byte] = address.v4_octets();
        let hint = self.hints[usize::from(last_byte)];
        if let Some(entry) = self.entries.get_mut(usize::from(hint))
            && entry.live
            && entry.address == *address
            && self.adjacencies[usize::from(hint)].port == port
        {
            entry.used = now.tick();
            return Ok(NeighbourIndex(hint));
        }
        let found = self.look_for(port, *address, now)?;
        self.hints[usize::from(last_byte)] = found.0;
        Ok(found)
    }

    /// [`NeighbourTable::next_hop`] of one that was not guessed.
    #[inline(never)]
    fn look_for(
        &mut self,
        port: PortId,
        address: Address,
        now: Now,
    ) -> Result<NeighbourIndex, NeighbourTableFull> {
        if let Some(&index) = self.index.get(&(port, address)) {
            self.entries[usize::from(index)].used = now.tick();
            return Ok(NeighbourIndex(index));
        }
        if !self.has_free_entry() {
            let victim = self.eviction_victim(now).ok_or(NeighbourTableFull)?;
            self.remove(victim);
        }
        Ok(self.insert(port, address, now))
    }

    /// Keeps the neighbour from being evicted until it is released as often as it was retained.
    #[inline]
    pub fn retain(&mut self, index: NeighbourIndex) {
        self.entries[index.index()].references += 1;
    }

    /// Gives back what [`Self::retain`] took. One that failed is forgotten with its last reference.
    #[inline]
    pub fn release(&mut self, index: NeighbourIndex) {
        let entry = &mut self.entries[index.index()];
        debug_assert!(entry.references > 0, "a neighbour is released more often than retained");
        entry.references = entry.references.saturating_sub(1);
        if entry.references == 0 && self.adjacencies[index.index()].state == NeighbourState::Failed {
            self.remove(index);
        }
    }

    /// Lets a packet wait for its next hop and asks for it if nobody has. The packet is complete but for the first
    /// twelve bytes of its Ethernet header. It comes back if the queue is full (`NeighbourQueueFull`).
    #[cold]
    pub fn hold(
        &mut self,
        own: OwnAddresses<'_>,
        index: NeighbourIndex,
        packet: P,
        now: Now,
        io: &mut impl Io<Packet = P>,
    ) -> Result<(), P> {
        let at = index.index();
        self.entries[at].used = now.tick();
        if self.entries[at].queue.len() >= self.config.queue_len {
            return Err(packet);
        }
        self.waiting.push(&mut self.entries[at].queue, packet)?;
        if self.adjacencies[at].is_usable() {
            self.flush(index, io);
        } else if self.due[at].is_none() {
            self.begin_resolution(own, index, now, io);
        }
        Ok(())
    }

    /// The next held packet whose next hop did not answer (`NeighbourUnreachable`). To be asked after each
    /// [`Self::tick`] until there is none.
    pub fn take_unreachable(&mut self) -> Option<P> {
        self.waiting.pop(&mut self.unreachable)
    }

    /// How many packets are held, those to be taken by [`Self::take_unreachable`] included.
    pub fn held(&self) -> usize {
        self.waiting.len()
    }

    /// How many neighbours there are.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is no neighbour.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// What the table did by itself.
    pub fn counters(&self) -> &NeighbourCounters {
        &self.counters
    }

    /// Indices that were ever given out; all neighbours lie below.
    pub fn slots_used(&self) -> u32 {
        self.entries.len() as u32
    }

    /// A neighbour for control; `None` where the index names none now.
    pub fn view(&self, index: NeighbourIndex, now: Now) -> Option<NeighbourView> {
        let (entry, adjacency) = (self.entries.get(index.index())?, &self.adjacencies[index.index()]);
        entry.live.then(|| NeighbourView {
            port: adjacency.port,
            address: entry.address,
            mac: adjacency.is_usable().then(|| adjacency.mac()),
            state: adjacency.state,
            age_ticks: now.tick().since(entry.since),
            queue_len: entry.queue.len(),
            references: entry.references,
        })
    }

    /// The neighbours in the order of their indices.
    pub fn views(&self, now: Now) -> impl Iterator<Item = NeighbourView> + '_ {
        (0..self.slots_used()).filter_map(move |index| self.view(NeighbourIndex(index as u16), now))
    }

    /// The hosts that claim addresses of ours, for control to log.
    pub fn conflicts(&self) -> &[Conflict] {
        self.conflicts.list()
    }

    fn has_free_entry(&self) -> bool {
        !self.free.is_empty() || self.entries.len() < usize::from(self.config.capacity)
    }

    /// Makes an entry; there must be a free one.
    fn insert(&mut self, port: PortId, address: Address, now: Now) -> NeighbourIndex {
        let tick = now.tick();
        let adjacency = Adjacency { header: [0; 12], port, state: NeighbourState::Incomplete };
        let entry = Entry {
            address,
            queue: Queue::default(),
            references: 0,
            used: tick,
            since: tick,
            attempts: 0,
            live: true,
        };
        let index = match self.free.pop() {
            Some(index) => {
                let at = usize::from(index);
                (self.adjacencies[at], self.entries[at], self.due[at]) = (adjacency, entry, None);
                index
            }
            None => {
                let index = self.entries.len() as u16;
                self.adjacencies[usize::from(index)] = adjacency;
                self.entries.push(entry);
                self.due.push(None);
                index
            }
        };
        self.index.insert((port, address), index);
        NeighbourIndex(index)
    }

    /// Frees an entry that nobody retains and nothing waits for.
    fn remove(&mut self, index: NeighbourIndex) {
        let at = index.index();
        debug_assert!(self.entries[at].references == 0 && self.entries[at].queue.len() == 0);
        self.index.remove(&(self.adjacencies[at].port, self.entries[at].address));
        self.entries[at].live = false;
        self.adjacencies[at].state = NeighbourState::Failed;
        self.due[at] = None;
        self.free.push(index.0);
    }

    /// The least recently used among the next few entries that may go; a window, so that a flood of new next hops
    /// cannot make each of them cost a walk over the whole table.
    fn eviction_victim(&mut self, now: Now) -> Option<NeighbourIndex> {
        let len = self.entries.len();
        let window = (0..EVICTION_WINDOW.min(len)).map(|step| (self.evict_cursor + step) % len);
        let may_go = |at: &usize| {
            let entry = &self.entries[*at];
            entry.live && entry.references == 0 && entry.queue.len() == 0
        };
        let victim = window.filter(may_go).max_by_key(|&at| now.tick().since(self.entries[at].used));
        self.evict_cursor = (self.evict_cursor + EVICTION_WINDOW) % len;
        victim.map(|at| NeighbourIndex(at as u16))
    }

    /// Tells all other workers.
    fn tell(&mut self, fact: NeighbourFact, io: &mut impl Io<Packet = P>) {
        for worker in (0..self.config.workers).map(WorkerId).filter(|&worker| worker != self.config.worker) {
            if io.hand_off(worker, HandOff::Neighbour(fact)).is_err() {
                self.counters.facts_lost += 1;
            }
        }
    }

    /// Sends a frame of our own.
    fn originate(&mut self, port: PortId, frame: &[u8], io: &mut impl Io<Packet = P>) {
        let Some(mut packet) = io.allocate() else {
            self.counters.buffers_missing += 1;
            return;
        };
        if !packet.grow_back(frame.len()) {
            self.counters.buffers_missing += 1;
            return;
        }
        packet.head_mut()[..frame.len()].copy_from_slice(frame);
        io.transmit(port, packet);
        self.counters.originated += 1;
    }
}
