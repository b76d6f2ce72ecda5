//! Declarations: types, axes, inputs, scalars and pins, in the order of the tree, so that ids are positions.

use super::scope::{Entity, Scope};
use crate::ast;
use crate::diag::{Reported, Sink, Span, limits, names, shapes, syntax, types};
use crate::spec::{
    AxisDecl, AxisId, AxisRole, AxisSize, Dtype, ElemType, InputDecl, Pin, ScalarDecl, Spec, TypeId, TypeSet,
};

/// The element type of this name.
pub fn dtype(name: &str) -> Option<Dtype> {
    Some(match name {
        "f16" => Dtype::F16,
        "bf16" => Dtype::Bf16,
        "f32" => Dtype::F32,
        "i32" => Dtype::I32,
        _ => return None,
    })
}

/// The most combinations of types and sizes that one spec is compiled for.
const MAX_BINDINGS: usize = 512;

/// Fields of the schedule that `tile` can pin.
const PINS: [&str; 5] = ["block_m", "block_n", "warps", "stages", "split"];

/// Adds all declarations to `spec`. Ones with errors are added too, so that ids stay positions.
pub fn declare(tree: &ast::Attention, scope: &mut Scope, spec: &mut Spec, sink: &mut Sink) {
    for set in &tree.types {
        let set = type_set(set, sink);
        spec.types.push(set);
    }
    for (n, axis) in tree.axes.iter().enumerate() {
        let axis = self::axis(tree, AxisId(n as u32), axis, scope, sink);
        spec.axes.push(axis);
    }
    let sets = spec.types.iter().map(|t| t.members.len());
    let sizes = spec.axes.iter().filter_map(|a| match &a.size {
        AxisSize::OneOf(sizes) => Some(sizes.len()),
        AxisSize::Runtime | AxisSize::Grouped { .. } => None,
    });
    let bindings = sets.chain(sizes).fold(1usize, usize::saturating_mul);
    if bindings > MAX_BINDINGS {
        let what = "combinations of types and sizes to compile";
        sink.report(limits::too_many(tree.name.span, what, MAX_BINDINGS, bindings));
    }
    for tensor in &tree.inputs {
        let (ty, axes) = shape(&tensor.name, &tensor.ty, &tensor.axes, scope, spec, sink);
        if let Some(at) = tensor.sorted
            && !matches!(ty, Ok(ElemType::Fixed(Dtype::I32)) | Err(Reported))
        {
            sink.report(shapes::bad_sorted(at, &tensor.name.text, &tensor.ty.text));
        }
        spec.inputs.push(InputDecl {
            name: tensor.name.text.clone(),
            // What is wrong already should be wrong nowhere else: most inputs are operands of products.
            ty: ty.unwrap_or(match spec.types.is_empty() {
                true => ElemType::Fixed(Dtype::F16),
                false => ElemType::Set(TypeId(0)),
            }),
            axes,
            sorted: tensor.sorted.is_some(),
            span: tensor.name.span,
        });
    }
    for scalar in &tree.scalars {
        let ty = match dtype(&scalar.ty.text) {
            Some(ty @ (Dtype::F32 | Dtype::I32)) => ty,
            Some(Dtype::F16 | Dtype::Bf16) | None => {
                let what = format!("the scalar `{}`", scalar.name.text);
                sink.report(types::element(scalar.ty.span, &what, "`f32` or `i32`", &scalar.ty.text));
                Dtype::F32
            }
        };
        spec.scalars.push(ScalarDecl {
            name: scalar.name.text.clone(),
            ty,
            span: scalar.name.span,
        });
    }
    pins(&tree.pins, spec, sink);
}

fn type_set(set: &ast::TypeSet, sink: &mut Sink) -> TypeSet {
    let mut members: Vec<Dtype> = Vec::new();
    for member in &set.members {
        match dtype(&member.text) {
            Some(dtype @ (Dtype::F16 | Dtype::Bf16 | Dtype::F32)) if !members.contains(&dtype) => members.push(dtype),
            Some(Dtype::F16 | Dtype::Bf16 | Dtype::F32) => {
                let found = format!("`{}` again", member.text);
                sink.report(limits::bad_set(member.span, "each member of a set once", &found));
            }
            Some(Dtype::I32) | None => {
                let what = format!("a member of `{}`", set.name.text);
                sink.report(types::element(
                    member.span,
                    &what,
                    "`f16`, `bf16` or `f32`",
                    &member.text,
                ));
            }
        }
    }
    TypeSet {
        name: set.name.text.clone(),
        members,
        span: set.name.span,
    }
}

fn axis(tree: &ast::Attention, id: AxisId, axis: &ast::Axis, scope: &mut Scope, sink: &mut Sink) -> AxisDecl {
    let role = match axis.role {
        None => AxisRole::Plain,
        Some(ast::Role::Query(align)) => AxisRole::Query(align),
        Some(ast::Role::Key) => AxisRole::Key,
    };
    let size = match &axis.size {
        ast::Size::Runtime => AxisSize::Runtime,
        ast::Size::OneOf(sizes) => AxisSize::OneOf(numbers(sizes, sink)),
        ast::Size::Grouped { of, ratios } => {
            let ratios = numbers(ratios, sink);
            match scope.axis(of, sink) {
                Ok(parent) => {
                    let declared = &tree.axes[parent.index()];
                    let wrong = match (&declared.size, declared.role) {
                        _ if parent == id => Some("the axis itself"),
                        (ast::Size::Grouped { .. }, _) => Some("which is grouped itself"),
                        (_, Some(ast::Role::Query(_))) => Some("a query axis"),
                        (_, Some(ast::Role::Key)) => Some("a key axis"),
                        (ast::Size::Runtime | ast::Size::OneOf(_), None) => None,
                    };
                    if let Some(wrong) = wrong {
                        sink.report(shapes::bad_group(of.span, &axis.name.text, &of.text, wrong));
                    }
                    if let (ast::Size::OneOf(sizes), [ratio, ..]) = (&declared.size, &ratios[..])
                        && let Some(size) = sizes.iter().find(|s| ratios.iter().any(|r| s.value % r.max(&1) != 0))
                    {
                        let what = format!("sizes of `{}` that every ratio such as {ratio} divides", of.text);
                        sink.report(limits::bad_set(size.span, &what, &size.value.to_string()));
                    }
                    AxisSize::Grouped { of: parent, ratios }
                }
                Err(Reported) => AxisSize::Runtime,
            }
        }
    };
    AxisDecl {
        name: axis.name.text.clone(),
        size,
        role,
        span: axis.name.span,
    }
}

/// The members of a set of sizes or ratios: positive, each once.
fn numbers(set: &[ast::Number], sink: &mut Sink) -> Vec<u32> {
    let mut members: Vec<u32> = Vec::new();
    for number in set {
        if number.value == 0 {
            sink.report(limits::bad_set(number.span, "a number of at least 1", "0"));
        } else if members.len() >= MAX_BINDINGS {
            sink.report(limits::too_many(
                number.span,
                "members of a set",
                MAX_BINDINGS,
                set.len(),
            ));
            break;
        } else if members.contains(&number.value) {
            let found = format!("{} again", number.value);
            sink.report(limits::bad_set(number.span, "each member of a set once", &found));
        } else {
            members.push(number.value);
        }
    }
    members
}

/// The element type of this name.
pub fn elem_type(name: &ast::Name, what: &str, scope: &mut Scope, sink: &mut Sink) -> Result<ElemType, Reported> {
    if let Some(dtype) = dtype(&name.text) {
        return Ok(ElemType::Fixed(dtype));
    }
    match scope.get(&name.text) {
        Some((Entity::Type(set), _)) => Ok(ElemType::Set(set)),
        Some((other, at)) => {
            let expected = "an element type";
            Err(sink.report(names::wrong_kind(
                name.span,
                expected,
                &name.text,
                other.describe(),
                Some(at),
            )))
        }
        None => {
            let expected = "`f16`, `bf16`, `f32`, `i32` or a `type` set";
            Err(sink.report(types::element(name.span, what, expected, &name.text)))
        }
    }
}

/// The element type and the axes of a tensor.
pub fn shape(
    name: &ast::Name,
    ty: &ast::Name,
    axes: &[ast::Name],
    scope: &mut Scope,
    spec: &Spec,
    sink: &mut Sink,
) -> (Result<ElemType, Reported>, Vec<AxisId>) {
    let elem = elem_type(ty, &format!("`{}`", name.text), scope, sink);
    if axes.len() > 8 {
        let at = axes
            .first()
            .map_or(name.span, |a| a.span)
            .to(axes.last().map_or(name.span, |a| a.span));
        sink.report(limits::too_many(at, "axes of a tensor", 8, axes.len()));
        return (elem, Vec::new());
    }
    let mut ids: Vec<AxisId> = Vec::new();
    for axis in axes {
        let Ok(id) = scope.axis(axis, sink) else { continue };
        if ids.contains(&id) {
            sink.report(shapes::repeated_axis(axis.span, &name.text, &axis.text));
            continue;
        }
        let kin = ids.iter().find_map(
            |&other| match (&spec.axes[id.index()].size, &spec.axes[other.index()].size) {
                (AxisSize::Grouped { of, .. }, _) if *of == other => Some((id, other)),
                (_, AxisSize::Grouped { of, .. }) if *of == id => Some((other, id)),
                _ => None,
            },
        );
        if let Some((group, member)) = kin {
            let (group, member) = (&spec.axes[group.index()].name, &spec.axes[member.index()].name);
            sink.report(shapes::group_and_member(axis.span, &name.text, group, member));
        }
        ids.push(id);
    }
    (elem, ids)
}

fn pins(pins: &[ast::Pin], spec: &mut Spec, sink: &mut Sink) {
    let mut seen: Vec<(Option<&str>, &str, Span)> = Vec::new();
    for pin in pins {
        let (target, field) = (pin.target.as_ref().map(|t| t.text.as_str()), pin.field.text.as_str());
        if !PINS.contains(&field) {
            sink.report(syntax::unknown_word(
                pin.field.span,
                "a field of the schedule",
                field,
                &PINS,
            ));
        }
        if let Some(name) = &pin.target
            && !is_target(&name.text)
        {
            let words = ["sm_80", "sm_90a"];
            sink.report(syntax::unknown_word(name.span, "a target", &name.text, &words));
        }
        if pin.value.value == 0 {
            sink.report(limits::bad_set(pin.value.span, "a number of at least 1", "0"));
        }
        match seen.iter().find(|(t, f, _)| *t == target && *f == field) {
            Some((_, _, first)) => {
                sink.report(syntax::repeated(pin.field.span, &format!("`{field}`"), *first));
            }
            None => seen.push((target, field, pin.field.span)),
        }
        spec.tile.push(Pin {
            target: target.map(str::to_owned),
            field: field.to_owned(),
            value: pin.value.value,
            span: pin.field.span,
        });
    }
    // The order of pins means nothing.
    spec.tile
        .sort_by(|a, b| (&a.target, &a.field).cmp(&(&b.target, &b.field)));
}

/// `sm_80`, `sm_90a`: an instruction set.
fn is_target(name: &str) -> bool {
    name.strip_prefix("sm_").is_some_and(|n| {
        let digits = n.trim_end_matches(['a', 'f']);
        n.len() - digits.len() <= 1 && (2..=3).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit())
    })
}
