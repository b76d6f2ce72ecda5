//! Bulk tensor copies and stores (TMA), and the tensor maps that they go by.
//!
//! A window wider than a panel is one instruction per panel, all by the lane that the warp elects, which is always the
//! same; so the waits for stores, which count the groups of the lane that executes them, are that lane's too.

use drawloom_kernel::ir::{Access, GlobalTile, MbarId, RowIndex, SharedView, TensorMap, Val};

use crate::build::{Any, Build, Int, Ptr, SHARED_OF_CLUSTER, TENSOR_MAP};
use crate::emitter::Emitter;
use crate::error::{Result, malformed};

/// Bytes of a tensor map.
pub(crate) const BYTES: u32 = 128;
/// What the address of a tensor map is a multiple of.
pub(crate) const ALIGN: u64 = 64;

/// Fetches tensor maps before they are used.
pub(crate) fn prefetch<'c>(b: &Build<'c>, maps: &[(TensorMap, Ptr<'c>)]) {
    for (_, map) in maps {
        let p = b.cast_space(*map, TENSOR_MAP);
        b.call_void("llvm.nvvm.prefetch.tensormap", &[b.ptr(TENSOR_MAP).into()], &[p.into()]);
    }
}

/// The instructions of one copy or store.
struct Boxes<'c> {
    map: Ptr<'c>,
    /// Coordinates, the last axis first, but for that one.
    outer: Vec<Int<'c>>,
    /// Of each panel: its address in shared memory, and its first column in the tensor.
    panels: Vec<(Ptr<'c>, Int<'c>)>,
}

impl<'c> Emitter<'c, '_> {
    /// How a copy between a tile and a window is made.
    fn boxes(&mut self, tile: &GlobalTile, view: &SharedView) -> Result<Boxes<'c>> {
        if !self.target.tma {
            return self.unsupported("a bulk tensor copy");
        }
        let base = self.view_base(view)?;
        let found = self.kernel.tensor_map(tile, view);
        let Some((TensorMap { cols, .. }, map)) = found.and_then(|m| self.maps.iter().find(|(n, _)| *n == m).copied())
        else {
            return malformed(format!("no tensor map copies {} to {}", tile.tensor, view.buf));
        };
        if (tile.rows, tile.cols) != (view.rows, view.cols)
            || !view.cols.is_multiple_of(cols)
            || !view.col.is_multiple_of(cols)
            || !(1..=4).contains(&tile.at.len())
        {
            return malformed(format!(
                "a bulk copy of {} that is not whole panels of {}",
                tile.tensor, view.buf
            ));
        }
        let mut outer = Vec::new();
        for index in tile.at.iter().rev() {
            let at = match index {
                RowIndex::Row => self.int(tile.first_row)?,
                RowIndex::Fixed(v) => self.int(*v)?,
                RowIndex::RowDiv { .. } | RowIndex::RowRem { .. } => {
                    return malformed(format!("a bulk copy of {} along two axes", tile.tensor));
                }
            };
            outer.push(self.b.trunc(at, self.b.i32()));
        }
        let bytes = self.kernel.buffers[view.buf.index()].dtype.bytes();
        let first = self.b.shared_ptr(base.address);
        let panels = (0..view.cols / cols).map(|n| {
            let at = base.constant + base.form.cut((view.col + n * cols) * bytes).0;
            (self.b.offset_by(first, at), self.b.c32(i64::from(tile.col + n * cols)))
        });
        let panels = panels.collect();
        Ok(Boxes { map, outer, panels })
    }
    /// Emits a bulk copy to shared memory.
    pub fn tma_load(&mut self, barrier: MbarId, slot: Val, src: &GlobalTile, dst: &SharedView) -> Result<()> {
        let boxes = self.boxes(src, dst)?;
        let barrier = self.mbarrier(barrier, slot)?;
        let name = format!("llvm.nvvm.cp.async.bulk.tensor.g2s.tile.{}d", boxes.outer.len() + 1);
        self.by_one_lane(|e| {
            let b = &e.b;
            for (to, col) in boxes.panels {
                let to = b.cast_space(to, SHARED_OF_CLUSTER);
                let mut args: Vec<Any<'c>> = vec![to.into(), barrier.into(), boxes.map.into(), col.into()];
                args.extend(boxes.outer.iter().map(|c| Any::from(*c)));
                // No multicast, no hint to the cache, one CTA.
                let none: [Any<'c>; 5] = [
                    b.i16().const_zero().into(),
                    b.c64(0).into(),
                    b.c1(false).into(),
                    b.c1(false).into(),
                    b.c32(0).into(),
                ];
                args.extend(none);
                b.call_void(&name, &[], &args);
            }
        });
        Ok(())
    }
    /// Emits a bulk store from shared memory.
    pub fn tma_store(&mut self, src: &SharedView, dst: &GlobalTile) -> Result<()> {
        if self.tensor(dst.tensor)?.3 != Access::Out {
            return malformed(format!("{} is read, and cannot be stored to", dst.tensor));
        }
        let boxes = self.boxes(dst, src)?;
        let name = format!("llvm.nvvm.cp.async.bulk.tensor.s2g.tile.{}d", boxes.outer.len() + 1);
        self.by_one_lane(|e| {
            let b = &e.b;
            for (from, col) in boxes.panels {
                let mut args: Vec<Any<'c>> = vec![from.into(), boxes.map.into(), col.into()];
                args.extend(boxes.outer.iter().map(|c| Any::from(*c)));
                args.extend([Any::from(b.c64(0)), b.c1(false).into()]);
                b.call_void(&name, &[], &args);
            }
            b.call_void("llvm.nvvm.cp.async.bulk.commit.group", &[], &[]);
        });
        Ok(())
    }
    /// Waits until bulk stores have read shared memory.
    pub fn tma_store_wait(&mut self, pending: u32) -> Result<()> {
        if !self.target.tma {
            return self.unsupported("a bulk tensor store");
        }
        let pending = self.b.c32(i64::from(pending)).into();
        self.by_one_lane(|e| {
            e.b.call_void("llvm.nvvm.cp.async.bulk.wait.group.read", &[], &[pending]);
        });
        self.apart = true;
        self.meet();
        Ok(())
    }
}
