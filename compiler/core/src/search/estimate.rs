//! The bound on the graph: what a schedule's tiles must do, before any kernel is lowered.
//!
//! It has the same terms as the walk of the final kernel, for a mask that hides nothing. It only prunes: the best few
//! are lowered and counted.

use super::space::Point;
use super::{Case, Problem};
use crate::cost::{Counts, Footprint, Group, Producer, Work};
use crate::schedule::{Fetch, Keys, Pack, QueryHome, Reference, Staging};

/// Counts of a schedule for a case.
pub(super) fn counts(problem: &Problem<'_>, point: &Point, case: &Case) -> (Footprint, Counts) {
    if point.schedule.fetch == Fetch::Producer {
        return with_producer(problem, point, case);
    }
    let s = &point.schedule;
    let element = u64::from(problem.element_bytes);
    let (d, e) = (u64::from(problem.head_dim), u64::from(problem.value_dim));
    let (m, n, warps) = (u64::from(s.block_m), u64::from(s.block_n), u64::from(s.warps));
    let mt = m / warps;

    let (rows, groups) = match s.pack {
        Pack::Queries => (u64::from(case.queries), u64::from(case.batch) * u64::from(case.heads)),
        Pack::QueriesAndHeads => {
            let ratio = case.heads / case.key_heads.max(1);
            (
                u64::from(case.queries) * u64::from(ratio),
                u64::from(case.batch) * u64::from(case.key_heads),
            )
        }
    };
    let row_tiles = rows.div_ceil(m) * groups;
    let key_tiles = u64::from(case.keys).div_ceil(n);
    let splits = match s.keys {
        Keys::All => 1,
        Keys::Split => {
            let wanted = u64::from(case.device.sms) * u64::from(s.min_ctas);
            wanted.div_ceil(row_tiles.max(1)).min(key_tiles.div_ceil(2)).max(1)
        }
    };

    // One warp, one tile.
    let elements = mt * n / 32;
    let products = mt / 16 * (n / 8 * d.div_ceil(16) + e.div_ceil(8) * n / 16);
    let query = match s.query {
        QueryHome::Registers => 0,
        QueryHome::Shared => mt * d * element,
    };
    let operands = n * (d + e) * element + query;
    let copied = n * (d + e) * element;
    let issue = 1000 * products
        + operands.div_ceil(512) * 1500
        // Maximum, scale and shift, exponential, sum, half a conversion; the spec's own operations; the rescale of O.
        + elements * (4500 + 1000 * u64::from(problem.score_operations))
        + 1000 * mt * e / 32
        // Statistics of each row that a lane holds.
        + mt / 8 * 20_000
        + 3000 * copied.div_ceil(warps * 32 * u64::from(s.access))
        // Loop, slots, waits and barriers.
        + 30_000;
    let tile = Work {
        read: vec![copied],
        written: vec![0],
        mma_flops: 2 * m * n * (d + e),
        mufu: (elements + mt / 8) * 32 * warps,
        exps: m * n,
        issue_milli: issue * warps,
        shared_read: operands * warps,
        shared_written: copied,
        latency: LATENCY * warps,
        ..Work::default()
    };
    let mut work = Work {
        read: vec![m * d * element],
        written: vec![m * e * element],
        ..Work::default()
    };
    work.add(&tile, key_tiles.div_ceil(splits));
    let ctas = row_tiles * splits;
    let mut total = Work {
        read: vec![0],
        written: vec![0],
        ..Work::default()
    };
    total.add(&work, ctas);
    let footprint = Footprint {
        warps: s.warps,
        registers: point.registers,
        shared: point.shared,
        in_flight: if s.stages == 1 {
            copied / 2
        } else {
            copied * u64::from(s.stages - 1)
        } as u32,
        producer: None,
    };
    let ctas32 = u32::try_from(ctas).unwrap_or(u32::MAX);
    (
        footprint,
        Counts {
            groups: vec![Group { ctas, work }],
            runs: vec![(0, ctas32)],
            total,
        },
    )
}

/// Counts of a schedule with a producer. A mask that cuts is taken to be causal, and the tiles to be dealt evenly.
fn with_producer(problem: &Problem<'_>, point: &Point, case: &Case) -> (Footprint, Counts) {
    let s = &point.schedule;
    let element = u64::from(problem.element_bytes);
    let (d, e) = (u64::from(problem.head_dim), u64::from(problem.value_dim));
    let (m, n, warps) = (u64::from(s.block_m), u64::from(s.block_n), u64::from(s.warps));
    let (queries, keys) = (u64::from(case.queries), u64::from(case.keys));
    let groups = u64::from(case.batch) * u64::from(case.heads);
    let row_tiles = queries.div_ceil(m);
    let visited = |tile: u64| {
        let last = (tile + 1) * m + keys.saturating_sub(queries);
        let end = if problem.cuts { last.min(keys) } else { keys };
        end.div_ceil(n).max(1)
    };
    let steps_of_head: u64 = (0..row_tiles).map(visited).sum();
    let tiles = (row_tiles * groups).max(1);
    let ctas = u64::from(case.device.sms).min(tiles);
    let most = tiles.div_ceil(ctas);
    let steps = if problem.cuts {
        let longest = visited(row_tiles.saturating_sub(1));
        (steps_of_head * groups).div_ceil(ctas).max(longest)
    } else {
        most * visited(0)
    };

    // A warp's 16 rows of a step: scale and shift, exponential, sum, half a conversion; the spec's own operations.
    let lane = n / 2;
    let (running, masked) = (1000 * lane + 500 * e, 3000 * lane);
    let softmax = lane * (3500 + 1000 * u64::from(problem.score_operations))
        + 2000 * (d.div_ceil(16) + n / 16)
        + 20_000
        + if s.reference == Reference::Running { running } else { 0 };
    // The first step of a tile has a maximum, and a mask where one cuts; results are scaled, rounded and stored.
    let tile = running + if problem.cuts { masked } else { 0 } + 1500 * e + 100_000;
    let copied = n * (d + e) * element;
    let rows = m * d * element;
    // The first product of a step reads both operands from shared memory, at 32 operations a byte.
    let first = 2 * m * n * d;
    let stalled = (32 * (rows + warps / 4 * n * d * element)).saturating_sub(first);
    let work = Work {
        read: vec![steps * copied + most * rows],
        written: vec![most * m * e * element],
        mma_flops: steps * 2 * m * n * (d + e),
        wgmma_flops: steps * 2 * m * n * (d + e),
        stalled_flops: steps * stalled,
        mufu: steps * m * n,
        exps: steps * m * n,
        issue_milli: warps * (steps * softmax + most * tile),
        // Queries and both right operands, once for each group.
        shared_read: steps * (rows + warps / 4 * copied),
        shared_written: steps * copied + most * rows,
        latency: warps * steps * WAITS,
        tiles: most,
        fills: 2 * steps,
        ..Work::default()
    };
    let mut total = Work {
        read: vec![0],
        written: vec![0],
        ..Work::default()
    };
    total.add(&work, ctas);
    let footprint = Footprint {
        warps: s.warps + 4,
        registers: 0,
        shared: point.shared,
        in_flight: (copied * u64::from(s.stages - 1)) as u32,
        producer: Some(Producer {
            groups: s.warps / 4,
            waits_for_store: s.staging == Staging::Query,
            ahead: s.queries > 1,
            stages: s.stages,
        }),
    };
    let counts = Counts {
        groups: vec![Group { ctas, work }],
        runs: vec![(0, u32::try_from(ctas).unwrap_or(u32::MAX))],
        total,
    };
    (footprint, counts)
}

/// Cycles that a warp of a computing group waits in a step: two products, two slots.
const WAITS: u64 = 2 * 33 + 2 * 25;

/// Cycles that a warp waits in a tile: two products and their first operands, a reduction over a quad, two barriers.
/// The sum that the walk finds in the lowered kernel.
const LATENCY: u64 = 2 * (33 + 25) + 2 * 25 + 2 * 25;

/// Bytes of queries, keys, values and outputs, each once.
pub(super) fn unique_bytes(problem: &Problem<'_>, case: &Case) -> u64 {
    let (d, e) = (u64::from(problem.head_dim), u64::from(problem.value_dim));
    let rows = u64::from(case.batch) * u64::from(case.heads) * u64::from(case.queries);
    let keys = u64::from(case.batch) * u64::from(case.key_heads) * u64::from(case.keys);
    (rows + keys) * (d + e) * u64::from(problem.element_bytes)
}
