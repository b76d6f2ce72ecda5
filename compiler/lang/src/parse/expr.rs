//! Expressions: an operator-precedence parser.
//!
//! From loose to tight: `||`, `&&`, comparisons (which do not chain), `+ -`, `* / %`, unary `- !`. Depth is counted
//! before each descent, and the height of every tree is bounded, so that the recursions behind the parser are too.

use super::{Parsed, Parser};
use crate::ast::{Argument, Expr, ExprKind, ExprRef, Name};
use crate::diag::{Span, limits, syntax};
use crate::spec::{BinaryOp, UnaryOp};
use crate::token::{Kind, MAX_DEPTH};

/// The largest height of an expression tree: a chain of operators may be longer than parentheses are deep.
const MAX_HEIGHT: u32 = 2 * MAX_DEPTH as u32;

/// The most nodes of all expressions of a spec.
const MAX_NODES: usize = 4096;

/// Functions and patterns of a later version.
const LATER_FUNCTIONS: [&str; 11] = [
    "additive", "rel", "dot3", "prefix", "dilated", "sigmoid", "relu", "rng", "outer", "sin", "cos",
];

/// A number of the language.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Literal {
    Int(u64),
    Real(f64),
}

/// Reads a number as written; `None` if it has another base, a suffix or no digits. Too large integers saturate.
pub fn number(text: &str) -> Option<Literal> {
    let digits: String = text.chars().filter(|c| *c != '_').collect();
    if digits.bytes().all(|b| b.is_ascii_digit()) && !digits.is_empty() {
        return Some(Literal::Int(digits.parse().unwrap_or(u64::MAX)));
    }
    let real = digits
        .bytes()
        .all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    if real {
        digits.parse().ok().map(Literal::Real)
    } else {
        None
    }
}

/// A binary operator and how tight it binds.
fn binary(mark: &str) -> Option<(BinaryOp, u8)> {
    Some(match mark {
        "||" => (BinaryOp::Or, 1),
        "&&" => (BinaryOp::And, 2),
        "<" => (BinaryOp::Lt, COMPARISON),
        "<=" => (BinaryOp::Le, COMPARISON),
        ">" => (BinaryOp::Gt, COMPARISON),
        ">=" => (BinaryOp::Ge, COMPARISON),
        "==" => (BinaryOp::Eq, COMPARISON),
        "!=" => (BinaryOp::Ne, COMPARISON),
        "+" => (BinaryOp::Add, 4),
        "-" => (BinaryOp::Sub, 4),
        "*" => (BinaryOp::Mul, 5),
        "/" => (BinaryOp::Div, 5),
        "%" => (BinaryOp::Rem, 5),
        _ => return None,
    })
}

const COMPARISON: u8 = 3;

impl Parser<'_> {
    pub(super) fn expr(&mut self) -> Parsed<ExprRef> {
        self.operators(1, 0)
    }

    /// An expression of operators that bind at least as tight as `least`.
    fn operators(&mut self, least: u8, depth: usize) -> Parsed<ExprRef> {
        let mut left = self.unary(depth)?;
        let mut compared = false;
        loop {
            let Kind::Mark(mark) = self.peek() else { return Ok(left) };
            // A single `&` or `|` is reported and read as the doubled one that was meant.
            let (mark, doubled) = match *mark {
                "&" => ("&&", Some("&")),
                "|" => ("||", Some("|")),
                mark => (mark, None),
            };
            let Some((op, tightness)) = binary(mark) else {
                return Ok(left);
            };
            if tightness < least {
                return Ok(left);
            }
            let span = self.span();
            if let Some(single) = doubled {
                self.sink.report(syntax::single_and_or(span, single));
            }
            if tightness == COMPARISON && std::mem::replace(&mut compared, true) {
                return Err(self.sink.report(syntax::chained_comparison(span)));
            }
            self.advance();
            let right = self.operators(tightness + 1, depth + 1)?;
            left = self.node(
                ExprKind::Binary(op, left, right),
                self.at_span(left).to(self.at_span(right)),
            )?;
        }
    }

    fn unary(&mut self, depth: usize) -> Parsed<ExprRef> {
        if depth > MAX_DEPTH {
            let span = self.span();
            return Err(self.sink.report(limits::too_deep(span, MAX_DEPTH)));
        }
        let start = self.span();
        let op = match self.peek() {
            Kind::Mark("-") => UnaryOp::Neg,
            Kind::Mark("!") => UnaryOp::Not,
            _ => return self.primary(depth),
        };
        self.advance();
        let operand = self.unary(depth + 1)?;
        let span = start.to(self.at_span(operand));
        self.node(ExprKind::Unary(op, operand), span)
    }

    fn primary(&mut self, depth: usize) -> Parsed<ExprRef> {
        let start = self.span();
        match self.peek() {
            Kind::Number(text) => {
                let text = text.clone();
                self.advance();
                self.node(ExprKind::Number(text), start)
            }
            Kind::Open('(') => self.group('(', |p| p.operators(1, depth + 1)),
            Kind::Word(word) if word == "if" => self.conditional(depth),
            Kind::Word(word) => {
                let name = Name {
                    text: word.clone(),
                    span: start,
                };
                self.advance();
                match self.peek() {
                    Kind::Open('(') if LATER_FUNCTIONS.contains(&name.text.as_str()) => {
                        Err(self.sink.report(limits::not_yet(start, &format!("`{}`", name.text))))
                    }
                    Kind::Open('(') => {
                        let arguments = self.group('(', |p| match p.peek() {
                            Kind::Close(_) => Ok(Vec::new()),
                            _ => p.list(|p| p.argument(depth + 1)),
                        })?;
                        let span = start.to(self.last_span());
                        self.node(ExprKind::Call(name, arguments), span)
                    }
                    Kind::Open('[') => {
                        let at = self.group('[', |p| p.list(|p| p.operators(1, depth + 1)))?;
                        let span = start.to(self.last_span());
                        self.node(ExprKind::Index(name, at), span)
                    }
                    _ => self.node(ExprKind::Name(name.text), start),
                }
            }
            _ => self.unexpected("an expression"),
        }
    }

    fn argument(&mut self, depth: usize) -> Parsed<Argument> {
        let name = match (self.peek(), self.peek_at(1)) {
            (Kind::Word(_), Kind::Mark("=")) => {
                let name = self.name("an argument")?;
                self.mark("=")?;
                Some(name)
            }
            _ => None,
        };
        Ok(Argument {
            name,
            value: self.operators(1, depth)?,
        })
    }

    /// `if c { a } else { b }`, where `else if` continues the chain.
    fn conditional(&mut self, depth: usize) -> Parsed<ExprRef> {
        if depth > MAX_DEPTH {
            let span = self.span();
            return Err(self.sink.report(limits::too_deep(span, MAX_DEPTH)));
        }
        let start = self.span();
        self.word("if")?;
        let condition = self.operators(1, depth + 1)?;
        let then = self.group('{', |p| p.operators(1, depth + 1))?;
        if !self.take_word("else") {
            let span = start.to(self.last_span());
            return Err(self.sink.report(syntax::if_without_else(span)));
        }
        let otherwise = match self.is_word("if") {
            true => self.conditional(depth + 1)?,
            false => self.group('{', |p| p.operators(1, depth + 1))?,
        };
        let span = start.to(self.last_span());
        self.node(ExprKind::If(condition, then, otherwise), span)
    }

    fn at_span(&self, at: ExprRef) -> Span {
        self.exprs[at.0 as usize].span
    }

    /// Adds a node whose operands are in place.
    fn node(&mut self, kind: ExprKind, span: Span) -> Parsed<ExprRef> {
        let of = |e: &ExprRef| self.exprs[e.0 as usize].height;
        let below = match &kind {
            ExprKind::Number(_) | ExprKind::Name(_) => 0,
            ExprKind::Call(_, arguments) => arguments.iter().map(|a| of(&a.value)).max().unwrap_or(0),
            ExprKind::Index(_, at) => at.iter().map(of).max().unwrap_or(0),
            ExprKind::Unary(_, a) => of(a),
            ExprKind::Binary(_, a, b) => of(a).max(of(b)),
            ExprKind::If(a, b, c) => of(a).max(of(b)).max(of(c)),
        };
        if below >= MAX_HEIGHT {
            return Err(self.sink.report(limits::too_deep(span, MAX_HEIGHT as usize)));
        }
        if self.exprs.len() >= MAX_NODES {
            let found = self.exprs.len() + 1;
            return Err(self.sink.report(limits::too_many(
                span,
                "operators and operands in a spec",
                MAX_NODES,
                found,
            )));
        }
        self.exprs.push(Expr {
            kind,
            span,
            height: below + 1,
        });
        Ok(ExprRef(self.exprs.len() as u32 - 1))
    }
}
