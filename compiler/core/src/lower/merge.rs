//! The outer fold of a split program: combines the partial states of all splits and finishes.
//!
//! Nothing here knows about softmax: the fold's own `combine` region is evaluated on states that are loaded from the
//! workspace, one row of the query axes per warp, and the graph's output expressions on the final state.

use super::builder::Builder;
use super::declare::{outputs, partials, sizes};
use super::expr::{Coord, Exprs, Lowered as Value};
use super::operator::Operator;
use super::{Lowered, Meaning, Unsupported};
use drawloom_graph::ir::{Op as GOp, Side, Val as GVal};
use drawloom_kernel::ir::{Access, Carried, Dtype, Effect, Frag, If, Layout, Loop, MapOp, Op, Stmt, Val};
use drawloom_lang::spec::AxisId;
use std::collections::BTreeMap;

/// Warps of a CTA; each takes one row.
const WARPS: u32 = 4;

/// Rows that one CTA of the merge finishes.
pub const ROWS_PER_CTA: u32 = WARPS;

/// Lowers the merge of an operator's partial states.
///
/// # Errors
/// [`Unsupported`] if the region or an output has no row form.
pub fn merge(op: &Operator, name: &str, target: &str) -> Result<Lowered, Unsupported> {
    let e = op
        .value_dim()
        .ok_or_else(|| Unsupported::new("a value dimension known only at run time"))?;
    let mut b = Builder::new(name, target);
    let mut meaning = Vec::new();
    let q_axes = &op.spec.inputs[op.q.index()].axes;
    let row_axes = &q_axes[..q_axes.len() - 1];

    // Parameters: sizes, splits, partial states, outputs, scalars of the finish.
    let sizes = sizes(&mut b, op, &mut meaning);
    let splits_param = b.scalar_param("splits", Dtype::I32);
    meaning.push(Meaning::Splits);
    let fold = &op.graph.folds[op.fold_id.index()];
    let parts = ["m", "l", "o"];
    let comps = [op.fold.m, op.fold.l, op.fold.o];
    let partials = partials(&mut b, op, (&sizes, splits_param), e, Access::In, &mut meaning);
    let outputs = outputs(&mut b, op, &sizes, &mut meaning);
    let splits = b.read_param(splits_param);
    let lens: BTreeMap<AxisId, Val> = row_axes.iter().map(|&a| (a, sizes.read(&mut b, op, a))).collect();

    // One row per warp.
    let cta = b.def(Frag::scalar(Dtype::I32), Op::Cta);
    let warps = b.int(i64::from(WARPS));
    let warp = b.def(Frag::scalar(Dtype::I32), Op::WarpInRole);
    let first = b.mul(cta, warps);
    let row = b.add(first, warp);
    let mut total = b.int(1);
    for len in lens.values() {
        total = b.mul(total, *len);
    }
    let exists = b.test(MapOp::Lt, &[row, total]);
    b.open();
    let mut coords: BTreeMap<AxisId, Val> = BTreeMap::new();
    let mut rest = row;
    for (n, &a) in row_axes.iter().enumerate().rev() {
        if n == 0 {
            coords.insert(a, rest);
        } else {
            let index = b.rem(rest, lens[&a]);
            coords.insert(a, index);
            rest = b.div(rest, lens[&a]);
        }
    }
    let vec = [4, 2].into_iter().find(|v| e % (32 * v) == 0).unwrap_or(1);
    let wide = Frag {
        dtype: Dtype::F32,
        rows: 1,
        cols: e,
        layout: Layout::Lanes { vec },
    };
    let column = b.def(
        Frag {
            dtype: Dtype::I32,
            ..wide
        },
        Op::ColIota,
    );

    // The outer fold, in split order.
    let types = [Frag::scalar(Dtype::F32), Frag::scalar(Dtype::F32), wide];
    let mut exprs = Exprs::new(op.graph, op.axis(op.attend.key));
    for (&a, &v) in &coords {
        exprs.coords.insert(op.axis(a), Coord::Fixed(v));
    }
    let var = b.kernel.new_val(Frag::scalar(Dtype::I32));
    let mut carried = Vec::new();
    for ((comp, ty), _) in comps.iter().zip(types).zip(parts) {
        let init = exprs.one(&mut b, fold.comps[*comp as usize].init)?;
        let init = if b.ty(init) == ty {
            init
        } else {
            let zero = b.def(ty, Op::ConstF(0.0));
            b.mapf(MapOp::Add, &[zero, init])
        };
        let arg = b.kernel.new_val(ty);
        carried.push(Carried {
            arg,
            init,
            next: arg,
            result: b.kernel.new_val(ty),
        });
    }
    b.open();
    let mut region = exprs.clone();
    for (n, (&comp, &ty)) in comps.iter().zip(&types).enumerate() {
        let mut at = vec![var];
        at.extend(row_axes.iter().map(|a| coords[a]));
        if n == 2 {
            at.push(column);
        }
        let loaded = b.def(
            ty,
            Op::LoadGlobal {
                tensor: partials[n],
                at,
                guard: None,
                fill: 0.0,
            },
        );
        bind(&mut region, op, comp, Side::Left, carried[n].arg);
        bind(&mut region, op, comp, Side::Right, loaded);
    }
    for (n, &comp) in comps.iter().enumerate() {
        carried[n].next = region.one(&mut b, fold.comps[comp as usize].combine)?;
    }
    let body = b.close();
    let zero = b.int(0);
    let results: Vec<Val> = carried.iter().map(|c| c.result).collect();
    b.push(Stmt::Loop(Loop {
        var,
        lo: zero,
        hi: splits,
        carried,
        body,
    }));

    // The finish.
    for (&comp, &state) in comps.iter().zip(&results) {
        for (n, node) in op.graph.nodes.iter().enumerate() {
            if node.op == (GOp::Get { fold: op.fold_id, comp }) {
                exprs.memo.insert(GVal(n as u32), Value::One(state));
            }
        }
    }
    for (output, &tensor) in op.spec.outputs.iter().zip(&outputs) {
        let value = op
            .graph
            .outputs
            .iter()
            .find(|o| o.name == output.name)
            .ok_or_else(|| Unsupported::new(format!("output `{}` outside the graph", output.name)))?
            .value;
        let value = exprs.one(&mut b, value)?;
        let dtype = op.dtype(output.ty);
        let value = if dtype == Dtype::F32 {
            value
        } else {
            b.map(MapOp::Convert, dtype, &[value])
        };
        let at = output
            .axes
            .iter()
            .map(|a| coords.get(a).copied().unwrap_or(column))
            .collect();
        b.effect(Effect::StoreGlobal {
            tensor,
            at,
            guard: None,
            value,
        });
    }
    let then = b.close();
    b.push(Stmt::If(If {
        cond: exists,
        then,
        otherwise: drawloom_kernel::ir::Block::default(),
        results: Vec::new(),
    }));
    Ok(Lowered {
        kernel: b.finish(WARPS, 1),
        meaning,
    })
}

fn bind(exprs: &mut Exprs, op: &Operator, comp: u32, side: Side, v: Val) {
    for (n, node) in op.graph.nodes.iter().enumerate() {
        if node.op
            == (GOp::Hole {
                fold: op.fold_id,
                comp,
                side,
            })
        {
            exprs.memo.insert(GVal(n as u32), Value::One(v));
        }
    }
}
