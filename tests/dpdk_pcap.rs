//! Frames through real DPDK without hardware, hugepages or privileges: read from a capture file, given new headers,
//! written to another; and the accounting of packet buffers on the way. DPDK starts once per process, so this file is
//! one test.
#![cfg(feature = "dpdk")]

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use arrayvec::ArrayVec;
use fullnat::config::buffers::{BufferDemand, data_room};
use fullnat::dpdk::{
    BURST_MAX, Clock, Device, DeviceError, Eal, EalError, Mbuf, Mempool, PortError, PortSettings, Rss,
    WorkerThread, allowed_cores,
};
use fullnat::path::packet::{ChecksumOffload, Packet, ReceivedChecksum};
use fullnat::wire::Protocol;
use pcap_file::pcap::{PcapPacket, PcapReader, PcapWriter};

const SETTINGS: PortSettings<'static> = PortSettings {
    mtu: 1500,
    rx_queues: 1,
    tx_queues: 1,
    rx_descriptors: 256,
    tx_descriptors: 256,
    rss: None,
    promiscuous: false,
    wire_frames: false,
    exclusive: false,
};

fn write_capture(path: &Path, frames: &[Vec<u8>]) {
    let mut writer = PcapWriter::new(File::create(path).expect("created")).expect("header written");
    for frame in frames {
        let packet = PcapPacket::new(Duration::ZERO, frame.len() as u32, frame);
        writer.write_packet(&packet).expect("written");
    }
}

fn read_capture(path: &Path) -> Vec<Vec<u8>> {
    let mut reader = PcapReader::new(File::open(path).expect("opened")).expect("header read");
    let mut frames = Vec::new();
    while let Some(packet) = reader.next_packet() {
        frames.push(packet.expect("read").data.into_owned());
    }
    frames
}

/// Frames of many lengths; the longest lies in several segments when buffers are small.
fn frames() -> Vec<Vec<u8>> {
    (0..100usize).map(|i| (0..60 + i * 14).map(|byte| (byte * 7 + i) as u8).collect()).collect()
}

#[test]
fn frames_pass_from_file_to_file_and_every_buffer_comes_home() {
    let directory = tempfile::tempdir().expect("a directory");
    let (input, output) = (directory.path().join("in.pcap"), directory.path().join("out.pcap"));
    let frames = frames();
    write_capture(&input, &frames);

    let words = ["--no-huge", "-m", "128", "--no-shconf"].map(str::to_owned);
    let core = allowed_cores()[0];
    let eal = Eal::init(&words, core, &[]).expect("DPDK starts without hugepages");
    assert!(!eal.has_hugepages());
    assert!(matches!(Eal::init(&words, core, &[]), Err(EalError::Started)));

    let file_to_file = format!("net_pcap0,rx_pcap={},tx_pcap={}", input.display(), output.display());
    let device = Device::probe(&eal, &file_to_file).expect("the files are there");
    assert!(matches!(Device::probe(&eal, "net_pcap0"), Err(DeviceError::Taken(_))));
    assert!(matches!(Device::probe(&eal, "net_nothing0"), Err(DeviceError::NoDriver { .. })));

    let demand =
        BufferDemand { devices: device.buffers_held(&SETTINGS), workers: 1, ports: 1, hand_off: 0, held: 0 };
    // Small buffers: long frames come in segments.
    let pool =
        Mempool::create(&eal, "packets", demand.buffers(), 128 + 512, None).expect("128 MiB are enough");
    assert_eq!(pool.available(), pool.count());
    assert!(matches!(
        Device::probe(&eal, "net_null0").map(|null| null.start(&SETTINGS, &pool)),
        Ok(Err(PortError::DataRoom { .. }))
    ));
    device_without_rss_starts_without(&eal);
    packets_are_edited_in_place(&pool);

    let small = PortSettings { mtu: 400, ..SETTINGS };
    let mut started = device.start(&small, &pool).expect("it starts");
    let worker = WorkerThread::enter(&eal, core).expect("the core is ours");
    assert_ne!(worker.lcore_id(), u32::MAX);
    let clock = Clock::calibrate();
    let mut packets: ArrayVec<Mbuf, BURST_MAX> = ArrayVec::new();
    let mut sent = 0;
    let began = clock.now().nanos;
    while sent < frames.len() {
        assert!(clock.now().nanos - began < 10_000_000_000, "the frames did not pass within ten seconds");
        started.rx[0].rx_burst(&mut packets);
        for (packet, frame) in packets.iter_mut().zip(&frames[sent..]) {
            assert_eq!(packet.len(), frame.len());
            assert_eq!(packet.received_checksum(), ReceivedChecksum::Unknown);
            // A header in front, as tunnelled frames get it, and the first 54 bytes in one piece.
            assert!(packet.pull_up(54));
            packet.grow_front(4).expect("there is headroom")[..4].copy_from_slice(b"head");
        }
        sent += started.tx[0].tx_burst(&mut packets);
        assert!(packets.is_empty(), "a file takes everything");
    }
    drop(worker);
    let stats = started.port.stats();
    assert_eq!((stats.rx_packets, stats.tx_packets), (100, 100));
    drop(started);

    assert_eq!(pool.available(), pool.count(), "a buffer was lost");
    drop(pool);
    drop(eal);
    let expected: Vec<Vec<u8>> = frames.iter().map(|frame| [b"head", &frame[..]].concat()).collect();
    assert_eq!(read_capture(&output), expected);
}

/// A ring: what is sent on queue n comes back on queue n, and a second port of the same name cannot be had.
fn device_without_rss_starts_without(eal: &Eal) {
    let pool = Mempool::create(eal, "ring", 2048, data_room(1500), None).expect("memory");
    let device = Device::probe(eal, "net_ring0").expect("made");
    let queues: Vec<u16> = (0..128).map(|i| i % 2).collect();
    let rss = Some(Rss { key: &[0x6d; 40], queues: &queues });
    let mut started = device
        .start(&PortSettings { rx_queues: 2, tx_queues: 2, rss, ..SETTINGS }, &pool)
        .expect("it starts");
    let features = started.port.features();
    assert_eq!((features.rx_queues, features.tx_queues, features.rss), (2, 2, false));
    assert!(started.port.link().up);

    let mut packets: ArrayVec<Mbuf, BURST_MAX> = ArrayVec::new();
    packets.extend((0..BURST_MAX).filter_map(|_| pool.allocate()));
    for (i, packet) in packets.iter_mut().enumerate() {
        assert!(packet.append(&[i as u8; 60]));
    }
    assert_eq!(started.tx[1].tx_burst(&mut packets), BURST_MAX);
    assert_eq!(started.rx[0].rx_burst(&mut packets), 0);
    assert_eq!(started.rx[1].rx_burst(&mut packets), BURST_MAX);
    assert!(packets.iter().enumerate().all(|(i, packet)| packet.head() == [i as u8; 60]));
    packets.clear();

    // What a full ring does not take stays ours, in order.
    let mut sent = 0;
    while packets.is_empty() {
        packets.extend((0..BURST_MAX).filter_map(|_| pool.allocate()));
        assert!(packets.is_full(), "the ring is smaller than the pool");
        for (i, packet) in packets.iter_mut().enumerate() {
            assert!(packet.append(&[i as u8; 60]));
        }
        sent += started.tx[0].tx_burst(&mut packets);
    }
    let left = packets.len();
    assert!(
        sent > BURST_MAX
            && packets.iter().enumerate().all(|(i, packet)| packet.head()[0] == (32 - left + i) as u8)
    );
    packets.clear();
    // A ring that is closed keeps what is in it.
    let mut received = 0;
    while received < sent {
        received += started.rx[0].rx_burst(&mut packets);
        packets.clear();
    }
    drop(started);
    assert_eq!(pool.available(), pool.count());
}

/// What the path does to a packet, at its limits.
fn packets_are_edited_in_place(pool: &Mempool) {
    let mut packet = pool.allocate().expect("the pool is full");
    assert!(packet.is_empty());
    assert!(packet.append(b"0123456789"));
    let mut headroom = 128;
    assert_eq!(packet.grow_front(headroom).map(|head| head.len()), Some(10 + headroom));
    while packet.grow_front(1).is_some() {
        headroom += 1;
    }
    assert_eq!(packet.len(), 10 + headroom);
    packet.shrink_front(headroom + 2);
    assert_eq!(packet.head(), b"23456789");
    packet.truncate(100);
    packet.truncate(3);
    assert_eq!(packet.head(), b"234");
    assert!(packet.grow_back(2));
    assert_eq!(packet.head(), b"234\0\0");
    assert!(!packet.grow_back(usize::from(pool.data_room())));
    assert!(packet.pull_up(5) && !packet.pull_up(6));
    assert_eq!(packet.received_hash(), None);
    packet.offload_checksum(ChecksumOffload { l2_len: 14, l3_len: 20, ipv4: true, protocol: Protocol::Tcp });
    packet.prefetch();
    assert_eq!(packet.segments(), 1);
}
