//! Packet buffers: how many, how large, and where they come from.
//!
//! One pool serves all ports of the gateway, so that a transmit queue frees into one pool only and may use the
//! device's fast way of doing it. Every thread with an lcore id has a cache in it: taking and returning buffers is
//! local, the shared ring behind it is touched once per few bursts.

use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Eal, Mbuf, log, sys, system};

/// Buffers that a thread's cache takes from the pool at once; it holds one and a half times as many.
pub const CACHE_SIZE: u32 = 256;
/// Bytes of a buffer in front of the packet.
pub const HEADROOM: u16 = sys::MBUF_HEADROOM;
/// Bytes of a buffer besides its data room: header of the pool, padded to a cache line, and structure.
pub const BUFFER_HEADER: u64 = 64 + sys::MBUF_SIZE as u64;

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

fn bytes(count: u32, data_room: u16) -> u64 {
    u64::from(count) * (BUFFER_HEADER + u64::from(data_room))
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
