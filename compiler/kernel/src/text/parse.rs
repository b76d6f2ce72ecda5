//! Text to a kernel: tokens, types and declarations. Statements and instructions stand in modules of their own.

mod instructions;
mod statements;

use std::str::FromStr;

use super::lex::{Spanned, Token, lex};
use crate::ir::*;

/// Nesting beyond this is refused, so that hostile text cannot exhaust the stack.
const MAX_DEPTH: u32 = 64;
/// Value numbers beyond this are refused, so that hostile text cannot exhaust memory.
const MAX_VALUE: u32 = 1 << 22;

/// Text that is not a kernel: where and why.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{line}:{col}: {message}")]
pub struct ParseError {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub col: u32,
    /// What was expected and what was found.
    pub message: String,
}

impl ParseError {
    pub(super) fn new(line: u32, col: u32, message: impl Into<String>) -> ParseError {
        ParseError {
            line,
            col,
            message: message.into(),
        }
    }
}

type Result<T> = std::result::Result<T, ParseError>;

/// Reads a kernel; see [the grammar](super).
///
/// # Errors
/// The first place where the text departs from the grammar, or gives one value two types.
pub fn parse(text: &str) -> Result<Kernel> {
    parse_with_lines(text).map(|(kernel, _)| kernel)
}

/// Reads a kernel, and says on which line each statement (by number) begins.
///
/// # Errors
/// As [`parse`].
pub fn parse_with_lines(text: &str) -> Result<(Kernel, Vec<u32>)> {
    let mut p = Parser {
        tokens: lex(text)?,
        at: 0,
        depth: 0,
        types: Vec::new(),
        lines: Vec::new(),
    };
    let kernel = p.kernel()?;
    Ok((kernel, p.lines))
}

struct Parser {
    tokens: Vec<Spanned>,
    at: usize,
    depth: u32,
    types: Vec<Option<Frag>>,
    lines: Vec<u32>,
}

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.at].token
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        token
    }

    /// An error at the token `back` places before the next one.
    fn error<T>(&self, back: usize, message: impl Into<String>) -> Result<T> {
        let t = &self.tokens[self.at.saturating_sub(back)];
        Err(ParseError::new(t.line, t.col, message))
    }

    fn expected<T>(&self, what: &str) -> Result<T> {
        self.error(0, format!("expected {what}, found {}", self.peek().describe()))
    }

    fn eat(&mut self, punct: &str) -> bool {
        let found = matches!(self.peek(), Token::Punct(p) if *p == punct);
        if found {
            self.next();
        }
        found
    }

    fn punct(&mut self, punct: &str) -> Result<()> {
        if self.eat(punct) {
            Ok(())
        } else {
            self.expected(&format!("`{punct}`"))
        }
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let found = self.at_word(word);
        if found {
            self.next();
        }
        found
    }

    fn at_word(&self, word: &str) -> bool {
        matches!(self.peek(), Token::Ident(w) if w == word)
    }

    fn word(&mut self, word: &str) -> Result<()> {
        if self.eat_word(word) {
            Ok(())
        } else {
            self.expected(&format!("`{word}`"))
        }
    }

    fn name(&mut self) -> Result<String> {
        match self.peek().clone() {
            Token::Ident(s) | Token::Str(s) => {
                self.next();
                Ok(s)
            }
            _ => self.expected("a name"),
        }
    }

    /// A whole number that fits the type asked for.
    fn int<T: FromStr>(&mut self) -> Result<T> {
        match self.peek() {
            Token::Number(s) => match s.parse() {
                Ok(n) => {
                    self.next();
                    Ok(n)
                }
                Err(_) => self.expected("a whole number in range"),
            },
            _ => self.expected("a whole number"),
        }
    }

    fn float<T: FromStr>(&mut self) -> Result<T> {
        let text = if self.eat("-") {
            self.word("inf")?;
            "-inf".to_string()
        } else {
            match self.next() {
                Token::Number(s) => s,
                Token::Ident(s) if s == "inf" || s == "nan" => s,
                _ => return self.error(1, "expected a number, `inf`, `-inf` or `nan`"),
            }
        };
        text.parse()
            .or_else(|_| self.error(1, format!("`{text}` is not a number")))
    }

    /// An entity's number: `v7` for prefix `v`.
    fn entity(&mut self, prefix: char, what: &str) -> Result<u32> {
        let number = match self.peek() {
            Token::Ident(s) => s
                .strip_prefix(prefix)
                .and_then(|d| d.parse::<u32>().ok().filter(|n| n.to_string() == d)),
            _ => None,
        };
        match number {
            Some(n) if n <= MAX_VALUE => {
                self.next();
                Ok(n)
            }
            _ => self.expected(what),
        }
    }

    fn val(&mut self) -> Result<Val> {
        self.entity('v', "a value such as `v7`").map(Val)
    }
    fn param_id(&mut self) -> Result<ParamId> {
        self.entity('p', "a parameter such as `p2`").map(ParamId)
    }
    fn buf_id(&mut self) -> Result<BufId> {
        self.entity('s', "a buffer such as `s0`").map(BufId)
    }
    fn mbar_id(&mut self) -> Result<MbarId> {
        self.entity('m', "an mbarrier such as `m0`").map(MbarId)
    }

    fn eat_literal_zero(&mut self) -> bool {
        let found = matches!(self.peek(), Token::Number(s) if s == "0");
        if found {
            self.next();
        }
        found
    }

    /// Items separated by commas, until `close`, which is consumed.
    fn list<T>(&mut self, close: &str, mut item: impl FnMut(&mut Parser) -> Result<T>) -> Result<Vec<T>> {
        let mut items = Vec::new();
        if self.eat(close) {
            return Ok(items);
        }
        loop {
            items.push(item(self)?);
            if self.eat(close) {
                return Ok(items);
            }
            self.punct(",")?;
        }
    }

    fn dtype_of(&self, word: &str) -> Option<Dtype> {
        [Dtype::F16, Dtype::Bf16, Dtype::F32, Dtype::I32, Dtype::I64, Dtype::Bool]
            .into_iter()
            .find(|d| d.name() == word)
    }

    fn dtype(&mut self) -> Result<Dtype> {
        let found = match self.peek() {
            Token::Ident(s) => self.dtype_of(s),
            _ => None,
        };
        match found {
            Some(d) => {
                self.next();
                Ok(d)
            }
            None => self.expected("a dtype (f16, bf16, f32, i32, i64 or bool)"),
        }
    }

    /// `32x64`.
    fn dims(&mut self) -> Result<(u32, u32)> {
        let rows = self.int()?;
        let cols = match self.peek() {
            Token::Ident(s) => s.strip_prefix('x').and_then(|d| d.parse().ok()),
            _ => None,
        };
        match cols {
            Some(cols) => {
                self.next();
                Ok((rows, cols))
            }
            None => self.expected("`x` and the number of columns"),
        }
    }

    fn frag(&mut self) -> Result<Frag> {
        let dtype = self.dtype()?;
        if !self.eat("[") {
            return Ok(Frag::scalar(dtype));
        }
        let (rows, cols) = self.dims()?;
        self.punct("]")?;
        let layout = match self.next() {
            Token::Ident(s) if s == "uniform" => Layout::Uniform,
            Token::Ident(s) if s == "mma" => Layout::Mma,
            Token::Ident(s) if s.starts_with("lanes.") => match s["lanes.".len()..].parse() {
                Ok(vec) => Layout::Lanes { vec },
                Err(_) => return self.error(1, "expected a run length after `lanes.`"),
            },
            _ => return self.error(1, "expected a layout (`uniform`, `mma` or `lanes.N`)"),
        };
        Ok(Frag {
            dtype,
            rows,
            cols,
            layout,
        })
    }

    fn define(&mut self, v: Val, ty: Frag) -> Result<()> {
        if self.types.len() <= v.index() {
            self.types.resize(v.index() + 1, None);
        }
        match self.types[v.index()] {
            Some(old) if old != ty => self.error(1, format!("{v} has two different types")),
            _ => {
                self.types[v.index()] = Some(ty);
                Ok(())
            }
        }
    }

    fn kernel(&mut self) -> Result<Kernel> {
        self.word("kernel")?;
        let name = self.name()?;
        self.word("target")?;
        let target = self.name()?;
        self.word("min_ctas")?;
        let min_ctas = self.int()?;
        self.punct("{")?;
        let (mut params, mut buffers, mut mbarriers, mut roles) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        while !self.eat("}") {
            if self.eat_word("param") {
                params.push(self.param(params.len())?);
            } else if self.eat_word("shared") {
                buffers.push(self.buffer(buffers.len())?);
            } else if self.eat_word("mbarrier") {
                mbarriers.push(self.mbarrier(mbarriers.len())?);
            } else if self.eat_word("role") {
                roles.push(self.role()?);
            } else {
                return self.expected("`param`, `shared`, `mbarrier`, `role` or `}`");
            }
        }
        if *self.peek() != Token::End {
            return self.expected("the end of the text");
        }
        let unused = Frag::scalar(Dtype::Bool);
        let types = std::mem::take(&mut self.types)
            .into_iter()
            .map(|t| t.unwrap_or(unused))
            .collect();
        Ok(Kernel {
            name,
            target,
            params,
            buffers,
            mbarriers,
            roles,
            min_ctas,
            types,
        })
    }

    /// Checks that declarations are numbered in order.
    fn in_order(&self, number: u32, expected: usize) -> Result<()> {
        if number as usize == expected {
            Ok(())
        } else {
            self.error(1, format!("expected number {expected} here"))
        }
    }

    fn param(&mut self, index: usize) -> Result<Param> {
        let id = self.param_id()?;
        self.in_order(id.0, index)?;
        let name = self.name()?;
        self.punct(":")?;
        let access = if self.eat_word("in") {
            Some(Access::In)
        } else if self.eat_word("out") {
            Some(Access::Out)
        } else {
            None
        };
        let dtype = self.dtype()?;
        let kind = match access {
            None => ParamKind::Scalar { dtype },
            Some(access) => {
                self.punct("[")?;
                let axes = self.list("]", |p| match p.peek() {
                    Token::Number(_) => p.int().map(Extent::Const),
                    _ => p.param_id().map(Extent::Param),
                })?;
                ParamKind::Tensor { dtype, axes, access }
            }
        };
        Ok(Param { name, kind })
    }

    fn buffer(&mut self, index: usize) -> Result<Buffer> {
        let id = self.buf_id()?;
        self.in_order(id.0, index)?;
        let name = self.name()?;
        self.punct(":")?;
        let dtype = self.dtype()?;
        self.punct("[")?;
        let slots = self.int()?;
        self.punct("]")?;
        self.punct("[")?;
        let (rows, cols) = self.dims()?;
        self.punct("]")?;
        let layout = if self.eat_word("swizzled") {
            BufferLayout::Swizzled
        } else if self.eat_word("panels") {
            BufferLayout::Panels
        } else {
            BufferLayout::Rows
        };
        let alias = if self.eat_word("alias") {
            Some(self.buf_id()?)
        } else {
            None
        };
        Ok(Buffer {
            name,
            dtype,
            slots,
            rows,
            cols,
            layout,
            alias,
        })
    }

    fn mbarrier(&mut self, index: usize) -> Result<Mbarrier> {
        let id = self.mbar_id()?;
        self.in_order(id.0, index)?;
        let name = self.name()?;
        self.punct(":")?;
        self.word("slots")?;
        let slots = self.int()?;
        self.word("arrivals")?;
        let arrivals = self.int()?;
        Ok(Mbarrier { name, slots, arrivals })
    }

    fn role(&mut self) -> Result<Role> {
        let name = self.name()?;
        self.word("warps")?;
        let warps = self.int()?;
        let registers = if self.eat_word("registers") {
            Some(self.int()?)
        } else {
            None
        };
        self.punct("{")?;
        let body = self.block()?;
        self.punct("}")?;
        Ok(Role {
            name,
            warps,
            registers,
            body,
        })
    }
}
