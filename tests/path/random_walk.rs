//! Many clients and real servers that do whatever comes, over several workers, while time passes and configurations change.
//! The rig holds every frame and every packet's books against the invariants; each run can be repeated by its seed.

use fullnat::wire::Protocol;

use crate::front::{named, trusting};
use crate::pools::small_pool;
use crate::proxy::header;
use crate::rig::conversation::Conversation;
use crate::rig::frame::{ACK, FIN, PSH, RST, SYN, Segment, icmp, udp};
use crate::rig::seen::Seen;
use crate::rig::{Families, LAN, Rig, WAN};
use crate::tcp::Numbers;

/// One client port and what it believes.
struct Client {
    flow: Conversation,
    /// offsets of the next byte of each side
    sent: [u32; 2],
    /// last frame each side saw
    seen: [Option<Seen>; 2],
}

struct Walk {
    rig: Rig,
    families: Families,
    numbers: Numbers,
    clients: Vec<Client>,
    configurations: Vec<String>,
}

impl Walk {
    fn new(families: Families, workers: usize, seed: u64) -> Walk {
        let other = if families.server_v6 { "[2001:db8:2::12]:8080" } else { "10.2.0.12:8080" };
        let udp = crate::rig::service("udp", &families.vip().to_string(), &families.rip().to_string(), "");
        let udp = udp.replace("\"web\"", "\"dns\"");
        let headed = udp.replace("local_pool", "client_address = \"proxy-v2\"\nlocal_pool");
        let config = |tcp: &str, weight: u16| {
            let second = format!("[[service.real_server]]\naddress = \"{other}\"\nweight = {weight}\n");
            small_pool(&families.config(workers, "tcp", tcp), 20) + &second + &udp
        };
        let toa = "client_address = \"toa\"\n[service.toa]\nno_room = \"bare-ack\"";
        let without_second = small_pool(&families.config(workers, "tcp", "on_remove = \"reset\""), 20) + &udp;
        let without_service = small_pool(&crate::rig::base(workers), 20) + &headed;
        let configurations = vec![
            config(toa, 1),
            config(toa, 0),
            config("client_address = \"toa\"\n[service.toa]\nno_room = \"reset\"", 2),
            config("on_remove = \"reset\"\n[service.timeouts]\ntcp_established_secs = 40", 1),
            config(crate::proxy::V1, 1),
            config(crate::proxy::V2, 1),
            config(&trusting(toa), 1),
            config(&trusting(crate::proxy::V1), 1),
            without_second,
            without_service,
        ];
        let rig = Rig::new(&configurations[0]);
        Walk { rig, families, numbers: Numbers(seed), clients: Vec::new(), configurations }
    }

    fn options(&mut self) -> Vec<u8> {
        let n = self.numbers.next();
        match n % 6 {
            0 => [&[1, 1, 8, 10][..], &n.to_be_bytes(), &[0; 4]].concat(),
            1 => [&[1, 1, 5, 10][..], &n.to_be_bytes(), &n.to_le_bytes()].concat(),
            2 => vec![254, 8, 1, 2, 3, 4, 5, 6],
            3 => vec![1; 40],
            _ => Vec::new(),
        }
    }

    /// A SYN from one of a few dozen client ports.
    fn connect(&mut self) {
        let (client, vip) =
            ((self.families.client(), 1 + self.numbers.below(120) as u16), (self.families.vip(), 80));
        let isn = self.numbers.next();
        let list = self.options();
        let out = self.rig.client(&Segment::new(client, vip, SYN, isn, 0).options(&list).packet());
        let Some(seen) = out.iter().find(|seen| seen.port == LAN && seen.flags() & SYN != 0) else { return };
        let mut flow = Conversation::of_syn(seen, client, vip, isn);
        flow.server_isn = self.numbers.next();
        self.clients.retain(|other| other.flow.client != client);
        if self.numbers.below(4) > 0 {
            self.rig.server(&flow.outbound(SYN | ACK, 0, 1).packet());
            self.rig.client(&flow.inbound(ACK, 1, 1).packet());
        }
        self.clients.push(Client { flow, sent: [1, 1], seen: [None, None] });
    }

    /// A segment of one side, mostly what it would send next.
    fn segment(&mut self) {
        if self.clients.is_empty() {
            return self.connect();
        }
        let at = self.numbers.below(self.clients.len() as u32) as usize;
        let by_client = self.numbers.below(2) == 0;
        // Real servers send no TOA.
        let list =
            Some(self.options()).filter(|list| by_client || list.first() != Some(&254)).unwrap_or_default();
        let kind = self.numbers.below(24);
        let stray = self.numbers.next();
        let payload = vec![stray as u8; [0, 0, 1, 100, 1300][self.numbers.below(5) as usize]];
        let flow = self.clients[at].flow;
        // What a front would say first, whether it is asked for or not.
        let begins = by_client && self.clients[at].sent[0] == 1 && self.numbers.below(2) == 0;
        let (named, dialled) = named(stray & 1 == 0);
        let payload = if begins { header(crate::proxy::V1, named, dialled, 1) } else { payload };
        if self.rig.find(flow.client, flow.vip, Protocol::Tcp).is_none() && self.numbers.below(4) == 0 {
            self.clients.remove(at);
            return;
        }
        let client = &mut self.clients[at];
        let side = usize::from(!by_client);
        let (mut seq, ack) = (client.sent[side], client.sent[1 - side]);
        let flags = match kind {
            0..2 => FIN | ACK,
            2 => RST,
            3 => RST | ACK,
            4 => SYN,
            5..8 => SYN | ACK,
            _ => ACK | PSH,
        };
        match (flags, kind) {
            (_, 4..8) => seq = 0,
            (_, 8..10) => seq = stray,
            _ => {}
        }
        let payload = if flags & (SYN | RST | FIN) == 0 { payload } else { Vec::new() };
        if kind >= 10 || flags & FIN != 0 {
            client.sent[side] = seq.wrapping_add(payload.len() as u32 + u32::from(flags & FIN != 0));
        }
        let out = if by_client {
            self.rig.client(&flow.inbound(flags, seq, ack).options(&list).payload(&payload).packet())
        } else {
            self.rig.server(&flow.outbound(flags, seq, ack).options(&list).payload(&payload).packet())
        };
        for seen in out {
            let side = usize::from(seen.port == WAN);
            if matches!(seen.l4, crate::rig::seen::L4::Tcp { .. }) {
                self.clients[at].seen[side] = Some(seen);
            }
        }
    }

    /// Both sides close as they should, in either order.
    fn close(&mut self) {
        if self.clients.is_empty() {
            return;
        }
        let Client { flow, sent: [client, server], .. } =
            self.clients.remove(self.numbers.below(self.clients.len() as u32) as usize);
        let fins = [flow.inbound(FIN | ACK, client, server), flow.outbound(FIN | ACK, server, client)];
        let acks = [
            flow.inbound(ACK, client.wrapping_add(1), server.wrapping_add(1)),
            flow.outbound(ACK, server.wrapping_add(1), client.wrapping_add(1)),
        ];
        let first = self.numbers.below(2) as usize;
        for (at, segment) in [(first, &fins), (1 - first, &fins), (first, &acks), (1 - first, &acks)] {
            self.rig.packet([WAN, LAN][at], &segment[at].packet());
        }
    }

    /// An ICMP error about the last thing one side saw.
    fn error(&mut self) {
        let side = self.numbers.below(2) as usize;
        let mtu = self.numbers.below(1600);
        let Some(Some(seen)) =
            self.clients.iter().map(|client| client.seen[side].clone()).find(Option::is_some)
        else {
            return;
        };
        let v6 = seen.src.is_ipv6();
        let (kind, code, rest) = match (self.numbers.below(3), v6) {
            (0, false) => (3, 4, mtu),
            (0, true) => (2, 0, mtu),
            (1, false) => (3, 3, 0),
            (1, true) => (1, 4, 0),
            (_, false) => (11, 0, 0),
            (_, true) => (3, 0, 0),
        };
        let cut = seen.packet().len().min(28 + 20 * usize::from(v6) + self.numbers.below(1400) as usize);
        let error = icmp(seen.dst, seen.src, kind, code, rest, &seen.packet()[..cut]);
        self.rig.packet(if side == 0 { LAN } else { WAN }, &error);
    }

    fn datagram(&mut self) {
        let (client, vip) =
            ((self.families.client(), 1 + self.numbers.below(50) as u16), (self.families.vip(), 80));
        for seen in self.rig.client(&udp(client, vip, b"question")) {
            if seen.port == LAN && self.numbers.below(2) == 0 {
                let (lip, rip) = seen.ends();
                self.rig.server(&udp(rip, lip, b"answer"));
            }
        }
        assert!(self.rig.find(client, vip, Protocol::Udp).is_some() || self.rig.leases() >= 20);
    }

    fn step(&mut self) {
        match self.numbers.below(100) {
            0..20 => self.connect(),
            20..68 => self.segment(),
            68..76 => self.close(),
            76..83 => self.error(),
            83..91 => self.datagram(),
            91..98 => {
                let ticks = self.numbers.below(300);
                self.rig.pass_ticks(ticks);
            }
            98 => {
                let seconds = self.numbers.below(130);
                self.rig.pass_ticks(100 * seconds);
            }
            _ => {
                // Every other time back to the first.
                let at = self.numbers.below(2 * self.configurations.len() as u32) as usize;
                let at = if at < self.configurations.len() { at } else { 0 };
                let next = self.configurations[at].clone();
                self.rig.apply(&next);
            }
        }
    }
}

fn walk(families: Families, workers: usize, seed: u64, steps: u32) {
    let mut walk = Walk::new(families, workers, seed);
    (0..steps).for_each(|_| walk.step());
    let created: u64 = walk.rig.engines.iter().map(|engine| engine.counters().sessions_created).sum();
    let taken_over: u64 = walk.rig.engines.iter().map(|engine| engine.counters().leases_taken_over).sum();
    assert!(
        created > 500 && taken_over > 0,
        "a walk that went nowhere: {created} sessions, {taken_over} taken over"
    );
    walk.rig.finish();
}

#[test]
fn conformance_p1_p4_a_random_walk_with_one_worker() {
    Families::ALL.into_iter().zip(1..).for_each(|(families, seed)| walk(families, 1, seed, 10_000));
}

#[test]
fn conformance_p1_p4_a_random_walk_with_two_workers() {
    Families::ALL.into_iter().zip(11..).for_each(|(families, seed)| walk(families, 2, seed, 10_000));
}

#[test]
fn conformance_p1_p4_a_random_walk_with_four_workers() {
    Families::ALL.into_iter().zip(21..).for_each(|(families, seed)| walk(families, 4, seed, 10_000));
}
