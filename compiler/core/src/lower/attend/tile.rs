//! One query tile: which rows and heads a CTA has, where they lie in memory, and which key tiles they visit.

use super::super::Unsupported;
use super::super::builder::Builder;
use super::super::expr::{Coord, Exprs, Table};
use super::super::operator::Operator;
use super::super::sym::Leaves;
use super::super::tiles::{Tiles, lower_ranges};
use super::params::Params;
use crate::schedule::{Pack, Schedule};
use drawloom_graph::ranges::{Interval, Piece, Ranges, Sym};
use drawloom_kernel::ir::{Dtype, Frag, Layout, MapOp, Op, RowIndex, Val};
use drawloom_lang::spec::{Align, AxisId, AxisRole};
use std::collections::BTreeMap;

/// Everything about one query tile that later parts need.
pub(super) struct Tile {
    /// Index on each outer axis of the query tensor; with packed heads, the head axis is absent.
    pub(super) fixed: BTreeMap<AxisId, Val>,
    /// Number of the tile's first row.
    pub(super) first_row: Val,
    /// Rows in all.
    pub(super) rows: Val,
    /// First row of this warp within the tile.
    pub(super) warp_row: Val,
    /// Row numbers of this warp, `rows x 1`.
    pub(super) row: Val,
    /// Which of them exist.
    pub(super) valid: Val,
    /// Heads per key head, if the key heads are grouped.
    pub(super) ratio: Option<Val>,
    /// This CTA's split and the number of splits.
    pub(super) split: Option<(Val, Val)>,
}

/// The rows of one head (or of the heads that are packed), and the row tiles that they make.
pub(super) fn row_tiles(
    b: &mut Builder,
    op: &Operator,
    schedule: &Schedule,
    params: &Params,
) -> Result<(Val, Val, Option<Val>), Unsupported> {
    let ratio = op.group().map(|(g, h)| b.div(params.lens[&h], params.lens[&g]));
    let queries = params.lens[&op.attend.query];
    let rows = match (schedule.pack, op.group(), ratio) {
        (Pack::Queries, ..) => queries,
        (Pack::QueriesAndHeads, Some(_), Some(ratio)) => b.mul(queries, ratio),
        (Pack::QueriesAndHeads, ..) => return Err(Unsupported::new("packed heads without a grouped axis")),
    };
    let tiles = b.ceil_div(rows, schedule.block_m);
    Ok((rows, tiles, ratio))
}

/// The outer axes that tiles are counted over, slowest first.
pub(super) fn outer(op: &Operator, schedule: &Schedule) -> Vec<AxisId> {
    let packed = match schedule.pack {
        Pack::Queries => None,
        Pack::QueriesAndHeads => op.group(),
    };
    op.outer()
        .into_iter()
        .map(|a| match packed {
            Some((g, h)) if a == h => g,
            Some(_) | None => a,
        })
        .collect()
}

/// Which tile of the launch.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// The row tile, counted from the last: the last rows see the most keys under causal masks.
    pub(super) m: Val,
    /// The index over all outer axes, the last of which is fastest.
    pub(super) outer: Val,
    /// The split and the number of splits.
    pub(super) split: Option<(Val, Val)>,
}

/// The tile of a CTA that has one: the split is fastest, then the row tile.
pub(super) fn of_cta(
    b: &mut Builder,
    op: &Operator,
    schedule: &Schedule,
    params: &Params,
) -> Result<Place, Unsupported> {
    let cta = b.def(Frag::scalar(Dtype::I32), Op::Cta);
    let split = params.splits.map(|splits| (b.rem(cta, splits), splits));
    let rest = params.splits.map_or(cta, |splits| b.div(cta, splits));
    let (_, row_tiles, _) = row_tiles(b, op, schedule, params)?;
    Ok(Place {
        m: b.rem(rest, row_tiles),
        outer: b.div(rest, row_tiles),
        split,
    })
}

/// The tile at a place.
pub(super) fn locate(
    b: &mut Builder,
    op: &Operator,
    schedule: &Schedule,
    params: &Params,
    place: Place,
) -> Result<Tile, Unsupported> {
    let mt = schedule.block_m / schedule.warps;
    let (rows, row_tiles, ratio) = row_tiles(b, op, schedule, params)?;
    let Place {
        m,
        outer: mut rest,
        split,
    } = place;
    let one = b.int(1);
    let last = b.sub(row_tiles, one);
    let m = b.sub(last, m);
    let mut fixed = BTreeMap::new();
    let outer = outer(op, schedule);
    for (n, &axis) in outer.iter().enumerate().rev() {
        if n == 0 {
            fixed.insert(axis, rest);
        } else {
            let len = params.lens[&axis];
            let index = b.rem(rest, len);
            fixed.insert(axis, index);
            rest = b.div(rest, len);
        }
    }
    // A grouped key head follows from the query head.
    if let (Pack::Queries, Some((g, h)), Some(ratio)) = (schedule.pack, op.group(), ratio) {
        let index = b.div(fixed[&h], ratio);
        fixed.insert(g, index);
    }
    let block = b.int(i64::from(schedule.block_m));
    let first_row = b.mul(m, block);
    let warp = b.def(Frag::scalar(Dtype::I32), Op::WarpInRole);
    let height = b.int(i64::from(mt));
    let warp_row = b.mul(warp, height);
    let base = b.add(first_row, warp_row);
    let iota = b.def(
        Frag {
            dtype: Dtype::I32,
            rows: mt,
            cols: 1,
            layout: Layout::Mma,
        },
        Op::RowIota,
    );
    let row = b.map(MapOp::Add, Dtype::I32, &[iota, base]);
    let valid = b.test(MapOp::Lt, &[row, rows]);
    Ok(Tile {
        fixed,
        first_row,
        rows,
        warp_row,
        row,
        valid,
        ratio,
        split,
    })
}

/// The index of row `n` of a query-side tile on each axis but the last.
pub(super) fn row_index(
    b: &mut Builder,
    op: &Operator,
    schedule: &Schedule,
    tile: &Tile,
    axes: &[AxisId],
) -> Vec<RowIndex> {
    axes[..axes.len() - 1]
        .iter()
        .map(|&a| match (schedule.pack, tile.ratio, op.group()) {
            (Pack::QueriesAndHeads, Some(by), Some((g, h))) => {
                if a == op.attend.query {
                    RowIndex::RowDiv { by }
                } else if a == h {
                    let base = b.mul(tile.fixed[&g], by);
                    RowIndex::RowRem { by, base }
                } else {
                    RowIndex::Fixed(tile.fixed[&a])
                }
            }
            (Pack::Queries | Pack::QueriesAndHeads, _, _) => {
                if a == op.attend.query {
                    RowIndex::Row
                } else {
                    RowIndex::Fixed(tile.fixed[&a])
                }
            }
        })
        .collect()
}

/// Per row (`rows x 1`) or fixed: the index on each outer axis and the query axis.
pub(super) fn row_coords(b: &mut Builder, op: &Operator, schedule: &Schedule, tile: &Tile) -> BTreeMap<AxisId, Val> {
    let mut coords = tile.fixed.clone();
    match (schedule.pack, tile.ratio, op.group()) {
        (Pack::QueriesAndHeads, Some(ratio), Some((g, h))) => {
            let i = b.map(MapOp::Div, Dtype::I32, &[tile.row, ratio]);
            let r = b.map(MapOp::Rem, Dtype::I32, &[tile.row, ratio]);
            let base = b.mul(tile.fixed[&g], ratio);
            let head = b.map(MapOp::Add, Dtype::I32, &[r, base]);
            coords.insert(op.attend.query, i);
            coords.insert(h, head);
        }
        (Pack::Queries | Pack::QueriesAndHeads, _, _) => {
            coords.insert(op.attend.query, tile.row);
        }
    }
    coords
}

pub(super) fn environment<'g>(
    b: &mut Builder,
    op: &Operator<'g>,
    schedule: &Schedule,
    params: &Params,
    tile: &Tile,
) -> Result<Exprs<'g>, Unsupported> {
    let mut exprs = Exprs::new(op.graph, op.axis(op.attend.key));
    for (id, v) in row_coords(b, op, schedule, tile) {
        let coord = if b.ty(v).is_scalar() {
            Coord::Fixed(v)
        } else {
            Coord::Row(v, tile.valid)
        };
        exprs.coords.insert(op.axis(id), coord);
    }
    let key = Coord::Key {
        base: None,
        len: params.lens[&op.attend.key],
        cols: schedule.block_n,
    };
    exprs.coords.insert(op.axis(op.attend.key), key);
    for (&id, &v) in &params.lens {
        exprs.lens.insert(op.axis(id), v);
    }
    for input in &op.spec.inputs {
        let table = Table {
            param: params.tensors[&input.name],
            dtype: op.dtype(input.ty),
            axes: input.axes.iter().map(|&a| op.axis(a)).collect(),
        };
        exprs.tables.insert(input.name.clone(), table);
    }
    exprs.scalars = params.scalars.clone();
    Ok(exprs)
}

/// The tiles to visit, from the mask's closed-form ranges at this tile's first and last query.
pub(super) fn ranges(
    b: &mut Builder,
    op: &Operator,
    schedule: &Schedule,
    params: &Params,
    tile: &Tile,
    exprs: &Exprs,
) -> Result<Tiles, Unsupported> {
    let (queries, keys) = (params.lens[&op.attend.query], params.lens[&op.attend.key]);
    let height = b.int(i64::from(schedule.block_m));
    let one = b.int(1);
    let end = b.add(tile.first_row, height);
    let end = b.min(end, tile.rows);
    let last = b.sub(end, one);
    let (mut lo, mut hi) = (tile.first_row, last);
    if let (Pack::QueriesAndHeads, Some(ratio)) = (schedule.pack, tile.ratio) {
        lo = b.div(lo, ratio);
        hi = b.div(hi, ratio);
    }
    if op.spec.axes[op.attend.query.index()].role == AxisRole::Query(Align::End) {
        let offset = b.sub(keys, queries);
        lo = b.add(lo, offset);
        hi = b.add(hi, offset);
    }
    let name = |id: &AxisId| op.spec.axes[id.index()].name.clone();
    let leaves = Leaves {
        row_lo: lo,
        row_hi: hi,
        lens: &params.lens.iter().map(|(id, &v)| (name(id), v)).collect(),
        fixed: &tile.fixed.iter().map(|(id, &v)| (name(id), v)).collect(),
        scalars: &params.scalars,
        tables: &exprs.tables,
        extents: &op
            .spec
            .inputs
            .iter()
            .map(|i| (i.name.clone(), i.axes.iter().map(|a| params.lens[a]).collect()))
            .collect(),
    };
    match (schedule.pack, op.group()) {
        // The heads of a group differ within a packed tile: ranges that depend on the head are those of no head.
        (Pack::QueriesAndHeads, Some((_, h))) if depends_on(&op.ranges, &name(&h)) => {
            let keys = Sym::Len(name(&op.attend.key));
            let possible = Interval {
                lo: Sym::Const(0),
                hi: keys,
            };
            let certain = Interval {
                lo: Sym::Const(0),
                hi: Sym::Const(0),
            };
            let anything = Ranges {
                pieces: vec![Piece { possible, certain }],
            };
            lower_ranges(b, &leaves, &anything, schedule.block_n)
        }
        (Pack::Queries | Pack::QueriesAndHeads, _) => lower_ranges(b, &leaves, &op.ranges, schedule.block_n),
    }
}

/// Whether an endpoint depends on the index on an axis that is fixed in a tile.
pub(super) fn depends_on(ranges: &Ranges, axis: &str) -> bool {
    let mut found = false;
    for piece in &ranges.pieces {
        for end in [
            &piece.possible.lo,
            &piece.possible.hi,
            &piece.certain.lo,
            &piece.certain.hi,
        ] {
            end.visit(&mut |sym| found |= matches!(sym, Sym::Fixed(name) if name == axis));
        }
    }
    found
}
