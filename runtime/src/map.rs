//! Tensor maps: what the copy engine must know of a tensor, as plain data, and why it may not be told.
//!
//! [`tensor_map`] is pure; [`crate::encode`] makes what the driver's encoder makes of it.

use crate::element::size_of;
use crate::tensor::{MAX_RANK, View};
use drawloom_lang::artifact::MAX_MAP_RANK;
use drawloom_lang::spec::Dtype;
use std::fmt;

/// Alignment in bytes of a mapped tensor's address and of its strides.
pub const MAP_ALIGN: u64 = 16;

/// Strides in bytes stay below this.
const MAX_STRIDE: u64 = 1 << 40;

/// Extents stay at or below this.
const MAX_EXTENT: u64 = u32::MAX as u64;

/// A tensor map before it is encoded. Dimensions are the tensor's axes from the last to the first; those from `rank` on
/// count for nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TensorMap {
    /// Element type.
    pub dtype: Dtype,
    /// Number of dimensions.
    pub rank: usize,
    /// Address of the first element.
    pub address: u64,
    /// Extents.
    pub dims: [u64; MAX_MAP_RANK],
    /// Strides in bytes of all dimensions but the first, which is contiguous.
    pub strides: [u64; MAX_MAP_RANK - 1],
    /// Extents of the box.
    pub window: [u32; MAX_MAP_RANK],
    /// Width of the swizzle in bytes: 32, 64 or 128.
    pub panel_bytes: u32,
}

impl TensorMap {
    /// No map.
    pub(crate) const NONE: TensorMap = TensorMap {
        dtype: Dtype::F32,
        rank: 0,
        address: 0,
        dims: [1; MAX_MAP_RANK],
        strides: [MAP_ALIGN; MAX_MAP_RANK - 1],
        window: [1; MAX_MAP_RANK],
        panel_bytes: 0,
    };
}

/// The box of a map: what the manifest says of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// The axis along which it has rows, in the tensor's order.
    pub row_axis: usize,
    /// Rows.
    pub rows: u32,
    /// Columns, along the last axis.
    pub cols: u32,
    /// Bytes of a row.
    pub panel_bytes: u32,
}

/// Why a tensor has no map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unmappable {
    /// Too few or too many axes.
    Rank(usize),
    /// The address is no multiple of [`MAP_ALIGN`].
    Address(u64),
    /// An axis has no element, or more than the engine counts.
    Extent {
        /// Its position.
        axis: usize,
        /// Its extent.
        given: u64,
    },
    /// A stride that the engine cannot make.
    Stride {
        /// The axis's position.
        axis: usize,
        /// In bytes; `None` where that overflows.
        given: Option<u64>,
    },
}

impl fmt::Display for Unmappable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unmappable::Rank(given) => write!(f, "it has {given} axes, not 2 to {MAX_MAP_RANK}"),
            Unmappable::Address(given) => write!(f, "its address {given:#x} is no multiple of {MAP_ALIGN}"),
            Unmappable::Extent { axis, given } => write!(f, "its axis {axis} has {given} elements"),
            Unmappable::Stride { axis, given } => {
                write!(f, "its axis {axis} has a stride of ")?;
                match given {
                    Some(given) => write!(f, "{given} bytes")?,
                    None => f.write_str("more bytes than there are")?,
                }
                write!(f, ", not a positive multiple of {MAP_ALIGN} below 2^40")
            }
        }
    }
}

/// The map of a tensor. The stride of an axis of extent 1 is never stepped by: whatever the caller gives, it is replaced
/// by one that the encoder takes.
///
/// # Errors
/// [`Unmappable`].
///
/// # Source
/// CUDA Driver API, `cuTensorMapEncodeTiled`. A stride of 0, which repeats an element, is left to kernels that read
/// without the engine: nothing promises that the encoder takes it.
pub fn tensor_map(view: &View, window: &Window) -> Result<TensorMap, Unmappable> {
    let rank = view.rank;
    if !(2..=MAX_MAP_RANK.min(MAX_RANK)).contains(&rank) || window.row_axis + 1 >= rank {
        return Err(Unmappable::Rank(rank));
    }
    if !view.address.is_multiple_of(MAP_ALIGN) {
        return Err(Unmappable::Address(view.address));
    }
    let mut map = TensorMap {
        dtype: view.dtype,
        rank,
        address: view.address,
        panel_bytes: window.panel_bytes,
        ..TensorMap::NONE
    };
    for axis in 0..rank {
        let given = view.shape[axis] as u64;
        if !(1..=MAX_EXTENT).contains(&given) {
            return Err(Unmappable::Extent { axis, given });
        }
        map.dims[rank - 1 - axis] = given;
    }
    for axis in 0..rank - 1 {
        let dimension = rank - 1 - axis;
        let bytes = (view.strides[axis] as u64).checked_mul(size_of(view.dtype));
        map.strides[dimension - 1] = match bytes {
            _ if map.dims[dimension] == 1 => (map.dims[0] * size_of(view.dtype)).next_multiple_of(MAP_ALIGN),
            Some(bytes) if bytes.is_multiple_of(MAP_ALIGN) && (1..MAX_STRIDE).contains(&bytes) => bytes,
            given => return Err(Unmappable::Stride { axis, given }),
        };
    }
    map.window[0] = window.cols;
    map.window[rank - 1 - window.row_axis] = window.rows;
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Place;

    const WINDOW: Window = Window {
        row_axis: 2,
        rows: 128,
        cols: 64,
        panel_bytes: 128,
    };

    fn view(shape: &[usize], strides: &[usize], address: u64) -> View {
        let fixed = |from: &[usize]| std::array::from_fn(|n| from.get(n).copied().unwrap_or(0));
        View {
            dtype: Dtype::Bf16,
            rank: shape.len(),
            shape: fixed(shape),
            strides: fixed(strides),
            address,
            len: usize::MAX,
            place: Place::Raw,
        }
    }

    #[test]
    fn axes_are_reversed_and_strides_are_bytes() {
        // Stored as [b, i, h, d], seen as [b, h, i, d].
        let map = tensor_map(&view(&[2, 16, 8192, 128], &[16_777_216, 128, 2048, 1], 4096), &WINDOW);
        let expected = TensorMap {
            dtype: Dtype::Bf16,
            rank: 4,
            address: 4096,
            dims: [128, 8192, 16, 2, 1],
            strides: [4096, 256, 33_554_432, 16],
            window: [64, 128, 1, 1, 1],
            panel_bytes: 128,
        };
        assert_eq!(map, Ok(expected));
    }

    #[test]
    fn a_stride_that_is_never_stepped_by_is_replaced() {
        let map = tensor_map(&view(&[1, 1, 5, 40], &[3, 0, 40, 1], 0), &WINDOW).expect("it can be mapped");
        assert_eq!(map.strides, [80, 80, 80, 16]);
        let map = tensor_map(&view(&[1, 1, 5, 36], &[3, usize::MAX, 40, 1], 0), &WINDOW).expect("it can be mapped");
        assert_eq!(
            map.strides,
            [80, 80, 80, 16],
            "36 elements are rounded up to a multiple of 16 bytes"
        );
    }

    #[test]
    fn what_the_engine_cannot_read_is_refused_with_numbers() {
        let told = |view: View| tensor_map(&view, &WINDOW).expect_err("it cannot be mapped").to_string();
        let good = |address| view(&[2, 4, 8, 64], &[2048, 512, 64, 1], address);
        assert!(tensor_map(&good(16), &WINDOW).is_ok());
        assert_eq!(told(good(8)), "its address 0x8 is no multiple of 16");
        let mut bad = good(0);
        bad.shape[1] = 0;
        assert_eq!(told(bad), "its axis 1 has 0 elements");
        bad = good(0);
        bad.shape[2] = 1 << 33;
        assert_eq!(told(bad), "its axis 2 has 8589934592 elements");
        for (stride, words) in [
            (68, "136 bytes"),
            (0, "0 bytes"),
            (1 << 39, "1099511627776 bytes"),
            (usize::MAX, "more bytes than there are"),
        ] {
            bad = good(0);
            bad.strides[2] = stride;
            let expected = format!("its axis 2 has a stride of {words}, not a positive multiple of 16 below 2^40");
            assert_eq!(told(bad), expected);
        }
        assert_eq!(told(view(&[64], &[1], 0)), "it has 1 axes, not 2 to 5");
        assert_eq!(told(view(&[1; 6], &[1; 6], 0)), "it has 6 axes, not 2 to 5");
    }
}
