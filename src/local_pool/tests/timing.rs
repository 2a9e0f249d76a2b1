//! `cargo test --release --no-default-features local_pool::tests::timing -- --ignored --nocapture`

use std::hint::black_box;
use std::time::Instant;

use super::*;

/// Nanoseconds of one lease and one release of a random held port, at `percent` use.
fn nanos(workers: usize, lips: u16, percent: usize) -> f64 {
    const ROUNDS: usize = 400_000;
    let pool = pool(0, 1..=lips, 1024, 65535);
    let mut pools = workers_with(&steering(workers), &pool, 64).remove(0);
    let mut held = lease_all(&mut pools, &pool);
    let mut random = StdRng::seed_from_u64(1);
    let order: Vec<_> = (0..held.len()).map(|_| random.next_u32() as usize % held.len()).collect();
    order.iter().for_each(|&other| held.swap(0, other));
    for lease in held.split_off(held.len() * percent / 100) {
        pools.release(lease.slot, lease.lport);
    }
    // few enough to stay in the cache themselves, spread over the whole pool
    held.truncate(4096);
    let picks: Vec<_> = (0..ROUNDS).map(|_| random.next_u32() as usize % held.len()).collect();
    let start = Instant::now();
    for pick in picks {
        let new = black_box(lease(&mut pools, &pool)).unwrap();
        let old = std::mem::replace(&mut held[pick], new);
        pools.release(old.slot, old.lport);
    }
    start.elapsed().as_nanos() as f64 / ROUNDS as f64
}

/// Conformance H6: at 99 % use at most twice the cost at 10 %. Printed, since time wanders on shared machines.
#[test]
#[ignore = "prints a table of times"]
fn conformance_h6_cost_by_use() {
    for (workers, lips) in [(1, 1), (1, 16), (4, 16)] {
        for percent in [10, 50, 90, 99] {
            let mut runs: Vec<_> = (0..5).map(|_| nanos(workers, lips, percent)).collect();
            runs.sort_by(f64::total_cmp);
            println!(
                "{workers} workers, {lips:2} LIPs, {percent:2} % used: {:6.1} ns lease + release",
                runs[2]
            );
        }
    }
}
