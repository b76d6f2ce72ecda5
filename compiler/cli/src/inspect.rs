//! `drawloom inspect`: what the two files of an artifact hold.

use crate::report::{Done, Failure, Out};
use clap::ValueEnum;
use drawloom_compiler::compile::{CompileError, kernel_name};
use drawloom_compiler::lower::operator::recognise;
use drawloom_compiler::portfolio::portfolios;
use drawloom_compiler::target::target;
use drawloom_lang::artifact::{module_code, open, spec_of};
use drawloom_lang::manifest::{Instance, Manifest, Variant};
use drawloom_nvptx::ptxas::assemble;
use serde::Serialize;
use std::path::PathBuf;

/// Arguments of `drawloom inspect`.
#[derive(clap::Args)]
#[command(after_help = "\
Both files are checked first, as a launcher does it: the ABI, every hash, the spec's key. An artifact holds no tile \
programs: `--show kernel` makes them again from its spec, and says so where this compiler has no such schedule any more.

Examples:
  drawloom inspect artifacts/causal-c7830f0d38585289.json
  drawloom inspect artifacts/causal-c7830f0d38585289.json --instance 3 --variant 0 --show ptx
  drawloom inspect artifacts/causal-c7830f0d38585289.json --assemble target/tools/ptxas")]
pub struct Args {
    /// The manifest, `NAME-KEY.json`; the payload lies beside it.
    path: PathBuf,
    /// Only this instance: a choice of types and sizes.
    #[arg(long)]
    instance: Option<usize>,
    /// Only this variant of each instance.
    #[arg(long)]
    variant: Option<usize>,
    /// Print this of every kernel in place of the list.
    #[arg(long)]
    show: Option<Show>,
    /// Assemble every kernel with this ptxas for the target it was made for, to read its registers and spills.
    #[arg(long, value_name = "PTXAS")]
    assemble: Option<PathBuf>,
}

/// What can be printed of a kernel.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Show {
    /// The tile program after all passes.
    Kernel,
    /// PTX.
    Ptx,
}

#[derive(Serialize)]
struct Inspected {
    manifest: Manifest,
    kernels: Vec<Held>,
}

/// A kernel of the artifact.
#[derive(Serialize)]
struct Held {
    instance: usize,
    variant: usize,
    /// Its symbol.
    kernel: String,
    target: String,
    /// Registers of a thread and bytes that it spills, where ptxas was given.
    registers: Option<u32>,
    spilled: Option<u32>,
    /// What `--show` asked for.
    text: Option<String>,
}

/// Runs the command.
pub fn inspect(args: &Args, out: &Out) -> Result<Done, Failure> {
    let text = std::fs::read_to_string(&args.path).map_err(|e| Failure::io(args.path.display(), e))?;
    let payload = args.path.with_extension("bin");
    let payload = std::fs::read(&payload).map_err(|e| Failure::io(payload.display(), e))?;
    let refused =
        |error: drawloom_lang::artifact::ArtifactError| Failure::given(format!("{}: {error}", args.path.display()));
    let manifest = open(&text, &payload).map_err(refused)?;
    if args.show.is_none() {
        header(&manifest, payload.len(), out);
    }
    let mut kernels = Vec::new();
    for (i, instance) in manifest.instances.iter().enumerate() {
        if args.instance.is_some_and(|only| only != i) {
            continue;
        }
        if args.show.is_none() {
            out.line(format!("\ninstance {i}: {}", binding(instance)));
        }
        for (v, variant) in instance.variants.iter().enumerate() {
            if args.variant.is_some_and(|only| only != v) {
                continue;
            }
            if args.show.is_none() {
                describe(v, variant, out);
            }
            let programs = match args.show {
                Some(Show::Kernel) => Some(tile_programs(&manifest, instance, variant)?),
                Some(Show::Ptx) | None => None,
            };
            for (n, launch) in variant.launches.iter().enumerate() {
                let module = &manifest.modules[launch.module];
                let code = module_code(&manifest, &payload, launch.module).map_err(refused)?;
                let ptx = (module.form == "ptx").then(|| String::from_utf8_lossy(&code).into_owned());
                let report = match (&args.assemble, &ptx) {
                    (Some(ptxas), Some(ptx)) => {
                        let report = assemble(ptx, &module.target, ptxas);
                        Some(report.map_err(|e| Failure::given(format!("{}: {e}", launch.kernel)))?)
                    }
                    _ => None,
                };
                let held = Held {
                    instance: i,
                    variant: v,
                    kernel: launch.kernel.clone(),
                    target: module.target.clone(),
                    registers: report.as_ref().map(|r| r.registers).or(variant.report.registers),
                    spilled: report.as_ref().map(|r| r.spill_store_bytes),
                    text: match args.show {
                        None => None,
                        Some(Show::Kernel) => programs.as_ref().and_then(|p| p.get(n)).cloned(),
                        Some(Show::Ptx) => ptx,
                    },
                };
                match &held.text {
                    Some(text) => out.print(text),
                    None => {
                        let registers = match (held.registers, held.spilled) {
                            (Some(n), Some(bytes)) => format!("{n} registers, {bytes} bytes spilled"),
                            (Some(n), None) => format!("{n} registers"),
                            (None, _) => "registers unknown: give --assemble".to_owned(),
                        };
                        out.line(format!(
                            "    {}: {} threads, {} bytes of shared memory, {registers}, {} bytes of {}",
                            launch.kernel,
                            launch.threads,
                            launch.shared,
                            code.len(),
                            module.form
                        ));
                    }
                }
                kernels.push(held);
            }
        }
    }
    if kernels.is_empty() {
        return Err(Failure::given(format!(
            "{} has {} instances, and no such variant",
            args.path.display(),
            manifest.instances.len()
        )));
    }
    Done::with(Inspected { manifest, kernels })
}

fn header(manifest: &Manifest, payload: usize, out: &Out) {
    let made = &manifest.provenance;
    out.line(format!("{}, ABI {}, key {}", manifest.name, manifest.abi, manifest.key));
    let ptxas = made.ptxas.as_deref().unwrap_or("none");
    out.line(format!(
        "made by drawloom {}, LLVM {}, ptxas {ptxas}",
        made.compiler, made.llvm
    ));
    let code: u64 = manifest.modules.iter().map(|module| module.code_length).sum();
    out.line(format!(
        "{} modules, {code} bytes of code in {payload} bytes of payload\n",
        manifest.modules.len()
    ));
    out.print(&manifest.spec);
}

/// `bf16, d = 64`.
fn binding(instance: &Instance) -> String {
    let types = instance.binding.types.iter().map(ToString::to_string);
    let sizes = instance.binding.sizes.iter().flatten().map(ToString::to_string);
    types.chain(sizes).collect::<Vec<_>>().join(", ")
}

fn describe(number: usize, variant: &Variant, out: &Out) {
    let report = &variant.report;
    let at: Vec<String> = report.at.iter().map(|(axis, n)| format!("{axis} = {n}")).collect();
    out.line(format!("  variant {number}: {} {}", variant.target, variant.name));
    out.line(format!(
        "    wants {} bytes of alignment and {} bytes of shared memory; {} bytes issued of at least {}, limited by {}, \
         at {}",
        variant.requires.align,
        variant.requires.shared,
        report.issued_bytes,
        report.bound_bytes,
        report.limit,
        at.join(", ")
    ));
}

/// The tile programs of a variant, made again.
fn tile_programs(manifest: &Manifest, instance: &Instance, variant: &Variant) -> Result<Vec<String>, Failure> {
    let spec = spec_of(manifest).map_err(|e| Failure::given(e.to_string()))?;
    let target = target(&variant.target)
        .ok_or_else(|| Failure::given(format!("this compiler has no target `{}`", variant.target)))?;
    let graph = drawloom_graph::from_spec(&spec, &instance.binding);
    let operator = recognise(&spec, &instance.binding, &graph).map_err(CompileError::from)?;
    let name = kernel_name(&spec, &instance.binding);
    let (_, found) = portfolios(&operator, &name, &[target]).remove(0);
    let members = found.map_err(CompileError::from)?.members;
    let member = members
        .iter()
        .find(|member| member.program.schedule.to_string() == variant.name);
    let member = member.ok_or_else(|| {
        Failure::given(format!(
            "this compiler has no schedule `{}` for `{}` any more: it was made by drawloom {}",
            variant.name, manifest.name, manifest.provenance.compiler
        ))
    })?;
    let kernels = member.program.kernels.iter();
    Ok(kernels.map(|step| drawloom_kernel::text::print(&step.kernel)).collect())
}
