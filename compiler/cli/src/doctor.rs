//! `drawloom doctor`.

use crate::report::{Done, Failure, Out};
use drawloom_nvptx::ptxas::{find_nvdisasm, find_ptxas};
use serde::Serialize;
use std::path::Path;
use std::process::Command;

/// Arguments of `drawloom doctor`.
#[derive(clap::Args)]
#[command(after_help = "\
Nothing here is an error: what is missing is needed only for what stands beside it.

Examples:
  drawloom doctor
  drawloom doctor --format json")]
pub struct Args {}

#[derive(Serialize)]
struct Finding {
    /// What was looked for.
    what: &'static str,
    /// What was found; `None` where it is missing.
    found: Option<String>,
    /// Why it was not found.
    missing: Option<String>,
    /// What it is needed for.
    needed: &'static str,
}

impl Finding {
    fn new(what: &'static str, found: Result<String, String>, needed: &'static str) -> Finding {
        let (found, missing) = match found {
            Ok(found) => (Some(found), None),
            Err(missing) => (None, Some(missing)),
        };
        Finding {
            what,
            found,
            missing,
            needed,
        }
    }
}

/// Runs the command.
pub fn doctor(_: &Args, out: &Out) -> Result<Done, Failure> {
    let here = std::env::current_dir().unwrap_or_default();
    let llvm = drawloom_nvptx::llvm_version();
    let mut findings = vec![
        Finding::new(
            "drawloom",
            Ok(format!(
                "{}, artifact ABI {}",
                env!("CARGO_PKG_VERSION"),
                drawloom_lang::manifest::ABI
            )),
            "everything",
        ),
        Finding::new("LLVM", Ok(format!("{llvm}, linked in")), "compile, prepare, bench"),
        Finding::new("driver", driver(), "bench, and launching kernels; no other command"),
        Finding::new("GPU", gpu(), "bench, and launching kernels; no other command"),
        Finding::new(
            "ptxas",
            tool(find_ptxas(&here), "DRAWLOOM_PTXAS, target/tools, PATH"),
            "compile --ptxas and inspect --assemble: registers and spills of kernels",
        ),
        Finding::new(
            "nvdisasm",
            tool(find_nvdisasm(&here), "DRAWLOOM_NVDISASM, target/tools, PATH"),
            "compile --nvdisasm: reading machine code",
        ),
    ];
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    findings.push(Finding::new(
        "cargo",
        version(Path::new(&cargo)),
        "prepare: finding every `attn!` of a crate",
    ));
    for finding in &findings {
        let found = finding.found.as_deref().unwrap_or("missing");
        out.line(format!("{:9} {found}", finding.what));
        if let Some(missing) = &finding.missing {
            out.line(format!("          {missing}"));
        }
        out.line(format!("          for {}", finding.needed));
    }
    Done::with(findings)
}

fn driver() -> Result<String, String> {
    match drawloom::driver_is_present() {
        true => Ok("the NVIDIA driver's library is there".to_owned()),
        false => Err("the NVIDIA driver's library (libcuda) cannot be loaded".to_owned()),
    }
}

/// The first GPU, with what of a compiled artifact it runs.
fn gpu() -> Result<String, String> {
    let context = drawloom::context(0).map_err(|error| error.to_string())?;
    let device = drawloom::Device::of(&context).map_err(|error| error.to_string())?;
    let targets = drawloom_compiler::target::TARGETS
        .iter()
        .filter(|t| device.runs(t.name, "ptx"));
    let targets: Vec<&str> = targets.map(|target| target.name).collect();
    Ok(format!(
        "{}, compute capability {}.{}, {} multiprocessors, {} KiB of shared memory for a CTA; runs {}",
        device.name,
        device.capability.0,
        device.capability.1,
        device.sms,
        device.shared / 1024,
        targets.join(", ")
    ))
}

fn tool(found: Option<std::path::PathBuf>, looked: &str) -> Result<String, String> {
    let path = found.ok_or_else(|| format!("looked for in {looked}"))?;
    let version = version(&path)?;
    Ok(format!("{version} ({})", path.display()))
}

/// The line of `--version` that holds one.
fn version(program: &Path) -> Result<String, String> {
    let output = Command::new(program).arg("--version").output();
    let output = output.map_err(|error| format!("{}: {error}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().rfind(|line| line.chars().any(|c| c.is_ascii_digit()));
    line.map(|line| line.trim().to_owned())
        .ok_or_else(|| format!("{} says nothing of its version", program.display()))
}
