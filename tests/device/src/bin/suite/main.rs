//! Runs the suite on a GPU: every named case through every variant of its instance, through the selector, and through
//! the selector with misaligned memory, on outputs of NaN between canaries; and the contract of a launch.
//!
//! ```text
//! suite --date YYYY-MM-DD --out correctness.json
//! suite --cpu
//! suite --traffic --date YYYY-MM-DD --out traffic.json     (see `traffic`)
//! ```
//!
//! The binary carries the kernels of all published specs and needs a driver and nothing else.

mod gpu;
mod specs;
mod traffic;

use clap::Parser;
use drawloom::Error;
use drawloom_device::host::Host;
use drawloom_device::memory::Layout;
use drawloom_tests::criterion::judge;
use drawloom_tests::naive::{Exact, SameDtype};
use drawloom_tests::{Case, Engine, Outputs, suite};
use gpu::{Gpu, REPEATS};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
struct Cli {
    /// Run the CPU form instead.
    #[arg(long)]
    cpu: bool,
    /// Launch ten kernels once each instead, for a profiler that counts bytes at DRAM.
    #[arg(long, conflicts_with = "cpu")]
    traffic: bool,
    /// The day, `2026-01-31`.
    #[arg(long, default_value = "undated")]
    date: String,
    /// What the machine is called in the record; the driver's name for the GPU by default.
    #[arg(long)]
    machine: Option<String>,
    /// What was built.
    #[arg(long, default_value = option_env!("DRAWLOOM_COMMIT").unwrap_or("unknown"))]
    commit: String,
    /// Where the record goes; nowhere by default.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// What is filed.
#[derive(Serialize)]
struct Record<R> {
    date: String,
    machine: String,
    commit: String,
    suite: &'static str,
    rows: Vec<R>,
}

/// A run that passed.
#[derive(Serialize)]
struct Row {
    spec: String,
    case: String,
    variant: String,
    /// Largest error of a row.
    error: f64,
    /// The naive implementation's error in the row that used most of its allowance.
    naive: f64,
    /// How much it used; up to 1 passes.
    used: f64,
}

/// What has been run so far.
#[derive(Default)]
struct Tally {
    rows: Vec<Row>,
    failed: usize,
    /// Checks of the launch contract.
    checks: usize,
}

impl Tally {
    fn fail(&mut self, what: &str, why: &str) {
        self.failed += 1;
        println!("FAILED {what}: {why}");
    }

    fn check(&mut self, what: &str, result: Result<(), String>) {
        match result {
            Ok(()) => self.checks += 1,
            Err(why) => self.fail(what, &why),
        }
    }

    fn judge(&mut self, truth: &Truth<'_>, variant: &str, found: Result<Outputs, String>) {
        let case = truth.case;
        match found.and_then(|found| judge(&found, &truth.exact, &truth.naive)) {
            Ok(verdict) => self.rows.push(Row {
                spec: case.spec.name.clone(),
                case: case.name.clone(),
                variant: variant.to_owned(),
                error: verdict.error,
                naive: verdict.naive,
                used: verdict.used,
            }),
            Err(why) => self.fail(&format!("{}, {}, {variant}", case.spec.name, case.name), &why),
        }
    }
}

/// A case and what is right.
struct Truth<'c> {
    case: &'c Case,
    exact: Outputs,
    naive: Outputs,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<bool, String> {
    if cli.traffic {
        let gpu = Gpu::open()?;
        let launches = traffic::run(gpu.context()).map_err(|e| e.to_string())?;
        write(cli, gpu.name()?, "traffic", launches)?;
        return Ok(true);
    }
    let mut tally = Tally::default();
    let cases = suite::cases()?;
    let mut machine = "the CPU form".to_owned();
    let mut gpu = match cli.cpu {
        true => None,
        false => {
            let gpu = Gpu::open()?;
            machine = gpu.name()?;
            Some(gpu)
        }
    };
    for case in &cases {
        let truth = Truth {
            case,
            exact: Exact.run(case)?,
            naive: SameDtype.run(case)?,
        };
        match &mut gpu {
            None => tally.judge(&truth, Host.name(), Host.run(case)),
            Some(gpu) => on_gpu(gpu, &truth, &mut tally),
        }
    }
    if let Some(gpu) = &mut gpu {
        let case = cases.iter().find(|case| case.sizes.iter().all(|size| *size > 0));
        let case = case.ok_or("no case has elements")?;
        tally.check("a stream that is being captured is refused", gpu.refuses_capture(case));
        for case in &cases {
            let what = format!("{}: two streams at once give the same bits", case.name);
            tally.check(&what, gpu.two_streams(case));
        }
        for case in one_of_each_spec(&cases) {
            let what = format!("{}: the same bits {MANY} times", case.name);
            let found = gpu.run(case, None, Layout::DENSE, MANY);
            tally.check(&what, found.map(|_| ()).map_err(|e| e.to_string()));
        }
        let mut graphs = Gpu::open_for_graphs()?;
        for case in one_of_each_spec(&cases) {
            let what = format!("{}: replays of a graph give the bits of a launch", case.name);
            tally.check(&what, graphs.replays(case));
        }
        for case in cases.iter().filter(|case| case.outputs_are_empty()) {
            let what = format!("{}: nothing is launched", case.name);
            tally.check(&what, gpu.launches_nothing(case));
        }
    }
    print_tables(&tally.rows);
    println!("{} passed, {} failed", tally.rows.len() + tally.checks, tally.failed);
    write(cli, machine, "correctness", tally.rows)?;
    Ok(tally.failed == 0)
}

/// Launches that give the same bits, of a case of each spec.
const MANY: usize = 100;

/// The first case of each spec that has elements.
fn one_of_each_spec(cases: &[Case]) -> impl Iterator<Item = &Case> {
    let mut seen = BTreeSet::new();
    let full = cases.iter().filter(|case| case.sizes.iter().all(|size| *size > 0));
    full.filter(move |case| seen.insert(&case.spec.name))
}

/// Writes a record, if it is to go anywhere.
fn write<R: Serialize>(cli: &Cli, machine: String, suite: &'static str, rows: Vec<R>) -> Result<(), String> {
    let Some(path) = &cli.out else { return Ok(()) };
    let record = Record {
        date: cli.date.clone(),
        machine: cli.machine.clone().unwrap_or(machine),
        commit: cli.commit.clone(),
        suite,
        rows,
    };
    let text = serde_json::to_string_pretty(&record).map_err(|e| e.to_string())?;
    std::fs::write(path, text + "\n").map_err(|e| format!("{}: {e}", path.display()))
}

/// Whether a case has nothing to compute.
trait Empty {
    /// Every output has no element.
    fn outputs_are_empty(&self) -> bool;
}

impl Empty for Case {
    fn outputs_are_empty(&self) -> bool {
        (0..self.spec.outputs.len()).all(|n| self.blank_output(n).values.is_empty())
    }
}

fn on_gpu(gpu: &mut Gpu, truth: &Truth<'_>, tally: &mut Tally) {
    let case = truth.case;
    for (name, layout) in [
        ("selector", Layout::DENSE),
        ("selector, base off by an element", Layout { shift: 1, gap: 0 }),
        ("selector, odd strides", Layout { shift: 0, gap: 1 }),
        ("selector, gaps of 16 elements", Layout { shift: 0, gap: 16 }),
    ] {
        let found = gpu.run(case, None, layout, REPEATS).map_err(|e| e.to_string());
        tally.judge(truth, name, found);
    }
    let names = match gpu.variants(case) {
        Ok(names) => names,
        Err(why) => return tally.fail(&case.name, &why),
    };
    let mut feasible = 0;
    for (n, name) in names.iter().enumerate() {
        let name = format!("{n}: {name}");
        match gpu.run(case, Some(n), Layout::DENSE, REPEATS) {
            // Another instruction set, more shared memory than there is, or sizes that it is not for.
            Err(gpu::Failure::Runtime(Error::NoVariant { .. } | Error::NoCode { .. })) => continue,
            found => tally.judge(truth, &name, found.map_err(|e| e.to_string())),
        }
        feasible += 1;
    }
    if feasible == 0 {
        tally.fail(&format!("{}, {}", case.spec.name, case.name), "no variant is feasible");
    }
}

fn print_tables(rows: &[Row]) {
    let mut specs: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        specs.entry(&row.spec).or_default().push(row);
    }
    for (spec, rows) in specs {
        println!("\n{spec}\n{:>6}  {:>9}  {:>9}  case, variant", "used", "error", "naive");
        for row in rows {
            let Row {
                case,
                variant,
                error,
                naive,
                used,
                ..
            } = row;
            println!("{used:>6.3}  {error:>9.2e}  {naive:>9.2e}  {case}, {variant}");
        }
    }
    let worst = rows.iter().map(|row| row.used).fold(0.0, f64::max);
    println!("\nworst part of an allowance: {worst:.3}");
}
