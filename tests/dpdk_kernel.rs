//! Layer-4 checksums against a real kernel: what `offload_checksum` asks of a device arrives at a socket of the kernel,
//! which takes no datagram with a wrong sum; and a port says truly whether the kernel's frames come unfinished.
//!
//! Needs CAP_SYS_ADMIN and CAP_NET_ADMIN for a network namespace of its own; without it nothing is tested, which root is
//! told by a failure.
#![cfg(feature = "dpdk")]

use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use arrayvec::ArrayVec;
use fullnat::config::buffers::{BufferDemand, data_room};
use fullnat::dpdk::{BURST_MAX, Clock, Device, Eal, Mbuf, Mempool, PortSettings, StartedPort, allowed_cores};
use fullnat::path::packet::{ChecksumOffload, Packet};
use fullnat::wire::Protocol;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;

const OURS: [u8; 4] = [10, 99, 0, 1];
const KERNEL: [u8; 4] = [10, 99, 0, 2];

fn ip(words: &str) {
    let status = Command::new("ip").args(words.split(' ')).status().expect("ip is installed");
    assert!(status.success(), "ip {words}");
}

fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]))).sum()
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn pseudo(src: [u8; 4], dst: [u8; 4], length: usize) -> u32 {
    sum(&src) + sum(&dst) + 17 + length as u32
}

/// A datagram from us to the kernel with the pseudo header's sum in place of its checksum.
fn datagram(to: [u8; 6], port: u16, payload: &[u8]) -> Vec<u8> {
    let udp = 8 + payload.len();
    let mut ip = vec![0x45, 0, 0, (20 + udp) as u8, 0, 0, 0x40, 0, 64, 17, 0, 0];
    ip.extend([OURS, KERNEL].concat());
    let header = !fold(sum(&ip));
    ip[10..12].copy_from_slice(&header.to_be_bytes());
    let mut frame = [&to[..], &[2, 0, 0, 0, 0, 1], &[8, 0], &ip].concat();
    frame.extend(
        [4000u16, port, udp as u16, fold(pseudo(OURS, KERNEL, udp))]
            .iter()
            .flat_map(|word| word.to_be_bytes()),
    );
    frame.extend(payload);
    frame
}

#[test]
fn checksums_are_right_on_the_other_side() {
    if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
        assert!(
            !geteuid().is_root(),
            "root can make no network namespace here, so nothing was tested: {error}"
        );
        eprintln!("skipped: no network namespace can be made without CAP_SYS_ADMIN");
        return;
    }
    let words = ["--no-huge", "-m", "128", "--no-shconf"].map(str::to_owned);
    let eal = Eal::init(&words, allowed_cores()[0], &[]).expect("DPDK starts");
    let settings = PortSettings {
        mtu: 1500,
        rx_queues: 1,
        tx_queues: 1,
        rx_descriptors: 256,
        tx_descriptors: 256,
        rss: None,
        promiscuous: false,
        wire_frames: true,
        exclusive: false,
    };
    let tap = Device::probe(&eal, "net_tap0,iface=dpdk-tap").expect("a tap");
    ip("link add va type veth peer name vb");
    ip("link set va up");
    let veth = Device::probe(&eal, "net_af_packet0,iface=va").expect("an interface");
    let devices = tap.buffers_held(&settings) + veth.buffers_held(&settings);
    let demand = BufferDemand { devices, workers: 1, ports: 2, hand_off: 0, held: 0 };
    let pool = Mempool::create(&eal, "packets", demand.buffers(), data_room(1500), None).expect("memory");

    for (device, interface) in [(tap, "dpdk-tap"), (veth, "vb")] {
        let mut port = device.start(&settings, &pool).expect("it starts");
        speak_with_the_kernel(&mut port, &pool, interface);
    }
    assert_eq!(pool.available(), pool.count());
}

/// The MAC address of an interface of this namespace, as `ip` tells it.
fn mac_of(interface: &str) -> [u8; 6] {
    let output =
        Command::new("ip").args(["-o", "link", "show", interface]).output().expect("ip is installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mac = text.split_whitespace().skip_while(|&word| word != "link/ether").nth(1).expect("an address");
    let bytes: Vec<u8> =
        mac.split(':').map(|byte| u8::from_str_radix(byte, 16).expect("hexadecimal")).collect();
    bytes.try_into().expect("six bytes")
}

fn speak_with_the_kernel(port: &mut StartedPort, pool: &Mempool, interface: &str) {
    let features = port.port.features();
    let mac = mac_of(interface);
    ip(&format!("addr add 10.99.0.2/24 dev {interface}"));
    ip(&format!("link set {interface} up"));
    ip(&format!("neigh add 10.99.0.1 lladdr 02:00:00:00:00:01 dev {interface}"));
    let socket = UdpSocket::bind(("10.99.0.2", 0)).expect("bound");
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("set");
    let kernel_port = socket.local_addr().expect("bound").port();

    // To the kernel: filled in by the device, or by us where it cannot; an odd length, too.
    for payload in [&b"an even payload!"[..], b"an odd payload!"] {
        let mut frame = datagram(mac, kernel_port, payload);
        if !features.tx_checksum {
            // The pseudo header's sum stands in its place already.
            let check = !fold(sum(&frame[34..]));
            frame[40..42].copy_from_slice(&check.to_be_bytes());
        }
        let mut packet = pool.allocate().expect("a buffer");
        assert!(packet.append(&frame));
        if features.tx_checksum {
            packet.offload_checksum(ChecksumOffload {
                l2_len: 14,
                l3_len: 20,
                ipv4: true,
                protocol: Protocol::Udp,
            });
        }
        let mut packets: ArrayVec<Mbuf, BURST_MAX> = [packet].into_iter().collect();
        assert_eq!(port.tx[0].tx_burst(&mut packets), 1);
        let mut received = [0; 64];
        let (length, from) = socket.recv_from(&mut received).expect("the kernel found the checksum right");
        assert_eq!((&received[..length], from.to_string().as_str()), (payload, "10.99.0.1:4000"));
    }

    // From the kernel: finished or not, as the port says.
    socket.send_to(b"answer", "10.99.0.1:4000").expect("sent");
    let frame = receive_datagram(port);
    let (udp, stored) = (&frame[34..], u16::from_be_bytes([frame[40], frame[41]]));
    let unfinished = stored == fold(pseudo(KERNEL, OURS, udp.len()));
    let right = fold(sum(udp) + pseudo(KERNEL, OURS, udp.len())) == 0xffff;
    assert_eq!((right, unfinished), (!features.partial_checksums, features.partial_checksums), "{interface}");
    ip(&format!("addr flush dev {interface}"));
}

/// The next UDP datagram over IPv4; the kernel says other things of its own.
fn receive_datagram(port: &mut StartedPort) -> Vec<u8> {
    let clock = Clock::calibrate();
    let mut packets: ArrayVec<Mbuf, BURST_MAX> = ArrayVec::new();
    let began = clock.now().nanos;
    while clock.now().nanos - began < 5_000_000_000 {
        port.rx[0].rx_burst(&mut packets);
        let found = packets
            .iter()
            .map(Packet::head)
            .find(|head| head.len() > 42 && head[12..14] == [8, 0] && head[23] == 17);
        if let Some(head) = found {
            return head[..34 + usize::from(u16::from_be_bytes([head[38], head[39]]))].to_vec();
        }
        packets.clear();
    }
    panic!("the kernel's datagram did not come within five seconds");
}
