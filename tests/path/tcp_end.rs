//! Group I: time-outs, and the end of TCP sessions.

use fullnat::session::State;

use crate::rig::conversation::Conversation;
use crate::rig::frame::{ACK, FIN, PSH, RST, SYN, Segment};
use crate::rig::{Families, Rig, base, one, service};

/// How a session comes into a state: segments (by the client?, flags, seq, ack) behind the SYN.
type Way = &'static [(bool, u8, u32, u32)];

const OPEN: [(bool, u8, u32, u32); 2] = [(false, SYN | ACK, 0, 1), (true, ACK, 1, 1)];

/// Every state that packets can bring about here, the way there, its time-out in the configuration.
const STATES: [(State, bool, Way, &str, u32); 6] = [
    (State::SynRecv, false, &[], "tcp_syn_recv_secs", 60),
    (State::Established, true, &[], "tcp_established_secs", 900),
    (State::CloseWait, true, &[(true, FIN | ACK, 1, 1)], "tcp_close_wait_secs", 60),
    (State::FinWait, true, &[(false, FIN | ACK, 1, 1)], "tcp_fin_wait_secs", 120),
    (State::TimeWait, true, &[(true, FIN | ACK, 1, 1), (false, FIN | ACK, 1, 2)], "tcp_time_wait_secs", 120),
    (State::Close, true, &[(false, RST, 1, 0)], "tcp_close_secs", 10),
];

fn step(rig: &mut Rig, flow: &Conversation, (by_client, flags, seq, ack): (bool, u8, u32, u32)) {
    if by_client {
        flow.send(rig, flags, seq, ack);
    } else {
        flow.reply(rig, flags, seq, ack);
    }
}

fn in_state(rig: &mut Rig, families: Families, cport: u16, open: bool, way: Way) -> Conversation {
    let flow = Conversation::begin(rig, families, cport);
    let steps = OPEN.iter().filter(|_| open).chain(way);
    steps.for_each(|segment| step(rig, &flow, *segment));
    flow
}

#[test]
fn conformance_i2_time_outs_are_those_of_ipvs_and_configurable() {
    for families in Families::ALL {
        for (state, open, way, key, secs) in STATES {
            for (more, secs) in [(String::new(), secs), (format!("[service.timeouts]\n{key} = 7"), 7)] {
                let mut rig = Rig::new(&families.config(2, "tcp", &more));
                let early = in_state(&mut rig, families, 5000, open, way);
                assert_eq!(early.state(&rig), Some(state));
                rig.pass(secs - 1);
                assert_eq!(early.state(&rig), Some(state), "{secs} s less one");
                // In its state a packet still passes.
                if state == State::Established {
                    early.send(&mut rig, ACK, 1, 1);
                    rig.pass(secs - 1);
                    assert_eq!(early.state(&rig), Some(state), "refreshed");
                }
                rig.pass(3);
                assert_eq!(early.state(&rig), None, "{state:?}: {secs} s and two");
                assert_eq!((rig.sessions(), rig.leases()), (0, 0));
                rig.finish();
            }
        }
    }
}

#[test]
fn conformance_i3_the_global_time_outs_hold_for_services_without_their_own() {
    let families = Families::V4;
    let config = "[timeouts]\ntcp_established_secs = 7440\n".to_owned() + &families.config(1, "tcp", "");
    let mut rig = Rig::new(&config);
    let flow = Conversation::open(&mut rig, families, 5000);
    for _ in 0..743 {
        rig.pass_ticks(1000);
    }
    assert_eq!(flow.state(&rig), Some(State::Established));
    rig.finish();
}

/// The state machine of IPVS, as far as packets that pass the path's own checks reach it.
#[test]
fn conformance_i1_transitions_through_the_path() {
    use State::{Close, CloseWait, Established, FinWait, SynRecv, TimeWait};
    let transitions: [(State, bool, u8, State); 24] = [
        (SynRecv, true, ACK, SynRecv),  // IPVS: established
        (SynRecv, false, ACK, SynRecv), // IPVS: established
        (SynRecv, false, SYN | ACK, SynRecv),
        (SynRecv, true, FIN | ACK, SynRecv),  // IPVS: time_wait
        (SynRecv, false, FIN | ACK, SynRecv), // IPVS: time_wait
        (Established, true, ACK, Established),
        (Established, false, ACK, Established),
        (Established, true, FIN | ACK, CloseWait),
        (Established, false, FIN | ACK, FinWait),
        (Established, true, RST, Close),
        (Established, false, RST, Close),
        (Established, true, SYN, Established),
        (CloseWait, true, ACK, CloseWait),
        (CloseWait, false, ACK, CloseWait),
        (CloseWait, true, FIN | ACK, CloseWait),
        (CloseWait, false, FIN | ACK, TimeWait),
        (FinWait, true, ACK, FinWait),
        (FinWait, false, ACK, FinWait),
        (FinWait, false, FIN | ACK, FinWait),
        (FinWait, true, FIN | ACK, TimeWait),
        (TimeWait, true, ACK, TimeWait),
        (TimeWait, false, FIN | ACK, TimeWait),
        (Close, true, ACK, Close),
        (Close, false, ACK, Close),
    ];
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(2, "tcp", ""));
        for (at, (from, by_client, flags, to)) in transitions.into_iter().enumerate() {
            let (_, open, way, _, _) = STATES.into_iter().find(|row| row.0 == from).unwrap();
            let flow = in_state(&mut rig, families, 5000 + at as u16, open, way);
            assert_eq!(flow.state(&rig), Some(from));
            // Numbers behind everything that side has sent.
            let seq = 1 + u32::from(way.iter().any(|segment| segment.0 == by_client && segment.1 & FIN != 0));
            let seq = if flags & SYN != 0 { 0 } else { seq };
            step(&mut rig, &flow, (by_client, flags, seq, 1));
            assert_eq!(flow.state(&rig), Some(to), "{from:?}, by client {by_client}, flags {flags:#x}");
        }
        rig.finish();
    }
}

#[test]
fn conformance_i9_a_syn_opens_a_closing_session_anew() {
    for families in Families::ALL {
        for (state, open, way, _, _) in STATES {
            if !matches!(state, State::TimeWait | State::FinWait | State::Close) {
                continue;
            }
            let mut rig = Rig::new(&families.config(2, "tcp", ""));
            let old = in_state(&mut rig, families, 5000, open, way);
            assert_eq!(old.state(&rig), Some(state));
            rig.mark();
            let new = Conversation::begin_with(&mut rig, old.client, old.vip, 0x0bad_cafe, &[]);
            rig.moved(&[("received", 1), ("transmitted", 1), ("sessions_created", 1), ("sessions_ended", 1)]);
            new.shake(&mut rig);
            assert_eq!(rig.sessions(), 1);
            rig.finish();
        }
    }
}

#[test]
fn conformance_i9_ten_thousand_times_the_same_client_port() {
    let families = Families::V4;
    let mut rig = Rig::new(&families.config(2, "tcp", ""));
    for round in 0..10_000u32 {
        let client = (families.client(), 5000);
        let flow = Conversation::begin_with(
            &mut rig,
            client,
            (families.vip(), 80),
            round.wrapping_mul(0x9e37_79b9),
            &[],
        );
        flow.shake(&mut rig);
        flow.reply(&mut rig, FIN | ACK, 1, 1);
        flow.send(&mut rig, FIN | ACK, 1, 2);
        flow.reply(&mut rig, ACK, 2, 2);
        assert!(rig.sessions() == 1);
        rig.now.nanos += 1_000_000;
    }
    rig.finish();
}

#[test]
fn conformance_i10_a_syn_to_a_real_server_that_is_gone_goes_to_another() {
    for families in Families::ALL {
        let other = if families.server_v6 { "[2001:db8:2::12]:8080" } else { "10.2.0.12:8080" };
        let two = families.config(2, "tcp", "")
            + &format!("[[service.real_server]]\naddress = \"{other}\"\nweight = 0\n");
        let (weighted, drained) = (two.replace("weight = 0", "weight = 1"), two);
        let first = if families.server_v6 { "[2001:db8:2::11]:8080" } else { "10.2.0.11:8080" };
        let swapped = drained
            .replace("weight = 0", "")
            .replace(&format!("address = \"{first}\""), &format!("address = \"{first}\"\nweight = 0"));
        let removed = base(2)
            + &service(
                "tcp",
                &families.vip().to_string(),
                other.rsplit_once(':').unwrap().0.trim_matches(['[', ']']),
                "",
            );
        assert_ne!(weighted, swapped);
        // Half open at a real server that is drained or removed meanwhile: the SYN, sent again, goes elsewhere.
        for after in [&swapped, &removed] {
            let mut rig = Rig::new(&drained);
            let flow = Conversation::begin(&mut rig, families, 5000);
            assert_eq!(flow.rip.0, families.rip());
            rig.apply(after);
            let again = Conversation::begin(&mut rig, families, 5000);
            assert_ne!(again.rip.0, families.rip());
            again.shake(&mut rig);
            assert_eq!(rig.sessions(), 1);
            rig.finish();
        }
        // Open, and the real server removed: the client starts again.
        let mut rig = Rig::new(&drained);
        let flow = Conversation::open(&mut rig, families, 5000);
        rig.apply(&removed);
        flow.send(&mut rig, ACK | PSH, 1, 1);
        let again = Conversation::begin_with(&mut rig, flow.client, flow.vip, 99, &[]);
        assert_ne!(again.rip.0, families.rip());
        again.shake(&mut rig);
        rig.finish();
        // Drained and open: it goes on, and a stray SYN is the real server's to judge.
        let mut rig = Rig::new(&drained);
        let flow = Conversation::open(&mut rig, families, 5000);
        rig.apply(&swapped);
        let stray = one(rig.client(&flow.inbound(SYN, 500, 0).packet()));
        assert_eq!(stray.dst, families.rip());
        flow.send(&mut rig, ACK, 1, 1);
        rig.finish();
    }
}

#[test]
fn conformance_i11_every_way_to_close() {
    // (by the client?, flags, seq, ack) behind the handshake.
    let scripts: [(&str, Way); 6] = [
        (
            "client first",
            &[(true, FIN | ACK, 1, 1), (false, ACK, 1, 2), (false, FIN | ACK, 1, 2), (true, ACK, 2, 2)],
        ),
        (
            "server first",
            &[(false, FIN | ACK, 1, 1), (true, ACK, 1, 2), (true, FIN | ACK, 1, 2), (false, ACK, 2, 2)],
        ),
        ("FIN, FIN+ACK, ACK", &[(true, FIN | ACK, 1, 1), (false, FIN | ACK, 1, 2), (true, ACK, 2, 2)]),
        (
            "crossing",
            &[(true, FIN | ACK, 1, 1), (false, FIN | ACK, 1, 1), (true, ACK, 2, 2), (false, ACK, 2, 2)],
        ),
        (
            "last ACK lost",
            &[(false, FIN | ACK, 1, 1), (true, FIN | ACK, 1, 2), (true, FIN | ACK, 1, 2), (false, ACK, 2, 2)],
        ),
        (
            "late FINs",
            &[
                (true, FIN | ACK, 1, 1),
                (false, FIN | ACK, 1, 2),
                (true, ACK, 2, 2),
                (false, FIN | ACK, 1, 2),
                (true, ACK, 2, 2),
                (true, FIN | ACK, 1, 1),
            ],
        ),
    ];
    for families in Families::ALL {
        for (name, script) in scripts {
            let mut rig = Rig::new(&families.config(2, "tcp", "client_address = \"toa\""));
            let flow = Conversation::open(&mut rig, families, 5000);
            script.iter().for_each(|segment| step(&mut rig, &flow, *segment));
            assert_eq!(flow.state(&rig), Some(State::TimeWait), "{name}");
            assert_eq!(rig.at_real_servers(), (0, 1));
            rig.pass(119);
            // Late segments are still translated.
            flow.reply(&mut rig, FIN | ACK, 1, 2);
            rig.pass(122);
            assert_eq!(rig.sessions(), 0);
            rig.finish();
        }
    }
}

#[test]
fn conformance_i12_a_half_closed_connection_streams_on() {
    for families in Families::ALL {
        for by_client in [true, false] {
            let mut rig = Rig::new(&families.config(2, "tcp", ""));
            let flow = Conversation::open(&mut rig, families, 5000);
            step(&mut rig, &flow, (by_client, FIN | ACK, 1, 1));
            for round in 0..20 {
                rig.pass(30);
                step(&mut rig, &flow, (!by_client, ACK | PSH, 1 + round, 2));
                step(&mut rig, &flow, (by_client, ACK, 2, 1 + round));
            }
            assert!(matches!(flow.state(&rig), Some(State::CloseWait | State::FinWait)));
            rig.finish();
        }
    }
}

/// More bytes than sequence numbers: the exact RST is still known.
#[test]
fn conformance_i21_sequence_numbers_wrap() {
    let mut rig = Rig::new(&Families::V4.config(1, "tcp", ""));
    let flow = Conversation::open(&mut rig, Families::V4, 5000);
    let (mut seq, mut sent) = (1u32, 0u64);
    while sent < 9 << 30 {
        // Windows of 8 MB, of which only the last segment is looked at.
        seq = seq.wrapping_add(8 << 20);
        sent += 8 << 20;
        flow.send(&mut rig, ACK, seq, 1);
        flow.reply(&mut rig, ACK, 1, seq);
    }
    let stray = rig.client(&Segment { seq: 1, ..flow.inbound(RST, 0, 0) }.packet());
    assert_ne!(flow.state(&rig), Some(State::Close), "{stray:?}");
    flow.send(&mut rig, RST, seq, 0);
    assert_eq!(flow.state(&rig), Some(State::Close));
    rig.finish();
}
