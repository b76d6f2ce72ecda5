//! Damaged specs that are still specs: compiling one gives kernels or says why not, and never a kernel that does not
//! verify, nor a panic.

use drawloom_compiler::compile::{CompileError, Options, compile};
use drawloom_fuzz::{fuzz, seeds};
use std::cell::RefCell;
use std::collections::BTreeSet;

/// Different specs that are compiled in a run: each costs a search, and LLVM's time.
const MOST: usize = 40;

#[test]
fn compile_no_panic() {
    let seen = RefCell::new(BTreeSet::new());
    fuzz(&seeds(&["specs"], ".attn"), |text| {
        for spec in drawloom_lang::parse_str("damaged.attn", text).unwrap_or_default() {
            if seen.borrow().len() >= MOST || !seen.borrow_mut().insert(drawloom_lang::key(&spec)) {
                continue;
            }
            let first = drawloom_lang::bindings(&spec).into_iter().next();
            let options = Options {
                bindings: first.map(|binding| vec![binding]),
                ..Options::default()
            };
            if let Err(error @ (CompileError::Invalid { .. } | CompileError::Artifact(_))) = compile(&spec, &options) {
                panic!("{error}");
            }
        }
    });
}
