//! Chains: a fixed hash index over records that carry the chain themselves.
//!
//! It never grows, never rehashes and leaves no tombstones, so that adding and removing cost the same forever
//! (a general-purpose map was measured to stall for tens of milliseconds while it cleaned up after churn). Keyed,
//! so that no peer can choose what collides.

use std::fmt;
use std::hash::Hash;

use ahash::RandomState;

use crate::cpu::{HugeArray, MapError, Pages};

/// No record.
pub const NONE: u32 = u32::MAX;

/// A record that hangs in an index.
pub trait Chained {
    /// The next record of the same chain.
    fn chain_next(&self) -> u32;
    /// Sets the next record of the same chain.
    fn set_chain_next(&mut self, next: u32);
}

/// Heads of chains through records of one arena.
pub struct Chains {
    /// the first record of each chain plus 1, so that pages without any stay untouched
    heads: HugeArray<u32>,
    hasher: RandomState,
}

impl Chains {
    /// Chains for up to `records_max` records.
    ///
    /// # Errors
    /// [`MapError`] if the kernel refuses the memory.
    pub fn new(records_max: usize, hasher: RandomState) -> Result<Self, MapError> {
        Ok(Chains { heads: HugeArray::new(records_max.next_power_of_two(), Pages::Small)?, hasher })
    }

    #[inline(always)]
    fn head(&self, chain: usize) -> u32 {
        self.heads[chain].wrapping_sub(1)
    }

    #[inline(always)]
    fn set_head(&mut self, chain: usize, id: u32) {
        self.heads[chain] = id.wrapping_add(1);
    }

    /// Bytes of chains for up to `records_max` records; touched with use.
    pub const fn bytes_for(records_max: u64) -> u64 {
        records_max.next_power_of_two() * size_of::<u32>() as u64
    }

    /// The chain in which records with this key hang.
    #[inline(always)]
    pub fn chain(&self, key: impl Hash) -> usize {
        self.hasher.hash_one(key) as usize & (self.heads.len() - 1)
    }

    /// The record of `chain` that `is` recognises.
    #[inline(always)]
    pub fn find<R: Chained>(&self, records: &[R], chain: usize, is: impl Fn(&R) -> bool) -> Option<u32> {
        let mut id = self.head(chain);
        while id != NONE {
            let record = &records[id as usize];
            if is(record) {
                return Some(id);
            }
            id = record.chain_next();
        }
        None
    }

    /// Adds a record.
    pub fn insert<R: Chained>(&mut self, records: &mut [R], chain: usize, id: u32) {
        records[id as usize].set_chain_next(self.head(chain));
        self.set_head(chain, id);
    }

    /// Removes a record that is there.
    pub fn remove<R: Chained>(&mut self, records: &mut [R], chain: usize, id: u32) {
        let next = records[id as usize].chain_next();
        if self.head(chain) == id {
            self.set_head(chain, next);
            return;
        }
        let mut before = self.head(chain);
        while before != NONE && records[before as usize].chain_next() != id {
            before = records[before as usize].chain_next();
        }
        debug_assert_ne!(before, NONE, "a record to remove is in its chain");
        if before != NONE {
            records[before as usize].set_chain_next(next);
        }
    }
}

impl fmt::Debug for Chains {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Chains")
    }
}
