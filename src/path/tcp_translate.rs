//! A segment's numbers from one side's space to the other's: sequence, acknowledgement, SACK blocks, timestamps.
//!
//! The gateway gives the real server an initial sequence number and a timestamp base of its own choice (RFC 6528,
//! RFC 7323 §5.4), so that a local port can be used again while the real server still remembers its last user.

use crate::session::{Direction, Flags, Hot};
use crate::wire::checksum::Delta;
use crate::wire::{tcp, tcp_option};

/// Rewrites the numbers in place; `header` is the TCP header with its options. The result is what the change contributes
/// to the TCP checksum.
#[inline]
pub fn translate(header: &mut [u8], hot: &Hot, direction: Direction) -> Delta {
    let acknowledges = tcp::flags(header) & tcp::ACK != 0;
    if direction == Direction::Outbound && !acknowledges {
        return Delta::default();
    }
    let (fixed, options) = header.split_first_chunk_mut().expect("a TCP header");
    let mut delta = translate_number(fixed, hot, direction);
    if options.is_empty() {
        return delta;
    }
    if hot.flags.has(Flags::TIMESTAMP) {
        let (add_val, sub_ecr) = match direction {
            Direction::Inbound => (hot.timestamp_delta, 0),
            Direction::Outbound => (0, hot.timestamp_delta),
        };
        delta = delta.combine(tcp_option::translate_timestamps(options, add_val, sub_ecr));
    }
    if direction == Direction::Outbound && tcp_option::may_hold_sack(options) {
        delta = delta.combine(tcp_option::translate_sack(options, hot.seq_delta));
    }
    delta
}

/// What [`translate`] does to timestamps that stand in their usual layout; where the session has none to translate the
/// difference is 0.
#[inline(always)]
pub fn translate_timestamps(
    timestamps: &mut [u8; tcp_option::TIMESTAMPS_ALIGNED_LEN],
    hot: &Hot,
    direction: Direction,
) -> Delta {
    match direction {
        Direction::Inbound => tcp_option::add_to_aligned_val(timestamps, hot.timestamp_delta),
        Direction::Outbound => tcp_option::take_from_aligned_ecr(timestamps, hot.timestamp_delta),
    }
}

/// What [`translate`] does to the fixed header of a segment with ACK: the client's sequence number, or the acknowledgement of it.
#[inline(always)]
pub fn translate_number(fixed: &mut [u8; tcp::HEADER_LEN], hot: &Hot, direction: Direction) -> Delta {
    let (old, new);
    match direction {
        Direction::Inbound => {
            old = tcp::seq(fixed);
            new = old.wrapping_add(hot.seq_delta);
            tcp::set_seq(fixed, new);
        }
        Direction::Outbound => {
            old = tcp::ack(fixed);
            new = old.wrapping_sub(hot.seq_delta);
            tcp::set_ack(fixed, new);
        }
    }
    Delta::default().replace_u32(old, new)
}
