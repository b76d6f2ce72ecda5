//! Cases on a GPU: memory with canaries in, launches, the same memory checked, outputs out.

use crate::specs;
use drawloom::cudarc::driver::sys::{self, CUstreamCaptureMode_enum as CaptureMode};
use drawloom::cudarc::driver::{CudaContext, CudaSlice, CudaStream, DevicePtr, DriverError};
use drawloom::manifest::{Instance, Manifest};
use drawloom::{Arguments, Artifact, Error, Input, Loaded, Output, RawTensor, Workspace};
use drawloom_device::memory::{Laid, Layout, POISON, scalars};
use drawloom_tests::{Case, Outputs, Tensor};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// Launches of every case that must give the same bits.
pub const REPEATS: usize = 3;

/// Replays of a captured call.
const REPLAYS: usize = 10;

/// What lies around outputs.
const AROUND: u8 = 0xa5;

/// A device, and the kernels that were needed so far.
pub struct Gpu {
    context: Arc<CudaContext>,
    streams: [Arc<CudaStream>; 2],
    manifests: HashMap<String, Manifest>,
    /// By spec, binding and variant; without a variant, all of the instance's.
    loaded: HashMap<String, Arc<Loaded>>,
}

/// Why there are no outputs.
pub enum Failure {
    /// The runtime refused.
    Runtime(Error),
    /// Something else is wrong.
    Other(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Runtime(error) => error.fmt(f),
            Failure::Other(why) => f.write_str(why),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Runtime(error)
    }
}

impl From<DriverError> for Failure {
    fn from(error: DriverError) -> Failure {
        Failure::Other(format!("{error:?}"))
    }
}

impl From<String> for Failure {
    fn from(why: String) -> Failure {
        Failure::Other(why)
    }
}

/// A tensor of a call: how it lies, and where.
struct Placed {
    laid: Laid,
    memory: CudaSlice<u8>,
}

/// A call: its memory on the device.
struct Call<'c> {
    case: &'c Case,
    inputs: Vec<Placed>,
    outputs: Vec<(Tensor, Placed)>,
    workspace: Workspace,
}

impl Gpu {
    /// The first device.
    pub fn open() -> Result<Gpu, String> {
        Gpu::with(drawloom::context(0).map_err(|e| e.to_string())?)
    }

    /// The same device without events between streams, which would break a capture: for calls on one stream.
    pub fn open_for_graphs() -> Result<Gpu, String> {
        let context = drawloom::context(0).map_err(|e| e.to_string())?;
        // SAFETY: one stream is used, and waited for before its memory is freed or read.
        unsafe { context.disable_event_tracking() };
        Gpu::with(context)
    }

    fn with(context: Arc<CudaContext>) -> Result<Gpu, String> {
        let stream = || context.new_stream().map_err(|e| format!("{e:?}"));
        let streams = [stream()?, stream()?];
        Ok(Gpu {
            context,
            streams,
            manifests: HashMap::new(),
            loaded: HashMap::new(),
        })
    }

    /// Its context.
    pub fn context(&self) -> &Arc<CudaContext> {
        &self.context
    }

    /// The driver's name for it.
    pub fn name(&self) -> Result<String, String> {
        self.context.name().map_err(|e| format!("{e:?}"))
    }

    /// The names of the variants of a case's instance.
    pub fn variants(&mut self, case: &Case) -> Result<Vec<String>, String> {
        let instance = self.instance(case)?;
        Ok(instance.variants.iter().map(|variant| variant.name.clone()).collect())
    }

    /// Runs a case so many times, through one variant or the selector, and checks everything but the outputs' values.
    pub fn run(
        &mut self,
        case: &Case,
        variant: Option<usize>,
        layout: Layout,
        repeats: usize,
    ) -> Result<Outputs, Failure> {
        let loaded = self.load(case, variant)?;
        let mut first: Option<Outputs> = None;
        for repeat in 0..repeats {
            let stream = &self.streams[0];
            let mut call = Call::new(case, &loaded, stream, layout)?;
            call.launch(&loaded, stream)?;
            let outputs = call.finish(stream)?;
            match &first {
                None => first = Some(outputs),
                Some(first) => same_bits(first, &outputs).map_err(|e| format!("run {}: {e}", repeat + 1))?,
            }
        }
        Ok(first.ok_or_else(|| "no run".to_owned())?)
    }

    /// A launch on a stream that is being captured is refused, and the capture stays whole.
    pub fn refuses_capture(&mut self, case: &Case) -> Result<(), String> {
        let told = |e: Failure| e.to_string();
        let driver = |e: DriverError| format!("{e:?}");
        let loaded = self.load(case, None).map_err(told)?;
        let stream = &self.streams[0];
        let mut call = Call::new(case, &loaded, stream, Layout::DENSE).map_err(told)?;
        // Reading addresses touches the stream, so that comes before the capture.
        let begin = || Ok(stream.begin_capture(CaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)?);
        let result = call.launch_after(&loaded, stream, begin);
        let mut graph = std::ptr::null_mut();
        // SAFETY: the capture began above; its graph, which is empty, is destroyed once and used for nothing else.
        unsafe {
            sys::cuStreamEndCapture(stream.cu_stream(), &raw mut graph)
                .result()
                .map_err(driver)?;
            sys::cuGraphDestroy(graph).result().map_err(driver)?;
        }
        match result {
            Err(Failure::Runtime(Error::Capturing)) => call.is_untouched(stream).map_err(told),
            Err(other) => Err(format!("another error: {other}")),
            Ok(()) => Err("it was launched".to_owned()),
        }
    }

    /// The same call on two streams, neither waited for before the other's launch, twice each.
    pub fn two_streams(&mut self, case: &Case) -> Result<(), String> {
        let told = |e: Failure| e.to_string();
        let loaded = self.load(case, None).map_err(told)?;
        let [left, right] = &self.streams;
        let mut calls = Vec::new();
        for stream in [left, right, left, right] {
            calls.push((stream, Call::new(case, &loaded, stream, Layout::DENSE).map_err(told)?));
        }
        for (stream, call) in &mut calls {
            call.launch(&loaded, stream).map_err(told)?;
        }
        let mut first = None;
        for (stream, call) in calls {
            let outputs = call.finish(stream).map_err(told)?;
            match &first {
                None => first = Some(outputs),
                Some(first) => same_bits(first, &outputs)?,
            }
        }
        Ok(())
    }

    /// A call captured in a graph, on a device that is open for graphs: each replay, in memory poisoned anew, gives the bits of a plain launch.
    pub fn replays(&mut self, case: &Case) -> Result<(), String> {
        let told = |e: Failure| e.to_string();
        let driver = |e: DriverError| format!("{e:?}");
        let expected = self.run(case, None, Layout::DENSE, 1).map_err(told)?;
        let loaded = self.load(case, None).map_err(told)?;
        let stream = &self.streams[0];
        let mut call = Call::new(case, &loaded, stream, Layout::DENSE).map_err(told)?;
        let begin = || Ok(stream.begin_capture(CaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)?);
        // SAFETY: the call keeps its memory, and `self` the kernels, until the graph's last replay has been waited for below;
        // nothing else uses them, and all of it is on one stream.
        let captured = unsafe { call.capture_after(&loaded, stream, begin) };
        let graph = stream.end_capture(sys::CUgraphInstantiate_flags(0)).map_err(driver)?;
        captured.map_err(told)?;
        let graph = graph.ok_or("the capture is empty")?;
        for replay in 0..REPLAYS {
            call.poison(stream).map_err(told)?;
            graph.launch().map_err(driver)?;
            let found = call.outputs(stream).map_err(told)?;
            same_bits(&expected, &found).map_err(|e| format!("replay {}: {e}", replay + 1))?;
        }
        Ok(())
    }

    /// A call without output elements succeeds and writes nothing.
    pub fn launches_nothing(&mut self, case: &Case) -> Result<(), String> {
        let told = |e: Failure| e.to_string();
        let loaded = self.load(case, None).map_err(told)?;
        let stream = &self.streams[0];
        let mut call = Call::new(case, &loaded, stream, Layout::DENSE).map_err(told)?;
        call.launch(&loaded, stream).map_err(told)?;
        call.is_untouched(stream).map_err(told)
    }

    fn instance(&mut self, case: &Case) -> Result<Instance, String> {
        let name = &case.spec.name;
        if !self.manifests.contains_key(name) {
            let (manifest, _) = embedded(name)?;
            let manifest = serde_json::from_str(manifest).map_err(|e| e.to_string())?;
            self.manifests.insert(name.clone(), manifest);
        }
        let mut instances = self.manifests[name].instances.iter();
        let instance = instances.find(|instance| instance.binding == case.binding);
        instance
            .cloned()
            .ok_or_else(|| format!("`{name}` has no such instance"))
    }

    /// The kernels of one variant of a case's instance, or of all: an artifact that has no others.
    fn load(&mut self, case: &Case, variant: Option<usize>) -> Result<Arc<Loaded>, Failure> {
        let name = &case.spec.name;
        let key = format!("{name} {:?} {variant:?}", case.binding);
        if let Some(loaded) = self.loaded.get(&key) {
            return Ok(loaded.clone());
        }
        let mut instance = self.instance(case)?;
        if let Some(n) = variant {
            instance.variants = instance.variants.get(n).cloned().into_iter().collect();
        }
        let mut manifest = self.manifests[name].clone();
        manifest.instances = vec![instance];
        let text = serde_json::to_string(&manifest).map_err(|e| e.to_string())?;
        let (_, payload) = embedded(name)?;
        let artifact = Artifact::from_bytes(&text, payload)?;
        // SAFETY: the kernels are part of this program.
        let loaded = Arc::new(unsafe { artifact.load(&self.context, &case.binding.types) }?);
        self.loaded.insert(key, loaded.clone());
        Ok(loaded)
    }
}

fn embedded(name: &str) -> Result<(&'static str, &'static [u8]), String> {
    let operator = specs::find(name).ok_or_else(|| format!("`{name}` is not embedded"))?;
    operator.artifact.ok_or_else(|| format!("run `{}`", operator.command))
}

impl Placed {
    fn new(laid: Laid, stream: &Arc<CudaStream>) -> Result<Placed, Failure> {
        let memory = stream.clone_htod(&laid.image)?;
        Ok(Placed { laid, memory })
    }

    fn raw(&self, stream: &CudaStream) -> Result<RawTensor, Error> {
        let (address, _recorded) = self.memory.device_ptr(stream);
        // SAFETY: a call keeps its memory until it has waited for the stream, and uses it for nothing else.
        unsafe { self.laid.raw(address) }
    }

    /// The elements after a launch; an error where anything else was written.
    fn elements(&self, name: &str, stream: &Arc<CudaStream>) -> Result<Vec<u8>, Failure> {
        let after = stream.clone_dtoh(&self.memory)?;
        stream.synchronize()?;
        let elements = self.laid.elements(&after).map_err(|e| format!("`{name}`: {e}"))?;
        Ok(elements)
    }

    fn untouched(&self, name: &str, stream: &Arc<CudaStream>) -> Result<(), Failure> {
        let after = stream.clone_dtoh(&self.memory)?;
        stream.synchronize()?;
        match after == self.laid.image {
            true => Ok(()),
            false => Err(Failure::Other(format!("`{name}` was written"))),
        }
    }
}

impl<'c> Call<'c> {
    /// Fills the memory of a call: inputs among poison, outputs of poison among canaries.
    fn new(case: &'c Case, loaded: &Loaded, stream: &Arc<CudaStream>, layout: Layout) -> Result<Call<'c>, Failure> {
        let inputs = case.inputs.iter();
        let inputs = inputs.map(|input| Placed::new(Laid::new(input, layout, POISON), stream));
        let inputs = inputs.collect::<Result<_, _>>()?;
        let outputs = (0..case.spec.outputs.len()).map(|n| {
            let blank = case.blank_output(n);
            let laid = Laid::new(&blank, layout, AROUND).poisoned();
            Ok((blank, Placed::new(laid, stream)?))
        });
        let outputs = outputs.collect::<Result<_, Failure>>()?;
        let axes = case.spec.axes.iter().zip(&case.sizes);
        let limits: Vec<(&str, usize)> = axes.map(|(axis, &size)| (axis.name.as_str(), size)).collect();
        let bytes = loaded.workspace(stream, &limits)?.bytes();
        if bytes > 0 {
            // A workspace's memory is its own: the stream's pool hands the poisoned bytes out again.
            drop(stream.clone_htod(&vec![POISON; bytes])?);
        }
        let workspace = loaded.workspace(stream, &limits)?;
        stream.synchronize()?;
        Ok(Call {
            case,
            inputs,
            outputs,
            workspace,
        })
    }

    fn launch(&mut self, loaded: &Loaded, stream: &Arc<CudaStream>) -> Result<(), Failure> {
        self.launch_after(loaded, stream, || Ok(()))
    }

    /// Launches, once the arguments are ready and `ready` has run.
    fn launch_after(
        &mut self,
        loaded: &Loaded,
        stream: &Arc<CudaStream>,
        ready: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.submit(loaded, stream, ready, |arguments, workspace| {
            loaded.launch(stream, arguments, workspace)
        })
    }

    /// The same on a stream that `ready` has begun to capture.
    ///
    /// # Safety
    /// As for [`Loaded::launch_captured`]: the call and the kernels outlive the graph's replays.
    unsafe fn capture_after(
        &mut self,
        loaded: &Loaded,
        stream: &Arc<CudaStream>,
        ready: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.submit(loaded, stream, ready, |arguments, workspace| {
            // SAFETY: the caller promises.
            unsafe { loaded.launch_captured(stream, arguments, workspace) }
        })
    }

    fn submit(
        &mut self,
        loaded: &Loaded,
        stream: &CudaStream,
        ready: impl FnOnce() -> Result<(), Failure>,
        launch: impl FnOnce(Arguments<'_>, &mut Workspace) -> Result<(), Error>,
    ) -> Result<(), Failure> {
        let inputs = self.inputs.iter().map(|input| input.raw(stream));
        let inputs: Vec<RawTensor> = inputs.collect::<Result<_, _>>()?;
        let outputs = self.outputs.iter().map(|(_, output)| output.raw(stream));
        let mut outputs: Vec<RawTensor> = outputs.collect::<Result<_, _>>()?;
        let given: Vec<&dyn Input> = inputs.iter().map(|input| input as &dyn Input).collect();
        let taken = outputs.iter_mut().map(|output| output as &mut dyn Output);
        let arguments = Arguments::positional(loaded.operator(), &given, &scalars(self.case), taken)?;
        ready()?;
        Ok(launch(arguments, &mut self.workspace)?)
    }

    /// Fills the outputs with poison again.
    fn poison(&mut self, stream: &Arc<CudaStream>) -> Result<(), Failure> {
        for (_, output) in &mut self.outputs {
            stream.memcpy_htod(&output.laid.image, &mut output.memory)?;
        }
        Ok(())
    }

    /// Waits, checks that nothing but outputs was written, and reads these.
    fn finish(self, stream: &Arc<CudaStream>) -> Result<Outputs, Failure> {
        self.outputs(stream)
    }

    /// The same, of a call that is launched again.
    fn outputs(&self, stream: &Arc<CudaStream>) -> Result<Outputs, Failure> {
        for (tensor, input) in self.case.inputs.iter().zip(&self.inputs) {
            input.untouched(&tensor.name, stream)?;
        }
        let mut outputs = Outputs::new();
        for (tensor, placed) in &self.outputs {
            let mut tensor = tensor.clone();
            let elements = placed.elements(&tensor.name, stream)?;
            tensor.order.sort_unstable();
            tensor.set_bytes(&elements)?;
            outputs.push(tensor);
        }
        Ok(outputs)
    }

    fn is_untouched(&self, stream: &Arc<CudaStream>) -> Result<(), Failure> {
        for (tensor, input) in self.case.inputs.iter().zip(&self.inputs) {
            input.untouched(&tensor.name, stream)?;
        }
        for (tensor, output) in &self.outputs {
            output.untouched(&tensor.name, stream)?;
        }
        Ok(())
    }
}

fn same_bits(first: &Outputs, again: &Outputs) -> Result<(), String> {
    for (first, again) in first.iter().zip(again) {
        if first.bytes() != again.bytes() {
            return Err(format!("`{}` has other bits than before", first.name));
        }
    }
    Ok(())
}
