//! Reverse-mode derivative, a graph to a graph.
//!
//! In comes a graph and the names of inputs; out comes a graph with those inputs' gradients `d_<input>` as outputs and the
//! cotangents `d_<output>` as further inputs. It stands before every rewrite: what it yields is tiled and fused like any
//! other graph.
//!
//! A fold `s_t = combine(s_{t-1}, lift_t)` becomes two: one for the states before each point, and a backward one for the
//! adjoint state, `a_{t-1} = (d combine / d left)^T a_t`. What the lifts and the values that the combine reads receive is
//! computed point by point from both, outside any fold: contractions, no scattered additions, so results are
//! deterministic. A log-sum-exp fold, over whatever it runs, has a closed form instead. A gather's adjoint is a contraction with an equality mask.

mod folds;
mod pullback;
mod softmax;

use crate::build::Builder;
use crate::ir::{Axis, Binary, Graph, Node, Op, Reduce, Ty, Unary, Val};
use crate::verify::{Regions, regions, verify};
use std::collections::BTreeMap;

/// Why a graph has no derivative here.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no derivative: {0}")]
pub struct Refused(String);

/// The gradient graph with respect to real inputs, given cotangents of the named real outputs.
///
/// # Errors
/// [`Refused`] for names that nothing has, values that are not real, folds (but log-sum-exp) over several axes or ranges,
/// and folds within regions.
pub fn differentiate(g: &Graph, wrt: &[&str], of: &[&str]) -> Result<Graph, Refused> {
    verify(g).map_err(|e| Refused(e.to_string()))?;
    let mut b = Builder::from_graph(g.clone());
    b.graph.name = format!("{}_backward", g.name);
    b.graph.outputs.clear();
    let mut adjoints = Adjoints::default();
    let mut maker = Maker {
        g,
        regions: regions(g),
        active: active(g, wrt),
        b,
    };
    for name in of {
        let Some(output) = g.outputs.iter().find(|o| o.name == *name) else {
            return Err(Refused(format!("no output `{name}`")));
        };
        if g.node(output.value).ty != Ty::Real {
            return Err(Refused(format!("output `{name}` is not real")));
        }
        let cotangent = maker.b.input(&format!("d_{name}"), &output.axes, Ty::Real);
        maker.add(&mut adjoints, output.value, cotangent);
    }
    maker.sweep(&mut adjoints)?;
    for name in wrt {
        let found = g
            .nodes
            .iter()
            .position(|n| matches!(&n.op, Op::Input { name: other, .. } if other == name));
        let Some(n) = found else {
            return Err(Refused(format!("no input `{name}`")));
        };
        let Op::Input { axes, .. } = &g.nodes[n].op else {
            continue;
        };
        if g.nodes[n].ty != Ty::Real {
            return Err(Refused(format!("input `{name}` is not real")));
        }
        let gradient = match adjoints.get(&Val(n as u32)) {
            Some(&v) => v,
            None => maker.b.real(0.0),
        };
        let gradient = maker.spread(gradient, axes);
        maker.b.output(&format!("d_{name}"), gradient, axes);
    }
    maker.b.finish().map_err(|e| Refused(e.to_string()))
}

/// Adjoint of each value that has one.
type Adjoints = BTreeMap<Val, Val>;

/// Real values that depend on the inputs.
fn active(g: &Graph, wrt: &[&str]) -> Vec<bool> {
    let mut active: Vec<bool> = Vec::with_capacity(g.nodes.len());
    for node in &g.nodes {
        let on = |v: Val| active.get(v.index()) == Some(&true);
        let depends = match &node.op {
            Op::Input { name, .. } => wrt.contains(&name.as_str()),
            // A state depends on what is lifted and on what its combine reads: taken for granted.
            Op::Hole { .. } => true,
            Op::Get { fold, .. } => g.fold(*fold).values().any(on),
            op => op.operands().into_iter().any(on),
        };
        active.push(depends && node.ty == Ty::Real);
    }
    active
}

struct Maker<'g> {
    g: &'g Graph,
    regions: Regions,
    active: Vec<bool>,
    /// The old graph's values keep their numbers in the new one.
    b: Builder,
}

impl Maker<'_> {
    fn add(&mut self, adjoints: &mut Adjoints, v: Val, more: Val) {
        let sum = match adjoints.get(&v) {
            Some(&known) => self.b.binary(Binary::Add, known, more),
            None => more,
        };
        adjoints.insert(v, sum);
    }

    /// Pulls adjoints from all values outside of regions back to what they are made of.
    fn sweep(&mut self, adjoints: &mut Adjoints) -> Result<(), Refused> {
        for n in (0..self.g.nodes.len()).rev() {
            let v = Val(n as u32);
            if !self.regions.of_val[n].is_empty() {
                continue;
            }
            if let Op::Get { fold, .. } = self.g.nodes[n].op {
                let is_get = |node: &Node| matches!(node.op, Op::Get { fold: other, .. } if other == fold);
                if self.g.nodes.iter().position(is_get) == Some(n) {
                    self.fold(fold, adjoints)?;
                }
                continue;
            }
            if let (true, Some(&adjoint)) = (self.active[n], adjoints.get(&v)) {
                let op = self.g.nodes[n].op.clone();
                let operands = op.operands();
                let need: Vec<bool> = operands.iter().map(|o| self.active[o.index()]).collect();
                for (at, part) in self.pullback(&op, v, adjoint, &need) {
                    self.add(adjoints, operands[at], part);
                }
            }
        }
        Ok(())
    }

    /// `v`, which stands for a value over `axes` (constant along those that it lacks), summed to the axes of `to`.
    fn sum_to(&mut self, v: Val, axes: &[Axis], to: Val) -> Val {
        let target = self.b.axes(to).to_vec();
        let mut gone: Vec<Axis> = axes.iter().copied().filter(|a| !target.contains(a)).collect();
        gone.sort_unstable();
        gone.dedup();
        let (sum, count): (Vec<Axis>, Vec<Axis>) = gone.into_iter().partition(|a| self.b.axes(v).contains(a));
        let mut out = if sum.is_empty() {
            v
        } else {
            self.b.reduce(Reduce::Sum, v, &sum)
        };
        for axis in count {
            let n = self.b.len(axis);
            let n = self.b.unary(Unary::ToReal, n);
            out = self.b.binary(Binary::Mul, out, n);
        }
        out
    }

    /// `v` over all of `axes`.
    fn spread(&mut self, mut v: Val, axes: &[Axis]) -> Val {
        for &axis in axes {
            if !self.b.axes(v).contains(&axis) {
                let (index, none) = (self.b.index(axis), self.b.int(0));
                let none = self.b.binary(Binary::Mul, index, none);
                let none = self.b.unary(Unary::ToReal, none);
                v = self.b.binary(Binary::Add, v, none);
            }
        }
        v
    }

    /// `sum over axes` of a product whose factors stand for values over `space`, down to the axes of `to`.
    fn product_to(&mut self, a: Val, b: Val, space: &[Axis], to: Val) -> Val {
        let target = self.b.axes(to).to_vec();
        let mut gone: Vec<Axis> = space.iter().copied().filter(|x| !target.contains(x)).collect();
        gone.sort_unstable();
        gone.dedup();
        self.total_product(a, b, &gone)
    }

    /// The sum of a product over all of `axes`, those that neither factor has included.
    fn total_product(&mut self, a: Val, b: Val, axes: &[Axis]) -> Val {
        let both: Vec<Axis> = [self.b.axes(a), self.b.axes(b)].concat();
        let (sum, count): (Vec<Axis>, Vec<Axis>) = axes.iter().copied().partition(|x| both.contains(x));
        let mut out = if sum.is_empty() {
            self.b.binary(Binary::Mul, a, b)
        } else {
            self.b.contract(a, b, &sum)
        };
        for axis in count {
            let n = self.b.len(axis);
            let n = self.b.unary(Unary::ToReal, n);
            out = self.b.binary(Binary::Mul, out, n);
        }
        out
    }
}
