//! Compares of many small values at once.

/// Which of sixteen lanes equal `needle`: bit `2 * lane` of the answer is set for each that does; odd bits
/// are 0.
///
/// Two bits per lane is how AVX2 answers (it makes masks of bytes); halving them would cost more than the
/// caller's shift.
#[inline(always)]
pub fn equal_lanes(lanes: &[u16; 16], needle: u16) -> u32 {
    #[cfg(all(target_arch = "x86_64", target_feature = "avx2"))]
    {
        equal_lanes_avx2(lanes, needle)
    }
    #[cfg(not(all(target_arch = "x86_64", target_feature = "avx2")))]
    {
        equal_lanes_portable(lanes, needle)
    }
}

const EVEN_BITS: u32 = 0x5555_5555;

#[cfg(all(target_arch = "x86_64", target_feature = "avx2"))]
#[inline(always)]
fn equal_lanes_avx2(lanes: &[u16; 16], needle: u16) -> u32 {
    use core::arch::x86_64::{
        _mm256_cmpeq_epi16, _mm256_loadu_si256, _mm256_movemask_epi8, _mm256_set1_epi16,
    };
    // SAFETY: AVX2 is enabled for the whole build, or this function would not exist; the load reads the 32
    // bytes of `lanes` and needs no alignment.
    let bytes = unsafe {
        let lanes = _mm256_loadu_si256(lanes.as_ptr().cast());
        _mm256_movemask_epi8(_mm256_cmpeq_epi16(lanes, _mm256_set1_epi16(needle as i16)))
    };
    bytes as u32 & EVEN_BITS
}

/// The same without SIMD instructions of our own; compilers vectorise it with what the build allows.
#[cfg(any(test, not(all(target_arch = "x86_64", target_feature = "avx2"))))]
#[inline(always)]
fn equal_lanes_portable(lanes: &[u16; 16], needle: u16) -> u32 {
    lanes.iter().enumerate().fold(0, |mask, (lane, &value)| mask | u32::from(value == needle) << (2 * lane))
        & EVEN_BITS
}

/// Whether bytes are as wanted in all bits of a mask. `wanted` is 0 outside it.
#[inline(always)]
pub fn equal_under(mask: &[u8; 32], wanted: &[u8; 32], bytes: &[u8; 32]) -> bool {
    #[cfg(all(target_arch = "x86_64", target_feature = "avx2"))]
    {
        equal_under_avx2(mask, wanted, bytes)
    }
    #[cfg(not(all(target_arch = "x86_64", target_feature = "avx2")))]
    {
        equal_under_portable(mask, wanted, bytes)
    }
}

#[cfg(all(target_arch = "x86_64", target_feature = "avx2"))]
#[inline(always)]
fn equal_under_avx2(mask: &[u8; 32], wanted: &[u8; 32], bytes: &[u8; 32]) -> bool {
    use core::arch::x86_64::{
        _mm256_and_si256, _mm256_cmpeq_epi8, _mm256_lddqu_si256, _mm256_loadu_si256, _mm256_movemask_epi8,
    };
    // SAFETY: as above; each load reads the 32 bytes of its array.
    unsafe {
        let [mask, wanted] = [mask, wanted].map(|array| _mm256_loadu_si256(array.as_ptr().cast()));
        // To compilers LDDQU is another instruction than a load: after a load they would take fields that are read next
        // out of the vector, at twice the cost of reading them.
        let bytes = _mm256_lddqu_si256(bytes.as_ptr().cast());
        _mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_and_si256(bytes, mask), wanted)) == -1
    }
}

/// The same without SIMD instructions of our own.
#[cfg(any(test, not(all(target_arch = "x86_64", target_feature = "avx2"))))]
fn equal_under_portable(mask: &[u8; 32], wanted: &[u8; 32], bytes: &[u8; 32]) -> bool {
    std::iter::zip(bytes, mask).map(|(byte, mask)| byte & mask).eq(wanted.iter().copied())
}

/// Whether two arrays of sixteen bytes equal two others.
#[inline(always)]
pub fn equal_pairs(a: [&[u8; 16]; 2], b: [&[u8; 16]; 2]) -> bool {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE2 belongs to x86-64; each load reads the 16 bytes of its array and needs no alignment.
    unsafe {
        use core::arch::x86_64::{_mm_and_si128, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8};
        let [a, b] = [a, b].map(|pair| pair.map(|array| _mm_loadu_si128(array.as_ptr().cast())));
        let equal = _mm_and_si128(_mm_cmpeq_epi8(a[0], b[0]), _mm_cmpeq_epi8(a[1], b[1]));
        _mm_movemask_epi8(equal) == 0xffff
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        a == b
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_lane_has_its_bit() {
        for lane in 0..16 {
            let mut lanes = [7; 16];
            lanes[lane] = 0xbeef;
            assert_eq!(equal_lanes(&lanes, 0xbeef), 1 << (2 * lane));
            assert_eq!(equal_lanes(&lanes, 7), EVEN_BITS & !(1 << (2 * lane)));
        }
    }

    proptest! {
        #[test]
        fn simd_equals_portable(lanes in prop::array::uniform16(0u16..4), needle in 0u16..4) {
            prop_assert_eq!(equal_lanes(&lanes, needle), equal_lanes_portable(&lanes, needle));
        }

        #[test]
        fn only_bits_of_the_mask_count(
            mask in prop::array::uniform32(any::<u8>()),
            bytes in prop::array::uniform32(any::<u8>()),
            (at, bit) in (0usize..32, 0u32..8),
        ) {
            let wanted = std::array::from_fn(|i| bytes[i] & mask[i]);
            let mut other = bytes;
            other[at] ^= 1 << bit;
            for bytes in [bytes, other] {
                let equal = equal_under(&mask, &wanted, &bytes);
                prop_assert_eq!(equal, equal_under_portable(&mask, &wanted, &bytes));
                prop_assert_eq!(equal, bytes[at] & mask[at] == wanted[at]);
            }
        }

        #[test]
        fn pairs_equal_in_every_byte(
            bytes in prop::array::uniform32(any::<u8>()),
            (at, bit) in (0usize..32, 0u32..8),
        ) {
            let pair = |bytes: &[u8; 32]| -> [[u8; 16]; 2] { zerocopy::transmute!(*bytes) };
            let mut other = bytes;
            other[at] ^= 1 << bit;
            let [one, other] = [bytes, other].map(|bytes| pair(&bytes));
            let [one, other] = [one.each_ref(), other.each_ref()];
            prop_assert!(equal_pairs(one, one));
            prop_assert!(!equal_pairs(one, other));
        }

        #[test]
        fn half_equal_lanes_do_not_match(lanes in prop::array::uniform16(any::<u16>()), lane in 0usize..16) {
            let needle = lanes[lane];
            let mask = equal_lanes(&lanes, needle);
            prop_assert_eq!(mask, equal_lanes_portable(&lanes, needle));
            prop_assert_ne!(mask & 1 << (2 * lane), 0);
        }
    }
}
