//! Group J: the client's address in a TCP option.

use fullnat::path::heap::Shape;

use crate::rig::conversation::{CLIENT_ISN, Conversation};
use crate::rig::frame::{ACK, FIN, PSH, RST, SYN, Segment};
use crate::rig::seen::{Seen, options};
use crate::rig::{Families, Rig, one};

const TOA: &str = "client_address = \"toa\"";

fn len(families: Families) -> usize {
    if families.client_v6 { 20 } else { 8 }
}

/// 40 bytes of options without timestamps.
const FULL: [u8; 40] = [1; 40];

#[test]
fn conformance_j1_toa_rides_until_the_client_has_acknowledged_a_byte() {
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(2, "tcp", TOA));
        let flow = Conversation::begin(&mut rig, families, 5000);
        let client = Some(flow.client);
        let has = |rig: &mut Rig, flags, seq, ack| {
            let seen = flow.send(rig, flags, seq, ack);
            if seen.toa(254).is_some() {
                let first = options(seen.options())[0];
                assert_eq!((first[0], first.len()), (254, len(families)), "first in the list");
                assert_eq!(seen.options()[0], 254, "right behind the header");
            }
            seen.toa(254)
        };
        rig.moved(&[("received", 1), ("transmitted", 1), ("sessions_created", 1), ("toa_sent", 1)]);
        assert_eq!(has(&mut rig, SYN, 0, 0), client, "the SYN again");
        flow.reply(&mut rig, SYN | ACK, 0, 1);
        for _ in 0..2 {
            assert_eq!(has(&mut rig, ACK, 1, 1), client, "the third ACK, and again");
            assert_eq!(has(&mut rig, ACK | PSH, 1, 1), client);
        }
        assert_eq!(has(&mut rig, RST, 9000, 0), None, "a RST has none");
        one(rig.server(&flow.outbound(ACK | PSH, 1, 1).payload(b"1").packet()));
        assert_eq!(has(&mut rig, ACK, 1, 1), client);
        assert_eq!(has(&mut rig, ACK, 1, 2), None, "the client has acknowledged a byte");
        assert_eq!(has(&mut rig, ACK, 1, 1), None, "and that ends it");
        rig.moved(&[("received", 11), ("transmitted", 11), ("toa_sent", 6)]);
        rig.finish();
    }
}

/// A real server may send data with its SYN (RFC 9293 §3.5): the client's next acknowledgement is of it.
#[test]
fn conformance_j1_data_that_comes_with_the_syn_ack_ends_toa_once_acknowledged() {
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(2, "tcp", TOA));
        let flow = Conversation::begin(&mut rig, families, 5000);
        one(rig.server(&flow.outbound(SYN | ACK, 0, 1).payload(b"hello").packet()));
        assert_eq!(flow.send(&mut rig, ACK, 1, 1).toa(254), Some(flow.client), "the SYN alone");
        assert_eq!(flow.send(&mut rig, ACK, 1, 6).toa(254), None);
        rig.finish();
    }
}

#[test]
fn conformance_j1_timestamps_behind_toa_are_those_of_the_gateway() {
    let timestamps = |val: u32| [&[1, 1, 8, 10][..], &val.to_be_bytes(), &[0, 0, 0, 9]].concat();
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(2, "tcp", TOA));
        let (client, vip) = ((families.client(), 5000), families.vip_end());
        let syn = Segment::new(client, vip, SYN, CLIENT_ISN, 0).options(&timestamps(100));
        let seen = one(rig.client(&syn.packet()));
        let stamp = |seen: &Seen| {
            assert_eq!(seen.toa(254), Some(client));
            let behind = &seen.options()[len(families)..];
            assert_eq!((behind.len(), &behind[..4]), (12, &[1, 1, 8, 10][..]));
            u32::from_be_bytes(behind[4..8].try_into().unwrap())
        };
        let base = stamp(&seen);
        assert_ne!(base, 100);
        let flow = Conversation::of_syn(&seen, client, vip, CLIENT_ISN);
        flow.shake(&mut rig);
        let data = flow.inbound(ACK | PSH, 1, 1).options(&timestamps(107)).payload(b"request");
        assert_eq!(stamp(&one(rig.client(&data.packet()))), base.wrapping_add(7));
        rig.finish();
    }
}

#[test]
fn conformance_j1_a_new_configuration_reaches_those_still_to_be_told() {
    for families in Families::ALL {
        let config = |more: &str| families.config(2, "tcp", more);
        let mut rig = Rig::new(&config(TOA));
        let flow = Conversation::open(&mut rig, families, 5000);
        assert_eq!(flow.send(&mut rig, ACK, 1, 1).toa(254), Some(flow.client));
        rig.apply(&config(&format!("{TOA}\n[service.toa]\nkind = 28\nkind_v6 = 253")));
        let kind = if families.client_v6 { 253 } else { 28 };
        assert_eq!(flow.send(&mut rig, ACK, 1, 1).toa(kind), Some(flow.client));
        for config in [config(""), config(TOA)] {
            rig.apply(&config);
            let seen = flow.send(&mut rig, ACK, 1, 1);
            assert!(seen.options().is_empty(), "told no more, and not again in the middle");
        }
        rig.finish();
    }
}

#[test]
fn conformance_j1_a_fin_carries_toa() {
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(1, "tcp", TOA));
        let flow = Conversation::open(&mut rig, families, 5000);
        assert_eq!(flow.send(&mut rig, FIN | ACK, 1, 1).toa(254), Some(flow.client));
        rig.finish();
    }
}

#[test]
fn conformance_j1_the_kind_is_configured() {
    for families in Families::ALL {
        for kind in [253, 200, 28] {
            let more = format!("{TOA}\n[service.toa]\nkind = {kind}\nkind_v6 = 253");
            let mut rig = Rig::new(&families.config(1, "tcp", &more));
            let flow = Conversation::begin(&mut rig, families, 5000);
            flow.reply(&mut rig, SYN | ACK, 0, 1);
            let kind = if families.client_v6 { 253 } else { kind };
            assert_eq!(flow.send(&mut rig, ACK, 1, 1).toa(kind), Some(flow.client));
            // J2: nor can that kind be forged.
            let forged = [kind, 8, 1, 2, 3, 4, 5, 6];
            let seen = one(rig.client(&flow.inbound(ACK, 1, 1).options(&forged).packet()));
            assert_eq!(seen.toa(kind), Some(flow.client));
            rig.finish();
        }
    }
}

#[test]
fn conformance_j1_the_syn_goes_without_by_option_and_for_the_magic_of_fast_open() {
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(1, "tcp", &format!("{TOA}\n[service.toa]\non_syn = false")));
        let flow = Conversation::begin(&mut rig, families, 5000);
        assert_eq!(flow.send(&mut rig, SYN, 0, 0).toa(254), None);
        flow.reply(&mut rig, SYN | ACK, 0, 1);
        assert_eq!(flow.send(&mut rig, ACK, 1, 1).toa(254), Some(flow.client));
        rig.finish();

        let mut rig = Rig::new(&families.config(1, "tcp", TOA));
        let flow = Conversation::begin(&mut rig, families, 0xf989);
        assert_eq!(flow.send(&mut rig, SYN, 0, 0).toa(254), None, "Linux would take it for a cookie request");
        flow.reply(&mut rig, SYN | ACK, 0, 1);
        assert_eq!(flow.send(&mut rig, ACK, 1, 1).toa(254), Some(flow.client));
        rig.finish();
    }
}

#[test]
fn conformance_j2_a_clients_toa_is_erased_from_every_segment() {
    for families in Families::ALL {
        for more in [TOA, ""] {
            let mut rig = Rig::new(&families.config(2, "tcp", more));
            let (client, vip) = ((families.client(), 5000), (families.vip(), 80));
            let expected = (!more.is_empty()).then_some(client);
            for forged in
                [&[254, 8, 1, 2, 3, 4, 5, 6][..], &[253, 8, 1, 2, 3, 4, 5, 6], &[1, 254, 6, 0, 0, 0, 0, 1]]
            {
                let kinds = |seen: &crate::rig::seen::Seen| {
                    let of_toa = |option: &&[u8]| matches!(option[0], 253 | 254);
                    options(seen.options()).into_iter().filter(of_toa).count()
                };
                let syn = Segment::new(client, vip, SYN, CLIENT_ISN, 0).options(forged);
                let seen = one(rig.client(&syn.packet()));
                assert_eq!((seen.toa(254), kinds(&seen)), (expected, expected.iter().count()));
                let flow = Conversation::of_syn(&seen, client, vip, CLIENT_ISN);
                flow.reply(&mut rig, SYN | ACK, 0, 1);
                let seen = one(rig.client(&flow.inbound(ACK, 1, 1).options(forged).packet()));
                assert_eq!((seen.toa(254), kinds(&seen)), (expected, expected.iter().count()));
                // Also long after the gateway has stopped sending its own.
                one(rig.server(&flow.outbound(ACK | PSH, 1, 1).payload(b"1").packet()));
                let late = one(rig.client(&flow.inbound(ACK, 1, 2).options(forged).packet()));
                assert_eq!(kinds(&late), 0);
                let reset = one(rig.client(&flow.inbound(RST, 1, 0).options(forged).packet()));
                assert_eq!(kinds(&reset), 0);
            }
            rig.finish();
        }
    }
}

/// A client that leaves no room for the gateway's own is not believed for that.
#[test]
fn conformance_j2_a_clients_toa_is_erased_where_there_is_no_room_for_another() {
    for families in Families::ALL {
        for kind in [200, 253, 254] {
            let mut rig = Rig::new(&families.config(2, "tcp", TOA));
            let flow = Conversation::open(&mut rig, families, 5000);
            let forged = [&[kind, 8, 1, 2, 3, 4, 5, 6][..], &[1; 32]].concat();
            let seen = one(rig.client(&flow.inbound(ACK, 1, 1).options(&forged).packet()));
            assert_eq!(seen.options(), FULL, "kind {kind}");
            let seen = one(rig.client(&flow.inbound(ACK, 1, 1).options(&forged[..8]).packet()));
            assert_eq!((seen.toa(254), options(seen.options()).len()), (Some(flow.client), 1));
            rig.finish();
        }
    }
}

/// A client that would rather not be known acknowledges what the real server has not sent.
#[test]
fn conformance_j2_an_acknowledgement_of_nothing_does_not_end_toa() {
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(2, "tcp", TOA));
        let flow = Conversation::begin(&mut rig, families, 5000);
        flow.reply(&mut rig, SYN | ACK, 0, 1);
        for ack in [2, 1000, (1 << 31) - 1] {
            assert_eq!(flow.send(&mut rig, ACK, 1, ack).toa(254), Some(flow.client));
        }
        assert_eq!(flow.send(&mut rig, ACK, 1, 1).toa(254), Some(flow.client), "the one that is accepted");
        assert_eq!(flow.send(&mut rig, ACK, 1, 2).toa(254), Some(flow.client), "nothing was sent yet");
        one(rig.server(&flow.outbound(ACK | PSH, 1, 1).payload(b"1").packet()));
        assert_eq!(flow.send(&mut rig, ACK, 1, 2).toa(254), None);
        rig.finish();
    }
}

#[test]
fn conformance_j3_without_room_in_the_options_the_segment_goes_without() {
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(2, "tcp", TOA));
        let flow = Conversation::open(&mut rig, families, 5000);
        rig.mark();
        let seen = one(rig.client(&flow.inbound(ACK, 1, 1).options(&FULL).payload(b"abc").packet()));
        assert_eq!((seen.options(), seen.payload.as_slice()), (&FULL[..], &b"abc"[..]));
        rig.moved(&[("received", 1), ("transmitted", 1), ("toa_no_option_room", 1)]);
        assert_eq!(flow.send(&mut rig, ACK, 4, 1).toa(254), Some(flow.client), "the next one carries it");
        rig.finish();
    }
}

#[test]
fn conformance_j3_a_bare_ack_goes_ahead_by_option() {
    let more = format!("{TOA}\n[service.toa]\nno_room = \"bare-ack\"");
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(2, "tcp", &more));
        let (client, vip) = ((families.client(), 5000), (families.vip(), 80));
        let timestamps = |val: u32| [&[1, 1, 8, 10][..], &val.to_be_bytes(), &[0, 0, 0, 9]].concat();
        let syn = Segment::new(client, vip, SYN, CLIENT_ISN, 0).options(&timestamps(100));
        let seen = one(rig.client(&syn.packet()));
        let flow = Conversation::of_syn(&seen, client, vip, CLIENT_ISN);
        let base = u32::from_be_bytes(seen.options()[seen.options().len() - 8..][..4].try_into().unwrap());
        flow.reply(&mut rig, SYN | ACK, 0, 1);
        rig.mark();
        // With timestamps and SACK the options are full.
        let mut full = [&timestamps(107)[..], &[1, 1, 5, 26], &[3; 24]].concat();
        full.truncate(40);
        let mut segment = flow.inbound(ACK | PSH, 1, 1).options(&full).payload(b"abc");
        segment.window = 0x1234;
        let out = rig.client(&segment.packet());
        assert_eq!(out.len(), 2, "{out:?}");
        let (bare, data) = (&out[0], &out[1]);
        assert_eq!(bare.ends(), (flow.lip, flow.rip));
        assert_eq!(bare.tcp(), (ACK, flow.gateway_isn.wrapping_add(1), flow.server_isn.wrapping_add(1)));
        assert_eq!((bare.toa(254), bare.payload.len()), (Some(client), 0));
        assert!(matches!(bare.l4, crate::rig::seen::L4::Tcp { window: 0x1234, .. }));
        assert_eq!(options(bare.options())[1], &timestamps(base.wrapping_add(7))[2..]);
        assert_eq!(options(bare.options()).len(), 2, "nothing but TOA and timestamps");
        assert_eq!((data.toa(254), data.payload.as_slice()), (None, &b"abc"[..]));
        assert_eq!(data.options().len(), 40);
        rig.moved(&[
            ("received", 1),
            ("originated", 1),
            ("transmitted", 2),
            ("toa_no_option_room", 1),
            ("toa_ahead", 1),
        ]);
        // No room in the MTU.
        let mss = 1500 - if families.server_v6 { 60 } else { 40 } - 12;
        let fits = 1500 - if families.client_v6 { 60 } else { 40 } - 12;
        let payload = vec![5; mss.min(fits)];
        let out = rig.client(&flow.inbound(ACK, 1, 1).options(&timestamps(108)).payload(&payload).packet());
        let squeezed = payload.len() + 52 + if families.server_v6 { 20 } else { 0 } + len(families) > 1500;
        assert_eq!(out.len(), if squeezed { 2 } else { 1 });
        assert_eq!(out[0].toa(254), Some(client));
        assert!(out.last().unwrap().payload == payload);
        // A SYN has nothing to acknowledge.
        rig.mark();
        let other = Segment::new((families.client(), 5001), vip, SYN, 1, 0).options(&FULL);
        assert_eq!(one(rig.client(&other.packet())).options(), FULL);
        rig.moved(&[("received", 1), ("transmitted", 1), ("sessions_created", 1), ("toa_no_option_room", 1)]);
        // Without a buffer the segment goes alone.
        for io in &mut rig.ios {
            io.buffers_max = Some(0);
        }
        one(rig.client(&segment.packet()));
        rig.moved(&[("received", 1), ("transmitted", 1), ("toa_no_option_room", 1)]);
        rig.finish();
    }
}

#[test]
fn conformance_j3_the_session_is_reset_by_option() {
    for families in Families::ALL {
        let more = format!("{TOA}\n[service.toa]\nno_room = \"reset\"");
        let mut rig = Rig::new(&families.config(2, "tcp", &more));
        let flow = Conversation::open(&mut rig, families, 5000);
        rig.mark();
        let rst = one(rig.client(&flow.inbound(ACK, 1, 1).options(&FULL).packet()));
        assert_eq!(
            (rst.tcp(), rst.ends()),
            ((RST, flow.server_isn.wrapping_add(1), 0), (flow.vip, flow.client))
        );
        rig.moved(&[
            ("received", 1),
            ("originated", 1),
            ("transmitted", 1),
            ("sessions_ended", 1),
            ("toa_no_option_room", 1),
            ("drop.session_reset", 1),
        ]);
        // On the SYN already: the RST acknowledges the client's own number.
        let syn = Segment::new(flow.client, flow.vip, SYN, 4711, 0).options(&FULL);
        assert_eq!(one(rig.client(&syn.packet())).tcp(), (RST | ACK, 0, 4712));
        rig.finish();
    }
}

#[test]
fn conformance_j4_a_full_segment_goes_without_rather_than_nowhere() {
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(2, "tcp", TOA));
        let flow = Conversation::open(&mut rig, families, 5000);
        rig.mark();
        let headers = if families.client_v6 || families.server_v6 { 60 } else { 40 };
        let payload: Vec<u8> = (0..1500 - headers).map(|i| i as u8).collect();
        let seen = one(rig.client(&flow.inbound(ACK, 1, 1).payload(&payload).packet()));
        assert!(seen.payload == payload);
        // From IPv6 to IPv4 the shorter header leaves just the room that the option takes.
        let has_room = families.client_v6 && !families.server_v6;
        assert_eq!(seen.toa(254).is_some(), has_room);
        let counter = if has_room { "toa_sent" } else { "toa_no_mtu_room" };
        rig.moved(&[("received", 1), ("transmitted", 1), (counter, 1)]);
        rig.finish();
    }
}

#[test]
fn conformance_j5_segment_sizes_go_down_never_up_and_leave_room_for_toa() {
    for families in Families::ALL {
        for more in [TOA, ""] {
            let toa = if more.is_empty() { 0 } else { len(families) as u16 };
            let mss = |value: u16| [&[2, 4][..], &value.to_be_bytes()].concat();
            let client_max = if families.client_v6 { 1440 } else { 1460 };
            let server_max = if families.server_v6 { 1440 } else { 1460 } - toa;
            let mut rig = Rig::new(&families.config(1, "tcp", more));
            let (client, vip) = ((families.client(), 5000), (families.vip(), 80));
            let mut flow = None;
            for (sent, expected) in [(9000, client_max), (client_max, client_max), (536, 536), (0, 0), (1, 1)]
            {
                let syn = Segment::new(client, vip, SYN, CLIENT_ISN, 0).options(&mss(sent));
                let seen = one(rig.client(&syn.packet()));
                assert!(seen.options().ends_with(&mss(expected)), "{sent}: {:?}", seen.options());
                flow = Some(Conversation::of_syn(&seen, client, vip, CLIENT_ISN));
            }
            let flow = flow.unwrap();
            for (sent, expected) in [(9000, server_max), (server_max, server_max), (536, 536), (0, 0)] {
                let seen = one(rig.server(&flow.outbound(SYN | ACK, 0, 1).options(&mss(sent)).packet()));
                assert_eq!(seen.options(), mss(expected));
            }
            // None is added, and in no other segment is it changed.
            assert!(flow.reply(&mut rig, SYN | ACK, 0, 1).options().is_empty());
            let seen = one(rig.client(&flow.inbound(ACK, 1, 1).options(&mss(9000)).packet()));
            assert!(seen.options().ends_with(&mss(9000)));
            rig.finish();
        }
    }
}

#[test]
fn conformance_j8_toa_is_off_unless_asked_for() {
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(1, "tcp", ""));
        let flow = Conversation::open(&mut rig, families, 5000);
        assert!(flow.send(&mut rig, ACK | PSH, 1, 1).options().is_empty());
        rig.moved(&[("received", 4), ("transmitted", 4), ("sessions_created", 1)]);
        // Turned on, sessions that have begun without go on without; new ones carry it.
        rig.apply(&families.config(1, "tcp", TOA));
        assert_eq!(flow.send(&mut rig, ACK, 1, 1).toa(254), None);
        let other = Conversation::open(&mut rig, families, 5001);
        assert_eq!(other.send(&mut rig, ACK, 1, 1).toa(254), Some(other.client));
        rig.apply(&families.config(1, "tcp", ""));
        assert_eq!(other.send(&mut rig, ACK, 1, 1).toa(254), None);
        rig.finish();
    }
}

#[test]
fn without_headroom_what_must_grow_is_dropped_by_name() {
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(1, "tcp", TOA));
        let flow = Conversation::open(&mut rig, families, 5000);
        for io in &mut rig.ios {
            io.shape = Shape { headroom: 0, room: 2048, first_segment: usize::MAX };
        }
        rig.mark();
        let out = rig.client(&flow.inbound(ACK, 1, 1).packet());
        if families.client_v6 && !families.server_v6 {
            // The option is made room for before the header shrinks.
            assert!(out.is_empty());
        }
        rig.only_drop(&out, "headroom");
        // The way back grows only toward IPv6.
        let out = rig.server(&flow.outbound(ACK, 1, 1).packet());
        if families.client_v6 && !families.server_v6 {
            rig.only_drop(&out, "headroom");
        } else {
            one(out);
        }
        rig.finish();
    }
}
