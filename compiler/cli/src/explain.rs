//! `drawloom explain`.

use crate::exit::Exit;
use crate::input::{Choice, pair, specs};
use crate::report::{Done, Failure, Out};
use drawloom_compiler::compile::{CompileError, kernel_name};
use drawloom_compiler::cost;
use drawloom_compiler::device::DEVICES;
use drawloom_compiler::explain::{Budget, Explanation, Roofs, TileWork, VariantReport, kernel_report, loser_reports};
use drawloom_compiler::lower::operator::recognise;
use drawloom_compiler::portfolio::{inputs, portfolios};
use drawloom_compiler::schedule::Fetch;
use drawloom_compiler::simulate::evaluate;
use drawloom_compiler::target::runs_on;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Arguments of `drawloom explain`.
#[derive(clap::Args)]
#[command(after_help = "\
Limits of a budget: bytes (issued, exact), dram_bytes (modelled), registers, shared (bytes of a CTA), time_us.
A budget file is TOML: limits for all specs, then tables of those for one.
  time_us = 900
  [streaming]
  bytes = 1500000000

Examples:
  drawloom explain specs/streaming.attn --type bf16 --size d=128,i=8192,j=8192 --svg roofline.svg
  drawloom explain specs/causal.attn --device \"RTX 4090\" --budget bytes=1500000000 --budget time_us=900
  drawloom explain specs/causal.attn --format json --budget budget.toml")]
pub struct Args {
    /// Spec file.
    path: PathBuf,
    #[command(flatten)]
    choice: Choice,
    /// Device, by a part of its name.
    #[arg(long, default_value = "H200")]
    device: String,
    /// Fail with exit code 4 where the chosen variant needs more: a file, or `NAME=LIMIT`, several times.
    #[arg(long, value_name = "FILE|NAME=LIMIT")]
    budget: Vec<String>,
    /// Draw the roofline to this file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// Runs the command.
pub fn explain(args: &Args, out: &Out) -> Result<Done, Failure> {
    let mut all = Vec::new();
    let mut over = Vec::new();
    let wanted = args.device.to_lowercase();
    let device = DEVICES
        .iter()
        .find(|d| d.name.to_lowercase().contains(&wanted))
        .ok_or_else(|| {
            let names: Vec<&str> = DEVICES.iter().map(|d| d.name).collect();
            Failure::given(format!("no device is called `{}`: {}", args.device, names.join(", ")))
        })?;
    for spec in specs(std::slice::from_ref(&args.path))? {
        let binding = &args.choice.bindings(&spec)?[0];
        let sizes = args.choice.sizes(&spec, binding);
        let graph = drawloom_graph::from_spec(&spec, binding);
        let operator = recognise(&spec, binding, &graph).map_err(CompileError::from)?;
        let mut targets = args.choice.target.clone();
        targets.retain(|target| runs_on(target, device.capability));
        let first = targets
            .first()
            .ok_or_else(|| Failure::given(format!("{} runs nothing that is asked for", device.name)))?;
        let first = first.name;
        let mut members = Vec::new();
        let mut losers = Vec::new();
        let mut without = Vec::new();
        for (target, found) in portfolios(&operator, &kernel_name(&spec, binding), &targets) {
            match found {
                Ok(found) => {
                    members.extend(found.members.into_iter().map(|member| (target, member)));
                    losers.extend(loser_reports(target, &found.losers));
                }
                Err(why) if target.name == first => return Err(CompileError::from(why).into()),
                Err(why) => without.push((target.name.to_owned(), why.to_string())),
            }
        }
        let wide: BTreeMap<String, u64> = sizes.iter().map(|(k, &v)| (k.clone(), v.into())).collect();
        let bound = cost::lower_bound(&spec, binding, &wide).map_err(Failure::bug)?;
        let mut variants = Vec::new();
        for (target, member) in &members {
            let schedule = &member.program.schedule;
            let mut kernels = Vec::new();
            for (n, step) in member.program.kernels.iter().enumerate() {
                let (grid, inputs) = inputs(&operator, &member.program, step, &sizes, device);
                let counts = cost::count(&step.kernel, grid, &inputs).map_err(|e| Failure::given(e.to_string()))?;
                let keys = u64::from(sizes[&spec.axes[operator.attend.key.index()].name]);
                let (d, e) = (operator.head_dim().unwrap_or(0), operator.value_dim().unwrap_or(0));
                let splits = evaluate(&member.program.splits, &sizes, 1, device).unwrap_or(1).max(1) as u64;
                let tile = (n == 0).then(|| TileWork {
                    flops: 2 * u64::from(schedule.block_m) * u64::from(schedule.block_n) * u64::from(d + e),
                    all: match schedule.fetch {
                        Fetch::Together => u64::from(grid) / splits,
                        Fetch::Producer => counts.total.tiles,
                    } * keys.div_ceil(schedule.block_n.into()),
                });
                kernels.push(kernel_report(&step.kernel, &counts, None, bound, tile, device));
            }
            variants.push(VariantReport {
                target: target.name.to_owned(),
                purpose: member.purpose.name().to_owned(),
                schedule: schedule.to_string(),
                chosen: false,
                kernels,
            });
        }
        let fastest = variants
            .iter()
            .enumerate()
            .filter_map(|(n, v)| v.ns().map(|ns| (n, ns)))
            .min_by(|a, b| a.1.total_cmp(&b.1));
        if let Some((n, _)) = fastest {
            variants[n].chosen = true;
        }
        let types = binding.types.iter().map(|t| format!("{t:?}").to_lowercase());
        let compiled = spec
            .axes
            .iter()
            .zip(&binding.sizes)
            .filter_map(|(a, n)| n.map(|n| format!("{} = {n}", a.name)));
        let explanation = Explanation {
            spec: spec.name.clone(),
            binding: types.chain(compiled).collect::<Vec<_>>().join(", "),
            targets: targets.iter().map(|target| target.name.to_owned()).collect(),
            without,
            device: device.name.to_owned(),
            roofs: Roofs::of(device),
            sizes: wide.into_iter().collect(),
            bound_bytes: bound,
            variants,
            losers,
        };
        out.print(explanation.text());
        if let Some(path) = &args.svg {
            std::fs::write(path, explanation.roofline_svg()).map_err(|e| Failure::io(path.display(), e))?;
            out.line(format!("wrote {}", path.display()));
        }
        if !args.budget.is_empty() {
            over.extend(budget(&args.budget, &spec.name)?.exceeded(&explanation));
        }
        all.push(explanation);
    }
    Ok(Done::with(all)?.unless(Exit::OverBudget, over))
}

/// The budget of a spec: what all arguments say, later ones before earlier ones, and a spec's own table before the rest
/// of its file.
fn budget(given: &[String], spec: &str) -> Result<Budget, Failure> {
    let mut limits = toml::Table::new();
    for given in given {
        let text = match pair(given) {
            Ok((name, limit)) => format!("{name} = {limit}"),
            Err(_) => std::fs::read_to_string(given).map_err(|e| Failure::io(given, e))?,
        };
        let wrong = |error: toml::de::Error| Failure::given(format!("the budget `{given}`: {}", error.message()));
        let mut table: toml::Table = toml::from_str(&text).map_err(wrong)?;
        let own = table.remove(spec);
        table.retain(|_, value| !value.is_table());
        limits.extend(table);
        if let Some(toml::Value::Table(own)) = own {
            limits.extend(own);
        }
    }
    let budget = toml::Value::Table(limits).try_into();
    budget.map_err(|error: toml::de::Error| Failure::given(format!("the budget: {}", error.message())))
}
