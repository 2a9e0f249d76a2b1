//! The first packet of a session, by a shorter way: what was found out a moment ago, when the session began, is not
//! asked again.
//!
//! It is for a [`super::plain`] packet within one family, whose next hop is in order, of a session whose real server is
//! told nothing of the client. What happens to it is what [`Shard::forward`] would do, by the same functions: of a
//! datagram those of the express lane. Nothing is changed before all conditions hold, so that everything else can still
//! go the long way.

use super::client_address;
use super::express::Lane;
use super::flows::Flow;
use super::forward::mss_limit;
use super::neighbour::NeighbourIndex;
use super::packet::Packet;
use super::parsed::Parsed;
use super::plain::{Kind, TCP4, TCP6};
use super::rewrite;
use super::shard::Shard;
use super::tcp_translate;
use crate::id::PortId;
use crate::service::snapshot::Snapshot;
use crate::session::{Candidate, Direction, Flags, SessionIndex};
use crate::wire::{tcp, tcp_option};

impl<P: Packet> Shard<P> {
    /// Rewrites the packet that began session `index` and says where it leaves; `None` if it is not one for this way, with
    /// nothing changed.
    #[inline]
    pub(super) fn launch(
        &mut self,
        snapshot: &Snapshot,
        lane: &Lane,
        packet: &mut P,
        parsed: &Parsed,
        kind: Kind,
        index: SessionIndex,
    ) -> Option<PortId> {
        match kind {
            Kind::Udp4 | Kind::Udp6 => {
                let candidate = Candidate::of(index, Direction::Inbound);
                let flow = Flow { candidate, plain: Some(kind), ..Flow::EMPTY };
                self.express(lane, packet, &flow)
            }
            Kind::Tcp4 => self.launch_syn::<TCP4>(snapshot, lane, packet, parsed, index),
            Kind::Tcp6 => self.launch_syn::<TCP6>(snapshot, lane, packet, parsed, index),
        }
    }

    /// [`Shard::launch`] of a SYN whose headers have this length.
    #[inline(never)]
    fn launch_syn<const HEADERS: usize>(
        &mut self,
        snapshot: &Snapshot,
        lane: &Lane,
        packet: &mut P,
        parsed: &Parsed,
        index: SessionIndex,
    ) -> Option<PortId> {
        let kind = const { Kind::with_headers(HEADERS) };
        let (l4, end) = (kind.l4(), parsed.end as usize);
        let (hot, cold) = self.sessions.lines_mut(index);
        let sides = if kind.is_v6() { Flags::WIDE } else { 0 };
        let unusual = hot.flags.0 & (Flags::WIDE | Flags::TOA | Flags::PROXY_HEADER) != sides;
        let next_hop = self.neighbours.adjacency(NeighbourIndex(hot.next_hops(Direction::Inbound).0));
        let headers = packet.head().first_chunk::<HEADERS>()?;
        if unusual || !next_hop.is_settled() || lane.is_partial(headers, &parsed.tuple) {
            return None;
        }
        let segment = &mut packet.head_mut()[l4..end];
        let header_len = tcp::header_len(segment);
        // RFC 7413: what came with the SYN is acknowledged with it. The SYN itself was counted when the session began.
        let data_len = (segment.len() - header_len) as u32;
        hot.next_seq_inbound = hot.next_seq_inbound.wrapping_add(data_len);
        let header = &mut segment[..header_len];
        let mss = mss_limit(snapshot, hot, cold, &self.neighbours, Direction::Inbound);
        let mut delta = tcp_option::edit_syn(&mut header[tcp::HEADER_LEN..], mss);
        delta = delta.combine(tcp_translate::translate(header, hot, Direction::Inbound));
        if client_address::may_be_forged(header) {
            delta = delta.combine(client_address::erase_forged(header, &client_address::kinds(None)));
        }

        let headers = packet.head_mut().first_chunk_mut::<HEADERS>().expect("they were read before");
        let found = (index, Direction::Inbound);
        rewrite::rewrite_plain(headers, &self.sessions, found, delta, &mut self.identification);
        let real_server = self.sessions.real_server_within(index, kind.is_v6());
        let hot = self.sessions.hot_mut(index);
        headers[..12].copy_from_slice(next_hop.header());
        hot.packets = 1;
        self.real_servers[real_server.index()].count(Direction::Inbound, parsed.ip_len());
        packet.truncate(end);
        Some(next_hop.port())
    }
}
