//! Reductions along rows: first the slots of a lane, then the lanes by butterflies.

use drawloom_kernel::ir::{Layout, ReduceOp, Val};

use crate::build::Float;
use crate::emitter::Emitter;
use crate::error::{Result, malformed};
use crate::math;
use crate::slots::Slots;

impl<'c> Emitter<'c, '_> {
    fn combine(&self, op: ReduceOp, a: Float<'c>, b: Float<'c>) -> Float<'c> {
        match op {
            ReduceOp::Sum => self.b.fadd(a, b),
            ReduceOp::Max => math::max(&self.b, a, b),
        }
    }
    /// Combines with the lane whose number differs in the bits of `mask`.
    fn butterfly(&self, op: ReduceOp, v: Float<'c>, mask: u32) -> Float<'c> {
        let b = &self.b;
        let args = [
            b.c32(-1).into(),
            v.into(),
            b.c32(i64::from(mask)).into(),
            b.c32(31).into(),
        ];
        let other = b.call("llvm.nvvm.shfl.sync.bfly.f32", &[], &args).into_float_value();
        self.combine(op, v, other)
    }
    /// Emits a reduction of the columns of `of`.
    pub fn reduce(&mut self, dst: Val, op: ReduceOp, of: Val) -> Result<()> {
        let (from, to) = (self.ty(of)?, self.ty(dst)?);
        if to.rows != from.rows || to.layout != from.layout {
            return malformed(format!("{dst} is no reduction of {of} along rows"));
        }
        let slots = Slots::of(&from)?;
        let input = self.floats(of)?;
        let identity = match op {
            ReduceOp::Sum => self.b.cf(0.0),
            ReduceOp::Max => self.b.cf(f32::NEG_INFINITY),
        };
        let masks: &[u32] = match (from.layout, to.cols) {
            (Layout::Mma, 4) => &[],
            (Layout::Mma, 1) if from.cols != 1 => &[1, 2],
            (Layout::Lanes { .. }, 1) if from.cols != 1 => &[16, 8, 4, 2, 1],
            (Layout::Uniform | Layout::Mma | Layout::Lanes { .. }, _) => {
                return malformed(format!("reduction of {} columns to {}", from.cols, to.cols));
            }
        };
        let mut out = Vec::new();
        for r in 0..slots.rows {
            let mut terms: Vec<Float<'c>> = Vec::new();
            for c in 0..slots.cols {
                let v = input[slots.at(r, c)];
                terms.push(match self.inside(&from, c) {
                    Some(inside) => self.b.select(inside, v.into(), identity.into()).into_float_value(),
                    None => v,
                });
            }
            // Neighbours first: short chains, and operands die early.
            let mut sum = None;
            for pair in terms.chunks(2) {
                let two = if pair.len() == 2 {
                    self.combine(op, pair[0], pair[1])
                } else {
                    pair[0]
                };
                sum = Some(match sum {
                    Some(s) => self.combine(op, s, two),
                    None => two,
                });
            }
            let all = masks
                .iter()
                .fold(sum.unwrap_or(identity), |v, m| self.butterfly(op, v, *m));
            out.push(all.into());
        }
        self.define(dst, out)
    }
}
