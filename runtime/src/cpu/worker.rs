//! One thread of the CPU form: a block of query rows against all keys, block by block, with an online softmax.
//!
//! For each block of keys that the rows see: its rows are converted and laid out in panels, the products of all rows with
//! all keys are taken, scores and weights go row by row, and the weighted values are one product again.

use super::lanes::Registers;
use super::program::{Dot, LANES, Program, Source};
use super::sight::Sight;
use super::vector::{Lanes, PANEL, Product, VisibleProduct, Weigh, vectorised};
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
        HostRef::F32(from) if stride == 1 => to.copy_from_slice(&from[at..at + count]),
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

/// Rows of a tensor as panels of columns, [`PANEL`] at a time, for [`Product`].
struct Panels {
    lanes: Vec<Lanes>,
    /// Rows of a panel.
    step: usize,
    /// A row as it was read.
    row: Vec<f32>,
}

impl Panels {
    /// Room for so many rows and columns; columns beyond the last are 0.
    fn new(rows: usize, columns: usize, row: usize) -> Panels {
        Panels {
            lanes: vec![[0.0; PANEL]; rows * columns.div_ceil(PANEL)],
            step: rows,
            row: vec![0.0; row],
        }
    }

    /// The rows that are read become columns.
    fn columns(&mut self, count: usize, mut read: impl FnMut(usize, &mut [f32])) {
        for column in 0..count {
            read(column, &mut self.row);
            let lanes = &mut self.lanes[column / PANEL * self.step..][..self.step];
            for (lanes, value) in lanes.iter_mut().zip(&self.row) {
                lanes[column % PANEL] = *value;
            }
        }
    }

    /// The rows that are read stay rows. Whether all of them are finite.
    fn rows(&mut self, count: usize, mut read: impl FnMut(usize, &mut [f32])) -> bool {
        // What is not finite gives no 0.
        let mut nothing = 0.0f32;
        for row in 0..count {
            read(row, &mut self.row);
            nothing += self.row.iter().map(|value| value * 0.0).sum::<f32>();
            for (panel, values) in self.row.chunks(PANEL).enumerate() {
                self.lanes[panel * self.step + row][..values.len()].copy_from_slice(values);
            }
        }
        nothing == 0.0
    }
}

/// One thread's state.
pub(super) struct Worker<'f> {
    form: &'f Form<'f>,
    /// Query-side rows of each product for the current item, `ROWS x length`.
    queries: Vec<Vec<f32>>,
    /// Key-side rows of each product for the current block, a key a column.
    keys: Vec<Panels>,
    /// Values of the current block, a key a row.
    values: Panels,
    /// Each product of the current item and block, `ROWS x LANES`.
    products: Vec<Vec<f32>>,
    /// `ROWS x LANES`.
    weights: Vec<f32>,
    /// Weighted values of the current item, `ROWS x all panels`, relative to `exp(reference)`.
    sums: Vec<f32>,
}

/// Where a program runs: an item's coordinates, the current row and block.
struct Here<'w> {
    form: &'w Form<'w>,
    products: &'w [Vec<f32>],
    /// Of the first row, where the program asks for a span; else of the current one.
    coordinates: [usize; MAX_AXES],
    rows: usize,
    row: usize,
    first_key: usize,
    keys: usize,
}

impl Source for Here<'_> {
    fn index(&self, axis: AxisId) -> i64 {
        self.coordinates[axis.index()] as i64 + self.first_position(axis)
    }

    fn lanes(&self, axis: AxisId) -> Option<i64> {
        (axis == self.form.attend.key).then_some(self.first_key as i64)
    }

    fn span(&self, axis: AxisId) -> (i64, i64) {
        let attend = self.form.attend;
        let (first, count) = match self.lanes(axis) {
            Some(first) => (first, self.keys),
            None if axis == attend.query => (self.index(axis), self.rows),
            None => (self.index(axis), 1),
        };
        (first, first + count as i64 - 1)
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
        to.copy_from_slice(&self.products[dot][self.row * LANES..][..to.len()]);
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
        let lengths = || form.full.dots().iter().map(|dot| form.size(dot.over));
        let features = form.size(form.feature);
        Worker {
            form,
            queries: lengths().map(|length| vec![0.0; ROWS * length]).collect(),
            keys: lengths().map(|length| Panels::new(length, LANES, length)).collect(),
            values: Panels::new(LANES, features, features),
            products: lengths().map(|_| vec![0.0; ROWS * LANES]).collect(),
            weights: vec![0.0; ROWS * LANES],
            sums: vec![0.0; ROWS * features.next_multiple_of(PANEL)],
        }
    }

    pub(super) fn run(&mut self, item: usize) -> Done {
        let form = self.form;
        let Norm::Softmax = form.attend.norm;
        let (coordinates, first) = form.place(item);
        let (query, key) = (form.attend.query, form.attend.key);
        let rows = ROWS.min(form.size(query) - first);
        let features = form.size(form.feature);
        let width = features.next_multiple_of(PANEL);

        let mut at_rows = coordinates;
        at_rows[query.index()] = first;
        for (Dot { a, over, .. }, to) in form.full.dots().iter().zip(&mut self.queries) {
            let length = form.size(*over);
            let mut read = form.reader(*a, query, *over, &at_rows);
            for row in 0..rows {
                read(row, &mut to[row * length..][..length]);
            }
        }
        self.sums[..rows * width].fill(0.0);
        let mut totals = Totals {
            reference: [f32::NEG_INFINITY; ROWS],
            sum: [0.0; ROWS],
        };
        let start = Here {
            form,
            products: &[],
            coordinates: at_rows,
            rows,
            row: 0,
            first_key: 0,
            keys: 0,
        };
        let mut registers = [&form.full, &form.cut].map(|program| program.registers(&start));
        for first_key in (0..form.size(key)).step_by(LANES) {
            let keys = LANES.min(form.size(key) - first_key);
            let mut block = Here {
                first_key,
                keys,
                ..start
            };
            let (program, registers) = match form.cut.sight(&block) {
                Sight::Nothing => continue,
                Sight::Everything => (&form.full, &mut registers[0]),
                Sight::Something => (&form.cut, &mut registers[1]),
            };
            let finite = self.read_block(&coordinates, first_key, keys, rows);
            block.products = &self.products;
            program.start_block(registers, &block, keys);
            for row in 0..rows {
                block.row = row;
                block.coordinates[query.index()] = first + row;
                let weights = &mut self.weights[row * LANES..][..LANES];
                let Some((scores, visible)) = scores(program, registers, &block, keys) else {
                    weights.fill(0.0);
                    continue;
                };
                let sums = &mut self.sums[row * width..][..width];
                totals.weigh(row, scores, visible, weights, sums);
                if !finite {
                    vectorised(VisibleProduct {
                        weights,
                        visible: visible.unwrap_or(&[true; LANES][..keys]),
                        b: &self.values.lanes,
                        b_step: LANES,
                        c: sums,
                    });
                }
            }
            if finite {
                vectorised(Product {
                    a: &self.weights,
                    a_step: LANES,
                    rows,
                    depth: keys,
                    b: &self.values.lanes,
                    b_step: LANES,
                    c: &mut self.sums,
                    c_step: width,
                    add: true,
                });
            }
        }
        let mut done = Done {
            item,
            values: vec![0.0; rows * features],
            lse: vec![f64::NEG_INFINITY; rows],
        };
        for row in 0..rows {
            // Exactly 0 where nothing was visible: nothing was added.
            let sum = totals.sum[row];
            if sum != 0.0 {
                let values = &mut done.values[row * features..][..features];
                for (value, total) in values.iter_mut().zip(&self.sums[row * width..]) {
                    *value = total / sum;
                }
                done.lse[row] = f64::from(totals.reference[row]) + f64::from(sum).ln();
            }
        }
        done
    }

    /// Reads a block of keys and values and takes the products. Whether all values are finite.
    fn read_block(&mut self, coordinates: &[usize; MAX_AXES], first_key: usize, count: usize, rows: usize) -> bool {
        let form = self.form;
        let key = form.attend.key;
        let mut at = *coordinates;
        at[key.index()] = first_key;
        for (number, Dot { b, over, .. }) in form.full.dots().iter().enumerate() {
            let (length, keys) = (form.size(*over), &mut self.keys[number]);
            keys.columns(count, form.reader(*b, key, *over, &at));
            vectorised(Product {
                a: &self.queries[number],
                a_step: length,
                rows,
                depth: length,
                b: &keys.lanes,
                b_step: length,
                c: &mut self.products[number],
                c_step: LANES,
                add: false,
            });
        }
        self.values
            .rows(count, form.reader(form.attend.v, key, form.feature, &at))
    }
}

impl Form<'_> {
    /// Reads rows of a tensor, counted along one axis from these coordinates, each along another.
    fn reader(
        &self,
        input: InputId,
        along: AxisId,
        over: AxisId,
        coordinates: &[usize; MAX_AXES],
    ) -> impl FnMut(usize, &mut [f32]) {
        let (view, memory) = &self.inputs[input.index()];
        let axes = &self.operator.spec().inputs[input.index()].axes;
        let (step, stride_over) = (stride(axes, view, along), stride(axes, view, over));
        let start = offset(axes, view, coordinates);
        move |row, to| read(*memory, start + row * step, stride_over, to)
    }
}

/// The scores of a row and what of them counts; nothing if the row sees no key of the block.
fn scores<'r>(
    program: &Program,
    registers: &'r mut Registers,
    block: &Here<'_>,
    count: usize,
) -> Option<(&'r [f32], Option<&'r [bool]>)> {
    program.start_row(registers, block);
    let visible = program.visible(registers, block, count);
    if visible.is_some_and(|visible| !visible.contains(&true)) {
        return None;
    }
    Some(program.scores(registers, block, count))
}

/// The running maximum of each row, and the sum of its weights relative to `exp(reference)`.
struct Totals {
    reference: [f32; ROWS],
    sum: [f32; ROWS],
}

impl Totals {
    /// Turns a block's scores of a row into weights, and rescales what the row has summed so far.
    fn weigh(&mut self, row: usize, scores: &[f32], visible: Option<&[bool]>, weights: &mut [f32], sums: &mut [f32]) {
        let reference = self.reference[row];
        let (highest, total) = vectorised(Weigh {
            scores,
            visible,
            reference,
            weights,
        });
        if highest > reference && reference != f32::NEG_INFINITY {
            let factor = (reference - highest).exp();
            self.sum[row] *= factor;
            sums.iter_mut().for_each(|value| *value *= factor);
        }
        self.reference[row] = highest;
        self.sum[row] += total;
    }
}
