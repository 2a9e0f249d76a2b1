//! A worker's surroundings made of memory: buffers that go home when they are dropped, queues that never grow.

use std::sync::Arc;

use arrayvec::ArrayVec;
use crossbeam_queue::ArrayQueue;
use fullnat::path::BURST;
use fullnat::path::packet::{ChecksumOffload, Packet, ReceivedChecksum};
use fullnat::worker::{PacketPool, RxQueue, TxQueue};

use crate::rig::{self, Seen};

/// More than can be on their way: both queues, both rings, waiting for neighbours, in hands.
const BUFFERS: usize = 8192;
const QUEUE: usize = 1024;
const ROOM: usize = 512;
const HEADROOM: usize = 128;

type Home = Arc<ArrayQueue<Box<[u8; ROOM]>>>;

/// The worker between two such queues.
pub fn run() -> Seen {
    let home: Home = Arc::new(ArrayQueue::new(BUFFERS));
    while home.push(Box::new([0; ROOM])).is_ok() {}
    let queue = || {
        let queue = Arc::new(ArrayQueue::new(QUEUE));
        (Loop(queue.clone()), Loop(queue))
    };
    let seen = rig::run([queue(), queue()], || Pool(home.clone()));
    assert_eq!(home.len(), BUFFERS, "every buffer is home");
    seen
}

/// A frame in a buffer of the pool.
struct Frame {
    /// there until the frame is dropped
    memory: Option<Box<[u8; ROOM]>>,
    start: usize,
    end: usize,
    home: Home,
}

impl Frame {
    fn memory(&self) -> &[u8; ROOM] {
        self.memory.as_ref().expect("it is not dropped")
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.take() {
            // It came from there: there is room.
            let _ = self.home.push(memory);
        }
    }
}

impl Packet for Frame {
    fn len(&self) -> usize {
        self.end - self.start
    }

    fn head(&self) -> &[u8] {
        &self.memory()[self.start..self.end]
    }

    fn head_mut(&mut self) -> &mut [u8] {
        &mut self.memory.as_mut().expect("it is not dropped")[self.start..self.end]
    }

    fn pull_up(&mut self, len: usize) -> bool {
        len <= self.len()
    }

    fn grow_front(&mut self, len: usize) -> Option<&mut [u8]> {
        self.start = self.start.checked_sub(len)?;
        Some(self.head_mut())
    }

    fn shrink_front(&mut self, len: usize) {
        self.start += len;
    }

    fn grow_back(&mut self, len: usize) -> bool {
        let fits = self.end + len <= ROOM;
        if fits {
            let old = self.len();
            self.end += len;
            self.head_mut()[old..].fill(0);
        }
        fits
    }

    fn truncate(&mut self, len: usize) {
        self.end = self.end.min(self.start + len);
    }

    fn received_checksum(&self) -> ReceivedChecksum {
        ReceivedChecksum::Unknown
    }

    fn received_hash(&self) -> Option<u32> {
        None
    }

    fn offload_checksum(&mut self, _: ChecksumOffload) {}

    fn prefetch(&self) {}
}

struct Pool(Home);

impl PacketPool for Pool {
    type Packet = Frame;

    fn allocate(&mut self) -> Option<Frame> {
        let memory = Some(self.0.pop()?);
        Some(Frame { memory, start: HEADROOM, end: HEADROOM, home: self.0.clone() })
    }
}

/// What is sent comes back.
struct Loop(Arc<ArrayQueue<Frame>>);

impl RxQueue for Loop {
    type Packet = Frame;

    fn receive(&mut self, into: &mut ArrayVec<Frame, BURST>) {
        into.extend(std::iter::from_fn(|| self.0.pop()).take(BURST));
    }
}

impl TxQueue for Loop {
    type Packet = Frame;

    fn send(&mut self, packets: &mut ArrayVec<Frame, BURST>) {
        let room = self.0.capacity() - self.0.len();
        for packet in packets.drain(..room.min(BURST).min(packets.len())) {
            let _ = self.0.push(packet);
        }
    }
}
