//! The tokens of a spec: one flat list for macros and for files.
//!
//! In: a `TokenStream` ([`from_stream`]) or a text ([`crate::lex`]). Out: [`Tokens`], with every delimiter's partner
//! known and the depth bounded, so that nothing behind it needs a stack for what it skips. The list is flat, and ours,
//! because a file parsed inside of a macro has no usable compiler spans, and because a bound on the depth must hold before
//! anything recurses.

use crate::diag::{Sink, Span, TokenSpans, limits, syntax};
use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree, token_stream};

/// The deepest nesting of delimiters, and of operators in an expression.
pub const MAX_DEPTH: usize = 64;

/// The most tokens in one file or call.
pub const MAX_TOKENS: usize = 200_000;

/// A token.
#[derive(Clone, PartialEq, Debug)]
pub struct Token {
    /// What.
    pub kind: Kind,
    /// Where.
    pub span: Span,
}

/// Kinds of token.
#[derive(Clone, PartialEq, Debug)]
pub enum Kind {
    /// A name or keyword.
    Word(String),
    /// A number as written.
    Number(String),
    /// An operator or a separator: `&&`, `=`, `,`.
    Mark(&'static str),
    /// `(`, `[`, `{`.
    Open(char),
    /// `)`, `]`, `}`.
    Close(char),
    /// A doc comment, without its marks.
    Doc(String),
    /// Something that the language does not use.
    Other(String),
    /// The end.
    End,
}

impl Kind {
    /// The token for people.
    pub fn describe(&self) -> String {
        match self {
            Kind::Word(text) | Kind::Number(text) | Kind::Other(text) => {
                format!("`{}`", text.chars().take(40).collect::<String>())
            }
            Kind::Mark(mark) => format!("`{mark}`"),
            Kind::Open(c) | Kind::Close(c) => format!("`{c}`"),
            Kind::Doc(_) => "a doc comment".to_owned(),
            Kind::End => "the end".to_owned(),
        }
    }
}

/// A list of tokens that ends with [`Kind::End`] and whose delimiters match.
#[derive(Debug)]
pub struct Tokens {
    /// The tokens.
    pub tokens: Vec<Token>,
    /// For each opening token the index of its partner; for others their own index.
    pub partner: Vec<usize>,
}

/// Marks of two characters, which are taken before those of one.
const PAIRS: [&str; 7] = ["&&", "||", "==", "!=", "<=", ">=", "::"];
const SINGLES: &[&str] = &[
    "&", "|", "=", "!", "<", ">", "+", "-", "*", "/", "%", ",", ";", ":", ".", "#",
];

/// The mark that `first` begins, given the character that follows without a blank.
pub fn mark(first: char, next: Option<char>) -> Option<&'static str> {
    let pair = PAIRS.iter().find(|p| {
        let mut chars = p.chars();
        chars.next() == Some(first) && chars.next() == next && next.is_some()
    });
    pair.or_else(|| SINGLES.iter().find(|s| s.starts_with(first))).copied()
}

/// The closing partner of an opening delimiter.
pub fn closing(open: char) -> char {
    match open {
        '(' => ')',
        '[' => ']',
        _ => '}',
    }
}

/// Matches the delimiters of `tokens`.
///
/// `None`, with the errors in `sink`, if they do not match, are nested too deep, or are too many tokens.
pub fn matched(mut tokens: Vec<Token>, end: Span, sink: &mut Sink) -> Option<Tokens> {
    if tokens.len() > MAX_TOKENS {
        sink.report(limits::too_long(end, MAX_TOKENS, "tokens", tokens.len()));
        return None;
    }
    tokens.push(Token {
        kind: Kind::End,
        span: end,
    });
    let mut partner: Vec<usize> = (0..tokens.len()).collect();
    let mut open: Vec<(usize, char)> = Vec::new();
    for (n, token) in tokens.iter().enumerate() {
        match token.kind {
            Kind::Open(c) => {
                open.push((n, c));
                if open.len() > MAX_DEPTH {
                    sink.report(limits::too_deep(token.span, MAX_DEPTH));
                    return None;
                }
            }
            Kind::Close(c) => match open.pop() {
                Some((from, opened)) if closing(opened) == c => partner[from] = n,
                Some((from, _)) => {
                    sink.report(syntax::unmatched(token.span, &c.to_string(), Some(tokens[from].span)));
                    return None;
                }
                None => {
                    sink.report(syntax::unmatched(token.span, &c.to_string(), None));
                    return None;
                }
            },
            Kind::Word(_) | Kind::Number(_) | Kind::Mark(_) | Kind::Doc(_) | Kind::Other(_) | Kind::End => {}
        }
    }
    if let Some((from, c)) = open.pop() {
        sink.report(syntax::unmatched(tokens[from].span, &c.to_string(), None));
        return None;
    }
    Some(Tokens { tokens, partner })
}

/// Flattens a macro's tokens. Doc attributes become doc comments; groups without delimiters, which stand for the
/// arguments of an outer macro, become parentheses unless they hold a single token.
pub fn from_stream(stream: TokenStream, sink: &mut Sink) -> (Option<Tokens>, TokenSpans) {
    let mut flat = Flat {
        tokens: Vec::new(),
        spans: Vec::new(),
    };
    // Closing character, if any, and span of the groups that are open.
    let mut stack: Vec<(token_stream::IntoIter, Option<(char, proc_macro2::Span)>)> = vec![(stream.into_iter(), None)];
    while let Some((iter, close)) = stack.last_mut() {
        let Some(tree) = iter.next() else {
            if let Some((c, span)) = *close {
                flat.push(Kind::Close(c), span);
            }
            stack.pop();
            continue;
        };
        match tree {
            TokenTree::Group(group) => {
                let open = match group.delimiter() {
                    Delimiter::Parenthesis => Some('('),
                    Delimiter::Bracket => Some('['),
                    Delimiter::Brace => Some('{'),
                    Delimiter::None if group.stream().into_iter().nth(1).is_some() => Some('('),
                    Delimiter::None => None,
                };
                if let Some(c) = open {
                    flat.push(Kind::Open(c), group.span_open());
                }
                stack.push((
                    group.stream().into_iter(),
                    open.map(|c| (closing(c), group.span_close())),
                ));
            }
            TokenTree::Ident(word) => flat.push(Kind::Word(word.to_string()), word.span()),
            TokenTree::Literal(literal) => {
                let text = literal.to_string();
                let (sign, digits) = text.strip_prefix('-').map_or((false, text.as_str()), |d| (true, d));
                if digits.starts_with(|c: char| c.is_ascii_digit()) {
                    if sign {
                        flat.push(Kind::Mark("-"), literal.span());
                    }
                    flat.push(Kind::Number(digits.to_owned()), literal.span());
                } else {
                    flat.push(Kind::Other(text), literal.span());
                }
            }
            TokenTree::Punct(punct) => {
                let first = punct.as_char();
                let next = match iter.clone().next() {
                    Some(TokenTree::Punct(next)) if punct.spacing() == Spacing::Joint => Some(next.as_char()),
                    _ => None,
                };
                match mark(first, next) {
                    Some("#") => match doc(iter) {
                        Some(doc) => flat.push(Kind::Doc(doc), punct.span()),
                        None => flat.push(Kind::Mark("#"), punct.span()),
                    },
                    Some(mark) => {
                        if mark.len() == 2 {
                            iter.next();
                        }
                        flat.push(Kind::Mark(mark), punct.span());
                    }
                    None => flat.push(Kind::Other(first.to_string()), punct.span()),
                }
            }
        }
    }
    let end = flat.next_span();
    (matched(flat.tokens, end, sink), TokenSpans { spans: flat.spans })
}

struct Flat {
    tokens: Vec<Token>,
    spans: Vec<proc_macro2::Span>,
}

impl Flat {
    fn next_span(&self) -> Span {
        let at = u32::try_from(self.tokens.len()).unwrap_or(u32::MAX);
        Span::new(at, at.saturating_add(1))
    }

    fn push(&mut self, kind: Kind, span: proc_macro2::Span) {
        let at = self.next_span();
        self.tokens.push(Token { kind, span: at });
        self.spans.push(span);
    }
}

/// Takes `[doc = "…"]`, what stands behind the `#` of a doc comment.
fn doc(iter: &mut token_stream::IntoIter) -> Option<String> {
    let Some(TokenTree::Group(group)) = iter.clone().next() else {
        return None;
    };
    let mut inner = group.stream().into_iter();
    let text = match (inner.next(), inner.next(), inner.next(), inner.next()) {
        (Some(TokenTree::Ident(word)), Some(TokenTree::Punct(eq)), Some(TokenTree::Literal(text)), None)
            if word == "doc" && eq.as_char() == '=' =>
        {
            match syn::Lit::new(text) {
                syn::Lit::Str(text) => text.value(),
                _ => return None,
            }
        }
        _ => return None,
    };
    iter.next();
    Some(text)
}
