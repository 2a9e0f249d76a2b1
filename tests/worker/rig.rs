//! One worker with vectors for devices: it polls what a test has laid ready and then stops.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrayvec::ArrayVec;
use crossbeam_queue::ArrayQueue;
use fullnat::clock::Now;
use fullnat::config::{PortFacts, Slots, parse};
use fullnat::id::{PortId, WorkerId};
use fullnat::path::heap::{HeapPacket, TestIo};
use fullnat::path::neighbour::NeighbourConfig;
use fullnat::path::packet::HandOff;
use fullnat::path::{BURST, Engine, ShardConfig};
use fullnat::steering::Steering;
use fullnat::worker::mailbox::mailbox;
use fullnat::worker::published::{Published, PublishedView};
use fullnat::worker::{
    Clock, IdlePolicy, Outlet, PacketPool, Ring, Runtime, RxQueue, TxPort, TxQueue, Worker,
};

const CONFIG: &str = r#"
[dataplane]
workers = 2
sessions_max = 2048
[[port]]
name = "wan"
device = "net_tap0"
addresses = ["10.1.0.254/24"]
[[local_pool]]
name = "pool"
port = "wan"
addresses = ["10.1.0.200"]
[[service]]
name = "web"
listen = "10.1.0.100:80"
protocol = "tcp"
scheduler = "rr"
local_pool = "pool"
[[service.real_server]]
address = "10.1.0.11:8080"
"#;

/// The MAC address of the only port.
pub const MAC: [u8; 6] = [2, 0, 0, 0, 1, 0];

struct Vectors;

impl Runtime for Vectors {
    type Packet = HeapPacket;
    type Rx = Arrivals;
    type Tx = Device;
    type Pool = Heap;
    type Clock = Standing;
}

/// What one poll finds: hand-offs that other workers made just before, and frames.
#[derive(Default)]
pub struct Poll {
    pub told: Vec<HandOff<HeapPacket>>,
    pub frames: Vec<Vec<u8>>,
}

/// What arrives, poll by poll; then the worker is stopped.
struct Arrivals {
    coming: VecDeque<Poll>,
    inbox: Ring<HeapPacket>,
    world: Rc<TestIo>,
    stop: Arc<AtomicBool>,
}

impl RxQueue for Arrivals {
    type Packet = HeapPacket;

    fn receive(&mut self, into: &mut ArrayVec<HeapPacket, BURST>) {
        let Some(poll) = self.coming.pop_front() else {
            return self.stop.store(true, Ordering::Relaxed);
        };
        for told in poll.told {
            assert!(self.inbox.push(told).is_ok());
        }
        into.extend(poll.frames.iter().map(|frame| self.world.receive(frame)));
    }
}

/// A device with room for so many packets, ever.
struct Device {
    room: usize,
    sent: Rc<RefCell<Vec<Vec<u8>>>>,
}

impl TxQueue for Device {
    type Packet = HeapPacket;

    fn send(&mut self, packets: &mut ArrayVec<HeapPacket, BURST>) {
        let taken = packets.len().min(self.room);
        self.room -= taken;
        self.sent.borrow_mut().extend(packets.drain(..taken).map(|packet| packet.frame()));
    }
}

struct Heap(Rc<TestIo>);

impl PacketPool for Heap {
    type Packet = HeapPacket;

    fn allocate(&mut self) -> Option<HeapPacket> {
        Some(self.0.receive(&[]))
    }
}

#[derive(Clone, Copy)]
struct Standing;

impl Clock for Standing {
    fn at(&self, _: u64) -> Now {
        Now { nanos: 1_000_000_000 }
    }
}

/// How a worker's packets leave.
pub enum Way {
    /// by a device with room for so many
    Device(usize),
    /// through the other worker, whose ring has room for so many
    Other(usize),
}

/// One worker of two.
pub struct Rig {
    worker: WorkerId,
    pub steering: Arc<Steering>,
    world: Rc<TestIo>,
}

/// What is seen of a worker when it has stopped.
pub struct Outcome {
    pub published: PublishedView,
    /// frames that the device took
    pub sent: Vec<Vec<u8>>,
    /// what lies in the other worker's ring
    pub ring: Vec<HandOff<HeapPacket>>,
    world: Rc<TestIo>,
}

impl Outcome {
    /// Buffers that somebody holds still.
    pub fn buffers_alive(&self) -> usize {
        self.world.buffers_alive()
    }
}

impl Rig {
    pub fn new(worker: u16) -> Rig {
        Rig {
            worker: WorkerId(worker),
            steering: Arc::new(Steering::random(2, 128, [9; 32]).unwrap()),
            world: Rc::new(TestIo::default()),
        }
    }

    /// A buffer of this world.
    pub fn buffer(&self, frame: &[u8]) -> HeapPacket {
        self.world.receive(frame)
    }

    /// Runs the worker until everything that comes has been looked at.
    pub fn run(self, way: Way, coming: impl IntoIterator<Item = Poll>) -> Outcome {
        let config = parse(CONFIG).unwrap_or_else(|error| panic!("{error}"));
        let facts = [PortFacts { mac: MAC, mtu: 1500, checksum_offload: false, partial_checksums: false }];
        let (snapshot, _) = Slots::new().apply(&config, &facts, self.steering).unwrap();
        let other = WorkerId(1 - self.worker.0);
        let room = |worker| match way {
            Way::Other(room) if worker == other => room,
            _ => 64,
        };
        let rings: Vec<Ring<HeapPacket>> =
            [0, 1].map(|worker| Arc::new(ArrayQueue::new(room(WorkerId(worker))))).into();
        let inbox = rings[self.worker.index()].clone();
        let sent = Rc::new(RefCell::new(Vec::new()));
        let port = match way {
            Way::Device(room) => TxPort::Queue(Device { room, sent: sent.clone() }),
            Way::Other(_) => TxPort::Via(other),
        };
        let stop = Arc::new(AtomicBool::new(false));
        let arrivals = Arrivals {
            coming: coming.into_iter().collect(),
            inbox: inbox.clone(),
            world: self.world.clone(),
            stop: stop.clone(),
        };
        let published = Arc::new(Published::new(1));
        let (_control, mailbox) = mailbox();
        let worker = Worker::<Vectors> {
            engine: Engine::new(&shard(self.worker), Arc::new(snapshot), Standing.at(0)).unwrap(),
            rx: vec![(PortId(0), arrivals)],
            outlet: Outlet::new(vec![port], rings.clone(), Heap(self.world.clone())),
            inbox,
            mailbox,
            published: published.clone(),
            clock: Standing,
            idle: IdlePolicy::Poll,
        };
        worker.run(&stop);
        Outcome {
            published: published.read(),
            sent: sent.take(),
            ring: std::iter::from_fn(|| rings[other.index()].pop()).collect(),
            world: self.world,
        }
    }
}

fn shard(worker: WorkerId) -> ShardConfig {
    ShardConfig {
        worker,
        workers: 2,
        sessions_max: 1024,
        huge_pages: false,
        lease_books_max: 16,
        destinations_max: 16,
        guests_max: 16,
        neighbours: NeighbourConfig { worker, workers: 2, ..NeighbourConfig::default() },
        seed: [1; 32],
        isn_secret: [3; 16],
    }
}
