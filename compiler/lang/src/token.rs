//! The tokens of a spec: one flat list for macros and for files.
//!
//! In: a `TokenStream` ([`from_stream`]) or a text ([`crate::lex`]). Out: [`Tokens`], with every delimiter's partner
//! known and the depth bounded, so that nothing behind it needs a stack for what it skips. The list is flat, and ours,
//! because a file parsed inside of a macro has no usable compiler spans, and because a bound on the depth must hold before
//! anything recurses.

use crate::diag::{Sink, Span, TokenSpans, limits, syntax};
use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};

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
        sink.report(limits::too_long(end, MAX_TOKENS, "tokens"));
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
    let mut stack = vec![Group {
        trees: stream.into_iter().collect(),
        at: 0,
        close: None,
    }];
    while let Some(group) = stack.last_mut() {
        let Some(tree) = group.trees.get(group.at) else {
            if let Some((c, span)) = group.close {
                flat.push(Kind::Close(c), span);
            }
            stack.pop();
            continue;
        };
        group.at += 1;
        match tree {
            TokenTree::Group(inner) => {
                let trees: Vec<TokenTree> = inner.stream().into_iter().collect();
                let open = match inner.delimiter() {
                    Delimiter::Parenthesis => Some('('),
                    Delimiter::Bracket => Some('['),
                    Delimiter::Brace => Some('{'),
                    Delimiter::None if trees.len() > 1 => Some('('),
                    Delimiter::None => None,
                };
                if let Some(c) = open {
                    flat.push(Kind::Open(c), inner.span_open());
                }
                let close = open.map(|c| (closing(c), inner.span_close()));
                stack.push(Group { trees, at: 0, close });
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
                let (first, span) = (punct.as_char(), punct.span());
                let next = match group.trees.get(group.at) {
                    Some(TokenTree::Punct(next)) if punct.spacing() == Spacing::Joint || first == '#' => {
                        Some(next.as_char())
                    }
                    _ => None,
                };
                let kind = match mark(first, next) {
                    Some("#") => match group.trees.get(group.at).and_then(doc) {
                        Some(doc) => {
                            group.at += 1;
                            Kind::Doc(doc)
                        }
                        // `//! …`: a comment about the file.
                        None if next == Some('!') && group.trees.get(group.at + 1).and_then(doc).is_some() => {
                            group.at += 2;
                            continue;
                        }
                        None => Kind::Mark("#"),
                    },
                    Some(mark) => {
                        group.at += mark.len() - 1;
                        Kind::Mark(mark)
                    }
                    None => Kind::Other(first.to_string()),
                };
                flat.push(kind, span);
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

/// The text of `[doc = "…"]`, what stands behind the `#` of a doc comment.
fn doc(tree: &TokenTree) -> Option<String> {
    let TokenTree::Group(group) = tree else { return None };
    let mut inner = group.stream().into_iter();
    match (inner.next(), inner.next(), inner.next(), inner.next()) {
        (Some(TokenTree::Ident(word)), Some(TokenTree::Punct(eq)), Some(TokenTree::Literal(text)), None)
            if word == "doc" && eq.as_char() == '=' =>
        {
            match syn::Lit::new(text) {
                syn::Lit::Str(text) => Some(text.value()),
                _ => None,
            }
        }
        _ => None,
    }
}

/// An open group of a macro's tokens.
struct Group {
    trees: Vec<TokenTree>,
    /// The next tree.
    at: usize,
    /// Its closing delimiter.
    close: Option<(char, proc_macro2::Span)>,
}
