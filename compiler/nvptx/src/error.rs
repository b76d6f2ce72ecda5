//! Why a kernel is not emitted.

use drawloom_kernel::ir::Val;

/// Why a kernel is not emitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EmitError {
    /// The target has no such operation, or none is emitted for it.
    #[error("{op} is not emitted for target {target}")]
    Unsupported {
        /// The operation, in words.
        op: String,
        /// The kernel's target.
        target: String,
    },
    /// A target that this crate does not know.
    #[error("target `{target}` is unknown; known are sm_80 and sm_90a")]
    Target {
        /// The kernel's target.
        target: String,
    },
    /// A shape that the operation has no instruction for.
    #[error("{what} is {given}, but must be {required}")]
    Shape {
        /// What has that size, in words.
        what: String,
        /// Its size.
        given: u32,
        /// What would do, in words.
        required: String,
    },
    /// A value is used where it is not defined. The kernel verifier refuses such kernels.
    #[error("{val} is used where it is not defined")]
    Undefined {
        /// The value.
        val: Val,
    },
    /// A type, an index or a count does not fit its use. The kernel verifier refuses such kernels.
    #[error("malformed kernel: {what}")]
    Malformed {
        /// What is wrong.
        what: String,
    },
    /// LLVM refuses its input. A defect of this crate.
    #[error("LLVM refuses the module: {message}")]
    Llvm {
        /// LLVM's words.
        message: String,
    },
}

/// The result of emitting a part of a kernel.
pub(crate) type Result<T> = std::result::Result<T, EmitError>;

/// A malformed kernel.
pub(crate) fn malformed<T>(what: impl Into<String>) -> Result<T> {
    Err(EmitError::Malformed { what: what.into() })
}

/// Checks that a size is a multiple of `of`.
pub(crate) fn multiple(what: &str, given: u32, of: u32) -> Result<()> {
    if given.is_multiple_of(of) && given > 0 {
        return Ok(());
    }
    Err(EmitError::Shape {
        what: what.into(),
        given,
        required: format!("a positive multiple of {of}"),
    })
}
