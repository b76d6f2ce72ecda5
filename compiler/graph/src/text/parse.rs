//! Text to graphs.

use super::Error;
use super::lex::{Token, lex};
use crate::build::{Builder, CompDef, FoldDef};
use crate::ir::{Axis, Direction, FoldId, Graph, Mode, Op, Size, Ty, Val};
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
    pub(super) vals: Vec<u32>,
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
    let numbers: Option<Vec<u32>> = names
        .iter()
        .map(|n| {
            n.strip_prefix('f')
                .and_then(|n| n.parse().ok())
                .filter(|m| format!("f{m}") == *n)
        })
        .collect();
    let Some(numbers) = numbers else { return parsed };
    let mut place: Vec<Option<usize>> = vec![None; names.len()];
    for (n, &number) in numbers.iter().enumerate() {
        match place.get_mut(number as usize) {
            Some(slot) => *slot = Some(n),
            None => return parsed,
        }
    }
    let Some(place) = place.into_iter().collect::<Option<Vec<usize>>>() else {
        return parsed;
    };
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

/// The state of a parse.
pub(super) struct Parser {
    pub(super) tokens: Vec<(Token, u32)>,
    pub(super) at: usize,
    pub(super) depth: u32,
    pub(super) b: Builder,
    pub(super) lines: Lines,
    pub(super) names: BTreeMap<String, Val>,
    /// Names given within closed folds: they may be given anew.
    pub(super) closed: BTreeSet<String>,
    pub(super) folds: Vec<String>,
    pub(super) open: Vec<FoldId>,
}

pub(super) type Result<T, E = Error> = std::result::Result<T, E>;

impl Parser {
    pub(super) fn line(&self) -> u32 {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |t| t.1)
    }

    pub(super) fn fail<T>(&self, message: impl Into<String>) -> Result<T> {
        Err(Error {
            line: self.line(),
            message: message.into(),
        })
    }

    pub(super) fn expected<T>(&self, what: &str) -> Result<T> {
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

    pub(super) fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|t| &t.0)
    }

    pub(super) fn is(&self, mark: &str) -> bool {
        matches!(self.peek(), Some(Token::Mark(m)) if *m == mark)
    }

    pub(super) fn eat(&mut self, mark: &str) -> bool {
        let found = self.is(mark);
        self.at += usize::from(found);
        found
    }

    pub(super) fn mark(&mut self, mark: &str) -> Result<()> {
        if self.eat(mark) {
            Ok(())
        } else {
            self.expected(&format!("`{mark}`"))
        }
    }

    pub(super) fn word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Ident(name)) if name == word);
        self.at += usize::from(found);
        found
    }

    pub(super) fn ident(&mut self, what: &str) -> Result<String> {
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

    pub(super) fn axis(&mut self) -> Result<Axis> {
        let Some(Token::Ident(name)) = self.peek() else {
            return self.expected("an axis");
        };
        match self.b.graph.axis(name) {
            Some(axis) => {
                self.at += 1;
                Ok(axis)
            }
            None => self.fail(format!("no axis `{name}`")),
        }
    }

    pub(super) fn axes(&mut self, open: &str, close: &str) -> Result<Vec<Axis>> {
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
        if self.at < self.tokens.len() {
            self.expected("the end")
        } else {
            Ok(())
        }
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
            over.push(if self.is("(") {
                self.axes("(", ")")?
            } else {
                vec![self.axis()?]
            });
            if !self.eat(",") {
                break;
            }
        }
        let direction = if self.word("backward") {
            Direction::Backward
        } else {
            Direction::Forward
        };
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
        let id = self.b.fold(
            FoldDef {
                over,
                direction,
                mode,
                associative,
            },
            comps,
        );
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
        self.closed
            .extend(self.names.keys().filter(|n| !outside.contains(*n)).cloned());
        let missing = combines.iter().position(Option::is_none);
        if let Some(n) = missing {
            return self.fail(format!("component `{}` is not combined", names[n]));
        }
        let combines: Vec<Val> = combines.into_iter().flatten().collect();
        self.b.combine(id, &combines);
        self.newline()
    }
}
