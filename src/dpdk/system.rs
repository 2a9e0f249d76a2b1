//! What Linux says about hugepages, capabilities and devices: read before DPDK is asked, so that a missing thing is
//! named in one sentence and not guessed from an errno afterwards.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

/// Hugepages of one size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct HugePages {
    pub(super) size_kib: u64,
    pub(super) total: u64,
    pub(super) free: u64,
}

/// Whether the machine has any huge pages to give.
pub fn huge_pages_are_reserved() -> bool {
    huge_pages().iter().any(|pages| pages.free > 0)
}

/// The hugepages of every size the kernel knows.
pub(super) fn huge_pages() -> Vec<HugePages> {
    let Ok(directory) = fs::read_dir("/sys/kernel/mm/hugepages") else { return Vec::new() };
    directory
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let size_kib = name.to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            Some(HugePages {
                size_kib,
                total: number(&entry.path().join("nr_hugepages"))?,
                free: number(&entry.path().join("free_hugepages"))?,
            })
        })
        .collect()
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Where hugetlbfs is mounted.
pub(super) fn hugetlbfs_mounts() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            let (directory, kind) = (words.next()?, words.next()?);
            (kind == "hugetlbfs").then(|| PathBuf::from(directory))
        })
        .collect()
}

/// Capabilities by name and bit (`linux/capability.h`), as far as drivers need them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Capability {
    pub(super) name: &'static str,
    bit: u32,
}

pub(super) const CAP_NET_ADMIN: Capability = Capability { name: "CAP_NET_ADMIN", bit: 12 };
pub(super) const CAP_NET_RAW: Capability = Capability { name: "CAP_NET_RAW", bit: 13 };
pub(super) const CAP_IPC_LOCK: Capability = Capability { name: "CAP_IPC_LOCK", bit: 14 };
pub(super) const CAP_SYS_ADMIN: Capability = Capability { name: "CAP_SYS_ADMIN", bit: 21 };

/// Whether this process holds a capability now.
pub(super) fn has_capability(capability: Capability) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        // No answer is no reason to refuse: the driver will say.
        .is_none_or(|mask| mask & (1 << capability.bit) != 0)
}

/// What to do if memory could not be locked; nothing if this process may lock as much as it likes.
pub(super) fn memory_lock_advice() -> Option<String> {
    let (limit, _) = getrlimit(Resource::RLIMIT_MEMLOCK).ok()?;
    if has_capability(CAP_IPC_LOCK) || limit == RLIM_INFINITY {
        return None;
    }
    Some(format!(
        "it may lock {} MiB of memory at most: grant CAP_IPC_LOCK or raise that limit (ulimit -l, systemd: LimitMEMLOCK=)",
        limit >> 20
    ))
}

/// Whether a network interface of that name exists in this network namespace.
pub(super) fn interface_exists(name: &str) -> bool {
    nix::net::if_::if_nametoindex(name).is_ok()
}

/// A PCI address in its long form (`0000:3b:00.0`), or nothing if it is not one.
pub(super) fn pci_address(text: &str) -> Option<String> {
    let hex = |part: &str, digits: usize| part.len() == digits && part.bytes().all(|b| b.is_ascii_hexdigit());
    let (device, function) = text.rsplit_once('.')?;
    let mut parts = device.split(':').rev();
    let (slot, bus, domain) = (parts.next()?, parts.next()?, parts.next().unwrap_or("0000"));
    let well_formed = parts.next().is_none()
        && hex(slot, 2)
        && hex(bus, 2)
        && (4..=8).contains(&domain.len())
        && hex(domain, domain.len())
        && matches!(function.as_bytes(), [b'0'..=b'7']);
    well_formed.then(|| format!("{domain}:{bus}:{slot}.{function}").to_lowercase())
}

/// A PCI device as the kernel sees it.
pub(super) struct PciDevice {
    /// the kernel driver it is bound to
    pub(super) driver: Option<String>,
    /// the vendor's number
    pub(super) vendor: u64,
}

/// Looks a PCI device up by its long address.
pub(super) fn pci_device(address: &str) -> Option<PciDevice> {
    let directory = Path::new("/sys/bus/pci/devices").join(address);
    if !directory.exists() {
        return None;
    }
    let driver = fs::read_link(directory.join("driver"))
        .ok()
        .and_then(|link| link.file_name().map(|name| name.to_string_lossy().into_owned()));
    let vendor = fs::read_to_string(directory.join("vendor")).unwrap_or_default();
    let vendor = u64::from_str_radix(vendor.trim().trim_start_matches("0x"), 16).unwrap_or(0);
    Some(PciDevice { driver, vendor })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pci_addresses_are_told_from_vdevs() {
        assert_eq!(pci_address("0000:3B:00.0").as_deref(), Some("0000:3b:00.0"));
        assert_eq!(pci_address("3b:00.1").as_deref(), Some("0000:3b:00.1"));
        for other in
            ["net_af_packet0", "net_ring0", "3b:00.8", "00.0", "0:3b:00.0", "net:00:1.0", "1:2:3:4.0", ""]
        {
            assert_eq!(pci_address(other), None, "{other}");
        }
    }

    #[test]
    fn this_process_is_read_without_error() {
        let _ = (huge_pages(), hugetlbfs_mounts());
        assert!(interface_exists("lo"));
        assert!(!interface_exists("no-such-iface0"));
        assert!(pci_device("ffff:ff:1f.7").is_none());
    }
}
