//! Attention kernels from declarative specs: what a program that uses them depends on.
//!
//! In: compiled operators (embedded by [`attn!`], or opened with [`Artifact::open`]) and the caller's memory. Out:
//! launches on a GPU, or results of the CPU form when the caller asks for it by name. No CUDA toolkit, no LLVM, no
//! Python; and no panic on a machine without a driver.
//!
//! The way of a launch: [`Tensor`] views → [`Arguments`] → `check` (shapes, strides, places, overlaps) → `select` (the
//! variant) → `plan` (grids, parameters) → `launch`, the only module that launches.

mod arguments;
mod artifact;
mod check;
mod cpu;
mod device;
mod element;
mod error;
mod launch;
mod module;
mod operator;
mod plan;
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
pub use module::{context, driver_is_present};
pub use operator::{Declared, MAX_AXES, MAX_TENSORS, Operator};
pub use tensor::{DeviceMemory, DeviceMemoryMut, Input, MAX_RANK, Output, Place, Tensor, TensorMut, View};

/// The pure part of a launch, for tests and tools: nothing here touches a GPU.
pub mod planning {
    pub use crate::check::{MAX_SIZE, Wanted, check, offered};
    pub use crate::plan::{MAX_GRID, Plan, PlannedKernel, Setting, WorkspaceView, plan_launch, workspace_for};
    pub use crate::select::{
        Choice, Env, Offered, Sizes, WORKSPACE_ALIGN, choose, evaluate, instance, workspace_bytes,
    };
}
