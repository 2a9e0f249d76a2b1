//! A port that runs: how it is configured from what its device can do, and what control asks of it.

use std::sync::Arc;

use super::device::Capabilities;
use super::interface::Interface;
use super::{Device, Mempool, RxQueue, TxQueue, log, output, sys};

/// How a port shall run. Counts are wishes, bounded by the device; [`PortFeatures`] tells what came of them.
#[derive(Clone, Copy, Debug)]
pub struct PortSettings<'a> {
    /// the largest IP packet, in bytes
    pub mtu: u16,
    /// receive queues: one for each worker
    pub rx_queues: u16,
    /// transmit queues: one for each worker
    pub tx_queues: u16,
    /// descriptors of each receive queue
    pub rx_descriptors: u16,
    /// descriptors of each transmit queue
    pub tx_descriptors: u16,
    /// what the device shall spread received packets by, if it can
    pub rss: Option<Rss<'a>>,
    /// accept frames for any MAC address
    pub promiscuous: bool,
    /// With `net_af_packet`: have the kernel hand out frames as a wire carries them, neither merged by receive offload
    /// nor left uncut by the segmentation offload of a veth's peer, which do not fit a buffer and are lost. Costs about
    /// a tenth of a veth's rate; not needed where these offloads are off. The interface's receive offload is off
    /// meanwhile.
    pub wire_frames: bool,
    /// With `net_af_packet`: keep from the kernel's own stack what arrives, which it would route a second time.
    pub exclusive: bool,
}

/// Receive-side scaling as steering computes it.
#[derive(Clone, Copy, Debug)]
pub struct Rss<'a> {
    /// the Toeplitz key
    pub key: &'a [u8; 40],
    /// the queue for each value of the hash's low bits; a power of two of them
    pub queues: &'a [u16],
}

/// Why a port could not be started, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The MTU is out of range.
    #[error(
        "port on {device}: an MTU of {mtu} is more than its driver {driver} takes, {max} at most; lower it"
    )]
    Mtu {
        /// the device
        device: String,
        /// its driver
        driver: String,
        /// what was asked for
        mtu: u16,
        /// what it takes
        max: u16,
    },
    /// The interface behind a vdev carries less.
    #[error(
        "port on {device}: the interface {interface} has an MTU of {have}, less than {mtu}; `ip link set {interface} mtu \
         {mtu}` or lower the port's MTU"
    )]
    InterfaceMtu {
        /// the device
        device: String,
        /// the interface
        interface: String,
        /// its MTU
        have: u32,
        /// what was asked for
        mtu: u16,
    },
    /// Frames do not fit a buffer.
    #[error(
        "port on {device}: frames of an MTU of {mtu} do not fit packet buffers of {data_room} bytes; lower the MTU"
    )]
    DataRoom {
        /// the device
        device: String,
        /// what was asked for
        mtu: u16,
        /// the pool's
        data_room: u16,
    },
    /// DPDK refused a step.
    #[error("port on {device}: {step} failed: {reason}")]
    Step {
        /// the device
        device: String,
        /// what was tried
        step: &'static str,
        /// what DPDK said
        reason: String,
    },
}

/// What a running port does for us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortFeatures {
    /// receive queues
    pub rx_queues: u16,
    /// transmit queues
    pub tx_queues: u16,
    /// received packets are spread as steering computes it, and carry the hash
    pub rss: bool,
    /// a checksum asked for by `offload_checksum` is filled in
    pub tx_checksum: bool,
    /// received checksums are checked
    pub rx_checksum: bool,
    /// see [`Capabilities::partial_checksums`]
    pub partial_checksums: bool,
    /// frames of several segments may be sent
    pub tx_segments: bool,
    /// frames may be received in several segments
    pub rx_segments: bool,
}

/// What a device counted since its start. Packets of all queues; zero where a driver does not count.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PortStats {
    /// received
    pub rx_packets: u64,
    /// bytes of them
    pub rx_bytes: u64,
    /// lost because no worker fetched them in time
    pub rx_missed: u64,
    /// received damaged
    pub rx_errors: u64,
    /// not received for want of a packet buffer
    pub rx_no_buffer: u64,
    /// sent
    pub tx_packets: u64,
    /// bytes of them
    pub tx_bytes: u64,
    /// taken from us and not sent
    pub tx_errors: u64,
}

/// The state of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// whether there is one
    pub up: bool,
    /// its speed in Mbit/s, if the device knows
    pub speed_mbps: Option<u32>,
    /// whether both directions run at once
    pub full_duplex: bool,
}

/// A running port as control sees it.
pub struct Port {
    started: Arc<Started>,
    features: PortFeatures,
    mac: [u8; 6],
    mtu: u16,
}

/// A port and its queues, each to be taken by its one owner.
pub struct StartedPort {
    /// the control side
    pub port: Port,
    /// by index
    pub rx: Vec<RxQueue>,
    /// by index
    pub tx: Vec<TxQueue>,
}

/// A started device and the pool it receives into; the device goes first.
pub(super) struct Started {
    device: Device,
    _pool: Mempool,
}

impl Device {
    /// Configures the device and starts it; it receives into buffers of `pool`.
    ///
    /// Devices that spread received packets over a fixed number of queues get all of them, whatever was asked for.
    pub fn start(mut self, settings: &PortSettings<'_>, pool: &Mempool) -> Result<StartedPort, PortError> {
        let rss = settings
            .rss
            .filter(|rss| self.capabilities().rss && settings.rx_queues > 1 && !rss.queues.is_empty());
        if self.capabilities().driver == "net_af_packet"
            && let Some(interface) = &mut self.interface
        {
            if settings.wire_frames {
                interface.ask_for_wire_frames();
            }
            if settings.exclusive {
                interface.keep_from_kernel();
            }
        }
        let mut features = output::quietly(|| self.configure(settings, pool, rss))?;
        if let Some(rss) = rss
            && let Err(reason) = self.program_rss(&rss)
        {
            // Software steering does the same; a hash by another key must not be believed.
            tracing::info!(
                "{}: receive-side scaling cannot be programmed ({reason}); steering is done in software",
                self.name()
            );
            // SAFETY: the port is ours and has no queue yet.
            unsafe { sys::rte_eth_dev_stop(self.port) };
            features = self.configure(settings, pool, None)?;
        }
        self.accept_frames(settings.promiscuous);

        let mut mac = sys::rte_ether_addr::default();
        let mut mtu = settings.mtu;
        // SAFETY: the port is ours, both are written only.
        unsafe {
            sys::rte_eth_macaddr_get(self.port, &raw mut mac);
            sys::rte_eth_dev_get_mtu(self.port, &raw mut mtu);
        }
        let port = self.port;
        let started = Arc::new(Started { device: self, _pool: pool.clone() });
        let rx =
            (0..features.rx_queues).map(|queue| RxQueue::new(port, queue, Arc::clone(&started))).collect();
        let tx =
            (0..features.tx_queues).map(|queue| TxQueue::new(port, queue, Arc::clone(&started))).collect();
        Ok(StartedPort { port: Port { started, features, mac: mac.addr_bytes, mtu }, rx, tx })
    }

    /// Packet buffers that the device takes from the pool and holds while it runs with these settings: one for each
    /// descriptor, and what [`Device::frames_kept`] says.
    pub fn buffers_held(&self, settings: &PortSettings<'_>) -> u32 {
        let can = self.capabilities();
        let (rx, tx) = queues(can, settings.rx_queues, settings.tx_queues);
        // Its fill and completion rings have sizes of their own.
        let fixed = if can.driver == "net_af_xdp" { AF_XDP_BUFFERS } else { 0 };
        let per_rx = (u32::from(settings.rx_descriptors) + 1).max(fixed);
        let per_tx = u32::from(settings.tx_descriptors).max(fixed / 2);
        u32::from(rx) * per_rx + u32::from(tx) * per_tx + self.frames_kept()
    }

    fn configure(
        &self,
        settings: &PortSettings<'_>,
        pool: &Mempool,
        rss: Option<Rss<'_>>,
    ) -> Result<PortFeatures, PortError> {
        let can = self.capabilities();
        let info = self.info();
        self.check_sizes(settings, pool)?;
        let (rx_queues, tx_queues) = queues(can, settings.rx_queues, settings.tx_queues);
        let scatter = needs_scatter(settings.mtu, pool.data_room()) && can.rx_segments;

        let mut conf = sys::rte_eth_conf::default();
        conf.rxmode.mtu = u32::from(settings.mtu);
        conf.rxmode.mq_mode = if rss.is_some() { sys::MQ_RX_RSS } else { sys::MQ_RX_NONE };
        conf.rxmode.offloads = [
            (can.rx_checksum, sys::RX_OFFLOAD_TCP_CKSUM | sys::RX_OFFLOAD_UDP_CKSUM),
            (scatter, sys::RX_OFFLOAD_SCATTER),
            (rss.is_some(), info.rx_offload_capa & sys::RX_OFFLOAD_RSS_HASH),
        ]
        .iter()
        .filter(|&&(wanted, _)| wanted)
        .fold(0, |offloads, &(_, bits)| offloads | bits);
        conf.txmode.offloads = [
            (can.tx_checksum, sys::TX_OFFLOAD_TCP_CKSUM | sys::TX_OFFLOAD_UDP_CKSUM),
            (can.tx_segments, sys::TX_OFFLOAD_MULTI_SEGS),
            // All packets come from one pool with a reference count of 1.
            (true, info.tx_offload_capa & sys::TX_OFFLOAD_FAST_FREE),
        ]
        .iter()
        .filter(|&&(wanted, _)| wanted)
        .fold(0, |offloads, &(_, bits)| offloads | bits);
        if rss.is_some() {
            conf.rx_adv_conf.rss_conf.rss_hf = RSS_TYPES;
        }
        self.step("configuring it", || {
            // SAFETY: the port is ours; DPDK copies the configuration.
            unsafe { sys::rte_eth_dev_configure(self.port, rx_queues, tx_queues, &raw const conf) }
        })?;
        self.set_up_queues(settings, pool, &conf, rx_queues, tx_queues)?;
        self.set_mtu(settings.mtu)?;
        // SAFETY: the port is ours, configured and has its queues.
        self.step("starting it", || unsafe { sys::rte_eth_dev_start(self.port) })?;
        Ok(PortFeatures {
            rx_queues,
            tx_queues,
            rss: rss.is_some(),
            tx_checksum: can.tx_checksum,
            rx_checksum: can.rx_checksum,
            partial_checksums: can.partial_checksums,
            tx_segments: can.tx_segments,
            rx_segments: scatter,
        })
    }

    fn check_sizes(&self, settings: &PortSettings<'_>, pool: &Mempool) -> Result<(), PortError> {
        let can = self.capabilities();
        if settings.mtu > can.mtu_max {
            let (device, driver) = (self.name().to_owned(), can.driver.clone());
            return Err(PortError::Mtu { device, driver, mtu: settings.mtu, max: can.mtu_max });
        }
        if let Some(interface) = &self.interface
            && let Ok(have) = interface.mtu()
            && have < u32::from(settings.mtu)
        {
            let (device, interface) = (self.name().to_owned(), interface.name().to_owned());
            return Err(PortError::InterfaceMtu { device, interface, have, mtu: settings.mtu });
        }
        if needs_scatter(settings.mtu, pool.data_room()) && !can.rx_segments {
            let (device, data_room) = (self.name().to_owned(), pool.data_room());
            return Err(PortError::DataRoom { device, mtu: settings.mtu, data_room });
        }
        Ok(())
    }

    fn set_up_queues(
        &self,
        settings: &PortSettings<'_>,
        pool: &Mempool,
        conf: &sys::rte_eth_conf,
        rx_queues: u16,
        tx_queues: u16,
    ) -> Result<(), PortError> {
        let info = self.info();
        let (mut rx, mut tx) = (settings.rx_descriptors, settings.tx_descriptors);
        self.step("choosing its queue sizes", || {
            // SAFETY: the port is ours, both are read and written.
            unsafe { sys::rte_eth_dev_adjust_nb_rx_tx_desc(self.port, &raw mut rx, &raw mut tx) }
        })?;
        // SAFETY: the port is ours.
        let socket = unsafe { sys::rte_eth_dev_socket_id(self.port) } as u32;
        let mut rx_conf = info.default_rxconf;
        rx_conf.offloads = conf.rxmode.offloads;
        let mut tx_conf = info.default_txconf;
        tx_conf.offloads = conf.txmode.offloads;
        for queue in 0..rx_queues {
            self.step("setting up a receive queue", || {
                // SAFETY: the pool outlives the port (`Started`), DPDK copies the rest.
                unsafe {
                    sys::rte_eth_rx_queue_setup(
                        self.port,
                        queue,
                        rx,
                        socket,
                        &raw const rx_conf,
                        pool.as_ptr(),
                    )
                }
            })?;
        }
        for queue in 0..tx_queues {
            self.step("setting up a transmit queue", || {
                // SAFETY: DPDK copies what it needs.
                unsafe { sys::rte_eth_tx_queue_setup(self.port, queue, tx, socket, &raw const tx_conf) }
            })?;
        }
        Ok(())
    }

    /// Tells the interface that the device made for itself; all others are told by their configuration, and an
    /// interface that was there before is not ours to change.
    fn set_mtu(&self, mtu: u16) -> Result<(), PortError> {
        if self.capabilities().driver != "net_tap" {
            return Ok(());
        }
        // SAFETY: the port is ours and not started.
        self.step("setting its MTU", || unsafe { sys::rte_eth_dev_set_mtu(self.port, mtu) })
    }

    /// Gives the device the key and the table. The key is the same for all its packet types, so one read proves it.
    fn program_rss(&self, rss: &Rss<'_>) -> Result<(), String> {
        let info = self.info();
        // Longer keys than any tuple needs are padded: what lies behind byte 40 is never used.
        let mut key = vec![0; usize::from(info.hash_key_size)];
        key[..rss.key.len()].copy_from_slice(rss.key);
        let table =
            table(usize::from(info.reta_size), rss.queues).ok_or("its table is shorter than steering's")?;

        let mut conf =
            sys::rte_eth_rss_conf { rss_key: key.as_mut_ptr(), rss_hf: RSS_TYPES, ..Default::default() };
        conf.rss_key_len = info.hash_key_size;
        let update = || {
            // SAFETY: key and table live during the calls, with the sizes the device named.
            unsafe {
                let result = sys::rte_eth_dev_rss_hash_update(self.port, &raw mut conf);
                if result != 0 {
                    return result;
                }
                sys::rte_eth_dev_rss_reta_update(self.port, table.as_ptr().cast_mut(), info.reta_size)
            }
        };
        match log::explain(update) {
            (0, _) => Ok(()),
            (errno, reason) => Err(if reason.is_empty() { sys::error_text(errno) } else { reason }),
        }
    }

    /// Lets multicast in, which neighbour discovery comes by; all frames where that cannot be had apart.
    fn accept_frames(&self, promiscuous: bool) {
        log::explain(|| {
            // SAFETY: the port is ours.
            unsafe {
                let multicast = sys::rte_eth_allmulticast_enable(self.port);
                if promiscuous || multicast != 0 {
                    sys::rte_eth_promiscuous_enable(self.port);
                }
            }
        });
    }

    fn step(&self, step: &'static str, call: impl FnOnce() -> i32) -> Result<(), PortError> {
        let (result, reason) = log::explain(call);
        if result >= 0 {
            return Ok(());
        }
        Err(PortError::Step { device: self.name().to_owned(), step, reason: sys::refusal(&reason, result) })
    }
}

/// The packet types whose hash is over both addresses and both ports.
const RSS_TYPES: u64 = sys::RSS_IPV4_TCP | sys::RSS_IPV4_UDP | sys::RSS_IPV6_TCP | sys::RSS_IPV6_UDP;

/// `net_af_xdp` fills rings of 2048 and prepares as many again.
const AF_XDP_BUFFERS: u32 = 4096;

/// How many queues a device gets.
fn queues(can: &Capabilities, rx_wanted: u16, tx_wanted: u16) -> (u16, u16) {
    let mut rx = rx_wanted.clamp(1, can.rx_queues_max.max(1));
    let mut tx = tx_wanted.clamp(1, can.tx_queues_max.max(1));
    if can.rx_queues_fixed {
        rx = can.rx_queues_max.max(1);
    }
    // The first two refuse unequal counts; a ring gives on queue n what was sent on queue n.
    if matches!(can.driver.as_str(), "net_tap" | "net_af_xdp" | "net_ring") {
        let both = rx.max(tx).min(can.rx_queues_max).min(can.tx_queues_max);
        (rx, tx) = (both, both);
    }
    (rx, tx)
}

fn needs_scatter(mtu: u16, data_room: u16) -> bool {
    u32::from(mtu) + u32::from(sys::ETHER_OVERHEAD) + u32::from(sys::MBUF_HEADROOM) > u32::from(data_room)
}

/// A device's table that says what a shorter or equal one of ours says; `None` if ours does not repeat within it.
fn table(size: usize, queues: &[u16]) -> Option<Vec<sys::rte_eth_rss_reta_entry64>> {
    if (0..queues.len()).any(|i| queues[i] != queues[i % size]) {
        return None;
    }
    let group = sys::RETA_GROUP_SIZE as usize;
    let mut table = vec![sys::rte_eth_rss_reta_entry64::default(); size.div_ceil(group)];
    for i in 0..size {
        let entry = &mut table[i / group];
        entry.mask |= 1 << (i % group);
        entry.reta[i % group] = queues[i % queues.len()];
    }
    Some(table)
}

impl Port {
    /// The device's name in DPDK.
    pub fn name(&self) -> &str {
        self.started.device.name()
    }

    /// What the device can do.
    pub fn capabilities(&self) -> &Capabilities {
        self.started.device.capabilities()
    }

    /// What it does for us now.
    pub fn features(&self) -> PortFeatures {
        self.features
    }

    /// Its MAC address; of the interface behind it with `net_af_packet` and its like.
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// The largest IP packet it carries, in bytes.
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// The state of its link, without waiting.
    pub fn link(&self) -> Link {
        let mut link = sys::shim_link::default();
        // SAFETY: the port runs, the structure is ours; an error leaves it zero: down.
        unsafe { sys::shim_link(self.started.device.port, &raw mut link) };
        let known = !matches!(link.speed_mbps, 0 | u32::MAX);
        // `net_af_packet` calls its link up as long as it runs.
        let up = self.started.device.interface.as_ref().map_or(link.up != 0, Interface::is_running);
        Link { up, speed_mbps: known.then_some(link.speed_mbps), full_duplex: link.full_duplex != 0 }
    }

    /// What the device counted since its start.
    pub fn stats(&self) -> PortStats {
        let mut stats = sys::rte_eth_stats::default();
        // SAFETY: the port runs, the structure is ours; an error leaves it zero.
        unsafe { sys::rte_eth_stats_get(self.started.device.port, &raw mut stats) };
        PortStats {
            rx_packets: stats.ipackets,
            rx_bytes: stats.ibytes,
            rx_missed: stats.imissed,
            rx_errors: stats.ierrors,
            rx_no_buffer: stats.rx_nombuf,
            tx_packets: stats.opackets,
            tx_bytes: stats.obytes,
            tx_errors: stats.oerrors,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(driver: &str, rx: u16, tx: u16, fixed: bool) -> Capabilities {
        Capabilities {
            driver: driver.to_owned(),
            rx_queues_max: rx,
            tx_queues_max: tx,
            rx_queues_fixed: fixed,
            mtu_max: 1500,
            rss: false,
            tx_checksum: false,
            rx_checksum: false,
            partial_checksums: false,
            tx_segments: false,
            rx_segments: false,
            numa_socket: None,
        }
    }

    #[test]
    fn queues_are_bounded_by_the_device_and_fixed_ones_are_all_taken() {
        assert_eq!(queues(&device("net_ixgbe", 16, 16, false), 4, 4), (4, 4));
        assert_eq!(queues(&device("net_ixgbe", 2, 1, false), 4, 4), (2, 1));
        assert_eq!(queues(&device("net_af_packet", 4, 4, true), 2, 2), (4, 2));
        assert_eq!(queues(&device("net_tap", 16, 16, false), 2, 3), (3, 3));
        assert_eq!(queues(&device("net_pcap", 0, 0, true), 2, 2), (1, 1));
    }

    #[test]
    fn a_longer_table_repeats_ours_and_a_shorter_one_must_agree() {
        let ours = [0, 1, 0, 1];
        let long = table(128, &ours).expect("fits");
        assert_eq!(long.len(), 2);
        assert!(long.iter().all(|entry| entry.mask == u64::MAX));
        assert_eq!(long[1].reta[..4], ours);
        assert!(table(2, &ours).is_some());
        assert!(table(2, &[0, 1, 2, 3]).is_none());
    }

    #[test]
    fn scatter_is_for_frames_larger_than_a_buffer() {
        assert!(!needs_scatter(1500, 2176));
        assert!(needs_scatter(9000, 2176));
        assert!(!needs_scatter(9000, 9000 + 18 + 8 + 128));
    }
}
