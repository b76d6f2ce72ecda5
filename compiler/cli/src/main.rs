//! The `drawloom` command: one module per subcommand, [`report`] for how they speak, [`exit`] for how they end.

mod assembly;
mod bench;
mod check;
mod compile;
mod completions;
mod doctor;
mod engines;
mod exit;
mod explain;
mod explain_error;
mod fmt;
mod input;
mod inspect;
mod mask;
mod prepare;
mod report;
mod run;
mod verify;

use clap::{Parser, Subcommand};
use exit::Exit;
use report::{Done, Failure, Format, Out};
use std::process::ExitCode;

/// Compiles declarative attention operators, ahead of time, into GPU kernels.
///
/// Wherever a spec file is wanted, `-` reads standard input.
#[derive(Parser)]
#[command(name = "drawloom", version, after_help = Exit::table(), max_term_width = 100)]
struct Cli {
    /// How to print.
    #[arg(long, global = true, default_value = "human")]
    format: Format,
    #[command(subcommand)]
    command: Command,
}

/// Declares the subcommands once: name, module and what `--help` says of it.
macro_rules! commands {
    ($($(#[doc = $doc:literal])+ $variant:ident => $module:ident;)+) => {
        #[derive(Subcommand)]
        enum Command {
            $($(#[doc = $doc])+ $variant($module::Args),)+
        }

        impl Command {
            /// As it is typed.
            fn name(&self) -> String {
                let module = match self {
                    $(Command::$variant(_) => stringify!($module),)+
                };
                module.replace('_', "-")
            }

            fn run(&self, out: &Out) -> Result<Done, Failure> {
                match self {
                    $(Command::$variant(args) => $module::$module(args, out),)+
                }
            }
        }
    };
}

commands! {
    /// Parse and check specs, and find the key ranges of their masks.
    Check => check;
    /// Compile specs to artifacts, or print what a level makes of them.
    Compile => compile;
    /// What a kernel moves and what limits it, for given sizes.
    Explain => explain;
    /// Draw a mask, in the terminal, as SVG or as PNG, or compare two.
    Mask => mask;
    /// Run a spec on random input through the kernel interpreter and the CPU form, and judge the results.
    Run => run;
    /// The same on many random shapes: races, bytes and errors, without a GPU.
    Verify => verify;
    /// Time a spec's kernels on the GPU of this machine.
    Bench => bench;
    /// Compile the artifacts of every `attn!` in a crate into its `.drawloom` folder.
    Prepare => prepare;
    /// What an artifact holds.
    Inspect => inspect;
    /// Format spec files.
    Fmt => fmt;
    /// The page of an error code.
    ExplainError => explain_error;
    /// What this machine has, and what each is needed for.
    Doctor => doctor;
    /// A completion script for a shell.
    Completions => completions;
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // `--help` and `--version` come here too, and are no errors.
        Err(error) => {
            let exit = if error.use_stderr() { Exit::Given } else { Exit::Done };
            // Where the terminal is gone there is nobody to tell.
            let _ = error.print();
            return exit.into();
        }
    };
    let out = Out::new(cli.format);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| cli.command.run(&out)));
    let outcome = outcome.unwrap_or_else(|_| Err(Failure::bug("bug: a panic, with its place above")));
    out.finish(&cli.command.name(), outcome).into()
}
