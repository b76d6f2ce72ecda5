//! Statements: scopes, carried values, effects.

use super::declarations::check_registers;
use super::ops::{self, View};
use super::{Checker, describe};
use crate::ir::*;

/// Checks the statements of a block; the values they define stay visible.
pub(super) fn check(c: &mut Checker, block: &Block) {
    for stmt in &block.0 {
        let here = Some(c.next_stmt);
        c.stmt = here;
        c.next_stmt += 1;
        match stmt {
            Stmt::Let { dst, op } => {
                if dst.index() < c.kernel.types.len() {
                    ops::check(c, *dst, op);
                }
                c.define(*dst);
            }
            Stmt::Do(e) => effect(c, e),
            Stmt::Loop(l) => loop_(c, l, here),
            Stmt::If(i) => if_(c, i, here),
            Stmt::Stream(s) => stream(c, s, here),
        }
    }
}

fn same_type(c: &mut Checker, what: &str, v: Val, like: Val) {
    let (Some(ty), Some(expected)) = (c.used(v), c.kernel.types.get(like.index()).copied()) else {
        return;
    };
    c.require(ty == expected, || {
        format!("{what} {v} is {}, but {like} is {}", describe(ty), describe(expected))
    });
}

fn loop_(c: &mut Checker, l: &Loop, here: Option<u32>) {
    c.scalar(l.lo, &[Dtype::I32], "the first value of a loop");
    c.scalar(l.hi, &[Dtype::I32], "the end of a loop");
    for carried in &l.carried {
        same_type(c, "the initial value", carried.init, carried.arg);
    }
    let outside = c.depth();
    c.define(l.var);
    c.scalar(l.var, &[Dtype::I32], "a loop variable");
    for carried in &l.carried {
        c.define(carried.arg);
    }
    check(c, &l.body);
    c.stmt = here;
    for carried in &l.carried {
        same_type(c, "the next value", carried.next, carried.arg);
    }
    c.leave(outside);
    for carried in &l.carried {
        c.define(carried.result);
        same_type(c, "the result", carried.result, carried.arg);
    }
}

fn if_(c: &mut Checker, i: &If, here: Option<u32>) {
    c.scalar(i.cond, &[Dtype::Bool], "a condition");
    let outside = c.depth();
    for (block, value) in [
        (&i.then, (|r| r.then) as fn(&Phi) -> Val),
        (&i.otherwise, |r| r.otherwise),
    ] {
        check(c, block);
        c.stmt = here;
        for r in &i.results {
            same_type(c, "the value", value(r), r.result);
        }
        c.leave(outside);
    }
    for r in &i.results {
        c.define(r.result);
    }
}

fn stream(c: &mut Checker, s: &Stream, here: Option<u32>) {
    c.require(!s.segments.is_empty(), || "a stream has no segment".to_string());
    for g in &s.segments {
        c.scalar(g.end, &[Dtype::I32], "the end of a segment");
    }
    for carried in &s.carried {
        same_type(c, "the initial value", carried.init, carried.arg);
        c.require(carried.next == carried.arg, || {
            format!(
                "{} of a stream has a `next` of its own; segments have them",
                carried.arg
            )
        });
    }
    let outside = c.depth();
    c.define(s.var);
    c.scalar(s.var, &[Dtype::I32], "a stream variable");
    for g in &s.stages {
        let before = c.depth();
        check(c, &g.block);
        c.stmt = here;
        for &v in &g.results {
            c.used(v);
        }
        c.leave(before);
        for &v in &g.results {
            if c.defined.get(v.index()) == Some(&true) {
                c.show(v);
            }
        }
    }
    for carried in &s.carried {
        c.define(carried.arg);
    }
    for g in &s.segments {
        let before = c.depth();
        check(c, &g.body);
        c.stmt = here;
        c.require(g.next.len() == s.carried.len(), || {
            format!(
                "segment `{}` gives {} next values for {} carried ones",
                g.name,
                g.next.len(),
                s.carried.len()
            )
        });
        for (&next, carried) in g.next.iter().zip(&s.carried) {
            same_type(c, "the next value", next, carried.arg);
        }
        c.leave(before);
    }
    c.leave(outside);
    for carried in &s.carried {
        c.define(carried.result);
        same_type(c, "the result", carried.result, carried.arg);
    }
}

fn effect(c: &mut Checker, effect: &Effect) {
    let t = c.target;
    match effect {
        Effect::Copy { kind, src, dst } => copy(c, *kind, src, dst),
        Effect::CommitGroup | Effect::WaitGroup { .. } => {}
        Effect::Barrier { id, warps } | Effect::BarrierArrive { id, warps } => {
            c.require(*id < t.barriers, || {
                format!("barrier {id} does not exist; there are {}", t.barriers)
            });
            let all = c.kernel.roles.iter().map(|r| u64::from(r.warps)).sum();
            c.require((1..=all).contains(&u64::from(*warps)), || {
                format!("a barrier of {warps} warps in a CTA of {all} warps")
            });
        }
        Effect::MbarArrive { barrier, slot } => mbarrier(c, *barrier, *slot),
        Effect::MbarExpect { barrier, slot, bytes } => {
            c.require(t.tma, || format!("{} has no byte counts on mbarriers", t.name));
            mbarrier(c, *barrier, *slot);
            c.limit(
                "bytes expected on an mbarrier",
                "bytes",
                u64::from(*bytes),
                (1 << 20) - 1,
            );
        }
        Effect::MbarWait { barrier, slot, parity } => {
            mbarrier(c, *barrier, *slot);
            c.scalar(*parity, &[Dtype::I32], "a parity");
            let constant = c.constants.get(parity.index()).copied().flatten();
            c.require(constant.is_none_or(|p| p == 0 || p == 1), || {
                format!("parity {parity} is neither 0 nor 1")
            });
        }
        Effect::FenceProxyAsync => c.require(t.tma || t.mma_async, || {
            format!("{} has no asynchronous proxy to fence", t.name)
        }),
        Effect::MmaFence | Effect::MmaCommit => {
            c.require(t.mma_async, || format!("{} has no asynchronous products", t.name));
        }
        Effect::StoreShared { dst, value } => {
            let view = ops::view(c, dst);
            let (Some(ty), Some(view)) = (c.used(*value), view) else {
                return;
            };
            ops::fits_window(c, *value, ty, view);
        }
        Effect::StoreGlobal {
            tensor,
            at,
            guard,
            value,
        } => {
            let dtype = ops::tensor(c, *tensor, Access::Out, at.len());
            let Some(ty) = c.used(*value) else { return };
            ops::elements(c, at, *guard, ty, Coverage::Broadcast);
            c.require(dtype.is_none_or(|d| d == ty.dtype), || {
                format!("{value} is {}, but {tensor} has another element type", describe(ty))
            });
        }
        Effect::StoreTile { src, dst, bytes } => {
            c.require([2, 4, 8, 16].contains(bytes), || {
                format!("there is no access of {bytes} bytes")
            });
            tile_and_window(c, dst, src, Access::Out, *bytes);
        }
        Effect::TmaStore { src, dst } => {
            c.require(t.tma, || format!("{} has no bulk tensor copies", t.name));
            tile_and_window(c, dst, src, Access::Out, 16);
            bulk(c, dst, src);
        }
        Effect::TmaStoreWait { .. } => c.require(t.tma, || format!("{} has no bulk tensor copies", t.name)),
        Effect::SetRegisters { count } => {
            c.require(t.set_registers, || format!("{} cannot set register budgets", t.name));
            check_registers(c, *count);
            let warpgroups = c.warpgroups;
            c.require(warpgroups, || {
                "registers are set by whole warpgroups of 4 warps".to_string()
            });
        }
        Effect::Assert { cond, .. } => {
            let Some(ty) = c.used(*cond) else { return };
            c.require(ty.dtype == Dtype::Bool, || {
                format!("the condition {cond} is {}, not bool", describe(ty))
            });
        }
    }
}

/// Whether indices must span a fragment's shape, or may be broadcast to it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Coverage {
    /// The indices (and guard) together have the shape.
    Exact,
    /// The shape is the value's.
    Broadcast,
}

fn mbarrier(c: &mut Checker, id: MbarId, slot: Val) {
    c.scalar(slot, &[Dtype::I32], "an mbarrier's slot");
    let Some(m) = c.kernel.mbarriers.get(id.index()) else {
        c.error(format!("{id} is not declared"));
        return;
    };
    let constant = c.constants.get(slot.index()).copied().flatten();
    c.require(constant.is_none_or(|s| (0..i64::from(m.slots)).contains(&s)), || {
        format!("slot {} of {id}, which has {}", constant.unwrap_or(0), m.slots)
    });
}

fn copy(c: &mut Checker, kind: CopyKind, src: &GlobalTile, dst: &SharedView) {
    let bytes = match kind {
        CopyKind::Sync { bytes } => {
            c.require([2, 4, 8, 16].contains(&bytes), || {
                format!("there is no access of {bytes} bytes")
            });
            bytes
        }
        CopyKind::CpAsync { bytes } => {
            c.require([4, 8, 16].contains(&bytes), || {
                format!("`cp_async` has no access of {bytes} bytes")
            });
            bytes
        }
        CopyKind::Tma { barrier, slot } => {
            let t = c.target;
            c.require(t.tma, || format!("{} has no bulk tensor copies", t.name));
            mbarrier(c, barrier, slot);
            bulk(c, src, dst);
            16
        }
    };
    tile_and_window(c, src, dst, Access::In, bytes);
}

/// What the bulk copy engine asks of a tile and a window.
fn bulk(c: &mut Checker, tile: &GlobalTile, window: &SharedView) {
    if let Some(panel) = ops::panels(c, window) {
        c.require(
            window.col.is_multiple_of(panel) && window.cols.is_multiple_of(panel),
            || {
                format!(
                    "columns {}+{} of {} are not whole panels of {panel}",
                    window.col, window.cols, window.buf
                )
            },
        );
    }
    c.limit("rows of a bulk copy", "rows", u64::from(tile.rows), 256);
    if !(1..=4).contains(&tile.at.len()) {
        c.error(format!(
            "a bulk copy of a tensor of {} axes; it can have 2 to 5",
            tile.at.len() + 1
        ));
        return;
    }
    let mut along = Vec::new();
    for (axis, index) in tile.at.iter().enumerate() {
        match index {
            RowIndex::Row => along.push(axis),
            RowIndex::Fixed(_) => {}
            RowIndex::RowDiv { .. } | RowIndex::RowRem { .. } => {
                c.error("the rows of a bulk copy lie along one axis, unpacked");
                return;
            }
        }
    }
    let [axis] = along[..] else {
        c.error(format!(
            "the rows of a bulk copy lie along one axis, not {}",
            along.len()
        ));
        return;
    };
    let limit = tile.row_limit.index();
    let (number, parameter) = (
        c.constants.get(limit).copied().flatten(),
        c.parameters.get(limit).copied().flatten(),
    );
    let kind = c.kernel.params.get(tile.tensor.index()).map(|p| &p.kind);
    let Some(ParamKind::Tensor { axes, .. }) = kind else {
        return;
    };
    let agrees = match axes.get(axis) {
        Some(Extent::Const(n)) => number.is_none_or(|m| m == i64::from(*n)),
        Some(Extent::Param(p)) => parameter.is_none_or(|q| q == *p),
        None => true,
    };
    c.require(agrees, || {
        format!(
            "the row limit {} of a bulk copy is not the extent of axis {axis} of {}",
            tile.row_limit, tile.tensor
        )
    });
}

/// A copy between a tile and a window, `bytes` per access.
fn tile_and_window(c: &mut Checker, tile: &GlobalTile, window: &SharedView, access: Access, bytes: u32) {
    let view = ops::view(c, window);
    let dtype = ops::tensor(c, tile.tensor, access, tile.at.len() + 1);
    c.require(tile.rows == window.rows && tile.cols == window.cols, || {
        format!(
            "a tile of {}x{} and a window of {}x{}",
            tile.rows, tile.cols, window.rows, window.cols
        )
    });
    for index in &tile.at {
        match *index {
            RowIndex::Fixed(v) => c.scalar(v, &[Dtype::I32, Dtype::I64], "an index"),
            RowIndex::Row => {}
            RowIndex::RowDiv { by } => c.scalar(by, &[Dtype::I32], "a divisor"),
            RowIndex::RowRem { by, base } => {
                c.scalar(by, &[Dtype::I32], "a divisor");
                c.scalar(base, &[Dtype::I32], "a base index");
            }
        }
    }
    c.scalar(tile.first_row, &[Dtype::I32], "the first row of a tile");
    c.scalar(tile.row_limit, &[Dtype::I32], "a row limit");
    let kind = c.kernel.params.get(tile.tensor.index()).map(|p| &p.kind);
    if let Some(ParamKind::Tensor { axes, .. }) = kind
        && let Some(Extent::Const(n)) = axes.last()
    {
        let end = u64::from(tile.col) + u64::from(tile.cols);
        c.require(end <= u64::from(*n), || {
            format!("columns up to {end} of {}, which has {n}", tile.tensor)
        });
    }
    let (Some(View { dtype: stored, .. }), Some(dtype)) = (view, dtype) else {
        return;
    };
    c.require(stored == dtype, || {
        format!(
            "{} is {}, but {} is {}",
            tile.tensor,
            dtype.name(),
            window.buf,
            stored.name()
        )
    });
    for elements in [tile.cols, tile.col, window.col] {
        let size = u64::from(elements) * u64::from(dtype.bytes());
        c.require(bytes == 0 || size % u64::from(bytes) == 0, || {
            format!("accesses of {bytes} bytes do not divide the {size} bytes of {elements} columns")
        });
    }
    c.require(bytes >= dtype.bytes(), || {
        format!("accesses of {bytes} bytes split elements of {} bytes", dtype.bytes())
    });
}
