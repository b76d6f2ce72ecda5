//! What each family of operations becomes, and that ptxas takes it.

mod common;

use std::path::Path;

use common::{Builder, lanes, mma, view};
use drawloom_kernel::ir::*;
use drawloom_nvptx::ptxas::{self, assemble};
use drawloom_nvptx::{EmitError, Options, PtxVersion, emit};

/// Emits a kernel and, where ptxas is at hand, assembles it.
fn ptx(k: &Kernel) -> String {
    let emitted = emit(k, &Options::default()).expect("the kernel is emitted");
    assert_eq!(
        emitted,
        emit(k, &Options::default()).expect("the kernel is emitted again"),
        "emission is deterministic"
    );
    match ptxas::find_ptxas(Path::new(env!("CARGO_MANIFEST_DIR"))) {
        Some(tool) => {
            let report = assemble(&emitted.ptx, &k.target, &tool).expect("ptxas takes the kernel");
            assert_eq!(report.warnings, Vec::<String>::new());
        }
        None => println!("[SKIP] no ptxas"),
    }
    emitted.ptx
}

fn count(text: &str, what: &str) -> usize {
    text.matches(what).count()
}

/// A kernel of one warp that loads an `f32` fragment elementwise, computes, and stores the result.
fn on_fragment(frag: Frag, compute: impl FnOnce(&mut Builder, Val) -> Val) -> Kernel {
    let mut k = Builder::new("k", "sm_80", 1);
    let input = k.tensor("x", Dtype::F32, 2, Access::In);
    let row = k.def(
        Frag {
            dtype: Dtype::I32,
            cols: 1,
            ..frag
        },
        Op::RowIota,
    );
    let col = k.def(
        Frag {
            dtype: Dtype::I32,
            rows: 1,
            ..frag
        },
        Op::ColIota,
    );
    let at = vec![row, col];
    let x = k.def(
        frag,
        Op::LoadGlobal {
            tensor: input,
            at: at.clone(),
            guard: None,
            fill: 0.0,
        },
    );
    let y = compute(&mut k, x);
    let ty = k.kernel.ty(y);
    let out = k.tensor("y", ty.dtype, 2, Access::Out);
    let zero = k.int(0);
    let at = vec![
        if ty.rows == 1 { zero } else { row },
        if ty.cols == frag.cols { col } else { zero },
    ];
    k.effect(Effect::StoreGlobal {
        tensor: out,
        at,
        guard: None,
        value: y,
    });
    k.finish()
}

#[test]
fn float_operations_are_single_instructions() {
    let frag = lanes(Dtype::F32, 1, 32, 1);
    let cases = [
        (MapOp::Exp2, "ex2.approx.ftz.f32"),
        (MapOp::Log2, "lg2.approx.ftz.f32"),
        (MapOp::Rcp, "rcp.approx.ftz.f32"),
        (MapOp::Rsqrt, "rsqrt.approx.ftz.f32"),
        (MapOp::Sqrt, "sqrt.approx.ftz.f32"),
        (MapOp::Neg, "neg.ftz.f32"),
        (MapOp::Abs, "abs.ftz.f32"),
    ];
    for (op, instruction) in cases {
        let text = ptx(&on_fragment(frag, |k, x| k.map(frag, op, &[x])));
        assert_eq!(count(&text, instruction), 1, "{op:?}: {text}");
    }
    let cases = [
        (MapOp::Add, "add.rn.ftz.f32"),
        (MapOp::Mul, "mul.rn.ftz.f32"),
        (MapOp::Min, "min.ftz.f32"),
        (MapOp::Max, "max.ftz.f32"),
        (MapOp::Div, "rcp.approx.ftz.f32"),
    ];
    for (op, instruction) in cases {
        let text = ptx(&on_fragment(frag, |k, x| {
            let c = k.float(3.5);
            k.map(frag, op, &[c, x])
        }));
        assert_eq!(count(&text, instruction), 1, "{op:?}: {text}");
    }
}

#[test]
fn products_and_sums_contract_only_where_the_program_says() {
    let frag = lanes(Dtype::F32, 1, 32, 1);
    let apart = ptx(&on_fragment(frag, |k, x| {
        let p = k.map(frag, MapOp::Mul, &[x, x]);
        k.map(frag, MapOp::Add, &[p, x])
    }));
    assert_eq!(
        (
            count(&apart, "mul.rn.ftz"),
            count(&apart, "add.rn.ftz"),
            count(&apart, "fma.rn")
        ),
        (1, 1, 0)
    );
    let fused = ptx(&on_fragment(frag, |k, x| k.map(frag, MapOp::Fma, &[x, x, x])));
    assert_eq!((count(&fused, "mul.rn.ftz"), count(&fused, "fma.rn.ftz.f32")), (0, 1));
}

#[test]
fn tanh_has_no_branch_and_two_special_functions() {
    let frag = lanes(Dtype::F32, 1, 32, 1);
    let text = ptx(&on_fragment(frag, |k, x| k.map(frag, MapOp::Tanh, &[x])));
    assert_eq!(
        (
            count(&text, "ex2.approx"),
            count(&text, "rcp.approx"),
            count(&text, "bra")
        ),
        (1, 1, 0)
    );
    assert_eq!(count(&text, "tanh"), 0);
}

#[test]
fn masks_compare_constants() {
    let mut k = Builder::new("k", "sm_80", 1);
    let (n, j) = (k.scalar("n", Dtype::I32), k.scalar("j", Dtype::I32));
    let out = k.tensor("y", Dtype::F32, 2, Access::Out);
    let tile = mma(Dtype::F32, 16, 64);
    let bools = Frag {
        dtype: Dtype::Bool,
        ..tile
    };
    let row = k.def(mma(Dtype::I32, 16, 1), Op::RowIota);
    let last = k.map(mma(Dtype::I32, 16, 1), MapOp::Add, &[row, j]);
    let col = k.def(mma(Dtype::I32, 1, 64), Op::ColIota);
    let causal = k.map(bools, MapOp::Le, &[col, last]);
    let inside = k.map(Frag { rows: 1, ..bools }, MapOp::Lt, &[col, n]);
    let keep = k.map(bools, MapOp::And, &[causal, inside]);
    let (x, never) = (k.def(tile, Op::ConstF(1.0)), k.float(f32::NEG_INFINITY));
    let s = k.map(tile, MapOp::Select, &[keep, x, never]);
    let sum = k.def(mma(Dtype::F32, 16, 1), Op::Reduce(ReduceOp::Max, s));
    let zero = k.int(0);
    k.effect(Effect::StoreGlobal {
        tensor: out,
        at: vec![row, zero],
        guard: None,
        value: sum,
    });
    let text = ptx(&k.finish());
    // 32 scores and 16 columns of a lane; one comparison is for who stores.
    assert_eq!(count(&text, "setp."), 32 + 16 + 1, "{text}");
    assert_eq!((count(&text, "and.pred"), count(&text, "selp.f32")), (32, 32));
    assert!(count(&text, "add.s32") < 8, "{text}");
}

#[test]
fn pairs_convert_in_one_instruction() {
    for (dtype, instruction) in [(Dtype::Bf16, "cvt.rn.bf16x2.f32"), (Dtype::F16, "cvt.rn.f16x2.f32")] {
        let text = ptx(&on_fragment(mma(Dtype::F32, 16, 16), |k, x| {
            k.map(mma(dtype, 16, 16), MapOp::Convert, &[x])
        }));
        assert_eq!(count(&text, instruction), 4);
    }
}

#[test]
fn integers_divide_towards_minus_infinity() {
    let int = mma(Dtype::I32, 16, 1);
    let mut k = Builder::new("k", "sm_80", 1);
    let out = k.tensor("y", Dtype::I32, 1, Access::Out);
    let by = k.scalar("by", Dtype::I32);
    let row = k.def(int, Op::RowIota);
    let four = k.int(4);
    let parts = [
        (MapOp::Div, by),
        (MapOp::Rem, by),
        (MapOp::Div, four),
        (MapOp::Rem, four),
    ];
    let parts = parts.map(|(op, by)| k.map(int, op, &[row, by]));
    let sum = parts
        .into_iter()
        .reduce(|a, b| k.map(int, MapOp::Add, &[a, b]))
        .expect("four parts");
    k.effect(Effect::StoreGlobal {
        tensor: out,
        at: vec![row],
        guard: None,
        value: sum,
    });
    let text = ptx(&k.finish());
    assert!(text.contains("div.s32") && text.contains("shr."), "{text}");
}

#[test]
fn reductions_shuffle_only_between_the_lanes_of_a_row() {
    let tile = mma(Dtype::F32, 16, 64);
    let quad = ptx(&on_fragment(tile, |k, x| {
        let q = k.def(mma(Dtype::F32, 16, 4), Op::Reduce(ReduceOp::Sum, x));
        let r = k.def(mma(Dtype::F32, 16, 1), Op::Reduce(ReduceOp::Sum, q));
        k.map(mma(Dtype::F32, 16, 1), MapOp::Exp2, &[r])
    }));
    assert_eq!(
        (count(&quad, "shfl.sync.bfly"), count(&quad, "add.rn.ftz.f32")),
        (4, 2 * 15 + 4)
    );
    let row = ptx(&on_fragment(lanes(Dtype::F32, 1, 96, 2), |k, x| {
        k.def(lanes(Dtype::F32, 1, 1, 2), Op::Reduce(ReduceOp::Max, x))
    }));
    // 96 columns in runs of 2 are a run and a half for 32 lanes: half of the lanes have two slots outside.
    assert_eq!((count(&row, "shfl.sync.bfly"), count(&row, "selp.f32")), (5, 2));
}

#[test]
fn replicated_values_are_stored_by_one_lane() {
    let text = ptx(&on_fragment(mma(Dtype::F32, 16, 8), |k, x| {
        k.def(mma(Dtype::F32, 16, 1), Op::Reduce(ReduceOp::Max, x))
    }));
    assert_eq!(count(&text, "st.global.b32"), 2);
    assert!(count(&text, "bra") >= 1, "the stores are guarded");
}

#[test]
fn guarded_loads_stay_in_one_block() {
    let int = Frag {
        rows: 1,
        ..mma(Dtype::I32, 1, 64)
    };
    let mut k = Builder::new("k", "sm_80", 1);
    let input = k.tensor("x", Dtype::Bf16, 1, Access::In);
    let out = k.tensor("y", Dtype::F32, 1, Access::Out);
    let n = k.scalar("n", Dtype::I32);
    let col = k.def(int, Op::ColIota);
    let guard = k.map(
        Frag {
            dtype: Dtype::Bool,
            ..int
        },
        MapOp::Lt,
        &[col, n],
    );
    let x16 = Frag {
        dtype: Dtype::Bf16,
        ..int
    };
    let x = k.def(
        x16,
        Op::LoadGlobal {
            tensor: input,
            at: vec![col],
            guard: Some(guard),
            fill: f64::NEG_INFINITY,
        },
    );
    let y = k.map(
        Frag {
            dtype: Dtype::F32,
            ..int
        },
        MapOp::Convert,
        &[x],
    );
    k.effect(Effect::StoreGlobal {
        tensor: out,
        at: vec![col],
        guard: None,
        value: y,
    });
    let text = ptx(&k.finish());
    assert_eq!(count(&text, " ld.global.nc.b16"), 16);
}

/// `o = a * b` of one warp through shared memory.
fn product(dtype: Dtype, k_dim: u32, cols: u32, transposed: bool, left: bool) -> Kernel {
    let mut k = Builder::new("k", "sm_80", 1);
    let a = k.tensor("a", dtype, 2, Access::In);
    let b = k.tensor("b", dtype, 2, Access::In);
    let o = k.tensor("o", Dtype::F32, 2, Access::Out);
    let n = k.scalar("n", Dtype::I32);
    let zero = k.int(0);
    let sa = k.buffer("a", dtype, 1, 32, k_dim, BufferLayout::Swizzled);
    let (rows_b, cols_b) = if transposed { (cols, k_dim) } else { (k_dim, cols) };
    let sb = k.buffer("b", dtype, 1, rows_b, cols_b, BufferLayout::Swizzled);
    for (tensor, buf, rows, cols) in [(a, sa, 32, k_dim), (b, sb, rows_b, cols_b)] {
        let src = GlobalTile {
            tensor,
            at: vec![RowIndex::Row],
            col: 0,
            rows,
            cols,
            first_row: zero,
            row_limit: n,
        };
        k.effect(Effect::Copy {
            kind: CopyKind::Sync { bytes: 8 },
            src,
            dst: view(buf, None, None, rows, cols),
        });
    }
    k.barrier();
    let ty = mma(Dtype::F32, 32, cols);
    let acc = k.def(ty, Op::ConstF(0.0));
    let va = view(sa, None, None, 32, k_dim);
    let a = if left {
        Operand::Reg(k.def(mma(dtype, 32, k_dim), Op::LoadShared(va)))
    } else {
        Operand::Shared(va)
    };
    let vb = view(sb, None, None, rows_b, cols_b);
    let b = if transposed {
        Operand::SharedT(vb)
    } else {
        Operand::Shared(vb)
    };
    let value = k.def(ty, Op::Mma { acc, a, b });
    let row = k.def(mma(Dtype::I32, 32, 1), Op::RowIota);
    let col = k.def(mma(Dtype::I32, 1, cols), Op::ColIota);
    k.effect(Effect::StoreGlobal {
        tensor: o,
        at: vec![row, col],
        guard: None,
        value,
    });
    k.finish()
}

#[test]
fn products_load_each_matrix_once() {
    for (dtype, name) in [(Dtype::Bf16, "bf16"), (Dtype::F16, "f16")] {
        for (transposed, left) in [(false, false), (true, false), (true, true)] {
            let text = ptx(&product(dtype, 64, 32, transposed, left));
            let mma = format!("mma.sync.aligned.m16n8k16.row.col.f32.{name}.{name}.f32");
            assert_eq!(count(&text, &mma), 2 * 4 * 4);
            // Right: 4 steps times 2 pairs of column atoms. Left: 4 steps times 2 row atoms.
            let trans = count(&text, "ldmatrix.sync.aligned.m8n8.x4.trans");
            assert_eq!(trans, if transposed { 0 } else { 8 });
            assert_eq!(count(&text, "ldmatrix.sync.aligned.m8n8.x4"), 8 + 8);
        }
    }
    let odd = ptx(&product(Dtype::Bf16, 48, 24, true, true));
    assert_eq!(count(&odd, "ldmatrix.sync.aligned.m8n8.x2"), 3);
}

#[test]
fn copies_fill_missing_rows_with_zero() {
    let text = ptx(&common::flash(common::Flash {
        dtype: Dtype::F16,
        block_m: 64,
        block_n: 32,
        head: 64,
        warps: 4,
        stages: 2,
        query_in_registers: true,
        masked: true,
        softcap: false,
    }));
    assert_eq!(count(&text, "cp.async.cg.shared.global"), 4 + 2 * 2 + 2 * 2);
    assert_eq!(count(&text, "cp.async.commit_group"), 2);
    assert_eq!(count(&text, "cp.async.wait_group \t0"), 2);
    assert!(text.contains("st.global.v4.b32"));
}

#[test]
fn roles_branch_by_warp_and_meet_at_barriers() {
    let mut k = Builder::new("k", "sm_80", 2);
    let out = k.tensor("y", Dtype::I32, 1, Access::Out);
    k.effect(Effect::Barrier { id: 3, warps: 3 });
    let warp = k.def(Frag::scalar(Dtype::I32), Op::WarpInRole);
    k.effect(Effect::StoreGlobal {
        tensor: out,
        at: vec![warp],
        guard: None,
        value: warp,
    });
    let mut kernel = k.finish();
    let body = Block(vec![Stmt::Do(Effect::BarrierArrive { id: 3, warps: 3 })]);
    kernel.roles.push(Role {
        name: "other".into(),
        warps: 1,
        registers: None,
        body,
    });
    let text = ptx(&kernel);
    assert!(text.contains(".reqntid 96") && text.contains("shfl.sync.idx"), "{text}");
    assert!(
        text.contains("bar.sync \t3") || text.contains("barrier.sync.aligned"),
        "{text}"
    );
    assert!(
        text.contains("bar.arrive \t3, 96") || text.contains("barrier.cta.arrive"),
        "{text}"
    );
}

#[test]
fn hopper_roles_share_registers_and_meet_at_mbarriers() {
    let mut k = Builder::new("k", "sm_90a", 8);
    k.kernel.mbarriers.push(Mbarrier {
        name: "full".into(),
        slots: 2,
        arrivals: 1,
    });
    let (slot, parity) = (k.int(1), k.int(0));
    k.effect(Effect::MbarWait {
        barrier: MbarId(0),
        slot,
        parity,
    });
    k.effect(Effect::FenceProxyAsync);
    let mut kernel = k.finish();
    let slot = kernel.new_val(Frag::scalar(Dtype::I32));
    let body = Block(vec![
        Stmt::Let {
            dst: slot,
            op: Op::ConstI(1),
        },
        Stmt::Do(Effect::MbarExpect {
            barrier: MbarId(0),
            slot,
            bytes: 0,
        }),
    ]);
    kernel.roles[0].registers = Some(240);
    kernel.roles.push(Role {
        name: "producer".into(),
        warps: 4,
        registers: Some(24),
        body,
    });
    let text = ptx(&kernel);
    for (what, n) in [
        ("mbarrier.init.shared", 2),
        ("mbarrier.try_wait.parity", 1),
        ("mbarrier.arrive.expect_tx", 1),
        ("fence.proxy.async.shared::cta", 1),
        ("setmaxnreg.inc.sync.aligned.u32 \t240", 1),
        ("setmaxnreg.dec.sync.aligned.u32 \t24", 1),
    ] {
        assert_eq!(count(&text, what), n, "{what}: {text}");
    }
}

#[test]
fn asserts_trap() {
    let mut k = Builder::new("k", "sm_80", 1);
    let n = k.scalar("n", Dtype::I32);
    let zero = k.int(0);
    let cond = k.map(Frag::scalar(Dtype::Bool), MapOp::Lt, &[zero, n]);
    k.effect(Effect::Assert {
        cond,
        message: "n is positive".into(),
    });
    assert_eq!(count(&ptx(&k.finish()), "trap;"), 1);
}

#[test]
fn the_oldest_language_version_is_the_default() {
    let k = Builder::new("k", "sm_80", 1).finish();
    assert!(ptx(&k).contains(".version 7.0"));
    let newer = Options {
        ptx_version: Some(PtxVersion { major: 7, minor: 8 }),
        ..Options::default()
    };
    assert!(
        emit(&k, &newer)
            .expect("the kernel is emitted")
            .ptx
            .contains(".version 7.8")
    );
}

#[test]
fn what_is_not_emitted_is_refused() {
    let mut k = Builder::new("k", "sm_80", 4);
    k.effect(Effect::MmaFence);
    assert!(matches!(
        emit(&k.finish(), &Options::default()),
        Err(EmitError::Unsupported { .. })
    ));
    let k = Builder::new("k", "sm_75", 4).finish();
    assert!(matches!(emit(&k, &Options::default()), Err(EmitError::Target { .. })));
    let mut k = Builder::new("k", "sm_80", 4);
    k.effect(Effect::Assert {
        cond: Val(7),
        message: String::new(),
    });
    assert!(matches!(
        emit(&k.finish(), &Options::default()),
        Err(EmitError::Undefined { .. })
    ));
    let mut k = Builder::new("k", "sm_80", 4);
    k.effect(Effect::Barrier { id: 16, warps: 4 });
    assert!(matches!(
        emit(&k.finish(), &Options::default()),
        Err(EmitError::Shape { .. })
    ));
}

#[test]
fn small_kernels_read_well() {
    insta::assert_snapshot!("product", ptx(&product(Dtype::Bf16, 16, 16, true, false)));
    let norm = on_fragment(lanes(Dtype::F32, 2, 64, 2), |k, x| {
        let tile = k.kernel.ty(x);
        let row = Frag { cols: 1, ..tile };
        let square = k.map(tile, MapOp::Mul, &[x, x]);
        let sum = k.def(row, Op::Reduce(ReduceOp::Sum, square));
        let scale = k.map(row, MapOp::Rsqrt, &[sum]);
        k.map(tile, MapOp::Mul, &[x, scale])
    });
    insta::assert_snapshot!("norm", ptx(&norm));
}
