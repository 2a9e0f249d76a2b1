//! Datagrams of a front that names its clients by PROXY protocol.

use crate::front::{named, trusting};
use crate::proxy::{V1, V2, header};
use crate::rig::frame::{End, fix_l4, make_partial, udp};
use crate::rig::seen::Seen;
use crate::rig::{Families, LAN, Options, Rig, WAN, ip, one};

const UOA: &str = "client_address = \"uoa\"";
const EACH: &str = "client_address = \"proxy-v2\"\nproxy = { each_datagram = true }";

fn ends(families: Families) -> (End, End) {
    ((families.client(), 5000), (families.vip(), 80))
}

/// A second client of the same front.
fn another(v6: bool) -> (End, End) {
    let (client, vip) = named(v6);
    ((client.0, client.1 + 1), vip)
}

fn send(rig: &mut Rig, families: Families, payload: &[&[u8]]) -> Seen {
    let (front, vip) = ends(families);
    one(rig.client(&udp(front, vip, &payload.concat())))
}

#[test]
fn headers_are_taken_off_and_the_last_client_named_is_told() {
    for families in Families::ALL {
        for v6 in [false, true] {
            let ((client, vip), (second, _)) = (named(v6), another(v6));
            let [first_header, second_header] = [client, second].map(|client| header(V2, client, vip, 2));
            for more in ["", UOA, V2, EACH] {
                let mut rig = Rig::new(&families.config(2, "udp", &trusting(more)));
                // Who is told, and by what: `None` where the datagram says nothing.
                let check = |seen: &Seen, payload: &[u8], whose: End, is_told: bool| {
                    let told = if is_told { header(V2, whose, vip, 2) } else { Vec::new() };
                    assert_eq!(seen.payload, [&told[..], payload].concat(), "{more}");
                    let has_uoa = more == UOA && !families.server_v6;
                    assert_eq!(seen.uoa(), has_uoa.then_some(whose));
                };
                let is_proxy = more == V2 || more == EACH;
                let seen = send(&mut rig, families, &[&first_header, b"odd"]);
                check(&seen, b"odd", client, is_proxy);
                // The same client's again says nothing new.
                let seen_again = send(&mut rig, families, &[&first_header, b"even"]);
                check(&seen_again, b"even", client, more == EACH);
                check(&send(&mut rig, families, &[&first_header]), b"", client, more == EACH);
                // Another's has to be told anew.
                check(&send(&mut rig, families, &[&second_header, b"other"]), b"other", second, is_proxy);
                let uoa = if more == UOA && !families.server_v6 { 4 } else { 0 };
                let sent = match more {
                    V2 => 2,
                    EACH => 4,
                    _ => 0,
                };
                rig.moved(&[
                    ("received", 4),
                    ("transmitted", 4),
                    ("sessions_created", 1),
                    ("proxy_taken", 4),
                    ("proxy_sent", sent),
                    ("uoa_sent", uoa),
                ]);
                let (lip, rip) = seen.ends();
                let answer = one(rig.server(&udp(rip, lip, b"answer")));
                assert_eq!((answer.ends(), answer.port), ((families.vip_end(), ends(families).0), WAN));
                assert_eq!(answer.payload, b"answer");
                rig.finish();
            }
        }
    }
}

#[test]
fn lengths_and_checksums_are_right_whether_there_is_one_or_not() {
    for families in Families::ALL {
        let (front, vip) = ends(families);
        for (client, dialled) in [named(false), named(true)] {
            let header = header(V2, client, dialled, 2);
            for payload in [&b"odd"[..], b"even", b""] {
                let packet = udp(front, vip, &[&header[..], payload].concat());
                let l4 = packet.len() - 8 - header.len() - payload.len();
                let mut variants = vec![(packet.clone(), false)];
                if !families.client_v6 {
                    let mut missing = packet.clone();
                    missing[l4 + 6..l4 + 8].fill(0);
                    variants.push((missing, false));
                }
                let mut partial = packet.clone();
                make_partial(&mut partial);
                variants.push((partial, true));
                for (packet, partial) in variants {
                    let options = Options { partial_checksums: partial, ..Options::default() };
                    let mut rig = Rig::with(&families.config(1, "udp", &trusting("")), options);
                    let seen = one(rig.client(&packet));
                    assert_eq!((&seen.payload[..], seen.port), (payload, LAN));
                    rig.finish();
                }
            }
        }
    }
}

/// A session's first datagrams tell its client, and so do the first of the next client.
#[test]
fn of_another_client_as_many_datagrams_tell_as_of_a_new_session() {
    let ((client, vip), (second, _)) = (named(false), another(false));
    let [first_header, second_header] = [client, second].map(|client| header(V2, client, vip, 2));
    for families in Families::ALL.into_iter().filter(|families| !families.server_v6) {
        let more = format!("{UOA}\nuoa = {{ datagrams_max = 2 }}");
        let mut rig = Rig::new(&families.config(1, "udp", &trusting(&more)));
        let told = |rig: &mut Rig, header: &[u8]| {
            [(); 3].map(|()| send(rig, families, &[header, b"question"]).uoa())
        };
        assert_eq!(told(&mut rig, &first_header), [Some(client), Some(client), None]);
        assert_eq!(told(&mut rig, &second_header), [Some(second), Some(second), None]);
        // Once the real server has answered the one, too.
        let seen = send(&mut rig, families, &[&first_header, b"question"]);
        assert_eq!(seen.uoa(), Some(client));
        let (lip, rip) = seen.ends();
        one(rig.server(&udp(rip, lip, b"answer")));
        assert_eq!(told(&mut rig, &first_header), [None; 3]);
        assert_eq!(told(&mut rig, &second_header), [Some(second), Some(second), None]);
        rig.finish();
    }
}

/// J2: what a front's client sends lies behind the front's header, and names nobody.
#[test]
fn conformance_j2_a_header_behind_a_fronts_header_is_payload() {
    let ((client, vip), (other, _)) = (named(false), another(false));
    let [good, forged] = [client, other].map(|client| header(V2, client, vip, 2));
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(1, "udp", &trusting(UOA)));
        for _ in 0..2 {
            let seen = send(&mut rig, families, &[&good, &forged, b"question"]);
            assert_eq!(seen.payload, [&forged[..], b"question"].concat());
            assert_eq!(seen.uoa(), (!families.server_v6).then_some(client));
        }
        rig.finish();
    }
}

#[test]
fn a_datagram_begins_with_a_header_or_goes_no_further() {
    let (client, vip) = named(false);
    let good = header(V2, client, vip, 2);
    for families in Families::ALL {
        for bytes in [
            &b"question"[..],
            b"",
            // of a connection, and the form that datagrams do not have
            &header(V2, client, vip, 1),
            &header(V1, client, vip, 1),
            &good[..20],
        ] {
            let mut rig = Rig::new(&families.config(1, "udp", &trusting(UOA)));
            let (front, listener) = ends(families);
            let error = one(rig.client(&udp(front, listener, bytes)));
            assert_eq!(error.icmp().0, if families.client_v6 { 1 } else { 3 });
            rig.moved(&[
                ("received", 1),
                ("originated", 1),
                ("transmitted", 1),
                ("sessions_created", 1),
                ("sessions_ended", 1),
                ("drop.proxy_header_malformed", 1),
            ]);
            // A session that has its client goes on.
            assert_eq!(send(&mut rig, families, &[&good, b"question"]).payload, b"question");
            rig.mark();
            let out = rig.client(&udp(front, listener, bytes));
            rig.only_drop(&out, "proxy_header_malformed");
            let seen = send(&mut rig, families, &[&good, b"question"]);
            assert_eq!(seen.uoa(), (!families.server_v6).then_some(client));
            rig.finish();
        }
    }
}

#[test]
fn a_removed_real_servers_sessions_begin_anew_with_the_client_that_is_named() {
    let (client, dialled) = named(false);
    let good = header(V2, client, dialled, 2);
    for families in Families::ALL {
        for more in [UOA, V2] {
            let config = families.config(2, "udp", &trusting(more));
            let mut rig = Rig::new(&config);
            send(&mut rig, families, &[&good, b"first"]);
            let (old, new) = if families.server_v6 { ("::11]", "::12]") } else { ("2.0.11", "2.0.12") };
            rig.apply(&config.replace(old, new));
            rig.mark();
            let seen = send(&mut rig, families, &[&good, b"second"]);
            assert!(seen.dst.to_string().ends_with("12"), "{seen:?}");
            let told = if more == V2 { good.clone() } else { Vec::new() };
            assert_eq!(seen.payload, [&told[..], b"second"].concat());
            assert_eq!(seen.uoa(), (more == UOA && !families.server_v6).then_some(client));
            assert_eq!(rig.sessions(), 1);
            // Who is trusted no more begins like anybody.
            rig.apply(&families.config(2, "udp", more));
            let seen = send(&mut rig, families, &[&good]);
            let own =
                if more == V2 { header(V2, ends(families).0, families.vip_end(), 2) } else { Vec::new() };
            assert_eq!(seen.payload, [&own[..], &good].concat());
            rig.finish();
        }
    }
}

/// §2.2 LOCAL: the front asks for itself.
#[test]
fn of_the_fronts_own_datagrams_its_own_address_is_told() {
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(1, "udp", &trusting(V2)));
        let (front, vip) = ends(families);
        let seen = send(&mut rig, families, &[b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", b"are you there"]);
        assert_eq!(seen.payload, [&header(V2, front, vip, 2)[..], b"are you there"].concat());
        rig.finish();
    }
}

#[test]
fn a_header_from_anybody_else_is_payload() {
    let (client, vip) = named(false);
    let header = header(V2, client, vip, 2);
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(1, "udp", &trusting(UOA)));
        let other = (ip(if families.client_v6 { "2001:db8:1::2" } else { "10.1.0.2" }), 5000);
        let seen = one(rig.client(&udp(other, families.vip_end(), &header)));
        assert_eq!(seen.payload, header);
        assert_eq!(seen.uoa(), (!families.server_v6).then_some(other));
        rig.finish();
    }
}

/// What follows the datagram (RFC 9868) is no part of it, and stays behind it.
#[test]
fn what_follows_the_datagram_stays_there() {
    let (client, vip) = named(false);
    let header = header(V2, client, vip, 2);
    let mut rig = Rig::new(&Families::V4.config(1, "udp", &trusting("")));
    let (front, listener) = ends(Families::V4);
    let mut packet = [&udp(front, listener, &[&header[..], b"question"].concat())[..], b"surplus"].concat();
    let len = packet.len() as u16;
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    crate::rig::frame::fix_ipv4(&mut packet);
    rig.damaged = true;
    let seen = one(rig.client(&packet));
    assert!(seen.packet().ends_with(b"questionsurplus"));
    // The checksum is the datagram's alone.
    let mut alone = seen.packet()[..seen.packet().len() - 7].to_vec();
    let len = alone.len() as u16;
    alone[2..4].copy_from_slice(&len.to_be_bytes());
    crate::rig::frame::fix_ipv4(&mut alone);
    let before = alone[26..28].to_vec();
    fix_l4(&mut alone);
    assert_eq!(alone[26..28], before);
    rig.finish();
}
