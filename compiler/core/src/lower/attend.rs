//! The tiled form of a log-sum-exp fold: a query tile in registers, key and value tiles streaming past.
//!
//! Per tile: `S = Q K^T` on the matrix unit, the score expression, the mask where a tile needs it, the running maximum
//! `m` of `c S` (`c` is the score's constant factor times `log2(e)`), `P = 2^(c S - m)` in one fused multiply-add and one
//! exponential an element, row sums as per-lane partials, and `O = O 2^(m_old - m) + P V`. The finish (`o / l`, log-sum-exp, empty rows) is the
//! graph's own output expression over the folded state, so the split form stops before it and `merge` goes on.
//!
//! Source: Dao et al. 2022, arXiv:2205.14135, Algorithm 1; Milakov and Gimelshein 2018, arXiv:1805.02867.

mod guard;
mod order;
mod params;
mod store;
mod stream;
mod tile;

use super::builder::{Builder, whole};
use super::expr::Lowered as Value;
use super::operator::Operator;
use super::{Lowered, Unsupported};
use crate::schedule::{Fetch, Keys, QueryHome, Reference, Schedule, Staging};
use drawloom_graph::ir::Op as GOp;
use drawloom_kernel::ir::{
    BufId, Dtype, Effect, Frag, GlobalTile, Layout, MapOp, Op, Operand, ReduceOp, SharedView, Stmt, Val,
};
pub use order::{Numbers, tiles};
use params::{Params, declare};
use store::{store_outputs, store_partials};
use stream::{Loop, Visits, copy_kind};
use tile::{Place, environment, locate, of_cta, ranges, row_index};

/// Lowers the stage under a schedule.
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
    let mut b = Builder::new(name, target);
    let params = declare(&mut b, op, schedule, e)?;
    let frame = Frame::new(&mut b, op, schedule, &params, elem, (d, e));
    match schedule.fetch {
        Fetch::Together => {
            let place = of_cta(&mut b, op, schedule, &params)?;
            frame.tile(&mut b, place, Reference::Running, Store::Always)?;
        }
        Fetch::Producer => guard::tiles(&mut b, &frame)?,
    }
    Ok(Lowered {
        kernel: b.finish(schedule.warps, schedule.min_ctas),
        meaning: params.meaning,
    })
}

/// What all query tiles of a kernel have in common.
struct Frame<'a, 'g> {
    op: &'a Operator<'g>,
    schedule: &'a Schedule,
    params: &'a Params,
    elem: Dtype,
    d: u32,
    e: u32,
    q_buf: BufId,
    k_buf: BufId,
    v_buf: BufId,
    /// Where each output is staged that has a row of features.
    staging: Vec<Option<BufId>>,
}

impl<'a, 'g> Frame<'a, 'g> {
    fn new(
        b: &mut Builder,
        op: &'a Operator<'g>,
        schedule: &'a Schedule,
        params: &'a Params,
        elem: Dtype,
        (d, e): (u32, u32),
    ) -> Self {
        let q_buf = b.buffer("q", elem, schedule.queries, schedule.block_m, d, None);
        let k_buf = b.buffer("k", elem, schedule.stages, schedule.block_n, d, None);
        let v_buf = b.buffer("v", elem, schedule.stages, schedule.block_n, e, None);
        let features = op.spec.inputs[op.attend.v.index()].axes.last();
        let outputs = match schedule.keys {
            Keys::All => op.spec.outputs.as_slice(),
            Keys::Split => &[],
        };
        let staging = outputs
            .iter()
            .map(|output| {
                let dtype = op.dtype(output.ty);
                // Each warp overwrites only rows of the query tile that it alone has read.
                let alias = (d == e && elem == dtype && schedule.staging == Staging::Query).then_some(q_buf);
                (output.axes.last() == features).then(|| b.buffer("out", dtype, 1, schedule.block_m, e, alias))
            })
            .collect();
        Frame {
            op,
            schedule,
            params,
            elem,
            d,
            e,
            q_buf,
            k_buf,
            v_buf,
            staging,
        }
    }

    /// One query tile: its fold over the key tiles, and its outputs or partial states. Returns whether the warp's guard
    /// refused its rows, if it has one.
    fn tile(
        &self,
        b: &mut Builder,
        place: Place,
        reference: Reference,
        store: Store,
    ) -> Result<Option<Val>, Unsupported> {
        let Frame {
            op, schedule, params, ..
        } = *self;
        let mt = schedule.block_m / schedule.warps;
        let tile = locate(b, op, schedule, params, place)?;
        let mut exprs = environment(b, op, schedule, params, &tile)?;
        let tiles = ranges(b, op, schedule, params, &tile, &exprs)?;
        let (visits, segments) = match (schedule.fetch, tile.split) {
            (Fetch::Producer, _) => {
                let (last, segments) = tiles.backward(b);
                (Visits::Down(last), segments)
            }
            (Fetch::Together, None) => (Visits::From(b.int(0)), tiles.segments.clone()),
            (Fetch::Together, Some((split, splits))) => {
                let (begin, segments, _) = tiles.part(b, split, splits);
                (Visits::From(begin), segments)
            }
        };

        // The query tile.
        let q_decl = &op.spec.inputs[op.q.index()];
        let src = GlobalTile {
            tensor: params.tensors[&q_decl.name],
            at: row_index(b, op, schedule, &tile, &q_decl.axes),
            col: 0,
            rows: schedule.block_m,
            cols: self.d,
            first_row: tile.first_row,
            row_limit: tile.rows,
        };
        let dst = whole(&b.kernel, self.q_buf, None);
        b.effect(Effect::Copy {
            kind: copy_kind(schedule),
            src,
            dst,
        });
        if schedule.fetch == Fetch::Together {
            b.effect(Effect::CommitGroup);
        }
        let (factor, score) = op.factored_score();
        exprs.hoist(b, score)?;
        if let Some(mask) = op.mask {
            exprs.hoist(b, mask)?;
        }
        if schedule.fetch == Fetch::Together {
            b.effect(Effect::WaitGroup { pending: 0 });
            b.effect(Effect::Barrier {
                id: 0,
                warps: schedule.warps,
            });
        }
        let q_view = SharedView {
            buf: self.q_buf,
            slot: None,
            row: Some(tile.warp_row),
            col: 0,
            rows: mt,
            cols: self.d,
        };
        let q = match schedule.query {
            QueryHome::Shared => Operand::Shared(q_view),
            QueryHome::Registers => {
                let ty = Frag {
                    dtype: self.elem,
                    rows: mt,
                    cols: self.d,
                    layout: Layout::Mma,
                };
                Operand::Reg(b.def(ty, Op::LoadShared(q_view)))
            }
        };

        let looped = Loop {
            op,
            schedule,
            tiles: &tiles,
            visits,
            reference,
            k_buf: self.k_buf,
            v_buf: self.v_buf,
            q,
            factor,
            elem: self.elem,
            mt,
            e: self.e,
        };
        let stream = looped.stream(b, params, &tile, &exprs, &segments)?;
        let [m, l, o] = [0, 1, 2].map(|n| stream.carried[n].result);
        b.push(Stmt::Stream(stream));

        // The state in the graph's units: the maximum in nats, the whole row's sum.
        let ln_2 = b.float(std::f32::consts::LN_2);
        let m = b.mapf(MapOp::Mul, &[m, ln_2]);
        let l = b.reduce(ReduceOp::Sum, l, 1);
        if schedule.keys == Keys::Split {
            store_partials(b, op, schedule, params, &tile, [m, l, o]);
            return Ok(None);
        }
        for (comp, state) in [(op.fold.m, m), (op.fold.l, l), (op.fold.o, o)] {
            for (n, node) in op.graph.nodes.iter().enumerate() {
                if node.op == (GOp::Get { fold: op.fold_id, comp }) {
                    exprs.memo.insert(drawloom_graph::ir::Val(n as u32), Value::One(state));
                }
            }
        }
        let mut write = |b: &mut Builder| store_outputs(b, op, schedule, params, &tile, &mut exprs, &self.staging);
        match store {
            Store::Always => write(b).map(|()| None),
            Store::If(cond) => b.when(cond, write).map(|()| None),
            Store::IfGood => {
                let failed = guard::failed(b, self, [l, o, tile.valid]);
                let good = b.test(MapOp::Not, &[failed]);
                b.when(good, write)?;
                Ok(Some(failed))
            }
        }
    }
}

/// Whether a warp writes the rows of a query tile that it has computed.
#[derive(Clone, Copy)]
enum Store {
    Always,
    /// If its guard does not refuse them.
    IfGood,
    /// If this scalar holds.
    If(Val),
}
