//! Packets that reach a worker that is not their home: they go there, also where one looks like a packet of a session here.

use fullnat::path::drop_reason::DropReason;
use fullnat::wire::Protocol;

use crate::pools::small_pool;
use crate::rig::conversation::Conversation;
use crate::rig::frame::{ACK, End, RST, Segment, udp};
use crate::rig::{Families, Rig, WAN, ip, one, service};

/// Clients behind the router, each with a port of its own.
fn strangers(families: Families) -> impl Iterator<Item = End> {
    let address = move |n| {
        ip(&if families.client_v6 { format!("2001:db8:9::{n:x}") } else { format!("198.51.100.{n}") })
    };
    (1..255).flat_map(move |n| (1..=u16::MAX).map(move |cport| (address(n), cport)))
}

/// A client whose packets have their home at one worker, and at another one a tag that some session there has.
fn mistaken(rig: &Rig, families: Families, protocol: Protocol, home: usize, at: usize) -> End {
    let vip = families.vip_end();
    strangers(families)
        .find(|&client| rig.home(client, vip, protocol) == home && rig.is_mistaken(at, client, vip, protocol))
        .expect("one of some ten thousand is")
}

/// Sessions on all workers.
fn crowd(rig: &mut Rig, families: Families) {
    for cport in 1..=500 {
        one(rig.client(&udp((families.client(), cport), families.vip_end(), b"first")));
    }
}

#[test]
fn a_packet_whose_tag_is_that_of_a_session_elsewhere_goes_home() {
    for families in [Families::ALL[0], Families::ALL[1]] {
        let mut rig = Rig::new(&families.config(2, "udp", ""));
        crowd(&mut rig, families);
        let client = mistaken(&rig, families, Protocol::Udp, 1, 0);
        let frame = rig.framed(WAN, &udp(client, families.vip_end(), b"whose"));
        rig.mark();
        for _ in 0..2 {
            let before = rig.handed();
            one(rig.frame_to(0, WAN, &frame));
            assert_eq!(rig.handed(), [before[0] + 1, before[1]]);
            assert_eq!(rig.find(client, families.vip_end(), Protocol::Udp).unwrap().0, 1);
        }
        rig.moved(&[("received", 2), ("transmitted", 2), ("sessions_created", 1)]);
        rig.finish();
    }
}

/// Nobody but the home knows whether it has a session.
#[test]
fn a_packet_without_a_session_is_refused_by_its_home() {
    for families in [Families::ALL[0], Families::ALL[1]] {
        let udp = service("udp", &families.vip().to_string(), &families.rip().to_string(), "");
        let mut rig = Rig::new(&(families.config(2, "tcp", "") + &udp.replace("\"web\"", "\"dns\"")));
        crowd(&mut rig, families);
        let client = mistaken(&rig, families, Protocol::Tcp, 1, 0);
        let frame = rig.framed(WAN, &Segment::new(client, families.vip_end(), ACK, 1, 1).packet());
        assert_eq!(one(rig.frame_to(0, WAN, &frame)).flags(), RST);
        let refused = |worker: usize| rig.engines[worker].counters().drops.get(DropReason::NoSession);
        assert_eq!([0, 1].map(refused), [0, 1]);
        rig.finish();
    }
}

#[test]
fn packets_of_a_burst_go_each_to_its_home() {
    for families in [Families::ALL[0], Families::ALL[1]] {
        let mut rig = Rig::new(&families.config(2, "udp", ""));
        crowd(&mut rig, families);
        let vip = families.vip_end();
        let at = |rig: &Rig, worker| {
            let homes = |&client: &End| rig.home(client, vip, Protocol::Udp) == worker;
            let known = (1..=500).map(|cport| (families.client(), cport)).filter(homes).take(4);
            let new = strangers(families).filter(homes).take(4);
            known.chain(new).collect::<Vec<End>>()
        };
        let (own, others) = (at(&rig, 0), at(&rig, 1));
        let looks_known = mistaken(&rig, families, Protocol::Udp, 1, 0);
        let mut clients: Vec<End> = own.iter().zip(&others).flat_map(|(own, other)| [*own, *other]).collect();
        clients.insert(5, looks_known);
        let frames: Vec<_> =
            clients.iter().map(|&client| rig.framed(WAN, &udp(client, vip, b"burst"))).collect();
        let before = rig.handed();
        assert_eq!(rig.burst(0, WAN, &frames).len(), 17);
        assert_eq!(rig.handed(), [before[0] + 9, before[1]]);
        for client in clients {
            let home = rig.home(client, vip, Protocol::Udp);
            assert_eq!(rig.find(client, vip, Protocol::Udp).unwrap().0, home);
        }
        rig.finish();
    }
}

#[test]
fn a_packet_that_cannot_be_given_home_is_dropped_once() {
    let families = Families::V4;
    let mut rig = Rig::new(&families.config(2, "udp", ""));
    crowd(&mut rig, families);
    let client = mistaken(&rig, families, Protocol::Udp, 1, 0);
    let frame = rig.framed(WAN, &udp(client, families.vip_end(), b"whose"));
    rig.mark();
    // Without room for what the home is told, and with room for that alone.
    for room in [0, 1] {
        rig.ios[0].ring_room = Some(room);
        let out = rig.frame_to(0, WAN, &frame);
        rig.only_drop(&out, "hand_off_ring_full");
    }
    rig.ios[0].ring_room = Some(2);
    one(rig.frame_to(0, WAN, &frame));
    rig.finish();
}

/// Of three workers, one is a guest's home, one its host, and the third takes its packets for those of a session.
#[test]
fn a_third_worker_that_has_no_session_does_not_end_the_homes_note() {
    for families in [Families::ALL[0], Families::ALL[1]] {
        let (vip, rip) = (families.vip().to_string(), families.rip().to_string());
        let udp = service("udp", &vip, &rip, "").replace("\"web\"", "\"dns\"");
        let large = "[[local_pool]]\nname = \"large\"\nport = \"lan\"\n\
                     addresses = [\"10.2.0.101\", \"2001:db8:2::101\"]\n";
        let config = small_pool(&families.config(3, "tcp", ""), 20);
        let mut rig = Rig::new(&(config + large + &udp.replace("\"pool\"", "\"large\"")));
        crowd(&mut rig, families);
        let vip = families.vip_end();
        // All local ports of worker 0 that TCP has.
        let at_home = (1..).filter(|&cport| rig.home((families.client(), cport), vip, Protocol::Tcp) == 0);
        let cports: Vec<u16> = at_home.take(20).collect();
        for cport in cports {
            let flow = Conversation::open(&mut rig, families, cport);
            if rig.find(flow.client, vip, Protocol::Tcp).unwrap().0 != 0 {
                break;
            }
        }
        let client = mistaken(&rig, families, Protocol::Tcp, 0, 2);
        let guest = Conversation::begin_with(&mut rig, client, vip, 7, &[]);
        guest.shake(&mut rig);
        assert_eq!(rig.find(client, vip, Protocol::Tcp).unwrap().0, 1);
        let data = rig.framed(WAN, &guest.inbound(ACK, 1, 1).packet());
        for (worker, hands) in [(2, [1, 0, 1]), (0, [1, 0, 0]), (2, [1, 0, 1]), (1, [0, 0, 0])] {
            let before = rig.handed();
            assert_eq!(one(rig.frame_to(worker, WAN, &data)).ends(), (guest.lip, guest.rip), "at {worker}");
            let now: Vec<u64> = rig.handed().iter().zip(before).map(|(now, before)| now - before).collect();
            assert_eq!(now, hands, "at {worker}");
        }
        rig.finish();
    }
}
