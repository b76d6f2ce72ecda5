//! What makes a fixed reference safe.
//!
//! Softmax does not depend on the value that is subtracted from the scores, as long as the sums stay in range. Tiles that
//! no mask cuts therefore keep the reference that earlier tiles left ([`Reference::First`]): no maximum, no exchange
//! between lanes, no rescaling. At the end of a query tile a *guard* looks at the row sums. Where one has left its range,
//! the warp notes the tile and writes nothing, and when all tiles of the CTA are done, those noted are computed once more,
//! with the running maximum, and written by the warps that noted them. A row's result depends on its data alone, so it is
//! the same in every launch.
//!
//! A sum below [`SURE`] is as good as one under the running maximum over that many keys. Up to [`RANGE`] the sums
//! themselves are exact, but products with large values may have overflowed (or weights in `f16`, which end at 2^16), so
//! the results are looked at. The sum cannot be too small: the reference is a score of its row.
//!
//! # Source
//! A fixed reference for all rows, in decoding: Hong et al. 2023, arXiv:2311.01282, section 3.

use super::super::Unsupported;
use super::super::builder::Builder;
use super::order::Order;
use super::{Frame, Store};
use crate::schedule::{MAX_TILES, Reference};
use drawloom_kernel::ir::{
    Block, BufferLayout, Dtype, Effect, Frag, If, MapOp, Op, Phi, ReduceOp, SharedView, Stmt, Val,
};

/// Sums below this are good whatever the values are.
const SURE: f32 = (1u32 << 24) as f32;
/// The same for weights in `f16`, which end at 2^16: none is infinite if their sum is below.
const SURE_F16: f32 = (1u32 << 15) as f32;
/// Sums below this are good if no result has overflowed, which one does that had an infinite weight.
const RANGE: f32 = (1u128 << 64) as f32;

/// Emits the loop over the CTA's query tiles and, for a reference that may fail, the second one.
pub(super) fn tiles(b: &mut Builder, frame: &Frame) -> Result<(), Unsupported> {
    let Frame { schedule, .. } = *frame;
    let order = Order::new(b, frame);
    let one = b.int(1);

    if schedule.reference != Reference::First {
        order.each(b, None, [], |b, place, []| {
            frame.tile(b, place, schedule.reference, Store::Always).map(|_| [])
        })?;
        b.effect(Effect::TmaStoreWait { pending: 0 });
        return Ok(());
    }

    // A verdict for each tile and warp, and one over all tiles for each warp.
    let warps = schedule.warps;
    let verdicts = b.buffer("verdicts", Dtype::I32, 1, schedule.verdicts(), 1, None);
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

    // The first pass counts the CTA's tiles and the verdicts against them.
    let zero = b.int(0);
    let [_, against] = order.each(b, None, [zero, zero], |b, place, [own, against]| {
        let failed = frame
            .tile(b, place, Reference::First, Store::IfGood)?
            .expect("invariant: a tile that is stored if it is good has a verdict");
        let failed = b.select(failed, one, zero);
        note(b, own, failed);
        Ok([b.add(own, one), b.add(against, failed)])
    })?;
    let end = b.int(i64::from(MAX_TILES));
    note(b, end, against);
    b.effect(Effect::Barrier { id: 0, warps });
    let any = failures(b, end);
    let some = b.test(MapOp::Lt, &[zero, any]);
    order.each(b, Some(some), [zero], |b, place, [own]| {
        let failures = failures(b, own);
        let refused = b.test(MapOp::Lt, &[zero, failures]);
        b.when(refused, |b| {
            let row = b.mul(own, width);
            let row = b.add(row, warp);
            let mine = b.def(Frag::scalar(Dtype::I32), Op::LoadShared(verdict(row)));
            let mine = b.test(MapOp::Lt, &[zero, mine]);
            frame.tile(b, place, Reference::Running, Store::If(mine)).map(|_| ())
        })?;
        Ok([b.add(own, one)])
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
    let sure = if frame.elem == Dtype::F16 { SURE_F16 } else { SURE };
    let unsure = beyond(b, sure);
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
