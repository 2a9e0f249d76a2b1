//! Group I: what a segment must carry to be believed. Strangers guess; whoever is part of the connection knows.

use fullnat::session::{Flags, State};
use fullnat::wire::Protocol;

use crate::rig::conversation::Conversation;
use crate::rig::frame::{ACK, FIN, PSH, RST, SYN, Segment};
use crate::rig::{Families, Rig, one};
use crate::tcp::Numbers;

fn has(rig: &Rig, flow: &Conversation, flag: u16) -> bool {
    let (worker, index) = rig.find(flow.client, flow.vip, Protocol::Tcp).unwrap();
    rig.engines[worker].sessions().hot(index).flags.has(flag)
}

/// RFC 9293 §3.10.7.4. Who sends SYNs from addresses of others does not see the answer, and cannot acknowledge it.
#[test]
fn conformance_i23_only_an_acknowledgement_of_the_servers_syn_opens_the_session() {
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(2, "tcp", "client_address = \"toa\""));
        let flow = Conversation::begin(&mut rig, families, 5000);
        flow.reply(&mut rig, SYN | ACK, 0, 1);
        for ack in [0, 2, 1000, 1 << 30, 1 << 31, 3 << 30, u32::MAX] {
            for flags in [ACK, ACK | PSH, FIN | ACK] {
                flow.send(&mut rig, flags, 1, ack);
                assert_eq!(flow.state(&rig), Some(State::SynRecv), "flags {flags:#x}, ack {ack}");
                assert_eq!(rig.at_real_servers(), (0, 1));
            }
            // The real server refuses it by a RST with that number, which is the client's to judge.
            flow.reply(&mut rig, RST, ack, 0);
            assert_eq!(flow.state(&rig), Some(State::SynRecv));
        }
        // A RST with any other is a stranger's.
        rig.mark();
        let out = rig.server(&flow.outbound(RST, 5 << 28, 0).packet());
        rig.only_drop(&out, "rst_outside_window");
        // Nor does the real server open it alone: this may be its answer to a segment it does not accept.
        flow.reply(&mut rig, ACK, 1, 1);
        assert_eq!(flow.state(&rig), Some(State::SynRecv));
        flow.send(&mut rig, ACK, 1, 1);
        assert_eq!((flow.state(&rig), rig.at_real_servers()), (Some(State::Established), (1, 0)));
        rig.finish();
    }
}

/// RFC 7413: the real server may send before the client has acknowledged its SYN.
#[test]
fn conformance_i18_i23_an_acknowledgement_of_early_data_opens_the_session_too() {
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(2, "tcp", ""));
        let flow = Conversation::begin(&mut rig, families, 5000);
        flow.reply(&mut rig, SYN | ACK, 0, 1);
        one(rig.server(&flow.outbound(ACK | PSH, 1, 1).payload(b"hello").packet()));
        assert_eq!(flow.state(&rig), Some(State::SynRecv));
        flow.send(&mut rig, ACK, 1, 6);
        assert_eq!(flow.state(&rig), Some(State::Established));
        rig.finish();
    }
}

/// RFC 7413: the real server acknowledges what came with the SYN.
#[test]
fn conformance_i18_i23_an_answer_to_data_that_came_with_the_syn_opens_the_session_too() {
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(1, "tcp", ""));
        // With a neighbour in use the next one leaves by the short way.
        Conversation::begin(&mut rig, families, 4999);
        let (client, vip) = ((families.client(), 5000), families.vip_end());
        let syn = Segment::new(client, vip, SYN, 70, 0).payload(b"hello");
        let flow = Conversation::of_syn(&one(rig.client(&syn.packet())), client, vip, 70);
        flow.reply(&mut rig, SYN | ACK, 0, 6);
        flow.send(&mut rig, ACK, 6, 1);
        assert_eq!(flow.state(&rig), Some(State::Established));
        rig.finish();
    }
}

/// A lease's last user was open at the real server when it gave the port back; its SYN-ACK comes late.
#[test]
fn conformance_i13_a_syn_ack_for_another_connection_is_the_clients_to_judge() {
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(2, "tcp", ""));
        let flow = Conversation::begin(&mut rig, families, 5000);
        for ack in [0, 2, 0x5000_0000, 1 << 31] {
            let seen = flow.reply(&mut rig, SYN | ACK, 0x1000_0000, ack);
            assert!(!has(&rig, &flow, Flags::ANSWERED), "ack {ack}");
            // The client refuses it, and the refusal gets through.
            one(rig.client(&Segment::new(flow.client, flow.vip, RST, seen.ack(), 0).packet()));
            flow.send(&mut rig, ACK, 1, 0x1000_0001);
            assert_eq!(flow.state(&rig), Some(State::SynRecv));
        }
        flow.shake(&mut rig);
        // Nor once it is open.
        flow.reply(&mut rig, SYN | ACK, 0x1000_0000, 1);
        rig.server(&flow.outbound(RST, 0x1000_0001, 0).packet());
        assert_eq!(flow.state(&rig), Some(State::Established));
        flow.reply(&mut rig, RST, 1, 0);
        assert_eq!(flow.state(&rig), Some(State::Close), "the number of the right one");
        rig.finish();
    }
}

#[test]
fn conformance_i7_blind_fins_change_nothing() {
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(2, "tcp", ""));
        let flow = Conversation::open(&mut rig, families, 5000);
        one(rig.client(&flow.inbound(ACK, 1, 1).payload(b"abcd").packet()));
        one(rig.server(&flow.outbound(ACK, 1, 5).payload(b"wxyz").packet()));
        let mut numbers = Numbers(78);
        for _ in 0..1000 {
            let (seq, ack) = (numbers.next() | 1 << 25, numbers.next());
            flow.send(&mut rig, FIN | ACK, seq, ack);
            flow.reply(&mut rig, FIN | ACK, seq, ack);
        }
        // One number right is not enough, and no FIN lies before the end of what its side has sent.
        for (seq, ack) in
            [(5, 1 << 30), (5, 1 << 31), (5, 3 << 30), (1 << 30, 5), (3 << 30, 5), (2, 5), (0, 5)]
        {
            flow.send(&mut rig, FIN | ACK, seq, ack);
            flow.reply(&mut rig, FIN | ACK, seq, ack);
        }
        assert_eq!(flow.state(&rig), Some(State::Established));
        assert!(!has(&rig, &flow, Flags::FIN_INBOUND | Flags::FIN_OUTBOUND));
        rig.pass(200);
        assert_eq!(flow.state(&rig), Some(State::Established), "its time-out is still the long one");
        rig.finish();
    }
}

/// What real stacks send as a FIN: again, with data that was partly seen, ahead of data that was lost.
#[test]
fn conformance_i11_fins_of_all_kinds_count() {
    for families in Families::ALL {
        for by_client in [true, false] {
            for (seq, payload) in
                [(5, &b""[..]), (3, b"cdef"), (1, b"abcd"), (5, b"efgh"), (5000, b""), (1 << 20, b"x")]
            {
                let mut rig = Rig::new(&families.config(2, "tcp", ""));
                let flow = Conversation::open(&mut rig, families, 5000);
                let end = seq + payload.len() as u32 + 1;
                let (data, fin) = if by_client {
                    (flow.inbound(ACK, 1, 1), flow.inbound(FIN | ACK, seq, 1))
                } else {
                    (flow.outbound(ACK, 1, 1), flow.outbound(FIN | ACK, seq, 1))
                };
                let mut from =
                    |packet: Vec<u8>| one(if by_client { rig.client(&packet) } else { rig.server(&packet) });
                from(data.payload(b"abcd").packet());
                from(fin.clone().payload(payload).packet());
                from(fin.payload(payload).packet());
                let half = if by_client { State::CloseWait } else { State::FinWait };
                assert_eq!(flow.state(&rig), Some(half), "{seq} {payload:?}");
                // An acknowledgement of it from elsewhere does not count either.
                let (other, back) = if by_client { (1 << 30, end) } else { (end, 1 << 30) };
                flow.reply(&mut rig, ACK, other, end);
                flow.send(&mut rig, ACK, back, end);
                assert!(!has(&rig, &flow, Flags::FIN_INBOUND_ACKED | Flags::FIN_OUTBOUND_ACKED));
                if by_client {
                    flow.reply(&mut rig, FIN | ACK, 1, end);
                    flow.send(&mut rig, ACK, end, 2);
                } else {
                    flow.send(&mut rig, FIN | ACK, 1, end);
                    flow.reply(&mut rig, ACK, end, 2);
                }
                assert_eq!(flow.state(&rig), Some(State::TimeWait));
                assert!(has(&rig, &flow, Flags::FINISHED));
                rig.finish();
            }
        }
    }
}

/// The real server forgot the connection; of what it had sent the client has not got the last bytes. Its RST carries the
/// number that the client expects, which is not the one that the gateway saw last.
#[test]
fn conformance_i7_a_reset_that_only_the_receiver_can_judge_ends_the_session_in_silence() {
    for families in Families::ALL {
        for by_client in [true, false] {
            for lives_on in [false, true] {
                let mut rig = Rig::new(&families.config(2, "tcp", ""));
                let flow = Conversation::open(&mut rig, families, 5000);
                if by_client {
                    one(rig.client(&flow.inbound(ACK, 1, 1).payload(&[7; 1000]).packet()));
                    flow.reply(&mut rig, ACK, 1, 1);
                    flow.send(&mut rig, RST, 1, 0);
                } else {
                    one(rig.server(&flow.outbound(ACK, 1, 1).payload(&[7; 1000]).packet()));
                    flow.send(&mut rig, ACK, 1, 1);
                    flow.reply(&mut rig, RST, 1, 0);
                }
                assert_eq!(flow.state(&rig), Some(State::Established));
                if lives_on {
                    // It was not for the receiver, who challenges it (RFC 5961 §3.2), within the same tick.
                    flow.reply(&mut rig, ACK, 1, 1);
                }
                rig.pass(9);
                assert_eq!(rig.sessions(), 1);
                rig.pass(2);
                assert_eq!((rig.sessions(), rig.leases()), if lives_on { (1, 1) } else { (0, 0) });
                rig.finish();
            }
        }
    }
}

/// What a stranger hits more easily than one number in 65,536 changes nothing, even in silence.
#[test]
fn conformance_i7_a_reset_further_away_does_not_shorten_the_session() {
    let mut rig = Rig::new(&Families::V4.config(2, "tcp", ""));
    let flow = Conversation::open(&mut rig, Families::V4, 5000);
    for distance in [(1 << 16) + 1, 1 << 20, (1 << 26) - 1] {
        for seq in [1u32.wrapping_sub(distance), 1 + distance] {
            flow.send(&mut rig, RST, seq, 0);
            flow.reply(&mut rig, RST, seq, 0);
        }
    }
    flow.send(&mut rig, RST, 2, 0);
    rig.pass(60);
    assert_eq!(flow.state(&rig), Some(State::Established));
    rig.finish();
}

/// RFC 7323: a window may be far larger than 16 MiB; the FIN of the side that acknowledges so late counts.
#[test]
fn conformance_i21_acknowledgements_may_lag_by_a_large_window() {
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(2, "tcp", ""));
        let flow = Conversation::open(&mut rig, families, 5000);
        let mut sent = 1;
        while sent < 60 << 20 {
            sent += 4 << 20;
            flow.reply(&mut rig, ACK, sent, 1);
        }
        one(rig.client(&flow.inbound(ACK | PSH, 1, 1).payload(b"enough").packet()));
        flow.send(&mut rig, FIN | ACK, 7, 1);
        assert_eq!(flow.state(&rig), Some(State::CloseWait));
        flow.send(&mut rig, RST, 8, 0);
        assert_eq!(flow.state(&rig), Some(State::Close));
        rig.finish();
    }
}

/// Only the real server has closed and the client still sends: a SYN of old, or one from before, is not the next one.
#[test]
fn conformance_i9_i12_a_half_closed_session_ends_only_for_a_number_beyond() {
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(2, "tcp", ""));
        let flow = Conversation::open(&mut rig, families, 5000);
        flow.reply(&mut rig, FIN | ACK, 1, 1);
        one(rig.client(&flow.inbound(ACK, 1, 2).payload(&[7; 500]).packet()));
        for seq in [0, 1, 400, 501, 0u32.wrapping_sub(1000), 600 + (1 << 31)] {
            rig.mark();
            let seen = one(rig.client(&flow.inbound(SYN, seq, 0).packet()));
            assert_eq!((seen.ends(), seen.seq()), ((flow.lip, flow.rip), flow.gateway_isn.wrapping_add(seq)));
            rig.moved(&[("received", 1), ("transmitted", 1)]);
            assert_eq!(flow.state(&rig), Some(State::FinWait));
        }
        one(rig.client(&flow.inbound(ACK, 501, 2).payload(b"goes on").packet()));
        rig.mark();
        one(rig.client(&flow.inbound(SYN, 509, 0).packet()));
        rig.moved(&[("received", 1), ("transmitted", 1), ("sessions_created", 1), ("sessions_ended", 1)]);
        rig.finish();
    }
}
