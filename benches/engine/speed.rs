//! How fast a core works right now: what a neighbour on its other hardware thread, or the host, leaves of it.

use std::hint::black_box;

use fullnat::cpu;
use serde_json::json;

use crate::statistics::{Sample, Samples};

/// Rounds of the loop in one sample of [`steps_per_cycle`]: a fraction of a millisecond.
const LONG: u32 = 200_000;
/// In one of [`now`]: some microseconds, or reading the clock and leaving the loop would count.
const SHORT: u32 = 4_000;
/// Steps of one round that do not wait for each other.
const LANES: usize = 8;
const SAMPLES: usize = 9;

/// Simple steps that the core makes in a cycle of the time-stamp counter. Other than the time of packets this depends on
/// nothing but the core: no memory, no branch that could be guessed wrong.
pub fn steps_per_cycle() -> f64 {
    Samples((0..SAMPLES).map(|_| sample::<LONG>()).collect()).median()
}

/// Prints it.
pub fn run() {
    println!("{}", json!({ "steps_per_cycle": steps_per_cycle() }));
}

/// The same within microseconds, in registers alone: what the caches hold for the next sample stays there.
pub fn now() -> f64 {
    sample::<SHORT>()
}

/// Some work, and what the core was like around it.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// what the work took
    pub cycles: u64,
    /// the slower of before and after
    pub speed: f64,
}

impl Span {
    /// Does the work.
    #[inline]
    pub fn of(work: impl FnOnce()) -> Span {
        let before = now();
        let began = cpu::tsc();
        work();
        let cycles = cpu::tsc().wrapping_sub(began);
        Span { cycles, speed: before.min(now()) }
    }

    /// Both as one.
    pub fn and(self, other: Span) -> Span {
        Span { cycles: self.cycles + other.cycles, speed: self.speed.min(other.speed) }
    }

    /// Cycles for each of `count` things that were done.
    pub fn per(self, count: usize) -> Sample {
        Sample { value: self.cycles as f64 / count as f64, speed: self.speed }
    }
}

fn sample<const ROUNDS: u32>() -> f64 {
    let began = cpu::tsc();
    black_box(steps::<ROUNDS>(black_box([1; LANES])));
    let cycles = cpu::tsc().wrapping_sub(began);
    f64::from(ROUNDS) * LANES as f64 / cycles as f64
}

/// A rotation and an exclusive or in each lane, by a distance of its own, so that none is left out or joined with another.
#[inline(never)]
fn steps<const ROUNDS: u32>(mut lanes: [u64; LANES]) -> [u64; LANES] {
    for round in 0..u64::from(ROUNDS) {
        for (distance, lane) in lanes.iter_mut().enumerate() {
            *lane = lane.rotate_left(2 * distance as u32 + 1) ^ round;
        }
    }
    lanes
}
