//! The cycle counter, for phase breakdowns and for the TSC clock. One read costs about 20 cycles.

/// The processor's time-stamp counter in its own constant-rate cycles, monotonic on one core.
///
/// It is not fenced: loads and stores around it may move across it by some tens of cycles, which does not
/// matter for the duration of a burst and keeps the read out of the pipeline's way.
#[inline(always)]
pub fn tsc() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: RDTSC exists on every x86-64 processor, has no memory operand and Linux leaves it enabled in
    // user mode.
    unsafe {
        core::arch::x86_64::_rdtsc()
    }
    #[cfg(target_arch = "aarch64")]
    {
        let count: u64;
        // SAFETY: reads a register that Linux makes readable in user mode; touches neither memory nor flags.
        unsafe {
            core::arch::asm!("mrs {}, cntvct_el0", out(reg) count, options(nomem, nostack, preserves_flags))
        };
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_advances() {
        let before = tsc();
        // more dependent additions than the counter could hide in one tick
        let sum = (0..10_000u64).fold(before, |sum, x| std::hint::black_box(sum.wrapping_add(x)));
        std::hint::black_box(sum);
        assert!(tsc() > before);
    }
}
