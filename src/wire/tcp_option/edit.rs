//! Edits of TCP options in place; each says what it adds to the TCP checksum (RFC 1624).
//!
//! No edit changes a length. `options` is the header behind its twenty fixed bytes, so that an offset within it is
//! even or odd as it is within the segment. Nothing behind an end-of-list or a malformed option is touched.

use super::{KIND_END, KIND_MPTCP, KIND_MSS, KIND_NO_OPERATION, KIND_SACK, KIND_TIMESTAMPS, Span, Spans};
use crate::wire::checksum::{Delta, sum};
use crate::wire::field::{get_array, get_u16, get_u32, put_u16, put_u32};

/// How nearly every stack starts the options of a segment with timestamps (RFC 7323 appendix A).
const TIMESTAMPS_ALIGNED: [u8; 4] = [KIND_NO_OPERATION, KIND_NO_OPERATION, KIND_TIMESTAMPS, 10];
/// Bytes of the timestamps option in its usual layout, two no-operations in front (RFC 7323 appendix A).
pub const TIMESTAMPS_ALIGNED_LEN: usize = 12;

/// Whether the options are timestamps in their usual layout and nothing else: the common segment of a connection.
#[inline(always)]
pub fn is_only_timestamps(options: &[u8]) -> bool {
    options.len() == TIMESTAMPS_ALIGNED_LEN && get_array(options, 0) == TIMESTAMPS_ALIGNED
}

/// TSval and TSecr, if the segment carries them.
#[inline]
pub fn timestamps(options: &[u8]) -> Option<(u32, u32)> {
    let at = if begins_with_timestamps(options) { 4 } else { find_timestamps(options)? };
    Some((get_u32(options, at), get_u32(options, at + 4)))
}

#[inline(always)]
fn begins_with_timestamps(options: &[u8]) -> bool {
    options.len() >= TIMESTAMPS_ALIGNED_LEN && get_array(options, 0) == TIMESTAMPS_ALIGNED
}

/// Where the TSval stands.
fn find_timestamps(options: &[u8]) -> Option<usize> {
    let mut spans = Spans::new();
    while let Some(span) = spans.next(options) {
        if span.kind == KIND_TIMESTAMPS && span.len == 10 {
            return Some(span.offset + 2);
        }
    }
    None
}

/// Whether there are options beyond the usual timestamps, among which SACK blocks may be.
#[inline(always)]
pub fn may_hold_sack(options: &[u8]) -> bool {
    !options.is_empty() && !is_only_timestamps(options)
}

/// Adds to TSval and takes from TSecr, each modulo 2^32 (RFC 7323 §3).
#[inline]
pub fn translate_timestamps(options: &mut [u8], add_val: u32, sub_ecr: u32) -> Delta {
    if begins_with_timestamps(options) {
        return translate_timestamps_at(options, 4, add_val, sub_ecr);
    }
    translate_timestamps_anywhere(options, add_val, sub_ecr)
}

/// Adds to the TSval of timestamps that are known to stand in their usual layout.
#[inline(always)]
pub fn add_to_aligned_val(options: &mut [u8; TIMESTAMPS_ALIGNED_LEN], add: u32) -> Delta {
    let val = get_u32(options, 4);
    put_u32(options, 4, val.wrapping_add(add));
    Delta::default().replace_u32(val, val.wrapping_add(add))
}

/// Takes from the TSecr of timestamps that are known to stand in their usual layout.
#[inline(always)]
pub fn take_from_aligned_ecr(options: &mut [u8; TIMESTAMPS_ALIGNED_LEN], sub: u32) -> Delta {
    let ecr = get_u32(options, 8);
    put_u32(options, 8, ecr.wrapping_sub(sub));
    Delta::default().replace_u32(ecr, ecr.wrapping_sub(sub))
}

#[inline(always)]
fn translate_timestamps_at(options: &mut [u8], at: usize, add_val: u32, sub_ecr: u32) -> Delta {
    let (val, ecr) = (get_u32(options, at), get_u32(options, at + 4));
    let (new_val, new_ecr) = (val.wrapping_add(add_val), ecr.wrapping_sub(sub_ecr));
    put_u32(options, at, new_val);
    put_u32(options, at + 4, new_ecr);
    Delta::default().replace_u32(val, new_val).replace_u32(ecr, new_ecr)
}

#[cold]
fn translate_timestamps_anywhere(options: &mut [u8], add_val: u32, sub_ecr: u32) -> Delta {
    let mut delta = Delta::default();
    let mut spans = Spans::new();
    while let Some(span) = spans.next(options) {
        if span.kind == KIND_TIMESTAMPS && span.len == 10 {
            let change = translate_timestamps_at(options, span.offset + 2, add_val, sub_ecr);
            delta = delta.combine(change.at_offset(span.offset));
        }
    }
    delta
}

/// Takes `sub` from both edges of every SACK block (RFC 2018), D-SACK blocks (RFC 2883) included.
pub fn translate_sack(options: &mut [u8], sub: u32) -> Delta {
    let mut delta = Delta::default();
    let mut spans = Spans::new();
    while let Some(span) = spans.next(options) {
        if span.kind != KIND_SACK || !matches!(span.len, 10 | 18 | 26 | 34) {
            continue;
        }
        let mut change = Delta::default();
        for edge in options[span.offset + 2..span.offset + span.len].chunks_exact_mut(4) {
            let old = get_u32(edge, 0);
            let new = old.wrapping_sub(sub);
            put_u32(edge, 0, new);
            change = change.replace_u32(old, new);
        }
        delta = delta.combine(change.at_offset(span.offset));
    }
    delta
}

/// Passes every SACK block, its two edges as they stand, to `judge`, which gives back what shall stand there, `None` for
/// nothing. Blocks move up, what gets free becomes no-operations; an option without blocks becomes those altogether.
pub fn retain_sack(options: &mut [u8], mut judge: impl FnMut(u32, u32) -> Option<(u32, u32)>) -> Delta {
    let mut delta = Delta::default();
    let mut spans = Spans::new();
    while let Some(span) = spans.next(options) {
        if span.kind != KIND_SACK || !matches!(span.len, 10 | 18 | 26 | 34) {
            continue;
        }
        let option = &mut options[span.offset..span.offset + span.len];
        let old = sum(option) as u16;
        let mut end = 2;
        for at in (2..span.len).step_by(8) {
            if let Some((from, to)) = judge(get_u32(option, at), get_u32(option, at + 4)) {
                put_u32(option, end, from);
                put_u32(option, end + 4, to);
                end += 8;
            }
        }
        option[1] = end as u8;
        let used = if end > 2 { end } else { 0 };
        option[used..].fill(KIND_NO_OPERATION);
        delta = delta.combine(Delta::default().replace_u16(old, sum(option) as u16).at_offset(span.offset));
    }
    delta
}

/// Fits the options of a SYN to the way through the gateway. An MSS above `mss_max` is brought down to it (RFC 6691); a
/// smaller one stays, and where there is none, none is added. MP_CAPABLE (RFC 8684 §3.1: kind 30, subtype 0) is
/// overwritten with no-operations, so that the connection is plain TCP.
pub fn edit_syn(options: &mut [u8], mss_max: u16) -> Delta {
    let mut delta = Delta::default();
    let mut spans = Spans::new();
    while let Some(span) = spans.next(options) {
        let change = match (span.kind, span.len) {
            (KIND_MSS, 4) => lower_mss(options, span, mss_max),
            (KIND_MPTCP, 3..) if options[span.offset + 2] >> 4 == 0 => erase_span(options, span),
            _ => continue,
        };
        delta = delta.combine(change);
    }
    delta
}

#[inline]
fn lower_mss(options: &mut [u8], span: Span, max: u16) -> Delta {
    let mss = get_u16(options, span.offset + 2);
    if mss <= max {
        return Delta::default();
    }
    put_u16(options, span.offset + 2, max);
    Delta::default().replace_u16(mss, max).at_offset(span.offset)
}

/// Overwrites every option whose kind is among `kinds` with no-operations, whatever its length. `None` if there was none.
#[inline]
pub fn erase_kind(options: &mut [u8], kinds: &[u8]) -> Option<Delta> {
    debug_assert!(!kinds.contains(&KIND_END) && !kinds.contains(&KIND_NO_OPERATION));
    if options.is_empty() || (is_only_timestamps(options) && !kinds.contains(&KIND_TIMESTAMPS)) {
        return None;
    }
    let mut erased = None;
    let mut spans = Spans::new();
    while let Some(span) = spans.next(options) {
        if kinds.contains(&span.kind) {
            let change = erase_span(options, span);
            erased = Some(erased.unwrap_or(Delta::default()).combine(change));
        }
    }
    erased
}

#[cold]
fn erase_span(options: &mut [u8], span: Span) -> Delta {
    let bytes = &mut options[span.offset..span.offset + span.len];
    let old = sum(bytes) as u16;
    bytes.fill(KIND_NO_OPERATION);
    Delta::default().replace_u16(old, sum(bytes) as u16).at_offset(span.offset)
}

#[cfg(test)]
mod tests {
    use super::super::{Options, TcpOption};
    use super::*;
    use crate::wire::checksum::{adjust, internet_checksum};
    use proptest::prelude::*;

    /// A header of which `options` is the end; its first twenty bytes are not all zero.
    fn checksum_with(options: &[u8]) -> u16 {
        internet_checksum(&[&[0x12; 20], options].concat())
    }

    /// Runs an edit and checks that what it says of the checksum is true. Whether it found anything to edit.
    fn checked(options: &mut [u8], edit: impl FnOnce(&mut [u8]) -> Option<Delta>) -> bool {
        let before = checksum_with(options);
        let delta = edit(options);
        let after = adjust(before, delta.unwrap_or_default().fold());
        assert_eq!(after, checksum_with(options), "{options:?}");
        delta.is_some()
    }

    #[test]
    fn sack_blocks_move_up_where_others_are_taken_out() {
        let with = |blocks: &[(u32, u32)]| {
            let mut option = vec![1, 1, 5, 2 + 8 * blocks.len() as u8];
            blocks.iter().for_each(|(from, to)| {
                option.extend(from.to_be_bytes());
                option.extend(to.to_be_bytes());
            });
            option
        };
        let all = [(10, 20), (30, 40), (50, 60)];
        for kept in 0..8 {
            let mut options = with(&all);
            let judge = |from, to| (kept >> (from / 20) & 1 == 1).then_some((from + 1, to));
            assert!(checked(&mut options, |options| Some(retain_sack(options, judge))));
            let left: Vec<_> = all.into_iter().filter_map(|(from, to)| judge(from, to)).collect();
            let mut expected = if left.is_empty() { Vec::new() } else { with(&left) };
            expected.resize(28, 1);
            assert_eq!(options, expected, "{kept}");
        }
    }

    /// Option lists as stacks and attackers write them; options start at even and odd offsets.
    fn any_options() -> impl Strategy<Value = Vec<u8>> {
        let option = prop_oneof![
            Just(vec![1]),
            any::<[u8; 2]>().prop_map(|v| [&[2, 4][..], &v].concat()),
            any::<u8>().prop_map(|v| vec![3, 3, v]),
            Just(vec![4, 2]),
            (1usize..4, any::<[u8; 24]>())
                .prop_map(|(n, v)| { [&[5, 2 + 8 * n as u8][..], &v[..8 * n]].concat() }),
            any::<[u8; 8]>().prop_map(|v| [&[8, 10][..], &v].concat()),
            any::<[u8; 6]>().prop_map(|v| [&[254, 8][..], &v].concat()),
            (0u8..4, any::<[u8; 9]>()).prop_map(|(s, v)| [&[30, 12, s << 4][..], &v].concat()),
            (any::<u8>(), any::<u8>()).prop_map(|(kind, len)| vec![kind, len]),
        ];
        prop::collection::vec(option, 0..8).prop_map(|options| {
            let mut options = options.concat();
            options.truncate(40);
            while options.len() % 4 != 0 {
                options.push(0);
            }
            options
        })
    }

    #[test]
    fn the_usual_layout_is_recognised() {
        let mut options = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
        assert!(is_only_timestamps(&options));
        assert!(!is_only_timestamps(&[&options[..], &[1, 1, 1, 1]].concat()));
        assert!(!is_only_timestamps(&options[..11]));
        options[3] = 9;
        assert!(!is_only_timestamps(&options));
    }

    #[test]
    fn timestamps_move_by_their_two_differences_wherever_they_stand() {
        for padding in 0..4 {
            let mut options = [&vec![1; padding][..], &[8, 10, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 2]].concat();
            checked(&mut options, |options| Some(translate_timestamps(options, 3, 5)));
            let moved = TcpOption::Timestamps { val: 2, ecr: 0xffff_fffd, offset: padding + 2 };
            assert_eq!(Options::new(&options).last(), Some(moved));
        }
    }

    #[test]
    fn timestamps_are_read_wherever_they_stand() {
        for padding in 0..4 {
            let options = [&vec![1; padding][..], &[8, 10, 0, 0, 0, 7, 0, 0, 0, 9]].concat();
            assert_eq!(timestamps(&options), Some((7, 9)), "{padding}");
        }
        for without in [&[][..], &[1, 1, 8, 10, 0, 0, 0, 7], &[8, 9, 0, 0, 0, 7, 0, 0, 0], &[0, 8, 10, 0]] {
            assert_eq!(timestamps(without), None, "{without:?}");
        }
    }

    #[test]
    fn conformance_i20_both_edges_of_all_blocks_move() {
        let mut options = [
            1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 1, 1, 5, 18, 0, 0, 0, 9, 0, 0, 0, 20, 0, 0, 0, 5, 0xff,
            0xff, 0xff, 0xff,
        ];
        checked(&mut options, |options| Some(translate_sack(options, 10)));
        let edges: Vec<u32> = options[16..].chunks(4).map(|edge| get_u32(edge, 0)).collect();
        assert_eq!(edges, [0xffff_ffff, 10, 0xffff_fffb, 0xffff_fff5]);
        assert_eq!(options[..16], [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 1, 1, 5, 18]);
    }

    #[test]
    fn conformance_j5_segment_size_goes_down_never_up_and_is_never_added() {
        for (mss, max, expected) in
            [(1460, 1400, 1400), (1200, 1400, 1200), (1400, 1400, 1400), (0, 1400, 0), (9, 0, 0)]
        {
            for padding in 0..2 {
                let [high, low] = u16::to_be_bytes(mss);
                let mut options = [&vec![1; padding][..], &[2, 4, high, low]].concat();
                checked(&mut options, |options| Some(edit_syn(options, max)));
                assert_eq!(get_u16(&options, padding + 2), expected);
            }
        }
        for untouched in [
            &[1, 1, 1, 1][..],
            &[2, 3, 0xff, 1],
            &[2, 5, 0xff, 0xff, 0xff],
            &[2, 0, 0xff, 0xff],
            &[0, 2, 4, 9],
        ] {
            let mut options = untouched.to_vec();
            assert_eq!(edit_syn(&mut options, 1).fold(), 0);
            assert_eq!(options, untouched);
        }
    }

    #[test]
    fn conformance_j2_client_address_options_become_no_operations() {
        let mut options = [1, 254, 8, 1, 2, 3, 4, 5, 6, 253, 3, 7, 2, 4, 5, 0xb4];
        assert!(checked(&mut options, |options| erase_kind(options, &[253, 254])));
        assert_eq!(options, [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 4, 5, 0xb4]);
        assert_eq!(erase_kind(&mut options, &[253, 254]), None);
        assert_eq!(erase_kind(&mut [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2], &[253, 254]), None);
        assert!(erase_kind(&mut [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2], &[8]).is_some());
        let mut hidden = [0, 254, 8, 1, 2, 3, 4, 5];
        assert_eq!(erase_kind(&mut hidden, &[254]), None, "behind the end of the list it is no option");
    }

    #[test]
    fn mp_capable_goes_and_other_multipath_options_stay() {
        let mut options = [30, 4, 0x01, 0x81, 30, 4, 0x10, 0x00, 30, 2, 1, 1];
        checked(&mut options, |options| Some(edit_syn(options, u16::MAX)));
        assert_eq!(options, [1, 1, 1, 1, 30, 4, 0x10, 0x00, 30, 2, 1, 1]);
        assert_eq!(edit_syn(&mut options, u16::MAX).fold(), 0);
    }

    proptest! {
        #[test]
        fn conformance_g1_every_edit_tells_its_true_checksum_difference(
            options in any_options(), add: u32, sub: u32, max: u16,
        ) {
            let kinds = |options: &[u8]| Options::new(options).count();
            let walked = Options::new(&options).find_map(|option| match option {
                TcpOption::Timestamps { val, ecr, .. } => Some((val, ecr)),
                _ => None,
            });
            prop_assert_eq!(timestamps(&options), walked);
            let mut edited = options.clone();
            checked(&mut edited, |o| Some(translate_timestamps(o, add, sub)));
            checked(&mut edited, |o| Some(translate_sack(o, sub)));
            prop_assert_eq!(kinds(&edited), kinds(&options));
            // Both translations undone give the first bytes again.
            translate_timestamps(&mut edited, add.wrapping_neg(), sub.wrapping_neg()).fold();
            translate_sack(&mut edited, sub.wrapping_neg()).fold();
            prop_assert_eq!(&edited, &options);

            checked(&mut edited, |o| Some(edit_syn(o, max)));
            prop_assert!(Options::new(&edited).all(|option| !matches!(option, TcpOption::Mss(mss) if mss > max)));
            checked(&mut edited, |o| erase_kind(o, &[253, 254]));
            let forged = Options::new(&edited)
                .any(|option| matches!(option, TcpOption::Unknown { kind: 253 | 254, .. }));
            prop_assert!(!forged);
            prop_assert_eq!(edited.len(), options.len());
        }
    }
}
