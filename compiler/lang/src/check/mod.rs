//! The checker: syntax trees to [`Spec`]s, all errors at once.
//!
//! In: an [`ast::Attention`] that parsed. Out: a well-formed spec, or diagnostics. Declarations come first ([`decl`]), so
//! that every expression ([`expr`], [`pattern`]) knows all names; the stage ([`stage`]) decides which axes its
//! expressions may use; outputs and unused names come last.

mod decl;
mod expr;
mod pattern;
mod scope;
mod stage;

pub use expr::{binary_name, unary_name};
pub use stage::type_name;

use crate::ast;
use crate::diag::{Sink, names};
use crate::spec::Spec;
use std::collections::HashMap;

/// Checks every spec of a file or call; the ones that have errors are left out.
pub fn check(trees: &[ast::Attention], sink: &mut Sink) -> Vec<Spec> {
    let mut specs = Vec::new();
    let mut seen = HashMap::new();
    for tree in trees {
        let name = &tree.name;
        match seen.get(&name.text) {
            Some(first) => {
                sink.report(names::duplicate_spec(name.span, &name.text, *first));
            }
            None => {
                seen.insert(&name.text, name.span);
            }
        }
        if !tree.broken {
            specs.extend(attention(tree, sink));
        }
    }
    specs
}

fn attention(tree: &ast::Attention, sink: &mut Sink) -> Option<Spec> {
    let before = sink.count();
    let mut spec = Spec {
        name: tree.name.text.clone(),
        visibility: tree.visibility.clone(),
        doc: tree.doc.clone(),
        types: Vec::new(),
        axes: Vec::new(),
        inputs: Vec::new(),
        scalars: Vec::new(),
        stages: Vec::new(),
        outputs: Vec::new(),
        tile: Vec::new(),
        exprs: Vec::new(),
        span: tree.name.span,
    };
    scope::free_name(&tree.name, false, sink);
    let mut scope = scope::Scope::new(tree, sink)?;
    decl::declare(tree, &mut scope, &mut spec, sink);
    stage::stages(tree, &mut scope, &mut spec, sink);
    // An unused name is an echo where an expression that may have used it has an error.
    if sink.count() == before {
        scope.report_unused(&spec, sink);
    }
    (sink.count() == before).then_some(spec)
}
