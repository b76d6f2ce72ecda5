//! The test suite: cases from a list ([`suite`]) and from chance ([`random_spec`]), engines that run them ([`Engine`]),
//! and the rule by which results are judged ([`criterion`]). What has gone wrong elsewhere, and which case or test covers it,
//! is listed in [`bugs`].
//!
//! The truth is [`naive`]: loops over the spec, written without the compiler. An engine is anything that turns a
//! [`Case`] into [`Outputs`]; this crate has the naive ones and the graph interpreter, and other engines implement
//! [`Engine`] where they live.

pub mod bugs;
pub mod case;
pub mod criterion;
pub mod graph;
pub mod naive;
pub mod random_spec;
pub mod suite;
pub mod tensor;

pub use case::{Case, Engine, InputKind, Outputs, Scalar};
pub use tensor::Tensor;
