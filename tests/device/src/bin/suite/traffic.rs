//! Ten launches, once each, for a profiler that counts bytes at DRAM.
//!
//! ```text
//! ncu --clock-control none --metrics dram__bytes_read.sum,dram__bytes_write.sum --csv --log-file traffic.csv \
//!     suite --traffic --date YYYY-MM-DD --out traffic.json
//! cargo xtask record traffic.json --ncu traffic.csv
//! ```

use crate::specs;
use drawloom::cudarc::driver::{CudaContext, CudaSlice, CudaStream, DevicePtr};
use drawloom::{Arguments, Artifact, Dtype, Input, Output, RawTensor, Scalar};
use drawloom_device::choice::{chosen, kernels};
use drawloom_lang::spec::AxisRole;
use serde::Serialize;
use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;

/// Specs and sizes, named before the profiler has run: each kind of mask and score, the three classes of head sizes, and a
/// decoding step.
const LAUNCHES: [(&str, &[(&str, usize)]); 10] = [
    ("dense", &[("b", 4), ("h", 16), ("i", 4096), ("j", 4096), ("d", 128)]),
    ("causal", &[("b", 2), ("h", 16), ("i", 8192), ("j", 8192), ("d", 128)]),
    ("causal", &[("b", 4), ("h", 32), ("i", 4096), ("j", 4096), ("d", 64)]),
    ("dense", &[("b", 2), ("h", 8), ("i", 8192), ("j", 8192), ("d", 256)]),
    (
        "streaming",
        &[("b", 2), ("h", 16), ("i", 8192), ("j", 8192), ("d", 128)],
    ),
    ("document", &[("b", 2), ("h", 16), ("i", 8192), ("j", 8192), ("d", 128)]),
    ("alibi", &[("b", 2), ("h", 16), ("i", 8192), ("j", 8192), ("d", 128)]),
    ("softcap", &[("b", 2), ("h", 16), ("i", 8192), ("j", 8192), ("d", 128)]),
    (
        "gqa_causal",
        &[("b", 2), ("h", 32), ("g", 8), ("i", 4096), ("j", 4096), ("d", 128)],
    ),
    (
        "gqa_causal",
        &[("b", 16), ("h", 32), ("g", 8), ("i", 1), ("j", 8192), ("d", 128)],
    ),
];

/// One launch of an operator.
#[derive(Serialize)]
pub struct Launch {
    spec: &'static str,
    dtype: Dtype,
    sizes: BTreeMap<&'static str, usize>,
    target: String,
    /// The schedule that the selector took.
    schedule: String,
    /// Its kernels, in the order of the profiler's rows.
    kernels: Vec<String>,
}

/// Launches everything once and says what was launched.
pub fn run(context: &Arc<CudaContext>) -> Result<Vec<Launch>, Box<dyn Error>> {
    let stream = context.new_stream()?;
    let mut launches = Vec::new();
    for (name, sizes) in LAUNCHES {
        let sizes: BTreeMap<&'static str, usize> = sizes.iter().copied().collect();
        launches.push(launch(context, &stream, name, sizes).map_err(|error| format!("{name}: {error}"))?);
    }
    println!("{:12}{:44}{:8}schedule", "spec", "sizes", "target");
    for Launch {
        spec,
        sizes,
        target,
        schedule,
        ..
    } in &launches
    {
        let sizes: Vec<String> = sizes.iter().map(|(axis, size)| format!("{axis}{size}")).collect();
        println!("{spec:12}{:44}{target:8}{schedule}", sizes.join(" "));
    }
    Ok(launches)
}

fn launch(
    context: &Arc<CudaContext>,
    stream: &Arc<CudaStream>,
    name: &'static str,
    sizes: BTreeMap<&'static str, usize>,
) -> Result<Launch, Box<dyn Error>> {
    let embedded = specs::find(name).ok_or("it is not embedded")?;
    let (manifest, payload) = embedded.artifact.ok_or_else(|| format!("run `{}`", embedded.command))?;
    let types = [Dtype::Bf16];
    // SAFETY: the kernels are part of this program.
    let loaded = unsafe { Artifact::from_bytes(manifest, payload)?.load(context, &types) }?;
    let operator = loaded.operator();
    let spec = operator.spec();
    let mut memory: Vec<CudaSlice<u8>> = Vec::new();
    let mut tensors = Vec::new();
    for tensor in (0..operator.tensors()).map(|n| operator.tensor(n)) {
        let axes = tensor.axes.iter().map(|axis| spec.axes[axis.index()].name.as_str());
        let shape = axes.map(|axis| sizes.get(axis).copied().ok_or("an axis has no size"));
        let shape: Vec<usize> = shape.collect::<Result<_, _>>()?;
        let dtype = operator.dtype(tensor.ty, &types);
        let keyed = tensor.axes.last().map(|axis| spec.axes[axis.index()].role) == Some(AxisRole::Key);
        let len: usize = shape.iter().product();
        // Traffic depends on no value but those of tables: eight documents of one length, as the compiler takes them.
        memory.push(if dtype == Dtype::I32 && keyed {
            let last = shape.last().copied().unwrap_or(1).max(1);
            let documents = (0..len).flat_map(|n| ((n % last / last.div_ceil(8)) as i32).to_ne_bytes());
            stream.clone_htod(&documents.collect::<Vec<u8>>())?
        } else {
            let width = if matches!(dtype, Dtype::F16 | Dtype::Bf16) {
                2
            } else {
                4
            };
            stream.alloc_zeros(len * width)?
        });
        let mut strides = vec![1; shape.len()];
        for axis in (1..shape.len()).rev() {
            strides[axis - 1] = strides[axis] * shape[axis];
        }
        let (address, _recorded) = memory[memory.len() - 1].device_ptr(stream);
        // SAFETY: the memory holds so many elements, lives until the stream has been waited for, and nothing else uses it.
        tensors.push(unsafe { RawTensor::new(dtype, address, len, &shape, &strides) }?);
    }
    let limits: Vec<(&str, usize)> = sizes.iter().map(|(axis, size)| (*axis, *size)).collect();
    let mut workspace = loaded.workspace(stream, &limits)?;
    let scalars: Vec<Scalar> = (spec.scalars.iter())
        .map(|scalar| match scalar.ty {
            Dtype::I32 => Scalar::I32(1),
            Dtype::F16 | Dtype::Bf16 | Dtype::F32 => Scalar::F32(1.0),
        })
        .collect();
    let mut outputs = tensors.split_off(spec.inputs.len());
    let given: Vec<&dyn Input> = tensors.iter().map(|input| input as &dyn Input).collect();
    let taken = outputs.iter_mut().map(|output| output as &mut dyn Output);
    let arguments = Arguments::positional(operator, &given, &scalars, taken)?;
    loaded.launch(stream, arguments, &mut workspace)?;
    stream.synchronize()?;
    let choice = chosen(&loaded, &types, &sizes)?;
    let launched = Launch {
        spec: name,
        dtype: types[0],
        target: choice.variant.target.clone(),
        schedule: choice.variant.name.clone(),
        kernels: kernels(choice.variant),
        sizes,
    };
    drop(memory);
    Ok(launched)
}
