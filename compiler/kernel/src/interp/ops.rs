//! Operations of a warp.

use std::rc::Rc;

use super::global::{Launch, empty, fill};
use super::machine::{Cta, Reg};
use super::shared::{Access, Window};
use super::value::{self, Data, IntGrid, Value};
use super::{FaultKind, Outcome, trouble};
use crate::ir::*;

impl Cta<'_> {
    /// Computes a value.
    pub(super) fn op(&mut self, launch: &mut Launch, w: usize, dst: Val, op: &Op, stmt: u32) -> Outcome<()> {
        let ty = self.kernel.ty(dst);
        let (rows, cols) = (ty.rows as usize, ty.cols as usize);
        let warp = &self.warps[w];
        let value = match op {
            Op::ConstF(x) => Value {
                rows,
                cols,
                data: Data::F(vec![*x; rows * cols]),
            },
            Op::ConstI(x) => {
                let data = match ty.dtype {
                    Dtype::I64 => Data::L(vec![*x; rows * cols]),
                    Dtype::Bool => Data::B(vec![*x != 0; rows * cols]),
                    Dtype::I32 | Dtype::F16 | Dtype::Bf16 | Dtype::F32 => Data::I(vec![*x as i32; rows * cols]),
                };
                Value { rows, cols, data }
            }
            Op::Param(p) => launch.scalar(*p).clone(),
            Op::Cta => Value::scalar_i32(self.number as i32),
            Op::WarpInRole => Value::scalar_i32(warp.in_role as i32),
            Op::RowIota => Value {
                rows,
                cols,
                data: Data::I((0..rows as i32).collect()),
            },
            Op::ColIota => Value {
                rows,
                cols,
                data: Data::I((0..cols as i32).collect()),
            },
            Op::Map(op, args) => {
                let args = args
                    .iter()
                    .map(|v| warp.get(*v).map(Rc::as_ref))
                    .collect::<Outcome<Vec<&Value>>>()?;
                if *op == MapOp::Exp2 {
                    launch.counts.exps += (rows * cols) as u64;
                }
                value::map(*op, ty, &args)?
            }
            Op::Any(of) => value::any(warp.get(*of)?),
            Op::Reduce(op, of) => value::reduce(*op, self.kernel.ty(*of).layout, cols, warp.get(*of)?),
            Op::Mma { acc, a, b } => {
                let Data::F(acc) = warp.get(*acc)?.data.clone() else {
                    unreachable!("invariant: the verifier checks dtypes")
                };
                self.product(launch, w, acc, ty, a, b, None, stmt)?
            }
            Op::MmaAsync { acc, a, b } => return self.mma_async(launch, w, dst, *acc, a, b, stmt),
            Op::MmaWait { of, pending } => return self.mma_wait(w, dst, *of, *pending),
            Op::LoadGlobal {
                tensor,
                at,
                guard,
                fill,
            } => self.load_global(launch, w, ty, *tensor, at, *guard, *fill)?,
            Op::LoadShared(view) => {
                let window = self.window(w, view)?;
                launch.counts.shared_read += self.shared.bytes(window);
                let data = self.read(window, self.components.warp(w), None, w, stmt)?;
                Value { rows, cols, data }
            }
        };
        self.warps[w].set(dst, value);
        Ok(())
    }

    /// The window that a view means for a warp.
    pub(super) fn window(&self, w: usize, view: &SharedView) -> Outcome<Window> {
        let warp = &self.warps[w];
        let slot = view.slot.map_or(Ok(0), |v| warp.int(v))?;
        let row = view.row.map_or(Ok(0), |v| warp.int(v))?;
        self.shared.window(view, slot, row)
    }

    /// Reads a window as an agent: the warp itself, or with a number as one of its asynchronous engines.
    pub(super) fn read(
        &mut self,
        window: Window,
        component: usize,
        number: Option<u32>,
        w: usize,
        stmt: u32,
    ) -> Outcome<Data> {
        let clock = &self.warps[w].clock;
        let epoch = number.unwrap_or(clock.before[component]);
        let access = Access {
            component,
            epoch,
            clock,
            generic: true,
            asynchronous: number.is_some(),
            stmt,
        };
        self.shared.read(window, access)
    }

    /// An operand of a product, row by row as it enters it.
    fn operand(
        &mut self,
        launch: &mut Launch,
        w: usize,
        operand: &Operand,
        number: Option<u32>,
        stmt: u32,
    ) -> Outcome<(Vec<f32>, usize)> {
        let (view, transposed) = match operand {
            Operand::Reg(v) => {
                let value = self.warps[w].get(*v)?;
                let Data::F(data) = &value.data else {
                    unreachable!("invariant: the verifier checks dtypes")
                };
                return Ok((data.clone(), value.cols));
            }
            Operand::Shared(view) => (view, false),
            Operand::SharedT(view) => (view, true),
        };
        let window = self.window(w, view)?;
        launch.counts.shared_read += self.shared.bytes(window);
        let component = match number {
            Some(_) => self.components.mma(w),
            None => self.components.warp(w),
        };
        let Data::F(data) = self.read(window, component, number, w, stmt)? else {
            unreachable!("invariant: the verifier checks dtypes")
        };
        if !transposed {
            return Ok((data, window.cols));
        }
        let mut out = vec![0.0; data.len()];
        for (r, row) in data.chunks_exact(window.cols).enumerate() {
            for (c, x) in row.iter().enumerate() {
                out[c * window.rows + r] = *x;
            }
        }
        Ok((out, window.rows))
    }

    #[expect(clippy::too_many_arguments, reason = "one product is what both kinds have in common")]
    fn product(
        &mut self,
        launch: &mut Launch,
        w: usize,
        mut acc: Vec<f32>,
        ty: Frag,
        a: &Operand,
        b: &Operand,
        number: Option<u32>,
        stmt: u32,
    ) -> Outcome<Value> {
        let (rows, cols) = (ty.rows as usize, ty.cols as usize);
        let (a, k) = self.operand(launch, w, a, number, stmt)?;
        let (b, _) = self.operand(launch, w, b, number, stmt)?;
        value::product(&mut acc, &a, &b, rows, k, cols);
        launch.counts.mma_flops += 2 * (rows * cols * k) as u64;
        Ok(Value {
            rows,
            cols,
            data: Data::F(acc),
        })
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the operation's fields, the warp and the statement"
    )]
    fn mma_async(
        &mut self,
        launch: &mut Launch,
        w: usize,
        dst: Val,
        acc: Option<Val>,
        a: &Operand,
        b: &Operand,
        stmt: u32,
    ) -> Outcome<()> {
        let ty = self.kernel.ty(dst);
        let warp = &mut self.warps[w];
        let Some(fenced) = warp.products.fenced else {
            return trouble(
                FaultKind::InFlight,
                "there was no `mma_fence` before this warp's first asynchronous product",
            );
        };
        for v in acc
            .into_iter()
            .chain(if let Operand::Reg(v) = a { Some(*v) } else { None })
        {
            if let Reg::Ready(_, written) = &warp.regs[v.index()]
                && *written > fenced
            {
                let message = format!("the registers of {v} were written after the last `mma_fence`");
                return trouble(FaultKind::InFlight, message);
            }
        }
        let start = match acc {
            None => vec![0.0; (ty.rows * ty.cols) as usize],
            Some(v) => {
                let value = match &warp.regs[v.index()] {
                    Reg::InFlight(value, _) => Rc::clone(value),
                    Reg::Ready(..) | Reg::Passed | Reg::Empty => Rc::clone(warp.get(v)?),
                };
                if let Reg::InFlight(..) = warp.regs[v.index()] {
                    warp.regs[v.index()] = Reg::Passed;
                }
                let Data::F(data) = &value.data else {
                    unreachable!("invariant: the verifier checks dtypes")
                };
                data.clone()
            }
        };
        warp.products.issued += 1;
        warp.products.stmt = stmt;
        let number = warp.products.issued;
        // Each warp of the group has its own rows of the left operand, and all of the right one.
        let in_group = i64::from(ty.rows) * (self.warps[w].in_role % 4) as i64;
        for (operand, own) in [(a, in_group), (b, 0)] {
            let window = match operand {
                Operand::Reg(_) => None,
                Operand::Shared(view) | Operand::SharedT(view) => Some(self.window(w, view)?),
            };
            if let Some(x) = window.filter(|x| !x.row.is_multiple_of(8)) {
                let message = format!("a product from row {} of {}, which is no multiple of 8", x.row, x.buf);
                return trouble(FaultKind::Alignment, message);
            }
            self.warps[w]
                .products
                .note(stmt, window.map(|x| (x, x.row as i64 - own)));
        }
        let value = self.product(launch, w, start, ty, a, b, Some(number), stmt)?;
        self.warps[w].regs[dst.index()] = Reg::InFlight(Rc::new(value), number);
        Ok(())
    }

    fn mma_wait(&mut self, w: usize, dst: Val, of: Val, pending: u32) -> Outcome<()> {
        let component = self.components.mma(w);
        let warp = &mut self.warps[w];
        let p = &mut warp.products;
        while p.groups.len() > pending as usize {
            p.complete = p.groups.pop_front().unwrap_or(p.complete);
        }
        warp.clock.before[component] = p.complete;
        let (value, number) = match &warp.regs[of.index()] {
            Reg::InFlight(value, number) => (Rc::clone(value), *number),
            Reg::Passed => {
                return trouble(
                    FaultKind::InFlight,
                    format!("a later product took the registers of {of}"),
                );
            }
            Reg::Ready(..) | Reg::Empty => return trouble(FaultKind::InFlight, format!("{of} is not in flight")),
        };
        if number > p.committed {
            return trouble(
                FaultKind::InFlight,
                format!("{of} is waited for, but its group was not committed"),
            );
        }
        if number > p.complete {
            let message = format!("{of} may still be in flight: its group is among the {pending} that may remain");
            return trouble(FaultKind::InFlight, message);
        }
        warp.regs[dst.index()] = Reg::Ready(value, 0);
        Ok(())
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the operation's fields, the warp and the result's type"
    )]
    fn load_global(
        &self,
        launch: &mut Launch,
        w: usize,
        ty: Frag,
        tensor: ParamId,
        at: &Index,
        guard: Option<Val>,
        otherwise: f64,
    ) -> Outcome<Value> {
        let warp = &self.warps[w];
        let at = at
            .iter()
            .map(|v| Ok(warp.get(*v)?.int()))
            .collect::<Outcome<Vec<IntGrid>>>()?;
        let guard = guard.map(|v| warp.get(v)).transpose()?.map(|v| v.b());
        let (rows, cols) = (ty.rows as usize, ty.cols as usize);
        let mut data = empty(ty.dtype, rows * cols);
        let global = launch.tensor(tensor);
        let mut read = 0;
        let otherwise = f64::from(value::round(ty.dtype, otherwise as f32));
        for r in 0..rows {
            for c in 0..cols {
                if guard.is_some_and(|g| !g.at(r, c)) {
                    fill(&mut data, otherwise, 1);
                    continue;
                }
                let mut distance = 0;
                for (axis, index) in at.iter().enumerate() {
                    distance += global.step(axis, index.at(r, c))?;
                }
                global.read(global.position(distance), 1, &mut data);
                read += 1;
            }
        }
        launch.counts.read[tensor.index()] += read * u64::from(ty.dtype.bytes());
        Ok(Value { rows, cols, data })
    }
}
