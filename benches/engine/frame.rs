//! The frames of the traffic: made once per kind, then only addresses, ports and numbers change.

use fullnat::id::PortId;
use fullnat::wire::{Address, Tuple, ethernet, ipv4, ipv6, tcp, udp};

use crate::lab::{LAN, MACS, PEER_MAC, WAN};

/// What the frames of a session look like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kind {
    /// TCP, else UDP
    pub tcp: bool,
    /// IPv6, else IPv4
    pub v6: bool,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 4] = [
        Kind { tcp: false, v6: false },
        Kind { tcp: true, v6: false },
        Kind { tcp: false, v6: true },
        Kind { tcp: true, v6: true },
    ];

    /// As it is called in results: `udp4`.
    pub fn name(self) -> &'static str {
        match (self.tcp, self.v6) {
            (false, false) => "udp4",
            (true, false) => "tcp4",
            (false, true) => "udp6",
            (true, true) => "tcp6",
        }
    }
}

/// TCP options of an established connection: two NOPs and the timestamps, 12 bytes.
const TIMESTAMPS: [u8; 12] = [1, 1, 8, 10, 0, 0, 16, 0, 0, 0, 32, 0];
const TCP_LEN: usize = tcp::HEADER_LEN + TIMESTAMPS.len();
/// Bytes of a UDP payload that makes a frame of 64 bytes with its checksum.
const PAYLOAD_LEN: usize = 18;

/// A frame to be stamped with a flow's addresses.
#[derive(Clone, Debug)]
pub struct Template {
    kind: Kind,
    bytes: [u8; 96],
    len: usize,
    l4: usize,
}

impl Template {
    /// A frame of this kind that arrives on `port`.
    pub fn new(kind: Kind, port: PortId) -> Self {
        let l3_len = if kind.v6 { ipv6::HEADER_LEN } else { ipv4::HEADER_LEN };
        let l4 = ethernet::HEADER_LEN + l3_len;
        let l4_len = if kind.tcp { TCP_LEN } else { udp::HEADER_LEN + PAYLOAD_LEN };
        let mut template = Template { kind, bytes: [0; 96], len: l4 + l4_len, l4 };
        let ethertype = if kind.v6 { ethernet::TYPE_IPV6 } else { ethernet::TYPE_IPV4 };
        ethernet::write_header(&mut template.bytes, &MACS[port.index()], &PEER_MAC, ethertype);
        let protocol = if kind.tcp { tcp::PROTOCOL } else { udp::PROTOCOL };
        let l3 = &mut template.bytes[ethernet::HEADER_LEN..];
        if kind.v6 {
            let (src, dst) = ([0; 16], [0; 16]);
            let payload_len = l4_len as u16;
            ipv6::write_header(
                l3,
                &ipv6::Ipv6Header {
                    traffic_class: 0,
                    flow_label: 0,
                    payload_len,
                    next_header: protocol,
                    hop_limit: 64,
                    src,
                    dst,
                },
            );
        } else {
            let (src, dst) = ([0; 4], [0; 4]);
            let total_len = (l3_len + l4_len) as u16;
            ipv4::write_header(
                l3,
                &ipv4::Ipv4Header {
                    tos: 0,
                    total_len,
                    id: 0,
                    dont_fragment: true,
                    ttl: 64,
                    protocol,
                    src,
                    dst,
                },
            );
        }
        let header = &mut template.bytes[l4..];
        if kind.tcp {
            header[tcp::HEADER_LEN..TCP_LEN].copy_from_slice(&TIMESTAMPS);
            tcp::set_header_len(header, TCP_LEN);
            tcp::set_checksum(header, 0x1234);
        } else {
            udp::set_len(header, l4_len as u16);
            udp::set_checksum(header, 0x1234);
        }
        template
    }

    /// The frame of this flow; for TCP with these numbers and flags.
    #[inline]
    pub fn stamp(&mut self, tuple: &Tuple, segment: Segment) -> &[u8] {
        let (l3, l4) = (ethernet::HEADER_LEN, self.l4);
        let header = &mut self.bytes[l3..l4];
        if self.kind.v6 {
            header[8..24].copy_from_slice(tuple.src.octets());
            header[24..40].copy_from_slice(tuple.dst.octets());
        } else {
            header[12..16].copy_from_slice(&tuple.src.v4_octets());
            header[16..20].copy_from_slice(&tuple.dst.v4_octets());
            ipv4::fill_checksum(header);
        }
        let header = &mut self.bytes[l4..self.len];
        udp::set_sport(header, tuple.sport);
        udp::set_dport(header, tuple.dport);
        if self.kind.tcp {
            tcp::set_seq(header, segment.seq);
            tcp::set_ack(header, segment.ack);
            tcp::set_flags(header, segment.flags);
        }
        &self.bytes[..self.len]
    }
}

/// What differs between the segments of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Segment {
    /// sequence number
    pub seq: u32,
    /// acknowledgement number
    pub ack: u32,
    /// flags
    pub flags: u8,
}

/// First sequence number of every client.
pub const CLIENT_ISN: u32 = 1_000;
/// First sequence number of every real server.
pub const SERVER_ISN: u32 = 5_000;

/// Addresses and ports of a frame that the gateway sent: L3 starts behind an untagged Ethernet header.
pub fn ends(frame: &[u8]) -> (Address, u16, Address, u16) {
    let l3 = &frame[ethernet::HEADER_LEN..];
    let (src, dst, l4) = if l3[0] >> 4 == 6 {
        let at = |from: usize| Address::from_v6(*l3[from..].first_chunk().expect("a whole header"));
        (at(8), at(24), &l3[40..])
    } else {
        let at = |from: usize| Address::from_v4(*l3[from..].first_chunk().expect("a whole header"));
        (at(12), at(16), &l3[20..])
    };
    (src, udp::sport(l4), dst, udp::dport(l4))
}

/// Sequence number of a TCP frame that the gateway sent.
pub fn seq(frame: &[u8]) -> u32 {
    let l4 = ethernet::HEADER_LEN + if frame[ethernet::HEADER_LEN] >> 4 == 6 { 40 } else { 20 };
    tcp::seq(&frame[l4..])
}

/// Both directions' templates of a kind.
pub struct Templates {
    /// from the client
    pub inbound: Template,
    /// from the real server
    pub outbound: Template,
}

impl Templates {
    /// Of this kind.
    pub fn new(kind: Kind) -> Self {
        Templates { inbound: Template::new(kind, WAN), outbound: Template::new(kind, LAN) }
    }
}
