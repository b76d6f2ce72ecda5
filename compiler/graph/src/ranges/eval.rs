//! Numbers for expressions: [`Sym::eval`] in an [`Env`] of sizes, scalars and tables.

use super::{Ranges, Sym};
use std::collections::{BTreeMap, BTreeSet};

/// Values for the names in a [`Sym`].
#[derive(Clone, Default, Debug)]
pub struct Env {
    /// Position of the tile's first query.
    pub row_lo: i64,
    /// Position of the tile's last query.
    pub row_hi: i64,
    /// Axis sizes.
    pub lens: BTreeMap<String, i64>,
    /// Run-time scalars.
    pub scalars: BTreeMap<String, i64>,
    /// The tile's index on axes that are fixed in it.
    pub fixed: BTreeMap<String, i64>,
    /// Integer inputs.
    pub tables: BTreeMap<String, Table>,
}

/// An integer input tensor, row-major.
#[derive(Clone, Default, Debug)]
pub struct Table {
    /// Size per axis.
    pub shape: Vec<usize>,
    /// Elements.
    pub data: Vec<i64>,
}

impl Table {
    /// Offset of the point `at` (clamped into range) on the leading axes, in units of the remaining block.
    fn offset(&self, at: &[i64]) -> usize {
        at.iter().zip(&self.shape).fold(0, |acc, (&x, &n)| {
            let last = i64::try_from(n).unwrap_or(i64::MAX) - 1;
            acc * n + usize::try_from(x.min(last).max(0)).unwrap_or(0)
        })
    }

    /// The element at `at`, every index clamped into range; 0 where there is none.
    pub fn get(&self, at: &[i64]) -> i64 {
        self.data.get(self.offset(at)).copied().unwrap_or(0)
    }

    /// The last axis at `at` on the axes before it, clamped; empty where there is none.
    pub fn row(&self, at: &[i64]) -> &[i64] {
        let n = self.shape.last().copied().unwrap_or(1);
        let start = self.offset(at).saturating_mul(n);
        self.data.get(start..start.saturating_add(n)).unwrap_or(&[])
    }
}

impl Sym {
    /// The value in `env`. Sums and products saturate; a quotient or remainder by a divisor that is not positive is 0;
    /// a name that `env` lacks reads as 0 (check once with [`Env::missing`]).
    pub fn eval(&self, env: &Env) -> i64 {
        let named = |map: &BTreeMap<String, i64>, name: &String| map.get(name).copied().unwrap_or(0);
        let list = |at: &[Sym]| at.iter().map(|s| s.eval(env)).collect::<Vec<_>>();
        match self {
            Sym::Const(c) => *c,
            Sym::RowLo => env.row_lo,
            Sym::RowHi => env.row_hi,
            Sym::Len(name) => named(&env.lens, name),
            Sym::Scalar(name) => named(&env.scalars, name),
            Sym::Fixed(name) => named(&env.fixed, name),
            Sym::Add(a, b) => a.eval(env).saturating_add(b.eval(env)),
            Sym::Sub(a, b) => a.eval(env).saturating_sub(b.eval(env)),
            Sym::Mul(a, b) => a.eval(env).saturating_mul(b.eval(env)),
            Sym::FloorDiv(a, b) => match b.eval(env) {
                n @ 1.. => a.eval(env).div_euclid(n),
                _ => 0,
            },
            Sym::Rem(a, b) => match b.eval(env) {
                n @ 1.. => a.eval(env).rem_euclid(n),
                _ => 0,
            },
            Sym::Min(a, b) => a.eval(env).min(b.eval(env)),
            Sym::Max(a, b) => a.eval(env).max(b.eval(env)),
            Sym::IfLe(a, b, t, e) => if a.eval(env) <= b.eval(env) { t } else { e }.eval(env),
            Sym::Load { table, at } => env.tables.get(table).map_or(0, |t| t.get(&list(at))),
            Sym::Search {
                table,
                at,
                value,
                upper,
            } => {
                let value = value.eval(env);
                let count = env.tables.get(table).map_or(0, |t| {
                    t.row(&list(at))
                        .partition_point(|x| if *upper { *x <= value } else { *x < value })
                });
                i64::try_from(count).unwrap_or(i64::MAX)
            }
        }
    }

    /// Calls `f` on this expression and every one inside it.
    pub fn visit<'a>(&'a self, f: &mut impl FnMut(&'a Sym)) {
        f(self);
        match self {
            Sym::Const(_) | Sym::RowLo | Sym::RowHi | Sym::Len(_) | Sym::Scalar(_) | Sym::Fixed(_) => {}
            Sym::Add(a, b)
            | Sym::Sub(a, b)
            | Sym::Mul(a, b)
            | Sym::FloorDiv(a, b)
            | Sym::Rem(a, b)
            | Sym::Min(a, b)
            | Sym::Max(a, b) => {
                a.visit(f);
                b.visit(f);
            }
            Sym::IfLe(a, b, t, e) => [a, b, t, e].into_iter().for_each(|s| s.visit(f)),
            Sym::Load { at, .. } => at.iter().for_each(|s| s.visit(f)),
            Sym::Search { at, value, .. } => {
                at.iter().for_each(|s| s.visit(f));
                value.visit(f);
            }
        }
    }
}

impl Env {
    /// The names in `ranges` that this environment lacks, sorted: `len(j)`, `w`, `doc[]`.
    pub fn missing(&self, ranges: &Ranges) -> Vec<String> {
        let mut names = BTreeSet::new();
        for end in ranges
            .pieces
            .iter()
            .flat_map(|p| [&p.possible, &p.certain])
            .flat_map(|i| [&i.lo, &i.hi])
        {
            end.visit(&mut |s| match s {
                Sym::Len(n) if !self.lens.contains_key(n) => drop(names.insert(format!("len({n})"))),
                Sym::Scalar(n) if !self.scalars.contains_key(n) => drop(names.insert(n.clone())),
                Sym::Fixed(n) if !self.fixed.contains_key(n) => drop(names.insert(n.clone())),
                Sym::Load { table, .. } | Sym::Search { table, .. } if !self.tables.contains_key(table) => {
                    names.insert(format!("{table}[]"));
                }
                _ => {}
            });
        }
        names.into_iter().collect()
    }
}
