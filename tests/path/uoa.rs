//! Group J for UDP: the client's address in an IPv4 option.

use std::net::IpAddr;

use fullnat::path::heap::Shape;
use fullnat::wire::Protocol;

use crate::pools::small_pool;
use crate::rig::frame::{
    End, Ip, SYN, Segment, fix_ipv4, icmp, make_partial, udp, udp_with, with_extension, with_ipv4_options,
};
use crate::rig::seen::{Seen, options};
use crate::rig::{Families, LAN, Options, Rig, base, ip, one, service};

const UOA: &str = "client_address = \"uoa\"";
/// Those with an IPv4 real server: only there is a place for it.
const TOLD: [Families; 2] = [Families::ALL[0], Families::ALL[3]];
/// One that names somebody else, in the form of each family.
const FORGED_V4: [u8; 8] = [31, 8, 0x1a, 0x0a, 192, 0, 2, 66];
const FORGED_V6: [u8; 20] = [31, 20, 0x1a, 0x0a, 0x20, 1, 0xd, 0xb8, 0xb, 0xad, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

fn ends(families: Families, cport: u16) -> (End, End) {
    ((families.client(), cport), (families.vip(), 80))
}

fn len(families: Families) -> usize {
    if families.client_v6 { 20 } else { 8 }
}

/// A datagram of the client on port 5000 as the real server sees it.
fn ask(rig: &mut Rig, families: Families) -> Seen {
    let (client, vip) = ends(families, 5000);
    one(rig.client(&udp(client, vip, b"ask")))
}

#[test]
fn the_first_datagrams_name_the_client_until_the_real_server_has_answered() {
    for families in TOLD {
        for workers in [1, 2, 4] {
            let mut rig = Rig::new(&families.config(workers, "udp", UOA));
            let (client, vip) = ends(families, 5000);
            for sent in 1..=2 {
                let seen = ask(&mut rig, families);
                assert_eq!(
                    (seen.uoa(), seen.payload.as_slice()),
                    (Some(client), &b"ask"[..]),
                    "datagram {sent}"
                );
                assert_eq!(
                    (seen.ipv4_options().len(), seen.ip_len),
                    (len(families), 20 + len(families) + 11)
                );
            }
            let (lip, rip) = ask(&mut rig, families).ends();
            rig.moved(&[("received", 3), ("transmitted", 3), ("sessions_created", 1), ("uoa_sent", 3)]);
            let answer = one(rig.server(&udp(rip, lip, b"answer")));
            assert_eq!((answer.ends(), answer.payload.as_slice()), ((vip, client), &b"answer"[..]));
            assert!(answer.ipv4_options().is_empty());
            for _ in 0..2 {
                let seen = ask(&mut rig, families);
                assert_eq!((seen.uoa(), seen.ip_len, seen.ends()), (None, 31, (lip, rip)));
            }
            rig.moved(&[("received", 3), ("transmitted", 3)]);
            rig.finish();
        }
    }
}

#[test]
fn without_an_answer_so_many_datagrams_name_the_client() {
    for families in TOLD {
        for (more, most) in
            [("", 3), ("\n[service.uoa]\ndatagrams_max = 1", 1), ("\nuoa = { datagrams_max = 255 }", 255)]
        {
            let mut rig = Rig::new(&families.config(2, "udp", &format!("{UOA}{more}")));
            let named = (0..300).filter(|_| ask(&mut rig, families).uoa().is_some()).count();
            assert_eq!(named, most);
            rig.moved(&[
                ("received", 300),
                ("transmitted", 300),
                ("sessions_created", 1),
                ("uoa_sent", most as u64),
            ]);
            rig.finish();
        }
    }
}

#[test]
fn conformance_j8_nobody_is_named_unless_asked_for_nor_to_an_ipv6_real_server() {
    for families in Families::ALL {
        let asked = if families.server_v6 { UOA } else { "" };
        let mut rig = Rig::new(&families.config(2, "udp", asked));
        for _ in 0..2 {
            assert!(ask(&mut rig, families).ipv4_options().is_empty());
        }
        rig.moved(&[("received", 2), ("transmitted", 2), ("sessions_created", 1)]);
        rig.finish();
    }
    for families in TOLD {
        // Turned on, sessions that have begun go on without; turned off, at once, and for good.
        let mut rig = Rig::new(&families.config(2, "udp", ""));
        ask(&mut rig, families);
        rig.apply(&families.config(2, "udp", UOA));
        assert_eq!(ask(&mut rig, families).uoa(), None);
        let (other, vip) = ends(families, 5001);
        assert_eq!(one(rig.client(&udp(other, vip, b"1"))).uoa(), Some(other));
        for more in ["", UOA] {
            rig.apply(&families.config(2, "udp", more));
            assert_eq!(one(rig.client(&udp(other, vip, b"2"))).uoa(), None);
        }
        rig.finish();
    }
}

/// In every place among the options, before, while and after the gateway names the client, over UDP and TCP.
#[test]
fn conformance_j2_a_clients_own_option_never_reaches_the_real_server() {
    let families = Families::V4;
    let (client, vip) = ends(families, 5000);
    let foreign = [&[7, 7, 4, 0, 0, 0, 0, 1][..], &FORGED_V4].concat();
    for more in [UOA, ""] {
        let mut rig = Rig::new(&families.config(2, "udp", more));
        let expected = (!more.is_empty()).then_some(client);
        let forge = |rig: &mut Rig, forged: &[u8], expected: Option<End>| {
            let seen = one(rig.client(&with_ipv4_options(&udp(client, vip, b"ask"), forged)));
            assert_eq!((seen.uoa(), seen.payload.as_slice()), (expected, &b"ask"[..]), "{forged:02x?}");
            assert_eq!(
                seen.ipv4_options().len(),
                forged.len() + expected.map_or(0, |_| 8),
                "those stay, as NOPs"
            );
            seen
        };
        forge(&mut rig, &FORGED_V4, expected);
        forge(&mut rig, &FORGED_V6, expected);
        let seen = forge(&mut rig, &foreign, expected);
        assert_eq!(options(seen.ipv4_options()).last().unwrap()[0], 7, "what is no business of ours passes");
        let (lip, rip) = seen.ends();
        one(rig.server(&udp(rip, lip, b"answer")));
        for forged in [&FORGED_V4[..], &FORGED_V6, &foreign, &[31, 4, 0, 0], &[1, 31, 3, 0]] {
            let seen = forge(&mut rig, forged, None);
            assert!(options(seen.ipv4_options()).iter().all(|option| option[0] != 31));
        }
        rig.finish();
    }
    let mut rig = Rig::new(&families.config(2, "tcp", "client_address = \"toa\""));
    let syn = Segment::new(client, vip, SYN, 7, 0);
    let seen = one(rig.client(&with_ipv4_options(&syn.packet(), &FORGED_V4)));
    assert_eq!((seen.uoa(), seen.toa(254)), (None, Some(client)));
    rig.finish();
}

/// One byte more than what fits with the option goes without, and an answer to it does not end the telling.
#[test]
fn conformance_j4_a_datagram_that_would_exceed_the_mtu_goes_without() {
    for families in TOLD {
        let mut rig = Rig::new(&families.config(2, "udp", UOA));
        let (client, vip) = ends(families, 5000);
        let send = |rig: &mut Rig, payload: usize| {
            one(rig.client(&udp_with(
                client,
                vip,
                &vec![7; payload],
                Ip { dont_fragment: true, ..Ip::default() },
            )))
        };
        // Through the longer header of IPv6 less comes in than would fit.
        let longest = (1500 - len(families) - 28).min(if families.client_v6 { 1452 } else { 1472 });
        if !families.client_v6 {
            let seen = send(&mut rig, longest + 1);
            assert_eq!((seen.uoa(), seen.payload.len()), (None, longest + 1));
            let (lip, rip) = seen.ends();
            one(rig.server(&udp(rip, lip, b"answer")));
            rig.moved(&[
                ("received", 2),
                ("transmitted", 2),
                ("sessions_created", 1),
                ("uoa_no_mtu_room", 1),
            ]);
        }
        let seen = send(&mut rig, longest);
        assert_eq!((seen.uoa(), seen.payload.len()), (Some(client), longest));
        assert_eq!(seen.ip_len, longest + 28 + len(families));
        rig.finish();
    }
}

/// One-way senders of full datagrams are not kept out of the express lane for ever.
#[test]
fn a_session_that_never_has_room_is_given_up() {
    let families = Families::V4;
    let mut rig = Rig::new(&families.config(1, "udp", UOA));
    let (client, vip) = ends(families, 5000);
    let full = udp_with(client, vip, &[7; 1472], Ip { dont_fragment: true, ..Ip::default() });
    for _ in 0..300 {
        assert_eq!(one(rig.client(&full)).uoa(), None);
    }
    assert_eq!(ask(&mut rig, families).uoa(), None);
    rig.moved(&[("received", 301), ("transmitted", 301), ("sessions_created", 1), ("uoa_no_mtu_room", 257)]);
    rig.finish();
}

#[test]
fn conformance_j3_without_room_among_the_options_it_goes_without() {
    let families = Families::V4;
    let mut rig = Rig::new(&families.config(2, "udp", UOA));
    let (client, vip) = ends(families, 5000);
    for (others, expected) in [(40, None), (36, None), (32, Some(client)), (0, Some(client))] {
        let seen = one(rig.client(&with_ipv4_options(&udp(client, vip, b"ask"), &vec![1; others])));
        assert_eq!((seen.uoa(), seen.payload.as_slice()), (expected, &b"ask"[..]), "beside {others} bytes");
        assert_eq!(seen.ipv4_options().len(), others + expected.map_or(0, |_| 8));
    }
    rig.moved(&[
        ("received", 4),
        ("transmitted", 4),
        ("sessions_created", 1),
        ("uoa_sent", 2),
        ("uoa_no_option_room", 2),
    ]);
    rig.finish();
}

/// What a datagram has over IPv6 and no more over IPv4.
#[test]
fn extension_headers_take_no_room_from_the_option() {
    let families = TOLD[1];
    let mut rig = Rig::new(&families.config(2, "udp", UOA));
    let (client, vip) = ends(families, 5000);
    let seen = one(rig.client(&with_extension(&udp(client, vip, b"ask"), 60, &[0, 0, 1, 4, 0, 0, 0, 0])));
    assert_eq!((seen.uoa(), seen.payload.as_slice()), (Some(client), &b"ask"[..]));
    assert_eq!(seen.ipv4_options().len(), len(families));
    rig.finish();
}

/// Whoever hosts the session, and wherever its packets come in.
#[test]
fn sessions_that_another_worker_hosts_are_told_of_too() {
    for families in TOLD {
        for workers in [2, 4] {
            let mut rig = Rig::new(&small_pool(&families.config(workers, "udp", UOA), 20));
            let at_home = |rig: &Rig, cport: &u16| {
                let (client, vip) = ends(families, *cport);
                rig.home(client, vip, Protocol::Udp) == 0
            };
            let ports: Vec<u16> = (1..2000).filter(|cport| at_home(&rig, cport)).take(20).collect();
            let mut guests = 0;
            for cport in ports {
                let (client, vip) = ends(families, cport);
                for _ in 0..2 {
                    assert_eq!(one(rig.client(&udp(client, vip, b"ask"))).uoa(), Some(client));
                }
                let (lip, rip) = one(rig.client(&udp(client, vip, b"ask"))).ends();
                assert_eq!(one(rig.server(&udp(rip, lip, b"answer"))).ends(), (vip, client));
                assert_eq!(one(rig.client(&udp(client, vip, b"ask"))).uoa(), None);
                guests += usize::from(rig.find(client, vip, Protocol::Udp).unwrap().0 != 0);
            }
            assert!(guests > 0 && guests < 20, "{guests} of 20 live with another worker");
            rig.finish();
        }
    }
}

/// An error about a datagram quotes it as the client sent it, and tells an MTU that leaves room for the option.
#[test]
fn errors_about_what_was_told_do_not_tell_the_client_of_it() {
    for families in TOLD {
        let mut rig = Rig::new(&families.config(2, "udp", UOA));
        let (client, vip) = ends(families, 5000);
        let seen = ask(&mut rig, families);
        assert_eq!(seen.uoa(), Some(client));
        for (kind, code, rest) in [(3, 3, 0), (3, 4, 1400)] {
            let error = one(rig.server(&icmp(seen.dst, seen.src, kind, code, rest, seen.packet())));
            assert_eq!((error.src, error.dst), (vip.0, client.0));
            let told = error.icmp().2;
            let expected = match (rest, families.client_v6) {
                (0, _) => 0,
                (mtu, false) => mtu - 8,
                (mtu, true) => mtu + 20 - 20,
            };
            assert_eq!(told, expected);
            let quote = &error.payload;
            let l4 = if quote[0] >> 4 == 4 { usize::from(quote[0] & 15) * 4 } else { 40 };
            assert_eq!(quote[l4..l4 + 4], [client.1.to_be_bytes(), vip.1.to_be_bytes()].concat());
            if quote[0] >> 4 == 4 {
                assert!(quote[20..l4].iter().all(|&byte| byte == 1), "as long, and empty: {quote:02x?}");
            }
        }
        assert_eq!(ask(&mut rig, families).uoa(), Some(client), "an error is no answer");
        rig.finish();
    }
}

#[test]
fn checksums_left_to_the_device_are_completed_behind_the_option() {
    for families in TOLD {
        for checksum_offload in [false, true] {
            let options = Options { partial_checksums: true, checksum_offload, ..Options::default() };
            let mut rig = Rig::with(&families.config(1, "udp", UOA), options);
            let (client, vip) = ends(families, 5000);
            let mut packet = udp(client, vip, b"ask");
            make_partial(&mut packet);
            // The rig's device fills in what it is asked to; the reader of frames checks the sum.
            let seen = one(rig.client(&packet));
            assert_eq!((seen.uoa(), seen.payload.as_slice()), (Some(client), &b"ask"[..]));
            // None at all stays none.
            if !families.client_v6 {
                let mut none = udp(client, vip, b"ask");
                none[26..28].fill(0);
                assert_eq!(one(rig.client(&none)).uoa(), Some(client));
            }
            rig.finish();
        }
    }
}

/// Bytes behind the datagram (RFC 9868) stay behind it, and padding of short frames is not taken for packet.
#[test]
fn what_follows_the_datagram_stays_there() {
    let families = Families::V4;
    let mut rig = Rig::new(&families.config(1, "udp", UOA));
    let (client, vip) = ends(families, 5000);
    let mut packet = [&udp(client, vip, b"hello")[..], b"surplus"].concat();
    fix_ipv4(&mut packet);
    let seen = one(rig.client(&packet));
    assert_eq!((seen.uoa(), seen.payload.as_slice()), (Some(client), &b"hello"[..]));
    assert!(seen.packet().ends_with(b"hellosurplus"));
    assert!(one(rig.client(&udp(client, vip, b""))).payload.is_empty());
    rig.finish();
}

#[test]
fn without_headroom_it_is_dropped_by_name() {
    let families = Families::V4;
    let mut rig = Rig::new(&families.config(1, "udp", UOA));
    ask(&mut rig, families);
    for io in &mut rig.ios {
        io.shape = Shape { headroom: 0, room: 2048, first_segment: usize::MAX };
    }
    rig.mark();
    let (client, vip) = ends(families, 5000);
    let out = rig.client(&udp(client, vip, b"ask"));
    rig.only_drop(&out, "headroom");
    rig.finish();
}

/// A session that starts anew, because its real server is gone or it was silent, is told of anew.
#[test]
fn a_new_session_is_told_of_anew() {
    for families in TOLD {
        let config = base(2) + &service("udp", &families.vip().to_string(), "10.2.0.11", UOA);
        let mut rig = Rig::new(&config);
        let (client, _) = ends(families, 5000);
        let (lip, rip) = ask(&mut rig, families).ends();
        one(rig.server(&udp(rip, lip, b"answer")));
        assert_eq!(ask(&mut rig, families).uoa(), None);
        rig.apply(&config.replace("10.2.0.11:8080", "10.2.0.12:8080"));
        let seen = ask(&mut rig, families);
        assert_eq!((seen.uoa(), seen.dst, seen.port), (Some(client), ip("10.2.0.12"), LAN));
        let (lip, rip) = seen.ends();
        one(rig.server(&udp(rip, lip, b"answer")));
        assert_eq!(ask(&mut rig, families).uoa(), None);
        rig.pass(302);
        assert_eq!(rig.sessions(), 0);
        assert_eq!(ask(&mut rig, families).uoa(), Some(client));
        rig.finish();
    }
}

/// A stranger's answer, from an address or a port that the session does not have, does not end the telling.
#[test]
fn only_the_real_servers_own_answer_ends_it() {
    let families = Families::V4;
    let mut rig = Rig::new(&families.config(2, "udp", UOA));
    let (client, _) = ends(families, 5000);
    let (lip, rip) = ask(&mut rig, families).ends();
    for stranger in [(ip("10.2.0.12"), rip.1), (rip.0, rip.1 + 1)] {
        assert!(rig.server(&udp(stranger, lip, b"answer")).iter().all(|seen| seen.port == LAN));
    }
    let seen = ask(&mut rig, families);
    assert_eq!(seen.uoa(), Some(client));
    assert!(matches!(seen.dst, IpAddr::V4(_)));
    rig.finish();
}
