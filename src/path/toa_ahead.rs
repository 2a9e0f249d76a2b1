//! TOA on its own: a bare ACK that carries the client's address ahead of a segment that has no room for it.
//!
//! To the real server it is a duplicate ACK, or the one that completes the handshake: the client's numbers and window, no
//! payload, of the segment's options only the timestamps, without which it may be dropped (RFC 7323 §3.2).

use super::client_address;
use super::forward::sent_timestamps;
use super::neighbour::NeighbourIndex;
use super::own_segment::lay_out;
use super::packet::{Io, Packet};
use super::rewrite::Ends;
use super::shard::{Shard, Turn};
use crate::service::snapshot::ToaSettings;
use crate::session::{Direction, Flags, SessionIndex};
use crate::wire::{Address, Protocol, checksum, tcp};

/// Two no-operations, kind and length, as nearly every stack writes timestamps (RFC 7323 appendix A).
const TIMESTAMPS: [u8; 4] = [1, 1, 8, 10];
const TIMESTAMPS_LEN: usize = 12;

impl<P: Packet> Shard<P> {
    /// Sends the client's address in a bare ACK toward the real server of session `index`. `header` is the TCP header of
    /// the segment that has no room, as the client sent it. Nothing happens for a SYN, which has nothing to
    /// acknowledge, and without a buffer.
    #[cold]
    pub(super) fn send_toa_ahead<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        header: &[u8],
        index: SessionIndex,
        settings: &ToaSettings,
    ) {
        if tcp::flags(header) & (tcp::ACK | tcp::SYN) != tcp::ACK {
            return;
        }
        let (hot, _, wide) = self.sessions.lines_mut(index);
        let ends = Ends::of(hot, wide, Direction::Inbound);
        let client = if hot.flags.has(Flags::CLIENT_V6) { wide.cip } else { Address::from_v4(hot.cip) };
        let timestamps =
            hot.flags.has(Flags::TIMESTAMP).then(|| timestamps(header, hot.timestamp_delta)).flatten();

        let toa_len = client_address::option_len(!client.is_v4());
        let segment_len = tcp::HEADER_LEN + toa_len + timestamps.map_or(0, |_| TIMESTAMPS_LEN);
        let Some(mut packet) = turn.io.allocate() else { return };
        let Some(l4) = lay_out(&mut packet, &ends, segment_len) else { return };
        let segment = &mut packet.head_mut()[l4..l4 + segment_len];
        let bare = tcp::Segment {
            sport: ends.sport,
            dport: ends.dport,
            seq: tcp::seq(header).wrapping_add(hot.seq_delta),
            ack: tcp::ack(header),
            flags: tcp::ACK,
            window: tcp::window(header),
        };
        tcp::write_segment(segment, &ends.src, &ends.dst, &bare);
        tcp::set_header_len(segment, segment_len);
        let (toa, rest) = segment[tcp::HEADER_LEN..].split_at_mut(toa_len);
        client_address::write(toa, &client, hot.cport, settings);
        if let Some(timestamps) = timestamps {
            rest.copy_from_slice(&timestamps);
        }
        tcp::set_checksum(segment, 0);
        let sum = checksum::l4_checksum(&ends.src, &ends.dst, Protocol::Tcp as u8, segment);
        tcp::set_checksum(segment, sum);

        let next_hop = NeighbourIndex(hot.next_hop_inbound);
        self.counters.originated += 1;
        self.counters.toa_ahead += 1;
        self.send_to(turn, next_hop, packet);
    }
}

/// The timestamps option of a segment in the real server's numbers, if it has one.
fn timestamps(header: &[u8], delta: u32) -> Option<[u8; TIMESTAMPS_LEN]> {
    let (val, ecr) = sent_timestamps(header)?;
    let mut out = [0; TIMESTAMPS_LEN];
    out[..4].copy_from_slice(&TIMESTAMPS);
    out[4..8].copy_from_slice(&val.wrapping_add(delta).to_be_bytes());
    out[8..].copy_from_slice(&ecr.to_be_bytes());
    Some(out)
}
