//! What a lease costs, counted in what it looks at: words and records, and the cache lines that they lie in. Times wander,
//! these do not.

use std::cell::RefCell;
use std::collections::HashSet;

use super::*;

/// Most that one lease looks at, whatever is held: half as many words as Linux tries ports (`nf_nat_l4proto_unique_tuple`:
/// 128). Three tries and two walks of the summary are 35; words that random tries have emptied unnoticed come on top.
const WORDS_MAX: usize = 64;

const LINE: usize = 64;

thread_local! {
    /// Where the places lie that the lease under observation has looked at.
    static PLACES: RefCell<Option<Vec<usize>>> = const { RefCell::new(None) };
}

/// A lease looks at this.
pub fn note<T>(place: &T) {
    PLACES.with_borrow_mut(|places| {
        if let Some(places) = places {
            places.push(std::ptr::from_ref(place).addr());
        }
    });
}

/// A lease, how many places it looked at, and in how many cache lines.
fn observed(pools: &mut LocalPools, pool: &LocalPool) -> (Result<Lease, LeaseError>, usize, usize) {
    PLACES.set(Some(Vec::new()));
    let lease = lease(pools, pool);
    let places = PLACES.take().unwrap_or_default();
    let lines: HashSet<usize> = places.iter().map(|place| place / LINE).collect();
    (lease, places.len(), lines.len())
}

/// Mean and 99th percentile of the lines that a lease looks at, at `percent` use.
fn lines(workers: usize, lips: u16, percent: usize) -> (f64, usize) {
    const ROUNDS: usize = 20_000;
    let pool = pool(0, 1..=lips, 1024, 65535);
    let mut pools = workers_with(&steering(workers), &pool, 64).remove(0);
    let mut held = lease_all(&mut pools, &pool);
    let mut random = StdRng::seed_from_u64(1);
    for at in 0..held.len() {
        let other = random.next_u32() as usize % held.len();
        held.swap(at, other);
    }
    for lease in held.split_off(held.len() * percent / 100) {
        pools.release(lease.slot, lease.lport);
    }
    let mut all = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let (new, words, lines) = observed(&mut pools, &pool);
        assert!(words <= WORDS_MAX, "{words} words at {percent} % use");
        all.push(lines);
        let pick = random.next_u32() as usize % held.len();
        let old = std::mem::replace(&mut held[pick], new.unwrap());
        pools.release(old.slot, old.lport);
    }
    all.sort_unstable();
    (all.iter().sum::<usize>() as f64 / ROUNDS as f64, all[ROUNDS * 99 / 100])
}

#[test]
fn conformance_h6_a_lease_at_99_percent_use_costs_at_most_twice_that_at_10() {
    for (workers, lips) in [(1, 1), (1, 16), (4, 1), (4, 16)] {
        let (mean_at_10, p99_at_10) = lines(workers, lips, 10);
        let (mean_at_99, p99_at_99) = lines(workers, lips, 99);
        let text = format!(
            "{workers} workers, {lips} LIPs: {mean_at_10} and {p99_at_10} at 10 %, {mean_at_99} and {p99_at_99} at 99 %"
        );
        assert!(mean_at_10 >= 4.0, "a destination, a book, a word, a LIP at the least; {text}");
        assert!(mean_at_99 <= 2.0 * mean_at_10 && p99_at_99 <= 2 * p99_at_10, "{text}");
    }
}

/// Down to the last free port, wide pools and narrow ones.
#[test]
fn conformance_h6_the_cost_is_bounded_down_to_the_last_port() {
    for (lips, first, last) in [
        (1, 1024, 65535),
        (3, 20_000, 29_999),
        (1, 5000, 5999),
        (1, 20_000, 39_999),
        (1, 30_000, 60_999),
        (1, 5000, 5299),
        (2, 5000, 5019),
    ] {
        let pool = pool(0, 1..=lips, first, last);
        let all = (1..=4).flat_map(|workers| workers_with(&steering(workers), &pool, 64));
        for pools in &mut all.collect::<Vec<_>>() {
            loop {
                let (lease, words, _) = observed(pools, &pool);
                assert!(words <= WORDS_MAX, "{words} words for one of {first}-{last}");
                if lease.is_err() {
                    break;
                }
            }
        }
    }
}
