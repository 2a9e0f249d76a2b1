//! Time as the packet path sees it: read once per burst and passed down.

use zerocopy::{FromZeros, Immutable, IntoBytes};

/// Coarse monotonic time in units of 10 ms since start; wraps after 497 days, compared only by [`Tick::since`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromZeros, Immutable, IntoBytes)]
#[repr(transparent)]
pub struct Tick(pub u32);

impl Tick {
    /// Ticks in one second.
    pub const PER_SECOND: u32 = 100;

    /// Ticks from `earlier` to `self`; 0 if `earlier` lies in the future.
    #[inline(always)]
    pub const fn since(self, earlier: Tick) -> u32 {
        let ticks = self.0.wrapping_sub(earlier.0);
        if ticks > u32::MAX / 2 { 0 } else { ticks }
    }

    /// This time plus `ticks`.
    #[inline(always)]
    pub const fn plus(self, ticks: u32) -> Tick {
        Tick(self.0.wrapping_add(ticks))
    }

    /// Whether `self` is at or after `other`.
    #[inline(always)]
    pub const fn reached(self, other: Tick) -> bool {
        self.0.wrapping_sub(other.0) <= u32::MAX / 2
    }
}

/// The time of one burst.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// nanoseconds since the program started, monotonic
    pub nanos: u64,
}

impl Now {
    /// The coarse time of sessions and timers.
    #[inline(always)]
    pub const fn tick(self) -> Tick {
        Tick((self.nanos / 10_000_000) as u32)
    }

    /// Milliseconds since start, wrapping: the unit of TCP timestamps toward real servers (RFC 7323 §5.4).
    #[inline(always)]
    pub const fn millis(self) -> u32 {
        (self.nanos / 1_000_000) as u32
    }
}
