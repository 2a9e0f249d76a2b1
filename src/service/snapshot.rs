//! The immutable configuration that workers see.
//!
//! Control builds a snapshot, publishes it as an `Arc` and never changes it again; a worker takes the new one between
//! two bursts. Slots (services, real servers, pools) keep their numbers from generation to generation, so that what a
//! session remembers stays true; a slot whose owner was removed is `None` or marked, and its number is given away
//! again only after every worker has moved on and no session refers to it.

use hashbrown::HashMap;
use std::sync::Arc;

use super::route::{NextHop, Prefix, RouteTable};
use super::scheduler::Scheduler;
use crate::id::{PoolId, PortId, RealServerId, ServiceId};
use crate::session::Timeouts;
use crate::steering::Steering;
use crate::wire::proxy_protocol::Version;
use crate::wire::{Address, Protocol};

/// Everything a worker needs to know about the configuration.
pub struct Snapshot {
    /// Grows by one with each applied configuration.
    pub generation: u64,
    /// Changes when next hops must be resolved anew.
    pub route_epoch: u16,
    /// Indexed by [`PortId`].
    pub ports: Vec<PortView>,
    /// Connected and static routes; those to [`Snapshot::owned`] addresses are noted.
    pub routes: RouteTable,
    /// Every address the gateway answers for.
    pub owned: HashMap<Address, Owned, ahash::RandomState>,
    /// Indexed by [`ServiceId`].
    pub services: Vec<Option<Arc<Service>>>,
    /// Which service listens where.
    pub listeners: super::Listeners,
    /// Indexed by [`RealServerId`].
    pub real_servers: Vec<Option<RealServer>>,
    /// The addresses of all real servers, for telling them from strangers.
    pub real_server_addresses: hashbrown::HashSet<Address, ahash::RandomState>,
    /// Indexed by [`PoolId`].
    pub pools: Vec<Option<LocalPool>>,
    /// Which worker is the home of a flow.
    pub steering: Arc<Steering>,
    /// What to send to a TCP client for whose segment there is no session, and to other refused clients.
    pub refuse: Refusal,
}

impl Snapshot {
    /// The service that a session remembers by this number; `None` if it is gone.
    #[inline(always)]
    pub fn service(&self, number: u16) -> Option<&Service> {
        self.services.get(usize::from(number))?.as_deref()
    }
}

/// A NIC port as the path sees it.
#[derive(Clone, Debug)]
pub struct PortView {
    /// its number
    pub id: PortId,
    /// its name in the configuration
    pub name: String,
    /// its MAC address
    pub mac: [u8; 6],
    /// bytes an IP packet on it may have
    pub mtu: u16,
    /// its addresses with their prefix lengths (IPv4: 0 to 32)
    pub addresses: Vec<(Address, u8)>,
    /// whether the device fills in layer-4 checksums while sending
    pub checksum_offload: bool,
    /// whether frames may arrive with only the pseudo header summed up (CHECKSUM_PARTIAL of a local kernel peer)
    pub partial_checksums: bool,
    /// whether sources that do not belong behind this port are refused (RFC 3704 strict)
    pub reverse_path_filter: bool,
    /// whether ARP and ND for addresses of other ports are answered too
    pub answer_for_other_ports: bool,
}

/// Why the gateway answers for an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owned {
    /// what it is used for
    pub role: Role,
    /// the port behind whose subnet it lies; `None`: in no connected subnet, reached by a route of the peers
    pub port: Option<PortId>,
}

/// What an owned address is used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// clients connect to it
    Virtual,
    /// sessions toward real servers leave from it
    Local(PoolId),
    /// the gateway's own address on a port
    Port,
}

/// A virtual service.
#[derive(Clone, Debug)]
pub struct Service {
    /// its slot
    pub id: ServiceId,
    /// its name in the configuration
    pub name: String,
    /// TCP or UDP
    pub protocol: Protocol,
    /// where clients connect to
    pub listen: Vec<Listener>,
    /// picks the real server of a new session, weights included
    pub scheduler: Scheduler,
    /// its real servers, in the order of the configuration
    pub real_servers: Vec<RealServerId>,
    /// where local addresses and ports come from; per family of the real server
    pub local_pool: PoolId,
    /// how the real server learns the client's address
    pub client_address: ClientAddress,
    /// the fronts that say by PROXY protocol whose connection it is
    pub proxy_protocol_from: Vec<Prefix>,
    /// how long sessions live without packets
    pub timeouts: Timeouts,
    /// what happens to the sessions of a real server that is removed
    pub on_remove: OnRemove,
}

/// One address and range of ports that a service listens on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listener {
    /// the VIP
    pub address: Address,
    /// first port
    pub port_first: u16,
    /// last port, inclusive
    pub port_last: u16,
}

/// How the real server learns the client's address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientAddress {
    /// not at all
    None,
    /// by a TCP option
    Toa(ToaSettings),
    /// by an IPv4 option on the first datagrams of a UDP session
    Uoa(UoaSettings),
    /// by a PROXY protocol header
    Proxy(ProxySettings),
}

impl ClientAddress {
    /// The settings of TOA, if it is that.
    pub const fn toa(self) -> Option<ToaSettings> {
        match self {
            ClientAddress::Toa(settings) => Some(settings),
            _ => None,
        }
    }
}

/// How the PROXY protocol is spoken for a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProxySettings {
    /// text or binary
    pub version: Version,
    /// UDP: whether every datagram carries the header, not only the first of a session
    pub each_datagram: bool,
}

/// How TOA is sent for a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ToaSettings {
    /// option kind for IPv4 clients, 254 by default
    pub kind_v4: u8,
    /// option kind for IPv6 clients, 254 or 253
    pub kind_v6: u8,
    /// whether the SYN carries it too
    pub on_syn: bool,
    /// what to do where it does not fit
    pub no_room: NoRoom,
}

/// How UOA is sent for a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UoaSettings {
    /// how many datagrams of a session carry it at most
    pub datagrams_max: u8,
}

/// What happens to a segment that has no room for TOA.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoRoom {
    /// it goes without
    Forward,
    /// a bare ACK with TOA goes ahead of it
    BareAck,
    /// the session is reset
    Reset,
}

/// What happens to the sessions of a real server that is removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnRemove {
    /// they live on until they end
    Drain,
    /// their next packet is answered by RST and they end
    Reset,
}

/// A real server of one service.
#[derive(Clone, Debug)]
pub struct RealServer {
    /// its slot
    pub id: RealServerId,
    /// whose it is
    pub service: ServiceId,
    /// its address
    pub address: Address,
    /// its port; `None`: the port the client dialled
    pub port: Option<u16>,
    /// its weight; 0 takes no new sessions
    pub weight: u16,
    /// the way to it, by the snapshot's routes; `None`: there is none
    pub next_hop: Option<NextHop>,
    /// removed from the configuration, kept for the sessions that still use it
    pub removed: bool,
}

/// A set of local addresses and their ports.
#[derive(Clone, Debug)]
pub struct LocalPool {
    /// its slot
    pub id: PoolId,
    /// its name in the configuration
    pub name: String,
    /// the port behind whose subnet the addresses lie
    pub port: PortId,
    /// the LIPs
    pub addresses: Vec<Address>,
    /// first L4 port leased
    pub port_first: u16,
    /// last L4 port leased, inclusive
    pub port_last: u16,
}

/// Whether refused clients are told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// RST or ICMP to the client; false: silence
    pub answer: bool,
    /// own ICMP errors and RSTs per second and worker
    pub per_second: u32,
}
