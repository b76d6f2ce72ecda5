//! The parameters of a tiled kernel: inputs, outputs or partial states, sizes, scalars.

use super::super::builder::Builder;
use super::super::declare::{outputs, partials, sizes};
use super::super::operator::Operator;
use super::super::{Meaning, Unsupported};
use super::order::Given;
use crate::schedule::{Fetch, Keys, Schedule};
use drawloom_kernel::ir::{Access, Dtype, ParamId, Val};
use drawloom_lang::spec::AxisId;
use std::collections::BTreeMap;

/// Parameters by name, and sizes by axis.
pub(super) struct Params {
    pub(super) tensors: BTreeMap<String, ParamId>,
    pub(super) lens: BTreeMap<AxisId, Val>,
    pub(super) scalars: BTreeMap<String, Val>,
    pub(super) partials: Vec<ParamId>,
    pub(super) splits: Option<Val>,
    /// What the launcher says of the order, where a CTA takes several query tiles.
    pub(super) order: Option<Given>,
    pub(super) meaning: Vec<Meaning>,
}

/// Declares the parameters: inputs, outputs (or partial states), sizes, scalars.
pub(super) fn declare(b: &mut Builder, op: &Operator, schedule: &Schedule, e: u32) -> Result<Params, Unsupported> {
    let mut meaning = Vec::new();
    let sizes = sizes(b, op, &mut meaning);
    let splits_param = (schedule.keys == Keys::Split).then(|| {
        meaning.push(Meaning::Splits);
        b.scalar_param("splits", Dtype::I32)
    });
    let order = (schedule.fetch == Fetch::Producer).then(|| Given::declare(b, op, schedule, &mut meaning));
    let mut tensors = BTreeMap::new();
    for input in &op.spec.inputs {
        let axes = input.axes.iter().map(|&a| sizes.extent(op, a)).collect();
        tensors.insert(
            input.name.clone(),
            b.tensor(&input.name, op.dtype(input.ty), axes, Access::In),
        );
        meaning.push(Meaning::Tensor(input.name.clone()));
    }
    let partials = match splits_param {
        None => {
            let params = outputs(b, op, &sizes, &mut meaning);
            tensors.extend(op.spec.outputs.iter().map(|o| o.name.clone()).zip(params));
            Vec::new()
        }
        Some(splits) => partials(b, op, (&sizes, splits), e, Access::Out, &mut meaning),
    };
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
        let v = sizes.read(b, op, id);
        lens.insert(id, v);
    }
    let splits = splits_param.map(|p| b.read_param(p));
    Ok(Params {
        tensors,
        lens,
        scalars,
        partials,
        splits,
        order,
        meaning,
    })
}
