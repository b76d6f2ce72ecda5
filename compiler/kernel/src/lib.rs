//! Tile programs.
pub mod ir;
