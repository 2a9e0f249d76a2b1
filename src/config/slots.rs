//! From a configuration to the snapshot that workers see, with numbers that stay.
//!
//! A session remembers its real server, service and pool by number. [`Slots`] is control's memory of who has which: what
//! stays in the configuration keeps its number from generation to generation; what leaves it keeps its slot, marked as
//! removed, until control has seen that no session uses it ([`Slots::retire`]); what comes back before that, comes back
//! to its old number and finds its sessions.
//!
//! [`Slots::apply`] changes nothing: it hands out the next snapshot together with the next `Slots`. Who decides not to
//! go on drops both. Cost: linear in the configuration; schedulers are made anew only for services that changed.

use hashbrown::{HashMap, HashSet};
use std::sync::Arc;

use rand::RngExt;
use rand::rngs::StdRng;

use super::checked::{self, Config, connected_routes};
use super::limits;
use crate::id::{PoolId, RealServerId, ServiceId};
use crate::service::Listeners;
use crate::service::route::{Route, RouteTable};
use crate::service::scheduler::Scheduler;
use crate::service::snapshot::{LocalPool, Owned, PortView, RealServer, Role, Service, Snapshot};
use crate::steering::Steering;
use crate::wire::Address;

/// What a port's device said of itself when it was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortFacts {
    /// its MAC address
    pub mac: [u8; 6],
    /// the largest IP packet it takes, in bytes
    pub mtu: u16,
    /// whether it fills in layer-4 checksums while sending
    pub checksum_offload: bool,
    /// whether frames may arrive with only the pseudo header summed up
    pub partial_checksums: bool,
}

/// Why a sound configuration cannot be applied now.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BuildError {
    /// The facts are not those of the configuration's ports.
    #[error("{facts} ports are open and {ports} are configured; restart fullnatd to change ports")]
    Ports {
        /// ports that are open
        facts: usize,
        /// ports in the configuration
        ports: usize,
    },
    /// An address changes its use while sessions still leave from it.
    #[error(
        "{address} was removed from local pool {pool:?} and still has sessions; wait until they have ended, or use \
         another address"
    )]
    StillInUse {
        /// the address
        address: Address,
        /// the pool it was in
        pool: String,
    },
    /// No slot is free.
    #[error(
        "there are {max} {what} with those removed ones whose sessions still live; wait until some have ended, or \
         remove fewer at a time"
    )]
    Full {
        /// what there are too many of
        what: &'static str,
        /// how many there may be
        max: usize,
    },
    /// Two services listen at one place; validation does not let that through.
    #[error(transparent)]
    Overlap(#[from] crate::service::Overlap),
}

/// Who has which number.
#[derive(Clone, Debug)]
pub struct Slots {
    generation: u64,
    route_epoch: u16,
    routes: Vec<Route>,
    services: Vec<Option<ServiceSlot>>,
    real_servers: Vec<Option<RealServer>>,
    pools: Vec<Option<PoolSlot>>,
    hasher: ahash::RandomState,
}

#[derive(Clone, Debug)]
struct ServiceSlot {
    /// what `service` was made of
    config: checked::Service,
    service: Arc<Service>,
    removed: bool,
}

#[derive(Clone, Debug)]
struct PoolSlot {
    /// without addresses if the pool was removed
    pool: LocalPool,
    removed: bool,
    /// addresses that left the pool and may still have sessions
    draining: Vec<Address>,
}

impl Default for Slots {
    fn default() -> Self {
        Slots::new()
    }
}

impl Slots {
    /// Nobody has a number. The tables of the snapshots to come are hashed with a key of their own, drawn here.
    pub fn new() -> Self {
        let mut random: StdRng = rand::make_rng();
        let key: [u64; 4] = random.random();
        Slots {
            generation: 0,
            route_epoch: 0,
            routes: Vec::new(),
            services: Vec::new(),
            real_servers: Vec::new(),
            pools: Vec::new(),
            hasher: ahash::RandomState::with_seeds(key[0], key[1], key[2], key[3]),
        }
    }

    /// The generation of the last snapshot; 0: none yet.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The next snapshot, and the slots as they are once it runs. `facts` are those of the configuration's ports, in
    /// order.
    ///
    /// # Errors
    /// The configuration cannot be applied now; nothing changes.
    pub fn apply(
        &self,
        config: &Config,
        facts: &[PortFacts],
        steering: Arc<Steering>,
    ) -> Result<(Snapshot, Slots), BuildError> {
        if facts.len() != config.ports.len() {
            return Err(BuildError::Ports { facts: facts.len(), ports: config.ports.len() });
        }
        let mut next = self.clone();
        next.generation += 1;
        next.number_routes(config);
        let pools = next.number_pools(config)?;
        next.number_services(config, &pools)?;
        let snapshot = next.snapshot(config, facts, steering)?;
        Ok((snapshot, next))
    }

    /// The snapshot of what runs once more, without what was [retired](Slots::retire) meanwhile; its generation is the
    /// same, since the configuration is. `config` is the one applied last.
    ///
    /// # Errors
    /// None that applying the configuration had not met before.
    pub fn again(
        &self,
        config: &Config,
        facts: &[PortFacts],
        steering: Arc<Steering>,
    ) -> Result<Snapshot, BuildError> {
        self.snapshot(config, facts, steering)
    }

    /// Frees the slots of what was removed and is no longer used: real servers for which the first answer is no, local
    /// addresses for which the second is; services and pools follow their last one. To be called when all workers run
    /// the snapshot of these slots. How many slots and addresses were freed.
    pub fn retire(
        &mut self,
        real_server_in_use: impl Fn(RealServerId) -> bool,
        local_address_in_use: impl Fn(PoolId, &Address) -> bool,
    ) -> usize {
        let mut freed = 0;
        let mut alive: HashSet<ServiceId> = HashSet::new();
        for slot in &mut self.real_servers {
            freed += free_if(slot, |server| server.removed && !real_server_in_use(server.id));
            alive.extend(slot.iter().map(|server| server.service));
        }
        for slot in &mut self.services {
            freed += free_if(slot, |slot| slot.removed && !alive.contains(&slot.service.id));
        }
        for slot in &mut self.pools {
            if let Some(PoolSlot { pool, draining, .. }) = slot {
                let before = draining.len();
                draining.retain(|address| local_address_in_use(pool.id, address));
                freed += before - draining.len();
            }
            freed += free_if(slot, |slot| slot.removed && slot.draining.is_empty());
        }
        freed
    }

    /// Whether anything was removed that waits to be retired.
    pub fn has_removed(&self) -> bool {
        self.real_servers.iter().flatten().any(|server| server.removed)
            || self.services.iter().flatten().any(|slot| slot.removed)
            || self.pools.iter().flatten().any(|slot| slot.removed || !slot.draining.is_empty())
    }

    fn number_routes(&mut self, config: &Config) {
        let routes: Vec<Route> = config.routes().collect();
        if routes != self.routes {
            self.routes = routes;
            self.route_epoch = self.route_epoch.wrapping_add(1);
        }
    }

    /// Gives every pool its slot; their numbers, in the order of the configuration.
    fn number_pools(&mut self, config: &Config) -> Result<Vec<PoolId>, BuildError> {
        let by_name: HashMap<String, usize> = self
            .pools
            .iter()
            .enumerate()
            .filter_map(|(index, slot)| Some((slot.as_ref()?.pool.name.clone(), index)))
            .collect();
        for slot in self.pools.iter_mut().flatten() {
            slot.removed = true;
            slot.draining.append(&mut slot.pool.addresses);
        }
        let mut free = 0;
        let mut numbers = Vec::new();
        for pool in &config.pools {
            let index = match by_name.get(&pool.name) {
                Some(&index) => index,
                None => free_slot(&mut self.pools, &mut free, "local pools", limits::POOLS)?,
            };
            let id = PoolId(index as u16);
            let mut draining = self.pools[index].take().map(|slot| slot.draining).unwrap_or_default();
            let addresses: HashSet<&Address> = pool.addresses.iter().collect();
            draining.retain(|address| !addresses.contains(address));
            let pool = LocalPool {
                id,
                name: pool.name.clone(),
                port: pool.port,
                addresses: pool.addresses.clone(),
                port_first: pool.port_first,
                port_last: pool.port_last,
            };
            self.pools[index] = Some(PoolSlot { pool, removed: false, draining });
            numbers.push(id);
        }
        Ok(numbers)
    }

    /// Gives every service and real server its slot.
    fn number_services(&mut self, config: &Config, pools: &[PoolId]) -> Result<(), BuildError> {
        let by_name: HashMap<String, usize> = self
            .services
            .iter()
            .enumerate()
            .filter_map(|(index, slot)| Some((slot.as_ref()?.config.name.clone(), index)))
            .collect();
        let by_address: HashMap<_, RealServerId> = self
            .real_servers
            .iter()
            .flatten()
            .map(|server| ((server.service, server.address, server.port), server.id))
            .collect();
        self.services.iter_mut().flatten().for_each(|slot| slot.removed = true);
        self.real_servers.iter_mut().flatten().for_each(|server| server.removed = true);

        let (mut free, mut free_server) = (0, 0);
        for service in &config.services {
            let index = match by_name.get(&service.name) {
                Some(&index) => index,
                None => free_slot(&mut self.services, &mut free, "services", limits::SERVICES)?,
            };
            let id = ServiceId(index as u32);
            let mut servers = Vec::with_capacity(service.real_servers.len());
            for &checked::RealServer { address, port, weight } in &service.real_servers {
                let number = match by_address.get(&(id, address, port)) {
                    Some(number) => number.index(),
                    None => free_slot(
                        &mut self.real_servers,
                        &mut free_server,
                        "real servers",
                        limits::REAL_SERVERS,
                    )?,
                };
                let number = RealServerId(number as u32);
                let next_hop = None;
                let server =
                    RealServer { id: number, service: id, address, port, weight, next_hop, removed: false };
                self.real_servers[number.index()] = Some(server);
                servers.push(number);
            }
            let pool = pools[service.pool];
            let made = match &self.services[index] {
                // Numbers given back while the service was away may be others' now.
                Some(slot)
                    if slot.service.local_pool == pool
                        && slot.service.real_servers == servers
                        && same_but_for_pool(&slot.config, service) =>
                {
                    Arc::clone(&slot.service)
                }
                _ => Arc::new(self.make_service(id, service, servers, pool)),
            };
            self.services[index] =
                Some(ServiceSlot { config: service.clone(), service: made, removed: false });
        }
        Ok(())
    }

    fn make_service(
        &self,
        id: ServiceId,
        service: &checked::Service,
        real_servers: Vec<RealServerId>,
        local_pool: PoolId,
    ) -> Service {
        let servers = real_servers.iter().filter_map(|number| self.real_servers[number.index()].as_ref());
        Service {
            id,
            name: service.name.clone(),
            protocol: service.protocol,
            listen: service.listen.clone(),
            scheduler: Scheduler::new(service.scheduler, service.hash_flags, servers),
            real_servers,
            local_pool,
            client_address: service.client_address,
            proxy_protocol_from: service.proxy_protocol_from.clone(),
            timeouts: service.timeouts,
            on_remove: service.on_remove,
        }
    }

    fn snapshot(
        &self,
        config: &Config,
        facts: &[PortFacts],
        steering: Arc<Steering>,
    ) -> Result<Snapshot, BuildError> {
        let live = || self.services.iter().flatten().filter(|slot| !slot.removed).map(|slot| &slot.service);
        let listeners = live()
            .flat_map(|service| service.listen.iter().map(|listen| (service.protocol, *listen, service.id)));
        let listeners = Listeners::new(listeners, &self.hasher)?;
        let owned = self.owned(config, &listeners)?;
        let mut routes = RouteTable::new(self.routes.iter().copied());
        owned.keys().for_each(|address| routes.note_own(address));
        Ok(Snapshot {
            real_server_addresses: self.real_server_addresses(),
            real_servers: self
                .real_servers
                .iter()
                .map(|slot| Some(reached_by(&routes, slot.as_ref()?)))
                .collect(),
            generation: self.generation,
            route_epoch: self.route_epoch,
            ports: config.ports.iter().zip(facts).map(|(port, facts)| port_view(port, facts)).collect(),
            routes,
            owned,
            services: self.services.iter().map(|slot| Some(Arc::clone(&slot.as_ref()?.service))).collect(),
            listeners,
            pools: self.pools.iter().map(|slot| Some(slot.as_ref()?.pool.clone())).collect(),
            steering,
            refuse: config.refusal,
        })
    }

    fn real_server_addresses(&self) -> HashSet<Address, ahash::RandomState> {
        let mut addresses = HashSet::with_hasher(self.hasher.clone());
        addresses.extend(self.real_servers.iter().flatten().map(|server| server.address));
        addresses
    }

    /// Every address the gateway answers for: those of ports, services, pools, and those that left a pool and may still
    /// have sessions whose answers must arrive.
    fn owned(
        &self,
        config: &Config,
        listeners: &Listeners,
    ) -> Result<HashMap<Address, Owned, ahash::RandomState>, BuildError> {
        let connected = RouteTable::new(connected_routes(&config.ports));
        let owned_as =
            |address: &Address, role| Owned { role, port: connected.lookup(address).map(|hop| hop.port) };
        let mut owned = HashMap::with_hasher(self.hasher.clone());
        for (address, _) in config.ports.iter().flat_map(|port| &port.addresses) {
            owned.insert(*address, owned_as(address, Role::Port));
        }
        for address in listeners.addresses() {
            owned.insert(*address, owned_as(address, Role::Virtual));
        }
        for PoolSlot { pool, .. } in self.pools.iter().flatten() {
            let locals = pool.addresses.iter();
            owned.extend(locals.map(|address| (*address, owned_as(address, Role::Local(pool.id)))));
        }
        for PoolSlot { pool, draining, .. } in self.pools.iter().flatten() {
            for address in draining {
                if owned.insert(*address, owned_as(address, Role::Local(pool.id))).is_some() {
                    return Err(BuildError::StillInUse { address: *address, pool: pool.name.clone() });
                }
            }
        }
        Ok(owned)
    }
}

/// Whether a service can stay as it was made. The pool's place in the file may change while its number does not.
fn same_but_for_pool(before: &checked::Service, now: &checked::Service) -> bool {
    checked::Service { pool: before.pool, ..now.clone() } == *before
}

/// Empties a slot for which `test` holds; how many that were.
fn free_if<T>(slot: &mut Option<T>, test: impl Fn(&T) -> bool) -> usize {
    let free = slot.as_ref().is_some_and(test);
    if free {
        *slot = None;
    }
    usize::from(free)
}

/// A real server with the way to it.
fn reached_by(routes: &RouteTable, server: &RealServer) -> RealServer {
    RealServer { next_hop: routes.lookup(&server.address).copied(), ..server.clone() }
}

/// The lowest empty slot at or behind `from`, which moves behind it.
fn free_slot<T>(
    slots: &mut Vec<Option<T>>,
    from: &mut usize,
    what: &'static str,
    max: usize,
) -> Result<usize, BuildError> {
    let index =
        slots.iter().skip(*from).position(Option::is_none).map_or(slots.len(), |offset| *from + offset);
    if index >= max {
        return Err(BuildError::Full { what, max });
    }
    if index == slots.len() {
        slots.push(None);
    }
    *from = index + 1;
    Ok(index)
}

fn port_view(port: &checked::Port, facts: &PortFacts) -> PortView {
    PortView {
        id: port.id,
        name: port.name.clone(),
        mac: facts.mac,
        mtu: port.mtu.min(facts.mtu),
        addresses: port.addresses.clone(),
        checksum_offload: port.checksum_offload && facts.checksum_offload,
        partial_checksums: facts.partial_checksums,
        reverse_path_filter: port.reverse_path_filter,
        answer_for_other_ports: port.answer_for_other_ports,
    }
}

#[cfg(test)]
mod tests;
