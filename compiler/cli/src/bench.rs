//! `drawloom bench`: times on the GPU of this machine, through the runtime's launcher.
//!
//! The driver is loaded when it is asked for, so that the command builds and starts on machines without one, where it
//! ends with the exit code for that.

use crate::exit::Exit;
use crate::input::{Choice, specs};
use crate::report::{Done, Failure, Out};
use drawloom::cudarc::driver::sys::CUevent_flags::CU_EVENT_DEFAULT;
use drawloom::cudarc::driver::{CudaContext, CudaSlice, CudaStream, DevicePtr, DriverError};
use drawloom::half::{bf16, f16};
use drawloom::planning::{Env, Offered, choose};
use drawloom::{Arguments, Artifact, Input, Loaded, MAX_AXES, Output, RawTensor, Scalar, Workspace};
use drawloom_compiler::compile::{Options, compile};
use drawloom_lang::manifest::Variant;
use drawloom_lang::spec::{AxisId, Binding, Dtype, ElemType, Spec};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// Arguments of `drawloom bench`.
#[derive(clap::Args)]
#[command(after_help = "\
Times are medians by CUDA events; the L2 cache is flushed before each launch, and the first round is not counted. \
Without a GPU it ends with exit code 5; `drawloom explain` predicts times anywhere.

Examples:
  drawloom bench specs/causal.attn --type bf16 --size d=128,h=16,i=8192,j=8192
  drawloom bench specs/streaming.attn --size d=64 --all --format json")]
pub struct Args {
    /// Spec file.
    path: PathBuf,
    #[command(flatten)]
    choice: Choice,
    /// Time every variant that can run, not only the one that the selector takes.
    #[arg(long)]
    all: bool,
    /// Times that every variant is visited.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Launches in a visit.
    #[arg(long, default_value_t = 10)]
    launches: usize,
    /// Number of the GPU.
    #[arg(long, default_value_t = 0)]
    gpu: usize,
}

#[derive(Serialize)]
struct Timed {
    spec: String,
    device: String,
    #[serde(rename = "type")]
    dtype: Option<Dtype>,
    sizes: BTreeMap<String, u32>,
    variants: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    /// Instruction set.
    target: String,
    /// Its schedule, in one line.
    schedule: String,
    /// Whether it is the one that the selector takes.
    chosen: bool,
    /// Median in milliseconds.
    ms: f64,
    /// Half the distance between the quartiles over the median.
    spread: f64,
    /// What the selector's formula says, in milliseconds.
    predicted_ms: f64,
}

/// Bytes that are written before each launch: more than any L2 cache.
const FLUSH: usize = 256 << 20;

/// Runs the command.
pub fn bench(args: &Args, out: &Out) -> Result<Done, Failure> {
    let context = drawloom::context(args.gpu).map_err(|error| {
        Failure::new(
            Exit::Absent,
            format!(
                "no GPU to time on: {error}\n`drawloom explain` predicts times without one; `drawloom doctor` says what \
                 this machine has"
            ),
        )
    })?;
    let mut all = Vec::new();
    for spec in specs(std::slice::from_ref(&args.path))? {
        let timed = bench_spec(args, &spec, &context)?;
        out.line(format!("{} on {}: {:?}", timed.spec, timed.device, timed.sizes));
        for row in &timed.variants {
            out.line(format!(
                "  {:9.4} ms ± {:4.1} %  predicted {:9.4} ms  {} {}{}",
                row.ms,
                100.0 * row.spread,
                row.predicted_ms,
                row.target,
                row.schedule,
                if row.chosen { "  chosen" } else { "" }
            ));
        }
        all.push(timed);
    }
    Done::with(all)
}

fn bench_spec(args: &Args, spec: &Spec, context: &Arc<CudaContext>) -> Result<Timed, Failure> {
    let binding = args.choice.bindings(spec)?.swap_remove(0);
    let sizes = args.choice.sizes(spec, &binding);
    let options = Options {
        targets: args.choice.target.clone(),
        bindings: Some(vec![binding.clone()]),
        ..Options::default()
    };
    let compiled = compile(spec, &options)?;
    let artifact = Artifact::from_bytes(&compiled.manifest, &compiled.payload).map_err(told)?;
    let stream = context.new_stream().map_err(driver)?;
    let mut call = Call::new(spec, &binding, &sizes, &stream)?;
    let device = drawloom::Device::of(context).map_err(told)?;
    let variants = artifact.manifest().instances.first().map_or(0, |i| i.variants.len());
    let selected = select(&artifact, &device, &call)?;
    let mut timers = Vec::new();
    for n in 0..variants {
        if !args.all && n != selected.0 {
            continue;
        }
        let part = artifact.retain(|_, variant| variant == n);
        // What cannot run here (another architecture, too little shared memory) has no time.
        let Ok((_, variant, predicted)) = select(&part, &device, &call) else {
            continue;
        };
        // SAFETY: the artifact was made by this process.
        let loaded = unsafe { part.load(context, &binding.types) }.map_err(told)?;
        let workspace = loaded.workspace(&stream, &call.limits()).map_err(told)?;
        timers.push(Timer {
            chosen: n == selected.0,
            variant,
            predicted,
            loaded,
            workspace,
            times: Vec::new(),
        });
    }
    for round in 0..=args.rounds {
        for timer in &mut timers {
            let times = call.visit(timer, &stream, args.launches)?;
            if round > 0 {
                timer.times.extend(times);
            }
        }
    }
    Ok(Timed {
        spec: spec.name.clone(),
        device: device.name,
        dtype: binding.types.first().copied(),
        sizes,
        variants: timers.into_iter().map(Timer::row).collect::<Result<_, _>>()?,
    })
}

fn told(error: drawloom::Error) -> Failure {
    Failure::given(error.to_string())
}

fn driver(error: DriverError) -> Failure {
    Failure::given(format!("the driver: {error:?}"))
}

/// The variant that the selector takes: its number, itself, and its predicted time in milliseconds.
fn select(artifact: &Artifact, device: &drawloom::Device, call: &Call) -> Result<(usize, Variant, f64), Failure> {
    let manifest = artifact.manifest();
    let variants = manifest.instances.first().map_or(&[][..], |i| &i.variants);
    let env = Env {
        axes: &artifact.operator().spec().axes,
        sizes: &call.by_axis,
        splits: 1,
        device,
    };
    let choice = choose(manifest, variants, env, Offered::any(16), u64::MAX).map_err(told)?;
    Ok((choice.index, choice.variant.clone(), choice.time as f64 / 1e6))
}

/// A variant that is timed.
struct Timer {
    chosen: bool,
    variant: Variant,
    predicted: f64,
    loaded: Loaded,
    workspace: Workspace,
    /// Milliseconds of each launch.
    times: Vec<f64>,
}

impl Timer {
    fn row(mut self) -> Result<Row, Failure> {
        self.times.sort_by(f64::total_cmp);
        let at = |part: usize| self.times.get(self.times.len() * part / 4).copied();
        let (Some(low), Some(ms), Some(high)) = (at(1), at(2), at(3)) else {
            return Err(Failure::given(
                "no launch was timed: give at least one round and one launch",
            ));
        };
        Ok(Row {
            target: self.variant.target,
            schedule: self.variant.name,
            chosen: self.chosen,
            ms,
            spread: (high - low) / 2.0 / ms,
            predicted_ms: self.predicted,
        })
    }
}

/// A call's memory on the device.
struct Call<'s> {
    spec: &'s Spec,
    by_axis: [i64; MAX_AXES],
    /// Inputs, then outputs, with their memory, which lives as long as they are launched on.
    tensors: Vec<(RawTensor, CudaSlice<u8>)>,
    scalars: Vec<Scalar>,
    flush: CudaSlice<u8>,
}

impl<'s> Call<'s> {
    fn new(
        spec: &'s Spec,
        binding: &Binding,
        sizes: &BTreeMap<String, u32>,
        stream: &Arc<CudaStream>,
    ) -> Result<Call<'s>, Failure> {
        let mut by_axis = [0; MAX_AXES];
        for (slot, axis) in by_axis.iter_mut().zip(&spec.axes) {
            *slot = i64::from(sizes[&axis.name]);
        }
        let dtype = |ty: ElemType| match ty {
            ElemType::Fixed(dtype) => dtype,
            ElemType::Set(set) => binding.types[set.index()],
        };
        let shape = |axes: &[AxisId]| -> Vec<usize> { axes.iter().map(|a| by_axis[a.index()] as usize).collect() };
        let inputs = spec.inputs.iter().map(|input| (dtype(input.ty), shape(&input.axes)));
        let outputs = spec
            .outputs
            .iter()
            .map(|output| (dtype(output.ty), shape(&output.axes)));
        let mut rng = fastrand::Rng::with_seed(1);
        let mut tensors = Vec::new();
        for (dtype, shape) in inputs.chain(outputs) {
            let count: usize = shape.iter().product();
            let bytes = random(dtype, count, shape.last().copied().unwrap_or(1), &mut rng);
            // A tensor without elements has an address all the same.
            let bytes = if bytes.is_empty() { vec![0; 16] } else { bytes };
            let memory = stream.clone_htod(&bytes).map_err(driver)?;
            let mut strides = vec![1; shape.len()];
            for axis in (1..shape.len()).rev() {
                strides[axis - 1] = strides[axis] * shape[axis];
            }
            let (address, _) = memory.device_ptr(stream);
            // SAFETY: the memory is kept beside the tensor, and used on this stream alone.
            let raw = unsafe { RawTensor::new(dtype, address, count, &shape, &strides) }.map_err(told)?;
            tensors.push((raw, memory));
        }
        let scalars = spec.scalars.iter().map(|scalar| match scalar.ty {
            Dtype::I32 => Scalar::I32(8),
            Dtype::F16 | Dtype::Bf16 | Dtype::F32 => Scalar::F32(1.0),
        });
        Ok(Call {
            spec,
            by_axis,
            tensors,
            scalars: scalars.collect(),
            flush: stream.alloc_zeros(FLUSH).map_err(driver)?,
        })
    }

    fn limits(&self) -> Vec<(&str, usize)> {
        let axes = self.spec.axes.iter().zip(self.by_axis);
        axes.map(|(axis, size)| (axis.name.as_str(), size as usize)).collect()
    }

    /// Milliseconds of each of some launches, after one that is not counted.
    fn visit(&mut self, timer: &mut Timer, stream: &Arc<CudaStream>, launches: usize) -> Result<Vec<f64>, Failure> {
        let mut events = Vec::new();
        for _ in 0..=launches {
            let (inputs, outputs) = self.tensors.split_at_mut(self.spec.inputs.len());
            let inputs: Vec<&dyn Input> = inputs.iter().map(|(raw, _)| raw as &dyn Input).collect();
            let outputs = outputs.iter_mut().map(|(raw, _)| raw as &mut dyn Output);
            let operator = timer.loaded.operator();
            let arguments = Arguments::positional(operator, &inputs, &self.scalars, outputs).map_err(told)?;
            stream.memset_zeros(&mut self.flush).map_err(driver)?;
            let start = stream.record_event(Some(CU_EVENT_DEFAULT)).map_err(driver)?;
            timer
                .loaded
                .launch(stream, arguments, &mut timer.workspace)
                .map_err(told)?;
            let end = stream.record_event(Some(CU_EVENT_DEFAULT)).map_err(driver)?;
            events.push((start, end));
        }
        stream.synchronize().map_err(driver)?;
        let counted = events.iter().skip(1);
        counted
            .map(|(start, end)| start.elapsed_ms(end).map(f64::from).map_err(driver))
            .collect()
    }
}

/// Elements with random bits where they decide the power that is drawn: near enough to normal for reals, and for tables
/// four ascending numbers along the last axis.
fn random(dtype: Dtype, count: usize, last: usize, rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut real = || rng.f32() + rng.f32() + rng.f32() - 1.5;
    match dtype {
        Dtype::F16 => (0..count).flat_map(|_| f16::from_f32(real()).to_le_bytes()).collect(),
        Dtype::Bf16 => (0..count).flat_map(|_| bf16::from_f32(real()).to_le_bytes()).collect(),
        Dtype::F32 => (0..count).flat_map(|_| real().to_le_bytes()).collect(),
        Dtype::I32 => {
            let step = last.div_ceil(4).max(1);
            let number = |n: usize| (n % last.max(1) / step) as i32;
            (0..count).flat_map(|n| number(n).to_le_bytes()).collect()
        }
    }
}
