//! Group M, as far as the path is concerned: configurations that change under traffic.

use std::collections::HashSet;

use fullnat::session::State;

use crate::pools::small_pool;
use crate::rig::conversation::Conversation;
use crate::rig::frame::{ACK, FIN, PSH, RST, SYN, Segment, udp};
use crate::rig::{Families, Options, Rig, base, ip, one, service};

/// Real server 12 beside the service's own, with this weight.
fn with_second(families: Families, weight: u16, more: &str) -> String {
    let other = if families.server_v6 { "[2001:db8:2::12]:8080" } else { "10.2.0.12:8080" };
    families.config(2, "tcp", more)
        + &format!("[[service.real_server]]\naddress = \"{other}\"\nweight = {weight}\n")
}

fn still_works(rig: &mut Rig, flow: &Conversation) {
    assert_eq!(flow.send(rig, ACK | PSH, 1, 1).dst, flow.rip.0);
    flow.reply(rig, ACK | PSH, 1, 1);
}

#[test]
fn conformance_m1_a_new_real_server_moves_no_session() {
    for families in Families::ALL {
        for scheduler in ["rr", "wrr", "lc", "wlc", "sh", "mh"] {
            let choose = |config: String| config.replace("\"rr\"", &format!("\"{scheduler}\""));
            let mut rig = Rig::new(&choose(families.config(2, "tcp", "")));
            let flows: Vec<_> = (1..=50).map(|cport| Conversation::open(&mut rig, families, cport)).collect();
            rig.apply(&choose(with_second(families, 1, "")));
            flows.iter().for_each(|flow| still_works(&mut rig, flow));
            let fresh: HashSet<_> =
                (100..150).map(|cport| Conversation::open(&mut rig, families, cport).rip).collect();
            assert_eq!(
                fresh.len(),
                if matches!(scheduler, "sh" | "mh") { fresh.len() } else { 2 },
                "{scheduler}"
            );
            rig.finish();
        }
    }
}

/// A gateway that starts with one real server and one local address has room for more of both, and for services.
#[test]
fn conformance_m1_what_is_added_later_serves_while_what_was_there_is_busy() {
    for families in Families::ALL {
        for workers in [1, 2] {
            let first = small_pool(&families.config(workers, "tcp", ""), 200);
            let mut rig = Rig::new(&first);
            let flows: Vec<_> = (1..=50).map(|cport| Conversation::open(&mut rig, families, cport)).collect();
            // A second real server: the scheduler gives it every other client, from the same local address.
            let server = if families.server_v6 { "[2001:db8:2::12]:8080" } else { "10.2.0.12:8080" };
            let second = format!("{first}[[service.real_server]]\naddress = \"{server}\"\n");
            rig.apply(&second);
            let rips: HashSet<_> =
                (100..150).map(|cport| Conversation::open(&mut rig, families, cport).rip).collect();
            assert_eq!(rips.len(), 2);
            // A second local address: it is used once the first has no port left.
            let third = second
                .replace("\"10.2.0.100\"", "\"10.2.0.100-10.2.0.101\"")
                .replace("\"2001:db8:2::100\"", "\"2001:db8:2::100-2001:db8:2::101\"");
            rig.apply(&third);
            let lips: HashSet<_> =
                (1000..1400).map(|cport| Conversation::open(&mut rig, families, cport).lip.0).collect();
            assert_eq!(lips.len(), 2);
            // A second service with a real server of its own.
            let other = if families.client_v6 { "2001:db8:1::101" } else { "10.1.0.101" };
            let more = service("tcp", other, &families.rip().to_string(), "")
                .replace("\"web\"", "\"two\"")
                .replace(":8080", ":8081");
            rig.apply(&(third + &more));
            let client = (families.client(), 5);
            let flow = Conversation::begin_with(&mut rig, client, (ip(other), 80), 1, &[]);
            assert_eq!(flow.rip.1, 8081);
            flows.iter().for_each(|flow| still_works(&mut rig, flow));
            rig.finish();
        }
    }
}

/// A number that was another real server's begins to count anew, and is told of clients as its service says.
#[test]
fn a_new_real_server_inherits_no_counts() {
    for families in Families::ALL {
        let config = families.config(2, "tcp", "");
        let mut rig = Rig::new(&config);
        let flow = Conversation::open(&mut rig, families, 1);
        let server = rig.snapshot().real_servers.iter().flatten().next().unwrap().id.index();
        rig.apply(&base(2));
        flow.reply(&mut rig, RST, 1, 0);
        rig.pass_ticks(30 * fullnat::clock::Tick::PER_SECOND);
        assert_eq!(rig.sessions(), 0);
        rig.retire();
        rig.apply(&families.config(2, "tcp", "client_address = \"toa\"").replace(":8080", ":8081"));
        let taken = rig.snapshot().real_servers[server].as_ref().unwrap();
        assert_eq!(taken.port, Some(8081), "the number was given away again");
        for engine in &rig.engines {
            let counters = &engine.real_servers()[server];
            assert_eq!((counters.sessions, counters.traffic[0].packets, counters.removed), (0, 0, false));
        }
        let syn = Segment::new((families.client(), 2), families.vip_end(), SYN, 1, 0);
        let seen = one(rig.client(&syn.packet()));
        assert_eq!(seen.toa(254), Some((families.client(), 2)));
        rig.finish();
    }
}

#[test]
fn the_rate_of_refusals_changes_with_the_configuration() {
    let families = Families::V4;
    let limited = |per_second: u32| {
        format!("{}\n[refusal]\nper_second = {per_second}\n", families.config(1, "udp", ""))
    };
    let mut rig = Rig::new(&limited(20));
    let packet = udp((families.client(), 5000), (families.vip(), 81), b"?");
    let answered = |rig: &mut Rig| (0..100).map(|_| rig.client(&packet).len()).sum::<usize>();
    assert_eq!(answered(&mut rig), 2, "a tenth of a second's worth at once");
    rig.apply(&limited(500));
    rig.pass_ticks(100);
    assert_eq!(answered(&mut rig), 50);
    rig.finish();
}

/// When every book is in use, a finished session toward the same real server gives way rather than the client.
#[test]
fn a_finished_session_gives_way_when_books_are_full() {
    let families = Families::V4;
    let config =
        small_pool(&families.config(1, "tcp", ""), 1).replace("\"10.2.0.100\"", "\"10.2.0.100-10.2.0.101\"");
    let mut rig = Rig::with(&config, Options { books_max: Some(1), ..Options::default() });
    let flow = Conversation::open(&mut rig, families, 1);
    let syn = Segment::new((families.client(), 2), (families.vip(), 80), SYN, 70, 0);
    assert_eq!(one(rig.client(&syn.packet())).flags(), RST | ACK, "the other address has no book");
    flow.send(&mut rig, FIN | ACK, 1, 1);
    flow.reply(&mut rig, FIN | ACK, 1, 2);
    flow.send(&mut rig, ACK, 2, 2);
    assert_eq!(flow.state(&rig), Some(State::TimeWait));
    let next = Conversation::open(&mut rig, families, 3);
    assert_eq!(next.lip, flow.lip);
    rig.finish();
}

#[test]
fn conformance_m2_a_drained_real_server_keeps_its_sessions_and_gets_none() {
    for families in Families::ALL {
        let mut rig = Rig::new(&with_second(families, 1, ""));
        let flows: Vec<_> = (1..=50).map(|cport| Conversation::open(&mut rig, families, cport)).collect();
        rig.apply(&with_second(families, 0, ""));
        rig.mark();
        for cport in 100..150 {
            assert_eq!(Conversation::open(&mut rig, families, cport).rip.0, families.rip());
        }
        flows.iter().for_each(|flow| still_works(&mut rig, flow));
        rig.moved(&[("received", 250), ("transmitted", 250), ("sessions_created", 50)]);
        rig.finish();
    }
}

#[test]
fn conformance_m3_a_removed_real_servers_sessions_drain_or_are_reset() {
    for families in Families::ALL {
        for reset in [false, true] {
            let more = if reset { "on_remove = \"reset\"" } else { "" };
            let mut rig = Rig::new(&with_second(families, 1, more));
            let flows: Vec<_> = (1..=20).map(|cport| Conversation::open(&mut rig, families, cport)).collect();
            rig.apply(&families.config(2, "tcp", more));
            rig.mark();
            let (mut stayed, mut ended) = (0, 0);
            for flow in &flows {
                if flow.rip.0 == families.rip() || !reset {
                    still_works(&mut rig, flow);
                    stayed += 1;
                } else {
                    let rst = one(rig.client(&flow.inbound(ACK | PSH, 1, 1).payload(b"x").packet()));
                    assert_eq!(
                        (rst.tcp(), rst.ends()),
                        ((RST, flow.server_isn.wrapping_add(1), 0), (flow.vip, flow.client))
                    );
                    assert_eq!(flow.state(&rig), None);
                    ended += 1;
                }
            }
            assert_eq!((stayed, ended), if reset { (10, 10) } else { (20, 0) });
            rig.moved(&[
                ("received", 2 * stayed + ended),
                ("originated", ended),
                ("transmitted", 2 * stayed + ended),
                ("sessions_ended", ended),
                ("drop.session_reset", ended),
            ]);
            rig.finish();
        }
    }
}

#[test]
fn conformance_m3_a_real_server_that_comes_back_finds_its_sessions() {
    let families = Families::V4;
    let mut rig = Rig::new(&with_second(families, 1, "on_remove = \"reset\""));
    let flows: Vec<_> = (1..=4).map(|cport| Conversation::open(&mut rig, families, cport)).collect();
    rig.apply(&families.config(2, "tcp", "on_remove = \"reset\""));
    rig.apply(&with_second(families, 1, "on_remove = \"reset\""));
    flows.iter().for_each(|flow| still_works(&mut rig, flow));
    rig.finish();
}

#[test]
fn conformance_m3_a_service_without_real_servers_refuses() {
    let families = Families::V4;
    let mut rig = Rig::new(&families.config(2, "tcp", ""));
    rig.apply(&(families.config(2, "tcp", "") + "weight = 0\n"));
    let syn = Segment::new((families.client(), 1), (families.vip(), 80), SYN, 70, 0);
    assert_eq!(one(rig.client(&syn.packet())).tcp(), (RST | ACK, 0, 71));
    rig.moved(&[("received", 1), ("originated", 1), ("transmitted", 1), ("drop.no_real_server", 1)]);
    rig.finish();
}

#[test]
fn conformance_m4_a_removed_service_takes_nothing_new_and_its_sessions_end_by_themselves() {
    for families in Families::ALL {
        let config = families.config(2, "tcp", "");
        let without = config.split("[[service]]").next().unwrap().to_owned();
        let mut rig = Rig::new(&config);
        for round in 0..5 {
            let flow = Conversation::open(&mut rig, families, 5000 + round);
            rig.apply(&without);
            still_works(&mut rig, &flow);
            let syn = Segment::new((families.client(), 1), (families.vip(), 80), SYN, 70, 0);
            let out = rig.client(&syn.packet());
            // The VIP is gone with its last service.
            assert!(out.is_empty(), "{out:?}");
            rig.pass(903);
            assert_eq!((rig.sessions(), rig.take_sent().len()), (0, 1), "the real server is told");
            rig.apply(&config);
            rig.pass(12);
        }
        rig.finish();
    }
}

#[test]
fn conformance_m5_a_removed_local_address_drains() {
    for families in Families::ALL {
        let config = families.config(2, "tcp", "");
        let smaller = config
            .replace("10.2.0.100-10.2.0.101", "10.2.0.101")
            .replace("2001:db8:2::100-2001:db8:2::101", "2001:db8:2::101");
        let mut rig = Rig::new(&config);
        let flows: Vec<_> = (1..=60).map(|cport| Conversation::open(&mut rig, families, cport)).collect();
        rig.apply(&smaller);
        flows.iter().for_each(|flow| still_works(&mut rig, flow));
        for cport in 100..160 {
            let flow = Conversation::open(&mut rig, families, cport);
            assert!(flow.lip.0.to_string().ends_with("101"), "{:?}", flow.lip);
        }
        rig.pass(903);
        assert_eq!((rig.sessions(), rig.leases()), (0, 0));
        rig.finish();
    }
}

#[test]
fn conformance_m6_reloading_what_runs_changes_nothing() {
    for families in Families::ALL {
        let config = families.config(4, "tcp", "client_address = \"toa\"");
        let mut rig = Rig::new(&config);
        let flows: Vec<_> = (1..=20).map(|cport| Conversation::open(&mut rig, families, cport)).collect();
        flows.iter().for_each(|flow| {
            one(rig.server(&flow.outbound(ACK | PSH, 1, 1).payload(b"1").packet()));
        });
        rig.mark();
        for round in 0..20 {
            rig.apply(
                &if round % 2 == 0 { config.replace("web", "web2") } else { config.clone() }
                    .replace("web2", "web"),
            );
            flows.iter().for_each(|flow| {
                flow.send(&mut rig, ACK, 1, 2);
                flow.reply(&mut rig, ACK, 1, 1);
            });
        }
        rig.moved(&[("received", 800), ("transmitted", 800)]);
        rig.finish();
    }
}

/// A route that changes takes living sessions with it, ICMP errors about them too.
#[test]
fn sessions_follow_the_routes() {
    let via = |router: &str| {
        let route = format!("[[route]]\nto = \"10.3.0.0/24\"\nvia = \"{router}\"\n");
        crate::rig::base(2) + &route + &crate::rig::service("tcp", "10.1.0.100", "10.3.0.9", "")
    };
    let mut rig = Rig::new(&via("10.2.0.11"));
    let client = (crate::rig::ip("198.51.100.7"), 5000);
    let flow = Conversation::begin_with(&mut rig, client, (Families::V4.vip(), 80), 1, &[]);
    let router = |seen: &crate::rig::seen::Seen| seen.frame[5];
    assert_eq!(router(&flow.send(&mut rig, SYN, 0, 0)), 11);
    rig.apply(&via("10.2.0.12"));
    let answer = flow.outbound(SYN | ACK, 0, 1).packet();
    let answer = one(rig.server(&answer));
    rig.apply(&via("10.2.0.11"));
    let error = crate::rig::frame::icmp(flow.client.0, flow.vip.0, 3, 3, 0, answer.packet());
    assert_eq!(router(&one(rig.client(&error))), 11);
    rig.apply(&via("10.2.0.12"));
    assert_eq!(router(&flow.send(&mut rig, ACK, 1, 1)), 12);
    assert_eq!(flow.state(&rig), Some(State::Established));
    // Without any route the packets end by name.
    rig.apply(&via("10.2.0.12").replace("\"0.0.0.0/0\"", "\"10.9.0.0/16\""));
    rig.mark();
    assert_eq!(one(rig.server(&flow.outbound(ACK, 1, 1).packet())).icmp(), (3, 0, 0));
    rig.moved(&[("received", 1), ("originated", 1), ("transmitted", 1), ("drop.no_route", 1)]);
    let out = rig.client(&error);
    rig.only_drop(&out, "no_route");
    rig.finish();
}

#[test]
fn listeners_and_port_ranges_answer_from_the_port_that_was_dialled() {
    for families in Families::ALL {
        for protocol in ["tcp", "udp"] {
            let config = families.config(2, protocol, "").replace(":80\"", ":1000-1010\"");
            let mut rig = Rig::new(&config);
            for vport in 1000..=1010 {
                let (client, vip) = ((families.client(), 5000), (families.vip(), vport));
                let (seen, back) = if protocol == "tcp" {
                    let flow = Conversation::begin_with(&mut rig, client, vip, 1, &[]);
                    ((flow.lip, flow.rip), one(rig.server(&flow.outbound(SYN | ACK, 0, 1).packet())))
                } else {
                    let seen = one(rig.client(&udp(client, vip, b"x"))).ends();
                    (seen, one(rig.server(&udp(seen.1, seen.0, b"y"))))
                };
                assert_eq!((seen.1, back.ends()), ((families.rip(), 8080), (vip, client)));
            }
            let beyond = Segment::new((families.client(), 1), (families.vip(), 1011), SYN, 1, 0).packet();
            assert_eq!(rig.client(&beyond).len(), 1);
            rig.finish();
        }
    }
}
