//! Links: what ties a program to a cgroup and, pinned, outlives its loader.
//!
//! System calls that the loader crate does not offer: a link that is updated in place, one of an iterator over a map, one
//! of a getsockopt program that can be pinned. Safe functions outward; a [`Link`] closes its descriptor, which does not
//! undo it while it is pinned.
#![allow(unsafe_code)] // bpf(2) has no safe form; each block below says why it is sound

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// `enum bpf_cmd` of `linux/bpf.h`.
const OBJ_PIN: libc::c_int = 6;
const OBJ_GET: libc::c_int = 7;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const LINK_CREATE: libc::c_int = 28;
const LINK_UPDATE: libc::c_int = 29;
const LINK_DETACH: libc::c_int = 34;

/// Where a program hooks in: `enum bpf_attach_type`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Hook {
    /// `BPF_CGROUP_INET_INGRESS`
    Ingress = 0,
    /// `BPF_CGROUP_SOCK_OPS`
    SockOps = 3,
    /// `BPF_CGROUP_INET4_CONNECT`
    Connect4 = 10,
    /// `BPF_CGROUP_INET6_CONNECT`
    Connect6 = 11,
    /// `BPF_CGROUP_UDP4_SENDMSG`
    SendMsg4 = 14,
    /// `BPF_CGROUP_UDP4_RECVMSG`
    RecvMsg4 = 19,
    /// `BPF_CGROUP_UDP6_RECVMSG`
    RecvMsg6 = 20,
    /// `BPF_CGROUP_GETSOCKOPT`
    GetSockOpt = 21,
    /// `BPF_TRACE_ITER`
    Iterator = 28,
    /// `BPF_CGROUP_INET4_GETPEERNAME`
    GetPeerName4 = 29,
    /// `BPF_CGROUP_INET6_GETPEERNAME`
    GetPeerName6 = 30,
}

/// A link of a program; `struct bpf_link` of the kernel.
pub struct Link(OwnedFd);

/// Attributes of a command: plain numbers as `union bpf_attr` has them.
///
/// # Safety
/// Every field is a number, a live descriptor, or the address of memory that is valid for the length that stands beside it
/// (or up to its zero byte, where it is a path) until the call has returned; there is no padding.
unsafe trait Attributes {}

#[repr(C)]
struct PinAttributes {
    path: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
struct InfoAttributes {
    fd: u32,
    len: u32,
    info: u64,
}

#[repr(C)]
struct CreateAttributes {
    program: u32,
    target: u32,
    hook: u32,
    flags: u32,
    iterator: u64,
    iterator_len: u32,
    unused: u32,
}

#[repr(C)]
struct UpdateAttributes {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

#[repr(C)]
struct DetachAttributes {
    link: u32,
}

/// `struct bpf_link_info`, of a cgroup link; any number is one of its.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    padding: u32,
    cgroup: u64,
    hook: u32,
    rest: [u32; 25],
}

// SAFETY: made below only, with paths and buffers that live to the end of the function that makes them.
unsafe impl Attributes for PinAttributes {}
// SAFETY: as above.
unsafe impl Attributes for InfoAttributes {}
// SAFETY: as above.
unsafe impl Attributes for CreateAttributes {}
// SAFETY: numbers and descriptors only.
unsafe impl Attributes for UpdateAttributes {}
// SAFETY: a descriptor only.
unsafe impl Attributes for DetachAttributes {}

fn bpf<A: Attributes>(command: libc::c_int, attributes: &mut A) -> io::Result<libc::c_int> {
    // SAFETY: the attributes are a live structure of the length given; by their trait all that they point to is valid. The
    // kernel takes what it knows of the union and wants the rest to be zero, which it is for being absent.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<A>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as libc::c_int) }
}

fn bpf_fd<A: Attributes>(command: libc::c_int, attributes: &mut A) -> io::Result<OwnedFd> {
    let fd = bpf(command, attributes)?;
    // SAFETY: the commands that this is called for answer with a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd() as u32
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

impl Link {
    /// Ties a program to a cgroup; other programs there stay.
    pub fn to_cgroup(program: BorrowedFd<'_>, cgroup: BorrowedFd<'_>, hook: Hook) -> io::Result<Link> {
        create(number(program), number(cgroup), hook, 0, 0)
    }

    /// Ties an iterator to the map that it walks.
    pub fn over_map(program: BorrowedFd<'_>, map: BorrowedFd<'_>) -> io::Result<Link> {
        // `union bpf_iter_link_info`: the descriptor of the map
        let target = number(map);
        let address = std::ptr::from_ref(&target) as u64;
        create(number(program), 0, Hook::Iterator, address, size_of_val(&target) as u32)
    }

    /// The link that is pinned at a path.
    pub fn open(path: &Path) -> io::Result<Link> {
        let path = c_path(path)?;
        bpf_fd(OBJ_GET, &mut PinAttributes { path: path.as_ptr() as u64, fd: 0, flags: 0 }).map(Link)
    }

    /// Keeps it alive at a path of a bpf file system.
    pub fn pin(&self, path: &Path) -> io::Result<()> {
        let path = c_path(path)?;
        let fd = number(self.0.as_fd());
        bpf(OBJ_PIN, &mut PinAttributes { path: path.as_ptr() as u64, fd, flags: 0 }).map(drop)
    }

    /// Puts another program in the place of the one it has, at once.
    pub fn update(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        let link = number(self.0.as_fd());
        bpf(LINK_UPDATE, &mut UpdateAttributes { link, program: number(program), flags: 0, old_program: 0 })
            .map(drop)
    }

    /// Undoes it; the program has run for the last time when this returns.
    pub fn detach(&self) -> io::Result<()> {
        bpf(LINK_DETACH, &mut DetachAttributes { link: number(self.0.as_fd()) }).map(drop)
    }

    /// The id of the cgroup, which is the inode number of its directory; 0 when the cgroup is gone.
    pub fn cgroup_id(&self) -> io::Result<u64> {
        Ok(self.info()?.cgroup)
    }

    /// The id of the program that it ties.
    pub fn program_id(&self) -> io::Result<u32> {
        Ok(self.info()?.program)
    }

    fn info(&self) -> io::Result<LinkInfo> {
        let mut info = LinkInfo::default();
        let mut attributes = InfoAttributes {
            fd: number(self.0.as_fd()),
            len: size_of_val(&info) as u32,
            info: std::ptr::from_mut(&mut info) as u64,
        };
        bpf(OBJ_GET_INFO_BY_FD, &mut attributes)?;
        Ok(info)
    }
}

fn create(program: u32, target: u32, hook: Hook, iterator: u64, iterator_len: u32) -> io::Result<Link> {
    let hook = hook as u32;
    let mut attributes =
        CreateAttributes { program, target, hook, flags: 0, iterator, iterator_len, unused: 0 };
    bpf_fd(LINK_CREATE, &mut attributes).map(Link)
}
