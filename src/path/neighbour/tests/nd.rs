//! ND messages in, answers and table changes out.

use super::*;
use wire_nd::{ALL_NODES, Advertisement, NdMessage, Solicitation, group_mac, link_local, solicited_node};

fn solicitation(source: &str, target: &str) -> Solicitation {
    let target = address(target);
    Solicitation {
        source: address(source),
        destination: solicited_node(target),
        target,
        source_mac: Some(PEER_MAC),
    }
}

fn frame(message: &Solicitation) -> Vec<u8> {
    message.write_frame(group_mac(message.destination), PEER_MAC).to_vec()
}

/// Changes an ND frame and sums it up again.
fn changed(mut frame: Vec<u8>, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    change(&mut frame);
    frame[56..58].fill(0);
    let icmp = etherparse::Icmpv6Slice::from_slice(&frame[54..]).unwrap();
    let (source, destination) = (frame[22..38].try_into().unwrap(), frame[38..54].try_into().unwrap());
    let sum = icmp.icmp_type().calc_checksum(source, destination, icmp.payload()).unwrap();
    frame[56..58].copy_from_slice(&sum.to_be_bytes());
    frame
}

fn advertisement(sent: &Sent) -> (Advertisement, [u8; 12]) {
    match as_nd(sent) {
        (NdMessage::Advertisement(message), ethernet) => (message, ethernet),
        other => panic!("no advertisement: {other:?}"),
    }
}

#[test]
fn conformance_b13_a_solicitation_for_an_address_of_ours_is_answered() {
    let mut rig = Rig::default();
    for (port, own, peer, mac) in [
        (WAN, VIP6, "2001:db8:1::9", WAN_MAC),
        (LAN, LIP6, PEER6, LAN_MAC),
        (LAN, "2001:db8:2::fe", PEER6, LAN_MAC),
    ] {
        let mut message = solicitation(peer, own);
        for destination in [message.destination, message.target] {
            message.destination = destination;
            assert_eq!(rig.frame_nd(port, &frame(&message)), DropReason::NeighbourMessage);
            let expected = Advertisement {
                source: address(own),
                destination: address(peer),
                target: address(own),
                solicited: true,
                overrides: true,
                target_mac: Some(mac),
            };
            assert_eq!(advertisement(&rig.take_one()), (expected, macs(PEER_MAC, mac)));
        }
        let index = rig.next_hop(port, peer);
        assert_eq!(
            (rig.state(index), rig.neighbour_mac(index)),
            (NeighbourState::Stale, PEER_MAC.as_slice())
        );
    }
}

#[test]
fn conformance_b13_a_solicitation_for_the_link_local_address_is_answered() {
    let mut rig = Rig::default();
    let own = link_local(LAN_MAC).to_string();
    assert_eq!(rig.frame_nd(LAN, &frame(&solicitation("fe80::11", &own))), DropReason::NeighbourMessage);
    assert_eq!(advertisement(&rig.take_one()).0.target, address(&own));
    assert_eq!(rig.frame_nd(WAN, &frame(&solicitation("fe80::11", &own))), DropReason::NdNotForUs);
    assert_eq!(rig.take_sent(), []);
}

#[test]
fn conformance_b13_duplicate_address_detection_is_answered_to_all_nodes() {
    let mut rig = Rig::default();
    let dad = changed(frame(&solicitation("::", VIP6)), |frame| {
        frame.truncate(14 + 40 + 24);
        frame[19] = 24;
    });
    assert_eq!(rig.frame_nd(WAN, &dad), DropReason::NeighbourMessage);
    let (message, ethernet) = advertisement(&rig.take_one());
    assert_eq!((message.destination, message.solicited, message.overrides), (ALL_NODES, false, true));
    assert_eq!(ethernet, macs([0x33, 0x33, 0, 0, 0, 1], WAN_MAC));
    assert!(rig.table.is_empty());
}

#[test]
fn conformance_b13_forwarded_fragmented_and_broken_messages_are_dropped() {
    let mut rig = Rig::default();
    let good = frame(&solicitation("2001:db8:1::9", VIP6));
    let mut fragmented = changed(good.clone(), |frame| frame[19] = 40);
    fragmented[20] = 44;
    fragmented.splice(54..54, [58, 0, 0, 0, 0, 0, 0, 1]);
    let variants = [
        ("hop limit 254", changed(good.clone(), |frame| frame[21] = 254)),
        ("option of length 0", changed(good.clone(), |frame| frame[79] = 0)),
        ("option past the end", changed(good.clone(), |frame| frame[79] = 9)),
        ("code", changed(good.clone(), |frame| frame[55] = 1)),
        ("multicast target", changed(good.clone(), |frame| frame[62] = 0xff)),
        ("fragment", fragmented),
        ("checksum", {
            let mut frame = good.clone();
            frame[56] ^= 1;
            frame
        }),
    ];
    for (name, frame) in variants {
        assert_eq!(rig.frame_nd(WAN, &frame), DropReason::NdMalformed, "{name}");
    }
    for len in 0..good.len() {
        assert_eq!(rig.frame_nd(WAN, &good[..len]), DropReason::NdMalformed, "{len} bytes");
    }
    assert_eq!(rig.take_sent(), []);
    assert!(rig.table.is_empty());
    assert_eq!(
        rig.frame_nd(WAN, &changed(good, |_| ())),
        DropReason::NeighbourMessage,
        "the pattern is good"
    );
}

#[test]
fn conformance_b3_an_ipv6_address_of_the_other_port_is_answered_only_if_configured() {
    let mut rig = Rig::default();
    let question = frame(&solicitation(PEER6, VIP6));
    assert_eq!(rig.frame_nd(LAN, &question), DropReason::NdNotForUs);
    assert_eq!(rig.take_sent(), []);
    rig.ports[LAN.index()].answer_for_other_ports = true;
    assert_eq!(rig.frame_nd(LAN, &question), DropReason::NeighbourMessage);
    assert_eq!(advertisement(&rig.take_one()).0.target_mac, Some(LAN_MAC));
}

#[test]
fn conformance_b14_redirects_and_router_advertisements_change_nothing() {
    let mut rig = Rig::default();
    let index = rig.reachable(LAN, PEER6, PEER_MAC);
    let before: Vec<_> = rig.table.views(rig.now).collect();
    for kind in [133, 134, 137] {
        // targets the neighbour and carries a target link-layer option, as a redirect of it would
        let message = changed(frame(&solicitation("fe80::66", PEER6)), |frame| {
            frame[54] = kind;
            frame[78] = 2;
        });
        assert_eq!(rig.frame_nd(LAN, &message), DropReason::NdNotForUs, "{kind}");
    }
    assert_eq!(rig.table.views(rig.now).collect::<Vec<_>>(), before);
    assert_eq!(rig.neighbour_mac(index), PEER_MAC);
    assert_eq!(rig.take_sent(), []);
}

#[test]
fn conformance_b6_a_contested_ipv6_vip_is_defended_once_in_ten_seconds() {
    let mut rig = Rig::default();
    let claim = Advertisement {
        source: address(VIP6),
        destination: ALL_NODES,
        target: address(VIP6),
        solicited: false,
        overrides: true,
        target_mac: Some(OTHER_MAC),
    }
    .write_frame(group_mac(ALL_NODES), OTHER_MAC);
    let mut defences = 0;
    for _ in 0..3000 {
        assert_eq!(rig.frame_nd(WAN, &claim), DropReason::NeighbourMessage);
        for sent in rig.take_sent() {
            defences += 1;
            let (message, ethernet) = advertisement(&sent);
            assert_eq!((message.target, message.target_mac), (address(VIP6), Some(WAN_MAC)));
            assert_eq!((message.solicited, message.overrides), (false, true));
            assert_eq!(ethernet, macs(group_mac(ALL_NODES), WAN_MAC));
        }
        rig.now.nanos += 10_000_000;
    }
    assert_eq!(defences, 3);
}

/// Tells the gateway about its known neighbour.
fn told(rig: &mut Rig, solicited: bool, overrides: bool, mac: Option<[u8; 6]>) -> DropReason {
    let message = Advertisement {
        source: address(PEER6),
        destination: if solicited { address("2001:db8:2::fe") } else { ALL_NODES },
        target: address(PEER6),
        solicited,
        overrides,
        target_mac: None,
    };
    let bytes = message.write_frame(LAN_MAC, mac.unwrap_or(PEER_MAC)).to_vec();
    let without_option = |frame: &mut Vec<u8>| {
        frame.truncate(14 + 40 + 24);
        frame[19] = 24;
    };
    let bytes = if mac.is_none() { changed(bytes, without_option) } else { bytes };
    rig.frame_nd(LAN, &bytes)
}

#[test]
fn conformance_b7_advertisements_change_a_neighbour_as_rfc_4861_says() {
    use NeighbourState::{Reachable, Stale};
    // solicited, overrides, MAC -> state and MAC of a neighbour that was reachable at PEER_MAC
    for (solicited, overrides, mac, state, known) in [
        (true, true, Some(OTHER_MAC), Reachable, OTHER_MAC),
        (false, true, Some(OTHER_MAC), Stale, OTHER_MAC),
        (true, false, Some(OTHER_MAC), Stale, PEER_MAC),
        (false, false, Some(OTHER_MAC), Stale, PEER_MAC),
        (true, false, Some(PEER_MAC), Reachable, PEER_MAC),
        (false, true, Some(PEER_MAC), Reachable, PEER_MAC),
        (true, true, None, Reachable, PEER_MAC),
    ] {
        let mut rig = Rig::default();
        let index = rig.reachable(LAN, PEER6, PEER_MAC);
        assert_eq!(told(&mut rig, solicited, overrides, mac), DropReason::NeighbourMessage);
        assert_eq!(
            (rig.state(index), rig.neighbour_mac(index)),
            (state, known.as_slice()),
            "{solicited} {overrides}"
        );
    }
}

#[test]
fn an_advertisement_without_a_mac_confirms_a_stale_neighbour_and_resolves_no_new_one() {
    let mut rig = Rig::default();
    let index = rig.reachable(LAN, PEER6, PEER_MAC);
    rig.pass_ticks(3001);
    assert_eq!(rig.state(index), NeighbourState::Stale);
    told(&mut rig, true, false, None);
    assert_eq!(rig.state(index), NeighbourState::Reachable);

    let mut rig = Rig::default();
    let index = rig.next_hop(LAN, PEER6);
    told(&mut rig, true, true, None);
    assert_eq!(rig.state(index), NeighbourState::Incomplete);
}

#[test]
fn conformance_b9_advertisements_make_no_entries() {
    let mut rig = Rig::default();
    assert_eq!(told(&mut rig, true, true, Some(PEER_MAC)), DropReason::NdNotForUs);
    assert_eq!(told(&mut rig, false, true, Some(PEER_MAC)), DropReason::NdNotForUs);
    let off_link = frame(&solicitation("2001:db8:77::1", LIP6));
    assert_eq!(rig.frame_nd(LAN, &off_link), DropReason::NeighbourMessage);
    assert!(rig.table.is_empty());
}
