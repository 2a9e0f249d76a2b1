//! A gateway's neighbour table between two links, with a manual clock. Every frame it sends must be read by etherparse.

mod announce;
mod arp;
mod nd;
mod resolve;

use std::net::IpAddr;

use hashbrown::HashMap;

use super::*;
use crate::id::PoolId;
use crate::path::drop_reason::DropReason;
use crate::path::heap::{HeapPacket, Sent, TestIo};
use crate::path::packet::HandOff;
use crate::service::snapshot::{Owned, PortView, Role};
use crate::wire::arp::{ArpMessage, Operation};
use crate::wire::nd as wire_nd;

const WAN: PortId = PortId(0);
const LAN: PortId = PortId(1);
const WAN_MAC: [u8; 6] = [2, 0, 0, 0, 1, 0];
const LAN_MAC: [u8; 6] = [2, 0, 0, 0, 2, 0];
const BROADCAST: [u8; 6] = [0xff; 6];
/// A host on each link.
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 9, 9];
const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 8, 8];
const PEER: &str = "10.2.0.11";
const PEER6: &str = "2001:db8:2::11";
const VIP: &str = "10.1.0.100";
const VIP6: &str = "2001:db8:1::100";
const LIP: &str = "10.2.0.100";
const LIP6: &str = "2001:db8:2::100";
/// Frame bytes ahead of what a held packet carries, as the path leaves them.
const BLANK_MACS: [u8; 12] = [0; 12];

fn address(text: &str) -> Address {
    text.parse::<IpAddr>().unwrap().into()
}

struct Rig {
    table: NeighbourTable<HeapPacket>,
    io: TestIo,
    ports: Vec<PortView>,
    owned: HashMap<Address, Owned, ahash::RandomState>,
    now: Now,
}

fn port_view(id: PortId, name: &str, mac: [u8; 6], addresses: &[(&str, u8)]) -> PortView {
    PortView {
        id,
        name: name.into(),
        mac,
        mtu: 1500,
        addresses: addresses.iter().map(|&(text, len)| (address(text), len)).collect(),
        checksum_offload: false,
        partial_checksums: false,
        reverse_path_filter: false,
        answer_for_other_ports: false,
    }
}

impl Rig {
    fn new(config: NeighbourConfig) -> Self {
        let owned = [
            ("10.1.0.254", Role::Port, WAN),
            ("2001:db8:1::fe", Role::Port, WAN),
            (VIP, Role::Virtual, WAN),
            (VIP6, Role::Virtual, WAN),
            ("10.2.0.254", Role::Port, LAN),
            ("2001:db8:2::fe", Role::Port, LAN),
            (LIP, Role::Local(PoolId(0)), LAN),
            (LIP6, Role::Local(PoolId(0)), LAN),
        ];
        let mut addresses = HashMap::with_hasher(ahash::RandomState::with_seed(1));
        addresses.extend(owned.map(|(text, role, port)| (address(text), Owned { role, port: Some(port) })));
        Rig {
            table: NeighbourTable::new(config),
            io: TestIo::default(),
            ports: vec![
                port_view(WAN, "wan", WAN_MAC, &[("10.1.0.254", 24), ("2001:db8:1::fe", 64)]),
                port_view(LAN, "lan", LAN_MAC, &[("10.2.0.254", 24), ("2001:db8:2::fe", 64)]),
            ],
            owned: addresses,
            now: Now { nanos: 1_000_000_000 },
        }
    }

    /// The frames sent since last asked, each of legal length and read by a parser that is not ours.
    fn take_sent(&mut self) -> Vec<Sent> {
        let sent = self.io.take_sent();
        for Sent { frame, .. } in &sent {
            assert!(frame.len() >= 60, "{} bytes", frame.len());
            let seen = etherparse::SlicedPacket::from_ethernet(frame).expect("a clean frame");
            if let Some(etherparse::NetSlice::Arp(_)) = seen.net {
                assert!(frame[42..].iter().all(|&byte| byte == 0), "padding leaks memory");
            }
        }
        sent
    }

    /// The only frame sent since last asked.
    fn take_one(&mut self) -> Sent {
        let mut sent = self.take_sent();
        assert_eq!(sent.len(), 1, "{sent:?}");
        sent.pop().unwrap()
    }

    /// Lets time pass in steps of 10 ms, the table ticking; gives what it sent with its time since the start.
    fn pass_ticks(&mut self, ticks: u32) -> Vec<(u32, Sent)> {
        let mut all = Vec::new();
        for tick in 1..=ticks {
            self.now.nanos += 10_000_000;
            let own = OwnAddresses { ports: &self.ports, owned: &self.owned };
            self.table.tick(own, self.now, 64, &mut self.io);
            all.extend(self.take_sent().into_iter().map(|sent| (tick, sent)));
        }
        all
    }

    fn frame_arp(&mut self, port: PortId, frame: &[u8]) -> DropReason {
        let own = OwnAddresses { ports: &self.ports, owned: &self.owned };
        self.table.handle_arp(own, port, frame, self.now, &mut self.io)
    }

    fn frame_nd(&mut self, port: PortId, frame: &[u8]) -> DropReason {
        let own = OwnAddresses { ports: &self.ports, owned: &self.owned };
        self.table.handle_nd(own, port, frame, self.now, &mut self.io)
    }

    /// A who-has from `sender` at `mac`.
    fn who_has(&mut self, port: PortId, target: &str, sender: &str, mac: [u8; 6]) -> DropReason {
        let message = ArpMessage {
            operation: Operation::Request,
            sender_mac: mac,
            sender: address(sender),
            target_mac: [0; 6],
            target: address(target),
        };
        self.frame_arp(port, &message.write_frame(BROADCAST, mac))
    }

    /// An answer to the gateway that `sender` is at `mac`.
    fn is_at(&mut self, port: PortId, sender: &str, mac: [u8; 6]) -> DropReason {
        let PortView { mac: own_mac, ref addresses, .. } = self.ports[port.index()];
        let message = ArpMessage {
            operation: Operation::Reply,
            sender_mac: mac,
            sender: address(sender),
            target_mac: own_mac,
            target: addresses[0].0,
        };
        self.frame_arp(port, &message.write_frame(own_mac, mac))
    }

    /// A solicited advertisement to the gateway that `target` is at `mac`.
    fn advertised(&mut self, port: PortId, target: &str, mac: [u8; 6]) -> DropReason {
        let PortView { mac: own_mac, ref addresses, .. } = self.ports[port.index()];
        let message = wire_nd::Advertisement {
            source: address(target),
            destination: addresses[1].0,
            target: address(target),
            solicited: true,
            overrides: true,
            target_mac: Some(mac),
        };
        self.frame_nd(port, &message.write_frame(own_mac, mac))
    }

    fn next_hop(&mut self, port: PortId, text: &str) -> NeighbourIndex {
        self.table.next_hop(port, &address(text), self.now).unwrap()
    }

    /// Holds a frame that carries `number`.
    fn hold(&mut self, index: NeighbourIndex, number: u8) -> Result<(), HeapPacket> {
        let packet = self.io.receive(&numbered(BLANK_MACS, number));
        let own = OwnAddresses { ports: &self.ports, owned: &self.owned };
        self.table.hold(own, index, packet, self.now, &mut self.io)
    }

    /// A next hop that has just answered.
    fn reachable(&mut self, port: PortId, text: &str, mac: [u8; 6]) -> NeighbourIndex {
        let index = self.next_hop(port, text);
        self.table.retain(index);
        if address(text).is_v4() {
            self.is_at(port, text, mac)
        } else {
            self.advertised(port, text, mac)
        };
        assert_eq!(self.state(index), NeighbourState::Reachable);
        self.take_sent();
        index
    }

    fn state(&self, index: NeighbourIndex) -> NeighbourState {
        self.table.adjacency(index).state()
    }

    fn neighbour_mac(&self, index: NeighbourIndex) -> &[u8] {
        &self.table.adjacency(index).header()[..6]
    }
}

impl Default for Rig {
    fn default() -> Self {
        Rig::new(NeighbourConfig::default())
    }
}

/// A frame to be told from others by `number`.
fn numbered(macs: [u8; 12], number: u8) -> Vec<u8> {
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2([0; 6], [0; 6])
        .ipv4([10, 2, 0, 100], [10, 2, 0, 11], 64)
        .udp(1, 2)
        .write(&mut frame, &[number; 40])
        .unwrap();
    frame[..12].copy_from_slice(&macs);
    frame
}

fn macs(destination: [u8; 6], source: [u8; 6]) -> [u8; 12] {
    let mut macs = [0; 12];
    macs[..6].copy_from_slice(&destination);
    macs[6..].copy_from_slice(&source);
    macs
}

/// The ARP message of a frame, and its Ethernet destination and source.
fn as_arp(sent: &Sent) -> (ArpMessage, [u8; 12]) {
    let seen = etherparse::SlicedPacket::from_ethernet(&sent.frame).unwrap();
    let Some(etherparse::NetSlice::Arp(arp)) = seen.net else { panic!("no ARP: {seen:?}") };
    let mac = |bytes: &[u8]| <[u8; 6]>::try_from(bytes).unwrap();
    let ip = |bytes: &[u8]| Address::from_v4(bytes.try_into().unwrap());
    let message = ArpMessage {
        operation: if arp.operation() == etherparse::ArpOperation::REPLY {
            Operation::Reply
        } else {
            Operation::Request
        },
        sender_mac: mac(arp.sender_hw_addr()),
        sender: ip(arp.sender_protocol_addr()),
        target_mac: mac(arp.target_hw_addr()),
        target: ip(arp.target_protocol_addr()),
    };
    (message, sent.frame[..12].try_into().unwrap())
}

/// The ND message of a frame whose checksum etherparse finds right, and its Ethernet destination and source.
fn as_nd(sent: &Sent) -> (wire_nd::NdMessage, [u8; 12]) {
    let seen = etherparse::SlicedPacket::from_ethernet(&sent.frame).unwrap();
    let (Some(etherparse::NetSlice::Ipv6(ip)), Some(etherparse::TransportSlice::Icmpv6(icmp))) =
        (seen.net, seen.transport)
    else {
        panic!("no ICMPv6")
    };
    assert!(icmp.is_checksum_valid(ip.header().source(), ip.header().destination()));
    assert_eq!(ip.header().hop_limit(), 255);
    (wire_nd::NdMessage::parse(&sent.frame[14..]).unwrap(), sent.frame[..12].try_into().unwrap())
}
