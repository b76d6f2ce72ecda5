//! Builds the benchmark binary, which carries its kernels, and runs it where there is a GPU.

use crate::prepare::Kernels;
use crate::process::{cargo, command, read, run, succeeds, target};
use crate::{compiler, prepare};
use anyhow::Result;
use std::path::Path;

/// Builds, and runs with `args` if the machine has an NVIDIA GPU; else says where the binary is.
pub fn bench(args: &[String]) -> Result<()> {
    compiler::build(compiler::DRAWLOOM)?;
    prepare::prepare_crate(Path::new(prepare::DEVICE), &Kernels::all())?;
    let commit = read(&mut command("git", ["rev-parse", "HEAD"]))?;
    let mut build = cargo(["build", "--release", "--package", "drawloom-device", "--bin", "bench"]);
    run(build.env("DRAWLOOM_COMMIT", commit.trim()))?;
    let binary = target().join("release").join("bench");
    if succeeds(&mut command("nvidia-smi", ["-L"])) {
        return run(&mut command(&binary, args));
    }
    let binary = binary.display();
    println!("no GPU here: copy {binary} to a machine with one, and run it there; it needs nothing else");
    println!("then: cargo xtask record RESULT.json");
    Ok(())
}
