//! What a worker does when no packet comes.

use std::time::Duration;

/// Empty turns before the worker first gives up its core. It never yields: since 6.18 Linux takes a whole slice from
/// whoever does (`yield_task_fair`), and after a hundred of them a worker got no CPU for half a second.
const PATIENCE_TURNS: u32 = 256;
/// Sleeps of one length before they double.
const SLEEPS_EACH: u32 = 16;
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
    /// after some patience it sleeps, for longer and longer, so that others may use the core
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
        match self.empty_turns.checked_sub(PATIENCE_TURNS) {
            None => std::hint::spin_loop(),
            Some(sleeps) => {
                let doublings = (sleeps / SLEEPS_EACH).min(8);
                std::thread::sleep((SLEEP_FIRST * (1 << doublings)).min(SLEEP_LAST));
            }
        }
    }
}
