//! A packet without a session: a new one, or a reason why not.
//!
//! virtual service -> real server -> lease -> session. Whoever is refused is told at once, and the refusal is counted.

use super::drop_reason::DropReason;
use super::express::Lane;
use super::forward::sent_timestamps;
use super::neighbour::NeighbourIndex;
use super::packet::{HandOff, Io, Packet};
use super::parsed::Parsed;
use super::plain::Kind;
use super::proxy_front;
use super::proxy_header;
use super::rewrite::{Ends, ends_delta};
use super::shard::{Shard, Turn};
use super::uoa;
use crate::id::{PortId, RealServerId, WorkerId};
use crate::local_pool::{Lease, LeaseError};
use crate::service::route::NextHop;
use crate::service::scheduler::{ClientKey, Connections};
use crate::service::snapshot::{ClientAddress, LocalPool, Role, Service, Snapshot};
use crate::session::tcp_state::is_active;
use crate::session::{Cold, Direction, Flags, Hot, KeyHash, Keys, SessionIndex, SessionTable, State};
use crate::wire::{Address, Protocol, Tuple, tcp};

/// What a lease's last user left behind at the real server, so that the next is acceptable to it.
#[derive(Clone, Copy, Debug)]
struct Legacy {
    lip: Address,
    lport: u16,
    /// next sequence number in the real server's numbers
    next_seq: u32,
    /// last timestamp in the real server's numbers
    timestamp: u32,
}

/// The numbers that a TCP connection begins with.
#[derive(Clone, Copy, Debug)]
struct Beginning {
    client_isn: u32,
    /// toward the real server
    isn: u32,
    /// the client's first TSval, and what it becomes, if it sent one
    timestamps: Option<(u32, u32)>,
}

impl Beginning {
    #[inline]
    fn write(&self, hot: &mut Hot, cold: &mut Cold, service: &Service, flow: &Tuple) {
        hot.state = State::SynRecv;
        hot.seq_delta = self.isn.wrapping_sub(self.client_isn);
        hot.next_seq_inbound = self.client_isn.wrapping_add(1);
        cold.client_isn = self.client_isn;
        if let Some((value, becomes)) = self.timestamps {
            hot.flags.set(Flags::TIMESTAMP);
            hot.timestamp_delta = becomes.wrapping_sub(value);
            cold.last_timestamp = value;
        }
        match service.client_address {
            ClientAddress::None | ClientAddress::Uoa(_) => {}
            ClientAddress::Toa(_) => hot.flags.set(Flags::TOA),
            ClientAddress::Proxy(settings) => {
                hot.flags.set(Flags::PROXY_HEADER);
                proxy_header::begin(&mut cold.header, settings.version, flow);
            }
        }
    }
}

impl<P: Packet> Shard<P> {
    /// Begins a session with this packet and sends it on, or refuses it. Known of it are its key's hash and, of a plain
    /// one, its lane and what it holds.
    #[inline(never)]
    pub(super) fn open<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        rx_port: PortId,
        mut packet: P,
        parsed: &Parsed,
        (hash, plain): (KeyHash, Option<(&Lane, Kind)>),
    ) {
        if self.workers > 1 {
            let Some(own) = self.keep(turn, rx_port, packet, parsed) else { return };
            packet = own;
        }
        match self.begin_session(turn, rx_port, &packet, parsed, hash) {
            Ok(index) => {
                let way = plain.and_then(|(lane, kind)| {
                    self.launch(turn.snapshot, lane, &mut packet, parsed, kind, index)
                });
                match way {
                    Some(port) => self.transmit(turn, port, packet),
                    None => self.forward(turn, rx_port, packet, parsed, (index, Direction::Inbound)),
                }
            }
            Err(DropReason::NoLocalPort) if self.passes_on(parsed) => {
                let next = WorkerId((self.worker.0 + 1) % self.workers);
                self.hand_off(turn, next, rx_port, packet, parsed.hops + 1);
            }
            Err(reason) => self.refuse(turn, rx_port, packet, parsed, reason),
        }
    }

    /// Whether a worker without a local port for this packet lets the next one try: all may, once, and the home must be
    /// able to remember who took it.
    fn passes_on(&self, parsed: &Parsed) -> bool {
        let another = parsed.hops + 1 < self.workers;
        another && (parsed.hops > 0 || self.guests.has_room())
    }

    /// A packet without a session here stays if its home has passed it on or is here. If the home has noted a host, it goes
    /// there. All others go home: an outdated note has brought them, or their session has just ended, or their tags looked
    /// like those of sessions. The home hears of it before it gets such a packet, else it might send it back.
    #[inline(never)]
    fn keep<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        port: PortId,
        packet: P,
        parsed: &Parsed,
    ) -> Option<P> {
        let inbound = parsed.tuple;
        if parsed.hops > 0 {
            return Some(packet);
        }
        if let Some(host) = self.guests.host(&inbound) {
            self.hand_off(turn, host, port, packet, 0);
            return None;
        }
        let home = turn.snapshot.steering.home(&inbound);
        if home == self.worker {
            return Some(packet);
        }
        match turn.io.hand_off(home, HandOff::GuestEnded { inbound, host: self.worker }) {
            Ok(()) => self.hand_off(turn, home, port, packet, 0),
            Err(_) => self.drop(packet, DropReason::HandOffRingFull),
        }
        None
    }

    /// Gives a packet to another worker.
    pub(super) fn hand_off<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        to: WorkerId,
        port: PortId,
        packet: P,
        hops: u16,
    ) {
        match turn.io.hand_off(to, HandOff::Packet { port, packet, hops }) {
            Ok(()) => self.counters.handed += 1,
            Err(HandOff::Packet { packet, .. }) => self.drop(packet, DropReason::HandOffRingFull),
            Err(_) => unreachable!("the ring gives back what it was given"),
        }
    }

    fn begin_session<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        rx_port: PortId,
        packet: &P,
        parsed: &Parsed,
        hash: KeyHash,
    ) -> Result<SessionIndex, DropReason> {
        let tuple = &parsed.tuple;
        let snapshot = turn.snapshot;
        let (service, to_client) = admit(snapshot, rx_port, parsed)?;
        let real_server = self.schedule(service, tuple).ok_or(DropReason::NoRealServer)?;
        let real_server =
            snapshot.real_servers[real_server.index()].as_ref().ok_or(DropReason::NoRealServer)?;
        let (rip, rport) = (real_server.address, real_server.port.unwrap_or(tuple.dport));
        let to_server = real_server.next_hop.as_ref().ok_or(DropReason::NoRoute)?;
        if self.sessions.len() == self.sessions.capacity() {
            return Err(DropReason::SessionTableFull);
        }
        let pool = snapshot.pools[service.local_pool.index()].as_ref().ok_or(DropReason::NoLocalPort)?;
        let ways = ((to_server, &rip), (to_client, &tuple.src));
        let mut legacy = None;
        let lease = match self.pools.lease(pool, tuple.protocol, &rip, rport) {
            Ok(lease) => lease,
            Err(refused) => {
                let (lease, left) = self
                    .take_over(turn, pool, (tuple.protocol, rport), ways, refused)
                    .inspect_err(|&reason| {
                        let counts = reason == DropReason::NoLocalPort && !self.passes_on(parsed);
                        self.real_servers[real_server.id.index()].no_local_port += u64::from(counts);
                    })?;
                legacy = Some(left);
                lease
            }
        };

        // What the outbound key needs is on its way while everything else is found out and written down.
        let outbound =
            Tuple { src: rip, dst: lease.lip, sport: rport, dport: lease.lport, protocol: tuple.protocol };
        let outbound_hash = self.sessions.prefetch_insert(&outbound);
        let next_hops = self
            .next_hops(turn, ways.0, ways.1)
            .inspect_err(|_| self.pools.release(lease.slot, lease.lport))?;
        let tick = turn.now.tick();
        let beginning = match tuple.protocol {
            Protocol::Udp => None,
            Protocol::Tcp => Some(self.beginning(turn, packet, parsed, &outbound.reversed(), legacy)),
        };
        let Ok(index) = self.sessions.begin(&Keys { inbound: *tuple, outbound }, real_server.id, hash) else {
            return Err(self.give_back(next_hops, &lease));
        };
        let checksum_delta = ends_delta_inbound(tuple, &self.sessions, index);
        let (hot, cold) = self.sessions.lines_mut(index);
        hot.next_hops = next_hops.map(|next_hop| next_hop.0);
        hot.route_epoch = snapshot.route_epoch;
        hot.stamp = tick;
        hot.checksum_delta = checksum_delta;
        cold.created = tick;
        cold.lease_slot = lease.slot;
        cold.service = service.id.0 as u16;
        match beginning {
            None => {
                hot.state = State::Established;
                if uoa::is_told(&service.client_address, hot) {
                    hot.flags.set(Flags::TOA);
                } else if matches!(service.client_address, ClientAddress::Proxy(_)) {
                    hot.flags.set(Flags::PROXY_HEADER);
                }
            }
            Some(beginning) => beginning.write(hot, cold, service, tuple),
        }
        if service.proxy_protocol_from.iter().any(|front| front.covers(&tuple.src)) {
            proxy_front::await_header(hot, cold);
        }
        if self.sessions.index_outbound(index, outbound_hash).is_err() {
            return Err(self.give_back(next_hops, &lease));
        }
        self.register(turn, index, parsed, service)?;
        Ok(index)
    }

    /// A session for which the table has no room gives back what was taken for it.
    #[cold]
    fn give_back(&mut self, next_hops: [NeighbourIndex; 2], lease: &Lease) -> DropReason {
        next_hops.into_iter().for_each(|next_hop| self.neighbours.release(next_hop));
        self.pools.release(lease.slot, lease.lport);
        DropReason::SessionTableFull
    }

    /// The numbers of a connection that begins with this SYN.
    #[inline]
    fn beginning<I: Io<Packet = P>>(
        &mut self,
        turn: &Turn<'_, I>,
        packet: &P,
        parsed: &Parsed,
        lease: &Tuple,
        legacy: Option<Legacy>,
    ) -> Beginning {
        let header = &packet.head()[parsed.l4.into()..];
        let header = &header[..tcp::header_len(header)];
        let (mut isn, mut timestamp) = self.isn.numbers(lease, turn.now);
        if let Some(legacy) = legacy.filter(|l| l.lip == lease.src && l.lport == lease.sport) {
            // Linux accepts a SYN in TIME_WAIT if its number lies after the last one (tcp_timewait_state_process).
            if !tcp::seq_after(isn, legacy.next_seq) {
                isn = legacy.next_seq.wrapping_add(1 << 16).wrapping_add(isn & 0xffff);
            }
            if !tcp::seq_after(timestamp, legacy.timestamp) {
                timestamp = legacy.timestamp.wrapping_add(1);
            }
        }
        let timestamps = sent_timestamps(header).map(|(value, _)| (value, timestamp));
        Beginning { client_isn: tcp::seq(header), isn, timestamps }
    }

    /// Timer, counts, and the home's note if this worker is only the host.
    #[inline]
    fn register<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        index: SessionIndex,
        parsed: &Parsed,
        service: &Service,
    ) -> Result<(), DropReason> {
        let state = self.sessions.hot(index).state;
        let timeout = service.timeouts.ticks(parsed.tuple.protocol, state);
        self.wheel.start(&mut self.sessions, index, turn.now.tick().plus(timeout));
        let real_server = self.sessions.real_server(index);
        let hot = self.sessions.hot_mut(index);
        let counters = &mut self.real_servers[real_server.index()];
        counters.sessions += 1;
        if is_active(state) {
            counters.active += 1;
        } else {
            counters.inactive += 1;
        }
        self.counters.sessions_created += 1;
        // No packet is passed on to its home.
        if parsed.hops > 0 {
            let home = turn.snapshot.steering.home(&parsed.tuple);
            debug_assert_ne!(home, self.worker);
            hot.flags.set(Flags::GUEST);
            let began = HandOff::GuestBegan { inbound: parsed.tuple, host: self.worker };
            if turn.io.hand_off(home, began).is_err() {
                // The home would not find it again. The client's next attempt may.
                self.end_session(turn, index);
                return Err(DropReason::HandOffRingFull);
            }
        }
        Ok(())
    }

    #[inline]
    fn schedule(&mut self, service: &Service, tuple: &Tuple) -> Option<RealServerId> {
        let client = ClientKey { address: tuple.src, port: tuple.sport };
        let real_servers = &self.real_servers;
        let state = &mut self.schedulers[service.id.index()];
        service.scheduler.pick(state, client, &|real_server: RealServerId| {
            let counters = &real_servers[real_server.index()];
            Connections { active: counters.active, inactive: counters.inactive }
        })
    }

    /// The lease of a session that is over and still remembered, where no other is free. Nothing may refuse afterwards that
    /// can be asked before: a lease given back would go to the next without what is remembered.
    #[cold]
    #[inline(never)]
    fn take_over<I: Io<Packet = P>>(
        &mut self,
        turn: &mut Turn<'_, I>,
        pool: &LocalPool,
        (protocol, rport): (Protocol, u16),
        (to_server, to_client): ((&NextHop, &Address), (&NextHop, &Address)),
        refused: LeaseError,
    ) -> Result<(Lease, Legacy), DropReason> {
        let rip = to_server.1;
        if refused == LeaseError::NoAddressOfFamily {
            return Err(DropReason::NoLocalPort);
        }
        let finished =
            self.pools.reclaim_candidate(pool.id, protocol, rip, rport).ok_or(DropReason::NoLocalPort)?;
        let next_hops = self.next_hops(turn, to_server, to_client)?;
        next_hops.into_iter().for_each(|next_hop| self.neighbours.release(next_hop));
        let legacy = self.legacy(finished);
        self.counters.leases_taken_over += 1;
        self.end_session_for_takeover(turn, finished);
        let lease = self.pools.lease(pool, protocol, rip, rport).map_err(|_| DropReason::NoLocalPort)?;
        Ok((lease, legacy))
    }

    fn legacy(&self, index: SessionIndex) -> Legacy {
        let (hot, cold) = (self.sessions.hot(index), self.sessions.cold(index));
        Legacy {
            lip: self.sessions.outbound(index).dst,
            lport: hot.lport,
            next_seq: hot.next_seq_inbound.wrapping_add(hot.seq_delta),
            timestamp: cold.last_timestamp.wrapping_add(hot.timestamp_delta),
        }
    }
}

/// What a new session's ends make of the checksum of its client's packets.
#[inline(always)]
fn ends_delta_inbound(tuple: &Tuple, sessions: &SessionTable, index: SessionIndex) -> u16 {
    let hot = sessions.hot(index);
    if hot.flags.has(Flags::WIDE) {
        return ends_delta(tuple, &Ends::of(sessions, index, Direction::Inbound));
    }
    // Known to be IPv4, the addresses are four numbers to add up.
    let [src, dst] = [tuple.src, tuple.dst].map(|address| Address::from_v4(address.v4_octets()));
    ends_delta(&Tuple { src, dst, ..*tuple }, &Ends::of_v4(hot, Direction::Inbound))
}

/// Whether a packet may begin a session: the service it is for, and the way back to its client.
#[inline]
fn admit<'s>(
    snapshot: &'s Snapshot,
    rx_port: PortId,
    parsed: &Parsed,
) -> Result<(&'s Service, &'s NextHop), DropReason> {
    let tuple = &parsed.tuple;
    let service = snapshot
        .listeners
        .find(tuple.protocol, &tuple.dst, tuple.dport)
        .and_then(|id| snapshot.services[id.index()].as_deref());
    let Some(service) = service else { return Err(why_no_service(snapshot, rx_port, tuple)) };
    let to_client = way_back(snapshot, rx_port, &tuple.src).ok_or(DropReason::IpSpoofedSource)?;
    if tuple.protocol == Protocol::Tcp {
        const OPENING: u8 = tcp::SYN | tcp::ACK | tcp::RST | tcp::FIN;
        if parsed.tcp_flags & OPENING != tcp::SYN {
            return Err(DropReason::NoSession);
        }
    }
    Ok((service, to_client))
}

/// The way back to a client, if its packets may come in by this port.
#[inline]
fn way_back<'s>(snapshot: &'s Snapshot, rx_port: PortId, client: &Address) -> Option<&'s NextHop> {
    let (to_client, may_be_own) = snapshot.routes.lookup_stranger(client)?;
    if may_be_own && snapshot.owned.contains_key(client) {
        return None;
    }
    let strict = snapshot.ports[rx_port.index()].reverse_path_filter;
    (!strict || to_client.port == rx_port).then_some(to_client)
}

/// Nobody listens where a packet goes: what is wrong with it. What a service does listen on is a virtual address, which
/// has no other owner.
#[cold]
fn why_no_service(snapshot: &Snapshot, rx_port: PortId, tuple: &Tuple) -> DropReason {
    match snapshot.owned.get(&tuple.dst).map(|owned| owned.role) {
        None => DropReason::IpNotForUs,
        Some(Role::Local(_)) => DropReason::NoSessionOutbound,
        Some(Role::Virtual | Role::Port) => match way_back(snapshot, rx_port, &tuple.src) {
            None => DropReason::IpSpoofedSource,
            Some(_) => DropReason::NoService,
        },
    }
}
