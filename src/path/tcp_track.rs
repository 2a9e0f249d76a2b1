//! What one TCP segment means for its session: state, sequence numbers seen, the end.
//!
//! The state machine is IPVS's. Two of its weaknesses are not inherited: a RST moves the session only if its sequence
//! number is the one the receiver expects (RFC 5961 §3.2), and an ACK opens the session only after the real server has
//! answered.

use crate::session::tcp_state::{self, Event};
use crate::session::{Cold, Direction, Flags, Hot, State};
use crate::wire::tcp;

/// How far from the expected number a segment may lie and still be believed, and a RST still be passed on, unacted
/// upon: the largest window (RFC 7323 §2.3) that common stacks use.
const WINDOW: u32 = 1 << 24;

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
    /// A new connection of the same client port: the old session ends, the SYN starts a new one.
    Reopen,
    /// A RST that lies outside the window.
    OutsideWindow,
}

/// Takes note of a segment. The common case, data or ACK in an established session, touches only the hot line.
#[inline]
pub fn track(hot: &mut Hot, cold: &mut Cold, direction: Direction, segment: &Segment) -> Tracked {
    const PLAIN: u8 = tcp::SYN | tcp::FIN | tcp::RST;
    if segment.flags & PLAIN == 0 && hot.state == State::Established {
        advance(hot, direction, segment);
        return Tracked::Forward;
    }
    track_control(hot, cold, direction, segment)
}

/// Notes how far a side has sent. A segment is believed only if both its numbers lie where the connection is
/// (RFC 5961 §5): else a forged one could move the number by which a forged RST is then judged.
#[inline(always)]
pub(super) fn advance(hot: &mut Hot, direction: Direction, segment: &Segment) {
    let (furthest, acknowledged) = match direction {
        Direction::Inbound => (&mut hot.next_seq_inbound, hot.next_seq_outbound.wrapping_sub(segment.ack)),
        Direction::Outbound => {
            let ack = segment.ack.wrapping_sub(hot.seq_delta);
            (&mut hot.next_seq_outbound, hot.next_seq_inbound.wrapping_sub(ack))
        }
    };
    let next = segment.next_seq();
    let is_ahead = next.wrapping_sub(*furthest).wrapping_sub(1) < WINDOW;
    if is_ahead && acknowledged.wrapping_add(WINDOW) < 2 * WINDOW {
        *furthest = next;
    }
}

#[cold]
fn track_control(hot: &mut Hot, cold: &mut Cold, direction: Direction, segment: &Segment) -> Tracked {
    if segment.flags & tcp::RST != 0 {
        return track_rst(hot, cold, direction, segment);
    }
    let Some(event) = Event::from_flags(segment.flags) else { return Tracked::Forward };
    if segment.flags & tcp::SYN != 0 {
        match (direction, segment.flags & tcp::ACK != 0) {
            (Direction::Inbound, false) if starts_anew(hot, cold, segment) => return Tracked::Reopen,
            // RFC 5961 §4: a SYN into a living session is the receiver's to challenge, not ours to act upon.
            (Direction::Inbound, _) => {
                note_data_on_syn(hot, cold, segment);
                return Tracked::Forward;
            }
            // Sent again because its acknowledgement was lost: nothing new.
            (Direction::Outbound, true)
                if hot.flags.has(Flags::ANSWERED) && segment.seq == cold.server_isn =>
            {
                return Tracked::Forward;
            }
            (Direction::Outbound, _) => note_server_syn(hot, cold, segment),
        }
    } else {
        advance(hot, direction, segment);
    }
    if segment.flags & tcp::FIN != 0 {
        note_fin(hot, cold, direction, segment);
    }
    if segment.flags & tcp::ACK != 0 {
        note_fin_acknowledged(hot, cold, direction, segment.ack);
    }
    // Until the real server has answered the SYN, an ACK of the client's is a guess and one of the real server's a
    // challenge (RFC 5961 §4.2): neither establishes anything.
    let state = if !hot.flags.has(Flags::ANSWERED) && event == Event::Ack {
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

/// Whether a SYN on an existing session is a new connection (IPVS `conn_reuse_mode`; here also in FIN_WAIT, where the
/// client's SYN with another number shows that it has forgotten the old one).
fn starts_anew(hot: &Hot, cold: &Cold, segment: &Segment) -> bool {
    match hot.state {
        State::TimeWait | State::Close | State::LastAck => true,
        State::FinWait => segment.seq != cold.client_isn,
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
fn note_server_syn(hot: &mut Hot, cold: &mut Cold, segment: &Segment) {
    let unfinished = !hot.flags.has(Flags::ANSWERED) || hot.state == State::SynRecv;
    if segment.flags & tcp::ACK != 0 && unfinished {
        hot.flags.set(Flags::ANSWERED);
        cold.server_isn = segment.seq;
        hot.next_seq_outbound = segment.next_seq();
    }
}

fn note_fin(hot: &mut Hot, cold: &mut Cold, direction: Direction, segment: &Segment) {
    match direction {
        Direction::Inbound => {
            hot.flags.set(Flags::FIN_INBOUND);
            cold.fin_inbound = segment.next_seq();
        }
        Direction::Outbound => {
            // Where the two cross, both ends go to TIME_WAIT (RFC 9293 §3.6.1): first is who has not seen the other's.
            let ack = segment.ack.wrapping_sub(hot.seq_delta);
            let saw_clients = hot.flags.has(Flags::FIN_INBOUND) && !tcp::seq_before(ack, cold.fin_inbound);
            if !saw_clients {
                hot.flags.set(Flags::SERVER_CLOSED_FIRST);
            }
            hot.flags.set(Flags::FIN_OUTBOUND);
            cold.fin_outbound = segment.next_seq();
        }
    }
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
fn track_rst(hot: &mut Hot, cold: &Cold, direction: Direction, segment: &Segment) -> Tracked {
    let answered = hot.flags.has(Flags::ANSWERED);
    let expected = match direction {
        // The real server may know the local port from an earlier connection and have challenged the SYN; this RST is
        // the client's answer to that, and only the real server can judge it (RFC 5961 §4.2).
        Direction::Inbound if !answered && segment.seq != hot.next_seq_inbound => return Tracked::Forward,
        Direction::Inbound => hot.next_seq_inbound,
        // RFC 9293 §3.10.7.3: the answer to a refused SYN acknowledges it, and maybe data that came with it.
        Direction::Outbound if !answered => {
            let ack = segment.ack.wrapping_sub(hot.seq_delta);
            let acknowledges =
                tcp::seq_after(ack, cold.client_isn) && !tcp::seq_after(ack, hot.next_seq_inbound);
            if segment.flags & tcp::ACK == 0 || !acknowledges {
                return Tracked::OutsideWindow;
            }
            segment.seq
        }
        Direction::Outbound => hot.next_seq_outbound,
    };
    if segment.seq == expected {
        hot.state = State::Close;
        hot.flags.set(Flags::FINISHED);
        return Tracked::Changed;
    }
    let distance = segment.seq.wrapping_sub(expected);
    if distance < WINDOW || distance.wrapping_neg() < WINDOW {
        Tracked::Forward
    } else {
        Tracked::OutsideWindow
    }
}
