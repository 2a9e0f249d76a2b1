//! How fast a core works right now: what a neighbour on its other hardware thread, or the host, leaves of it.

use std::hint::black_box;

use fullnat::cpu;
use serde_json::json;

use crate::statistics::Samples;

/// Rounds of the loop in one sample: a fraction of a millisecond.
const ROUNDS: u32 = 200_000;
/// Steps of one round that do not wait for each other.
const LANES: usize = 8;
const SAMPLES: usize = 9;

/// Simple steps that the core makes in a cycle of the time-stamp counter. Other than the time of packets this depends on
/// nothing but the core: no memory, no branch that could be guessed wrong.
pub fn steps_per_cycle() -> f64 {
    Samples((0..SAMPLES).map(|_| sample()).collect()).median()
}

/// Prints it.
pub fn run() {
    println!("{}", json!({ "steps_per_cycle": steps_per_cycle() }));
}

fn sample() -> f64 {
    let began = cpu::tsc();
    black_box(steps(black_box([1; LANES])));
    let cycles = cpu::tsc().wrapping_sub(began);
    f64::from(ROUNDS) * LANES as f64 / cycles as f64
}

/// A rotation and an exclusive or in each lane, by a distance of its own, so that none is left out or joined with another.
#[inline(never)]
fn steps(mut lanes: [u64; LANES]) -> [u64; LANES] {
    for round in 0..u64::from(ROUNDS) {
        for (distance, lane) in lanes.iter_mut().enumerate() {
            *lane = lane.rotate_left(2 * distance as u32 + 1) ^ round;
        }
    }
    lanes
}
