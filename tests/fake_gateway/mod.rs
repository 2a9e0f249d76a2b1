//! A gateway without packets: the real control plane over threads that answer their mailboxes like workers, and over
//! a configuration of a few lines.
#![allow(dead_code, reason = "each test file uses its part")]

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use fullnat::control::view::{Fault, Link, Route};
use fullnat::control::{
    Configuration, ControlPlane, ControlThread, Desired, InUse, Links, ListenerConfig, Refusal, WorkerHandle,
    start,
};
use fullnat::id::{PoolId, PortId, RealServerId, ServiceId, WorkerId};
use fullnat::path::drop_reason::{DropCounters, DropReason};
use fullnat::path::neighbour::NeighbourState;
use fullnat::service::scheduler::{Algorithm, HashFlags, Scheduler};
use fullnat::service::snapshot::{self, Snapshot};
use fullnat::session::{Flags, SessionIndex, State, Timeouts};
use fullnat::wire::{Address, Protocol};
use fullnat::worker::mailbox::{Answer, Request, WorkerEnd, mailbox};
use fullnat::worker::published::{Counter, Counters, PortCounters, Published};
use fullnat::worker::records::{
    ConflictRecord, LeaseRecord, LocalAddressRecord, NeighbourRecord, RealServerRecord, SessionRecord,
};
use serde_json::{Value, json};

/// Sessions each fake worker has.
pub const SESSIONS_PER_WORKER: u32 = 5000;
const WORKERS: u16 = 2;

type Snapshots = Arc<Mutex<Vec<Weak<Snapshot>>>>;

/// A running fake gateway; ends when dropped.
pub struct FakeGateway {
    pub socket: PathBuf,
    pub file: PathBuf,
    /// where metrics are served over TCP
    pub metrics: SocketAddr,
    /// while set, workers do not look into their mailboxes
    pub asleep: Arc<AtomicBool>,
    /// every snapshot ever prepared
    pub snapshots: Snapshots,
    /// how many removed things are in use no more
    pub unused: Arc<AtomicUsize>,
    pub plane: Arc<ControlPlane>,
    _control: ControlThread,
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<()>>,
    _directory: tempfile::TempDir,
}

impl FakeGateway {
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("run/control.sock");
        let file = directory.path().join("gateway.toml");
        std::fs::write(&file, toml::to_string(&document()).unwrap()).unwrap();
        let snapshot = snapshot_of(&document(), 1);
        let (stop, asleep) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (mut handles, mut workers) = (Vec::new(), Vec::new());
        for id in 0..WORKERS {
            let (control, worker) = mailbox();
            let published = Arc::new(Published::new(2));
            publish(&published, id, 1);
            handles.push(WorkerHandle { mailbox: control, published: published.clone() });
            let (snapshot, stop, asleep) = (snapshot.clone(), stop.clone(), asleep.clone());
            workers.push(thread::spawn(move || {
                work(WorkerId(id), worker, snapshot, &published, &stop, &asleep)
            }));
        }
        let (snapshots, unused) = (Snapshots::default(), Arc::new(AtomicUsize::new(0)));
        let configuration = FakeConfiguration {
            snapshots: snapshots.clone(),
            unused: unused.clone(),
            running: document(),
            prepared: None,
            generation: 1,
            file: file.clone(),
        };
        let plane =
            ControlPlane::new(Box::new(configuration), snapshot, handles, Box::new(FakeLinks)).unwrap();
        let metrics = free_port();
        let config = ListenerConfig { path: socket.clone(), group: None, metrics: Some(metrics) };
        let control = start(&config, plane.clone()).unwrap();
        FakeGateway {
            socket,
            file,
            metrics,
            asleep,
            snapshots,
            unused,
            plane,
            _control: control,
            stop,
            workers,
            _directory: directory,
        }
    }
}

impl Drop for FakeGateway {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.workers.drain(..) {
            worker.join().unwrap();
        }
    }
}

/// A TCP port that is free now. Ports are given out in turn by the kernel, so nobody else gets it at once.
fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// The configuration it starts with.
pub fn document() -> Value {
    json!({
        "dataplane": {"workers": 2},
        "service": [
            {"name": "web", "listen": "10.1.0.100:80-89", "protocol": "tcp", "scheduler": "wrr", "client_address": "toa",
             "real_server": [
                {"address": "10.2.0.11:8080", "weight": 100},
                {"address": "10.2.0.12:8080", "weight": 50},
            ]},
            {"name": "dns", "listen": "[2001:db8::100]:53", "protocol": "udp", "scheduler": "sh",
             "real_server": [{"address": "[2001:db8:2::53]:53", "weight": 1}]},
        ],
    })
}

struct FakeConfiguration {
    running: Value,
    prepared: Option<Value>,
    generation: u64,
    file: PathBuf,
    snapshots: Snapshots,
    unused: Arc<AtomicUsize>,
}

impl Configuration for FakeConfiguration {
    fn running(&self) -> Value {
        self.running.clone()
    }

    fn running_toml(&self) -> Result<String, Refusal> {
        Ok(toml::to_string(&self.running).unwrap())
    }

    fn routes(&self) -> Vec<Route> {
        let connected = Route { to: "10.1.0.0/24".into(), via: None, port: "wan".into(), connected: true };
        let via = Some("10.1.0.1".into());
        vec![connected, Route { to: "0.0.0.0/0".into(), via, port: "wan".into(), connected: false }]
    }

    fn prepare(&mut self, desired: Desired) -> Result<Arc<Snapshot>, Refusal> {
        let from_toml = |text: &str| {
            toml::from_str(text).map_err(|e| Refusal::Invalid(vec![Fault::new("", e.message())]))
        };
        let wanted: Value = match desired {
            Desired::Json(value) => value,
            Desired::Toml(text) => from_toml(&text)?,
            Desired::File => from_toml(&std::fs::read_to_string(&self.file).unwrap())?,
        };
        if !wanted.is_object() {
            return Err(Refusal::Invalid(vec![Fault::new("", "write a table")]));
        }
        if wanted["dataplane"]["workers"] != self.running["dataplane"]["workers"] {
            let fault = Fault::new("dataplane.workers", "it cannot change while the gateway runs");
            return Err(Refusal::NeedsRestart(vec![fault]));
        }
        let mut faults = Vec::new();
        for (i, service) in list(&wanted, "service").iter().enumerate() {
            for (j, server) in list(service, "real_server").iter().enumerate() {
                let path = format!("service[{i}].real_server[{j}]");
                if endpoint(server["address"].as_str().unwrap_or_default()).is_none() {
                    faults.push(Fault::new(format!("{path}.address"), "write address:port"));
                }
                if server["weight"].as_u64().unwrap_or(1) > 1000 {
                    faults.push(Fault::new(format!("{path}.weight"), "write 0 to 1000"));
                }
            }
        }
        if !faults.is_empty() {
            return Err(Refusal::Invalid(faults));
        }
        let snapshot = snapshot_of(&wanted, self.generation + 1);
        self.snapshots.lock().unwrap().push(Arc::downgrade(&snapshot));
        self.prepared = Some(wanted);
        Ok(snapshot)
    }

    fn warnings(&self) -> Vec<Fault> {
        let document = self.prepared.as_ref().unwrap_or(&self.running);
        let empty = |(_, service): &(usize, &Value)| list(service, "real_server").is_empty();
        let services = list(document, "service").iter().enumerate();
        services
            .filter(empty)
            .map(|(i, _)| Fault::new(format!("service[{i}].real_server"), "empty"))
            .collect()
    }

    fn commit(&mut self) {
        self.running = self.prepared.take().unwrap();
        self.generation += 1;
    }

    fn has_removed(&self) -> bool {
        true
    }

    fn retire(&mut self, in_use: &InUse) -> usize {
        // The fake workers have sessions at every real server and leases from the first local address.
        assert!(in_use.real_servers.contains(&RealServerId(0)));
        assert_eq!(in_use.local_addresses.iter().collect::<Vec<_>>(), [&v4(2, 100)]);
        self.unused.swap(0, Ordering::Relaxed)
    }

    fn again(&self) -> Result<Arc<Snapshot>, Refusal> {
        let snapshot = snapshot_of(&self.running, self.generation);
        self.snapshots.lock().unwrap().push(Arc::downgrade(&snapshot));
        Ok(snapshot)
    }

    fn save(&mut self) -> Result<PathBuf, Refusal> {
        std::fs::write(&self.file, self.running_toml()?).unwrap();
        Ok(self.file.clone())
    }
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn endpoint(text: &str) -> Option<(Address, u16)> {
    let address: std::net::SocketAddr = text.parse().ok()?;
    Some((address.ip().into(), address.port()))
}

fn v4(d: u8, e: u8) -> Address {
    Address::from_v4([10, d, 0, e])
}

fn snapshot_of(document: &Value, generation: u64) -> Arc<Snapshot> {
    let (mut services, mut real_servers) = (Vec::new(), Vec::new());
    for (id, service) in list(document, "service").iter().enumerate() {
        let id = ServiceId(id as u32);
        let mut own = Vec::new();
        for server in list(service, "real_server") {
            let (address, port) = endpoint(server["address"].as_str().unwrap()).unwrap();
            own.push(RealServerId(real_servers.len() as u32));
            real_servers.push(Some(snapshot::RealServer {
                id: *own.last().unwrap(),
                service: id,
                address,
                port: Some(port),
                weight: server["weight"].as_u64().unwrap_or(1) as u16,
                next_hop: None,
                removed: false,
            }));
        }
        let listen = service["listen"].as_str().unwrap();
        let (first, last) =
            listen.split_once('-').map_or((listen, None), |(first, last)| (first, Some(last)));
        let (address, port_first) = endpoint(first).unwrap();
        let port_last = last.map_or(port_first, |last| last.parse().unwrap());
        services.push(Some(Arc::new(snapshot::Service {
            id,
            name: service["name"].as_str().unwrap().to_owned(),
            protocol: if service["protocol"] == "udp" { Protocol::Udp } else { Protocol::Tcp },
            listen: vec![snapshot::Listener { address, port_first, port_last }],
            scheduler: scheduler(),
            real_servers: own,
            local_pool: PoolId(0),
            client_address: snapshot::ClientAddress::None,
            proxy_protocol_from: Vec::new(),
            timeouts: Timeouts::default(),
            on_remove: snapshot::OnRemove::Drain,
        })));
    }
    let pool = snapshot::LocalPool {
        id: PoolId(0),
        name: "lan-pool".to_owned(),
        port: PortId(1),
        addresses: vec![v4(2, 100), v4(2, 101)],
        port_first: 1024,
        port_last: 65535,
    };
    Arc::new(Snapshot {
        generation,
        route_epoch: 0,
        ports: vec![port(0, "wan", v4(1, 254)), port(1, "lan", v4(2, 254))],
        routes: Default::default(),
        owned: hashbrown::HashMap::with_hasher(ahash::RandomState::new()),
        services,
        listeners: Default::default(),
        real_servers,
        real_server_addresses: hashbrown::HashSet::with_hasher(ahash::RandomState::new()),
        pools: vec![Some(pool)],
        steering: Default::default(),
        refuse: snapshot::Refusal { answer: true, per_second: 1000 },
    })
}

/// The fake workers schedule nothing.
fn scheduler() -> Scheduler {
    Scheduler::new(Algorithm::RoundRobin, HashFlags::default(), [])
}

fn port(id: u16, name: &str, address: Address) -> snapshot::PortView {
    snapshot::PortView {
        id: PortId(id),
        name: name.to_owned(),
        mac: [2, 0, 0, 0, 0, id as u8 + 1],
        mtu: 1500,
        addresses: vec![(address, 24)],
        checksum_offload: false,
        partial_checksums: false,
        reverse_path_filter: true,
        answer_for_other_ports: false,
    }
}

struct FakeLinks;

impl Links for FakeLinks {
    fn link(&self, port: PortId) -> Link {
        Link {
            device: format!("net_af_packet{},iface=gw{}", port.0, port.0),
            driver: "net_af_packet".to_owned(),
            up: port.0 == 0,
            speed_mbps: (port.0 == 0).then_some(10_000),
            rx_queues: 2,
            tx_queues: 2,
            ..Link::default()
        }
    }
}

fn publish(published: &Published, worker: u16, generation: u64) {
    let (mut counters, mut drops) = (Counters::default(), DropCounters::default());
    let factor = u64::from(worker) + 1;
    for (counter, value) in [
        (Counter::RxPackets, 1_000_000 * factor),
        (Counter::RxBytes, 64_000_000 * factor),
        (Counter::TxPackets, 999_998 * factor),
        (Counter::TxBytes, 63_999_872 * factor),
        (Counter::SessionsLive, u64::from(SESSIONS_PER_WORKER)),
        (Counter::SessionsMax, 1 << 20),
        (Counter::Bursts, 62_500),
        (Counter::CyclesBusy, 160_000_000),
        (Counter::CyclesIdle, 480_000_000),
        (Counter::Turns, 1_000_000),
        (Counter::AddressConflicts, 3),
        (Counter::Generation, generation),
    ] {
        counters.set(counter, value);
    }
    // The other worker was never timed.
    if worker == 0 {
        counters.set(Counter::SampledPackets, 32 * 250);
        counters.add_phases(&[4, 51, 24, 0, 62, 1, 9, 3].map(|cycles| cycles * 8123));
    }
    for _ in 0..2 * factor {
        drops.count(DropReason::NoService);
    }
    let traffic = PortCounters { rx_packets: 1_000_000 * factor, rx_bytes: 64_000_000, ..Default::default() };
    published.store(&counters, &drops, &[traffic, PortCounters::default()]);
}

fn work(
    id: WorkerId,
    mailbox: WorkerEnd,
    mut snapshot: Arc<Snapshot>,
    published: &Published,
    stop: &AtomicBool,
    asleep: &AtomicBool,
) {
    while !stop.load(Ordering::Relaxed) {
        let letter = if asleep.load(Ordering::Relaxed) { None } else { mailbox.next() };
        let Some(letter) = letter else {
            thread::park_timeout(Duration::from_micros(200));
            continue;
        };
        let answer = match letter.request {
            Request::Apply(new) => {
                publish(published, id.0, new.generation);
                Answer::Applied(std::mem::replace(&mut snapshot, new))
            }
            Request::Sessions(filter, mut page) => {
                page.fill(SESSIONS_PER_WORKER, |index| {
                    let session = session(id, index);
                    filter.admits(&session).then_some(session)
                });
                Answer::Sessions(page)
            }
            Request::Neighbours(mut page) => {
                page.fill(2, |index| Some(neighbour(index)));
                Answer::Neighbours(page)
            }
            Request::Leases(mut page) => {
                page.fill(2, |index| Some(lease(index)));
                Answer::Leases(page)
            }
            Request::LocalAddresses(mut page) => {
                page.fill(2, |index| Some(local_address(index)));
                Answer::LocalAddresses(page)
            }
            Request::LinkUp(_) => Answer::Noted,
            Request::Conflicts(mut page) => {
                page.fill(1, |_| {
                    Some(ConflictRecord { port: PortId(0), address: v4(1, 100), mac: [2, 0, 0, 0, 0, 0xcc] })
                });
                Answer::Conflicts(page)
            }
            Request::RealServers(mut page) => {
                page.fill(snapshot.real_servers.len() as u32, |index| Some(real_server(index)));
                Answer::RealServers(page)
            }
        };
        mailbox.answer(letter.ticket, answer);
    }
}

fn session(worker: WorkerId, index: u32) -> SessionRecord {
    let [_, _, high, low] = index.to_be_bytes();
    SessionRecord {
        index: SessionIndex(index),
        protocol: Protocol::Tcp,
        cip: Address::from_v4([172, 16 + worker.0 as u8, high, low]),
        cport: 40_000,
        named: (index == 300).then_some((Address::from_v4([203, 0, 113, 7]), 40_001)),
        vip: v4(1, 100),
        vport: 80,
        lip: v4(2, 100),
        lport: 1024 + index as u16,
        rip: v4(2, 11 + (index % 2) as u8),
        rport: 8080,
        state: State::Established,
        flags: Flags::default(),
        service: ServiceId(0),
        real_server: RealServerId(index % 2),
        packets: index,
        age: 6100,
        idle: 150,
    }
}

fn neighbour(index: u32) -> NeighbourRecord {
    NeighbourRecord {
        port: PortId(index as u16),
        address: v4(1 + index as u8, 1),
        mac: (index == 0).then_some([2, 0, 0, 0, 0, 0xaa]),
        state: if index == 0 { NeighbourState::Reachable } else { NeighbourState::Incomplete },
        age_ticks: 1234,
        queue_len: index as u16,
        references: 1,
    }
}

fn lease(index: u32) -> LeaseRecord {
    LeaseRecord {
        pool: PoolId(0),
        rip: v4(2, 11 + index as u8),
        rport: 8080,
        protocol: Protocol::Tcp,
        ports: 32_256,
        leased: 2500,
        resting: 10,
        refused: index,
    }
}

fn local_address(index: u32) -> LocalAddressRecord {
    let leased = if index == 0 { 5000 } else { 0 };
    LocalAddressRecord {
        address: v4(2, 100 + index as u8),
        pool: Some(PoolId(0)),
        leased,
        resting: 20 * (1 - index),
    }
}

fn real_server(index: u32) -> RealServerRecord {
    RealServerRecord {
        id: RealServerId(index),
        sessions_active: 2500,
        sessions_inactive: 3,
        sessions_created: 123_456,
        refused_no_port: 0,
        inbound_packets: 1_000_000,
        inbound_bytes: 64_000_000,
        outbound_packets: 2_000_000,
        outbound_bytes: 3_000_000_000,
    }
}
