//! `A03xx`: expressions and elements of the wrong type.
//!
//! In: the place and both types. Out: one [`Diagnostic`] per function; its doc comment is the manual page.

use super::{Diagnostic, Span, closest};

/// An expression has another type than its place wants. Integers become reals by themselves; nothing else is converted.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, d = 64;
///     input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d];
///     attend o over j in (k, v) { score = dot(q, k); mask = i - j; norm = softmax; }
///     output o: f16[b, h, i, d];
/// }
/// ```
pub fn mismatch(span: Span, place: &str, expected: &str, found: &str) -> Diagnostic {
    let diagnostic = Diagnostic::new("A0301", span, format!("expected {expected} {place}, found {found}"));
    match (expected, found) {
        ("a truth value", _) => diagnostic.help("compare it with something, as in `x != 0`"),
        ("an integer", "a real number") => diagnostic.help("indices and positions are integers; reals are not rounded"),
        (_, "a truth value") => diagnostic.help("choose between two numbers with `if c { a } else { b }`"),
        _ => diagnostic,
    }
}

/// A function or pattern is given too many or too few arguments.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, d = 64;
///     input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d];
///     attend o over j in (k, v) { score = dot(q, k) * exp(1.0, 2.0); norm = softmax; }
///     output o: f16[b, h, i, d];
/// }
/// ```
pub fn argument_count(span: Span, function: &str, expected: &str, found: usize) -> Diagnostic {
    Diagnostic::new(
        "A0302",
        span,
        format!("expected {expected} for `{function}`, found {found}"),
    )
}

/// A pattern without arguments is written as a name, as in `mask = causal`.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, d = 64;
///     input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d];
///     attend o over j in (k, v) { score = dot(q, k); mask = causal(); norm = softmax; }
///     output o: f16[b, h, i, d];
/// }
/// ```
pub fn no_call(span: Span, name: &str) -> Diagnostic {
    Diagnostic::new(
        "A0310",
        span,
        format!("expected `{name}` without parentheses, found a call"),
    )
    .help(format!("write `{name}`"))
}

/// An argument is named where none is, has no name where one is needed, or has an unknown one.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, d = 64;
///     input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d];
///     attend o over j in (k, v) { score = dot(q, k); mask = window(1024); norm = softmax; }
///     output o: f16[b, h, i, d];
/// }
/// ```
pub fn argument_name(span: Span, function: &str, expected: &str, found: &str) -> Diagnostic {
    Diagnostic::new(
        "A0303",
        span,
        format!("expected {expected} for `{function}`, found {found}"),
    )
}

/// An element type that this place does not take. Tensors hold `f16`, `bf16`, `f32` or `i32`; a `type` set holds real
/// types; the operands of the two products are 16 bits wide; scalars are `f32` or `i32`; a log-sum-exp is `f32`.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, d = 64;
///     input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d];
///     attend o over j in (k, v) { score = dot(q, k); norm = softmax; }
///     output o: i32[b, h, i, d];
/// }
/// ```
pub fn element(span: Span, what: &str, expected: &str, found: &str) -> Diagnostic {
    let diagnostic = Diagnostic::new(
        "A0304",
        span,
        format!("expected {expected} for {what}, found `{found}`"),
    );
    let ours = match found {
        "half" | "float16" | "fp16" => "f16",
        "bfloat16" | "bfloat" => "bf16",
        "float" | "float32" | "fp32" => "f32",
        "int" | "int32" => "i32",
        _ => return diagnostic,
    };
    diagnostic.help(format!("write `{ours}`"))
}

/// What is called is none of the functions and mask patterns.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, d = 64;
///     input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d];
///     attend o over j in (k, v) { score = dot(q, k) * rsqr(64.0); norm = softmax; }
///     output o: f16[b, h, i, d];
/// }
/// ```
pub fn not_callable(span: Span, name: &str, known: &[&str]) -> Diagnostic {
    let shown: String = name.chars().take(40).collect();
    let diagnostic = Diagnostic::new(
        "A0305",
        span,
        format!("expected a function or pattern, found `{shown}`"),
    );
    match closest(name, known.iter().copied()) {
        Some(word) => diagnostic.help(format!("did you mean `{word}`?")),
        None => diagnostic.help(format!("there are {}", known.join(", "))),
    }
}

/// A function or pattern stands where it has no meaning, such as `dot` in a mask: a mask is a matter of positions,
/// tables and scalars, which is what lets whole tiles be skipped.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, d = 64;
///     input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d];
///     attend o over j in (k, v) { score = dot(q, k); mask = dot(q, k) > 0.0; norm = softmax; }
///     output o: f16[b, h, i, d];
/// }
/// ```
pub fn misplaced(span: Span, found: &str, expected: &str) -> Diagnostic {
    Diagnostic::new("A0306", span, format!("expected {expected}, found {found}"))
}

/// The left or right side of a window, or the number of sinks, is negative.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, d = 64;
///     input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d];
///     attend o over j in (k, v) { score = dot(q, k); mask = sink(-1); norm = softmax; }
///     output o: f16[b, h, i, d];
/// }
/// ```
pub fn negative(span: Span, what: &str, found: i64) -> Diagnostic {
    Diagnostic::new("A0307", span, format!("expected {what} of at least 0, found {found}"))
}

/// `/` or `%` of an integer by the constant 0.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, d = 64;
///     input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d];
///     attend o over j in (k, v) { score = dot(q, k); mask = i / 0 == j; norm = softmax; }
///     output o: f16[b, h, i, d];
/// }
/// ```
pub fn zero_divisor(span: Span) -> Diagnostic {
    Diagnostic::new("A0308", span, "expected a divisor other than 0, found 0")
}

/// A quotient of two integer literals that does not come out even, used as a real number. Integer quotients are floored,
/// so `1 / 2` is 0.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, d = 64;
///     input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d];
///     attend o over j in (k, v) { score = dot(q, k) * (1 / 8); norm = softmax; }
///     output o: f16[b, h, i, d];
/// }
/// ```
pub fn floored_fraction(span: Span) -> Diagnostic {
    Diagnostic::new(
        "A0309",
        span,
        "expected a real number, found a quotient of integers, which is floored",
    )
    .help("write one of the two with a point, as in `1.0 / 2`")
}
