//! A packet buffer and a world on the heap, so that the whole path runs under plain `cargo test`.
//!
//! [`HeapPacket`] is as unfriendly as a real buffer: what the contract of [`Packet`] calls undefined is filled with
//! [`POISON`], later segments cannot be seen before [`Packet::pull_up`], head- and tailroom end. [`TestIo`] keeps what
//! the path sends, does the device's part of checksums, and counts the buffers that are alive.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::packet::{ChecksumOffload, HandOff, Io, Packet, ReceivedChecksum};
use crate::id::{PortId, WorkerId};
use crate::wire::Protocol;

/// What bytes hold whose contents are undefined.
pub const POISON: u8 = 0xa5;

/// How a [`HeapPacket`] lies in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// free bytes before the frame
    pub headroom: usize,
    /// bytes of the first segment that hold the frame or may; a longer frame goes on in a second segment
    pub room: usize,
    /// bytes of the frame that lie in the first segment at first, at most `room`
    pub first_segment: usize,
}

impl Default for Shape {
    /// One segment with DPDK's usual room.
    fn default() -> Self {
        Shape { headroom: 128, room: 2048, first_segment: usize::MAX }
    }
}

/// A frame on the heap.
#[derive(Debug)]
pub struct HeapPacket {
    first: Box<[u8]>,
    start: usize,
    end: usize,
    /// All later segments; the path cannot tell one from several.
    rest: Vec<u8>,
    /// What [`Packet::received_checksum`] says.
    pub checksum: ReceivedChecksum,
    /// What [`Packet::received_hash`] says.
    pub hash: Option<u32>,
    /// What the path asked the device to compute.
    pub offload: Option<ChecksumOffload>,
    _alive: Option<Alive>,
}

impl HeapPacket {
    /// `frame` in one segment with the usual room.
    pub fn new(frame: &[u8]) -> Self {
        Self::shaped(frame, Shape::default())
    }

    /// `frame` in memory of this shape.
    pub fn shaped(frame: &[u8], shape: Shape) -> Self {
        let in_first = frame.len().min(shape.first_segment).min(shape.room);
        let mut first = vec![POISON; shape.headroom + shape.room].into_boxed_slice();
        let (start, end) = (shape.headroom, shape.headroom + in_first);
        first[start..end].copy_from_slice(&frame[..in_first]);
        HeapPacket {
            first,
            start,
            end,
            rest: frame[in_first..].to_vec(),
            checksum: ReceivedChecksum::Unknown,
            hash: None,
            offload: None,
            _alive: None,
        }
    }

    /// The whole frame, all segments.
    pub fn frame(&self) -> Vec<u8> {
        [self.head(), &self.rest].concat()
    }
}

impl Packet for HeapPacket {
    fn len(&self) -> usize {
        self.end - self.start + self.rest.len()
    }

    fn head(&self) -> &[u8] {
        &self.first[self.start..self.end]
    }

    fn head_mut(&mut self) -> &mut [u8] {
        &mut self.first[self.start..self.end]
    }

    fn pull_up(&mut self, len: usize) -> bool {
        let missing = len.saturating_sub(self.end - self.start);
        if missing > self.rest.len() || missing > self.first.len() - self.end {
            return false;
        }
        for (to, from) in self.first[self.end..].iter_mut().zip(self.rest.drain(..missing)) {
            *to = from;
        }
        self.end += missing;
        true
    }

    fn grow_front(&mut self, len: usize) -> Option<&mut [u8]> {
        self.start = self.start.checked_sub(len)?;
        let head = &mut self.first[self.start..self.end];
        head[..len].fill(POISON);
        Some(head)
    }

    fn shrink_front(&mut self, len: usize) {
        assert!(len <= self.end - self.start, "shrink_front past the first segment");
        self.start += len;
    }

    fn grow_back(&mut self, len: usize) -> bool {
        if !self.rest.is_empty() || len > self.first.len() - self.end {
            return false;
        }
        self.first[self.end..self.end + len].fill(0);
        self.end += len;
        true
    }

    fn truncate(&mut self, len: usize) {
        let in_first = self.end - self.start;
        if len < in_first {
            self.end = self.start + len;
        }
        self.rest.truncate(len.saturating_sub(in_first));
    }

    fn received_checksum(&self) -> ReceivedChecksum {
        self.checksum
    }

    fn received_hash(&self) -> Option<u32> {
        self.hash
    }

    fn offload_checksum(&mut self, offload: ChecksumOffload) {
        self.offload = Some(offload);
    }

    fn prefetch(&self) {}
}

/// Counts a buffer as alive until it is dropped.
#[derive(Debug)]
struct Alive(Arc<AtomicUsize>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A frame that the path sent, as it stands on the wire.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sent {
    /// the port it left through
    pub port: PortId,
    /// its bytes, checksums filled in where the path left them to the device
    pub frame: Vec<u8>,
}

/// The world around the path in a test.
#[derive(Default)]
pub struct TestIo {
    /// Every frame sent, in order.
    pub sent: Vec<Sent>,
    /// Everything given to other workers, in order.
    pub handed_off: Vec<(WorkerId, HandOff<HeapPacket>)>,
    /// How many buffers may be alive at once before [`Io::allocate`] fails; `None`: any number.
    pub buffers_max: Option<usize>,
    /// How many more things other workers' rings take; `None`: any number.
    pub ring_room: Option<usize>,
    /// The shape of received and allocated packets.
    pub shape: Shape,
    alive: Arc<AtomicUsize>,
}

impl TestIo {
    /// `frame` in a buffer of this world, as if received.
    pub fn receive(&self, frame: &[u8]) -> HeapPacket {
        self.alive.fetch_add(1, Ordering::Relaxed);
        HeapPacket { _alive: Some(Alive(self.alive.clone())), ..HeapPacket::shaped(frame, self.shape) }
    }

    /// How many of its buffers are alive.
    pub fn buffers_alive(&self) -> usize {
        self.alive.load(Ordering::Relaxed)
    }

    /// The frames sent since this was last asked.
    pub fn take_sent(&mut self) -> Vec<Sent> {
        std::mem::take(&mut self.sent)
    }
}

impl Io for TestIo {
    type Packet = HeapPacket;

    fn allocate(&mut self) -> Option<HeapPacket> {
        let room = self.buffers_max.is_none_or(|max| self.buffers_alive() < max);
        room.then(|| self.receive(&[]))
    }

    fn transmit(&mut self, port: PortId, packet: HeapPacket) {
        let mut frame = packet.frame();
        if let Some(offload) = packet.offload {
            complete_checksum(&mut frame, offload);
        }
        self.sent.push(Sent { port, frame });
    }

    fn hand_off(&mut self, to: WorkerId, item: HandOff<HeapPacket>) -> Result<(), HandOff<HeapPacket>> {
        if let Some(room) = &mut self.ring_room {
            let Some(left) = room.checked_sub(1) else { return Err(item) };
            *room = left;
        }
        self.handed_off.push((to, item));
        Ok(())
    }
}

/// What a device does for [`Packet::offload_checksum`]: sums up the L4 header, its seed included, and the payload.
fn complete_checksum(frame: &mut [u8], offload: ChecksumOffload) {
    let l3 = usize::from(offload.l2_len);
    let l4 = l3 + usize::from(offload.l3_len);
    // Ethernet padding is not summed up: the device goes by the length in the IP header.
    let length_at = |at: usize| usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    let end = if offload.ipv4 { l3 + length_at(l3 + 2) } else { l3 + 40 + length_at(l3 + 4) };
    let field = l4 + if offload.protocol == Protocol::Tcp { 16 } else { 6 };
    let mut sum = !ones_complement(&frame[l4..end]);
    if offload.protocol == Protocol::Udp && sum == 0 {
        sum = 0xffff;
    }
    frame[field..field + 2].copy_from_slice(&sum.to_be_bytes());
}

fn ones_complement(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_in_two_segments_is_pulled_up_as_far_as_there_is_room() {
        let frame: Vec<u8> = (0..100).collect();
        let mut packet = HeapPacket::shaped(&frame, Shape { headroom: 8, room: 60, first_segment: 20 });
        assert_eq!((packet.len(), packet.head().len()), (100, 20));
        assert!(packet.pull_up(10), "already there");
        assert!(packet.pull_up(60));
        assert_eq!(packet.head(), &frame[..60]);
        assert!(!packet.pull_up(61), "no tailroom");
        assert!(!packet.grow_back(1), "not contiguous");
        assert_eq!(packet.frame(), frame);
        packet.truncate(70);
        assert_eq!(packet.len(), 70);
        packet.truncate(30);
        assert_eq!(packet.frame(), &frame[..30]);
        assert!(!packet.pull_up(31), "shorter than that");
    }

    #[test]
    fn room_ends_and_new_bytes_in_front_are_poison() {
        let mut packet = HeapPacket::shaped(&[1, 2], Shape { headroom: 4, room: 4, first_segment: 4 });
        assert!(packet.grow_front(4).is_some());
        assert!(packet.grow_front(1).is_none());
        assert_eq!(packet.head(), [POISON, POISON, POISON, POISON, 1, 2]);
        packet.shrink_front(5);
        assert!(packet.grow_back(2));
        assert!(!packet.grow_back(1));
        assert_eq!(packet.head(), [2, 0, 0]);
    }

    #[test]
    fn buffers_are_counted_and_limited() {
        let mut io = TestIo { buffers_max: Some(1), ..TestIo::default() };
        let packet = io.allocate().unwrap();
        assert!(io.allocate().is_none());
        io.transmit(PortId(0), packet);
        assert_eq!(io.buffers_alive(), 0);
        assert!(io.allocate().is_some());
    }

    #[test]
    fn the_device_completes_a_seeded_checksum() {
        let mut frame = Vec::new();
        etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .udp(1000, 2000)
            .write(&mut frame, &[1, 2, 3])
            .unwrap();
        let right = frame.clone();
        // the pseudo header: addresses, protocol, length
        let seed = ones_complement(&[&frame[26..34], &[0, 17], &frame[38..40]].concat());
        frame[40..42].copy_from_slice(&seed.to_be_bytes());
        let mut io = TestIo::default();
        let mut packet = io.receive(&[frame.as_slice(), &[0; 15]].concat());
        packet.offload_checksum(ChecksumOffload {
            l2_len: 14,
            l3_len: 20,
            ipv4: true,
            protocol: Protocol::Udp,
        });
        io.transmit(PortId(0), packet);
        assert_eq!(io.sent[0].frame[..45], right);
    }
}
