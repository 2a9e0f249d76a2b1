//! The ranges of L4 ports that pools lease from, as bitmaps in the order of the port layout.

use crate::steering::Steering;

/// One range for one family. Port 0 is never part of it (RFC 6335 §6: reserved).
pub(super) struct PortRange {
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) v4: bool,
    /// a bit per index of the port layout, 1 = within the range
    pub(super) words: Box<[u64]>,
    /// books that use it
    pub(super) books: u32,
    /// whether a pool uses it
    pub(super) wanted: bool,
}

impl PortRange {
    fn new(first: u16, last: u16, v4: bool, steering: &Steering) -> Self {
        let mut words = vec![0u64; 65536 / 64].into_boxed_slice();
        for port in first..=last {
            let index = usize::from(steering.port_layout(v4).index_of(port));
            words[index / 64] |= 1 << (index % 64);
        }
        PortRange { first, last, v4, words, books: 0, wanted: true }
    }
}

/// All ranges in use. Grows only while a configuration with a range not seen before is applied.
#[derive(Default)]
pub(super) struct Ranges(pub(super) Vec<PortRange>);

impl Ranges {
    /// The slot of a range, made if it is new; a slot that nobody uses is given to it.
    pub(super) fn slot(&mut self, first: u16, last: u16, v4: bool, steering: &Steering) -> u16 {
        let first = first.max(1);
        let is = |range: &PortRange| range.first == first && range.last == last && range.v4 == v4;
        if let Some(slot) = self.0.iter().position(is) {
            self.0[slot].wanted = true;
            return slot as u16;
        }
        let range = PortRange::new(first, last, v4, steering);
        let slot = match self.0.iter().position(|range| !range.wanted && range.books == 0) {
            Some(slot) => {
                self.0[slot] = range;
                slot
            }
            None => {
                self.0.push(range);
                self.0.len() - 1
            }
        };
        slot as u16
    }
}
