//! From evaluated pieces to key tiles: which blocks of `block_n` keys a query tile visits, and which of them need no mask.
//!
//! [`plan_tiles`] is the one rule; kernels compute the same in device arithmetic and the cost model counts with it.

use super::{Env, Ranges};
use std::ops::Range;

/// A piece of [`Ranges`] with numbers in place of expressions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Extent {
    /// Keys that some row may see.
    pub possible: Range<i64>,
    /// Keys that every row sees.
    pub certain: Range<i64>,
}

impl Ranges {
    /// The pieces for one query tile.
    pub fn eval(&self, env: &Env) -> Vec<Extent> {
        let range = |i: &super::Interval| i.lo.eval(env)..i.hi.eval(env);
        self.pieces
            .iter()
            .map(|p| Extent {
                possible: range(&p.possible),
                certain: range(&p.certain),
            })
            .collect()
    }
}

/// Consecutive key tiles: tile `t` holds the keys `t * block_n .. (t + 1) * block_n`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TileRun {
    /// First tile.
    pub first: i64,
    /// One past the last tile.
    pub end: i64,
    /// First tile whose keys all rows see, within `first..=end`.
    pub full_first: i64,
    /// One past the last such tile, within `full_first..=end`.
    pub full_end: i64,
}

/// The tiles that a query tile visits, each once, in ascending order.
///
/// Empty pieces are skipped. A piece covers the tiles `floor(lo / block_n) .. ceil(hi / block_n)`; pieces come in
/// ascending order of their first tile (ties: as listed); a piece's run starts where the runs before it have ended, and is
/// dropped where nothing is left. Its full tiles are `ceil(certain.lo / block_n) .. floor(certain.hi / block_n)`, clamped into the run.
/// So a tile at the end of the keys that is not whole is never full. `block_n` is at least 1; 0 counts as 1.
pub fn plan_tiles(pieces: &[Extent], block_n: u32) -> Vec<TileRun> {
    let n = i64::from(block_n.max(1));
    let ceil = |x: i64| x.div_euclid(n) + i64::from(x.rem_euclid(n) != 0);
    let mut order: Vec<&Extent> = pieces.iter().filter(|p| !p.possible.is_empty()).collect();
    order.sort_by_key(|p| p.possible.start.div_euclid(n));
    let mut done = i64::MIN;
    let mut runs = Vec::new();
    for piece in order {
        let first = piece.possible.start.div_euclid(n).max(done);
        let end = ceil(piece.possible.end);
        if first >= end {
            continue;
        }
        let full_first = ceil(piece.certain.start).clamp(first, end);
        let full_end = piece.certain.end.div_euclid(n).clamp(full_first, end);
        runs.push(TileRun {
            first,
            end,
            full_first,
            full_end,
        });
        done = end;
    }
    runs
}

/// How much of a tile its rows see.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum TileClass {
    /// No row sees any key.
    Empty,
    /// Some rows may see some keys.
    Partial,
    /// Every row sees every key.
    Full,
}

/// The class of the tile of the given keys, as far as the pieces know it.
pub fn classify_tile(pieces: &[Extent], keys: &Range<i64>) -> TileClass {
    let overlaps = |p: &Extent| p.possible.start.max(keys.start) < p.possible.end.min(keys.end);
    if pieces
        .iter()
        .any(|p| p.certain.start <= keys.start && keys.end <= p.certain.end && !keys.is_empty())
    {
        TileClass::Full
    } else if pieces.iter().any(overlaps) {
        TileClass::Partial
    } else {
        TileClass::Empty
    }
}

/// Numbers of tiles.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct TileCount {
    /// Tiles visited.
    pub visited: u64,
    /// Of these, tiles that need no mask.
    pub full: u64,
}

/// The tiles that one query tile visits.
pub fn count_tiles(ranges: &Ranges, env: &Env, block_n: u32) -> TileCount {
    plan_tiles(&ranges.eval(env), block_n)
        .iter()
        .fold(TileCount::default(), |acc, run| TileCount {
            visited: acc.visited + run.first.abs_diff(run.end),
            full: acc.full + run.full_first.abs_diff(run.full_end),
        })
}
