//! `drawloom compile`.

use crate::assembly::Assembly;
use crate::input::{Choice, specs};
use crate::report::{Done, Failure, Out};
use clap::ValueEnum;
use drawloom_compiler::compile::{CompileError, Compiled, compile as compile_spec, kernel_name};
use drawloom_compiler::portfolio::portfolios;
use drawloom_compiler::program::Program;
use drawloom_lang::spec::Spec;
use rayon::prelude::*;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Arguments of `drawloom compile`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  drawloom compile specs --out artifacts
  drawloom compile specs/causal.attn --emit kernel --type bf16 --size d=128")]
pub struct Args {
    /// Spec files, or folders of them.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Where artifacts go.
    #[arg(long, default_value = "artifacts")]
    out: PathBuf,
    /// Print this level of the first variant for the first target instead of writing artifacts.
    #[arg(long)]
    emit: Option<Level>,
    #[command(flatten)]
    choice: Choice,
    #[command(flatten)]
    assembly: Assembly,
}

/// What can be printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Level {
    /// The spec in canonical form.
    Spec,
    /// The graph.
    Graph,
    /// Key ranges of a query tile.
    Ranges,
    /// The synchronous tile program.
    Kernel,
    /// The tile program after all passes.
    Passes,
    /// LLVM's intermediate representation, after its passes.
    Llvm,
    /// PTX.
    Ptx,
}

/// What became of a spec.
#[derive(Serialize)]
struct Written {
    spec: String,
    manifest: String,
    payload: String,
    kernels: usize,
    without: Vec<Without>,
}

/// A target without kernels of its own.
#[derive(Serialize)]
struct Without {
    target: String,
    reason: String,
    /// The number of bindings that it is true of.
    bindings: usize,
}

#[derive(Serialize)]
struct Emitted {
    spec: String,
    text: String,
}

/// Runs the command.
pub fn compile(args: &Args, out: &Out) -> Result<Done, Failure> {
    let specs = specs(&args.paths)?;
    if let Some(level) = args.emit {
        let mut emitted = Vec::new();
        for spec in &specs {
            let text = text(spec, level, &args.choice)?;
            out.print(&text);
            emitted.push(Emitted {
                spec: spec.name.clone(),
                text,
            });
        }
        return Done::with(emitted);
    }
    std::fs::create_dir_all(&args.out).map_err(|e| Failure::io(args.out.display(), e))?;
    let mut all = Vec::new();
    for (spec, compiled) in compile_all(&specs, &args.choice, &args.assembly)? {
        let (manifest, payload) = write(spec, &compiled, &args.out)?;
        out.line(format!("{}: {} kernels", spec.name, compiled.modules.len()));
        let without = reasons(&compiled);
        for Without {
            target,
            reason,
            bindings,
        } in &without
        {
            out.line(format!("  none for {target} in {bindings} bindings: {reason}"));
        }
        all.push(Written {
            spec: spec.name.clone(),
            manifest: manifest.display().to_string(),
            payload: payload.display().to_string(),
            kernels: compiled.modules.len(),
            without,
        });
    }
    Done::with(all)
}

/// Compiles specs, all at once.
pub fn compile_all<'s>(
    specs: &'s [Spec],
    choice: &Choice,
    assembly: &Assembly,
) -> Result<Vec<(&'s Spec, Compiled)>, Failure> {
    let compiled = specs.par_iter().map(|spec| {
        let options = assembly.options(choice, spec)?;
        Ok((spec, compile_spec(spec, &options)?))
    });
    compiled.collect()
}

/// The reasons for which targets have no kernels, with the number of bindings of each.
fn reasons(compiled: &Compiled) -> Vec<Without> {
    let mut reasons: Vec<Without> = Vec::new();
    for skipped in &compiled.skipped {
        let same = |r: &&mut Without| r.target == skipped.target && r.reason == skipped.reason;
        match reasons.iter_mut().find(same) {
            Some(reason) => reason.bindings += 1,
            None => reasons.push(Without {
                target: skipped.target.to_owned(),
                reason: skipped.reason.clone(),
                bindings: 1,
            }),
        }
    }
    reasons
}

/// Writes an artifact's two files, and returns where.
pub fn write(spec: &Spec, compiled: &Compiled, folder: &Path) -> Result<(PathBuf, PathBuf), Failure> {
    let stem = drawloom_lang::artifact::file_stem(&spec.name, &drawloom_lang::key(spec));
    let (manifest, payload) = (folder.join(format!("{stem}.json")), folder.join(format!("{stem}.bin")));
    std::fs::write(&manifest, &compiled.manifest).map_err(|e| Failure::io(manifest.display(), e))?;
    std::fs::write(&payload, &compiled.payload).map_err(|e| Failure::io(payload.display(), e))?;
    Ok((manifest, payload))
}

fn text(spec: &Spec, level: Level, choice: &Choice) -> Result<String, Failure> {
    let binding = &choice.bindings(spec)?[0];
    let graph = drawloom_graph::from_spec(spec, binding);
    let operator = drawloom_compiler::lower::operator::recognise(spec, binding, &graph);
    let operator = operator.map_err(CompileError::from)?;
    let program = || -> Result<Program, Failure> {
        // The first target alone: no other is searched for a print.
        let targets = &choice.target[..choice.target.len().min(1)];
        let (_, found) = portfolios(&operator, &kernel_name(spec, binding), targets).remove(0);
        let found = found.map_err(CompileError::from)?;
        let first = found.members.into_iter().next();
        first
            .map(|m| m.program)
            .ok_or_else(|| Failure::bug("a portfolio without members"))
    };
    Ok(match level {
        Level::Spec => drawloom_lang::canonical(spec),
        Level::Graph => graph.to_string(),
        Level::Ranges => format!("{}\n", operator.ranges),
        Level::Kernel => program()?
            .kernels
            .iter()
            .map(|s| drawloom_kernel::text::print(&s.synchronous.kernel))
            .collect(),
        Level::Passes => program()?
            .kernels
            .iter()
            .map(|s| drawloom_kernel::text::print(&s.kernel))
            .collect(),
        Level::Llvm | Level::Ptx => {
            let options = drawloom_nvptx::Options {
                keep_llvm_ir: level == Level::Llvm,
                ..drawloom_nvptx::Options::default()
            };
            let mut text = String::new();
            for step in &program()?.kernels {
                let emitted = drawloom_nvptx::emit(&step.kernel, &options).map_err(CompileError::from)?;
                text += &emitted.llvm_ir.unwrap_or(emitted.ptx);
            }
            text
        }
    })
}
