//! Copies of tiles between global and shared memory by all warps of a role.
//!
//! Chunk `c` of a tile is moved by thread `c % threads`. The rows and chunks that a thread meets repeat after a *period*
//! of accesses, shifted by a constant number of rows that is a multiple of 8 (so that the swizzle repeats too). What
//! depends on the thread is computed once per access of a period, in the prelude; the others add constants (in shared
//! memory) or multiples of the row stride (in global memory).
//!
//! Every access compares its row's number with the tensor's size. Copying tiles that lie wholly inside their tensor
//! without that, by a uniform branch, is no gain: the blocks that it makes cost more registers and moves than the
//! comparisons do instructions.

use drawloom_kernel::ir::{Access, CopyKind, GlobalTile, RowIndex, SharedView};
use inkwell::IntPredicate;
use inkwell::types::BasicTypeEnum;

use crate::asm;
use crate::build::{Any, Int, Ptr};
use crate::emitter::{Emitter, LaneKey};
use crate::error::{Result, malformed};
use crate::math;

/// How a tile is cut into accesses.
#[derive(Clone, Copy)]
pub(crate) struct Cut {
    /// Bytes per access.
    bytes: u32,
    /// Accesses per row.
    per_row: u32,
    /// Accesses of the tile.
    chunks: u32,
    /// Threads that share them.
    threads: u32,
    /// Accesses of a thread after which the chunk repeats.
    period: u32,
    /// Rows passed in a period.
    rows: u32,
}

/// One access of a thread.
#[derive(Clone, Copy)]
pub(crate) struct Place<'c> {
    /// Where the first access of this phase of the period goes in shared memory.
    start: Ptr<'c>,
    pub shared: Ptr<'c>,
    pub global: Ptr<'c>,
    /// Whether the thread has this access at all. `None`: yes.
    pub mine: Option<Int<'c>>,
    /// Whether its row exists.
    pub exists: Int<'c>,
}

/// Greatest common divisor.
fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl<'c> Emitter<'c, '_> {
    /// Row of the chunk of this thread among those from number `first`.
    pub fn copy_row(&mut self, per_row: u32, first: u32) -> Int<'c> {
        let b = &self.b;
        b.udiv(
            b.add(self.team.thread, b.c32(i64::from(first))),
            b.c32(i64::from(per_row)),
        )
    }
    /// Number in its row of that chunk.
    pub fn copy_chunk(&mut self, per_row: u32, first: u32) -> Int<'c> {
        let b = &self.b;
        b.urem(
            b.add(self.team.thread, b.c32(i64::from(first))),
            b.c32(i64::from(per_row)),
        )
    }
    /// How a tile is cut.
    pub fn cut(&self, tile: &GlobalTile, view: &SharedView, bytes: u32) -> Result<Cut> {
        let dtype = self.tensor(tile.tensor)?.2;
        let Some(buffer) = self.kernel.buffers.get(view.buf.index()) else {
            return malformed(format!("{} is not declared", view.buf));
        };
        if (tile.rows, tile.cols, dtype) != (view.rows, view.cols, buffer.dtype) {
            return malformed(format!("a tile of {} and a window of {} differ", tile.tensor, view.buf));
        }
        let row_bytes = tile.cols * dtype.bytes();
        if !matches!(bytes, 2 | 4 | 8 | 16)
            || row_bytes == 0
            || !row_bytes.is_multiple_of(bytes)
            || !(view.col * dtype.bytes()).is_multiple_of(bytes)
            || !(buffer.cols * dtype.bytes()).is_multiple_of(bytes)
        {
            return malformed(format!(
                "a tile with rows of {row_bytes} bytes is not copied by {bytes} bytes"
            ));
        }
        let (threads, per_row) = (32 * self.team.warps, row_bytes / bytes);
        let mut period = per_row / gcd(per_row, threads);
        while !(period * threads / per_row).is_multiple_of(8) {
            period *= 2;
        }
        Ok(Cut {
            bytes,
            per_row,
            chunks: tile.rows * per_row,
            threads,
            period,
            rows: period * threads / per_row,
        })
    }
    /// The accesses of this thread.
    pub fn accesses(&mut self, cut: Cut, tile: &GlobalTile, view: &SharedView) -> Result<Vec<Place<'c>>> {
        let base = self.view_base(view)?;
        let first_row = asm::opaque(&self.b, self.int(tile.first_row)?);
        // A row exists if its number, taken as unsigned, is below a limit that is not negative.
        let limit = self.int(tile.row_limit)?;
        let none = self.b.icmp(IntPredicate::SLT, limit, self.b.c32(0));
        let limit = self.b.select_int(none, self.b.c32(0), limit);
        let first_byte = view.col * self.kernel.buffers[view.buf.index()].dtype.bytes();
        let down = self.row_stride(tile, cut.rows)?;
        let mut places: Vec<Place<'c>> = Vec::new();
        for i in 0..cut.chunks.div_ceil(cut.threads) {
            let (turn, phase) = (i / cut.period, i % cut.period);
            let first = phase * cut.threads;
            let row = self.lane_part(LaneKey::CopyRow {
                per_row: cut.per_row,
                first,
            });
            let chunk = self.lane_part(LaneKey::CopyChunk {
                per_row: cut.per_row,
                first,
            });
            let row_in_tile = self.b.add(row, self.b.c32(i64::from(turn * cut.rows)));
            let number = self.b.add(first_row, row_in_tile);
            // Where no row lies before the tensor, the rows left are counted once, and compared with constants.
            let exists = if self.non_negative(tile.first_row) {
                let left = self.b.sub(limit, self.b.add(first_row, row));
                self.b
                    .icmp(IntPredicate::SGT, left, self.b.c32(i64::from(turn * cut.rows)))
            } else {
                self.b.icmp(IntPredicate::ULT, number, limit)
            };
            let mine = ((i + 1) * cut.threads > cut.chunks).then(|| {
                let left = self.b.c32(i64::from(cut.chunks - i * cut.threads));
                self.b.icmp(IntPredicate::ULT, self.team.thread, left)
            });
            let above = (turn > 0).then(|| places[(i - cut.period) as usize]);
            let (shared, global) = match (above, down) {
                (Some(above), Some(bytes)) => {
                    let shared = self.b.offset_by(above.start, turn * cut.rows * base.form.pitch);
                    (shared, self.b.offset(above.global, bytes))
                }
                (Some(above), None) => {
                    let shared = self.b.offset_by(above.start, turn * cut.rows * base.form.pitch);
                    (shared, self.row_address(tile, number, chunk, cut.bytes)?)
                }
                (None, _) => {
                    let place = |e: &Self, whole_row: Int<'c>| {
                        let b = &e.b;
                        let byte = b.add(b.mul(chunk, b.c32(i64::from(cut.bytes))), b.c32(i64::from(first_byte)));
                        let byte = e.in_row(base.form, byte, whole_row);
                        b.add(b.mul(row, b.c32(i64::from(base.form.pitch))), byte)
                    };
                    let offset = match base.odd_row {
                        None => self.in_prelude(|e| place(e, row)),
                        Some(r) => place(self, self.b.add(r, row)),
                    };
                    let start = self.b.shared_ptr(self.b.add(base.address, offset));
                    let shared = self.b.offset_by(start, base.constant);
                    (shared, self.row_address(tile, number, chunk, cut.bytes)?)
                }
            };
            let start = above.map_or(shared, |a| a.start);
            places.push(Place {
                start,
                shared,
                global,
                mine,
                exists,
            });
        }
        Ok(places)
    }
    /// Bytes from a tile's row to the row `rows` below it, if they are the same everywhere.
    fn row_stride(&mut self, tile: &GlobalTile, rows: u32) -> Result<Option<Int<'c>>> {
        let (_, strides, dtype, _) = self.tensor(tile.tensor)?;
        let by = self.b.c64(i64::from(rows * dtype.bytes()));
        let mut sum = self.b.c64(0);
        for (index, stride) in tile.at.iter().zip(&strides) {
            match index {
                RowIndex::Fixed(_) => {}
                RowIndex::Row => sum = self.in_prelude(|e| e.b.add(sum, e.b.mul(*stride, by))),
                RowIndex::RowDiv { .. } | RowIndex::RowRem { .. } => return Ok(None),
            }
        }
        Ok(Some(sum))
    }
    /// Address of chunk `chunk` in the row with number `row`, both the thread's.
    fn row_address(&mut self, tile: &GlobalTile, row: Int<'c>, chunk: Int<'c>, bytes: u32) -> Result<Ptr<'c>> {
        let (base, strides, dtype, _) = self.tensor(tile.tensor)?;
        if tile.at.len() + 1 != strides.len() {
            return malformed(format!(
                "{} row indices for the {} axes of {}",
                tile.at.len(),
                strides.len(),
                tile.tensor
            ));
        }
        let wide = self.b.i64();
        let size = self.b.c64(i64::from(dtype.bytes()));
        let mut tile_part = self.b.c64(i64::from(tile.col * dtype.bytes()));
        let in_row = self.in_prelude(|e| e.b.zext(e.b.mul(chunk, e.b.c32(i64::from(bytes))), wide));
        let mut row_part = self.b.c64(0);
        for (index, stride) in tile.at.iter().zip(&strides) {
            let stride = self.in_prelude(|e| e.b.mul(*stride, size));
            let at = match index {
                RowIndex::Fixed(v) => {
                    let at = self.b.sext(self.int(*v)?, wide);
                    tile_part = self.b.add(tile_part, self.b.mul(at, stride));
                    continue;
                }
                RowIndex::Row => row,
                RowIndex::RowDiv { by } => math::floor_div(&self.b, row, self.int(*by)?),
                RowIndex::RowRem { by, base } => {
                    let rem = math::floor_rem(&self.b, row, self.int(*by)?);
                    self.b.add(rem, self.int(*base)?)
                }
            };
            row_part = self.b.add(row_part, self.b.mul(self.b.sext(at, wide), stride));
        }
        // What does not change with the row comes first: in a loop over tiles it is computed once.
        let column = self.b.offset(self.b.offset(base, tile_part), in_row);
        Ok(self.b.offset(column, row_part))
    }
    /// Emits a copy to shared memory.
    pub fn copy(&mut self, kind: CopyKind, src: &GlobalTile, dst: &SharedView) -> Result<()> {
        if self.tensor(src.tensor)?.3 != Access::In {
            return malformed(format!("{} is written, and cannot be copied from", src.tensor));
        }
        match kind {
            CopyKind::Sync { bytes } => {
                let cut = self.cut(src, dst, bytes)?;
                self.copy_sync(cut, src, dst)
            }
            CopyKind::CpAsync { bytes } => {
                if bytes < 4 {
                    return malformed(format!("cp.async of {bytes} bytes"));
                }
                let cut = self.cut(src, dst, bytes)?;
                self.copy_async(cut, src, dst)
            }
            CopyKind::Tma { barrier, slot } => self.tma_load(barrier, slot, src, dst),
        }
    }
    fn copy_async(&mut self, cut: Cut, src: &GlobalTile, dst: &SharedView) -> Result<()> {
        let name = match cut.bytes {
            4 => "llvm.nvvm.cp.async.ca.shared.global.4.s",
            8 => "llvm.nvvm.cp.async.ca.shared.global.8.s",
            _ => "llvm.nvvm.cp.async.cg.shared.global.16.s",
        };
        for a in self.accesses(cut, src, dst)? {
            let (all, none) = (self.b.c32(i64::from(cut.bytes)), self.b.c32(0));
            let size = self.b.select_int(a.exists, all, none);
            let args = [a.shared.into(), a.global.into(), size.into()];
            self.guarded(a.mine, |e| e.b.call_void(name, &[], &args));
        }
        Ok(())
    }
    /// The registers of one access: how many, and of which type.
    fn words(&self, bytes: u32) -> (usize, BasicTypeEnum<'c>) {
        match bytes {
            2 => (1, self.b.i16().into()),
            4 => (1, self.b.i32().into()),
            n => (n as usize / 4, self.b.i32().into()),
        }
    }
    fn copy_sync(&mut self, cut: Cut, src: &GlobalTile, dst: &SharedView) -> Result<()> {
        self.apart = true;
        let (count, word) = self.words(cut.bytes);
        let zero: Any<'c> = word.into_int_type().const_zero().into();
        let accesses = self.accesses(cut, src, dst)?;
        // Loads of several accesses are in flight at once, as many as registers allow.
        for batch in accesses.chunks((64 / (4 * count)).max(1)) {
            let mut loaded = Vec::new();
            for a in batch {
                let guard = self.with(a.mine, a.exists);
                loaded.push(asm::load_global_if(&self.b, guard, a.global, &vec![zero; count]));
            }
            for (a, v) in batch.iter().zip(loaded) {
                let v = if count == 1 { v[0] } else { self.b.vector(&v) };
                self.guarded(a.mine, |e| e.b.store(a.shared, v, cut.bytes));
            }
        }
        Ok(())
    }
    /// Emits a copy from shared memory.
    pub fn store_tile(&mut self, src: &SharedView, dst: &GlobalTile, bytes: u32) -> Result<()> {
        if self.tensor(dst.tensor)?.3 != Access::Out {
            return malformed(format!("{} is read, and cannot be stored to", dst.tensor));
        }
        self.apart = true;
        let cut = self.cut(dst, src, bytes)?;
        let (count, word) = self.words(bytes);
        let ty = if count == 1 {
            word
        } else {
            self.b.i32().vec_type(count as u32).into()
        };
        for a in self.accesses(cut, dst, src)? {
            let guard = self.with(a.mine, a.exists);
            self.guarded(Some(guard), |e| {
                let v = e.b.load(ty, a.shared, bytes);
                e.b.store(a.global, v, bytes);
            });
        }
        Ok(())
    }
}
