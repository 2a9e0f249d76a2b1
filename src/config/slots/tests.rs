//! Numbers stay, removed things wait, unchanged things are not made anew.

use super::super::{Config, parse};
use super::*;
use crate::id::PortId;
use crate::service::scheduler::{ClientKey, Connections, SchedulerState};
use crate::wire::Protocol;

const FACTS: PortFacts =
    PortFacts { mac: [2, 0, 0, 0, 0, 1], mtu: 1500, checksum_offload: true, partial_checksums: false };

const HEAD: &str = r#"
    port = [{ name = "lan", device = "net_af_packet0,iface=lan", addresses = ["10.2.0.254/24"] }]
    local_pool = [{ name = "p", port = "lan", addresses = ["10.2.0.100", "10.2.0.101"] }]
"#;

fn service(name: &str, vip: &str, real_servers: &[(&str, u16)]) -> String {
    let servers: Vec<String> = real_servers
        .iter()
        .map(|(address, weight)| format!("{{ address = \"{address}\", weight = {weight} }}"))
        .collect();
    format!(
        "[[service]]\nname = \"{name}\"\nlisten = \"{vip}:80\"\nprotocol = \"tcp\"\nscheduler = \"rr\"\n\
         local_pool = \"p\"\nreal_server = [{}]\n",
        servers.join(", ")
    )
}

fn config(services: &[String]) -> Config {
    parse(&format!("{HEAD}{}", services.concat())).unwrap()
}

fn apply(slots: &Slots, config: &Config) -> (Snapshot, Slots) {
    slots.apply(config, &[FACTS], Arc::default()).unwrap()
}

fn address(text: &str) -> Address {
    text.parse::<std::net::IpAddr>().unwrap().into()
}

/// The slot of the real server with this address.
fn slot_of(snapshot: &Snapshot, text: &str) -> Option<RealServer> {
    snapshot.real_servers.iter().flatten().find(|server| server.address == address(text)).cloned()
}

fn find(snapshot: &Snapshot, vip: &str) -> Option<ServiceId> {
    snapshot.listeners.find(Protocol::Tcp, &address(vip), 80)
}

#[test]
fn a_snapshot_says_what_the_configuration_says() {
    let (snapshot, slots) = apply(
        &Slots::new(),
        &config(&[service("web", "10.2.0.200", &[("10.2.0.11:80", 1), ("10.2.0.12", 0)])]),
    );
    assert_eq!((snapshot.generation, slots.generation()), (1, 1));
    let id = find(&snapshot, "10.2.0.200").unwrap();
    let web = snapshot.services[id.index()].as_ref().unwrap();
    assert_eq!(web.name, "web");
    assert_eq!(web.real_servers.len(), 2);
    let client = ClientKey { address: address("192.0.2.1"), port: 1 };
    let idle = |_: RealServerId| Connections::default();
    let picked = web.scheduler.pick(&mut SchedulerState::default(), client, &idle).unwrap();
    assert_eq!(snapshot.real_servers[picked.index()].as_ref().unwrap().address, address("10.2.0.11"));
    let role = |text: &str| snapshot.owned.get(&address(text)).map(|owned| owned.role);
    assert_eq!(role("10.2.0.254"), Some(Role::Port));
    assert_eq!(role("10.2.0.200"), Some(Role::Virtual));
    assert_eq!(role("10.2.0.101"), Some(Role::Local(PoolId(0))));
    assert_eq!(role("10.2.0.11"), None);
    assert_eq!(snapshot.owned[&address("10.2.0.200")].port, Some(PortId(0)));
    let way = snapshot.routes.lookup(&address("10.2.0.11")).copied();
    assert_eq!(way.unwrap().port, PortId(0));
    assert_eq!(slot_of(&snapshot, "10.2.0.11").unwrap().next_hop, way);
    assert!(snapshot.routes.lookup_stranger(&address("10.2.0.200")).unwrap().1, "it is not a stranger's");
    assert!(snapshot.ports[0].checksum_offload);
}

#[test]
fn numbers_stay_when_neighbours_in_the_file_come_and_go() {
    let web = service("web", "10.2.0.200", &[("10.2.0.11:80", 1), ("10.2.0.12:80", 1)]);
    let api = service("api", "10.2.0.201", &[("10.2.0.21:80", 1)]);
    let (first, slots) = apply(&Slots::new(), &config(&[web.clone(), api.clone()]));
    let more = service("more", "10.2.0.202", &[("10.2.0.31:80", 1)]);
    let web_2 = service("web", "10.2.0.200", &[("10.2.0.13:80", 1), ("10.2.0.12:80", 9)]);
    let (second, _) = apply(&slots, &config(&[more, api, web_2]));
    assert_eq!(find(&first, "10.2.0.200"), find(&second, "10.2.0.200"));
    assert_eq!(find(&first, "10.2.0.201"), find(&second, "10.2.0.201"));
    for server in ["10.2.0.12", "10.2.0.21", "10.2.0.11"] {
        assert_eq!(slot_of(&first, server).unwrap().id, slot_of(&second, server).unwrap().id);
    }
    assert_eq!(slot_of(&second, "10.2.0.12").unwrap().weight, 9);
    assert!(slot_of(&second, "10.2.0.11").unwrap().removed);
    let mut ids: Vec<_> = second.real_servers.iter().flatten().map(|server| server.id).collect();
    ids.dedup();
    assert_eq!(ids.len(), 5);
}

#[test]
fn an_unchanged_service_is_not_made_anew() {
    let web = service("web", "10.2.0.200", &[("10.2.0.11:80", 1)]);
    let api = service("api", "10.2.0.201", &[("10.2.0.21:80", 1)]);
    let (first, slots) = apply(&Slots::new(), &config(&[web.clone(), api]));
    let api = service("api", "10.2.0.201", &[("10.2.0.21:80", 2)]);
    let (second, _) = apply(&slots, &config(&[web, api]));
    let same =
        |id: usize| Arc::ptr_eq(first.services[id].as_ref().unwrap(), second.services[id].as_ref().unwrap());
    assert!(same(0));
    assert!(!same(1));
}

#[test]
fn removed_things_keep_their_slots_until_retired() {
    let web = service("web", "10.2.0.200", &[("10.2.0.11:80", 1)]);
    let api = service("api", "10.2.0.201", &[("10.2.0.21:80", 1)]);
    let (first, slots) = apply(&Slots::new(), &config(&[web.clone(), api.clone()]));
    let (second, mut slots) = apply(&slots, &config(std::slice::from_ref(&api)));
    assert_eq!(find(&second, "10.2.0.200"), None);
    assert!(!second.owned.contains_key(&address("10.2.0.200")));
    let gone = slot_of(&second, "10.2.0.11").unwrap();
    assert!(gone.removed);
    assert!(
        second.services[gone.service.index()].is_some(),
        "its sessions still ask for time-outs and on_remove"
    );
    assert!(slots.has_removed());

    assert_eq!(slots.retire(|id| id == gone.id, |_, _| false), 0, "it has sessions");
    let (revived, _) = apply(&slots, &config(&[api.clone(), web]));
    let back = slot_of(&revived, "10.2.0.11").unwrap();
    assert_eq!((back.id, back.removed), (gone.id, false));
    assert_eq!(find(&revived, "10.2.0.200"), find(&first, "10.2.0.200"));

    assert_eq!(slots.retire(|_| false, |_, _| false), 2, "the real server and its service");
    assert!(!slots.has_removed());
    let new = service("new", "10.2.0.202", &[("10.2.0.31:80", 1)]);
    let (third, _) = apply(&slots, &config(&[api, new]));
    assert_eq!(slot_of(&third, "10.2.0.31").unwrap().id, gone.id, "the number is free again");
}

/// While a service is away, one of its real servers' numbers may be given to another service.
#[test]
fn a_service_that_comes_back_does_not_find_its_clients_at_another_services_real_servers() {
    let web = service("web", "10.2.0.200", &[("10.2.0.11:80", 1), ("10.2.0.12:80", 1)]);
    let (first, slots) = apply(&Slots::new(), &config(std::slice::from_ref(&web)));
    let [busy, idle] = ["10.2.0.11", "10.2.0.12"].map(|server| slot_of(&first, server).unwrap().id);
    let (_, mut slots) = apply(&slots, &config(&[]));
    assert_eq!(
        slots.retire(|id| id == busy, |_, _| false),
        1,
        "only the idle one; the service stays with the other"
    );
    let api = service("api", "10.2.0.201", &[("10.2.0.21:80", 1)]);
    let (second, slots) = apply(&slots, &config(std::slice::from_ref(&api)));
    assert_eq!(slot_of(&second, "10.2.0.21").unwrap().id, idle);

    let (third, _) = apply(&slots, &config(&[api, web]));
    let id = find(&third, "10.2.0.200").unwrap();
    let web = third.services[id.index()].as_ref().unwrap();
    let servers: Vec<_> =
        web.real_servers.iter().map(|id| third.real_servers[id.index()].as_ref().unwrap()).collect();
    assert!(servers.iter().all(|server| server.service == id), "{servers:?}");
    assert_eq!(web.real_servers[0], busy);
    let client = |port| ClientKey { address: address("192.0.2.1"), port };
    let mut state = SchedulerState::default();
    for port in 1..10 {
        let picked = web.scheduler.pick(&mut state, client(port), &|_| Connections::default()).unwrap();
        assert_ne!(picked, idle, "that is api's");
    }
}

#[test]
fn conformance_m5_a_removed_local_address_stays_ours_until_its_sessions_have_ended() {
    let web = service("web", "10.2.0.200", &[("10.2.0.11:80", 1)]);
    let (_, slots) = apply(&Slots::new(), &config(std::slice::from_ref(&web)));
    let fewer = parse(&format!("{HEAD}{web}").replace(", \"10.2.0.101\"", "")).unwrap();
    let (second, mut slots) = apply(&slots, &fewer);
    assert_eq!(second.pools[0].as_ref().unwrap().addresses, [address("10.2.0.100")]);
    assert_eq!(second.owned[&address("10.2.0.101")].role, Role::Local(PoolId(0)));

    let as_vip =
        parse(&format!("{HEAD}{web}").replace(", \"10.2.0.101\"", "").replace("10.2.0.200", "10.2.0.101"))
            .unwrap();
    let refused = slots.apply(&as_vip, &[FACTS], Arc::default()).err().unwrap();
    assert_eq!(refused, BuildError::StillInUse { address: address("10.2.0.101"), pool: "p".to_owned() });

    slots.retire(|_| true, |_, local| *local != address("10.2.0.101"));
    let (third, _) = apply(&slots, &as_vip);
    assert_eq!(third.owned[&address("10.2.0.101")].role, Role::Virtual);
}

#[test]
fn the_route_epoch_changes_with_the_routes_only() {
    let web = service("web", "10.2.0.200", &[("10.2.0.11:80", 1)]);
    let (first, slots) = apply(&Slots::new(), &config(std::slice::from_ref(&web)));
    let (second, slots) = apply(&slots, &config(&[]));
    assert_eq!(first.route_epoch, second.route_epoch);
    let routed = parse(&format!("route = [{{ to = \"0.0.0.0/0\", via = \"10.2.0.1\" }}]\n{HEAD}")).unwrap();
    let (third, _) = apply(&slots, &routed);
    assert_ne!(second.route_epoch, third.route_epoch);
}

#[test]
fn conformance_m8_a_thousand_services_of_a_hundred_real_servers_are_applied() {
    let services: Vec<String> = (0..1000)
        .map(|n| {
            let servers: Vec<String> =
                (0..100).map(|m| format!("10.3.{}.{}:{}", n / 250, m + 1, n + 1)).collect();
            let servers: Vec<(&str, u16)> = servers.iter().map(|server| (server.as_str(), 1)).collect();
            service(&format!("s{n}"), &format!("10.4.{}.{}", n / 250, n % 250 + 1), &servers)
        })
        .collect();
    let head = HEAD.replace("[{ name = \"lan\"", "[{ name = \"lan\", mtu = 1500");
    let text = format!("route = [{{ to = \"0.0.0.0/0\", via = \"10.2.0.1\" }}]\n{head}{}", services.concat());
    let (snapshot, slots) = apply(&Slots::new(), &parse(&text).unwrap());
    assert_eq!(snapshot.real_servers.iter().flatten().count(), 100_000);
    let (again, _) = apply(&slots, &parse(&text).unwrap());
    let same = snapshot.services.iter().zip(&again.services);
    assert!(same.into_iter().all(|(a, b)| Arc::ptr_eq(a.as_ref().unwrap(), b.as_ref().unwrap())));
}
