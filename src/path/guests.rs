//! Sessions that another worker keeps for this one.
//!
//! A worker whose share of a local pool is used up passes a new session on. The worker that has a free port becomes its
//! host: answers find it there by arithmetic, since the port was chosen so; for the client's packets, which a device that
//! steers still brings to this worker, the home remembers the host here. One that reaches its host otherwise passes there
//! at once. Touched only when the session table has no entry.
//!
//! Only a flow's home has a note of it. A host that was given a packet by a note and has no session says so and gives the
//! packet back (`Shard::keep`): rings keep their order, so the note is gone when the packet is there.

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

    /// Forgets a flow that `host` has no session of; not if another one hosts it.
    pub fn ended(&mut self, inbound: &Tuple, host: WorkerId) {
        if self.host(inbound) == Some(host) {
            self.hosts.remove(inbound);
        }
    }

    /// Who hosts a flow.
    pub fn host(&self, inbound: &Tuple) -> Option<WorkerId> {
        if self.hosts.is_empty() { None } else { self.hosts.get(inbound).copied() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::parsed::Parsed;

    #[test]
    fn only_the_host_of_a_flow_ends_its_note() {
        let mut guests = Guests::new(1);
        let flow = Parsed::EMPTY.tuple;
        guests.began(flow, WorkerId(1));
        guests.ended(&flow, WorkerId(2));
        assert_eq!((guests.host(&flow), guests.has_room()), (Some(WorkerId(1)), false));
        guests.began(Tuple { sport: 1, ..flow }, WorkerId(2));
        assert_eq!(guests.host(&Tuple { sport: 1, ..flow }), None, "there is no room for it");
        guests.ended(&flow, WorkerId(1));
        assert_eq!((guests.host(&flow), guests.has_room()), (None, true));
    }
}
