//! The parameters of a tiled kernel: inputs, outputs or partial states, sizes, scalars.

use super::super::builder::Builder;
use super::super::operator::Operator;
use super::super::{Meaning, Unsupported};
use crate::schedule::{Keys, Schedule};
use drawloom_kernel::ir::{Access, Dtype, Extent, ParamId, Val};
use drawloom_lang::spec::AxisId;
use std::collections::BTreeMap;

/// Parameters by name, and sizes by axis.
pub(super) struct Params {
    pub(super) tensors: BTreeMap<String, ParamId>,
    pub(super) lens: BTreeMap<AxisId, Val>,
    pub(super) scalars: BTreeMap<String, Val>,
    pub(super) partials: Vec<ParamId>,
    pub(super) splits: Option<Val>,
    pub(super) meaning: Vec<Meaning>,
}

/// Declares the parameters: inputs, outputs (or partial states), sizes, scalars.
pub(super) fn declare(b: &mut Builder, op: &Operator, schedule: &Schedule, e: u32) -> Result<Params, Unsupported> {
    let mut meaning = Vec::new();
    let mut size_params = BTreeMap::new();
    for (n, axis) in op.spec.axes.iter().enumerate() {
        let id = AxisId(n as u32);
        if op.size(id).is_none() {
            size_params.insert(id, b.scalar_param(&format!("len_{}", axis.name), Dtype::I32));
            meaning.push(Meaning::Size(axis.name.clone()));
        }
    }
    let splits_param = (schedule.keys == Keys::Split).then(|| {
        meaning.push(Meaning::Splits);
        b.scalar_param("splits", Dtype::I32)
    });
    let extent = |id: AxisId| match op.size(id) {
        Some(n) => Extent::Const(n),
        None => Extent::Param(size_params[&id]),
    };
    let mut tensors = BTreeMap::new();
    for input in &op.spec.inputs {
        let axes = input.axes.iter().map(|&a| extent(a)).collect();
        tensors.insert(
            input.name.clone(),
            b.tensor(&input.name, op.dtype(input.ty), axes, Access::In),
        );
        meaning.push(Meaning::Tensor(input.name.clone()));
    }
    let mut partials = Vec::new();
    match schedule.keys {
        Keys::All => {
            for output in &op.spec.outputs {
                let axes = output.axes.iter().map(|&a| extent(a)).collect();
                tensors.insert(
                    output.name.clone(),
                    b.tensor(&output.name, op.dtype(output.ty), axes, Access::Out),
                );
                meaning.push(Meaning::Tensor(output.name.clone()));
            }
        }
        Keys::Split => {
            let splits = splits_param.expect("invariant: a split kernel has the parameter");
            let q_axes = &op.spec.inputs[op.q.index()].axes;
            for (comp, part) in ["m", "l", "o"].into_iter().enumerate() {
                let mut axes = vec![Extent::Param(splits)];
                let mut names = vec!["splits".to_owned()];
                for &a in &q_axes[..q_axes.len() - 1] {
                    axes.push(extent(a));
                    names.push(op.spec.axes[a.index()].name.clone());
                }
                if part == "o" {
                    axes.push(Extent::Const(e));
                    names.push(e.to_string());
                }
                partials.push(b.tensor(&format!("part_{part}"), Dtype::F32, axes, Access::Out));
                meaning.push(Meaning::Partial { comp, axes: names });
            }
        }
    }
    let mut scalars = BTreeMap::new();
    for scalar in &op.spec.scalars {
        let dtype = match scalar.ty {
            drawloom_lang::spec::Dtype::F32 => Dtype::F32,
            drawloom_lang::spec::Dtype::I32 => Dtype::I32,
            drawloom_lang::spec::Dtype::F16 | drawloom_lang::spec::Dtype::Bf16 => {
                return Err(Unsupported::new(format!("the 16-bit scalar `{}`", scalar.name)));
            }
        };
        let param = b.scalar_param(&scalar.name, dtype);
        meaning.push(Meaning::Scalar(scalar.name.clone()));
        let mut value = b.read_param(param);
        if dtype == Dtype::I32 {
            // Distances are below 2^30; a window that is wider is as good as infinite, and must not overflow.
            let (low, high) = (b.int(-(1 << 30)), b.int(1 << 30));
            value = b.max(value, low);
            value = b.min(value, high);
        }
        scalars.insert(scalar.name.clone(), value);
    }
    let mut lens = BTreeMap::new();
    for n in 0..op.spec.axes.len() {
        let id = AxisId(n as u32);
        let v = match op.size(id) {
            Some(size) => b.int(i64::from(size)),
            None => b.read_param(size_params[&id]),
        };
        lens.insert(id, v);
    }
    let splits = splits_param.map(|p| b.read_param(p));
    Ok(Params {
        tensors,
        lens,
        scalars,
        partials,
        splits,
        meaning,
    })
}
