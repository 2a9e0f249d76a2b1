//! Who is refused is told at once, and by what: RST for TCP, ICMP for the rest. The reasons that groups H and I name have
//! their tests there.

use crate::rig::conversation::Conversation;
use crate::rig::frame::{ACK, RST, SYN, Segment, udp};
use crate::rig::{Families, LAN, Options, Rig, WAN, ip, one};

/// Routes that lead to no client and no real server beyond the links.
fn without_routes(config: &str) -> String {
    config.replace("\"0.0.0.0/0\"", "\"10.9.0.0/16\"").replace("\"::/0\"", "\"2001:db8:9::/48\"")
}

/// An ICMP error's type, code and rest in the family of who is told.
fn error(v6: bool, v4_code: u8, v6_code: u8) -> (u8, u8, u32) {
    if v6 { (1, v6_code, 0) } else { (3, v4_code, 0) }
}

/// A session whose way is lost for a while lives: its packets are answered by an error that ends no connection.
#[test]
fn a_lost_route_is_told_and_the_session_lives() {
    for families in Families::ALL {
        let far = if families.client_v6 { ip("2001:db8:ffff::7") } else { ip("198.51.100.7") };
        let config = families.config(2, "tcp", "");
        let mut rig = Rig::new(&config);
        let flow = Conversation::begin_with(&mut rig, (far, 5000), (families.vip(), 80), 1, &[]);
        flow.shake(&mut rig);
        rig.apply(&without_routes(&config));
        rig.mark();
        let told = one(rig.client(&flow.inbound(ACK, 1, 1).packet()));
        assert_eq!((told.port, told.icmp(), told.dst), (WAN, error(families.client_v6, 0, 0), far));
        rig.moved(&[("received", 1), ("originated", 1), ("transmitted", 1), ("drop.no_route", 1)]);
        let told = one(rig.server(&flow.outbound(ACK, 1, 1).packet()));
        assert_eq!((told.port, told.icmp()), (LAN, error(families.server_v6, 0, 0)));
        rig.moved(&[("received", 1), ("originated", 1), ("transmitted", 1), ("drop.no_route", 1)]);
        rig.apply(&config);
        flow.send(&mut rig, ACK, 1, 1);
        flow.reply(&mut rig, ACK, 1, 1);
        rig.finish();
    }
}

/// The new way has no room in the neighbour table: another reason than no way.
#[test]
fn a_neighbour_table_too_full_for_a_new_route_says_so() {
    let config = Families::V4.config(1, "tcp", "");
    let options = Options { neighbours_max: 2, ..Options::default() };
    let mut rig = Rig::with(&config, options);
    let far = ip("198.51.100.7");
    let flow = Conversation::begin_with(&mut rig, (far, 5000), (Families::V4.vip(), 80), 1, &[]);
    flow.shake(&mut rig);
    rig.apply(&config.replace("via = \"10.1.0.1\"", "via = \"10.1.0.2\""));
    rig.mark();
    let told = one(rig.client(&flow.inbound(ACK, 1, 1).packet()));
    assert_eq!((told.icmp(), told.dst), ((3, 1, 0), far));
    rig.moved(&[("received", 1), ("originated", 1), ("transmitted", 1), ("drop.neighbour_table_full", 1)]);
    rig.finish();
}

#[test]
fn a_full_neighbour_table_is_told() {
    let families = Families::V4;
    let options = Options { neighbours_max: 1, hosts_answer: false, ..Options::default() };
    let mut rig = Rig::with(&families.config(1, "tcp", ""), options);
    let syn = Segment::new((families.client(), 1), (families.vip(), 80), SYN, 70, 0);
    assert_eq!(one(rig.client(&syn.packet())).tcp(), (RST | ACK, 0, 71));
    rig.moved(&[("received", 1), ("originated", 1), ("transmitted", 1), ("drop.neighbour_table_full", 1)]);
    rig.finish();
}

/// RFC 5508 REQ-8 by analogy.
#[test]
fn conformance_l3_a_full_session_table_is_told_to_senders_of_datagrams() {
    for families in Families::ALL {
        let mut rig = Rig::new(&families.config(1, "udp", ""));
        let max = rig.engines[0].sessions().capacity() as u16;
        let packet = |cport: u16| udp((families.client(), cport), (families.vip(), 80), b"x");
        for cport in 1..=max {
            assert_eq!(one(rig.client(&packet(cport))).port, LAN);
        }
        rig.mark();
        let told = one(rig.client(&packet(60_000)));
        assert_eq!((told.icmp(), told.dst), (error(families.client_v6, 13, 1), families.client()));
        rig.moved(&[("received", 1), ("originated", 1), ("transmitted", 1), ("drop.session_table_full", 1)]);
        one(rig.client(&packet(1)));
        rig.finish();
    }
}
