//! ARP messages in, answers and table changes out.

use super::*;

fn reply(sender: &str, sender_mac: [u8; 6], target: &str, target_mac: [u8; 6]) -> ArpMessage {
    ArpMessage {
        operation: Operation::Reply,
        sender_mac,
        sender: address(sender),
        target_mac,
        target: address(target),
    }
}

/// A gratuitous request that claims `claimed` for `mac`.
fn gratuitous(claimed: &str, mac: [u8; 6]) -> [u8; 60] {
    ArpMessage {
        operation: Operation::Request,
        sender_mac: mac,
        sender: address(claimed),
        target_mac: [0; 6],
        target: address(claimed),
    }
    .write_frame(BROADCAST, mac)
}

#[test]
fn conformance_b1_who_has_a_vip_on_its_port_gets_one_unicast_reply() {
    let mut rig = Rig::default();
    for asked in 1..=1000 {
        assert_eq!(rig.who_has(WAN, VIP, "10.1.0.9", PEER_MAC), DropReason::NeighbourMessage);
        let (message, ethernet) = as_arp(&rig.take_one());
        assert_eq!(message, reply(VIP, WAN_MAC, "10.1.0.9", PEER_MAC));
        assert_eq!(ethernet, macs(PEER_MAC, WAN_MAC));
        assert_eq!(rig.table.counters().originated, asked);
        rig.now.nanos += 10_000_000;
    }
    assert_eq!(rig.io.buffers_alive(), 0);
}

#[test]
fn conformance_b1_a_question_in_a_priority_tagged_frame_is_answered() {
    let mut rig = Rig::default();
    let mut frame = reply("10.1.0.9", PEER_MAC, VIP, [0; 6]);
    frame.operation = Operation::Request;
    let mut frame = frame.write_frame(BROADCAST, PEER_MAC).to_vec();
    frame.splice(12..12, [0x81, 0, 0xa0, 0]);
    assert_eq!(rig.frame_arp(WAN, &frame), DropReason::NeighbourMessage);
    assert_eq!(as_arp(&rig.take_one()).0.sender, address(VIP));
}

#[test]
fn conformance_b2_who_has_a_lip_on_the_server_port_gets_a_reply() {
    let mut rig = Rig::default();
    for own in [LIP, "10.2.0.254"] {
        assert_eq!(rig.who_has(LAN, own, PEER, PEER_MAC), DropReason::NeighbourMessage);
        let sent = rig.take_one();
        assert_eq!(sent.port, LAN);
        assert_eq!(as_arp(&sent), (reply(own, LAN_MAC, PEER, PEER_MAC), macs(PEER_MAC, LAN_MAC)));
    }
}

#[test]
fn conformance_b3_an_address_of_the_other_port_is_answered_only_if_configured() {
    let mut rig = Rig::default();
    assert_eq!(rig.who_has(LAN, VIP, PEER, PEER_MAC), DropReason::ArpNotForUs);
    assert_eq!(rig.who_has(WAN, LIP, "10.1.0.9", PEER_MAC), DropReason::ArpNotForUs);
    assert_eq!(rig.take_sent(), []);
    rig.ports[LAN.index()].answer_for_other_ports = true;
    assert_eq!(rig.who_has(LAN, VIP, PEER, PEER_MAC), DropReason::NeighbourMessage);
    assert_eq!(as_arp(&rig.take_one()).0, reply(VIP, LAN_MAC, PEER, PEER_MAC));
    assert_eq!(rig.who_has(LAN, "10.1.0.101", "10.2.0.12", PEER_MAC), DropReason::ArpNotForUs);
    assert_eq!(rig.take_sent(), []);
}

#[test]
fn conformance_b4_a_probe_for_a_vip_is_answered_and_teaches_nothing() {
    let mut rig = Rig::default();
    for (port, own, mac) in [(WAN, VIP, WAN_MAC), (LAN, LIP, LAN_MAC)] {
        assert_eq!(rig.who_has(port, own, "0.0.0.0", PEER_MAC), DropReason::NeighbourMessage);
        assert_eq!(as_arp(&rig.take_one()), (reply(own, mac, "0.0.0.0", PEER_MAC), macs(PEER_MAC, mac)));
    }
    assert_eq!(rig.who_has(WAN, "10.1.0.9", "0.0.0.0", PEER_MAC), DropReason::ArpNotForUs);
    assert_eq!(rig.take_sent(), []);
    assert!(rig.table.is_empty());
}

#[test]
fn conformance_b6_a_contested_vip_is_kept_and_defended_once_in_ten_seconds() {
    let mut rig = Rig::default();
    let claim = gratuitous(VIP, OTHER_MAC);
    let mut defences = Vec::new();
    // 1,000 claims a second for 30 s
    for milli in 0..30_000 {
        assert_eq!(rig.frame_arp(WAN, &claim), DropReason::NeighbourMessage);
        defences.extend(rig.take_sent().into_iter().map(|sent| (milli, sent)));
        rig.now.nanos += 1_000_000;
    }
    assert_eq!(defences.iter().map(|(milli, _)| milli / 1000).collect::<Vec<_>>(), [0, 10, 20]);
    for (_, sent) in &defences {
        let (message, ethernet) = as_arp(sent);
        assert_eq!(
            (message.sender, message.target, message.sender_mac),
            (address(VIP), address(VIP), WAN_MAC)
        );
        assert_eq!(ethernet, macs(BROADCAST, WAN_MAC));
    }
    assert!(rig.table.is_empty(), "the claimant is nobody's next hop");
    assert_eq!((rig.table.counters().conflicts, rig.table.counters().defences), (30_000, 3));
    let conflict = rig.table.conflicts().first().unwrap();
    assert_eq!((conflict.address, conflict.mac, conflict.count), (address(VIP), OTHER_MAC, 30_000));
    // and our address is still answered for
    rig.who_has(WAN, VIP, "10.1.0.9", PEER_MAC);
    assert_eq!(as_arp(&rig.take_one()).0, reply(VIP, WAN_MAC, "10.1.0.9", PEER_MAC));
}

#[test]
fn our_own_announcement_coming_back_is_no_conflict() {
    let mut rig = Rig::default();
    assert_eq!(rig.frame_arp(WAN, &gratuitous(VIP, WAN_MAC)), DropReason::ArpNotForUs);
    assert_eq!(rig.frame_arp(LAN, &gratuitous(VIP, WAN_MAC)), DropReason::ArpNotForUs);
    assert_eq!(rig.table.counters().conflicts, 0);
}

#[test]
fn conformance_b7_a_known_next_hop_with_a_new_mac_is_followed_at_once() {
    let mut rig = Rig::default();
    let index = rig.reachable(LAN, PEER, PEER_MAC);
    assert_eq!(rig.frame_arp(LAN, &gratuitous(PEER, OTHER_MAC)), DropReason::NeighbourMessage);
    assert_eq!(rig.neighbour_mac(index), OTHER_MAC);
    assert_eq!(rig.table.adjacency(index).header(), &macs(OTHER_MAC, LAN_MAC));
    assert!(rig.table.adjacency(index).is_usable());
    // a reply, addressed to us or to everybody
    assert_eq!(rig.is_at(LAN, PEER, PEER_MAC), DropReason::NeighbourMessage);
    assert_eq!(
        (rig.neighbour_mac(index), rig.state(index)),
        (PEER_MAC.as_slice(), NeighbourState::Reachable)
    );
    let told = reply(PEER, OTHER_MAC, PEER, OTHER_MAC).write_frame(BROADCAST, OTHER_MAC);
    assert_eq!(rig.frame_arp(LAN, &told), DropReason::NeighbourMessage);
    assert_eq!((rig.neighbour_mac(index), rig.state(index)), (OTHER_MAC.as_slice(), NeighbourState::Stale));
    // the same address behind the other port is another neighbour
    assert_eq!(rig.frame_arp(WAN, &gratuitous(PEER, PEER_MAC)), DropReason::ArpNotForUs);
    assert_eq!(rig.neighbour_mac(index), OTHER_MAC);
}

#[test]
fn an_announcement_without_news_does_not_count_as_an_answer() {
    let mut rig = Rig::default();
    let index = rig.reachable(LAN, PEER, PEER_MAC);
    rig.pass_ticks(2999);
    assert_eq!(rig.frame_arp(LAN, &gratuitous(PEER, PEER_MAC)), DropReason::NeighbourMessage);
    rig.pass_ticks(2);
    assert_eq!(rig.state(index), NeighbourState::Stale);
}

#[test]
fn conformance_b8_malformed_arp_is_dropped_and_changes_nothing() {
    let mut rig = Rig::default();
    let index = rig.reachable(LAN, PEER, PEER_MAC);
    let good = reply(PEER, OTHER_MAC, "10.2.0.254", LAN_MAC).write_frame(LAN_MAC, OTHER_MAC);
    let variants: [(&str, usize, &[u8]); 12] = [
        ("htype", 14, &[0, 6]),
        ("ptype", 16, &[0x86, 0xdd]),
        ("hlen", 18, &[7]),
        ("plen", 19, &[16]),
        ("op 0", 20, &[0, 0]),
        ("op 9", 20, &[0, 9]),
        ("sha zero", 22, &[0; 6]),
        ("sha broadcast", 22, &BROADCAST),
        ("spa multicast", 28, &[224, 0, 0, 1]),
        ("spa broadcast", 28, &[255; 4]),
        ("spa broadcast of the subnet", 28, &[10, 2, 0, 255]),
        ("spa zero in a reply", 28, &[0; 4]),
    ];
    for (name, at, bytes) in variants {
        let mut frame = good;
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        assert_eq!(rig.frame_arp(LAN, &frame), DropReason::ArpMalformed, "{name}");
    }
    for len in 0..42 {
        assert_eq!(rig.frame_arp(LAN, &good[..len]), DropReason::ArpMalformed, "{len} bytes");
    }
    assert_eq!((rig.neighbour_mac(index), rig.table.len()), (PEER_MAC.as_slice(), 1));
    assert_eq!(rig.take_sent(), []);
    assert_eq!(rig.frame_arp(LAN, &good), DropReason::NeighbourMessage, "the pattern itself is good");
}

#[test]
fn conformance_b9_neither_replies_nor_strangers_make_entries() {
    let mut rig = Rig::new(NeighbourConfig {
        capacity: 64,
        messages_per_second: u32::MAX,
        ..NeighbourConfig::default()
    });
    let distinct = |n: u32| Address::from_v4((0x0a02_0000 | n).to_be_bytes()).to_string();
    // replies from the link, gratuitous ones, and questions for others
    for n in 1..254 {
        if distinct(n) == LIP {
            continue;
        }
        assert_eq!(rig.is_at(LAN, &distinct(n), PEER_MAC), DropReason::ArpNotForUs);
        assert_eq!(rig.frame_arp(LAN, &gratuitous(&distinct(n), PEER_MAC)), DropReason::ArpNotForUs);
        assert_eq!(rig.who_has(LAN, "10.2.0.199", &distinct(n), PEER_MAC), DropReason::ArpNotForUs);
    }
    assert!(rig.table.is_empty());
    // questions for us from off the link are answered and not believed
    for n in 0..10_000 {
        rig.who_has(LAN, LIP, &distinct(0x10000 + n), PEER_MAC);
    }
    assert_eq!(rig.take_sent().len(), 10_000);
    assert!(rig.table.is_empty());
    // from on the link they are, up to three quarters of the table
    for n in 1..254 {
        rig.who_has(LAN, LIP, &distinct(n), PEER_MAC);
    }
    assert_eq!(rig.table.len(), 48);
    rig.next_hop(LAN, "10.2.0.200");
}

#[test]
fn who_asks_for_us_is_known_and_stale() {
    let mut rig = Rig::default();
    rig.who_has(LAN, LIP, PEER, PEER_MAC);
    rig.take_sent();
    let index = rig.next_hop(LAN, PEER);
    assert_eq!((rig.state(index), rig.neighbour_mac(index)), (NeighbourState::Stale, PEER_MAC.as_slice()));
}

#[test]
fn conformance_b10_a_flood_costs_a_fixed_number_of_answers_and_spares_others() {
    let mut rig =
        Rig::new(NeighbourConfig { messages_per_second: 1000, seed: 1, ..NeighbourConfig::default() });
    let (mut answered, mut limited) = (0, 0);
    // 200 kpps for 10 s from one host, one question a second from another
    for second in 0..10 {
        for packet in 0..200_000 {
            rig.now.nanos += 5_000;
            match rig.who_has(WAN, VIP, "10.1.0.66", OTHER_MAC) {
                DropReason::NeighbourLimited => limited += 1,
                _ => answered += 1,
            }
            if packet == 100_000 {
                rig.io.take_sent();
                assert_eq!(
                    rig.who_has(WAN, VIP, "10.1.0.9", PEER_MAC),
                    DropReason::NeighbourMessage,
                    "{second}"
                );
                assert_eq!(rig.take_one().frame[..6], PEER_MAC);
            }
        }
    }
    assert_eq!(answered + limited, 2_000_000);
    assert!((2500..=2760).contains(&answered), "{answered}");
}
