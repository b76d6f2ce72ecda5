//! From a fresh clone to a checked result: set up, build, compile every spec, run real input.

use crate::prepare::Kernels;
use crate::process::{read, root, run, target};
use crate::table::aligned;
use crate::{compiler, prepare, setup};
use anyhow::{Context, Result, ensure};
use drawloom_lang::manifest::{Instance, Manifest};
use drawloom_lang::spec::Dtype;
use indicatif::{ProgressBar, ProgressStyle};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What a newcomer sees first.
pub fn demo() -> Result<()> {
    setup::setup(false)?;
    compiler::build(compiler::DRAWLOOM)?;
    let compiled = compile(&specs()?)?;
    print!("\n{}\n", report(&compiled));
    prepare::prepare_crate(Path::new(prepare::DEVICE), &Kernels::all())?;
    compiler::build("demo")?;
    run(&mut compiler::built("demo", [""; 0]))?;
    println!("\nNext: cargo xtask test, or look at one spec: target/debug/drawloom explain specs/streaming.attn");
    Ok(())
}

fn specs() -> Result<Vec<PathBuf>> {
    let mut specs = Vec::new();
    for entry in root().join("specs").read_dir()? {
        specs.push(entry?.path());
    }
    specs.retain(|path| path.extension().is_some_and(|extension| extension == "attn"));
    specs.sort();
    ensure!(!specs.is_empty(), "specs/ holds no spec");
    Ok(specs)
}

/// Compiles each spec on its own, so that each has its time; returns the manifests.
fn compile(specs: &[PathBuf]) -> Result<Vec<(Manifest, Duration)>> {
    let style =
        ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {msg}").expect("invariant: it is a template");
    let bar = ProgressBar::new(specs.len() as u64).with_style(style);
    bar.enable_steady_tick(Duration::from_millis(200));
    let mut compiled = Vec::new();
    for spec in specs {
        let name = spec.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        bar.set_message(name.clone());
        let out = target().join("demo").join(&name);
        if out.exists() {
            fs::remove_dir_all(&out)?;
        }
        let mut command = compiler::drawloom(["compile"]);
        command.arg(spec).arg("--out").arg(&out);
        if let Some(ptxas) = setup::tool("ptxas") {
            command.arg("--ptxas").arg(ptxas);
        }
        let started = Instant::now();
        read(&mut command)?;
        let spent = started.elapsed();
        for manifest in manifests(&out)? {
            compiled.push((manifest, spent));
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(compiled)
}

fn manifests(folder: &Path) -> Result<Vec<Manifest>> {
    let mut paths: Vec<PathBuf> = folder
        .read_dir()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    let parse = |path: &PathBuf| {
        serde_json::from_str(&fs::read_to_string(path)?).with_context(|| format!("{} is no manifest", path.display()))
    };
    paths.iter().map(parse).collect()
}

/// Lines for one instance of each spec: its variant for many queries and, where it has one, its variant for decoding.
fn report(compiled: &[(Manifest, Duration)]) -> String {
    let head = [
        "spec",
        "for",
        "target",
        "at",
        "issued",
        "over bound",
        "limit",
        "registers",
        "shared",
        "compiled in",
        "kernels",
    ];
    let mut rows = Vec::new();
    for (manifest, spent) in compiled {
        let Some(instance) = shown(manifest) else { continue };
        let split = instance.variants.iter().find(|variant| variant.launches.len() > 1);
        for variant in instance.variants.first().into_iter().chain(split) {
            let report = &variant.report;
            let types: Vec<String> = instance
                .binding
                .types
                .iter()
                .map(|t| format!("{t:?}").to_lowercase())
                .collect();
            let sizes: Vec<String> = report.at.iter().map(|(axis, size)| format!("{axis}{size}")).collect();
            rows.push(vec![
                manifest.name.clone(),
                types.join(" "),
                variant.target.clone(),
                sizes.join(" "),
                format!("{:.1} MB", report.issued_bytes as f64 / 1e6),
                format!("{:.2}", report.issued_bytes as f64 / report.bound_bytes.max(1) as f64),
                report.limit.clone(),
                report
                    .registers
                    .map_or_else(|| "-".to_owned(), |registers| registers.to_string()),
                format!("{:.0} KiB", f64::from(report.shared) / 1024.0),
                format!("{:.1} s", spent.as_secs_f64()),
                manifest.modules.len().to_string(),
            ]);
        }
    }
    aligned(&head, &rows)
}

/// The instance that stands for a spec: bf16 with heads of 128, or its last.
fn shown(manifest: &Manifest) -> Option<&Instance> {
    let usual = |instance: &&Instance| {
        instance.binding.types.iter().all(|t| *t == Dtype::Bf16) && instance.binding.sizes.contains(&Some(128))
    };
    manifest.instances.iter().find(usual).or(manifest.instances.last())
}
