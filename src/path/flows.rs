//! The flows of one burst: what the phases find out about its packets, side by side with them.

use arrayvec::ArrayVec;

use super::engine::BURST;
use super::packet::Packet;
use super::parsed::Parsed;
use super::plain::{self, Kind};
use crate::session::{Candidate, Direction, KeyHash};
use crate::wire::Tuple;

/// What the phases find out about one packet.
#[derive(Clone, Copy)]
pub struct Flow {
    /// of its key
    pub hash: KeyHash,
    /// what the probe found
    pub candidate: Candidate,
    /// what it holds if it is a plain frame; all others are described
    pub plain: Option<Kind>,
}

const _: () = assert!(size_of::<Flow>() == 16);

impl Flow {
    /// A packet that is not plain and was not looked up.
    pub const EMPTY: Flow = Flow { hash: KeyHash::EMPTY, candidate: Candidate::NONE, plain: None };

    /// What it holds and which way it would travel, of a plain one.
    #[inline(always)]
    pub fn sort(&self) -> Option<(Kind, Direction)> {
        Some((self.plain?, self.candidate.direction()))
    }
}

/// A place for the flows of a burst, used by one after the other.
pub struct Flows {
    /// one of each packet, in order
    pub looked_up: [Flow; BURST],
    /// headers of those that are not plain
    pub described: [Parsed; BURST],
}

impl Flows {
    /// Nothing known yet.
    pub fn new() -> Self {
        Flows { looked_up: [Flow::EMPTY; BURST], described: [Parsed::EMPTY; BURST] }
    }

    /// Whether the probe found nothing of any of the first `count` packets.
    #[inline(always)]
    pub fn has_stranger(&self, count: usize) -> bool {
        self.looked_up[..count].iter().any(|flow| flow.candidate.is_none())
    }

    /// The flow of the packet at `at`, as it shows it.
    #[inline(always)]
    pub fn tuple<P: Packet>(&self, at: usize, packet: &P) -> Tuple {
        match self.looked_up[at].plain {
            Some(kind) => plain::tuple_of(packet.head(), kind),
            None => self.described[at].tuple,
        }
    }

    /// Headers of the packet at `at`.
    #[inline]
    pub fn describe<P: Packet>(&self, at: usize, packet: &P) -> Parsed {
        match self.looked_up[at].plain {
            Some(kind) => plain::describe(packet.head(), kind),
            None => self.described[at],
        }
    }

    /// Takes the packets out one by one; those that `stays` gives back close ranks, and what is known of them with them.
    #[cold]
    pub fn retain<P>(
        &mut self,
        packets: &mut ArrayVec<P, BURST>,
        mut stays: impl FnMut(&mut Self, usize, P) -> Option<P>,
    ) {
        for (at, packet) in packets.take().into_iter().enumerate() {
            if let Some(packet) = stays(self, at, packet) {
                let to = packets.len();
                self.looked_up[to] = self.looked_up[at];
                self.described[to] = self.described[at];
                packets.push(packet);
            }
        }
    }
}
