//! The packet's journey.
pub mod drop_reason;
pub mod heap;
pub mod neighbour;
pub mod packet;
