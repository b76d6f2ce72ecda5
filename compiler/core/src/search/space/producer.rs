//! Schedules with a producer: one to three warpgroups that compute, each 64 rows of the query tile.
//!
//! Registers decide most. A computing thread holds the scores of the next tile while the weights of this one are being
//! multiplied: `block_n / 2 + block_n / 4 + e / 2`, and what [`base`] says; its budget is what `setmaxnreg` gives.

use super::super::{Problem, Reason};
use super::{ATOM, Point, at_most, multiple};
use crate::passes::budget::budgets;
use crate::schedule::{Reference, Schedule, Staging};

/// Rows of one warpgroup's part of a query tile.
const GROUP_ROWS: u32 = 64;
/// Warpgroups that compute beside the producer's: four share the registers.
const MAX_GROUPS: u32 = 3;
/// Keys of a tile that are tried, in steps of the matrix atom: the widest product has 256 columns.
const BLOCK_N: std::ops::RangeInclusive<u32> = 32..=256;
/// Slots of the key and value buffers that are tried. With one, nothing overlaps.
const STAGES: [u32; 3] = [2, 3, 4];

/// All schedules, feasible or with the reason why not.
pub(super) fn enumerate(problem: &Problem<'_>) -> Vec<(Point, Result<(), Reason>)> {
    let pinned = |field: &str, all: Vec<u32>| problem.pinned(field).map_or(all, |v| vec![v]);
    let references: &[Reference] = if problem.bounded {
        &[Reference::Zero, Reference::First, Reference::Running]
    } else {
        &[Reference::First, Reference::Running]
    };
    let storage: &[(Staging, u32)] = if problem.head_dim == problem.value_dim {
        &[(Staging::Own, 2), (Staging::Own, 1), (Staging::Query, 1)]
    } else {
        &[(Staging::Own, 2), (Staging::Own, 1)]
    };
    let mut points = Vec::new();
    for &block_m in &pinned("block_m", (1..=MAX_GROUPS).map(|g| g * GROUP_ROWS).collect()) {
        for &block_n in &pinned("block_n", BLOCK_N.step_by(ATOM as usize).collect()) {
            for &stages in &pinned("stages", STAGES.to_vec()) {
                for &reference in references {
                    for &(staging, queries) in storage {
                        let usual = Schedule::with_producer(block_m, block_n, stages, reference, staging);
                        let warps = problem.pinned("warps").unwrap_or(usual.warps);
                        let schedule = Schedule {
                            warps,
                            queries,
                            ..usual
                        };
                        points.push(check(problem, schedule));
                    }
                }
            }
        }
    }
    points
}

fn check(problem: &Problem<'_>, schedule: Schedule) -> (Point, Result<(), Reason>) {
    let shape = shape(problem, &schedule);
    let (registers, shared) = match shape {
        Ok(()) => (registers(problem, &schedule), shared(problem, &schedule)),
        Err(_) => (0, 0),
    };
    let point = Point {
        schedule,
        registers,
        shared,
    };
    // Where masks cut, the producer finds out which tiles are left; what it has to do for that is known when it is lowered.
    let budget = budgets(schedule.warps, problem.cuts).map(|b| b.1);
    let fits = shape.and_then(|()| within(problem, registers, budget, shared));
    (point, fits)
}

fn shape(problem: &Problem<'_>, s: &Schedule) -> Result<(), Reason> {
    let target = problem.target;
    multiple("block_m", s.block_m, GROUP_ROWS)?;
    at_most(
        target,
        "warpgroups that compute",
        s.block_m / GROUP_ROWS,
        MAX_GROUPS,
        "warpgroups",
    )?;
    multiple("warps", s.warps, s.block_m / ATOM)?;
    at_most(target, "warps that compute", s.warps, s.block_m / ATOM, "warps")?;
    multiple("block_n", s.block_n, ATOM)?;
    at_most(target, "block_n", s.block_n, target.mma_async_cols, "columns")?;
    at_most(
        target,
        "features of values",
        problem.value_dim,
        target.mma_async_cols,
        "columns",
    )?;
    multiple("stages", s.stages, 1)?;
    if s.stages < 2 {
        return Err(Reason::NoKernel("a producer needs two slots to run ahead".to_owned()));
    }
    Ok(())
}

/// The limits on what a kernel occupies whose computing threads have this budget.
pub(super) fn within(problem: &Problem<'_>, registers: u32, budget: Option<u32>, shared: u32) -> Result<(), Reason> {
    let target = problem.target;
    at_most(target, "shared memory", shared, target.cta_shared_bytes, "bytes")?;
    at_most(
        target,
        "registers of a computing thread (estimated)",
        registers,
        budget.unwrap_or(0),
        "a thread",
    )
}

/// Registers of a computing thread: accumulators, weights in flight, results, and the rest.
fn registers(problem: &Problem<'_>, s: &Schedule) -> u32 {
    let rest = base(problem, s.warps / 4);
    s.block_n / 2 + s.block_n / 4 + problem.value_dim / 2 + rest
}

/// Registers beside accumulators: row statistics, descriptors, clocks; what masks, tables and scores keep.
///
/// # Source
/// ptxas 13.5 on more than 90 kernels of the specs of this repository, 2026-11-25: figures that refuse every one which spilled.
/// Registers left beside accumulators: without a mask, no spill at 32 (d = 128, 128 x 192), 4 bytes at 32 (d = 32,
/// 128 x 256); of three groups none at 28 (d = 96, 192 x 112), but C7512 at 24 (d = 128, 192 x 96). Under a causal mask: none
/// at 60 (d = 128, 128 x 144), 4 bytes at 56 (d = 256, 128 x 64); of three
/// groups none at 32 (d = 64, 192 x 128), but 12 bytes at 48 where values have 128 features (192 x 64). A table: 4 bytes at 72
/// (document, d = 128, 128 x 128), 8 at 60 of three groups (192 x 48). A second piece: 36 bytes at 68 (streaming, d = 256,
/// 128 x 48). Scores: 24 bytes at 56 (alibi, d = 256, 128 x 64), 80 at 44 of three groups (d = 64, 192 x 112).
fn base(problem: &Problem<'_>, groups: u32) -> u32 {
    let three = groups >= 3;
    let mask = match (problem.cuts, three, problem.value_dim <= 96) {
        (false, ..) => 0,
        (true, true, true) => 4,
        (true, true, false) => 28,
        (true, false, _) => 24,
    };
    let table = if three { 36 } else { 20 };
    let score = if three { 8 } else { 3 };
    let plain = if three { 28 } else { 36 };
    // Tables bring a left edge of their own, which they count.
    let left = if problem.left_edge && problem.tables == 0 {
        20
    } else {
        0
    };
    plain
        + mask
        + left
        + table * problem.tables
        + 36 * problem.pieces.saturating_sub(1)
        + score * problem.score_operations
}

/// Shared memory of a CTA: the query tile, the slots of keys and values, results, verdicts, each at a multiple of 1024
/// bytes; two mbarriers for each slot.
fn shared(problem: &Problem<'_>, s: &Schedule) -> u32 {
    let (d, e) = (u64::from(problem.head_dim), u64::from(problem.value_dim));
    let (m, n, stages) = (u64::from(s.block_m), u64::from(s.block_n), u64::from(s.stages));
    let element = u64::from(problem.element_bytes);
    let staging = match s.staging {
        Staging::Own => m * e * element,
        Staging::Query => 0,
    };
    let verdicts = 4 * u64::from(s.verdicts());
    let buffers = [
        u64::from(s.queries) * m * d * element,
        stages * n * d * element,
        stages * n * e * element,
        staging,
    ];
    let aligned: u64 = buffers.into_iter().map(|b| b.next_multiple_of(1024)).sum();
    let all = aligned + verdicts + 16 * (u64::from(s.queries) + 2 * stages);
    all.min(u32::MAX.into()) as u32
}
