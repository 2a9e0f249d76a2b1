//! Groups C and D: IPv4 and IPv6 headers.

use crate::rig::conversation::Conversation;
use crate::rig::frame::{
    ACK, Ip, SYN, Segment, ethernet, fix_ipv4, fix_ipv4_checksum, icmp_with, ip_packet, udp, udp_with,
    with_extension, with_ipv4_options,
};
use crate::rig::{Families, LAN, LAN_MAC, Rig, WAN, base, ip, one, service};

const V6: Families = Families::ALL[1];

fn syn(families: Families, cport: u16) -> Vec<u8> {
    Segment::new((families.client(), cport), (families.vip(), 80), SYN, 1, 0).packet()
}

#[test]
fn conformance_c1_wrong_ipv4_headers_are_dropped() {
    let mut rig = Rig::new(&Families::V4.config(2, "tcp", ""));
    let good = syn(Families::V4, 5000);
    type Damage = fn(&mut Vec<u8>);
    let cases: [(&str, Damage); 6] = [
        ("ipv4_header", |packet| packet[0] = 0x55),
        ("ipv4_header", |packet| packet[0] = 0x44),
        ("ipv4_header", |packet| packet[0] = 0x4f),
        ("ipv4_header", |packet| packet[2..4].copy_from_slice(&19u16.to_be_bytes())),
        ("ipv4_header", |packet| packet[2..4].copy_from_slice(&1400u16.to_be_bytes())),
        ("ipv4_checksum", |packet| packet[10] ^= 1),
    ];
    for (reason, damage) in cases {
        let mut frame = rig.framed(WAN, &good);
        let mut packet = good.clone();
        damage(&mut packet);
        if reason == "ipv4_header" {
            fix_ipv4_checksum(&mut packet);
        }
        frame[14..14 + packet.len()].copy_from_slice(&packet);
        let out = rig.frame(WAN, &frame);
        rig.only_drop(&out, reason);
    }
    rig.finish();
}

#[test]
fn conformance_c2_d3_f11_the_hop_limit_counts_down_and_its_end_is_told() {
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(2, "tcp", "client_address = \"toa\""));
        let flow = Conversation::open(&mut rig, families, 5000);
        rig.mark();
        assert_eq!(one(rig.client(&flow.inbound(ACK, 1, 1).ttl(64).packet())).ttl, 63);
        assert_eq!(one(rig.server(&flow.outbound(ACK, 1, 1).ttl(2).packet())).ttl, 1);
        rig.moved(&[("received", 2), ("transmitted", 2), ("toa_sent", 1)]);
        // The gateway's own hop in a traceroute; the quote is what the client sent.
        for last in [flow.inbound(ACK, 1, 1).ttl(1).packet(), syn(families, 5001)] {
            let mut last = last;
            last[if families.client_v6 { 7 } else { 8 }] = 1;
            if !families.client_v6 {
                fix_ipv4_checksum(&mut last);
            }
            let error = one(rig.client(&last));
            assert_eq!((error.src, error.dst), (families.vip(), families.client()));
            assert_eq!(error.icmp(), if families.client_v6 { (3, 0, 0) } else { (11, 0, 0) });
            assert!(error.payload == last, "the whole packet is quoted");
            rig.moved(&[("received", 1), ("originated", 1), ("transmitted", 1), ("drop.ip_ttl_exceeded", 1)]);
        }
        let out = rig.client(&flow.inbound(ACK, 1, 1).ttl(0).packet());
        rig.only_drop(&out, "ip_ttl_exceeded");
        // To a stranger nothing is said.
        let stranger = Families { client_v6: families.client_v6, ..Families::V4 };
        let far = if families.client_v6 { ip("2001:db8:9::9") } else { ip("10.9.9.9") };
        let out = rig.client(&Segment::new((stranger.client(), 1), (far, 80), SYN, 1, 0).ttl(1).packet());
        rig.only_drop(&out, "ip_ttl_exceeded");
        rig.finish();
    }
}

#[test]
fn conformance_c3_d4_errors_are_bounded_and_not_about_errors() {
    for families in [Families::V4, V6] {
        let mut rig = Rig::new(&families.config(1, "udp", ""));
        let payload = [7; 1400];
        let to_nobody = udp((families.client(), 5000), (families.vip(), 81), &payload);
        let error = one(rig.client(&to_nobody));
        let limit = if families.client_v6 { 1280 } else { 576 };
        assert_eq!(error.ip_len, limit);
        assert!(error.payload == to_nobody[..error.payload.len()]);
        rig.mark();
        // An error about nothing we know, with an expiring TTL, unanswered both.
        let quote = udp((families.vip(), 80), (families.client(), 5999), b"12345678");
        let (kind, code) = if families.client_v6 { (1, 4) } else { (3, 3) };
        for ttl in [1, 64] {
            let about_error = icmp_with(
                families.client(),
                families.vip(),
                kind,
                code,
                0,
                &quote,
                Ip { ttl, ..Ip::default() },
            );
            let out = rig.client(&about_error);
            rig.only_drop(&out, "icmp_no_session");
        }
        rig.finish();
    }
}

#[test]
fn conformance_c3_d4_own_errors_are_limited() {
    let options = crate::rig::Options { refusals_per_second: 50, ..Default::default() };
    let mut rig = Rig::with(&Families::V4.config(1, "udp", ""), options);
    let packet = udp((Families::V4.client(), 5000), (Families::V4.vip(), 81), b"?");
    let answered = (0..100).map(|_| rig.client(&packet).len() as u64).sum::<u64>();
    assert_eq!(answered, 5, "a tenth of a second's worth at once");
    rig.moved(&[
        ("received", 100),
        ("originated", 5),
        ("transmitted", 5),
        ("refusals_limited", 95),
        ("drop.no_service", 100),
    ]);
    rig.finish();
}

#[test]
fn conformance_c4_options_are_skipped_and_source_routes_dropped() {
    let mut rig = Rig::new(&Families::V4.config(2, "tcp", ""));
    let good = syn(Families::V4, 5000);
    let record_route = [&[7, 39, 4][..], &[0; 36], &[0]].concat();
    for options in [&record_route[..], &[148, 4, 0, 0], &[68, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[1; 40]] {
        let seen = one(rig.client(&with_ipv4_options(&good, options)));
        assert_eq!((seen.flags(), seen.ends().1), (SYN, (ip("10.2.0.11"), 8080)), "{options:?}");
        assert_eq!(rig.sessions(), 1);
    }
    rig.mark();
    for (options, reason) in [
        (&[131, 7, 4, 10, 9, 9, 9, 0][..], "ipv4_source_route"),
        (&[137, 7, 4, 10, 9, 9, 9, 0], "ipv4_source_route"),
        (&[7, 1, 0, 0], "ipv4_options"),
        (&[7, 40, 4, 0], "ipv4_options"),
        (&[1, 1, 1, 7], "ipv4_options"),
    ] {
        let out = rig.client(&with_ipv4_options(&good, options));
        rig.only_drop(&out, reason);
    }
    rig.finish();
}

#[test]
fn conformance_c4_options_do_not_cross_to_ipv6() {
    let families = Families::ALL[2];
    let mut rig = Rig::new(&families.config(1, "tcp", ""));
    let seen = one(rig.client(&with_ipv4_options(&syn(families, 5000), &[1; 40])));
    assert_eq!((seen.ip_len, seen.flags()), (60, SYN));
    rig.finish();
}

#[test]
fn conformance_c5_d7_martian_sources_are_dropped() {
    let v4 = ["0.1.2.3", "127.0.0.1", "224.0.0.5", "239.1.1.1", "240.0.0.1", "255.255.255.255"];
    let v6 = ["::", "::1", "ff02::1", "fe80::1", "::ffff:10.1.0.1"];
    for (families, sources) in [(Families::V4, &v4[..]), (V6, &v6[..])] {
        let mut rig = Rig::new(&families.config(1, "tcp", ""));
        for source in sources {
            let out = rig.client(&Segment::new((ip(source), 5000), (families.vip(), 80), SYN, 1, 0).packet());
            rig.only_drop(&out, "ip_martian_source");
        }
        rig.finish();
    }
    // Nor is a ping answered to a group or to nobody.
    let mut rig = Rig::new(&V6.config(1, "tcp", ""));
    for source in ["::", "::1", "ff02::1", "::ffff:10.1.0.1"] {
        let echo = icmp_with(ip(source), V6.vip(), 128, 0, 1, b"ping", Ip::default());
        let out = rig.client(&echo);
        rig.only_drop(&out, "ip_martian_source");
    }
    rig.finish();
}

#[test]
fn conformance_c6_c7_our_own_and_misplaced_sources_are_dropped() {
    for families in [Families::V4, V6] {
        let mut rig = Rig::new(&families.config(2, "tcp", ""));
        let [lip, own] = match families.server_v6 {
            true => ["2001:db8:2::100", "2001:db8:1::fe"],
            false => ["10.2.0.100", "10.1.0.254"],
        }
        .map(ip);
        let from = |source, sport| Segment::new((source, sport), (families.vip(), 80), SYN, 1, 0).packet();
        for (source, sport, reason) in [
            (families.vip(), 80, "land"),
            (families.vip(), 5000, "land"),
            (own, 5000, "ip_spoofed_source"),
            (lip, 5000, "ip_spoofed_source"),
            (families.rip(), 5000, "ip_spoofed_source"),
        ] {
            let out = rig.client(&from(source, sport));
            rig.only_drop(&out, reason);
        }
        // The same real server from its own side is a client like any other.
        rig.hairpin = true;
        assert_eq!(one(rig.server(&from(families.rip(), 5000))).flags(), SYN);
        rig.finish();

        // What is ours is nobody else's wherever it comes from, whichever route would lead there.
        let anywhere =
            families.config(2, "tcp", "").replace("mtu = 1500", "mtu = 1500\nreverse_path_filter = false");
        let far = if families.client_v6 { "2001:db8:9::1" } else { "10.9.0.1" };
        let second = service("tcp", far, &families.rip().to_string(), "").replace("\"web\"", "\"two\"");
        let mut rig = Rig::new(&(anywhere + &second));
        for source in [own, lip, ip(far)] {
            let out = rig.client(&from(source, 5000));
            rig.only_drop(&out, "ip_spoofed_source");
        }
        rig.finish();
    }
}

#[test]
fn conformance_c7_packets_of_a_session_from_the_wrong_side_are_dropped() {
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(2, "tcp", ""));
        let flow = Conversation::open(&mut rig, families, 5000);
        rig.mark();
        let out = rig.packet(LAN, &flow.inbound(ACK, 1, 1).packet());
        rig.only_drop(&out, "ip_spoofed_source");
        let out = rig.packet(WAN, &flow.outbound(ACK, 1, 1).packet());
        rig.only_drop(&out, "ip_spoofed_source");
        rig.finish();
    }
    // Without the filter they pass.
    let config =
        Families::V4.config(1, "tcp", "").replace("mtu = 1500", "mtu = 1500\nreverse_path_filter = false");
    let mut rig = Rig::new(&config);
    let flow = Conversation::open(&mut rig, Families::V4, 5000);
    one(rig.packet(LAN, &flow.inbound(ACK, 1, 1).packet()));
    rig.finish();
}

#[test]
fn conformance_c8_other_destinations_are_not_ours() {
    let mut rig = Rig::new(&Families::V4.config(1, "tcp", ""));
    for destination in ["10.1.0.255", "255.255.255.255", "224.0.0.1", "10.1.0.77", "10.2.0.11"] {
        let out =
            rig.client(&Segment::new((ip("10.1.0.1"), 5000), (ip(destination), 80), SYN, 1, 0).packet());
        rig.only_drop(&out, "ip_not_for_us");
    }
    rig.finish();
}

#[test]
fn conformance_c9_a_port_without_service_is_refused() {
    for families in [Families::V4, V6] {
        let mut rig = Rig::new(&families.config(2, "tcp", ""));
        let ends = ((families.client(), 5000), (families.vip(), 81));
        let segment = Segment::new(ends.0, ends.1, SYN, 77, 0).payload(b"data");
        let rst = one(rig.client(&segment.packet()));
        assert_eq!(rst.tcp(), (crate::rig::frame::RST | ACK, 0, 77 + 1 + 4));
        assert_eq!(rst.ends(), (ends.1, ends.0));
        let error = one(rig.client(&udp(ends.0, ends.1, b"hello")));
        assert_eq!(error.icmp(), if families.client_v6 { (1, 4, 0) } else { (3, 3, 0) });
        rig.moved(&[("received", 2), ("originated", 2), ("transmitted", 2), ("drop.no_service", 2)]);
        // Silent by option.
        rig.apply(&(families.config(2, "tcp", "") + "\n[refusal]\nanswer = false\n"));
        let out = rig.client(&segment.packet());
        rig.only_drop(&out, "no_service");
        rig.finish();
    }
}

#[test]
fn conformance_c10_other_protocols_are_not_tcp_or_udp() {
    let mut rig = Rig::new(&Families::V4.config(1, "udp", ""));
    let datagram = udp((ip("10.1.0.1"), 5000), (ip("10.1.0.100"), 80), b"hello");
    for protocol in [136, 132, 33, 47, 50, 253, 4, 41] {
        let packet = ip_packet(ip("10.1.0.1"), ip("10.1.0.100"), protocol, Ip::default(), &datagram[20..]);
        let out = rig.client(&packet);
        rig.only_drop(&out, "ip_unknown_protocol");
    }
    rig.finish();
}

#[test]
fn conformance_c11_dscp_and_ecn_survive() {
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(1, "tcp", ""));
        let flow = Conversation::open(&mut rig, families, 5000);
        for tos in [0xbb, 0x02, 0xff, 0] {
            assert_eq!(one(rig.client(&flow.inbound(ACK, 1, 1).tos(tos).packet())).tos, tos);
            assert_eq!(one(rig.server(&flow.outbound(ACK, 1, 1).tos(tos).packet())).tos, tos);
        }
        rig.finish();
    }
}

#[test]
fn conformance_c12_datagrams_that_may_be_fragmented_get_identifications_of_ours() {
    let mut rig = Rig::new(&Families::V4.config(2, "udp", ""));
    let mut seen = std::collections::HashSet::new();
    for cport in 5000..5200 {
        let loose = Ip { dont_fragment: false, id: 7, ..Ip::default() };
        let packet = udp_with((ip("10.1.0.1"), cport), (ip("10.1.0.100"), 80), b"hello", loose);
        let out = one(rig.client(&packet));
        assert!(!out.dont_fragment);
        assert!(seen.insert(out.id), "identification {} twice", out.id);
    }
    rig.finish();
}

#[test]
fn conformance_c14_the_reserved_bit_changes_nothing() {
    let mut rig = Rig::new(&Families::V4.config(1, "tcp", ""));
    let mut packet = syn(Families::V4, 5000);
    packet[6] |= 0x80;
    fix_ipv4(&mut packet);
    assert_eq!(one(rig.client(&packet)).flags(), SYN);
    rig.finish();
}

#[test]
fn conformance_d1_extension_headers_are_walked_within_bounds() {
    for families in [V6, Families::ALL[3]] {
        let mut rig = Rig::new(&families.config(2, "tcp", ""));
        let good = syn(families, 5000);
        let padding = [0, 0, 1, 4, 0, 0, 0, 0];
        let mut chain = good.clone();
        for length in 1..=8 {
            chain = with_extension(&chain, 60, &padding);
            let seen = one(rig.client(&chain));
            assert_eq!((seen.flags(), seen.dst), (SYN, families.rip()), "{length} headers");
        }
        // hop by hop, destination options, routing without segments left
        let routing = [0, 0, 4, 0, 0, 0, 0, 0];
        let full =
            with_extension(&with_extension(&with_extension(&good, 43, &routing), 60, &padding), 0, &padding);
        one(rig.client(&full));
        rig.mark();
        for _ in 9..=64 {
            chain = with_extension(&chain, 60, &padding);
            let out = rig.client(&chain);
            rig.only_drop(&out, "ipv6_extension");
        }
        let mut cut = with_extension(&good[..40], 60, &[6, 200, 1, 4, 0, 0, 0, 0]);
        cut[40] = 6;
        let out = rig.client(&cut);
        rig.only_drop(&out, "ipv6_extension");
        rig.finish();
    }
}

#[test]
fn conformance_d2_source_routes_and_unknown_headers_are_dropped() {
    let mut rig = Rig::new(&V6.config(1, "tcp", ""));
    let good = syn(V6, 5000);
    for (kind, header, reason) in [
        (43, [0, 0, 0, 1, 0, 0, 0, 0], "ipv6_routing_header"),
        (43, [0, 0, 0, 0, 0, 0, 0, 0], "ipv6_routing_header"),
        (43, [0, 0, 4, 1, 0, 0, 0, 0], "ipv6_routing_header"),
        (44, [0, 0, 0, 1, 0, 0, 0, 9], "ip_fragment"),
        (44, [0, 0, 0, 0, 0, 0, 0, 9], "ip_fragment"),
        (140, [0, 0, 1, 4, 0, 0, 0, 0], "ip_unknown_protocol"),
        (59, [0, 0, 1, 4, 0, 0, 0, 0], "ip_unknown_protocol"),
    ] {
        let out = rig.client(&with_extension(&good, kind, &header));
        rig.only_drop(&out, reason);
    }
    rig.finish();
}

#[test]
fn conformance_d5_udp_over_ipv6_has_a_checksum() {
    let mut rig = Rig::new(&V6.config(1, "udp", ""));
    let mut packet = udp((V6.client(), 5000), (V6.vip(), 80), b"hello");
    packet[46..48].fill(0);
    let out = rig.client(&packet);
    rig.only_drop(&out, "udp_checksum_missing");
    rig.finish();
}

#[test]
fn conformance_d8_families_are_translated_as_rfc_7915_says() {
    // 6->4: small packets may be fragmented behind us, large ones not.
    let families = Families::ALL[3];
    let mut rig = Rig::new(&families.config(1, "udp", ""));
    for (len, dont_fragment) in [(10, false), (1232, false), (1233, true), (1400, true)] {
        let seen = one(rig.client(&udp((families.client(), 5000), (families.vip(), 80), &vec![1; len])));
        assert_eq!((seen.ip_len, seen.dont_fragment), (28 + len, dont_fragment));
        assert_eq!(seen.id == 0, dont_fragment);
    }
    rig.finish();
    // 4->6: a datagram without checksum gets one, also with bytes behind it.
    let families = Families::ALL[2];
    let mut rig = Rig::new(&families.config(1, "udp", ""));
    for payload in [&b"hello"[..], b"", b"x"] {
        let mut packet = udp((families.client(), 5000), (families.vip(), 80), payload);
        packet[26..28].fill(0);
        let seen = one(rig.client(&packet));
        assert_eq!(seen.payload, payload);
    }
    rig.finish();
}

#[test]
fn conformance_d9_payload_lengths_must_be_right() {
    let mut rig = Rig::new(&V6.config(1, "tcp", ""));
    for len in [0u16, 1000, 0xffff] {
        let mut packet = syn(V6, 5000);
        packet[4..6].copy_from_slice(&len.to_be_bytes());
        let out = rig.client(&packet);
        rig.only_drop(&out, "ipv6_header");
    }
    let mut packet = syn(V6, 5000);
    packet[0] = 0x50;
    let frame = [&rig.framed(WAN, &syn(V6, 5000))[..14], &packet].concat();
    let out = rig.frame(WAN, &frame);
    rig.only_drop(&out, "ipv6_header");
    rig.finish();
}

#[test]
fn a_real_server_behind_a_router_is_reached() {
    let route = "[[route]]\nto = \"10.3.0.0/24\"\nvia = \"10.2.0.12\"\n";
    let config = base(2) + route + &service("tcp", "10.1.0.100", "10.3.0.9", "");
    let mut rig = Rig::new(&config);
    let syn = Segment::new((ip("10.1.0.1"), 5000), (ip("10.1.0.100"), 80), SYN, 1, 0);
    let seen = one(rig.client(&syn.packet()));
    assert_eq!((seen.dst, &seen.frame[..6]), (ip("10.3.0.9"), &[2, 0, 0, 2, 0, 12][..]));
    let answer = Segment::new(seen.ends().1, seen.ends().0, SYN | ACK, 9, seen.seq().wrapping_add(1));
    let answer = one(rig.frame(LAN, &ethernet(LAN_MAC, [2, 0, 0, 2, 0, 12], &answer.packet())));
    assert_eq!(answer.dst, ip("10.1.0.1"));
    rig.finish();
}

#[test]
fn resets_that_nobody_answers_cost_nothing_of_the_limit() {
    let options = crate::rig::Options { refusals_per_second: 10, ..Default::default() };
    let mut rig = Rig::with(&Families::V4.config(1, "tcp", ""), options);
    let (client, vip) = ((Families::V4.client(), 5000), (Families::V4.vip(), 80));
    for _ in 0..100 {
        let out = rig.client(&Segment::new(client, vip, crate::rig::frame::RST, 1, 0).packet());
        rig.only_drop(&out, "no_session");
    }
    one(rig.client(&Segment::new(client, vip, ACK, 1, 1).packet()));
    rig.finish();
}
