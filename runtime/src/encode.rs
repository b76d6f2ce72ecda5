//! Tensor maps as the copy engine reads them: the driver's encoder, which needs no device.
//!
//! The encoder is looked up in the driver's library, since drivers before CUDA 12 have none, and cudarc declares it only
//! where it is built for CUDA 12.

use crate::error::{Error, message};
use crate::map::TensorMap;
use crate::module::driver;
use cudarc::driver::{DriverError, sys};
use drawloom_lang::artifact::MAX_MAP_RANK;
use drawloom_lang::spec::Dtype;
use std::ffi::{c_int, c_void};
use std::sync::OnceLock;

/// A `CUtensorMap`: a kernel parameter of 128 bytes.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Encoded([u64; 16]);

impl Encoded {
    /// Room for one.
    pub(crate) const EMPTY: Encoded = Encoded([0; 16]);
}

const _: () = assert!(size_of::<Encoded>() == 128 && align_of::<Encoded>() == 64);

/// `cuTensorMapEncodeTiled`: map, element type, rank, address, extents, strides, box, element strides, interleave,
/// swizzle, L2 promotion, fill.
type Encode = unsafe extern "C" fn(
    *mut Encoded,
    c_int,
    u32,
    *mut c_void,
    *const u64,
    *const u64,
    *const u32,
    *const u32,
    c_int,
    c_int,
    c_int,
    c_int,
) -> sys::CUresult;

const INTERLEAVE_NONE: c_int = 0;
const L2_PROMOTION_256: c_int = 3;
/// Elements outside the tensor are read as 0.
const FILL_ZERO: c_int = 0;

/// `CUtensorMapDataType`.
fn element_type(dtype: Dtype) -> c_int {
    match dtype {
        Dtype::I32 => 3,
        Dtype::F16 => 6,
        Dtype::F32 => 7,
        Dtype::Bf16 => 9,
    }
}

/// `CUtensorMapSwizzle`.
fn swizzle(panel_bytes: u32) -> c_int {
    match panel_bytes {
        32 => 1,
        64 => 2,
        128 => 3,
        _ => 0,
    }
}

/// The encoder, if this driver has it. The driver's library is there: kernels are loaded.
fn encoder() -> Option<Encode> {
    static ENCODER: OnceLock<Option<Encode>> = OnceLock::new();
    *ENCODER.get_or_init(|| {
        // SAFETY: the symbol is a function of this signature since CUDA 12.0, and the library is never closed.
        let symbol = unsafe { driver()?.get::<Encode>(b"cuTensorMapEncodeTiled\0") };
        symbol.ok().map(|symbol| *symbol)
    })
}

/// Encodes a map.
///
/// # Errors
/// [`Error::Driver`].
pub(crate) fn encode(map: &TensorMap) -> Result<Encoded, Error> {
    const DOING: &str = "encoding a tensor map";
    let Some(encoder) = encoder() else {
        return Err(Error::Driver {
            doing: DOING,
            code: sys::CUresult::CUDA_ERROR_NOT_FOUND as u32,
            message: "the driver is older than CUDA 12 and has no tensor maps".to_owned(),
        });
    };
    const STEPS: [u32; MAX_MAP_RANK] = [1; MAX_MAP_RANK];
    let mut encoded = Encoded::EMPTY;
    // SAFETY: the map is aligned and of its size; the arrays have at least `rank` entries, the strides one less; the
    // encoder checks the numbers, writes the map and touches no memory of the device.
    let result = unsafe {
        encoder(
            &raw mut encoded,
            element_type(map.dtype),
            map.rank as u32,
            std::ptr::without_provenance_mut(map.address as usize),
            map.dims.as_ptr(),
            map.strides.as_ptr(),
            map.window.as_ptr(),
            STEPS.as_ptr(),
            INTERLEAVE_NONE,
            swizzle(map.panel_bytes),
            L2_PROMOTION_256,
            FILL_ZERO,
        )
    };
    match result {
        sys::CUresult::CUDA_SUCCESS => Ok(encoded),
        refused => Err(Error::Driver {
            doing: DOING,
            code: refused as u32,
            message: message(DriverError(refused)),
        }),
    }
}
