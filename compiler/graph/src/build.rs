//! Building graphs: operations in, values with inferred axes and types out.
//!
//! Nothing here fails: what breaks a rule is found when [`Builder::finish`] verifies the whole.

use crate::infer::infer;
use crate::ir::{
    Axis, AxisDef, Binary, Comp, Direction, Fold, FoldId, Graph, Mode, Node, Op, Output, Reduce, Side, Size, Ty, Unary,
    Val,
};
use crate::verify::{Errors, verify};

/// A graph under construction.
#[derive(Clone, Debug)]
pub struct Builder {
    /// The graph so far.
    pub graph: Graph,
}

/// What one component of a fold starts from: its combine follows when the holes exist.
#[derive(Clone, Debug)]
pub struct CompDef {
    /// Name.
    pub name: String,
    /// Axes of the state, fold axes excluded.
    pub axes: Vec<Axis>,
    /// State before the first point.
    pub init: Val,
    /// State of one point, one per range.
    pub lift: Vec<Val>,
}

/// How a fold runs.
#[derive(Clone, Debug)]
pub struct FoldDef {
    /// Ranges.
    pub over: Vec<Vec<Axis>>,
    /// Order.
    pub direction: Direction,
    /// What it yields.
    pub mode: Mode,
    /// Whether it is claimed to be associative.
    pub associative: bool,
}

impl Builder {
    /// An empty graph.
    pub fn new(name: &str) -> Builder {
        let graph = Graph {
            name: name.to_owned(),
            axes: Vec::new(),
            nodes: Vec::new(),
            folds: Vec::new(),
            outputs: Vec::new(),
        };
        Builder { graph }
    }

    /// Goes on with a graph.
    pub fn from_graph(graph: Graph) -> Builder {
        Builder { graph }
    }

    /// The graph, verified.
    ///
    /// # Errors
    /// What [`verify`] finds.
    pub fn finish(self) -> Result<Graph, Errors> {
        verify(&self.graph)?;
        Ok(self.graph)
    }

    /// A new axis.
    pub fn axis(&mut self, name: &str, size: Size) -> Axis {
        self.graph.axes.push(AxisDef {
            name: name.to_owned(),
            size,
        });
        Axis(self.graph.axes.len() as u32 - 1)
    }

    /// A new axis of the size of `of`, named after it with marks until the name is free.
    pub fn twin(&mut self, of: Axis) -> Axis {
        let base = self.graph.axes[of.index()].name.clone();
        let free = (1..)
            .map(|n| format!("{base}_{n}"))
            .find(|name| self.graph.axis(name).is_none());
        let name = free.expect("invariant: a graph has finitely many axes");
        self.axis(&name, Size::Same(of))
    }

    /// A new value; `ty` for inputs and scalars, whose type nothing else says.
    pub fn typed(&mut self, op: Op, ty: Ty) -> Val {
        let found = infer(&self.graph, &op);
        self.graph.nodes.push(Node {
            op,
            axes: found.axes,
            ty: found.ty.unwrap_or(ty),
        });
        Val(self.graph.nodes.len() as u32 - 1)
    }

    /// A new value of an operation that determines its type.
    pub fn op(&mut self, op: Op) -> Val {
        self.typed(op, Ty::Real)
    }

    /// A real constant.
    pub fn real(&mut self, x: f64) -> Val {
        self.op(Op::Real(x))
    }

    /// An integer constant.
    pub fn int(&mut self, x: i64) -> Val {
        self.op(Op::Int(x))
    }

    /// An input tensor.
    pub fn input(&mut self, name: &str, axes: &[Axis], ty: Ty) -> Val {
        self.typed(
            Op::Input {
                name: name.to_owned(),
                axes: axes.to_vec(),
            },
            ty,
        )
    }

    /// The index on an axis.
    pub fn index(&mut self, axis: Axis) -> Val {
        self.op(Op::Index(axis))
    }

    /// The size of an axis.
    pub fn len(&mut self, axis: Axis) -> Val {
        self.op(Op::Len(axis))
    }

    /// One operand.
    pub fn unary(&mut self, op: Unary, a: Val) -> Val {
        self.op(Op::Unary(op, a))
    }

    /// Two operands.
    pub fn binary(&mut self, op: Binary, a: Val, b: Val) -> Val {
        self.op(Op::Binary(op, a, b))
    }

    /// `c ? a : b`.
    pub fn select(&mut self, c: Val, a: Val, b: Val) -> Val {
        self.op(Op::Select(c, a, b))
    }

    /// `sum over axes of a * b`.
    pub fn contract(&mut self, a: Val, b: Val, over: &[Axis]) -> Val {
        self.op(Op::Contract {
            a,
            b,
            over: over.to_vec(),
        })
    }

    /// A reduction of whole axes.
    pub fn reduce(&mut self, op: Reduce, of: Val, over: &[Axis]) -> Val {
        self.op(Op::Reduce {
            op,
            of,
            over: over.to_vec(),
        })
    }

    /// The same values along another axis.
    pub fn rename(&mut self, of: Val, from: Axis, to: Axis) -> Val {
        self.op(Op::Rename { of, from, to })
    }

    /// `of` at other indices.
    pub fn gather(&mut self, of: Val, at: &[(Axis, Val)], fill: Option<f64>) -> Val {
        self.op(Op::Gather {
            of,
            at: at.to_vec(),
            fill,
        })
    }

    /// Opens a fold. Until [`Builder::combine`], its combines are its inits.
    pub fn fold(&mut self, def: FoldDef, comps: Vec<CompDef>) -> FoldId {
        let comps = comps.into_iter().map(|c| Comp {
            name: c.name,
            axes: c.axes,
            init: c.init,
            lift: c.lift,
            combine: c.init,
        });
        self.graph.folds.push(Fold {
            over: def.over,
            direction: def.direction,
            mode: def.mode,
            associative: def.associative,
            comps: comps.collect(),
        });
        FoldId(self.graph.folds.len() as u32 - 1)
    }

    /// A hole of an open fold.
    pub fn hole(&mut self, fold: FoldId, comp: u32, side: Side) -> Val {
        self.op(Op::Hole { fold, comp, side })
    }

    /// Closes a fold.
    pub fn combine(&mut self, fold: FoldId, combines: &[Val]) {
        for (comp, &combine) in self.graph.folds[fold.index()].comps.iter_mut().zip(combines) {
            comp.combine = combine;
        }
    }

    /// A component of a fold's result.
    pub fn get(&mut self, fold: FoldId, comp: u32) -> Val {
        self.op(Op::Get { fold, comp })
    }

    /// A result.
    pub fn output(&mut self, name: &str, value: Val, axes: &[Axis]) {
        self.graph.outputs.push(Output {
            name: name.to_owned(),
            value,
            axes: axes.to_vec(),
        });
    }

    /// Axes of a value.
    pub fn axes(&self, v: Val) -> &[Axis] {
        &self.graph.nodes[v.index()].axes
    }
}
