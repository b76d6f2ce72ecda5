//! `drawloom run`: a spec on random input through every engine that needs no GPU, one line each.

use crate::engines::{Draw, Judged, judge_all, variants};
use crate::exit::Exit;
use crate::input::{Choice, pair, specs};
use crate::report::{Done, Failure, Out};
use drawloom_lang::spec::{AxisRole, Dtype};
use drawloom_tests::Scalar;
use serde::Serialize;
use std::path::PathBuf;

/// Arguments of `drawloom run`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  drawloom run specs/causal.attn --type bf16 --size d=64,h=2,i=100,j=130
  drawloom run specs/softcap.attn --size d=64 --scalar cap=30 --input outliers")]
pub struct Args {
    /// Spec file.
    path: PathBuf,
    #[command(flatten)]
    choice: Choice,
    /// Seed of the input and of the interleaving of warps.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What queries and keys look like: gaussian, rising, falling, falling_huge, outliers, one_hot, equal.
    #[arg(long, default_value = "gaussian")]
    input: String,
    /// Values of run-time scalars, as `cap=30`; the others are drawn.
    #[arg(long, value_delimiter = ',', value_name = "NAME=VALUE")]
    scalar: Vec<String>,
}

#[derive(Serialize)]
struct Ran {
    spec: String,
    #[serde(flatten)]
    draw: Draw,
    without: Vec<(String, String)>,
    engines: Vec<Judged>,
}

/// Run-time axes are this long unless given: the interpreter is exact, not fast.
const USUAL_LENGTH: u32 = 130;

/// Runs the command.
pub fn run(args: &Args, out: &Out) -> Result<Done, Failure> {
    let mut all = Vec::new();
    let mut wrong = Vec::new();
    for spec in specs(std::slice::from_ref(&args.path))? {
        let binding = args.choice.bindings(&spec)?.swap_remove(0);
        let mut choice = args.choice.clone();
        for axis in &spec.axes {
            if choice.get(&axis.name).is_none() && axis.role != AxisRole::Plain {
                choice.size.push((axis.name.clone(), USUAL_LENGTH));
            }
        }
        let sizes = choice.sizes(&spec, &binding);
        let draw = Draw {
            dtype: binding.types.first().copied().unwrap_or(Dtype::F32),
            sizes: sizes.into_iter().map(|(axis, n)| (axis, n as usize)).collect(),
            input: args.input.clone(),
            seed: args.seed,
        };
        let mut case = draw.case(&spec)?;
        for given in &args.scalar {
            let (name, value) = pair(given).map_err(Failure::given)?;
            let at = spec.scalars.iter().position(|scalar| scalar.name == name);
            let at = at.ok_or_else(|| Failure::given(format!("`{}` has no scalar `{name}`", spec.name)))?;
            let number = |_| Failure::given(format!("`{value}` is no value for `{name}`"));
            case.scalars[at] = match spec.scalars[at].ty {
                Dtype::I32 => Scalar::Int(
                    value
                        .parse()
                        .map_err(|e: std::num::ParseIntError| number(e.to_string()))?,
                ),
                Dtype::F16 | Dtype::Bf16 | Dtype::F32 => Scalar::Real(
                    value
                        .parse()
                        .map_err(|e: std::num::ParseFloatError| number(e.to_string()))?,
                ),
            };
        }
        let variants = variants(&spec, &binding, &choice)?;
        for (target, why) in &variants.without {
            out.line(format!("{}: none for {target}: {why}", spec.name));
        }
        let engines = judge_all(&case, &variants, args.seed)?;
        for judged in &engines {
            let name = judged.variant.as_deref().unwrap_or(&judged.engine);
            match &judged.fault {
                None => out.line(format!(
                    "{} [{name}]  error {:.1e}, naive {:.1e}, {:.0} % of what is allowed",
                    spec.name,
                    judged.error,
                    judged.naive,
                    100.0 * judged.used
                )),
                Some(fault) => wrong.push(format!("{} [{name}]: {fault}", spec.name)),
            }
        }
        all.push(Ran {
            spec: spec.name.clone(),
            draw,
            without: variants.without,
            engines,
        });
    }
    Ok(Done::with(all)?.unless(Exit::Differs, wrong))
}
