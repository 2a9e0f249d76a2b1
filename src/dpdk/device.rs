//! A device of DPDK before it is a port: found or made, taken once, and asked what it can do.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::PoisonError;

use super::interface::Interface;
use super::system::{self, CAP_IPC_LOCK, CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN, Capability};
use super::{Eal, log, output, sys};

/// Why a device cannot be had, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// Two ports name one device.
    #[error("device {0}: it is already in use by another port; give every port a device of its own")]
    Taken(String),
    /// Not a string C could take, or empty.
    #[error("device {0:?}: write a PCI address (\"0000:3b:00.0\") or a vdev (\"net_af_packet0,iface=eth1\")")]
    Malformed(String),
    /// No such PCI device.
    #[error("device {0}: there is no such PCI device; list them with `dpdk-devbind.py --status-dev net`")]
    NoPciDevice(String),
    /// The kernel has it.
    #[error(
        "device {address}: it is bound to the kernel driver {driver}; bind it to vfio-pci (`modprobe vfio-pci && \
         dpdk-devbind.py --bind=vfio-pci {address}`)"
    )]
    KernelDriver {
        /// its PCI address
        address: String,
        /// the driver that has it
        driver: String,
    },
    /// Nobody has it.
    #[error(
        "device {0}: it is bound to no driver; bind it to vfio-pci (`modprobe vfio-pci && dpdk-devbind.py \
         --bind=vfio-pci {0}`)"
    )]
    NoKernelDriver(String),
    /// A vdev on an interface that does not exist.
    #[error("device {device}: there is no network interface {interface}; `ip link` lists what there is")]
    NoInterface {
        /// the device
        device: String,
        /// the interface
        interface: String,
    },
    /// A vdev without the interface it needs.
    #[error("device {0}: it names no interface; write \"{0},iface=NAME\"")]
    InterfaceMissing(String),
    /// A vdev that reads a file that does not exist.
    #[error("device {device}: {path}: {error}")]
    NoFile {
        /// the device
        device: String,
        /// the file
        path: String,
        /// what the kernel said
        error: io::Error,
    },
    /// Not allowed.
    #[error("device {device}: it needs {}; run as root or grant it (systemd: AmbientCapabilities=)", .capability)]
    Privilege {
        /// the device
        device: String,
        /// what is missing
        capability: &'static str,
    },
    /// The driver is not installed or not known.
    #[error("device {device}: DPDK has no driver {driver}; {}", WHERE_DRIVERS_ARE)]
    NoDriver {
        /// the device
        device: String,
        /// the driver's name
        driver: String,
    },
    /// The driver refused.
    #[error("device {device}: its driver did not take it: {reason}")]
    Refused {
        /// the device
        device: String,
        /// what DPDK said
        reason: String,
    },
}

/// What to look at when a driver is missing.
const WHERE_DRIVERS_ARE: &str = if cfg!(dpdk_within) {
    "is it misspelt? fullnatd has those within that DPDK had when it was built, and loads others only if it was built \
     with FULLNAT_DPDK=shared"
} else {
    "is its package installed (Debian: librte-net-*)?"
};

/// What a device can do, asked before it is configured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Capabilities {
    /// the driver's name, such as `net_ixgbe`
    pub driver: String,
    /// receive queues at most
    pub rx_queues_max: u16,
    /// transmit queues at most
    pub tx_queues_max: u16,
    /// the device spreads over all its receive queues whatever is asked for, so all must be polled
    pub rx_queues_fixed: bool,
    /// the largest MTU
    pub mtu_max: u16,
    /// the device computes Toeplitz hashes with a key and a table of ours
    pub rss: bool,
    /// the device fills in TCP and UDP checksums
    pub tx_checksum: bool,
    /// the device checks TCP and UDP checksums
    pub rx_checksum: bool,
    /// Frames may come from a kernel of this machine over a veth, which leaves layer-4 checksums unfinished (the pseudo
    /// header's sum) because no wire follows.
    pub partial_checksums: bool,
    /// the device sends frames of several segments
    pub tx_segments: bool,
    /// the device receives a frame into several buffers
    pub rx_segments: bool,
    /// the NUMA node it is attached to
    pub numa_socket: Option<u32>,
}

/// A device, taken by its one owner; dropping it stops, closes and, if it was made here, removes it.
pub struct Device {
    pub(super) eal: Eal,
    pub(super) port: u16,
    name: String,
    capabilities: Capabilities,
    made_here: bool,
    frames_kept: u32,
    /// the kernel's interface behind it, which outlives the port
    pub(super) interface: Option<Interface>,
}

impl Device {
    /// Finds the PCI device or makes the vdev that the configuration names. PCI devices must have been named to
    /// [`Eal::init`] too.
    pub fn probe(eal: &Eal, device: &str) -> Result<Device, DeviceError> {
        let (name, arguments) = device.split_once(',').unwrap_or((device, ""));
        let pci = system::pci_address(name);
        let found_name = pci.clone().unwrap_or_else(|| name.to_owned());
        let malformed = || DeviceError::Malformed(device.to_owned());
        let c_name = CString::new(found_name.clone()).map_err(|_| malformed())?;
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(malformed());
        }

        let mut made_here = false;
        let mut port = find(&c_name);
        if port.is_none() {
            match &pci {
                Some(address) => check_pci(address)?,
                None => check_vdev(device, name, arguments)?,
            }
            make(device, name, pci.as_deref())?;
            made_here = true;
            port = find(&c_name);
        }
        let Some(port) = port else {
            let reason = "it made no network port".to_owned();
            return Err(DeviceError::Refused { device: found_name, reason });
        };
        if !eal.0.ports_taken.lock().unwrap_or_else(PoisonError::into_inner).insert(port) {
            return Err(DeviceError::Taken(found_name));
        }
        Ok(Device {
            eal: eal.clone(),
            port,
            name: found_name,
            capabilities: capabilities(port, &info(port), arguments),
            made_here,
            frames_kept: frames_kept(arguments),
            interface: argument(arguments, "iface")
                .filter(|_| name.starts_with("net_af_packet") || name.starts_with("net_af_xdp"))
                .and_then(|interface| Interface::open(interface).ok()),
        })
    }

    /// Its name in DPDK: the PCI address or the vdev's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it can do.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Packet buffers it takes from the pool for good: `net_pcap` with `infinite_rx` loads its whole file.
    pub fn frames_kept(&self) -> u32 {
        self.frames_kept
    }

    pub(super) fn info(&self) -> sys::rte_eth_dev_info {
        info(self.port)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let device = self.info().device;
        // libxdp prints what it thinks.
        let close = || {
            // SAFETY: nobody else holds this port (`ports_taken`), and its queues are gone: they hold this value.
            unsafe {
                sys::rte_eth_dev_stop(self.port);
                sys::rte_eth_dev_close(self.port);
                if self.made_here && !device.is_null() {
                    sys::rte_dev_remove(device);
                }
            }
        };
        output::quietly(|| log::explain(close));
        self.eal.0.ports_taken.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.port);
    }
}

fn find(name: &CStr) -> Option<u16> {
    let mut port = 0;
    // SAFETY: both live during the call.
    (unsafe { sys::rte_eth_dev_get_port_by_name(name.as_ptr(), &raw mut port) } == 0).then_some(port)
}

fn info(port: u16) -> sys::rte_eth_dev_info {
    let mut info = sys::rte_eth_dev_info::default();
    // SAFETY: the structure is ours; an error leaves it zero, which says: can do nothing.
    unsafe { sys::rte_eth_dev_info_get(port, &raw mut info) };
    info
}

fn make(device: &str, name: &str, pci: Option<&str>) -> Result<(), DeviceError> {
    let devargs = match (pci, device.split_once(',')) {
        (Some(address), Some((_, arguments))) => format!("{address},{arguments}"),
        (Some(address), None) => address.to_owned(),
        (None, _) => device.to_owned(),
    };
    let devargs = CString::new(devargs).map_err(|_| DeviceError::Malformed(device.to_owned()))?;
    // SAFETY: the string lives during the call; DPDK copies it.
    let (result, reason) = log::explain(|| unsafe { sys::rte_dev_probe(devargs.as_ptr()) });
    if result >= 0 {
        return Ok(());
    }
    let device = name.to_owned();
    let driver = name.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned();
    if pci.is_none() && (-result == nix::libc::ENOTSUP || reason.contains("failed to parse device")) {
        return Err(DeviceError::NoDriver { device, driver });
    }
    // What DPDK appends to every failure says nothing.
    let told: Vec<&str> = reason
        .split("; ")
        .filter(|line| !line.contains("Driver cannot attach") && !line.contains("Failed to attach device"))
        .collect();
    Err(DeviceError::Refused { device, reason: sys::refusal(&told.join("; "), result) })
}

/// Drivers that work beside the kernel's own: the NIC's kernel driver stays.
const VENDOR_MELLANOX: u64 = 0x15b3;
const VENDOR_MICROSOFT: u64 = 0x1414;

fn check_pci(address: &str) -> Result<(), DeviceError> {
    let Some(found) = system::pci_device(address) else {
        return Err(DeviceError::NoPciDevice(address.to_owned()));
    };
    match found.driver.as_deref() {
        Some("vfio-pci" | "uio_pci_generic" | "igb_uio") => {}
        _ if matches!(found.vendor, VENDOR_MELLANOX | VENDOR_MICROSOFT) => {}
        Some(driver) => {
            return Err(DeviceError::KernelDriver { address: address.to_owned(), driver: driver.to_owned() });
        }
        None => return Err(DeviceError::NoKernelDriver(address.to_owned())),
    }
    require(address, &[CAP_IPC_LOCK])
}

/// The value of one of a vdev's arguments.
fn argument<'a>(arguments: &'a str, key: &str) -> Option<&'a str> {
    arguments
        .split(',')
        .find_map(|pair| pair.split_once('=').filter(|&(k, _)| k == key).map(|(_, value)| value))
}

fn check_vdev(device: &str, name: &str, arguments: &str) -> Result<(), DeviceError> {
    let argument = |key: &str| {
        arguments
            .split(',')
            .find_map(|pair| pair.split_once('=').filter(|&(k, _)| k == key).map(|(_, value)| value))
    };
    let exists = |interface: &str| match system::interface_exists(interface) {
        true => Ok(()),
        false => Err(DeviceError::NoInterface { device: name.to_owned(), interface: interface.to_owned() }),
    };
    let is = |driver: &str| name.starts_with(driver);
    if is("net_af_packet") || is("net_af_xdp") {
        exists(argument("iface").ok_or_else(|| DeviceError::InterfaceMissing(device.to_owned()))?)?;
        // The interface is told its modes and its MAC address; libxdp asks for programs by their numbers.
        let wanted: &[Capability] = if is("net_af_xdp") {
            &[CAP_NET_RAW, CAP_NET_ADMIN, CAP_SYS_ADMIN]
        } else {
            &[CAP_NET_RAW, CAP_NET_ADMIN]
        };
        return require(name, wanted);
    }
    if is("net_tap") {
        if let Some(remote) = argument("remote") {
            exists(remote)?;
        }
        return require(name, &[CAP_NET_ADMIN]);
    }
    if is("net_pcap") {
        for key in ["iface", "rx_iface", "rx_iface_in", "tx_iface"] {
            if let Some(interface) = argument(key) {
                exists(interface)?;
                require(name, &[CAP_NET_RAW])?;
            }
        }
        if let Some(path) = argument("rx_pcap") {
            let no_file =
                |error| DeviceError::NoFile { device: name.to_owned(), path: path.to_owned(), error };
            File::open(path).map_err(no_file)?;
        }
    }
    Ok(())
}

fn require(device: &str, capabilities: &[Capability]) -> Result<(), DeviceError> {
    match capabilities.iter().find(|&&capability| !system::has_capability(capability)) {
        Some(missing) => Err(DeviceError::Privilege { device: device.to_owned(), capability: missing.name }),
        None => Ok(()),
    }
}

/// Drivers without hardware behind them. What they offer of RSS and checksums is done on our own core, if at all:
/// `net_null` accepts a hash key, `net_tap` reads every payload to verify it.
const SOFTWARE: &[&str] =
    &["net_af_packet", "net_af_xdp", "net_tap", "net_pcap", "net_ring", "net_null", "net_memif", "net_vhost"];

fn capabilities(port: u16, info: &sys::rte_eth_dev_info, arguments: &str) -> Capabilities {
    let driver = if info.driver_name.is_null() {
        String::new()
    } else {
        // SAFETY: a constant string of the driver.
        unsafe { CStr::from_ptr(info.driver_name) }.to_string_lossy().into_owned()
    };
    let is = |drivers: &[&str]| drivers.contains(&driver.as_str());
    let software = is(SOFTWARE);
    let all = |mask: u64, bits: u64| mask & bits == bits;
    let tuples = sys::RSS_IPV4_TCP | sys::RSS_IPV4_UDP | sys::RSS_IPV6_TCP | sys::RSS_IPV6_UDP;
    let rx_l4 = sys::RX_OFFLOAD_TCP_CKSUM | sys::RX_OFFLOAD_UDP_CKSUM;
    let tx_l4 = sys::TX_OFFLOAD_TCP_CKSUM | sys::TX_OFFLOAD_UDP_CKSUM;
    let on_interface = arguments.split(',').any(|argument| argument.contains("iface="));
    let mtu_by_frame = info.max_rx_pktlen.saturating_sub(u32::from(sys::ETHER_OVERHEAD)).min(65535) as u16;
    // A driver that says both knows its own overhead, and DPDK takes its word.
    let mtu_max = if info.max_mtu == u16::MAX { mtu_by_frame } else { info.max_mtu };
    // SAFETY: the port exists.
    let socket = unsafe { sys::rte_eth_dev_socket_id(port) };
    Capabilities {
        rx_queues_max: info.max_rx_queues,
        tx_queues_max: info.max_tx_queues,
        rx_queues_fixed: is(&["net_af_packet", "net_af_xdp", "net_pcap"]),
        mtu_max,
        rss: !software
            && info.reta_size > 0
            && info.max_rx_queues > 1
            && info.hash_key_size >= 40
            && all(info.flow_type_rss_offloads, tuples),
        tx_checksum: all(info.tx_offload_capa, tx_l4),
        // virtio reports the host's unfinished checksums as right; not asked, the host finishes them.
        rx_checksum: !software && !is(&["net_virtio", "net_virtio_user"]) && all(info.rx_offload_capa, rx_l4),
        // Not `net_tap`: it offers the kernel no offload, so the kernel finishes what it gives it.
        partial_checksums: is(&["net_af_packet", "net_af_xdp"]) || (driver == "net_pcap" && on_interface),
        tx_segments: info.tx_offload_capa & sys::TX_OFFLOAD_MULTI_SEGS != 0,
        rx_segments: info.rx_offload_capa & sys::RX_OFFLOAD_SCATTER != 0,
        numa_socket: u32::try_from(socket).ok(),
        driver,
    }
}

fn frames_kept(arguments: &str) -> u32 {
    if !arguments.split(',').any(|argument| argument == "infinite_rx=1") {
        return 0;
    }
    let files = arguments.split(',').filter_map(|argument| argument.strip_prefix("rx_pcap="));
    files.map(|path| pcap_frames(Path::new(path)).unwrap_or(0)).sum()
}

/// How many frames a capture file (classic format) holds: a walk over the records' headers.
fn pcap_frames(path: &Path) -> io::Result<u32> {
    let mut file = BufReader::new(File::open(path)?);
    let mut header = [0; 24];
    file.read_exact(&mut header)?;
    let swapped = match u32::from_le_bytes([header[0], header[1], header[2], header[3]]) {
        0xa1b2_c3d4 | 0xa1b2_3c4d => false,
        0xd4c3_b2a1 | 0x4d3c_b2a1 => true,
        _ => return Err(io::ErrorKind::InvalidData.into()),
    };
    let mut frames = 0;
    let mut record = [0; 16];
    while file.read_exact(&mut record).is_ok() {
        let captured = [record[8], record[9], record[10], record[11]];
        let captured = if swapped { u32::from_be_bytes(captured) } else { u32::from_le_bytes(captured) };
        file.seek_relative(i64::from(captured))?;
        frames += 1;
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn frames_of_a_capture_are_counted_in_both_byte_orders() {
        for swapped in [false, true] {
            let word = |value: u32| if swapped { value.to_be_bytes() } else { value.to_le_bytes() };
            let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
            file.write_all(&word(0xa1b2_c3d4)).expect("written");
            file.write_all(&[0; 20]).expect("written");
            for length in [60u32, 0, 1514] {
                file.write_all(&[0; 8]).expect("written");
                file.write_all(&word(length)).expect("written");
                file.write_all(&word(length)).expect("written");
                file.write_all(&vec![0; length as usize]).expect("written");
            }
            let device = format!("rx_pcap={},infinite_rx=1", file.path().display());
            assert_eq!(frames_kept(&device), 3);
            assert_eq!(frames_kept(&device.replace("infinite_rx=1", "infinite_rx=0")), 0);
        }
    }

    #[test]
    fn what_a_vdev_needs_is_looked_for_first() {
        let check = |device: &str| {
            let (name, arguments) = device.split_once(',').unwrap_or((device, ""));
            check_vdev(device, name, arguments).map_err(|error| error.to_string())
        };
        let sentence = check("net_af_packet0,iface=no-such-iface0").expect_err("no interface");
        assert!(sentence.contains("no-such-iface0"), "{sentence}");
        let sentence = check("net_af_xdp0").expect_err("no interface named");
        assert!(sentence.contains("iface=NAME"), "{sentence}");
        let sentence = check("net_pcap0,rx_pcap=/no/such/file").expect_err("no file");
        assert!(sentence.contains("/no/such/file"), "{sentence}");
        assert_eq!(check("net_ring0"), Ok(()));
    }

    #[test]
    fn a_pci_device_that_is_not_there_is_named() {
        let sentence = check_pci("ffff:ff:1f.7").expect_err("no device").to_string();
        assert!(sentence.contains("ffff:ff:1f.7") && sentence.contains("dpdk-devbind.py"), "{sentence}");
    }
}
