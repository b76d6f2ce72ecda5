//! Stages and outputs: which tensor plays which part, which axes a row has, and whether the outputs have them.
//!
//! The first operand of the score's `dot` is the query tensor. Its axes but the last are the *rows*: a score, a mask and
//! a result exist once per row. The last axes of the queries, keys and values are the feature axes, as tensors are
//! contiguous on their last axis.

use super::decl;
use super::expr::{Exprs, Place, Product};
use super::scope::{Entity, Scope};
use crate::ast;
use crate::diag::{Reported, Sink, Span, limits, names, shapes, syntax, types};
use crate::spec::{
    Attend, AxisId, AxisRole, AxisSize, Dtype, ElemType, ExprId, InputId, Norm, OutputDecl, OutputValue, Spec, Stage,
    Ty,
};

/// What the outputs need to know of a stage.
struct Shape {
    rows: Vec<AxisId>,
    feature: AxisId,
}

/// Adds the stages and the outputs.
pub fn stages(tree: &ast::Attention, scope: &mut Scope, spec: &mut Spec, sink: &mut Sink) {
    let [attend] = &tree.attends[..] else {
        match tree.attends.get(1) {
            Some(second) => sink.report(limits::not_yet(second.span, "a second `attend`")),
            None => sink.report(shapes::no_stage(tree.name.span, &tree.name.text)),
        };
        return;
    };
    let shape = self::attend(tree, attend, scope, spec, sink);
    outputs(tree, shape.ok(), scope, spec, sink);
}

fn name(spec: &Spec, axis: AxisId) -> &str {
    &spec.axes[axis.index()].name
}

/// The part of a tensor in the stage.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Query,
    Key,
    Value,
}

fn attend(
    tree: &ast::Attention,
    attend: &ast::Attend,
    scope: &mut Scope,
    spec: &mut Spec,
    sink: &mut Sink,
) -> Result<Shape, Reported> {
    for (field, missing) in [("score", attend.score.is_none()), ("norm", attend.norm.is_none())] {
        if missing {
            sink.report(syntax::missing_field(attend.span, &attend.name.text, field));
        }
    }
    let key = scope
        .axis(&attend.key, sink)
        .and_then(|key| match spec.axes[key.index()].role {
            AxisRole::Key => Ok(key),
            AxisRole::Plain | AxisRole::Query(_) => {
                let (expected, at) = ("a key axis", scope.place(Entity::Axis(key)));
                let found = "an axis of another role";
                Err(sink.report(names::wrong_kind(
                    attend.key.span,
                    expected,
                    &attend.key.text,
                    found,
                    Some(at),
                )))
            }
        });
    let queries = spec
        .axes
        .iter()
        .filter(|a| matches!(a.role, AxisRole::Query(_)))
        .count();
    let query = match spec.axes.iter().position(|a| matches!(a.role, AxisRole::Query(_))) {
        Some(query) if queries == 1 => Ok(AxisId(query as u32)),
        _ => Err(sink.report(shapes::query_axes(tree.name.span, queries))),
    };
    let (k, v) = (scope.input(&attend.k, sink), scope.input(&attend.v, sink));
    let operands = attend
        .score
        .ok_or(Reported)
        .and_then(|score| match first_dot(tree, score) {
            Some((first, second)) => match (scope.input(&first, sink), scope.input(&second, sink)) {
                (Ok(a), Ok(b)) => Ok(Operands {
                    q: a,
                    other: b,
                    q_name: first,
                    other_name: second,
                }),
                _ => Err(Reported),
            },
            // Operands that are named without `dot` are reported where they stand.
            None if names_input(tree, score, scope) => Err(Reported),
            None => Err(sink.report(shapes::no_dot(tree.expr(score).span, &attend.k.text))),
        });
    let (key, query, k, v) = (key?, query?, k?, v?);
    let parts = operands.and_then(|operands| parts(operands, attend, Axes { key, query, k, v }, spec, sink));
    let (available, product) = match &parts {
        Ok(parts) => (parts.available.clone(), Some(parts.product)),
        // The expressions are checked all the same, with whatever index they use.
        Err(Reported) => ((0..spec.axes.len() as u32).map(AxisId).collect(), None),
    };
    let place = Place::Score(product);
    let mut exprs = Exprs {
        tree,
        scope,
        spec,
        sink,
        available,
        query,
        key,
        place,
    };
    let score = attend.score.ok_or(Reported).and_then(|score| {
        let score = exprs.expr(score)?;
        exprs.expect(score, Ty::Real, "as score")
    });
    exprs.place = Place::Mask;
    let mask: Result<Option<ExprId>, Reported> = match attend.mask {
        Some(mask) => exprs
            .expr(mask)
            .and_then(|m| exprs.expect(m, Ty::Bool, "as mask"))
            .map(Some),
        None => Ok(None),
    };
    if let (Ok(score), Ok(mask)) = (score, mask) {
        spec.stages.push(Stage::Attend(Attend {
            name: attend.name.text.clone(),
            query,
            key,
            k,
            v,
            score,
            mask,
            norm: attend.norm.unwrap_or(Norm::Softmax),
            span: attend.name.span,
        }));
    }
    parts.map(|parts| Shape {
        rows: parts.rows,
        feature: parts.feature,
    })
}

/// The axes and tensors of a stage.
#[derive(Clone, Copy)]
struct Axes {
    key: AxisId,
    query: AxisId,
    k: InputId,
    v: InputId,
}

/// The operands of the score's `dot` as written.
struct Operands {
    q: InputId,
    other: InputId,
    q_name: ast::Name,
    other_name: ast::Name,
}

/// What the tensors of a stage say about its axes.
struct Parts {
    rows: Vec<AxisId>,
    feature: AxisId,
    product: Product,
    available: Vec<AxisId>,
}

/// Checks that each tensor can play its part.
fn parts(
    operands: Operands,
    attend: &ast::Attend,
    axes: Axes,
    spec: &Spec,
    sink: &mut Sink,
) -> Result<Parts, Reported> {
    let Operands {
        q,
        other,
        q_name,
        other_name,
    } = operands;
    let Axes { key, k, v, .. } = axes;
    let dot = q_name.span;
    if q == k && other != k {
        return Err(sink.report(shapes::swapped_dot(dot, &other_name.text, &q_name.text)));
    }
    if other != k {
        let expected = format!("dot({}, {})", q_name.text, attend.k.text);
        let found = format!("dot({}, {})", q_name.text, other_name.text);
        return Err(sink.report(shapes::other_dot(other_name.span, &expected, &found)));
    }
    let over = part(Part::Query, q, dot, axes, spec, sink);
    let k_feature = part(Part::Key, k, attend.k.span, axes, spec, sink);
    let feature = part(Part::Value, v, attend.v.span, axes, spec, sink);
    let (over, k_feature, feature) = (over?, k_feature?, feature?);
    if over != k_feature {
        let q = (spec.inputs[q.index()].name.as_str(), name(spec, over));
        let k = (spec.inputs[k.index()].name.as_str(), name(spec, k_feature));
        return Err(sink.report(shapes::no_common_feature(dot, q, k)));
    }
    let rows: Vec<AxisId> = spec.inputs[q.index()]
        .axes
        .iter()
        .copied()
        .filter(|a| *a != over)
        .collect();
    let grouped = |axis: &AxisId| match spec.axes[axis.index()].size {
        AxisSize::Grouped { of, .. } => rows.contains(&of),
        AxisSize::Runtime | AxisSize::OneOf(_) => false,
    };
    let ids = (0..spec.axes.len() as u32).map(AxisId);
    let available: Vec<AxisId> = ids.filter(|a| rows.contains(a) || *a == key || grouped(a)).collect();
    for (input, feature, at) in [(k, over, attend.k.span), (v, feature, attend.v.span)] {
        let decl = &spec.inputs[input.index()];
        for axis in decl.axes.iter().filter(|a| **a != feature && !available.contains(a)) {
            let rows: Vec<&str> = rows.iter().map(|r| name(spec, *r)).collect();
            let why = format!(
                "the queries have [{}], neither it nor one that it is grouped from",
                rows.join(", ")
            );
            sink.report(shapes::excess_axis(at, &decl.name, name(spec, *axis), &why));
        }
    }
    if rows.contains(&feature) {
        let decl = &spec.inputs[v.index()];
        let why = "the queries have it, so it is not a feature of the values";
        return Err(sink.report(shapes::excess_axis(attend.v.span, &decl.name, name(spec, feature), why)));
    }
    operand_types([(q, dot), (k, attend.k.span), (v, attend.v.span)], spec, sink);
    Ok(Parts {
        rows,
        feature,
        product: Product { q, k, over },
        available,
    })
}

/// The operands of the first `dot` in an expression, in the order of the text.
fn first_dot(tree: &ast::Attention, root: ast::ExprRef) -> Option<(ast::Name, ast::Name)> {
    nodes(tree, root).find_map(|at| match &tree.expr(at).kind {
        ast::ExprKind::Call(function, arguments) if function.text == "dot" => match &arguments[..] {
            [a, b] => plain_name(tree, a.value).zip(plain_name(tree, b.value)),
            _ => None,
        },
        _ => None,
    })
}

/// Whether an expression names an input without indices.
fn names_input(tree: &ast::Attention, root: ast::ExprRef, scope: &mut Scope) -> bool {
    let mut plain = nodes(tree, root).filter_map(|at| plain_name(tree, at));
    plain.any(|name| matches!(scope.get(&name.text), Some((Entity::Input(_), _))))
}

/// An expression and all in it, in the order of the text.
fn nodes(tree: &ast::Attention, root: ast::ExprRef) -> impl Iterator<Item = ast::ExprRef> + '_ {
    let mut stack = vec![root];
    std::iter::from_fn(move || {
        let at = stack.pop()?;
        match &tree.expr(at).kind {
            ast::ExprKind::Number(_) | ast::ExprKind::Name(_) => {}
            ast::ExprKind::Call(_, arguments) => stack.extend(arguments.iter().rev().map(|a| a.value)),
            ast::ExprKind::Index(_, at) => stack.extend(at.iter().rev()),
            ast::ExprKind::Unary(_, a) => stack.push(*a),
            ast::ExprKind::Binary(_, a, b) => stack.extend([*b, *a]),
            ast::ExprKind::If(a, b, c) => stack.extend([*c, *b, *a]),
        }
        Some(at)
    })
}

fn plain_name(tree: &ast::Attention, at: ast::ExprRef) -> Option<ast::Name> {
    let expr = tree.expr(at);
    match &expr.kind {
        ast::ExprKind::Name(text) => Some(ast::Name {
            text: text.clone(),
            span: expr.span,
        }),
        _ => None,
    }
}

/// Checks that a tensor can play its part; returns its feature axis.
fn part(part: Part, input: InputId, at: Span, axes: Axes, spec: &Spec, sink: &mut Sink) -> Result<AxisId, Reported> {
    let decl = &spec.inputs[input.index()];
    let (wanted, excluded, role, why) = match part {
        Part::Query => (axes.query, axes.key, "query axis", "as the queries of `dot`"),
        Part::Key => (axes.key, axes.query, "key axis", "as the keys of the stage"),
        Part::Value => (axes.key, axes.query, "key axis", "as the values of the stage"),
    };
    if !decl.axes.contains(&wanted) {
        let axis = format!("the {role} `{}`", name(spec, wanted));
        return Err(sink.report(shapes::missing_axis(at, &decl.name, &axis, why)));
    }
    if decl.axes.contains(&excluded) {
        return Err(sink.report(shapes::excess_axis(at, &decl.name, name(spec, excluded), why)));
    }
    let Some(&feature) = decl.axes.last().filter(|a| **a != wanted) else {
        let why = format!("{why}, tensors being contiguous on their last axis");
        return Err(sink.report(shapes::missing_axis(at, &decl.name, "a feature axis at its end", &why)));
    };
    let axis = &spec.axes[feature.index()];
    match &axis.size {
        AxisSize::OneOf(sizes) => match sizes.iter().find(|s| **s % 8 != 0 || !(8..=256).contains(*s)) {
            Some(&size) => Err(sink.report(shapes::feature_size(axis.span, &axis.name, size))),
            None => Ok(feature),
        },
        AxisSize::Runtime | AxisSize::Grouped { .. } => {
            Err(sink.report(shapes::runtime_feature(axis.span, &axis.name)))
        }
    }
}

/// The two products of a stage take operands of one 16-bit type.
fn operand_types(operands: [(InputId, Span); 3], spec: &Spec, sink: &mut Sink) {
    let narrow = |dtype: &Dtype| matches!(dtype, Dtype::F16 | Dtype::Bf16);
    let first = spec.inputs[operands[0].0.index()].ty;
    for (input, at) in operands {
        let decl = &spec.inputs[input.index()];
        let fits = match decl.ty {
            ElemType::Fixed(dtype) => narrow(&dtype),
            ElemType::Set(set) => spec.types[set.index()].members.iter().all(narrow),
        };
        let (what, found) = (format!("`{}`", decl.name), type_name(spec, decl.ty));
        if !fits {
            sink.report(types::element(at, &what, "`f16`, `bf16` or a set of these", &found));
        } else if decl.ty != first {
            let expected = format!("the type of the queries, `{}`,", type_name(spec, first));
            sink.report(types::element(at, &what, &expected, &found));
        }
    }
}

/// An element type as written.
pub fn type_name(spec: &Spec, ty: ElemType) -> String {
    match ty {
        ElemType::Fixed(dtype) => dtype.to_string(),
        ElemType::Set(set) => spec.types[set.index()].name.clone(),
    }
}

fn outputs(tree: &ast::Attention, shape: Option<Shape>, scope: &mut Scope, spec: &mut Spec, sink: &mut Sink) {
    let mut seen: Vec<(String, Span)> = Vec::new();
    for output in &tree.outputs {
        let (name, at) = match output.lse {
            Some((_, at)) => ("lse", at),
            None => (output.stage.text.as_str(), output.stage.span),
        };
        let stage = match scope.get(&output.stage.text) {
            Some((Entity::Stage(stage), _)) => stage,
            Some((other, declared)) => {
                let (span, text) = (output.stage.span, &output.stage.text);
                sink.report(names::wrong_kind(
                    span,
                    "a stage",
                    text,
                    other.describe(),
                    Some(declared),
                ));
                continue;
            }
            None => {
                let wanted = |e| matches!(e, Entity::Stage(_));
                scope.unknown(&output.stage.text, output.stage.span, "a stage", wanted, sink);
                continue;
            }
        };
        let first = seen.iter().find(|(n, _)| n == name).map(|(_, s)| *s).or_else(|| {
            // The launcher has one field per input, scalar and output.
            let (entity, at) = scope.get(name)?;
            (output.lse.is_some() && !matches!(entity, Entity::Type(_))).then_some(at)
        });
        if let Some(first) = first {
            sink.report(names::duplicate(at, name, first));
            continue;
        }
        seen.push((name.to_owned(), at));
        let label = ast::Name {
            text: name.to_owned(),
            span: at,
        };
        let (ty, axes) = decl::shape(&label, &output.ty, &output.axes, scope, spec, sink);
        let Ok(ty) = ty else { continue };
        let (value, fits, expected) = match output.lse {
            Some((base, _)) => (
                OutputValue::Lse { stage, base },
                ty == ElemType::Fixed(Dtype::F32),
                "`f32`, the type of sums,",
            ),
            None => (
                OutputValue::Stage(stage),
                ty != ElemType::Fixed(Dtype::I32),
                "`f16`, `bf16`, `f32` or a set",
            ),
        };
        if !fits {
            sink.report(types::element(
                output.ty.span,
                &format!("`{name}`"),
                expected,
                &output.ty.text,
            ));
        }
        if let Some(shape) = &shape {
            let mut wanted = shape.rows.clone();
            if output.lse.is_none() {
                wanted.push(shape.feature);
            }
            let same = wanted.len() == axes.len()
                && wanted.iter().all(|a| axes.contains(a))
                && (output.lse.is_some() || axes.last() == Some(&shape.feature));
            if !same {
                let names = |axes: &[AxisId]| -> Vec<&str> { axes.iter().map(|a| self::name(spec, *a)).collect() };
                sink.report(shapes::output_axes(at, name, &names(&wanted), &names(&axes)));
            }
        }
        spec.outputs.push(OutputDecl {
            name: name.to_owned(),
            ty,
            axes,
            value,
            span: at,
        });
    }
    // An output of an unknown name has been reported, and was meant for a stage.
    let stages = |name: &str| tree.attends.iter().any(|attend| attend.name.text == name);
    let mistaken = tree.outputs.iter().any(|o| !stages(&o.stage.text));
    for attend in tree.attends.iter().filter(|_| !mistaken) {
        if !tree
            .outputs
            .iter()
            .any(|o| o.lse.is_none() && o.stage.text == attend.name.text)
        {
            sink.report(shapes::no_output(attend.span, &attend.name.text));
        }
    }
}
