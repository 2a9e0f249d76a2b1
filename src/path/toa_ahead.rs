//! TOA on its own: a bare ACK that carries the client's address ahead of a segment that has no room for it.
//!
//! To the real server it is a duplicate ACK, or the one that completes the handshake: the client's numbers and window, no
//! payload, of the segment's options only the timestamps, without which it may be dropped (RFC 7323 §3.2).

use arrayvec::ArrayVec;

use super::client_address;
use super::forward::sent_timestamps;
use super::neighbour::NeighbourIndex;
use super::own_segment::{OwnSegment, timestamps, write_own_segment};
use super::packet::{Io, Packet};
use super::rewrite::Ends;
use super::shard::{Shard, Turn};
use crate::service::snapshot::ToaSettings;
use crate::session::{Direction, Flags, SessionIndex};
use crate::wire::tcp;

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
        let client = self.sessions.client_flow(index);
        let ends = Ends::of(&self.sessions, index, Direction::Inbound);
        let hot = self.sessions.hot(index);
        let sent = hot.flags.has(Flags::TIMESTAMP).then(|| sent_timestamps(header)).flatten();
        let timestamps = sent.map(|(value, echo)| timestamps(value.wrapping_add(hot.timestamp_delta), echo));

        let mut options = ArrayVec::<u8, { tcp::OPTIONS_LEN_MAX }>::new();
        let client_v6 = !client.src.is_v4();
        options.extend(std::iter::repeat_n(0, client_address::option_len(client_v6)));
        client_address::write(&mut options, client_v6, &client.src, client.sport, settings);
        options.extend(timestamps.into_iter().flatten());
        let bare = OwnSegment {
            segment: tcp::Segment {
                sport: ends.sport,
                dport: ends.dport,
                seq: tcp::seq(header).wrapping_add(hot.seq_delta),
                ack: tcp::ack(header),
                flags: tcp::ACK,
                window: tcp::window(header),
            },
            options: &options,
            payload: &[],
        };
        let Some(mut packet) = turn.io.allocate() else { return };
        if write_own_segment(&mut packet, &ends, &bare).is_none() {
            return;
        }

        let next_hop = NeighbourIndex(hot.next_hops(Direction::Inbound).0);
        self.counters.originated += 1;
        self.counters.toa_ahead += 1;
        self.send_to(turn, next_hop, packet);
    }
}
