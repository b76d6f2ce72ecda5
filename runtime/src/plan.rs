//! Everything about a launch that needs no GPU: checks, selection, grids and kernel parameters.
//!
//! [`plan_launch`] is a pure function of the call and the device's numbers. What it returns can be launched without any
//! further decision, so nothing can fail between the kernels of a program but the driver.

use crate::check::{self, Wanted};
use crate::device::Device;
use crate::element::Scalar;
use crate::error::Error;
use crate::map::{self, TensorMap, Window};
use crate::operator::Operator;
use crate::select::{self, Choice, Env, Sizes, WORKSPACE_ALIGN};
use crate::tensor::View;
use drawloom_lang::artifact::{MAX_LAUNCHES, MAX_PARAMS, MAX_TENSOR_MAPS, MAX_WORKSPACE};
use drawloom_lang::manifest::{Arg, Launch, Manifest};
use drawloom_lang::spec::Dtype;

/// Largest one-dimensional grid of CUDA.
pub const MAX_GRID: i64 = i32::MAX as i64;

/// What stands still between calls.
#[derive(Clone, Copy)]
pub struct Setting<'a> {
    /// The operator.
    pub operator: &'a Operator,
    /// Its manifest.
    pub manifest: &'a Manifest,
    /// Members chosen for its type sets.
    pub types: &'a [Dtype],
    /// The device.
    pub device: &'a Device,
    /// Context of the kernels.
    pub wanted: Wanted,
}

/// The caller's workspace.
#[derive(Clone, Copy, Debug)]
pub struct WorkspaceView {
    /// Address, aligned to [`WORKSPACE_ALIGN`].
    pub address: u64,
    /// Bytes.
    pub bytes: u64,
    /// Largest sizes that it was made for, by axis.
    pub limits: Sizes,
}

/// A launch, decided.
pub struct Plan<'m> {
    /// Sizes of the axes.
    pub sizes: Sizes,
    /// Number of the instance.
    pub instance: usize,
    /// The variant and its splits.
    pub choice: Choice<'m>,
    grids: [u32; MAX_LAUNCHES],
    params: [u64; MAX_PARAMS],
    maps: [TensorMap; MAX_TENSOR_MAPS],
    mapped: usize,
}

/// One kernel of a plan.
pub struct PlannedKernel<'p, 'm> {
    /// Its number in the variant.
    pub index: usize,
    /// The manifest's words.
    pub launch: &'m Launch,
    /// CTAs, at least one.
    pub grid: u32,
    /// One slot per parameter, whose first bytes are the parameter's. That of a tensor map is its number in
    /// [`Plan::maps`].
    pub params: &'p [u64],
}

impl<'m> Plan<'m> {
    /// The tensor maps of all kernels, to be encoded before the first launch.
    pub fn maps(&self) -> &[TensorMap] {
        &self.maps[..self.mapped]
    }

    /// The kernels to launch, in order. A kernel with an empty grid is left out.
    pub fn kernels(&self) -> impl Iterator<Item = PlannedKernel<'_, 'm>> {
        let mut start = 0;
        self.choice
            .variant
            .launches
            .iter()
            .enumerate()
            .filter_map(move |(index, launch)| {
                let params = &self.params[start..start + launch.args.len()];
                start += launch.args.len();
                let grid = self.grids[index];
                (grid > 0).then_some(PlannedKernel {
                    index,
                    launch,
                    grid,
                    params,
                })
            })
    }
}

/// Checks the call, chooses a variant and computes grids and parameters. `None`: every output is empty and there is
/// nothing to launch. A call with no keys still runs, and writes zeros.
///
/// # Errors
/// Whatever is wrong with the call; nothing has been launched.
pub fn plan_launch<'a>(
    setting: &Setting<'a>,
    tensors: &[View],
    scalars: &[Scalar],
    workspace: WorkspaceView,
) -> Result<Option<Plan<'a>>, Error> {
    let Setting {
        operator,
        manifest,
        types,
        device,
        wanted,
    } = *setting;
    let spec = operator.spec();
    let sizes = check::check(operator, types, wanted, tensors)?;
    let (instance, variants) = select::instance(operator, manifest, types, &sizes)?;
    let outputs = &tensors[spec.inputs.len()..operator.tensors()];
    if outputs.iter().all(|output| output.shape[..output.rank].contains(&0)) {
        return Ok(None);
    }
    for ((axis, size), limit) in spec.axes.iter().zip(&sizes).zip(&workspace.limits) {
        if size > limit {
            let (given, limit) = (*size as usize, usize::try_from(*limit).unwrap_or(0));
            return Err(Error::BeyondWorkspace {
                axis: axis.name.clone(),
                given,
                limit,
            });
        }
    }
    let env = Env {
        axes: &spec.axes,
        sizes: &sizes,
        splits: 1,
        device,
    };
    let choice = select::choose(
        manifest,
        variants,
        env,
        check::offered(operator, tensors),
        workspace.bytes,
    )?;
    let env = Env {
        splits: choice.splits,
        ..env
    };

    // The sum of these sizes is `choice.workspace`, which the selector held against the workspace.
    let mut buffers = [0u64; MAX_WORKSPACE];
    let mut next = workspace.address;
    for (slot, buffer) in buffers.iter_mut().zip(&choice.variant.workspace) {
        *slot = next;
        let bytes = select::evaluate(buffer, &env)
            .and_then(|bytes| u64::try_from(bytes).ok())
            .unwrap_or(0);
        next = next.saturating_add(bytes).next_multiple_of(WORKSPACE_ALIGN);
    }

    let mut plan = Plan {
        sizes,
        instance,
        choice,
        grids: [0; MAX_LAUNCHES],
        params: [0; MAX_PARAMS],
        maps: [TensorMap::NONE; MAX_TENSOR_MAPS],
        mapped: 0,
    };
    let mut next = 0;
    for (index, launch) in choice.variant.launches.iter().enumerate() {
        let bad = |what, given: Option<i64>, expected: String| Error::Launch {
            kernel: launch.kernel.clone(),
            what,
            given: given.map_or_else(|| "no number".to_owned(), |given| given.to_string()),
            expected,
        };
        let grid = select::evaluate(&launch.grid, &env);
        plan.grids[index] = (grid.filter(|grid| (0..=MAX_GRID).contains(grid)))
            .and_then(|grid| u32::try_from(grid).ok())
            .ok_or_else(|| bad("the grid", grid, format!("0 to {MAX_GRID}")))?;
        for arg in &launch.args {
            plan.params[next] = match arg {
                Arg::Pointer(name) => tensors[tensor(operator, launch, name)?].address,
                Arg::Stride(name, axis) => tensors[tensor(operator, launch, name)?].strides[*axis] as u64,
                Arg::Workspace(buffer) => buffers[*buffer],
                Arg::Size(formula) => {
                    let value = select::evaluate(formula, &env);
                    let word = value.and_then(|value| i32::try_from(value).ok());
                    word.map(|word| slot(word.to_ne_bytes()))
                        .ok_or_else(|| bad("a size", value, format!("{} to {}", i32::MIN, i32::MAX)))?
                }
                Arg::Long(formula) => select::evaluate(formula, &env)
                    .ok_or_else(|| bad("a stride", None, "a 64-bit number".to_owned()))?
                    .cast_unsigned(),
                Arg::Scalar(name) => {
                    let index = spec.scalars.iter().position(|scalar| scalar.name == *name);
                    match index.and_then(|index| scalars.get(index)) {
                        Some(Scalar::F32(value)) => slot(value.to_ne_bytes()),
                        Some(Scalar::I32(value)) => slot(value.to_ne_bytes()),
                        None => return Err(Error::MissingArgument { argument: name.clone() }),
                    }
                }
                Arg::TensorMap { tensor: name, .. } => {
                    let view = &tensors[tensor(operator, launch, name)?];
                    // The selector has refused variants whose tensors have no maps.
                    let made = window(arg).map(|window| map::tensor_map(view, &window));
                    let number = plan.mapped;
                    match made {
                        Some(Ok(map)) if number < MAX_TENSOR_MAPS => plan.maps[number] = map,
                        Some(Err(why)) => return Err(bad_map(launch, name, why.to_string())),
                        _ => return Err(bad_map(launch, name, format!("number {number}"))),
                    }
                    plan.mapped += 1;
                    number as u64
                }
            };
            next += 1;
        }
    }
    Ok(Some(plan))
}

/// The box of a tensor map; `None` for another parameter.
pub(crate) fn window(arg: &Arg) -> Option<Window> {
    match *arg {
        Arg::TensorMap {
            row_axis,
            rows,
            cols,
            panel_bytes,
            ..
        } => Some(Window {
            row_axis,
            rows,
            cols,
            panel_bytes,
        }),
        _ => None,
    }
}

fn bad_map(launch: &Launch, tensor: &str, why: String) -> Error {
    Error::Launch {
        kernel: launch.kernel.clone(),
        what: "a tensor map",
        given: format!("that of `{tensor}`: {why}"),
        expected: format!("one of {MAX_TENSOR_MAPS} that the copy engine can have"),
    }
}

/// The tensor of a parameter; checked when the manifest was opened.
fn tensor(operator: &Operator, launch: &Launch, name: &str) -> Result<usize, Error> {
    operator.find_tensor(name).ok_or_else(|| Error::Launch {
        kernel: launch.kernel.clone(),
        what: "a parameter",
        given: name.to_owned(),
        expected: "a tensor".to_owned(),
    })
}

/// A parameter slot whose first four bytes are these.
fn slot(word: [u8; 4]) -> u64 {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&word);
    u64::from_ne_bytes(bytes)
}

/// Bytes of workspace for every call with sizes up to `limits`: the most that the selector's choice needs over a grid of
/// sizes (query and key axes at powers of two, the others at 1 and at their limit). Between the grid's points a variant
/// that needs more is passed over.
///
/// # Errors
/// [`Error::TypesNotCompiled`] if nothing was compiled for these types, [`Error::NoVariant`] if nothing runs here.
pub fn workspace_for(setting: &Setting<'_>, limits: &Sizes) -> Result<u64, Error> {
    let Setting {
        operator,
        manifest,
        types,
        device,
        ..
    } = *setting;
    let mut most = None;
    let mut refused = None;
    for instance in manifest
        .instances
        .iter()
        .filter(|instance| instance.binding.types == types)
    {
        let fits = (instance.binding.sizes.iter().zip(limits))
            .all(|(size, limit)| size.is_none_or(|size| i64::from(size) <= *limit));
        if !fits {
            continue;
        }
        for sizes in sample(operator, &instance.binding.sizes, limits) {
            for align in [16, 2] {
                let env = Env {
                    axes: &operator.spec().axes,
                    sizes: &sizes,
                    splits: 1,
                    device,
                };
                match select::choose(manifest, &instance.variants, env, select::Offered::any(align), u64::MAX) {
                    Ok(choice) => most = most.max(Some(choice.workspace)),
                    Err(error) => refused = Some(error),
                }
            }
        }
    }
    match (most, refused) {
        (Some(most), _) => Ok(most),
        (None, Some(refused)) => Err(refused),
        (None, None) => Err(operator.not_compiled(manifest, types, limits)),
    }
}

/// Sizes at which the workspace is judged.
fn sample(operator: &Operator, compiled: &[Option<u32>], limits: &Sizes) -> Vec<Sizes> {
    use drawloom_lang::spec::{AxisRole, AxisSize};
    let axes = &operator.spec().axes;
    let mut samples = vec![*limits];
    for (index, axis) in axes.iter().enumerate() {
        let limit = limits[index];
        let values: Vec<i64> = match (&axis.size, axis.role) {
            (AxisSize::Grouped { .. }, _) => continue,
            (AxisSize::OneOf(_), _) => vec![compiled[index].map_or(limit, i64::from)],
            (AxisSize::Runtime, AxisRole::Query(_) | AxisRole::Key) => {
                let powers = (0..31).map(|bit| 1i64 << bit).take_while(|power| *power < limit);
                powers.chain([limit]).collect()
            }
            (AxisSize::Runtime, AxisRole::Plain) if limit > 1 => vec![1, limit],
            (AxisSize::Runtime, AxisRole::Plain) => vec![limit],
        };
        samples = (samples.iter())
            .flat_map(|sizes| values.iter().map(move |value| with(sizes, index, *value)))
            .collect();
    }
    for (index, axis) in axes.iter().enumerate() {
        if let AxisSize::Grouped { of, ratios } = &axis.size {
            let ratio = i64::from(ratios.iter().copied().min().unwrap_or(1).max(1));
            for sizes in &mut samples {
                sizes[index] = sizes[of.index()] / ratio + i64::from(sizes[of.index()] % ratio != 0);
            }
        }
    }
    samples
}

fn with(sizes: &Sizes, index: usize, value: i64) -> Sizes {
    let mut sizes = *sizes;
    sizes[index] = value;
    sizes
}
