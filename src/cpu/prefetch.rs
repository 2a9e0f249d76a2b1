//! Hints that a cache line will be needed soon. A hint never faults and never changes what the program
//! computes, so both functions are safe for every argument.

/// Starts to load the cache line that `value` begins in, into all levels of the cache.
#[inline(always)]
pub fn prefetch<T>(value: &T) {
    prefetch_address(std::ptr::from_ref(value));
}

/// Starts to load the cache line that `slice[index]` begins in. An index outside the slice is a useless hint,
/// not an error: a loop may run ahead of its end.
#[inline(always)]
pub fn prefetch_index<T>(slice: &[T], index: usize) {
    prefetch_address(slice.as_ptr().wrapping_add(index));
}

#[inline(always)]
fn prefetch_address<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: PREFETCHT0 accepts any address; it dereferences nothing architecturally and cannot fault.
    unsafe {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: PRFM accepts any address and cannot fault.
    unsafe {
        core::arch::asm!("prfm pldl1keep, [{}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_index_is_only_a_hint() {
        let numbers = [1u64, 2, 3];
        prefetch(&numbers[0]);
        for index in [0, 2, 3, 1 << 20, usize::MAX] {
            prefetch_index(&numbers, index);
        }
        assert_eq!(numbers, [1, 2, 3]);
    }
}
