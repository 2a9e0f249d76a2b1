//! TCP segments that the gateway itself sends within a session: frames laid out as the real server expects them.
//!
//! Each counts as originated and goes the way of the session's packets. They are made at a session's seldom moments, one
//! buffer each; without a buffer nothing is sent.

use super::icmp::write_ip;
use super::neighbour::NeighbourIndex;
use super::packet::{Io, Packet};
use super::proxy_header;
use super::refuse::OWN_TTL;
use super::rewrite::Ends;
use super::shard::{Shard, Turn};
use crate::session::{Direction, SessionIndex};
use crate::wire::{Protocol, checksum, ethernet, ipv4, ipv6, tcp, tcp_option};

/// A segment of the gateway's own.
pub(super) struct OwnSegment<'a> {
    /// ports, numbers, flags, window
    pub segment: tcp::Segment,
    /// options, a multiple of four bytes
    pub options: &'a [u8],
    pub payload: &'a [u8],
}

impl<P: Packet> Shard<P> {
    /// Sends the real server of a session a RST, as if from the client, with the number that it expects. False if there
    /// was no way or no buffer for it.
    #[cold]
    pub(super) fn reset_real_server<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        index: SessionIndex,
    ) -> bool {
        if self.ensure_route(turn, index).is_err() {
            return false;
        }
        let ends = Ends::of(&self.sessions, index, Direction::Inbound);
        let (hot, cold) = self.sessions.lines_mut(index);
        let seq = proxy_header::expected_within(hot, cold)
            .unwrap_or_else(|| hot.next_seq_inbound.wrapping_add(hot.seq_delta));
        let (ack, next_hop) = (hot.next_seq_outbound, NeighbourIndex(hot.next_hops(Direction::Inbound).0));
        let flags = tcp::RST | tcp::ACK;
        let reset = tcp::Segment { sport: ends.sport, dport: ends.dport, seq, ack, flags, window: 0 };
        let Some(mut packet) = turn.io.allocate() else { return false };
        let reset = OwnSegment { segment: reset, options: &[], payload: &[] };
        if write_own_segment(&mut packet, &ends, &reset).is_none() {
            return false;
        }
        self.counters.originated += 1;
        self.send_to(turn, next_hop, packet);
        true
    }
}

/// The timestamps option, two no-operations in front as nearly every stack writes it (RFC 7323 appendix A).
pub(super) fn timestamps(value: u32, echo: u32) -> [u8; tcp_option::TIMESTAMPS_ALIGNED_LEN] {
    let mut option = [1, 1, tcp_option::KIND_TIMESTAMPS, 10, 0, 0, 0, 0, 0, 0, 0, 0];
    option[4..8].copy_from_slice(&value.to_be_bytes());
    option[8..].copy_from_slice(&echo.to_be_bytes());
    option
}

/// Makes an empty buffer a frame that carries a segment between `ends`, all but the Ethernet addresses. `None` without
/// room.
pub(super) fn write_own_segment<P: Packet>(packet: &mut P, ends: &Ends, own: &OwnSegment<'_>) -> Option<()> {
    let header_len = tcp::HEADER_LEN + own.options.len();
    let segment_len = header_len + own.payload.len();
    let l4 = lay_out(packet, ends, segment_len)?;
    let segment = &mut packet.head_mut()[l4..l4 + segment_len];
    tcp::write_segment(segment, &ends.src, &ends.dst, &own.segment);
    tcp::set_header_len(segment, header_len);
    segment[tcp::HEADER_LEN..header_len].copy_from_slice(own.options);
    segment[header_len..].copy_from_slice(own.payload);
    tcp::set_checksum(segment, 0);
    let sum = checksum::l4_checksum(&ends.src, &ends.dst, Protocol::Tcp as u8, segment);
    tcp::set_checksum(segment, sum);
    Some(())
}

/// Makes an empty buffer a frame that carries a TCP segment of `segment_len` bytes between `ends`, all but the Ethernet
/// addresses and the segment itself. Returns where the segment begins; `None` without room. Short frames are padded with
/// zeros to Ethernet's minimum.
fn lay_out<P: Packet>(packet: &mut P, ends: &Ends, segment_len: usize) -> Option<usize> {
    let (ip_len, ethertype) = if ends.src.is_v4() {
        (ipv4::HEADER_LEN, ethernet::TYPE_IPV4)
    } else {
        (ipv6::HEADER_LEN, ethernet::TYPE_IPV6)
    };
    let l4 = ethernet::HEADER_LEN + ip_len;
    if !packet.grow_back((l4 + segment_len).max(ethernet::MIN_FRAME_LEN)) {
        return None;
    }
    let out = packet.head_mut();
    out[12..14].copy_from_slice(&ethertype.to_be_bytes());
    let protocol = Some(Protocol::Tcp);
    write_ip(&mut out[ethernet::HEADER_LEN..], (&ends.src, &ends.dst), segment_len, protocol, 0, OWN_TTL);
    Some(l4)
}
