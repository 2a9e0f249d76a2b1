//! Where DPDK takes its memory from: huge pages, or ordinary ones where those are not wanted or not there.

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
