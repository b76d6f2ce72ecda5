//! Graphs to text.

use super::{BINARY, REDUCE, UNARY, name_of};
use crate::infer::ty_name;
use crate::ir::{Axis, Direction, Fold, FoldId, Graph, Mode, Node, Op, Side, Size, Val};
use crate::verify::regions;
use std::fmt;

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "graph {} {{", self.name)?;
        for axis in &self.axes {
            write!(f, "    axis {}", axis.name)?;
            match axis.size {
                Size::Runtime => writeln!(f)?,
                Size::Const(n) => writeln!(f, " = {n}")?,
                Size::Same(of) => writeln!(f, " = len({})", name(self, of))?,
                Size::CeilDiv { of, by } => writeln!(f, " = ceil({} / {by})", name(self, of))?,
            }
        }
        let blocks = blocks(self);
        let mut next = blocks.iter().peekable();
        let mut open: Vec<&Block> = Vec::new();
        for n in 0..=self.nodes.len() {
            loop {
                if let Some(block) = open
                    .last()
                    .filter(|b| b.end <= n && next.peek().is_none_or(|o| o.start >= b.end))
                {
                    close(f, self, block.fold, open.len())?;
                    open.pop();
                } else if let Some(block) = next.next_if(|b| b.start <= n) {
                    open.push(block);
                    header(f, self, block.fold, open.len())?;
                } else {
                    break;
                }
            }
            if let Some(node) = self.nodes.get(n) {
                indent(f, open.len() + 1)?;
                writeln!(
                    f,
                    "{}: {}{} = {}",
                    Val(n as u32),
                    ty_name(node.ty),
                    axes(self, &node.axes),
                    op(self, node)
                )?;
            }
        }
        for output in &self.outputs {
            writeln!(
                f,
                "    output {}{} = {}",
                output.name,
                axes(self, &output.axes),
                output.value
            )?;
        }
        writeln!(f, "}}")
    }
}

/// Where a fold's braces open and close: before which values.
struct Block {
    fold: FoldId,
    start: usize,
    end: usize,
}

/// The folds' blocks by start, nested: each spans the fold's region.
fn blocks(g: &Graph) -> Vec<Block> {
    let regions = regions(g);
    let mut blocks: Vec<Block> = Vec::new();
    for (n, fold) in g.folds.iter().enumerate() {
        let id = FoldId(n as u32);
        let uses = |node: &Node| matches!(&node.op, Op::Hole { fold, .. } | Op::Get { fold, .. } if *fold == id);
        let start = g.nodes.iter().position(uses).unwrap_or(g.nodes.len());
        let combines = fold.comps.iter().map(|c| c.combine.index() + 1);
        let last = regions
            .of_val
            .iter()
            .rposition(|of| of.contains(&id))
            .map_or(start, |n| n + 1);
        let end = combines.chain([last, start]).max().unwrap_or(start).min(g.nodes.len());
        blocks.push(Block { fold: id, start, end });
    }
    blocks.sort_by_key(|b| b.start);
    // A block that ends within a later one ends with it.
    for n in (0..blocks.len()).rev() {
        for later in n + 1..blocks.len() {
            if blocks[later].start < blocks[n].end {
                blocks[n].end = blocks[n].end.max(blocks[later].end);
            }
        }
    }
    blocks
}

fn indent(f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
    write!(f, "{:1$}", "", depth * 4)
}

fn header(f: &mut fmt::Formatter<'_>, g: &Graph, id: FoldId, depth: usize) -> fmt::Result {
    let fold = &g.folds[id.index()];
    indent(f, depth)?;
    write!(f, "fold {id} over ")?;
    for (n, range) in fold.over.iter().enumerate() {
        let comma = if n > 0 { ", " } else { "" };
        match range.as_slice() {
            [axis] => write!(f, "{comma}{}", name(g, *axis))?,
            axes => write!(f, "{comma}({})", list(g, axes))?,
        }
    }
    let Fold {
        direction,
        mode,
        associative,
        ..
    } = fold;
    if *direction == Direction::Backward {
        write!(f, " backward")?;
    }
    match mode {
        Mode::Reduce => {}
        Mode::Inclusive => write!(f, " inclusive")?,
        Mode::Exclusive => write!(f, " exclusive")?,
    }
    if *associative {
        write!(f, " associative")?;
    }
    writeln!(f, " {{")?;
    for comp in &fold.comps {
        indent(f, depth + 1)?;
        let lifts: Vec<String> = comp.lift.iter().map(Val::to_string).collect();
        writeln!(
            f,
            "state {}{} = {}, lift {}",
            comp.name,
            axes(g, &comp.axes),
            comp.init,
            lifts.join(", ")
        )?;
    }
    Ok(())
}

fn close(f: &mut fmt::Formatter<'_>, g: &Graph, id: FoldId, depth: usize) -> fmt::Result {
    for comp in &g.folds[id.index()].comps {
        indent(f, depth + 1)?;
        writeln!(f, "combine {} = {}", comp.name, comp.combine)?;
    }
    indent(f, depth)?;
    writeln!(f, "}}")
}

fn name(g: &Graph, axis: Axis) -> String {
    g.axes
        .get(axis.index())
        .map_or_else(|| axis.to_string(), |d| d.name.clone())
}

fn list(g: &Graph, axes: &[Axis]) -> String {
    axes.iter().map(|&a| name(g, a)).collect::<Vec<_>>().join(", ")
}

fn axes(g: &Graph, axes: &[Axis]) -> String {
    format!("[{}]", list(g, axes))
}

fn op(g: &Graph, node: &Node) -> String {
    let state = |fold: FoldId, comp: u32| {
        let comp = g.folds.get(fold.index()).and_then(|f| f.comps.get(comp as usize));
        format!("{fold}.{}", comp.map_or("_", |c| c.name.as_str()))
    };
    match &node.op {
        Op::Real(x) => format!("{x:?}").replace("NaN", "nan"),
        Op::Int(x) => x.to_string(),
        Op::Bool(x) => x.to_string(),
        Op::Input { name, axes: order } => format!("input {name}{}", axes(g, order)),
        Op::Scalar(name) => format!("scalar {name}"),
        Op::Index(axis) => format!("index({})", name(g, *axis)),
        Op::Len(axis) => format!("len({})", name(g, *axis)),
        Op::Unary(op, a) => format!("{}({a})", name_of(&UNARY, *op)),
        Op::Binary(op, a, b) => format!("{}({a}, {b})", name_of(&BINARY, *op)),
        Op::Select(c, a, b) => format!("select({c}, {a}, {b})"),
        Op::Rename { of, from, to } => format!("rename({of}, {} -> {})", name(g, *from), name(g, *to)),
        Op::Contract { a, b, over } => format!("contract({a}, {b}, {})", axes(g, over)),
        Op::Reduce { op, of, over } => format!("{}({of}, {})", name_of(&REDUCE, *op), axes(g, over)),
        Op::Gather { of, at, fill } => {
            let at: Vec<String> = at.iter().map(|(a, v)| format!("{} = {v}", name(g, *a))).collect();
            let fill = fill.map_or(String::new(), |x| format!(", {x:?}"));
            format!("gather({of}, [{}]{fill})", at.join(", ")).replace("NaN", "nan")
        }
        Op::TopK {
            of,
            over,
            rank,
            ascending,
        } => {
            let order = if *ascending { ", ascending" } else { "" };
            format!("topk({of}, {} -> {}{order})", name(g, *over), name(g, *rank))
        }
        Op::TriSolve { a, b, row, col } => format!("trisolve({a}, {b}, {}, {})", name(g, *row), name(g, *col)),
        Op::Hole {
            fold,
            comp,
            side: Side::Left,
        } => format!("left({})", state(*fold, *comp)),
        Op::Hole {
            fold,
            comp,
            side: Side::Right,
        } => format!("right({})", state(*fold, *comp)),
        Op::Get { fold, comp } => format!("get({})", state(*fold, *comp)),
    }
}
