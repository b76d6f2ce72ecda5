//! Tile programs to PTX, through LLVM's NVPTX back end.
//!
//! In goes a verified [`Kernel`](drawloom_kernel::ir::Kernel) without streams, out comes PTX text ([`emit`]). This is
//! the only crate that knows LLVM; it knows neither specs nor costs. A fragment becomes the registers that one lane
//! holds of it, an operation a few instructions per register; there is one file per family of operations.
//!
//! What the instruction set of the kernel's target lacks, or what is not emitted, is refused with an [`EmitError`].
//!
//! [`ptxas`] runs NVIDIA's assembler on the result, where one is at hand, and reads what it says.

mod asm;
mod build;
mod control;
mod copy;
mod emitter;
mod error;
mod map;
mod math;
mod mbarrier;
mod memory;
mod mma;
mod module;
pub mod ptxas;
mod reduce;
pub mod sass;
mod shared;
mod slots;
mod sync;
#[cfg(test)]
mod tests;
mod tma;
mod wgmma;

pub use error::EmitError;
pub use module::{Emitted, Options, PtxVersion, emit};

/// The version of the LLVM in use: `22.1.8`.
pub fn llvm_version() -> String {
    let (major, minor, patch) = inkwell::support::get_llvm_version();
    format!("{major}.{minor}.{patch}")
}
