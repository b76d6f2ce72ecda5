//! `A05xx`: sizes and counts out of bounds; `A06xx`: words that a later version will know.
//!
//! In: what, given, limit. Out: one [`Diagnostic`] per function; its doc comment is the manual page.

use super::{Diagnostic, Span};

/// Parentheses, operators or `if`s are nested too deep. The bound keeps the compiler from running out of stack.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, d = 64;
///     input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d];
///     attend o over j in (k, v) { score = dot(q, k) * ----------------------------------------------------------------------1.0; norm = softmax; }
///     output o: f16[b, h, i, d];
/// }
/// ```
pub fn too_deep(span: Span, limit: usize) -> Diagnostic {
    Diagnostic::new(
        "A0501",
        span,
        format!("expected at most {limit} levels of nesting, found more"),
    )
    .help("split a long chain with parentheses, or move a part into a table")
}

/// A number is too large: integers are 32 bits wide on the GPU, and reals are `f32`.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, d = 64;
///     input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d];
///     attend o over j in (k, v) { score = dot(q, k); mask = i - j < 3000000000; norm = softmax; }
///     output o: f16[b, h, i, d];
/// }
/// ```
pub fn number_range(span: Span, expected: &str, found: &str) -> Diagnostic {
    let found: String = found.chars().take(40).collect();
    Diagnostic::new("A0502", span, format!("expected {expected}, found {found}"))
}

/// Too many of something: declarations, expressions, or combinations of types and sizes to compile.
///
/// ```attn
/// attention a {
///     axis b, c, e, f, g, h, i: query(end), j: key, d = 64;
///     input q: f16[b, c, e, f, g, h, i, d], k: f16[b, c, e, f, g, h, j, d], v: f16[b, c, e, f, g, h, j, d];
///     input bias: f32[b, c, e, f, g, h, i, j, d];
///     attend o over j in (k, v) { score = dot(q, k); norm = softmax; }
///     output o: f16[b, c, e, f, g, h, i, d];
/// }
/// ```
pub fn too_many(span: Span, what: &str, limit: usize, found: usize) -> Diagnostic {
    Diagnostic::new("A0503", span, format!("expected at most {limit} {what}, found {found}"))
}

/// A file longer than any spec.
///
/// ```attn 70000 times
/// attention a {}
/// ```
pub fn too_long(span: Span, limit: usize, unit: &str) -> Diagnostic {
    Diagnostic::new("A0504", span, format!("expected at most {limit} {unit}, found more"))
}

/// The expressions of a spec are within the limits as written, but not after its named patterns have been expanded into
/// comparisons, which is the form in which a spec is kept beside its kernels.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, d = 64;
///     input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d];
///     attend o over j in (k, v) { score = dot(q, k); mask = !!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!causal; norm = softmax; }
///     output o: f16[b, h, i, d];
/// }
/// ```
pub fn expanded(span: Span, name: &str) -> Diagnostic {
    let message =
        format!("expected `{name}` to keep the limits when its patterns are expanded, found it too deep or large");
    Diagnostic::new("A0506", span, message).help("simplify its score and mask, or move a part into a table")
}

/// A set with a member twice, or without members.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, d in [64, 64];
///     input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d];
///     attend o over j in (k, v) { score = dot(q, k); norm = softmax; }
///     output o: f16[b, h, i, d];
/// }
/// ```
pub fn bad_set(span: Span, what: &str, found: &str) -> Diagnostic {
    Diagnostic::new("A0505", span, format!("expected {what}, found {found}"))
}

/// A word of the language that this version does not have yet. It is reserved, so that specs written today keep their
/// meaning.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, d = 64;
///     input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d];
///     attend o over j in (k, v) { score = dot(q, k); norm = softmax; }
///     fold s over j { lift = v; }
///     output o: f16[b, h, i, d];
/// }
/// ```
pub fn not_yet(span: Span, what: &str) -> Diagnostic {
    Diagnostic::new(
        "A0601",
        span,
        format!("expected words of this version, found {what}, which is not in this version"),
    )
}
