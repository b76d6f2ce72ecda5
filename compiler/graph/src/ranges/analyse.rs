//! From conditions to key intervals: first per row, then per tile of consecutive rows.
//!
//! For one row an atom is solved for the key index: comparisons of linear forms, floor quotients and sorted tables give
//! exact intervals; remainders give everything as possible and nothing as certain (or what their range decides); an
//! unknown condition the same. Conjunctions intersect, disjunctions collect, and pieces whose union is provably one
//! interval are joined. Endpoints are functions of the row; over the rows of a tile the possible interval takes the least
//! lower end and the greatest upper end, the certain interval the opposite, each found by monotonicity.

use super::expr::{Cond, Lin, Term};
use super::part::{Part, both, tidy};
use super::read::{axis_len, read_mask};
use super::tile::over_tile;
use super::{Interval, MAX_PIECES, Piece, Ranges, Sym};
use crate::ir::{Axis, Graph, Val};
use drawloom_lang::spec::Align;
use std::collections::BTreeSet;

/// What a mask's axes and tables mean.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Query axis.
    pub query: Axis,
    /// Key axis.
    pub key: Axis,
    /// Which end of the keys the queries are aligned with: what `Index(query)` is in terms of the row's position.
    pub align: Align,
    /// Integer inputs that are declared non-decreasing along their last axis.
    pub sorted: &'a BTreeSet<String>,
}

/// The key ranges of a mask over `ctx.query` and `ctx.key`; `None` sees every key. All other axes are fixed in a tile.
///
/// Sound for every mask: a key that some row of a tile sees is possible in some piece, and every row of the tile sees
/// the certain keys. Where a mask reads a table out of range, the graph's value is an error and nothing is promised.
pub fn analyse(graph: &Graph, mask: Option<Val>, ctx: &Context<'_>) -> Ranges {
    let cond = mask.map_or(Cond::Const(true), |mask| read_mask(graph, mask, ctx));
    let mut solver = Solver {
        len: axis_len(graph, ctx.key),
        sorted: ctx.sorted,
        solved: 0,
    };
    let rows = solver.rows(&cond, 0);
    let tiles = rows
        .into_iter()
        .map(|row| over_tile(&row, &solver.len, ctx.sorted))
        .collect();
    let never = || Interval {
        lo: Sym::Const(0),
        hi: Sym::Const(0),
    };
    let pieces = tidy(tiles, MAX_PIECES)
        .into_iter()
        .map(|p| Piece {
            possible: p.possible,
            certain: p.certain.unwrap_or_else(never),
        })
        .collect();
    Ranges { pieces }
}

/// The most pieces kept while combining.
const MAX_WORKING: usize = 12;
/// The most atoms solved; the rest of a mask that has more is unknown.
const MAX_SOLVED: u32 = 512;
/// The deepest nesting of conditions that is followed.
const MAX_DEPTH: u32 = 256;

struct Solver<'a> {
    len: Sym,
    sorted: &'a BTreeSet<String>,
    solved: u32,
}

impl Solver<'_> {
    fn all(&self) -> Interval {
        Interval {
            lo: Sym::Const(0),
            hi: self.len.clone(),
        }
    }

    fn exactly(&self, i: Interval) -> Vec<Part> {
        vec![Part {
            certain: Some(i.clone()),
            possible: i,
        }]
    }

    fn unknown(&self) -> Vec<Part> {
        vec![Part {
            possible: self.all(),
            certain: None,
        }]
    }

    fn rows(&mut self, cond: &Cond, depth: u32) -> Vec<Part> {
        if depth > MAX_DEPTH {
            return self.unknown();
        }
        let d = depth + 1;
        let parts = match cond {
            Cond::Const(true) => self.exactly(self.all()),
            Cond::Const(false) => Vec::new(),
            Cond::Unknown => self.unknown(),
            Cond::And(a, b) => {
                let (a, b) = (self.rows(a, d), self.rows(b, d));
                a.iter().flat_map(|x| b.iter().map(|y| both(x, y))).collect()
            }
            Cond::Or(a, b) => {
                let mut parts = self.rows(a, d);
                parts.extend(self.rows(b, d));
                parts
            }
            Cond::Le(lin) => self.le(lin, d),
            Cond::Eq(lin) => match (lin.find_if(), lin.scaled(-1)) {
                (None, Some(neg)) => {
                    let both = Cond::Le(lin.clone()).and(Cond::Le(neg));
                    self.rows(&both, d)
                }
                (Some(c), _) => self.cases(lin, &c, Cond::Eq, d),
                (None, None) => self.unknown(),
            },
        };
        tidy(parts, MAX_WORKING)
    }

    /// `atom(lin)`, by cases of a condition inside `lin`.
    fn cases(&mut self, lin: &Lin, c: &Cond, atom: fn(Lin) -> Cond, depth: u32) -> Vec<Part> {
        match (lin.assume(c, true), lin.assume(c, false)) {
            (Some(yes), Some(no)) => {
                let split = c.clone().and(atom(yes)).or(c.negate().and(atom(no)));
                self.rows(&split, depth)
            }
            _ => self.unknown(),
        }
    }

    /// The keys with `lin <= 0`.
    fn le(&mut self, lin: &Lin, depth: u32) -> Vec<Part> {
        self.solved += 1;
        if self.solved > MAX_SOLVED {
            return self.unknown();
        }
        if let Some(c) = lin.find_if() {
            return self.cases(lin, &c, Cond::Le, depth);
        }
        for (n, (k, term)) in lin.terms.iter().enumerate() {
            let (a, b, either) = match term {
                Term::Min(a, b) => (a, b, *k > 0),
                Term::Max(a, b) => (a, b, *k < 0),
                _ => continue,
            };
            let mut others = lin.clone();
            others.terms.remove(n);
            let (Some(a), Some(b)) = (others.plus(a, *k), others.plus(b, *k)) else {
                return self.unknown();
            };
            let (a, b) = (Cond::Le(a), Cond::Le(b));
            return self.rows(&if either { a.or(b) } else { a.and(b) }, depth);
        }
        match (lin.key, lin.terms.as_slice()) {
            (0, []) => self.guard(&lin.rest),
            (key, []) => self.linear(key, &lin.rest),
            (0, [(k, term)]) => {
                // `k T + rest <= 0`: an upper or a lower bound of T.
                let Some(positive) = k.checked_abs().map(Sym::Const) else {
                    return self.unknown();
                };
                let (bound, upper) = if *k > 0 {
                    ((-lin.rest.clone()).floor_div(positive), true)
                } else {
                    (-(-lin.rest.clone()).floor_div(positive), false)
                };
                match self.term_bounded(term, bound, upper) {
                    Solved::Same(cond) => self.rows(&cond, depth),
                    Solved::Between { possible, certain } => {
                        let (possible, certain) = (self.guard(&possible), self.guard(&certain));
                        between(&possible, &certain)
                    }
                }
            }
            _ => match (relaxed(lin, false), relaxed(lin, true)) {
                (Some(least), Some(most)) => {
                    let (possible, certain) = (self.linear_or_guard(&least), self.linear_or_guard(&most));
                    between(&possible, &certain)
                }
                _ => self.unknown(),
            },
        }
    }

    /// Everything where `rest <= 0`, nothing elsewhere.
    fn guard(&self, rest: &Sym) -> Vec<Part> {
        let hi = Sym::if_le(rest.clone(), Sym::Const(0), self.len.clone(), Sym::Const(0));
        self.exactly(Interval { lo: Sym::Const(0), hi })
    }

    /// `key * j + rest <= 0`.
    fn linear(&self, key: i64, rest: &Sym) -> Vec<Part> {
        let all = self.all();
        let Some(by) = key.checked_abs().map(Sym::Const) else {
            return self.unknown();
        };
        let rest = rest.clone();
        self.exactly(if key > 0 {
            Interval {
                lo: all.lo,
                hi: all.hi.smaller((-rest).floor_div(by) + Sym::Const(1)),
            }
        } else {
            Interval {
                lo: all.lo.larger(-(-rest).floor_div(by)),
                hi: all.hi,
            }
        })
    }

    fn linear_or_guard(&self, lin: &Lin) -> Vec<Part> {
        if lin.key == 0 {
            self.guard(&lin.rest)
        } else {
            self.linear(lin.key, &lin.rest)
        }
    }

    /// `term <= bound` (`upper`) or `term >= bound`.
    fn term_bounded(&self, term: &Term, bound: Sym, upper: bool) -> Solved {
        let (zero, one) = (Sym::Const(0), Sym::Const(1));
        match term {
            Term::FloorDiv(a, n) => {
                // floor(a / n) <= r  is  a <= n r + n - 1;  floor(a / n) >= r  is  a >= n r.
                let edge = Lin::sym(bound * n.clone());
                Solved::Same(if upper {
                    let last = Lin::sym(edge.rest + n.clone() - one);
                    Lin::le(a, &last)
                } else {
                    Lin::le(&edge, a)
                })
            }
            Term::Rem(_, n) => {
                let most = n.clone() - one;
                if upper {
                    Solved::Between {
                        possible: zero - bound.clone(),
                        certain: most - bound,
                    }
                } else {
                    Solved::Between {
                        possible: bound.clone() - most,
                        certain: bound,
                    }
                }
            }
            Term::Load { table, before, last } if self.sorted.contains(table) => {
                // The elements below the bound come first.
                let at = before.clone();
                let found = Sym::Search {
                    table: table.clone(),
                    at,
                    value: Box::new(bound),
                    upper,
                };
                Solved::Same(if upper {
                    Lin::le(last, &Lin::sym(found - one))
                } else {
                    Lin::le(&Lin::sym(found), last)
                })
            }
            Term::Mul(a, s) => {
                let (a, bound) = if upper {
                    ((**a).clone(), bound)
                } else {
                    match a.scaled(-1) {
                        Some(neg) => (neg, -bound),
                        None => return Solved::Same(Cond::Unknown),
                    }
                };
                // a s <= bound, by the sign of s.
                let sign = |from: Sym, to: Sym| Lin::le(&Lin::sym(from), &Lin::sym(to));
                let plus = sign(one.clone(), s.clone()).and(Lin::le(&a, &Lin::sym(bound.clone().floor_div(s.clone()))));
                let none = sign(s.clone(), zero.clone())
                    .and(sign(zero.clone(), s.clone()))
                    .and(sign(zero.clone(), bound.clone()));
                let minus = sign(s.clone(), -one).and(Lin::le(&Lin::sym(-bound.floor_div(-s.clone())), &a));
                Solved::Same(plus.or(none).or(minus))
            }
            Term::Load { .. } | Term::Opaque(_) | Term::Min(..) | Term::Max(..) | Term::If(..) => {
                Solved::Same(Cond::Unknown)
            }
        }
    }
}

/// What became of a bound on a term.
enum Solved {
    /// An equivalent condition.
    Same(Cond),
    /// Possible where the first is `<= 0`, certain where the second is.
    Between { possible: Sym, certain: Sym },
}

/// Possible as the one says, certain as the other says; each a single piece.
fn between(possible: &[Part], certain: &[Part]) -> Vec<Part> {
    possible
        .iter()
        .map(|p| Part {
            possible: p.possible.clone(),
            certain: certain.first().and_then(|c| c.certain.clone()),
        })
        .collect()
}

/// A linear form that is nowhere above (`most`: below) a positive multiple of `lin`: floors by constants become quotients
/// give or take their remainders, remainders become their ranges. `None`: some term has no such bound.
fn relaxed(lin: &Lin, most: bool) -> Option<Lin> {
    let scale = lin.terms.iter().try_fold(1i64, |acc, (_, t)| match t {
        Term::FloorDiv(_, Sym::Const(n @ 1..)) => acc.checked_mul(*n),
        _ => Some(acc),
    })?;
    let linear = Lin {
        key: lin.key,
        terms: Vec::new(),
        rest: lin.rest.clone(),
    };
    let mut out = linear.scaled(scale)?;
    for (k, t) in &lin.terms {
        match t {
            Term::FloorDiv(a, Sym::Const(n @ 1..)) if a.terms.is_empty() => {
                let k = (scale / n).checked_mul(*k)?;
                // n floor(a / n) is a - 0 .. a - (n - 1).
                let slack = if (k > 0) == most { 0 } else { 1 - n };
                out = out.plus(a, k)?.plus(&Lin::constant(slack), k)?;
            }
            Term::Rem(_, n) => {
                let k = scale.checked_mul(*k)?;
                if (k > 0) == most {
                    out = out.plus(&Lin::sym(n.clone() - Sym::Const(1)), k)?;
                }
            }
            _ => return None,
        }
    }
    Some(out)
}
