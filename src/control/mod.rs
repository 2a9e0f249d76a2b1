//! The control socket: HTTP/1.1 and JSON over a UNIX socket, and the same for Prometheus.
//!
//! ```text
//!  fullnatctl, curl ─► listener ─► server ─► api ─► plane ─► configuration (checks, snapshots)
//!    (client)          (who may)   (limits)  (routes)  └───► post ─► mailboxes ─► workers
//! ```
//! It runs in a tokio current-thread runtime on a thread of its own, on a core that no worker polls. Nothing a client
//! does can delay a worker by more than the slice it spends on one letter. Everything is bounded: connections, bodies,
//! time to send a request, time without progress, letters under way, records per page.
//!
//! What the daemon gives: a [`Configuration`], the running [`crate::service::snapshot::Snapshot`], one
//! [`WorkerHandle`] per worker and something that knows the devices ([`Links`]).

pub mod api;
mod change;
pub mod client;
mod configuration;
mod listener;
mod load;
mod plane;
mod post;
pub mod query;
mod refusal;
mod running;
mod server;
mod sessions;
pub mod strict_json;
pub mod view;

pub use configuration::{Configuration, Desired, InUse};
pub use listener::{ListenError, Listener, ListenerConfig};
pub use plane::{ControlPlane, Links, Wanted, WorkerHandle};
pub use refusal::Refusal;
pub use running::RunningConfiguration;
pub use server::{ControlThread, serve, start};
