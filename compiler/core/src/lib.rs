//! The Drawloom compiler: specs to artifacts.
//!
//! Modules stand in pipeline order; one may import only those above it.
pub mod target;
pub mod device;
pub mod schedule;
pub mod lower;
pub mod passes;
pub mod program;
pub mod cost;
pub mod simulate;
pub mod search;
pub mod portfolio;
pub mod explain;
pub mod compile;
