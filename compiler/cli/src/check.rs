//! `drawloom check`.

use crate::input::sources;
use crate::report::{Done, Failure, Out};
use drawloom_compiler::lower::operator::recognise;
use serde::Serialize;
use std::path::PathBuf;

/// Arguments of `drawloom check`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  drawloom check specs
  drawloom check - --format json < specs/causal.attn")]
pub struct Args {
    /// Spec files, or folders of them.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
}

#[derive(Serialize)]
struct Checked {
    file: String,
    spec: String,
    /// The key of its artifact.
    key: String,
    /// Combinations of types and sizes that it lists.
    bindings: usize,
    /// Key ranges of a query tile.
    ranges: Option<String>,
    /// Why it has no kernel form.
    unsupported: Option<String>,
}

/// Runs the command: every error of every file, or one line per spec with the key ranges of a query tile.
pub fn check(args: &Args, out: &Out) -> Result<Done, Failure> {
    let mut all = Vec::new();
    for source in sources(&args.paths)? {
        for spec in &source.specs {
            let bindings = drawloom_lang::bindings(spec);
            out.line(format!("{}: {} bindings", spec.name, bindings.len()));
            let mut checked = Checked {
                file: source.name.clone(),
                spec: spec.name.clone(),
                key: drawloom_lang::key(spec),
                bindings: bindings.len(),
                ranges: None,
                unsupported: None,
            };
            if let Some(binding) = bindings.first() {
                let graph = drawloom_graph::from_spec(spec, binding);
                match recognise(spec, binding, &graph) {
                    Ok(operator) => {
                        out.line(operator.ranges.to_string());
                        checked.ranges = Some(operator.ranges.to_string());
                    }
                    Err(unsupported) => {
                        out.line(format!("  note: {unsupported}"));
                        checked.unsupported = Some(unsupported.to_string());
                    }
                }
            }
            all.push(checked);
        }
    }
    Done::with(all)
}
