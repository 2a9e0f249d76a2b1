//! The parts of the path, each alone and in the cache: what instruction counts and criterion look at.

use std::hint::black_box;
use std::sync::Arc;

use fullnat::config::{self, PortFacts, Slots};
use fullnat::id::{RealServerId, ServiceId, WorkerId};
use fullnat::local_pool::{LocalPools, PoolsConfig};
use fullnat::service::scheduler::{Algorithm, ClientKey, Connections, HashFlags, Scheduler, SchedulerState};
use fullnat::service::snapshot::RealServer;
use fullnat::session::{Candidate, KeyHash, Keys, SessionTable, State, TableConfig};
use fullnat::steering::Steering;
use fullnat::wire::{Address, Protocol, Tuple, checksum, ipv4, tcp_option};

/// One part, ready to run.
pub struct Part {
    /// as the record calls it
    pub name: String,
    /// how often the thing is done in one run
    pub times: u32,
    /// does it
    pub run: Box<dyn FnMut()>,
}

fn part(name: &str, times: u32, run: impl FnMut() + 'static) -> Part {
    Part { name: name.to_owned(), times, run: Box::new(run) }
}

const BURST: usize = 32;

/// All parts.
pub fn all() -> Vec<Part> {
    let mut parts = vec![
        table_hit(false),
        table_hit(true),
        table_miss(),
        table_insert_and_remove(),
        steering(false),
        steering(true),
        checksum_of(20),
        checksum_of(1480),
        adjust_checksum(),
        parse_ipv4(),
        readdress_ipv4(),
        lease_and_release(),
        translate_timestamps(),
    ];
    let algorithms = [
        Algorithm::RoundRobin,
        Algorithm::WeightedRoundRobin,
        Algorithm::LeastConnection,
        Algorithm::WeightedLeastConnection,
        Algorithm::SourceHash,
        Algorithm::Maglev,
    ];
    parts.extend(algorithms.map(schedule));
    parts
}

fn address(v6: bool, net: u8, number: u32) -> Address {
    let [_, a, b, c] = number.to_be_bytes();
    match v6 {
        true => Address::from_v6([0x20, 1, 0xd, 0xb8, net, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c]),
        false => Address::from_v4([net, a, b, c]),
    }
}

fn keys(v6: bool, number: u32) -> Keys {
    let protocol = Protocol::Tcp;
    Keys {
        inbound: Tuple {
            src: address(v6, 11, number),
            dst: address(v6, 10, 100),
            sport: 4000,
            dport: 80,
            protocol,
        },
        outbound: Tuple {
            src: address(v6, 10, 11),
            dst: address(v6, 10, 200),
            sport: 8080,
            dport: 1024 + number as u16,
            protocol,
        },
    }
}

fn table(v6: bool, sessions: u32) -> SessionTable {
    let config = TableConfig { sessions_max: 2 * sessions, huge_pages: false, seed: [1, 2, 3, 4] };
    let mut table = SessionTable::new(config).expect("memory for a small table");
    (0..sessions).for_each(|number| {
        let session = table.insert(&keys(v6, number), RealServerId(0)).expect("room");
        table.hot_mut(session).state = State::Established;
    });
    table
}

fn look_up(table: &SessionTable, tuples: &[Tuple; BURST], v6: bool) -> u32 {
    let mut hashes = [KeyHash::EMPTY; BURST];
    for (hash, tuple) in hashes.iter_mut().zip(tuples) {
        *hash = table.hash(tuple, v6);
        table.prefetch_buckets(*hash);
    }
    let mut candidates = [Candidate::NONE; BURST];
    for (candidate, hash) in candidates.iter_mut().zip(&hashes) {
        *candidate = table.probe(*hash);
        table.prefetch_entry(*candidate);
    }
    (0..BURST)
        .map(|at| {
            u32::from(
                table.confirm(&tuples[at], v6, candidates[at], candidates[at].direction(), true).is_some(),
            )
        })
        .sum()
}

fn table_hit(v6: bool) -> Part {
    let table = table(v6, 256);
    let tuples = std::array::from_fn(|n| {
        let keys = keys(v6, n as u32 * 7);
        if n % 2 == 0 { keys.inbound } else { keys.outbound }
    });
    part(if v6 { "table hit, IPv6" } else { "table hit, IPv4" }, BURST as u32, move || {
        assert_eq!(look_up(&table, black_box(&tuples), v6), BURST as u32);
    })
}

fn table_miss() -> Part {
    let table = table(false, 256);
    let tuples = std::array::from_fn(|n| keys(false, 100_000 + n as u32).inbound);
    part("table miss", BURST as u32, move || assert_eq!(look_up(&table, black_box(&tuples), false), 0))
}

fn table_insert_and_remove() -> Part {
    let mut table = table(false, 256);
    let fresh: Vec<Keys> = (0..BURST as u32).map(|n| keys(false, 1000 + n)).collect();
    part("table insert and remove", BURST as u32, move || {
        for keys in black_box(&fresh) {
            let session = table.insert(keys, RealServerId(0)).expect("room");
            table.remove(session);
        }
    })
}

fn steering(v6: bool) -> Part {
    let steering = Steering::random(4, 128, [7; 32]).expect("a random key is good");
    let tuples: Vec<Tuple> = (0..BURST as u32).map(|n| keys(v6, n).inbound).collect();
    part(if v6 { "home, IPv6" } else { "home, IPv4" }, BURST as u32, move || {
        for tuple in black_box(&tuples) {
            black_box::<WorkerId>(steering.home(tuple));
        }
    })
}

fn checksum_of(len: usize) -> Part {
    let bytes: Vec<u8> = (0..len).map(|n| n as u8).collect();
    part(&format!("checksum of {len} bytes"), 1, move || {
        black_box(checksum::internet_checksum(black_box(&bytes)));
    })
}

fn adjust_checksum() -> Part {
    let (old, new) = (address(false, 10, 1), address(false, 11, 2));
    part("checksum adjusted to new ends", 1, move || {
        let delta = checksum::Delta::default()
            .replace_address(black_box(&old), black_box(&new))
            .replace_u16(black_box(80), black_box(8080));
        black_box(checksum::adjust(black_box(0x1234), delta.fold()));
    })
}

fn parse_ipv4() -> Part {
    let mut packet = [0u8; 60];
    let header = ipv4::Ipv4Header {
        tos: 0,
        total_len: 60,
        id: 0,
        dont_fragment: true,
        ttl: 64,
        protocol: 6,
        src: [10, 0, 0, 1],
        dst: [10, 0, 0, 2],
    };
    ipv4::write_header(&mut packet, &header);
    part("IPv4 header parsed", 1, move || {
        black_box(ipv4::Ipv4::parse(black_box(&packet)).is_ok_and(|header| header.checksum_ok()));
    })
}

fn readdress_ipv4() -> Part {
    let mut header = [0x45, 0, 0, 60, 0, 0, 0x40, 0, 64, 6, 0x26, 0xbb, 10, 0, 0, 1, 10, 0, 0, 2];
    part("IPv4 header readdressed", 1, move || {
        header[8] = 64;
        ipv4::readdress_plain(black_box(&mut header), None, None, black_box([10, 2, 0, 100, 10, 2, 0, 11]));
    })
}

fn lease_and_release() -> Part {
    let text = r#"
        port = [{ name = "lan", device = "net_null0", addresses = ["10.2.0.254/24"] }]
        local_pool = [{ name = "p", port = "lan", addresses = ["10.2.0.100-10.2.0.103"] }]
        service = [{ name = "web", listen = "10.2.0.200:80", protocol = "tcp", local_pool = "p",
            real_server = [{ address = "10.2.0.11" }] }]
    "#;
    let facts = [PortFacts { mac: [2; 6], mtu: 1500, checksum_offload: false, partial_checksums: false }];
    let config = config::parse(text).expect("a sound configuration");
    let (snapshot, _) = Slots::new().apply(&config, &facts, Arc::default()).expect("a sound configuration");
    let mut pools = LocalPools::new(PoolsConfig {
        worker: WorkerId(0),
        steering: snapshot.steering.clone(),
        books_max: 16,
        destinations_max: 4,
        seed: [9; 32],
    })
    .expect("memory for a few books");
    pools.apply(&snapshot);
    let pool = snapshot.pools.iter().flatten().next().expect("the only one").clone();
    let rip = Address::from_v4([10, 2, 0, 11]);
    let mut held = Vec::with_capacity(BURST);
    part("lease and release", BURST as u32, move || {
        held.extend(
            (0..BURST).map(|_| pools.lease(&pool, Protocol::Tcp, black_box(&rip), 80).expect("a free port")),
        );
        held.drain(..).for_each(|lease| pools.release(lease.slot, lease.lport));
    })
}

fn translate_timestamps() -> Part {
    let mut options = [1, 1, 8, 10, 0, 0, 1, 0, 0, 0, 2, 0];
    part("timestamps translated", 1, move || {
        let _ = black_box(tcp_option::translate_timestamps(black_box(&mut options), 77, 0));
    })
}

fn schedule(algorithm: Algorithm) -> Part {
    let real_servers: Vec<RealServer> = (0..100)
        .map(|n| RealServer {
            id: RealServerId(n),
            service: ServiceId(0),
            address: address(false, 10, n),
            port: Some(8080),
            weight: 1 + n as u16 % 4,
            next_hop: None,
            removed: false,
        })
        .collect();
    let scheduler = Scheduler::new(algorithm, HashFlags::default(), &real_servers);
    let mut state = SchedulerState::default();
    part(&format!("{} of 100 real servers", algorithm.name()), BURST as u32, move || {
        for n in 0..BURST as u32 {
            let client = ClientKey { address: address(false, 11, n), port: 4000 };
            let connections = |id: RealServerId| Connections { active: id.0 * 7 % 13, inactive: 0 };
            black_box(scheduler.pick(&mut state, black_box(client), &connections));
        }
    })
}
