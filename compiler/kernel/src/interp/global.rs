//! Global memory and the state of a launch that all CTAs share.

use half::{bf16, f16};

use super::args::{Arg, Args, Elements, Tensor};
use super::value::{Data, Value};
use super::{Counts, FaultKind, Options, Outcome, Trouble, trouble};
use crate::ir::*;

/// Arguments, counts and what has been written.
pub(super) struct Launch<'a> {
    /// Per parameter: its value, if it is a scalar.
    scalars: Vec<Option<Value>>,
    /// Per parameter: its tensor, if it is one.
    tensors: Vec<Option<Global<'a>>>,
    pub(super) counts: Counts,
    pub(super) max_steps: u64,
}

/// A tensor in global memory.
pub(super) struct Global<'a> {
    id: ParamId,
    tensor: &'a mut Tensor,
    extents: Vec<i64>,
    /// Per element: the number of the statement that wrote it, plus 1. Empty for inputs.
    written: Vec<u32>,
}

impl<'a> Launch<'a> {
    pub(super) fn new(kernel: &Kernel, args: &'a mut Args, options: &Options) -> Outcome<Launch<'a>> {
        let n = kernel.params.len();
        if args.values.len() != n {
            return trouble(
                FaultKind::Arguments,
                format!("{} arguments for {n} parameters", args.values.len()),
            );
        }
        let mut scalars = Vec::new();
        for (p, arg) in kernel.params.iter().zip(&args.values) {
            let (data, dtype) = match arg {
                Arg::I32(x) => (Data::I(vec![*x]), Dtype::I32),
                Arg::I64(x) => (Data::L(vec![*x]), Dtype::I64),
                Arg::F32(x) => (Data::F(vec![*x]), Dtype::F32),
                Arg::Tensor(_) => {
                    scalars.push(None);
                    continue;
                }
            };
            if p.kind != (ParamKind::Scalar { dtype }) {
                return trouble(
                    FaultKind::Arguments,
                    format!("`{}` is not a scalar of type {}", p.name, dtype.name()),
                );
            }
            scalars.push(Some(Value { rows: 1, cols: 1, data }));
        }
        let mut tensors = Vec::new();
        for (i, (p, arg)) in kernel.params.iter().zip(&mut args.values).enumerate() {
            tensors.push(match (&p.kind, arg) {
                (ParamKind::Tensor { dtype, axes, access }, Arg::Tensor(t)) => {
                    let extent = |e: &Extent| match e {
                        Extent::Const(n) => i64::from(*n),
                        Extent::Param(p) => scalars[p.index()].as_ref().map_or(0, Value::to_i64),
                    };
                    let extents: Vec<i64> = axes.iter().map(extent).collect();
                    check_tensor(&p.name, t, *dtype, &extents)?;
                    let written = if *access == Access::Out {
                        vec![0; t.data.len()]
                    } else {
                        Vec::new()
                    };
                    Some(Global {
                        id: ParamId(i as u32),
                        tensor: t,
                        extents,
                        written,
                    })
                }
                (ParamKind::Scalar { .. }, Arg::I32(_) | Arg::I64(_) | Arg::F32(_)) => None,
                (ParamKind::Tensor { .. } | ParamKind::Scalar { .. }, _) => {
                    let message = format!("`{}` is given a tensor for a scalar, or the reverse", p.name);
                    return trouble(FaultKind::Arguments, message);
                }
            });
        }
        let counts = Counts {
            read: vec![0; n],
            written: vec![0; n],
            ..Counts::default()
        };
        Ok(Launch {
            scalars,
            tensors,
            counts,
            max_steps: options.max_steps,
        })
    }

    pub(super) fn scalar(&self, p: ParamId) -> &Value {
        self.scalars[p.index()]
            .as_ref()
            .expect("invariant: the verifier checks scalar parameters")
    }

    pub(super) fn tensor(&mut self, p: ParamId) -> &mut Global<'a> {
        self.tensors[p.index()]
            .as_mut()
            .expect("invariant: the verifier checks tensor parameters")
    }
}

/// Checks that a tensor argument has the parameter's type and that all its elements exist.
fn check_tensor(name: &str, t: &Tensor, dtype: Dtype, extents: &[i64]) -> Outcome<()> {
    let wrong = |message: String| trouble(FaultKind::Arguments, format!("`{name}` {message}"));
    if t.data.dtype() != dtype {
        return wrong(format!(
            "is {}, but the parameter is {}",
            t.data.dtype().name(),
            dtype.name()
        ));
    }
    if t.strides.len() != extents.len() {
        return wrong(format!("has {} strides for {} axes", t.strides.len(), extents.len()));
    }
    if let Some(e) = extents.iter().find(|e| **e < 0) {
        return wrong(format!("has an axis of size {e}"));
    }
    if extents.contains(&0) {
        return Ok(());
    }
    let (mut low, mut high) = (t.offset as i128, t.offset as i128);
    for (&stride, &extent) in t.strides.iter().zip(extents) {
        let reach = i128::from(stride) * i128::from(extent - 1);
        low += reach.min(0);
        high += reach.max(0);
    }
    if low < 0 || high >= t.data.len() as i128 {
        return wrong(format!(
            "reaches elements {low} to {high} of an array of {}",
            t.data.len()
        ));
    }
    Ok(())
}

impl Global<'_> {
    /// The size of an element in bytes.
    pub(super) fn element_bytes(&self) -> u32 {
        self.tensor.data.dtype().bytes()
    }

    /// The size of an axis.
    pub(super) fn extent(&self, axis: usize) -> i64 {
        self.extents[axis]
    }

    /// The stride of the last axis.
    pub(super) fn last_stride(&self) -> i64 {
        self.tensor.strides.last().copied().unwrap_or(1)
    }

    /// The strides of all axes but the last.
    pub(super) fn outer_strides(&self) -> &[i64] {
        &self.tensor.strides[..self.tensor.strides.len() - 1]
    }

    /// Checks an index on an axis; gives the distance it adds.
    pub(super) fn step(&self, axis: usize, index: i64) -> Outcome<i64> {
        if index < 0 || index >= self.extents[axis] {
            let message = format!(
                "index {index} on axis {axis} of {}, which has {}",
                self.id, self.extents[axis]
            );
            return trouble(FaultKind::Bounds, message);
        }
        Ok(index * self.tensor.strides[axis])
    }

    /// The position in the array of the element at this distance from the first one.
    pub(super) fn position(&self, distance: i64) -> usize {
        (self.tensor.offset as i64 + distance) as usize
    }

    /// Elements `from`, `from + stride`, … as numbers, appended.
    pub(super) fn read(&self, from: usize, count: usize, out: &mut Data) {
        let stride = if count > 1 { self.last_stride() } else { 1 };
        let at = |i: usize| (from as i64 + i as i64 * stride) as usize;
        match (&self.tensor.data, out) {
            (Elements::F16(v), Data::F(o)) => o.extend((0..count).map(|i| v[at(i)].to_f32())),
            (Elements::Bf16(v), Data::F(o)) => o.extend((0..count).map(|i| v[at(i)].to_f32())),
            (Elements::F32(v), Data::F(o)) => o.extend((0..count).map(|i| v[at(i)])),
            (Elements::I32(v), Data::I(o)) => o.extend((0..count).map(|i| v[at(i)])),
            (Elements::I64(v), Data::L(o)) => o.extend((0..count).map(|i| v[at(i)])),
            _ => unreachable!("invariant: the verifier checks dtypes"),
        }
    }

    /// Writes element `index` of `data` to `to`; no element may be written twice.
    pub(super) fn write(&mut self, to: usize, data: &Data, index: usize, stmt: u32) -> Outcome<()> {
        let before = std::mem::replace(&mut self.written[to], stmt + 1);
        if before != 0 {
            let message = format!("element {to} of {} is written a second time", self.id);
            let t = Trouble {
                kind: FaultKind::DoubleWrite,
                message,
                other: Some(before - 1),
                at: None,
            };
            return Err(Box::new(t));
        }
        match (&mut self.tensor.data, data) {
            (Elements::F16(v), Data::F(d)) => v[to] = f16::from_f32(d[index]),
            (Elements::Bf16(v), Data::F(d)) => v[to] = bf16::from_f32(d[index]),
            (Elements::F32(v), Data::F(d)) => v[to] = d[index],
            (Elements::I32(v), Data::I(d)) => v[to] = d[index],
            (Elements::I64(v), Data::L(d)) => v[to] = d[index],
            _ => unreachable!("invariant: the verifier checks dtypes"),
        }
        Ok(())
    }
}

/// An empty payload for elements of this type.
pub(super) fn empty(dtype: Dtype, capacity: usize) -> Data {
    match dtype {
        Dtype::F16 | Dtype::Bf16 | Dtype::F32 => Data::F(Vec::with_capacity(capacity)),
        Dtype::I32 => Data::I(Vec::with_capacity(capacity)),
        Dtype::I64 => Data::L(Vec::with_capacity(capacity)),
        Dtype::Bool => Data::B(Vec::with_capacity(capacity)),
    }
}

/// Appends `count` times a number, converted.
pub(super) fn fill(data: &mut Data, x: f64, count: usize) {
    match data {
        Data::F(v) => v.extend(std::iter::repeat_n(x as f32, count)),
        Data::I(v) => v.extend(std::iter::repeat_n(x as i32, count)),
        Data::L(v) => v.extend(std::iter::repeat_n(x as i64, count)),
        Data::B(v) => v.extend(std::iter::repeat_n(x != 0.0, count)),
    }
}
