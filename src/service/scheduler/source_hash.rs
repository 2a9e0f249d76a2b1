//! `sh`: by the client's address (`ip_vs_sh.c`).
//!
//! A table of 256 places or more, dealt out to the real servers by weight in runs, as the kernel does. Different from
//! the kernel: weights whose sum exceeds the table are scaled to fit (there the last real servers get nothing), and
//! without `sh-fallback` a real server of weight 0 is left out (there its clients are refused).

use super::affinity::Affinity;
use super::{Candidate, ClientKey, HashFlags};
use crate::id::RealServerId;

/// `IP_VS_SH_TAB_SIZE`.
const PLACES_MIN: usize = 256;

#[derive(Clone, Debug)]
pub(super) struct SourceHash(Affinity);

impl SourceHash {
    pub(super) fn new(candidates: &[Candidate], flags: HashFlags) -> Self {
        let seated = Affinity::seated(candidates, flags);
        SourceHash(Affinity::new(deal(&seated), &seated, flags))
    }

    #[inline]
    pub(super) fn pick(&self, client: ClientKey) -> Option<RealServerId> {
        self.0.pick(client)
    }
}

/// Deals the places: real server `i` gets those between its share of the table's beginning and end.
fn deal(seated: &[Candidate]) -> Box<[u16]> {
    let places = PLACES_MIN.max((seated.len() * 16).next_power_of_two());
    // A seated real server of weight 0 keeps the place of the smallest weight.
    let smallest = seated.iter().map(|candidate| candidate.weight).filter(|&weight| weight > 0).min();
    let Some(smallest) = smallest else { return Box::default() };
    let weights =
        seated.iter().map(|candidate| if candidate.weight == 0 { smallest } else { candidate.weight });
    let total: usize = weights.clone().map(usize::from).sum();
    let mut dealt = Vec::with_capacity(places);
    let mut before = 0;
    for (index, weight) in weights.enumerate() {
        before += usize::from(weight);
        dealt.resize(places * before / total, index as u16);
    }
    dealt.into()
}
