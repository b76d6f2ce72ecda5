//! The canonical form of a spec, version 1, and the key made from it.
//!
//! In: a checked [`Spec`]. Out: a text that parses back into an equal spec (documentation and visibility excepted, which
//! are not part of what is compiled). Names, orders of declarations and pins are kept; comments, layout, redundant
//! parentheses and named patterns are not. **Version 1 is frozen**: a published artifact is found by the hash of this
//! text, so whatever is printed today is printed for ever; a change is a version 2 beside it.

use crate::check::{binary_name, type_name, unary_name};
use crate::manifest::ABI;
use crate::spec::{
    Align, Attend, AxisId, AxisRole, AxisSize, BinaryOp, Binding, ExprId, ExprKind, LseBase, Norm, OutputValue, Spec,
    Stage, UnaryOp,
};
use std::fmt::Write;

/// The spec in canonical form, version 1.
pub fn canonical(spec: &Spec) -> String {
    let mut out = format!("attention {} {{\n", spec.name);
    for set in &spec.types {
        let members: Vec<String> = set.members.iter().map(ToString::to_string).collect();
        let _ = writeln!(out, "type {} in [{}];", set.name, members.join(", "));
    }
    for axis in &spec.axes {
        let role = match axis.role {
            AxisRole::Plain => "",
            AxisRole::Query(Align::End) => ": query(end)",
            AxisRole::Query(Align::Start) => ": query(start)",
            AxisRole::Key => ": key",
        };
        let size = match &axis.size {
            AxisSize::Runtime => String::new(),
            AxisSize::OneOf(sizes) => format!(" in [{}]", numbers(sizes)),
            AxisSize::Grouped { of, ratios } => {
                format!(" = {} / [{}]", spec.axes[of.index()].name, numbers(ratios))
            }
        };
        let _ = writeln!(out, "axis {}{role}{size};", axis.name);
    }
    for input in &spec.inputs {
        let sorted = if input.sorted { " sorted" } else { "" };
        let (ty, axes) = (type_name(spec, input.ty), names(spec, &input.axes));
        let _ = writeln!(out, "input {}: {ty}[{axes}]{sorted};", input.name);
    }
    for scalar in &spec.scalars {
        let _ = writeln!(out, "scalar {}: {};", scalar.name, scalar.ty);
    }
    for stage in &spec.stages {
        let Stage::Attend(attend) = stage;
        self::attend(spec, attend, &mut out);
    }
    for output in &spec.outputs {
        let value = match output.value {
            OutputValue::Stage(_) => output.name.clone(),
            OutputValue::Lse { stage, base } => {
                let Stage::Attend(stage) = &spec.stages[stage];
                let base = match base {
                    LseBase::Nats => "nats",
                    LseBase::Bits => "bits",
                };
                format!("lse({}, {base})", stage.name)
            }
        };
        let _ = writeln!(
            out,
            "output {value}: {}[{}];",
            type_name(spec, output.ty),
            names(spec, &output.axes)
        );
    }
    if !spec.tile.is_empty() {
        out.push_str("tile {\n");
        for pin in &spec.tile {
            let target = pin.target.as_ref().map(|t| format!("{t}.")).unwrap_or_default();
            let _ = writeln!(out, "{target}{} = {};", pin.field, pin.value);
        }
        out.push_str("}\n");
    }
    out.push_str("}\n");
    out
}

/// The key of the spec's artifact: SHA-256 over the canonical form and the artifact ABI, 64 hex digits.
pub fn key(spec: &Spec) -> String {
    key_of(&canonical(spec))
}

/// The key of a canonical text, for whoever has no spec at hand.
pub fn key_of(canonical: &str) -> String {
    crate::artifact::sha256_hex(format!("drawloom-spec-1\nabi {ABI}\n{canonical}").as_bytes())
}

/// Every combination of types and sizes that the spec lists; the last axis varies fastest. At most 512.
pub fn bindings(spec: &Spec) -> Vec<Binding> {
    let mut all = vec![Binding {
        types: Vec::new(),
        sizes: Vec::new(),
    }];
    for set in &spec.types {
        all = all
            .iter()
            .flat_map(|b| {
                set.members.iter().map(|m| Binding {
                    types: [&b.types[..], &[*m]].concat(),
                    ..b.clone()
                })
            })
            .collect();
    }
    for axis in &spec.axes {
        let sizes: Vec<Option<u32>> = match &axis.size {
            AxisSize::OneOf(sizes) => sizes.iter().copied().map(Some).collect(),
            AxisSize::Runtime | AxisSize::Grouped { .. } => vec![None],
        };
        all = all
            .iter()
            .flat_map(|b| {
                sizes.iter().map(|s| Binding {
                    sizes: [&b.sizes[..], &[*s]].concat(),
                    ..b.clone()
                })
            })
            .collect();
    }
    all
}

fn numbers(numbers: &[u32]) -> String {
    let words: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    words.join(", ")
}

fn names(spec: &Spec, axes: &[AxisId]) -> String {
    let words: Vec<&str> = axes.iter().map(|a| spec.axes[a.index()].name.as_str()).collect();
    words.join(", ")
}

fn attend(spec: &Spec, attend: &Attend, out: &mut String) {
    let (k, v) = (&spec.inputs[attend.k.index()].name, &spec.inputs[attend.v.index()].name);
    let _ = writeln!(
        out,
        "attend {} over {} in ({k}, {v}) {{",
        attend.name,
        spec.axes[attend.key.index()].name
    );
    let _ = writeln!(out, "score = {};", expression(spec, attend.score));
    if let Some(mask) = attend.mask {
        let _ = writeln!(out, "mask = {};", expression(spec, mask));
    }
    let norm = match attend.norm {
        Norm::Softmax => "softmax",
    };
    let _ = writeln!(out, "norm = {norm};\n}}");
}

/// An expression of the spec as text, with the parentheses that it needs.
pub fn expression(spec: &Spec, at: ExprId) -> String {
    let mut out = String::new();
    print(spec, at, 0, &mut out);
    out
}

/// How tight an operator binds; functions and `if` bind tightest, as they bring their own delimiters.
fn tightness(op: BinaryOp) -> u8 {
    match op {
        BinaryOp::Or => 1,
        BinaryOp::And => 2,
        BinaryOp::Lt | BinaryOp::Le | BinaryOp::Gt | BinaryOp::Ge | BinaryOp::Eq | BinaryOp::Ne => 3,
        BinaryOp::Add | BinaryOp::Sub => 4,
        BinaryOp::Mul | BinaryOp::Div | BinaryOp::Rem => 5,
        BinaryOp::Min | BinaryOp::Max => 7,
    }
}

const UNARY: u8 = 6;

/// Prints an expression where operators that bind less than `least` need parentheses.
fn print(spec: &Spec, at: ExprId, least: u8, out: &mut String) {
    let list = |ids: &[ExprId], out: &mut String| {
        for (n, id) in ids.iter().enumerate() {
            if n > 0 {
                out.push_str(", ");
            }
            print(spec, *id, 0, out);
        }
    };
    match &spec.exprs[at.index()].kind {
        // `{:?}` prints the shortest text that reads back as the same number.
        ExprKind::Real(value) => {
            let _ = write!(out, "{value:?}");
        }
        ExprKind::Int(value) => {
            let _ = write!(out, "{value}");
        }
        ExprKind::Bool(value) => {
            let _ = write!(out, "{value}");
        }
        ExprKind::Index(axis) => out.push_str(&spec.axes[axis.index()].name),
        ExprKind::Len(axis) => {
            let _ = write!(out, "len({})", spec.axes[axis.index()].name);
        }
        ExprKind::Scalar(scalar) => out.push_str(&spec.scalars[scalar.index()].name),
        ExprKind::Load { input, at } => {
            let _ = write!(out, "{}[", spec.inputs[input.index()].name);
            list(at, out);
            out.push(']');
        }
        ExprKind::Dot { a, b, .. } => {
            let _ = write!(
                out,
                "dot({}, {})",
                spec.inputs[a.index()].name,
                spec.inputs[b.index()].name
            );
        }
        // Conversions are implied.
        ExprKind::Unary(UnaryOp::ToReal, a) => print(spec, *a, least, out),
        ExprKind::Unary(op @ (UnaryOp::Neg | UnaryOp::Not), a) => {
            out.push_str(unary_name(*op));
            print(spec, *a, UNARY, out);
        }
        ExprKind::Unary(op, a) => {
            let _ = write!(out, "{}(", unary_name(*op));
            print(spec, *a, 0, out);
            out.push(')');
        }
        ExprKind::Binary(op @ (BinaryOp::Min | BinaryOp::Max), a, b) => {
            let _ = write!(out, "{}(", binary_name(*op));
            list(&[*a, *b], out);
            out.push(')');
        }
        ExprKind::Binary(op, a, b) => {
            let own = tightness(*op);
            if own < least {
                out.push('(');
            }
            // Operators of one tightness group to the left; comparisons do not group at all.
            print(spec, *a, if own == 3 { own + 1 } else { own }, out);
            let _ = write!(out, " {} ", binary_name(*op));
            print(spec, *b, own + 1, out);
            if own < least {
                out.push(')');
            }
        }
        ExprKind::If(condition, then, otherwise) => {
            out.push_str("if ");
            print(spec, *condition, 0, out);
            out.push_str(" { ");
            print(spec, *then, 0, out);
            out.push_str(" } else ");
            // A chain stays flat, however long.
            let chain = matches!(spec.exprs[otherwise.index()].kind, ExprKind::If(..));
            if chain {
                print(spec, *otherwise, 0, out);
            } else {
                out.push_str("{ ");
                print(spec, *otherwise, 0, out);
                out.push_str(" }");
            }
        }
    }
}
