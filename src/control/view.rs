//! The bodies of the control socket's answers and requests, shared by the daemon, `fullnatctl` and the OpenAPI document.
//!
//! Answers carry plain numbers in base units (packets, bytes, seconds) and addresses as text; people's units are the
//! client's business. Bodies that the daemon reads refuse unknown fields.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Version {
    /// always `fullnat`
    pub name: String,
    /// the package's version
    pub version: String,
    /// process id of the daemon
    pub pid: u32,
    /// seconds since start
    pub uptime_secs: u64,
    /// number of workers
    pub workers: usize,
    /// generation of the running configuration
    pub generation: u64,
}

/// A NIC port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Port {
    /// its name in the configuration
    pub name: String,
    /// its number
    pub id: u16,
    /// its MAC address
    pub mac: String,
    /// bytes an IP packet on it may have
    pub mtu: u16,
    /// its addresses with prefix lengths
    pub addresses: Vec<String>,
    /// what the device itself says
    pub link: Link,
    /// packets the workers received
    pub rx_packets: u64,
    /// bytes of the frames the workers received
    pub rx_bytes: u64,
    /// packets the device took from the workers
    pub tx_packets: u64,
    /// bytes of the frames the device took from the workers
    pub tx_bytes: u64,
}

/// What a port's device says of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Link {
    /// the device as the configuration names it
    pub device: String,
    /// the DPDK driver
    pub driver: String,
    /// whether the link is up
    pub up: bool,
    /// megabits per second; `null` if the device does not say
    pub speed_mbps: Option<u32>,
    /// receive queues
    pub rx_queues: u16,
    /// transmit queues
    pub tx_queues: u16,
    /// packets the device dropped because no worker fetched them in time
    pub rx_missed: u64,
    /// packets the device found broken
    pub rx_errors: u64,
    /// packets the device dropped because no buffer was free
    pub rx_no_buffer: u64,
    /// packets the device failed to send
    pub tx_errors: u64,
}

/// A worker and what it counted. For each worker
/// `rx + handed_in + originated = tx + handed_off + dropped + held` (packets).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Worker {
    /// its number
    pub id: u16,
    /// generation of the configuration it works by
    pub generation: u64,
    /// packets received from the ports
    pub rx_packets: u64,
    /// bytes received
    pub rx_bytes: u64,
    /// packets given to the ports
    pub tx_packets: u64,
    /// bytes sent
    pub tx_bytes: u64,
    /// packets made by the gateway itself
    pub originated_packets: u64,
    /// packets given to the worker that is their home
    pub handed_off_packets: u64,
    /// packets that other workers handed over
    pub handed_in_packets: u64,
    /// packets that wait for a neighbour
    pub held_packets: u64,
    /// packets dropped, for whatever reason
    pub dropped_packets: u64,
    /// sessions in the table
    pub sessions_live: u64,
    /// sessions the table can hold
    pub sessions_max: u64,
    /// sessions ever made
    pub sessions_created: u64,
    /// sessions ended
    pub sessions_expired: u64,
    /// finished sessions that gave their local port to a new one because no other was free
    pub leases_taken_over: u64,
    /// segments that told the real server the client's address
    pub toa_sent: u64,
    /// segments without TOA because the TCP options had no room for it
    pub toa_no_option_room: u64,
    /// segments without TOA because they would have exceeded the MTU
    pub toa_no_mtu_room: u64,
    /// bare ACKs with TOA sent ahead of such segments
    pub toa_ahead: u64,
    /// datagrams that told the real server the client's address
    pub uoa_sent: u64,
    /// datagrams without UOA because the client's IPv4 options left no room for it
    pub uoa_no_option_room: u64,
    /// datagrams without UOA because they would have exceeded the MTU
    pub uoa_no_mtu_room: u64,
    /// connections whose PROXY protocol header was sent, and datagrams that carried one
    pub proxy_sent: u64,
    /// PROXY protocol headers sent again to a real server that had not acknowledged them
    pub proxy_sent_again: u64,
    /// PROXY protocol headers not sent for want of a packet buffer; each is tried again
    pub proxy_no_buffer: u64,
    /// PROXY protocol headers taken from fronts that the service trusts
    pub proxy_taken: u64,
    /// resets and ICMP errors not sent because of `refusal.per_second`
    pub refusals_limited: u64,
    /// messages in which another host claimed an address of the gateway
    pub address_conflicts: u64,
    /// announcements of own addresses in answer to such claims
    pub address_defences: u64,
    /// announcements of own addresses not sent for want of room
    pub announcements_lost: u64,
    /// what was learned of neighbours and did not reach another worker, whose ring was full
    pub neighbour_facts_lost: u64,
    /// ARP and ND messages not sent for want of a buffer
    pub neighbour_buffers_missing: u64,
    /// bursts that were not empty
    pub bursts: u64,
    /// packets per burst that was not empty, since start
    pub burst_fill: f64,
    /// polls that found nothing
    pub empty_polls: u64,
    /// cycles of turns that found work
    pub cycles_busy: u64,
    /// cycles of turns that found none
    pub cycles_idle: u64,
    /// part of its cycles spent on work since start, 0 to 1
    pub busy: f64,
    /// cycles of turns that found work per packet received or handed over, since start; null before the first
    pub cycles_per_packet: Option<f64>,
    /// packets of the turns whose phases were timed, one working turn of 127
    pub sampled_packets: u64,
    /// the phases of a turn, in order
    pub phases: Vec<WorkerPhase>,
    /// turns of its loop
    pub turns: u64,
}

/// A phase of a worker's turn, in the turns that were timed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WorkerPhase {
    /// `rx`, `classify`, `probe`, `steer`, `forward`, `hand_in`, `tx` or `housekeeping`
    pub phase: String,
    /// one sentence
    pub sentence: String,
    /// cycles
    pub cycles: u64,
    /// cycles per sampled packet; null before the first
    pub cycles_per_packet: Option<f64>,
}

/// A virtual service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Service {
    /// its name
    pub name: String,
    /// whether it is gone from the configuration and only its last sessions are left; absent if not
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub removed: bool,
    /// `tcp` or `udp`
    pub protocol: String,
    /// where clients connect to: `address:port` or `address:first-last`
    pub listen: Vec<String>,
    /// the scheduler's name
    pub scheduler: String,
    /// the local pool it takes leases from
    pub local_pool: String,
    /// how the real servers learn the client's address
    pub client_address: String,
    /// its real servers, in the order of the configuration; removed ones that still have sessions come last
    pub real_servers: Vec<RealServer>,
}

/// A real server of one service, summed over the workers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RealServer {
    /// `address:port`, or `address` if it is reached at the port the client dialled
    pub address: String,
    /// its weight; 0 takes no new sessions
    pub weight: u16,
    /// `active`, `draining` (weight 0) or `removed` (gone from the configuration, sessions left)
    pub state: RealServerState,
    /// established TCP sessions, and UDP sessions
    pub sessions_active: u64,
    /// all other sessions
    pub sessions_inactive: u64,
    /// sessions ever made
    pub sessions_created: u64,
    /// new sessions refused because no local port was free
    pub refused_no_port: u64,
    /// packets, client to real server
    pub inbound_packets: u64,
    /// bytes, client to real server
    pub inbound_bytes: u64,
    /// packets, real server to client
    pub outbound_packets: u64,
    /// bytes, real server to client
    pub outbound_bytes: u64,
}

/// What a real server takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RealServerState {
    /// new sessions
    Active,
    /// only the sessions it has: its weight is 0
    Draining,
    /// only the sessions it has: it is gone from the configuration
    Removed,
}

/// Part of the sessions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SessionPage {
    /// up to `limit` sessions
    pub sessions: Vec<Session>,
    /// give this as `cursor` to go on; absent after the last session. A page may be short, even empty, and still
    /// name a cursor: the workers look through a bounded part of their tables for each request.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next: Option<String>,
}

/// A session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Session {
    /// its home
    pub worker: u16,
    /// `tcp` or `udp`
    pub protocol: String,
    /// CIP:cport, as the packets show it
    pub client: String,
    /// the client, as a front has named it by PROXY protocol; absent where none has, or where it is the front itself
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub named_client: Option<String>,
    /// VIP:vport
    pub virtual_address: String,
    /// LIP:lport
    pub local: String,
    /// RIP:rport
    pub real_server: String,
    /// its service's name; absent once that is removed
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub service: Option<String>,
    /// the IPVS name of its state, such as `ESTABLISHED`
    pub state: String,
    /// packets of both directions
    pub packets: u32,
    /// seconds since it began
    pub age_secs: f64,
    /// seconds since its last packet
    pub idle_secs: f64,
}

/// A neighbour as one worker knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Neighbour {
    /// whose table it is in
    pub worker: u16,
    /// the port it is reached through
    pub port: String,
    /// its address
    pub address: String,
    /// its MAC address, once known
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mac: Option<String>,
    /// `incomplete`, `reachable`, `stale`, `probe` or `failed`
    pub state: String,
    /// seconds since it was confirmed or, before that, first asked for
    pub age_secs: f64,
    /// packets that wait for it
    pub held: u16,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Route {
    /// the destinations, as a prefix
    pub to: String,
    /// the router; absent for a connected route
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub via: Option<String>,
    /// the port's name
    pub port: String,
    /// whether it follows from a port's address rather than from a `[[route]]`
    pub connected: bool,
}

/// A local pool, summed over the workers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Pool {
    /// its name
    pub name: String,
    /// whether it is gone from the configuration and only its last leases are left; absent if not
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub removed: bool,
    /// the port behind whose subnet its addresses lie
    pub port: String,
    /// number of local addresses
    pub addresses: usize,
    /// L4 ports leased per address, as `first-last`
    pub l4_ports: String,
    /// leases held, finished sessions included
    pub leased: u64,
    /// ports given back that still rest
    pub resting: u64,
    /// use per local address, all destinations together; removed ones as long as they have leases
    pub by_address: Vec<AddressUse>,
    /// use per destination; a destination is full on its own
    pub by_real_server: Vec<DestinationUse>,
}

/// Leases of one local address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AddressUse {
    /// the local address
    pub address: String,
    /// whether it is gone from the pool and only its last leases are left; absent if not
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub removed: bool,
    /// leases held, finished sessions included
    pub leased: u64,
    /// ports given back that still rest
    pub resting: u64,
}

/// Leases toward one real server's address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DestinationUse {
    /// RIP:rport
    pub address: String,
    /// `tcp` or `udp`
    pub protocol: String,
    /// leases held, finished sessions included
    pub leased: u64,
    /// ports given back that rest until the real server has forgotten their last user
    pub resting: u64,
    /// new sessions refused because every port was held
    pub refused: u64,
    /// leases that can be held at a time, with the local addresses used toward it so far
    pub ports: u64,
}

/// A drop reason and its counters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Drop {
    /// the name
    pub reason: String,
    /// one sentence
    pub sentence: String,
    /// `consumed`, `policy`, `malformed` or `capacity`
    pub severity: String,
    /// packets, all workers
    pub total: u64,
    /// packets of each worker, in the order of their numbers
    pub workers: Vec<u64>,
}

/// A change that is in force on every worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Applied {
    /// the generation that now runs
    pub generation: u64,
    /// what is probably not meant in it; absent if nothing is
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub warnings: Vec<Fault>,
}

/// Where the running configuration was saved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Saved {
    /// the file
    pub path: String,
}

/// A real server to add.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRealServer {
    /// `address:port`, or `address` for the port the client dialled
    pub address: String,
    /// its weight; the configuration's default if absent
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub weight: Option<u16>,
}

/// A weight to set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewWeight {
    /// 0 takes no new sessions
    pub weight: u16,
}

/// A weight to go back to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Undrain {
    /// the weight it had before it was drained if absent
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub weight: Option<u16>,
}

/// Why a request was not carried out, in the manner of RFC 9457.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// what went wrong, the same for every occurrence
    pub title: String,
    /// the HTTP status
    pub status: u16,
    /// what went wrong this time and what to do
    pub detail: String,
    /// the places in the request or the configuration that are at fault
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub errors: Vec<Fault>,
}

/// One place at fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Fault {
    /// where, such as `service[0].real_server[1].weight`; empty for the whole
    pub path: String,
    /// what is wrong and what to write instead
    pub message: String,
}

impl Fault {
    /// A fault at `path`.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Fault { path: path.into(), message: message.into() }
    }
}
