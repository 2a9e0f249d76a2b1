//! Random histories of several workers against a set of what is held.

use std::collections::{HashMap, HashSet, VecDeque};

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Lease { worker: usize, rport: u16, udp: bool },
    Release { which: usize },
    Rest { which: usize, ticks: u32 },
    Advance { ticks: u32 },
    Apply { configuration: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        60 => (0..4usize, 1..4u16, any::<bool>())
            .prop_map(|(worker, rport, udp)| Step::Lease { worker, rport, udp }),
        25 => any::<usize>().prop_map(|which| Step::Release { which }),
        6 => (any::<usize>(), 0..50u32).prop_map(|(which, ticks)| Step::Rest { which, ticks }),
        6 => (0..50u32).prop_map(|ticks| Step::Advance { ticks }),
        3 => (0..6usize).prop_map(|configuration| Step::Apply { configuration }),
    ]
}

/// The configurations a history moves among: LIPs come, go and change pools, ranges grow, shrink and move.
fn configuration(n: usize) -> Vec<LocalPool> {
    match n {
        0 => vec![pool(0, 1..=3, 5000, 5015)],
        1 => vec![pool(0, 1..=2, 5000, 5015), pool(1, [3], 5008, 5030)],
        2 => vec![pool(1, [1, 3], 5000, 5015)],
        3 => vec![pool(0, 1..=3, 5010, 5020)],
        4 => vec![pool(0, [4], 5000, 5015), pool(1, 1..=3, 4990, 5005)],
        _ => vec![],
    }
}

type Held = (Protocol, Address, u16, u16);

struct World {
    steering: Arc<Steering>,
    workers: Vec<LocalPools>,
    configuration: Vec<LocalPool>,
    now: Tick,
    held: HashSet<Held>,
    sessions: Vec<(usize, Lease, Held)>,
    resting: Vec<VecDeque<(Tick, Held)>>,
    tight: bool,
}

impl World {
    fn new(workers: usize, books_max: usize) -> Self {
        let steering = steering(workers);
        let configuration = configuration(0);
        World {
            workers: workers_with(&steering, &configuration[0], books_max),
            steering,
            configuration,
            now: Tick(0),
            held: HashSet::new(),
            sessions: Vec::new(),
            resting: vec![VecDeque::new(); workers],
            tight: books_max < 64,
        }
    }

    /// The ports of `pool` that a worker could lease.
    fn free(&self, worker: usize, pool: &LocalPool, protocol: Protocol, rport: u16) -> HashSet<Held> {
        let all =
            pool.addresses.iter().flat_map(|&lip| (pool.port_first..=pool.port_last).map(move |p| (lip, p)));
        all.map(|(lip, lport)| (protocol, lip, lport, rport))
            .filter(|held| !self.held.contains(held))
            .filter(|&(protocol, dst, dport, sport)| {
                self.steering.home(&Tuple { src: rip(), dst, sport, dport, protocol }).index() == worker
            })
            .collect()
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Lease { worker, rport, udp } => self.lease(worker % self.workers.len(), rport, udp),
            Step::Release { which } if !self.sessions.is_empty() => {
                let (worker, lease, held) = self.sessions.swap_remove(which % self.sessions.len());
                self.workers[worker].release(lease.slot, lease.lport);
                self.held.remove(&held);
            }
            Step::Rest { which, ticks } if !self.sessions.is_empty() => {
                let (worker, lease, held) = self.sessions.swap_remove(which % self.sessions.len());
                let until = self.now.plus(ticks);
                self.workers[worker].rest(lease.slot, lease.lport, until);
                self.resting[worker].push_back((until, held));
            }
            Step::Release { .. } | Step::Rest { .. } => {}
            Step::Advance { ticks } => self.advance(ticks),
            Step::Apply { configuration: n } => {
                self.configuration = configuration(n);
                self.workers.iter_mut().for_each(|pools| give(pools, &self.configuration));
            }
        }
    }

    fn lease(&mut self, worker: usize, rport: u16, udp: bool) {
        let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
        let Some(pool) =
            self.configuration.get(usize::from(rport) % self.configuration.len().max(1)).cloned()
        else {
            return;
        };
        let leased = self.workers[worker].lease(&pool, protocol, &rip(), rport);
        self.note_woken(worker);
        let free = self.free(worker, &pool, protocol, rport);
        match leased {
            Ok(lease) => {
                let held = (protocol, lease.lip, lease.lport, rport);
                assert!(free.contains(&held), "{held:?} is held, foreign or outside the pool");
                self.held.insert(held);
                self.sessions.push((worker, lease, held));
            }
            Err(LeaseError::Exhausted) => assert_eq!(free, HashSet::new(), "refused with free ports"),
            Err(error) => assert!(self.tight && error == LeaseError::BooksFull, "{error:?}"),
        }
    }

    /// Where books are few, ports that rest longest give way.
    fn note_woken(&mut self, worker: usize) {
        let resting: u32 = self.workers[worker].lips().map(|lip| lip.resting).sum();
        while self.resting[worker].len() > resting as usize {
            assert!(self.tight);
            let (_, held) = self.resting[worker].pop_front().unwrap();
            self.held.remove(&held);
        }
    }

    fn advance(&mut self, ticks: u32) {
        self.now = self.now.plus(ticks);
        for (pools, resting) in self.workers.iter_mut().zip(&mut self.resting) {
            let mut due = 0;
            while let Some((_, held)) = resting.pop_front_if(|(until, _)| self.now.reached(*until)) {
                self.held.remove(&held);
                due += 1;
            }
            assert_eq!(pools.advance(self.now, usize::MAX), due);
        }
    }

    /// The counters are those of the model, LIP by LIP.
    fn check_counters(&self) {
        let mut expected: HashMap<Address, i64> = HashMap::new();
        self.sessions.iter().for_each(|(_, lease, _)| *expected.entry(lease.lip).or_default() += 1);
        for lip in self.workers.iter().flat_map(LocalPools::lips) {
            *expected.entry(lip.address).or_default() -= i64::from(lip.leased);
        }
        assert!(expected.values().all(|&difference| difference == 0), "{expected:?}");
        let resting: u32 = self.workers.iter().flat_map(LocalPools::lips).map(|lip| lip.resting).sum();
        assert_eq!(resting as usize, self.resting.iter().map(VecDeque::len).sum::<usize>());
    }
}

proptest! {
    #[test]
    fn conformance_h1_a_lease_is_held_once(
        workers in 1..=4usize,
        books_max in prop_oneof![Just(64usize), 2..12usize],
        steps in proptest::collection::vec(step(), 1..600),
    ) {
        let mut world = World::new(workers, books_max);
        for step in &steps {
            world.take(step);
        }
        world.check_counters();
        // everything given back, everything can be leased again
        while !world.sessions.is_empty() {
            world.take(&Step::Release { which: 0 });
        }
        world.advance(1000);
        world.advance(0);
        prop_assert!(world.held.is_empty());
        world.check_counters();
        world.take(&Step::Apply { configuration: 0 });
        for worker in 0..workers {
            let free = world.free(worker, &configuration(0)[0], Protocol::Tcp, 1).len();
            for _ in 0..=free {
                world.lease(worker, 1, false);
            }
        }
        if !world.tight {
            prop_assert_eq!(world.held.len(), 48);
        }
    }
}
