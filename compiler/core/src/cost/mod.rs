//! What a kernel costs: counted on the final kernel, for given sizes; and the time that this takes on a device.
//!
//! In: a kernel after all passes, the launch's grid, its scalar arguments and the index tensors that steer it.
//! Out: [`Counts`], and from them a [`Time`]. It stands behind the passes because only the final kernel says what is
//! issued, and before emission because nothing here depends on LLVM.
//!
//! Two names are kept apart. *Issued* bytes are what the kernel asks of the memory system: they are counted, exactly.
//! *DRAM* bytes are what remains of them behind the L2 cache: they are modelled, in [`time()`].

mod bound;
mod formulas;
mod needed;
mod registers;
mod resident;
mod slice;
mod time;
mod value;
mod walk;
mod work;

pub use bound::{bound_formula, lower_bound};
pub use formulas::{Closed, Resident, Sample, resident_formula, time_formula};
pub use registers::{BASE_REGISTERS, estimate_registers};
pub use resident::Producer;
pub use time::{Footprint, LAUNCH_NS, Occupancy, Pipe, Time, occupancy, time};
pub use walk::count;
pub use work::{Work, per_lane, registers};

use drawloom_kernel::ir::{Kernel, Op, Stmt, Val};
use std::collections::BTreeMap;

/// The arguments of a launch that decide what it does.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Inputs {
    /// Integer scalar parameters by name: sizes, window widths.
    pub scalars: BTreeMap<String, i64>,
    /// Index tensors by parameter name: document numbers, tables.
    pub tables: BTreeMap<String, Table>,
}

/// An index tensor, row-major without gaps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Table {
    /// Extent of each axis.
    pub extents: Vec<u32>,
    /// Elements.
    pub data: Vec<i32>,
}

impl Table {
    /// The element at an index, if there is one.
    pub fn get(&self, index: &[i64]) -> Option<i32> {
        if index.len() != self.extents.len() {
            return None;
        }
        let mut at = 0usize;
        for (&x, &extent) in index.iter().zip(&self.extents) {
            let x = u32::try_from(x).ok().filter(|x| *x < extent)?;
            at = at * extent as usize + x as usize;
        }
        self.data.get(at).copied()
    }
}

/// What a launch does.
#[derive(Clone, PartialEq, Debug)]
pub struct Counts {
    /// CTAs that do the same amount of work, in order of first appearance.
    pub groups: Vec<Group>,
    /// The grid in order: so many consecutive CTAs of this group.
    pub runs: Vec<(u32, u32)>,
    /// The sum over all CTAs.
    pub total: Work,
}

/// CTAs of equal work.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    /// How many.
    pub ctas: u64,
    /// Work of each.
    pub work: Work,
}

/// Why a kernel cannot be counted.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CostError {
    /// A stream is left in the kernel.
    #[error("the kernel still holds a stream: counts are those of a kernel after the pipeliner")]
    NotPipelined,
    /// A scalar argument is missing.
    #[error("counts depend on the scalar `{0}`, whose value was not given")]
    MissingScalar(String),
    /// An index tensor is missing.
    #[error("counts depend on the index tensor `{0}`, whose values were not given")]
    MissingTable(String),
    /// An index tensor is read out of range.
    #[error("`{table}` with extents {extents:?} is read at {index:?}")]
    OutOfRange {
        /// Tensor.
        table: String,
        /// Index.
        index: Vec<i64>,
        /// Its extents.
        extents: Vec<u32>,
    },
    /// Control flow or an access depends on computed floats or on shared memory.
    #[error("counts depend on {value}, which is computed from data")]
    DataDependent {
        /// The first value that is not known.
        value: Val,
    },
}

impl CostError {
    /// The reason why a value is not known.
    fn unknown(kernel: &Kernel, origin: Val) -> CostError {
        let name = |p: &drawloom_kernel::ir::ParamId| kernel.params[p.index()].name.clone();
        match kernel.roles.iter().find_map(|r| definition(&r.body, origin)) {
            Some(Op::Param(p)) => CostError::MissingScalar(name(p)),
            Some(Op::LoadGlobal { tensor, .. }) if kernel.ty(origin).dtype == drawloom_kernel::ir::Dtype::I32 => {
                CostError::MissingTable(name(tensor))
            }
            _ => CostError::DataDependent { value: origin },
        }
    }
}

/// The operation that defines a value.
fn definition(block: &drawloom_kernel::ir::Block, v: Val) -> Option<&Op> {
    block.0.iter().find_map(|stmt| match stmt {
        Stmt::Let { dst, op } => (*dst == v).then_some(op),
        Stmt::Do(_) => None,
        Stmt::Loop(l) => definition(&l.body, v),
        Stmt::If(i) => definition(&i.then, v).or_else(|| definition(&i.otherwise, v)),
        Stmt::Stream(s) => s
            .stages
            .iter()
            .find_map(|stage| definition(&stage.block, v))
            .or_else(|| s.segments.iter().find_map(|segment| definition(&segment.body, v))),
    })
}

#[cfg(test)]
pub(crate) mod tests;
