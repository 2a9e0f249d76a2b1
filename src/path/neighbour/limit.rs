//! How many ARP and ND messages a worker acts on per second (as in RFC 6192 §3): what a flood may cost is fixed.
//!
//! Questions for our addresses have a budget that no other message can use up, and of it no sender gets more than a
//! quarter, so that one loud host does not silence the others.

use crate::clock::Now;

const NANOS_PER_SECOND: u64 = 1_000_000_000;
/// Senders that hash to the same slot share it.
const SENDER_SLOTS: usize = 1024;
const SENDER_SHARE: u32 = 4;

/// The budgets of one worker.
pub(super) struct Limiter {
    questions: Rate,
    others: Rate,
    sender: Rate,
    question_bucket: Bucket,
    other_bucket: Bucket,
    sender_buckets: Box<[Bucket]>,
    hasher: ahash::RandomState,
}

impl Limiter {
    /// `per_second` questions and as many other messages.
    pub(super) fn new(per_second: u32, hasher: ahash::RandomState) -> Self {
        Limiter {
            questions: Rate::per_second(per_second),
            others: Rate::per_second(per_second),
            sender: Rate::per_second(per_second / SENDER_SHARE),
            question_bucket: Bucket::default(),
            other_bucket: Bucket::default(),
            sender_buckets: vec![Bucket::default(); SENDER_SLOTS].into_boxed_slice(),
            hasher,
        }
    }

    /// Whether a question for an address of ours may be answered.
    pub(super) fn admits_question(&mut self, sender_mac: [u8; 6], now: Now) -> bool {
        let slot = self.hasher.hash_one(sender_mac) as usize % SENDER_SLOTS;
        self.sender_buckets[slot].admits(self.sender, now) && self.question_bucket.admits(self.questions, now)
    }

    /// Whether any other message may be acted on.
    pub(super) fn admits_other(&mut self, now: Now) -> bool {
        self.other_bucket.admits(self.others, now)
    }
}

/// A rate with a burst of one second's worth.
#[derive(Clone, Copy)]
struct Rate {
    nanos_between: u64,
}

impl Rate {
    /// At least one per second.
    fn per_second(count: u32) -> Self {
        Rate { nanos_between: NANOS_PER_SECOND / u64::from(count.max(1)) }
    }
}

/// A token bucket kept as the time when it will be full (the generic cell rate algorithm, ITU-T I.371): eight bytes and
/// no refilling.
#[derive(Clone, Copy, Default)]
struct Bucket {
    full_at_nanos: u64,
}

impl Bucket {
    fn admits(&mut self, rate: Rate, now: Now) -> bool {
        let full_at = self.full_at_nanos.max(now.nanos) + rate.nanos_between;
        let admitted = full_at - now.nanos <= NANOS_PER_SECOND;
        if admitted {
            self.full_at_nanos = full_at;
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_admits_a_burst_and_then_the_rate() {
        let mut bucket = Bucket::default();
        let rate = Rate::per_second(100);
        let mut admitted = |nanos| (0..1000).filter(|_| bucket.admits(rate, Now { nanos })).count();
        assert_eq!(admitted(0), 100);
        assert_eq!(admitted(10_000_000), 1);
        assert_eq!(admitted(510_000_000), 50);
        assert_eq!(admitted(100 * NANOS_PER_SECOND), 100);
    }

    #[test]
    fn one_loud_sender_leaves_room_for_another() {
        let mut limiter = Limiter::new(1000, ahash::RandomState::with_seed(1));
        let loud =
            (0..100_000).filter(|_| limiter.admits_question([2, 0, 0, 0, 0, 1], Now::default())).count();
        assert_eq!(loud, 250);
        // another slot, whatever the key of the hash
        let quiet = (2..200).filter(|&n| limiter.admits_question([2, 0, 0, 0, 0, n], Now::default())).count();
        assert!(quiet > 180, "{quiet}");
        assert!(limiter.admits_other(Now::default()));
    }
}
