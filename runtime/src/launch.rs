//! Launching: the only place that does.
//!
//! A [`Loaded`] operator takes arguments, has [`crate::plan`] decide everything, and hands the kernels to the driver.
//! Nothing on this path allocates, copies or synchronises.

use crate::arguments::Arguments;
use crate::check::Wanted;
use crate::device::Device;
use crate::encode::{Encoded, encode};
use crate::error::{Error, list};
use crate::module::{Function, Module};
use crate::operator::{MAX_AXES, MAX_TENSORS, Operator};
use crate::plan::{self, Plan, Setting, WorkspaceView};
use crate::select::Sizes;
use crate::tensor::{MAX_RANK, Place, View};
use cudarc::driver::sys::CUstreamCaptureStatus_enum as CaptureStatus;
use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DevicePtrMut, SyncOnDrop};
use drawloom_lang::artifact::{MAX_PARAMS, MAX_TENSOR_MAPS, module_code};
use drawloom_lang::manifest::{Arg, Manifest};
use drawloom_lang::spec::{AxisSize, Dtype};
use std::ffi::c_void;
use std::sync::Arc;

/// An operator whose kernels are loaded in a context, for one choice of its type sets and every compiled size.
pub struct Loaded {
    operator: Arc<Operator>,
    manifest: Arc<Manifest>,
    types: Vec<Dtype>,
    context: Arc<CudaContext>,
    device: Device,
    /// By instance, variant and launch; empty where the instance has other types or the variant does not run here.
    functions: Vec<Vec<Vec<Function>>>,
    /// Keeps the functions alive.
    _modules: Vec<Arc<Module>>,
}

/// Scratch memory on the device that kernels of one call hand to each other, for sizes up to a limit.
pub struct Workspace {
    buffer: Option<CudaSlice<u8>>,
    limits: Sizes,
}

impl Workspace {
    /// Its size in bytes.
    pub fn bytes(&self) -> usize {
        self.buffer.as_ref().map_or(0, CudaSlice::len)
    }
}

/// Loads the kernels of an operator for these members of its type sets.
///
/// # Errors
/// [`Error::TypesNotCompiled`], [`Error::NoCode`] where nothing runs on this device, [`Error::Load`] with the driver's log.
pub(crate) fn load(
    operator: Arc<Operator>,
    manifest: Arc<Manifest>,
    payload: &[u8],
    context: &Arc<CudaContext>,
    types: &[Dtype],
) -> Result<Loaded, Error> {
    let device = Device::of(context)?;
    if !manifest
        .instances
        .iter()
        .any(|instance| instance.binding.types == types)
    {
        return Err(operator.not_compiled(&manifest, types, &[0; MAX_AXES]));
    }
    let mut modules: Vec<Option<Arc<Module>>> = vec![None; manifest.modules.len()];
    let mut functions = Vec::with_capacity(manifest.instances.len());
    let mut runs_here = false;
    for instance in &manifest.instances {
        let mut by_variant = Vec::with_capacity(instance.variants.len());
        for variant in &instance.variants {
            let runs = instance.binding.types == types
                && variant.requires.shared <= device.shared
                && variant
                    .launches
                    .iter()
                    .all(|launch| device.runs_module(&manifest.modules[launch.module]));
            let mut by_launch = Vec::new();
            for launch in variant.launches.iter().filter(|_| runs) {
                let slot = &mut modules[launch.module];
                if slot.is_none() {
                    let load = |index: usize| {
                        let described = &manifest.modules[index];
                        let code = || Ok(module_code(&manifest, payload, index)?);
                        Module::load(context, &described.target, &described.sha256, code)
                    };
                    let loaded = match device.code_of(&manifest, launch.module) {
                        ptx if ptx == launch.module => load(ptx),
                        // An older driver may not take the cubin, but compile the PTX.
                        cubin => load(cubin).or_else(|_| load(launch.module)),
                    };
                    *slot = Some(loaded?);
                }
                if let Some(module) = slot {
                    by_launch.push(module.function(&launch.kernel, launch.shared)?);
                }
            }
            runs_here |= runs;
            by_variant.push(by_launch);
        }
        functions.push(by_variant);
    }
    if !runs_here {
        let mut targets: Vec<String> = manifest
            .modules
            .iter()
            .map(|module| format!("{} ({})", module.target, module.form))
            .collect();
        targets.dedup();
        return Err(Error::NoCode {
            name: manifest.name.clone(),
            device: device.name,
            capability: format!("{}.{}", device.capability.0, device.capability.1),
            targets: list(targets),
        });
    }
    let _modules = modules.into_iter().flatten().collect();
    Ok(Loaded {
        operator,
        manifest,
        types: types.to_vec(),
        context: context.clone(),
        device,
        functions,
        _modules,
    })
}

impl Loaded {
    /// The operator.
    pub fn operator(&self) -> &Operator {
        &self.operator
    }

    /// The device that it is loaded on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    fn setting(&self) -> Setting<'_> {
        Setting {
            operator: &self.operator,
            manifest: &self.manifest,
            types: &self.types,
            device: &self.device,
            wanted: Wanted::Device {
                context: self.context.cu_ctx() as usize,
                ordinal: self.context.ordinal(),
            },
        }
    }

    /// Scratch memory for every call with sizes up to those given, by axis name. A grouped axis and one with a single
    /// compiled size need none.
    ///
    /// # Errors
    /// [`Error::UnknownArgument`] and [`Error::MissingArgument`] for axes, [`Error::Driver`] when memory is short.
    pub fn workspace(&self, stream: &Arc<CudaStream>, max: &[(&str, usize)]) -> Result<Workspace, Error> {
        self.check_stream(stream)?;
        let limits = limits(&self.operator, max)?;
        let bytes = plan::workspace_for(&self.setting(), &limits)?;
        let buffer = match usize::try_from(bytes).unwrap_or(usize::MAX) {
            0 => None,
            bytes => {
                // SAFETY: every variant's kernels write a workspace buffer before they read it.
                let buffer = unsafe { stream.alloc::<u8>(bytes) };
                Some(buffer.map_err(Error::driver("allocating a workspace"))?)
            }
        };
        Ok(Workspace { buffer, limits })
    }

    /// Checks everything, then launches.
    ///
    /// # Errors
    /// Whatever is wrong with the call; [`Error::Capturing`] when the stream is being captured.
    pub fn launch(
        &self,
        stream: &Arc<CudaStream>,
        arguments: Arguments<'_>,
        workspace: &mut Workspace,
    ) -> Result<(), Error> {
        self.check_stream(stream)?;
        let status = stream
            .capture_status()
            .map_err(Error::driver("asking whether the stream is captured"))?;
        if status != CaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE {
            return Err(Error::Capturing);
        }
        self.launch_on(stream, arguments, workspace)
    }

    /// [`Loaded::launch`] on a stream that may be being captured into a graph.
    ///
    /// # Safety
    /// Until the last replay of the graph has finished: all memory of the arguments and the workspace stays allocated,
    /// inputs are not written and outputs not used while a replay runs, and this object is not dropped. cudarc's event
    /// tracking must be off in the context, or only one stream be used: an event from outside would break the capture.
    ///
    /// # Errors
    /// As for [`Loaded::launch`].
    pub unsafe fn launch_captured(
        &self,
        stream: &Arc<CudaStream>,
        arguments: Arguments<'_>,
        workspace: &mut Workspace,
    ) -> Result<(), Error> {
        self.check_stream(stream)?;
        self.launch_on(stream, arguments, workspace)
    }

    fn check_stream(&self, stream: &CudaStream) -> Result<(), Error> {
        if stream.context().cu_ctx() != self.context.cu_ctx() {
            return Err(Error::Context {
                argument: "stream".to_owned(),
                expected: self.context.ordinal(),
                given: stream.context().ordinal(),
            });
        }
        self.context
            .bind_to_thread()
            .map_err(Error::driver("binding the context"))
    }

    fn launch_on(
        &self,
        stream: &CudaStream,
        mut arguments: Arguments<'_>,
        workspace: &mut Workspace,
    ) -> Result<(), Error> {
        let spec = self.operator.spec();
        let setting = self.setting();
        let mut views = [EMPTY; MAX_TENSORS];
        // Dropped after the last launch: each records the read or write of its memory on the stream.
        let mut guards: [Option<SyncOnDrop<'_>>; MAX_TENSORS] = [const { None }; MAX_TENSORS];
        let mut count = 0;
        for input in arguments.inputs.iter().flatten() {
            let view = input.view();
            self.check_memory(count, &view)?;
            views[count] = view;
            if let Some((address, guard)) = input.device(stream) {
                views[count].address = address;
                guards[count] = guard;
            }
            count += 1;
        }
        for output in arguments.outputs.iter_mut().flatten() {
            let view = output.view();
            self.check_memory(count, &view)?;
            views[count] = view;
            if let Some((address, guard)) = output.device(stream) {
                views[count].address = address;
                guards[count] = guard;
            }
            count += 1;
        }
        let bytes = workspace.bytes() as u64;
        let limits = workspace.limits;
        if let Some(buffer) = &workspace.buffer {
            crate::check::check_place("workspace", Place::of(buffer.context()), setting.wanted)?;
        }
        let memory = workspace.buffer.as_mut().map(|buffer| buffer.device_ptr_mut(stream));
        let address = memory.as_ref().map_or(0, |(address, _)| *address);
        let workspace = WorkspaceView { address, bytes, limits };
        let scalars = &arguments.scalars[..spec.scalars.len()];
        let Some(plan) = plan::plan_launch(&setting, &views[..count], scalars, workspace)? else {
            return Ok(());
        };
        self.submit(stream, &plan)?;
        drop(memory);
        drop(guards);
        Ok(())
    }

    /// Refuses memory of another context before its stream and ours are made to wait for each other.
    fn check_memory(&self, index: usize, view: &View) -> Result<(), Error> {
        crate::check::check_place(self.operator.tensor(index).name, view.place, self.setting().wanted)
    }

    fn submit(&self, stream: &CudaStream, plan: &Plan<'_>) -> Result<(), Error> {
        let functions = &self.functions[plan.instance][plan.choice.index];
        let mut maps = [Encoded::EMPTY; MAX_TENSOR_MAPS];
        for (encoded, map) in maps.iter_mut().zip(plan.maps()) {
            *encoded = encode(map)?;
        }
        for kernel in plan.kernels() {
            let mut pointers = [std::ptr::null_mut::<c_void>(); MAX_PARAMS];
            for ((pointer, slot), arg) in pointers.iter_mut().zip(kernel.params).zip(&kernel.launch.args) {
                *pointer = match arg {
                    Arg::TensorMap { .. } => std::ptr::from_ref(&maps[*slot as usize]).cast_mut().cast(),
                    _ => std::ptr::from_ref(slot).cast_mut().cast(),
                };
            }
            // SAFETY: the function is loaded in the bound context, which is the stream's. There is one parameter for
            // each that the manifest lists, in its order and width, tensor maps encoded from the views; the manifest is covered by the artifact's hash. All
            // addresses are memory of this context that the caller's borrows keep valid, checked to hold every element
            // of the shapes and strides that are passed; outputs overlap nothing; grid and shared memory are in range.
            unsafe {
                cudarc::driver::result::launch_kernel(
                    functions[kernel.index].0,
                    (kernel.grid, 1, 1),
                    (kernel.launch.threads, 1, 1),
                    kernel.launch.shared,
                    stream.cu_stream(),
                    &mut pointers[..kernel.params.len().max(1)],
                )
            }
            .map_err(Error::driver("launching a kernel"))?;
        }
        Ok(())
    }
}

const EMPTY: View = View {
    dtype: Dtype::F32,
    rank: 0,
    shape: [0; MAX_RANK],
    strides: [0; MAX_RANK],
    address: 0,
    len: 0,
    place: Place::Host,
};

/// Sizes by axis from sizes by name; grouped axes and single sizes fill themselves in.
pub(crate) fn limits(operator: &Operator, max: &[(&str, usize)]) -> Result<Sizes, Error> {
    let axes = &operator.spec().axes;
    let mut limits = [i64::MAX; MAX_AXES];
    if let Some((unknown, _)) = max.iter().find(|(name, _)| !axes.iter().any(|axis| axis.name == *name)) {
        let known = list(axes.iter().map(|axis| &axis.name));
        return Err(Error::UnknownArgument {
            kind: "axis",
            argument: (*unknown).to_owned(),
            known,
        });
    }
    for (index, axis) in axes.iter().enumerate() {
        let given = max.iter().find(|(name, _)| axis.name == *name).map(|(_, size)| *size);
        limits[index] = match (given, &axis.size) {
            (Some(given), _) if given > crate::check::MAX_SIZE => {
                return Err(Error::TooLarge {
                    axis: axis.name.clone(),
                    given,
                    limit: crate::check::MAX_SIZE,
                });
            }
            (Some(given), _) => given as i64,
            (None, AxisSize::OneOf(sizes)) => sizes.iter().copied().max().unwrap_or(0).into(),
            (None, AxisSize::Grouped { .. }) => i64::MAX,
            (None, AxisSize::Runtime) => {
                return Err(Error::MissingArgument {
                    argument: axis.name.clone(),
                });
            }
        };
    }
    Ok(limits)
}
