//! Targets: what an instruction set offers, and the limits that every device which runs it keeps.
//!
//! A [`Target`] is what code is emitted for; how fast a device is stands in [`crate::device`]. The kernel verifier keeps
//! the table itself; here stand the questions that only the search asks of it. PTX for `sm_80` runs on everything since
//! Ampere, with different amounts of shared memory: a variant states how much it needs, and [`shared_tiers`] lists the
//! amounts worth having a variant for.
//!
//! # Source
//! CUDA C++ Programming Guide, compute capabilities, technical specifications per compute capability.

pub use drawloom_kernel::target::{TARGETS, Target, target};

/// Ampere and everything after it.
pub const SM_80: Target = TARGETS[0];

/// Hopper: bulk copies, asynchronous products, register budgets.
pub const SM_90A: Target = TARGETS[1];

/// What is compiled for unless something else is asked for: portable code first.
pub const USUAL: [&Target; 2] = [&SM_80, &SM_90A];

/// Registers that a thread can address.
pub const REGISTERS_PER_THREAD: u32 = 255;

/// The registers that a warp is given come in units of this many (all lanes together).
pub const REGISTER_UNIT: u32 = 256;

/// Dynamic shared memory of a CTA in bytes on compute capabilities 8.6 and 8.9, the least since Ampere.
pub const SMALL_SHARED: u32 = 99 * 1024;

/// Amounts of shared memory that a CTA may have, in bytes, on the devices that run code for this target: falling.
/// What is specific to one architecture runs on its full amount only.
pub fn shared_tiers(target: &Target) -> Vec<u32> {
    if is_exact(target) {
        vec![target.cta_shared_bytes]
    } else {
        vec![target.cta_shared_bytes, SMALL_SHARED]
    }
}

/// Whether a device of this compute capability (times ten) runs code for the target.
pub fn runs_on(target: &Target, capability: u32) -> bool {
    let own = target.name.trim_start_matches("sm_").trim_end_matches('a').parse();
    own.is_ok_and(|own: u32| {
        if is_exact(target) {
            capability == own
        } else {
            capability >= own
        }
    })
}

/// Whether PTX for the target is to be assembled for the instruction set of this name: its own, and for portable code
/// every later plain one. What stands for one architecture only is assembled for that alone.
pub fn assembles_for(target: &Target, name: &str) -> bool {
    let number = |name: &str| name.strip_prefix("sm_").and_then(|digits| digits.parse::<u32>().ok());
    name == target.name || number(name).is_some_and(|n| !is_exact(target) && runs_on(target, n))
}

/// Registers that ptxas may give a thread so that `ctas` CTAs of `warps` warps fit on a multiprocessor: a multiple of 8
/// below [`REGISTERS_PER_THREAD`], or that.
pub fn register_limit(target: &Target, warps: u32, ctas: u32) -> u32 {
    let per_thread = target.sm_registers / (32 * warps.max(1) * ctas.max(1));
    (per_thread / 8 * 8).min(REGISTERS_PER_THREAD)
}

/// Whether its code runs on one architecture only (`sm_90a`).
pub fn is_exact(target: &Target) -> bool {
    target.name.ends_with('a')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str) -> &'static Target {
        target(name).expect("a known target")
    }

    #[test]
    fn later_devices_run_portable_code_only() {
        assert!(runs_on(of("sm_80"), 80) && runs_on(of("sm_80"), 120));
        assert!(!runs_on(of("sm_80"), 75));
        assert!(runs_on(of("sm_90a"), 90));
        assert!(!runs_on(of("sm_90a"), 100));
    }

    #[test]
    fn portable_code_is_assembled_for_plain_targets() {
        let names = ["sm_75", "sm_80", "sm_89", "sm_90", "sm_90a", "other"];
        let of = |target: &Target| names.map(|name| assembles_for(target, name));
        assert_eq!(of(&SM_80), [false, true, true, true, false, false]);
        assert_eq!(of(&SM_90A), [false, false, false, false, true, false]);
    }

    #[test]
    fn register_limits_follow_the_file() {
        let t = of("sm_80");
        assert_eq!(register_limit(t, 4, 1), 255);
        assert_eq!(register_limit(t, 4, 3), 168);
        assert_eq!(register_limit(t, 8, 2), 128);
    }

    #[test]
    fn tiers_fall() {
        assert_eq!(USUAL.map(|t| t.name), ["sm_80", "sm_90a"]);
        assert_eq!(shared_tiers(of("sm_80")), [163 * 1024, 99 * 1024]);
        assert_eq!(shared_tiers(of("sm_90a")), [227 * 1024]);
    }
}
