//! Every drop reason is brought about here by a scenario, or named with the test that does it elsewhere.
//!
//! A new reason fails `every_reason_has_a_cause` until it stands in one of the two lists.

use fullnat::path::drop_reason::DropReason;
use fullnat::path::heap::Shape;
use fullnat::path::packet::ReceivedChecksum;

use crate::pools::small_pool;
use crate::rig::conversation::Conversation;
use crate::rig::frame::{
    ACK, Ip, RST, SYN, Segment, arp, fix_ipv4_checksum, icmp, ip_packet, make_partial, nd, udp,
    with_extension, with_ipv4_options,
};
use crate::rig::{Families, LAN, LAN_MAC, Options, Rig, WAN, WAN_MAC, ip};

/// Reasons that only the worker's way out gives, which the path does not see, and the tests in `tests/worker` that
/// bring them about.
const BEYOND_THE_PATH: [(&str, &str); 2] = [
    ("tx_queue_full", "what_a_full_device_does_not_take_is_dropped_by_name"),
    ("port_unknown", "a_packet_for_a_port_that_is_not_there_is_dropped_by_name"),
];

const V4: Families = Families::V4;
const V6: Families = Families::ALL[1];

fn tcp() -> Rig {
    Rig::new(&V4.config(2, "tcp", ""))
}

fn v6() -> Rig {
    Rig::new(&V6.config(2, "udp", ""))
}

fn syn(families: Families) -> Vec<u8> {
    Segment::new((families.client(), 5000), (families.vip(), 80), SYN, 1, 0).packet()
}

fn datagram(families: Families) -> Vec<u8> {
    udp((families.client(), 5000), (families.vip(), 80), b"hello")
}

/// A rig after the frame made from a good one has come in.
fn frame(mut rig: Rig, packet: &[u8], edit: impl FnOnce(&mut Vec<u8>)) -> Rig {
    let mut frame = rig.framed(WAN, packet);
    edit(&mut frame);
    rig.frame(WAN, &frame);
    rig
}

fn packet(mut rig: Rig, packet: &[u8]) -> Rig {
    rig.client(packet);
    rig
}

fn with(options: Options, protocol: &str) -> Rig {
    Rig::with(&V4.config(2, protocol, ""), options)
}

/// Runs the scenario of a reason.
fn cause(reason: &str) -> Option<Rig> {
    let usual = Options::default();
    let rig = match reason {
        "neighbour_message" => tcp(),
        "echo_answered" => packet(tcp(), &icmp(V4.client(), V4.vip(), 8, 0, 1, b"ping")),
        "ethernet_runt" => frame(tcp(), &syn(V4), |frame| frame.truncate(13)),
        "ethernet_oversize" => packet(tcp(), &udp((V4.client(), 1), (V4.vip(), 80), &[0; 1480])),
        "super_frame" => {
            let rig = with(Options { partial_checksums: true, ..usual }, "udp");
            packet(rig, &udp((V4.client(), 1), (V4.vip(), 80), &[0; 1480]))
        }
        "ethernet_not_for_us" => frame(tcp(), &syn(V4), |frame| frame[5] ^= 1),
        "ethernet_group_destination" => frame(tcp(), &syn(V4), |frame| frame[..6].fill(0xff)),
        "ethernet_group_source" => frame(tcp(), &syn(V4), |frame| frame[6] |= 1),
        "ethernet_vlan" => frame(tcp(), &syn(V4), |frame| frame[12..16].copy_from_slice(&[0x81, 0, 0, 9])),
        "ethernet_unknown_type" => frame(tcp(), &syn(V4), |frame| frame[12] = 0x77),
        "arp_malformed" => frame(tcp(), &syn(V4), |frame| frame[12..14].copy_from_slice(&[8, 6])),
        "arp_not_for_us" => {
            let mut rig = tcp();
            let ask = arp(1, ([2, 0, 0, 1, 0, 9], [10, 1, 0, 9]), ([0; 6], [10, 1, 0, 8]), [0xff; 6]);
            rig.frame(WAN, &ask);
            rig
        }
        "nd_malformed" => packet(v6(), &icmp(V6.client(), V6.vip(), 135, 0, 0, &[0; 16])),
        "nd_not_for_us" => {
            let mut rig = v6();
            let other = ip("2001:db8:1::99");
            rig.frame(WAN, &nd(135, [2, 0, 0, 1, 0, 1], V6.client(), other, other, WAN_MAC));
            rig
        }
        "neighbour_limited" => {
            let mut rig =
                with(Options { neighbour_messages_per_second: 1, hosts_answer: false, ..usual }, "tcp");
            let ask = arp(1, ([2, 0, 0, 1, 0, 9], [10, 1, 0, 9]), ([0; 6], [10, 1, 0, 254]), [0xff; 6]);
            (0..3).for_each(|_| drop(rig.frame_to(0, WAN, &ask)));
            rig
        }
        "neighbour_queue_full" => {
            let mut rig = with(Options { hosts_answer: false, ..usual }, "udp");
            (0..40).for_each(|_| drop(rig.client(&datagram(V4))));
            rig
        }
        "neighbour_unreachable" => {
            let mut rig = packet(with(Options { hosts_answer: false, ..usual }, "udp"), &datagram(V4));
            rig.pass(5);
            rig
        }
        "neighbour_table_full" => {
            packet(with(Options { hosts_answer: false, neighbours_max: 1, ..usual }, "udp"), &datagram(V4))
        }
        "ipv4_header" => frame(tcp(), &syn(V4), |frame| frame[14] = 0x44),
        "ipv4_checksum" => frame(tcp(), &syn(V4), |frame| frame[24] ^= 1),
        "ipv4_source_route" => packet(tcp(), &with_ipv4_options(&syn(V4), &[131, 7, 4, 10, 9, 9, 9, 0])),
        "ipv4_options" => packet(tcp(), &with_ipv4_options(&syn(V4), &[7, 1, 0, 0])),
        "ipv6_header" => frame(v6(), &datagram(V6), |frame| frame[14] = 0x50),
        "ipv6_extension" => packet(v6(), &with_extension(&datagram(V6), 60, &[0, 99, 0, 0, 0, 0, 0, 0])),
        "ipv6_routing_header" => packet(v6(), &with_extension(&datagram(V6), 43, &[0, 0, 0, 1, 0, 0, 0, 0])),
        "ip_fragment" => {
            let mut fragment = datagram(V4);
            fragment[6] = 0x20;
            fix_ipv4_checksum(&mut fragment);
            packet(tcp(), &fragment)
        }
        "ip_ttl_exceeded" => {
            packet(tcp(), &Segment::new((V4.client(), 1), (V4.vip(), 80), SYN, 1, 0).ttl(1).packet())
        }
        "ip_martian_source" => {
            packet(tcp(), &Segment::new((ip("127.0.0.1"), 1), (V4.vip(), 80), SYN, 1, 0).packet())
        }
        "ip_spoofed_source" => {
            packet(tcp(), &Segment::new((V4.rip(), 1), (V4.vip(), 80), SYN, 1, 0).packet())
        }
        "ip_not_for_us" => {
            packet(tcp(), &Segment::new((V4.client(), 1), (ip("10.1.0.7"), 80), SYN, 1, 0).packet())
        }
        "ip_unknown_protocol" => {
            packet(tcp(), &ip_packet(V4.client(), V4.vip(), 47, Ip::default(), &[0; 20]))
        }
        "ip_too_big" => {
            let config = V4.config(2, "udp", "").replace("mtu = 1500", "mtu = 9000");
            let rig = Rig::with(&config, Options { mtu: [9000, 1500], ..usual });
            packet(rig, &udp((V4.client(), 1), (V4.vip(), 80), &[0; 1480]))
        }
        "no_route" => {
            let config = V4.config(2, "udp", "");
            let far = udp((ip("198.51.100.7"), 1), (V4.vip(), 80), b"x");
            let mut rig = packet(Rig::new(&config), &far);
            rig.apply(&config.replace("\"0.0.0.0/0\"", "\"10.9.0.0/16\""));
            packet(rig, &far)
        }
        "tcp_header" => frame(tcp(), &syn(V4), |frame| frame[46] = 0x40),
        "tcp_flags" => frame(tcp(), &syn(V4), |frame| frame[47] = 0),
        "udp_header" => frame(tcp(), &datagram(V4), |frame| frame[38..40].fill(0)),
        "udp_checksum_missing" => frame(v6(), &datagram(V6), |frame| frame[60..62].fill(0)),
        "l4_checksum" => {
            let mut rig = with(Options { partial_checksums: true, ..usual }, "udp");
            rig.client(&datagram(V4));
            let mut partial = datagram(V4);
            make_partial(&mut partial);
            let mut buffer = rig.ios[0].receive(&rig.framed(WAN, &partial));
            buffer.checksum = ReceivedChecksum::Bad;
            rig.buffer(0, WAN, buffer);
            rig
        }
        "land" => packet(tcp(), &Segment::new((V4.vip(), 80), (V4.vip(), 80), SYN, 1, 0).packet()),
        "no_service" => packet(tcp(), &datagram(V4)),
        "no_session" => packet(tcp(), &Segment::new((V4.client(), 1), (V4.vip(), 80), ACK, 1, 1).packet()),
        "no_session_outbound" => {
            let mut rig = tcp();
            rig.server(&Segment::new((V4.rip(), 1), (ip("10.2.0.100"), 80), ACK, 1, 1).packet());
            rig
        }
        "no_real_server" => packet(Rig::new(&(V4.config(2, "tcp", "") + "weight = 0\n")), &syn(V4)),
        "no_local_port" => {
            let mut rig = Rig::new(&small_pool(&V4.config(2, "tcp", ""), 1));
            Conversation::begin(&mut rig, V4, 1);
            packet(rig, &syn(V4))
        }
        "session_table_full" => {
            let mut rig = Rig::new(&V4.config(1, "tcp", ""));
            (0..1025).for_each(|cport| {
                rig.client(&Segment::new((V4.client(), cport), (V4.vip(), 80), SYN, 1, 0).packet());
            });
            rig
        }
        "session_reset" => {
            let config = V4.config(2, "tcp", "on_remove = \"reset\"");
            let mut rig = Rig::new(&config);
            let flow = Conversation::open(&mut rig, V4, 1);
            rig.apply(&config.replace("10.2.0.11:8080", "10.2.0.12:8080"));
            rig.client(&flow.inbound(ACK, 1, 1).packet());
            rig
        }
        "rst_outside_window" => {
            let mut rig = tcp();
            let flow = Conversation::open(&mut rig, V4, 1);
            rig.client(&flow.inbound(RST, 1 << 30, 0).packet());
            rig
        }
        "proxy_header_first" => {
            let mut rig = Rig::new(&V4.config(2, "tcp", crate::proxy::V2));
            let flow = Conversation::begin(&mut rig, V4, 1);
            rig.client(&flow.inbound(ACK, 1, 1).payload(b"PROXY").packet());
            rig
        }
        "proxy_header_awaited" | "proxy_header_malformed" => {
            let mut rig = Rig::new(&V4.config(2, "tcp", &crate::front::trusting("")));
            let flow = Conversation::begin(&mut rig, V4, 1);
            rig.server(&flow.outbound(SYN | ACK, 0, 1).packet());
            rig.client(&flow.inbound(ACK, 1, 1).packet());
            rig.client(&flow.inbound(ACK, 1, 1).payload(b"GET").packet());
            rig
        }
        "icmp_malformed" => packet(tcp(), &icmp(V4.client(), V4.vip(), 3, 3, 0, b"")),
        "icmp_checksum" => frame(tcp(), &icmp(V4.client(), V4.vip(), 8, 0, 1, b"x"), |frame| frame[36] ^= 1),
        "icmp_unhandled" => packet(tcp(), &icmp(V4.client(), V4.vip(), 13, 0, 1, b"x")),
        "icmp_no_session" => {
            let quote = udp((V4.vip(), 80), (V4.client(), 1), b"x");
            packet(tcp(), &icmp(V4.client(), V4.vip(), 3, 3, 0, &quote))
        }
        "hand_off_ring_full" => {
            let mut rig = tcp();
            rig.ios.iter_mut().for_each(|io| io.ring_room = Some(0));
            (1..20).for_each(|cport| {
                rig.client(&Segment::new((V4.client(), cport), (V4.vip(), 80), SYN, 1, 0).packet());
            });
            rig
        }
        "packet_pool_empty" => {
            let mut rig = tcp();
            let flow = Conversation::open(&mut rig, V4, 1);
            let answer = flow.reply(&mut rig, ACK, 1, 1);
            rig.ios.iter_mut().for_each(|io| io.buffers_max = Some(0));
            packet(rig, &icmp(V4.client(), V4.vip(), 3, 3, 0, answer.packet()))
        }
        "headroom" => {
            let mut rig = Rig::new(&Families::ALL[2].config(2, "udp", ""));
            rig.ios.iter_mut().for_each(|io| io.shape = Shape { headroom: 0, ..Shape::default() });
            packet(rig, &datagram(V4))
        }
        _ => return None,
    };
    assert_eq!(rig.framed(LAN, &syn(V4))[..6], LAN_MAC);
    Some(rig)
}

#[test]
fn every_reason_has_a_cause() {
    let outlet = include_str!("../worker/outlet.rs");
    for (reason, test) in BEYOND_THE_PATH {
        assert!(outlet.contains(&format!("#[test]\nfn {test}()")), "{reason}: no test {test}");
    }
    for reason in DropReason::ALL {
        let exempt = BEYOND_THE_PATH.iter().any(|(name, _)| *name == reason.name());
        match cause(reason.name()) {
            Some(rig) => {
                assert!(rig.dropped(*reason) > 0, "the scenario of {} does not produce it", reason.name());
                assert!(!exempt, "{} is produced after all", reason.name());
                rig.finish();
            }
            None => assert!(exempt, "nothing produces {}: add its scenario here", reason.name()),
        }
    }
}
