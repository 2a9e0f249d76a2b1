//! Leases: which local address and port a session leaves from, one worker's part of every local pool.
//!
//! ```text
//! LocalPools (one per worker)
//!   registry      the snapshot's pools: LIPs, ranges of ports            read-mostly
//!   destinations  (pool, protocol, RIP, rport) -> the books open there   one cache line each
//!   books         (LIP, protocol, RIP, rport)  -> one bit per port of the worker's share
//!   resting       ports given back that nobody may have yet, oldest first
//! ```
//!
//! A lease is unique per (protocol, LIP, lport, RIP, rport), among all workers without any word between them: a worker
//! leases only ports whose answers [`Steering::home`] brings to itself, and within its share a bit says whether a port
//! is held. Of each (LIP, RIP, rport, protocol) a worker thus owns about `1 / workers` of the ports; a lone worker
//! owns and leases every single one. A worker whose share is used up says [`LeaseError::Exhausted`] although another
//! may have ports left; then the session must live there.
//!
//! Ports are drawn from a ChaCha generator (RFC 6056: not to be guessed); a destination stays on as few LIPs as keeps
//! them half empty, beginning at a random one, so that memory follows use.
//!
//! Everything is allocated at start, untouched memory costs nothing; [`LeaseMemory`] counts it. Books without leases stay
//! open until their place is needed; when none is left, ports that rest give way; past that [`LeaseError::BooksFull`]. Cost of a lease: the destination's line, one or two books'
//! lines and one word; bounded when nearly all ports are held (see `book`).

mod book;
mod destination;
mod memory;
mod range;
mod reclaim;
mod registry;
mod rest;
mod ring;
mod share;
mod usage;

pub use memory::LeaseMemory;
pub use reclaim::ReclaimLinks;
pub use usage::{DestinationUsage, LipUsage, PoolUsage};

use std::sync::Arc;

use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::chain::NONE;
use crate::id::{PoolId, WorkerId};
use crate::service::snapshot::{LocalPool, Snapshot};
use crate::steering::Steering;
use crate::wire::{Address, Protocol};
use book::{BookKey, Books, looks_at};
use destination::Destinations;
use registry::Registry;
use rest::Resting;
use ring::{Kind, Ring};
use share::Share;

/// Leases in a row that must find a destination's books more than half full, one more for each book, before the next
/// LIP is opened.
const CROWDED: u32 = 16;

/// Idle books looked at to find one that may be closed for another.
const EVICT_TRIES: usize = 8;

/// Resting ports freed before their time, at most, to get a book for a new lease.
const WAKE_TRIES: usize = 64;

/// What one worker's pools are made of.
#[derive(Clone)]
pub struct PoolsConfig {
    /// whose
    pub worker: WorkerId,
    /// the steering of all snapshots to come
    pub steering: Arc<Steering>,
    /// most books: (LIP, protocol, RIP, rport) in use at a time; 8 KiB / workers of address space each, touched with use
    pub books_max: usize,
    /// most (pool, protocol, RIP, rport) in use at a time, 64 bytes each
    pub destinations_max: usize,
    /// from the operating system; who knows it can guess ports
    pub seed: [u8; 32],
}

/// A local address and port, held until given back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lease {
    /// local address
    pub lip: Address,
    /// local port, host order
    pub lport: u16,
    /// what the pools need to take it back; opaque
    pub slot: u32,
}

/// Why there is no lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LeaseError {
    /// Every port of this worker's share toward that real server is held.
    #[error("all ports of the local pool toward this real server are in use: add addresses to the pool")]
    Exhausted,
    /// No book or destination is left.
    #[error("too many pairs of local address and real server in use at once: raise dataplane.sessions_max")]
    BooksFull,
    /// The pool has no address of the real server's family.
    #[error("the local pool has no address of the real server's family: add one")]
    NoAddressOfFamily,
}

/// The kernel refused the memory of a worker's leases.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "no memory for leases between {books_max} pairs of local address and real server ({mebibytes} MiB of address space for \
     one worker): lower dataplane.sessions_max, name the ports of real servers behind wide ranges, or raise the memory \
     limit (cgroup memory.max, ulimit -v)"
)]
pub struct NoMemory {
    /// books asked for
    pub books_max: usize,
    /// the address space they need
    pub mebibytes: u64,
}

/// One worker's part of all local pools.
pub struct LocalPools {
    share: Share,
    registry: Registry,
    destinations: Destinations,
    books: Books,
    /// books without leases, longest idle first
    idle: Ring,
    resting: Resting,
    random: StdRng,
}

/// What became of the attempt to open a destination's next LIP.
enum Opening {
    Opened,
    NoneLeft,
    Full,
}

impl LocalPools {
    /// Empty pools; [`LocalPools::apply`] makes them known.
    ///
    /// # Errors
    /// The kernel refuses the memory.
    pub fn new(config: PoolsConfig) -> Result<Self, NoMemory> {
        let (books_max, destinations_max) = (config.books_max.max(1), config.destinations_max.max(1));
        let memory = LeaseMemory::of_workers(config.steering.workers());
        let refused = NoMemory {
            books_max,
            mebibytes: memory.bytes(books_max as u64, destinations_max as u64).div_ceil(1 << 20),
        };
        LocalPools::try_new(config, books_max, destinations_max).ok_or(refused)
    }

    fn try_new(config: PoolsConfig, books_max: usize, destinations_max: usize) -> Option<Self> {
        let mut random = StdRng::from_seed(config.seed);
        let mut hasher = || {
            let [a, b, c, d] = std::array::from_fn(|_| random.next_u64());
            ahash::RandomState::with_seeds(a, b, c, d)
        };
        let share = Share::new(config.steering, config.worker);
        let (books_hasher, destinations_hasher) = (hasher(), hasher());
        Some(LocalPools {
            registry: Registry::default(),
            destinations: Destinations::new(destinations_max, destinations_hasher)?,
            books: Books::new(books_max, &share, books_hasher)?,
            idle: Ring::EMPTY,
            resting: Resting::new(share.steering.workers())?,
            share,
            random,
        })
    }

    /// Takes over the pools of a new snapshot. Leases on removed LIPs stay valid until they are given back.
    pub fn apply(&mut self, snapshot: &Snapshot) {
        debug_assert!(
            snapshot.steering.key() == self.share.steering.key()
                && snapshot.steering.reta() == self.share.steering.reta(),
            "steering never changes"
        );
        self.apply_pools(&snapshot.pools);
    }

    /// See [`LocalPools::apply`].
    fn apply_pools(&mut self, pools: &[Option<LocalPool>]) {
        self.registry.apply(pools, &self.share.steering);
    }

    /// Leases a local address and port of `pool` toward RIP:rport. In line, since a lease that is handed over in memory is
    /// waited for.
    #[inline(always)]
    pub fn lease(
        &mut self,
        pool: &LocalPool,
        protocol: Protocol,
        rip: &Address,
        rport: u16,
    ) -> Result<Lease, LeaseError> {
        let generation = self.registry.generation(pool.id);
        let destination = match self.destinations.find(pool.id, protocol, rip, rport) {
            Some(id) if self.destinations.records[id as usize].generation == generation => id,
            other => self.prepare(other, pool.id, protocol, rip, rport)?,
        };
        let book = match self.choose(destination) {
            Some(book) => book,
            None => self.open_some(destination)?,
        };
        self.take(destination, book)
    }

    /// Gives a lease back; the port may be leased again at once.
    #[inline]
    pub fn release(&mut self, lease_slot: u32, lport: u16) {
        if self.give_back(lease_slot, lport) {
            let book = &self.books.records[lease_slot as usize];
            self.registry.lips[book.lip as usize].leased -= 1;
            self.settle(lease_slot);
        }
    }

    /// The book for the destination's next lease, one with a free port: the first of its ring, or, if that is more
    /// than half full, the emptier of the first two.
    #[inline(always)]
    fn choose(&mut self, destination: u32) -> Option<u32> {
        let record = &mut self.destinations.records[destination as usize];
        looks_at(record);
        let first = record.open.first()?;
        looks_at(&self.books.records[first as usize]);
        if !self.books.records[first as usize].over_half() {
            record.crowded = 0;
            return Some(first);
        }
        self.choose_emptier(destination)
    }

    /// The emptier one of the first two books of a destination whose first one is more than half full. That being so
    /// often enough opens another LIP.
    #[inline(never)]
    fn choose_emptier(&mut self, destination: u32) -> Option<u32> {
        let record = &mut self.destinations.records[destination as usize];
        record.crowded = record.crowded.saturating_add(1);
        if record.unopened > 0 && u32::from(record.crowded) > record.books + CROWDED {
            record.crowded = 0;
            self.open_next(destination);
        }
        let record = &mut self.destinations.records[destination as usize];
        let first = record.open.first()?;
        record.open.rotate(&self.books.records, Kind::Open);
        let second = record.open.first()?;
        looks_at(&self.books.records[second as usize]);
        let free = |book: u32| self.books.records[book as usize].free;
        Some(if free(second) > free(first) { second } else { first })
    }

    /// Takes a port from a book that has one.
    #[inline(always)]
    fn take(&mut self, destination: u32, id: u32) -> Result<Lease, LeaseError> {
        let ports = &self.registry.ranges.0[self.books.records[id as usize].range as usize];
        let Some(lport) = self.books.take(id, ports, &self.share, &mut self.random) else {
            debug_assert!(false, "an open book has a free port");
            return Err(self.refuse(destination));
        };
        let book = &self.books.records[id as usize];
        let (free, held) = (book.free, book.held);
        let lip = &mut self.registry.lips[book.lip as usize];
        looks_at(lip);
        lip.leased += 1;
        let lease = Lease { lip: lip.address, lport, slot: id };
        if free == 0 {
            let record = &mut self.destinations.records[destination as usize];
            record.open.remove(&mut self.books.records, Kind::Open, id);
        }
        if held == 1 {
            self.idle.remove(&mut self.books.records, Kind::Idle, id);
        }
        Ok(lease)
    }

    /// Clears a port's bit and makes its book an open one.
    #[inline]
    fn give_back(&mut self, id: u32, lport: u16) -> bool {
        let given = self.books.give_back(id, lport, &self.share);
        debug_assert!(given, "port {lport} of lease slot {id} was not held");
        if given {
            let book = &self.books.records[id as usize];
            let owner = book.destination;
            if book.free == 1 && owner != NONE && !Ring::holds(&self.books.records, Kind::Open, id) {
                let record = &mut self.destinations.records[owner as usize];
                record.open.push(&mut self.books.records, Kind::Open, id);
            }
        }
        given
    }

    /// Puts a book whose last lease went to the idle ones, or closes it if it belongs to nobody any more.
    #[inline]
    fn settle(&mut self, id: u32) {
        let book = &self.books.records[id as usize];
        if book.held == 0 {
            if book.destination == NONE {
                self.close(id);
            } else {
                self.idle.push(&mut self.books.records, Kind::Idle, id);
            }
        }
    }

    /// Counts a refusal.
    #[cold]
    fn refuse(&mut self, destination: u32) -> LeaseError {
        let record = &mut self.destinations.records[destination as usize];
        record.refused = record.refused.saturating_add(1);
        self.registry.pools[record.pool.index()].refused += 1;
        LeaseError::Exhausted
    }
}

/// The seldom part: destinations and books come and go, pools change.
impl LocalPools {
    /// A destination ready for leases: made if it is new, brought up to date if the pool has changed.
    #[cold]
    #[inline(never)]
    fn prepare(
        &mut self,
        known: Option<u32>,
        pool: PoolId,
        protocol: Protocol,
        rip: &Address,
        rport: u16,
    ) -> Result<u32, LeaseError> {
        match self.registry.pools.get_mut(pool.index()) {
            None => return Err(LeaseError::NoAddressOfFamily),
            Some(pool) if pool.lips[usize::from(rip.is_v4())].is_empty() => {
                pool.refused += 1;
                return Err(LeaseError::NoAddressOfFamily);
            }
            Some(_) => {}
        }
        let destination = match known {
            Some(id) => id,
            None => {
                for _ in 0..EVICT_TRIES + WAKE_TRIES {
                    if self.destinations.has_room() || !(self.evict(NONE) || self.wake()) {
                        break;
                    }
                }
                if !self.destinations.has_room() {
                    self.registry.pools[pool.index()].refused += 1;
                    return Err(LeaseError::BooksFull);
                }
                self.destinations.create(pool, protocol, rip, rport, self.random.next_u32())
            }
        };
        self.renew(destination);
        Ok(destination)
    }

    /// Brings a destination up to date with its pool: books of LIPs that left it are let go, the others get the
    /// pool's range of ports, and every LIP may be opened again.
    fn renew(&mut self, id: u32) {
        let record = &self.destinations.records[id as usize];
        let (pool, count, mut next) = (record.pool, record.books, record.attached.first());
        for _ in 0..count {
            let Some(book) = next else { break };
            next = Some(Ring::after(&self.books.records, Kind::Attached, book));
            let lip = self.books.records[book as usize].lip;
            if self.registry.lips[lip as usize].pool == Some(pool) {
                self.detach(book);
                self.attach(book, id);
            } else {
                self.detach(book);
                self.close_if_idle(book);
            }
        }
        let v4 = self.destinations.records[id as usize].rip.is_v4();
        let state = &self.registry.pools[pool.index()];
        let record = &mut self.destinations.records[id as usize];
        record.unopened = state.lips[usize::from(v4)].len() as u32;
        record.generation = state.generation;
        record.crowded = 0;
    }

    /// Opens LIPs until one has a free port.
    #[cold]
    #[inline(never)]
    fn open_some(&mut self, destination: u32) -> Result<u32, LeaseError> {
        loop {
            let opening = self.open_next(destination);
            let record = &self.destinations.records[destination as usize];
            if let Some(book) = record.open.first() {
                return Ok(book);
            }
            match opening {
                Opening::Opened => {}
                Opening::NoneLeft => return Err(self.refuse(destination)),
                Opening::Full => {
                    let pool = record.pool;
                    if record.books == 0 {
                        self.destinations.destroy(destination);
                    }
                    self.registry.pools[pool.index()].refused += 1;
                    return Err(LeaseError::BooksFull);
                }
            }
        }
    }

    /// Opens the destination's next LIP.
    #[cold]
    fn open_next(&mut self, id: u32) -> Opening {
        while self.destinations.records[id as usize].unopened > 0 {
            let record = &mut self.destinations.records[id as usize];
            record.unopened -= 1;
            let v4 = record.rip.is_v4();
            let pool = &self.registry.pools[record.pool.index()];
            let lips = &pool.lips[usize::from(v4)];
            let lip = lips[(record.start as usize).wrapping_add(record.unopened as usize) % lips.len()];
            let key = BookKey { lip, protocol: record.protocol, rip: record.rip, rport: record.rport };
            if let Some(book) = self.books.find(&key) {
                let owner = self.books.records[book as usize].destination;
                if owner == id {
                    continue;
                }
                // the LIP came from another pool, with its leases
                if owner != NONE {
                    self.detach(book);
                    self.drop_if_bare(owner);
                }
                self.attach(book, id);
                return Opening::Opened;
            }
            if !self.make_room_for(id) {
                self.destinations.records[id as usize].unopened += 1;
                return Opening::Full;
            }
            let pool = &self.registry.pools[self.destinations.records[id as usize].pool.index()];
            let range = pool.range[usize::from(v4)];
            let ports = &mut self.registry.ranges.0[range as usize];
            let lip = &mut self.registry.lips[lip as usize];
            ports.books += 1;
            lip.books += 1;
            let book = self.books.create(&key, &lip.address, range, ports, &self.share);
            self.attach(book, id);
            return Opening::Opened;
        }
        Opening::NoneLeft
    }

    /// Whether there is room for another book of this destination, made if need be: from a book that is idle, or, if the
    /// destination has no port otherwise, from ports that rest. Every other book then has a session.
    fn make_room_for(&mut self, id: u32) -> bool {
        for _ in 0..WAKE_TRIES {
            if self.books.has_room() || self.evict(id) {
                return true;
            }
            let has_ports = self.destinations.records[id as usize].open.first().is_some();
            if has_ports || !self.wake() {
                return false;
            }
        }
        false
    }

    /// Hangs a book that belongs to nobody into a destination's rings, fitted to its pool's range.
    fn attach(&mut self, id: u32, destination: u32) {
        let record = &mut self.destinations.records[destination as usize];
        let range = self.registry.pools[record.pool.index()].range[usize::from(record.rip.is_v4())];
        let ranges = &mut self.registry.ranges.0;
        let before = self.books.records[id as usize].range;
        if before != range {
            ranges[before as usize].books -= 1;
            ranges[range as usize].books += 1;
            self.books.fit(id, range, &ranges[range as usize], &self.share);
        }
        let books = &mut self.books.records;
        let book = &mut books[id as usize];
        book.destination = destination;
        let (free, held, reclaimable) = (book.free, book.held, book.reclaim_first != NONE);
        record.books += 1;
        record.attached.push(books, Kind::Attached, id);
        if free > 0 {
            record.open.push_first(books, Kind::Open, id);
        }
        if reclaimable {
            record.reclaim.push(books, Kind::Reclaim, id);
        }
        if held == 0 {
            self.idle.push(books, Kind::Idle, id);
        }
    }

    /// Takes a book out of its destination's rings and the idle one; the destination may be left without books.
    fn detach(&mut self, id: u32) {
        let books = &mut self.books.records;
        let owner = std::mem::replace(&mut books[id as usize].destination, NONE);
        let record = &mut self.destinations.records[owner as usize];
        record.open.remove(books, Kind::Open, id);
        record.reclaim.remove(books, Kind::Reclaim, id);
        record.attached.remove(books, Kind::Attached, id);
        record.books -= 1;
        self.idle.remove(books, Kind::Idle, id);
    }

    /// Closes a book that belongs to nobody and has no leases.
    fn close(&mut self, id: u32) {
        let book = &self.books.records[id as usize];
        self.registry.ranges.0[book.range as usize].books -= 1;
        self.registry.lips[book.lip as usize].books -= 1;
        self.books.destroy(id);
    }

    fn close_if_idle(&mut self, id: u32) {
        if self.books.records[id as usize].held == 0 {
            self.close(id);
        }
    }

    fn drop_if_bare(&mut self, destination: u32) {
        if self.destinations.records[destination as usize].books == 0 {
            self.destinations.destroy(destination);
        }
    }

    /// Closes the book that has been idle longest, none of `keep`'s. False if there is none.
    #[cold]
    fn evict(&mut self, keep: u32) -> bool {
        let owner_of = |book: &u32| self.books.records[*book as usize].destination;
        let idle = self.idle.iter(&self.books.records, Kind::Idle);
        let Some(book) = idle.take(EVICT_TRIES).find(|book| owner_of(book) != keep) else { return false };
        let owner = owner_of(&book);
        self.detach(book);
        self.close(book);
        let record = &mut self.destinations.records[owner as usize];
        let lips = &self.registry.pools[record.pool.index()].lips[usize::from(record.rip.is_v4())];
        record.unopened = lips.len() as u32;
        self.drop_if_bare(owner);
        true
    }
}

#[cfg(test)]
mod tests;
