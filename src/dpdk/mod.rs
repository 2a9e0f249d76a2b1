//! Everything that calls libdpdk, as owned values; with [`crate::cpu`] the only unsafe code.
//!
//! ```text
//!   Eal ──┬── Mempool ───────────── Mbuf            one owner each; dropped = back in the pool
//!         └── Device ── start ──┬── Port            addresses, link, statistics: the control side
//!                               ├── RxQueue × n     taken once, polled by one worker
//!                               └── TxQueue × m     taken once, filled by one worker
//! ```
//! Ownership draws the order of the shutdown: queues and [`Port`] hold the device, the device holds its pool, all hold
//! the [`Eal`]; whoever lets go last closes. An [`Eal`] whose packets are not all home is left to the end of the
//! process rather than unmapped, so no safe code can reach memory that is gone.
//!
//! The burst functions and the reads of an [`Mbuf`] are the hot part: no allocation, no lock, one call into C per
//! burst. All else runs at start, at the end, or in control's good time.

#![allow(unsafe_code)] // calls into libdpdk and raw packet buffers; safe functions outward

mod clock;
mod device;
mod eal;
mod interface;
mod lcore;
mod log;
mod mbuf;
mod mempool;
mod output;
mod port;
mod queue;
#[rustfmt::skip]
mod sys;
mod system;

pub use clock::Clock;
pub use device::{Capabilities, Device, DeviceError};
pub use eal::{Eal, EalError, version};
pub use lcore::{LcoreError, WorkerThread, allowed_cores};
pub use mbuf::Mbuf;
pub use mempool::{BUFFER_HEADER, CACHE_SIZE, HEADROOM, Mempool, PoolError};
pub use port::{Link, Port, PortError, PortFeatures, PortSettings, PortStats, Rss, StartedPort};
pub use queue::{RxQueue, TxQueue};
pub use system::huge_pages_are_reserved;

/// Packets of one burst at most.
pub const BURST_MAX: usize = 32;
