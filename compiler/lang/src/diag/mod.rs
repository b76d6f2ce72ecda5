//! Diagnostics: what went wrong with a spec, where, and what to do about it.
//!
//! In: spans and facts, from the lexer, the parser and the checker. Out: [`Diagnostic`]s, collected in [`Errors`] (text)
//! or [`TokenErrors`] (macros). It stands below everything else because everything else reports through it.
//!
//! One diagnostic is one function in the files of this folder, and that function's doc comment is its manual page, with a
//! spec that shows it ([`pages`]):
//! [`syntax`] `A01xx`, [`names`] `A02xx`, [`types`] `A03xx`, [`shapes`] `A04xx`, [`limits`] `A05xx` and `A06xx`.

pub mod limits;
pub mod names;
pub mod pages;
mod render;
pub mod shapes;
pub mod syntax;
pub mod types;

pub use render::{TokenSpans, line_column};

use std::fmt;

/// A range of a spec's source, `lo..hi`: bytes of the text for files, numbers of the tokens for macros (where
/// [`TokenSpans`] gives the compiler's spans). Plain numbers, so that a [`crate::spec::Spec`] can go anywhere.
#[derive(Clone, Copy, Default)]
pub struct Span {
    /// First byte or token.
    pub lo: u32,
    /// One past the last byte or token.
    pub hi: u32,
}

impl Span {
    /// The range `lo..hi`.
    pub fn new(lo: u32, hi: u32) -> Span {
        Span { lo, hi }
    }

    /// From the start of `self` to the end of `end`.
    pub fn to(self, end: Span) -> Span {
        Span {
            lo: self.lo,
            hi: end.hi.max(self.lo),
        }
    }
}

impl PartialEq for Span {
    /// Spans never make two specs differ.
    fn eq(&self, _: &Span) -> bool {
        true
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.lo, self.hi)
    }
}

/// One error in a spec.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    /// `A0101`; the manual page is the documentation of the function that made it.
    pub code: &'static str,
    /// What is wrong: lower case, expected first, found second.
    pub message: String,
    /// The tokens that cause it.
    pub span: Span,
    /// Another place that explains it.
    pub related: Option<(Span, String)>,
    /// What to do.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error with a code, on a span.
    pub fn new(code: &'static str, span: Span, message: impl Into<String>) -> Diagnostic {
        Diagnostic {
            code,
            message: message.into(),
            span,
            related: None,
            help: None,
        }
    }

    /// Adds advice.
    pub fn help(mut self, help: impl Into<String>) -> Diagnostic {
        self.help = Some(help.into());
        self
    }

    /// Points at another place.
    pub fn related(mut self, span: Span, label: impl Into<String>) -> Diagnostic {
        self.related = Some((span, label.into()));
        self
    }
}

impl fmt::Display for Diagnostic {
    /// One line and, if there is help, a second one: `error[A0201]: …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error[{}]: {}", self.code, self.message)?;
        match &self.help {
            Some(help) => write!(f, "\nhelp: {help}"),
            None => Ok(()),
        }
    }
}

/// Collects diagnostics; drops repeated ones, and those past the first [`Sink::MOST`], which nobody reads.
#[derive(Default)]
pub struct Sink {
    diagnostics: Vec<Diagnostic>,
    reported: usize,
}

/// Proof that an error has been reported: what a function returns in place of its result.
#[derive(Clone, Copy, Debug)]
pub struct Reported;

impl Sink {
    /// The most diagnostics that are kept.
    pub const MOST: usize = 50;

    /// Reports an error.
    pub fn report(&mut self, diagnostic: Diagnostic) -> Reported {
        let known = |d: &Diagnostic| {
            (d.code, d.span.lo, d.span.hi, &d.message)
                == (
                    diagnostic.code,
                    diagnostic.span.lo,
                    diagnostic.span.hi,
                    &diagnostic.message,
                )
        };
        if self.diagnostics.len() < Self::MOST && !self.diagnostics.iter().any(known) {
            self.diagnostics.push(diagnostic);
        }
        self.reported += 1;
        Reported
    }

    /// How many have been reported, dropped ones included.
    pub fn count(&self) -> usize {
        self.reported
    }

    /// The diagnostics in source order.
    pub fn finish(mut self) -> Vec<Diagnostic> {
        self.diagnostics.sort_by_key(|d| (d.span.lo, d.span.hi));
        self.diagnostics
    }
}

/// All errors of a spec file.
#[derive(Clone, Debug)]
pub struct Errors {
    /// Name of the file.
    pub file: String,
    /// Its text.
    pub text: String,
    /// The errors in source order, at least one.
    pub diagnostics: Vec<Diagnostic>,
}

impl fmt::Display for Errors {
    /// Every error as [`Diagnostic::render`] shows it, with an empty line between.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, diagnostic) in self.diagnostics.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&diagnostic.render(&self.file, &self.text))?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

/// All errors of a macro call.
#[derive(Clone, Debug)]
pub struct TokenErrors {
    /// The errors in source order, at least one.
    pub diagnostics: Vec<Diagnostic>,
    /// The compiler's spans.
    pub spans: TokenSpans,
}

/// The closest of `candidates` to a mistyped `word`, if one is close: an edit (insert, delete, replace, swap neighbours)
/// for every three letters, and at least one.
pub fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let most = (word.chars().count() / 3).max(1);
    let near = candidates.into_iter().filter(|c| word.len() >= 3 && c.len() >= 2);
    near.map(|c| (distance(word, c), c))
        .filter(|(d, _)| *d <= most.min(3))
        .min()
        .map(|(_, c)| c)
}

/// Edits between two words; words longer than 40 characters are never close.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().max(b.len()) > 40 {
        return usize::MAX;
    }
    let mut edits = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            let mut best = if i == 0 || j == 0 {
                i + j
            } else {
                edits[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1])
            };
            if i > 0 && j > 0 {
                best = best.min(edits[i - 1][j] + 1).min(edits[i][j - 1] + 1);
            }
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(edits[i - 2][j - 2] + 1);
            }
            edits[i][j] = best;
        }
    }
    edits[a.len()][b.len()]
}

/// `` `a`, `b` or `c` ``.
pub(crate) fn list<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<String> = words.into_iter().map(|w| format!("`{w}`")).collect();
    match words.split_last() {
        None => "nothing".to_owned(),
        Some((only, [])) => only.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}
