//! The syntax tree: what a spec says, before anything is looked up.
//!
//! In: the parser's work. Out: the checker's food. Expressions lie in one vector per spec, so that no tree is ever
//! dropped or walked recursively deeper than the parser's bound.

use crate::diag::Span;
use crate::spec::{Align, BinaryOp, LseBase, Norm, UnaryOp};

/// A name and its place.
#[derive(Clone, Debug)]
pub struct Name {
    pub text: String,
    pub span: Span,
}

/// A whole number and its place.
#[derive(Clone, Copy, Debug)]
pub struct Number {
    pub value: u32,
    pub span: Span,
}

/// An expression of the same [`Attention`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExprRef(pub u32);

/// `attention name { … }`.
#[derive(Debug)]
pub struct Attention {
    pub doc: String,
    pub visibility: String,
    pub name: Name,
    pub types: Vec<TypeSet>,
    pub axes: Vec<Axis>,
    pub inputs: Vec<Tensor>,
    pub scalars: Vec<Scalar>,
    pub attends: Vec<Attend>,
    pub outputs: Vec<Output>,
    pub pins: Vec<Pin>,
    pub exprs: Vec<Expr>,
    /// Whether a part could not be parsed (and was reported).
    pub broken: bool,
}

#[derive(Debug)]
pub struct TypeSet {
    pub name: Name,
    pub members: Vec<Name>,
}

#[derive(Debug)]
pub struct Axis {
    pub name: Name,
    pub role: Option<Role>,
    pub size: Size,
}

#[derive(Clone, Copy, Debug)]
pub enum Role {
    Query(Align),
    Key,
}

#[derive(Debug)]
pub enum Size {
    Runtime,
    OneOf(Vec<Number>),
    Grouped { of: Name, ratios: Vec<Number> },
}

#[derive(Debug)]
pub struct Tensor {
    pub name: Name,
    pub ty: Name,
    pub axes: Vec<Name>,
    pub sorted: Option<Span>,
}

#[derive(Debug)]
pub struct Scalar {
    pub name: Name,
    pub ty: Name,
}

#[derive(Debug)]
pub struct Attend {
    pub name: Name,
    pub key: Name,
    pub k: Name,
    pub v: Name,
    pub score: Option<ExprRef>,
    pub mask: Option<ExprRef>,
    pub norm: Option<Norm>,
    pub span: Span,
}

#[derive(Debug)]
pub struct Output {
    /// The stage.
    pub stage: Name,
    /// `lse(stage, base)`, with the span of all of it.
    pub lse: Option<(LseBase, Span)>,
    pub ty: Name,
    pub axes: Vec<Name>,
}

#[derive(Debug)]
pub struct Pin {
    pub target: Option<Name>,
    pub field: Name,
    pub value: Number,
}

#[derive(Debug)]
pub struct Expr {
    pub kind: ExprKind,
    pub span: Span,
    /// Longest path to a leaf.
    pub height: u32,
}

#[derive(Debug)]
pub enum ExprKind {
    /// A number as written.
    Number(String),
    Name(String),
    Call(Name, Vec<Argument>),
    Index(Name, Vec<ExprRef>),
    Unary(UnaryOp, ExprRef),
    Binary(BinaryOp, ExprRef, ExprRef),
    If(ExprRef, ExprRef, ExprRef),
}

#[derive(Debug)]
pub struct Argument {
    pub name: Option<Name>,
    pub value: ExprRef,
}

impl Attention {
    /// The expression.
    pub fn expr(&self, at: ExprRef) -> &Expr {
        &self.exprs[at.0 as usize]
    }
}
