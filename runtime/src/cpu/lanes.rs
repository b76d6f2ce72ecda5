//! Running a program's instructions over a block's lanes.

use super::program::{Instruction, LANES, Op, Reg, Source};
use super::vector::{Loops, exp, tanh, vectorised};
use drawloom_lang::spec::{BinaryOp, UnaryOp};

/// The registers of one worker.
pub struct Registers {
    pub(super) reals: Vec<f32>,
    ints: Vec<i64>,
    pub(super) bools: Vec<bool>,
}

/// The register `to` for writing and those below it for reading.
#[inline(always)]
fn target<T>(registers: &mut [T], to: usize, count: usize) -> (&[T], &mut [T]) {
    let (below, rest) = registers.split_at_mut(to * LANES);
    (below, &mut rest[..count])
}

#[inline(always)]
fn read<T>(below: &[T], register: usize, count: usize) -> &[T] {
    &below[register * LANES..register * LANES + count]
}

#[inline(always)]
fn map1<A: Copy, R>(a: &[A], to: &mut [R], f: impl Fn(A) -> R) {
    for (to, a) in to.iter_mut().zip(a) {
        *to = f(*a);
    }
}

#[inline(always)]
fn map2<A: Copy, R>(a: &[A], b: &[A], to: &mut [R], f: impl Fn(A, A) -> R) {
    for ((to, a), b) in to.iter_mut().zip(a).zip(b) {
        *to = f(*a, *b);
    }
}

#[inline(always)]
fn select<T: Copy>(c: &[bool], a: &[T], b: &[T], to: &mut [T]) {
    for (((to, c), a), b) in to.iter_mut().zip(c).zip(a).zip(b) {
        *to = if *c { *a } else { *b };
    }
}

/// Quotient rounded down; 0 for a zero divisor.
pub(crate) fn floor_div(a: i64, b: i64) -> i64 {
    if b == 0 {
        return 0;
    }
    let quotient = a.wrapping_div(b);
    if a.wrapping_rem(b) != 0 && (a < 0) != (b < 0) {
        quotient - 1
    } else {
        quotient
    }
}

/// Remainder with the sign of the divisor; 0 for a zero divisor.
pub(crate) fn floor_rem(a: i64, b: i64) -> i64 {
    if b == 0 {
        return 0;
    }
    let remainder = a.wrapping_rem(b);
    if remainder != 0 && (remainder < 0) != (b < 0) {
        remainder + b
    } else {
        remainder
    }
}

/// Instructions to run on the first `count` lanes.
struct Run<'r> {
    registers: &'r mut Registers,
    instructions: &'r [Instruction],
    source: &'r dyn Source,
    count: usize,
}

impl Loops for Run<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FUSED: bool>(self) {
        let Run {
            registers,
            instructions,
            source,
            count,
        } = self;
        for Instruction { op, to } in instructions {
            match *to {
                Reg::Real(to) => registers.run_real::<FUSED>(op, to, source, count),
                Reg::Int(to) => registers.run_int(op, to, source, count),
                Reg::Bool(to) => registers.run_bool(op, to, count),
            }
        }
    }
}

impl Registers {
    /// So many reals, integers and truth values.
    pub(super) fn new([reals, ints, bools]: [usize; 3]) -> Registers {
        Registers {
            reals: vec![0.0; reals * LANES],
            ints: vec![0; ints * LANES],
            bools: vec![false; bools * LANES],
        }
    }

    /// Runs instructions on the first `count` lanes.
    pub(super) fn run(&mut self, instructions: &[Instruction], source: &dyn Source, count: usize) {
        vectorised(Run {
            registers: self,
            instructions,
            source,
            count,
        });
    }

    #[inline(always)]
    fn run_real<const FUSED: bool>(&mut self, op: &Op, to: usize, source: &dyn Source, count: usize) {
        let ints = &self.ints;
        let (below, out) = target(&mut self.reals, to, count);
        match op {
            Op::Real(value) => out.fill(*value),
            Op::Scalar(scalar) => out.fill(source.scalar(*scalar).0),
            Op::Load { input, at } => {
                for (lane, out) in out.iter_mut().enumerate() {
                    let mut at = at.iter().map(|index| ints[index * LANES + lane]);
                    *out = source.load_real(*input, &mut at).unwrap_or(0.0);
                }
            }
            Op::Dot(dot) => source.dot(*dot, out),
            Op::Unary(UnaryOp::ToReal, Reg::Int(a)) => map1(read(ints, *a, count), out, |a| a as f32),
            Op::Unary(op, Reg::Real(a)) => {
                let a = read(below, *a, count);
                match op {
                    UnaryOp::Neg => map1(a, out, |a| -a),
                    UnaryOp::Abs => map1(a, out, f32::abs),
                    UnaryOp::Exp => map1(a, out, exp::<FUSED>),
                    UnaryOp::Log => map1(a, out, f32::ln),
                    UnaryOp::Tanh => map1(a, out, tanh::<FUSED>),
                    UnaryOp::Sqrt => map1(a, out, f32::sqrt),
                    UnaryOp::Rsqrt => map1(a, out, |a| 1.0 / a.sqrt()),
                    UnaryOp::Not | UnaryOp::ToReal => map1(a, out, |a| a),
                }
            }
            Op::Binary(op, Reg::Real(a), Reg::Real(b)) => {
                let (a, b) = (read(below, *a, count), read(below, *b, count));
                match op {
                    BinaryOp::Add => map2(a, b, out, |a, b| a + b),
                    BinaryOp::Sub => map2(a, b, out, |a, b| a - b),
                    BinaryOp::Mul => map2(a, b, out, |a, b| a * b),
                    BinaryOp::Div => map2(a, b, out, |a, b| a / b),
                    BinaryOp::Rem => map2(a, b, out, |a, b| a - b * (a / b).floor()),
                    BinaryOp::Min => map2(a, b, out, f32::min),
                    BinaryOp::Max => map2(a, b, out, f32::max),
                    BinaryOp::Lt
                    | BinaryOp::Le
                    | BinaryOp::Gt
                    | BinaryOp::Ge
                    | BinaryOp::Eq
                    | BinaryOp::Ne
                    | BinaryOp::And
                    | BinaryOp::Or => ill_typed(op),
                }
            }
            Op::Select(c, Reg::Real(a), Reg::Real(b)) => {
                select(
                    read(&self.bools, *c, count),
                    read(below, *a, count),
                    read(below, *b, count),
                    out,
                );
            }
            Op::Int(_) | Op::Bool(_) | Op::Index(_) | Op::Len(_) | Op::Unary(..) | Op::Binary(..) | Op::Select(..) => {
                ill_typed(op)
            }
        }
    }

    #[inline(always)]
    fn run_int(&mut self, op: &Op, to: usize, source: &dyn Source, count: usize) {
        let (below, out) = target(&mut self.ints, to, count);
        match op {
            Op::Int(value) => out.fill(*value),
            Op::Index(axis) => match source.lanes(*axis) {
                Some(first) => out.iter_mut().zip(first..).for_each(|(out, index)| *out = index),
                None => out.fill(source.index(*axis)),
            },
            Op::Len(axis) => out.fill(source.len(*axis)),
            Op::Scalar(scalar) => out.fill(source.scalar(*scalar).1),
            Op::Load { input, at } => {
                for (lane, out) in out.iter_mut().enumerate() {
                    let mut at = at.iter().map(|index| below[index * LANES + lane]);
                    *out = source.load_int(*input, &mut at).unwrap_or(0);
                }
            }
            Op::Unary(op, Reg::Int(a)) => {
                let a = read(below, *a, count);
                match op {
                    UnaryOp::Neg => map1(a, out, i64::wrapping_neg),
                    UnaryOp::Abs => map1(a, out, i64::wrapping_abs),
                    UnaryOp::Not
                    | UnaryOp::Exp
                    | UnaryOp::Log
                    | UnaryOp::Tanh
                    | UnaryOp::Sqrt
                    | UnaryOp::Rsqrt
                    | UnaryOp::ToReal => ill_typed(op),
                }
            }
            Op::Binary(op, Reg::Int(a), Reg::Int(b)) => {
                let (a, b) = (read(below, *a, count), read(below, *b, count));
                match op {
                    BinaryOp::Add => map2(a, b, out, i64::wrapping_add),
                    BinaryOp::Sub => map2(a, b, out, i64::wrapping_sub),
                    BinaryOp::Mul => map2(a, b, out, i64::wrapping_mul),
                    BinaryOp::Div => map2(a, b, out, floor_div),
                    BinaryOp::Rem => map2(a, b, out, floor_rem),
                    BinaryOp::Min => map2(a, b, out, i64::min),
                    BinaryOp::Max => map2(a, b, out, i64::max),
                    BinaryOp::Lt
                    | BinaryOp::Le
                    | BinaryOp::Gt
                    | BinaryOp::Ge
                    | BinaryOp::Eq
                    | BinaryOp::Ne
                    | BinaryOp::And
                    | BinaryOp::Or => ill_typed(op),
                }
            }
            Op::Select(c, Reg::Int(a), Reg::Int(b)) => {
                select(
                    read(&self.bools, *c, count),
                    read(below, *a, count),
                    read(below, *b, count),
                    out,
                );
            }
            Op::Real(_) | Op::Bool(_) | Op::Dot(_) | Op::Unary(..) | Op::Binary(..) | Op::Select(..) => ill_typed(op),
        }
    }

    #[inline(always)]
    fn run_bool(&mut self, op: &Op, to: usize, count: usize) {
        let (below, out) = target(&mut self.bools, to, count);
        match op {
            Op::Bool(value) => out.fill(*value),
            Op::Unary(UnaryOp::Not, Reg::Bool(a)) => map1(read(below, *a, count), out, |a| !a),
            Op::Binary(op, Reg::Real(a), Reg::Real(b)) => {
                compare(op, read(&self.reals, *a, count), read(&self.reals, *b, count), out);
            }
            Op::Binary(op, Reg::Int(a), Reg::Int(b)) => {
                compare(op, read(&self.ints, *a, count), read(&self.ints, *b, count), out);
            }
            Op::Binary(op, Reg::Bool(a), Reg::Bool(b)) => {
                let (a, b) = (read(below, *a, count), read(below, *b, count));
                match op {
                    BinaryOp::And => map2(a, b, out, |a, b| a & b),
                    BinaryOp::Or => map2(a, b, out, |a, b| a | b),
                    BinaryOp::Eq => map2(a, b, out, |a, b| a == b),
                    BinaryOp::Ne => map2(a, b, out, |a, b| a != b),
                    BinaryOp::Add
                    | BinaryOp::Sub
                    | BinaryOp::Mul
                    | BinaryOp::Div
                    | BinaryOp::Rem
                    | BinaryOp::Min
                    | BinaryOp::Max
                    | BinaryOp::Lt
                    | BinaryOp::Le
                    | BinaryOp::Gt
                    | BinaryOp::Ge => ill_typed(op),
                }
            }
            Op::Select(c, Reg::Bool(a), Reg::Bool(b)) => {
                select(
                    read(below, *c, count),
                    read(below, *a, count),
                    read(below, *b, count),
                    out,
                );
            }
            Op::Real(_)
            | Op::Int(_)
            | Op::Index(_)
            | Op::Len(_)
            | Op::Scalar(_)
            | Op::Load { .. }
            | Op::Dot(_)
            | Op::Unary(..)
            | Op::Binary(..)
            | Op::Select(..) => ill_typed(op),
        }
    }
}

#[inline(always)]
fn compare<T: Copy + PartialOrd>(op: &BinaryOp, a: &[T], b: &[T], out: &mut [bool]) {
    match op {
        BinaryOp::Lt => map2(a, b, out, |a, b| a < b),
        BinaryOp::Le => map2(a, b, out, |a, b| a <= b),
        BinaryOp::Gt => map2(a, b, out, |a, b| a > b),
        BinaryOp::Ge => map2(a, b, out, |a, b| a >= b),
        BinaryOp::Eq => map2(a, b, out, |a, b| a == b),
        BinaryOp::Ne => map2(a, b, out, |a, b| a != b),
        BinaryOp::Add
        | BinaryOp::Sub
        | BinaryOp::Mul
        | BinaryOp::Div
        | BinaryOp::Rem
        | BinaryOp::Min
        | BinaryOp::Max
        | BinaryOp::And
        | BinaryOp::Or => ill_typed(op),
    }
}

/// An instruction whose operands do not fit its result: excluded by the checker, from which every [`Spec`] comes.
fn ill_typed(op: &impl std::fmt::Debug) {
    debug_assert!(false, "invariant: a checked spec is well typed, but {op:?} is not");
}
