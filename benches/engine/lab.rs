//! The gateway that is measured: addresses, configuration, an engine with its neighbours known.
//!
//! ```text
//! clients 11.0.0.0/8, 2001:db8:b::/48 -- router -- wan [engine] lan -- 16 real servers of each family
//! ```

use std::sync::Arc;

use fullnat::clock::Now;
use fullnat::config::{self, PortFacts, Slots};
use fullnat::id::{PortId, WorkerId};
use fullnat::path::neighbour::{Evidence, NeighbourConfig, NeighbourFact};
use fullnat::path::packet::HandOff;
use fullnat::path::{Engine, ShardConfig};
use fullnat::service::snapshot::Snapshot;
use fullnat::steering::Steering;
use fullnat::wire::Address;

use crate::buffer::{Frame, World};

/// Where clients are.
pub const WAN: PortId = PortId(0);
/// Where real servers are.
pub const LAN: PortId = PortId(1);
/// MAC addresses of the gateway's ports.
pub const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];
/// MAC address of everybody else.
pub const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 1, 0];
/// Real servers of each family.
pub const REAL_SERVERS: u32 = 16;
/// L4 ports of one local address.
const PORTS_PER_LIP: u64 = 64_512;

/// What kind of lab.
#[derive(Clone, Copy, Debug)]
pub struct LabConfig {
    /// sessions of one worker
    pub sessions_max: u32,
    /// local addresses of each family
    pub lips: u32,
    /// whether TCP services send TOA
    pub toa: bool,
    /// seconds a session lives without packets, whatever its state
    pub timeout_secs: u32,
    /// how many workers the flows are spread over
    pub workers: u16,
    /// whether to take reserved huge pages
    pub huge_pages: bool,
}

impl LabConfig {
    /// Room for `sessions` with the local pool about half full; sessions never end.
    pub fn with_room_for(sessions: u32) -> Self {
        let lips = (u64::from(sessions) * 2).div_ceil(PORTS_PER_LIP * u64::from(REAL_SERVERS)) as u32;
        LabConfig {
            sessions_max: sessions,
            lips,
            toa: false,
            timeout_secs: 86_400,
            workers: 1,
            huge_pages: true,
        }
    }

    /// Leases that the local pool can give to one protocol and family.
    pub fn leases(&self) -> u64 {
        u64::from(self.lips) * u64::from(REAL_SERVERS) * PORTS_PER_LIP
    }
}

/// The VIP of a family.
pub fn vip(v6: bool) -> Address {
    if v6 { address6([0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x100]) } else { Address::from_v4([10, 1, 0, 100]) }
}

/// Real server `number` of a family.
pub fn rip(v6: bool, number: u32) -> Address {
    match v6 {
        true => address6([0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x11 + number as u16]),
        false => Address::from_v4([10, 2, 0, 11 + number as u8]),
    }
}

/// Local address `number` of a family.
pub fn lip(v6: bool, number: u32) -> Address {
    match v6 {
        true => address6([0x2001, 0xdb8, 2, 0, 0, 0, 1, number as u16]),
        false => Address::from_v4([10, 2, 1 + (number >> 8) as u8, number as u8]),
    }
}

/// Client address `number` of a family.
pub fn cip(v6: bool, number: u32) -> Address {
    match v6 {
        true => address6([0x2001, 0xdb8, 0xb, 0, 0, 0, (number >> 16) as u16, number as u16]),
        false => Address::from_v4((0x0b00_0000 + number).to_be_bytes()),
    }
}

fn address6(words: [u16; 8]) -> Address {
    Address::from_v6(std::net::Ipv6Addr::from(words).octets())
}

fn document(lab: &LabConfig) -> String {
    let lips = |v6| (0..lab.lips).map(move |number| format!("\"{}\"", lip(v6, number)));
    let lips: Vec<String> = lips(false).chain(lips(true)).collect();
    let timeouts: String = [
        "tcp_established",
        "tcp_syn_recv",
        "tcp_fin_wait",
        "tcp_time_wait",
        "tcp_close",
        "tcp_close_wait",
        "tcp_last_ack",
        "udp",
    ]
    .map(|name| format!("{name}_secs = {}\n", lab.timeout_secs))
    .concat();
    let service = |protocol: &str, v6: bool| {
        let bracket = |address: Address| if v6 { format!("[{address}]") } else { address.to_string() };
        let toa = if lab.toa && protocol == "tcp" { "toa" } else { "none" };
        let real_servers: String = (0..REAL_SERVERS)
            .map(|number| {
                format!("[[service.real_server]]\naddress = \"{}:8080\"\n", bracket(rip(v6, number)))
            })
            .collect();
        format!(
            "[[service]]\nname = \"{protocol}{}\"\nlisten = \"{}:80\"\nprotocol = \"{protocol}\"\nscheduler = \"rr\"\n\
             local_pool = \"pool\"\nclient_address = \"{toa}\"\n{real_servers}",
            if v6 { 6 } else { 4 },
            bracket(vip(v6)),
        )
    };
    format!(
        "[dataplane]\nworkers = {workers}\nsessions_max = {sessions}\n[timeouts]\n{timeouts}\
         [[port]]\nname = \"wan\"\ndevice = \"net_null0\"\naddresses = [\"10.1.0.254/24\", \"2001:db8:1::fe/64\"]\n\
         [[port]]\nname = \"lan\"\ndevice = \"net_null1\"\naddresses = [\"10.2.255.254/16\", \"2001:db8:2::fe/64\"]\n\
         [[route]]\nto = \"0.0.0.0/0\"\nvia = \"10.1.0.1\"\n[[route]]\nto = \"::/0\"\nvia = \"2001:db8:1::1\"\n\
         [[local_pool]]\nname = \"pool\"\nport = \"lan\"\naddresses = [{}]\n{}{}{}{}",
        lips.join(", "),
        service("tcp", false),
        service("tcp", true),
        service("udp", false),
        service("udp", true),
        workers = lab.workers,
        sessions = u64::from(lab.sessions_max.max(1024)) * u64::from(lab.workers),
    )
}

/// The snapshot of a lab.
pub fn snapshot(lab: &LabConfig) -> Arc<Snapshot> {
    let config =
        config::parse(&document(lab)).unwrap_or_else(|error| panic!("the lab's configuration: {error}"));
    let facts =
        MACS.map(|mac| PortFacts { mac, mtu: 1500, checksum_offload: false, partial_checksums: false });
    let steering = Steering::random(usize::from(lab.workers), 128, [7; 32]).expect("a random key is good");
    let (snapshot, _) =
        Slots::new().apply(&config, &facts, Arc::new(steering)).expect("a sound configuration");
    Arc::new(snapshot)
}

/// One worker's engine, its neighbours resolved.
pub fn engine(
    lab: &LabConfig,
    snapshot: Arc<Snapshot>,
    worker: WorkerId,
    world: &mut World,
    now: Now,
) -> Engine<Frame> {
    let books = lab.lips as usize * REAL_SERVERS as usize * 4;
    let config = ShardConfig {
        worker,
        workers: lab.workers,
        sessions_max: lab.sessions_max,
        huge_pages: lab.huge_pages,
        lease_books_max: books,
        destinations_max: 4 * REAL_SERVERS as usize,
        guests_max: 1024,
        neighbours: NeighbourConfig { workers: lab.workers, worker, ..NeighbourConfig::default() },
        seed: [9; 32],
        isn_secret: [3; 16],
    };
    let mut engine = Engine::new(&config, snapshot, now).expect("memory for the lab");
    refresh_neighbours(&mut engine, world, now, Evidence::Asked);
    refresh_neighbours(&mut engine, world, now, Evidence::Answered { overrides: true });
    engine.tick(world, now);
    world.recycle();
    engine
}

/// Tells the engine that all its neighbours are where they were, so that none grows stale.
pub fn refresh_neighbours(engine: &mut Engine<Frame>, world: &mut World, now: Now, evidence: Evidence) {
    let routers =
        [Address::from_v4([10, 1, 0, 1]), address6([0x2001, 0xdb8, 1, 0, 0, 0, 0, 1])].map(|a| (WAN, a));
    let real_servers = (0..REAL_SERVERS).flat_map(|n| [(LAN, rip(false, n)), (LAN, rip(true, n))]);
    for (port, address) in routers.into_iter().chain(real_servers) {
        let fact = NeighbourFact { port, address, mac: Some(PEER_MAC), evidence };
        engine.take(world, now, [HandOff::Neighbour(fact)]);
    }
}
