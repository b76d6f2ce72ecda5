//! `A02xx`: names that mean nothing, too much, or something else.
//!
//! In: the name, its place and what is known of it. Out: one [`Diagnostic`] per function; its doc comment is the manual
//! page.

use super::{Diagnostic, Span, closest};

fn cut(name: &str) -> String {
    name.chars().take(40).collect()
}

/// A name that nothing declares. The names that would do are `known`; `words` are those of the language.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, d = 64;
///     input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d];
///     attend o over j in (k, v) { score = dot(q, kk); norm = softmax; }
///     output o: f16[b, h, i, d];
/// }
/// ```
pub fn unknown(span: Span, what: &str, name: &str, known: &[&str], words: &[&str]) -> Diagnostic {
    let diagnostic = Diagnostic::new(
        "A0201",
        span,
        format!(
            "expected the name of {what}, found `{}`, which is not declared",
            cut(name)
        ),
    );
    match closest(name, known.iter().chain(words).copied()) {
        Some(word) => diagnostic.help(format!("did you mean `{word}`?")),
        None if known.is_empty() => diagnostic.help("none is declared"),
        None => diagnostic.help(format!("declared are: {}", known.join(", "))),
    }
}

/// A name is declared twice. Types, axes, inputs, scalars and stages share one space of names, because expressions use
/// them side by side.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, d = 64, b;
///     input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d];
///     attend o over j in (k, v) { score = dot(q, k); norm = softmax; }
///     output o: f16[b, h, i, d];
/// }
/// ```
pub fn duplicate(span: Span, name: &str, first: Span) -> Diagnostic {
    Diagnostic::new(
        "A0202",
        span,
        format!("expected a new name, found `{}`, which is declared already", cut(name)),
    )
    .related(first, "first declared here")
}

/// A name that cannot be declared: a keyword of Rust, in which the launcher has fields of these names, a word that
/// expressions use, or a name with letters outside of ASCII.
///
/// ```attn
/// attention a {
///     axis loop, h, i: query(end), j: key, d = 64;
///     input q: f16[loop, h, i, d], k: f16[loop, h, j, d], v: f16[loop, h, j, d];
///     attend o over j in (k, v) { score = dot(q, k); norm = softmax; }
///     output o: f16[loop, h, i, d];
/// }
/// ```
pub fn reserved(span: Span, name: &str, why: &str) -> Diagnostic {
    Diagnostic::new(
        "A0203",
        span,
        format!("expected a free name, found `{}`, {why}", cut(name)),
    )
    .help("choose another name")
}

/// Something is declared and never used. It would be an argument that every caller must give for nothing, and is
/// usually a mistyped name elsewhere.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, d = 64;
///     input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d], bias: f32[h];
///     attend o over j in (k, v) { score = dot(q, k); norm = softmax; }
///     output o: f16[b, h, i, d];
/// }
/// ```
pub fn unused(span: Span, what: &str, name: &str) -> Diagnostic {
    Diagnostic::new(
        "A0204",
        span,
        format!("expected a use of the {what} `{}`, found none", cut(name)),
    )
    .help("use it or remove it")
}

/// A name that stands for another kind of thing than is wanted here, such as an input where an axis must be named.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, d = 64;
///     input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d];
///     attend o over j in (k, j) { score = dot(q, k); norm = softmax; }
///     output o: f16[b, h, i, d];
/// }
/// ```
pub fn wrong_kind(span: Span, expected: &str, name: &str, found: &str, declared: Option<Span>) -> Diagnostic {
    let name = cut(name);
    let diagnostic = Diagnostic::new(
        "A0205",
        span,
        format!("expected {expected}, found `{name}`, which is {found}"),
    );
    match declared {
        Some(declared) => diagnostic.related(declared, "declared here"),
        None => diagnostic,
    }
}

/// Two specs of one file or call have the same name.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, d = 64;
///     input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d];
///     attend o over j in (k, v) { score = dot(q, k); norm = softmax; }
///     output o: f16[b, h, i, d];
/// }
/// attention a {
///     axis b, h, i: query(end), j: key, d = 64;
///     input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d];
///     attend o over j in (k, v) { score = dot(q, k); norm = softmax; }
///     output o: f16[b, h, i, d];
/// }
/// ```
pub fn duplicate_spec(span: Span, name: &str, first: Span) -> Diagnostic {
    Diagnostic::new(
        "A0206",
        span,
        format!("expected a new name, found a second `attention {}`", cut(name)),
    )
    .related(first, "the first one")
}
