//! Graph and schedule to a synchronous tile program.
//!
//! [`attend`] lowers a fold with the log-sum-exp monoid over tiles of queries and keys; [`merge`] lowers the same fold
//! over partial states. Neither knows how copies will overlap (that is `passes`) nor how masks look (they are expressions
//! and ranges). What has no tile form yet is refused with [`Unsupported`].

mod affine;
pub mod algebra;
pub mod attend;
pub mod builder;
pub mod declare;
pub mod expr;
pub mod merge;
pub mod operator;
pub mod separate;
pub mod sym;
pub mod tiles;

use drawloom_kernel::ir::Kernel;
use drawloom_lang::manifest::Formula;

/// A legal operator that this compiler has no kernel for yet.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no kernel form for {what} on this target")]
pub struct Unsupported {
    /// What has no form.
    pub what: String,
}

impl Unsupported {
    /// Names what has no form.
    pub fn new(what: impl Into<String>) -> Unsupported {
        Unsupported { what: what.into() }
    }
}

/// What a kernel parameter is bound to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Meaning {
    /// An input or output of the spec.
    Tensor(String),
    /// The n-th partial-state tensor of a split program, with these axes (names; `splits` first).
    Partial {
        /// Component of the fold's state.
        comp: usize,
        /// Axis names, slowest first.
        axes: Vec<String>,
    },
    /// The size of an axis.
    Size(String),
    /// The number of splits.
    Splits,
    /// A number that the launcher computes.
    Number(Formula),
    /// A run-time scalar of the spec.
    Scalar(String),
}

/// A kernel and what its parameters mean, in order.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// The kernel.
    pub kernel: Kernel,
    /// One per [`Kernel::params`].
    pub meaning: Vec<Meaning>,
}
