//! Rules about the tree as a whole: what stands at the top, what is checked in, what a user has to build.

use crate::process::{cargo, read, root};
use anyhow::Result;

/// What stands at the top besides dot folders.
const TOP: [&str; 14] = [
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "compiler",
    "macros",
    "runtime",
    "rustfmt.toml",
    "specs",
    "tests",
    "xtask",
];

/// The one crate whose artifacts are checked in.
const DOWNSTREAM: &str = "tests/downstream/";

/// Bytes of the largest file that is checked in.
const LARGEST: u64 = 4 << 20;

/// Packages of others that a user of `drawloom` builds at most.
const DEPENDENCIES: usize = 35;

/// What is out of place.
pub fn check(paths: &[String]) -> Vec<String> {
    let mut complaints = Vec::new();
    for path in paths {
        let top = path.split('/').next().unwrap_or_default();
        if !top.starts_with('.') && !TOP.contains(&top) {
            complaints.push(format!("{path}: `{top}` does not belong at the top"));
        }
        let compiled =
            [".ptx", ".cubin", ".so", ".o"].iter().any(|end| path.ends_with(end)) || path.contains(".drawloom/");
        if compiled && !path.starts_with(DOWNSTREAM) {
            complaints.push(format!("{path}: compiled code is checked in below {DOWNSTREAM} only"));
        }
        if std::fs::metadata(root().join(path)).is_ok_and(|file| file.len() > LARGEST) {
            complaints.push(format!("{path}: larger than {LARGEST} bytes"));
        }
    }
    for name in TOP {
        if !root().join(name).exists() {
            complaints.push(format!("{name}: missing"));
        }
    }
    complaints
}

/// What a user builds: no LLVM, and not too much.
pub fn check_weight() -> Result<Vec<String>> {
    let tree = [
        "tree",
        "--package",
        "drawloom",
        "--edges",
        "normal,build",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ];
    let tree = read(&mut cargo(tree))?;
    let mut packages: Vec<&str> = tree.lines().map(|line| line.trim_end_matches(" (*)")).collect();
    packages.sort();
    packages.dedup();
    packages.retain(|package| !package.starts_with("drawloom"));
    let mut complaints = Vec::new();
    if packages.len() > DEPENDENCIES {
        let count = packages.len();
        complaints.push(format!(
            "runtime/Cargo.toml: {count} dependencies for a user; {DEPENDENCIES} are the most"
        ));
    }
    for package in packages
        .iter()
        .filter(|p| p.starts_with("llvm-sys ") || p.starts_with("inkwell "))
    {
        complaints.push(format!("runtime/Cargo.toml: a user must not build {package}"));
    }
    Ok(complaints)
}
