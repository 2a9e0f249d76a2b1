//! Group A: frames.

use fullnat::path::heap::Shape;

use crate::rig::conversation::Conversation;
use crate::rig::frame::{ACK, ETH, PSH, Segment, udp};
use crate::rig::{Families, LAN, Options, Rig, WAN, WAN_MAC, ip, one};

fn udp_rig() -> (Rig, Vec<u8>) {
    let mut rig = Rig::new(&Families::V4.config(1, "udp", ""));
    let packet = udp((ip("10.1.0.1"), 5000), (ip("10.1.0.100"), 80), b"hello");
    let frame = rig.framed(WAN, &packet);
    one(rig.frame(WAN, &frame));
    rig.moved(&[("received", 1), ("transmitted", 1), ("sessions_created", 1)]);
    (rig, frame)
}

#[test]
fn conformance_a1_unicast_in_a_group_frame_is_dropped() {
    let (mut rig, mut frame) = udp_rig();
    for mac in [[0xff; 6], [1, 0, 0x5e, 0, 0, 1]] {
        frame[..6].copy_from_slice(&mac);
        let out = rig.frame(WAN, &frame);
        rig.only_drop(&out, "ethernet_group_destination");
    }
    rig.finish();
}

#[test]
fn conformance_a2_a3_foreign_and_impossible_macs_are_dropped() {
    let (mut rig, frame) = udp_rig();
    for (at, mac, reason) in [
        (0, [2, 0, 0, 0, 0, 0x77], "ethernet_not_for_us"),
        (6, [1, 0, 0x5e, 0, 0, 1], "ethernet_group_source"),
        (6, [0xff; 6], "ethernet_group_source"),
    ] {
        let mut frame = frame.clone();
        frame[at..at + 6].copy_from_slice(&mac);
        let out = rig.frame(WAN, &frame);
        rig.only_drop(&out, reason);
    }
    rig.finish();
}

#[test]
fn conformance_a4_only_a_priority_tag_is_no_tag() {
    let (mut rig, frame) = udp_rig();
    let tagged = |tag: &[u8]| [&frame[..12], tag, &frame[12..]].concat();
    let seen = one(rig.frame(WAN, &tagged(&[0x81, 0, 0xa0, 0])));
    assert_eq!((seen.payload.as_slice(), seen.frame[12..14].to_vec()), (&b"hello"[..], vec![8, 0]));
    rig.moved(&[("received", 1), ("transmitted", 1)]);
    for tag in [&[0x81, 0, 0, 10][..], &[0x88, 0xa8, 0, 0], &[0x81, 0, 0, 0, 0x81, 0, 0, 0]] {
        let out = rig.frame(WAN, &tagged(tag));
        rig.only_drop(&out, "ethernet_vlan");
    }
    rig.finish();
}

#[test]
fn conformance_a5_other_ether_types_are_counted() {
    let (mut rig, frame) = udp_rig();
    for ether_type in [[0x88, 0xcc], [0, 0x26], [0x88, 8], [0x88, 0x47]] {
        let mut frame = frame.clone();
        frame[12..14].copy_from_slice(&ether_type);
        let out = rig.frame(WAN, &frame);
        rig.only_drop(&out, "ethernet_unknown_type");
    }
    rig.finish();
}

#[test]
fn conformance_a6_a_trailer_is_no_data() {
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(2, "tcp", "client_address = \"toa\""));
        let flow = Conversation::open(&mut rig, families, 5000);
        let mut frame = rig.framed(WAN, &flow.inbound(ACK | PSH, 1, 1).payload(b"abc").packet());
        frame.extend_from_slice(&[0xee; 18]);
        let seen = one(rig.frame(WAN, &frame));
        assert_eq!(seen.payload, b"abc");
        assert!(!seen.frame.ends_with(&[0xee]));
        // The trailer was not counted as data: a RST right behind it is exact.
        let rst = one(rig.client(&flow.inbound(crate::rig::frame::RST, 4, 0).packet()));
        assert_eq!(rst.seq(), flow.gateway_isn.wrapping_add(4));
        assert_eq!(flow.state(&rig), Some(fullnat::session::State::Close));
        rig.finish();
    }
}

#[test]
fn conformance_a7_runts_are_dropped() {
    for families in [Families::V4, Families::ALL[1]] {
        let mut rig = Rig::new(&families.config(1, "tcp", ""));
        let syn = Segment::new((families.client(), 5000), (families.vip(), 80), 2, 1, 0).packet();
        let frame = [&rig.framed(WAN, &syn)[..ETH], &syn].concat();
        for len in 0..frame.len() {
            let out = rig.frame(WAN, &frame[..len]);
            assert!(out.is_empty(), "{len} bytes: {out:?}");
        }
        assert_eq!(rig.sessions(), 0);
        one(rig.frame(WAN, &frame));
        rig.finish();
    }
}

#[test]
fn conformance_a8_the_mtu_of_the_port_is_the_limit() {
    for mtu in [1500, 9000] {
        let config = Families::V4.config(1, "udp", "").replace("mtu = 1500", &format!("mtu = {mtu}"));
        let mut rig = Rig::with(&config, Options { mtu: [mtu, mtu], ..Options::default() });
        let packet = |ip_len: usize| {
            let payload: Vec<u8> = (0..ip_len - 28).map(|i| i as u8).collect();
            (udp((ip("10.1.0.1"), 5000), (ip("10.1.0.100"), 80), &payload), payload)
        };
        for len in [64, 512, usize::from(mtu) - 1, mtu.into()] {
            let (packet, payload) = packet(len);
            assert!(one(rig.client(&packet)).payload == payload, "{len} bytes");
        }
        rig.mark();
        for len in [usize::from(mtu) + 1, 9018] {
            let (packet, _) = packet(len);
            let out = rig.client(&packet);
            rig.only_drop(&out, "ethernet_oversize");
        }
        rig.finish();
    }
}

/// Headers over several segments, down to the smallest; the rest of the suite runs with one.
#[test]
fn conformance_a9_headers_in_several_segments_are_read() {
    for families in Families::ALL {
        for (room, first_segment) in
            [(2048, 0), (2048, 1), (2048, 15), (2048, 40), (2048, 70), (256, 256), (128, 128)]
        {
            let shape = Shape { headroom: 128, room, first_segment };
            let config = families.config(2, "tcp", "client_address = \"toa\"");
            let mut rig = Rig::new(&config);
            for io in &mut rig.ios {
                io.shape = shape;
            }
            let flow = Conversation::open(&mut rig, families, 5000);
            let payload: Vec<u8> = (0..1200u32).map(|i| i as u8).collect();
            let seen = one(rig.client(&flow.inbound(ACK, 1, 1).payload(&payload).packet()));
            assert!(seen.payload == payload && seen.toa(254).is_some(), "{shape:?}");
            let seen = one(rig.server(&flow.outbound(ACK, 1, 1201).payload(&payload).packet()));
            assert!(seen.payload == payload, "{shape:?}");
            rig.finish();
        }
    }
}

#[test]
fn conformance_a10_small_frames_of_our_own_are_padded_with_zeros() {
    for families in [Families::V4, Families::ALL[1]] {
        let mut rig = Rig::new(&families.config(1, "tcp", ""));
        let ack = Segment::new((families.client(), 5000), (families.vip(), 80), ACK, 1, 2).packet();
        let rst = one(rig.client(&ack));
        // Seen::read has looked at the padding.
        assert!(rst.frame.len() >= 60);
        assert_eq!(rst.port, WAN);
        let out = rig.server(&Segment::new((families.rip(), 8080), (families.vip(), 99), ACK, 1, 2).packet());
        assert!(out.iter().all(|seen| seen.port == LAN && seen.frame.len() >= 60));
        assert_eq!(rig.framed(WAN, &ack)[..6], WAN_MAC);
        rig.finish();
    }
}
