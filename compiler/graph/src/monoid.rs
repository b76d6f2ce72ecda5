//! The weighted log-sum-exp monoid: built in one place, recognised by comparison with what is built.
//!
//! A state is `(m, l, o)`: the largest score, and relative to it the sum of weights and the weighted sum of values:
//! `sum exp(s) = l exp(m)`, `sum exp(s) v = o exp(m)`. Merging two states rescales both to the larger `m`; the identity
//! is `(-inf, 0, 0)`. Tiling, split-KV and the merge of partial attentions are re-associations of it.
//!
//! A masked key lifts the identity. That is a selection: whatever its score and value are, infinite or NaN, they have no
//! part in the result. Source: Milakov and Gimelshein 2018, arXiv:1805.02867; Dao et al. 2022, arXiv:2205.14135.

use crate::build::{Builder, CompDef, FoldDef};
use crate::ir::{Axis, Binary, Direction, FoldId, Graph, Mode, Op, Side, Unary, Val};
use std::collections::BTreeSet;

/// Keys of an attention.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Their axes.
    pub over: Vec<Axis>,
    /// Score of a key: real, over the rows' and the keys' axes.
    pub score: Val,
    /// Whether a key is visible; `None`: always.
    pub mask: Option<Val>,
    /// Value of a key: real, over the keys' and the values' axes.
    pub value: Val,
}

/// What a softmax fold is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogSumExp {
    /// Component of the maximum.
    pub m: u32,
    /// Component of the sum of weights.
    pub l: u32,
    /// Component of the weighted sum of values.
    pub o: u32,
    /// Score of a key, mask not applied.
    pub score: Val,
    /// Whether a key is visible.
    pub mask: Option<Val>,
    /// Value of a key, mask not applied.
    pub value: Val,
}

/// A fold with components `m`, `l`, `o` over keys of several kinds under one softmax.
pub fn log_sum_exp(b: &mut Builder, keys: &[Keys]) -> FoldId {
    let (none, zero, one) = (b.real(f64::NEG_INFINITY), b.real(0.0), b.real(1.0));
    let mut lifts: [Vec<Val>; 3] = Default::default();
    let mut rows = BTreeSet::new();
    let mut features = BTreeSet::new();
    for k in keys {
        let parts = [(k.score, none), (one, zero), (k.value, zero)];
        for (lift, (seen, hidden)) in lifts.iter_mut().zip(parts) {
            lift.push(k.mask.map_or(seen, |mask| b.select(mask, seen, hidden)));
        }
        let outside = |v: Val| {
            b.axes(v)
                .iter()
                .copied()
                .filter(|a| !k.over.contains(a))
                .collect::<Vec<_>>()
        };
        rows.extend(outside(k.score));
        rows.extend(k.mask.map(outside).into_iter().flatten());
        features.extend(outside(k.value));
    }
    features.extend(&rows);
    let [m, l, o] = lifts;
    let (rows, all): (Vec<Axis>, Vec<Axis>) = (rows.into_iter().collect(), features.into_iter().collect());
    let comp = |name: &str, axes: &[Axis], init, lift| CompDef {
        name: name.to_owned(),
        axes: axes.to_vec(),
        init,
        lift,
    };
    let comps = vec![
        comp("m", &rows, none, m),
        comp("l", &rows, zero, l),
        comp("o", &all, zero, o),
    ];
    let over = keys.iter().map(|k| k.over.clone()).collect();
    let def = FoldDef {
        over,
        direction: Direction::Forward,
        mode: Mode::Reduce,
        associative: true,
    };
    let fold = b.fold(def, comps);
    let combines = region(b, fold, [0, 1, 2]);
    b.combine(fold, &combines);
    fold
}

/// The combines of `m`, `l`, `o`.
fn region(b: &mut Builder, fold: FoldId, [m, l, o]: [u32; 3]) -> [Val; 3] {
    let (ml, mr) = (b.hole(fold, m, Side::Left), b.hole(fold, m, Side::Right));
    let largest = b.binary(Binary::Max, ml, mr);
    // The difference of two -inf has no value; where nothing has been seen any reference does.
    let (none, zero) = (b.real(f64::NEG_INFINITY), b.real(0.0));
    let empty = b.binary(Binary::Eq, largest, none);
    let reference = b.select(empty, zero, largest);
    let scale = |b: &mut Builder, m: Val| {
        let gap = b.binary(Binary::Sub, m, reference);
        b.unary(Unary::Exp, gap)
    };
    let (left, right) = (scale(b, ml), scale(b, mr));
    let sum = |b: &mut Builder, comp: u32| {
        let (x, y) = (b.hole(fold, comp, Side::Left), b.hole(fold, comp, Side::Right));
        let (x, y) = (b.binary(Binary::Mul, x, left), b.binary(Binary::Mul, y, right));
        b.binary(Binary::Add, x, y)
    };
    [largest, sum(b, l), sum(b, o)]
}

/// The normalised result `o / l`; exactly 0 where nothing was visible.
pub fn normalised(b: &mut Builder, fold: FoldId, l: u32, o: u32) -> Val {
    let (sum, weighted) = (positive(b, fold, l), b.get(fold, o));
    b.binary(Binary::Div, weighted, sum)
}

/// The log-sum-exp `m + ln l` in nats; negative infinity where nothing was visible.
pub fn log_sum(b: &mut Builder, fold: FoldId, m: u32, l: u32) -> Val {
    let (largest, sum) = (b.get(fold, m), positive(b, fold, l));
    let log = b.unary(Unary::Log, sum);
    b.binary(Binary::Add, largest, log)
}

/// `l`, or 1 where it is 0: there `o` is 0 and `m` negative infinity, and no derivative is lost in 0/0.
fn positive(b: &mut Builder, fold: FoldId, l: u32) -> Val {
    let sum = b.get(fold, l);
    let (zero, one) = (b.real(0.0), b.real(1.0));
    let empty = b.binary(Binary::Eq, sum, zero);
    b.select(empty, one, sum)
}

/// The components `m`, `l`, `o` of a fold that combines as [`log_sum_exp`] does, whatever its lifts are (scores and
/// values, or partial states that are merged). Two sums are alike as monoids: `l` is the first of them.
pub fn components(g: &Graph, fold: FoldId) -> Option<[u32; 3]> {
    let def = g.folds.get(fold.index())?;
    if def.comps.len() != 3 {
        return None;
    }
    let inits: Vec<f64> = def.comps.iter().filter_map(|c| real(g, c.init)).collect();
    let m = inits.iter().position(|&x| x == f64::NEG_INFINITY)?;
    let sums: Vec<usize> = (0..3).filter(|&n| n != m && inits.get(n) == Some(&0.0)).collect();
    let &[l, o] = sums.as_slice() else { return None };
    let comps = [m as u32, l as u32, o as u32];
    let mut b = Builder::from_graph(g.clone());
    let built = region(&mut b, fold, comps);
    let same = comps
        .iter()
        .zip(built)
        .all(|(&n, v)| same_value(&b.graph, def.comps[n as usize].combine, v));
    same.then_some(comps)
}

/// Recognises a softmax over one range of keys, whichever way round its sums stand.
pub fn classify(g: &Graph, fold: FoldId) -> Option<LogSumExp> {
    let [m, first, second] = components(g, fold)?;
    let def = g.fold(fold);
    if def.over.len() != 1 || def.mode != Mode::Reduce {
        return None;
    }
    let lift = |comp: u32| def.comps[comp as usize].lift[0];
    // A lift is `seen` or `mask ? seen : hidden`.
    let parts = |comp: u32, hidden: f64| match g.node(lift(comp)).op {
        Op::Select(mask, seen, other) if real(g, other) == Some(hidden) => (seen, Some(mask)),
        _ => (lift(comp), None),
    };
    let (score, mask) = parts(m, f64::NEG_INFINITY);
    [(first, second), (second, first)].into_iter().find_map(|(l, o)| {
        let ((one, mask_l), (value, mask_o)) = (parts(l, 0.0), parts(o, 0.0));
        let alike = |other: Option<Val>| match (mask, other) {
            (None, None) => true,
            (Some(a), Some(b)) => same_value(g, a, b),
            (None, Some(_)) | (Some(_), None) => false,
        };
        let holds = real(g, one) == Some(1.0) && alike(mask_l) && alike(mask_o);
        holds.then_some(LogSumExp {
            m,
            l,
            o,
            score,
            mask,
            value,
        })
    })
}

fn real(g: &Graph, v: Val) -> Option<f64> {
    match g.nodes.get(v.index())?.op {
        Op::Real(x) => Some(x),
        _ => None,
    }
}

/// Whether two values are the same expression; the operands of commutative operations in either order.
pub fn same_value(g: &Graph, a: Val, b: Val) -> bool {
    if a == b {
        return true;
    }
    let (Some(x), Some(y)) = (g.nodes.get(a.index()), g.nodes.get(b.index())) else {
        return false;
    };
    match (&x.op, &y.op) {
        (Op::Binary(p, a, b), Op::Binary(q, c, d)) => {
            let commutes = matches!(p, Binary::Add | Binary::Mul | Binary::Min | Binary::Max | Binary::Eq);
            p == q
                && (same_value(g, *a, *c) && same_value(g, *b, *d)
                    || commutes && same_value(g, *a, *d) && same_value(g, *b, *c))
        }
        (p, q) => {
            let (of, other) = (p.operands(), q.operands());
            shape(p) == shape(q) && of.len() == other.len() && of.iter().zip(&other).all(|(&a, &b)| same_value(g, a, b))
        }
    }
}

/// An operation without its operands.
fn shape(op: &Op) -> Op {
    let none = Val(0);
    match op.clone() {
        Op::Unary(op, _) => Op::Unary(op, none),
        Op::Binary(op, _, _) => Op::Binary(op, none, none),
        Op::Select(..) => Op::Select(none, none, none),
        Op::Rename { from, to, .. } => Op::Rename { of: none, from, to },
        Op::Contract { over, .. } => Op::Contract { a: none, b: none, over },
        Op::Reduce { op, over, .. } => Op::Reduce { op, of: none, over },
        Op::Gather { at, fill, .. } => Op::Gather {
            of: none,
            at: at.iter().map(|p| (p.0, none)).collect(),
            fill,
        },
        Op::TopK {
            over, rank, ascending, ..
        } => Op::TopK {
            of: none,
            over,
            rank,
            ascending,
        },
        Op::TriSolve { row, col, .. } => Op::TriSolve {
            a: none,
            b: none,
            row,
            col,
        },
        leaf @ (Op::Real(_)
        | Op::Int(_)
        | Op::Bool(_)
        | Op::Input { .. }
        | Op::Scalar(_)
        | Op::Index(_)
        | Op::Len(_)
        | Op::Hole { .. }
        | Op::Get { .. }) => leaf,
    }
}
