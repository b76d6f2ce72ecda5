//! What holds in a [`Graph`], checked: axes and types, dependency order, folds and their regions, sizes, names.
//!
//! All errors are collected, each at its value, fold, axis or output. Nothing here panics: every number in the graph may
//! be wrong.

use crate::infer::{infer, ty_name};
use crate::ir::{Axis, FoldId, Graph, Mode, Op, Size, Val};
use std::collections::BTreeSet;
use std::fmt;

/// Where an error is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// At an axis declaration.
    Axis(Axis),
    /// At a value.
    Val(Val),
    /// At a fold.
    Fold(FoldId),
    /// At an output, by number.
    Output(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Axis(a) => write!(f, "axis {}", a.0),
            Place::Val(v) => write!(f, "{v}"),
            Place::Fold(id) => write!(f, "{id}"),
            Place::Output(n) => write!(f, "output {n}"),
        }
    }
}

/// A broken rule.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{place}: {message}")]
pub struct Error {
    /// Where.
    pub place: Place,
    /// What.
    pub message: String,
}

/// All broken rules of a graph; at least one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Errors(pub Vec<Error>);

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, error) in self.0.iter().enumerate() {
            if n > 0 {
                writeln!(f)?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

/// Checks a graph.
///
/// # Errors
/// Everything that does not hold.
pub fn verify(g: &Graph) -> Result<(), Errors> {
    let mut check = Check { g, errors: Vec::new() };
    check.axes();
    check.nodes();
    check.folds();
    check.order();
    // Regions are walked only where everything that they name exists.
    if check.errors.is_empty() {
        check.regions();
    }
    check.outputs();
    match check.errors.is_empty() {
        true => Ok(()),
        false => Err(Errors(check.errors)),
    }
}

struct Check<'g> {
    g: &'g Graph,
    errors: Vec<Error>,
}

impl Check<'_> {
    fn report(&mut self, place: Place, message: impl Into<String>) {
        self.errors.push(Error {
            place,
            message: message.into(),
        });
    }

    fn name(&self, a: Axis) -> String {
        self.g
            .axes
            .get(a.index())
            .map_or_else(|| a.to_string(), |d| d.name.clone())
    }

    fn names(&self, axes: &[Axis]) -> String {
        axes.iter().map(|&a| self.name(a)).collect::<Vec<_>>().join(", ")
    }

    fn axes(&mut self) {
        let mut seen = BTreeSet::new();
        for (n, def) in self.g.axes.iter().enumerate() {
            let place = Place::Axis(Axis(n as u32));
            if !seen.insert(&def.name) {
                self.report(place, format!("a second axis `{}`", def.name));
            }
            match def.size {
                Size::Runtime | Size::Const(_) => {}
                Size::Same(of) | Size::CeilDiv { of, .. } if of.index() >= n => {
                    self.report(place, format!("axis `{}` has the size of a later axis", def.name));
                }
                Size::CeilDiv { by: 0, .. } => {
                    self.report(place, format!("axis `{}` has blocks of length 0", def.name))
                }
                Size::Same(_) | Size::CeilDiv { .. } => {}
            }
        }
    }

    fn nodes(&mut self) {
        let mut inputs = BTreeSet::new();
        let mut scalars = BTreeSet::new();
        for (n, node) in self.g.nodes.iter().enumerate() {
            let place = Place::Val(Val(n as u32));
            if let Some(later) = node.op.operands().into_iter().find(|v| v.index() >= n) {
                self.report(place, format!("{later} is used before it is computed"));
                continue;
            }
            match &node.op {
                Op::Input { name, .. } if !inputs.insert(name) => {
                    self.report(place, format!("a second input `{name}`"));
                }
                Op::Scalar(name) if !scalars.insert(name) => self.report(place, format!("a second scalar `{name}`")),
                _ => {}
            }
            let found = infer(self.g, &node.op);
            let sound = found.problems.is_empty();
            for problem in found.problems {
                self.report(place, problem);
            }
            if sound && found.axes != node.axes {
                let (has, wants) = (self.names(&node.axes), self.names(&found.axes));
                self.report(place, format!("has axes [{has}], its operation gives [{wants}]"));
            }
            if let Some(ty) = found.ty.filter(|&ty| sound && ty != node.ty) {
                let message = format!("is {}, its operation gives {}", ty_name(node.ty), ty_name(ty));
                self.report(place, message);
            }
        }
    }

    fn folds(&mut self) {
        for (n, fold) in self.g.folds.iter().enumerate() {
            let place = Place::Fold(FoldId(n as u32));
            if fold.over.is_empty() || fold.over.iter().any(Vec::is_empty) {
                self.report(place, "folds over nothing");
                continue;
            }
            for range in &fold.over {
                let set: BTreeSet<&Axis> = range.iter().collect();
                if set.len() != range.len() {
                    self.report(place, "an axis is named twice in a range");
                }
            }
            if let Some(bad) = fold.axes().find(|a| a.index() >= self.g.axes.len()) {
                self.report(place, format!("{bad} is no axis"));
            }
            let single = fold.over.len() == 1 && fold.over[0].len() == 1;
            if fold.mode != Mode::Reduce && !single {
                self.report(place, "a prefix fold runs over one axis");
            }
            let mut seen = BTreeSet::new();
            for comp in &fold.comps {
                if !seen.insert(&comp.name) {
                    self.report(place, format!("a second component `{}`", comp.name));
                }
                self.comp(n, comp);
            }
        }
    }

    fn comp(&mut self, n: usize, comp: &crate::ir::Comp) {
        let (place, fold) = (Place::Fold(FoldId(n as u32)), &self.g.folds[n]);
        let name = &comp.name;
        if let Some(bad) = comp
            .lift
            .iter()
            .chain([&comp.init, &comp.combine])
            .find(|v| v.index() >= self.g.nodes.len())
        {
            self.report(place, format!("component `{name}` names {bad}, which is no value"));
            return;
        }
        if !comp.axes.is_sorted_by(|a, b| a < b) {
            self.report(
                place,
                format!("the axes of component `{name}` are not in the order of the graph"),
            );
        }
        if let Some(&shared) = comp.axes.iter().find(|a| fold.axes().any(|f| f == **a)) {
            let axis = self.name(shared);
            self.report(place, format!("component `{name}` has the fold's axis `{axis}`"));
        }
        if comp.lift.len() != fold.over.len() {
            let (has, wants) = (comp.lift.len(), fold.over.len());
            self.report(place, format!("component `{name}` has {has} lifts for {wants} ranges"));
            return;
        }
        let common: Vec<Axis> = fold.over[0]
            .iter()
            .copied()
            .filter(|a| fold.over.iter().all(|r| r.contains(a)))
            .collect();
        let ty = self.g.node(comp.init).ty;
        let parts = [("init", comp.init, &[][..]), ("combine", comp.combine, &common[..])];
        let lifts = comp
            .lift
            .iter()
            .zip(&fold.over)
            .map(|(&v, range)| ("lift", v, &range[..]));
        for (what, v, extra) in parts.into_iter().chain(lifts) {
            let node = self.g.node(v);
            if let Some(&axis) = node.axes.iter().find(|a| !comp.axes.contains(a) && !extra.contains(a)) {
                let axis = self.name(axis);
                self.report(
                    place,
                    format!("{what} {v} of component `{name}` has axis `{axis}`, its state has not"),
                );
            }
            if node.ty != ty {
                let (a, b) = (ty_name(node.ty), ty_name(ty));
                self.report(
                    place,
                    format!("{what} {v} of component `{name}` is {a}, its init is {b}"),
                );
            }
        }
    }

    /// Inits and lifts come before holes, combines before results.
    fn order(&mut self) {
        for (n, node) in self.g.nodes.iter().enumerate() {
            let place = Place::Val(Val(n as u32));
            let (fold, late) = match &node.op {
                Op::Hole { fold, .. } => (*fold, false),
                Op::Get { fold, .. } => (*fold, true),
                _ => continue,
            };
            let Some(comps) = self.g.folds.get(fold.index()).map(|f| &f.comps) else {
                continue;
            };
            let mut before = comps
                .iter()
                .flat_map(|c| c.lift.iter().copied().chain([c.init]).chain(late.then_some(c.combine)));
            if let Some(v) = before.find(|v| v.index() >= n) {
                self.report(place, format!("{fold} is used before its {v}"));
            }
        }
    }

    fn regions(&mut self) {
        let regions = regions(self.g);
        for (n, node) in self.g.nodes.iter().enumerate() {
            let place = Place::Val(Val(n as u32));
            for bound in bound_axes(self.g, &node.op) {
                for &(v, axis) in &bound {
                    for &f in &regions.of_val[v.index()] {
                        if self.g.fold(f).axes().any(|a| a == axis) {
                            let axis = self.name(axis);
                            self.report(
                                place,
                                format!("{v} is in the region of {f} and bound along its axis `{axis}`"),
                            );
                        }
                    }
                }
            }
        }
        for (n, fold) in self.g.folds.iter().enumerate() {
            let id = FoldId(n as u32);
            for comp in &fold.comps {
                for (what, v) in comp.lift.iter().map(|&v| ("lift", v)).chain([("init", comp.init)]) {
                    if regions.of_val[v.index()].contains(&id) {
                        self.report(
                            Place::Fold(id),
                            format!("{what} {v} of component `{}` uses the fold's own holes", comp.name),
                        );
                    }
                }
            }
            for &outer in &regions.of_fold[n] {
                if regions.of_fold[outer.index()].contains(&id) {
                    self.report(Place::Fold(id), format!("{id} and {outer} lie in each other's regions"));
                }
                if let Some(axis) = fold.axes().find(|&a| self.g.fold(outer).axes().any(|b| a == b)) {
                    let axis = self.name(axis);
                    self.report(
                        Place::Fold(id),
                        format!("runs along axis `{axis}` of {outer}, in whose region it is"),
                    );
                }
            }
        }
        for (n, output) in self.g.outputs.iter().enumerate() {
            if let Some(of) = regions.of_val.get(output.value.index())
                && let Some(f) = of.first()
            {
                self.report(
                    Place::Output(n),
                    format!("`{}` uses the holes of {f} outside its region", output.name),
                );
            }
        }
    }

    fn outputs(&mut self) {
        let mut seen = BTreeSet::new();
        for (n, output) in self.g.outputs.iter().enumerate() {
            let place = Place::Output(n);
            if !seen.insert(&output.name) {
                self.report(place, format!("a second output `{}`", output.name));
            }
            let Some(node) = self.g.nodes.get(output.value.index()) else {
                self.report(place, format!("{} is no value", output.value));
                continue;
            };
            let mut axes = output.axes.clone();
            axes.sort_unstable();
            if axes != node.axes {
                let (has, wants) = (self.names(&node.axes), self.names(&output.axes));
                self.report(
                    place,
                    format!("`{}` has axes [{has}], asked for as [{wants}]", output.name),
                );
            }
        }
    }
}

/// Which folds' holes a value or a fold's result depends on.
#[derive(Clone, Debug)]
pub struct Regions {
    /// Per value: the folds whose region it is in, ascending.
    pub of_val: Vec<Vec<FoldId>>,
    /// Per fold: the folds whose region its results are in.
    pub of_fold: Vec<Vec<FoldId>>,
}

/// Computes the regions of a graph whose values are in dependency order.
pub fn regions(g: &Graph) -> Regions {
    let mut of_val: Vec<BTreeSet<FoldId>> = vec![BTreeSet::new(); g.nodes.len()];
    let result = |of_val: &[BTreeSet<FoldId>], id: FoldId| -> BTreeSet<FoldId> {
        let values = g.folds.get(id.index()).into_iter().flat_map(|f| f.values());
        let mut found: BTreeSet<FoldId> = values
            .filter_map(|v| of_val.get(v.index()))
            .flatten()
            .copied()
            .collect();
        found.remove(&id);
        found
    };
    for (n, node) in g.nodes.iter().enumerate() {
        let found = match &node.op {
            Op::Hole { fold, .. } => [*fold].into(),
            Op::Get { fold, .. } => result(&of_val, *fold),
            op => op
                .operands()
                .iter()
                .filter_map(|v| of_val.get(v.index()))
                .flatten()
                .copied()
                .collect(),
        };
        of_val[n] = found;
    }
    let of_fold: Vec<Vec<FoldId>> = (0..g.folds.len())
        .map(|n| result(&of_val, FoldId(n as u32)).into_iter().collect())
        .collect();
    // The holes of a fold within a region depend on the outer point, even where no operation says so.
    for of in &mut of_val {
        let mut known = 0;
        while known < of.len() {
            known = of.len();
            let outer: Vec<FoldId> = of
                .iter()
                .filter_map(|f| of_fold.get(f.index()))
                .flatten()
                .copied()
                .collect();
            of.extend(outer);
        }
    }
    Regions {
        of_val: of_val.into_iter().map(|s| s.into_iter().collect()).collect(),
        of_fold,
    }
}

/// The operands that an operation reads along a whole axis, with that axis.
fn bound_axes(g: &Graph, op: &Op) -> Vec<Vec<(Val, Axis)>> {
    let pairs = |v: Val, axes: &[Axis]| -> Vec<(Val, Axis)> {
        axes.iter()
            .copied()
            .filter(|a| g.node(v).axes.contains(a))
            .map(|a| (v, a))
            .collect()
    };
    match op {
        Op::Contract { a, b, over } => vec![pairs(*a, over), pairs(*b, over)],
        Op::Reduce { of, over, .. } => vec![pairs(*of, over)],
        Op::Rename { of, from, to } => vec![vec![(*of, *from), (*of, *to)]],
        Op::Gather { of, at, .. } => vec![at.iter().map(|&(a, _)| (*of, a)).collect()],
        Op::TopK { of, over, .. } => vec![pairs(*of, &[*over])],
        Op::TriSolve { a, b, row, col } => vec![pairs(*a, &[*row, *col]), pairs(*b, &[*row])],
        Op::Real(_)
        | Op::Int(_)
        | Op::Bool(_)
        | Op::Input { .. }
        | Op::Scalar(_)
        | Op::Index(_)
        | Op::Len(_)
        | Op::Unary(..)
        | Op::Binary(..)
        | Op::Select(..)
        | Op::Hole { .. }
        | Op::Get { .. } => Vec::new(),
    }
}
