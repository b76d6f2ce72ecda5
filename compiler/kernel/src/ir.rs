//! The tile program: what a kernel does, warp by warp.
//!
//! A [`Kernel`] is a grid of identical CTAs. A CTA is a set of [`Role`]s, each a contiguous range of warps that run
//! the same [`Block`]. A warp is the unit of execution: every value is a *fragment* ([`Frag`]) that one warp holds in
//! registers, and every statement is executed by one warp as a whole. Lanes appear only in the layouts, so a program
//! can be interpreted with one agent per warp and one per asynchronous engine.
//!
//! # Fragments
//! A fragment is a `rows x cols` matrix of scalars. `1 x 1` is a warp-uniform scalar, `rows x 1` one value per row,
//! `1 x cols` one value per column; elementwise operations broadcast along dimensions of size 1. How a fragment is
//! spread over the 32 lanes is its [`Layout`]. In a role of `W` warps that work on a tile of `W * rows` rows, each
//! warp holds its own `rows`; nothing says so but the index arithmetic (`Op::WarpInRole`).
//!
//! # Control flow
//! Structured: [`Stmt::Loop`], [`Stmt::If`] (warp-uniform conditions) and, before the pipeliner, [`Stmt::Stream`].
//! Values are in SSA form: each is defined once, and is visible in the rest of its block and in the blocks nested
//! there. State crosses iterations only as carried values.
//!
//! # Memory
//! Global tensors are parameters with one stride per axis, in elements. Shared buffers ([`Buffer`]) have `slots` copies
//! of a `rows x cols` matrix, for pipelining. Pure operations never touch memory that another agent writes: loads are
//! statements in program order ([`Op::LoadGlobal`], [`Op::LoadShared`]), stores and synchronisation are [`Effect`]s.
//!
//! # Asynchrony
//! - [`Effect::Copy`] with [`CopyKind::CpAsync`]: the executing warps' copy engines; done for the executing warp after
//!   [`Effect::WaitGroup`], for the other warps after a barrier that follows it.
//! - [`Effect::Copy`] with [`CopyKind::Tma`]: an engine of the CTA; completes bytes on a [`Mbarrier`].
//! - [`Op::Mma`] is synchronous (`mma.sync`); [`Op::MmaAsync`] (`wgmma`) yields a fragment that is in flight, and may be
//!   neither read nor passed on except to another `MmaAsync` as its accumulator, until [`Op::MmaWait`] returns it.

use std::fmt;

/// Declares a typed index whose `Display` is its text syntax.
macro_rules! entity {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u32);
        impl $name {
            /// The index as a `usize`.
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

entity!(
    /// A fragment held by one warp: `v7`.
    Val, "v"
);
entity!(
    /// A kernel parameter: `p2`.
    ParamId, "p"
);
entity!(
    /// A shared-memory buffer: `s1`.
    BufId, "s"
);
entity!(
    /// An array of mbarriers, one per slot: `m0`.
    MbarId, "m"
);

/// Element types.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Dtype {
    /// IEEE binary16.
    F16,
    /// bfloat16.
    Bf16,
    /// IEEE binary32.
    F32,
    /// Signed 32-bit integer, wrapping.
    I32,
    /// Signed 64-bit integer, wrapping; offsets and strides.
    I64,
    /// A predicate. Not a memory type.
    Bool,
}

impl Dtype {
    /// Size in memory, in bytes (a predicate has none: 0).
    pub fn bytes(self) -> u32 {
        match self {
            Dtype::F16 | Dtype::Bf16 => 2,
            Dtype::F32 | Dtype::I32 => 4,
            Dtype::I64 => 8,
            Dtype::Bool => 0,
        }
    }
    /// The text syntax.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F16 => "f16",
            Dtype::Bf16 => "bf16",
            Dtype::F32 => "f32",
            Dtype::I32 => "i32",
            Dtype::I64 => "i64",
            Dtype::Bool => "bool",
        }
    }
}

/// How a fragment is spread over the lanes of a warp.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Layout {
    /// `1 x 1`: every lane holds the value.
    Uniform,
    /// The accumulator atom of `mma.m16n8` (and of `wgmma`), repeated: `rows` is a multiple of 16, `cols` of 8.
    /// Lane `t` holds, of each 16 x 8 atom, rows `t/4` and `t/4 + 8`, columns `2*(t%4)` and `2*(t%4) + 1`.
    /// `rows x 1`: lane `t` holds its rows, the same in the four lanes of a quad.
    /// `1 x cols`: lane `t` holds its columns. `rows x 4`: a *quad partial*, column `c` held by the lane with `t%4 == c`.
    Mma,
    /// Columns dealt to lanes in runs of `vec`: lane `t` holds columns `c` with `(c / vec) % 32 == t`. One row per warp
    /// at a time; `rows` may be any number, each row laid out alike. For row-local kernels.
    Lanes {
        /// Elements of one run, 1, 2, 4 or 8.
        vec: u32,
    },
}

/// The type of a value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Frag {
    /// Element type.
    pub dtype: Dtype,
    /// Rows, at least 1.
    pub rows: u32,
    /// Columns, at least 1.
    pub cols: u32,
    /// Distribution over lanes.
    pub layout: Layout,
}

impl Frag {
    /// The type of a warp-uniform scalar.
    pub const fn scalar(dtype: Dtype) -> Frag {
        Frag {
            dtype,
            rows: 1,
            cols: 1,
            layout: Layout::Uniform,
        }
    }
    /// Whether the fragment is warp-uniform.
    pub fn is_scalar(&self) -> bool {
        self.rows == 1 && self.cols == 1
    }
}

/// What a kernel is called with, in ABI order.
#[derive(Clone, PartialEq, Debug)]
pub struct Param {
    /// Name, unique in the kernel.
    pub name: String,
    /// Kind and type.
    pub kind: ParamKind,
}

/// Kinds of kernel parameter.
#[derive(Clone, PartialEq, Debug)]
pub enum ParamKind {
    /// A tensor in global memory. ABI: a pointer, then one `i64` stride in elements per axis.
    /// Its extents are named by `axes`, each the name of a [`ParamKind::Scalar`] parameter of type `i32` (the size of
    /// that axis) or a decimal constant. Accesses are checked against them.
    Tensor {
        /// Element type in memory.
        dtype: Dtype,
        /// The extent of each axis: a scalar parameter's name, or a constant.
        axes: Vec<Extent>,
        /// Whether the kernel reads or writes it.
        access: Access,
    },
    /// A scalar passed by value.
    Scalar {
        /// `I32`, `I64` or `F32`.
        dtype: Dtype,
    },
}

/// The extent of a tensor axis.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Extent {
    /// Known at compile time.
    Const(u32),
    /// The value of this `i32` scalar parameter.
    Param(ParamId),
}

/// Direction of a tensor parameter.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Access {
    /// Only read.
    In,
    /// Only written. Each element at most once per launch.
    Out,
}

/// How the rows of a slot lie in shared memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BufferLayout {
    /// One behind the other.
    Rows,
    /// One behind the other, the 16-byte chunks of each permuted against bank conflicts; see [`swizzle`].
    Swizzled,
    /// Cut into panels, which lie one behind the other: a panel is as many columns as the widest of 128, 64 and 32 bytes
    /// that divides a row, of all rows of the slot. The chunks of a row are permuted inside its panel. These are the
    /// 128-, 64- and 32-byte swizzles of bulk tensor copies and of asynchronous products.
    Panels,
}

/// Widths of a panel, in bytes.
pub const PANEL_BYTES: [u32; 3] = [128, 64, 32];

/// A shared-memory buffer: `slots` copies of a `rows x cols` matrix.
#[derive(Clone, PartialEq, Debug)]
pub struct Buffer {
    /// Name for people.
    pub name: String,
    /// Element type in memory.
    pub dtype: Dtype,
    /// Number of copies.
    pub slots: u32,
    /// Rows of one copy.
    pub rows: u32,
    /// Columns of one copy.
    pub cols: u32,
    /// How its rows lie in memory.
    pub layout: BufferLayout,
    /// For buffers whose lifetimes do not overlap: share the storage of this (earlier) buffer.
    pub alias: Option<BufId>,
}

impl Buffer {
    /// Bytes of one slot.
    pub fn slot_bytes(&self) -> u32 {
        self.rows * self.cols * self.dtype.bytes()
    }
    /// Bytes of all slots.
    pub fn bytes(&self) -> u32 {
        self.slots * self.slot_bytes()
    }
    /// Bytes of a row.
    pub fn row_bytes(&self) -> u32 {
        self.cols * self.dtype.bytes()
    }
    /// The width in bytes of the panels that asynchronous engines find in this buffer: a swizzled row as wide as a panel
    /// is one. `None`: there are none.
    pub fn panel_bytes(&self) -> Option<u32> {
        // Wide: the verifier asks it of buffers of any size.
        let row = u64::from(self.cols) * u64::from(self.dtype.bytes());
        PANEL_BYTES.into_iter().find(|p| match self.layout {
            BufferLayout::Rows => false,
            BufferLayout::Swizzled => row == u64::from(*p),
            BufferLayout::Panels => row > 0 && row.is_multiple_of(u64::from(*p)),
        })
    }
    /// Bytes of a row that lie together: a panel's, or all.
    pub fn pitch(&self) -> u32 {
        match self.layout {
            BufferLayout::Rows | BufferLayout::Swizzled => self.row_bytes(),
            BufferLayout::Panels => self.panel_bytes().unwrap_or(self.row_bytes()),
        }
    }
    /// Where byte `byte` of row `row` lies in its slot.
    pub fn place(&self, row: u32, byte: u32) -> u32 {
        let pitch = self.pitch();
        let (panel, within) = (byte / pitch, byte % pitch);
        let within = match self.layout {
            BufferLayout::Rows => within,
            BufferLayout::Swizzled | BufferLayout::Panels => swizzle(row, within / 16, pitch / 16) * 16 + within % 16,
        };
        (panel * self.rows + row) * pitch + within
    }
}

/// The position, in 16-byte chunks within its row, of logical chunk `chunk` of row `row` in a swizzled buffer whose rows
/// (or panels) hold `chunks` chunks.
///
/// Eight consecutive rows of one logical chunk fall into eight different 16-byte bank groups, whatever the width: with
/// `chunks = odd * 2^z` the rows repeat their bank group every `2^(3-z)` rows, so the low `z` bits of the chunk are
/// xor-ed with the bits of the row above those. For 64 bf16 columns this is the 128-byte swizzle of the TMA engine.
pub fn swizzle(row: u32, chunk: u32, chunks: u32) -> u32 {
    let z = chunks.trailing_zeros().min(3);
    chunk ^ ((row >> (3 - z)) & ((1 << z) - 1))
}

/// What a bulk tensor copy or store knows of its tensor beforehand: the descriptor that a launch makes from a tensor and
/// passes to the kernel. Its box is `rows` x `cols`, of the axis `row_axis` and the last one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TensorMap {
    /// Tensor parameter.
    pub tensor: ParamId,
    /// The axis along which the rows of a tile lie.
    pub row_axis: usize,
    /// Rows of a box: of the window.
    pub rows: u32,
    /// Columns of a box: of a panel.
    pub cols: u32,
    /// Bytes of a row of a panel, which name the swizzle.
    pub panel_bytes: u32,
}

/// An array of `slots` mbarriers with a fixed arrival count per phase.
#[derive(Clone, PartialEq, Debug)]
pub struct Mbarrier {
    /// Name for people.
    pub name: String,
    /// Number of barriers.
    pub slots: u32,
    /// Arrivals (by warps; one per [`Effect::MbarArrive`] or [`Effect::MbarExpect`]) that complete a phase.
    pub arrivals: u32,
}

/// A contiguous range of warps that run the same block.
#[derive(Clone, PartialEq, Debug)]
pub struct Role {
    /// Name: `main`, `producer`, `consumer`.
    pub name: String,
    /// Number of warps.
    pub warps: u32,
    /// Register budget per thread (`setmaxnreg`), a multiple of 8 in 24..=256.
    pub registers: Option<u32>,
    /// What its warps do.
    pub body: Block,
}

/// A kernel. See the module documentation for its semantics.
#[derive(Clone, PartialEq, Debug)]
pub struct Kernel {
    /// Symbol name: letters, digits and `_`.
    pub name: String,
    /// Instruction set: `sm_80` or `sm_90a`. What a target may use is checked by the verifier.
    pub target: String,
    /// Parameters in ABI order.
    pub params: Vec<Param>,
    /// Shared buffers, laid out in this order, each aligned to 1024 bytes.
    pub buffers: Vec<Buffer>,
    /// Mbarriers, behind the buffers. They are initialised (and fenced, with a CTA barrier) before any role starts.
    pub mbarriers: Vec<Mbarrier>,
    /// Roles, in warp order. Warp 0 of the CTA is warp 0 of the first role.
    pub roles: Vec<Role>,
    /// CTAs whose registers must fit on a multiprocessor at once: what bounds the registers of a thread. (How many fit by
    /// shared memory differs between devices that run the same code, and is no condition.)
    pub min_ctas: u32,
    /// The type of each value, indexed by [`Val`].
    pub types: Vec<Frag>,
}

impl Kernel {
    /// Defines a fresh value.
    pub fn new_val(&mut self, ty: Frag) -> Val {
        self.types.push(ty);
        Val(self.types.len() as u32 - 1)
    }
    /// The type of a value.
    pub fn ty(&self, v: Val) -> Frag {
        self.types[v.index()]
    }
    /// Warps per CTA.
    pub fn warps(&self) -> u32 {
        self.roles.iter().map(|r| r.warps).sum()
    }
    /// Dynamic shared memory of a CTA in bytes: buffers at multiples of 1024, then 8 bytes per mbarrier.
    pub fn shared_bytes(&self) -> u32 {
        let last = self
            .buffer_offsets()
            .into_iter()
            .zip(&self.buffers)
            .map(|(o, b)| o + b.bytes())
            .max()
            .unwrap_or(0);
        last.next_multiple_of(8) + 8 * self.mbarriers.iter().map(|m| m.slots).sum::<u32>()
    }
    /// The tensor map of a bulk tensor copy or store between a tile and a window. `None` if there can be none; the
    /// verifier refuses those.
    pub fn tensor_map(&self, tile: &GlobalTile, window: &SharedView) -> Option<TensorMap> {
        let buffer = self.buffers.get(window.buf.index())?;
        let panel_bytes = buffer.panel_bytes()?;
        Some(TensorMap {
            tensor: tile.tensor,
            row_axis: tile.at.iter().position(|i| *i == RowIndex::Row)?,
            rows: tile.rows,
            cols: panel_bytes / buffer.dtype.bytes().max(1),
            panel_bytes,
        })
    }
    /// The tensor maps that the kernel takes behind its parameters, each once, in the order of their first use.
    pub fn tensor_maps(&self) -> Vec<TensorMap> {
        let mut maps = Vec::new();
        for stmt in crate::text::statements(self) {
            let map = match stmt {
                Stmt::Do(Effect::Copy {
                    kind: CopyKind::Tma { .. },
                    src,
                    dst,
                }) => self.tensor_map(src, dst),
                Stmt::Do(Effect::TmaStore { src, dst }) => self.tensor_map(dst, src),
                Stmt::Do(_) | Stmt::Let { .. } | Stmt::Loop(_) | Stmt::If(_) | Stmt::Stream(_) => None,
            };
            if let Some(map) = map.filter(|m| !maps.contains(m)) {
                maps.push(map);
            }
        }
        maps
    }
    /// Byte offset of each buffer in shared memory.
    pub fn buffer_offsets(&self) -> Vec<u32> {
        let mut offsets: Vec<u32> = Vec::new();
        let mut end = 0u32;
        for b in &self.buffers {
            match b.alias {
                Some(a) => offsets.push(offsets[a.index()]),
                None => {
                    let at = end.next_multiple_of(1024);
                    offsets.push(at);
                    end = at + b.bytes();
                }
            }
        }
        offsets
    }
}

/// A sequence of statements.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Block(pub Vec<Stmt>);

/// A statement.
#[derive(Clone, PartialEq, Debug)]
pub enum Stmt {
    /// Defines a value.
    Let {
        /// The value.
        dst: Val,
        /// How it is computed.
        op: Op,
    },
    /// Does something.
    Do(Effect),
    /// `for var in lo..hi` with carried values.
    Loop(Loop),
    /// A warp-uniform branch that yields values.
    If(If),
    /// A pipelined loop, before the pipeliner has expanded it.
    Stream(Stream),
}

/// A value that crosses iterations.
#[derive(Clone, PartialEq, Debug)]
pub struct Carried {
    /// The value inside the body.
    pub arg: Val,
    /// Its value in the first iteration.
    pub init: Val,
    /// Its value in the next iteration, defined in the body.
    pub next: Val,
    /// Its value after the loop.
    pub result: Val,
}

/// `for var in lo..hi { body }`: `var` is an `i32` scalar, step 1. Runs no iteration if `lo >= hi`.
#[derive(Clone, PartialEq, Debug)]
pub struct Loop {
    /// Induction variable.
    pub var: Val,
    /// First value.
    pub lo: Val,
    /// One past the last value.
    pub hi: Val,
    /// Carried values.
    pub carried: Vec<Carried>,
    /// Body.
    pub body: Block,
}

/// `if cond { then } else { otherwise }`.
#[derive(Clone, PartialEq, Debug)]
pub struct If {
    /// A `bool` scalar.
    pub cond: Val,
    /// Taken if true.
    pub then: Block,
    /// Taken if false.
    pub otherwise: Block,
    /// Values that the statement defines, with their value in each branch.
    pub results: Vec<Phi>,
}

/// A value that an [`If`] defines.
#[derive(Clone, PartialEq, Debug)]
pub struct Phi {
    /// The value after the statement.
    pub result: Val,
    /// Its value if the condition holds (defined in `then`, or before).
    pub then: Val,
    /// Its value if it does not.
    pub otherwise: Val,
}

/// A loop over a list of segments whose early parts may run ahead.
///
/// Synchronous meaning: for `t` in `0 .. ends[last]`: run every stage's block in order, then the body of the first
/// segment whose `end` is above `t`. Copies are complete at once, and every stage and body is preceded and followed by
/// a barrier of the role. The pipeliner keeps this meaning while stages run `lead` iterations ahead.
///
/// A buffer that a stage writes is read in the slot `t % slots`; a lead is at most the number of slots.
#[derive(Clone, PartialEq, Debug)]
pub struct Stream {
    /// Iteration number, an `i32` scalar, from 0. The same value in stages and bodies.
    pub var: Val,
    /// Parts that depend on `var` alone (not on carried values), in program order.
    pub stages: Vec<Stage>,
    /// Bodies for consecutive ranges of iterations.
    pub segments: Vec<Segment>,
    /// Carried values. `next` is a value *per segment*: see [`Segment::next`]; [`Carried::next`] is unused here and
    /// equals `arg`.
    pub carried: Vec<Carried>,
}

/// A part of a [`Stream`] that may run ahead of the bodies.
#[derive(Clone, PartialEq, Debug)]
pub struct Stage {
    /// Iterations ahead of the body, decided by the schedule.
    pub lead: u32,
    /// Role that runs it after warp specialisation.
    pub role: String,
    /// Its statements.
    pub block: Block,
    /// Values defined here and used in bodies; carried across iterations when `lead > 0`.
    pub results: Vec<Val>,
}

/// A range of iterations of a [`Stream`] with one body.
#[derive(Clone, PartialEq, Debug)]
pub struct Segment {
    /// Name for people: `full`, `edge`.
    pub name: String,
    /// One past its last iteration (`i32` scalar); it begins where the segment before ends. Never decreases.
    pub end: Val,
    /// The body.
    pub body: Block,
    /// The next value of each carried value, in order.
    pub next: Vec<Val>,
}

/// Elementwise operations. Operands broadcast; they have one dtype unless said otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MapOp {
    /// `a + b` (f32, i32, i64).
    Add,
    /// `a - b`.
    Sub,
    /// `a * b`.
    Mul,
    /// `a * b + c`, rounded once (f32); `i32`/`i64`: exact modulo 2^n.
    Fma,
    /// Smaller; a NaN operand loses (f32), as in PTX `min`.
    Min,
    /// Larger; a NaN operand loses (f32), as in PTX `max`.
    Max,
    /// `a / b`: f32 `rcp.approx` times `a` is allowed (2 ulp); integers: floor, `b > 0`.
    Div,
    /// Floor remainder of integers, `b > 0`: in `0..b`.
    Rem,
    /// `-a`.
    Neg,
    /// Absolute value.
    Abs,
    /// `2^a`, f32, `ex2.approx.ftz`.
    Exp2,
    /// `log2(a)`, f32, `lg2.approx.ftz`.
    Log2,
    /// `1/a`, f32, `rcp.approx.ftz`.
    Rcp,
    /// `1/sqrt(a)`, f32, `rsqrt.approx.ftz`.
    Rsqrt,
    /// `sqrt(a)`, f32, `sqrt.approx.ftz`.
    Sqrt,
    /// `tanh(a)`, f32, within 2^-20 relative or 2^-24 absolute (not `tanh.approx`, whose error is 2^-11).
    Tanh,
    /// Conversion to the result's dtype; to 16 bits: round to nearest even; float to int: towards zero;
    /// `i64` to `i32`: the value must fit.
    Convert,
    /// `a < b`, result bool.
    Lt,
    /// `a <= b`.
    Le,
    /// `a == b`.
    Eq,
    /// `a && b`, bools.
    And,
    /// `a || b`, bools.
    Or,
    /// `!a`, bool.
    Not,
    /// `a ? b : c`: `a` bool, `b` and `c` of the result's dtype.
    Select,
}

/// Reductions along a row.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ReduceOp {
    /// Sum.
    Sum,
    /// Maximum; NaN operands lose.
    Max,
}

/// An element address in a tensor: one index per axis, each an integer scalar or fragment (broadcasting).
pub type Index = Vec<Val>;

/// A matrix window of a shared buffer.
#[derive(Clone, PartialEq, Debug)]
pub struct SharedView {
    /// Buffer.
    pub buf: BufId,
    /// Slot, an `i32` scalar; `None` is slot 0.
    pub slot: Option<Val>,
    /// First row: a scalar (such as the warp's first row), or `None` for 0.
    pub row: Option<Val>,
    /// First column, a constant.
    pub col: u32,
    /// Rows of the window.
    pub rows: u32,
    /// Columns of the window.
    pub cols: u32,
}

/// An operand of a matrix product.
#[derive(Clone, PartialEq, Debug)]
pub enum Operand {
    /// A register fragment in [`Layout::Mma`] with a 16-bit dtype (only as `a`).
    Reg(Val),
    /// Shared memory, used as it lies.
    Shared(SharedView),
    /// Shared memory, transposed.
    SharedT(SharedView),
}

/// Computations that yield a value.
#[derive(Clone, PartialEq, Debug)]
pub enum Op {
    /// A float constant (f32), in any shape and layout.
    ConstF(f32),
    /// An integer or (0 or 1) bool constant, in any shape and layout.
    ConstI(i64),
    /// A scalar parameter.
    Param(ParamId),
    /// The CTA's number in the one-dimensional grid, `i32`.
    Cta,
    /// The warp's number in its role, `i32`.
    WarpInRole,
    /// Row numbers `0..rows` (`rows x 1`, i32).
    RowIota,
    /// Column numbers `0..cols` (`1 x cols`, i32).
    ColIota,
    /// Elementwise.
    Map(MapOp, Vec<Val>),
    /// Reduces the columns of a `rows x cols` fragment to `rows x 4` (quad partials: column `c` of the result takes the
    /// columns held by the lanes with `t % 4 == c`, that is `(col % 8) / 2 == c`; no shuffle) or to `rows x 1`.
    /// A `rows x 4` quad partial reduces to `rows x 1`. In [`Layout::Lanes`]: to `rows x 1` over all lanes.
    Reduce(ReduceOp, Val),
    /// Whether a bool fragment holds in any element of the warp; a bool scalar.
    Any(Val),
    /// `acc + a * b`, f32 accumulators, `mma.sync.m16n8k16`: `a` is `rows x k`, `b` is `k x cols`.
    Mma {
        /// Accumulator, `rows x cols` f32 in [`Layout::Mma`].
        acc: Val,
        /// Left operand.
        a: Operand,
        /// Right operand.
        b: Operand,
    },
    /// The same by `wgmma`, issued by the four warps of a warpgroup together; the result is in flight. Operands in
    /// shared memory are read by the asynchronous proxy, and lie in panels. The four warps name the same window as right
    /// operand; a left operand in shared memory is not transposed, and each names its own 16 rows of it, warp `w` of the
    /// group those that begin `16 * w` further on.
    MmaAsync {
        /// Accumulator (may itself be in flight), or `None` for zero.
        acc: Option<Val>,
        /// Left operand.
        a: Operand,
        /// Right operand.
        b: Operand,
    },
    /// Waits until at most `pending` groups of asynchronous products remain, and returns `of`, an in-flight fragment
    /// whose group is thereby complete (checked).
    MmaWait {
        /// The in-flight fragment.
        of: Val,
        /// Groups that may remain in flight.
        pending: u32,
    },
    /// Reads global memory elementwise at `at` (broadcast indices give the shape of the result). Where `guard` is false
    /// (a bool, broadcast) nothing is read and the element is `fill`.
    LoadGlobal {
        /// Tensor parameter.
        tensor: ParamId,
        /// One index per axis.
        at: Index,
        /// Where to read; `None`: everywhere.
        guard: Option<Val>,
        /// Value elsewhere.
        fill: f64,
    },
    /// Reads a window of shared memory (generic proxy).
    LoadShared(SharedView),
}

/// How a copy from global to shared memory is made.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CopyKind {
    /// Load and store in program order by all warps of the role; complete for the executing warp at once.
    /// `bytes` per access, 2, 4, 8 or 16.
    Sync {
        /// Bytes per access.
        bytes: u32,
    },
    /// `cp.async` by all warps of the role, `bytes` per access, 4, 8 or 16.
    CpAsync {
        /// Bytes per access.
        bytes: u32,
    },
    /// One bulk tensor copy, issued by the executing warp; completes `rows * cols * dtype` bytes on `barrier`. The engine
    /// knows the tensor's extents and nothing else: the tile's row limit is the extent of the axis of its rows, and its
    /// other indices are fixed. The window is whole panels.
    Tma {
        /// Barrier array.
        barrier: MbarId,
        /// Its slot, an `i32` scalar.
        slot: Val,
    },
}

/// A matrix of global memory: `rows` rows of `cols` consecutive elements of the last axis.
///
/// Row `r` lies at the element index `at`, each entry an `i32`/`i64` scalar, or a `rows x 1` fragment *expression in the
/// row number*: see [`RowIndex`]. Rows outside `0..row_limit` are not read and are zero-filled (or not written).
#[derive(Clone, PartialEq, Debug)]
pub struct GlobalTile {
    /// Tensor parameter.
    pub tensor: ParamId,
    /// Index of row `r` on each axis but the last.
    pub at: Vec<RowIndex>,
    /// First column on the last axis, a constant.
    pub col: u32,
    /// Rows, a constant.
    pub rows: u32,
    /// Columns, a constant.
    pub cols: u32,
    /// The number of the tile's first row.
    pub first_row: Val,
    /// Rows with number `first_row + r >= row_limit` do not exist. An `i32` scalar.
    pub row_limit: Val,
}

/// The index of a tile's row on one axis of a tensor, as a function of the row number `n = first_row + r`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RowIndex {
    /// The same for all rows.
    Fixed(Val),
    /// `n`.
    Row,
    /// `n / by` (floor): the slower of two packed axes.
    RowDiv {
        /// Divisor, an `i32` scalar.
        by: Val,
    },
    /// `base + n % by`: the faster of two packed axes.
    RowRem {
        /// Divisor, an `i32` scalar.
        by: Val,
        /// Added, an `i32` scalar.
        base: Val,
    },
}

/// Statements without a value.
#[derive(Clone, PartialEq, Debug)]
pub enum Effect {
    /// Copies a tile of global memory to shared memory; the role's warps share the work (TMA: the executing warp issues).
    /// In a `Sync` or `CpAsync` copy by a role of `W` warps, chunk `c` (in row-major order, `bytes` each) is moved by
    /// lane `c % 32` of warp `(c / 32) % W`.
    Copy {
        /// Mechanism.
        kind: CopyKind,
        /// Source.
        src: GlobalTile,
        /// Destination window; its size is the tile's.
        dst: SharedView,
    },
    /// Closes a group of this warp's `cp.async` copies.
    CommitGroup,
    /// Waits until at most `pending` of this warp's groups remain.
    WaitGroup {
        /// Groups that may remain.
        pending: u32,
    },
    /// Barrier `id` (0..16) of `warps` warps: waits until all have come (`bar.sync`).
    Barrier {
        /// Barrier number; 0 with all warps of the CTA is `__syncthreads`.
        id: u32,
        /// Participating warps.
        warps: u32,
    },
    /// Arrives at barrier `id` without waiting (`bar.arrive`).
    BarrierArrive {
        /// Barrier number.
        id: u32,
        /// Participating warps, arriving and waiting ones together.
        warps: u32,
    },
    /// Arrives at an mbarrier (one arrival for the warp).
    MbarArrive {
        /// Barrier array.
        barrier: MbarId,
        /// Slot.
        slot: Val,
    },
    /// Arrives and announces `bytes` that copies will complete.
    MbarExpect {
        /// Barrier array.
        barrier: MbarId,
        /// Slot.
        slot: Val,
        /// Bytes expected in this phase.
        bytes: u32,
    },
    /// Waits until the phase with this parity (an `i32` scalar, 0 or 1) is complete.
    MbarWait {
        /// Barrier array.
        barrier: MbarId,
        /// Slot.
        slot: Val,
        /// Parity.
        parity: Val,
    },
    /// Makes this warp's writes to shared memory visible to the asynchronous proxy (`fence.proxy.async`), those of its
    /// `cp.async` copies that it has waited for included.
    FenceProxyAsync,
    /// Orders register accesses before asynchronous products (`wgmma.fence`).
    MmaFence,
    /// Closes a group of asynchronous products.
    MmaCommit,
    /// Stores a fragment to shared memory (generic proxy), converted to nothing: dtypes are equal.
    StoreShared {
        /// Destination window, of the fragment's shape.
        dst: SharedView,
        /// What.
        value: Val,
    },
    /// Stores a fragment to global memory elementwise at `at` (indices broadcast to its shape), where `guard` holds.
    StoreGlobal {
        /// Tensor parameter.
        tensor: ParamId,
        /// One index per axis.
        at: Index,
        /// Where to write; `None`: everywhere.
        guard: Option<Val>,
        /// What; dtype of the tensor.
        value: Val,
    },
    /// Copies a shared window to global memory, all warps of the role sharing the work as in `Copy`, `bytes` per access.
    StoreTile {
        /// Source window.
        src: SharedView,
        /// Destination.
        dst: GlobalTile,
        /// Bytes per access, 2, 4, 8 or 16.
        bytes: u32,
    },
    /// One bulk tensor store issued by the executing warp (asynchronous proxy), closing its own group. Row limit, indices
    /// and window are as in a bulk copy.
    TmaStore {
        /// Source window.
        src: SharedView,
        /// Destination.
        dst: GlobalTile,
    },
    /// Waits until at most `pending` of this warp's bulk stores still read shared memory.
    TmaStoreWait {
        /// Stores that may remain.
        pending: u32,
    },
    /// Sets this role's register budget (`setmaxnreg`).
    SetRegisters {
        /// Registers per thread.
        count: u32,
    },
    /// Stops the launch with an error if `cond` (a bool scalar or fragment) is false in any element: for indices that
    /// come from device memory.
    Assert {
        /// What must hold.
        cond: Val,
        /// Shown by the interpreter; on the GPU it is a trap.
        message: String,
    },
}

/// Calls `f` on every value that an operation reads.
pub fn visit_op_mut(op: &mut Op, f: &mut impl FnMut(&mut Val)) {
    match op {
        Op::ConstF(_) | Op::ConstI(_) | Op::Param(_) | Op::Cta | Op::WarpInRole | Op::RowIota | Op::ColIota => {}
        Op::Map(_, args) => args.iter_mut().for_each(f),
        Op::Reduce(_, v) | Op::Any(v) | Op::MmaWait { of: v, .. } => f(v),
        Op::Mma { acc, a, b } => {
            f(acc);
            visit_operand_mut(a, f);
            visit_operand_mut(b, f);
        }
        Op::MmaAsync { acc, a, b } => {
            acc.iter_mut().for_each(&mut *f);
            visit_operand_mut(a, f);
            visit_operand_mut(b, f);
        }
        Op::LoadGlobal { at, guard, .. } => at.iter_mut().chain(guard).for_each(f),
        Op::LoadShared(view) => visit_view_mut(view, f),
    }
}

/// Calls `f` on every value that an effect reads.
pub fn visit_effect_mut(effect: &mut Effect, f: &mut impl FnMut(&mut Val)) {
    match effect {
        Effect::Copy { kind, src, dst } => {
            match kind {
                CopyKind::Tma { slot, .. } => f(slot),
                CopyKind::Sync { .. } | CopyKind::CpAsync { .. } => {}
            }
            visit_tile_mut(src, f);
            visit_view_mut(dst, f);
        }
        Effect::CommitGroup
        | Effect::WaitGroup { .. }
        | Effect::Barrier { .. }
        | Effect::BarrierArrive { .. }
        | Effect::FenceProxyAsync
        | Effect::MmaFence
        | Effect::MmaCommit
        | Effect::TmaStoreWait { .. }
        | Effect::SetRegisters { .. } => {}
        Effect::MbarArrive { slot, .. } | Effect::MbarExpect { slot, .. } => f(slot),
        Effect::MbarWait { slot, parity, .. } => {
            f(slot);
            f(parity);
        }
        Effect::StoreShared { dst, value } => {
            visit_view_mut(dst, f);
            f(value);
        }
        Effect::StoreGlobal { at, guard, value, .. } => {
            at.iter_mut().chain(guard).for_each(&mut *f);
            f(value);
        }
        Effect::StoreTile { src, dst, .. } | Effect::TmaStore { src, dst } => {
            visit_view_mut(src, f);
            visit_tile_mut(dst, f);
        }
        Effect::Assert { cond, .. } => f(cond),
    }
}

fn visit_operand_mut(operand: &mut Operand, f: &mut impl FnMut(&mut Val)) {
    match operand {
        Operand::Reg(v) => f(v),
        Operand::Shared(view) | Operand::SharedT(view) => visit_view_mut(view, f),
    }
}

fn visit_view_mut(view: &mut SharedView, f: &mut impl FnMut(&mut Val)) {
    view.slot.iter_mut().chain(&mut view.row).for_each(f);
}

fn visit_tile_mut(tile: &mut GlobalTile, f: &mut impl FnMut(&mut Val)) {
    f(&mut tile.first_row);
    f(&mut tile.row_limit);
    for index in &mut tile.at {
        match index {
            RowIndex::Fixed(v) | RowIndex::RowDiv { by: v } => f(v),
            RowIndex::RowRem { by, base } => {
                f(by);
                f(base);
            }
            RowIndex::Row => {}
        }
    }
}
