//! Attention kernels from declarative specs: what a program that uses them depends on.
//!
//! In: compiled operators (embedded by [`attn!`], or opened with [`Artifact::open`]) and the caller's memory. Out:
//! launches on a GPU, or results of the CPU form when the caller asks for it by name. No CUDA toolkit, no LLVM, no
//! Python; and no panic on a machine without a driver.
//!
//! The way of a launch: [`Tensor`] views → [`Arguments`] → `check` (shapes, strides, places, overlaps) → `select` (the
//! variant) → `plan` (grids, parameters) → `launch`, the only module that launches.
//!
//! An artifact without the macro, its arguments by name:
//!
//! ```no_run
//! use drawloom::half::f16;
//! use drawloom::{Arguments, Artifact, Dtype, Tensor, TensorMut};
//!
//! let artifact = Artifact::open("kernels/causal-0123456789abcdef.json")?;
//! let context = drawloom::context(0)?;
//! let stream = context.default_stream();
//! // SAFETY: the file comes from `drawloom compile`.
//! let causal = unsafe { artifact.load(&context, &[Dtype::F16]) }?;
//! let mut workspace = causal.workspace(&stream, &[("b", 1), ("h", 8), ("i", 512), ("j", 512), ("d", 64)])?;
//! let q = stream.alloc_zeros::<f16>(8 * 512 * 64)?;
//! let mut o = stream.alloc_zeros::<f16>(8 * 512 * 64)?;
//! let (q, mut o) = (Tensor::new(&q, [1, 8, 512, 64])?, TensorMut::new(&mut o, [1, 8, 512, 64])?);
//! let mut outputs: [(&str, &mut dyn drawloom::Output); 1] = [("o", &mut o)];
//! let arguments =
//!     Arguments::named(causal.operator(), &[("q", &q), ("k", &q), ("v", &q)], &[], &mut outputs)?;
//! causal.launch(&stream, arguments, &mut workspace)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod arguments;
mod artifact;
mod check;
mod cpu;
mod device;
mod element;
mod encode;
mod error;
mod launch;
mod map;
mod memory;
mod module;
mod operator;
mod plan;
mod raw;
mod select;
mod tensor;

pub use arguments::{Arguments, MAX_SCALARS};
pub use artifact::{Artifact, Embedded};
pub use cudarc;
pub use device::Device;
pub use drawloom_lang::artifact::ArtifactError;
pub use drawloom_lang::manifest;
pub use drawloom_lang::spec::Dtype;
pub use drawloom_macros::attn;
pub use element::{Element, HostMut, HostRef, Scalar};
pub use error::Error;
pub use half;
pub use launch::{Loaded, Workspace};
pub use memory::{DeviceMemory, DeviceMemoryMut};
pub use module::{context, driver_is_present};
pub use operator::{Declared, MAX_AXES, MAX_TENSORS, Operator};
pub use raw::{AnyTensor, AnyTensorMut, RawTensor};
pub use tensor::{Input, MAX_RANK, Output, Place, Tensor, TensorMut, View};

/// The pure part of a launch, for tests and tools: nothing here touches a GPU.
pub mod planning {
    pub use crate::check::{MAX_SIZE, Wanted, check, offered};
    pub use crate::map::{MAP_ALIGN, TensorMap, Unmappable, Window, tensor_map};
    pub use crate::plan::{MAX_GRID, Plan, PlannedKernel, Setting, WorkspaceView, plan_launch, workspace_for};
    pub use crate::select::{
        Call, Choice, Env, Offered, Sizes, WORKSPACE_ALIGN, choose, evaluate, instance, workspace_bytes,
    };
}
