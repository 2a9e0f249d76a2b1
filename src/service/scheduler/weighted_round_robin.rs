//! `wrr`: in proportion to the weights (`ip_vs_wrr.c`).
//!
//! Rounds over the real servers; in each round those take a session whose weight reaches the round's level. The level
//! begins at the greatest weight, falls by the weights' greatest common divisor from round to round, and begins anew.
//! Over one cycle of (sum of weights / divisor) picks every real server is picked exactly (weight / divisor) times.

use super::{Candidate, SchedulerState, gcd_of_weights};
use crate::id::RealServerId;

/// The real servers that have weight, in the order of the configuration, and what the levels are made of.
#[derive(Clone, Debug)]
pub(super) struct WeightedRoundRobin {
    servers: Box<[(RealServerId, u32)]>,
    /// the level of a cycle's first round: only the greatest weight reaches it
    level_max: u32,
    step: u32,
}

impl WeightedRoundRobin {
    pub(super) fn new(candidates: &[Candidate]) -> Self {
        let servers: Box<[_]> = candidates
            .iter()
            .filter(|candidate| candidate.weight > 0)
            .map(|candidate| (candidate.id, u32::from(candidate.weight)))
            .collect();
        let step = gcd_of_weights(candidates);
        let weight_max = servers.iter().map(|(_, weight)| *weight).max().unwrap_or(0);
        // The levels are 1, 1 + step, ... level_max: each is reached by exactly the multiples of step above it.
        WeightedRoundRobin { servers, level_max: (weight_max + 1).saturating_sub(step), step }
    }

    #[inline]
    pub(super) fn pick(&self, state: &mut SchedulerState) -> Option<RealServerId> {
        if self.servers.is_empty() {
            return None;
        }
        let mut index = state.cursor(self.servers.len());
        let mut level = self.level(state);
        // Every level is reached by the greatest weight, so the end of this round and one more are enough.
        for _ in 0..2 {
            while let Some(&(id, weight)) = self.servers.get(index) {
                index += 1;
                if weight >= level {
                    // Behind the last one: stay there, the round's end belongs to the next pick.
                    state.cursor = if index == self.servers.len() { 0 } else { index as u32 };
                    state.level = if index == self.servers.len() { self.level_below(level) } else { level };
                    return Some(id);
                }
            }
            index = 0;
            level = self.level_below(level);
        }
        None
    }

    /// The level of the round that `state` stands in. One from before the weights changed, or none, is brought into
    /// the row of levels.
    #[inline]
    fn level(&self, state: &SchedulerState) -> u32 {
        match state.level {
            0 => self.level_max - self.step * state.share((self.level_max / self.step) as usize + 1) as u32,
            level if level > self.level_max => self.level_max,
            level => (level - 1) / self.step * self.step + 1,
        }
    }

    #[inline]
    fn level_below(&self, level: u32) -> u32 {
        if level > self.step { level - self.step } else { self.level_max }
    }
}
