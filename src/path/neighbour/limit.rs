//! How many ARP and ND messages a worker acts on per second (as in RFC 6192 §3): what a flood may cost is fixed.
//!
//! Questions for our addresses have a budget that no other message can use up, and of it no sender gets more than a
//! quarter, so that one loud host does not silence the others.

use super::super::limiter::{Bucket, Rate};
use crate::clock::Now;

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

#[cfg(test)]
mod tests {
    use super::*;

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
