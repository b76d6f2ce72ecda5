//! Elementwise operations, constants and coordinates: loops over slots.

use drawloom_kernel::ir::{Dtype, Frag, MapOp, Op, Val};
use inkwell::IntPredicate;

use crate::build::Any;
use crate::emitter::{Arg, Emitter};
use crate::error::{Result, malformed};
use crate::math;
use crate::slots::{Slots, constant_column};

impl<'c> Emitter<'c, '_> {
    /// Emits an operation that computes on each element by itself.
    pub fn elementwise(&mut self, dst: Val, op: MapOp, operands: &[Val]) -> Result<()> {
        if operands.len() != math::arity(op) {
            return malformed(format!("{op:?} with {} operands", operands.len()));
        }
        let ty = self.ty(dst)?;
        let slots = Slots::of(&ty)?;
        let mut types = Vec::new();
        let mut inputs = Vec::new();
        for v in operands {
            let t = self.ty(*v)?;
            let s = Slots::of(&t)?;
            if (s.rows != 1 && s.rows != slots.rows) || (s.cols != 1 && s.cols != slots.cols) {
                return malformed(format!("{v} does not broadcast to {dst}"));
            }
            types.push(t);
            inputs.push((s, self.scalars(*v)?));
        }
        check_types(op, &ty, &types)?;
        if let (MapOp::Lt | MapOp::Le, [a, b]) = (op, operands) {
            for (columns, other, columns_first) in [(*a, *b, true), (*b, *a, false)] {
                if self.is_columns(columns) && types[0].dtype == Dtype::I32 && self.ty(other)?.cols == 1 {
                    return self.compare_columns(dst, op == MapOp::Lt, columns_first, columns, other);
                }
            }
        }
        let from = types[0].dtype;
        if let (MapOp::Div | MapOp::Rem, Dtype::I32, [a, b]) = (op, from, operands)
            && ty.is_scalar()
            && self.non_negative(*a)
        {
            let (a, b) = (self.int(*a)?, self.int(*b)?);
            let v = if op == MapOp::Div {
                self.b.udiv(a, b)
            } else {
                self.b.urem(a, b)
            };
            return self.define(dst, vec![v.into()]);
        }
        let place = |r: u32, c: u32| inputs.iter().map(|(s, v)| v[s.at(r, c)]).collect::<Vec<Any<'c>>>();
        if op == MapOp::Convert && from == Dtype::F32 && slots.packed(ty.dtype) {
            let pairs = slots.iter().filter(|(_, c)| c % 2 == 0);
            let out = pairs.map(|(r, c)| math::convert_pair(&self.b, ty.dtype, place(r, c)[0], place(r, c + 1)[0]));
            let out = out.collect();
            return self.define(dst, out);
        }
        let out = slots
            .iter()
            .map(|(r, c)| math::apply(&self.b, op, from, ty.dtype, &place(r, c)));
        let out = out.collect::<Result<Vec<_>>>()?;
        self.define_scalars(dst, out)
    }
    /// Emits `columns < other` (or `<=`, or with the sides exchanged), where `other` is the same for all columns.
    ///
    /// The part of a column number that depends on the lane goes to the other side, once per row: what remains on this
    /// side are constants, which a comparison carries. Columns are not negative, so bounds below that may be raised to
    /// where nothing overflows.
    fn compare_columns(&mut self, dst: Val, strict: bool, columns_first: bool, columns: Val, other: Val) -> Result<()> {
        let (ty, layout) = (self.ty(dst)?, self.ty(columns)?.layout);
        let slots = Slots::of(&ty)?;
        let first = self.col_of_slot(layout, 0);
        let bounds = Slots::of(&self.ty(other)?)?;
        let least = self.b.c32(if columns_first == strict { 0 } else { -1 });
        let mut shifted = Vec::new();
        for bound in self.registers(other)?.iter() {
            let bound = bound.into_int_value();
            let below = self.b.icmp(IntPredicate::SLT, bound, least);
            shifted.push(self.b.sub(self.b.select_int(below, least, bound), first));
        }
        let predicate = match (columns_first, strict) {
            (true, true) => IntPredicate::SLT,
            (true, false) => IntPredicate::SLE,
            (false, true) => IntPredicate::SGT,
            (false, false) => IntPredicate::SGE,
        };
        let out = slots.iter().map(|(r, c)| {
            let column = self.b.c32(i64::from(constant_column(layout, c)));
            self.b.icmp(predicate, column, shifted[bounds.at(r, c)]).into()
        });
        let out = out.collect();
        self.define(dst, out)
    }
    /// Emits a constant.
    pub fn constant(&mut self, dst: Val, value: &Op) -> Result<()> {
        let ty = self.ty(dst)?;
        let one: Any<'c> = match (value, ty.dtype) {
            (Op::ConstF(x), Dtype::F32) => self.b.cf(*x).into(),
            (Op::ConstI(n), Dtype::I32) => self.b.c32(*n).into(),
            (Op::ConstI(n), Dtype::I64) => self.b.c64(*n).into(),
            (Op::ConstI(n), Dtype::Bool) => self.b.c1(*n != 0).into(),
            _ => return malformed(format!("a constant of type {}", ty.dtype.name())),
        };
        let count = Slots::of(&ty)?.count();
        self.define(dst, vec![one; count as usize])
    }
    /// Emits the reading of a scalar parameter.
    pub fn parameter(&mut self, dst: Val, p: drawloom_kernel::ir::ParamId) -> Result<()> {
        match self.args.get(p.index()) {
            Some(Arg::Scalar(v)) => self.define(dst, vec![*v]),
            Some(Arg::Tensor { .. }) | None => malformed(format!("{p} is no scalar")),
        }
    }
    /// Emits the row numbers of a fragment.
    pub fn row_iota(&mut self, dst: Val) -> Result<()> {
        let ty = self.ty(dst)?;
        let rows = Slots::of(&ty)?.rows;
        let out = (0..rows).map(|r| self.row_of_slot(ty.layout, r).into()).collect();
        self.define(dst, out)
    }
    /// Emits the column numbers of a fragment.
    pub fn col_iota(&mut self, dst: Val) -> Result<()> {
        let ty = self.ty(dst)?;
        let cols = Slots::of(&ty)?.cols;
        let out = (0..cols).map(|c| self.col_of_slot(ty.layout, c).into()).collect();
        self.define(dst, out)
    }
}

/// Checks that operands and result have the types that the operation wants.
fn check_types(op: MapOp, ty: &Frag, operands: &[Frag]) -> Result<()> {
    let from = operands[0].dtype;
    let good = match op {
        MapOp::Select => from == Dtype::Bool && operands[1..].iter().all(|t| t.dtype == ty.dtype),
        MapOp::Convert => true,
        MapOp::Lt | MapOp::Le | MapOp::Eq => ty.dtype == Dtype::Bool && operands.iter().all(|t| t.dtype == from),
        MapOp::Add
        | MapOp::Sub
        | MapOp::Mul
        | MapOp::Fma
        | MapOp::Min
        | MapOp::Max
        | MapOp::Div
        | MapOp::Rem
        | MapOp::Neg
        | MapOp::Abs
        | MapOp::Exp2
        | MapOp::Log2
        | MapOp::Rcp
        | MapOp::Rsqrt
        | MapOp::Sqrt
        | MapOp::Tanh
        | MapOp::And
        | MapOp::Or
        | MapOp::Not => operands.iter().all(|t| t.dtype == ty.dtype),
    };
    if good {
        Ok(())
    } else {
        malformed(format!("{op:?} of operands of the wrong types"))
    }
}
