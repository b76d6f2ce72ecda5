//! A mask's graph nodes, read as conditions over linear forms in the key index.
//!
//! In comes a Boolean value of the graph; out comes a [`Cond`] in negation normal form whose atoms compare a [`Lin`]
//! with zero. Everything that does not depend on the key index is one [`Sym`], in which `RowLo` stands for *the* row;
//! `Index(query)` is read as `row - (len(key) - len(query))` for end-aligned queries and as `row` for start-aligned ones,
//! so that a position written `Index(query) + Len(key) - Len(query)`, in whatever shape, cancels to the row.
//! What the analysis does not understand becomes [`Term::Opaque`] or [`Cond::Unknown`]; reading is bounded in depth and
//! in work, and what exceeds the bounds becomes opaque too.

use super::expr::{Cond, Lin, Term, floor_div, load, max, min, rem, select, times};
use super::{Context, Sym};
use crate::ir::{Axis, Binary, Graph, Op, Size, Ty, Unary, Val};
use drawloom_lang::spec::Align;
use std::collections::BTreeMap;

/// The most nodes read for one mask, shared subexpressions counted at every use.
const MAX_READS: u32 = 4096;
/// The deepest nesting read.
const MAX_DEPTH: u32 = 128;

/// The condition that `mask` is true.
pub(super) fn read_mask(graph: &Graph, mask: Val, ctx: &Context<'_>) -> Cond {
    let (queries, keys) = (axis_len(graph, ctx.query), axis_len(graph, ctx.key));
    let mut at = BTreeMap::new();
    let offset = match ctx.align {
        Align::End => keys.clone() - queries.clone(),
        Align::Start => Sym::Const(0),
    };
    at.insert(ctx.query, Lin::sym(Sym::RowLo - offset));
    at.insert(
        ctx.key,
        Lin {
            key: 1,
            terms: Vec::new(),
            rest: Sym::Const(0),
        },
    );
    let present = [queries, keys];
    let mut reader = Reader {
        graph,
        present,
        align: ctx.align,
        reads: 0,
        opaques: 0,
    };
    reader.cond(mask, &at, 0)
}

/// The size of `axis` as an expression.
pub(super) fn axis_len(graph: &Graph, axis: Axis) -> Sym {
    resolve(graph, axis, 0)
}

fn resolve(graph: &Graph, axis: Axis, depth: u32) -> Sym {
    let Some(def) = graph.axes.get(axis.index()) else {
        return Sym::Len(axis.to_string());
    };
    match def.size {
        Size::Const(n) => Sym::Const(n.into()),
        Size::Same(of) if depth < MAX_DEPTH => resolve(graph, of, depth + 1),
        Size::CeilDiv { of, by } if depth < MAX_DEPTH && by > 0 => {
            let by = i64::from(by);
            (resolve(graph, of, depth + 1) + Sym::Const(by - 1)).floor_div(Sym::Const(by))
        }
        Size::Runtime | Size::Same(_) | Size::CeilDiv { .. } => Sym::Len(def.name.clone()),
    }
}

/// The point that is read: what each axis's index is, where it is not the tile's own.
type Point = BTreeMap<Axis, Lin>;

struct Reader<'a> {
    graph: &'a Graph,
    /// Sizes that are at least 1 where there is anything to see.
    present: [Sym; 2],
    align: Align,
    reads: u32,
    opaques: u32,
}

impl Reader<'_> {
    fn opaque(&mut self) -> Lin {
        self.opaques += 1;
        Lin::term(Term::Opaque(self.opaques))
    }

    fn index(&self, axis: Axis, at: &Point) -> Lin {
        at.get(&axis).cloned().unwrap_or_else(|| {
            let name = self
                .graph
                .axes
                .get(axis.index())
                .map_or_else(|| axis.to_string(), |d| d.name.clone());
            Lin::sym(Sym::Fixed(name))
        })
    }

    /// Whether the bounds on work allow one more node.
    fn step(&mut self, depth: u32) -> bool {
        self.reads += 1;
        self.reads <= MAX_READS && depth <= MAX_DEPTH
    }

    /// An integer value, or a real one that is an integer by construction.
    fn lin(&mut self, v: Val, at: &Point, depth: u32) -> Lin {
        self.try_lin(v, at, depth).unwrap_or_else(|| self.opaque())
    }

    fn try_lin(&mut self, v: Val, at: &Point, depth: u32) -> Option<Lin> {
        if !self.step(depth) {
            return None;
        }
        let graph = self.graph;
        let node = graph.nodes.get(v.index())?;
        let d = depth + 1;
        Some(match &node.op {
            Op::Real(x) => Lin::constant(whole(*x)?),
            Op::Int(c) => Lin::constant(*c),
            Op::Scalar(name) if node.ty == Ty::Int => Lin::sym(Sym::Scalar(name.clone())),
            Op::Index(a) => self.index(*a, at),
            Op::Len(a) => Lin::sym(axis_len(self.graph, *a)),
            Op::Input { name, axes } if node.ty == Ty::Int => {
                let mut index: Vec<Lin> = axes.iter().map(|a| self.index(*a, at)).collect();
                let last = index.pop()?;
                let before = index.iter().map(|l| l.free().cloned()).collect::<Option<Vec<_>>>()?;
                load(name, before, last)
            }
            Op::Unary(op, a) => {
                let a = self.lin(*a, at, d);
                match op {
                    Unary::Neg => a.scaled(-1)?,
                    Unary::Abs => {
                        let neg = a.scaled(-1)?;
                        max(a, neg)
                    }
                    Unary::Sign => min(max(a, Lin::constant(-1)), Lin::constant(1)),
                    // What is read here is an integer already.
                    Unary::Floor | Unary::ToReal => a,
                    Unary::Not
                    | Unary::Exp
                    | Unary::Log
                    | Unary::Tanh
                    | Unary::Sqrt
                    | Unary::Rsqrt
                    | Unary::Recip
                    | Unary::Sin
                    | Unary::Cos => return None,
                }
            }
            Op::Binary(op, a, b) => {
                let (a, b) = (self.lin(*a, at, d), self.lin(*b, at, d));
                self.arithmetic(*op, node.ty, a, b)?
            }
            Op::Select(c, a, b) => {
                let c = self.cond(*c, at, d);
                let (a, b) = (self.lin(*a, at, d), self.lin(*b, at, d));
                select(c, a, b)
            }
            Op::Rename { of, from, to } => {
                let mut at = at.clone();
                at.insert(*from, self.index(*to, &at));
                self.lin(*of, &at, d)
            }
            Op::Gather { of, at: index, fill } => {
                let (inner, in_range) = self.gather(index, at, d);
                let value = self.lin(*of, &inner, d);
                match fill {
                    // Out of range is an error, so the value may be assumed to be in range.
                    None => value,
                    Some(fill) => {
                        let fill = whole(*fill).map_or_else(|| self.opaque(), Lin::constant);
                        select(in_range, value, fill)
                    }
                }
            }
            Op::Bool(_)
            | Op::Scalar(_)
            | Op::Input { .. }
            | Op::Contract { .. }
            | Op::Reduce { .. }
            | Op::TopK { .. }
            | Op::TriSolve { .. }
            | Op::Hole { .. }
            | Op::Get { .. } => return None,
        })
    }

    fn arithmetic(&mut self, op: Binary, ty: Ty, a: Lin, b: Lin) -> Option<Lin> {
        Some(match op {
            Binary::Add => a.plus(&b, 1)?,
            Binary::Sub => a.plus(&b, -1)?,
            Binary::Mul => match (a.free().cloned(), b.free().cloned()) {
                (_, Some(s)) => times(a, s)?,
                (Some(s), None) => times(b, s)?,
                (None, None) => return None,
            },
            Binary::Div if ty == Ty::Int => self.by_divisor(a, b.free()?, floor_div)?,
            Binary::Rem if ty == Ty::Int => self.by_divisor(a, b.free()?, rem)?,
            Binary::Min => min(a, b),
            Binary::Max => max(a, b),
            Binary::Shr => match b.free()? {
                Sym::Const(n @ 0..=62) => floor_div(a, Sym::Const(1 << n)),
                _ => return None,
            },
            Binary::BitAnd => match (a.free().cloned(), b.free().cloned()) {
                (Some(Sym::Const(m)), _) => rem(b, low_bits(m)?),
                (_, Some(Sym::Const(m))) => rem(a, low_bits(m)?),
                _ => return None,
            },
            Binary::Div
            | Binary::Rem
            | Binary::Lt
            | Binary::Le
            | Binary::Eq
            | Binary::And
            | Binary::Or
            | Binary::Pow => return None,
        })
    }

    /// A quotient or remainder. The sizes of the query and key axes are at least 1 wherever there is a tile; any other
    /// divisor gives 0 where it is 0, and is not followed where it is negative.
    fn by_divisor(&mut self, a: Lin, n: &Sym, f: fn(Lin, Sym) -> Lin) -> Option<Lin> {
        if n.depends_on_row() {
            return None;
        }
        let positive = Lin::le(&Lin::constant(1), &Lin::sym(n.clone()));
        // Without the key index, it is computed as it stands: 0 where the divisor is 0.
        let computed = a.free().is_some() && Sym::Const(0).at_most(n);
        if computed || self.present.contains(n) || positive == Cond::Const(true) {
            return Some(f(a, n.clone()));
        }
        let quotient = f(a, n.clone());
        let other = select(
            Lin::le(&Lin::constant(0), &Lin::sym(n.clone())),
            Lin::constant(0),
            self.opaque(),
        );
        Some(select(positive, quotient, other))
    }

    /// `a <= b`, given what is known of the row: end-aligned positions are below the number of keys, start-aligned ones
    /// are not negative.
    fn le(&self, a: &Lin, b: &Lin) -> Cond {
        let cond = Lin::le(a, b);
        let Cond::Le(lin) = &cond else { return cond };
        let Some(s) = lin.free() else { return cond };
        let worst = match self.align {
            Align::End => s.clone() - Sym::RowLo + self.present[1].clone() - Sym::Const(1),
            Align::Start => s.clone() + Sym::RowLo,
        };
        match !worst.depends_on_row() && worst.at_most(&Sym::Const(0)) {
            true => Cond::Const(true),
            false => cond,
        }
    }

    /// The point that a gather reads, and the condition that it is in range.
    fn gather(&mut self, index: &[(Axis, Val)], at: &Point, depth: u32) -> (Point, Cond) {
        let mut inner = at.clone();
        let mut in_range = Cond::Const(true);
        for (axis, v) in index {
            let i = self.lin(*v, at, depth);
            let last = Lin::sym(axis_len(self.graph, *axis) - Sym::Const(1));
            let (above, below) = (self.le(&Lin::constant(0), &i), self.le(&i, &last));
            in_range = in_range.and(above).and(below);
            inner.insert(*axis, i);
        }
        (inner, in_range)
    }

    fn cond(&mut self, v: Val, at: &Point, depth: u32) -> Cond {
        let graph = self.graph;
        let Some(node) = graph.nodes.get(v.index()) else {
            return Cond::Unknown;
        };
        if !self.step(depth) {
            return Cond::Unknown;
        }
        let d = depth + 1;
        match &node.op {
            Op::Bool(b) => Cond::Const(*b),
            Op::Unary(Unary::Not, a) => self.cond(*a, at, d).negate(),
            Op::Binary(Binary::And, a, b) => self.cond(*a, at, d).and(self.cond(*b, at, d)),
            Op::Binary(Binary::Or, a, b) => self.cond(*a, at, d).or(self.cond(*b, at, d)),
            Op::Binary(Binary::Eq, a, b) if graph.nodes.get(a.index()).is_some_and(|n| n.ty == Ty::Bool) => {
                let (a, b) = (self.cond(*a, at, d), self.cond(*b, at, d));
                let neither = a.negate().and(b.negate());
                a.and(b).or(neither)
            }
            Op::Binary(op @ (Binary::Lt | Binary::Le | Binary::Eq), a, b) => {
                let (a, b) = (self.lin(*a, at, d), self.lin(*b, at, d));
                match op {
                    Binary::Eq => a.plus(&b, -1).map_or(Cond::Unknown, Cond::Eq),
                    Binary::Le => self.le(&a, &b),
                    _ => b.plus(&Lin::constant(1), -1).map_or(Cond::Unknown, |b| self.le(&a, &b)),
                }
            }
            Op::Select(c, a, b) => {
                let (c, a, b) = (self.cond(*c, at, d), self.cond(*a, at, d), self.cond(*b, at, d));
                let otherwise = c.negate().and(b);
                c.and(a).or(otherwise)
            }
            Op::Rename { of, from, to } => {
                let mut at = at.clone();
                at.insert(*from, self.index(*to, &at));
                self.cond(*of, &at, d)
            }
            Op::Gather { of, at: index, fill } => {
                let (inner, in_range) = self.gather(index, at, d);
                let value = self.cond(*of, &inner, d);
                match fill {
                    None => value,
                    Some(fill) => {
                        let outside = in_range.negate().and(Cond::Const(*fill != 0.0));
                        in_range.and(value).or(outside)
                    }
                }
            }
            _ => Cond::Unknown,
        }
    }
}

/// The integer that a real is, within the range where doubles are exact.
fn whole(x: f64) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "integral and below 2^53")]
    (x.fract() == 0.0 && x.abs() < 9_007_199_254_740_992.0).then_some(x as i64)
}

/// `m + 1` where `m` is `0b1…1`: `x & m` is the floor remainder by it.
fn low_bits(m: i64) -> Option<Sym> {
    let n = m.checked_add(1)?;
    (m >= 0 && n & m == 0).then_some(Sym::Const(n))
}
