//! The text form of a tile program: [`print()`] and [`parse()`].
//!
//! In: a [`Kernel`], or text. Out: the other one. It stands beside the data types because every later part (verifier,
//! interpreter, passes, tests) speaks to people in this form.
//!
//! # Grammar
//! A `;` begins a comment that ends with its line. Line breaks mean nothing else.
//!
//! ```text
//! kernel NAME target sm_90a min_ctas 1 {
//!   param p0 q : in bf16[p2, 64]                 tensor: access, dtype, extents (a parameter or a number)
//!   param p2 n : i32                             scalar
//!   shared s0 keys : bf16[2][64x64] swizzled     slots, rows x cols; then `swizzled` or `panels`, `alias s1`
//!   mbarrier m0 full : slots 2 arrivals 1
//!   role main warps 4 registers 240 {            `registers` may be absent
//!     v0 = cta : i32
//!     v1 = map.fma v2, v3, v4 : f32[32x64] mma   a type: dtype, then rows x cols and layout unless uniform 1 x 1
//!     loop v8 in v1..v2 carried (v10 = v4 -> v30 : f32) { … next v29 }
//!     if v3 -> (v8 : f32) { … yield v4 } else { … yield v5 }
//!     stream v5 carried (v10 = v4 -> v30 : f32) {
//!       stage lead 1 role producer results (v7) { … }
//!       segment full until v9 { … next v29 }
//!     }
//!   }
//! }
//! ```
//!
//! In an address, `x+n` is a window: it begins at `x` and has `n` elements. A window of shared memory is
//! `s0[slot, row+rows, col+cols]`, where slot and row are a value or `0`; `trans` before it transposes it as an
//! operand. A tile of global memory is `p1[v2, row, 0+64] rows v6+64 limit v9`: an index per axis (a value, `row`,
//! `row / v4`, or `v5 + row % v4`), the last one a window, then the first row and number of rows, and the row limit.
//!
//! # Round trip
//! `parse(&print(k)) == k` for every kernel that [`verify`](crate::verify) accepts and whose value numbers are all
//! defined. Numbers that no statement defines come back as `bool` scalars below the largest defined number and not at
//! all above it; the text itself is a fixed point in every case.
//!
//! # Statement numbers
//! Faults and errors name a statement by its number in the order of the text (roles, then statements, each before those
//! nested in it). [`parse_with_lines`] gives the line of each, [`statements`] the statements themselves.

mod lex;
mod parse;
mod print;

pub use parse::{ParseError, parse, parse_with_lines};
pub use print::{head, print};

use crate::ir::{Block, Kernel, Stmt};

/// All statements of a kernel, indexed by statement number.
pub fn statements(kernel: &Kernel) -> Vec<&Stmt> {
    let mut out = Vec::new();
    for role in &kernel.roles {
        collect(&role.body, &mut out);
    }
    out
}

fn collect<'k>(block: &'k Block, out: &mut Vec<&'k Stmt>) {
    for stmt in &block.0 {
        out.push(stmt);
        for nested in nested_blocks(stmt) {
            collect(nested, out);
        }
    }
}

/// The blocks directly inside a statement, in the order of the text.
pub fn nested_blocks(stmt: &Stmt) -> Vec<&Block> {
    match stmt {
        Stmt::Let { .. } | Stmt::Do(_) => Vec::new(),
        Stmt::Loop(l) => vec![&l.body],
        Stmt::If(i) => vec![&i.then, &i.otherwise],
        Stmt::Stream(s) => s
            .stages
            .iter()
            .map(|g| &g.block)
            .chain(s.segments.iter().map(|g| &g.body))
            .collect(),
    }
}
