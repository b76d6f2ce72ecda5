//! Values at the current points of the running folds.
//!
//! A running fold is a [`Level`]: its current point fixes its axes. A value belongs to the highest level on which it
//! depends, by the fold's holes or by one of its axes, and is kept there until the level's point moves on; from a lower
//! level it is sliced at the point.

use super::dense::{self, Dense, Space};
use super::{Inputs, InterpError, Tensor, load};
use crate::ir::{Axis, Binary, Direction, FoldId, Graph, Mode, Op, Side, Unary, Val};
use crate::verify::{Regions, regions};
use std::collections::HashMap;

/// No tensor larger than this is computed.
const MAX_ELEMENTS: usize = 1 << 28;
/// No chain of operations longer than this is followed, so that the stack holds it.
const MAX_DEPTH: usize = 400;

/// The state of one running fold; level 0 is outside of all.
#[derive(Default)]
struct Level {
    fold: Option<FoldId>,
    point: Vec<(Axis, usize)>,
    left: Vec<Dense>,
    right: Vec<Dense>,
    values: HashMap<Val, Dense>,
    folds: HashMap<FoldId, Vec<Dense>>,
}

impl Level {
    fn fixes(&self, axis: Axis) -> bool {
        self.point.iter().any(|p| p.0 == axis)
    }
}

/// A run of the interpreter.
pub struct Run<'g> {
    pub graph: &'g Graph,
    inputs: &'g Inputs,
    sizes: Vec<usize>,
    regions: Regions,
    levels: Vec<Level>,
    depth: usize,
}

type Result<T, E = InterpError> = std::result::Result<T, E>;

impl<'g> Run<'g> {
    /// A run of a verified graph.
    pub fn new(graph: &'g Graph, inputs: &'g Inputs, sizes: Vec<usize>) -> Run<'g> {
        Run {
            graph,
            inputs,
            sizes,
            regions: regions(graph),
            levels: vec![Level::default()],
            depth: 0,
        }
    }

    fn space(&self, axes: &[Axis]) -> Space {
        Space {
            axes: axes.to_vec(),
            shape: axes.iter().map(|a| self.sizes[a.index()]).collect(),
        }
    }

    /// A tensor for the caller.
    pub fn tensor(&self, value: &Dense, order: &[Axis]) -> Tensor {
        let space = self.space(order);
        let data = dense::map([value], &space, |[x]| x).data;
        let axes = order.iter().map(|a| self.graph.axes[a.index()].name.clone()).collect();
        Tensor {
            axes,
            shape: space.shape,
            data: data.to_vec(),
        }
    }

    /// A value at the current points.
    pub fn value(&mut self, v: Val) -> Result<Dense> {
        let top = self.levels.len() - 1;
        if let Some(known) = self.levels[top].values.get(&v) {
            return Ok(known.clone());
        }
        let level = self.level(v);
        let value = if level == top {
            self.depth += 1;
            if self.depth > MAX_DEPTH {
                return Err(InterpError::TooDeep {
                    val: v,
                    limit: MAX_DEPTH,
                });
            }
            let value = self.compute(v)?;
            self.depth -= 1;
            value
        } else {
            let value = self.below(level, |run| run.value(v))?;
            self.at_point(value, level, &[])
        };
        self.levels[top].values.insert(v, value.clone());
        Ok(value)
    }

    /// The level to which a value belongs.
    fn level(&self, v: Val) -> usize {
        let node = self.graph.node(v);
        let region = &self.regions.of_val[v.index()];
        let holes = self
            .levels
            .iter()
            .rposition(|l| l.fold.is_some_and(|f| region.contains(&f)))
            .unwrap_or(0);
        // What makes an axis is computed for the whole of it.
        let whole = match &node.op {
            Op::Get { .. } => true,
            Op::Rename { to: made, .. } | Op::TopK { rank: made, .. } | Op::TriSolve { row: made, .. } => {
                self.levels.iter().any(|l| l.fixes(*made))
            }
            _ => false,
        };
        if whole {
            return holes;
        }
        let axes = self
            .levels
            .iter()
            .rposition(|l| node.axes.iter().any(|&a| l.fixes(a)))
            .unwrap_or(0);
        holes.max(axes)
    }

    /// Computes with the levels above `level` set aside.
    fn below<T>(&mut self, level: usize, f: impl FnOnce(&mut Self) -> T) -> T {
        let aside = self.levels.split_off(level + 1);
        let result = f(self);
        self.levels.extend(aside);
        result
    }

    /// A value of a lower level at the points of those above it; axes in `free` are left whole.
    fn at_point(&self, mut value: Dense, level: usize, free: &[Axis]) -> Dense {
        for l in &self.levels[level + 1..] {
            for &(axis, index) in l.point.iter().filter(|p| !free.contains(&p.0)) {
                value = value.slice(axis, index);
            }
        }
        value
    }

    /// An operand that is read along whole axes.
    fn along(&mut self, v: Val, free: &[Axis]) -> Result<Dense> {
        match self.levels.iter().position(|l| free.iter().any(|&a| l.fixes(a))) {
            None => self.value(v),
            // The verifier has seen to it that the value depends on no fold from there on.
            Some(n) => {
                let value = self.below(n - 1, |run| run.value(v))?;
                Ok(self.at_point(value, n - 1, free))
            }
        }
    }

    fn fits(&self, v: Val, space: &Space) -> Result<()> {
        let elements: u128 = space.shape.iter().map(|&n| n as u128).product();
        match elements <= MAX_ELEMENTS as u128 {
            true => Ok(()),
            false => Err(InterpError::TooLarge {
                val: v,
                elements,
                limit: MAX_ELEMENTS as u128,
            }),
        }
    }

    fn union(&self, v: Val, operands: &[&Dense], except: &[Axis]) -> Result<Space> {
        let space = Space::union(operands, except);
        self.fits(v, &space)?;
        Ok(space)
    }

    fn compute(&mut self, v: Val) -> Result<Dense> {
        let graph = self.graph;
        let value = match &graph.node(v).op {
            Op::Real(x) => Dense::scalar(*x),
            Op::Int(x) => Dense::scalar(*x as f64),
            Op::Bool(x) => Dense::scalar(f64::from(u8::from(*x))),
            Op::Input { name, axes } => {
                // Kept whole at level 0; read here only at a point.
                let top = self.levels.len() - 1;
                if top > 0 {
                    let whole = self.below(0, |run| run.value(v))?;
                    return Ok(self.at_point(whole, 0, &[]));
                }
                let given = self
                    .inputs
                    .tensors
                    .get(name)
                    .ok_or_else(|| InterpError::MissingTensor(name.clone()))?;
                load(graph, &self.sizes, name, axes, given)?
            }
            Op::Scalar(name) => {
                let x = self
                    .inputs
                    .scalars
                    .get(name)
                    .ok_or_else(|| InterpError::MissingScalar(name.clone()))?;
                Dense::scalar(*x)
            }
            Op::Index(axis) => match self.levels.iter().find_map(|l| l.point.iter().find(|p| p.0 == *axis)) {
                Some(&(_, index)) => Dense::scalar(index as f64),
                None => {
                    let space = self.space(&[*axis]);
                    self.fits(v, &space)?;
                    Dense::new(
                        space.axes,
                        space.shape.clone(),
                        (0..space.shape[0]).map(|i| i as f64).collect(),
                    )
                }
            },
            Op::Len(axis) => Dense::scalar(self.sizes[axis.index()] as f64),
            Op::Unary(op, a) => {
                let a = self.value(*a)?;
                unary(*op, &a, &self.union(v, &[&a], &[])?)
            }
            Op::Binary(op, a, b) => {
                let integer = graph.node(*a).ty == crate::ir::Ty::Int;
                let (a, b) = (self.value(*a)?, self.value(*b)?);
                binary(*op, integer, &a, &b, &self.union(v, &[&a, &b], &[])?)
            }
            Op::Select(c, a, b) => {
                let (c, a, b) = (self.value(*c)?, self.value(*a)?, self.value(*b)?);
                let space = self.union(v, &[&c, &a, &b], &[])?;
                dense::map([&c, &a, &b], &space, |[c, a, b]| if c != 0.0 { a } else { b })
            }
            Op::Rename { of, from, to } => {
                let value = self.along(*of, &[*from])?;
                let names: Vec<Axis> = value.axes.iter().map(|&a| if a == *from { *to } else { a }).collect();
                dense::renamed(&value, &names)
            }
            Op::Contract { a, b, over } => {
                let (a, b) = (self.along(*a, over)?, self.along(*b, over)?);
                let space = self.union(v, &[&a, &b], over)?;
                dense::contract(&a, &b, &space, &self.space(over))
            }
            Op::Reduce { op, of, over } => {
                let value = self.along(*of, over)?;
                let space = self.union(v, &[&value], over)?;
                dense::reduce(*op, &value, &space, &self.space(over))
            }
            Op::Gather { of, at, fill } => {
                let moved: Vec<Axis> = at.iter().map(|p| p.0).collect();
                let value = self.along(*of, &moved)?;
                let mut indices = Vec::new();
                for &(axis, index) in at {
                    indices.push((axis, self.value(index)?));
                }
                let mut operands: Vec<&Dense> = indices.iter().map(|p| &p.1).collect();
                let rest = Space::union(&[&value], &moved);
                let rest = Dense::new(rest.axes, rest.shape, Vec::new());
                operands.push(&rest);
                let space = self.union(v, &operands, &[])?;
                dense::gather(&value, &indices, &space, *fill).map_err(|e| InterpError::OutOfRange {
                    val: v,
                    axis: graph.axes[e.axis.index()].name.clone(),
                    index: e.index,
                    len: e.len,
                })?
            }
            Op::TopK {
                of,
                over,
                rank,
                ascending,
            } => {
                let value = self.along(*of, &[*over])?;
                let k = self.sizes[rank.index()];
                let mut out = self.union(v, &[&value], &[*over])?;
                out.shape.push(k);
                self.fits(v, &out)?;
                dense::top_k(&value, *over, *rank, k, *ascending)
            }
            Op::TriSolve { a, b, row, col } => {
                let (a, b) = (self.along(*a, &[*row, *col])?, self.along(*b, &[*row])?);
                self.union(v, &[&a, &b], &[*col])?;
                dense::tri_solve(&a, &b, *row, *col)
            }
            Op::Hole { fold, comp, side } => {
                let level = self.levels.last().expect("invariant: level 0 is always there");
                debug_assert_eq!(level.fold, Some(*fold));
                let states = match side {
                    Side::Left => &level.left,
                    Side::Right => &level.right,
                };
                states[*comp as usize].clone()
            }
            Op::Get { fold, comp } => {
                let top = self.levels.len() - 1;
                if !self.levels[top].folds.contains_key(fold) {
                    let results = self.fold(*fold, v)?;
                    self.levels[top].folds.insert(*fold, results);
                }
                self.levels[top].folds[fold][*comp as usize].clone()
            }
        };
        // An axis made here may be fixed at a point.
        Ok(self.at_point(value, 0, &[]))
    }

    /// The points of a fold, in its order, with the range of each.
    fn points(&self, fold: FoldId) -> Vec<(usize, Vec<(Axis, usize)>)> {
        let fold = self.graph.fold(fold);
        let mut points = Vec::new();
        for (n, range) in fold.over.iter().enumerate() {
            let space = self.space(range);
            for flat in 0..space.volume() {
                let mut rest = flat;
                let mut point: Vec<(Axis, usize)> = Vec::with_capacity(range.len());
                for (&axis, &size) in space.axes.iter().zip(&space.shape).rev() {
                    point.push((axis, rest % size));
                    rest /= size;
                }
                points.push((n, point));
            }
        }
        if fold.direction == Direction::Backward {
            points.reverse();
        }
        points
    }

    fn state_space(&self, fold: FoldId, comp: usize) -> Space {
        let axes = &self.graph.fold(fold).comps[comp].axes;
        let free: Vec<Axis> = axes
            .iter()
            .copied()
            .filter(|&a| !self.levels.iter().any(|l| l.fixes(a)))
            .collect();
        self.space(&free)
    }

    /// The inits over the axes of the state.
    pub fn inits(&mut self, fold: FoldId) -> Result<Vec<Dense>> {
        let comps = &self.graph.fold(fold).comps;
        let mut state = Vec::with_capacity(comps.len());
        for (n, comp) in comps.iter().enumerate() {
            let space = self.state_space(fold, n);
            self.fits(comp.init, &space)?;
            state.push(self.value(comp.init)?.broadcast(&space));
        }
        Ok(state)
    }

    /// Runs a fold on top of the current levels.
    fn fold(&mut self, id: FoldId, at: Val) -> Result<Vec<Dense>> {
        let fold = self.graph.fold(id);
        let mut state = self.inits(id)?;
        let spaces: Vec<Space> = (0..state.len()).map(|n| self.state_space(id, n)).collect();
        let points = self.points(id);
        let mut kept: Vec<Vec<Dense>> = Vec::new();
        for (range, point) in points {
            if fold.mode == Mode::Exclusive {
                kept.push(state.clone());
            }
            let right = self.lifts(id, range, point.clone())?;
            state = self.combined(id, point, state, right)?;
            if fold.mode == Mode::Inclusive {
                kept.push(state.clone());
            }
        }
        if fold.mode == Mode::Reduce {
            return Ok(state);
        }
        if fold.direction == Direction::Backward {
            kept.reverse();
        }
        let axis = fold.over[0][0];
        let mut results = Vec::with_capacity(spaces.len());
        for (n, space) in spaces.iter().enumerate() {
            // States lie behind each other; the fold's axis then moves to its place.
            let data: Vec<f64> = kept.iter().flat_map(|s| s[n].data.iter().copied()).collect();
            let axes: Vec<Axis> = [&[axis], space.axes.as_slice()].concat();
            let stacked = Dense::new(axes.clone(), self.space(&axes).shape, data);
            self.fits(at, &self.space(&axes))?;
            results.push(dense::renamed(&stacked, &axes));
        }
        Ok(results)
    }

    /// The lifts of a fold at a point, over the axes of its state.
    pub fn lifts(&mut self, id: FoldId, range: usize, point: Vec<(Axis, usize)>) -> Result<Vec<Dense>> {
        self.levels.push(Level {
            fold: Some(id),
            point,
            ..Level::default()
        });
        let comps = &self.graph.fold(id).comps;
        let lifts: Result<Vec<Dense>> = comps.iter().map(|c| self.value(c.lift[range])).collect();
        self.levels.pop();
        Ok(self.over_state(id, &lifts?))
    }

    /// The combination of two states at a point, over the axes of the state.
    pub fn combined(
        &mut self,
        id: FoldId,
        point: Vec<(Axis, usize)>,
        left: Vec<Dense>,
        right: Vec<Dense>,
    ) -> Result<Vec<Dense>> {
        self.levels.push(Level {
            fold: Some(id),
            point,
            left,
            right,
            ..Level::default()
        });
        let comps = &self.graph.fold(id).comps;
        let next: Result<Vec<Dense>> = comps.iter().map(|c| self.value(c.combine)).collect();
        self.levels.pop();
        Ok(self.over_state(id, &next?))
    }

    /// The points of a fold at level 0, with the lifts at each.
    pub fn all_lifts(&mut self, id: FoldId) -> Result<Vec<Vec<Dense>>> {
        self.points(id)
            .into_iter()
            .map(|(range, point)| self.lifts(id, range, point))
            .collect()
    }

    /// States over all their axes.
    fn over_state(&self, id: FoldId, states: &[Dense]) -> Vec<Dense> {
        states
            .iter()
            .enumerate()
            .map(|(n, d)| d.broadcast(&self.state_space(id, n)))
            .collect()
    }
}

fn unary(op: Unary, a: &Dense, space: &Space) -> Dense {
    let map = |f: fn(f64) -> f64| dense::map([a], space, |[x]| f(x));
    match op {
        Unary::Neg => map(|x| -x),
        Unary::Not => map(|x| 1.0 - x),
        Unary::Abs => map(f64::abs),
        Unary::Exp => map(f64::exp),
        Unary::Log => map(f64::ln),
        Unary::Tanh => map(f64::tanh),
        Unary::Sqrt => map(f64::sqrt),
        Unary::Rsqrt => map(|x| 1.0 / x.sqrt()),
        Unary::Recip => map(f64::recip),
        Unary::Sin => map(f64::sin),
        Unary::Cos => map(f64::cos),
        Unary::Floor => map(f64::floor),
        Unary::Sign => map(|x| {
            if x > 0.0 {
                1.0
            } else if x < 0.0 {
                -1.0
            } else {
                x
            }
        }),
        Unary::ToReal => a.clone(),
    }
}

fn binary(op: Binary, integer: bool, a: &Dense, b: &Dense, space: &Space) -> Dense {
    let truth = |b: bool| f64::from(u8::from(b));
    let floor_div = |x: f64, y: f64| if y == 0.0 { 0.0 } else { (x / y).floor() };
    match op {
        Binary::Add => dense::map([a, b], space, |[x, y]| x + y),
        Binary::Sub => dense::map([a, b], space, |[x, y]| x - y),
        Binary::Mul => dense::map([a, b], space, |[x, y]| x * y),
        Binary::Div if integer => dense::map([a, b], space, |[x, y]| floor_div(x, y)),
        Binary::Div => dense::map([a, b], space, |[x, y]| x / y),
        Binary::Rem => dense::map(
            [a, b],
            space,
            |[x, y]| if y == 0.0 { 0.0 } else { x - y * floor_div(x, y) },
        ),
        Binary::Min => dense::map([a, b], space, |[x, y]| x.min(y)),
        Binary::Max => dense::map([a, b], space, |[x, y]| x.max(y)),
        Binary::Lt => dense::map([a, b], space, |[x, y]| truth(x < y)),
        Binary::Le => dense::map([a, b], space, |[x, y]| truth(x <= y)),
        Binary::Eq => dense::map([a, b], space, |[x, y]| truth(x == y)),
        Binary::And => dense::map([a, b], space, |[x, y]| x * y),
        Binary::Or => dense::map([a, b], space, |[x, y]| x.max(y)),
        Binary::BitAnd => dense::map([a, b], space, |[x, y]| (x as i64 & y as i64) as f64),
        Binary::Shr => dense::map([a, b], space, |[x, y]| (x as i64 >> (y.clamp(0.0, 63.0) as u32)) as f64),
        Binary::Pow => dense::map([a, b], space, |[x, y]| x.powf(y)),
    }
}
