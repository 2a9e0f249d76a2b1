//! The hash against Microsoft's vectors and a bit-by-bit reference; linearity; even classes; tables for devices.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::wire::Protocol;

/// The hash by its definition: one input bit at a time.
fn reference(key: &[u8], input: &[u8]) -> u32 {
    let bit = |bytes: &[u8], at: usize| bytes[at / 8] >> (7 - at % 8) & 1;
    let window = |at: usize| (at..at + 32).fold(0u32, |word, at| word << 1 | u32::from(bit(key, at)));
    (0..input.len() * 8).filter(|&at| bit(input, at) == 1).fold(0, |hash, at| hash ^ window(at))
}

fn tuple(src: IpAddr, sport: u16, dst: IpAddr, dport: u16) -> Tuple {
    Tuple { src: src.into(), dst: dst.into(), sport, dport, protocol: Protocol::Tcp }
}

fn address() -> impl Strategy<Value = (IpAddr, IpAddr)> {
    prop_oneof![
        any::<(Ipv4Addr, Ipv4Addr)>().prop_map(|(a, b)| (a.into(), b.into())),
        any::<(Ipv6Addr, Ipv6Addr)>()
            .prop_filter("mapped", |(a, b)| a.to_ipv4_mapped().is_none() && b.to_ipv4_mapped().is_none())
            .prop_map(|(a, b)| (a.into(), b.into())),
    ]
}

/// Microsoft, "Verifying the RSS Hash Calculation": destination, source, hash over addresses and TCP ports.
#[test]
fn the_hash_is_the_one_of_the_specification() {
    let steering = Steering::default();
    let cases = [
        ("161.142.100.80", 1766, "66.9.149.187", 2794, 0x51cc_c178),
        ("65.69.140.83", 4739, "199.92.111.2", 14230, 0xc626_b0ea),
        ("12.22.207.184", 38024, "24.19.198.95", 12898, 0x5c2b_394a),
        ("209.142.163.6", 2217, "38.27.205.30", 48228, 0xafc7_327f),
        ("202.188.127.2", 1303, "153.39.163.191", 44251, 0x10e8_28a2),
        ("3ffe:2501:200:3::1", 1766, "3ffe:2501:200:1fff::7", 2794, 0x4020_7d3d),
        ("ff02::1", 4739, "3ffe:501:8::260:97ff:fe40:efab", 14230, 0xdde5_1bbf),
        ("fe80::200:f8ff:fe21:67cf", 38024, "3ffe:1900:4545:3:200:f8ff:fe21:67cf", 44251, 0x02d1_feef),
    ];
    for (dst, dport, src, sport, hash) in cases {
        let tuple = tuple(src.parse().unwrap(), sport, dst.parse().unwrap(), dport);
        assert_eq!(steering.hash(&tuple), hash, "{tuple:?}");
    }
}

proptest! {
    #[test]
    fn the_hash_is_the_definition(key in any::<[u8; 32]>(), (src, dst) in address(), sport: u16, dport: u16) {
        let steering = Steering::random(4, 128, key).unwrap();
        let mut input = Vec::new();
        for address in [src, dst] {
            match address {
                IpAddr::V4(v4) => input.extend(v4.octets()),
                IpAddr::V6(v6) => input.extend(v6.octets()),
            }
        }
        input.extend(sport.to_be_bytes());
        input.extend(dport.to_be_bytes());
        prop_assert_eq!(steering.hash(&tuple(src, sport, dst, dport)), reference(steering.key(), &input));
    }

    #[test]
    fn home_is_base_and_port(
        seed in any::<[u8; 32]>(),
        workers in 1usize..=65,
        reta_bits in 7u32..=9,
        (rip, lip) in address(),
        rport: u16,
        lport: u16,
    ) {
        let steering = Steering::random(workers, 1 << reta_bits, seed).unwrap();
        let base = steering.base_class(&rip.into(), &lip.into(), rport);
        let entry = base ^ steering.class_of_port(rip.is_ipv4(), lport);
        prop_assert_eq!(steering.reta()[usize::from(entry)], steering.home(&tuple(rip, rport, lip, lport)));
    }

    #[test]
    fn every_class_has_equally_many_ports(seed in any::<[u8; 32]>(), reta_bits in 7u32..=9, v4: bool) {
        let steering = Steering::random(2, 1 << reta_bits, seed).unwrap();
        let layout = steering.port_layout(v4);
        let mut ports_of = vec![0; 1 << reta_bits];
        for port in 0..=u16::MAX {
            ports_of[usize::from(steering.class_of_port(v4, port))] += 1;
            prop_assert_eq!(layout.port_at(layout.index_of(port)), port);
            prop_assert_eq!(layout.index_of(port) >> layout.position_bits(), steering.class_of_port(v4, port));
        }
        prop_assert!(ports_of.iter().all(|&ports| ports == 65536 >> reta_bits));
    }
}

#[test]
fn one_worker_owns_everything() {
    let steering = Steering::default();
    let any = tuple("10.0.0.1".parse().unwrap(), 1, "10.0.0.2".parse().unwrap(), 2);
    assert_eq!(steering.home(&any), WorkerId(0));
    assert_eq!(steering.workers(), 1);
}

#[test]
fn keys_that_do_not_spread_ports_are_refused() {
    assert_eq!(Steering::with_key(2, 128, [0; KEY_LEN]).unwrap_err(), SteeringError::WeakKey);
    assert_eq!(Steering::with_key(2, 512, [0xff; KEY_LEN]).unwrap_err(), SteeringError::WeakKey);
}

#[test]
fn tables_of_wrong_size_are_refused() {
    let refused = |workers, reta_len| Steering::random(workers, reta_len, [1; 32]).unwrap_err();
    assert_eq!(refused(2, 64), SteeringError::RetaLength(64));
    assert_eq!(refused(2, 129), SteeringError::RetaLength(129));
    assert_eq!(refused(2, 1024), SteeringError::RetaLength(1024));
    assert_eq!(refused(0, 128), SteeringError::Workers { workers: 0, reta_len: 128 });
    assert_eq!(refused(129, 128), SteeringError::Workers { workers: 129, reta_len: 128 });
    let mut reta = [WorkerId(0); 128];
    reta[5] = WorkerId(2);
    assert_eq!(Steering::with_reta(&reta, WELL_KNOWN_KEY).unwrap_err(), SteeringError::IdleWorker(1));
}

#[test]
fn a_device_table_gives_the_same_home() {
    let steering = Steering::random(3, 256, [7; 32]).unwrap();
    for device_len in [256, 512, 2048] {
        let table = steering.device_reta(device_len).unwrap();
        for hash in (0..100_000u32).map(|i| i.wrapping_mul(0x9e37_79b9)) {
            assert_eq!(table[hash as usize % device_len], steering.home_of_hash(hash).0);
        }
    }
    assert_eq!(steering.device_reta(128), None, "three workers do not repeat after 128 entries");
    assert_eq!(steering.device_reta(100), None);
    let even = Steering::random(4, 256, [7; 32]).unwrap();
    assert_eq!(even.device_reta(64).unwrap()[..5], [0, 1, 2, 3, 0]);
}
