//! Split-KV: a fold over keys becomes one fold per split of the keys and a fold over the splits.
//!
//! In goes an associative fold over the range `j, …`; out comes the same fold over a new axis of splits, whose lifts are
//! the results of an inner fold over the old range. Split `s` of `n` owns the block `s w <= j < (s + 1) w` of keys, with
//! `w = ceil(len(j) / n)`; the inner fold sees the identity everywhere else. The mask analysis turns that condition into
//! the block's bounds, so no split visits another's keys. Decode with few queries and many keys runs in this form.
//!
//! Holds where:
//! - the fold is claimed associative with its initial state as identity, so that blocks may be combined on their own;
//! - it yields its final state: a prefix fold's states between are not those of a block;
//! - it has one range, and the split axis is the range's first, so that blocks are consecutive points and the order of
//!   what is combined stays (the combine need not commute);
//! - its combine reads no value at the current point and holds no fold of its own.
//!
//! The number of splits is the size of the new axis, given at run time, at least 1.

use super::map_roots;
use crate::build::{Builder, CompDef, FoldDef};
use crate::ir::{Axis, Binary, Comp, Fold, FoldId, Graph, Mode, Node, Op, Size, Val};
use crate::verify::regions;
use std::collections::BTreeMap;

/// Why a fold cannot be split.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// No such fold.
    #[error("{0} is no fold of this graph")]
    NoFold(FoldId),
    /// The combine is not claimed to be associative.
    #[error("{0} is not claimed to be associative")]
    NotAssociative(FoldId),
    /// A prefix fold.
    #[error("{0} yields every state, not the last one alone")]
    Prefix(FoldId),
    /// The axis does not come first in the only range.
    #[error("{fold} does not run over one range that begins with axis `{axis}`")]
    Range {
        /// Fold.
        fold: FoldId,
        /// Name of the axis.
        axis: String,
    },
    /// The combine reads values at the current point.
    #[error("the combine of {fold} reads {value} at the current point")]
    ReadsPoint {
        /// Fold.
        fold: FoldId,
        /// Value.
        value: Val,
    },
    /// The combine holds a fold.
    #[error("the combine of {fold} holds the result {value} of another fold")]
    Nested {
        /// Fold.
        fold: FoldId,
        /// Value.
        value: Val,
    },
    /// The name of the new axis is taken.
    #[error("axis `{0}` exists already")]
    Taken(String),
}

/// Splits `fold` along `axis` into blocks along a new axis called `name`. The fold with that number becomes the one over
/// a block; the fold over the blocks is new, and everything that used the old results uses its results.
///
/// # Errors
/// A condition of the module documentation that does not hold.
pub fn split_kv(graph: &Graph, fold: FoldId, axis: Axis, name: &str) -> Result<Graph, Refused> {
    let region = check(graph, fold, axis, name)?;
    let mut b = Builder::from_graph(Graph {
        nodes: Vec::new(),
        ..graph.clone()
    });
    let split = b.axis(name, Size::Runtime);
    let mut new: Vec<Val> = Vec::with_capacity(graph.nodes.len());
    // A fold's lifts come before its holes, its combines before its results.
    let (mut block, mut blocks) = (None, None);
    for (n, node) in (0..).map(Val).zip(&graph.nodes) {
        let mut op = node.op.clone();
        op.map_operands(|v| new[v.index()]);
        match &mut op {
            Op::Hole { fold: of, .. } if *of == fold && block.is_none() => {
                block = Some(over_block(&mut b, graph.fold(fold), axis, split, &new));
                b.graph.folds[fold.index()]
                    .comps
                    .clone_from(block.as_ref().expect("invariant: just set"));
            }
            Op::Get { fold: of, .. } if *of == fold => {
                *of = *blocks.get_or_insert_with(|| over_blocks(&mut b, graph, fold, split, &region, &new));
            }
            _ => {}
        }
        new.push(match region.contains(&n) {
            true => b.typed(op, node.ty),
            false => {
                b.graph.nodes.push(Node { op, ..node.clone() });
                last(&b.graph)
            }
        });
    }
    let mut out = b.graph;
    let outer = out.folds.split_off(graph.folds.len());
    out.folds.clone_from(&graph.folds);
    map_roots(&mut out, |v| new[v.index()]);
    for (comp, new) in out.folds[fold.index()]
        .comps
        .iter_mut()
        .zip(block.into_iter().flatten())
    {
        *comp = Comp {
            combine: comp.combine,
            ..new
        };
    }
    out.folds.extend(outer);
    Ok(out)
}

/// The fold's region, in order.
fn check(graph: &Graph, id: FoldId, axis: Axis, name: &str) -> Result<Vec<Val>, Refused> {
    let fold = graph.folds.get(id.index()).ok_or(Refused::NoFold(id))?;
    if !fold.associative {
        return Err(Refused::NotAssociative(id));
    }
    if fold.mode != Mode::Reduce {
        return Err(Refused::Prefix(id));
    }
    if fold.over.len() != 1 || fold.over[0].first() != Some(&axis) {
        let axis = graph
            .axes
            .get(axis.index())
            .map_or_else(|| axis.to_string(), |def| def.name.clone());
        return Err(Refused::Range { fold: id, axis });
    }
    if graph.axis(name).is_some() {
        return Err(Refused::Taken(name.to_owned()));
    }
    let of_val = regions(graph).of_val;
    let all = (0..).map(Val).take(graph.nodes.len());
    let region: Vec<Val> = all.filter(|v| of_val[v.index()].contains(&id)).collect();
    if let Some(&value) = region.iter().find(|v| matches!(graph.node(**v).op, Op::Get { .. })) {
        return Err(Refused::Nested { fold: id, value });
    }
    let read = region.iter().flat_map(|v| graph.node(*v).op.operands());
    let at_point = |v: &Val| graph.node(*v).axes.iter().any(|a| fold.over[0].contains(a));
    if let Some(value) = read.chain(fold.comps.iter().map(|c| c.combine)).find(at_point) {
        return Err(Refused::ReadsPoint { fold: id, value });
    }
    Ok(region)
}

/// The components of the fold over a block: the split axis on every state, the identity lifted outside the block.
fn over_block(b: &mut Builder, fold: &Fold, axis: Axis, split: Axis, new: &[Val]) -> Vec<Comp> {
    let own = in_split(b, axis, split);
    let comp = |comp: &Comp| {
        let init = new[comp.init.index()];
        let lift = b.select(own, new[comp.lift[0].index()], init);
        let axes = comp.axes.iter().copied().chain([split]).collect();
        Comp {
            name: comp.name.clone(),
            axes,
            init,
            lift: vec![lift],
            combine: init,
        }
    };
    fold.comps.iter().map(comp).collect()
}

/// The fold over the blocks: lifts are the results of `id`, the combine is a copy of its combine.
fn over_blocks(b: &mut Builder, graph: &Graph, id: FoldId, split: Axis, region: &[Val], new: &[Val]) -> FoldId {
    let fold = graph.fold(id);
    let lifts: Vec<Val> = (0..).zip(&fold.comps).map(|(n, _)| b.get(id, n)).collect();
    let comps = fold.comps.iter().zip(lifts).map(|(comp, lift)| CompDef {
        name: comp.name.clone(),
        axes: comp.axes.clone(),
        init: new[comp.init.index()],
        lift: vec![lift],
    });
    let def = FoldDef {
        over: vec![vec![split]],
        direction: fold.direction,
        mode: fold.mode,
        associative: true,
    };
    let outer = b.fold(def, comps.collect());
    let mut copies = BTreeMap::new();
    let copy = |copies: &BTreeMap<Val, Val>, v: Val| copies.get(&v).copied().unwrap_or_else(|| new[v.index()]);
    for &v in region {
        let node = graph.node(v);
        let mut op = node.op.clone();
        match &mut op {
            Op::Hole { fold: of, .. } if *of == id => *of = outer,
            op => op.map_operands(|v| copy(&copies, v)),
        }
        copies.insert(v, b.typed(op, node.ty));
    }
    let combines: Vec<Val> = fold.comps.iter().map(|c| copy(&copies, c.combine)).collect();
    b.combine(outer, &combines);
    outer
}

/// `s w <= j < (s + 1) w`.
fn in_split(b: &mut Builder, axis: Axis, split: Axis) -> Val {
    let (one, keys, splits) = (b.int(1), b.len(axis), b.len(split));
    let (j, s) = (b.index(axis), b.index(split));
    let up = b.binary(Binary::Sub, splits, one);
    let up = b.binary(Binary::Add, keys, up);
    let width = b.binary(Binary::Div, up, splits);
    let first = b.binary(Binary::Mul, s, width);
    let end = b.binary(Binary::Add, first, width);
    let after = b.binary(Binary::Le, first, j);
    let before = b.binary(Binary::Lt, j, end);
    b.binary(Binary::And, after, before)
}

fn last(graph: &Graph) -> Val {
    Val(u32::try_from(graph.nodes.len() - 1).expect("invariant: values are numbered by u32"))
}
