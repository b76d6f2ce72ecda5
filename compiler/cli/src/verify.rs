//! `drawloom verify`: a spec's kernels and its CPU form on random shapes, without a GPU.

use crate::engines::{Draw, KINDS, Variants, judge_all, variants};
use crate::exit::Exit;
use crate::input::{Choice, files, sources};
use crate::report::{Done, Failure, Out};
use drawloom_lang::spec::{AxisRole, AxisSize, Binding, Dtype, Spec};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

/// Arguments of `drawloom verify`.
#[derive(clap::Args)]
#[command(after_help = "\
Every case is a random choice of types, sizes and input. The kernel interpreter finds races, missing waits and accesses \
out of bounds; the bytes that it counts must be those that the cost model predicts; and a row may err at most twice as \
much as a naive implementation in the same types, plus two units in the last place. What is wrong is printed with the \
`drawloom run` that does it again.

Examples:
  drawloom verify specs/streaming.attn
  drawloom verify specs --cases 50 --seed 7 --type bf16 --size d=64")]
pub struct Args {
    /// Spec files, or folders of them.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    choice: Choice,
    /// Cases of each spec.
    #[arg(long, default_value_t = 10)]
    cases: u64,
    /// Seed of the first case; the next ones count on.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Serialize)]
struct Verified {
    file: String,
    spec: String,
    cases: u64,
    /// Runs of an engine on a case.
    runs: usize,
    /// The largest part of its allowance that a run used.
    used: f64,
    failures: Vec<Broken>,
}

#[derive(Serialize)]
struct Broken {
    engine: String,
    variant: Option<String>,
    fault: String,
    /// The command that does it again.
    repro: String,
}

/// Runs the command.
pub fn verify(args: &Args, out: &Out) -> Result<Done, Failure> {
    let mut all = Vec::new();
    let mut wrong = Vec::new();
    for (file, source) in files(&args.paths)?.iter().zip(sources(&args.paths)?) {
        for spec in &source.specs {
            let verified = verify_spec(args, spec, &file.display().to_string())?;
            out.line(format!(
                "{}: {} cases, {} runs, {} wrong, at most {:.0} % of what is allowed",
                spec.name,
                verified.cases,
                verified.runs,
                verified.failures.len(),
                100.0 * verified.used
            ));
            for failure in &verified.failures {
                let name = failure.variant.as_deref().unwrap_or(&failure.engine);
                wrong.push(format!(
                    "{} [{name}]: {}\nagain: {}",
                    spec.name, failure.fault, failure.repro
                ));
            }
            all.push(verified);
        }
    }
    Ok(Done::with(all)?.unless(Exit::Differs, wrong))
}

fn verify_spec(args: &Args, spec: &Spec, file: &str) -> Result<Verified, Failure> {
    let bindings = args.choice.bindings(spec)?;
    let mut kernels: HashMap<Binding, Variants> = HashMap::new();
    let mut verified = Verified {
        file: file.to_owned(),
        spec: spec.name.clone(),
        cases: args.cases,
        runs: 0,
        used: 0.0,
        failures: Vec::new(),
    };
    for seed in (args.seed..).take(usize::try_from(args.cases).unwrap_or(usize::MAX)) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let binding = &bindings[rng.usize(..bindings.len())];
        let draw = Draw {
            dtype: binding.types.first().copied().unwrap_or(Dtype::F32),
            sizes: random_sizes(spec, binding, &args.choice, &mut rng),
            input: KINDS[rng.usize(..KINDS.len())].0.to_owned(),
            seed,
        };
        let case = draw.case(spec)?;
        if !kernels.contains_key(binding) {
            kernels.insert(binding.clone(), variants(spec, binding, &args.choice)?);
        }
        for judged in judge_all(&case, &kernels[binding], seed)? {
            verified.runs += 1;
            verified.used = verified.used.max(judged.used);
            if let Some(fault) = judged.fault {
                verified.failures.push(Broken {
                    engine: judged.engine,
                    variant: judged.variant,
                    fault,
                    repro: format!("drawloom run {file} {}", draw.options()),
                });
            }
        }
    }
    Ok(verified)
}

/// Lengths that have broken kernels before: none, one, around tiles, and what divides nothing.
const LENGTHS: [usize; 12] = [0, 1, 2, 15, 16, 17, 63, 64, 65, 97, 128, 150];

/// A size for each axis: as given or compiled, else random.
fn random_sizes(spec: &Spec, binding: &Binding, choice: &Choice, rng: &mut fastrand::Rng) -> BTreeMap<String, usize> {
    let mut sizes: BTreeMap<String, usize> = BTreeMap::new();
    // An axis that others are grouped from is a multiple of each ratio that is drawn for them.
    let mut whole: BTreeMap<usize, usize> = BTreeMap::new();
    let mut ratios: BTreeMap<usize, usize> = BTreeMap::new();
    for (n, axis) in spec.axes.iter().enumerate() {
        if let AxisSize::Grouped { of, ratios: all } = &axis.size {
            let ratio = all.get(rng.usize(..all.len().max(1))).copied().unwrap_or(1).max(1) as usize;
            ratios.insert(n, ratio);
            let factor = whole.entry(of.index()).or_insert(1);
            *factor = lcm(*factor, ratio);
        }
    }
    for (n, (axis, compiled)) in spec.axes.iter().zip(&binding.sizes).enumerate() {
        let given = choice.get(&axis.name).map(|size| size as usize);
        let drawn = match (&axis.size, axis.role) {
            (_, AxisRole::Query(_) | AxisRole::Key) => LENGTHS[rng.usize(..LENGTHS.len())],
            (AxisSize::Grouped { of, .. }, _) => {
                let of = sizes.get(&spec.axes[of.index()].name).copied().unwrap_or(1);
                of / ratios.get(&n).copied().unwrap_or(1)
            }
            (AxisSize::Runtime | AxisSize::OneOf(_), _) => whole.get(&n).copied().unwrap_or(1) * rng.usize(1..=2),
        };
        let size = compiled.map(|size| size as usize).or(given).unwrap_or(drawn);
        sizes.insert(axis.name.clone(), size);
    }
    sizes
}

fn lcm(a: usize, b: usize) -> usize {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    a / x.max(1) * b
}
