//! One worker of two with everything around it, over any runtime's buffers and queues.
//!
//! What the worker sends on a port comes back on that port, as of a ring, and is made the others' answer on the way.
//! Every other answer of a real server is received by the other worker and handed over. Time goes by turns, so that a
//! thread that has to wait for its processor misses nothing.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrayvec::ArrayVec;
use crossbeam_queue::ArrayQueue;
use fullnat::clock::{Now, Tick};
use fullnat::config::{PortFacts, Slots, parse};
use fullnat::id::{PortId, WorkerId};
use fullnat::path::neighbour::NeighbourConfig;
use fullnat::path::packet::{HandOff, Packet};
use fullnat::path::{BURST, Engine, ShardConfig};
use fullnat::steering::Steering;
use fullnat::worker::mailbox::mailbox;
use fullnat::worker::published::{Published, PublishedView};
use fullnat::worker::{
    Clock, IdlePolicy, Outlet, PacketPool, Ring, Runtime, RxQueue, TxPort, TxQueue, Worker,
};

use crate::others::{CONFIG, LAN, MACS, WAN, answer, first_packet};
use crate::{allocations, system_calls};

/// Turns before the watches are set: everything that has a time-out has been through it.
const WARM_UP: u64 = 3_000;
/// Turns under the watches.
const WATCHED: u64 = 8_000;
/// Time that passes with each turn.
const TURN_NANOS: u64 = 1_000_000;
/// One turn of so many finds nothing.
const IDLE_EVERY: u64 = 16;
/// New sessions fill a burst that has fewer answers in it.
const FILL: usize = BURST / 2;

/// What was seen under the watches.
pub struct Seen {
    /// the worker's counters at their beginning and end
    pub published: [PublishedView; 2],
    pub allocations: u64,
    pub system_call: Option<i64>,
}

/// Runs a worker over `queues`, those of the wan and the lan.
pub fn run<Q, T, B>(queues: [(Q, T); 2], buffers: impl Fn() -> B) -> Seen
where
    Q: RxQueue,
    T: TxQueue<Packet = Q::Packet>,
    B: PacketPool<Packet = Q::Packet>,
{
    let steering = Arc::new(Steering::random(2, 128, [9; 32]).expect("a random key is good"));
    let config = parse(CONFIG).unwrap_or_else(|error| panic!("{error}"));
    let facts =
        MACS.map(|mac| PortFacts { mac, mtu: 1500, checksum_offload: false, partial_checksums: false });
    let (snapshot, _) = Slots::new().apply(&config, &facts, steering).expect("a sound configuration");
    let rings: Vec<Ring<Q::Packet>> = (0..2).map(|_| Arc::new(ArrayQueue::new(1024))).collect();
    let published = Arc::new(Published::new(2));
    let (_control, mailbox) = mailbox();
    let course = Rc::new(Course {
        turn: Cell::new(0),
        stop: AtomicBool::new(false),
        watch: system_calls::Watch::new(),
        published: published.clone(),
        seen: RefCell::new((Vec::new(), 0, None)),
    });
    let [wan, lan] = queues;
    let arrivals = |port, queue| {
        let (course, rings, buffers) = (course.clone(), rings.clone(), buffers());
        (port, Arrivals { port, queue, buffers, course, rings, sessions: 0, answers: 0 })
    };
    let clock = Turns(course.clone());
    let worker = Worker::<Rig<Q, T, B>> {
        engine: Engine::new(&shard(), Arc::new(snapshot), clock.at(0)).expect("memory for the shard"),
        rx: vec![arrivals(WAN, wan.0), arrivals(LAN, lan.0)],
        outlet: Outlet::new(vec![TxPort::Queue(wan.1), TxPort::Queue(lan.1)], rings.clone(), buffers()),
        inbox: rings[0].clone(),
        mailbox,
        published,
        clock,
        idle: IdlePolicy::Poll,
    };
    worker.run(&course.stop);
    // Frames on their way go home before their pool does.
    rings.iter().for_each(|ring| while ring.pop().is_some() {});
    let (published, allocations, system_call) = course.seen.take();
    let published = published.try_into().expect("the beginning and the end");
    Seen { published, allocations, system_call }
}

fn shard() -> ShardConfig {
    let worker = WorkerId(0);
    let neighbours = NeighbourConfig {
        worker,
        workers: 2,
        reachable_ticks: Tick::PER_SECOND,
        ..NeighbourConfig::default()
    };
    ShardConfig {
        worker,
        workers: 2,
        sessions_max: 65_536,
        huge_pages: false,
        lease_books_max: 64,
        destinations_max: 64,
        guests_max: 64,
        neighbours,
        seed: [1; 32],
        isn_secret: [3; 16],
    }
}

struct Rig<Q, T, B>(std::marker::PhantomData<(Q, T, B)>);

impl<Q: RxQueue, T: TxQueue<Packet = Q::Packet>, B: PacketPool<Packet = Q::Packet>> Runtime for Rig<Q, T, B> {
    type Packet = Q::Packet;
    type Rx = Arrivals<Q, B>;
    type Tx = T;
    type Pool = B;
    type Clock = Turns;
}

/// How far the worker has come, and what the watches saw.
struct Course {
    turn: Cell<u64>,
    stop: AtomicBool,
    watch: system_calls::Watch,
    published: Arc<Published>,
    seen: RefCell<(Vec<PublishedView>, u64, Option<i64>)>,
}

impl Course {
    /// Called once in each turn.
    fn next(&self) {
        let turn = self.turn.get() + 1;
        self.turn.set(turn);
        if turn == WARM_UP {
            self.seen.borrow_mut().0.push(self.published.read());
            allocations::watch();
            self.watch.begin();
        } else if turn == WARM_UP + WATCHED {
            let system_call = self.watch.end();
            let allocations = allocations::end();
            let mut seen = self.seen.borrow_mut();
            seen.0.push(self.published.read());
            (seen.1, seen.2) = (allocations, system_call);
            self.stop.store(true, Ordering::Relaxed);
        }
    }

    fn is_idle(&self) -> bool {
        self.turn.get().is_multiple_of(IDLE_EVERY)
    }
}

#[derive(Clone)]
struct Turns(Rc<Course>);

impl Clock for Turns {
    fn at(&self, _: u64) -> Now {
        Now { nanos: 1_000_000_000 + self.0.turn.get() * TURN_NANOS }
    }
}

/// A port's queue behind which the others are.
struct Arrivals<Q: RxQueue, B> {
    port: PortId,
    queue: Q,
    buffers: B,
    course: Rc<Course>,
    /// of both workers
    rings: Vec<Ring<Q::Packet>>,
    /// begun by clients
    sessions: u32,
    /// given by real servers
    answers: u32,
}

impl<Q: RxQueue, B: PacketPool<Packet = Q::Packet>> RxQueue for Arrivals<Q, B> {
    type Packet = Q::Packet;

    fn receive(&mut self, into: &mut ArrayVec<Q::Packet, BURST>) {
        if self.port == WAN {
            self.course.next();
        }
        if self.course.is_idle() {
            return;
        }
        self.queue.receive(into);
        let mut sent = std::mem::take(into);
        for mut packet in sent.drain(..) {
            if answer(&mut packet, self.port) {
                self.answered(packet, into);
            }
        }
        if self.port == WAN {
            self.begin_sessions(into);
            // The other worker takes what it is given and sends nothing.
            while self.rings[1].pop().is_some() {}
        }
    }
}

impl<Q: RxQueue, B: PacketPool<Packet = Q::Packet>> Arrivals<Q, B> {
    fn answered(&mut self, packet: Q::Packet, into: &mut ArrayVec<Q::Packet, BURST>) {
        self.answers = self.answers.wrapping_add(1);
        // Neighbours' messages are for everybody.
        let flow = packet.head()[12..14] != [8, 6] && packet.head()[20] != 58;
        if self.port == LAN && flow && self.answers.is_multiple_of(2) {
            // A full ring drops it, as a full ring does.
            let _ = self.rings[0].push(HandOff::Packet { port: LAN, packet, hops: 0 });
        } else {
            into.push(packet);
        }
    }

    fn begin_sessions(&mut self, into: &mut ArrayVec<Q::Packet, BURST>) {
        while into.len() < FILL {
            let Some(mut packet) = self.buffers.allocate() else { break };
            first_packet(&mut packet, self.sessions);
            self.sessions = self.sessions.wrapping_add(1);
            into.push(packet);
        }
    }
}
