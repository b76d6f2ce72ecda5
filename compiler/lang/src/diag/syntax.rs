//! `A01xx`: text that is not of the language's form.
//!
//! In: the place and what was found there. Out: one [`Diagnostic`] per function; its doc comment is the manual page.

use super::{Diagnostic, Span, closest, list};

/// A token stands where the grammar wants another one. The message names what may stand there and what was found.
///
/// ```attn
/// attention a {
///     axis b h, i: query(end), j: key, d = 64;
///     input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d];
///     attend o over j in (k, v) { score = dot(q, k); norm = softmax; }
///     output o: f16[b, h, i, d];
/// }
/// ```
pub fn unexpected(span: Span, expected: &str, found: &str) -> Diagnostic {
    let diagnostic = Diagnostic::new("A0101", span, format!("expected {expected}, found {found}"));
    match (expected, found) {
        (_, "`and`") => diagnostic.help("write `&&`"),
        (_, "`or`") => diagnostic.help("write `||`"),
        (_, "`not`") => diagnostic.help("write `!`"),
        ("an expression", "`*`") => diagnostic.help("there are no powers: write `x * x`, or `exp(n * log(x))`"),
        ("`query(end)`, `query(start)` or `key`", _) => diagnostic.help("a size is given with `=`, as in `d = 64`"),
        (_, "`}`") if expected.ends_with("`;`") => diagnostic.help("every statement ends with `;`"),
        _ if expected.ends_with("or `;`") && found.starts_with('`') => {
            diagnostic.help("end the statement before it with `;`")
        }
        _ => diagnostic,
    }
}

/// A character or literal that the language does not use. Specs are made of names, decimal numbers and the marks of
/// expressions; there are no strings or characters in them.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, d = 64;
///     input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d];
///     attend o over j in (k, v) { score = dot(q, k) ^ 2; norm = softmax; }
///     output o: f16[b, h, i, d];
/// }
/// ```
pub fn unknown_token(span: Span, found: &str) -> Diagnostic {
    let shown: String = found.chars().take(40).collect();
    let diagnostic = Diagnostic::new(
        "A0102",
        span,
        format!("expected a name, a number or an operator, found `{shown}`"),
    );
    match found {
        "@" => diagnostic.help("the product of queries and keys is `dot(q, k)`"),
        "?" => diagnostic.help("choose with `if c { a } else { b }`"),
        "^" => diagnostic.help("there are no powers: write `x * x`, or `exp(n * log(x))`"),
        _ => diagnostic,
    }
}

/// An opening parenthesis, bracket or brace has no partner, or a closing one closes another kind than was opened.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, d = 64;
///     input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d];
///     attend o over j in (k, v) { score = dot(q, k; norm = softmax; }
///     output o: f16[b, h, i, d];
/// }
/// ```
pub fn unmatched(span: Span, delimiter: &str, opened: Option<Span>) -> Diagnostic {
    let diagnostic = Diagnostic::new(
        "A0103",
        span,
        format!("expected pairs of delimiters, found `{delimiter}` alone"),
    );
    match opened {
        Some(opened) => diagnostic.related(opened, "opened here"),
        None => diagnostic,
    }
}

/// A comment or a string starts but does not end before the end of the file.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, d = 64;
///     input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d];
///     attend o over j in (k, v) { score = dot(q, k); norm = softmax; }
///     output o: f16[b, h, i, d];
/// }
/// /* and so on
/// ```
pub fn unterminated(span: Span, what: &str) -> Diagnostic {
    Diagnostic::new(
        "A0104",
        span,
        format!("expected the end of the {what}, found the end of the file"),
    )
}

/// A single `&` or `|`. In Rust these bind tighter than comparisons, so that `i >= j & i < n` would not mean what it
/// seems to; the language has `&&` and `||` only.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, d = 64;
///     input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d];
///     attend o over j in (k, v) { score = dot(q, k); mask = i >= j & i < 100; norm = softmax; }
///     output o: f16[b, h, i, d];
/// }
/// ```
pub fn single_and_or(span: Span, operator: &str) -> Diagnostic {
    Diagnostic::new(
        "A0105",
        span,
        format!("expected `{operator}{operator}`, found `{operator}`"),
    )
    .help(format!("write `{operator}{operator}`: Boolean operators are doubled"))
}

/// `=` in an expression. Equality is `==`; `=` only gives a field its value.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, d = 64;
///     input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d];
///     attend o over j in (k, v) { score = dot(q, k); mask = i = j; norm = softmax; }
///     output o: f16[b, h, i, d];
/// }
/// ```
pub fn assignment(span: Span) -> Diagnostic {
    Diagnostic::new("A0106", span, "expected `==`, found `=`").help("write `==` to compare")
}

/// `a < b < c`. A comparison yields a truth value, which cannot be compared with a number.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, d = 64;
///     input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d];
///     attend o over j in (k, v) { score = dot(q, k); mask = 0 <= i - j <= 100; norm = softmax; }
///     output o: f16[b, h, i, d];
/// }
/// ```
pub fn chained_comparison(span: Span) -> Diagnostic {
    Diagnostic::new("A0107", span, "expected one comparison, found a chain of them")
        .help("write `a < b && b < c` in place of `a < b < c`")
}

/// A number in a form that the language does not have: a suffix (`1.0f32`), another base (`0x10`), or no digits.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, d = 64;
///     input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d];
///     attend o over j in (k, v) { score = dot(q, k) * 0.5f32; norm = softmax; }
///     output o: f16[b, h, i, d];
/// }
/// ```
pub fn bad_number(span: Span, found: &str) -> Diagnostic {
    let found: String = found.chars().take(40).collect();
    Diagnostic::new(
        "A0108",
        span,
        format!("expected a decimal number without a suffix, found `{found}`"),
    )
    .help("write it as `16`, `0.5` or `1e-3`")
}

/// `if c { a }` without `else`. Every expression has a value on both ways.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, d = 64;
///     input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d];
///     attend o over j in (k, v) { score = if i > j { dot(q, k) }; norm = softmax; }
///     output o: f16[b, h, i, d];
/// }
/// ```
pub fn if_without_else(span: Span) -> Diagnostic {
    Diagnostic::new("A0109", span, "expected `else` after `if c { … }`, found its end")
        .help("write `if c { a } else { b }`")
}

/// A field of a stage, or the size of an axis, is given twice.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, d = 64;
///     input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d];
///     attend o over j in (k, v) { score = dot(q, k); score = dot(q, k); norm = softmax; }
///     output o: f16[b, h, i, d];
/// }
/// ```
pub fn repeated(span: Span, what: &str, first: Span) -> Diagnostic {
    Diagnostic::new("A0110", span, format!("expected {what} once, found it again")).related(first, "first given here")
}

/// A field that a stage must have is missing. The normaliser is always written out, so that the meaning of a spec never
/// rests on a default.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, d = 64;
///     input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d];
///     attend o over j in (k, v) { score = dot(q, k); }
///     output o: f16[b, h, i, d];
/// }
/// ```
pub fn missing_field(span: Span, stage: &str, field: &str) -> Diagnostic {
    let example = match field {
        "score" => "score = dot(q, k) * rsqrt(len(d));",
        _ => "norm = softmax;",
    };
    Diagnostic::new(
        "A0111",
        span,
        format!("expected a field `{field}` in `attend {stage}`, found none"),
    )
    .help(format!("add one, for example `{example}`"))
}

/// A word that is none of those that may stand here.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(last), j: key, d = 64;
///     input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d];
///     attend o over j in (k, v) { score = dot(q, k); norm = softmax; }
///     output o: f16[b, h, i, d];
/// }
/// ```
pub fn unknown_word(span: Span, what: &str, found: &str, words: &[&str]) -> Diagnostic {
    let shown: String = found.chars().take(40).collect();
    let expected = list(words.iter().copied());
    let diagnostic = Diagnostic::new("A0112", span, format!("expected {what} ({expected}), found `{shown}`"));
    match closest(found, words.iter().copied()) {
        Some(word) => diagnostic.help(format!("did you mean `{word}`?")),
        None => diagnostic,
    }
}

/// A doc comment that documents nothing. Doc comments belong to an `attention`; within it, write `//`.
///
/// ```attn
/// attention a {
///     axis b, h, i: query(end), j: key, d = 64;
///     input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d];
///     attend o over j in (k, v) { score = dot(q, k); norm = softmax; }
///     /// The result.
///     output o: f16[b, h, i, d];
/// }
/// ```
pub fn stray_doc(span: Span) -> Diagnostic {
    Diagnostic::new("A0113", span, "expected `attention` after a doc comment, found none")
        .help("inside of a spec write `//` comments")
}
