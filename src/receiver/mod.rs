//! The real server's side of TOA: eBPF programs that make unmodified servers see the client, and their loader.
//!
//! `ffi/toa.bpf.c` and, for UDP by request, `ffi/uoa.bpf.c` are what runs in the kernel; here it is loaded, attached to a
//! cgroup and asked what it did. Nothing of the gateway is used: `fullnat-toa` runs on real servers, without DPDK.
//!
//! ```text
//! bpffs, /sys/fs/bpf/fullnat-toa           what keeps it alive when the loader has ended
//!   clients    per socket: the client      trusted    who may name one          counters   what happened
//!   established  getpeername4  getpeername6  [getsockopt]     links: program -> cgroup
//!   [udp_arrives  recvmsg4  recvmsg6  sendmsg4  connect4  connect6]
//!   [udp_clients  udp_gateways]                               sessions of UDP: the client, the way back to it
//!   [connections]                                             an iterator: reading the file lists the connections
//! ```
//! Maps outlive a program that replaces another, links are updated in place: a new version takes over without a
//! connection that shows the gateway in between. `sys` holds the only unsafe code, system calls that the loader crate does
//! not offer.

mod attach;
mod layout;
mod object;
mod place;
mod status;
mod sys;
mod trust;

pub use attach::{Attached, attach, detach};
pub use layout::{Connection, Counts};
pub use place::{PIN_DEFAULT, Place};
pub use status::{Cost, Status, connections, status};
pub use trust::{Prefix, Trust};

use std::path::PathBuf;
use std::time::Duration;

/// What is attached only by request, because it costs something whether it is of use or not.
#[derive(Clone, Copy, Default, Debug)]
pub struct Extras {
    /// answers `getsockopt(IPPROTO_IP, 4096)`; every getsockopt of the cgroup passes it
    pub look_up: bool,
    /// UDP servers see the client too, and every datagram of the cgroup passes the programs; for how long a session may
    /// be silent and still be who it was
    pub udp_idle: Option<Duration>,
}

/// Why the receiver could not be attached, asked or taken away.
#[derive(Debug, thiserror::Error)]
pub enum ReceiverError {
    /// the build had no compiler for the programs
    #[error(
        "this fullnat-toa was built without its programs, because clang could not compile them: build it again where \
         clang, libbpf-dev and linux-libc-dev are installed"
    )]
    NotCompiled,
    /// not enough rights
    #[error("{0} is missing: run as root, or with CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN")]
    NotAllowed(&'static str),
    /// no cgroup v2 hierarchy
    #[error(
        "no cgroup2 file system is mounted: mount -t cgroup2 none /sys/fs/cgroup, or boot with cgroup v2"
    )]
    NoCgroup2,
    /// the given directory is none
    #[error("{0} is not a cgroup of the cgroup2 hierarchy: name a directory below it with --cgroup")]
    NotCgroup2(PathBuf),
    /// links have no place to be pinned
    #[error(
        "{0} is not on a bpf file system: mount -t bpf bpf /sys/fs/bpf, or name another place with --pin"
    )]
    NoBpffs(PathBuf),
    /// an older kernel than the programs need
    #[error(
        "this kernel is {release}, and the receiver needs Linux 5.10 or later (TCP options in sockops programs, \
         getpeername hooks): use the toa kernel module there"
    )]
    KernelTooOld {
        /// of the running kernel
        release: String,
    },
    /// the kernel is young enough by its number, and refused
    #[error(
        "this kernel ({release}) refused the programs, perhaps for want of CONFIG_BPF_SYSCALL, CONFIG_CGROUP_BPF or \
         CONFIG_INET: {reason}"
    )]
    Refused {
        /// of the running kernel
        release: String,
        /// what it said
        reason: String,
    },
    /// it took those for TCP
    #[error(
        "this kernel ({release}) refused the programs for UDP, perhaps for want of CONFIG_CGROUP_BPF or of a helper: \
         attach without --udp, or update the kernel: {reason}"
    )]
    RefusedUdp {
        /// of the running kernel
        release: String,
        /// what it said
        reason: String,
    },
    /// another place than before
    #[error("the receiver is attached to {0}: detach it there first")]
    AttachedElsewhere(String),
    /// a directory that somebody else uses
    #[error(
        "{0} was not pinned by this fullnat-toa: name a directory of its own with --pin, or take it away with the program \
         that pinned it"
    )]
    Foreign(PathBuf),
    /// nothing to ask or to take away
    #[error("the receiver is not attached: nothing is pinned at {0}")]
    NotAttached(PathBuf),
    /// the listing of connections needs the kernel's type information
    #[error(
        "this kernel cannot list the connections: it has no iterator for them or no /sys/kernel/btf/vmlinux"
    )]
    NoListing,
    /// a prefix list that is too long
    #[error("{0} prefixes are more than the 1024 that can be trusted: join some")]
    TooManyPrefixes(usize),
    /// something that should not fail did
    #[error("{what}: {reason}")]
    System {
        /// what was tried
        what: String,
        /// what the system said
        reason: String,
    },
}

impl ReceiverError {
    /// For `map_err`: a step that failed, with what the system said.
    fn at<E: std::fmt::Display>(what: impl Into<String>) -> impl FnOnce(E) -> ReceiverError {
        let what = what.into();
        move |reason| ReceiverError::System { what, reason: reason.to_string() }
    }

    /// Whether it is the machine that lacks something, and not the command.
    pub fn is_of_the_machine(&self) -> bool {
        use ReceiverError::*;
        matches!(
            self,
            NotCompiled
                | NotAllowed(_)
                | NoCgroup2
                | NoBpffs(_)
                | KernelTooOld { .. }
                | Refused { .. }
                | RefusedUdp { .. }
                | NoListing
        )
    }
}
