//! A program: the ordered kernels of one variant, the buffers between them, and every launch parameter as a formula over
//! run-time sizes. What is fused and what is not is decided here and only here.

use crate::lower::attend::{Numbers, attend, tiles};
use crate::lower::merge::{ROWS_PER_CTA, merge};
use crate::lower::operator::Operator;
use crate::lower::{Lowered, Meaning, Unsupported};
use crate::passes::overlapped;
use crate::schedule::{Fetch, Keys, Schedule};
use drawloom_kernel::ir::Kernel;
use drawloom_lang::manifest::{Arg, DeviceFact, Formula};
use std::ops::Mul;

/// One variant of an operator.
#[derive(Clone, Debug)]
pub struct Program {
    /// The schedule of its first kernel.
    pub schedule: Schedule,
    /// How many ways the keys are split.
    pub splits: Formula,
    /// Sizes of the buffers between kernels, in bytes.
    pub workspace: Vec<Formula>,
    /// Kernels in order.
    pub kernels: Vec<Step>,
}

/// One kernel of a program.
#[derive(Clone, Debug)]
pub struct Step {
    /// The kernel before the pipeliner, and what its parameters mean.
    pub synchronous: Lowered,
    /// The final kernel.
    pub kernel: Kernel,
    /// CTAs.
    pub grid: Formula,
    /// Launch parameters in ABI order.
    pub args: Vec<Arg>,
}

/// Builds the program of an operator under a schedule: one kernel, or a split kernel and its merge.
///
/// # Errors
/// [`Unsupported`] if a part has no kernel form.
pub fn program(op: &Operator, schedule: &Schedule, name: &str, target: &str) -> Result<Program, Unsupported> {
    let tiles = row_tiles(op, schedule);
    match schedule.keys {
        Keys::All => {
            let grid = match schedule.fetch {
                Fetch::Together => tiles,
                Fetch::Producer => Numbers::of(op, schedule).ctas,
            };
            let main = step(op, schedule, attend(op, schedule, name, target)?, grid)?;
            Ok(Program {
                schedule: *schedule,
                splits: Formula::Const(1),
                workspace: Vec::new(),
                kernels: vec![main],
            })
        }
        Keys::Split => {
            let main = attend(op, schedule, &format!("{name}_split"), target)?;
            let workspace = main
                .meaning
                .iter()
                .filter_map(|m| match m {
                    Meaning::Partial { axes, .. } => Some(product(axes) * 4),
                    Meaning::Tensor(_)
                    | Meaning::Size(_)
                    | Meaning::Splits
                    | Meaning::Number(_)
                    | Meaning::Scalar(_) => None,
                })
                .collect();
            let main = step(op, schedule, main, tiles.clone() * Formula::Splits)?;
            let outer = op.outer().into_iter().map(|a| op.extent(a));
            let rows = outer.fold(op.extent(op.attend.query), Formula::mul);
            let grid = rows.ceil_div(ROWS_PER_CTA);
            let merge = step(op, schedule, merge(op, &format!("{name}_merge"), target)?, grid)?;
            Ok(Program {
                schedule: *schedule,
                splits: splits(op, schedule, tiles),
                workspace,
                kernels: vec![main, merge],
            })
        }
    }
}

fn step(op: &Operator, schedule: &Schedule, lowered: Lowered, grid: Formula) -> Result<Step, Unsupported> {
    let kernel = overlapped(lowered.kernel.clone(), schedule)?;
    let mut args: Vec<Arg> = lowered.meaning.iter().flat_map(|m| arguments(op, m)).collect();
    args.extend(tensor_maps(&lowered, &kernel)?);
    Ok(Step {
        synchronous: lowered,
        kernel,
        grid,
        args,
    })
}

/// The tensor maps behind a kernel's parameters, in the kernel's order.
fn tensor_maps(lowered: &Lowered, kernel: &Kernel) -> Result<Vec<Arg>, Unsupported> {
    let maps = kernel.tensor_maps().into_iter();
    maps.map(|map| match lowered.meaning.get(map.tensor.index()) {
        Some(Meaning::Tensor(name)) => Ok(Arg::TensorMap {
            tensor: name.clone(),
            row_axis: map.row_axis,
            rows: map.rows,
            cols: map.cols,
            panel_bytes: map.panel_bytes,
        }),
        _ => Err(Unsupported::new("a tensor map of a buffer between kernels")),
    })
    .collect()
}

/// The launch parameters of one kernel parameter.
fn arguments(op: &Operator, meaning: &Meaning) -> Vec<Arg> {
    match meaning {
        Meaning::Tensor(name) => {
            let rank = op
                .spec
                .inputs
                .iter()
                .map(|i| (&i.name, i.axes.len()))
                .chain(op.spec.outputs.iter().map(|o| (&o.name, o.axes.len())))
                .find(|(n, _)| *n == name)
                .map_or(0, |(_, rank)| rank);
            let strides = (0..rank).map(|n| Arg::Stride(name.clone(), n));
            std::iter::once(Arg::Pointer(name.clone())).chain(strides).collect()
        }
        Meaning::Partial { comp, axes } => {
            let strides = (0..axes.len()).map(|n| Arg::Long(product(&axes[n + 1..])));
            std::iter::once(Arg::Workspace(*comp)).chain(strides).collect()
        }
        Meaning::Size(axis) => vec![Arg::Size(Formula::Size(axis.clone()))],
        Meaning::Splits => vec![Arg::Size(Formula::Splits)],
        Meaning::Number(formula) => vec![Arg::Size(formula.clone())],
        Meaning::Scalar(name) => vec![Arg::Scalar(name.clone())],
    }
}

/// Query tiles, or CTAs of one split.
pub(crate) fn row_tiles(op: &Operator, schedule: &Schedule) -> Formula {
    let (tiles, heads) = tiles(op, schedule);
    heads.into_iter().fold(tiles, Formula::mul)
}

/// Enough splits to fill the device about once with CTAs that see at least two key tiles each.
fn splits(op: &Operator, schedule: &Schedule, tiles: Formula) -> Formula {
    let wanted = Formula::Device(DeviceFact::Sms) * schedule.min_ctas;
    let fill = wanted.ceil_div(tiles.max(1));
    let most = op.extent(op.attend.key).ceil_div(2 * schedule.block_n);
    Formula::Const(1).max(fill.min(most))
}

fn product(axes: &[String]) -> Formula {
    axes.iter()
        .map(|name| match (name.as_str(), name.parse::<i64>()) {
            ("splits", _) => Formula::Splits,
            (_, Ok(n)) => Formula::Const(n),
            (_, Err(_)) => Formula::Size(name.clone()),
        })
        .fold(Formula::Const(1), Formula::mul)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensor_maps_stand_behind_the_parameters_in_the_order_of_their_use() {
        let text = include_str!("../../../tests/filetests/kernel/attention_sm90.kir");
        let kernel = drawloom_kernel::text::parse(text).expect("the file holds a kernel");
        let named = |name: &str| Meaning::Tensor(name.to_owned());
        let meaning: Vec<Meaning> = (kernel.params.iter().map(|param| &param.name))
            .map(|name| match name.as_str() {
                "q" | "k" | "v" | "o" => named(name),
                other => Meaning::Size(other.to_owned()),
            })
            .collect();
        let lowered = Lowered {
            kernel: kernel.clone(),
            meaning,
        };
        let map = |tensor: &str, rows| Arg::TensorMap {
            tensor: tensor.to_owned(),
            row_axis: 0,
            rows,
            cols: 64,
            panel_bytes: 128,
        };
        let expected = vec![map("q", 128), map("k", 32), map("v", 32), map("o", 128)];
        assert_eq!(tensor_maps(&lowered, &kernel), Ok(expected));
        // What a kernel hands to the next is no tensor of the caller's.
        let mut handed = lowered;
        handed.meaning[3] = Meaning::Splits;
        assert!(tensor_maps(&handed, &kernel).is_err());
    }

    #[test]
    fn a_producer_gets_maps_of_what_it_fetches_and_of_nothing_else() {
        use crate::schedule::{Reference, Staging};
        let text = include_str!("../../../specs/causal.attn");
        let spec = drawloom_lang::parse_str("causal", text)
            .expect("the spec is right")
            .remove(0);
        let bindings = drawloom_lang::bindings(&spec);
        let binding = (bindings.iter().find(|b| b.sizes.contains(&Some(128)))).expect("heads of 128 are compiled");
        let graph = drawloom_graph::from_spec(&spec, binding);
        let op = crate::lower::operator::recognise(&spec, binding, &graph).expect("it has a kernel form");
        let schedule = Schedule::with_producer(128, 128, 2, Reference::Running, Staging::Own);
        let program = program(&op, &schedule, "k", schedule.target().name).expect("it has a kernel form");
        let step = &program.kernels[0];
        let maps: Vec<&Arg> = step
            .args
            .iter()
            .filter(|arg| matches!(arg, Arg::TensorMap { .. }))
            .collect();
        assert_eq!(maps.len(), step.kernel.tensor_maps().len());
        for name in ["q", "k", "v"] {
            let expected = |arg: &&&Arg| match arg {
                Arg::TensorMap {
                    tensor,
                    row_axis: 2,
                    cols: 64,
                    panel_bytes: 128,
                    ..
                } => tensor == name,
                _ => false,
            };
            assert_eq!(maps.iter().filter(expected).count(), 1, "{name}: {maps:?}");
        }
        // They stand behind everything else.
        let behind = &step.args[step.args.len() - maps.len()..];
        assert!(
            behind.iter().all(|arg| matches!(arg, Arg::TensorMap { .. })),
            "{behind:?}"
        );
    }
}
