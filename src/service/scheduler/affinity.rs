//! What `sh` and `mh` have in common: a table of places that clients are hashed to, and where those go whose real
//! server takes no sessions.
//!
//! The hash has a fixed, public key: every worker, every restart and every gateway behind the same router must send a
//! client to the same real server. That a client can find out which one it gets is in the nature of affinity.

use siphasher::sip::SipHasher24;

use super::{Candidate, ClientKey, HashFlags};
use crate::id::RealServerId;
use crate::wire::Address;

/// Tries of another hash before the table is walked.
const FALLBACK_TRIES: u32 = 16;

/// A table of places, each belonging to a real server.
#[derive(Clone, Debug)]
pub(super) struct Affinity {
    /// indices into `servers`
    places: Box<[u16]>,
    /// real servers and whether they take sessions
    servers: Box<[(RealServerId, bool)]>,
    with_port: bool,
    /// whether some place belongs to a real server that takes no sessions
    has_gaps: bool,
}

impl Affinity {
    /// A table of `places`, which are indices into `candidates`.
    pub(super) fn new(places: Box<[u16]>, candidates: &[Candidate], flags: HashFlags) -> Self {
        Affinity {
            places,
            servers: candidates.iter().map(|candidate| (candidate.id, candidate.weight > 0)).collect(),
            with_port: flags.port,
            has_gaps: candidates.iter().any(|candidate| candidate.weight == 0),
        }
    }

    /// Those of `candidates` that get places, in an order that does not depend on the configuration file's: by
    /// address and port. Empty if none has weight.
    pub(super) fn seated(candidates: &[Candidate], flags: HashFlags) -> Vec<Candidate> {
        let mut seated = candidates.to_vec();
        seated.retain(|candidate| candidate.weight > 0 || flags.fallback);
        seated.sort_unstable_by_key(|candidate| (candidate.address, candidate.port, candidate.id));
        // Places are u16 numbers; the configuration allows far fewer real servers in a service.
        seated.truncate(usize::from(u16::MAX));
        if seated.iter().all(|candidate| candidate.weight == 0) { Vec::new() } else { seated }
    }

    #[inline]
    pub(super) fn pick(&self, client: ClientKey) -> Option<RealServerId> {
        if self.places.is_empty() {
            return None;
        }
        let port = if self.with_port { client.port } else { 0 };
        let place = (hash(&client.address, port, 0) % self.places.len() as u64) as usize;
        let (id, takes_sessions) = self.servers[usize::from(self.places[place])];
        if !self.has_gaps || takes_sessions { Some(id) } else { self.fall_back(&client.address, port, place) }
    }

    /// A place of a real server that takes sessions, for a client whose own does not: by further hashes, so that its
    /// clients spread over all others; if luck fails, the next such place in the table.
    #[cold]
    fn fall_back(&self, address: &Address, port: u16, place: usize) -> Option<RealServerId> {
        let hashed =
            (1..=FALLBACK_TRIES).map(|n| (hash(address, port, n) % self.places.len() as u64) as usize);
        let walked = (place..self.places.len()).chain(0..place);
        hashed.chain(walked).find_map(|place| {
            let (id, takes_sessions) = self.servers[usize::from(self.places[place])];
            takes_sessions.then_some(id)
        })
    }

    #[cfg(test)]
    pub(super) fn owners(&self) -> impl Iterator<Item = RealServerId> + '_ {
        self.places.iter().map(|&place| self.servers[usize::from(place)].0)
    }
}

/// SipHash-2-4 of an address, a port and a number that makes it one hash of a family.
pub(super) fn hash(address: &Address, port: u16, number: u32) -> u64 {
    let mut bytes = [0; 22];
    bytes[..16].copy_from_slice(address.octets());
    bytes[16..18].copy_from_slice(&port.to_be_bytes());
    bytes[18..].copy_from_slice(&number.to_be_bytes());
    // The key of ip_vs_mh.c; any constant would do, but it must never change.
    SipHasher24::new_with_keys(2_654_435_761, 2_654_435_761).hash(&bytes)
}
