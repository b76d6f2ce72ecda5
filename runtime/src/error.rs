//! What can go wrong at run time: each error names the argument and axis, what was expected and what was given.

use drawloom_lang::artifact::ArtifactError;
use drawloom_lang::spec::Dtype;

/// An error of the runtime. Nothing was launched and nothing was written when one is returned, except for a driver error
/// in the middle of a program of several kernels, which says so.
#[derive(thiserror::Error, Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum Error {
    /// No CUDA driver on this machine. The CPU form works all the same, by name.
    #[error("no CUDA driver was found on this machine; the CPU form runs without one (`cpu`)")]
    NoDriver,
    /// The driver refused.
    #[error("{doing}: the CUDA driver says {code} ({message})")]
    Driver {
        /// What was tried.
        doing: &'static str,
        /// `CUresult`.
        code: u32,
        /// The driver's words.
        message: String,
    },
    /// The driver could not compile or load a module.
    #[error("loading a module for {target} failed: {reason}; the driver's log:\n{log}")]
    Load {
        /// Instruction set of the module.
        target: String,
        /// The driver's words.
        reason: String,
        /// The log of its compiler, perhaps empty.
        log: String,
    },
    /// No module runs on this device.
    #[error("`{name}` has no code for {device} (compute capability {capability}); it has code for {targets}")]
    NoCode {
        /// Operator.
        name: String,
        /// Device.
        device: String,
        /// `8.6`.
        capability: String,
        /// What there is.
        targets: String,
    },
    /// The operator was not compiled.
    #[error("`{name}` has no compiled kernels: run `{command}`")]
    NotPrepared {
        /// Operator.
        name: &'static str,
        /// What makes them.
        command: &'static str,
    },
    /// The artifact is refused.
    #[error("the artifact is refused: {0}")]
    Artifact(#[from] ArtifactError),
    /// A file cannot be read.
    #[error("`{path}` cannot be read: {reason}")]
    File {
        /// Which.
        path: String,
        /// The system's words.
        reason: String,
    },
    /// The operator is beyond a fixed limit of the launcher.
    #[error("`{name}` has {given} {what}, but at most {limit} are supported")]
    Limit {
        /// Operator.
        name: String,
        /// What there are too many of.
        what: &'static str,
        /// How many.
        given: usize,
        /// How many may be.
        limit: usize,
    },
    /// An argument is missing.
    #[error("argument `{argument}` is missing")]
    MissingArgument {
        /// Its name.
        argument: String,
    },
    /// There is no such argument.
    #[error("there is no {kind} `{argument}`; there are {known}")]
    UnknownArgument {
        /// `input`, `scalar` or `output`.
        kind: &'static str,
        /// The name given.
        argument: String,
        /// The names there are.
        known: String,
    },
    /// An argument was given twice.
    #[error("argument `{argument}` was given twice")]
    DuplicateArgument {
        /// Its name.
        argument: String,
    },
    /// The wrong number of axes.
    #[error("argument `{argument}` must have {expected} axes, but has {given}")]
    Rank {
        /// Argument.
        argument: String,
        /// Axes of the spec.
        expected: usize,
        /// Axes given.
        given: usize,
    },
    /// The wrong element type.
    #[error("argument `{argument}` must hold {expected}, but holds {given}")]
    Dtype {
        /// Argument.
        argument: String,
        /// What may be.
        expected: String,
        /// What is.
        given: Dtype,
    },
    /// No instance was compiled for these types.
    #[error("`{name}` was not compiled for types ({given}); it was for {compiled}")]
    TypesNotCompiled {
        /// Operator.
        name: String,
        /// Given.
        given: String,
        /// Compiled.
        compiled: String,
    },
    /// Two arguments disagree about an axis.
    #[error("axis `{axis}` of `{argument}` is {given}, but {expected} in `{other}`")]
    Shape {
        /// Argument.
        argument: String,
        /// Axis.
        axis: String,
        /// Size given.
        given: usize,
        /// Size in the other.
        expected: usize,
        /// The argument that came first.
        other: String,
    },
    /// A size that was not compiled.
    #[error("axis `{axis}` is {given}, but was compiled for {compiled}")]
    SizeNotCompiled {
        /// Axis.
        axis: String,
        /// Given.
        given: usize,
        /// Compiled sizes.
        compiled: String,
    },
    /// A group ratio that the spec does not have.
    #[error("axis `{of}` is {of_size} and `{axis}` is {size}, but their ratio must be one of {ratios}")]
    Ratio {
        /// The grouped axis.
        axis: String,
        /// Its size.
        size: usize,
        /// The finer axis.
        of: String,
        /// Its size.
        of_size: usize,
        /// Allowed.
        ratios: String,
    },
    /// A size beyond what kernels can index.
    #[error("axis `{axis}` is {given}, but at most {limit} is supported")]
    TooLarge {
        /// Axis.
        axis: String,
        /// Size given.
        given: usize,
        /// Largest.
        limit: usize,
    },
    /// The last axis is not contiguous.
    #[error("the last axis `{axis}` of `{argument}` must have stride 1, but has stride {given}")]
    LastStride {
        /// Argument.
        argument: String,
        /// Axis.
        axis: String,
        /// Stride given, in elements.
        given: usize,
    },
    /// An address that is no element's.
    #[error("the address {address:#x} of `{argument}` is not a multiple of {align} bytes, its element's size")]
    Misaligned {
        /// Argument.
        argument: String,
        /// Address given.
        address: u64,
        /// Bytes of an element.
        align: u64,
    },
    /// A view reaches beyond its memory.
    #[error("argument `{argument}` reaches {needed} elements, but its memory has {given}")]
    OutOfBounds {
        /// Argument.
        argument: String,
        /// Elements reached.
        needed: String,
        /// Elements there are.
        given: usize,
    },
    /// Host memory where device memory is needed, or the reverse.
    #[error("argument `{argument}` must be in {expected} memory, but is in {given} memory")]
    Place {
        /// Argument.
        argument: String,
        /// Expected.
        expected: &'static str,
        /// Given.
        given: &'static str,
    },
    /// Memory or a stream of another context.
    #[error(
        "`{argument}` belongs to the context of device {given}, but the kernels are loaded in that of device {expected}"
    )]
    Context {
        /// Argument, or `stream`, or `workspace`.
        argument: String,
        /// Ordinal of the kernels' device.
        expected: usize,
        /// Ordinal of the argument's device; the same if it is another context of one device.
        given: usize,
    },
    /// An output shares memory with another argument.
    #[error("output `{output}` overlaps `{other}` in memory")]
    Overlap {
        /// Output.
        output: String,
        /// The other argument.
        other: String,
    },
    /// Two elements of an output share memory.
    #[error("elements of output `{output}` overlap: axis `{axis}` has stride {given}, but needs at least {expected}")]
    SelfOverlap {
        /// Output.
        output: String,
        /// Axis.
        axis: String,
        /// Stride given.
        given: usize,
        /// Smallest that would do.
        expected: usize,
    },
    /// No variant can run.
    #[error("no variant of `{name}` can run here: {reasons}")]
    NoVariant {
        /// Operator.
        name: String,
        /// One reason for each variant.
        reasons: String,
    },
    /// The workspace was made for smaller arguments.
    #[error("axis `{axis}` is {given}, but the workspace was made for at most {limit}")]
    BeyondWorkspace {
        /// Axis.
        axis: String,
        /// Size given.
        given: usize,
        /// The workspace's.
        limit: usize,
    },
    /// The workspace is too small.
    #[error("the workspace has {given} bytes, but {needed} are needed")]
    WorkspaceTooSmall {
        /// Bytes needed.
        needed: u64,
        /// Bytes there are.
        given: u64,
    },
    /// A formula of the manifest has no value, or one that cannot be launched.
    #[error("{what} of kernel `{kernel}` is {given}, but must be {expected}")]
    Launch {
        /// Kernel.
        kernel: String,
        /// What.
        what: &'static str,
        /// Given.
        given: String,
        /// Expected.
        expected: String,
    },
    /// The stream is being captured into a graph.
    #[error("the stream is being captured; capture needs the unsafe launch, whose contract says what must stay alive")]
    Capturing,
}

impl Error {
    /// A driver error with what was tried.
    pub(crate) fn driver(doing: &'static str) -> impl FnOnce(cudarc::driver::DriverError) -> Error {
        move |error| Error::Driver {
            doing,
            code: error.0 as u32,
            message: message(error),
        }
    }
}

/// The driver's words for an error. The driver is present: it gave the error.
pub(crate) fn message(error: cudarc::driver::DriverError) -> String {
    error
        .error_string()
        .map_or_else(|_| format!("{:?}", error.0), |text| text.to_string_lossy().into_owned())
}

/// `a, b or c` for lists in messages.
pub(crate) fn list<T: std::fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    match items.as_slice() {
        [] => "none".to_owned(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}
