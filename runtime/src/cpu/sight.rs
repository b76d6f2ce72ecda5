//! Whether a block of rows sees a block of keys: the mask's own program, run on the ranges of its indices.
//!
//! Integers are spans, truth values are known or not, and reals are not looked at. So a block that no row can see costs
//! neither a product nor the reading of its keys, and one that every row sees whole costs no mask. Indices read from a
//! table have the span of what stands there, which finds the blocks between sorted documents.

use super::lanes::{floor_div, floor_rem};
use super::program::{Instruction, LANES, Op, Reg, Source};
use drawloom_lang::spec::{BinaryOp, UnaryOp};

/// What a block of rows sees of a block of keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sight {
    /// No row sees a key.
    Nothing,
    /// Every row sees every key.
    Everything,
    /// The mask must be asked for each.
    Something,
}

/// The first and last value of an integer; `None` for any.
type Span = Option<(i64, i64)>;

/// The registers of a program, as far as they are known for a whole block.
pub(super) struct Spans {
    ints: Vec<Span>,
    bools: Vec<Option<bool>>,
}

impl Spans {
    /// So many reals, integers and truth values.
    pub(super) fn new([_, ints, bools]: [usize; 3]) -> Spans {
        Spans {
            ints: vec![None; ints],
            bools: vec![None; bools],
        }
    }

    /// What the register of a mask says.
    pub(super) fn sight(&self, mask: usize) -> Sight {
        match self.bools[mask] {
            Some(true) => Sight::Everything,
            Some(false) => Sight::Nothing,
            None => Sight::Something,
        }
    }

    /// Runs instructions.
    pub(super) fn run(&mut self, instructions: &[Instruction], source: &dyn Source) {
        for Instruction { op, to } in instructions {
            match *to {
                Reg::Real(_) => {}
                Reg::Int(to) => self.ints[to] = self.int(op, source),
                Reg::Bool(to) => self.bools[to] = self.truth(op),
            }
        }
    }

    fn int(&self, op: &Op, source: &dyn Source) -> Span {
        let at = |reg: &Reg| match reg {
            Reg::Int(reg) => self.ints[*reg],
            Reg::Real(_) | Reg::Bool(_) => None,
        };
        let one = |value: i64| Some((value, value));
        match op {
            Op::Int(value) => one(*value),
            Op::Index(axis) => Some(source.span(*axis)),
            Op::Len(axis) => one(source.len(*axis)),
            Op::Scalar(scalar) => one(source.scalar(*scalar).1),
            Op::Load { input, at } => {
                let spans: Option<Vec<(i64, i64)>> = at.iter().map(|index| self.ints[*index]).collect();
                read(&spans?, |at| source.load_int(*input, at))
            }
            Op::Unary(UnaryOp::Neg, a) => {
                let (low, high) = at(a)?;
                Some((high.checked_neg()?, low.checked_neg()?))
            }
            Op::Unary(UnaryOp::Abs, a) => {
                let (low, high) = at(a)?;
                let (x, y) = (low.checked_abs()?, high.checked_abs()?);
                Some((if low <= 0 && high >= 0 { 0 } else { x.min(y) }, x.max(y)))
            }
            Op::Binary(op, a, b) => binary(op, at(a)?, at(b)?),
            Op::Select(c, a, b) => match self.bools[*c] {
                Some(true) => at(a),
                Some(false) => at(b),
                None => {
                    let ((a, b), (c, d)) = (at(a)?, at(b)?);
                    Some((a.min(c), b.max(d)))
                }
            },
            Op::Unary(..) | Op::Real(_) | Op::Bool(_) | Op::Dot(_) => None,
        }
    }

    fn truth(&self, op: &Op) -> Option<bool> {
        match op {
            Op::Bool(value) => Some(*value),
            Op::Unary(UnaryOp::Not, Reg::Bool(a)) => self.bools[*a].map(|a| !a),
            Op::Binary(op, Reg::Int(a), Reg::Int(b)) => compare(op, self.ints[*a]?, self.ints[*b]?),
            Op::Binary(op, Reg::Bool(a), Reg::Bool(b)) => match (op, self.bools[*a], self.bools[*b]) {
                (BinaryOp::And, Some(false), _) | (BinaryOp::And, _, Some(false)) => Some(false),
                (BinaryOp::Or, Some(true), _) | (BinaryOp::Or, _, Some(true)) => Some(true),
                (BinaryOp::And, Some(true), Some(true)) => Some(true),
                (BinaryOp::Or, Some(false), Some(false)) => Some(false),
                (BinaryOp::Eq, Some(a), Some(b)) => Some(a == b),
                (BinaryOp::Ne, Some(a), Some(b)) => Some(a != b),
                _ => None,
            },
            Op::Select(c, Reg::Bool(a), Reg::Bool(b)) => match self.bools[*c] {
                Some(true) => self.bools[*a],
                Some(false) => self.bools[*b],
                None => self.bools[*a].filter(|a| self.bools[*b] == Some(*a)),
            },
            _ => None,
        }
    }
}

/// The span of what a table holds within spans of its indices, if those are not many.
fn read(spans: &[(i64, i64)], load: impl Fn(&mut dyn Iterator<Item = i64>) -> Option<i64>) -> Span {
    let mut count = 1i64;
    for (low, high) in spans {
        count = count.checked_mul(high.checked_sub(*low)?.checked_add(1)?)?;
    }
    if count > 2 * LANES as i64 {
        return None;
    }
    let mut span: Span = None;
    for number in 0..count {
        let mut rest = number;
        let mut at = spans.iter().map(|(low, high)| {
            let size = high - low + 1;
            let index = low + rest % size;
            rest /= size;
            index
        });
        let value = load(&mut at).unwrap_or(0);
        let (low, high) = span.unwrap_or((value, value));
        span = Some((low.min(value), high.max(value)));
    }
    span
}

fn binary(op: &BinaryOp, (a, b): (i64, i64), (c, d): (i64, i64)) -> Span {
    let corners = |f: &dyn Fn(i64, i64) -> Option<i64>| {
        let all = [f(a, c)?, f(a, d)?, f(b, c)?, f(b, d)?];
        Some((all.into_iter().min()?, all.into_iter().max()?))
    };
    match op {
        BinaryOp::Add => Some((a.checked_add(c)?, b.checked_add(d)?)),
        BinaryOp::Sub => Some((a.checked_sub(d)?, b.checked_sub(c)?)),
        BinaryOp::Mul => corners(&i64::checked_mul),
        BinaryOp::Min => Some((a.min(c), b.min(d))),
        BinaryOp::Max => Some((a.max(c), b.max(d))),
        // A quotient rises or falls with each operand as long as the divisor keeps its sign.
        BinaryOp::Div if c > 0 => corners(&|x, y| Some(floor_div(x, y))),
        BinaryOp::Rem if c == d && c > 0 => match floor_div(a, c) == floor_div(b, c) {
            true => Some((floor_rem(a, c), floor_rem(b, c))),
            false => Some((0, c - 1)),
        },
        _ => None,
    }
}

fn compare(op: &BinaryOp, (a, b): (i64, i64), (c, d): (i64, i64)) -> Option<bool> {
    let known = |always: bool, never: bool| (always || never).then_some(always);
    match op {
        BinaryOp::Lt => known(b < c, a >= d),
        BinaryOp::Le => known(b <= c, a > d),
        BinaryOp::Gt => known(a > d, b <= c),
        BinaryOp::Ge => known(a >= d, b < c),
        BinaryOp::Eq => known(a == b && c == d && a == c, b < c || d < a),
        BinaryOp::Ne => known(b < c || d < a, a == b && c == d && a == c),
        _ => None,
    }
}
