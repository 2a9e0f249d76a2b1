//! A packet buffer of DPDK as an owned value, and the one file that knows where its fields lie.
//!
//! An [`Mbuf`] is the only way to its buffer from the moment a queue or a pool gave it out until it is sent or
//! dropped: it is neither `Clone` nor `Copy`, and its reference count stays 1. Fields are read at the offsets that
//! `ffi/dpdk.h` took from the installed headers, so the same source serves releases whose structures differ, and a
//! read costs a load and not a call. On the path only the first of the buffer's two cache lines is touched, unless
//! the frame is segmented or asks for a checksum.

use std::ptr::NonNull;

use super::sys;
use crate::path::packet::{ChecksumOffload, Packet, ReceivedChecksum};
use crate::wire::Protocol;

/// One frame, exclusively owned; dropping it gives all its segments back to their pool.
#[repr(transparent)]
pub struct Mbuf(NonNull<sys::rte_mbuf>);

// SAFETY: the buffer is owned by this value alone, and pools take buffers back from any thread: those without an
// lcore id bypass the per-lcore cache.
unsafe impl Send for Mbuf {}

impl Drop for Mbuf {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the buffer is ours and nobody reads it after this.
        unsafe { sys::shim_mbuf_free(self.0.as_ptr()) }
    }
}

/// A segment of a chain: what a raw buffer pointer means, without ownership.
#[derive(Clone, Copy)]
struct Segment(NonNull<sys::rte_mbuf>);

macro_rules! fields {
    ($($name:ident, $set:ident: $type:ty = $offset:ident;)*) => {$(
        #[inline(always)]
        #[allow(dead_code)] // not every field is both read and written
        fn $name(self) -> $type {
            // SAFETY: the segment belongs to an `Mbuf` in scope; shim.c asserts the width of the field there.
            unsafe { self.0.as_ptr().cast::<u8>().add(sys::$offset).cast::<$type>().read() }
        }

        #[inline(always)]
        #[allow(dead_code)] // as above
        fn $set(self, value: $type) {
            // SAFETY: as above, and that `Mbuf` is borrowed mutably by whoever calls this.
            unsafe { self.0.as_ptr().cast::<u8>().add(sys::$offset).cast::<$type>().write(value) }
        }
    )*};
}

impl Segment {
    fields! {
        buf_addr, set_buf_addr: *mut u8 = MBUF_BUF_ADDR;
        data_off, set_data_off: u16 = MBUF_DATA_OFF;
        segments, set_segments: u16 = MBUF_NB_SEGS;
        flags, set_flags: u64 = MBUF_OL_FLAGS;
        packet_len, set_packet_len: u32 = MBUF_PKT_LEN;
        data_len, set_data_len: u16 = MBUF_DATA_LEN;
        rss, set_rss: u32 = MBUF_RSS;
        buf_len, set_buf_len: u16 = MBUF_BUF_LEN;
        next, set_next: Option<NonNull<sys::rte_mbuf>> = MBUF_NEXT;
        tx_offload, set_tx_offload: u64 = MBUF_TX_OFFLOAD;
    }

    #[inline(always)]
    fn data(self) -> *mut u8 {
        // SAFETY: data_off never exceeds buf_len, so the sum stays within the buffer.
        unsafe { self.buf_addr().add(usize::from(self.data_off())) }
    }

    /// Bytes behind the data that the buffer still has.
    #[inline(always)]
    fn tailroom(self) -> usize {
        usize::from(self.buf_len()) - usize::from(self.data_off()) - usize::from(self.data_len())
    }
}

impl Mbuf {
    /// Takes ownership of a buffer.
    ///
    /// # Safety
    /// `buffer` is a packet's first segment, and the caller was its only owner.
    #[inline(always)]
    pub(super) unsafe fn from_raw(buffer: NonNull<sys::rte_mbuf>) -> Mbuf {
        Mbuf(buffer)
    }

    /// How many segments the frame lies in.
    #[inline(always)]
    pub fn segments(&self) -> u16 {
        self.segment().segments()
    }

    /// Appends a copy of `bytes`; false without tailroom or if the frame is segmented.
    pub fn append(&mut self, bytes: &[u8]) -> bool {
        if !self.grow_back(bytes.len()) {
            return false;
        }
        let head = self.head_mut();
        let start = head.len() - bytes.len();
        head[start..].copy_from_slice(bytes);
        true
    }

    #[inline(always)]
    fn segment(&self) -> Segment {
        Segment(self.0)
    }

    /// Moves bytes of the later segments into the first until it has `len`; the caller checked that there are as many.
    #[cold]
    fn gather(&mut self, len: usize) -> bool {
        let first = self.segment();
        if len - usize::from(first.data_len()) > first.tailroom() {
            return false;
        }
        while usize::from(first.data_len()) < len {
            let Some(next) = first.next() else { return false };
            let next = Segment(next);
            let have = first.data_len();
            let count = (len - usize::from(have)).min(usize::from(next.data_len()));
            // SAFETY: `count` bytes lie in the next segment, and the tailroom of the first was checked for the whole.
            unsafe {
                std::ptr::copy_nonoverlapping(next.data(), first.data().add(usize::from(have)), count);
            }
            first.set_data_len(have + count as u16);
            next.set_data_off(next.data_off() + count as u16);
            next.set_data_len(next.data_len() - count as u16);
            if next.data_len() == 0 {
                self.unlink_after(first);
            }
        }
        true
    }

    /// Frees the segment that follows `segment`.
    fn unlink_after(&mut self, segment: Segment) {
        let Some(next) = segment.next() else { return };
        segment.set_next(Segment(next).next());
        self.segment().set_segments(self.segment().segments() - 1);
        // SAFETY: nothing links to this segment any more, and it was ours.
        unsafe { sys::shim_mbuf_free_segment(next.as_ptr()) }
    }

    #[cold]
    fn truncate_chain(&mut self, len: usize) {
        let mut left = len;
        let mut segment = self.segment();
        while left > usize::from(segment.data_len()) {
            left -= usize::from(segment.data_len());
            let Some(next) = segment.next() else { return };
            segment = Segment(next);
        }
        segment.set_data_len(left as u16);
        while segment.next().is_some() {
            self.unlink_after(segment);
        }
        self.segment().set_packet_len(len as u32);
    }
}

impl Packet for Mbuf {
    #[inline(always)]
    fn len(&self) -> usize {
        self.segment().packet_len() as usize
    }

    #[inline(always)]
    fn head(&self) -> &[u8] {
        let segment = self.segment();
        // SAFETY: data_len bytes of the buffer are the packet's; they were written by the device or zeroed when added,
        // and live as long as this value.
        unsafe { std::slice::from_raw_parts(segment.data(), usize::from(segment.data_len())) }
    }

    #[inline(always)]
    fn head_mut(&mut self) -> &mut [u8] {
        let segment = self.segment();
        // SAFETY: as above, and the value is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(segment.data(), usize::from(segment.data_len())) }
    }

    #[inline(always)]
    fn pull_up(&mut self, len: usize) -> bool {
        if len <= usize::from(self.segment().data_len()) {
            return true;
        }
        if len > self.len() {
            return false;
        }
        self.gather(len)
    }

    #[inline]
    fn grow_front(&mut self, len: usize) -> Option<&mut [u8]> {
        let segment = self.segment();
        let offset = usize::from(segment.data_off()).checked_sub(len)?;
        // No more than offset and length were before, both of which lie within the buffer.
        let data_len = usize::from(segment.data_len()) + len;
        segment.set_data_off(offset as u16);
        segment.set_data_len(data_len as u16);
        segment.set_packet_len(segment.packet_len() + len as u32);
        // SAFETY: as above; the bytes in front are of the same buffer, which is initialised memory.
        Some(unsafe { std::slice::from_raw_parts_mut(segment.buf_addr().add(offset), data_len) })
    }

    #[inline]
    fn shrink_front(&mut self, len: usize) {
        let segment = self.segment();
        assert!(len <= usize::from(segment.data_len()), "shrink_front beyond the first segment");
        segment.set_data_off(segment.data_off() + len as u16);
        segment.set_data_len(segment.data_len() - len as u16);
        segment.set_packet_len(segment.packet_len() - len as u32);
    }

    #[inline]
    fn grow_back(&mut self, len: usize) -> bool {
        let segment = self.segment();
        if segment.segments() != 1 || len > segment.tailroom() {
            return false;
        }
        // SAFETY: the tailroom was checked.
        unsafe { segment.data().add(usize::from(segment.data_len())).write_bytes(0, len) };
        segment.set_data_len(segment.data_len() + len as u16);
        segment.set_packet_len(segment.packet_len() + len as u32);
        true
    }

    #[inline]
    fn truncate(&mut self, len: usize) {
        let segment = self.segment();
        if len >= self.len() {
            return;
        }
        if segment.segments() != 1 {
            return self.truncate_chain(len);
        }
        segment.set_data_len(len as u16);
        segment.set_packet_len(len as u32);
    }

    #[inline(always)]
    fn received_checksum(&self) -> ReceivedChecksum {
        match self.segment().flags() & sys::MBUF_RX_L4_MASK {
            sys::MBUF_RX_L4_GOOD => ReceivedChecksum::Good,
            sys::MBUF_RX_L4_BAD => ReceivedChecksum::Bad,
            _ => ReceivedChecksum::Unknown,
        }
    }

    #[inline(always)]
    fn received_hash(&self) -> Option<u32> {
        let segment = self.segment();
        (segment.flags() & sys::MBUF_RX_RSS_HASH != 0).then(|| segment.rss())
    }

    #[inline]
    fn offload_checksum(&mut self, offload: ChecksumOffload) {
        let segment = self.segment();
        let l4 = match offload.protocol {
            Protocol::Tcp => sys::MBUF_TX_TCP_CKSUM,
            Protocol::Udp => sys::MBUF_TX_UDP_CKSUM,
        };
        let l3 = if offload.ipv4 { sys::MBUF_TX_IPV4 } else { sys::MBUF_TX_IPV6 };
        let old = sys::MBUF_TX_L4_MASK | sys::MBUF_TX_IPV4 | sys::MBUF_TX_IPV6;
        segment.set_flags(segment.flags() & !old | l4 | l3);
        segment.set_tx_offload(
            u64::from(offload.l2_len) << sys::MBUF_L2_LEN_SHIFT
                | u64::from(offload.l3_len) << sys::MBUF_L3_LEN_SHIFT,
        );
    }

    #[inline(always)]
    fn prefetch(&self) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: a prefetch never faults; SSE is part of x86-64.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(self.segment().data().cast()) }
        }
    }
}

const _: () = {
    assert!(size_of::<Mbuf>() == size_of::<*mut sys::rte_mbuf>());
    assert!(size_of::<Option<NonNull<sys::rte_mbuf>>>() == size_of::<*mut sys::rte_mbuf>());
    // A TOA option and a change of family make a frame longer by at most 20 + 20 bytes.
    assert!(sys::MBUF_HEADROOM >= 128);
    // What the path reads lies in the first cache line.
    assert!(sys::MBUF_BUF_LEN < 64 && sys::MBUF_PKT_LEN < 64 && sys::MBUF_OL_FLAGS < 64);
};

#[cfg(test)]
mod tests {
    use std::mem::ManuallyDrop;

    use super::*;

    /// A segment in plain memory: `len` bytes counting from `first`, behind `front` bytes of headroom.
    struct Plain {
        fields: Box<[u64; sys::MBUF_SIZE / 8]>,
        _buffer: Box<[u8]>,
    }

    fn plain(room: usize, front: u16, len: u16, first: u8) -> Plain {
        let mut buffer = vec![0xee; room].into_boxed_slice();
        for i in 0..len {
            buffer[usize::from(front + i)] = first + i as u8;
        }
        let mut fields = Box::new([0; sys::MBUF_SIZE / 8]);
        let segment = Segment(NonNull::new(fields.as_mut_ptr().cast()).expect("a box"));
        segment.set_buf_addr(buffer.as_mut_ptr());
        segment.set_buf_len(room as u16);
        segment.set_data_off(front);
        segment.set_data_len(len);
        segment.set_packet_len(u32::from(len));
        segment.set_segments(1);
        Plain { fields, _buffer: buffer }
    }

    /// 10 bytes and 20 bytes behind each other as one packet, which no pool may see.
    fn chain(first: &mut Plain, second: &mut Plain) -> ManuallyDrop<Mbuf> {
        let head = Segment(NonNull::new(first.fields.as_mut_ptr().cast()).expect("a box"));
        head.set_next(NonNull::new(second.fields.as_mut_ptr().cast()));
        head.set_segments(2);
        head.set_packet_len(30);
        ManuallyDrop::new(Mbuf(head.0))
    }

    #[test]
    fn bytes_of_the_next_segment_are_pulled_up() {
        let (mut first, mut second) = (plain(64, 16, 10, 0), plain(64, 0, 20, 10));
        let mut packet = chain(&mut first, &mut second);
        assert!(packet.pull_up(25));
        assert_eq!(packet.head(), (0..25).collect::<Vec<u8>>());
        assert_eq!((packet.len(), packet.segments()), (30, 2));
        let rest = Segment(packet.segment().next().expect("five bytes are left"));
        assert_eq!((rest.data_off(), rest.data_len()), (15, 5));
        assert!(!packet.pull_up(31), "longer than the packet");
    }

    #[test]
    fn a_first_segment_without_room_refuses() {
        let (mut first, mut second) = (plain(32, 16, 10, 0), plain(64, 0, 20, 10));
        let mut packet = chain(&mut first, &mut second);
        assert!(packet.pull_up(16) && !packet.pull_up(17));
        assert!(!packet.grow_back(1), "not contiguous");
    }

    #[test]
    fn a_chain_is_cut_in_its_last_segment() {
        let (mut first, mut second) = (plain(64, 16, 10, 0), plain(64, 0, 20, 10));
        let mut packet = chain(&mut first, &mut second);
        packet.truncate(12);
        assert_eq!((packet.len(), packet.head().len(), packet.segments()), (12, 10, 2));
        assert!(packet.pull_up(11) && !packet.pull_up(13));
    }

    #[test]
    fn a_checksum_request_replaces_the_one_before() {
        let mut only = plain(64, 0, 40, 0);
        let mut packet =
            ManuallyDrop::new(Mbuf(NonNull::new(only.fields.as_mut_ptr().cast()).expect("a box")));
        packet.offload_checksum(ChecksumOffload {
            l2_len: 18,
            l3_len: 40,
            ipv4: false,
            protocol: Protocol::Udp,
        });
        packet.offload_checksum(ChecksumOffload {
            l2_len: 14,
            l3_len: 20,
            ipv4: true,
            protocol: Protocol::Tcp,
        });
        let segment = packet.segment();
        assert_eq!(segment.flags(), sys::MBUF_TX_IPV4 | sys::MBUF_TX_TCP_CKSUM);
        assert_eq!(segment.tx_offload(), 14 | 20 << 7);
    }

    #[test]
    fn what_the_device_said_is_read() {
        let mut only = plain(64, 0, 40, 0);
        let packet = ManuallyDrop::new(Mbuf(NonNull::new(only.fields.as_mut_ptr().cast()).expect("a box")));
        let segment = packet.segment();
        segment.set_rss(0x1234_5678);
        assert_eq!((packet.received_hash(), packet.received_checksum()), (None, ReceivedChecksum::Unknown));
        segment.set_flags(sys::MBUF_RX_RSS_HASH | sys::MBUF_RX_L4_GOOD);
        assert_eq!(
            (packet.received_hash(), packet.received_checksum()),
            (Some(0x1234_5678), ReceivedChecksum::Good)
        );
        segment.set_flags(sys::MBUF_RX_L4_BAD);
        assert_eq!((packet.received_hash(), packet.received_checksum()), (None, ReceivedChecksum::Bad));
        // Both bits: the sum in the packet is not filled in, its data is known to be right.
        segment.set_flags(sys::MBUF_RX_L4_MASK);
        assert_eq!(packet.received_checksum(), ReceivedChecksum::Unknown);
    }
}
