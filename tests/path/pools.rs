//! Group H: local addresses and ports.

use std::collections::{HashMap, HashSet};

use fullnat::session::State;
use fullnat::wire::Protocol;

use crate::rig::conversation::{CLIENT_ISN, Conversation};
use crate::rig::frame::{ACK, FIN, RST, SYN, Segment, udp};
use crate::rig::{Families, LAN, Options, Rig, WAN, base, ip, one, service};

/// A pool of so many ports on one address of each family.
pub fn small_pool(config: &str, ports: u16) -> String {
    config
        .replace("\"10.2.0.100-10.2.0.101\"", "\"10.2.0.100\"")
        .replace("\"2001:db8:2::100-2001:db8:2::101\"", "\"2001:db8:2::100\"")
        .replace("port = \"lan\"\n", &format!("port = \"lan\"\nl4_ports = \"2000-{}\"\n", 1999 + ports))
}

#[test]
fn conformance_h1_h3_leases_are_unique_and_answers_come_home() {
    for families in Families::ALL {
        for workers in [1, 2, 4] {
            let mut rig = Rig::new(&families.config(workers, "tcp", ""));
            let mut leases = HashSet::new();
            for cport in 5000..5300 {
                let flow = Conversation::begin(&mut rig, families, cport);
                assert!(leases.insert(flow.lip), "{:?} twice", flow.lip);
                let home = rig.home(flow.client, flow.vip, Protocol::Tcp);
                assert_eq!(rig.home(flow.rip, flow.lip, Protocol::Tcp), home);
                // At its home the answer is handed to nobody.
                let handed = rig.engines[home].counters().handed;
                let answer = rig.framed(LAN, &flow.outbound(SYN | ACK, 0, 1).packet());
                one(rig.frame_to(home, LAN, &answer));
                assert_eq!(rig.engines[home].counters().handed, handed);
            }
            rig.finish();
        }
    }
}

#[test]
fn conformance_h2_every_port_of_a_pool_is_used_and_no_other() {
    for families in [Families::V4, Families::ALL[1]] {
        for workers in [1, 2, 4] {
            let mut rig = Rig::new(&small_pool(&families.config(workers, "udp", ""), 37));
            let mut ports = HashSet::new();
            for cport in 1..=37 {
                let seen = one(rig.client(&udp((families.client(), cport), (families.vip(), 80), b"x")));
                ports.insert(seen.ends().0.1);
            }
            assert_eq!(ports, (2000..2037).collect(), "{workers} workers");
            rig.finish();
        }
    }
}

#[test]
fn conformance_h4_exhaustion_is_told_at_once_and_ends_with_the_first_free_port() {
    for families in Families::ALL {
        for workers in [1, 2] {
            let mut rig = Rig::new(&small_pool(&families.config(workers, "tcp", ""), 20));
            let flows: Vec<_> = (1..=20).map(|cport| Conversation::open(&mut rig, families, cport)).collect();
            rig.mark();
            for cport in 21..=40 {
                let syn = Segment::new((families.client(), cport), (families.vip(), 80), SYN, 70, 0);
                assert_eq!(one(rig.client(&syn.packet())).tcp(), (RST | ACK, 0, 71));
            }
            rig.moved(&[
                ("received", 20),
                ("originated", 20),
                ("transmitted", 20),
                ("no_local_port", 20),
                ("drop.no_local_port", 20),
            ]);
            for flow in &flows {
                flow.send(&mut rig, ACK, 1, 1);
                flow.reply(&mut rig, ACK, 1, 1);
            }
            flows[7].reply(&mut rig, RST, 1, 0);
            let late = Conversation::open(&mut rig, families, 99);
            assert_eq!(late.lip, flows[7].lip, "the port that was given up");
            rig.finish();
        }
    }
    for families in Families::ALL {
        let mut rig = Rig::new(&small_pool(&families.config(2, "udp", ""), 1));
        one(rig.client(&udp((families.client(), 1), (families.vip(), 80), b"x")));
        let error = one(rig.client(&udp((families.client(), 2), (families.vip(), 80), b"x")));
        assert_eq!(error.icmp(), if families.client_v6 { (1, 1, 0) } else { (3, 13, 0) });
        rig.finish();
    }
}

/// A pool of one port, connection after connection: the real server, in TIME_WAIT or not, accepts each SYN.
#[test]
fn conformance_h8_a_port_that_is_used_again_is_acceptable() {
    let timestamps = |val: u32| [&[1, 1, 8, 10][..], &val.to_be_bytes(), &[0; 4]].concat();
    for families in Families::ALL {
        for (server_first, crossing) in [(true, false), (false, false), (false, true)] {
            for with_timestamps in [false, true] {
                let mut rig = Rig::new(&small_pool(&families.config(2, "tcp", ""), 1));
                let vip = (families.vip(), 80);
                // What the real server remembers of the last connection.
                let mut last: Option<(u32, Option<u32>)> = None;
                for round in 0..20u32 {
                    // Clients whose numbers and clocks have nothing to do with each other.
                    let (isn, clock) = (round.wrapping_mul(0x9e37_79b9), round.wrapping_mul(0x85eb_ca6b));
                    let list = if with_timestamps { timestamps(clock) } else { Vec::new() };
                    let client = (families.client(), 5000 + round as u16);
                    let syn = Segment::new(client, vip, SYN, isn, 0).options(&list);
                    let seen = one(rig.client(&syn.packet()));
                    let stamp = |seen: &crate::rig::seen::Seen| {
                        seen.options().get(4..8).map(|val| u32::from_be_bytes(val.try_into().unwrap()))
                    };
                    if let Some((expected, last_stamp)) = last {
                        let after = |a: u32, b: u32| (b.wrapping_sub(a) as i32) < 0;
                        let newer = last_stamp.zip(stamp(&seen)).map(|(old, new)| after(new, old));
                        let accepted =
                            newer.unwrap_or(false) || newer.is_none() && after(seen.seq(), expected);
                        assert!(
                            accepted,
                            "round {round}: {expected} {last_stamp:?} then {} {:?}",
                            seen.seq(),
                            stamp(&seen)
                        );
                    }
                    let flow = Conversation::of_syn(&seen, client, vip, isn);
                    flow.shake(&mut rig);
                    let close = |segment: Segment| {
                        if with_timestamps { segment.options(&timestamps(clock + 5)) } else { segment }
                    };
                    let mut by_client =
                        |flags, seq, ack| one(rig.client(&close(flow.inbound(flags, seq, ack)).packet()));
                    let seen = if server_first {
                        one(rig.server(&flow.outbound(FIN | ACK, 1, 1).packet()));
                        let seen = one(rig.client(&close(flow.inbound(FIN | ACK, 1, 2)).packet()));
                        one(rig.server(&flow.outbound(ACK, 2, 2).packet()));
                        seen
                    } else if crossing {
                        by_client(FIN | ACK, 1, 1);
                        one(rig.server(&flow.outbound(FIN | ACK, 1, 1).packet()));
                        one(rig.server(&flow.outbound(ACK, 2, 2).packet()));
                        one(rig.client(&close(flow.inbound(ACK, 2, 2)).packet()))
                    } else {
                        by_client(FIN | ACK, 1, 1);
                        one(rig.server(&flow.outbound(FIN | ACK, 1, 2).packet()));
                        one(rig.client(&close(flow.inbound(ACK, 2, 2)).packet()))
                    };
                    assert_eq!(flow.state(&rig), Some(State::TimeWait));
                    last = Some((flow.gateway_isn.wrapping_add(2), stamp(&seen)));
                    rig.pass_ticks(1);
                }
                let taken_over: u64 =
                    rig.engines.iter().map(|engine| engine.counters().leases_taken_over).sum();
                assert_eq!(taken_over, 19);
                rig.finish();
            }
        }
    }
}

#[test]
fn conformance_h10_equal_ports_of_different_clients_and_vips_do_not_meet() {
    for families in [Families::V4, Families::ALL[1]] {
        let (other_client, other_vip) = if families.client_v6 {
            (ip("2001:db8:1::2"), ip("2001:db8:1::101"))
        } else {
            (ip("10.1.0.2"), ip("10.1.0.101"))
        };
        let second = service("tcp", &other_vip.to_string(), &families.rip().to_string(), "")
            .replace("\"web\"", "\"two\"");
        let mut rig = Rig::new(&(families.config(2, "tcp", "") + &second));
        let ends = [
            (families.client(), families.vip()),
            (other_client, families.vip()),
            (families.client(), other_vip),
        ];
        let flows: Vec<_> = ends
            .iter()
            .map(|(client, vip)| {
                let flow = Conversation::begin_with(&mut rig, (*client, 5000), (*vip, 80), CLIENT_ISN, &[]);
                flow.shake(&mut rig);
                flow
            })
            .collect();
        for flow in &flows {
            flow.send(&mut rig, ACK, 1, 1);
            flow.reply(&mut rig, ACK, 1, 1);
        }
        assert_eq!(flows.iter().map(|flow| flow.lip).collect::<HashSet<_>>().len(), 3);
        rig.finish();
    }
}

#[test]
fn conformance_h13_a_real_server_may_be_a_client_and_even_its_own() {
    for families in [Families::V4, Families::ALL[1]] {
        let mut rig = Rig::new(&families.config(2, "tcp", "client_address = \"toa\""));
        rig.hairpin = true;
        let (client, vip) = ((families.rip(), 5000), (families.vip(), 80));
        let seen = one(rig.server(&Segment::new(client, vip, SYN, CLIENT_ISN, 0).packet()));
        assert_eq!((seen.port, seen.toa(254)), (LAN, Some(client)));
        let flow = Conversation::of_syn(&seen, client, vip, CLIENT_ISN);
        let answer = one(rig.server(&flow.outbound(SYN | ACK, 0, 1).packet()));
        assert_eq!((answer.port, answer.ends()), (LAN, (vip, client)));
        let ack = one(rig.server(&flow.inbound(ACK, 1, 1).packet()));
        assert_eq!(ack.ends(), (flow.lip, flow.rip));
        assert_eq!(flow.state(&rig), Some(State::Established));
        rig.finish();
    }
}

#[test]
fn conformance_h14_strangers_begin_nothing_from_the_inside() {
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(2, "tcp", ""));
        let flow = Conversation::open(&mut rig, families, 5000);
        rig.mark();
        let stranger = if families.server_v6 { ip("2001:db8:2::77") } else { ip("10.2.0.77") };
        for flags in [SYN, SYN | ACK, ACK, RST] {
            let out = rig.server(&Segment::new((stranger, 8080), flow.lip, flags, 1, 1).packet());
            rig.only_drop(&out, "no_session_outbound");
        }
        let out = rig.server(&udp(flow.rip, flow.lip, b"x"));
        rig.only_drop(&out, "no_session_outbound");
        // A real server is told, on another port of its own too, and still begins nothing.
        let rst = one(rig.server(&Segment::new((flow.rip.0, 9), flow.lip, SYN, 70, 0).packet()));
        assert_eq!(rst.tcp(), (RST | ACK, 0, 71));
        assert_eq!(rig.sessions(), 1);
        // From outside nobody reaches a local address.
        let out = rig
            .packet(WAN, &Segment::new((families.client(), 1), (families.vip(), 8080), SYN, 1, 0).packet());
        assert_eq!(one(out).flags(), RST | ACK);
        rig.finish();
    }
}

#[test]
fn conformance_h16_two_services_share_a_pool() {
    let config = base(2)
        + &service("tcp", "10.1.0.100", "10.2.0.11", "")
        + &service("tcp", "10.1.0.101", "10.2.0.12", "").replace("\"web\"", "\"two\"");
    let mut rig = Rig::new(&small_pool(&config, 4));
    let mut lports: HashMap<_, HashSet<_>> = HashMap::new();
    for cport in 1..=4 {
        for vip in ["10.1.0.100", "10.1.0.101"] {
            let flow = Conversation::begin_with(&mut rig, (ip("10.1.0.1"), cport), (ip(vip), 80), 1, &[]);
            lports.entry(flow.rip).or_default().insert(flow.lip);
        }
    }
    assert!(lports.len() == 2 && lports.values().all(|ports| ports.len() == 4), "{lports:?}");
    rig.finish();
}

/// The second next hop must not take the place of the first in a full table.
#[test]
fn a_neighbour_table_of_one_refuses_rather_than_mixes_up() {
    let options = Options { neighbours_max: 1, hosts_answer: false, ..Options::default() };
    let mut rig = Rig::with(&Families::V4.config(1, "udp", ""), options);
    let out = rig.client(&udp((Families::V4.client(), 1), (Families::V4.vip(), 80), b"x"));
    assert_eq!(one(out).icmp(), (3, 1, 0));
    assert_eq!((rig.sessions(), rig.held(), rig.leases()), (0, 0, 0));
    rig.moved(&[("received", 1), ("originated", 1), ("transmitted", 1), ("drop.neighbour_table_full", 1)]);
    rig.finish();
}

/// What is refused ends no session: a lease that a real server remembers stays with those who know its numbers.
#[test]
fn a_lease_is_not_taken_over_for_a_client_that_no_neighbour_entry_is_left_for() {
    let families = Families::V4;
    let config = base(1)
        + &service("tcp", "10.1.0.100", "10.2.0.11", "")
        + &service("udp", "10.1.0.100", "10.2.0.11", "").replace("\"web\"", "\"two\"");
    let options = Options { neighbours_max: 2, ..Options::default() };
    let mut rig = Rig::with(&small_pool(&config, 1), options);
    // It holds both entries.
    one(rig.client(&udp((families.client(), 1), families.vip_end(), b"x")));
    let flow = Conversation::open(&mut rig, families, 5000);
    flow.reply(&mut rig, FIN | ACK, 1, 1);
    flow.send(&mut rig, FIN | ACK, 1, 2);
    flow.reply(&mut rig, ACK, 2, 2);
    assert_eq!(flow.state(&rig), Some(State::TimeWait));
    rig.mark();

    let syn = Segment::new((ip("10.1.0.2"), 5000), families.vip_end(), SYN, 70, 0);
    assert_eq!(one(rig.client(&syn.packet())).tcp(), (RST | ACK, 0, 71));
    rig.moved(&[("received", 1), ("originated", 1), ("transmitted", 1), ("drop.neighbour_table_full", 1)]);
    assert_eq!(flow.state(&rig), Some(State::TimeWait));

    let next = Conversation::open(&mut rig, families, 5001);
    assert_eq!(next.lip, flow.lip);
    let beyond = next.gateway_isn.wrapping_sub(flow.gateway_isn.wrapping_add(2));
    assert!((1..1 << 31).contains(&beyond), "the real server in TIME_WAIT accepts only what lies beyond");
    rig.finish();
}
