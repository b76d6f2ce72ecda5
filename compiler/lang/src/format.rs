//! The layout of spec files: tokens and comments as they are, blanks and line breaks as they should be.
//!
//! In: a text whose delimiters match. Out: the same tokens, comments and documentation, laid out. It works on tokens
//! alone, so that it knows no construct of the language and a new word needs nothing here:
//! - a brace with `;` inside is a block, whose statements stand on lines of their own, indented by four blanks; any other
//!   brace (of an `if`) stays in its line;
//! - a statement that is too long is broken at its outermost commas, else at its loosest operators, as often as needed;
//! - one empty line stays where there were some, and parts the specs of a file.
//!
//! The result depends on tokens, comments and empty lines only, so that formatting again changes nothing.

use crate::diag::{Errors, Sink};
use crate::lex::lex;
use crate::token::{Kind, mark};
use std::ops::Range;

/// Columns of a line, as in the Rust of this project.
const WIDTH: usize = 120;

/// Blanks of a level.
const INDENT: usize = 4;

/// Words that are followed by a delimiter without being called.
const APART: [&str; 3] = ["in", "if", "else"];

/// The text in canonical layout; `name` is what errors call it.
///
/// # Errors
/// Where the text cannot be cut into tokens, or its delimiters do not match.
pub fn format(name: &str, text: &str) -> Result<String, Errors> {
    let mut sink = Sink::default();
    let Some(tokens) = lex(text, &mut sink) else {
        return Err(Errors {
            file: name.to_owned(),
            text: text.to_owned(),
            diagnostics: sink.finish(),
        });
    };
    let mut pieces = Vec::new();
    let mut end = 0;
    for token in &tokens.tokens {
        let (lo, hi) = (token.span.lo as usize, token.span.hi as usize);
        let newlines = comments(text, end, lo, &mut pieces);
        if token.kind != Kind::End {
            let kind = match &token.kind {
                Kind::Doc(_) => Sort::Doc,
                Kind::Open(c) => Sort::Open(*c),
                Kind::Close(c) => Sort::Close(*c),
                Kind::Mark(mark) => Sort::Mark(mark),
                Kind::Word(word) if APART.contains(&word.as_str()) => Sort::Apart,
                Kind::Word(_) | Kind::Number(_) | Kind::Other(_) | Kind::End => Sort::Operand,
            };
            pieces.push(Piece {
                text: text[lo..hi].trim_end(),
                sort: kind,
                newlines,
                partner: 0,
            });
        }
        end = hi;
    }
    pair(&mut pieces);
    let mut layout = Layout {
        pieces: &pieces,
        at: 0,
        out: String::new(),
    };
    layout.statements(pieces.len(), 0);
    Ok(layout.out)
}

/// A token or a comment.
#[derive(Clone, Copy, Debug)]
struct Piece<'t> {
    text: &'t str,
    sort: Sort,
    /// Line breaks between the piece before and this one.
    newlines: usize,
    /// For an opening delimiter the index of its partner.
    partner: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sort {
    /// A name, a number, or what the language does not use.
    Operand,
    /// A word of [`APART`].
    Apart,
    Mark(&'static str),
    Open(char),
    Close(char),
    Doc,
    /// `// …`
    Line,
    /// `/* … */`
    Block,
}

impl Piece<'_> {
    fn is_comment(&self) -> bool {
        matches!(self.sort, Sort::Line | Sort::Block)
    }

    /// Whether an operator behind it has two operands.
    fn ends_operand(&self) -> bool {
        matches!(self.sort, Sort::Operand | Sort::Close(_))
    }
}

/// Takes the comments out of a gap between tokens; returns the line breaks behind the last one.
fn comments<'t>(text: &'t str, from: usize, to: usize, pieces: &mut Vec<Piece<'t>>) -> usize {
    let mut newlines = 0;
    let mut at = from;
    while at < to {
        let rest = &text[at..to];
        let (sort, length) = if rest.starts_with("//") {
            (Sort::Line, rest.find('\n').unwrap_or(rest.len()))
        } else if rest.starts_with("/*") {
            (Sort::Block, block_length(rest))
        } else {
            newlines += usize::from(rest.starts_with('\n'));
            at += rest.chars().next().map_or(1, char::len_utf8);
            continue;
        };
        pieces.push(Piece {
            text: rest[..length].trim_end(),
            sort,
            newlines,
            partner: 0,
        });
        newlines = 0;
        at += length;
    }
    newlines
}

/// Bytes of the block comment that begins a text; they nest.
fn block_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0usize);
    while at < bytes.len() {
        match &bytes[at..] {
            [b'/', b'*', ..] => (at, depth) = (at + 2, depth + 1),
            [b'*', b'/', ..] => {
                (at, depth) = (at + 2, depth.saturating_sub(1));
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    text.len()
}

fn pair(pieces: &mut [Piece<'_>]) {
    let mut open = Vec::new();
    for n in 0..pieces.len() {
        match pieces[n].sort {
            Sort::Open(_) => open.push(n),
            Sort::Close(_) => {
                if let Some(from) = open.pop() {
                    pieces[from].partner = n;
                }
            }
            _ => {}
        }
    }
}

struct Layout<'p, 't> {
    pieces: &'p [Piece<'t>],
    at: usize,
    out: String,
}

impl Layout<'_, '_> {
    /// Whether the brace at `open` holds statements: `;`, or what must end a line.
    fn is_block(&self, open: usize) -> bool {
        let mut at = open + 1;
        while at < self.pieces[open].partner {
            match self.pieces[at].sort {
                Sort::Mark(";") | Sort::Line | Sort::Doc => return true,
                Sort::Open('{') if self.is_block(at) => return true,
                Sort::Open(_) => at = self.pieces[at].partner,
                _ => {}
            }
            at += 1;
        }
        false
    }

    /// Statements, comments and documentation up to the piece `end`.
    fn statements(&mut self, end: usize, level: usize) {
        let first = self.at;
        let mut after_block = false;
        while self.at < end {
            let piece = self.pieces[self.at];
            if self.at > first && (piece.newlines > 1 || (level == 0 && after_block)) {
                self.out.push('\n');
            }
            if piece.is_comment() || piece.sort == Sort::Doc {
                self.line(level, piece.text);
                self.at += 1;
                after_block = false;
            } else {
                after_block = self.statement(end, level);
            }
        }
    }

    fn line(&mut self, level: usize, text: &str) {
        self.out.push_str(&" ".repeat(INDENT * level));
        self.out.push_str(text);
        self.out.push('\n');
    }

    /// A statement, with the blocks that belong to it and the comment behind it; whether it ended with a block.
    fn statement(&mut self, end: usize, level: usize) -> bool {
        // What is not printed yet begins here.
        let mut head = self.at;
        while self.at < end {
            let at = self.at;
            let piece = self.pieces[at];
            self.at += 1;
            match piece.sort {
                Sort::Mark(";") => {
                    self.flush(head..self.at, level);
                    return false;
                }
                Sort::Open('{') if self.is_block(at) => {
                    self.flush(head..self.at, level);
                    self.statements(piece.partner, level + 1);
                    (head, self.at) = (piece.partner, piece.partner + 1);
                    let goes_on = self.pieces[..end]
                        .get(self.at)
                        .is_some_and(|next| matches!(next.sort, Sort::Mark(_) | Sort::Close(_) | Sort::Apart));
                    if !goes_on {
                        self.flush(head..self.at, level);
                        return true;
                    }
                }
                // A group without statements is part of its line.
                Sort::Open(_) => self.at = piece.partner + 1,
                _ => {}
            }
        }
        self.flush(head..self.at, level);
        false
    }

    /// Prints pieces as one statement, with the comments that follow them in their line.
    fn flush(&mut self, head: Range<usize>, level: usize) {
        // A block's own comments follow its brace.
        let opens = matches!(self.pieces[head.end - 1].sort, Sort::Open(_));
        let mut behind = String::new();
        while let Some(next) = self.pieces.get(self.at)
            && !opens
            && next.is_comment()
            && next.newlines == 0
        {
            behind.push(' ');
            behind.push_str(next.text);
            self.at += 1;
        }
        // What must stand on a line of its own begins a new chunk, and what follows it another.
        let mut starts = vec![head.start];
        for at in head.start + 1..head.end {
            let (before, piece) = (self.pieces[at - 1], self.pieces[at]);
            let own_line = piece.sort == Sort::Doc || (piece.is_comment() && piece.newlines > 0);
            let after_own = match before.sort {
                Sort::Line | Sort::Doc => true,
                Sort::Block => before.newlines > 0 && piece.newlines > 0,
                _ => false,
            };
            if own_line || after_own {
                starts.push(at);
            }
        }
        for (n, &start) in starts.iter().enumerate() {
            let chunk = start..starts.get(n + 1).copied().unwrap_or(head.end);
            let indent = INDENT * (level + usize::from(n > 0));
            let mut lines = Vec::new();
            self.fill(chunk, indent, &mut lines);
            if let (true, Some(line)) = (n + 1 == starts.len(), lines.last_mut()) {
                line.push_str(&behind);
            }
            for line in lines {
                self.out.push_str(line.trim_end());
                self.out.push('\n');
            }
        }
    }

    /// The pieces in one line.
    fn joined(&self, pieces: Range<usize>) -> String {
        let mut text = String::new();
        for at in pieces.clone() {
            if at > pieces.start && self.gap(at) {
                text.push(' ');
            }
            text.push_str(self.pieces[at].text);
        }
        text
    }

    /// Whether a piece is an operator with one operand.
    fn is_prefix(&self, at: usize) -> bool {
        let before = at.checked_sub(1).map(|before| self.pieces[before]);
        matches!(self.pieces[at].sort, Sort::Mark("-" | "!")) && !before.is_some_and(|before| before.ends_operand())
    }

    /// Whether a blank stands before a piece that is not the first.
    fn gap(&self, at: usize) -> bool {
        let (before, piece) = (self.pieces[at - 1], self.pieces[at]);
        match (before.sort, piece.sort) {
            // Together they would be another token.
            (Sort::Mark(a), Sort::Mark(b)) if merge(a, b) => true,
            (Sort::Operand, Sort::Mark(".")) if before.text.starts_with(|c: char| c.is_ascii_digit()) => true,
            (Sort::Line | Sort::Block, _) | (_, Sort::Line | Sort::Block) => true,
            (Sort::Open('{'), Sort::Close(_)) => false,
            (_, Sort::Mark("," | ";" | ":" | "." | "::") | Sort::Close(')' | ']')) => false,
            (Sort::Open('(' | '[') | Sort::Mark("." | "::"), _) => false,
            (Sort::Mark(_), _) if self.is_prefix(at - 1) => false,
            (Sort::Operand | Sort::Close(_), Sort::Open('(' | '[')) => false,
            _ => true,
        }
    }

    /// Columns of the pieces in one line; a comment at their end may be as long as it likes.
    fn width(&self, pieces: &Range<usize>) -> usize {
        let columns = |at: usize| {
            let first = self.pieces[at].text.lines().next().unwrap_or_default();
            first.chars().count() + usize::from(at > pieces.start && self.gap(at))
        };
        let counted = match self.pieces[pieces.end - 1].is_comment() {
            true => pieces.start..pieces.end - 1,
            false => pieces.clone(),
        };
        counted.map(columns).sum()
    }

    /// Appends the pieces as lines: one if it fits, else broken at the outermost places of one kind, filled.
    fn fill(&self, pieces: Range<usize>, indent: usize, lines: &mut Vec<String>) {
        let parts = match indent + self.width(&pieces) <= WIDTH {
            true => Vec::new(),
            false => self.parts(&pieces),
        };
        if parts.len() < 2 {
            lines.push(" ".repeat(indent) + &self.joined(pieces));
            return;
        }
        let (mut line, mut columns) = (pieces.start..pieces.start, indent);
        let mut own = indent;
        for part in parts {
            let width = self.width(&part);
            let blank = usize::from(!line.is_empty() && self.gap(part.start));
            if !line.is_empty() && columns + blank + width > WIDTH {
                self.fill(line, own, lines);
                own = indent + INDENT;
                (line, columns) = (part, own + width);
            } else {
                (line.end, columns) = (part.end, columns + blank + width);
            }
        }
        self.fill(line, own, lines);
    }

    /// The pieces cut at the outermost commas, or where there are none at the loosest operators.
    fn parts(&self, pieces: &Range<usize>) -> Vec<Range<usize>> {
        let mut depth = 0;
        let mut cuts: Vec<(i32, u8, usize)> = Vec::new();
        for at in pieces.clone() {
            match self.pieces[at].sort {
                Sort::Open(_) => depth += 1,
                Sort::Close(_) => depth -= 1,
                Sort::Mark(",") => cuts.push((depth, 0, at + 1)),
                Sort::Mark(mark) if at > pieces.start && !self.is_prefix(at) => {
                    if let Some(looseness) = looseness(mark) {
                        cuts.push((depth, looseness, at));
                    }
                }
                _ => {}
            }
        }
        cuts.retain(|(.., at)| *at < pieces.end);
        let outermost = cuts.iter().map(|(depth, kind, _)| (*depth, *kind)).min();
        let chosen = cuts
            .iter()
            .filter(|(depth, kind, _)| Some((*depth, *kind)) == outermost);
        let mut parts = Vec::new();
        let mut from = pieces.start;
        for at in chosen.map(|(.., at)| *at).chain([pieces.end]) {
            parts.push(from..at);
            from = at;
        }
        parts
    }
}

/// Whether the end of one mark and the start of the next would be read as one mark, without a blank between.
fn merge(a: &str, b: &str) -> bool {
    let last = a.chars().next_back().unwrap_or(' ');
    mark(last, b.chars().next()).is_some_and(|mark| mark.len() == 2)
}

/// How late an operator is broken at; `None` for marks that are none.
fn looseness(mark: &str) -> Option<u8> {
    Some(match mark {
        "||" | "|" => 1,
        "&&" | "&" => 2,
        "==" | "!=" | "<" | "<=" | ">" | ">=" => 3,
        "+" | "-" => 4,
        "*" | "/" | "%" => 5,
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
