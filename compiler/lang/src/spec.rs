//! A checked spec: what the parser and the checker hand to everybody else.
//!
//! Named mask patterns (`causal`, `window(left = 4)`, `sink(64)`, `same(doc)`) are already expanded into index
//! expressions here, and names are resolved to ids; a [`Spec`] that exists is well-formed. Conventions:
//! - in every expression a query axis stands for the query's *position*: `i + len(j) - len(i)` for `query(end)`, `i` for
//!   `query(start)`;
//! - a tensor's query axis is indexed by the axis itself: `w[i]` reads the entry of the query, whatever the alignment;
//! - a tensor read out of range, and an integer divided by 0 (`/` and `%`), give 0;
//! - the index on a grouped axis follows from the axis it is grouped from: `g` is `h / ratio`;
//! - the last axis of the query tensor, the keys and the values is the feature axis, and the axes of the query tensor but
//!   that one are the rows: score, mask and log-sum-exp exist once per row (and key);
//! - `/` and `%` on integers floor; integers become reals where a real is wanted;
//! - a fully masked row yields exactly 0, and log-sum-exp negative infinity;
//! - the mask selects: a masked score has no influence, whatever its value.

use crate::diag::Span;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        pub struct $name(pub u32);
        impl $name {
            /// The index as a `usize`.
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }
    };
}

id!(
    /// An axis of a spec.
    AxisId
);
id!(
    /// An input tensor of a spec.
    InputId
);
id!(
    /// A run-time scalar of a spec.
    ScalarId
);
id!(
    /// A `type` set of a spec.
    TypeId
);
id!(
    /// An expression of a spec.
    ExprId
);

/// Memory types of the language.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// IEEE binary16.
    F16,
    /// bfloat16.
    Bf16,
    /// IEEE binary32.
    F32,
    /// Signed 32-bit integer.
    I32,
}

impl Dtype {
    /// Size of an element in bytes.
    pub const fn bytes(self) -> u32 {
        match self {
            Dtype::F16 | Dtype::Bf16 => 2,
            Dtype::F32 | Dtype::I32 => 4,
        }
    }
}

impl std::fmt::Display for Dtype {
    /// The word of the language: `f16`, `bf16`, `f32`, `i32`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Dtype::F16 => "f16",
            Dtype::Bf16 => "bf16",
            Dtype::F32 => "f32",
            Dtype::I32 => "i32",
        })
    }
}

/// A checked attention operator.
#[derive(Clone, PartialEq, Debug)]
pub struct Spec {
    /// Name, `lower_snake_case`.
    pub name: String,
    /// `pub`, `pub(crate)` or nothing: tokens as written, for the macro.
    pub visibility: String,
    /// Doc comment, lines joined by `\n`.
    pub doc: String,
    /// `type` sets.
    pub types: Vec<TypeSet>,
    /// Axes in declaration order.
    pub axes: Vec<AxisDecl>,
    /// Inputs in declaration order.
    pub inputs: Vec<InputDecl>,
    /// Run-time scalars in declaration order.
    pub scalars: Vec<ScalarDecl>,
    /// Stages in order. The language of this version has pair stages only.
    pub stages: Vec<Stage>,
    /// Outputs in declaration order.
    pub outputs: Vec<OutputDecl>,
    /// Pinned fields of the schedule.
    pub tile: Vec<Pin>,
    /// All expressions, indexed by [`ExprId`].
    pub exprs: Vec<Expr>,
    /// Where the spec stands.
    pub span: Span,
}

/// `type T in [f16, bf16];`
#[derive(Clone, PartialEq, Debug)]
pub struct TypeSet {
    /// Name.
    pub name: String,
    /// Members, in the order written.
    pub members: Vec<Dtype>,
    /// Where.
    pub span: Span,
}

/// An axis.
#[derive(Clone, PartialEq, Debug)]
pub struct AxisDecl {
    /// Name.
    pub name: String,
    /// Size.
    pub size: AxisSize,
    /// Role.
    pub role: AxisRole,
    /// Where.
    pub span: Span,
}

/// The size of an axis.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AxisSize {
    /// Known at launch.
    Runtime,
    /// `d = 128` is a set of one; `d in [64, 128]`.
    OneOf(Vec<u32>),
    /// `g = h / [4, 8]`: one `g` per ratio consecutive `h`. `h` is a multiple of it.
    Grouped {
        /// The finer axis (`h`).
        of: AxisId,
        /// Allowed ratios.
        ratios: Vec<u32>,
    },
}

/// What an axis is to the pair stages.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AxisRole {
    /// Batch, head, feature.
    Plain,
    /// `i: query(end)`, `i: query(start)`.
    Query(Align),
    /// `j: key`.
    Key,
}

/// Which end of the keys the queries are aligned with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Align {
    /// The last query is at the last key.
    End,
    /// The first query is at the first key.
    Start,
}

/// The type of a tensor: fixed, or a member of a set chosen at load time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ElemType {
    /// `f32`.
    Fixed(Dtype),
    /// `T`.
    Set(TypeId),
}

/// `input q: T[b, h, i, d];`
#[derive(Clone, PartialEq, Debug)]
pub struct InputDecl {
    /// Name.
    pub name: String,
    /// Element type.
    pub ty: ElemType,
    /// Axes, in the caller's order.
    pub axes: Vec<AxisId>,
    /// `sorted`: declared non-decreasing along its last axis (document ids), which lets masks skip tiles.
    pub sorted: bool,
    /// Where.
    pub span: Span,
}

/// `scalar cap: f32;`
#[derive(Clone, PartialEq, Debug)]
pub struct ScalarDecl {
    /// Name.
    pub name: String,
    /// `F32` or `I32`.
    pub ty: Dtype,
    /// Where.
    pub span: Span,
}

/// A stage.
#[derive(Clone, PartialEq, Debug)]
pub enum Stage {
    /// `attend o over j in (k, v) { … }`
    Attend(Attend),
}

/// A pair stage: one softmax over one key axis.
#[derive(Clone, PartialEq, Debug)]
pub struct Attend {
    /// Name of the result.
    pub name: String,
    /// Query axis.
    pub query: AxisId,
    /// Key axis.
    pub key: AxisId,
    /// Key tensor.
    pub k: InputId,
    /// Value tensor.
    pub v: InputId,
    /// Score: a real expression.
    pub score: ExprId,
    /// Mask: a Boolean expression; `None` where everything is visible.
    pub mask: Option<ExprId>,
    /// Normaliser.
    pub norm: Norm,
    /// Where.
    pub span: Span,
}

/// Normalisers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Norm {
    /// `exp(s) / sum exp(s)`.
    Softmax,
}

/// `output o: T[b, h, i, d];` or `output lse(o, nats): f32[b, h, i];`
#[derive(Clone, PartialEq, Debug)]
pub struct OutputDecl {
    /// Name: the stage's, or `lse`.
    pub name: String,
    /// Element type.
    pub ty: ElemType,
    /// Axes, in the caller's order.
    pub axes: Vec<AxisId>,
    /// What it holds.
    pub value: OutputValue,
    /// Where.
    pub span: Span,
}

/// What an output holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum OutputValue {
    /// The result of this stage.
    Stage(usize),
    /// The log-sum-exp of this stage's scores.
    Lse {
        /// Stage.
        stage: usize,
        /// Its base.
        base: LseBase,
    },
}

/// Base of a log-sum-exp.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LseBase {
    /// Natural logarithm.
    Nats,
    /// Base 2.
    Bits,
}

/// `tile { sm_80.block_m = 128; }`: one pinned field of the schedule.
#[derive(Clone, PartialEq, Debug)]
pub struct Pin {
    /// Target it holds for; `None`: all.
    pub target: Option<String>,
    /// `block_m`, `block_n`, `warps`, `stages`, `split`.
    pub field: String,
    /// Value.
    pub value: u32,
    /// Where.
    pub span: Span,
}

/// Type of an expression.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Ty {
    /// Real.
    Real,
    /// Integer.
    Int,
    /// Truth value.
    Bool,
}

/// An expression.
#[derive(Clone, PartialEq, Debug)]
pub struct Expr {
    /// What.
    pub kind: ExprKind,
    /// Its type.
    pub ty: Ty,
    /// Where.
    pub span: Span,
}

/// Kinds of expression.
#[derive(Clone, PartialEq, Debug)]
pub enum ExprKind {
    /// Real literal.
    Real(f64),
    /// Integer literal.
    Int(i64),
    /// `true`, `false`.
    Bool(bool),
    /// Index on an axis; for a query axis its position (see the module documentation).
    Index(AxisId),
    /// `len(d)`.
    Len(AxisId),
    /// A run-time scalar.
    Scalar(ScalarId),
    /// `slope[h]`, `bias[h, i - j + len(j)]`: one integer index per axis of the input; on the query axis the axis itself.
    /// What is out of range reads as 0, so that what a mask hides is no fault.
    Load {
        /// Input.
        input: InputId,
        /// Indices.
        at: Vec<ExprId>,
    },
    /// `dot(q, k)`: the sum over the one feature axis that both have.
    Dot {
        /// Query side.
        a: InputId,
        /// Key side.
        b: InputId,
        /// The summed axis.
        over: AxisId,
    },
    /// One operand.
    Unary(UnaryOp, ExprId),
    /// Two operands of one type (an integer operand of a real operation has an explicit `ToReal`).
    Binary(BinaryOp, ExprId, ExprId),
    /// `if c { a } else { b }`.
    If(ExprId, ExprId, ExprId),
}

/// Unary operations.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[expect(missing_docs, reason = "the names are the functions")]
pub enum UnaryOp {
    Neg,
    Not,
    Abs,
    Exp,
    Log,
    Tanh,
    Sqrt,
    Rsqrt,
    /// Integer to real.
    ToReal,
}

/// Binary operations.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[expect(missing_docs, reason = "the names are the functions")]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    Rem,
    Min,
    Max,
    Lt,
    Le,
    Gt,
    Ge,
    Eq,
    Ne,
    And,
    Or,
}

/// The members chosen for a spec's sets: what one kernel is compiled for.
#[derive(Clone, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
pub struct Binding {
    /// One dtype per `type` set, in order.
    pub types: Vec<Dtype>,
    /// One entry per axis, in order: the size of an axis with `OneOf`, otherwise `None` (a grouped axis's ratio is a
    /// run-time value that the launcher checks against the list).
    pub sizes: Vec<Option<u32>>,
}
