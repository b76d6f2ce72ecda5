//! Graph to graph, one file per rewrite. Each states when it holds, refuses where it does not, and keeps every output's
//! value in exact arithmetic; tests compare values through the interpreter.

mod simplify;
mod split_kv;

pub use simplify::simplify;
pub use split_kv::{Refused, split_kv};

use crate::ir::{Graph, Op, Val};

/// Replaces every operand.
fn map_operands(op: &mut Op, mut f: impl FnMut(Val) -> Val) {
    match op {
        Op::Real(_)
        | Op::Int(_)
        | Op::Bool(_)
        | Op::Input { .. }
        | Op::Scalar(_)
        | Op::Index(_)
        | Op::Len(_)
        | Op::Hole { .. }
        | Op::Get { .. } => {}
        Op::Unary(_, a) => *a = f(*a),
        Op::Binary(_, a, b) | Op::Contract { a, b, .. } | Op::TriSolve { a, b, .. } => {
            *a = f(*a);
            *b = f(*b);
        }
        Op::Select(c, a, b) => {
            *c = f(*c);
            *a = f(*a);
            *b = f(*b);
        }
        Op::Rename { of, .. } | Op::Reduce { of, .. } | Op::TopK { of, .. } => *of = f(*of),
        Op::Gather { of, at, .. } => {
            *of = f(*of);
            for (_, index) in at {
                *index = f(*index);
            }
        }
    }
}

/// Replaces every value that folds and outputs name.
fn map_roots(graph: &mut Graph, f: impl Fn(Val) -> Val) {
    for comp in graph.folds.iter_mut().flat_map(|fold| &mut fold.comps) {
        comp.init = f(comp.init);
        comp.combine = f(comp.combine);
        for lift in &mut comp.lift {
            *lift = f(*lift);
        }
    }
    for output in &mut graph.outputs {
        output.value = f(output.value);
    }
}
