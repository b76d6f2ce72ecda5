//! `drawloom check`.

use crate::Failure;
use crate::input::specs;
use std::path::PathBuf;

/// Arguments of `drawloom check`.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  drawloom check specs")]
pub struct Args {
    /// Spec files, or folders of them.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
}

/// Runs the command: every error of every file, or one line per spec with the key ranges of a query tile.
pub fn check(args: &Args) -> Result<(), Failure> {
    for spec in specs(&args.paths)? {
        let bindings = drawloom_lang::bindings(&spec);
        println!("{}: {} bindings", spec.name, bindings.len());
        let Some(binding) = bindings.first() else { continue };
        let graph = drawloom_graph::from_spec(&spec, binding);
        match drawloom_compiler::lower::operator::recognise(&spec, binding, &graph) {
            Ok(operator) => println!("{}", operator.ranges),
            Err(unsupported) => println!("  note: {unsupported}"),
        }
    }
    Ok(())
}
