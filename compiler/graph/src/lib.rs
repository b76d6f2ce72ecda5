//! Attention graphs: named-axis mathematics with one fold. See [`ir`].
//!
//! A checked spec becomes a graph ([`from_spec`](fn@from_spec)); a graph prints and parses ([`text`]), is checked
//! ([`verify`](fn@verify)), and is computed in `f64` ([`interp`]: the oracle of everything below); it is differentiated
//! ([`differentiate`](fn@differentiate)) and then rewritten ([`rewrite`]); its masks are analysed into key ranges
//! ([`ranges`]). No tile, no memory, no target is known here.

pub mod build;
mod differentiate;
mod from_spec;
pub mod infer;
pub mod interp;
pub mod ir;
pub mod monoid;
pub mod ranges;
pub mod rewrite;
pub mod text;
pub mod verify;

pub use differentiate::{Refused, differentiate};
pub use from_spec::from_spec;
pub use ir::Graph;
pub use verify::verify;
