//! The right-hand sides of the text form: calls, names, literals and infix operators, to values.

use super::lex::Token;
use super::parse::{Parser, Result};
use super::{BINARY, REDUCE, UNARY, op_of};
use crate::build::Builder;
use crate::ir::{Binary, FoldId, Op, Side, Unary, Val};

/// Expressions deeper than this are refused before they exhaust the stack.
const MAX_DEPTH: u32 = 100;

impl Parser {
    fn push(&mut self, op: Op) -> Val {
        let line = self.line();
        self.lines.vals.push(line);
        self.b.op(op)
    }

    pub(super) fn expr(&mut self) -> Result<Val> {
        self.infix(0)
    }

    /// Operators of at least this level: or, and, comparison, sum, product.
    fn infix(&mut self, level: u8) -> Result<Val> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.fail("an expression nested too deeply");
        }
        let mut left = self.prefix()?;
        while let Some(Token::Mark(mark)) = self.peek() {
            let mark = *mark;
            let found = match mark {
                "||" => 0,
                "&&" => 1,
                "<" | "<=" | ">" | ">=" | "==" | "!=" => 2,
                "+" | "-" => 3,
                "*" | "/" | "%" => 4,
                _ => break,
            };
            if found < level {
                break;
            }
            self.at += 1;
            let right = self.infix(found + 1)?;
            let (op, a, b) = match mark {
                "||" => (Binary::Or, left, right),
                "&&" => (Binary::And, left, right),
                "<" => (Binary::Lt, left, right),
                "<=" => (Binary::Le, left, right),
                ">" => (Binary::Lt, right, left),
                ">=" => (Binary::Le, right, left),
                "+" => (Binary::Add, left, right),
                "-" => (Binary::Sub, left, right),
                "*" => (Binary::Mul, left, right),
                "/" => (Binary::Div, left, right),
                "%" => (Binary::Rem, left, right),
                _ => (Binary::Eq, left, right),
            };
            left = self.push(Op::Binary(op, a, b));
            if mark == "!=" {
                left = self.push(Op::Unary(Unary::Not, left));
            }
        }
        self.depth -= 1;
        Ok(left)
    }

    fn prefix(&mut self) -> Result<Val> {
        if self.eat("-") {
            match self.peek() {
                Some(&Token::Real(x)) => {
                    self.at += 1;
                    return Ok(self.push(Op::Real(-x)));
                }
                Some(&Token::Int(x)) => {
                    self.at += 1;
                    return Ok(self.push(Op::Int(-x)));
                }
                _ => {
                    let a = self.infix(5)?;
                    return Ok(self.push(Op::Unary(Unary::Neg, a)));
                }
            }
        }
        if self.eat("!") {
            let a = self.infix(5)?;
            return Ok(self.push(Op::Unary(Unary::Not, a)));
        }
        if self.eat("(") {
            let inner = self.expr()?;
            self.mark(")")?;
            return Ok(inner);
        }
        match self.peek().cloned() {
            Some(Token::Real(x)) => {
                self.at += 1;
                Ok(self.push(Op::Real(x)))
            }
            Some(Token::Int(x)) => {
                self.at += 1;
                Ok(self.push(Op::Int(x)))
            }
            Some(Token::Ident(name)) => {
                self.at += 1;
                if self.is("(") {
                    self.call(&name)
                } else {
                    self.name(&name)
                }
            }
            _ => self.expected("a value"),
        }
    }

    fn name(&mut self, name: &str) -> Result<Val> {
        if let Some(&value) = self.names.get(name) {
            return Ok(value);
        }
        match name {
            "true" | "false" => Ok(self.push(Op::Bool(name == "true"))),
            "input" => {
                let name = self.ident("the name of an input")?;
                let axes = self.axes("[", "]")?;
                Ok(self.push(Op::Input { name, axes }))
            }
            "scalar" => {
                let name = self.ident("the name of a scalar")?;
                Ok(self.push(Op::Scalar(name)))
            }
            _ => {
                self.at -= 1;
                self.fail(format!("no value `{name}`"))
            }
        }
    }

    fn call(&mut self, name: &str) -> Result<Val> {
        self.mark("(")?;
        let op = match name {
            "index" => Op::Index(self.axis()?),
            "len" => Op::Len(self.axis()?),
            "left" | "right" => {
                let (fold, comp) = self.state()?;
                let side = if name == "left" { Side::Left } else { Side::Right };
                Op::Hole { fold, comp, side }
            }
            "get" => {
                let (fold, comp) = self.state()?;
                Op::Get { fold, comp }
            }
            _ => {
                let first = self.expr()?;
                self.rest(name, first)?
            }
        };
        self.mark(")")?;
        Ok(self.push(op))
    }

    fn rest(&mut self, name: &str, first: Val) -> Result<Op> {
        if let Some(op) = op_of(&UNARY, name) {
            return Ok(Op::Unary(op, first));
        }
        if let Some(op) = op_of(&BINARY, name) {
            self.mark(",")?;
            return Ok(Op::Binary(op, first, self.expr()?));
        }
        if let Some(op) = op_of(&REDUCE, name) {
            self.mark(",")?;
            return Ok(Op::Reduce {
                op,
                of: first,
                over: self.axes("[", "]")?,
            });
        }
        if !["select", "rename", "contract", "gather", "topk", "trisolve"].contains(&name) {
            return self.fail(format!("no operation `{name}`"));
        }
        self.mark(",")?;
        Ok(match name {
            "select" => {
                let then = self.expr()?;
                self.mark(",")?;
                Op::Select(first, then, self.expr()?)
            }
            "rename" => {
                let from = self.axis()?;
                self.mark("->")?;
                Op::Rename {
                    of: first,
                    from,
                    to: self.axis()?,
                }
            }
            "contract" => {
                let b = self.expr()?;
                self.mark(",")?;
                Op::Contract {
                    a: first,
                    b,
                    over: self.axes("[", "]")?,
                }
            }
            "gather" => self.gather(first)?,
            "topk" => {
                let over = self.axis()?;
                self.mark("->")?;
                let rank = self.axis()?;
                let ascending = self.eat(",");
                if ascending && !self.word("ascending") {
                    return self.expected("`ascending`");
                }
                Op::TopK {
                    of: first,
                    over,
                    rank,
                    ascending,
                }
            }
            _ => {
                let b = self.expr()?;
                self.mark(",")?;
                let row = self.axis()?;
                self.mark(",")?;
                Op::TriSolve {
                    a: first,
                    b,
                    row,
                    col: self.axis()?,
                }
            }
        })
    }

    fn gather(&mut self, of: Val) -> Result<Op> {
        self.mark("[")?;
        let mut at = Vec::new();
        while !self.eat("]") {
            if !at.is_empty() {
                self.mark(",")?;
            }
            let axis = self.axis()?;
            self.mark("=")?;
            at.push((axis, self.expr()?));
        }
        let mut fill = None;
        if self.eat(",") {
            let negative = self.eat("-");
            let Some(&Token::Real(x)) = self.peek() else {
                return self.expected("a real number");
            };
            self.at += 1;
            fill = Some(if negative { -x } else { x });
        }
        Ok(Op::Gather { of, at, fill })
    }

    /// `fold.component`, or a component of an enclosing fold.
    fn state(&mut self) -> Result<(FoldId, u32)> {
        let first = self.ident("a component")?;
        let find = |b: &Builder, fold: FoldId, name: &str| {
            let comps = &b.graph.folds[fold.index()].comps;
            comps.iter().position(|c| c.name == name).map(|n| n as u32)
        };
        if !self.eat(".") {
            let found = self
                .open
                .iter()
                .rev()
                .find_map(|&f| find(&self.b, f, &first).map(|n| (f, n)));
            return found.map_or_else(|| self.fail(format!("no component `{first}` here")), Ok);
        }
        let Some(fold) = self
            .folds
            .iter()
            .position(|name| *name == first)
            .map(|n| FoldId(n as u32))
        else {
            return self.fail(format!("no fold `{first}`"));
        };
        let name = self.ident("a component")?;
        match find(&self.b, fold, &name) {
            Some(n) => Ok((fold, n)),
            None => self.fail(format!("no component `{name}` in `{first}`")),
        }
    }
}
