//! Group K: UDP.

use fullnat::wire::Protocol;

use crate::rig::frame::{fix_ipv4, fix_l4, udp};
use crate::rig::{Families, Rig, base, one, service};

fn ends(families: Families) -> ((std::net::IpAddr, u16), (std::net::IpAddr, u16)) {
    ((families.client(), 5000), (families.vip(), 80))
}

#[test]
fn conformance_k1_both_directions_refresh_a_mapping() {
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(2, "udp", ""));
        let (client, vip) = ends(families);
        let (lip, rip) = one(rig.client(&udp(client, vip, b"1"))).ends();
        assert_eq!(rig.at_real_servers(), (1, 0));
        for _ in 0..2 {
            rig.pass(299);
            assert_eq!(one(rig.server(&udp(rip, lip, b"2"))).ends(), (vip, client));
            rig.pass(299);
            assert_eq!(one(rig.client(&udp(client, vip, b"3"))).ends(), (lip, rip));
        }
        rig.pass(302);
        assert_eq!((rig.sessions(), rig.leases()), (0, 0));
        rig.mark();
        let out = rig.server(&udp(rip, lip, b"late"));
        rig.only_drop(&out, "no_session_outbound");
        rig.finish();
    }
}

#[test]
fn conformance_k2_lengths() {
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(2, "udp", ""));
        let (client, vip) = ends(families);
        let l4 = if families.client_v6 { 40 } else { 20 };
        let good = udp(client, vip, b"hello");
        for len in [0u16, 7, 14, 600] {
            let mut packet = good.clone();
            packet[l4 + 4..l4 + 6].copy_from_slice(&len.to_be_bytes());
            let out = rig.client(&packet);
            rig.only_drop(&out, "udp_header");
        }
        // Bytes behind the datagram (RFC 9868) go with it; its checksum does not cover them.
        for missing in [false, true] {
            let mut packet = [&good[..], b"surplus"].concat();
            if families.client_v6 {
                packet[5] += 7;
            } else {
                fix_ipv4(&mut packet);
                if missing {
                    packet[26..28].fill(0);
                }
            }
            let seen = one(rig.client(&packet));
            assert_eq!(seen.payload, b"hello");
            assert!(seen.packet().ends_with(b"hellosurplus"));
        }
        rig.finish();
    }
}

#[test]
fn conformance_k3_ports_of_zero_and_empty_datagrams() {
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(2, "udp", ""));
        let (client, vip) = ends(families);
        let out = rig.client(&udp(client, (vip.0, 0), b"x"));
        rig.only_drop(&out, "udp_header");
        let seen = one(rig.client(&udp((client.0, 0), vip, b"x")));
        let (lip, rip) = seen.ends();
        assert_ne!(lip.1, 0);
        assert_eq!(one(rig.server(&udp(rip, lip, b"y"))).ends(), (vip, (client.0, 0)));
        assert!(one(rig.client(&udp(client, vip, b""))).payload.is_empty());
        rig.finish();
    }
}

#[test]
fn conformance_k4_constant_senders_move_when_their_real_server_is_removed() {
    for families in Families::ALL {
        let other = if families.server_v6 { "[2001:db8:2::12]:8080" } else { "10.2.0.12:8080" };
        let (vip, rip) = (families.vip().to_string(), families.rip().to_string());
        let first = base(2) + &service("udp", &vip, &rip, "");
        let mut rig = Rig::new(&first);
        let (client, vip) = ends(families);
        assert_eq!(one(rig.client(&udp(client, vip, b"1"))).dst, families.rip());
        let old = if families.server_v6 { "[2001:db8:2::11]:8080" } else { "10.2.0.11:8080" };
        rig.apply(&first.replace(old, other));
        let seen = one(rig.client(&udp(client, vip, b"2")));
        assert_ne!(seen.dst, families.rip());
        assert_eq!(rig.sessions(), 1);
        rig.finish();
    }
}

#[test]
fn conformance_h11_h12_two_packets_of_a_new_flow_use_one_mapping() {
    for families in Families::ALL {
        for workers in [1, 2, 4] {
            let mut rig = Rig::new(&families.config(workers, "udp", ""));
            for cport in 5000..5032 {
                let (client, vip) = ((families.client(), cport), (families.vip(), 80));
                let frames = [b"A", b"B"].map(|name| rig.framed(crate::rig::WAN, &udp(client, vip, name)));
                let out = rig.burst(cport as usize % workers, crate::rig::WAN, &frames);
                assert_eq!(out.len(), 2);
                assert_eq!(out[0].ends(), out[1].ends());
                assert_eq!((out[0].payload.as_slice(), out[1].payload.as_slice()), (&b"A"[..], &b"B"[..]));
                assert!(rig.find(client, vip, Protocol::Udp).is_some());
            }
            assert_eq!((rig.sessions(), rig.leases()), (32, 32));
            rig.finish();
        }
    }
}

#[test]
fn conformance_g3_g4_no_checksum_stays_none_and_zero_is_sent_as_ones() {
    let families = Families::V4;
    let mut rig = Rig::new(&families.config(1, "udp", ""));
    let (client, vip) = ends(families);
    let mut none = udp(client, vip, b"hello");
    none[26..28].fill(0);
    let seen = one(rig.client(&none));
    assert!(matches!(seen.l4, crate::rig::seen::L4::Udp { checksum: 0, .. }));
    let (lip, rip) = seen.ends();
    // Every sum there is, in both directions: some come out as zero.
    let mut zeros = 0;
    for value in 0..=u16::MAX {
        for outbound in [false, true] {
            let (src, dst) = if outbound { (rip, lip) } else { (client, vip) };
            let mut packet = udp(src, dst, &value.to_be_bytes());
            fix_l4(&mut packet);
            let port = if outbound { crate::rig::LAN } else { crate::rig::WAN };
            let seen = one(rig.packet(port, &packet));
            let crate::rig::seen::L4::Udp { checksum, .. } = seen.l4 else { panic!() };
            assert_ne!(checksum, 0, "{value}");
            zeros += u32::from(checksum == 0xffff);
        }
    }
    assert!(zeros >= 2, "the corner was met");
    rig.finish();
}
