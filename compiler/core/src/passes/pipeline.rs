//! The pipeliner: expands a [`Stream`] into a prologue and loops in which copies run ahead of the tiles they serve.
//!
//! It stands after `lower`, which knows what depends on what but not when, and before emission. Every stage comes with a
//! *lead* (how many iterations it runs ahead) and its buffer with a number of *slots*; nothing else distinguishes a
//! double-buffered loop from FlashAttention-2's (one slot, keys fetched as soon as the product with them is done, values
//! when the tile begins).
//!
//! # Where things go
//! In iteration `t`, before the body: wait for the stages that ran ahead, one barrier, then the copies of iteration
//! `t + lead` into slots that the barrier has freed (`slots > lead`). A stage with `slots == lead` overwrites what this very
//! iteration reads, so its copy follows the last reader, behind a barrier of its own. A stage with `lead == 0` is waited
//! for in front of its first reader; the two kinds of barrier are merged where they meet.
//!
//! # Why it is right
//! Every copy is closed in a group of its own, one per stage and iteration, empty when there is nothing to fetch, so the
//! number of groups that may still be pending at each wait is a constant. The kernel interpreter checks the result: a
//! missing wait, barrier or slot is a race there.

use super::rename::{self, Names};
use crate::lower::Unsupported;
use drawloom_kernel::ir::{
    Block, BufId, Carried, Dtype, Effect, Frag, If, Kernel, Loop, MapOp, Op, Operand, Segment, Stmt, Stream, Val,
};

/// Expands every stream in the kernel's roles.
///
/// # Errors
/// [`Unsupported`] for stages that the target's copies cannot run ahead (values carried from a leading stage).
pub fn pipeline(mut kernel: Kernel) -> Result<Kernel, Unsupported> {
    for r in 0..kernel.roles.len() {
        let warps = kernel.roles[r].warps;
        let body = std::mem::take(&mut kernel.roles[r].body);
        kernel.roles[r].body = expand_block(&mut kernel, body, warps)?;
    }
    Ok(kernel)
}

fn expand_block(kernel: &mut Kernel, block: Block, warps: u32) -> Result<Block, Unsupported> {
    let mut out = Vec::new();
    for stmt in block.0 {
        match stmt {
            Stmt::Stream(stream) => expand(kernel, &mut out, stream, warps)?,
            Stmt::Loop(mut l) => {
                l.body = expand_block(kernel, l.body, warps)?;
                out.push(Stmt::Loop(l));
            }
            Stmt::If(mut i) => {
                i.then = expand_block(kernel, i.then, warps)?;
                i.otherwise = expand_block(kernel, i.otherwise, warps)?;
                out.push(Stmt::If(i));
            }
            Stmt::Let { .. } | Stmt::Do(_) => out.push(stmt),
        }
    }
    Ok(Block(out))
}

/// When one stage's copies are issued and waited for.
struct Plan {
    lead: u32,
    /// Statement of the body before which it is waited for; 0 is the top of the iteration.
    wait: usize,
    /// Statement of the body before which iteration `t + lead` is issued; 0 is the top.
    issue: usize,
}

fn expand(kernel: &mut Kernel, out: &mut Vec<Stmt>, stream: Stream, warps: u32) -> Result<(), Unsupported> {
    let Stream {
        var,
        stages,
        segments,
        carried,
    } = stream;
    if stages.iter().any(|s| !s.results.is_empty()) {
        return Err(Unsupported::new("a stage that computes ahead"));
    }
    let Some(last) = segments.last() else {
        return Err(Unsupported::new("a stream without segments"));
    };
    let count = last.end;
    let i32s = Frag::scalar(Dtype::I32);

    // Prologue: the copies of iterations 0..lead, oldest first, in the order in which the loop issues them.
    let max_lead = stages.iter().map(|s| s.lead).max().unwrap_or(0);
    let plan_of = |segment: &Segment| plan(kernel, &stages, &segment.body);
    let plans: Vec<Vec<Plan>> = segments.iter().map(plan_of).collect::<Result<_, _>>()?;
    let order = |plans: &[Plan]| {
        let mut order: Vec<usize> = (0..plans.len()).collect();
        order.sort_by_key(|&s| plans[s].issue);
        order
    };
    let issue_order = order(&plans[0]);
    if plans.iter().any(|p| order(p) != issue_order) {
        return Err(Unsupported::new("segments that read their buffers in different orders"));
    }
    let mut prologue = Vec::new();
    let mut groups = 0;
    for back in (1..=max_lead).rev() {
        for &s in &issue_order {
            let lead = stages[s].lead;
            if lead >= back {
                let t = constant(kernel, &mut prologue, i64::from(lead - back));
                guarded(kernel, &mut prologue, var, t, count, &stages[s].block);
            }
            if lead >= back || groups > 0 {
                prologue.push(Stmt::Do(Effect::CommitGroup));
                groups += 1;
            }
        }
    }
    // What was fetched before the stream (the query tile) is waited for behind the prologue's copies, not before them.
    let at = out
        .iter()
        .rposition(|s| matches!(s, Stmt::Do(Effect::CommitGroup)))
        .map_or(out.len(), |n| n + 1);
    for stmt in &mut out[at..] {
        if let Stmt::Do(Effect::WaitGroup { pending: pending @ 0 }) = stmt {
            *pending = groups;
        }
    }
    out.splice(at..at, prologue);

    // One loop per segment; the state and the copies in flight cross from one to the next.
    let mut state: Vec<Val> = carried.iter().map(|c| c.init).collect();
    let mut begin = constant(kernel, out, 0);
    let segment_count = segments.len();
    for (n, (segment, plans)) in segments.into_iter().zip(plans).enumerate() {
        let end = segment.end;
        let mut renamed = Names::new();
        let loop_var = kernel.new_val(i32s);
        renamed.insert(var, loop_var);
        let mut loop_carried = Vec::new();
        for (c, &init) in carried.iter().zip(&state) {
            let ty = kernel.ty(c.arg);
            let arg = kernel.new_val(ty);
            renamed.insert(c.arg, arg);
            let result = if n + 1 == segment_count {
                c.result
            } else {
                kernel.new_val(ty)
            };
            loop_carried.push(Carried {
                arg,
                init,
                next: arg,
                result,
            });
        }
        let body = iteration(kernel, &stages, &segment, &plans, var, count, warps);
        let body = rename::block(kernel, &body, &mut renamed);
        for (c, next) in loop_carried.iter_mut().zip(&segment.next) {
            c.next = renamed.get(next).copied().unwrap_or(*next);
        }
        state = loop_carried.iter().map(|c| c.result).collect();
        out.push(Stmt::Loop(Loop {
            var: loop_var,
            lo: begin,
            hi: end,
            carried: loop_carried,
            body,
        }));
        begin = end;
    }
    Ok(())
}

/// Decides where each stage is waited for and issued in a body.
fn plan(kernel: &Kernel, stages: &[drawloom_kernel::ir::Stage], body: &Block) -> Result<Vec<Plan>, Unsupported> {
    stages
        .iter()
        .map(|stage| {
            let buf = written(&stage.block).ok_or_else(|| Unsupported::new("a stage that copies nothing"))?;
            let slots = kernel.buffers[buf.index()].slots;
            let readers: Vec<usize> = (0..body.0.len()).filter(|&n| reads(&body.0[n], buf)).collect();
            let (Some(&first), Some(&last)) = (readers.first(), readers.last()) else {
                return Err(Unsupported::new("a stage whose buffer the body does not read"));
            };
            let lead = stage.lead;
            if lead > slots {
                return Err(Unsupported::new(format!(
                    "a lead of {lead} iterations over {slots} slots"
                )));
            }
            Ok(Plan {
                lead,
                wait: if lead == 0 { first } else { 0 },
                issue: if lead == slots { last + 1 } else { 0 },
            })
        })
        .collect()
}

/// One iteration in terms of the stream's own variable.
fn iteration(
    kernel: &mut Kernel,
    stages: &[drawloom_kernel::ir::Stage],
    segment: &Segment,
    plans: &[Plan],
    var: Val,
    count: Val,
    warps: u32,
) -> Block {
    let mut plans: Vec<(usize, &Plan, usize)> = plans.iter().enumerate().map(|(n, p)| (n, p, p.wait)).collect();
    // A wait that another stage's barrier precedes without a reader in between joins it.
    let joins: Vec<usize> = plans.iter().map(|&(_, p, _)| p.issue).filter(|&n| n > 0).collect();
    for (_, plan, wait) in &mut plans {
        if plan.lead == 0
            && let Some(&n) = joins.iter().find(|&&n| n <= *wait)
        {
            *wait = n;
        }
    }
    let mut issue_order: Vec<usize> = (0..plans.len()).collect();
    issue_order.sort_by_key(|&s| plans[s].1.issue);
    let mut out = Vec::new();
    for n in 0..=segment.body.0.len() {
        let waits: Vec<usize> = (0..plans.len()).filter(|&s| plans[s].2 == n).collect();
        let issues: Vec<usize> = issue_order.iter().copied().filter(|&s| plans[s].1.issue == n).collect();
        if let Some(pending) = waits.iter().map(|&s| pending(&plans, &issue_order, s, n)).min() {
            out.push(Stmt::Do(Effect::WaitGroup { pending }));
        }
        if n == 0 || !waits.is_empty() || !issues.is_empty() {
            out.push(Stmt::Do(Effect::Barrier { id: 0, warps }));
        }
        for s in issues {
            let lead = constant(kernel, &mut out, i64::from(plans[s].1.lead));
            let t = kernel.new_val(Frag::scalar(Dtype::I32));
            out.push(Stmt::Let {
                dst: t,
                op: Op::Map(MapOp::Add, vec![var, lead]),
            });
            let stage = &stages[s];
            guarded(kernel, &mut out, var, t, count, &stage.block);
            out.push(Stmt::Do(Effect::CommitGroup));
        }
        if let Some(stmt) = segment.body.0.get(n) {
            out.push(stmt.clone());
        }
    }
    Block(out)
}

/// Groups committed after the one that stage `s` waits for, at position `at` of an iteration (waits precede issues).
fn pending(plans: &[(usize, &Plan, usize)], issue_order: &[usize], s: usize, at: usize) -> u32 {
    let position = issue_order
        .iter()
        .position(|&o| o == s)
        .expect("invariant: every stage is issued");
    let after_in_iteration = (issue_order.len() - 1 - position) as u32;
    let before_wait = issue_order.iter().filter(|&&o| plans[o].1.issue < at).count() as u32;
    match plans[s].1.lead {
        0 => issue_order[position + 1..]
            .iter()
            .filter(|&&o| plans[o].1.issue < at)
            .count() as u32,
        lead => after_in_iteration + (lead - 1) * issue_order.len() as u32 + before_wait,
    }
}

/// `if t < count { block with var = t }`.
fn guarded(kernel: &mut Kernel, out: &mut Vec<Stmt>, var: Val, t: Val, count: Val, block: &Block) {
    let cond = kernel.new_val(Frag::scalar(Dtype::Bool));
    out.push(Stmt::Let {
        dst: cond,
        op: Op::Map(MapOp::Lt, vec![t, count]),
    });
    let mut renamed = Names::from([(var, t)]);
    let then = rename::block(kernel, block, &mut renamed);
    out.push(Stmt::If(If {
        cond,
        then,
        otherwise: Block::default(),
        results: Vec::new(),
    }));
}

fn constant(kernel: &mut Kernel, out: &mut Vec<Stmt>, value: i64) -> Val {
    let dst = kernel.new_val(Frag::scalar(Dtype::I32));
    out.push(Stmt::Let {
        dst,
        op: Op::ConstI(value),
    });
    dst
}

/// The buffer that a stage's block copies into.
pub(super) fn written(block: &Block) -> Option<BufId> {
    block.0.iter().find_map(|s| match s {
        Stmt::Do(Effect::Copy { dst, .. }) => Some(dst.buf),
        Stmt::If(i) => written(&i.then).or_else(|| written(&i.otherwise)),
        Stmt::Loop(l) => written(&l.body),
        Stmt::Let { .. } | Stmt::Do(_) | Stmt::Stream(_) => None,
    })
}

/// Whether a statement reads a buffer.
pub(super) fn reads(stmt: &Stmt, buf: BufId) -> bool {
    let of = |o: &Operand| match o {
        Operand::Shared(v) | Operand::SharedT(v) => v.buf == buf,
        Operand::Reg(_) => false,
    };
    match stmt {
        Stmt::Let { op, .. } => match op {
            Op::Mma { a, b, .. } | Op::MmaAsync { a, b, .. } => of(a) || of(b),
            Op::LoadShared(v) => v.buf == buf,
            _ => false,
        },
        Stmt::Do(e) => match e {
            Effect::StoreTile { src, .. } | Effect::TmaStore { src, .. } => src.buf == buf,
            _ => false,
        },
        Stmt::Loop(l) => l.body.0.iter().any(|s| reads(s, buf)),
        Stmt::If(i) => i.then.0.iter().chain(&i.otherwise.0).any(|s| reads(s, buf)),
        Stmt::Stream(_) => false,
    }
}
