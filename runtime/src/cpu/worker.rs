//! One thread of the CPU form: a block of query rows against all keys, block by block, with an online softmax.

use super::program::{Dot, LANES, Source};
use super::{Done, Form, ROWS, offset, stride};
use crate::element::{HostRef, Scalar};
use crate::operator::MAX_AXES;
use drawloom_lang::spec::{Align, AxisId, AxisRole, InputId, Norm, ScalarId};
use half::slice::HalfFloatSliceExt;

fn read(memory: HostRef<'_>, at: usize, stride: usize, to: &mut [f32]) {
    let count = to.len();
    let places = (0..count).map(|index| at + index * stride);
    match memory {
        HostRef::F16(from) if stride == 1 => from[at..at + count].convert_to_f32_slice(to),
        HostRef::Bf16(from) if stride == 1 => from[at..at + count].convert_to_f32_slice(to),
        HostRef::F16(from) => to
            .iter_mut()
            .zip(places)
            .for_each(|(to, place)| *to = from[place].to_f32()),
        HostRef::Bf16(from) => to
            .iter_mut()
            .zip(places)
            .for_each(|(to, place)| *to = from[place].to_f32()),
        HostRef::F32(from) => to.iter_mut().zip(places).for_each(|(to, place)| *to = from[place]),
        HostRef::I32(from) => to
            .iter_mut()
            .zip(places)
            .for_each(|(to, place)| *to = from[place] as f32),
    }
}

/// Sum of products, in eight interleaved partial sums so that it vectorises.
fn dot_product(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; 8];
    let (a_chunks, b_chunks) = (a.chunks_exact(8), b.chunks_exact(8));
    let tail: f32 = a_chunks
        .remainder()
        .iter()
        .zip(b_chunks.remainder())
        .map(|(a, b)| a * b)
        .sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f32>() + tail
}

/// One thread's state.
pub(super) struct Worker<'f> {
    form: &'f Form<'f>,
    /// Key-side rows of each product for the current block, `LANES x length`.
    keys: Vec<Vec<f32>>,
    /// Query-side rows of each product for the current item, `ROWS x length`.
    queries: Vec<Vec<f32>>,
    /// Value rows of the current block, `LANES x features`.
    values: Vec<f32>,
    weights: [f32; LANES],
}

/// Where a program runs: an item's coordinates, the current row and block.
struct Here<'w> {
    form: &'w Form<'w>,
    keys: &'w [Vec<f32>],
    queries: &'w [Vec<f32>],
    coordinates: [usize; MAX_AXES],
    row: usize,
    first_key: usize,
}

impl Source for Here<'_> {
    fn index(&self, axis: AxisId) -> i64 {
        self.coordinates[axis.index()] as i64 + self.first_position(axis)
    }

    fn lanes(&self, axis: AxisId) -> Option<i64> {
        (axis == self.form.attend.key).then_some(self.first_key as i64)
    }

    fn len(&self, axis: AxisId) -> i64 {
        self.form.sizes[axis.index()]
    }

    fn scalar(&self, scalar: ScalarId) -> (f32, i64) {
        match self.form.scalars[scalar.index()] {
            Scalar::F32(value) => (value, 0),
            Scalar::I32(value) => (value as f32, value.into()),
        }
    }

    fn load_real(&self, input: InputId, at: &mut dyn Iterator<Item = i64>) -> Option<f32> {
        let place = self.element(input, at)?;
        Some(match self.form.inputs[input.index()].1 {
            HostRef::F16(from) => from[place].to_f32(),
            HostRef::Bf16(from) => from[place].to_f32(),
            HostRef::F32(from) => from[place],
            HostRef::I32(from) => from[place] as f32,
        })
    }

    fn load_int(&self, input: InputId, at: &mut dyn Iterator<Item = i64>) -> Option<i64> {
        let place = self.element(input, at)?;
        Some(match self.form.inputs[input.index()].1 {
            HostRef::I32(from) => from[place].into(),
            HostRef::F16(from) => from[place].to_f32() as i64,
            HostRef::Bf16(from) => from[place].to_f32() as i64,
            HostRef::F32(from) => from[place] as i64,
        })
    }

    fn dot(&self, dot: usize, to: &mut [f32]) {
        let length = self.form.size(self.form.program.dots()[dot].over);
        let query = &self.queries[dot][self.row * length..][..length];
        for (lane, to) in to.iter_mut().enumerate() {
            *to = dot_product(query, &self.keys[dot][lane * length..][..length]);
        }
    }
}

impl Here<'_> {
    /// Position of the first query on a query axis; 0 on others.
    fn first_position(&self, axis: AxisId) -> i64 {
        match self.form.operator.spec().axes[axis.index()].role {
            AxisRole::Query(Align::End) => {
                self.form.sizes[self.form.attend.key.index()] - self.form.sizes[axis.index()]
            }
            AxisRole::Query(Align::Start) | AxisRole::Plain | AxisRole::Key => 0,
        }
    }

    fn element(&self, input: InputId, at: &mut dyn Iterator<Item = i64>) -> Option<usize> {
        let view = &self.form.inputs[input.index()].0;
        let axes = &self.form.operator.spec().inputs[input.index()].axes;
        let mut place = 0;
        for ((index, of), axis) in at.zip(axes).zip(0..view.rank) {
            // A tensor's query axis counts queries, expressions count positions.
            let index = usize::try_from(index - self.first_position(*of)).ok();
            let index = index.filter(|index| *index < view.shape[axis])?;
            place += index * view.strides[axis];
        }
        Some(place)
    }
}

impl<'f> Worker<'f> {
    pub(super) fn new(form: &'f Form<'f>) -> Worker<'f> {
        let lengths = || form.program.dots().iter().map(|dot| form.size(dot.over));
        Worker {
            form,
            keys: lengths().map(|length| vec![0.0; LANES * length]).collect(),
            queries: lengths().map(|length| vec![0.0; ROWS * length]).collect(),
            values: vec![0.0; LANES * form.size(form.feature)],
            weights: [0.0; LANES],
        }
    }

    /// Rows of a tensor along one axis, each read along another.
    fn read_rows(&self, input: InputId, along: AxisId, over: AxisId, coordinates: &[usize; MAX_AXES], to: &mut [f32]) {
        let (view, memory) = &self.form.inputs[input.index()];
        let axes = &self.form.operator.spec().inputs[input.index()].axes;
        let length = self.form.size(over);
        let (step, stride_over) = (stride(axes, view, along), stride(axes, view, over));
        if length == 0 {
            return;
        }
        let start = offset(axes, view, coordinates);
        for (row, to) in to.chunks_exact_mut(length).enumerate() {
            read(*memory, start + row * step, stride_over, to);
        }
    }

    pub(super) fn run(&mut self, item: usize) -> Done {
        let form = self.form;
        let Norm::Softmax = form.attend.norm;
        let (coordinates, first) = form.place(item);
        let (query, key) = (form.attend.query, form.attend.key);
        let rows = ROWS.min(form.size(query) - first);
        let features = form.size(form.feature);

        let mut at_rows = coordinates;
        at_rows[query.index()] = first;
        let mut queries = std::mem::take(&mut self.queries);
        for (Dot { a, over, .. }, to) in form.program.dots().iter().zip(&mut queries) {
            self.read_rows(*a, query, *over, &at_rows, &mut to[..rows * form.size(*over)]);
        }
        let mut done = Done {
            item,
            values: vec![0.0; rows * features],
            lse: vec![f64::NEG_INFINITY; rows],
        };
        let mut reference = [f32::NEG_INFINITY; ROWS];
        let mut sum = [0.0f32; ROWS];
        let mut keys = std::mem::take(&mut self.keys);
        let mut values = std::mem::take(&mut self.values);
        let start = Here {
            form,
            keys: &[],
            queries: &queries,
            coordinates,
            row: 0,
            first_key: 0,
        };
        let mut registers = form.program.registers(&start);
        for first_key in (0..form.size(key)).step_by(LANES) {
            let count = LANES.min(form.size(key) - first_key);
            let mut at_keys = coordinates;
            at_keys[key.index()] = first_key;
            for (Dot { b, over, .. }, to) in form.program.dots().iter().zip(&mut keys) {
                self.read_rows(*b, key, *over, &at_keys, &mut to[..count * form.size(*over)]);
            }
            self.read_rows(
                form.attend.v,
                key,
                form.feature,
                &at_keys,
                &mut values[..count * features],
            );
            let mut block = Here {
                form,
                keys: &keys,
                queries: &queries,
                coordinates,
                row: 0,
                first_key,
            };
            for row in 0..rows {
                block.row = row;
                block.coordinates[query.index()] = first + row;
                form.program.start_row(&mut registers, &block);
                let visible = form.program.visible(&mut registers, &block, count);
                if visible.is_some_and(|visible| !visible.contains(&true)) {
                    continue;
                }
                let (scores, visible) = form.program.scores(&mut registers, &block, count);
                let acc = &mut done.values[row * features..][..features];
                accumulate(
                    scores,
                    visible,
                    &values,
                    &mut self.weights,
                    &mut reference[row],
                    &mut sum[row],
                    acc,
                );
            }
        }
        for row in 0..rows {
            let acc = &mut done.values[row * features..][..features];
            // Exactly 0 where nothing was visible: nothing was added.
            if sum[row] != 0.0 {
                acc.iter_mut().for_each(|value| *value /= sum[row]);
                done.lse[row] = f64::from(reference[row]) + f64::from(sum[row]).ln();
            }
        }
        (self.queries, self.keys, self.values) = (queries, keys, values);
        done
    }
}

/// Adds a block of keys to a row: `acc` and `sum` are relative to `exp(reference)`, the running maximum.
fn accumulate(
    scores: &[f32],
    visible: Option<&[bool]>,
    values: &[f32],
    weights: &mut [f32; LANES],
    reference: &mut f32,
    sum: &mut f32,
    acc: &mut [f32],
) {
    let sees = |lane: usize| visible.is_none_or(|visible| visible[lane]);
    let mut highest = *reference;
    for (lane, score) in scores.iter().enumerate() {
        if sees(lane) {
            highest = highest.max(*score);
        }
    }
    // Every visible score so far is negative infinity (or not a number, which must show): the weight exp(-inf) is 0.
    let shift = if highest == f32::NEG_INFINITY { 0.0 } else { highest };
    let mut total = 0.0f32;
    for (lane, score) in scores.iter().enumerate() {
        weights[lane] = if sees(lane) { (score - shift).exp() } else { 0.0 };
        total += weights[lane];
    }
    if highest > *reference && *reference != f32::NEG_INFINITY {
        let factor = (*reference - highest).exp();
        *sum *= factor;
        acc.iter_mut().for_each(|value| *value *= factor);
    }
    *reference = highest;
    *sum += total;
    for lane in (0..scores.len()).filter(|lane| sees(*lane)) {
        let value = &values[lane * acc.len()..][..acc.len()];
        let weight = weights[lane];
        for (acc, value) in acc.iter_mut().zip(value) {
            *acc += weight * value;
        }
    }
}
