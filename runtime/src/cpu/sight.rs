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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::program::compile;
    use crate::operator::Operator;
    use drawloom_lang::spec::{AxisId, InputId, ScalarId, Stage};

    /// Rows and keys from here, so many, with documents of seven tokens.
    struct Block {
        rows: (i64, i64),
        keys: (i64, i64),
    }

    const LENGTH: i64 = 60;

    impl Source for Block {
        fn index(&self, _: AxisId) -> i64 {
            self.rows.0
        }
        fn lanes(&self, axis: AxisId) -> Option<i64> {
            (axis == AxisId(1)).then_some(self.keys.0)
        }
        fn span(&self, axis: AxisId) -> (i64, i64) {
            let (first, count) = if axis == AxisId(1) { self.keys } else { self.rows };
            (first, first + count - 1)
        }
        fn len(&self, _: AxisId) -> i64 {
            LENGTH
        }
        fn scalar(&self, _: ScalarId) -> (f32, i64) {
            (9.0, 9)
        }
        fn load_real(&self, _: InputId, _: &mut dyn Iterator<Item = i64>) -> Option<f32> {
            None
        }
        fn load_int(&self, _: InputId, at: &mut dyn Iterator<Item = i64>) -> Option<i64> {
            at.next().filter(|at| (0..LENGTH).contains(at)).map(|at| at / 7)
        }
        fn dot(&self, _: usize, _: &mut [f32]) {}
    }

    fn operator(mask: &str) -> Operator {
        let text = format!(
            "attention masked {{
                axis i: query(start), j: key, d = 16;
                input q: f16[i, d], k: f16[j, d], v: f16[j, d], doc: i32[j];
                scalar w: i32;
                attend o over j in (k, v) {{ score = dot(q, k) + doc[j] * w; mask = {mask}; norm = softmax; }}
                output o: f16[i, d];
            }}"
        );
        let mut specs = drawloom_lang::parse_str("masked", &text).unwrap_or_else(|errors| panic!("{errors}"));
        Operator::new(specs.remove(0)).expect("it has few axes")
    }

    fn sight(operator: &Operator, rows: (i64, i64), keys: (i64, i64)) -> Sight {
        let Stage::Attend(attend) = &operator.spec().stages[0];
        compile(operator, attend.score, attend.mask, attend.key).sight(&Block { rows, keys })
    }

    /// What is said of a block is true of each of its points, and where `told` the block is not left open for nothing.
    fn check(mask: &str, told: bool) {
        let operator = operator(mask);
        for (rows, keys) in [(0, 0), (8, 0), (16, 24), (40, 8), (32, 32), (52, 52)].map(|(i, j)| ((i, 8), (j, 8))) {
            let found = sight(&operator, rows, keys);
            let points = (rows.0..rows.0 + 8).flat_map(|i| (keys.0..keys.0 + 8).map(move |j| ((i, 1), (j, 1))));
            let points: Vec<Sight> = points.map(|(i, j)| sight(&operator, i, j)).collect();
            let seen = points.iter().filter(|point| **point == Sight::Everything).count();
            assert!(!points.contains(&Sight::Something), "{mask}: a point is open");
            let exact = match seen {
                0 => Sight::Nothing,
                64 => Sight::Everything,
                _ => Sight::Something,
            };
            let open = !told && found == Sight::Something;
            assert!(
                found == exact || open,
                "{mask} at {rows:?}, {keys:?}: {found:?}, but {exact:?}"
            );
        }
    }

    #[test]
    fn blocks_of_plain_masks_are_told_apart() {
        for mask in [
            "causal",
            "window(left = 6)",
            "window(left = 20, right = 4)",
            "sink(10)",
            "i / 8 == j / 8",
        ] {
            check(mask, true);
        }
        for mask in [
            "causal && (window(left = 9) || sink(3))",
            "!(j <= i) || j < w",
            "same(doc)",
            "min(i, j) >= 8",
        ] {
            check(mask, true);
        }
    }

    #[test]
    fn blocks_of_other_masks_are_open_and_never_wrong() {
        for mask in [
            "i * j % 5 == 2",
            "abs(i - j) % 3 == 0",
            "if i > 20 { j % 2 == 0 } else { j > i }",
        ] {
            check(mask, false);
        }
        for mask in [
            "(i - j) / 3 * 2 < w",
            "max(i - j, j - i) > 30",
            "i % 16 < 8 && j % 16 >= 8",
        ] {
            check(mask, false);
        }
    }
}
