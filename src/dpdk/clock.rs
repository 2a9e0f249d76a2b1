//! Time for the packet path: the CPU's counter, scaled to nanoseconds with one multiplication.
//!
//! Calibrated once against the kernel's clock. DPDK's own figure is rounded to 10 MHz where the CPU does not tell it,
//! half a percent of every time-out.

use std::time::Duration;

use nix::time::ClockId;

use crate::clock::Now;
use crate::cpu;

/// How long calibration takes.
const CALIBRATION: Duration = Duration::from_millis(20);

/// A clock that every worker may copy; all copies agree.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: u64,
    /// nanoseconds since the machine started, at `start`
    origin: u64,
    /// nanoseconds per cycle, as a fixed-point number with 32 binary places
    scale: u64,
}

impl Clock {
    /// Starts a clock at the time since the machine started, so that a restarted gateway's sequence numbers toward real
    /// servers go on where the last one's stood (RFC 6528). Takes 20 milliseconds.
    pub fn calibrate() -> Clock {
        let (first, began) = pair();
        std::thread::sleep(CALIBRATION);
        let (start, origin) = pair();
        let nanos = u128::from(origin.saturating_sub(began));
        let cycles = u128::from(start.wrapping_sub(first).max(1));
        Clock { start, origin, scale: ((nanos << 32) / cycles) as u64 }
    }

    /// The time now.
    #[inline(always)]
    pub fn now(&self) -> Now {
        self.at(cpu::tsc())
    }

    /// The time at which the CPU's counter was read.
    #[inline(always)]
    pub fn at(&self, tsc: u64) -> Now {
        let cycles = tsc.wrapping_sub(self.start);
        Now { nanos: self.origin + ((u128::from(cycles) * u128::from(self.scale)) >> 32) as u64 }
    }

    /// Cycles of the counter in one second.
    pub fn hertz(&self) -> u64 {
        ((1_000_000_000u128 << 32) / u128::from(self.scale.max(1))) as u64
    }
}

/// `CLOCK_BOOTTIME`; 0 where the kernel has none.
fn nanos_since_boot() -> u64 {
    let boot_time = ClockId::CLOCK_BOOTTIME.now().map(Duration::from);
    boot_time.map_or(0, |time| time.as_nanos() as u64)
}

/// The counter and the nanoseconds since boot at the same moment: the tightest of several tries, so that an interruption
/// between the two reads does not count.
fn pair() -> (u64, u64) {
    (0..8)
        .map(|_| {
            let before = cpu::tsc();
            let nanos = nanos_since_boot();
            let width = cpu::tsc().wrapping_sub(before);
            (width, before.wrapping_add(width / 2), nanos)
        })
        .min_by_key(|&(width, ..)| width)
        .map(|(_, cycles, nanos)| (cycles, nanos))
        .expect("eight tries were made")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_of_two_gigahertz_is_half_a_nanosecond_per_cycle() {
        let clock = Clock { start: 0, origin: 0, scale: 1 << 31 };
        assert_eq!(clock.hertz(), 2_000_000_000);
    }

    #[test]
    fn time_does_not_run_backwards_and_goes_on_over_a_restart() {
        let clock = Clock::calibrate();
        let (first, second) = (clock.now(), clock.now());
        assert!(first.nanos <= second.nanos);
        assert!(Clock::calibrate().now().nanos > second.nanos);
        assert!(clock.hertz() > 1_000_000);
    }
}
