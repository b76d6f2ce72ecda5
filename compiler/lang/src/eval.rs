//! The value of an expression of a spec at one point: for mask pictures and for whoever needs a mask without a compiler.
//!
//! In: a [`Spec`], one of its expressions, and an [`Env`] that says where the point is and what the tables hold. Out: a
//! [`Value`]. Reals are `f64`, integers `i64`, `/` and `%` on integers floor and give 0 for a divisor of 0, what is read out of range is 0; `&&`, `||` and `if` look at the second
//! operand only where it counts, so a table is read only where the mask asks for it.

use crate::spec::{AxisId, BinaryOp, ExprId, ExprKind, InputId, ScalarId, Spec, Ty, UnaryOp};

/// A value.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Value {
    /// A real number.
    Real(f64),
    /// An integer.
    Int(i64),
    /// A truth value.
    Bool(bool),
}

/// A point and what surrounds it.
pub trait Env {
    /// The index on an axis; for the query axis the position (`row + len(j) - len(i)` for `query(end)`).
    fn index(&self, axis: AxisId) -> i64;
    /// The size of an axis.
    fn len(&self, axis: AxisId) -> i64;
    /// A run-time scalar: real or integer, as declared.
    fn scalar(&self, scalar: ScalarId) -> Value;
    /// An element of an input, real or integer as declared, at one index per axis (on the query axis the position);
    /// `None`, for 0, if an index is out of range.
    fn load(&self, input: InputId, at: &[i64]) -> Option<Value>;
    /// The product of the query and the key of this point.
    fn dot(&self) -> f64;
}

/// Why an expression has no value.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// An integer does not fit in 64 bits.
    #[error("an integer does not fit in 64 bits")]
    Overflow,
    /// The environment gave a value of another type than is declared.
    #[error("expected {expected}, found {found:?}")]
    Type {
        /// What was wanted.
        expected: &'static str,
        /// Debug form of what came.
        found: String,
    },
}

type Evaluated = Result<Value, EvalError>;

fn wrong<T>(expected: &'static str, found: Value) -> Result<T, EvalError> {
    Err(EvalError::Type {
        expected,
        found: format!("{found:?}"),
    })
}

impl Value {
    /// The truth value.
    ///
    /// # Errors
    /// [`EvalError::Type`] if it is a number.
    pub fn truth(self) -> Result<bool, EvalError> {
        match self {
            Value::Bool(value) => Ok(value),
            Value::Real(_) | Value::Int(_) => wrong("a truth value", self),
        }
    }

    /// The integer.
    ///
    /// # Errors
    /// [`EvalError::Type`] if it is none.
    pub fn int(self) -> Result<i64, EvalError> {
        match self {
            Value::Int(value) => Ok(value),
            Value::Real(_) | Value::Bool(_) => wrong("an integer", self),
        }
    }

    /// The real number; integers become reals.
    ///
    /// # Errors
    /// [`EvalError::Type`] if it is a truth value.
    pub fn real(self) -> Result<f64, EvalError> {
        match self {
            Value::Real(value) => Ok(value),
            Value::Int(value) => Ok(value as f64),
            Value::Bool(_) => wrong("a number", self),
        }
    }
}

/// The value of an expression.
///
/// # Errors
/// [`EvalError`] where it has none.
pub fn eval(spec: &Spec, at: ExprId, env: &impl Env) -> Evaluated {
    let value = |at: ExprId| eval(spec, at, env);
    let expr = &spec.exprs[at.index()];
    Ok(match &expr.kind {
        ExprKind::Real(value) => Value::Real(*value),
        ExprKind::Int(value) => Value::Int(*value),
        ExprKind::Bool(value) => Value::Bool(*value),
        ExprKind::Index(axis) => Value::Int(env.index(*axis)),
        ExprKind::Len(axis) => Value::Int(env.len(*axis)),
        ExprKind::Scalar(scalar) => env.scalar(*scalar),
        ExprKind::Load { input, at } => {
            let at = at
                .iter()
                .map(|e| value(*e)?.int())
                .collect::<Result<Vec<i64>, EvalError>>()?;
            env.load(*input, &at).unwrap_or(match expr.ty {
                Ty::Int => Value::Int(0),
                Ty::Real | Ty::Bool => Value::Real(0.0),
            })
        }
        ExprKind::Dot { .. } => Value::Real(env.dot()),
        ExprKind::Unary(op, a) => unary(*op, value(*a)?)?,
        ExprKind::Binary(BinaryOp::And, a, b) => Value::Bool(value(*a)?.truth()? && value(*b)?.truth()?),
        ExprKind::Binary(BinaryOp::Or, a, b) => Value::Bool(value(*a)?.truth()? || value(*b)?.truth()?),
        ExprKind::Binary(op, a, b) => binary(*op, value(*a)?, value(*b)?)?,
        ExprKind::If(condition, then, otherwise) => {
            if value(*condition)?.truth()? {
                value(*then)?
            } else {
                value(*otherwise)?
            }
        }
    })
}

fn unary(op: UnaryOp, a: Value) -> Evaluated {
    Ok(match (op, a) {
        (UnaryOp::Not, a) => Value::Bool(!a.truth()?),
        (UnaryOp::Neg, Value::Int(a)) => Value::Int(a.checked_neg().ok_or(EvalError::Overflow)?),
        (UnaryOp::Abs, Value::Int(a)) => Value::Int(a.checked_abs().ok_or(EvalError::Overflow)?),
        (UnaryOp::Neg, a) => Value::Real(-a.real()?),
        (UnaryOp::Abs, a) => Value::Real(a.real()?.abs()),
        (UnaryOp::Exp, a) => Value::Real(a.real()?.exp()),
        (UnaryOp::Log, a) => Value::Real(a.real()?.ln()),
        (UnaryOp::Tanh, a) => Value::Real(a.real()?.tanh()),
        (UnaryOp::Sqrt, a) => Value::Real(a.real()?.sqrt()),
        (UnaryOp::Rsqrt, a) => Value::Real(a.real()?.sqrt().recip()),
        (UnaryOp::ToReal, a) => Value::Real(a.real()?),
    })
}

fn binary(op: BinaryOp, a: Value, b: Value) -> Evaluated {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => integers(op, a, b),
        _ => reals(op, a.real()?, b.real()?),
    }
}

fn integers(op: BinaryOp, a: i64, b: i64) -> Evaluated {
    let checked = |value: Option<i64>| value.map(Value::Int).ok_or(EvalError::Overflow);
    match op {
        BinaryOp::Add => checked(a.checked_add(b)),
        BinaryOp::Sub => checked(a.checked_sub(b)),
        BinaryOp::Mul => checked(a.checked_mul(b)),
        BinaryOp::Div | BinaryOp::Rem if b == 0 => Ok(Value::Int(0)),
        BinaryOp::Div => {
            let quotient = a.checked_div(b).ok_or(EvalError::Overflow)?;
            checked(Some(if a % b != 0 && (a < 0) != (b < 0) {
                quotient - 1
            } else {
                quotient
            }))
        }
        BinaryOp::Rem => {
            let remainder = a.checked_rem(b).ok_or(EvalError::Overflow)?;
            checked(Some(if remainder != 0 && (remainder < 0) != (b < 0) {
                remainder + b
            } else {
                remainder
            }))
        }
        BinaryOp::Min => Ok(Value::Int(a.min(b))),
        BinaryOp::Max => Ok(Value::Int(a.max(b))),
        BinaryOp::Lt => Ok(Value::Bool(a < b)),
        BinaryOp::Le => Ok(Value::Bool(a <= b)),
        BinaryOp::Gt => Ok(Value::Bool(a > b)),
        BinaryOp::Ge => Ok(Value::Bool(a >= b)),
        BinaryOp::Eq => Ok(Value::Bool(a == b)),
        BinaryOp::Ne => Ok(Value::Bool(a != b)),
        BinaryOp::And | BinaryOp::Or => wrong("a truth value", Value::Int(a)),
    }
}

fn reals(op: BinaryOp, a: f64, b: f64) -> Evaluated {
    Ok(match op {
        BinaryOp::Add => Value::Real(a + b),
        BinaryOp::Sub => Value::Real(a - b),
        BinaryOp::Mul => Value::Real(a * b),
        BinaryOp::Div => Value::Real(a / b),
        BinaryOp::Min => Value::Real(a.min(b)),
        BinaryOp::Max => Value::Real(a.max(b)),
        BinaryOp::Lt => Value::Bool(a < b),
        BinaryOp::Le => Value::Bool(a <= b),
        BinaryOp::Gt => Value::Bool(a > b),
        BinaryOp::Ge => Value::Bool(a >= b),
        BinaryOp::Eq => Value::Bool(a == b),
        BinaryOp::Ne => Value::Bool(a != b),
        BinaryOp::Rem | BinaryOp::And | BinaryOp::Or => return wrong("an integer", Value::Real(a)),
    })
}
