//! `rr`: one real server after the other (`ip_vs_rr.c`).

use super::{Candidate, SchedulerState};
use crate::id::RealServerId;

/// The real servers that have weight, in the order of the configuration.
#[derive(Clone, Debug)]
pub(super) struct RoundRobin(Box<[RealServerId]>);

impl RoundRobin {
    pub(super) fn new(candidates: &[Candidate]) -> Self {
        RoundRobin(candidates.iter().filter(|candidate| candidate.weight > 0).map(|c| c.id).collect())
    }

    #[inline]
    pub(super) fn pick(&self, state: &mut SchedulerState) -> Option<RealServerId> {
        if self.0.is_empty() {
            return None;
        }
        let index = state.cursor(self.0.len());
        state.move_behind(index, self.0.len());
        Some(self.0[index])
    }
}
