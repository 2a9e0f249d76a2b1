//! Packet buffers that behave like mbufs, and the world around the engine while it is measured.
//!
//! A [`Frame`] is a pointer to 2 KiB: a line of bookkeeping, headroom, data. Moving it moves eight bytes. Buffers come
//! from a ring that is larger than the first-level caches, so a frame is found where a NIC with direct cache access
//! would have put it: in the cache shared by all cores.

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam_queue::ArrayQueue;
use fullnat::cpu;
use fullnat::id::{PortId, WorkerId};
use fullnat::path::packet::{ChecksumOffload, HandOff, Io, Packet, ReceivedChecksum};
use fullnat::wire::{ethernet, icmp};

const DATA_LEN: usize = 2048 - 64;
const HEADROOM: usize = 128;

#[repr(C, align(64))]
struct Buffer {
    start: usize,
    end: usize,
    bookkeeping: [u8; 48],
    data: [u8; DATA_LEN],
}

/// A frame in a buffer of its own.
pub struct Frame(Box<Buffer>);

impl Frame {
    /// An empty frame.
    pub fn new() -> Self {
        Frame(Box::new(Buffer { start: HEADROOM, end: HEADROOM, bookkeeping: [0; 48], data: [0; DATA_LEN] }))
    }

    /// Puts other contents into the buffer.
    pub fn fill(&mut self, frame: &[u8]) {
        self.0.start = HEADROOM;
        self.0.end = HEADROOM + frame.len();
        self.0.data[HEADROOM..HEADROOM + frame.len()].copy_from_slice(frame);
    }
}

impl Packet for Frame {
    #[inline(always)]
    fn len(&self) -> usize {
        self.0.end - self.0.start
    }

    #[inline(always)]
    fn head(&self) -> &[u8] {
        &self.0.data[self.0.start..self.0.end]
    }

    #[inline(always)]
    fn head_mut(&mut self) -> &mut [u8] {
        &mut self.0.data[self.0.start..self.0.end]
    }

    fn pull_up(&mut self, len: usize) -> bool {
        len <= self.len()
    }

    #[inline]
    fn grow_front(&mut self, len: usize) -> Option<&mut [u8]> {
        self.0.start = self.0.start.checked_sub(len)?;
        Some(self.head_mut())
    }

    #[inline]
    fn shrink_front(&mut self, len: usize) {
        self.0.start += len;
    }

    fn grow_back(&mut self, len: usize) -> bool {
        let end = self.0.end;
        let fits = end + len <= DATA_LEN;
        if fits {
            self.0.data[end..end + len].fill(0);
            self.0.end += len;
        }
        fits
    }

    #[inline]
    fn truncate(&mut self, len: usize) {
        self.0.end = self.0.end.min(self.0.start + len);
    }

    fn received_checksum(&self) -> ReceivedChecksum {
        ReceivedChecksum::Unknown
    }

    fn received_hash(&self) -> Option<u32> {
        None
    }

    fn offload_checksum(&mut self, _: ChecksumOffload) {}

    #[inline(always)]
    fn prefetch(&self) {
        cpu::prefetch(&self.0.data[HEADROOM]);
    }
}

/// Another worker's inbox.
pub type Inbox = Arc<ArrayQueue<HandOff<Frame>>>;

/// The world around one engine: what it sends comes back as empty buffers.
pub struct World {
    /// sent since last asked, in order
    pub sent: Vec<(PortId, Frame)>,
    /// the workers' inboxes; empty with one worker
    pub inboxes: Vec<Inbox>,
    free: VecDeque<Frame>,
}

impl World {
    /// With `buffers` buffers.
    pub fn new(buffers: usize) -> Self {
        World {
            sent: Vec::with_capacity(buffers),
            inboxes: Vec::new(),
            free: (0..buffers).map(|_| Frame::new()).collect(),
        }
    }

    /// The buffer that was free for longest, with these contents.
    pub fn receive(&mut self, frame: &[u8]) -> Frame {
        let mut buffer = self.free.pop_front().unwrap_or_else(Frame::new);
        buffer.fill(frame);
        buffer
    }

    /// Frames that were sent on behalf of somebody; the rest is the gateway's own ARP and ND.
    pub fn forwarded(&self) -> impl Iterator<Item = &Frame> {
        self.sent.iter().map(|(_, frame)| frame).filter(|frame| is_flow(frame.head()))
    }

    /// Takes back what was sent; how many forwarded frames that were.
    pub fn recycle(&mut self) -> usize {
        let sent = self.forwarded().count();
        self.free.extend(self.sent.drain(..).map(|(_, frame)| frame));
        sent
    }
}

fn is_flow(frame: &[u8]) -> bool {
    match ethernet::ethertype(frame) {
        ethernet::TYPE_IPV4 => true,
        ethernet::TYPE_IPV6 => frame[ethernet::HEADER_LEN + 6] != icmp::PROTOCOL_V6,
        _ => false,
    }
}

impl Io for World {
    type Packet = Frame;

    fn allocate(&mut self) -> Option<Frame> {
        Some(self.receive(&[]))
    }

    #[inline(always)]
    fn transmit(&mut self, port: PortId, packet: Frame) {
        self.sent.push((port, packet));
    }

    #[inline]
    fn hand_off(&mut self, to: WorkerId, item: HandOff<Frame>) -> Result<(), HandOff<Frame>> {
        match self.inboxes.get(to.index()) {
            Some(inbox) => inbox.push(item),
            None => Err(item),
        }
    }
}
