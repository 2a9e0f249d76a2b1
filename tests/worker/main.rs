//! A worker whose devices are vectors: the order in which it looks at what has reached it, and what becomes of packets
//! that a device or a ring has no room for.

mod order;
mod outlet;
mod rig;
