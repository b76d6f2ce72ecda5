//! Abstract values: what the walk knows about an integer or Boolean fragment of one warp.
//!
//! Control flow, row limits and access guards are functions of sizes, the CTA's and the warp's number, row and column
//! numbers, and index tensors. Fragments of that kind are almost always affine in the row and column number, and their
//! comparisons half planes that are parallel to an axis, so a guard over `rows x cols` elements is counted in constant
//! time. What has no such form is kept element by element. Floats are followed where they hold small integers, exactly:
//! a lane count that was summed as `f32` is one.

use drawloom_kernel::ir::{Dtype, Frag, MapOp, ReduceOp, Val};
use std::rc::Rc;

/// A half-open interval of row or column numbers; [`ALL`] where a predicate does not depend on the number.
type Span = (i64, i64);

/// The span that excludes nothing.
const ALL: Span = (i64::MIN, i64::MAX);

/// What is known about a value.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Abs {
    /// Every element is this integer (predicates: 0 or 1).
    Int(i64),
    /// Element `(r, c)` is `base + row * r + col * c`.
    Affine {
        /// At `(0, 0)`.
        base: i64,
        /// Per row.
        row: i64,
        /// Per column.
        col: i64,
    },
    /// A predicate that holds exactly for rows and columns within the spans.
    Rect {
        /// Rows.
        rows: Span,
        /// Columns.
        cols: Span,
    },
    /// Every element, row-major, in its own `rows x cols` shape.
    Dense {
        /// Rows: 1 broadcasts.
        rows: u32,
        /// Columns: 1 broadcasts.
        cols: u32,
        /// Elements.
        data: Rc<[i64]>,
    },
    /// Not known: it comes from this value, which the walk cannot evaluate.
    Unknown(Val),
}

impl Abs {
    /// The integer, if every element is the same known one.
    pub(super) fn int(&self) -> Result<i64, Val> {
        match self {
            Abs::Int(x) => Ok(*x),
            Abs::Affine { base, row: 0, col: 0 } => Ok(*base),
            Abs::Dense { data, .. } if data.len() == 1 => Ok(data[0]),
            Abs::Unknown(v) => Err(*v),
            // A scalar's shape is 1 x 1, so that its only element is the one at the origin.
            Abs::Affine { .. } | Abs::Rect { .. } | Abs::Dense { .. } => self.at(0, 0),
        }
    }

    /// Element `(r, c)`, broadcasting.
    pub(super) fn at(&self, r: u32, c: u32) -> Result<i64, Val> {
        match self {
            Abs::Int(x) => Ok(*x),
            Abs::Affine { base, row, col } => Ok(base
                .wrapping_add(row.wrapping_mul(r.into()))
                .wrapping_add(col.wrapping_mul(c.into()))),
            Abs::Rect { rows, cols } => Ok(i64::from(inside(*rows, r) && inside(*cols, c))),
            Abs::Dense { rows, cols, data } => {
                let r = if *rows == 1 { 0 } else { r };
                let c = if *cols == 1 { 0 } else { c };
                Ok(data[(r * cols + c) as usize])
            }
            Abs::Unknown(v) => Err(*v),
        }
    }

    /// The number of elements of a `rows x cols` access for which this guard holds.
    pub(super) fn holds(&self, rows: u32, cols: u32) -> Result<u64, Val> {
        match self {
            Abs::Int(x) => Ok(if *x != 0 { u64::from(rows) * u64::from(cols) } else { 0 }),
            Abs::Rect { rows: r, cols: c } => Ok(length(*r, rows) * length(*c, cols)),
            Abs::Unknown(v) => Err(*v),
            Abs::Affine { .. } | Abs::Dense { .. } => {
                let mut n = 0;
                for r in 0..rows {
                    for c in 0..cols {
                        n += u64::from(self.at(r, c)? != 0);
                    }
                }
                Ok(n)
            }
        }
    }

    /// The smallest and largest element of a `rows x cols` fragment, where that is cheap to tell.
    fn bounds(&self, ty: Frag) -> Option<(i64, i64)> {
        let Abs::Affine { base, row, col } = *self else {
            return None;
        };
        let r = row.checked_mul(i64::from(ty.rows) - 1)?;
        let c = col.checked_mul(i64::from(ty.cols) - 1)?;
        let lo = base.checked_add(r.min(0))?.checked_add(c.min(0))?;
        let hi = base.checked_add(r.max(0))?.checked_add(c.max(0))?;
        Some((lo, hi))
    }

    /// `(base, row, col)` of a value that is affine.
    fn affine(&self) -> Option<(i64, i64, i64)> {
        match *self {
            Abs::Int(x) => Some((x, 0, 0)),
            Abs::Affine { base, row, col } => Some((base, row, col)),
            Abs::Rect { .. } | Abs::Dense { .. } | Abs::Unknown(_) => None,
        }
    }

    /// The spans of a predicate that is a rectangle.
    fn rect(&self) -> Option<(Span, Span)> {
        match *self {
            Abs::Int(0) => Some(((0, 0), ALL)),
            Abs::Int(_) => Some((ALL, ALL)),
            Abs::Rect { rows, cols } => Some((rows, cols)),
            Abs::Affine { .. } | Abs::Dense { .. } | Abs::Unknown(_) => None,
        }
    }
}

fn inside(span: Span, x: u32) -> bool {
    span.0 <= i64::from(x) && i64::from(x) < span.1
}

fn length(span: Span, size: u32) -> u64 {
    let (lo, hi) = (span.0.max(0), span.1.min(size.into()));
    if lo < hi { hi.abs_diff(lo) } else { 0 }
}

fn intersect(a: Span, b: Span) -> Span {
    (a.0.max(b.0), a.1.min(b.1))
}

/// An element-wise operation on known values: `dst` is the value it defines and `ty` its type, `from` the type of the
/// first operand. Unknown operands give an unknown result, unless the result does not depend on them.
pub(super) fn map(op: MapOp, args: &[&Abs], dst: Val, ty: Frag, from: Frag) -> Abs {
    let followed = followed(ty.dtype) && followed(from.dtype);
    // By far the most frequent: scalar integers.
    let known = match *args {
        [Abs::Int(a)] => element(op, &[*a], ty.dtype),
        [Abs::Int(a), Abs::Int(b)] => element(op, &[*a, *b], ty.dtype),
        [Abs::Int(a), Abs::Int(b), Abs::Int(c)] => element(op, &[*a, *b, *c], ty.dtype),
        _ => None,
    };
    if let Some(x) = known.filter(|_| followed) {
        return Abs::Int(x);
    }
    if let Some(v) = absorbing(op, args) {
        return v;
    }
    if let Some(v) = args
        .iter()
        .find_map(|a| if let Abs::Unknown(v) = a { Some(*v) } else { None })
    {
        return Abs::Unknown(v);
    }
    if !followed {
        return Abs::Unknown(dst);
    }
    if let Some(v) = structured(op, args, ty) {
        return v;
    }
    let mut data = Vec::with_capacity((ty.rows * ty.cols) as usize);
    let mut operands = Vec::with_capacity(args.len());
    for r in 0..ty.rows {
        for c in 0..ty.cols {
            operands.clear();
            for a in args {
                match a.at(r, c) {
                    Ok(x) => operands.push(x),
                    Err(v) => return Abs::Unknown(v),
                }
            }
            match element(op, &operands, ty.dtype) {
                Some(x) => data.push(x),
                None => return Abs::Unknown(dst),
            }
        }
    }
    Abs::Dense {
        rows: ty.rows,
        cols: ty.cols,
        data: data.into(),
    }
}

/// Whether values of this type are followed.
fn followed(dtype: Dtype) -> bool {
    match dtype {
        Dtype::F32 | Dtype::I32 | Dtype::I64 | Dtype::Bool => true,
        Dtype::F16 | Dtype::Bf16 => false,
    }
}

/// Up to here every integer is an `f32`.
const EXACT_F32: i64 = 1 << 24;

/// A float constant that is a small integer.
pub(super) fn float(x: f32, dst: Val) -> Abs {
    if x.fract() == 0.0 && x.abs() <= EXACT_F32 as f32 {
        Abs::Int(x as i64)
    } else {
        Abs::Unknown(dst)
    }
}

/// The reduction of the columns of `of`, of type `from`, to one column or to quad partials.
pub(super) fn reduce(op: ReduceOp, of: &Abs, dst: Val, ty: Frag, from: Frag) -> Abs {
    if !followed(ty.dtype) {
        return Abs::Unknown(dst);
    }
    let map_op = match op {
        ReduceOp::Sum => MapOp::Add,
        ReduceOp::Max => MapOp::Max,
    };
    let mut data = Vec::with_capacity((ty.rows * ty.cols) as usize);
    for r in 0..ty.rows {
        for to in 0..ty.cols {
            let mut result: Option<i64> = None;
            for c in (0..from.cols).filter(|c| ty.cols == 1 || c % 8 / 2 == to) {
                let x = match of.at(r, c) {
                    Ok(x) => x,
                    Err(v) => return Abs::Unknown(v),
                };
                result = match result {
                    None => Some(x),
                    Some(sum) => element(map_op, &[sum, x], ty.dtype),
                };
                if result.is_none() {
                    return Abs::Unknown(dst);
                }
            }
            let Some(x) = result else { return Abs::Unknown(dst) };
            data.push(x);
        }
    }
    match data[..] {
        [x] => Abs::Int(x),
        _ => Abs::Dense {
            rows: ty.rows,
            cols: ty.cols,
            data: data.into(),
        },
    }
}

/// Results that one operand decides: `false && x`, `true || x`, a select with a known condition.
fn absorbing(op: MapOp, args: &[&Abs]) -> Option<Abs> {
    match (op, args) {
        (MapOp::And, _) if args.contains(&&Abs::Int(0)) => Some(Abs::Int(0)),
        (MapOp::Or, _) if args.iter().any(|a| matches!(a, Abs::Int(x) if *x != 0)) => Some(Abs::Int(1)),
        (MapOp::Select, [Abs::Int(c), a, b]) => Some(if *c != 0 { (*a).clone() } else { (*b).clone() }),
        _ => None,
    }
}

/// The operations that keep the affine and rectangular forms; `None` where the elements must be written out.
fn structured(op: MapOp, args: &[&Abs], ty: Frag) -> Option<Abs> {
    match (op, args) {
        (MapOp::Add | MapOp::Sub, [a, b]) => {
            let (a, b) = (a.affine()?, b.affine()?);
            let sign = if op == MapOp::Sub { -1 } else { 1 };
            let part = |x: i64, y: i64| x.checked_add(y.checked_mul(sign)?);
            within(
                Abs::Affine {
                    base: part(a.0, b.0)?,
                    row: part(a.1, b.1)?,
                    col: part(a.2, b.2)?,
                },
                ty,
            )
        }
        (MapOp::Mul, [Abs::Int(k), a] | [a, Abs::Int(k)]) => scale(a, *k, ty),
        (MapOp::Neg, [a]) => scale(a, -1, ty),
        (MapOp::Fma, [Abs::Int(k), a, b] | [a, Abs::Int(k), b]) => {
            let product = scale(a, *k, ty)?;
            structured(MapOp::Add, &[&product, b], ty)
        }
        (MapOp::Convert, [a]) => {
            a.affine()?;
            within((*a).clone(), ty)
        }
        (MapOp::Lt | MapOp::Le, [a, b]) => {
            let (a, b) = (a.affine()?, b.affine()?);
            // a < b  <=>  base + row * r + col * c <= limit
            let limit: i64 = if op == MapOp::Lt { -1 } else { 0 };
            let (base, row, col) = (a.0.checked_sub(b.0)?, a.1.checked_sub(b.1)?, a.2.checked_sub(b.2)?);
            let room = limit.checked_sub(base)?;
            match (row, col) {
                (0, 0) => Some(Abs::Int((0 <= room).into())),
                (k, 0) => Some(Abs::Rect {
                    rows: at_most(k, room),
                    cols: ALL,
                }),
                (0, k) => Some(Abs::Rect {
                    rows: ALL,
                    cols: at_most(k, room),
                }),
                _ => None,
            }
        }
        (MapOp::And, [a, b]) => {
            let (a, b) = (a.rect()?, b.rect()?);
            Some(Abs::Rect {
                rows: intersect(a.0, b.0),
                cols: intersect(a.1, b.1),
            })
        }
        _ => None,
    }
}

/// The span of `x` with `k * x <= room`, for `k != 0`.
fn at_most(k: i64, room: i64) -> Span {
    if k > 0 {
        (i64::MIN, room.div_euclid(k).saturating_add(1))
    } else {
        // x >= room / k, rounded up: -(room div |k|).
        (room.div_euclid(k.saturating_neg()).saturating_neg(), i64::MAX)
    }
}

fn scale(a: &Abs, k: i64, ty: Frag) -> Option<Abs> {
    let (base, row, col) = a.affine()?;
    within(
        Abs::Affine {
            base: base.checked_mul(k)?,
            row: row.checked_mul(k)?,
            col: col.checked_mul(k)?,
        },
        ty,
    )
}

/// The value, unless an element would wrap in the type of the result.
fn within(v: Abs, ty: Frag) -> Option<Abs> {
    let (lo, hi) = v.bounds(ty)?;
    match ty.dtype {
        Dtype::I64 => Some(v),
        Dtype::I32 => (i32::try_from(lo).is_ok() && i32::try_from(hi).is_ok()).then_some(v),
        Dtype::F32 => (-EXACT_F32 <= lo && hi <= EXACT_F32).then_some(v),
        Dtype::F16 | Dtype::Bf16 | Dtype::Bool => None,
    }
}

/// One element; `None` where the operation is not one on integers and predicates, or is undefined.
fn element(op: MapOp, a: &[i64], dtype: Dtype) -> Option<i64> {
    let wide = match (op, a) {
        (MapOp::Add, &[x, y]) => x.wrapping_add(y),
        (MapOp::Sub, &[x, y]) => x.wrapping_sub(y),
        (MapOp::Mul, &[x, y]) => x.wrapping_mul(y),
        (MapOp::Fma, &[x, y, z]) => x.wrapping_mul(y).wrapping_add(z),
        (MapOp::Min, &[x, y]) => x.min(y),
        (MapOp::Max, &[x, y]) => x.max(y),
        (MapOp::Div, &[x, y]) if y > 0 && dtype != Dtype::F32 => x.div_euclid(y),
        (MapOp::Rem, &[x, y]) if y > 0 && dtype != Dtype::F32 => x.rem_euclid(y),
        (MapOp::Neg, &[x]) => x.wrapping_neg(),
        (MapOp::Abs, &[x]) => x.wrapping_abs(),
        (MapOp::Convert, &[x]) => x,
        (MapOp::Lt, &[x, y]) => (x < y).into(),
        (MapOp::Le, &[x, y]) => (x <= y).into(),
        (MapOp::Eq, &[x, y]) => (x == y).into(),
        (MapOp::And, &[x, y]) => (x != 0 && y != 0).into(),
        (MapOp::Or, &[x, y]) => (x != 0 || y != 0).into(),
        (MapOp::Not, &[x]) => (x == 0).into(),
        (MapOp::Select, &[c, x, y]) => {
            if c != 0 {
                x
            } else {
                y
            }
        }
        _ => return None,
    };
    Some(match dtype {
        Dtype::I32 => i64::from(wide as i32),
        Dtype::I64 | Dtype::Bool => wide,
        Dtype::F32 if wide.abs() <= EXACT_F32 => wide,
        Dtype::F16 | Dtype::Bf16 | Dtype::F32 => return None,
    })
}
