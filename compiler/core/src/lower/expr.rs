//! Graph expressions to fragment expressions: scores and masks over a query-by-key tile.
//!
//! A value that is a sum of a part without the key axis and a part without the query axis is kept *separated*
//! ([`Lowered::Split`]): `bias[h, i] + bias[h, j]` costs one addition an element, and `j <= i` one comparison, because the
//! parts are vectors. Values without the key axis are computed once before the loop ([`Exprs::hoist`]).

use super::Unsupported;
use super::algebra::constant;
use super::builder::Builder;
use super::separate::separated;
use drawloom_graph::ir::{Axis, Binary, Graph, Op as GOp, Ty, Unary, Val as GVal};
use drawloom_kernel::ir::{Dtype, Frag, Layout, MapOp, Op, ParamId, Val};
use std::collections::{BTreeMap, HashMap};

/// `log2(e)`.
pub const LOG2_E: f32 = std::f32::consts::LOG2_E;

/// A lowered value.
#[derive(Clone, Copy, Debug)]
pub enum Lowered {
    /// A fragment of any shape.
    One(Val),
    /// `row + col`: a part without the key axis, and a `1 x cols` part.
    Split {
        /// Scalar or `rows x 1`.
        row: Val,
        /// `1 x cols`.
        col: Val,
    },
}

/// What an axis is to the tile.
#[derive(Clone, Copy, Debug)]
pub enum Coord {
    /// One index for the whole tile (an `i32` scalar).
    Fixed(Val),
    /// One index per row (`rows x 1`), valid where the second value (a bool column) holds.
    Row(Val, Val),
    /// The key axis: the number of the tile's first key, and the axis's length.
    Key {
        /// First key of the tile; only inside the loop.
        base: Option<Val>,
        /// Number of keys.
        len: Val,
        /// Keys of a tile.
        cols: u32,
    },
}

/// A tensor parameter that expressions load from.
#[derive(Clone, Debug)]
pub struct Table {
    /// Parameter.
    pub param: ParamId,
    /// Memory type.
    pub dtype: Dtype,
    /// Its axes in parameter order.
    pub axes: Vec<Axis>,
}

/// The environment of a lowering, and what has been lowered so far.
#[derive(Clone)]
pub struct Exprs<'g> {
    /// The graph.
    pub graph: &'g Graph,
    /// Coordinates of the axes.
    pub coords: BTreeMap<Axis, Coord>,
    /// The key axis.
    pub key: Axis,
    /// Sizes: an `i32` scalar per axis.
    pub lens: BTreeMap<Axis, Val>,
    /// Input tensors by name.
    pub tables: BTreeMap<String, Table>,
    /// Run-time scalars by name.
    pub scalars: BTreeMap<String, Val>,
    /// Values lowered so far; the score's contraction is put here by the caller.
    pub memo: HashMap<GVal, Lowered>,
    /// How often each graph value is used.
    uses: std::rc::Rc<Vec<u32>>,
}

impl<'g> Exprs<'g> {
    /// An environment with nothing in it.
    pub fn new(graph: &'g Graph, key: Axis) -> Exprs<'g> {
        let mut uses = vec![0; graph.nodes.len()];
        for node in &graph.nodes {
            for v in node.op.operands() {
                uses[v.index()] += 1;
            }
        }
        Exprs {
            graph,
            coords: BTreeMap::new(),
            key,
            lens: BTreeMap::new(),
            tables: BTreeMap::new(),
            scalars: BTreeMap::new(),
            memo: HashMap::new(),
            uses: std::rc::Rc::new(uses),
        }
    }

    /// Whether a value depends on the key axis or on an already lowered tile.
    fn varies(&self, v: GVal) -> bool {
        self.graph.nodes[v.index()].axes.contains(&self.key)
    }

    /// Lowers the parts of `v` that do not depend on the key, into the current block.
    ///
    /// # Errors
    /// [`Unsupported`] if `v` contains an operation that has no tile form.
    pub fn hoist(&mut self, b: &mut Builder, v: GVal) -> Result<(), Unsupported> {
        if self.memo.contains_key(&v) {
            return Ok(());
        }
        if !self.varies(v) {
            self.lower(b, v)?;
            return Ok(());
        }
        for operand in self.graph.nodes[v.index()].op.operands() {
            // A contraction over features is the matrix product of the tile; its operands are not expressions.
            if !matches!(self.graph.nodes[v.index()].op, GOp::Contract { .. }) && !self.is_tensor(operand) {
                self.hoist(b, operand)?;
            }
        }
        Ok(())
    }

    fn is_tensor(&self, v: GVal) -> bool {
        matches!(self.graph.nodes[v.index()].op, GOp::Input { .. })
    }

    /// Lowers a value to one fragment.
    ///
    /// # Errors
    /// [`Unsupported`], as in [`Exprs::hoist`].
    pub fn one(&mut self, b: &mut Builder, v: GVal) -> Result<Val, Unsupported> {
        let lowered = self.lower(b, v)?;
        Ok(self.join(b, lowered, self.graph.nodes[v.index()].ty))
    }

    fn join(&self, b: &mut Builder, lowered: Lowered, ty: Ty) -> Val {
        match lowered {
            Lowered::One(v) => v,
            // Both parts first: they nearly cancel where queries meet their own positions, and what is added to one of them
            // alone would be rounded as if it were as large. Where both are multiples of one factor, what they are multiples
            // of: numbers of positions, whose sum is exact.
            Lowered::Split { row, col } => match (b.factors(row), b.factors(col)) {
                (Some((factor, row)), Some((other, col))) if factor == other => {
                    let sum = b.map(MapOp::Add, dtype(ty), &[row, col]);
                    b.map(MapOp::Mul, dtype(ty), &[factor, sum])
                }
                _ => b.map(MapOp::Add, dtype(ty), &[row, col]),
            },
        }
    }

    /// Lowers a value.
    ///
    /// # Errors
    /// [`Unsupported`], as in [`Exprs::hoist`].
    pub fn lower(&mut self, b: &mut Builder, v: GVal) -> Result<Lowered, Unsupported> {
        if let Some(&known) = self.memo.get(&v) {
            return Ok(known);
        }
        let lowered = self.compute(b, v)?;
        self.memo.insert(v, lowered);
        Ok(lowered)
    }

    fn compute(&mut self, b: &mut Builder, v: GVal) -> Result<Lowered, Unsupported> {
        let node = &self.graph.nodes[v.index()];
        if let Some(c) = constant(self.graph, v) {
            return Ok(Lowered::One(match node.ty {
                Ty::Real => b.float(c as f32),
                Ty::Int => b.int(c as i64),
                Ty::Bool => b.def(Frag::scalar(Dtype::Bool), Op::ConstI(i64::from(c != 0.0))),
            }));
        }
        Ok(match &node.op {
            GOp::Real(_) | GOp::Int(_) | GOp::Bool(_) => unreachable!("invariant: constants are folded above"),
            GOp::Scalar(name) => Lowered::One(
                *self
                    .scalars
                    .get(name)
                    .ok_or_else(|| Unsupported::new(format!("unknown scalar `{name}`")))?,
            ),
            GOp::Len(axis) => Lowered::One(self.len(*axis)?),
            GOp::Index(axis) => self.index(b, *axis)?,
            GOp::Input { name, axes } => {
                let at: Vec<(Axis, Option<GVal>)> = axes.iter().map(|&a| (a, None)).collect();
                Lowered::One(self.load(b, name, &at, 0.0)?)
            }
            GOp::Gather { of, at, fill } => {
                let GOp::Input { name, axes } = &self.graph.nodes[of.index()].op else {
                    return Err(Unsupported::new("a gather from a computed value"));
                };
                let at = axes
                    .iter()
                    .map(|&a| (a, at.iter().find(|(axis, _)| *axis == a).map(|&(_, index)| index)))
                    .collect::<Vec<_>>();
                Lowered::One(self.load(b, name, &at, fill.unwrap_or(0.0))?)
            }
            GOp::Unary(op, a) => self.unary(b, *op, *a)?,
            GOp::Binary(op, x, y) => self.binary(b, *op, *x, *y, node.ty)?,
            GOp::Select(c, x, y) => {
                let c = self.one(b, *c)?;
                let x = self.one(b, *x)?;
                let y = self.one(b, *y)?;
                Lowered::One(b.map(MapOp::Select, dtype(node.ty), &[c, x, y]))
            }
            GOp::Contract { .. } => return Err(Unsupported::new("a second contraction in a score")),
            GOp::Rename { .. } => return Err(Unsupported::new("a renamed axis in a score")),
            GOp::Reduce { .. } => return Err(Unsupported::new("a reduction in a score")),
            GOp::TopK { .. } => return Err(Unsupported::new("a top-k in a score")),
            GOp::TriSolve { .. } => return Err(Unsupported::new("a triangular solve in a score")),
            GOp::Hole { .. } | GOp::Get { .. } => return Err(Unsupported::new("a fold's result in a score")),
        })
    }

    fn len(&self, axis: Axis) -> Result<Val, Unsupported> {
        self.lens
            .get(&axis)
            .copied()
            .ok_or_else(|| Unsupported::new(format!("the size of axis `{}`", self.graph.axes[axis.index()].name)))
    }

    fn index(&mut self, b: &mut Builder, axis: Axis) -> Result<Lowered, Unsupported> {
        Ok(match self.coords.get(&axis) {
            Some(&Coord::Fixed(v)) => Lowered::One(v),
            Some(&Coord::Row(v, _)) => Lowered::One(v),
            Some(&Coord::Key {
                base: Some(base), cols, ..
            }) => {
                let col = b.def(
                    Frag {
                        dtype: Dtype::I32,
                        rows: 1,
                        cols,
                        layout: Layout::Mma,
                    },
                    Op::ColIota,
                );
                Lowered::Split { row: base, col }
            }
            Some(Coord::Key { base: None, .. }) | None => {
                return Err(Unsupported::new(format!(
                    "the index of axis `{}` in a score",
                    self.graph.axes[axis.index()].name
                )));
            }
        })
    }

    /// Loads from an input: per axis of the parameter, an index value or the axis's own coordinate.
    fn load(
        &mut self,
        b: &mut Builder,
        name: &str,
        at: &[(Axis, Option<GVal>)],
        fill: f64,
    ) -> Result<Val, Unsupported> {
        let table = self
            .tables
            .get(name)
            .cloned()
            .ok_or_else(|| Unsupported::new(format!("unknown input `{name}`")))?;
        let mut index = Vec::new();
        let mut guard: Option<Val> = None;
        let mut require = |b: &mut Builder, cond: Val| {
            guard = Some(match guard {
                None => cond,
                Some(g) => b.test(MapOp::And, &[g, cond]),
            });
        };
        for &(axis, value) in at {
            match value {
                None => match self.coords.get(&axis) {
                    Some(&Coord::Fixed(v)) => index.push(v),
                    Some(&Coord::Row(v, valid)) => {
                        index.push(v);
                        require(b, valid);
                    }
                    Some(&Coord::Key {
                        base: Some(base),
                        len,
                        cols,
                    }) => {
                        let col = b.def(
                            Frag {
                                dtype: Dtype::I32,
                                rows: 1,
                                cols,
                                layout: Layout::Mma,
                            },
                            Op::ColIota,
                        );
                        let j = b.map(MapOp::Add, Dtype::I32, &[base, col]);
                        let inside = b.test(MapOp::Lt, &[j, len]);
                        index.push(j);
                        require(b, inside);
                    }
                    Some(Coord::Key { base: None, .. }) | None => {
                        return Err(Unsupported::new(format!(
                            "`{name}` over an axis that the tile does not have"
                        )));
                    }
                },
                Some(v) => {
                    let v = self.one(b, v)?;
                    let len = self.len(axis)?;
                    let zero = b.int(0);
                    let low = b.test(MapOp::Le, &[zero, v]);
                    let high = b.test(MapOp::Lt, &[v, len]);
                    require(b, low);
                    require(b, high);
                    index.push(v);
                }
            }
        }
        let mut shape = Frag {
            dtype: table.dtype,
            rows: 1,
            cols: 1,
            layout: Layout::Uniform,
        };
        for &v in index.iter().chain(guard.as_ref()) {
            let t = b.ty(v);
            shape.rows = shape.rows.max(t.rows);
            shape.cols = shape.cols.max(t.cols);
            if t.layout != Layout::Uniform {
                shape.layout = t.layout;
            }
        }
        let loaded = b.def(
            shape,
            Op::LoadGlobal {
                tensor: table.param,
                at: index,
                guard,
                fill,
            },
        );
        Ok(match table.dtype {
            Dtype::F16 | Dtype::Bf16 => b.mapf(MapOp::Convert, &[loaded]),
            Dtype::F32 | Dtype::I32 | Dtype::I64 | Dtype::Bool => loaded,
        })
    }

    fn unary(&mut self, b: &mut Builder, op: Unary, a: GVal) -> Result<Lowered, Unsupported> {
        let lowered = self.lower(b, a)?;
        let ty = self.graph.nodes[a.index()].ty;
        // Linear operations keep a sum separated.
        if let Lowered::Split { row, col } = lowered {
            match op {
                Unary::ToReal => {
                    let row = b.mapf(MapOp::Convert, &[row]);
                    let col = b.mapf(MapOp::Convert, &[col]);
                    return Ok(Lowered::Split { row, col });
                }
                Unary::Neg => {
                    let row = b.map(MapOp::Neg, dtype(ty), &[row]);
                    let col = b.map(MapOp::Neg, dtype(ty), &[col]);
                    return Ok(Lowered::Split { row, col });
                }
                Unary::Not
                | Unary::Abs
                | Unary::Exp
                | Unary::Log
                | Unary::Tanh
                | Unary::Sqrt
                | Unary::Rsqrt
                | Unary::Recip
                | Unary::Sin
                | Unary::Cos
                | Unary::Floor
                | Unary::Sign => {}
            }
        }
        let x = self.join(b, lowered, ty);
        Ok(Lowered::One(match op {
            Unary::Neg => b.map(MapOp::Neg, dtype(ty), &[x]),
            Unary::Abs => b.map(MapOp::Abs, dtype(ty), &[x]),
            Unary::Not => b.test(MapOp::Not, &[x]),
            Unary::ToReal => b.mapf(MapOp::Convert, &[x]),
            Unary::Exp => {
                let k = b.float(LOG2_E);
                let scaled = b.mapf(MapOp::Mul, &[x, k]);
                b.mapf(MapOp::Exp2, &[scaled])
            }
            Unary::Log => {
                let log = b.mapf(MapOp::Log2, &[x]);
                let k = b.float(std::f32::consts::LN_2);
                b.mapf(MapOp::Mul, &[log, k])
            }
            Unary::Tanh => b.mapf(MapOp::Tanh, &[x]),
            Unary::Sqrt => b.mapf(MapOp::Sqrt, &[x]),
            Unary::Rsqrt => b.mapf(MapOp::Rsqrt, &[x]),
            Unary::Recip => b.mapf(MapOp::Rcp, &[x]),
            Unary::Sin | Unary::Cos | Unary::Floor | Unary::Sign => {
                return Err(Unsupported::new(format!("{op:?} in a score")));
            }
        }))
    }

    fn binary(&mut self, b: &mut Builder, op: Binary, x: GVal, y: GVal, ty: Ty) -> Result<Lowered, Unsupported> {
        let operand_ty = self.graph.nodes[x.index()].ty;
        // a * b + c with a product that is used nowhere else.
        if op == Binary::Add && ty == Ty::Real {
            for (product, other) in [(x, y), (y, x)] {
                if self.uses[product.index()] == 1
                    && !self.memo.contains_key(&product)
                    && let GOp::Binary(Binary::Mul, p, q) = self.graph.nodes[product.index()].op
                    && self.varies(product)
                    && constant(self.graph, product).is_none()
                    && self.has_tile(product)
                {
                    let p = self.one(b, p)?;
                    let q = self.one(b, q)?;
                    let c = self.one(b, other)?;
                    return Ok(Lowered::One(b.mapf(MapOp::Fma, &[p, q, c])));
                }
            }
        }
        let lx = self.lower(b, x)?;
        let ly = self.lower(b, y)?;
        if let Some(split) = separated(b, op, lx, ly, operand_ty) {
            return Ok(split);
        }
        let (vx, vy) = (
            self.join(b, lx, operand_ty),
            self.join(b, ly, self.graph.nodes[y.index()].ty),
        );
        let d = dtype(operand_ty);
        Ok(Lowered::One(match (op, ty) {
            (Binary::Add, Ty::Real) => b.mapf(MapOp::Add, &[vx, vy]),
            (Binary::Sub, Ty::Real) => b.mapf(MapOp::Sub, &[vx, vy]),
            (Binary::Mul, Ty::Real) => b.mapf(MapOp::Mul, &[vx, vy]),
            (Binary::Div, Ty::Real) => match constant(self.graph, y) {
                Some(c) => {
                    let inverse = b.float((1.0 / c) as f32);
                    b.mapf(MapOp::Mul, &[vx, inverse])
                }
                // One reciprocal a row, not one an element.
                None if b.ty(vy).cols < b.ty(vx).cols => {
                    let inverse = b.mapf(MapOp::Rcp, &[vy]);
                    b.mapf(MapOp::Mul, &[vx, inverse])
                }
                None => b.mapf(MapOp::Div, &[vx, vy]),
            },
            (Binary::Add, Ty::Int | Ty::Bool) => b.add(vx, vy),
            (Binary::Sub, Ty::Int | Ty::Bool) => b.sub(vx, vy),
            (Binary::Mul, Ty::Int | Ty::Bool) => b.mul(vx, vy),
            (Binary::Div, Ty::Int | Ty::Bool) => b.div(vx, vy),
            (Binary::Rem, Ty::Int) => b.rem(vx, vy),
            (Binary::Min, Ty::Real | Ty::Int) => b.map(MapOp::Min, d, &[vx, vy]),
            (Binary::Max, Ty::Real | Ty::Int) => b.map(MapOp::Max, d, &[vx, vy]),
            (Binary::Lt, _) => b.test(MapOp::Lt, &[vx, vy]),
            (Binary::Le, _) => b.test(MapOp::Le, &[vx, vy]),
            (Binary::Eq, _) => b.test(MapOp::Eq, &[vx, vy]),
            (Binary::And, _) => b.test(MapOp::And, &[vx, vy]),
            (Binary::Or, _) => b.test(MapOp::Or, &[vx, vy]),
            (Binary::Rem | Binary::Min | Binary::Max, Ty::Real | Ty::Bool)
            | (Binary::BitAnd | Binary::Shr | Binary::Pow, _) => {
                return Err(Unsupported::new(format!("{op:?} in a score")));
            }
        }))
    }

    /// Whether a value depends on an already lowered `rows x cols` tile (the score's contraction).
    pub(super) fn has_tile(&self, v: GVal) -> bool {
        match &self.graph.nodes[v.index()].op {
            GOp::Contract { .. } => true,
            op => op.operands().into_iter().any(|o| self.has_tile(o)),
        }
    }
}

/// The register type of a graph type.
pub(super) fn dtype(ty: Ty) -> Dtype {
    match ty {
        Ty::Real => Dtype::F32,
        Ty::Int => Dtype::I32,
        Ty::Bool => Dtype::Bool,
    }
}
