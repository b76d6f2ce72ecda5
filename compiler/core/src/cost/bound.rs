//! The lower bound of a launch's global traffic: each input read once, each output written once.

use drawloom_lang::manifest::Formula;
use drawloom_lang::spec::{AxisId, Binding, Dtype, ElemType, Spec};
use std::collections::BTreeMap;
use std::ops::{Add, Mul};

/// Bytes that any kernel for the spec must move at these run-time sizes, by axis name.
///
/// # Errors
/// The name of an axis whose size is neither in the binding nor in `sizes`.
pub fn lower_bound(spec: &Spec, binding: &Binding, sizes: &BTreeMap<String, u64>) -> Result<u64, String> {
    let mut bytes = 0u64;
    for (ty, axes) in tensors(spec) {
        let mut size = element_bytes(ty, binding);
        for &a in axes {
            let name = &spec.axes[a.index()].name;
            let extent = match binding.sizes[a.index()] {
                Some(n) => n.into(),
                None => *sizes.get(name).ok_or_else(|| name.clone())?,
            };
            size = size.saturating_mul(extent);
        }
        bytes = bytes.saturating_add(size);
    }
    Ok(bytes)
}

/// The same as a formula over sizes.
pub fn bound_formula(spec: &Spec, binding: &Binding) -> Formula {
    tensors(spec)
        .map(|(ty, axes)| {
            let mut constant = element_bytes(ty, binding) as i64;
            let mut named = Vec::new();
            for &a in axes {
                match binding.sizes[a.index()] {
                    Some(n) => constant *= i64::from(n),
                    None => named.push(Formula::Size(spec.axes[a.index()].name.clone())),
                }
            }
            named.into_iter().fold(Formula::Const(constant), Formula::mul)
        })
        .reduce(Formula::add)
        .unwrap_or(Formula::Const(0))
}

fn tensors(spec: &Spec) -> impl Iterator<Item = (ElemType, &[AxisId])> {
    let inputs = spec.inputs.iter().map(|i| (i.ty, i.axes.as_slice()));
    inputs.chain(spec.outputs.iter().map(|o| (o.ty, o.axes.as_slice())))
}

fn element_bytes(ty: ElemType, binding: &Binding) -> u64 {
    let dtype = match ty {
        ElemType::Fixed(d) => d,
        ElemType::Set(id) => binding.types[id.index()],
    };
    match dtype {
        Dtype::F16 | Dtype::Bf16 => 2,
        Dtype::F32 | Dtype::I32 => 4,
    }
}
