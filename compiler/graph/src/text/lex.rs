//! Text to tokens. A line's end is a token, save within brackets; `;` starts a comment.

use super::Error;

/// A token.
#[derive(Clone, PartialEq, Debug)]
pub enum Token {
    /// Name or keyword.
    Ident(String),
    /// Number with a point, an exponent, or one of `inf`, `nan`.
    Real(f64),
    /// Number without.
    Int(i64),
    /// Punctuation.
    Mark(&'static str),
    /// End of a line.
    Newline,
}

const MARKS: [&str; 27] = [
    "->", "<=", ">=", "==", "!=", "&&", "||", "{", "}", "(", ")", "[", "]", ",", ":", "=", ".", "+", "-", "*", "/",
    "%", "<", ">", "!", "&", "|",
];

/// Tokens with their lines.
pub fn lex(text: &str) -> Result<Vec<(Token, u32)>, Error> {
    let mut out = Vec::new();
    let mut depth = 0_u32;
    for (n, line) in text.lines().enumerate() {
        let number = n as u32 + 1;
        let mut rest = line.split(';').next().unwrap_or("");
        loop {
            rest = rest.trim_start();
            let Some(first) = rest.chars().next() else { break };
            let (token, len) = if first.is_ascii_digit() {
                number_token(rest).ok_or_else(|| Error {
                    line: number,
                    message: format!("no number: `{rest}`"),
                })?
            } else if first.is_ascii_alphabetic() || first == '_' {
                let len = rest
                    .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                    .unwrap_or(rest.len());
                let token = match &rest[..len] {
                    "inf" => Token::Real(f64::INFINITY),
                    "nan" => Token::Real(f64::NAN),
                    name => Token::Ident(name.to_owned()),
                };
                (token, len)
            } else {
                let mark = MARKS.iter().find(|m| rest.starts_with(**m));
                let mark = mark.ok_or_else(|| Error {
                    line: number,
                    message: format!("unexpected `{first}`"),
                })?;
                match *mark {
                    "(" | "[" => depth += 1,
                    ")" | "]" => depth = depth.saturating_sub(1),
                    _ => {}
                }
                (Token::Mark(mark), mark.len())
            };
            out.push((token, number));
            rest = &rest[len..];
        }
        if depth == 0 && !matches!(out.last(), None | Some((Token::Newline, _))) {
            out.push((Token::Newline, number));
        }
    }
    Ok(out)
}

fn number_token(text: &str) -> Option<(Token, usize)> {
    let digits = |from: usize| {
        text[from..]
            .find(|c: char| !c.is_ascii_digit())
            .map_or(text.len(), |n| from + n)
    };
    let mut end = digits(0);
    let mut real = false;
    if text[end..].starts_with('.') {
        real = true;
        end = digits(end + 1);
    }
    if text[end..].starts_with(['e', 'E']) {
        let sign = usize::from(text[end + 1..].starts_with(['+', '-']));
        let stop = digits(end + 1 + sign);
        if stop > end + 1 + sign {
            real = true;
            end = stop;
        }
    }
    let token = match real {
        true => Token::Real(text[..end].parse().ok()?),
        false => Token::Int(text[..end].parse().ok()?),
    };
    Some((token, end))
}
