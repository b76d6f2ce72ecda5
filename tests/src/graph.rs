//! The graph interpreter as an engine: the compiler's own oracle, judged like every other engine.

use crate::case::{Case, Engine, Outputs, Scalar};
use drawloom_graph::interp::{self, Inputs};
use drawloom_graph::{Graph, from_spec};

/// The graph of the spec, run in `f64`.
#[derive(Clone, Copy, Debug)]
pub struct GraphOracle;

impl Engine for GraphOracle {
    fn name(&self) -> &str {
        "graph interpreter"
    }

    fn run(&self, case: &Case) -> Result<Outputs, String> {
        run_graph(&from_spec(&case.spec, &case.binding), case, &[])
    }
}

/// Runs a graph that has the case's inputs and outputs; `sizes` of axes that the spec has not.
///
/// # Errors
/// Why the interpreter refuses.
pub fn run_graph(graph: &Graph, case: &Case, sizes: &[(&str, usize)]) -> Result<Outputs, String> {
    let mut inputs = Inputs::default();
    for (axis, &size) in case.spec.axes.iter().zip(&case.sizes) {
        inputs.sizes.insert(axis.name.clone(), size);
    }
    inputs
        .sizes
        .extend(sizes.iter().map(|(name, size)| ((*name).to_owned(), *size)));
    for (decl, tensor) in case.spec.inputs.iter().zip(&case.inputs) {
        let axes = decl
            .axes
            .iter()
            .map(|a| case.spec.axes[a.index()].name.clone())
            .collect();
        let tensor = interp::Tensor {
            axes,
            shape: tensor.shape.clone(),
            data: tensor.values.clone(),
        };
        inputs.tensors.insert(decl.name.clone(), tensor);
    }
    for (decl, scalar) in case.spec.scalars.iter().zip(&case.scalars) {
        let value = match *scalar {
            Scalar::Real(x) => x.into(),
            Scalar::Int(x) => x.into(),
        };
        inputs.scalars.insert(decl.name.clone(), value);
    }
    let mut found = interp::run(graph, &inputs).map_err(|e| e.to_string())?;
    let take = |(n, decl): (usize, &drawloom_lang::spec::OutputDecl)| {
        let tensor = found
            .remove(&decl.name)
            .ok_or_else(|| format!("no output `{}`", decl.name))?;
        let mut out = case.blank_output(n);
        if tensor.shape != out.shape {
            return Err(format!(
                "`{}` has shape {:?} instead of {:?}",
                decl.name, tensor.shape, out.shape
            ));
        }
        out.values = tensor.data;
        Ok(out)
    };
    case.spec.outputs.iter().enumerate().map(take).collect()
}
