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

    /// Of the first `count` packets those of which the probe found nothing, one bit each.
    #[inline(always)]
    pub fn strangers(&self, count: usize) -> u32 {
        let flows = self.looked_up[..count].iter().enumerate();
        flows.fold(0, |strangers, (at, flow)| strangers | u32::from(flow.candidate.is_none()) << at)
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
                self.close_up(packets, at, packet);
            }
        }
    }

    /// Takes out the packets whose bits are set, in order, and gives each to `take`; the others close ranks as in
    /// [`Flows::retain`]. Nothing branches on a single bit: which packets belong to others is random where no device steers,
    /// and a branch that went the wrong way costs as much as the home itself.
    pub fn take_out<P>(
        &mut self,
        packets: &mut ArrayVec<P, BURST>,
        leaving: u32,
        mut take: impl FnMut(usize, P),
    ) {
        let mut all: ArrayVec<Option<P>, BURST> = packets.take().into_iter().map(Some).collect();
        let present = ((1_u64 << all.len()) - 1) as u32;
        for at in bits(leaving & present) {
            take(at, all[at].take().expect("each bit once"));
        }
        for at in bits(present & !leaving) {
            let packet = all[at].take().expect("its bit was not set");
            self.close_up(packets, at, packet);
        }
    }

    /// Puts a packet that was at `at` behind those that stay.
    #[inline(always)]
    fn close_up<P>(&mut self, packets: &mut ArrayVec<P, BURST>, at: usize, packet: P) {
        let to = packets.len();
        self.looked_up[to] = self.looked_up[at];
        self.described[to] = self.described[at];
        packets.push(packet);
    }
}

/// The numbers of the bits that are set, rising.
#[inline(always)]
pub(super) fn bits(mut set: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let at = set.trailing_zeros();
        set &= set.wrapping_sub(1);
        (at < u32::BITS).then_some(at as usize)
    })
}

const _: () = assert!(BURST == u32::BITS as usize);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::SessionIndex;

    #[test]
    fn those_that_stay_close_ranks_and_those_that_go_keep_their_order() {
        for (count, leaving) in
            [(0, 0), (0, 7), (1, 0), (1, 1), (5, 0b10110), (32, 0x8000_0001), (32, u32::MAX)]
        {
            let mut flows = Flows::new();
            let mut packets: ArrayVec<usize, BURST> = (0..count).collect();
            for at in 0..count {
                flows.looked_up[at].candidate = Candidate::of(SessionIndex(at as u32), Direction::Inbound);
                flows.described[at].end = at as u32;
            }
            let mut gone = Vec::new();
            flows.take_out(&mut packets, leaving, |at, packet| gone.push((at, packet)));
            let (left, stayed): (Vec<usize>, Vec<usize>) = (0..count).partition(|at| leaving >> at & 1 == 1);
            assert_eq!(gone, left.into_iter().map(|at| (at, at)).collect::<Vec<_>>());
            assert_eq!(packets[..], stayed[..]);
            for (at, &packet) in packets.iter().enumerate() {
                let session = SessionIndex(packet as u32);
                assert_eq!(flows.looked_up[at].candidate, Candidate::of(session, Direction::Inbound));
                assert_eq!(flows.described[at].end, packet as u32);
            }
        }
    }

    #[test]
    fn strangers_are_those_without_a_candidate() {
        let mut flows = Flows::new();
        flows.looked_up[1].candidate = Candidate::of(SessionIndex(0), Direction::Outbound);
        assert_eq!([0, 1, 2, 3].map(|count| flows.strangers(count)), [0, 1, 1, 0b101]);
        assert_eq!(flows.strangers(BURST), !0b10);
    }
}
