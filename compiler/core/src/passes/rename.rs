//! Copies of statements with definitions of their own: what every pass that writes a block twice needs.

use drawloom_kernel::ir::{
    Block, Carried, If, Kernel, Loop, Phi, Segment, Stage, Stmt, Stream, Val, visit_effect_mut, visit_op_mut,
};
use std::collections::HashMap;

/// What to call values instead. Values that it does not name keep their names.
pub type Names = HashMap<Val, Val>;

/// The new name of a value.
pub fn get(names: &Names, v: Val) -> Val {
    names.get(&v).copied().unwrap_or(v)
}

/// A fresh value of the same type, entered in `names`.
pub fn fresh(kernel: &mut Kernel, v: Val, names: &mut Names) -> Val {
    let ty = kernel.ty(v);
    let new = kernel.new_val(ty);
    names.insert(v, new);
    new
}

/// A copy of a block with fresh definitions.
pub fn block(kernel: &mut Kernel, block: &Block, names: &mut Names) -> Block {
    Block(block.0.iter().map(|s| stmt(kernel, s, names)).collect())
}

/// A copy of a statement with fresh definitions.
pub fn stmt(kernel: &mut Kernel, of: &Stmt, names: &mut Names) -> Stmt {
    match of {
        Stmt::Let { dst, op } => {
            let mut op = op.clone();
            visit_op_mut(&mut op, &mut |v| *v = get(names, *v));
            Stmt::Let {
                dst: fresh(kernel, *dst, names),
                op,
            }
        }
        Stmt::Do(effect) => {
            let mut effect = effect.clone();
            visit_effect_mut(&mut effect, &mut |v| *v = get(names, *v));
            Stmt::Do(effect)
        }
        Stmt::Loop(l) => {
            let (lo, hi) = (get(names, l.lo), get(names, l.hi));
            let inits: Vec<Val> = l.carried.iter().map(|c| get(names, c.init)).collect();
            let var = fresh(kernel, l.var, names);
            let args: Vec<Val> = l.carried.iter().map(|c| fresh(kernel, c.arg, names)).collect();
            let body = block(kernel, &l.body, names);
            let carried = l
                .carried
                .iter()
                .zip(inits.into_iter().zip(args))
                .map(|(c, (init, arg))| Carried {
                    arg,
                    init,
                    next: get(names, c.next),
                    result: fresh(kernel, c.result, names),
                })
                .collect();
            Stmt::Loop(Loop {
                var,
                lo,
                hi,
                carried,
                body,
            })
        }
        Stmt::If(i) => {
            let cond = get(names, i.cond);
            let then = block(kernel, &i.then, names);
            let otherwise = block(kernel, &i.otherwise, names);
            let results = i
                .results
                .iter()
                .map(|p| Phi {
                    then: get(names, p.then),
                    otherwise: get(names, p.otherwise),
                    result: fresh(kernel, p.result, names),
                })
                .collect();
            Stmt::If(If {
                cond,
                then,
                otherwise,
                results,
            })
        }
        Stmt::Stream(s) => Stmt::Stream(stream(kernel, s, names)),
    }
}

fn stream(kernel: &mut Kernel, s: &Stream, names: &mut Names) -> Stream {
    let ends: Vec<Val> = s.segments.iter().map(|g| get(names, g.end)).collect();
    let inits: Vec<Val> = s.carried.iter().map(|c| get(names, c.init)).collect();
    let var = fresh(kernel, s.var, names);
    let stages = s
        .stages
        .iter()
        .map(|g| Stage {
            lead: g.lead,
            role: g.role.clone(),
            block: block(kernel, &g.block, names),
            results: g.results.iter().map(|v| get(names, *v)).collect(),
        })
        .collect();
    let args: Vec<Val> = s.carried.iter().map(|c| fresh(kernel, c.arg, names)).collect();
    let segments = s
        .segments
        .iter()
        .zip(ends)
        .map(|(g, end)| Segment {
            name: g.name.clone(),
            end,
            body: block(kernel, &g.body, names),
            next: g.next.iter().map(|v| get(names, *v)).collect(),
        })
        .collect();
    let carried = s
        .carried
        .iter()
        .zip(inits.into_iter().zip(args))
        .map(|(c, (init, arg))| Carried {
            arg,
            init,
            next: arg,
            result: fresh(kernel, c.result, names),
        })
        .collect();
    Stream {
        var,
        stages,
        segments,
        carried,
    }
}
