//! The derivative of a fold: states before each point, the adjoint state from the other end, and what each point receives.

use super::{Adjoints, Maker, Refused};
use crate::build::{CompDef, FoldDef};
use crate::ir::{Axis, Binary, Direction, FoldId, Mode, Op, Side, Ty, Val};
use crate::monoid::components;
use std::collections::BTreeMap;

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
    /// The adjoint of a fold: from the adjoints of its results to those of its inits, lifts and what its combine reads.
    pub(super) fn fold(&mut self, id: FoldId, adjoints: &mut Adjoints) -> Result<(), Refused> {
        let fold = self.g.fold(id).clone();
        let results: BTreeMap<u32, Val> = self.collect(id, adjoints);
        if results.is_empty() {
            return Ok(());
        }
        if let (Some(comps), Mode::Reduce, []) = (
            components(self.g, id),
            fold.mode,
            self.regions.of_fold[id.index()].as_slice(),
        ) {
            self.softmax(id, comps, &results, adjoints);
            return Ok(());
        }
        let [range] = fold.over.as_slice() else {
            return Err(Refused(format!("{id} runs over several ranges")));
        };
        let &[axis] = range.as_slice() else {
            return Err(Refused(format!("{id} runs over several axes")));
        };
        let region: Vec<Val> = (0..self.g.nodes.len() as u32)
            .map(Val)
            .filter(|v| self.regions.of_val[v.index()].contains(&id))
            .collect();
        let nested = |v: &Val| matches!(self.g.node(*v).op, Op::Get { .. });
        if !self.regions.of_fold[id.index()].is_empty() || region.iter().any(nested) {
            return Err(Refused(format!("{id} lies in a region or has a fold in its own")));
        }
        let before = self.states_before(id, &region);
        let mut unrolled = Unrolled {
            values: BTreeMap::new(),
        };
        for &v in &region {
            let value = match self.g.node(v).op {
                Op::Hole {
                    comp, side: Side::Left, ..
                } => before[comp as usize],
                Op::Hole {
                    comp,
                    side: Side::Right,
                    ..
                } => fold.comps[comp as usize].lift[0],
                _ => {
                    let op = map_operands(&self.g.node(v).op, |v| unrolled.of(v));
                    self.b.typed(op, self.g.node(v).ty)
                }
            };
            unrolled.values.insert(v, value);
        }
        let real: Vec<u32> = (0..fold.comps.len() as u32)
            .filter(|&n| self.g.node(fold.comps[n as usize].init).ty == Ty::Real)
            .collect();
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
                Op::Hole {
                    comp,
                    side: Side::Right,
                    ..
                } => fold.comps[comp as usize].lift[0],
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
            let Some(&adjoint) = adjoints.get(&Val(n as u32)).filter(|_| fold == id) else {
                continue;
            };
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
            let mut copy = Unrolled {
                values: BTreeMap::new(),
            };
            for &v in region {
                let node = self.g.node(v);
                let op = match node.op {
                    Op::Hole { comp, side, .. } => Op::Hole {
                        fold: prefix,
                        comp,
                        side,
                    },
                    ref op => map_operands(op, |v| copy.of(v)),
                };
                let value = self.b.typed(op, node.ty);
                copy.values.insert(v, value);
            }
            let combines: Vec<Val> = fold.comps.iter().map(|c| copy.of(c.combine)).collect();
            self.b.combine(prefix, &combines);
        }
        (0..fold.comps.len() as u32)
            .map(|comp| self.b.get(prefix, comp))
            .collect()
    }

    /// The fold of the adjoint state, over the real components.
    #[expect(
        clippy::too_many_arguments,
        reason = "one fold, described in parts that its caller has at hand"
    )]
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
            let (init, lift) = if fold.mode == Mode::Reduce {
                (own, zero)
            } else {
                (zero, own)
            };
            CompDef {
                name: format!("d_{}", def.name),
                axes: def.axes.clone(),
                init,
                lift: vec![lift],
            }
        });
        let comps = comps.collect();
        let direction = match fold.direction {
            Direction::Forward => Direction::Backward,
            Direction::Backward => Direction::Forward,
        };
        let def = FoldDef {
            over: vec![vec![axis]],
            direction,
            mode,
            associative: false,
        };
        let backward = self.b.fold(def, comps);
        let mut seeds = Vec::new();
        let mut own = BTreeMap::new();
        for (n, &comp) in real.iter().enumerate() {
            let carried = self.b.hole(backward, n as u32, Side::Left);
            let lifted = self.b.hole(backward, n as u32, Side::Right);
            own.insert(comp, lifted);
            let seed = if fold.mode == Mode::Inclusive {
                self.b.binary(Binary::Add, carried, lifted)
            } else {
                carried
            };
            seeds.push((comp, seed));
        }
        let parts = self.within(id, region, unrolled, &seeds, true);
        let mut next: BTreeMap<u32, Val> = BTreeMap::new();
        if fold.mode == Mode::Exclusive {
            next.clone_from(&own);
        }
        for (v, part) in parts {
            if let Op::Hole {
                comp, side: Side::Left, ..
            } = self.g.node(v).op
            {
                let sum = match next.get(&comp) {
                    Some(&known) => self.b.binary(Binary::Add, known, part),
                    None => part,
                };
                next.insert(comp, sum);
            }
        }
        let combines: Vec<Val> = real
            .iter()
            .map(|comp| next.get(comp).copied().unwrap_or(zero))
            .collect();
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
                ref op => op
                    .operands()
                    .iter()
                    .any(|o| wanted.get(o).copied().unwrap_or(!left_only)),
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
            let need: Vec<bool> = operands
                .iter()
                .map(|o| inside(o).unwrap_or(!left_only && self.active[o.index()]))
                .collect();
            for (at, part) in self.pullback(&op, unrolled.of(v), adjoint, &need) {
                let target = if inside(&operands[at]).is_some() {
                    &mut local
                } else {
                    &mut found
                };
                self.add(target, operands[at], part);
            }
        }
        found
    }
}

/// An operation with other operands.
fn map_operands(op: &Op, f: impl Fn(Val) -> Val) -> Op {
    let mut op = op.clone();
    op.map_operands(f);
    op
}
