//! Builds the benchmark binary, which carries its kernels, and runs it where there is a GPU.

use crate::prepare;
use crate::process::{cargo, command, run, succeeds, target};
use anyhow::Result;

/// Builds, and runs with `args` if the machine has an NVIDIA GPU; else says where the binary is.
pub fn bench(args: &[String]) -> Result<()> {
    prepare::prepare()?;
    run(&mut cargo([
        "build",
        "--release",
        "--package",
        "drawloom-device",
        "--bin",
        "bench",
    ]))?;
    let binary = target().join("release").join("bench");
    if succeeds(&mut command("nvidia-smi", ["-L"])) {
        return run(&mut command(&binary, args));
    }
    println!(
        "no GPU here: copy {} to a machine with one, and run it there; it needs nothing else",
        binary.display()
    );
    println!("then: cargo xtask record RESULT.json");
    Ok(())
}
