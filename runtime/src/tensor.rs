//! Views of the caller's memory: where an argument lies, its shape, its strides.
//!
//! A view borrows device memory of cudarc or a host slice. It is checked against its memory when it is made, and against
//! the spec when it is used. Strides are in elements, on any axis order; the last axis must be contiguous when it reaches
//! a kernel.

use crate::element::{Element, HostMut, HostRef, size_of};
use crate::error::Error;
use crate::memory::{DeviceMemory, DeviceMemoryMut, Sink, Source};
use cudarc::driver::{CudaContext, CudaStream, SyncOnDrop};
use drawloom_lang::spec::Dtype;
use std::sync::Arc;

/// Most axes of a tensor.
pub const MAX_RANK: usize = 8;

/// Where memory is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Host memory.
    Host,
    /// Device memory of the context with this identity (the address of its `CUcontext`) on this device.
    Device {
        /// `CUcontext`.
        context: usize,
        /// Ordinal of the device.
        ordinal: usize,
    },
    /// Device memory of the stream's context, by the promise of who gave the pointer.
    Raw,
}

impl Place {
    pub(crate) fn of(context: &Arc<CudaContext>) -> Place {
        Place::Device {
            context: context.cu_ctx() as usize,
            ordinal: context.ordinal(),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Place::Host => "host",
            Place::Device { .. } | Place::Raw => "device",
        }
    }
}

/// Everything about an argument but its lifetime: what the checks see.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct View {
    /// Element type.
    pub dtype: Dtype,
    /// Number of axes.
    pub rank: usize,
    /// Sizes; the first `rank` count.
    pub shape: [usize; MAX_RANK],
    /// Strides in elements; the first `rank` count.
    pub strides: [usize; MAX_RANK],
    /// Address of the first element.
    pub address: u64,
    /// Elements of memory from there.
    pub len: usize,
    /// Where.
    pub place: Place,
}

impl View {
    /// Bytes from the first to one past the last element reached; 0 if there is no element.
    pub fn extent(&self) -> u64 {
        extent(
            &self.shape[..self.rank.min(MAX_RANK)],
            &self.strides[..self.rank.min(MAX_RANK)],
        )
        .and_then(|elements| (elements as u64).checked_mul(size_of(self.dtype)))
        .unwrap_or(u64::MAX)
    }
}

/// Elements from the first to one past the last reached; `None` if that overflows.
pub(crate) fn extent(shape: &[usize], strides: &[usize]) -> Option<usize> {
    if shape.contains(&0) {
        return Some(0);
    }
    let mut last = 0usize;
    for (size, stride) in shape.iter().zip(strides) {
        last = last.checked_add((size - 1).checked_mul(*stride)?)?;
    }
    last.checked_add(1)
}

/// An input: borrowed memory with a shape and strides. `N` is the number of axes.
pub struct Tensor<'a, T, const N: usize> {
    shape: [usize; N],
    strides: [usize; N],
    source: Source<'a, T>,
}

/// An output: exclusively borrowed memory with a shape and strides. `N` is the number of axes.
pub struct TensorMut<'a, T, const N: usize> {
    shape: [usize; N],
    strides: [usize; N],
    sink: Sink<'a, T>,
}

/// Strides of a dense row-major tensor, in elements; saturating, so that the check of the extent finds an overflow.
fn dense<const N: usize>(shape: [usize; N]) -> [usize; N] {
    let mut strides = [1usize; N];
    for axis in (1..N).rev() {
        strides[axis - 1] = strides[axis].saturating_mul(shape[axis].max(1));
    }
    strides
}

pub(crate) fn check_extent(shape: &[usize], strides: &[usize], len: usize, argument: &str) -> Result<(), Error> {
    let needed = extent(shape, strides);
    if needed.is_none_or(|needed| needed > len) {
        let needed = needed.map_or_else(|| "more than any memory's".to_owned(), |needed| needed.to_string());
        return Err(Error::OutOfBounds {
            argument: argument.to_owned(),
            needed,
            given: len,
        });
    }
    Ok(())
}

macro_rules! layout_methods {
    () => {
        /// Swaps two axes; the memory stays as it is.
        ///
        /// # Panics
        /// If there is no axis `a` or `b`, as indexing does.
        pub fn transpose(mut self, a: usize, b: usize) -> Self {
            self.shape.swap(a, b);
            self.strides.swap(a, b);
            self
        }

        /// Sizes.
        pub fn shape(&self) -> [usize; N] {
            self.shape
        }

        /// Strides in elements.
        pub fn strides(&self) -> [usize; N] {
            self.strides
        }

        /// The same memory with other strides, in elements (0 repeats an element along an axis of an input).
        ///
        /// # Errors
        /// [`Error::OutOfBounds`] if the shape then reaches beyond the memory.
        pub fn with_strides(mut self, strides: [usize; N]) -> Result<Self, Error> {
            check_extent(&self.shape, &strides, self.len(), "tensor")?;
            self.strides = strides;
            Ok(self)
        }
    };
}

impl<'a, T: Element, const N: usize> Tensor<'a, T, N> {
    /// Dense row-major device memory: a `&CudaSlice`, or a `CudaView` of a part of one.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`] if the memory has fewer elements than the shape.
    pub fn new(memory: impl DeviceMemory<'a, T>, shape: [usize; N]) -> Result<Self, Error> {
        let view = memory.view();
        let strides = dense(shape);
        check_extent(&shape, &strides, view.len(), "tensor")?;
        Ok(Tensor {
            shape,
            strides,
            source: Source::Device(view),
        })
    }

    /// Dense row-major host memory, for the CPU form.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`] if the slice has fewer elements than the shape.
    pub fn host(slice: &'a [T], shape: [usize; N]) -> Result<Self, Error> {
        let strides = dense(shape);
        check_extent(&shape, &strides, slice.len(), "tensor")?;
        Ok(Tensor {
            shape,
            strides,
            source: Source::Host(slice),
        })
    }

    /// Device memory of `len` elements at `address`, with explicit strides in elements.
    ///
    /// # Safety
    /// The memory must lie in the context of the stream that it is launched on, be readable there until the launch has
    /// finished, and not be written meanwhile.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`] if the shape reaches beyond `len`.
    pub unsafe fn from_raw(address: u64, len: usize, shape: [usize; N], strides: [usize; N]) -> Result<Self, Error> {
        check_extent(&shape, &strides, len, "tensor")?;
        Ok(Tensor {
            shape,
            strides,
            source: Source::Raw(address, len),
        })
    }

    layout_methods!();

    fn len(&self) -> usize {
        self.source.len()
    }
}

impl<'a, T: Element, const N: usize> TensorMut<'a, T, N> {
    /// Dense row-major device memory: a `&mut CudaSlice`, or a `CudaViewMut` of a part of one.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`] if the memory has fewer elements than the shape.
    pub fn new(memory: impl DeviceMemoryMut<'a, T>, shape: [usize; N]) -> Result<Self, Error> {
        let view = memory.view_mut();
        let strides = dense(shape);
        check_extent(&shape, &strides, view.len(), "tensor")?;
        Ok(TensorMut {
            shape,
            strides,
            sink: Sink::Device(view),
        })
    }

    /// Dense row-major host memory, for the CPU form.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`] if the slice has fewer elements than the shape.
    pub fn host(slice: &'a mut [T], shape: [usize; N]) -> Result<Self, Error> {
        let strides = dense(shape);
        check_extent(&shape, &strides, slice.len(), "tensor")?;
        Ok(TensorMut {
            shape,
            strides,
            sink: Sink::Host(slice),
        })
    }

    /// Device memory of `len` elements at `address`, with explicit strides in elements.
    ///
    /// # Safety
    /// The memory must lie in the context of the stream that it is launched on, be writable there until the launch has
    /// finished, and be neither read nor written by others meanwhile.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`] if the shape reaches beyond `len`.
    pub unsafe fn from_raw(address: u64, len: usize, shape: [usize; N], strides: [usize; N]) -> Result<Self, Error> {
        check_extent(&shape, &strides, len, "tensor")?;
        Ok(TensorMut {
            shape,
            strides,
            sink: Sink::Raw(address, len),
        })
    }

    layout_methods!();

    fn len(&self) -> usize {
        self.sink.len()
    }
}

/// What the checks see of memory with a shape and strides.
pub(crate) fn erase<T: Element>(
    shape: &[usize],
    strides: &[usize],
    (address, place): (u64, Place),
    len: usize,
) -> View {
    let fixed = |from: &[usize]| std::array::from_fn(|axis| from.get(axis).copied().unwrap_or(0));
    // A tensor of more axes than any spec's is refused by its rank; what does not fit here is not looked at.
    View {
        dtype: T::DTYPE,
        rank: shape.len(),
        shape: fixed(shape),
        strides: fixed(strides),
        address,
        len,
        place,
    }
}

/// An input of any element type and rank: what launchers take.
///
/// # Safety
/// The address and length that it gives must be memory that is valid for reads until the guard is dropped, in the context
/// that its view names.
pub unsafe trait Input {
    /// What the checks see. On the device, the address is known once the stream is: see [`Input::device`].
    fn view(&self) -> View;
    /// The device address, after the stream waits for earlier writes, and the guard that records the read. `None` for
    /// host memory.
    fn device<'s>(&'s self, stream: &'s CudaStream) -> Option<(u64, Option<SyncOnDrop<'s>>)>;
    /// The host memory, if it is that.
    fn host(&self) -> Option<HostRef<'_>>;
}

/// An output of any element type and rank: what launchers take.
///
/// # Safety
/// The address and length that it gives must be memory that is valid for writes and that nobody else uses until the guard
/// is dropped, in the context that its view names.
pub unsafe trait Output {
    /// What the checks see.
    fn view(&self) -> View;
    /// The device address, after the stream waits for earlier reads and writes, and the guard that records the write.
    /// `None` for host memory.
    fn device<'s>(&'s mut self, stream: &'s CudaStream) -> Option<(u64, Option<SyncOnDrop<'s>>)>;
    /// The host memory, if it is that.
    fn host(&mut self) -> Option<HostMut<'_>>;
}

// SAFETY: the view was checked against the borrowed memory when it was made, or its maker promised so (`from_raw`).
unsafe impl<T: Element, const N: usize> Input for Tensor<'_, T, N> {
    fn view(&self) -> View {
        erase::<T>(&self.shape, &self.strides, self.source.place(), self.len())
    }
    fn device<'s>(&'s self, stream: &'s CudaStream) -> Option<(u64, Option<SyncOnDrop<'s>>)> {
        self.source.device(stream)
    }
    fn host(&self) -> Option<HostRef<'_>> {
        self.source.host()
    }
}

// SAFETY: the view was checked against the exclusively borrowed memory when it was made, or its maker promised so
// (`from_raw`).
unsafe impl<T: Element, const N: usize> Output for TensorMut<'_, T, N> {
    fn view(&self) -> View {
        erase::<T>(&self.shape, &self.strides, self.sink.place(), self.len())
    }
    fn device<'s>(&'s mut self, stream: &'s CudaStream) -> Option<(u64, Option<SyncOnDrop<'s>>)> {
        self.sink.device(stream)
    }
    fn host(&mut self) -> Option<HostMut<'_>> {
        self.sink.host()
    }
}
