//! Kernels built by hand for the tests of emission.
#![allow(dead_code, reason = "each test crate uses a part")]

use drawloom_kernel::code::Code;
use drawloom_kernel::ir::*;
use std::ops::{Deref, DerefMut};

/// Builds one role's body, statement by statement.
pub struct Builder(Code<Kernel>);

impl Deref for Builder {
    type Target = Code<Kernel>;

    fn deref(&self) -> &Code<Kernel> {
        &self.0
    }
}

impl DerefMut for Builder {
    fn deref_mut(&mut self) -> &mut Code<Kernel> {
        &mut self.0
    }
}

pub fn mma(dtype: Dtype, rows: u32, cols: u32) -> Frag {
    Frag {
        dtype,
        rows,
        cols,
        layout: Layout::Mma,
    }
}
pub fn lanes(dtype: Dtype, rows: u32, cols: u32, vec: u32) -> Frag {
    Frag {
        dtype,
        rows,
        cols,
        layout: Layout::Lanes { vec },
    }
}

impl Builder {
    pub fn new(name: &str, target: &str, warps: u32) -> Builder {
        let kernel = Kernel {
            name: name.into(),
            target: target.into(),
            params: vec![],
            buffers: vec![],
            mbarriers: vec![],
            roles: vec![Role {
                name: "main".into(),
                warps,
                registers: None,
                body: Block::default(),
            }],
            min_ctas: 1,
            types: vec![],
        };
        Builder(Code::new(kernel))
    }
    pub fn tensor(&mut self, name: &str, dtype: Dtype, rank: usize, access: Access) -> ParamId {
        let axes = vec![Extent::Const(1 << 20); rank];
        self.kernel.params.push(Param {
            name: name.into(),
            kind: ParamKind::Tensor { dtype, axes, access },
        });
        ParamId(self.kernel.params.len() as u32 - 1)
    }
    pub fn scalar(&mut self, name: &str, dtype: Dtype) -> Val {
        self.kernel.params.push(Param {
            name: name.into(),
            kind: ParamKind::Scalar { dtype },
        });
        let p = ParamId(self.kernel.params.len() as u32 - 1);
        self.def(Frag::scalar(dtype), Op::Param(p))
    }
    pub fn buffer(
        &mut self,
        name: &str,
        dtype: Dtype,
        slots: u32,
        rows: u32,
        cols: u32,
        layout: BufferLayout,
    ) -> BufId {
        self.kernel.buffers.push(Buffer {
            name: name.into(),
            dtype,
            slots,
            rows,
            cols,
            layout,
            alias: None,
        });
        BufId(self.kernel.buffers.len() as u32 - 1)
    }
    pub fn map(&mut self, ty: Frag, op: MapOp, operands: &[Val]) -> Val {
        self.def(ty, Op::Map(op, operands.to_vec()))
    }
    pub fn imap(&mut self, op: MapOp, operands: &[Val]) -> Val {
        self.map(Frag::scalar(Dtype::I32), op, operands)
    }
    pub fn barrier(&mut self) {
        let warps = self.kernel.warps();
        self.effect(Effect::Barrier { id: 0, warps });
    }
    /// `for var in lo..hi` with carried values `(init)`; `body` gets the variable and the carried arguments.
    pub fn repeat(
        &mut self,
        lo: Val,
        hi: Val,
        inits: &[Val],
        body: impl FnOnce(&mut Builder, Val, &[Val]) -> Vec<Val>,
    ) -> Vec<Val> {
        let var = self.kernel.new_val(Frag::scalar(Dtype::I32));
        let kernel = &mut self.0.kernel;
        let args: Vec<Val> = inits.iter().map(|v| kernel.new_val(kernel.ty(*v))).collect();
        self.open();
        let next = body(self, var, &args);
        let block = self.close();
        let kernel = &mut self.0.kernel;
        let results: Vec<Val> = inits.iter().map(|v| kernel.new_val(kernel.ty(*v))).collect();
        let carried = (0..inits.len())
            .map(|i| Carried {
                arg: args[i],
                init: inits[i],
                next: next[i],
                result: results[i],
            })
            .collect();
        self.push(Stmt::Loop(Loop {
            var,
            lo,
            hi,
            carried,
            body: block,
        }));
        results
    }
    /// `if cond { body }`.
    pub fn when(&mut self, cond: Val, body: impl FnOnce(&mut Builder)) {
        self.open();
        body(self);
        let then = self.close();
        self.push(Stmt::If(If {
            cond,
            then,
            otherwise: Block::default(),
            results: vec![],
        }));
    }
    pub fn finish(mut self) -> Kernel {
        let body = self.close();
        self.kernel.roles[0].body = body;
        self.0.kernel
    }
}

pub fn view(buf: BufId, slot: Option<Val>, row: Option<Val>, rows: u32, cols: u32) -> SharedView {
    SharedView {
        buf,
        slot,
        row,
        col: 0,
        rows,
        cols,
    }
}

/// What a flash-attention forward kernel is built of.
#[derive(Clone, Copy)]
pub struct Flash {
    pub dtype: Dtype,
    pub block_m: u32,
    pub block_n: u32,
    pub head: u32,
    pub warps: u32,
    /// Copies of the key and value buffers: 1 (values land behind the scores, the next keys behind the softmax) or 2.
    pub stages: u32,
    /// Whether the query's fragments stay in registers.
    pub query_in_registers: bool,
    /// Whether keys past the length are masked in every tile.
    pub masked: bool,
    /// Whether scores are capped by a tanh.
    pub softcap: bool,
}

/// Online softmax attention over tensors `[head, row, d]`, in the manner of FlashAttention-2 (Dao 2023, arXiv:2307.08691,
/// Algorithm 1): running row maximum in the base-2 domain, row sums as partials of a quad, output through shared memory.
pub fn flash(f: Flash) -> Kernel {
    let Flash {
        dtype,
        block_m,
        block_n,
        head,
        warps,
        stages,
        ..
    } = f;
    let mut k = Builder::new("flash", "sm_80", warps);
    let rows = block_m / warps;
    let q = k.tensor("q", dtype, 3, Access::In);
    let key = k.tensor("k", dtype, 3, Access::In);
    let value = k.tensor("v", dtype, 3, Access::In);
    let o = k.tensor("o", dtype, 3, Access::Out);
    let lse = k.tensor("lse", Dtype::F32, 2, Access::Out);
    let nq = k.scalar("nq", Dtype::I32);
    let nk = k.scalar("nk", Dtype::I32);
    let tiles = k.scalar("tiles", Dtype::I32);
    let scale = k.scalar("scale", Dtype::F32);
    let sq = k.buffer("q", dtype, 1, block_m, head, BufferLayout::Swizzled);
    let sk = k.buffer("k", dtype, stages, block_n, head, BufferLayout::Swizzled);
    let sv = k.buffer("v", dtype, stages, block_n, head, BufferLayout::Swizzled);

    let cta = k.def(Frag::scalar(Dtype::I32), Op::Cta);
    let h = k.imap(MapOp::Div, &[cta, tiles]);
    let tile = k.imap(MapOp::Rem, &[cta, tiles]);
    let bm = k.int(i64::from(block_m));
    let q0 = k.imap(MapOp::Mul, &[tile, bm]);
    let warp = k.def(Frag::scalar(Dtype::I32), Op::WarpInRole);
    let wrows = k.int(i64::from(rows));
    let row0 = k.imap(MapOp::Mul, &[warp, wrows]);
    let zero = k.int(0);
    let one = k.int(1);
    let bn = k.int(i64::from(block_n));
    let bn1 = k.int(i64::from(block_n) - 1);
    let up = k.imap(MapOp::Add, &[nk, bn1]);
    let count = k.imap(MapOp::Div, &[up, bn]);

    let copy = |k: &mut Builder, tensor: ParamId, dst: SharedView, first_row: Val, row_limit: Val| {
        let at = vec![RowIndex::Fixed(h), RowIndex::Row];
        let src = GlobalTile {
            tensor,
            at,
            col: 0,
            rows: dst.rows,
            cols: head,
            first_row,
            row_limit,
        };
        k.effect(Effect::Copy {
            kind: CopyKind::CpAsync { bytes: 16 },
            src,
            dst,
        });
    };
    copy(&mut k, q, view(sq, None, None, block_m, head), q0, nq);
    copy(&mut k, key, view(sk, Some(zero), None, block_n, head), zero, nk);
    if stages == 2 {
        copy(&mut k, value, view(sv, Some(zero), None, block_n, head), zero, nk);
    }
    k.effect(Effect::CommitGroup);

    let ss = mma(Dtype::F32, rows, block_n);
    let os = mma(Dtype::F32, rows, head);
    let column = mma(Dtype::F32, rows, 1);
    let quad = mma(Dtype::F32, rows, 4);
    let qview = view(sq, None, Some(row0), rows, head);
    let qreg = f.query_in_registers.then(|| {
        k.effect(Effect::WaitGroup { pending: 0 });
        k.barrier();
        k.def(mma(dtype, rows, head), Op::LoadShared(qview.clone()))
    });
    let acc0 = k.def(os, Op::ConstF(0.0));
    let max0 = k.def(column, Op::ConstF(f32::NEG_INFINITY));
    let sum0 = k.def(quad, Op::ConstF(0.0));
    let out = k.repeat(zero, count, &[acc0, max0, sum0], |k, t, args| {
        let [acc, max, sum] = [args[0], args[1], args[2]];
        let next = k.imap(MapOp::Add, &[t, one]);
        let two = k.int(2);
        let slot = if stages == 2 {
            k.imap(MapOp::Rem, &[t, two])
        } else {
            zero
        };
        let n0 = k.imap(MapOp::Mul, &[t, bn]);
        let n1 = k.imap(MapOp::Mul, &[next, bn]);
        let more = k.map(Frag::scalar(Dtype::Bool), MapOp::Lt, &[next, count]);
        k.effect(Effect::WaitGroup { pending: 0 });
        k.barrier();
        if stages == 2 {
            let other = k.imap(MapOp::Sub, &[one, slot]);
            k.when(more, |k| {
                copy(k, key, view(sk, Some(other), None, block_n, head), n1, nk);
                copy(k, value, view(sv, Some(other), None, block_n, head), n1, nk);
            });
            k.effect(Effect::CommitGroup);
        } else {
            copy(k, value, view(sv, Some(slot), None, block_n, head), n0, nk);
            k.effect(Effect::CommitGroup);
        }
        let s0 = k.def(ss, Op::ConstF(0.0));
        let a = match qreg {
            Some(v) => Operand::Reg(v),
            None => Operand::Shared(qview.clone()),
        };
        let b = Operand::SharedT(view(sk, Some(slot), None, block_n, head));
        let mut s = k.def(ss, Op::Mma { acc: s0, a, b });
        if stages == 1 {
            k.effect(Effect::WaitGroup { pending: 0 });
            k.barrier();
            k.when(more, |k| {
                copy(k, key, view(sk, Some(slot), None, block_n, head), n1, nk)
            });
            k.effect(Effect::CommitGroup);
        }
        if f.softcap {
            let small = k.float(0.02);
            let cap = k.float(50.0);
            let x = k.map(ss, MapOp::Mul, &[s, small]);
            let y = k.map(ss, MapOp::Tanh, &[x]);
            s = k.map(ss, MapOp::Mul, &[y, cap]);
        }
        if f.masked {
            let cols = Frag {
                rows: 1,
                ..mma(Dtype::I32, 1, block_n)
            };
            let c = k.def(cols, Op::ColIota);
            let at = k.map(cols, MapOp::Add, &[c, n0]);
            let keep = k.map(
                Frag {
                    dtype: Dtype::Bool,
                    ..cols
                },
                MapOp::Lt,
                &[at, nk],
            );
            let never = k.float(f32::NEG_INFINITY);
            s = k.map(ss, MapOp::Select, &[keep, s, never]);
        }
        let partial = k.def(quad, Op::Reduce(ReduceOp::Max, s));
        let tile_max = k.def(column, Op::Reduce(ReduceOp::Max, partial));
        // The running maximum is kept scaled: one value per row instead of two lives through the exponentials.
        let scaled_max = k.map(column, MapOp::Mul, &[tile_max, scale]);
        let new_max = k.map(column, MapOp::Max, &[max, scaled_max]);
        let minus = k.map(column, MapOp::Neg, &[new_max]);
        let old = k.map(column, MapOp::Add, &[max, minus]);
        let factor = k.map(column, MapOp::Exp2, &[old]);
        let x = k.map(ss, MapOp::Fma, &[s, scale, minus]);
        let p = k.map(ss, MapOp::Exp2, &[x]);
        let tile_sum = k.def(quad, Op::Reduce(ReduceOp::Sum, p));
        let new_sum = k.map(quad, MapOp::Fma, &[sum, factor, tile_sum]);
        let scaled = k.map(os, MapOp::Mul, &[acc, factor]);
        let p16 = k.map(mma(dtype, rows, block_n), MapOp::Convert, &[p]);
        let b = Operand::Shared(view(sv, Some(slot), None, block_n, head));
        let new_acc = k.def(
            os,
            Op::Mma {
                acc: scaled,
                a: Operand::Reg(p16),
                b,
            },
        );
        vec![new_acc, new_max, new_sum]
    });
    let total = k.def(column, Op::Reduce(ReduceOp::Sum, out[2]));
    let inverse = k.map(column, MapOp::Rcp, &[total]);
    let normal = k.map(os, MapOp::Mul, &[out[0], inverse]);
    let result = k.map(mma(dtype, rows, head), MapOp::Convert, &[normal]);
    k.barrier();
    k.effect(Effect::StoreShared {
        dst: qview,
        value: result,
    });
    let r = k.def(mma(Dtype::I32, rows, 1), Op::RowIota);
    let first = k.imap(MapOp::Add, &[q0, row0]);
    let row = k.map(mma(Dtype::I32, rows, 1), MapOp::Add, &[r, first]);
    let inside = k.map(mma(Dtype::Bool, rows, 1), MapOp::Lt, &[row, nq]);
    let log = k.map(column, MapOp::Log2, &[total]);
    let value = k.map(column, MapOp::Add, &[out[1], log]);
    k.effect(Effect::StoreGlobal {
        tensor: lse,
        at: vec![h, row],
        guard: Some(inside),
        value,
    });
    k.barrier();
    let at = vec![RowIndex::Fixed(h), RowIndex::Row];
    let dst = GlobalTile {
        tensor: o,
        at,
        col: 0,
        rows: block_m,
        cols: head,
        first_row: q0,
        row_limit: nq,
    };
    k.effect(Effect::StoreTile {
        src: view(sq, None, None, block_m, head),
        dst,
        bytes: 16,
    });
    k.finish()
}
