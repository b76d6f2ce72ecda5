//! The Drawloom spec language.
pub mod diag;
pub mod manifest;
pub mod spec;
