//! Every synchronisation of the correct kernels is needed: without it, some seed has a fault.

use std::fs;
use std::path::Path;

use crate::launch::Launch;
use drawloom_kernel::interp::{Options, run};
use drawloom_kernel::text::parse;

/// Statements without which a kernel must fail.
const SYNCHRONISATION: [&str; 13] = [
    "barrier ",
    "barrier_arrive ",
    "mbar_arrive ",
    "mbar_expect ",
    "mbar_wait ",
    "commit_group",
    "wait_group ",
    "fence_proxy_async",
    "mma_fence",
    "mma_commit",
    "tma_store_wait",
    "copy ",
    "store_shared ",
];

#[test]
fn every_synchronisation_is_needed() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/filetests/kernel");
    let (mut tried, mut survivors) = (0, Vec::new());
    for name in ["attention_sm80", "attention_sm90", "overlap_sm90", "ping_pong"] {
        let text = fs::read_to_string(dir.join(format!("{name}.kir"))).expect("the file test is there");
        let launch = Launch::read(&text).expect("its launch can be read");
        for (i, line) in text.lines().enumerate() {
            if !SYNCHRONISATION.iter().any(|s| line.trim_start().starts_with(s)) {
                continue;
            }
            tried += 1;
            let changed: Vec<&str> = text
                .lines()
                .enumerate()
                .filter(|(n, _)| *n != i)
                .map(|(_, l)| l)
                .collect();
            let kernel = parse(&changed.join("\n")).expect("a statement fewer is still a kernel");
            let fault = |seed| run(&kernel, launch.grid, &mut launch.args.clone(), &Options::seed(seed)).is_err();
            if !(0..64).any(fault) {
                survivors.push(format!("{name}:{}: {}", i + 1, line.trim()));
            }
        }
    }
    assert!(tried > 40, "only {tried} statements were tried");
    assert!(
        survivors.is_empty(),
        "nothing notices that these are missing:\n{}",
        survivors.join("\n")
    );
}
