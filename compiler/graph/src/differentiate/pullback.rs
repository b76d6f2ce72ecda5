//! The derivative of each operation: from the adjoint of its result to those of its operands.

use super::Maker;
use crate::build::Builder;
use crate::ir::{Axis, Binary, Op, Reduce, Unary, Val};

impl Maker<'_> {
    /// What the needed operands of an operation receive from the adjoint `d` of its result `y`, with their numbers.
    pub(super) fn pullback(&mut self, op: &Op, y: Val, d: Val, need: &[bool]) -> Vec<(usize, Val)> {
        let space = self.b.axes(y).to_vec();
        let mut parts: Vec<(usize, Val)> = Vec::new();
        match op {
            Op::Real(_)
            | Op::Int(_)
            | Op::Bool(_)
            | Op::Input { .. }
            | Op::Scalar(_)
            | Op::Index(_)
            | Op::Len(_)
            | Op::TopK { .. }
            | Op::Hole { .. }
            | Op::Get { .. } => {}
            Op::Unary(op, a) => parts.extend(self.unary(*op, *a, y, d).map(|part| (0, part))),
            Op::Binary(op, a, b) => {
                let (x, z) = self.binary(*op, *a, *b, y, d);
                for (at, operand, part) in [(0, *a, x), (1, *b, z)] {
                    if let Some(part) = part.filter(|_| need[at]) {
                        parts.push((at, self.sum_to(part, &space, operand)));
                    }
                }
            }
            Op::Select(c, a, b) => {
                let zero = self.b.real(0.0);
                for (at, operand, [then, other]) in [(1, *a, [d, zero]), (2, *b, [zero, d])] {
                    if need[at] {
                        let part = self.b.select(*c, then, other);
                        parts.push((at, self.sum_to(part, &space, operand)));
                    }
                }
            }
            Op::Rename { from, to, .. } => {
                parts.push((
                    0,
                    if self.b.axes(d).contains(to) {
                        self.b.rename(d, *to, *from)
                    } else {
                        d
                    },
                ));
            }
            Op::Contract { a, b, over } => {
                let space = [&space[..], over].concat();
                for (at, operand, other) in [(0, *a, *b), (1, *b, *a)] {
                    if need[at] {
                        parts.push((at, self.product_to(d, other, &space, operand)));
                    }
                }
            }
            Op::Reduce { op, of, over } => parts.push((0, self.reduction(*op, *of, over, y, d))),
            Op::Gather { of, at, .. } => parts.push((0, self.gather(*of, at, &space, d))),
            Op::TriSolve { a, b, row, col } => {
                let found = self.tri_solve([*a, *b], [*row, *col], y, d);
                parts.extend(found.into_iter().enumerate().filter(|p| need[p.0]));
            }
        }
        parts
    }

    fn unary(&mut self, op: Unary, a: Val, y: Val, d: Val) -> Option<Val> {
        let b = &mut self.b;
        Some(match op {
            Unary::Neg => b.unary(Unary::Neg, d),
            Unary::Abs => {
                let sign = b.unary(Unary::Sign, a);
                b.binary(Binary::Mul, d, sign)
            }
            Unary::Exp => b.binary(Binary::Mul, d, y),
            Unary::Log => b.binary(Binary::Div, d, a),
            Unary::Tanh => {
                let (square, one) = (b.binary(Binary::Mul, y, y), b.real(1.0));
                let slope = b.binary(Binary::Sub, one, square);
                b.binary(Binary::Mul, d, slope)
            }
            Unary::Sqrt => {
                let two = b.real(2.0);
                let twice = b.binary(Binary::Mul, two, y);
                b.binary(Binary::Div, d, twice)
            }
            Unary::Rsqrt => {
                let (square, half) = (b.binary(Binary::Mul, y, y), b.real(-0.5));
                let cube = b.binary(Binary::Mul, square, y);
                let slope = b.binary(Binary::Mul, half, cube);
                b.binary(Binary::Mul, d, slope)
            }
            Unary::Recip => {
                let square = b.binary(Binary::Mul, y, y);
                let part = b.binary(Binary::Mul, d, square);
                b.unary(Unary::Neg, part)
            }
            Unary::Sin => {
                let slope = b.unary(Unary::Cos, a);
                b.binary(Binary::Mul, d, slope)
            }
            Unary::Cos => {
                let slope = b.unary(Unary::Sin, a);
                let part = b.binary(Binary::Mul, d, slope);
                b.unary(Unary::Neg, part)
            }
            Unary::Not | Unary::Floor | Unary::Sign | Unary::ToReal => return None,
        })
    }

    /// Parts of the left and right operand, not yet summed to their axes.
    fn binary(&mut self, op: Binary, x: Val, z: Val, y: Val, d: Val) -> (Option<Val>, Option<Val>) {
        let b = &mut self.b;
        match op {
            Binary::Add => (Some(d), Some(d)),
            Binary::Sub => (Some(d), Some(b.unary(Unary::Neg, d))),
            Binary::Mul => (Some(b.binary(Binary::Mul, d, z)), Some(b.binary(Binary::Mul, d, x))),
            Binary::Div => {
                let part = b.binary(Binary::Div, d, z);
                let other = b.binary(Binary::Mul, part, y);
                (Some(part), Some(b.unary(Unary::Neg, other)))
            }
            // Equal operands: the left one counts as chosen.
            Binary::Max | Binary::Min => {
                let zero = b.real(0.0);
                let left = if op == Binary::Max {
                    b.binary(Binary::Le, z, x)
                } else {
                    b.binary(Binary::Le, x, z)
                };
                (Some(b.select(left, d, zero)), Some(b.select(left, zero, d)))
            }
            Binary::Pow => {
                let one = b.real(1.0);
                let less = b.binary(Binary::Sub, z, one);
                let power = b.binary(Binary::Pow, x, less);
                let slope = b.binary(Binary::Mul, z, power);
                let log = b.unary(Unary::Log, x);
                let other = b.binary(Binary::Mul, y, log);
                (
                    Some(b.binary(Binary::Mul, d, slope)),
                    Some(b.binary(Binary::Mul, d, other)),
                )
            }
            Binary::Rem
            | Binary::Lt
            | Binary::Le
            | Binary::Eq
            | Binary::And
            | Binary::Or
            | Binary::BitAnd
            | Binary::Shr => (None, None),
        }
    }

    fn reduction(&mut self, op: Reduce, of: Val, over: &[Axis], y: Val, d: Val) -> Val {
        match op {
            Reduce::Sum => d,
            Reduce::Mean => over.iter().fold(d, |part, &axis| {
                let n = self.b.len(axis);
                let n = self.b.unary(Unary::ToReal, n);
                self.b.binary(Binary::Div, part, n)
            }),
            // Equal extremes share.
            Reduce::Max | Reduce::Min => {
                let (zero, one) = (self.b.real(0.0), self.b.real(1.0));
                let best = self.b.binary(Binary::Eq, of, y);
                let best = self.b.select(best, one, zero);
                let count = self.b.reduce(Reduce::Sum, best, over);
                let share = self.b.binary(Binary::Div, best, count);
                self.b.binary(Binary::Mul, d, share)
            }
        }
    }

    /// A contraction with the mask "this index was read".
    fn gather(&mut self, of: Val, at: &[(Axis, Val)], space: &[Axis], d: Val) -> Val {
        let mut d = d;
        let mut space = space.to_vec();
        let mut indices: Vec<Val> = at.iter().map(|p| p.1).collect();
        // An axis that is read and also counts the results gets another name in the results.
        for &(axis, _) in at {
            if !space.contains(&axis) {
                continue;
            }
            let twin = self.b.twin(axis);
            space.iter_mut().filter(|a| **a == axis).for_each(|a| *a = twin);
            for v in indices.iter_mut().chain([&mut d]) {
                if self.b.axes(*v).contains(&axis) {
                    *v = self.b.rename(*v, axis, twin);
                }
            }
        }
        let (zero, one) = (self.b.real(0.0), self.b.real(1.0));
        let mut read: Option<Val> = None;
        for (&(axis, _), index) in at.iter().zip(indices) {
            let own = self.b.index(axis);
            let same = self.b.binary(Binary::Eq, index, own);
            read = Some(read.map_or(same, |r| self.b.binary(Binary::And, r, same)));
        }
        match read {
            Some(read) => {
                let mask = self.b.select(read, one, zero);
                self.product_to(d, mask, &space, of)
            }
            None => d,
        }
    }

    /// `b` receives the solution of the transposed system, which is the system with rows and columns counted backwards;
    /// `a` receives minus its product with the solution, below the diagonal.
    fn tri_solve(&mut self, [a, rhs]: [Val; 2], [row, col]: [Axis; 2], y: Val, d: Val) -> [Val; 2] {
        let flip = |b: &mut Builder, axis: Axis| {
            let (n, one, index) = (b.len(axis), b.int(1), b.index(axis));
            let last = b.binary(Binary::Sub, n, one);
            b.binary(Binary::Sub, last, index)
        };
        let (down, right) = (flip(&mut self.b, row), flip(&mut self.b, col));
        // Element (row, col) of the flipped transpose is element (flip col, flip row).
        let transposed = self.b.gather(a, &[(row, right), (col, down)], None);
        let d = self.spread(d, &[row]);
        let flipped = self.b.gather(d, &[(row, down)], None);
        let solved = self.b.op(Op::TriSolve {
            a: transposed,
            b: flipped,
            row,
            col,
        });
        let solved = self.b.gather(solved, &[(row, down)], None);
        let space = self.b.axes(y).to_vec();
        let whole = self.b.rename(y, row, col);
        let both = [&space[..], &[col]].concat();
        let product = self.product_to(solved, whole, &both, a);
        let (i, j, zero) = (self.b.index(row), self.b.index(col), self.b.real(0.0));
        let below = self.b.binary(Binary::Lt, j, i);
        let minus = self.b.unary(Unary::Neg, product);
        let part = self.b.select(below, minus, zero);
        [part, self.sum_to(solved, &space, rhs)]
    }
}
