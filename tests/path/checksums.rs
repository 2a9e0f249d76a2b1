//! Group G: checksums, and what goes in comes out. The UDP corners are in `udp`.

use fullnat::path::heap::Shape;
use fullnat::path::packet::ReceivedChecksum;
use proptest::prelude::*;

use crate::rig::conversation::{CLIENT_ISN, Conversation};
use crate::rig::frame::{ACK, PSH, SYN, Segment, make_partial, udp};
use crate::rig::seen::options;
use crate::rig::{Families, LAN, Options, Rig, WAN, one};
use crate::tcp::Numbers;

const TOA: &str = "client_address = \"toa\"";

/// Option lists as stacks write them, timestamps and SACK in all places.
fn any_options() -> impl Strategy<Value = Vec<u8>> {
    let option = prop_oneof![
        Just(vec![1]),
        any::<[u8; 8]>().prop_map(|v| [&[8, 10][..], &v].concat()),
        (1usize..4, any::<[u8; 24]>()).prop_map(|(n, v)| [&[5, 2 + 8 * n as u8][..], &v[..8 * n]].concat()),
        any::<[u8; 6]>().prop_map(|v| [&[254, 8][..], &v].concat()),
        any::<[u8; 2]>().prop_map(|v| [&[2, 4][..], &v].concat()),
        any::<[u8; 4]>().prop_map(|v| [&[77, 6][..], &v].concat()),
    ];
    proptest::collection::vec(option, 0..6).prop_map(|list| {
        let mut bytes = Vec::new();
        for option in list {
            if bytes.len() + option.len() <= 40 {
                bytes.extend(option);
            }
        }
        bytes.resize(bytes.len().next_multiple_of(4), 1);
        bytes
    })
}

/// The kinds a client must not send, gone.
fn without_toa(bytes: &[u8]) -> Vec<Vec<u8>> {
    let kept = options(bytes).into_iter().filter(|option| !matches!(option[0], 253 | 254));
    kept.map(<[u8]>::to_vec).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Every frame out is summed up anew by a parser that is not ours, whatever was edited on the way.
    #[test]
    fn conformance_g1_updates_equal_full_sums(
        segments in proptest::collection::vec(
            (any::<bool>(), any_options(), proptest::collection::vec(any::<u8>(), 0..70), 0u32..1 << 20, 0u32..1 << 20),
            1..12,
        ),
        isn: u32, cport in 1u16.., at in 0usize..4, toa: bool, timestamps: bool,
    ) {
        let families = Families::ALL[at];
        let mut rig = Rig::new(&families.config(2, "tcp", if toa { TOA } else { "" }));
        let syn_options: &[u8] = if timestamps { &[8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 1] } else { &[] };
        let (client, vip) = ((families.client(), cport), (families.vip(), 80));
        let flow = Conversation::begin_with(&mut rig, client, vip, isn, syn_options);
        flow.shake(&mut rig);
        for (inbound, mut list, payload, seq, ack) in segments {
            if !inbound {
                // Real servers send none.
                list = without_toa(&list).concat();
                list.resize(list.len().next_multiple_of(4), 1);
            }
            let seen = if inbound {
                one(rig.client(&flow.inbound(ACK | PSH, seq, ack).options(&list).payload(&payload).packet()))
            } else {
                one(rig.server(&flow.outbound(ACK | PSH, seq, ack).options(&list).payload(&payload).packet()))
            };
            prop_assert!(seen.payload == payload);
            // What is neither timestamps, SACK nor TOA is as it was.
            let untouched = |bytes: &[u8]| {
                without_toa(bytes).into_iter().filter(|option| !matches!(option[0], 5 | 8)).collect::<Vec<_>>()
            };
            prop_assert_eq!(untouched(&list), untouched(seen.options()));
        }
        rig.finish();
    }
}

/// A real server that echoes everything: what the client gets is what it sent.
#[test]
fn what_goes_in_and_is_sent_back_comes_out_the_same() {
    let mut numbers = Numbers(4);
    for families in Families::ALL {
        for more in [TOA, ""] {
            let mut rig = Rig::new(&families.config(2, "tcp", more));
            let flow = Conversation::open(&mut rig, families, 5000);
            for _ in 0..200 {
                let payload: Vec<u8> = (0..numbers.below(1380)).map(|_| numbers.next() as u8).collect();
                let (seq, ack) = (numbers.below(1 << 20), 1 + numbers.below(1 << 20));
                let sent = flow.inbound(ACK | PSH, seq, ack).payload(&payload);
                let seen = one(rig.client(&sent.packet()));
                let (src, dst) = seen.ends();
                let (flags, seq, ack) = seen.tcp();
                let echo = Segment::new(dst, src, flags, ack, seq).payload(&seen.payload);
                let back = one(rig.server(&echo.packet()));
                assert_eq!(back.ends(), (flow.vip, flow.client));
                assert_eq!((back.ack(), back.seq()), (sent.seq, sent.ack));
                assert!(back.payload == payload);
            }
            rig.finish();
        }
    }
}

#[test]
fn conformance_g2_what_was_damaged_stays_damaged() {
    for families in Families::ALL {
        for protocol in ["tcp", "udp"] {
            let more = if protocol == "tcp" { TOA } else { "" };
            let mut rig = Rig::new(&families.config(2, protocol, more));
            rig.damaged = true;
            let (client, vip) = ((families.client(), 5000), (families.vip(), 80));
            let packet = match protocol {
                "tcp" => {
                    Conversation::open(&mut rig, families, 5000).inbound(ACK, 1, 1).payload(&[7; 64]).packet()
                }
                _ => udp(client, vip, &[7; 64]),
            };
            let good = one(rig.client(&packet));
            for bit in 0..64 * 8 {
                let mut damaged = packet.clone();
                let at = damaged.len() - 64 + bit / 8;
                damaged[at] ^= 1 << (bit % 8);
                let seen = one(rig.client(&damaged));
                assert_ne!(seen.payload, good.payload);
                // Read strictly it is wrong.
                let strict =
                    std::panic::catch_unwind(|| crate::rig::seen::Seen::read(LAN, &seen.frame, false));
                assert!(strict.is_err(), "bit {bit} was laundered");
            }
            rig.damaged = false;
            rig.finish();
        }
    }
}

#[test]
fn conformance_g5_all_lengths_with_and_without_toa() {
    for families in Families::ALL {
        for more in [TOA, ""] {
            let mut rig = Rig::new(&families.config(1, "tcp", more));
            let flow = Conversation::open(&mut rig, families, 5000);
            for len in (0..64).chain(1300..1380) {
                let payload: Vec<u8> = (0..len).map(|i| i as u8 ^ 0x5a).collect();
                let seen = one(rig.client(&flow.inbound(ACK, 1, 1).payload(&payload).packet()));
                assert!(seen.payload == payload);
                let seen = one(rig.server(&flow.outbound(ACK, 1, 1).payload(&payload).packet()));
                assert!(seen.payload == payload);
            }
            rig.finish();
        }
    }
}

/// A run of packets whose checksums a local kernel left to its device; everything that left.
fn with_partial_checksums(families: Families, options: Options, first_segment: usize) -> Vec<Vec<u8>> {
    let mut rig = Rig::with(&families.config(2, "tcp", TOA), options);
    for io in &mut rig.ios {
        io.shape = Shape { first_segment, ..Shape::default() };
    }
    let partial = |mut packet: Vec<u8>| {
        make_partial(&mut packet);
        packet
    };
    let (client, vip) = ((families.client(), 5000), (families.vip(), 80));
    let syn = Segment::new(client, vip, SYN, CLIENT_ISN, 0)
        .options(&[2, 4, 5, 0xb4, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 1]);
    let mut all = vec![one(rig.client(&partial(syn.packet())))];
    let flow = Conversation::of_syn(&all[0], client, vip, CLIENT_ISN);
    all.push(one(rig.server(&partial(flow.outbound(SYN | ACK, 0, 1).packet()))));
    for len in [0, 1, 2, 333, 1300] {
        let payload: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
        all.push(one(rig.client(&partial(flow.inbound(ACK, 1, 1).payload(&payload).packet()))));
        all.push(one(rig.server(&partial(flow.outbound(ACK, 1, 1).payload(&payload).packet()))));
        // Finished ones come too.
        all.push(one(rig.client(&flow.inbound(ACK, 1, 1).payload(&payload).packet())));
    }
    rig.finish();
    all.into_iter().map(|seen| seen.frame).collect()
}

#[test]
fn conformance_g6_g7_checksums_left_to_a_device_are_right_on_the_wire() {
    for families in Families::ALL {
        let plain = Options { partial_checksums: true, ..Options::default() };
        let offload = Options { checksum_offload: true, ..plain };
        let computed = with_partial_checksums(families, plain, usize::MAX);
        assert!(computed == with_partial_checksums(families, offload, usize::MAX), "G6: the same bytes");
        assert!(computed == with_partial_checksums(families, plain, 60), "and from segments");
        assert!(computed == with_partial_checksums(families, offload, 60));
    }
}

#[test]
fn conformance_g7_datagrams_whose_checksum_was_left_to_a_device() {
    for families in Families::ALL {
        for checksum_offload in [false, true] {
            let options = Options { partial_checksums: true, checksum_offload, ..Options::default() };
            let mut rig = Rig::with(&families.config(2, "udp", ""), options);
            let (client, vip) = ((families.client(), 5000), (families.vip(), 80));
            for len in [0, 1, 2, 1001] {
                let mut packet = udp(client, vip, &vec![3; len]);
                make_partial(&mut packet);
                let seen = one(rig.client(&packet));
                assert_eq!(seen.payload.len(), len);
                let (lip, rip) = seen.ends();
                let mut answer = udp(rip, lip, &vec![4; len]);
                make_partial(&mut answer);
                one(rig.server(&answer));
            }
            rig.finish();
        }
    }
}

/// What the device found wrong is not given a right checksum only because it looks unfinished.
#[test]
fn conformance_g2_a_checksum_that_the_device_found_wrong_is_not_renewed() {
    let options = Options { partial_checksums: true, ..Options::default() };
    let mut rig = Rig::with(&Families::V4.config(1, "udp", ""), options);
    let (client, vip) = ((Families::V4.client(), 5000), (Families::V4.vip(), 80));
    let mut packet = udp(client, vip, b"hello");
    make_partial(&mut packet);
    one(rig.client(&packet));
    rig.mark();
    let mut buffer = rig.ios[0].receive(&rig.framed(WAN, &packet));
    buffer.checksum = ReceivedChecksum::Bad;
    let out = rig.buffer(0, WAN, buffer);
    rig.only_drop(&out, "l4_checksum");
    rig.finish();
}
