//! The PROXY protocol header of a TCP connection: when it is sent, when again, and that neither side sees its seam.

use fullnat::session::State;

use crate::pools::small_pool;
use crate::rig::conversation::{CLIENT_ISN, Conversation, SERVER_ISN};
use crate::rig::frame::{ACK, FIN, PSH, RST, SYN, Segment, icmp, make_partial};
use crate::rig::seen::Seen;
use crate::rig::{Families, LAN, Options, Rig, WAN, one};

pub const V1: &str = "client_address = \"proxy-v1\"";
pub const V2: &str = "client_address = \"proxy-v2\"";

/// The header as the specification has it, made here by hand.
pub fn header(
    more: &str,
    client: (std::net::IpAddr, u16),
    vip: (std::net::IpAddr, u16),
    transport: u8,
) -> Vec<u8> {
    let family = if client.0.is_ipv4() { 4 } else { 6 };
    if more.contains("proxy-v1") {
        let line = format!("PROXY TCP{family} {} {} {} {}\r\n", client.0, vip.0, client.1, vip.1);
        return line.into_bytes();
    }
    let octets = |ip: std::net::IpAddr| match ip {
        std::net::IpAddr::V4(v4) => v4.octets().to_vec(),
        std::net::IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let kind = if family == 4 { 0x10 } else { 0x20 } | transport;
    let addresses = [octets(client.0), octets(vip.0)].concat();
    let ports = [client.1.to_be_bytes(), vip.1.to_be_bytes()].concat();
    let len = (addresses.len() + 4) as u16;
    [b"\r\n\r\n\0\r\nQUIT\n\x21", &[kind][..], &len.to_be_bytes(), &addresses, &ports].concat()
}

fn header_of(more: &str, flow: &Conversation) -> Vec<u8> {
    header(more, flow.client, flow.vip, 1)
}

/// The same connection as it is once the header was sent: the client's bytes lie behind it.
pub fn behind(flow: Conversation, header: &[u8]) -> Conversation {
    Conversation { gateway_isn: flow.gateway_isn.wrapping_add(header.len() as u32), ..flow }
}

/// A segment that carries the header, or its end, and nothing else.
#[track_caller]
fn is_header(seen: &Seen, flow: &Conversation, header: &[u8], ack: u32) {
    let seq = flow.gateway_isn.wrapping_add(1).wrapping_sub(header.len() as u32);
    assert_eq!((seen.ends(), seen.port), ((flow.lip, flow.rip), LAN));
    assert_eq!(seen.tcp(), (PSH | ACK, seq, flow.server_isn.wrapping_add(ack)));
    assert_eq!(seen.payload, header);
}

/// A handshake, as [`Conversation::shake`], and the header behind it; the conversation behind that, and the header.
pub fn open(rig: &mut Rig, families: Families, cport: u16, more: &str) -> (Conversation, Vec<u8>) {
    let flow = Conversation::begin(rig, families, cport);
    let header = header_of(more, &flow);
    let syn_ack = one(rig.server(&flow.outbound(SYN | ACK, 0, 1).packet()));
    assert_eq!(syn_ack.tcp(), (SYN | ACK, SERVER_ISN, CLIENT_ISN.wrapping_add(1)));
    let [ack, own] = two(rig.client(&flow.inbound(ACK, 1, 1).packet()));
    assert_eq!(ack.tcp(), (ACK, flow.gateway_isn.wrapping_add(1), SERVER_ISN.wrapping_add(1)));
    assert!(ack.payload.is_empty());
    let flow = behind(flow, &header);
    is_header(&own, &flow, &header, 1);
    assert_eq!(flow.state(rig), Some(State::Established));
    (flow, header)
}

#[track_caller]
fn two(out: Vec<Seen>) -> [Seen; 2] {
    out.try_into().unwrap_or_else(|out| panic!("{out:?}"))
}

/// Before the client's first byte.
fn from_end(back: u32) -> u32 {
    1u32.wrapping_sub(back)
}

fn all() -> impl Iterator<Item = (Families, &'static str)> {
    Families::ALL.into_iter().flat_map(|families| [(families, V1), (families, V2)])
}

#[test]
fn the_header_follows_the_handshake_and_the_client_never_sees_it() {
    for (families, more) in all() {
        let mut rig = Rig::new(&families.config(2, "tcp", more));
        let (flow, header) = open(&mut rig, families, 5000, more);
        rig.moved(&[
            ("received", 3),
            ("transmitted", 4),
            ("originated", 1),
            ("sessions_created", 1),
            ("proxy_sent", 1),
        ]);
        // The real server speaks first, before it has the header.
        let seen = one(
            rig.server(&flow.outbound(ACK | PSH, 1, from_end(header.len() as u32)).payload(b"220").packet())
        );
        assert_eq!(
            (seen.tcp(), &seen.payload[..]),
            ((ACK | PSH, SERVER_ISN + 1, CLIENT_ISN + 1), &b"220"[..])
        );
        flow.send(&mut rig, ACK, 1, 4);
        // What it acknowledges of the header is not shown.
        let seen = one(rig.server(&flow.outbound(ACK | PSH, 4, from_end(7)).payload(b" ").packet()));
        assert_eq!(seen.ack(), CLIENT_ISN + 1);
        flow.reply(&mut rig, ACK, 5, 1);
        one(rig.client(&flow.inbound(ACK | PSH, 1, 5).payload(b"EHLO").packet()));
        flow.reply(&mut rig, ACK, 5, 5);
        flow.send(&mut rig, FIN | ACK, 5, 5);
        flow.reply(&mut rig, FIN | ACK, 5, 6);
        flow.send(&mut rig, ACK, 6, 6);
        assert_eq!(flow.state(&rig), Some(State::TimeWait));
        rig.moved(&[("received", 9), ("transmitted", 9)]);
        rig.finish();
    }
}

#[test]
fn a_lost_last_ack_brings_the_header_ahead_of_what_comes_instead() {
    for (families, more) in all() {
        for (flags, payload) in [(ACK | PSH, &b"GET"[..]), (ACK | FIN, b""), (ACK | FIN | PSH, b"GET")] {
            let mut rig = Rig::new(&families.config(1, "tcp", more));
            let flow = Conversation::begin(&mut rig, families, 5000);
            one(rig.server(&flow.outbound(SYN | ACK, 0, 1).packet()));
            let header = header_of(more, &flow);
            let flow = behind(flow, &header);
            let [own, data] = two(rig.client(&flow.inbound(flags, 1, 1).payload(payload).packet()));
            is_header(&own, &flow, &header, 1);
            assert_eq!(data.tcp(), (flags, flow.gateway_isn.wrapping_add(1), SERVER_ISN + 1));
            assert_eq!(data.payload, payload);
            rig.finish();
        }
    }
}

#[test]
fn the_header_has_the_timestamps_of_the_connection() {
    let timestamps =
        |value: u32, echo: u32| [&[1, 1, 8, 10][..], &value.to_be_bytes(), &echo.to_be_bytes()].concat();
    for (families, more) in all() {
        let mut rig = Rig::new(&families.config(1, "tcp", more));
        let (client, vip) = ((families.client(), 5000), (families.vip(), 80));
        let syn = Segment::new(client, vip, SYN, CLIENT_ISN, 0).options(&timestamps(100, 0));
        let seen = one(rig.client(&syn.packet()));
        let shown = u32::from_be_bytes(seen.options()[4..8].try_into().unwrap());
        let flow = Conversation::of_syn(&seen, client, vip, CLIENT_ISN);
        let answer = timestamps(900, shown);
        let syn_ack = one(rig.server(&flow.outbound(SYN | ACK, 0, 1).options(&answer).packet()));
        assert_eq!(syn_ack.options(), timestamps(900, 100));
        let out = rig.client(&flow.inbound(ACK, 1, 1).options(&timestamps(103, 900)).packet());
        let [ack, own] = two(out);
        assert_eq!(own.options(), timestamps(shown + 3, 900));
        assert_eq!((own.options(), own.window()), (ack.options(), ack.window()));
        // Sent again by the timer it has the last of the client's, and echoes nothing.
        one(rig.client(&flow.inbound(ACK, 1, 1).options(&timestamps(107, 901)).packet()));
        rig.pass_ticks(140);
        let header = header_of(more, &flow);
        let again = one(rig.take_sent());
        is_header(&again, &behind(flow, &header), &header, 1);
        assert_eq!(again.options(), timestamps(shown + 7, 0));
        rig.finish();
    }
}

#[test]
fn without_an_acknowledgement_it_is_sent_again_after_one_two_four_seconds() {
    for (families, more) in all() {
        let mut rig = Rig::new(&families.config(1, "tcp", more));
        let (flow, header) = open(&mut rig, families, 5000, more);
        rig.mark();
        for (nth, secs) in [1, 2, 4, 8, 16, 32, 60, 60].into_iter().enumerate() {
            // The wheel may be 320 ms late, and so counts from then on.
            rig.pass_ticks(100 * secs - 40);
            assert!(rig.take_sent().is_empty(), "too soon the {nth}th time");
            rig.pass_ticks(90);
            is_header(&one(rig.take_sent()), &flow, &header, 1);
            rig.moved(&[("originated", 1), ("transmitted", 1), ("proxy_sent_again", 1)]);
        }
        flow.reply(&mut rig, ACK, 1, 1);
        rig.pass(120);
        assert!(rig.take_sent().is_empty());
        rig.finish();
    }
}

#[test]
fn signs_that_it_is_missing_bring_it_again_at_once() {
    for (families, more) in all() {
        let mut rig = Rig::new(&families.config(1, "tcp", more));
        let (flow, header) = open(&mut rig, families, 5000, more);
        let len = header.len() as u32;
        // The first data are no sign, nor are the real server's own.
        one(rig.client(&flow.inbound(ACK | PSH, 1, 1).payload(&[7; 100]).packet()));
        one(rig.server(&flow.outbound(ACK | PSH, 1, from_end(len)).payload(b"220").packet()));
        one(rig.client(&flow.inbound(ACK | PSH, 101, 4).payload(&[8; 100]).packet()));
        rig.mark();
        // What came behind it is acknowledged selectively: to the client nothing is missing before that.
        let edges = |from: u32, to: u32| {
            let edge = |offset: u32| flow.gateway_isn.wrapping_add(offset).to_be_bytes();
            [&[1, 1, 5, 10][..], &edge(from), &edge(to)].concat()
        };
        let duplicate = flow.outbound(ACK, 4, from_end(len)).options(&edges(1, 101)).packet();
        let [own, shown] = two(rig.server(&duplicate));
        is_header(&own, &flow, &header, 4);
        assert_eq!((shown.ack(), shown.options()), (CLIENT_ISN + 1, &[1; 12][..]));
        // More such signs come of the same loss.
        let sack = one(rig.server(&flow.outbound(ACK, 4, from_end(len)).options(&edges(101, 201)).packet()));
        let edge = |offset: u32| CLIENT_ISN.wrapping_add(offset).to_be_bytes();
        assert_eq!(sack.options(), [&[1, 1, 5, 10][..], &edge(101), &edge(201)].concat());
        rig.moved(&[("received", 2), ("transmitted", 3), ("originated", 1), ("proxy_sent_again", 1)]);
        // A while later they count again: the client repeats itself, the real server its SYN-ACK.
        rig.pass_ticks(10);
        let [own, data] = two(rig.client(&flow.inbound(ACK | PSH, 1, 4).payload(&[7; 100]).packet()));
        is_header(&own, &flow, &header, 4);
        assert_eq!(data.seq(), flow.gateway_isn.wrapping_add(1));
        rig.pass_ticks(10);
        let [own, shown] = two(rig.server(&flow.outbound(SYN | ACK, 0, from_end(len)).packet()));
        is_header(&own, &flow, &header, 4);
        assert_eq!(shown.tcp(), (SYN | ACK, SERVER_ISN, CLIENT_ISN + 1));
        // D-SACK of what it got twice is not the client's.
        let seen = one(rig.server(&flow.outbound(ACK, 4, 201).options(&edges(from_end(len), 1)).packet()));
        assert_eq!((seen.ack(), seen.options()), (CLIENT_ISN.wrapping_add(201), &[1; 12][..]));
        let seen = one(rig.server(&flow.outbound(ACK, 4, 201).options(&edges(from_end(len), 101)).packet()));
        assert_eq!(seen.options(), [&[1, 1, 5, 10][..], &edge(1), &edge(101)].concat());
        // Nor is what comes late.
        let late = flow.outbound(ACK, 4, from_end(len)).options(&edges(1, 101));
        let seen = one(rig.server(&late.packet()));
        assert_eq!((seen.ack(), seen.options()), (CLIENT_ISN + 1, &[1; 12][..]));
        rig.pass(2);
        rig.mark();
        flow.reply(&mut rig, ACK, 4, 201);
        rig.moved(&[("received", 1), ("transmitted", 1)]);
        rig.finish();
    }
}

#[test]
fn of_a_header_acknowledged_in_part_the_rest_is_sent() {
    for (families, more) in all() {
        let mut rig = Rig::new(&families.config(1, "tcp", more));
        let (flow, header) = open(&mut rig, families, 5000, more);
        let rest = &header[10..];
        let part = flow.outbound(ACK, 1, from_end(rest.len() as u32));
        // With a window for five bytes five come; with none the timer asks.
        let [own, shown] = two(rig.server(&Segment { window: 5, ..part.clone() }.packet()));
        assert_eq!((shown.ack(), shown.window()), (CLIENT_ISN + 1, 0));
        assert_eq!(
            (own.seq(), &own.payload[..]),
            (flow.gateway_isn.wrapping_add(from_end(rest.len() as u32)), &rest[..5])
        );
        rig.pass_ticks(50);
        one(rig.server(&Segment { window: 0, ..part }.packet()));
        rig.pass_ticks(190);
        is_header(&one(rig.take_sent()), &flow, rest, 1);
        let seen = one(rig.server(&flow.outbound(ACK, 1, 1).packet()));
        assert_eq!((seen.ack(), seen.window()), (CLIENT_ISN + 1, 4096));
        rig.finish();
    }
}

#[test]
fn the_clients_window_leaves_room_for_the_header() {
    for (families, more) in all() {
        let mut rig = Rig::new(&families.config(1, "tcp", more));
        let (client, vip) = ((families.client(), 5000), (families.vip(), 80));
        let scale = [1, 3, 3, 4];
        let flow = Conversation::begin_with(&mut rig, client, vip, CLIENT_ISN, &scale);
        let header = header_of(more, &flow);
        let len = header.len() as u16;
        for (window, left) in [(4096, 4096 - len), (len, 0), (len - 1, 0), (0, 0)] {
            let syn_ack = Segment { window, ..flow.outbound(SYN | ACK, 0, 1).options(&scale) };
            assert_eq!(one(rig.server(&syn_ack.packet())).window(), left);
        }
        two(rig.client(&flow.inbound(ACK, 1, 1).packet()));
        let flow = behind(flow, &header);
        let unacknowledged = flow.outbound(ACK | PSH, 1, from_end(len.into())).payload(b"hello");
        let seen = one(rig.server(&Segment { window: 300, ..unacknowledged }.packet()));
        assert_eq!(seen.window(), 300 - len.div_ceil(16));
        let acknowledged = flow.outbound(ACK, 6, 1);
        assert_eq!(one(rig.server(&Segment { window: 300, ..acknowledged }.packet())).window(), 300);
        rig.finish();
    }
}

#[test]
fn syns_that_come_again_keep_their_number_and_bring_no_data() {
    for (families, more) in all() {
        let mut rig = Rig::new(&families.config(1, "tcp", more));
        let (client, vip) = ((families.client(), 5000), (families.vip(), 80));
        let cookie = [34, 6, 1, 2, 3, 4, 1, 1];
        let syn = Segment::new(client, vip, SYN, CLIENT_ISN, 0).options(&cookie).payload(b"early data");
        let seen = one(rig.client(&syn.packet()));
        assert_eq!((&seen.payload[..], seen.options()), (&b""[..], &[1; 8][..]));
        let flow = Conversation::of_syn(&seen, client, vip, CLIENT_ISN);
        let isn = seen.seq();
        one(rig.server(&flow.outbound(SYN | ACK, 0, 1).packet()));
        let [_, own] = two(rig.client(&flow.inbound(ACK, 1, 1).packet()));
        let header = header_of(more, &flow);
        let flow = behind(flow, &header);
        is_header(&own, &flow, &header, 1);
        let again = one(rig.client(&syn.packet()));
        assert_eq!((again.tcp(), &again.payload[..]), ((SYN, isn, 0), &b""[..]));
        assert_eq!(
            one(rig.client(&flow.inbound(ACK | PSH, 1, 1).payload(b"early data").packet())).payload,
            b"early data"
        );
        flow.reply(&mut rig, ACK, 1, 11);
        rig.finish();
    }
}

/// J: "a client cannot make the real server believe a header of its own".
#[test]
fn nothing_of_the_clients_comes_before_the_header_or_in_its_place() {
    for (families, more) in all() {
        let mut rig = Rig::new(&families.config(1, "tcp", more));
        let flow = Conversation::begin(&mut rig, families, 5000);
        let forged = header(more, (families.rip(), 1), flow.vip, 1);
        let len = forged.len() as u32;
        // Before the real server has answered, and with an acknowledgement of another answer (SYN cookies).
        rig.mark();
        let out = rig.client(&flow.inbound(ACK | PSH, 1, 1).payload(&forged).packet());
        rig.only_drop(&out, "proxy_header_first");
        one(rig.server(&flow.outbound(SYN | ACK, 0, 1).packet()));
        rig.mark();
        for segment in [flow.inbound(ACK | PSH, 1, 7), flow.inbound(FIN | ACK, 1, 7), flow.inbound(ACK, 1, 0)]
        {
            let out = rig.client(&segment.payload(&forged).packet());
            rig.only_drop(&out, "proxy_header_first");
        }
        let [_, own] = two(rig.client(&flow.inbound(ACK, 1, 1).packet()));
        let right = header_of(more, &flow);
        let flow = behind(flow, &right);
        is_header(&own, &flow, &right, 1);
        // Into the place of a header that may have been lost.
        rig.mark();
        for seq in [from_end(len), from_end(len - 1), 0, from_end(2000)] {
            let out = rig.client(&flow.inbound(ACK | PSH, seq, 1).payload(&forged).packet());
            rig.only_drop(&out, "proxy_header_first");
        }
        // Behind it a client may send what it likes: those are its own bytes.
        assert_eq!(
            one(rig.client(&flow.inbound(ACK | PSH, 1, 1).payload(&forged).packet())).seq(),
            flow.gateway_isn.wrapping_add(1)
        );
        flow.reply(&mut rig, ACK, 1, 1 + len);
        // The real server has it; what is older is the real server's to refuse.
        assert_eq!(one(rig.client(&flow.inbound(ACK, 0, 1).payload(b"x").packet())).seq(), flow.gateway_isn);
        rig.finish();
    }
}

#[test]
fn resets_count_on_both_sides_of_the_seam() {
    for (families, more) in all() {
        // Before the header was sent the client's numbers are as they are.
        let mut rig = Rig::new(&families.config(1, "tcp", more));
        let flow = Conversation::begin(&mut rig, families, 5000);
        one(rig.server(&flow.outbound(SYN | ACK, 0, 1).packet()));
        assert_eq!(
            one(rig.client(&flow.inbound(RST, 1, 0).packet())).seq(),
            flow.gateway_isn.wrapping_add(1)
        );
        assert_eq!(flow.state(&rig), Some(State::Close));
        // After it, the header goes with the RST, which would else not be the exact one.
        let (flow, header) = open(&mut rig, families, 5001, more);
        let [own, reset] = two(rig.client(&flow.inbound(RST, 1, 0).packet()));
        is_header(&own, &flow, &header, 1);
        assert_eq!(reset.tcp(), (RST, flow.gateway_isn.wrapping_add(1), 0));
        assert_eq!(flow.state(&rig), Some(State::Close));
        rig.pass(3);
        assert!(rig.take_sent().is_empty(), "nobody is there to be told");
        // The real server's.
        let (flow, header) = open(&mut rig, families, 5002, more);
        let reset = one(rig.server(&flow.outbound(RST | ACK, 1, from_end(header.len() as u32)).packet()));
        assert_eq!(reset.tcp(), (RST | ACK, SERVER_ISN + 1, CLIENT_ISN + 1));
        assert_eq!(flow.state(&rig), Some(State::Close));
        rig.pass(3);
        assert!(rig.take_sent().is_empty());
        rig.finish();
    }
}

#[test]
fn closing_before_the_header_is_acknowledged_ends_like_any_other() {
    for (families, more) in all() {
        for client_first in [true, false] {
            let mut rig = Rig::new(&families.config(1, "tcp", more));
            let (flow, header) = open(&mut rig, families, 5000, more);
            let len = header.len() as u32;
            if client_first {
                flow.send(&mut rig, FIN | ACK, 1, 1);
                assert_eq!(flow.state(&rig), Some(State::CloseWait));
                rig.pass_ticks(140);
                is_header(&one(rig.take_sent()), &flow, &header, 1);
                flow.reply(&mut rig, FIN | ACK, 1, 2);
                flow.send(&mut rig, ACK, 2, 2);
            } else {
                let fin = one(rig.server(&flow.outbound(FIN | ACK, 1, from_end(len)).packet()));
                assert_eq!(fin.tcp(), (FIN | ACK, SERVER_ISN + 1, CLIENT_ISN + 1));
                assert_eq!(flow.state(&rig), Some(State::FinWait));
                flow.send(&mut rig, FIN | ACK, 1, 2);
                flow.reply(&mut rig, ACK, 2, 2);
            }
            assert_eq!(flow.state(&rig), Some(State::TimeWait));
            rig.pass(5);
            assert!(rig.take_sent().is_empty());
            rig.finish();
        }
    }
}

#[test]
fn without_a_buffer_the_segment_waits_for_its_senders_repetition() {
    for (families, more) in all() {
        let mut rig = Rig::new(&families.config(1, "tcp", more));
        let flow = Conversation::begin(&mut rig, families, 5000);
        one(rig.server(&flow.outbound(SYN | ACK, 0, 1).packet()));
        let header = header_of(more, &flow);
        rig.mark();
        rig.ios[0].buffers_max = Some(1);
        for segment in [flow.inbound(ACK, 1, 1), flow.inbound(ACK | PSH, 1, 1).payload(b"GET")] {
            assert!(rig.client(&segment.packet()).is_empty());
            rig.moved(&[("received", 1), ("drop.packet_pool_empty", 1), ("proxy_no_buffer", 1)]);
            assert_eq!(flow.state(&rig), Some(State::SynRecv));
        }
        rig.ios[0].buffers_max = None;
        let [_, own] = two(rig.client(&flow.inbound(ACK, 1, 1).packet()));
        let flow = behind(flow, &header);
        is_header(&own, &flow, &header, 1);
        rig.mark();
        rig.ios[0].buffers_max = Some(0);
        rig.pass_ticks(140);
        assert!(rig.take_sent().is_empty());
        rig.moved(&[("proxy_no_buffer", 1)]);
        rig.ios[0].buffers_max = None;
        rig.pass_ticks(140);
        is_header(&one(rig.take_sent()), &flow, &header, 1);
        rig.finish();
    }
}

/// The real server expects what it has acknowledged; the next user of the port begins beyond all that was sent.
#[test]
fn an_idle_session_resets_the_real_server_where_it_stands() {
    for (families, more) in all() {
        for acknowledged in [0, 10] {
            let short = format!("{more}\n[service.timeouts]\ntcp_established_secs = 5");
            let mut rig = Rig::new(&small_pool(&families.config(1, "tcp", &short), 1));
            let (flow, header) = open(&mut rig, families, 5000, more);
            let left = header.len() as u32 - acknowledged;
            one(rig.server(&flow.outbound(ACK | PSH, 1, from_end(left)).payload(b"x").packet()));
            while rig.sessions() > 0 {
                rig.pass_ticks(50);
            }
            let told = rig.take_sent().pop().unwrap();
            let seq = flow.gateway_isn.wrapping_add(from_end(left));
            assert_eq!(told.tcp(), (RST | ACK, seq, SERVER_ISN + 2));
            rig.finish();
        }
        let mut rig = Rig::new(&small_pool(&families.config(1, "tcp", more), 1));
        let mut last: Option<u32> = None;
        for cport in 5000..5004 {
            let (flow, _) = open(&mut rig, families, cport, more);
            // Beyond what was sent last, a long one as well.
            let isn = flow.gateway_isn.wrapping_sub(header_of(more, &flow).len() as u32);
            assert!(last.is_none_or(|last| (isn.wrapping_sub(last) as i32) > 0));
            flow.reply(&mut rig, ACK, 1, 1);
            one(rig.client(&flow.inbound(ACK | PSH, 1, 1).payload(&[1; 1000]).packet()));
            flow.reply(&mut rig, FIN | ACK, 1, 1001);
            flow.send(&mut rig, FIN | ACK, 1001, 2);
            flow.reply(&mut rig, ACK, 2, 1002);
            last = Some(flow.gateway_isn.wrapping_add(1002));
        }
        rig.finish();
    }
}

/// Sessions go on as they began; a header that is on its way stays the one it was.
#[test]
fn another_configuration_is_for_new_sessions() {
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(1, "tcp", V1));
        let (flow, header) = open(&mut rig, families, 5000, V1);
        let begun = Conversation::begin(&mut rig, families, 5001);
        rig.apply(&families.config(1, "tcp", V2));
        rig.pass_ticks(140);
        is_header(&one(rig.take_sent()), &flow, &header, 1);
        one(rig.server(&begun.outbound(SYN | ACK, 0, 1).packet()));
        let [_, own] = two(rig.client(&begun.inbound(ACK, 1, 1).packet()));
        assert_eq!(own.payload, header_of(V1, &begun));
        open(&mut rig, families, 5002, V2);
        rig.apply(&families.config(1, "tcp", ""));
        Conversation::open(&mut rig, families, 5003);
        rig.finish();
    }
}

#[test]
fn an_error_about_the_header_concerns_the_clients_first_byte() {
    for (families, more) in all() {
        let mut rig = Rig::new(&families.config(2, "tcp", more));
        let flow = Conversation::begin(&mut rig, families, 5000);
        one(rig.server(&flow.outbound(SYN | ACK, 0, 1).packet()));
        let [_, own] = two(rig.client(&flow.inbound(ACK, 1, 1).packet()));
        let (kind, code) = if families.server_v6 { (1, 3) } else { (3, 1) };
        let error = icmp(flow.rip.0, flow.lip.0, kind, code, 0, own.packet());
        let seen = one(rig.packet(LAN, &error));
        assert_eq!(seen.port, WAN);
        let quoted_l4 = if families.client_v6 { 40 } else { 20 };
        let seq = &seen.payload[quoted_l4 + 4..quoted_l4 + 8];
        assert_eq!(seq, (CLIENT_ISN + 1).to_be_bytes());
        rig.finish();
    }
}

/// Whichever workers the packets come to, and whichever has the session.
#[test]
fn guests_and_their_hosts_agree_on_the_header() {
    for (families, more) in all() {
        let mut rig = Rig::new(&small_pool(&families.config(4, "tcp", more), 24));
        for cport in 1..=24 {
            let (flow, _) = open(&mut rig, families, cport, more);
            one(rig.client(&flow.inbound(ACK | PSH, 1, 1).payload(b"GET").packet()));
            flow.reply(&mut rig, ACK, 1, 4);
        }
        assert!(rig.engines.iter().map(|engine| engine.counters().handed).sum::<u64>() > 24);
        rig.finish();
    }
}

#[test]
fn frames_whose_checksum_is_left_to_the_device_stay_right() {
    for (families, more) in all() {
        let options = Options { partial_checksums: true, ..Options::default() };
        let mut rig = Rig::with(&families.config(1, "tcp", more), options);
        let partial = |mut packet: Vec<u8>| {
            make_partial(&mut packet);
            packet
        };
        let (client, vip) = ((families.client(), 5000), (families.vip(), 80));
        let syn = Segment::new(client, vip, SYN, CLIENT_ISN, 0).payload(b"odd");
        let flow = Conversation::of_syn(&one(rig.client(&partial(syn.packet()))), client, vip, CLIENT_ISN);
        one(rig.server(&partial(flow.outbound(SYN | ACK, 0, 1).packet())));
        two(rig.client(&partial(flow.inbound(ACK, 1, 1).packet())));
        let header = header_of(more, &flow);
        let flow = behind(flow, &header);
        let data = flow.outbound(ACK | PSH, 1, from_end(header.len() as u32)).payload(b"220");
        one(rig.server(&partial(data.packet())));
        one(rig.client(&partial(syn.packet())));
        rig.finish();
    }
}
