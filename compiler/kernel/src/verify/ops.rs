//! Operations: the types of operands and results.

use super::block::Coverage;
use super::{Checker, describe};
use crate::ir::*;

/// The shape and element type of a window.
#[derive(Clone, Copy)]
pub(super) struct View {
    pub(super) dtype: Dtype,
    pub(super) rows: u32,
    pub(super) cols: u32,
}

/// Checks a definition; its result has a type.
pub(super) fn check(c: &mut Checker, dst: Val, op: &Op) {
    let ty = c.kernel.ty(dst);
    match op {
        Op::ConstF(_) => dtype_is(c, dst, ty, &[Dtype::F32]),
        Op::ConstI(x) => {
            dtype_is(c, dst, ty, &[Dtype::I32, Dtype::I64, Dtype::Bool]);
            let fits = match ty.dtype {
                Dtype::I32 => i32::try_from(*x).is_ok(),
                Dtype::Bool => *x == 0 || *x == 1,
                Dtype::I64 | Dtype::F16 | Dtype::Bf16 | Dtype::F32 => true,
            };
            c.require(fits, || format!("the constant {x} is no {}", ty.dtype.name()));
            c.constants[dst.index()] = Some(*x);
        }
        Op::Param(p) => match c.kernel.params.get(p.index()).map(|p| &p.kind) {
            Some(ParamKind::Scalar { dtype }) => {
                let dtype = *dtype;
                c.require(ty == Frag::scalar(dtype), || {
                    format!("{p} is a {}, but {dst} is {}", dtype.name(), describe(ty))
                });
                c.parameters[dst.index()] = Some(*p);
            }
            Some(ParamKind::Tensor { .. }) | None => c.error(format!("{p} is not a scalar parameter")),
        },
        Op::Cta | Op::WarpInRole => result_is(c, dst, ty, Frag::scalar(Dtype::I32)),
        Op::RowIota => {
            dtype_is(c, dst, ty, &[Dtype::I32]);
            c.require(ty.cols == 1, || {
                format!("row numbers have one column, but {dst} is {}", describe(ty))
            });
        }
        Op::ColIota => {
            dtype_is(c, dst, ty, &[Dtype::I32]);
            c.require(ty.rows == 1, || {
                format!("column numbers have one row, but {dst} is {}", describe(ty))
            });
        }
        Op::Map(op, args) => map(c, dst, ty, *op, args),
        Op::Any(of) => {
            result_is(c, dst, ty, Frag::scalar(Dtype::Bool));
            if let Some(of_ty) = c.used(*of) {
                dtype_is(c, *of, of_ty, &[Dtype::Bool]);
            }
        }
        Op::Reduce(_, of) => {
            let Some(of_ty) = c.used(*of) else { return };
            reduce(c, dst, ty, *of, of_ty);
        }
        Op::Mma { acc, a, b } => {
            if let Some(acc_ty) = c.used(*acc) {
                c.require(acc_ty == ty, || {
                    format!(
                        "the accumulator {acc} is {}, but {dst} is {}",
                        describe(acc_ty),
                        describe(ty)
                    )
                });
            }
            product(c, dst, ty, a, b);
        }
        Op::MmaAsync { acc, a, b } => {
            let (t, warpgroups) = (c.target, c.warpgroups);
            c.require(t.mma_async, || format!("{} has no asynchronous products", t.name));
            c.require(warpgroups, || {
                "asynchronous products are issued by whole warpgroups of 4 warps".to_string()
            });
            if t.mma_async {
                c.limit(
                    "columns of an asynchronous product",
                    "columns",
                    u64::from(ty.cols),
                    u64::from(t.mma_async_cols),
                );
            }
            if let Some(acc) = acc
                && let Some(acc_ty) = c.in_flight_or_ready(*acc)
            {
                c.require(acc_ty == ty, || {
                    format!(
                        "the accumulator {acc} is {}, but {dst} is {}",
                        describe(acc_ty),
                        describe(ty)
                    )
                });
            }
            product(c, dst, ty, a, b);
            left_of_async(c, ty, a);
            right_of_async(c, b);
            c.in_flight[dst.index()] = true;
        }
        Op::MmaWait { of, .. } => {
            let t = c.target;
            c.require(t.mma_async, || format!("{} has no asynchronous products", t.name));
            let Some(of_ty) = c.in_flight_or_ready(*of) else { return };
            let in_flight = c.in_flight[of.index()];
            c.require(in_flight, || format!("{of} is not in flight"));
            result_is(c, dst, ty, of_ty);
        }
        Op::LoadGlobal {
            tensor: id, at, guard, ..
        } => {
            let dtype = tensor(c, *id, Access::In, at.len());
            c.require(dtype.is_none_or(|d| d == ty.dtype), || {
                format!("{dst} is {}, but {id} has another element type", describe(ty))
            });
            elements(c, at, *guard, ty, Coverage::Exact);
        }
        Op::LoadShared(window) => {
            if let Some(view) = view(c, window) {
                fits_window(c, dst, ty, view);
            }
        }
    }
}

fn dtype_is(c: &mut Checker, v: Val, ty: Frag, allowed: &[Dtype]) {
    let names = allowed.iter().map(|d| d.name()).collect::<Vec<_>>().join(" or ");
    c.require(allowed.contains(&ty.dtype), || {
        format!("{v} is {}, but must be {names}", describe(ty))
    });
}

fn result_is(c: &mut Checker, v: Val, ty: Frag, expected: Frag) {
    c.require(ty == expected, || {
        format!("{v} is {}, but must be {}", describe(ty), describe(expected))
    });
}

/// The number of operands of an elementwise operation.
pub fn arity(op: MapOp) -> usize {
    match op {
        MapOp::Neg | MapOp::Abs | MapOp::Exp2 | MapOp::Log2 | MapOp::Rcp | MapOp::Rsqrt | MapOp::Sqrt => 1,
        MapOp::Tanh | MapOp::Convert | MapOp::Not => 1,
        MapOp::Add | MapOp::Sub | MapOp::Mul | MapOp::Min | MapOp::Max | MapOp::Div | MapOp::Rem => 2,
        MapOp::Lt | MapOp::Le | MapOp::Eq | MapOp::And | MapOp::Or => 2,
        MapOp::Fma | MapOp::Select => 3,
    }
}

fn map(c: &mut Checker, dst: Val, ty: Frag, op: MapOp, args: &[Val]) {
    c.require(args.len() == arity(op), || {
        format!("the operation takes {} operands, not {}", arity(op), args.len())
    });
    let types: Vec<Option<Frag>> = args.iter().map(|&v| c.used(v)).collect();
    if types.len() != arity(op) || types.contains(&None) {
        return;
    }
    let types: Vec<Frag> = types.into_iter().flatten().collect();
    covers(c, dst, ty, &types, Coverage::Exact);
    const NUMBERS: [Dtype; 3] = [Dtype::F32, Dtype::I32, Dtype::I64];
    const MEMORY: [Dtype; 5] = [Dtype::F16, Dtype::Bf16, Dtype::F32, Dtype::I32, Dtype::I64];
    const ALL: [Dtype; 6] = [Dtype::F16, Dtype::Bf16, Dtype::F32, Dtype::I32, Dtype::I64, Dtype::Bool];
    // The operands that share one dtype, the dtypes they may have, and the result's dtype.
    let (from, allowed, result): (usize, &[Dtype], Dtype) = match op {
        MapOp::Add | MapOp::Sub | MapOp::Mul | MapOp::Fma | MapOp::Min | MapOp::Max | MapOp::Div => {
            (0, &NUMBERS, types[0].dtype)
        }
        MapOp::Neg | MapOp::Abs => (0, &NUMBERS, types[0].dtype),
        MapOp::Rem => (0, &NUMBERS[1..], types[0].dtype),
        MapOp::Exp2 | MapOp::Log2 | MapOp::Rcp | MapOp::Rsqrt | MapOp::Sqrt | MapOp::Tanh => {
            (0, &NUMBERS[..1], Dtype::F32)
        }
        MapOp::Convert => {
            dtype_is(c, dst, ty, &MEMORY);
            (0, &MEMORY, ty.dtype)
        }
        MapOp::Lt | MapOp::Le | MapOp::Eq => (0, &NUMBERS, Dtype::Bool),
        MapOp::And | MapOp::Or | MapOp::Not => (0, &ALL[5..], Dtype::Bool),
        MapOp::Select => {
            dtype_is(c, args[0], types[0], &[Dtype::Bool]);
            (1, &ALL, types[1].dtype)
        }
    };
    for (&v, &t) in args.iter().zip(&types).skip(from) {
        dtype_is(c, v, t, allowed);
        let first = types[from];
        c.require(t.dtype == first.dtype, || {
            format!(
                "operands of two dtypes: {} is {}, {v} is {}",
                args[from],
                first.dtype.name(),
                t.dtype.name()
            )
        });
    }
    dtype_is(c, dst, ty, &[result]);
}

fn reduce(c: &mut Checker, dst: Val, ty: Frag, of: Val, of_ty: Frag) {
    dtype_is(c, of, of_ty, &[Dtype::F32, Dtype::I32]);
    c.require(ty.dtype == of_ty.dtype && ty.rows == of_ty.rows, || {
        format!("a reduction of {} cannot be {}", describe(of_ty), describe(ty))
    });
    let one = ty.cols == 1 && (ty.is_scalar() || ty.layout == of_ty.layout);
    let fits = match of_ty.layout {
        Layout::Mma => one || (ty.cols == 4 && ty.layout == Layout::Mma && of_ty.cols.is_multiple_of(8)),
        Layout::Lanes { .. } => ty.cols == 1 && (ty.is_scalar() || matches!(ty.layout, Layout::Lanes { .. })),
        Layout::Uniform => false,
    };
    c.require(fits, || {
        format!("a reduction of {} to {dst}: {}", describe(of_ty), describe(ty))
    });
}

/// Whether operands broadcast to the result, and are spread over lanes alike.
fn covers(c: &mut Checker, dst: Val, ty: Frag, operands: &[Frag], coverage: Coverage) {
    for t in operands {
        let fits = (t.rows == 1 || t.rows == ty.rows) && (t.cols == 1 || t.cols == ty.cols);
        c.require(fits, || {
            format!("{} does not broadcast to {dst}: {}", describe(*t), describe(ty))
        });
        let alike = match (t.layout, ty.layout) {
            _ if t.is_scalar() => true,
            (Layout::Mma, Layout::Mma) => true,
            (Layout::Lanes { vec: a }, Layout::Lanes { vec: b }) => a == b || t.cols == 1,
            (Layout::Uniform | Layout::Mma | Layout::Lanes { .. }, _) => false,
        };
        c.require(alike, || {
            format!(
                "{} is spread over lanes otherwise than {dst}: {}",
                describe(*t),
                describe(ty)
            )
        });
    }
    if coverage == Coverage::Exact {
        let rows = operands.iter().map(|t| t.rows).max().unwrap_or(1);
        let cols = operands.iter().map(|t| t.cols).max().unwrap_or(1);
        c.require((rows, cols) == (ty.rows, ty.cols), || {
            format!("the operands make {rows}x{cols}, but {dst} is {}", describe(ty))
        });
    }
}

/// Checks indices and guard of an elementwise access whose value has type `ty`.
pub(super) fn elements(c: &mut Checker, at: &Index, guard: Option<Val>, ty: Frag, coverage: Coverage) {
    let mut operands = Vec::new();
    for &v in at {
        let Some(t) = c.used(v) else { return };
        dtype_is(c, v, t, &[Dtype::I32, Dtype::I64]);
        operands.push(t);
    }
    if let Some(g) = guard {
        let Some(t) = c.used(g) else { return };
        dtype_is(c, g, t, &[Dtype::Bool]);
        operands.push(t);
    }
    let value = at.first().copied().unwrap_or(Val(0));
    covers(c, value, ty, &operands, coverage);
}

/// Checks that a tensor is there, has so many axes, and may be accessed so; gives its element type.
pub(super) fn tensor(c: &mut Checker, id: ParamId, access: Access, indices: usize) -> Option<Dtype> {
    match c.kernel.params.get(id.index()).map(|p| &p.kind) {
        Some(ParamKind::Tensor {
            dtype,
            axes,
            access: declared,
        }) => {
            c.require(axes.len() == indices, || {
                format!("{indices} indices for the {} axes of {id}", axes.len())
            });
            c.require(access == *declared, || match declared {
                Access::In => format!("{id} is only read, but written here"),
                Access::Out => format!("{id} is only written, but read here"),
            });
            Some(*dtype)
        }
        Some(ParamKind::Scalar { .. }) | None => {
            c.error(format!("{id} is not a tensor parameter"));
            None
        }
    }
}

/// Checks a window of a shared buffer.
pub(super) fn view(c: &mut Checker, w: &SharedView) -> Option<View> {
    for (v, what) in [(w.slot, "a slot"), (w.row, "the first row of a window")] {
        if let Some(v) = v {
            c.scalar(v, &[Dtype::I32], what);
        }
    }
    let Some(b) = c.kernel.buffers.get(w.buf.index()) else {
        c.error(format!("{} is not declared", w.buf));
        return None;
    };
    c.require(w.rows > 0 && w.cols > 0, || format!("an empty window of {}", w.buf));
    let end = u64::from(w.col) + u64::from(w.cols);
    c.require(end <= u64::from(b.cols), || {
        format!("columns up to {end} of {}, which has {}", w.buf, b.cols)
    });
    let constant = |v: Option<Val>| v.map_or(Some(0), |v| c.constants.get(v.index()).copied().flatten());
    let (slot, row) = (constant(w.slot), constant(w.row));
    let in_slots = slot.is_none_or(|s| (0..i64::from(b.slots)).contains(&s));
    c.require(in_slots, || {
        format!("slot {} of {}, which has {}", slot.unwrap_or(0), w.buf, b.slots)
    });
    let last = i64::from(b.rows) - i64::from(w.rows);
    let in_rows = last >= 0 && row.is_none_or(|r| (0..=last).contains(&r));
    c.require(in_rows, || {
        format!(
            "{} rows from row {} of {}, which has {}",
            w.rows,
            row.unwrap_or(0),
            w.buf,
            b.rows
        )
    });
    Some(View {
        dtype: b.dtype,
        rows: w.rows,
        cols: w.cols,
    })
}

/// Checks that a fragment has the shape and element type of a window.
pub(super) fn fits_window(c: &mut Checker, v: Val, ty: Frag, view: View) {
    c.require(
        (ty.dtype, ty.rows, ty.cols) == (view.dtype, view.rows, view.cols),
        || {
            format!(
                "{v} is {}, but the window is {}[{}x{}]",
                describe(ty),
                view.dtype.name(),
                view.rows,
                view.cols
            )
        },
    );
}

fn operand(c: &mut Checker, operand: &Operand) -> Option<View> {
    match operand {
        Operand::Reg(v) => {
            let ty = c.used(*v)?;
            c.require(ty.layout == Layout::Mma, || {
                format!("the operand {v} is {}, not mma", describe(ty))
            });
            Some(View {
                dtype: ty.dtype,
                rows: ty.rows,
                cols: ty.cols,
            })
        }
        Operand::Shared(w) => view(c, w),
        Operand::SharedT(w) => view(c, w).map(|v| View {
            dtype: v.dtype,
            rows: v.cols,
            cols: v.rows,
        }),
    }
}

/// Checks a left operand of an asynchronous product.
fn left_of_async(c: &mut Checker, ty: Frag, a: &Operand) {
    match a {
        Operand::Reg(_) => {}
        Operand::SharedT(_) => c.error("the left operand of an asynchronous product is not transposed"),
        Operand::Shared(w) => {
            c.require(ty.rows == 16, || {
                format!(
                    "a left operand in shared memory has 16 rows of each warp, not {}",
                    ty.rows
                )
            });
            inner_columns(c, w);
        }
    }
}

/// Checks a right operand of an asynchronous product.
fn right_of_async(c: &mut Checker, b: &Operand) {
    match b {
        Operand::Reg(_) => {}
        Operand::SharedT(w) => inner_columns(c, w),
        Operand::Shared(w) => {
            if let Some(panel) = panels(c, w) {
                c.require(w.col.is_multiple_of(panel), || {
                    format!("a window from column {} of {} begins inside a panel", w.col, w.buf)
                });
            }
        }
    }
}

/// Checks a window whose columns are the inner dimension of an asynchronous product.
fn inner_columns(c: &mut Checker, w: &SharedView) {
    panels(c, w);
    c.require(w.col.is_multiple_of(16), || {
        format!(
            "a window from column {} of {}, which is no multiple of 16",
            w.col, w.buf
        )
    });
}

/// Checks that an asynchronous engine finds panels in a window's buffer, and that the window begins at a multiple of 8
/// rows; gives the columns of a panel.
pub(super) fn panels(c: &mut Checker, w: &SharedView) -> Option<u32> {
    let b = c.kernel.buffers.get(w.buf.index())?;
    let Some(panel) = b.panel_bytes().filter(|_| b.rows % 8 == 0) else {
        c.error(format!(
            "{} is used by an asynchronous engine, but does not lie in panels",
            w.buf
        ));
        return None;
    };
    let begins = c.rows_from_multiple(w, 8);
    c.require(begins, || {
        format!("a window of {} begins at a row that is no multiple of 8", w.buf)
    });
    Some(panel / b.dtype.bytes().max(1))
}

fn product(c: &mut Checker, dst: Val, ty: Frag, a: &Operand, b: &Operand) {
    c.require(!matches!(b, Operand::Reg(_)), || {
        "the right operand of a product must be in shared memory".to_string()
    });
    let shape =
        ty.dtype == Dtype::F32 && ty.layout == Layout::Mma && ty.rows.is_multiple_of(16) && ty.cols.is_multiple_of(8);
    c.require(shape, || {
        format!("the product {dst} is {}, but must be f32 in mma layout", describe(ty))
    });
    let (Some(a), Some(b)) = (operand(c, a), operand(c, b)) else {
        return;
    };
    let sixteen = matches!(a.dtype, Dtype::F16 | Dtype::Bf16) && a.dtype == b.dtype;
    c.require(sixteen, || {
        format!(
            "operands of a product are both f16 or both bf16, not {} and {}",
            a.dtype.name(),
            b.dtype.name()
        )
    });
    c.require(a.rows == ty.rows && b.cols == ty.cols && a.cols == b.rows, || {
        format!(
            "{}x{} times {}x{} is not {}x{}",
            a.rows, a.cols, b.rows, b.cols, ty.rows, ty.cols
        )
    });
    c.require(a.cols % 16 == 0, || {
        format!("the inner dimension {} is not a multiple of 16", a.cols)
    });
}
