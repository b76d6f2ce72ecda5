//! Calls described at run time: their variants with predicted times, and their launches.

use drawloom::cudarc::driver::sys::CUstream;
use drawloom::cudarc::driver::{CudaContext, CudaStream};
use drawloom::planning::{Env, Sizes, Wanted, check, choose, instance, offered};
use drawloom::{Arguments, Artifact, Device, Dtype, Error, Input, Loaded, Output, RawTensor, Scalar, View, Workspace};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::ffi::c_void;
use std::sync::Arc;

/// A call.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// Inputs and outputs by name.
    pub tensors: BTreeMap<String, Tensor>,
    /// Scalars by name.
    #[serde(default)]
    pub scalars: BTreeMap<String, f64>,
    /// The variant to use; without it, the selector's.
    #[serde(default)]
    pub variant: Option<Which>,
}

/// A tensor in device memory.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tensor {
    /// Element type.
    pub dtype: Dtype,
    /// Device address of the first element.
    pub address: u64,
    /// Elements of memory from there.
    pub len: usize,
    /// Extents in the spec's order of axes.
    pub shape: Vec<usize>,
    /// Strides in elements.
    pub strides: Vec<usize>,
}

/// A variant of an instance.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum Which {
    /// By its number; a negative one means the selector's.
    Number(i64),
    /// By its name.
    Name(String),
}

/// A variant, and what the selector thinks of it here.
#[derive(Serialize)]
pub struct Listed {
    /// Its number in its instance.
    pub index: usize,
    /// The schedule in one line.
    pub name: String,
    /// Instruction set.
    pub target: String,
    /// Kernels of a launch.
    pub kernels: usize,
    /// Predicted time; `None` where it cannot run.
    pub predicted_ms: Option<f64>,
    /// Why it cannot run.
    pub refused: Option<String>,
    /// Ways the keys are split.
    pub splits: i64,
    /// Bytes of workspace.
    pub workspace: u64,
    /// Whether the selector takes it.
    pub chosen: bool,
}

/// An artifact, and what was loaded of it.
pub struct Opened {
    artifact: Artifact,
    context: Option<Arc<CudaContext>>,
    /// By types, instance and variant.
    loaded: HashMap<(Vec<Dtype>, usize, Option<usize>), Arc<Loaded>>,
}

/// A call whose kernels are loaded.
pub struct Prepared {
    loaded: Arc<Loaded>,
    context: Arc<CudaContext>,
    inputs: Vec<RawTensor>,
    outputs: Vec<RawTensor>,
    scalars: Vec<Scalar>,
    workspace: Workspace,
    stream: Arc<CudaStream>,
}

/// What a description says, checked against the operator.
struct Resolved {
    inputs: Vec<RawTensor>,
    outputs: Vec<RawTensor>,
    views: Vec<View>,
    types: Vec<Dtype>,
    sizes: Sizes,
    instance: usize,
}

fn told(error: Error) -> String {
    error.to_string()
}

impl Opened {
    /// Reads an artifact.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn open(path: &str) -> Result<Opened, String> {
        Ok(Opened {
            artifact: Artifact::open(path).map_err(told)?,
            context: None,
            loaded: HashMap::new(),
        })
    }

    /// The primary context of device 0.
    fn context(&mut self) -> Result<Arc<CudaContext>, String> {
        if let Some(context) = &self.context {
            return Ok(context.clone());
        }
        let context = drawloom::context(0).map_err(told)?;
        // SAFETY: all memory of a call is used on the one stream that it is launched on, so no stream waits for another.
        unsafe { context.disable_event_tracking() };
        self.context = Some(context.clone());
        Ok(context)
    }

    fn resolve(&self, call: &Description, context: &CudaContext) -> Result<Resolved, String> {
        let operator = self.artifact.operator();
        let mut tensors = Vec::new();
        for index in 0..operator.tensors() {
            let name = operator.tensor(index).name;
            let given = call
                .tensors
                .get(name)
                .ok_or_else(|| format!("tensor `{name}` is missing"))?;
            // SAFETY: `drawloom_prepare` passes the promise on; nothing else launches.
            let raw = unsafe { RawTensor::new(given.dtype, given.address, given.len, &given.shape, &given.strides) };
            tensors.push(raw.map_err(|error| format!("`{name}`: {error}"))?);
        }
        let known = |name: &String| operator.find_tensor(name).is_some();
        if let Some(unknown) = call.tensors.keys().find(|name| !known(name)) {
            return Err(format!("`{}` has no tensor `{unknown}`", operator.spec().name));
        }
        let views: Vec<View> = tensors.iter().map(Input::view).collect();
        let types = operator.infer_types(|index| views[index].dtype).map_err(told)?;
        let wanted = Wanted::Device {
            context: context.cu_ctx() as usize,
            ordinal: context.ordinal(),
        };
        let sizes = check(operator, &types, wanted, &views).map_err(told)?;
        let (instance, _) = instance(operator, self.artifact.manifest(), &types, &sizes).map_err(told)?;
        let outputs = tensors.split_off(operator.spec().inputs.len());
        Ok(Resolved {
            inputs: tensors,
            outputs,
            views,
            types,
            sizes,
            instance,
        })
    }

    /// The variants of the call's instance.
    ///
    /// # Errors
    /// What is wrong with the call.
    pub fn variants(&mut self, call: &Description) -> Result<Vec<Listed>, String> {
        let context = self.context()?;
        let device = Device::of(&context).map_err(told)?;
        let call = self.resolve(call, &context)?;
        let (operator, manifest) = (self.artifact.operator(), self.artifact.manifest());
        let variants = &manifest.instances[call.instance].variants;
        let env = Env {
            axes: &operator.spec().axes,
            sizes: &call.sizes,
            splits: 1,
            device: &device,
        };
        let offered = offered(operator, &call.views);
        let chosen = choose(manifest, variants, env, offered, u64::MAX)
            .ok()
            .map(|choice| choice.index);
        let listed = variants.iter().enumerate().map(|(index, variant)| {
            let choice = choose(manifest, std::slice::from_ref(variant), env, offered, u64::MAX);
            let found = choice.as_ref().ok();
            Listed {
                index,
                name: variant.name.clone(),
                target: variant.target.clone(),
                kernels: variant.launches.len(),
                predicted_ms: found.map(|choice| choice.time as f64 / 1e6),
                splits: found.map_or(1, |choice| choice.splits),
                workspace: found.map_or(0, |choice| choice.workspace),
                refused: choice.err().map(told),
                chosen: chosen == Some(index),
            }
        });
        Ok(listed.collect())
    }

    /// Loads the kernels of a call.
    ///
    /// # Errors
    /// What is wrong with the call, or what the driver says.
    pub fn prepare(&mut self, call: &Description) -> Result<Prepared, String> {
        let context = self.context()?;
        let resolved = self.resolve(call, &context)?;
        let artifact = self.artifact.clone();
        let spec = artifact.operator().spec();
        let mut scalars = Vec::new();
        for scalar in &spec.scalars {
            let missing = || format!("scalar `{}` is missing", scalar.name);
            let value = *call.scalars.get(&scalar.name).ok_or_else(missing)?;
            scalars.push(match scalar.ty {
                Dtype::I32 => Scalar::I32(value as i32),
                Dtype::F16 | Dtype::Bf16 | Dtype::F32 => Scalar::F32(value as f32),
            });
        }
        let variant = self.number(resolved.instance, call.variant.as_ref())?;
        let loaded = self.load(&context, &resolved, variant)?;
        let limits: Vec<(&str, usize)> = (spec.axes.iter().zip(resolved.sizes))
            .map(|(axis, size)| (axis.name.as_str(), size as usize))
            .collect();
        let stream = context.default_stream();
        let workspace = loaded.workspace(&stream, &limits).map_err(told)?;
        // The stream's allocation must be there before another stream uses it.
        stream
            .synchronize()
            .map_err(|error| format!("waiting for memory: {error:?}"))?;
        Ok(Prepared {
            loaded,
            context,
            inputs: resolved.inputs,
            outputs: resolved.outputs,
            scalars,
            workspace,
            stream,
        })
    }

    /// The number of a variant; `None` for the selector's.
    fn number(&self, instance: usize, which: Option<&Which>) -> Result<Option<usize>, String> {
        let variants = &self.artifact.manifest().instances[instance].variants;
        let found = match which {
            None => return Ok(None),
            Some(Which::Number(number)) if *number < 0 => return Ok(None),
            Some(Which::Number(number)) => usize::try_from(*number).ok().filter(|number| *number < variants.len()),
            Some(Which::Name(name)) => variants.iter().position(|variant| variant.name == *name),
        };
        let none = || format!("the instance has {} variants, and not that one", variants.len());
        found.map(Some).ok_or_else(none)
    }

    fn load(
        &mut self,
        context: &Arc<CudaContext>,
        call: &Resolved,
        variant: Option<usize>,
    ) -> Result<Arc<Loaded>, String> {
        let key = (call.types.clone(), call.instance, variant);
        if let Some(loaded) = self.loaded.get(&key) {
            return Ok(loaded.clone());
        }
        let part = self
            .artifact
            .retain(|instance, n| instance == call.instance && variant.is_none_or(|variant| variant == n));
        // SAFETY: the artifact is the compiler's, which whoever runs a benchmark made.
        let loaded = Arc::new(unsafe { part.load(context, &call.types) }.map_err(told)?);
        self.loaded.insert(key, loaded.clone());
        Ok(loaded)
    }
}

impl Prepared {
    /// Launches on a stream.
    ///
    /// # Safety
    /// `stream` is a live stream of the context, or null; the call's memory is as `drawloom_prepare` says.
    ///
    /// # Errors
    /// What the launcher says.
    pub unsafe fn launch(&mut self, stream: *mut c_void) -> Result<(), String> {
        let stream: CUstream = stream.cast();
        if self.stream.cu_stream() != stream {
            // SAFETY: the caller promises that it lives as long as it is launched on.
            self.stream = unsafe { self.context.wrap_borrowed_stream(stream) };
        }
        let inputs: Vec<&dyn Input> = self.inputs.iter().map(|input| input as &dyn Input).collect();
        let outputs = self.outputs.iter_mut().map(|output| output as &mut dyn Output);
        let arguments = Arguments::positional(self.loaded.operator(), &inputs, &self.scalars, outputs).map_err(told)?;
        // SAFETY: memory stays as the caller promises, this object and the stream with it, and events are off.
        unsafe {
            self.loaded
                .launch_captured(&self.stream, arguments, &mut self.workspace)
        }
        .map_err(told)
    }
}
