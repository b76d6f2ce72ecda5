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

/// The shortest loop that issues products.
///
/// What ptxas puts behind the kernel's end (further polls of an mbarrier) jumps back to its middle, which looks like longer
/// loops.
fn main_loop(code: &[SassInstruction]) -> Vec<&str> {
    let loops = ptxas::loops(code).into_iter();
    let with_products = loops.filter(|l| l.iter().any(|i| i.opcode.starts_with("HGMMA")));
    let shortest = with_products.min_by_key(|l| l.len()).expect("the kernel has a loop");
    shortest.iter().map(|i| i.opcode.as_str()).collect()
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
    assert_eq!(
        opcodes(&all, "USETMAXREG") > 0,
        true,
        "{name} keeps its register budgets"
    );
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
