//! Range endpoints to scalar code: [`Sym`] expressions evaluated once per query tile.

use super::Unsupported;
use super::builder::Builder;
use super::expr::Table;
use drawloom_graph::ranges::Sym;
use drawloom_kernel::ir::{Carried, Dtype, Frag, If, Layout, Loop, MapOp, Op, Phi, ReduceOp, Stmt, Val};
use std::collections::BTreeMap;

/// What the leaves of a [`Sym`] stand for in one kernel.
pub struct Leaves<'a> {
    /// Position of the tile's first query.
    pub row_lo: Val,
    /// Position of its last query, inclusive.
    pub row_hi: Val,
    /// Sizes by axis name.
    pub lens: &'a BTreeMap<String, Val>,
    /// Tile-fixed indices by axis name.
    pub fixed: &'a BTreeMap<String, Val>,
    /// Run-time scalars by name.
    pub scalars: &'a BTreeMap<String, Val>,
    /// Input tensors by name.
    pub tables: &'a BTreeMap<String, Table>,
    /// Length of each table axis, by table and axis number.
    pub extents: &'a BTreeMap<String, Vec<Val>>,
}

/// Evaluates `sym` in the current block as an `i32` scalar.
///
/// # Errors
/// [`Unsupported`] if a leaf has no meaning in this kernel.
pub fn lower(b: &mut Builder, leaves: &Leaves, sym: &Sym) -> Result<Val, Unsupported> {
    let named = |map: &BTreeMap<String, Val>, name: &str| {
        map.get(name)
            .copied()
            .ok_or_else(|| Unsupported::new(format!("`{name}` in a key range")))
    };
    Ok(match sym {
        Sym::Const(c) => b.int(*c),
        Sym::RowLo => leaves.row_lo,
        Sym::RowHi => leaves.row_hi,
        Sym::Len(axis) => named(leaves.lens, axis)?,
        Sym::Scalar(name) => named(leaves.scalars, name)?,
        Sym::Fixed(axis) => named(leaves.fixed, axis)?,
        Sym::Add(x, y) => {
            let (x, y) = (lower(b, leaves, x)?, lower(b, leaves, y)?);
            b.add(x, y)
        }
        Sym::Sub(x, y) => {
            let (x, y) = (lower(b, leaves, x)?, lower(b, leaves, y)?);
            b.sub(x, y)
        }
        Sym::Mul(x, y) => {
            let (x, y) = (lower(b, leaves, x)?, lower(b, leaves, y)?);
            b.mul(x, y)
        }
        Sym::FloorDiv(x, y) => {
            let (x, y) = (lower(b, leaves, x)?, lower(b, leaves, y)?);
            b.div(x, y)
        }
        Sym::Rem(x, y) => {
            let (x, y) = (lower(b, leaves, x)?, lower(b, leaves, y)?);
            b.rem(x, y)
        }
        Sym::Min(x, y) => {
            let (x, y) = (lower(b, leaves, x)?, lower(b, leaves, y)?);
            b.min(x, y)
        }
        Sym::Max(x, y) => {
            let (x, y) = (lower(b, leaves, x)?, lower(b, leaves, y)?);
            b.max(x, y)
        }
        Sym::IfLe(l, r, then, otherwise) => {
            let (l, r) = (lower(b, leaves, l)?, lower(b, leaves, r)?);
            let cond = b.test(MapOp::Le, &[l, r]);
            let (then, otherwise) = (lower(b, leaves, then)?, lower(b, leaves, otherwise)?);
            b.select(cond, then, otherwise)
        }
        Sym::Load { table, at } => {
            let (param, extents) = find(leaves, table)?;
            let mut index = Vec::new();
            for (sym, &len) in at.iter().zip(extents) {
                let v = lower(b, leaves, sym)?;
                index.push(clamp(b, v, len));
            }
            let guard = nonempty(b, extents);
            b.def(
                Frag::scalar(Dtype::I32),
                Op::LoadGlobal {
                    tensor: param.param,
                    at: index,
                    guard: Some(guard),
                    fill: 0.0,
                },
            )
        }
        Sym::Search {
            table,
            at,
            value,
            upper,
        } => {
            let (param, extents) = find(leaves, table)?;
            let mut index = Vec::new();
            for (sym, &len) in at.iter().zip(extents) {
                let v = lower(b, leaves, sym)?;
                index.push(clamp(b, v, len));
            }
            let len = *extents
                .last()
                .ok_or_else(|| Unsupported::new(format!("`{table}` has no axis to search")))?;
            let value = lower(b, leaves, value)?;
            search(b, param, &index, len, value, *upper)
        }
    })
}

fn find<'a>(leaves: &'a Leaves, table: &str) -> Result<(&'a Table, &'a [Val]), Unsupported> {
    match (leaves.tables.get(table), leaves.extents.get(table)) {
        (Some(t), Some(e)) => Ok((t, e)),
        (None, _) | (_, None) => Err(Unsupported::new(format!("`{table}` in a key range"))),
    }
}

fn clamp(b: &mut Builder, v: Val, len: Val) -> Val {
    let one = b.int(1);
    let zero = b.int(0);
    let last = b.sub(len, one);
    let v = b.min(v, last);
    b.max(v, zero)
}

fn nonempty(b: &mut Builder, extents: &[Val]) -> Val {
    let zero = b.int(0);
    let mut all: Option<Val> = None;
    for &len in extents {
        let some = b.test(MapOp::Lt, &[zero, len]);
        all = Some(match all {
            None => some,
            Some(a) => b.test(MapOp::And, &[a, some]),
        });
    }
    all.unwrap_or_else(|| b.def(Frag::scalar(Dtype::Bool), Op::ConstI(1)))
}

/// Probes of one search step: the lanes of a warp.
const PROBES: u32 = 32;

/// The number of elements below `value` (or at most it): a 32-ary search, one probe a lane, so that seven steps reach
/// any `i32` length and three reach 32 768.
fn search(b: &mut Builder, table: &Table, at: &[Val], len: Val, value: Val, upper: bool) -> Val {
    let (zero, one, steps) = (b.int(0), b.int(1), b.int(7));
    let width = b.int(i64::from(PROBES));
    let var = b.kernel.new_val(Frag::scalar(Dtype::I32));
    let lo_arg = b.kernel.new_val(Frag::scalar(Dtype::I32));
    let hi_arg = b.kernel.new_val(Frag::scalar(Dtype::I32));
    b.open();
    let open = b.test(MapOp::Lt, &[lo_arg, hi_arg]);
    b.open();
    // Probe c looks at element lo + (c + 1) * step - 1; the answer lies in the step after the last probe that is below; the last probe reaches the end.
    let span = b.sub(hi_arg, lo_arg);
    let rounded = b.add(span, width);
    let rounded = b.sub(rounded, one);
    let step = b.div(rounded, width);
    let lanes = Frag {
        dtype: Dtype::I32,
        rows: 1,
        cols: PROBES,
        layout: Layout::Lanes { vec: 1 },
    };
    let iota = b.def(lanes, Op::ColIota);
    let next = b.map(MapOp::Add, Dtype::I32, &[iota, one]);
    let far = b.map(MapOp::Mul, Dtype::I32, &[next, step]);
    let base = b.sub(lo_arg, one);
    let probe = b.map(MapOp::Add, Dtype::I32, &[far, base]);
    let inside = b.test(MapOp::Lt, &[probe, hi_arg]);
    let mut index = at.to_vec();
    index.push(probe);
    let x = b.def(
        lanes,
        Op::LoadGlobal {
            tensor: table.param,
            at: index,
            guard: Some(inside),
            fill: 0.0,
        },
    );
    let below = if upper {
        b.test(MapOp::Le, &[x, value])
    } else {
        b.test(MapOp::Lt, &[x, value])
    };
    let counted = b.test(MapOp::And, &[inside, below]);
    let ones = b.select(counted, one, zero);
    let count = b.reduce(ReduceOp::Sum, ones, 1);
    let skipped = b.mul(count, step);
    let new_lo = b.add(lo_arg, skipped);
    // After a step of one element the probes leave no gap: the answer is the new lower end.
    let gap = b.sub(step, one);
    let end = b.add(new_lo, gap);
    let new_hi = b.min(end, hi_arg);
    let then = b.close();
    let lo_next = b.kernel.new_val(Frag::scalar(Dtype::I32));
    let hi_next = b.kernel.new_val(Frag::scalar(Dtype::I32));
    b.push(Stmt::If(If {
        cond: open,
        then,
        otherwise: drawloom_kernel::ir::Block::default(),
        results: vec![
            Phi {
                result: lo_next,
                then: new_lo,
                otherwise: lo_arg,
            },
            Phi {
                result: hi_next,
                then: new_hi,
                otherwise: hi_arg,
            },
        ],
    }));
    let body = b.close();
    let found = b.kernel.new_val(Frag::scalar(Dtype::I32));
    let unused = b.kernel.new_val(Frag::scalar(Dtype::I32));
    b.push(Stmt::Loop(Loop {
        var,
        lo: zero,
        hi: steps,
        carried: vec![
            Carried {
                arg: lo_arg,
                init: zero,
                next: lo_next,
                result: found,
            },
            Carried {
                arg: hi_arg,
                init: len,
                next: hi_next,
                result: unused,
            },
        ],
        body,
    }));
    found
}
