//! A mask's graph nodes, read as conditions over linear forms in the key index.
//!
//! In comes a Boolean value of the graph; out comes a [`Cond`] in negation normal form whose atoms compare a [`Lin`]
//! with zero. Everything that does not depend on the key index is one [`Sym`], in which `RowLo` stands for *the* row;
//! `Index(query)` is read as `row - (len(key) - len(query))` for end-aligned queries and as `row` for start-aligned ones,
//! so that a position written `Index(query) + Len(key) - Len(query)`, in whatever shape, cancels to the row.
//! What the analysis does not understand becomes [`Term::Opaque`] or [`Cond::Unknown`]; reading is bounded in depth and
//! in work, and what exceeds the bounds becomes opaque too.

use super::{Context, Sym};
use crate::ir::{Axis, Binary, Graph, Op, Size, Ty, Unary, Val};
use drawloom_lang::spec::Align;
use std::collections::BTreeMap;

/// `key * j + sum of terms + rest`, an integer.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Lin {
    /// Coefficient of the key index.
    pub key: i64,
    /// Scaled terms that depend on the key index in another way (or are opaque).
    pub terms: Vec<(i64, Term)>,
    /// The part that does not depend on the key index.
    pub rest: Sym,
}

/// An addend that depends on the key index, not linearly.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Term {
    /// Anything; equal numbers mean the same value.
    Opaque(u32),
    /// Floor quotient by a positive divisor.
    FloorDiv(Box<Lin>, Sym),
    /// Floor remainder by a positive divisor.
    Rem(Box<Lin>, Sym),
    /// Smaller.
    Min(Box<Lin>, Box<Lin>),
    /// Larger.
    Max(Box<Lin>, Box<Lin>),
    /// Product with a factor that does not depend on the key index.
    Mul(Box<Lin>, Sym),
    /// `if`; the condition may depend on anything.
    If(Box<Cond>, Box<Lin>, Box<Lin>),
    /// An element of a table.
    Load {
        /// Input.
        table: String,
        /// Indices before the last.
        before: Vec<Sym>,
        /// The last index.
        last: Box<Lin>,
    },
}

/// A condition in negation normal form.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Cond {
    /// Always or never.
    Const(bool),
    /// Not known.
    Unknown,
    /// `lin <= 0`.
    Le(Lin),
    /// `lin == 0`.
    Eq(Lin),
    /// Both.
    And(Box<Cond>, Box<Cond>),
    /// At least one.
    Or(Box<Cond>, Box<Cond>),
}

impl Lin {
    pub fn sym(rest: Sym) -> Lin {
        Lin {
            key: 0,
            terms: Vec::new(),
            rest,
        }
    }

    pub fn constant(c: i64) -> Lin {
        Lin::sym(Sym::Const(c))
    }

    fn term(t: Term) -> Lin {
        Lin {
            key: 0,
            terms: vec![(1, t)],
            rest: Sym::Const(0),
        }
    }

    /// The value, where it does not depend on the key index.
    pub fn free(&self) -> Option<&Sym> {
        (self.key == 0 && self.terms.is_empty()).then_some(&self.rest)
    }

    /// `self + scale * other`. `None`: overflow.
    pub fn plus(&self, other: &Lin, scale: i64) -> Option<Lin> {
        let mut out = self.clone();
        out.key = out.key.checked_add(other.key.checked_mul(scale)?)?;
        for (k, t) in &other.terms {
            let k = k.checked_mul(scale)?;
            match out.terms.iter_mut().find(|(_, u)| u == t) {
                Some((old, _)) => *old = old.checked_add(k)?,
                None => out.terms.push((k, t.clone())),
            }
        }
        out.terms.retain(|(k, _)| *k != 0);
        out.rest = out.rest + other.rest.clone() * Sym::Const(scale);
        Some(out)
    }

    pub fn scaled(&self, scale: i64) -> Option<Lin> {
        Lin::constant(0).plus(self, scale)
    }

    /// `a <= b`.
    pub fn le(a: &Lin, b: &Lin) -> Cond {
        a.plus(b, -1).map_or(Cond::Unknown, Cond::le)
    }

    /// A condition of an `if` inside, the innermost first.
    pub fn find_if(&self) -> Option<Cond> {
        self.terms.iter().find_map(|(_, t)| match t {
            Term::Opaque(_) => None,
            Term::FloorDiv(a, _) | Term::Rem(a, _) | Term::Mul(a, _) | Term::Load { last: a, .. } => a.find_if(),
            Term::Min(a, b) | Term::Max(a, b) => a.find_if().or_else(|| b.find_if()),
            Term::If(c, ..) => c.find_if().or_else(|| Some((**c).clone())),
        })
    }

    /// The same value where `cond` is known to be `is`. `None`: overflow.
    pub fn assume(&self, cond: &Cond, is: bool) -> Option<Lin> {
        let mut out = Lin {
            key: self.key,
            terms: Vec::new(),
            rest: self.rest.clone(),
        };
        for (k, t) in &self.terms {
            let inner = |a: &Lin| a.assume(cond, is);
            let t = match t {
                Term::Opaque(n) => Lin::term(Term::Opaque(*n)),
                Term::FloorDiv(a, n) => floor_div(inner(a)?, n.clone()),
                Term::Rem(a, n) => rem(inner(a)?, n.clone()),
                Term::Mul(a, s) => times(inner(a)?, s.clone())?,
                Term::Min(a, b) => min(inner(a)?, inner(b)?),
                Term::Max(a, b) => max(inner(a)?, inner(b)?),
                Term::Load { table, before, last } => load(table, before.clone(), inner(last)?),
                Term::If(c, a, b) if **c == *cond => inner(if is { a } else { b })?,
                Term::If(c, a, b) => Lin::term(Term::If(
                    Box::new(c.assume(cond, is)?),
                    Box::new(inner(a)?),
                    Box::new(inner(b)?),
                )),
            };
            out = out.plus(&t, *k)?;
        }
        Some(out)
    }
}

fn floor_div(a: Lin, n: Sym) -> Lin {
    match a.free() {
        Some(s) => Lin::sym(s.clone().floor_div(n)),
        None if n == Sym::Const(1) => a,
        None => Lin::term(Term::FloorDiv(Box::new(a), n)),
    }
}

fn rem(a: Lin, n: Sym) -> Lin {
    match a.free() {
        Some(s) => Lin::sym(s.clone().floor_rem(n)),
        None => Lin::term(Term::Rem(Box::new(a), n)),
    }
}

fn min(a: Lin, b: Lin) -> Lin {
    match (a.free(), b.free()) {
        (Some(x), Some(y)) => Lin::sym(x.clone().smaller(y.clone())),
        _ => Lin::term(Term::Min(Box::new(a), Box::new(b))),
    }
}

fn max(a: Lin, b: Lin) -> Lin {
    match (a.free(), b.free()) {
        (Some(x), Some(y)) => Lin::sym(x.clone().larger(y.clone())),
        _ => Lin::term(Term::Max(Box::new(a), Box::new(b))),
    }
}

/// `None`: overflow.
fn times(a: Lin, factor: Sym) -> Option<Lin> {
    match (a.free(), factor) {
        (Some(s), factor) => Some(Lin::sym(s.clone() * factor)),
        (None, Sym::Const(c)) => a.scaled(c),
        (None, factor) => Some(Lin::term(Term::Mul(Box::new(a), factor))),
    }
}

fn load(table: &str, before: Vec<Sym>, last: Lin) -> Lin {
    let table = table.to_owned();
    match last.free() {
        Some(s) => {
            let at = before.into_iter().chain([s.clone()]).collect();
            Lin::sym(Sym::Load { table, at })
        }
        None => Lin::term(Term::Load {
            table,
            before,
            last: Box::new(last),
        }),
    }
}

impl Cond {
    fn le(lin: Lin) -> Cond {
        match lin.free() {
            Some(s) if s.at_most(&Sym::Const(0)) => Cond::Const(true),
            Some(s) if Sym::Const(1).at_most(s) => Cond::Const(false),
            _ => Cond::Le(lin),
        }
    }

    pub fn and(self, other: Cond) -> Cond {
        match (self, other) {
            (Cond::Const(false), _) | (_, Cond::Const(false)) => Cond::Const(false),
            (Cond::Const(true), c) | (c, Cond::Const(true)) => c,
            (a, b) => Cond::And(Box::new(a), Box::new(b)),
        }
    }

    pub fn or(self, other: Cond) -> Cond {
        match (self, other) {
            (Cond::Const(true), _) | (_, Cond::Const(true)) => Cond::Const(true),
            (Cond::Const(false), c) | (c, Cond::Const(false)) => c,
            (a, b) => Cond::Or(Box::new(a), Box::new(b)),
        }
    }

    pub fn negate(&self) -> Cond {
        let one = Lin::constant(1);
        match self {
            Cond::Const(b) => Cond::Const(!b),
            Cond::Unknown => Cond::Unknown,
            Cond::Le(a) => Lin::le(&one, a),
            Cond::Eq(a) => match a.plus(&one, 1) {
                Some(next) => Cond::le(next).or(Lin::le(&one, a)),
                None => Cond::Unknown,
            },
            Cond::And(a, b) => a.negate().or(b.negate()),
            Cond::Or(a, b) => a.negate().and(b.negate()),
        }
    }

    fn find_if(&self) -> Option<Cond> {
        match self {
            Cond::Const(_) | Cond::Unknown => None,
            Cond::Le(a) | Cond::Eq(a) => a.find_if(),
            Cond::And(a, b) | Cond::Or(a, b) => a.find_if().or_else(|| b.find_if()),
        }
    }

    fn assume(&self, cond: &Cond, is: bool) -> Option<Cond> {
        Some(match self {
            Cond::Const(_) | Cond::Unknown => self.clone(),
            Cond::Le(a) => Cond::le(a.assume(cond, is)?),
            Cond::Eq(a) => Cond::Eq(a.assume(cond, is)?),
            Cond::And(a, b) => a.assume(cond, is)?.and(b.assume(cond, is)?),
            Cond::Or(a, b) => a.assume(cond, is)?.or(b.assume(cond, is)?),
        })
    }
}

/// The most nodes read for one mask, shared subexpressions counted at every use.
const MAX_READS: u32 = 4096;
/// The deepest nesting read.
const MAX_DEPTH: u32 = 128;

/// The condition that `mask` is true.
pub(super) fn read_mask(graph: &Graph, mask: Val, ctx: &Context<'_>) -> Cond {
    let mut reader = Reader {
        graph,
        reads: 0,
        opaques: 0,
    };
    let mut at = BTreeMap::new();
    let offset = match ctx.align {
        Align::End => reader.len(ctx.key, 0) - reader.len(ctx.query, 0),
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
    reader.cond(mask, &at, 0)
}

/// The size of `axis` as an expression.
pub(super) fn axis_len(graph: &Graph, axis: Axis) -> Sym {
    Reader {
        graph,
        reads: 0,
        opaques: 0,
    }
    .len(axis, 0)
}

/// The point that is read: what each axis's index is, where it is not the tile's own.
type Point = BTreeMap<Axis, Lin>;

struct Reader<'a> {
    graph: &'a Graph,
    reads: u32,
    opaques: u32,
}

impl Reader<'_> {
    fn opaque(&mut self) -> Lin {
        self.opaques += 1;
        Lin::term(Term::Opaque(self.opaques))
    }

    fn len(&self, axis: Axis, depth: u32) -> Sym {
        let Some(def) = self.graph.axes.get(axis.index()) else {
            return Sym::Len(axis.to_string());
        };
        match def.size {
            Size::Const(n) => Sym::Const(n.into()),
            Size::Same(of) if depth < MAX_DEPTH => self.len(of, depth + 1),
            Size::CeilDiv { of, by } if depth < MAX_DEPTH && by > 0 => {
                let by = i64::from(by);
                (self.len(of, depth + 1) + Sym::Const(by - 1)).floor_div(Sym::Const(by))
            }
            Size::Runtime | Size::Same(_) | Size::CeilDiv { .. } => Sym::Len(def.name.clone()),
        }
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
            Op::Len(a) => Lin::sym(self.len(*a, 0)),
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

    /// A quotient or remainder: sizes are divisors as they stand, scalars and tables where they are positive.
    fn by_divisor(&mut self, a: Lin, n: &Sym, f: fn(Lin, Sym) -> Lin) -> Option<Lin> {
        if let Sym::Const(..=0) = n {
            return None;
        }
        let quotient = f(a, n.clone());
        if n.depends_on_row() {
            return None;
        }
        if Sym::Const(0).at_most(n) {
            return Some(quotient);
        }
        let positive = Lin::le(&Lin::constant(1), &Lin::sym(n.clone()));
        Some(select(positive, quotient, self.opaque()))
    }

    /// The point that a gather reads, and the condition that it is in range.
    fn gather(&mut self, index: &[(Axis, Val)], at: &Point, depth: u32) -> (Point, Cond) {
        let mut inner = at.clone();
        let mut in_range = Cond::Const(true);
        for (axis, v) in index {
            let i = self.lin(*v, at, depth);
            let last = Lin::sym(self.len(*axis, 0) - Sym::Const(1));
            in_range = in_range.and(Lin::le(&Lin::constant(0), &i)).and(Lin::le(&i, &last));
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
                match (op, a.plus(&b, -1)) {
                    (_, None) => Cond::Unknown,
                    (Binary::Eq, Some(diff)) => Cond::Eq(diff),
                    (Binary::Le, Some(diff)) => Cond::le(diff),
                    (_, Some(diff)) => diff.plus(&Lin::constant(1), 1).map_or(Cond::Unknown, Cond::le),
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

fn select(c: Cond, a: Lin, b: Lin) -> Lin {
    match c {
        Cond::Const(true) => a,
        Cond::Const(false) => b,
        c => Lin::term(Term::If(Box::new(c), Box::new(a), Box::new(b))),
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
