//! From a row's piece to a tile's: the least and greatest ends over consecutive rows.

use super::part::Part;
use super::{Interval, Sym};
use std::collections::BTreeSet;

/// From the row to the tile.
pub(super) fn over_tile(row: &Part, len: &Sym, sorted: &BTreeSet<String>) -> Part {
    // An end whose rows are unknown leaves what the others bound, and that may have lost the clamp to the keys.
    let all = Interval {
        lo: Sym::Const(0),
        hi: len.clone(),
    };
    let lo =
        extreme(&row.possible.lo, End::Least, sorted).map_or_else(|| all.lo.clone(), |lo| lo.larger(all.lo.clone()));
    let hi = extreme(&row.possible.hi, End::Greatest, sorted)
        .map_or_else(|| all.hi.clone(), |hi| hi.smaller(all.hi.clone()));
    // A window of negative width is empty in every row, though its ends over all rows would enclose something.
    let possible = Interval {
        hi: widths(&row.possible).fold(hi, |hi, w| Sym::if_le(w, Sym::Const(0), Sym::Const(0), hi)),
        lo,
    };
    let certain = row.certain.as_ref().and_then(|c| {
        Some(Interval {
            lo: extreme(&c.lo, End::Greatest, sorted)?,
            hi: extreme(&c.hi, End::Least, sorted)?,
        })
    });
    Part { possible, certain }
}

/// A bound of `s` over the rows `RowLo..=RowHi`, where `RowLo` in `s` stands for the row.
fn extreme(s: &Sym, end: End, sorted: &BTreeSet<String>) -> Option<Sym> {
    if !s.depends_on_row() {
        return Some(s.clone());
    }
    let same = |s: &Sym| extreme(s, end, sorted);
    let other = |s: &Sym| extreme(s, end.flip(), sorted);
    let pick = |a: Sym, b: Sym| if end == End::Least { a.smaller(b) } else { a.larger(b) };
    Some(match s {
        Sym::RowLo if end == End::Least => Sym::RowLo,
        Sym::RowLo | Sym::RowHi => Sym::RowHi,
        Sym::Add(a, b) => same(a)? + same(b)?,
        Sym::Sub(a, b) => same(a)? - other(b)?,
        Sym::Mul(a, b) => {
            let corner =
                |x: fn(End) -> End, y: fn(End) -> End| Some(extreme(a, x(end), sorted)? * extreme(b, y(end), sorted)?);
            let keep: fn(End) -> End = |e| e;
            let (near, far) = (corner(keep, keep)?, corner(End::flip, End::flip)?);
            let one_moves = !a.depends_on_row() || !b.depends_on_row();
            let fixed = if a.depends_on_row() { b } else { a };
            if one_moves && Sym::Const(0).at_most(fixed) {
                near
            } else if one_moves && fixed.at_most(&Sym::Const(0)) {
                far
            } else {
                pick(
                    pick(near, far),
                    pick(corner(keep, End::flip)?, corner(End::flip, keep)?),
                )
            }
        }
        Sym::FloorDiv(a, n) if !n.depends_on_row() => same(a)?.floor_div((**n).clone()),
        Sym::Rem(a, n) if !n.depends_on_row() => {
            let n = (**n).clone();
            let (least, greatest) = (extreme(a, End::Least, sorted)?, extreme(a, End::Greatest, sorted)?);
            let (first, last) = (
                least.clone().floor_div(n.clone()),
                greatest.clone().floor_div(n.clone()),
            );
            match end {
                End::Least => Sym::if_le(last, first, least.floor_rem(n), Sym::Const(0)),
                End::Greatest => Sym::if_le(last, first, greatest.floor_rem(n.clone()), n - Sym::Const(1)),
            }
        }
        Sym::Min(a, b) => match (same(a), same(b)) {
            (Some(a), Some(b)) => a.smaller(b),
            (Some(s), None) | (None, Some(s)) if end == End::Greatest => s,
            _ => return None,
        },
        Sym::Max(a, b) => match (same(a), same(b)) {
            (Some(a), Some(b)) => a.larger(b),
            (Some(s), None) | (None, Some(s)) if end == End::Least => s,
            _ => return None,
        },
        Sym::IfLe(a, b, t, e) => {
            let (t, e) = (same(t)?, same(e)?);
            let diff = (**a).clone() - (**b).clone();
            let zero = Sym::Const(0);
            let toward = pick(t.clone(), e.clone());
            // Where some row may take the branch that lies further out, the tile does.
            if toward == t {
                Sym::if_le(extreme(&diff, End::Least, sorted)?, zero, t, e)
            } else if toward == e {
                Sym::if_le(extreme(&diff, End::Greatest, sorted)?, zero, t, e)
            } else {
                let some = extreme(&diff, End::Least, sorted)?;
                let every = extreme(&diff, End::Greatest, sorted)?;
                Sym::if_le(every, zero.clone(), t, Sym::if_le(some, zero, toward, e))
            }
        }
        Sym::Load { table, at } => {
            let (last, before) = at.split_last()?;
            if !sorted.contains(table) || before.iter().any(Sym::depends_on_row) {
                return None;
            }
            let at = before.iter().cloned().chain([same(last)?]).collect();
            Sym::Load {
                table: table.clone(),
                at,
            }
        }
        Sym::Search {
            table,
            at,
            value,
            upper,
        } if !at.iter().any(Sym::depends_on_row) => Sym::Search {
            table: table.clone(),
            at: at.clone(),
            value: Box::new(same(value)?),
            upper: *upper,
        },
        Sym::FloorDiv(..) | Sym::Rem(..) | Sym::Search { .. } => return None,
        Sym::Const(_) | Sym::Len(_) | Sym::Scalar(_) | Sym::Fixed(_) => s.clone(),
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Least,
    Greatest,
}

impl End {
    fn flip(self) -> End {
        match self {
            End::Least => End::Greatest,
            End::Greatest => End::Least,
        }
    }
}
/// Upper bounds of the width of a row's interval that are the same in every row though the interval moves.
fn widths(i: &Interval) -> impl Iterator<Item = Sym> {
    let lows = arms(&i.lo, |s| if let Sym::Max(a, b) = s { Some((a, b)) } else { None });
    let highs = arms(&i.hi, |s| if let Sym::Min(a, b) = s { Some((a, b)) } else { None });
    lows.into_iter().filter(|s| s.depends_on_row()).flat_map(move |lo| {
        highs
            .clone()
            .into_iter()
            .map(move |hi| hi.clone() - lo.clone())
            .filter(|w| !w.depends_on_row())
    })
}

fn arms(s: &Sym, two: fn(&Sym) -> Option<(&Sym, &Sym)>) -> Vec<&Sym> {
    match two(s) {
        Some((a, b)) => [arms(a, two), arms(b, two)].concat(),
        None => vec![s],
    }
}
