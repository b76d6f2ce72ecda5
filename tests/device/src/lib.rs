//! What the binaries share: what the selector takes, real input and a naive attention to judge by; memory with canaries, and the CPU form as an
//! engine of the suite.
//!
//! The binaries embed their kernels with `attn!` and their data, so that a machine needs a driver and nothing else.

pub mod choice;
pub mod host;
pub mod memory;
pub mod naive;
pub mod real;
