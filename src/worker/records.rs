//! What workers tell control about their tables: small `Copy` records, one per entry.
//!
//! A record holds numbers (ids, addresses, ticks turned into seconds) and no text; control gives them names from the
//! snapshot. Filling one costs a worker a few loads and no allocation.

use crate::clock::Tick;
use crate::id::{PortId, RealServerId, ServiceId};
use crate::session::{Flags, SessionIndex, SessionTable, State};
use crate::wire::{Address, Protocol};

/// One session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionRecord {
    /// its place in the worker's table
    pub index: SessionIndex,
    /// TCP or UDP
    pub protocol: Protocol,
    /// client address
    pub cip: Address,
    /// client port
    pub cport: u16,
    /// the client that a front has named, if it is not the front itself
    pub named: Option<(Address, u16)>,
    /// virtual address
    pub vip: Address,
    /// virtual port
    pub vport: u16,
    /// local address
    pub lip: Address,
    /// local port
    pub lport: u16,
    /// real server's address
    pub rip: Address,
    /// real server's port
    pub rport: u16,
    /// TCP state; always established for UDP
    pub state: State,
    /// one-bit facts
    pub flags: Flags,
    /// its service's slot
    pub service: ServiceId,
    /// its real server's slot
    pub real_server: RealServerId,
    /// packets of both directions
    pub packets: u32,
    /// ticks since it began
    pub age: u32,
    /// ticks since the last packet
    pub idle: u32,
}

impl SessionRecord {
    /// Reads a session that lives.
    pub fn read(sessions: &SessionTable, index: SessionIndex, now: Tick) -> Self {
        let (hot, cold) = (sessions.hot(index), sessions.cold(index));
        let (inbound, outbound) = (sessions.inbound(index), sessions.outbound(index));
        let client = (inbound.src, inbound.sport);
        SessionRecord {
            index,
            protocol: hot.protocol(),
            cip: inbound.src,
            cport: inbound.sport,
            named: sessions
                .named(index)
                .map(|named| (named.src, named.sport))
                .filter(|&named| named != client),
            vip: inbound.dst,
            vport: inbound.dport,
            lip: outbound.dst,
            lport: outbound.dport,
            rip: outbound.src,
            rport: outbound.sport,
            state: hot.state,
            flags: hot.flags,
            service: ServiceId(cold.service.into()),
            real_server: sessions.real_server(index),
            packets: hot.packets,
            age: now.since(cold.created),
            idle: now.since(hot.stamp),
        }
    }
}

/// Which sessions are asked for; what is `None` does not matter.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SessionFilter {
    /// client address, as packets show it or as a front has named it
    pub client: Option<Address>,
    /// client port, of either
    pub client_port: Option<u16>,
    /// virtual address
    pub vip: Option<Address>,
    /// virtual port
    pub vport: Option<u16>,
    /// real server's address
    pub rip: Option<Address>,
    /// real server's port
    pub rport: Option<u16>,
    /// TCP or UDP
    pub protocol: Option<Protocol>,
    /// TCP state
    pub state: Option<State>,
}

impl SessionFilter {
    /// Whether the session is one of those asked for.
    pub fn admits(&self, session: &SessionRecord) -> bool {
        fn fits<T: PartialEq>(wanted: Option<T>, is: T) -> bool {
            wanted.is_none_or(|wanted| wanted == is)
        }
        let is_client = |(address, port)| fits(self.client, address) && fits(self.client_port, port);
        (is_client((session.cip, session.cport)) || session.named.is_some_and(is_client))
            && fits(self.vip, session.vip)
            && fits(self.vport, session.vport)
            && fits(self.rip, session.rip)
            && fits(self.rport, session.rport)
            && fits(self.protocol, session.protocol)
            && fits(self.state, session.state)
    }
}

/// One entry of a worker's neighbour table.
pub type NeighbourRecord = crate::path::neighbour::NeighbourView;

/// The leases of one worker from one local address.
pub type LocalAddressRecord = crate::local_pool::LipUsage;

/// The leases of one worker toward one destination.
pub type LeaseRecord = crate::local_pool::DestinationUsage;

/// An address of the gateway that another host claims.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConflictRecord {
    /// where the claim was seen
    pub port: PortId,
    /// the contested address
    pub address: Address,
    /// who claimed it last
    pub mac: [u8; 6],
}

/// One worker's counters of one real server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RealServerRecord {
    /// its slot
    pub id: RealServerId,
    /// established TCP sessions, and UDP sessions
    pub sessions_active: u32,
    /// all other sessions in the table, finished ones included: with both 0 its number may be given to another
    pub sessions_inactive: u32,
    /// sessions ever made
    pub sessions_created: u64,
    /// new sessions refused because no local port was free
    pub refused_no_port: u64,
    /// client to real server
    pub inbound_packets: u64,
    /// bytes of the IP packets of `inbound_packets`
    pub inbound_bytes: u64,
    /// real server to client
    pub outbound_packets: u64,
    /// bytes of the IP packets of `outbound_packets`
    pub outbound_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{Keys, Named, ProxyFacts, TableConfig};
    use crate::wire::Tuple;

    const CLIENT: Address = Address::from_v4([10, 1, 0, 1]);

    fn table(keys: &Keys) -> (SessionTable, SessionIndex) {
        let config = TableConfig { sessions_max: 1, huge_pages: false, seed: [1, 2, 3, 4] };
        let mut sessions = SessionTable::new(config).unwrap();
        let index = sessions.insert(keys, RealServerId(7)).unwrap();
        let (hot, cold) = sessions.lines_mut(index);
        (hot.state, hot.stamp, cold.created) = (State::Established, Tick(900), Tick(500));
        (sessions, index)
    }

    fn keys() -> Keys {
        let tuple = |src, dst, sport, dport| {
            let dst = Address::from_v4(dst);
            Tuple { src, dst, sport, dport, protocol: Protocol::Tcp }
        };
        Keys {
            inbound: tuple(CLIENT, [10, 1, 0, 100], 40_000, 80),
            outbound: tuple(Address::from_v4([10, 2, 0, 11]), [10, 2, 0, 100], 8080, 5000),
        }
    }

    #[test]
    fn a_session_of_any_families_is_read() {
        let six = |n: u8| Address::from_v6([0x20, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, n]);
        let mut of_v6_clients = keys();
        (of_v6_clients.inbound.src, of_v6_clients.inbound.dst) = (six(1), six(2));
        for keys in [keys(), of_v6_clients] {
            let (sessions, index) = table(&keys);
            let record = SessionRecord::read(&sessions, index, Tick(1000));
            let Keys { inbound, outbound } = keys;
            assert_eq!((record.cip, record.cport), (inbound.src, inbound.sport));
            assert_eq!((record.vip, record.vport), (inbound.dst, inbound.dport));
            assert_eq!((record.lip, record.lport), (outbound.dst, outbound.dport));
            assert_eq!((record.rip, record.rport), (outbound.src, outbound.sport));
            assert_eq!((record.real_server, record.age, record.idle), (RealServerId(7), 500, 100));
        }
    }

    #[test]
    fn a_client_is_found_by_what_packets_show_and_by_what_its_front_says() {
        let tuple = |client: [u8; 4], port| Tuple {
            src: Address::from_v4(client),
            dst: Address::from_v4([198, 51, 100, 9]),
            sport: port,
            dport: 443,
            protocol: Protocol::Tcp,
        };
        let read = |client, port| {
            let (mut sessions, index) = table(&keys());
            sessions.cold_mut(index).header.facts.set(ProxyFacts::FROM_FRONT);
            sessions.name(index, Named::new(&tuple(client, port), 28));
            SessionRecord::read(&sessions, index, Tick(1000))
        };
        let session = read([203, 0, 113, 7], 40_001);
        assert_eq!(session.named, Some((Address::from_v4([203, 0, 113, 7]), 40_001)));
        let by = |client, client_port| {
            let filter = SessionFilter { client: Some(client), client_port, ..SessionFilter::default() };
            filter.admits(&session)
        };
        let (front, client) = (session.cip, Address::from_v4([203, 0, 113, 7]));
        assert!(by(front, None) && by(front, Some(40_000)) && by(client, None) && by(client, Some(40_001)));
        assert!(!by(front, Some(40_001)) && !by(client, Some(40_000)));
        // A front's own connection, as of its health checks.
        assert_eq!(read(CLIENT.v4_octets(), 40_000).named, None);
    }

    #[test]
    fn every_field_of_the_filter_counts() {
        let (sessions, index) = table(&keys());
        let session = SessionRecord::read(&sessions, index, Tick(1000));
        assert!(SessionFilter::default().admits(&session));
        let other = Address::from_v4([1, 2, 3, 4]);
        let none = SessionFilter::default();
        for filter in [
            SessionFilter { client: Some(other), ..none },
            SessionFilter { client_port: Some(1), ..none },
            SessionFilter { vip: Some(other), ..none },
            SessionFilter { vport: Some(1), ..none },
            SessionFilter { rip: Some(other), ..none },
            SessionFilter { rport: Some(1), ..none },
            SessionFilter { protocol: Some(Protocol::Udp), ..none },
            SessionFilter { state: Some(State::Close), ..none },
        ] {
            assert!(!filter.admits(&session), "{filter:?}");
        }
        let exact = SessionFilter { client: Some(session.cip), rport: Some(8080), ..none };
        assert!(exact.admits(&session));
    }
}
