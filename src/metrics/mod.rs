//! The counters as Prometheus reads them, in the OpenMetrics text format.
//!
//! A scrape is made of plain numbers that were gathered for it; nothing here is known to the workers. Every name
//! begins with `fullnat_`:
//!
//! | name | labels | what |
//! |---|---|---|
//! | `fullnat_build_info` | `version` | always 1 |
//! | `fullnat_uptime_seconds` | | seconds since start |
//! | `fullnat_configuration_generation` | | generation of the running configuration |
//! | `fullnat_worker_*` | `worker` | every counter of [`Counter`], by its name; those that only grow end in `_total` |
//! | `fullnat_worker_sampled_cycles_total` | `worker`, `phase` | cycles of each [`TurnPhase`] in the turns that are timed |
//! | `fullnat_dropped_packets_total` | `worker`, `reason`, `severity` | packets per drop reason |
//! | `fullnat_port_up` | `port` | 1 if the link is up |
//! | `fullnat_port_{rx,tx}_{packets,bytes}_total` | `port`, `worker` | traffic per port and worker |
//! | `fullnat_port_device_{rx_missed,rx_errors,rx_no_buffer,tx_errors}_total` | `port` | what the device itself lost |
//! | `fullnat_real_server_weight` | `service`, `real_server` | weight, 0 while draining |
//! | `fullnat_real_server_sessions` | `service`, `real_server`, `state` (`active`, `inactive`) | sessions now |
//! | `fullnat_real_server_sessions_created_total` | `service`, `real_server` | sessions ever made |
//! | `fullnat_real_server_refused_no_port_total` | `service`, `real_server` | new sessions refused without a local port |
//! | `fullnat_real_server_{packets,bytes}_total` | `service`, `real_server`, `direction` (`inbound`, `outbound`) | traffic |
//! | `fullnat_pool_leased` | `pool`, `address` | leases per local address |
//! | `fullnat_pool_destination_leased` | `pool`, `real_server`, `protocol` | leases per destination |
//! | `fullnat_pool_destination_resting` | `pool`, `real_server`, `protocol` | ports given back that still rest |
//! | `fullnat_pool_destination_refused_total` | `pool`, `real_server`, `protocol` | new sessions refused because every port was held |
//! | `fullnat_pool_destination_ports` | `pool`, `real_server`, `protocol` | leases that can be held at a time |

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::control::query::severity;
use crate::control::view;
use crate::path::drop_reason::DropReason;
use crate::worker::phases::TurnPhase;
use crate::worker::published::{Counter, CounterKind, PublishedView};

/// The content type of what [`Scrape::encode`] gives.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything one scrape tells.
#[derive(Clone, Debug)]
pub struct Scrape {
    /// what runs
    pub version: view::Version,
    /// what each worker has counted
    pub workers: Vec<PublishedView>,
    /// the ports
    pub ports: Vec<view::Port>,
    /// the services with their real servers
    pub services: Vec<view::Service>,
    /// the local pools
    pub pools: Vec<view::Pool>,
}

impl Scrape {
    /// The text.
    pub fn encode(self) -> String {
        let mut registry = Registry::with_prefix("fullnat");
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = text::encode(&mut text, &registry);
        text
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let encoder = &mut encoder;
        self.encode_program(encoder)?;
        self.encode_workers(encoder)?;
        self.encode_ports(encoder)?;
        self.encode_real_servers(encoder)?;
        self.encode_pools(encoder)
    }
}

/// A family of metrics being written.
struct Family<'a> {
    encoder: MetricEncoder<'a>,
    kind: CounterKind,
}

impl<'a> Family<'a> {
    fn new(
        encoder: &'a mut DescriptorEncoder,
        kind: CounterKind,
        name: &'a str,
        help: &str,
    ) -> Result<Family<'a>, fmt::Error> {
        let metric_type = match kind {
            CounterKind::Counter => MetricType::Counter,
            CounterKind::Gauge => MetricType::Gauge,
        };
        Ok(Family { encoder: encoder.encode_descriptor(name, help, None, metric_type)?, kind })
    }

    fn sample<const N: usize>(&mut self, labels: [(&str, &str); N], value: u64) -> fmt::Result {
        let mut one = self.encoder.encode_family(&labels)?;
        match self.kind {
            CounterKind::Counter => one.encode_counter::<NoLabelSet, u64, u64>(&value, None),
            CounterKind::Gauge => one.encode_gauge(&value),
        }
    }
}

use CounterKind::{Counter as Grows, Gauge};

impl Scrape {
    fn encode_program(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        Family::new(encoder, Gauge, "build_info", "What runs.")?
            .sample([("version", &*self.version.version)], 1)?;
        Family::new(encoder, Gauge, "uptime_seconds", "Seconds since start.")?
            .sample([], self.version.uptime_secs)?;
        Family::new(encoder, Gauge, "configuration_generation", "Generation of the running configuration.")?
            .sample([], self.version.generation)
    }

    fn encode_workers(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        for &counter in Counter::ALL {
            let name = format!("worker_{}", counter.name());
            // The library ends the sentence itself.
            let mut family = Family::new(encoder, counter.kind(), &name, sentence(counter.sentence()))?;
            for (id, worker) in self.workers.iter().enumerate() {
                family.sample([("worker", &*id.to_string())], worker.get(counter))?;
            }
        }
        let help = "Cycles of each phase in the turns whose phases were timed, one working turn of 127";
        let mut family = Family::new(encoder, Grows, "worker_sampled_cycles", help)?;
        for (id, worker) in self.workers.iter().enumerate() {
            let id = id.to_string();
            for &phase in TurnPhase::ALL {
                let labels = [("worker", &*id), ("phase", phase.name())];
                family.sample(labels, worker.counters.phase(phase))?;
            }
        }
        let mut family =
            Family::new(encoder, Grows, "dropped_packets", "Packets that were not forwarded, by reason")?;
        for (id, worker) in self.workers.iter().enumerate() {
            let id = id.to_string();
            for &reason in DropReason::ALL {
                let labels =
                    [("worker", &*id), ("reason", reason.name()), ("severity", severity(reason.severity()))];
                family.sample(labels, worker.dropped(reason))?;
            }
        }
        Ok(())
    }

    fn encode_ports(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let mut family = Family::new(encoder, Gauge, "port_up", "Whether the link is up")?;
        for port in &self.ports {
            family.sample([("port", &*port.name)], u64::from(port.link.up))?;
        }
        type Read<T> = fn(&T) -> u64;
        let traffic: [(&str, &str, Read<crate::worker::published::PortCounters>); 4] = [
            ("port_rx_packets", "Packets received", |port| port.rx_packets),
            ("port_rx_bytes", "Bytes of the frames received", |port| port.rx_bytes),
            ("port_tx_packets", "Packets the device took", |port| port.tx_packets),
            ("port_tx_bytes", "Bytes of the frames the device took", |port| port.tx_bytes),
        ];
        for (name, help, read) in traffic {
            let mut family = Family::new(encoder, Grows, name, help)?;
            for (id, worker) in self.workers.iter().enumerate() {
                for port in &self.ports {
                    let counters = worker.ports.get(usize::from(port.id)).copied().unwrap_or_default();
                    family.sample([("port", &*port.name), ("worker", &*id.to_string())], read(&counters))?;
                }
            }
        }
        let device: [(&str, &str, Read<view::Link>); 4] = [
            ("port_device_rx_missed", "Packets no worker fetched in time", |link| link.rx_missed),
            ("port_device_rx_errors", "Packets the device found broken", |link| link.rx_errors),
            ("port_device_rx_no_buffer", "Packets for which no buffer was free", |link| link.rx_no_buffer),
            ("port_device_tx_errors", "Packets the device failed to send", |link| link.tx_errors),
        ];
        for (name, help, read) in device {
            let mut family = Family::new(encoder, Grows, name, help)?;
            for port in &self.ports {
                family.sample([("port", &*port.name)], read(&port.link))?;
            }
        }
        Ok(())
    }

    fn encode_real_servers(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let all = || {
            self.services.iter().flat_map(|service| {
                let server = |server| (("service", &*service.name), server);
                service.real_servers.iter().map(server)
            })
        };
        let mut family = Family::new(encoder, Gauge, "real_server_weight", "Weight, 0 while draining")?;
        for (service, server) in all() {
            family.sample([service, ("real_server", &*server.address)], u64::from(server.weight))?;
        }
        let mut family = Family::new(encoder, Gauge, "real_server_sessions", "Sessions now")?;
        for (service, server) in all() {
            let address = ("real_server", &*server.address);
            family.sample([service, address, ("state", "active")], server.sessions_active)?;
            family.sample([service, address, ("state", "inactive")], server.sessions_inactive)?;
        }
        let mut family = Family::new(encoder, Grows, "real_server_sessions_created", "Sessions ever made")?;
        for (service, server) in all() {
            family.sample([service, ("real_server", &*server.address)], server.sessions_created)?;
        }
        let help = "New sessions refused because no local port was free";
        let mut family = Family::new(encoder, Grows, "real_server_refused_no_port", help)?;
        for (service, server) in all() {
            family.sample([service, ("real_server", &*server.address)], server.refused_no_port)?;
        }
        let mut family = Family::new(encoder, Grows, "real_server_packets", "Packets of its sessions")?;
        for (service, server) in all() {
            let address = ("real_server", &*server.address);
            family.sample([service, address, ("direction", "inbound")], server.inbound_packets)?;
            family.sample([service, address, ("direction", "outbound")], server.outbound_packets)?;
        }
        let mut family =
            Family::new(encoder, Grows, "real_server_bytes", "Bytes of its sessions' IP packets")?;
        for (service, server) in all() {
            let address = ("real_server", &*server.address);
            family.sample([service, address, ("direction", "inbound")], server.inbound_bytes)?;
            family.sample([service, address, ("direction", "outbound")], server.outbound_bytes)?;
        }
        Ok(())
    }

    fn encode_pools(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let mut family =
            Family::new(encoder, Gauge, "pool_leased", "Leases held, finished sessions included")?;
        for pool in &self.pools {
            for lip in &pool.by_address {
                family.sample([("pool", &*pool.name), ("address", &*lip.address)], lip.leased)?;
            }
        }
        type Read = fn(&view::DestinationUse) -> u64;
        let destinations: [(&str, &str, CounterKind, Read); 4] = [
            ("pool_destination_leased", "Leases held toward a real server's address", Gauge, |to| to.leased),
            ("pool_destination_resting", "Ports given back that still rest", Gauge, |to| to.resting),
            ("pool_destination_ports", "Leases that can be held toward it at a time", Gauge, |to| to.ports),
            ("pool_destination_refused", "New sessions refused because every port was held", Grows, |to| {
                to.refused
            }),
        ];
        for (name, help, kind, read) in destinations {
            let mut family = Family::new(encoder, kind, name, help)?;
            for pool in &self.pools {
                for to in &pool.by_real_server {
                    let labels =
                        [("pool", &*pool.name), ("real_server", &*to.address), ("protocol", &*to.protocol)];
                    family.sample(labels, read(to))?;
                }
            }
        }
        Ok(())
    }
}

/// Help texts carry no full stop: the encoder adds one.
fn sentence(text: &str) -> &str {
    text.trim_end_matches('.')
}
