//! The derivative of a log-sum-exp fold in closed form.

use super::{Adjoints, Maker};
use crate::ir::{Axis, Binary, FoldId, Op, Unary, Val};
use std::collections::BTreeMap;

impl Maker<'_> {
    /// The adjoint of a log-sum-exp fold, closed form: with `e = exp(s - m)` a sum's lift receives `e` times the adjoint of
    /// the sum, a score `e` times what the lifts of its point weigh, and the largest score what is due to `m`. For results
    /// that do not depend on the reference `m` (normalised ones, the log-sum-exp) that last part vanishes.
    /// No state is kept but `m`. Source: Dao et al. 2022, arXiv:2205.14135, Algorithm 4.
    pub(super) fn softmax(
        &mut self,
        id: FoldId,
        [m, l, o]: [u32; 3],
        results: &BTreeMap<u32, Val>,
        adjoints: &mut Adjoints,
    ) {
        let fold = self.g.fold(id).clone();
        let (zero, one, none) = (self.b.real(0.0), self.b.real(1.0), self.b.real(f64::NEG_INFINITY));
        let largest = self.b.get(id, m);
        let empty = self.b.binary(Binary::Eq, largest, none);
        let reference = self.b.select(empty, zero, largest);
        // What moving `m` alone does to the results.
        let rows = &fold.comps[m as usize].axes;
        let mut due = results.get(&m).copied();
        for comp in [l, o] {
            let Some(&d) = results.get(&comp) else { continue };
            let state = self.b.get(id, comp);
            let part = self.product_to(d, state, &fold.comps[comp as usize].axes, largest);
            let from = due.unwrap_or(zero);
            due = Some(self.b.binary(Binary::Sub, from, part));
        }
        let ranges: Vec<(usize, Vec<Axis>)> = fold.over.iter().cloned().enumerate().collect();
        // Scores equal to the largest share what is due to it.
        let mut equal = Vec::new();
        let mut count: Option<Val> = None;
        for (n, range) in &ranges {
            let at = self.b.binary(Binary::Eq, fold.comps[m as usize].lift[*n], reference);
            let at = self.b.select(at, one, zero);
            let part = self.total(at, range);
            count = Some(count.map_or(part, |known| self.b.binary(Binary::Add, known, part)));
            equal.push(at);
        }
        let share = due.zip(count).map(|(due, count)| {
            let count = self.b.binary(Binary::Max, count, one);
            self.b.binary(Binary::Div, due, count)
        });
        for ((n, range), equal) in ranges.into_iter().zip(equal) {
            let score = fold.comps[m as usize].lift[n];
            let gap = self.b.binary(Binary::Sub, score, reference);
            let weight = self.b.unary(Unary::Exp, gap);
            let score_axes = [rows.as_slice(), &range].concat();
            let mut slope: Option<Val> = None;
            for comp in [l, o] {
                let Some(&d) = results.get(&comp) else { continue };
                let axes = [fold.comps[comp as usize].axes.as_slice(), &range].concat();
                // `mask ? seen : 0` is looked through, so that rows and features never stand in one tensor.
                let lift = fold.comps[comp as usize].lift[n];
                let (mask, seen) = match self.g.node(lift).op {
                    Op::Select(mask, seen, other)
                        if self.g.node(other).op == Op::Real(0.0)
                            && self.g.node(mask).axes.iter().all(|a| score_axes.contains(a)) =>
                    {
                        (Some(mask), seen)
                    }
                    _ => (None, lift),
                };
                let masked = |m: &mut Self, v: Val| mask.map_or(v, |mask| m.b.select(mask, v, zero));
                if self.active[seen.index()] {
                    let weight = masked(self, weight);
                    let part = self.product_to(weight, d, &axes, seen);
                    self.add(adjoints, seen, part);
                }
                let features: Vec<Axis> = axes.iter().copied().filter(|a| !score_axes.contains(a)).collect();
                let part = self.total_product(d, seen, &features);
                let part = masked(self, part);
                slope = Some(slope.map_or(part, |known| self.b.binary(Binary::Add, known, part)));
            }
            if self.active[score.index()] {
                let mut part = slope.map(|slope| self.b.binary(Binary::Mul, weight, slope));
                if let Some(share) = share {
                    let own = self.b.binary(Binary::Mul, share, equal);
                    part = Some(part.map_or(own, |known| self.b.binary(Binary::Add, known, own)));
                }
                if let Some(part) = part {
                    let part = self.sum_to(part, &score_axes, score);
                    self.add(adjoints, score, part);
                }
            }
        }
    }

    /// The sum over all of `axes`, those that `v` lacks included.
    fn total(&mut self, v: Val, axes: &[Axis]) -> Val {
        let one = self.b.real(1.0);
        self.total_product(v, one, axes)
    }
}
