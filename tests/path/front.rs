//! A front that names its clients by PROXY protocol: who the real server is told it is, and that neither side sees the
//! header's seam.

use std::net::IpAddr;

use fullnat::session::State;
use fullnat::wire::Protocol;

use crate::proxy::{V1, V2, header};
use crate::rig::conversation::{CLIENT_ISN, Conversation, SERVER_ISN};
use crate::rig::frame::{ACK, End, FIN, PSH, RST, SYN, Segment, fix_l4, make_partial};
use crate::rig::seen::Seen;
use crate::rig::{Families, LAN, Options, Rig, WAN, ip, one};

const TOA: &str = "client_address = \"toa\"";

/// A service that believes the first host on the client's side.
pub fn trusting(more: &str) -> String {
    format!("proxy_protocol_from = [\"10.1.0.1\", \"2001:db8:1::1/128\"]\n{more}")
}

/// A client that a front may name, and what it dialled there.
pub fn named(v6: bool) -> (End, End) {
    if v6 {
        ((ip("2001:db8:f::7"), 40_001), (ip("2001:db8:f::100"), 443))
    } else {
        ((ip("203.0.113.7"), 40_001), (ip("198.51.100.9"), 443))
    }
}

/// A header of each version for a client of each family; of odd and even length.
fn headers() -> impl Iterator<Item = (Vec<u8>, End, End)> {
    [false, true].into_iter().flat_map(|v6| {
        let (client, vip) = named(v6);
        [V1, V2].map(|version| (header(version, client, vip, 1), client, vip))
    })
}

fn a_header() -> Vec<u8> {
    let (client, vip) = named(false);
    header(V1, client, vip, 1)
}

fn all() -> impl Iterator<Item = (Families, Vec<u8>, End)> {
    Families::ALL
        .into_iter()
        .flat_map(|families| headers().map(move |(header, client, _)| (families, header, client)))
}

/// SYN and SYN-ACK, and the ACK that is held back.
fn begin(rig: &mut Rig, families: Families, cport: u16) -> Conversation {
    let flow = Conversation::begin(rig, families, cport);
    let syn_ack = one(rig.server(&flow.outbound(SYN | ACK, 0, 1).packet()));
    assert_eq!(syn_ack.tcp(), (SYN | ACK, SERVER_ISN, CLIENT_ISN.wrapping_add(1)));
    rig.mark();
    let out = rig.client(&flow.inbound(ACK, 1, 1).packet());
    rig.only_drop(&out, "proxy_header_awaited");
    assert_eq!(flow.state(rig), Some(State::SynRecv));
    flow
}

/// The same connection behind its header: the front's numbers lie that much further.
fn behind(flow: Conversation, header: &[u8]) -> Conversation {
    Conversation { client_isn: flow.client_isn.wrapping_add(header.len() as u32), ..flow }
}

/// The segment with which a real server's handshake is over, and the one before it, which asks for an answer.
#[track_caller]
fn is_ack_and_probe(out: Vec<Seen>, flow: &Conversation, toa: Option<End>) {
    let [ack, probe] = two(out);
    assert_eq!(ack.tcp().0 & !PSH, ACK);
    assert_eq!((ack.seq(), ack.ack()), (flow.gateway_isn.wrapping_add(1), SERVER_ISN + 1));
    assert_eq!((ack.ends(), &ack.payload[..], ack.toa(254)), ((flow.lip, flow.rip), &b""[..], toa));
    assert_eq!(probe.tcp(), (ACK, flow.gateway_isn, SERVER_ISN + 1));
    assert_eq!((probe.ends(), &probe.payload[..], probe.port), ((flow.lip, flow.rip), &b""[..], LAN));
    assert_eq!(probe.window(), ack.window());
}

/// A connection from a front whose header has come alone, told to the real server in `toa`.
fn open(rig: &mut Rig, families: Families, cport: u16, header: &[u8], toa: Option<End>) -> Conversation {
    let flow = begin(rig, families, cport);
    let out = rig.client(&flow.inbound(ACK | PSH, 1, 1).payload(header).packet());
    is_ack_and_probe(out, &flow, toa);
    let flow = behind(flow, header);
    assert_eq!(flow.state(rig), Some(State::Established));
    flow
}

#[track_caller]
fn two(out: Vec<Seen>) -> [Seen; 2] {
    out.try_into().unwrap_or_else(|out| panic!("{out:?}"))
}

/// A request, an answer, and the end.
fn talk(rig: &mut Rig, flow: &Conversation) {
    let seen = one(rig.client(&flow.inbound(ACK | PSH, 1, 1).payload(b"GET").packet()));
    assert_eq!((seen.seq(), &seen.payload[..]), (flow.gateway_isn.wrapping_add(1), &b"GET"[..]));
    flow.reply(rig, ACK, 1, 4);
    let seen = one(rig.server(&flow.outbound(ACK | PSH, 1, 4).payload(b"hello").packet()));
    assert_eq!((seen.ack(), &seen.payload[..]), (flow.client_isn.wrapping_add(4), &b"hello"[..]));
    flow.send(rig, ACK, 4, 6);
    flow.send(rig, FIN | ACK, 4, 6);
    flow.reply(rig, FIN | ACK, 6, 5);
    flow.send(rig, ACK, 5, 7);
    assert_eq!(flow.state(rig), Some(State::TimeWait));
}

#[test]
fn a_header_alone_ends_the_handshake_and_is_acknowledged_by_the_real_server() {
    for (families, header, client) in all() {
        for (more, toa) in [("", None), (TOA, Some(client))] {
            let mut rig = Rig::new(&families.config(2, "tcp", &trusting(more)));
            let flow = begin(&mut rig, families, 5000);
            let out = rig.client(&flow.inbound(ACK | PSH, 1, 1).payload(&header).packet());
            is_ack_and_probe(out, &flow, toa);
            rig.moved(&[
                ("received", 1),
                ("transmitted", 2),
                ("originated", 1),
                ("proxy_taken", 1),
                ("toa_sent", u64::from(toa.is_some())),
            ]);
            let flow = behind(flow, &header);
            // RFC 9293 §3.10.7.4: what is not acceptable is acknowledged.
            let seen = flow.reply(&mut rig, ACK, 1, 1);
            assert_eq!(seen.ack(), CLIENT_ISN.wrapping_add(1 + header.len() as u32), "all of the header");
            talk(&mut rig, &flow);
            rig.finish();
        }
    }
}

#[test]
fn data_behind_the_header_go_on_and_the_header_does_not() {
    for (families, header, client) in all() {
        for (more, toa) in [("", None), (TOA, Some(client))] {
            for (payload, flags) in
                [(&b"odd"[..], ACK | PSH), (b"even", ACK), (b"", ACK | FIN), (b"GET", ACK | FIN)]
            {
                let mut rig = Rig::new(&families.config(2, "tcp", &trusting(more)));
                let flow = begin(&mut rig, families, 5000);
                let bytes = [&header[..], payload].concat();
                let seen = one(rig.client(&flow.inbound(flags, 1, 1).payload(&bytes).packet()));
                assert_eq!(seen.tcp(), (flags, flow.gateway_isn.wrapping_add(1), SERVER_ISN + 1));
                assert_eq!((&seen.payload[..], seen.toa(254)), (payload, toa));
                rig.moved(&[
                    ("received", 1),
                    ("transmitted", 1),
                    ("proxy_taken", 1),
                    ("toa_sent", u64::from(toa.is_some())),
                ]);
                let flow = behind(flow, &header);
                let fin = u32::from(flags & FIN != 0);
                flow.reply(&mut rig, ACK, 1, 1 + payload.len() as u32 + fin);
                let state = if fin > 0 { State::TimeWait } else { State::Established };
                assert_eq!(flow.state(&rig), Some(state));
                rig.finish();
            }
        }
    }
}

/// A server that speaks first has no data of the front's to wait for.
#[test]
fn a_server_may_speak_first() {
    for (families, header, client) in all() {
        let mut rig = Rig::new(&families.config(1, "tcp", &trusting(TOA)));
        let flow = open(&mut rig, families, 5000, &header, Some(client));
        let seen = one(rig.server(&flow.outbound(ACK | PSH, 1, 1).payload(b"220").packet()));
        assert_eq!((seen.ack(), &seen.payload[..]), (flow.client_isn.wrapping_add(1), &b"220"[..]));
        // Until the client has heard of it the real server may not have heard of the client.
        assert_eq!(flow.send(&mut rig, ACK, 1, 1).toa(254), Some(client));
        assert_eq!(flow.send(&mut rig, ACK, 1, 4).toa(254), None);
        rig.finish();
    }
}

#[test]
fn whatever_of_the_header_comes_again_is_cut_off() {
    for (families, header, client) in all() {
        for (more, toa) in [("", None), (TOA, Some(client))] {
            let mut rig = Rig::new(&families.config(1, "tcp", &trusting(more)));
            let flow = open(&mut rig, families, 5000, &header, toa);
            let len = header.len() as u32;
            let at = |back: u32| 1u32.wrapping_sub(back);
            // All of it, its beginning, its end, and the front's last ACK, late.
            for (back, bytes) in
                [(len, &header[..]), (len, &header[..3]), (4, &header[header.len() - 4..]), (len, b"")]
            {
                let out = rig.client(&flow.inbound(ACK | PSH, at(back), 1).payload(bytes).packet());
                is_ack_and_probe(out, &flow, toa);
            }
            // With data behind it, from its first byte or from within.
            for skipped in [0, 1, header.len() - 1] {
                let bytes = [&header[skipped..], b"GET"].concat();
                let again = flow.inbound(ACK | PSH, at(len - skipped as u32), 1).payload(&bytes);
                let seen = one(rig.client(&again.packet()));
                assert_eq!(
                    (seen.seq(), &seen.payload[..], seen.toa(254)),
                    (flow.gateway_isn.wrapping_add(1), &b"GET"[..], toa)
                );
            }
            rig.mark();
            let fin_within = flow.inbound(ACK | FIN, at(len), 1).payload(&header[..3]).packet();
            let out = rig.client(&fin_within);
            rig.only_drop(&out, "proxy_header_malformed");
            // Before its SYN there is nothing of the front's: a stranger's guess is the real server's to judge.
            for back in [len + 2, 1 << 20] {
                let seen = one(rig.client(&flow.inbound(ACK | PSH, at(back), 1).payload(b"guess").packet()));
                let seq = flow.gateway_isn.wrapping_add(at(back));
                assert_eq!((seen.seq(), &seen.payload[..]), (seq, &b"guess"[..]));
            }
            // Its keepalive (RFC 1122 §4.2.3.6), before the header or behind it, is the real server's to answer.
            let out = rig.client(&flow.inbound(ACK, at(len + 1), 1).packet());
            is_ack_and_probe(out, &flow, toa);
            flow.reply(&mut rig, ACK, 1, 4);
            let seen = one(rig.client(&flow.inbound(ACK, 3, 1).packet()));
            assert_eq!(seen.seq(), flow.gateway_isn.wrapping_add(3));
            rig.finish();
        }
    }
}

/// Once the real server has shown that its handshake is over, it knows itself what it has.
#[test]
fn of_the_settled_session_nothing_is_cut_any_more() {
    for (families, header, client) in all() {
        for (more, toa) in [("", None), (TOA, Some(client))] {
            let mut rig = Rig::new(&families.config(1, "tcp", &trusting(more)));
            let flow = open(&mut rig, families, 5000, &header, toa);
            one(rig.server(&flow.outbound(ACK | PSH, 1, 1).payload(b"220").packet()));
            flow.send(&mut rig, ACK, 1, 4);
            let len = header.len() as u32;
            let again = flow.inbound(ACK | PSH, 1u32.wrapping_sub(len), 4).payload(&header);
            let seen = one(rig.client(&again.packet()));
            let before = flow.gateway_isn.wrapping_add(1).wrapping_sub(len);
            assert_eq!((seen.seq(), &seen.payload[..]), (before, &header[..]));
            assert_eq!(seen.toa(254), None);
            // RFC 2883 §4.1: what it got twice.
            let edges = [before.to_be_bytes(), flow.gateway_isn.wrapping_add(1).to_be_bytes()].concat();
            let duplicate = flow.outbound(ACK, 4, 1).options(&[&[1, 1, 5, 10][..], &edges].concat());
            let shown = one(rig.server(&duplicate.packet()));
            let edge = |offset: u32| CLIENT_ISN.wrapping_add(offset).to_be_bytes();
            assert_eq!(shown.options(), [&[1, 1, 5, 10][..], &edge(1), &edge(1 + len)].concat());
            rig.finish();
        }
    }
}

#[test]
fn data_that_overtake_the_header_wait_for_it() {
    for (families, header, client) in all() {
        for lost_ack in [false, true] {
            let mut rig = Rig::new(&families.config(1, "tcp", &trusting(TOA)));
            let flow = if lost_ack {
                let flow = Conversation::begin(&mut rig, families, 5000);
                one(rig.server(&flow.outbound(SYN | ACK, 0, 1).packet()));
                rig.mark();
                flow
            } else {
                begin(&mut rig, families, 5000)
            };
            let data = behind(flow, &header).inbound(ACK | PSH, 1, 1).payload(b"GET").packet();
            let out = rig.client(&data);
            rig.only_drop(&out, "proxy_header_awaited");
            // The real server repeats itself, and the front's answer to that says no more than its first.
            one(rig.server(&flow.outbound(SYN | ACK, 0, 1).packet()));
            rig.mark();
            let out = rig.client(&flow.inbound(ACK, 1, 1).packet());
            rig.only_drop(&out, "proxy_header_awaited");
            let out = rig.client(&flow.inbound(ACK | PSH, 1, 1).payload(&header).packet());
            is_ack_and_probe(out, &flow, Some(client));
            assert_eq!(one(rig.client(&data)).payload, b"GET");
            rig.finish();
        }
    }
}

/// A header is believed only behind a handshake: with the acknowledgement of the real server's number.
#[test]
fn conformance_i23_a_header_without_the_handshake_establishes_nothing() {
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(1, "tcp", &trusting(TOA)));
        let header = a_header();
        let flow = Conversation::begin(&mut rig, families, 5000);
        for (answered, flags, ack) in [(false, ACK, 1), (true, ACK, 7), (true, 0, 0), (true, ACK, 0)] {
            if answered {
                one(rig.server(&flow.outbound(SYN | ACK, 0, 1).packet()));
            }
            rig.mark();
            let out = rig.client(&flow.inbound(flags | PSH, 1, ack).payload(&header).packet());
            assert!(out.is_empty(), "{out:?}");
            assert_eq!(flow.state(&rig), Some(State::SynRecv));
        }
        rig.finish();
    }
}

#[test]
fn conformance_i20_selective_acknowledgements_are_in_the_fronts_numbers() {
    for (families, header, client) in all() {
        for (more, toa) in [("", None), (TOA, Some(client))] {
            let mut rig = Rig::new(&families.config(1, "tcp", &trusting(more)));
            let flow = open(&mut rig, families, 5000, &header, toa);
            let edges = |isn: u32, offsets: [u32; 4]| {
                let edges = offsets.map(|offset| isn.wrapping_add(offset).to_be_bytes());
                [&[1, 1, 5, 18][..], edges.as_flattened()].concat()
            };
            let offsets = [101, 201, 301, 401];
            // On the cold way and, behind it, on the usual one.
            for _ in 0..2 {
                let sack = flow.outbound(ACK, 1, 1).options(&edges(flow.gateway_isn, offsets));
                let seen = one(rig.server(&sack.packet()));
                assert_eq!(seen.ack(), flow.client_isn.wrapping_add(1));
                assert_eq!(seen.options(), edges(flow.client_isn, offsets));
            }
            rig.finish();
        }
    }
}

#[test]
fn timestamps_are_those_of_the_connection() {
    let timestamps =
        |value: u32, echo: u32| [&[1, 1, 8, 10][..], &value.to_be_bytes(), &echo.to_be_bytes()].concat();
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(1, "tcp", &trusting("")));
        let (client, vip) = ((families.client(), 5000), (families.vip(), 80));
        let syn = Segment::new(client, vip, SYN, CLIENT_ISN, 0).options(&timestamps(100, 0));
        let seen = one(rig.client(&syn.packet()));
        let shown = u32::from_be_bytes(seen.options()[4..8].try_into().unwrap());
        let flow = Conversation::of_syn(&seen, client, vip, CLIENT_ISN);
        one(rig.server(&flow.outbound(SYN | ACK, 0, 1).options(&timestamps(900, shown)).packet()));
        let header = flow.inbound(ACK | PSH, 1, 1).options(&timestamps(103, 900)).payload(&a_header());
        let out = rig.client(&header.packet());
        for seen in two(out) {
            assert_eq!(seen.options(), timestamps(shown + 3, 900));
        }
        rig.finish();
    }
}

/// §2.1 "UNKNOWN", §2.2 "LOCAL": the front's own connection, of which its packets say whose it is.
#[test]
fn of_the_fronts_own_connections_its_own_address_is_told() {
    let v2 = |command: u8, kind: u8, body: &[u8]| {
        [b"\r\n\r\n\0\r\nQUIT\n", &[command, kind][..], &(body.len() as u16).to_be_bytes(), body].concat()
    };
    for families in Families::ALL {
        for header in [
            b"PROXY UNKNOWN\r\n".to_vec(),
            b"PROXY UNKNOWN ffff::1 5 nonsense\r\n".to_vec(),
            v2(0x20, 0, &[]),
            v2(0x20, 0x11, &[9; 12]),
            v2(0x21, 0, &[]),
            v2(0x21, 0x31, &[0; 216]),
        ] {
            let mut rig = Rig::new(&families.config(1, "tcp", &trusting(TOA)));
            let own = (families.client(), 5000);
            let flow = open(&mut rig, families, 5000, &header, Some(own));
            talk(&mut rig, &flow);
            rig.finish();
        }
    }
}

#[test]
fn what_is_no_header_ends_the_connection_on_both_sides() {
    let (client, vip) = named(false);
    let v2 = header(V2, client, vip, 1);
    let changed = |at: usize, byte: u8| {
        let mut header = v2.clone();
        header[at] = byte;
        header
    };
    let too_long = [&v2[..14], &600u16.to_be_bytes(), &[0; 600]].concat();
    for families in Families::ALL {
        for bytes in [
            b"GET / HTTP/1.0\r\n\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.7 10.1.0.100 40001\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.7 10.1.0".to_vec(),
            [b"PROXY UNKNOWN ", &[b'x'; 200][..]].concat(),
            v2[..20].to_vec(),
            changed(12, 0x31),
            changed(13, 0x51),
            // of a datagram
            changed(13, 0x12),
            changed(15, 4),
            too_long.clone(),
            b"".to_vec(),
        ] {
            let mut rig = Rig::new(&families.config(1, "tcp", &trusting(TOA)));
            let flow = begin(&mut rig, families, 5000);
            let flags = if bytes.is_empty() { ACK | FIN } else { ACK | PSH };
            let out = rig.client(&flow.inbound(flags, 1, 1).payload(&bytes).packet());
            let [to_server, to_client] = two(out);
            assert_eq!(to_server.tcp(), (RST | ACK, flow.gateway_isn.wrapping_add(1), SERVER_ISN + 1));
            assert_eq!((to_server.ends(), to_server.port), ((flow.lip, flow.rip), LAN));
            assert_eq!((to_client.ends(), to_client.port), ((flow.vip, flow.client), WAN));
            assert_eq!((to_client.flags(), to_client.seq()), (RST, SERVER_ISN + 1));
            rig.moved(&[
                ("received", 1),
                ("originated", 2),
                ("transmitted", 2),
                ("sessions_ended", 1),
                ("drop.proxy_header_malformed", 1),
            ]);
            assert_eq!(rig.sessions(), 0);
            // Its port is another's.
            open(&mut rig, families, 5001, &a_header(), Some(client));
            rig.finish();
        }
    }
}

/// J2: who is not trusted cannot say who it is.
#[test]
fn conformance_j2_a_header_from_anybody_else_is_payload() {
    for families in Families::ALL {
        for (header, _, _) in headers() {
            let mut rig = Rig::new(&families.config(1, "tcp", &trusting(TOA)));
            let other = ip(if families.client_v6 { "2001:db8:1::2" } else { "10.1.0.2" });
            let client = (other, 5000);
            let flow = Conversation::begin_with(&mut rig, client, (families.vip(), 80), CLIENT_ISN, &[]);
            flow.shake(&mut rig);
            let seen = one(rig.client(&flow.inbound(ACK | PSH, 1, 1).payload(&header).packet()));
            assert_eq!((&seen.payload[..], seen.toa(254)), (&header[..], Some(client)));
            assert_eq!(seen.seq(), flow.gateway_isn.wrapping_add(1));
            rig.finish();
        }
    }
}

/// J2: nor can a front's client, whose options the front may hand on.
#[test]
fn conformance_j2_toa_beside_the_header_is_erased() {
    let forged = [254, 8, 0, 80, 192, 0, 2, 66];
    for (families, header, client) in all() {
        for (more, toa) in [("", None), (TOA, Some(client)), (V2, None)] {
            let mut rig = Rig::new(&families.config(1, "tcp", &trusting(more)));
            let flow = begin(&mut rig, families, 5000);
            let bytes = [&header[..], b"GET"].concat();
            let segment = flow.inbound(ACK | PSH, 1, 1).payload(&bytes).options(&forged);
            for seen in rig.client(&segment.packet()) {
                assert_eq!(seen.toa(254), toa);
                assert!(!seen.options().windows(4).any(|window| window == [192, 0, 2, 66]));
            }
            rig.finish();
        }
    }
}

#[test]
fn a_header_of_our_own_names_the_client_that_the_front_named() {
    for families in Families::ALL {
        for (header, client, vip) in headers() {
            for more in [V1, V2] {
                for payload in [&b""[..], b"GET"] {
                    let mut rig = Rig::new(&families.config(2, "tcp", &trusting(more)));
                    let flow = begin(&mut rig, families, 5000);
                    let bytes = [&header[..], payload].concat();
                    let out = rig.client(&flow.inbound(ACK | PSH, 1, 1).payload(&bytes).packet());
                    let [first, second] = two(out);
                    let (own, other) = if payload.is_empty() { (second, first) } else { (first, second) };
                    let right = crate::proxy::header(more, client, vip, 1);
                    assert_eq!(own.payload, right);
                    assert_eq!(own.seq(), flow.gateway_isn.wrapping_add(1));
                    let after = if payload.is_empty() { 0 } else { right.len() as u32 };
                    assert_eq!(
                        (other.seq(), &other.payload[..]),
                        (flow.gateway_isn.wrapping_add(1 + after), payload)
                    );
                    // Minus in, plus out.
                    let flow = crate::proxy::behind(behind(flow, &header), &right);
                    rig.moved(&[
                        ("received", 1),
                        ("transmitted", 2),
                        ("originated", 1),
                        ("proxy_taken", 1),
                        ("proxy_sent", 1),
                    ]);
                    // Before ours is acknowledged the front's comes again: a sign that ours is missing.
                    rig.pass_ticks(5);
                    let len = header.len() as u32;
                    let again = flow.inbound(ACK | PSH, 1u32.wrapping_sub(len), 1).payload(&bytes);
                    let out = rig.client(&again.packet());
                    assert_eq!(out.iter().filter(|seen| seen.payload == right).count(), 1, "{out:?}");
                    assert!(
                        out.iter().all(|seen| seen.payload == right || seen.payload == payload),
                        "{out:?}"
                    );
                    flow.reply(&mut rig, ACK, 1, 1);
                    talk(&mut rig, &flow);
                    rig.finish();
                }
            }
        }
    }
}

/// Whichever client is named: our own header has to fit into the real server's window, TOA into its segments.
#[test]
fn syn_acks_leave_room_for_the_longest_that_may_be_told() {
    for families in Families::ALL {
        let mss_max = 1500 - if families.server_v6 { 60 } else { 40 };
        for (more, header, toa) in [("", 0, 0), (V1, 107, 0), (V2, 52, 0), (TOA, 0, 20)] {
            let mut rig = Rig::new(&families.config(1, "tcp", &trusting(more)));
            let flow = Conversation::begin(&mut rig, families, 5000);
            let syn_ack = flow.outbound(SYN | ACK, 0, 1).options(&[2, 4, 0xff, 0xff]);
            let seen = one(rig.server(&syn_ack.packet()));
            let mss = u16::from_be_bytes(seen.options()[2..].try_into().unwrap());
            assert_eq!((seen.window(), mss), (syn_ack.window - header, mss_max - toa), "{more}");
            rig.finish();
        }
    }
}

#[test]
fn a_syn_that_comes_again_has_the_number_that_it_had() {
    for (families, header, _) in all() {
        for more in ["", TOA, V1, V2] {
            let mut rig = Rig::new(&families.config(1, "tcp", &trusting(more)));
            let (client, vip) = ((families.client(), 5000), (families.vip(), 80));
            // RFC 7413: data would come before the header is known.
            let syn = Segment::new(client, vip, SYN, CLIENT_ISN, 0)
                .options(&[34, 6, 1, 2, 3, 4, 1, 1])
                .payload(&header);
            let seen = one(rig.client(&syn.packet()));
            assert_eq!((&seen.payload[..], seen.options()), (&b""[..], &[1; 8][..]), "and no TOA");
            let flow = Conversation::of_syn(&seen, client, vip, CLIENT_ISN);
            one(rig.server(&flow.outbound(SYN | ACK, 0, 1).packet()));
            two(rig.client(&flow.inbound(ACK | PSH, 1, 1).payload(&header).packet()));
            let again = one(rig.client(&syn.packet()));
            assert_eq!((again.tcp(), &again.payload[..]), ((SYN, flow.gateway_isn, 0), &b""[..]));
            assert_eq!(again.options(), &[1; 8]);
            rig.finish();
        }
    }
}

#[test]
fn resets_are_the_real_servers_to_judge_before_the_header_and_after() {
    for families in Families::ALL {
        let header = a_header();
        let mut rig = Rig::new(&families.config(1, "tcp", &trusting("")));
        let flow = begin(&mut rig, families, 5000);
        assert_eq!(flow.send(&mut rig, RST, 1, 0).flags(), RST);
        assert_eq!(flow.state(&rig), Some(State::Close));
        let flow = open(&mut rig, families, 5001, &header, None);
        assert_eq!(flow.send(&mut rig, RST, 1, 0).flags(), RST);
        assert_eq!(flow.state(&rig), Some(State::Close));
        // The real server's, to one who waits.
        let flow = begin(&mut rig, families, 5002);
        flow.reply(&mut rig, RST | ACK, 1, 1);
        assert_eq!(flow.state(&rig), Some(State::Close));
        rig.finish();
    }
}

#[test]
fn a_front_that_says_nothing_is_forgotten() {
    for families in Families::ALL {
        let more = trusting("[service.timeouts]\ntcp_syn_recv_secs = 5");
        let mut rig = Rig::new(&families.config(1, "tcp", &more));
        let flow = begin(&mut rig, families, 5000);
        rig.pass(6);
        assert_eq!(rig.sessions(), 0);
        rig.mark();
        let out = rig.client(&flow.inbound(ACK | PSH, 1, 1).payload(&a_header()).packet());
        assert_eq!(one(out).flags(), RST);
        rig.moved(&[("received", 1), ("originated", 1), ("transmitted", 1), ("drop.no_session", 1)]);
        rig.finish();
    }
}

/// Sessions go on as they began, and a line that was another's says nothing of who comes after.
#[test]
fn another_configuration_is_for_new_sessions() {
    for families in Families::ALL {
        let (client, _) = named(false);
        let header = a_header();
        let mut rig = Rig::new(&families.config(1, "tcp", &trusting(TOA)));
        let opened = open(&mut rig, families, 5000, &header, Some(client));
        let begun = begin(&mut rig, families, 5001);
        rig.apply(&families.config(1, "tcp", TOA));
        assert_eq!(opened.send(&mut rig, ACK, 1, 1).toa(254), Some(client));
        let out = rig.client(&begun.inbound(ACK | PSH, 1, 1).payload(&header).packet());
        is_ack_and_probe(out, &begun, Some(client));
        let ordinary = Conversation::open(&mut rig, families, 5002);
        assert_eq!(ordinary.send(&mut rig, ACK, 1, 1).toa(254), Some((families.client(), 5002)));
        // What is told no more ends the session's seldom way, on which repetitions are cut, and its numbers stay.
        rig.apply(&families.config(1, "tcp", ""));
        assert_eq!(opened.send(&mut rig, ACK, 1, 1).toa(254), None);
        let back = 1u32.wrapping_sub(header.len() as u32);
        let again = one(rig.client(&opened.inbound(ACK | PSH, back, 1).payload(&header).packet()));
        assert_eq!((again.seq(), again.payload), (opened.gateway_isn.wrapping_add(back), header.clone()));
        talk(&mut rig, &opened);
        rig.apply(&families.config(1, "tcp", &trusting(TOA)));
        assert_eq!(ordinary.send(&mut rig, ACK, 1, 1).toa(254), Some((families.client(), 5002)));
        let again = open(&mut rig, families, 5003, &header, Some(client));
        let (worker, index) = rig.find(again.client, again.vip, Protocol::Tcp).unwrap();
        let told = rig.engines[worker].sessions().client_flow(index);
        assert_eq!((IpAddr::from(told.src), told.sport), client);
        rig.finish();
    }
}

#[test]
fn without_a_buffer_the_front_repeats_what_it_said() {
    for families in Families::ALL {
        let (client, vip) = named(true);
        let header = header(V2, client, vip, 1);
        for more in [TOA, V2] {
            let mut rig = Rig::new(&families.config(1, "tcp", &trusting(more)));
            let flow = begin(&mut rig, families, 5000);
            let segment = flow.inbound(ACK | PSH, 1, 1).payload(&header).packet();
            rig.ios[0].buffers_max = Some(usize::from(more == V2));
            let out = rig.client(&segment);
            assert_eq!(out.len(), usize::from(more == TOA), "{out:?}");
            rig.ios[0].buffers_max = None;
            rig.pass_ticks(20);
            let out = rig.client(&segment);
            assert_eq!(out.len(), 2, "{out:?}");
            if more == TOA {
                is_ack_and_probe(out, &flow, Some(client));
            } else {
                assert_eq!(out[1].payload, header);
            }
            rig.finish();
        }
    }
}

#[test]
fn guests_and_their_hosts_agree_on_the_client() {
    for (families, header, client) in all() {
        let mut rig = Rig::new(&crate::pools::small_pool(&families.config(4, "tcp", &trusting(TOA)), 16));
        for cport in 1..=16 {
            let flow = open(&mut rig, families, cport, &header, Some(client));
            one(rig.client(&flow.inbound(ACK | PSH, 1, 1).payload(b"GET").packet()));
            flow.reply(&mut rig, ACK, 1, 4);
        }
        rig.finish();
    }
}

#[test]
fn frames_whose_checksum_is_left_to_the_device_stay_right() {
    for (families, header, client) in all() {
        let options = Options { partial_checksums: true, ..Options::default() };
        let mut rig = Rig::with(&families.config(1, "tcp", &trusting(TOA)), options);
        for (cport, payload) in [(5000, &b"odd"[..]), (5001, b"even"), (5002, b"")] {
            let flow = begin(&mut rig, families, cport);
            let mut packet = flow.inbound(ACK | PSH, 1, 1).payload(&[&header[..], payload].concat()).packet();
            make_partial(&mut packet);
            let seen = rig.client(&packet).remove(0);
            assert_eq!((&seen.payload[..], seen.toa(254)), (payload, Some(client)));
        }
        rig.finish();
    }
}

/// G2: a payload that was damaged before the gateway is seen to be damaged behind it.
#[test]
fn conformance_g2_cutting_the_header_off_launders_no_damage() {
    for (families, header, _) in all() {
        for payload in [&b"odd"[..], b"even"] {
            let mut rig = Rig::new(&families.config(1, "tcp", &trusting("")));
            let flow = begin(&mut rig, families, 5000);
            let mut packet = flow.inbound(ACK | PSH, 1, 1).payload(&[&header[..], payload].concat()).packet();
            *packet.last_mut().unwrap() ^= 0x10;
            rig.damaged = true;
            let seen = one(rig.client(&packet));
            let l4 = seen.packet().len() - 20 - payload.len();
            let mut mended = seen.packet().to_vec();
            assert_eq!(mended[l4 + 20..], packet[packet.len() - payload.len()..]);
            fix_l4(&mut mended);
            assert_ne!(mended, seen.packet(), "the checksum is still wrong");
            rig.finish();
        }
    }
}
