//! Frames to send, written by etherparse, and raw variants of them.

use std::net::IpAddr;

use etherparse::{
    Ethernet2Header, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, TcpHeader, UdpHeader,
    checksum::Sum16BitWords,
};

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const PSH: u8 = 8;
pub const ACK: u8 = 16;

/// Bytes of an Ethernet header.
pub const ETH: usize = 14;

pub type End = (IpAddr, u16);

/// What an IP packet has besides addresses and payload.
#[derive(Clone, Copy)]
pub struct Ip {
    pub ttl: u8,
    /// TOS or traffic class
    pub tos: u8,
    pub id: u16,
    pub dont_fragment: bool,
}

impl Default for Ip {
    fn default() -> Self {
        Ip { ttl: 64, tos: 0, id: 7, dont_fragment: true }
    }
}

/// A TCP segment to be sent.
#[derive(Clone)]
pub struct Segment {
    pub src: End,
    pub dst: End,
    pub flags: u8,
    pub seq: u32,
    pub ack: u32,
    pub window: u16,
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
    pub ip: Ip,
}

impl Segment {
    pub fn new(src: End, dst: End, flags: u8, seq: u32, ack: u32) -> Self {
        let ip = Ip::default();
        Segment { src, dst, flags, seq, ack, window: 4096, options: Vec::new(), payload: Vec::new(), ip }
    }

    pub fn payload(mut self, bytes: &[u8]) -> Self {
        self.payload = bytes.to_vec();
        self
    }

    pub fn options(mut self, bytes: &[u8]) -> Self {
        assert!(bytes.len() <= 40 && bytes.len().is_multiple_of(4), "options are padded by the test");
        self.options = bytes.to_vec();
        self
    }

    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ip.ttl = ttl;
        self
    }

    pub fn tos(mut self, tos: u8) -> Self {
        self.ip.tos = tos;
        self
    }

    /// From the IP header on.
    pub fn packet(&self) -> Vec<u8> {
        let mut header = TcpHeader::new(self.src.1, self.dst.1, self.seq, self.window);
        header.acknowledgment_number = self.ack;
        header.fin = self.flags & FIN != 0;
        header.syn = self.flags & SYN != 0;
        header.rst = self.flags & RST != 0;
        header.psh = self.flags & PSH != 0;
        header.ack = self.flags & ACK != 0;
        header.urg = self.flags & 0x20 != 0;
        header.ece = self.flags & 0x40 != 0;
        header.cwr = self.flags & 0x80 != 0;
        header.set_options_raw(&self.options).unwrap();
        header.checksum = match (self.src.0, self.dst.0) {
            (IpAddr::V4(s), IpAddr::V4(d)) => {
                header.calc_checksum_ipv4_raw(s.octets(), d.octets(), &self.payload).unwrap()
            }
            (IpAddr::V6(s), IpAddr::V6(d)) => {
                header.calc_checksum_ipv6_raw(s.octets(), d.octets(), &self.payload).unwrap()
            }
            _ => panic!("both ends of a packet are of one family"),
        };
        let mut l4 = Vec::new();
        header.write(&mut l4).unwrap();
        l4.extend_from_slice(&self.payload);
        ip_packet(self.src.0, self.dst.0, 6, self.ip, &l4)
    }
}

/// A UDP datagram, from the IP header on.
pub fn udp(src: End, dst: End, payload: &[u8]) -> Vec<u8> {
    udp_with(src, dst, payload, Ip::default())
}

pub fn udp_with(src: End, dst: End, payload: &[u8], ip: Ip) -> Vec<u8> {
    let header = match (src.0, dst.0) {
        (IpAddr::V4(s), IpAddr::V4(d)) => {
            let [s, d] = [s, d].map(|ip| ip.octets());
            let ip = Ipv4Header::new(0, 64, IpNumber::UDP, s, d).unwrap();
            UdpHeader::with_ipv4_checksum(src.1, dst.1, &ip, payload).unwrap()
        }
        (IpAddr::V6(s), IpAddr::V6(d)) => {
            let ip = Ipv6Header { source: s.octets(), destination: d.octets(), ..Ipv6Header::default() };
            UdpHeader::with_ipv6_checksum(src.1, dst.1, &ip, payload).unwrap()
        }
        _ => panic!("both ends of a packet are of one family"),
    };
    let l4 = [&header.to_bytes()[..], payload].concat();
    ip_packet(src.0, dst.0, 17, ip, &l4)
}

/// An IP packet of any protocol.
pub fn ip_packet(src: IpAddr, dst: IpAddr, protocol: u8, ip: Ip, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match (src, dst) {
        (IpAddr::V4(s), IpAddr::V4(d)) => {
            let len = payload.len() as u16;
            let mut header =
                Ipv4Header::new(len, ip.ttl, IpNumber(protocol), s.octets(), d.octets()).unwrap();
            header.dscp = (ip.tos >> 2).try_into().unwrap();
            header.ecn = (ip.tos & 3).try_into().unwrap();
            header.identification = ip.id;
            header.dont_fragment = ip.dont_fragment;
            header.header_checksum = header.calc_header_checksum();
            header.write(&mut out).unwrap();
        }
        (IpAddr::V6(s), IpAddr::V6(d)) => {
            let header = Ipv6Header {
                traffic_class: ip.tos,
                flow_label: Ipv6FlowLabel::ZERO,
                payload_length: payload.len() as u16,
                next_header: IpNumber(protocol),
                hop_limit: ip.ttl,
                source: s.octets(),
                destination: d.octets(),
            };
            header.write(&mut out).unwrap();
        }
        _ => panic!("both ends of a packet are of one family"),
    }
    out.extend_from_slice(payload);
    out
}

/// An ICMP or ICMPv6 message with a right checksum, from the IP header on.
pub fn icmp(src: IpAddr, dst: IpAddr, kind: u8, code: u8, rest: u32, body: &[u8]) -> Vec<u8> {
    icmp_with(src, dst, kind, code, rest, body, Ip::default())
}

pub fn icmp_with(src: IpAddr, dst: IpAddr, kind: u8, code: u8, rest: u32, body: &[u8], ip: Ip) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend_from_slice(&rest.to_be_bytes());
    message.extend_from_slice(body);
    let mut sum = Sum16BitWords::new().add_slice(&message);
    let (sum, protocol) = match (src, dst) {
        (IpAddr::V4(_), _) => (sum, 1),
        (IpAddr::V6(s), IpAddr::V6(d)) => {
            let len = (message.len() as u32).to_be_bytes();
            let sum = sum.add_16bytes(s.octets()).add_16bytes(d.octets()).add_4bytes(len).add_2bytes([0, 58]);
            (sum, 58)
        }
        _ => panic!("both ends of a packet are of one family"),
    };
    message[2..4].copy_from_slice(&sum.ones_complement().to_ne_bytes());
    ip_packet(src, dst, protocol, ip, &message)
}

/// An IP packet in an Ethernet frame, padded as a sender pads.
pub fn ethernet(destination: [u8; 6], source: [u8; 6], packet: &[u8]) -> Vec<u8> {
    let ether_type = if packet[0] >> 4 == 4 { 0x0800u16 } else { 0x86dd };
    let header = Ethernet2Header { source, destination, ether_type: ether_type.into() };
    let mut frame = [&header.to_bytes()[..], packet].concat();
    frame.resize(frame.len().max(60), 0);
    frame
}

/// An IPv4 packet with these options put in.
pub fn with_ipv4_options(packet: &[u8], options: &[u8]) -> Vec<u8> {
    assert!(options.len().is_multiple_of(4));
    let mut out = [&packet[..20], options, &packet[20..]].concat();
    out[0] = 0x40 | ((20 + options.len()) / 4) as u8;
    fix_ipv4(&mut out);
    out
}

/// An IPv6 packet with one extension header put in front; `header` begins with a byte for the next header.
pub fn with_extension(packet: &[u8], kind: u8, header: &[u8]) -> Vec<u8> {
    let mut out = [&packet[..40], header, &packet[40..]].concat();
    out[40] = packet[6];
    out[6] = kind;
    let len = (out.len() - 40) as u16;
    out[4..6].copy_from_slice(&len.to_be_bytes());
    out
}

/// Total length and header checksum of an IPv4 packet brought up to date.
pub fn fix_ipv4(packet: &mut [u8]) {
    let len = packet.len() as u16;
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    fix_ipv4_checksum(packet);
}

/// The header checksum of an IPv4 packet brought up to date.
pub fn fix_ipv4_checksum(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let header_len = (usize::from(packet[0] & 15) * 4).min(packet.len());
    let sum = Sum16BitWords::new().add_slice(&packet[..header_len]).ones_complement();
    packet[10..12].copy_from_slice(&sum.to_ne_bytes());
}

/// The TCP or UDP checksum of a packet without extension headers brought up to date.
pub fn fix_l4(packet: &mut [u8]) {
    let (l4, protocol) =
        if packet[0] >> 4 == 4 { (usize::from(packet[0] & 15) * 4, packet[9]) } else { (40, packet[6]) };
    let field = l4 + if protocol == 6 { 16 } else { 6 };
    packet[field..field + 2].fill(0);
    let sum = pseudo_header(packet, l4, protocol).add_slice(&packet[l4..]).ones_complement();
    let sum = if protocol == 17 && sum == 0 { 0xffff } else { sum };
    packet[field..field + 2].copy_from_slice(&sum.to_ne_bytes());
}

/// Only the pseudo header summed up, as a local kernel leaves it to a device.
pub fn make_partial(packet: &mut [u8]) {
    let (l4, protocol) = if packet[0] >> 4 == 4 { (20, packet[9]) } else { (40, packet[6]) };
    let field = l4 + if protocol == 6 { 16 } else { 6 };
    let sum = !pseudo_header(packet, l4, protocol).ones_complement();
    packet[field..field + 2].copy_from_slice(&sum.to_ne_bytes());
}

fn pseudo_header(packet: &[u8], l4: usize, protocol: u8) -> Sum16BitWords {
    let len = ((packet.len() - l4) as u32).to_be_bytes();
    let addresses = if packet[0] >> 4 == 4 { &packet[12..20] } else { &packet[8..40] };
    Sum16BitWords::new().add_slice(addresses).add_4bytes(len).add_2bytes([0, protocol])
}

/// An ARP message in its frame: 1 asks, 2 answers.
pub fn arp(operation: u8, from: ([u8; 6], [u8; 4]), to: ([u8; 6], [u8; 4]), destination: [u8; 6]) -> Vec<u8> {
    let mut frame = [&destination[..], &from.0, &[8, 6, 0, 1, 8, 0, 6, 4, 0, operation]].concat();
    frame.extend([&from.0[..], &from.1, &to.0, &to.1].concat());
    frame.resize(60, 0);
    frame
}

/// A neighbour solicitation (135) or advertisement (136) with the sender's link-layer address.
pub fn nd(kind: u8, mac: [u8; 6], src: IpAddr, dst: IpAddr, target: IpAddr, destination: [u8; 6]) -> Vec<u8> {
    let IpAddr::V6(target) = target else { panic!("ND is for IPv6") };
    let (rest, option) = if kind == 135 { (0, 1) } else { (0x6000_0000, 2) };
    let body = [&target.octets()[..], &[option, 1], &mac].concat();
    let packet = icmp_with(src, dst, kind, 0, rest, &body, Ip { ttl: 255, ..Ip::default() });
    ethernet(destination, mac, &packet)
}
