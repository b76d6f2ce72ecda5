//! Graph to graph, one file per rewrite. Each states when it holds, refuses where it does not, and keeps every output's
//! value in exact arithmetic; tests compare values through the interpreter.

mod simplify;
mod split_kv;

pub use simplify::simplify;
pub use split_kv::{Refused, split_kv};

use crate::ir::{Graph, Val};

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
