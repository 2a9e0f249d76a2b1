//! Threads and CPUs: a worker is a thread of ours, pinned to its CPU and made known to DPDK.
//!
//! DPDK's own worker lcores busy-wait for commands from its main lcore and cannot be joined; plain threads that
//! register get the same: an lcore id, and with it a cache of their own in every pool.

use std::marker::PhantomData;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::{Eal, sys};

/// Why a thread could not become a worker's.
#[derive(Debug, thiserror::Error)]
pub enum LcoreError {
    /// The CPU does not exist or is not ours.
    #[error("CPU {core} cannot be used ({errno}); this process may run on {allowed:?}")]
    Core {
        /// the CPU asked for
        core: usize,
        /// what the kernel said
        errno: nix::Error,
        /// CPUs that can be used
        allowed: Vec<usize>,
    },
    /// DPDK has no lcore id left.
    #[error("DPDK did not take the thread for CPU {core}: {reason}")]
    Register {
        /// the CPU asked for
        core: usize,
        /// DPDK's errno in words
        reason: String,
    },
}

/// The CPUs that this thread may run on, in ascending order. Ask before [`Eal::init`], which pins its caller.
pub fn allowed_cores() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(Pid::from_raw(0)) else { return Vec::new() };
    (0..CpuSet::count()).filter(|&core| set.is_set(core).unwrap_or(false)).collect()
}

/// The calling thread as a worker's; dropping it gives the lcore id back. Stays on its thread.
pub struct WorkerThread {
    _eal: Eal,
    _not_send: PhantomData<*const ()>,
}

impl WorkerThread {
    /// Pins the calling thread to the CPU `core` and registers it with DPDK.
    pub fn enter(eal: &Eal, core: usize) -> Result<WorkerThread, LcoreError> {
        let pin = || {
            let mut set = CpuSet::new();
            set.set(core)?;
            sched_setaffinity(Pid::from_raw(0), &set)
        };
        // Pinned first: DPDK remembers the affinity it finds.
        pin().map_err(|errno| LcoreError::Core { core, errno, allowed: allowed_cores() })?;
        // A worker that sleeps does so for microseconds; the usual slack is 50 of them. Without it it sleeps longer.
        let _ = nix::sys::prctl::set_timerslack(1);
        // SAFETY: the environment is up.
        if unsafe { sys::rte_thread_register() } != 0 {
            return Err(LcoreError::Register { core, reason: sys::error_text(sys::last_error()) });
        }
        Ok(WorkerThread { _eal: eal.clone(), _not_send: PhantomData })
    }

    /// The id that DPDK gave this thread.
    pub fn lcore_id(&self) -> u32 {
        // SAFETY: reads a thread-local variable; `self` never left its thread.
        unsafe { sys::shim_lcore_id() }
    }
}

impl Drop for WorkerThread {
    fn drop(&mut self) {
        // SAFETY: this thread registered in `enter`.
        unsafe { sys::rte_thread_unregister() }
    }
}
