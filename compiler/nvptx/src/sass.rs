//! What machine code of a kernel with asynchronous products must look like, whatever assembler made it.
//!
//! ptxas says when it serialises products or spills, but not when it moves a wait above the work that was to overlap it, or
//! gives up register budgets; both cost time and are seen only in the code.

use crate::ptxas::{SassInstruction, loops};

/// What is wrong with the code of one kernel, in words; empty for kernels without asynchronous products.
pub fn complaints(code: &[SassInstruction]) -> Vec<String> {
    let is = |i: &SassInstruction, name: &str| i.opcode.starts_with(name);
    let has = |part: &[SassInstruction], name: &str| part.iter().any(|i| is(i, name));
    let mut out = Vec::new();
    if !has(code, "HGMMA") {
        return out;
    }
    if !has(code, "USETMAXREG") {
        out.push("the register budgets of its roles are gone".to_owned());
    }
    // What ptxas puts behind the kernel's end (further polls of an mbarrier) jumps back to its middle: what lies between is
    // no loop.
    let real: Vec<&[SassInstruction]> = loops(code)
        .into_iter()
        .filter(|l| has(l, "HGMMA") && !has(l, "EXIT"))
        .collect();
    let inside = |a: &[SassInstruction], b: &[SassInstruction]| {
        let ends = |l: &[SassInstruction]| (l.first().map(|i| i.address), l.last().map(|i| i.address));
        let ((a0, a1), (b0, b1)) = (ends(a), ends(b));
        b0 <= a0 && a1 <= b1 && (a0, a1) != (b0, b1)
    };
    for l in real.iter().filter(|l| !real.iter().any(|other| inside(other, l))) {
        let at = l.first().map_or(0, |i| i.address);
        let parts: Vec<&[SassInstruction]> = l.split(|i| is(i, "WARPGROUP.DEPBAR")).collect();
        let exps = |part: &[SassInstruction]| part.iter().filter(|i| is(i, "MUFU.EX2")).count();
        let late = parts.last().map_or(0, |part| exps(part));
        let all: usize = parts.iter().map(|part| exps(part)).sum();
        if parts.len() > 2 && late > 0 {
            out.push(format!(
                "{late} of {all} exponentials of the loop at {at:#x} come behind its last wait, and overlap no product"
            ));
        }
        if has(l, "LDL") || has(l, "STL") {
            out.push(format!("the loop at {at:#x} uses local memory"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A loop of these opcodes behind a register budget, closed by a branch to its first.
    fn code(opcodes: &[&str]) -> Vec<SassInstruction> {
        let all = ["USETMAXREG.TRY_ALLOC.CTAPOOL"]
            .iter()
            .chain(opcodes)
            .chain(&["BRA", "EXIT"]);
        let mut code: Vec<SassInstruction> = all
            .enumerate()
            .map(|(n, opcode)| SassInstruction {
                address: 16 * n as u32,
                opcode: (*opcode).to_owned(),
                target: None,
            })
            .collect();
        let back = code.len() - 2;
        code[back].target = Some(16);
        code
    }

    const GOOD: [&str; 6] = [
        "HGMMA.64x128x16.F32.BF16",
        "WARPGROUP.DEPBAR.LE",
        "MUFU.EX2",
        "SYNCS.PHASECHK.TRANS64.TRYWAIT",
        "WARPGROUP.DEPBAR.LE",
        "F2FP.BF16.F32.PACK_AB",
    ];

    #[test]
    fn overlapped_code_passes() {
        assert_eq!(complaints(&code(&GOOD)), Vec::<String>::new());
        assert_eq!(complaints(&code(&["MUFU.EX2", "LDL"])), Vec::<String>::new());
    }

    #[test]
    fn a_hoisted_wait_is_told() {
        let mut moved = GOOD;
        moved.swap(2, 4);
        let found = complaints(&code(&moved));
        assert!(
            found.len() == 1 && found[0].contains("1 of 1 exponentials"),
            "{found:?}"
        );
    }

    #[test]
    fn lost_budgets_and_local_memory_are_told() {
        let mut spilled = GOOD.to_vec();
        spilled.push("LDL");
        assert!(complaints(&code(&spilled))[0].contains("local memory"));
        let without: Vec<SassInstruction> = code(&GOOD).split_off(1);
        assert!(complaints(&without)[0].contains("budgets"));
    }
}
