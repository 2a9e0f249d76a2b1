//! Packet buffers: how many, how large, and where they come from.
//!
//! One pool serves all ports of the gateway, so that a transmit queue frees into one pool only and may use the
//! device's fast way of doing it. Every thread with an lcore id has a cache in it: taking and returning buffers is
//! local, the shared ring behind it is touched once per few bursts.

use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrayvec::ArrayVec;

use super::{BURST_MAX, Eal, Mbuf, log, sys, system};

/// Buffers that a thread's cache takes from the pool at once; it holds one and a half times as many.
const CACHE_SIZE: u32 = 256;
/// Data room that carries every frame up to an MTU of 1500 and is what drivers expect at least.
const DATA_ROOM_USUAL: u16 = 2048;

/// Why a pool could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// Not enough memory.
    #[error(
        "{count} packet buffers of {data_room} bytes need {need_mib} MiB, which DPDK does not have ({reason}); {remedy}"
    )]
    Memory {
        /// buffers asked for
        count: u32,
        /// their room, headroom included
        data_room: u16,
        /// what they need in all
        need_mib: u64,
        /// what DPDK said
        reason: String,
        /// what to do
        remedy: String,
    },
}

/// The buffers that a configuration needs at the same time: the sum of all places where one can be.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PoolDemand {
    /// what the devices hold, all together ([`super::Device::buffers_held`])
    pub devices: u32,
    /// workers
    pub workers: u32,
    /// ports, each of which every worker has a transmit buffer for
    pub ports: u32,
    /// packets that may wait in all hand-off rings together
    pub hand_off: u32,
    /// packets that may wait for neighbours, all workers together
    pub held: u32,
}

impl PoolDemand {
    /// Buffers that are enough in the worst case, caches included.
    pub fn buffers(&self) -> u32 {
        let burst = BURST_MAX as u32;
        // A burst in work, one per transmit buffer, and a cache; control's thread has a cache too.
        let per_worker = burst + self.ports * burst + CACHE_SIZE * 3 / 2;
        self.devices + self.workers * per_worker + CACHE_SIZE * 3 / 2 + self.hand_off + self.held
    }

    /// Bytes that the buffers take with their headers, roughly.
    pub fn bytes(&self, data_room: u16) -> u64 {
        bytes(self.buffers(), data_room)
    }
}

/// The data room, headroom included, of buffers that carry a frame of an MTU in one piece.
pub fn data_room(mtu: u16) -> u16 {
    // Ethernet header, two VLAN tags, checksum.
    let frame = mtu.saturating_add(sys::ETHER_OVERHEAD + 8).max(DATA_ROOM_USUAL);
    frame.saturating_add(sys::MBUF_HEADROOM).checked_next_multiple_of(64).unwrap_or(u16::MAX)
}

fn bytes(count: u32, data_room: u16) -> u64 {
    // Each object: header of the pool, padded to a cache line, structure, data.
    u64::from(count) * (64 + sys::MBUF_SIZE as u64 + u64::from(data_room))
}

/// A pool of packet buffers, alive as long as any clone, port or queue is.
#[derive(Clone)]
pub struct Mempool(Arc<Pool>);

struct Pool {
    pool: NonNull<sys::rte_mempool>,
    count: u32,
    eal: Eal,
}

// SAFETY: a mempool may be used by all threads at once; that is its purpose.
unsafe impl Send for Pool {}
// SAFETY: as above.
unsafe impl Sync for Pool {}

impl Mempool {
    /// Makes a pool of `count` buffers of `data_room` bytes, headroom included, near the NUMA node `socket`.
    pub fn create(
        eal: &Eal,
        name: &str,
        count: u32,
        data_room: u16,
        socket: Option<u32>,
    ) -> Result<Mempool, PoolError> {
        let mut name: String = name.chars().filter(|&c| c != '\0').collect();
        name.truncate(sys::MEMPOOL_NAME_MAX as usize - 8);
        let name = CString::new(name).expect("zeros were filtered out");
        // The cache may be at most two thirds of the pool.
        let cache = CACHE_SIZE.min(count / 2).min(sys::MEMPOOL_CACHE_MAX);
        let socket = socket.map_or(sys::SOCKET_ANY, |socket| socket as i32);
        let create = || {
            // SAFETY: the name lives during the call, the environment is up.
            unsafe { sys::rte_pktmbuf_pool_create(name.as_ptr(), count, cache, 0, data_room, socket) }
        };
        let (pool, logged) = log::explain(create);
        let Some(pool) = NonNull::new(pool) else {
            let reason = if logged.is_empty() { sys::error_text(sys::last_error()) } else { logged };
            let need_mib = bytes(count, data_room).div_ceil(1 << 20);
            return Err(PoolError::Memory {
                count,
                data_room,
                need_mib,
                reason,
                remedy: remedy(eal, need_mib),
            });
        };
        Ok(Mempool(Arc::new(Pool { pool, count, eal: eal.clone() })))
    }

    /// An empty packet with full headroom; `None` if the pool is exhausted.
    #[inline]
    pub fn allocate(&self) -> Option<Mbuf> {
        // SAFETY: the pool is alive.
        let buffer = NonNull::new(unsafe { sys::shim_mbuf_alloc(self.as_ptr()) })?;
        // SAFETY: fresh from the pool, owned by nobody else.
        Some(unsafe { Mbuf::from_raw(buffer) })
    }

    /// Fills `packets` up with empty packets; false and unchanged if the pool has not as many.
    pub fn allocate_bulk<const N: usize>(&self, packets: &mut ArrayVec<Mbuf, N>) -> bool {
        let (have, more) = (packets.len(), packets.remaining_capacity());
        // SAFETY: `more` slots behind the elements are ours to write, and an Mbuf is a pointer.
        let result = unsafe {
            let slots = packets.as_mut_ptr().add(have).cast::<*mut sys::rte_mbuf>();
            sys::shim_mbuf_alloc_bulk(self.as_ptr(), slots, more as u32)
        };
        if result == 0 {
            // SAFETY: all of them were written.
            unsafe { packets.set_len(have + more) };
        }
        result == 0
    }

    /// Buffers of the pool.
    pub fn count(&self) -> u32 {
        self.0.count
    }

    /// Buffers that nobody has now; walks all caches, for control.
    pub fn available(&self) -> u32 {
        self.0.available()
    }

    /// Bytes of a buffer, headroom included.
    pub fn data_room(&self) -> u16 {
        // SAFETY: the pool is alive.
        unsafe { sys::shim_pool_data_room(self.as_ptr()) }
    }

    pub(super) fn as_ptr(&self) -> *mut sys::rte_mempool {
        self.0.pool.as_ptr()
    }
}

impl Pool {
    fn available(&self) -> u32 {
        // SAFETY: the pool is alive.
        unsafe { sys::rte_mempool_avail_count(self.pool.as_ptr()) }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if self.available() == self.count {
            // SAFETY: every buffer is home and no handle is left.
            unsafe { sys::rte_mempool_free(self.pool.as_ptr()) }
        } else {
            self.eal.0.packets_abroad.store(true, Ordering::Release);
        }
    }
}

fn remedy(eal: &Eal, need_mib: u64) -> String {
    if !eal.has_hugepages() {
        return format!(
            "give DPDK more (\"-m\", \"{}\" in dataplane.eal)",
            (need_mib + 64).next_multiple_of(64)
        );
    }
    let free_mib: u64 = system::huge_pages().iter().map(|pages| pages.free * pages.size_kib / 1024).sum();
    format!("{free_mib} MiB of hugepages are free: reserve more (/proc/sys/vm/nr_hugepages)")
}

/// Frees packets many at a time.
pub(super) fn free_bulk<const N: usize>(packets: &mut ArrayVec<Mbuf, N>) {
    let count = packets.len();
    // SAFETY: the vector is emptied before its elements, which are pointers to packets that we own, are given away.
    unsafe {
        packets.set_len(0);
        sys::rte_pktmbuf_free_bulk(packets.as_mut_ptr().cast(), count as u32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demand_counts_every_place_a_packet_can_be() {
        let demand = PoolDemand { devices: 4096, workers: 2, ports: 2, hand_off: 2048, held: 128 };
        assert_eq!(demand.buffers(), 4096 + 2 * (32 + 64 + 384) + 384 + 2048 + 128);
    }

    #[test]
    fn data_rooms_hold_the_mtu_and_the_headroom() {
        assert_eq!(data_room(1500), 2048 + 128);
        assert_eq!(data_room(576), 2048 + 128);
        assert!(data_room(9000) >= 9000 + 18 + 8 + 128);
        assert_eq!(data_room(9000) % 64, 0);
        assert_eq!(data_room(u16::MAX), u16::MAX);
    }
}
