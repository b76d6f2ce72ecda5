//! The CPU form: the operator on host memory, for any spec. The loops stand here and nowhere else.
//!
//! Semantics are those of the kernels: scores and sums in `f32`, online softmax over blocks of keys, a masked key has no
//! influence whatever its value, a row without a visible key is exactly 0 with a log-sum-exp of negative infinity, and a
//! captured tensor read out of range yields 0. Memory beyond the caller's is proportional to a block, not to the length.
//! Blocks of rows are spread over the machine's threads; results do not depend on how many there are.

mod lanes;
mod program;
mod sight;
mod vector;
mod worker;

use crate::arguments::Arguments;
use crate::check::{self, Wanted};
use crate::element::{HostMut, HostRef, Scalar};
use crate::error::Error;
use crate::operator::{MAX_AXES, Operator};
use crate::select::Sizes;
use crate::tensor::View;
use drawloom_lang::spec::{Attend, AxisId, AxisSize, Dtype, LseBase, OutputValue, Stage};
use half::{bf16, f16};
use program::Program;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use worker::Worker;

/// Query rows that share one conversion of a block of keys. Results do not depend on it.
const ROWS: usize = 96;

/// Below this many products a second thread costs more than it brings (about 100 microseconds of work).
const THREAD_WORK: usize = 1 << 21;

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
pub fn run(operator: &Operator, types: &[Dtype], arguments: Arguments<'_>) -> Result<(), Error> {
    run_on(operator, types, arguments, |form| form.threads())
}

/// Runs an operator on as many threads as `threads` says for each stage.
fn run_on(
    operator: &Operator,
    types: &[Dtype],
    mut arguments: Arguments<'_>,
    threads: impl Fn(&Form<'_>) -> usize,
) -> Result<(), Error> {
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
        form.run(threads(&form), &mut outputs);
    }
    Ok(())
}

/// One stage of one call.
struct Form<'a> {
    operator: &'a Operator,
    attend: &'a Attend,
    /// Scores where every key is visible.
    full: Program,
    /// Mask and scores where the mask cuts.
    cut: Program,
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
        let compile = |mask| program::compile(operator, attend.score, mask, attend.key);
        Form {
            operator,
            attend,
            full: compile(None),
            cut: compile(attend.mask),
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

    /// How many threads the call is worth.
    fn threads(&self) -> usize {
        let queries = self.size(self.attend.query);
        let work = self
            .items()
            .saturating_mul(ROWS.min(queries))
            .saturating_mul(self.size(self.attend.key));
        let work = work.saturating_mul(self.size(self.feature));
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        threads.min(work / THREAD_WORK + 1)
    }

    /// Blocks of rows.
    fn items(&self) -> usize {
        let blocks = self.size(self.attend.query).div_ceil(ROWS);
        blocks * self.outer.iter().map(|axis| self.size(*axis)).product::<usize>()
    }

    fn run(&self, threads: usize, outputs: &mut [(View, HostMut<'_>)]) {
        let items = self.items();
        let threads = threads.min(items);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Tensor, TensorMut};

    #[test]
    fn results_do_not_depend_on_the_number_of_threads() {
        let text = "attention streaming {
            axis b, h, i: query(end), j: key, d = 24;
            input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d];
            attend o over j in (k, v) {
                score = tanh(dot(q, k)) * 3.0;
                mask = causal && (window(left = 70) || sink(3));
                norm = softmax;
            }
            output o: f32[b, h, i, d], lse(o, nats): f32[b, h, i];
        }";
        let spec = drawloom_lang::parse_str("streaming", text)
            .expect("the spec is right")
            .remove(0);
        let operator = Operator::new(spec).expect("it has few axes");
        let shape = [2, 3, 200, 24];
        let values = |seed: usize| -> Vec<f16> {
            let value = |n: usize| ((n + seed) * 2_654_435_761 % 1000) as f32 / 400.0 - 1.2;
            (0..shape.iter().product()).map(|n| f16::from_f32(value(n))).collect()
        };
        let [q, k, v] = [1, 2, 3].map(values);
        let run = |threads: usize| {
            let (mut o, mut lse) = (vec![0.0f32; q.len()], vec![0.0f32; 1200]);
            let inputs = [&q, &k, &v].map(|memory| Tensor::host(memory, shape).expect("it fits"));
            let mut o_view = TensorMut::host(&mut o, shape).expect("it fits");
            let mut lse_view = TensorMut::host(&mut lse, [2, 3, 200]).expect("it fits");
            let arguments = Arguments::positional(
                &operator,
                &[&inputs[0], &inputs[1], &inputs[2]],
                &[],
                [&mut o_view as &mut dyn crate::Output, &mut lse_view],
            );
            run_on(&operator, &[], arguments.expect("all are there"), |_| threads).expect("the call is right");
            (o, lse)
        };
        let alone = run(1);
        for threads in [2, 3, 7, 64] {
            assert_eq!(run(threads), alone, "{threads} threads");
        }
    }
}
