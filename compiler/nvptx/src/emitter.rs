//! The state of emission: what a lane knows, and which registers hold which value.
//!
//! Instructions in a loop that depend on the lane and the parameters alone go to its *prelude*, a block that runs once
//! before the outermost loop ([`Emitter::lane_part`]): that keeps the address arithmetic of copies and matrix loads out of
//! loops without leaving it to an optimiser. What stands behind a loop is computed there, from a thread number that is
//! read anew ([`Emitter::leave_loop`]), so that nothing but the program's own values lives through a loop.

use std::collections::HashMap;
use std::rc::Rc;

use drawloom_kernel::ir::{Access, Block, Dtype, Frag, Kernel, Loop, MapOp, Op, ParamId, Stmt, TensorMap, Val};
use drawloom_kernel::target::Target;
use inkwell::IntPredicate;
use inkwell::basic_block::BasicBlock;
use inkwell::types::BasicTypeEnum;

use crate::asm;
use crate::build::{Any, Build, Float, Int, Ptr};
use crate::error::{EmitError, Result, malformed};
use crate::shared::{Form, MatrixLanes};
use crate::slots::Slots;

/// A kernel argument.
#[derive(Clone)]
pub(crate) enum Arg<'c> {
    /// A tensor: its address and one stride per axis in elements, 64 bits.
    Tensor {
        base: Ptr<'c>,
        strides: Vec<Int<'c>>,
        dtype: Dtype,
        access: Access,
    },
    /// A scalar.
    Scalar(Any<'c>),
}

/// The warps that run the block being emitted.
#[derive(Clone, Copy)]
pub(crate) struct Team<'c> {
    /// Number of warps.
    pub warps: u32,
    /// This warp's number among them, the same in all lanes.
    pub warp: Int<'c>,
    /// This thread's number among their threads.
    pub thread: Int<'c>,
    /// Number in the CTA of the first of them.
    pub first_thread: u32,
}

/// A quantity that depends on the thread alone. See [`Emitter::lane_part`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum LaneKey {
    /// `lane`.
    Lane,
    /// Whether this is the first lane of the warp.
    First,
    /// `lane / 4`.
    QuadRow,
    /// `2 * (lane % 4)`.
    QuadCol,
    /// `vec * lane`.
    Run { vec: u32 },
    /// Byte offset of the place that this lane addresses in a matrix of shared memory: [`Emitter::matrix_lane`].
    Matrix { lanes: MatrixLanes, form: Form, chunk: u32 },
    /// Row of the chunk that this thread copies: [`Emitter::copy_row`].
    CopyRow { per_row: u32, first: u32 },
    /// Chunk of that row.
    CopyChunk { per_row: u32, first: u32 },
}

/// Emits one kernel.
pub(crate) struct Emitter<'c, 'k> {
    pub b: Build<'c>,
    pub kernel: &'k Kernel,
    /// What the kernel's target has.
    pub target: &'static Target,
    pub args: Vec<Arg<'c>>,
    /// The tensor maps that the kernel takes.
    pub maps: Vec<(TensorMap, Ptr<'c>)>,
    /// Byte offset of each buffer.
    pub offsets: Vec<u32>,
    /// Address of dynamic shared memory, 32 bits.
    pub shared: Int<'c>,
    pub lane: Int<'c>,
    pub team: Team<'c>,
    /// Whether the lanes may have accessed shared memory each by itself since the warp last met.
    pub apart: bool,
    /// Asynchronous products that were not waited for.
    pub flying: Vec<Val>,
    /// `f32` matrices and columns that the block being emitted has computed since it last waited for a product.
    pub fresh: Vec<Val>,
    prelude: Option<BasicBlock<'c>>,
    lane_parts: HashMap<LaneKey, Int<'c>>,
    registers: Vec<Option<Rc<[Any<'c>]>>>,
    /// Whether a value was defined inside the outermost loop.
    in_loop: Vec<bool>,
    /// Number of low bits known to be zero, for `i32` scalars.
    low_zeros: Vec<u32>,
    /// Whether an `i32` scalar is known not to be negative.
    non_negative: Vec<bool>,
    /// Whether a value is [`Op::ColIota`].
    is_columns: Vec<bool>,
    /// Whether a value is [`Op::ColIota`] as floats.
    is_float_columns: Vec<bool>,
    /// Values that are a factor times column numbers and something per row: the factor, and the rest of each row slot with
    /// the lane's part of the column numbers.
    pub linear: HashMap<Val, (Float<'c>, Vec<Float<'c>>)>,
}

impl<'c, 'k> Emitter<'c, 'k> {
    /// An emitter that begins in a team's body.
    pub fn new(
        b: Build<'c>,
        kernel: &'k Kernel,
        target: &'static Target,
        (args, maps): (Vec<Arg<'c>>, Vec<(TensorMap, Ptr<'c>)>),
        shared: Int<'c>,
        lane: Int<'c>,
        team: Team<'c>,
    ) -> Self {
        Emitter {
            b,
            kernel,
            target,
            args,
            maps,
            offsets: kernel.buffer_offsets(),
            shared,
            lane,
            team,
            apart: true,
            flying: Vec::new(),
            fresh: Vec::new(),
            prelude: None,
            lane_parts: HashMap::new(),
            registers: vec![None; kernel.types.len()],
            in_loop: vec![false; kernel.types.len()],
            low_zeros: vec![0; kernel.types.len()],
            non_negative: vec![false; kernel.types.len()],
            is_columns: vec![false; kernel.types.len()],
            is_float_columns: vec![false; kernel.types.len()],
            linear: HashMap::new(),
        }
    }
    /// Makes the scalar arguments a role's own, so that what several roles compute of them is computed in each: before
    /// the roles part it would live through all of them, in the registers of the smallest.
    pub fn own_scalars(&mut self, args: &[Arg<'c>]) {
        let own = |arg: &Arg<'c>| match arg {
            Arg::Scalar(Any::IntValue(v)) => Arg::Scalar(asm::opaque(&self.b, *v).into()),
            other => other.clone(),
        };
        self.args = args.iter().map(own).collect();
    }
    /// Enters a loop before whose first iteration `prelude` runs. Whether it is an outermost one.
    pub fn enter_loop(&mut self, prelude: BasicBlock<'c>) -> bool {
        if self.prelude.is_some() {
            return false;
        }
        self.prelude = Some(prelude);
        true
    }
    /// Leaves an outermost loop.
    pub fn leave_loop(&mut self) {
        self.prelude = None;
        self.lane_parts.clear();
        let tid = asm::thread_number(&self.b);
        self.lane = self.b.and(tid, self.b.c32(31));
        self.team.thread = self.b.sub(tid, self.b.c32(i64::from(self.team.first_thread)));
    }
    /// Whether a loop is being emitted.
    pub fn loops(&self) -> bool {
        self.prelude.is_some()
    }
    /// Whether a value is the same in all iterations of the outermost loop.
    pub fn constant_in_loop(&self, v: Val) -> bool {
        self.in_loop.get(v.index()) == Some(&false)
    }
    /// Builds in the prelude of the outermost loop, or here if there is none.
    pub fn in_prelude<T>(&mut self, build: impl FnOnce(&mut Self) -> T) -> T {
        let Some(prelude) = self.prelude else {
            return build(self);
        };
        let here = self.b.here();
        self.b.at_end(prelude);
        let v = build(self);
        self.b.at_end(here);
        v
    }
    /// A quantity of the thread, computed once per outermost loop.
    pub fn lane_part(&mut self, key: LaneKey) -> Int<'c> {
        if let Some(v) = self.lane_parts.get(&key) {
            return *v;
        }
        let v = self.in_prelude(|e| match key {
            LaneKey::Lane => e.lane,
            LaneKey::QuadRow => e.b.lshr(e.lane, 2),
            LaneKey::QuadCol => e.b.shl(e.b.and(e.lane, e.b.c32(3)), 1),
            LaneKey::Run { vec } => e.b.mul(e.lane, e.b.c32(i64::from(vec))),
            LaneKey::Matrix { lanes, form, chunk } => e.matrix_lane(lanes, form, chunk),
            LaneKey::First => e.b.icmp(IntPredicate::EQ, e.lane, e.b.c32(0)),
            LaneKey::CopyRow { per_row, first } => e.copy_row(per_row, first),
            LaneKey::CopyChunk { per_row, first } => e.copy_chunk(per_row, first),
        });
        if self.prelude.is_some() {
            self.lane_parts.insert(key, v);
        }
        v
    }

    // Values.

    /// The type of a value.
    pub fn ty(&self, v: Val) -> Result<Frag> {
        self.kernel
            .types
            .get(v.index())
            .copied()
            .ok_or(EmitError::Undefined { val: v })
    }
    /// The registers of a value.
    pub fn registers(&self, v: Val) -> Result<Rc<[Any<'c>]>> {
        self.registers
            .get(v.index())
            .and_then(Clone::clone)
            .ok_or(EmitError::Undefined { val: v })
    }
    /// Says which registers hold a value.
    pub fn define(&mut self, v: Val, registers: Vec<Any<'c>>) -> Result<()> {
        let ty = self.ty(v)?;
        let slots = Slots::of(&ty)?;
        let expected = if slots.packed(ty.dtype) {
            slots.count() / 2
        } else {
            slots.count()
        };
        if registers.len() != expected as usize {
            return malformed(format!(
                "{v} has {expected} registers, but its operation yields {}",
                registers.len()
            ));
        }
        let wanted = self.register_type(&ty)?;
        if registers.iter().any(|r| r.get_type() != wanted) {
            return malformed(format!(
                "{v} is {}, but its operation yields another type",
                ty.dtype.name()
            ));
        }
        self.registers[v.index()] = Some(registers.into());
        self.in_loop[v.index()] = self.loops();
        Ok(())
    }
    /// The registers of one scalar each, unpacked, row by row.
    pub fn scalars(&mut self, v: Val) -> Result<Vec<Any<'c>>> {
        let ty = self.ty(v)?;
        let registers = self.registers(v)?;
        if !Slots::of(&ty)?.packed(ty.dtype) {
            return Ok(registers.to_vec());
        }
        let pair = self.pair_type(ty.dtype)?;
        let mut out = Vec::with_capacity(2 * registers.len());
        for r in registers.iter() {
            let v = self.b.bitcast(*r, pair);
            out.push(self.b.lane(v, 0));
            out.push(self.b.lane(v, 1));
        }
        Ok(out)
    }
    /// Defines a value by its scalars, row by row, packing them if its type is packed.
    pub fn define_scalars(&mut self, v: Val, scalars: Vec<Any<'c>>) -> Result<()> {
        let ty = self.ty(v)?;
        if !Slots::of(&ty)?.packed(ty.dtype) {
            return self.define(v, scalars);
        }
        let i32 = self.b.i32().into();
        let pairs = scalars
            .chunks_exact(2)
            .map(|p| self.b.bitcast(self.b.vector(p), i32))
            .collect();
        self.define(v, pairs)
    }
    /// A scalar value's register.
    pub fn scalar(&self, v: Val) -> Result<Any<'c>> {
        let registers = self.registers(v)?;
        match registers.as_ref() {
            [one] => Ok(*one),
            _ => malformed(format!("{v} is used as a scalar")),
        }
    }
    /// An integer or predicate scalar's register.
    pub fn int(&self, v: Val) -> Result<Int<'c>> {
        match self.scalar(v)? {
            Any::IntValue(i) => Ok(i),
            _ => malformed(format!("{v} is used as an integer")),
        }
    }
    /// The f32 registers of a value.
    pub fn floats(&self, v: Val) -> Result<Vec<Float<'c>>> {
        if self.ty(v)?.dtype != Dtype::F32 {
            return malformed(format!("{v} is used as f32"));
        }
        Ok(self.registers(v)?.iter().map(|r| r.into_float_value()).collect())
    }
    /// The type of a register of a fragment.
    pub fn register_type(&self, ty: &Frag) -> Result<BasicTypeEnum<'c>> {
        if Slots::of(ty)?.packed(ty.dtype) {
            Ok(self.b.i32().into())
        } else {
            Ok(self.scalar_type(ty.dtype))
        }
    }
    /// The type of one element in a register.
    pub fn scalar_type(&self, dtype: Dtype) -> BasicTypeEnum<'c> {
        match dtype {
            Dtype::F16 => self.b.ctx.f16_type().into(),
            Dtype::Bf16 => self.b.ctx.bf16_type().into(),
            Dtype::F32 => self.b.f32().into(),
            Dtype::I32 => self.b.i32().into(),
            Dtype::I64 => self.b.i64().into(),
            Dtype::Bool => self.b.i1().into(),
        }
    }
    /// The type of two 16-bit elements.
    pub fn pair_type(&self, dtype: Dtype) -> Result<BasicTypeEnum<'c>> {
        match dtype {
            Dtype::F16 => Ok(self.b.ctx.f16_type().vec_type(2).into()),
            Dtype::Bf16 => Ok(self.b.ctx.bf16_type().vec_type(2).into()),
            Dtype::F32 | Dtype::I32 | Dtype::I64 | Dtype::Bool => {
                malformed(format!("{} elements do not pair", dtype.name()))
            }
        }
    }
    /// A tensor argument.
    pub fn tensor(&self, p: ParamId) -> Result<(Ptr<'c>, Vec<Int<'c>>, Dtype, Access)> {
        match self.args.get(p.index()) {
            Some(Arg::Tensor {
                base,
                strides,
                dtype,
                access,
            }) => Ok((*base, strides.clone(), *dtype, *access)),
            Some(Arg::Scalar(_)) | None => malformed(format!("{p} is no tensor")),
        }
    }
    /// A refusal for this target.
    pub fn unsupported<T>(&self, op: &str) -> Result<T> {
        Err(EmitError::Unsupported {
            op: op.into(),
            target: self.kernel.target.clone(),
        })
    }

    // What is known of scalars.

    /// How many low bits of an `i32` scalar are zero for certain.
    pub fn low_zeros(&self, v: Val) -> u32 {
        self.low_zeros.get(v.index()).copied().unwrap_or(0)
    }
    /// Whether an `i32` scalar is not negative for certain, as long as sums and products do not wrap.
    pub fn non_negative(&self, v: Val) -> bool {
        self.non_negative.get(v.index()).copied().unwrap_or(false)
    }
    /// Notes what is known of the variable and the carried values of a loop: not to be negative, if they do not begin so
    /// and an iteration keeps it.
    pub fn learn_loop(&mut self, l: &Loop) {
        self.set_non_negative(l.var, self.non_negative(l.lo));
        for c in &l.carried {
            self.set_non_negative(c.arg, self.non_negative(c.init));
        }
        let mut changed = true;
        while changed {
            self.learn_block(&l.body);
            changed = false;
            for c in &l.carried {
                if self.non_negative(c.arg) && !self.non_negative(c.next) {
                    self.set_non_negative(c.arg, false);
                    changed = true;
                }
            }
        }
        for c in &l.carried {
            self.set_non_negative(c.result, self.non_negative(c.arg));
        }
    }
    fn learn_block(&mut self, block: &Block) {
        for stmt in &block.0 {
            match stmt {
                Stmt::Let { dst, op } => self.learn(*dst, op),
                Stmt::Loop(l) => self.learn_loop(l),
                Stmt::If(i) => {
                    self.learn_block(&i.then);
                    self.learn_block(&i.otherwise);
                    for p in &i.results {
                        self.set_non_negative(p.result, self.non_negative(p.then) && self.non_negative(p.otherwise));
                    }
                }
                Stmt::Do(_) | Stmt::Stream(_) => {}
            }
        }
    }
    /// Whether the result of an operation is not negative.
    fn stays_non_negative(&self, op: &Op) -> bool {
        match op {
            Op::ConstI(n) => *n >= 0,
            Op::Cta | Op::WarpInRole => true,
            Op::Map(MapOp::Add | MapOp::Mul | MapOp::Fma | MapOp::Min | MapOp::Div, a) => {
                a.iter().all(|v| self.non_negative(*v))
            }
            Op::Map(MapOp::Max, a) => a.iter().any(|v| self.non_negative(*v)),
            Op::Map(MapOp::Select, a) => a.iter().skip(1).all(|v| self.non_negative(*v)),
            Op::Map(MapOp::Rem, _) => true,
            Op::Map(_, _)
            | Op::ConstF(_)
            | Op::Param(_)
            | Op::RowIota
            | Op::ColIota
            | Op::Reduce(..)
            | Op::Any(_)
            | Op::Mma { .. }
            | Op::MmaAsync { .. }
            | Op::MmaWait { .. }
            | Op::LoadGlobal { .. }
            | Op::LoadShared(_) => false,
        }
    }
    /// Whether a value is the column numbers of its fragment.
    pub fn is_columns(&self, v: Val) -> bool {
        self.is_columns.get(v.index()).copied().unwrap_or(false)
    }
    /// Whether a value is the column numbers of its fragment, as floats.
    pub fn is_float_columns(&self, v: Val) -> bool {
        self.is_float_columns.get(v.index()).copied().unwrap_or(false)
    }
    /// Notes what is known of a value from its operation.
    pub fn learn(&mut self, dst: Val, op: &Op) {
        let of = |v: &Val| self.low_zeros(*v);
        let known = match op {
            Op::ConstI(n) => (*n as u32).trailing_zeros(),
            Op::Map(MapOp::Add | MapOp::Sub | MapOp::Min | MapOp::Max, a) => a.iter().map(of).min().unwrap_or(0),
            Op::Map(MapOp::Select, a) => a.iter().skip(1).map(of).min().unwrap_or(0),
            Op::Map(MapOp::Mul, a) => a.iter().map(of).sum(),
            Op::Map(MapOp::Fma, a) if a.len() == 3 => (of(&a[0]) + of(&a[1])).min(of(&a[2])),
            Op::Map(_, _)
            | Op::ConstF(_)
            | Op::Param(_)
            | Op::Cta
            | Op::WarpInRole
            | Op::RowIota
            | Op::ColIota
            | Op::Reduce(..)
            | Op::Any(_)
            | Op::Mma { .. }
            | Op::MmaAsync { .. }
            | Op::MmaWait { .. }
            | Op::LoadGlobal { .. }
            | Op::LoadShared(_) => 0,
        };
        let non_negative = self.stays_non_negative(op);
        if dst.index() < self.kernel.types.len() {
            self.low_zeros[dst.index()] = known.min(32);
            self.is_columns[dst.index()] = matches!(op, Op::ColIota);
            self.is_float_columns[dst.index()] = matches!(op, Op::Map(MapOp::Convert, a) if self.is_columns(a[0]))
                && self.kernel.ty(dst).dtype == Dtype::F32;
        }
        self.set_non_negative(dst, non_negative);
    }
    fn set_non_negative(&mut self, v: Val, known: bool) {
        if let Some(n) = self.non_negative.get_mut(v.index()) {
            *n = known;
        }
    }
}
