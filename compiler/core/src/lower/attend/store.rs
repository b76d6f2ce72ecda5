//! The end of a tile: outputs through shared memory, or the partial state of a split.

use super::super::Unsupported;
use super::super::builder::{Builder, whole};
use super::super::expr::Exprs;
use super::super::operator::Operator;
use super::params::Params;
use super::tile::{Tile, row_coords, row_index};
use crate::schedule::{Fetch, Schedule};
use drawloom_kernel::ir::{BufId, Dtype, Effect, Frag, GlobalTile, Layout, MapOp, Op, SharedView, Val};

/// Writes `(m, l, o)` of this split, in the graph's units.
pub(super) fn store_partials(
    b: &mut Builder,
    op: &Operator,
    schedule: &Schedule,
    params: &Params,
    tile: &Tile,
    state: [Val; 3],
) {
    let coords = row_coords(b, op, schedule, tile);
    let (split, _) = tile.split.expect("invariant: a split kernel has a split");
    let q_axes = &op.spec.inputs[op.q.index()].axes;
    for (&tensor, value) in params.partials.iter().zip(state) {
        let mut at = vec![split];
        at.extend(q_axes[..q_axes.len() - 1].iter().map(|a| coords[a]));
        let cols = b.ty(value).cols;
        if cols > 1 {
            at.push(b.def(
                Frag {
                    dtype: Dtype::I32,
                    rows: 1,
                    cols,
                    layout: Layout::Mma,
                },
                Op::ColIota,
            ));
        }
        b.effect(Effect::StoreGlobal {
            tensor,
            at,
            guard: Some(tile.valid),
            value,
        });
    }
}

/// Evaluates the graph's outputs over the folded state and writes them: the stage's result through shared memory, for
/// wide accesses; the log-sum-exp directly.
pub(super) fn store_outputs(
    b: &mut Builder,
    op: &Operator,
    schedule: &Schedule,
    params: &Params,
    tile: &Tile,
    exprs: &mut Exprs,
    staging: &[Option<BufId>],
) -> Result<(), Unsupported> {
    let coords = row_coords(b, op, schedule, tile);
    for (output, staging) in op.spec.outputs.iter().zip(staging) {
        let value = op
            .graph
            .outputs
            .iter()
            .find(|o| o.name == output.name)
            .ok_or_else(|| Unsupported::new(format!("output `{}` outside the graph", output.name)))?
            .value;
        let value = exprs.one(b, value)?;
        let tensor = params.tensors[&output.name];
        let dtype = op.dtype(output.ty);
        let value = if dtype == Dtype::F32 {
            value
        } else {
            b.map(MapOp::Convert, dtype, &[value])
        };
        let ty = b.ty(value);
        let Some(staging) = *staging else {
            let at = output.axes.iter().map(|a| coords[a]).collect();
            b.effect(Effect::StoreGlobal {
                tensor,
                at,
                guard: Some(tile.valid),
                value,
            });
            continue;
        };
        if output.axes.last() != op.spec.inputs[op.attend.v.index()].axes.last() {
            return Err(Unsupported::new(format!(
                "output `{}` whose last axis is not the values'",
                output.name
            )));
        }
        let own_rows = SharedView {
            buf: staging,
            slot: None,
            row: Some(tile.warp_row),
            col: 0,
            rows: ty.rows,
            cols: ty.cols,
        };
        let at = row_index(b, op, schedule, tile, &output.axes);
        if schedule.fetch == Fetch::Producer {
            // Each warp hands its rows to the copy engine, which has read those of the tile before by now.
            b.effect(Effect::TmaStoreWait { pending: 0 });
            b.effect(Effect::StoreShared {
                dst: own_rows.clone(),
                value,
            });
            b.effect(Effect::FenceProxyAsync);
            let dst = GlobalTile {
                tensor,
                at,
                col: 0,
                rows: ty.rows,
                cols: ty.cols,
                first_row: b.add(tile.first_row, tile.warp_row),
                row_limit: tile.rows,
            };
            b.effect(Effect::TmaStore { src: own_rows, dst });
            if b.kernel.buffers[staging.index()].alias.is_some() {
                // The next query tile comes where the rows lie.
                b.effect(Effect::TmaStoreWait { pending: 0 });
            }
            continue;
        }
        b.effect(Effect::StoreShared { dst: own_rows, value });
        b.effect(Effect::Barrier {
            id: 0,
            warps: schedule.warps,
        });
        let dst = GlobalTile {
            tensor,
            at,
            col: 0,
            rows: schedule.block_m,
            cols: ty.cols,
            first_row: tile.first_row,
            row_limit: tile.rows,
        };
        let src = whole(&b.kernel, staging, None);
        b.effect(Effect::StoreTile {
            src,
            dst,
            bytes: schedule.access,
        });
    }
    Ok(())
}
