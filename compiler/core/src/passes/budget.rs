//! Register budgets of roles (`setmaxnreg`).
//!
//! It stands behind the removal of dead code, because what is left of the producer's program says what it needs.

use drawloom_kernel::ir::{Block, Kernel, Stmt};

/// Registers of a producer's and of a consumer's thread, by the number of consumer warpgroups: what is left of 512 for a
/// lane of each warpgroup, in steps of 8. Of two groups, the second entry is for producers with more to compute.
///
/// # Source
/// Shah et al. 2024, arXiv:2407.08608, and its implementation (`setmaxnreg` of 24/240, 40/232 and 32/160).
const BUDGETS: [[(u32, u32); 2]; 3] = [[(56, 248); 2], [(24, 240), (40, 232)], [(32, 160); 2]];

/// Definitions in a producer's program beyond which 24 registers may not hold its scalars.
///
/// # Source
/// ptxas 13.5, 2026-11-25: no spill at 267 (dense), at 315 in one of two kernels (causal), always from 411 on (windows).
const QUIET: usize = 300;

/// Registers of a thread of each role, for `warps` computing warps.
pub fn budgets(warps: u32, busy: bool) -> Option<(u32, u32)> {
    let groups = (warps / 4) as usize;
    let both = warps
        .is_multiple_of(4)
        .then(|| BUDGETS.get(groups.checked_sub(1)?).copied())
        .flatten()?;
    Some(both[usize::from(busy)])
}

/// Gives the roles of a specialised kernel their registers, by what is left of the producer's program.
pub fn divide(kernel: &mut Kernel) {
    let [producer, consumer] = kernel.roles.as_mut_slice() else {
        return;
    };
    if let Some((producing, computing)) = budgets(consumer.warps, definitions(&producer.body) > QUIET) {
        producer.registers = Some(producing);
        consumer.registers = Some(computing);
    }
}

fn definitions(block: &Block) -> usize {
    let count = |stmt: &Stmt| match stmt {
        Stmt::Let { .. } => 1,
        Stmt::Do(_) | Stmt::Stream(_) => 0,
        Stmt::Loop(l) => definitions(&l.body),
        Stmt::If(i) => definitions(&i.then) + definitions(&i.otherwise),
    };
    block.0.iter().map(count).sum()
}
