//! Proves that users need no LLVM and no CUDA: the crates as cargo packs them, and a crate that uses them.
//!
//! `tests/downstream` carries its artifacts. It and the crates that a user builds are packed as for crates.io, unpacked
//! side by side, and the downstream crate is built and run there, offline, with LLVM's place set to nowhere.

use crate::process::{cargo, command, root, run, target};
use anyhow::Result;
use std::fs;

/// Crates of ours that a user builds.
const CRATES: [&str; 3] = ["drawloom-lang", "drawloom-macros", "drawloom"];

/// The crate that uses them.
const USER: &str = "drawloom-downstream";

/// Packs, unpacks, builds offline, runs.
pub fn downstream() -> Result<()> {
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
    run(cargo(pack.into_iter().chain(ours)).arg("--target-dir").arg(&bare))?;

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
    run(&mut pack)?;
    unpack(USER)?;
    // A workspace of their own, so that the one around it does not claim them.
    let members = [&CRATES[..], &[USER]].concat();
    fs::write(
        packed.join("Cargo.toml"),
        format!("[workspace]\nresolver = \"2\"\nmembers = {members:?}\n{patches}"),
    )?;
    let mut build = cargo(["run", "--offline", "--package", USER, "--manifest-path"]);
    build
        .arg(packed.join("Cargo.toml"))
        .env("CARGO_TARGET_DIR", bare.join("target"));
    run(build.env("LLVM_SYS_221_PREFIX", "/nowhere").current_dir(&packed))
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
