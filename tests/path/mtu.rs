//! Packets that are too large for the way on (J4, J6, D3), and what the gateway believes of it (F8).

use fullnat::session::State;

use crate::rig::conversation::Conversation;
use crate::rig::frame::{ACK, PSH, SYN, Segment, icmp, udp};
use crate::rig::{Families, LAN, Options, Rig, WAN, one};

/// A gateway between links of these MTUs.
fn rig(families: Families, protocol: &str, wan: u16, lan: u16, more: &str) -> Rig {
    let config = families.config(2, protocol, more).replace("mtu = 1500", "mtu = 9000");
    Rig::with(&config, Options { mtu: [wan, lan], ..Options::default() })
}

/// What the sender of a packet that does not fit is told: the size in its own family that fits the other side.
fn told(sender_v6: bool, other_v6: bool, mtu: u16) -> (u8, u8, u32) {
    let mtu = u32::from(mtu);
    match (sender_v6, other_v6) {
        (false, false) => (3, 4, mtu),
        (true, true) => (2, 0, mtu),
        (false, true) => (3, 4, mtu - 20),
        (true, false) => (2, 0, mtu + 20),
    }
}

#[test]
fn conformance_j6_a_client_is_told_what_fits_and_then_gets_through() {
    for families in Families::ALL {
        for more in ["", "client_address = \"toa\""] {
            let mut rig = rig(families, "tcp", 9000, 1500, more);
            let flow = Conversation::open(&mut rig, families, 5000);
            rig.mark();
            let segment = flow.inbound(ACK | PSH, 1, 1).payload(&[7; 3000]);
            let error = one(rig.client(&segment.packet()));
            rig.moved(&[("received", 1), ("originated", 1), ("transmitted", 1), ("drop.ip_too_big", 1)]);
            let expected = told(families.client_v6, families.server_v6, 1500);
            assert_eq!(
                (error.icmp(), error.src, error.dst, error.port),
                (expected, flow.vip.0, flow.client.0, WAN)
            );
            // The client believes it only if the quote is what it sent, number and all.
            assert!(segment.packet().starts_with(&error.payload), "{:02x?}", error.payload);
            // A segment of just that size passes, one byte more does not.
            let headers = if families.client_v6 { 60 } else { 40 };
            let room = expected.2 as usize - headers;
            for (len, passes) in [(room, true), (room + 1, false)] {
                let out = one(rig.client(&flow.inbound(ACK, 1, 1).payload(&vec![7; len]).packet()));
                assert_eq!(out.port, if passes { LAN } else { WAN }, "{len} bytes");
            }
            assert_eq!(flow.state(&rig), Some(State::Established));
            rig.finish();
        }
    }
}

#[test]
fn conformance_j6_d3_a_real_server_is_told_what_fits() {
    for families in Families::ALL {
        let mut rig = rig(families, "tcp", 1280, 9000, "");
        let flow = Conversation::open(&mut rig, families, 5000);
        let segment = flow.outbound(ACK | PSH, 1, 1).payload(&[7; 3000]);
        let error = one(rig.server(&segment.packet()));
        let mut expected = told(families.server_v6, families.client_v6, 1280);
        if families.server_v6 {
            expected.2 = expected.2.max(1280);
        }
        assert_eq!((error.icmp(), error.src, error.dst), (expected, flow.lip.0, flow.rip.0));
        assert!(segment.packet().starts_with(&error.payload));
        let room = expected.2 as usize - if families.server_v6 { 60 } else { 40 };
        let out = one(rig.server(&flow.outbound(ACK, 1, 1).payload(&vec![7; room]).packet()));
        assert_eq!((out.port, out.payload.len()), (WAN, room));
        rig.finish();
    }
}

#[test]
fn conformance_j6_datagrams_too() {
    for families in Families::ALL {
        let mut rig = rig(families, "udp", 9000, 1500, "");
        let (client, vip) = ((families.client(), 5000), (families.vip(), 80));
        let packet = udp(client, vip, &[7; 3000]);
        let error = one(rig.client(&packet));
        assert_eq!(error.icmp(), told(families.client_v6, families.server_v6, 1500));
        assert!(packet.starts_with(&error.payload));
        rig.finish();
    }
}

/// What is dropped for its size is no packet of the session: it neither moves nor refreshes it.
#[test]
fn conformance_j6_what_is_too_big_does_not_move_the_session() {
    let families = Families::V4;
    let mut rig = rig(families, "tcp", 9000, 1500, "[service.timeouts]\ntcp_established_secs = 20");
    let flow = Conversation::open(&mut rig, families, 5000);
    rig.client(&flow.inbound(ACK | crate::rig::frame::FIN, 1, 1).payload(&[7; 3000]).packet());
    assert_eq!(flow.state(&rig), Some(State::Established));
    for _ in 0..11 {
        rig.pass(2);
        rig.client(&flow.inbound(ACK, 1, 1).payload(&[7; 3000]).packet());
    }
    assert_eq!(flow.state(&rig), None);
    rig.finish();
}

/// A client ignores an MTU below IPv6's least (RFC 8201 §4): where what TOA adds would bring it there, the session goes
/// without TOA instead.
#[test]
fn conformance_f9_j4_an_mtu_below_that_of_ipv6_ends_toa_instead() {
    // What the router says, what the client is told, whether TOA goes on.
    let same = [(1300, 1280, true), (1299, 1280, false), (1280, 1280, false), (1279, 1279, true)];
    let across = [(1280, 1280, true), (1279, 1280, false), (1260, 1280, false), (1259, 1280, true)];
    for (server_v6, errors) in [(true, same), (false, across)] {
        let families = Families { client_v6: true, server_v6 };
        for (mtu, told, goes_on) in errors {
            let mut rig = Rig::new(&families.config(2, "tcp", "client_address = \"toa\""));
            let flow = Conversation::open(&mut rig, families, 5000);
            let sent = flow.send(&mut rig, ACK, 1, 1);
            assert_eq!(sent.toa(254), Some(flow.client));
            let (kind, code) = if server_v6 { (2, 0) } else { (3, 4) };
            rig.mark();
            let seen = one(rig.server(&icmp(sent.dst, sent.src, kind, code, mtu, sent.packet())));
            assert_eq!(seen.icmp(), (2, 0, told), "{mtu}");
            rig.moved(&[("received", 1), ("transmitted", 1), ("toa_no_mtu_room", u64::from(!goes_on))]);
            // As large as the client was told: it fits what the router said.
            let segment = flow.inbound(ACK | PSH, 1, 1).payload(&vec![7; told as usize - 60]);
            let seen = one(rig.client(&segment.packet()));
            assert_eq!(seen.toa(254).is_some(), goes_on);
            let is_forged = mtu < if server_v6 { 1280 } else { 1260 };
            assert!(is_forged || seen.ip_len <= mtu as usize, "{}", seen.ip_len);
            rig.finish();
        }
    }
}

/// RFC 5927 §7, RFC 8201 §4: who forges "too big" with an absurd size changes nothing, for the gateway keeps no MTU of a
/// path. The error itself goes to the end that it is about, whose stack judges it.
#[test]
fn conformance_f8_a_forged_mtu_is_remembered_by_nobody() {
    for families in Families::ALL {
        let mut rig = rig(families, "tcp", 1500, 1500, "");
        let largest = if families == Families::V4 { 1460 } else { 1440 };
        let segment_size = |rig: &mut Rig, cport| {
            let syn = Segment::new((families.client(), cport), (families.vip(), 80), SYN, 1, 0);
            one(rig.client(&syn.options(&[2, 4, 5, 0xb4]).packet())).options().to_vec()
        };
        let told_before = segment_size(&mut rig, 4000);
        let flow = Conversation::open(&mut rig, families, 5000);
        for mtu in [68, 0, 1279] {
            let to_server = flow.send(&mut rig, ACK, 1, 1);
            let to_client = flow.reply(&mut rig, ACK, 1, 1);
            for (port, sent, v6) in
                [(LAN, to_server, families.server_v6), (WAN, to_client, families.client_v6)]
            {
                let (kind, code) = if v6 { (2, 0) } else { (3, 4) };
                let forged = icmp(sent.dst, sent.src, kind, code, mtu, sent.packet());
                assert!(rig.packet(port, &forged).len() <= 1, "passed on or dropped");
            }
            for segment in [flow.inbound(ACK | PSH, 1, 1), flow.outbound(ACK | PSH, 1, 1)] {
                let inbound = segment.dst == flow.vip;
                let packet = segment.payload(&vec![7; largest]).packet();
                let seen = one(if inbound { rig.client(&packet) } else { rig.server(&packet) });
                assert_eq!(
                    (seen.port == LAN, seen.payload.len()),
                    (inbound, largest),
                    "after an MTU of {mtu}"
                );
            }
            assert_eq!(segment_size(&mut rig, 4001 + mtu as u16), told_before, "after an MTU of {mtu}");
        }
        assert_eq!(flow.state(&rig), Some(State::Established));
        rig.finish();
    }
}
