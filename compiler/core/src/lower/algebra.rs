//! What can be told of graph expressions before lowering: constants, and positive constant factors.

use drawloom_graph::ir::{Binary, Graph, Op as GOp, Ty, Unary, Val as GVal};

/// `(factor, rest)` with `v = factor * rest` and a positive constant factor, pulled out of products and quotients.
pub fn positive_factor(graph: &Graph, v: GVal) -> (f64, GVal) {
    if let GOp::Binary(op @ (Binary::Mul | Binary::Div), x, y) = graph.nodes[v.index()].op {
        if let Some(c) = constant(graph, y).filter(|c| *c > 0.0 && c.is_finite()) {
            let (inner, rest) = positive_factor(graph, x);
            return (if op == Binary::Mul { inner * c } else { inner / c }, rest);
        }
        if op == Binary::Mul
            && let Some(c) = constant(graph, x).filter(|c| *c > 0.0 && c.is_finite())
        {
            let (inner, rest) = positive_factor(graph, y);
            return (inner * c, rest);
        }
    }
    (1.0, v)
}

/// The value of an expression of constants and constant sizes.
pub fn constant(graph: &Graph, v: GVal) -> Option<f64> {
    let node = &graph.nodes[v.index()];
    Some(match &node.op {
        GOp::Real(x) => *x,
        GOp::Int(x) => *x as f64,
        GOp::Bool(x) => f64::from(u8::from(*x)),
        GOp::Len(axis) => match graph.axes[axis.index()].size {
            drawloom_graph::ir::Size::Const(n) => f64::from(n),
            drawloom_graph::ir::Size::Runtime
            | drawloom_graph::ir::Size::Same(_)
            | drawloom_graph::ir::Size::CeilDiv { .. } => return None,
        },
        GOp::Unary(op, a) => {
            let a = constant(graph, *a)?;
            match op {
                Unary::Neg => -a,
                Unary::Abs => a.abs(),
                Unary::Exp => a.exp(),
                Unary::Log => a.ln(),
                Unary::Tanh => a.tanh(),
                Unary::Sqrt => a.sqrt(),
                Unary::Rsqrt => 1.0 / a.sqrt(),
                Unary::Recip => 1.0 / a,
                Unary::ToReal => a,
                Unary::Not => f64::from(u8::from(a == 0.0)),
                Unary::Sin => a.sin(),
                Unary::Cos => a.cos(),
                Unary::Floor => a.floor(),
                Unary::Sign => {
                    if a == 0.0 {
                        0.0
                    } else {
                        a.signum()
                    }
                }
            }
        }
        GOp::Binary(op, x, y) => {
            let (x, y) = (constant(graph, *x)?, constant(graph, *y)?);
            let truth = |t: bool| f64::from(u8::from(t));
            match (op, node.ty) {
                (Binary::Add, _) => x + y,
                (Binary::Sub, _) => x - y,
                (Binary::Mul, _) => x * y,
                (Binary::Div, Ty::Real) => x / y,
                (Binary::Div, Ty::Int | Ty::Bool) if y > 0.0 => (x / y).floor(),
                (Binary::Rem, _) if y > 0.0 => x.rem_euclid(y),
                (Binary::Min, _) => x.min(y),
                (Binary::Max, _) => x.max(y),
                (Binary::Lt, _) => truth(x < y),
                (Binary::Le, _) => truth(x <= y),
                (Binary::Eq, _) => truth(x == y),
                (Binary::And, _) => truth(x != 0.0 && y != 0.0),
                (Binary::Or, _) => truth(x != 0.0 || y != 0.0),
                (Binary::Div | Binary::Rem | Binary::BitAnd | Binary::Shr | Binary::Pow, _) => return None,
            }
        }
        _ => return None,
    })
}
