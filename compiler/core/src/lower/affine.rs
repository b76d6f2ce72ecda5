//! Scores that are a multiple of the contraction and a bias that is a sum of a row and a column part: they cost one
//! multiply-add an element beside the one that every score takes.

use super::Unsupported;
use super::algebra::positive_factor;
use super::builder::Builder;
use super::expr::{Exprs, Lowered};
use drawloom_graph::ir::{Binary, Op as GOp, Val as GVal};
use drawloom_kernel::ir::{MapOp, Val};

impl Exprs<'_> {
    /// `(a, bias)` with `v = a * contraction + bias`, where `a` is a positive constant and the bias a sum of a row and a
    /// column part; `None` if the value has no such form.
    ///
    /// # Errors
    /// [`Unsupported`], as in [`Exprs::hoist`].
    pub fn affine(&mut self, b: &mut Builder, v: GVal) -> Result<Option<(f64, Lowered)>, Unsupported> {
        let GOp::Binary(Binary::Add, x, y) = self.graph.nodes[v.index()].op else {
            return Ok(None);
        };
        for (product, bias) in [(x, y), (y, x)] {
            let (a, rest) = positive_factor(self.graph, product);
            if matches!(self.graph.nodes[rest.index()].op, GOp::Contract { .. }) && !self.has_tile(bias) {
                let bias = self.lower(b, bias)?;
                return Ok(matches!(bias, Lowered::Split { .. }).then_some((a, bias)));
            }
        }
        Ok(None)
    }

    /// `scale * of + shift`, for a separated value, a scalar and a column of shifts.
    pub fn scaled(&self, b: &mut Builder, of: Lowered, scale: Val, shift: Val) -> Val {
        match of {
            Lowered::One(v) => b.mapf(MapOp::Fma, &[v, scale, shift]),
            Lowered::Split { row, col } => {
                let row = b.mapf(MapOp::Fma, &[row, scale, shift]);
                match b.factors(col) {
                    Some((factor, numbers)) => {
                        let factor = b.mapf(MapOp::Mul, &[factor, scale]);
                        b.mapf(MapOp::Fma, &[factor, numbers, row])
                    }
                    None => {
                        let col = b.mapf(MapOp::Mul, &[col, scale]);
                        b.mapf(MapOp::Add, &[row, col])
                    }
                }
            }
        }
    }
}
