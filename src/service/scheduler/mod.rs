//! Which real server takes a new session.
//!
//! A scheduler has two halves. [`Scheduler`] is immutable: it stands in the snapshot, is built once when control
//! applies a configuration, and is shared by all workers. [`SchedulerState`] is the little that moves: every worker
//! has its own per service, so that picking never touches another core's memory.
//!
//! | name | file | cost of a pick | picks |
//! |---|---|---|---|
//! | `rr` | `round_robin.rs` | O(1) | one after the other |
//! | `wrr` | `weighted_round_robin.rs` | O(n) worst, O(1) usual | in proportion to the weights |
//! | `lc` | `least_connection.rs` | O(n) | the fewest sessions |
//! | `wlc` | `weighted_least_connection.rs` | O(n) | the fewest sessions per weight |
//! | `sh` | `source_hash.rs` | O(1) | by the client's address |
//! | `mh` | `maglev.rs` | O(1) | by the client's address, and few move when real servers come or go |
//!
//! The rules of the kernel's `net/netfilter/ipvs/ip_vs_*.c` hold except where a file says otherwise. All of them:
//! a real server of weight 0 never takes a new session, and while one has weight, somebody is picked.

mod affinity;
mod least_connection;
mod maglev;
mod round_robin;
mod source_hash;
mod weighted_least_connection;
mod weighted_round_robin;

use super::snapshot::RealServer;
use crate::id::{RealServerId, WorkerId};
use crate::wire::Address;

/// A scheduler's immutable half, made for one service's real servers and their weights.
#[derive(Clone, Debug)]
pub struct Scheduler(Kind);

#[derive(Clone, Debug)]
enum Kind {
    RoundRobin(round_robin::RoundRobin),
    WeightedRoundRobin(weighted_round_robin::WeightedRoundRobin),
    LeastConnection(least_connection::LeastConnection),
    WeightedLeastConnection(weighted_least_connection::WeightedLeastConnection),
    SourceHash(source_hash::SourceHash),
    Maglev(maglev::Maglev),
}

/// The schedulers by the names operators know from `ipvsadm -s`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Algorithm {
    /// `rr`
    RoundRobin,
    /// `wrr`
    WeightedRoundRobin,
    /// `lc`
    LeastConnection,
    /// `wlc`
    WeightedLeastConnection,
    /// `sh`
    SourceHash,
    /// `mh`
    Maglev,
}

impl Algorithm {
    /// The name in the configuration and in `ipvsadm`.
    pub const fn name(self) -> &'static str {
        match self {
            Algorithm::RoundRobin => "rr",
            Algorithm::WeightedRoundRobin => "wrr",
            Algorithm::LeastConnection => "lc",
            Algorithm::WeightedLeastConnection => "wlc",
            Algorithm::SourceHash => "sh",
            Algorithm::Maglev => "mh",
        }
    }
}

/// What `sh` and `mh` take into account.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct HashFlags {
    /// `sh-port`, `mh-port`: the client's port counts too, so that one client uses several real servers
    pub port: bool,
    /// `sh-fallback`, `mh-fallback`: a real server of weight 0 keeps its place in the table and only its clients go
    /// elsewhere; without, the table is made anew as if it were removed
    pub fallback: bool,
}

/// The client that a real server is sought for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ClientKey {
    /// CIP
    pub address: Address,
    /// cport, host order
    pub port: u16,
}

/// The sessions a real server has, as `lc` and `wlc` weigh them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Connections {
    /// established ones
    pub active: u32,
    /// all others
    pub inactive: u32,
}

impl Connections {
    /// What the sessions weigh: an active one as much as 256 others (`ip_vs_dest_conn_overhead`).
    #[inline]
    pub const fn overhead(self) -> u64 {
        ((self.active as u64) << 8) + self.inactive as u64
    }
}

/// A scheduler's moving half: one per worker and service, owned by the worker.
///
/// It stays valid when a new snapshot brings other real servers, other weights or another scheduler: whatever no
/// longer fits is taken back into range by the next pick, and an unchanged service goes on where it stood.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SchedulerState {
    /// where to go on among the real servers
    cursor: u32,
    /// `wrr`: the weight that must be reached to be picked in this round; 0: not begun
    level: u32,
    /// which worker of how many: where `rr` and `wrr` begin
    worker: u16,
    workers: u16,
}

impl SchedulerState {
    /// The state of a service that `worker` of `workers` has not yet picked for. The workers begin at different
    /// places, so that the first sessions of all of them do not meet at the first real server.
    pub const fn new(worker: WorkerId, workers: u16) -> Self {
        SchedulerState { cursor: u32::MAX, level: 0, worker: worker.0, workers }
    }

    /// The cursor as an index below `len`; on first use the worker's share of `len`. `len` must not be 0.
    #[inline]
    fn cursor(&self, len: usize) -> usize {
        match self.cursor as usize {
            cursor if cursor < len => cursor,
            _ if self.cursor == u32::MAX => self.share(len),
            cursor => cursor % len,
        }
    }

    /// `len` times worker / workers.
    fn share(&self, len: usize) -> usize {
        (len * usize::from(self.worker) / usize::from(self.workers.max(1))).min(len.saturating_sub(1))
    }

    /// Leaves the cursor behind `index`.
    #[inline]
    fn move_behind(&mut self, index: usize, len: usize) {
        self.cursor = if index + 1 >= len { 0 } else { index as u32 + 1 };
    }
}

impl Default for SchedulerState {
    /// The state of a single worker.
    fn default() -> Self {
        SchedulerState::new(WorkerId(0), 1)
    }
}

impl Scheduler {
    /// Builds `algorithm` for `real_servers`, in the order of the configuration. `flags` concern `sh` and `mh` only.
    /// Removed real servers are left out whatever their weight.
    pub fn new<'a>(
        algorithm: Algorithm,
        flags: HashFlags,
        real_servers: impl IntoIterator<Item = &'a RealServer>,
    ) -> Self {
        let candidates: Vec<Candidate> =
            real_servers.into_iter().filter(|server| !server.removed).map(Candidate::from).collect();
        Scheduler(match algorithm {
            Algorithm::RoundRobin => Kind::RoundRobin(round_robin::RoundRobin::new(&candidates)),
            Algorithm::WeightedRoundRobin => {
                Kind::WeightedRoundRobin(weighted_round_robin::WeightedRoundRobin::new(&candidates))
            }
            Algorithm::LeastConnection => {
                Kind::LeastConnection(least_connection::LeastConnection::new(&candidates))
            }
            Algorithm::WeightedLeastConnection => Kind::WeightedLeastConnection(
                weighted_least_connection::WeightedLeastConnection::new(&candidates),
            ),
            Algorithm::SourceHash => Kind::SourceHash(source_hash::SourceHash::new(&candidates, flags)),
            Algorithm::Maglev => Kind::Maglev(maglev::Maglev::new(&candidates, flags)),
        })
    }

    /// The real server for a new session of `client`; `None` if none has weight. `connections` is asked only by
    /// `lc` and `wlc`, once per real server.
    #[inline]
    pub fn pick(
        &self,
        state: &mut SchedulerState,
        client: ClientKey,
        connections: &impl Fn(RealServerId) -> Connections,
    ) -> Option<RealServerId> {
        match &self.0 {
            Kind::RoundRobin(scheduler) => scheduler.pick(state),
            Kind::WeightedRoundRobin(scheduler) => scheduler.pick(state),
            Kind::LeastConnection(scheduler) => scheduler.pick(state, connections),
            Kind::WeightedLeastConnection(scheduler) => scheduler.pick(state, connections),
            Kind::SourceHash(scheduler) => scheduler.pick(client),
            Kind::Maglev(scheduler) => scheduler.pick(client),
        }
    }

    /// Which algorithm this is.
    pub const fn algorithm(&self) -> Algorithm {
        match &self.0 {
            Kind::RoundRobin(_) => Algorithm::RoundRobin,
            Kind::WeightedRoundRobin(_) => Algorithm::WeightedRoundRobin,
            Kind::LeastConnection(_) => Algorithm::LeastConnection,
            Kind::WeightedLeastConnection(_) => Algorithm::WeightedLeastConnection,
            Kind::SourceHash(_) => Algorithm::SourceHash,
            Kind::Maglev(_) => Algorithm::Maglev,
        }
    }
}

/// What the schedulers need to know of a real server.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    id: RealServerId,
    weight: u16,
    address: Address,
    /// 0: the port the client dialled
    port: u16,
}

impl From<&RealServer> for Candidate {
    fn from(server: &RealServer) -> Self {
        Candidate {
            id: server.id,
            weight: server.weight,
            address: server.address,
            port: server.port.unwrap_or(0),
        }
    }
}

/// The greatest number that divides all weights that are not 0; 0 if all are.
fn gcd_of_weights(candidates: &[Candidate]) -> u32 {
    candidates.iter().map(|candidate| u32::from(candidate.weight)).fold(0, |mut a, mut b| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    })
}

#[cfg(test)]
mod tests;
