//! Proves that users need no LLVM and no CUDA: the crates as cargo packs them, and a crate that uses them.
//!
//! `tests/downstream` carries its artifacts. It and the crates that a user builds are packed as for crates.io, unpacked
//! side by side, and the downstream crate is built and run there, offline, with LLVM's place set to nowhere. What that
//! costs the user is held to [`MAX_BUILD`]; `tidy` counts the dependencies.

use crate::process::{cargo, command, root, run, target};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Crates of ours that a user builds.
const CRATES: [&str; 3] = ["drawloom-lang", "drawloom-macros", "drawloom"];

/// The crate that uses them.
const USER: &str = "drawloom-downstream";

/// Instruction sets that the checked-in artifact has code for: those that the compiler makes by default.
const TARGETS: [&str; 2] = ["sm_80", "sm_90a"];

/// Processor time of a clean build, at most: twice what it takes on two cores of 2026 (54 to 61 s), so that a slower machine
/// passes and a heavy dependency does not. The budget itself is 25 s on the clock of two quiet cores.
const MAX_BUILD: Duration = Duration::from_secs(120);

/// Packs, unpacks, builds offline, runs.
pub fn downstream() -> Result<()> {
    check_artifact(&root().join("tests").join("downstream").join(".drawloom"))?;
    let bare = target().join("downstream");
    if bare.exists() {
        fs::remove_dir_all(&bare)?;
    }
    fs::create_dir_all(&bare)?;
    let pack = [
        "package",
        "--no-verify",
        "--allow-dirty",
        "--exclude-lockfile",
        "--quiet",
    ];
    let ours = CRATES.iter().flat_map(|name| ["--package", name]);
    run(offline(&mut cargo(pack.into_iter().chain(ours)))
        .arg("--target-dir")
        .arg(&bare))?;

    let packed = bare.join("package");
    let mut patches = String::from("[patch.crates-io]\n");
    for name in CRATES {
        unpack(name)?;
        patches += &format!("{name} = {{ path = {:?} }}\n", packed.join(name));
    }
    let config = bare.join("patches.toml");
    fs::write(&config, &patches)?;

    let manifest = root().join("tests").join("downstream").join("Cargo.toml");
    let mut pack = cargo(pack);
    pack.arg("--config")
        .arg(&config)
        .arg("--manifest-path")
        .arg(manifest)
        .arg("--target-dir")
        .arg(&bare);
    run(offline(&mut pack))?;
    unpack(USER)?;
    // A workspace of their own, so that the one around it does not claim them.
    let members = [&CRATES[..], &[USER]].concat();
    fs::write(
        packed.join("Cargo.toml"),
        format!("[workspace]\nresolver = \"2\"\nmembers = {members:?}\n{patches}"),
    )?;
    let user = |task: &[&str]| {
        let mut user = cargo(task);
        user.args(["--package", USER, "--manifest-path"])
            .arg(packed.join("Cargo.toml"))
            .env("CARGO_TARGET_DIR", bare.join("target"))
            .env("LLVM_SYS_221_PREFIX", "/nowhere")
            .current_dir(&packed);
        offline(&mut user);
        user
    };
    let before = children()?;
    run(&mut user(&["build"]))?;
    within("a clean build", children()?.saturating_sub(before), MAX_BUILD)?;
    run(&mut user(&["run"]))
}

/// A command of cargo that may not ask the network.
fn offline(command: &mut Command) -> &mut Command {
    command.env("CARGO_NET_OFFLINE", "true")
}

/// The checked-in artifacts have code for every target.
fn check_artifact(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "json") {
            let manifest: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
            let modules = manifest["modules"].as_array().into_iter().flatten();
            let targets: BTreeSet<&str> = modules.filter_map(|module| module["target"].as_str()).collect();
            ensure!(
                targets == BTreeSet::from(TARGETS),
                "{} has code for {targets:?}, not for {TARGETS:?}: run `drawloom prepare tests/downstream`",
                path.display()
            );
        }
    }
    Ok(())
}

fn within(what: &str, given: Duration, limit: Duration) -> Result<()> {
    println!("{what} takes {given:.3?}");
    ensure!(given <= limit, "{what} takes {given:.3?}, and may take {limit:?}");
    Ok(())
}

/// Processor time of every process that we started and that has ended.
fn children() -> Result<Duration> {
    const TICKS_PER_SECOND: f64 = 100.0;
    // The name of the program, in parentheses, may hold anything; of the fields behind it, the 14th is the time.
    let text = fs::read_to_string("/proc/self/stat").context("the time of child processes is read from /proc")?;
    let fields = text.rsplit_once(')').map(|(_, fields)| fields).unwrap_or_default();
    let ticks: f64 = fields.split_whitespace().nth(13).unwrap_or_default().parse()?;
    Ok(Duration::from_secs_f64(ticks / TICKS_PER_SECOND))
}

/// Unpacks a packed crate beside the others, under its bare name.
fn unpack(name: &str) -> Result<()> {
    let packed = target().join("downstream").join("package");
    let versioned = format!("{name}-{}", env!("CARGO_PKG_VERSION"));
    run(command("tar", ["xzf"])
        .arg(packed.join(format!("{versioned}.crate")))
        .arg("-C")
        .arg(&packed))?;
    fs::rename(packed.join(versioned), packed.join(name))?;
    Ok(())
}
