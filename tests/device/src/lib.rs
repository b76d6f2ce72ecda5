//! What the binaries share: real input, and a naive attention to judge by.
//!
//! The binaries embed their kernels with `attn!` and their data, so that a machine needs a driver and nothing else.

pub mod naive;
pub mod real;
