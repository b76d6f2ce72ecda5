//! Parameters that kernels of one operator have in common. A split kernel and its merge must agree on the partial
//! states, so these are declared here for both.

use super::Meaning;
use super::builder::Builder;
use super::operator::Operator;
use drawloom_kernel::ir::{Access, Dtype, Extent, ParamId, Val};
use drawloom_lang::spec::AxisId;
use std::collections::BTreeMap;

/// The parameters of the axes whose sizes are known at run time.
pub struct Sizes(BTreeMap<AxisId, ParamId>);

/// Declares one size parameter per run-time axis, in the spec's order.
pub fn sizes(b: &mut Builder, op: &Operator, meaning: &mut Vec<Meaning>) -> Sizes {
    let mut params = BTreeMap::new();
    for (n, axis) in op.spec.axes.iter().enumerate() {
        let id = AxisId(n as u32);
        if op.size(id).is_none() {
            params.insert(id, b.scalar_param(&format!("len_{}", axis.name), Dtype::I32));
            meaning.push(Meaning::Size(axis.name.clone()));
        }
    }
    Sizes(params)
}

impl Sizes {
    /// The extent of a tensor along an axis.
    pub fn extent(&self, op: &Operator, id: AxisId) -> Extent {
        match op.size(id) {
            Some(n) => Extent::Const(n),
            None => Extent::Param(self.0[&id]),
        }
    }

    /// The size of an axis as a value.
    pub fn read(&self, b: &mut Builder, op: &Operator, id: AxisId) -> Val {
        match op.size(id) {
            Some(n) => b.int(i64::from(n)),
            None => b.read_param(self.0[&id]),
        }
    }
}

/// Declares the spec's outputs.
pub fn outputs(b: &mut Builder, op: &Operator, sizes: &Sizes, meaning: &mut Vec<Meaning>) -> Vec<ParamId> {
    let mut params = Vec::new();
    for output in &op.spec.outputs {
        let axes = output.axes.iter().map(|&a| sizes.extent(op, a)).collect();
        params.push(b.tensor(&output.name, op.dtype(output.ty), axes, Access::Out));
        meaning.push(Meaning::Tensor(output.name.clone()));
    }
    params
}

/// Declares the partial states `m`, `l` and `o` over the splits, the query tensor's rows and, for `o`, `e` features.
pub fn partials(
    b: &mut Builder,
    op: &Operator,
    (sizes, splits): (&Sizes, ParamId),
    e: u32,
    access: Access,
    meaning: &mut Vec<Meaning>,
) -> Vec<ParamId> {
    let q_axes = &op.spec.inputs[op.q.index()].axes;
    let mut params = Vec::new();
    for (comp, part) in ["m", "l", "o"].into_iter().enumerate() {
        let mut axes = vec![Extent::Param(splits)];
        let mut names = vec!["splits".to_owned()];
        for &a in &q_axes[..q_axes.len() - 1] {
            axes.push(sizes.extent(op, a));
            names.push(op.spec.axes[a.index()].name.clone());
        }
        if part == "o" {
            axes.push(Extent::Const(e));
            names.push(e.to_string());
        }
        params.push(b.tensor(&format!("part_{part}"), Dtype::F32, axes, access));
        meaning.push(Meaning::Partial { comp, axes: names });
    }
    params
}
