//! Blocks, loops, branches, and the dispatch of statements.

use std::collections::HashSet;

use drawloom_kernel::ir::{
    Block, CopyKind, Dtype, Effect, If, Loop, Op, Phi, Stmt, Val, visit_effect_mut, visit_op_mut,
};
use drawloom_kernel::text::nested_blocks;
use inkwell::IntPredicate;

use crate::asm;
use crate::build::{Any, Int};
use crate::emitter::Emitter;
use crate::error::{Result, malformed};

impl<'c> Emitter<'c, '_> {
    /// Both conditions, where `None` always holds.
    pub fn both(&self, a: Option<Int<'c>>, b: Option<Int<'c>>) -> Option<Int<'c>> {
        match (a, b) {
            (Some(a), Some(b)) => Some(self.b.and(a, b)),
            (a, b) => a.or(b),
        }
    }
    /// Both conditions.
    pub fn with(&self, a: Option<Int<'c>>, b: Int<'c>) -> Int<'c> {
        a.map_or(b, |a| self.b.and(a, b))
    }
    /// Emits `body` for the lanes where `guard` holds.
    pub fn guarded(&mut self, guard: Option<Int<'c>>, body: impl FnOnce(&mut Self)) {
        let Some(cond) = guard else {
            body(self);
            return;
        };
        let (then, after) = (self.b.block("then"), self.b.block("after"));
        self.b.branch(cond, then, after);
        self.b.at_end(then);
        body(self);
        self.b.jump(after);
        self.b.at_end(after);
    }
    /// Emits the statements of a block; `results` are those of its values that are used behind it.
    pub fn statements(&mut self, block: &Block, results: &[Val]) -> Result<()> {
        let outside = std::mem::take(&mut self.fresh);
        for (n, s) in block.0.iter().enumerate() {
            match s {
                Stmt::Let { dst, op } => {
                    self.operation(*dst, op)?;
                    self.learn(*dst, op);
                    let ty = self.ty(*dst)?;
                    if ty.dtype == Dtype::F32 && ty.rows > 1 && !matches!(op, Op::ConstF(_) | Op::MmaAsync { .. }) {
                        self.fresh.push(*dst);
                    }
                }
                Stmt::Do(e) => {
                    if let Effect::MbarWait { .. } = e {
                        self.pin(&block.0[n + 1..], results)?;
                    }
                    self.effect(e)?;
                }
                Stmt::Loop(l) => self.repeat(l)?,
                Stmt::If(i) => self.choose(i)?,
                Stmt::Stream(_) => return malformed("a stream that no pipeliner has expanded"),
            }
        }
        self.fresh = outside;
        Ok(())
    }
    /// Before a wait in a loop with products in flight: keeps what was computed beside them, and is used in `rest` or
    /// behind it, from being moved behind the wait for them.
    fn pin(&mut self, rest: &[Stmt], results: &[Val]) -> Result<()> {
        let fresh = std::mem::take(&mut self.fresh);
        if self.flying.is_empty() || !self.loops() {
            return Ok(());
        }
        let mut used: HashSet<Val> = results.iter().copied().collect();
        uses(rest, &mut used);
        for v in fresh.into_iter().filter(|v| used.contains(v)) {
            let pinned = asm::pin(&self.b, &self.registers(v)?);
            self.define(v, pinned)?;
        }
        Ok(())
    }
    fn operation(&mut self, dst: Val, op: &Op) -> Result<()> {
        match op {
            Op::ConstF(_) | Op::ConstI(_) => self.constant(dst, op),
            Op::Param(p) => self.parameter(dst, *p),
            Op::Cta => {
                let n = self.b.call("llvm.nvvm.read.ptx.sreg.ctaid.x", &[], &[]);
                self.define(dst, vec![n])
            }
            Op::WarpInRole => self.define(dst, vec![self.team.warp.into()]),
            Op::RowIota => self.row_iota(dst),
            Op::ColIota => self.col_iota(dst),
            Op::Map(op, operands) => self.elementwise(dst, *op, operands),
            Op::Reduce(op, of) => self.reduce(dst, *op, *of),
            Op::Any(of) => self.any(dst, *of),
            Op::Mma { acc, a, b } => self.mma(dst, *acc, a, b),
            Op::MmaAsync { acc, a, b } => self.mma_async(dst, *acc, a, b),
            Op::MmaWait { of, pending } => self.mma_wait(dst, *of, *pending),
            Op::LoadGlobal {
                tensor,
                at,
                guard,
                fill,
            } => self.load_global(dst, *tensor, at, *guard, *fill),
            Op::LoadShared(view) => self.load_shared(dst, view),
        }
    }
    fn effect(&mut self, e: &Effect) -> Result<()> {
        match e {
            Effect::Copy { kind, src, dst } => self.copy(*kind, src, dst),
            Effect::StoreTile { src, dst, bytes } => self.store_tile(src, dst, *bytes),
            Effect::StoreShared { dst, value } => self.store_shared(dst, *value),
            Effect::StoreGlobal {
                tensor,
                at,
                guard,
                value,
            } => self.store_global(*tensor, at, *guard, *value),
            Effect::CommitGroup => {
                self.commit_group();
                Ok(())
            }
            Effect::WaitGroup { pending } => {
                self.wait_group(*pending);
                Ok(())
            }
            Effect::Barrier { id, warps } => self.barrier(*id, *warps),
            Effect::BarrierArrive { id, warps } => self.barrier_arrive(*id, *warps),
            Effect::Assert { cond, message: _ } => self.assert(*cond),
            Effect::MbarArrive { barrier, slot } => self.mbarrier_arrive(*barrier, *slot),
            Effect::MbarExpect { barrier, slot, bytes } => self.mbarrier_expect(*barrier, *slot, *bytes),
            Effect::MbarWait { barrier, slot, parity } => self.mbarrier_wait(*barrier, *slot, *parity),
            Effect::FenceProxyAsync => self.fence_proxy(),
            Effect::MmaFence => self.mma_fence(),
            Effect::MmaCommit => self.mma_commit(),
            Effect::TmaStore { src, dst } => self.tma_store(src, dst),
            Effect::TmaStoreWait { pending } => self.tma_store_wait(*pending),
            Effect::SetRegisters { count } => self.set_registers(*count),
        }
    }
    /// Emits a loop, tested before the first iteration and then at the end of each.
    fn repeat(&mut self, l: &Loop) -> Result<()> {
        let (lo, hi) = (self.int(l.lo)?, self.int(l.hi)?);
        let mut inits = Vec::new();
        for c in &l.carried {
            inits.push(self.registers(c.init)?);
        }
        let (prelude, body, after) = (self.b.block("prelude"), self.b.block("loop"), self.b.block("done"));
        let skipped = self.b.here();
        self.b.branch(self.b.icmp(IntPredicate::SLT, lo, hi), prelude, after);

        let outermost = self.enter_loop(prelude);
        self.b.at_end(body);
        let var = self.b.phi(self.b.i32().into());
        var.add_incoming(&[(&lo, prelude)]);
        let mut phis = Vec::new();
        for init in &inits {
            let args: Vec<_> = init.iter().map(|r| self.b.phi(r.get_type())).collect();
            for (phi, r) in args.iter().zip(init.iter()) {
                phi.add_incoming(&[(r, prelude)]);
            }
            phis.push(args);
        }
        for (c, args) in l.carried.iter().zip(&phis) {
            let mut registers: Vec<Any<'c>> = args.iter().map(|p| p.as_basic_value()).collect();
            if self.ty(c.arg)?.is_scalar() {
                registers = registers.into_iter().map(|r| self.uniform(r)).collect();
            }
            self.define(c.arg, registers)?;
        }
        self.define(l.var, vec![var.as_basic_value()])?;
        self.learn_loop(l);
        self.apart |= separates(&l.body);
        let nexts: Vec<Val> = l.carried.iter().map(|c| c.next).collect();
        self.statements(&l.body, &nexts)?;
        let n = self.b.add(var.as_basic_value().into_int_value(), self.b.c32(1));
        let latch = self.b.here();
        let mut nexts = Vec::new();
        for (c, args) in l.carried.iter().zip(&phis) {
            let next = self.registers(c.next)?;
            if next.len() != args.len() {
                return malformed(format!("{} does not carry to {}", c.next, c.arg));
            }
            for (phi, r) in args.iter().zip(next.iter()) {
                phi.add_incoming(&[(r, latch)]);
            }
            nexts.push(next);
        }
        var.add_incoming(&[(&n, latch)]);
        self.b.branch(self.b.icmp(IntPredicate::SLT, n, hi), body, after);

        self.b.at_end(prelude);
        self.b.jump(body);
        self.b.at_end(after);
        let mut results = Vec::new();
        for (init, next) in inits.iter().zip(&nexts) {
            results.push(self.merge(&[(init, skipped), (next, latch)]));
        }
        if outermost {
            self.leave_loop();
        }
        for (c, merged) in l.carried.iter().zip(results) {
            self.define(c.result, merged)?;
        }
        Ok(())
    }
    /// The phis of equally many registers that come from several blocks.
    fn merge(&self, from: &[(&[Any<'c>], inkwell::basic_block::BasicBlock<'c>)]) -> Vec<Any<'c>> {
        (0..from[0].0.len())
            .map(|i| {
                let phi = self.b.phi(from[0].0[i].get_type());
                for (registers, block) in from {
                    phi.add_incoming(&[(&registers[i], *block)]);
                }
                phi.as_basic_value()
            })
            .collect()
    }
    fn choose(&mut self, i: &If) -> Result<()> {
        let cond = self.int(i.cond)?;
        let (then, otherwise, after) = (self.b.block("then"), self.b.block("else"), self.b.block("after"));
        self.b.branch(cond, then, otherwise);
        let mut ends = Vec::new();
        let before = self.apart;
        let mut apart = false;
        for (block, body, value) in [
            (then, &i.then, (|p| p.then) as fn(&Phi) -> Val),
            (otherwise, &i.otherwise, |p| p.otherwise),
        ] {
            self.b.at_end(block);
            self.apart = before;
            let results: Vec<Val> = i.results.iter().map(value).collect();
            self.statements(body, &results)?;
            apart |= self.apart;
            ends.push(self.b.here());
            self.b.jump(after);
        }
        self.apart = apart;
        self.b.at_end(after);
        for p in &i.results {
            let (a, b) = (self.registers(p.then)?, self.registers(p.otherwise)?);
            if a.len() != b.len() {
                return malformed(format!("{} and {} do not merge", p.then, p.otherwise));
            }
            let merged = self.merge(&[(&a, ends[0]), (&b, ends[1])]);
            self.define(p.result, merged)?;
        }
        Ok(())
    }
}

/// Whether lanes access shared memory each by itself somewhere in a block.
fn separates(block: &Block) -> bool {
    block.0.iter().any(|s| match s {
        Stmt::Let { op, .. } => matches!(op, Op::LoadShared(_) | Op::Mma { .. }),
        Stmt::Do(e) => matches!(
            e,
            Effect::StoreShared { .. }
                | Effect::StoreTile { .. }
                | Effect::WaitGroup { .. }
                | Effect::FenceProxyAsync
                | Effect::Copy {
                    kind: CopyKind::Sync { .. } | CopyKind::CpAsync { .. },
                    ..
                }
        ),
        Stmt::Loop(_) | Stmt::If(_) | Stmt::Stream(_) => nested_blocks(s).into_iter().any(separates),
    })
}

/// Adds the values that statements use.
fn uses(stmts: &[Stmt], used: &mut HashSet<Val>) {
    for s in stmts {
        match s {
            Stmt::Let { op, .. } => visit_op_mut(&mut op.clone(), &mut |v| {
                used.insert(*v);
            }),
            Stmt::Do(e) => visit_effect_mut(&mut e.clone(), &mut |v| {
                used.insert(*v);
            }),
            Stmt::Loop(l) => {
                used.extend(l.carried.iter().flat_map(|c| [c.init, c.next]));
                used.extend([l.lo, l.hi]);
            }
            Stmt::If(i) => {
                used.extend(i.results.iter().flat_map(|p| [p.then, p.otherwise]));
                used.insert(i.cond);
            }
            Stmt::Stream(_) => {}
        }
        for block in nested_blocks(s) {
            uses(&block.0, used);
        }
    }
}
