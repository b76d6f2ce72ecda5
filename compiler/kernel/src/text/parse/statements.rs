//! Statements of a kernel's text.

use super::super::lex::Token;
use super::{MAX_DEPTH, Parser, Result};
use crate::ir::*;

impl Parser {
    /// Statements up to (not including) `}`, `next` or `yield`.
    pub(super) fn block(&mut self) -> Result<Block> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.error(0, format!("statements are nested more than {MAX_DEPTH} deep"));
        }
        let mut stmts = Vec::new();
        while !(matches!(self.peek(), Token::Punct("}") | Token::End) || self.at_word("next") || self.at_word("yield"))
        {
            self.lines.push(self.tokens[self.at].line);
            stmts.push(self.stmt()?);
        }
        self.depth -= 1;
        Ok(Block(stmts))
    }

    fn stmt(&mut self) -> Result<Stmt> {
        if self.eat_word("loop") {
            return self.loop_();
        }
        if self.eat_word("if") {
            return self.if_();
        }
        if self.eat_word("stream") {
            return self.stream();
        }
        let value = matches!(self.peek(), Token::Ident(s) if s.starts_with('v') && s[1..].parse::<u32>().is_ok());
        if !value {
            return Ok(Stmt::Do(self.effect()?));
        }
        let dst = self.val()?;
        self.punct("=")?;
        let op = self.op()?;
        self.punct(":")?;
        let ty = self.frag()?;
        self.define(dst, ty)?;
        Ok(Stmt::Let { dst, op })
    }

    /// `carried (v10 = v4 -> v30 : f32)`; `next` is filled in later.
    fn carried(&mut self) -> Result<Vec<Carried>> {
        if !self.eat_word("carried") {
            return Ok(Vec::new());
        }
        self.punct("(")?;
        self.list(")", |p| {
            let arg = p.val()?;
            p.punct("=")?;
            let init = p.val()?;
            p.punct("->")?;
            let result = p.val()?;
            p.punct(":")?;
            let ty = p.frag()?;
            p.define(arg, ty)?;
            p.define(result, ty)?;
            Ok(Carried {
                arg,
                init,
                next: arg,
                result,
            })
        })
    }

    /// `keyword v1, v2 }`, with exactly `count` values; the keyword is absent if there are none.
    fn finish(&mut self, keyword: &str, count: usize) -> Result<Vec<Val>> {
        if count == 0 {
            self.punct("}")?;
            return Ok(Vec::new());
        }
        self.word(keyword)?;
        let values = self.list("}", Parser::val)?;
        if values.len() != count {
            return self.error(
                1,
                format!("expected {count} values after `{keyword}`, found {}", values.len()),
            );
        }
        Ok(values)
    }

    fn loop_(&mut self) -> Result<Stmt> {
        let var = self.val()?;
        self.define(var, Frag::scalar(Dtype::I32))?;
        self.word("in")?;
        let lo = self.val()?;
        self.punct("..")?;
        let hi = self.val()?;
        let mut carried = self.carried()?;
        self.punct("{")?;
        let body = self.block()?;
        let next = self.finish("next", carried.len())?;
        for (c, n) in carried.iter_mut().zip(next) {
            c.next = n;
        }
        Ok(Stmt::Loop(Loop {
            var,
            lo,
            hi,
            carried,
            body,
        }))
    }

    fn if_(&mut self) -> Result<Stmt> {
        let cond = self.val()?;
        let mut defined = Vec::new();
        if self.eat("->") {
            self.punct("(")?;
            defined = self.list(")", |p| {
                let v = p.val()?;
                p.punct(":")?;
                let ty = p.frag()?;
                p.define(v, ty)?;
                Ok(v)
            })?;
        }
        self.punct("{")?;
        let then = self.block()?;
        let then_values = self.finish("yield", defined.len())?;
        let (mut otherwise, mut else_values) = (Block::default(), Vec::new());
        if self.eat_word("else") {
            self.punct("{")?;
            otherwise = self.block()?;
            else_values = self.finish("yield", defined.len())?;
        } else if !defined.is_empty() {
            return self.expected("`else`, because the statement yields values");
        }
        let results = (defined.into_iter().zip(then_values).zip(else_values))
            .map(|((result, then), otherwise)| Phi {
                result,
                then,
                otherwise,
            })
            .collect();
        Ok(Stmt::If(If {
            cond,
            then,
            otherwise,
            results,
        }))
    }

    fn stream(&mut self) -> Result<Stmt> {
        let var = self.val()?;
        self.define(var, Frag::scalar(Dtype::I32))?;
        let carried = self.carried()?;
        self.punct("{")?;
        let (mut stages, mut segments) = (Vec::new(), Vec::new());
        while segments.is_empty() && self.eat_word("stage") {
            self.word("lead")?;
            let lead = self.int()?;
            self.word("role")?;
            let role = self.name()?;
            let mut results = Vec::new();
            if self.eat_word("results") {
                self.punct("(")?;
                results = self.list(")", Parser::val)?;
            }
            self.punct("{")?;
            let block = self.block()?;
            self.punct("}")?;
            stages.push(Stage {
                lead,
                role,
                block,
                results,
            });
        }
        while self.eat_word("segment") {
            let name = self.name()?;
            self.word("until")?;
            let end = self.val()?;
            self.punct("{")?;
            let body = self.block()?;
            let next = self.finish("next", carried.len())?;
            segments.push(Segment { name, end, body, next });
        }
        self.punct("}")?;
        Ok(Stmt::Stream(Stream {
            var,
            stages,
            segments,
            carried,
        }))
    }
}
