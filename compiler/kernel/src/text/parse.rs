//! Text to a kernel.

use std::str::FromStr;

use super::lex::{Spanned, Token, lex};
use super::print::MAP_NAMES;
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
        let swizzled = self.eat_word("swizzled");
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
            swizzled,
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

    /// Statements up to (not including) `}`, `next` or `yield`.
    fn block(&mut self) -> Result<Block> {
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

    /// An instruction's name: `map.fma` gives `map` and `fma`.
    fn mnemonic(&mut self) -> Result<(String, String)> {
        match self.next() {
            Token::Ident(s) => {
                let (a, b) = s.split_once('.').unwrap_or((&s, ""));
                Ok((a.to_string(), b.to_string()))
            }
            _ => self.error(1, "expected an instruction"),
        }
    }

    /// The bytes of one access in a mnemonic such as `sync.16`.
    fn width(&self, suffix: &str) -> Result<u32> {
        suffix
            .parse()
            .or_else(|_| self.error(1, "expected the bytes of one access, as in `.16`"))
    }

    fn op(&mut self) -> Result<Op> {
        let (mnemonic, suffix) = self.mnemonic()?;
        Ok(match (mnemonic.as_str(), suffix.as_str()) {
            ("const", "f") => Op::ConstF(self.float()?),
            ("const", "i") => Op::ConstI(self.int()?),
            ("param", "") => Op::Param(self.param_id()?),
            ("cta", "") => Op::Cta,
            ("warp_in_role", "") => Op::WarpInRole,
            ("row_iota", "") => Op::RowIota,
            ("col_iota", "") => Op::ColIota,
            ("map", name) => {
                let Some((op, _)) = MAP_NAMES.into_iter().find(|(_, n)| *n == name) else {
                    return self.error(1, format!("there is no elementwise operation `{name}`"));
                };
                let mut args = vec![self.val()?];
                while self.eat(",") {
                    args.push(self.val()?);
                }
                Op::Map(op, args)
            }
            ("reduce", "sum") => Op::Reduce(ReduceOp::Sum, self.val()?),
            ("reduce", "max") => Op::Reduce(ReduceOp::Max, self.val()?),
            ("mma", "") => {
                let acc = self.val()?;
                let (a, b) = self.operands()?;
                Op::Mma { acc, a, b }
            }
            ("mma_async", "") => {
                let acc = if self.eat_word("zero") { None } else { Some(self.val()?) };
                let (a, b) = self.operands()?;
                Op::MmaAsync { acc, a, b }
            }
            ("mma_wait", "") => {
                let of = self.val()?;
                self.word("pending")?;
                Op::MmaWait {
                    of,
                    pending: self.int()?,
                }
            }
            ("load_global", "") => {
                let (tensor, at) = self.element()?;
                let guard = self.guard()?;
                let fill = if self.eat_word("fill") { self.float()? } else { 0.0 };
                Op::LoadGlobal {
                    tensor,
                    at,
                    guard,
                    fill,
                }
            }
            ("load_shared", "") => Op::LoadShared(self.shared()?),
            _ => return self.error(1, "unknown instruction"),
        })
    }

    fn operands(&mut self) -> Result<(Operand, Operand)> {
        self.punct(",")?;
        let a = self.operand()?;
        self.punct(",")?;
        Ok((a, self.operand()?))
    }

    fn operand(&mut self) -> Result<Operand> {
        if self.eat_word("trans") {
            return self.shared().map(Operand::SharedT);
        }
        match self.peek() {
            Token::Ident(s) if s.starts_with('s') => self.shared().map(Operand::Shared),
            _ => self.val().map(Operand::Reg),
        }
    }

    fn element(&mut self) -> Result<(ParamId, Index)> {
        let tensor = self.param_id()?;
        self.punct("[")?;
        Ok((tensor, self.list("]", Parser::val)?))
    }

    fn guard(&mut self) -> Result<Option<Val>> {
        if self.eat_word("guard") {
            self.val().map(Some)
        } else {
            Ok(None)
        }
    }

    fn shared(&mut self) -> Result<SharedView> {
        let buf = self.buf_id()?;
        self.punct("[")?;
        let slot = if self.eat_literal_zero() {
            None
        } else {
            Some(self.val()?)
        };
        self.punct(",")?;
        let row = if self.eat_literal_zero() {
            None
        } else {
            Some(self.val()?)
        };
        self.punct("+")?;
        let rows = self.int()?;
        self.punct(",")?;
        let col = self.int()?;
        self.punct("+")?;
        let cols = self.int()?;
        self.punct("]")?;
        Ok(SharedView {
            buf,
            slot,
            row,
            col,
            rows,
            cols,
        })
    }

    fn tile(&mut self) -> Result<GlobalTile> {
        let tensor = self.param_id()?;
        self.punct("[")?;
        let mut at = Vec::new();
        while !matches!(self.peek(), Token::Number(_)) {
            at.push(self.row_index()?);
            self.punct(",")?;
        }
        let col = self.int()?;
        self.punct("+")?;
        let cols = self.int()?;
        self.punct("]")?;
        self.word("rows")?;
        let first_row = self.val()?;
        self.punct("+")?;
        let rows = self.int()?;
        self.word("limit")?;
        Ok(GlobalTile {
            tensor,
            at,
            col,
            rows,
            cols,
            first_row,
            row_limit: self.val()?,
        })
    }

    fn row_index(&mut self) -> Result<RowIndex> {
        if self.eat_word("row") {
            if self.eat("/") {
                return Ok(RowIndex::RowDiv { by: self.val()? });
            }
            return Ok(RowIndex::Row);
        }
        let base = self.val()?;
        if !self.eat("+") {
            return Ok(RowIndex::Fixed(base));
        }
        self.word("row")?;
        self.punct("%")?;
        Ok(RowIndex::RowRem { by: self.val()?, base })
    }

    /// `m0[v1]`.
    fn mbar_slot(&mut self) -> Result<(MbarId, Val)> {
        let barrier = self.mbar_id()?;
        self.punct("[")?;
        let slot = self.val()?;
        self.punct("]")?;
        Ok((barrier, slot))
    }

    fn warps(&mut self) -> Result<u32> {
        self.word("warps")?;
        self.int()
    }

    fn effect(&mut self) -> Result<Effect> {
        let (mnemonic, suffix) = self.mnemonic()?;
        let plain = suffix.is_empty();
        Ok(match mnemonic.as_str() {
            "copy" if plain => {
                let (kind, suffix) = self.mnemonic()?;
                let kind = match kind.as_str() {
                    "sync" => CopyKind::Sync {
                        bytes: self.width(&suffix)?,
                    },
                    "cp_async" => CopyKind::CpAsync {
                        bytes: self.width(&suffix)?,
                    },
                    "tma" if suffix.is_empty() => {
                        let (barrier, slot) = self.mbar_slot()?;
                        CopyKind::Tma { barrier, slot }
                    }
                    _ => return self.error(1, "expected `sync.N`, `cp_async.N` or `tma`"),
                };
                let dst = self.shared()?;
                self.punct("<-")?;
                Effect::Copy {
                    kind,
                    src: self.tile()?,
                    dst,
                }
            }
            "commit_group" if plain => Effect::CommitGroup,
            "wait_group" if plain => Effect::WaitGroup { pending: self.int()? },
            "barrier" if plain => Effect::Barrier {
                id: self.int()?,
                warps: self.warps()?,
            },
            "barrier_arrive" if plain => Effect::BarrierArrive {
                id: self.int()?,
                warps: self.warps()?,
            },
            "mbar_arrive" if plain => {
                let (barrier, slot) = self.mbar_slot()?;
                Effect::MbarArrive { barrier, slot }
            }
            "mbar_expect" if plain => {
                let (barrier, slot) = self.mbar_slot()?;
                self.word("bytes")?;
                Effect::MbarExpect {
                    barrier,
                    slot,
                    bytes: self.int()?,
                }
            }
            "mbar_wait" if plain => {
                let (barrier, slot) = self.mbar_slot()?;
                self.word("parity")?;
                Effect::MbarWait {
                    barrier,
                    slot,
                    parity: self.val()?,
                }
            }
            "fence_proxy_async" if plain => Effect::FenceProxyAsync,
            "mma_fence" if plain => Effect::MmaFence,
            "mma_commit" if plain => Effect::MmaCommit,
            "store_shared" if plain => {
                let dst = self.shared()?;
                self.punct("<-")?;
                Effect::StoreShared {
                    dst,
                    value: self.val()?,
                }
            }
            "store_global" if plain => {
                let (tensor, at) = self.element()?;
                self.punct("<-")?;
                let value = self.val()?;
                Effect::StoreGlobal {
                    tensor,
                    at,
                    guard: self.guard()?,
                    value,
                }
            }
            "store_tile" => {
                let bytes = self.width(&suffix)?;
                let dst = self.tile()?;
                self.punct("<-")?;
                Effect::StoreTile {
                    src: self.shared()?,
                    dst,
                    bytes,
                }
            }
            "tma_store" if plain => {
                let dst = self.tile()?;
                self.punct("<-")?;
                Effect::TmaStore {
                    src: self.shared()?,
                    dst,
                }
            }
            "tma_store_wait" if plain => Effect::TmaStoreWait { pending: self.int()? },
            "set_registers" if plain => Effect::SetRegisters { count: self.int()? },
            "assert" if plain => {
                let cond = self.val()?;
                match self.next() {
                    Token::Str(message) => Effect::Assert { cond, message },
                    _ => return self.error(1, "expected a message in quotes"),
                }
            }
            _ => return self.error(1, "unknown instruction"),
        })
    }
}
