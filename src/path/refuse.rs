//! Telling a sender that its packet goes no further: RST for TCP, ICMP for the rest and where the connection lives on,
//! never more than the limit allows.
//!
//! The answer goes back the way the packet came, to the MAC address that sent it, so that refusing needs no route and no
//! neighbour. It is never larger than what a sender may be told (RFC 1812 §4.3.2.3: 576 bytes; RFC 4443 §2.4: 1280).

use super::classify::Place;
use super::drop_reason::DropReason;
use super::icmp::write_ip;
use super::limiter::Rate;
use super::packet::{Io, Packet};
use super::parsed::Parsed;
use super::shard::{Shard, Turn};
use crate::id::PortId;
use crate::wire::{Address, Protocol, Tuple, ethernet, icmp, ipv4, ipv6, tcp};

/// TTL and hop limit of what the gateway sends itself.
pub(super) const OWN_TTL: u8 = 64;

/// An ICMP error, by its meaning in both families.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum IcmpError {
    /// RFC 1812 §5.2.7.1: no route leads there
    NoRoute,
    /// the next hop cannot be reached, or not be remembered
    HostUnreachable,
    PortUnreachable,
    /// RFC 5508 REQ-8: no local port was left, or no room for a session
    AdministrativelyProhibited,
    TimeExceeded,
    /// the largest packet that would pass, in the sender's family
    TooBig(u16),
}

impl IcmpError {
    /// Type, code and the four bytes behind the checksum (RFC 792, RFC 1191).
    const fn v4(self) -> (u8, u8, u32) {
        match self {
            IcmpError::NoRoute => (3, 0, 0),
            IcmpError::HostUnreachable => (3, 1, 0),
            IcmpError::PortUnreachable => (3, 3, 0),
            IcmpError::AdministrativelyProhibited => (3, 13, 0),
            IcmpError::TimeExceeded => (11, 0, 0),
            IcmpError::TooBig(mtu) => (3, 4, mtu as u32),
        }
    }

    /// The same for ICMPv6 (RFC 4443 §3).
    const fn v6(self) -> (u8, u8, u32) {
        match self {
            IcmpError::NoRoute => (1, 0, 0),
            IcmpError::HostUnreachable => (1, 3, 0),
            IcmpError::PortUnreachable => (1, 4, 0),
            IcmpError::AdministrativelyProhibited => (1, 1, 0),
            IcmpError::TimeExceeded => (3, 0, 0),
            IcmpError::TooBig(mtu) => (2, 0, mtu as u32),
        }
    }
}

impl<P: Packet> Shard<P> {
    /// Drops a TCP or UDP packet for `reason` and tells its sender, where the reason is one that senders are told.
    #[cold]
    pub(super) fn refuse<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        rx_port: PortId,
        mut packet: P,
        parsed: &Parsed,
        reason: DropReason,
    ) {
        let is_tcp = parsed.tuple.protocol == Protocol::Tcp;
        // RFC 9293 §3.10.7.1: nobody answers a RST; so it costs the others none of the limit either.
        let unanswerable = is_tcp && parsed.tcp_flags & tcp::RST != 0;
        let is_stranger =
            reason == DropReason::NoSessionOutbound && !(is_tcp && self.is_real_server(turn, &parsed.tuple));
        if let Some(error) = told_as(reason)
            && !unanswerable
            && !is_stranger
            && self.may_answer(turn)
        {
            if is_tcp {
                self.send_rst(turn, rx_port, &packet, parsed);
            } else {
                self.send_icmp_error(turn, rx_port, &mut packet, &place_of(parsed), error);
            }
        }
        self.drop(packet, reason);
    }

    /// RFC 1812 §5.2.7.1: there is no way on for a packet of a session that lives. Its sender learns that much, and may
    /// try again (RFC 1122 §4.2.3.9: such an error does not end a connection).
    #[cold]
    pub(super) fn refuse_unroutable<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        rx_port: PortId,
        mut packet: P,
        parsed: &Parsed,
        reason: DropReason,
    ) {
        if let Some(error) = told_as(reason)
            && self.may_answer(turn)
        {
            self.send_icmp_error(turn, rx_port, &mut packet, &place_of(parsed), error);
        }
        self.drop(packet, reason);
    }

    /// RFC 1191, RFC 8201: the packet does not fit; its sender learns what would.
    #[cold]
    pub(super) fn refuse_too_big<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        rx_port: PortId,
        mut packet: P,
        parsed: &Parsed,
        mtu: usize,
    ) {
        if self.may_answer(turn) {
            // RFC 8201 §4: less than the least MTU of IPv6 tells its sender nothing.
            let mtu = if parsed.v6 { mtu.max(ipv6::MTU_MIN.into()) } else { mtu };
            let error = IcmpError::TooBig(mtu.min(usize::from(u16::MAX)) as u16);
            self.send_icmp_error(turn, rx_port, &mut packet, &place_of(parsed), error);
        }
        self.drop(packet, DropReason::IpTooBig);
    }

    /// RFC 1812 §5.3.1: the packet's TTL ended here.
    #[cold]
    pub(super) fn refuse_expired_ttl<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        rx_port: PortId,
        mut packet: P,
        parsed: &Parsed,
    ) {
        let ttl = packet.head()[Parsed::L3 + if parsed.v6 { 7 } else { 8 }];
        let ours = turn.snapshot.owned.contains_key(&parsed.tuple.dst);
        if ttl == 1 && ours && self.may_answer(turn) {
            self.send_icmp_error(turn, rx_port, &mut packet, &place_of(parsed), IcmpError::TimeExceeded);
        }
        self.drop(packet, DropReason::IpTtlExceeded);
    }

    fn is_real_server<I: Io>(&self, turn: &Turn<'_, I>, tuple: &Tuple) -> bool {
        turn.snapshot.real_server_addresses.contains(&tuple.src)
    }

    pub(super) fn may_answer<I: Io>(&mut self, turn: &Turn<'_, I>) -> bool {
        if !turn.snapshot.refuse.answer {
            return false;
        }
        let rate = Rate::per_second(turn.snapshot.refuse.per_second).in_bursts_of(10);
        let admitted = self.refusals.admits(rate, turn.now);
        self.counters.refusals_limited += u64::from(!admitted);
        admitted
    }

    /// RFC 9293 §3.10.7.1: a RST that the sender of `packet` accepts.
    fn send_rst<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        rx_port: PortId,
        packet: &P,
        parsed: &Parsed,
    ) {
        let head = packet.head();
        let segment = &head[parsed.l4.into()..];
        let payload_len = parsed.end as usize - usize::from(parsed.l4) - tcp::header_len(segment);
        let Ok(segment) = tcp::Tcp::parse(segment) else { return };
        let Some(reset) = tcp::Segment::reset_for(&segment, payload_len as u32) else { return };
        let (src, dst) = (parsed.tuple.dst, parsed.tuple.src);
        let Some(mut answer) = turn.io.allocate() else { return };
        let Some(l4) = begin_answer(&mut answer, head, (src, dst), Some(Protocol::Tcp), tcp::HEADER_LEN)
        else {
            return;
        };
        tcp::write_segment(&mut answer.head_mut()[l4..], &src, &dst, &reset);
        self.originate(turn, rx_port, answer);
    }

    /// Quotes `packet` back to its sender. The source is the address it was sent to.
    pub(super) fn send_icmp_error<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        rx_port: PortId,
        packet: &mut P,
        place: &Place,
        error: IcmpError,
    ) {
        let (src, dst) = (place.dst, place.src);
        let budget = if dst.is_v4() { icmp::ERROR_LEN_MAX_V4 } else { icmp::ERROR_LEN_MAX_V6 };
        let end = (place.end as usize).min(usize::from(place.l3) + budget - icmp::HEADER_LEN);
        // What lies in later segments is quoted as well (RFC 1812 §4.3.2.3), if the first one can hold it.
        packet.pull_up(end);
        let head = packet.head();
        let quoted = &head[place.l3.into()..end.min(head.len())];
        let Some(mut answer) = turn.io.allocate() else { return };
        let len = icmp::HEADER_LEN + quoted.len();
        let Some(l4) = begin_answer(&mut answer, head, (src, dst), None, len) else { return };
        let out = &mut answer.head_mut()[l4..l4 + len];
        if dst.is_v4() {
            let (kind, code, rest) = error.v4();
            icmp::write_error_v4(out, kind, code, rest, quoted);
        } else {
            let (kind, code, rest) = error.v6();
            icmp::write_error_v6(out, &src, &dst, kind, code, rest, quoted);
        }
        self.originate(turn, rx_port, answer);
    }
}

/// The error that says to a sender of datagrams why its packet is refused; senders of TCP get a RST for it. `None`: nobody
/// is told. What overload drops between workers is not told, since the next attempt may get through.
const fn told_as(reason: DropReason) -> Option<IcmpError> {
    match reason {
        DropReason::NoService
        | DropReason::NoSession
        | DropReason::NoSessionOutbound
        | DropReason::NoRealServer
        | DropReason::SessionReset
        | DropReason::ProxyHeaderMalformed => Some(IcmpError::PortUnreachable),
        DropReason::NoLocalPort | DropReason::SessionTableFull => Some(IcmpError::AdministrativelyProhibited),
        DropReason::NoRoute => Some(IcmpError::NoRoute),
        DropReason::NeighbourTableFull => Some(IcmpError::HostUnreachable),
        _ => None,
    }
}

fn place_of(parsed: &Parsed) -> Place {
    Place {
        l3: Parsed::L3 as u16,
        l4: parsed.l4,
        end: parsed.end,
        src: parsed.tuple.src,
        dst: parsed.tuple.dst,
        v6: parsed.v6,
    }
}

/// Lays out an answer to the frame `received`: Ethernet turned round, an IP header for `protocol` (`None`: ICMP), `len`
/// bytes to fill in. Returns where they begin. Short frames are padded with zeros to Ethernet's minimum.
fn begin_answer<P: Packet>(
    answer: &mut P,
    received: &[u8],
    (src, dst): (Address, Address),
    protocol: Option<Protocol>,
    len: usize,
) -> Option<usize> {
    let ip_header_len = if dst.is_v4() { ipv4::HEADER_LEN } else { ipv6::HEADER_LEN };
    let l4 = ethernet::HEADER_LEN + ip_header_len;
    if !answer.grow_back((l4 + len).max(ethernet::MIN_FRAME_LEN)) {
        return None;
    }
    let (to, from) = (ethernet::source(received), ethernet::destination(received));
    let ethertype = if dst.is_v4() { ethernet::TYPE_IPV4 } else { ethernet::TYPE_IPV6 };
    let out = answer.head_mut();
    ethernet::write_header(out, &to, &from, ethertype);
    write_ip(&mut out[ethernet::HEADER_LEN..], (&src, &dst), len, protocol, 0, OWN_TTL);
    Some(l4)
}
