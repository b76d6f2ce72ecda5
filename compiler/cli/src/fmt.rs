//! `drawloom fmt`.

use crate::exit::Exit;
use crate::input::{files, read};
use crate::report::{Done, Failure, Out};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Arguments of `drawloom fmt`.
#[derive(clap::Args)]
#[command(after_help = "\
Comments, documentation and single empty lines stay; standard input is formatted to standard output.

Examples:
  drawloom fmt specs
  drawloom fmt specs --check
  drawloom fmt - < specs/causal.attn")]
pub struct Args {
    /// Spec files, or folders of them.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Write nothing; fail with exit code 3 if a file is not formatted.
    #[arg(long)]
    check: bool,
}

#[derive(Serialize)]
struct Formatted {
    file: String,
    /// Whether it was not formatted.
    changed: bool,
    /// The text, of standard input only.
    text: Option<String>,
}

/// Runs the command.
pub fn fmt(args: &Args, out: &Out) -> Result<Done, Failure> {
    let mut all = Vec::new();
    let mut errors = Vec::new();
    let mut different = Vec::new();
    for file in files(&args.paths)? {
        let (name, text) = read(&file)?;
        let formatted = match drawloom_lang::format(&name, &text) {
            Ok(formatted) => formatted,
            Err(found) => {
                errors.push(found);
                continue;
            }
        };
        let changed = formatted != text;
        let piped = file == Path::new("-");
        if changed && args.check {
            different.push(format!("{name} is not formatted"));
        } else if changed && !piped {
            std::fs::write(&file, &formatted).map_err(|e| Failure::io(&name, e))?;
            out.line(format!("formatted {name}"));
        }
        if piped && !args.check {
            out.print(&formatted);
        }
        all.push(Formatted {
            file: name,
            changed,
            text: piped.then_some(formatted),
        });
    }
    match Failure::of_files(errors) {
        Some(failure) => Err(failure),
        None => Ok(Done::with(all)?.unless(Exit::Differs, different)),
    }
}
