//! A packet's journey through one worker.
//!
//! ```text
//!            classify         look up           forward
//!  burst ──> headers ──────> session? ───────> state, numbers, TOA ──> addresses ──> next hop ──> tx
//!              │ odd           │ none            │ refused                             │ unresolved
//!              v               v                 v                                     v
//!        icmp, ARP, ND,     steer: home?      refuse: RST, ICMP,                   waits in the
//!        drop reason           │   │ not ours drop reason                          neighbour table
//!                              │   v
//!                              │  hand-off ring
//!                              v
//!                           open: service -> real server -> lease -> session
//! ```
//!
//! | file | what happens there | cost per packet |
//! |---|---|---|
//! | `engine`, `flows` | the order of the phases, over a burst of up to 32 | |
//! | `plain`, `classify` | every check of Ethernet, IP, TCP and UDP headers, once: the usual frame, and all others | the frame's first line |
//! | `express` | the usual packet of an established session, in one straight line | bucket, session line |
//! | `first_packet` | the usual packet that begins a session | what `open` has just written |
//! | `forward`, `tcp_track`, `tcp_translate`, `client_address`, `uoa`, `rewrite` | any packet that has a session | and the cold line at its ends |
//! | `open`, `end` | a session's beginning and end | cold |
//! | `proxy_header`, `proxy_datagram` | what the PROXY protocol puts ahead of the client's bytes | cold |
//! | `proxy_front` | and what a front has put there | cold |
//! | `icmp`, `refuse`, `own_segment`, `toa_ahead`, `next_hop`, `neighbour` | what the gateway says itself | cold |
//!
//! Nothing here knows DPDK, allocates after start, locks, logs or calls the kernel: buffers, wires and other workers are
//! [`packet::Packet`] and [`packet::Io`]. Every packet ends as transmitted, handed over, held or dropped with a
//! [`drop_reason::DropReason`]; [`counters::PathCounters`] states the balance.

mod classify;
mod client_address;
pub mod counters;
pub mod drop_reason;
mod end;
mod engine;
mod express;
mod first_packet;
mod flows;
mod forward;
mod guests;
pub mod heap;
mod icmp;
mod limiter;
pub mod neighbour;
mod next_hop;
mod open;
mod own_segment;
pub mod packet;
mod parsed;
pub mod phase;
mod plain;
mod proxy_datagram;
mod proxy_front;
mod proxy_header;
mod refuse;
mod rewrite;
mod shard;
mod tcp_track;
mod tcp_translate;
mod toa_ahead;
mod uoa;

pub use engine::{BURST, Engine};
pub use shard::{ShardConfig, ShardError};
