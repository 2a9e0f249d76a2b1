//! How long a cycle of the time-stamp counter takes, for those who think in seconds.

use std::time::{Duration, Instant};

use fullnat::cpu;

/// Cycles per second, measured over a twentieth of a second.
pub fn cycles_per_second() -> f64 {
    let (instant, cycles) = (Instant::now(), cpu::tsc());
    while instant.elapsed() < Duration::from_millis(50) {
        std::hint::spin_loop();
    }
    cpu::tsc().wrapping_sub(cycles) as f64 / instant.elapsed().as_secs_f64()
}
