//! Whether this processor has the instructions that the program was compiled for.
//!
//! Without this check an older processor ends the program by SIGILL, somewhere. The standard library's detection cannot
//! tell: what a program is compiled for, it takes for granted. And the check itself must do without those instructions:
//! it compares whole words (a shift by a variable is BMI2, an and-not BMI1, a copied array AVX) and has one fixed sentence.

/// What CPUID says in the registers that matter: leaf 1 ECX, leaf 7 EBX, leaf 0x8000_0001 ECX.
#[derive(Clone, Copy)]
struct Words {
    basic: u32,
    extended: u32,
    amd: u32,
}

/// A bit if the program is compiled for the feature it stands for.
const fn bit(bit: u32, compiled_for: bool) -> u32 {
    if compiled_for { 1 << bit } else { 0 }
}

/// The instruction sets of x86-64-v3 (System V ABI, table 3.1) and AES, as far as the program is compiled for them.
const NEEDED: Words = Words {
    basic: bit(0, cfg!(target_feature = "sse3"))
        | bit(9, cfg!(target_feature = "ssse3"))
        | bit(12, cfg!(target_feature = "fma"))
        | bit(19, cfg!(target_feature = "sse4.1"))
        | bit(20, cfg!(target_feature = "sse4.2"))
        | bit(22, cfg!(target_feature = "movbe"))
        | bit(23, cfg!(target_feature = "popcnt"))
        | bit(25, cfg!(target_feature = "aes"))
        // The kernel saves the wide registers.
        | bit(27, cfg!(target_feature = "avx"))
        | bit(28, cfg!(target_feature = "avx"))
        | bit(29, cfg!(target_feature = "f16c")),
    extended: bit(3, cfg!(target_feature = "bmi1"))
        | bit(5, cfg!(target_feature = "avx2"))
        | bit(8, cfg!(target_feature = "bmi2")),
    amd: bit(5, cfg!(target_feature = "lzcnt")),
};

/// What a program says on a processor that is not [`fit`], behind its name.
pub const UNFIT: &str = "this processor lacks instructions that the program was built for (AVX2, BMI2, AES or others): run \
    it on x86-64-v3 with AES, which is Intel since Haswell and AMD since Zen, and in virtual machines whose CPU model shows \
    it; or build it with another target-cpu in .cargo/config.toml\n";

/// Whether this processor can run the program; to be asked before anything else is done.
#[inline(never)]
pub fn fit() -> bool {
    has_all(words())
}

#[inline(always)]
fn has_all(words: Words) -> bool {
    words.basic & NEEDED.basic == NEEDED.basic
        && words.extended & NEEDED.extended == NEEDED.extended
        && words.amd & NEEDED.amd == NEEDED.amd
}

#[inline(always)]
fn words() -> Words {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{__cpuid, __cpuid_count};
        let extended = if __cpuid(0).eax >= 7 { __cpuid_count(7, 0).ebx } else { 0 };
        let amd = if __cpuid(0x8000_0000).eax > 0x8000_0000 { __cpuid(0x8000_0001).ecx } else { 0 };
        Words { basic: __cpuid(1).ecx, extended, amd }
    }
    // Elsewhere nothing is compiled in that a processor may lack.
    #[cfg(not(target_arch = "x86_64"))]
    NEEDED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_that_runs_the_tests_is_fit() {
        assert!(fit());
    }

    #[test]
    #[cfg(target_feature = "avx2")]
    fn a_processor_without_one_of_the_instruction_sets_is_not() {
        let all = words();
        assert!(!has_all(Words { extended: all.extended & !(1 << 5), ..all }), "no AVX2");
        assert!(!has_all(Words { basic: all.basic & !(1 << 25), ..all }), "no AES");
        assert!(!has_all(Words { basic: all.basic & !(1 << 27), ..all }), "wide registers are not saved");
        assert!(!has_all(Words { amd: 0, ..all }), "no LZCNT");
    }
}
