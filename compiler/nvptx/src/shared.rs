//! Shared memory: addresses, `ldmatrix`, and elementwise loads and stores.
//!
//! Rows of a swizzled buffer have their 16-byte chunks permuted by bits of the row number. All accesses here go to rows
//! `8 * k + r` where `r` depends on the lane alone, so the permutation is an exclusive or of lane-dependent bits with a
//! constant chunk number. The address of an access is therefore one of at most eight pointers per window (one per value
//! of the constant's low bits) plus a constant that the instruction carries: see [`Window`].
//!
//! A buffer in panels is several such matrices behind each other, each as wide as the permutation reaches; the constant
//! then names the panel too.

use std::collections::BTreeMap;

use drawloom_kernel::ir::{Buffer, BufferLayout, Frag, Layout, SharedView, Val};
use inkwell::types::BasicTypeEnum;

use crate::build::{Any, Int, Ptr, SHARED};
use crate::emitter::{Emitter, LaneKey};
use crate::error::{Result, malformed, multiple};
use crate::slots::Slots;

/// Which place of a matrix a lane addresses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum MatrixLanes {
    /// `ldmatrix` of four 8 x 8 matrices, two below each other, then two beside them.
    RowsFirst,
    /// `ldmatrix` of four 8 x 8 matrices, two beside each other, then two below them.
    ChunksFirst,
    /// The pair of adjacent columns of the mma layout, 16-bit elements.
    Pair16,
    /// The same, 32-bit elements.
    Pair32,
}

/// How the rows of a buffer lie in its slots.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Form {
    /// Bytes from a row to the next: a row, or the part of it that a panel holds.
    pub pitch: u32,
    /// Low bits of the chunk number that are permuted.
    pub bits: u32,
    /// Bytes from a panel to the next, if rows are cut.
    pub panels: Option<u32>,
}

impl Form {
    /// The form of a buffer.
    pub fn of(buffer: &Buffer) -> Result<Form> {
        let row_bytes = buffer.row_bytes();
        let (pitch, panels) = match buffer.layout {
            BufferLayout::Rows => {
                return Ok(Form {
                    pitch: row_bytes,
                    bits: 0,
                    panels: None,
                });
            }
            BufferLayout::Swizzled => (row_bytes, None),
            BufferLayout::Panels => match buffer.panel_bytes() {
                Some(pitch) => (pitch, Some(buffer.rows * pitch)),
                None => {
                    return malformed(format!("{} cannot be cut into panels", buffer.name));
                }
            },
        };
        multiple(
            &format!("the row size in bytes of the swizzled buffer {}", buffer.name),
            pitch,
            16,
        )?;
        // As many as `drawloom_kernel::ir::swizzle` permutes.
        let bits = (pitch / 16).trailing_zeros().min(3);
        Ok(Form { pitch, bits, panels })
    }
    /// Where a panel lies, and the position in it of byte `byte` of a row.
    pub fn cut(self, byte: u32) -> (u32, u32) {
        match self.panels {
            Some(distance) => (byte / self.pitch * distance, byte % self.pitch),
            None => (0, byte),
        }
    }
}

/// Where a view lies in shared memory.
#[derive(Clone, Copy)]
pub(crate) struct ViewBase<'c> {
    /// Address of its first row, less `constant`.
    pub address: Int<'c>,
    /// The part of the address that is known now, and that instructions can carry.
    pub constant: u32,
    /// First row, where it is not known to be a multiple of 8.
    pub odd_row: Option<Int<'c>>,
    /// How rows lie.
    pub form: Form,
}

/// A window of a shared buffer, and the pointers into it that were made so far.
pub(crate) struct Window<'c> {
    base: ViewBase<'c>,
    /// First chunk.
    chunk: u32,
    /// By lanes, and the two parts of the chunk number that [`Emitter::place`] tells apart.
    pointers: BTreeMap<(MatrixLanes, u32, u32), Ptr<'c>>,
}

impl<'c> Emitter<'c, '_> {
    /// Where a view lies.
    pub fn view_base(&mut self, v: &SharedView) -> Result<ViewBase<'c>> {
        let Some(buffer) = self.kernel.buffers.get(v.buf.index()) else {
            return malformed(format!("{} is not declared", v.buf));
        };
        let form = Form::of(buffer)?;
        let mut constant = self.offsets[v.buf.index()];
        let mut address = self.shared;
        if let Some(slot) = v.slot {
            match self.known(slot)? {
                Some(n) if n < buffer.slots => constant += n * buffer.slot_bytes(),
                Some(_) | None => {
                    let bytes = self.b.mul(self.int(slot)?, self.b.c32(i64::from(buffer.slot_bytes())));
                    address = self.b.add(address, bytes);
                }
            }
        }
        let mut odd_row = None;
        if let Some(row) = v.row {
            let n = self.int(row)?;
            address = self.b.add(address, self.b.mul(n, self.b.c32(i64::from(form.pitch))));
            if form.bits > 0 && self.low_zeros(row) < 3 {
                odd_row = Some(n);
            }
        }
        Ok(ViewBase {
            address,
            constant,
            odd_row,
            form,
        })
    }
    /// The value of an `i32` scalar that is a constant and not negative.
    pub fn known(&self, v: Val) -> Result<Option<u32>> {
        Ok(self
            .int(v)?
            .get_sign_extended_constant()
            .and_then(|n| u32::try_from(n).ok()))
    }
    /// The position, from the beginning of row `row`, of byte `byte` of that row, whose number in the buffer is
    /// `whole_row`.
    pub fn in_row(&self, form: Form, byte: Int<'c>, whole_row: Int<'c>) -> Int<'c> {
        let b = &self.b;
        let (panel, byte) = match form.panels {
            Some(distance) => {
                let panel = b.lshr(byte, form.pitch.trailing_zeros());
                let within = b.and(byte, b.c32(i64::from(form.pitch) - 1));
                (Some(b.mul(panel, b.c32(i64::from(distance)))), within)
            }
            None => (None, byte),
        };
        let moved = if form.bits == 0 {
            byte
        } else {
            let mask = b.c32((1 << form.bits) - 1);
            b.xor(byte, b.shl(b.and(b.lshr(whole_row, 3 - form.bits), mask), 4))
        };
        panel.map_or(moved, |p| b.add(p, moved))
    }
    /// A window that begins at a whole chunk.
    pub fn window(&mut self, v: &SharedView) -> Result<Window<'c>> {
        let base = self.view_base(v)?;
        let first = v.col * self.kernel.buffers[v.buf.index()].dtype.bytes();
        if !first.is_multiple_of(16) {
            multiple("the first byte of a window's row", first, 16)?;
        }
        Ok(Window {
            base,
            chunk: first / 16,
            pointers: BTreeMap::new(),
        })
    }
    /// What lane-dependent row, chunk (0 or 1) and byte a lane addresses.
    fn matrix_place(&self, lanes: MatrixLanes) -> (Int<'c>, Int<'c>, Int<'c>) {
        let (b, lane) = (&self.b, self.lane);
        let bit = |n: u32| b.and(b.lshr(lane, n), b.c32(1));
        match lanes {
            MatrixLanes::RowsFirst => (b.and(lane, b.c32(15)), bit(4), b.c32(0)),
            MatrixLanes::ChunksFirst => (b.or(b.and(lane, b.c32(7)), b.shl(bit(4), 3)), bit(3), b.c32(0)),
            MatrixLanes::Pair16 => (b.lshr(lane, 2), b.c32(0), b.shl(b.and(lane, b.c32(3)), 2)),
            MatrixLanes::Pair32 => (b.lshr(lane, 2), bit(1), b.shl(b.and(lane, b.c32(1)), 3)),
        }
    }
    /// Byte offset of the place that this lane addresses in the chunk `chunk` and the next, in rows from a multiple of 8.
    pub fn matrix_lane(&mut self, lanes: MatrixLanes, form: Form, chunk: u32) -> Int<'c> {
        let row = self.matrix_place(lanes).0;
        self.matrix_offset(lanes, row, form, chunk)
    }
    /// The same, where the row that this lane addresses has the number `whole_row` in the buffer.
    fn matrix_offset(&self, lanes: MatrixLanes, whole_row: Int<'c>, form: Form, chunk: u32) -> Int<'c> {
        let (row, own, byte) = self.matrix_place(lanes);
        let b = &self.b;
        let byte = b.add(b.shl(b.add(own, b.c32(i64::from(chunk))), 4), byte);
        b.add(
            b.mul(row, b.c32(i64::from(form.pitch))),
            self.in_row(form, byte, whole_row),
        )
    }
    /// Address of this lane's place in the rows from `row` (a multiple of 8) and chunk `chunk` of a window.
    pub fn place(&mut self, w: &mut Window<'c>, lanes: MatrixLanes, row: u32, chunk: u32) -> Ptr<'c> {
        let chunk = w.chunk + chunk;
        let ViewBase {
            address,
            constant,
            odd_row,
            form,
        } = w.base;
        let (panel, first_byte) = form.cut(16 * chunk);
        // The part of the chunk number that the permutation touches selects the pointer; the rest is a constant. Two odd
        // chunks beside each other may differ in all bits, so their own number goes into the permutation.
        let touched = (first_byte / 16) & ((1 << form.bits) - 1);
        let whole = chunk.is_multiple_of(2) || lanes == MatrixLanes::Pair16 || form.bits == 0;
        let (own, moved, rest) = if whole {
            (0, touched, panel + first_byte - 16 * touched)
        } else {
            (chunk, 0, 0)
        };
        let constant = constant + row * form.pitch + rest;
        if let Some(p) = w.pointers.get(&(lanes, own, moved)) {
            return self.b.offset_by(*p, constant);
        }
        let offset = match odd_row {
            None => self.lane_part(LaneKey::Matrix {
                lanes,
                form,
                chunk: own,
            }),
            Some(first) => {
                let whole_row = self.b.add(first, self.matrix_place(lanes).0);
                self.matrix_offset(lanes, whole_row, form, own)
            }
        };
        // Rows begin at multiples of the permuted chunks, so that the constant part is an exclusive or with the address.
        let first = self.b.add(address, offset);
        let p = self.b.shared_ptr(self.b.xor(first, self.b.c32(i64::from(16 * moved))));
        w.pointers.insert((lanes, own, moved), p);
        self.b.offset_by(p, constant)
    }
    /// Loads `count` (1, 2 or 4) 8 x 8 matrices of 16-bit elements, one register each.
    pub fn ldmatrix(&mut self, p: Ptr<'c>, count: u32, transposed: bool) -> Vec<Any<'c>> {
        let name = match (count, transposed) {
            (4, false) => "llvm.nvvm.ldmatrix.sync.aligned.m8n8.x4.b16",
            (4, true) => "llvm.nvvm.ldmatrix.sync.aligned.m8n8.x4.trans.b16",
            (_, false) => "llvm.nvvm.ldmatrix.sync.aligned.m8n8.x2.b16",
            (_, true) => "llvm.nvvm.ldmatrix.sync.aligned.m8n8.x2.trans.b16",
        };
        let v = self.b.call(name, &[self.b.ptr(SHARED).into()], &[p.into()]);
        (0..count.max(2)).map(|i| self.b.field(v, i)).collect()
    }
    /// Address of the element in row `row` and column `col` of a view.
    fn element(&mut self, v: &SharedView, row: Int<'c>, col: Int<'c>) -> Result<Ptr<'c>> {
        let ViewBase {
            address,
            constant,
            form,
            ..
        } = self.view_base(v)?;
        let bytes = self.kernel.buffers[v.buf.index()].dtype.bytes();
        let b = &self.b;
        let byte = b.mul(b.add(col, b.c32(i64::from(v.col))), b.c32(i64::from(bytes)));
        let whole_row = match v.row {
            Some(first) => b.add(row, self.int(first)?),
            None => row,
        };
        let offset = b.add(
            b.mul(row, b.c32(i64::from(form.pitch))),
            self.in_row(form, byte, whole_row),
        );
        Ok(b.offset_by(b.shared_ptr(b.add(address, offset)), constant))
    }
    /// Whether accesses to a view can go by pairs of columns.
    fn by_pairs(&self, v: &SharedView, ty: &Frag) -> bool {
        let bytes = ty.dtype.bytes();
        ty.layout == Layout::Mma
            && ty.rows > 1
            && ty.cols >= 8
            && (bytes == 2 || bytes == 4)
            && (v.col * bytes).is_multiple_of(16)
    }
    /// Checks that a view is what it is used as.
    fn check_view(&self, v: &SharedView, ty: &Frag) -> Result<()> {
        let Some(buffer) = self.kernel.buffers.get(v.buf.index()) else {
            return malformed(format!("{} is not declared", v.buf));
        };
        if (v.rows, v.cols) != (ty.rows, ty.cols) || buffer.dtype != ty.dtype {
            return malformed(format!(
                "a {} x {} {} window of {} is used as a {} x {} {} fragment",
                v.rows,
                v.cols,
                buffer.dtype.name(),
                buffer.name,
                ty.rows,
                ty.cols,
                ty.dtype.name()
            ));
        }
        Ok(())
    }
    /// Reads a window into registers.
    pub fn load_shared(&mut self, dst: Val, v: &SharedView) -> Result<()> {
        self.apart = true;
        let ty = self.ty(dst)?;
        self.check_view(v, &ty)?;
        if self.by_pairs(v, &ty) {
            return if ty.dtype.bytes() == 2 {
                self.load_matrix(dst, v, &ty)
            } else {
                self.load_pairs(dst, v, &ty)
            };
        }
        let slots = Slots::of(&ty)?;
        let mut out = Vec::new();
        for (r, c) in slots.iter() {
            let (row, col) = (self.row_of_slot(ty.layout, r), self.col_of_slot(ty.layout, c));
            let col = match self.inside(&ty, c) {
                Some(inside) => self.b.select_int(inside, col, self.b.c32(0)),
                None => col,
            };
            let p = self.element(v, row, col)?;
            out.push(self.b.load(self.scalar_type(ty.dtype), p, ty.dtype.bytes()));
        }
        self.define_scalars(dst, out)
    }
    fn load_matrix(&mut self, dst: Val, v: &SharedView, ty: &Frag) -> Result<()> {
        let slots = Slots::of(ty)?;
        let mut w = self.window(v)?;
        let mut out = vec![None; (slots.count() / 2) as usize];
        for atom in 0..ty.rows / 16 {
            for pair in 0..ty.cols.div_ceil(16) {
                let whole = 16 * pair + 8 < ty.cols;
                let p = self.place(&mut w, MatrixLanes::RowsFirst, 16 * atom, 2 * pair);
                let m = self.ldmatrix(p, if whole { 4 } else { 2 }, false);
                for (i, r) in m.into_iter().enumerate() {
                    let (row, col) = (2 * atom + (i as u32 & 1), 4 * pair + 2 * (i as u32 >> 1));
                    out[slots.at(row, col) / 2] = Some(r);
                }
            }
        }
        self.define(dst, out.into_iter().flatten().collect())
    }
    /// Stores a fragment of 16-bit elements by `stmatrix`: 16 rows of two column atoms (one, if it is the last) at once.
    fn store_matrix(&mut self, w: &mut Window<'c>, ty: &Frag, value: Val) -> Result<()> {
        let slots = Slots::of(ty)?;
        let registers = self.registers(value)?;
        for atom in 0..ty.rows / 16 {
            for pair in 0..ty.cols.div_ceil(16) {
                let (count, name) = if 16 * pair + 8 < ty.cols {
                    (4, "llvm.nvvm.stmatrix.sync.aligned.m8n8.x4.b16")
                } else {
                    (2, "llvm.nvvm.stmatrix.sync.aligned.m8n8.x2.b16")
                };
                let p = self.place(w, MatrixLanes::RowsFirst, 16 * atom, 2 * pair);
                let mut args: Vec<Any<'c>> = vec![p.into()];
                args.extend((0..count).map(|i| registers[slots.at(2 * atom + (i & 1), 4 * pair + 2 * (i >> 1)) / 2]));
                self.b.call_void(name, &[self.b.ptr(SHARED).into()], &args);
            }
        }
        Ok(())
    }
    fn load_pairs(&mut self, dst: Val, v: &SharedView, ty: &Frag) -> Result<()> {
        let slots = Slots::of(ty)?;
        let mut w = self.window(v)?;
        let scalar = self.scalar_type(ty.dtype);
        let pair = match scalar {
            BasicTypeEnum::FloatType(t) => t.vec_type(2),
            _ => self.b.i32().vec_type(2),
        };
        let mut out = Vec::new();
        for (r, c) in slots.iter().filter(|(_, c)| c % 2 == 0) {
            let p = self.place(&mut w, MatrixLanes::Pair32, 8 * r, c);
            let two = self.b.load(pair.into(), p, 8);
            out.push(self.b.lane(two, 0));
            out.push(self.b.lane(two, 1));
        }
        self.define_scalars(dst, out)
    }
    /// Writes registers to a window.
    pub fn store_shared(&mut self, v: &SharedView, value: Val) -> Result<()> {
        self.apart = true;
        let ty = self.ty(value)?;
        self.check_view(v, &ty)?;
        let slots = Slots::of(&ty)?;
        if self.by_pairs(v, &ty) {
            let mut w = self.window(v)?;
            if ty.dtype.bytes() == 2 && self.target.store_matrix && w.base.form.pitch.is_multiple_of(16) {
                return self.store_matrix(&mut w, &ty, value);
            }
            let registers = self.registers(value)?;
            for (r, c) in slots.iter().filter(|(_, c)| c % 2 == 0) {
                if ty.dtype.bytes() == 2 {
                    let p = self.place(&mut w, MatrixLanes::Pair16, 8 * r, c / 2);
                    self.b.store(p, registers[slots.at(r, c) / 2], 4);
                } else {
                    let p = self.place(&mut w, MatrixLanes::Pair32, 8 * r, c);
                    let at = slots.at(r, c);
                    self.b.store(p, self.b.vector(&registers[at..at + 2]), 8);
                }
            }
            return Ok(());
        }
        let scalars = self.scalars(value)?;
        let owner = self.owns(&ty);
        for (r, c) in slots.iter() {
            let (row, col) = (self.row_of_slot(ty.layout, r), self.col_of_slot(ty.layout, c));
            let inside = self.inside(&ty, c);
            let guard = self.both(owner, inside);
            let p = self.element(v, row, col)?;
            let stored = scalars[slots.at(r, c)];
            self.guarded(guard, |e| e.b.store(p, stored, ty.dtype.bytes()));
        }
        Ok(())
    }
}
