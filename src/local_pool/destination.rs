//! Destinations: what a pool knows of one (RIP, rport, protocol), above all the books it has there.

use super::NONE;
use super::memory::room_for;
use super::ring::Ring;
use crate::chain::{Chained, Chains};
use crate::id::PoolId;
use crate::wire::{Address, Protocol};

/// One pool's state toward one real server and port: one cache line.
#[repr(C, align(64))]
pub(super) struct Destination {
    pub(super) rip: Address,
    pub(super) rport: u16,
    pub(super) pool: PoolId,
    pub(super) protocol: Protocol,
    /// whether the record is in use
    pub(super) live: bool,
    /// leases in a row that found their book more than half full
    pub(super) crowded: u16,
    /// the pool's generation that the books were checked against
    pub(super) generation: u32,
    /// LIPs of the pool not yet looked at
    pub(super) unopened: u32,
    /// where among the pool's LIPs this destination begins, at random
    pub(super) start: u32,
    /// its books
    pub(super) books: u32,
    /// leases refused because every port was held
    pub(super) refused: u32,
    /// its books with a free port
    pub(super) open: Ring,
    /// its books with sessions whose lease may be taken over
    pub(super) reclaim: Ring,
    /// all its books
    pub(super) attached: Ring,
    chain_next: u32,
}

const _: () = assert!(size_of::<Destination>() == 64);

impl Chained for Destination {
    fn chain_next(&self) -> u32 {
        self.chain_next
    }

    fn set_chain_next(&mut self, next: u32) {
        self.chain_next = next;
    }
}

/// The arena of destinations.
pub(super) struct Destinations {
    pub(super) records: Vec<Destination>,
    records_max: usize,
    /// records given back, chained by `chain_next`
    spare: u32,
    chains: Chains,
}

/// The part of the key beside the RIP.
#[inline(always)]
fn rest(pool: PoolId, protocol: Protocol, rport: u16) -> u64 {
    u64::from(pool.0) << 32 | u64::from(rport) << 16 | protocol as u64
}

impl Destinations {
    /// An empty arena; `None` if there is no memory for it.
    pub(super) fn new(records_max: usize, hasher: ahash::RandomState) -> Option<Self> {
        Some(Destinations {
            records: room_for(records_max)?,
            records_max,
            spare: NONE,
            chains: Chains::new(records_max, hasher).ok()?,
        })
    }

    #[inline(always)]
    pub(super) fn find(&self, pool: PoolId, protocol: Protocol, rip: &Address, rport: u16) -> Option<u32> {
        let chain = self.chains.chain((rip, rest(pool, protocol, rport)));
        self.chains.find(&self.records, chain, |record| {
            record.rip == *rip && record.rport == rport && record.pool == pool && record.protocol == protocol
        })
    }

    pub(super) fn has_room(&self) -> bool {
        self.spare != NONE || self.records.len() < self.records_max
    }

    /// A new destination without books; room must have been asked for.
    pub(super) fn create(
        &mut self,
        pool: PoolId,
        protocol: Protocol,
        rip: &Address,
        rport: u16,
        start: u32,
    ) -> u32 {
        let record = Destination {
            rip: *rip,
            rport,
            pool,
            protocol,
            live: true,
            crowded: 0,
            generation: 0,
            unopened: 0,
            start,
            books: 0,
            refused: 0,
            open: Ring::EMPTY,
            reclaim: Ring::EMPTY,
            attached: Ring::EMPTY,
            chain_next: NONE,
        };
        let id = if self.spare == NONE {
            assert!(self.records.len() < self.records_max, "room for a destination was asked for");
            self.records.push(record);
            self.records.len() as u32 - 1
        } else {
            let id = self.spare;
            self.spare = self.records[id as usize].chain_next;
            self.records[id as usize] = record;
            id
        };
        self.chains.insert(&mut self.records, self.chains.chain((rip, rest(pool, protocol, rport))), id);
        id
    }

    /// Gives a destination without books back.
    pub(super) fn destroy(&mut self, id: u32) {
        let record = &mut self.records[id as usize];
        debug_assert!(record.live && record.books == 0);
        record.live = false;
        let chain = self.chains.chain((&record.rip, rest(record.pool, record.protocol, record.rport)));
        self.chains.remove(&mut self.records, chain, id);
        self.records[id as usize].chain_next = self.spare;
        self.spare = id;
    }
}
