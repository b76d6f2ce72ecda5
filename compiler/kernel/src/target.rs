//! What each instruction set offers to a tile program: the one table of capabilities and limits.
//!
//! In: a target's name. Out: numbers and yes-or-no facts of the instruction set (not of a device: no clocks, no sizes of
//! caches). It stands before the verifier, which is the only place that turns these facts into errors.

/// Facts of an instruction set. Sizes are bytes unless said otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target {
    /// Name as in [`Kernel::target`](crate::ir::Kernel::target).
    pub name: &'static str,
    /// Largest dynamic shared memory of a CTA.
    pub cta_shared_bytes: u32,
    /// Shared memory of a multiprocessor that CTAs divide among themselves.
    pub sm_shared_bytes: u32,
    /// Shared memory the system takes for itself from each CTA's share.
    pub reserved_shared_bytes: u32,
    /// 32-bit registers of a multiprocessor.
    pub sm_registers: u32,
    /// Most warps of a CTA.
    pub cta_warps: u32,
    /// Hardware barriers of a CTA.
    pub barriers: u32,
    /// Bulk tensor copies (TMA), with byte counts on mbarriers.
    pub tma: bool,
    /// Asynchronous products (`wgmma`).
    pub mma_async: bool,
    /// Widest asynchronous product, in columns.
    pub mma_async_cols: u32,
    /// Stores of 8 x 8 matrices (`stmatrix`).
    pub store_matrix: bool,
    /// Register budgets per role (`setmaxnreg`).
    pub set_registers: bool,
}

/// All targets. Source: CUDA C++ Programming Guide 13, table "Technical specifications per compute capability"; PTX ISA
/// 9.0, sections on `cp.async.bulk.tensor`, `wgmma.mma_async`, `stmatrix`, `setmaxnreg` and `bar`.
pub const TARGETS: [Target; 2] = [
    Target {
        name: "sm_80",
        cta_shared_bytes: 163 * 1024,
        sm_shared_bytes: 164 * 1024,
        reserved_shared_bytes: 1024,
        sm_registers: 65536,
        cta_warps: 32,
        barriers: 16,
        tma: false,
        mma_async: false,
        mma_async_cols: 0,
        store_matrix: false,
        set_registers: false,
    },
    Target {
        name: "sm_90a",
        cta_shared_bytes: 227 * 1024,
        sm_shared_bytes: 228 * 1024,
        reserved_shared_bytes: 1024,
        sm_registers: 65536,
        cta_warps: 32,
        barriers: 16,
        tma: true,
        mma_async: true,
        mma_async_cols: 256,
        store_matrix: true,
        set_registers: true,
    },
];

/// The facts of the target with this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|t| t.name == name)
}
