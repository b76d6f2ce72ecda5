//! The interpreter: what a launch of a tile program does, on a machine without a GPU.
//!
//! In: a [`Kernel`], a grid and arguments. Out: the written tensors and [`Counts`], or the first [`Fault`]. It stands
//! beside the verifier: that one checks what the text shows, this one what a run shows.
//!
//! # Agents
//! Every warp is an agent, and so are a warp's `cp.async` engine, its asynchronous products and its bulk stores, and the
//! bulk loads of each mbarrier. CTAs run one after another; within a CTA the warps are interleaved, and asynchronous
//! copies land, in an order drawn from [`Options::seed`]. Some seeds let copies land at once, some as late as possible.
//!
//! # Happens-before
//! Each agent has a component in a vector clock; barriers, mbarriers and waits carry clocks from agent to agent. Two
//! accesses of shared memory, one of them a write, are a race unless the clocks order them, whatever the order in which
//! this run happened to execute them. Shared memory is watched in pieces of at most 16 bytes, and fine enough that the
//! program's own windows and copies never share one. A second clock carries which generic writes have passed a
//! `fence_proxy_async` of their writer; asynchronous readers check that one too.
//!
//! # Numbers
//! 16-bit floats are rounded to nearest even where a value gets that type; products of 16-bit operands are exact and
//! summed in f32; `exp2` and its like are computed in f32 with subnormal operands and results flushed to zero.
//!
//! # What is counted
//! See [`Counts`]. A fragment counts each of its `rows * cols` elements once per warp, whatever its layout: a `rows x 1`
//! load of a warp counts `rows` elements although four lanes hold each of them.
//!
//! # Streams
//! A [`Stream`] runs with its synchronous meaning. Copies inside it are complete at once, are shared by the role's warps
//! whatever their kind, touch no mbarrier, and need no proxy fence.

mod args;
mod clock;
mod code;
mod copy;
mod effects;
mod global;
mod machine;
mod ops;
mod shared;
mod sync;
mod value;

use std::fmt;

pub use args::{Arg, Args, Elements, Tensor};

use crate::ir::*;
use crate::text::{head, statements};

/// How a launch is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Draws the interleaving of warps and the completion of copies.
    pub seed: u64,
    /// Statements that all warps together may execute before the run is given up.
    pub max_steps: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            seed: 0,
            max_steps: 1 << 30,
        }
    }
}

impl Options {
    /// The default with this seed.
    pub fn seed(seed: u64) -> Options {
        Options {
            seed,
            ..Options::default()
        }
    }
}

/// What a launch did. Integer units as named; all warps and CTAs together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Bytes read from each parameter (0 for scalars): elements that were requested and exist. A copy counts the rows
    /// inside its limit, an elementwise load the elements whose guard holds.
    pub read: Vec<u64>,
    /// Bytes written to each parameter, likewise.
    pub written: Vec<u64>,
    /// Floating-point operations of matrix products: `2 * rows * cols * k` each.
    pub mma_flops: u64,
    /// Elements of `exp2`.
    pub exps: u64,
    /// Executions of `barrier` and `barrier_arrive`, one per warp.
    pub barriers: u64,
    /// Arrivals at and waits for mbarriers, one per warp.
    pub mbarriers: u64,
    /// Bytes read from shared memory: by loads, by stores of tiles, and by products (every warp its own operands).
    pub shared_read: u64,
    /// Bytes written to shared memory, by stores and by copies (zero-filled rows too).
    pub shared_written: u64,
    /// Statements executed.
    pub steps: u64,
}

impl Counts {
    /// Bytes read from all tensors.
    pub fn total_read(&self) -> u64 {
        self.read.iter().sum()
    }
    /// Bytes written to all tensors.
    pub fn total_written(&self) -> u64 {
        self.written.iter().sum()
    }
}

/// Kinds of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// The verifier rejects the kernel.
    Invalid,
    /// The arguments do not fit the parameters.
    Arguments,
    /// Two accesses of shared memory that nothing orders.
    Race,
    /// The asynchronous proxy reads a generic write that was not fenced.
    ProxyFence,
    /// A fragment in flight is used, or its registers without a fence, or its group is not complete.
    InFlight,
    /// Wrong use of a hardware barrier.
    Barrier,
    /// Wrong use of an mbarrier.
    Mbarrier,
    /// No agent can go on.
    Deadlock,
    /// An address outside a tensor, buffer or barrier array.
    Bounds,
    /// An address that is no multiple of the access.
    Alignment,
    /// An element of global memory is written twice in a launch.
    DoubleWrite,
    /// Shared memory is read that nothing was written to.
    Uninitialised,
    /// An `assert` does not hold.
    Assert,
    /// Division by a number that is not positive, or a conversion that does not fit.
    Arithmetic,
    /// The warps of a warpgroup do not issue the same asynchronous products on the same shared memory.
    Warpgroup,
    /// A warp ends while its asynchronous work goes on.
    Unfinished,
    /// The run takes more steps than [`Options::max_steps`].
    Steps,
}

/// Why a launch was stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Kind.
    pub kind: FaultKind,
    /// Number of the statement (see [`crate::text`]), if one is to blame.
    pub stmt: Option<u32>,
    /// The CTA.
    pub cta: u32,
    /// The agent: a warp, or one of its engines.
    pub agent: String,
    /// What happened.
    pub message: String,
    /// The statement at the other end: of a race, of a second write.
    pub other: Option<u32>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: cta {}, {}: {}", self.kind, self.cta, self.agent, self.message)
    }
}

impl std::error::Error for Fault {}

impl Fault {
    /// The fault with the text of its statements.
    pub fn render(&self, kernel: &Kernel) -> String {
        let all = statements(kernel);
        let text = |n: Option<u32>| n.and_then(|n| all.get(n as usize)).map(|s| head(kernel, s));
        let mut out = format!("{self}");
        if let Some(text) = text(self.stmt) {
            out += &format!("\n  at: {text}");
        }
        if let Some(text) = text(self.other) {
            out += &format!("\n  and: {text}");
        }
        out
    }
}

/// A fault before it is known where it happened.
#[derive(Debug)]
struct Trouble {
    kind: FaultKind,
    message: String,
    other: Option<u32>,
    /// The statement to blame, if it is not the one being executed.
    at: Option<u32>,
}

/// Most functions here give this.
type Outcome<T> = Result<T, Box<Trouble>>;

fn trouble<T>(kind: FaultKind, message: impl Into<String>) -> Outcome<T> {
    Err(Box::new(Trouble {
        kind,
        message: message.into(),
        other: None,
        at: None,
    }))
}

/// Runs a launch of `grid` CTAs. Output tensors in `args` are written in place.
///
/// # Errors
/// The first [`Fault`]; outputs then hold what had been written.
pub fn run(kernel: &Kernel, grid: u32, args: &mut Args, options: &Options) -> Result<Counts, Fault> {
    let early = |kind, stmt, message| Fault {
        kind,
        stmt,
        cta: 0,
        agent: "launch".to_string(),
        message,
        other: None,
    };
    if let Some(e) = crate::verify::verify(kernel).into_iter().next() {
        return Err(early(FaultKind::Invalid, e.stmt, e.to_string()));
    }
    let mut launch = match global::Launch::new(kernel, args, options) {
        Ok(launch) => launch,
        Err(t) => return Err(early(t.kind, None, t.message)),
    };
    let code = code::flatten(kernel);
    let granules = shared::granules(kernel);
    for cta in 0..grid {
        machine::run_cta(kernel, &code, &granules, &mut launch, options, cta)?;
    }
    Ok(launch.counts)
}
