//! What stands on the wire: headers as checked views, checksum arithmetic, TCP options.
//!
//! Nothing here knows a session, a packet buffer or a clock; every function works on byte slices. One file per
//! protocol, always in the same order: constants, the view, its `parse`, what it can be asked, how to write one.

mod address;
pub mod arp;
pub mod nd;
mod tuple;

pub use address::Address;
pub use tuple::{Protocol, Tuple};
