//! Pieces of rows and of tiles: intersection, and joining down to few.

use super::{Interval, Sym};

/// A piece of one row (endpoints in `RowLo`, which stands for the row) or of one tile.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Part {
    pub possible: Interval,
    pub certain: Option<Interval>,
}

fn intersect(a: &Interval, b: &Interval) -> Interval {
    Interval {
        lo: a.lo.clone().larger(b.lo.clone()),
        hi: a.hi.clone().smaller(b.hi.clone()),
    }
}

pub(super) fn both(a: &Part, b: &Part) -> Part {
    Part {
        possible: intersect(&a.possible, &b.possible),
        certain: a.certain.as_ref().zip(b.certain.as_ref()).map(|(x, y)| intersect(x, y)),
    }
}

/// Drops what is provably empty, joins what is provably one interval, and over-approximates down to `limit` pieces.
pub(super) fn tidy(parts: Vec<Part>, limit: usize) -> Vec<Part> {
    let mut out: Vec<Part> = Vec::new();
    for mut part in parts {
        if part.possible.hi.at_most(&part.possible.lo) {
            continue;
        }
        let Some(possible) = settle(&part.possible) else {
            continue;
        };
        part.possible = possible;
        part.certain = part.certain.filter(|c| !c.hi.at_most(&c.lo)).and_then(|c| settle(&c));
        while let Some(joined) = out.iter().position(|p| join(p, &part).is_some()) {
            let other = out.remove(joined);
            part = join(&other, &part).expect("invariant: position found a join");
        }
        out.push(part);
    }
    while out.len() > limit {
        let last = out.pop().expect("invariant: more than `limit` pieces");
        // Best beside one that is not exact anyway.
        let with = out.iter().rposition(|p| p.certain.is_none()).unwrap_or(out.len() - 1);
        let other = out.remove(with);
        out.push(Part {
            possible: Interval {
                lo: other.possible.lo.smaller(last.possible.lo),
                hi: other.possible.hi.larger(last.possible.hi),
            },
            certain: other.certain.or(last.certain),
        });
    }
    out
}

/// The interval (of keys, so `lo` is not negative) without guards that its other upper ends imply; `None` where they
/// exclude each other. A guard is an upper end `if c <= 0 { t } else { 0 }`.
fn settle(i: &Interval) -> Option<Interval> {
    let mut ends = Vec::new();
    let mut work = vec![&i.hi];
    while let Some(s) = work.pop() {
        match s {
            Sym::Min(a, b) => work.extend([&**a, &**b]),
            s => ends.push(s),
        }
    }
    for (n, guard) in ends.iter().enumerate() {
        let Sym::IfLe(lhs, rhs, then, otherwise) = guard else {
            continue;
        };
        if **otherwise != Sym::Const(0) {
            continue;
        }
        let c = (**lhs).clone() - (**rhs).clone();
        let mut others = ends
            .iter()
            .enumerate()
            .filter(|(m, _)| *m != n)
            .map(|(_, s)| (*s).clone());
        if others.clone().any(|h| h.at_most(&c)) {
            return None;
        }
        if others.any(|h| (h + c.clone()).at_most(&Sym::Const(1))) {
            let rest = ends.iter().filter(|s| *s != guard).map(|s| (*s).clone());
            let hi = rest.fold((**then).clone(), Sym::smaller);
            return settle(&Interval { lo: i.lo.clone(), hi });
        }
    }
    Some(i.clone())
}

/// The union of two pieces where it is provably one.
fn join(a: &Part, b: &Part) -> Option<Part> {
    let possible = union(&a.possible, &b.possible)?;
    let certain = match (&a.certain, &b.certain) {
        (Some(x), Some(y)) => Some(union(x, y)?),
        (x, y) => x.clone().or_else(|| y.clone()),
    };
    Some(Part { possible, certain })
}

/// The union where it is provably one interval, whichever of the two is empty.
fn union(a: &Interval, b: &Interval) -> Option<Interval> {
    let touches = |a: &Interval, b: &Interval| a.lo.at_most(&b.lo) && b.lo.at_most(&a.hi);
    if a.lo == b.lo || touches(a, b) {
        Some(Interval {
            lo: a.lo.clone(),
            hi: a.hi.clone().larger(b.hi.clone()),
        })
    } else if touches(b, a) {
        Some(Interval {
            lo: b.lo.clone(),
            hi: a.hi.clone().larger(b.hi.clone()),
        })
    } else if a.hi == b.hi {
        Some(Interval {
            lo: a.lo.clone().smaller(b.lo.clone()),
            hi: a.hi.clone(),
        })
    } else {
        None
    }
}
