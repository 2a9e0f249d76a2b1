//! The burst functions: what a worker does with a wire.
//!
//! A queue belongs to the worker it was given to: it is neither `Clone` nor `Sync`, so that no two threads poll or
//! fill it at once, which DPDK leaves to its callers. A worker that owns no transmit queue of a port gives its packets
//! to one that does.

use std::marker::PhantomData;
use std::sync::Arc;

use arrayvec::ArrayVec;

use super::port::Started;
use super::{BURST_MAX, Mbuf, sys};

/// One receive queue of a port, polled by its owner alone.
pub struct RxQueue {
    port: u16,
    queue: u16,
    _started: Arc<Started>,
    _not_sync: PhantomData<std::cell::Cell<()>>,
}

/// One transmit queue of a port, filled by its owner alone.
pub struct TxQueue {
    port: u16,
    queue: u16,
    _started: Arc<Started>,
    _not_sync: PhantomData<std::cell::Cell<()>>,
}

impl RxQueue {
    pub(super) fn new(port: u16, queue: u16, started: Arc<Started>) -> RxQueue {
        RxQueue { port, queue, _started: started, _not_sync: PhantomData }
    }

    /// The number of the queue on its port.
    pub fn index(&self) -> u16 {
        self.queue
    }

    /// Appends what the device has received, as far as `packets` has room; how many.
    #[inline]
    pub fn rx_burst(&mut self, packets: &mut ArrayVec<Mbuf, BURST_MAX>) -> usize {
        let have = packets.len();
        let room = (BURST_MAX - have) as u16;
        // SAFETY: `room` slots behind the elements are ours to write, an Mbuf is a pointer, the device hands over
        // ownership of what it wrote, and the port runs as long as `_started` lives.
        unsafe {
            let slots = packets.as_mut_ptr().add(have).cast::<*mut sys::rte_mbuf>();
            let count = usize::from(sys::shim_rx_burst(self.port, self.queue, slots, room));
            packets.set_len(have + count);
            count
        }
    }
}

impl TxQueue {
    pub(super) fn new(port: u16, queue: u16, started: Arc<Started>) -> TxQueue {
        TxQueue { port, queue, _started: started, _not_sync: PhantomData }
    }

    /// The number of the queue on its port.
    pub fn index(&self) -> u16 {
        self.queue
    }

    /// Gives the device as many of `packets` as it takes, from the front; how many. The others stay where they were in
    /// order, still the caller's.
    #[inline]
    pub fn tx_burst<const N: usize>(&mut self, packets: &mut ArrayVec<Mbuf, N>) -> usize {
        let have = packets.len();
        if have == 0 {
            return 0;
        }
        // SAFETY: the elements are pointers to packets that we own; those the device took are forgotten here and the
        // rest moved to the front before the vector is looked at again.
        unsafe {
            let first = packets.as_mut_ptr();
            let sent = usize::from(sys::shim_tx_burst(self.port, self.queue, first.cast(), have as u16));
            packets.set_len(0);
            if sent < have {
                std::ptr::copy(first.add(sent), first, have - sent);
                packets.set_len(have - sent);
            }
            sent
        }
    }
}
