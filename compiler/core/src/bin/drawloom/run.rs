//! `drawloom run`: a spec on random input through the kernel interpreter, against the graph's interpreter.

use crate::Failure;
use crate::input::{Choice, specs};
use drawloom_compiler::compile::{CompileError, kernel_name};
use drawloom_compiler::device::H200;
use drawloom_compiler::lower::operator::recognise;
use drawloom_compiler::portfolio::portfolios;
use drawloom_compiler::simulate::{Call, simulate};
use drawloom_kernel::interp::{Elements, Tensor};
use drawloom_kernel::ir::Dtype;
use drawloom_lang::spec::{AxisId, Dtype as LangDtype, ElemType, Spec};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Arguments of `drawloom run`.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  drawloom run specs/causal.attn --type bf16 --size d=64,h=2,i=100,j=130")]
pub struct Args {
    /// Spec file.
    path: PathBuf,
    #[command(flatten)]
    choice: Choice,
    /// Seed of the input and of the interleaving of warps.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Value of every run-time scalar.
    #[arg(long, default_value_t = 8.0)]
    scalar: f64,
}

/// Run-time axes are this long unless given: the interpreter is exact, not fast.
const USUAL_LENGTH: u32 = 130;

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    for spec in specs(std::slice::from_ref(&args.path))? {
        let binding = args.choice.bindings(&spec)?.swap_remove(0);
        let mut choice = args.choice.clone();
        for axis in &spec.axes {
            if choice.get(&axis.name).is_none() && axis.role != drawloom_lang::spec::AxisRole::Plain {
                choice.size.push((axis.name.clone(), USUAL_LENGTH));
            }
        }
        let sizes = choice.sizes(&spec, &binding);
        let graph = drawloom_graph::from_spec(&spec, &binding);
        let operator = recognise(&spec, &binding, &graph).map_err(CompileError::from)?;
        let mut members = Vec::new();
        for (n, (target, found)) in portfolios(&operator, &kernel_name(&spec, &binding), &args.choice.target)
            .into_iter()
            .enumerate()
        {
            match found {
                Ok(found) => members.extend(found.members),
                Err(why) if n == 0 => return Err(CompileError::from(why).into()),
                Err(why) => println!("{}: none for {}: {why}", spec.name, target.name),
            }
        }
        let dtype = |ty: ElemType| operator.dtype(ty);
        let (tensors, oracle_inputs) = random_inputs(&spec, &dtype, &sizes, args.seed);
        let scalars: BTreeMap<String, f64> = spec.scalars.iter().map(|s| (s.name.clone(), args.scalar)).collect();
        let oracle = drawloom_graph::interp::run(
            &graph,
            &drawloom_graph::interp::Inputs {
                tensors: oracle_inputs,
                scalars: scalars.clone(),
                sizes: sizes.iter().map(|(k, &v)| (k.clone(), v as usize)).collect(),
            },
        )
        .map_err(|e| Failure::Bug(e.to_string()))?;
        for member in &members {
            let mut call = Call {
                tensors: tensors.clone(),
                sizes: sizes.clone(),
                scalars: scalars.clone(),
                splits: None,
                seed: args.seed,
            };
            simulate(&member.program, &mut call, &H200).map_err(|e| Failure::Bug(e.to_string()))?;
            print!("{} [{}]", spec.name, member.program.schedule);
            for output in &spec.outputs {
                let expected = &oracle[&output.name].data;
                let found = call.tensors[&output.name].data.to_f64();
                print!("  {}: {:.1e}", output.name, relative(&found, expected));
            }
            println!();
        }
    }
    Ok(())
}

/// The distance of two vectors over the length of the second; equal infinities count nothing.
fn relative(found: &[f64], expected: &[f64]) -> f64 {
    let square = |x: f64| x * x;
    let distance: f64 = found
        .iter()
        .zip(expected)
        .filter(|(a, b)| a != b)
        .map(|(a, b)| square(a - b))
        .sum();
    let length: f64 = expected.iter().filter(|x| x.is_finite()).map(|&x| square(x)).sum();
    (distance / length.max(f64::MIN_POSITIVE)).sqrt()
}

type Inputs = (
    BTreeMap<String, Tensor>,
    BTreeMap<String, drawloom_graph::interp::Tensor>,
);

/// Normal numbers; sorted tables are documents of equal length; outputs are poisoned.
fn random_inputs(spec: &Spec, dtype: &dyn Fn(ElemType) -> Dtype, sizes: &BTreeMap<String, u32>, seed: u64) -> Inputs {
    let shape = |axes: &[AxisId]| -> Vec<usize> {
        axes.iter()
            .map(|a| sizes[&spec.axes[a.index()].name] as usize)
            .collect()
    };
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut uniform = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    let (mut tensors, mut oracle) = (BTreeMap::new(), BTreeMap::new());
    for input in &spec.inputs {
        let shape = shape(&input.axes);
        let count: usize = shape.iter().product();
        let last = shape.last().copied().unwrap_or(1).max(1);
        let values: Vec<f64> = if input.ty == ElemType::Fixed(LangDtype::I32) {
            (0..count).map(|n| ((n % last) / last.div_ceil(4)) as f64).collect()
        } else {
            let mut normal = || (-2.0 * uniform().max(1e-300).ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
            (0..count).map(|_| normal()).collect()
        };
        if let Some(data) = Elements::from_f64(dtype(input.ty), &values) {
            let rounded = data.to_f64();
            tensors.insert(input.name.clone(), Tensor::contiguous(data, &shape));
            let axes = input.axes.iter().map(|a| spec.axes[a.index()].name.clone()).collect();
            oracle.insert(
                input.name.clone(),
                drawloom_graph::interp::Tensor {
                    axes,
                    shape,
                    data: rounded,
                },
            );
        }
    }
    for output in &spec.outputs {
        let shape = shape(&output.axes);
        let poison = vec![f64::NAN; shape.iter().product()];
        if let Some(data) = Elements::from_f64(dtype(output.ty), &poison) {
            tensors.insert(output.name.clone(), Tensor::contiguous(data, &shape));
        }
    }
    (tensors, oracle)
}
