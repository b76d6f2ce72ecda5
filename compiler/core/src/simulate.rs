//! Runs a program through the kernel interpreter: the launches that a runtime would make, on host tensors.

use crate::device::Device;
use crate::lower::Meaning;
use crate::program::Program;
use drawloom_kernel::interp::{self, Arg, Args, Counts, Elements, Fault, Tensor};
use drawloom_lang::manifest::{Formula, Leaf};
use std::collections::BTreeMap;

/// A call: tensors (outputs too, as the caller has poisoned them), sizes of all axes, scalars.
#[derive(Clone, Debug)]
pub struct Call {
    /// Inputs and outputs by name.
    pub tensors: BTreeMap<String, Tensor>,
    /// Sizes by axis name.
    pub sizes: BTreeMap<String, u32>,
    /// Run-time scalars by name.
    pub scalars: BTreeMap<String, f64>,
    /// Splits instead of the program's own choice.
    pub splits: Option<u32>,
    /// Draws the interleaving.
    pub seed: u64,
}

/// Why a simulation ends.
#[derive(Debug, thiserror::Error)]
pub enum SimulationError {
    /// A tensor, size or scalar of the program is not in the call.
    #[error("the call has no `{0}`")]
    Missing(String),
    /// A formula has no value at these sizes.
    #[error("{0} has no value at these sizes")]
    Formula(&'static str),
    /// The interpreter found a fault.
    #[error("{0}")]
    Fault(String),
}

/// The value of a formula for a call on a device.
pub fn evaluate(formula: &Formula, sizes: &BTreeMap<String, u32>, splits: u32, device: &Device) -> Option<i64> {
    formula.evaluate(&|leaf| match leaf {
        Leaf::Size(name) => sizes.get(name).map(|&n| i64::from(n)),
        Leaf::Splits => Some(i64::from(splits)),
        Leaf::Device(fact) => Some(device.fact(fact)),
    })
}

/// The number of splits that a call uses.
pub fn splits(program: &Program, call: &Call, device: &Device) -> Option<u32> {
    let chosen = call
        .splits
        .map(i64::from)
        .or_else(|| evaluate(&program.splits, &call.sizes, 1, device))?;
    u32::try_from(chosen.clamp(1, 4096)).ok()
}

/// Runs every kernel of the program in order; the call's outputs hold the results. Returns one count per kernel.
///
/// # Errors
/// [`SimulationError`]: an incomplete call, or a fault with the kernel's text around it.
pub fn simulate(program: &Program, call: &mut Call, device: &Device) -> Result<Vec<Counts>, SimulationError> {
    let splits = splits(program, call, device).ok_or(SimulationError::Formula("the number of splits"))?;
    let mut partials: BTreeMap<usize, Tensor> = BTreeMap::new();
    let mut counts = Vec::new();
    for step in &program.kernels {
        let grid = evaluate(&step.grid, &call.sizes, splits, device)
            .and_then(|n| u32::try_from(n).ok())
            .ok_or(SimulationError::Formula("the grid"))?;
        let mut args = Args::default();
        for (meaning, param) in step.synchronous.meaning.iter().zip(&step.kernel.params) {
            args.values.push(match meaning {
                Meaning::Tensor(name) => {
                    let tensor = call
                        .tensors
                        .get(name)
                        .ok_or_else(|| SimulationError::Missing(name.clone()))?;
                    Arg::Tensor(tensor.clone())
                }
                Meaning::Partial { comp, axes } => {
                    let tensor = partials
                        .entry(*comp)
                        .or_insert_with(|| workspace(axes, &call.sizes, splits));
                    Arg::Tensor(tensor.clone())
                }
                Meaning::Size(axis) => {
                    let n = call
                        .sizes
                        .get(axis)
                        .ok_or_else(|| SimulationError::Missing(axis.clone()))?;
                    Arg::I32(*n as i32)
                }
                Meaning::Splits => Arg::I32(splits as i32),
                Meaning::Number(formula) => {
                    let number = evaluate(formula, &call.sizes, splits, device);
                    Arg::I32(number.ok_or(SimulationError::Formula("a parameter"))? as i32)
                }
                Meaning::Scalar(name) => {
                    let x = *call
                        .scalars
                        .get(name)
                        .ok_or_else(|| SimulationError::Missing(name.clone()))?;
                    match &param.kind {
                        drawloom_kernel::ir::ParamKind::Scalar {
                            dtype: drawloom_kernel::ir::Dtype::F32,
                        } => Arg::F32(x as f32),
                        _ => Arg::I32(x as i32),
                    }
                }
            });
        }
        let options = interp::Options::seed(call.seed);
        let run = interp::run(&step.kernel, grid, &mut args, &options);
        counts.push(run.map_err(|fault: Fault| SimulationError::Fault(fault.render(&step.kernel)))?);
        for (meaning, value) in step.synchronous.meaning.iter().zip(args.values) {
            match (meaning, value) {
                (Meaning::Tensor(name), Arg::Tensor(tensor)) => {
                    call.tensors.insert(name.clone(), tensor);
                }
                (Meaning::Partial { comp, .. }, Arg::Tensor(tensor)) => {
                    partials.insert(*comp, tensor);
                }
                _ => {}
            }
        }
    }
    Ok(counts)
}

/// A partial-state tensor, poisoned.
fn workspace(axes: &[String], sizes: &BTreeMap<String, u32>, splits: u32) -> Tensor {
    let extents: Vec<usize> = axes
        .iter()
        .map(|name| match (name.as_str(), name.parse::<usize>()) {
            ("splits", _) => splits as usize,
            (_, Ok(n)) => n,
            (_, Err(_)) => sizes.get(name).map_or(0, |&n| n as usize),
        })
        .collect();
    Tensor::contiguous(Elements::F32(vec![f32::NAN; extents.iter().product()]), &extents)
}
