//! What one TCP segment means for its session: state, sequence numbers seen, the end.
//!
//! The state machine is IPVS's, but it moves only for segments whose numbers lie where the connection is (RFC 5961): a
//! handshake is over when the client has acknowledged the real server's SYN, a FIN is the end of what its side has sent,
//! a RST ends the session with exactly the number that the receiver expects. Everything else is passed on for the
//! receiver to judge and changes nothing here, except a RST that nobody could have meant for this connection: that one
//! is dropped.

use crate::session::tcp_state::{self, Event};
use crate::session::{Cold, Direction, Flags, Hot, State};
use crate::wire::tcp;

/// How far an acknowledgement may lag behind what the other side has sent, a sequence number behind what its own side
/// has sent, and a RST on either side of the expected number.
///
/// Windows reach 1 GiB (RFC 7323 §2.3). This is what is in flight at 100 Gbit/s over 5 ms, and twice the largest window
/// that Linux takes by default; each doubling doubles what a stranger hits blindly, now 1 of 51 acknowledgement numbers.
/// A connection with more in flight is forwarded like any other. What it loses: a FIN that carries such an old
/// acknowledgement leaves the session in its state until the time-out, and a RST that lags as far is dropped.
const WINDOW: u32 = 1 << 26;

/// How far ahead of what a side has sent a segment of that side may lie: what was lost on the way to the gateway. Less
/// than [`WINDOW`]: segments behind a longer loss are believed once the loss is filled.
const GAP: u32 = 1 << 24;

/// How far behind what a side has sent a RST of that side may lie to be taken for the receiver's expected number: what
/// was lost on the way from the gateway to the receiver.
const LOST_BEHIND: u32 = 1 << 16;

/// The numbers of one segment as it came, before translation.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// sequence number
    pub seq: u32,
    /// acknowledgement number; valid with ACK
    pub ack: u32,
    /// flags
    pub flags: u8,
    /// bytes of payload
    pub payload_len: u32,
}

impl Segment {
    /// Those of a segment of `len` bytes that begins with `header`.
    #[inline(always)]
    pub fn read(header: &[u8], len: usize) -> Segment {
        Segment {
            seq: tcp::seq(header),
            ack: tcp::ack(header),
            flags: tcp::flags(header),
            payload_len: (len - tcp::header_len(header)) as u32,
        }
    }

    /// Sequence number after this segment: SYN and FIN count one each (RFC 9293 §3.4).
    #[inline(always)]
    pub fn next_seq(&self) -> u32 {
        let controls = u32::from(self.flags & tcp::SYN != 0) + u32::from(self.flags & tcp::FIN != 0);
        self.seq.wrapping_add(self.payload_len).wrapping_add(controls)
    }
}

/// What became of the segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tracked {
    /// It goes on; nothing about the session changed but its numbers.
    Forward,
    /// It goes on and moved the session to another state, or ended it.
    Changed,
    /// A RST that goes on, and that the receiver may take for the exact one: silence will tell.
    PerhapsReset,
    /// A new connection of the same client port: the old session ends, the SYN starts a new one.
    Reopen,
    /// A RST that lies outside the window.
    OutsideWindow,
}

/// Takes note of a segment. The common case, data or ACK in an established session, touches only the hot line.
#[inline]
pub fn track(hot: &mut Hot, cold: &mut Cold, direction: Direction, segment: &Segment) -> Tracked {
    const CONTROL: u8 = tcp::SYN | tcp::FIN | tcp::RST;
    if segment.flags & CONTROL == 0 && hot.state == State::Established {
        advance(hot, direction, segment);
        return Tracked::Forward;
    }
    if segment.flags & tcp::RST != 0 {
        track_rst(hot, cold, direction, segment)
    } else if segment.flags & tcp::SYN != 0 {
        track_syn(hot, cold, direction, segment)
    } else {
        track_closing(hot, cold, direction, segment)
    }
}

/// Notes how far a side has sent, and says whether the segment is to be believed: only if both its numbers lie where
/// the connection is (RFC 5961 §5). Else a forged one could move the number by which a forged RST is then judged.
#[inline(always)]
pub(super) fn advance(hot: &mut Hot, direction: Direction, segment: &Segment) -> bool {
    let (furthest, acknowledged) = match direction {
        Direction::Inbound => (&mut hot.next_seq_inbound, segment.ack.wrapping_sub(hot.next_seq_outbound)),
        Direction::Outbound => {
            note_server_data(hot, segment);
            let ack = segment.ack.wrapping_sub(hot.seq_delta);
            (&mut hot.next_seq_outbound, ack.wrapping_sub(hot.next_seq_inbound))
        }
    };
    let next = segment.next_seq();
    let sent = next.wrapping_sub(*furthest);
    if sent <= GAP && lies_near(acknowledged) {
        *furthest = next;
    }
    lies_near(sent) && lies_near(acknowledged)
}

#[inline(always)]
fn note_server_data(hot: &mut Hot, segment: &Segment) {
    if segment.payload_len > 0 {
        hot.flags.set(Flags::SERVER_DATA);
    }
}

/// Whether a distance from the furthest byte known is less than [`WINDOW`] back or at most [`GAP`] ahead.
#[inline(always)]
const fn lies_near(distance: u32) -> bool {
    distance.wrapping_add(WINDOW - 1) < WINDOW + GAP
}

/// FIN, and ACK while the session opens or closes.
#[cold]
fn track_closing(hot: &mut Hot, cold: &mut Cold, direction: Direction, segment: &Segment) -> Tracked {
    let Some(event) = Event::from_flags(segment.flags) else { return Tracked::Forward };
    let opens = hot.state == State::SynRecv;
    if opens && !may_complete_handshake(hot, cold, direction, segment) {
        return Tracked::Forward;
    }
    if !advance(hot, direction, segment) {
        return Tracked::Forward;
    }
    if event == Event::Fin && !note_fin(hot, cold, direction, segment) {
        return Tracked::Forward;
    }
    note_fin_acknowledged(hot, cold, direction, segment.ack);
    // Only the client's acknowledgement completes the handshake. The real server may send data before (RFC 7413), or
    // acknowledge what it does not accept (RFC 9293 §3.10.7.4).
    let state = if opens && direction == Direction::Outbound && event == Event::Ack {
        hot.state
    } else {
        tcp_state::next(hot.state, direction, event)
    };
    let finished = hot.flags.has(Flags::FIN_INBOUND_ACKED)
        && hot.flags.has(Flags::FIN_OUTBOUND_ACKED)
        && !hot.flags.has(Flags::FINISHED);
    if finished {
        hot.flags.set(Flags::FINISHED);
    }
    if state != hot.state || finished {
        hot.state = state;
        return Tracked::Changed;
    }
    Tracked::Forward
}

/// Whether a segment of a half-open session is one that the receiver will not refuse: after the real server's answer
/// and, from the client, with an acknowledgement of it. Until then an ACK of the client's is a guess, and one of the
/// real server's a challenge (RFC 5961 §4.2).
fn may_complete_handshake(hot: &Hot, cold: &mut Cold, direction: Direction, segment: &Segment) -> bool {
    let answered = hot.flags.has(Flags::ANSWERED);
    let may = answered && (direction == Direction::Outbound || acknowledges_answer(hot, cold, segment));
    if !may && direction == Direction::Inbound {
        cold.client_ack = segment.ack;
    }
    may
}

/// Whether a segment of the client's acknowledges the real server's answer to its SYN, and nothing that was not sent.
fn acknowledges_answer(hot: &Hot, cold: &Cold, segment: &Segment) -> bool {
    tcp::seq_after(segment.ack, cold.server_isn) && !tcp::seq_after(segment.ack, hot.next_seq_outbound)
}

/// Whether the handshake is over with this segment of the client's, or was before.
pub(super) fn completes_handshake(hot: &Hot, cold: &Cold, segment: &Segment) -> bool {
    segment.flags & tcp::ACK != 0
        && hot.flags.has(Flags::ANSWERED)
        && acknowledges_answer(hot, cold, segment)
        && lies_near(segment.next_seq().wrapping_sub(hot.next_seq_inbound))
}

#[cold]
fn track_syn(hot: &mut Hot, cold: &mut Cold, direction: Direction, segment: &Segment) -> Tracked {
    match direction {
        Direction::Inbound if segment.flags & tcp::ACK == 0 && starts_anew(hot, segment) => Tracked::Reopen,
        // RFC 5961 §4: a SYN into a living session is the receiver's to challenge, not ours to act upon.
        Direction::Inbound => {
            note_data_on_syn(hot, cold, segment);
            Tracked::Forward
        }
        Direction::Outbound => {
            note_server_syn(hot, cold, segment);
            Tracked::Forward
        }
    }
}

/// Whether a SYN on an existing session is a new connection (IPVS `conn_reuse_mode`). Here also where only the real
/// server has closed, if its number lies beyond all that the client has sent: then it is no SYN of this connection, and
/// of the next one it is (RFC 9293 §3.10.7.4, RFC 6191); any other is the real server's to challenge.
fn starts_anew(hot: &Hot, segment: &Segment) -> bool {
    match hot.state {
        State::TimeWait | State::Close | State::LastAck => true,
        State::FinWait => tcp::seq_after(segment.seq, hot.next_seq_inbound),
        _ => false,
    }
}

/// RFC 7413: what came with the SYN is acknowledged with it.
fn note_data_on_syn(hot: &mut Hot, cold: &Cold, segment: &Segment) {
    if !hot.flags.has(Flags::ANSWERED) && segment.seq == cold.client_isn {
        let next = segment.next_seq();
        if tcp::seq_after(next, hot.next_seq_inbound) {
            hot.next_seq_inbound = next;
        }
    }
}

/// A real server that forgot an unfinished handshake, or answers by SYN cookies, may answer again with another number.
/// What does not acknowledge this session's SYN answers the last one on the lease.
fn note_server_syn(hot: &mut Hot, cold: &mut Cold, segment: &Segment) {
    let is_again = hot.flags.has(Flags::ANSWERED) && segment.seq == cold.server_isn;
    if hot.state == State::SynRecv && !is_again && acknowledges_syn(hot, cold, segment) {
        hot.flags.set(Flags::ANSWERED);
        note_server_data(hot, segment);
        cold.server_isn = segment.seq;
        hot.next_seq_outbound = segment.next_seq();
    }
}

/// Whether a segment of the real server's acknowledges the client's SYN, and maybe data that came with it.
fn acknowledges_syn(hot: &Hot, cold: &Cold, segment: &Segment) -> bool {
    let ack = segment.ack.wrapping_sub(hot.seq_delta);
    segment.flags & tcp::ACK != 0
        && tcp::seq_after(ack, cold.client_isn)
        && !tcp::seq_after(ack, hot.next_seq_inbound)
}

/// Notes a FIN. False for one that lies before the end of what its side has sent, where no FIN can be.
fn note_fin(hot: &mut Hot, cold: &mut Cold, direction: Direction, segment: &Segment) -> bool {
    let next = segment.next_seq();
    match direction {
        Direction::Inbound => {
            if next != hot.next_seq_inbound {
                return false;
            }
            hot.flags.set(Flags::FIN_INBOUND);
            cold.fin_inbound = next;
        }
        Direction::Outbound => {
            if next != hot.next_seq_outbound {
                return false;
            }
            // Where the two cross, both ends go to TIME_WAIT (RFC 9293 §3.6.1): first is who has not seen the other's.
            let ack = segment.ack.wrapping_sub(hot.seq_delta);
            let saw_clients = hot.flags.has(Flags::FIN_INBOUND) && !tcp::seq_before(ack, cold.fin_inbound);
            if !saw_clients {
                hot.flags.set(Flags::SERVER_CLOSED_FIRST);
            }
            hot.flags.set(Flags::FIN_OUTBOUND);
            cold.fin_outbound = next;
        }
    }
    true
}

/// An acknowledgement travels against the FIN it acknowledges. The real server's stands in translated numbers.
fn note_fin_acknowledged(hot: &mut Hot, cold: &Cold, direction: Direction, ack: u32) {
    match direction {
        Direction::Outbound => {
            let ack = ack.wrapping_sub(hot.seq_delta);
            if hot.flags.has(Flags::FIN_INBOUND) && !tcp::seq_before(ack, cold.fin_inbound) {
                hot.flags.set(Flags::FIN_INBOUND_ACKED);
            }
        }
        Direction::Inbound => {
            if hot.flags.has(Flags::FIN_OUTBOUND) && !tcp::seq_before(ack, cold.fin_outbound) {
                hot.flags.set(Flags::FIN_OUTBOUND_ACKED);
            }
        }
    }
}

/// RFC 5961 §3.2: only the exact next number ends the session; one in the window is passed on for the receiver to
/// challenge; any other is dropped.
#[cold]
fn track_rst(hot: &mut Hot, cold: &Cold, direction: Direction, segment: &Segment) -> Tracked {
    let answered = hot.flags.has(Flags::ANSWERED);
    // RFC 9293 §3.10.7.4: the real server refuses an acknowledgement of what it has not sent. It is the receiver's to
    // see that it has sent no such thing.
    let refuses_ack = direction == Direction::Outbound
        && hot.state == State::SynRecv
        && segment.flags & tcp::ACK == 0
        && segment.seq == cold.client_ack;
    let expected = match direction {
        // The real server may know the local port from an earlier connection and have challenged the SYN; this RST is
        // the client's answer to that, and only the real server can judge it (RFC 5961 §4.2).
        Direction::Inbound if !answered && segment.seq != hot.next_seq_inbound => return Tracked::Forward,
        Direction::Inbound => hot.next_seq_inbound,
        // RFC 9293 §3.10.7.3: the answer to a refused SYN acknowledges it.
        Direction::Outbound if !answered => {
            if refuses_ack {
                return Tracked::Forward;
            }
            if !acknowledges_syn(hot, cold, segment) {
                return Tracked::OutsideWindow;
            }
            segment.seq
        }
        Direction::Outbound => hot.next_seq_outbound,
    };
    let behind = expected.wrapping_sub(segment.seq);
    if behind == 0 {
        hot.state = State::Close;
        hot.flags.set(Flags::FINISHED);
        Tracked::Changed
    } else if refuses_ack {
        Tracked::Forward
    } else if behind <= LOST_BEHIND {
        Tracked::PerhapsReset
    } else if behind < WINDOW || behind.wrapping_neg() < WINDOW {
        Tracked::Forward
    } else {
        Tracked::OutsideWindow
    }
}
