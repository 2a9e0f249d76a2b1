//! Other hosts that claim addresses of ours (RFC 5227 §2.4): kept in a small list for control to report, and so that
//! each address is defended once in ten seconds and not more often.

use crate::clock::Tick;
use crate::id::PortId;
use crate::wire::Address;

/// RFC 5227 §1.1, DEFEND_INTERVAL.
const DEFEND_INTERVAL_TICKS: u32 = 10 * Tick::PER_SECOND;
/// How many contested addresses are remembered.
const CONFLICTS_MAX: usize = 64;

/// An address of ours that another host claims.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Conflict {
    /// where the claim was seen
    pub port: PortId,
    /// the contested address
    pub address: Address,
    /// who claimed it last
    pub mac: [u8; 6],
    /// how many claims there were
    pub count: u64,
    /// when it was last claimed
    pub last: Tick,
    defended: Tick,
}

/// The contested addresses of one worker.
pub(super) struct Conflicts {
    list: Vec<Conflict>,
}

impl Conflicts {
    pub(super) fn new() -> Self {
        Conflicts { list: Vec::with_capacity(CONFLICTS_MAX) }
    }

    /// Notes a claim; true if the address shall be defended now.
    pub(super) fn note(&mut self, port: PortId, address: Address, mac: [u8; 6], now: Tick) -> bool {
        let same = |conflict: &&mut Conflict| conflict.port == port && conflict.address == address;
        if let Some(conflict) = self.list.iter_mut().find(same) {
            conflict.mac = mac;
            conflict.count += 1;
            conflict.last = now;
            let defend = now.since(conflict.defended) >= DEFEND_INTERVAL_TICKS;
            if defend {
                conflict.defended = now;
            }
            return defend;
        }
        let new = Conflict { port, address, mac, count: 1, last: now, defended: now };
        if self.list.len() < CONFLICTS_MAX {
            self.list.push(new);
            return true;
        }
        // Only one whose interval is over may be forgotten: otherwise claims of many addresses in turn would draw a
        // defence each time.
        let over = |conflict: &&mut Conflict| now.since(conflict.defended) >= DEFEND_INTERVAL_TICKS;
        match self.list.iter_mut().filter(over).max_by_key(|conflict| now.since(conflict.last)) {
            Some(oldest) => {
                *oldest = new;
                true
            }
            None => false,
        }
    }

    pub(super) fn list(&self) -> &[Conflict] {
        &self.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_contested_addresses_than_remembered_draw_no_more_defences() {
        let mut conflicts = Conflicts::new();
        let address = |n: u32| Address::from_v4((0x0a00_0000 + n).to_be_bytes());
        let mut claims = |tick: u32| {
            let mut defences = 0;
            for round in 0..10 {
                for n in 0..1000 {
                    defences += u32::from(conflicts.note(PortId(0), address(n), [2; 6], Tick(tick + round)));
                }
            }
            defences
        };
        assert_eq!(claims(0), 64);
        assert_eq!(claims(500), 0);
        assert_eq!(claims(1100), 64);
    }
}
