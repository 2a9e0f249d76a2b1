//! A worker: the run-to-completion loop on one lcore and what it shares with the others.
//!
//! ```text
//!  rx queues ──> engine ──> outlet ──> tx queues
//!                 ^  |         └─────> rings of the other workers (ArrayQueue, bounded)
//!  own ring ──────┘  └── letters from control, counters published
//! ```
//!
//! A worker owns its shard, its queues and its buffers. What others see of it are a ring to put packets into, a mailbox
//! for letters, and published counters. The loop neither allocates nor calls the kernel, but to sleep if it is idle and
//! told to.

mod answer;
mod device;
mod idle;
pub mod mailbox;
mod outlet;
pub mod phases;
pub mod published;
pub mod records;
mod turn;

pub use device::{Clock, PacketPool, Runtime, RxQueue, TxQueue};
pub use idle::IdlePolicy;
pub use outlet::{Outlet, Ring, TxPort};
pub use turn::Worker;
