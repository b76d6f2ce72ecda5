//! The loop over key tiles: the copies that may run ahead, and the body of a full and of an edge tile.

use super::super::Unsupported;
use super::super::builder::{Builder, whole};
use super::super::expr::{Coord, Exprs, LOG2_E, Lowered as Value};
use super::super::operator::Operator;
use super::super::tiles::{TileKind, Tiles};
use super::params::Params;
use super::tile::Tile;
use crate::schedule::{Fetch, Reference, Schedule};
use drawloom_kernel::ir::{
    BufId, Carried, CopyKind, Dtype, Effect, Frag, GlobalTile, Layout, MapOp, Op, Operand, ReduceOp, RowIndex, Segment,
    Stage, Stream, Val,
};

/// In which order the tiles are visited.
#[derive(Clone, Copy)]
pub(super) enum Visits {
    /// In key order, from this iteration of the whole on.
    From(Val),
    /// Against it, from this iteration of the whole down: the edge that causal masks have comes first.
    Down(Val),
}

/// What the loop is made of.
pub(super) struct Loop<'a, 'g> {
    pub(super) op: &'a Operator<'g>,
    pub(super) schedule: &'a Schedule,
    pub(super) tiles: &'a Tiles,
    pub(super) visits: Visits,
    /// What full tiles subtract.
    pub(super) reference: Reference,
    pub(super) k_buf: BufId,
    pub(super) v_buf: BufId,
    pub(super) q: Operand,
    pub(super) factor: f64,
    pub(super) elem: Dtype,
    pub(super) mt: u32,
    pub(super) e: u32,
}

impl<'g> Loop<'_, 'g> {
    pub(super) fn stream(
        &self,
        b: &mut Builder,
        params: &Params,
        tile: &Tile,
        exprs: &Exprs<'g>,
        segments: &[(TileKind, Val)],
    ) -> Result<Stream, Unsupported> {
        let f32s = |rows, cols| Frag {
            dtype: Dtype::F32,
            rows,
            cols,
            layout: Layout::Mma,
        };
        let (m_ty, l_ty, o_ty) = (f32s(self.mt, 1), f32s(self.mt, 4), f32s(self.mt, self.e));
        let lowest = match self.reference {
            Reference::Zero => 0.0,
            Reference::Running | Reference::First => f32::NEG_INFINITY,
        };
        let carried: Vec<Carried> = [(m_ty, lowest), (l_ty, 0.0), (o_ty, 0.0)]
            .into_iter()
            .map(|(ty, init)| {
                let init = b.def(ty, Op::ConstF(init));
                let arg = b.kernel.new_val(ty);
                Carried {
                    arg,
                    init,
                    next: arg,
                    result: b.kernel.new_val(ty),
                }
            })
            .collect();
        let var = b.kernel.new_val(Frag::scalar(Dtype::I32));
        // With one slot, keys are fetched a tile ahead as soon as the products with them are done, and values when the
        // tile begins; with more, both run `stages - 1` tiles ahead.
        let (k_lead, v_lead) = match self.schedule.stages {
            1 => (1, 0),
            n => (n - 1, n - 1),
        };
        let stages = vec![
            self.fetch(b, params, tile, var, self.op.attend.k, self.k_buf, k_lead),
            self.fetch(b, params, tile, var, self.op.attend.v, self.v_buf, v_lead),
        ];
        let mut bodies = Vec::new();
        for &(kind, end) in segments {
            b.open();
            let next = self.body(b, var, kind, exprs, [carried[0].arg, carried[1].arg, carried[2].arg])?;
            let name = match kind {
                TileKind::Full => "full",
                TileKind::Edge => "edge",
            };
            bodies.push(Segment {
                name: name.to_owned(),
                end,
                body: b.close(),
                next: next.to_vec(),
            });
        }
        Ok(Stream {
            var,
            stages,
            segments: bodies,
            carried,
        })
    }

    /// First key of the tile that iteration `var` visits.
    fn base(&self, b: &mut Builder, var: Val) -> Val {
        let t = match self.visits {
            Visits::From(begin) => b.add(begin, var),
            Visits::Down(last) => b.sub(last, var),
        };
        let tile = self.tiles.tile(b, t);
        let by = b.int(i64::from(self.schedule.block_n));
        b.mul(tile, by)
    }

    fn slot(&self, b: &mut Builder, var: Val) -> Option<Val> {
        (self.schedule.stages > 1).then(|| {
            let n = b.int(i64::from(self.schedule.stages));
            b.rem(var, n)
        })
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the two fetches differ in tensor, buffer and lead"
    )]
    fn fetch(
        &self,
        b: &mut Builder,
        params: &Params,
        tile: &Tile,
        var: Val,
        input: drawloom_lang::spec::InputId,
        buf: BufId,
        lead: u32,
    ) -> Stage {
        b.open();
        let decl = &self.op.spec.inputs[input.index()];
        let first_row = self.base(b, var);
        let slot = self.slot(b, var);
        let at = decl.axes[..decl.axes.len() - 1]
            .iter()
            .map(|a| {
                if *a == self.op.attend.key {
                    RowIndex::Row
                } else {
                    RowIndex::Fixed(tile.fixed[a])
                }
            })
            .collect();
        let dst = whole(&b.kernel, buf, slot);
        let src = GlobalTile {
            tensor: params.tensors[&decl.name],
            at,
            col: 0,
            rows: dst.rows,
            cols: dst.cols,
            first_row,
            row_limit: params.lens[&self.op.attend.key],
        };
        b.effect(Effect::Copy {
            kind: copy_kind(self.schedule),
            src,
            dst,
        });
        Stage {
            lead,
            role: "producer".to_owned(),
            block: b.close(),
            results: Vec::new(),
        }
    }

    /// One tile: the next `(m, l, o)`.
    fn body(
        &self,
        b: &mut Builder,
        var: Val,
        kind: TileKind,
        exprs: &Exprs<'g>,
        [m, l, o]: [Val; 3],
    ) -> Result<[Val; 3], Unsupported> {
        let (mt, n) = (self.mt, self.schedule.block_n);
        let slot = self.slot(b, var);
        let tile_ty = Frag {
            dtype: Dtype::F32,
            rows: mt,
            cols: n,
            layout: Layout::Mma,
        };
        let zero = b.def(tile_ty, Op::ConstF(0.0));
        let keys = Operand::SharedT(whole(&b.kernel, self.k_buf, slot));
        let s = b.def(
            tile_ty,
            Op::Mma {
                acc: zero,
                a: self.q.clone(),
                b: keys,
            },
        );

        let mut exprs = exprs.clone();
        for &dot in &self.op.dots {
            exprs.memo.insert(dot, Value::One(s));
        }
        let base = self.base(b, var);
        let key = self.op.axis(self.op.attend.key);
        let Some(Coord::Key { len, cols, .. }) = exprs.coords.get(&key).copied() else {
            unreachable!("invariant: the environment has the key axis")
        };
        exprs.coords.insert(
            key,
            Coord::Key {
                base: Some(base),
                len,
                cols,
            },
        );
        let (_, score) = self.op.factored_score();
        let scale = b.float(self.factor as f32 * LOG2_E);
        let values = Operand::Shared(whole(&b.kernel, self.v_buf, slot));
        if kind == TileKind::Full
            && self.reference != Reference::Running
            && let Some((a, bias)) = exprs.affine(b, score)?
        {
            // `a s + bias - m` in one multiply-add, beside one that the bias takes.
            let shift = b.mapf(MapOp::Neg, &[m]);
            let rest = exprs.scaled(b, bias, scale, shift);
            let a = b.float(a as f32 * self.factor as f32 * LOG2_E);
            let exponent = b.mapf(MapOp::Fma, &[s, a, rest]);
            return Ok(self.fixed(b, exponent, [m, l, o], values));
        }
        let y = exprs.one(b, score)?;
        let mut y = self.spread(b, y, tile_ty);
        if kind == TileKind::Edge {
            let iota = b.def(
                Frag {
                    dtype: Dtype::I32,
                    rows: 1,
                    cols: n,
                    layout: Layout::Mma,
                },
                Op::ColIota,
            );
            let left = b.sub(len, base);
            let exists = b.test(MapOp::Lt, &[iota, left]);
            let seen = match self.op.mask {
                Some(mask) if !self.op.sees_everything() => {
                    let seen = exprs.one(b, mask)?;
                    b.test(MapOp::And, &[seen, exists])
                }
                Some(_) | None => exists,
            };
            let never = b.float(f32::NEG_INFINITY);
            y = b.mapf(MapOp::Select, &[seen, y, never]);
        }

        if self.reference == Reference::Zero || (self.reference == Reference::First && kind == TileKind::Full) {
            let exponent = match self.reference {
                Reference::Zero => b.mapf(MapOp::Mul, &[y, scale]),
                Reference::Running | Reference::First => {
                    let shift = b.mapf(MapOp::Neg, &[m]);
                    b.mapf(MapOp::Fma, &[y, scale, shift])
                }
            };
            return Ok(self.fixed(b, exponent, [m, l, o], values));
        }

        // The maximum as it is subtracted: of the scores in powers of two, rounded once, so that what later tiles take
        // away from earlier ones is exactly what these were reduced by. Rows that have seen nothing yet take 0, so that
        // no infinity meets another.
        let tile_max = b.reduce(ReduceOp::Max, y, 1);
        let tile_max = b.mapf(MapOp::Mul, &[tile_max, scale]);
        let m_next = b.mapf(MapOp::Max, &[m, tile_max]);
        let never = b.float(f32::NEG_INFINITY);
        let nothing = b.float(0.0);
        let unseen = b.test(MapOp::Eq, &[m_next, never]);
        let reference = b.mapf(MapOp::Select, &[unseen, nothing, m_next]);
        let shift = b.mapf(MapOp::Neg, &[reference]);
        let exponent = b.mapf(MapOp::Fma, &[y, scale, shift]);
        let p = b.mapf(MapOp::Exp2, &[exponent]);
        let exponent = b.mapf(MapOp::Add, &[m, shift]);
        let decay = b.mapf(MapOp::Exp2, &[exponent]);
        let sums = b.reduce(ReduceOp::Sum, p, 4);
        let l_next = b.mapf(MapOp::Fma, &[l, decay, sums]);
        let o = b.mapf(MapOp::Mul, &[o, decay]);
        let o_next = self.weigh(b, o, p, values);
        Ok([m_next, l_next, o_next])
    }

    /// The next `(m, l, o)` where the reference stays.
    fn fixed(&self, b: &mut Builder, exponent: Val, [m, l, o]: [Val; 3], values: Operand) -> [Val; 3] {
        let p = b.mapf(MapOp::Exp2, &[exponent]);
        let sums = b.reduce(ReduceOp::Sum, p, 4);
        let l_next = b.mapf(MapOp::Add, &[l, sums]);
        let o_next = self.weigh(b, o, p, values);
        [m, l_next, o_next]
    }

    /// `o + p v`, with `p` in the inputs' type.
    fn weigh(&self, b: &mut Builder, o: Val, p: Val, values: Operand) -> Val {
        let p = b.map(MapOp::Convert, self.elem, &[p]);
        let ty = b.ty(o);
        b.def(
            ty,
            Op::Mma {
                acc: o,
                a: Operand::Reg(p),
                b: values,
            },
        )
    }

    /// A score that does not fill the tile (a constant, a row or column vector) is spread over it.
    fn spread(&self, b: &mut Builder, y: Val, ty: Frag) -> Val {
        if b.ty(y) == ty {
            return y;
        }
        let zero = b.def(ty, Op::ConstF(0.0));
        b.mapf(MapOp::Add, &[y, zero])
    }
}

/// How a tile comes to shared memory. A producer's copies are synchronous until the roles are told apart.
pub(super) fn copy_kind(schedule: &Schedule) -> CopyKind {
    match (schedule.fetch, schedule.access) {
        (Fetch::Producer, bytes) | (Fetch::Together, bytes @ 2) => CopyKind::Sync { bytes },
        (Fetch::Together, bytes) => CopyKind::CpAsync { bytes },
    }
}
