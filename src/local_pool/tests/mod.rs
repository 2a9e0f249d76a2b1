//! Leases: single cases here; random histories against a model in [`model`], distribution in [`random`], what a
//! lease costs in [`work`].

mod model;
mod random;
mod reclaim;
pub(super) mod work;

use std::collections::HashSet;
use std::net::Ipv4Addr;

use super::*;
use crate::clock::Tick;
use crate::id::PortId;
use crate::wire::Tuple;

/// A real server of the tests.
fn rip() -> Address {
    Ipv4Addr::new(10, 2, 0, 11).into()
}

/// The `n`-th local address of the tests.
fn lip(n: u16) -> Address {
    let [high, low] = n.to_be_bytes();
    Ipv4Addr::new(10, 3, high, low).into()
}

fn pool(id: u16, lips: impl IntoIterator<Item = u16>, port_first: u16, port_last: u16) -> LocalPool {
    LocalPool {
        id: PoolId(id),
        name: format!("pool-{id}"),
        port: PortId(0),
        addresses: lips.into_iter().map(lip).collect(),
        port_first,
        port_last,
    }
}

fn steering(workers: usize) -> Arc<Steering> {
    Arc::new(Steering::random(workers, 512, [workers as u8; 32]).unwrap())
}

fn workers_with(steering: &Arc<Steering>, pool: &LocalPool, books_max: usize) -> Vec<LocalPools> {
    (0..steering.workers() as u16)
        .map(|worker| {
            let mut pools = LocalPools::new(PoolsConfig {
                worker: WorkerId(worker),
                steering: steering.clone(),
                books_max,
                destinations_max: books_max,
                seed: [worker as u8; 32],
            })
            .unwrap();
            give(&mut pools, std::slice::from_ref(pool));
            pools
        })
        .collect()
}

fn one_worker(pool: &LocalPool) -> LocalPools {
    workers_with(&steering(1), pool, 64).remove(0)
}

/// Applies a configuration with just these pools.
fn give(pools: &mut LocalPools, wanted: &[LocalPool]) {
    let slots = wanted.iter().map(|pool| pool.id.index() + 1).max().unwrap_or(0);
    let mut list = vec![None; slots];
    for pool in wanted {
        list[pool.id.index()] = Some(pool.clone());
    }
    pools.apply_pools(&list);
}

fn lease(pools: &mut LocalPools, pool: &LocalPool) -> Result<Lease, LeaseError> {
    pools.lease(pool, Protocol::Tcp, &rip(), 80)
}

/// Leases until the pool refuses.
fn lease_all(pools: &mut LocalPools, pool: &LocalPool) -> Vec<Lease> {
    let mut leases = Vec::new();
    loop {
        match lease(pools, pool) {
            Ok(lease) => leases.push(lease),
            Err(error) => {
                assert_eq!(error, LeaseError::Exhausted);
                return leases;
            }
        }
    }
}

/// The answers' tuple of a lease.
fn answer(lease: &Lease) -> Tuple {
    Tuple { src: rip(), dst: lease.lip, sport: 80, dport: lease.lport, protocol: Protocol::Tcp }
}

#[test]
fn one_worker_leases_every_port_once() {
    for (first, last) in [(1024, 65535), (1, 65535), (0, 40), (5000, 5019), (65535, 65535), (32768, 60999)] {
        let pool = pool(0, 1..=2, first, last);
        let mut pools = one_worker(&pool);
        let leases = lease_all(&mut pools, &pool);
        let ports = usize::from(last - first.max(1)) + 1;
        assert_eq!(leases.len(), 2 * ports);
        let distinct: HashSet<_> = leases.iter().map(|lease| (lease.lip, lease.lport)).collect();
        assert_eq!(distinct.len(), leases.len());
        assert_eq!(pools.capacity_of(pool.id, &rip(), 80) as usize, leases.len());
        assert_eq!(pools.usage(pool.id).refused, 1);
    }
}

#[test]
fn conformance_h1_workers_never_lease_the_same() {
    for workers in [2, 3, 4, 7] {
        let pool = pool(0, 1..=2, 1024, 65535);
        let steering = steering(workers);
        let mut held = HashSet::new();
        for pools in &mut workers_with(&steering, &pool, 64) {
            for lease in lease_all(pools, &pool) {
                assert!(held.insert((lease.lip, lease.lport)), "{lease:?} twice with {workers} workers");
            }
        }
        assert_eq!(held.len(), 2 * (65535 - 1023), "the workers' shares together are the whole pool");
    }
}

#[test]
fn conformance_h2_edge_ports_are_leased_once_and_nothing_beyond() {
    for workers in [1, 2, 4] {
        for (first, last) in [(0, 1023), (1024, 65535), (1024, 1043), (16384, 32767)] {
            let pool = pool(0, [1], first, last);
            let mut times = vec![0; 65536];
            for pools in &mut workers_with(&steering(workers), &pool, 64) {
                lease_all(pools, &pool).iter().for_each(|lease| times[usize::from(lease.lport)] += 1);
            }
            let range = usize::from(first.max(1))..=usize::from(last);
            for (port, &times) in times.iter().enumerate() {
                assert_eq!(times, i32::from(range.contains(&port)), "port {port} of {first}-{last}");
            }
        }
    }
}

#[test]
fn conformance_h3_every_lease_comes_home() {
    for workers in [2, 3, 16] {
        let pool = pool(0, 1..=16, 1024, 65535);
        let steering = steering(workers);
        for (worker, pools) in workers_with(&steering, &pool, 64).iter_mut().enumerate() {
            for _ in 0..20_000 {
                let lease = lease(pools, &pool).unwrap();
                assert_eq!(steering.home(&answer(&lease)).index(), worker);
            }
        }
    }
}

#[test]
fn ipv6_real_servers_get_ipv6_addresses() {
    let rip = Address::from_v6([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    let lip = Address::from_v6([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    let mut both = pool(0, [1], 1024, 65535);
    let steering = steering(2);
    let mut workers = workers_with(&steering, &both, 64);
    assert_eq!(workers[0].lease(&both, Protocol::Udp, &rip, 53), Err(LeaseError::NoAddressOfFamily));
    both.addresses.push(lip);
    let mut total = 0;
    for (worker, pools) in workers.iter_mut().enumerate() {
        give(pools, std::slice::from_ref(&both));
        while let Ok(lease) = pools.lease(&both, Protocol::Udp, &rip, 53) {
            assert_eq!(lease.lip, lip);
            let answer = Tuple { src: rip, dst: lip, sport: 53, dport: lease.lport, protocol: Protocol::Udp };
            assert_eq!(steering.home(&answer).index(), worker);
            total += 1;
        }
    }
    assert_eq!(total, 65535 - 1023);
}

/// Clients reach workers at random; the first refusal comes when nearly the whole pool is held.
#[test]
fn conformance_h5_use_at_the_first_refusal() {
    for (lips, first, last) in [(1, 1024, 65535), (4, 1024, 65535), (16, 10_000, 12_999)] {
        let pool = pool(0, 1..=lips, first, last);
        let mut workers = workers_with(&steering(4), &pool, 64);
        let ports = usize::from(lips) * usize::from(last - first + 1);
        let mut random = StdRng::seed_from_u64(5);
        let mut leased = 0;
        while lease(&mut workers[random.next_u32() as usize % 4], &pool).is_ok() {
            leased += 1;
        }
        assert!(leased * 100 >= ports * 95, "{leased} of {ports} at the first refusal");
    }
}

/// Row H4's pool: with several workers each has some of the 20 ports and together they have all.
#[test]
fn conformance_h4_twenty_ports_are_twenty_leases() {
    for workers in [1, 2, 4] {
        let pool = pool(0, [1], 40_000, 40_019);
        let mut workers = workers_with(&steering(workers), &pool, 8);
        let leased: usize = workers.iter_mut().map(|pools| lease_all(pools, &pool).len()).sum();
        assert_eq!(leased, 20);
    }
}

#[test]
fn a_released_port_is_leased_again_and_a_resting_one_is_not() {
    let pool = pool(0, [1], 2000, 2001);
    let mut pools = one_worker(&pool);
    let leases = lease_all(&mut pools, &pool);
    pools.release(leases[0].slot, leases[0].lport);
    assert_eq!(lease(&mut pools, &pool), Ok(leases[0]));

    pools.rest(leases[1].slot, leases[1].lport, Tick(600));
    let usage = PoolUsage { ports: 2, leased: 1, resting: 1, refused: 1 };
    assert_eq!(pools.usage(pool.id), usage);
    assert_eq!(pools.advance(Tick(599), 10), 0);
    assert_eq!(lease(&mut pools, &pool), Err(LeaseError::Exhausted));
    assert_eq!(pools.advance(Tick(600), 10), 1);
    assert_eq!(lease(&mut pools, &pool), Ok(leases[1]));
    assert_eq!(pools.usage(pool.id), PoolUsage { leased: 2, resting: 0, refused: 2, ..usage });
}

#[test]
fn resting_is_bounded_and_frees_the_oldest_first() {
    let pool = pool(0, 1..=2, 1, 65535);
    let mut pools = one_worker(&pool);
    let leases = lease_all(&mut pools, &pool);
    for lease in &leases {
        pools.rest(lease.slot, lease.lport, Tick(1_000_000));
    }
    let early = leases.len() - (1 << 16);
    let again: HashSet<_> = lease_all(&mut pools, &pool).iter().map(|l| (l.lip, l.lport)).collect();
    assert_eq!(again, leases[..early].iter().map(|l| (l.lip, l.lport)).collect());
    assert_eq!(pools.advance(Tick(1_000_000), usize::MAX), 1 << 16);
    assert_eq!(pools.advance(Tick(1_000_000), usize::MAX), 0);
}

/// Few sessions stay on one LIP, many spread evenly over all; different destinations begin at different LIPs.
#[test]
fn leases_use_as_few_addresses_as_they_need() {
    let pool = pool(0, 1..=8, 1024, 65535);
    let mut pools = one_worker(&pool);
    let opened = |pools: &LocalPools| pools.lips().filter(|lip| lip.leased > 0).count();
    let mut begin = HashSet::new();
    for rport in 1..=40 {
        begin.insert(pools.lease(&pool, Protocol::Tcp, &rip(), rport).unwrap().lip);
    }
    assert!(begin.len() > 4);

    let mut pools = one_worker(&pool);
    let ports = 65536 - 1024;
    for (leases, lips) in [(ports * 49 / 100, 1), (ports * 9 / 10, 2), (ports * 5 / 2, 6), (ports * 5, 8)] {
        let held = pools.usage(pool.id).leased;
        for _ in held..leases {
            lease(&mut pools, &pool).unwrap();
        }
        assert!(opened(&pools) <= lips, "{} LIPs for {leases} leases", opened(&pools));
    }
    let (least, most) = (pools.lips().map(|lip| lip.leased).min(), pools.lips().map(|lip| lip.leased).max());
    assert!(most.unwrap() - least.unwrap() < 1000, "{least:?} to {most:?}");
}

#[test]
fn books_without_leases_give_way_and_others_do_not() {
    let pool = pool(0, [1], 1024, 65535);
    let mut pools = workers_with(&steering(1), &pool, 4).remove(0);
    for rport in 1..1000 {
        let lease = pools.lease(&pool, Protocol::Tcp, &rip(), rport).unwrap();
        pools.release(lease.slot, lease.lport);
    }
    assert_eq!(pools.destinations(0..100).count(), 4);
    let held: Vec<_> =
        (1..=4).map(|rport| pools.lease(&pool, Protocol::Tcp, &rip(), rport).unwrap()).collect();
    assert_eq!(pools.lease(&pool, Protocol::Tcp, &rip(), 5), Err(LeaseError::BooksFull));
    assert_eq!(pools.usage(pool.id).refused, 1);
    pools.release(held[2].slot, held[2].lport);
    assert!(pools.lease(&pool, Protocol::Tcp, &rip(), 5).is_ok());
}

/// A port that rests spares the real server's memory of its last user; it does not cost a client its connection.
#[test]
fn resting_ports_give_way_when_nothing_else_does() {
    let pool = pool(0, [1], 1024, 65535);
    let config = |destinations_max| PoolsConfig {
        worker: WorkerId(0),
        steering: steering(1),
        books_max: 4,
        destinations_max,
        seed: [1; 32],
    };
    // Once books are short, once destinations.
    for destinations_max in [64, 4] {
        let mut pools = LocalPools::new(config(destinations_max)).unwrap();
        give(&mut pools, std::slice::from_ref(&pool));
        resting_ports_give_way(&mut pools, &pool);
    }
}

fn resting_ports_give_way(pools: &mut LocalPools, pool: &LocalPool) {
    let held: Vec<_> =
        (1..=4).map(|rport| pools.lease(pool, Protocol::Tcp, &rip(), rport).unwrap()).collect();
    for lease in &held[..2] {
        pools.rest(lease.slot, lease.lport, Tick(1_000_000));
    }
    assert!(pools.lease(pool, Protocol::Tcp, &rip(), 5).is_ok());
    assert_eq!(pools.usage(pool.id).resting, 1, "the one that rested longest woke, no other");
    assert!(pools.lease(pool, Protocol::Tcp, &rip(), 6).is_ok());
    assert_eq!(pools.lease(pool, Protocol::Tcp, &rip(), 7), Err(LeaseError::BooksFull));
}

#[test]
fn memory_that_cannot_be_had_is_said_and_not_aborted_for() {
    let config = PoolsConfig {
        worker: WorkerId(0),
        steering: steering(1),
        books_max: 1 << 48,
        destinations_max: 1,
        seed: [0; 32],
    };
    let error = LocalPools::new(config).err().unwrap();
    assert_eq!(error.books_max, 1 << 48);
    assert!(error.to_string().contains("lower dataplane.sessions_max"), "{error}");
}

/// A removed LIP gets no new leases, its old ones stay held and drain, and its ports come back with it.
#[test]
fn conformance_m5_a_removed_address_drains() {
    let both = pool(0, [1, 2], 3000, 3099);
    let only = pool(0, [2], 3000, 3099);
    let mut pools = one_worker(&both);
    let leases = lease_all(&mut pools, &both);
    let (gone, kept): (Vec<Lease>, Vec<Lease>) = leases.into_iter().partition(|lease| lease.lip == lip(1));
    give(&mut pools, std::slice::from_ref(&only));
    assert_eq!(lease(&mut pools, &only), Err(LeaseError::Exhausted));
    for (n, lease) in gone.iter().enumerate() {
        assert_eq!(pools.lips().filter(|lip| lip.pool.is_none()).count(), 1, "drains until {n} of 100");
        pools.release(lease.slot, lease.lport);
    }
    assert_eq!(pools.lips().count(), 1);
    assert_eq!(lease(&mut pools, &only), Err(LeaseError::Exhausted));
    kept.iter().for_each(|lease| pools.release(lease.slot, lease.lport));
    assert!(lease_all(&mut pools, &only).iter().all(|lease| lease.lip == lip(2)));
    give(&mut pools, std::slice::from_ref(&both));
    assert_eq!(lease_all(&mut pools, &both).len(), 100);
}

/// Renaming a pool moves its LIPs, with the leases they carry, to another pool: nothing is leased twice.
#[test]
fn an_address_keeps_its_leases_when_it_changes_pools() {
    let (before, after) = (pool(0, [1], 3000, 3099), pool(1, [1], 3050, 3149));
    let mut pools = one_worker(&before);
    let old: Vec<_> = (0..60).map(|_| lease(&mut pools, &before).unwrap()).collect();
    give(&mut pools, std::slice::from_ref(&after));
    assert_eq!(lease(&mut pools, &before), Err(LeaseError::NoAddressOfFamily));
    let new = lease_all(&mut pools, &after);
    let in_both = old.iter().filter(|lease| lease.lport >= 3050).count();
    assert_eq!(new.len(), 100 - in_both);
    assert!(new.iter().all(|lease| !old.iter().any(|old| old.lport == lease.lport)));
    old.iter().for_each(|lease| pools.release(lease.slot, lease.lport));
    assert_eq!(lease_all(&mut pools, &after).len(), in_both);
}

#[test]
fn pools_that_nobody_knows_have_no_address() {
    let (known, unknown) = (pool(0, [1], 1024, 65535), pool(7, [1], 1024, 65535));
    let mut pools = one_worker(&known);
    assert_eq!(lease(&mut pools, &unknown), Err(LeaseError::NoAddressOfFamily));
    assert_eq!(pools.usage(unknown.id), PoolUsage::default());
    give(&mut pools, &[]);
    assert_eq!(lease(&mut pools, &known), Err(LeaseError::NoAddressOfFamily));
}

#[test]
fn protocols_and_ports_of_a_real_server_do_not_share() {
    let pool = pool(0, [1], 9000, 9009);
    let mut pools = one_worker(&pool);
    for (protocol, rport) in [(Protocol::Tcp, 80), (Protocol::Udp, 80), (Protocol::Tcp, 443)] {
        for _ in 0..10 {
            pools.lease(&pool, protocol, &rip(), rport).unwrap();
        }
        assert_eq!(pools.lease(&pool, protocol, &rip(), rport), Err(LeaseError::Exhausted));
    }
    let usages: Vec<_> = pools.destinations(0..pools.destination_slots()).collect();
    assert_eq!(usages.len(), 3);
    assert!(usages.iter().all(|usage| (usage.ports, usage.leased, usage.refused) == (10, 10, 1)));
}
