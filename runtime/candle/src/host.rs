//! Tensors in host memory: the CPU form.

use crate::{Inputs, Wanted, dense};
use candle_core::{CpuStorage, Error, Layout, Result, Storage};
use drawloom::half::{bf16, f16};
use drawloom::{AnyTensor, AnyTensorMut, Arguments, Dtype, Element, Input, Output, Scalar};

/// Runs the operator's CPU form.
pub(crate) fn run(
    operator: &drawloom::Operator,
    inputs: &Inputs<'_>,
    scalars: &[(&str, Scalar)],
    wanted: &[Wanted],
) -> Result<Vec<Storage>> {
    let spec = operator.spec();
    let views = inputs.views(input)?;
    let views = spec.inputs.iter().zip(&views);
    let named: Vec<(&str, &dyn Input)> = views.map(|(of, view)| (of.name.as_str(), &**view)).collect();
    let mut made: Vec<CpuStorage> = wanted.iter().map(zeros).collect();
    let mut outputs = Vec::with_capacity(made.len());
    for (storage, wanted) in made.iter_mut().zip(wanted) {
        outputs.push(output(storage, &wanted.shape)?);
    }
    let mut by_name: Vec<(&str, &mut dyn Output)> = Vec::with_capacity(outputs.len());
    for (of, view) in spec.outputs.iter().zip(&mut outputs) {
        by_name.push((&of.name, view.as_mut()));
    }
    let arguments = Arguments::named(operator, &named, scalars, &mut by_name).map_err(Error::wrap)?;
    operator.cpu(arguments).map_err(Error::wrap)?;
    drop(outputs);
    Ok(made.into_iter().map(Storage::Cpu).collect())
}

fn input<'i>(storage: &'i Storage, layout: &Layout) -> Result<Box<dyn Input + 'i>> {
    fn view<'i, T: Element>(memory: &'i [T], layout: &Layout) -> Result<Box<dyn Input + 'i>> {
        let memory = memory.get(layout.start_offset()..).unwrap_or_default();
        let view = AnyTensor::host(memory, layout.dims(), layout.stride()).map_err(Error::wrap)?;
        Ok(Box::new(view))
    }
    match storage {
        Storage::Cpu(CpuStorage::F16(memory)) => view(memory, layout),
        Storage::Cpu(CpuStorage::BF16(memory)) => view(memory, layout),
        Storage::Cpu(CpuStorage::F32(memory)) => view(memory, layout),
        Storage::Cpu(CpuStorage::I32(memory)) => view(memory, layout),
        Storage::Cpu(_) => candle_core::bail!("a type that no spec has"),
        Storage::Cuda(_) | Storage::Metal(_) => candle_core::bail!("inputs must lie on one device"),
    }
}

fn output<'o>(storage: &'o mut CpuStorage, shape: &[usize]) -> Result<Box<dyn Output + 'o>> {
    fn view<'o, T: Element>(memory: &'o mut [T], shape: &[usize]) -> Result<Box<dyn Output + 'o>> {
        let view = AnyTensorMut::host(memory, shape, &dense(shape)).map_err(Error::wrap)?;
        Ok(Box::new(view))
    }
    match storage {
        CpuStorage::F16(memory) => view(memory, shape),
        CpuStorage::BF16(memory) => view(memory, shape),
        CpuStorage::F32(memory) => view(memory, shape),
        CpuStorage::I32(memory) => view(memory, shape),
        _ => candle_core::bail!("a type that no spec has"),
    }
}

fn zeros(wanted: &Wanted) -> CpuStorage {
    let count = wanted.shape.iter().product();
    match wanted.dtype {
        Dtype::F16 => CpuStorage::F16(vec![f16::ZERO; count]),
        Dtype::Bf16 => CpuStorage::BF16(vec![bf16::ZERO; count]),
        Dtype::F32 => CpuStorage::F32(vec![0.0; count]),
        Dtype::I32 => CpuStorage::I32(vec![0; count]),
    }
}
