//! In which order CTAs that stay take the query tiles.
//!
//! Statically, so that nothing is counted at run time and every launch does the same. Tiles are dealt in *rounds*, one to
//! each CTA, forwards in even rounds and backwards in odd ones: where rows see more keys the later they stand, the CTA
//! with the longest tile of a round has the shortest of the next.
//!
//! Where the mask makes tiles uneven, the row tiles of several heads are dealt together, the longest first: a *section*,
//! as many heads as have their keys and values in the L2 cache, but no fewer than make one and a half rounds. Sections begin
//! where the one before left off, so that CTAs without a tile in an incomplete round get one in the next section.
//! Where every row sees all keys, there is one section in the order of memory.

use super::super::builder::Builder;
use super::super::operator::Operator;
use super::super::{Meaning, Unsupported};
use super::Frame;
use super::tile::{Place, outer};
use crate::schedule::{Pack, Schedule};
use drawloom_kernel::ir::{Carried, Dtype, Frag, Loop, MapOp, Op, Stmt, Val};
use drawloom_lang::manifest::{DeviceFact, Formula};
use std::ops::Mul;

/// Bytes of keys and values that the CTAs at work should share in the L2 cache: what remains of the smallest on devices
/// with producers (50 MB) beside queries and results.
const SECTION_BYTES: u32 = 32 << 20;

/// Query tiles per CTA, in the mean over a launch, with which none takes more than [`crate::schedule::MAX_TILES`]: a section
/// gives a CTA at most one more than its share, and has at least one and a half rounds.
pub const MEAN_TILES: i64 = 36;

/// Query tiles of a row of tiles, and the sizes of the axes that these are counted over.
pub fn tiles(op: &Operator, schedule: &Schedule) -> (Formula, Vec<Formula>) {
    let packed = match schedule.pack {
        Pack::Queries => None,
        Pack::QueriesAndHeads => op.group(),
    };
    let queries = op.extent(op.attend.query);
    let rows = match packed {
        None => queries,
        // `h / g` is exact.
        Some((g, h)) => queries * op.extent(h).ceil_div(op.extent(g).max(1)),
    };
    let heads = outer(op, schedule).into_iter().map(|a| op.extent(a));
    (rows.ceil_div(schedule.block_m), heads.collect())
}

/// What the launcher computes of the order, so that kernels neither divide for it nor keep it in registers.
pub struct Numbers {
    /// CTAs: as many as the device holds at once, or more where each would take more than a guard keeps verdicts for.
    pub ctas: Formula,
    row_tiles: Formula,
    heads: Formula,
    /// Heads of a section, and sections.
    sections: Option<(Formula, Formula)>,
}

impl Numbers {
    /// Those of an operator under a schedule with a producer.
    pub fn of(op: &Operator, schedule: &Schedule) -> Numbers {
        let (row_tiles, heads) = tiles(op, schedule);
        let heads = heads.into_iter().reduce(Formula::mul).unwrap_or(Formula::Const(1));
        let tiles = row_tiles.clone() * heads.clone();
        let held = Formula::Device(DeviceFact::Sms) * schedule.min_ctas;
        let ctas = (held.max(tiles.clone().ceil_div(MEAN_TILES))).min(tiles.max(1));
        let sections = (!op.sees_everything()).then(|| {
            let element = op.dtype(op.spec.inputs[op.q.index()].ty).bytes();
            let row = (op.head_dim().unwrap_or(1) + op.value_dim().unwrap_or(1)) * element;
            let keys = op.extent(op.attend.key).max(1);
            // Rounded down.
            let over = Formula::from(SECTION_BYTES / row.max(1)) - keys.clone();
            let fit = (over + 1).ceil_div(keys);
            let rows = row_tiles.clone().max(1);
            let least = (ctas.clone() * 3).ceil_div(rows * 2);
            let section = fit.max(least).min(heads.clone()).max(1);
            (section.clone(), heads.clone().ceil_div(section))
        });
        Numbers {
            ctas,
            row_tiles,
            heads,
            sections,
        }
    }
}

/// The order of a launch, as scalars before the first tile.
pub(super) struct Order {
    cta: Val,
    ctas: Val,
    row_tiles: Val,
    heads: Val,
    /// Uneven tiles: heads of a section, and how many sections there are.
    sections: Option<(Val, Val)>,
}

/// The same numbers as parameters of a kernel.
#[derive(Clone, Copy)]
pub(super) struct Given {
    ctas: Val,
    row_tiles: Val,
    heads: Val,
    sections: Option<(Val, Val)>,
}

impl Given {
    /// Declares the parameters.
    pub(super) fn declare(b: &mut Builder, op: &Operator, schedule: &Schedule, meaning: &mut Vec<Meaning>) -> Given {
        let Numbers {
            ctas,
            row_tiles,
            heads,
            sections,
        } = Numbers::of(op, schedule);
        let mut number = |b: &mut Builder, name: &str, formula: Formula| {
            meaning.push(Meaning::Number(formula));
            let param = b.scalar_param(name, Dtype::I32);
            b.read_param(param)
        };
        Given {
            ctas: number(b, "ctas", ctas),
            row_tiles: number(b, "row_tiles", row_tiles),
            heads: number(b, "heads", heads),
            sections: sections.map(|(section, count)| (number(b, "section", section), number(b, "sections", count))),
        }
    }
}

impl Order {
    pub(super) fn new(b: &mut Builder, frame: &Frame) -> Order {
        let Given {
            ctas,
            row_tiles,
            heads,
            sections,
        } = frame
            .params
            .order
            .expect("invariant: a kernel with a producer has the parameters");
        Order {
            cta: b.def(Frag::scalar(Dtype::I32), Op::Cta),
            ctas,
            row_tiles,
            heads,
            sections,
        }
    }

    /// Runs `body` for each tile of the CTA, if `enabled`, with carried `i32` values; their last values.
    pub(super) fn each<const N: usize>(
        &self,
        b: &mut Builder,
        enabled: Option<Val>,
        init: [Val; N],
        body: impl FnOnce(&mut Builder, Place, [Val; N]) -> Result<[Val; N], Unsupported>,
    ) -> Result<[Val; N], Unsupported> {
        let zero = b.int(0);
        let gate = |b: &mut Builder, n: Val| enabled.map_or(n, |on| b.select(on, n, zero));
        let Some((section, sections)) = self.sections else {
            let all = b.mul(self.heads, self.row_tiles);
            let count = self.rounds(b, self.cta, all);
            let count = gate(b, count);
            return counted(b, count, init, |b, r, values| {
                let number = self.dealt(b, r, self.cta);
                let m = b.rem(number, self.row_tiles);
                let outer = b.div(number, self.row_tiles);
                body(b, Place { m, outer, split: None }, values)
            });
        };
        let sections = gate(b, sections);
        counted(b, sections, init, |b, s, values| {
            let first = b.mul(s, section);
            let before = b.mul(first, self.row_tiles);
            let taken = b.rem(before, self.ctas);
            let at = b.sub(self.cta, taken);
            let wrapped = b.add(at, self.ctas);
            let zero = b.int(0);
            let negative = b.test(MapOp::Lt, &[at, zero]);
            let at = b.select(negative, wrapped, at);
            let left = b.sub(self.heads, first);
            let here = b.min(left, section);
            let tiles = b.mul(here, self.row_tiles);
            let count = self.rounds(b, at, tiles);
            counted(b, count, values, |b, r, values| {
                let number = self.dealt(b, r, at);
                let m = b.div(number, here);
                let head = b.rem(number, here);
                let outer = b.add(first, head);
                body(b, Place { m, outer, split: None }, values)
            })
        })
    }

    /// The tile that a CTA at place `at` takes in round `r`.
    fn dealt(&self, b: &mut Builder, r: Val, at: Val) -> Val {
        let at = self.mirrored(b, r, at);
        let first = b.mul(r, self.ctas);
        b.add(first, at)
    }

    /// The place in round `r` of a CTA at place `at`: odd rounds are dealt backwards.
    fn mirrored(&self, b: &mut Builder, r: Val, at: Val) -> Val {
        let (one, two) = (b.int(1), b.int(2));
        let last = b.sub(self.ctas, one);
        let odd = b.rem(r, two);
        let odd = b.test(MapOp::Eq, &[odd, one]);
        let back = b.sub(last, at);
        b.select(odd, back, at)
    }

    /// Rounds of `tiles` tiles in which a CTA at place `at` has one: all but perhaps the last.
    fn rounds(&self, b: &mut Builder, at: Val, tiles: Val) -> Val {
        let one = b.int(1);
        let whole = b.div(tiles, self.ctas);
        let rest = b.rem(tiles, self.ctas);
        let at = self.mirrored(b, whole, at);
        let has = b.test(MapOp::Lt, &[at, rest]);
        let more = b.add(whole, one);
        b.select(has, more, whole)
    }
}

/// `for n in 0..count` with carried `i32` values; their last values.
fn counted<const N: usize>(
    b: &mut Builder,
    count: Val,
    init: [Val; N],
    body: impl FnOnce(&mut Builder, Val, [Val; N]) -> Result<[Val; N], Unsupported>,
) -> Result<[Val; N], Unsupported> {
    let i32s = Frag::scalar(Dtype::I32);
    let lo = b.int(0);
    let var = b.kernel.new_val(i32s);
    let args = init.map(|_| b.kernel.new_val(i32s));
    let results = init.map(|_| b.kernel.new_val(i32s));
    b.open();
    let next = body(b, var, args)?;
    let body = b.close();
    let carried = (0..N)
        .map(|n| Carried {
            arg: args[n],
            init: init[n],
            next: next[n],
            result: results[n],
        })
        .collect();
    b.push(Stmt::Loop(Loop {
        var,
        lo,
        hi: count,
        carried,
        body,
    }));
    Ok(results)
}
