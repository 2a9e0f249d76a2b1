//! Lists of finished sessions.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::session::SessionIndex;

#[derive(Default)]
struct Links(HashMap<u32, (u32, u32)>);

impl ReclaimLinks for Links {
    fn get(&self, session: SessionIndex) -> (u32, u32) {
        self.0.get(&session.0).copied().unwrap_or_default()
    }

    fn set(&mut self, session: SessionIndex, next: u32, prev: u32) {
        self.0.insert(session.0, (next, prev));
    }
}

fn candidate(pools: &mut LocalPools, pool: &LocalPool) -> Option<u32> {
    pools.reclaim_candidate(pool.id, Protocol::Tcp, &rip(), 80).map(|session| session.0)
}

#[test]
fn the_session_that_finished_first_gives_way_first() {
    let pool = pool(0, [1], 1024, 1033);
    let mut pools = one_worker(&pool);
    let mut links = Links::default();
    let leases = lease_all(&mut pools, &pool);
    assert_eq!(candidate(&mut pools, &pool), None);
    for session in [4, 0, 7] {
        pools.offer(leases[session].slot, SessionIndex(session as u32), &mut links);
        pools.offer(leases[session].slot, SessionIndex(session as u32), &mut links);
    }
    for session in [4, 0, 7] {
        assert_eq!(candidate(&mut pools, &pool), Some(session as u32));
        pools.withdraw(leases[session].slot, SessionIndex(session as u32), &mut links);
        pools.release(leases[session].slot, leases[session].lport);
        assert_eq!(lease(&mut pools, &pool), Ok(leases[session]));
    }
    assert_eq!(candidate(&mut pools, &pool), None);
    assert!(links.0.values().all(|&links| links == (0, 0)));
}

/// What was offered while the LIP was in one pool can be had from the pool it is in now, and nowhere else.
#[test]
fn offers_move_with_their_address() {
    let (before, after) = (pool(0, [1], 1024, 1033), pool(1, [1], 1024, 1033));
    let mut pools = one_worker(&before);
    let mut links = Links::default();
    let leases = lease_all(&mut pools, &before);
    pools.offer(leases[3].slot, SessionIndex(3), &mut links);
    give(&mut pools, std::slice::from_ref(&after));
    assert_eq!(lease(&mut pools, &after), Err(LeaseError::Exhausted));
    assert_eq!(candidate(&mut pools, &before), None);
    pools.offer(leases[5].slot, SessionIndex(5), &mut links);
    assert_eq!(candidate(&mut pools, &after), Some(3));
    pools.withdraw(leases[3].slot, SessionIndex(3), &mut links);
    assert_eq!(candidate(&mut pools, &after), Some(5));
    give(&mut pools, &[]);
    pools.withdraw(leases[5].slot, SessionIndex(5), &mut links);
    assert_eq!(candidate(&mut pools, &after), None);
}

proptest! {
    #[test]
    fn offers_are_a_queue_for_each_address(steps in proptest::collection::vec((0..30u32, any::<bool>()), 1..200)) {
        let pool = pool(0, 1..=3, 1024, 1033);
        let mut pools = one_worker(&pool);
        let mut links = Links::default();
        let leases = lease_all(&mut pools, &pool);
        let mut queues: HashMap<Address, Vec<u32>> = HashMap::new();
        for (session, offer) in steps {
            let lease = leases[session as usize];
            let queue = queues.entry(lease.lip).or_default();
            let place = queue.iter().position(|&other| other == session);
            if offer {
                pools.offer(lease.slot, SessionIndex(session), &mut links);
                if place.is_none() {
                    queue.push(session);
                }
            } else {
                pools.withdraw(lease.slot, SessionIndex(session), &mut links);
                place.map(|place| queue.remove(place));
            }
            let heads: HashSet<_> = queues.values().filter_map(|queue| queue.first().copied()).collect();
            let candidates: HashSet<_> = (0..3).filter_map(|_| candidate(&mut pools, &pool)).collect();
            prop_assert_eq!(candidates, heads);
        }
    }
}
