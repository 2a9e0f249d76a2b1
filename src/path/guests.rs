//! Sessions that another worker keeps for this one.
//!
//! A worker whose share of a local pool is used up passes a new session on. The worker that has a free port becomes its
//! host: answers find it there by arithmetic, since the port was chosen so; for the client's packets, which still come
//! to this worker, the home remembers the host here. Touched only when the session table has no entry.

use hashbrown::HashMap;

use crate::id::WorkerId;
use crate::wire::Tuple;

/// Inbound flows and the workers that host them.
#[derive(Debug)]
pub struct Guests {
    hosts: HashMap<Tuple, WorkerId, ahash::RandomState>,
    max: usize,
}

impl Guests {
    /// Room for `max` flows.
    pub fn new(max: usize) -> Self {
        Guests { hosts: HashMap::with_capacity_and_hasher(max, ahash::RandomState::new()), max }
    }

    /// Remembers a host. Past the maximum the flow is not remembered, and its next packet finds no session.
    pub fn began(&mut self, inbound: Tuple, host: WorkerId) {
        if self.has_room() {
            self.hosts.insert(inbound, host);
        }
    }

    /// Whether another host can be remembered.
    pub fn has_room(&self) -> bool {
        self.hosts.len() < self.max
    }

    /// Forgets a flow.
    pub fn ended(&mut self, inbound: &Tuple) {
        self.hosts.remove(inbound);
    }

    /// Who hosts a flow.
    pub fn host(&self, inbound: &Tuple) -> Option<WorkerId> {
        if self.hosts.is_empty() { None } else { self.hosts.get(inbound).copied() }
    }
}
