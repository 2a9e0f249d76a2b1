//! What a worker does when no packet comes.

use std::time::Duration;

/// Empty turns before the worker first gives up its core.
const PATIENCE_TURNS: u32 = 64;
/// Turns of yielding before it sleeps.
const YIELD_TURNS: u32 = 256;
/// The first sleep; it doubles up to the last.
const SLEEP_FIRST: Duration = Duration::from_micros(20);
/// The longest sleep. The receive rings of every supported device hold far more than arrives in it: a ring of 4,096
/// frames fills in 250 µs only above 16 million packets per second, and under load no turn is empty.
const SLEEP_LAST: Duration = Duration::from_micros(250);

/// How a worker waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IdlePolicy {
    /// never: the core is the worker's alone
    Poll,
    /// yields, then sleeps for longer and longer, so that others may use the core
    Adaptive,
}

/// A worker's patience.
#[derive(Debug)]
pub struct Idle {
    policy: IdlePolicy,
    empty_turns: u32,
}

impl Idle {
    /// Full of hope.
    pub fn new(policy: IdlePolicy) -> Self {
        Idle { policy, empty_turns: 0 }
    }

    /// Called after each turn of the loop.
    #[inline(always)]
    pub fn after_turn(&mut self, worked: bool) {
        if worked {
            self.empty_turns = 0;
        } else if self.policy == IdlePolicy::Adaptive {
            self.wait();
        }
    }

    #[cold]
    fn wait(&mut self) {
        self.empty_turns = self.empty_turns.saturating_add(1);
        match self.empty_turns {
            0..PATIENCE_TURNS => std::hint::spin_loop(),
            PATIENCE_TURNS..YIELD_TURNS => std::thread::yield_now(),
            turns => {
                let doublings = ((turns - YIELD_TURNS) / 16).min(8);
                std::thread::sleep((SLEEP_FIRST * (1 << doublings)).min(SLEEP_LAST));
            }
        }
    }
}
