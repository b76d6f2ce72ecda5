//! Arithmetic on [`Sym`]: the operators and constructors build simplified expressions, [`Sym::at_most`] proves
//! inequalities.
//!
//! Simplified sums are linear forms: one constant, every other addend at most once, in a fixed order. That makes equal
//! expressions equal values wherever only addition, scaling and constants are involved, which is what the alignment
//! offsets of a mask need to cancel. A step that would overflow `i64` is left as written.

use super::Sym;
use std::collections::{BTreeMap, BTreeSet};
use std::ops;

/// A sum of scaled addends: the simplified form of everything that [`Sym`] adds and subtracts.
#[derive(Default)]
struct Sum {
    constant: i64,
    terms: BTreeMap<Sym, i64>,
}

impl Sum {
    /// Adds `scale * s`, with `s` simplified. `None`: overflow.
    fn add(&mut self, s: &Sym, scale: i64) -> Option<()> {
        match s {
            Sym::Const(c) => self.constant = self.constant.checked_add(c.checked_mul(scale)?)?,
            Sym::Add(a, b) => {
                self.add(a, scale)?;
                self.add(b, scale)?;
            }
            Sym::Sub(a, b) => {
                self.add(a, scale)?;
                self.add(b, scale.checked_neg()?)?;
            }
            Sym::Mul(a, b) => match (&**a, &**b) {
                (Sym::Const(c), x) | (x, Sym::Const(c)) => self.add(x, scale.checked_mul(*c)?)?,
                _ => self.atom(s, scale)?,
            },
            _ => self.atom(s, scale)?,
        }
        Some(())
    }

    fn atom(&mut self, s: &Sym, scale: i64) -> Option<()> {
        let old = self.terms.remove(s).unwrap_or(0);
        let new = old.checked_add(scale)?;
        if new != 0 {
            self.terms.insert(s.clone(), new);
        }
        Some(())
    }

    fn of(s: &Sym) -> Option<Sum> {
        let mut sum = Sum::default();
        sum.add(s, 1)?;
        Some(sum)
    }

    /// Positive addends, then negative ones, then the constant.
    fn build(self) -> Sym {
        let scaled = |s: Sym, k: i64| {
            if k == 1 {
                s
            } else {
                Sym::Mul(Box::new(Sym::Const(k)), Box::new(s))
            }
        };
        let (plus, minus): (Vec<_>, Vec<_>) = self.terms.into_iter().partition(|(_, k)| *k > 0);
        let mut constant = self.constant;
        let mut acc = plus
            .into_iter()
            .map(|(s, k)| scaled(s, k))
            .reduce(|a, b| Sym::Add(Box::new(a), Box::new(b)));
        for (s, k) in minus {
            let left = acc.unwrap_or_else(|| Sym::Const(std::mem::take(&mut constant)));
            acc = Some(match k.checked_neg() {
                Some(k) => Sym::Sub(Box::new(left), Box::new(scaled(s, k))),
                None => Sym::Add(Box::new(left), Box::new(scaled(s, k))),
            });
        }
        match (acc, constant) {
            (None, c) => Sym::Const(c),
            (Some(s), 0) => s,
            (Some(s), c) => Sym::Add(Box::new(s), Box::new(Sym::Const(c))),
        }
    }
}

impl ops::Add for Sym {
    type Output = Sym;
    fn add(self, other: Sym) -> Sym {
        let mut sum = Sum::default();
        match sum.add(&self, 1).and_then(|()| sum.add(&other, 1)) {
            Some(()) => sum.build(),
            None => Sym::Add(Box::new(self), Box::new(other)),
        }
    }
}

impl ops::Sub for Sym {
    type Output = Sym;
    fn sub(self, other: Sym) -> Sym {
        let mut sum = Sum::default();
        match sum.add(&self, 1).and_then(|()| sum.add(&other, -1)) {
            Some(()) => sum.build(),
            None => Sym::Sub(Box::new(self), Box::new(other)),
        }
    }
}

impl ops::Neg for Sym {
    type Output = Sym;
    fn neg(self) -> Sym {
        Sym::Const(0) - self
    }
}

impl ops::Mul for Sym {
    type Output = Sym;
    fn mul(self, other: Sym) -> Sym {
        match (self, other) {
            (Sym::Const(k), s) | (s, Sym::Const(k)) => {
                let mut sum = Sum::default();
                match sum.add(&s, k) {
                    Some(()) => sum.build(),
                    None => Sym::Mul(Box::new(Sym::Const(k)), Box::new(s)),
                }
            }
            (a, b) => {
                let (a, b) = if a <= b { (a, b) } else { (b, a) };
                Sym::Mul(Box::new(a), Box::new(b))
            }
        }
    }
}

impl From<i64> for Sym {
    fn from(c: i64) -> Sym {
        Sym::Const(c)
    }
}

impl Sym {
    /// `floor(self / by)`; `by` is positive wherever the value is used.
    pub fn floor_div(self, by: Sym) -> Sym {
        if let Sym::Const(n @ 1..) = by {
            if n == 1 {
                return self;
            }
            if let Sym::FloorDiv(inner, m) = &self
                && let Sym::Const(m @ 1..) = **m
                && let Some(mn) = m.checked_mul(n)
            {
                return inner.as_ref().clone().floor_div(Sym::Const(mn));
            }
            if let Some(sum) = Sum::of(&self) {
                let (whole, part) = split(sum, n);
                return match part {
                    Sym::Const(c) => whole + Sym::Const(c.div_euclid(n)),
                    part => whole + Sym::FloorDiv(Box::new(part), Box::new(Sym::Const(n))),
                };
            }
        }
        Sym::FloorDiv(Box::new(self), Box::new(by))
    }

    /// `self - by * floor(self / by)`; `by` is positive wherever the value is used.
    pub fn floor_rem(self, by: Sym) -> Sym {
        if let Sym::Const(n @ 1..) = by
            && let Some(sum) = Sum::of(&self)
        {
            return match split(sum, n).1 {
                Sym::Const(c) => Sym::Const(c.rem_euclid(n)),
                part => Sym::Rem(Box::new(part), Box::new(Sym::Const(n))),
            };
        }
        Sym::Rem(Box::new(self), Box::new(by))
    }

    /// The smaller of the two.
    pub fn smaller(self, other: Sym) -> Sym {
        let mut arms = BTreeSet::new();
        flatten_min(self, &mut arms);
        flatten_min(other, &mut arms);
        let kept = undominated(arms, |a, b| a.at_most(b));
        kept.into_iter()
            .reduce(|a, b| Sym::Min(Box::new(a), Box::new(b)))
            .expect("invariant: a minimum has an arm")
    }

    /// The larger of the two.
    pub fn larger(self, other: Sym) -> Sym {
        let mut arms = BTreeSet::new();
        flatten_max(self, &mut arms);
        flatten_max(other, &mut arms);
        let kept = undominated(arms, |a, b| b.at_most(a));
        kept.into_iter()
            .reduce(|a, b| Sym::Max(Box::new(a), Box::new(b)))
            .expect("invariant: a maximum has an arm")
    }

    /// `lhs <= rhs ? then : otherwise`.
    pub fn if_le(lhs: Sym, rhs: Sym, then: Sym, otherwise: Sym) -> Sym {
        if then == otherwise || lhs.at_most(&rhs) {
            then
        } else if (rhs.clone() + Sym::Const(1)).at_most(&lhs) {
            otherwise
        } else {
            Sym::IfLe(Box::new(lhs), Box::new(rhs), Box::new(then), Box::new(otherwise))
        }
    }

    /// Rebuilds the expression with every rule of this module applied.
    pub fn simplify(self) -> Sym {
        match self {
            Sym::Const(_) | Sym::RowLo | Sym::RowHi | Sym::Len(_) | Sym::Scalar(_) | Sym::Fixed(_) => self,
            Sym::Add(a, b) => a.simplify() + b.simplify(),
            Sym::Sub(a, b) => a.simplify() - b.simplify(),
            Sym::Mul(a, b) => a.simplify() * b.simplify(),
            Sym::FloorDiv(a, b) => a.simplify().floor_div(b.simplify()),
            Sym::Rem(a, b) => a.simplify().floor_rem(b.simplify()),
            Sym::Min(a, b) => a.simplify().smaller(b.simplify()),
            Sym::Max(a, b) => a.simplify().larger(b.simplify()),
            Sym::IfLe(a, b, t, e) => Sym::if_le(a.simplify(), b.simplify(), t.simplify(), e.simplify()),
            Sym::Load { table, at } => Sym::Load {
                table,
                at: at.into_iter().map(Sym::simplify).collect(),
            },
            Sym::Search {
                table,
                at,
                value,
                upper,
            } => Sym::Search {
                table,
                at: at.into_iter().map(Sym::simplify).collect(),
                value: Box::new(value.simplify()),
                upper,
            },
        }
    }

    /// Whether `self <= other` is proven for all sizes, rows and tables (given `RowLo <= RowHi`). `false`: not proven.
    pub fn at_most(&self, other: &Sym) -> bool {
        let split = match (self, other) {
            (Sym::Max(a, b), _) => a.at_most(other) && b.at_most(other),
            (_, Sym::Min(a, b)) => self.at_most(a) && self.at_most(b),
            (_, Sym::Max(a, b)) => self.at_most(a) || self.at_most(b),
            (Sym::Min(a, b), _) => a.at_most(other) || b.at_most(other),
            _ => false,
        };
        split || sum_bound(&(other.clone() - self.clone()), Bound::Lower).is_some_and(|b| b >= 0)
    }

    /// Whether the expression depends on the rows of the tile.
    pub fn depends_on_row(&self) -> bool {
        match self {
            Sym::RowLo | Sym::RowHi => true,
            Sym::Const(_) | Sym::Len(_) | Sym::Scalar(_) | Sym::Fixed(_) => false,
            Sym::Add(a, b)
            | Sym::Sub(a, b)
            | Sym::Mul(a, b)
            | Sym::FloorDiv(a, b)
            | Sym::Rem(a, b)
            | Sym::Min(a, b)
            | Sym::Max(a, b) => a.depends_on_row() || b.depends_on_row(),
            Sym::IfLe(a, b, t, e) => [a, b, t, e].into_iter().any(|s| s.depends_on_row()),
            Sym::Load { at, .. } => at.iter().any(Sym::depends_on_row),
            Sym::Search { at, value, .. } => at.iter().any(Sym::depends_on_row) || value.depends_on_row(),
        }
    }
}

/// `sum = n * whole + part`, the constant of `part` in `0..n`.
fn split(sum: Sum, n: i64) -> (Sym, Sym) {
    let (mut whole, mut part) = (Sum::default(), Sum::default());
    for (s, k) in sum.terms {
        // Only exact multiples move out: `floor(3 j / 2)` stays readable, and a lone `-j` does not become `j - 2 j`.
        if k % n == 0 {
            whole.terms.insert(s, k / n);
        } else {
            part.terms.insert(s, k);
        }
    }
    whole.constant = sum.constant.div_euclid(n);
    part.constant = sum.constant.rem_euclid(n);
    (whole.build(), part.build())
}

fn flatten_min(s: Sym, arms: &mut BTreeSet<Sym>) {
    match s {
        Sym::Min(a, b) => {
            flatten_min(*a, arms);
            flatten_min(*b, arms);
        }
        s => drop(arms.insert(s)),
    }
}

fn flatten_max(s: Sym, arms: &mut BTreeSet<Sym>) {
    match s {
        Sym::Max(a, b) => {
            flatten_max(*a, arms);
            flatten_max(*b, arms);
        }
        s => drop(arms.insert(s)),
    }
}

/// The arms that no other arm makes superfluous; of equals by proof, one stays.
fn undominated(arms: BTreeSet<Sym>, wins: impl Fn(&Sym, &Sym) -> bool) -> Vec<Sym> {
    let mut kept: Vec<Sym> = Vec::new();
    for arm in arms {
        if !kept.iter().any(|k| wins(k, &arm)) {
            kept.retain(|k| !wins(&arm, k));
            kept.push(arm);
        }
    }
    kept
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Bound {
    Lower,
    Upper,
}

impl Bound {
    fn flip(self) -> Bound {
        match self {
            Bound::Lower => Bound::Upper,
            Bound::Upper => Bound::Lower,
        }
    }
}

/// A constant bound of a sum, using `RowLo <= RowHi` and what is known of its addends.
fn sum_bound(s: &Sym, bound: Bound) -> Option<i64> {
    let mut sum = Sum::of(s)?;
    let lo = sum.terms.remove(&Sym::RowLo).unwrap_or(0);
    let hi = sum.terms.remove(&Sym::RowHi).unwrap_or(0);
    // `lo * RowLo + hi * RowHi = hi * (RowHi - RowLo)` where the two cancel.
    let right_way = if bound == Bound::Lower { hi >= 0 } else { hi <= 0 };
    if lo.checked_add(hi)? != 0 || !right_way {
        return None;
    }
    sum.terms.iter().try_fold(sum.constant, |acc, (s, &k)| {
        let b = atom_bound(s, if k > 0 { bound } else { bound.flip() })?;
        acc.checked_add(b.checked_mul(k)?)
    })
}

/// A constant bound of something that is not a sum.
fn atom_bound(s: &Sym, bound: Bound) -> Option<i64> {
    let both = |a: &Sym, b: &Sym| Some((sum_bound(a, bound)?, sum_bound(b, bound)?));
    match s {
        Sym::Const(c) => Some(*c),
        Sym::Len(_) | Sym::Fixed(_) | Sym::Search { .. } => (bound == Bound::Lower).then_some(0),
        Sym::RowLo | Sym::RowHi | Sym::Scalar(_) | Sym::Load { .. } => None,
        Sym::Add(..) | Sym::Sub(..) => sum_bound(s, bound),
        Sym::Mul(a, b) => {
            let nonneg = |s| sum_bound(s, Bound::Lower).is_some_and(|b| b >= 0);
            (bound == Bound::Lower && nonneg(a) && nonneg(b)).then_some(0)
        }
        Sym::FloorDiv(a, n) => match **n {
            Sym::Const(n @ 1..) => sum_bound(a, bound).map(|b| b.div_euclid(n)),
            _ => (bound == Bound::Lower && sum_bound(a, bound)? >= 0).then_some(0),
        },
        Sym::Rem(_, n) => match (bound, &**n) {
            (Bound::Lower, _) => Some(0),
            (Bound::Upper, Sym::Const(n @ 1..)) => Some(n - 1),
            _ => None,
        },
        Sym::Min(a, b) => match bound {
            Bound::Lower => both(a, b).map(|(x, y)| x.min(y)),
            Bound::Upper => [a, b].into_iter().filter_map(|s| sum_bound(s, bound)).min(),
        },
        Sym::Max(a, b) => match bound {
            Bound::Lower => [a, b].into_iter().filter_map(|s| sum_bound(s, bound)).max(),
            Bound::Upper => both(a, b).map(|(x, y)| x.max(y)),
        },
        Sym::IfLe(_, _, t, e) => both(t, e).map(|(x, y)| if bound == Bound::Lower { x.min(y) } else { x.max(y) }),
    }
}
