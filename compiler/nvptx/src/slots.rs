//! Which registers of a lane hold a fragment.
//!
//! Whatever the layout, one lane holds a matrix of *slots*: row slots times column slots, stored row by row. Broadcasting
//! is picking slot 0 along a dimension of one slot, so every elementwise operation is a loop over slots and no operation
//! needs to know a layout but those that ask where a slot lies ([`Emitter::row_of_slot`], [`Emitter::col_of_slot`]).
//!
//! Where slots come in pairs of adjacent columns, 16-bit elements are kept two in a 32-bit register, the even column in
//! the low half: this is what `mma.sync` takes and `cvt.rn.bf16x2.f32` yields.

use drawloom_kernel::ir::{Dtype, Frag, Layout};

use crate::build::Int;
use crate::emitter::{Emitter, LaneKey};
use crate::error::{Result, malformed, multiple};

/// The slots of a lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Slots {
    pub rows: u32,
    pub cols: u32,
}

impl Slots {
    /// The slots of a fragment.
    pub fn of(ty: &Frag) -> Result<Slots> {
        if ty.is_scalar() {
            return Ok(Slots { rows: 1, cols: 1 });
        }
        match ty.layout {
            Layout::Uniform => malformed(format!("a uniform fragment of {} x {}", ty.rows, ty.cols)),
            Layout::Mma => {
                if ty.rows > 1 {
                    multiple("the row count of a fragment in the mma layout", ty.rows, 16)?;
                }
                if ty.cols > 1 && ty.cols != 4 {
                    multiple("the column count of a fragment in the mma layout", ty.cols, 8)?;
                }
                let rows = if ty.rows == 1 { 1 } else { ty.rows / 8 };
                let cols = if ty.cols == 1 || ty.cols == 4 { 1 } else { ty.cols / 4 };
                Ok(Slots { rows, cols })
            }
            Layout::Lanes { vec: 0 } => malformed("runs of no element"),
            Layout::Lanes { vec } => {
                let cols = if ty.cols == 1 {
                    1
                } else {
                    ty.cols.div_ceil(32 * vec) * vec
                };
                Ok(Slots { rows: ty.rows, cols })
            }
        }
    }
    /// Slots in all.
    pub fn count(self) -> u32 {
        self.rows * self.cols
    }
    /// Number of the slot at a place of a fragment that this one is broadcast to.
    pub fn at(self, r: u32, c: u32) -> usize {
        let (r, c) = (if self.rows == 1 { 0 } else { r }, if self.cols == 1 { 0 } else { c });
        (r * self.cols + c) as usize
    }
    /// All slots, row by row.
    pub fn iter(self) -> impl Iterator<Item = (u32, u32)> {
        (0..self.rows).flat_map(move |r| (0..self.cols).map(move |c| (r, c)))
    }
    /// Whether elements of this type lie two in a register.
    pub fn packed(self, dtype: Dtype) -> bool {
        dtype.bytes() == 2 && self.cols.is_multiple_of(2)
    }
}

/// The column of column slot `c`, less that of the lane's first.
pub(crate) fn constant_column(layout: Layout, c: u32) -> u32 {
    match layout {
        Layout::Uniform => 0,
        Layout::Mma => c / 2 * 8 + c % 2,
        Layout::Lanes { vec } => c / vec * 32 * vec + c % vec,
    }
}

impl<'c> Emitter<'c, '_> {
    /// The row of row slot `r` in a layout.
    pub fn row_of_slot(&mut self, layout: Layout, r: u32) -> Int<'c> {
        match layout {
            Layout::Uniform => self.b.c32(0),
            Layout::Mma => {
                let quad = self.lane_part(LaneKey::QuadRow);
                self.b.add(quad, self.b.c32(i64::from(8 * r)))
            }
            Layout::Lanes { .. } => self.b.c32(i64::from(r)),
        }
    }
    /// The column of column slot `c` in a layout.
    pub fn col_of_slot(&mut self, layout: Layout, c: u32) -> Int<'c> {
        let first = match layout {
            Layout::Uniform => self.b.c32(0),
            Layout::Mma => self.lane_part(LaneKey::QuadCol),
            Layout::Lanes { vec } => self.lane_part(LaneKey::Run { vec }),
        };
        self.b.add(first, self.b.c32(i64::from(constant_column(layout, c))))
    }
    /// Whether this lane is the one to act for `ty` where several lanes hold the same element (`None`: each element has
    /// one lane).
    pub fn owns(&mut self, ty: &Frag) -> Option<Int<'c>> {
        let zero = self.b.c32(0);
        let key = if ty.is_scalar() {
            LaneKey::Lane
        } else {
            match ty.layout {
                Layout::Uniform => LaneKey::Lane,
                Layout::Mma if ty.cols == 1 => LaneKey::QuadCol,
                Layout::Mma if ty.rows == 1 => LaneKey::QuadRow,
                Layout::Mma => return None,
                Layout::Lanes { .. } if ty.cols == 1 => LaneKey::Lane,
                Layout::Lanes { .. } => return None,
            }
        };
        let part = self.lane_part(key);
        Some(self.b.icmp(inkwell::IntPredicate::EQ, part, zero))
    }
    /// Whether column slot `c` of `ty` lies inside it: only rows in the lanes layout have lanes to spare (`None`: yes).
    pub fn inside(&mut self, ty: &Frag, c: u32) -> Option<Int<'c>> {
        match ty.layout {
            Layout::Lanes { vec } if ty.cols > 1 && (c / vec + 1) * 32 * vec > ty.cols => {
                let col = self.col_of_slot(ty.layout, c);
                let cols = self.b.c32(i64::from(ty.cols));
                Some(self.b.icmp(inkwell::IntPredicate::ULT, col, cols))
            }
            Layout::Uniform | Layout::Mma | Layout::Lanes { .. } => None,
        }
    }
}
