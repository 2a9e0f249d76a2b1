//! Held packets, ageing, eviction, and what workers tell each other.

use super::*;
use wire_nd::{NdMessage, group_mac, link_local, solicited_node};

#[test]
fn conformance_b11_held_packets_leave_in_order_after_resolution() {
    for peer in [PEER, PEER6] {
        let mut rig = Rig::default();
        let index = rig.next_hop(LAN, peer);
        rig.table.retain(index);
        let refused = (0..200).filter(|&number| rig.hold(index, number).is_err()).count();
        assert_eq!((refused, rig.table.held(), rig.io.buffers_alive()), (168, 32, 32));
        // one question for all of them
        let question = rig.take_one();
        if address(peer).is_v4() {
            let (message, ethernet) = as_arp(&question);
            assert_eq!((message.operation, message.target), (Operation::Request, address(peer)));
            assert_eq!((message.sender, message.sender_mac), (address("10.2.0.254"), LAN_MAC));
            assert_eq!(ethernet, macs(BROADCAST, LAN_MAC));
        } else {
            let (NdMessage::Solicitation(message), ethernet) = as_nd(&question) else { panic!() };
            assert_eq!((message.target, message.source), (address(peer), address("2001:db8:2::fe")));
            assert_eq!(
                (message.destination, message.source_mac),
                (solicited_node(address(peer)), Some(LAN_MAC))
            );
            assert_eq!(ethernet, macs(group_mac(message.destination), LAN_MAC));
        }
        assert_eq!(rig.pass_ticks(50), []);
        if address(peer).is_v4() {
            rig.is_at(LAN, peer, PEER_MAC)
        } else {
            rig.advertised(LAN, peer, PEER_MAC)
        };
        let sent = rig.take_sent();
        let expected = (0..32).map(|number| numbered(macs(PEER_MAC, LAN_MAC), number));
        assert!(sent.iter().map(|sent| sent.frame.clone()).eq(expected), "{sent:?}");
        assert!(sent.iter().all(|sent| sent.port == LAN));
        assert_eq!((rig.table.held(), rig.io.buffers_alive()), (0, 0));
        assert_eq!((rig.table.counters().originated, rig.table.counters().released), (1, 32));
        assert_eq!(rig.state(index), NeighbourState::Reachable);
    }
}

#[test]
fn conformance_b11_packets_without_hope_come_back_after_three_questions() {
    let mut rig = Rig::default();
    let index = rig.next_hop(LAN, PEER);
    rig.table.retain(index);
    for number in 0..5 {
        rig.hold(index, number).unwrap();
    }
    rig.take_one();
    let asked: Vec<u32> = rig.pass_ticks(299).into_iter().map(|(tick, _)| tick).collect();
    assert_eq!(asked, [100, 200]);
    assert!(rig.table.take_unreachable().is_none());
    rig.pass_ticks(1);
    assert_eq!(rig.state(index), NeighbourState::Failed);
    assert_eq!(rig.table.held(), 5);
    let back: Vec<_> =
        std::iter::from_fn(|| rig.table.take_unreachable()).map(|packet| packet.frame()).collect();
    assert!(back.into_iter().eq((0..5).map(|number| numbered(BLANK_MACS, number))));
    assert_eq!((rig.table.held(), rig.io.buffers_alive()), (0, 0));
    // the next packet asks again, and this time there is an answer
    assert_eq!(rig.pass_ticks(1000), []);
    rig.hold(index, 7).unwrap();
    assert_eq!(as_arp(&rig.take_one()).0.target, address(PEER));
    rig.is_at(LAN, PEER, PEER_MAC);
    assert_eq!(rig.take_one().frame, numbered(macs(PEER_MAC, LAN_MAC), 7));
}

#[test]
fn conformance_b11_all_queues_together_are_bounded() {
    let mut rig = Rig::new(NeighbourConfig { queue_len: 8, queue_total: 20, ..NeighbourConfig::default() });
    let hops = ["10.2.0.1", "10.2.0.2", "10.2.0.3"].map(|text| rig.next_hop(LAN, text));
    let held = hops.map(|hop| (0..10).filter(|&number| rig.hold(hop, number).is_ok()).count());
    assert_eq!((held, rig.table.held()), ([8, 8, 4], 20));
    rig.is_at(LAN, "10.2.0.2", PEER_MAC);
    assert_eq!(rig.table.held(), 12);
    assert!(rig.hold(hops[2], 1).is_ok());
}

#[test]
fn a_packet_held_for_a_resolved_neighbour_leaves_at_once() {
    let mut rig = Rig::default();
    let index = rig.reachable(LAN, PEER, PEER_MAC);
    rig.hold(index, 3).unwrap();
    assert_eq!(rig.take_one().frame, numbered(macs(PEER_MAC, LAN_MAC), 3));
    assert_eq!(rig.table.held(), 0);
}

#[test]
fn conformance_b12_a_stale_neighbour_in_use_is_probed_by_unicast_and_loses_nothing() {
    for peer in [PEER, PEER6] {
        let mut rig = Rig::default();
        let index = rig.reachable(LAN, peer, PEER_MAC);
        let mut probes = 0;
        // two hours in steps of 10 ms
        for _ in 0..2 * 3600 * 100 {
            let adjacency = rig.table.adjacency(index);
            assert!(adjacency.is_usable(), "a packet would be lost");
            assert_eq!(adjacency.header(), &macs(PEER_MAC, LAN_MAC));
            if adjacency.wants_mark() {
                rig.table.mark_used(index, rig.now);
            }
            for (_, sent) in rig.pass_ticks(1) {
                probes += 1;
                assert_eq!(sent.frame[..6], PEER_MAC, "unicast");
                if address(peer).is_v4() {
                    assert_eq!(as_arp(&sent).0.target_mac, PEER_MAC);
                    rig.is_at(LAN, peer, PEER_MAC);
                } else {
                    let (NdMessage::Solicitation(message), _) = as_nd(&sent) else { panic!() };
                    assert_eq!(message.destination, address(peer));
                    rig.advertised(LAN, peer, PEER_MAC);
                }
            }
        }
        // one every 35 s: 30 s fresh, 5 s of delay
        assert_eq!(probes, 7200 / 35);
    }
}

#[test]
fn conformance_b12_a_neighbour_that_stops_answering_is_asked_of_everybody_before_it_fails() {
    let mut rig = Rig::default();
    let index = rig.reachable(LAN, PEER, PEER_MAC);
    rig.pass_ticks(3001);
    rig.table.mark_used(index, rig.now);
    assert_eq!(rig.state(index), NeighbourState::Delay);
    let asked = rig.pass_ticks(1099);
    let seen: Vec<_> =
        asked.iter().map(|(tick, sent)| (*tick, sent.frame[..6].try_into().unwrap())).collect();
    let expected: [(u32, [u8; 6]); 6] = [
        (500, PEER_MAC),
        (600, PEER_MAC),
        (700, PEER_MAC),
        (800, BROADCAST),
        (900, BROADCAST),
        (1000, BROADCAST),
    ];
    assert_eq!(seen, expected);
    assert!(rig.table.adjacency(index).is_usable());
    assert_eq!(rig.pass_ticks(1), []);
    assert_eq!(rig.state(index), NeighbourState::Failed);
}

#[test]
fn a_stale_neighbour_that_nobody_uses_is_left_alone() {
    let mut rig = Rig::default();
    let index = rig.reachable(LAN, PEER, PEER_MAC);
    assert_eq!(rig.pass_ticks(100_000), []);
    assert_eq!(rig.state(index), NeighbourState::Stale);
}

#[test]
fn a_link_local_router_is_asked_from_our_link_local_address() {
    let mut rig = Rig::default();
    let index = rig.next_hop(LAN, "fe80::1");
    rig.hold(index, 0).unwrap();
    let (NdMessage::Solicitation(message), _) = as_nd(&rig.take_one()) else { panic!() };
    assert_eq!(message.source, link_local(LAN_MAC));
}

#[test]
fn a_port_without_addresses_asks_as_a_probe_does() {
    let mut rig = Rig::default();
    rig.ports[LAN.index()].addresses.clear();
    let index = rig.next_hop(LAN, PEER);
    rig.hold(index, 0).unwrap();
    assert!(as_arp(&rig.take_one()).0.is_probe());
    let answer = ArpMessage {
        operation: Operation::Reply,
        sender_mac: PEER_MAC,
        sender: address(PEER),
        target_mac: LAN_MAC,
        target: address("0.0.0.0"),
    };
    assert_eq!(rig.frame_arp(LAN, &answer.write_frame(LAN_MAC, PEER_MAC)), DropReason::NeighbourMessage);
    assert_eq!(rig.state(index), NeighbourState::Reachable);
}

#[test]
fn a_full_table_evicts_the_least_recently_used_that_nobody_retains() {
    let mut rig = Rig::new(NeighbourConfig { capacity: 4, ..NeighbourConfig::default() });
    let hop = |rig: &mut Rig, text: &str| {
        rig.now.nanos += 1_000_000_000;
        rig.next_hop(LAN, text)
    };
    let [a, b, c, d] = ["10.2.0.1", "10.2.0.2", "10.2.0.3", "10.2.0.4"].map(|text| hop(&mut rig, text));
    rig.table.retain(a);
    rig.hold(b, 1).unwrap();
    assert_eq!(hop(&mut rig, "10.2.0.3"), c, "used again");
    assert_eq!(hop(&mut rig, "10.2.0.5"), d, "a is retained, b awaited, c was used later");
    rig.table.retain(c);
    rig.table.retain(d);
    assert_eq!(rig.table.next_hop(LAN, &address("10.2.0.6"), rig.now), Err(NeighbourTableFull));
    assert_eq!(rig.table.len(), 4);
    rig.table.release(a);
    assert_eq!(rig.table.next_hop(LAN, &address("10.2.0.6"), rig.now), Ok(a));
    assert_eq!(rig.state(a), NeighbourState::Incomplete);
    assert_ne!(hop(&mut rig, "10.2.0.2"), a);
}

#[test]
fn a_failed_neighbour_is_forgotten_with_its_last_reference() {
    let mut rig = Rig::default();
    let index = rig.next_hop(LAN, PEER);
    rig.table.retain(index);
    rig.hold(index, 0).unwrap();
    rig.pass_ticks(300);
    assert_eq!((rig.state(index), rig.table.len()), (NeighbourState::Failed, 1));
    rig.table.release(index);
    assert!(rig.table.is_empty());
    // nobody ever retained this one
    let index = rig.next_hop(LAN, PEER);
    rig.hold(index, 0).unwrap();
    rig.pass_ticks(300);
    assert!(rig.table.is_empty());
    assert_eq!(std::iter::from_fn(|| rig.table.take_unreachable()).count(), 2);
}

#[test]
fn an_answer_that_reaches_one_worker_resolves_the_neighbour_of_another() {
    let config = NeighbourConfig { workers: 3, ..NeighbourConfig::default() };
    let mut first = Rig::new(config);
    let mut third = Rig::new(NeighbourConfig { worker: WorkerId(2), ..config });
    let index = third.next_hop(LAN, PEER);
    third.hold(index, 9).unwrap();
    third.take_one();
    // the NIC gives all ARP to worker 0, which knows nothing of this
    assert_eq!(first.is_at(LAN, PEER, PEER_MAC), DropReason::NeighbourMessage);
    assert!(first.table.is_empty());
    let told = std::mem::take(&mut first.io.handed_off);
    assert_eq!(told.iter().map(|(worker, _)| worker.0).collect::<Vec<_>>(), [1, 2]);
    let Some((_, HandOff::Neighbour(fact))) = told.last() else { panic!() };
    let own = OwnAddresses { ports: &third.ports, owned: &third.owned };
    third.table.learn(own, *fact, third.now, &mut third.io);
    assert_eq!(third.take_one().frame, numbered(macs(PEER_MAC, LAN_MAC), 9));
    assert_eq!(third.io.handed_off.len(), 0, "a fact is not passed on");
    // a full ring loses the fact and says so
    first.io.ring_room = Some(1);
    first.is_at(LAN, PEER, PEER_MAC);
    assert_eq!(first.table.counters().facts_lost, 1);
}

#[test]
fn what_one_worker_resolved_another_need_not_ask_for() {
    let config = NeighbourConfig { workers: 2, ..NeighbourConfig::default() };
    let mut second = Rig::new(NeighbourConfig { worker: WorkerId(1), ..config });
    let fact = |evidence, mac| NeighbourFact { port: LAN, address: address(PEER), mac, evidence };
    let own = OwnAddresses { ports: &second.ports, owned: &second.owned };
    let (announced, answered) =
        (Evidence::Announced { overrides: true }, Evidence::Answered { overrides: true });
    second.table.learn(own, fact(announced, Some(PEER_MAC)), second.now, &mut second.io);
    second.table.learn(own, fact(answered, None), second.now, &mut second.io);
    assert!(second.table.is_empty(), "neither is news of somebody to talk to");
    second.table.learn(own, fact(answered, Some(PEER_MAC)), second.now, &mut second.io);
    let index = second.next_hop(LAN, PEER);
    assert_eq!(second.table.adjacency(index).state(), NeighbourState::Reachable);
    assert_eq!(second.take_sent(), [], "nobody is asked");
}

#[test]
fn without_buffers_nothing_is_sent_and_the_next_attempt_makes_up_for_it() {
    let mut rig = Rig::default();
    let index = rig.next_hop(LAN, PEER);
    rig.io.buffers_max = Some(1);
    rig.hold(index, 0).unwrap();
    assert_eq!(rig.take_sent(), []);
    assert_eq!((rig.table.counters().originated, rig.table.counters().buffers_missing), (0, 1));
    rig.io.buffers_max = None;
    assert_eq!(rig.pass_ticks(100).len(), 1);
}

#[test]
fn views_show_what_is_known() {
    let mut rig = Rig::default();
    let index = rig.reachable(LAN, PEER, PEER_MAC);
    let waiting = rig.next_hop(WAN, "10.1.0.1");
    rig.hold(waiting, 0).unwrap();
    rig.pass_ticks(250);
    let views: Vec<_> = rig.table.views(rig.now).collect();
    assert_eq!(
        views,
        [
            NeighbourView {
                port: LAN,
                address: address(PEER),
                mac: Some(PEER_MAC),
                state: NeighbourState::Reachable,
                age_ticks: 250,
                queue_len: 0,
                references: 1,
            },
            NeighbourView {
                port: WAN,
                address: address("10.1.0.1"),
                mac: None,
                state: NeighbourState::Incomplete,
                age_ticks: 250,
                queue_len: 1,
                references: 0,
            },
        ]
    );
    rig.table.release(index);
}
