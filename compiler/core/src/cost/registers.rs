//! How many registers a thread will need: the most that fragments hold at one point of the program.
//!
//! ptxas decides in the end; this estimate is there to reject schedules that would spill before they are lowered to PTX,
//! and to predict occupancy. It walks each role backwards with the set of live values. An element-wise result takes the
//! place of an operand that dies with it, so the pressure at a statement is the larger of what lives before and after.

use super::work::registers;
use drawloom_kernel::ir::{Block, Kernel, MapOp, Op, Operand, ParamId, Stmt, Val, visit_effect_mut, visit_op_mut};
use std::collections::{HashMap, HashSet};

/// Registers beside fragments: tensor and shared-memory addresses, loop counters, limits, operands fetched early.
///
/// # Source
/// ptxas 13.5 on 16 schedules of dense attention, 2026-11-24: 47 to 60 above the fragments wherever it was not bound by a
/// limit, and spills wherever fewer than that were left.
pub const BASE_REGISTERS: u32 = 52;

/// Registers of a thread, over all roles. Constants are immediates and take none until a loop carries them; row and
/// column numbers are a register and an immediate; what is made of row and column vectors alone is made where it is used.
pub fn estimate_registers(kernel: &Kernel) -> u32 {
    let most = kernel
        .roles
        .iter()
        .map(|role| {
            let mut live = Live {
                kernel,
                cheap: HashMap::new(),
                values: HashSet::new(),
                now: 0,
                most: 0,
            };
            live.find_cheap(&role.body);
            live.block(&role.body);
            let mut tables = HashSet::new();
            loaded_in_loops(&role.body, false, &mut tables);
            live.most + TABLE_REGISTERS * tables.len() as u32
        })
        .max()
        .unwrap_or(0);
    BASE_REGISTERS + most
}

/// Registers that elementwise loads from one tensor keep through a loop: its address, its stride, a guard.
///
/// # Source
/// ptxas 13.5 for sm_90 on the document mask at d = 80, 2026-11-24: 28 bytes spilled where this was left out.
const TABLE_REGISTERS: u32 = 5;

/// The tensors that loops load elementwise.
fn loaded_in_loops(block: &Block, inside: bool, found: &mut HashSet<ParamId>) {
    for stmt in &block.0 {
        match stmt {
            Stmt::Let {
                op: Op::LoadGlobal { tensor, .. },
                ..
            } if inside => {
                found.insert(*tensor);
            }
            Stmt::Let { .. } | Stmt::Do(_) => {}
            Stmt::Loop(l) => loaded_in_loops(&l.body, true, found),
            Stmt::If(i) => {
                loaded_in_loops(&i.then, inside, found);
                loaded_in_loops(&i.otherwise, inside, found);
            }
            Stmt::Stream(s) => {
                let bodies = s.segments.iter().map(|segment| &segment.body);
                bodies.for_each(|body| loaded_in_loops(body, true, found));
            }
        }
    }
}

/// The live values of a role, while its statements are visited from last to first.
struct Live<'k> {
    kernel: &'k Kernel,
    /// Values that are rebuilt where they are used, from so many registers.
    cheap: HashMap<Val, u32>,
    values: HashSet<Val>,
    /// Registers of `values`.
    now: u32,
    /// The most that `now` has been.
    most: u32,
}

impl Live<'_> {
    fn find_cheap(&mut self, block: &Block) {
        for stmt in &block.0 {
            match stmt {
                Stmt::Let {
                    dst,
                    op: Op::ConstF(_) | Op::ConstI(_) | Op::Param(_),
                } => {
                    self.cheap.insert(*dst, 0);
                }
                Stmt::Let {
                    dst,
                    op: Op::RowIota | Op::ColIota,
                } => {
                    self.cheap.insert(*dst, 1);
                }
                Stmt::Let {
                    dst,
                    op: Op::Map(op, args),
                } => {
                    let known = |v: &Val| self.kernel.ty(*v).is_scalar() || self.cheap.contains_key(v);
                    if matches!(op, MapOp::Add | MapOp::Sub) && !self.fills(*dst) && args.iter().all(known) {
                        self.cheap.insert(*dst, 1);
                    } else if self.fills(*dst) && args.iter().all(|v| !self.fills(*v) || self.cheap.contains_key(v)) {
                        // Made from row and column vectors element by element, where it is used.
                        self.cheap.insert(*dst, 0);
                    }
                }
                Stmt::Let { .. } | Stmt::Do(_) => {}
                Stmt::Loop(l) => self.find_cheap(&l.body),
                Stmt::If(i) => {
                    self.find_cheap(&i.then);
                    self.find_cheap(&i.otherwise);
                }
                Stmt::Stream(s) => {
                    s.stages.iter().for_each(|stage| self.find_cheap(&stage.block));
                    s.segments.iter().for_each(|segment| self.find_cheap(&segment.body));
                }
            }
        }
    }

    /// Whether a fragment has both rows and columns, and so many elements a lane.
    fn fills(&self, v: Val) -> bool {
        let ty = self.kernel.ty(v);
        ty.rows > 1 && ty.cols > 4
    }

    /// Scalars are uniform across the warp and live in uniform registers or in [`BASE_REGISTERS`].
    fn size(&self, v: Val) -> u32 {
        let ty = self.kernel.ty(v);
        if ty.is_scalar() {
            0
        } else {
            self.cheap.get(&v).copied().unwrap_or_else(|| registers(ty))
        }
    }

    fn begin(&mut self, v: Val) {
        if self.values.insert(v) {
            self.now += self.size(v);
            self.most = self.most.max(self.now);
        }
    }

    fn end(&mut self, v: Val) {
        if self.values.remove(&v) {
            self.now -= self.size(v);
        }
    }

    /// Registers that a statement needs only while it runs.
    fn transient(&mut self, n: u32) {
        self.most = self.most.max(self.now + n);
    }

    fn block(&mut self, block: &Block) {
        for stmt in block.0.iter().rev() {
            self.stmt(stmt);
        }
    }

    fn stmt(&mut self, stmt: &Stmt) {
        match stmt {
            Stmt::Let { dst, op } => {
                // A result that nobody reads exists all the same.
                self.begin(*dst);
                self.transient(operand_registers(op));
                self.end(*dst);
                visit_op_mut(&mut op.clone(), &mut |v| self.begin(*v));
                self.transient(operand_registers(op));
            }
            Stmt::Do(effect) => visit_effect_mut(&mut effect.clone(), &mut |v| self.begin(*v)),
            Stmt::Loop(l) => {
                for c in &l.carried {
                    self.end(c.result);
                }
                // What the body reads from outside lives throughout it.
                for v in reads(&l.body) {
                    if l.carried.iter().all(|c| c.arg != v) && l.var != v {
                        self.begin(v);
                    }
                }
                for c in &l.carried {
                    self.begin(c.next);
                }
                self.block(&l.body);
                for c in &l.carried {
                    // A carried constant needs its registers from here on, whether or not the body reads it.
                    self.begin(c.arg);
                }
                for c in &l.carried {
                    self.end(c.arg);
                    self.begin(c.init);
                }
                self.begin(l.lo);
                self.begin(l.hi);
                self.end(l.var);
            }
            Stmt::If(i) => {
                for p in &i.results {
                    self.end(p.result);
                }
                let after = self.values.clone();
                let now = self.now;
                i.results.iter().for_each(|p| self.begin(p.then));
                self.block(&i.then);
                let before_then = std::mem::replace(&mut self.values, after);
                self.now = now;
                i.results.iter().for_each(|p| self.begin(p.otherwise));
                self.block(&i.otherwise);
                before_then.into_iter().for_each(|v| self.begin(v));
                self.begin(i.cond);
            }
            Stmt::Stream(s) => {
                for c in &s.carried {
                    self.end(c.result);
                }
                for segment in &s.segments {
                    self.begin(segment.end);
                    reads(&segment.body)
                        .into_iter()
                        .filter(|v| s.carried.iter().all(|c| c.arg != *v))
                        .for_each(|v| self.begin(v));
                    segment.next.iter().for_each(|v| self.begin(*v));
                    self.block(&segment.body);
                    s.carried.iter().for_each(|c| self.begin(c.arg));
                    s.carried.iter().for_each(|c| self.end(c.arg));
                }
                s.stages.iter().rev().for_each(|stage| self.block(&stage.block));
                s.carried.iter().for_each(|c| self.begin(c.init));
                self.end(s.var);
            }
        }
    }
}

/// Registers of the operands that a product fetches from shared memory step by step: two steps are in flight, so that
/// the next fetch overlaps this product. A step holds 4 registers of `a` per 16 rows and 4 of `b` per 16 columns.
fn operand_registers(op: &Op) -> u32 {
    match op {
        Op::Mma { a, b, .. } => {
            let rows = match a {
                Operand::Reg(_) => 0,
                Operand::Shared(s) => s.rows,
                Operand::SharedT(s) => s.cols,
            };
            let from_b = match b {
                Operand::Reg(_) => 0,
                Operand::Shared(_) | Operand::SharedT(_) => 8,
            };
            rows / 16 * 8 + from_b
        }
        Op::ConstF(_)
        | Op::ConstI(_)
        | Op::Param(_)
        | Op::Cta
        | Op::WarpInRole
        | Op::RowIota
        | Op::ColIota
        | Op::Map(..)
        | Op::Reduce(..)
        | Op::Any(_)
        | Op::MmaAsync { .. }
        | Op::MmaWait { .. }
        | Op::LoadGlobal { .. }
        | Op::LoadShared(_) => 0,
    }
}

/// The values that a block reads and does not define.
fn reads(block: &Block) -> Vec<Val> {
    fn visit(block: &Block, uses: &mut Vec<Val>, defs: &mut HashSet<Val>) {
        for stmt in &block.0 {
            match stmt {
                Stmt::Let { dst, op } => {
                    visit_op_mut(&mut op.clone(), &mut |v| uses.push(*v));
                    defs.insert(*dst);
                }
                Stmt::Do(effect) => visit_effect_mut(&mut effect.clone(), &mut |v| uses.push(*v)),
                Stmt::Loop(l) => {
                    uses.extend([l.lo, l.hi]);
                    defs.insert(l.var);
                    for c in &l.carried {
                        uses.extend([c.init, c.next]);
                        defs.extend([c.arg, c.result]);
                    }
                    visit(&l.body, uses, defs);
                }
                Stmt::If(i) => {
                    uses.push(i.cond);
                    for p in &i.results {
                        uses.extend([p.then, p.otherwise]);
                        defs.insert(p.result);
                    }
                    visit(&i.then, uses, defs);
                    visit(&i.otherwise, uses, defs);
                }
                Stmt::Stream(s) => {
                    defs.insert(s.var);
                    for c in &s.carried {
                        uses.push(c.init);
                        defs.extend([c.arg, c.result]);
                    }
                    for stage in &s.stages {
                        visit(&stage.block, uses, defs);
                    }
                    for segment in &s.segments {
                        uses.push(segment.end);
                        uses.extend(&segment.next);
                        visit(&segment.body, uses, defs);
                    }
                }
            }
        }
    }
    let (mut uses, mut defs) = (Vec::new(), HashSet::new());
    visit(block, &mut uses, &mut defs);
    uses.retain(|v| !defs.contains(v));
    uses.sort_unstable();
    uses.dedup();
    uses
}
