//! Where the cycles of a turn go: a stop-watch that runs in one working turn of many.
//!
//! In the other turns a border between two phases costs one branch that is never taken, nine of them in a burst of 32
//! packets. There is one code for both: a copy that is timed would be colder than the one it stands for.

use crate::cpu;
use crate::path::phase::{Observer, Phase};

/// One working turn of so many is timed. A prime, so that no rhythm of the traffic hides behind it.
pub const TIMED_EVERY: u32 = 127;

/// A turn that took longer was interrupted, by the kernel or by whoever lends the machine: what it measured is not the
/// path. Fifty times what the dearest turn takes, 64 first packets and everything that one turn does beside them.
const INTERRUPTED_CYCLES: u64 = 1 << 22;

macro_rules! phases {
    ($($variant:ident $name:literal $sentence:literal)*) => {
        /// What a turn of the loop consists of.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum TurnPhase { $(#[doc = $sentence] $variant),* }

        impl TurnPhase {
            /// Every phase, in the order in which a packet meets them.
            pub const ALL: &'static [TurnPhase] = &[$(TurnPhase::$variant),*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();
            /// The name in metrics and the control socket.
            pub const fn name(self) -> &'static str { match self { $(TurnPhase::$variant => $name),* } }
            /// One sentence for people.
            pub const fn sentence(self) -> &'static str { match self { $(TurnPhase::$variant => $sentence),* } }
        }
    };
}

phases! {
    Rx "rx" "Receive queues polled, empty ones included."
    Classify "classify" "Headers checked, keys hashed, buckets asked for; what is no flow answered or dropped."
    Probe "probe" "Tags compared, sessions asked for."
    Steer "steer" "Packets without a session here whose home is another worker handed over to it."
    Forward "forward" "Keys compared, state, rewrite; new sessions made."
    HandIn "hand_in" "What other workers handed over taken and forwarded."
    Tx "tx" "Packets given to the devices."
    Housekeeping "housekeeping" "Sessions expired, neighbours asked, control answered, counters published."
}

impl From<Phase> for TurnPhase {
    #[inline(always)]
    fn from(phase: Phase) -> TurnPhase {
        match phase {
            Phase::Classify => TurnPhase::Classify,
            Phase::Probe => TurnPhase::Probe,
            Phase::Steer => TurnPhase::Steer,
            Phase::Forward => TurnPhase::Forward,
        }
    }
}

/// Reads the cycle counter at the borders of phases while it runs.
#[derive(Debug, Default)]
pub(super) struct StopWatch {
    runs: bool,
    last: u64,
    cycles: [u64; TurnPhase::COUNT],
}

impl StopWatch {
    /// Begins with the first phase of a turn.
    #[cold]
    pub fn start(&mut self) {
        *self = StopWatch { runs: true, last: cpu::tsc(), cycles: [0; TurnPhase::COUNT] };
    }

    /// Stops; the cycles of each phase, unless the turn was interrupted.
    #[cold]
    pub fn stop(&mut self) -> Option<[u64; TurnPhase::COUNT]> {
        self.runs = false;
        Some(self.cycles).filter(|cycles| cycles.iter().sum::<u64>() < INTERRUPTED_CYCLES)
    }

    /// `phase` is over. What of it was spent on sending, which happens whenever a port's buffer is full, counts as
    /// sending.
    #[inline(always)]
    pub fn lap(&mut self, phase: TurnPhase, sending: &mut SendingTime) {
        if self.runs {
            self.note(phase);
            self.move_to_tx(phase, sending.take());
        }
    }

    #[cold]
    #[inline(never)]
    fn note(&mut self, phase: TurnPhase) {
        let now = cpu::tsc();
        self.cycles[phase as usize] += now.wrapping_sub(self.last);
        self.last = now;
    }

    #[cold]
    #[inline(never)]
    fn move_to_tx(&mut self, phase: TurnPhase, cycles: u64) {
        let of_phase = &mut self.cycles[phase as usize];
        let moved = cycles.min(*of_phase);
        *of_phase -= moved;
        self.cycles[TurnPhase::Tx as usize] += moved;
    }
}

impl Observer for StopWatch {
    #[inline(always)]
    fn ended(&mut self, phase: Phase) {
        if self.runs {
            self.note(phase.into());
        }
    }
}

/// Cycles spent on sending since this was last asked, measured where it happens while the stop-watch runs.
#[derive(Debug, Default)]
pub(super) struct SendingTime {
    /// Whether somebody wants to know.
    pub watched: bool,
    cycles: u64,
}

impl SendingTime {
    /// Adds what `send` takes.
    #[cold]
    pub fn add(&mut self, began: u64) {
        self.cycles += cpu::tsc().wrapping_sub(began);
    }

    fn take(&mut self) -> u64 {
        std::mem::take(&mut self.cycles)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cycle_belongs_to_one_phase() {
        let (mut watch, mut sending) = (StopWatch::default(), SendingTime::default());
        watch.ended(Phase::Probe);
        watch.lap(TurnPhase::Rx, &mut sending);
        assert_eq!(watch.cycles, [0; TurnPhase::COUNT], "it does not run");

        watch.start();
        let began = watch.last;
        watch.lap(TurnPhase::Rx, &mut sending);
        for phase in Phase::ALL {
            watch.ended(phase);
        }
        sending.add(began);
        watch.lap(TurnPhase::Forward, &mut sending);
        watch.lap(TurnPhase::Housekeeping, &mut sending);
        let ended = watch.last;
        // The test itself may have been interrupted.
        watch.stop();
        let cycles = watch.cycles;
        assert_eq!(cycles.iter().sum::<u64>(), ended - began);
        assert_eq!(cycles[TurnPhase::Forward as usize], 0, "all of it was sending");
        assert!(cycles[TurnPhase::Tx as usize] > 0);
        watch.ended(Phase::Probe);
        assert_eq!(watch.cycles, cycles, "it has stopped");
    }

    #[test]
    fn an_interrupted_turn_tells_nothing() {
        let mut watch = StopWatch::default();
        for (longest, told) in [(INTERRUPTED_CYCLES - 1, true), (INTERRUPTED_CYCLES, false)] {
            watch.start();
            watch.cycles[TurnPhase::Probe as usize] = longest;
            assert_eq!(watch.stop().is_some(), told);
        }
    }

    #[test]
    fn names_are_those_of_the_path() {
        for phase in Phase::ALL {
            assert_eq!(TurnPhase::from(phase).name(), phase.name());
        }
        assert!(TurnPhase::ALL.iter().enumerate().all(|(at, &phase)| phase as usize == at));
    }
}
