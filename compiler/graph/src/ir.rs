//! The graph: an attention operator as named-axis mathematics, with one [`Fold`].
//!
//! Every value ([`Val`]) is a function of an assignment of numbers to its axes: a real, an integer or a truth value per
//! point. There is no memory, no tile, no rounding: the interpreter computes in `f64` and is the oracle.
//!
//! # Folds
//! A [`Fold`] visits the points of `over` (an axis, a product of axes in row-major order, or several such ranges one
//! after the other) and combines a state of named components. Each component has an initial value, a *lift* (the state
//! of one point, one per range) and a *combine*: a value built from [`Op::Hole`]s (the left and the right state) that
//! says what the component becomes. State components may have axes of their own (`o` has the value axis).
//!
//! A combine that uses only holes, constants and values without the fold's axes is a candidate for an associative one:
//! then tiling, split-KV, chunking, decode, multi-group softmax and scans are re-associations of the same fold. One that
//! reads values *at the current point* (values with a fold axis), or that ignores the right holes' structure, is a plain
//! sequential step; both are legal, and [`Fold::associative`] says which is claimed (tests check the claim numerically).
//!
//! # Regions
//! The values that depend on a fold's holes form its region: they may be used only in that fold's `combine`s. A region
//! may hold folds of its own (a chunk's inner loop). Inits and lifts come before the fold's holes, combines before its
//! results. Within a region, a value with the fold's axis is meant at the current point: a region's value cannot be
//! contracted, reduced, searched, gathered from, renamed or folded along that axis. A fold within a region whose state
//! depends on the current point of the outer fold lists the outer axis among the axes of its state.

use std::fmt;

macro_rules! entity {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u32);
        impl $name {
            /// The index as a `usize`.
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

entity!(
    /// A value: `v3`.
    Val, "v"
);
entity!(
    /// An axis; its text syntax is its name.
    Axis, "ax"
);
entity!(
    /// A fold: `f0`.
    FoldId, "f"
);

/// What a value holds at each point.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Ty {
    /// A real number.
    Real,
    /// An integer.
    Int,
    /// A truth value.
    Bool,
}

/// An axis.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AxisDef {
    /// Name, unique in the graph.
    pub name: String,
    /// Its size.
    pub size: Size,
}

/// The size of an axis.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Size {
    /// Given at run time under the axis's name.
    Runtime,
    /// Constant.
    Const(u32),
    /// The size of another axis (so `Op::Rename` may move a value between the two).
    Same(Axis),
    /// `ceil(size(of) / by)`: blocks.
    CeilDiv {
        /// The axis that is cut.
        of: Axis,
        /// Block length.
        by: u32,
    },
}

/// An attention operator.
#[derive(Clone, PartialEq, Debug)]
pub struct Graph {
    /// Name.
    pub name: String,
    /// Axes, indexed by [`Axis`].
    pub axes: Vec<AxisDef>,
    /// Values in dependency order, indexed by [`Val`].
    pub nodes: Vec<Node>,
    /// Folds, indexed by [`FoldId`]; a fold's lifts and inits come before any `Get` of it.
    pub folds: Vec<Fold>,
    /// Results.
    pub outputs: Vec<Output>,
}

/// A value.
#[derive(Clone, PartialEq, Debug)]
pub struct Node {
    /// How it is computed.
    pub op: Op,
    /// Its axes, in the order of `Graph::axes`.
    pub axes: Vec<Axis>,
    /// Its type.
    pub ty: Ty,
}

/// A result.
#[derive(Clone, PartialEq, Debug)]
pub struct Output {
    /// Name.
    pub name: String,
    /// Value.
    pub value: Val,
    /// The order of its axes for the caller.
    pub axes: Vec<Axis>,
}

/// Computations.
#[derive(Clone, PartialEq, Debug)]
pub enum Op {
    /// A real constant.
    Real(f64),
    /// An integer constant.
    Int(i64),
    /// A truth value.
    Bool(bool),
    /// An input tensor over the node's axes, in the order `axes`.
    Input {
        /// Name.
        name: String,
        /// Caller's axis order.
        axes: Vec<Axis>,
    },
    /// A run-time scalar.
    Scalar(String),
    /// The number of the current point on an axis.
    Index(Axis),
    /// The size of an axis.
    Len(Axis),
    /// One operand.
    Unary(Unary, Val),
    /// Two operands, broadcast by axis name.
    Binary(Binary, Val, Val),
    /// `cond ? then : otherwise`.
    Select(Val, Val, Val),
    /// The same values along another axis of the same size.
    Rename {
        /// Value.
        of: Val,
        /// Its axis.
        from: Axis,
        /// The new one.
        to: Axis,
    },
    /// `sum over axes of a * b`.
    Contract {
        /// Left factor.
        a: Val,
        /// Right factor.
        b: Val,
        /// Axes that are summed.
        over: Vec<Axis>,
    },
    /// A reduction of whole axes (pooling, norms): the only one besides folds and contractions.
    Reduce {
        /// Operation.
        op: Reduce,
        /// What.
        of: Val,
        /// Axes that vanish.
        over: Vec<Axis>,
    },
    /// `of` with the index on each listed axis replaced by an integer value; `fill` where an index is out of range.
    Gather {
        /// Value.
        of: Val,
        /// Axis and index value.
        at: Vec<(Axis, Val)>,
        /// Value out of range; `None`: out of range is an error.
        fill: Option<f64>,
    },
    /// The indices of the `k` largest along `over` (ties: the smaller index first), along the new axis `rank`, whose
    /// constant size is `k`; `k` larger than the axis: the rest is -1. `ascending`: sorted by index, -1 last.
    TopK {
        /// Scores.
        of: Val,
        /// Axis searched.
        over: Axis,
        /// New axis.
        rank: Axis,
        /// Sorted by index instead of by score.
        ascending: bool,
    },
    /// Solves `(I + strictly lower part of a) x = b` along `row` (`a` has `row` and `col`, axes of one size; `b` has `row`).
    TriSolve {
        /// Matrix.
        a: Val,
        /// Right-hand side.
        b: Val,
        /// Row axis.
        row: Axis,
        /// Column axis.
        col: Axis,
    },
    /// The left (accumulated) or right (new) state of the enclosing fold: only in its region.
    Hole {
        /// Fold.
        fold: FoldId,
        /// Component number.
        comp: u32,
        /// Which side.
        side: Side,
    },
    /// A component of a fold's result.
    Get {
        /// Fold.
        fold: FoldId,
        /// Component number.
        comp: u32,
    },
}

impl Op {
    /// The values it reads, in order. (The state of a fold stands in [`Fold`], not here.)
    pub fn operands(&self) -> Vec<Val> {
        match self {
            Op::Real(_)
            | Op::Int(_)
            | Op::Bool(_)
            | Op::Input { .. }
            | Op::Scalar(_)
            | Op::Index(_)
            | Op::Len(_)
            | Op::Hole { .. }
            | Op::Get { .. } => Vec::new(),
            Op::Unary(_, a) => vec![*a],
            Op::Binary(_, a, b) => vec![*a, *b],
            Op::Select(c, a, b) => vec![*c, *a, *b],
            Op::Rename { of, .. } | Op::Reduce { of, .. } | Op::TopK { of, .. } => vec![*of],
            Op::Contract { a, b, .. } | Op::TriSolve { a, b, .. } => vec![*a, *b],
            Op::Gather { of, at, .. } => std::iter::once(*of).chain(at.iter().map(|&(_, v)| v)).collect(),
        }
    }
}

impl Op {
    /// Replaces every operand.
    pub fn map_operands(&mut self, mut f: impl FnMut(Val) -> Val) {
        match self {
            Op::Real(_)
            | Op::Int(_)
            | Op::Bool(_)
            | Op::Input { .. }
            | Op::Scalar(_)
            | Op::Index(_)
            | Op::Len(_)
            | Op::Hole { .. }
            | Op::Get { .. } => {}
            Op::Unary(_, a) | Op::Rename { of: a, .. } | Op::Reduce { of: a, .. } | Op::TopK { of: a, .. } => {
                *a = f(*a)
            }
            Op::Binary(_, a, b) | Op::Contract { a, b, .. } | Op::TriSolve { a, b, .. } => {
                *a = f(*a);
                *b = f(*b);
            }
            Op::Select(c, a, b) => {
                *c = f(*c);
                *a = f(*a);
                *b = f(*b);
            }
            Op::Gather { of, at, .. } => {
                *of = f(*of);
                at.iter_mut().for_each(|p| p.1 = f(p.1));
            }
        }
    }
}

impl Graph {
    /// A value.
    pub fn node(&self, v: Val) -> &Node {
        &self.nodes[v.index()]
    }

    /// A fold.
    pub fn fold(&self, f: FoldId) -> &Fold {
        &self.folds[f.index()]
    }

    /// The axis of this name.
    pub fn axis(&self, name: &str) -> Option<Axis> {
        self.axes.iter().position(|a| a.name == name).map(|n| Axis(n as u32))
    }
}

impl Fold {
    /// All axes that it visits.
    pub fn axes(&self) -> impl Iterator<Item = Axis> + '_ {
        self.over.iter().flatten().copied()
    }

    /// Every value that the fold names: inits, lifts, combines.
    pub fn values(&self) -> impl Iterator<Item = Val> + '_ {
        self.comps
            .iter()
            .flat_map(|c| c.lift.iter().copied().chain([c.init, c.combine]))
    }
}

/// Left or right of a combine.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Side {
    /// What has been folded so far.
    Left,
    /// What is being added.
    Right,
}

/// Unary operations.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[expect(missing_docs, reason = "the names are the functions")]
pub enum Unary {
    Neg,
    Not,
    Abs,
    Exp,
    Log,
    Tanh,
    Sqrt,
    Rsqrt,
    Recip,
    Sin,
    Cos,
    /// Real to the largest integer not above it.
    Floor,
    Sign,
    /// Integer to real.
    ToReal,
}

/// Binary operations. Comparisons yield truth values.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[expect(missing_docs, reason = "the names are the functions")]
pub enum Binary {
    Add,
    Sub,
    Mul,
    /// Reals: quotient. Integers: floor; 0 where the divisor is 0.
    Div,
    /// Integers: floor remainder; 0 where the divisor is 0.
    Rem,
    Min,
    Max,
    Lt,
    Le,
    Eq,
    And,
    Or,
    /// Bitwise and of integers (bit tests in masks).
    BitAnd,
    /// Right shift of integers.
    Shr,
    Pow,
}

/// Whole-axis reductions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[expect(missing_docs, reason = "the names are the functions")]
pub enum Reduce {
    Sum,
    Max,
    Min,
    Mean,
}

/// Order of a fold.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Direction {
    /// From index 0 up.
    Forward,
    /// From the last index down.
    Backward,
}

/// What a fold yields.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mode {
    /// The final state.
    Reduce,
    /// The state after each point: results gain the fold's (single) axis.
    Inclusive,
    /// The state before each point.
    Exclusive,
}

/// The one reduction with a state. See the module documentation.
#[derive(Clone, PartialEq, Debug)]
pub struct Fold {
    /// Ranges, one after the other; each a product of axes, the last fastest.
    pub over: Vec<Vec<Axis>>,
    /// Order.
    pub direction: Direction,
    /// What it yields.
    pub mode: Mode,
    /// Whether `combine` is claimed to be associative with `init` as identity.
    pub associative: bool,
    /// State.
    pub comps: Vec<Comp>,
}

/// A component of a fold's state.
#[derive(Clone, PartialEq, Debug)]
pub struct Comp {
    /// Name.
    pub name: String,
    /// Axes of the state, fold axes excluded (the axes of the result in [`Mode::Reduce`]).
    pub axes: Vec<Axis>,
    /// State before the first point.
    pub init: Val,
    /// State of one point, one value per range in `over`.
    pub lift: Vec<Val>,
    /// The new state.
    pub combine: Val,
}
