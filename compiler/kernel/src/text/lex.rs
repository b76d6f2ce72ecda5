//! Text to tokens, each with its line and column.

use super::parse::ParseError;

/// A token.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Token {
    /// A name; dots are part of it (`map.fma`).
    Ident(String),
    /// A number as written: digits, an optional fraction and exponent, an optional sign; `inf` and `nan` are names.
    Number(String),
    /// A quoted string, unescaped.
    Str(String),
    /// Punctuation.
    Punct(&'static str),
    /// The end of the text.
    End,
}

impl Token {
    /// For error messages.
    pub(super) fn describe(&self) -> String {
        match self {
            Token::Ident(s) | Token::Number(s) => format!("`{s}`"),
            Token::Str(s) => format!("{s:?}"),
            Token::Punct(p) => format!("`{p}`"),
            Token::End => "the end of the text".to_string(),
        }
    }
}

/// A token and where it begins, both counted from 1.
#[derive(Clone, Debug)]
pub(super) struct Spanned {
    pub(super) token: Token,
    pub(super) line: u32,
    pub(super) col: u32,
}

/// Longest first, so that `..` wins over nothing shorter and `->` over `-`.
const PUNCTUATION: [&str; 17] = [
    "<-", "->", "..", "(", ")", "[", "]", "{", "}", ",", ":", "=", "+", "/", "%", "-", "@",
];

/// Splits a text into tokens, the last of them [`Token::End`].
pub(super) fn lex(text: &str) -> Result<Vec<Spanned>, ParseError> {
    let mut tokens = Vec::new();
    let mut last_line = 1;
    for (number, line) in text.lines().enumerate() {
        let number = number as u32 + 1;
        last_line = number;
        lex_line(line, number, &mut tokens)?;
    }
    tokens.push(Spanned {
        token: Token::End,
        line: last_line,
        col: 1,
    });
    Ok(tokens)
}

fn lex_line(line: &str, number: u32, tokens: &mut Vec<Spanned>) -> Result<(), ParseError> {
    let mut rest = line;
    loop {
        rest = rest.trim_start();
        let col = line[..line.len() - rest.len()].chars().count() as u32 + 1;
        let Some(first) = rest.chars().next() else {
            return Ok(());
        };
        if first == ';' {
            return Ok(());
        }
        let (token, len) = if first == '"' {
            string(rest).ok_or_else(|| ParseError::new(number, col, "this string is not closed or has a bad escape"))?
        } else if first.is_ascii_alphabetic() || first == '_' {
            let len = name_len(rest);
            (Token::Ident(rest[..len].to_string()), len)
        } else if let Some(len) = number_len(rest) {
            (Token::Number(rest[..len].to_string()), len)
        } else if let Some(p) = PUNCTUATION.into_iter().find(|p| rest.starts_with(p)) {
            (Token::Punct(p), p.len())
        } else {
            return Err(ParseError::new(number, col, format!("unexpected character {first:?}")));
        };
        tokens.push(Spanned {
            token,
            line: number,
            col,
        });
        rest = &rest[len..];
    }
}

/// The length of the name at the front: a dot belongs to it if a letter or digit follows.
fn name_len(rest: &str) -> usize {
    let b = rest.as_bytes();
    let word = |i: usize| b.get(i).is_some_and(|c| c.is_ascii_alphanumeric() || *c == b'_');
    let mut i = 0;
    while word(i) || (b.get(i) == Some(&b'.') && word(i + 1)) {
        i += 1;
    }
    i
}

/// The length of the number at the front, if there is one.
fn number_len(rest: &str) -> Option<usize> {
    let b = rest.as_bytes();
    let digit = |i: usize| b.get(i).is_some_and(u8::is_ascii_digit);
    let run = |mut i: usize| {
        while digit(i) {
            i += 1;
        }
        i
    };
    let start = usize::from(b.first() == Some(&b'-'));
    if !digit(start) {
        return None;
    }
    let mut i = run(start);
    if b.get(i) == Some(&b'.') && digit(i + 1) {
        i = run(i + 1);
    }
    if b.get(i) == Some(&b'e') {
        let sign = usize::from(matches!(b.get(i + 1), Some(b'-' | b'+')));
        if digit(i + 1 + sign) {
            i = run(i + 1 + sign);
        }
    }
    Some(i)
}

/// The string at the front, with Rust's escapes, and its length in bytes.
fn string(rest: &str) -> Option<(Token, usize)> {
    let mut out = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((Token::Str(out), at + 1)),
            '\\' => match chars.next()?.1 {
                'n' => out.push('\n'),
                't' => out.push('\t'),
                'r' => out.push('\r'),
                '0' => out.push('\0'),
                'u' => {
                    if chars.next()?.1 != '{' {
                        return None;
                    }
                    let mut code = 0u32;
                    loop {
                        match chars.next()?.1 {
                            '}' => break,
                            c => code = code.checked_mul(16)?.checked_add(c.to_digit(16)?)?,
                        }
                    }
                    out.push(char::from_u32(code)?);
                }
                c @ ('"' | '\'' | '\\') => out.push(c),
                _ => return None,
            },
            c => out.push(c),
        }
    }
    None
}
