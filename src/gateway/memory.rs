//! Where DPDK takes its memory from: huge pages, or ordinary ones where those are not wanted or not there; and whether
//! there is enough of it.

use super::StartError;
use crate::config::{Config, Device, HugePages, Requirements};
use crate::dpdk;

/// MiB that DPDK needs besides packet buffers.
const OVERHEAD_MIB: u64 = 64;

/// EAL's arguments as configured, completed by what `dataplane.huge_pages` asks for. Devices that do DMA always get
/// huge pages; virtual ones do without if the machine has none.
pub(super) fn eal_arguments(config: &Config) -> Vec<String> {
    let configured = &config.dataplane.eal;
    let names = |option: &str| configured.iter().any(|argument| argument.split('=').next() == Some(option));
    let only_virtual = !config.ports.iter().any(|port| matches!(port.device, Device::Pci(_)));
    let without = match config.dataplane.huge_pages {
        HugePages::On => false,
        HugePages::Off => true,
        HugePages::Auto => only_virtual && !dpdk::huge_pages_are_reserved(),
    };
    if !without || names("--no-huge") {
        return configured.clone();
    }
    tracing::info!("packet memory comes from ordinary pages; reserve huge pages for more speed");
    // Memory without huge pages has no files in the first place.
    let mut arguments: Vec<String> =
        configured.iter().filter(|argument| *argument != "--in-memory").cloned().collect();
    arguments.push("--no-huge".to_owned());
    if !names("-m") && !names("--socket-mem") {
        let mib = Requirements::of(config).mbuf_bytes.div_ceil(1 << 20) + OVERHEAD_MIB;
        arguments.extend(["-m".to_owned(), mib.to_string()]);
    }
    arguments
}

/// Refuses what the machine cannot hold. The kernel would promise it: tables are mapped whole and, but for their
/// indices, filled by use, so that it came out with the first flood of sessions.
pub(super) fn check(config: &Config) -> Result<(), StartError> {
    let Some(left) = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| left(&text)) else {
        return Ok(());
    };
    let needed = Requirements::of(config).bytes;
    if needed <= left { Ok(()) } else { Err(StartError::Memory { needed: needed >> 20, left: left >> 20 }) }
}

/// Bytes that /proc/meminfo has for a new process, proc_meminfo(5): ordinary ones and free huge pages.
fn left(meminfo: &str) -> Option<u64> {
    let figure = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let huge_kib = figure("HugePages_Free").unwrap_or(0) * figure("Hugepagesize").unwrap_or(0);
    Some((figure("MemAvailable")? + huge_kib) << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_huge_pages_count_and_what_is_not_said_is_not_guessed() {
        let said = "MemTotal: 24684500 kB\nMemAvailable: 1000 kB\nHugePages_Total: 9\nHugePages_Free: 2\n\
                    Hugepagesize: 2048 kB\n";
        assert_eq!(left(said), Some((1000 + 2 * 2048) << 10));
        assert_eq!(left("MemAvailable: 1000 kB\n"), Some(1000 << 10));
        assert_eq!(left("MemTotal: 24684500 kB\n"), None);
    }
}
