//! The express lane and the long way are one: two gateways that differ in nothing but which of the two their packets take
//! send the same frames.

use crate::rig::conversation::Conversation;
use crate::rig::frame::{ACK, FIN, PSH, RST, SYN, Segment, udp};
use crate::rig::seen::Seen;
use crate::rig::{Families, LAN, Options, Rig, WAN, base, one, service};
use crate::tcp::Numbers;

/// Frames with a priority tag all go the long way. Packets may lack their checksums or not; here they have them.
fn lanes(config: &str, partial_checksums: bool) -> [Rig; 2] {
    [false, true].map(|priority_tag| {
        Rig::with(config, Options { priority_tag, partial_checksums, ..Options::default() })
    })
}

fn frames(seen: Vec<Seen>) -> Vec<Vec<u8>> {
    seen.into_iter().map(|seen| seen.frame).collect()
}

fn options(numbers: &mut Numbers, inbound: bool) -> Vec<u8> {
    let n = numbers.next();
    match n % 8 {
        0..3 => [&[1, 1, 8, 10][..], &n.to_be_bytes(), &n.to_le_bytes()].concat(),
        3 => [&[1, 1, 5, 10][..], &n.to_be_bytes(), &n.to_le_bytes()].concat(),
        4 if inbound => vec![254, 8, 1, 2, 3, 4, 5, 6],
        5 => vec![1; 40],
        _ => Vec::new(),
    }
}

fn flags(numbers: &mut Numbers) -> u8 {
    match numbers.below(64) {
        0 => FIN | ACK,
        1 => RST,
        2 => SYN,
        3..34 => ACK | PSH,
        _ => ACK,
    }
}

#[test]
fn segments_leave_the_same_by_both_lanes() {
    let toa = "client_address = \"toa\"\n[service.toa]\nno_room = \"forward\"";
    for families in Families::ALL {
        for (seed, more) in [(1, ""), (2, toa), (3, toa)] {
            // With two workers half of the packets are handed over before they are forwarded.
            let mut rigs = lanes(&families.config(1 + seed as usize % 2, "tcp", more), seed == 2);
            let mut numbers = Numbers(seed);
            for cport in 5000..5040 {
                let [flow, other] = [0, 1].map(|at| Conversation::open(&mut rigs[at], families, cport));
                assert_eq!((flow.gateway_isn, flow.lip), (other.gateway_isn, other.lip));
                let mut furthest = 1;
                for _ in 0..40 {
                    let inbound = numbers.below(2) == 0;
                    let (flags, list) = (flags(&mut numbers), options(&mut numbers, inbound));
                    let (seq, ack) =
                        (1 + numbers.below(4000), 1 + numbers.below(if seed == 3 { 1 } else { 4000 }));
                    let payload = vec![seq as u8; numbers.below(1400) as usize];
                    let segment =
                        if inbound { flow.inbound(flags, seq, ack) } else { flow.outbound(flags, seq, ack) };
                    if inbound {
                        furthest = furthest.max(seq + payload.len() as u32);
                    }
                    let packet = segment.options(&list).payload(&payload).packet();
                    let [express, long] = rigs
                        .each_mut()
                        .map(|rig| frames(if inbound { rig.client(&packet) } else { rig.server(&packet) }));
                    assert_eq!(express, long, "{families:?} {more} {packet:02x?}");
                }
                // What both have noted of the numbers decides whether this RST ends the session.
                rigs.iter_mut().for_each(|rig| drop(rig.client(&flow.inbound(RST, furthest, 0).packet())));
                assert_eq!(flow.state(&rigs[0]), flow.state(&rigs[1]));
            }
            let [express, long] = rigs.each_ref().map(Rig::counted);
            assert_eq!(express, long);
        }
    }
}

#[test]
fn datagrams_leave_the_same_by_both_lanes() {
    for families in Families::ALL {
        let mut rigs = lanes(&families.config(1, "udp", ""), families.client_v6);
        let mut numbers = Numbers(1);
        for _ in 0..500 {
            let client = (families.client(), 5000 + numbers.below(20) as u16);
            let longest = [12, 1500][numbers.below(2) as usize];
            let payload = vec![1; numbers.below(longest) as usize];
            let request = udp(client, (families.vip(), 80), &payload);
            let out = rigs.each_mut().map(|rig| rig.client(&request));
            assert_eq!(frames(out[0].clone()), frames(out[1].clone()));
            if out[0].len() == 1 && out[0][0].port == crate::rig::LAN {
                let (lip, rip) = one(out[0].clone()).ends();
                let answer = udp(rip, lip, &payload);
                let [express, long] = rigs.each_mut().map(|rig| frames(rig.server(&answer)));
                assert_eq!(express, long);
            }
        }
    }
}

/// All kinds of packets in one burst, those among them that begin sessions, carry TOA, leave by another port, or go no
/// further.
#[test]
fn mixed_bursts_leave_the_same_in_the_same_order() {
    let both = [Families::ALL[0], Families::ALL[1]];
    let services = both.map(|families| {
        let [vip, rip] = [families.vip(), families.rip()].map(|address| address.to_string());
        let tcp = service("tcp", &vip, &rip, "client_address = \"toa\"");
        let udp = service("udp", &vip, &rip, "");
        let name = |text: String, kind| {
            text.replace("\"web\"", &format!("\"{kind}{}\"", if families.client_v6 { 6 } else { 4 }))
        };
        name(tcp, "tcp") + &name(udp, "udp")
    });
    for seed in 1..8 {
        // With two workers the one that gets them all has sessions of half of them.
        let config = base(if seed % 4 < 2 { 1 } else { 2 }) + &services.concat();
        // Without the filter, answers may come by the port of requests.
        let filtered = seed < 5;
        let filter = format!("mtu = 1500\nreverse_path_filter = {filtered}");
        let mut rigs = lanes(&config.replace("mtu = 1500", &filter), seed % 2 == 0);
        let mut numbers = Numbers(seed);
        let flows: Vec<Conversation> = both
            .into_iter()
            .flat_map(|families| (5000..5004).map(move |cport| (families, cport)))
            .map(|(families, cport)| {
                let [flow, _] = rigs.each_mut().map(|rig| Conversation::open(rig, families, cport));
                flow
            })
            .collect();
        for burst in 0..60 {
            let port = if burst % 3 == 2 { LAN } else { WAN };
            let packets: Vec<Vec<u8>> = (0..1 + numbers.below(32))
                .map(|_| {
                    let flow = &flows[numbers.below(flows.len() as u32) as usize];
                    let families = both[numbers.below(2) as usize];
                    let (n, payload) = (numbers.below(400), vec![7; numbers.below(300) as usize]);
                    let draw = numbers.below(16);
                    let inbound = port == WAN && (filtered || draw < 10);
                    let segment = match (inbound, draw) {
                        (false, _) => flow.outbound(ACK, 1 + n, 1 + n),
                        (_, 0) => {
                            let client = (families.client(), 6000 + n as u16);
                            Segment::new(client, families.vip_end(), SYN, numbers.next(), 0)
                        }
                        (_, 1..8) => {
                            let client = (families.client(), 7000 + (n % 8) as u16);
                            return udp(client, families.vip_end(), &payload);
                        }
                        _ => flow.inbound(ACK, 1 + n, 1 + n),
                    };
                    let mut packet =
                        segment.options(&options(&mut numbers, inbound)).payload(&payload).packet();
                    // Of IPv4 that is a wrong checksum.
                    packet[1] ^= u8::from(numbers.below(40) == 0);
                    packet
                })
                .collect();
            let [express, long] = rigs.each_mut().map(|rig| {
                let framed: Vec<_> = packets.iter().map(|packet| rig.framed(port, packet)).collect();
                frames(rig.burst(0, port, &framed))
            });
            assert_eq!(express, long, "burst {burst} of seed {seed}");
        }
        let [express, long] = rigs.each_ref().map(Rig::counted);
        assert_eq!(express, long);
    }
}

/// Options of a SYN: as stacks send them, and as they do not.
fn syn_options(numbers: &mut Numbers) -> Vec<u8> {
    let mut list = Vec::new();
    for _ in 0..numbers.below(5) {
        let n = numbers.next().to_be_bytes();
        list.extend(match numbers.below(8) {
            0 => vec![2, 4, n[0], n[1]],
            1 => vec![4, 2, 1, 1],
            2 => [&[1, 1, 8, 10][..], &n, &[0; 4]].concat(),
            3 => [&[8, 10][..], &n, &[0; 4], &[1, 1]].concat(),
            4 => vec![1, 3, 3, 7],
            5 => vec![30, 4, n[0] & 0x1f, n[1]],
            6 => [&[254, 8][..], &n, &[1, 2]].concat(),
            _ => vec![n[0], n[1], n[2], n[3]],
        });
    }
    list.truncate(40);
    list
}

#[test]
fn first_segments_leave_the_same_by_both_lanes() {
    let toa = "client_address = \"toa\"";
    let proxy = "client_address = \"proxy-v2\"";
    for families in Families::ALL {
        for (workers, more) in [(1, ""), (2, ""), (1, toa), (1, proxy)] {
            let mut rigs = lanes(&families.config(workers, "tcp", more), more == toa);
            let mut numbers = Numbers(7);
            for cport in 5000..5400 {
                let (client, vip) = ((families.client(), cport), (families.vip(), 80));
                let ecn = [0, 0xc0][numbers.below(2) as usize];
                let payload = vec![3; numbers.below(2) as usize * numbers.below(1300) as usize];
                let isn = numbers.next();
                let syn = Segment::new(client, vip, SYN | ecn, isn, 0).options(&syn_options(&mut numbers));
                let packet = syn.payload(&payload).packet();
                let out = rigs.each_mut().map(|rig| rig.client(&packet));
                assert_eq!(out[0].len(), 1, "it goes through: {packet:02x?}");
                let [short, long] = out.map(frames);
                assert_eq!(short, long, "{families:?} {more} {packet:02x?}");
                // And once more, now that the session is there.
                let again = rigs.each_mut().map(|rig| frames(rig.client(&packet)));
                assert_eq!(again[0], again[1], "{families:?} {more} {packet:02x?}");
            }
            let [short, long] = rigs.each_ref().map(Rig::counted);
            assert_eq!(short, long);
        }
    }
}

/// What the lane does not ask of packets of an established session is asked all the same, and told by its name.
#[test]
fn damaged_packets_of_a_session_are_dropped_by_name_in_both_lanes() {
    for families in [Families::ALL[0], Families::ALL[1]] {
        let l4 = if families.client_v6 { 40 } else { 20 };
        for mut rig in lanes(&families.config(1, "udp", ""), false) {
            let good = udp((families.client(), 5000), (families.vip(), 80), &[1; 40]);
            one(rig.client(&good));
            one(rig.client(&good));
            let mut damages = vec![(4..6, [0, 7], "udp_header"), (4..6, [1, 0], "udp_header")];
            damages.push((2..4, [0, 0], "udp_header"));
            if families.client_v6 {
                damages.push((6..8, [0, 0], "udp_checksum_missing"));
            }
            rig.mark();
            for (at, bytes, reason) in damages {
                let mut packet = good.clone();
                packet[l4..][at].copy_from_slice(&bytes);
                let out = rig.client(&packet);
                rig.only_drop(&out, reason);
            }
            one(rig.client(&good));
        }
        for mut rig in lanes(&families.config(1, "tcp", ""), true) {
            let flow = Conversation::open(&mut rig, families, 5000);
            let good = flow.inbound(ACK, 1, 1).packet();
            one(rig.client(&good));
            rig.mark();
            for (at, byte, reason) in [
                (12, 0x40, "tcp_header"),
                (12, 0x80, "tcp_header"),
                (12, 0xf0, "tcp_header"),
                (13, 0, "tcp_flags"),
                (13, SYN | FIN, "tcp_flags"),
            ] {
                // What follows the packet in its frame looks like options.
                let mut packet = [&good[..], &[1, 1, 8, 10], &[7; 8]].concat();
                packet[l4 + at] = byte;
                let out = rig.client(&packet);
                rig.only_drop(&out, reason);
            }
            one(rig.client(&good));
        }
    }
}
