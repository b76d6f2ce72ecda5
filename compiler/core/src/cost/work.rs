//! What a statement asks of the machine: the table that every count is a sum of.
//!
//! Bytes, products, exponentials and barriers follow from the fragment types alone: they are exact, and counted in the
//! same units as by the kernel interpreter. Issue slots are an estimate of the instructions that the back end makes of a
//! fragment operation: one per element that a lane holds, halves for packed conversions, one per `mma.m16n8k16`, one
//! per `ldmatrix.x4`, and so on; each rule stands beside its case.

use crate::device::Device;
use drawloom_kernel::ir::{
    Block, BufId, CopyKind, Dtype, Effect, Frag, Kernel, Layout, MapOp, Op, Operand, ReduceOp, SharedView, Stmt, Val,
};
use drawloom_kernel::text::nested_blocks;

/// What a warp, a CTA or a grid does.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Work {
    /// Bytes read from global memory, by parameter.
    pub read: Vec<u64>,
    /// Bytes written to global memory, by parameter.
    pub written: Vec<u64>,
    /// Tensor operations, a multiply and an add counted as two.
    pub mma_flops: u64,
    /// The part of them that is asynchronous (`wgmma`), which has a rate of its own.
    pub wgmma_flops: u64,
    /// Tensor operations for which there would be time while asynchronous products wait for operands from shared memory.
    pub stalled_flops: u64,
    /// Special-function operations (`ex2`, `lg2`, `rcp`, `rsqrt`, `sqrt`), per lane: a warp instruction is 32. More than
    /// elements where several lanes hold one.
    pub mufu: u64,
    /// Warp instructions issued, in thousandths (estimate).
    pub issue_milli: u64,
    /// Elements of `exp2`.
    pub exps: u64,
    /// Bytes read from shared memory: by loads, stores of tiles and products (every warp its own operands).
    pub shared_read: u64,
    /// The part of it that is not fetched again: the right operand of an asynchronous product is read once for four warps.
    pub shared_once: u64,
    /// Bytes written to shared memory: by stores and copies (zero-filled rows too).
    pub shared_written: u64,
    /// Executions of `barrier` and `barrier_arrive`, one per warp.
    pub barriers: u64,
    /// Arrivals at and waits for mbarriers, one per warp.
    pub mbarriers: u64,
    /// Cycles in which a warp that runs alone can only wait: dependent results, barriers (estimate).
    pub latency: u64,
    /// Query tiles: copies by an engine to the buffer of the products' left operands.
    pub tiles: u64,
    /// Other copies by an engine: of keys and values.
    pub fills: u64,
}

impl Work {
    /// No work, for a kernel with this many parameters.
    pub(super) fn none(params: usize) -> Work {
        Work {
            read: vec![0; params],
            written: vec![0; params],
            ..Work::default()
        }
    }

    /// Adds `times` repetitions of `other`.
    pub fn add(&mut self, other: &Work, times: u64) {
        for (a, b) in self.read.iter_mut().zip(&other.read) {
            *a += b * times;
        }
        for (a, b) in self.written.iter_mut().zip(&other.written) {
            *a += b * times;
        }
        self.mma_flops += other.mma_flops * times;
        self.wgmma_flops += other.wgmma_flops * times;
        self.stalled_flops += other.stalled_flops * times;
        self.mufu += other.mufu * times;
        self.issue_milli += other.issue_milli * times;
        self.exps += other.exps * times;
        self.shared_read += other.shared_read * times;
        self.shared_once += other.shared_once * times;
        self.shared_written += other.shared_written * times;
        self.barriers += other.barriers * times;
        self.mbarriers += other.mbarriers * times;
        self.latency += other.latency * times;
        self.tiles += other.tiles * times;
        self.fills += other.fills * times;
    }

    /// Clocks of one multiprocessor for the products, each kind at its rate.
    pub(super) fn tensor_clocks(&self, device: &Device) -> f64 {
        (self.mma_flops - self.wgmma_flops) as f64 / f64::from(device.tensor_per_clock)
            + self.wgmma_flops as f64 / f64::from(device.wgmma_per_clock)
    }

    /// Bytes through the port of shared memory.
    pub fn shared_bytes(&self) -> u64 {
        self.shared_read - self.shared_once + self.shared_written
    }

    /// Bytes of global memory, read and written, of all tensors.
    pub fn global_bytes(&self) -> u64 {
        self.read.iter().sum::<u64>() + self.written.iter().sum::<u64>()
    }
}

/// Elements of a fragment that one lane holds.
pub fn per_lane(f: Frag) -> u32 {
    match f.layout {
        Layout::Uniform => f.rows * f.cols,
        Layout::Mma => match (f.rows, f.cols) {
            (1, 1) => 1,
            // Two rows of each 16, the same in the four lanes of a quad; a quad partial likewise.
            (r, 1 | 4) => (r / 8).max(1),
            // Two columns of each 8, the same in the eight quads.
            (1, c) => (c / 4).max(1),
            (r, c) => (r * c / 32).max(1),
        },
        Layout::Lanes { vec } => match f.cols {
            1 => f.rows,
            c => f.rows * c.div_ceil(32 * vec) * vec,
        },
    }
}

/// 32-bit registers that a fragment takes in one lane. Predicates are kept packed.
pub fn registers(f: Frag) -> u32 {
    let n = per_lane(f);
    match f.dtype {
        Dtype::F32 | Dtype::I32 => n,
        Dtype::I64 => 2 * n,
        Dtype::F16 | Dtype::Bf16 => n.div_ceil(2),
        Dtype::Bool => n.div_ceil(32),
    }
}

/// Dependent-issue latency of `mma.m16n8k16` with f32 accumulators, in cycles.
///
/// # Source
/// Sun et al. 2022, arXiv:2206.02874, table 3 (A100, m16n8k16: 33.0 cycles); Hopper's is the same
/// (Luo et al. 2024, arXiv:2402.13499, table 8: 32.0).
const MMA_LATENCY: u64 = 33;
/// Latency of a warp shuffle, of `ldmatrix` and of a barrier among warps that have arrived, in cycles.
///
/// # Source
/// Jia et al. 2018, arXiv:1804.06826, and 2019, arXiv:1903.07486: shared-memory and shuffle latency 19 to 25 cycles.
const EXCHANGE_LATENCY: u64 = 25;

/// Operations of an asynchronous product in the time in which shared memory delivers a byte: 4096 and 128 bytes a clock.
const WGMMA_PER_BYTE: u64 = 32;

/// Counts of a value's definition, apart from the bytes of a global load, which depend on its guard.
pub(super) fn of_op(kernel: &Kernel, dst: Val, op: &Op) -> Work {
    let ty = kernel.ty(dst);
    let mut w = Work::none(kernel.params.len());
    let n = u64::from(per_lane(ty));
    match op {
        // Constants are immediates, parameters operands in constant memory.
        Op::ConstF(_) | Op::ConstI(_) | Op::Param(_) => {}
        Op::Cta | Op::WarpInRole | Op::RowIota | Op::ColIota => w.issue_milli = 1000,
        Op::Map(map, args) => of_map(kernel, *map, ty, args, n, &mut w),
        // A vote, behind the disjunction of what the lane holds.
        Op::Any(of) => {
            w.issue_milli = 1000 * u64::from(per_lane(kernel.ty(*of)));
            w.latency = EXCHANGE_LATENCY;
        }
        Op::Reduce(op, of) => {
            let from = kernel.ty(*of);
            // One operation an element; a maximum takes three operands from sm_100 on, two here.
            w.issue_milli = 1000 * u64::from(per_lane(from)) + if *op == ReduceOp::Sum { 0 } else { 1000 };
            // Across a quad two butterfly steps, across a warp five: a shuffle and an operation each.
            let steps = match (from.layout, ty.cols) {
                (Layout::Mma, 1) => 2,
                (Layout::Lanes { .. }, 1) => 5,
                _ => 0,
            };
            w.issue_milli += steps * 2000 * n;
            w.latency = steps * EXCHANGE_LATENCY;
        }
        Op::Mma { a, b, .. } => {
            let depth = depth(kernel, a);
            of_mma(ty, depth, &mut w);
            w.latency = MMA_LATENCY + EXCHANGE_LATENCY;
            w.shared_read = operand_bytes(kernel, ty, depth, a, b);
            // `ldmatrix.x4` fetches 512 bytes. Addresses are a lane's base xor-ed with constants: about half an
            // instruction beside each.
            w.issue_milli += w.shared_read.div_ceil(512) * 1500;
        }
        Op::MmaAsync { a, b, .. } => {
            let depth = depth(kernel, a);
            w.mma_flops = 2 * u64::from(ty.rows) * u64::from(ty.cols) * u64::from(depth);
            w.wgmma_flops = w.mma_flops;
            // One instruction for 64 rows of four warps and 16 of depth, and its descriptors; operands are not fetched.
            w.issue_milli = 2000 * u64::from(depth.div_ceil(16));
            w.shared_read = operand_bytes(kernel, ty, depth, a, b);
            let left = operand_bytes(kernel, ty, depth, a, &Operand::Reg(dst));
            w.shared_once = (w.shared_read - left) / 4 * 3;
            let fetched = w.shared_read - w.shared_once;
            w.stalled_flops = (fetched * WGMMA_PER_BYTE).saturating_sub(w.wgmma_flops);
        }
        Op::MmaWait { .. } => {
            w.issue_milli = 1000;
            w.latency = MMA_LATENCY;
        }
        // Bytes of the elements by 32 lanes of up to 16 bytes; addresses and guards beside each access.
        Op::LoadGlobal { .. } => w.issue_milli = 4000 * n,
        Op::LoadShared(view) => {
            w.shared_read = view_bytes(kernel, view);
            of_shared(kernel, view, ty, &mut w);
        }
    }
    w
}

fn of_map(kernel: &Kernel, op: MapOp, ty: Frag, args: &[Val], n: u64, w: &mut Work) {
    let lanes = 32 * n;
    match op {
        MapOp::Exp2 | MapOp::Log2 | MapOp::Rcp | MapOp::Rsqrt | MapOp::Sqrt => {
            w.mufu = lanes;
            w.issue_milli = 1000 * n;
            if op == MapOp::Exp2 {
                w.exps = u64::from(ty.rows) * u64::from(ty.cols);
            }
        }
        // 1 - 2 / (1 + 2^(2 a log2 e)), with a polynomial near zero: two special functions and about ten others.
        MapOp::Tanh => {
            w.mufu = 2 * lanes;
            w.issue_milli = 12_000 * n;
        }
        MapOp::Div if ty.dtype == Dtype::F32 => {
            w.mufu = lanes;
            w.issue_milli = 2000 * n;
        }
        // Integer division by a run-time divisor: about 20 instructions with a reciprocal.
        MapOp::Div | MapOp::Rem => w.issue_milli = 20_000 * n,
        MapOp::Convert => {
            let from = args.first().map_or(ty, |&v| kernel.ty(v));
            w.issue_milli = match (ty.dtype, from.dtype) {
                // Packed: two elements an instruction.
                (Dtype::F16 | Dtype::Bf16, _) | (_, Dtype::F16 | Dtype::Bf16) => 500 * n,
                _ => 1000 * n,
            };
        }
        // Wide integers take two instructions.
        MapOp::Add | MapOp::Sub | MapOp::Mul | MapOp::Fma if ty.dtype == Dtype::I64 => w.issue_milli = 2000 * n,
        MapOp::Add
        | MapOp::Sub
        | MapOp::Mul
        | MapOp::Fma
        | MapOp::Min
        | MapOp::Max
        | MapOp::Neg
        | MapOp::Abs
        | MapOp::Lt
        | MapOp::Le
        | MapOp::Eq
        | MapOp::Select => w.issue_milli = 1000 * n,
        // Folded into the comparison that precedes or the selection that follows.
        MapOp::And | MapOp::Or | MapOp::Not => w.issue_milli = 500 * n,
    }
}

/// The summed dimension of a product: the columns of its left operand.
fn depth(kernel: &Kernel, a: &Operand) -> u32 {
    match a {
        Operand::Reg(v) => kernel.ty(*v).cols,
        Operand::Shared(s) => s.cols,
        Operand::SharedT(s) => s.rows,
    }
}

fn of_mma(ty: Frag, depth: u32, w: &mut Work) {
    w.mma_flops = 2 * u64::from(ty.rows) * u64::from(ty.cols) * u64::from(depth);
    w.issue_milli = 1000 * u64::from(ty.rows.div_ceil(16) * ty.cols.div_ceil(8) * depth.div_ceil(16));
}

/// Bytes of the operands that lie in shared memory. Every warp reads its own copy.
fn operand_bytes(kernel: &Kernel, ty: Frag, depth: u32, a: &Operand, b: &Operand) -> u64 {
    let bytes = |operand: &Operand, elements: u32| match operand {
        Operand::Reg(_) => 0,
        Operand::Shared(s) | Operand::SharedT(s) => elements * kernel.buffers[s.buf.index()].dtype.bytes(),
    };
    u64::from(bytes(a, ty.rows * depth)) + u64::from(bytes(b, ty.cols * depth))
}

/// A load or store of a fragment in shared memory: 4 bytes a lane and instruction, and the address.
fn of_shared(kernel: &Kernel, view: &SharedView, ty: Frag, w: &mut Work) {
    let size = kernel.buffers[view.buf.index()].dtype.bytes();
    w.issue_milli = 1500 * u64::from((per_lane(ty) * size).div_ceil(4));
    w.latency = EXCHANGE_LATENCY;
}

/// Bytes of a window of shared memory.
fn view_bytes(kernel: &Kernel, view: &SharedView) -> u64 {
    u64::from(view.rows) * u64::from(view.cols) * u64::from(kernel.buffers[view.buf.index()].dtype.bytes())
}

/// The buffer of query tiles: what asynchronous products read as their left operand.
pub(super) fn query_buffer(kernel: &Kernel) -> Option<BufId> {
    fn of(block: &Block) -> Option<BufId> {
        block.0.iter().find_map(|stmt| match stmt {
            Stmt::Let {
                op:
                    Op::MmaAsync {
                        a: Operand::Shared(view),
                        ..
                    },
                ..
            } => Some(view.buf),
            stmt => nested_blocks(stmt).into_iter().find_map(of),
        })
    }
    kernel.roles.iter().find_map(|role| of(&role.body))
}

/// Counts of an effect, apart from the bytes of global accesses, which depend on limits and guards, and from the bytes
/// of tiles in shared memory, which are counted with them. `warps` is the size of the role that executes it.
pub(super) fn of_effect(kernel: &Kernel, effect: &Effect, warps: u32) -> Work {
    let mut w = Work::none(kernel.params.len());
    // An access, its guard, and its two addresses, of which the shared one is an immediate offset half of the time.
    let share = |view: &SharedView, bytes: u32| {
        3000 * view_bytes(kernel, view).div_ceil(u64::from(warps) * 32 * u64::from(bytes.max(1)))
    };
    match effect {
        Effect::Copy { kind, dst, .. } => match kind {
            // A load and a store in place of one copy.
            CopyKind::Sync { bytes } => w.issue_milli = share(dst, *bytes) / 3 * 4,
            CopyKind::CpAsync { bytes } => w.issue_milli = share(dst, *bytes),
            CopyKind::Tma { .. } => {
                w.issue_milli = 4000;
                if query_buffer(kernel) == Some(dst.buf) {
                    w.tiles = 1;
                } else {
                    w.fills = 1;
                }
            }
        },
        Effect::StoreTile { src, bytes, .. } => w.issue_milli = share(src, *bytes) / 3 * 4,
        Effect::TmaStore { .. } => w.issue_milli = 4000,
        Effect::StoreShared { dst, value } => {
            w.shared_written = view_bytes(kernel, dst);
            of_shared(kernel, dst, kernel.ty(*value), &mut w);
        }
        Effect::StoreGlobal { value, .. } => w.issue_milli = 4000 * u64::from(per_lane(kernel.ty(*value))),
        Effect::Barrier { .. } => {
            w.barriers = 1;
            w.issue_milli = 1000;
            w.latency = EXCHANGE_LATENCY;
        }
        Effect::BarrierArrive { .. } => {
            w.barriers = 1;
            w.issue_milli = 1000;
        }
        Effect::MbarArrive { .. } | Effect::MbarExpect { .. } => {
            w.mbarriers = 1;
            w.issue_milli = 1000;
        }
        Effect::MbarWait { .. } => {
            w.mbarriers = 1;
            w.issue_milli = 2000;
            w.latency = EXCHANGE_LATENCY;
        }
        Effect::CommitGroup
        | Effect::WaitGroup { .. }
        | Effect::FenceProxyAsync
        | Effect::MmaFence
        | Effect::MmaCommit
        | Effect::TmaStoreWait { .. }
        | Effect::SetRegisters { .. } => w.issue_milli = 1000,
        // A comparison and a branch for each element.
        Effect::Assert { cond, .. } => w.issue_milli = 2000 * u64::from(per_lane(kernel.ty(*cond))),
    }
    w
}
