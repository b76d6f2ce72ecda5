//! Everything that CI runs, step by step.

use crate::process::{cargo, command, run, succeeds, target};
use crate::setup::{self, tool};
use crate::steps::{Outcome, Steps};
use crate::{compiler, downstream, gallery, prepare, tidy};
use anyhow::{Context, Result};

/// The instruction sets that PTX must assemble for: portable code for the plain ones, Hopper's for the last.
const ASSEMBLE_FOR: &str = "sm_80,sm_86,sm_89,sm_90,sm_90a";

/// Inputs that each fuzz target tries.
const FUZZ_CASES: &str = "20000";

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
    steps.step("rustdoc", || {
        passed(run(
            cargo(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings")
        ))
    });
    steps.step("tests", || {
        passed(run(cargo(["test", "--workspace"]).env(SEED.0, SEED.1)))
    });
    steps.step("ptxas", assemble);
    steps.step("gallery", || passed(gallery::check_costs()));
    steps.step("example", example);
    steps.step("offline", offline);
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
    let out = target().join("assembled");
    let mut compile = compiler::drawloom(["compile", "specs", "--assemble-for", ASSEMBLE_FOR]);
    compile.arg("--ptxas").arg(ptxas).arg("--out").arg(out);
    if let Some(nvdisasm) = tool("nvdisasm") {
        compile.arg("--nvdisasm").arg(nvdisasm);
    }
    passed(run(&mut compile))
}

/// A spec compiled offline and opened by path, on the CPU form, and on the GPU if there is one.
fn offline() -> Result<Outcome> {
    compiler::build()?;
    let out = target().join("offline");
    let spec = ["compile", "specs/streaming.attn", "--type", "f16", "--size", "d=64"];
    run(compiler::drawloom(spec).arg("--out").arg(&out))?;
    let written = out.read_dir()?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut manifests: Vec<_> = written
        .filter(|path| path.extension().is_some_and(|end| end == "json"))
        .collect();
    // A folder of an earlier run may hold the artifact of an earlier spec.
    manifests.sort_by_key(|path| path.metadata().and_then(|data| data.modified()).ok());
    let manifest = manifests.pop().context("nothing was compiled")?;
    let mut places = vec!["cpu"];
    if succeeds(&mut command("nvidia-smi", ["-L"])) {
        places.push("gpu");
    }
    let example = ["run", "--package", "drawloom", "--example", "offline", "--"];
    for place in places {
        run(cargo(example).arg(&manifest).arg(place))?;
    }
    Ok(Outcome::Passed)
}

/// The sentence-embedding example, on the whole model.
fn example() -> Result<Outcome> {
    let model = match setup::model() {
        Ok(model) => model,
        Err(error) => return Ok(Outcome::Skipped(format!("the model could not be fetched: {error:#}"))),
    };
    passed(run(cargo(["run", "--package", "drawloom-minilm", "--"]).arg(model)))
}
