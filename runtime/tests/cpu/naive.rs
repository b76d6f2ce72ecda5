//! The plain loop in f64: a lazy walk of the expression tree, for one row and key at a time.

use drawloom::half::{bf16, f16};
use drawloom_lang::spec::{
    Align, AxisRole, AxisSize, BinaryOp, Dtype, ExprId, ExprKind, LseBase, OutputValue, Spec, Stage, UnaryOp,
};

/// A tensor of the test: values exactly representable in its dtype, row-major, any rank.
#[derive(Clone)]
pub struct Data {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
}

/// A small generator, so that failures repeat.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}

pub fn round(dtype: Dtype, value: f64) -> f64 {
    match dtype {
        Dtype::F16 => f16::from_f64(value).to_f64(),
        Dtype::Bf16 => bf16::from_f64(value).to_f64(),
        Dtype::F32 => f64::from(value as f32),
        Dtype::I32 => f64::from(value as i32),
    }
}

/// The plain loop: a lazy walk of the expression tree for one row and key.
pub struct Naive<'a> {
    pub spec: &'a Spec,
    pub sizes: &'a [usize],
    pub inputs: &'a [Data],
    pub scalars: &'a [f64],
}

#[derive(Clone, Copy)]
pub enum Value {
    Real(f64),
    Int(i64),
    Bool(bool),
}

impl Value {
    fn real(self) -> f64 {
        match self {
            Value::Real(value) => value,
            Value::Int(value) => value as f64,
            Value::Bool(_) => panic!("a truth value is no number"),
        }
    }
    fn int(self) -> i64 {
        match self {
            Value::Int(value) => value,
            Value::Real(_) | Value::Bool(_) => panic!("not an integer"),
        }
    }
    fn truth(self) -> bool {
        match self {
            Value::Bool(value) => value,
            Value::Real(_) | Value::Int(_) => panic!("not a truth value"),
        }
    }
}

impl Naive<'_> {
    fn at(&self, input: usize, index: &[i64]) -> f64 {
        let data = &self.inputs[input];
        let mut place = 0;
        for (index, size) in index.iter().zip(&data.shape) {
            if *index < 0 || *index >= *size as i64 {
                return 0.0;
            }
            place = place * size + *index as usize;
        }
        data.values[place]
    }

    /// Coordinates of a tensor's axes, with grouped axes following from the finer ones.
    fn coordinate(&self, axis: usize, place: &[usize]) -> usize {
        match &self.spec.axes[axis].size {
            AxisSize::Grouped { of, .. } => place[of.index()] / (self.sizes[of.index()] / self.sizes[axis]),
            AxisSize::Runtime | AxisSize::OneOf(_) => place[axis],
        }
    }

    fn tensor_at(&self, input: usize, place: &[usize]) -> f64 {
        let axes = &self.spec.inputs[input].axes;
        let index: Vec<i64> = axes
            .iter()
            .map(|axis| self.coordinate(axis.index(), place) as i64)
            .collect();
        self.at(input, &index)
    }

    fn eval(&self, id: ExprId, place: &[usize], key: usize) -> Value {
        let expr = &self.spec.exprs[id.index()];
        match &expr.kind {
            ExprKind::Real(value) => Value::Real(*value),
            ExprKind::Int(value) => Value::Int(*value),
            ExprKind::Bool(value) => Value::Bool(*value),
            ExprKind::Index(axis) => {
                let index = self.coordinate(axis.index(), place) as i64;
                Value::Int(match self.spec.axes[axis.index()].role {
                    AxisRole::Query(Align::End) => index + self.sizes[key] as i64 - self.sizes[axis.index()] as i64,
                    AxisRole::Query(Align::Start) | AxisRole::Plain | AxisRole::Key => index,
                })
            }
            ExprKind::Len(axis) => Value::Int(self.sizes[axis.index()] as i64),
            ExprKind::Scalar(scalar) => {
                let value = self.scalars[scalar.index()];
                match self.spec.scalars[scalar.index()].ty {
                    Dtype::I32 => Value::Int(value as i64),
                    Dtype::F16 | Dtype::Bf16 | Dtype::F32 => Value::Real(value),
                }
            }
            ExprKind::Load { input, at } => {
                let index: Vec<i64> = at.iter().map(|index| self.eval(*index, place, key).int()).collect();
                let value = self.at(input.index(), &index);
                if self.inputs[input.index()].dtype == Dtype::I32 {
                    Value::Int(value as i64)
                } else {
                    Value::Real(value)
                }
            }
            ExprKind::Dot { a, b, over } => {
                let mut place = place.to_vec();
                let mut sum = 0.0;
                for index in 0..self.sizes[over.index()] {
                    place[over.index()] = index;
                    sum += self.tensor_at(a.index(), &place) * self.tensor_at(b.index(), &place);
                }
                Value::Real(sum)
            }
            ExprKind::Unary(op, a) => match (op, self.eval(*a, place, key)) {
                (UnaryOp::Neg, Value::Int(a)) => Value::Int(-a),
                (UnaryOp::Neg, a) => Value::Real(-a.real()),
                (UnaryOp::Not, a) => Value::Bool(!a.truth()),
                (UnaryOp::Abs, Value::Int(a)) => Value::Int(a.abs()),
                (UnaryOp::Abs, a) => Value::Real(a.real().abs()),
                (UnaryOp::Exp, a) => Value::Real(a.real().exp()),
                (UnaryOp::Log, a) => Value::Real(a.real().ln()),
                (UnaryOp::Tanh, a) => Value::Real(a.real().tanh()),
                (UnaryOp::Sqrt, a) => Value::Real(a.real().sqrt()),
                (UnaryOp::Rsqrt, a) => Value::Real(1.0 / a.real().sqrt()),
                (UnaryOp::ToReal, a) => Value::Real(a.real()),
            },
            ExprKind::If(c, a, b) => {
                let branch = if self.eval(*c, place, key).truth() { a } else { b };
                self.eval(*branch, place, key)
            }
            ExprKind::Binary(op, a, b) => {
                let (a, b) = (self.eval(*a, place, key), self.eval(*b, place, key));
                if let (Value::Int(a), Value::Int(b)) = (a, b) {
                    return match op {
                        BinaryOp::Add => Value::Int(a + b),
                        BinaryOp::Sub => Value::Int(a - b),
                        BinaryOp::Mul => Value::Int(a * b),
                        BinaryOp::Div => Value::Int((a as f64 / b as f64).floor() as i64),
                        BinaryOp::Rem => Value::Int(a - b * (a as f64 / b as f64).floor() as i64),
                        BinaryOp::Min => Value::Int(a.min(b)),
                        BinaryOp::Max => Value::Int(a.max(b)),
                        BinaryOp::Lt => Value::Bool(a < b),
                        BinaryOp::Le => Value::Bool(a <= b),
                        BinaryOp::Gt => Value::Bool(a > b),
                        BinaryOp::Ge => Value::Bool(a >= b),
                        BinaryOp::Eq => Value::Bool(a == b),
                        BinaryOp::Ne => Value::Bool(a != b),
                        BinaryOp::And | BinaryOp::Or => panic!("integers are no truth values"),
                    };
                }
                match op {
                    BinaryOp::And => Value::Bool(a.truth() && b.truth()),
                    BinaryOp::Or => Value::Bool(a.truth() || b.truth()),
                    BinaryOp::Add => Value::Real(a.real() + b.real()),
                    BinaryOp::Sub => Value::Real(a.real() - b.real()),
                    BinaryOp::Mul => Value::Real(a.real() * b.real()),
                    BinaryOp::Div => Value::Real(a.real() / b.real()),
                    BinaryOp::Rem => Value::Real(a.real() - b.real() * (a.real() / b.real()).floor()),
                    BinaryOp::Min => Value::Real(a.real().min(b.real())),
                    BinaryOp::Max => Value::Real(a.real().max(b.real())),
                    BinaryOp::Lt => Value::Bool(a.real() < b.real()),
                    BinaryOp::Le => Value::Bool(a.real() <= b.real()),
                    BinaryOp::Gt => Value::Bool(a.real() > b.real()),
                    BinaryOp::Ge => Value::Bool(a.real() >= b.real()),
                    BinaryOp::Eq => Value::Bool(a.real() == b.real()),
                    BinaryOp::Ne => Value::Bool(a.real() != b.real()),
                }
            }
        }
    }

    /// One output, row-major, in f64.
    pub fn output(&self, number: usize) -> Vec<f64> {
        let output = &self.spec.outputs[number];
        let Stage::Attend(stage) = &self.spec.stages[0];
        let feature = *self.spec.inputs[stage.v.index()].axes.last().unwrap();
        let mut all = Vec::new();
        // Scores of the latest row: the features of a row follow each other.
        let mut row = Vec::new();
        let mut scores = Vec::new();
        for place in places(
            self.spec,
            &output.axes.iter().map(|axis| axis.index()).collect::<Vec<_>>(),
            self.sizes,
        ) {
            let mut this_row = place.clone();
            this_row[feature.index()] = 0;
            if row != this_row {
                row.clone_from(&this_row);
                scores.clear();
                for key in 0..self.sizes[stage.key.index()] {
                    this_row[stage.key.index()] = key;
                    let sees = |mask| self.eval(mask, &this_row, stage.key.index()).truth();
                    if stage.mask.is_none_or(sees) {
                        scores.push((key, self.eval(stage.score, &this_row, stage.key.index()).real()));
                    }
                }
            }
            let highest = scores.iter().map(|(_, score)| *score).fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = scores.iter().map(|(_, score)| (score - highest).exp()).sum();
            all.push(match output.value {
                OutputValue::Lse {
                    base: LseBase::Nats, ..
                } => highest + sum.ln(),
                OutputValue::Lse {
                    base: LseBase::Bits, ..
                } => (highest + sum.ln()) / std::f64::consts::LN_2,
                OutputValue::Stage(_) => scores
                    .iter()
                    .map(|(key, score)| {
                        let mut place = place.clone();
                        place[stage.key.index()] = *key;
                        (score - highest).exp() / sum * self.tensor_at(stage.v.index(), &place)
                    })
                    .sum(),
            });
        }
        all
    }
}

/// All places over some axes, row-major.
pub fn places(spec: &Spec, axes: &[usize], sizes: &[usize]) -> Vec<Vec<usize>> {
    let mut all = vec![vec![0; spec.axes.len()]];
    for &axis in axes {
        all = all
            .into_iter()
            .flat_map(|place| {
                (0..sizes[axis]).map(move |index| {
                    let mut place = place.clone();
                    place[axis] = index;
                    place
                })
            })
            .collect();
    }
    all
}
