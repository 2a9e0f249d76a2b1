//! Group I: TCP while it lives. Its end is in `tcp_end`.

use fullnat::session::State;
use fullnat::wire::Protocol;

use crate::rig::conversation::{CLIENT_ISN, Conversation, SERVER_ISN};
use crate::rig::frame::{ACK, FIN, PSH, RST, SYN, Segment, fix_l4};
use crate::rig::{Families, Rig, one};

/// A generator of numbers that are the same in every run.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u32 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }

    pub fn below(&mut self, end: u32) -> u32 {
        self.next() % end
    }
}

#[test]
fn conformance_i13_a_connection_from_syn_to_data() {
    for families in Families::ALL {
        for workers in [1, 2, 4] {
            let mut rig = Rig::new(&families.config(workers, "tcp", ""));
            for cport in 5000..5008 {
                let flow = Conversation::open(&mut rig, families, cport);
                rig.moved(&[("received", 3), ("transmitted", 3), ("sessions_created", 1)]);
                let request = one(rig.client(&flow.inbound(ACK | PSH, 1, 1).payload(b"GET").packet()));
                assert_eq!(request.payload, b"GET");
                let answer = one(rig.server(&flow.outbound(ACK | PSH, 1, 4).payload(b"200").packet()));
                assert_eq!(
                    (answer.payload.as_slice(), answer.ack()),
                    (&b"200"[..], CLIENT_ISN.wrapping_add(4))
                );
                rig.moved(&[("received", 2), ("transmitted", 2)]);
            }
            rig.finish();
        }
    }
}

#[test]
fn conformance_i4_without_a_session_only_a_syn_begins_one() {
    for families in [Families::V4, Families::ALL[1]] {
        let mut rig = Rig::new(&families.config(2, "tcp", ""));
        let (client, vip) = ((families.client(), 5000), (families.vip(), 80));
        for (flags, payload) in [(ACK, 0), (ACK | PSH, 5), (FIN | ACK, 0), (SYN | ACK, 0)] {
            let rst =
                one(rig
                    .client(&Segment::new(client, vip, flags, 70, 900).payload(&vec![1; payload]).packet()));
            assert_eq!(rst.tcp(), (RST, 900, 0), "the number the client expects");
            assert_eq!(rst.ends(), (vip, client));
            rig.moved(&[("received", 1), ("originated", 1), ("transmitted", 1), ("drop.no_session", 1)]);
        }
        let out = rig.client(&Segment::new(client, vip, RST, 70, 0).packet());
        rig.only_drop(&out, "no_session");
        rig.apply(&(families.config(2, "tcp", "") + "\n[refusal]\nanswer = false\n"));
        let out = rig.client(&Segment::new(client, vip, ACK, 70, 900).packet());
        rig.only_drop(&out, "no_session");
        assert_eq!(rig.sessions(), 0);
        rig.finish();
    }
}

#[test]
fn conformance_i5_impossible_flags_neither_begin_nor_change_a_session() {
    let mut rig = Rig::new(&Families::V4.config(2, "tcp", ""));
    let flow = Conversation::open(&mut rig, Families::V4, 5000);
    rig.mark();
    for flags in [0, SYN | FIN, SYN | RST, FIN, FIN | PSH | 0x20, 0x3f, SYN | FIN | ACK, FIN | RST, PSH, 0x20]
    {
        for cport in [5000, 5001] {
            let mut segment = flow.inbound(flags, 1, 1);
            segment.src.1 = cport;
            let out = rig.client(&segment.packet());
            rig.only_drop(&out, "tcp_flags");
            assert_eq!((rig.sessions(), flow.state(&rig)), (1, Some(State::Established)), "{flags:#x}");
        }
        let out = rig.server(&flow.outbound(flags, 1, 1).packet());
        rig.only_drop(&out, "tcp_flags");
    }
    // A SYN-ACK of the client's changes nothing either.
    one(rig.client(&flow.inbound(SYN | ACK, 1, 1).packet()));
    assert_eq!(flow.state(&rig), Some(State::Established));
    rig.finish();
}

#[test]
fn conformance_i6_headers_and_options_of_wrong_length() {
    for families in [Families::V4, Families::ALL[1]] {
        let mut rig = Rig::new(&families.config(1, "tcp", "client_address = \"toa\""));
        let l4 = if families.client_v6 { 40 } else { 20 };
        let syn = Segment::new((families.client(), 5000), (families.vip(), 80), SYN, 1, 0).packet();
        for offset in [0, 4, 15] {
            let mut packet = syn.clone();
            packet[l4 + 12] = offset << 4;
            fix_l4(&mut packet);
            let out = rig.client(&packet);
            rig.only_drop(&out, "tcp_header");
        }
        // The walk ends at what is wrong; nothing behind it is read or changed.
        let flow = Conversation::open(&mut rig, families, 5001);
        for options in
            [[2, 0, 254, 8], [2, 1, 254, 8], [2, 200, 254, 8], [254, 1, 5, 5], [254, 0, 8, 10], [8, 10, 1, 1]]
        {
            let seen = one(rig.client(&flow.inbound(ACK, 1, 1).options(&options).packet()));
            assert!(seen.options().ends_with(&options), "{options:?}: {:02x?}", seen.options());
        }
        rig.finish();
    }
}

#[test]
fn conformance_i7_blind_resets_change_nothing() {
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(2, "tcp", ""));
        let flow = Conversation::open(&mut rig, families, 5000);
        let mut numbers = Numbers(77);
        for round in 0..2000 {
            let seq = numbers.next();
            rig.client(&flow.inbound(RST, seq | 1 << 25, 0).packet());
            rig.server(&flow.outbound(RST | ACK, seq | 1 << 25, numbers.next()).packet());
            if round % 100 == 0 {
                assert_eq!(flow.state(&rig), Some(State::Established));
                flow.send(&mut rig, ACK, 1, 1);
                flow.reply(&mut rig, ACK, 1, 1);
            }
        }
        assert!(rig.dropped(fullnat::path::drop_reason::DropReason::RstOutsideWindow) > 3000);
        rig.finish();
    }
}

/// Forged data first, so that a forged RST behind it would be the exact one.
#[test]
fn conformance_i7_forged_data_does_not_prepare_a_reset() {
    let mut rig = Rig::new(&Families::V4.config(2, "tcp", ""));
    let flow = Conversation::open(&mut rig, Families::V4, 5000);
    for step in 1..128u32 {
        let seq = step << 25;
        for ack in [1, 1 << 30, 3 << 30] {
            rig.client(&flow.inbound(ACK, seq, ack).payload(b"x").packet());
            rig.client(&flow.inbound(RST, seq.wrapping_add(1), 0).packet());
            rig.server(&flow.outbound(ACK, seq, ack).payload(b"x").packet());
            rig.server(&flow.outbound(RST, seq.wrapping_add(1), 0).packet());
        }
        // A number nearby is not enough if the other one is wrong.
        rig.client(&flow.inbound(ACK, 1000, 1 << 30).payload(b"x").packet());
        rig.client(&flow.inbound(RST, 1001, 0).packet());
        assert_eq!(flow.state(&rig), Some(State::Established), "step {step}");
    }
    rig.finish();
}

#[test]
fn conformance_i7_the_exact_reset_ends_the_session() {
    for families in Families::ALL {
        for by_client in [true, false] {
            let mut rig = Rig::new(&families.config(2, "tcp", ""));
            let flow = Conversation::open(&mut rig, families, 5000);
            rig.client(&flow.inbound(ACK, 1, 1).payload(b"abcd").packet());
            rig.server(&flow.outbound(ACK, 1, 5).payload(b"xyz").packet());
            // In the window but not exact: passed on for the receiver to challenge (RFC 5961 §3.2).
            if by_client {
                flow.send(&mut rig, RST, 4, 0);
            } else {
                flow.reply(&mut rig, RST, 3, 0);
            }
            assert_eq!(flow.state(&rig), Some(State::Established));
            if by_client {
                flow.send(&mut rig, RST, 5, 0);
            } else {
                flow.reply(&mut rig, RST, 4, 0);
            }
            assert_eq!(flow.state(&rig), Some(State::Close));
            rig.pass(12);
            assert_eq!((rig.sessions(), rig.leases()), (0, 0));
            rig.finish();
        }
    }
}

#[test]
fn conformance_i8_a_syn_into_a_living_session_is_the_real_servers_to_challenge() {
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(2, "tcp", ""));
        let flow = Conversation::open(&mut rig, families, 5000);
        rig.mark();
        // The client forgot and starts again with another number.
        let syn = flow.inbound(SYN, 1_000_000, 0);
        let seen = one(rig.client(&syn.packet()));
        assert_eq!((seen.ends().0, seen.seq()), (flow.lip, flow.gateway_isn.wrapping_add(1_000_000)));
        // Challenge ACK; the client answers it by the RST that RFC 9293 §3.10.7.3 asks for.
        flow.reply(&mut rig, ACK, 1, 1);
        assert_eq!(flow.state(&rig), Some(State::Established));
        flow.send(&mut rig, RST, 1, 0);
        assert_eq!(flow.state(&rig), Some(State::Close));
        rig.moved(&[("received", 3), ("transmitted", 3)]);
        // Its next SYN opens a new connection.
        let again = Conversation::of_syn(
            &one(rig.client(&syn.packet())),
            flow.client,
            flow.vip,
            flow.client_isn.wrapping_add(1_000_000),
        );
        again.shake(&mut rig);
        rig.finish();
    }
}

/// A real server that remembers a connection of ours from before a restart: it challenges the SYN, the client's RST clears
/// its memory, the SYN sent again gets through.
#[test]
fn conformance_i8_a_challenged_syn_is_sorted_out_by_the_client() {
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(2, "tcp", ""));
        let flow = Conversation::begin(&mut rig, families, 5000);
        let challenge = flow.reply(&mut rig, ACK, 0x1234_5678, 0x5000_0000);
        assert_eq!(flow.state(&rig), Some(State::SynRecv), "a challenge establishes nothing");
        let rst = Segment::new(flow.client, flow.vip, RST, challenge.ack(), 0);
        let seen = one(rig.client(&rst.packet()));
        assert_eq!(seen.seq(), flow.gateway_isn.wrapping_add(0x5000_0000), "as the real server expects");
        assert_eq!(flow.state(&rig), Some(State::SynRecv));
        let again = one(rig.client(&flow.inbound(SYN, 0, 0).packet()));
        assert_eq!((again.seq(), again.ends().0), (flow.gateway_isn, flow.lip));
        flow.shake(&mut rig);
        rig.finish();
    }
}

#[test]
fn conformance_h12_i13_handshakes_with_losses() {
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(2, "tcp", "client_address = \"toa\""));
        let flow = Conversation::begin(&mut rig, families, 5000);
        // H12: the SYN again and again uses one port.
        for _ in 0..4 {
            let seen = one(rig.client(&flow.inbound(SYN, 0, 0).packet()));
            assert_eq!((seen.ends(), seen.seq()), ((flow.lip, flow.rip), flow.gateway_isn));
        }
        assert_eq!((rig.sessions(), rig.leases()), (1, 1));
        // The SYN-ACK again.
        for _ in 0..3 {
            flow.reply(&mut rig, SYN | ACK, 0, 1);
            assert_eq!(flow.state(&rig), Some(State::SynRecv));
        }
        // The third ACK is lost behind us, the SYN-ACK comes once more, data instead of the ACK.
        flow.send(&mut rig, ACK, 1, 1);
        assert_eq!(flow.state(&rig), Some(State::Established));
        flow.reply(&mut rig, SYN | ACK, 0, 1);
        let data = one(rig.client(&flow.inbound(ACK | PSH, 1, 1).payload(b"data").packet()));
        assert_eq!(data.toa(254), Some(flow.client));
        assert_eq!(flow.state(&rig), Some(State::Established));
        rig.finish();
    }
}

/// A SYN-ACK that is sent again behind the client's FIN must not turn the session back.
#[test]
fn conformance_i13_a_late_syn_ack_changes_nothing() {
    let mut rig = Rig::new(&Families::V4.config(2, "tcp", ""));
    let flow = Conversation::open(&mut rig, Families::V4, 5000);
    flow.send(&mut rig, FIN | ACK, 1, 1);
    assert_eq!(flow.state(&rig), Some(State::CloseWait));
    flow.reply(&mut rig, SYN | ACK, 0, 1);
    assert_eq!(flow.state(&rig), Some(State::CloseWait));
    rig.finish();
}

/// A real server may forget an unfinished handshake and answer the SYN, sent again, with another number.
#[test]
fn conformance_i13_the_real_server_may_change_its_number_until_the_handshake_is_over() {
    let more = "client_address = \"toa\"";
    let mut rig = Rig::new(&Families::V4.config(2, "tcp", more));
    let mut flow = Conversation::begin(&mut rig, Families::V4, 5000);
    flow.reply(&mut rig, SYN | ACK, 0, 1);
    flow.send(&mut rig, SYN, 0, 0);
    flow.server_isn = SERVER_ISN.wrapping_add(0x6000_0000);
    flow.reply(&mut rig, SYN | ACK, 0, 1);
    assert_eq!(flow.send(&mut rig, ACK, 1, 1).toa(254), Some(flow.client));
    flow.reply(&mut rig, RST, 1, 0);
    assert_eq!(flow.state(&rig), Some(State::Close));
    rig.finish();
}

#[test]
fn conformance_i23_an_ack_does_not_open_what_the_real_server_has_not_answered() {
    let mut rig = Rig::new(&Families::V4.config(2, "tcp", ""));
    let flow = Conversation::begin(&mut rig, Families::V4, 5000);
    flow.send(&mut rig, ACK, 1, 1);
    assert_eq!(flow.state(&rig), Some(State::SynRecv));
    rig.finish();
}

#[test]
fn conformance_i16_a_refused_syn_is_told_at_once() {
    for families in Families::ALL {
        // With and without data on the SYN (I18); the RST acknowledges both.
        for data in [&b""[..], b"early"] {
            let mut rig = Rig::new(&families.config(2, "tcp", ""));
            let (client, vip) = ((families.client(), 5000), (families.vip(), 80));
            let syn = Segment::new(client, vip, SYN, CLIENT_ISN, 0).payload(data);
            let flow = Conversation::of_syn(&one(rig.client(&syn.packet())), client, vip, CLIENT_ISN);
            // Not for this SYN.
            for ack in [0, 2 + data.len() as u32, 1 << 31] {
                let mut stray = flow.outbound(RST | ACK, 0, ack);
                stray.seq = 0;
                rig.mark();
                let out = rig.server(&stray.packet());
                rig.only_drop(&out, "rst_outside_window");
            }
            let mut refusal = flow.outbound(RST | ACK, 0, 1 + data.len() as u32);
            refusal.seq = 0;
            let seen = one(rig.server(&refusal.packet()));
            assert_eq!(seen.tcp(), (RST | ACK, 0, CLIENT_ISN.wrapping_add(1 + data.len() as u32)));
            assert_eq!(flow.state(&rig), Some(State::Close));
            rig.pass(12);
            assert_eq!(rig.leases(), 0);
            rig.finish();
        }
    }
}

#[test]
fn conformance_i14_keepalives_and_window_probes_refresh() {
    let mut rig = Rig::new(&Families::V4.config(2, "tcp", "[service.timeouts]\ntcp_established_secs = 20"));
    let flow = Conversation::open(&mut rig, Families::V4, 5000);
    for round in 0..6 {
        rig.pass(18);
        if round % 2 == 0 {
            flow.send(&mut rig, ACK, 0, 1);
        } else {
            flow.reply(&mut rig, ACK, 0, 1);
        }
        assert_eq!(flow.state(&rig), Some(State::Established));
    }
    rig.finish();
}

#[test]
fn conformance_i15_behind_the_time_out_both_sides_are_told() {
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(2, "tcp", ""));
        let flow = Conversation::open(&mut rig, families, 5000);
        rig.pass(903);
        assert_eq!(rig.sessions(), 0);
        assert_eq!(one(rig.take_sent()).flags(), RST | ACK, "to the real server, and may be lost");
        rig.mark();
        let rst = one(rig.client(&flow.inbound(ACK, 1, 1).packet()));
        assert_eq!((rst.tcp(), rst.ends()), ((RST, SERVER_ISN.wrapping_add(1), 0), (flow.vip, flow.client)));
        rig.moved(&[("received", 1), ("originated", 1), ("transmitted", 1), ("drop.no_session", 1)]);
        let rst = one(rig.server(&flow.outbound(ACK, 1, 1).packet()));
        assert_eq!((rst.flags(), rst.ends()), (RST, (flow.lip, flow.rip)));
        rig.moved(&[("received", 1), ("originated", 1), ("transmitted", 1), ("drop.no_session_outbound", 1)]);
        rig.finish();
    }
}

#[test]
fn conformance_i17_options_pass_untouched() {
    let syn = [2, 4, 5, 0x64, 4, 2, 3, 3, 7, 34, 2, 19, 4, 9, 9, 200, 3, 1, 172, 5, 1, 2, 3, 1, 1, 1, 1, 1];
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(2, "tcp", ""));
        let (client, vip) = ((families.client(), 5000), (families.vip(), 80));
        let sent =
            Segment { window: 0xabcd, ..Segment::new(client, vip, SYN | 0xc0, CLIENT_ISN, 0) }.options(&syn);
        let seen = one(rig.client(&sent.packet()));
        assert_eq!((seen.options(), seen.flags()), (&syn[..], SYN | 0xc0));
        let flow = Conversation::of_syn(&seen, client, vip, CLIENT_ISN);
        let mut syn_ack = flow.outbound(SYN | ACK | 0x40, 0, 1).options(&[34, 6, 1, 2, 3, 4, 1, 1]);
        syn_ack.window = 1;
        let seen = one(rig.server(&syn_ack.packet()));
        assert_eq!((seen.options(), seen.flags()), (&[34, 6, 1, 2, 3, 4, 1, 1][..], SYN | ACK | 0x40));
        for (flags, options) in [
            (ACK | 0xc0, &[30, 4, 0x20, 0, 172, 8, 1, 2, 3, 4, 5, 6][..]),
            (ACK | 0x20, &[]),
            (ACK, &[1; 40]),
        ] {
            let seen = one(rig.client(&flow.inbound(flags, 1, 1).options(options).packet()));
            assert_eq!((seen.options(), seen.flags()), (options, flags));
        }
        rig.finish();
    }
}

#[test]
fn conformance_i19_mp_capable_is_taken_from_the_syn() {
    let mut rig = Rig::new(&Families::V4.config(1, "tcp", ""));
    let (client, vip) = ((Families::V4.client(), 5000), (Families::V4.vip(), 80));
    let syn = Segment::new(client, vip, SYN, 1, 0).options(&[30, 4, 1, 0x81, 2, 4, 5, 0x64]);
    let seen = one(rig.client(&syn.packet()));
    assert_eq!(seen.options()[..4], [1, 1, 1, 1]);
    rig.finish();
}

#[test]
fn conformance_i20_numbers_sack_and_timestamps_are_translated_both_ways() {
    let word = |n: u32| n.to_be_bytes();
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(2, "tcp", ""));
        let (client, vip) = ((families.client(), 5000), (families.vip(), 80));
        let timestamps = |val: u32, ecr: u32| [&[1, 1, 8, 10][..], &word(val), &word(ecr)].concat();
        let flow = {
            let syn = Segment::new(client, vip, SYN, CLIENT_ISN, 0).options(&timestamps(1000, 0));
            Conversation::of_syn(&one(rig.client(&syn.packet())), client, vip, CLIENT_ISN)
        };
        let again = one(rig.client(&flow.inbound(SYN, 0, 0).options(&timestamps(1000, 0)).packet()));
        let base = u32::from_be_bytes(again.options()[4..8].try_into().unwrap());
        assert_ne!(base, 1000, "the client's clock is not shown");
        let seen = one(rig.server(&flow.outbound(SYN | ACK, 0, 1).options(&timestamps(777, base)).packet()));
        assert_eq!(seen.options(), timestamps(777, 1000));
        let seen = one(rig.client(&flow.inbound(ACK, 1, 1).options(&timestamps(1010, 777)).packet()));
        assert_eq!(seen.options(), timestamps(base.wrapping_add(10), 777));
        // SACK of the real server, D-SACK below the acknowledgement included.
        for blocks in 1..=3u32 {
            let edges: Vec<u32> = (0..2 * blocks).map(|n| n * 500).collect();
            let sack = |isn: u32| {
                let mut option = [&timestamps(800, base)[..], &[1, 1, 5, 2 + 8 * blocks as u8]].concat();
                option.extend(edges.iter().flat_map(|edge| word(isn.wrapping_add(*edge))));
                option
            };
            let seen = one(rig.server(&flow.outbound(ACK, 1, 1).options(&sack(flow.gateway_isn)).packet()));
            assert_eq!(seen.options()[12..], sack(flow.client_isn)[12..]);
            // The client's SACK is in the real server's numbers already.
            let seen = one(rig.client(&flow.inbound(ACK, 1, 1).options(&sack(SERVER_ISN)).packet()));
            assert_eq!(seen.options()[12..], sack(SERVER_ISN)[12..]);
        }
        rig.finish();
    }
}

#[test]
fn a_burst_that_begins_a_session_goes_on_with_it() {
    for workers in [1, 2, 4] {
        let mut rig = Rig::new(&Families::V4.config(workers, "tcp", ""));
        let (client, vip) = ((Families::V4.client(), 5000), (Families::V4.vip(), 80));
        let syn = rig.framed(crate::rig::WAN, &Segment::new(client, vip, SYN, 1, 0).packet());
        let out = rig.burst(0, crate::rig::WAN, &vec![syn; 32]);
        assert_eq!(out.len(), 32);
        assert!(out.iter().all(|seen| seen.ends() == out[0].ends()));
        assert_eq!(rig.sessions(), 1);
        let (worker, _) = rig.find(client, vip, Protocol::Tcp).unwrap();
        assert_eq!(worker, rig.home(client, vip, Protocol::Tcp));
        rig.finish();
    }
}
