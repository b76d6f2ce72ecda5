//! Masks as trees: built into graphs for the analysis, evaluated directly for the truth.

use drawloom_graph::ir::{Axis, AxisDef, Binary, Graph, Node, Op, Size, Ty, Unary, Val};
use drawloom_graph::ranges::{Context, Env, Extent, Ranges, Table, TileClass, analyse, classify_tile, plan_tiles};
use drawloom_lang::spec::Align;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// An integer expression of a mask.
#[derive(Clone, Debug)]
pub enum E {
    Int(i64),
    /// The query's position.
    Pos,
    Key,
    LenKey,
    LenQuery,
    Head,
    Scalar(&'static str),
    /// `table[b, index]`.
    Load(&'static str, Rc<E>),
    Bin(Binary, Rc<E>, Rc<E>),
    Abs(Rc<E>),
    If(Rc<C>, Rc<E>, Rc<E>),
}

/// A condition.
#[derive(Clone, Debug)]
pub enum C {
    Bool(bool),
    Cmp(Binary, Rc<E>, Rc<E>),
    Not(Rc<C>),
    And(Rc<C>, Rc<C>),
    Or(Rc<C>, Rc<C>),
}

fn bin(op: Binary, a: E, b: E) -> E {
    E::Bin(op, Rc::new(a), Rc::new(b))
}
pub fn add(a: E, b: E) -> E {
    bin(Binary::Add, a, b)
}
pub fn sub(a: E, b: E) -> E {
    bin(Binary::Sub, a, b)
}
pub fn mul(a: E, b: E) -> E {
    bin(Binary::Mul, a, b)
}
pub fn div(a: E, b: E) -> E {
    bin(Binary::Div, a, b)
}
pub fn rem(a: E, b: E) -> E {
    bin(Binary::Rem, a, b)
}
pub fn load(table: &'static str, index: E) -> E {
    E::Load(table, Rc::new(index))
}
pub fn abs(a: E) -> E {
    E::Abs(Rc::new(a))
}
pub fn le(a: E, b: E) -> C {
    C::Cmp(Binary::Le, Rc::new(a), Rc::new(b))
}
pub fn lt(a: E, b: E) -> C {
    C::Cmp(Binary::Lt, Rc::new(a), Rc::new(b))
}
pub fn eq(a: E, b: E) -> C {
    C::Cmp(Binary::Eq, Rc::new(a), Rc::new(b))
}
pub fn and(a: C, b: C) -> C {
    C::And(Rc::new(a), Rc::new(b))
}
pub fn or(a: C, b: C) -> C {
    C::Or(Rc::new(a), Rc::new(b))
}
pub fn not(a: C) -> C {
    C::Not(Rc::new(a))
}

pub fn causal() -> C {
    le(E::Key, E::Pos)
}
/// `0 <= i - j <= left`.
pub fn window(left: E) -> C {
    and(le(E::Int(0), sub(E::Pos, E::Key)), le(sub(E::Pos, E::Key), left))
}
pub fn sink(n: E) -> C {
    lt(E::Key, n)
}

/// Everything a mask is evaluated in.
#[derive(Clone, Debug)]
pub struct World {
    pub queries: i64,
    pub keys: i64,
    pub align: Align,
    pub head: i64,
    pub scalars: BTreeMap<&'static str, i64>,
    /// One row per batch; the tests' batch is row `batch`.
    pub tables: BTreeMap<&'static str, Vec<i64>>,
}

impl World {
    pub fn new(queries: i64, keys: i64, align: Align) -> World {
        World {
            queries,
            keys,
            align,
            head: 1,
            scalars: BTreeMap::new(),
            tables: BTreeMap::new(),
        }
    }

    /// The position of the query with index `i`.
    pub fn position(&self, i: i64) -> i64 {
        match self.align {
            Align::End => i + self.keys - self.queries,
            Align::Start => i,
        }
    }

    /// Tables get a second batch row of other content, so that reading the wrong row shows.
    pub fn env(&self, rows: std::ops::RangeInclusive<i64>) -> Env {
        let name = |(n, v): (&&'static str, &i64)| ((*n).to_owned(), *v);
        Env {
            row_lo: self.position(*rows.start()),
            row_hi: self.position(*rows.end()),
            lens: BTreeMap::from([("i".to_owned(), self.queries), ("j".to_owned(), self.keys)]),
            scalars: self.scalars.iter().map(name).collect(),
            fixed: BTreeMap::from([("b".to_owned(), 1), ("h".to_owned(), self.head)]),
            tables: self
                .tables
                .iter()
                .map(|(n, row)| {
                    let data = row.iter().map(|x| x + 100).chain(row.iter().copied()).collect();
                    (
                        (*n).to_owned(),
                        Table {
                            shape: vec![2, row.len()],
                            data,
                        },
                    )
                })
                .collect(),
        }
    }
}

/// The value at position `p` and key `j`; `None` where the mask reads out of range.
pub fn value(e: &E, w: &World, p: i64, j: i64) -> Option<i64> {
    Some(match e {
        E::Int(c) => *c,
        E::Pos => p,
        E::Key => j,
        E::LenKey => w.keys,
        E::LenQuery => w.queries,
        E::Head => w.head,
        E::Scalar(n) => w.scalars[n],
        E::Load(t, i) => *w.tables[t].get(usize::try_from(value(i, w, p, j)?).ok()?)?,
        E::Bin(op, a, b) => {
            let (a, b) = (value(a, w, p, j)?, value(b, w, p, j)?);
            match op {
                Binary::Add => a + b,
                Binary::Sub => a - b,
                Binary::Mul => a * b,
                Binary::Div | Binary::Rem if b == 0 => 0,
                Binary::Div => (a as f64 / b as f64).floor() as i64,
                Binary::Rem => a - b * (a as f64 / b as f64).floor() as i64,
                Binary::Min => a.min(b),
                Binary::Max => a.max(b),
                Binary::Shr => a >> b,
                Binary::BitAnd => a & b,
                op => panic!("not arithmetic: {op:?}"),
            }
        }
        E::Abs(a) => value(a, w, p, j)?.abs(),
        E::If(c, a, b) => value(if truth(c, w, p, j)? { a } else { b }, w, p, j)?,
    })
}

/// Whether the mask shows key `j` at position `p`; `None` as in [`value`].
pub fn truth(c: &C, w: &World, p: i64, j: i64) -> Option<bool> {
    Some(match c {
        C::Bool(b) => *b,
        C::Cmp(op, a, b) => {
            let (a, b) = (value(a, w, p, j)?, value(b, w, p, j)?);
            match op {
                Binary::Lt => a < b,
                Binary::Le => a <= b,
                _ => a == b,
            }
        }
        C::Not(a) => !truth(a, w, p, j)?,
        C::And(a, b) => truth(a, w, p, j)? & truth(b, w, p, j)?,
        C::Or(a, b) => truth(a, w, p, j)? | truth(b, w, p, j)?,
    })
}

const B: Axis = Axis(0);
const H: Axis = Axis(1);
const I: Axis = Axis(2);
const J: Axis = Axis(3);

/// Builds a mask into a graph.
struct Builder {
    graph: Graph,
    align: Align,
    /// Positions are written in several shapes; this counts them.
    shapes: u32,
}

impl Builder {
    fn node(&mut self, op: Op, ty: Ty) -> Val {
        self.graph.nodes.push(Node {
            op,
            axes: Vec::new(),
            ty,
        });
        Val(u32::try_from(self.graph.nodes.len() - 1).expect("small graph"))
    }

    fn int(&mut self, op: Op) -> Val {
        self.node(op, Ty::Int)
    }

    fn position(&mut self) -> Val {
        let i = self.int(Op::Index(I));
        if self.align == Align::Start {
            return i;
        }
        let (lj, li) = (self.int(Op::Len(J)), self.int(Op::Len(I)));
        self.shapes += 1;
        if self.shapes.is_multiple_of(2) {
            let offset = self.int(Op::Binary(Binary::Sub, lj, li));
            self.int(Op::Binary(Binary::Add, i, offset))
        } else {
            let sum = self.int(Op::Binary(Binary::Add, i, lj));
            self.int(Op::Binary(Binary::Sub, sum, li))
        }
    }

    fn expr(&mut self, e: &E) -> Val {
        match e {
            E::Int(c) => self.int(Op::Int(*c)),
            E::Pos => self.position(),
            E::Key => self.int(Op::Index(J)),
            E::LenKey => self.int(Op::Len(J)),
            E::LenQuery => self.int(Op::Len(I)),
            E::Head => self.int(Op::Index(H)),
            E::Scalar(n) => self.int(Op::Scalar((*n).to_owned())),
            E::Load(t, index) => {
                let of = self.int(Op::Input {
                    name: (*t).to_owned(),
                    axes: vec![B, J],
                });
                if matches!(**index, E::Key) {
                    return of;
                }
                let index = self.expr(index);
                self.int(Op::Gather {
                    of,
                    at: vec![(J, index)],
                    fill: None,
                })
            }
            E::Bin(op, a, b) => {
                let (a, b) = (self.expr(a), self.expr(b));
                self.int(Op::Binary(*op, a, b))
            }
            E::Abs(a) => {
                let a = self.expr(a);
                self.int(Op::Unary(Unary::Abs, a))
            }
            E::If(c, a, b) => {
                let (c, a, b) = (self.cond(c), self.expr(a), self.expr(b));
                self.int(Op::Select(c, a, b))
            }
        }
    }

    fn cond(&mut self, c: &C) -> Val {
        let op = match c {
            C::Bool(b) => Op::Bool(*b),
            C::Cmp(op, a, b) => Op::Binary(*op, self.expr(a), self.expr(b)),
            C::Not(a) => Op::Unary(Unary::Not, self.cond(a)),
            C::And(a, b) => Op::Binary(Binary::And, self.cond(a), self.cond(b)),
            C::Or(a, b) => Op::Binary(Binary::Or, self.cond(a), self.cond(b)),
        };
        self.node(op, Ty::Bool)
    }
}

/// The analysis of a mask. Tables whose name starts with `doc` are declared sorted.
pub fn ranges(mask: &C, align: Align) -> Ranges {
    let axis = |name: &str| AxisDef {
        name: name.to_owned(),
        size: Size::Runtime,
    };
    let graph = Graph {
        name: "mask".to_owned(),
        axes: ["b", "h", "i", "j"].map(axis).to_vec(),
        nodes: Vec::new(),
        folds: Vec::new(),
        outputs: Vec::new(),
    };
    let mut builder = Builder {
        graph,
        align,
        shapes: 0,
    };
    let mask = builder.cond(mask);
    let sorted = BTreeSet::from(["doc".to_owned()]);
    analyse(
        &builder.graph,
        Some(mask),
        &Context {
            query: I,
            key: J,
            align,
            sorted: &sorted,
        },
    )
}

/// Every tile of consecutive queries.
pub fn tiles(w: &World) -> impl Iterator<Item = std::ops::RangeInclusive<i64>> + use<> {
    let n = w.queries;
    (0..n).flat_map(move |lo| (lo..n).map(move |hi| lo..=hi))
}

/// Keys that some row sees, and keys that every row sees (given at least one row); `None` where a row has an error.
pub fn truth_of_tile(
    mask: &C,
    w: &World,
    rows: &std::ops::RangeInclusive<i64>,
) -> Option<(BTreeSet<i64>, BTreeSet<i64>)> {
    let (mut some, mut every) = (BTreeSet::new(), BTreeSet::new());
    for j in 0..w.keys {
        let seen = rows
            .clone()
            .map(|i| truth(mask, w, w.position(i), j))
            .collect::<Option<Vec<_>>>()?;
        if seen.contains(&true) {
            some.insert(j);
        }
        if !seen.contains(&false) {
            every.insert(j);
        }
    }
    Some((some, every))
}

pub fn keys(extents: &[Extent], pick: fn(&Extent) -> &std::ops::Range<i64>) -> BTreeSet<i64> {
    extents.iter().flat_map(|e| pick(e).clone()).collect()
}

/// Soundness of the ranges and of the tile plan, for one tile of queries.
pub fn check_sound(mask: &C, ranges: &Ranges, w: &World, rows: &std::ops::RangeInclusive<i64>) -> Result<(), String> {
    let env = w.env(rows.clone());
    let missing = env.missing(ranges);
    if !missing.is_empty() {
        return Err(format!("unknown names {missing:?}"));
    }
    let extents = ranges.eval(&env);
    let Some((some, every)) = truth_of_tile(mask, w, rows) else {
        return Ok(());
    };
    let (possible, certain) = (keys(&extents, |e| &e.possible), keys(&extents, |e| &e.certain));
    let context = || format!("\nrows {rows:?} of {w:?}\n{extents:?}\n{ranges:?}");
    if !some.is_subset(&possible) {
        return Err(format!(
            "visible {some:?} not within possible {possible:?}{}",
            context()
        ));
    }
    if !certain.is_subset(&every) {
        return Err(format!("certain {certain:?} not within {every:?}{}", context()));
    }
    for e in &extents {
        let inside =
            |a: &std::ops::Range<i64>, b: &std::ops::Range<i64>| a.is_empty() || (b.start <= a.start && a.end <= b.end);
        if !inside(&e.certain, &e.possible) || !inside(&e.possible, &(0..w.keys)) {
            return Err(format!("{e:?} is not nested{}", context()));
        }
    }
    for block in 1..=5u32 {
        let n = i64::from(block);
        let plan = plan_tiles(&extents, block);
        let mut done = i64::MIN;
        let mut visited = BTreeSet::new();
        for run in &plan {
            if !(done <= run.first && run.first < run.end) {
                return Err(format!("runs {plan:?} are not ascending{}", context()));
            }
            if !(run.first <= run.full_first && run.full_first <= run.full_end && run.full_end <= run.end) {
                return Err(format!("{run:?} is not nested{}", context()));
            }
            done = run.end;
            visited.extend((run.first * n)..(run.end * n));
            let mut full = (run.full_first * n)..(run.full_end * n);
            if let Some(j) = full.find(|j| !every.contains(j)) {
                return Err(format!(
                    "key {j} of a full tile of {block} is not seen by every row{}",
                    context()
                ));
            }
        }
        if !some.is_subset(&visited) {
            return Err(format!("tiles of {block} miss keys{}", context()));
        }
        for t in 0..=(w.keys / n) {
            let tile = (t * n)..((t + 1) * n);
            let wrong = match classify_tile(&extents, &tile) {
                TileClass::Full => !tile.clone().all(|j| every.contains(&j)),
                TileClass::Empty => tile.clone().any(|j| some.contains(&j)),
                TileClass::Partial => false,
            };
            if wrong {
                return Err(format!("tile {tile:?} is misclassified{}", context()));
            }
        }
    }
    Ok(())
}
