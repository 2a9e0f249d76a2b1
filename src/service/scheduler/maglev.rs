//! `mh`: Maglev consistent hashing (`ip_vs_mh.c`; Eisenbud et al., NSDI 2016, §3.4).
//!
//! Every real server has its own permutation of a prime number of places, made of its address and port, and takes
//! the next free one of them in turn until all are taken. When a real server comes or goes, few places of the others
//! change hands. Different from the kernel: the turns are interleaved by weight (there a real server takes all its
//! turns in a row, which starves the last ones when the weights are large), and without `mh-fallback` a real server
//! of weight 0 is left out (there its clients are refused).

use super::affinity::{Affinity, hash};
use super::{Candidate, ClientKey, HashFlags};
use crate::id::RealServerId;

/// The kernel's default table (index 12).
const PLACES: usize = 4093;
/// The kernel's table of index 16, where [`PLACES`] would leave a real server fewer than ten.
const PLACES_MANY: usize = 65_521;

#[derive(Clone, Debug)]
pub(super) struct Maglev(Affinity);

impl Maglev {
    pub(super) fn new(candidates: &[Candidate], flags: HashFlags) -> Self {
        let seated = Affinity::seated(candidates, flags);
        Maglev(Affinity::new(populate(&seated), &seated, flags))
    }

    #[inline]
    pub(super) fn pick(&self, client: ClientKey) -> Option<RealServerId> {
        self.0.pick(client)
    }

    #[cfg(test)]
    pub(super) fn owners(&self) -> impl Iterator<Item = RealServerId> + '_ {
        self.0.owners()
    }
}

/// One real server while the table is filled.
struct Claim {
    /// the next place of its permutation
    next: usize,
    /// from each place of its permutation to the next
    skip: usize,
    weight: u64,
    /// what `round * weight` must reach before it takes another place
    due: u64,
}

/// Fills the table, in turns, until no place is free.
fn populate(seated: &[Candidate]) -> Box<[u16]> {
    let places = if seated.len() * 10 <= PLACES { PLACES } else { PLACES_MANY };
    let weights = || seated.iter().map(|candidate| u64::from(candidate.weight));
    let Some(smallest) = weights().filter(|&weight| weight > 0).min() else { return Box::default() };
    let greatest = weights().max().unwrap_or(smallest);
    let mut claims: Vec<Claim> = seated
        .iter()
        .zip(weights())
        .map(|(candidate, weight)| Claim {
            next: (hash(&candidate.address, candidate.port, 0) % places as u64) as usize,
            skip: (hash(&candidate.address, candidate.port, 1) % (places as u64 - 1)) as usize + 1,
            // A seated real server of weight 0 keeps the places of the smallest weight.
            weight: if weight == 0 { smallest } else { weight },
            due: 0,
        })
        .collect();

    let mut owners: Vec<Option<u16>> = vec![None; places];
    let mut free = places;
    for round in 0.. {
        for (index, claim) in claims.iter_mut().enumerate() {
            if round * claim.weight < claim.due {
                continue;
            }
            claim.due += greatest;
            // `places` is prime, so every skip visits every place; one is free as long as `free` is not 0.
            while owners[claim.next].is_some() {
                claim.next = (claim.next + claim.skip) % places;
            }
            owners[claim.next] = Some(index as u16);
            free -= 1;
            if free == 0 {
                return owners.into_iter().flatten().collect();
            }
        }
    }
    Box::default()
}
