//! `wlc`: the real server with the fewest sessions per weight (`ip_vs_wlc.c`); equals take turns, as in `lc`.

use super::{Candidate, Connections, SchedulerState};
use crate::id::RealServerId;

/// The real servers that have weight, and their weights.
#[derive(Clone, Debug)]
pub(super) struct WeightedLeastConnection(Box<[(RealServerId, u64)]>);

impl WeightedLeastConnection {
    pub(super) fn new(candidates: &[Candidate]) -> Self {
        let servers = candidates.iter().filter(|candidate| candidate.weight > 0);
        WeightedLeastConnection(servers.map(|server| (server.id, u64::from(server.weight))).collect())
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
        let least = order
            .map(|index| {
                let (id, weight) = self.0[index];
                (index, connections(id).overhead(), weight)
            })
            // a / b < c / d is a * d < c * b: at most 2^41 * 2^16. The first of equals stays.
            .reduce(|least, next| if next.1 * least.2 < least.1 * next.2 { next } else { least });
        let (index, ..) = least?;
        state.move_behind(index, self.0.len());
        Some(self.0[index].0)
    }
}
