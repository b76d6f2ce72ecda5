//! Removes what nobody uses: definitions without readers, carried values that only feed themselves, empty branches.
//!
//! It stands behind specialisation, which gives every role a copy of the whole program and leaves each with what it
//! does not need.

use drawloom_kernel::ir::{Block, Kernel, Stmt, Val, visit_effect_mut, visit_op_mut};
use std::collections::HashSet;

/// Removes dead code from every role.
pub fn eliminate(mut kernel: Kernel) -> Kernel {
    for role in &mut kernel.roles {
        // Liveness is closed over carried values by repetition; each round can only find more that is used.
        let mut live = HashSet::new();
        loop {
            let before = live.len();
            mark(&role.body, &mut live);
            if live.len() == before {
                break;
            }
        }
        sweep(&mut role.body, &live);
    }
    kernel
}

/// Marks what a block's effects need, given what is already known to be used.
fn mark(block: &Block, live: &mut HashSet<Val>) {
    for stmt in block.0.iter().rev() {
        match stmt {
            Stmt::Let { dst, op } => {
                if live.contains(dst) {
                    visit_op_mut(&mut op.clone(), &mut |v| {
                        live.insert(*v);
                    });
                }
            }
            Stmt::Do(effect) => visit_effect_mut(&mut effect.clone(), &mut |v| {
                live.insert(*v);
            }),
            Stmt::Loop(l) => {
                for c in &l.carried {
                    if live.contains(&c.result) || live.contains(&c.arg) {
                        live.extend([c.arg, c.init, c.next]);
                    }
                }
                mark(&l.body, live);
                if has_effects(&l.body) || l.carried.iter().any(|c| live.contains(&c.arg)) {
                    live.extend([l.lo, l.hi]);
                }
            }
            Stmt::If(i) => {
                for p in &i.results {
                    if live.contains(&p.result) {
                        live.extend([p.then, p.otherwise]);
                    }
                }
                mark(&i.then, live);
                mark(&i.otherwise, live);
                let some = i.results.iter().any(|p| live.contains(&p.result));
                if some || has_effects(&i.then) || has_effects(&i.otherwise) {
                    live.insert(i.cond);
                }
            }
            Stmt::Stream(_) => unreachable!("invariant: streams are expanded by now"),
        }
    }
}

fn has_effects(block: &Block) -> bool {
    block.0.iter().any(|stmt| match stmt {
        Stmt::Let { .. } => false,
        Stmt::Do(_) => true,
        Stmt::Loop(l) => has_effects(&l.body),
        Stmt::If(i) => has_effects(&i.then) || has_effects(&i.otherwise),
        Stmt::Stream(_) => true,
    })
}

fn sweep(block: &mut Block, live: &HashSet<Val>) {
    block.0.retain_mut(|stmt| match stmt {
        Stmt::Let { dst, .. } => live.contains(dst),
        Stmt::Do(_) | Stmt::Stream(_) => true,
        Stmt::Loop(l) => {
            l.carried.retain(|c| live.contains(&c.arg));
            sweep(&mut l.body, live);
            has_effects(&l.body) || !l.carried.is_empty()
        }
        Stmt::If(i) => {
            i.results.retain(|p| live.contains(&p.result));
            sweep(&mut i.then, live);
            sweep(&mut i.otherwise, live);
            has_effects(&i.then) || has_effects(&i.otherwise) || !i.results.is_empty()
        }
    });
}
