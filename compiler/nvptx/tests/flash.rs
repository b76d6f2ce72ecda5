//! FlashAttention-2 forward kernels: they must assemble for all GPUs that run `sm_80` code, and their loops be lean.

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::{Flash, flash};
use drawloom_kernel::ir::Dtype;
use drawloom_nvptx::ptxas::{self, assemble};
use drawloom_nvptx::{Options, emit};

const FA2: Flash = Flash {
    dtype: Dtype::Bf16,
    block_m: 128,
    block_n: 64,
    head: 128,
    warps: 4,
    stages: 1,
    query_in_registers: false,
    masked: false,
    softcap: false,
};

/// What a kernel may cost.
struct Limit {
    /// Bytes that ptxas spills, stored and loaded together.
    spills: u32,
    /// Instructions in the loop over keys beyond those that the algorithm needs.
    overhead: usize,
}

/// Instructions of one iteration that the algorithm needs, by opcode: see the module documentation of FlashAttention-2's
/// softmax for the counts per score. Shared loads of matrices are four 8 x 8 matrices each.
fn needed(f: &Flash) -> BTreeMap<&'static str, u32> {
    let rows = f.block_m / f.warps;
    let (scores, outputs, row_slots) = (rows * f.block_n / 32, rows * f.head / 32, rows / 8);
    let products = 2 * rows * f.block_n * f.head / (16 * 8 * 16);
    let query = if f.query_in_registers { 0 } else { rows * f.head / 256 };
    BTreeMap::from([
        ("HMMA", products),
        ("LDSM", 2 * f.block_n * f.head / 256 + query),
        ("MUFU", scores + row_slots),
        ("FFMA", scores + row_slots),
        ("FMNMX", scores + 2 * row_slots),
        ("FADD", scores),
        ("FMUL", outputs + row_slots),
        ("F2FP", scores / 2),
        ("LDGSTS", 2 * f.block_n * f.head * 2 / 16 / (32 * f.warps)),
        ("SHFL", 2 * row_slots),
    ])
}

/// Emits and assembles a kernel, and holds it to its limits.
fn check(name: &str, f: Flash, limit: &Limit) {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let emitted = emit(&flash(f), &Options::default()).expect("the kernel is emitted");
    if let Some(dir) = std::env::var_os("DRAWLOOM_DUMP") {
        std::fs::write(Path::new(&dir).join(name).with_extension("ptx"), &emitted.ptx).expect("the dump is written");
    }
    let Some(tool) = ptxas::find_ptxas(here) else {
        println!("[SKIP] no ptxas");
        return;
    };
    for arch in ["sm_80", "sm_86", "sm_89", "sm_90"] {
        let report = assemble(&emitted.ptx, arch, &tool).expect("ptxas takes the kernel");
        let spills = report.spill_store_bytes + report.spill_load_bytes;
        println!("{name} {arch}: {} registers, {spills} bytes spilled", report.registers);
        assert!(spills <= limit.spills, "{name} spills {spills} bytes on {arch}");
        assert_eq!(report.warnings, Vec::<String>::new());
        let Some(nvdisasm) = ptxas::find_nvdisasm(here) else {
            println!("[SKIP] no nvdisasm");
            continue;
        };
        let code = ptxas::disassemble(&report.cubin, &nvdisasm).expect("nvdisasm takes the cubin");
        let all = ptxas::loops(&code);
        let longest = all.iter().max_by_key(|l| l.len()).expect("the kernel has a loop");
        let counts = ptxas::count_opcodes(longest);
        println!("{} of {} instructions: {counts:?}", longest.len(), code.len());
        let needed = needed(&f);
        for opcode in ["HMMA", "LDSM", "LDGSTS", "F2FP", "SHFL"] {
            assert_eq!(
                counts.get(opcode).copied().unwrap_or(0),
                needed[opcode] as usize,
                "{name} {arch} {opcode}"
            );
        }
        let least = needed.values().sum::<u32>() as usize;
        assert!(
            longest.len() <= least + limit.overhead,
            "{name} {arch}: {} instructions, not {least}",
            longest.len()
        );
    }
}

/// Rows of 32 per warp and a head of 128 need 192 accumulators of the 255 registers. ptxas spills the row sums (four
/// registers, stored and loaded once per tile of 1000 instructions) and some of what only the epilogue uses.
#[test]
fn wide_warps() {
    let limit = Limit {
        spills: 160,
        overhead: 230,
    };
    check("fa2", FA2, &limit);
    check("fa2_2stage", Flash { stages: 2, ..FA2 }, &limit);
}
#[test]
fn sixteen_rows_per_warp() {
    let limit = Limit {
        spills: 0,
        overhead: 110,
    };
    check(
        "fa2_8warps_qreg",
        Flash {
            warps: 8,
            query_in_registers: true,
            stages: 2,
            ..FA2
        },
        &limit,
    );
    check(
        "fa2_8warps",
        Flash {
            warps: 8,
            stages: 2,
            dtype: Dtype::F16,
            ..FA2
        },
        &limit,
    );
}
#[test]
fn narrow_heads() {
    check(
        "fa2_d64",
        Flash {
            head: 64,
            block_n: 128,
            ..FA2
        },
        &Limit {
            spills: 0,
            overhead: 160,
        },
    );
}
/// A mask adds one comparison per column slot and one selection per score.
#[test]
fn masked() {
    let limit = Limit {
        spills: 0,
        overhead: 110 + 16 * 2 + 32,
    };
    check(
        "fa2_masked",
        Flash {
            masked: true,
            warps: 8,
            stages: 2,
            ..FA2
        },
        &limit,
    );
}
/// A cap adds twelve instructions per score and two products.
#[test]
fn capped() {
    let limit = Limit {
        spills: 0,
        overhead: 110 + 14 * 32,
    };
    check(
        "fa2_softcap",
        Flash {
            softcap: true,
            warps: 8,
            stages: 2,
            ..FA2
        },
        &limit,
    );
}
