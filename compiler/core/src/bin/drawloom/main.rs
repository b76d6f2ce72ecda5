//! The `drawloom` command: check, compile, explain, run and prepare specs.

mod check;
mod compile;
mod explain;
mod input;
mod prepare;
mod run;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Compiles declarative attention operators, ahead of time, into GPU kernels.
///
/// Exit codes: 0 done, 1 an error in what was given, 2 a bug in Drawloom, 3 a check that failed (`prepare --check`,
/// `run`).
#[derive(Parser)]
#[command(name = "drawloom", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Parse and check specs, and find the key ranges of their masks; no LLVM involved.
    Check(check::Args),
    /// Compile specs to artifacts, or print what a level makes of them.
    Compile(compile::Args),
    /// What a kernel moves and what limits it, for given sizes.
    Explain(explain::Args),
    /// Run a spec on random input through the kernel interpreter and check it against the oracle.
    Run(run::Args),
    /// Compile the artifacts of every `attn!` in a crate into its `.drawloom` folder.
    Prepare(prepare::Args),
}

/// Why a command ends unhappily.
pub enum Failure {
    /// What was given is wrong: the message has been written for a person.
    Given(String),
    /// Drawloom is wrong.
    Bug(String),
    /// A check found a difference.
    Differs(String),
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure::Given(error.to_string())
    }
}

impl From<drawloom_compiler::compile::CompileError> for Failure {
    fn from(error: drawloom_compiler::compile::CompileError) -> Failure {
        use drawloom_compiler::compile::CompileError;
        match error {
            CompileError::Unsupported(_) | CompileError::Search(_) => Failure::Given(error.to_string()),
            _ => Failure::Bug(error.to_string()),
        }
    }
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Check(args) => check::check(&args),
        Command::Compile(args) => compile::compile(&args),
        Command::Explain(args) => explain::explain(&args),
        Command::Run(args) => run::run(&args),
        Command::Prepare(args) => prepare::prepare(&args),
    };
    let (message, code) = match outcome {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Given(message)) => (message, 1),
        Err(Failure::Bug(message)) => (message, 2),
        Err(Failure::Differs(message)) => (message, 3),
    };
    eprintln!("{}", message.trim_end());
    ExitCode::from(code)
}
