//! `drawloom prepare` for every crate of the workspace that uses `attn!`: those that depend on `drawloom` and call it.
//!
//! The folders are ignored by git, since here kernels change with every change to the compiler.

use crate::compiler;
use crate::process::{cargo, files, read, root, run};
use crate::setup::tool;
use anyhow::{Context, Result};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The crate of the demo and the benchmark.
pub const DEVICE: &str = "tests/device";

/// The instruction sets that PTX must assemble for: portable code for the plain ones, Hopper's for the last.
const ASSEMBLE_FOR: &str = "sm_80,sm_86,sm_89,sm_90,sm_90a";
/// Those that every kernel is assembled for, and those that one type and size of each spec is.
const EACH: &str = "sm_80,sm_90a";
const ONCE: &str = "sm_86,sm_89,sm_90";

/// Which kernels are made, and how they are checked.
pub struct Kernels(Vec<String>);

impl Kernels {
    /// Every type and size.
    pub fn all() -> Kernels {
        Kernels(Vec::new())
    }

    /// Those that stand for the others.
    pub fn few() -> Kernels {
        Kernels(vec!["--few".to_owned()])
    }

    /// Through ptxas: no spills, no warnings, and on Hopper the order that was asked for. `None` where there is no ptxas.
    pub fn assembled(mut self) -> Option<Kernels> {
        let few = !self.0.is_empty();
        let mut option = |name: &str, value: &dyn AsRef<Path>| {
            self.0
                .extend([name.to_owned(), value.as_ref().to_string_lossy().into_owned()]);
        };
        option("--ptxas", &tool("ptxas")?);
        if let Some(nvdisasm) = tool("nvdisasm") {
            option("--nvdisasm", &nvdisasm);
        }
        match few {
            true => {
                option("--assemble-for", &EACH);
                option("--assemble-once-for", &ONCE);
            }
            false => option("--assemble-for", &ASSEMBLE_FOR),
        }
        Some(self)
    }
}

/// Builds the compiler and prepares every crate.
pub fn prepare(kernels: &Kernels) -> Result<()> {
    compiler::build(compiler::DRAWLOOM)?;
    users()?.iter().try_for_each(|folder| prepare_crate(folder, kernels))
}

/// Prepares one crate.
pub fn prepare_crate(folder: &Path, kernels: &Kernels) -> Result<()> {
    run(compiler::drawloom(["prepare"]).arg(folder).args(&kernels.0))
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
