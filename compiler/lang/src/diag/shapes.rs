//! `A04xx`: tensors and axes that do not fit together.
//!
//! In: names and places. Out: one [`Diagnostic`] per function; its doc comment is the manual page.

use super::{Diagnostic, Span};

/// A tensor lacks an axis that its part in the stage needs: queries have the query axis, keys and values the key axis,
/// and all three end with a feature axis.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, d = 64;
///     input q: f16[b, h, i, d], k: f16[b, h, d], v: f16[b, h, j, d];
///     attend o over j in (k, v) { score = dot(q, k); norm = softmax; }
///     output o: f16[b, h, i, d];
/// }
/// ```
pub fn missing_axis(span: Span, tensor: &str, axis: &str, why: &str) -> Diagnostic {
    Diagnostic::new(
        "A0401",
        span,
        format!("expected `{tensor}` to have {axis}, {why}, found none"),
    )
}

/// A tensor has an axis that its part in the stage excludes.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, d = 64;
///     input q: f16[b, h, i, d], k: f16[b, h, i, j, d], v: f16[b, h, j, d];
///     attend o over j in (k, v) { score = dot(q, k); norm = softmax; }
///     output o: f16[b, h, i, d];
/// }
/// ```
pub fn excess_axis(span: Span, tensor: &str, axis: &str, why: &str) -> Diagnostic {
    Diagnostic::new(
        "A0402",
        span,
        format!("expected `{tensor}` without the axis `{axis}`, found it ({why})"),
    )
}

/// An axis twice in one tensor.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, d = 64;
///     input q: f16[b, h, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d];
///     attend o over j in (k, v) { score = dot(q, k); norm = softmax; }
///     output o: f16[b, h, i, d];
/// }
/// ```
pub fn repeated_axis(span: Span, tensor: &str, axis: &str) -> Diagnostic {
    Diagnostic::new(
        "A0403",
        span,
        format!("expected each axis of `{tensor}` once, found `{axis}` again"),
    )
}

/// `dot(q, k)` where the last axes of the two differ. The product sums over the feature axis, which is the last one of
/// both and has a size known when the spec is compiled.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, d = 64, e = 64;
///     input q: f16[b, h, i, d], k: f16[b, h, j, e], v: f16[b, h, j, d];
///     attend o over j in (k, v) { score = dot(q, k); norm = softmax; }
///     output o: f16[b, h, i, d];
/// }
/// ```
pub fn no_common_feature(span: Span, q: (&str, &str), k: (&str, &str)) -> Diagnostic {
    Diagnostic::new(
        "A0404",
        span,
        format!(
            "expected one feature axis at the end of both operands of `dot`, found `{}` at the end of `{}` and `{}` at \
             the end of `{}`",
            q.1, q.0, k.1, k.0
        ),
    )
}

/// `dot(k, q)`: the operands are swapped.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, d = 64;
///     input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d];
///     attend o over j in (k, v) { score = dot(k, q); norm = softmax; }
///     output o: f16[b, h, i, d];
/// }
/// ```
pub fn swapped_dot(span: Span, q: &str, k: &str) -> Diagnostic {
    Diagnostic::new(
        "A0405",
        span,
        "expected the queries before the keys in `dot`, found them swapped",
    )
    .help(format!("write `dot({q}, {k})`"))
}

/// A score without `dot`. In this version a score is made from one product of queries and keys.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, d = 64;
///     input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d];
///     attend o over j in (k, v) { score = 1.0; norm = softmax; }
///     output o: f16[b, h, i, d];
/// }
/// ```
pub fn no_dot(span: Span, k: &str) -> Diagnostic {
    Diagnostic::new(
        "A0406",
        span,
        format!("expected `dot(…, {k})` in the score, found none"),
    )
}

/// Two different products in one score, or a product with a tensor that is not the key of the stage.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, d = 64;
///     input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d];
///     attend o over j in (k, v) { score = dot(q, k) + dot(q, v); norm = softmax; }
///     output o: f16[b, h, i, d];
/// }
/// ```
pub fn other_dot(span: Span, expected: &str, found: &str) -> Diagnostic {
    Diagnostic::new(
        "A0407",
        span,
        format!("expected `{expected}`, the product of this score, found `{found}`"),
    )
    .help("this version has one product per score")
}

/// An output does not have exactly the axes of what it holds: those of the queries, and for the result of a stage the
/// feature axis of the values at the end.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, d = 64;
///     input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d];
///     attend o over j in (k, v) { score = dot(q, k); norm = softmax; }
///     output o: f16[b, i, d];
/// }
/// ```
pub fn output_axes(span: Span, output: &str, expected: &[&str], found: &[&str]) -> Diagnostic {
    Diagnostic::new(
        "A0408",
        span,
        format!(
            "expected the axes [{}] for `{output}`, found [{}]",
            expected.join(", "),
            found.join(", ")
        ),
    )
}

/// A feature axis whose size is not known when the spec is compiled.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, d;
///     input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d];
///     attend o over j in (k, v) { score = dot(q, k); norm = softmax; }
///     output o: f16[b, h, i, d];
/// }
/// ```
pub fn runtime_feature(span: Span, axis: &str) -> Diagnostic {
    Diagnostic::new(
        "A0409",
        span,
        format!("expected constant sizes for the feature axis `{axis}`, found none"),
    )
    .help(format!("list the sizes to compile: `{axis} in [64, 128]`"))
}

/// The size of a feature axis is not one that tensor cores take: a multiple of 8 from 8 to 256.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, d = 60;
///     input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d];
///     attend o over j in (k, v) { score = dot(q, k); norm = softmax; }
///     output o: f16[b, h, i, d];
/// }
/// ```
pub fn feature_size(span: Span, axis: &str, found: u32) -> Diagnostic {
    Diagnostic::new(
        "A0410",
        span,
        format!("expected multiples of 8 from 8 to 256 as sizes of the feature axis `{axis}`, found {found}"),
    )
}

/// An index on an axis that has no value here: expressions are evaluated for each query row and key, so they know the
/// axes of the queries (without the feature axis), the key axis, and axes grouped from these.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, d = 64;
///     input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d];
///     attend o over j in (k, v) { score = dot(q, k) * d; norm = softmax; }
///     output o: f16[b, h, i, d];
/// }
/// ```
pub fn no_index(span: Span, axis: &str, available: &[&str]) -> Diagnostic {
    Diagnostic::new(
        "A0411",
        span,
        format!(
            "expected the index of one of [{}], found `{axis}`",
            available.join(", ")
        ),
    )
    .help(format!("its size is `len({axis})`"))
}

/// A tensor is indexed with too many or too few indices.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, d = 64;
///     input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d], bias: f32[h, j];
///     attend o over j in (k, v) { score = dot(q, k) + bias[h]; norm = softmax; }
///     output o: f16[b, h, i, d];
/// }
/// ```
pub fn index_count(span: Span, tensor: &str, axes: &[&str], found: usize) -> Diagnostic {
    Diagnostic::new(
        "A0412",
        span,
        format!(
            "expected {} indices for `{tensor}[{}]`, found {found}",
            axes.len(),
            axes.join(", ")
        ),
    )
}

/// A grouped axis must be grouped from a plain axis of run-time or constant size that is not grouped itself.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, g = i / 2, d = 64;
///     input q: f16[b, h, i, d], k: f16[b, g, j, d], v: f16[b, h, j, d];
///     attend o over j in (k, v) { score = dot(q, k); norm = softmax; }
///     output o: f16[b, h, i, d];
/// }
/// ```
pub fn bad_group(span: Span, axis: &str, of: &str, found: &str) -> Diagnostic {
    Diagnostic::new(
        "A0413",
        span,
        format!("expected `{axis}` to be grouped from a plain axis, found `{of}`, {found}"),
    )
}

/// An axis and one grouped from it in the same tensor: the one follows from the other.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, g = h / 2, d = 64;
///     input q: f16[b, h, i, d], k: f16[b, h, g, j, d], v: f16[b, h, j, d];
///     attend o over j in (k, v) { score = dot(q, k); norm = softmax; }
///     output o: f16[b, h, i, d];
/// }
/// ```
pub fn group_and_member(span: Span, tensor: &str, group: &str, member: &str) -> Diagnostic {
    Diagnostic::new(
        "A0414",
        span,
        format!("expected `{tensor}` to have one of `{member}` and `{group}`, which is grouped from it, found both"),
    )
}

/// `same(doc)` needs an `i32` input with the key axis, such as `doc: i32[b, j]`: it compares the entry at the query's
/// position with the entry at the key.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, d = 64;
///     input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d], doc: f32[b, j];
///     attend o over j in (k, v) { score = dot(q, k); mask = same(doc); norm = softmax; }
///     output o: f16[b, h, i, d];
/// }
/// ```
pub fn bad_same(span: Span, tensor: &str, found: &str) -> Diagnostic {
    Diagnostic::new(
        "A0415",
        span,
        format!(
            "expected an `i32` input with the key axis and without the query axis for `same`, found `{tensor}`, {found}"
        ),
    )
}

/// `sorted` promises that whole numbers never decrease along the last axis; other inputs cannot be sorted.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, d = 64;
///     input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d], bias: f32[b, j] sorted;
///     attend o over j in (k, v) { score = dot(q, k) + bias[b, j]; norm = softmax; }
///     output o: f16[b, h, i, d];
/// }
/// ```
pub fn bad_sorted(span: Span, tensor: &str, found: &str) -> Diagnostic {
    Diagnostic::new(
        "A0416",
        span,
        format!("expected `sorted` on an `i32` input, found it on `{tensor}`, of type `{found}`"),
    )
}

/// The stage needs exactly one query axis.
///
/// ```attn
/// attention a {
///     axis b, h, i, j: key, d = 64;
///     input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d];
///     attend o over j in (k, v) { score = dot(q, k); norm = softmax; }
///     output o: f16[b, h, i, d];
/// }
/// ```
pub fn query_axes(span: Span, found: usize) -> Diagnostic {
    Diagnostic::new(
        "A0417",
        span,
        format!("expected one query axis in the spec, found {found}"),
    )
    .help("declare one with its alignment: `axis i: query(end);`")
}

/// The result of a stage is not among the outputs, or a spec has no stage at all.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, d = 64;
///     input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d];
///     attend o over j in (k, v) { score = dot(q, k); norm = softmax; }
///     output lse(o): f32[b, h, i];
/// }
/// ```
pub fn no_output(span: Span, stage: &str) -> Diagnostic {
    Diagnostic::new(
        "A0418",
        span,
        format!("expected an output for the stage `{stage}`, found none"),
    )
    .help(format!("add `output {stage}: T[…];`"))
}

/// An axis that no input has: its size would be unknown at launch.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, n, d = 64;
///     input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d];
///     attend o over j in (k, v) { score = dot(q, k) * len(n); norm = softmax; }
///     output o: f16[b, h, i, d];
/// }
/// ```
pub fn sizeless(span: Span, axis: &str) -> Diagnostic {
    Diagnostic::new(
        "A0419",
        span,
        format!("expected an input with the axis `{axis}`, found none, so its size is unknown"),
    )
}

/// A spec without a stage computes nothing.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, d = 64;
///     input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d];
/// }
/// ```
pub fn no_stage(span: Span, name: &str) -> Diagnostic {
    Diagnostic::new(
        "A0420",
        span,
        format!("expected a stage in `attention {name}`, found none"),
    )
    .help("add `attend o over j in (k, v) { … }`")
}

/// An input with the query axis holds one entry per query row, so its index there is the axis itself; another position
/// may have no row. Tables that are read at any position have the key axis, or an axis of their own.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, d = 64;
///     input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d], w: f32[b, i];
///     attend o over j in (k, v) { score = dot(q, k) * w[b, i - 1]; norm = softmax; }
///     output o: f16[b, h, i, d];
/// }
/// ```
pub fn query_index(span: Span, tensor: &str, axis: &str) -> Diagnostic {
    Diagnostic::new(
        "A0421",
        span,
        format!("expected `{axis}` as index on the query axis of `{tensor}`, found an expression"),
    )
    .help(format!("index it with `{axis}` itself, or give it an axis of its own"))
}
