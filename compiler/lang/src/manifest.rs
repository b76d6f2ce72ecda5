//! What an artifact says about itself: the launch programs, the selector, the costs. Pure data; JSON on disk.
//!
//! An artifact is two files, `<name>-<key>.json` (this manifest, readable) and `<name>-<key>.bin` (the payload: each
//! module's PTX or cubin, deflate-compressed, one after the other). The key is the spec's; see [`crate::canonical()`].

use crate::spec::{Binding, Dtype};
use serde::{Deserialize, Serialize};
use std::ops::{Add, Mul, Sub};

/// The artifact ABI: raised when the meaning of anything here or of a kernel's parameters changes.
///
/// A new word (an [`Arg`], a [`DeviceFact`]) does not raise it: artifacts without the word mean what they meant, and a
/// reader that does not know it refuses the whole manifest by that word's name, so that nothing is ever misread. Raising
/// it would refuse every older artifact, whose meaning has not changed.
pub const ABI: u32 = 1;

/// A manifest.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// [`ABI`] when it was written.
    pub abi: u32,
    /// The spec's name.
    pub name: String,
    /// The spec in canonical form, version 1: the text that the key hashes, and all that the CPU form needs.
    pub spec: String,
    /// The artifact's key, 64 hex digits.
    pub key: String,
    /// Tools and options that made it; not part of the key.
    pub provenance: Provenance,
    /// SHA-256 of this manifest's text without these 64 digits and without carriage returns, which some checkouts add.
    pub manifest_sha256: String,
    /// SHA-256 of the payload file, 64 hex digits.
    pub payload_sha256: String,
    /// Compiled code, in payload order.
    pub modules: Vec<Module>,
    /// One per compiled binding.
    pub instances: Vec<Instance>,
}

/// What made an artifact.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Provenance {
    /// Drawloom's version.
    pub compiler: String,
    /// LLVM's version.
    pub llvm: String,
    /// The assembler that checked the kernels, and made the cubins where there are any: its version.
    pub ptxas: Option<String>,
}

/// One compiled module.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Module {
    /// Instruction set: `sm_80`, `sm_90a`.
    pub target: String,
    /// `ptx` or `cubin`.
    pub form: String,
    /// Byte range of the compressed code in the payload.
    pub offset: u64,
    /// Compressed length.
    pub length: u64,
    /// Length of the code.
    pub code_length: u64,
    /// SHA-256 of the code, 64 hex digits.
    pub sha256: String,
    /// Of a cubin: the module that it was assembled from, by number. Launches name that one; a launcher on a device of just
    /// this instruction set may take the cubin instead, and one that does not know this field never does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<usize>,
}

/// The kernels for one choice of types and sizes.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Instance {
    /// The choice.
    pub binding: Binding,
    /// The portfolio: the selector takes the feasible variant with the smallest predicted time.
    pub variants: Vec<Variant>,
}

/// One way to run an instance: a program of kernels.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Variant {
    /// Name for people: the schedule in one line.
    pub name: String,
    /// Instruction set.
    pub target: String,
    /// What the arguments and the device must offer.
    pub requires: Requires,
    /// How many ways the keys are split, or `1`; bound as [`Formula::Splits`] in the other formulas. The runtime clamps
    /// it to `1..=4096`.
    pub splits: Formula,
    /// Buffers that the kernels hand to each other; sizes in bytes.
    pub workspace: Vec<Formula>,
    /// Kernels in order.
    pub launches: Vec<Launch>,
    /// Predicted time in nanoseconds on the device given by [`Formula::Device`] numbers.
    pub time: Formula,
    /// Static facts for people and tests.
    pub report: Report,
}

/// Conditions of a variant.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Requires {
    /// Alignment in bytes of the base address, and of all strides but the last, of every tensor whose last axis has a
    /// compiled size (feature rows: queries, keys, values, results). Other tensors are read by element.
    pub align: u32,
    /// Dynamic shared memory per CTA in bytes that the device must allow.
    pub shared: u32,
    /// A condition on sizes: feasible where it is not 0.
    pub when: Formula,
}

/// One kernel launch: a one-dimensional grid.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Launch {
    /// Index in [`Manifest::modules`].
    pub module: usize,
    /// Symbol.
    pub kernel: String,
    /// CTAs. Zero: nothing is launched.
    pub grid: Formula,
    /// Threads per CTA.
    pub threads: u32,
    /// Dynamic shared memory per CTA in bytes.
    pub shared: u32,
    /// Parameters in order.
    pub args: Vec<Arg>,
}

/// A kernel parameter.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arg {
    /// Address of an input or output tensor's first element (64 bits).
    Pointer(String),
    /// Stride of a tensor on its n-th axis, in elements (`i64`).
    Stride(String, usize),
    /// Address of the n-th workspace buffer (64 bits).
    Workspace(usize),
    /// An `i32` computed from sizes.
    Size(Formula),
    /// An `i64` computed from sizes (the strides of workspace tensors).
    Long(Formula),
    /// A scalar of the spec (`f32` or `i32`).
    Scalar(String),
    /// A tensor map (`CUtensorMap`, 128 bytes) that the launcher encodes from the caller's address, shape and strides. Its
    /// dimensions are the tensor's axes from the last to the first; its box is one panel of `rows` rows and `cols`
    /// columns; reads outside the tensor give 0. The tensor must have 2 to 5 axes, no extent of 0, an address that is a
    /// multiple of 16 and, but for the last axis, strides that are multiples of 16 bytes below 2^40.
    TensorMap {
        /// An input or output.
        tensor: String,
        /// The axis along which the box has rows: any but the last, along which it has columns.
        row_axis: usize,
        /// Rows of the box: 1 to 256.
        rows: u32,
        /// Columns of the box: `panel_bytes` of them.
        cols: u32,
        /// Bytes of a row of the box in shared memory, and the width of the swizzle there: 32, 64 or 128.
        panel_bytes: u32,
    },
}

/// Integer arithmetic over run-time sizes, evaluated by the launcher in `i64`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Formula {
    /// Constant.
    Const(i64),
    /// Size of the named axis.
    Size(String),
    /// The number of splits of this variant.
    Splits,
    /// A number of the device.
    Device(DeviceFact),
    /// Sum.
    Add(Box<Formula>, Box<Formula>),
    /// Difference.
    Sub(Box<Formula>, Box<Formula>),
    /// Product.
    Mul(Box<Formula>, Box<Formula>),
    /// Quotient rounded up, divisor positive.
    CeilDiv(Box<Formula>, Box<Formula>),
    /// Smaller.
    Min(Box<Formula>, Box<Formula>),
    /// Larger.
    Max(Box<Formula>, Box<Formula>),
    /// 1 if `lhs <= rhs`, else 0.
    Le(Box<Formula>, Box<Formula>),
}

/// Numbers of a device that a selector may use.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceFact {
    /// Streaming multiprocessors.
    Sms,
    /// DRAM bandwidth in bytes per microsecond.
    BytesPerMicrosecond,
    /// SM clock in MHz.
    ClockMhz,
    /// Dense 16-bit tensor operations (multiply and add counted as two) per SM and clock through `mma.sync`.
    TensorPerClock,
    /// The same through `wgmma`; that of `mma.sync` where there is none.
    WgmmaPerClock,
}

/// Static facts of a variant.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The schedule of each kernel, one line each.
    pub schedule: Vec<String>,
    /// Registers per thread by ptxas, where it was at hand.
    pub registers: Option<u32>,
    /// Shared memory per CTA, bytes.
    pub shared: u32,
    /// Predicted issued bytes at the sizes of `at`, read plus written.
    pub issued_bytes: u64,
    /// Lower bound at these sizes: each input read once, each output written once.
    pub bound_bytes: u64,
    /// The sizes, by axis name, that the two figures are for.
    pub at: Vec<(String, u32)>,
    /// The pipe that limits it there: `tensor`, `mufu`, `issue`, `shared`, `l2`, `hbm`.
    pub limit: String,
}

/// Memory type of a tensor, resolved.
pub type Elem = Dtype;

/// What a formula asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leaf<'f> {
    /// The size of an axis.
    Size(&'f str),
    /// The number of splits.
    Splits,
    /// A number of the device.
    Device(DeviceFact),
}

/// A constant.
macro_rules! constants {
    ($($ty:ty),*) => {$(
        impl From<$ty> for Formula {
            fn from(n: $ty) -> Formula {
                Formula::Const(n.into())
            }
        }
    )*};
}

constants!(i32, u32, i64);

impl<T: Into<Formula>> Add<T> for Formula {
    type Output = Formula;

    fn add(self, other: T) -> Formula {
        Formula::Add(Box::new(self), Box::new(other.into()))
    }
}

impl<T: Into<Formula>> Sub<T> for Formula {
    type Output = Formula;

    fn sub(self, other: T) -> Formula {
        Formula::Sub(Box::new(self), Box::new(other.into()))
    }
}

/// Without multiplying by one; a product of constants is a constant.
impl<T: Into<Formula>> Mul<T> for Formula {
    type Output = Formula;

    fn mul(self, other: T) -> Formula {
        match (self, other.into()) {
            (Formula::Const(1), x) | (x, Formula::Const(1)) => x,
            (Formula::Const(x), Formula::Const(y)) if x.checked_mul(y).is_some() => Formula::Const(x * y),
            (a, b) => Formula::Mul(Box::new(a), Box::new(b)),
        }
    }
}

impl Formula {
    /// The size of an axis.
    pub fn size(axis: &str) -> Formula {
        Formula::Size(axis.to_owned())
    }

    /// The quotient, rounded up.
    #[must_use]
    pub fn ceil_div(self, by: impl Into<Formula>) -> Formula {
        Formula::CeilDiv(Box::new(self), Box::new(by.into()))
    }

    /// The smaller.
    #[must_use]
    pub fn min(self, other: impl Into<Formula>) -> Formula {
        Formula::Min(Box::new(self), Box::new(other.into()))
    }

    /// The larger.
    #[must_use]
    pub fn max(self, other: impl Into<Formula>) -> Formula {
        Formula::Max(Box::new(self), Box::new(other.into()))
    }

    /// The value; `None` where a leaf has none, arithmetic overflows, or a divisor is not positive. Allocates nothing.
    pub fn evaluate<'f>(&'f self, leaf: &dyn Fn(Leaf<'f>) -> Option<i64>) -> Option<i64> {
        let both = |a: &'f Formula, b: &'f Formula| Some((a.evaluate(leaf)?, b.evaluate(leaf)?));
        match self {
            Formula::Const(value) => Some(*value),
            Formula::Size(name) => leaf(Leaf::Size(name)),
            Formula::Splits => leaf(Leaf::Splits),
            Formula::Device(fact) => leaf(Leaf::Device(*fact)),
            Formula::Add(a, b) => both(a, b).and_then(|(a, b)| a.checked_add(b)),
            Formula::Sub(a, b) => both(a, b).and_then(|(a, b)| a.checked_sub(b)),
            Formula::Mul(a, b) => both(a, b).and_then(|(a, b)| a.checked_mul(b)),
            Formula::CeilDiv(a, b) => match both(a, b)? {
                (a, b) if b > 0 => Some(a.div_euclid(b) + i64::from(a.rem_euclid(b) != 0)),
                _ => None,
            },
            Formula::Min(a, b) => both(a, b).map(|(a, b)| a.min(b)),
            Formula::Max(a, b) => both(a, b).map(|(a, b)| a.max(b)),
            Formula::Le(a, b) => both(a, b).map(|(a, b)| i64::from(a <= b)),
        }
    }
}
