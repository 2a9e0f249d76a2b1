//! What stands on the wire: headers as checked views, checksum arithmetic, TCP options.
//!
//! Nothing here knows a session, a packet buffer or a clock; every function works on byte slices, none allocates.
//! One file per protocol, always in the same order: constants, the view, its `parse`, what it can be asked, how to
//! change and how to write one.
//!
//! A view comes only from `parse`, which checks once all that the accessors rely on. Free functions (`tcp::seq`,
//! `ipv4::set_ttl`) read and write a header that the caller has checked before; they panic, and never read past the
//! slice, if it is shorter than the fixed header.

mod address;
pub mod arp;
pub mod checksum;
pub mod ethernet;
pub(crate) mod field;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod nd;
pub mod proxy_protocol;
pub mod tcp;
pub mod tcp_option;
pub mod toa;
mod tuple;
pub mod udp;
pub mod uoa;

pub use address::Address;
pub use tuple::{Protocol, Tuple};
