//! Everything that CI runs, step by step.

use crate::prepare::Kernels;
use crate::process::{cargo, command, root, run, succeeds, target};
use crate::setup;
use crate::steps::{Outcome, Steps};
use crate::{compiler, downstream, gallery, prepare, tidy};
use anyhow::{Context, Result};

/// Inputs that each fuzz target tries.
const FUZZ_CASES: &str = "20000";

/// What candle 0.11 with its feature `cuda` asks of cudarc, and so of the one cudarc that a program with both has.
/// Candle itself cannot be checked here: its build compiles kernels with nvcc.
const CANDLE: &str = "cudarc/cublas,cudarc/cublaslt,cudarc/curand,cudarc/nvrtc,cudarc/f8,cudarc/dynamic-linking";

/// Random tests draw the same cases in every run of this task, so that a change is judged and not the luck of the draw;
/// plain `cargo test` draws new ones each time.
const SEED: (&str, &str) = ("PROPTEST_RNG_SEED", "20261124");

/// Runs the steps whose names contain one of the words in `only`, or all steps; with `all`, on every kernel.
pub fn test(all: bool, only: &[String]) -> Result<()> {
    let mut steps = Steps::new(only);
    steps.step("setup", || passed(setup::setup(false)));
    steps.step("tidy", || passed(tidy::tidy()));
    steps.step("format", || passed(run(&mut cargo(["fmt", "--all", "--check"]))));
    steps.step("kernels", || kernels(all));
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
    steps.step("gallery", || passed(gallery::check_costs()));
    steps.step("example", example);
    steps.step("offline", offline);
    steps.step("downstream", || passed(downstream::downstream()));
    steps.step("fuzz", || passed(fuzz()));
    steps.finish()
}

fn passed(result: Result<()>) -> Result<Outcome> {
    result.map(|()| Outcome::Passed)
}

/// Every spec to the artifacts that the other steps embed, through ptxas: `tests/device` embeds all of `specs/`.
fn kernels(all: bool) -> Result<Outcome> {
    let kernels = || if all { Kernels::all() } else { Kernels::few() };
    if let Some(assembled) = kernels().assembled() {
        return passed(prepare::prepare(&assembled));
    }
    prepare::prepare(&kernels())?;
    Ok(Outcome::Skipped(
        "compiled, but not assembled: no ptxas in target/tools; see what setup said".to_owned(),
    ))
}

/// A spec compiled offline and opened by path, on the CPU form, and on the GPU if there is one.
fn offline() -> Result<Outcome> {
    compiler::build(compiler::DRAWLOOM)?;
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
    run(&mut cargo(["build", "--workspace", "--example", "offline"]))?;
    let example = target().join("debug").join("examples").join("offline");
    for place in places {
        run(command(&example, [&manifest]).arg(place))?;
    }
    Ok(Outcome::Passed)
}

/// Every fuzz target, with more cases than among the tests.
fn fuzz() -> Result<()> {
    let mut test = cargo(["test", "--workspace"]);
    for entry in root().join("tests").join("fuzz").join("tests").read_dir()? {
        if let Some(name) = entry?.path().file_stem() {
            test.arg("--test").arg(name);
        }
    }
    run(test.env("PROPTEST_CASES", FUZZ_CASES).env(SEED.0, SEED.1))
}

const EXAMPLE: &str = "drawloom-minilm";

/// The sentence-embedding example, on the whole model.
fn example() -> Result<Outcome> {
    let model = match setup::model() {
        Ok(model) => model,
        Err(error) => return Ok(Outcome::Skipped(format!("the model could not be fetched: {error:#}"))),
    };
    compiler::build(EXAMPLE)?;
    passed(run(&mut compiler::built(EXAMPLE, [model])))
}
