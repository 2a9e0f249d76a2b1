//! What memory allows: a staged probe of two random cache lines per packet, nothing else.
//!
//! As much memory as the session table has: an array as large as its index and one as large as its hot lines. For 32
//! packets at a time: prefetch all first lines; read them, which gives the second, prefetch all; read and write those.

use fullnat::cpu::{self, HugeArray, Pages};
use fullnat::path::BURST;
use fullnat::session::TableMemory;
use zerocopy::FromZeros;

#[derive(FromZeros)]
#[repr(C, align(64))]
struct Line([u64; 8]);

/// The two arrays.
pub struct TwoLines {
    first: HugeArray<Line>,
    second: HugeArray<Line>,
}

impl TwoLines {
    /// As large as a table for this many sessions.
    pub fn new(sessions: u32, huge_pages: bool) -> Self {
        let pages = if huge_pages { Pages::Reserved } else { Pages::Transparent };
        let map = |lines: u64| {
            let mut array = HugeArray::new(lines as usize, pages).expect("memory for the reference");
            array.populate();
            array
        };
        let memory = TableMemory::for_sessions(sessions);
        TwoLines { first: map(memory.index / 64), second: map(u64::from(sessions)) }
    }

    /// Probes once for each key, in bursts.
    #[inline(never)]
    pub fn probe(&mut self, keys: &[u64]) {
        for keys in keys.chunks(BURST) {
            let mut places = [0usize; BURST];
            for (place, key) in places.iter_mut().zip(keys) {
                *place = scale(*key, self.first.len());
                cpu::prefetch_index(&self.first, *place);
            }
            for (place, key) in places.iter_mut().zip(keys) {
                // The line holds zeros, which the processor cannot know.
                let found = self.first[*place].0[(*key & 7) as usize];
                *place = scale(key.rotate_left(32) ^ found, self.second.len());
                cpu::prefetch_index(&self.second, *place);
            }
            for place in &places[..keys.len()] {
                let line = &mut self.second[*place].0;
                line[7] = line[7].wrapping_add(line[0]) + 1;
            }
        }
    }
}

#[inline(always)]
fn scale(key: u64, len: usize) -> usize {
    ((u128::from(key) * len as u128) >> 64) as usize
}
