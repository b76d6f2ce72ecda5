//! Hopper's engines: bulk copies, asynchronous products and register budgets, alone and in the attention kernels of the
//! file tests.

mod common;

use std::path::Path;

use common::{Builder, mma, view};
use drawloom_kernel::ir::*;
use drawloom_kernel::text::parse;
use drawloom_kernel::verify::{render, verify};
use drawloom_nvptx::ptxas::{self, SassInstruction, assemble};
use drawloom_nvptx::{Options, emit};

const HERE: &str = env!("CARGO_MANIFEST_DIR");

/// Emits a kernel that the verifier accepts and, where the tools are at hand, assembles it: its text and its code.
fn build(k: &Kernel) -> (String, Option<Vec<SassInstruction>>) {
    let errors = verify(k);
    assert!(errors.is_empty(), "{}", render(k, &errors));
    let ptx = emit(k, &Options::default()).expect("the kernel is emitted").ptx;
    if let Some(dir) = std::env::var_os("DRAWLOOM_DUMP") {
        std::fs::write(Path::new(&dir).join(&k.name).with_extension("ptx"), &ptx).expect("the dump is written");
    }
    let (Some(tool), Some(nvdisasm)) = (
        ptxas::find_ptxas(Path::new(HERE)),
        ptxas::find_nvdisasm(Path::new(HERE)),
    ) else {
        println!("[SKIP] no ptxas or no nvdisasm");
        return (ptx, None);
    };
    let report = assemble(&ptx, &k.target, &tool).expect("ptxas takes the kernel as it is");
    println!("{}: {} registers", k.name, report.registers);
    assert_eq!(
        report.spill_store_bytes + report.spill_load_bytes,
        0,
        "{} spills",
        k.name
    );
    assert_eq!(report.warnings, Vec::<String>::new());
    let code = ptxas::disassemble(&report.cubin, &nvdisasm).expect("nvdisasm takes the cubin");
    (ptx, Some(code))
}

fn of_file(name: &str) -> Kernel {
    let file = Path::new(HERE).join("../../tests/filetests/kernel").join(name);
    parse(&std::fs::read_to_string(file).expect("the file test is there")).expect("its kernel parses")
}

fn count(text: &str, what: &str) -> usize {
    text.matches(what).count()
}

/// The loop that issues products.
///
/// What ptxas puts behind the kernel's end (further polls of an mbarrier) jumps back to its middle; what lies between is no
/// loop.
fn main_loop(code: &[SassInstruction]) -> Vec<&str> {
    let is = |i: &SassInstruction, name: &str| i.opcode.starts_with(name);
    let loops = ptxas::loops(code).into_iter();
    let mut real = loops.filter(|l| l.iter().any(|i| is(i, "HGMMA")) && !l.iter().any(|i| is(i, "EXIT")));
    let first = real.next().expect("the kernel has a loop");
    assert!(real.next().is_none(), "the kernel has one loop with products");
    first.iter().map(|i| i.opcode.as_str()).collect()
}

fn opcodes(code: &[&str], name: &str) -> usize {
    code.iter().filter(|o| o.split('.').next() == Some(name)).count()
}

/// Special functions in each part of a loop that waits for products, split at the waits.
fn mufu_between_waits(code: &[&str]) -> Vec<usize> {
    code.split(|o| o.starts_with("WARPGROUP.DEPBAR"))
        .map(|part| opcodes(part, "MUFU"))
        .collect()
}

/// A loop that computes the next scores while the output takes the last ones.
fn check_overlap(name: &str) {
    let (_, code) = build(&of_file(name));
    let Some(code) = code else { return };
    let all: Vec<&str> = code.iter().map(|i| i.opcode.as_str()).collect();
    assert!(opcodes(&all, "USETMAXREG") > 0, "{name} keeps its register budgets");
    let body = main_loop(&code);
    println!("{name}: {} instructions in the loop", body.len());
    let parts = mufu_between_waits(&body);
    assert_eq!(parts.len(), 3, "{name} waits twice in an iteration: {parts:?}");
    assert!(parts[0] == 0 && parts[1] > 0 && parts[2] == 0, "{name}: {parts:?}");
    // Descriptors are uniform without being made so in every iteration.
    assert_eq!(opcodes(&body, "R2UR"), 0, "{name}: {body:?}");
}

#[test]
fn softmax_overlaps_products() {
    check_overlap("overlap_sm90.kir");
    check_overlap("forward_sm90.kir");
}

#[test]
fn attention_is_assembled() {
    let (ptx, code) = build(&of_file("attention_sm90.kir"));
    assert_eq!(count(&ptx, ".param .align 64 .b8"), 4, "{ptx}");
    assert_eq!(count(&ptx, "prefetch"), 4);
    let Some(code) = code else { return };
    let all: Vec<&str> = code.iter().map(|i| i.opcode.as_str()).collect();
    for (name, n) in [
        ("HGMMA", 6),
        ("UTMALDG", 3),
        ("UTMASTG", 1),
        ("STSM", 4),
        ("UTMACCTL", 4),
    ] {
        assert_eq!(opcodes(&all, name), n, "{name}: {all:?}");
    }
}

/// Two products of one warpgroup in one sum, on the slots of one buffer; the sum is stored.
fn product(dtype: Dtype, buffer: (u32, u32), a: Operand, b: Operand, ty: Frag) -> Kernel {
    let mut k = Builder::new("product", "sm_90a", 4);
    let out = k.tensor("o", Dtype::F32, 2, Access::Out);
    k.buffer("b", dtype, 2, buffer.0, buffer.1, BufferLayout::Panels);
    let warp = k.def(Frag::scalar(Dtype::I32), Op::WarpInRole);
    let sixteen = k.int(16);
    let row = k.imap(MapOp::Mul, &[warp, sixteen]);
    let a = match a {
        Operand::Reg(_) => {
            let depth = match &b {
                Operand::Shared(v) => v.rows,
                Operand::SharedT(v) => v.cols,
                Operand::Reg(_) => 0,
            };
            let view = view(BufId(0), None, None, ty.rows, depth);
            Operand::Reg(k.def(mma(dtype, ty.rows, depth), Op::LoadShared(view)))
        }
        Operand::Shared(v) => Operand::Shared(SharedView { row: Some(row), ..v }),
        Operand::SharedT(v) => Operand::SharedT(v),
    };
    let one = k.int(1);
    let next = |v: &SharedView| SharedView {
        slot: Some(one),
        ..v.clone()
    };
    let second = match &b {
        Operand::Shared(v) => Operand::Shared(next(v)),
        Operand::SharedT(v) => Operand::SharedT(next(v)),
        Operand::Reg(v) => Operand::Reg(*v),
    };
    k.effect(Effect::MmaFence);
    let half = k.def(
        ty,
        Op::MmaAsync {
            acc: None,
            a: a.clone(),
            b,
        },
    );
    let flying = k.def(
        ty,
        Op::MmaAsync {
            acc: Some(half),
            a,
            b: second,
        },
    );
    k.effect(Effect::MmaCommit);
    let value = k.def(ty, Op::MmaWait { of: flying, pending: 0 });
    let rows = k.def(mma(Dtype::I32, ty.rows, 1), Op::RowIota);
    let cols = k.def(mma(Dtype::I32, 1, ty.cols), Op::ColIota);
    k.effect(Effect::StoreGlobal {
        tensor: out,
        at: vec![rows, cols],
        guard: None,
        value,
    });
    k.finish()
}

#[test]
fn products_take_all_operands_and_widths() {
    let register = || Operand::Reg(Val(0));
    let window = |rows, cols| view(BufId(0), None, None, rows, cols);
    // Both operands in shared memory, along either dimension; then the left one in registers, of one or two atoms.
    for (dtype, buffer, a, b, (rows, cols), first, later) in [
        (
            Dtype::Bf16,
            (256, 64),
            Operand::Shared(window(16, 64)),
            Operand::SharedT(window(256, 64)),
            (16, 256),
            "m64n256k16.f32.bf16.bf16",
            "0, 1, 1, 0, 0;",
        ),
        (
            Dtype::F16,
            (64, 96),
            Operand::Shared(window(16, 64)),
            Operand::Shared(window(64, 96)),
            (16, 96),
            "m64n96k16.f32.f16.f16",
            "0, 1, 1, 0, 1;",
        ),
        (
            Dtype::F16,
            (64, 80),
            register(),
            Operand::SharedT(window(8, 80)),
            (16, 8),
            "m64n8k16.f32.f16.f16",
            "0, 1, 1, 0;",
        ),
        (
            Dtype::Bf16,
            (64, 176),
            register(),
            Operand::Shared(window(32, 176)),
            (32, 176),
            "m64n176k16.f32.bf16.bf16",
            "0, 1, 1, 1;",
        ),
    ] {
        let depth = match &b {
            Operand::Shared(v) => v.rows,
            Operand::SharedT(v) => v.cols,
            Operand::Reg(_) => 0,
        };
        let k = product(dtype, buffer, a, b, mma(Dtype::F32, rows, cols));
        let (ptx, code) = build(&k);
        let (atoms, steps) = (rows as usize / 16, depth as usize / 16);
        assert_eq!(count(&ptx, first), 2 * atoms * steps, "{ptx}");
        assert_eq!(
            count(&ptx, later),
            atoms,
            "only the first step of each atom begins from zero: {ptx}"
        );
        let Some(code) = code else { continue };
        let all: Vec<&str> = code.iter().map(|i| i.opcode.as_str()).collect();
        assert_eq!(opcodes(&all, "HGMMA"), 2 * atoms * steps);
    }
}

/// A kernel that copies a window of `at.len() + 1` axes in and out again.
fn there_and_back(rank: usize, cols: u32) -> Kernel {
    let mut k = Builder::new("there_and_back", "sm_90a", 4);
    let input = k.tensor("x", Dtype::Bf16, rank, Access::In);
    let output = k.tensor("y", Dtype::Bf16, rank, Access::Out);
    let buf = k.buffer("b", Dtype::Bf16, 1, 64, cols, BufferLayout::Panels);
    k.kernel.mbarriers.push(Mbarrier {
        name: "full".into(),
        slots: 1,
        arrivals: 1,
    });
    let (zero, limit) = (k.int(0), k.int(1 << 20));
    let cta = k.def(Frag::scalar(Dtype::I32), Op::Cta);
    let wide = k.map(Frag::scalar(Dtype::I64), MapOp::Convert, &[cta]);
    let mut at = vec![RowIndex::Fixed(wide); rank - 1];
    at[0] = RowIndex::Row;
    let tile = |tensor| GlobalTile {
        tensor,
        at: at.clone(),
        col: 32,
        rows: 64,
        cols,
        first_row: cta,
        row_limit: limit,
    };
    let window = view(buf, None, None, 64, cols);
    let warp = k.def(Frag::scalar(Dtype::I32), Op::WarpInRole);
    let first = k.map(Frag::scalar(Dtype::Bool), MapOp::Eq, &[warp, zero]);
    k.when(first, |k| {
        k.effect(Effect::MbarExpect {
            barrier: MbarId(0),
            slot: zero,
            bytes: 64 * cols * 2,
        });
        k.effect(Effect::Copy {
            kind: CopyKind::Tma {
                barrier: MbarId(0),
                slot: zero,
            },
            src: tile(input),
            dst: window.clone(),
        });
        k.effect(Effect::MbarWait {
            barrier: MbarId(0),
            slot: zero,
            parity: zero,
        });
        k.effect(Effect::TmaStore {
            src: window.clone(),
            dst: tile(output),
        });
        k.effect(Effect::TmaStoreWait { pending: 0 });
    });
    k.finish()
}

#[test]
fn bulk_copies_take_a_panel_each() {
    for (rank, cols, panels) in [(2, 64, 1), (3, 128, 2), (4, 96, 3), (5, 80, 5)] {
        let k = there_and_back(rank, cols);
        let panel = [128, 64, 32][[64, 96, 80].iter().position(|c| *c == cols).unwrap_or(0)];
        let maps = k.tensor_maps();
        let expected = [ParamId(0), ParamId(1)].map(|tensor| TensorMap {
            tensor,
            row_axis: 0,
            rows: 64,
            cols: panel / 2,
            panel_bytes: panel,
        });
        assert_eq!(maps, expected);
        let (ptx, code) = build(&k);
        assert_eq!(
            count(&ptx, &format!("cp.async.bulk.tensor.{rank}d.shared::cluster")),
            panels,
            "{ptx}"
        );
        assert_eq!(
            count(&ptx, &format!("cp.async.bulk.tensor.{rank}d.global.shared::cta")),
            panels,
            "{ptx}"
        );
        // The warp meets once, for the lanes that do not wait for the store.
        assert_eq!(count(&ptx, "bar.warp.sync"), 1, "{ptx}");
        let Some(code) = code else { continue };
        let all: Vec<&str> = code.iter().map(|i| i.opcode.as_str()).collect();
        assert_eq!((opcodes(&all, "UTMALDG"), opcodes(&all, "UTMASTG")), (panels, panels));
    }
}

#[test]
fn a_warp_meets_before_it_arrives_if_its_lanes_were_apart() {
    let arrive = |apart: bool| {
        let mut k = Builder::new("arrive", "sm_90a", 4);
        let out = k.tensor("o", Dtype::F32, 2, Access::Out);
        let buf = k.buffer("b", Dtype::F32, 1, 16, 8, BufferLayout::Rows);
        k.kernel.mbarriers.push(Mbarrier {
            name: "empty".into(),
            slots: 2,
            arrivals: 4,
        });
        let (zero, n) = (k.int(0), k.int(4));
        let two = k.int(2);
        k.repeat(zero, n, &[], |k, t, _| {
            let slot = k.imap(MapOp::Rem, &[t, two]);
            k.effect(Effect::MbarArrive {
                barrier: MbarId(0),
                slot,
            });
            if apart {
                let ty = mma(Dtype::F32, 16, 8);
                let value = k.def(ty, Op::LoadShared(view(buf, None, None, 16, 8)));
                let at = vec![zero, zero];
                k.effect(Effect::StoreGlobal {
                    tensor: out,
                    at,
                    guard: None,
                    value,
                });
            }
            vec![]
        });
        k.finish()
    };
    let (together, _) = build(&arrive(false));
    assert_eq!(count(&together, "mbarrier.arrive.shared::cta.b64 _"), 1, "{together}");
    assert_eq!(count(&together, "bar.warp.sync"), 0, "{together}");
    // What the iteration before has read counts too.
    let (apart, _) = build(&arrive(true));
    assert_eq!(count(&apart, "bar.warp.sync"), 1, "{apart}");
}

#[test]
fn slots_of_rings_are_taken_by_masks_and_multiplications() {
    let mut k = Builder::new("ring", "sm_90a", 4);
    let out = k.tensor("o", Dtype::I32, 2, Access::Out);
    let n = k.scalar("n", Dtype::I32);
    let (zero, one) = (k.int(0), k.int(1));
    let (two, three) = (k.int(2), k.int(3));
    // A number that runs on over two loops.
    k.repeat(zero, n, &[zero], |k, t, outer| {
        k.repeat(zero, n, &[outer[0]], |k, u, inner| {
            let slots = [
                k.imap(MapOp::Rem, &[inner[0], two]),
                k.imap(MapOp::Rem, &[inner[0], three]),
            ];
            let value = k.imap(MapOp::Add, &slots);
            k.effect(Effect::StoreGlobal {
                tensor: out,
                at: vec![t, u],
                guard: None,
                value,
            });
            vec![k.imap(MapOp::Add, &[inner[0], one])]
        })
    });
    let (ptx, _) = build(&k.finish());
    for slow in ["rem.", "div.", "mul.hi.s32"] {
        assert_eq!(count(&ptx, slow), 0, "{ptx}");
    }
}
