//! Shared memory of a CTA, and who touched each piece of it last.

use super::clock::{Clock, Components};
use super::global::{empty, fill};
use super::value::Data;
use super::{FaultKind, Outcome, Trouble, trouble};
use crate::ir::*;
use crate::text::statements;

/// Who accesses shared memory, and what it knows.
#[derive(Clone, Copy)]
pub(super) struct Access<'c> {
    pub(super) component: usize,
    pub(super) epoch: u32,
    pub(super) clock: &'c Clock,
    /// Whether a write needs a fence before the asynchronous proxy may read it.
    pub(super) generic: bool,
    /// Whether the asynchronous proxy makes the access.
    pub(super) asynchronous: bool,
    pub(super) stmt: u32,
}

/// A window whose slot and row are known.
#[derive(Clone, Copy)]
pub(super) struct Window {
    pub(super) buf: BufId,
    pub(super) slot: usize,
    pub(super) row: usize,
    pub(super) col: usize,
    pub(super) rows: usize,
    pub(super) cols: usize,
}

/// The shared memory of a CTA.
pub(super) struct Shared {
    buffers: Vec<Contents>,
    /// Per buffer that is no alias: its pieces.
    pieces: Vec<Vec<Piece>>,
    components: Components,
}

struct Contents {
    decl: Buffer,
    /// The buffer whose storage it has.
    root: usize,
    /// Bytes of a piece.
    granule: usize,
    data: Data,
}

/// The history of a few bytes.
#[derive(Clone, Default)]
struct Piece {
    /// Component of the last writer plus 1, or 0.
    writer: u32,
    epoch: u32,
    stmt: u32,
    /// The buffer through which it was written.
    buf: u32,
    generic: bool,
    /// Reads since then: component, epoch, statement.
    reads: Vec<(u32, u32, u32)>,
}

/// Bytes of the pieces in which each buffer is watched: as coarse as the windows and copies of the program allow.
pub(super) fn granules(kernel: &Kernel) -> Vec<u32> {
    let roots = roots(kernel);
    let mut of_root = vec![16u32; kernel.buffers.len()];
    let mut divide = |buf: BufId, bytes: u32| {
        let g = &mut of_root[roots[buf.index()]];
        *g = gcd(*g, bytes);
    };
    for (i, b) in kernel.buffers.iter().enumerate() {
        divide(BufId(i as u32), b.cols * b.dtype.bytes());
    }
    for stmt in statements(kernel) {
        visit_views(stmt, &mut |view, access_bytes| {
            let bytes = kernel.buffers[view.buf.index()].dtype.bytes();
            divide(view.buf, view.col * bytes);
            divide(view.buf, view.cols * bytes);
            divide(view.buf, access_bytes);
        });
    }
    roots.iter().map(|r| of_root[*r]).collect()
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn roots(kernel: &Kernel) -> Vec<usize> {
    let mut roots: Vec<usize> = Vec::new();
    for (i, b) in kernel.buffers.iter().enumerate() {
        roots.push(b.alias.map_or(i, |a| roots[a.index()]));
    }
    roots
}

/// Calls `f` on each window that a statement itself names, with the bytes of one access (0: whole rows).
fn visit_views(stmt: &Stmt, f: &mut impl FnMut(&SharedView, u32)) {
    let mut operand = |o: &Operand| match o {
        Operand::Reg(_) => {}
        Operand::Shared(v) | Operand::SharedT(v) => f(v, 0),
    };
    match stmt {
        Stmt::Let { op, .. } => match op {
            Op::Mma { a, b, .. } | Op::MmaAsync { a, b, .. } => {
                operand(a);
                operand(b);
            }
            Op::LoadShared(v) => f(v, 0),
            Op::ConstF(_) | Op::ConstI(_) | Op::Param(_) | Op::Cta | Op::WarpInRole | Op::RowIota => {}
            Op::ColIota | Op::Map(..) | Op::Reduce(..) | Op::Any(_) | Op::MmaWait { .. } | Op::LoadGlobal { .. } => {}
        },
        Stmt::Do(effect) => match effect {
            Effect::Copy { kind, dst, .. } => match kind {
                CopyKind::Sync { bytes } | CopyKind::CpAsync { bytes } => f(dst, *bytes),
                CopyKind::Tma { .. } => f(dst, 16),
            },
            Effect::StoreShared { dst, .. } => f(dst, 0),
            Effect::StoreTile { src, bytes, .. } => f(src, *bytes),
            Effect::TmaStore { src, .. } => f(src, 0),
            Effect::CommitGroup | Effect::WaitGroup { .. } | Effect::Barrier { .. } => {}
            Effect::BarrierArrive { .. } | Effect::MbarArrive { .. } | Effect::MbarExpect { .. } => {}
            Effect::MbarWait { .. } | Effect::FenceProxyAsync | Effect::MmaFence | Effect::MmaCommit => {}
            Effect::StoreGlobal { .. } | Effect::TmaStoreWait { .. } => {}
            Effect::SetRegisters { .. } | Effect::Assert { .. } => {}
        },
        Stmt::Loop(_) | Stmt::If(_) | Stmt::Stream(_) => {}
    }
}

impl Shared {
    pub(super) fn new(kernel: &Kernel, granules: &[u32], components: Components) -> Shared {
        let roots = roots(kernel);
        let mut pieces = vec![Vec::new(); kernel.buffers.len()];
        let mut buffers = Vec::new();
        for (i, b) in kernel.buffers.iter().enumerate() {
            let mut data = empty(b.dtype, 0);
            fill(&mut data, f64::NAN, (b.slots * b.rows * b.cols) as usize);
            let granule = granules[i] as usize;
            if roots[i] == i {
                pieces[i] = vec![Piece::default(); b.bytes() as usize / granule];
            }
            buffers.push(Contents {
                decl: b.clone(),
                root: roots[i],
                granule,
                data,
            });
        }
        Shared {
            buffers,
            pieces,
            components,
        }
    }

    /// Checks slot and row of a window.
    pub(super) fn window(&self, view: &SharedView, slot: i64, row: i64) -> Outcome<Window> {
        let b = &self.buffers[view.buf.index()].decl;
        if slot < 0 || slot >= i64::from(b.slots) {
            return trouble(
                FaultKind::Bounds,
                format!("slot {slot} of {}, which has {}", view.buf, b.slots),
            );
        }
        if row < 0 || row + i64::from(view.rows) > i64::from(b.rows) {
            let message = format!(
                "{} rows from row {row} of {}, which has {}",
                view.rows, view.buf, b.rows
            );
            return trouble(FaultKind::Bounds, message);
        }
        Ok(Window {
            buf: view.buf,
            slot: slot as usize,
            row: row as usize,
            col: view.col as usize,
            rows: view.rows as usize,
            cols: view.cols as usize,
        })
    }

    /// Bytes of a window.
    pub(super) fn bytes(&self, w: Window) -> u64 {
        (w.rows * w.cols) as u64 * u64::from(self.buffers[w.buf.index()].decl.dtype.bytes())
    }

    pub(super) fn dtype(&self, buf: BufId) -> Dtype {
        self.buffers[buf.index()].decl.dtype
    }

    /// The elements of a window, row by row.
    pub(super) fn read(&mut self, w: Window, access: Access) -> Outcome<Data> {
        self.touch(w, |piece, components| piece.read(w, access, components))?;
        let buffer = &self.buffers[w.buf.index()];
        let starts = row_starts(&buffer.decl, w);
        fn rows<T: Copy>(v: &[T], starts: impl Iterator<Item = usize>, w: Window) -> Vec<T> {
            let mut out = Vec::with_capacity(w.rows * w.cols);
            starts.for_each(|s| out.extend_from_slice(&v[s..s + w.cols]));
            out
        }
        Ok(match &buffer.data {
            Data::F(v) => Data::F(rows(v, starts, w)),
            Data::I(v) => Data::I(rows(v, starts, w)),
            Data::L(v) => Data::L(rows(v, starts, w)),
            Data::B(v) => Data::B(rows(v, starts, w)),
        })
    }

    /// Claims a window for a write that happens later; until then it holds NaN.
    pub(super) fn claim(&mut self, w: Window, access: Access) -> Outcome<()> {
        self.touch(w, |piece, components| piece.write(w, access, components))?;
        let mut poison = empty(self.buffers[w.buf.index()].decl.dtype, w.rows * w.cols);
        fill(&mut poison, f64::NAN, w.rows * w.cols);
        self.put(w, &poison);
        Ok(())
    }

    /// Writes a window.
    pub(super) fn write(&mut self, w: Window, access: Access, data: &Data) -> Outcome<()> {
        self.touch(w, |piece, components| piece.write(w, access, components))?;
        self.put(w, data);
        Ok(())
    }

    /// Fills a claimed window.
    pub(super) fn put(&mut self, w: Window, data: &Data) {
        self.put_from(w, data, 0);
    }

    /// Fills a claimed window with the elements of `data` from `offset` on.
    pub(super) fn put_from(&mut self, w: Window, data: &Data, offset: usize) {
        let buffer = &mut self.buffers[w.buf.index()];
        let starts = row_starts(&buffer.decl, w);
        fn rows<T: Copy>(to: &mut [T], from: &[T], starts: impl Iterator<Item = usize>, w: Window) {
            for (s, row) in starts.zip(from.chunks_exact(w.cols)) {
                to[s..s + w.cols].copy_from_slice(row);
            }
        }
        match (&mut buffer.data, data) {
            (Data::F(to), Data::F(from)) => rows(to, &from[offset..], starts, w),
            (Data::I(to), Data::I(from)) => rows(to, &from[offset..], starts, w),
            (Data::L(to), Data::L(from)) => rows(to, &from[offset..], starts, w),
            (Data::B(to), Data::B(from)) => rows(to, &from[offset..], starts, w),
            _ => unreachable!("invariant: the verifier checks dtypes"),
        }
    }

    /// Visits all pieces of a window.
    fn touch(&mut self, w: Window, mut f: impl FnMut(&mut Piece, Components) -> Outcome<()>) -> Outcome<()> {
        let Contents {
            decl: b, root, granule, ..
        } = &self.buffers[w.buf.index()];
        let element = b.dtype.bytes() as usize;
        let pieces = &mut self.pieces[*root];
        for row in w.row..w.row + w.rows {
            let base = w.slot * b.slot_bytes() as usize;
            for byte in (w.col * element..(w.col + w.cols) * element).step_by(*granule) {
                let within = b.place(row as u32, byte as u32) as usize;
                f(&mut pieces[(base + within) / granule], self.components)?;
            }
        }
        Ok(())
    }
}

fn row_starts(b: &Buffer, w: Window) -> impl Iterator<Item = usize> + use<> {
    let (rows, cols) = (b.rows as usize, b.cols as usize);
    (w.row..w.row + w.rows).map(move |r| (w.slot * rows + r) * cols + w.col)
}

impl Piece {
    fn read(&mut self, w: Window, access: Access, components: Components) -> Outcome<()> {
        if self.writer == 0 {
            return trouble(
                FaultKind::Uninitialised,
                format!("{}[{}] is read, but not all written", w.buf, w.slot),
            );
        }
        self.after_write(w, access, components, "read")?;
        if self.buf != w.buf.0 {
            let t = format!(
                "{} is read, but its storage was last written as {}",
                w.buf,
                BufId(self.buf)
            );
            return Err(self.with(FaultKind::Uninitialised, t));
        }
        let entry = (access.component as u32, access.epoch, access.stmt);
        match self.reads.iter_mut().find(|r| r.0 == entry.0) {
            Some(r) => *r = entry,
            None => self.reads.push(entry),
        }
        Ok(())
    }

    fn write(&mut self, w: Window, access: Access, components: Components) -> Outcome<()> {
        self.after_write(w, access, components, "written")?;
        for &(component, epoch, stmt) in &self.reads {
            if epoch > access.clock.before[component as usize] {
                let reader = components.describe(component as usize);
                let message = format!(
                    "{}[{}] is written, but nothing orders this after a read by {reader}",
                    w.buf, w.slot
                );
                let t = Trouble {
                    kind: FaultKind::Race,
                    message,
                    other: Some(stmt),
                    at: None,
                };
                return Err(Box::new(t));
            }
        }
        self.reads.clear();
        self.writer = access.component as u32 + 1;
        self.epoch = access.epoch;
        self.stmt = access.stmt;
        self.buf = w.buf.0;
        self.generic = access.generic;
        Ok(())
    }

    /// Checks that an access comes after the last write, and can see it.
    fn after_write(&self, w: Window, access: Access, components: Components, what: &str) -> Outcome<()> {
        let Some(writer) = self.writer.checked_sub(1) else {
            return Ok(());
        };
        if self.epoch > access.clock.before[writer as usize] {
            let writer = components.describe(writer as usize);
            let t = format!(
                "{}[{}] is {what}, but nothing orders this after a write by {writer}",
                w.buf, w.slot
            );
            return Err(self.with(FaultKind::Race, t));
        }
        if access.asynchronous && self.generic && self.epoch > access.clock.fenced[writer as usize] {
            let writer = components.describe(writer as usize);
            let t = format!(
                "{}[{}] is {what} by the asynchronous proxy, but {writer} did not fence its write to it",
                w.buf, w.slot
            );
            return Err(self.with(FaultKind::ProxyFence, t));
        }
        Ok(())
    }

    fn with(&self, kind: FaultKind, message: String) -> Box<Trouble> {
        Box::new(Trouble {
            kind,
            message,
            other: Some(self.stmt),
            at: None,
        })
    }
}
