//! Warp specialisation: one program for all warps becomes a producer, which copies, and consumers, which compute.
//!
//! It stands right behind `lower`, whose copies are synchronous: from here on the two run at their own pace. Every buffer
//! that a copy fills becomes a *pipe*: a ring of slots with two mbarriers each. The producer waits until a slot is empty,
//! announces its bytes on the full barrier and issues a bulk copy that completes them; consumers wait for full barriers
//! where they read ([`overlap`] decides where), and arrive at empty ones when they have.
//!
//! Both roles run the same scalar program, so they agree on tiles and trip counts without exchanging anything; what a role
//! does not need is removed afterwards (`dead`). Slots and phases follow from two clocks that both roles
//! carry through the program: query tiles and stream iterations so far.
//!
//! The producer copies in the order in which consumers wait: keys of iteration `t`, then values of `t - 1`, which
//! the overlapped loop reads an iteration later. The query tile comes behind the first keys: the slot of the keys is
//! empty earlier.
//!
//! A barrier between parts of the program (not inside a stream) remains one of all warps that still run.

use super::Code;
use super::budget::budgets;
use super::overlap::{self, First, Last};
use super::pipe::{Clock, Pipe, declare};
use super::pipeline::written;
use super::rename::{self, Names};
use crate::lower::Unsupported;
use drawloom_kernel::ir::{
    Block, BufId, Carried, Dtype, Effect, Frag, GlobalTile, If, Kernel, Loop, MapOp, Op, Phi, Role, SharedView, Stmt,
    Stream, Val, visit_op_mut,
};
use std::collections::HashSet;

/// Warps of the producer's role: register budgets are given to warpgroups.
const PRODUCER_WARPS: u32 = 4;

/// Statements before a stream that run behind its first product, at most: longer programs need registers beside the
/// accumulators.
///
/// # Source
/// ptxas 13.5, 2026-11-25: no spill with causal masks, 68 bytes with a sliding window and sinks.
const HIDDEN: usize = 100;

/// Splits the only role of a kernel into a producer and consumers.
///
/// # Errors
/// [`Unsupported`] where the program has no such form.
pub fn specialise(mut kernel: Kernel) -> Result<Kernel, Unsupported> {
    let role = match kernel.roles.pop() {
        Some(role) if kernel.roles.is_empty() => role,
        _ => return Err(Unsupported::new("roles of a program that has several")),
    };
    let warps = role.warps;
    budgets(warps, false).ok_or_else(|| Unsupported::new(format!("{warps} warps beside a producer")))?;
    let pipes = declare(&mut kernel, &role.body, warps);
    let copy = rename::block(&mut kernel, &role.body, &mut Names::new());

    let mut code = Code::new(&mut kernel);
    let warp = code.def(Frag::scalar(Dtype::I32), Op::WarpInRole);
    let zero = code.int(0);
    let first = code.def(Frag::scalar(Dtype::Bool), Op::Map(MapOp::Eq, vec![warp, zero]));
    let (then, ()) = code.nested(|code| side(Side::Producer, &pipes, warps).whole(code, copy))?;
    code.push(Stmt::If(If {
        cond: first,
        then,
        otherwise: Block::default(),
        results: Vec::new(),
    }));
    let producer = code.close();

    let mut code = Code::new(&mut kernel);
    side(Side::Consumer, &pipes, warps).whole(&mut code, role.body)?;
    let consumer = code.close();
    kernel.roles = vec![
        Role {
            name: "producer".to_owned(),
            warps: PRODUCER_WARPS,
            registers: None,
            body: producer,
        },
        Role {
            name: "consumer".to_owned(),
            warps,
            registers: None,
            body: consumer,
        },
    ];
    Ok(kernel)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Producer,
    Consumer,
}

/// The rewriting of the program for one role.
struct Rewrite<'p> {
    side: Side,
    pipes: &'p [Pipe],
    consumers: u32,
}

fn side(side: Side, pipes: &[Pipe], consumers: u32) -> Rewrite<'_> {
    Rewrite { side, pipes, consumers }
}

/// A copy of a whole query tile that waits for the stream it serves.
struct Pending {
    src: GlobalTile,
    dst: SharedView,
}

impl Rewrite<'_> {
    fn whole(&self, code: &mut Code<'_>, body: Block) -> Result<(), Unsupported> {
        let zero = code.int(0);
        let mut clock = Clock {
            tiles: zero,
            steps: zero,
        };
        self.block(code, body, &mut clock)
    }

    fn pipe(&self, buf: BufId) -> &Pipe {
        self.pipes
            .iter()
            .find(|p| p.buf == buf)
            .expect("invariant: every copied buffer has a pipe")
    }

    fn block(&self, code: &mut Code<'_>, block: Block, clock: &mut Clock) -> Result<(), Unsupported> {
        let mut pending: Vec<Pending> = Vec::new();
        let mut held: Vec<(Pipe, Val)> = Vec::new();
        let mut last: Option<Last> = None;
        let mut first: Option<First> = None;
        let mut hoisted = HashSet::new();
        if self.side == Side::Consumer
            && let Some(at) = block.0.iter().position(|s| matches!(s, Stmt::Stream(_)))
            && at <= HIDDEN
            && block.0[..at].iter().all(is_straight)
        {
            (first, hoisted) = self.issue_first(code, &block.0[..at], &block.0[at], *clock)?;
        }
        let mut late = HashSet::new();
        for stmt in block.0 {
            if let Stmt::Let { dst, .. } = &stmt
                && hoisted.contains(dst)
            {
                continue;
            }
            // What needs the last tail, or does something, comes behind its wait.
            if let Some(l) = last.take() {
                late.insert(l.result);
                match &stmt {
                    Stmt::Let { op, .. } if !reads_any(op, &late) => last = Some(l),
                    _ => l.wait(code),
                }
            }
            match stmt {
                Stmt::Let { .. } => code.push(stmt),
                Stmt::Do(Effect::Copy { src, dst, .. }) => pending.push(Pending { src, dst }),
                // All consumers, and the one warp of the producer that is not idle.
                Stmt::Do(Effect::Barrier { .. }) => code.effect(Effect::Barrier {
                    id: 1,
                    warps: self.consumers + 1,
                }),
                Stmt::Do(_) => {
                    if self.side == Side::Consumer {
                        code.push(stmt);
                    }
                }
                Stmt::Stream(stream) => {
                    let tiles: Vec<Pending> = std::mem::take(&mut pending);
                    if self.side == Side::Consumer && first.is_none() {
                        for tile in &tiles {
                            self.pipe(tile.dst.buf).wait_full(code, clock.tiles);
                        }
                        first = Some(overlap::issue_first(code, &stream, self.pipes, *clock)?);
                    }
                    last = self.stream(code, stream, tiles, clock, first.take(), &mut held)?;
                }
                Stmt::Loop(l) if moves(&l.body) => self.repeat(code, l, clock)?,
                Stmt::If(i) if moves(&i.then) || moves(&i.otherwise) => self.choose(code, i, clock)?,
                Stmt::Loop(_) | Stmt::If(_) => code.push(match self.side {
                    Side::Producer => without_effects(stmt),
                    Side::Consumer => stmt,
                }),
            }
        }
        if let Some(l) = last {
            l.wait(code);
        }
        for (pipe, n) in held {
            pipe.release(code, n);
        }
        if pending.is_empty() {
            Ok(())
        } else {
            Err(Unsupported::new("a copy behind the last stream of its block"))
        }
    }

    /// A loop whose body moves the clocks.
    fn repeat(&self, code: &mut Code<'_>, mut l: Loop, clock: &mut Clock) -> Result<(), Unsupported> {
        let i32s = Frag::scalar(Dtype::I32);
        let inner = Clock {
            tiles: code.kernel.new_val(i32s),
            steps: code.kernel.new_val(i32s),
        };
        let (body, end) = code.nested(|code| {
            let mut now = inner;
            self.block(code, l.body, &mut now)?;
            Ok(now)
        })?;
        let mut carry = |code: &mut Code<'_>, arg, init, next| {
            let result = code.kernel.new_val(i32s);
            l.carried.push(Carried {
                arg,
                init,
                next,
                result,
            });
            result
        };
        clock.tiles = carry(code, inner.tiles, clock.tiles, end.tiles);
        clock.steps = carry(code, inner.steps, clock.steps, end.steps);
        code.push(Stmt::Loop(Loop { body, ..l }));
        Ok(())
    }

    /// A branch of which one side moves the clocks.
    fn choose(&self, code: &mut Code<'_>, mut i: If, clock: &mut Clock) -> Result<(), Unsupported> {
        let before = *clock;
        let part = |code: &mut Code<'_>, block| {
            code.nested(|code| {
                let mut now = before;
                self.block(code, block, &mut now)?;
                Ok::<Clock, Unsupported>(now)
            })
        };
        let (then, a) = part(code, i.then)?;
        let (otherwise, b) = part(code, i.otherwise)?;
        let mut merge = |code: &mut Code<'_>, then, otherwise| {
            let result = code.kernel.new_val(Frag::scalar(Dtype::I32));
            i.results.push(Phi {
                result,
                then,
                otherwise,
            });
            result
        };
        clock.tiles = merge(code, a.tiles, b.tiles);
        clock.steps = merge(code, a.steps, b.steps);
        code.push(Stmt::If(If {
            cond: i.cond,
            then,
            otherwise,
            results: i.results,
        }));
        Ok(())
    }

    fn stream(
        &self,
        code: &mut Code<'_>,
        stream: Stream,
        tiles: Vec<Pending>,
        clock: &mut Clock,
        first: Option<First>,
        held: &mut Vec<(Pipe, Val)>,
    ) -> Result<Option<Last>, Unsupported> {
        let count = stream
            .segments
            .last()
            .ok_or_else(|| Unsupported::new("a stream without segments"))?
            .end;
        let last = match (self.side, first) {
            (Side::Producer, _) => {
                self.produce(code, &stream, tiles, *clock, count)?;
                None
            }
            (Side::Consumer, None) => return Err(Unsupported::new("several streams of one block")),
            (Side::Consumer, Some(first)) => {
                let tiles: Vec<Pipe> = tiles.iter().map(|t| *self.pipe(t.dst.buf)).collect();
                // A query tile whose storage serves another buffer afterwards is held until the end of the block.
                let buffers = &code.kernel.buffers;
                let (later, now): (Vec<Pipe>, Vec<Pipe>) = tiles
                    .iter()
                    .partition(|p| buffers.iter().any(|b| b.alias == Some(p.buf)));
                let last = overlap::expand(code, stream, self.pipes, &now, *clock, first)?;
                held.extend(later.into_iter().map(|p| (p, clock.tiles)));
                Some(last)
            }
        };
        let one = code.int(1);
        clock.tiles = code.arith(MapOp::Add, clock.tiles, one);
        clock.steps = code.arith(MapOp::Add, clock.steps, count);
        Ok(last)
    }

    /// Waits for a stream's query tiles and issues its first lead, ahead of the statements before it; of these, the ones
    /// that it needed.
    fn issue_first(
        &self,
        code: &mut Code<'_>,
        before: &[Stmt],
        stream: &Stmt,
        clock: Clock,
    ) -> Result<(Option<First>, HashSet<Val>), Unsupported> {
        let Stmt::Stream(stream) = stream else {
            unreachable!("invariant: it is a stream")
        };
        let mut needed = overlap::needed_first(stream)?;
        let mut hoisted = HashSet::new();
        let mut slice = Vec::new();
        for stmt in before.iter().rev() {
            if let Stmt::Let { dst, op } = stmt
                && needed.contains(dst)
            {
                visit_op_mut(&mut op.clone(), &mut |v| {
                    needed.insert(*v);
                });
                hoisted.insert(*dst);
                slice.push(stmt.clone());
            }
        }
        slice.into_iter().rev().for_each(|stmt| code.push(stmt));
        for stmt in before {
            if let Stmt::Do(Effect::Copy { dst, .. }) = stmt {
                self.pipe(dst.buf).wait_full(code, clock.tiles);
            }
        }
        let first = overlap::issue_first(code, stream, self.pipes, clock)?;
        Ok((Some(first), hoisted))
    }

    /// The producer's part of a stream, which has at least one iteration.
    fn produce(
        &self,
        code: &mut Code<'_>,
        stream: &Stream,
        tiles: Vec<Pending>,
        clock: Clock,
        count: Val,
    ) -> Result<(), Unsupported> {
        let lag = |buf: BufId| overlap::lag(stream, buf);
        let fetch = |code: &mut Code<'_>, lagging: u32, t: Val| -> Result<(), Unsupported> {
            for stage in &stream.stages {
                let buf = written(&stage.block).ok_or_else(|| Unsupported::new("a stage that copies nothing"))?;
                if lag(buf)? != lagging {
                    continue;
                }
                let block = rename::block(code.kernel, &stage.block, &mut Names::from([(stream.var, t)]));
                for stmt in block.0 {
                    match stmt {
                        Stmt::Do(Effect::Copy { src, dst, .. }) => {
                            let n = code.arith(MapOp::Add, clock.steps, t);
                            self.pipe(buf).fill(code, n, src, dst);
                        }
                        stmt => code.push(stmt),
                    }
                }
            }
            Ok(())
        };
        let zero = code.int(0);
        let one = code.int(1);
        fetch(code, 0, zero)?;
        for Pending { src, dst } in tiles {
            self.pipe(dst.buf).fill(code, clock.tiles, src, dst);
        }
        let t = code.kernel.new_val(Frag::scalar(Dtype::I32));
        let (body, ()) = code.nested(|code| {
            fetch(code, 0, t)?;
            let one = code.int(1);
            let before = code.arith(MapOp::Sub, t, one);
            fetch(code, 1, before)
        })?;
        code.push(Stmt::Loop(Loop {
            var: t,
            lo: one,
            hi: count,
            carried: Vec::new(),
            body,
        }));
        let last = code.arith(MapOp::Sub, count, one);
        fetch(code, 1, last)
    }
}

/// Whether a statement can run behind a product in flight. A program that searches or loads is better begun early than
/// hidden: its latency exceeds the product's, and ptxas keeps nothing uniform through its branches.
fn is_straight(stmt: &Stmt) -> bool {
    match stmt {
        Stmt::Let { op, .. } => !matches!(op, Op::LoadGlobal { .. }),
        Stmt::Do(_) => true,
        Stmt::Loop(_) | Stmt::If(_) | Stmt::Stream(_) => false,
    }
}

fn reads_any(op: &Op, values: &HashSet<Val>) -> bool {
    let mut found = false;
    visit_op_mut(&mut op.clone(), &mut |v| found |= values.contains(v));
    found
}

/// Whether a block copies or streams.
fn moves(block: &Block) -> bool {
    block.0.iter().any(|stmt| match stmt {
        Stmt::Do(Effect::Copy { .. }) | Stmt::Stream(_) => true,
        Stmt::Let { .. } | Stmt::Do(_) => false,
        Stmt::Loop(l) => moves(&l.body),
        Stmt::If(i) => moves(&i.then) || moves(&i.otherwise),
    })
}

/// The values that a statement computes, without what it does.
fn without_effects(stmt: Stmt) -> Stmt {
    let strip = |block: Block| {
        Block(
            block
                .0
                .into_iter()
                .filter(|s| !matches!(s, Stmt::Do(_)))
                .map(without_effects)
                .collect(),
        )
    };
    match stmt {
        Stmt::Loop(l) => Stmt::Loop(Loop {
            body: strip(l.body),
            ..l
        }),
        Stmt::If(i) => Stmt::If(If {
            then: strip(i.then),
            otherwise: strip(i.otherwise),
            ..i
        }),
        Stmt::Let { .. } | Stmt::Do(_) | Stmt::Stream(_) => stmt,
    }
}
