//! Copies between global and shared memory.

use std::collections::VecDeque;

use super::global::{Global, Launch, empty, fill};
use super::machine::{Cta, Load, Warp};
use super::shared::{Access, Shared, Window};
use super::value::Data;
use super::{FaultKind, Outcome, trouble};
use crate::ir::*;

/// A warp's `cp.async` copies, numbered from 1.
#[derive(Default)]
pub(super) struct CpAsync {
    issued: u32,
    /// Those that have not landed, oldest first.
    landing: VecDeque<Flying>,
    /// The last copy of each closed group that was not waited for.
    groups: VecDeque<u32>,
    complete: u32,
    /// The statement of the last one.
    stmt: u32,
}

/// A copy on its way.
struct Flying {
    number: u32,
    pieces: Vec<Window>,
    data: Data,
}

impl CpAsync {
    pub(super) fn is_landing(&self) -> bool {
        !self.landing.is_empty()
    }

    /// Lets the oldest copy land.
    pub(super) fn land_one(&mut self, shared: &mut Shared) {
        if let Some(copy) = self.landing.pop_front() {
            let mut offset = 0;
            for piece in copy.pieces {
                shared.put_from(piece, &copy.data, offset);
                offset += piece.cols;
            }
        }
    }

    pub(super) fn commit(&mut self) {
        self.groups.push_back(self.issued);
    }

    /// Completes all groups but the last `pending`; gives the number of the last copy that is thereby complete.
    pub(super) fn wait(&mut self, pending: u32, shared: &mut Shared) -> u32 {
        while self.groups.len() > pending as usize {
            self.complete = self.groups.pop_front().unwrap_or(self.complete);
        }
        while self.landing.front().is_some_and(|c| c.number <= self.complete) {
            self.land_one(shared);
        }
        self.complete
    }

    /// The statement of a copy that was not waited for.
    pub(super) fn unfinished(&self) -> Option<u32> {
        (self.complete < self.issued).then_some(self.stmt)
    }
}

/// A tile whose indices are known.
struct Rows {
    at: Vec<RowAt>,
    first: i64,
    limit: i64,
    col: i64,
    cols: i64,
}

enum RowAt {
    Fixed(i64),
    Row,
    Div(i64),
    Rem { by: i64, base: i64 },
}

impl Rows {
    fn new(warp: &Warp, tile: &GlobalTile) -> Outcome<Rows> {
        let divisor = |v: Val| match warp.int(v)? {
            by if by > 0 => Ok(by),
            by => trouble(FaultKind::Arithmetic, format!("rows are divided by {by}")),
        };
        let at = tile.at.iter().map(|i| {
            Ok(match *i {
                RowIndex::Fixed(v) => RowAt::Fixed(warp.int(v)?),
                RowIndex::Row => RowAt::Row,
                RowIndex::RowDiv { by } => RowAt::Div(divisor(by)?),
                RowIndex::RowRem { by, base } => RowAt::Rem {
                    by: divisor(by)?,
                    base: warp.int(base)?,
                },
            })
        });
        Ok(Rows {
            at: at.collect::<Outcome<_>>()?,
            first: warp.int(tile.first_row)?,
            limit: warp.int(tile.row_limit)?,
            col: i64::from(tile.col),
            cols: i64::from(tile.cols),
        })
    }

    /// Where row `r` begins in the tensor's array, or `None` if it does not exist.
    fn position(&self, g: &Global, r: usize) -> Outcome<Option<usize>> {
        let n = self.first + r as i64;
        if n < 0 || n >= self.limit {
            return Ok(None);
        }
        let mut distance = 0;
        for (axis, at) in self.at.iter().enumerate() {
            distance += g.step(
                axis,
                match at {
                    RowAt::Fixed(i) => *i,
                    RowAt::Row => n,
                    RowAt::Div(by) => n.div_euclid(*by),
                    RowAt::Rem { by, base } => base + n.rem_euclid(*by),
                },
            )?;
        }
        g.step(self.at.len(), self.col + self.cols - 1)?;
        Ok(Some(g.position(distance + g.step(self.at.len(), self.col)?)))
    }
}

/// Checks that accesses of `bytes` bytes can be made to a row that begins at `position`.
fn aligned(g: &Global, position: usize, bytes: u32) -> Outcome<()> {
    let element = g.element_bytes();
    if bytes > element && g.last_stride() != 1 {
        let message = format!(
            "accesses of {bytes} bytes, but the last axis has stride {}",
            g.last_stride()
        );
        return trouble(FaultKind::Alignment, message);
    }
    let address = position as u64 * u64::from(element);
    if !address.is_multiple_of(u64::from(bytes)) {
        return trouble(
            FaultKind::Alignment,
            format!("an access of {bytes} bytes at byte {address}"),
        );
    }
    Ok(())
}

/// Checks what the bulk copy engine asks of a tensor, a tile and a window.
fn bulk(g: &Global, tile: &GlobalTile, rows: &Rows, window: Window) -> Outcome<()> {
    if !window.row.is_multiple_of(8) {
        let message = format!(
            "a bulk copy from row {} of {}, which is no multiple of 8",
            window.row, window.buf
        );
        return trouble(FaultKind::Alignment, message);
    }
    if let Some(axis) = tile.at.iter().position(|i| *i == RowIndex::Row)
        && rows.limit != g.extent(axis)
    {
        let message = format!(
            "the row limit of a bulk copy is {}, but axis {axis} of {} has {}",
            rows.limit,
            tile.tensor,
            g.extent(axis)
        );
        return trouble(FaultKind::Bounds, message);
    }
    aligned(g, g.position(0), 16)?;
    for stride in g.outer_strides() {
        let bytes = stride * i64::from(g.element_bytes());
        if bytes < 0 || bytes % 16 != 0 {
            let message = format!("a bulk copy of a tensor with a stride of {bytes} bytes, which is no multiple of 16");
            return trouble(FaultKind::Alignment, message);
        }
    }
    Ok(())
}

impl Cta<'_> {
    #[expect(
        clippy::too_many_arguments,
        reason = "the effect's fields, the warp and the statement"
    )]
    pub(super) fn copy(
        &mut self,
        launch: &mut Launch,
        w: usize,
        kind: CopyKind,
        src: &GlobalTile,
        dst: &SharedView,
        in_stream: bool,
        stmt: u32,
    ) -> Outcome<()> {
        let window = self.window(w, dst)?;
        let bytes = match kind {
            CopyKind::Sync { bytes } | CopyKind::CpAsync { bytes } => bytes,
            CopyKind::Tma { barrier, slot } if !in_stream => {
                return self.tma_load(launch, w, barrier, slot, src, window, stmt);
            }
            CopyKind::Tma { .. } => {
                let rows = Rows::new(&self.warps[w], src)?;
                bulk(launch.tensor(src.tensor), src, &rows, window)?;
                16
            }
        };
        let share = self.share(launch, w, src, window, bytes)?;
        let warp = &self.warps[w];
        if share.pieces.is_empty() {
            return Ok(());
        }
        launch.counts.shared_written += (share.pieces.len() * bytes as usize) as u64;
        if matches!(kind, CopyKind::CpAsync { .. }) && !in_stream {
            let component = self.components.cp_async(w);
            let number = warp.copies.issued + 1;
            let clock = &warp.clock;
            let access = Access {
                component,
                epoch: number,
                clock,
                generic: true,
                asynchronous: false,
                stmt,
            };
            for piece in &share.pieces {
                self.shared.claim(*piece, access)?;
            }
            let copies = &mut self.warps[w].copies;
            copies.issued = number;
            copies.stmt = stmt;
            copies.landing.push_back(Flying { number, ..share });
            return Ok(());
        }
        let component = self.components.warp(w);
        let (epoch, clock) = (warp.clock.before[component], &warp.clock);
        let access = Access {
            component,
            epoch,
            clock,
            generic: !in_stream,
            asynchronous: false,
            stmt,
        };
        let mut offset = 0;
        for piece in &share.pieces {
            self.shared.claim(*piece, access)?;
            self.shared.put_from(*piece, &share.data, offset);
            offset += piece.cols;
        }
        Ok(())
    }

    /// What a warp moves of a copy that its role makes together.
    fn share(&self, launch: &mut Launch, w: usize, src: &GlobalTile, window: Window, bytes: u32) -> Outcome<Flying> {
        let warp = &self.warps[w];
        let warps = self.kernel.roles[warp.role].warps as usize;
        let rows = Rows::new(warp, src)?;
        let g = launch.tensor(src.tensor);
        let each = (bytes / g.element_bytes()) as usize;
        let per_row = window.cols / each;
        let mut data = empty(self.shared.dtype(window.buf), 0);
        let (mut pieces, mut read) = (Vec::new(), 0);
        for r in 0..window.rows {
            let mine = |i: &usize| ((r * per_row + i) / 32) % warps == warp.in_role;
            let mut position = None;
            for i in (0..per_row).filter(mine) {
                if position.is_none() {
                    let found = rows.position(g, r)?;
                    if let Some(at) = found {
                        aligned(g, at, bytes)?;
                    }
                    position = Some(found);
                }
                match position.flatten() {
                    Some(at) => {
                        let at = (at as i64 + (i * each) as i64 * g.last_stride()) as usize;
                        g.read(at, each, &mut data);
                        read += u64::from(bytes);
                    }
                    None => fill(&mut data, 0.0, each),
                }
                pieces.push(Window {
                    row: window.row + r,
                    col: window.col + i * each,
                    rows: 1,
                    cols: each,
                    ..window
                });
            }
        }
        launch.counts.read[src.tensor.index()] += read;
        Ok(Flying {
            number: 0,
            pieces,
            data,
        })
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the effect's fields, the warp and the statement"
    )]
    fn tma_load(
        &mut self,
        launch: &mut Launch,
        w: usize,
        barrier: MbarId,
        slot: Val,
        src: &GlobalTile,
        window: Window,
        stmt: u32,
    ) -> Outcome<()> {
        let mbarrier = self.mbar_slot(w, barrier, slot)?;
        let rows = Rows::new(&self.warps[w], src)?;
        let g = launch.tensor(src.tensor);
        bulk(g, src, &rows, window)?;
        let mut data = empty(self.shared.dtype(window.buf), window.rows * window.cols);
        let mut read = 0;
        for r in 0..window.rows {
            match rows.position(g, r)? {
                Some(at) => {
                    g.read(at, window.cols, &mut data);
                    read += window.cols as u64 * u64::from(g.element_bytes());
                }
                None => fill(&mut data, 0.0, window.cols),
            }
        }
        launch.counts.read[src.tensor.index()] += read;
        launch.counts.shared_written += self.shared.bytes(window);
        let epoch = self.mbarriers[mbarrier].phase + 1;
        let component = self.components.bulk_load(mbarrier);
        let clock = &self.warps[w].clock;
        let access = Access {
            component,
            epoch,
            clock,
            generic: false,
            asynchronous: true,
            stmt,
        };
        self.shared.claim(window, access)?;
        self.last_load[mbarrier] = (epoch, stmt);
        self.loads.push(Load {
            mbarrier,
            window,
            data,
            stmt,
            phase: epoch,
        });
        Ok(())
    }

    pub(super) fn store_tile(
        &mut self,
        launch: &mut Launch,
        w: usize,
        src: &SharedView,
        dst: &GlobalTile,
        bytes: u32,
        stmt: u32,
    ) -> Outcome<()> {
        let window = self.window(w, src)?;
        let warp = &self.warps[w];
        let warps = self.kernel.roles[warp.role].warps as usize;
        let in_role = warp.in_role;
        let rows = Rows::new(warp, dst)?;
        let g = launch.tensor(dst.tensor);
        let each = (bytes / g.element_bytes()) as usize;
        let per_row = window.cols / each;
        let (mut written, mut read) = (0, 0);
        for r in 0..window.rows {
            let Some(at) = rows.position(g, r)? else { continue };
            aligned(g, at, bytes)?;
            for i in (0..per_row).filter(|i| ((r * per_row + i) / 32) % warps == in_role) {
                let piece = Window {
                    row: window.row + r,
                    col: window.col + i * each,
                    rows: 1,
                    cols: each,
                    ..window
                };
                let data = self.read(piece, self.components.warp(w), None, w, stmt)?;
                read += u64::from(bytes);
                for e in 0..each {
                    let to = at as i64 + (i * each + e) as i64 * g.last_stride();
                    g.write(to as usize, &data, e, stmt)?;
                }
                written += u64::from(bytes);
            }
        }
        launch.counts.written[dst.tensor.index()] += written;
        launch.counts.shared_read += read;
        Ok(())
    }

    pub(super) fn tma_store(
        &mut self,
        launch: &mut Launch,
        w: usize,
        src: &SharedView,
        dst: &GlobalTile,
        stmt: u32,
    ) -> Outcome<()> {
        let window = self.window(w, src)?;
        let rows = Rows::new(&self.warps[w], dst)?;
        let number = self.warps[w].stores.0 + 1;
        let data = self.read(window, self.components.bulk_store(w), Some(number), w, stmt)?;
        let g = launch.tensor(dst.tensor);
        bulk(g, dst, &rows, window)?;
        let mut written = 0;
        for r in 0..window.rows {
            let Some(at) = rows.position(g, r)? else { continue };
            for c in 0..window.cols {
                g.write(at + c, &data, r * window.cols + c, stmt)?;
            }
            written += window.cols as u64 * u64::from(g.element_bytes());
        }
        launch.counts.written[dst.tensor.index()] += written;
        launch.counts.shared_read += self.shared.bytes(window);
        let stores = &mut self.warps[w].stores;
        (stores.0, stores.2) = (number, stmt);
        Ok(())
    }
}
