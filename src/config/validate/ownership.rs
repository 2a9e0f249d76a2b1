//! Who owns an address: a port, a pool or the services that listen on it, and never two of them.

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use std::fmt;

use super::super::checked::{Pool, Port, connected_routes};
use super::super::mistake::Findings;
use super::super::text;
use super::services::Draft;
use crate::wire::Address;

/// What an address of the gateway is used for, and where that is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Port(usize),
    Local(usize),
    Virtual(usize),
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Use::Port(index) => write!(f, "a port's address, port[{index}].addresses"),
            Use::Local(index) => write!(f, "a local address, local_pool[{index}].addresses"),
            Use::Virtual(index) => write!(f, "a virtual address, service[{index}].listen"),
        }
    }
}

/// Checks that every address has one use, lies where it is said to lie, and is not a real server's too.
pub(super) fn check(ports: &[Option<Port>], pools: &[Option<Pool>], drafts: &[Draft], found: &mut Findings) {
    let mut owned: HashMap<Address, Use> = HashMap::new();
    let mut claim = |address: Address, usage: Use, path: String, found: &mut Findings| match owned
        .entry(address)
    {
        Entry::Vacant(free) => {
            free.insert(usage);
            true
        }
        // Several services may listen on one VIP.
        Entry::Occupied(taken) if matches!((taken.get(), usage), (Use::Virtual(_), Use::Virtual(_))) => false,
        Entry::Occupied(taken) => {
            let problem = format!("{address} is already {}", taken.get());
            found.mistake(path, problem, "write an address that nothing else of the gateway uses");
            false
        }
    };
    for (index, port) in sound(ports) {
        for (nth, (address, _)) in port.addresses.iter().enumerate() {
            claim(*address, Use::Port(index), format!("port[{index}].addresses[{nth}]"), found);
        }
    }
    for (index, pool) in sound(pools) {
        let path = format!("local_pool[{index}].addresses");
        for &address in &pool.addresses {
            if claim(address, Use::Local(index), path.clone(), found) {
                local_address_lies_right(&path, &address, pool, ports, found);
            }
        }
    }
    for (index, Draft { service, .. }) in drafts.iter().enumerate() {
        let path = format!("service[{index}].listen");
        for listener in &service.listen {
            if claim(listener.address, Use::Virtual(index), path.clone(), found) {
                not_a_subnet(&path, &listener.address, ports, found);
            }
        }
    }
    for (index, Draft { service, places }) in drafts.iter().enumerate() {
        for (server, nth) in service.real_servers.iter().zip(places) {
            if let Some(usage) = owned.get(&server.address) {
                let problem = format!("{} is {usage}, of the gateway itself", server.address);
                let path = format!("service[{index}].real_server[{nth}].address");
                found.mistake(path, problem, "write the address of another machine");
            }
        }
    }
}

/// The sound ones of a list and their places.
fn sound<T>(list: &[Option<T>]) -> impl Iterator<Item = (usize, &T)> {
    list.iter().enumerate().filter_map(|(index, entry)| Some((index, entry.as_ref()?)))
}

/// The ports with a subnet that `address` lies in, and that subnet's prefix length.
fn subnets<'a>(address: &'a Address, ports: &'a [Option<Port>]) -> impl Iterator<Item = (&'a Port, u8)> + 'a {
    ports.iter().flatten().flat_map(move |port| {
        let connected = connected_routes(std::slice::from_ref(port));
        let covering: Vec<u8> =
            connected.filter(|route| route.covers(address)).map(|route| route.prefix_len).collect();
        covering.into_iter().map(move |len| (port, len))
    })
}

fn local_address_lies_right(
    path: &str,
    address: &Address,
    pool: &Pool,
    ports: &[Option<Port>],
    found: &mut Findings,
) {
    not_a_subnet(path, address, ports, found);
    let name = |port: &Port| port.name.clone();
    // The longest prefix decides, as it does for packets.
    let nearest = subnets(address, ports).max_by_key(|(_, len)| *len);
    let own = ports.iter().flatten().find(|port| port.id == pool.port).map(name).unwrap_or_default();
    match nearest {
        Some((port, _)) if port.id != pool.port => found.mistake(
            path,
            format!("{address} lies in a subnet of port {:?}, not of {own:?}", port.name),
            format!("write addresses behind port {own:?}, or port = {:?}", port.name),
        ),
        None => found.warning(
            path,
            format!("{address} is in no subnet of port {own:?}"),
            "see that routers send it to the gateway, or write addresses of the port's subnet",
        ),
        Some(_) => {}
    }
}

fn not_a_subnet(path: &str, address: &Address, ports: &[Option<Port>], found: &mut Findings) {
    let what =
        subnets(address, ports).find_map(|(port, len)| Some((port, text::names_subnet(address, len)?)));
    if let Some((port, what)) = what {
        let problem = format!("{address} is the {what} address of a subnet of port {:?}", port.name);
        found.mistake(path, problem, "write an address that a host can have");
    }
}
