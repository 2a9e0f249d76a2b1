//! The PROXY protocol header in front of datagrams.

use crate::proxy::{V2, header};
use crate::rig::frame::{Ip, fix_l4, icmp, make_partial, udp, udp_with};
use crate::rig::{Families, LAN, Options, Rig, WAN, one};

const EACH: &str = "client_address = \"proxy-v2\"\nproxy = { each_datagram = true }";

type End = (std::net::IpAddr, u16);

fn ends(families: Families) -> (End, End) {
    ((families.client(), 5000), (families.vip(), 80))
}

#[test]
fn the_first_datagram_of_a_session_or_each_carries_the_header() {
    for families in Families::ALL {
        for more in [V2, EACH] {
            let mut rig = Rig::new(&families.config(2, "udp", more));
            let (client, vip) = ends(families);
            let header = header(more, client, vip, 2);
            for (nth, payload) in [&b"odd"[..], b"", b"even"].into_iter().enumerate() {
                let seen = one(rig.client(&udp(client, vip, payload)));
                let due = nth == 0 || more == EACH;
                assert_eq!(seen.payload, [if due { &header[..] } else { &[] }, payload].concat());
                let (lip, rip) = seen.ends();
                let answer = one(rig.server(&udp(rip, lip, b"answer")));
                assert_eq!((answer.ends(), &answer.payload[..]), ((vip, client), &b"answer"[..]));
            }
            let sent = if more == EACH { 3 } else { 1 };
            rig.moved(&[("received", 6), ("transmitted", 6), ("sessions_created", 1), ("proxy_sent", sent)]);
            rig.finish();
        }
    }
}

#[test]
fn lengths_and_checksums_are_right_whether_there_is_one_or_not() {
    for families in Families::ALL {
        for missing in [false, true] {
            if missing && families.client_v6 {
                continue;
            }
            for partial in [false, true] {
                let options = Options { partial_checksums: partial, ..Options::default() };
                let mut rig = Rig::with(&families.config(1, "udp", EACH), options);
                let (client, vip) = ends(families);
                // Bytes behind the datagram (RFC 9868) go with it.
                let surplus: &[u8] = if partial { b"" } else { b"surplus" };
                let mut packet = [&udp(client, vip, b"question")[..], surplus].concat();
                let l4 = if families.client_v6 { 40 } else { 20 };
                if families.client_v6 {
                    packet[4..6].copy_from_slice(&(16 + surplus.len() as u16).to_be_bytes());
                } else {
                    packet[2..4].copy_from_slice(&(36 + surplus.len() as u16).to_be_bytes());
                    crate::rig::frame::fix_ipv4(&mut packet);
                }
                if missing {
                    packet[l4 + 6..l4 + 8].fill(0);
                } else if partial {
                    make_partial(&mut packet);
                } else {
                    fix_l4(&mut packet);
                }
                rig.damaged = !surplus.is_empty();
                let seen = one(rig.client(&packet));
                let header = header(EACH, client, vip, 2);
                assert!(seen.payload.starts_with(&[&header[..], b"question"].concat()), "{seen:?}");
                rig.finish();
            }
        }
    }
}

/// Too big with the header: the sender learns what fits, the header counted.
#[test]
fn what_has_no_room_for_the_header_is_refused_with_what_would_fit() {
    for families in Families::ALL {
        for more in [V2, EACH] {
            let mut rig = Rig::new(&families.config(1, "udp", more));
            let (client, vip) = ends(families);
            let header_len = header(more, client, vip, 2).len();
            let [outside, inside] =
                [families.client_v6, families.server_v6].map(|v6| if v6 { 40 } else { 20 });
            let largest = 1500 - inside - 8 - header_len;
            let error = one(rig.client(&udp(client, vip, &vec![1; largest + 1])));
            let (kind, code, rest) = error.icmp();
            assert_eq!((kind, code), if families.client_v6 { (2, 0) } else { (3, 4) });
            assert_eq!(rest as usize, largest + 8 + outside);
            rig.moved(&[
                ("received", 1),
                ("originated", 1),
                ("transmitted", 1),
                ("sessions_created", 1),
                ("drop.ip_too_big", 1),
            ]);
            let seen = one(rig.client(&udp(client, vip, &vec![1; largest])));
            assert_eq!(seen.ip_len, 1500);
            // The header is told now; without it there is more room.
            let more_room = udp_with(client, vip, &vec![1; largest + 1], Ip::default());
            let seen = one(rig.client(&more_room));
            assert_eq!(seen.port, if more == EACH { WAN } else { LAN });
            rig.finish();
        }
    }
}

/// A router behind the gateway: what fits there has to hold the header as well.
#[test]
fn an_mtu_told_from_behind_leaves_room_for_the_header_of_each() {
    for families in Families::ALL {
        for more in [V2, EACH] {
            let mut rig = Rig::new(&families.config(1, "udp", more));
            let (client, vip) = ends(families);
            let header_len = header(more, client, vip, 2).len() as u32;
            let seen = one(rig.client(&udp(client, vip, &[1; 1300])));
            let (lip, rip) = seen.ends();
            let (kind, code) = if families.server_v6 { (2, 0) } else { (3, 4) };
            let error = icmp(rip.0, lip.0, kind, code, 1400, seen.packet());
            let told = one(rig.packet(LAN, &error)).icmp().2;
            let families_differ = match (families.client_v6, families.server_v6) {
                (true, false) => 1420,
                (false, true) => 1380,
                _ => 1400,
            };
            assert_eq!(told, families_differ - if more == EACH { header_len } else { 0 });
            rig.finish();
        }
    }
}

#[test]
fn another_configuration_is_heard_by_sessions_that_live() {
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(1, "udp", EACH));
        let (client, vip) = ends(families);
        let first = one(rig.client(&udp(client, vip, b"question")));
        assert!(first.payload.len() > 8);
        rig.apply(&families.config(1, "udp", ""));
        for _ in 0..2 {
            assert_eq!(one(rig.client(&udp(client, vip, b"question"))).payload, b"question");
        }
        rig.finish();
    }
}
