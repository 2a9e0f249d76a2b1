//! The same worker on DPDK: ports that give back what they are given, buffers of a mempool with the thread's own cache.
//! DPDK starts once per process, so there is one test of it.

use fullnat::config::buffers::{BufferDemand, data_room};
use fullnat::dpdk::{Device, Eal, Mbuf, Mempool, PortSettings, WorkerThread, allowed_cores};
use fullnat::worker::PacketPool;

use crate::rig::{self, Seen};

const SETTINGS: PortSettings<'static> = PortSettings {
    mtu: 1500,
    rx_queues: 1,
    tx_queues: 1,
    rx_descriptors: 1024,
    tx_descriptors: 1024,
    rss: None,
    promiscuous: false,
    wire_frames: false,
    exclusive: false,
};

/// The worker between two rings.
pub fn run() -> Seen {
    let words = ["--no-huge", "-m", "128", "--no-shconf"].map(str::to_owned);
    let core = allowed_cores()[0];
    let eal = Eal::init(&words, core, &[]).expect("DPDK starts without hugepages");
    let devices = ["net_ring0", "net_ring1"].map(|name| Device::probe(&eal, name).expect("made"));
    let demand = BufferDemand {
        devices: devices.iter().map(|device| device.buffers_held(&SETTINGS)).sum(),
        workers: 1,
        ports: 2,
        hand_off: 2 * 1024,
        held: 1024,
    };
    let pool = Mempool::create(&eal, "packets", demand.buffers(), data_room(1500), None)
        .expect("128 MiB are enough");
    let mut ports = Vec::new();
    let queues = devices.map(|device| {
        let mut started = device.start(&SETTINGS, &pool).expect("it starts");
        let queues = (started.rx.remove(0), started.tx.remove(0));
        ports.push(started);
        queues
    });
    let thread = WorkerThread::enter(&eal, core).expect("the core is ours");
    let seen = rig::run(queues, || Buffers(pool.clone()));
    drop(thread);
    drop(ports);
    seen
}

struct Buffers(Mempool);

impl PacketPool for Buffers {
    type Packet = Mbuf;

    fn allocate(&mut self) -> Option<Mbuf> {
        self.0.allocate()
    }
}
