//! The key tiles that a query tile visits, as scalar device arithmetic: the mirror of
//! `drawloom_graph::ranges::plan_tiles`.
//!
//! Iteration `t` of the loop visits the `t`-th tile of the union of the mask's pieces, in key order; each piece is cut
//! into a left edge, a full part and a right edge. All of it is a handful of integer operations per CTA.

use super::Unsupported;
use super::builder::Builder;
use super::sym::{Leaves, lower};
use drawloom_graph::ranges::{Ranges, Sym};
use drawloom_kernel::ir::{MapOp, Val};

/// What a tile needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TileKind {
    /// Every query sees every key: no mask code.
    Full,
    /// The mask is evaluated.
    Edge,
}

/// The visited tiles.
pub struct Tiles {
    /// One per piece: first tile, and the iteration number at which the piece begins.
    runs: Vec<(Val, Val)>,
    /// Segments in iteration order: kind and one past the last iteration.
    pub segments: Vec<(TileKind, Val)>,
    /// Iterations in all.
    pub count: Val,
    /// Whether the last segment has at most one iteration: the mask's edge is the tensor's.
    pub one_at_the_end: bool,
}

struct Cut {
    first: Val,
    end: Val,
    full_first: Val,
    full_end: Val,
    /// Whether the left edge is empty for every tile.
    no_left: bool,
    /// Whether the full part is empty for every tile.
    no_full: bool,
    /// Whether the right edge is at most one tile.
    one_right: bool,
}

/// Emits the arithmetic into the current block.
///
/// # Errors
/// [`Unsupported`] if an endpoint has no meaning in this kernel.
pub fn lower_ranges(b: &mut Builder, leaves: &Leaves, ranges: &Ranges, block_n: u32) -> Result<Tiles, Unsupported> {
    let by = b.int(i64::from(block_n));
    let mut cuts = Vec::new();
    for piece in &ranges.pieces {
        let lo = lower(b, leaves, &piece.possible.lo)?;
        let hi = lower(b, leaves, &piece.possible.hi)?;
        let full_lo = lower(b, leaves, &piece.certain.lo)?;
        let full_hi = lower(b, leaves, &piece.certain.hi)?;
        let some = b.test(MapOp::Lt, &[lo, hi]);
        let first = b.div(lo, by);
        let last = b.ceil_div(hi, block_n);
        let end = b.select(some, last, first);
        let no_full = piece.certain.lo == piece.certain.hi;
        let full_first = b.ceil_div(full_lo, block_n);
        let full_first = b.max(full_first, first);
        let full_first = b.min(full_first, end);
        let full_end = b.div(full_hi, by);
        let full_end = b.min(full_end, end);
        let full_end = b.max(full_end, full_first);
        let aligned = |s: &Sym| matches!(s, Sym::Const(c) if c % i64::from(block_n) == 0);
        let no_left = piece.certain.lo == piece.possible.lo && aligned(&piece.possible.lo);
        cuts.push(Cut {
            first,
            end,
            full_first,
            full_end,
            no_left,
            no_full,
            one_right: !no_full && no_left && piece.certain.hi == piece.possible.hi,
        });
    }
    sort(b, &mut cuts);
    let mut runs = Vec::new();
    let mut segments = Vec::new();
    let mut count = b.int(0);
    let mut previous: Option<Val> = None;
    let one_at_the_end = matches!(cuts.as_slice(), [cut] if cut.one_right);
    for cut in cuts {
        // Tiles that an earlier piece has visited are skipped.
        let (first, end, full_first, full_end) = match previous {
            None => (cut.first, cut.end, cut.full_first, cut.full_end),
            Some(p) => {
                let first = b.max(cut.first, p);
                let end = b.max(cut.end, first);
                let full_first = b.max(cut.full_first, first);
                let full_first = b.min(full_first, end);
                let full_end = b.max(cut.full_end, full_first);
                (first, end, full_first, full_end)
            }
        };
        previous = Some(end);
        runs.push((first, count));
        let at = |b: &mut Builder, tile: Val| {
            let offset = b.sub(tile, first);
            b.add(count, offset)
        };
        if !cut.no_full {
            if !cut.no_left || runs.len() > 1 {
                let v = at(b, full_first);
                segments.push((TileKind::Edge, v));
            }
            let v = at(b, full_end);
            segments.push((TileKind::Full, v));
        }
        let v = at(b, end);
        segments.push((TileKind::Edge, v));
        count = v;
    }
    if segments.is_empty() {
        // A mask that hides everything: the loop is there, and does not run.
        segments.push((TileKind::Edge, count));
    }
    Ok(Tiles {
        runs,
        segments,
        count,
        one_at_the_end,
    })
}

/// Orders the pieces by their first tile with a fixed network of exchanges.
fn sort(b: &mut Builder, cuts: &mut [Cut]) {
    for end in (1..cuts.len()).rev() {
        for i in 0..end {
            let swap = b.test(MapOp::Lt, &[cuts[i + 1].first, cuts[i].first]);
            let exchange = |b: &mut Builder, x: &mut Val, y: &mut Val| {
                let (a, c) = (*x, *y);
                *x = b.select(swap, c, a);
                *y = b.select(swap, a, c);
            };
            let (left, right) = cuts.split_at_mut(i + 1);
            let (x, y) = (&mut left[i], &mut right[0]);
            exchange(b, &mut x.first, &mut y.first);
            exchange(b, &mut x.end, &mut y.end);
            exchange(b, &mut x.full_first, &mut y.full_first);
            exchange(b, &mut x.full_end, &mut y.full_end);
            let (no_left, no_full) = (x.no_left && y.no_left, x.no_full && y.no_full);
            (x.no_left, y.no_left, x.no_full, y.no_full) = (no_left, no_left, no_full, no_full);
            (x.one_right, y.one_right) = (false, false);
        }
    }
}

impl Tiles {
    /// The tile that iteration `t` visits.
    pub fn tile(&self, b: &mut Builder, t: Val) -> Val {
        let mut tile = t;
        for (n, &(first, begin)) in self.runs.iter().enumerate() {
            let offset = b.sub(t, begin);
            let here = b.add(offset, first);
            tile = if n == 0 {
                here
            } else {
                let in_run = b.test(MapOp::Le, &[begin, t]);
                b.select(in_run, here, tile)
            };
        }
        tile
    }

    /// The same iterations from the last to the first, of which there is at least one: `(last, segments)` where iteration
    /// `t` of the reversed order is iteration `last - t` of this one. With nothing to visit, the one iteration meets a tile
    /// that the mask hides. The first segment is an edge.
    pub fn backward(&self, b: &mut Builder) -> (Val, Vec<(TileKind, Val)>) {
        let one = b.int(1);
        let count = b.max(self.count, one);
        let last = b.sub(count, one);
        let n = self.segments.len();
        let segments = (0..n)
            .rev()
            .map(|i| {
                let end = match i {
                    0 => count,
                    _ if i + 1 == n && self.one_at_the_end => one,
                    _ => b.sub(self.count, self.segments[i - 1].1),
                };
                (self.segments[i].0, end)
            })
            .collect();
        (last, segments)
    }

    /// The part of the iterations that split `split` of `splits` sees: `(begin, segments, count)` where iteration `t` of
    /// the part is iteration `begin + t` of the whole.
    pub fn part(&self, b: &mut Builder, split: Val, splits: Val) -> (Val, Vec<(TileKind, Val)>, Val) {
        let one = b.int(1);
        let next = b.add(split, one);
        let scaled = b.mul(self.count, split);
        let begin = b.div(scaled, splits);
        let scaled = b.mul(self.count, next);
        let end = b.div(scaled, splits);
        let zero = b.int(0);
        let count = b.sub(end, begin);
        let segments = self
            .segments
            .iter()
            .map(|&(kind, seg_end)| {
                let shifted = b.sub(seg_end, begin);
                let shifted = b.max(shifted, zero);
                (kind, b.min(shifted, count))
            })
            .collect();
        (begin, segments, count)
    }
}
