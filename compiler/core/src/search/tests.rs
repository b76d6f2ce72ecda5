//! The search on a kernel that is made from a schedule as the real ones are: a query tile, keys and values streaming past.

use super::*;
use crate::cost::tests::{Build, frag, inputs, scalar, tensor};
use crate::schedule::QueryHome;
use drawloom_kernel::ir::*;
use drawloom_lang::diag::Span;

const D: u32 = 128;
const I32: Frag = Frag::scalar(Dtype::I32);

/// Dense attention: CTA `c` is one query tile; `tiles` key tiles are visited, one after the other.
fn kernel(s: &Schedule) -> Kernel {
    let n = Extent::Param(ParamId(3));
    let params = vec![
        tensor("q", Dtype::Bf16, vec![n.clone(), Extent::Const(D)], Access::In),
        tensor("k", Dtype::Bf16, vec![n.clone(), Extent::Const(D)], Access::In),
        tensor("v", Dtype::Bf16, vec![n, Extent::Const(D)], Access::In),
        scalar("n"),
    ];
    let buffer = |name: &str, slots, rows| Buffer {
        name: name.into(),
        dtype: Dtype::Bf16,
        slots,
        rows,
        cols: D,
        layout: BufferLayout::Swizzled,
        alias: None,
    };
    let buffers = vec![
        buffer("q", 1, s.block_m),
        buffer("k", s.stages, s.block_n),
        buffer("v", s.stages, s.block_n),
    ];
    let mut b = Build::new(params, buffers);
    let rows = s.block_m / s.warps;
    let n = b.def(I32, Op::Param(ParamId(3)));
    let (zero, by) = (b.int(0), b.int(s.block_n.into()));
    let up = b.int(i64::from(s.block_n) - 1);
    let hi = b.map(I32, MapOp::Add, &[n, up]);
    let hi = b.map(I32, MapOp::Div, &[hi, by]);
    let view = |buf: u32, rows| SharedView {
        buf: BufId(buf),
        slot: None,
        row: None,
        col: 0,
        rows,
        cols: D,
    };
    let tile = |tensor: u32, rows, first_row| GlobalTile {
        tensor: ParamId(tensor),
        at: vec![RowIndex::Row],
        col: 0,
        rows,
        cols: D,
        first_row,
        row_limit: n,
    };
    let kind = CopyKind::CpAsync { bytes: 16 };
    b.effect(Effect::Copy {
        kind,
        src: tile(0, s.block_m, zero),
        dst: view(0, s.block_m),
    });
    let a = match s.query {
        QueryHome::Registers => Operand::Reg(b.def(frag(Dtype::Bf16, rows, D), Op::LoadShared(view(0, rows)))),
        QueryHome::Shared => Operand::Shared(view(0, rows)),
    };
    let o_ty = frag(Dtype::F32, rows, D);
    let init = b.def(o_ty, Op::ConstF(0.0));
    let [arg, result] = [b.kernel.new_val(o_ty), b.kernel.new_val(o_ty)];
    let var = b.kernel.new_val(I32);
    b.open();
    let first = b.map(I32, MapOp::Mul, &[var, by]);
    b.effect(Effect::Copy {
        kind,
        src: tile(1, s.block_n, first),
        dst: view(1, s.block_n),
    });
    b.effect(Effect::Copy {
        kind,
        src: tile(2, s.block_n, first),
        dst: view(2, s.block_n),
    });
    b.effect(Effect::Barrier { id: 0, warps: s.warps });
    let s_ty = frag(Dtype::F32, rows, s.block_n);
    let acc = b.def(s_ty, Op::ConstF(0.0));
    let scores = b.def(
        s_ty,
        Op::Mma {
            acc,
            a,
            b: Operand::SharedT(view(1, s.block_n)),
        },
    );
    let p = b.map(s_ty, MapOp::Exp2, &[scores]);
    let p = b.map(frag(Dtype::Bf16, rows, s.block_n), MapOp::Convert, &[p]);
    let next = b.def(
        o_ty,
        Op::Mma {
            acc: arg,
            a: Operand::Reg(p),
            b: Operand::Shared(view(2, s.block_n)),
        },
    );
    let body = b.close();
    b.push(Stmt::Loop(Loop {
        var,
        lo: zero,
        hi,
        carried: vec![Carried {
            arg,
            init,
            next,
            result,
        }],
        body,
    }));
    b.finish(s.warps)
}

fn count(s: &Schedule, kernel: &Kernel, case: &Case) -> Result<Rc<Counts>, CostError> {
    let grid = case.queries.div_ceil(s.block_m) * case.heads * case.batch;
    cost::count(kernel, grid, &inputs(&[("n", case.keys.into())])).map(Rc::new)
}

fn problem(pins: &[Pin]) -> Problem<'_> {
    let target = crate::target::target("sm_80").expect("a known target");
    Problem {
        target,
        element_bytes: 2,
        head_dim: D,
        value_dim: D,
        grouped: true,
        score_operations: 1,
        cuts: false,
        pieces: 1,
        left_edge: false,
        tables: 0,
        bounded: false,
        pins,
    }
}

fn pin(field: &str, value: u32) -> Pin {
    Pin {
        target: None,
        field: field.into(),
        value,
        span: Span::default(),
    }
}

fn run(pins: &[Pin]) -> Result<Search, SearchError> {
    search(
        &problem(pins),
        &Lowering {
            kernel: &|s| Ok(kernel(s)),
            count: &count,
        },
    )
}

#[test]
fn the_portfolio_serves_every_device_and_alignment() {
    let found = run(&[]).expect("found");
    let purposes: Vec<Purpose> = found.portfolio.iter().map(|c| c.purpose).collect();
    assert!(
        purposes.contains(&Purpose::Main)
            && purposes.contains(&Purpose::Unaligned)
            && purposes.contains(&Purpose::Split)
    );
    assert!(
        found
            .portfolio
            .iter()
            .any(|c| c.footprint.shared <= SMALL_SHARED && c.schedule.access == 16)
    );
    for c in &found.portfolio {
        assert!(c.footprint.registers <= 255, "{}", c.schedule);
        assert!(!c.predictions.is_empty());
        assert_eq!(c.schedule.access == 2, c.purpose == Purpose::Unaligned);
    }
    assert!(found.losers.iter().any(|l| matches!(l.reason, Reason::Limit(_))));
    assert!(
        found
            .losers
            .iter()
            .any(|l| matches!(l.reason, Reason::Slower(by) if by >= 1.0))
    );
    assert!(
        found
            .losers
            .iter()
            .all(|l| !matches!(l.reason, Reason::BoundSlower(by) if by < 1.0))
    );
}

#[test]
fn the_bound_is_near_the_count() {
    let point = |block_n| {
        let schedule = Schedule {
            block_n,
            ..run(&[]).expect("found").portfolio[0].schedule
        };
        space::check(&problem(&[]), schedule, Purpose::Main).0
    };
    for block_n in [32, 64] {
        let point = point(block_n);
        for case in cases(&problem(&[]), Purpose::Main) {
            let (_, bound) = estimate::counts(&problem(&[]), &point, &case);
            let kernel = kernel(&point.schedule);
            let counted = &count(&point.schedule, &kernel, &case).expect("counts").total;
            assert_eq!(bound.total.mma_flops, counted.mma_flops);
            assert_eq!(bound.total.exps, counted.exps);
            // The test's kernel writes no output; its loads are those of the bound.
            assert_eq!(bound.total.read.iter().sum::<u64>(), counted.read.iter().sum::<u64>());
            let estimated = cost::estimate_registers(&kernel);
            assert!(
                point.registers.abs_diff(estimated) <= 24,
                "{} and {estimated}",
                point.registers
            );
            assert_eq!(point.shared, kernel.shared_bytes());
        }
    }
}

#[test]
fn pins_hold_or_fail_with_numbers() {
    let found = run(&[pin("block_n", 48), pin("stages", 2)]).expect("found");
    assert!(
        found
            .portfolio
            .iter()
            .all(|c| c.schedule.block_n == 48 && c.schedule.stages == 2)
    );

    let error = run(&[pin("block_n", 512), pin("stages", 3)])
        .expect_err("too much shared memory")
        .to_string();
    assert!(error.contains("block_n = 512, stages = 3"), "{error}");
    assert!(error.contains("166912") || error.contains("register"), "{error}");

    let error = run(&[pin("block_m", 100)]).expect_err("not a multiple").to_string();
    assert!(
        error.contains("block_m is 100, not a positive multiple of 16"),
        "{error}"
    );
    assert!(
        run(&[pin("warps", 0)]).is_err()
            && run(&[pin("stages", 0)]).is_err()
            && run(&[pin("block_n", u32::MAX)]).is_err()
    );
}

#[test]
fn the_choice_is_deterministic() {
    let all = |s: Search| s.portfolio.iter().map(|c| c.schedule.to_string()).collect::<Vec<_>>();
    assert_eq!(all(run(&[]).expect("found")), all(run(&[]).expect("found")));
}
