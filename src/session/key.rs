//! What a session is found by: its two tuples, and the keyed hash of a tuple.
//!
//! The hash decides which cache lines a packet touches, so a stranger must not be able to choose tuples that
//! meet in one bucket. It is a folded multiplication (64 x 64 to 128 bits, halves XORed) of lanes masked with
//! secret seeds: not linear, unlike a CRC or Toeplitz, whose collisions are the same under every seed. Two
//! multiplications for IPv4, three for IPv6.

use std::fmt;

use super::entry::pair;
use crate::wire::Tuple;

/// The two flows of one session, each as its packets show it on arrival.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keys {
    /// from the client: CIP:cport to VIP:vport
    pub inbound: Tuple,
    /// from the real server: RIP:rport to LIP:lport
    pub outbound: Tuple,
}

/// What the hash of a tuple under one table's seed says: where its key stands in that table. Meaningless to another one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct KeyHash {
    /// the bucket where the key is looked for first
    pub(super) home: u32,
    /// what stands for the key in its bucket: fifteen bits that do not choose the bucket, and one that keeps it from being 0
    pub(super) tag: u16,
}

impl KeyHash {
    /// Of no key in particular.
    pub const EMPTY: KeyHash = KeyHash { home: 0, tag: 1 };

    /// Of 64 random bits, in a table of so many buckets. A product chooses one instead of a modulus, so that any number of
    /// buckets will do.
    #[inline(always)]
    pub(super) const fn of(hash: u64, buckets: u32) -> KeyHash {
        KeyHash { home: (((hash >> 32) * buckets as u64) >> 32) as u32, tag: hash as u16 | 1 }
    }
}

/// The hash function of one table, with its secret.
#[derive(Clone, Copy)]
pub(super) struct KeyHasher {
    seed: [u64; 4],
    buckets: u32,
}

impl KeyHasher {
    /// The digits of pi keep a seed of zeros, as a test may give, from multiplying by zero.
    pub(super) const fn new(seed: [u64; 4], buckets: u32) -> Self {
        let [s0, s1, s2, s3] = seed;
        KeyHasher {
            seed: [
                s0 ^ 0x243f_6a88_85a3_08d3,
                s1 ^ 0x1319_8a2e_0370_7344,
                s2 ^ 0xa409_3822_299f_31d0,
                s3 ^ 0x082e_fa98_ec4e_6c89,
            ],
            buckets,
        }
    }

    #[inline(always)]
    pub(super) fn hash(&self, tuple: &Tuple, v6: bool) -> KeyHash {
        KeyHash::of(if v6 { self.hash_wide(tuple) } else { self.hash_v4(tuple) }, self.buckets)
    }

    /// Twelve bytes and the protocol.
    #[inline(always)]
    fn hash_v4(&self, tuple: &Tuple) -> u64 {
        let [s0, s1, s2, s3] = self.seed;
        let src = u32::from_ne_bytes(tuple.src.v4_octets());
        let dst = u32::from_ne_bytes(tuple.dst.v4_octets());
        fold(fold(pair(src, dst) ^ s0, rest(tuple, s1)) ^ s2, s3)
    }

    /// All thirty-six bytes and the protocol. In line: a tuple that is handed over in memory is written in other pieces
    /// than it is read in, and every hash would wait for the stores.
    #[inline(always)]
    fn hash_wide(&self, tuple: &Tuple) -> u64 {
        let [s0, s1, s2, s3] = self.seed;
        let (src_high, src_low) = halves(tuple.src.octets());
        let (dst_high, dst_low) = halves(tuple.dst.octets());
        let src = fold(src_high ^ s0, src_low ^ s1);
        let dst = fold(dst_high ^ s2, dst_low ^ s3);
        // the rotation keeps the hash of a flow apart from that of its answers
        fold(src ^ rest(tuple, s2), dst.rotate_left(23) ^ s0)
    }
}

impl fmt::Debug for KeyHasher {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHasher")
    }
}

/// Whether a tuple is one of IPv4 packets; what has an IPv6 address anywhere is not.
#[inline(always)]
pub(super) fn is_v4(tuple: &Tuple) -> bool {
    tuple.src.is_v4() && tuple.dst.is_v4()
}

/// Ports in one lane with a seed of the protocol: where that is known, so is the seed before the first packet.
#[inline(always)]
fn rest(tuple: &Tuple, seed: u64) -> u64 {
    let ports = u32::from(tuple.sport) << 16 | u32::from(tuple.dport);
    u64::from(ports) ^ (seed ^ u64::from(tuple.protocol as u8) << 32)
}

#[inline(always)]
fn halves(octets: &[u8; 16]) -> (u64, u64) {
    let all = u128::from_ne_bytes(*octets);
    ((all >> 64) as u64, all as u64)
}

#[inline(always)]
const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    (product >> 64) as u64 ^ product as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Address, Protocol};

    const SEEDS: [[u64; 4]; 3] = [
        [0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb, 0x2545_f491_4f6c_dd1d],
        [0; 4],
        [0x4528_21e6_38d0_1377, 0xbe54_66cf_34e9_0c6c, 0xc0ac_29b7_c97c_50dd, 0x3f84_d5b5_b547_0917],
    ];

    fn hash(hasher: &KeyHasher, tuple: &Tuple) -> KeyHash {
        hasher.hash(tuple, !is_v4(tuple))
    }

    fn v4(n: u32) -> Tuple {
        let [_, _, high, low] = n.to_be_bytes();
        Tuple {
            src: Address::from_v4([10, 0, high, low]),
            dst: Address::from_v4([10, 1, 0, 100]),
            sport: 1024 + (n >> 16) as u16,
            dport: 80,
            protocol: Protocol::Tcp,
        }
    }

    fn v6(n: u32) -> Tuple {
        let mut src = [0x20; 16];
        src[12..].copy_from_slice(&n.to_be_bytes());
        Tuple { src: Address::from_v6(src), dst: Address::from_v6([0xfd; 16]), ..v4(0) }
    }

    /// Pearson's chi-square of `counts` against the uniform distribution, in standard deviations from its
    /// mean.
    fn chi_square_deviation(counts: &[u32]) -> f64 {
        let expected = counts.iter().map(|&n| f64::from(n)).sum::<f64>() / counts.len() as f64;
        let chi: f64 = counts.iter().map(|&n| (f64::from(n) - expected).powi(2) / expected).sum();
        let freedom = (counts.len() - 1) as f64;
        (chi - freedom) / (2.0 * freedom).sqrt()
    }

    #[test]
    fn neighbouring_clients_spread_evenly_over_buckets_and_tags() {
        for seed in SEEDS {
            let hasher = KeyHasher::new(seed, 1009);
            for tuple in [v4 as fn(u32) -> Tuple, v6] {
                let (mut buckets, mut tags) = (vec![0u32; 1009], vec![0u32; 1 << 10]);
                for n in 0..200_000 {
                    let hash = hash(&hasher, &tuple(n));
                    buckets[hash.home as usize] += 1;
                    tags[usize::from(hash.tag >> 6)] += 1;
                }
                assert!(
                    chi_square_deviation(&buckets).abs() < 5.0,
                    "buckets {}",
                    chi_square_deviation(&buckets)
                );
                assert!(chi_square_deviation(&tags).abs() < 5.0, "tags {}", chi_square_deviation(&tags));
            }
        }
    }

    #[test]
    fn every_field_and_the_direction_change_the_hash() {
        let hasher = KeyHasher::new(SEEDS[0], u32::MAX);
        for tuple in [v4(7), v6(7)] {
            let others = [
                Tuple { src: Address::from_v4([10, 0, 0, 8]), ..tuple },
                Tuple { dst: Address::from_v4([10, 1, 0, 101]), ..tuple },
                Tuple { sport: 1025, ..tuple },
                Tuple { dport: 81, ..tuple },
                Tuple { protocol: Protocol::Udp, ..tuple },
                tuple.reversed(),
            ];
            for other in others {
                assert_ne!(hash(&hasher, &tuple), hash(&hasher, &other), "{other:?}");
            }
            assert_eq!(hash(&hasher, &tuple), hash(&hasher, &tuple.clone()));
            assert_ne!(hash(&hasher, &tuple), hash(&KeyHasher::new(SEEDS[1], u32::MAX), &tuple));
        }
    }

    /// What a linear hash cannot do: tuples that collide under one seed are apart under another.
    #[test]
    fn collisions_depend_on_the_seed() {
        let [one, two, _] = SEEDS.map(|seed| KeyHasher::new(seed, 256));
        let home = hash(&one, &v4(0)).home;
        let colliding: Vec<Tuple> = (0..100_000).map(v4).filter(|t| hash(&one, t).home == home).collect();
        assert!(colliding.len() > 200);
        let mut elsewhere = vec![0u32; 256];
        colliding.iter().for_each(|t| elsewhere[hash(&two, t).home as usize] += 1);
        assert!(*elsewhere.iter().max().unwrap() < 16, "they stay together: {elsewhere:?}");
    }

    #[test]
    fn a_tag_is_never_the_mark_of_a_free_slot() {
        assert_eq!(KeyHash::of(0xffff_0000_0000_0000, 10).tag, 1);
        assert_eq!(KeyHash::of(0xffff_0000_0000_abcd, 10).tag, 0xabcd);
        assert_eq!(KeyHash::of(0xffff_0000_0000_abcc, 10).tag, 0xabcd);
        assert_eq!(KeyHash::of(u64::MAX, 10).home, 9);
    }
}
