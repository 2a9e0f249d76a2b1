//! What the snapshot says of pools and their LIPs, in the form leases need it.
//!
//! A LIP belongs to one pool at most; its slot outlives its removal as long as books of it are left. Changed only
//! when a snapshot is applied, which is the one place that may allocate.

use std::collections::BTreeMap;

use super::range::Ranges;
use crate::id::PoolId;
use crate::service::snapshot::LocalPool;
use crate::steering::Steering;
use crate::wire::Address;

/// A LIP.
pub(super) struct Lip {
    pub(super) address: Address,
    /// whose new leases it takes; `None`: it was removed, its leases drain
    pub(super) pool: Option<PoolId>,
    /// books that stand on it
    pub(super) books: u32,
    pub(super) leased: u32,
    pub(super) resting: u32,
}

/// A pool.
#[derive(Default)]
pub(super) struct Pool {
    /// whether it is part of the configuration
    pub(super) live: bool,
    /// another number whenever its LIPs or its range change
    pub(super) generation: u32,
    /// slots of its LIPs, IPv6 and IPv4
    pub(super) lips: [Vec<u32>; 2],
    /// slots of its range of ports, IPv6 and IPv4
    pub(super) range: [u16; 2],
    /// leases refused
    pub(super) refused: u64,
}

/// Pools, LIPs and ranges of ports.
#[derive(Default)]
pub(super) struct Registry {
    pub(super) pools: Vec<Pool>,
    pub(super) lips: Vec<Lip>,
    pub(super) ranges: Ranges,
    slots: BTreeMap<Address, u32>,
    unused: Vec<u32>,
    generation: u32,
}

impl Registry {
    /// The generation of a pool, 0 if there is none.
    #[inline(always)]
    pub(super) fn generation(&self, pool: PoolId) -> u32 {
        self.pools.get(pool.index()).map_or(0, |pool| pool.generation)
    }

    /// Takes over the pools of a new configuration.
    pub(super) fn apply(&mut self, pools: &[Option<LocalPool>], steering: &Steering) {
        self.lips.iter_mut().for_each(|lip| lip.pool = None);
        self.ranges.0.iter_mut().for_each(|range| range.wanted = false);
        if self.pools.len() < pools.len() {
            self.pools.resize_with(pools.len(), Pool::default);
        }
        self.generation += 1;
        for id in 0..self.pools.len() {
            let wanted = pools.get(id).and_then(Option::as_ref);
            let (mut lips, mut range) = ([Vec::new(), Vec::new()], [0; 2]);
            if let Some(pool) = wanted {
                range =
                    [false, true].map(|v4| self.ranges.slot(pool.port_first, pool.port_last, v4, steering));
                for address in &pool.addresses {
                    let slot = self.lip_slot(address);
                    let lip = &mut self.lips[slot as usize];
                    if lip.pool.is_none() {
                        lip.pool = Some(PoolId(id as u16));
                        lips[usize::from(address.is_v4())].push(slot);
                    }
                }
            }
            let known = &mut self.pools[id];
            if known.live != wanted.is_some() || known.lips != lips || known.range != range {
                let refused = if known.live && wanted.is_some() { known.refused } else { 0 };
                *known = Pool { live: wanted.is_some(), generation: self.generation, lips, range, refused };
            }
        }
        self.slots.retain(|_, &mut slot| {
            let lip = &self.lips[slot as usize];
            let used = lip.pool.is_some() || lip.books > 0;
            if !used {
                self.unused.push(slot);
            }
            used
        });
    }

    /// The slot of a LIP, made if it is new.
    fn lip_slot(&mut self, address: &Address) -> u32 {
        if let Some(&slot) = self.slots.get(address) {
            return slot;
        }
        let lip = Lip { address: *address, pool: None, books: 0, leased: 0, resting: 0 };
        let slot = match self.unused.pop() {
            Some(slot) => {
                self.lips[slot as usize] = lip;
                slot
            }
            None => {
                self.lips.push(lip);
                self.lips.len() as u32 - 1
            }
        };
        self.slots.insert(*address, slot);
        slot
    }
}
