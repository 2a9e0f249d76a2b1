//! Group F: ICMP.

use std::net::IpAddr;

use fullnat::path::heap::Shape;

use crate::rig::conversation::Conversation;
use crate::rig::frame::{
    ACK, End, Ip, PSH, fix_ipv4_checksum, fix_l4, icmp, icmp_with, udp, with_extension, with_ipv4_options,
};
use crate::rig::seen::Seen;
use crate::rig::{Families, LAN, Options, Rig, WAN, ip, one};

/// Type, code and rest of an error.
type Error = (u8, u8, u32);

/// Errors as they arrive in one family, and what they become in the other.
const ERRORS_V4: [(Error, Error); 6] = [
    ((3, 3, 0), (1, 4, 0)),
    ((3, 1, 0), (1, 0, 0)),
    ((3, 4, 1300), (2, 0, 1320)),
    ((3, 13, 0), (1, 1, 0)),
    ((11, 0, 0), (3, 0, 0)),
    ((12, 0, 8 << 24), (4, 0, 7)),
];
const ERRORS_V6: [(Error, Error); 5] = [
    ((1, 4, 0), (3, 3, 0)),
    ((1, 0, 0), (3, 1, 0)),
    ((2, 0, 1320), (3, 4, 1300)),
    ((1, 1, 0), (3, 10, 0)),
    ((3, 0, 0), (11, 0, 0)),
];

/// The ends, the protocol's number and what follows the ports of a quoted packet, its IPv4 checksum looked at.
fn quoted(seen: &Seen) -> (End, End, Vec<u8>) {
    let quote = &seen.payload;
    let (src, dst, l4): (IpAddr, IpAddr, usize) = if quote[0] >> 4 == 4 {
        let mut fixed = quote[..usize::from(quote[0] & 15) * 4].to_vec();
        let before = fixed.clone();
        fix_ipv4_checksum(&mut fixed);
        assert_eq!(before, fixed, "the checksum of the quoted header");
        let address = |at: usize| <[u8; 4]>::try_from(&quote[at..at + 4]).unwrap().into();
        (address(12), address(16), fixed.len())
    } else {
        let address = |at: usize| <[u8; 16]>::try_from(&quote[at..at + 16]).unwrap().into();
        (address(8), address(24), 40)
    };
    let port = |at: usize| u16::from_be_bytes([quote[at], quote[at + 1]]);
    ((src, port(l4)), (dst, port(l4 + 2)), quote[l4 + 4..].to_vec())
}

fn router(v6: bool, port: fullnat::id::PortId) -> IpAddr {
    match (v6, port) {
        (false, WAN) => ip("10.1.0.2"),
        (false, _) => ip("10.2.0.12"),
        (true, WAN) => ip("2001:db8:1::2"),
        (true, _) => ip("2001:db8:2::12"),
    }
}

#[test]
fn conformance_f1_pings_to_vips_are_answered() {
    for families in [Families::V4, Families::ALL[1]] {
        let mut rig = Rig::new(&families.config(2, "tcp", ""));
        let (request, reply) = if families.client_v6 { (128, 129) } else { (8, 0) };
        for len in [0, 1, 56, 1452] {
            let payload: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let echo = icmp(families.client(), families.vip(), request, 0, 0xbeef_0007, &payload);
            let seen = one(rig.client(&echo));
            assert_eq!((seen.src, seen.dst), (families.vip(), families.client()));
            assert_eq!(seen.icmp(), (reply, 0, 0xbeef_0007));
            assert!(seen.payload == payload && seen.ttl == 64);
            rig.moved(&[("received", 1), ("originated", 1), ("transmitted", 1), ("drop.echo_answered", 1)]);
        }
        let stranger = if families.client_v6 { ip("2001:db8:1::77") } else { ip("10.1.0.77") };
        let out = rig.client(&icmp(families.client(), stranger, request, 0, 1, b""));
        rig.only_drop(&out, "ip_not_for_us");
        rig.finish();
    }
}

#[test]
fn conformance_f2_wrong_checksums_are_dropped() {
    for families in [Families::V4, Families::ALL[1]] {
        let mut rig = Rig::new(&families.config(2, "tcp", ""));
        let flow = Conversation::open(&mut rig, families, 5000);
        rig.mark();
        let quote = flow.outbound(ACK, 1, 1).packet();
        let (request, error) = if families.client_v6 { (128, (1, 4)) } else { (8, (3, 3)) };
        for mut message in [
            icmp(families.client(), families.vip(), request, 0, 1, b"ping"),
            icmp(families.client(), families.vip(), error.0, error.1, 0, &quote),
        ] {
            *message.last_mut().unwrap() ^= 1;
            let out = rig.client(&message);
            rig.only_drop(&out, "icmp_checksum");
        }
        rig.finish();
    }
}

/// Client side: the quote is what the gateway sent to the client, VIP to CIP.
#[test]
fn conformance_f3_errors_about_answers_reach_the_real_server() {
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(2, "tcp", ""));
        let flow = Conversation::open(&mut rig, families, 5000);
        let sent = flow.reply(&mut rig, ACK | PSH, 1, 1).packet().to_vec();
        let errors = if families.client_v6 { &ERRORS_V6[..] } else { &ERRORS_V4[..] };
        let header = if families.client_v6 { 40 } else { 20 };
        for (came, other) in errors {
            for quote in [&sent[..header + 8], &sent[..]] {
                rig.mark();
                let router = router(families.client_v6, WAN);
                let error = icmp(router, families.vip(), came.0, came.1, came.2, quote);
                let seen = one(rig.client(&error));
                rig.moved(&[("received", 1), ("transmitted", 1)]);
                let same = families.client_v6 == families.server_v6;
                assert_eq!(seen.icmp(), if same { *came } else { *other });
                assert_eq!((seen.src, seen.dst, seen.ttl), (flow.lip.0, flow.rip.0, 63));
                let (src, dst, rest) = quoted(&seen);
                assert_eq!((src, dst), (flow.rip, flow.lip));
                assert_eq!(
                    rest[..4],
                    flow.server_isn.wrapping_add(1).to_be_bytes(),
                    "the real server's number"
                );
            }
        }
        rig.finish();
    }
}

/// Server side: the quote is what the gateway sent to the real server, LIP to RIP.
#[test]
fn conformance_f4_f9_errors_about_requests_reach_the_client() {
    for families in Families::ALL {
        let toa = "client_address = \"toa\"";
        let of_another_kind = format!("{toa}\n[service.toa]\nkind = 200\nkind_v6 = 253");
        for more in ["", toa, &of_another_kind] {
            let no_toa = more.is_empty();
            let mut rig = Rig::new(&families.config(2, "tcp", more));
            let flow = Conversation::open(&mut rig, families, 5000);
            let payload = [9; 100];
            let sent = one(rig.client(&flow.inbound(ACK, 1, 1).payload(&payload).packet()));
            let errors = if families.server_v6 { &ERRORS_V6[..] } else { &ERRORS_V4[..] };
            let header = if families.server_v6 { 40 } else { 20 };
            let growth = if no_toa {
                0
            } else if families.client_v6 {
                20
            } else {
                8
            };
            for (came, other) in errors {
                for quote in [&sent.packet()[..header + 8], sent.packet()] {
                    rig.mark();
                    let router = router(families.server_v6, LAN);
                    let error = icmp(router, flow.lip.0, came.0, came.1, came.2, quote);
                    let seen = one(rig.server(&error));
                    rig.moved(&[("received", 1), ("transmitted", 1)]);
                    let same = families.client_v6 == families.server_v6;
                    let mut expected = if same { *came } else { *other };
                    if expected.2 >= 1300 && expected.2 < 1 << 16 {
                        // F9: what TOA adds, the client must leave free.
                        expected.2 -= growth;
                    }
                    assert_eq!(seen.icmp(), expected);
                    assert_eq!((seen.src, seen.dst, seen.ttl), (flow.vip.0, flow.client.0, 63));
                    let (src, dst, rest) = quoted(&seen);
                    assert_eq!((src, dst), (flow.client, flow.vip));
                    assert_eq!(
                        rest[..4],
                        flow.client_isn.wrapping_add(1).to_be_bytes(),
                        "the client's number"
                    );
                    let toa = sent.options().to_vec();
                    let leaked = !toa.is_empty() && seen.payload.windows(toa.len()).any(|bytes| bytes == toa);
                    assert!(!leaked, "TOA in what the client sees: {:02x?}", seen.payload);
                }
            }
            rig.finish();
        }
    }
}

/// An IPv6 client goes no lower than 1280: told less, it would send segments for ever that TOA makes too large.
#[test]
fn conformance_j4_f9_toa_gives_way_where_an_ipv6_client_cannot() {
    for families in Families::ALL.into_iter().filter(|families| families.client_v6) {
        let mut rig = Rig::new(&families.config(2, "tcp", "client_address = \"toa\""));
        let flow = Conversation::open(&mut rig, families, 5000);
        let full = flow.inbound(ACK, 1, 1).payload(&[9; 1280 - 60]).packet();
        let sent = one(rig.client(&full));
        let (narrow, headers) = if families.server_v6 { (1280, 40) } else { (1260, 20) };
        assert_eq!(sent.packet().len(), narrow + 20, "with TOA");
        let (kind, code) = if families.server_v6 { (2, 0) } else { (3, 4) };
        let quote = &sent.packet()[..headers + 8];
        let seen = one(rig.server(&icmp(
            router(families.server_v6, LAN),
            flow.lip.0,
            kind,
            code,
            narrow as u32,
            quote,
        )));
        assert_eq!(seen.icmp(), (2, 0, 1280));
        assert_eq!(one(rig.client(&full)).packet().len(), narrow, "it arrives");
        rig.finish();
    }
}

#[test]
fn conformance_f5_what_is_quoted_is_read_with_care() {
    let families = Families::V4;
    let mut rig = Rig::new(&families.config(2, "tcp", ""));
    let flow = Conversation::open(&mut rig, families, 5000);
    let sent = flow.reply(&mut rig, ACK | PSH, 1, 1).packet().to_vec();
    let error = |quote: &[u8]| icmp(router(false, WAN), families.vip(), 3, 3, 0, quote);
    // Options in the quote are skipped.
    let seen = one(rig.client(&error(&with_ipv4_options(&sent, &[1; 40]))));
    assert_eq!(quoted(&seen).0, flow.rip);
    // The quoted TCP checksum is nobody's business.
    let mut odd = sent.clone();
    odd[36] ^= 0xff;
    one(rig.client(&error(&odd)));
    // RFC 4884: what stands behind 128 bytes of quote stays where it is, and the length with it.
    let extended = [&sent[..], &vec![0; 128 - sent.len()], b"\x20\0\0\0extension"].concat();
    let seen = one(rig.client(&icmp(router(false, WAN), families.vip(), 11, 0, 32 << 16, &extended)));
    assert_eq!(seen.icmp(), (11, 0, 32 << 16));
    assert!(seen.payload[128..] == extended[128..]);
    rig.mark();
    let mut wrong = sent.clone();
    wrong[10] ^= 1;
    for quote in [&wrong[..], &sent[..27], &sent[..19], &[], &[0x65; 60]] {
        let out = rig.client(&error(quote));
        rig.only_drop(&out, "icmp_malformed");
    }
    let out = rig.client(&error(&sent)[..27]);
    assert!(out.is_empty());
    rig.finish();
}

#[test]
fn conformance_f5_quoted_extension_headers_are_skipped() {
    let families = Families::ALL[1];
    let mut rig = Rig::new(&families.config(2, "tcp", ""));
    let flow = Conversation::open(&mut rig, families, 5000);
    let sent = flow.reply(&mut rig, ACK | PSH, 1, 1).packet().to_vec();
    let quote = with_extension(&sent, 60, &[0, 0, 1, 4, 0, 0, 0, 0]);
    let seen = one(rig.client(&icmp(router(true, WAN), families.vip(), 1, 4, 0, &quote)));
    assert_eq!(
        &seen.payload[24..40],
        &match flow.lip.0 {
            IpAddr::V6(lip) => lip.octets(),
            IpAddr::V4(_) => unreachable!(),
        }
    );
    rig.finish();
}

#[test]
fn conformance_f6_errors_about_nothing_are_dropped() {
    for families in [Families::V4, Families::ALL[1]] {
        let mut rig = Rig::new(&families.config(2, "tcp", ""));
        let flow = Conversation::open(&mut rig, families, 5000);
        rig.mark();
        let (kind, code) = if families.client_v6 { (1, 4) } else { (3, 3) };
        let from_client = crate::rig::frame::Segment::new(flow.vip, (flow.client.0, 5001), ACK, 1, 1);
        let to_nobody = rig.client(&icmp(flow.client.0, flow.vip.0, kind, code, 0, &from_client.packet()));
        rig.only_drop(&to_nobody, "icmp_no_session");
        // RFC 5508 REQ-4, 5: an error goes to who sent the quoted packet; this one was sent elsewhere.
        let quote = crate::rig::frame::Segment::new(flow.vip, flow.client, ACK, 1, 1).packet();
        let port_address = if families.client_v6 { ip("2001:db8:1::fe") } else { ip("10.1.0.254") };
        let out = rig.client(&icmp(flow.client.0, port_address, kind, code, 0, &quote));
        rig.only_drop(&out, "icmp_no_session");
        rig.finish();
    }
}

/// RFC 3704: an error about what was sent to one side comes from that side.
#[test]
fn conformance_f4_errors_from_the_wrong_side_are_dropped() {
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(2, "tcp", ""));
        let flow = Conversation::open(&mut rig, families, 5000);
        let to_server = flow.send(&mut rig, ACK, 1, 1);
        let to_client = flow.reply(&mut rig, ACK, 1, 1);
        rig.mark();
        for (port, seen, v6) in [(WAN, to_server, families.server_v6), (LAN, to_client, families.client_v6)] {
            let kind = if v6 { (1, 4) } else { (3, 3) };
            let error = icmp(router(v6, port), seen.src, kind.0, kind.1, 0, seen.packet());
            let out = rig.packet(port, &error);
            rig.only_drop(&out, "ip_spoofed_source");
        }
        rig.finish();
    }
}

#[test]
fn conformance_f7_errors_neither_end_nor_refresh_a_session() {
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(2, "tcp", "[service.timeouts]\ntcp_established_secs = 30"));
        let flow = Conversation::open(&mut rig, families, 5000);
        let sent = flow.reply(&mut rig, ACK, 1, 1).packet().to_vec();
        let errors = if families.client_v6 { &ERRORS_V6[..] } else { &ERRORS_V4[..] };
        for _ in 0..28 {
            rig.pass(1);
            for (came, _) in errors {
                one(rig.client(&icmp(flow.client.0, flow.vip.0, came.0, came.1, came.2, &sent)));
            }
        }
        assert_eq!(flow.state(&rig), Some(fullnat::session::State::Established));
        rig.pass(3);
        assert_eq!(flow.state(&rig), None);
        rig.finish();
    }
}

#[test]
fn conformance_f10_other_messages_are_neither_forwarded_nor_answered() {
    let mut rig = Rig::new(&Families::V4.config(1, "tcp", ""));
    for (kind, reason) in [
        (0, "icmp_unhandled"),
        (4, "icmp_unhandled"),
        (5, "icmp_unhandled"),
        (9, "icmp_unhandled"),
        (13, "icmp_unhandled"),
        (15, "icmp_unhandled"),
        (17, "icmp_unhandled"),
    ] {
        let out = rig.client(&icmp(ip("10.1.0.1"), ip("10.1.0.100"), kind, 0, 0, &[0; 28]));
        rig.only_drop(&out, reason);
    }
    rig.finish();
    let families = Families::ALL[1];
    let mut rig = Rig::new(&families.config(1, "tcp", ""));
    for (kind, reason) in [
        (129, "icmp_unhandled"),
        (137, "nd_malformed"),
        (134, "nd_malformed"),
        (100, "icmp_unhandled"),
        (139, "icmp_unhandled"),
    ] {
        let out = rig.client(&icmp(families.client(), families.vip(), kind, 0, 0, &[0; 28]));
        rig.only_drop(&out, reason);
    }
    rig.finish();
}

#[test]
fn conformance_f13_a_closed_udp_port_is_told_to_the_client() {
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(2, "udp", ""));
        let (client, vip) = ((families.client(), 5000), (families.vip(), 80));
        let asked = one(rig.client(&udp(client, vip, b"question")));
        let (kind, code) = if families.server_v6 { (1, 4) } else { (3, 3) };
        let error = icmp(asked.dst, asked.src, kind, code, 0, asked.packet());
        let seen = one(rig.server(&error));
        assert_eq!(seen.icmp(), if families.client_v6 { (1, 4, 0) } else { (3, 3, 0) });
        let (src, dst, rest) = quoted(&seen);
        assert_eq!((src, dst), (client, vip));
        assert!(rest.ends_with(b"question"));
        rig.finish();
    }
}

/// RFC 4443 §2.4 (c): what the gateway sends fits the smallest MTU, also where the family's header grew.
#[test]
fn conformance_d4_translated_errors_fit_the_smallest_mtu() {
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(2, "udp", ""));
        let (client, vip) = ((families.client(), 5000), (families.vip(), 80));
        let asked = one(rig.client(&udp(client, vip, &[3; 1400])));
        let (kind, code) = if families.server_v6 { (1, 4) } else { (3, 3) };
        let error = icmp(asked.dst, asked.src, kind, code, 0, asked.packet());
        let seen = one(rig.server(&error));
        assert!(seen.ip_len <= 1280 && seen.ip_len > 1200, "{} bytes", seen.ip_len);
        rig.finish();
    }
}

/// RFC 791: a message whose TTL ends here is not sent on with a TTL of 0, and nobody is told (RFC 1122 §3.2.2).
#[test]
fn conformance_c2_an_error_whose_hop_limit_ends_here_goes_no_further() {
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(2, "tcp", ""));
        let flow = Conversation::open(&mut rig, families, 5000);
        let sent = flow.reply(&mut rig, ACK, 1, 1);
        let (kind, code) = if families.client_v6 { (1, 4) } else { (3, 3) };
        let error =
            |ttl| icmp_with(sent.dst, sent.src, kind, code, 0, sent.packet(), Ip { ttl, ..Ip::default() });
        assert_eq!(one(rig.client(&error(2))).ttl, 1);
        rig.mark();
        for ttl in [1, 0] {
            let out = rig.client(&error(ttl));
            rig.only_drop(&out, "ip_ttl_exceeded");
        }
        rig.finish();
    }
}

#[test]
fn a_next_hop_that_does_not_answer_is_told_to_the_client() {
    for families in Families::ALL {
        let options = Options { hosts_answer: false, ..Options::default() };
        let mut rig = Rig::with(&families.config(2, "udp", ""), options);
        let (client, vip) = ((families.client(), 5000), (families.vip(), 80));
        // The client is known, the real server is not and never answers.
        let v6 = families.client_v6;
        let mac = [2, 0, 0, 1, 0, 1];
        let own = if v6 { ip("2001:db8:1::fe") } else { ip("10.1.0.254") };
        let hello = match (client.0, own) {
            (IpAddr::V4(from), IpAddr::V4(own)) => {
                crate::rig::frame::arp(1, (mac, from.octets()), ([0; 6], own.octets()), [0xff; 6])
            }
            _ => crate::rig::frame::nd(135, mac, client.0, own, own, crate::rig::WAN_MAC),
        };
        rig.frame(WAN, &hello);
        for round in 0..3 {
            let out = rig.client(&udp(client, vip, b"anybody?"));
            assert!(out.is_empty() && rig.held() == round + 1, "held until the real server is known");
        }
        for _ in 0..5 {
            rig.pass(1);
        }
        let told = rig.take_sent();
        assert_eq!(told.len(), 3, "{told:?}");
        for seen in told {
            assert_eq!(
                seen.icmp(),
                if v6 == families.server_v6 {
                    if v6 { (1, 3, 0) } else { (3, 1, 0) }
                } else if v6 {
                    (1, 0, 0)
                } else {
                    (3, 1, 0)
                }
            );
            assert_eq!((seen.src, seen.dst), (vip.0, client.0));
            assert_eq!(quoted(&seen).0, client);
        }
        assert_eq!(rig.dropped(fullnat::path::drop_reason::DropReason::NeighbourUnreachable), 3);
        rig.finish();
    }
}

/// ICMP in chains of segments: as long as it can be made contiguous it is handled, else it is dropped with its reason.
#[test]
fn conformance_a9_messages_in_several_segments() {
    let families = Families::V4;
    let mut rig = Rig::new(&families.config(2, "tcp", ""));
    let flow = Conversation::open(&mut rig, families, 5000);
    let mut sent = flow.reply(&mut rig, ACK, 1, 1).packet().to_vec();
    sent.resize(400, 7);
    let len = sent.len() as u16;
    sent[2..4].copy_from_slice(&len.to_be_bytes());
    fix_ipv4_checksum(&mut sent);
    fix_l4(&mut sent);
    let error = icmp(flow.client.0, flow.vip.0, 3, 3, 0, &sent);
    for first_segment in [0, 20, 33, 60] {
        for io in &mut rig.ios {
            io.shape = Shape { first_segment, ..Shape::default() };
        }
        let seen = one(rig.client(&error));
        assert_eq!(quoted(&seen).0, flow.rip);
    }
    rig.mark();
    for io in &mut rig.ios {
        io.shape = Shape { headroom: 128, room: 128, first_segment: 128 };
    }
    let out = rig.client(&error);
    rig.only_drop(&out, "headroom");
    rig.finish();
}
