//! The phases of a burst, and a stop-watch at their borders that is not there where nobody looks.
//!
//! [`super::Engine::process`] runs with `()`, whose calls are empty and leave no instruction;
//! [`super::Engine::process_observed`] takes a real one. Both are the same code.

/// What a burst goes through, in this order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Phase {
    /// headers checked, keys hashed, buckets asked for
    Classify,
    /// tags compared, sessions asked for
    Probe,
    /// packets without a session here whose home is another worker handed over to it; nothing with one worker
    Steer,
    /// keys compared, state, rewrite, transmit
    Forward,
}

impl Phase {
    /// Every phase, in order.
    pub const ALL: [Phase; 4] = [Phase::Classify, Phase::Probe, Phase::Steer, Phase::Forward];

    /// As it is called in results.
    pub const fn name(self) -> &'static str {
        match self {
            Phase::Classify => "classify",
            Phase::Probe => "probe",
            Phase::Steer => "steer",
            Phase::Forward => "forward",
        }
    }
}

/// Somebody who wants to know when a phase of a burst has ended.
pub trait Observer {
    /// `phase` is over for the whole burst.
    fn ended(&mut self, phase: Phase);
}

impl Observer for () {
    #[inline(always)]
    fn ended(&mut self, _: Phase) {}
}
