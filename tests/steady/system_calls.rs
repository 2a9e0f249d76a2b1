//! Tells whether a thread calls the kernel: syscall user dispatch (Linux 5.11, x86-64), a signal for every system call
//! of the thread while a byte of its memory says so.
#![allow(unsafe_code)] // a signal handler and what the kernel gives it

use std::marker::PhantomData;
use std::sync::Once;
use std::sync::atomic::{AtomicI64, AtomicU8, Ordering};

use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

const ALLOW: u8 = 0;
const BLOCK: u8 = 1;
const NONE: i64 = -1;
/// `<linux/prctl.h>`
const PR_SET_SYSCALL_USER_DISPATCH: libc::c_int = 59;

thread_local! {
    /// What the kernel looks at when this thread calls it.
    static SELECTOR: AtomicU8 = const { AtomicU8::new(ALLOW) };
    /// The first call that was seen.
    static SEEN: AtomicI64 = const { AtomicI64::new(NONE) };
}

/// `siginfo_t` of a SIGSYS on 64-bit Linux; `libc` does not tell these fields.
#[repr(C)]
struct SystemCallInfo {
    signal: [libc::c_int; 4],
    address: *const libc::c_void,
    number: libc::c_int,
}

/// Notes the call, takes the watch off and has the call carried out.
extern "C" fn note(_: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    SELECTOR.with(|selector| selector.store(ALLOW, Ordering::Relaxed));
    // SAFETY: the kernel gives both to the handler of this signal.
    let number = unsafe { (*info.cast::<SystemCallInfo>()).number };
    SEEN.with(|seen| seen.store(number.into(), Ordering::Relaxed));
    // SAFETY: as above. The kernel has restored the registers as they were before the instruction `syscall`, which is
    // two bytes long, and stands behind it.
    unsafe {
        (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs[libc::REG_RIP as usize] -= 2;
    }
}

/// The watch on the calling thread; it stays there.
pub struct Watch(PhantomData<*const ()>);

impl Watch {
    /// Not looking yet.
    pub fn new() -> Watch {
        static HANDLER: Once = Once::new();
        HANDLER.call_once(|| {
            let action = SigAction::new(SigHandler::SigAction(note), SaFlags::SA_SIGINFO, SigSet::empty());
            // SAFETY: the handler only touches variables of its thread and what it is given.
            unsafe { sigaction(Signal::SIGSYS, &action) }.expect("a handler for SIGSYS");
        });
        dispatch(true);
        Watch(PhantomData)
    }

    /// Looks from now on.
    pub fn begin(&self) {
        SEEN.with(|seen| seen.store(NONE, Ordering::Relaxed));
        SELECTOR.with(|selector| selector.store(BLOCK, Ordering::Relaxed));
    }

    /// Looks no more; the number of the first call, if there was one.
    pub fn end(&self) -> Option<i64> {
        SELECTOR.with(|selector| selector.store(ALLOW, Ordering::Relaxed));
        Some(SEEN.with(|seen| seen.load(Ordering::Relaxed))).filter(|&number| number != NONE)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        dispatch(false);
    }
}

fn dispatch(on: bool) {
    let selector = SELECTOR.with(|selector| if on { selector.as_ptr() } else { std::ptr::null_mut() });
    // SAFETY: the kernel reads the byte at every system call of this thread until it is told to stop, which dropping the
    // watch does before the thread and its variables end.
    let done = unsafe { libc::prctl(PR_SET_SYSCALL_USER_DISPATCH, libc::c_int::from(on), 0, 0, selector) };
    assert_eq!(
        done,
        0,
        "syscall user dispatch needs Linux 5.11 on x86-64: {}",
        std::io::Error::last_os_error()
    );
}
