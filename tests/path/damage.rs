//! Damaged frames (P8): whatever arrives, nothing panics, the books balance, nothing leaks.

use fullnat::path::heap::Shape;

use crate::rig::conversation::Conversation;
use crate::rig::frame::{ACK, Ip, SYN, arp, icmp_with, nd, udp, with_extension, with_ipv4_options};
use crate::rig::{Families, LAN, LAN_MAC, Rig, WAN, WAN_MAC, ip};
use crate::tcp::Numbers;

/// A gateway with a TCP session, and valid frames of every kind about it.
fn specimens(families: Families) -> (Rig, Vec<(fullnat::id::PortId, Vec<u8>)>) {
    let second = crate::rig::service("udp", &families.vip().to_string(), &families.rip().to_string(), "");
    let config = families.config(2, "tcp", "client_address = \"toa\"\n[service.toa]\nno_room = \"bare-ack\"")
        + &second.replace("\"web\"", "\"two\"");
    let mut rig = Rig::new(&config);
    rig.damaged = true;
    let flow = Conversation::open(&mut rig, families, 5000);
    let to_server = flow.send(&mut rig, ACK, 1, 1);
    let to_client = flow.reply(&mut rig, ACK, 1, 1);
    let options =
        [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 9, 254, 8, 1, 2, 3, 4, 5, 6];
    let data = flow.inbound(ACK, 1, 1).options(&options).payload(b"some payload").packet();
    let answer = flow.outbound(ACK, 1, 1).options(&options[..24]).payload(b"some answer").packet();
    let mut fresh =
        flow.inbound(SYN, 0, 0).options(&[2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7]);
    fresh.src.1 = 5001;
    let fresh = fresh.packet();
    let datagram = udp(flow.client, flow.vip, b"datagram");
    let extended = |packet: &[u8]| {
        if packet[0] >> 4 == 6 {
            with_extension(
                &with_extension(packet, 60, &[0, 0, 1, 4, 0, 0, 0, 0]),
                0,
                &[0, 0, 1, 4, 0, 0, 0, 0],
            )
        } else {
            with_ipv4_options(packet, &[7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 1])
        }
    };
    let errors = |v6: bool| if v6 { (2, 0) } else { (3, 4) };
    let (kind, code) = errors(families.client_v6);
    let from_client =
        icmp_with(flow.client.0, flow.vip.0, kind, code, 1300, to_client.packet(), Ip::default());
    let (kind, code) = errors(families.server_v6);
    let from_server = icmp_with(flow.rip.0, flow.lip.0, kind, code, 1300, to_server.packet(), Ip::default());
    let echo = icmp_with(
        flow.client.0,
        flow.vip.0,
        if families.client_v6 { 128 } else { 8 },
        0,
        7,
        b"ping",
        Ip::default(),
    );
    let mut frames: Vec<_> =
        [&data, &fresh, &datagram, &extended(&data), &from_client, &extended(&from_client), &echo]
            .into_iter()
            .map(|packet| (WAN, rig.framed(WAN, packet)))
            .collect();
    frames.extend([&answer, &from_server].map(|packet| (LAN, rig.framed(LAN, packet))));
    let tagged = rig.framed(WAN, &data);
    frames.push((WAN, [&tagged[..12], &[0x81, 0, 0, 0], &tagged[12..]].concat()));
    frames.push((WAN, arp(1, ([2, 0, 0, 1, 0, 1], [10, 1, 0, 1]), ([0; 6], [10, 1, 0, 100]), [0xff; 6])));
    frames.push((LAN, arp(2, ([2, 0, 0, 2, 0, 11], [10, 2, 0, 11]), (LAN_MAC, [10, 2, 0, 254]), LAN_MAC)));
    let (own, host) = (ip("2001:db8:1::fe"), ip("2001:db8:1::1"));
    frames.push((WAN, nd(135, [2, 0, 0, 1, 0, 1], host, own, own, WAN_MAC)));
    frames.push((WAN, nd(136, [2, 0, 0, 1, 0, 1], host, own, host, WAN_MAC)));
    (rig, frames)
}

/// Damage can bring together any addresses, so what leaves is not looked at; the rig checks books and buffers.
fn swallow(rig: &mut Rig, port: fullnat::id::PortId, frame: &[u8]) {
    rig.hairpin = true;
    rig.frame_unread(port, frame);
}

#[test]
fn conformance_p8_frames_cut_at_every_byte() {
    for families in Families::ALL {
        let (mut rig, frames) = specimens(families);
        for shape in [Shape::default(), Shape { headroom: 64, room: 128, first_segment: 50 }] {
            for io in &mut rig.ios {
                io.shape = shape;
            }
            for (port, frame) in &frames {
                for len in 0..=frame.len() {
                    swallow(&mut rig, *port, &frame[..len]);
                }
            }
        }
        rig.finish();
    }
}

#[test]
fn conformance_p8_frames_with_any_bit_flipped() {
    for families in Families::ALL {
        let (mut rig, frames) = specimens(families);
        for (port, frame) in &frames {
            for bit in 0..frame.len() * 8 {
                let mut frame = frame.clone();
                frame[bit / 8] ^= 1 << (bit % 8);
                swallow(&mut rig, *port, &frame);
            }
        }
        rig.finish();
    }
}

/// Bytes replaced at random, checksums of the IP header mended so that more of it is reached.
#[test]
fn conformance_p8_frames_with_bytes_replaced() {
    let mut numbers = Numbers(0x00c0_ffee);
    for families in Families::ALL {
        let (mut rig, frames) = specimens(families);
        for round in 0..6000 {
            let (port, frame) = &frames[round % frames.len()];
            let mut frame = frame.clone();
            for _ in 0..1 + numbers.below(4) {
                let at = 14 + numbers.below(frame.len() as u32 - 14) as usize;
                frame[at] = [numbers.next() as u8, 0, 0xff, 1][numbers.below(4) as usize];
            }
            if frame[12..14] == [8, 0] {
                crate::rig::frame::fix_ipv4_checksum(&mut frame[14..]);
            }
            swallow(&mut rig, *port, &frame);
            if round % 500 == 0 {
                rig.pass(30);
            }
        }
        rig.finish();
    }
}
