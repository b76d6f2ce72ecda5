//! Diagnostics for people: carets under the text of a file, or compile errors on the tokens of a macro.
//!
//! In: diagnostics and the text or the compiler's spans. Out: strings and tokens. A file's lines are counted here, from
//! its bytes: spans of text that a macro parses collapse to the macro call, so the compiler's cannot be used.

use super::{Diagnostic, Span, TokenErrors};
use proc_macro2::TokenStream;
use quote::quote_spanned;
use std::fmt::Write;

/// The compiler's span of every token of a macro call, by token number.
#[derive(Clone, Debug)]
pub struct TokenSpans {
    /// One per token; a group has one for each of its delimiters.
    pub(crate) spans: Vec<proc_macro2::Span>,
}

impl TokenSpans {
    /// The spans of the first and the last token of `span`; past the last token, the call site.
    pub fn ends(&self, span: Span) -> (proc_macro2::Span, proc_macro2::Span) {
        let at = |n: u32| self.spans.get(n as usize).or(self.spans.last()).copied();
        let first = at(span.lo).unwrap_or_else(proc_macro2::Span::call_site);
        let last = at(span.hi.saturating_sub(1).max(span.lo)).unwrap_or(first);
        (first, last)
    }

    /// The diagnostic as a `compile_error!` on its tokens.
    pub fn to_compile_error(&self, diagnostic: &Diagnostic) -> TokenStream {
        let (first, last) = self.ends(diagnostic.span);
        let message = diagnostic.to_string();
        // The compiler marks from the span of the first token to that of the last one, as for `syn::Error`.
        let path = quote_spanned!(first=> ::core::compile_error!);
        let group = quote_spanned!(last=> { #message });
        quote_spanned!(first=> #path #group)
    }
}

impl TokenErrors {
    /// All errors as `compile_error!` items.
    pub fn to_compile_error(&self) -> TokenStream {
        self.diagnostics
            .iter()
            .map(|d| self.spans.to_compile_error(d))
            .collect()
    }
}

impl Diagnostic {
    /// The error under the lines of its file: code and message, place, the line with carets, help.
    ///
    /// `text` is what was parsed; a span outside of it is shown at its end.
    pub fn render(&self, file: &str, text: &str) -> String {
        let mut out = format!("error[{}]: {}\n", self.code, self.message);
        let related = self.related.as_ref();
        let width = [Some(self.span), related.map(|r| r.0)]
            .into_iter()
            .flatten()
            .map(|s| Place::of(text, s).line.to_string().len())
            .max()
            .unwrap_or(1);
        let margin = " ".repeat(width);
        Place::of(text, self.span).show(&mut out, &margin, "-->", file, "^", "");
        if let Some((span, label)) = related {
            Place::of(text, *span).show(&mut out, &margin, ":::", file, "-", label);
        }
        if let Some(help) = &self.help {
            let _ = writeln!(out, "{margin} = help: {help}");
        }
        out
    }
}

/// Line and column of a byte of `text`, counted from 1, the column in characters; past the end, of the end.
pub fn line_column(text: &str, byte: u32) -> (usize, usize) {
    let at = boundary(text, byte);
    let start = text[..at].rfind('\n').map_or(0, |n| n + 1);
    (
        text[..at].matches('\n').count() + 1,
        text[start..at].chars().count() + 1,
    )
}

/// The last start of a character at or before `byte`.
fn boundary(text: &str, byte: u32) -> usize {
    let mut at = (byte as usize).min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// A place in a text, for people, as [`line_column`] counts.
struct Place<'a> {
    line: usize,
    column: usize,
    /// The line with tabs as blanks.
    shown: &'a str,
    /// Characters before and under the carets.
    before: usize,
    under: usize,
}

impl<'a> Place<'a> {
    fn of(text: &'a str, span: Span) -> Place<'a> {
        let (lo, hi) = (boundary(text, span.lo), boundary(text, span.hi));
        let start = text[..lo].rfind('\n').map_or(0, |n| n + 1);
        let end = text[lo..].find('\n').map_or(text.len(), |n| lo + n);
        let (line, column) = line_column(text, span.lo);
        let before = column - 1;
        let under = if hi > lo {
            text[lo..hi.min(end).max(lo)].chars().count()
        } else {
            0
        };
        Place {
            line,
            column,
            shown: text[start..end].trim_end_matches('\r'),
            before,
            under: under.max(1),
        }
    }

    fn show(&self, out: &mut String, margin: &str, arrow: &str, file: &str, mark: &str, label: &str) {
        // Long lines (generated or hostile files) are cut around the place.
        let skip = self.before.saturating_sub(100);
        let shown: String = self
            .shown
            .chars()
            .skip(skip)
            .take(240)
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let marks = mark.repeat(self.under.min(140));
        let blanks = " ".repeat(self.before - skip);
        let _ = writeln!(out, "{margin}{arrow} {file}:{}:{}", self.line, self.column);
        let _ = writeln!(out, "{margin} |");
        let _ = writeln!(out, "{:>width$} | {shown}", self.line, width = margin.len());
        let _ = writeln!(out, "{}", format!("{margin} | {blanks}{marks} {label}").trim_end());
    }
}
