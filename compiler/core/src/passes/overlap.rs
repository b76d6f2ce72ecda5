//! The overlap of softmax with matrix products, in the consumers' part of a stream.
//!
//! It stands behind specialisation, because what it moves are waits for pipes and for asynchronous products, and before
//! emission, because LLVM and ptxas are only asked to keep its order. A body is taken apart by its dependences:
//!
//! - the *lead*: up to its first product (the scores);
//! - the *tail*: its last product, whose accumulator is carried (the output);
//! - the *rest* between them, of which the *late* part touches the tail's accumulator or rounds the tail's operand.
//!
//! The tail of iteration `t` is issued in iteration `t + 1`, behind the lead, so that two products are in flight while the
//! rest of `t + 1` runs:
//!
//! ```text
//! wait keys(t + 1); lead(t + 1); tail(t); wait for the lead; release keys; rest(t + 1);
//! wait values(t + 1); wait for the tail; release values(t); late(t + 1)
//! ```
//!
//! The wait for the next values, which the next tail needs anyway, stands before the wait for the tail: it is a basic-block
//! boundary, and without one ptxas moves the wait for the tail above the exponentials. The operand is rounded behind
//! that wait, because an instruction that writes an operand's registers while products run makes ptxas serialise them.
//!
//! Iteration 0 is peeled: it has no tail before it. Its lead is issued ahead of the scalar program that finds the tile and
//! its key ranges, which it does not need: integer divisions run while the matrix unit does, and so does what follows the
//! stream but does not read the last tail. Whichever segment it falls in, it runs the first segment's body, which
//! must therefore be right for every tile: lowering puts a segment first that evaluates the mask. The last tail runs behind
//! the loops.
//!
//! # Source
//! Shah et al. 2024, arXiv:2407.08608, section 3.2 (two-stage pipelining within a warpgroup).

use super::Code;
use super::pipe::{Clock, Pipe};
use super::pipeline::reads;
use super::rename::{self, Names};
use crate::lower::Unsupported;
use drawloom_kernel::ir::{
    BufId, Carried, Dtype, Effect, Frag, Loop, MapOp, Op, Operand, SharedView, Stmt, Stream, Val, visit_op_mut,
};
use std::collections::HashSet;

/// How many iterations behind its body a buffer's reader runs: 1 for the tail's operand, else 0.
///
/// # Errors
/// [`Unsupported`] for a stream without a tail.
pub(super) fn lag(stream: &Stream, buf: BufId) -> Result<u32, Unsupported> {
    let parts = parts(stream, 0)?;
    let tail = Stmt::Let {
        dst: parts.tail.dst,
        op: Op::Mma {
            acc: parts.tail.acc,
            a: Operand::Reg(parts.tail.a),
            b: Operand::Shared(parts.tail.b),
        },
    };
    Ok(u32::from(reads(&tail, buf)))
}

/// The last product of a body.
struct Tail {
    dst: Val,
    acc: Val,
    a: Val,
    b: SharedView,
    /// Position of the carried value that it is the next of.
    carried: usize,
}

/// A body, taken apart.
struct Parts<'s> {
    /// Statements before the first product.
    before: Vec<&'s Stmt>,
    /// The first product: what it defines, its operands.
    lead: (Val, &'s Operand, &'s Operand),
    rest: Vec<&'s Stmt>,
    late: Vec<&'s Stmt>,
    tail: Tail,
}

fn parts(stream: &Stream, segment: usize) -> Result<Parts<'_>, Unsupported> {
    let unsupported = |what: &str| Unsupported::new(format!("{what} beside a producer"));
    let segment = &stream.segments[segment];
    let body = &segment.body.0;
    let products: Vec<usize> = (0..body.len())
        .filter(|&n| matches!(&body[n], Stmt::Let { op: Op::Mma { .. }, .. }))
        .collect();
    let &[first, last] = products.as_slice() else {
        return Err(unsupported("a body without two products"));
    };
    let Stmt::Let {
        dst: lead,
        op: Op::Mma { a, b, .. },
    } = &body[first]
    else {
        unreachable!("invariant: it is a product")
    };
    let (
        &[],
        Stmt::Let {
            dst,
            op:
                Op::Mma {
                    acc,
                    a: Operand::Reg(weights),
                    b: Operand::Shared(values),
                },
        },
    ) = (&body[last + 1..], &body[last])
    else {
        return Err(unsupported("a last product of other operands than weights and values"));
    };
    let carried = (segment.next.iter().position(|v| v == dst))
        .ok_or_else(|| unsupported("a last product that is not carried"))?;

    // What touches the accumulator, and what rounds the operand, comes late.
    let mut late_values = HashSet::from([stream.carried[carried].arg]);
    let mut late = Vec::new();
    let mut rest = Vec::new();
    for stmt in &body[first + 1..last] {
        let is_late = match stmt {
            Stmt::Let { dst, op } => {
                let mut found = dst == weights && matches!(op, Op::Map(MapOp::Convert, _));
                visit_op_mut(&mut op.clone(), &mut |v| found |= late_values.contains(v));
                if found {
                    late_values.insert(*dst);
                }
                found
            }
            Stmt::Do(_) | Stmt::Loop(_) | Stmt::If(_) | Stmt::Stream(_) => false,
        };
        if is_late { &mut late } else { &mut rest }.push(stmt);
    }
    for (n, next) in segment.next.iter().enumerate() {
        if n != carried && late_values.contains(next) {
            return Err(unsupported("a carried value that depends on the last product"));
        }
    }
    Ok(Parts {
        before: body[..first].iter().collect(),
        lead: (*lead, a, b),
        rest,
        late,
        tail: Tail {
            dst: *dst,
            acc: *acc,
            a: *weights,
            b: values.clone(),
            carried,
        },
    })
}

/// What one iteration hands to the next: the carried values, with the tail's accumulator in its place, and its operand.
#[derive(Clone)]
struct State {
    carried: Vec<Val>,
    weights: Val,
}

/// The lead of iteration 0, issued ahead of what the program computes before the stream.
pub(super) struct First {
    scores: Val,
    names: Names,
}

/// The values that [`issue_first`] needs from outside the stream.
///
/// # Errors
/// [`Unsupported`] for bodies of another form.
pub(super) fn needed_first(stream: &Stream) -> Result<HashSet<Val>, Unsupported> {
    let parts = parts(stream, 0)?;
    let mut needed = HashSet::new();
    let mut defined = HashSet::from([stream.var]);
    for stmt in &parts.before {
        let Stmt::Let { dst, op } = stmt else {
            return Err(Unsupported::new("a statement without a value before a first product"));
        };
        visit_op_mut(&mut op.clone(), &mut |v| {
            needed.insert(*v);
        });
        defined.insert(*dst);
    }
    let (_, a, b) = parts.lead;
    for operand in [a, b] {
        match operand {
            Operand::Reg(v) => needed.extend([*v]),
            Operand::Shared(v) | Operand::SharedT(v) => needed.extend(v.row),
        }
    }
    needed.retain(|v| !defined.contains(v));
    Ok(needed)
}

/// Issues the lead of iteration 0, behind the wait for its keys.
///
/// # Errors
/// [`Unsupported`] for bodies of another form.
pub(super) fn issue_first(
    code: &mut Code<'_>,
    stream: &Stream,
    pipes: &[Pipe],
    clock: Clock,
) -> Result<First, Unsupported> {
    let parts = parts(stream, 0)?;
    let out = Expansion::new(stream, &parts, pipes, clock)?;
    let zero = code.int(0);
    let mut names = Names::from([(stream.var, zero)]);
    let scores = out.issue_lead(code, &parts, clock.steps, &mut names);
    Ok(First { scores, names })
}

/// Expands the consumers' part of a stream. `tiles` are the pipes of query tiles that it gives back behind its last lead.
///
/// # Errors
/// [`Unsupported`] for bodies of another form.
pub(super) fn expand(
    code: &mut Code<'_>,
    stream: Stream,
    pipes: &[Pipe],
    tiles: &[Pipe],
    clock: Clock,
    first: First,
) -> Result<Last, Unsupported> {
    let all: Vec<Parts<'_>> = (0..stream.segments.len())
        .map(|n| parts(&stream, n))
        .collect::<Result<_, _>>()?;
    let out = Expansion::new(&stream, &all[0], pipes, clock)?;
    let zero = code.int(0);
    let start = State {
        carried: stream.carried.iter().map(|c| c.init).collect(),
        weights: zero,
    };
    let mut state = out.iteration(code, &all[0], zero, &start, Before::Issued(first));
    let one = code.int(1);
    let mut begin = one;
    for (n, (segment, parts)) in stream.segments.iter().zip(&all).enumerate() {
        let is_last = n + 1 == stream.segments.len();
        // A segment that has no iteration but the peeled one.
        if !is_last && constant(code, segment.end).is_some_and(|n| n <= 1) {
            continue;
        }
        let t = code.kernel.new_val(Frag::scalar(Dtype::I32));
        let fresh_like = |code: &mut Code<'_>, v: Val| {
            let ty = code.kernel.ty(v);
            code.kernel.new_val(ty)
        };
        let inner = State {
            carried: (state.carried.iter()).map(|v| fresh_like(code, *v)).collect(),
            weights: fresh_like(code, state.weights),
        };
        // Behind the last loop, the stream's results, but for the sum that is still to be added to.
        let after = State {
            carried: (stream.carried.iter().enumerate())
                .map(|(n, c)| match is_last && n != out.trailing {
                    true => c.result,
                    false => fresh_like(code, c.arg),
                })
                .collect(),
            weights: fresh_like(code, state.weights),
        };
        let (body, next) = code.nested(|code| {
            let one = code.int(1);
            let before = code.arith(MapOp::Sub, t, one);
            Ok::<State, Unsupported>(out.iteration(code, parts, t, &inner, Before::Tail(before)))
        })?;
        let carry = |(((&arg, &init), &next), &result): (((&Val, &Val), &Val), &Val)| Carried {
            arg,
            init,
            next,
            result,
        };
        let mut carried: Vec<Carried> = (inner.carried.iter())
            .zip(&state.carried)
            .zip(&next.carried)
            .zip(&after.carried)
            .map(carry)
            .collect();
        carried.push(carry((
            ((&inner.weights, &state.weights), &next.weights),
            &after.weights,
        )));
        code.push(Stmt::Loop(Loop {
            var: t,
            lo: begin,
            hi: segment.end,
            carried,
            body,
        }));
        begin = code.arith(MapOp::Max, segment.end, one);
        state = after;
    }
    for pipe in tiles {
        pipe.release(code, clock.tiles);
    }
    let count = stream.segments[stream.segments.len() - 1].end;
    let last = code.arith(MapOp::Sub, count, one);
    let last = code.arith(MapOp::Add, clock.steps, last);
    code.effect(Effect::MmaFence);
    let flying = out.issue_tail(code, &state, last);
    Ok(Last {
        result: stream.carried[out.trailing].result,
        flying,
        values: out.values,
        n: last,
    })
}

/// The last tail of a stream, in flight: what does not need it can run before it is waited for.
pub(super) struct Last {
    /// The stream's result that it becomes.
    pub(super) result: Val,
    flying: Val,
    values: Pipe,
    n: Val,
}

impl Last {
    /// Waits for it.
    pub(super) fn wait(self, code: &mut Code<'_>) {
        code.push(Stmt::Let {
            dst: self.result,
            op: Op::MmaWait {
                of: self.flying,
                pending: 0,
            },
        });
        self.values.release(code, self.n);
    }
}

/// What an iteration has before it.
enum Before {
    /// Its own lead, issued already.
    Issued(First),
    /// The iteration of this number, whose tail is to be issued.
    Tail(Val),
}

struct Expansion<'s> {
    stream: &'s Stream,
    keys: Pipe,
    values: Pipe,
    /// That of the query tile.
    queries: Option<Pipe>,
    /// Position of the carried value that the tail sums.
    trailing: usize,
    /// The tail's right operand, but for its slot.
    view: SharedView,
    clock: Clock,
}

impl<'s> Expansion<'s> {
    fn new(stream: &'s Stream, parts: &Parts<'_>, pipes: &[Pipe], clock: Clock) -> Result<Self, Unsupported> {
        let find = |buf: BufId| {
            pipes
                .iter()
                .find(|p| p.buf == buf)
                .copied()
                .ok_or_else(|| Unsupported::new("a product with what no copy fills"))
        };
        let keys = match parts.lead.2 {
            Operand::Shared(v) | Operand::SharedT(v) => find(v.buf)?,
            Operand::Reg(_) => return Err(Unsupported::new("a first product with a right operand in registers")),
        };
        Ok(Expansion {
            stream,
            keys,
            values: find(parts.tail.b.buf)?,
            queries: match parts.lead.1 {
                Operand::Shared(v) | Operand::SharedT(v) => Some(find(v.buf)?),
                Operand::Reg(_) => None,
            },
            trailing: parts.tail.carried,
            view: parts.tail.b.clone(),
            clock,
        })
    }

    /// Waits for the keys of iteration `n` over all streams, and issues the lead.
    fn issue_lead(&self, code: &mut Code<'_>, parts: &Parts<'_>, n: Val, names: &mut Names) -> Val {
        for stmt in &parts.before {
            let stmt = rename::stmt(code.kernel, stmt, names);
            code.push(stmt);
        }
        let slot = self.keys.wait_full(code, n);
        code.effect(Effect::MmaFence);
        let (lead, a, b) = parts.lead;
        let ty = code.kernel.ty(lead);
        let tile = (self.queries.filter(|p| p.slots > 1)).map(|p| p.slot(code, self.clock.tiles).0);
        let op = Op::MmaAsync {
            acc: None,
            a: in_slot(a, tile, names),
            b: in_slot(b, Some(slot), names),
        };
        let scores = code.def(ty, op);
        code.effect(Effect::MmaCommit);
        scores
    }

    /// Iteration `t`.
    fn iteration(&self, code: &mut Code<'_>, parts: &Parts<'_>, t: Val, state: &State, before: Before) -> State {
        let n = code.arith(MapOp::Add, self.clock.steps, t);
        let (mut names, scores, tail) = match before {
            Before::Issued(First { scores, names }) => (names, scores, None),
            Before::Tail(before) => {
                let mut names = Names::from([(self.stream.var, t)]);
                let scores = self.issue_lead(code, parts, n, &mut names);
                let n = code.arith(MapOp::Add, self.clock.steps, before);
                (names, scores, Some((self.issue_tail(code, state, n), n)))
            }
        };
        for (i, (c, v)) in self.stream.carried.iter().zip(&state.carried).enumerate() {
            if i != self.trailing {
                names.insert(c.arg, *v);
            }
        }
        let (lead, _, _) = parts.lead;
        let ready = wait(code, scores, u32::from(tail.is_some()));
        names.insert(lead, ready);
        self.keys.release(code, n);
        for stmt in &parts.rest {
            let stmt = rename::stmt(code.kernel, stmt, &mut names);
            code.push(stmt);
        }
        self.values.wait_full(code, n);
        let sum = match tail {
            None => state.carried[self.trailing],
            Some((flying, n)) => {
                let sum = wait(code, flying, 0);
                self.values.release(code, n);
                sum
            }
        };
        names.insert(self.stream.carried[self.trailing].arg, sum);
        for stmt in &parts.late {
            let stmt = rename::stmt(code.kernel, stmt, &mut names);
            code.push(stmt);
        }
        let segment = (self.stream.segments.iter())
            .find(|g| g.next.contains(&parts.tail.dst))
            .expect("invariant: the parts are those of a segment");
        let carried = (segment.next.iter().enumerate())
            .map(|(i, v)| {
                if i == self.trailing {
                    rename::get(&names, parts.tail.acc)
                } else {
                    rename::get(&names, *v)
                }
            })
            .collect();
        State {
            carried,
            weights: rename::get(&names, parts.tail.a),
        }
    }

    /// Issues the tail of the iteration whose number over all streams is `n`.
    fn issue_tail(&self, code: &mut Code<'_>, state: &State, n: Val) -> Val {
        let (slot, _) = self.values.slot(code, n);
        let acc = state.carried[self.trailing];
        let ty = code.kernel.ty(acc);
        let op = Op::MmaAsync {
            acc: Some(acc),
            a: Operand::Reg(state.weights),
            b: Operand::Shared(SharedView {
                slot: Some(slot),
                ..self.view.clone()
            }),
        };
        let flying = code.def(ty, op);
        code.effect(Effect::MmaCommit);
        flying
    }
}

/// The value of an integer constant among the statements written so far.
fn constant(code: &Code<'_>, v: Val) -> Option<i64> {
    code.written().iter().rev().find_map(|s| match s {
        Stmt::Let { dst, op: Op::ConstI(n) } if *dst == v => Some(*n),
        _ => None,
    })
}

fn wait(code: &mut Code<'_>, of: Val, pending: u32) -> Val {
    let ty = code.kernel.ty(of);
    code.def(ty, Op::MmaWait { of, pending })
}

/// An operand with its values renamed, in another slot of a pipe (or the only one of a query tile).
fn in_slot(operand: &Operand, slot: Option<Val>, names: &Names) -> Operand {
    let view = |v: &SharedView| SharedView {
        slot,
        row: v.row.map(|r| rename::get(names, r)),
        ..v.clone()
    };
    match operand {
        Operand::Reg(v) => Operand::Reg(rename::get(names, *v)),
        Operand::Shared(v) => Operand::Shared(view(v)),
        Operand::SharedT(v) => Operand::SharedT(view(v)),
    }
}
