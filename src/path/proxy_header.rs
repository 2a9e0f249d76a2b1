//! The PROXY protocol header of a TCP session, until its real server has acknowledged it.
//!
//! ```text
//!  client          gateway                                         real server
//!    ── ACK ──────────┬── ACK ─────────────────────────────────────────>
//!                     └── PSH ACK, header of n bytes, sequence S ───────>     a segment of the gateway's own
//!    ── data, seq C ──── data, seq S + n ───────────────────────────────>     n more than the client's, for good
//!    <─ ack C ────────── ack S .. S + n ────────────────────────────────     nothing of the header is shown
//!    <─ ack C + m ────── ack S + n + m ─────────────────────────────────     acknowledged: the express lane has it
//! ```
//! It follows the handshake's last ACK without waiting for data, so that a server may speak first; if that ACK was lost,
//! it goes ahead of what came instead. Until it is acknowledged every packet of the session comes by here: it is sent
//! again by the timer (RFC 6298) and when client or real server show that it is missing. The real server's answers are
//! made such as if it had been acknowledged; then [`Shard::pass_on`] treats them like any other.
//!
//! No byte of the client's may take the header's place: what would come before it, or into it, is dropped.

use super::drop_reason::DropReason;
use super::forward::sent_timestamps;
use super::neighbour::NeighbourIndex;
use super::own_segment::{OwnSegment, timestamps, write_own_segment};
use super::packet::{Io, Packet};
use super::parsed::Parsed;
use super::proxy_front;
use super::rewrite::{self, Ends, Layout};
use super::shard::{Shard, Turn};
use super::tcp_track::{self, Segment};
use crate::clock::Tick;
use crate::id::PortId;
use crate::session::{Cold, Direction, Flags, HeaderOnItsWay, Hot, ProxyFacts, SessionIndex, State};
use crate::wire::checksum::{self, Delta};
use crate::wire::proxy_protocol::{self, Version};
use crate::wire::{Protocol, Tuple, tcp, tcp_option};

/// RFC 6298 §2.1: the first retransmission comes after a second.
const TIMEOUT_TICKS: u32 = Tick::PER_SECOND;
/// RFC 6298 §5.5, §2.5: each next one after twice the time, up to a minute.
const TIMEOUT_TICKS_MAX: u32 = 60 * Tick::PER_SECOND;
/// What shows that the header is missing counts at once; then not again within this time, which doubles as well: one
/// lost header makes as many such signs as there are segments behind it.
const SIGN_TICKS: u32 = 4;

/// Begins the header of a session.
pub(super) fn begin(header: &mut HeaderOnItsWay, version: Version, flow: &Tuple) {
    header.facts.set(match version {
        Version::V1 => ProxyFacts::TO_SERVER_V1,
        Version::V2 => ProxyFacts::TO_SERVER_V2,
    });
    header.unacknowledged = proxy_protocol::write(version, flow).len() as u8;
}

/// When the header is to be sent again if nothing is heard; `None` if there is nothing to wait for.
pub(super) fn timeout(hot: &Hot, cold: &Cold, now: Tick) -> Option<Tick> {
    let header = &cold.header;
    if !hot.flags.has(Flags::PROXY_HEADER) || header.times_sent == 0 || is_over(hot) {
        return None;
    }
    let waited = since_sent(header, now);
    Some(now.plus(doubled(TIMEOUT_TICKS, header.times_sent - 1).saturating_sub(waited)))
}

/// Whether nobody waits for the header any more.
fn is_over(hot: &Hot) -> bool {
    matches!(hot.state, State::Close | State::TimeWait)
}

fn since_sent(header: &HeaderOnItsWay, now: Tick) -> u32 {
    u32::from((now.0 as u16).wrapping_sub(header.sent))
}

fn doubled(ticks: u32, times: u8) -> u32 {
    (ticks << times.min(12)).min(TIMEOUT_TICKS_MAX)
}

/// Whether a sign that the header is missing is to be acted upon now.
pub(super) fn heeds_sign(header: &HeaderOnItsWay, now: Tick) -> bool {
    match header.times_sent {
        0 => false,
        1 => true,
        more => since_sent(header, now) >= doubled(SIGN_TICKS, more - 2),
    }
}

/// The real server's number for the client's first byte, once the header was sent: right behind it.
pub(super) fn first_byte(hot: &Hot, cold: &Cold) -> u32 {
    cold.client_isn.wrapping_add(1).wrapping_add(hot.seq_delta)
}

/// The next number that the real server expects if it has nothing behind the header; `None` if the header is not on its
/// way.
pub(super) fn expected_within(hot: &Hot, cold: &Cold) -> Option<u32> {
    let left = cold.header.unacknowledged;
    let on_its_way = hot.flags.has(Flags::PROXY_HEADER) && cold.header.times_sent > 0 && left > 0;
    on_its_way.then(|| first_byte(hot, cold).wrapping_sub(left.into()))
}

/// A number that lies within the header, as a client may be shown it: that of its own first byte.
pub(super) fn not_before_first(seq: u32, hot: &Hot, cold: &Cold) -> u32 {
    let first = cold.client_isn.wrapping_add(1);
    if hot.flags.has(Flags::PROXY_HEADER) && is_within(seq, first) { first } else { seq }
}

/// Whether a number is one of those that a header before `first` takes up.
fn is_within(seq: u32, first: u32) -> bool {
    (1..=proxy_protocol::LEN_MAX as u32).contains(&first.wrapping_sub(seq))
}

/// Where the segment of a packet stands.
pub(super) fn tcp_header<'a, P: Packet>(packet: &'a mut P, parsed: &Parsed) -> &'a mut [u8] {
    let segment = &mut packet.head_mut()[parsed.l4.into()..];
    let len = tcp::header_len(segment);
    &mut segment[..len]
}

pub(super) fn segment_of<P: Packet>(packet: &P, parsed: &Parsed) -> Segment {
    Segment::read(&packet.head()[parsed.l4.into()..], parsed.end as usize - usize::from(parsed.l4))
}

/// Brings the checksum of a segment up to date, unless its sender left it to the device: then it is made anew later.
pub(super) fn adjust_checksum(header: &mut [u8], delta: Delta, partial: bool) {
    if !partial {
        let sum = checksum::adjust(tcp::checksum(header), delta.fold());
        tcp::set_checksum(header, sum);
    }
}

impl<P: Packet> Shard<P> {
    /// [`Shard::forward`] for a packet of a session with [`Flags::PROXY_HEADER`].
    #[cold]
    pub(super) fn forward_with_header<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        rx_port: PortId,
        mut packet: P,
        parsed: &Parsed,
        (index, direction): (SessionIndex, Direction),
    ) {
        let is_tcp = parsed.tuple.protocol == Protocol::Tcp;
        let is_from_front = self.sessions.cold(index).header.facts.has(ProxyFacts::FROM_FRONT);
        if (is_tcp || is_from_front) && self.check_way(turn, rx_port, index, direction).is_ok() {
            match direction {
                Direction::Inbound if !is_from_front => {
                    return self.forward_behind_header(turn, rx_port, packet, *parsed, index);
                }
                Direction::Inbound if is_tcp => {
                    return self.forward_from_front(turn, rx_port, packet, *parsed, index);
                }
                Direction::Inbound => {
                    return self.forward_datagram_from_front(turn, rx_port, packet, *parsed, index);
                }
                Direction::Outbound if is_tcp => self.hide_header(turn, rx_port, &mut packet, parsed, index),
                Direction::Outbound => {}
            }
        }
        self.pass_on(turn, rx_port, packet, parsed, (index, direction));
    }

    /// A segment of the client's: never before the header, nor in its place.
    pub(super) fn forward_behind_header<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        rx_port: PortId,
        mut packet: P,
        mut parsed: Parsed,
        index: SessionIndex,
    ) {
        let found = (index, Direction::Inbound);
        let segment = segment_of(&packet, &parsed);
        if segment.flags & tcp::SYN != 0 {
            let partial = self.has_partial_checksum(turn, rx_port, &packet, &parsed);
            if !self.empty_syn(&mut packet, &mut parsed, index, partial) {
                return self.drop(packet, DropReason::Headroom);
            }
            self.pass_on(turn, rx_port, packet, &parsed, found);
            return;
        }
        let (hot, cold) = self.sessions.lines_mut(index);
        let is_sent = cold.header.times_sent > 0;
        let is_retransmission = tcp::seq_before(segment.seq, hot.next_seq_inbound);
        let is_bare = segment.next_seq() == segment.seq;
        let echo = sent_timestamps(tcp_header(&mut packet, &parsed)).map_or(0, |(_, echo)| echo);
        if segment.flags & tcp::RST != 0 {
            // It counts with exactly the number behind the header: that the real server has one is seen to first. One
            // that was challenged comes again.
            let is_exact = segment.seq == hot.next_seq_inbound && expected_within(hot, cold).is_some();
            if is_exact && (!is_over(hot) || heeds_sign(&cold.header, turn.now.tick())) {
                self.send_header_again(turn, index, echo, usize::MAX);
            }
            self.pass_on(turn, rx_port, packet, &parsed, found);
            return;
        }
        let is_due = !is_sent && tcp_track::completes_handshake(hot, cold, &segment);
        let takes_its_place = match is_sent {
            true => tcp::seq_before(segment.seq, cold.client_isn.wrapping_add(1)),
            false => !is_due,
        };
        if takes_its_place && !is_bare {
            return self.drop(packet, DropReason::ProxyHeaderFirst);
        }
        if is_due || is_sent {
            self.note_client(&mut packet, &parsed, index, &segment);
        }
        if is_due {
            return self.forward_with_first_header(turn, rx_port, packet, &parsed, index, (is_bare, echo));
        }
        if is_retransmission && !is_bare && heeds_sign(&self.sessions.cold(index).header, turn.now.tick()) {
            self.send_header_again(turn, index, echo, usize::MAX);
        }
        self.pass_on(turn, rx_port, packet, &parsed, found);
    }

    /// The segment with which the handshake is over, and the header: behind it if it is nothing but an ACK, by which a
    /// real server under SYN cookies knows the connection again; ahead of it if it holds more.
    fn forward_with_first_header<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        rx_port: PortId,
        packet: P,
        parsed: &Parsed,
        index: SessionIndex,
        (is_bare, echo): (bool, u32),
    ) {
        let found = (index, Direction::Inbound);
        // Without a buffer the segment is as good as lost, and its sender will repeat it.
        let Some(buffer) = turn.io.allocate() else {
            self.counters.proxy_no_buffer += 1;
            return self.drop(packet, DropReason::PacketPoolEmpty);
        };
        if is_bare {
            if self.pass_on(turn, rx_port, packet, parsed, found) {
                self.send_header(turn, index, buffer, echo, usize::MAX);
            }
        } else if self.send_header(turn, index, buffer, echo, usize::MAX) {
            self.pass_on(turn, rx_port, packet, parsed, found);
        } else {
            self.drop(packet, DropReason::Headroom);
        }
    }

    /// Takes down what a header sent later has to say of the client.
    fn note_client(&mut self, packet: &mut P, parsed: &Parsed, index: SessionIndex, segment: &Segment) {
        let header = tcp_header(packet, parsed);
        let (hot, cold) = self.sessions.lines_mut(index);
        let is_new = cold.header.times_sent == 0 || !tcp::seq_before(segment.ack, cold.client_ack);
        let is_sound = !tcp::seq_after(segment.ack, hot.next_seq_outbound);
        if segment.flags & tcp::ACK == 0 || !is_new || !is_sound {
            return;
        }
        cold.client_ack = segment.ack;
        cold.header.client_window = tcp::window(header);
        if let Some((value, _)) = sent_timestamps(header) {
            cold.last_timestamp = value;
        }
    }

    /// A SYN brings no data (RFC 7413), which would come before the header, and asks for no cookie to bring some next
    /// time; its sender repeats what is not acknowledged. One that comes again has the number it had the first time.
    /// False if the packet lies in pieces that cannot be put together.
    fn empty_syn(&mut self, packet: &mut P, parsed: &mut Parsed, index: SessionIndex, partial: bool) -> bool {
        let (l4, end) = (usize::from(parsed.l4), parsed.end as usize);
        let header_len = tcp_header(packet, parsed).len();
        let payload_len = end - l4 - header_len;
        let mut delta = Delta::default();
        if payload_len > 0 {
            if packet.head().len() < end && !packet.pull_up(end) {
                return false;
            }
            let payload = checksum::fold(checksum::sum(&packet.head()[l4 + header_len..end]));
            delta = delta.replace_u16(payload, 0).replace_u16(payload_len as u16, 0);
            parsed.end = (l4 + header_len) as u32;
            packet.truncate(l4 + header_len);
        }
        let flow = self.sessions.client_flow(index);
        let front_len = self.sessions.named(index).map_or(0, |named| u32::from(named.header_len));
        let is_removed = self.real_server_of(index).removed;
        let (hot, cold) = self.sessions.lines_mut(index);
        let header = tcp_header(packet, parsed);
        let options = &mut header[tcp::HEADER_LEN..];
        delta =
            delta.combine(tcp_option::erase_kind(options, &[tcp_option::KIND_FAST_OPEN]).unwrap_or_default());
        let lives =
            matches!(hot.state, State::SynRecv | State::Established | State::FinWait | State::CloseWait)
                && !is_removed;
        let seq = tcp::seq(header);
        if seq.wrapping_add(front_len) == cold.client_isn && lives {
            let is_sent = cold.header.times_sent > 0;
            let own_len =
                if is_sent { proxy_protocol::write(version_of(&cold.header), &flow).len() as u32 } else { 0 };
            let first = seq.wrapping_add(front_len).wrapping_sub(own_len);
            tcp::set_seq(header, first);
            delta = delta.replace_u32(seq, first);
        }
        if partial && payload_len > 0 {
            let tuple = &parsed.tuple;
            let pseudo =
                checksum::pseudo_header_sum(&tuple.src, &tuple.dst, tcp::PROTOCOL, header_len as u32);
            tcp::set_checksum(header, checksum::fold(pseudo));
        }
        adjust_checksum(header, delta, partial);
        true
    }

    /// A segment of the real server's, made such as if it had all of the header; which is sent again if that is not so.
    fn hide_header<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        rx_port: PortId,
        packet: &mut P,
        parsed: &Parsed,
        index: SessionIndex,
    ) {
        let partial = self.has_partial_checksum(turn, rx_port, packet, parsed);
        let segment = segment_of(packet, parsed);
        let header = tcp_header(packet, parsed);
        let (hot, cold) = self.sessions.lines_mut(index);
        if proxy_front::is_through(hot, cold, &segment) {
            hot.flags.clear(Flags::PROXY_HEADER);
        }
        let window = tcp::window(header);
        let echo = sent_timestamps(header).map_or(0, |(value, _)| value);
        let (mut delta, is_missing) = note_acknowledgement(header, &segment, hot, cold);
        delta = delta.combine(lower_window(header, &segment, cold));
        adjust_checksum(header, delta, partial);
        let is_heeded = !is_over(hot) && heeds_sign(&cold.header, turn.now.tick());
        if is_missing && window > 0 && is_heeded {
            let shift = if segment.flags & tcp::SYN != 0 { 0 } else { cold.header.server_window_shift };
            self.send_header_again(turn, index, echo, usize::from(window) << shift);
        }
    }

    pub(super) fn has_partial_checksum<I: Io<Packet = P>>(
        &self,
        turn: &Turn<'_, I>,
        rx_port: PortId,
        packet: &P,
        parsed: &Parsed,
    ) -> bool {
        turn.snapshot.ports[rx_port.index()].partial_checksums
            && rewrite::has_partial_checksum(packet.head(), &Layout::from(parsed), parsed)
    }

    /// The timer of a session has found that nothing was heard of its header.
    #[cold]
    pub(super) fn header_timed_out<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        index: SessionIndex,
    ) {
        if self.ensure_route(turn, index).is_ok() {
            self.send_header_again(turn, index, 0, usize::MAX);
        }
    }

    pub(super) fn send_header_again<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        index: SessionIndex,
        echo: u32,
        room: usize,
    ) {
        match turn.io.allocate() {
            Some(buffer) => {
                self.send_header(turn, index, buffer, echo, room);
            }
            None => self.counters.proxy_no_buffer += 1,
        }
    }

    /// Sends what the real server has not acknowledged of the header, as far as it has `room`; `echo` is the timestamp
    /// of its that is echoed, 0 for none. From the first time on the client's numbers lie behind the header. False if
    /// the buffer is too small.
    fn send_header<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        index: SessionIndex,
        mut buffer: P,
        echo: u32,
        room: usize,
    ) -> bool {
        let flow = self.sessions.client_flow(index);
        let ends = Ends::of(&self.sessions, index, Direction::Inbound);
        let (hot, cold) = self.sessions.lines_mut(index);
        let bytes = proxy_protocol::write(version_of(&cold.header), &flow);
        let left = usize::from(cold.header.unacknowledged);
        let is_first = cold.header.times_sent == 0;
        let seq_delta = hot.seq_delta.wrapping_add(if is_first { bytes.len() as u32 } else { 0 });
        let first_byte = cold.client_isn.wrapping_add(1).wrapping_add(seq_delta);
        let has_timestamps = hot.flags.has(Flags::TIMESTAMP);
        let timestamps =
            has_timestamps.then(|| timestamps(cold.last_timestamp.wrapping_add(hot.timestamp_delta), echo));
        let own = OwnSegment {
            segment: tcp::Segment {
                sport: ends.sport,
                dport: ends.dport,
                seq: first_byte.wrapping_sub(left as u32),
                ack: cold.client_ack,
                flags: tcp::PSH | tcp::ACK,
                window: cold.header.client_window,
            },
            options: timestamps.as_ref().map_or(&[], |option| &option[..]),
            payload: &bytes[bytes.len() - left..][..left.min(room)],
        };
        if write_own_segment(&mut buffer, &ends, &own).is_none() {
            self.counters.proxy_no_buffer += 1;
            return false;
        }
        hot.seq_delta = seq_delta;
        cold.header.times_sent = cold.header.times_sent.saturating_add(1);
        cold.header.sent = turn.now.tick().0 as u16;
        let timeout = turn.now.tick().plus(doubled(TIMEOUT_TICKS, cold.header.times_sent - 1));
        let next_hop = NeighbourIndex(hot.next_hops(Direction::Inbound).0);
        self.wheel.reschedule_if_sooner(&mut self.sessions, index, timeout);
        self.counters.originated += 1;
        self.counters.proxy_sent += u64::from(is_first);
        self.counters.proxy_sent_again += u64::from(!is_first);
        self.send_to(turn, next_hop, buffer);
        true
    }
}

pub(super) fn version_of(header: &HeaderOnItsWay) -> Version {
    if header.facts.has(ProxyFacts::TO_SERVER_V1) { Version::V1 } else { Version::V2 }
}

/// Takes down how much of the header is acknowledged, and has the acknowledgement begin behind it. Says what that adds to
/// the checksum, and whether the segment shows that the header, or the rest of it, is missing.
fn note_acknowledgement(
    header: &mut [u8],
    segment: &Segment,
    hot: &mut Hot,
    cold: &mut Cold,
) -> (Delta, bool) {
    const CONTROLS: u8 = tcp::SYN | tcp::FIN | tcp::RST;
    if cold.header.times_sent == 0 || segment.flags & tcp::ACK == 0 {
        return (Delta::default(), false);
    }
    let first = first_byte(hot, cold);
    let on_its_way = &mut cold.header;
    if is_within(segment.ack, first) {
        let left = first.wrapping_sub(segment.ack) as u8;
        on_its_way.unacknowledged = on_its_way.unacknowledged.min(left);
        tcp::set_ack(header, first);
        // Its own data say nothing: it may speak before it hears.
        let is_pure = segment.flags & CONTROLS == 0 && segment.payload_len == 0;
        let is_syn_again = segment.flags & tcp::SYN != 0;
        return (Delta::default().replace_u32(segment.ack, first), is_pure || is_syn_again);
    }
    let furthest = hot.next_seq_inbound.wrapping_add(hot.seq_delta);
    let is_sound = !tcp::seq_before(segment.ack, first) && !tcp::seq_after(segment.ack, furthest);
    if is_sound && segment.flags & tcp::RST == 0 {
        on_its_way.unacknowledged = 0;
        hot.flags.clear(Flags::PROXY_HEADER);
    }
    (Delta::default(), false)
}

/// Keeps from the client what SACK blocks of the real server's say of a header, be it late or of one that came twice
/// (RFC 2883), long after it was acknowledged. `header` has options besides timestamps and the real server's numbers.
/// Returns what that adds to the checksum.
#[cold]
pub(super) fn hide_blocks(header: &mut [u8], hot: &Hot, cold: &Cold) -> Delta {
    if cold.header.times_sent == 0 || tcp::flags(header) & tcp::ACK == 0 {
        return Delta::default();
    }
    let first = first_byte(hot, cold);
    let mut delta = Delta::default();
    let mut ack = tcp::ack(header);
    if is_within(ack, first) {
        delta = delta.replace_u32(ack, first);
        ack = first;
        tcp::set_ack(header, first);
    }
    delta.combine(tcp_option::retain_sack(&mut header[tcp::HEADER_LEN..], |from, to| {
        let from = if is_within(from, first) { first } else { from };
        // A block at the acknowledgement would be nonsense to the client: to it nothing is missing before.
        let is_shown = to != first && !is_within(to, first) && !(from == first && ack == first);
        is_shown.then_some((from, to))
    }))
}

/// What the real server has room for it also needs for the header: the client gets what is left. Not exactly where a
/// window is scaled, but never too much.
fn lower_window(header: &mut [u8], segment: &Segment, cold: &mut Cold) -> Delta {
    let is_syn = segment.flags & tcp::SYN != 0;
    if is_syn {
        cold.header.server_window_shift = window_shift(header);
    }
    if segment.flags & tcp::RST != 0 {
        return Delta::default();
    }
    let shift = if is_syn { 0 } else { cold.header.server_window_shift };
    let (old, taken) = (tcp::window(header), u16::from(cold.header.unacknowledged).div_ceil(1 << shift));
    let new = old.saturating_sub(taken);
    tcp::set_window(header, new);
    Delta::default().replace_u16(old, new)
}

/// RFC 7323 §2.2, §2.3.
fn window_shift(header: &[u8]) -> u8 {
    let shift = tcp_option::Options::new(&header[tcp::HEADER_LEN..]).find_map(|option| match option {
        tcp_option::TcpOption::WindowScale(shift) => Some(shift),
        _ => None,
    });
    shift.map_or(0, |shift| shift.min(14))
}
