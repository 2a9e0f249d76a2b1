//! What a worker asks of the devices it polls. `dpdk` implements it for queues, tests for vectors.

use arrayvec::ArrayVec;

use crate::clock::Now;
use crate::path::BURST;
use crate::path::packet::Packet;

/// A receive queue, owned by one worker.
pub trait RxQueue {
    /// its packets
    type Packet: Packet;
    /// Appends what has arrived, at most one burst. `into` is empty.
    fn receive(&mut self, into: &mut ArrayVec<Self::Packet, BURST>);
}

/// A transmit queue, owned by one worker.
pub trait TxQueue {
    /// its packets
    type Packet: Packet;
    /// Takes packets from the front as long as the device has room; the rest stays.
    fn send(&mut self, packets: &mut ArrayVec<Self::Packet, BURST>);
}

/// Where fresh buffers come from.
pub trait PacketPool {
    /// its packets
    type Packet: Packet;
    /// An empty buffer with full headroom.
    fn allocate(&mut self) -> Option<Self::Packet>;
}

/// A monotonic clock that goes by the CPU's counter.
pub trait Clock {
    /// The time at which [`cpu::tsc`](crate::cpu::tsc) gave `tsc`.
    fn at(&self, tsc: u64) -> Now;
}

/// One runtime's kinds of all these.
pub trait Runtime {
    /// packet buffer
    type Packet: Packet;
    /// receive queue
    type Rx: RxQueue<Packet = Self::Packet>;
    /// transmit queue
    type Tx: TxQueue<Packet = Self::Packet>;
    /// buffer pool
    type Pool: PacketPool<Packet = Self::Packet>;
    /// clock
    type Clock: Clock;
}
