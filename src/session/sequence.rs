//! Sequence numbers and timestamps toward real servers.
//!
//! A lease that is used again meets a real server that may still hold the last connection in TIME_WAIT. It
//! takes the new SYN only if that cannot be an old duplicate: its sequence number is beyond the last one, or
//! its timestamp is newer (RFC 9293 §3.10.7.4, RFC 6191). Clients know nothing of each other, so their own
//! numbers would be right half of the time. The gateway chooses instead: numbers that only rise for one
//! lease, and that nobody can guess (RFC 6528).
//!
//! A function of the lease, the time and a secret, which all workers share. One SipHash each, at the beginning of a
//! session only: their first rounds and the whole of the timestamp's are those of the two hosts, of which a gateway has
//! few, and are remembered.

use std::fmt;

use crate::clock::Now;
use crate::wire::{Address, Tuple};

/// Chooses where the sequence numbers and timestamps of a session toward its real server begin.
#[derive(Clone)]
pub struct IsnGenerator {
    keyed: Sip,
    /// pairs of hosts met last, each in the one place where it is looked for
    pairs: Box<[Pair; PAIRS]>,
}

/// Pairs of hosts that are remembered.
const PAIRS: usize = 512;

/// What the hashes of all connections between two hosts have in common.
#[derive(Clone, Copy)]
struct Pair {
    hosts: [Address; 2],
    /// after the hosts
    state: Sip,
    /// bytes of a whole message, as its last word holds them
    len: u64,
    timestamp: u32,
}

impl IsnGenerator {
    /// A generator with its secret: random, told to nobody.
    pub fn new(secret: [u8; 16]) -> Self {
        let keyed = Sip::keyed(u128::from_le_bytes(secret));
        let nobody = Pair::of(keyed, [Address::UNSPECIFIED; 2]);
        IsnGenerator { keyed, pairs: Box::new([nobody; PAIRS]) }
    }

    /// [`IsnGenerator::isn`] and [`IsnGenerator::timestamp_base`] of a connection that begins now.
    #[inline]
    pub fn numbers(&mut self, lease: &Tuple, now: Now) -> (u32, u32) {
        let [isn, timestamp] = self.hashes(lease);
        (((now.nanos >> 6) as u32).wrapping_add(isn), now.millis().wrapping_add(timestamp))
    }

    /// The initial sequence number of a connection on `lease`, LIP:lport to RIP:rport, that begins at
    /// `nanos`.
    ///
    /// ISN = M + F(LIP, lport, RIP, rport, secret), RFC 6528 §3, with Linux' clock M of 64 ns
    /// (`net/core/secure_seq.c`): it comes round in 275 s, longer than TIME_WAIT, and outruns a connection of
    /// up to 125 Mbit/s. A faster one leaves the next ISN behind its last number; then the port rests
    /// ([`reuse_acceptable_to_all`]).
    pub fn isn(&mut self, lease: &Tuple, nanos: u64) -> u32 {
        self.numbers(lease, Now { nanos }).0
    }

    /// The first TSval of a connection on `lease`, LIP:lport to RIP:rport, that begins at `millis`; the
    /// session adds the difference to its client's own.
    ///
    /// One clock for each pair of hosts, whatever the ports, as Linux does (`secure_tcp_ts_off`): to a real
    /// server a local address looks like one host whose timestamps never go back, so PAWS (RFC 7323 §5) has
    /// no reason to drop one client's segments for another's. A client whose own clock is faster than 1 kHz
    /// can leave the lease ahead of this clock: compare with the last TSval ([`reuse_acceptable`]).
    pub fn timestamp_base(&mut self, lease: &Tuple, millis: u32) -> u32 {
        let [_, timestamp] = self.hashes(lease);
        millis.wrapping_add(timestamp)
    }

    /// Of the two hosts and their ports, and of the two hosts alone: SipHash of messages that begin with the hosts, so that
    /// both begin with the same rounds. The family in their ends keeps IPv4 apart from IPv6, the purpose the two outputs
    /// from telling about each other.
    #[inline(always)]
    fn hashes(&mut self, lease: &Tuple) -> [u32; 2] {
        let hosts = [lease.src, lease.dst];
        let pair = &mut self.pairs[place(&hosts)];
        if pair.hosts != hosts {
            *pair = Pair::of(self.keyed, hosts);
        }
        let ports = u64::from(lease.sport) << 16 | u64::from(lease.dport);
        [pair.state.take(pair.len | ports).end() as u32, pair.timestamp]
    }
}

impl Pair {
    #[cold]
    #[inline(never)]
    fn of(keyed: Sip, hosts: [Address; 2]) -> Pair {
        let (state, len) = if hosts.iter().all(Address::is_v4) {
            let [src, dst] = hosts.map(|host| u64::from(u32::from_le_bytes(host.v4_octets())));
            (keyed.take(dst << 32 | src), 13)
        } else {
            let words = hosts.map(|host| u128::from_le_bytes(*host.octets()));
            let state = words
                .into_iter()
                .fold(keyed, |state, host| state.take(host as u64).take((host >> 64) as u64));
            (state, 37)
        };
        // The last word holds what is left of the message, here the purpose alone, and its length.
        let len = len << 56;
        Pair { hosts, state, len, timestamp: state.take(len | 1 << 32).end() as u32 }
    }
}

/// Where a pair of hosts is remembered: any function will do that keeps neighbouring addresses apart.
#[inline(always)]
fn place(hosts: &[Address; 2]) -> usize {
    let [src, dst] = hosts.map(|host| u32::from_be_bytes(host.v4_octets()));
    (src.wrapping_mul(0x9e37_79b9).wrapping_add(dst)).wrapping_mul(0x85eb_ca6b) as usize
        >> (32 - PAIRS.ilog2())
}

/// SipHash-2-4 (Aumasson and Bernstein, 2012), word by word. A state can be gone on with in several ways.
#[derive(Clone, Copy)]
struct Sip([u64; 4]);

impl Sip {
    const fn keyed(key: u128) -> Sip {
        let (k0, k1) = (key as u64, (key >> 64) as u64);
        Sip([
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ])
    }

    #[inline(always)]
    fn take(self, word: u64) -> Sip {
        let Sip([v0, v1, v2, v3]) = self;
        let Sip([v0, v1, v2, v3]) = Sip([v0, v1, v2, v3 ^ word]).round().round();
        Sip([v0 ^ word, v1, v2, v3])
    }

    #[inline(always)]
    fn end(self) -> u64 {
        let Sip([v0, v1, v2, v3]) = self;
        let Sip([v0, v1, v2, v3]) = Sip([v0, v1, v2 ^ 0xff, v3]).round().round().round().round();
        v0 ^ v1 ^ v2 ^ v3
    }

    #[inline(always)]
    fn round(self) -> Sip {
        let Sip([mut v0, mut v1, mut v2, mut v3]) = self;
        v0 = v0.wrapping_add(v1);
        v2 = v2.wrapping_add(v3);
        v1 = v1.rotate_left(13) ^ v0;
        v3 = v3.rotate_left(16) ^ v2;
        v0 = v0.rotate_left(32).wrapping_add(v3);
        v2 = v2.wrapping_add(v1);
        v3 = v3.rotate_left(21) ^ v0;
        v1 = v1.rotate_left(17) ^ v2;
        Sip([v0, v1, v2.rotate_left(32), v3])
    }
}

impl fmt::Debug for IsnGenerator {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IsnGenerator")
    }
}

/// Whether a real server that holds the last connection on a lease in TIME_WAIT takes a SYN for a new one.
///
/// `last_seq` is the number it expects next (after our FIN), `last_ts` the last TSval it saw, if that
/// connection used timestamps; `new_isn` and `new_ts` are those of the SYN. The rule of Linux
/// (`tcp_timewait_state_process` in `net/ipv4/tcp_minisocks.c`), the strictest of the common stacks: not an
/// older timestamp (PAWS), and either a sequence number beyond the last or a newer timestamp. RFC 6191 §2
/// says the same.
#[inline]
pub const fn reuse_acceptable(
    last_seq: u32,
    new_isn: u32,
    last_ts: Option<u32>,
    new_ts: Option<u32>,
) -> bool {
    let beyond = is_after(new_isn, last_seq);
    match (last_ts, new_ts) {
        (Some(last), Some(new)) if last != new => is_after(new, last),
        _ => beyond,
    }
}

/// As [`reuse_acceptable`], whoever comes next: with timestamps or without.
#[inline]
pub const fn reuse_acceptable_to_all(last_seq: u32, new_isn: u32, last_ts: Option<u32>, new_ts: u32) -> bool {
    reuse_acceptable(last_seq, new_isn, last_ts, Some(new_ts))
        && reuse_acceptable(last_seq, new_isn, last_ts, None)
}

/// Whether `a` comes after `b` in arithmetic modulo 2^32 (RFC 9293 §3.4).
const fn is_after(a: u32, b: u32) -> bool {
    (b.wrapping_sub(a) as i32) < 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Protocol;
    use proptest::prelude::*;

    fn lease(lport: u16) -> Tuple {
        Tuple {
            src: Address::from_v4([10, 2, 0, 100]),
            dst: Address::from_v4([10, 2, 0, 11]),
            sport: lport,
            dport: 8080,
            protocol: Protocol::Tcp,
        }
    }

    fn generator() -> IsnGenerator {
        IsnGenerator::new(*b"sixteen bytes ok")
    }

    #[test]
    fn the_hash_is_siphash() {
        use siphasher::sip::SipHasher24;
        let secret = *b"sixteen bytes ok";
        let v6 =
            Tuple { src: Address::from_v6([0xfd; 16]), dst: Address::from_v6([0x20; 16]), ..lease(2000) };
        for lease in [lease(2000), v6, Tuple { dst: Address::from_v4([10, 2, 0, 11]), ..v6 }] {
            let hosts = match lease.src.is_v4() {
                true => [lease.src.v4_octets(), lease.dst.v4_octets()].concat(),
                false => [*lease.src.octets(), *lease.dst.octets()].concat(),
            };
            let ports = [lease.dport.to_le_bytes(), lease.sport.to_le_bytes()].concat();
            let hash =
                |end: &[u8]| SipHasher24::new_with_key(&secret).hash(&[&hosts[..], end].concat()) as u32;
            let expected = [hash(&[&ports[..], &[0]].concat()), hash(&[0, 0, 0, 0, 1])];
            assert_eq!(IsnGenerator::new(secret).hashes(&lease), expected, "{lease:?}");
        }
    }

    #[test]
    fn what_is_remembered_of_two_hosts_is_told_of_no_others() {
        let mut generator = generator();
        let v6 = |end: [u8; 2]| Address::from_v6([&[0xfd; 14][..], &end].concat().try_into().unwrap());
        // far more than there are places for, each asked twice
        for host in (0..4 * PAIRS as u32).chain(0..4 * PAIRS as u32) {
            let [.., high, low] = host.to_be_bytes();
            let (host, lease) = (Address::from_v4([10, 3, high, low]), lease(2000));
            for lease in [
                Tuple { dst: host, ..lease },
                Tuple { src: host, ..lease },
                Tuple { src: v6([0; 2]), dst: v6([high, low]), ..lease },
                Tuple { src: v6([high, low]), dst: v6([0; 2]), ..lease },
            ] {
                let fresh = IsnGenerator::new(*b"sixteen bytes ok").hashes(&lease);
                assert_eq!(generator.hashes(&lease), fresh, "{lease:?}");
                assert_eq!(generator.hashes(&lease), fresh, "{lease:?}");
            }
        }
    }

    #[test]
    fn an_isn_rises_by_one_every_64_nanoseconds() {
        let first = generator().isn(&lease(2000), 0);
        assert_eq!(generator().isn(&lease(2000), 63), first);
        assert_eq!(generator().isn(&lease(2000), 64), first.wrapping_add(1));
        assert_eq!(generator().isn(&lease(2000), 1_000_000_000), first.wrapping_add(15_625_000));
    }

    #[test]
    fn isns_depend_on_each_part_of_the_lease_and_on_the_secret() {
        let base = lease(2000);
        let others = [
            lease(2001),
            Tuple { dport: 8081, ..base },
            Tuple { src: Address::from_v4([10, 2, 0, 101]), ..base },
            Tuple { dst: Address::from_v4([10, 2, 0, 12]), ..base },
            base.reversed(),
        ];
        for other in others {
            assert_ne!(generator().isn(&base, 0), generator().isn(&other, 0), "{other:?}");
        }
        assert_ne!(generator().isn(&base, 0), IsnGenerator::new([7; 16]).isn(&base, 0));
        assert_ne!(generator().isn(&base, 0), generator().timestamp_base(&base, 0));
    }

    #[test]
    fn isns_of_neighbouring_ports_are_spread_over_all_numbers() {
        let mut eighths = [0u32; 8];
        for lport in 1024..=u16::MAX {
            eighths[(generator().isn(&lease(lport), 0) >> 29) as usize] += 1;
        }
        let expected = (65_536.0 - 1024.0) / 8.0;
        assert!(
            eighths.iter().all(|&n| (f64::from(n) - expected).abs() < 5.0 * expected.sqrt()),
            "{eighths:?}"
        );
    }

    #[test]
    fn conformance_h9_one_clock_of_timestamps_per_pair_of_hosts() {
        let first = generator().timestamp_base(&lease(2000), 5);
        assert_eq!(generator().timestamp_base(&lease(2001), 6), first.wrapping_add(1));
        let other_host = Tuple { dst: Address::from_v4([10, 2, 0, 12]), ..lease(2000) };
        assert_ne!(generator().timestamp_base(&other_host, 5), first);
    }

    /// A closed connection that moved fewer bytes than the clock counted, then the same lease again.
    #[test]
    fn conformance_h8_a_later_isn_of_the_same_lease_is_acceptable() {
        for (secs, megabytes) in [(1, 15), (60, 900), (120, 1_000)] {
            for start in [0, 250_000_000_000, 274_000_000_000] {
                let first = generator().isn(&lease(2000), start);
                let last_seq = first.wrapping_add(megabytes * 1_000_000);
                let again = generator().isn(&lease(2000), start + secs * 1_000_000_000);
                assert!(reuse_acceptable(last_seq, again, None, None), "{secs} s, {megabytes} MB");
            }
        }
    }

    #[test]
    fn conformance_h8_acceptance_is_that_of_linux() {
        let cases = [
            // last_seq, new_isn, last_ts, new_ts, accepted
            (1000, 1001, None, None, true),
            (1000, 1000, None, None, false),
            (1000, 999, None, None, false),
            (u32::MAX, 5, None, None, true),
            (5, u32::MAX, None, None, false),
            (1000, 999, Some(7), Some(8), true),
            (1000, 1001, Some(7), Some(8), true),
            (1000, 1001, Some(8), Some(7), false), // PAWS
            (1000, 1001, Some(7), Some(7), true),
            (1000, 999, Some(7), Some(7), false),
            (1000, 999, Some(u32::MAX), Some(0), true),
            (1000, 999, Some(7), None, false), // the new client has no timestamps
            (1000, 1001, Some(7), None, true),
            (1000, 999, None, Some(8), false), // the last one had none
        ];
        for (last_seq, new_isn, last_ts, new_ts, accepted) in cases {
            let got = reuse_acceptable(last_seq, new_isn, last_ts, new_ts);
            assert_eq!(got, accepted, "{last_seq} {new_isn} {last_ts:?} {new_ts:?}");
        }
    }

    #[test]
    fn conformance_h8_a_port_is_free_only_for_whoever_comes_next() {
        let cases = [
            // last_seq, new_isn, last_ts, new_ts, free
            (1000, 999, Some(7), 8, false), // the next client may have no timestamps
            (1000, 1001, Some(7), 8, true),
            (1000, 1001, Some(8), 7, false), // or have them
            (1000, 1001, None, 7, true),
            (1000, 999, None, 7, false),
        ];
        for (last_seq, new_isn, last_ts, new_ts, free) in cases {
            let got = reuse_acceptable_to_all(last_seq, new_isn, last_ts, new_ts);
            assert_eq!(got, free, "{last_seq} {new_isn} {last_ts:?} {new_ts:?}");
        }
    }

    proptest! {
        #[test]
        fn order_modulo_2_32_is_antisymmetric(a: u32, b: u32) {
            prop_assume!(a != b && a.wrapping_sub(b) != 1 << 31);
            prop_assert_ne!(is_after(a, b), is_after(b, a));
            prop_assert_eq!(is_after(a, b), a.wrapping_sub(b) < 1 << 31);
        }
    }
}
