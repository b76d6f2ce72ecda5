//! Arithmetic on one element: what each [`MapOp`] is in instructions.
//!
//! Floats are flushed (`ftz`) and rounded once per operation; products and sums are contracted only where the program
//! says [`MapOp::Fma`]. No operation assumes that its operands are finite.

use drawloom_kernel::ir::{Dtype, MapOp};
use inkwell::{FloatPredicate, IntPredicate};

use crate::asm;
use crate::build::{Any, Build, Float, Int};
use crate::error::{Result, malformed};

/// `tanh(x) = 1 - 2 / (2^(x * TANH_SCALE) + 1)`.
const TANH_SCALE: f32 = 2.0 * std::f32::consts::LOG2_E;
/// Below this magnitude `tanh` is its polynomial, above it the fraction, whose absolute error is below 2^-21.
const TANH_SMALL: f32 = 0.5;
/// `tanh(x) = x + x^3 * p(x^2)` for `|x| <= TANH_SMALL`, highest power first: the polynomial of least greatest relative
/// error (2^-20.6), by Lawson's iteration. With `ex2.approx` and `rcp.approx` at their documented bounds, the whole is
/// within 0.95 of the error allowed.
const TANH_POLYNOMIAL: [f32; 3] = [-0.044_750_64, 0.132_053_6, -0.333_281_6];

fn int<'c>(a: Any<'c>) -> Int<'c> {
    a.into_int_value()
}
fn float<'c>(a: Any<'c>) -> Float<'c> {
    a.into_float_value()
}

/// The number of operands of an operation.
pub(crate) fn arity(op: MapOp) -> usize {
    match op {
        MapOp::Neg
        | MapOp::Abs
        | MapOp::Exp2
        | MapOp::Log2
        | MapOp::Rcp
        | MapOp::Rsqrt
        | MapOp::Sqrt
        | MapOp::Tanh
        | MapOp::Convert
        | MapOp::Not => 1,
        MapOp::Add
        | MapOp::Sub
        | MapOp::Mul
        | MapOp::Min
        | MapOp::Max
        | MapOp::Div
        | MapOp::Rem
        | MapOp::Lt
        | MapOp::Le
        | MapOp::Eq
        | MapOp::And
        | MapOp::Or => 2,
        MapOp::Fma | MapOp::Select => 3,
    }
}

/// One element of an elementwise operation whose (first) operand is of type `from` and whose result is of type `to`.
pub(crate) fn apply<'c>(b: &Build<'c>, op: MapOp, from: Dtype, to: Dtype, a: &[Any<'c>]) -> Result<Any<'c>> {
    match op {
        MapOp::Select => return Ok(b.select(int(a[0]), a[1], a[2])),
        MapOp::Convert => return convert(b, from, to, a[0]),
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
        | MapOp::Lt
        | MapOp::Le
        | MapOp::Eq
        | MapOp::And
        | MapOp::Or
        | MapOp::Not => {}
    }
    match from {
        Dtype::F32 => on_floats(b, op, &a.iter().map(|v| float(*v)).collect::<Vec<_>>()),
        Dtype::I32 | Dtype::I64 => on_ints(b, op, &a.iter().map(|v| int(*v)).collect::<Vec<_>>()),
        Dtype::Bool => on_bools(b, op, &a.iter().map(|v| int(*v)).collect::<Vec<_>>()),
        Dtype::F16 | Dtype::Bf16 => malformed(format!("{op:?} of {}", from.name())),
    }
}

fn on_floats<'c>(b: &Build<'c>, op: MapOp, a: &[Float<'c>]) -> Result<Any<'c>> {
    Ok(match op {
        MapOp::Add => b.fadd(a[0], a[1]).into(),
        MapOp::Sub => b.fsub(a[0], a[1]).into(),
        MapOp::Mul => b.fmul(a[0], a[1]).into(),
        MapOp::Fma => fma(b, a[0], a[1], a[2]).into(),
        MapOp::Min => b.call("llvm.nvvm.fmin.ftz.f", &[], &[a[0].into(), a[1].into()]),
        MapOp::Max => max(b, a[0], a[1]).into(),
        MapOp::Div => b.fmul(a[0], unary(b, "llvm.nvvm.rcp.approx.ftz.f", a[1])).into(),
        MapOp::Neg => b.fneg(a[0]).into(),
        MapOp::Abs => b.call("llvm.fabs", &[b.f32().into()], &[a[0].into()]),
        MapOp::Exp2 => exp2(b, a[0]).into(),
        MapOp::Log2 => unary(b, "llvm.nvvm.lg2.approx.ftz.f", a[0]).into(),
        MapOp::Rcp => unary(b, "llvm.nvvm.rcp.approx.ftz.f", a[0]).into(),
        MapOp::Rsqrt => unary(b, "llvm.nvvm.rsqrt.approx.ftz.f", a[0]).into(),
        MapOp::Sqrt => unary(b, "llvm.nvvm.sqrt.approx.ftz.f", a[0]).into(),
        MapOp::Tanh => tanh(b, a[0]).into(),
        MapOp::Lt => b.fcmp(FloatPredicate::OLT, a[0], a[1]).into(),
        MapOp::Le => b.fcmp(FloatPredicate::OLE, a[0], a[1]).into(),
        MapOp::Eq => b.fcmp(FloatPredicate::OEQ, a[0], a[1]).into(),
        MapOp::Rem | MapOp::Convert | MapOp::And | MapOp::Or | MapOp::Not | MapOp::Select => {
            return malformed(format!("{op:?} of f32"));
        }
    })
}

fn on_ints<'c>(b: &Build<'c>, op: MapOp, a: &[Int<'c>]) -> Result<Any<'c>> {
    Ok(match op {
        MapOp::Add => b.add(a[0], a[1]),
        MapOp::Sub => b.sub(a[0], a[1]),
        MapOp::Mul => b.mul(a[0], a[1]),
        MapOp::Fma => b.add(b.mul(a[0], a[1]), a[2]),
        MapOp::Min => b.select_int(b.icmp(IntPredicate::SLT, a[0], a[1]), a[0], a[1]),
        MapOp::Max => b.select_int(b.icmp(IntPredicate::SGT, a[0], a[1]), a[0], a[1]),
        MapOp::Div => floor_div(b, a[0], a[1]),
        MapOp::Rem => floor_rem(b, a[0], a[1]),
        MapOp::Neg => b.sub(a[0].get_type().const_zero(), a[0]),
        MapOp::Abs => {
            let zero = a[0].get_type().const_zero();
            b.select_int(b.icmp(IntPredicate::SLT, a[0], zero), b.sub(zero, a[0]), a[0])
        }
        MapOp::Lt => b.icmp(IntPredicate::SLT, a[0], a[1]),
        MapOp::Le => b.icmp(IntPredicate::SLE, a[0], a[1]),
        MapOp::Eq => b.icmp(IntPredicate::EQ, a[0], a[1]),
        MapOp::Exp2
        | MapOp::Log2
        | MapOp::Rcp
        | MapOp::Rsqrt
        | MapOp::Sqrt
        | MapOp::Tanh
        | MapOp::Convert
        | MapOp::And
        | MapOp::Or
        | MapOp::Not
        | MapOp::Select => return malformed(format!("{op:?} of integers")),
    }
    .into())
}

fn on_bools<'c>(b: &Build<'c>, op: MapOp, a: &[Int<'c>]) -> Result<Any<'c>> {
    Ok(match op {
        MapOp::And => asm::and(b, a[0], a[1]),
        MapOp::Or => b.or(a[0], a[1]),
        MapOp::Not => b.not(a[0]),
        MapOp::Eq => b.icmp(IntPredicate::EQ, a[0], a[1]),
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
        | MapOp::Convert
        | MapOp::Lt
        | MapOp::Le
        | MapOp::Select => return malformed(format!("{op:?} of predicates")),
    }
    .into())
}

fn unary<'c>(b: &Build<'c>, name: &str, a: Float<'c>) -> Float<'c> {
    float(b.call(name, &[], &[a.into()]))
}
fn exp2<'c>(b: &Build<'c>, a: Float<'c>) -> Float<'c> {
    float(b.call("llvm.nvvm.ex2.approx.ftz", &[b.f32().into()], &[a.into()]))
}
pub(crate) fn fma<'c>(b: &Build<'c>, x: Float<'c>, y: Float<'c>, z: Float<'c>) -> Float<'c> {
    float(b.call("llvm.nvvm.fma.rn.ftz.f", &[], &[x.into(), y.into(), z.into()]))
}
/// The larger; NaN loses.
pub(crate) fn max<'c>(b: &Build<'c>, x: Float<'c>, y: Float<'c>) -> Float<'c> {
    float(b.call("llvm.nvvm.fmax.ftz.f", &[], &[x.into(), y.into()]))
}

/// `tanh`, without a branch: two MUFU operations and ten others.
fn tanh<'c>(b: &Build<'c>, x: Float<'c>) -> Float<'c> {
    let e = exp2(b, b.fmul(x, b.cf(TANH_SCALE)));
    let r = unary(b, "llvm.nvvm.rcp.approx.ftz.f", b.fadd(e, b.cf(1.0)));
    let large = fma(b, r, b.cf(-2.0), b.cf(1.0));
    let square = b.fmul(x, x);
    let [p3, p2, p1] = TANH_POLYNOMIAL.map(|p| b.cf(p));
    let p = fma(b, fma(b, p3, square, p2), square, p1);
    let small = fma(b, b.fmul(x, square), p, x);
    let size = float(b.call("llvm.fabs", &[b.f32().into()], &[x.into()]));
    let is_small = b.fcmp(FloatPredicate::OLT, size, b.cf(TANH_SMALL));
    float(b.select(is_small, small.into(), large.into()))
}

/// The exponent of a constant power of two.
fn constant_log2(v: Int<'_>) -> Option<u32> {
    let n = v.get_sign_extended_constant()?;
    (n > 0 && n & (n - 1) == 0).then(|| n.trailing_zeros())
}
/// `a / b` rounded down, `b > 0`.
pub(crate) fn floor_div<'c>(b: &Build<'c>, a: Int<'c>, by: Int<'c>) -> Int<'c> {
    if let Some(n) = constant_log2(by) {
        return b.ashr(a, n);
    }
    let q = b.sdiv(a, by);
    let below = b.icmp(IntPredicate::SLT, b.sub(a, b.mul(q, by)), a.get_type().const_zero());
    b.select_int(below, b.sub(q, a.get_type().const_int(1, false)), q)
}
/// `a - b * floor_div(a, b)`.
pub(crate) fn floor_rem<'c>(b: &Build<'c>, a: Int<'c>, by: Int<'c>) -> Int<'c> {
    if let Some(n) = constant_log2(by) {
        return b.and(a, a.get_type().const_int((1u64 << n) - 1, false));
    }
    let r = b.srem(a, by);
    let below = b.icmp(IntPredicate::SLT, r, a.get_type().const_zero());
    b.select_int(below, b.add(r, by), r)
}

/// One element in another type.
fn convert<'c>(b: &Build<'c>, from: Dtype, to: Dtype, a: Any<'c>) -> Result<Any<'c>> {
    if from == to {
        return Ok(a);
    }
    Ok(match (from, to) {
        (Dtype::F32, Dtype::F16) => b.ftrunc(float(a), b.ctx.f16_type()).into(),
        (Dtype::F32, Dtype::Bf16) => b.ftrunc(float(a), b.ctx.bf16_type()).into(),
        (Dtype::F32, Dtype::I32) => b.call("llvm.nvvm.f2i.rz.ftz", &[], &[a]),
        (Dtype::F32, Dtype::I64) => b.call("llvm.nvvm.f2ll.rz.ftz", &[], &[a]),
        (Dtype::F16 | Dtype::Bf16, Dtype::F32) => b.fext(float(a)).into(),
        (Dtype::F16 | Dtype::Bf16, Dtype::F16 | Dtype::Bf16 | Dtype::I32 | Dtype::I64) => {
            convert(b, Dtype::F32, to, b.fext(float(a)).into())?
        }
        (Dtype::I32 | Dtype::I64, Dtype::F32) => b.int_to_float(int(a)).into(),
        (Dtype::I32 | Dtype::I64, Dtype::F16 | Dtype::Bf16) => {
            convert(b, Dtype::F32, to, b.int_to_float(int(a)).into())?
        }
        (Dtype::I32, Dtype::I64) => b.sext(int(a), b.i64()).into(),
        (Dtype::I64, Dtype::I32) => b.trunc(int(a), b.i32()).into(),
        (Dtype::Bool, Dtype::I32) => b.zext(int(a), b.i32()).into(),
        (Dtype::Bool, Dtype::I64) => b.zext(int(a), b.i64()).into(),
        (Dtype::Bool, Dtype::F32) => b.select(int(a), b.cf(1.0).into(), b.cf(0.0).into()),
        (Dtype::Bool, Dtype::F16 | Dtype::Bf16)
        | (Dtype::F16 | Dtype::Bf16 | Dtype::F32 | Dtype::I32 | Dtype::I64, Dtype::Bool)
        | (Dtype::F32, Dtype::F32)
        | (Dtype::I32, Dtype::I32)
        | (Dtype::I64, Dtype::I64)
        | (Dtype::Bool, Dtype::Bool) => {
            return malformed(format!("conversion of {} to {}", from.name(), to.name()));
        }
    })
}

/// Two floats rounded to a pair of 16-bit elements in one register, `low` in the low half.
pub(crate) fn convert_pair<'c>(b: &Build<'c>, to: Dtype, low: Any<'c>, high: Any<'c>) -> Any<'c> {
    let name = if to == Dtype::Bf16 {
        "llvm.nvvm.ff2bf16x2.rn"
    } else {
        "llvm.nvvm.ff2f16x2.rn"
    };
    let pair = b.call(name, &[], &[high, low]);
    b.bitcast(pair, b.i32().into())
}
