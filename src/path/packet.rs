//! What the path asks of a packet buffer and of the world around it.
//!
//! The path never sees DPDK: `dpdk::Mbuf` implements [`Packet`] for the wire and [`super::heap::HeapPacket`] for
//! tests, and whoever runs the path (the worker, a test) implements [`Io`].

use arrayvec::ArrayVec;

use super::engine::BURST;
use super::neighbour::NeighbourFact;
use crate::id::{PortId, WorkerId};
use crate::wire::{Protocol, Tuple};

/// What the device said about a received packet's layer-4 checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReceivedChecksum {
    /// Nothing: the path looks itself where it has to.
    Unknown,
    /// The device found it right.
    Good,
    /// The device found it wrong.
    Bad,
}

/// What the device shall compute while sending; lengths in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChecksumOffload {
    /// Ethernet header, VLAN tag included
    pub l2_len: u8,
    /// IP header, options included
    pub l3_len: u8,
    /// whether the L3 header is an IPv4 one
    pub ipv4: bool,
    /// whose checksum, seeded with the pseudo header by the caller
    pub protocol: Protocol,
}

/// One frame in a buffer: exclusively owned, freed when dropped.
///
/// A frame may lie in several segments; [`Packet::head`] is the first. Everything the path reads or writes is made
/// contiguous first with [`Packet::pull_up`].
pub trait Packet: Sized {
    /// Bytes of the frame, all segments.
    fn len(&self) -> usize;
    /// Whether the frame has no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The bytes of the first segment.
    fn head(&self) -> &[u8];
    /// The bytes of the first segment, writable.
    fn head_mut(&mut self) -> &mut [u8];
    /// Makes the first `len` bytes contiguous. False if the frame is shorter or the first segment cannot hold them.
    fn pull_up(&mut self, len: usize) -> bool;
    /// Adds `len` bytes before the frame; their contents are undefined. The bytes of the first segment then; `None`
    /// without headroom.
    fn grow_front(&mut self, len: usize) -> Option<&mut [u8]>;
    /// Removes `len` bytes from the front. `len` must not exceed the first segment.
    fn shrink_front(&mut self, len: usize);
    /// Adds `len` zero bytes at the end of a contiguous frame. False without tailroom.
    fn grow_back(&mut self, len: usize) -> bool;
    /// Cuts the frame to `len` bytes; nothing happens if it is shorter.
    fn truncate(&mut self, len: usize);
    /// What the device said of the L4 checksum.
    fn received_checksum(&self) -> ReceivedChecksum;
    /// The hash the device computed over the L3 and L4 addresses, if it did.
    fn received_hash(&self) -> Option<u32>;
    /// Asks the device to fill in a checksum while sending.
    fn offload_checksum(&mut self, offload: ChecksumOffload);
    /// Hints that the first bytes will be read soon.
    fn prefetch(&self);
}

/// What the path needs from whoever runs it: buffers, the wires and the other workers.
pub trait Io {
    /// The packet buffer of this runtime.
    type Packet: Packet;
    /// A fresh, empty buffer with full headroom; `None` if the pool is exhausted.
    fn allocate(&mut self) -> Option<Self::Packet>;
    /// Queues a frame for a port. A frame the device does not take is counted as a drop by the runtime.
    fn transmit(&mut self, port: PortId, packet: Self::Packet);
    /// Queues a burst of so many bytes for a port, in order; `packets` is empty afterwards.
    #[inline]
    fn transmit_all(&mut self, port: PortId, packets: &mut ArrayVec<Self::Packet, BURST>, bytes: u64) {
        let _ = bytes;
        packets.drain(..).for_each(|packet| self.transmit(port, packet));
    }
    /// Gives something to another worker; back if its ring is full.
    fn hand_off(&mut self, to: WorkerId, item: HandOff<Self::Packet>) -> Result<(), HandOff<Self::Packet>>;
}

/// How packets came to a worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    /// received from a queue of this port
    Queue(PortId),
    /// handed over by another worker, see [`HandOff::Packet`]
    Worker {
        /// where they were received
        port: PortId,
        /// workers that had no local port for them
        hops: u16,
    },
}

impl Origin {
    /// Where they were received.
    #[inline(always)]
    pub const fn port(self) -> PortId {
        match self {
            Origin::Queue(port) | Origin::Worker { port, .. } => port,
        }
    }

    /// Workers that passed them on because their local ports were used up.
    #[inline(always)]
    pub const fn hops(self) -> u16 {
        match self {
            Origin::Queue(_) => 0,
            Origin::Worker { hops, .. } => hops,
        }
    }

    /// Whether another worker has seen to it that they are where they belong.
    #[inline(always)]
    pub const fn is_steered(self) -> bool {
        matches!(self, Origin::Worker { .. })
    }
}

/// What travels from worker to worker.
pub enum HandOff<P> {
    /// A received packet that another worker shall forward.
    Packet {
        /// where it was received
        port: PortId,
        /// the frame
        packet: P,
        /// workers that passed it on because their local ports were used up; 0 if it only came to the wrong one
        hops: u16,
    },
    /// A frame for a port on which the sender has no tx queue.
    Transmit {
        /// where it shall leave
        port: PortId,
        /// the frame
        packet: P,
    },
    /// A fact about a neighbour, told to every other worker.
    Neighbour(NeighbourFact),
    /// The sender took in a session whose home is the receiver: inbound packets of it shall be handed over.
    GuestBegan {
        /// the inbound flow
        inbound: Tuple,
        /// who has the session
        host: WorkerId,
    },
    /// The sender has no session, or none any more, of a flow whose home is the receiver: its packets shall not be handed
    /// to it.
    GuestEnded {
        /// the inbound flow
        inbound: Tuple,
        /// who has no session of it
        host: WorkerId,
    },
}
