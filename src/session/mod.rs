//! Sessions: their memory, how they are found, how they age, the TCP states.
//!
//! One table belongs to one worker and to nobody else. Capacity is fixed at start; nothing here allocates later.

mod entry;
mod tcp_state;

pub use entry::{Cold, Direction, Flags, Hot, SessionIndex, Wide};
pub use tcp_state::State;

/// Seconds without a packet after which a session ends, by state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Timeouts {
    /// TCP, indexed by [`State`]
    pub tcp_secs: [u32; 11],
    /// UDP
    pub udp_secs: u32,
}
