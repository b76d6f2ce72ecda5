//! Text to graphs.

use super::lex::{Token, lex};
use super::{BINARY, Error, REDUCE, UNARY, op_of};
use crate::build::{Builder, CompDef, FoldDef};
use crate::ir::{Axis, Binary, Direction, FoldId, Graph, Mode, Op, Side, Size, Ty, Unary, Val};
use crate::verify::Place;
use std::collections::{BTreeMap, BTreeSet};

/// A graph, and where its parts stand in the text.
#[derive(Clone, PartialEq, Debug)]
pub struct Parsed {
    /// The graph; not verified.
    pub graph: Graph,
    /// Lines.
    pub lines: Lines,
}

/// The line of each part of a graph, from 1.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Lines {
    axes: Vec<u32>,
    vals: Vec<u32>,
    folds: Vec<u32>,
    outputs: Vec<u32>,
}

impl Lines {
    /// The line of a place.
    pub fn of(&self, place: Place) -> Option<u32> {
        match place {
            Place::Axis(a) => self.axes.get(a.index()).copied(),
            Place::Val(v) => self.vals.get(v.index()).copied(),
            Place::Fold(f) => self.folds.get(f.index()).copied(),
            Place::Output(n) => self.outputs.get(n).copied(),
        }
    }
}

/// Parses one graph. Only the text is judged; [`crate::verify::verify`] judges the graph.
///
/// # Errors
/// The first thing that is not in the grammar, or a name that nothing has.
pub fn parse(text: &str) -> Result<Parsed, Error> {
    let tokens = lex(text)?;
    let mut parser = Parser {
        tokens,
        at: 0,
        depth: 0,
        b: Builder::new(""),
        lines: Lines::default(),
        names: BTreeMap::new(),
        closed: BTreeSet::new(),
        folds: Vec::new(),
        open: Vec::new(),
    };
    parser.graph()?;
    let Parser { b, lines, folds, .. } = parser;
    Ok(number_folds(Parsed { graph: b.graph, lines }, &folds))
}

/// Where every fold is called `f0`, `f1`, … the names are their numbers.
fn number_folds(mut parsed: Parsed, names: &[String]) -> Parsed {
    let numbers: Option<Vec<u32>> =
        names.iter().map(|n| n.strip_prefix('f').and_then(|n| n.parse().ok()).filter(|m| format!("f{m}") == *n)).collect();
    let Some(numbers) = numbers else { return parsed };
    let mut place: Vec<Option<usize>> = vec![None; names.len()];
    for (n, &number) in numbers.iter().enumerate() {
        match place.get_mut(number as usize) {
            Some(slot) => *slot = Some(n),
            None => return parsed,
        }
    }
    let Some(place) = place.into_iter().collect::<Option<Vec<usize>>>() else { return parsed };
    let g = &mut parsed.graph;
    g.folds = place.iter().map(|&n| g.folds[n].clone()).collect();
    parsed.lines.folds = place.iter().map(|&n| parsed.lines.folds[n]).collect();
    for node in &mut g.nodes {
        if let Op::Hole { fold, .. } | Op::Get { fold, .. } = &mut node.op {
            *fold = FoldId(numbers[fold.index()]);
        }
    }
    parsed
}

/// Expressions deeper than this are refused before they exhaust the stack.
const MAX_DEPTH: u32 = 100;

struct Parser {
    tokens: Vec<(Token, u32)>,
    at: usize,
    depth: u32,
    b: Builder,
    lines: Lines,
    names: BTreeMap<String, Val>,
    /// Names given within closed folds: they may be given anew.
    closed: BTreeSet<String>,
    folds: Vec<String>,
    open: Vec<FoldId>,
}

type Result<T, E = Error> = std::result::Result<T, E>;

impl Parser {
    fn line(&self) -> u32 {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |t| t.1)
    }

    fn fail<T>(&self, message: impl Into<String>) -> Result<T> {
        Err(Error { line: self.line(), message: message.into() })
    }

    fn expected<T>(&self, what: &str) -> Result<T> {
        let found = match self.tokens.get(self.at) {
            None => "the end".to_owned(),
            Some((Token::Newline, _)) => "the end of the line".to_owned(),
            Some((Token::Ident(name), _)) => format!("`{name}`"),
            Some((Token::Real(x), _)) => format!("`{x:?}`"),
            Some((Token::Int(x), _)) => format!("`{x}`"),
            Some((Token::Mark(mark), _)) => format!("`{mark}`"),
        };
        self.fail(format!("expected {what}, found {found}"))
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|t| &t.0)
    }

    fn is(&self, mark: &str) -> bool {
        matches!(self.peek(), Some(Token::Mark(m)) if *m == mark)
    }

    fn eat(&mut self, mark: &str) -> bool {
        let found = self.is(mark);
        self.at += usize::from(found);
        found
    }

    fn mark(&mut self, mark: &str) -> Result<()> {
        if self.eat(mark) { Ok(()) } else { self.expected(&format!("`{mark}`")) }
    }

    fn word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Ident(name)) if name == word);
        self.at += usize::from(found);
        found
    }

    fn ident(&mut self, what: &str) -> Result<String> {
        match self.peek() {
            Some(Token::Ident(name)) => {
                let name = name.clone();
                self.at += 1;
                Ok(name)
            }
            _ => self.expected(what),
        }
    }

    fn newline(&mut self) -> Result<()> {
        match self.peek() {
            Some(Token::Newline) => {
                self.at += 1;
                Ok(())
            }
            _ => self.expected("the end of the line"),
        }
    }

    fn axis(&mut self) -> Result<Axis> {
        let Some(Token::Ident(name)) = self.peek() else { return self.expected("an axis") };
        match self.b.graph.axis(name) {
            Some(axis) => {
                self.at += 1;
                Ok(axis)
            }
            None => self.fail(format!("no axis `{name}`")),
        }
    }

    fn axes(&mut self, open: &str, close: &str) -> Result<Vec<Axis>> {
        self.mark(open)?;
        let mut axes = Vec::new();
        while !self.eat(close) {
            if !axes.is_empty() {
                self.mark(",")?;
            }
            axes.push(self.axis()?);
        }
        Ok(axes)
    }

    fn graph(&mut self) -> Result<()> {
        if !self.word("graph") {
            return self.expected("`graph`");
        }
        self.b.graph.name = self.ident("a name")?;
        self.mark("{")?;
        self.newline()?;
        while !self.eat("}") {
            self.item()?;
        }
        self.newline()?;
        if self.at < self.tokens.len() { self.expected("the end") } else { Ok(()) }
    }

    fn item(&mut self) -> Result<()> {
        let line = self.line();
        let second = self.tokens.get(self.at + 1).map(|t| &t.0);
        // `axis`, `fold`, `output`, `state` and `combine` may be names of values too.
        let keyword = matches!(second, Some(Token::Ident(_)));
        match self.peek() {
            Some(Token::Ident(word)) if keyword && word == "axis" => self.axis_item(line)?,
            Some(Token::Ident(word)) if keyword && word == "fold" => return self.fold_item(line),
            Some(Token::Ident(word)) if keyword && word == "output" => {
                self.at += 1;
                let name = self.ident("a name")?;
                let axes = self.axes("[", "]")?;
                self.mark("=")?;
                let value = self.expr()?;
                self.b.output(&name, value, &axes);
                self.lines.outputs.push(line);
            }
            Some(Token::Ident(_)) => self.value_item()?,
            _ => return self.expected("a declaration"),
        }
        self.newline()
    }

    fn axis_item(&mut self, line: u32) -> Result<()> {
        self.at += 1;
        loop {
            let name = self.ident("the name of an axis")?;
            let mut size = Size::Runtime;
            if self.eat("=") {
                if self.word("len") {
                    self.mark("(")?;
                    size = Size::Same(self.axis()?);
                    self.mark(")")?;
                } else if self.word("ceil") {
                    self.mark("(")?;
                    let of = self.axis()?;
                    self.mark("/")?;
                    size = Size::CeilDiv { of, by: self.count()? };
                    self.mark(")")?;
                } else {
                    size = Size::Const(self.count()?);
                }
            }
            self.b.axis(&name, size);
            self.lines.axes.push(line);
            if !self.eat(",") {
                return Ok(());
            }
        }
    }

    fn count(&mut self) -> Result<u32> {
        match self.peek() {
            Some(&Token::Int(n)) => match u32::try_from(n) {
                Ok(n) => {
                    self.at += 1;
                    Ok(n)
                }
                Err(_) => self.fail("a size is below 2^32"),
            },
            _ => self.expected("a number"),
        }
    }

    /// `name = expr` or `name: type[axes] = expr`.
    fn value_item(&mut self) -> Result<()> {
        let name = self.ident("a name")?;
        if self.names.contains_key(&name) && !self.closed.remove(&name) {
            return self.fail(format!("a second value `{name}`"));
        }
        let mut said = None;
        if self.eat(":") {
            let ty = match self.ident("a type")?.as_str() {
                "real" => Ty::Real,
                "int" => Ty::Int,
                "bool" => Ty::Bool,
                other => return self.fail(format!("no type `{other}`")),
            };
            said = Some((ty, self.axes("[", "]")?));
        }
        self.mark("=")?;
        let count = self.b.graph.nodes.len();
        let value = self.expr()?;
        if let Some((ty, axes)) = said {
            if value.index() < count {
                return self.fail("a type on another name of a value");
            }
            let node = &mut self.b.graph.nodes[value.index()];
            node.ty = ty;
            node.axes = axes;
        }
        self.names.insert(name, value);
        Ok(())
    }

    fn fold_item(&mut self, line: u32) -> Result<()> {
        self.at += 1;
        let name = self.ident("a name")?;
        if self.folds.contains(&name) {
            return self.fail(format!("a second fold `{name}`"));
        }
        if !self.word("over") {
            return self.expected("`over`");
        }
        let mut over = Vec::new();
        loop {
            over.push(if self.is("(") { self.axes("(", ")")? } else { vec![self.axis()?] });
            if !self.eat(",") {
                break;
            }
        }
        let direction = if self.word("backward") { Direction::Backward } else { Direction::Forward };
        let mode = match () {
            () if self.word("inclusive") => Mode::Inclusive,
            () if self.word("exclusive") => Mode::Exclusive,
            () => Mode::Reduce,
        };
        let associative = self.word("associative");
        self.mark("{")?;
        self.newline()?;
        let mut comps = Vec::new();
        while self.word("state") {
            let name = self.ident("a name")?;
            // The axes of a state are a set; the graph has them in its own order.
            let mut axes = self.axes("[", "]")?;
            axes.sort_unstable();
            self.mark("=")?;
            let init = self.expr()?;
            self.mark(",")?;
            if !self.word("lift") {
                return self.expected("`lift`");
            }
            let mut lift = vec![self.expr()?];
            while self.eat(",") {
                lift.push(self.expr()?);
            }
            self.newline()?;
            comps.push(CompDef { name, axes, init, lift });
        }
        let names: Vec<String> = comps.iter().map(|c| c.name.clone()).collect();
        let id = self.b.fold(FoldDef { over, direction, mode, associative }, comps);
        self.folds.push(name);
        self.lines.folds.push(line);
        self.open.push(id);
        let mut combines = vec![None; names.len()];
        let outside: BTreeSet<String> = self.names.keys().cloned().collect();
        while !self.eat("}") {
            let second = self.tokens.get(self.at + 1).map(|t| &t.0);
            if !matches!(second, Some(Token::Ident(_))) || !self.word("combine") {
                self.item()?;
                continue;
            }
            let name = self.ident("a component")?;
            let Some(n) = names.iter().position(|other| *other == name) else {
                return self.fail(format!("no component `{name}`"));
            };
            self.mark("=")?;
            combines[n] = Some(self.expr()?);
            self.newline()?;
        }
        self.open.pop();
        self.closed.extend(self.names.keys().filter(|n| !outside.contains(*n)).cloned());
        let missing = combines.iter().position(Option::is_none);
        if let Some(n) = missing {
            return self.fail(format!("component `{}` is not combined", names[n]));
        }
        let combines: Vec<Val> = combines.into_iter().flatten().collect();
        self.b.combine(id, &combines);
        self.newline()
    }

    fn push(&mut self, op: Op) -> Val {
        let line = self.line();
        self.lines.vals.push(line);
        self.b.op(op)
    }

    fn expr(&mut self) -> Result<Val> {
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
                if self.is("(") { self.call(&name) } else { self.name(&name) }
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
            return Ok(Op::Reduce { op, of: first, over: self.axes("[", "]")? });
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
                Op::Rename { of: first, from, to: self.axis()? }
            }
            "contract" => {
                let b = self.expr()?;
                self.mark(",")?;
                Op::Contract { a: first, b, over: self.axes("[", "]")? }
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
                Op::TopK { of: first, over, rank, ascending }
            }
            _ => {
                let b = self.expr()?;
                self.mark(",")?;
                let row = self.axis()?;
                self.mark(",")?;
                Op::TriSolve { a: first, b, row, col: self.axis()? }
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
            let Some(&Token::Real(x)) = self.peek() else { return self.expected("a real number") };
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
            let found = self.open.iter().rev().find_map(|&f| find(&self.b, f, &first).map(|n| (f, n)));
            return found.map_or_else(|| self.fail(format!("no component `{first}` here")), Ok);
        }
        let Some(fold) = self.folds.iter().position(|name| *name == first).map(|n| FoldId(n as u32)) else {
            return self.fail(format!("no fold `{first}`"));
        };
        let name = self.ident("a component")?;
        match find(&self.b, fold, &name) {
            Some(n) => Ok((fold, n)),
            None => self.fail(format!("no component `{name}` in `{first}`")),
        }
    }
}
