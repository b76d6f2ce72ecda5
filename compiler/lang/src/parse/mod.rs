//! The parser: tokens to syntax trees, all errors at once.
//!
//! In: [`Tokens`]. Out: [`ast::Attention`]s. After an error it goes on behind the end of the statement; a spec with a
//! statement that could not be parsed is marked as broken, and not checked, since its errors would be echoes.
//!
//! # Grammar
//! Tokens are Rust's. `x,*` is one or more `x` with commas between; lists in delimiters may end with a comma.
//! ```text
//! file      = attention*
//! attention = doc* visibility? `attention` name `{` member* `}`
//! member    = `type` (name `in` `[` dtype,* `]`),* `;`
//!           | `axis` (name size?),* `;`
//!           | `input` (name `:` shape `sorted`?),* `;`
//!           | `scalar` (name `:` dtype),* `;`
//!           | `attend` name `over` name `in` `(` name `,` name `)` `{` (field `;`)* `}`
//!           | `output` ((name | `lse` `(` name (`,` base)? `)`) `:` shape),* `;`
//!           | `tile` `{` ((name `.`)? name `=` number `;`)* `}`
//! size      = `=` number | `in` `[` number,* `]` | `=` name `/` (number | `[` number,* `]`)
//!           | `:` (`key` | `query` `(` (`end` | `start`) `)`)
//! shape     = dtype `[` name,* `]`
//! dtype     = `f16` | `bf16` | `f32` | `i32` | name
//! base      = `nats` | `bits`
//! field     = `score` `=` expr | `mask` `=` expr | `norm` `=` `softmax`
//! expr      = expr binary expr | (`-` | `!`) expr | `(` expr `)` | number | name | `if` expr block `else` (if | block)
//!           | name `[` expr,* `]` | name `(` ((name `=`)? expr),* `)`
//! block     = `{` expr `}`
//! ```

mod decl;
mod expr;

use crate::ast;
use crate::diag::{Reported, Sink, Span, limits, syntax};
use crate::token::{Kind, Tokens};

pub use expr::{Literal, number};

type Parsed<T> = Result<T, Reported>;

/// Words that begin an item of a later version.
const LATER_MEMBERS: [&str; 14] = [
    "fold", "plan", "heads", "merge", "select", "gather", "scatter", "pool", "conv", "mix", "map", "solve", "refine",
    "cache",
];

const MEMBERS: [&str; 7] = ["type", "axis", "input", "scalar", "attend", "output", "tile"];

/// Parses every `attention` of a file or call.
pub fn parse(tokens: &Tokens, sink: &mut Sink) -> Vec<ast::Attention> {
    let mut parser = Parser {
        tokens,
        at: 0,
        sink,
        exprs: Vec::new(),
    };
    let mut specs = Vec::new();
    if *parser.peek() == Kind::End {
        let span = parser.span();
        parser.sink.report(syntax::unexpected(span, "`attention`", "the end"));
    }
    while *parser.peek() != Kind::End {
        let start = parser.at;
        match parser.attention() {
            Ok(spec) => specs.push(spec),
            Err(Reported) => parser.recover(start, &["attention", "pub"], true),
        }
    }
    specs
}

struct Parser<'a> {
    tokens: &'a Tokens,
    at: usize,
    sink: &'a mut Sink,
    /// Expressions of the spec being parsed.
    exprs: Vec<ast::Expr>,
}

impl Parser<'_> {
    fn peek(&self) -> &Kind {
        self.peek_at(0)
    }

    /// The kind of the token `ahead` of the current one; past the end, the end.
    fn peek_at(&self, ahead: usize) -> &Kind {
        self.tokens.tokens.get(self.at + ahead).map_or(&Kind::End, |t| &t.kind)
    }

    fn span(&self) -> Span {
        self.tokens
            .tokens
            .get(self.at)
            .or(self.tokens.tokens.last())
            .map_or(Span::default(), |t| t.span)
    }

    /// The span of the token before the current one.
    fn last_span(&self) -> Span {
        self.at
            .checked_sub(1)
            .and_then(|n| self.tokens.tokens.get(n))
            .map_or(Span::default(), |t| t.span)
    }

    fn advance(&mut self) {
        if *self.peek() != Kind::End {
            self.at += 1;
        }
    }

    fn unexpected<T>(&mut self, expected: &str) -> Parsed<T> {
        let not = |t: &crate::token::Token| matches!(&t.kind, Kind::Word(word) if word == "not");
        if self
            .at
            .checked_sub(1)
            .and_then(|n| self.tokens.tokens.get(n))
            .is_some_and(not)
        {
            let span = self.last_span();
            return Err(self.sink.report(syntax::unexpected(span, "an expression", "`not`")));
        }
        let (span, found) = (self.span(), self.peek().describe());
        let diagnostic = match self.peek() {
            Kind::Other(text) => syntax::unknown_token(span, text),
            _ => syntax::unexpected(span, expected, &found),
        };
        Err(self.sink.report(diagnostic))
    }

    /// Reports the current token as the beginning of something that a later version will know.
    fn not_yet<T>(&mut self, what: &str) -> Parsed<T> {
        let span = self.span();
        Err(self.sink.report(limits::not_yet(span, what)))
    }

    fn is_mark(&self, mark: &str) -> bool {
        matches!(self.peek(), Kind::Mark(m) if *m == mark)
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Kind::Word(w) if w == word)
    }

    /// Takes a mark if it stands here.
    fn take_mark(&mut self, mark: &str) -> bool {
        let taken = self.is_mark(mark);
        if taken {
            self.advance();
        }
        taken
    }

    /// Takes a word if it stands here.
    fn take_word(&mut self, word: &str) -> bool {
        let taken = self.is_word(word);
        if taken {
            self.advance();
        }
        taken
    }

    fn mark(&mut self, mark: &str) -> Parsed<()> {
        if self.take_mark(mark) {
            Ok(())
        } else {
            self.unexpected(&format!("`{mark}`"))
        }
    }

    fn word(&mut self, word: &str) -> Parsed<()> {
        if self.take_word(word) {
            Ok(())
        } else {
            self.unexpected(&format!("`{word}`"))
        }
    }

    fn name(&mut self, what: &str) -> Parsed<ast::Name> {
        match self.peek() {
            Kind::Word(text) => {
                let name = ast::Name {
                    text: text.clone(),
                    span: self.span(),
                };
                self.advance();
                Ok(name)
            }
            _ => self.unexpected(what),
        }
    }

    /// A whole number that fits in 31 bits.
    fn number(&mut self, what: &str) -> Parsed<ast::Number> {
        let Kind::Number(text) = self.peek() else {
            return self.unexpected(what);
        };
        let (text, span) = (text.clone(), self.span());
        self.advance();
        match expr::number(&text) {
            Some(expr::Literal::Int(value)) => match u32::try_from(value) {
                Ok(value) if i32::try_from(value).is_ok() => Ok(ast::Number { value, span }),
                _ => Err(self
                    .sink
                    .report(limits::number_range(span, "a number of at most 2147483647", &text))),
            },
            Some(expr::Literal::Real(_)) => Err(self.sink.report(syntax::unexpected(span, what, &format!("`{text}`")))),
            None => Err(self.sink.report(syntax::bad_number(span, &text))),
        }
    }

    /// `open … close`, with `inner` parsing what stands between.
    fn group<T>(&mut self, open: char, inner: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if *self.peek() != Kind::Open(open) {
            return self.unexpected(&format!("`{open}`"));
        }
        self.advance();
        let result = inner(self)?;
        if !matches!(self.peek(), Kind::Close(_)) {
            return self.unexpected(&format!("`{}`", crate::token::closing(open)));
        }
        self.advance();
        Ok(result)
    }

    /// One or more, separated by commas, up to a closing delimiter; a last comma is allowed.
    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        let mut items = vec![item(self)?];
        while self.take_mark(",") && !matches!(self.peek(), Kind::Close(_)) {
            items.push(item(self)?);
        }
        Ok(items)
    }

    /// One or more declarations behind a keyword, separated by commas, up to `;`.
    fn declarations<T>(&mut self, into: &mut Vec<T>, mut item: impl FnMut(&mut Self) -> Parsed<T>) -> Parsed<()> {
        loop {
            into.push(item(self)?);
            if self.take_mark(",") {
                continue;
            }
            if self.take_mark(";") {
                return Ok(());
            }
            return self.unexpected("`,` or `;`");
        }
    }

    /// Goes on after an error in the statement that begins at `start`: behind its `;`, or at one of the words in `stop`
    /// that begin another statement, or behind its braces if it is a statement that ends with them.
    fn recover(&mut self, start: usize, stop: &[&str], braces: bool) {
        self.at = start;
        loop {
            match self.peek() {
                Kind::End | Kind::Close(_) => {
                    // A closing delimiter ends the enclosing group, unless there is none: then nothing is left.
                    return;
                }
                Kind::Mark(";") if !braces || self.at > start => {
                    self.advance();
                    return;
                }
                Kind::Open(c) => {
                    let brace = *c == '{';
                    self.at = self.tokens.partner[self.at] + 1;
                    if brace && braces {
                        return;
                    }
                }
                Kind::Word(word) if self.at > start && stop.contains(&word.as_str()) => return,
                Kind::Word(_) | Kind::Number(_) | Kind::Mark(_) | Kind::Doc(_) | Kind::Other(_) => self.at += 1,
            }
        }
    }
}
