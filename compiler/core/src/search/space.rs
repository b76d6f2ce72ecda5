//! The schedules that a kernel could have: enumerated, and rejected one by one with numbers where they cannot run.

mod producer;

use super::{Problem, Purpose, Reason};
use crate::cost::BASE_REGISTERS;
use crate::device::RESERVED_SHARED;
use crate::schedule::{Fetch, Keys, Pack, QueryHome, Reference, Schedule, Staging};
use crate::target::{SMALL_SHARED, Target, register_limit};
use drawloom_kernel::ir::Kernel;
use drawloom_kernel::verify::Limit;

/// Rows of a query tile that are tried. A decode step has few rows, so its tiles start at one matrix atom.
const BLOCK_M: [u32; 5] = [16, 32, 64, 128, 192];
/// Keys of a tile that are tried: steps of the matrix atom's depth, coarser as the step matters less.
const BLOCK_N: [u32; 8] = [16, 32, 48, 64, 80, 96, 128, 192];
/// Warps of a CTA that are tried.
const WARPS: [u32; 4] = [1, 2, 4, 8];
/// Slots of the key and value buffers that are tried.
const STAGES: [u32; 3] = [1, 2, 3];
/// Rows and columns of the matrix atom.
const ATOM: u32 = 16;
/// The most CTAs for which registers are reserved; beyond it, more warps hide nothing more.
const MAX_RESIDENT: u32 = 4;
/// A schedule and what it occupies, by the formulas of the tiled form (before it is lowered).
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Point {
    pub schedule: Schedule,
    pub registers: u32,
    pub shared: u32,
}

/// All schedules for a purpose, feasible or with the reason why not.
pub(super) fn enumerate(problem: &Problem<'_>, purpose: Purpose) -> Vec<(Point, Result<(), Reason>)> {
    if problem.target.tma {
        return producer::enumerate(problem);
    }
    let (keys, pack, min_m) = match purpose {
        Purpose::Main | Purpose::Medium | Purpose::Short | Purpose::SmallShared | Purpose::Unaligned => {
            (Keys::All, Pack::Queries, 64)
        }
        Purpose::Split if problem.grouped => (Keys::Split, Pack::QueriesAndHeads, ATOM),
        Purpose::Split => (Keys::Split, Pack::Queries, ATOM),
    };
    // The row dimension of a decode step is not the one that a pin speaks of.
    let pin = |field: &str| match (purpose, field) {
        (Purpose::Split, "block_m" | "warps") => None,
        _ => problem.pinned(field),
    };
    let options = |field: &str, all: &[u32]| pin(field).map_or_else(|| all.to_vec(), |v| vec![v]);
    let mut points = Vec::new();
    for &block_m in &options("block_m", &BLOCK_M) {
        if block_m < min_m && pin("block_m").is_none() {
            continue;
        }
        for &warps in &options("warps", &WARPS) {
            // Unpinned, a warp takes 16, 32 or 48 rows: fewer do not exist, more cannot be held in registers.
            if pin("warps").is_none() && pin("block_m").is_none() && !(1..=3).contains(&(block_m / (warps * ATOM))) {
                continue;
            }
            for &block_n in &options("block_n", &BLOCK_N) {
                for &stages in &options("stages", &STAGES) {
                    for query in [QueryHome::Registers, QueryHome::Shared] {
                        let access = 16;
                        let schedule = Schedule {
                            block_m,
                            block_n,
                            warps,
                            stages,
                            query,
                            access,
                            pack,
                            keys,
                            min_ctas: 1,
                            fetch: Fetch::Together,
                            reference: Reference::Running,
                            staging: Staging::Query,
                            queries: 1,
                        };
                        points.push(check(problem, schedule, purpose));
                    }
                }
            }
        }
    }
    points
}

/// Fills in what a schedule occupies and how many CTAs are to be resident, or says why it cannot run.
pub(super) fn check(problem: &Problem<'_>, mut schedule: Schedule, purpose: Purpose) -> (Point, Result<(), Reason>) {
    let shape = divisible(&schedule);
    if shape.is_err() {
        return (
            Point {
                schedule,
                registers: 0,
                shared: 0,
            },
            shape,
        );
    }
    let registers = registers(problem, &schedule);
    let shared = shared(problem, &schedule);
    let limit = shared_limit(problem.target, purpose);
    schedule.min_ctas = resident(problem.target, schedule.warps, registers, shared, limit);
    let fits = within(problem.target, &schedule, registers, shared, purpose);
    (
        Point {
            schedule,
            registers,
            shared,
        },
        fits,
    )
}

/// Shared memory that a CTA of this purpose may have, in bytes.
fn shared_limit(target: &'static Target, purpose: Purpose) -> u32 {
    match purpose {
        Purpose::Main | Purpose::Medium | Purpose::Short => target.cta_shared_bytes,
        Purpose::SmallShared | Purpose::Unaligned | Purpose::Split => target.cta_shared_bytes.min(SMALL_SHARED),
    }
}

/// The registers below which ptxas spilled, for an estimate.
///
/// # Source
/// ptxas 13.5 on the portfolios of seven specs, 2026-11-24: no spill where the limit was 7 % above the estimate.
fn with_margin(registers: u32) -> u32 {
    (registers * 107).div_ceil(100)
}

fn at_most(
    target: &'static Target,
    what: &'static str,
    given: u32,
    limit: u32,
    unit: &'static str,
) -> Result<(), Reason> {
    if given <= limit {
        return Ok(());
    }
    Err(Reason::Limit(Limit {
        what,
        given: given.into(),
        limit: limit.into(),
        unit,
        target: target.name,
    }))
}

/// The limits on what a lowered kernel occupies, whose threads use so many registers by the estimate.
pub(super) fn kernel_within(
    problem: &Problem<'_>,
    point: &Point,
    kernel: &Kernel,
    registers: u32,
    purpose: Purpose,
) -> Result<(), Reason> {
    match (point.schedule.fetch, kernel.roles.last()) {
        (Fetch::Producer, Some(computing)) => {
            producer::within(problem, point.registers, computing.registers, kernel.shared_bytes())
        }
        _ => within(
            problem.target,
            &point.schedule,
            registers,
            kernel.shared_bytes(),
            purpose,
        ),
    }
}

/// The limits on what a CTA occupies.
fn within(
    target: &'static Target,
    schedule: &Schedule,
    registers: u32,
    shared: u32,
    purpose: Purpose,
) -> Result<(), Reason> {
    let limit = |what, given, limit, unit| at_most(target, what, given, limit, unit);
    limit("warps", schedule.warps, target.cta_warps, "warps")?;
    limit("shared memory", shared, shared_limit(target, purpose), "bytes")?;
    limit(
        "registers (estimated, with margin)",
        with_margin(registers),
        register_limit(target, schedule.warps, schedule.min_ctas),
        "a thread",
    )
}

fn multiple(what: &'static str, given: u32, of: u32) -> Result<(), Reason> {
    if given > 0 && given.is_multiple_of(of) {
        Ok(())
    } else {
        Err(Reason::Multiple { what, given, of })
    }
}

fn divisible(s: &Schedule) -> Result<(), Reason> {
    multiple("warps", s.warps, 1)?;
    multiple("block_m", s.block_m, ATOM * s.warps)?;
    multiple("block_n", s.block_n, ATOM)?;
    multiple("stages", s.stages, 1)
}

/// Registers of a thread: the accumulators of both products, the query if it stays, row statistics, operands in flight.
/// The same terms that [`crate::cost::estimate_registers`] finds in the lowered kernel.
fn registers(problem: &Problem<'_>, s: &Schedule) -> u32 {
    let rows = s.block_m / s.warps;
    let (d, e) = (problem.head_dim, problem.value_dim);
    let query = match s.query {
        QueryHome::Registers => rows * d / 64,
        QueryHome::Shared => rows / 16 * 8,
    };
    let statistics = 3 * rows / 8;
    BASE_REGISTERS + rows * e / 32 + rows * s.block_n / 32 + query + statistics + 8
}

/// Shared memory of a CTA: the query tile and the slots of keys and values, each at a multiple of 1024 bytes; the output
/// is staged where the query was.
fn shared(problem: &Problem<'_>, s: &Schedule) -> u32 {
    let bytes = |slots: u32, rows: u32, cols: u32| {
        (u64::from(slots) * u64::from(rows) * u64::from(cols) * u64::from(problem.element_bytes)).next_multiple_of(1024)
    };
    let (d, e) = (problem.head_dim, problem.value_dim);
    let staging = if d == e || s.keys == Keys::Split {
        0
    } else {
        bytes(1, s.block_m, e)
    };
    let all = bytes(1, s.block_m, d) + bytes(s.stages, s.block_n, d) + bytes(s.stages, s.block_n, e) + staging;
    all.min(u32::MAX.into()) as u32
}

/// How many CTAs registers and shared memory allow: what ptxas is then told to keep possible.
fn resident(target: &Target, warps: u32, registers: u32, shared: u32, shared_limit: u32) -> u32 {
    let fits = |ctas: &u32| {
        let registers_fit = with_margin(registers) <= register_limit(target, warps, *ctas);
        let bytes = u64::from(*ctas) * (u64::from(shared) + u64::from(RESERVED_SHARED));
        registers_fit && bytes <= u64::from(shared_limit) + u64::from(RESERVED_SHARED)
    };
    (2..=MAX_RESIDENT).take_while(fits).last().unwrap_or(1)
}
