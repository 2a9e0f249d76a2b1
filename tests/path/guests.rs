//! Sessions that live on another worker because their home has no local port left.

use fullnat::path::drop_reason::DropReason;
use fullnat::session::State;
use fullnat::wire::Protocol;

use crate::pools::small_pool;
use crate::rig::conversation::Conversation;
use crate::rig::frame::{ACK, FIN, PSH, RST, SYN, Segment, icmp};
use crate::rig::{Families, Options, Rig, WAN, one};

/// Client ports whose flows all have worker 0 for their home, so that it runs out of local ports.
fn ports_at_home(rig: &Rig, families: Families) -> impl Iterator<Item = u16> + use<> {
    let home = |cport: &u16| rig.home((families.client(), *cport), (families.vip(), 80), Protocol::Tcp) == 0;
    let ports: Vec<u16> = (1..2000).filter(home).collect();
    ports.into_iter()
}

/// Twenty connections over a pool of twenty ports, and client ports for more.
fn twenty(families: Families, workers: usize, options: Options) -> (Rig, Vec<Conversation>, Vec<u16>) {
    let mut rig =
        Rig::with(&small_pool(&families.config(workers, "tcp", "client_address = \"toa\""), 20), options);
    let mut ports = ports_at_home(&rig, families);
    let flows: Vec<_> =
        ports.by_ref().take(20).map(|cport| Conversation::open(&mut rig, families, cport)).collect();
    assert!(flows.iter().any(|flow| is_guest(&rig, flow)) && !flows.iter().all(|flow| is_guest(&rig, flow)));
    (rig, flows, ports.collect())
}

fn is_guest(rig: &Rig, flow: &Conversation) -> bool {
    let (host, _) = rig.find(flow.client, flow.vip, Protocol::Tcp).unwrap();
    host != rig.home(flow.client, flow.vip, Protocol::Tcp)
}

#[test]
fn conformance_h4_h5_twenty_of_forty_work_on_any_number_of_workers() {
    for families in Families::ALL {
        for workers in [2, 4] {
            let (mut rig, _, more) = twenty(families, workers, Options::default());
            rig.mark();
            for cport in &more[..20] {
                let syn = Segment::new((families.client(), *cport), (families.vip(), 80), SYN, 70, 0);
                assert_eq!(one(rig.client(&syn.packet())).tcp(), (RST | ACK, 0, 71));
            }
            rig.moved(&[
                ("received", 20),
                ("originated", 20),
                ("transmitted", 20),
                ("no_local_port", 20),
                ("drop.no_local_port", 20),
            ]);
            rig.finish();
        }
    }
}

#[test]
fn guests_are_reached_from_both_sides_by_data_errors_and_their_end() {
    for families in Families::ALL {
        for workers in [2, 4] {
            let (mut rig, flows, _) = twenty(families, workers, Options::default());
            let (kind, code) = if families.client_v6 { (1, 4) } else { (3, 3) };
            let (server_kind, server_code) = if families.server_v6 { (1, 4) } else { (3, 3) };
            for flow in &flows {
                let sent = one(rig.client(&flow.inbound(ACK | PSH, 1, 1).payload(b"ask").packet()));
                let answer = one(rig.server(&flow.outbound(ACK | PSH, 1, 4).payload(b"tell").packet()));
                let error = icmp(flow.client.0, flow.vip.0, kind, code, 0, answer.packet());
                assert_eq!(one(rig.client(&error)).dst, flow.rip.0);
                let error = icmp(flow.rip.0, flow.lip.0, server_kind, server_code, 0, sent.packet());
                assert_eq!(one(rig.server(&error)).dst, flow.client.0);
            }
            // Each worker asked for itself who hosts; all packets arrived all the same.
            for flow in &flows {
                flow.send(&mut rig, FIN | ACK, 4, 5);
                flow.reply(&mut rig, FIN | ACK, 5, 5);
                flow.send(&mut rig, ACK, 5, 6);
                assert_eq!(flow.state(&rig), Some(State::TimeWait));
            }
            // The same client ports at once again: the finished sessions make room.
            for flow in &flows {
                let again = Conversation::open(&mut rig, families, flow.client.1);
                again.send(&mut rig, ACK, 1, 1);
                again.reply(&mut rig, ACK, 1, 1);
            }
            assert_eq!(rig.sessions(), 20);
            rig.finish();
        }
    }
}

/// From a device that does not steer, packets of a client's reach the host of its session, too.
#[test]
fn a_guests_packets_pass_at_its_host_at_once() {
    for families in Families::ALL {
        let (mut rig, flows, more) = twenty(families, 2, Options::default());
        let syn = Segment::new((families.client(), more[0]), (families.vip(), 80), SYN, 70, 0).packet();
        for flow in flows.iter().filter(|flow| is_guest(&rig, flow)).copied().collect::<Vec<_>>() {
            for (worker, hands) in [(1, [0, 0]), (0, [1, 0]), (1, [0, 0])] {
                let before = rig.handed();
                let frame = rig.framed(WAN, &flow.inbound(ACK | PSH, 1, 1).payload(b"ask").packet());
                assert_eq!(one(rig.frame_to(worker, WAN, &frame)).ends(), (flow.lip, flow.rip));
                assert_eq!([0, 1].map(|at| rig.handed()[at] - before[at]), hands);
            }
            // Behind one that is to go to its home, which passes it on and gets it back refused.
            let before = rig.handed();
            let burst = [syn.clone(), flow.inbound(ACK | PSH, 1, 1).payload(b"ask").packet()];
            let burst = burst.map(|packet| rig.framed(WAN, &packet));
            let out = rig.burst(1, WAN, &burst);
            assert_eq!(out.iter().filter(|seen| seen.ends() == (flow.lip, flow.rip)).count(), 1);
            assert_eq!([0, 1].map(|at| rig.handed()[at] - before[at]), [1, 1], "of the SYN alone");
        }
        rig.finish();
    }
}

/// Whichever way its SYN came, the next connection of a finished guest is for the home to begin: with itself, if it has a
/// port again.
#[test]
fn a_finished_guest_begins_anew_at_home() {
    for families in Families::ALL {
        for worker in [0, 1] {
            let (mut rig, flows, _) = twenty(families, 2, Options::default());
            let is_guest = |flow: &Conversation| is_guest(&rig, flow);
            let (guest, own) =
                (flows.iter().find(|flow| is_guest(flow)), flows.iter().find(|f| !is_guest(f)));
            let (guest, own) = (*guest.unwrap(), own.unwrap());
            guest.send(&mut rig, FIN | ACK, 1, 1);
            guest.reply(&mut rig, FIN | ACK, 1, 2);
            guest.send(&mut rig, ACK, 2, 2);
            own.send(&mut rig, RST, 1, 0);
            rig.pass(11);
            assert_eq!((own.state(&rig), guest.state(&rig)), (None, Some(State::TimeWait)));
            let before = rig.handed();
            let syn = guest.inbound(SYN, 1 << 20, 0);
            let frame = rig.framed(WAN, &syn.packet());
            let seen = one(rig.frame_to(worker, WAN, &frame));
            let again = Conversation::of_syn(&seen, guest.client, guest.vip, syn.seq);
            let hands = [u64::from(worker == 0), 1];
            assert_eq!([0, 1].map(|at| rig.handed()[at] - before[at]), hands, "the host gave it home");
            again.shake(&mut rig);
            assert_eq!(rig.find(again.client, again.vip, Protocol::Tcp).unwrap().0, 0);
            rig.finish();
        }
    }
}

#[test]
fn the_notes_of_ended_guests_go() {
    // Room for twenty notes: without their going, later guests would be refused.
    let options = Options { guests_max: 20, ..Options::default() };
    let (mut rig, _, more) = twenty(Families::V4, 2, options);
    for cports in more.chunks_exact(20).take(10) {
        rig.pass(905);
        assert_eq!(rig.sessions(), 0);
        rig.take_sent();
        for cport in cports {
            Conversation::open(&mut rig, Families::V4, *cport);
        }
    }
    rig.finish();
}

#[test]
fn a_home_that_can_remember_no_more_refuses_at_once() {
    let options = Options { guests_max: 1, ..Options::default() };
    let families = Families::V4;
    let mut rig = Rig::with(&small_pool(&families.config(2, "tcp", ""), 20), options);
    let (mut opened, mut refused) = (Vec::new(), 0);
    for cport in ports_at_home(&rig, families).take(40) {
        let syn = Segment::new((families.client(), cport), (families.vip(), 80), SYN, 70, 0);
        let seen = one(rig.client(&syn.packet()));
        if seen.port == WAN {
            refused += 1;
        } else {
            opened.push(Conversation::of_syn(&seen, syn.src, syn.dst, 70));
        }
    }
    assert_eq!(opened.iter().filter(|flow| is_guest(&rig, flow)).count(), 1);
    assert_eq!(opened.len() + refused, 40);
    for flow in &opened {
        flow.shake(&mut rig);
    }
    rig.finish();
}

/// When the home cannot be told, the session is not begun; the client tries again.
#[test]
fn a_note_that_finds_no_room_in_the_ring_costs_one_retransmission() {
    let families = Families::V4;
    let mut rig = Rig::new(&small_pool(&families.config(2, "tcp", ""), 20));
    let (client, vip) = (families.client(), (families.vip(), 80));
    let mut at_home = ports_at_home(&rig, families);
    // All of worker 0's own ports.
    let mut flows: Vec<Conversation> = Vec::new();
    let first_guest = loop {
        let cport = at_home.next().unwrap();
        let syn = Segment::new((client, cport), vip, SYN, 70, 0);
        rig.ios[1].ring_room = Some(0);
        let frame = rig.framed(WAN, &syn.packet());
        let out = rig.frame_to(0, WAN, &frame);
        rig.ios[1].ring_room = None;
        match out.first() {
            Some(seen) => flows.push(Conversation::of_syn(seen, syn.src, syn.dst, 70)),
            None => break syn,
        }
    };
    assert_eq!(rig.sessions() as usize, flows.len(), "nothing is left of the one that was not told");
    assert_eq!(rig.dropped(DropReason::HandOffRingFull), 1);
    let seen = one(rig.client(&first_guest.packet()));
    let guest = Conversation::of_syn(&seen, first_guest.src, first_guest.dst, 70);
    guest.shake(&mut rig);
    assert!(is_guest(&rig, &guest));

    // Its end is not told either: the first packet that comes in vain goes back behind a note, if there is room for one.
    rig.ios[1].ring_room = Some(0);
    rig.pass(905);
    rig.take_sent();
    let frame = rig.framed(WAN, &guest.inbound(ACK, 1, 1).packet());
    assert!(rig.frame_to(0, WAN, &frame).is_empty());
    assert_eq!(rig.dropped(DropReason::HandOffRingFull), 2);
    rig.ios[1].ring_room = None;
    for hands in [[1, 1], [0, 0]] {
        let before = rig.handed();
        assert_eq!(one(rig.frame_to(0, WAN, &frame)).flags(), RST);
        assert_eq!([0, 1].map(|at| rig.handed()[at] - before[at]), hands);
    }
    assert_eq!(rig.engines[1].counters().drops.get(DropReason::NoSession), 0, "the home refused it");
    rig.finish();
}
