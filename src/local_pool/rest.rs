//! Resting: ports that a session gave back but that its real server may still hold in TIME_WAIT.

use std::collections::VecDeque;

use super::LocalPools;
use super::memory::room_for;
use crate::clock::Tick;

/// Most ports that rest at a time, all workers together.
const RESTING_MAX: usize = 1 << 16;

/// Most ports that rest at a time on one of `workers` workers, which has as large a part of all ports.
pub(super) const fn resting_max(workers: usize) -> usize {
    RESTING_MAX.div_ceil(workers)
}

/// A held port that nobody has.
pub(super) struct Rest {
    slot: u32,
    until: Tick,
    lport: u16,
}

/// Resting ports in the order they came, 12 bytes each.
pub(super) struct Resting {
    ports: VecDeque<Rest>,
    max: usize,
}

impl Resting {
    /// An empty queue; `None` if there is no memory for it.
    pub(super) fn new(workers: usize) -> Option<Self> {
        let max = resting_max(workers);
        room_for(max).map(|room| Resting { ports: room.into(), max })
    }
}

impl LocalPools {
    /// Gives a lease back that nobody may have before `until`.
    ///
    /// Ports rest in a queue: one that is due waits for those ahead of it. When too many rest, the oldest is freed
    /// early.
    pub fn rest(&mut self, lease_slot: u32, lport: u16, until: Tick) {
        if self.resting.ports.len() == self.resting.max {
            self.wake();
        }
        let Some(book) = self.books.records.get_mut(lease_slot as usize) else { return };
        book.resting += 1;
        let lip = &mut self.registry.lips[book.lip as usize];
        lip.leased -= 1;
        lip.resting += 1;
        self.resting.ports.push_back(Rest { slot: lease_slot, until, lport });
    }

    /// Frees ports that have rested long enough, at most `budget` of them; returns how many.
    pub fn advance(&mut self, now: Tick, budget: usize) -> usize {
        for freed in 0..budget {
            match self.resting.ports.front() {
                Some(rest) if now.reached(rest.until) => {
                    self.wake();
                }
                _ => return freed,
            }
        }
        budget
    }

    /// Frees the port that has rested longest; false if none rests.
    pub(super) fn wake(&mut self) -> bool {
        let Some(Rest { slot, lport, .. }) = self.resting.ports.pop_front() else { return false };
        if self.give_back(slot, lport) {
            let book = &mut self.books.records[slot as usize];
            book.resting -= 1;
            self.registry.lips[book.lip as usize].resting -= 1;
            self.settle(slot);
        }
        true
    }
}
