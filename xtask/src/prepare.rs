//! `drawloom prepare` for every crate of the workspace that uses `attn!`: those that depend on `drawloom` and call it.
//!
//! The folders are ignored by git, since here kernels change with every change to the compiler.

use crate::compiler;
use crate::process::{cargo, files, read, root, run};
use anyhow::{Context, Result};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The crate of the demo and the benchmark.
pub const DEVICE: &str = "tests/device";

/// Builds the compiler and prepares every crate.
pub fn prepare() -> Result<()> {
    compiler::build()?;
    users()?.iter().try_for_each(|folder| prepare_crate(folder))
}

/// Prepares one crate.
pub fn prepare_crate(folder: &Path) -> Result<()> {
    run(compiler::drawloom(["prepare"]).arg(folder))
}

/// The folders of the workspace's crates that depend on `drawloom` and call `attn!`, in order.
fn users() -> Result<Vec<PathBuf>> {
    let metadata = read(&mut cargo(["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: Value = serde_json::from_str(&metadata).context("cargo metadata is not JSON")?;
    let files = files()?;
    let calls = |folder: &Path| {
        let inside = folder.strip_prefix(root()).unwrap_or(folder);
        let mut sources = files
            .iter()
            .filter(|f| f.ends_with(".rs") && Path::new(f).starts_with(inside));
        sources.any(|file| {
            let text = std::fs::read_to_string(root().join(file)).unwrap_or_default();
            text.contains("attn! {") || text.contains("attn!(")
        })
    };
    let mut folders = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        let manifest = package["manifest_path"].as_str().unwrap_or_default();
        if dependencies.into_iter().any(|d| d["name"] == "drawloom") {
            folders.extend(Path::new(manifest).parent().map(Path::to_path_buf));
        }
    }
    folders.retain(|folder: &PathBuf| calls(folder));
    folders.sort();
    Ok(folders)
}
