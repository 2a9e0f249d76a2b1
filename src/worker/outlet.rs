//! A worker's way out: tx buffers, the other workers' rings, fresh packet buffers.
//!
//! A port on which this worker has no tx queue is reached through the worker that has it, by the same rings.

use std::sync::Arc;

use arrayvec::ArrayVec;
use crossbeam_queue::ArrayQueue;

use super::device::{PacketPool, Runtime, TxQueue};
use super::phases::SendingTime;
use super::published::PortCounters;
use crate::cpu;
use crate::id::{PortId, WorkerId};
use crate::path::BURST;
use crate::path::drop_reason::{DropCounters, DropReason};
use crate::path::packet::{HandOff, Io, Packet};

/// A worker's inbox: bounded, filled by all other workers, emptied by one.
pub type Ring<P> = Arc<ArrayQueue<HandOff<P>>>;

/// How often a full device is asked again before its packets are dropped.
const SEND_ATTEMPTS: usize = 4;

/// A port as one worker transmits on it.
pub enum TxPort<R: Runtime> {
    /// by a queue of its own
    Queue(R::Tx),
    /// through the worker that has the queue
    Via(WorkerId),
}

/// Everything a worker's packets leave by.
pub struct Outlet<R: Runtime> {
    ports: Vec<(TxPort<R>, ArrayVec<R::Packet, BURST>)>,
    rings: Vec<Ring<R::Packet>>,
    pool: R::Pool,
    pub(super) port_counters: Vec<PortCounters>,
    pub(super) drops: DropCounters,
    /// Frames passed on to the worker that has the tx queue.
    pub(super) relayed: u64,
    /// How long sending takes.
    pub(super) sending: SendingTime,
}

impl<R: Runtime> Outlet<R> {
    /// `ports` in the order of their ids, `rings` in the order of the workers.
    pub fn new(ports: Vec<TxPort<R>>, rings: Vec<Ring<R::Packet>>, pool: R::Pool) -> Self {
        Outlet {
            port_counters: vec![PortCounters::default(); ports.len()],
            ports: ports.into_iter().map(|port| (port, ArrayVec::new())).collect(),
            rings,
            pool,
            drops: DropCounters::default(),
            relayed: 0,
            sending: SendingTime::default(),
        }
    }

    /// Sends everything that is buffered; what a device does not take is dropped and counted.
    #[inline]
    pub fn flush(&mut self) {
        for at in 0..self.ports.len() {
            if !self.ports[at].1.is_empty() {
                self.send(at, None);
            }
        }
    }

    /// Sends a burst of so many bytes on its port, or what is buffered for it; nothing is left.
    #[inline]
    fn send(&mut self, at: usize, burst: Option<(&mut ArrayVec<R::Packet, BURST>, u64)>) {
        if !self.sending.watched {
            return self.send_unwatched(at, burst);
        }
        let began = cpu::tsc();
        self.send_unwatched(at, burst);
        self.sending.add(began);
    }

    #[inline(never)]
    fn send_unwatched(&mut self, at: usize, burst: Option<(&mut ArrayVec<R::Packet, BURST>, u64)>) {
        let (port, buffer) = &mut self.ports[at];
        let (packets, bytes) = burst.unwrap_or_else(|| {
            let bytes = bytes_of(buffer);
            (buffer, bytes)
        });
        match port {
            TxPort::Queue(queue) => {
                let counters = &mut self.port_counters[at];
                let count = packets.len();
                for _ in 0..SEND_ATTEMPTS {
                    queue.send(packets);
                    if packets.is_empty() {
                        break;
                    }
                }
                counters.tx_packets += (count - packets.len()) as u64;
                counters.tx_bytes += bytes - bytes_of(packets);
                for packet in packets.drain(..) {
                    self.drops.count(DropReason::TxQueueFull);
                    drop(packet);
                }
            }
            TxPort::Via(worker) => {
                let ring = &self.rings[worker.index()];
                for packet in packets.drain(..) {
                    match ring.push(HandOff::Transmit { port: PortId(at as u16), packet }) {
                        Ok(()) => self.relayed += 1,
                        Err(item) => {
                            self.drops.count(DropReason::HandOffRingFull);
                            drop(item);
                        }
                    }
                }
            }
        }
    }
}

/// Bytes of all these frames.
#[inline(always)]
fn bytes_of<P: Packet>(packets: &[P]) -> u64 {
    packets.iter().map(Packet::len).sum::<usize>() as u64
}

impl<R: Runtime> Io for Outlet<R> {
    type Packet = R::Packet;

    fn allocate(&mut self) -> Option<R::Packet> {
        self.pool.allocate()
    }

    #[inline]
    fn transmit(&mut self, port: PortId, packet: R::Packet) {
        let at = port.index();
        let Some((_, buffer)) = self.ports.get_mut(at) else {
            self.drops.count(DropReason::PortUnknown);
            return drop(packet);
        };
        buffer.push(packet);
        if buffer.is_full() {
            self.send(at, None);
        }
    }

    #[inline]
    fn transmit_all(&mut self, port: PortId, packets: &mut ArrayVec<R::Packet, BURST>, bytes: u64) {
        match self.ports.get_mut(port.index()) {
            Some((_, buffer)) if buffer.is_empty() => {
                if packets.is_full() {
                    self.send(port.index(), Some((packets, bytes)));
                } else {
                    std::mem::swap(buffer, packets);
                }
            }
            _ => packets.drain(..).for_each(|packet| self.transmit(port, packet)),
        }
    }

    #[inline]
    fn hand_off(&mut self, to: WorkerId, item: HandOff<R::Packet>) -> Result<(), HandOff<R::Packet>> {
        self.rings[to.index()].push(item)
    }
}
