//! Gratuitous ARP and unsolicited advertisements.

use super::*;
use wire_nd::{ALL_NODES, NdMessage, group_mac};

/// Which address a frame announces, after checking that it is an announcement.
fn announced(rig: &Rig, sent: &Sent) -> Address {
    let own_mac = rig.ports[sent.port.index()].mac;
    if sent.frame[12..14] == [8, 6] {
        let (message, ethernet) = as_arp(sent);
        assert_eq!((message.operation, message.sender_mac), (Operation::Request, own_mac));
        assert_eq!(message.sender, message.target);
        assert_eq!(ethernet, macs(BROADCAST, own_mac));
        message.sender
    } else {
        let (NdMessage::Advertisement(message), ethernet) = as_nd(sent) else { panic!("{sent:?}") };
        assert_eq!((message.solicited, message.overrides), (false, true));
        assert_eq!((message.destination, message.target_mac), (ALL_NODES, Some(own_mac)));
        assert_eq!(ethernet, macs(group_mac(ALL_NODES), own_mac));
        message.target
    }
}

/// How often each address was announced, by second.
fn by_second(rig: &Rig, sent: &[(u32, Sent)]) -> HashMap<(Address, u32), u32> {
    let mut counts = HashMap::new();
    for (tick, sent) in sent {
        assert_eq!(rig.owned[&announced(rig, sent)].port, Some(sent.port));
        *counts.entry((announced(rig, sent), tick / 100)).or_default() += 1;
    }
    counts
}

#[test]
fn conformance_b5_every_address_is_announced_five_times_at_start_and_five_times_later() {
    let mut rig = Rig::default();
    rig.table.announce_all(OwnAddresses { ports: &rig.ports, owned: &rig.owned }, rig.now);
    let sent = rig.pass_ticks(2000);
    let counts = by_second(&rig, &sent);
    assert_eq!(counts.len(), 2 * rig.owned.len());
    for &own in rig.owned.keys() {
        assert_eq!((counts[&(own, 0)], counts[&(own, 5)]), (5, 5), "{own}");
    }
    assert_eq!(rig.table.counters().originated, 80);
    // the first of every address before the second of any
    let first: std::collections::HashSet<_> =
        sent[..8].iter().map(|(_, sent)| announced(&rig, sent)).collect();
    assert_eq!(first.len(), 8);
}

#[test]
fn conformance_b5_an_added_address_is_announced_and_the_others_are_not() {
    let mut rig = Rig::default();
    let before = rig.owned.clone();
    let added = address("10.1.0.101");
    rig.owned.insert(added, Owned { role: Role::Virtual, port: Some(WAN) });
    rig.owned.insert(address("192.0.2.1"), Owned { role: Role::Virtual, port: None });
    let before = OwnAddresses { ports: &rig.ports, owned: &before };
    rig.table.announce_added(before, OwnAddresses { ports: &rig.ports, owned: &rig.owned }, rig.now);
    let sent = rig.pass_ticks(2000);
    let counts = by_second(&rig, &sent);
    assert_eq!(counts, [((added, 0), 5), ((added, 5), 5)].into_iter().collect::<HashMap<_, _>>());
}

#[test]
fn conformance_b5_a_link_that_comes_up_announces_its_addresses_and_flapping_does_not_add_up() {
    let mut rig = Rig::default();
    for _ in 0..3 {
        rig.table.announce_port(OwnAddresses { ports: &rig.ports, owned: &rig.owned }, LAN, rig.now);
    }
    let sent = rig.pass_ticks(2000);
    assert!(sent.iter().all(|(_, sent)| sent.port == LAN));
    assert_eq!(sent.len(), 4 * 10);
}

#[test]
fn an_address_that_was_taken_away_is_announced_no_more() {
    let mut rig = Rig::default();
    rig.table.announce_all(OwnAddresses { ports: &rig.ports, owned: &rig.owned }, rig.now);
    rig.pass_ticks(100);
    rig.owned.remove(&address(VIP));
    let sent = rig.pass_ticks(1000);
    assert_eq!(sent.len(), 7 * 5);
}

#[test]
fn many_announcements_are_paced() {
    let mut rig = Rig::default();
    for n in 0..1000u32 {
        let own = Address::from_v4((0x0a01_1000 + n).to_be_bytes());
        rig.owned.insert(own, Owned { role: Role::Virtual, port: Some(WAN) });
    }
    rig.table.announce_all(OwnAddresses { ports: &rig.ports, owned: &rig.owned }, rig.now);
    assert_eq!(rig.pass_ticks(1).len(), 64);
    assert_eq!(rig.pass_ticks(2000).len(), 1008 * 10 - 64);
}

#[test]
fn only_worker_0_announces() {
    let mut rig = Rig::new(NeighbourConfig { worker: WorkerId(1), workers: 2, ..NeighbourConfig::default() });
    rig.table.announce_all(OwnAddresses { ports: &rig.ports, owned: &rig.owned }, rig.now);
    assert_eq!(rig.pass_ticks(1000), []);
    assert_eq!(rig.table.counters().announcements_lost, 0);
}
