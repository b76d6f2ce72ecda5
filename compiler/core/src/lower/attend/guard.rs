//! Many query tiles to a CTA, and what makes a fixed reference safe.
//!
//! Softmax does not depend on the value that is subtracted from the scores, as long as the sums stay in range. Tiles that
//! no mask cuts therefore keep the reference that earlier tiles left ([`Reference::First`]): no maximum, no exchange
//! between lanes, no rescaling. At the end of a query tile a *guard* looks at the row sums. Where one has left its range,
//! the warp notes the tile and writes nothing, and when all tiles of the CTA are done, those noted are computed once more,
//! with the running maximum, and written by the warps that noted them. A row's result depends on its data alone, so it is
//! the same in every launch.
//!
//! A sum below [`SURE`] is as good as one under the running maximum over that many keys. Up to [`RANGE`] the sums
//! themselves are exact, but products with large values may have overflowed, so these are looked at. 16-bit weights in
//! `f16` end at 2^16: there the guard is tighter. The sum cannot be too small: the reference is a score of its row.
//!
//! CTAs take tiles in rounds, forwards in even and backwards in odd ones, so that the longest tile of one round goes to
//! the CTA that has the shortest of the next: nothing is counted at run time and no CTA waits for another.
//!
//! # Source
//! A fixed reference for all rows, in decoding: Hong et al. 2023, arXiv:2311.01282, section 3.

use super::super::Unsupported;
use super::super::builder::Builder;
use super::{Frame, Store};
use super::tile::all_tiles;
use crate::schedule::Reference;
use drawloom_kernel::ir::{
    Block, BufferLayout, Carried, Dtype, Effect, Frag, If, Loop, MapOp, Op, Phi, ReduceOp, SharedView, Stmt, Val,
};

/// Query tiles that a CTA takes at most: so many verdicts are kept.
pub const MAX_TILES: u32 = 64;

/// Sums below this are good whatever the values are.
const SURE: f32 = (1u32 << 24) as f32;
/// Sums below this are good if no result has overflowed.
const RANGE: f32 = (1u128 << 64) as f32;
/// The same for weights in `f16`, which end at 2^16.
const RANGE_F16: f32 = (1u32 << 15) as f32;

/// Emits the loop over the CTA's query tiles and, for a reference that may fail, the second one.
pub(super) fn tiles(b: &mut Builder, frame: &Frame) -> Result<(), Unsupported> {
    let Frame { schedule, params, .. } = *frame;
    let all = all_tiles(b, frame.op, schedule, params)?;
    let cta = b.def(Frag::scalar(Dtype::I32), Op::Cta);
    let ctas = params.ctas.expect("invariant: a kernel with a producer has the parameter");
    let (one, two) = (b.int(1), b.int(2));
    // This CTA's place in round `k`, of `ctas` tiles.
    let place = |b: &mut Builder, k: Val| {
        let odd = b.rem(k, two);
        let odd = b.test(MapOp::Eq, &[odd, one]);
        let last = b.sub(ctas, one);
        let mirrored = b.sub(last, cta);
        b.select(odd, mirrored, cta)
    };
    let rounds = b.div(all, ctas);
    let rest = b.rem(all, ctas);
    let own = place(b, rounds);
    let in_rest = b.test(MapOp::Lt, &[own, rest]);
    let more = b.add(rounds, one);
    let count = b.select(in_rest, more, rounds);
    let number = |b: &mut Builder, k: Val| {
        let first = b.mul(k, ctas);
        let own = place(b, k);
        b.add(first, own)
    };

    if schedule.reference != Reference::First {
        b.repeat(count, |b, k| {
            let number = number(b, k);
            frame.tile(b, number, schedule.reference, Store::Always).map(|_| ())
        })?;
        b.effect(Effect::TmaStoreWait { pending: 0 });
        return Ok(());
    }

    // A verdict for each tile and warp, and one over all tiles for each warp.
    let warps = schedule.warps;
    let verdicts = b.buffer("verdicts", Dtype::I32, 1, (MAX_TILES + 1) * warps, 1, None);
    b.kernel.buffers[verdicts.index()].layout = BufferLayout::Rows;
    let width = b.int(i64::from(warps));
    let warp = b.def(Frag::scalar(Dtype::I32), Op::WarpInRole);
    let verdict = |row: Val| SharedView {
        buf: verdicts,
        slot: None,
        row: Some(row),
        col: 0,
        rows: 1,
        cols: 1,
    };
    let note = |b: &mut Builder, tile: Val, value: Val| {
        let row = b.mul(tile, width);
        let row = b.add(row, warp);
        b.effect(Effect::StoreShared {
            dst: verdict(row),
            value,
        });
    };
    // How many warps failed.
    let failures = |b: &mut Builder, tile: Val| {
        let first = b.mul(tile, width);
        let mut sum = b.int(0);
        for w in 0..warps {
            let w = b.int(i64::from(w));
            let row = b.add(first, w);
            let one = b.def(Frag::scalar(Dtype::I32), Op::LoadShared(verdict(row)));
            sum = b.add(sum, one);
        }
        sum
    };

    let zero = b.int(0);
    let k = b.kernel.new_val(Frag::scalar(Dtype::I32));
    let [so_far, total] = [(); 2].map(|()| b.kernel.new_val(Frag::scalar(Dtype::I32)));
    b.open();
    let number_of = number(b, k);
    let failed = frame
        .tile(b, number_of, Reference::First, Store::IfGood)?
        .expect("invariant: a tile that is stored if it is good has a verdict");
    let failed = b.select(failed, one, zero);
    note(b, k, failed);
    let next = b.add(so_far, failed);
    let body = b.close();
    b.push(Stmt::Loop(Loop {
        var: k,
        lo: zero,
        hi: count,
        carried: vec![Carried {
            arg: so_far,
            init: zero,
            next,
            result: total,
        }],
        body,
    }));
    let end = b.int(i64::from(MAX_TILES));
    note(b, end, total);
    b.effect(Effect::Barrier { id: 0, warps });
    let any = failures(b, end);
    let some = b.test(MapOp::Lt, &[zero, any]);
    let again = b.select(some, count, zero);
    b.repeat(again, |b, k| {
        let failures = failures(b, k);
        let some = b.test(MapOp::Lt, &[zero, failures]);
        b.when(some, |b| {
            let number = number(b, k);
            let row = b.mul(k, width);
            let row = b.add(row, warp);
            let own = b.def(Frag::scalar(Dtype::I32), Op::LoadShared(verdict(row)));
            let own = b.test(MapOp::Lt, &[zero, own]);
            frame.tile(b, number, Reference::Running, Store::If(own)).map(|_| ())
        })
    })?;
    b.effect(Effect::TmaStoreWait { pending: 0 });
    Ok(())
}

/// Whether the guard refuses this warp's rows, a scalar.
pub(super) fn failed(b: &mut Builder, frame: &Frame, [l, o, valid]: [Val; 3]) -> Val {
    // Comparisons with NaN are false, so that it fails.
    let beyond = |b: &mut Builder, limit: f32| {
        let limit = b.float(limit);
        let good = b.test(MapOp::Lt, &[l, limit]);
        let bad = b.test(MapOp::Not, &[good]);
        b.test(MapOp::And, &[bad, valid])
    };
    let scalar = Frag::scalar(Dtype::Bool);
    if frame.elem == Dtype::F16 {
        let bad = beyond(b, RANGE_F16);
        return b.def(scalar, Op::Any(bad));
    }
    let unsure = beyond(b, SURE);
    let unsure = b.def(scalar, Op::Any(unsure));
    b.open();
    let bad = beyond(b, RANGE);
    let zero = b.float(0.0);
    let zeros = b.mapf(MapOp::Mul, &[o, zero]);
    let zeros = b.reduce(ReduceOp::Sum, zeros, 1);
    let finite = b.test(MapOp::Eq, &[zeros, zero]);
    let infinite = b.test(MapOp::Not, &[finite]);
    let infinite = b.test(MapOp::And, &[infinite, valid]);
    let bad = b.test(MapOp::Or, &[bad, infinite]);
    let then = b.def(scalar, Op::Any(bad));
    let then_block = b.close();
    b.open();
    let otherwise = b.def(scalar, Op::ConstI(0));
    let otherwise_block: Block = b.close();
    let result = b.kernel.new_val(scalar);
    b.push(Stmt::If(If {
        cond: unsure,
        then: then_block,
        otherwise: otherwise_block,
        results: vec![Phi {
            result,
            then,
            otherwise,
        }],
    }));
    result
}
