//! Executes the slice of a kernel, CTA by CTA and warp by warp, and adds up the work.
//!
//! Nothing is walked twice: CTAs that agree on the values their code reads share a result, and so do loops, whichever
//! warp, role iteration or CTA runs them, and so do long steps of a loop: the query tiles of all heads. A causal kernel over 16 384 x 16 384 positions and 128 heads is walked as its
//! 128 different query tiles.
//!
//! Guards are taken to hold: a vote is false, and so is a verdict read from shared memory. What is computed again where
//! one does not hold depends on the data, and is not counted.

use super::slice::{Code, CountedBy, Direction, Elements, Node, Remembered, Repeat, RoleSlice, slice};
use super::value::{Abs, float, map, reduce};
use super::work::Work;
use super::{CostError, Counts, Group, Inputs};
use drawloom_kernel::ir::{Dtype, Frag, Kernel, Op, ParamId, ParamKind, Val};
use rustc_hash::FxHashMap;
use std::rc::Rc;

/// Counts what a launch of `grid` CTAs does.
///
/// The kernel must have passed its verifier and hold no stream.
///
/// Units: those of [`Work`]'s fields. Global bytes are *issued* bytes: every access of every CTA, whatever the caches do.
/// They are exact, and equal to what the kernel interpreter counts.
///
/// # Errors
/// [`CostError`] where a count depends on something that `inputs` lacks or on computed floats.
pub fn count(kernel: &Kernel, grid: u32, inputs: &Inputs) -> Result<Counts, CostError> {
    let roles = slice(kernel)?;
    let mut walk = Walk {
        kernel,
        inputs,
        values: (0..kernel.types.len()).map(|v| Abs::Unknown(Val(v as u32))).collect(),
        cta: 0,
        warp: 0,
        loops: Memory::default(),
        steps: Memory::default(),
    };
    for role in &roles {
        walk.evaluate(&role.launch)?;
    }
    let mut seen: FxHashMap<Vec<Abs>, u32> = FxHashMap::default();
    let mut counts = Counts {
        groups: Vec::new(),
        runs: Vec::new(),
        total: Work::none(kernel.params.len()),
    };
    for cta in 0..grid {
        walk.cta = cta;
        for role in &roles {
            walk.evaluate(&role.cta)?;
        }
        let key: Vec<Abs> = roles
            .iter()
            .flat_map(|r| &r.keys)
            .map(|v| walk.value(*v).clone())
            .collect();
        let group = match seen.get(&key) {
            Some(&group) => group,
            None => {
                let group = counts.groups.len() as u32;
                counts.groups.push(Group {
                    ctas: 0,
                    work: walk.work_of_cta(&roles)?,
                });
                seen.insert(key, group);
                group
            }
        };
        counts.groups[group as usize].ctas += 1;
        match counts.runs.last_mut() {
            Some((last, n)) if *last == group => *n += 1,
            _ => counts.runs.push((group, 1)),
        }
    }
    for g in &counts.groups {
        counts.total.add(&g.work, g.ctas);
    }
    Ok(counts)
}

/// What was walked, by the loop, the warp as far as it matters, and the values that are read: its work, and the values
/// that it yields.
type Memory = FxHashMap<((u32, u32), Vec<Abs>), Rc<(Work, Vec<Abs>)>>;

struct Walk<'a> {
    kernel: &'a Kernel,
    inputs: &'a Inputs,
    /// What is known of each value now.
    values: Vec<Abs>,
    cta: u32,
    /// Warp in its role.
    warp: u32,
    /// Loops, with the carried values that are followed.
    loops: Memory,
    /// Long steps of loops, with the carried values that they compute.
    steps: Memory,
}

impl Walk<'_> {
    fn value(&self, v: Val) -> &Abs {
        &self.values[v.index()]
    }

    fn int(&self, v: Val) -> Result<i64, CostError> {
        self.value(v).int().map_err(|origin| self.unknown(origin))
    }

    fn unknown(&self, origin: Val) -> CostError {
        CostError::unknown(self.kernel, origin)
    }

    fn work_of_cta(&mut self, roles: &[RoleSlice<'_>]) -> Result<Work, CostError> {
        let mut total = Work::none(self.kernel.params.len());
        for role in roles {
            for warp in 0..role.warps {
                self.warp = warp;
                self.code(&role.code, &mut total)?;
            }
        }
        Ok(total)
    }

    fn evaluate(&mut self, lets: &[(Val, &Op)]) -> Result<(), CostError> {
        for (dst, op) in lets {
            self.values[dst.index()] = self.op(*dst, op)?;
        }
        Ok(())
    }

    fn code(&mut self, code: &Code<'_>, sum: &mut Work) -> Result<(), CostError> {
        sum.add(&code.fixed, 1);
        for node in &code.nodes {
            match node {
                Node::Let(dst, op) => self.values[dst.index()] = self.op(*dst, op)?,
                Node::Elements(access, direction) => self.elements(*access, *direction, sum)?,
                Node::Tile {
                    tile,
                    row_bytes,
                    shared,
                    direction,
                    by,
                } => {
                    if *by == CountedBy::FirstWarp && self.warp != 0 {
                        continue;
                    }
                    let first = self.int(tile.first_row)?;
                    let limit = self.int(tile.row_limit)?;
                    let end = first.saturating_add(tile.rows.into()).min(limit);
                    let rows = end.saturating_sub(first.max(0)).max(0).unsigned_abs();
                    account(sum, tile.tensor, *direction, rows * row_bytes);
                    match direction {
                        Direction::Read => sum.shared_written += shared,
                        // Warps that share a store leave out the rows that do not exist; an engine reads its window.
                        Direction::Write if *by == CountedBy::FirstWarp => sum.shared_read += rows * row_bytes,
                        Direction::Write => sum.shared_read += shared,
                    }
                }
                Node::Loop(repeat) => self.run(repeat, sum)?,
                Node::If {
                    cond,
                    then,
                    otherwise,
                    results,
                } => {
                    let taken = self.int(*cond)? != 0;
                    self.code(if taken { then } else { otherwise }, sum)?;
                    let values: Vec<Abs> = results
                        .iter()
                        .map(|p| self.value(if taken { p.then } else { p.otherwise }).clone())
                        .collect();
                    for (p, v) in results.iter().zip(values) {
                        self.values[p.result.index()] = v;
                    }
                }
            }
        }
        Ok(())
    }

    fn elements(&self, access: Elements, direction: Direction, sum: &mut Work) -> Result<(), CostError> {
        let (rows, cols) = (access.ty.rows, access.ty.cols);
        let n = match access.guard {
            Some(g) => self.value(g).holds(rows, cols).map_err(|origin| self.unknown(origin))?,
            None => u64::from(rows) * u64::from(cols),
        };
        account(sum, access.tensor, direction, n * u64::from(access.bytes));
        Ok(())
    }

    fn run(&mut self, repeat: &Repeat<'_>, sum: &mut Work) -> Result<(), CostError> {
        let Repeat {
            of,
            body,
            carried,
            free,
            ..
        } = repeat;
        let (lo, hi) = (self.int(of.lo)?, self.int(of.hi)?);
        if body.nodes.is_empty() && carried.is_empty() {
            sum.add(&body.fixed, hi.saturating_sub(lo).max(0).unsigned_abs());
            return Ok(());
        }
        let warp = if repeat.by_warp { self.warp } else { self.warp.min(1) };
        let id = (repeat.id, warp);
        let mut key = vec![Abs::Int(lo), Abs::Int(hi)];
        key.extend(carried.iter().map(|&i| self.value(of.carried[i].init).clone()));
        key.extend(free.iter().map(|v| self.value(*v).clone()));
        let key = (id, key);
        let known = match self.loops.get(&key) {
            Some(known) => known.clone(),
            None => {
                let walked = Rc::new(self.walk(repeat, id, lo..hi)?);
                self.loops.insert(key, walked.clone());
                walked
            }
        };
        let (work, results) = &*known;
        sum.add(work, 1);
        for (&i, v) in carried.iter().zip(results) {
            self.values[of.carried[i].result.index()] = v.clone();
        }
        Ok(())
    }

    fn walk(
        &mut self,
        repeat: &Repeat<'_>,
        id: (u32, u32),
        steps: std::ops::Range<i64>,
    ) -> Result<(Work, Vec<Abs>), CostError> {
        let Repeat { of, carried, .. } = repeat;
        let mut work = Work::none(self.kernel.params.len());
        let values = |walk: &Self, of: &dyn Fn(usize) -> Val| -> Vec<Abs> {
            carried.iter().map(|&i| walk.value(of(i)).clone()).collect()
        };
        let mut state = values(self, &|i| of.carried[i].init);
        for t in steps {
            self.values[of.var.index()] = Abs::Int(t);
            for (&i, v) in carried.iter().zip(state) {
                self.values[of.carried[i].arg.index()] = v;
            }
            self.step(repeat, id, &mut work)?;
            state = values(self, &|i| of.carried[i].next);
        }
        Ok((work, state))
    }

    fn step(&mut self, repeat: &Repeat<'_>, id: (u32, u32), sum: &mut Work) -> Result<(), CostError> {
        self.evaluate(&repeat.head)?;
        let Some(Remembered { reads, writes }) = &repeat.remembered else {
            return self.code(&repeat.body, sum);
        };
        let key = (id, reads.iter().map(|v| self.value(*v).clone()).collect());
        let known = match self.steps.get(&key) {
            Some(known) => known.clone(),
            None => {
                let mut work = Work::none(self.kernel.params.len());
                self.code(&repeat.body, &mut work)?;
                let state = writes.iter().map(|v| self.value(*v).clone()).collect();
                let walked = Rc::new((work, state));
                self.steps.insert(key, walked.clone());
                walked
            }
        };
        let (work, state) = &*known;
        sum.add(work, 1);
        for (to, v) in writes.iter().zip(state) {
            self.values[to.index()] = v.clone();
        }
        Ok(())
    }

    /// The value of an operation: known for integers and predicates, unknown for what is computed from floats.
    fn op(&self, dst: Val, op: &Op) -> Result<Abs, CostError> {
        let ty = self.kernel.ty(dst);
        Ok(match op {
            Op::ConstI(x) => Abs::Int(*x),
            Op::Param(p) => {
                let param = &self.kernel.params[p.index()];
                match (&param.kind, self.inputs.scalars.get(&param.name)) {
                    (
                        ParamKind::Scalar {
                            dtype: Dtype::I32 | Dtype::I64,
                        },
                        Some(&x),
                    ) => Abs::Int(x),
                    _ => Abs::Unknown(dst),
                }
            }
            Op::Cta => Abs::Int(self.cta.into()),
            Op::WarpInRole => Abs::Int(self.warp.into()),
            Op::RowIota => Abs::Affine {
                base: 0,
                row: 1,
                col: 0,
            },
            Op::ColIota => Abs::Affine {
                base: 0,
                row: 0,
                col: 1,
            },
            Op::Map(map_op, args) => {
                let from = args.last().map_or(ty, |v| self.kernel.ty(*v));
                let mut operands = [&Abs::Int(0); 3];
                for (to, v) in operands.iter_mut().zip(args) {
                    *to = self.value(*v);
                }
                map(*map_op, &operands[..args.len().min(3)], dst, ty, from)
            }
            Op::LoadGlobal {
                tensor,
                at,
                guard,
                fill,
            } => self.load(dst, *tensor, at, *guard, *fill)?,
            Op::ConstF(x) => float(*x, dst),
            Op::Reduce(reduce_op, of) => reduce(*reduce_op, self.value(*of), dst, ty, self.kernel.ty(*of)),
            // What a guard found, and what it left in shared memory for others: see the module's documentation.
            Op::Any(_) => Abs::Int(0),
            Op::LoadShared(_) if ty == Frag::scalar(Dtype::I32) => Abs::Int(0),
            Op::Mma { .. } | Op::MmaAsync { .. } | Op::MmaWait { .. } | Op::LoadShared(_) => Abs::Unknown(dst),
        })
    }

    /// Elements of an index tensor.
    fn load(&self, dst: Val, tensor: ParamId, at: &[Val], guard: Option<Val>, fill: f64) -> Result<Abs, CostError> {
        let ty = self.kernel.ty(dst);
        let name = &self.kernel.params[tensor.index()].name;
        let Some(table) = self.inputs.tables.get(name) else {
            return Ok(Abs::Unknown(dst));
        };
        if ty.dtype != Dtype::I32 {
            return Ok(Abs::Unknown(dst));
        }
        let mut data = Vec::with_capacity((ty.rows * ty.cols) as usize);
        for r in 0..ty.rows {
            for c in 0..ty.cols {
                let element = |v: Val| self.value(v).at(r, c).map_err(|origin| self.unknown(origin));
                if let Some(g) = guard
                    && element(g)? == 0
                {
                    data.push(fill as i64);
                    continue;
                }
                let index = at.iter().map(|&v| element(v)).collect::<Result<Vec<_>, _>>()?;
                match table.get(&index) {
                    Some(x) => data.push(x.into()),
                    None => {
                        return Err(CostError::OutOfRange {
                            table: name.clone(),
                            index,
                            extents: table.extents.clone(),
                        });
                    }
                }
            }
        }
        Ok(match data[..] {
            [x] => Abs::Int(x),
            _ => Abs::Dense {
                rows: ty.rows,
                cols: ty.cols,
                data: data.into(),
            },
        })
    }
}

fn account(sum: &mut Work, tensor: ParamId, direction: Direction, bytes: u64) {
    match direction {
        Direction::Read => sum.read[tensor.index()] += bytes,
        Direction::Write => sum.written[tensor.index()] += bytes,
    }
}
