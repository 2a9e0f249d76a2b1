//! The configuration as the program uses it: checked once, in types that cannot hold what was refused.
//!
//! Made by [`check`](super::check) only. Ports are named by their [`PortId`], pools by their place in
//! [`Config::pools`]; names are kept for people.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::mistake::Mistake;
use super::model::{Document, HugePages, Idle, Steering};
use crate::id::PortId;
use crate::service::route::{NextHop, Prefix, Route};
use crate::service::scheduler::{Algorithm, HashFlags};
use crate::service::snapshot::{ClientAddress, Listener, OnRemove, Refusal};
use crate::session::Timeouts;
use crate::wire::{Address, Protocol};

/// A configuration without mistakes.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// what it was made of, to be shown and written back
    pub document: Document,
    /// what is probably not meant but can be
    pub warnings: Vec<Mistake>,
    /// cores, memory and DPDK
    pub dataplane: Dataplane,
    /// the control socket and the metrics
    pub control: Control,
    /// what refused clients are told
    pub refusal: Refusal,
    /// ARP and neighbour discovery
    pub neighbours: Neighbours,
    /// indexed by [`PortId`]
    pub ports: Vec<Port>,
    /// static routes; [`Config::routes`] gives the connected ones too
    pub static_routes: Vec<Route>,
    /// the local pools
    pub pools: Vec<Pool>,
    /// the virtual services
    pub services: Vec<Service>,
}

/// Cores, memory and DPDK.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dataplane {
    /// 1 to 512
    pub workers: u16,
    /// one core per worker, or empty: to be chosen
    pub worker_cores: Vec<u16>,
    /// the core of control; `None`: to be chosen
    pub control_core: Option<u16>,
    /// arguments for EAL
    pub eal: Vec<String>,
    /// what a worker does when no packets come
    pub idle: Idle,
    /// sessions of all workers together
    pub sessions_max: u32,
    /// where memory comes from, EAL's own arguments taken into account
    pub huge_pages: HugePages,
    /// packet buffers of all ports together; `None`: see [`Requirements`](super::Requirements)
    pub mbufs: Option<u32>,
    /// descriptors per receive queue, a power of two
    pub rx_ring: u16,
    /// descriptors per transmit queue, a power of two
    pub tx_ring: u16,
    /// packets per ring between two workers, a power of two
    pub hand_off_ring: u32,
    /// who spreads packets over the workers
    pub steering: Steering,
    /// Toeplitz key, zeros behind a key of 40 bytes; `None`: random
    pub rss_key: Option<[u8; RSS_KEY_LEN]>,
}

/// Bytes of the longest Toeplitz key.
pub const RSS_KEY_LEN: usize = 52;

impl Dataplane {
    /// Sessions that each worker has memory for: an equal share of [`Dataplane::sessions_max`], rounded up.
    pub fn sessions_per_worker(&self) -> u32 {
        self.sessions_max.div_ceil(u32::from(self.workers))
    }
}

/// The control socket and the metrics.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Control {
    /// absolute path of the UNIX socket
    pub socket: PathBuf,
    /// group that may use it; `None`: the process's
    pub group: Option<String>,
    /// where `/metrics` is served over TCP; `None`: nowhere
    pub metrics_listen: Option<SocketAddr>,
}

/// ARP and neighbour discovery, per worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Neighbours {
    /// neighbours known at most, 16 to 65535
    pub entries_max: u16,
    /// packets that wait for one neighbour, 1 to 1024
    pub queue_len: u16,
    /// seconds for which a confirmed neighbour is not asked again
    pub reachable_secs: u32,
    /// milliseconds between two questions
    pub retransmit_millis: u32,
    /// questions without an answer until it counts as unreachable
    pub probes: u8,
}

/// A NIC port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Port {
    /// its number: the place in the configuration
    pub id: PortId,
    /// its name
    pub name: String,
    /// what DPDK opens
    pub device: Device,
    /// the gateway's addresses on it with prefix lengths (IPv4: 0 to 32)
    pub addresses: Vec<(Address, u8)>,
    /// bytes an IP packet may have
    pub mtu: u16,
    /// queues each way; `None`: one per worker as far as the device has them
    pub queues: Option<u16>,
    /// whether the device's checksum offload may be used
    pub checksum_offload: bool,
    /// strict reverse path filter
    pub reverse_path_filter: bool,
    /// answer ARP and ND for addresses behind other ports
    pub answer_for_other_ports: bool,
    /// receive frames to other MAC addresses
    pub promiscuous: bool,
    /// keep a kernel on this machine from sending super-frames
    pub wire_frames: bool,
    /// keep from the kernel what arrives at the interface behind the device
    pub exclusive: bool,
}

/// What DPDK opens for a port.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Device {
    /// a PCI function, `dddd:bb:dd.f`
    Pci(String),
    /// a virtual device, `net_driver0,key=value,...`
    Virtual(String),
}

impl Device {
    /// The text for EAL: `--allow` takes the PCI address, `--vdev` the virtual device.
    pub fn as_str(&self) -> &str {
        match self {
            Device::Pci(text) | Device::Virtual(text) => text,
        }
    }

    /// The name by which DPDK finds the port: without arguments.
    pub fn name(&self) -> &str {
        self.as_str().split(',').next().unwrap_or_default()
    }
}

/// A local pool.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pool {
    /// its name
    pub name: String,
    /// behind which port its addresses lie
    pub port: PortId,
    /// the LIPs, in the order of the file
    pub addresses: Vec<Address>,
    /// first L4 port, not 0
    pub port_first: u16,
    /// last L4 port, inclusive
    pub port_last: u16,
}

/// A virtual service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    /// its name
    pub name: String,
    /// TCP or UDP
    pub protocol: Protocol,
    /// where clients connect to
    pub listen: Vec<Listener>,
    /// picks real servers
    pub scheduler: Algorithm,
    /// how `sh` and `mh` hash
    pub hash_flags: HashFlags,
    /// index into [`Config::pools`]
    pub pool: usize,
    /// how real servers learn the client's address
    pub client_address: ClientAddress,
    /// the fronts that say by PROXY protocol whose connection it is
    pub proxy_protocol_from: Vec<Prefix>,
    /// every state's time-out, global ones filled in
    pub timeouts: Timeouts,
    /// what becomes of sessions of removed real servers
    pub on_remove: OnRemove,
    /// the real servers, in the order of the file
    pub real_servers: Vec<RealServer>,
}

/// A real server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RealServer {
    /// its address
    pub address: Address,
    /// its port; `None`: the one the client dialled
    pub port: Option<u16>,
    /// its weight
    pub weight: u16,
}

impl Config {
    /// Connected routes, then static ones.
    pub fn routes(&self) -> impl Iterator<Item = Route> + '_ {
        connected_routes(&self.ports).chain(self.static_routes.iter().copied())
    }
}

/// The subnets of port addresses.
pub(super) fn connected_routes(ports: &[Port]) -> impl Iterator<Item = Route> + '_ {
    ports.iter().flat_map(|port| {
        port.addresses.iter().map(|&(address, prefix_len)| Route {
            prefix: truncate(address, prefix_len),
            prefix_len,
            next_hop: NextHop { port: port.id, via: None },
        })
    })
}

/// `address` without the bits behind its prefix.
pub(super) fn truncate(address: Address, len: u8) -> Address {
    let shift = (if address.is_v4() { 32 } else { 128 }) - u32::from(len);
    let bits = u128::from_be_bytes(*address.octets());
    let kept = bits.checked_shr(shift).and_then(|bits| bits.checked_shl(shift)).unwrap_or(0);
    Address::from_v6(kept.to_be_bytes())
}
