//! How evenly and how unpredictably ports are drawn (RFC 6056).

use super::*;

/// Leases and releases `draws` times at a constant level of use on one of several workers; the ports drawn, as places
/// among those that this worker has, and how many it has.
fn drawn(pool: &LocalPool, workers: usize, held: usize, draws: usize) -> (Vec<u32>, u32) {
    let mut pools = workers_with(&steering(workers), pool, 64).remove(0);
    let mut ports: Vec<_> = lease_all(&mut pools, pool);
    ports.iter().for_each(|lease| pools.release(lease.slot, lease.lport));
    ports.sort_by_key(|lease| lease.lport);
    for _ in 0..held {
        lease(&mut pools, pool).unwrap();
    }
    let mut draw = || {
        let lease = lease(&mut pools, pool).unwrap();
        pools.release(lease.slot, lease.lport);
        ports.binary_search_by_key(&lease.lport, |lease| lease.lport).unwrap() as u32
    };
    ((0..draws).map(|_| draw()).collect(), ports.len() as u32)
}

/// The distance of chi-square from its mean, in standard deviations, over `bins` equal bins.
fn chi_square_sigmas(places: &[u32], ports: u32, bins: u32) -> f64 {
    let mut counts = vec![0f64; bins as usize];
    places
        .iter()
        .for_each(|place| counts[(u64::from(*place) * u64::from(bins) / u64::from(ports)) as usize] += 1.0);
    let size = |bin: u32| ((bin + 1) * ports).div_ceil(bins) - (bin * ports).div_ceil(bins);
    let chi: f64 = (0..bins)
        .map(|bin| {
            let expected = places.len() as f64 * f64::from(size(bin)) / f64::from(ports);
            (counts[bin as usize] - expected).powi(2) / expected
        })
        .sum();
    let freedom = f64::from(bins - 1);
    (chi - freedom) / (2.0 * freedom).sqrt()
}

/// The serial correlation of each draw with the next.
fn lag_1(places: &[u32]) -> f64 {
    let mean = places.iter().map(|&p| f64::from(p)).sum::<f64>() / places.len() as f64;
    let deviation = |p: &u32| f64::from(*p) - mean;
    let variance: f64 = places.iter().map(|p| deviation(p).powi(2)).sum();
    places.windows(2).map(|pair| deviation(&pair[0]) * deviation(&pair[1])).sum::<f64>() / variance
}

#[test]
fn conformance_h7_ports_are_uniform_and_independent() {
    for (workers, first, last) in [
        (1, 1024, 65535),
        (1, 32768, 60999),
        (1, 10_000, 10_999),
        (4, 1024, 65535),
        (4, 5000, 8999),
        (3, 1, 65535),
    ] {
        let pool = pool(0, [1], first, last);
        let (places, ports) = drawn(&pool, workers, 0, 100_000);
        for bins in [16, 256, ports.min(1000)] {
            let sigmas = chi_square_sigmas(&places, ports, bins);
            assert!(sigmas.abs() < 4.0, "{first}-{last}: {sigmas} sigma off over {bins} bins");
        }
        assert!(lag_1(&places).abs() < 0.02, "{first}-{last}: lag-1 {}", lag_1(&places));
        let repeats = places.windows(2).filter(|pair| pair[0] == pair[1]).count();
        assert!(repeats as f64 / 1e5 <= 10.0 / f64::from(ports), "{repeats} ports in a row twice");
        let followers = places.windows(2).filter(|pair| pair[0] + 1 == pair[1]).count();
        assert!(followers as f64 / 1e5 <= 10.0 / f64::from(ports), "{followers} ports in a row in order");
    }
}

/// Nearly full, a port alone in its word is more likely than others, but none is preferred by much.
#[test]
fn nearly_full_pools_still_draw_from_all_free_ports() {
    let pool = pool(0, [1], 1024, 65535);
    let (places, _) = drawn(&pool, 1, 64_000, 50_000);
    let mut times = std::collections::HashMap::new();
    places.iter().for_each(|place| *times.entry(place).or_insert(0u32) += 1);
    assert!(times.len() > 500, "{} of 512 free ports drawn", times.len());
    assert!(times.values().all(|&times| times < 500), "a port is drawn {:?} times", times.values().max());
    assert!(lag_1(&places).abs() < 0.02);
}

#[test]
fn other_seeds_draw_other_ports() {
    let pool = pool(0, [1], 1024, 65535);
    let mut seen = HashSet::new();
    for seed in 0..32 {
        let mut pools = LocalPools::new(PoolsConfig {
            worker: WorkerId(0),
            steering: steering(1),
            books_max: 1,
            destinations_max: 1,
            seed: [seed; 32],
        })
        .unwrap();
        give(&mut pools, std::slice::from_ref(&pool));
        seen.insert(lease(&mut pools, &pool).unwrap().lport);
    }
    assert!(seen.len() > 28);
}
