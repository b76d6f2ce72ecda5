//! The naive engines: loops over (row, key, feature), straight from the spec. No compiler, no tiles, no tricks.
//!
//! [`Exact`] computes in `f64` and is the truth. [`SameDtype`] is what a careful but plain implementation in the
//! operator's own types yields: scores in `f32`, weights rounded to the element type, sums in `f32`, one rounding at the
//! end. Its error is the yardstick of [`criterion`](crate::criterion).

use crate::case::{Case, Engine, Outputs, Scalar};
use crate::tensor::{Tensor, indices, round};
use drawloom_lang::eval::{Env, Value, eval};
use drawloom_lang::spec::{
    AxisId, AxisRole, AxisSize, Dtype, ElemType, ExprKind, InputId, LseBase, OutputValue, ScalarId,
};

/// In `f64`.
#[derive(Clone, Copy, Debug)]
pub struct Exact;

/// In the operator's types, unfused.
#[derive(Clone, Copy, Debug)]
pub struct SameDtype;

impl Engine for Exact {
    fn name(&self) -> &str {
        "naive f64"
    }

    fn run(&self, case: &Case) -> Result<Outputs, String> {
        run(case, Precision::Exact)
    }
}

impl Engine for SameDtype {
    fn name(&self) -> &str {
        "naive same-dtype"
    }

    fn run(&self, case: &Case) -> Result<Outputs, String> {
        run(case, Precision::Same)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Precision {
    Exact,
    Same,
}

/// A score's place: what the expressions of a spec are evaluated at.
#[derive(Clone, Debug)]
pub struct Point<'a> {
    case: &'a Case,
    /// Index on each axis; on the query axis the row, not the position.
    index: Vec<usize>,
    dot: f64,
}

impl<'a> Point<'a> {
    /// The point with these indices, one per axis (on the query axis the row); its product is 0.
    pub fn at_row(case: &'a Case, index: Vec<usize>) -> Point<'a> {
        Point { case, index, dot: 0.0 }
    }

    /// The index on an axis; on a grouped axis that of the group.
    pub fn at(&self, axis: AxisId) -> usize {
        match self.case.spec.axes[axis.index()].size {
            AxisSize::Grouped { of, .. } => {
                let (members, groups) = (self.case.sizes[of.index()], self.case.sizes[axis.index()]);
                self.at(of) * groups / members.max(1)
            }
            AxisSize::Runtime | AxisSize::OneOf(_) => self.index[axis.index()],
        }
    }

    fn element(&self, input: InputId) -> Result<f64, String> {
        let axes = &self.case.spec.inputs[input.index()].axes;
        let at: Vec<usize> = axes.iter().map(|a| self.at(*a)).collect();
        let tensor = &self.case.inputs[input.index()];
        tensor
            .get(&at)
            .ok_or_else(|| format!("`{}` has no element {at:?}", tensor.name))
    }

    fn is_query(&self, axis: AxisId) -> bool {
        matches!(self.case.spec.axes[axis.index()].role, AxisRole::Query(_))
    }
}

impl Env for Point<'_> {
    fn index(&self, axis: AxisId) -> i64 {
        let position = if self.is_query(axis) { self.case.offset() } else { 0 };
        self.at(axis) as i64 + position
    }

    fn len(&self, axis: AxisId) -> i64 {
        self.case.sizes[axis.index()] as i64
    }

    fn scalar(&self, scalar: ScalarId) -> Value {
        match self.case.scalars[scalar.index()] {
            Scalar::Real(x) => Value::Real(x.into()),
            Scalar::Int(x) => Value::Int(x.into()),
        }
    }

    fn load(&self, input: InputId, at: &[i64]) -> Option<Value> {
        let decl = &self.case.spec.inputs[input.index()];
        let row = |(x, axis): (&i64, &AxisId)| {
            let offset = if self.is_query(*axis) { self.case.offset() } else { 0 };
            usize::try_from(x - offset).ok()
        };
        let at = at.iter().zip(&decl.axes).map(row).collect::<Option<Vec<usize>>>()?;
        let value = self.case.inputs[input.index()].get(&at)?;
        Some(match decl.ty {
            ElemType::Fixed(Dtype::I32) => Value::Int(value as i64),
            ElemType::Fixed(Dtype::F16 | Dtype::Bf16 | Dtype::F32) | ElemType::Set(_) => Value::Real(value),
        })
    }

    fn dot(&self) -> f64 {
        self.dot
    }
}

/// One row's result: its features and the log-sum-exp in nats.
struct Row {
    o: Vec<f64>,
    lse: f64,
}

fn run(case: &Case, precision: Precision) -> Result<Outputs, String> {
    let mut outputs: Outputs = (0..case.spec.outputs.len()).map(|n| case.blank_output(n)).collect();
    let (q, feature) = (&case.spec.inputs[case.queries().index()], value_axis(case));
    let over = q.axes.last().copied().ok_or("queries without axes")?;
    let rows: Vec<AxisId> = q.axes.iter().copied().filter(|a| *a != over).collect();
    for at in indices(&case.shape(&rows)) {
        let mut point = Point {
            case,
            index: vec![0; case.sizes.len()],
            dot: 0.0,
        };
        for (axis, x) in rows.iter().zip(&at) {
            point.index[axis.index()] = *x;
        }
        let row = attend(&mut point, feature, precision)?;
        for (decl, out) in case.spec.outputs.iter().zip(&mut outputs) {
            match decl.value {
                OutputValue::Stage(_) => {
                    for (f, x) in row.o.iter().enumerate() {
                        point.index[feature.index()] = f;
                        write(out, &decl.axes, &point, *x, precision);
                    }
                }
                OutputValue::Lse { base, .. } => {
                    let lse = match base {
                        LseBase::Nats => row.lse,
                        LseBase::Bits => row.lse / std::f64::consts::LN_2,
                    };
                    write(out, &decl.axes, &point, lse, precision);
                }
            }
        }
    }
    Ok(outputs)
}

fn write(out: &mut Tensor, axes: &[AxisId], point: &Point<'_>, x: f64, precision: Precision) {
    let offset = axes
        .iter()
        .zip(&out.shape)
        .fold(0, |acc, (a, n)| acc * n + point.index[a.index()]);
    out.values[offset] = match precision {
        Precision::Exact => x,
        Precision::Same => round(out.dtype, x),
    };
}

/// The axis that the result has and the rows have not.
fn value_axis(case: &Case) -> AxisId {
    let v = &case.spec.inputs[case.attend().v.index()];
    v.axes.last().copied().unwrap_or(case.attend().key)
}

fn attend(point: &mut Point<'_>, feature: AxisId, precision: Precision) -> Result<Row, String> {
    let case = point.case;
    let attend = case.attend();
    let mut scores = Vec::new();
    for j in 0..case.sizes[attend.key.index()] {
        point.index[attend.key.index()] = j;
        let visible = match attend.mask {
            Some(mask) => eval(&case.spec, mask, point)
                .and_then(Value::truth)
                .map_err(|e| e.to_string())?,
            None => true,
        };
        if visible {
            point.dot = dot(point, precision)?;
            let score = eval(&case.spec, attend.score, point)
                .and_then(Value::real)
                .map_err(|e| e.to_string())?;
            scores.push((j, narrow(score, precision)));
        }
    }
    let largest = scores.iter().map(|(_, s)| *s).fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<(usize, f64)> = scores
        .iter()
        .map(|(j, s)| (*j, narrow((s - largest).exp(), precision)))
        .collect();
    let sum = weights.iter().fold(0.0, |acc, (_, w)| narrow(acc + w, precision));
    let dtype = case.inputs[attend.v.index()].dtype;
    let mut o = Vec::new();
    for f in 0..case.sizes[feature.index()] {
        point.index[feature.index()] = f;
        let mut acc = 0.0;
        for (j, w) in &weights {
            point.index[attend.key.index()] = *j;
            let v = point.element(attend.v)?;
            acc = match precision {
                Precision::Exact => acc + w / sum * v,
                Precision::Same => narrow(acc + round(dtype, narrow(w / sum, precision)) * v, precision),
            };
        }
        o.push(acc);
    }
    Ok(Row {
        o,
        lse: largest + if weights.is_empty() { 0.0 } else { sum.ln() },
    })
}

/// The product of the point's query and key.
fn dot(point: &mut Point<'_>, precision: Precision) -> Result<f64, String> {
    let product = point.case.spec.exprs.iter().find_map(|e| match e.kind {
        ExprKind::Dot { a, b, over } => Some((a, b, over)),
        _ => None,
    });
    let (a, b, over) = product.ok_or("a score without a product")?;
    let mut acc = 0.0;
    for d in 0..point.case.sizes[over.index()] {
        point.index[over.index()] = d;
        acc = narrow(acc + point.element(a)? * point.element(b)?, precision);
    }
    Ok(acc)
}

/// To `f32`, where that is asked.
fn narrow(x: f64, precision: Precision) -> f64 {
    match precision {
        Precision::Exact => x,
        Precision::Same => f64::from(x as f32),
    }
}
