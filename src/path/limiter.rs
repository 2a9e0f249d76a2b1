//! How often the gateway speaks or acts unasked: token buckets.

use crate::clock::Now;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// So many per second, and a burst.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    nanos_between: u64,
    burst_nanos: u64,
}

impl Rate {
    /// At least one per second, with a burst of one second's worth.
    pub(super) fn per_second(count: u32) -> Self {
        Rate { nanos_between: NANOS_PER_SECOND / u64::from(count.max(1)), burst_nanos: NANOS_PER_SECOND }
    }

    /// The same with a burst of one `parts`-th of a second's worth, and of one at least.
    pub(super) fn in_bursts_of(self, parts: u64) -> Self {
        Rate { burst_nanos: (NANOS_PER_SECOND / parts).max(self.nanos_between), ..self }
    }
}

/// A token bucket kept as the time when it will be full (the generic cell rate algorithm, ITU-T I.371): eight bytes and
/// no refilling, and its rate may be another each time.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Bucket {
    full_at_nanos: u64,
}

impl Bucket {
    /// Takes one token if there is one.
    pub(super) fn admits(&mut self, rate: Rate, now: Now) -> bool {
        // An empty bucket owes a burst, also one that was emptied at a slower rate.
        let owed = self.full_at_nanos.saturating_sub(now.nanos).min(rate.burst_nanos);
        let admitted = owed + rate.nanos_between <= rate.burst_nanos;
        self.full_at_nanos = now.nanos + owed + if admitted { rate.nanos_between } else { 0 };
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(bucket: &mut Bucket, rate: Rate, nanos: u64) -> usize {
        (0..1000).filter(|_| bucket.admits(rate, Now { nanos })).count()
    }

    #[test]
    fn a_second_admits_a_burst_and_then_the_rate() {
        let (mut bucket, rate) = (Bucket::default(), Rate::per_second(100));
        assert_eq!(admitted(&mut bucket, rate, 0), 100);
        assert_eq!(admitted(&mut bucket, rate, 10_000_000), 1);
        assert_eq!(admitted(&mut bucket, rate, 510_000_000), 50);
        assert_eq!(admitted(&mut bucket, rate, 100 * NANOS_PER_SECOND), 100);
    }

    #[test]
    fn a_short_burst_keeps_the_rate_and_is_one_at_least() {
        let (mut bucket, rate) = (Bucket::default(), Rate::per_second(100).in_bursts_of(10));
        assert_eq!(admitted(&mut bucket, rate, 0), 10);
        let second = (1..=100).map(|tick| admitted(&mut bucket, rate, tick * 10_000_000)).sum::<usize>();
        assert_eq!(second, 100);
        assert_eq!(admitted(&mut bucket, rate, 86_400 * NANOS_PER_SECOND), 10, "a pause buys no more");
        assert_eq!(admitted(&mut Bucket::default(), Rate::per_second(2).in_bursts_of(10), 0), 1);
    }

    #[test]
    fn another_rate_holds_at_once() {
        let mut bucket = Bucket::default();
        let slow = Rate::per_second(1).in_bursts_of(10);
        assert_eq!(admitted(&mut bucket, slow, 0), 1);
        let fast = Rate::per_second(1000).in_bursts_of(10);
        assert_eq!(admitted(&mut bucket, fast, 50_000_000), 0, "it was empty");
        assert_eq!(admitted(&mut bucket, fast, 100_000_000), 50);
        assert_eq!(admitted(&mut bucket, slow, 160_000_000), 0);
    }
}
