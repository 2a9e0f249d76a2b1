//! Group P: books and buffers. Every scenario here is held against them after each packet; these ask for what others do not.

use fullnat::path::heap::Shape;

use crate::rig::conversation::Conversation;
use crate::rig::frame::{ACK, FIN, RST, SYN, Segment, icmp, udp};
use crate::rig::{Families, LAN, Options, Rig, WAN, one};

/// A mixture of everything, to be run under shortage.
fn mixture(rig: &mut Rig, families: Families, round: u16) {
    let (client, vip) = ((families.client(), 5000 + round), (families.vip(), 80));
    let far = (families.vip(), 81);
    let syn = Segment::new(client, vip, SYN, 1, 0);
    let out = rig.client(&syn.packet());
    if let [seen] = &out[..]
        && seen.port == LAN
    {
        let flow = Conversation::of_syn(seen, client, vip, 1);
        let answer = rig.server(&flow.outbound(SYN | ACK, 0, 1).packet());
        rig.client(&flow.inbound(ACK, 1, 1).options(&[1; 40]).packet());
        let (kind, code) = if families.client_v6 { (1, 4) } else { (3, 3) };
        for seen in answer {
            rig.client(&icmp(client.0, vip.0, kind, code, 0, seen.packet()));
        }
        rig.client(&flow.inbound(FIN | ACK, 1, 1).packet());
        rig.server(&flow.outbound(RST, 1, 0).packet());
    }
    rig.client(&Segment::new(client, far, ACK, 1, 1).packet());
    rig.client(&udp(client, far, b"x"));
    rig.client(&icmp(client.0, vip.0, if families.client_v6 { 128 } else { 8 }, 0, 1, b"ping"));
    let frame = rig.framed(WAN, &syn.packet());
    rig.frame(WAN, &frame[..20]);
}

#[test]
fn conformance_p1_p5_m16_the_books_balance_under_every_shortage() {
    for families in Families::ALL {
        let more = "client_address = \"toa\"\n[service.toa]\nno_room = \"bare-ack\"";
        for (buffers_max, ring_room, shape) in [
            (Some(0), None, Shape::default()),
            (Some(1), None, Shape::default()),
            (None, Some(0), Shape::default()),
            (None, Some(5), Shape::default()),
            (None, None, Shape { headroom: 0, room: 2048, first_segment: usize::MAX }),
            (None, None, Shape { headroom: 0, room: 60, first_segment: 60 }),
            (None, None, Shape { headroom: 128, room: 20, first_segment: 7 }),
            (None, None, Shape { headroom: 128, room: 100, first_segment: 33 }),
        ] {
            let mut rig = Rig::new(&families.config(4, "tcp", more));
            for io in &mut rig.ios {
                (io.buffers_max, io.ring_room, io.shape) = (buffers_max, ring_room, shape);
            }
            (0..20).for_each(|round| mixture(&mut rig, families, round));
            for io in &mut rig.ios {
                (io.buffers_max, io.ring_room, io.shape) = (None, None, Shape::default());
            }
            // Full recovery.
            let flow = Conversation::open(&mut rig, families, 9);
            flow.send(&mut rig, ACK, 1, 1);
            rig.finish();
        }
    }
}

#[test]
fn conformance_l3_a_full_session_table_refuses_and_recovers() {
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(1, "tcp", ""));
        let max = rig.engines[0].sessions().capacity();
        let flows: Vec<_> =
            (1..=max).map(|cport| Conversation::begin(&mut rig, families, cport as u16)).collect();
        flows[0].shake(&mut rig);
        rig.mark();
        let syn = Segment::new((families.client(), 60_000), (families.vip(), 80), SYN, 70, 0);
        assert_eq!(one(rig.client(&syn.packet())).tcp(), (RST | ACK, 0, 71));
        rig.moved(&[("received", 1), ("originated", 1), ("transmitted", 1), ("drop.session_table_full", 1)]);
        flows[0].send(&mut rig, ACK, 1, 1);
        flows[1].reply(&mut rig, RST | ACK, 0, 1);
        rig.pass(12);
        Conversation::open(&mut rig, families, 60_000);
        rig.finish();
    }
}

#[test]
fn conformance_p3_counts_at_real_servers_return_to_zero() {
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(4, "tcp", "").replace("\"rr\"", "\"wlc\""));
        for round in 0..30u16 {
            for cport in 1..=10 {
                let (client, vip) = ((families.client(), 1000 * (round % 3) + cport), (families.vip(), 80));
                let flow = Conversation::begin_with(&mut rig, client, vip, u32::from(round) << 20, &[]);
                flow.shake(&mut rig);
                match (round + cport) % 4 {
                    0 => {
                        flow.send(&mut rig, RST, 1, 0);
                    }
                    1 => {
                        flow.send(&mut rig, FIN | ACK, 1, 1);
                        flow.reply(&mut rig, FIN | ACK, 1, 2);
                        flow.send(&mut rig, ACK, 2, 2);
                    }
                    2 => {
                        flow.reply(&mut rig, FIN | ACK, 1, 1);
                    }
                    _ => {
                        // As if the client had vanished: only the time-out ends it, or its RST later.
                        flow.send(&mut rig, RST, 1, 0);
                    }
                }
            }
            rig.pass(1);
        }
        rig.pass(905);
        assert_eq!((rig.sessions(), rig.at_real_servers()), (0, (0, 0)));
        rig.finish();
    }
}

#[test]
fn packets_wait_for_their_next_hop_in_order_and_a_full_queue_says_so() {
    let families = Families::V4;
    let options = Options { hosts_answer: false, ..Options::default() };
    let mut rig = Rig::with(&families.config(1, "udp", ""), options);
    let (client, vip) = ((families.client(), 5000), (families.vip(), 80));
    for number in 0..40u8 {
        assert!(rig.client(&udp(client, vip, &[number])).is_empty());
    }
    assert_eq!(rig.held(), 32);
    assert_eq!(rig.dropped(fullnat::path::drop_reason::DropReason::NeighbourQueueFull), 8);
    let hello = crate::rig::frame::arp(
        1,
        ([2, 0, 0, 2, 0, 11], [10, 2, 0, 11]),
        ([0; 6], [10, 2, 0, 254]),
        [0xff; 6],
    );
    let out = rig.frame(LAN, &hello);
    assert!(out.iter().map(|seen| seen.payload[0]).eq(0..32));
    assert_eq!(rig.held(), 0);
    rig.finish();
}

/// What one worker learns of a neighbour all know.
#[test]
fn neighbours_are_learned_by_all_workers() {
    let families = Families::V4;
    let mut rig = Rig::new(&families.config(4, "tcp", ""));
    for cport in 1..=64 {
        let flow = Conversation::open(&mut rig, families, cport);
        flow.send(&mut rig, ACK, 1, 1);
    }
    // No worker asked or held a packet.
    rig.moved(&[("received", 64 * 4), ("transmitted", 64 * 4), ("sessions_created", 64)]);
    rig.finish();
}
