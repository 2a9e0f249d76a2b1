//! `fullnat`: a FULLNAT layer-4 gateway on DPDK.
//!
//! The modules form a house whose imports only look down this list:
//!
//! | floor | module | what lives there |
//! |---|---|---|
//! | 7 | `bin/` | `fullnatd`, `fullnatctl` |
//! | 6 | `gateway` | from a configuration to running workers, and back to nothing |
//! | 5 | [`control`], [`metrics`] | the control socket, its types, the exposition of counters |
//! | 4 | [`worker`] | the run-to-completion loop, hand-off rings, mailboxes, published counters |
//! | 4 | [`config`] | the configuration file: model, validation, the snapshot made of it |
//! | 3 | [`path`] | a packet's journey: classify, inbound, outbound, new session, rewrite, neighbours, drop reasons |
//! | 2 | [`session`], [`service`], [`local_pool`] | sessions, virtual services and real servers, leases |
//! | 1 | [`steering`] | which worker is the home of a packet |
//! | 0 | [`wire`], [`cpu`], [`chain`], [`clock`], [`id`] | headers, checksums and options; prefetch and huge-page memory; a fixed hash index; time; numbers |
//!
//! `dpdk` stands beside the house: it implements the packet-buffer trait of [`path`] and is named only by `gateway`,
//! which puts everything together. `dpdk` and [`cpu`] hold all unsafe code of the gateway.
//!
//! `receiver` is no part of the gateway: it is the real server's side of TOA, which `fullnat-toa` runs there. It names no
//! other module; its one file of system calls, `receiver/sys.rs`, is the third that holds unsafe code.

pub mod chain;
pub mod clock;
pub mod config;
pub mod control;
pub mod cpu;
#[cfg(feature = "dpdk")]
pub mod dpdk;
#[cfg(feature = "dpdk")]
pub mod gateway;
pub mod id;
pub mod local_pool;
pub mod metrics;
pub mod path;
#[cfg(feature = "toa-receiver")]
pub mod receiver;
pub mod service;
pub mod session;
pub mod steering;
pub mod wire;
pub mod worker;
