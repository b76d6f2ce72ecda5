//! A mask as conditions over linear forms in the key index.
//!
//! Everything that does not depend on the key index is one [`Sym`], in which `RowLo` stands for *the* row.

use super::Sym;

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

    pub fn term(t: Term) -> Lin {
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

pub(super) fn floor_div(a: Lin, n: Sym) -> Lin {
    match a.free() {
        Some(s) => Lin::sym(s.clone().floor_div(n)),
        None if n == Sym::Const(1) => a,
        None => Lin::term(Term::FloorDiv(Box::new(a), n)),
    }
}

pub(super) fn rem(a: Lin, n: Sym) -> Lin {
    match a.free() {
        Some(s) => Lin::sym(s.clone().floor_rem(n)),
        None => Lin::term(Term::Rem(Box::new(a), n)),
    }
}

pub(super) fn min(a: Lin, b: Lin) -> Lin {
    match (a.free(), b.free()) {
        (Some(x), Some(y)) => Lin::sym(x.clone().smaller(y.clone())),
        _ => Lin::term(Term::Min(Box::new(a), Box::new(b))),
    }
}

pub(super) fn max(a: Lin, b: Lin) -> Lin {
    match (a.free(), b.free()) {
        (Some(x), Some(y)) => Lin::sym(x.clone().larger(y.clone())),
        _ => Lin::term(Term::Max(Box::new(a), Box::new(b))),
    }
}

/// `None`: overflow.
pub(super) fn times(a: Lin, factor: Sym) -> Option<Lin> {
    match (a.free(), factor) {
        (Some(s), factor) => Some(Lin::sym(s.clone() * factor)),
        (None, Sym::Const(c)) => a.scaled(c),
        (None, factor) => Some(Lin::term(Term::Mul(Box::new(a), factor))),
    }
}

pub(super) fn load(table: &str, before: Vec<Sym>, last: Lin) -> Lin {
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
    pub fn le(lin: Lin) -> Cond {
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

pub(super) fn select(c: Cond, a: Lin, b: Lin) -> Lin {
    match c {
        Cond::Const(true) => a,
        Cond::Const(false) => b,
        c => Lin::term(Term::If(Box::new(c), Box::new(a), Box::new(b))),
    }
}
