//! Whether this processor has the instructions that the program was compiled for.
//!
//! The standard library's detection cannot tell: what a program is compiled for, it takes for granted. Without this
//! check an older processor ends the program by SIGILL, somewhere.

/// One instruction set: its name, where CPUID tells of it, whether this program was compiled for it.
struct Needed(&'static str, Register, u32, bool);

/// The registers of CPUID that are asked: leaf 1 ECX, leaf 7 EBX, leaf 0x8000_0001 ECX.
#[derive(Clone, Copy)]
enum Register {
    Basic,
    Extended,
    Amd,
}

/// The instruction sets of x86-64-v3 (System V ABI, table 3.1), and AES.
const NEEDED: [Needed; 14] = [
    Needed("SSE3", Register::Basic, 0, cfg!(target_feature = "sse3")),
    Needed("SSSE3", Register::Basic, 9, cfg!(target_feature = "ssse3")),
    Needed("FMA", Register::Basic, 12, cfg!(target_feature = "fma")),
    Needed("SSE4.1", Register::Basic, 19, cfg!(target_feature = "sse4.1")),
    Needed("SSE4.2", Register::Basic, 20, cfg!(target_feature = "sse4.2")),
    Needed("MOVBE", Register::Basic, 22, cfg!(target_feature = "movbe")),
    Needed("POPCNT", Register::Basic, 23, cfg!(target_feature = "popcnt")),
    Needed("AES", Register::Basic, 25, cfg!(target_feature = "aes")),
    Needed("AVX", Register::Basic, 28, cfg!(target_feature = "avx")),
    Needed("F16C", Register::Basic, 29, cfg!(target_feature = "f16c")),
    Needed("BMI1", Register::Extended, 3, cfg!(target_feature = "bmi1")),
    Needed("AVX2", Register::Extended, 5, cfg!(target_feature = "avx2")),
    Needed("BMI2", Register::Extended, 8, cfg!(target_feature = "bmi2")),
    Needed("LZCNT", Register::Amd, 5, cfg!(target_feature = "lzcnt")),
];

/// What CPUID says of this processor.
#[derive(Clone, Copy)]
struct Features {
    basic: u32,
    extended: u32,
    amd: u32,
}

/// The program was compiled for another processor.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this processor has no {}, which the program was built for: run it on x86-64-v3 with AES (Intel since Haswell, AMD \
     since Zen; a virtual machine needs a CPU model that shows them), or build it with another target-cpu in \
     .cargo/config.toml",
    .0.join(", ")
)]
pub struct Unfit(Vec<&'static str>);

/// Whether this processor can run the program; to be asked before anything else is done.
///
/// # Errors
/// Names the instruction sets that are missing.
#[inline(never)]
pub fn fit() -> Result<(), Unfit> {
    features().map_or(Ok(()), fit_with)
}

#[inline(never)]
fn fit_with(features: Features) -> Result<(), Unfit> {
    let lacks = |needed: &&Needed| {
        let Needed(_, register, bit, compiled_for) = needed;
        let word = match register {
            Register::Basic => features.basic,
            Register::Extended => features.extended,
            Register::Amd => features.amd,
        };
        *compiled_for && word >> bit & 1 == 0
    };
    let missing: Vec<&str> = NEEDED.iter().filter(lacks).map(|needed| needed.0).collect();
    if missing.is_empty() { Ok(()) } else { Err(Unfit(missing)) }
}

/// `None` where there is nothing to ask.
fn features() -> Option<Features> {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{__cpuid, __cpuid_count};
        const OSXSAVE: u32 = 1 << 27;
        /// AVX, F16C, FMA; AVX2 stands in `extended`.
        const IN_YMM: u32 = 1 << 28 | 1 << 29 | 1 << 12;
        let leaf_max = __cpuid(0).eax;
        let mut basic = __cpuid(1).ecx;
        let mut extended = if leaf_max >= 7 { __cpuid_count(7, 0).ebx } else { 0 };
        let amd = if __cpuid(0x8000_0000).eax > 0x8000_0000 { __cpuid(0x8000_0001).ecx } else { 0 };
        // What the kernel does not save for a process is as good as not there.
        if basic & OSXSAVE == 0 {
            basic &= !IN_YMM;
            extended &= !(1 << 5);
        }
        Some(Features { basic, extended, amd })
    }
    #[cfg(not(target_arch = "x86_64"))]
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_that_runs_the_tests_is_fit() {
        assert_eq!(fit(), Ok(()));
    }

    #[test]
    #[cfg(target_feature = "avx2")]
    fn a_processor_without_avx2_is_told_in_one_sentence() {
        let all = features().unwrap();
        let without = Features { extended: all.extended & !(1 << 5), ..all };
        let sentence = fit_with(without).unwrap_err().to_string();
        assert!(
            sentence.starts_with("this processor has no AVX2, which") && !sentence.contains('\n'),
            "{sentence}"
        );
        let bare = fit_with(Features { basic: 0, extended: 0, amd: 0 }).unwrap_err().to_string();
        assert!(bare.contains("SSE4.2") && bare.contains("AES") && bare.contains("BMI2"), "{bare}");
    }
}
