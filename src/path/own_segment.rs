//! TCP segments that the gateway itself sends within a session: frames laid out as the real server expects them.
//!
//! Each counts as originated and goes the way of the session's packets. They are made at a session's seldom moments, one
//! buffer each; without a buffer nothing is sent.

use super::icmp::write_ip;
use super::neighbour::NeighbourIndex;
use super::packet::{Io, Packet};
use super::refuse::OWN_TTL;
use super::rewrite::Ends;
use super::shard::{Shard, Turn};
use crate::session::{Direction, SessionIndex};
use crate::wire::{Protocol, ethernet, ipv4, ipv6, tcp};

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
        let (hot, _, wide) = self.sessions.lines_mut(index);
        let ends = Ends::of(hot, wide, Direction::Inbound);
        let seq = hot.next_seq_inbound.wrapping_add(hot.seq_delta);
        let (ack, next_hop) = (hot.next_seq_outbound, NeighbourIndex(hot.next_hop_inbound));
        let flags = tcp::RST | tcp::ACK;
        let reset = tcp::Segment { sport: ends.sport, dport: ends.dport, seq, ack, flags, window: 0 };
        let Some(mut packet) = turn.io.allocate() else { return false };
        let Some(l4) = lay_out(&mut packet, &ends, tcp::HEADER_LEN) else { return false };
        tcp::write_segment(&mut packet.head_mut()[l4..], &ends.src, &ends.dst, &reset);
        self.counters.originated += 1;
        self.send_to(turn, next_hop, packet);
        true
    }
}

/// Makes an empty buffer a frame that carries a TCP segment of `segment_len` bytes between `ends`, all but the Ethernet
/// addresses and the segment itself. Returns where the segment begins; `None` without room. Short frames are padded with
/// zeros to Ethernet's minimum.
pub(super) fn lay_out<P: Packet>(packet: &mut P, ends: &Ends, segment_len: usize) -> Option<usize> {
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
