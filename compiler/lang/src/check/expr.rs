//! Expressions: types, and integers that become reals where a real is wanted.
//!
//! In: expressions of the tree. Out: expressions of the spec, operands before operations, in the order in which they are
//! written: the canonical text parses back into the same numbering.

use super::scope::{Entity, Scope};
use crate::ast::{self, ExprRef};
use crate::diag::{Reported, Sink, Span, limits, names, shapes, syntax, types};
use crate::parse::{Literal, number};
use crate::spec::{AxisId, AxisSize, BinaryOp, Dtype, ElemType, Expr, ExprId, ExprKind, InputId, Spec, Ty, UnaryOp};

/// What the expressions of a stage may use, and where they go.
pub struct Exprs<'a> {
    pub tree: &'a ast::Attention,
    pub scope: &'a mut Scope,
    pub spec: &'a mut Spec,
    pub sink: &'a mut Sink,
    /// Axes whose index has a value, the query and key axes among them.
    pub available: Vec<AxisId>,
    /// Query and key axis.
    pub query: AxisId,
    pub key: AxisId,
    pub place: Place,
}

/// What is being checked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A score, and its `dot(q, k)`; `None` where that has an error, which was reported.
    Score(Option<Product>),
    Mask,
}

/// Operands of the score's product.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Product {
    pub q: InputId,
    pub k: InputId,
    pub over: AxisId,
}

pub type Checked = Result<ExprId, Reported>;

fn describe(ty: Ty) -> &'static str {
    match ty {
        Ty::Real => "a real number",
        Ty::Int => "an integer",
        Ty::Bool => "a truth value",
    }
}

impl Exprs<'_> {
    pub fn push(&mut self, kind: ExprKind, ty: Ty, span: Span) -> ExprId {
        self.spec.exprs.push(Expr { kind, ty, span });
        ExprId(self.spec.exprs.len() as u32 - 1)
    }

    pub fn get(&self, at: ExprId) -> &Expr {
        &self.spec.exprs[at.index()]
    }

    /// Checks an expression.
    pub fn expr(&mut self, at: ExprRef) -> Checked {
        let tree = self.tree;
        let ast::Expr { kind, span, .. } = tree.expr(at);
        let span = *span;
        match kind {
            ast::ExprKind::Number(text) => self.literal(text, span),
            ast::ExprKind::Name(name) => self.name(name, span),
            ast::ExprKind::Call(name, arguments) => self.call(name, arguments, span),
            ast::ExprKind::Index(name, at) => self.load(name, at, span),
            ast::ExprKind::Unary(op, operand) => {
                let operand = self.expr(*operand)?;
                self.unary(*op, operand, span)
            }
            ast::ExprKind::Binary(op, left, right) => {
                let (left, right) = (self.expr(*left), self.expr(*right));
                self.binary(*op, left?, right?, span)
            }
            ast::ExprKind::If(condition, then, otherwise) => {
                let condition = self
                    .expr(*condition)
                    .and_then(|c| self.expect(c, Ty::Bool, "as a condition"));
                let (then, otherwise) = (self.expr(*then), self.expr(*otherwise));
                let (condition, then, otherwise) = (condition?, then?, otherwise?);
                let (then, otherwise, ty) = match (self.get(then).ty, self.get(otherwise).ty) {
                    (Ty::Bool, Ty::Bool) => (then, otherwise, Ty::Bool),
                    (Ty::Bool, found) | (found, Ty::Bool) => {
                        let at = self.get(otherwise).span;
                        let (expected, found) = match self.get(then).ty {
                            Ty::Bool => ("a truth value", describe(found)),
                            Ty::Real | Ty::Int => ("a number", "a truth value"),
                        };
                        let place = "as the other choice has";
                        return Err(self.sink.report(types::mismatch(at, place, expected, found)));
                    }
                    _ => self.numbers(then, otherwise, "as a choice")?,
                };
                Ok(self.push(ExprKind::If(condition, then, otherwise), ty, span))
            }
        }
    }

    fn literal(&mut self, text: &str, span: Span) -> Checked {
        match number(text) {
            Some(Literal::Int(value)) => match i32::try_from(value) {
                Ok(value) => Ok(self.push(ExprKind::Int(value.into()), Ty::Int, span)),
                Err(_) => Err(self
                    .sink
                    .report(limits::number_range(span, "an integer of at most 2147483647", text))),
            },
            Some(Literal::Real(value)) if value.abs() <= f32::MAX.into() => {
                Ok(self.push(ExprKind::Real(value), Ty::Real, span))
            }
            Some(Literal::Real(_)) => {
                Err(self
                    .sink
                    .report(limits::number_range(span, "a number that fits in `f32`", text)))
            }
            None => Err(self.sink.report(syntax::bad_number(span, text))),
        }
    }

    fn name(&mut self, name: &str, span: Span) -> Checked {
        match name {
            "true" | "false" => return Ok(self.push(ExprKind::Bool(name == "true"), Ty::Bool, span)),
            "causal" => return Ok(self.causal(span)),
            _ => {}
        }
        match self.scope.get(name) {
            Some((Entity::Axis(axis), _)) => self.index(axis, name, span),
            Some((Entity::Scalar(scalar), _)) => {
                let ty = match self.spec.scalars[scalar.index()].ty {
                    Dtype::I32 => Ty::Int,
                    Dtype::F16 | Dtype::Bf16 | Dtype::F32 => Ty::Real,
                };
                Ok(self.push(ExprKind::Scalar(scalar), ty, span))
            }
            Some((other @ (Entity::Type(_) | Entity::Input(_) | Entity::Stage(_)), at)) => {
                let error = names::wrong_kind(span, "a value", name, other.describe(), Some(at));
                let error = match other {
                    Entity::Input(input) => {
                        let axes = &self.spec.inputs[input.index()].axes;
                        let last = axes.last().map(|axis| &self.spec.axes[axis.index()].size);
                        if matches!(last, Some(AxisSize::OneOf(_))) {
                            error.help("rows are multiplied with `dot`, as in `dot(q, k)`")
                        } else {
                            error.help(format!(
                                "index it, as in `{name}[{}]`",
                                self.axis_names(axes).join(", ")
                            ))
                        }
                    }
                    Entity::Type(_) | Entity::Stage(_) | Entity::Axis(_) | Entity::Scalar(_) => error,
                };
                Err(self.sink.report(error))
            }
            None if Self::is_function(name) => {
                let found = format!("`{name}` without arguments");
                Err(self.sink.report(syntax::unexpected(span, "a value", &found)))
            }
            None => {
                let wanted = |e| matches!(e, Entity::Axis(_) | Entity::Scalar(_) | Entity::Input(_));
                Err(self.scope.unknown(name, span, "a value", wanted, self.sink))
            }
        }
    }

    fn index(&mut self, axis: AxisId, name: &str, span: Span) -> Checked {
        if self.available.contains(&axis) {
            return Ok(self.push(ExprKind::Index(axis), Ty::Int, span));
        }
        let available = self.axis_names(&self.available);
        let error = shapes::no_index(span, name, &available);
        Err(self.sink.report(error))
    }

    /// The names of axes.
    pub fn axis_names(&self, axes: &[AxisId]) -> Vec<&str> {
        axes.iter().map(|a| self.spec.axes[a.index()].name.as_str()).collect()
    }

    fn load(&mut self, name: &ast::Name, at: &[ExprRef], span: Span) -> Checked {
        let input = self.scope.input(name, self.sink);
        let at: Vec<Checked> = at
            .iter()
            .map(|e| self.expr(*e).and_then(|e| self.expect(e, Ty::Int, "as an index")))
            .collect();
        let input = input?;
        let decl = &self.spec.inputs[input.index()];
        if decl.axes.len() != at.len() {
            let error = shapes::index_count(span, &name.text, &self.axis_names(&decl.axes), at.len());
            return Err(self.sink.report(error));
        }
        let at = at.into_iter().collect::<Result<Vec<ExprId>, Reported>>()?;
        for (&axis, &index) in self.spec.inputs[input.index()].axes.iter().zip(&at) {
            let found = self.get(index);
            if axis == self.query && found.kind != ExprKind::Index(axis) {
                let error = shapes::query_index(found.span, &name.text, &self.spec.axes[axis.index()].name);
                return Err(self.sink.report(error));
            }
        }
        let ty = self.element(input);
        Ok(self.push(ExprKind::Load { input, at }, ty, span))
    }

    /// The type of an input's elements in expressions.
    pub fn element(&self, input: InputId) -> Ty {
        match self.spec.inputs[input.index()].ty {
            ElemType::Fixed(Dtype::I32) => Ty::Int,
            ElemType::Fixed(Dtype::F16 | Dtype::Bf16 | Dtype::F32) | ElemType::Set(_) => Ty::Real,
        }
    }

    /// Requires a type; integers become reals.
    pub fn expect(&mut self, at: ExprId, ty: Ty, place: &str) -> Checked {
        match (ty, self.get(at).ty) {
            (Ty::Real, Ty::Real) | (Ty::Int, Ty::Int) | (Ty::Bool, Ty::Bool) => Ok(at),
            (Ty::Real, Ty::Int) => self.real(at),
            (_, found) => {
                let error = types::mismatch(self.get(at).span, place, describe(ty), describe(found));
                Err(self.sink.report(error))
            }
        }
    }

    /// An integer as a real; literals become real literals.
    fn real(&mut self, at: ExprId) -> Checked {
        let Expr { kind, span, .. } = self.get(at).clone();
        match kind {
            ExprKind::Int(value) => {
                self.spec.exprs[at.index()] = Expr {
                    kind: ExprKind::Real(value as f64),
                    ty: Ty::Real,
                    span,
                };
                Ok(at)
            }
            ExprKind::Binary(BinaryOp::Div, a, b) if matches!((&self.get(a).kind, &self.get(b).kind), (ExprKind::Int(a), ExprKind::Int(b)) if a % b != 0) => {
                Err(self.sink.report(types::floored_fraction(span)))
            }
            _ => Ok(self.push(ExprKind::Unary(UnaryOp::ToReal, at), Ty::Real, span)),
        }
    }

    /// Two numbers of one type: integers if both are, else reals.
    fn numbers(&mut self, a: ExprId, b: ExprId, place: &str) -> Result<(ExprId, ExprId, Ty), Reported> {
        if self.get(a).ty == Ty::Int && self.get(b).ty == Ty::Int {
            return Ok((a, b, Ty::Int));
        }
        let (a, b) = (self.expect(a, Ty::Real, place), self.expect(b, Ty::Real, place));
        Ok((a?, b?, Ty::Real))
    }

    pub fn unary(&mut self, op: UnaryOp, a: ExprId, span: Span) -> Checked {
        let name = unary_name(op);
        match op {
            UnaryOp::Not => {
                let a = self.expect(a, Ty::Bool, "behind `!`")?;
                Ok(self.push(ExprKind::Unary(op, a), Ty::Bool, span))
            }
            UnaryOp::Neg | UnaryOp::Abs => {
                // A sign belongs to its literal.
                match self.get(a).kind {
                    ExprKind::Int(value) if op == UnaryOp::Neg => {
                        self.spec.exprs[a.index()].kind = ExprKind::Int(-value);
                        return Ok(a);
                    }
                    ExprKind::Real(value) if op == UnaryOp::Neg => {
                        self.spec.exprs[a.index()].kind = ExprKind::Real(-value);
                        return Ok(a);
                    }
                    _ => {}
                }
                let ty = self.get(a).ty;
                let a = match ty {
                    Ty::Int | Ty::Real => a,
                    Ty::Bool => self.expect(a, Ty::Real, &format!("for `{name}`"))?,
                };
                Ok(self.push(ExprKind::Unary(op, a), ty, span))
            }
            UnaryOp::Exp | UnaryOp::Log | UnaryOp::Tanh | UnaryOp::Sqrt | UnaryOp::Rsqrt | UnaryOp::ToReal => {
                let a = self.expect(a, Ty::Real, &format!("for `{name}`"))?;
                Ok(self.push(ExprKind::Unary(op, a), Ty::Real, span))
            }
        }
    }

    pub fn binary(&mut self, op: BinaryOp, a: ExprId, b: ExprId, span: Span) -> Checked {
        let place = format!("for `{}`", binary_name(op));
        let (a, b, ty) = match op {
            BinaryOp::And | BinaryOp::Or => {
                let (a, b) = (self.expect(a, Ty::Bool, &place), self.expect(b, Ty::Bool, &place));
                (a?, b?, Ty::Bool)
            }
            BinaryOp::Lt | BinaryOp::Le | BinaryOp::Gt | BinaryOp::Ge | BinaryOp::Eq | BinaryOp::Ne => {
                let (a, b, _) = self.numbers(a, b, &place)?;
                (a, b, Ty::Bool)
            }
            BinaryOp::Rem => {
                let (a, b) = (self.expect(a, Ty::Int, &place), self.expect(b, Ty::Int, &place));
                (a?, b?, Ty::Int)
            }
            BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Div | BinaryOp::Min | BinaryOp::Max => {
                self.numbers(a, b, &place)?
            }
        };
        if matches!(op, BinaryOp::Div | BinaryOp::Rem) && self.get(b).kind == ExprKind::Int(0) {
            let at = self.get(b).span;
            return Err(self.sink.report(types::zero_divisor(at)));
        }
        Ok(self.push(ExprKind::Binary(op, a, b), ty, span))
    }
}

/// The name of a unary operation in specs.
pub fn unary_name(op: UnaryOp) -> &'static str {
    match op {
        UnaryOp::Neg => "-",
        UnaryOp::Not => "!",
        UnaryOp::Abs => "abs",
        UnaryOp::Exp => "exp",
        UnaryOp::Log => "log",
        UnaryOp::Tanh => "tanh",
        UnaryOp::Sqrt => "sqrt",
        UnaryOp::Rsqrt => "rsqrt",
        UnaryOp::ToReal => "real",
    }
}

/// The name of a binary operation in specs.
pub fn binary_name(op: BinaryOp) -> &'static str {
    match op {
        BinaryOp::Add => "+",
        BinaryOp::Sub => "-",
        BinaryOp::Mul => "*",
        BinaryOp::Div => "/",
        BinaryOp::Rem => "%",
        BinaryOp::Min => "min",
        BinaryOp::Max => "max",
        BinaryOp::Lt => "<",
        BinaryOp::Le => "<=",
        BinaryOp::Gt => ">",
        BinaryOp::Ge => ">=",
        BinaryOp::Eq => "==",
        BinaryOp::Ne => "!=",
        BinaryOp::And => "&&",
        BinaryOp::Or => "||",
    }
}
