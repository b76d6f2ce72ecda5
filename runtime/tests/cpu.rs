//! The CPU form against a plain loop in f64, for every published spec and for specs made to be awkward.

use drawloom::half::{bf16, f16};
use drawloom::{Arguments, Embedded, Error, HostMut, HostRef, Input, Operator, Output, Scalar, Tensor, TensorMut};
use drawloom_lang::spec::{
    Align, AxisRole, AxisSize, BinaryOp, Dtype, ElemType, ExprId, ExprKind, LseBase, OutputValue, Spec, Stage, UnaryOp,
};
use std::collections::BTreeMap;

/// A tensor of the test: values exactly representable in its dtype, row-major, any rank.
#[derive(Clone)]
struct Data {
    dtype: Dtype,
    shape: Vec<usize>,
    values: Vec<f64>,
}

/// A small generator, so that failures repeat.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}

fn round(dtype: Dtype, value: f64) -> f64 {
    match dtype {
        Dtype::F16 => f16::from_f64(value).to_f64(),
        Dtype::Bf16 => bf16::from_f64(value).to_f64(),
        Dtype::F32 => f64::from(value as f32),
        Dtype::I32 => f64::from(value as i32),
    }
}

/// The plain loop: a lazy walk of the expression tree for one row and key.
struct Naive<'a> {
    spec: &'a Spec,
    sizes: &'a [usize],
    inputs: &'a [Data],
    scalars: &'a [f64],
}

#[derive(Clone, Copy)]
enum Value {
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
    fn output(&self, number: usize) -> Vec<f64> {
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
fn places(spec: &Spec, axes: &[usize], sizes: &[usize]) -> Vec<Vec<usize>> {
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

/// Calls `$body` with a tensor of the right const rank.
macro_rules! by_rank {
    ($rank:expr, $n:ident => $body:expr) => {
        match $rank {
            1 => {
                const $n: usize = 1;
                $body
            }
            2 => {
                const $n: usize = 2;
                $body
            }
            3 => {
                const $n: usize = 3;
                $body
            }
            4 => {
                const $n: usize = 4;
                $body
            }
            rank => panic!("no test has rank {rank}"),
        }
    };
}

fn input<'a>(memory: &'a Memory, shape: &[usize]) -> Box<dyn Input + 'a> {
    by_rank!(shape.len(), N => {
        let shape: [usize; N] = shape.try_into().unwrap();
        match memory {
            Memory::F16(memory) => Box::new(Tensor::host(memory, shape).unwrap()) as Box<dyn Input + 'a>,
            Memory::Bf16(memory) => Box::new(Tensor::host(memory, shape).unwrap()),
            Memory::F32(memory) => Box::new(Tensor::host(memory, shape).unwrap()),
            Memory::I32(memory) => Box::new(Tensor::host(memory, shape).unwrap()),
        }
    })
}

fn output<'a>(memory: &'a mut Memory, shape: &[usize]) -> Box<dyn Output + 'a> {
    by_rank!(shape.len(), N => {
        let shape: [usize; N] = shape.try_into().unwrap();
        match memory {
            Memory::F16(memory) => Box::new(TensorMut::host(memory, shape).unwrap()) as Box<dyn Output + 'a>,
            Memory::Bf16(memory) => Box::new(TensorMut::host(memory, shape).unwrap()),
            Memory::F32(memory) => Box::new(TensorMut::host(memory, shape).unwrap()),
            Memory::I32(memory) => Box::new(TensorMut::host(memory, shape).unwrap()),
        }
    })
}

enum Memory {
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
    F32(Vec<f32>),
    I32(Vec<i32>),
}

impl Memory {
    fn of(data: &Data) -> Memory {
        match data.dtype {
            Dtype::F16 => Memory::F16(data.values.iter().map(|value| f16::from_f64(*value)).collect()),
            Dtype::Bf16 => Memory::Bf16(data.values.iter().map(|value| bf16::from_f64(*value)).collect()),
            Dtype::F32 => Memory::F32(data.values.iter().map(|value| *value as f32).collect()),
            Dtype::I32 => Memory::I32(data.values.iter().map(|value| *value as i32).collect()),
        }
    }

    fn values(&self) -> Vec<f64> {
        match self {
            Memory::F16(memory) => memory.iter().map(|value| value.to_f64()).collect(),
            Memory::Bf16(memory) => memory.iter().map(|value| value.to_f64()).collect(),
            Memory::F32(memory) => memory.iter().map(|value| f64::from(*value)).collect(),
            Memory::I32(memory) => memory.iter().map(|value| f64::from(*value)).collect(),
        }
    }
}

fn parse(text: &str) -> Spec {
    drawloom_lang::parse_str("test", text)
        .unwrap_or_else(|errors| panic!("{errors}"))
        .remove(0)
}

/// Runs a spec at these sizes (by axis name) and compares every output with the plain loop.
fn compare(spec: &Spec, types: &[Dtype], sizes: &BTreeMap<&str, usize>, scalars: &[f64], seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let by_axis: Vec<usize> = spec.axes.iter().map(|axis| sizes[axis.name.as_str()]).collect();
    let dtype = |ty: ElemType| match ty {
        ElemType::Fixed(dtype) => dtype,
        ElemType::Set(set) => types[set.index()],
    };
    let mut inputs = Vec::new();
    for declared in &spec.inputs {
        let shape: Vec<usize> = declared.axes.iter().map(|axis| by_axis[axis.index()]).collect();
        let count: usize = shape.iter().product();
        let dtype = dtype(declared.ty);
        let mut values: Vec<f64> = (0..count)
            .map(|_| match dtype {
                Dtype::I32 => (random.next() % 3) as f64,
                Dtype::F16 | Dtype::Bf16 | Dtype::F32 => round(dtype, 2.0 * random.unit()),
            })
            .collect();
        if declared.sorted {
            let row = shape.last().copied().unwrap_or(1).max(1);
            values.chunks_mut(row).for_each(|row| row.sort_by(f64::total_cmp));
        }
        inputs.push(Data { dtype, shape, values });
    }
    let naive = Naive {
        spec,
        sizes: &by_axis,
        inputs: &inputs,
        scalars,
    };
    let memories: Vec<Memory> = inputs.iter().map(Memory::of).collect();
    let boxes: Vec<Box<dyn Input + '_>> = memories
        .iter()
        .zip(&inputs)
        .map(|(memory, data)| input(memory, &data.shape))
        .collect();
    let given: Vec<&dyn Input> = boxes.iter().map(|input| &**input).collect();
    let shapes: Vec<Vec<usize>> = (spec.outputs.iter())
        .map(|output| output.axes.iter().map(|axis| by_axis[axis.index()]).collect())
        .collect();
    let mut results: Vec<Memory> = (spec.outputs.iter().zip(&shapes))
        .map(|(output, shape)| {
            let count = shape.iter().product();
            Memory::of(&Data {
                dtype: dtype(output.ty),
                shape: shape.clone(),
                values: vec![f64::NAN; count],
            })
        })
        .collect();
    let scalars: Vec<Scalar> = (spec.scalars.iter().zip(scalars))
        .map(|(scalar, value)| {
            if scalar.ty == Dtype::I32 {
                (*value as i32).into()
            } else {
                (*value as f32).into()
            }
        })
        .collect();
    let text: &'static str = Box::leak(drawloom_lang::canonical(spec).into_boxed_str());
    let embedded = Embedded::new("test", text, None, "drawloom prepare");
    {
        let mut boxes: Vec<Box<dyn Output + '_>> = results
            .iter_mut()
            .zip(&shapes)
            .map(|(memory, shape)| output(memory, shape))
            .collect();
        let mut outputs: Vec<&mut dyn Output> = Vec::new();
        for output in &mut boxes {
            outputs.push(&mut **output);
        }
        embedded
            .cpu(&given, &scalars, &mut outputs)
            .unwrap_or_else(|error| panic!("{}: {error}", spec.name));
    }
    for (number, result) in results.iter().enumerate() {
        let expected = naive.output(number);
        let given = result.values();
        assert_eq!(expected.len(), given.len());
        let row = match spec.outputs[number].value {
            OutputValue::Stage(_) => shapes[number].last().copied().unwrap_or(1).max(1),
            OutputValue::Lse { .. } => 1,
        };
        // Half a unit of the last place for the rounding of the output, and the same again for f32 arithmetic.
        let unit = match dtype(spec.outputs[number].ty) {
            Dtype::F16 => f64::powi(2.0, -10),
            Dtype::Bf16 => f64::powi(2.0, -7),
            Dtype::F32 | Dtype::I32 => f64::powi(2.0, -19),
        };
        for (index, (expected, given)) in expected.chunks(row).zip(given.chunks(row)).enumerate() {
            let norm = expected.iter().map(|value| value * value).sum::<f64>().sqrt();
            let error = expected
                .iter()
                .zip(given)
                .map(|(a, b)| (a - b) * (a - b))
                .sum::<f64>()
                .sqrt();
            let what = format!(
                "{} output {number} row {index} at {sizes:?}: {given:?} for {expected:?}",
                spec.name
            );
            // A log-sum-exp is a difference of numbers of the size of the scores, a few units.
            let scale = if row == 1 { norm.max(4.0) } else { norm };
            if norm == 0.0 || norm.is_infinite() {
                assert_eq!(expected, given, "{what}");
            } else {
                assert!(error <= unit * scale, "{what}");
            }
        }
    }
}

#[test]
fn every_published_spec_agrees_with_the_plain_loop() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../specs");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() >= 7, "the published specs are there");
    // Queries and keys: one, equal, tails beyond blocks of 128 keys and 32 rows, decode, more queries than keys, none.
    let lengths = [(1, 1), (33, 33), (1, 140), (7, 130), (9, 4), (5, 0), (0, 5)];
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let specs = drawloom_lang::parse_str("spec", &text).unwrap_or_else(|errors| panic!("{errors}"));
        for spec in specs {
            for (number, (queries, keys)) in lengths.into_iter().enumerate() {
                let mut sizes = BTreeMap::new();
                for axis in &spec.axes {
                    let size = match (&axis.size, axis.role) {
                        (AxisSize::OneOf(sizes), _) => sizes[number % sizes.len()] as usize,
                        (AxisSize::Grouped { .. }, _) => 2,
                        (AxisSize::Runtime, AxisRole::Query(_)) => queries,
                        (AxisSize::Runtime, AxisRole::Key) => keys,
                        (AxisSize::Runtime, AxisRole::Plain) => 2,
                    };
                    sizes.insert(axis.name.as_str(), size);
                }
                for axis in &spec.axes {
                    if let AxisSize::Grouped { of, ratios } = &axis.size {
                        let ratio = ratios[number % ratios.len()] as usize;
                        sizes.insert(spec.axes[of.index()].name.as_str(), 2 * ratio);
                    }
                }
                let scalars: Vec<f64> = spec.scalars.iter().map(|_| 3.0).collect();
                let types: Vec<Dtype> = spec
                    .types
                    .iter()
                    .map(|set| set.members[number % set.members.len()])
                    .collect();
                compare(&spec, &types, &sizes, &scalars, number as u64 + 1);
            }
        }
    }
}

#[test]
fn expressions_of_every_kind_agree_with_the_plain_loop() {
    let text = "attention awkward {
        axis b, h, i: query(start), j: key, d = 8, e = 24, n = 7;
        input q: f16[b, h, i, d], k: f16[h, j, b, d], v: f16[j, b, h, e], table: f32[h, n], doc: i32[b, j];
        scalar cap: f32, w: i32;
        attend o over j in (k, v) {
            score = if (i - j) % 3 == 0 { cap * tanh(dot(q, k) / cap) } else {
                    abs(dot(q, k)) - sqrt(exp(table[h, (j - i) / 2])) * min(2.0, log(1.5 + max(i, j)))
                };
            mask = !(i / 2 == j && i > 3) || doc[b, j] != 1 || j - i <= w;
            norm = softmax;
        }
        output o: f32[i, b, h, e], lse(o, bits): f32[i, h, b];
    }";
    let spec = parse(text);
    for (seed, (queries, keys)) in [(1, 1), (40, 150), (13, 300)].into_iter().enumerate() {
        let sizes = BTreeMap::from([
            ("b", 2),
            ("h", 3),
            ("i", queries),
            ("j", keys),
            ("d", 8),
            ("e", 24),
            ("n", 7),
        ]);
        compare(&spec, &[], &sizes, &[1.5, -2.0], seed as u64 + 1);
    }
}

const CAUSAL: &str = "attention causal {
    axis h, i: query(end), j: key, d = 8;
    input q: f16[h, i, d], k: f16[h, j, d], v: f16[h, j, d];
    attend o over j in (k, v) { score = dot(q, k); mask = causal; norm = softmax; }
    output o: f32[h, i, d], lse(o, nats): f32[h, i];
}";

fn causal(q: &dyn Input, k: &dyn Input, v: &dyn Input, o: &mut dyn Output, lse: &mut dyn Output) -> Result<(), Error> {
    let embedded = Embedded::new(
        "causal",
        Box::leak(drawloom_lang::canonical(&parse(CAUSAL)).into_boxed_str()),
        None,
        "",
    );
    embedded.cpu(&[q, k, v], &[], &mut [o, lse])
}

fn random(count: usize, seed: u64) -> Vec<f16> {
    let mut random = Random(seed);
    (0..count).map(|_| f16::from_f64(random.unit())).collect()
}

#[test]
fn strides_do_not_change_results() {
    let (heads, queries, keys) = (3, 40, 50);
    let (q, k, v) = (
        random(heads * queries * 8, 1),
        random(heads * keys * 8, 2),
        random(heads * keys * 8, 3),
    );
    let (mut o, mut lse) = (vec![0.0f32; q.len()], vec![0.0; heads * queries]);
    causal(
        &Tensor::host(&q, [heads, queries, 8]).unwrap(),
        &Tensor::host(&k, [heads, keys, 8]).unwrap(),
        &Tensor::host(&v, [heads, keys, 8]).unwrap(),
        &mut TensorMut::host(&mut o, [heads, queries, 8]).unwrap(),
        &mut TensorMut::host(&mut lse, [heads, queries]).unwrap(),
    )
    .unwrap();
    // The same with heads inside: [length, heads, 8].
    fn inside<T: Copy>(from: &[T], heads: usize) -> Vec<T> {
        let length = from.len() / heads / 8;
        let at = |row: usize, head: usize| &from[(head * length + row) * 8..][..8];
        (0..length)
            .flat_map(|row| (0..heads).flat_map(move |head| at(row, head).to_vec()))
            .collect()
    }
    let (q, k, v) = (inside(&q, heads), inside(&k, heads), inside(&v, heads));
    let (mut o2, mut lse2) = (vec![0.0; q.len()], vec![0.0; heads * queries]);
    causal(
        &Tensor::host(&q, [queries, heads, 8]).unwrap().transpose(0, 1),
        &Tensor::host(&k, [keys, heads, 8]).unwrap().transpose(0, 1),
        &Tensor::host(&v, [keys, heads, 8]).unwrap().transpose(0, 1),
        &mut TensorMut::host(&mut o2, [queries, heads, 8]).unwrap().transpose(0, 1),
        &mut TensorMut::host(&mut lse2, [heads, queries]).unwrap(),
    )
    .unwrap();
    assert_eq!(inside(&o, heads), o2);
    assert_eq!(lse, lse2);
}

#[test]
fn masked_keys_have_no_influence_whatever_they_hold() {
    let q = random(4 * 8, 1);
    let (mut k, mut v) = (random(200 * 8, 2), random(200 * 8, 3));
    let run = |k: &[f16], v: &[f16]| {
        let (mut o, mut lse) = (vec![0.0; 4 * 8], vec![0.0; 4]);
        causal(
            &Tensor::host(&q, [1, 4, 8]).unwrap(),
            &Tensor::host(k, [1, 200, 8]).unwrap(),
            &Tensor::host(v, [1, 200, 8]).unwrap(),
            &mut TensorMut::host(&mut o, [1, 4, 8]).unwrap(),
            &mut TensorMut::host(&mut lse, [1, 4]).unwrap(),
        )
        .unwrap();
        (o, lse)
    };
    let before = run(&k, &v);
    // The last three keys are invisible to the first query.
    for index in 197 * 8..200 * 8 {
        (k[index], v[index]) = (f16::NAN, f16::INFINITY);
    }
    let after = run(&k, &v);
    assert_eq!(before.0[..8], after.0[..8]);
    assert_eq!(before.1[0], after.1[0]);
    assert!(
        after.0[24..].iter().all(|value| value.is_nan()),
        "the last query sees them"
    );
}

#[test]
fn rows_without_a_visible_key_are_zero() {
    // Six queries and two keys: the first four queries stand before every key.
    let (q, k, v) = (random(6 * 8, 1), random(2 * 8, 2), random(2 * 8, 3));
    let (mut o, mut lse) = (vec![f32::NAN; 6 * 8], vec![f32::NAN; 6]);
    causal(
        &Tensor::host(&q, [1, 6, 8]).unwrap(),
        &Tensor::host(&k, [1, 2, 8]).unwrap(),
        &Tensor::host(&v, [1, 2, 8]).unwrap(),
        &mut TensorMut::host(&mut o, [1, 6, 8]).unwrap(),
        &mut TensorMut::host(&mut lse, [1, 6]).unwrap(),
    )
    .unwrap();
    assert!(o[..32].iter().all(|value| *value == 0.0 && value.is_sign_positive()));
    assert_eq!(lse[..4], [f32::NEG_INFINITY; 4]);
    assert_eq!(o[32..40], v[..8].iter().map(|value| value.to_f32()).collect::<Vec<_>>());
}

#[test]
fn large_scores_do_not_overflow() {
    let high = f16::from_f32(100.0);
    let q = vec![high; 8];
    let k = [vec![-high; 8 * 130], vec![high; 8]].concat();
    let v = random(131 * 8, 3);
    let (mut o, mut lse) = (vec![0.0; 8], vec![0.0; 1]);
    causal(
        &Tensor::host(&q, [1, 1, 8]).unwrap(),
        &Tensor::host(&k, [1, 131, 8]).unwrap(),
        &Tensor::host(&v, [1, 131, 8]).unwrap(),
        &mut TensorMut::host(&mut o, [1, 1, 8]).unwrap(),
        &mut TensorMut::host(&mut lse, [1, 1]).unwrap(),
    )
    .unwrap();
    assert_eq!(o, v[130 * 8..].iter().map(|value| value.to_f32()).collect::<Vec<_>>());
    assert_eq!(lse, [80_000.0]);
}

#[test]
fn the_same_bytes_come_out_of_one_thread_and_many() {
    // Large enough for several threads; each result must not depend on which thread made it.
    let (q, k, v) = (random(4 * 128 * 8, 1), random(4 * 256 * 8, 2), random(4 * 256 * 8, 3));
    let run = || {
        let (mut o, mut lse) = (vec![0.0f32; q.len()], vec![0.0; 4 * 128]);
        causal(
            &Tensor::host(&q, [4, 128, 8]).unwrap(),
            &Tensor::host(&k, [4, 256, 8]).unwrap(),
            &Tensor::host(&v, [4, 256, 8]).unwrap(),
            &mut TensorMut::host(&mut o, [4, 128, 8]).unwrap(),
            &mut TensorMut::host(&mut lse, [4, 128]).unwrap(),
        )
        .unwrap();
        (o, lse)
    };
    let first = run();
    for _ in 0..5 {
        assert!(first == run());
    }
    let (mut o, mut lse) = (vec![0.0; 8], vec![0.0; 1]);
    // Row 77 of head 2 alone, in one thread: the keys that it sees, up to its position.
    let visible = 77 + 128 + 1;
    causal(
        &Tensor::host(&q[(2 * 128 + 77) * 8..][..8], [1, 1, 8]).unwrap(),
        &Tensor::host(&k[2 * 256 * 8..][..visible * 8], [1, visible, 8]).unwrap(),
        &Tensor::host(&v[2 * 256 * 8..][..visible * 8], [1, visible, 8]).unwrap(),
        &mut TensorMut::host(&mut o, [1, 1, 8]).unwrap(),
        &mut TensorMut::host(&mut lse, [1, 1]).unwrap(),
    )
    .unwrap();
    assert_eq!(o, first.0[(2 * 128 + 77) * 8..][..8]);
}

#[test]
fn arguments_by_name_come_in_any_order_and_are_checked() {
    let operator = Operator::new(parse(CAUSAL)).unwrap();
    let memory = random(16, 1);
    let tensor = Tensor::host(&memory, [1, 2, 8]).unwrap();
    let mut out = vec![0.0; 16];
    let mut lse = vec![0.0; 2];
    let mut o = TensorMut::host(&mut out, [1, 2, 8]).unwrap();
    let mut l = TensorMut::host(&mut lse, [1, 2]).unwrap();
    let mut refuse = |inputs: &[(&str, &dyn Input)], scalars: &[(&str, Scalar)]| {
        Arguments::named(&operator, inputs, scalars, &mut [("o", &mut o), ("lse", &mut l)])
            .err()
            .unwrap()
            .to_string()
    };
    let t: &dyn Input = &tensor;
    assert_eq!(refuse(&[("q", t), ("k", t)], &[]), "argument `v` is missing");
    assert_eq!(refuse(&[("q", t), ("q", t)], &[]), "argument `q` was given twice");
    assert_eq!(refuse(&[("x", t)], &[]), "there is no input `x`; there are q, k or v");
    let all = [("v", t), ("q", t), ("k", t)];
    assert_eq!(
        refuse(&all, &[("w", Scalar::I32(1))]),
        "there is no scalar `w`; there are none"
    );
    assert!(Arguments::named(&operator, &all, &[], &mut [("lse", &mut l), ("o", &mut o)]).is_ok());
}

#[test]
fn device_memory_is_refused() {
    // SAFETY: the CPU form refuses the tensor; nobody reads the address.
    let raw = unsafe { Tensor::<f16, 3>::from_raw(4096, 16, [1, 2, 8], [16, 8, 1]) }.unwrap();
    let memory = random(16, 1);
    let t = Tensor::host(&memory, [1, 2, 8]).unwrap();
    let (mut o, mut lse) = (vec![0.0; 16], vec![0.0; 2]);
    let given = causal(
        &t,
        &raw,
        &t,
        &mut TensorMut::host(&mut o, [1, 2, 8]).unwrap(),
        &mut TensorMut::host(&mut lse, [1, 2]).unwrap(),
    );
    assert_eq!(
        given,
        Err(Error::Place {
            argument: "k".into(),
            expected: "host",
            given: "device"
        })
    );
}

/// Adapters can be written outside of the crate.
#[test]
fn views_are_open_to_other_crates() {
    fn takes(memory: Option<HostRef<'_>>, output: Option<HostMut<'_>>) -> bool {
        matches!((memory, output), (Some(HostRef::F16(_)), Some(HostMut::F32(_))))
    }
    let (memory, mut out) = (random(8, 1), vec![0.0f32; 8]);
    let input = Tensor::host(&memory, [8]).unwrap();
    let mut output = TensorMut::host(&mut out, [8]).unwrap();
    assert!(takes(input.host(), Output::host(&mut output)));
}
