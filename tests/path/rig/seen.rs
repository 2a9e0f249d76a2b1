//! Frames that the gateway sent, read and checked by etherparse.

use std::net::IpAddr;

use etherparse::checksum::Sum16BitWords;
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use fullnat::id::PortId;

use super::frame::{ACK, ETH, FIN, PSH, RST, SYN};

/// A frame as it left, taken apart.
#[derive(Clone, Debug)]
pub struct Seen {
    pub port: PortId,
    pub frame: Vec<u8>,
    pub src: IpAddr,
    pub dst: IpAddr,
    /// TTL or hop limit
    pub ttl: u8,
    /// TOS or traffic class
    pub tos: u8,
    /// IPv4: identification and DF
    pub id: u16,
    pub dont_fragment: bool,
    /// bytes of the IP packet
    pub ip_len: usize,
    pub l4: L4,
    pub payload: Vec<u8>,
}

/// The layer above IP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum L4 {
    Tcp { sport: u16, dport: u16, flags: u8, seq: u32, ack: u32, window: u16, options: Vec<u8> },
    Udp { sport: u16, dport: u16, checksum: u16 },
    Icmp { kind: u8, code: u8, rest: u32 },
}

impl Seen {
    /// Reads a frame; `None` for ARP. Panics on anything that is not sound, and on fragments: the gateway makes none
    /// and passes none.
    pub fn read(port: PortId, frame: &[u8], damaged: bool) -> Option<Seen> {
        let sliced = SlicedPacket::from_ethernet(frame).unwrap_or_else(|e| panic!("{e}: {frame:02x?}"));
        let (src, dst, ttl, tos, id, dont_fragment, ip_len);
        match sliced.net.as_ref().expect("a network layer") {
            NetSlice::Arp(_) => return None,
            NetSlice::Ipv4(ip) => {
                let header = ip.header().to_header();
                // The parser's own check leaves the reserved bit out.
                let sum = Sum16BitWords::new().add_slice(ip.header().slice()).ones_complement();
                assert_eq!(sum, 0, "IPv4 checksum: {frame:02x?}");
                assert!(!ip.is_payload_fragmented(), "a fragment: {frame:02x?}");
                src = IpAddr::from(header.source);
                dst = IpAddr::from(header.destination);
                (ttl, tos) = (header.time_to_live, header.dscp.value() << 2 | header.ecn.value());
                (id, dont_fragment) = (header.identification, header.dont_fragment);
                ip_len = usize::from(header.total_len);
            }
            NetSlice::Ipv6(ip) => {
                let header = ip.header().to_header();
                assert!(!ip.is_payload_fragmented(), "a fragment: {frame:02x?}");
                src = IpAddr::from(header.source);
                dst = IpAddr::from(header.destination);
                (ttl, tos, id, dont_fragment) = (header.hop_limit, header.traffic_class, 0, true);
                ip_len = 40 + usize::from(header.payload_length);
            }
        }
        let end = ETH + ip_len;
        assert!(frame[end..].iter().all(|&byte| byte == 0), "padding leaks memory: {frame:02x?}");
        assert!(frame.len() == end || frame.len() == 60, "{} bytes behind the packet", frame.len() - end);
        let transport = sliced.transport.expect("a transport layer");
        let (l4, payload, checksum, right) = read_l4(&transport, (src, dst), damaged);
        // Both zeros are the same sum.
        let same = checksum == right || checksum ^ right == 0xffff && matches!(checksum, 0 | 0xffff);
        assert!(damaged || same, "checksum {checksum:04x}, right is {right:04x}: {frame:02x?}");
        let frame = frame.to_vec();
        Some(Seen { port, frame, src, dst, ttl, tos, id, dont_fragment, ip_len, l4, payload })
    }

    pub fn tcp(&self) -> (u8, u32, u32) {
        let L4::Tcp { flags, seq, ack, .. } = self.l4 else { panic!("not TCP: {self:?}") };
        (flags, seq, ack)
    }

    pub fn flags(&self) -> u8 {
        self.tcp().0
    }

    pub fn seq(&self) -> u32 {
        self.tcp().1
    }

    pub fn ack(&self) -> u32 {
        self.tcp().2
    }

    pub fn window(&self) -> u16 {
        let L4::Tcp { window, .. } = self.l4 else { panic!("not TCP: {self:?}") };
        window
    }

    pub fn options(&self) -> &[u8] {
        let L4::Tcp { options, .. } = &self.l4 else { panic!("not TCP: {self:?}") };
        options
    }

    pub fn ends(&self) -> ((IpAddr, u16), (IpAddr, u16)) {
        match self.l4 {
            L4::Tcp { sport, dport, .. } | L4::Udp { sport, dport, .. } => {
                ((self.src, sport), (self.dst, dport))
            }
            L4::Icmp { .. } => panic!("ICMP has no ports: {self:?}"),
        }
    }

    /// Type, code and the four bytes behind the checksum.
    pub fn icmp(&self) -> (u8, u8, u32) {
        let L4::Icmp { kind, code, rest } = self.l4 else { panic!("not ICMP: {self:?}") };
        (kind, code, rest)
    }

    /// From the IP header on, without padding.
    pub fn packet(&self) -> &[u8] {
        &self.frame[ETH..ETH + self.ip_len]
    }

    /// The options of the IPv4 header; none of an IPv6 packet.
    pub fn ipv4_options(&self) -> &[u8] {
        let packet = self.packet();
        if packet[0] >> 4 == 4 { &packet[20..usize::from(packet[0] & 15) * 4] } else { &[] }
    }

    /// The UOA option, read as a real server reads it: client address and port. It stands first.
    pub fn uoa(&self) -> Option<(IpAddr, u16)> {
        let all = options(self.ipv4_options());
        let mut found = all.iter().filter(|option| option[0] == 31);
        let option = found.next()?;
        assert!(found.next().is_none(), "two UOA options: {:02x?}", self.ipv4_options());
        assert_eq!(self.ipv4_options()[0], 31, "right behind the header");
        let port = u16::from_be_bytes([option[2], option[3]]);
        match option.len() {
            8 => Some((IpAddr::from(<[u8; 4]>::try_from(&option[4..]).unwrap()), port)),
            20 => Some((IpAddr::from(<[u8; 16]>::try_from(&option[4..]).unwrap()), port)),
            len => panic!("a UOA of {len} bytes"),
        }
    }

    /// The TOA option, read as a real server reads it: client address and port, if its kind is `kind`.
    pub fn toa(&self, kind: u8) -> Option<(IpAddr, u16)> {
        let all = options(self.options());
        let mut found = all.iter().filter(|option| option[0] == kind);
        let option = found.next()?;
        assert!(found.next().is_none(), "two TOA options: {:02x?}", self.options());
        let port = u16::from_be_bytes([option[2], option[3]]);
        match option.len() {
            8 => Some((IpAddr::from(<[u8; 4]>::try_from(&option[4..]).unwrap()), port)),
            20 => Some((IpAddr::from(<[u8; 16]>::try_from(&option[4..]).unwrap()), port)),
            len => panic!("a TOA of {len} bytes"),
        }
    }
}

/// The layer above IP: its parts, its payload, the checksum as it stands and as it should be. ICMP's is looked at here.
fn read_l4(transport: &TransportSlice<'_>, ends: (IpAddr, IpAddr), damaged: bool) -> (L4, Vec<u8>, u16, u16) {
    match transport {
        TransportSlice::Tcp(tcp) => {
            let right = match ends {
                (IpAddr::V4(s), IpAddr::V4(d)) => tcp.calc_checksum_ipv4(s.octets(), d.octets()).unwrap(),
                (IpAddr::V6(s), IpAddr::V6(d)) => tcp.calc_checksum_ipv6(s.octets(), d.octets()).unwrap(),
                _ => unreachable!(),
            };
            let bits =
                [(tcp.fin(), FIN), (tcp.syn(), SYN), (tcp.rst(), RST), (tcp.psh(), PSH), (tcp.ack(), ACK)];
            let more = [(tcp.urg(), 0x20), (tcp.ece(), 0x40), (tcp.cwr(), 0x80)];
            let flags = bits.iter().chain(&more).filter(|(set, _)| *set).map(|(_, bit)| bit).sum();
            let l4 = L4::Tcp {
                sport: tcp.source_port(),
                dport: tcp.destination_port(),
                flags,
                seq: tcp.sequence_number(),
                ack: tcp.acknowledgment_number(),
                window: tcp.window_size(),
                options: tcp.options().to_vec(),
            };
            (l4, tcp.payload().to_vec(), tcp.checksum(), right)
        }
        TransportSlice::Udp(udp) => {
            let right = match (ends.0, ends.1, udp.checksum()) {
                (IpAddr::V4(_), _, 0) => 0,
                (IpAddr::V4(s), IpAddr::V4(d), _) => {
                    let header = udp.to_header();
                    header.calc_checksum_ipv4_raw(s.octets(), d.octets(), udp.payload()).unwrap()
                }
                (IpAddr::V6(s), IpAddr::V6(d), _) => {
                    let header = udp.to_header();
                    header.calc_checksum_ipv6_raw(s.octets(), d.octets(), udp.payload()).unwrap()
                }
                _ => unreachable!(),
            };
            let l4 =
                L4::Udp { sport: udp.source_port(), dport: udp.destination_port(), checksum: udp.checksum() };
            (l4, udp.payload().to_vec(), udp.checksum(), right)
        }
        TransportSlice::Icmpv4(icmp) => {
            let rest = u32::from_be_bytes(icmp.bytes5to8());
            let l4 = L4::Icmp { kind: icmp.type_u8(), code: icmp.code_u8(), rest };
            let sum = Sum16BitWords::new().add_slice(icmp.slice()).ones_complement();
            assert!(damaged || sum == 0, "ICMP checksum: {:02x?}", icmp.slice());
            (l4, icmp.slice()[8..].to_vec(), 0, 0)
        }
        TransportSlice::Icmpv6(icmp) => {
            let (IpAddr::V6(s), IpAddr::V6(d)) = ends else { panic!("ICMPv6 in IPv4") };
            assert!(
                damaged || icmp.is_checksum_valid(s.octets(), d.octets()),
                "ICMPv6 checksum: {:02x?}",
                icmp.slice()
            );
            let rest = u32::from_be_bytes(icmp.bytes5to8());
            let l4 = L4::Icmp { kind: icmp.type_u8(), code: icmp.code_u8(), rest };
            (l4, icmp.slice()[8..].to_vec(), 0, 0)
        }
    }
}

/// A list of TCP or IPv4 options taken apart; no-operations are left out.
pub fn options(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut all = Vec::new();
    while let Some(&kind) = bytes.first() {
        match kind {
            0 => break,
            1 => bytes = &bytes[1..],
            _ => {
                let Some(len) = bytes.get(1).map(|&len| usize::from(len)).filter(|&len| len >= 2) else {
                    break;
                };
                let Some(option) = bytes.get(..len) else { break };
                all.push(option);
                bytes = &bytes[len..];
            }
        }
    }
    all
}
