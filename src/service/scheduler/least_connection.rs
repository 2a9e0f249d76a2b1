//! `lc`: the real server with the fewest sessions, an active one counting as 256 others (`ip_vs_lc.c`).
//!
//! Unlike the kernel, which takes the first of equals and so sends the first session of every worker to the same
//! real server, equals take turns.

use super::{Candidate, Connections, SchedulerState};
use crate::id::RealServerId;

/// The real servers that have weight.
#[derive(Clone, Debug)]
pub(super) struct LeastConnection(Box<[RealServerId]>);

impl LeastConnection {
    pub(super) fn new(candidates: &[Candidate]) -> Self {
        LeastConnection(candidates.iter().filter(|candidate| candidate.weight > 0).map(|c| c.id).collect())
    }

    #[inline]
    pub(super) fn pick(
        &self,
        state: &mut SchedulerState,
        connections: &impl Fn(RealServerId) -> Connections,
    ) -> Option<RealServerId> {
        if self.0.is_empty() {
            return None;
        }
        let start = state.cursor(self.0.len());
        let order = (start..self.0.len()).chain(0..start);
        // min_by_key takes the first of equals: the next in turn.
        let index = order.min_by_key(|&index| connections(self.0[index]).overhead())?;
        state.move_behind(index, self.0.len());
        Some(self.0[index])
    }
}
