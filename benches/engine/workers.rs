//! `workers`: one worker against two that share nothing but their rings, with packets steered to their home by the
//! device and without.
//!
//! Each worker is a thread with an engine of its own on a core of its own. Steered, it receives packets of its own
//! sessions; unsteered, of everybody's, and hands over what is not its. Rates are packets per cycle of the phases that
//! a worker has (process, take, tick); laying frames ready is not counted.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use serde_json::json;

use fullnat::clock::Now;
use fullnat::cpu;
use fullnat::id::WorkerId;
use fullnat::path::Engine;
use fullnat::service::snapshot::Snapshot;

use crate::buffer::{Frame, Inbox, World};
use crate::frame::Kind;
use crate::lab::{self, LAN, LabConfig, WAN};
use crate::population::{Burst, Draw, Flow, Population};
use crate::statistics::{Samples, report};

const BURSTS: usize = 16;
const BURST_NANOS: u64 = 3_200;
const RING: usize = 4096;

/// How packets find their worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Steered {
    /// the device does it
    ByDevice,
    /// the workers hand over
    ByWorkers,
}

/// Runs the case.
pub fn run(counts: &[u16], sessions: u32, duration: Duration) {
    let cores = allowed_cores();
    let kind = Kind { tcp: false, v6: false };
    let rounds = 4;
    for &workers in counts.iter().filter(|&&workers| usize::from(workers) <= cores.len()) {
        for steered in [Steered::ByDevice, Steered::ByWorkers] {
            eprintln!("workers: {workers}, {steered:?} ...");
            let (mut one, mut all, mut handed) = (Samples::default(), Samples::default(), 0.0);
            for _ in 0..rounds {
                one.push(measure(1, sessions, kind, Steered::ByDevice, duration / rounds, &cores).0);
                let (rate, share) = measure(workers, sessions, kind, steered, duration / rounds, &cores);
                all.push(rate);
                handed = share;
            }
            let steering = if steered == Steered::ByDevice { "device" } else { "workers" };
            let params = json!({"workers": workers, "steered_by": steering, "sessions": sessions});
            let mut runs = all.summary();
            runs["reference"] = one.summary();
            runs["hand_off_share"] = json!(handed);
            let reference = Some(("one worker", one.median(), all.ratio_to(&one)));
            report("workers", params, all.median(), "packets/1000 cycles", reference, runs);
        }
    }
}

fn allowed_cores() -> Vec<usize> {
    let set =
        nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).expect("Linux knows where we may run");
    (0..nix::sched::CpuSet::count()).filter(|&core| set.is_set(core).unwrap_or(false)).collect()
}

struct Seat {
    engine: Engine<Frame>,
    world: World,
    population: Population,
    inbox: Inbox,
    now: Now,
}

/// Packets per thousand cycles of all workers together, and the share that was handed over.
fn measure(
    workers: u16,
    sessions: u32,
    kind: Kind,
    steered: Steered,
    duration: Duration,
    cores: &[usize],
) -> (f64, f64) {
    let lab = LabConfig { workers, huge_pages: false, ..LabConfig::with_room_for(sessions) };
    let snapshot = lab::snapshot(&lab);
    let inboxes: Vec<Inbox> = (0..workers).map(|_| Arc::new(ArrayQueue::new(RING))).collect();
    let mut seats: Vec<Seat> = (0..workers)
        .map(|worker| seat(&lab, &snapshot, WorkerId(worker), kind, sessions, &inboxes))
        .collect();
    if steered == Steered::ByWorkers {
        let flows: Vec<Vec<Flow>> = seats.iter().map(|seat| seat.population.flows().to_vec()).collect();
        for (own, seat) in seats.iter_mut().enumerate() {
            flows
                .iter()
                .enumerate()
                .filter(|(other, _)| *other != own)
                .for_each(|(_, f)| seat.population.extend(f));
        }
    }
    let (stop, barrier) = (AtomicBool::new(false), Barrier::new(usize::from(workers) + 1));
    std::thread::scope(|scope| {
        let threads: Vec<_> = seats
            .into_iter()
            .zip(cores)
            .map(|(seat, &core)| {
                let (stop, barrier) = (&stop, &barrier);
                scope.spawn(move || {
                    crate::pin(core);
                    barrier.wait();
                    seat.run(stop)
                })
            })
            .collect();
        barrier.wait();
        std::thread::sleep(duration);
        stop.store(true, Ordering::Relaxed);
        let done: Vec<(f64, f64)> =
            threads.into_iter().map(|t| t.join().expect("a worker's thread")).collect();
        let rate = done.iter().map(|(rate, _)| rate).sum();
        (rate, done.iter().map(|(_, share)| share).sum::<f64>() / done.len() as f64)
    })
}

fn seat(
    lab: &LabConfig,
    snapshot: &Arc<Snapshot>,
    worker: WorkerId,
    kind: Kind,
    sessions: u32,
    inboxes: &[Inbox],
) -> Seat {
    let now = Now { nanos: 1_000_000_000 };
    let mut world = World::new(4096);
    let mut engine = lab::engine(lab, snapshot.clone(), worker, &mut world, now);
    let mut population = Population::new(kind, sessions);
    let ours = |tuple: &_| snapshot.steering.home(tuple) == worker;
    population.open_where(&mut engine, &mut world, now, sessions / u32::from(lab.workers), ours);
    if lab.workers > 1 {
        world.inboxes = inboxes.to_vec();
    }
    Seat { engine, world, population, inbox: inboxes[worker.index()].clone(), now }
}

impl Seat {
    /// Packets per thousand cycles, and the share handed over.
    fn run(mut self, stop: &AtomicBool) -> (f64, f64) {
        let mut rates = Samples::default();
        let (handed, received) = (self.engine.counters().handed, self.engine.counters().received);
        while !stop.load(Ordering::Relaxed) {
            let mut bursts: Vec<Burst> = (0..BURSTS)
                .map(|n| {
                    self.population.burst(&mut self.world, &Draw::Uniform, if n % 2 == 0 { WAN } else { LAN })
                })
                .collect();
            // A thread that has lost its core for a while shall not make the other drop packets: that would be cheap.
            let mut cycles = 0;
            while self.others_are_behind() && !stop.load(Ordering::Relaxed) {
                let began = cpu::tsc();
                self.take_inbox();
                cycles += cpu::tsc().wrapping_sub(began);
                std::thread::yield_now();
            }
            let began = cpu::tsc();
            for (port, burst) in &mut bursts {
                self.now.nanos += BURST_NANOS;
                self.engine.process(&mut self.world, self.now, *port, burst);
                self.take_inbox();
                self.engine.tick(&mut self.world, self.now);
            }
            cycles += cpu::tsc().wrapping_sub(began);
            rates.push(self.world.recycle() as f64 * 1000.0 / cycles as f64);
        }
        let counters = self.engine.counters();
        let share = (counters.handed - handed) as f64 / (counters.received - received).max(1) as f64;
        (rates.median(), share)
    }

    #[inline]
    fn take_inbox(&mut self) {
        while let Some(item) = self.inbox.pop() {
            self.engine.take(&mut self.world, self.now, item);
        }
    }

    fn others_are_behind(&self) -> bool {
        let own = &self.inbox;
        self.world.inboxes.iter().any(|inbox| !Arc::ptr_eq(inbox, own) && inbox.len() > RING / 2)
    }
}
