//! Targets: what an instruction set offers, and the limits that every device which runs it keeps.
//!
//! A [`Target`] is what code is emitted for; how fast a device is stands in [`crate::device`]. PTX for `sm_80` runs on
//! everything since Ampere, with different amounts of shared memory: a variant states how much it needs, and
//! [`Target::shared_tiers`] lists the amounts worth having a variant for.
//!
//! # Source
//! Unless said otherwise: CUDA C++ Programming Guide, compute capabilities, technical specifications per compute
//! capability (registers, threads, shared memory), and PTX ISA, target notes of each instruction (shapes, copies).

/// An instruction set.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Target {
    /// Name as in PTX: `sm_80`.
    pub name: &'static str,
    /// Compute capability, times ten.
    pub capability: u32,
    /// Whether code for it runs only on this very architecture (`sm_90a`), not on later ones.
    pub exact: bool,
    /// 32-bit registers of a multiprocessor.
    pub registers: u32,
    /// Registers that a thread can address.
    pub registers_per_thread: u32,
    /// Threads of a CTA.
    pub threads: u32,
    /// Amounts of shared memory that a CTA may have, in bytes, on the devices that run this code: falling.
    pub shared_tiers: &'static [u32],
    /// Products that it issues.
    pub mma: Mma,
    /// Whether it has `cp.async`, 4, 8 or 16 bytes a lane.
    pub cp_async: bool,
    /// Whether it has the bulk tensor copies of the TMA engine, and mbarriers that count their bytes.
    pub tma: bool,
    /// Whether a role can set its register budget (`setmaxnreg`).
    pub set_registers: bool,
}

/// Tensor-core instructions for 16-bit inputs and f32 accumulators.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mma {
    /// `mma.sync.m16n8k16`, by one warp.
    Sync,
    /// Also `wgmma.mma_async.m64nNk16`, N a multiple of 8 up to 256, by four warps.
    Warpgroup,
}

/// Bytes of a kibibyte.
const KIB: u32 = 1024;

/// Shared memory that the driver keeps for itself in each CTA, in bytes, from compute capability 8.0 on.
pub const RESERVED_SHARED: u32 = KIB;

/// The registers that a warp is given come in units of this many (all lanes together).
pub const REGISTER_UNIT: u32 = 256;

/// Ampere and everything after it.
pub const SM_80: Target = Target {
    name: "sm_80",
    capability: 80,
    exact: false,
    registers: 65536,
    registers_per_thread: 255,
    threads: 1024,
    // 163 KiB on capability 8.0 (and 227 KiB on 9.0 and 10.0, which this tier leaves unused), 99 KiB on 8.6 and 8.9.
    shared_tiers: &[163 * KIB, 99 * KIB],
    mma: Mma::Sync,
    cp_async: true,
    tma: false,
    set_registers: false,
};

/// Hopper, with its architecture-specific instructions.
pub const SM_90A: Target = Target {
    name: "sm_90a",
    capability: 90,
    exact: true,
    registers: 65536,
    registers_per_thread: 255,
    threads: 1024,
    shared_tiers: &[227 * KIB],
    mma: Mma::Warpgroup,
    cp_async: true,
    tma: true,
    set_registers: true,
};

/// All targets.
pub const TARGETS: [&Target; 2] = [&SM_80, &SM_90A];

impl Target {
    /// The target of this name.
    pub fn by_name(name: &str) -> Option<&'static Target> {
        TARGETS.into_iter().find(|t| t.name == name)
    }

    /// Whether a device of this compute capability (times ten) runs code for the target.
    pub fn runs_on(&self, capability: u32) -> bool {
        if self.exact { capability == self.capability } else { capability >= self.capability }
    }

    /// Registers that ptxas may give a thread so that `ctas` CTAs of `warps` warps fit on a multiprocessor: a multiple
    /// of 8, at most [`Target::registers_per_thread`].
    pub fn register_limit(&self, warps: u32, ctas: u32) -> u32 {
        let per_thread = self.registers / (32 * warps.max(1) * ctas.max(1));
        (per_thread / 8 * 8).min(self.registers_per_thread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found() {
        for t in TARGETS {
            assert_eq!(Target::by_name(t.name), Some(t));
        }
        assert_eq!(Target::by_name("sm_70"), None);
    }

    #[test]
    fn later_devices_run_portable_code_only() {
        assert!(SM_80.runs_on(120));
        assert!(!SM_80.runs_on(75));
        assert!(SM_90A.runs_on(90));
        assert!(!SM_90A.runs_on(100));
    }

    #[test]
    fn register_limits_follow_the_file() {
        assert_eq!(SM_80.register_limit(4, 1), 255);
        assert_eq!(SM_80.register_limit(8, 1), 255);
        assert_eq!(SM_80.register_limit(4, 3), 168);
        assert_eq!(SM_80.register_limit(8, 2), 128);
    }

    #[test]
    fn tiers_fall() {
        for t in TARGETS {
            assert!(t.shared_tiers.windows(2).all(|w| w[0] > w[1]));
        }
    }
}
