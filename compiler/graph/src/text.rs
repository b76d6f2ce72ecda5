//! The text form of graphs: a graph to lines, and lines to a graph.
//!
//! One value a line, with its type and axes; a fold's holes and what hangs on them stand in its braces:
//!
//! ```
//! let text = "
//! graph total {
//!     axis i, j = 16
//!     x = input x[i, j]                     ; types and axes may be left out: they are inferred
//!     fold sum over j associative {
//!         state s[i] = 0.0, lift x * 2.0    ; operands may be whole expressions
//!         combine s = left(s) + right(s)
//!     }
//!     output total[i] = get(sum.s)
//! }";
//! let parsed = drawloom_graph::text::parse(text)?;
//! let printed = parsed.graph.to_string();
//! assert_eq!(drawloom_graph::text::parse(&printed)?.graph, parsed.graph);
//! # Ok::<(), drawloom_graph::text::Error>(())
//! ```
//!
//! Printing is canonical: values are `v0`, `v1`, … in the order of the graph, folds `f0`, `f1`, …; parsing a print gives
//! the same graph. By hand, names are free, operands may be expressions with the usual infix operators, and folds are
//! numbered as they come.

mod expr;
mod lex;
mod parse;
mod print;

pub use parse::{Lines, Parsed, parse};

use crate::ir::{Binary, Reduce, Unary};

/// Why a text is no graph.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct Error {
    /// Line, from 1.
    pub line: u32,
    /// What is wrong.
    pub message: String,
}

const UNARY: [(Unary, &str); 14] = [
    (Unary::Neg, "neg"),
    (Unary::Not, "not"),
    (Unary::Abs, "abs"),
    (Unary::Exp, "exp"),
    (Unary::Log, "log"),
    (Unary::Tanh, "tanh"),
    (Unary::Sqrt, "sqrt"),
    (Unary::Rsqrt, "rsqrt"),
    (Unary::Recip, "recip"),
    (Unary::Sin, "sin"),
    (Unary::Cos, "cos"),
    (Unary::Floor, "floor"),
    (Unary::Sign, "sign"),
    (Unary::ToReal, "real"),
];

const BINARY: [(Binary, &str); 15] = [
    (Binary::Add, "add"),
    (Binary::Sub, "sub"),
    (Binary::Mul, "mul"),
    (Binary::Div, "div"),
    (Binary::Rem, "rem"),
    (Binary::Min, "min"),
    (Binary::Max, "max"),
    (Binary::Lt, "lt"),
    (Binary::Le, "le"),
    (Binary::Eq, "eq"),
    (Binary::And, "and"),
    (Binary::Or, "or"),
    (Binary::BitAnd, "bitand"),
    (Binary::Shr, "shr"),
    (Binary::Pow, "pow"),
];

const REDUCE: [(Reduce, &str); 4] = [
    (Reduce::Sum, "sum"),
    (Reduce::Max, "maximum"),
    (Reduce::Min, "minimum"),
    (Reduce::Mean, "mean"),
];

fn name_of<T: PartialEq + Copy>(table: &[(T, &'static str)], op: T) -> &'static str {
    table
        .iter()
        .find(|(o, _)| *o == op)
        .map(|(_, n)| *n)
        .expect("invariant: the tables list every operation")
}

fn op_of<T: Copy>(table: &[(T, &'static str)], name: &str) -> Option<T> {
    table.iter().find(|(_, n)| *n == name).map(|(o, _)| *o)
}
