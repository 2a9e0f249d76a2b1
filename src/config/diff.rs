//! What changes between two configurations, and what cannot change while the gateway runs.

use hashbrown::{HashMap, HashSet};
use std::hash::Hash;

use serde::Serialize;
use utoipa::ToSchema;

use super::checked::{Config, RealServer, Service};
use crate::service::route::Route;
use crate::wire::Address;

/// The names of what is new, gone or different.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, ToSchema)]
#[schema(as = config::Changes)]
pub struct Changes {
    /// only in the new configuration
    pub added: Vec<String>,
    /// only in the old one
    pub removed: Vec<String>,
    /// in both, and not the same
    pub changed: Vec<String>,
}

impl Changes {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

/// What an apply will change.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, ToSchema)]
#[schema(as = config::Diff)]
pub struct Diff {
    /// services by name; their real servers are listed apart
    pub services: Changes,
    /// real servers as `service/address:port`
    pub real_servers: Changes,
    /// local pools by name
    pub local_pools: Changes,
    /// routes by prefix
    pub routes: Changes,
    /// whether what refused clients are told changes
    pub refusal: bool,
}

impl Diff {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        let lists = [&self.services, &self.real_servers, &self.local_pools, &self.routes];
        !self.refusal && lists.into_iter().all(Changes::is_empty)
    }
}

/// The new configuration changes what is fixed at start.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{} cannot change while the gateway runs; restart fullnatd, or leave it as it is", paths.join(", "))]
pub struct RestartNeeded {
    /// the tables or keys concerned, such as `dataplane.workers`, `port[0].mtu`
    pub paths: Vec<String>,
}

/// Compares two configurations.
///
/// # Errors
/// Something differs that is fixed at start.
pub fn diff(old: &Config, new: &Config) -> Result<Diff, RestartNeeded> {
    let paths = fixed_at_start(old, new);
    if !paths.is_empty() {
        return Err(RestartNeeded { paths });
    }
    let (services, real_servers) = (service_changes(old, new), real_server_changes(old, new));
    let pools = |config: &Config| -> Vec<(String, _)> {
        config.pools.iter().map(|pool| (pool.name.clone(), pool.clone())).collect()
    };
    let routes = |config: &Config| -> Vec<((Address, u8), Route)> {
        let routes = config.static_routes.iter();
        routes.map(|route| ((route.prefix, route.prefix_len), *route)).collect()
    };
    Ok(Diff {
        services,
        real_servers,
        local_pools: compare(pools(old), pools(new), |name| name.clone()),
        routes: compare(routes(old), routes(new), |(prefix, len)| format!("{prefix}/{len}")),
        refusal: old.refusal != new.refusal,
    })
}

/// Services without their real servers, their pool by name.
fn service_changes(old: &Config, new: &Config) -> Changes {
    let services = |config: &Config| -> Vec<(String, (Service, String))> {
        let bare = |service: &Service| Service { real_servers: Vec::new(), pool: 0, ..service.clone() };
        let services = config.services.iter();
        services
            .map(|service| (service.name.clone(), (bare(service), config.pools[service.pool].name.clone())))
            .collect()
    };
    compare(services(old), services(new), |name| name.clone())
}

fn real_server_changes(old: &Config, new: &Config) -> Changes {
    type Key = (String, Address, Option<u16>);
    let real_servers = |config: &Config| -> Vec<(Key, RealServer)> {
        let services = config.services.iter();
        services
            .flat_map(|service| {
                let servers = service.real_servers.iter();
                servers.map(|server| ((service.name.clone(), server.address, server.port), *server))
            })
            .collect()
    };
    compare(real_servers(old), real_servers(new), |(service, address, port)| match port {
        None => format!("{service}/{address}"),
        Some(port) if address.is_v4() => format!("{service}/{address}:{port}"),
        Some(port) => format!("{service}/[{address}]:{port}"),
    })
}

/// Compares two lists of things that have names, in the order of the new one, the removed ones in that of the old.
fn compare<K: Eq + Hash, V: PartialEq>(
    old: Vec<(K, V)>,
    new: Vec<(K, V)>,
    name: impl Fn(&K) -> String,
) -> Changes {
    let order: Vec<String> = old.iter().map(|(key, _)| name(key)).collect();
    let mut before: HashMap<K, V> = old.into_iter().collect();
    let mut changes = Changes::default();
    for (key, value) in new {
        match before.remove(&key) {
            None => changes.added.push(name(&key)),
            Some(was) if was != value => changes.changed.push(name(&key)),
            Some(_) => {}
        }
    }
    let gone: HashSet<String> = before.keys().map(&name).collect();
    changes.removed = order.into_iter().filter(|name| gone.contains(name)).collect();
    changes
}

/// What differs of that which is fixed at start.
fn fixed_at_start(old: &Config, new: &Config) -> Vec<String> {
    let (was, is) = (&old.document, &new.document);
    let mut paths = Vec::new();
    if old.dataplane != new.dataplane {
        paths.extend(keys_that_differ("dataplane", &was.dataplane, &is.dataplane));
    }
    if old.control != new.control {
        paths.extend(keys_that_differ("control", &was.control, &is.control));
    }
    if old.neighbours != new.neighbours {
        paths.extend(keys_that_differ("neighbours", &was.neighbours, &is.neighbours));
    }
    if old.ports.len() != new.ports.len() {
        paths.push("the number of ports".to_owned());
        return paths;
    }
    for (index, (before, now)) in old.ports.iter().zip(&new.ports).enumerate() {
        if before != now {
            paths.extend(keys_that_differ(&format!("port[{index}]"), &was.ports[index], &is.ports[index]));
        }
    }
    paths
}

/// The keys of a table that differ; the table itself if it cannot be told.
fn keys_that_differ<T: Serialize>(table: &str, old: &T, new: &T) -> Vec<String> {
    let keys = |value: &T| match serde_json::to_value(value) {
        Ok(serde_json::Value::Object(keys)) => keys,
        _ => serde_json::Map::new(),
    };
    let (old, new) = (keys(old), keys(new));
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let paths: Vec<String> = names
        .into_iter()
        .filter(|name| old.get(*name) != new.get(*name))
        .map(|name| format!("{table}.{name}"))
        .collect();
    if paths.is_empty() { vec![table.to_owned()] } else { paths }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    const BEFORE: &str = r#"
        port = [{ name = "lan", device = "net_af_packet0,iface=lan", addresses = ["10.2.0.254/24"] }]
        route = [{ to = "10.3.0.0/16", via = "10.2.0.1" }, { to = "10.4.0.0/16", via = "10.2.0.1" }]
        local_pool = [{ name = "p", port = "lan", addresses = ["10.2.0.100"] }]
        [[service]]
        name = "web"
        listen = "10.2.0.200:80"
        protocol = "tcp"
        local_pool = "p"
        real_server = [{ address = "10.2.0.11:80", weight = 1 }, { address = "10.2.0.12:80" }]
        [[service]]
        name = "dns"
        listen = "10.2.0.200:53"
        protocol = "udp"
        local_pool = "p"
        real_server = [{ address = "10.2.0.53" }]
    "#;

    fn changes(added: &[&str], removed: &[&str], changed: &[&str]) -> Changes {
        let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        Changes { added: owned(added), removed: owned(removed), changed: owned(changed) }
    }

    #[test]
    fn nothing_changes_if_nothing_does() {
        let config = parse(BEFORE).unwrap();
        assert!(diff(&config, &config).unwrap().is_empty());
        // Spelled differently, but the same.
        let spelled = parse(&BEFORE.replace("\"10.2.0.100\"", "\"10.2.0.100-10.2.0.100\"")).unwrap();
        assert!(diff(&config, &spelled).unwrap().is_empty());
    }

    #[test]
    fn every_change_is_named() {
        let after = BEFORE
            .replace("weight = 1", "weight = 7")
            .replace("10.2.0.12:80", "10.2.0.13:80")
            .replace("name = \"dns\"", "name = \"dns2\"")
            .replace("\"10.2.0.200:80\"", "\"10.2.0.201:80\"")
            .replace("10.4.0.0/16\", via = \"10.2.0.1\"", "10.4.0.0/16\", via = \"10.2.0.2\"")
            .replace("\"10.2.0.100\"", "\"10.2.0.101\"");
        let diff = diff(&parse(BEFORE).unwrap(), &parse(&after).unwrap()).unwrap();
        assert_eq!(diff.services, changes(&["dns2"], &["dns"], &["web"]));
        assert_eq!(
            diff.real_servers,
            changes(
                &["web/10.2.0.13:80", "dns2/10.2.0.53"],
                &["web/10.2.0.12:80", "dns/10.2.0.53"],
                &["web/10.2.0.11:80"]
            )
        );
        assert_eq!(diff.local_pools, changes(&[], &[], &["p"]));
        assert_eq!(diff.routes, changes(&[], &[], &["10.4.0.0/16"]));
    }

    #[test]
    fn what_is_fixed_at_start_needs_a_restart() {
        let old = parse(BEFORE).unwrap();
        let new = parse(
            &format!("dataplane.workers = 2\ncontrol.socket = \"/run/x\"\n{BEFORE}")
                .replace("10.2.0.254/24\"]", "10.2.0.254/24\"], mtu = 1400"),
        )
        .unwrap();
        let error = diff(&old, &new).unwrap_err();
        assert_eq!(error.paths, ["dataplane.workers", "control.socket", "port[0].mtu"]);
        assert!(error.to_string().contains("restart fullnatd"));
    }
}
