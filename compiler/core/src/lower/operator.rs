//! What lowering needs to know of one pair stage: its tensors, its axes' roles, its score and mask in the graph.

use super::Unsupported;
use super::algebra::{constant, positive_factor};
use drawloom_graph::ir::{Axis, FoldId, Graph, Op as GOp, Val as GVal};
use drawloom_graph::monoid;
use drawloom_graph::ranges::{self, Ranges};
use drawloom_kernel::ir::Dtype;
use drawloom_lang::manifest::Formula;
use drawloom_lang::spec::{
    Align, Attend, AxisId, AxisRole, AxisSize, Binding, Dtype as LangDtype, ElemType, ExprKind, InputId, Spec, Stage,
};

/// One pair stage, bound to types and sizes, with its masks analysed.
pub struct Operator<'a> {
    /// The spec.
    pub spec: &'a Spec,
    /// Its binding.
    pub binding: &'a Binding,
    /// The stage.
    pub attend: &'a Attend,
    /// Query tensor.
    pub q: InputId,
    /// The graph of the spec under the binding.
    pub graph: &'a Graph,
    /// The stage's fold, with its components recognised.
    pub fold: monoid::LogSumExp,
    /// Its id.
    pub fold_id: FoldId,
    /// Score of a (query, key) pair, mask not applied.
    pub score: GVal,
    /// Mask, if any.
    pub mask: Option<GVal>,
    /// The contraction of query and key inside the score, wherever it is written.
    pub dots: Vec<GVal>,
    /// Key ranges of a query tile.
    pub ranges: Ranges,
}

/// Recognises the spec's (single) pair stage in its graph and analyses its mask.
///
/// # Errors
/// [`Unsupported`] for graphs whose stage is no softmax over one key axis, or whose score is not made of one contraction.
pub fn recognise<'a>(spec: &'a Spec, binding: &'a Binding, graph: &'a Graph) -> Result<Operator<'a>, Unsupported> {
    let [Stage::Attend(attend)] = spec.stages.as_slice() else {
        return Err(Unsupported::new("a spec with several stages"));
    };
    let fold_id = FoldId(0);
    let fold = (graph.folds.len() == 1)
        .then(|| monoid::classify(graph, fold_id))
        .flatten()
        .ok_or_else(|| Unsupported::new("a fold that is not a log-sum-exp"))?;
    let (score, mask) = (fold.score, fold.mask);
    let mut dots = Vec::new();
    contractions(graph, score, &mut dots);
    let Some(&dot) = dots.first() else {
        return Err(Unsupported::new("a score without a contraction"));
    };
    if dots.iter().any(|&other| !monoid::same_value(graph, dot, other)) {
        return Err(Unsupported::new("a score with several contractions"));
    }
    let q = spec
        .exprs
        .iter()
        .find_map(|e| match e.kind {
            ExprKind::Dot { a, .. } => Some(a),
            _ => None,
        })
        .ok_or_else(|| Unsupported::new("a score without a contraction"))?;
    let axis = |id: AxisId| {
        let name = &spec.axes[id.index()].name;
        graph
            .axes
            .iter()
            .position(|a| a.name == *name)
            .map(|n| Axis(n as u32))
            .ok_or_else(|| Unsupported::new(format!("axis `{name}` outside the graph")))
    };
    let align = match spec.axes[attend.query.index()].role {
        AxisRole::Query(align) => align,
        AxisRole::Plain | AxisRole::Key => Align::Start,
    };
    let sorted = spec
        .inputs
        .iter()
        .filter(|i| i.sorted)
        .map(|i| i.name.clone())
        .collect();
    let context = ranges::Context {
        query: axis(attend.query)?,
        key: axis(attend.key)?,
        align,
        sorted: &sorted,
    };
    let ranges = ranges::analyse(graph, mask, &context);
    Ok(Operator {
        spec,
        binding,
        attend,
        q,
        graph,
        fold,
        fold_id,
        score,
        mask,
        dots,
        ranges,
    })
}

fn contractions(graph: &Graph, v: GVal, found: &mut Vec<GVal>) {
    if matches!(graph.nodes[v.index()].op, GOp::Contract { .. }) {
        if !found.contains(&v) {
            found.push(v);
        }
        return;
    }
    for o in graph.nodes[v.index()].op.operands() {
        contractions(graph, o, found);
    }
}

impl Operator<'_> {
    /// Memory type of a tensor.
    pub fn dtype(&self, ty: ElemType) -> Dtype {
        let ty = match ty {
            ElemType::Fixed(d) => d,
            ElemType::Set(id) => self.binding.types[id.index()],
        };
        match ty {
            LangDtype::F16 => Dtype::F16,
            LangDtype::Bf16 => Dtype::Bf16,
            LangDtype::F32 => Dtype::F32,
            LangDtype::I32 => Dtype::I32,
        }
    }

    /// The graph's axis for one of the spec.
    pub fn axis(&self, id: AxisId) -> Axis {
        let name = &self.spec.axes[id.index()].name;
        let n = self.graph.axes.iter().position(|a| a.name == *name);
        Axis(n.expect("invariant: from_spec declares every axis of the spec") as u32)
    }

    /// The constant size of an axis under the binding.
    pub fn size(&self, id: AxisId) -> Option<u32> {
        self.binding.sizes[id.index()]
    }

    /// The size of an axis: compiled in, or the call's.
    pub fn extent(&self, id: AxisId) -> Formula {
        match self.size(id) {
            Some(n) => n.into(),
            None => Formula::size(&self.spec.axes[id.index()].name),
        }
    }

    /// Axes of the query tensor but its feature axis and the query axis: fixed within a tile.
    pub fn outer(&self) -> Vec<AxisId> {
        let axes = &self.spec.inputs[self.q.index()].axes;
        axes[..axes.len() - 1]
            .iter()
            .copied()
            .filter(|&a| a != self.attend.query)
            .collect()
    }

    /// The grouped key head axis and the query head axis it is grouped from, if there is one.
    pub fn group(&self) -> Option<(AxisId, AxisId)> {
        self.spec.inputs[self.attend.k.index()]
            .axes
            .iter()
            .find_map(|&a| match self.spec.axes[a.index()].size {
                AxisSize::Grouped { of, .. } => Some((a, of)),
                AxisSize::Runtime | AxisSize::OneOf(_) => None,
            })
    }

    /// Feature size of queries and keys.
    pub fn head_dim(&self) -> Option<u32> {
        self.spec.inputs[self.q.index()].axes.last().and_then(|&a| self.size(a))
    }

    /// Feature size of values and outputs.
    pub fn value_dim(&self) -> Option<u32> {
        self.spec.inputs[self.attend.v.index()]
            .axes
            .last()
            .and_then(|&a| self.size(a))
    }

    /// The positive constant factor of the score and the rest.
    pub fn factored_score(&self) -> (f64, GVal) {
        positive_factor(self.graph, self.score)
    }

    /// Whether the mask is the constant `true`.
    pub fn sees_everything(&self) -> bool {
        self.mask.is_none_or(|m| constant(self.graph, m) == Some(1.0))
    }
}
