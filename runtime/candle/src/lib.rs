//! Drawloom's operators on candle tensors: tensors in, new tensors out, on the CPU and with feature `cuda` on a GPU.
//!
//! Strides are honoured as they are: a transposed or broadcast tensor is not copied. What cannot be taken (a last axis
//! that is not contiguous, another type, another device) is an error that names the argument.
//!
//! Results carry no gradient: an operator has none yet, and inputs that candle tracks are refused instead of being cut
//! off from it silently.
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use drawloom_candle::Operator;
//!
//! // What `attn!` makes of a spec, as `module::OPERATOR`.
//! static CAUSAL: drawloom::Embedded = drawloom::Embedded::new(
//!     "causal",
//!     "attention causal {
//!         type T in [f16, bf16];
//!         axis b, h, i: query(end), j: key, d = 16;
//!         input q: T[b, h, i, d], k: T[b, h, j, d], v: T[b, h, j, d];
//!         attend o over j in (k, v) { score = dot(q, k) * rsqrt(len(d)); mask = causal; norm = softmax; }
//!         output o: T[b, h, i, d];
//!     }",
//!     None,
//!     "drawloom prepare",
//! );
//!
//! # fn main() -> candle_core::Result<()> {
//! let x = Tensor::randn(0f32, 1.0, (2, 10, 4, 16), &Device::Cpu)?.to_dtype(DType::BF16)?;
//! let x = x.transpose(1, 2)?;
//! let outputs = Operator::new(&CAUSAL).apply(&[("q", &x), ("k", &x), ("v", &x)], &[])?;
//! assert_eq!(outputs[0].dims(), [2, 4, 10, 16]);
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "cuda")]
mod device;
mod host;

use candle_core::op::BackpropOp;
use candle_core::{Error, Layout, Result, Storage, StorageRef, Tensor};
use drawloom::{Artifact, Dtype, Embedded, Input, Scalar};

/// An operator, for tensors of candle.
pub struct Operator {
    of: Of,
    /// Kernels by context and types.
    #[cfg(feature = "cuda")]
    loaded: device::Cache,
}

enum Of {
    Embedded(&'static Embedded),
    Artifact(Artifact),
}

/// Inputs in the operator's order, as candle gives access to them.
struct Inputs<'t> {
    storages: Vec<StorageRef<'t>>,
    layouts: Vec<&'t Layout>,
}

/// An output to be made.
struct Wanted {
    dtype: Dtype,
    shape: Vec<usize>,
}

impl Operator {
    /// The operator that `attn!` embeds: the `OPERATOR` of its module.
    pub fn new(operator: &'static Embedded) -> Operator {
        Operator {
            of: Of::Embedded(operator),
            #[cfg(feature = "cuda")]
            loaded: device::Cache::default(),
        }
    }

    /// The operator of an artifact that was compiled offline.
    ///
    /// # Safety
    /// As for [`Artifact::load`]: its kernels run with the process's rights on the device.
    pub unsafe fn from_artifact(artifact: Artifact) -> Operator {
        Operator {
            of: Of::Artifact(artifact),
            #[cfg(feature = "cuda")]
            loaded: device::Cache::default(),
        }
    }

    fn operator(&self) -> Result<&drawloom::Operator> {
        match &self.of {
            Of::Embedded(embedded) => embedded.operator().map_err(Error::wrap),
            Of::Artifact(artifact) => Ok(artifact.operator()),
        }
    }

    /// Computes every output of the spec, in its order, as dense tensors. Inputs and scalars are given by name.
    ///
    /// # Errors
    /// Whatever is wrong with the arguments, by the names of the spec; [`Error::Msg`] for inputs that candle tracks.
    pub fn apply(&self, inputs: &[(&str, &Tensor)], scalars: &[(&str, Scalar)]) -> Result<Vec<Tensor>> {
        let operator = self.operator()?;
        let spec = operator.spec();
        let mut given = Vec::with_capacity(spec.inputs.len());
        for declared in &spec.inputs {
            let found = inputs.iter().find(|(name, _)| *name == declared.name);
            let missing = || {
                Error::wrap(drawloom::Error::MissingArgument {
                    argument: declared.name.clone(),
                })
            };
            let (name, tensor) = *found.ok_or_else(missing)?;
            if tensor.track_op() {
                return Err(Error::Msg(format!(
                    "argument `{name}` is tracked for its gradient, and `{}` has none: detach it",
                    spec.name
                )));
            }
            given.push(tensor);
        }
        if let Some((name, _)) = inputs
            .iter()
            .find(|(name, _)| !spec.inputs.iter().any(|known| known.name == *name))
        {
            let known: Vec<&str> = spec.inputs.iter().map(|known| known.name.as_str()).collect();
            return Err(Error::wrap(drawloom::Error::UnknownArgument {
                kind: "input",
                argument: (*name).to_owned(),
                known: known.join(", "),
            }));
        }
        let wanted = wanted(operator, &given)?;
        let (storages, layouts) = given.iter().map(|tensor| tensor.storage_and_layout()).unzip();
        let inputs = Inputs { storages, layouts };
        let made = match inputs.storages.first().map(|storage| &**storage) {
            #[cfg(feature = "cuda")]
            Some(Storage::Cuda(storage)) => self.run_on_device(&storage.device, &inputs, scalars, &wanted)?,
            _ => host::run(operator, &inputs, scalars, &wanted)?,
        };
        let tensor = |(storage, wanted): (Storage, &Wanted)| {
            Tensor::from_storage(storage, wanted.shape.as_slice(), BackpropOp::none(), false)
        };
        Ok(made.into_iter().zip(&wanted).map(tensor).collect())
    }
}

/// Types and shapes of the outputs: sizes come from the first input that has the axis.
fn wanted(operator: &drawloom::Operator, given: &[&Tensor]) -> Result<Vec<Wanted>> {
    let spec = operator.spec();
    let dtype = |tensor: usize| {
        given
            .get(tensor)
            .and_then(|tensor| known(tensor.dtype()))
            .unwrap_or(Dtype::F32)
    };
    for (declared, tensor) in spec.inputs.iter().zip(given) {
        if known(tensor.dtype()).is_none() {
            let dtype = tensor.dtype().as_str();
            return Err(Error::Msg(format!(
                "argument `{}` holds {dtype}, which no spec has",
                declared.name
            )));
        }
        if tensor.rank() != declared.axes.len() {
            return Err(Error::wrap(drawloom::Error::Rank {
                argument: declared.name.clone(),
                expected: declared.axes.len(),
                given: tensor.rank(),
            }));
        }
    }
    let types = operator.infer_types(dtype).map_err(Error::wrap)?;
    let size = |axis| {
        let inputs = spec.inputs.iter().zip(given);
        let mut sizes = inputs.filter_map(|(declared, tensor)| {
            let place = declared.axes.iter().position(|of| *of == axis)?;
            tensor.dims().get(place).copied()
        });
        sizes.next().unwrap_or(0)
    };
    let outputs = spec.outputs.iter().map(|declared| Wanted {
        dtype: operator.dtype(declared.ty, &types),
        shape: declared.axes.iter().map(|axis| size(*axis)).collect(),
    });
    Ok(outputs.collect())
}

/// The language's name for a type of candle.
fn known(dtype: candle_core::DType) -> Option<Dtype> {
    match dtype {
        candle_core::DType::F16 => Some(Dtype::F16),
        candle_core::DType::BF16 => Some(Dtype::Bf16),
        candle_core::DType::F32 => Some(Dtype::F32),
        candle_core::DType::I32 => Some(Dtype::I32),
        _ => None,
    }
}

/// Strides of a dense tensor.
fn dense(shape: &[usize]) -> Vec<usize> {
    Layout::contiguous(shape).stride().to_vec()
}

impl<'t> Inputs<'t> {
    /// The inputs as launchers take them, each made by `view`.
    fn views<'i>(
        &'i self,
        view: impl Fn(&'i Storage, &'t Layout) -> Result<Box<dyn Input + 'i>>,
    ) -> Result<Vec<Box<dyn Input + 'i>>> {
        let both = self.storages.iter().zip(&self.layouts);
        both.map(|(storage, layout)| view(storage, layout)).collect()
    }
}
