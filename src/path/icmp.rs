//! ICMP: echo requests answered, errors about sessions carried to the other side, everything else dropped.
//!
//! An error quotes the packet it is about, as that packet stood on our wire. Reversed, the quote is the key of the
//! session: from it the error learns where to go, and what the quote looked like on the other side (RFC 5508 §4.2).
//! ICMP never changes a session's state or time (RFC 5508 REQ-6).

use super::classify::Place;
use super::client_address;
use super::drop_reason::DropReason;
use super::neighbour::NeighbourIndex;
use super::packet::{Io, Packet};
use super::proxy_header;
use super::rewrite::Ends;
use super::shard::{Shard, Turn};
use crate::id::PortId;
use crate::service::snapshot::Role;
use crate::session::{Cold, Direction, Flags, Hot, SessionIndex};
use crate::wire::icmp::{self, Embedded};
use crate::wire::ipv4::Ipv4Header;
use crate::wire::ipv6::Ipv6Header;
use crate::wire::{Address, Protocol, checksum, ethernet, ipv4, ipv6, proxy_protocol, tcp, tcp_option, uoa};

/// Quoted bytes that are sent on; the rest of a longer quote is cut off (RFC 4443 §2.4c).
const QUOTE_LEN_MAX: usize = 1232;

impl<P: Packet> Shard<P> {
    /// Handles one ICMP or ICMPv6 message other than neighbour discovery. `steered`: it has come to its home already.
    #[cold]
    pub(super) fn icmp<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        rx_port: PortId,
        mut packet: P,
        place: Place,
        steered: bool,
    ) {
        if let Err(reason) = check(&mut packet, &place) {
            return self.drop(packet, reason);
        }
        let kind = packet.head()[usize::from(place.l4)];
        let v4 = place.src.is_v4();
        let (echo, error) = if v4 {
            (kind == icmp::V4_ECHO_REQUEST, icmp::is_error_v4(kind))
        } else {
            (kind == icmp::V6_ECHO_REQUEST, icmp::is_error_v6(kind))
        };
        if echo {
            self.answer_echo(turn, rx_port, packet, &place);
        } else if error {
            self.carry_error(turn, rx_port, packet, &place, steered);
        } else {
            self.drop(packet, DropReason::IcmpUnhandled);
        }
    }

    /// RFC 1122 §3.2.2.6, RFC 4443 §4.2: the same bytes back, from the address that was asked.
    fn answer_echo<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        rx_port: PortId,
        mut packet: P,
        place: &Place,
    ) {
        let owned = turn.snapshot.owned.get(&place.dst).map(|owned| owned.role);
        if !matches!(owned, Some(Role::Virtual | Role::Port | Role::Local(_))) {
            return self.drop(packet, DropReason::IpNotForUs);
        }
        let (l3, l4) = (usize::from(place.l3), usize::from(place.l4));
        packet.truncate(place.end as usize);
        let head = packet.head_mut();
        let (to, from) = (ethernet::source(head), ethernet::destination(head));
        head[..6].copy_from_slice(&to);
        head[6..12].copy_from_slice(&from);
        if place.src.is_v4() {
            icmp::reply_to_echo_v4(&mut head[l4..]);
            head[l3 + 8] = 64;
            head[l3 + 12..l3 + 16].copy_from_slice(&place.dst.v4_octets());
            head[l3 + 16..l3 + 20].copy_from_slice(&place.src.v4_octets());
            ipv4::fill_checksum(&mut head[l3..l4]);
        } else {
            icmp::reply_to_echo_v6(&mut head[l4..]);
            head[l3 + 7] = 64;
            head[l3 + 8..l3 + 24].copy_from_slice(place.dst.octets());
            head[l3 + 24..l3 + 40].copy_from_slice(place.src.octets());
        }
        self.counters.drops.count(DropReason::EchoAnswered);
        self.originate(turn, rx_port, packet);
    }

    fn carry_error<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        rx_port: PortId,
        packet: P,
        place: &Place,
        steered: bool,
    ) {
        let quote_at = usize::from(place.l4) + icmp::HEADER_LEN;
        let embedded = packet.head().get(quote_at..place.end as usize).and_then(|quote| {
            if place.src.is_v4() { Embedded::parse_v4(quote).ok() } else { Embedded::parse_v6(quote).ok() }
        });
        let Some(embedded) = embedded.filter(|embedded| embedded.ip_checksum_ok) else {
            return self.drop(packet, DropReason::IcmpMalformed);
        };
        // RFC 5508 REQ-4, REQ-5: an error goes to whoever sent the packet that it quotes.
        if embedded.tuple.src != place.dst {
            return self.drop(packet, DropReason::IcmpNoSession);
        }
        let key = embedded.tuple.reversed();
        if !steered {
            let home = turn.snapshot.steering.home(&key);
            if home != self.worker {
                return self.hand_off(turn, home, rx_port, packet, 0);
            }
        }
        let Some((index, direction)) = self.sessions.find(&key) else {
            return match self.guests.host(&key) {
                Some(host) => self.hand_off(turn, host, rx_port, packet, 0),
                None => self.drop(packet, DropReason::IcmpNoSession),
            };
        };
        if let Err(reason) = self.check_way(turn, rx_port, index, direction) {
            return self.drop(packet, reason);
        }
        let ttl = packet.head()[usize::from(place.l3) + if place.src.is_v4() { 8 } else { 7 }];
        if ttl <= 1 {
            return self.drop(packet, DropReason::IpTtlExceeded);
        }
        let message = Message { ttl: ttl - 1, ..Message::read(&packet.head()[place.l4.into()..]) };
        let quote = &packet.head()[quote_at..place.end as usize];
        match self.translate_error(turn, quote, message, &embedded, (index, direction)) {
            Ok((neighbour, translated)) => {
                drop(packet);
                self.send_to(turn, neighbour, translated);
            }
            Err(reason) => self.drop(packet, reason),
        }
    }

    /// Whether an error about a session comes from the side to which the quoted packet went (RFC 3704), and there is a
    /// way on.
    pub(super) fn check_way<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        rx_port: PortId,
        index: SessionIndex,
        direction: Direction,
    ) -> Result<(), DropReason> {
        self.ensure_route(turn, index)?;
        let hot = self.sessions.hot(index);
        let behind = NeighbourIndex(hot.next_hops(direction).1);
        let filtered = turn.snapshot.ports[rx_port.index()].reverse_path_filter;
        if filtered && self.neighbours.adjacency(behind).port() != rx_port {
            return Err(DropReason::IpSpoofedSource);
        }
        Ok(())
    }

    /// Builds the error as the other side shall see it: outer addresses of the session's far side, the quote as that
    /// side sent it, checksums anew. `quote` is a packet as it stood on our wire; without Ethernet addresses.
    pub(super) fn translate_error<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        quote: &[u8],
        message: Message,
        embedded: &Embedded,
        (index, direction): (SessionIndex, Direction),
    ) -> Result<(NeighbourIndex, P), DropReason> {
        let kinds = client_address::kinds(self.real_server_of(index).toa.as_ref());
        let ends = Ends::of(&self.sessions, index, direction);
        let (hot, cold) = self.sessions.lines_mut(index);
        let neighbour = NeighbourIndex(hot.next_hops(direction).0);
        let (from_v4, to_v4) = (quote[0] >> 4 == 4, ends.src.is_v4());
        let growth = growth(hot, cold, direction);
        let (error, leaves_room) =
            message.less_growth(growth, from_v4, to_v4).ok_or(DropReason::IcmpUnhandled)?;
        if !leaves_room && hot.flags.has(Flags::TOA) {
            hot.flags.clear(Flags::TOA);
            match embedded.tuple.protocol {
                Protocol::Tcp => self.counters.toa_no_mtu_room += 1,
                Protocol::Udp => self.counters.uoa_no_mtu_room += 1,
            }
        }

        let (quoted_header, quoted_l4) = quote.split_at(embedded.l4_offset);
        let same_family = from_v4 == to_v4;
        let quoted_ip_len = match (same_family, to_v4) {
            (true, _) => embedded.l4_offset,
            (false, true) => ipv4::HEADER_LEN,
            (false, false) => ipv6::HEADER_LEN,
        };
        // Headers that the walk passes are far shorter than what may be quoted.
        let quoted_l4 = &quoted_l4[..quoted_l4.len().min(QUOTE_LEN_MAX - quoted_ip_len)];
        let message_len = icmp::HEADER_LEN + quoted_ip_len + quoted_l4.len();
        let ip_header_len = if to_v4 { ipv4::HEADER_LEN } else { ipv6::HEADER_LEN };
        let l4 = ethernet::HEADER_LEN + ip_header_len;

        let mut answer = turn.io.allocate().ok_or(DropReason::PacketPoolEmpty)?;
        if !answer.grow_back((l4 + message_len).max(ethernet::MIN_FRAME_LEN)) {
            return Err(DropReason::Headroom);
        }
        let out = answer.head_mut();
        let id = self.identification.next_value();
        write_ip(&mut out[ethernet::HEADER_LEN..], (&ends.src, &ends.dst), message_len, None, id, error.ttl);
        let (ethertype, protocol) = if to_v4 {
            (ethernet::TYPE_IPV4, icmp::PROTOCOL_V4)
        } else {
            (ethernet::TYPE_IPV6, icmp::PROTOCOL_V6)
        };
        out[12..14].copy_from_slice(&ethertype.to_be_bytes());

        let message = &mut out[l4..l4 + message_len];
        message[0] = error.error.kind;
        message[1] = error.error.code;
        icmp::set_rest(message, error.error.rest);
        let (quoted_ip, quoted_rest) = message[icmp::HEADER_LEN..].split_at_mut(quoted_ip_len);
        quoted_rest.copy_from_slice(quoted_l4);
        // What this side sent went the other way.
        let sent = Ends { src: ends.dst, dst: ends.src, sport: ends.dport, dport: ends.sport };
        write_quoted_ip(quoted_ip, quoted_header, same_family, &sent, embedded);
        if direction == Direction::Outbound && same_family && to_v4 && quoted_ip_len > ipv4::HEADER_LEN {
            uoa::erase(quoted_ip);
            ipv4::fill_checksum(quoted_ip);
        }
        translate_quoted_ports(quoted_rest, &sent);
        if direction == Direction::Outbound && embedded.tuple.protocol == Protocol::Tcp {
            translate_quoted_segment(quoted_rest, hot, cold, &kinds);
        }
        let sum = if to_v4 {
            checksum::internet_checksum(message)
        } else {
            checksum::l4_checksum(&ends.src, &ends.dst, protocol, message)
        };
        icmp::set_checksum(message, sum);
        Ok((neighbour, answer))
    }
}

/// Whole, unbroken, and with a right checksum: an ICMP message is not passed on otherwise (RFC 5508 REQ-3).
fn check<P: Packet>(packet: &mut P, place: &Place) -> Result<(), DropReason> {
    let end = place.end as usize;
    if end < usize::from(place.l4) + icmp::HEADER_LEN {
        return Err(DropReason::IcmpMalformed);
    }
    if packet.head().len() < end && !packet.pull_up(end) {
        return Err(DropReason::Headroom);
    }
    let message = &packet.head()[place.l4.into()..end];
    let sum = if place.src.is_v4() {
        checksum::internet_checksum(message)
    } else {
        checksum::l4_checksum(&place.src, &place.dst, icmp::PROTOCOL_V6, message)
    };
    if sum == 0 { Ok(()) } else { Err(DropReason::IcmpChecksum) }
}

/// Bytes that TOA or UOA, of both the same, or the PROXY protocol header of each datagram adds to what the client sends,
/// as long as it is still sent.
fn growth(hot: &Hot, cold: &Cold, direction: Direction) -> u16 {
    if direction == Direction::Inbound {
        0
    } else if hot.flags.has(Flags::TOA) {
        client_address::option_len_max(hot, cold) as u16
    } else if hot.flags.has(Flags::PROXY_HEADER) && hot.protocol() == Protocol::Udp {
        proxy_protocol::v2_len(hot.flags.has(Flags::CLIENT_V6)) as u16
    } else {
        0
    }
}

/// An ICMP error without what it quotes: type, code, the four bytes behind the checksum, the TTL it travels with.
#[derive(Clone, Copy)]
pub(super) struct Message {
    error: icmp::Error,
    ttl: u8,
}

impl Message {
    fn read(message: &[u8]) -> Message {
        let error = icmp::Error { kind: message[0], code: message[1], rest: icmp::rest(message) };
        Message { error, ttl: 0 }
    }

    /// RFC 792, RFC 4443 §3.1: nobody answers at the next hop.
    pub(super) const fn host_unreachable(v4: bool) -> Message {
        let (kind, code) = if v4 {
            (icmp::V4_UNREACHABLE, icmp::V4_CODE_HOST)
        } else {
            (icmp::V6_UNREACHABLE, icmp::V6_CODE_ADDRESS)
        };
        Message { error: icmp::Error { kind, code, rest: 0 }, ttl: 64 }
    }

    /// The error in the words of the other side's family, where an MTU is told less the `growth` that the gateway adds
    /// to what the client sends; and whether that left room for it. Not below the least MTU of IPv6, which a client
    /// would not go below (RFC 8201 §4): there the segment has to go without. `None` if the family has no such error.
    fn less_growth(self, growth: u16, from_v4: bool, to_v4: bool) -> Option<(Message, bool)> {
        let whole = self.in_family(from_v4, to_v4)?;
        let Some(mtu) = self.mtu(from_v4).filter(|_| growth > 0) else { return Some((whole, true)) };
        let less = self.with_mtu(from_v4, mtu.saturating_sub(growth.into())).in_family(from_v4, to_v4)?;
        let least = u32::from(ipv6::MTU_MIN);
        // What names even less without TOA is forged, or of no use to this client.
        let path = if from_v4 { mtu + (ipv6::HEADER_LEN - ipv4::HEADER_LEN) as u32 } else { mtu };
        Some(if to_v4 {
            (less, true)
        } else if path < least {
            (whole, true)
        } else if path - u32::from(growth) < least {
            (whole.with_mtu(false, least), false)
        } else {
            (less, true)
        })
    }

    /// The MTU that the error tells, if it is of the kind that does.
    fn mtu(self, v4: bool) -> Option<u32> {
        let icmp::Error { kind, code, rest } = self.error;
        if v4 {
            ((kind, code) == (icmp::V4_UNREACHABLE, icmp::V4_CODE_TOO_BIG)).then_some(rest & 0xffff)
        } else {
            (kind == icmp::V6_TOO_BIG).then_some(rest)
        }
    }

    /// The same error with another MTU.
    fn with_mtu(self, v4: bool, mtu: u32) -> Message {
        let unused = if v4 { self.error.rest & 0xffff_0000 } else { 0 };
        Message { error: icmp::Error { rest: unused | mtu, ..self.error }, ..self }
    }

    /// The error in the words of the other family; `None` if it has none for it.
    fn in_family(self, from_v4: bool, to_v4: bool) -> Option<Message> {
        let error = match (from_v4, to_v4) {
            (true, false) => icmp::error_to_v6(self.error)?,
            (false, true) => icmp::error_to_v4(self.error)?,
            _ => self.error,
        };
        Some(Message { error, ttl: self.ttl })
    }
}

/// The IP header of the quote: as received, with the addresses of this side; or a new one if the family changed.
fn write_quoted_ip(out: &mut [u8], received: &[u8], same_family: bool, sent: &Ends, embedded: &Embedded) {
    let to_v4 = sent.src.is_v4();
    if same_family {
        out.copy_from_slice(received);
        if to_v4 {
            out[12..16].copy_from_slice(&sent.src.v4_octets());
            out[16..20].copy_from_slice(&sent.dst.v4_octets());
            ipv4::fill_checksum(out);
        } else {
            out[8..24].copy_from_slice(sent.src.octets());
            out[24..40].copy_from_slice(sent.dst.octets());
        }
        return;
    }
    let protocol = Some(embedded.tuple.protocol);
    let (ip_len, hop_limit) = if to_v4 {
        (ipv6::HEADER_LEN + usize::from(u16::from_be_bytes([received[4], received[5]])), received[7])
    } else {
        (usize::from(u16::from_be_bytes([received[2], received[3]])), received[8])
    };
    write_ip(out, (&sent.src, &sent.dst), ip_len.saturating_sub(embedded.l4_offset), protocol, 0, hop_limit);
}

/// An IP header in the family of its addresses for `payload_len` bytes of `protocol`, `None` for ICMP.
pub(super) fn write_ip(
    out: &mut [u8],
    (src, dst): (&Address, &Address),
    payload_len: usize,
    protocol: Option<Protocol>,
    id: u16,
    ttl: u8,
) {
    if src.is_v4() {
        let header = Ipv4Header {
            tos: 0,
            total_len: (ipv4::HEADER_LEN + payload_len) as u16,
            id,
            dont_fragment: id == 0,
            ttl,
            protocol: protocol.map_or(icmp::PROTOCOL_V4, |protocol| protocol as u8),
            src: src.v4_octets(),
            dst: dst.v4_octets(),
        };
        ipv4::write_header(out, &header);
    } else {
        let header = Ipv6Header {
            traffic_class: 0,
            flow_label: 0,
            payload_len: payload_len as u16,
            next_header: protocol.map_or(icmp::PROTOCOL_V6, |protocol| protocol as u8),
            hop_limit: ttl,
            src: *src.octets(),
            dst: *dst.octets(),
        };
        ipv6::write_header(out, &header);
    }
}

/// Ports of the quote; eight bytes are always there.
fn translate_quoted_ports(quoted: &mut [u8], sent: &Ends) {
    quoted[0..2].copy_from_slice(&sent.sport.to_be_bytes());
    quoted[2..4].copy_from_slice(&sent.dport.to_be_bytes());
}

/// A quoted segment as the client sent it, as far as it reaches: the sequence number, which clients check
/// (RFC 5927 §4.1), and without the TOA that the gateway put in, though as long. Nobody checks the quoted checksum
/// (RFC 5508 REQ-3c).
fn translate_quoted_segment(quoted: &mut [u8], hot: &Hot, cold: &Cold, toa_kinds: &[u8]) {
    let seq = tcp::seq(quoted).wrapping_sub(hot.seq_delta);
    tcp::set_seq(quoted, proxy_header::not_before_first(seq, hot, cold));
    if quoted.len() > tcp::HEADER_LEN {
        let header_len = tcp::header_len(quoted).min(quoted.len());
        if let Some(options) = quoted.get_mut(tcp::HEADER_LEN..header_len) {
            let _ = tcp_option::erase_kind(options, toa_kinds);
        }
    }
}
