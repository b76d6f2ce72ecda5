//! The oracle: a graph and its inputs to its outputs, in `f64`.
//!
//! Values are dense tensors. A fold runs point by point: its lifts and its region are computed at the current point only,
//! so that an attention never holds a query-by-key-by-feature tensor. Everything else is computed once.

mod associative;
mod dense;
mod eval;

pub use associative::check_associative;

use crate::ir::{Graph, Op, Size, Val};
use crate::verify::{Errors, verify};
use dense::Dense;
use eval::Run;
use std::collections::BTreeMap;

/// A tensor for people: axes by name, row-major.
#[derive(Clone, PartialEq, Debug)]
pub struct Tensor {
    /// Names of the axes.
    pub axes: Vec<String>,
    /// Sizes.
    pub shape: Vec<usize>,
    /// Values; integers and truth values (0 and 1) are exact.
    pub data: Vec<f64>,
}

impl Tensor {
    /// A tensor over `(name, size)` axes, filled by a function of the point.
    pub fn from_fn(axes: &[(&str, usize)], mut f: impl FnMut(&[usize]) -> f64) -> Tensor {
        let shape: Vec<usize> = axes.iter().map(|a| a.1).collect();
        let mut point = vec![0; shape.len()];
        let mut data = Vec::new();
        for _ in 0..shape.iter().product() {
            data.push(f(&point));
            for n in (0..point.len()).rev() {
                point[n] += 1;
                if point[n] < shape[n] {
                    break;
                }
                point[n] = 0;
            }
        }
        Tensor {
            axes: axes.iter().map(|a| a.0.to_owned()).collect(),
            shape,
            data,
        }
    }
}

/// What a graph runs on.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Inputs {
    /// Input tensors by name, axes in the order of the input's declaration.
    pub tensors: BTreeMap<String, Tensor>,
    /// Run-time scalars.
    pub scalars: BTreeMap<String, f64>,
    /// Sizes of run-time axes; those of an input's axes may be left out.
    pub sizes: BTreeMap<String, usize>,
}

/// Why there is no result.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum InterpError {
    /// The graph is not well-formed.
    #[error("{0}")]
    Graph(Errors),
    /// An input tensor is missing.
    #[error("no input tensor `{0}`")]
    MissingTensor(String),
    /// A run-time scalar is missing.
    #[error("no scalar `{0}`")]
    MissingScalar(String),
    /// The size of a run-time axis is not known.
    #[error("no size for axis `{0}`")]
    MissingSize(String),
    /// A tensor does not fit its declaration.
    #[error("tensor `{name}`: expected axes {expected}, given {given}")]
    Shape {
        /// Input.
        name: String,
        /// Axes with sizes, as declared.
        expected: String,
        /// Axes with sizes, as given.
        given: String,
    },
    /// An index is outside its axis, and the gather has no value for that.
    #[error("{val}: index {index} on axis `{axis}` of length {len}")]
    OutOfRange {
        /// The gather.
        val: Val,
        /// Axis.
        axis: String,
        /// Index.
        index: f64,
        /// Length of the axis.
        len: usize,
    },
    /// A value is too large to be computed here.
    #[error("{val}: {elements} elements, at most {limit} are computed")]
    TooLarge {
        /// Value.
        val: Val,
        /// Its elements.
        elements: u128,
        /// The limit.
        limit: u128,
    },
    /// Operations hang on each other in too long a chain.
    #[error("{val}: more than {limit} operations deep")]
    TooDeep {
        /// Value.
        val: Val,
        /// The limit.
        limit: usize,
    },
    /// A claim of associativity that cannot be tested.
    #[error("fold {0}: {1}")]
    Claim(crate::ir::FoldId, String),
}

/// Computes all outputs.
///
/// # Errors
/// See [`InterpError`].
pub fn run(graph: &Graph, inputs: &Inputs) -> Result<BTreeMap<String, Tensor>, InterpError> {
    verify(graph).map_err(InterpError::Graph)?;
    let sizes = sizes(graph, inputs)?;
    let mut run = Run::new(graph, inputs, sizes);
    let mut results = BTreeMap::new();
    for output in &graph.outputs {
        let value = run.value(output.value)?;
        results.insert(output.name.clone(), run.tensor(&value, &output.axes));
    }
    Ok(results)
}

/// The size of every axis, from the graph, the given sizes and the given tensors.
fn sizes(graph: &Graph, inputs: &Inputs) -> Result<Vec<usize>, InterpError> {
    let mut given: BTreeMap<&str, usize> = inputs.sizes.iter().map(|(k, &v)| (k.as_str(), v)).collect();
    for node in &graph.nodes {
        let Op::Input { name, axes } = &node.op else { continue };
        let Some(tensor) = inputs.tensors.get(name) else {
            continue;
        };
        for (axis, &size) in axes.iter().zip(&tensor.shape) {
            given.entry(&graph.axes[axis.index()].name).or_insert(size);
        }
    }
    let mut sizes: Vec<usize> = Vec::with_capacity(graph.axes.len());
    for axis in &graph.axes {
        sizes.push(match axis.size {
            Size::Runtime => *given
                .get(axis.name.as_str())
                .ok_or_else(|| InterpError::MissingSize(axis.name.clone()))?,
            Size::Const(n) => n as usize,
            Size::Same(of) => sizes[of.index()],
            Size::CeilDiv { of, by } => sizes[of.index()].div_ceil(by as usize),
        });
    }
    Ok(sizes)
}

/// An input tensor over the graph's axes.
fn load(
    graph: &Graph,
    sizes: &[usize],
    name: &str,
    axes: &[crate::ir::Axis],
    given: &Tensor,
) -> Result<Dense, InterpError> {
    let show = |names: &[String], shape: &[usize]| {
        let parts: Vec<String> = names.iter().zip(shape).map(|(n, s)| format!("{n} = {s}")).collect();
        format!("[{}]", parts.join(", "))
    };
    let names: Vec<String> = axes.iter().map(|a| graph.axes[a.index()].name.clone()).collect();
    let shape: Vec<usize> = axes.iter().map(|a| sizes[a.index()]).collect();
    if given.axes != names || given.shape != shape || given.data.len() != shape.iter().product::<usize>() {
        let (expected, given) = (show(&names, &shape), show(&given.axes, &given.shape));
        return Err(InterpError::Shape {
            name: name.to_owned(),
            expected,
            given,
        });
    }
    let dense = Dense::new(axes.to_vec(), shape, given.data.clone());
    Ok(if axes.is_sorted() {
        dense
    } else {
        dense::renamed(&dense, axes)
    })
}
