//! Checks of `[[port]]`, `[[route]]`, `[[local_pool]]`.

use hashbrown::HashMap;

use super::super::checked::{Device, Pool, Port, connected_routes, truncate};
use super::super::mistake::Findings;
use super::super::model::{self, ChecksumOffload};
use super::super::{limits, text};
use super::{at_most, known, unique_name};
use crate::id::PortId;
use crate::service::route::{NextHop, Route, RouteTable};
use crate::wire::Address;

/// The smallest MTU of a link that carries IPv6 (RFC 8200 §5).
const MTU_MIN_V6: i64 = 1280;

pub(super) fn ports(written: &[model::Port], found: &mut Findings) -> Vec<Option<Port>> {
    if written.is_empty() {
        found.mistake("port", "there is no port", "add a [[port]] with name, device and addresses");
    }
    at_most("port", written.len(), limits::PORTS, "ports", found);
    let mut names = HashMap::new();
    let mut devices = HashMap::new();
    let mut subnets = HashMap::new();
    written
        .iter()
        .take(limits::PORTS)
        .enumerate()
        .map(|(index, port)| {
            let at = |key: &str| format!("port[{index}].{key}");
            let name = unique_name(at("name"), &port.name, "port", &mut names, found);
            let device = found.take(at("device"), text::device(&port.device));
            let device = device.filter(|device| device_is_free(at("device"), device, &mut devices, found));
            let addresses = port_addresses(index, port, &mut subnets, found);
            let v6 = addresses.iter().any(|(address, _)| !address.is_v4());
            let mtu_min = if v6 { MTU_MIN_V6 } else { 576 };
            let mtu = found.number(at("mtu"), port.mtu, mtu_min..=9600, "bytes of an IP packet");
            let queues = port.queues.map(|queues| {
                found.number::<u16>(at("queues"), queues, 1..=limits::WORKERS, "at most one per worker")
            });
            Some(Port {
                id: PortId(index as u16),
                name: name?,
                device: device?,
                addresses,
                mtu: mtu?,
                queues: match queues {
                    Some(queues) => Some(queues?),
                    None => None,
                },
                checksum_offload: port.checksum_offload == ChecksumOffload::Auto,
                reverse_path_filter: port.reverse_path_filter,
                answer_for_other_ports: port.answer_for_other_ports,
                promiscuous: port.promiscuous,
                wire_frames: port.wire_frames,
                exclusive: port.exclusive,
            })
        })
        .collect()
}

/// Whether neither the device nor the kernel interface behind it belongs to another port.
fn device_is_free(
    path: String,
    device: &Device,
    seen: &mut HashMap<String, String>,
    found: &mut Findings,
) -> bool {
    let interface = device.as_str().split(',').find_map(|argument| argument.strip_prefix("iface="));
    let claims =
        [Some(device.name().to_owned()), interface.map(|interface| format!("interface {interface}"))];
    for claim in claims.into_iter().flatten() {
        if let Some(first) = seen.insert(claim.clone(), path.clone()) {
            found.mistake(
                path,
                format!("{claim} is the device of another port, {first}"),
                "write a device of its own (number vdevs: net_af_packet0, net_af_packet1)",
            );
            return false;
        }
    }
    true
}

fn port_addresses(
    index: usize,
    port: &model::Port,
    subnets: &mut HashMap<(Address, u8), String>,
    found: &mut Findings,
) -> Vec<(Address, u8)> {
    let path = format!("port[{index}].addresses");
    at_most(&path, port.addresses.len(), limits::PORT_ADDRESSES, "addresses", found);
    if port.addresses.is_empty() {
        found.mistake(&path, "the port has no address", "write its addresses, such as [\"10.1.0.254/24\"]");
    }
    let mut addresses: Vec<(Address, u8)> = Vec::new();
    for (nth, written) in port.addresses.iter().enumerate().take(limits::PORT_ADDRESSES) {
        let path = format!("{path}[{nth}]");
        let Some((address, len)) = found.take(&path, text::interface_address(written)) else { continue };
        let subnet = (truncate(address, len), len);
        let elsewhere = subnets.get(&subnet).filter(|first| !first.starts_with(&format!("port[{index}].")));
        if let Some(first) = elsewhere {
            found.mistake(
                path,
                format!("the subnet of {written} is behind another port already, {first}"),
                "write an address of another subnet",
            );
            continue;
        }
        subnets.entry(subnet).or_insert(path);
        addresses.push((address, len));
    }
    addresses
}

/// The port of this name, sound or not: `Err` if there is none, `Ok(None)` if it is not sound.
fn port_named<'a>(
    path: &str,
    name: &str,
    written: &[model::Port],
    ports: &'a [Option<Port>],
    found: &mut Findings,
) -> Option<&'a Port> {
    let index = written.iter().position(|port| port.name == name);
    if index.is_none() {
        let names = written.iter().map(|port| port.name.as_str());
        found.mistake(path, format!("there is no port {name:?}"), known("port", names));
    }
    ports.get(index?)?.as_ref()
}

pub(super) fn routes(
    written: &[model::Route],
    written_ports: &[model::Port],
    ports: &[Option<Port>],
    found: &mut Findings,
) -> Vec<Route> {
    at_most("route", written.len(), limits::ROUTES, "routes", found);
    let sound: Vec<Port> = ports.iter().flatten().cloned().collect();
    let connected = RouteTable::new(connected_routes(&sound));
    let mut seen: HashMap<(Address, u8), String> = connected_routes(&sound)
        .map(|route| ((route.prefix, route.prefix_len), "a port's subnet".to_owned()))
        .collect();
    let mut routes = Vec::new();
    for (index, route) in written.iter().enumerate().take(limits::ROUTES) {
        let at = |key: &str| format!("route[{index}].{key}");
        let to = found.take(at("to"), text::prefix(&route.to));
        if let Some(to) = to {
            if let Some(first) = seen.get(&to) {
                let hint = "remove one of them; there is one next hop per prefix";
                found.mistake(at("to"), format!("{} is routed already, {first}", route.to), hint);
                continue;
            }
            seen.insert(to, at("to"));
        }
        let port =
            route.port.as_deref().map(|name| port_named(&at("port"), name, written_ports, ports, found));
        let next_hop = match &route.via {
            Some(via) => {
                let Some(router) = found.take(at("via"), text::address(via)) else { continue };
                if to.is_some_and(|(prefix, _)| prefix.is_v4() != router.is_v4()) {
                    found.mistake(
                        at("via"),
                        format!("{router} is not of the family of {}", route.to),
                        "write a router of the same family",
                    );
                    continue;
                }
                let port_id = match port {
                    Some(port) => port.map(|port| port.id),
                    None if text::is_link_local(&router) => {
                        let hint = "add port = \"...\", the port behind which the router is";
                        found.mistake(
                            at("via"),
                            format!("{router} is link-local and no port is named"),
                            hint,
                        );
                        None
                    }
                    None => connected.lookup(&router).map(|hop| hop.port),
                };
                router_is_reachable(&at("via"), &router, port_id, &sound, found)
                    .map(|port| NextHop { port, via: Some(router) })
            }
            None => {
                if port.is_none() {
                    let hint =
                        "add via = \"...\", the router's address, or port = \"...\" for an on-link prefix";
                    found.mistake(format!("route[{index}]"), "it leads nowhere", hint);
                }
                port.flatten().map(|port| NextHop { port: port.id, via: None })
            }
        };
        if let (Some((prefix, prefix_len)), Some(next_hop)) = (to, next_hop) {
            routes.push(Route { prefix, prefix_len, next_hop });
        }
    }
    routes
}

/// The port, if the router is a neighbour behind it and not the gateway itself.
fn router_is_reachable(
    path: &str,
    router: &Address,
    port: Option<PortId>,
    ports: &[Port],
    found: &mut Findings,
) -> Option<PortId> {
    if ports.iter().flat_map(|port| &port.addresses).any(|(own, _)| own == router) {
        found.mistake(path, format!("{router} is the gateway's own address"), "write the router's address");
        return None;
    }
    let on_link =
        |port: &Port| connected_routes(std::slice::from_ref(port)).any(|route| route.covers(router));
    match port {
        Some(id) if text::is_link_local(router) => Some(id),
        Some(id) if ports.iter().any(|port| port.id == id && on_link(port)) => Some(id),
        _ => {
            // A link-local router without a port was reported already; so was a port that is not sound.
            if !text::is_link_local(router) && (port.is_some() || !ports.is_empty()) {
                found.mistake(
                    path,
                    format!("{router} is in no subnet of the port's addresses"),
                    "write a router that is a neighbour of the gateway, or give a port an address in its subnet",
                );
            }
            None
        }
    }
}

/// Connected and static routes as the packets will see them.
pub(super) fn route_table(ports: &[Option<Port>], routes: &[Route]) -> RouteTable {
    let sound: Vec<Port> = ports.iter().flatten().cloned().collect();
    RouteTable::new(connected_routes(&sound).chain(routes.iter().copied()))
}

pub(super) fn pools(
    written: &[model::LocalPool],
    written_ports: &[model::Port],
    ports: &[Option<Port>],
    found: &mut Findings,
) -> Vec<Option<Pool>> {
    at_most("local_pool", written.len(), limits::POOLS, "pools", found);
    let mut names = HashMap::new();
    written
        .iter()
        .enumerate()
        .take(limits::POOLS)
        .map(|(index, pool)| {
            let at = |key: &str| format!("local_pool[{index}].{key}");
            let name = unique_name(at("name"), &pool.name, "local pool", &mut names, found);
            let port = port_named(&at("port"), &pool.port, written_ports, ports, found);
            let l4_ports = found.take(at("l4_ports"), text::port_range(&pool.l4_ports));
            let before = found.mistakes.len();
            let mut addresses = Vec::new();
            for (nth, entry) in pool.addresses.iter().enumerate() {
                addresses.extend(
                    found
                        .take(format!("{}[{nth}]", at("addresses")), text::pool_addresses(entry))
                        .unwrap_or_default(),
                );
            }
            if pool.addresses.is_empty() {
                let hint = "write addresses, such as [\"10.2.0.100-10.2.0.115\"]";
                found.mistake(at("addresses"), "the pool is empty", hint);
            }
            at_most(&at("addresses"), addresses.len(), limits::POOL_ADDRESSES, "addresses", found);
            let addresses_sound = found.mistakes.len() == before;
            let (port_first, port_last) = l4_ports?;
            Some(Pool { name: name?, port: port?.id, addresses, port_first, port_last })
                .filter(|_| addresses_sound)
        })
        .collect()
}
