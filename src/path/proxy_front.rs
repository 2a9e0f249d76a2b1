//! The PROXY protocol header that a trusted front sends ahead of its client's bytes.
//!
//! ```text
//!  front           gateway                                         real server
//!    ── SYN ───────────── SYN ─────────────────────────────────────────>     whose connection it is, nobody knows yet
//!    <─ SYN-ACK ───────── SYN-ACK ─────────────────────────────────────
//!    ── ACK ───────────x  held back: `proxy_header_awaited`
//!    ── header of n ───── ACK, sequence S ─────────────────────────────>     the handshake ends with a client who is known:
//!                      └─ ACK, sequence S - 1 ─────────────────────────>     by TOA in this ACK, by a header behind it
//!    <─ ack C + n ─────── ack S ───────────────────────────────────────      the answer to S - 1 (RFC 9293 §3.10.7.4)
//!    ── data, seq C + n ─ data, sequence S ────────────────────────────>     n less than the front's, for good
//! ```
//! The header counts as if it were a longer SYN: `Cold::client_isn` moves behind it, `Hot::seq_delta` takes it away, and
//! all that follows is the usual. What the real server acknowledges is behind the header to the front; only the front's
//! repetitions have to be cut where they begin within it, and that only until the real server has shown that its
//! handshake is over. From then on it cuts by itself what it has, the express lane has the session, and nothing costs
//! more than for any other. A header that came alone is acknowledged by the real server, too: the segment before what it
//! expects asks it to.
//!
//! Datagrams from a front go this way for ever: each begins with a header, and maybe with another client's. Were one
//! without taken for the same client's, that client could begin its next one with a header of its own making.

use super::drop_reason::DropReason;
use super::forward::sent_timestamps;
use super::neighbour::NeighbourIndex;
use super::own_segment::{OwnSegment, timestamps, write_own_segment};
use super::packet::{Io, Packet};
use super::parsed::Parsed;
use super::proxy_header::{
    self, adjust_checksum, first_byte, heeds_sign, segment_of, tcp_header, version_of,
};
use super::rewrite::Ends;
use super::shard::{Shard, Turn};
use super::tcp_track::{self, Segment};
use crate::id::PortId;
use crate::service::snapshot::ClientAddress;
use crate::session::{Cold, Direction, Flags, Hot, Named, ProxyFacts, SessionIndex};
use crate::wire::checksum::{self, Delta};
use crate::wire::proxy_protocol::{self, ReadError, Said};
use crate::wire::{Protocol, Tuple, tcp, udp};

/// A session begins whose first bytes must be a header.
pub(super) fn await_header(hot: &mut Hot, cold: &mut Cold) {
    hot.flags.set(Flags::PROXY_HEADER);
    cold.header.facts.set(ProxyFacts::FROM_FRONT | ProxyFacts::AWAITED);
    if cold.header.facts.has(ProxyFacts::TO_SERVER) {
        // The window leaves room for the longest one there may be.
        cold.header.unacknowledged = match version_of(&cold.header) {
            proxy_protocol::Version::V1 => proxy_protocol::V1_LEN_MAX as u8,
            proxy_protocol::Version::V2 => proxy_protocol::v2_len(true) as u8,
        };
    }
}

/// Whether with this segment of the real server's a session from a front is like any other: the handshake is over on that
/// side, and there is nothing to tell or no way to tell it.
pub(super) fn is_through(hot: &Hot, cold: &Cold, segment: &Segment) -> bool {
    const KIND: u8 = tcp::SYN | tcp::RST | tcp::ACK;
    let facts = cold.header.facts;
    let is_silent = !facts.has(ProxyFacts::TO_SERVER) && !hot.flags.has(Flags::TOA);
    let furthest = hot.next_seq_inbound.wrapping_add(hot.seq_delta);
    facts.is_named()
        && is_silent
        && segment.flags & KIND == tcp::ACK
        && !tcp::seq_before(segment.ack, first_byte(hot, cold))
        && !tcp::seq_after(segment.ack, furthest)
}

/// What a segment before the one that the real server expects has of the segment that it goes with.
struct Probe {
    ack: u32,
    window: u16,
    timestamps: Option<(u32, u32)>,
}

impl Probe {
    fn of(header: &[u8]) -> Probe {
        Probe { ack: tcp::ack(header), window: tcp::window(header), timestamps: sent_timestamps(header) }
    }
}

impl<P: Packet> Shard<P> {
    /// A segment of a front's: none goes on before the header, and nothing of the header does.
    pub(super) fn forward_from_front<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        rx_port: PortId,
        mut packet: P,
        mut parsed: Parsed,
        index: SessionIndex,
    ) {
        let segment = segment_of(&packet, &parsed);
        if segment.flags & (tcp::SYN | tcp::RST) != 0 {
            return self.forward_behind_header(turn, rx_port, packet, parsed, index);
        }
        if self.sessions.named(index).is_none()
            && let Err(reason) = self.take_header(&mut packet, &parsed, &segment, index)
        {
            if reason != DropReason::ProxyHeaderMalformed {
                return self.drop(packet, reason);
            }
            // The real server is in the midst of a handshake that will not be ended.
            self.reset_real_server(turn, index);
            self.end_session(turn, index);
            return self.refuse(turn, rx_port, packet, &parsed, reason);
        }
        let first = self.sessions.cold(index).client_isn.wrapping_add(1);
        let header_len = self.sessions.named(index).map_or(0, |named| u32::from(named.header_len));
        // A keepalive may lie one before the header. What lies further back is the real server's to judge (RFC 5961 §5):
        // cut, a stranger's guess would have the very number that it expects.
        let begins_within = (1..=header_len + 1).contains(&first.wrapping_sub(segment.seq));
        if begins_within {
            let partial = self.has_partial_checksum(turn, rx_port, &packet, &parsed);
            if let Err(reason) = cut_segment(&mut packet, &mut parsed, &segment, first, partial) {
                return self.drop(packet, reason);
            }
        }
        let rest = segment_of(&packet, &parsed);
        let is_header_alone = begins_within && rest.next_seq() == rest.seq;
        if self.sessions.cold(index).header.facts.has(ProxyFacts::TO_SERVER) {
            self.forward_behind_header(turn, rx_port, packet, parsed, index);
            if is_header_alone {
                self.repeat_own_header(turn, index, &parsed.tuple);
            }
            return;
        }
        let probe = is_header_alone.then(|| Probe::of(tcp_header(&mut packet, &parsed)));
        let before = self.sessions.hot(index).flags;
        if !self.pass_on(turn, rx_port, packet, &parsed, (index, Direction::Inbound)) {
            return;
        }
        if let Some(probe) = probe {
            self.send_probe(turn, index, &probe);
        }
        if before.has(Flags::TOA) {
            self.leave_if_told(index);
        }
    }

    /// Reads the header that the connection must begin with, and takes its length out of the numbers. The error says why
    /// the segment goes no further.
    fn take_header(
        &mut self,
        packet: &mut P,
        parsed: &Parsed,
        segment: &Segment,
        index: SessionIndex,
    ) -> Result<(), DropReason> {
        let (hot, cold) = self.sessions.lines_mut(index);
        let begins = segment.seq == cold.client_isn.wrapping_add(1);
        let is_bare = segment.next_seq() == segment.seq;
        if !begins || is_bare || !tcp_track::completes_handshake(hot, cold, segment) {
            return Err(DropReason::ProxyHeaderAwaited);
        }
        let header_len = tcp_header(packet, parsed).len();
        let said = read_header(packet, parsed, header_len)?.map_err(|_| DropReason::ProxyHeaderMalformed)?;
        let flow = self.told_flow(&said, index)?;
        let len = said.len as u32;
        self.sessions.name(index, Named::new(&flow, said.len as u16));
        let (hot, cold) = self.sessions.lines_mut(index);
        cold.client_isn = cold.client_isn.wrapping_add(len);
        hot.next_seq_inbound = hot.next_seq_inbound.wrapping_add(len);
        hot.seq_delta = hot.seq_delta.wrapping_sub(len);
        if cold.header.facts.has(ProxyFacts::TO_SERVER) {
            let version = version_of(&cold.header);
            proxy_header::begin(&mut cold.header, version, &flow);
        }
        self.counters.proxy_taken += 1;
        Ok(())
    }

    /// Whose connection it is by a header: the front's own, where it says of no other (§2.1 `UNKNOWN`, §2.2 `LOCAL`).
    fn told_flow(&self, said: &Said, index: SessionIndex) -> Result<Tuple, DropReason> {
        let own = self.sessions.inbound(index);
        match said.flow {
            None => Ok(own),
            Some(flow) if flow.protocol == own.protocol => Ok(flow),
            Some(_) => Err(DropReason::ProxyHeaderMalformed),
        }
    }

    /// A front that repeats its header has not heard that the real server has ours.
    fn repeat_own_header<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        index: SessionIndex,
        tuple: &Tuple,
    ) {
        let lives = self.sessions.hot(index).is_live() && self.sessions.inbound(index) == *tuple;
        let cold = self.sessions.cold(index);
        let now = turn.now.tick();
        if lives && cold.header.sent != now.0 as u16 && heeds_sign(&cold.header, now) {
            self.send_header_again(turn, index, 0, usize::MAX);
        }
    }

    /// Asks the real server for an acknowledgement: by a segment before the one that it expects.
    fn send_probe<I: Io<Packet = P>>(&mut self, turn: &mut Turn<'_, I>, index: SessionIndex, probe: &Probe) {
        let ends = Ends::of(&self.sessions, index, Direction::Inbound);
        let (hot, cold) = self.sessions.lines_mut(index);
        let sent = probe.timestamps.filter(|_| hot.flags.has(Flags::TIMESTAMP));
        let option = sent.map(|(value, echo)| timestamps(value.wrapping_add(hot.timestamp_delta), echo));
        let own = OwnSegment {
            segment: tcp::Segment {
                sport: ends.sport,
                dport: ends.dport,
                seq: first_byte(hot, cold).wrapping_sub(1),
                ack: probe.ack,
                flags: tcp::ACK,
                window: probe.window,
            },
            options: option.as_ref().map_or(&[], |option| &option[..]),
            payload: &[],
        };
        let next_hop = NeighbourIndex(hot.next_hops(Direction::Inbound).0);
        // Without a buffer the front repeats its header.
        let Some(mut buffer) = turn.io.allocate() else { return };
        if write_own_segment(&mut buffer, &ends, &own).is_none() {
            return;
        }
        self.counters.originated += 1;
        self.send_to(turn, next_hop, buffer);
    }

    /// A session whose real server has been told by TOA is like any other; so is one whose service does that no more.
    fn leave_if_told(&mut self, index: SessionIndex) {
        let is_over = self.real_server_of(index).toa.is_none();
        let flags = &mut self.sessions.hot_mut(index).flags;
        if is_over || !flags.has(Flags::TOA) {
            flags.clear(Flags::TOA | Flags::PROXY_HEADER);
        }
    }

    /// A datagram of a front's, which must begin with a header.
    pub(super) fn forward_datagram_from_front<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        rx_port: PortId,
        mut packet: P,
        mut parsed: Parsed,
        index: SessionIndex,
    ) {
        if self.real_server_of(index).removed {
            // Its header is for the session that it begins with another.
            self.end_session(turn, index);
            let hash = self.sessions.hash(&parsed.tuple, parsed.v6);
            return self.open(turn, rx_port, packet, &parsed, (hash, None));
        }
        if let Err(reason) = self.take_datagram_header(turn, rx_port, &mut packet, &mut parsed, index) {
            if self.sessions.named(index).is_some() {
                return self.drop(packet, reason);
            }
            self.end_session(turn, index);
            return self.refuse(turn, rx_port, packet, &parsed, reason);
        }
        self.pass_on(turn, rx_port, packet, &parsed, (index, Direction::Inbound));
    }

    /// Takes the header off a datagram; one that names another client than the last is told to the real server.
    fn take_datagram_header<I: Io<Packet = P>>(
        &mut self,
        turn: &Turn<'_, I>,
        rx_port: PortId,
        packet: &mut P,
        parsed: &mut Parsed,
        index: SessionIndex,
    ) -> Result<(), DropReason> {
        let said =
            read_header(packet, parsed, udp::HEADER_LEN)?.map_err(|_| DropReason::ProxyHeaderMalformed)?;
        let flow = self.told_flow(&said, index)?;
        let partial = self.has_partial_checksum(turn, rx_port, packet, parsed);
        if !cut(packet, parsed, udp::HEADER_LEN, said.len, partial) {
            return Err(DropReason::Headroom);
        }
        let before = self.sessions.named(index).map(|named| named.flow(Protocol::Udp));
        if before != Some(flow) {
            self.sessions.name(index, Named::new(&flow, 0));
            let service = turn.snapshot.service(self.sessions.cold(index).service);
            if service.is_some_and(|service| matches!(service.client_address, ClientAddress::Uoa(_)))
                && !self.sessions.hot(index).flags.has(Flags::SERVER_V6)
            {
                self.sessions.hot_mut(index).flags.set(Flags::TOA);
                self.sessions.cold_mut(index).forget_uoa_sent();
            }
        }
        self.counters.proxy_taken += 1;
        Ok(())
    }
}

/// Reads the header at the front of a packet's payload, which begins behind `header_len` bytes of TCP or UDP. A datagram
/// is told by version 2 alone. The outer error: the packet lies in pieces that cannot be put together.
fn read_header<P: Packet>(
    packet: &mut P,
    parsed: &Parsed,
    header_len: usize,
) -> Result<Result<Said, ReadError>, DropReason> {
    let end = parsed.end as usize;
    if packet.head().len() < end && !packet.pull_up(end) {
        return Err(DropReason::Headroom);
    }
    let l4 = &packet.head()[parsed.l4.into()..end];
    let payload = match parsed.tuple.protocol {
        Protocol::Tcp => &l4[header_len..],
        Protocol::Udp => {
            let payload = &l4[header_len..udp::len(l4).min(l4.len())];
            if !payload.starts_with(&proxy_protocol::V2_SIGNATURE) {
                return Ok(Err(ReadError::Absent));
            }
            payload
        }
    };
    Ok(proxy_protocol::read(payload))
}

/// Takes from a segment what lies before the front's byte `first`, and has it begin there.
fn cut_segment<P: Packet>(
    packet: &mut P,
    parsed: &mut Parsed,
    segment: &Segment,
    first: u32,
    partial: bool,
) -> Result<(), DropReason> {
    let before = first.wrapping_sub(segment.seq);
    if segment.flags & tcp::FIN != 0 && before > segment.payload_len {
        // The end of a connection does not lie within the header that it begins with.
        return Err(DropReason::ProxyHeaderMalformed);
    }
    let header_len = tcp_header(packet, parsed).len();
    let len = before.min(segment.payload_len) as usize;
    if len > 0 && !cut(packet, parsed, header_len, len, partial) {
        return Err(DropReason::Headroom);
    }
    let header = tcp_header(packet, parsed);
    tcp::set_seq(header, first);
    adjust_checksum(header, Delta::default().replace_u32(segment.seq, first), partial);
    Ok(())
}

/// Takes the first `len` bytes of payload out of a packet, which begins behind `header_len` bytes of TCP or UDP: the
/// headers move toward the rest. The IP header learns of it when it is rewritten. False if the packet lies in pieces
/// that cannot be put together.
fn cut<P: Packet>(packet: &mut P, parsed: &mut Parsed, header_len: usize, len: usize, partial: bool) -> bool {
    let (l4, end) = (usize::from(parsed.l4), parsed.end as usize);
    if packet.head().len() < end && !packet.pull_up(end) {
        return false;
    }
    let at = l4 + header_len;
    let head = packet.head_mut();
    let is_udp = parsed.tuple.protocol == Protocol::Udp;
    let l4_len = if is_udp { udp::len(&head[l4..end]).min(end - l4) } else { end - l4 };
    let sums = [at, at + len].map(|from| checksum::fold(checksum::sum(&head[from..l4 + l4_len])));
    // The length stands in the pseudo header; of UDP in the header as well.
    let of_length = Delta::default().replace_u16(l4_len as u16, (l4_len - len) as u16);
    let mut delta = of_length.replace_u16(sums[0], sums[1]);
    if is_udp {
        udp::set_len(&mut head[l4..], (l4_len - len) as u16);
        delta = delta.combine(of_length);
    }
    let (field, complete): (u16, fn(u16, u16) -> u16) = match parsed.tuple.protocol {
        Protocol::Tcp => (tcp::checksum(&head[l4..]), checksum::adjust),
        Protocol::Udp => (udp::checksum(&head[l4..]), checksum::adjust_udp),
    };
    let field = if partial {
        checksum::adjust_partial(field, of_length.fold())
    } else {
        complete(field, delta.fold())
    };
    match parsed.tuple.protocol {
        Protocol::Tcp => tcp::set_checksum(&mut head[l4..], field),
        Protocol::Udp => udp::set_checksum(&mut head[l4..], field),
    }
    head.copy_within(..at, len);
    packet.shrink_front(len);
    parsed.end -= len as u32;
    true
}
