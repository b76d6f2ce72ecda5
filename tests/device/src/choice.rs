//! What the selector takes for a call, before there are tensors.

use drawloom::manifest::Variant;
use drawloom::planning::{Choice, Env, Offered, choose, instance};
use drawloom::{Dtype, Error, Loaded, MAX_AXES};
use std::collections::BTreeMap;

/// What a loaded operator would run for these types and sizes, with aligned tensors.
///
/// # Errors
/// A missing size, or those of [`choose`].
pub fn chosen<'l>(loaded: &'l Loaded, types: &[Dtype], sizes: &BTreeMap<&str, usize>) -> Result<Choice<'l>, Error> {
    let (operator, manifest) = (loaded.operator(), loaded.manifest());
    let axes = &operator.spec().axes;
    let mut by_axis = [0; MAX_AXES];
    for (slot, axis) in by_axis.iter_mut().zip(axes) {
        let size = sizes.get(axis.name.as_str()).ok_or_else(|| Error::MissingArgument {
            argument: axis.name.clone(),
        })?;
        *slot = *size as i64;
    }
    let (_, variants) = instance(operator, manifest, types, &by_axis)?;
    let env = Env {
        axes,
        sizes: &by_axis,
        splits: 1,
        device: loaded.device(),
    };
    choose(manifest, variants, env, Offered::any(ALIGN), u64::MAX)
}

/// Alignment of tensors as allocated, in bytes.
const ALIGN: u32 = 256;

/// The symbols of a variant's kernels, in order.
pub fn kernels(variant: &Variant) -> Vec<String> {
    variant.launches.iter().map(|launch| launch.kernel.clone()).collect()
}
