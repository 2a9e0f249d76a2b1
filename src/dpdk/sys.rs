//! The bindings as bindgen made them from `ffi/dpdk.h`; nothing outside [`super`] names them.
#![allow(non_camel_case_types, non_upper_case_globals, non_snake_case, missing_docs, dead_code)] // C's names
#![allow(unsafe_code, unsafe_op_in_unsafe_fn, clippy::all, clippy::undocumented_unsafe_blocks)] // generated

include!(concat!(env!("OUT_DIR"), "/dpdk.rs"));

/// DPDK's words for an errno, of either sign.
pub(super) fn error_text(errno: i32) -> String {
    // SAFETY: rte_strerror returns a string that lives until this thread calls it again; it is copied at once.
    unsafe { std::ffi::CStr::from_ptr(rte_strerror(errno.abs())) }.to_string_lossy().into_owned()
}

/// DPDK's errno of this thread.
pub(super) fn last_error() -> i32 {
    // SAFETY: reads a thread-local variable.
    unsafe { shim_errno() }
}

/// What drivers log when the kernel does not lock their rings into memory.
const NOT_LOCKED: [&str; 2] = ["mmap failed", "Failed to create umem"];

/// Why DPDK refused: what it logged, and what it returned where that says something.
pub(super) fn refusal(logged: &str, errno: i32) -> String {
    let advice = NOT_LOCKED.iter().any(|words| logged.contains(words)).then(super::system::memory_lock_advice);
    if let Some(Some(advice)) = advice {
        return format!("{logged}; {advice}");
    }
    // Drivers return -1 for anything; as an errno it would read "Operation not permitted".
    match (logged, errno.abs()) {
        ("", 0 | 1) => "it gave no reason".to_owned(),
        (logged, 0 | 1) => logged.to_owned(),
        ("", errno) => error_text(errno),
        (logged, errno) => format!("{logged} ({})", error_text(errno)),
    }
}
