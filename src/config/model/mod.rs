//! The configuration as it is written: one struct per table, the same for the TOML file and for JSON on the control
//! socket.
//!
//! Nothing here is checked beyond its shape: addresses are text and numbers have any size, so that
//! [`check`](super::check) can report every mistake of a document at once and in the operator's words. What has a
//! fixed default shows it when a running configuration is written back; what is derived stays away.

mod gateway;
mod service;

pub use gateway::{
    ChecksumOffload, Control, Dataplane, HugePages, Idle, Neighbours, Port, Refusal, Route, Steering,
};
pub use service::{
    ClientAddress, Listen, LocalPool, NoRoom, OnRemove, Protocol, Proxy, RealServer, Scheduler,
    SchedulerFlag, Service, Timeouts, Toa, Uoa,
};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A whole configuration.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = config::Document)]
pub struct Document {
    /// Cores, memory and DPDK.
    #[serde(default)]
    pub dataplane: Dataplane,
    /// The control socket and the metrics.
    #[serde(default, skip_serializing_if = "is_default")]
    pub control: Control,
    /// How long sessions live without packets, unless their service says otherwise.
    #[serde(default, skip_serializing_if = "is_default")]
    pub timeouts: Timeouts,
    /// What refused clients are told.
    #[serde(default, skip_serializing_if = "is_default")]
    pub refusal: Refusal,
    /// ARP and neighbour discovery.
    #[serde(default, skip_serializing_if = "is_default")]
    pub neighbours: Neighbours,
    /// The NIC ports, at least one.
    #[serde(default, rename = "port")]
    pub ports: Vec<Port>,
    /// Static routes; subnets of port addresses need none.
    #[serde(default, rename = "route", skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// Where local addresses and ports come from.
    #[serde(default, rename = "local_pool", skip_serializing_if = "Vec::is_empty")]
    pub local_pools: Vec<LocalPool>,
    /// The virtual services.
    #[serde(default, rename = "service", skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Service>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn yes() -> bool {
    true
}
