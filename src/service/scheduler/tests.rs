//! What every scheduler promises, checked over random real servers and weights.

use super::*;
use crate::id::ServiceId;
use hashbrown::{HashMap, HashSet};
use proptest::prelude::*;
use std::cell::RefCell;

const ALL: [Algorithm; 6] = [
    Algorithm::RoundRobin,
    Algorithm::WeightedRoundRobin,
    Algorithm::LeastConnection,
    Algorithm::WeightedLeastConnection,
    Algorithm::SourceHash,
    Algorithm::Maglev,
];

/// Real servers 10.2.x.y:8080 with these weights; ids are not the indices.
fn servers(weights: &[u16]) -> Vec<RealServer> {
    weights.iter().enumerate().map(|(index, &weight)| server(index, weight)).collect()
}

fn server(index: usize, weight: u16) -> RealServer {
    RealServer {
        id: RealServerId(index as u32 + 7),
        service: ServiceId(0),
        address: Address::from_v4([10, 2, (index / 250) as u8, (index % 250) as u8 + 1]),
        port: Some(8080),
        weight,
        next_hop: None,
        removed: false,
    }
}

fn client(number: u32) -> ClientKey {
    ClientKey { address: Address::from_v4(number.to_be_bytes()), port: 40_000 }
}

fn idle(_: RealServerId) -> Connections {
    Connections::default()
}

fn build(algorithm: Algorithm, weights: &[u16]) -> Scheduler {
    Scheduler::new(algorithm, HashFlags::default(), &servers(weights))
}

/// How often each real server is picked, by index.
fn picks(scheduler: &Scheduler, state: &mut SchedulerState, count: usize, len: usize) -> Vec<usize> {
    let mut counts = vec![0; len];
    for number in 0..count {
        let id = scheduler.pick(state, client(number as u32), &idle).unwrap();
        counts[id.index() - 7] += 1;
    }
    counts
}

fn weights() -> impl Strategy<Value = Vec<u16>> {
    let weight =
        prop_oneof![Just(0u16), 1u16..8, (1u16..20).prop_map(|n| n * 10), 1u16..=300, Just(u16::MAX)];
    prop::collection::vec(weight, 1..12)
}

proptest! {
    #[test]
    fn weight_0_is_never_picked_and_somebody_is_while_one_has_weight(
        weights in weights(),
        port in any::<bool>(),
        fallback in any::<bool>(),
        worker in 0u16..4,
    ) {
        for algorithm in ALL {
            let scheduler = Scheduler::new(algorithm, HashFlags { port, fallback }, &servers(&weights));
            let mut state = SchedulerState::new(WorkerId(worker), 4);
            for number in 0..40 {
                match scheduler.pick(&mut state, client(number * 77), &idle) {
                    Some(id) => prop_assert!(weights[id.index() - 7] > 0, "{} {id:?}", algorithm.name()),
                    None => prop_assert!(weights.iter().all(|&weight| weight == 0), "{}", algorithm.name()),
                }
            }
        }
    }

    #[test]
    fn wrr_is_exact_over_every_cycle_wherever_it_begins(
        weights in prop::collection::vec(prop_oneof![0u16..6, (0u16..6).prop_map(|n| n * 100)], 1..8),
        worker in 0u16..5,
        lead in 0usize..50,
    ) {
        let sum: usize = weights.iter().map(|&weight| usize::from(weight)).sum();
        prop_assume!(sum > 0);
        let gcd = weights.iter().fold(0, |a, &b| { let (mut a, mut b) = (a, b); while b != 0 { (a, b) = (b, a % b) } a });
        let scheduler = build(Algorithm::WeightedRoundRobin, &weights);
        let mut state = SchedulerState::new(WorkerId(worker), 5);
        picks(&scheduler, &mut state, lead, weights.len());
        let counts = picks(&scheduler, &mut state, sum / usize::from(gcd), weights.len());
        let expected: Vec<usize> = weights.iter().map(|&weight| usize::from(weight / gcd)).collect();
        prop_assert_eq!(counts, expected);
    }

    #[test]
    fn wrr_is_exact_again_after_the_weights_changed(
        before in prop::collection::vec(1u16..50, 1..6),
        after in prop::collection::vec(1u16..9, 1..6),
        lead in 1usize..60,
    ) {
        let mut state = SchedulerState::default();
        picks(&build(Algorithm::WeightedRoundRobin, &before), &mut state, lead, before.len());
        let after: Vec<u16> = after.iter().map(|weight| weight * 10).collect();
        let scheduler = build(Algorithm::WeightedRoundRobin, &after);
        let counts = picks(&scheduler, &mut state, after.iter().map(|w| usize::from(*w)).sum(), after.len());
        let gcd = usize::from(after.iter().fold(0, |a, &b| { let (mut a, mut b) = (a, b); while b != 0 { (a, b) = (b, a % b) } a }));
        let expected: Vec<usize> = after.iter().map(|weight| usize::from(*weight)).collect();
        prop_assert_eq!(counts, expected, "{} whole cycles", gcd);
    }

    #[test]
    fn lc_and_wlc_pick_the_least_overhead(
        servers_and_sessions in prop::collection::vec((0u16..5, 0u32..4, 0u32..600), 1..12),
        worker in 0u16..3,
    ) {
        let weights: Vec<u16> = servers_and_sessions.iter().map(|server| server.0).collect();
        prop_assume!(weights.iter().any(|&weight| weight > 0));
        let sessions = |id: RealServerId| {
            let (_, active, inactive) = servers_and_sessions[id.index() - 7];
            Connections { active, inactive }
        };
        let overhead = |index: usize| {
            let (_, active, inactive) = servers_and_sessions[index];
            u64::from(active) * 256 + u64::from(inactive)
        };
        let mut state = SchedulerState::new(WorkerId(worker), 3);
        for _ in 0..5 {
            let lc = build(Algorithm::LeastConnection, &weights).pick(&mut state, client(1), &sessions).unwrap().index() - 7;
            let wlc = build(Algorithm::WeightedLeastConnection, &weights).pick(&mut state, client(1), &sessions).unwrap().index() - 7;
            for other in (0..weights.len()).filter(|&other| weights[other] > 0) {
                prop_assert!(overhead(lc) <= overhead(other));
                // overhead / weight, multiplied out
                prop_assert!(overhead(wlc) * u64::from(weights[other]) <= overhead(other) * u64::from(weights[wlc]));
            }
        }
    }
}

#[test]
fn rr_takes_one_after_the_other_and_skips_the_drained() {
    let scheduler = build(Algorithm::RoundRobin, &[1, 0, 5, 1]);
    let mut state = SchedulerState::default();
    let order: Vec<u32> =
        (0..6).map(|_| scheduler.pick(&mut state, client(0), &idle).unwrap().0 - 7).collect();
    assert_eq!(order, [0, 2, 3, 0, 2, 3]);
}

#[test]
fn wrr_follows_the_kernels_order() {
    // The example of the LVS documentation: weights 4, 3, 2 give AABABCABC.
    let scheduler = build(Algorithm::WeightedRoundRobin, &[4, 3, 2]);
    let mut state = SchedulerState::default();
    let order: String = (0..18)
        .map(|_| char::from(b'A' + (scheduler.pick(&mut state, client(0), &idle).unwrap().0 - 7) as u8))
        .collect();
    assert_eq!(order, "AABABCABCAABABCABC");
}

#[test]
fn the_first_sessions_of_all_workers_do_not_meet() {
    for algorithm in [Algorithm::RoundRobin, Algorithm::WeightedRoundRobin, Algorithm::LeastConnection] {
        let scheduler = build(algorithm, &[10; 4]);
        let first: HashSet<_> = (0..4)
            .map(|worker| scheduler.pick(&mut SchedulerState::new(WorkerId(worker), 4), client(0), &idle))
            .collect();
        assert_eq!(first.len(), 4, "{}", algorithm.name());
    }
}

#[test]
fn wlc_fills_real_servers_by_weight() {
    let weights = [100, 200, 50];
    let scheduler = build(Algorithm::WeightedLeastConnection, &weights);
    let sessions = RefCell::new([0u32; 3]);
    let mut state = SchedulerState::default();
    for _ in 0..700 {
        let count = |id: RealServerId| Connections { active: sessions.borrow()[id.index() - 7], inactive: 0 };
        let id = scheduler.pick(&mut state, client(0), &count).unwrap();
        sessions.borrow_mut()[id.index() - 7] += 1;
    }
    assert_eq!(sessions.into_inner(), [200, 400, 100]);
}

#[test]
fn affinity_is_the_same_on_every_worker_and_in_any_order_of_the_file() {
    for algorithm in [Algorithm::SourceHash, Algorithm::Maglev] {
        let mut listed = servers(&[1, 2, 3, 4, 5]);
        let one = Scheduler::new(algorithm, HashFlags::default(), &listed);
        listed.reverse();
        let other = Scheduler::new(algorithm, HashFlags::default(), &listed);
        for number in 0..500 {
            let picked = one.pick(&mut SchedulerState::default(), client(number), &idle);
            assert_eq!(picked, other.pick(&mut SchedulerState::new(WorkerId(3), 8), client(number), &idle));
        }
    }
}

#[test]
fn affinity_never_changes_from_release_to_release() {
    // Gateways of different age behind one router must agree. These values are the contract.
    let picked = |algorithm| -> Vec<u32> {
        let scheduler = build(algorithm, &[1, 1, 2]);
        (0..12)
            .map(|n| scheduler.pick(&mut SchedulerState::default(), client(n), &idle).unwrap().0 - 7)
            .collect()
    };
    assert_eq!(picked(Algorithm::SourceHash), [0, 2, 2, 1, 2, 2, 1, 1, 2, 2, 2, 0]);
    assert_eq!(picked(Algorithm::Maglev), [1, 1, 1, 1, 1, 2, 0, 2, 1, 1, 1, 1]);
}

#[test]
fn affinity_spreads_clients_by_weight() {
    for algorithm in [Algorithm::SourceHash, Algorithm::Maglev] {
        let scheduler = build(algorithm, &[1, 1, 2]);
        let counts = picks(&scheduler, &mut SchedulerState::default(), 40_000, 3);
        for (count, expected) in counts.iter().zip([10_000, 10_000, 20_000usize]) {
            assert!(count.abs_diff(expected) < 600, "{}: {counts:?}", algorithm.name());
        }
    }
}

#[test]
fn the_clients_port_counts_only_with_the_flag() {
    for algorithm in [Algorithm::SourceHash, Algorithm::Maglev] {
        let spread = |flags| {
            let scheduler = Scheduler::new(algorithm, flags, &servers(&[1; 8]));
            let key = |port| ClientKey { address: client(5).address, port };
            (1000..1200)
                .map(|port| scheduler.pick(&mut SchedulerState::default(), key(port), &idle))
                .collect::<HashSet<_>>()
                .len()
        };
        assert_eq!(spread(HashFlags { port: false, fallback: false }), 1);
        assert_eq!(spread(HashFlags { port: true, fallback: false }), 8);
    }
}

#[test]
fn with_fallback_only_the_drained_servers_clients_move() {
    let flags = HashFlags { port: false, fallback: true };
    for algorithm in [Algorithm::SourceHash, Algorithm::Maglev] {
        let before = Scheduler::new(algorithm, flags, &servers(&[100; 10]));
        let mut drained = [100; 10];
        drained[3] = 0;
        let after = Scheduler::new(algorithm, flags, &servers(&drained));
        let mut heirs = HashSet::new();
        for number in 0..5000 {
            let was = before.pick(&mut SchedulerState::default(), client(number), &idle).unwrap();
            let is = after.pick(&mut SchedulerState::default(), client(number), &idle).unwrap();
            if was == RealServerId(7 + 3) {
                heirs.insert(is);
            } else {
                assert_eq!(was, is, "{}", algorithm.name());
            }
        }
        assert_eq!(heirs.len(), 9, "{}: the drained one's clients spread over all others", algorithm.name());
    }
}

/// Places per real server.
fn shares(candidates: &[Candidate]) -> HashMap<RealServerId, usize> {
    let mut shares = HashMap::new();
    for owner in maglev::Maglev::new(candidates, HashFlags::default()).owners() {
        *shares.entry(owner).or_default() += 1;
    }
    shares
}

fn candidates(weights: &[u16]) -> Vec<Candidate> {
    servers(weights).iter().map(Candidate::from).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn maglev_places_follow_the_weights(weights in prop::collection::vec(1u16..1000, 1..40)) {
        let shares = shares(&candidates(&weights));
        let total: usize = weights.iter().map(|&weight| usize::from(weight)).sum();
        for (index, &weight) in weights.iter().enumerate() {
            let exact = 4093.0 * f64::from(weight) / total as f64;
            let got = shares.get(&RealServerId(index as u32 + 7)).copied().unwrap_or(0) as f64;
            // Turns are whole: everyone may be one ahead, and all others' being ahead costs a share of theirs.
            let slack = 2.0 + weights.len() as f64 * f64::from(weight) / total as f64;
            prop_assert!((got - exact).abs() <= slack, "weight {weight}: {got} places, {exact} exact");
        }
    }

    #[test]
    fn maglev_moves_few_when_a_real_server_goes(count in 5usize..60, gone in 0usize..60) {
        let gone = gone % count;
        let all = candidates(&vec![10; count]);
        let mut rest = all.clone();
        rest.remove(gone);
        let before: Vec<_> = maglev::Maglev::new(&all, HashFlags::default()).owners().collect();
        let after: Vec<_> = maglev::Maglev::new(&rest, HashFlags::default()).owners().collect();
        let id = all[gone].id;
        let moved = before.iter().zip(&after).filter(|(was, is)| **was != id && was != is).count();
        prop_assert!(moved * 100 <= before.len() * 6, "{moved} of {} places moved needlessly", before.len());
        prop_assert!(!after.contains(&id));
    }
}

#[test]
fn maglev_has_room_for_many_real_servers() {
    let shares = shares(&candidates(&vec![1; 1000]));
    assert_eq!(shares.len(), 1000);
    assert!(shares.values().all(|&places| (65..=66).contains(&places)));
}
