//! DPDK as the workers see it: the names of [`crate::dpdk`] behind the traits of [`crate::worker`].

use arrayvec::ArrayVec;

use crate::clock::Now;
use crate::dpdk::{self, Mbuf, Mempool};
use crate::path::BURST;
use crate::worker::{Clock, PacketPool, Runtime, RxQueue, TxQueue};

/// Queues, buffers and clock of DPDK.
pub struct Dpdk;

impl Runtime for Dpdk {
    type Packet = Mbuf;
    type Rx = dpdk::RxQueue;
    type Tx = dpdk::TxQueue;
    type Pool = Buffers;
    type Clock = dpdk::Clock;
}

impl RxQueue for dpdk::RxQueue {
    type Packet = Mbuf;

    #[inline]
    fn receive(&mut self, into: &mut ArrayVec<Mbuf, BURST>) {
        self.rx_burst(into);
    }
}

impl TxQueue for dpdk::TxQueue {
    type Packet = Mbuf;

    #[inline]
    fn send(&mut self, packets: &mut ArrayVec<Mbuf, BURST>) {
        self.tx_burst(packets);
    }
}

impl Clock for dpdk::Clock {
    #[inline]
    fn at(&self, tsc: u64) -> Now {
        dpdk::Clock::at(self, tsc)
    }
}

/// The pool that all ports receive into.
pub struct Buffers(pub Mempool);

impl PacketPool for Buffers {
    type Packet = Mbuf;

    #[inline]
    fn allocate(&mut self) -> Option<Mbuf> {
        self.0.allocate()
    }
}
