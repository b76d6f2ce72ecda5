//! The kernel interpreter as an engine of the suite: a program of a case, every kernel of it interpreted.
//!
//! A run ends with an error where the interpreter finds a fault (a race, a missing wait, a read out of bounds) or where
//! the bytes that it counts are not those that the cost model predicts. It is a crate of its own because the compiler's
//! tests and the `drawloom` command both run it, and the suite itself knows no compiler.

use drawloom_compiler::cost::{self, Inputs, Table};
use drawloom_compiler::device::{Device, H200};
use drawloom_compiler::lower::Meaning;
use drawloom_compiler::program::{Program, Step};
use drawloom_compiler::schedule::{Fetch, Reference, Schedule};
use drawloom_compiler::simulate::{Call, evaluate, simulate, splits};
use drawloom_kernel::interp::{self, Elements};
use drawloom_kernel::ir::Dtype as KernelDtype;
use drawloom_lang::spec::Dtype;
use drawloom_tests::{Case, Engine, Outputs, Scalar, Tensor};

/// One program of a case on the kernel interpreter.
#[derive(Clone, Debug)]
pub struct Interpreted {
    /// Its kernels.
    pub program: Program,
    /// Splits instead of the program's own choice.
    pub splits: Option<u32>,
    /// Draws the interleaving of warps.
    pub seed: u64,
    /// The device whose numbers formulas ask for.
    pub device: &'static Device,
}

impl Engine for Interpreted {
    fn name(&self) -> &str {
        "kernel interpreter"
    }

    fn run(&self, case: &Case) -> Result<Outputs, String> {
        let mut call = call(case, self.splits, self.seed);
        let counted = simulate(&self.program, &mut call, self.device).map_err(|e| e.to_string())?;
        let parts = splits(&self.program, &call, self.device).ok_or("no number of splits")?;
        for (step, counted) in self.program.kernels.iter().zip(counted) {
            let grid = evaluate(&step.grid, &call.sizes, parts, self.device).ok_or("no grid")? as u32;
            let inputs = cost_inputs(case, step, &call, parts, self.device);
            let predicted = cost::count(&step.kernel, grid, &inputs)
                .map_err(|e| e.to_string())?
                .total;
            // Where a guard refuses rows, their tiles are read a second time.
            let again = self.program.schedule.reference == Reference::First
                && (predicted.read.iter().zip(&counted.read)).all(|(p, c)| p <= c && *c <= 2 * p);
            if (predicted.read != counted.read && !again) || predicted.written != counted.written {
                return Err(format!(
                    "{}: predicted {:?} read and {:?} written, counted {:?} and {:?}",
                    step.kernel.name, predicted.read, predicted.written, counted.read, counted.written
                ));
            }
            if predicted.mma_flops != counted.mma_flops && !again {
                return Err(format!(
                    "predicted {} operations, counted {}",
                    predicted.mma_flops, counted.mma_flops
                ));
            }
        }
        let mut outputs = Outputs::new();
        for n in 0..case.spec.outputs.len() {
            let mut out = case.blank_output(n);
            let data = call.tensors[&out.name].data.to_f64();
            out.values = out.offsets().into_iter().map(|at| data[at]).collect();
            outputs.push(out);
        }
        Ok(outputs)
    }
}

/// A case as the simulator is given it, outputs poisoned.
pub fn call(case: &Case, splits: Option<u32>, seed: u64) -> Call {
    let outputs = (0..case.spec.outputs.len()).map(|n| case.blank_output(n));
    let tensors = case
        .inputs
        .iter()
        .cloned()
        .chain(outputs)
        .map(|t| (t.name.clone(), in_memory(&t)))
        .collect();
    let scalars = case.spec.scalars.iter().zip(&case.scalars).map(|(decl, value)| {
        let value = match *value {
            Scalar::Real(x) => x.into(),
            Scalar::Int(x) => x.into(),
        };
        (decl.name.clone(), value)
    });
    let sizes = case
        .spec
        .axes
        .iter()
        .zip(&case.sizes)
        .map(|(axis, &n)| (axis.name.clone(), n as u32));
    Call {
        tensors,
        sizes: sizes.collect(),
        scalars: scalars.collect(),
        splits,
        seed,
    }
}

/// A tensor as it lies in memory, gaps (there are none) poisoned.
fn in_memory(tensor: &Tensor) -> interp::Tensor {
    let dtype = match tensor.dtype {
        Dtype::F16 => KernelDtype::F16,
        Dtype::Bf16 => KernelDtype::Bf16,
        Dtype::F32 => KernelDtype::F32,
        Dtype::I32 => KernelDtype::I32,
    };
    let mut memory = vec![f64::NAN; tensor.values.len()];
    for (at, value) in tensor.offsets().into_iter().zip(&tensor.values) {
        memory[at] = *value;
    }
    let data = Elements::from_f64(dtype, &memory).expect("invariant: a memory type");
    let strides = tensor.strides().into_iter().map(|s| s as i64).collect();
    interp::Tensor {
        data,
        offset: 0,
        strides,
    }
}

/// What the counts of a kernel depend on, with the case's own index tables.
fn cost_inputs(case: &Case, step: &Step, call: &Call, splits: u32, device: &Device) -> Inputs {
    let mut inputs = Inputs::default();
    for (meaning, param) in step.synchronous.meaning.iter().zip(&step.kernel.params) {
        let scalar = match meaning {
            Meaning::Size(axis) => i64::from(call.sizes[axis]),
            Meaning::Splits => splits.into(),
            Meaning::Number(formula) => evaluate(formula, &call.sizes, splits, device).expect("a number"),
            Meaning::Scalar(name) => call.scalars[name] as i64,
            Meaning::Tensor(name) => {
                if let Some(t) = case.inputs.iter().find(|t| t.name == *name && t.dtype == Dtype::I32) {
                    let extents = t.shape.iter().map(|&n| n as u32).collect();
                    let data = t.values.iter().map(|&x| x as i32).collect();
                    inputs.tables.insert(param.name.clone(), Table { extents, data });
                }
                continue;
            }
            Meaning::Partial { .. } => continue,
        };
        inputs.scalars.insert(param.name.clone(), scalar);
    }
    inputs
}

const TWO_SMS: Device = Device { sms: 2, ..H200 };

/// A device that runs the schedule. Where CTAs stay it is so small that each takes several query tiles.
pub fn device(schedule: &Schedule) -> &'static Device {
    match schedule.fetch {
        Fetch::Together => &H200,
        Fetch::Producer => &TWO_SMS,
    }
}
