//! Tests of the tile program: file tests, and properties of all kernels.

mod filetests;
mod launch;
mod mutants;
mod properties;
