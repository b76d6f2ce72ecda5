//! The CPU form as an engine of the suite.

use crate::memory::scalars;
use drawloom::cudarc::driver::{CudaStream, SyncOnDrop};
use drawloom::half::{bf16, f16};
use drawloom::{Arguments, Dtype, Embedded, HostMut, HostRef, Input, MAX_RANK, Output, Place, View};
use drawloom_tests::{Case, Engine, Outputs, Tensor};

/// The CPU form of the spec of each case.
pub struct Host;

impl Engine for Host {
    fn name(&self) -> &str {
        "the CPU form"
    }

    fn run(&self, case: &Case) -> Result<Outputs, String> {
        // An embedded operator lives as long as the program that embeds it; a test leaks as many as it has cases.
        let text = String::leak(drawloom_lang::canonical(&case.spec));
        let embedded = Embedded::new(String::leak(case.spec.name.clone()), text, None, "");
        let mut outputs: Outputs = (0..case.spec.outputs.len()).map(|n| case.blank_output(n)).collect();
        let inputs: Vec<Argument> = case.inputs.iter().map(Argument::new).collect();
        let mut results: Vec<Argument> = outputs.iter().map(Argument::new).collect();
        let operator = embedded.operator().map_err(|e| e.to_string())?;
        let given: Vec<&dyn Input> = inputs.iter().map(|input| input as &dyn Input).collect();
        let taken = results.iter_mut().map(|result| result as &mut dyn Output);
        let arguments = Arguments::positional(operator, &given, &scalars(case), taken).map_err(|e| e.to_string())?;
        embedded.cpu(arguments).map_err(|e| e.to_string())?;
        for (output, result) in outputs.iter_mut().zip(&results) {
            let memory = result.cells.values();
            output.values = output.offsets().into_iter().map(|at| memory[at]).collect();
        }
        Ok(outputs)
    }
}

/// Host memory of any element type.
enum Cells {
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
    F32(Vec<f32>),
    I32(Vec<i32>),
}

impl Cells {
    fn new(tensor: &Tensor) -> Cells {
        let mut memory = vec![f64::NAN; tensor.values.len()];
        for (at, value) in tensor.offsets().into_iter().zip(&tensor.values) {
            memory[at] = *value;
        }
        match tensor.dtype {
            Dtype::F16 => Cells::F16(memory.into_iter().map(f16::from_f64).collect()),
            Dtype::Bf16 => Cells::Bf16(memory.into_iter().map(bf16::from_f64).collect()),
            Dtype::F32 => Cells::F32(memory.into_iter().map(|x| x as f32).collect()),
            Dtype::I32 => Cells::I32(memory.into_iter().map(|x| x as i32).collect()),
        }
    }

    fn values(&self) -> Vec<f64> {
        match self {
            Cells::F16(cells) => cells.iter().map(|x| x.to_f64()).collect(),
            Cells::Bf16(cells) => cells.iter().map(|x| x.to_f64()).collect(),
            Cells::F32(cells) => cells.iter().map(|x| f64::from(*x)).collect(),
            Cells::I32(cells) => cells.iter().map(|x| f64::from(*x)).collect(),
        }
    }
}

/// A host tensor of any rank and element type.
struct Argument {
    cells: Cells,
    view: View,
}

impl Argument {
    fn new(tensor: &Tensor) -> Argument {
        let cells = Cells::new(tensor);
        let (address, len) = match &cells {
            Cells::F16(cells) => (cells.as_ptr() as u64, cells.len()),
            Cells::Bf16(cells) => (cells.as_ptr() as u64, cells.len()),
            Cells::F32(cells) => (cells.as_ptr() as u64, cells.len()),
            Cells::I32(cells) => (cells.as_ptr() as u64, cells.len()),
        };
        let fixed = |from: &[usize]| std::array::from_fn(|n| from.get(n).copied().unwrap_or(0));
        let view = View {
            dtype: tensor.dtype,
            rank: tensor.shape.len().min(MAX_RANK),
            shape: fixed(&tensor.shape),
            strides: fixed(&tensor.strides()),
            address,
            len,
            place: Place::Host,
        };
        Argument { cells, view }
    }
}

// SAFETY: the view is of the cells, which do not move while the argument is borrowed.
unsafe impl Input for Argument {
    fn view(&self) -> View {
        self.view
    }
    fn device<'s>(&'s self, _: &'s CudaStream) -> Option<(u64, Option<SyncOnDrop<'s>>)> {
        None
    }
    fn host(&self) -> Option<HostRef<'_>> {
        Some(match &self.cells {
            Cells::F16(cells) => HostRef::F16(cells),
            Cells::Bf16(cells) => HostRef::Bf16(cells),
            Cells::F32(cells) => HostRef::F32(cells),
            Cells::I32(cells) => HostRef::I32(cells),
        })
    }
}

// SAFETY: as above, and the argument is borrowed exclusively.
unsafe impl Output for Argument {
    fn view(&self) -> View {
        self.view
    }
    fn device<'s>(&'s mut self, _: &'s CudaStream) -> Option<(u64, Option<SyncOnDrop<'s>>)> {
        None
    }
    fn host(&mut self) -> Option<HostMut<'_>> {
        Some(match &mut self.cells {
            Cells::F16(cells) => HostMut::F16(cells),
            Cells::Bf16(cells) => HostMut::Bf16(cells),
            Cells::F32(cells) => HostMut::F32(cells),
            Cells::I32(cells) => HostMut::I32(cells),
        })
    }
}
