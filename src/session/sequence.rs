//! Sequence numbers and timestamps toward real servers.
//!
//! A lease that is used again meets a real server that may still hold the last connection in TIME_WAIT. It
//! takes the new SYN only if that cannot be an old duplicate: its sequence number is beyond the last one, or
//! its timestamp is newer (RFC 9293 §3.10.7.4, RFC 6191). Clients know nothing of each other, so their own
//! numbers would be right half of the time. The gateway chooses instead: numbers that only rise for one
//! lease, and that nobody can guess (RFC 6528).
//!
//! Stateless but for the secret, which all workers share. One SipHash each, tens of nanoseconds, at the
//! beginning of a session only.

use std::fmt;

use siphasher::sip::SipHasher24;

use crate::wire::Tuple;

/// What a hash is for.
#[derive(Clone, Copy)]
enum Purpose {
    SequenceNumber,
    Timestamp,
}

/// Chooses where the sequence numbers and timestamps of a session toward its real server begin.
#[derive(Clone)]
pub struct IsnGenerator {
    secret: [u8; 16],
}

impl IsnGenerator {
    /// A generator with its secret: random, told to nobody.
    pub const fn new(secret: [u8; 16]) -> Self {
        IsnGenerator { secret }
    }

    /// The initial sequence number of a connection on `lease`, LIP:lport to RIP:rport, that begins at
    /// `nanos`.
    ///
    /// ISN = M + F(LIP, lport, RIP, rport, secret), RFC 6528 §3, with Linux' clock M of 64 ns
    /// (`net/core/secure_seq.c`): it comes round in 275 s, longer than TIME_WAIT, and outruns a connection of
    /// up to 125 Mbit/s. A faster one leaves the next ISN behind its last number; then the port rests
    /// ([`reuse_acceptable_to_all`]).
    #[inline]
    pub fn isn(&self, lease: &Tuple, nanos: u64) -> u32 {
        let ports = u32::from(lease.sport) << 16 | u32::from(lease.dport);
        ((nanos >> 6) as u32).wrapping_add(self.hash(Purpose::SequenceNumber, ports, lease))
    }

    /// The first TSval of a connection on `lease`, LIP:lport to RIP:rport, that begins at `millis`; the
    /// session adds the difference to its client's own.
    ///
    /// One clock for each pair of hosts, whatever the ports, as Linux does (`secure_tcp_ts_off`): to a real
    /// server a local address looks like one host whose timestamps never go back, so PAWS (RFC 7323 §5) has
    /// no reason to drop one client's segments for another's. A client whose own clock is faster than 1 kHz
    /// can leave the lease ahead of this clock: compare with the last TSval ([`reuse_acceptable`]).
    #[inline]
    pub fn timestamp_base(&self, lease: &Tuple, millis: u32) -> u32 {
        millis.wrapping_add(self.hash(Purpose::Timestamp, 0, lease))
    }

    /// Of the two hosts and `ports`; `purpose` keeps the two outputs from telling about each other.
    #[inline]
    fn hash(&self, purpose: Purpose, ports: u32, lease: &Tuple) -> u32 {
        // In one piece: whole words are hashed at half the cost of as many single writes.
        let mut bytes = [0; 40];
        bytes[..4].copy_from_slice(&ports.to_ne_bytes());
        bytes[4] = purpose as u8;
        bytes[8..24].copy_from_slice(lease.src.octets());
        bytes[24..].copy_from_slice(lease.dst.octets());
        SipHasher24::new_with_key(&self.secret).hash(&bytes) as u32
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
    use crate::wire::{Address, Protocol};
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
