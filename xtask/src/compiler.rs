//! The compiler as a process: built once with cargo, then run.

use crate::process::{cargo, command, run, target};
use anyhow::Result;
use std::ffi::OsStr;
use std::process::Command;

/// Builds the `drawloom` command.
pub fn build() -> Result<()> {
    run(&mut cargo(["build", "--package", "drawloom-cli", "--bin", "drawloom"]))
}

/// `drawloom` with arguments, as [`build`] left it.
pub fn drawloom<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Command {
    command(target().join("debug").join("drawloom"), args)
}
