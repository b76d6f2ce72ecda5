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

use super::super::Unsupported;
use super::super::builder::Builder;
use super::Frame;
use super::tile::{Place, outer, row_tiles};
use drawloom_kernel::ir::{Carried, Dtype, Frag, Loop, MapOp, Op, Stmt, Val};

/// Bytes of keys and values that the CTAs at work should share in the L2 cache: what remains of the smallest on devices
/// with producers (50 MB) beside queries and results.
const SECTION_BYTES: u32 = 32 << 20;

/// The order of a launch, as scalars before the first tile.
pub(super) struct Order {
    cta: Val,
    ctas: Val,
    row_tiles: Val,
    heads: Val,
    /// Uneven tiles: heads of a section, and how many sections there are.
    sections: Option<(Val, Val)>,
}

/// `ceil(x / y)`, `y > 0`.
fn ceil_div(b: &mut Builder, x: Val, y: Val) -> Val {
    let one = b.int(1);
    let up = b.sub(y, one);
    let sum = b.add(x, up);
    b.div(sum, y)
}

impl Order {
    pub(super) fn new(b: &mut Builder, frame: &Frame) -> Result<Order, Unsupported> {
        let Frame {
            op, schedule, params, ..
        } = *frame;
        let (_, row_tiles, _) = row_tiles(b, op, schedule, params)?;
        let one = b.int(1);
        let heads = outer(op, schedule)
            .into_iter()
            .fold(one, |all, a| b.mul(all, params.lens[&a]));
        let cta = b.def(Frag::scalar(Dtype::I32), Op::Cta);
        let ctas = params
            .ctas
            .expect("invariant: a kernel with a producer has the parameter");
        let sections = (!op.sees_everything()).then(|| {
            let row_bytes = (frame.d + frame.e) * frame.elem.bytes();
            let keys = b.max(params.lens[&op.attend.key], one);
            let fit = b.int(i64::from(SECTION_BYTES / row_bytes.max(1)));
            let fit = b.div(fit, keys);
            let (two, three) = (b.int(2), b.int(3));
            let wanted = b.mul(ctas, three);
            let wanted = b.div(wanted, two);
            let least = ceil_div(b, wanted, row_tiles);
            let section = b.max(fit, least);
            let section = b.min(section, heads);
            let section = b.max(section, one);
            (section, ceil_div(b, heads, section))
        });
        Ok(Order {
            cta,
            ctas,
            row_tiles,
            heads,
            sections,
        })
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
