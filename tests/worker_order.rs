//! A worker whose devices are vectors: in which order it looks at what has reached it.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrayvec::ArrayVec;
use crossbeam_queue::ArrayQueue;
use fullnat::clock::Now;
use fullnat::config::{PortFacts, Slots, parse};
use fullnat::id::{PortId, WorkerId};
use fullnat::path::drop_reason::DropReason;
use fullnat::path::heap::HeapPacket;
use fullnat::path::neighbour::NeighbourConfig;
use fullnat::path::packet::HandOff;
use fullnat::path::{BURST, Engine, ShardConfig};
use fullnat::steering::Steering;
use fullnat::wire::{Protocol, Tuple};
use fullnat::worker::mailbox::mailbox;
use fullnat::worker::published::Published;
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
const MAC: [u8; 6] = [2, 0, 0, 0, 1, 0];
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
const VIP: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 100);

struct Vectors;

impl Runtime for Vectors {
    type Packet = HeapPacket;
    type Rx = Arrivals;
    type Tx = Nowhere;
    type Pool = Heap;
    type Clock = Standing;
}

/// Frames that arrive one a poll, each just after another worker has told something; then the worker is stopped.
struct Arrivals {
    coming: VecDeque<(HandOff<HeapPacket>, Vec<u8>)>,
    inbox: Ring<HeapPacket>,
    stop: Arc<AtomicBool>,
}

impl RxQueue for Arrivals {
    type Packet = HeapPacket;

    fn receive(&mut self, into: &mut ArrayVec<HeapPacket, BURST>) {
        let Some((told, frame)) = self.coming.pop_front() else {
            return self.stop.store(true, Ordering::Relaxed);
        };
        assert!(self.inbox.push(told).is_ok());
        into.push(HeapPacket::new(&frame));
    }
}

struct Nowhere;

impl TxQueue for Nowhere {
    type Packet = HeapPacket;

    fn send(&mut self, packets: &mut ArrayVec<HeapPacket, BURST>) {
        packets.clear();
    }
}

struct Heap;

impl PacketPool for Heap {
    type Packet = HeapPacket;

    fn allocate(&mut self) -> Option<HeapPacket> {
        Some(HeapPacket::new(&[]))
    }
}

#[derive(Clone, Copy)]
struct Standing;

impl Clock for Standing {
    fn now(&self) -> Now {
        Now { nanos: 1_000_000_000 }
    }
}

/// A TCP segment of the client with the ACK flag alone.
fn third_ack(cport: u16) -> Vec<u8> {
    let mut frame = [MAC, [2, 0, 0, 0, 0, 1]].concat();
    frame.extend([8, 0, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0]);
    frame.extend(CLIENT.octets().iter().chain(&VIP.octets()));
    let words = frame[14..34].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum = words.sum::<u32>();
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    frame.extend(cport.to_be_bytes().iter().chain(&80u16.to_be_bytes()));
    frame.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    frame
}

fn tuple(cport: u16) -> Tuple {
    Tuple {
        src: IpAddr::V4(CLIENT).into(),
        dst: IpAddr::V4(VIP).into(),
        sport: cport,
        dport: 80,
        protocol: Protocol::Tcp,
    }
}

/// The host of a session tells its home of it and sends the SYN on; the client's ACK, a consequence of that, reaches the
/// home after the note. Both may come between two polls, and the note must be read first all the same.
#[test]
fn a_note_is_read_before_the_packet_that_came_after_it() {
    let config = parse(CONFIG).unwrap_or_else(|error| panic!("{error}"));
    let steering = Arc::new(Steering::random(2, 128, [9; 32]).unwrap());
    let cport = (1024..).find(|port| steering.home(&tuple(*port)) == WorkerId(0)).unwrap();
    let facts = [PortFacts { mac: MAC, mtu: 1500, checksum_offload: false, partial_checksums: false }];
    let (snapshot, _) = Slots::new().apply(&config, &facts, steering).unwrap();
    let shard = ShardConfig {
        worker: WorkerId(0),
        workers: 2,
        sessions_max: 1024,
        huge_pages: false,
        lease_books_max: 16,
        destinations_max: 16,
        guests_max: 16,
        neighbours: NeighbourConfig { worker: WorkerId(0), workers: 2, ..NeighbourConfig::default() },
        seed: [1; 32],
        isn_secret: [3; 16],
    };
    let rings: Vec<Ring<HeapPacket>> = (0..2).map(|_| Arc::new(ArrayQueue::new(64))).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let told = HandOff::GuestBegan { inbound: tuple(cport), host: WorkerId(1) };
    let arrivals = Arrivals {
        coming: VecDeque::from([(told, third_ack(cport))]),
        inbox: rings[0].clone(),
        stop: stop.clone(),
    };
    let published = Arc::new(Published::new(1));
    let (_control, mailbox) = mailbox();
    let worker = Worker::<Vectors> {
        engine: Engine::new(&shard, Arc::new(snapshot), Standing.now()).unwrap(),
        rx: vec![(PortId(0), arrivals)],
        outlet: Outlet::new(vec![TxPort::Queue(Nowhere)], rings.clone(), Heap),
        inbox: rings[0].clone(),
        mailbox,
        published: published.clone(),
        clock: Standing,
        idle: IdlePolicy::Poll,
    };
    worker.run(&stop);
    assert_eq!(published.read().drops[DropReason::NoSession as usize], 0);
    let handed = std::iter::from_fn(|| rings[1].pop());
    assert_eq!(
        handed.filter(|item| matches!(item, HandOff::Packet { .. })).count(),
        1,
        "the ACK goes to the host"
    );
}
