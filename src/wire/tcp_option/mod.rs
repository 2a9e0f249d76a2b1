//! TCP options: a bounded walk (RFC 9293 §3.2), and the edits that the packet path makes in place.
//!
//! The walk stops at an end-of-list, and at a length of 0 or 1 or one beyond the header without reading on: what
//! stands behind is nobody's option. Receivers stop there too. Cost: one round per option, at most 40.

mod edit;

pub use edit::{
    TIMESTAMPS_ALIGNED_LEN, add_to_aligned_val, edit_syn, erase_kind, is_only_timestamps, may_hold_sack,
    retain_sack, take_from_aligned_ecr, timestamps, translate_sack, translate_timestamps,
};

use super::field::{get_u16, get_u32};
use std::ops::Range;

/// end of the option list
pub const KIND_END: u8 = 0;
/// no operation: padding between options
pub const KIND_NO_OPERATION: u8 = 1;
/// maximum segment size (RFC 9293 §3.7.1)
pub const KIND_MSS: u8 = 2;
/// window scale (RFC 7323 §2)
pub const KIND_WINDOW_SCALE: u8 = 3;
/// SACK permitted (RFC 2018 §2)
pub const KIND_SACK_PERMITTED: u8 = 4;
/// SACK blocks (RFC 2018 §3)
pub const KIND_SACK: u8 = 5;
/// timestamps (RFC 7323 §3)
pub const KIND_TIMESTAMPS: u8 = 8;
/// TCP Fast Open cookie (RFC 7413 §4.1.1)
pub const KIND_FAST_OPEN: u8 = 34;
/// Multipath TCP (RFC 8684)
pub const KIND_MPTCP: u8 = 30;

/// One option. Known kinds with a length that their RFC does not give them are [`TcpOption::Unknown`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TcpOption {
    /// what follows is padding; the walk ends
    EndOfList,
    /// padding
    NoOp,
    /// largest segment that the sender takes, in bytes
    Mss(u16),
    /// how many bits the sender's windows are shifted
    WindowScale(u8),
    /// the sender understands SACK blocks
    SackPermitted,
    /// where in the options the one to four blocks of two sequence numbers stand
    Sack(Range<usize>),
    /// timestamps
    Timestamps {
        /// the sender's clock
        val: u32,
        /// the echo of the receiver's
        ecr: u32,
        /// where in the options `val` stands; `ecr` follows it
        offset: usize,
    },
    /// anything else
    Unknown {
        /// its kind
        kind: u8,
        /// where in the options it starts
        offset: usize,
        /// its bytes, kind and length included
        len: usize,
    },
}

/// Walks the options of a header.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    bytes: &'a [u8],
    spans: Spans,
}

impl<'a> Options<'a> {
    /// Starts at the first option; `options` is the header behind its twenty fixed bytes.
    #[inline]
    pub fn new(options: &'a [u8]) -> Self {
        Options { bytes: options, spans: Spans::new() }
    }

    /// Whether the walk so far met a length of 0 or 1 or one beyond the header, and ended there.
    #[inline]
    pub fn is_malformed(&self) -> bool {
        self.spans.malformed
    }
}

impl Iterator for Options<'_> {
    type Item = TcpOption;

    #[inline]
    fn next(&mut self) -> Option<TcpOption> {
        let Span { kind, offset, len } = self.spans.next(self.bytes)?;
        let bytes = self.bytes;
        Some(match (kind, len) {
            (KIND_END, _) => TcpOption::EndOfList,
            (KIND_NO_OPERATION, _) => TcpOption::NoOp,
            (KIND_MSS, 4) => TcpOption::Mss(get_u16(bytes, offset + 2)),
            (KIND_WINDOW_SCALE, 3) => TcpOption::WindowScale(bytes[offset + 2]),
            (KIND_SACK_PERMITTED, 2) => TcpOption::SackPermitted,
            (KIND_SACK, 10 | 18 | 26 | 34) => TcpOption::Sack(offset + 2..offset + len),
            (KIND_TIMESTAMPS, 10) => TcpOption::Timestamps {
                val: get_u32(bytes, offset + 2),
                ecr: get_u32(bytes, offset + 6),
                offset: offset + 2,
            },
            _ => TcpOption::Unknown { kind, offset, len },
        })
    }
}

/// An option's place, all of it within the options it was found in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Span {
    kind: u8,
    offset: usize,
    len: usize,
}

/// The walk itself; holds no borrow, so that an editor may change what it has passed.
#[derive(Clone, Debug)]
struct Spans {
    next: usize,
    malformed: bool,
}

impl Spans {
    #[inline(always)]
    const fn new() -> Self {
        Spans { next: 0, malformed: false }
    }

    /// The next option of `options`, which is the same slice in every call.
    #[inline(always)]
    fn next(&mut self, options: &[u8]) -> Option<Span> {
        let offset = self.next;
        let kind = *options.get(offset)?;
        let len = match kind {
            KIND_END => {
                self.next = options.len();
                return Some(Span { kind, offset, len: 1 });
            }
            KIND_NO_OPERATION => 1,
            _ => {
                let len = usize::from(options.get(offset + 1).copied().unwrap_or(0));
                if len < 2 || len > options.len() - offset {
                    self.next = options.len();
                    self.malformed = true;
                    return None;
                }
                len
            }
        };
        self.next = offset + len;
        Some(Span { kind, offset, len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_linux_syn_shows_its_five_options() {
        let options = [2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 3, 3, 7];
        let seen: Vec<_> = Options::new(&options).collect();
        assert_eq!(
            seen,
            [
                TcpOption::Mss(1460),
                TcpOption::SackPermitted,
                TcpOption::Timestamps { val: 9, ecr: 0, offset: 8 },
                TcpOption::NoOp,
                TcpOption::WindowScale(7),
            ]
        );
    }

    #[test]
    fn known_kinds_of_a_wrong_length_are_unknown() {
        for options in
            [&[2, 3, 5, 1][..], &[3, 4, 7, 0], &[4, 3, 0, 1], &[5, 2], &[5, 6, 0, 0, 0, 0], &[8, 4, 0, 0]]
        {
            let first = Options::new(options).next().unwrap();
            let len = usize::from(options[1]);
            assert_eq!(first, TcpOption::Unknown { kind: options[0], offset: 0, len }, "{options:?}");
        }
    }

    #[test]
    fn conformance_i6_lengths_0_1_and_overrun_end_the_walk() {
        for tail in [&[254, 0, 2, 4, 5, 0xb4][..], &[254, 1, 2, 4, 5, 0xb4], &[254, 7, 2, 4, 5, 0xb4], &[254]]
        {
            let options = [&[1, 1, 4, 2][..], tail].concat();
            let mut walk = Options::new(&options);
            let seen: Vec<_> = walk.by_ref().collect();
            assert_eq!(seen, [TcpOption::NoOp, TcpOption::NoOp, TcpOption::SackPermitted], "{tail:?}");
            assert!(walk.is_malformed());
            assert_eq!(walk.next(), None, "and it does not start again");
        }
    }

    #[test]
    fn the_end_of_the_list_ends_the_walk_in_order() {
        let mut walk = Options::new(&[1, 0, 2, 4, 5, 0xb4]);
        assert_eq!(walk.by_ref().collect::<Vec<_>>(), [TcpOption::NoOp, TcpOption::EndOfList]);
        assert!(!walk.is_malformed());
    }

    proptest! {
        #[test]
        fn conformance_i6_any_bytes_are_walked_within_bounds_and_as_etherparse_does(
            bytes in prop::collection::vec(prop_oneof![0u8..12, any::<u8>()], 0..=40),
        ) {
            use etherparse::TcpOptionElement as Element;
            let mut oracle = etherparse::TcpOptionsIterator::from_slice(&bytes);
            for option in Options::new(&bytes) {
                match (option, oracle.next()) {
                    (TcpOption::EndOfList, None) => break,
                    (TcpOption::NoOp, Some(Ok(Element::Noop))) => {}
                    (TcpOption::Mss(ours), Some(Ok(Element::MaximumSegmentSize(theirs)))) =>
                        prop_assert_eq!(ours, theirs),
                    (TcpOption::WindowScale(ours), Some(Ok(Element::WindowScale(theirs)))) =>
                        prop_assert_eq!(ours, theirs),
                    (TcpOption::SackPermitted, Some(Ok(Element::SelectiveAcknowledgementPermitted))) => {}
                    (TcpOption::Sack(range), Some(Ok(Element::SelectiveAcknowledgement(first, _)))) => {
                        prop_assert!(range.end <= bytes.len());
                        prop_assert_eq!(get_u32(&bytes, range.start), first.0);
                    }
                    (TcpOption::Timestamps { val, ecr, .. }, Some(Ok(Element::Timestamp(a, b)))) =>
                        prop_assert_eq!((val, ecr), (a, b)),
                    // The oracle knows six kinds and gives up at any other.
                    (TcpOption::Unknown { offset, len, .. }, Some(Err(_))) => {
                        prop_assert!(len >= 2 && offset + len <= bytes.len());
                        break;
                    }
                    (ours, theirs) => prop_assert!(false, "{ours:?} but {theirs:?}"),
                }
            }
        }
    }
}
