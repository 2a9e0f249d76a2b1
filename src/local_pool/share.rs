//! A worker's share of the L4 ports of every book, and the books' bit numbers.
//!
//! Of a (LIP, RIP, rport, protocol) a worker may lease the lports whose class brings the answers home:
//! `reta[base ^ class] == worker`, with `base` the contribution of everything but the lport. The worker's RETA entries
//! are the same for every book, only permuted by `base`. So a book has one bit per port of the share, in blocks by
//! *rank*, the place of the RETA entry among the worker's own: `bit = rank << position_bits | position`.
//!
//! One worker: 65,536 bits; `n` workers: about 65,536 / n each, so that all workers' books together have one bit per
//! port and no more.

use std::sync::Arc;

use crate::id::WorkerId;
use crate::steering::{PortLayout, RETA_MAX, Steering};

/// The rank of entries that lead to other workers.
const FOREIGN: u16 = u16::MAX;

/// Which RETA entries lead to this worker.
pub(super) struct Share {
    pub(super) steering: Arc<Steering>,
    /// this worker's RETA entries by rank
    entries: Box<[u16]>,
    /// the rank of each RETA entry, [`FOREIGN`] for others'
    rank: Box<[u16; RETA_MAX]>,
    position_bits: u32,
    bits: u32,
}

impl Share {
    pub(super) fn new(steering: Arc<Steering>, worker: WorkerId) -> Self {
        let reta = steering.reta();
        let entries: Box<[u16]> =
            (0..reta.len() as u16).filter(|&e| reta[usize::from(e)] == worker).collect();
        let mut rank = Box::new([FOREIGN; RETA_MAX]);
        for (place, &entry) in entries.iter().enumerate() {
            rank[usize::from(entry)] = place as u16;
        }
        let position_bits = steering.port_layout(true).position_bits();
        let bits = (entries.len() as u32) << position_bits;
        Share { entries, rank, position_bits, bits, steering }
    }

    /// Ports of the share, in or out of a pool's range.
    #[inline(always)]
    pub(super) fn bits(&self) -> u32 {
        self.bits
    }

    /// 64-bit words of a book.
    pub(super) fn words(&self) -> usize {
        self.bits() as usize / 64
    }

    #[inline(always)]
    pub(super) fn layout(&self, v4: bool) -> &PortLayout {
        self.steering.port_layout(v4)
    }

    /// The port that `bit` of a book with this base stands for.
    #[inline(always)]
    pub(super) fn port_at(&self, layout: &PortLayout, base: u16, bit: u32) -> u16 {
        layout.port_at(self.index_at(base, bit))
    }

    /// The bit that stands for `port`, `None` if the port is another worker's.
    #[inline(always)]
    pub(super) fn bit_of(&self, layout: &PortLayout, base: u16, port: u16) -> Option<u32> {
        let index = layout.index_of(port);
        let entry = (index >> self.position_bits) ^ base;
        let rank = self.rank[usize::from(entry) & (RETA_MAX - 1)];
        let position = u32::from(index) & ((1 << self.position_bits) - 1);
        (rank != FOREIGN).then_some(u32::from(rank) << self.position_bits | position)
    }

    /// The word of a bitmap over the layout's indexes that covers the same ports as `word` of a book.
    #[inline(always)]
    pub(super) fn layout_word(&self, base: u16, word: usize) -> usize {
        usize::from(self.index_at(base, word as u32 * 64)) / 64
    }

    /// The layout's index of `bit` of a book.
    #[inline(always)]
    fn index_at(&self, base: u16, bit: u32) -> u16 {
        let class = self.entries[(bit >> self.position_bits) as usize] ^ base;
        let position = bit & ((1 << self.position_bits) - 1);
        class << self.position_bits | position as u16
    }
}
