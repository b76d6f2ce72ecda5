//! The verifier: what must hold of a tile program before it is interpreted, costed or emitted.
//!
//! In: a [`Kernel`], built by hand, by the lowering or by a pass. Out: all that is wrong with it, each with the statement.
//! It stands between every two passes. What depends on run-time values (bounds of computed addresses, races, phases) is
//! the interpreter's part.
//!
//! # What holds when it returns nothing
//! Declarations
//! - Names are identifiers, unique among their kind; the target is known.
//! - Scalar parameters are `i32`, `i64` or `f32`; tensors have at least one axis and a memory dtype; the parameter that
//!   gives an extent is an `i32` scalar.
//! - Buffers are not empty and have a memory dtype; a swizzled row is whole 16-byte chunks, one in panels whole panels, and
//!   rows in panels are a multiple of 8; an alias refers to an earlier buffer and is not larger than the storage it shares.
//! - Shared memory, warps, registers and mbarriers are within the [`Target`]; registers are a multiple of 8 in 24..=256,
//!   and a role that has a register budget or issues asynchronous products is made of whole warpgroups.
//!
//! Values
//! - Each is defined once, before its uses, in the block of the use or one around it. Values of a stage are visible in
//!   later stages and the bodies only if the stage lists them as results.
//! - A carried value and its initial and next values have one type; so have the values of a conditional.
//! - A fragment in flight is used only as an accumulator of an asynchronous product and by its wait.
//! - Types are valid: `mma` fragments have 1 or a multiple of 16 rows, and 1, 4 (quad partials) or a multiple of 8
//!   columns; uniform ones are 1 x 1; runs of lanes are 1, 2, 4 or 8; none has more than 65536 elements.
//!
//! Operations
//! - Operands broadcast to the result (each dimension equal or 1); fragments that are spread over lanes are spread in the
//!   same way as the result; dtypes are those of the operation.
//! - Products: 16-bit operands of one dtype, f32 accumulators, inner dimension a multiple of 16; only the left operand
//!   may be in registers; asynchronous ones take the right operand from shared memory and are at most as wide as the
//!   target allows. What they read of shared memory lies in panels: from a multiple of 8 rows, and of 16 columns where
//!   those are the inner dimension, of whole panels where they are not; a left operand there is 16 rows, not transposed.
//! - Windows of shared memory lie within the buffer where slot and row are constants; columns always.
//! - Addresses have an integer per axis; only `in` tensors are read, only `out` tensors are written; dtypes agree; the
//!   columns of a tile lie within a constant extent.
//! - The bytes of one access divide the tile's rows and are a width that the mechanism has.
//! - Bulk copies and stores: of a tensor of 2 to 5 axes, rows along one axis and fixed on the others, at most 256; the
//!   window is whole panels, from a multiple of 8 rows; a limit that is a constant or a parameter is the axis's extent.
//! - Barriers exist (0..16), mbarriers too; each is used by at least one and at most all warps of the CTA.
//! - What the target lacks is not used.

mod block;
mod declarations;
mod ops;

use std::fmt;

use crate::ir::*;
use crate::target::{TARGETS, Target, target};
use crate::text::{head, statements};

/// One thing that is wrong with a kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifyError {
    /// The number of the statement (see [`crate::text`]), or `None` if a declaration is wrong.
    pub stmt: Option<u32>,
    /// What is wrong.
    pub kind: VerifyErrorKind,
}

/// Kinds of error.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum VerifyErrorKind {
    /// A rule is broken: whoever built the kernel has a bug.
    Invalid(String),
    /// The kernel is well formed, but the target cannot run it.
    Limit(Limit),
}

/// A quantity beyond what the target has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limit {
    /// What is too large.
    pub what: &'static str,
    /// What the kernel asks for.
    pub given: u64,
    /// The most the target has.
    pub limit: u64,
    /// The unit of both.
    pub unit: &'static str,
    /// The target's name.
    pub target: &'static str,
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            VerifyErrorKind::Invalid(message) => f.write_str(message),
            VerifyErrorKind::Limit(l) => write!(f, "{l}"),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} {} given, at most {} on {}",
            self.what, self.given, self.unit, self.limit, self.target
        )
    }
}

impl std::error::Error for VerifyError {}

/// All errors of a kernel, in the order of the text. Empty if it is well formed.
pub fn verify(kernel: &Kernel) -> Vec<VerifyError> {
    let Some(target) = target(&kernel.target) else {
        let known = TARGETS.map(|t| t.name).join(", ");
        let message = format!("target `{}` is not known; known are {known}", kernel.target);
        return vec![VerifyError {
            stmt: None,
            kind: VerifyErrorKind::Invalid(message),
        }];
    };
    let mut c = Checker::new(kernel, target);
    declarations::check(&mut c);
    let mut first_warp = 0u32;
    for role in &kernel.roles {
        c.warpgroups = role.warps % 4 == 0 && first_warp.is_multiple_of(4);
        first_warp = first_warp.saturating_add(role.warps);
        block::check(&mut c, &role.body);
        c.leave(0);
    }
    c.errors
}

/// Errors as text, each under the statement that has it.
pub fn render(kernel: &Kernel, errors: &[VerifyError]) -> String {
    let all = statements(kernel);
    let mut out = String::new();
    for e in errors {
        let stmt = e.stmt.and_then(|n| all.get(n as usize)).map(|s| head(kernel, s));
        let place = stmt.unwrap_or_else(|| format!("kernel {}", kernel.name));
        out += &format!("{place}\n  ^ {e}\n");
    }
    out
}

/// Most elements of a fragment: 2048 registers of each lane, which no target has. It bounds what an interpreter or an
/// emitter can be made to do by a kernel that passes.
const MAX_ELEMENTS: u64 = 1 << 16;

/// What is known at one place of the program.
struct Checker<'k> {
    kernel: &'k Kernel,
    target: &'static Target,
    errors: Vec<VerifyError>,
    /// Number of the statement being checked.
    stmt: Option<u32>,
    /// Number of the next statement.
    next_stmt: u32,
    /// Whether a statement has defined the value, anywhere.
    defined: Vec<bool>,
    /// Whether the value can be used here.
    visible: Vec<bool>,
    /// Visible values, innermost last.
    scope: Vec<Val>,
    /// Integer constants.
    constants: Vec<Option<i64>>,
    /// Values that are a parameter.
    parameters: Vec<Option<ParamId>>,
    /// Whether the value is the result of an asynchronous product.
    in_flight: Vec<bool>,
    /// Whether the role is made of whole warpgroups.
    warpgroups: bool,
}

impl<'k> Checker<'k> {
    fn new(kernel: &'k Kernel, target: &'static Target) -> Self {
        let n = kernel.types.len();
        Checker {
            kernel,
            target,
            errors: Vec::new(),
            stmt: None,
            next_stmt: 0,
            defined: vec![false; n],
            visible: vec![false; n],
            scope: Vec::new(),
            constants: vec![None; n],
            parameters: vec![None; n],
            in_flight: vec![false; n],
            warpgroups: false,
        }
    }

    fn error(&mut self, message: impl Into<String>) {
        let kind = VerifyErrorKind::Invalid(message.into());
        self.errors.push(VerifyError { stmt: self.stmt, kind });
    }

    fn require(&mut self, holds: bool, message: impl FnOnce() -> String) {
        if !holds {
            self.error(message());
        }
    }

    fn limit(&mut self, what: &'static str, unit: &'static str, given: u64, limit: u64) {
        if given > limit {
            let limit = Limit {
                what,
                given,
                limit,
                unit,
                target: self.target.name,
            };
            self.errors.push(VerifyError {
                stmt: self.stmt,
                kind: VerifyErrorKind::Limit(limit),
            });
        }
    }

    /// Makes a value visible from here on.
    fn define(&mut self, v: Val) {
        let Some(seen) = self.defined.get_mut(v.index()) else {
            self.error(format!("{v} has no type"));
            return;
        };
        if std::mem::replace(seen, true) {
            self.error(format!("{v} is defined a second time"));
        }
        self.show(v);
        let ty = self.kernel.ty(v);
        self.check_frag(v, ty);
    }

    /// Makes a defined value visible (again).
    fn show(&mut self, v: Val) {
        if !std::mem::replace(&mut self.visible[v.index()], true) {
            self.scope.push(v);
        }
    }

    fn depth(&self) -> usize {
        self.scope.len()
    }

    /// Forgets the values that became visible since `depth`.
    fn leave(&mut self, depth: usize) {
        for v in self.scope.drain(depth..) {
            self.visible[v.index()] = false;
        }
    }

    /// The type of a used value, if it is visible here, in flight or not.
    fn in_flight_or_ready(&mut self, v: Val) -> Option<Frag> {
        match self.visible.get(v.index()) {
            Some(true) => Some(self.kernel.ty(v)),
            _ => {
                self.error(format!("{v} is used where no definition of it is visible"));
                None
            }
        }
    }

    /// The type of a used value, which must not be in flight.
    fn used(&mut self, v: Val) -> Option<Frag> {
        let ty = self.in_flight_or_ready(v)?;
        let in_flight = self.in_flight[v.index()];
        self.require(!in_flight, || {
            format!("{v} is in flight; only `mma_wait` and an accumulator may name it")
        });
        Some(ty)
    }

    fn scalar(&mut self, v: Val, dtypes: &[Dtype], what: &str) {
        let Some(ty) = self.used(v) else { return };
        let names = dtypes.iter().map(|d| d.name()).collect::<Vec<_>>().join(" or ");
        self.require(ty.is_scalar() && dtypes.contains(&ty.dtype), || {
            format!("{what} must be a scalar of type {names}, but {v} is {}", describe(ty))
        });
    }

    /// Whether the first row of a window is a multiple of `of`, as far as it is known.
    fn rows_from_multiple(&self, window: &SharedView, of: i64) -> bool {
        let row = window
            .row
            .and_then(|v| self.constants.get(v.index()).copied().flatten());
        row.is_none_or(|r| r % of == 0)
    }

    fn check_frag(&mut self, v: Val, ty: Frag) {
        let Frag { rows, cols, layout, .. } = ty;
        let valid = rows > 0
            && cols > 0
            && match layout {
                Layout::Uniform => rows == 1 && cols == 1,
                Layout::Mma => (rows == 1 || rows % 16 == 0) && (cols == 1 || cols % 8 == 0 || (cols == 4 && rows > 1)),
                Layout::Lanes { vec } => [1, 2, 4, 8].contains(&vec),
            };
        let elements = u64::from(rows) * u64::from(cols);
        self.limit("elements of a fragment", "elements", elements, MAX_ELEMENTS);
        self.require(valid, || {
            format!("{v} cannot be {}: the layout does not have this shape", describe(ty))
        });
    }
}

/// A type in words.
fn describe(ty: Frag) -> String {
    let layout = match ty.layout {
        Layout::Uniform => return format!("{}[{}x{}]", ty.dtype.name(), ty.rows, ty.cols),
        Layout::Mma => "mma".to_string(),
        Layout::Lanes { vec } => format!("lanes.{vec}"),
    };
    format!("{}[{}x{}] {layout}", ty.dtype.name(), ty.rows, ty.cols)
}
