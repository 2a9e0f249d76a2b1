//! `workers`: one worker against two that share nothing but their rings, with packets steered to their home by the
//! device and without.
//!
//! Each worker is a thread with an engine of its own on a core of its own. Steered, it receives packets of its own
//! sessions; unsteered, of everybody's, and hands over what is not its. Rates are packets per cycle of the phases that
//! a worker has (process, take, tick); laying frames ready is not counted. A sample is what all workers had within a
//! hundredth of a second, and how fast the slowest of their cores was then.

use std::collections::BTreeMap;
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
use crate::rounds::{LONGER, Plan, Rounds};
use crate::speed;
use crate::statistics::{Sample, Samples};

const BURSTS: usize = 16;
const BURST_NANOS: u64 = 3_200;
const RING: usize = 4096;
/// Of each number of workers in turn.
const TURNS: u32 = 4;
/// Cycles of one sample, a hundredth of a second or less.
const SPAN: u64 = 20_000_000;

/// How packets find their worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Steered {
    /// the device does it
    ByDevice,
    /// the workers hand over
    ByWorkers,
}

/// Runs the case.
pub fn run(counts: &[u16], sessions: u32, plan: Plan) {
    let cores = allowed_cores();
    let kind = Kind { tcp: false, v6: false };
    for &workers in counts.iter().filter(|&&workers| usize::from(workers) <= cores.len()) {
        for steered in [Steered::ByDevice, Steered::ByWorkers] {
            eprintln!("workers: {workers}, {steered:?} ...");
            let duration = plan.duration / TURNS;
            let (mut rounds, mut handed) = (Rounds::new(plan), 0.0);
            for turn in 0..TURNS * LONGER {
                if turn >= TURNS && rounds.enough() {
                    break;
                }
                let (one, _) = measure(1, sessions, kind, Steered::ByDevice, duration, &cores);
                let (all, share) = measure(workers, sessions, kind, steered, duration, &cores);
                all.into_iter().zip(one).for_each(|(all, one)| rounds.push(all, one));
                handed = share;
            }
            let steering = if steered == Steered::ByDevice { "device" } else { "workers" };
            let params = json!({"workers": workers, "steered_by": steering, "sessions": sessions});
            let more = json!({ "hand_off_share": handed });
            let verdict = rounds.judge(Samples::ratio_to);
            verdict.report("workers", params, "packets/1000 cycles", "one worker", more);
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

/// Packets per thousand cycles of all workers together, span by span, and the share that was handed over.
fn measure(
    workers: u16,
    sessions: u32,
    kind: Kind,
    steered: Steered,
    duration: Duration,
    cores: &[usize],
) -> (Vec<Sample>, f64) {
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
        let (batches, shares): (Vec<Vec<Batch>>, Vec<f64>) =
            threads.into_iter().map(|t| t.join().expect("a worker's thread")).unzip();
        (together(&batches), shares.iter().sum::<f64>() / shares.len() as f64)
    })
}

/// What one worker did under one reading of the clock.
#[derive(Clone, Copy, Debug)]
struct Batch {
    /// when it was done
    at: u64,
    /// packets per thousand cycles, and how fast the core was before
    sample: Sample,
}

/// Of every span that all workers were in: their rates together, the speed of the slowest core.
fn together(workers: &[Vec<Batch>]) -> Vec<Sample> {
    let began = workers.iter().filter_map(|batches| batches.first()).map(|batch| batch.at).min().unwrap_or(0);
    let spans: Vec<BTreeMap<u64, Sample>> = workers.iter().map(|batches| spans(batches, began)).collect();
    let Some((first, others)) = spans.split_first() else { return Vec::new() };
    first
        .iter()
        .filter_map(|(at, &sample)| {
            others.iter().try_fold(sample, |all, spans| {
                let one = spans.get(at)?;
                Some(Sample { value: all.value + one.value, speed: all.speed.min(one.speed) })
            })
        })
        .collect()
}

/// Medians of one worker's batches, span by span.
fn spans(batches: &[Batch], began: u64) -> BTreeMap<u64, Sample> {
    let number = |batch: &Batch| batch.at.wrapping_sub(began) / SPAN;
    let median =
        |batches: &[Batch], of: fn(&Batch) -> f64| Samples(batches.iter().map(of).collect()).median();
    batches
        .chunk_by(|a, b| number(a) == number(b))
        .map(|batches| {
            let value = median(batches, |batch| batch.sample.value);
            let speed = median(batches, |batch| batch.sample.speed);
            (number(&batches[0]), Sample { value, speed })
        })
        .collect()
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
    /// What was done, and the share handed over.
    fn run(mut self, stop: &AtomicBool) -> (Vec<Batch>, f64) {
        let mut done = Vec::new();
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
            let speed = speed::now();
            let began = cpu::tsc();
            for (port, burst) in &mut bursts {
                self.now.nanos += BURST_NANOS;
                self.engine.process(&mut self.world, self.now, *port, burst);
                self.take_inbox();
                self.engine.tick(&mut self.world, self.now);
            }
            let at = cpu::tsc();
            cycles += at.wrapping_sub(began);
            let value = self.world.recycle() as f64 * 1000.0 / cycles as f64;
            done.push(Batch { at, sample: Sample { value, speed } });
        }
        let counters = self.engine.counters();
        let share = (counters.handed - handed) as f64 / (counters.received - received).max(1) as f64;
        (done, share)
    }

    #[inline]
    fn take_inbox(&mut self) {
        self.engine.take(&mut self.world, self.now, std::iter::from_fn(|| self.inbox.pop()));
    }

    fn others_are_behind(&self) -> bool {
        let own = &self.inbox;
        self.world.inboxes.iter().any(|inbox| !Arc::ptr_eq(inbox, own) && inbox.len() > RING / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batches(speed: f64, value: f64, spans: &[u64]) -> Vec<Batch> {
        let at = spans.iter().flat_map(|span| (1..=3).map(move |n| 1000 + span * SPAN + n));
        at.map(|at| Batch { at, sample: Sample { value, speed } }).collect()
    }

    #[test]
    fn a_span_is_as_fast_as_the_slowest_core_of_all_that_poll() {
        let first = batches(2.4, 10.0, &[0, 1, 2, 3]);
        let second = [batches(2.4, 9.0, &[0]), batches(1.3, 4.0, &[1]), batches(2.3, 9.0, &[3])].concat();
        let found: Vec<(f64, f64)> =
            together(&[first, second]).iter().map(|span| (span.value, span.speed)).collect();
        assert_eq!(found, [(19.0, 2.4), (14.0, 1.3), (19.0, 2.3)], "the second was not there in span 2");
    }

    #[test]
    fn one_disturbed_batch_is_no_disturbed_span() {
        let mut one = batches(2.4, 10.0, &[0, 1]);
        one[1].sample = Sample { value: 1.0, speed: 0.2 };
        let found: Vec<(f64, f64)> = together(&[one]).iter().map(|span| (span.value, span.speed)).collect();
        assert_eq!(found, [(10.0, 2.4), (10.0, 2.4)]);
    }
}
