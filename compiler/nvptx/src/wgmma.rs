//! Asynchronous matrix products by `wgmma.m64nNk16`.
//!
//! A shared operand is named by a 64-bit descriptor (PTX ISA 9.0, "Matrix Descriptor Format"): the address and, where the
//! columns of the product lie along rows, the distance of panels in the low word; the distance of 8 rows and the swizzle
//! in the high one, which is a constant. The low word is computed as one 32-bit number, what loops do not change of it
//! before them, and a step of the inner dimension adds a constant: ptxas keeps all of it in uniform registers, where the
//! same number of 64-bit constants would take registers of every lane.
//!
//! ptxas keeps products in flight only where nothing else defines what they read or write between their issue and the wait
//! for them; else it serialises them, with a warning (`C7513`, `C7515`). So a program scales accumulators before a fence,
//! and converts a left operand in registers behind the wait for the product that had those registers before. What is to
//! overlap with a product stands before the wait for an mbarrier that precedes the wait for the product: see
//! [`Emitter::statements`].

use drawloom_kernel::ir::{Dtype, Frag, Layout, Operand, SharedView, Val};

use crate::asm::{self, Left};
use crate::build::{Any, Int};
use crate::emitter::Emitter;
use crate::error::{EmitError, Result, malformed, multiple};
use crate::shared::Form;
use crate::slots::Slots;

/// What lies along the rows of a shared operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Along {
    /// The inner dimension.
    Inner,
    /// The columns of the product.
    Columns,
}

/// Rows of a product that one warp holds.
const ROWS: u32 = 16;

impl<'c> Emitter<'c, '_> {
    /// The descriptors of a shared operand, one per step of 16 of the inner dimension. Of a left operand the warps of a
    /// group name their own rows each; the descriptor names those of the first.
    pub fn descriptors(&mut self, v: &SharedView, along: Along, left: bool) -> Result<Vec<Int<'c>>> {
        let Some(buffer) = self.kernel.buffers.get(v.buf.index()) else {
            return malformed(format!("{} is not declared", v.buf));
        };
        let form = Form::of(buffer)?;
        let Some(swizzle) = buffer.panel_bytes().map(|p| match p {
            128 => 1u32,
            64 => 2,
            _ => 3,
        }) else {
            return malformed(format!("{} does not lie in panels", buffer.name));
        };
        let first = v.col * buffer.dtype.bytes();
        let steps: Vec<u32> = match along {
            Along::Inner => (0..v.cols / 16)
                .map(|s| form.cut(first + s * 16 * buffer.dtype.bytes()))
                .map(|(panel, byte)| panel + byte)
                .collect(),
            Along::Columns => {
                let (panel, byte) = form.cut(first);
                if byte != 0 {
                    return malformed(format!("a window of {} begins inside a panel", buffer.name));
                }
                (0..v.rows / 16).map(|s| panel + s * 16 * form.pitch).collect()
            }
        };
        let panels = match along {
            Along::Inner => 1,
            Along::Columns => buffer.rows * form.pitch / 16,
        };
        let high = (swizzle << 30) | (8 * form.pitch / 16);
        let low = self.descriptor_low(v, form, panels, left)?;
        let b = &self.b;
        let base = b.or(b.zext(low, b.i64()), b.i64().const_int(u64::from(high) << 32, false));
        Ok(steps
            .into_iter()
            .map(|s| b.add(base, b.c64(i64::from(s / 16))))
            .collect())
    }
    /// The low word of the descriptor of a window's rows from their first column: `panels` is its upper half.
    fn descriptor_low(&mut self, v: &SharedView, form: Form, panels: u32, left: bool) -> Result<Int<'c>> {
        let slot_bytes = self.kernel.buffers[v.buf.index()].slot_bytes();
        let constant = self.offsets[v.buf.index()] / 16;
        let mut low = self.in_prelude(|e| {
            let address = e.b.and(e.b.lshr(e.shared, 4), e.b.c32(0x3fff));
            e.b.add(address, e.b.c32(i64::from((panels << 16) + constant)))
        });
        // What changes least comes first, so that it is added before the loop.
        let mut terms = Vec::new();
        terms.extend(v.row.map(|row| (row, form.pitch / 16, left)));
        terms.extend(v.slot.map(|slot| (slot, slot_bytes / 16, false)));
        terms.sort_by_key(|(v, ..)| !self.constant_in_loop(*v));
        for (v, units, own_rows) in terms {
            let n = self.int(v)?;
            let add = |e: &mut Self| {
                let n = if own_rows {
                    let in_group = e.b.and(e.team.warp, e.b.c32(3));
                    e.b.sub(n, e.b.mul(in_group, e.b.c32(i64::from(ROWS))))
                } else {
                    n
                };
                e.b.add(low, e.b.mul(n, e.b.c32(i64::from(units))))
            };
            low = if self.constant_in_loop(v) {
                self.in_prelude(add)
            } else {
                add(self)
            };
        }
        Ok(low)
    }
    /// Emits `acc + a * b`, in flight.
    pub fn mma_async(&mut self, dst: Val, acc: Option<Val>, a: &Operand, b: &Operand) -> Result<()> {
        if !self.target.mma_async {
            return self.unsupported("an asynchronous matrix product");
        }
        let ty = self.ty(dst)?;
        self.check_product(dst, &ty, a, b)?;
        let element = self.extent(a)?.2;
        let columns = match b {
            Operand::Shared(v) => self.descriptors(v, Along::Columns, false)?,
            Operand::SharedT(v) => self.descriptors(v, Along::Inner, false)?,
            Operand::Reg(_) => return self.unsupported("a matrix product with a right operand in registers"),
        };
        let shared = match a {
            Operand::Reg(_) => None,
            Operand::Shared(v) => Some(self.descriptors(v, Along::Inner, true)?),
            Operand::SharedT(_) => {
                return self.unsupported("an asynchronous matrix product with a transposed left operand");
            }
        };
        let slots = Slots::of(&ty)?;
        let start = match acc {
            Some(acc) if self.ty(acc)? == ty => Some(self.registers(acc)?),
            Some(acc) => return malformed(format!("{acc} and {dst} are no accumulators of one shape")),
            None => None,
        };
        let mut out: Vec<Option<Any<'c>>> = vec![None; slots.count() as usize];
        for atom in 0..ty.rows / ROWS {
            // In the order of the instruction: of each 8 columns two in the upper row, then two in the lower.
            let places: Vec<usize> = (0..ty.cols / 2)
                .map(|i| slots.at(2 * atom + i / 2 % 2, i / 4 * 2 + i % 2))
                .collect();
            let mut sums = start.as_ref().map(|s| places.iter().map(|i| s[*i]).collect::<Vec<_>>());
            for (step, right) in columns.iter().enumerate() {
                let left = match (a, &shared) {
                    (_, Some(descriptors)) => Left::Shared(descriptors[step]),
                    (Operand::Reg(v), None) => {
                        let own = Slots::of(&self.ty(*v)?)?;
                        let registers = self.registers(*v)?;
                        Left::Registers(Self::left_registers(own, &registers, atom, step as u32))
                    }
                    (Operand::Shared(_) | Operand::SharedT(_), None) => {
                        return malformed("a left operand without descriptors");
                    }
                };
                let transposed = matches!(b, Operand::Shared(_));
                sums = Some(asm::wgmma(
                    &self.b,
                    element == Dtype::Bf16,
                    ty.cols,
                    sums.as_deref(),
                    left,
                    *right,
                    transposed,
                ));
            }
            for (i, sum) in places.into_iter().zip(sums.into_iter().flatten()) {
                out[i] = Some(sum);
            }
        }
        self.flying.retain(|v| Some(*v) != acc);
        self.flying.push(dst);
        self.define(dst, out.into_iter().flatten().collect())
    }
    /// Checks the shapes of an asynchronous product.
    fn check_product(&self, dst: Val, ty: &Frag, a: &Operand, b: &Operand) -> Result<()> {
        if ty.layout != Layout::Mma || ty.dtype != Dtype::F32 {
            return malformed(format!("{dst} is no accumulator"));
        }
        multiple("the row count of a matrix product", ty.rows, ROWS)?;
        multiple("the column count of a matrix product", ty.cols, 8)?;
        if ty.cols > self.target.mma_async_cols {
            return Err(EmitError::Shape {
                what: "the column count of an asynchronous matrix product".into(),
                given: ty.cols,
                required: format!("at most {}", self.target.mma_async_cols),
            });
        }
        if ty.rows != ROWS && !matches!(a, Operand::Reg(_)) {
            return Err(EmitError::Shape {
                what: "the row count of a left operand in shared memory".into(),
                given: ty.rows,
                required: format!("{ROWS}"),
            });
        }
        let (a_rows, k, a_type) = self.extent(a)?;
        let (k_right, b_cols, b_type) = self.extent(b)?;
        if a_rows != ty.rows || b_cols != ty.cols || k != k_right || a_type != b_type {
            return malformed(format!(
                "product of {a_rows} x {k} {} and {k_right} x {b_cols} {} in {dst}",
                a_type.name(),
                b_type.name()
            ));
        }
        multiple("the inner dimension of a matrix product", k, 16)
    }
    /// Waits for an asynchronous product.
    pub fn mma_wait(&mut self, dst: Val, of: Val, pending: u32) -> Result<()> {
        if !self.target.mma_async {
            return self.unsupported("an asynchronous matrix product");
        }
        let registers = self.registers(of)?;
        if self.ty(of)?.dtype != Dtype::F32 {
            return malformed(format!("{of} is no accumulator"));
        }
        let ready = asm::wgmma_wait(&self.b, pending, &registers);
        self.flying.retain(|v| *v != of);
        self.fresh.clear();
        self.define(dst, ready)
    }
    /// Orders accesses of registers before asynchronous products.
    pub fn mma_fence(&mut self) -> Result<()> {
        if !self.target.mma_async {
            return self.unsupported("an asynchronous matrix product");
        }
        self.b.call_void("llvm.nvvm.wgmma.fence.sync.aligned", &[], &[]);
        Ok(())
    }
    /// Closes a group of asynchronous products.
    pub fn mma_commit(&mut self) -> Result<()> {
        if !self.target.mma_async {
            return self.unsupported("an asynchronous matrix product");
        }
        self.b.call_void("llvm.nvvm.wgmma.commit_group.sync.aligned", &[], &[]);
        Ok(())
    }
}
