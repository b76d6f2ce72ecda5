//! The Drawloom spec language: from text or macro tokens to a checked [`Spec`], its canonical form and its key.
//!
//! ```
//! let text = "
//!     attention causal {
//!         type T in [f16, bf16];
//!         axis b, h, i: query(end), j: key, d in [64, 128];
//!         input q: T[b, h, i, d], k: T[b, h, j, d], v: T[b, h, j, d];
//!         attend o over j in (k, v) {
//!             score = dot(q, k) * rsqrt(len(d));
//!             mask = causal;
//!             norm = softmax;
//!         }
//!         output o: T[b, h, i, d];
//!     }";
//! let specs = drawloom_lang::parse_str("causal.attn", text)?;
//! assert_eq!(drawloom_lang::bindings(&specs[0]).len(), 4);
//! # Ok::<(), drawloom_lang::Errors>(())
//! ```
//!
//! The pipeline: `lex` or `token` → `parse` → `check` → [`Spec`] → [`canonical()`]. No LLVM, no CUDA: the macro uses
//! this crate alone.

pub mod artifact;
mod ast;
mod canonical;
mod check;
pub mod diag;
pub mod eval;
mod format;
mod lex;
pub mod manifest;
mod parse;
pub mod picture;
pub mod spec;
mod token;

pub use canonical::{bindings, canonical, expression, key, key_of};
pub use diag::{Diagnostic, Errors, Span, TokenErrors, TokenSpans};
pub use format::format;
pub use picture::{mask_picture, picture_size};
pub use spec::Spec;

use proc_macro2::{TokenStream, TokenTree};
use spec::ExprKind;

/// Parses and checks the specs of a file; `name` is what errors call it.
///
/// # Errors
/// All errors of the file at once, at least one.
pub fn parse_str(name: &str, text: &str) -> Result<Vec<Spec>, Errors> {
    let mut sink = diag::Sink::default();
    let specs = lex::lex(text, &mut sink)
        .map(|tokens| specs(&tokens, &mut sink))
        .unwrap_or_default();
    match sink.count() == 0 {
        true => Ok(specs),
        false => Err(Errors {
            file: name.to_owned(),
            text: text.to_owned(),
            diagnostics: sink.finish(),
        }),
    }
}

fn specs(tokens: &token::Tokens, sink: &mut diag::Sink) -> Vec<Spec> {
    let trees = parse::parse(tokens, sink);
    let specs = check::check(&trees, sink);
    for spec in specs.iter().filter(|s| s.exprs.len() > 512 || deepest(s) > 24) {
        // Named patterns grow when they are expanded: a spec near the limits is refused if its canonical form is over.
        let mut again = diag::Sink::default();
        let text = canonical(spec);
        if let Some(tokens) = lex::lex(&text, &mut again) {
            parse::parse(&tokens, &mut again);
        }
        if again.count() > 0 {
            sink.report(diag::limits::expanded(spec.span, &spec.name));
        }
    }
    specs
}

/// The height of the highest expression; operands come before their operations.
fn deepest(spec: &Spec) -> u32 {
    let mut heights: Vec<u32> = Vec::with_capacity(spec.exprs.len());
    for expr in &spec.exprs {
        let of = |e: &spec::ExprId| heights[e.index()];
        let below = match &expr.kind {
            ExprKind::Real(_) | ExprKind::Int(_) | ExprKind::Bool(_) | ExprKind::Index(_) | ExprKind::Len(_) => 0,
            ExprKind::Scalar(_) | ExprKind::Dot { .. } => 0,
            ExprKind::Load { at, .. } => at.iter().map(of).max().unwrap_or(0),
            ExprKind::Unary(_, a) => of(a),
            ExprKind::Binary(_, a, b) => of(a).max(of(b)),
            ExprKind::If(a, b, c) => of(a).max(of(b)).max(of(c)),
        };
        heights.push(below + 1);
    }
    heights.into_iter().max().unwrap_or(0)
}

/// What a macro call says.
#[derive(Clone, Debug)]
pub struct Call {
    /// Its specs.
    pub specs: Vec<Spec>,
    /// The path given by `crate = path;` in front of them.
    pub krate: Option<TokenStream>,
    /// The compiler's spans, for errors that come later.
    pub spans: TokenSpans,
}

/// Parses and checks the specs of a macro call: `attn!(crate = my::drawloom; attention … { … })`.
///
/// # Errors
/// All errors of the call at once, at least one, on their tokens.
pub fn parse_tokens(stream: TokenStream) -> Result<Call, TokenErrors> {
    let mut sink = diag::Sink::default();
    let (krate, stream) = split_krate(stream);
    let (tokens, spans) = token::from_stream(stream, &mut sink);
    let specs = tokens.map(|tokens| specs(&tokens, &mut sink)).unwrap_or_default();
    match sink.count() == 0 {
        true => Ok(Call { specs, krate, spans }),
        false => Err(TokenErrors {
            diagnostics: sink.finish(),
            spans,
        }),
    }
}

/// Takes `crate = path;` (or with a comma) off the front of a call. The path keeps its own tokens, `$crate` among them.
fn split_krate(stream: TokenStream) -> (Option<TokenStream>, TokenStream) {
    let is_mark =
        |tree: &TokenTree, marks: &[char]| matches!(tree, TokenTree::Punct(p) if marks.contains(&p.as_char()));
    let trees: Vec<TokenTree> = stream.clone().into_iter().collect();
    if let [TokenTree::Ident(word), equals, after @ ..] = &trees[..]
        && word == "crate"
        && is_mark(equals, &['='])
        && let Some(end) = after
            .iter()
            .position(|t| !matches!(t, TokenTree::Ident(_)) && !is_mark(t, &[':', '$']))
        && end > 0
        && is_mark(&after[end], &[';', ','])
    {
        let (path, rest) = (&after[..end], &after[end + 1..]);
        return (Some(path.iter().cloned().collect()), rest.iter().cloned().collect());
    }
    (None, stream)
}
