//! Everybody around the gateway, without a memory of their own: each packet tells what is answered to it.
//!
//! A client opens a session, sends one byte that says how many more it will send, counts down with each answer and
//! closes. A real server sends back what it gets. Neighbours say where they are, but the third real server of each
//! service does not. Packets are answered in their own buffers.

use fullnat::id::PortId;
use fullnat::path::packet::Packet;

/// Where clients are.
pub const WAN: PortId = PortId(0);
/// Where real servers are.
pub const LAN: PortId = PortId(1);
/// The gateway's MAC addresses.
pub const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];
/// Everybody else's.
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 1, 0];
/// Answers that a client asks for.
const ROUNDS: u8 = 6;
/// The last byte of the silent real server's addresses.
const SILENT: u8 = 0x13;

/// The gateway among them. `workers` is 2, of which this test runs one.
pub const CONFIG: &str = r#"
[dataplane]
workers = 2
sessions_max = 131072
[timeouts]
tcp_established_secs = 2
tcp_syn_recv_secs = 1
tcp_fin_wait_secs = 1
tcp_time_wait_secs = 1
tcp_close_secs = 1
tcp_close_wait_secs = 1
tcp_last_ack_secs = 1
udp_secs = 1
[[port]]
name = "wan"
device = "net_ring0"
addresses = ["10.1.0.254/24", "2001:db8:1::fe/64"]
[[port]]
name = "lan"
device = "net_ring1"
addresses = ["10.2.0.254/24", "2001:db8:2::fe/64"]
[[route]]
to = "0.0.0.0/0"
via = "10.1.0.1"
[[route]]
to = "::/0"
via = "2001:db8:1::1"
[[local_pool]]
name = "pool"
port = "lan"
addresses = ["10.2.0.100-10.2.0.101", "2001:db8:2::100-2001:db8:2::101"]
[[service]]
name = "tcp4"
listen = "10.1.0.100:80"
protocol = "tcp"
scheduler = "rr"
local_pool = "pool"
client_address = "toa"
real_server = [{ address = "10.2.0.17:8080" }, { address = "10.2.0.18:8080" }, { address = "10.2.0.19:8080" }]
[[service]]
name = "tcp6"
listen = "[2001:db8:1::100]:80"
protocol = "tcp"
scheduler = "wlc"
local_pool = "pool"
client_address = "toa"
real_server = [{ address = "[2001:db8:2::11]:8080" }, { address = "[2001:db8:2::12]:8080" }, { address = "[2001:db8:2::13]:8080" }]
[[service]]
name = "udp4"
listen = "10.1.0.100:80"
protocol = "udp"
scheduler = "sh"
local_pool = "pool"
real_server = [{ address = "10.2.0.17:8080" }, { address = "10.2.0.18:8080" }, { address = "10.2.0.19:8080" }]
[[service]]
name = "udp6"
listen = "[2001:db8:1::100]:80"
protocol = "udp"
scheduler = "mh"
local_pool = "pool"
real_server = [{ address = "[2001:db8:2::11]:8080" }, { address = "[2001:db8:2::12]:8080" }, { address = "[2001:db8:2::13]:8080" }]
"#;

const ETH: usize = 14;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const PSH: u8 = 8;
const ACK: u8 = 16;

/// Makes an empty buffer the first packet of the client's session `number`: TCP and UDP, IPv4 and IPv6 in turn. One of 64
/// calls at a port where nobody listens.
pub fn first_packet(packet: &mut impl Packet, number: u32) {
    let (v6, tcp) = (number & 1 != 0, number & 2 != 0);
    let l4 = ETH + if v6 { 40 } else { 20 };
    assert!(packet.grow_back(l4));
    let frame = packet.head_mut();
    frame[..6].copy_from_slice(&MACS[0]);
    frame[6..12].copy_from_slice(&PEER_MAC);
    let protocol = if tcp { TCP } else { UDP };
    let [_, high, middle, low] = (number >> 12).to_be_bytes();
    if v6 {
        frame[12..18].copy_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0]);
        frame[20..22].copy_from_slice(&[protocol, 64]);
        frame[22..38].copy_from_slice(&[0x20, 1, 0xd, 0xb8, 0, 0xb, 0, 0, 0, 0, 0, 0, 0, high, middle, low]);
        frame[38..54].copy_from_slice(&[0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    } else {
        frame[12..16].copy_from_slice(&[8, 0, 0x45, 0]);
        frame[20..24].copy_from_slice(&[0x40, 0, 64, protocol]);
        frame[26..34].copy_from_slice(&[11, high, middle, low, 10, 1, 0, 100]);
    }
    let ports = [1024 + (number & 0xfff) as u16, if number.is_multiple_of(64) { 81 } else { 80 }];
    if tcp {
        segment(packet, l4, ports, [number, 0], SYN, None);
    } else {
        datagram(packet, l4, ports, ROUNDS);
    }
}

/// Makes a packet that came out of `port` the answer that comes back; false if there is none.
pub fn answer(packet: &mut impl Packet, port: PortId) -> bool {
    let frame = packet.head();
    match frame[12..14] {
        [8, 6] => arp(packet),
        [8, 0] => answer_flow(packet, port, ETH + 20, frame_byte(packet, 23)),
        [0x86, 0xdd] if frame[20] == ICMPV6 => solicitation(packet),
        [0x86, 0xdd] => answer_flow(packet, port, ETH + 40, frame_byte(packet, 20)),
        _ => false,
    }
}

fn frame_byte(packet: &impl Packet, at: usize) -> u8 {
    packet.head()[at]
}

fn answer_flow(packet: &mut impl Packet, port: PortId, l4: usize, protocol: u8) -> bool {
    let frame = packet.head();
    let half = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    let word = |at: usize| u32::from_be_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
    let end = if l4 == ETH + 20 { ETH + usize::from(half(16)) } else { l4 + usize::from(half(18)) };
    let ports = [half(l4 + 2), half(l4)];
    match protocol {
        UDP => {
            let left = frame[l4 + 8];
            let Some(left) = (if port == LAN { Some(left) } else { left.checked_sub(1) }) else {
                return false;
            };
            turn_round(packet, l4);
            datagram(packet, l4, ports, left);
        }
        TCP => {
            let (seq, ack, flags) = (word(l4 + 4), word(l4 + 8), frame[l4 + 13]);
            let data = l4 + usize::from(frame[l4 + 12] >> 4) * 4;
            let payload = frame[data..end].first().copied();
            let next = seq.wrapping_add((end - data) as u32 + u32::from(flags & (SYN | FIN) != 0));
            let (flags, payload) = match (flags & (SYN | FIN | RST), payload) {
                (SYN, _) if port == LAN => (SYN | ACK, None),
                (SYN, _) => (PSH | ACK, Some(ROUNDS)),
                (FIN, _) if port == LAN => (FIN | ACK, None),
                (FIN, _) => (ACK, None),
                (0, Some(left)) if port == LAN => (PSH | ACK, Some(left)),
                (0, Some(0)) => (FIN | ACK, None),
                (0, Some(left)) => (PSH | ACK, Some(left - 1)),
                _ => return false,
            };
            turn_round(packet, l4);
            segment(packet, l4, ports, [ack, next], flags, payload);
        }
        _ => return false,
    }
    true
}

/// Exchanges source and destination below L4 and cuts off the rest.
fn turn_round(packet: &mut impl Packet, l4: usize) {
    packet.truncate(l4);
    let frame = packet.head_mut();
    swap(&mut frame[..12]);
    if l4 == ETH + 20 {
        frame[22] = 64;
        swap(&mut frame[26..34]);
    } else {
        frame[21] = 64;
        swap(&mut frame[22..54]);
    }
}

fn swap(ends: &mut [u8]) {
    let (source, destination) = ends.split_at_mut(ends.len() / 2);
    source.swap_with_slice(destination);
}

fn segment(
    packet: &mut impl Packet,
    l4: usize,
    ports: [u16; 2],
    [seq, ack]: [u32; 2],
    flags: u8,
    payload: Option<u8>,
) {
    assert!(packet.grow_back(20 + payload.iter().len()));
    let frame = packet.head_mut();
    frame[l4 + 4..l4 + 8].copy_from_slice(&seq.to_be_bytes());
    frame[l4 + 8..l4 + 12].copy_from_slice(&ack.to_be_bytes());
    frame[l4 + 12..l4 + 16].copy_from_slice(&[5 << 4, flags, 0x10, 0]);
    if let Some(payload) = payload {
        frame[l4 + 20] = payload;
    }
    complete(frame, l4, ports, TCP, l4 + 16);
}

fn datagram(packet: &mut impl Packet, l4: usize, ports: [u16; 2], payload: u8) {
    assert!(packet.grow_back(9));
    let frame = packet.head_mut();
    frame[l4 + 5] = 9;
    frame[l4 + 8] = payload;
    complete(frame, l4, ports, UDP, l4 + 6);
}

/// Fills in ports, lengths and checksums; that of L4 lies at `place` and is zero still.
fn complete(frame: &mut [u8], l4: usize, ports: [u16; 2], protocol: u8, place: usize) {
    for (at, port) in [(l4, ports[0]), (l4 + 2, ports[1])] {
        frame[at..at + 2].copy_from_slice(&port.to_be_bytes());
    }
    let addresses = lengths(frame, l4);
    let pseudo = u32::from(protocol) + (frame.len() - l4) as u32;
    let sum = !fold(pseudo + sum(&frame[addresses..l4]) + sum(&frame[l4..]));
    frame[place..place + 2].copy_from_slice(&sum.to_be_bytes());
}

/// Fills in what the IP header says of lengths, and its checksum; where its addresses begin.
fn lengths(frame: &mut [u8], l4: usize) -> usize {
    if l4 == ETH + 40 {
        let len = (frame.len() - l4) as u16;
        frame[18..20].copy_from_slice(&len.to_be_bytes());
        return 22;
    }
    let len = (frame.len() - ETH) as u16;
    frame[16..18].copy_from_slice(&len.to_be_bytes());
    frame[24..26].fill(0);
    let sum = !fold(sum(&frame[ETH..l4]));
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    26
}

fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum()
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

/// Answers a request for somebody else's address; announcements and the silent real server go without.
fn arp(packet: &mut impl Packet) -> bool {
    packet.truncate(42);
    let frame = packet.head_mut();
    let question = frame[20..22] == [0, 1] && frame[28..32] != frame[38..42] && frame[28..32] != [0; 4];
    if !question || frame[41] == SILENT {
        return false;
    }
    frame.copy_within(6..12, 0);
    frame[6..12].copy_from_slice(&PEER_MAC);
    frame[21] = 2;
    swap(&mut frame[22..42]);
    frame[22..28].copy_from_slice(&PEER_MAC);
    true
}

/// Answers a neighbour solicitation likewise (RFC 4861 §7.2.4).
fn solicitation(packet: &mut impl Packet) -> bool {
    let l4 = ETH + 40;
    let question = packet.head()[l4] == 135 && packet.head()[22..38] != [0; 16];
    if !question || packet.head()[l4 + 23] == SILENT {
        return false;
    }
    packet.truncate(l4 + 24);
    assert!(packet.grow_back(8));
    let frame = packet.head_mut();
    frame.copy_within(6..12, 0);
    frame[6..12].copy_from_slice(&PEER_MAC);
    frame.copy_within(22..38, 38);
    frame.copy_within(l4 + 8..l4 + 24, 22);
    frame[l4..l4 + 5].copy_from_slice(&[136, 0, 0, 0, 0x60]);
    frame[l4 + 24..l4 + 26].copy_from_slice(&[2, 1]);
    frame[l4 + 26..].copy_from_slice(&PEER_MAC);
    lengths(frame, l4);
    let sum = !fold(u32::from(ICMPV6) + 32 + sum(&frame[22..l4]) + sum(&frame[l4..]));
    frame[l4 + 2..l4 + 4].copy_from_slice(&sum.to_be_bytes());
    true
}
