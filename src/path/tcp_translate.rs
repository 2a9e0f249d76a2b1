//! A segment's numbers from one side's space to the other's: sequence, acknowledgement, SACK blocks, timestamps.
//!
//! The gateway gives the real server an initial sequence number and a timestamp base of its own choice (RFC 6528,
//! RFC 7323 §5.4), so that a local port can be used again while the real server still remembers its last user.

use crate::session::{Direction, Flags, Hot};
use crate::wire::checksum::Delta;
use crate::wire::{tcp, tcp_option};

/// Rewrites the numbers in place; `segment` is the TCP header with its options. The result is what the change
/// contributes to the TCP checksum.
#[inline]
pub fn translate(segment: &mut [u8], hot: &Hot, direction: Direction) -> Delta {
    match direction {
        Direction::Inbound => translate_inbound(segment, hot),
        Direction::Outbound => translate_outbound(segment, hot),
    }
}

#[inline]
fn translate_inbound(segment: &mut [u8], hot: &Hot) -> Delta {
    let mut delta = Delta::default();
    if hot.flags.has(Flags::SEQ) {
        let seq = tcp::seq(segment);
        let translated = seq.wrapping_add(hot.seq_delta);
        tcp::set_seq(segment, translated);
        delta = delta.replace_u32(seq, translated);
    }
    if hot.flags.has(Flags::TIMESTAMP) && segment.len() > tcp::HEADER_LEN {
        delta = delta.combine(tcp_option::translate_timestamps(
            &mut segment[tcp::HEADER_LEN..],
            hot.timestamp_delta,
            0,
        ));
    }
    delta
}

#[inline]
fn translate_outbound(segment: &mut [u8], hot: &Hot) -> Delta {
    let mut delta = Delta::default();
    let acknowledges = tcp::flags(segment) & tcp::ACK != 0;
    if hot.flags.has(Flags::SEQ) && acknowledges {
        let ack = tcp::ack(segment);
        let translated = ack.wrapping_sub(hot.seq_delta);
        tcp::set_ack(segment, translated);
        delta = delta.replace_u32(ack, translated);
    }
    if segment.len() > tcp::HEADER_LEN {
        let options = &mut segment[tcp::HEADER_LEN..];
        if hot.flags.has(Flags::TIMESTAMP) && acknowledges {
            delta = delta.combine(tcp_option::translate_timestamps(options, 0, hot.timestamp_delta));
        }
        if hot.flags.has(Flags::SEQ) && !tcp_option::is_only_timestamps(options) {
            delta = delta.combine(tcp_option::translate_sack(options, hot.seq_delta));
        }
    }
    delta
}
