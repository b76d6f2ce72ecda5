//! The CPU form: the operator on host memory, for any spec. The loops stand here and nowhere else.
//!
//! Semantics are those of the kernels: scores and sums in `f32`, online softmax over blocks of keys, a masked key has no
//! influence whatever its value, a row without a visible key is exactly 0 with a log-sum-exp of negative infinity, and a
//! captured tensor read out of range yields 0. Memory beyond the caller's is proportional to a block, not to the length.
//! Blocks of rows are spread over the machine's threads; results do not depend on how many there are.

mod program;

use crate::arguments::Arguments;
use crate::check::{self, Wanted};
use crate::error::Error;
use crate::operator::{MAX_AXES, Operator};
use crate::select::Sizes;
use crate::tensor::{HostMut, HostRef, Scalar, View};
use drawloom_lang::spec::{
    Align, Attend, AxisId, AxisRole, AxisSize, Dtype, InputId, LseBase, Norm, OutputValue, ScalarId, Stage,
};
use half::{bf16, f16, slice::HalfFloatSliceExt};
use program::{Dot, LANES, Program, Source};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

/// Query rows that share one conversion of a block of keys.
const ROWS: usize = 32;

/// Below this many products a second thread costs more than it brings (about 100 microseconds of work).
const THREAD_WORK: usize = 1 << 18;

/// Runs an operator on host memory, with the types of the type sets as the arguments have them.
///
/// # Errors
/// Whatever is wrong with the call.
pub fn run_inferred(operator: &Operator, arguments: Arguments<'_>) -> Result<(), Error> {
    let inputs = operator.spec().inputs.len();
    let types = operator.infer_types(|tensor| {
        let input = arguments.inputs[tensor.min(inputs)].map(|input| input.view().dtype);
        let output = || {
            arguments.outputs[tensor.saturating_sub(inputs)]
                .as_ref()
                .map(|output| output.view().dtype)
        };
        input.filter(|_| tensor < inputs).or_else(output).unwrap_or(Dtype::F32)
    })?;
    run(operator, &types, arguments)
}

/// Runs an operator on host memory.
///
/// # Errors
/// Whatever is wrong with the call, by the same checks as on the device.
pub fn run(operator: &Operator, types: &[Dtype], mut arguments: Arguments<'_>) -> Result<(), Error> {
    let spec = operator.spec();
    let mut views: Vec<View> = arguments.inputs.iter().flatten().map(|input| input.view()).collect();
    views.extend(arguments.outputs.iter().flatten().map(|output| output.view()));
    let sizes = check::check(operator, types, Wanted::Host, &views)?;
    let misplaced = |index: usize| Error::Place {
        argument: operator.tensor(index).name.to_owned(),
        expected: "host",
        given: "device",
    };
    let mut inputs = Vec::with_capacity(spec.inputs.len());
    for (index, input) in arguments.inputs.iter().flatten().enumerate() {
        inputs.push((views[index], input.host().ok_or_else(|| misplaced(index))?));
    }
    let mut outputs = Vec::with_capacity(spec.outputs.len());
    for (index, output) in arguments.outputs.iter_mut().flatten().enumerate() {
        let index = spec.inputs.len() + index;
        outputs.push((views[index], output.host().ok_or_else(|| misplaced(index))?));
    }
    let scalars = &arguments.scalars[..spec.scalars.len()];
    for (number, stage) in spec.stages.iter().enumerate() {
        let Stage::Attend(attend) = stage;
        let form = Form::new(operator, attend, number, &sizes, &inputs, scalars);
        form.run(&mut outputs);
    }
    Ok(())
}

/// One stage of one call.
struct Form<'a> {
    operator: &'a Operator,
    attend: &'a Attend,
    program: Program,
    sizes: &'a Sizes,
    inputs: &'a [(View, HostRef<'a>)],
    scalars: &'a [Scalar],
    /// Axes of a result row but the query axis.
    outer: Vec<AxisId>,
    /// The value's feature axis.
    feature: AxisId,
    /// Numbers of the outputs that this stage fills.
    outputs: Vec<usize>,
}

/// The results of a block of rows.
struct Done {
    item: usize,
    /// `rows x features`.
    values: Vec<f32>,
    /// Natural log-sum-exp of each row.
    lse: Vec<f64>,
}

impl<'a> Form<'a> {
    fn new(
        operator: &'a Operator,
        attend: &'a Attend,
        number: usize,
        sizes: &'a Sizes,
        inputs: &'a [(View, HostRef<'a>)],
        scalars: &'a [Scalar],
    ) -> Form<'a> {
        let spec = operator.spec();
        let of_stage = |value: OutputValue| match value {
            OutputValue::Stage(stage) | OutputValue::Lse { stage, .. } => stage == number,
        };
        let outputs: Vec<usize> = (0..spec.outputs.len())
            .filter(|&index| of_stage(spec.outputs[index].value))
            .collect();
        let value = &spec.inputs[attend.v.index()];
        let feature = value.axes.last().copied().unwrap_or(attend.key);
        let mut outer = Vec::new();
        for axis in outputs.iter().flat_map(|&index| &spec.outputs[index].axes) {
            if *axis != attend.query && *axis != feature && !outer.contains(axis) {
                outer.push(*axis);
            }
        }
        let program = program::compile(operator, attend.score, attend.mask, attend.key);
        Form {
            operator,
            attend,
            program,
            sizes,
            inputs,
            scalars,
            outer,
            feature,
            outputs,
        }
    }

    fn size(&self, axis: AxisId) -> usize {
        self.sizes[axis.index()] as usize
    }

    fn run(&self, outputs: &mut [(View, HostMut<'_>)]) {
        let queries = self.size(self.attend.query);
        let blocks = queries.div_ceil(ROWS);
        let items = blocks * self.outer.iter().map(|axis| self.size(*axis)).product::<usize>();
        let work = items
            .saturating_mul(ROWS.min(queries))
            .saturating_mul(self.size(self.attend.key));
        let work = work.saturating_mul(self.size(self.feature));
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = threads.min(items).min(work / THREAD_WORK + 1);
        if threads <= 1 {
            let mut worker = Worker::new(self);
            for item in 0..items {
                self.store(&worker.run(item), outputs);
            }
            return;
        }
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let (sender, results) = mpsc::sync_channel(2 * threads);
            for _ in 0..threads {
                let (sender, next) = (sender.clone(), &next);
                scope.spawn(move || {
                    let mut worker = Worker::new(self);
                    loop {
                        let item = next.fetch_add(1, Ordering::Relaxed);
                        if item >= items || sender.send(worker.run(item)).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(sender);
            for done in results {
                self.store(&done, outputs);
            }
        });
    }

    /// The coordinates of an item's rows on the outer axes, and its first query row.
    fn place(&self, item: usize) -> ([usize; MAX_AXES], usize) {
        let blocks = self.size(self.attend.query).div_ceil(ROWS);
        let mut coordinates = [0; MAX_AXES];
        let mut rest = item / blocks;
        for axis in self.outer.iter().rev() {
            let size = self.size(*axis);
            coordinates[axis.index()] = rest % size;
            rest /= size;
        }
        // A grouped axis follows from the finer one.
        for (index, axis) in self.operator.spec().axes.iter().enumerate() {
            if let AxisSize::Grouped { of, .. } = &axis.size
                && !self.outer.iter().any(|outer| outer.index() == index)
                && self.sizes[index] > 0
            {
                coordinates[index] = coordinates[of.index()] / (self.size(*of) / self.sizes[index] as usize).max(1);
            }
        }
        (coordinates, item % blocks * ROWS)
    }

    fn store(&self, done: &Done, outputs: &mut [(View, HostMut<'_>)]) {
        let spec = self.operator.spec();
        let (mut coordinates, first) = self.place(done.item);
        let features = self.size(self.feature);
        for (row, lse) in done.lse.iter().enumerate() {
            coordinates[self.attend.query.index()] = first + row;
            for &index in &self.outputs {
                let (view, memory) = &mut outputs[index];
                let axes = &spec.outputs[index].axes;
                match spec.outputs[index].value {
                    OutputValue::Stage(_) => {
                        coordinates[self.feature.index()] = 0;
                        let stride = stride(axes, view, self.feature);
                        let at = offset(axes, view, &coordinates);
                        let values = &done.values[row * features..][..features];
                        write(memory, at, stride, values);
                    }
                    OutputValue::Lse { base, .. } => {
                        let lse = match base {
                            LseBase::Nats => *lse,
                            LseBase::Bits => *lse / std::f64::consts::LN_2,
                        };
                        write(memory, offset(axes, view, &coordinates), 1, &[lse as f32]);
                    }
                }
            }
        }
    }
}

/// Elements from the start of a tensor to these coordinates.
fn offset(axes: &[AxisId], view: &View, coordinates: &[usize; MAX_AXES]) -> usize {
    axes.iter()
        .zip(&view.strides)
        .map(|(axis, stride)| coordinates[axis.index()] * stride)
        .sum()
}

/// The stride along one axis; 0 if the tensor does not have it.
fn stride(axes: &[AxisId], view: &View, axis: AxisId) -> usize {
    axes.iter()
        .position(|has| *has == axis)
        .map_or(0, |position| view.strides[position])
}

fn write(memory: &mut HostMut<'_>, at: usize, stride: usize, values: &[f32]) {
    let places = (0..values.len()).map(|index| at + index * stride);
    match memory {
        HostMut::F16(to) => places
            .zip(values)
            .for_each(|(place, value)| to[place] = f16::from_f32(*value)),
        HostMut::Bf16(to) => places
            .zip(values)
            .for_each(|(place, value)| to[place] = bf16::from_f32(*value)),
        HostMut::F32(to) => places.zip(values).for_each(|(place, value)| to[place] = *value),
        HostMut::I32(to) => places.zip(values).for_each(|(place, value)| to[place] = *value as i32),
    }
}

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
struct Worker<'f> {
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
        let index = self.coordinates[axis.index()] as i64;
        match self.form.operator.spec().axes[axis.index()].role {
            AxisRole::Query(Align::End) => {
                index + self.form.sizes[self.form.attend.key.index()] - self.form.sizes[axis.index()]
            }
            AxisRole::Query(Align::Start) | AxisRole::Plain | AxisRole::Key => index,
        }
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
    fn element(&self, input: InputId, at: &mut dyn Iterator<Item = i64>) -> Option<usize> {
        let view = &self.form.inputs[input.index()].0;
        let mut place = 0;
        for (index, axis) in at.zip(0..view.rank) {
            let index = usize::try_from(index).ok().filter(|index| *index < view.shape[axis])?;
            place += index * view.strides[axis];
        }
        Some(place)
    }
}

impl<'f> Worker<'f> {
    fn new(form: &'f Form<'f>) -> Worker<'f> {
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

    fn run(&mut self, item: usize) -> Done {
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
