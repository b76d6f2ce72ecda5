//! Arithmetic on separated values: sums of a part without the key axis and a part without the query axis.

use super::builder::Builder;
use super::expr::{Lowered, dtype};
use drawloom_graph::ir::{Binary, Ty};
use drawloom_kernel::ir::{MapOp, Val};

/// Sums, differences, uniform multiples and comparisons of separated values without forming the tile.
pub fn separated(b: &mut Builder, op: Binary, x: Lowered, y: Lowered, ty: Ty) -> Option<Lowered> {
    let d = dtype(ty);
    let parts = |b: &Builder, l: Lowered| match l {
        Lowered::Split { row, col } => Some((Some(row), Some(col))),
        Lowered::One(v) => {
            let t = b.ty(v);
            match (t.rows, t.cols) {
                (_, 1) => Some((Some(v), None)),
                (1, _) => Some((None, Some(v))),
                _ => None,
            }
        }
    };
    let split = |l: Lowered| matches!(l, Lowered::Split { .. });
    let ((xr, xc), (yr, yc)) = (parts(b, x)?, parts(b, y)?);
    let crossing = xr.is_some() != yr.is_some() || xc.is_some() != yc.is_some();
    if !(split(x) || split(y) || crossing) {
        return None;
    }
    let combine = |b: &mut Builder, l: Option<Val>, r: Option<Val>, op: MapOp| match (l, r) {
        (Some(l), Some(r)) => Some(b.map(op, d, &[l, r])),
        (Some(l), None) => Some(l),
        (None, Some(r)) if op == MapOp::Sub => Some(b.map(MapOp::Neg, d, &[r])),
        (None, Some(r)) => Some(r),
        (None, None) => None,
    };
    match op {
        Binary::Add | Binary::Sub => {
            let map = if op == Binary::Add { MapOp::Add } else { MapOp::Sub };
            let row = combine(b, xr, yr, map);
            let col = combine(b, xc, yc, map);
            Some(match (row, col) {
                (Some(row), Some(col)) => Lowered::Split { row, col },
                (Some(v), None) | (None, Some(v)) => Lowered::One(v),
                (None, None) => return None,
            })
        }
        Binary::Mul => {
            // Only a uniform factor distributes without making a column part depend on the row.
            let (factor, (row, col)) = match (x, y) {
                (Lowered::One(f), Lowered::Split { row, col }) | (Lowered::Split { row, col }, Lowered::One(f))
                    if b.ty(f).is_scalar() =>
                {
                    (f, (row, col))
                }
                _ => return None,
            };
            let row = b.map(MapOp::Mul, d, &[factor, row]);
            let col = b.map(MapOp::Mul, d, &[factor, col]);
            Some(Lowered::Split { row, col })
        }
        Binary::Lt | Binary::Le | Binary::Eq if ty == Ty::Int => {
            // xc - yc  op  yr - xr
            let col = combine(b, xc, yc, MapOp::Sub)?;
            let row = combine(b, yr, xr, MapOp::Sub)?;
            let map = match op {
                Binary::Lt => MapOp::Lt,
                Binary::Le => MapOp::Le,
                _ => MapOp::Eq,
            };
            Some(Lowered::One(b.test(map, &[col, row])))
        }
        _ => None,
    }
}
