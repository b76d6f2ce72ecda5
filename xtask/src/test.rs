//! Everything that CI runs, step by step.

use crate::process::{cargo, run};
use crate::setup::{self, tool};
use crate::steps::{Outcome, Steps};
use crate::{compiler, downstream, prepare, tidy};
use anyhow::Result;

/// The instruction sets that PTX must assemble for: portable code for the plain ones, Hopper's for the last.
const ASSEMBLE_FOR: &str = "sm_80,sm_86,sm_89,sm_90,sm_90a";

/// Inputs that each fuzz target tries.
const FUZZ_CASES: &str = "20000";

/// What candle 0.11 with its feature `cuda` asks of cudarc, and so of the one cudarc that a program with both has.
/// Candle itself cannot be checked here: its build compiles kernels with nvcc.
const CANDLE: &str = "cudarc/cublas,cudarc/cublaslt,cudarc/curand,cudarc/nvrtc,cudarc/f8,cudarc/dynamic-linking";

/// Random tests draw the same cases in every run of this task, so that a change is judged and not the luck of the draw;
/// plain `cargo test` draws new ones each time.
const SEED: (&str, &str) = ("PROPTEST_RNG_SEED", "20261124");

/// Runs the steps whose names contain one of the words in `only`, or all.
pub fn test(only: &[String]) -> Result<()> {
    let mut steps = Steps::new(only);
    steps.step("setup", || passed(setup::setup(false)));
    steps.step("tidy", || passed(tidy::tidy()));
    steps.step("format", || passed(run(&mut cargo(["fmt", "--all", "--check"]))));
    steps.step("prepare", || passed(prepare::prepare()));
    steps.step("clippy", || {
        passed(run(&mut cargo([
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ])))
    });
    steps.step("candle's cudarc", || {
        passed(run(&mut cargo([
            "check",
            "--package",
            "drawloom",
            "--features",
            CANDLE,
        ])))
    });
    steps.step("rustdoc", || {
        passed(run(
            cargo(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings")
        ))
    });
    steps.step("tests", || {
        passed(run(cargo(["test", "--workspace"]).env(SEED.0, SEED.1)))
    });
    steps.step("ptxas", assemble);
    steps.step("example", example);
    steps.step("downstream", || passed(downstream::downstream()));
    steps.step("fuzz", || {
        passed(run(cargo(["test", "--package", "drawloom-fuzz"])
            .env("PROPTEST_CASES", FUZZ_CASES)
            .env(SEED.0, SEED.1)))
    });
    steps.finish()
}

fn passed(result: Result<()>) -> Result<Outcome> {
    result.map(|()| Outcome::Passed)
}

/// Every spec to PTX, every PTX through ptxas: no spills, no warnings, and on Hopper the order that was asked for.
fn assemble() -> Result<Outcome> {
    let Some(ptxas) = tool("ptxas") else {
        return Ok(Outcome::Skipped(
            "no ptxas in target/tools; see what setup said".to_owned(),
        ));
    };
    compiler::build()?;
    let out = crate::process::target().join("assembled");
    let mut compile = compiler::drawloom(["compile", "specs", "--assemble-for", ASSEMBLE_FOR]);
    compile.arg("--ptxas").arg(ptxas).arg("--out").arg(out);
    if let Some(nvdisasm) = tool("nvdisasm") {
        compile.arg("--nvdisasm").arg(nvdisasm);
    }
    passed(run(&mut compile))
}

/// The sentence-embedding example, on the whole model.
fn example() -> Result<Outcome> {
    let model = match setup::model() {
        Ok(model) => model,
        Err(error) => return Ok(Outcome::Skipped(format!("the model could not be fetched: {error:#}"))),
    };
    passed(run(cargo(["run", "--package", "drawloom-minilm", "--"]).arg(model)))
}
