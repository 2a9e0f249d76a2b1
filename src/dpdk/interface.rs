//! A network interface of the kernel that a vdev stands on, and what must be true of it meanwhile.
//!
//! `net_af_packet` hands out what the kernel would hand to a capture: receive offload merges segments into frames of
//! up to 64 KiB, and a veth's peer with segmentation offload never cut them. Such frames fit no buffer and no wire
//! behind us. So while we hold an interface its receive offload is off, and an XDP program that lets everything pass
//! sits on it, for which the kernel takes segmentation offload from a veth's peer. The program is held by a file
//! descriptor and goes with the process, however it ends.
//!
//! A capture takes nothing away: the kernel's own stack gets every frame too, finds that its destination is nobody here
//! and drops it. That is a look-up in its routes and a new route for each, on the core of whoever sends. Where the
//! interface is the gateway's alone, a second such program drops what arrives behind the capture.
//!
//! DPDK makes an interface promiscuous by its flag, which outlives the socket that asked for it: it is taken back here.

use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// One interface of this network namespace.
pub(super) struct Interface {
    name: String,
    request_name: [libc::c_char; libc::IFNAMSIZ],
    socket: OwnedFd,
    /// it was before it was ours
    promiscuous: bool,
    /// receive offload was on and must be put back
    receive_offload: bool,
    /// attached as long as they are open
    programs: Vec<OwnedFd>,
}

/// A BPF program of two instructions, "return this", and where it is attached.
struct Program {
    kind: u32,
    verdict: u32,
    hook: u32,
    flags: u32,
}

/// In the driver's own receive path: everything passes.
const PASS: Program =
    Program { kind: BPF_PROG_TYPE_XDP, verdict: XDP_PASS, hook: BPF_XDP, flags: XDP_FLAGS_DRV_MODE };
/// Behind the captures, before the stack: nothing passes.
const DROP: Program =
    Program { kind: BPF_PROG_TYPE_SCHED_CLS, verdict: TCX_DROP, hook: BPF_TCX_INGRESS, flags: 0 };

impl Interface {
    /// The interface of that name.
    pub(super) fn open(name: &str) -> Result<Interface, Errno> {
        let mut request_name = [0; libc::IFNAMSIZ];
        if name.is_empty() || name.len() >= request_name.len() {
            return Err(Errno::ENODEV);
        }
        for (to, from) in request_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        let mut opened = Interface {
            name: name.to_owned(),
            request_name,
            socket,
            promiscuous: false,
            receive_offload: false,
            programs: Vec::new(),
        };
        opened.promiscuous = opened.flags().is_ok_and(|flags| flags & libc::IFF_PROMISC != 0);
        Ok(opened)
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The largest IP packet it carries.
    pub(super) fn mtu(&self) -> Result<u32, Errno> {
        let mut request = self.request();
        self.ask(libc::SIOCGIFMTU, &mut request)?;
        // SAFETY: the kernel filled in this member.
        Ok(unsafe { request.ifr_ifru.ifru_mtu } as u32)
    }

    /// Whether it is up and has a carrier.
    pub(super) fn is_running(&self) -> bool {
        let both = libc::IFF_UP | libc::IFF_RUNNING;
        self.flags().is_ok_and(|flags| flags & both == both)
    }

    fn flags(&self) -> Result<libc::c_int, Errno> {
        let mut request = self.request();
        self.ask(libc::SIOCGIFFLAGS, &mut request)?;
        // SAFETY: the kernel filled in this member.
        Ok(unsafe { request.ifr_ifru.ifru_flags }.into())
    }

    fn set_flags(&self, flags: libc::c_int) -> Result<(), Errno> {
        let mut request = self.request();
        request.ifr_ifru.ifru_flags = flags as libc::c_short;
        self.ask(libc::SIOCSIFFLAGS, &mut request)
    }

    /// Makes the interface hand out frames as a wire carries them. What cannot be had is said and left.
    pub(super) fn ask_for_wire_frames(&mut self) {
        self.receive_offload = self.ethtool(ETHTOOL_GGRO, 0).unwrap_or(0) != 0;
        // Others do not hand us their peer's frames uncut, and a NIC may drop its link while it takes a program.
        if self.driver().is_ok_and(|driver| driver == "veth")
            && let Err(error) = self.attach(&PASS)
        {
            let name = &self.name;
            tracing::info!(
                "{name}: no XDP program can be attached ({error}); its peer needs `ethtool -K PEER tso off`"
            );
        }
        // After the program: a veth turns receive offload on for it.
        if let Err(error) = self.ethtool(ETHTOOL_SGRO, 0) {
            tracing::info!(
                "{0}: receive offload cannot be turned off ({error}); try `ethtool -K {0} gro off`",
                self.name
            );
        }
    }

    /// Lets nothing through to the kernel's own stack. What cannot be had is said and left.
    pub(super) fn keep_from_kernel(&mut self) {
        if let Err(error) = self.attach(&DROP) {
            let name = &self.name;
            tracing::info!(
                "{name}: the kernel's stack gets what arrives as well ({error}); keeping it away needs Linux 6.6"
            );
        }
    }

    fn request(&self) -> libc::ifreq {
        // SAFETY: all zero is a valid request.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        request.ifr_name = self.request_name;
        request
    }

    fn ask(&self, question: libc::c_ulong, request: &mut libc::ifreq) -> Result<(), Errno> {
        // SAFETY: the request is a whole ifreq, and what it points to outlives the call.
        Errno::result(unsafe { libc::ioctl(self.socket.as_raw_fd(), question as _, &raw mut *request) })
            .map(drop)
    }

    /// One of ethtool's commands that take or give one number.
    fn ethtool(&self, command: u32, data: u32) -> Result<u32, Errno> {
        let mut value = [command, data];
        let mut request = self.request();
        request.ifr_ifru.ifru_data = value.as_mut_ptr().cast();
        self.ask(SIOCETHTOOL, &mut request)?;
        Ok(value[1])
    }

    /// The name of its driver in the kernel.
    fn driver(&self) -> Result<String, Errno> {
        // struct ethtool_drvinfo: the command, then the driver's name in 32 bytes.
        let mut information = [0u32; 49];
        information[0] = ETHTOOL_GDRVINFO;
        let mut request = self.request();
        request.ifr_ifru.ifru_data = information.as_mut_ptr().cast();
        self.ask(SIOCETHTOOL, &mut request)?;
        let name: Vec<u8> = information[1..9].iter().flat_map(|word| word.to_ne_bytes()).collect();
        Ok(String::from_utf8_lossy(name.split(|&byte| byte == 0).next().unwrap_or_default()).into_owned())
    }

    /// Loads a program and links it to the interface.
    fn attach(&mut self, program: &Program) -> Result<(), Errno> {
        // r0 = verdict; exit
        let instructions: [u64; 2] = [u64::from(program.verdict) << 32 | 0xb7, 0x95];
        let licence = c"Apache-2.0";
        let load = ProgramLoad {
            kind: program.kind,
            instruction_count: instructions.len() as u32,
            instructions: instructions.as_ptr() as u64,
            licence: licence.as_ptr() as u64,
        };
        let loaded = bpf(BPF_PROG_LOAD, &load)?;
        let name = CString::new(self.name.as_str()).map_err(|_| Errno::ENODEV)?;
        let index = nix::net::if_::if_nametoindex(name.as_c_str())?;
        let link = LinkCreate {
            program: loaded.as_raw_fd(),
            interface: index,
            hook: program.hook,
            flags: program.flags,
        };
        self.programs.push(bpf(BPF_LINK_CREATE, &link)?);
        Ok(())
    }
}

impl Drop for Interface {
    fn drop(&mut self) {
        if self.receive_offload {
            let _ = self.ethtool(ETHTOOL_SGRO, 1);
        }
        if !self.promiscuous
            && let Ok(flags) = self.flags()
            && flags & libc::IFF_PROMISC != 0
        {
            let _ = self.set_flags(flags & !libc::IFF_PROMISC);
        }
    }
}

// linux/sockios.h, linux/ethtool.h
const SIOCETHTOOL: libc::c_ulong = 0x8946;
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GGRO: u32 = 0x2b;
const ETHTOOL_SGRO: u32 = 0x2c;

// linux/bpf.h, linux/if_link.h
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
const BPF_TCX_INGRESS: u32 = 46;
const TCX_DROP: u32 = 2;
const XDP_PASS: u32 = 2;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// The beginning of `union bpf_attr` for `BPF_PROG_LOAD`; the kernel takes what is missing as zero.
#[repr(C)]
struct ProgramLoad {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    licence: u64,
}

/// The beginning of `union bpf_attr` for `BPF_LINK_CREATE`.
#[repr(C)]
struct LinkCreate {
    program: RawFd,
    interface: u32,
    hook: u32,
    flags: u32,
}

fn bpf<T>(command: libc::c_int, attributes: &T) -> Result<OwnedFd, Errno> {
    // SAFETY: the attributes are plain numbers with their size, and what they point to outlives the call.
    let fd = Errno::result(unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>())
    })?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_runs_and_has_an_mtu() {
        let lo = Interface::open("lo").expect("every namespace has one");
        assert!(lo.mtu().expect("asked") > 0);
        assert_eq!(Interface::open("no-such-iface0").expect("a socket").mtu(), Err(Errno::ENODEV));
        assert!(Interface::open("a-name-longer-than-fifteen").is_err());
    }
}
