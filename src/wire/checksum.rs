//! One's-complement arithmetic: the Internet checksum in full (RFC 1071) and by difference (RFC 1624).
//!
//! All sums are of 16-bit words in network order, as host integers. A sum is 0 only if every byte is 0; that keeps
//! the two zeros of one's complement apart, so an incremental update gives the very bytes that a full computation would.
//! A checksum field must never be computed afresh for a packet that somebody else made: corruption on the way would
//! be made to look right. [`Delta`] is what the packet path uses.
//!
//! Cost: [`sum`] reads 32 bytes per round and needs no carries; a [`Delta`] is a handful of additions.

use zerocopy::transmute;

use super::Address;
use super::field::get_u32;

/// The one's-complement sum of `bytes`, at most `0xffff`; a missing last byte counts as 0 (RFC 1071 §4.1).
///
/// Sums of pieces add up if every piece but the last has even length.
#[inline]
pub fn sum(bytes: &[u8]) -> u32 {
    // The order of bytes within words does not matter until the end (RFC 1071 §2 (B)): words are loaded as they are.
    let (blocks, rest) = bytes.as_chunks::<32>();
    let mut lanes = [0u64; 4];
    for block in blocks {
        let (words, _) = block.as_chunks::<8>();
        for (lane, word) in lanes.iter_mut().zip(words) {
            let word = u64::from_ne_bytes(*word);
            *lane += (word & 0xffff_ffff) + (word >> 32);
        }
    }
    let mut total = lanes[0] + lanes[1] + lanes[2] + lanes[3];
    let (words, rest) = rest.as_chunks::<4>();
    for word in words {
        total += u64::from(u32::from_ne_bytes(*word));
    }
    total += match *rest {
        [a, b, c] => u64::from(u16::from_ne_bytes([a, b])) + u64::from(u16::from_ne_bytes([c, 0])),
        [a, b] => u64::from(u16::from_ne_bytes([a, b])),
        [a] => u64::from(u16::from_ne_bytes([a, 0])),
        _ => 0,
    };
    u32::from(u16::from_be(fold(total)))
}

/// Brings a sum down to sixteen bits, adding the carries back in. 0 stays 0; no other sum becomes 0.
#[inline(always)]
pub fn fold(sum: impl Into<u64>) -> u16 {
    let sum: u64 = sum.into();
    // Both halves added to themselves crosswise: the lower addition carries into the upper, which is what is wanted.
    fold_u32((sum.wrapping_add(sum.rotate_left(32)) >> 32) as u32)
}

#[inline(always)]
const fn fold_u32(sum: u32) -> u16 {
    (sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16
}

/// One's-complement addition.
#[inline(always)]
const fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + carry as u16
}

/// The Internet checksum of `bytes`, whose own checksum field must be 0 (RFC 1071).
#[inline]
pub fn internet_checksum(bytes: &[u8]) -> u16 {
    !fold_u32(sum(bytes))
}

/// Sum of the pseudo header that TCP, UDP and ICMPv6 checksums cover (RFC 9293 §3.1, RFC 8200 §8.1).
///
/// Both addresses are of one family; `len` is that of the layer-4 header with its payload.
#[inline]
pub fn pseudo_header_sum(src: &Address, dst: &Address, protocol: u8, len: u32) -> u32 {
    address_sum(src) + address_sum(dst) + u32::from(protocol) + (len >> 16) + (len & 0xffff)
}

/// Sum of an address as it stands in a header: 4 or 16 bytes. Less than `0x2_0000`.
#[inline]
pub fn address_sum(address: &Address) -> u32 {
    if address.is_v4() {
        let value = get_u32(&address.v4_octets(), 0);
        (value >> 16) + (value & 0xffff)
    } else {
        sum(address.octets())
    }
}

/// The checksum of a layer-4 header with its payload, whose own checksum field must be 0.
///
/// For UDP the caller sends [`never_zero`] of it.
#[inline]
pub fn l4_checksum(src: &Address, dst: &Address, protocol: u8, segment: &[u8]) -> u16 {
    !fold_u32(sum(segment) + pseudo_header_sum(src, dst, protocol, segment.len() as u32))
}

/// Whether a layer-4 header with its payload carries the right checksum.
///
/// UDP over IPv4 without a checksum (field 0) is the caller's to exempt.
#[inline]
pub fn verify_l4(src: &Address, dst: &Address, protocol: u8, segment: &[u8]) -> bool {
    fold_u32(sum(segment) + pseudo_header_sum(src, dst, protocol, segment.len() as u32)) == 0xffff
}

/// Whether a checksum field holds only the sum of the pseudo header.
///
/// That is what a Linux kernel on the other end of a veth pair or TAP leaves for a device to finish
/// (`CHECKSUM_PARTIAL`). A finished checksum has that value by chance once in 65,535 packets, so the caller asks only
/// on ports where such peers exist.
#[inline]
pub fn is_partial(checksum_field: u16, pseudo_sum: u32) -> bool {
    checksum_field == fold_u32(pseudo_sum)
}

/// A checksum after what it covers changed by `delta` (RFC 1624 eqn. 3: `HC' = ~(~HC + ~m + m')`).
#[inline(always)]
pub const fn adjust(checksum: u16, delta: u16) -> u16 {
    !add(!checksum, delta)
}

/// [`adjust`] for UDP: a datagram without a checksum stays without, and a checksum of 0 is sent as `0xffff` (RFC 768).
#[inline(always)]
pub const fn adjust_udp(checksum: u16, delta: u16) -> u16 {
    // RFC 1624 eqn. 4, `HC' = HC - ~m - m'`: what would be 0 by eqn. 3 is 0xffff by this one.
    if checksum == 0 { 0 } else { add(checksum, complement(delta)) }
}

/// A partial checksum (see [`is_partial`]) after its pseudo header changed by `delta`: the field is not complemented.
#[inline(always)]
pub const fn adjust_partial(checksum_field: u16, delta: u16) -> u16 {
    add(checksum_field, delta)
}

/// The other form of zero for a computed UDP checksum of 0, which would read as "none" (RFC 768).
#[inline(always)]
pub const fn never_zero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

/// The difference for the way back: a change of `delta` undone.
#[inline(always)]
pub const fn complement(delta: u16) -> u16 {
    !delta
}

/// What a change of covered bytes adds to the sum: `~m + m'` for every replaced word (RFC 1624).
///
/// Words of 32 bits are added as they are: the fold makes the same of them as of their halves. Room for 2^31 of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[must_use]
pub struct Delta(u64);

impl Delta {
    /// A word at an even offset changed.
    #[inline(always)]
    pub const fn replace_u16(self, old: u16, new: u16) -> Delta {
        Delta(self.0 + !old as u64 + new as u64)
    }

    /// Four bytes at an even offset changed.
    #[inline(always)]
    pub const fn replace_u32(self, old: u32, new: u32) -> Delta {
        Delta(self.0 + !old as u64 + new as u64)
    }

    /// One address gave way to another, of whichever family, in the pseudo header.
    #[inline(always)]
    pub fn replace_address(self, old: &Address, new: &Address) -> Delta {
        if old.is_v4() && new.is_v4() {
            return self.replace_u32(get_u32(&old.v4_octets(), 0), get_u32(&new.v4_octets(), 0));
        }
        self.replace_u16(fold_u32(address_sum(old)), fold_u32(address_sum(new)))
    }

    /// A word was put in at an even offset.
    #[inline(always)]
    pub const fn insert_u16(self, new: u16) -> Delta {
        Delta(self.0 + new as u64)
    }

    /// Four bytes were put in at an even offset.
    #[inline(always)]
    pub const fn insert_u32(self, new: u32) -> Delta {
        Delta(self.0 + new as u64)
    }

    /// Sixteen bytes were put in at an even offset.
    #[inline(always)]
    pub fn insert_octets(self, new: &[u8; 16]) -> Delta {
        // The order of bytes within words does not matter until the end (RFC 1071 §2 (B)), nor that of words.
        let [first, second]: [[u8; 8]; 2] = transmute!(*new);
        let (sum, carry) = u64::from_ne_bytes(first).overflowing_add(u64::from_ne_bytes(second));
        let sum = u64::from_be(sum + u64::from(carry));
        Delta(self.0 + (sum & 0xffff_ffff) + (sum >> 32))
    }

    /// Another, folded difference on top.
    #[inline(always)]
    pub const fn add_delta(self, delta: u16) -> Delta {
        Delta(self.0 + delta as u64)
    }

    /// Both changes together.
    #[inline(always)]
    pub const fn combine(self, other: Delta) -> Delta {
        Delta(self.0 + other.0)
    }

    /// The same change, had it been made `offset` bytes into the covered bytes: at odd offsets each byte counts in the
    /// other half of its word.
    #[inline(always)]
    pub(super) fn at_offset(self, offset: usize) -> Delta {
        if offset.is_multiple_of(2) { self } else { Delta(u64::from(self.fold().swap_bytes())) }
    }

    /// [`adjust`] by this difference.
    #[inline(always)]
    pub const fn adjust(self, checksum: u16) -> u16 {
        !Delta(self.0 + !checksum as u64).fold()
    }

    /// Sixteen bits, for [`adjust`]. 0 only if nothing was replaced.
    #[inline(always)]
    pub const fn fold(self) -> u16 {
        fold_u32((self.0.wrapping_add(self.0.rotate_left(32)) >> 32) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::checksum::Sum16BitWords;
    use proptest::prelude::*;

    /// RFC 1071 word by word, as slow as can be.
    fn plain_checksum(bytes: &[u8]) -> u16 {
        let mut total = 0u64;
        for pair in bytes.chunks(2) {
            total += u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
        while total > 0xffff {
            total = (total & 0xffff) + (total >> 16);
        }
        !(total as u16)
    }

    fn any_address() -> impl Strategy<Value = Address> {
        prop_oneof![
            any::<[u8; 4]>().prop_map(Address::from_v4),
            any::<[u8; 16]>().prop_map(Address::from_v6),
            Just(Address::from_v4([0; 4])),
            Just(Address::from_v4([0xff; 4])),
        ]
    }

    fn any_octets() -> impl Strategy<Value = [u8; 16]> {
        prop_oneof![Just([0; 16]), Just([0xff; 16]), any::<[u8; 16]>()]
    }

    /// Words that sit where carries and the two zeros are made.
    fn corner_u16() -> impl Strategy<Value = u16> {
        prop_oneof![Just(0u16), Just(1), Just(0x7fff), Just(0x8000), Just(0xfffe), Just(0xffff), any::<u16>()]
    }

    #[test]
    fn the_example_of_rfc_1071_sums_to_ddf2() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(fold(sum(&bytes)), 0xddf2);
    }

    #[test]
    fn folding_carries_round_the_end_and_keeps_zero_apart() {
        for (sum, folded) in [
            (0u64, 0u16),
            (1, 1),
            (0xffff, 0xffff),
            (0x1_0000, 1),
            (0x1_fffe, 0xffff),
            (0xffff_0000, 0xffff),
            (0xffff_ffff, 0xffff),
            (0x8000_8000, 1),
            (1 << 32, 1),
            (u64::MAX, 0xffff),
            (0x8000_0000_8000_0000, 1),
        ] {
            assert_eq!(fold(sum), folded, "{sum:x}");
        }
    }

    #[test]
    fn the_example_of_rfc_1624_gives_0000_and_not_ffff() {
        assert_eq!(adjust(0xdd2f, Delta::default().replace_u16(0x5555, 0x3285).fold()), 0x0000);
    }

    #[test]
    fn conformance_g5_every_length_sums_like_rfc_1071() {
        let bytes: Vec<u8> = (0..1600u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for len in 0..bytes.len() {
            assert_eq!(internet_checksum(&bytes[..len]), plain_checksum(&bytes[..len]), "length {len}");
        }
        assert_eq!(fold(sum(&[0xff; 70_000])), 0xffff);
        assert_eq!(fold(sum(&[0; 70_000])), 0);
    }

    #[test]
    fn conformance_g1_incremental_equals_full_for_all_corner_words() {
        const CORNERS: [u16; 10] = [0, 1, 2, 0x00ff, 0x7fff, 0x8000, 0xff00, 0xfffd, 0xfffe, 0xffff];
        for fixed in CORNERS {
            for old in CORNERS {
                for new in CORNERS {
                    let packet = |word: u16| [fixed.to_be_bytes(), [0x12, 0x34], word.to_be_bytes()].concat();
                    let delta = Delta::default().replace_u16(old, new).fold();
                    let before = internet_checksum(&packet(old));
                    assert_eq!(
                        adjust(before, delta),
                        internet_checksum(&packet(new)),
                        "{fixed:x} {old:x} {new:x}"
                    );
                    assert_eq!(adjust(adjust(before, delta), complement(delta)), before);
                }
            }
        }
    }

    #[test]
    fn conformance_g3_a_missing_udp_checksum_stays_missing() {
        for delta in 0..=u16::MAX {
            assert_eq!(adjust_udp(0, delta), 0);
        }
    }

    #[test]
    fn conformance_g4_a_udp_checksum_that_comes_to_zero_is_sent_as_ffff() {
        for checksum in 1..=u16::MAX {
            for delta in [0, 1, checksum, !checksum, 0xffff] {
                assert_ne!(adjust_udp(checksum, delta), 0, "{checksum:x} {delta:x}");
            }
        }
        // 0xffff as input means the sum is 0 just as well.
        assert_eq!(adjust_udp(0xffff, 5), adjust(0, 5));
    }

    #[test]
    fn a_partial_checksum_is_recognised_and_stays_partial() {
        let [client, server, local] = [[10, 1, 0, 1], [10, 2, 0, 11], [10, 2, 0, 100]].map(Address::from_v4);
        let field = fold(pseudo_header_sum(&client, &server, 6, 1480));
        assert!(is_partial(field, pseudo_header_sum(&client, &server, 6, 1480)));
        assert!(!is_partial(!field, pseudo_header_sum(&client, &server, 6, 1480)));
        let delta = Delta::default().replace_address(&client, &local).fold();
        assert!(is_partial(adjust_partial(field, delta), pseudo_header_sum(&local, &server, 6, 1480)));
    }

    proptest! {
        #[test]
        fn conformance_g1_incremental_equals_full(
            mut bytes in prop::collection::vec(any::<u8>(), 64..1500),
            edits in prop::collection::vec((0usize..64, any::<u32>(), corner_u16()), 1..12),
        ) {
            bytes[0] |= 1; // no real packet is all zeros
            let before = internet_checksum(&bytes);
            let mut delta = Delta::default();
            for (at, long, short) in edits {
                let at = (at & !1).clamp(2, 60);
                if long & 1 == 0 {
                    let old = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
                    bytes[at..at + 4].copy_from_slice(&long.to_be_bytes());
                    delta = delta.replace_u32(old, long);
                } else {
                    let old = u16::from_be_bytes(bytes[at..at + 2].try_into().unwrap());
                    bytes[at..at + 2].copy_from_slice(&short.to_be_bytes());
                    delta = delta.replace_u16(old, short);
                }
            }
            let after = internet_checksum(&bytes);
            prop_assert_eq!(adjust(before, delta.fold()), after);
            prop_assert_eq!(adjust(after, complement(delta.fold())), before);
        }

        #[test]
        fn replaced_addresses_count_like_replaced_words(
            old in any_address(), new in any_address(), other in any_address(), payload in any::<[u8; 9]>(),
        ) {
            prop_assume!(old.is_v4() == other.is_v4() && new.is_v4() == other.is_v4());
            let before = l4_checksum(&old, &other, 6, &payload);
            let delta = Delta::default().replace_address(&old, &new).fold();
            prop_assert_eq!(adjust(before, delta), l4_checksum(&new, &other, 6, &payload));
            let words = |address: &Address| -> Vec<u32> {
                address.octets().as_chunks::<4>().0.iter().map(|word| u32::from_be_bytes(*word)).collect()
            };
            let delta = words(&old).into_iter().zip(words(&new))
                .fold(Delta::default().add_delta(0), |delta, (old, new)| delta.replace_u32(old, new)).fold();
            prop_assert_eq!(adjust(before, delta), l4_checksum(&new, &other, 6, &payload));
        }

        #[test]
        fn what_was_put_in_counts_like_what_was_there(
            bytes in any::<[u8; 20]>(), short in corner_u16(), long: u32, octets in any_octets(),
        ) {
            prop_assume!(bytes != [0; 20]);
            let delta = Delta::default().insert_u16(short).insert_u32(long).insert_octets(&octets);
            let longer = [&bytes[..], &short.to_be_bytes(), &long.to_be_bytes(), &octets].concat();
            prop_assert_eq!(delta.adjust(internet_checksum(&bytes)), internet_checksum(&longer));
        }

        #[test]
        fn an_edit_at_an_odd_offset_counts_in_the_other_half(
            mut bytes in prop::collection::vec(any::<u8>(), 40), at in 0usize..36, new in any::<u32>(),
        ) {
            bytes[39] |= 1;
            let before = internet_checksum(&bytes);
            let old = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
            bytes[at..at + 4].copy_from_slice(&new.to_be_bytes());
            prop_assume!(bytes.iter().any(|byte| *byte != 0));
            let delta = Delta::default().replace_u32(old, new).at_offset(at);
            prop_assert_eq!(adjust(before, delta.fold()), internet_checksum(&bytes));
        }

        #[test]
        fn conformance_g5_the_checksum_of_a_segment_agrees_with_etherparse(
            src in any_address(), dst in any_address(), payload in prop::collection::vec(any::<u8>(), 0..1500),
        ) {
            prop_assume!(src.is_v4() == dst.is_v4());
            let mut oracle = Sum16BitWords::new();
            for address in [src, dst] {
                oracle = if address.is_v4() {
                    oracle.add_4bytes(address.v4_octets())
                } else {
                    oracle.add_16bytes(*address.octets())
                };
            }
            let oracle = oracle
                .add_2bytes([0, 17])
                .add_4bytes((payload.len() as u32).to_be_bytes())
                .add_slice(&payload)
                .ones_complement()
                .to_be();
            prop_assert_eq!(l4_checksum(&src, &dst, 17, &payload), oracle);
            if payload.len() >= 8 {
                let mut datagram = payload;
                datagram[6..8].fill(0);
                let checksum = l4_checksum(&src, &dst, 17, &datagram);
                datagram[6..8].copy_from_slice(&never_zero(checksum).to_be_bytes());
                prop_assert!(verify_l4(&src, &dst, 17, &datagram));
                datagram[3] ^= 0x10;
                prop_assert!(!verify_l4(&src, &dst, 17, &datagram));
            }
        }
    }
}
