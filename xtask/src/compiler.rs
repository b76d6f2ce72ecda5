//! The binaries of the workspace as processes: built once with cargo, then run.

use crate::process::{cargo, command, run, target};
use anyhow::Result;
use std::ffi::OsStr;
use std::process::Command;

/// Builds a binary of the workspace. Of the whole workspace, so that dependencies get the features that every other step
/// builds them with, and are built once.
pub fn build(name: &str) -> Result<()> {
    run(&mut cargo(["build", "--workspace", "--bin", name]))
}

/// A binary with arguments, as [`build`] left it.
pub fn built<A: AsRef<OsStr>>(name: &str, args: impl IntoIterator<Item = A>) -> Command {
    command(target().join("debug").join(name), args)
}

/// `drawloom` with arguments, as [`build`] left it.
pub fn drawloom<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Command {
    built(DRAWLOOM, args)
}

/// The compiler's command.
pub const DRAWLOOM: &str = "drawloom";
