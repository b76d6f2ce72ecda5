//! Matrix products by `mma.sync.m16n8k16`.
//!
//! The inner dimension is the outer loop: of each step of 16, the left operand's fragments are taken (from registers, or
//! by one `ldmatrix.x4` per 16 rows), and the right operand's by one `ldmatrix.x4` per 16 columns, used by all row atoms
//! of the warp. Loads stand where they are used: ptxas orders them by itself, and comes to the same code however they are
//! issued.

use drawloom_kernel::ir::{Dtype, Layout, Operand, SharedView, Val};

use crate::build::{Any, Float};
use crate::emitter::Emitter;
use crate::error::{Result, malformed, multiple};
use crate::shared::{MatrixLanes, Window};
use crate::slots::Slots;
use std::rc::Rc;

/// The left operand, ready to be taken apart.
enum Left<'c> {
    Registers { slots: Slots, registers: Rc<[Any<'c>]> },
    Shared { window: Window<'c>, transposed: bool },
}

/// The right operand.
struct Right<'c> {
    window: Window<'c>,
    /// Whether its rows in memory are the columns of the product.
    transposed: bool,
}

/// A part of the right operand: 16 of the inner dimension times two column atoms (or one).
struct Columns<'c> {
    atom: u32,
    /// Two registers per atom.
    registers: Vec<Any<'c>>,
}

impl<'c> Emitter<'c, '_> {
    /// Emits `acc + a * b`.
    pub fn mma(&mut self, dst: Val, acc: Val, a: &Operand, b: &Operand) -> Result<()> {
        let ty = self.ty(dst)?;
        if ty.layout != Layout::Mma || ty != self.ty(acc)? {
            return malformed(format!("{acc} and {dst} are no accumulators of one shape"));
        }
        multiple("the row count of a matrix product", ty.rows, 16)?;
        multiple("the column count of a matrix product", ty.cols, 8)?;
        let slots = Slots::of(&ty)?;
        let (a_rows, k, a_type) = self.extent(a)?;
        let (k_right, b_cols, b_type) = self.extent(b)?;
        if a_rows != ty.rows || b_cols != ty.cols || k != k_right || a_type != b_type {
            return malformed(format!(
                "product of {a_rows} x {k} {} and {k_right} x {b_cols} {} in {dst}",
                a_type.name(),
                b_type.name()
            ));
        }
        multiple("the inner dimension of a matrix product", k, 16)?;
        let mut left = match a {
            Operand::Reg(v) => Left::Registers {
                slots: Slots::of(&self.ty(*v)?)?,
                registers: self.registers(*v)?,
            },
            Operand::Shared(v) => Left::Shared {
                window: self.window(v)?,
                transposed: false,
            },
            Operand::SharedT(v) => Left::Shared {
                window: self.window(v)?,
                transposed: true,
            },
        };
        let mut right = match b {
            Operand::Reg(_) => return self.unsupported("a matrix product with a right operand in registers"),
            Operand::Shared(v) => Right {
                window: self.window(v)?,
                transposed: false,
            },
            Operand::SharedT(v) => Right {
                window: self.window(v)?,
                transposed: true,
            },
        };
        self.apart = true;
        let mut sums = self.floats(acc)?;
        let atoms = ty.cols / 8;
        let steps: Vec<(u32, u32)> = (0..k / 16)
            .flat_map(|s| (0..atoms).step_by(2).map(move |n| (s, n)))
            .collect();
        let mut rows = Vec::new();
        for (step, atom) in steps {
            if atom == 0 {
                rows = self.left(&mut left, ty.rows / 16, step);
            }
            let columns = self.right(&mut right, atoms, (step, atom));
            for (r, row) in rows.iter().enumerate() {
                for (n, pair) in columns.registers.chunks_exact(2).enumerate() {
                    let col = 2 * (columns.atom + n as u32);
                    let at = [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(h, e)| slots.at(2 * r as u32 + h, col + e));
                    let product = self.product(a_type, row, pair, at.map(|i| sums[i]));
                    for (i, x) in at.into_iter().zip(product) {
                        sums[i] = x;
                    }
                }
            }
        }
        self.define(dst, sums.into_iter().map(Into::into).collect())
    }
    /// Rows, columns and element type of an operand as the product sees it.
    pub fn extent(&self, o: &Operand) -> Result<(u32, u32, Dtype)> {
        let element = |v: &SharedView| match self.kernel.buffers.get(v.buf.index()) {
            Some(b) => Ok(b.dtype),
            None => malformed(format!("{} is not declared", v.buf)),
        };
        let (rows, cols, dtype) = match o {
            Operand::Reg(v) => {
                let ty = self.ty(*v)?;
                if ty.layout != Layout::Mma || ty.rows == 1 || ty.cols < 8 {
                    return malformed(format!("{v} is no matrix in the mma layout"));
                }
                (ty.rows, ty.cols, ty.dtype)
            }
            Operand::Shared(v) => (v.rows, v.cols, element(v)?),
            Operand::SharedT(v) => (v.cols, v.rows, element(v)?),
        };
        match dtype {
            Dtype::F16 | Dtype::Bf16 => Ok((rows, cols, dtype)),
            Dtype::F32 | Dtype::I32 | Dtype::I64 | Dtype::Bool => {
                self.unsupported(&format!("a matrix product of {}", dtype.name()))
            }
        }
    }
    /// The registers of a left operand's row atom `atom` in step `step` of the inner dimension.
    pub fn left_registers(slots: Slots, registers: &[Any<'c>], atom: u32, step: u32) -> [Any<'c>; 4] {
        [(0, 0), (1, 0), (0, 2), (1, 2)].map(|(r, c)| registers[slots.at(2 * atom + r, 4 * step + c) / 2])
    }
    /// The four registers of each row atom in step `step` of the inner dimension.
    fn left(&mut self, left: &mut Left<'c>, atoms: u32, step: u32) -> Vec<Vec<Any<'c>>> {
        (0..atoms)
            .map(|atom| match left {
                Left::Registers { slots, registers } => Self::left_registers(*slots, registers, atom, step).to_vec(),
                Left::Shared {
                    window,
                    transposed: false,
                } => {
                    let p = self.place(window, MatrixLanes::RowsFirst, 16 * atom, 2 * step);
                    self.ldmatrix(p, 4, false)
                }
                Left::Shared {
                    window,
                    transposed: true,
                } => {
                    let p = self.place(window, MatrixLanes::ChunksFirst, 16 * step, 2 * atom);
                    self.ldmatrix(p, 4, true)
                }
            })
            .collect()
    }
    /// The registers of two column atoms (one, if it is the last) from `at.1` in step `at.0` of the inner dimension.
    fn right(&mut self, right: &mut Right<'c>, atoms: u32, at: (u32, u32)) -> Columns<'c> {
        let (step, atom) = at;
        let count = if atom + 1 < atoms { 4 } else { 2 };
        let p = if right.transposed {
            self.place(&mut right.window, MatrixLanes::ChunksFirst, 8 * atom, 2 * step)
        } else {
            self.place(&mut right.window, MatrixLanes::RowsFirst, 16 * step, atom)
        };
        Columns {
            atom,
            registers: self.ldmatrix(p, count, !right.transposed),
        }
    }
    /// One `mma.sync.m16n8k16`.
    fn product(&self, dtype: Dtype, a: &[Any<'c>], b: &[Any<'c>], c: [Float<'c>; 4]) -> [Float<'c>; 4] {
        let (name, operand) = if dtype == Dtype::Bf16 {
            ("llvm.nvvm.mma.m16n8k16.row.col.bf16", self.b.i32().into())
        } else {
            (
                "llvm.nvvm.mma.m16n8k16.row.col.f32.f32",
                self.b.ctx.f16_type().vec_type(2).into(),
            )
        };
        let mut args: Vec<Any<'c>> = a.iter().chain(b).map(|r| self.b.bitcast(*r, operand)).collect();
        args.extend(c.iter().map(|x| Any::from(*x)));
        let sum = self.b.call(name, &[], &args);
        [0, 1, 2, 3].map(|i| self.b.field(sum, i).into_float_value())
    }
}
