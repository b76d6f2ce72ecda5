//! Attention graphs.
pub mod ir;
pub mod ranges;
