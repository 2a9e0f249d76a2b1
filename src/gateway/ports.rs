//! From configured ports to running ones, and who polls which queue.
//!
//! A worker polls the queue of its own number on every port. A device with fewer receive queues than workers is polled
//! by the first ones, which hand over what is not theirs; a device with more has them shared out. Where a worker has no
//! transmit queue, its frames leave through the worker that has one.

use std::sync::Arc;

use crate::config::buffers::{self, BufferDemand};
use crate::config::{Config, Port as PortConfig, Steering as SteeringMode};
use crate::control::view;
use crate::dpdk::{self, Device, Eal, Mempool, Port, PortSettings, Rss, RxQueue, StartedPort, TxQueue};
use crate::id::{PortId, WorkerId};
use crate::steering::Steering;
use crate::worker::TxPort;

use super::StartError;
use super::runtime::Dpdk;

// What is counted for `--check` is what DPDK takes.
const _: () = {
    assert!(buffers::BURST == dpdk::BURST_MAX as u32 && buffers::CACHE == dpdk::CACHE_SIZE);
    assert!(buffers::HEADROOM_BYTES == dpdk::HEADROOM && buffers::HEADER_BYTES == dpdk::BUFFER_HEADER);
};

/// The queues of one worker.
#[derive(Default)]
pub(super) struct Queues {
    pub rx: Vec<(PortId, RxQueue)>,
    pub tx: Vec<TxPort<Dpdk>>,
}

/// Opens all devices of a configuration and makes the pool that they receive into.
pub(super) fn open(eal: &Eal, config: &Config) -> Result<(Vec<Device>, Mempool), StartError> {
    let devices = config
        .ports
        .iter()
        .map(|port| Device::probe(eal, port.device.as_str()))
        .collect::<Result<Vec<_>, _>>()?;
    let mtu = config.ports.iter().map(|port| port.mtu).max().unwrap_or(1500);
    let held = |(port, device): (&PortConfig, &Device)| device.buffers_held(&settings(config, port, device));
    let in_devices = config.ports.iter().zip(&devices).map(held).sum();
    let count = config.dataplane.mbufs.unwrap_or_else(|| BufferDemand::of(config, in_devices).buffers());
    let socket = devices.iter().find_map(|device| device.capabilities().numa_socket);
    let pool = Mempool::create(eal, "fullnat", count, buffers::data_room(mtu), socket)?;
    Ok((devices, pool))
}

/// How a port shall run, but for receive-side scaling.
fn settings<'a>(config: &Config, port: &PortConfig, device: &Device) -> PortSettings<'a> {
    let wanted = port.queues.unwrap_or(config.dataplane.workers);
    PortSettings {
        mtu: port.mtu,
        rx_queues: wanted.min(device.capabilities().rx_queues_max).max(1),
        tx_queues: wanted,
        rx_descriptors: config.dataplane.rx_ring,
        tx_descriptors: config.dataplane.tx_ring,
        rss: None,
        promiscuous: port.promiscuous,
        wire_frames: port.wire_frames,
        exclusive: port.exclusive,
    }
}

/// Starts one port and shares out its queues.
pub(super) fn start(
    device: Device,
    config: &Config,
    port: &PortConfig,
    steering: &Steering,
    pool: &Mempool,
    queues: &mut [Queues],
) -> Result<Port, StartError> {
    let mut settings = settings(config, port, &device);
    let key = steering.key().first_chunk::<40>().expect("a key of 52 bytes");
    let spread: Vec<u16> = steering.reta().iter().map(|worker| worker.0 % settings.rx_queues).collect();
    if config.dataplane.steering == SteeringMode::Auto && settings.rx_queues > 1 {
        settings.rss = Some(Rss { key, queues: &spread });
    }
    let StartedPort { port: started, rx, tx } = device.start(&settings, pool)?;
    let workers = queues.len();
    for (index, queue) in rx.into_iter().enumerate() {
        queues[index % workers].rx.push((port.id, queue));
    }
    share_out(tx, queues);
    Ok(started)
}

fn share_out(tx: Vec<TxQueue>, queues: &mut [Queues]) {
    let owned = tx.len();
    let mut tx = tx.into_iter();
    for (worker, queues) in queues.iter_mut().enumerate() {
        queues.tx.push(match tx.next() {
            Some(queue) => TxPort::Queue(queue),
            None => TxPort::Via(WorkerId((worker % owned) as u16)),
        });
    }
}

/// What the devices say of themselves, for control.
pub(super) struct DeviceLinks {
    pub ports: Vec<Arc<Port>>,
    pub devices: Vec<String>,
}

impl crate::control::Links for DeviceLinks {
    fn link(&self, port: PortId) -> view::Link {
        let (device, port) = (&self.devices[port.index()], &self.ports[port.index()]);
        let dpdk::Link { up, speed_mbps, .. } = port.link();
        let (stats, features) = (port.stats(), port.features());
        view::Link {
            device: device.clone(),
            driver: port.capabilities().driver.clone(),
            up,
            speed_mbps,
            rx_queues: features.rx_queues,
            tx_queues: features.tx_queues,
            rx_missed: stats.rx_missed,
            rx_errors: stats.rx_errors,
            rx_no_buffer: stats.rx_no_buffer,
            tx_errors: stats.tx_errors,
        }
    }
}
