//! Reverse-mode derivative, a graph to a graph.
//!
//! In comes a graph and the names of inputs; out comes a graph with those inputs' gradients `d_<input>` as outputs and the
//! cotangents `d_<output>` as further inputs. It stands before every rewrite: what it yields is tiled and fused like any
//! other graph.
//!
//! A fold `s_t = combine(s_{t-1}, lift_t)` becomes two: one for the states before each point, and a backward one for the
//! adjoint state, `a_{t-1} = (d combine / d left)^T a_t`. What the lifts and the values that the combine reads receive is
//! computed point by point from both, outside any fold: contractions, no scattered additions, so results are
//! deterministic. A gather's adjoint is a contraction with an equality mask.

use crate::build::{Builder, CompDef, FoldDef};
use crate::ir::{Axis, Binary, Direction, FoldId, Graph, Mode, Node, Op, Reduce, Side, Ty, Unary, Val};
use crate::verify::{Regions, regions, verify};
use std::collections::BTreeMap;

/// Why a graph has no derivative here.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no derivative: {0}")]
pub struct Refused(String);

/// The gradient graph with respect to real inputs, given cotangents of the named real outputs.
///
/// # Errors
/// [`Refused`] for names that nothing has, values that are not real, folds over several axes or ranges, and folds within
/// regions.
pub fn differentiate(g: &Graph, wrt: &[&str], of: &[&str]) -> Result<Graph, Refused> {
    verify(g).map_err(|e| Refused(e.to_string()))?;
    let mut b = Builder::from_graph(g.clone());
    b.graph.name = format!("{}_backward", g.name);
    b.graph.outputs.clear();
    let mut adjoints = Adjoints::default();
    let mut maker = Maker { g, regions: regions(g), active: active(g, wrt), b };
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
        let found = g.nodes.iter().position(|n| matches!(&n.op, Op::Input { name: other, .. } if other == name));
        let Some(n) = found else { return Err(Refused(format!("no input `{name}`"))) };
        let Op::Input { axes, .. } = &g.nodes[n].op else { continue };
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

/// A fold's region at every point, its holes replaced by values.
struct Unrolled {
    values: BTreeMap<Val, Val>,
}

impl Unrolled {
    fn of(&self, v: Val) -> Val {
        self.values.get(&v).copied().unwrap_or(v)
    }
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

    /// The adjoint of a fold: from the adjoints of its results to those of its inits, lifts and what its combine reads.
    fn fold(&mut self, id: FoldId, adjoints: &mut Adjoints) -> Result<(), Refused> {
        let fold = self.g.fold(id).clone();
        let results: BTreeMap<u32, Val> = self.collect(id, adjoints);
        if results.is_empty() {
            return Ok(());
        }
        let &[ref range] = fold.over.as_slice() else {
            return Err(Refused(format!("{id} runs over several ranges")));
        };
        let &[axis] = range.as_slice() else { return Err(Refused(format!("{id} runs over several axes"))) };
        let region: Vec<Val> =
            (0..self.g.nodes.len() as u32).map(Val).filter(|v| self.regions.of_val[v.index()].contains(&id)).collect();
        let nested = |v: &Val| matches!(self.g.node(*v).op, Op::Get { .. });
        if !self.regions.of_fold[id.index()].is_empty() || region.iter().any(nested) {
            return Err(Refused(format!("{id} lies in a region or has a fold in its own")));
        }
        let before = self.states_before(id, &region);
        let mut unrolled = Unrolled { values: BTreeMap::new() };
        for &v in &region {
            let value = match self.g.node(v).op {
                Op::Hole { comp, side: Side::Left, .. } => before[comp as usize],
                Op::Hole { comp, side: Side::Right, .. } => fold.comps[comp as usize].lift[0],
                _ => {
                    let op = map_operands(&self.g.node(v).op, |v| unrolled.of(v));
                    self.b.typed(op, self.g.node(v).ty)
                }
            };
            unrolled.values.insert(v, value);
        }
        let real: Vec<u32> =
            (0..fold.comps.len() as u32).filter(|&n| self.g.node(fold.comps[n as usize].init).ty == Ty::Real).collect();
        let backward = self.backward(id, axis, &region, &unrolled, &results, &real, Mode::Exclusive);
        // The adjoint of the state after each point.
        let seeds: Vec<(u32, Val)> = real
            .iter()
            .enumerate()
            .map(|(n, &comp)| {
                let carried = self.b.get(backward, n as u32);
                match results.get(&comp) {
                    Some(&own) if fold.mode == Mode::Inclusive => (comp, self.b.binary(Binary::Add, carried, own)),
                    _ => (comp, carried),
                }
            })
            .collect();
        for (v, part) in self.within(id, &region, &unrolled, &seeds, false) {
            let target = match self.g.node(v).op {
                Op::Hole { comp, side: Side::Right, .. } => fold.comps[comp as usize].lift[0],
                Op::Hole { side: Side::Left, .. } => continue,
                _ => v,
            };
            if self.active[target.index()] {
                self.add(adjoints, target, part);
            }
        }
        if fold.comps.iter().any(|c| self.active[c.init.index()]) {
            let first = self.backward(id, axis, &region, &unrolled, &results, &real, Mode::Reduce);
            for (n, &comp) in real.iter().enumerate() {
                let def = &fold.comps[comp as usize];
                if self.active[def.init.index()] {
                    let whole = self.b.get(first, n as u32);
                    let part = self.sum_to(whole, &def.axes, def.init);
                    self.add(adjoints, def.init, part);
                }
            }
        }
        Ok(())
    }

    /// The adjoint of each component's result, over all its uses.
    fn collect(&mut self, id: FoldId, adjoints: &Adjoints) -> BTreeMap<u32, Val> {
        let mut found = BTreeMap::new();
        for (n, node) in self.g.nodes.iter().enumerate() {
            let Op::Get { fold, comp } = node.op else { continue };
            let Some(&adjoint) = adjoints.get(&Val(n as u32)).filter(|_| fold == id) else { continue };
            let sum = match found.get(&comp) {
                Some(&known) => self.b.binary(Binary::Add, known, adjoint),
                None => adjoint,
            };
            found.insert(comp, sum);
        }
        found
    }

    /// The fold's states before each of its points.
    fn states_before(&mut self, id: FoldId, region: &[Val]) -> Vec<Val> {
        let fold = self.g.fold(id);
        let mut prefix = id;
        if fold.mode != Mode::Exclusive {
            let comps = fold.comps.iter().map(|c| CompDef {
                name: c.name.clone(),
                axes: c.axes.clone(),
                init: c.init,
                lift: c.lift.clone(),
            });
            let def = FoldDef {
                over: fold.over.clone(),
                direction: fold.direction,
                mode: Mode::Exclusive,
                associative: fold.associative,
            };
            prefix = self.b.fold(def, comps.collect());
            let mut copy = Unrolled { values: BTreeMap::new() };
            for &v in region {
                let node = self.g.node(v);
                let op = match node.op {
                    Op::Hole { comp, side, .. } => Op::Hole { fold: prefix, comp, side },
                    ref op => map_operands(op, |v| copy.of(v)),
                };
                let value = self.b.typed(op, node.ty);
                copy.values.insert(v, value);
            }
            let combines: Vec<Val> = fold.comps.iter().map(|c| copy.of(c.combine)).collect();
            self.b.combine(prefix, &combines);
        }
        (0..fold.comps.len() as u32).map(|comp| self.b.get(prefix, comp)).collect()
    }

    /// The fold of the adjoint state, over the real components.
    #[expect(clippy::too_many_arguments, reason = "one fold, described in parts that its caller has at hand")]
    fn backward(
        &mut self,
        id: FoldId,
        axis: Axis,
        region: &[Val],
        unrolled: &Unrolled,
        results: &BTreeMap<u32, Val>,
        real: &[u32],
        mode: Mode,
    ) -> FoldId {
        let fold = self.g.fold(id).clone();
        let zero = self.b.real(0.0);
        let comps = real.iter().map(|&comp| {
            let def = &fold.comps[comp as usize];
            let own = results.get(&comp).copied().unwrap_or(zero);
            let (init, lift) = if fold.mode == Mode::Reduce { (own, zero) } else { (zero, own) };
            CompDef { name: format!("d_{}", def.name), axes: def.axes.clone(), init, lift: vec![lift] }
        });
        let comps = comps.collect();
        let direction = match fold.direction {
            Direction::Forward => Direction::Backward,
            Direction::Backward => Direction::Forward,
        };
        let def = FoldDef { over: vec![vec![axis]], direction, mode, associative: false };
        let backward = self.b.fold(def, comps);
        let mut seeds = Vec::new();
        let mut own = BTreeMap::new();
        for (n, &comp) in real.iter().enumerate() {
            let carried = self.b.hole(backward, n as u32, Side::Left);
            let lifted = self.b.hole(backward, n as u32, Side::Right);
            own.insert(comp, lifted);
            let seed = if fold.mode == Mode::Inclusive { self.b.binary(Binary::Add, carried, lifted) } else { carried };
            seeds.push((comp, seed));
        }
        let parts = self.within(id, region, unrolled, &seeds, true);
        let mut next: BTreeMap<u32, Val> = BTreeMap::new();
        if fold.mode == Mode::Exclusive {
            next.clone_from(&own);
        }
        for (v, part) in parts {
            if let Op::Hole { comp, side: Side::Left, .. } = self.g.node(v).op {
                let sum = match next.get(&comp) {
                    Some(&known) => self.b.binary(Binary::Add, known, part),
                    None => part,
                };
                next.insert(comp, sum);
            }
        }
        let combines: Vec<Val> = real.iter().map(|comp| next.get(comp).copied().unwrap_or(zero)).collect();
        self.b.combine(backward, &combines);
        backward
    }

    /// Pulls the adjoint of a state back through a region: to its holes and to the values from outside that it reads;
    /// with `left_only`, only along paths to left holes.
    fn within(
        &mut self,
        id: FoldId,
        region: &[Val],
        unrolled: &Unrolled,
        seeds: &[(u32, Val)],
        left_only: bool,
    ) -> Adjoints {
        let fold = self.g.fold(id).clone();
        let mut wanted: BTreeMap<Val, bool> = BTreeMap::new();
        for &v in region {
            let node = self.g.node(v);
            let on = match node.op {
                Op::Hole { side: Side::Right, .. } => !left_only,
                Op::Hole { side: Side::Left, .. } => true,
                ref op => op.operands().iter().any(|o| wanted.get(o).copied().unwrap_or(!left_only)),
            };
            wanted.insert(v, on && node.ty == Ty::Real);
        }
        let mut local = Adjoints::new();
        let mut found = Adjoints::new();
        for &(comp, seed) in seeds {
            let def = &fold.comps[comp as usize];
            let mut axes = def.axes.clone();
            if !left_only {
                axes.extend(fold.axes());
            }
            let part = self.sum_to(seed, &axes, unrolled.of(def.combine));
            match wanted.get(&def.combine) {
                Some(true) => self.add(&mut local, def.combine, part),
                Some(false) => {}
                // A combine from outside of the region does not depend on the state.
                None if left_only => {}
                None => self.add(&mut found, def.combine, part),
            }
        }
        for &v in region.iter().rev() {
            let Some(&adjoint) = local.get(&v) else { continue };
            if let Op::Hole { .. } = self.g.node(v).op {
                // A hole stands for a value that may have fewer axes.
                self.add(&mut found, v, adjoint);
                continue;
            }
            let node = self.g.node(v).clone();
            let op = map_operands(&node.op, |v| unrolled.of(v));
            let operands = node.op.operands();
            let inside = |o: &Val| wanted.get(o).copied();
            let need: Vec<bool> =
                operands.iter().map(|o| inside(o).unwrap_or(!left_only && self.active[o.index()])).collect();
            for (at, part) in self.pullback(&op, unrolled.of(v), adjoint, &need) {
                let target = if inside(&operands[at]).is_some() { &mut local } else { &mut found };
                self.add(target, operands[at], part);
            }
        }
        found
    }

    /// `v`, which stands for a value over `axes` (constant along those that it lacks), summed to the axes of `to`.
    fn sum_to(&mut self, v: Val, axes: &[Axis], to: Val) -> Val {
        let target = self.b.axes(to).to_vec();
        let mut gone: Vec<Axis> = axes.iter().copied().filter(|a| !target.contains(a)).collect();
        gone.sort_unstable();
        gone.dedup();
        let (sum, count): (Vec<Axis>, Vec<Axis>) = gone.into_iter().partition(|a| self.b.axes(v).contains(a));
        let mut out = if sum.is_empty() { v } else { self.b.reduce(Reduce::Sum, v, &sum) };
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
        let both: Vec<Axis> = [self.b.axes(a), self.b.axes(b)].concat();
        let gone = |inside: bool| -> Vec<Axis> {
            let mut axes: Vec<Axis> =
                space.iter().copied().filter(|x| !target.contains(x) && both.contains(x) == inside).collect();
            axes.sort_unstable();
            axes.dedup();
            axes
        };
        let product = self.b.contract(a, b, &gone(true));
        self.sum_to(product, &gone(false), to)
    }

    /// What the needed operands of an operation receive from the adjoint `d` of its result `y`, with their numbers.
    fn pullback(&mut self, op: &Op, y: Val, d: Val, need: &[bool]) -> Vec<(usize, Val)> {
        let space = self.b.axes(y).to_vec();
        let mut parts: Vec<(usize, Val)> = Vec::new();
        match op {
            Op::Real(_)
            | Op::Int(_)
            | Op::Bool(_)
            | Op::Input { .. }
            | Op::Scalar(_)
            | Op::Index(_)
            | Op::Len(_)
            | Op::TopK { .. }
            | Op::Hole { .. }
            | Op::Get { .. } => {}
            Op::Unary(op, a) => parts.extend(self.unary(*op, *a, y, d).map(|part| (0, part))),
            Op::Binary(op, a, b) => {
                let (x, z) = self.binary(*op, *a, *b, y, d);
                for (at, operand, part) in [(0, *a, x), (1, *b, z)] {
                    if let Some(part) = part.filter(|_| need[at]) {
                        parts.push((at, self.sum_to(part, &space, operand)));
                    }
                }
            }
            Op::Select(c, a, b) => {
                let zero = self.b.real(0.0);
                for (at, operand, [then, other]) in [(1, *a, [d, zero]), (2, *b, [zero, d])] {
                    if need[at] {
                        let part = self.b.select(*c, then, other);
                        parts.push((at, self.sum_to(part, &space, operand)));
                    }
                }
            }
            Op::Rename { from, to, .. } => {
                parts.push((0, if self.b.axes(d).contains(to) { self.b.rename(d, *to, *from) } else { d }));
            }
            Op::Contract { a, b, over } => {
                let space = [&space[..], over].concat();
                for (at, operand, other) in [(0, *a, *b), (1, *b, *a)] {
                    if need[at] {
                        parts.push((at, self.product_to(d, other, &space, operand)));
                    }
                }
            }
            Op::Reduce { op, of, over } => parts.push((0, self.reduction(*op, *of, over, y, d))),
            Op::Gather { of, at, .. } => parts.push((0, self.gather(*of, at, &space, d))),
            Op::TriSolve { a, b, row, col } => {
                let found = self.tri_solve([*a, *b], [*row, *col], y, d);
                parts.extend(found.into_iter().enumerate().filter(|p| need[p.0]));
            }
        }
        parts
    }

    fn unary(&mut self, op: Unary, a: Val, y: Val, d: Val) -> Option<Val> {
        let b = &mut self.b;
        Some(match op {
            Unary::Neg => b.unary(Unary::Neg, d),
            Unary::Abs => {
                let sign = b.unary(Unary::Sign, a);
                b.binary(Binary::Mul, d, sign)
            }
            Unary::Exp => b.binary(Binary::Mul, d, y),
            Unary::Log => b.binary(Binary::Div, d, a),
            Unary::Tanh => {
                let (square, one) = (b.binary(Binary::Mul, y, y), b.real(1.0));
                let slope = b.binary(Binary::Sub, one, square);
                b.binary(Binary::Mul, d, slope)
            }
            Unary::Sqrt => {
                let two = b.real(2.0);
                let twice = b.binary(Binary::Mul, two, y);
                b.binary(Binary::Div, d, twice)
            }
            Unary::Rsqrt => {
                let (square, half) = (b.binary(Binary::Mul, y, y), b.real(-0.5));
                let cube = b.binary(Binary::Mul, square, y);
                let slope = b.binary(Binary::Mul, half, cube);
                b.binary(Binary::Mul, d, slope)
            }
            Unary::Recip => {
                let square = b.binary(Binary::Mul, y, y);
                let part = b.binary(Binary::Mul, d, square);
                b.unary(Unary::Neg, part)
            }
            Unary::Sin => {
                let slope = b.unary(Unary::Cos, a);
                b.binary(Binary::Mul, d, slope)
            }
            Unary::Cos => {
                let slope = b.unary(Unary::Sin, a);
                let part = b.binary(Binary::Mul, d, slope);
                b.unary(Unary::Neg, part)
            }
            Unary::Not | Unary::Floor | Unary::Sign | Unary::ToReal => return None,
        })
    }

    /// Parts of the left and right operand, not yet summed to their axes.
    fn binary(&mut self, op: Binary, x: Val, z: Val, y: Val, d: Val) -> (Option<Val>, Option<Val>) {
        let b = &mut self.b;
        match op {
            Binary::Add => (Some(d), Some(d)),
            Binary::Sub => (Some(d), Some(b.unary(Unary::Neg, d))),
            Binary::Mul => (Some(b.binary(Binary::Mul, d, z)), Some(b.binary(Binary::Mul, d, x))),
            Binary::Div => {
                let part = b.binary(Binary::Div, d, z);
                let other = b.binary(Binary::Mul, part, y);
                (Some(part), Some(b.unary(Unary::Neg, other)))
            }
            // Equal operands: the left one counts as chosen.
            Binary::Max | Binary::Min => {
                let zero = b.real(0.0);
                let left = if op == Binary::Max { b.binary(Binary::Le, z, x) } else { b.binary(Binary::Le, x, z) };
                (Some(b.select(left, d, zero)), Some(b.select(left, zero, d)))
            }
            Binary::Pow => {
                let one = b.real(1.0);
                let less = b.binary(Binary::Sub, z, one);
                let power = b.binary(Binary::Pow, x, less);
                let slope = b.binary(Binary::Mul, z, power);
                let log = b.unary(Unary::Log, x);
                let other = b.binary(Binary::Mul, y, log);
                (Some(b.binary(Binary::Mul, d, slope)), Some(b.binary(Binary::Mul, d, other)))
            }
            Binary::Rem
            | Binary::Lt
            | Binary::Le
            | Binary::Eq
            | Binary::And
            | Binary::Or
            | Binary::BitAnd
            | Binary::Shr => (None, None),
        }
    }

    fn reduction(&mut self, op: Reduce, of: Val, over: &[Axis], y: Val, d: Val) -> Val {
        match op {
            Reduce::Sum => d,
            Reduce::Mean => over.iter().fold(d, |part, &axis| {
                let n = self.b.len(axis);
                let n = self.b.unary(Unary::ToReal, n);
                self.b.binary(Binary::Div, part, n)
            }),
            // Equal extremes share.
            Reduce::Max | Reduce::Min => {
                let (zero, one) = (self.b.real(0.0), self.b.real(1.0));
                let best = self.b.binary(Binary::Eq, of, y);
                let best = self.b.select(best, one, zero);
                let count = self.b.reduce(Reduce::Sum, best, over);
                let share = self.b.binary(Binary::Div, best, count);
                self.b.binary(Binary::Mul, d, share)
            }
        }
    }

    /// A contraction with the mask "this index was read".
    fn gather(&mut self, of: Val, at: &[(Axis, Val)], space: &[Axis], d: Val) -> Val {
        let mut d = d;
        let mut space = space.to_vec();
        let mut indices: Vec<Val> = at.iter().map(|p| p.1).collect();
        // An axis that is read and also counts the results gets another name in the results.
        for &(axis, _) in at {
            if !space.contains(&axis) {
                continue;
            }
            let twin = self.b.twin(axis);
            space.iter_mut().filter(|a| **a == axis).for_each(|a| *a = twin);
            for v in indices.iter_mut().chain([&mut d]) {
                if self.b.axes(*v).contains(&axis) {
                    *v = self.b.rename(*v, axis, twin);
                }
            }
        }
        let (zero, one) = (self.b.real(0.0), self.b.real(1.0));
        let mut read: Option<Val> = None;
        for (&(axis, _), index) in at.iter().zip(indices) {
            let own = self.b.index(axis);
            let same = self.b.binary(Binary::Eq, index, own);
            read = Some(read.map_or(same, |r| self.b.binary(Binary::And, r, same)));
        }
        match read {
            Some(read) => {
                let mask = self.b.select(read, one, zero);
                self.product_to(d, mask, &space, of)
            }
            None => d,
        }
    }

    /// `b` receives the solution of the transposed system, which is the system with rows and columns counted backwards;
    /// `a` receives minus its product with the solution, below the diagonal.
    fn tri_solve(&mut self, [a, rhs]: [Val; 2], [row, col]: [Axis; 2], y: Val, d: Val) -> [Val; 2] {
        let flip = |b: &mut Builder, axis: Axis| {
            let (n, one, index) = (b.len(axis), b.int(1), b.index(axis));
            let last = b.binary(Binary::Sub, n, one);
            b.binary(Binary::Sub, last, index)
        };
        let (down, right) = (flip(&mut self.b, row), flip(&mut self.b, col));
        // Element (row, col) of the flipped transpose is element (flip col, flip row).
        let transposed = self.b.gather(a, &[(row, right), (col, down)], None);
        let d = self.spread(d, &[row]);
        let flipped = self.b.gather(d, &[(row, down)], None);
        let solved = self.b.op(Op::TriSolve { a: transposed, b: flipped, row, col });
        let solved = self.b.gather(solved, &[(row, down)], None);
        let space = self.b.axes(y).to_vec();
        let whole = self.b.rename(y, row, col);
        let both = [&space[..], &[col]].concat();
        let product = self.product_to(solved, whole, &both, a);
        let (i, j, zero) = (self.b.index(row), self.b.index(col), self.b.real(0.0));
        let below = self.b.binary(Binary::Lt, j, i);
        let minus = self.b.unary(Unary::Neg, product);
        let part = self.b.select(below, minus, zero);
        [part, self.sum_to(solved, &space, rhs)]
    }
}

/// An operation with other operands.
fn map_operands(op: &Op, f: impl Fn(Val) -> Val) -> Op {
    match op.clone() {
        Op::Unary(op, a) => Op::Unary(op, f(a)),
        Op::Binary(op, a, b) => Op::Binary(op, f(a), f(b)),
        Op::Select(c, a, b) => Op::Select(f(c), f(a), f(b)),
        Op::Rename { of, from, to } => Op::Rename { of: f(of), from, to },
        Op::Contract { a, b, over } => Op::Contract { a: f(a), b: f(b), over },
        Op::Reduce { op, of, over } => Op::Reduce { op, of: f(of), over },
        Op::Gather { of, at, fill } => {
            Op::Gather { of: f(of), at: at.into_iter().map(|(a, v)| (a, f(v))).collect(), fill }
        }
        Op::TopK { of, over, rank, ascending } => Op::TopK { of: f(of), over, rank, ascending },
        Op::TriSolve { a, b, row, col } => Op::TriSolve { a: f(a), b: f(b), row, col },
        leaf @ (Op::Real(_)
        | Op::Int(_)
        | Op::Bool(_)
        | Op::Input { .. }
        | Op::Scalar(_)
        | Op::Index(_)
        | Op::Len(_)
        | Op::Hole { .. }
        | Op::Get { .. }) => leaf,
    }
}
