//! Simplification: constants are computed, neutral operations vanish, what no output needs is dropped.
//!
//! Only rules that hold for every value an expression can have, infinities and NaN included (`x * 0` stays), and that do
//! not change a value's axes. Constants fold in `f64`, the arithmetic of the oracle, and only to finite results. The sizes
//! of constant axes are constants. Integer identities assume that reads are in range, as everywhere.

use super::map_roots;
use crate::ir::{Axis, Binary, FoldId, Graph, Node, Op, Size, Ty, Unary, Val};

/// The simplified graph: the same outputs, values renumbered, unused axes kept.
pub fn simplify(graph: &Graph) -> Graph {
    let mut out = Graph {
        nodes: Vec::new(),
        ..graph.clone()
    };
    let mut new: Vec<Val> = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        let mut op = node.op.clone();
        op.map_operands(|v| new[v.index()]);
        let node = Node { op, ..node.clone() };
        new.push(match rule(&out, &node) {
            Some(Becomes::Value(v)) if out.node(v).axes == node.axes => v,
            Some(Becomes::Op(op)) => push(&mut out, Node { op, ..node }),
            Some(Becomes::Value(_)) | None => push(&mut out, node),
        });
    }
    map_roots(&mut out, |v| new[v.index()]);
    prune(&out)
}

fn push(graph: &mut Graph, node: Node) -> Val {
    graph.nodes.push(node);
    Val(u32::try_from(graph.nodes.len() - 1).expect("invariant: values are numbered by u32"))
}

/// What a node can be replaced by.
enum Becomes {
    /// A value that exists.
    Value(Val),
    /// Another operation with the same axes.
    Op(Op),
}

fn rule(g: &Graph, node: &Node) -> Option<Becomes> {
    // A constant has no axes, so only a node without any becomes one.
    if node.axes.is_empty()
        && let Some(constant) = fold_constant(g, node)
    {
        return Some(Becomes::Op(constant));
    }
    let op = |v: Val| &g.node(v).op;
    let value = match &node.op {
        Op::Unary(outer @ (Unary::Neg | Unary::Not), a) => match op(*a) {
            Op::Unary(inner, x) if inner == outer => *x,
            _ => return None,
        },
        Op::Unary(Unary::Abs, a) => match op(*a) {
            Op::Unary(Unary::Abs, _) => *a,
            Op::Unary(Unary::Neg, x) => return Some(Becomes::Op(Op::Unary(Unary::Abs, *x))),
            _ => return None,
        },
        Op::Select(c, a, b) => match op(*c) {
            Op::Bool(true) => *a,
            Op::Bool(false) => *b,
            Op::Unary(Unary::Not, c) => return Some(Becomes::Op(Op::Select(*c, *b, *a))),
            _ if a == b => *a,
            _ => return None,
        },
        Op::Binary(binary, a, b) => return neutral(g, *binary, *a, *b),
        _ => return None,
    };
    Some(Becomes::Value(value))
}

/// Binary operations with a neutral or deciding operand.
fn neutral(g: &Graph, binary: Binary, a: Val, b: Val) -> Option<Becomes> {
    let is = |v: Val, c: f64| match g.node(v).op {
        Op::Real(x) => x == c,
        Op::Int(x) => i64_is(x, c),
        _ => false,
    };
    let truth = |v: Val| if let Op::Bool(t) = g.node(v).op { Some(t) } else { None };
    let value = match binary {
        Binary::Add if is(a, 0.0) => b,
        Binary::Add | Binary::Sub | Binary::Shr if is(b, 0.0) => a,
        Binary::Mul if is(a, 1.0) => b,
        Binary::Mul | Binary::Div | Binary::Pow if is(b, 1.0) => a,
        Binary::Min | Binary::Max | Binary::And | Binary::Or if a == b => a,
        Binary::And if truth(a) == Some(true) || truth(b) == Some(false) => b,
        Binary::And if truth(b) == Some(true) || truth(a) == Some(false) => a,
        Binary::Or if truth(a) == Some(false) || truth(b) == Some(true) => b,
        Binary::Or if truth(b) == Some(false) || truth(a) == Some(true) => a,
        _ => return None,
    };
    Some(Becomes::Value(value))
}

fn i64_is(x: i64, c: f64) -> bool {
    (x == 0 && c == 0.0) || (x == 1 && c == 1.0)
}

/// The constant that a node without axes is.
fn fold_constant(g: &Graph, node: &Node) -> Option<Op> {
    let real = |v: Val| if let Op::Real(x) = g.node(v).op { Some(x) } else { None };
    let int = |v: Val| if let Op::Int(x) = g.node(v).op { Some(x) } else { None };
    match &node.op {
        Op::Len(axis) => constant_len(g, *axis).map(Op::Int),
        Op::Unary(Unary::ToReal, a) => exact(int(*a)?).map(Op::Real),
        Op::Unary(Unary::Not, a) => match g.node(*a).op {
            Op::Bool(t) => Some(Op::Bool(!t)),
            _ => None,
        },
        Op::Unary(op, a) if node.ty == Ty::Real => finite(unary(*op, real(*a)?)?),
        Op::Unary(Unary::Neg, a) => int(*a)?.checked_neg().map(Op::Int),
        Op::Unary(Unary::Abs, a) => int(*a)?.checked_abs().map(Op::Int),
        Op::Binary(op, a, b) => match (int(*a), int(*b), real(*a), real(*b)) {
            (Some(x), Some(y), _, _) => integers(*op, x, y),
            (_, _, Some(x), Some(y)) => reals(*op, x, y),
            _ => None,
        },
        _ => None,
    }
}

fn constant_len(g: &Graph, axis: Axis) -> Option<i64> {
    match g.axes.get(axis.index())?.size {
        Size::Const(n) => Some(n.into()),
        // Sizes refer to earlier axes only.
        Size::Same(of) if of < axis => constant_len(g, of),
        Size::CeilDiv { of, by } if of < axis && by > 0 => {
            let by = i64::from(by);
            constant_len(g, of).map(|n| (n + by - 1) / by)
        }
        Size::Runtime | Size::Same(_) | Size::CeilDiv { .. } => None,
    }
}

/// An integer as a double, where that is exact.
fn exact(x: i64) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "below 2^53 nothing is lost")]
    (x.unsigned_abs() < 1 << 53).then_some(x as f64)
}

fn finite(x: f64) -> Option<Op> {
    x.is_finite().then_some(Op::Real(x))
}

fn unary(op: Unary, x: f64) -> Option<f64> {
    Some(match op {
        Unary::Neg => -x,
        Unary::Abs => x.abs(),
        Unary::Exp => x.exp(),
        Unary::Log => x.ln(),
        Unary::Tanh => x.tanh(),
        Unary::Sqrt => x.sqrt(),
        Unary::Rsqrt => 1.0 / x.sqrt(),
        Unary::Recip => 1.0 / x,
        Unary::Sin => x.sin(),
        Unary::Cos => x.cos(),
        Unary::Floor | Unary::Sign | Unary::Not | Unary::ToReal => return None,
    })
}

fn integers(op: Binary, x: i64, y: i64) -> Option<Op> {
    let value = match op {
        Binary::Add => x.checked_add(y)?,
        Binary::Sub => x.checked_sub(y)?,
        Binary::Mul => x.checked_mul(y)?,
        Binary::Div if y > 0 => x.div_euclid(y),
        Binary::Rem if y > 0 => x.rem_euclid(y),
        Binary::Min => x.min(y),
        Binary::Max => x.max(y),
        Binary::BitAnd => x & y,
        Binary::Lt => return Some(Op::Bool(x < y)),
        Binary::Le => return Some(Op::Bool(x <= y)),
        Binary::Eq => return Some(Op::Bool(x == y)),
        Binary::Div | Binary::Rem | Binary::And | Binary::Or | Binary::Shr | Binary::Pow => return None,
    };
    Some(Op::Int(value))
}

fn reals(op: Binary, x: f64, y: f64) -> Option<Op> {
    let value = match op {
        Binary::Add => x + y,
        Binary::Sub => x - y,
        Binary::Mul => x * y,
        Binary::Div => x / y,
        Binary::Min => x.min(y),
        Binary::Max => x.max(y),
        Binary::Lt => return Some(Op::Bool(x < y)),
        Binary::Le => return Some(Op::Bool(x <= y)),
        Binary::Eq => return Some(Op::Bool(x == y)),
        Binary::Rem | Binary::And | Binary::Or | Binary::BitAnd | Binary::Shr | Binary::Pow => return None,
    };
    finite(value)
}

/// Drops values and folds that no output needs, in order.
fn prune(graph: &Graph) -> Graph {
    let mut live = vec![false; graph.nodes.len()];
    let mut live_fold = vec![false; graph.folds.len()];
    let mut work: Vec<Val> = graph.outputs.iter().map(|o| o.value).collect();
    while let Some(v) = work.pop() {
        if std::mem::replace(&mut live[v.index()], true) {
            continue;
        }
        let op = &graph.node(v).op;
        work.extend(op.operands());
        if let Op::Get { fold, .. } | Op::Hole { fold, .. } = op
            && !std::mem::replace(&mut live_fold[fold.index()], true)
        {
            work.extend(graph.fold(*fold).values());
        }
    }
    let number = |live: &[bool]| {
        live.iter()
            .scan(0u32, |next, l| {
                let n = *next;
                *next += u32::from(*l);
                Some(n)
            })
            .collect::<Vec<_>>()
    };
    let (value, fold) = (number(&live), number(&live_fold));
    let mut out = graph.clone();
    fn keep(flags: &[bool]) -> impl Iterator<Item = bool> {
        flags.iter().copied()
    }
    let (mut nodes, mut folds) = (keep(&live), keep(&live_fold));
    out.nodes.retain(|_| nodes.next().unwrap_or(true));
    out.folds.retain(|_| folds.next().unwrap_or(true));
    map_roots(&mut out, |v| Val(value[v.index()]));
    for node in &mut out.nodes {
        node.op.map_operands(|v| Val(value[v.index()]));
        if let Op::Get { fold: of, .. } | Op::Hole { fold: of, .. } = &mut node.op {
            *of = FoldId(fold[of.index()]);
        }
    }
    out
}
