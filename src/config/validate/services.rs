//! Checks of `[[service]]`, its real servers, time-outs, TOA and PROXY protocol.

use hashbrown::HashMap;

use super::super::checked::{Pool, RealServer, Service};
use super::super::mistake::Findings;
use super::super::model::{self, SchedulerFlag};
use super::super::{limits, text};
use super::{at_most, known, unique_name};
use crate::service::route::{Prefix, RouteTable};
use crate::service::scheduler::{Algorithm, HashFlags};
use crate::service::snapshot::{
    ClientAddress, Listener, NoRoom, OnRemove, ProxySettings, ToaSettings, UoaSettings,
};
use crate::session::Timeouts;
use crate::wire::proxy_protocol::Version;
use crate::wire::{Address, Protocol};

/// The written time-outs over those of `base`.
pub(super) fn timeouts(
    path: &str,
    written: &model::Timeouts,
    base: Timeouts,
    found: &mut Findings,
) -> Timeouts {
    let mut timeouts = base;
    // In the order of `session::State`.
    let tcp = [
        ("tcp_none_secs", written.tcp_none_secs),
        ("tcp_established_secs", written.tcp_established_secs),
        ("tcp_syn_sent_secs", written.tcp_syn_sent_secs),
        ("tcp_syn_recv_secs", written.tcp_syn_recv_secs),
        ("tcp_fin_wait_secs", written.tcp_fin_wait_secs),
        ("tcp_time_wait_secs", written.tcp_time_wait_secs),
        ("tcp_close_secs", written.tcp_close_secs),
        ("tcp_close_wait_secs", written.tcp_close_wait_secs),
        ("tcp_last_ack_secs", written.tcp_last_ack_secs),
        ("tcp_listen_secs", written.tcp_listen_secs),
        ("tcp_synack_secs", written.tcp_synack_secs),
    ];
    let udp = [("udp_secs", written.udp_secs)];
    let slots = timeouts.tcp_secs.iter_mut().chain([&mut timeouts.udp_secs]);
    for (slot, (key, value)) in slots.zip(tcp.into_iter().chain(udp)) {
        if let Some(value) = value
            && let Some(secs) =
                found.number(format!("{path}.{key}"), value, 1..=Timeouts::SECS_MAX.into(), "seconds")
        {
            *slot = secs;
        }
    }
    timeouts
}

/// A service whose mistakes, if it has any, were noted.
pub(super) struct Draft {
    pub service: Service,
    /// the places in the file of those real servers that are sound
    pub places: Vec<usize>,
}

/// The local pools as written and, where sound, as checked.
#[derive(Clone, Copy)]
pub(super) struct Pools<'a> {
    pub written: &'a [model::LocalPool],
    pub checked: &'a [Option<Pool>],
}

pub(super) fn services(
    written: &[model::Service],
    pools: Pools<'_>,
    global: &Timeouts,
    routes: &RouteTable,
    found: &mut Findings,
) -> Vec<Draft> {
    at_most("service", written.len(), limits::SERVICES, "services", found);
    let total: usize = written.iter().map(|service| service.real_servers.len()).sum();
    at_most("service", total, limits::REAL_SERVERS, "real servers", found);
    let mut names = HashMap::new();
    let mut drafts = Vec::new();
    for (index, service) in written.iter().take(limits::SERVICES).enumerate() {
        let path = format!("service[{index}]");
        unique_name(format!("{path}.name"), &service.name, "service", &mut names, found);
        drafts.push(draft(&path, service, pools, global, routes, found));
    }
    listeners_do_not_overlap(&drafts, found);
    drafts
}

fn draft(
    path: &str,
    written: &model::Service,
    pools: Pools<'_>,
    global: &Timeouts,
    routes: &RouteTable,
    found: &mut Findings,
) -> Draft {
    let protocol = match written.protocol {
        model::Protocol::Tcp => Protocol::Tcp,
        model::Protocol::Udp => Protocol::Udp,
    };
    let listen = listen(&format!("{path}.listen"), &written.listen.0, found);
    let (scheduler, hash_flags) = scheduler(path, written, found);
    let client_address = client_address(path, written, found);
    if matches!(client_address, ClientAddress::Uoa(_)) {
        uoa_is_for_ipv4(path, &written.real_servers, found);
    }
    let proxy_protocol_from = fronts(path, written, &listen, found);
    let timeouts = timeouts(&format!("{path}.timeouts"), &written.timeouts, *global, found);
    let real_servers = real_servers(path, &written.real_servers, found);
    let pool = pools.written.iter().position(|pool| pool.name == written.local_pool);
    match pool.map(|index| pools.checked.get(index)) {
        Some(Some(Some(pool))) => way_to_real_servers(path, &real_servers, pool, routes, found),
        // There is one of that name, whose own mistakes were noted.
        Some(_) => {}
        None => {
            let hint = known("local_pool", pools.written.iter().map(|pool| pool.name.as_str()));
            let problem = format!("there is no local pool {:?}", written.local_pool);
            found.mistake(format!("{path}.local_pool"), problem, hint);
        }
    }
    let (places, real_servers) = real_servers.into_iter().unzip();
    let service = Service {
        name: written.name.clone(),
        protocol,
        listen,
        scheduler,
        hash_flags,
        // Without one there is a mistake, and nobody will look it up.
        pool: pool.unwrap_or(usize::MAX),
        client_address,
        proxy_protocol_from,
        timeouts,
        on_remove: match written.on_remove {
            model::OnRemove::Drain => OnRemove::Drain,
            model::OnRemove::Reset => OnRemove::Reset,
        },
        real_servers,
    };
    Draft { service, places }
}

fn listen(path: &str, written: &[String], found: &mut Findings) -> Vec<Listener> {
    if written.is_empty() {
        found.mistake(path, "the service listens nowhere", "write where, such as \"10.1.0.100:80\"");
    }
    at_most(path, written.len(), limits::LISTENERS, "listeners", found);
    let listeners = written.iter().enumerate().take(limits::LISTENERS);
    listeners
        .filter_map(|(index, text)| {
            let path = if written.len() == 1 { path.to_owned() } else { format!("{path}[{index}]") };
            found.take(path, text::listener(text))
        })
        .collect()
}

fn scheduler(path: &str, written: &model::Service, found: &mut Findings) -> (Algorithm, HashFlags) {
    let (algorithm, own) = match written.scheduler {
        model::Scheduler::Rr => (Algorithm::RoundRobin, ""),
        model::Scheduler::Wrr => (Algorithm::WeightedRoundRobin, ""),
        model::Scheduler::Lc => (Algorithm::LeastConnection, ""),
        model::Scheduler::Wlc => (Algorithm::WeightedLeastConnection, ""),
        model::Scheduler::Sh => (Algorithm::SourceHash, "sh"),
        model::Scheduler::Mh => (Algorithm::Maglev, "mh"),
    };
    let mut flags = HashFlags::default();
    for (index, flag) in written.scheduler_flags.iter().enumerate() {
        let (of, name) = match flag {
            SchedulerFlag::ShFallback => ("sh", "fallback"),
            SchedulerFlag::ShPort => ("sh", "port"),
            SchedulerFlag::MhFallback => ("mh", "fallback"),
            SchedulerFlag::MhPort => ("mh", "port"),
        };
        if of != own {
            let hint = if own.is_empty() {
                "remove it; only sh and mh have flags".to_owned()
            } else {
                format!("write \"{own}-{name}\"")
            };
            let problem = format!("{of}-{name} is no flag of scheduler {}", algorithm.name());
            found.mistake(format!("{path}.scheduler_flags[{index}]"), problem, hint);
        }
        match name {
            "port" => flags.port = true,
            _ => flags.fallback = true,
        }
    }
    (algorithm, flags)
}

fn client_address(path: &str, written: &model::Service, found: &mut Findings) -> ClientAddress {
    let at = |key: &str| format!("{path}.{key}");
    let is_udp = written.protocol == model::Protocol::Udp;
    if written.toa.is_some() && written.client_address != model::ClientAddress::Toa {
        let hint = "write client_address = \"toa\", or remove the table";
        found.mistake(at("toa"), "the service does not tell the client's address by TOA", hint);
    }
    if written.uoa.is_some() && written.client_address != model::ClientAddress::Uoa {
        let hint = "write client_address = \"uoa\", or remove the table";
        found.mistake(at("uoa"), "the service does not tell the client's address by UOA", hint);
    }
    if written.proxy.is_some() && !(is_udp && written.client_address == model::ClientAddress::ProxyV2) {
        let problem = "the service sends no PROXY protocol header with datagrams";
        let hint = "write protocol = \"udp\" and client_address = \"proxy-v2\", or remove the table";
        found.mistake(at("proxy"), problem, hint);
    }
    match written.client_address {
        model::ClientAddress::None => ClientAddress::None,
        model::ClientAddress::Toa => {
            if is_udp {
                let hint = "write \"uoa\", which is the same for UDP, or \"proxy-v2\", or \"none\"";
                found.mistake(at("client_address"), "TOA is a TCP option and the service is UDP", hint);
            }
            ClientAddress::Toa(toa(path, written, found))
        }
        model::ClientAddress::Uoa => {
            if !is_udp {
                let hint = "write \"toa\", which is the same for TCP, or \"none\"";
                found.mistake(at("client_address"), "UOA is for datagrams and the service is TCP", hint);
            }
            ClientAddress::Uoa(uoa_settings(path, written, found))
        }
        model::ClientAddress::ProxyV1 => {
            if is_udp {
                let problem = "version 1 of the PROXY protocol has no word for UDP";
                found.mistake(at("client_address"), problem, "write \"proxy-v2\" or \"none\"");
            }
            ClientAddress::Proxy(ProxySettings { version: Version::V1, each_datagram: false })
        }
        model::ClientAddress::ProxyV2 => {
            let each_datagram = written.proxy.as_ref().is_some_and(|proxy| proxy.each_datagram);
            ClientAddress::Proxy(ProxySettings { version: Version::V2, each_datagram })
        }
    }
}

/// Who is believed when it says whose connection it is.
fn fronts(path: &str, written: &model::Service, listen: &[Listener], found: &mut Findings) -> Vec<Prefix> {
    let path = format!("{path}.proxy_protocol_from");
    at_most(&path, written.proxy_protocol_from.len(), limits::FRONTS, "fronts", found);
    let mut fronts: Vec<(Prefix, &str)> = Vec::new();
    for (index, text) in written.proxy_protocol_from.iter().enumerate().take(limits::FRONTS) {
        let path = format!("{path}[{index}]");
        let Some(front) = found.take(&path, text::hosts(text)) else { continue };
        let v4 = front.address.is_v4();
        if front.len == 0 {
            let problem = format!("{text:?} is everybody: each client could say that it is another");
            found.mistake(&path, problem, "write the addresses that the front connects from");
        } else if !listen.is_empty() && listen.iter().all(|listener| listener.address.is_v4() != v4) {
            let problem = format!("nobody in {text:?} can reach an address of the other family");
            found.warning(&path, problem, "write a front of the family that the service listens in");
        } else if let Some((_, wider)) =
            fronts.iter().find(|(wider, _)| wider.len <= front.len && wider.covers(&front.address))
        {
            found.warning(&path, format!("{text:?} lies within {wider:?}"), "write one of the two");
        }
        fronts.push((front, text));
    }
    fronts.into_iter().map(|(front, _)| front).collect()
}

fn toa(path: &str, written: &model::Service, found: &mut Findings) -> ToaSettings {
    let details = written.toa.clone().unwrap_or_default();
    let mut kind = |key: &str, value: i64, good: &[u8]| {
        let kind = good.iter().copied().find(|&kind| i64::from(kind) == value);
        if kind.is_none() {
            let list: Vec<String> = good.iter().map(u8::to_string).collect();
            let problem = format!("{value} is no option kind that receivers of TOA read");
            found.mistake(format!("{path}.toa.{key}"), problem, format!("write one of {}", list.join(", ")));
        }
        kind.unwrap_or(254)
    };
    ToaSettings {
        kind_v4: kind("kind", details.kind, &[254, 253, 200, 28]),
        kind_v6: kind("kind_v6", details.kind_v6, &[254, 253]),
        on_syn: details.on_syn,
        no_room: match details.no_room {
            model::NoRoom::Forward => NoRoom::Forward,
            model::NoRoom::BareAck => NoRoom::BareAck,
            model::NoRoom::Reset => NoRoom::Reset,
        },
    }
}

fn uoa_settings(path: &str, written: &model::Service, found: &mut Findings) -> UoaSettings {
    let most = written.uoa.clone().unwrap_or_default().datagrams_max;
    let what = "and \"none\" for client_address tells nobody";
    let most = found.number(format!("{path}.uoa.datagrams_max"), most, 1..=255, what);
    UoaSettings { datagrams_max: most.unwrap_or(1) }
}

/// IPv6 real servers get their sessions without: the option is one of IPv4.
fn uoa_is_for_ipv4(path: &str, written: &[model::RealServer], found: &mut Findings) {
    for (index, server) in written.iter().enumerate().take(limits::REAL_SERVERS_OF_SERVICE) {
        if text::real_server(&server.address).is_ok_and(|(address, _)| !address.is_v4()) {
            found.warning(
                format!("{path}.real_server[{index}].address"),
                format!("UOA is an IPv4 option: {} is not told who the client is", server.address),
                "write an IPv4 real server, or client_address = \"none\"",
            );
        }
    }
}

/// The sound real servers and their places in the file.
fn real_servers(path: &str, written: &[model::RealServer], found: &mut Findings) -> Vec<(usize, RealServer)> {
    let list = format!("{path}.real_server");
    at_most(&list, written.len(), limits::REAL_SERVERS_OF_SERVICE, "real servers", found);
    if written.is_empty() {
        let hint = "add a [[service.real_server]]";
        found.warning(&list, "the service has no real server and refuses every client", hint);
    } else if written.iter().all(|server| server.weight == 0) {
        let hint = "give one of them a weight";
        found.warning(&list, "every real server is drained and new clients are refused", hint);
    }
    let mut seen = HashMap::new();
    let mut sound = Vec::new();
    for (index, server) in written.iter().enumerate().take(limits::REAL_SERVERS_OF_SERVICE) {
        let at = |key: &str| format!("{list}[{index}].{key}");
        let weight = found.number(at("weight"), server.weight, 0..=65_535, "0 drains it");
        let Some((address, port)) = found.take(at("address"), text::real_server(&server.address)) else {
            continue;
        };
        if let Some(first) = seen.insert((address, port), index) {
            let problem =
                format!("{} is a real server of this service already, {list}[{first}]", server.address);
            found.mistake(at("address"), problem, "write it once, with the sum of the weights");
            continue;
        }
        sound.extend(weight.map(|weight| (index, RealServer { address, port, weight })));
    }
    sound
}

/// Whether sessions can leave for the real servers and their answers come back.
fn way_to_real_servers(
    path: &str,
    real_servers: &[(usize, RealServer)],
    pool: &Pool,
    routes: &RouteTable,
    found: &mut Findings,
) {
    for (index, server) in real_servers {
        let path = format!("{path}.real_server[{index}].address");
        let family = if server.address.is_v4() { "IPv4" } else { "IPv6" };
        if !pool.addresses.iter().any(|local| local.is_v4() == server.address.is_v4()) {
            let problem = format!(
                "local pool {:?} has no {family} address to reach {} from",
                pool.name, server.address
            );
            found.mistake(&path, problem, format!("add an {family} address to the pool"));
        }
        match routes.lookup(&server.address) {
            None => {
                let hint = "add a [[route]] to it, or a port address in its subnet";
                found.mistake(path, format!("no route leads to {}", server.address), hint);
            }
            Some(hop) if hop.port != pool.port => {
                let problem = format!(
                    "{} is reached by another port than that of local pool {:?}",
                    server.address, pool.name
                );
                let hint =
                    "write a pool whose port is the real server's, unless routers bring the answers there";
                found.warning(path, problem, hint);
            }
            Some(_) => {}
        }
    }
}

/// A listener, ordered so that those that could overlap follow each other.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    place: (Protocol, Address),
    port_first: u16,
    port_last: u16,
    service: usize,
    path: String,
}

/// No port of a VIP may belong to two listeners.
fn listeners_do_not_overlap(drafts: &[Draft], found: &mut Findings) {
    let mut claims = Vec::new();
    for (index, Draft { service, .. }) in drafts.iter().enumerate() {
        let several = service.listen.len() > 1;
        for (nth, listener) in service.listen.iter().enumerate() {
            let path = format!("service[{index}].listen");
            claims.push(Claim {
                place: (service.protocol, listener.address),
                port_first: listener.port_first,
                port_last: listener.port_last,
                service: index,
                path: if several { format!("{path}[{nth}]") } else { path },
            });
        }
    }
    claims.sort_unstable();
    // The listener that reaches furthest among those so far of this protocol and address.
    let mut furthest: Option<&Claim> = None;
    for claim in &claims {
        let rival = furthest.filter(|rival| rival.place == claim.place);
        if let Some(rival) = rival.filter(|rival| claim.port_first <= rival.port_last) {
            // Whichever comes later in the file is the one to correct.
            let (earlier, later) =
                if rival.service <= claim.service { (rival, claim) } else { (claim, rival) };
            let problem = format!("{} port {} is taken by {}", claim.place.1, claim.port_first, earlier.path);
            found.mistake(&later.path, problem, "give each port of an address to one listener");
        }
        if rival.is_none_or(|rival| claim.port_last > rival.port_last) {
            furthest = Some(claim);
        }
    }
}
