//! Groups H and I: what becomes of both ends, and of the port, when a session ends before its connection does.

use fullnat::session::State;

use crate::pools::small_pool;
use crate::rig::conversation::Conversation;
use crate::rig::frame::{ACK, FIN, PSH, RST, SYN, Segment};
use crate::rig::{Families, LAN, Rig, one};

/// The real server still holds the connection: without a word it would challenge the next SYN from that port, which
/// costs the next client a second. The client is told when it speaks (I15).
#[test]
fn conformance_h8_an_idle_session_tells_the_real_server_and_its_port_is_good_at_once() {
    for families in Families::ALL {
        for (close, state, secs) in [
            (None, State::Established, 900),
            (Some(true), State::CloseWait, 60),
            (Some(false), State::FinWait, 120),
        ] {
            let mut rig = Rig::new(&small_pool(&families.config(1, "tcp", ""), 1));
            let flow = Conversation::open(&mut rig, families, 5000);
            one(rig.client(&flow.inbound(ACK | PSH, 1, 1).payload(b"abcd").packet()));
            one(rig.server(&flow.outbound(ACK | PSH, 1, 5).payload(b"xyz").packet()));
            let (mut client, mut server) = (5, 4);
            match close {
                Some(true) => {
                    flow.send(&mut rig, FIN | ACK, 5, 4);
                    client += 1;
                }
                Some(false) => {
                    flow.reply(&mut rig, FIN | ACK, 4, 5);
                    server += 1;
                }
                None => {}
            }
            assert_eq!(flow.state(&rig), Some(state));
            rig.pass(secs - 1);
            assert!(rig.take_sent().is_empty());
            rig.mark();
            rig.pass(3);
            let told = one(rig.take_sent());
            assert_eq!((told.ends(), rig.sessions()), ((flow.lip, flow.rip), 0), "{state:?}");
            rig.moved(&[("originated", 1), ("transmitted", 1), ("sessions_ended", 1)]);
            let (seq, ack) = (flow.gateway_isn.wrapping_add(client), flow.server_isn.wrapping_add(server));
            assert_eq!(told.tcp(), (RST | ACK, seq, ack));
            let next = Conversation::open(&mut rig, families, 5001);
            assert_eq!(next.lip, flow.lip);
            rig.finish();
        }
    }
}

#[test]
fn conformance_i15_other_sessions_end_without_a_word() {
    for families in Families::ALL {
        // Never answered; half open; ended by RST; closed by both.
        let scripts: [&[(bool, u8, u32, u32)]; 4] = [
            &[],
            &[(false, SYN | ACK, 0, 1)],
            &[(false, SYN | ACK, 0, 1), (true, ACK, 1, 1), (true, RST, 1, 0)],
            &[(false, SYN | ACK, 0, 1), (true, ACK, 1, 1), (true, FIN | ACK, 1, 1), (false, FIN | ACK, 1, 2)],
        ];
        for script in scripts {
            let mut rig = Rig::new(&small_pool(&families.config(1, "tcp", ""), 1));
            let flow = Conversation::begin(&mut rig, families, 5000);
            for (by_client, flags, seq, ack) in script {
                if *by_client {
                    flow.send(&mut rig, *flags, *seq, *ack);
                } else {
                    flow.reply(&mut rig, *flags, *seq, *ack);
                }
            }
            rig.mark();
            rig.pass(125);
            assert!(rig.take_sent().is_empty());
            rig.moved(&[("sessions_ended", 1)]);
            Conversation::open(&mut rig, families, 5001);
            rig.finish();
        }
    }
}

/// Without a buffer for the RST the port rests.
#[test]
fn conformance_h8_a_port_rests_if_the_real_server_could_not_be_told() {
    for families in Families::ALL {
        let mut rig = Rig::new(&small_pool(&families.config(1, "tcp", ""), 1));
        Conversation::open(&mut rig, families, 5000);
        rig.ios[0].buffers_max = Some(0);
        rig.pass(902);
        rig.ios[0].buffers_max = None;
        assert_eq!((rig.sessions(), rig.take_sent().len()), (0, 0));
        let syn = Segment::new((families.client(), 5001), (families.vip(), 80), SYN, 70, 0);
        assert_eq!(one(rig.client(&syn.packet())).flags(), RST | ACK, "no local port");
        rig.pass(62);
        Conversation::open(&mut rig, families, 5001);
        rig.finish();
    }
}

/// The client's side is told and its session is over, the real server's is not: nobody gets its port so soon.
#[test]
fn conformance_h8_the_port_of_a_session_that_the_gateway_resets_rests() {
    for families in Families::ALL {
        let more = "client_address = \"toa\"\n[service.toa]\nno_room = \"reset\"";
        let mut rig = Rig::new(&small_pool(&families.config(1, "tcp", more), 1));
        let flow = Conversation::open(&mut rig, families, 5000);
        one(rig.client(&flow.inbound(ACK, 1, 1).options(&[1; 40]).packet()));
        assert_eq!((rig.sessions(), rig.leases()), (0, 0));
        let syn = Segment::new(flow.client, flow.vip, SYN, 70, 0);
        assert_eq!(one(rig.client(&syn.packet())).flags(), RST | ACK);
        rig.pass(62);
        Conversation::open(&mut rig, families, 5001);
        rig.finish();
    }
}

/// The last user had timestamps and sent more than the clock of sequence numbers counted; the next user may have none, and
/// then only the sequence number counts for the real server in TIME_WAIT.
#[test]
fn conformance_h8_a_port_rests_unless_any_client_is_acceptable() {
    let timestamps = [1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0];
    for families in Families::ALL {
        for (megabytes, is_free) in [(0, true), (64, false)] {
            let mut rig = Rig::new(&small_pool(&families.config(1, "tcp", ""), 1));
            let (client, vip) = ((families.client(), 5000), (families.vip(), 80));
            let flow = Conversation::begin_with(&mut rig, client, vip, 4711, &timestamps);
            flow.shake(&mut rig);
            let end = 1 + (megabytes << 20);
            for sent in (1..=end).step_by(1 << 20) {
                one(rig.client(&flow.inbound(ACK, sent, 1).options(&timestamps).packet()));
                flow.reply(&mut rig, ACK, 1, sent);
            }
            rig.pass_ticks(10);
            flow.reply(&mut rig, FIN | ACK, 1, end);
            one(rig.client(&flow.inbound(FIN | ACK, end, 2).options(&timestamps).packet()));
            flow.reply(&mut rig, ACK, 2, end + 1);
            assert_eq!(flow.state(&rig), Some(State::TimeWait));
            // The client itself comes again: its session ends at once.
            let syn = Segment::new(client, vip, SYN, 99, 0);
            let seen = one(rig.client(&syn.packet()));
            assert_eq!(seen.port == LAN, is_free, "{megabytes} MiB");
            if is_free {
                let after = seen.seq().wrapping_sub(flow.gateway_isn.wrapping_add(end + 1));
                assert!((after as i32) > 0);
            }
            rig.finish();
        }
    }
}
