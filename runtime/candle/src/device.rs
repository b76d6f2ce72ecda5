//! Tensors in device memory: the kernels, on candle's own stream.

use crate::{Inputs, Of, Operator, Wanted, dense};
use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::CudaStorageSlice;
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{CudaDevice, CudaStorage, Error, Layout, Result, Storage};
use drawloom::half::{bf16, f16};
use drawloom::{AnyTensor, AnyTensorMut, Arguments, Dtype, Element, Input, Loaded, Output, Scalar};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Loaded kernels by context (the address of its `CUcontext`) and types.
pub(crate) type Cache = Mutex<HashMap<(usize, Vec<Dtype>), Arc<Loaded>>>;

impl Operator {
    /// Launches the operator's kernels on the device's stream. Scratch memory comes from the stream's pool at each call.
    pub(crate) fn run_on_device(
        &self,
        device: &CudaDevice,
        inputs: &Inputs<'_>,
        scalars: &[(&str, Scalar)],
        wanted: &[Wanted],
    ) -> Result<Vec<Storage>> {
        let operator = self.operator()?;
        let spec = operator.spec();
        let stream = device.cuda_stream();
        let views = inputs.views(input)?;
        let dtypes: Vec<Dtype> = views.iter().map(|view| view.view().dtype).collect();
        let outputs = wanted.iter().map(|wanted| wanted.dtype);
        let dtypes: Vec<Dtype> = dtypes.into_iter().chain(outputs).collect();
        let types = operator.infer_types(|tensor| dtypes[tensor]).map_err(Error::wrap)?;
        let loaded = self.load(device, types)?;
        let largest: Vec<(&str, usize)> = spec
            .axes
            .iter()
            .enumerate()
            .filter_map(|(number, axis)| {
                let declared = spec.inputs.iter().zip(&inputs.layouts);
                let mut sizes = declared.filter_map(|(input, layout)| {
                    let place = input.axes.iter().position(|of| of.index() == number)?;
                    layout.dims().get(place).copied()
                });
                Some((axis.name.as_str(), sizes.next()?))
            })
            .collect();
        let mut workspace = loaded.workspace(&stream, &largest).map_err(Error::wrap)?;
        let named: Vec<(&str, &dyn Input)> = spec
            .inputs
            .iter()
            .zip(&views)
            .map(|(of, view)| (of.name.as_str(), &**view))
            .collect();
        let mut made = wanted
            .iter()
            .map(|wanted| zeros(device, wanted))
            .collect::<Result<Vec<_>>>()?;
        let mut outputs = Vec::with_capacity(made.len());
        for (storage, wanted) in made.iter_mut().zip(wanted) {
            outputs.push(output(storage, &wanted.shape)?);
        }
        let mut by_name: Vec<(&str, &mut dyn Output)> = Vec::with_capacity(outputs.len());
        for (of, view) in spec.outputs.iter().zip(&mut outputs) {
            by_name.push((&of.name, view.as_mut()));
        }
        let arguments = Arguments::named(operator, &named, scalars, &mut by_name).map_err(Error::wrap)?;
        loaded.launch(&stream, arguments, &mut workspace).map_err(Error::wrap)?;
        drop(by_name);
        drop(outputs);
        Ok(made.into_iter().map(Storage::Cuda).collect())
    }

    fn load(&self, device: &CudaDevice, types: Vec<Dtype>) -> Result<Arc<Loaded>> {
        let context = device.cuda_stream().context().clone();
        let key = (context.cu_ctx() as usize, types);
        let mut cache = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = cache.get(&key) {
            return Ok(loaded.clone());
        }
        let loaded = match &self.of {
            Of::Embedded(embedded) => embedded.load(&context, &key.1),
            // SAFETY: who made the operator of this artifact promised that it comes from the compiler.
            Of::Artifact(artifact) => unsafe { artifact.load(&context, &key.1) },
        };
        let loaded = Arc::new(loaded.map_err(Error::wrap)?);
        cache.insert(key, loaded.clone());
        Ok(loaded)
    }
}

fn input<'i>(storage: &'i Storage, layout: &Layout) -> Result<Box<dyn Input + 'i>> {
    fn view<'i, T: Element>(memory: &'i CudaSlice<T>, layout: &Layout) -> Result<Box<dyn Input + 'i>> {
        let memory = memory.slice(layout.start_offset()..);
        let view = AnyTensor::device(memory, layout.dims(), layout.stride()).map_err(Error::wrap)?;
        Ok(Box::new(view))
    }
    let Storage::Cuda(storage) = storage else {
        candle_core::bail!("inputs must lie on one device");
    };
    match &storage.slice {
        CudaStorageSlice::F16(memory) => view(memory, layout),
        CudaStorageSlice::BF16(memory) => view(memory, layout),
        CudaStorageSlice::F32(memory) => view(memory, layout),
        CudaStorageSlice::I32(memory) => view(memory, layout),
        _ => candle_core::bail!("{:?}, a type that no spec has", storage.dtype()),
    }
}

fn output<'o>(storage: &'o mut CudaStorage, shape: &[usize]) -> Result<Box<dyn Output + 'o>> {
    fn view<'o, T: Element>(memory: &'o mut CudaSlice<T>, shape: &[usize]) -> Result<Box<dyn Output + 'o>> {
        let view = AnyTensorMut::device(memory, shape, &dense(shape)).map_err(Error::wrap)?;
        Ok(Box::new(view))
    }
    match &mut storage.slice {
        CudaStorageSlice::F16(memory) => view(memory, shape),
        CudaStorageSlice::BF16(memory) => view(memory, shape),
        CudaStorageSlice::F32(memory) => view(memory, shape),
        CudaStorageSlice::I32(memory) => view(memory, shape),
        _ => candle_core::bail!("a type that no spec has"),
    }
}

fn zeros(device: &CudaDevice, wanted: &Wanted) -> Result<CudaStorage> {
    let count = wanted.shape.iter().product();
    Ok(match wanted.dtype {
        Dtype::F16 => CudaStorage::wrap_cuda_slice(device.alloc_zeros::<f16>(count)?, device.clone()),
        Dtype::Bf16 => CudaStorage::wrap_cuda_slice(device.alloc_zeros::<bf16>(count)?, device.clone()),
        Dtype::F32 => CudaStorage::wrap_cuda_slice(device.alloc_zeros::<f32>(count)?, device.clone()),
        Dtype::I32 => CudaStorage::wrap_cuda_slice(device.alloc_zeros::<i32>(count)?, device.clone()),
    })
}
