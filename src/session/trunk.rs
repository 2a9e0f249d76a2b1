//! Trunks: what a session with an IPv6 side has in common with many others.
//!
//! Of a session's four addresses only the client's is its own. The virtual, the local and the real server's address, and
//! the real server itself, come from the configuration: few of each, beside millions of sessions. So they stand here once,
//! and a session holds the number of its trunk and has room for its client in its own line. A packet touches two random
//! lines of memory, as one of IPv4 does: the trunks in use stay in the cache.
//!
//! Owned by one table. A trunk lives as long as a session is on it; there is room for one of each session, of which only
//! what is used is ever touched. Joining one costs a hash and mostly one line, leaving it a line.

use ahash::RandomState;
use zerocopy::FromZeros;

use crate::chain::{Chained, Chains, NONE};
use crate::cpu::{HugeArray, MapError, Pages};
use crate::id::RealServerId;
use crate::wire::Address;

/// What sessions share, IPv4 addresses in mapped form: one cache line.
#[derive(Clone, Debug, FromZeros)]
#[repr(C, align(64))]
pub(super) struct Trunk {
    /// virtual address
    pub vip: Address,
    /// real server's address
    pub rip: Address,
    /// local address
    pub lip: Address,
    /// slot of the real server in the snapshot
    pub real_server: RealServerId,
    /// on it
    sessions: u32,
    chain_next: u32,
}

const _: () = assert!(size_of::<Trunk>() == 64);

impl Trunk {
    pub fn new([vip, rip, lip]: [Address; 3], real_server: RealServerId) -> Trunk {
        Trunk { vip, rip, lip, real_server, sessions: 0, chain_next: NONE }
    }

    fn key(&self) -> (Address, Address, Address, RealServerId) {
        (self.vip, self.rip, self.lip, self.real_server)
    }
}

impl Chained for Trunk {
    fn chain_next(&self) -> u32 {
        self.chain_next
    }

    fn set_chain_next(&mut self, next: u32) {
        self.chain_next = next;
    }
}

/// The trunks of one table.
#[derive(Debug)]
pub(super) struct Trunks {
    records: HugeArray<Trunk>,
    chains: Chains,
    /// records that were ever used
    used: u32,
    /// the record given back last, linked on by its chain
    spare: u32,
}

impl Trunks {
    /// Room for the trunks of so many sessions.
    ///
    /// # Errors
    /// [`MapError`] if the kernel refuses the memory.
    pub fn new(sessions_max: u32, seed: [u64; 4]) -> Result<Self, MapError> {
        let [a, b, c, d] = seed;
        Ok(Trunks {
            // Reserved pages would be taken from others whether IPv6 is used or not.
            records: HugeArray::new(sessions_max as usize, Pages::Transparent)?,
            chains: Chains::new(sessions_max as usize, RandomState::with_seeds(a, b, c, d))?,
            used: 0,
            spare: NONE,
        })
    }

    /// Bytes of so many trunks and what they are found by.
    pub const fn bytes_for(trunks: u32) -> u64 {
        trunks as u64 * size_of::<Trunk>() as u64 + Chains::bytes_for(trunks as u64)
    }

    /// The trunk of this number, if it is one.
    #[inline(always)]
    pub fn get(&self, number: u32) -> Option<&Trunk> {
        self.records.get(number as usize)
    }

    /// Puts one more session on a trunk, one that is there or a new one; its number.
    #[inline(never)]
    pub fn join(&mut self, trunk: Trunk) -> u32 {
        let key = trunk.key();
        let chain = self.chains.chain(key);
        let there = self.chains.find(&self.records, chain, |record| record.key() == key);
        let number = there.unwrap_or_else(|| self.lay(trunk, chain));
        self.records[number as usize].sessions += 1;
        number
    }

    #[cold]
    fn lay(&mut self, trunk: Trunk, chain: usize) -> u32 {
        let number = if self.spare == NONE {
            self.used += 1;
            self.used - 1
        } else {
            let spare = self.spare;
            self.spare = self.records[spare as usize].chain_next;
            spare
        };
        self.records[number as usize] = trunk;
        self.chains.insert(&mut self.records, chain, number);
        number
    }

    /// Takes a session off its trunk, which goes with its last one.
    #[inline(never)]
    pub fn leave(&mut self, number: u32) {
        let trunk = &mut self.records[number as usize];
        trunk.sessions -= 1;
        if trunk.sessions == 0 {
            let chain = self.chains.chain(trunk.key());
            self.chains.remove(&mut self.records, chain, number);
            self.records[number as usize].chain_next = std::mem::replace(&mut self.spare, number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trunk(n: u8) -> Trunk {
        let address = |last| Address::from_v6([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        Trunk::new([address(n & 1), address(n & 2), address(n & 4)], RealServerId(u32::from(n & 8)))
    }

    #[test]
    fn sessions_that_differ_in_nothing_else_share_a_trunk_as_long_as_one_is_on_it() {
        let mut trunks = Trunks::new(40, [1, 2, 3, 4]).unwrap();
        let numbers: Vec<u32> = (0..16).map(|n| trunks.join(trunk(n))).collect();
        assert_eq!(numbers, (0..16).collect::<Vec<_>>(), "each of its own");
        assert_eq!((0..16).map(|n| trunks.join(trunk(n))).collect::<Vec<_>>(), numbers);
        for n in 0..16u8 {
            assert_eq!(trunks.get(n.into()).unwrap().key(), trunk(n).key());
            trunks.leave(n.into());
            assert_eq!(trunks.join(trunk(n)), u32::from(n), "it still carries one");
        }
        (0..16).chain(0..16).for_each(|number| trunks.leave(number));
        let anew: Vec<u32> = (0..16).rev().map(|n| trunks.join(trunk(n))).collect();
        assert_eq!(anew, (0..16).rev().collect::<Vec<_>>(), "records are used again, the last one first");
        assert!(trunks.get(39).is_some() && trunks.get(40).is_none());
    }
}
