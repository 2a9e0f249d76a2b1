//! What the processor offers beyond plain Rust, as safe functions: prefetch, the cycle counter, SIMD compares
//! and memory on huge pages.
//!
//! Owned by nobody: there is no state here but what [`HugeArray`] maps. Every function is inline and costs a
//! few instructions; nothing allocates after a [`HugeArray`] is made. With `dpdk` this is the only module
//! that holds unsafe code, and no pointer leaves it.
#![allow(unsafe_code)] // intrinsics and mmap have no safe form; each block below says why it is sound

mod cycles;
mod huge_array;
mod prefetch;
mod required;
mod simd;

pub use cycles::tsc;
pub use huge_array::{HugeArray, MapError, PageKind, Pages};
pub use prefetch::{prefetch, prefetch_index};
pub use required::{UNFIT, fit};
pub use simd::{equal_lanes, equal_pairs, equal_under};
