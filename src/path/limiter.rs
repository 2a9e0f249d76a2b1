//! A token bucket in whole ticks: how often the gateway speaks unasked.

use crate::clock::Tick;

/// At most `per_second` per second, with bursts of a tenth of that.
#[derive(Clone, Debug)]
pub struct Limiter {
    per_second: u32,
    /// tokens times [`Tick::PER_SECOND`]
    tokens: u32,
    refilled: Tick,
}

impl Limiter {
    /// A full bucket.
    pub fn new(per_second: u32, now: Tick) -> Self {
        Limiter { per_second, tokens: Self::depth(per_second), refilled: now }
    }

    fn depth(per_second: u32) -> u32 {
        (per_second / 10).max(1).saturating_mul(Tick::PER_SECOND)
    }

    /// Takes one token if there is one.
    pub fn admit(&mut self, now: Tick) -> bool {
        let elapsed = now.since(self.refilled).min(Tick::PER_SECOND);
        if elapsed > 0 {
            let refill = elapsed.saturating_mul(self.per_second);
            self.tokens = self.tokens.saturating_add(refill).min(Self::depth(self.per_second));
            self.refilled = now;
        }
        match self.tokens.checked_sub(Tick::PER_SECOND) {
            Some(rest) => {
                self.tokens = rest;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_holds_and_a_pause_buys_no_more_than_the_depth() {
        let mut limiter = Limiter::new(100, Tick(0));
        let first = (0..1000).filter(|_| limiter.admit(Tick(0))).count();
        assert_eq!(first, 10);
        let one_second = (1..=100).map(Tick).filter(|now| limiter.admit(*now)).count();
        assert_eq!(one_second, 100);
        let after_a_day = (0..1000).filter(|_| limiter.admit(Tick(8_640_000))).count();
        assert_eq!(after_a_day, 10);
    }
}
