//! The tiled form of a log-sum-exp fold: a query tile in registers, key and value tiles streaming past.
//!
//! Per tile: `S = Q K^T` on the matrix unit, the score expression, the mask where a tile needs it, the running maximum
//! `m` of `c S` (`c` is the score's constant factor times `log2(e)`), `P = 2^(c S - m)` in one fused multiply-add and one
//! exponential an element, row sums as per-lane partials, and `O = O 2^(m_old - m) + P V`. The finish (`o / l`, log-sum-exp, empty rows) is the
//! graph's own output expression over the folded state, so the split form stops before it and `merge` goes on.
//!
//! Source: Dao et al. 2022, arXiv:2205.14135, Algorithm 1; Milakov and Gimelshein 2018, arXiv:1805.02867.

mod params;
mod store;
mod stream;
mod tile;

use super::builder::{Builder, whole};
use super::expr::Lowered as Value;
use super::operator::Operator;
use super::{Lowered, Unsupported};
use crate::schedule::{Keys, QueryHome, Schedule};
use drawloom_graph::ir::Op as GOp;
use drawloom_kernel::ir::{
    CopyKind, Dtype, Effect, Frag, GlobalTile, Layout, MapOp, Op, Operand, ReduceOp, SharedView, Stmt,
};
use params::declare;
use store::{store_outputs, store_partials};
use stream::Loop;
use tile::{environment, locate, ranges, row_index};

/// Lowers the stage under a schedule for `sm_80`-class matrix units.
///
/// # Errors
/// [`Unsupported`] if the operator has no tiled form.
pub fn attend(op: &Operator, schedule: &Schedule, name: &str, target: &str) -> Result<Lowered, Unsupported> {
    let d = op
        .head_dim()
        .ok_or_else(|| Unsupported::new("a head dimension known only at run time"))?;
    let e = op
        .value_dim()
        .ok_or_else(|| Unsupported::new("a value dimension known only at run time"))?;
    let elem = op.dtype(op.spec.inputs[op.q.index()].ty);
    let (k, v) = (
        &op.spec.inputs[op.attend.k.index()],
        &op.spec.inputs[op.attend.v.index()],
    );
    if !matches!(elem, Dtype::F16 | Dtype::Bf16) || op.dtype(k.ty) != elem || op.dtype(v.ty) != elem {
        return Err(Unsupported::new(
            "queries, keys and values that are not of one 16-bit type",
        ));
    }
    if d % 16 != 0 || e % 16 != 0 {
        return Err(Unsupported::new(format!(
            "head dimensions {d} and {e} (multiples of 16 have one)"
        )));
    }
    let (mt, warps) = (schedule.block_m / schedule.warps, schedule.warps);
    let mut b = Builder::new(name, target);
    let params = declare(&mut b, op, schedule, e)?;
    let tile = locate(&mut b, op, schedule, &params, mt)?;
    let exprs = environment(&mut b, op, schedule, &params, &tile)?;
    let tiles = ranges(&mut b, op, schedule, &params, &tile, &exprs)?;
    let (begin, segments) = match tile.split {
        None => (b.int(0), tiles.segments.clone()),
        Some((split, splits)) => {
            let (begin, segments, _) = tiles.part(&mut b, split, splits);
            (begin, segments)
        }
    };

    // The query tile.
    let q_buf = b.buffer("q", elem, 1, schedule.block_m, d, None);
    let k_buf = b.buffer("k", elem, schedule.stages, schedule.block_n, d, None);
    let v_buf = b.buffer("v", elem, schedule.stages, schedule.block_n, e, None);
    let kind = match schedule.access {
        2 => CopyKind::Sync { bytes: 2 },
        bytes => CopyKind::CpAsync { bytes },
    };
    let q_decl = &op.spec.inputs[op.q.index()];
    let src = GlobalTile {
        tensor: params.tensors[&q_decl.name],
        at: row_index(&mut b, op, schedule, &tile, &q_decl.axes),
        col: 0,
        rows: schedule.block_m,
        cols: d,
        first_row: tile.first_row,
        row_limit: tile.rows,
    };
    let dst = whole(&b.kernel, q_buf, None);
    b.effect(Effect::Copy { kind, src, dst });
    b.effect(Effect::CommitGroup);
    let mut exprs = exprs;
    let (factor, score) = op.factored_score();
    exprs.hoist(&mut b, score)?;
    if let Some(mask) = op.mask {
        exprs.hoist(&mut b, mask)?;
    }
    b.effect(Effect::WaitGroup { pending: 0 });
    b.effect(Effect::Barrier { id: 0, warps });
    let q_view = SharedView {
        buf: q_buf,
        slot: None,
        row: Some(tile.warp_row),
        col: 0,
        rows: mt,
        cols: d,
    };
    let q_operand = match schedule.query {
        QueryHome::Shared => Operand::Shared(q_view),
        QueryHome::Registers => {
            let ty = Frag {
                dtype: elem,
                rows: mt,
                cols: d,
                layout: Layout::Mma,
            };
            Operand::Reg(b.def(ty, Op::LoadShared(q_view)))
        }
    };

    let looped = Loop {
        op,
        schedule,
        tiles: &tiles,
        begin,
        k_buf,
        v_buf,
        q: q_operand,
        factor,
        elem,
        mt,
        e,
    };
    let stream = looped.stream(&mut b, &params, &tile, &exprs, &segments)?;
    let (m, l, o) = (
        stream.carried[0].result,
        stream.carried[1].result,
        stream.carried[2].result,
    );
    b.push(Stmt::Stream(stream));

    // The state in the graph's units: the maximum in nats, the whole row's sum.
    let ln_2 = b.float(std::f32::consts::LN_2);
    let m = b.mapf(MapOp::Mul, &[m, ln_2]);
    let l = b.reduce(ReduceOp::Sum, l, 1);
    match schedule.keys {
        Keys::Split => store_partials(&mut b, op, schedule, &params, &tile, [m, l, o]),
        Keys::All => {
            for (comp, state) in [(op.fold.m, m), (op.fold.l, l), (op.fold.o, o)] {
                for (n, node) in op.graph.nodes.iter().enumerate() {
                    if node.op == (GOp::Get { fold: op.fold_id, comp }) {
                        exprs.memo.insert(drawloom_graph::ir::Val(n as u32), Value::One(state));
                    }
                }
            }
            store_outputs(&mut b, op, schedule, &params, &tile, &mut exprs, q_buf, elem, e)?;
        }
    }
    Ok(Lowered {
        kernel: b.finish(warps, schedule.min_ctas),
        meaning: params.meaning,
    })
}
