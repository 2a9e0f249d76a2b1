//! What workers tell control about their tables: small `Copy` records, one per entry.
//!
//! A record holds numbers (ids, addresses, ticks turned into seconds) and no text; control gives them names from the
//! snapshot. Filling one costs a worker a few loads and no allocation.

use crate::clock::Tick;
use crate::id::{PortId, RealServerId, ServiceId};
use crate::session::{Cold, Flags, Hot, Named, SessionIndex, State, Wide};
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
    /// Reads a session's lines. `wide` must be given if either side is IPv6, `named` if a front has named its client.
    pub fn read(
        index: SessionIndex,
        (hot, cold): (&Hot, &Cold),
        wide: Option<&Wide>,
        named: Option<&Named>,
        now: Tick,
    ) -> Self {
        let pair = |v6: bool, narrow: [[u8; 4]; 2], wide: Option<[Address; 2]>| match wide {
            Some(wide) if v6 => wide,
            _ => narrow.map(Address::from_v4),
        };
        let (cip_vip, lip_rip) = (wide.map(|w| [w.cip, w.vip]), wide.map(|w| [w.lip, w.rip]));
        let [cip, vip] = pair(hot.flags.has(Flags::CLIENT_V6), [hot.cip, hot.vip], cip_vip);
        let [lip, rip] = pair(hot.flags.has(Flags::SERVER_V6), [hot.lip, hot.rip], lip_rip);
        SessionRecord {
            index,
            protocol: hot.protocol(),
            cip,
            cport: hot.cport,
            named: named.map(|named| (named.src, named.sport)).filter(|&named| named != (cip, hot.cport)),
            vip,
            vport: hot.vport,
            lip,
            lport: hot.lport,
            rip,
            rport: hot.rport,
            state: hot.state,
            flags: hot.flags,
            service: ServiceId(cold.service.into()),
            real_server: RealServerId(hot.real_server),
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
    use crate::wire::Tuple;
    use zerocopy::FromZeros;

    fn lines() -> (Hot, Cold, Wide) {
        let (mut hot, mut cold) = (Hot::new_zeroed(), Cold::new_zeroed());
        (hot.cip, hot.vip, hot.rip, hot.lip) =
            ([10, 1, 0, 1], [10, 1, 0, 100], [10, 2, 0, 11], [10, 2, 0, 100]);
        (hot.cport, hot.vport, hot.rport, hot.lport) = (40000, 80, 8080, 5000);
        (hot.state, hot.stamp, cold.created) = (State::Established, Tick(900), Tick(500));
        let six = |n: u8| Address::from_v6([0x20, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, n]);
        (hot, cold, Wide { cip: six(1), vip: six(2), rip: six(3), lip: six(4) })
    }

    #[test]
    fn addresses_come_from_the_line_that_holds_them() {
        let (mut hot, cold, wide) = lines();
        let record = SessionRecord::read(SessionIndex(1), (&hot, &cold), None, None, Tick(1000));
        assert_eq!((record.cip, record.rip), (Address::from_v4(hot.cip), Address::from_v4(hot.rip)));
        assert_eq!((record.age, record.idle), (500, 100));
        hot.flags.set(Flags::CLIENT_V6);
        let record = SessionRecord::read(SessionIndex(1), (&hot, &cold), Some(&wide), None, Tick(1000));
        assert_eq!([record.cip, record.vip], [wide.cip, wide.vip]);
        assert_eq!([record.lip, record.rip], [Address::from_v4(hot.lip), Address::from_v4(hot.rip)]);
    }

    #[test]
    fn a_client_is_found_by_what_packets_show_and_by_what_its_front_says() {
        let (hot, cold, _) = lines();
        let tuple = |client: [u8; 4], port| Tuple {
            src: Address::from_v4(client),
            dst: Address::from_v4([198, 51, 100, 9]),
            sport: port,
            dport: 443,
            protocol: Protocol::Tcp,
        };
        let read = |client, port| {
            let named = Named::new(&tuple(client, port), 28);
            SessionRecord::read(SessionIndex(1), (&hot, &cold), None, Some(&named), Tick(1000))
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
        assert_eq!(read(hot.cip, hot.cport).named, None);
    }

    #[test]
    fn every_field_of_the_filter_counts() {
        let (hot, cold, _) = lines();
        let session = SessionRecord::read(SessionIndex(1), (&hot, &cold), None, None, Tick(1000));
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
