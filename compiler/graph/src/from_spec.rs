//! A checked spec, with its sets bound, as a graph.
//!
//! A pair stage becomes one fold over its key axis with the log-sum-exp monoid ([`crate::monoid`]). The conventions of
//! the spec become expressions here: a query axis in an expression is the query's position; a grouped axis is read at
//! `h / (len(h) / len(g))`. Everything else follows the expressions as written, in their order.

use crate::build::Builder;
use crate::ir::{Axis, Binary, Graph, Op, Size, Ty, Unary, Val};
use crate::monoid::{Keys, log_sum, log_sum_exp, normalised};
use drawloom_lang::spec::{
    Align, Attend, AxisId, AxisRole, AxisSize, BinaryOp, Binding, Dtype, ElemType, ExprId, ExprKind, InputId, LseBase,
    Norm, OutputValue, Spec, Stage, Ty as SpecTy, UnaryOp,
};
use std::collections::BTreeMap;

/// The graph of a spec under a binding. Axes have the spec's names and order; an axis whose set is not bound stays a
/// run-time size.
pub fn from_spec(spec: &Spec, binding: &Binding) -> Graph {
    let mut b = Builder::new(&spec.name);
    for (n, axis) in spec.axes.iter().enumerate() {
        let size = match (binding.sizes.get(n), &axis.size) {
            (Some(Some(size)), AxisSize::OneOf(_)) => Size::Const(*size),
            (_, AxisSize::OneOf(_) | AxisSize::Runtime | AxisSize::Grouped { .. }) => Size::Runtime,
        };
        b.axis(&axis.name, size);
    }
    let mut inputs = Vec::new();
    for input in &spec.inputs {
        let ty = match input.ty {
            ElemType::Fixed(Dtype::I32) => Ty::Int,
            ElemType::Fixed(Dtype::F16 | Dtype::Bf16 | Dtype::F32) | ElemType::Set(_) => Ty::Real,
        };
        let axes: Vec<Axis> = input.axes.iter().map(|a| Axis(a.0)).collect();
        inputs.push(b.input(&input.name, &axes, ty));
    }
    let scalars = spec.scalars.iter().map(|scalar| {
        let ty = match scalar.ty {
            Dtype::I32 => Ty::Int,
            Dtype::F16 | Dtype::Bf16 | Dtype::F32 => Ty::Real,
        };
        b.typed(Op::Scalar(scalar.name.clone()), ty)
    });
    let scalars = scalars.collect();
    let mut reader = Reader {
        spec,
        b,
        inputs,
        scalars,
        own: BTreeMap::new(),
        indices: BTreeMap::new(),
    };
    let stages: Vec<_> = spec
        .stages
        .iter()
        .map(|Stage::Attend(attend)| reader.attend(attend))
        .collect();
    let mut b = reader.b;
    for output in &spec.outputs {
        let (value, axes): (Val, Vec<Axis>) = match output.value {
            OutputValue::Stage(n) => (
                normalised(&mut b, stages[n], 1, 2),
                output.axes.iter().map(|a| Axis(a.0)).collect(),
            ),
            OutputValue::Lse { stage, base } => {
                let nats = log_sum(&mut b, stages[stage], 0, 1);
                let value = match base {
                    LseBase::Nats => nats,
                    LseBase::Bits => {
                        let factor = b.real(std::f64::consts::LOG2_E);
                        b.binary(Binary::Mul, nats, factor)
                    }
                };
                (value, output.axes.iter().map(|a| Axis(a.0)).collect())
            }
        };
        b.output(&output.name, value, &axes);
    }
    b.graph
}

/// Reads the expressions of one stage after another.
struct Reader<'s> {
    spec: &'s Spec,
    b: Builder,
    inputs: Vec<Val>,
    scalars: Vec<Val>,
    /// Inputs as a stage sees them: grouped axes read from the finer ones.
    own: BTreeMap<InputId, Val>,
    /// Indices of axes as expressions mean them.
    indices: BTreeMap<AxisId, Val>,
}

impl Reader<'_> {
    fn attend(&mut self, attend: &Attend) -> crate::ir::FoldId {
        self.indices.clear();
        if let AxisRole::Query(Align::End) = self.spec.axes[attend.query.index()].role {
            let (query, key) = (Axis(attend.query.0), Axis(attend.key.0));
            let (row, keys, rows) = (self.b.index(query), self.b.len(key), self.b.len(query));
            let end = self.b.binary(Binary::Add, row, keys);
            let position = self.b.binary(Binary::Sub, end, rows);
            self.indices.insert(attend.query, position);
        }
        let mut memo = BTreeMap::new();
        let score = self.expr(attend.score, &mut memo);
        let mask = attend.mask.map(|mask| self.expr(mask, &mut memo));
        let value = self.input(attend.v);
        let over = vec![Axis(attend.key.0)];
        match attend.norm {
            Norm::Softmax => log_sum_exp(
                &mut self.b,
                &[Keys {
                    over,
                    score,
                    mask,
                    value,
                }],
            ),
        }
    }

    /// The index on an axis.
    fn index(&mut self, axis: AxisId) -> Val {
        if let Some(&known) = self.indices.get(&axis) {
            return known;
        }
        let value = match self.spec.axes[axis.index()].size {
            AxisSize::Grouped { of, .. } => {
                let fine = self.index(of);
                let (all, groups) = (self.b.len(Axis(of.0)), self.b.len(Axis(axis.0)));
                let ratio = self.b.binary(Binary::Div, all, groups);
                self.b.binary(Binary::Div, fine, ratio)
            }
            AxisSize::Runtime | AxisSize::OneOf(_) => self.b.index(Axis(axis.0)),
        };
        self.indices.insert(axis, value);
        value
    }

    /// An input at the stage's own point.
    fn input(&mut self, input: InputId) -> Val {
        if let Some(&known) = self.own.get(&input) {
            return known;
        }
        let axes = self.spec.inputs[input.index()].axes.clone();
        let grouped = axes.into_iter().filter(|a| self.is_grouped(*a));
        let at: Vec<(Axis, Val)> = grouped
            .collect::<Vec<_>>()
            .into_iter()
            .map(|a| (Axis(a.0), self.index(a)))
            .collect();
        let whole = self.inputs[input.index()];
        let value = if at.is_empty() {
            whole
        } else {
            self.b.gather(whole, &at, None)
        };
        self.own.insert(input, value);
        value
    }

    fn is_grouped(&self, axis: AxisId) -> bool {
        matches!(self.spec.axes[axis.index()].size, AxisSize::Grouped { .. })
    }

    fn expr(&mut self, id: ExprId, memo: &mut BTreeMap<ExprId, Val>) -> Val {
        if let Some(&known) = memo.get(&id) {
            return known;
        }
        let spec = self.spec;
        let expr = &spec.exprs[id.index()];
        let value = match &expr.kind {
            ExprKind::Real(x) => self.b.real(*x),
            ExprKind::Int(x) => match expr.ty {
                SpecTy::Real => self.b.real(*x as f64),
                SpecTy::Int | SpecTy::Bool => self.b.int(*x),
            },
            ExprKind::Bool(x) => self.b.op(Op::Bool(*x)),
            ExprKind::Index(axis) => self.index(*axis),
            ExprKind::Len(axis) => self.b.len(Axis(axis.0)),
            ExprKind::Scalar(scalar) => self.scalars[scalar.index()],
            ExprKind::Load { input, at } => self.load(*input, at, memo),
            ExprKind::Dot { a, b, over } => {
                let (a, b) = (self.input(*a), self.input(*b));
                self.b.contract(a, b, &[Axis(over.0)])
            }
            ExprKind::Unary(op, a) => {
                let a = self.expr(*a, memo);
                self.b.unary(unary(*op), a)
            }
            ExprKind::Binary(op, a, b) => {
                let (a, b) = (self.expr(*a, memo), self.expr(*b, memo));
                let (op, a, b, not) = binary(*op, a, b);
                let value = self.b.binary(op, a, b);
                if not { self.b.unary(Unary::Not, value) } else { value }
            }
            ExprKind::If(c, a, b) => {
                let (c, a, b) = (self.expr(*c, memo), self.expr(*a, memo), self.expr(*b, memo));
                self.b.select(c, a, b)
            }
        };
        memo.insert(id, value);
        value
    }

    /// `bias[h, i, i - j]`: an axis of the input that is named by its own index is read at the row itself (a query axis
    /// of an input counts rows, not positions); other indices are gathered, 0 outside, so that what a mask hides
    /// is no error.
    fn load(&mut self, input: InputId, at: &[ExprId], memo: &mut BTreeMap<ExprId, Val>) -> Val {
        let axes = &self.spec.inputs[input.index()].axes;
        let mut moved = Vec::new();
        for (&axis, &index) in axes.iter().zip(at) {
            let own = self.spec.exprs[index.index()].kind == ExprKind::Index(axis) && !self.is_grouped(axis);
            if !own {
                moved.push((Axis(axis.0), self.expr(index, memo)));
            }
        }
        let whole = self.inputs[input.index()];
        if moved.is_empty() {
            whole
        } else {
            self.b.gather(whole, &moved, Some(0.0))
        }
    }
}

fn unary(op: UnaryOp) -> Unary {
    match op {
        UnaryOp::Neg => Unary::Neg,
        UnaryOp::Not => Unary::Not,
        UnaryOp::Abs => Unary::Abs,
        UnaryOp::Exp => Unary::Exp,
        UnaryOp::Log => Unary::Log,
        UnaryOp::Tanh => Unary::Tanh,
        UnaryOp::Sqrt => Unary::Sqrt,
        UnaryOp::Rsqrt => Unary::Rsqrt,
        UnaryOp::ToReal => Unary::ToReal,
    }
}

/// The graph's operation, its operands, and whether it is negated.
fn binary(op: BinaryOp, a: Val, b: Val) -> (Binary, Val, Val, bool) {
    match op {
        BinaryOp::Add => (Binary::Add, a, b, false),
        BinaryOp::Sub => (Binary::Sub, a, b, false),
        BinaryOp::Mul => (Binary::Mul, a, b, false),
        BinaryOp::Div => (Binary::Div, a, b, false),
        BinaryOp::Rem => (Binary::Rem, a, b, false),
        BinaryOp::Min => (Binary::Min, a, b, false),
        BinaryOp::Max => (Binary::Max, a, b, false),
        BinaryOp::Lt => (Binary::Lt, a, b, false),
        BinaryOp::Le => (Binary::Le, a, b, false),
        BinaryOp::Gt => (Binary::Lt, b, a, false),
        BinaryOp::Ge => (Binary::Le, b, a, false),
        BinaryOp::Eq => (Binary::Eq, a, b, false),
        BinaryOp::Ne => (Binary::Eq, a, b, true),
        BinaryOp::And => (Binary::And, a, b, false),
        BinaryOp::Or => (Binary::Or, a, b, false),
    }
}
