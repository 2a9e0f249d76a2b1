//! The express lane: a packet that needs nothing but new addresses and numbers, in one straight line.
//!
//! It is for a [`super::plain`] packet of an established session, within one family, whose next hop is in order:
//! nearly every packet there is. What happens to it is what [`Shard::forward`] would do, by the same functions; here
//! their arguments are constants and every condition is asked once, those of a whole burst once per burst ([`Lane`]).
//! Nothing is changed before all conditions hold, so that everything else can still go the long way.

use super::client_address;
use super::flows::Flow;
use super::neighbour::NeighbourIndex;
use super::packet::{Origin, Packet};
use super::parsed::Parsed;
use super::plain::{self, Gate, Kind, TCP4, TCP6, UDP4, UDP6};
use super::rewrite;
use super::shard::{Shard, Turn};
use super::tcp_track::{self, Segment};
use super::tcp_translate;
use crate::clock::Tick;
use crate::id::PortId;
use crate::session::Direction::{Inbound, Outbound};
use crate::session::{Candidate, Flags};
use crate::wire::checksum::Delta;
use crate::wire::{Tuple, tcp, tcp_option, udp};

/// What all packets of a burst find at the entrance of the lane.
#[derive(Clone, Copy)]
pub(super) struct Lane {
    /// what is asked of their headers
    pub gate: Gate,
    /// where they came from
    pub origin: Origin,
    /// the epoch of sessions that may take the lane
    route_epoch: u16,
    /// whether a packet must have come by the port that leads to its sender
    reverse_path_filter: bool,
    /// whether a packet may lack the checksum that only the long way completes
    partial_checksums: bool,
    tick: Tick,
}

impl Lane {
    /// For packets that came from there; `mtu` is the smallest of all ports.
    #[inline]
    pub fn of<I>(turn: &Turn<'_, I>, origin: Origin, mtu: u16) -> Self {
        let view = &turn.snapshot.ports[origin.port().index()];
        Lane {
            gate: Gate::of(view, mtu),
            origin,
            route_epoch: turn.snapshot.route_epoch,
            // Of one port alone everything comes by the right one.
            reverse_path_filter: view.reverse_path_filter && turn.snapshot.ports.len() > 1,
            partial_checksums: view.partial_checksums,
            tick: turn.now.tick(),
        }
    }

    /// Whether a packet lacks the checksum that only the long way completes.
    #[inline(always)]
    pub fn is_partial<const HEADERS: usize>(&self, headers: &[u8; HEADERS], tuple: &Tuple) -> bool {
        self.partial_checksums && rewrite::plain_has_partial_checksum(headers, tuple)
    }
}

/// What [`Shard::pass_run`] is told of all its packets, beside how long their headers are: the direction.
const IN: bool = true;
const OUT: bool = false;

/// Packets that may be of one sort, and their surroundings.
struct Run<'a, P> {
    lane: &'a Lane,
    packets: &'a mut [P],
    flows: &'a [Flow],
}

/// The packets of a burst that have passed, before they leave.
pub(super) struct Departing {
    pub packets: usize,
    /// of these packets
    pub bytes: u64,
    /// the port by which the first one leaves
    first_way: PortId,
    /// the bits in which any other's differs from it
    differ: u16,
}

impl Departing {
    fn none_yet(first_way: PortId) -> Departing {
        Departing { packets: 0, bytes: 0, first_way, differ: 0 }
    }

    /// The port by which all of them leave, if it is one.
    #[inline(always)]
    pub fn only_way(&self) -> Option<PortId> {
        (self.differ == 0).then_some(self.first_way)
    }
}

impl<P: Packet> Shard<P> {
    /// Rewrites a plain packet and says where it leaves; `None` if it is not one for this lane, with nothing changed.
    #[inline(never)]
    pub(super) fn express(&mut self, lane: &Lane, packet: &mut P, flow: &Flow) -> Option<PortId> {
        let (candidate, toa_sent) = (flow.candidate, &mut 0);
        let passed = match flow.sort()? {
            (Kind::Udp4, Inbound) => self.pass::<UDP4, IN, false>(lane, packet, candidate, toa_sent),
            (Kind::Udp4, Outbound) => self.pass::<UDP4, OUT, false>(lane, packet, candidate, toa_sent),
            (Kind::Udp6, Inbound) => self.pass::<UDP6, IN, false>(lane, packet, candidate, toa_sent),
            (Kind::Udp6, Outbound) => self.pass::<UDP6, OUT, false>(lane, packet, candidate, toa_sent),
            (Kind::Tcp4, Inbound) => self.pass::<TCP4, IN, true>(lane, packet, candidate, toa_sent),
            (Kind::Tcp4, Outbound) => self.pass::<TCP4, OUT, false>(lane, packet, candidate, toa_sent),
            (Kind::Tcp6, Inbound) => self.pass::<TCP6, IN, true>(lane, packet, candidate, toa_sent),
            (Kind::Tcp6, Outbound) => self.pass::<TCP6, OUT, false>(lane, packet, candidate, toa_sent),
        };
        self.counters.toa_sent += *toa_sent;
        passed.map(|(way, _)| way)
    }

    /// [`Shard::express`] for the first ones of a burst, as long as they pass.
    ///
    /// Most bursts are of one kind and travel one way: such packets are taken through together, and TCP as if no segment
    /// carried TOA until one should.
    #[inline]
    pub(super) fn express_all(&mut self, lane: &Lane, packets: &mut [P], flows: &[Flow]) -> Departing {
        let mut all = Departing::none_yet(flows.first().map_or(PortId(0), |flow| self.way(flow.candidate)));
        let mut toa = false;
        while let (packets @ [_, ..], flows @ [first, ..]) =
            (&mut packets[all.packets..], &flows[all.packets..])
            && let Some(sort) = first.sort()
        {
            let (run, all) = (Run { lane, packets, flows }, &mut all);
            let passed = match (sort, toa) {
                ((Kind::Udp4, Inbound), _) => self.pass_run::<UDP4, IN, false>(run, all),
                ((Kind::Udp4, Outbound), _) => self.pass_run::<UDP4, OUT, false>(run, all),
                ((Kind::Udp6, Inbound), _) => self.pass_run::<UDP6, IN, false>(run, all),
                ((Kind::Udp6, Outbound), _) => self.pass_run::<UDP6, OUT, false>(run, all),
                ((Kind::Tcp4, Inbound), false) => self.pass_run::<TCP4, IN, false>(run, all),
                ((Kind::Tcp4, Inbound), true) => self.pass_run::<TCP4, IN, true>(run, all),
                ((Kind::Tcp4, Outbound), _) => self.pass_run::<TCP4, OUT, false>(run, all),
                ((Kind::Tcp6, Inbound), false) => self.pass_run::<TCP6, IN, false>(run, all),
                ((Kind::Tcp6, Inbound), true) => self.pass_run::<TCP6, IN, true>(run, all),
                ((Kind::Tcp6, Outbound), _) => self.pass_run::<TCP6, OUT, false>(run, all),
            };
            if passed == 0 {
                let (kind, direction) = sort;
                if toa || !kind.is_tcp() || direction == Outbound {
                    break;
                }
                toa = true;
            }
        }
        all
    }

    /// Passes packets of one sort until there comes another one or one that does not pass; how many.
    #[inline(never)]
    fn pass_run<const HEADERS: usize, const IN: bool, const TOA: bool>(
        &mut self,
        run: Run<'_, P>,
        all: &mut Departing,
    ) -> usize {
        let kind = const { Kind::with_headers(HEADERS) };
        let direction = if IN { Inbound } else { Outbound };
        let (mut passed, mut bytes, mut differ, mut toa_sent) = (0, 0, 0, 0);
        for (packet, flow) in run.packets.iter_mut().zip(run.flows) {
            if flow.plain != Some(kind) || flow.candidate.direction() != direction {
                break;
            }
            let way = self.pass::<HEADERS, IN, TOA>(run.lane, packet, flow.candidate, &mut toa_sent);
            let Some((way, ip_len)) = way else { break };
            differ |= way.0 ^ all.first_way.0;
            bytes += ip_len;
            passed += 1;
        }
        all.packets += passed;
        all.bytes += (bytes + passed * Parsed::L3) as u64;
        all.differ |= differ;
        self.counters.toa_sent += toa_sent;
        passed
    }

    /// Where packets of a session leave.
    #[inline(always)]
    pub(super) fn way(&self, candidate: Candidate) -> PortId {
        let ahead = self.sessions.next_hop(candidate).unwrap_or(0);
        self.neighbours.adjacency(NeighbourIndex(ahead)).port()
    }

    /// [`Shard::express`] of a packet whose headers have this length, that travels inbound or outbound, and that may carry
    /// TOA or not, which is counted; with the bytes of its IP packet.
    #[inline(always)]
    fn pass<const HEADERS: usize, const IN: bool, const TOA: bool>(
        &mut self,
        lane: &Lane,
        packet: &mut P,
        candidate: Candidate,
        toa_sent: &mut u64,
    ) -> Option<(PortId, usize)> {
        let kind = const { Kind::with_headers(HEADERS) };
        let (v6, l4) = (kind.is_v6(), kind.l4());
        let direction = if IN { Inbound } else { Outbound };

        let (mut headers, mut options) = packet.head_mut().split_first_chunk_mut::<HEADERS>()?;
        let tuple = plain::tuple(headers);
        // The lane can put TOA into a client's segments. What a UDP session has to tell, and the answer that ends that, go
        // the long way.
        let told = IN && !TOA || !kind.is_tcp();
        let index = self.sessions.confirm(&tuple, v6, candidate, direction, told)?;
        let hot = self.sessions.hot(index);
        let (ahead, behind) = hot.next_hops(direction);
        let next_hop = self.neighbours.adjacency(NeighbourIndex(ahead));
        let real_server = &mut self.real_servers[self.sessions.real_server_within(index, v6).index()];
        if hot.route_epoch != lane.route_epoch || real_server.removed || !next_hop.is_settled() {
            return None;
        }
        if lane.reverse_path_filter
            && self.neighbours.adjacency(NeighbourIndex(behind)).port() != lane.origin.port()
        {
            return None;
        }

        if lane.is_partial(headers, &tuple) {
            return None;
        }

        let ip_len = plain::ip_len(headers);
        let (mut len_behind, mut delta) = (ip_len, Delta::default());
        if kind.is_tcp() {
            let (payload_len, stamped) = plain_options(headers, options, ip_len)?;
            if IN && TOA && hot.flags.has(Flags::TOA) {
                len_behind += client_address::option_len(v6);
                let due = client_address::is_due_anyway(hot.flags) && len_behind <= lane.gate.mtu();
                let settings = real_server.toa.as_ref().filter(|_| due)?;
                (headers, options, delta) = client_address::insert_plain(packet, &tuple, settings)?;
                *toa_sent += 1;
            }
            if stamped {
                let timestamps = options.first_chunk_mut().expect("they were looked at");
                let translated = tcp_translate::translate_timestamps(timestamps, hot, direction);
                delta = delta.combine(translated);
            }
            let fixed: &mut [u8; tcp::HEADER_LEN] = headers[l4..].first_chunk_mut().expect("a TCP header");
            let numbers =
                Segment { seq: tcp::seq(fixed), ack: tcp::ack(fixed), flags: tcp::ACK, payload_len };
            let hot = self.sessions.hot_mut(index);
            delta = delta.combine(tcp_translate::translate_number(fixed, hot, direction));
            tcp_track::advance(hot, direction, &numbers);
        } else if v6 && udp::checksum(&headers[l4..]) == 0 {
            // RFC 8200 §8.1: IPv6 has no UDP without a checksum
            return None;
        }

        let found = (index, direction);
        rewrite::rewrite_plain(headers, &self.sessions, found, delta, &mut self.identification);
        let hot = self.sessions.hot_mut(index);
        headers[..12].copy_from_slice(next_hop.header());
        hot.stamp = lane.tick;
        hot.packets = hot.packets.wrapping_add(1);
        real_server.count(direction, ip_len);
        packet.truncate(Parsed::L3 + len_behind);
        Some((next_hop.port(), len_behind))
    }
}

/// Bytes of the payload of data or an acknowledgement, and whether timestamps are all its options or it has none; `None` if
/// it is anything else.
#[inline(always)]
fn plain_options<const HEADERS: usize>(
    headers: &[u8; HEADERS],
    options: &[u8],
    ip_len: usize,
) -> Option<(u32, bool)> {
    const OPTIONS_LEN: usize = tcp_option::TIMESTAMPS_ALIGNED_LEN;
    let shape = tcp::shape(headers.last_chunk().expect("it ends in a TCP header"));
    let end = Parsed::L3 + ip_len;
    if shape == tcp::shape_of_ack(0) {
        return Some((end.checked_sub(HEADERS)? as u32, false));
    }
    if shape != tcp::shape_of_ack(OPTIONS_LEN) {
        return None;
    }
    let options = options.first_chunk::<OPTIONS_LEN>()?;
    let payload_len = end.checked_sub(HEADERS + OPTIONS_LEN)? as u32;
    tcp_option::is_only_timestamps(options).then_some((payload_len, true))
}

/// TOA has room beside the options that the lane knows.
const _: () =
    assert!(tcp_option::TIMESTAMPS_ALIGNED_LEN + client_address::option_len(true) <= tcp::OPTIONS_LEN_MAX);
