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
        fn half_equal_lanes_do_not_match(lanes in prop::array::uniform16(any::<u16>()), lane in 0usize..16) {
            let needle = lanes[lane];
            let mask = equal_lanes(&lanes, needle);
            prop_assert_eq!(mask, equal_lanes_portable(&lanes, needle));
            prop_assert_ne!(mask & 1 << (2 * lane), 0);
        }
    }
}
