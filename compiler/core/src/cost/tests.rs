//! Kernels built by hand, counted, and compared with sums that are written out.

use super::*;
use drawloom_kernel::code::Code;
use drawloom_kernel::interp::{Arg, Args, Elements, Options, Tensor, run};
use drawloom_kernel::ir::*;
use std::ops::{Deref, DerefMut};

/// A kernel under construction: statements go to the innermost open block.
pub(crate) struct Build(Code<Kernel>);

const I32: Frag = Frag::scalar(Dtype::I32);
const BOOL: Frag = Frag::scalar(Dtype::Bool);

impl Deref for Build {
    type Target = Code<Kernel>;

    fn deref(&self) -> &Code<Kernel> {
        &self.0
    }
}

impl DerefMut for Build {
    fn deref_mut(&mut self) -> &mut Code<Kernel> {
        &mut self.0
    }
}

impl Build {
    pub(crate) fn new(params: Vec<Param>, buffers: Vec<Buffer>) -> Build {
        Build(Code::new(Kernel {
            name: "k".into(),
            target: "sm_80".into(),
            params,
            buffers,
            mbarriers: vec![],
            roles: vec![],
            min_ctas: 1,
            types: vec![],
        }))
    }
    pub(crate) fn map(&mut self, ty: Frag, op: MapOp, args: &[Val]) -> Val {
        self.def(ty, Op::Map(op, args.to_vec()))
    }
    pub(crate) fn finish(mut self, warps: u32) -> Kernel {
        let body = self.close();
        self.kernel.roles.push(Role {
            name: "main".into(),
            warps,
            registers: None,
            body,
        });
        self.0.kernel
    }
}

pub(crate) fn tensor(name: &str, dtype: Dtype, axes: Vec<Extent>, access: Access) -> Param {
    Param {
        name: name.into(),
        kind: ParamKind::Tensor { dtype, axes, access },
    }
}

pub(crate) fn scalar(name: &str) -> Param {
    Param {
        name: name.into(),
        kind: ParamKind::Scalar { dtype: Dtype::I32 },
    }
}

pub(crate) fn frag(dtype: Dtype, rows: u32, cols: u32) -> Frag {
    Frag {
        dtype,
        rows,
        cols,
        layout: Layout::Mma,
    }
}

pub(crate) fn inputs(scalars: &[(&str, i64)]) -> Inputs {
    Inputs {
        scalars: scalars.iter().map(|(n, x)| ((*n).into(), *x)).collect(),
        tables: BTreeMap::new(),
    }
}

/// A causal walk over keys: CTA `c` is query tile `c % tiles` of head `c / tiles`; it copies the tiles `0 ..= tile` of
/// `k` and stores its rows of `o`, each warp 16 of them, guarded by the number of queries and by column < 6.
pub(crate) fn causal(warps: u32) -> Kernel {
    let n = Extent::Param(ParamId(2));
    let params = vec![
        tensor("k", Dtype::Bf16, vec![n.clone(), Extent::Const(64)], Access::In),
        tensor("o", Dtype::F32, vec![n, Extent::Const(8)], Access::Out),
        scalar("n"),
    ];
    let k = Buffer {
        name: "k".into(),
        dtype: Dtype::Bf16,
        slots: 2,
        rows: 32,
        cols: 64,
        layout: BufferLayout::Swizzled,
        alias: None,
    };
    let mut b = Build::new(params, vec![k]);
    let cta = b.def(I32, Op::Cta);
    let n = b.def(I32, Op::Param(ParamId(2)));
    let block = b.int(16 * i64::from(warps));
    let (c31, c32, zero) = (b.int(31), b.int(32), b.int(0));
    let up = b.map(I32, MapOp::Add, &[n, block]);
    let one = b.int(1);
    let up = b.map(I32, MapOp::Sub, &[up, one]);
    let tiles = b.map(I32, MapOp::Div, &[up, block]);
    let m = b.map(I32, MapOp::Rem, &[cta, tiles]);
    let row0 = b.map(I32, MapOp::Mul, &[m, block]);
    let end = b.map(I32, MapOp::Add, &[row0, block]);
    let end = b.map(I32, MapOp::Min, &[end, n]);
    let hi = b.map(I32, MapOp::Add, &[end, c31]);
    let hi = b.map(I32, MapOp::Div, &[hi, c32]);
    let acc0 = b.def(frag(Dtype::F32, 16, 8), Op::ConstF(0.0));

    let (var, arg, result) = (
        b.kernel.new_val(I32),
        b.kernel.new_val(frag(Dtype::F32, 16, 8)),
        b.kernel.new_val(frag(Dtype::F32, 16, 8)),
    );
    b.open();
    let first = b.map(I32, MapOp::Mul, &[var, c32]);
    let view = SharedView {
        buf: BufId(0),
        slot: None,
        row: None,
        col: 0,
        rows: 32,
        cols: 64,
    };
    let src = GlobalTile {
        tensor: ParamId(0),
        at: vec![RowIndex::Row],
        col: 0,
        rows: 32,
        cols: 64,
        first_row: first,
        row_limit: n,
    };
    b.effect(Effect::Copy {
        kind: CopyKind::CpAsync { bytes: 16 },
        src,
        dst: view.clone(),
    });
    b.effect(Effect::CommitGroup);
    b.effect(Effect::WaitGroup { pending: 0 });
    b.effect(Effect::Barrier { id: 0, warps });
    let a = SharedView {
        rows: 16,
        ..view.clone()
    };
    let bt = SharedView { rows: 8, ..view };
    let next = b.def(
        frag(Dtype::F32, 16, 8),
        Op::Mma {
            acc: arg,
            a: Operand::Shared(a),
            b: Operand::SharedT(bt),
        },
    );
    let next = b.map(frag(Dtype::F32, 16, 8), MapOp::Exp2, &[next]);
    b.effect(Effect::Barrier { id: 0, warps });
    let body = b.close();
    b.push(Stmt::Loop(Loop {
        var,
        lo: zero,
        hi,
        carried: vec![Carried {
            arg,
            init: acc0,
            next,
            result,
        }],
        body,
    }));

    let warp = b.def(I32, Op::WarpInRole);
    let sixteen = b.int(16);
    let offset = b.map(I32, MapOp::Mul, &[warp, sixteen]);
    let row = b.map(I32, MapOp::Add, &[row0, offset]);
    let iota = b.def(frag(Dtype::I32, 16, 1), Op::RowIota);
    let row = b.map(frag(Dtype::I32, 16, 1), MapOp::Add, &[iota, row]);
    let in_rows = b.map(frag(Dtype::Bool, 16, 1), MapOp::Lt, &[row, n]);
    let col = b.def(frag(Dtype::I32, 1, 8), Op::ColIota);
    let five = b.int(5);
    let in_cols = b.map(frag(Dtype::Bool, 1, 8), MapOp::Le, &[col, five]);
    let guard = b.map(frag(Dtype::Bool, 16, 8), MapOp::And, &[in_rows, in_cols]);
    b.effect(Effect::StoreGlobal {
        tensor: ParamId(1),
        at: vec![row, col],
        guard: Some(guard),
        value: result,
    });
    b.finish(warps)
}

/// What `causal` issues, written out: bytes read, bytes written, products.
fn causal_by_hand(warps: u64, n: u64, heads: u64) -> (u64, u64, u64) {
    let block = 16 * warps;
    let (mut read, mut written, mut products) = (0, 0, 0);
    for m in 0..n.div_ceil(block) {
        let end = (m * block + block).min(n);
        for t in 0..end.div_ceil(32) {
            read += (n - t * 32).min(32) * 128;
            products += warps;
        }
        written += (end - m * block) * 6 * 4;
    }
    (read * heads, written * heads, products * heads)
}

#[test]
fn copies_and_guarded_stores_are_exact() {
    for warps in [1, 4] {
        let kernel = causal(warps);
        for n in [1u64, 15, 16, 31, 33, 64, 100, 257] {
            for heads in [1, 3] {
                let grid = n.div_ceil(16 * u64::from(warps)) * heads;
                let counts = count(&kernel, grid as u32, &inputs(&[("n", n as i64)])).expect("counts");
                let (read, written, products) = causal_by_hand(warps.into(), n, heads);
                assert_eq!(counts.total.read, [read, 0, 0], "n = {n}");
                assert_eq!(counts.total.written, [0, written, 0], "n = {n}");
                assert_eq!(counts.total.mma_flops, products * 2 * 16 * 8 * 64);
                assert_eq!(counts.total.exps, products * 16 * 8);
                assert_eq!(counts.total.shared_read, products * (16 + 8) * 64 * 2);
                assert_eq!(counts.total.shared_written, products / u64::from(warps) * 32 * 64 * 2);
                assert_eq!(counts.total.barriers, 2 * products);
                assert_eq!(counts.groups.iter().map(|g| g.ctas).sum::<u64>(), grid);
                assert_eq!(counts.runs.iter().map(|(_, n)| u64::from(*n)).sum::<u64>(), grid);
            }
        }
    }
}

#[test]
fn heads_are_walked_once() {
    let kernel = causal(8);
    let counts = count(&kernel, 128 * 128, &inputs(&[("n", 16384)])).expect("counts");
    assert_eq!(counts.groups.len(), 128);
    assert_eq!(counts.runs.len(), 128 * 128);
}

#[test]
fn a_missing_size_is_named() {
    assert_eq!(
        count(&causal(1), 1, &inputs(&[])),
        Err(CostError::MissingScalar("n".into()))
    );
}

/// Keys from `start[cta]` on: the trip count comes from a table, the guard is neither row- nor column-parallel.
fn documents() -> Kernel {
    let params = vec![
        tensor("start", Dtype::I32, vec![Extent::Const(3)], Access::In),
        tensor("x", Dtype::F32, vec![Extent::Const(64), Extent::Const(64)], Access::In),
    ];
    let mut b = Build::new(params, vec![]);
    let cta = b.def(I32, Op::Cta);
    let lo = b.def(
        I32,
        Op::LoadGlobal {
            tensor: ParamId(0),
            at: vec![cta],
            guard: None,
            fill: 0.0,
        },
    );
    let hi = b.int(4);
    let even = b.map(I32, MapOp::Add, &[lo, lo]);
    let (var, arg, result) = (b.kernel.new_val(I32), b.kernel.new_val(I32), b.kernel.new_val(I32));
    b.open();
    let row = b.def(frag(Dtype::I32, 16, 1), Op::RowIota);
    let col = b.def(frag(Dtype::I32, 1, 8), Op::ColIota);
    let sum = b.map(frag(Dtype::I32, 16, 8), MapOp::Add, &[row, col]);
    let guard = b.map(frag(Dtype::Bool, 16, 8), MapOp::Le, &[sum, arg]);
    b.def(
        frag(Dtype::F32, 16, 8),
        Op::LoadGlobal {
            tensor: ParamId(1),
            at: vec![row, col],
            guard: Some(guard),
            fill: 0.0,
        },
    );
    let next = b.map(I32, MapOp::Add, &[arg, var]);
    let body = b.close();
    b.push(Stmt::Loop(Loop {
        var,
        lo,
        hi,
        carried: vec![Carried {
            arg,
            init: even,
            next,
            result,
        }],
        body,
    }));
    // Only where the state ended above 6.
    let six = b.int(6);
    let cond = b.map(BOOL, MapOp::Lt, &[six, result]);
    b.open();
    b.def(
        I32,
        Op::LoadGlobal {
            tensor: ParamId(0),
            at: vec![cta],
            guard: None,
            fill: 0.0,
        },
    );
    let then = b.close();
    b.push(Stmt::If(If {
        cond,
        then,
        otherwise: Block::default(),
        results: vec![],
    }));
    b.finish(1)
}

#[test]
fn tables_steer_loops_branches_and_state() {
    let kernel = documents();
    let starts = [0i32, 2, 9];
    let table = Table {
        extents: vec![3],
        data: starts.to_vec(),
    };
    let given = Inputs {
        scalars: BTreeMap::new(),
        tables: [("start".to_owned(), table)].into(),
    };
    let counts = count(&kernel, 3, &given).expect("counts");
    let (mut starts_read, mut x_read) = (0, 0);
    for s in starts.map(i64::from) {
        let mut state = 2 * s;
        starts_read += 4;
        for t in s..4 {
            for r in 0..16 {
                for c in 0..8 {
                    x_read += if r + c <= state { 4 } else { 0 };
                }
            }
            state += t;
        }
        starts_read += if state > 6 { 4 } else { 0 };
    }
    assert_eq!(counts.total.read, [starts_read, x_read]);

    assert_eq!(
        count(&kernel, 3, &Inputs::default()),
        Err(CostError::MissingTable("start".into()))
    );
    assert!(matches!(count(&kernel, 4, &given), Err(CostError::OutOfRange { index, .. }) if index == [3]));
}

/// What the interpreter counts must be what the walk predicts.
fn agrees(kernel: &Kernel, grid: u32, given: &Inputs, mut args: Args) {
    let faults = drawloom_kernel::verify::verify(kernel);
    assert!(
        faults.is_empty(),
        "{}",
        drawloom_kernel::verify::render(kernel, &faults)
    );
    let counted = run(kernel, grid, &mut args, &Options::default()).unwrap_or_else(|f| panic!("{}", f.render(kernel)));
    let predicted = count(kernel, grid, given).expect("counts").total;
    assert_eq!(predicted.read, counted.read);
    assert_eq!(predicted.written, counted.written);
    assert_eq!(predicted.mma_flops, counted.mma_flops);
    assert_eq!(predicted.exps, counted.exps);
    assert_eq!(predicted.shared_read, counted.shared_read);
    assert_eq!(predicted.shared_written, counted.shared_written);
    assert_eq!(predicted.barriers, counted.barriers);
    assert_eq!(predicted.mbarriers, counted.mbarriers);
}

#[test]
fn predicted_is_what_the_interpreter_counts() {
    for warps in [1, 4] {
        for n in [1usize, 15, 33, 100] {
            let kernel = causal(warps);
            let k = Tensor::contiguous(Elements::Bf16(vec![half::bf16::ZERO; n * 64]), &[n, 64]);
            let o = Tensor::contiguous(Elements::F32(vec![0.0; n * 8]), &[n, 8]);
            let args = Args {
                values: vec![Arg::Tensor(k), Arg::Tensor(o), Arg::I32(n as i32)],
            };
            agrees(
                &kernel,
                n.div_ceil(16 * warps as usize) as u32,
                &inputs(&[("n", n as i64)]),
                args,
            );
        }
    }
    let start = Tensor::contiguous(Elements::I32(vec![0, 2, 9]), &[3]);
    let x = Tensor::contiguous(Elements::F32(vec![0.0; 64 * 64]), &[64, 64]);
    let table = Table {
        extents: vec![3],
        data: vec![0, 2, 9],
    };
    let given = Inputs {
        scalars: BTreeMap::new(),
        tables: [("start".to_owned(), table)].into(),
    };
    agrees(
        &documents(),
        3,
        &given,
        Args {
            values: vec![Arg::Tensor(start), Arg::Tensor(x)],
        },
    );
}
