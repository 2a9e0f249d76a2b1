//! What control may ask: how full pools, LIPs and destinations are. Each worker answers for its own share.

use std::ops::Range;

use super::LocalPools;
use super::ring::Kind;
use crate::id::PoolId;
use crate::wire::{Address, Protocol};

/// How full a pool is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PoolUsage {
    /// addresses times L4 ports of the pool: the leases all workers together can give toward each RIP:rport of
    /// either family that the addresses have
    pub ports: u64,
    /// leases held by sessions of this worker, toward all real servers, on the pool's present addresses
    pub leased: u64,
    /// ports of this worker given back that still rest
    pub resting: u64,
    /// leases refused by this worker, for whatever reason
    pub refused: u64,
}

/// How full a LIP is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LipUsage {
    /// the LIP
    pub address: Address,
    /// whose it is; `None`: removed, its last leases drain
    pub pool: Option<PoolId>,
    /// leases held by sessions, toward all real servers
    pub leased: u32,
    /// ports given back that still rest
    pub resting: u32,
}

/// How full a pool is toward one RIP:rport.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DestinationUsage {
    /// whose ports
    pub pool: PoolId,
    /// TCP or UDP
    pub protocol: Protocol,
    /// real server's address
    pub rip: Address,
    /// real server's port
    pub rport: u16,
    /// ports of this worker's share on the LIPs opened so far
    pub ports: u32,
    /// leases held by sessions
    pub leased: u32,
    /// ports given back that still rest
    pub resting: u32,
    /// leases refused since the destination came into use because every port was held
    pub refused: u32,
}

impl LocalPools {
    /// How full a pool is; all zero if there is none.
    pub fn usage(&self, pool: PoolId) -> PoolUsage {
        let Some(state) = self.registry.pools.get(pool.index()).filter(|state| state.live) else {
            return PoolUsage::default();
        };
        let mut usage = PoolUsage { refused: state.refused, ..PoolUsage::default() };
        for (lips, range) in state.lips.iter().zip(state.range) {
            let range = &self.registry.ranges.0[usize::from(range)];
            let ports_each = (u64::from(range.last) + 1).saturating_sub(u64::from(range.first));
            for &slot in lips {
                let lip = &self.registry.lips[slot as usize];
                usage.ports += ports_each;
                usage.leased += u64::from(lip.leased);
                usage.resting += u64::from(lip.resting);
            }
        }
        usage
    }

    /// Slots that LIPs may stand in.
    pub fn lip_slots(&self) -> usize {
        self.registry.lips.len()
    }

    /// How full the LIP in a slot is, a removed one as long as leases on it last.
    pub fn lip(&self, slot: usize) -> Option<LipUsage> {
        let lip = self.registry.lips.get(slot)?;
        (lip.pool.is_some() || lip.leased + lip.resting > 0).then_some(LipUsage {
            address: lip.address,
            pool: lip.pool,
            leased: lip.leased,
            resting: lip.resting,
        })
    }

    /// How full each LIP is.
    pub fn lips(&self) -> impl Iterator<Item = LipUsage> {
        (0..self.lip_slots()).filter_map(|slot| self.lip(slot))
    }

    /// Slots that destinations may stand in, to ask for them a slice at a time.
    pub fn destination_slots(&self) -> usize {
        self.destinations.records.len()
    }

    /// How full the destinations in these slots are.
    pub fn destinations(&self, slots: Range<usize>) -> impl Iterator<Item = DestinationUsage> {
        let records = &self.destinations.records;
        let slots = slots.start.min(records.len())..slots.end.min(records.len());
        records[slots].iter().filter(|record| record.live).map(|record| {
            let mut usage = DestinationUsage {
                pool: record.pool,
                protocol: record.protocol,
                rip: record.rip,
                rport: record.rport,
                ports: 0,
                leased: 0,
                resting: 0,
                refused: record.refused,
            };
            for id in record.attached.iter(&self.books.records, Kind::Attached) {
                let book = &self.books.records[id as usize];
                usage.ports += book.capacity;
                usage.leased += book.held - book.resting;
                usage.resting += book.resting;
            }
            usage
        })
    }

    /// Ports of this worker's share of `pool` toward RIP:rport, on all its LIPs: leases it can hold there at a time.
    /// Walks every LIP's range, for control and tests.
    pub fn capacity_of(&self, pool: PoolId, rip: &Address, rport: u16) -> u32 {
        let Some(state) = self.registry.pools.get(pool.index()).filter(|state| state.live) else { return 0 };
        let family = usize::from(rip.is_v4());
        let range = &self.registry.ranges.0[usize::from(state.range[family])];
        let share_of = |&lip: &u32| -> u32 {
            let address = &self.registry.lips[lip as usize].address;
            let base = self.share.steering.base_class(rip, address, rport);
            (0..self.share.words())
                .map(|word| range.words[self.share.layout_word(base, word)].count_ones())
                .sum()
        };
        state.lips[family].iter().map(share_of).sum()
    }
}
