//! Connections with a PROXY protocol header over links that lose, repeat and reorder: a client and a real server that are
//! TCP as far as it matters here. The real server reads the header and then every byte of the client's once; the client
//! is never told of a byte it did not send. So also with a front, whose own header comes ahead of its client's bytes and
//! reaches nobody.

use std::collections::BTreeMap;

use crate::front::{named, trusting};
use crate::proxy::{V1, V2, header};
use crate::rig::conversation::Conversation;
use crate::rig::frame::{ACK, PSH, SYN, Segment};
use crate::rig::seen::{self, Seen};
use crate::rig::{Families, LAN, Rig, WAN};
use crate::tcp::Numbers;

const SEGMENT: usize = 700;
const WINDOW: usize = 4 * SEGMENT;

/// What is on its way to one side: packets in the order in which they arrive.
#[derive(Default)]
struct Link {
    packets: Vec<Vec<u8>>,
}

impl Link {
    /// One packet in five is lost, one in ten comes twice, one in five ahead of the others.
    fn carry(&mut self, packet: Vec<u8>, numbers: &mut Numbers, is_bad: bool) {
        if is_bad && numbers.below(5) == 0 {
            return;
        }
        if is_bad && numbers.below(10) == 0 {
            self.packets.push(packet.clone());
        }
        let at = if is_bad && numbers.below(5) == 0 { 0 } else { self.packets.len() };
        self.packets.insert(at, packet);
    }
}

/// One side's sending and receiving, by offsets from initial numbers: 0 is the SYN.
struct Side {
    to_send: Vec<u8>,
    acknowledged: u32,
    /// the furthest byte ever sent
    sent: u32,
    received: Vec<u8>,
    out_of_order: BTreeMap<u32, Vec<u8>>,
}

impl Side {
    fn new(to_send: Vec<u8>) -> Side {
        Side { to_send, acknowledged: 1, sent: 1, received: Vec::new(), out_of_order: BTreeMap::new() }
    }

    fn expects(&self) -> u32 {
        1 + self.received.len() as u32
    }

    fn receive(&mut self, offset: u32, payload: &[u8]) {
        if payload.is_empty() {
            return;
        }
        assert!(offset as i32 >= 1, "data before the first byte: {offset}");
        self.out_of_order.insert(offset, payload.to_vec());
        while let Some((&at, _)) = self.out_of_order.range(..=self.expects()).next() {
            let bytes = self.out_of_order.remove(&at).unwrap();
            let known = (self.expects() - at) as usize;
            if known < bytes.len() {
                self.received.extend(&bytes[known..]);
            }
        }
    }

    /// The SACK option for what lies behind a hole, at most two blocks; `base` is the offset's origin.
    fn sack(&self, base: u32, duplicate: Option<(u32, u32)>) -> Vec<u8> {
        let blocks = self.out_of_order.iter().map(|(&at, bytes)| (at, at + bytes.len() as u32));
        let blocks: Vec<(u32, u32)> = duplicate.into_iter().chain(blocks).take(2).collect();
        if blocks.is_empty() {
            return Vec::new();
        }
        let mut option = vec![1, 1, 5, 2 + 8 * blocks.len() as u8];
        for (from, to) in blocks {
            option.extend(base.wrapping_add(from).to_be_bytes());
            option.extend(base.wrapping_add(to).to_be_bytes());
        }
        option
    }

    /// What a sender has in flight or may send: segments from the first unacknowledged byte on.
    fn segments(&mut self, again: bool) -> Vec<(u32, Vec<u8>)> {
        let from = if again { self.acknowledged } else { self.sent };
        let end = (self.acknowledged as usize - 1 + WINDOW).min(self.to_send.len());
        let mut at = from as usize - 1;
        let mut out = Vec::new();
        while at < end {
            let to = (at + SEGMENT).min(end);
            out.push((at as u32 + 1, self.to_send[at..to].to_vec()));
            at = to;
        }
        self.sent = self.sent.max(end as u32 + 1);
        out
    }
}

struct Connection {
    rig: Rig,
    numbers: Numbers,
    flow: Conversation,
    client: Side,
    server: Side,
    to_client: Link,
    to_server: Link,
    /// whether the links lose
    is_bad: bool,
    /// what the real server is told ahead of the client's bytes
    header: Vec<u8>,
    /// whether the client is a front, whose first bytes are a header
    is_front: bool,
}

impl Connection {
    /// A packet of one side's through the gateway, and what leaves onto the links behind it.
    fn through(&mut self, from: fullnat::id::PortId, packet: &[u8]) {
        let out = self.rig.packet(from, packet);
        self.carry(out);
    }

    fn carry(&mut self, out: Vec<Seen>) {
        for seen in out {
            let link = if seen.port == WAN { &mut self.to_client } else { &mut self.to_server };
            link.carry(seen.packet().to_vec(), &mut self.numbers, self.is_bad);
        }
    }

    fn client_sends(&mut self, again: bool) {
        let ack = self.server_offset();
        let segments = self.client.segments(again);
        for (offset, payload) in segments {
            let packet = self.flow.inbound(ACK | PSH, offset, ack).payload(&payload).packet();
            self.through(WAN, &packet);
        }
    }

    /// What the client has of the real server's bytes.
    fn server_offset(&self) -> u32 {
        self.client.expects()
    }

    fn server_sends(&mut self, again: bool, duplicate: Option<(u32, u32)>) {
        let ack = self.server.expects();
        let sack = self.server.sack(self.flow.gateway_isn, duplicate);
        let bare = Segment {
            window: WINDOW as u16,
            ..self.flow.outbound(ACK, self.server.sent, ack).options(&sack)
        };
        self.through(LAN, &bare.packet());
        let segments = self.server.segments(again);
        for (offset, payload) in segments {
            let packet = self.flow.outbound(ACK | PSH, offset, ack).options(&sack).payload(&payload).packet();
            self.through(LAN, &packet);
        }
    }

    fn at_client(&mut self, packet: &[u8]) {
        let seen = read(WAN, packet);
        let offset = |number: u32| number.wrapping_sub(self.flow.client_isn);
        if seen.flags() & SYN != 0 {
            assert_eq!(offset(seen.ack()), 1);
            let ack = self.flow.inbound(ACK, 1, self.server_offset()).packet();
            self.through(WAN, &ack);
            if self.is_front {
                self.client_sends(true);
            }
            return;
        }
        let acknowledged = offset(seen.ack());
        assert!(
            (1..=self.client.sent).contains(&acknowledged),
            "acknowledged {acknowledged}, sent {}",
            self.client.sent
        );
        for option in seen::options(seen.options()) {
            let edges: Vec<u32> = option[2..]
                .chunks(4)
                .map(|edge| offset(u32::from_be_bytes(edge.try_into().unwrap())))
                .collect();
            for block in edges.chunks(2) {
                assert!(1 <= block[0] && block[0] < block[1] && block[1] <= self.client.sent, "{block:?}");
                assert_ne!(block[0], acknowledged, "a hole of no bytes");
            }
        }
        self.client.acknowledged = self.client.acknowledged.max(acknowledged);
        self.client.receive(seen.seq().wrapping_sub(self.flow.server_isn), &seen.payload);
        if !seen.payload.is_empty() {
            let ack = self.flow.inbound(ACK, self.client.sent, self.server_offset()).packet();
            self.through(WAN, &ack);
        }
        self.client_sends(false);
    }

    fn at_server(&mut self, packet: &[u8]) {
        let seen = read(LAN, packet);
        if seen.flags() & SYN != 0 {
            assert_eq!(seen.seq(), self.flow.gateway_isn);
            let syn_ack = self.flow.outbound(SYN | ACK, 0, 1).packet();
            return self.through(LAN, &syn_ack);
        }
        let acknowledged = seen.ack().wrapping_sub(self.flow.server_isn);
        assert!((1..=self.server.sent).contains(&acknowledged));
        self.server.acknowledged = self.server.acknowledged.max(acknowledged);
        let mut offset = seen.seq().wrapping_sub(self.flow.gateway_isn);
        let end = offset.wrapping_add(seen.payload.len() as u32);
        let mut payload = &seen.payload[..];
        if self.is_front {
            // What begins before the first byte ends there (RFC 9293 §3.10.7.4), and brings an answer as any that is old.
            let before = if (offset as i32) < 1 { 1u32.wrapping_sub(offset) as usize } else { 0 };
            payload = &payload[before.min(payload.len())..];
            if (end as i32) <= 0 || end < self.server.expects() {
                self.server_sends(false, None);
            }
            offset = offset.wrapping_add((seen.payload.len() - payload.len()) as u32);
        }
        // RFC 2883 §4.1
        let duplicate = (end <= self.server.expects() && end > offset).then_some((offset, end));
        self.server.receive(offset, payload);
        if !payload.is_empty() {
            self.server_sends(false, duplicate);
        }
    }

    fn run(&mut self) {
        let of_front = if self.is_front { front_header().len() } else { 0 };
        let expected = [&self.header[..], &self.client.to_send[of_front..]].concat();
        for round in 0.. {
            assert!(
                round < 3000,
                "it does not end: {} of {} bytes",
                self.server.received.len(),
                expected.len()
            );
            while !self.to_client.packets.is_empty() || !self.to_server.packets.is_empty() {
                if !self.to_client.packets.is_empty() {
                    let packet = self.to_client.packets.remove(0);
                    self.at_client(&packet);
                }
                if !self.to_server.packets.is_empty() {
                    let packet = self.to_server.packets.remove(0);
                    self.at_server(&packet);
                }
            }
            let is_over = self.server.received.len() >= expected.len()
                && self.client.received.len() >= self.server.to_send.len()
                && self.client.acknowledged == 1 + self.client.to_send.len() as u32;
            if is_over {
                break;
            }
            // Both sides' timers, and the gateway's.
            self.rig.pass_ticks(20);
            let out = self.rig.take_sent();
            self.carry(out);
            self.client_sends(true);
            self.server_sends(true, None);
        }
        assert_eq!(self.server.received, expected);
        assert_eq!(self.client.received, self.server.to_send);
    }
}

fn read(port: fullnat::id::PortId, packet: &[u8]) -> Seen {
    let frame = crate::rig::frame::ethernet([2; 6], [4; 6], packet);
    Seen::read(port, &frame, false).expect("an IP packet")
}

/// What a front says ahead of its client's bytes: an odd number of bytes.
fn front_header() -> Vec<u8> {
    let (client, vip) = named(false);
    let header = header(V1, client, vip, 1);
    assert_eq!(header.len() % 2, 1);
    header
}

/// A connection of a front's with a service that trusts it, and tells its real server as `more` says.
fn front_connection(families: Families, more: &str, seed: u64, bytes: (usize, usize), is_bad: bool) {
    let (client, vip) = named(false);
    let told = if more.is_empty() { Vec::new() } else { header(more, client, vip, 1) };
    connect(families, &trusting(more), seed, bytes, is_bad, (front_header(), told));
}

fn connection(families: Families, more: &str, seed: u64, bytes: (usize, usize), is_bad: bool) {
    let told = header(more, (families.client(), 5000 + seed as u16), families.vip_end(), 1);
    connect(families, more, seed, bytes, is_bad, (Vec::new(), told));
}

fn connect(
    families: Families,
    more: &str,
    seed: u64,
    bytes: (usize, usize),
    is_bad: bool,
    (of_front, told): (Vec<u8>, Vec<u8>),
) {
    let mut rig = Rig::new(&families.config(2, "tcp", more));
    let mut numbers = Numbers(seed);
    let (client, vip) = ((families.client(), 5000 + seed as u16), (families.vip(), 80));
    let flow = Conversation::begin_with(&mut rig, client, vip, numbers.next(), &[]);
    let flow = Conversation { server_isn: numbers.next(), ..flow };
    let text = |len: usize, from: u32| -> Vec<u8> {
        (0..len as u32).map(|at| (at.wrapping_mul(from) >> 3) as u8).collect()
    };
    let to_send = [&of_front[..], &text(bytes.0, 0x9e37)].concat();
    let sent = to_send.len() as u32;
    let mut connection = Connection {
        rig,
        flow,
        client: Side::new(to_send),
        server: Side::new(text(bytes.1, 0x85eb)),
        to_client: Link::default(),
        to_server: Link::default(),
        is_bad,
        header: told,
        is_front: !of_front.is_empty(),
        numbers,
    };
    // The SYN that made the session has arrived; its answer may be lost, too, and is repeated until heard.
    let mut tries = 0;
    while connection.rig.state(client, vip) != Some(fullnat::session::State::Established) {
        tries += 1;
        assert!(tries < 200);
        connection.through(LAN, &connection.flow.outbound(SYN | ACK, 0, 1).packet());
        while !connection.to_client.packets.is_empty() {
            let packet = connection.to_client.packets.remove(0);
            connection.at_client(&packet);
        }
    }
    connection.run();
    // The real server has heard all; what is left of it is the express lane's.
    connection.rig.pass(70);
    connection.rig.mark();
    connection.through(WAN, &connection.flow.inbound(ACK, 1 + sent, 1 + bytes.1 as u32).packet());
    connection.rig.moved(&[("received", 1), ("transmitted", 1)]);
    connection.rig.finish();
}

#[test]
fn every_byte_arrives_once_behind_the_header_over_links_that_lose() {
    for families in Families::ALL {
        for more in [V1, V2] {
            connection(families, more, 1, (3000, 3000), false);
            for seed in 2..40 {
                let bytes = [(5000, 5000), (1, 3000), (3000, 0), (0, 3000)][seed as usize % 4];
                connection(families, more, seed, bytes, true);
            }
        }
    }
}

#[test]
fn conformance_i21_every_byte_behind_a_fronts_header_arrives_once_over_links_that_lose() {
    for families in Families::ALL {
        for more in ["", V1, V2] {
            front_connection(families, more, 1, (3000, 3000), false);
            for seed in 2..40 {
                let bytes = [(5000, 5000), (1, 3000), (3000, 0), (0, 3000)][seed as usize % 4];
                front_connection(families, more, seed, bytes, true);
            }
        }
    }
}
