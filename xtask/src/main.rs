//! `cargo xtask <task>`: everything that a person or CI does in a checkout.
//!
//! It builds without LLVM, since `setup` is what installs LLVM; the compiler is run as a process. One module per task;
//! `process` and `steps` are what they share.

mod bench;
mod bundle;
mod compiler;
mod demo;
mod downstream;
mod gallery;
mod prepare;
mod process;
mod record;
mod setup;
mod steps;
mod table;
mod test;
mod tidy;

use clap::{Parser, Subcommand};
use prepare::Kernels;
use std::path::PathBuf;
use std::process::ExitCode;

/// Development tasks of Drawloom.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install LLVM 22 if it is missing, and fetch ptxas and nvdisasm into `target/tools`.
    Setup {
        /// Print what would be installed, and install nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// From a fresh clone to a checked result: set up, compile the specs, run real input.
    Demo,
    /// Everything that CI runs.
    Test {
        /// Compile and assemble every type and size of every spec, for every instruction set: not only those that stand for
        /// the others.
        #[arg(long)]
        all: bool,
        /// Run only the steps whose names contain one of these words.
        only: Vec<String>,
    },
    /// The house rules that a machine can check.
    Tidy,
    /// Compile the artifacts of every crate here that uses `attn!`.
    Prepare,
    /// Build the benchmark binary, and run it where there is a GPU.
    Bench {
        /// What the binary is given.
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Collect in `target/bundle` what a GPU machine needs to time the kernels beside other implementations.
    Bundle,
    /// Write `specs/README.md` and its pictures from the specs, the compiler and the records.
    Gallery {
        /// Write nothing; complain if the page is old. Costs of unchanged specs are not made again: this needs no LLVM.
        #[arg(long)]
        check: bool,
    },
    /// File a benchmark's result under `tests/record`, or write the README's table from the records.
    Record {
        /// What the benchmark binary wrote.
        result: Option<PathBuf>,
        /// Times of other implementations from the same run: JSON rows with `name`, `shape` and `ms`.
        #[arg(long, requires = "result")]
        peers: Option<PathBuf>,
        /// The profiler's CSV of the launches of `suite --traffic`.
        #[arg(long, requires = "result")]
        ncu: Option<PathBuf>,
        /// Write the README's table from the newest record of each suite.
        #[arg(long)]
        readme: bool,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Setup { dry_run } => setup::setup(dry_run),
        Task::Demo => demo::demo(),
        Task::Test { all, only } => test::test(all, &only),
        Task::Tidy => tidy::tidy(),
        Task::Prepare => prepare::prepare(&Kernels::all()),
        Task::Bench { args } => bench::bench(&args),
        Task::Bundle => bundle::bundle(),
        Task::Gallery { check: false } => gallery::gallery(),
        Task::Gallery { check: true } => gallery::check().and_then(tidy::report),
        Task::Record {
            result,
            peers,
            ncu,
            readme,
        } => record::record(result.as_deref(), peers.as_deref(), ncu.as_deref(), readme),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
