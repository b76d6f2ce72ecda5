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
use drawloom_kernel::ir::{Dtype, Frag, MapOp, Op, Val};

/// Bytes of keys and values that the CTAs at work should share in the L2 cache: what remains of the smallest on devices
/// with producers (50 MB) beside queries and results.
const SECTION_BYTES: u32 = 32 << 20;

/// The order of a launch, as scalars before the first tile.
pub(super) struct Order {
    /// Turns of every CTA; in some it has no tile.
    pub(super) turns: Val,
    cta: Val,
    ctas: Val,
    row_tiles: Val,
    /// Uneven tiles: heads of all sections and of one, rounds of one.
    sections: Option<(Val, Val, Val)>,
    /// All tiles.
    all: Val,
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
        let all = b.mul(heads, row_tiles);
        let cta = b.def(Frag::scalar(Dtype::I32), Op::Cta);
        let ctas = params
            .ctas
            .expect("invariant: a kernel with a producer has the parameter");
        let ceil_div = |b: &mut Builder, x: Val, y: Val| {
            let up = b.sub(y, one);
            let sum = b.add(x, up);
            b.div(sum, y)
        };
        if op.sees_everything() {
            return Ok(Order {
                turns: ceil_div(b, all, ctas),
                cta,
                ctas,
                row_tiles,
                sections: None,
                all,
            });
        }
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
        let tiles = b.mul(section, row_tiles);
        let rounds = ceil_div(b, tiles, ctas);
        let rounds = b.max(rounds, one);
        let sections = ceil_div(b, heads, section);
        Ok(Order {
            turns: b.mul(sections, rounds),
            cta,
            ctas,
            row_tiles,
            sections: Some((heads, section, rounds)),
            all,
        })
    }

    /// What a CTA takes in its turn `k`, and whether there is such a tile.
    pub(super) fn place(&self, b: &mut Builder, k: Val) -> (Place, Val) {
        let (one, two) = (b.int(1), b.int(2));
        let last = b.sub(self.ctas, one);
        // The place in round `r` of a CTA that stands at `at`.
        let dealt = |b: &mut Builder, r: Val, at: Val| {
            let odd = b.rem(r, two);
            let odd = b.test(MapOp::Eq, &[odd, one]);
            let mirrored = b.sub(last, at);
            let at = b.select(odd, mirrored, at);
            let first = b.mul(r, self.ctas);
            b.add(first, at)
        };
        let Some((heads, section, rounds)) = self.sections else {
            let number = dealt(b, k, self.cta);
            let exists = b.test(MapOp::Lt, &[number, self.all]);
            let m = b.rem(number, self.row_tiles);
            let outer = b.div(number, self.row_tiles);
            return (Place { m, outer, split: None }, exists);
        };
        let s = b.div(k, rounds);
        let r = b.rem(k, rounds);
        let first = b.mul(s, section);
        let before = b.mul(first, self.row_tiles);
        let taken = b.rem(before, self.ctas);
        let at = b.sub(self.cta, taken);
        let wrapped = b.add(at, self.ctas);
        let zero = b.int(0);
        let negative = b.test(MapOp::Lt, &[at, zero]);
        let at = b.select(negative, wrapped, at);
        let number = dealt(b, r, at);
        let left = b.sub(heads, first);
        let here = b.min(left, section);
        let tiles = b.mul(here, self.row_tiles);
        let exists = b.test(MapOp::Lt, &[number, tiles]);
        let m = b.div(number, here);
        let head = b.rem(number, here);
        let outer = b.add(first, head);
        (Place { m, outer, split: None }, exists)
    }
}
