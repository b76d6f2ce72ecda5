//! The lexer of `.attn` files: text to the tokens that a macro would be given for it.
//!
//! In: a text. Out: [`Tokens`] whose spans are byte ranges. It is our own, and not the compiler's through `proc_macro2`,
//! because the latter's spans mean nothing for text that is parsed inside of a macro. A test holds the two together.

use crate::diag::{Sink, Span, limits, syntax};
use crate::token::{Kind, MAX_TOKENS, Token, Tokens, mark, matched};

/// The longest file, in bytes.
pub const MAX_BYTES: usize = 1 << 20;

/// Cuts a text into tokens; `None`, with the errors in `sink`, where it has none that a parser could use.
pub fn lex(text: &str, sink: &mut Sink) -> Option<Tokens> {
    if text.len() > MAX_BYTES {
        sink.report(limits::too_long(Span::new(0, 1), MAX_BYTES, "bytes"));
        return None;
    }
    let mut lexer = Lexer {
        text,
        at: 0,
        tokens: Vec::new(),
    };
    while lexer.at < text.len() && lexer.tokens.len() <= MAX_TOKENS {
        if let Err(unterminated) = lexer.token() {
            sink.report(unterminated);
            return None;
        }
    }
    let end = lexer.span(lexer.at);
    matched(lexer.tokens, end, sink)
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    tokens: Vec<Token>,
}

fn starts_word(c: char) -> bool {
    c == '_' || c.is_alphabetic()
}

fn continues_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

impl Lexer<'_> {
    fn span(&self, from: usize) -> Span {
        // The text is at most MAX_BYTES long.
        Span::new(from as u32, self.at as u32)
    }

    fn push(&mut self, kind: Kind, from: usize) {
        let span = self.span(from);
        self.tokens.push(Token { kind, span });
    }

    /// Takes characters while `take` holds, and returns all since `from`.
    fn take(&mut self, from: usize, take: impl Fn(char) -> bool) -> String {
        let rest = &self.text[self.at..];
        self.at += rest.find(|c| !take(c)).unwrap_or(rest.len());
        self.text[from..self.at].to_owned()
    }

    fn token(&mut self) -> Result<(), crate::diag::Diagnostic> {
        let from = self.at;
        let rest = &self.text[from..];
        let mut chars = rest.chars();
        let Some(first) = chars.next() else { return Ok(()) };
        let next = chars.next();
        if first.is_whitespace() {
            self.at += first.len_utf8();
        } else if rest.starts_with("//") {
            self.line_comment(from);
        } else if rest.starts_with("/*") {
            self.block_comment(from)?;
        } else if starts_word(first) {
            let word = self.take(from, continues_word);
            self.push(Kind::Word(word), from);
        } else if first.is_ascii_digit() {
            let number = self.number(from);
            self.push(Kind::Number(number), from);
        } else if first == '"' {
            self.string(from)?;
        } else if let Some(mark) = mark(first, next) {
            self.at += mark.len();
            self.push(Kind::Mark(mark), from);
        } else {
            self.at += first.len_utf8();
            let kind = match first {
                '(' | '[' | '{' => Kind::Open(first),
                ')' | ']' | '}' => Kind::Close(first),
                _ => Kind::Other(first.to_string()),
            };
            self.push(kind, from);
        }
        Ok(())
    }

    fn line_comment(&mut self, from: usize) {
        let rest = &self.text[from..];
        self.at += rest.find('\n').unwrap_or(rest.len());
        let line = &self.text[from..self.at];
        if let Some(doc) = line.strip_prefix("///")
            && !doc.starts_with('/')
        {
            self.push(Kind::Doc(doc.trim_end_matches('\r').to_owned()), from);
        }
    }

    fn block_comment(&mut self, from: usize) -> Result<(), crate::diag::Diagnostic> {
        let bytes = self.text.as_bytes();
        let mut depth = 0;
        loop {
            match (bytes.get(self.at), bytes.get(self.at + 1)) {
                (Some(b'/'), Some(b'*')) => {
                    depth += 1;
                    self.at += 2;
                }
                (Some(b'*'), Some(b'/')) => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        break;
                    }
                }
                (Some(_), _) => self.at += 1,
                (None, _) => return Err(syntax::unterminated(Span::new(from as u32, from as u32 + 2), "comment")),
            }
        }
        let comment = &self.text[from..self.at];
        // `/**/` and `/***/` are plain comments, as in Rust.
        if comment.len() > 4
            && let Some(doc) = comment.strip_prefix("/**")
            && let Some(doc) = doc.strip_suffix("*/")
            && !doc.starts_with('*')
            && !doc.is_empty()
        {
            self.push(Kind::Doc(doc.to_owned()), from);
        }
        Ok(())
    }

    /// A number as Rust cuts it: `1`, `1_000`, `1.5`, `1.`, `1e-3`, with whatever letters follow.
    fn number(&mut self, from: usize) -> String {
        self.take(from, |c| c.is_ascii_digit() || c == '_');
        let mut chars = self.text[self.at..].chars();
        if chars.next() == Some('.') {
            let next = chars.next();
            if !next.is_some_and(|c| c == '.' || starts_word(c)) {
                self.at += 1;
                self.take(from, |c| c.is_ascii_digit() || c == '_');
            }
        }
        let mut number = self.take(from, continues_word);
        let exponent = number.strip_suffix(['e', 'E']);
        if exponent.is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'_' | b'.')))
            && self.text[self.at..].starts_with(['+', '-'])
            && self.text[self.at + 1..].starts_with(|c: char| c.is_ascii_digit())
        {
            self.at += 1;
            number = self.take(from, continues_word);
        }
        number
    }

    fn string(&mut self, from: usize) -> Result<(), crate::diag::Diagnostic> {
        let mut escaped = false;
        for (n, c) in self.text[from..].char_indices().skip(1) {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => {
                    self.at = from + n + 1;
                    // Letters behind a string are its suffix.
                    let suffix = self.text[self.at..].starts_with(starts_word);
                    let string = self.take(from, |c| suffix && continues_word(c));
                    self.push(Kind::Other(string), from);
                    return Ok(());
                }
                _ => {}
            }
        }
        Err(syntax::unterminated(Span::new(from as u32, from as u32 + 1), "string"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::from_stream;
    use proptest::prelude::*;

    /// Pieces that stick together in all the ways that matter.
    const PIECES: &[&str] = &[
        " ",
        "\n",
        "a",
        "_b1",
        "fn",
        "größe",
        "0",
        "12",
        "1_000",
        "1.5",
        "1.",
        "2e5",
        "1e-3",
        "1e",
        "3f32",
        "0x1F",
        ".",
        "..",
        "+",
        "-",
        "*",
        "/ ",
        "%",
        "<",
        "<=",
        ">",
        ">=",
        "=",
        "==",
        "!",
        "!=",
        "&",
        "&&",
        "|",
        "||",
        ":",
        "::",
        ",",
        ";",
        "#",
        "(a)",
        "[1]",
        "{}",
        "((",
        "))",
        "\"s\\\"t\"",
        "// c\n",
        "/* c /* d */ */",
        "/// doc\n",
        "/** doc */",
        "//// c\n",
        "/***/",
        "//! d\n",
    ];

    proptest! {
        /// What the compiler's lexer takes, ours takes too, as the same tokens in the same places.
        #[test]
        fn cuts_as_the_compiler_does(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..12)) {
            let text = pieces.concat();
            if let Ok(stream) = text.parse::<proc_macro2::TokenStream>() {
                let (mut ours, mut theirs) = (Sink::default(), Sink::default());
                let ours = lex(&text, &mut ours).expect("what the compiler takes");
                let (theirs, spans) = from_stream(stream, &mut theirs);
                let theirs = theirs.expect("balanced tokens");
                let kinds = |t: &Tokens| t.tokens.iter().map(|t| t.kind.clone()).collect::<Vec<_>>();
                prop_assert_eq!(kinds(&ours), kinds(&theirs));
                prop_assert_eq!(&ours.partner, &theirs.partner);
                for (token, span) in ours.tokens.iter().zip(&spans.spans) {
                    prop_assert_eq!(token.span.lo as usize, span.byte_range().start);
                }
            }
        }
    }
}
