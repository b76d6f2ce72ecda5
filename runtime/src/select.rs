//! The selector: which variant of which instance runs, from the sizes of the call and the numbers of the device.
//!
//! Plain evaluation of the manifest's formulas, without allocation. A formula that overflows or divides by what is not
//! positive has no value, and a variant without a value is not feasible.

use crate::device::Device;
use crate::error::Error;
use crate::map::{MAP_ALIGN, Unmappable, tensor_map};
use crate::operator::{MAX_AXES, Operator};
use crate::plan::window;
use crate::tensor::View;
use drawloom_lang::manifest::{Arg, Formula, Leaf, Manifest, Variant};
use drawloom_lang::spec::{AxisDecl, Dtype};

/// Sizes by axis, in the spec's order.
pub type Sizes = [i64; MAX_AXES];

/// Bytes between workspace buffers: the alignment that every variant may rely on.
pub const WORKSPACE_ALIGN: u64 = 256;

/// What formulas are evaluated with.
#[derive(Clone, Copy)]
pub struct Env<'a> {
    /// Axes of the spec.
    pub axes: &'a [AxisDecl],
    /// Their sizes.
    pub sizes: &'a Sizes,
    /// Ways the keys are split.
    pub splits: i64,
    /// The device.
    pub device: &'a Device,
}

/// The value of a formula; `None` where arithmetic fails or a name is unknown.
pub fn evaluate(formula: &Formula, env: &Env<'_>) -> Option<i64> {
    formula.evaluate(&|leaf| match leaf {
        Leaf::Size(name) => {
            let axis = env.axes.iter().position(|axis| axis.name == name)?;
            Some(env.sizes[axis])
        }
        Leaf::Splits => Some(env.splits),
        Leaf::Device(fact) => Some(env.device.fact(fact)),
    })
}

/// What the call's tensors offer; see [`crate::check::offered`].
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Offered<'a> {
    /// Alignment in bytes of addresses and strides: the largest power of two, at most 4096, that divides them all.
    pub align: u32,
    /// The tensors themselves; `None` where a choice is judged before there are any, which have no extent of 0 then.
    pub call: Option<Call<'a>>,
}

/// The tensors of a call, in the operator's order.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Call<'a> {
    /// Knows them by name.
    pub operator: &'a Operator,
    /// Inputs first.
    pub tensors: &'a [View],
}

impl Offered<'_> {
    /// Imagined tensors of this alignment.
    pub const fn any(align: u32) -> Offered<'static> {
        Offered { align, call: None }
    }
}

/// What the selector chose.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Choice<'m> {
    /// The variant.
    pub variant: &'m Variant,
    /// Its number in its instance.
    pub index: usize,
    /// Ways the keys are split.
    pub splits: i64,
    /// Bytes of workspace that it needs.
    pub workspace: u64,
    /// Predicted time in nanoseconds.
    pub time: i64,
}

/// Why a variant cannot run.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Refusal<'m> {
    Target,
    Shared,
    Align,
    /// A tensor that has no map.
    Map(&'m str, Unmappable),
    Sizes,
    Arithmetic,
    Workspace(u64),
}

/// The number of the instance for `types` and these sizes, and its variants.
///
/// # Errors
/// [`Error::TypesNotCompiled`] or [`Error::SizeNotCompiled`], which list those that were compiled.
pub fn instance<'m>(
    operator: &Operator,
    manifest: &'m Manifest,
    types: &[Dtype],
    sizes: &Sizes,
) -> Result<(usize, &'m [Variant]), Error> {
    let fits = |given: &[Option<u32>]| {
        given
            .iter()
            .zip(sizes)
            .all(|(compiled, size)| compiled.is_none_or(|compiled| i64::from(compiled) == *size))
    };
    let found = (manifest.instances.iter().enumerate())
        .find(|(_, instance)| instance.binding.types == types && fits(&instance.binding.sizes))
        .map(|(index, instance)| (index, instance.variants.as_slice()));
    found.ok_or_else(|| operator.not_compiled(manifest, types, sizes))
}

/// Bytes of all workspace buffers of a variant, each aligned to [`WORKSPACE_ALIGN`]; `None` where a size has no value.
pub fn workspace_bytes(variant: &Variant, env: &Env<'_>) -> Option<u64> {
    let mut total = 0u64;
    for buffer in &variant.workspace {
        let bytes = u64::try_from(evaluate(buffer, env)?).ok()?;
        total = total.checked_add(bytes)?.checked_next_multiple_of(WORKSPACE_ALIGN)?;
    }
    Some(total)
}

fn consider<'m>(
    manifest: &Manifest,
    (index, variant): (usize, &'m Variant),
    mut env: Env<'_>,
    offered: Offered<'_>,
    workspace: u64,
) -> Result<Choice<'m>, Refusal<'m>> {
    let runs = |module: usize| {
        manifest
            .modules
            .get(module)
            .is_some_and(|module| env.device.runs_module(module))
    };
    if !variant.launches.iter().all(|launch| runs(launch.module)) {
        return Err(Refusal::Target);
    }
    if variant.requires.shared > env.device.shared {
        return Err(Refusal::Shared);
    }
    if variant.requires.align > 1 && !offered.align.is_multiple_of(variant.requires.align) {
        return Err(Refusal::Align);
    }
    for arg in variant.launches.iter().flat_map(|launch| &launch.args) {
        mappable(arg, offered)?;
    }
    env.splits = evaluate(&variant.splits, &env)
        .ok_or(Refusal::Arithmetic)?
        .clamp(1, 4096);
    if evaluate(&variant.requires.when, &env).ok_or(Refusal::Arithmetic)? == 0 {
        return Err(Refusal::Sizes);
    }
    let needed = workspace_bytes(variant, &env).ok_or(Refusal::Arithmetic)?;
    if needed > workspace {
        return Err(Refusal::Workspace(needed));
    }
    let time = evaluate(&variant.time, &env).ok_or(Refusal::Arithmetic)?;
    Ok(Choice {
        variant,
        index,
        splits: env.splits,
        workspace: needed,
        time,
    })
}

/// Whether the tensor of a tensor map can have one; any other parameter can.
fn mappable<'m>(arg: &'m Arg, offered: Offered<'_>) -> Result<(), Refusal<'m>> {
    let Arg::TensorMap { tensor, .. } = arg else {
        return Ok(());
    };
    match offered.call {
        None if u64::from(offered.align).is_multiple_of(MAP_ALIGN) => Ok(()),
        None => Err(Refusal::Map(tensor, Unmappable::Address(offered.align.into()))),
        Some(call) => {
            let view = call
                .operator
                .find_tensor(tensor)
                .and_then(|index| call.tensors.get(index));
            match view.zip(window(arg)) {
                Some((view, window)) => tensor_map(view, &window)
                    .map(|_| ())
                    .map_err(|why| Refusal::Map(tensor, why)),
                None => Err(Refusal::Map(tensor, Unmappable::Rank(0))),
            }
        }
    }
}

/// The feasible variant with the smallest predicted time; of equals the first.
///
/// # Errors
/// [`Error::WorkspaceTooSmall`] if only the workspace stands in the way, otherwise [`Error::NoVariant`] with a reason for
/// each variant.
pub fn choose<'m>(
    manifest: &Manifest,
    variants: &'m [Variant],
    env: Env<'_>,
    offered: Offered<'_>,
    workspace: u64,
) -> Result<Choice<'m>, Error> {
    let mut best: Option<Choice<'m>> = None;
    for numbered in variants.iter().enumerate() {
        if let Ok(choice) = consider(manifest, numbered, env, offered, workspace)
            && best.is_none_or(|best| choice.time < best.time)
        {
            best = Some(choice);
        }
    }
    best.ok_or_else(|| refusals(manifest, variants, env, offered, workspace))
}

fn refusals(manifest: &Manifest, variants: &[Variant], env: Env<'_>, offered: Offered<'_>, workspace: u64) -> Error {
    let mut reasons = Vec::new();
    let mut smallest = None;
    for (index, variant) in variants.iter().enumerate() {
        let Err(refusal) = consider(manifest, (index, variant), env, offered, workspace) else {
            continue;
        };
        let (major, minor) = env.device.capability;
        let reason = match refusal {
            Refusal::Target => format!(
                "is for {}, but the device has capability {major}.{minor}",
                variant.target
            ),
            Refusal::Shared => format!(
                "needs {} bytes of shared memory, but the device allows {}",
                variant.requires.shared, env.device.shared
            ),
            Refusal::Align => format!(
                "needs addresses and strides aligned to {} bytes, but {} is given",
                variant.requires.align, offered.align
            ),
            Refusal::Map(tensor, why) => format!("reads or writes `{tensor}` through the copy engine, but {why}"),
            Refusal::Sizes => "is not for these sizes".to_owned(),
            Refusal::Arithmetic => "has no value at these sizes".to_owned(),
            Refusal::Workspace(needed) => {
                smallest = Some(smallest.map_or(needed, |smallest: u64| smallest.min(needed)));
                format!("needs {needed} bytes of workspace, but {workspace} are given")
            }
        };
        reasons.push(format!("`{}` {reason}", variant.name));
    }
    match smallest {
        Some(needed) => Error::WorkspaceTooSmall {
            needed,
            given: workspace,
        },
        None if reasons.is_empty() => Error::NoVariant {
            name: manifest.name.clone(),
            reasons: "it has none".to_owned(),
        },
        None => Error::NoVariant {
            name: manifest.name.clone(),
            reasons: reasons.join("; "),
        },
    }
}
