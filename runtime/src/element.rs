//! Element types of tensors, host memory of any of them, and run-time scalars.

use cudarc::driver::DeviceRepr;
use drawloom_lang::spec::Dtype;
use half::{bf16, f16};

mod sealed {
    pub trait Sealed {}
}

/// Element types of tensors.
pub trait Element: DeviceRepr + Copy + Send + Sync + 'static + sealed::Sealed {
    /// The language's name for it.
    const DTYPE: Dtype;
    #[doc(hidden)]
    fn host(slice: &[Self]) -> HostRef<'_>;
    #[doc(hidden)]
    fn host_mut(slice: &mut [Self]) -> HostMut<'_>;
}

/// Host memory of any element type.
#[derive(Clone, Copy, Debug)]
pub enum HostRef<'a> {
    /// IEEE binary16.
    F16(&'a [f16]),
    /// bfloat16.
    Bf16(&'a [bf16]),
    /// IEEE binary32.
    F32(&'a [f32]),
    /// Signed 32-bit integers.
    I32(&'a [i32]),
}

/// Writable host memory of any element type.
#[derive(Debug)]
pub enum HostMut<'a> {
    /// IEEE binary16.
    F16(&'a mut [f16]),
    /// bfloat16.
    Bf16(&'a mut [bf16]),
    /// IEEE binary32.
    F32(&'a mut [f32]),
    /// Signed 32-bit integers.
    I32(&'a mut [i32]),
}

macro_rules! element {
    ($($ty:ty, $variant:ident;)*) => {$(
        impl sealed::Sealed for $ty {}
        impl Element for $ty {
            const DTYPE: Dtype = Dtype::$variant;
            fn host(slice: &[Self]) -> HostRef<'_> {
                HostRef::$variant(slice)
            }
            fn host_mut(slice: &mut [Self]) -> HostMut<'_> {
                HostMut::$variant(slice)
            }
        }
    )*};
}
element!(f16, F16; bf16, Bf16; f32, F32; i32, I32;);

/// Size in bytes of an element.
pub fn size_of(dtype: Dtype) -> u64 {
    dtype.bytes().into()
}

/// A run-time scalar.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Scalar {
    /// Real.
    F32(f32),
    /// Integer.
    I32(i32),
}

impl Scalar {
    /// Its type.
    pub fn dtype(self) -> Dtype {
        match self {
            Scalar::F32(_) => Dtype::F32,
            Scalar::I32(_) => Dtype::I32,
        }
    }
}

impl From<f32> for Scalar {
    fn from(value: f32) -> Scalar {
        Scalar::F32(value)
    }
}

impl From<i32> for Scalar {
    fn from(value: i32) -> Scalar {
        Scalar::I32(value)
    }
}
