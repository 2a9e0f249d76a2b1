//! Answers to questions: counters and records of the workers, given names from the running snapshot.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::plane::{ControlPlane, Running};
use super::refusal::Refusal;
use super::view;
use crate::clock::Tick;
use crate::id::{PoolId, RealServerId};
use crate::path::drop_reason::{DropReason, Severity};
use crate::path::neighbour::NeighbourState;
use crate::service::snapshot;
use crate::wire::{Address, Protocol};
use crate::worker::phases::TurnPhase;
use crate::worker::published::{Counter, PublishedView};
use crate::worker::records::{LeaseRecord, LocalAddressRecord, RealServerRecord};

/// `GET /v1/version`.
pub fn version(plane: &ControlPlane) -> view::Version {
    view::Version {
        name: "fullnat".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_secs: plane.uptime_secs(),
        workers: plane.posts().len(),
        generation: plane.running().snapshot.generation,
    }
}

/// `GET /v1/ports`.
pub fn ports(plane: &ControlPlane) -> Vec<view::Port> {
    let published = plane.published();
    let port = |port: &snapshot::PortView| {
        let of_workers = || published.iter().filter_map(|worker| worker.ports.get(port.id.index()));
        view::Port {
            name: port.name.clone(),
            id: port.id.0,
            mac: mac(port.mac),
            mtu: port.mtu,
            addresses: port.addresses.iter().map(|(address, len)| format!("{address}/{len}")).collect(),
            link: plane.link(port.id),
            rx_packets: of_workers().map(|port| port.rx_packets).sum(),
            rx_bytes: of_workers().map(|port| port.rx_bytes).sum(),
            tx_packets: of_workers().map(|port| port.tx_packets).sum(),
            tx_bytes: of_workers().map(|port| port.tx_bytes).sum(),
        }
    };
    plane.running().snapshot.ports.iter().map(port).collect()
}

/// `GET /v1/workers`.
pub fn workers(plane: &ControlPlane) -> Vec<view::Worker> {
    plane.published().iter().zip(0..).map(|(published, id)| worker(id, published)).collect()
}

pub(super) fn worker(id: u16, published: &PublishedView) -> view::Worker {
    let get = |counter| published.get(counter);
    let phase = |&phase: &TurnPhase| view::WorkerPhase {
        phase: phase.name().to_owned(),
        sentence: phase.sentence().to_owned(),
        cycles: published.counters.phase(phase),
        cycles_per_packet: None,
    };
    let worker = view::Worker {
        id,
        generation: get(Counter::Generation),
        rx_packets: get(Counter::RxPackets),
        rx_bytes: get(Counter::RxBytes),
        tx_packets: get(Counter::TxPackets),
        tx_bytes: get(Counter::TxBytes),
        originated_packets: get(Counter::OriginatedPackets),
        handed_off_packets: get(Counter::HandedOffPackets),
        handed_in_packets: get(Counter::HandedInPackets),
        held_packets: get(Counter::HeldPackets),
        dropped_packets: published.dropped_total(),
        sessions_live: get(Counter::SessionsLive),
        sessions_max: get(Counter::SessionsMax),
        sessions_created: get(Counter::SessionsCreated),
        sessions_expired: get(Counter::SessionsExpired),
        leases_taken_over: get(Counter::LeasesTakenOver),
        toa_sent: get(Counter::ToaSent),
        toa_no_option_room: get(Counter::ToaNoOptionRoom),
        toa_no_mtu_room: get(Counter::ToaNoMtuRoom),
        toa_ahead: get(Counter::ToaAhead),
        uoa_sent: get(Counter::UoaSent),
        uoa_no_option_room: get(Counter::UoaNoOptionRoom),
        uoa_no_mtu_room: get(Counter::UoaNoMtuRoom),
        proxy_sent: get(Counter::ProxySent),
        proxy_sent_again: get(Counter::ProxySentAgain),
        proxy_no_buffer: get(Counter::ProxyNoBuffer),
        proxy_taken: get(Counter::ProxyTaken),
        refusals_limited: get(Counter::RefusalsLimited),
        address_conflicts: get(Counter::AddressConflicts),
        address_defences: get(Counter::AddressDefences),
        announcements_lost: get(Counter::AnnouncementsLost),
        neighbour_facts_lost: get(Counter::NeighbourFactsLost),
        neighbour_buffers_missing: get(Counter::NeighbourBuffersMissing),
        bursts: get(Counter::Bursts),
        burst_fill: 0.0,
        empty_polls: get(Counter::EmptyPolls),
        cycles_busy: get(Counter::CyclesBusy),
        cycles_idle: get(Counter::CyclesIdle),
        busy: 0.0,
        cycles_per_packet: None,
        sampled_packets: get(Counter::SampledPackets),
        phases: TurnPhase::ALL.iter().map(phase).collect(),
        turns: get(Counter::Turns),
    };
    worker.with_ratios()
}

/// `GET /v1/drops`.
pub fn drops(plane: &ControlPlane) -> Vec<view::Drop> {
    let published = plane.published();
    let of = |reason: &DropReason| {
        let workers: Vec<u64> = published.iter().map(|worker| worker.dropped(*reason)).collect();
        view::Drop {
            reason: reason.name().to_owned(),
            sentence: reason.sentence().to_owned(),
            severity: severity(reason.severity()).to_owned(),
            total: workers.iter().sum(),
            workers,
        }
    };
    DropReason::ALL.iter().map(of).collect()
}

/// The text of a severity.
pub fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Consumed => "consumed",
        Severity::Policy => "policy",
        Severity::Malformed => "malformed",
        Severity::Capacity => "capacity",
    }
}

/// `GET /v1/services`: in the order of the configuration's slots; removed ones as long as they have sessions.
pub async fn services(plane: &ControlPlane) -> Result<Vec<view::Service>, Refusal> {
    let records = real_server_records(plane).await?;
    let running = plane.running();
    Ok(running
        .snapshot
        .services
        .iter()
        .flatten()
        .filter_map(|service| one_service(&running, service, &records))
        .collect())
}

/// `GET /v1/services/{name}`.
pub async fn service(plane: &ControlPlane, name: &str) -> Result<view::Service, Refusal> {
    let records = real_server_records(plane).await?;
    let running = plane.running();
    let mut services = running.snapshot.services.iter().flatten();
    let found = services.find(|service| service.name == name);
    found.and_then(|service| one_service(&running, service, &records)).ok_or_else(|| {
        Refusal::NotFound(format!("There is no service {name:?}; GET /v1/services lists those there are."))
    })
}

type RealServerRecords = HashMap<RealServerId, Totals>;

/// One real server's counters, summed over the workers.
#[derive(Clone, Copy, Default)]
struct Totals {
    sessions_active: u64,
    sessions_inactive: u64,
    sessions_created: u64,
    refused_no_port: u64,
    inbound_packets: u64,
    inbound_bytes: u64,
    outbound_packets: u64,
    outbound_bytes: u64,
}

impl Totals {
    fn add(&mut self, record: &RealServerRecord) {
        self.sessions_active += u64::from(record.sessions_active);
        self.sessions_inactive += u64::from(record.sessions_inactive);
        self.sessions_created += record.sessions_created;
        self.refused_no_port += record.refused_no_port;
        self.inbound_packets += record.inbound_packets;
        self.inbound_bytes += record.inbound_bytes;
        self.outbound_packets += record.outbound_packets;
        self.outbound_bytes += record.outbound_bytes;
    }
}

async fn real_server_records(plane: &ControlPlane) -> Result<RealServerRecords, Refusal> {
    let mut sums = RealServerRecords::new();
    for post in plane.posts() {
        for record in post.real_servers().await? {
            sums.entry(record.id).or_default().add(&record);
        }
    }
    Ok(sums)
}

/// A service; `None` if it was removed and nothing is left of it.
fn one_service(
    running: &Running,
    service: &snapshot::Service,
    records: &RealServerRecords,
) -> Option<view::Service> {
    let all = &running.snapshot.real_servers;
    let listed = service.real_servers.iter().filter_map(|id| all.get(id.index())?.as_ref());
    let totals = |server: &snapshot::RealServer| records.get(&server.id).copied().unwrap_or_default();
    // Removed ones are of interest as long as they have sessions.
    let removed = all.iter().flatten().filter(|server| {
        let Totals { sessions_active, sessions_inactive, .. } = totals(server);
        server.service == service.id && server.removed && sessions_active + sessions_inactive > 0
    });
    let real_servers: Vec<_> = listed
        // A removed service's numbers may be others' already.
        .filter(|server| server.service == service.id && !server.removed)
        .chain(removed)
        .map(|server| real_server(server, totals(server)))
        .collect();
    let gone = entry(running, &service.name).is_none();
    if gone && real_servers.is_empty() {
        return None;
    }
    Some(view::Service {
        name: service.name.clone(),
        removed: gone,
        protocol: protocol(service.protocol).to_owned(),
        listen: service.listen.iter().map(listener).collect(),
        scheduler: configured(running, &service.name, "scheduler", ""),
        local_pool: pool_name(running, service.local_pool),
        client_address: configured(running, &service.name, "client_address", "none"),
        real_servers,
    })
}

fn real_server(server: &snapshot::RealServer, totals: Totals) -> view::RealServer {
    view::RealServer {
        address: match server.port {
            Some(port) => endpoint(server.address, port),
            None => server.address.to_string(),
        },
        weight: server.weight,
        state: match (server.removed, server.weight) {
            (true, _) => view::RealServerState::Removed,
            (false, 0) => view::RealServerState::Draining,
            (false, _) => view::RealServerState::Active,
        },
        sessions_active: totals.sessions_active,
        sessions_inactive: totals.sessions_inactive,
        sessions_created: totals.sessions_created,
        refused_no_port: totals.refused_no_port,
        inbound_packets: totals.inbound_packets,
        inbound_bytes: totals.inbound_bytes,
        outbound_packets: totals.outbound_packets,
        outbound_bytes: totals.outbound_bytes,
    }
}

/// A service's setting as the configuration's document has it: what the workers need of it is not text.
fn configured(running: &Running, service: &str, key: &str, default: &str) -> String {
    let value = entry(running, service).and_then(|entry| entry.get(key)).and_then(Value::as_str);
    value.unwrap_or(default).to_owned()
}

/// What the configuration's document says of a service.
fn entry<'r>(running: &'r Running, service: &str) -> Option<&'r Value> {
    let services = running.document.get("service").and_then(Value::as_array)?;
    services.iter().find(|entry| entry["name"] == service)
}

fn listener(listener: &snapshot::Listener) -> String {
    let first = endpoint(listener.address, listener.port_first);
    if listener.port_first == listener.port_last { first } else { format!("{first}-{}", listener.port_last) }
}

/// `GET /v1/neighbours`.
pub async fn neighbours(plane: &ControlPlane) -> Result<Vec<view::Neighbour>, Refusal> {
    let snapshot = plane.running().snapshot;
    let mut all = Vec::new();
    for post in plane.posts() {
        let records = post.neighbours().await?;
        all.extend(records.iter().map(|record| view::Neighbour {
            worker: post.worker.0,
            port: snapshot.ports.get(record.port.index()).map_or_else(String::new, |port| port.name.clone()),
            address: record.address.to_string(),
            mac: record.mac.map(mac),
            state: neighbour_state(record.state).to_owned(),
            age_secs: seconds(record.age_ticks),
            held: record.queue_len,
        }));
    }
    all.sort_by(|a, b| (&a.port, &a.address, a.worker).cmp(&(&b.port, &b.address, b.worker)));
    Ok(all)
}

fn neighbour_state(state: NeighbourState) -> &'static str {
    match state {
        NeighbourState::Incomplete => "incomplete",
        NeighbourState::Reachable => "reachable",
        NeighbourState::Stale => "stale",
        NeighbourState::Delay => "delay",
        NeighbourState::Probe => "probe",
        NeighbourState::Failed => "failed",
    }
}

/// `GET /v1/pools`.
pub async fn pools(plane: &ControlPlane) -> Result<Vec<view::Pool>, Refusal> {
    let (mut records, mut addresses) = (Vec::new(), Vec::new());
    for post in plane.posts() {
        records.extend(post.leases().await?);
        addresses.extend(post.local_addresses().await?);
    }
    let snapshot = plane.running().snapshot;
    let pool = |pool: &snapshot::LocalPool| {
        let own: Vec<_> = records.iter().filter(|record| record.pool == pool.id).collect();
        let by_address = by_address(&snapshot, pool, &addresses);
        // A configured one has addresses.
        let removed = pool.addresses.is_empty();
        (!removed || !by_address.is_empty()).then(|| view::Pool {
            name: pool.name.clone(),
            removed,
            port: snapshot.ports.get(pool.port.index()).map_or_else(String::new, |port| port.name.clone()),
            addresses: pool.addresses.len(),
            l4_ports: format!("{}-{}", pool.port_first, pool.port_last),
            leased: own.iter().map(|record| u64::from(record.leased)).sum(),
            resting: own.iter().map(|record| u64::from(record.resting)).sum(),
            by_address,
            by_real_server: by_real_server(&own),
        })
    };
    Ok(snapshot.pools.iter().flatten().filter_map(pool).collect())
}

/// The pool's addresses, and those that left it and have leases.
fn by_address(
    snapshot: &snapshot::Snapshot,
    pool: &snapshot::LocalPool,
    records: &[LocalAddressRecord],
) -> Vec<view::AddressUse> {
    let use_of = |address: Address, removed| view::AddressUse {
        address: address.to_string(),
        removed,
        leased: 0,
        resting: 0,
    };
    let mut uses: BTreeMap<Address, view::AddressUse> =
        pool.addresses.iter().map(|&lip| (lip, use_of(lip, false))).collect();
    let ours = |lip: &Address| {
        snapshot.owned.get(lip).is_some_and(|owned| owned.role == snapshot::Role::Local(pool.id))
    };
    for record in records {
        if record.leased > 0 && ours(&record.address) {
            uses.entry(record.address).or_insert_with(|| use_of(record.address, true));
        }
        if let Some(sum) = uses.get_mut(&record.address) {
            sum.leased += u64::from(record.leased);
            sum.resting += u64::from(record.resting);
        }
    }
    uses.into_values().collect()
}

fn by_real_server(records: &[&LeaseRecord]) -> Vec<view::DestinationUse> {
    let mut sums: BTreeMap<(Address, u16, Protocol), [u64; 4]> = BTreeMap::new();
    for record in records {
        let sum = sums.entry((record.rip, record.rport, record.protocol)).or_default();
        let parts = [record.leased, record.resting, record.refused, record.ports];
        for (sum, part) in sum.iter_mut().zip(parts) {
            *sum += u64::from(part);
        }
    }
    let view =
        |((rip, rport, proto), [leased, resting, refused, ports]): ((Address, u16, Protocol), [u64; 4])| {
            let (address, protocol) = (endpoint(rip, rport), protocol(proto).to_owned());
            view::DestinationUse { address, protocol, leased, resting, refused, ports }
        };
    sums.into_iter().map(view).collect()
}

fn pool_name(running: &Running, id: PoolId) -> String {
    let pool = running.snapshot.pools.get(id.index()).and_then(Option::as_ref);
    pool.map_or_else(String::new, |pool| pool.name.clone())
}

/// The text of a protocol.
pub(super) fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

/// `address:port`, IPv6 in brackets.
pub(super) fn endpoint(address: Address, port: u16) -> String {
    std::net::SocketAddr::new(address.into(), port).to_string()
}

/// Ticks as seconds.
pub(super) fn seconds(ticks: u32) -> f64 {
    f64::from(ticks) / f64::from(Tick::PER_SECOND)
}

pub(super) fn mac(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, PortFacts, Slots};

    #[test]
    fn every_counter_of_a_worker_is_in_its_view() {
        let published = crate::worker::published::Published::new(0).read();
        let view = serde_json::to_value(worker(0, &published)).unwrap();
        for counter in Counter::ALL {
            assert!(view.get(counter.name()).is_some(), "{} is missing in view::Worker", counter.name());
        }
    }

    const HEAD: &str = r#"
        port = [{ name = "lan", device = "net_af_packet0,iface=lan", addresses = ["10.2.0.254/24"] }]
        local_pool = [
            { name = "p", port = "lan", addresses = ["10.2.0.100"] },
            { name = "q", port = "lan", addresses = ["10.2.0.110-10.2.0.111"] },
        ]
    "#;

    fn service_of(name: &str, vip: u8, server: u8) -> String {
        format!(
            "[[service]]\nname = \"{name}\"\nlisten = \"10.2.0.{vip}:80\"\nprotocol = \"tcp\"\nlocal_pool = \"p\"\n\
             real_server = [{{ address = \"10.2.0.{server}:80\" }}, {{ address = \"10.2.0.{}:80\" }}]\n",
            server + 1
        )
    }

    fn running_of(slots: &mut Slots, text: &str) -> Running {
        let config = config::parse(text).unwrap();
        let facts = PortFacts { mac: [2; 6], mtu: 1500, checksum_offload: false, partial_checksums: false };
        let (snapshot, next) = slots.apply(&config, &[facts], Default::default()).unwrap();
        *slots = next;
        Running {
            snapshot: snapshot.into(),
            document: serde_json::to_value(&config.document).unwrap().into(),
            toml: "".into(),
            routes: [].into(),
        }
    }

    #[test]
    fn a_removed_service_is_marked_and_goes_with_its_last_session() {
        let mut slots = Slots::new();
        let (web, api) = (service_of("web", 200, 11), service_of("api", 201, 21));
        running_of(&mut slots, &format!("{HEAD}{web}"));
        running_of(&mut slots, HEAD);
        // The first real server keeps a session, the second one's number goes to api.
        slots.retire(|id| id == RealServerId(0), |_, _| false);
        let running = running_of(&mut slots, &format!("{HEAD}{api}"));
        assert_eq!(running.snapshot.real_servers[1].as_ref().unwrap().service.index(), 1);
        let web = running.snapshot.services[0].as_ref().unwrap();
        let busy = Totals { sessions_active: 1, ..Totals::default() };
        let all: RealServerRecords = (0..3).map(|id| (RealServerId(id), busy)).collect();
        let shown = one_service(&running, web, &all).unwrap();
        assert!(shown.removed);
        let servers: Vec<_> =
            shown.real_servers.iter().map(|server| (server.address.as_str(), server.state)).collect();
        assert_eq!(servers, [("10.2.0.11:80", view::RealServerState::Removed)], "and none of api's");
        assert_eq!(one_service(&running, web, &RealServerRecords::new()), None);
        let api = running.snapshot.services[1].as_ref().unwrap();
        assert!(!one_service(&running, api, &RealServerRecords::new()).unwrap().removed);
    }

    #[test]
    fn local_addresses_that_left_a_pool_are_marked_as_long_as_they_have_leases() {
        let mut slots = Slots::new();
        running_of(&mut slots, HEAD);
        let fewer = HEAD.replace("-10.2.0.111", "").replace("{ name = \"p\"", "#\n{ name = \"p\"");
        let without_p: String =
            fewer.lines().filter(|line| !line.contains("\"p\"")).collect::<Vec<_>>().join("\n");
        let running = running_of(&mut slots, &without_p);
        let record = |last: u8, leased| LocalAddressRecord {
            address: Address::from_v4([10, 2, 0, last]),
            pool: None,
            leased,
            resting: 1,
        };
        let records = [record(100, 5), record(100, 2), record(110, 0), record(111, 3)];
        let shown = |pool: usize, records: &[LocalAddressRecord]| {
            let pool = running.snapshot.pools[pool].as_ref().unwrap();
            let uses = by_address(&running.snapshot, pool, records);
            uses.into_iter().map(|u| (u.address, u.removed, u.leased)).collect::<Vec<_>>()
        };
        assert_eq!(shown(0, &records), [("10.2.0.100".to_owned(), true, 7)]);
        let q = [("10.2.0.110".to_owned(), false, 0), ("10.2.0.111".to_owned(), true, 3)];
        assert_eq!(shown(1, &records), q);
        assert_eq!(shown(0, &[]), []);
    }

    #[test]
    fn endpoints_and_listeners_read_as_they_are_written_in_the_file() {
        let v6 = Address::from("2001:db8::1".parse::<std::net::IpAddr>().unwrap());
        assert_eq!(endpoint(v6, 80), "[2001:db8::1]:80");
        let range = snapshot::Listener { address: v6, port_first: 80, port_last: 89 };
        assert_eq!(listener(&range), "[2001:db8::1]:80-89");
        assert_eq!(mac([0, 1, 0xab, 0, 0, 0xff]), "00:01:ab:00:00:ff");
    }
}
