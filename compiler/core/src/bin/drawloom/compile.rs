//! `drawloom compile`.

use crate::Failure;
use crate::input::{Choice, specs};
use clap::ValueEnum;
use drawloom_compiler::compile::{CompileError, Compiled, Options, compile as compile_spec, kernel_name};
use drawloom_compiler::portfolio::portfolios;
use drawloom_compiler::program::Program;
use drawloom_lang::spec::Spec;
use std::path::PathBuf;

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
    /// Assembler to check every kernel with, and to read its registers from.
    #[arg(long)]
    ptxas: Option<PathBuf>,
    /// Instruction sets that kernels must assemble for, without spills: each for those that run its target.
    #[arg(long, value_delimiter = ',', default_value = "sm_80,sm_90a")]
    assemble_for: Vec<String>,
    /// Disassembler to read the code of kernels for Hopper with: that softmax still overlaps products, for one.
    #[arg(long)]
    nvdisasm: Option<PathBuf>,
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

/// Runs the command.
pub fn compile(args: &Args) -> Result<(), Failure> {
    let specs = specs(&args.paths)?;
    if let Some(level) = args.emit {
        for spec in &specs {
            print!("{}", text(spec, level, &args.choice)?);
        }
        return Ok(());
    }
    std::fs::create_dir_all(&args.out)?;
    for spec in &specs {
        let options = Options {
            targets: args.choice.target.clone(),
            bindings: Some(args.choice.bindings(spec)?),
            ptxas: args.ptxas.clone(),
            assemble_for: args.assemble_for.clone(),
            nvdisasm: args.nvdisasm.clone(),
        };
        let compiled = compile_spec(spec, &options)?;
        write(spec, &compiled, &args.out)?;
        println!("{}: {} kernels", spec.name, compiled.modules.len());
        for (target, reason, bindings) in reasons(&compiled) {
            println!("  none for {target} in {bindings} bindings: {reason}");
        }
    }
    Ok(())
}

/// The reasons for which targets have no kernels, with the number of bindings of each.
fn reasons(compiled: &Compiled) -> Vec<(&str, &str, usize)> {
    let mut reasons: Vec<(&str, &str, usize)> = Vec::new();
    for skipped in &compiled.skipped {
        match reasons
            .iter_mut()
            .find(|(target, reason, _)| *target == skipped.target && *reason == skipped.reason)
        {
            Some((.., bindings)) => *bindings += 1,
            None => reasons.push((skipped.target, &skipped.reason, 1)),
        }
    }
    reasons
}

/// Writes an artifact's two files.
pub fn write(spec: &Spec, compiled: &Compiled, folder: &std::path::Path) -> Result<(), Failure> {
    let stem = drawloom_lang::artifact::file_stem(&spec.name, &drawloom_lang::key(spec));
    std::fs::write(folder.join(format!("{stem}.json")), &compiled.manifest)?;
    std::fs::write(folder.join(format!("{stem}.bin")), &compiled.payload)?;
    Ok(())
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
            .ok_or_else(|| Failure::Bug("a portfolio without members".to_owned()))
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
