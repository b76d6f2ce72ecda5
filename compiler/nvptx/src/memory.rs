//! Elementwise loads and stores of global memory.

use drawloom_kernel::ir::{Access, Dtype, Frag, Index, ParamId, Val};

use crate::asm;
use crate::build::{Any, Int, Ptr};
use crate::emitter::Emitter;
use crate::error::{Result, malformed};
use crate::slots::Slots;

impl<'c> Emitter<'c, '_> {
    /// The address of each slot's element of `ty` at index `at`.
    ///
    /// Indices that are the same for the whole fragment, for a row or for a column are summed apart, so that an element
    /// costs one addition.
    fn addresses(&mut self, tensor: ParamId, at: &Index, ty: &Frag) -> Result<Vec<Ptr<'c>>> {
        let (base, strides, dtype, _) = self.tensor(tensor)?;
        if at.len() != strides.len() {
            return malformed(format!(
                "{} indices for the {} axes of {tensor}",
                at.len(),
                strides.len()
            ));
        }
        let slots = Slots::of(ty)?;
        let mut uniform = self.b.c64(0);
        let mut rows: Vec<Option<Int<'c>>> = vec![None; slots.rows as usize];
        let mut cols: Vec<Option<Int<'c>>> = vec![None; slots.cols as usize];
        let mut full: Vec<Option<Int<'c>>> = vec![None; slots.count() as usize];
        for (axis, v) in at.iter().enumerate() {
            let t = self.ty(*v)?;
            let s = Slots::of(&t)?;
            if !matches!(t.dtype, Dtype::I32 | Dtype::I64)
                || (s.rows != 1 && s.rows != slots.rows)
                || (s.cols != 1 && s.cols != slots.cols)
            {
                return malformed(format!("{v} is no index for a {} x {} fragment", ty.rows, ty.cols));
            }
            let elements: Vec<Int<'c>> = self
                .registers(*v)?
                .iter()
                .map(|i| {
                    let i = self.b.sext(i.into_int_value(), self.b.i64());
                    if axis + 1 == at.len() {
                        i
                    } else {
                        self.b.mul(i, strides[axis])
                    }
                })
                .collect();
            let target = match (s.rows, s.cols) {
                (1, 1) => {
                    uniform = self.b.add(uniform, elements[0]);
                    continue;
                }
                (_, 1) => &mut rows,
                (1, _) => &mut cols,
                (_, _) => &mut full,
            };
            for (sum, x) in target.iter_mut().zip(elements) {
                *sum = Some(match *sum {
                    Some(y) => self.b.add(y, x),
                    None => x,
                });
            }
        }
        let shift = dtype.bytes().trailing_zeros();
        let step = |e: &Self, p: Ptr<'c>, by: Option<Int<'c>>| match by {
            Some(n) => e.b.offset(p, e.b.shl(n, shift)),
            None => p,
        };
        let first = step(self, base, Some(uniform));
        let row_starts: Vec<Ptr<'c>> = rows.iter().map(|r| step(self, first, *r)).collect();
        Ok(slots
            .iter()
            .map(|(r, c)| {
                let p = step(self, row_starts[r as usize], cols[c as usize]);
                step(self, p, full[slots.at(r, c)])
            })
            .collect())
    }
    /// The guard of each slot: the given one, and being inside the fragment. `None`: always.
    fn guards(&mut self, guard: Option<Val>, ty: &Frag) -> Result<Vec<Option<Int<'c>>>> {
        let slots = Slots::of(ty)?;
        let given = match guard {
            Some(g) => {
                let t = self.ty(g)?;
                let s = Slots::of(&t)?;
                if t.dtype != Dtype::Bool
                    || (s.rows != 1 && s.rows != slots.rows)
                    || (s.cols != 1 && s.cols != slots.cols)
                {
                    return malformed(format!("{g} is no guard for a {} x {} fragment", ty.rows, ty.cols));
                }
                Some((s, self.registers(g)?))
            }
            None => None,
        };
        let mut out = Vec::new();
        for (r, c) in slots.iter() {
            let given = given.as_ref().map(|(s, v)| v[s.at(r, c)].into_int_value());
            let inside = self.inside(ty, c);
            out.push(self.both(given, inside));
        }
        Ok(out)
    }
    /// Emits an elementwise load.
    pub fn load_global(&mut self, dst: Val, tensor: ParamId, at: &Index, guard: Option<Val>, fill: f64) -> Result<()> {
        let ty = self.ty(dst)?;
        let (_, _, dtype, access) = self.tensor(tensor)?;
        if dtype != ty.dtype || access != Access::In {
            return malformed(format!("{dst} cannot be loaded from {tensor}"));
        }
        let pointers = self.addresses(tensor, at, &ty)?;
        let guards = self.guards(guard, &ty)?;
        let scalar = self.scalar_type(dtype);
        let word = match dtype.bytes() {
            2 => self.b.i16(),
            4 => self.b.i32(),
            _ => self.b.i64(),
        };
        let fill = self.b.bitcast(self.number(dtype, fill)?, word.into());
        let mut out: Vec<Any<'c>> = pointers
            .into_iter()
            .zip(guards)
            .map(|(p, guard)| match guard {
                None => self.b.load_constant(scalar, p, dtype.bytes()),
                Some(cond) => self
                    .b
                    .bitcast(asm::load_global_if(&self.b, cond, p, &[fill])[0], scalar),
            })
            .collect();
        if ty.is_scalar() {
            out[0] = self.uniform(out[0]);
        }
        self.define_scalars(dst, out)
    }
    /// A number as a constant of a memory type.
    fn number(&self, dtype: Dtype, x: f64) -> Result<Any<'c>> {
        Ok(match dtype {
            Dtype::F16 => self.b.ctx.f16_type().const_float(x).into(),
            Dtype::Bf16 => self.b.ctx.bf16_type().const_float(x).into(),
            Dtype::F32 => self.b.f32().const_float(x).into(),
            Dtype::I32 => self.b.c32(x as i64).into(),
            Dtype::I64 => self.b.c64(x as i64).into(),
            Dtype::Bool => return malformed("a tensor of predicates"),
        })
    }
    /// Emits an elementwise store.
    pub fn store_global(&mut self, tensor: ParamId, at: &Index, guard: Option<Val>, value: Val) -> Result<()> {
        let ty = self.ty(value)?;
        let (_, _, dtype, access) = self.tensor(tensor)?;
        if dtype != ty.dtype || access != Access::Out {
            return malformed(format!("{value} cannot be stored to {tensor}"));
        }
        let pointers = self.addresses(tensor, at, &ty)?;
        let guards = self.guards(guard, &ty)?;
        let owner = self.owns(&ty);
        let scalars = self.scalars(value)?;
        for ((p, guard), v) in pointers.into_iter().zip(guards).zip(scalars) {
            let guard = self.both(guard, owner);
            self.guarded(guard, |e| e.b.store(p, v, dtype.bytes()));
        }
        Ok(())
    }
}
