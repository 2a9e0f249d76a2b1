//! Fragments and identifications (C13, D6): no fragment passes, none is made, and what a receiver may have to put
//! together has an identification of its own. [`Seen::read`](crate::rig::seen::Seen::read) refuses every fragment that
//! leaves, in all tests.

use std::collections::HashSet;

use fullnat::wire::Protocol;

use crate::rig::conversation::Conversation;
use crate::rig::frame::{ACK, Ip, RST, SYN, Segment, fix_ipv4, icmp_with, udp, udp_with, with_extension};
use crate::rig::seen::L4;
use crate::rig::{Families, LAN, Options, Rig, WAN, one};

const V6: Families = Families::ALL[1];

/// An IPv4 packet as a fragment: flags and offset in units of 8 bytes, of so many bytes behind the header.
fn fragment_v4(packet: &[u8], flags_and_offset: u16, bytes: usize) -> Vec<u8> {
    let mut out = packet[..20 + bytes].to_vec();
    out[6..8].copy_from_slice(&flags_and_offset.to_be_bytes());
    fix_ipv4(&mut out);
    out
}

/// An IPv6 packet as a fragment (RFC 8200 §4.5): offset in units of 8 bytes, more to follow, so many bytes of it.
fn fragment_v6(packet: &[u8], offset: u16, more: bool, bytes: usize) -> Vec<u8> {
    let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
    let mut whole = packet[..40 + bytes].to_vec();
    whole[4..6].copy_from_slice(&(bytes as u16).to_be_bytes());
    with_extension(&whole, 44, &[0, 0, high, low, 0, 0, 0, 7])
}

#[test]
fn conformance_d6_e1_e2_e3_ipv4_fragments_of_every_kind_are_dropped_by_name() {
    let families = Families::V4;
    let mut rig = Rig::new(&families.config(2, "tcp", ""));
    let flow = Conversation::open(&mut rig, families, 5000);
    rig.mark();
    for (port, segment) in [(WAN, flow.inbound(ACK, 1, 1)), (LAN, flow.outbound(ACK, 1, 1))] {
        let packet = segment.payload(&[7; 100]).packet();
        for (flags_and_offset, bytes) in [
            (0x2000, 120), // the first one, whole header
            (0x2000, 8),   // too short for a TCP header (RFC 1858)
            (0x2001, 24),  // overlaps the header of the first one (RFC 3128)
            (0x2002, 40),
            (0x0003, 40),  // overlaps the one before
            (0x000f, 40),  // the last one
            (0x6000, 120), // with "don't fragment"
            (0x1fff, 100), // beyond 65,535 bytes
        ] {
            let out = rig.packet(port, &fragment_v4(&packet, flags_and_offset, bytes));
            rig.only_drop(&out, "ip_fragment");
        }
    }
    rig.finish();
}

/// RFC 5722, RFC 6946, RFC 7112: an atomic fragment is whole, overlapping ones are an attack, and a first one has all
/// headers. None of them passes, so none can be taken for another.
#[test]
fn conformance_d6_ipv6_fragments_of_every_kind_are_dropped_by_name() {
    for families in [V6, Families::ALL[3]] {
        let mut rig = Rig::new(&families.config(2, "udp", ""));
        let vip = (families.vip(), 80);
        let packet = udp((families.client(), 5000), vip, &[7; 120]);
        one(rig.client(&packet));
        rig.mark();
        let options = [0u8, 0, 1, 4, 0, 0, 0, 0];
        let chained = with_extension(&packet, 60, &options);
        for fragment in [
            fragment_v6(&packet, 0, false, 128), // atomic
            fragment_v6(&packet, 0, true, 64),
            fragment_v6(&packet, 4, true, 64), // overlaps it
            fragment_v6(&packet, 0, true, 72), // and so does a second first one
            fragment_v6(&packet, 8, false, 64),
            fragment_v6(&packet, 0, true, 4),  // without the whole UDP header
            fragment_v6(&chained, 0, true, 8), // without any of it
            fragment_v6(&packet, 0, true, 0),
            fragment_v6(&packet, 0x1fff, false, 64),
            with_extension(&fragment_v6(&packet, 0, true, 64), 0, &options), // behind other headers
        ] {
            let out = rig.client(&fragment);
            rig.only_drop(&out, "ip_fragment");
        }
        rig.finish();
    }
}

/// RFC 6864 §4.1: packets of our own are atomic, their identification means nothing. An echo reply is the request turned
/// round: its identification is unique as far as the asker's is.
#[test]
fn conformance_c13_packets_of_our_own_are_never_put_together() {
    let families = Families::V4;
    let config = families.config(2, "tcp", "").replace("mtu = 1500", "mtu = 9000");
    let mut rig = Rig::with(&config, Options { mtu: [9000, 1500], ..Options::default() });
    let (client, vip) = ((families.client(), 5000), (families.vip(), 80));
    let flow = Conversation::open(&mut rig, families, 6000);
    let own = [
        rig.client(&Segment::new(client, vip, ACK, 1, 1).packet()),
        rig.client(&Segment::new(client, (vip.0, 81), SYN, 1, 0).packet()),
        rig.client(&udp(client, (vip.0, 81), b"anybody?")),
        rig.client(&Segment::new(client, vip, SYN, 1, 0).ttl(1).packet()),
        rig.client(&flow.inbound(ACK, 1, 1).payload(&[7; 3000]).packet()),
        rig.server(&Segment::new(flow.rip, (flow.lip.0, 7), ACK, 1, 1).packet()),
    ];
    let loose = Ip { dont_fragment: false, id: 77, ..Ip::default() };
    let echo = one(rig.client(&icmp_with(client.0, vip.0, 8, 0, 1, &[7; 1400], loose)));
    assert!((echo.dont_fragment, echo.id) == (false, 77));
    let (mut resets, mut errors) = (0, 0);
    for seen in own.into_iter().flatten() {
        assert!(seen.dont_fragment && seen.id == 0, "{seen:?}");
        match seen.l4 {
            L4::Tcp { flags, .. } if flags & RST != 0 => resets += 1,
            L4::Icmp { .. } => errors += 1,
            _ => panic!("not of our own: {seen:?}"),
        }
    }
    assert!(resets >= 2 && errors >= 3, "{resets} resets, {errors} ICMP errors");
    rig.finish();
}

/// RFC 6864 §4.3: of what may be fragmented further on, no two packets to one real server have the same identification
/// until a worker has gone through all of its own, whichever worker sent them.
#[test]
fn conformance_c13_workers_share_no_identification() {
    for workers in 1..=4u16 {
        let families = Families::V4;
        let mut rig = Rig::new(&families.config(workers.into(), "udp", ""));
        let vip = (families.vip(), 80);
        let loose = Ip { dont_fragment: false, id: 7, ..Ip::default() };
        let mut used = vec![HashSet::new(); workers.into()];
        let slice = usize::from(u16::MAX / workers);
        // One flow of each worker, through more than its whole slice.
        let mut cport = 5000;
        for (worker, used) in used.iter_mut().enumerate() {
            let client = loop {
                cport += 1;
                if rig.home((families.client(), cport), vip, Protocol::Udp) == worker {
                    break (families.client(), cport);
                }
            };
            let frame = rig.framed(WAN, &udp_with(client, vip, b"x", loose));
            for round in 0..slice + 10 {
                let seen = one(rig.frame_to(worker, WAN, &frame));
                assert!(!seen.dont_fragment && seen.id != 0);
                assert_eq!(used.insert(seen.id), round < slice, "round {round} of {slice}");
            }
        }
        let all: HashSet<u16> = used.iter().flatten().copied().collect();
        assert_eq!(all.len(), slice * usize::from(workers), "{workers} workers");
        rig.finish();
    }
}
