//! `drawloom prepare`: finds every `attn!` of a crate by letting cargo check it with the macro in record mode, so that
//! macros and `cfg`s are seen, and compiles what was recorded.

use crate::assembly::Assembly;
use crate::compile::{compile_all, write};
use crate::exit::Exit;
use crate::input::Choice;
use crate::report::{Done, Failure, Out};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Arguments of `drawloom prepare`.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  drawloom prepare\n  drawloom prepare path/to/crate --check")]
pub struct Args {
    /// The crate's folder.
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// Write nothing; fail with exit code 3 if the folder does not hold just what would be written.
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    choice: Choice,
    #[command(flatten)]
    assembly: Assembly,
}

#[derive(serde::Serialize)]
struct Prepared {
    /// The stems of the two files of each artifact.
    artifacts: Vec<String>,
    /// With `--check`, what is not as it would be written.
    different: Vec<String>,
}

/// Runs the command.
pub fn prepare(args: &Args, out: &Out) -> Result<Done, Failure> {
    let recorded = tempfile::tempdir()?;
    record(&args.folder, recorded.path())?;
    let folder = args.folder.join(".drawloom");
    let mut wanted = BTreeSet::new();
    let mut different = Vec::new();
    let mut artifacts = Vec::new();
    let specs = crate::input::specs(&files(recorded.path())?)?;
    for (spec, compiled) in compile_all(&specs, &args.choice, &args.assembly)? {
        let stem = drawloom_lang::artifact::file_stem(&spec.name, &drawloom_lang::key(spec));
        let (manifest, payload) = (folder.join(format!("{stem}.json")), folder.join(format!("{stem}.bin")));
        if args.check {
            let same = std::fs::read_to_string(&manifest).is_ok_and(|text| text == compiled.manifest)
                && std::fs::read(&payload).is_ok_and(|bytes| bytes == compiled.payload);
            if !same {
                different.push(format!("{} differs", manifest.display()));
            }
        } else {
            std::fs::create_dir_all(&folder)?;
            write(spec, &compiled, &folder)?;
            out.line(format!("{stem}: {} kernels", compiled.modules.len()));
        }
        artifacts.push(stem);
        wanted.extend([manifest, payload]);
    }
    for stale in files(&folder)
        .unwrap_or_default()
        .into_iter()
        .filter(|f| !wanted.contains(f))
    {
        if args.check {
            different.push(format!("{} is not used", stale.display()));
        } else {
            std::fs::remove_file(stale)?;
        }
    }
    let prepared = Prepared { artifacts, different };
    let different = prepared.different.clone();
    Ok(Done::with(prepared)?.unless(Exit::Differs, different))
}

/// Lets cargo check the crate with `DRAWLOOM_RECORD` set. What the macro writes mentions that variable, so that cargo
/// runs it anew whenever the variable is another: now, and when the crate is built next.
fn record(folder: &Path, into: &Path) -> Result<(), Failure> {
    let cargo = || {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(folder);
        command
    };
    let metadata = cargo()
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .output()?;
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).map_err(|_| {
        Failure::given(format!(
            "{}: {}",
            folder.display(),
            String::from_utf8_lossy(&metadata.stderr)
        ))
    })?;
    let here = folder.canonicalize()?;
    let own = |package: &&serde_json::Value| {
        let manifest = package["manifest_path"].as_str().map(Path::new);
        manifest.and_then(Path::parent).is_some_and(|p| p == here)
    };
    if !metadata["packages"]
        .as_array()
        .is_some_and(|all| all.iter().any(|package| own(&package)))
    {
        return Err(Failure::given(format!("{} holds no package", folder.display())));
    }
    let status = cargo()
        .args(["check", "--quiet", "--all-targets"])
        .env("DRAWLOOM_RECORD", into)
        .status()?;
    match status.success() {
        true => Ok(()),
        false => Err(Failure::given(format!("cargo check failed in {}", folder.display()))),
    }
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut files: Vec<PathBuf> = folder.read_dir()?.filter_map(|e| Some(e.ok()?.path())).collect();
    files.retain(|p| p.is_file());
    files.sort();
    Ok(files)
}
