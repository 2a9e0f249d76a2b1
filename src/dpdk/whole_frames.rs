//! Keeps a local kernel from sending super-frames to a port on a veth pair.
//!
//! With segmentation offload a kernel hands 64-KiB "frames" to the other end of a veth pair, in the trust that hardware
//! will cut them up. A packet socket, `net_af_packet`, would receive them cut off. An interface with an XDP program is
//! not sent any: the kernel then takes the offload back from its peer (`veth_fix_features`, `drivers/net/veth.c`). So the
//! interface gets the smallest program there is, which lets every packet pass.

use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// `BPF_PROG_LOAD`, `BPF_LINK_CREATE` of `enum bpf_cmd`, `linux/bpf.h`.
const PROG_LOAD: libc::c_long = 5;
const LINK_CREATE: libc::c_long = 28;
/// `BPF_PROG_TYPE_XDP` and `BPF_XDP`.
const PROG_TYPE_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
/// `r0 = XDP_PASS; exit`.
const PASS: [u64; 2] = [0x0000_0002_0000_00b7, 0x0000_0000_0000_0095];

/// The program on one interface; dropping it takes the program away and the peer's offload comes back.
#[derive(Debug)]
pub struct WholeFrames {
    _link: OwnedFd,
}

/// The first fields of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    rest: [u64; 12],
}

/// The fields of `union bpf_attr` for `BPF_LINK_CREATE`.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
    rest: [u64; 6],
}

impl WholeFrames {
    /// Attaches the program to `interface` of this network namespace.
    ///
    /// # Errors
    /// What the kernel said; it needs CAP_BPF and CAP_NET_ADMIN and an interface that knows XDP.
    pub fn demand(interface: &str) -> std::io::Result<WholeFrames> {
        let name = CString::new(interface)?;
        // SAFETY: a string that ends with 0.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        if index == 0 {
            return Err(std::io::Error::last_os_error());
        }
        let license = c"Dual MIT/GPL";
        let load = ProgLoad {
            prog_type: PROG_TYPE_XDP,
            insn_cnt: PASS.len() as u32,
            insns: PASS.as_ptr() as u64,
            license: license.as_ptr() as u64,
            rest: [0; 12],
        };
        let program = bpf(PROG_LOAD, &load)?;
        let create = LinkCreate {
            prog_fd: program.as_raw_fd() as u32,
            target_ifindex: index,
            attach_type: ATTACH_XDP,
            flags: 0,
            rest: [0; 6],
        };
        Ok(WholeFrames { _link: bpf(LINK_CREATE, &create)? })
    }
}

/// One `bpf` call that gives a file descriptor.
fn bpf<T>(command: libc::c_long, attributes: &T) -> std::io::Result<OwnedFd> {
    // SAFETY: `attributes` is laid out as the command wants it, zero behind the fields that are set, and outlives the
    // call, as does what it points to.
    let fd = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>())
    };
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the kernel just made it and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
