//! One folder that a GPU machine needs to time our kernels beside other implementations: the launcher's library, the
//! artifacts of the benchmark's specs, and the script.

use crate::process::{cargo, command, read, root, run, target};
use crate::{compiler, setup};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;

/// Most bytes of the folder: it is carried to other machines.
const LIMIT: u64 = 20 << 20;

/// Specs, and the bindings of them that the suites use.
const ARTIFACTS: [(&str, &[&str]); 8] = [
    ("specs/dense.attn", &["--size", "d=64,d=128,d=256"]),
    ("specs/causal.attn", &["--size", "d=64,d=128,d=256"]),
    ("specs/streaming.attn", ONE),
    ("specs/document.attn", ONE),
    ("specs/alibi.attn", ONE),
    ("specs/softcap.attn", ONE),
    ("specs/gqa_causal.attn", ONE),
    ("tests/bench/specs/window.attn", ONE),
];

const ONE: &[&str] = &["--type", "bf16", "--size", "d=128"];

/// Builds everything and copies it to `target/bundle`.
pub fn bundle() -> Result<()> {
    compiler::build(compiler::DRAWLOOM)?;
    let folder = target().join("bundle");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    let artifacts = folder.join("artifacts");
    fs::create_dir_all(&artifacts)?;
    for (spec, choice) in ARTIFACTS {
        let mut compile = compiler::drawloom(["compile", spec]);
        compile.args(choice).arg("--out").arg(&artifacts);
        if let Some(ptxas) = setup::tool("ptxas") {
            compile.arg("--ptxas").arg(ptxas);
        }
        run(&mut compile)?;
    }
    let mut build = cargo(["build", "--release", "--package", "drawloom-bench", "--lib"]);
    run(build.env("CARGO_PROFILE_RELEASE_STRIP", "symbols"))?;
    let library = "libdrawloom_bench.so";
    let built = target().join("release").join(library);
    fs::copy(&built, folder.join(library)).with_context(|| format!("{} cannot be copied", built.display()))?;
    let script = root().join("tests").join("bench").join("beside.py");
    fs::copy(script, folder.join("beside.py"))?;
    let commit = read(&mut command("git", ["describe", "--always", "--dirty", "--abbrev=10"]))?;
    fs::write(folder.join("commit"), commit.trim())?;
    let bytes = size(&folder)?;
    ensure!(
        bytes <= LIMIT,
        "{} has {bytes} bytes, but at most {LIMIT} are carried",
        folder.display()
    );
    println!("{}: {:.1} MB", folder.display(), bytes as f64 / 1e6);
    println!(
        "there: python3 beside.py --suite forward --date YYYY-MM-DD --out OUT; here: cargo xtask record OUT/forward.json"
    );
    Ok(())
}

fn size(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in folder.read_dir()? {
        let path = entry?.path();
        bytes += if path.is_dir() {
            size(&path)?
        } else {
            fs::metadata(&path)?.len()
        };
    }
    Ok(bytes)
}
