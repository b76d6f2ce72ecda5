//! Reductions along rows: first the slots of a lane, then the lanes by butterflies.

use drawloom_kernel::ir::{Dtype, Layout, ReduceOp, Val};
use inkwell::IntPredicate;
use inkwell::values::BasicValueEnum;

use crate::emitter::Emitter;
use crate::error::{Result, malformed};
use crate::math;
use crate::slots::Slots;

impl<'c> Emitter<'c, '_> {
    fn combine(&self, op: ReduceOp, a: BasicValueEnum<'c>, b: BasicValueEnum<'c>) -> BasicValueEnum<'c> {
        match (a, b) {
            (BasicValueEnum::IntValue(a), BasicValueEnum::IntValue(b)) => match op {
                ReduceOp::Sum => self.b.add(a, b).into(),
                ReduceOp::Max => self.b.select_int(self.b.icmp(IntPredicate::SGT, a, b), a, b).into(),
            },
            _ => match op {
                ReduceOp::Sum => self.b.fadd(a.into_float_value(), b.into_float_value()).into(),
                ReduceOp::Max => math::max(&self.b, a.into_float_value(), b.into_float_value()).into(),
            },
        }
    }
    /// Combines with the lane whose number differs in the bits of `mask`.
    fn butterfly(&self, op: ReduceOp, v: BasicValueEnum<'c>, mask: u32) -> BasicValueEnum<'c> {
        let b = &self.b;
        let args = [b.c32(-1).into(), v, b.c32(i64::from(mask)).into(), b.c32(31).into()];
        let name = match v {
            BasicValueEnum::IntValue(_) => "llvm.nvvm.shfl.sync.bfly.i32",
            _ => "llvm.nvvm.shfl.sync.bfly.f32",
        };
        self.combine(op, v, b.call(name, &[], &args))
    }
    /// Emits whether `of` holds in any element that a lane of the warp has.
    pub fn any(&mut self, dst: Val, of: Val) -> Result<()> {
        if self.ty(of)?.dtype != Dtype::Bool {
            return malformed(format!("{of} is no predicate"));
        }
        let registers = self.registers(of)?.to_vec();
        let mut own = self.b.c1(false);
        for r in registers {
            own = self.b.or(own, r.into_int_value());
        }
        let args = [self.b.c32(-1).into(), own.into()];
        let any = self.b.call("llvm.nvvm.vote.any.sync", &[], &args);
        self.define(dst, vec![any])
    }
    /// Emits a reduction of the columns of `of`.
    pub fn reduce(&mut self, dst: Val, op: ReduceOp, of: Val) -> Result<()> {
        let (from, to) = (self.ty(of)?, self.ty(dst)?);
        if to.rows != from.rows || to.dtype != from.dtype || (to.layout != from.layout && !to.is_scalar()) {
            return malformed(format!("{dst} is no reduction of {of} along rows"));
        }
        let slots = Slots::of(&from)?;
        let input = self.registers(of)?.to_vec();
        let identity: BasicValueEnum<'c> = match (from.dtype, op) {
            (Dtype::F32, ReduceOp::Sum) => self.b.cf(0.0).into(),
            (Dtype::F32, ReduceOp::Max) => self.b.cf(f32::NEG_INFINITY).into(),
            (Dtype::I32, ReduceOp::Sum) => self.b.c32(0).into(),
            (Dtype::I32, ReduceOp::Max) => self.b.c32(i32::MIN.into()).into(),
            (Dtype::F16 | Dtype::Bf16 | Dtype::I64 | Dtype::Bool, _) => {
                return malformed(format!("{of} is reduced, but is neither f32 nor i32"));
            }
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
            let mut terms = Vec::new();
            for c in 0..slots.cols {
                let v = input[slots.at(r, c)];
                terms.push(match self.inside(&from, c) {
                    Some(inside) => self.b.select(inside, v, identity),
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
            out.push(if to.is_scalar() { self.uniform(all) } else { all });
        }
        self.define(dst, out)
    }
    /// The same in all lanes, and known to be: a reduction over the warp leaves its result in a uniform register, so that
    /// ptxas sees that branches on an integer do not part the warp, and computes descriptors in uniform registers too. Only
    /// asynchronous products need that.
    pub fn uniform(&self, v: BasicValueEnum<'c>) -> BasicValueEnum<'c> {
        let BasicValueEnum::IntValue(i) = v else { return v };
        if !self.target.mma_async || i.get_type().get_bit_width() != 32 {
            return v;
        }
        let b = &self.b;
        b.call("llvm.nvvm.redux.sync.or", &[], &[v, b.c32(-1).into()])
    }
}
