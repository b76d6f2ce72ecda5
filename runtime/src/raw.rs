//! Arguments whose element type and rank are known at run time only.

use crate::element::{Element, HostMut, HostRef};
use crate::error::Error;
use crate::memory::{DeviceMemory, DeviceMemoryMut, Sink, Source};
use crate::tensor::{Input, MAX_RANK, Output, Place, View, check_extent, erase};
use cudarc::driver::{CudaStream, SyncOnDrop};
use drawloom_lang::spec::Dtype;

fn check_layout(shape: &[usize], strides: &[usize], len: usize) -> Result<(), Error> {
    let rank = shape.len();
    if rank != strides.len() {
        return Err(Error::Rank {
            argument: "tensor".to_owned(),
            expected: rank,
            given: strides.len(),
        });
    }
    if rank > MAX_RANK {
        return Err(Error::Limit {
            name: "tensor".to_owned(),
            what: "axes",
            given: rank,
            limit: MAX_RANK,
        });
    }
    check_extent(shape, strides, len, "tensor")
}

/// A tensor that borrows its memory, of any rank: what an adapter for another tensor library makes.
pub struct AnyTensor<'a, T> {
    view: View,
    source: Source<'a, T>,
}

impl<'a, T: Element> AnyTensor<'a, T> {
    /// Host memory, with strides in elements.
    ///
    /// # Errors
    /// As for [`RawTensor::new`].
    pub fn host(memory: &'a [T], shape: &[usize], strides: &[usize]) -> Result<Self, Error> {
        Self::of(Source::Host(memory), shape, strides)
    }

    /// Device memory, with strides in elements.
    ///
    /// # Errors
    /// As for [`RawTensor::new`].
    pub fn device(memory: impl DeviceMemory<'a, T>, shape: &[usize], strides: &[usize]) -> Result<Self, Error> {
        Self::of(Source::Device(memory.view()), shape, strides)
    }

    fn of(source: Source<'a, T>, shape: &[usize], strides: &[usize]) -> Result<Self, Error> {
        check_layout(shape, strides, source.len())?;
        let view = erase::<T>(shape, strides, source.place(), source.len());
        Ok(Self { view, source })
    }
}

/// A tensor that borrows its memory exclusively, of any rank.
pub struct AnyTensorMut<'a, T> {
    view: View,
    sink: Sink<'a, T>,
}

impl<'a, T: Element> AnyTensorMut<'a, T> {
    /// Host memory, with strides in elements.
    ///
    /// # Errors
    /// As for [`RawTensor::new`].
    pub fn host(memory: &'a mut [T], shape: &[usize], strides: &[usize]) -> Result<Self, Error> {
        Self::of(Sink::Host(memory), shape, strides)
    }

    /// Device memory, with strides in elements.
    ///
    /// # Errors
    /// As for [`RawTensor::new`].
    pub fn device(memory: impl DeviceMemoryMut<'a, T>, shape: &[usize], strides: &[usize]) -> Result<Self, Error> {
        Self::of(Sink::Device(memory.view_mut()), shape, strides)
    }

    fn of(sink: Sink<'a, T>, shape: &[usize], strides: &[usize]) -> Result<Self, Error> {
        check_layout(shape, strides, sink.len())?;
        let view = erase::<T>(shape, strides, sink.place(), sink.len());
        Ok(Self { view, sink })
    }
}

// SAFETY: the view was checked against the borrowed memory when it was made.
unsafe impl<T: Element> Input for AnyTensor<'_, T> {
    fn view(&self) -> View {
        self.view
    }
    fn device<'s>(&'s self, stream: &'s CudaStream) -> Option<(u64, Option<SyncOnDrop<'s>>)> {
        self.source.device(stream)
    }
    fn host(&self) -> Option<HostRef<'_>> {
        self.source.host()
    }
}

// SAFETY: the view was checked against the exclusively borrowed memory when it was made.
unsafe impl<T: Element> Output for AnyTensorMut<'_, T> {
    fn view(&self) -> View {
        self.view
    }
    fn device<'s>(&'s mut self, stream: &'s CudaStream) -> Option<(u64, Option<SyncOnDrop<'s>>)> {
        self.sink.device(stream)
    }
    fn host(&mut self) -> Option<HostMut<'_>> {
        self.sink.host()
    }
}

/// Device memory at a raw address, as an input or an output: what a binding for another language has in its hands.
/// [`crate::Tensor::from_raw`] is the same for types and ranks that Rust knows.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RawTensor(View);

impl RawTensor {
    /// Device memory of `len` elements at `address`, with strides in elements.
    ///
    /// # Safety
    /// Until every launch that it is an argument of has finished: the memory must lie in the context of the stream, hold
    /// elements of that type, and be used by nothing else if the tensor is an output, or not be written if it is an input.
    ///
    /// # Errors
    /// [`Error::Rank`] where there is not one stride for each axis, [`Error::Limit`] for more than [`MAX_RANK`] axes,
    /// [`Error::OutOfBounds`] if the shape reaches beyond `len`.
    pub unsafe fn new(
        dtype: Dtype,
        address: u64,
        len: usize,
        shape: &[usize],
        strides: &[usize],
    ) -> Result<RawTensor, Error> {
        check_layout(shape, strides, len)?;
        let fixed = |from: &[usize]| std::array::from_fn(|axis| from.get(axis).copied().unwrap_or(0));
        Ok(RawTensor(View {
            dtype,
            rank: shape.len(),
            shape: fixed(shape),
            strides: fixed(strides),
            address,
            len,
            place: Place::Raw,
        }))
    }
}

// SAFETY: the memory is as the maker promised.
unsafe impl Input for RawTensor {
    fn view(&self) -> View {
        self.0
    }
    fn device<'s>(&'s self, _: &'s CudaStream) -> Option<(u64, Option<SyncOnDrop<'s>>)> {
        Some((self.0.address, None))
    }
    fn host(&self) -> Option<HostRef<'_>> {
        None
    }
}

// SAFETY: the memory is as the maker promised.
unsafe impl Output for RawTensor {
    fn view(&self) -> View {
        self.0
    }
    fn device<'s>(&'s mut self, _: &'s CudaStream) -> Option<(u64, Option<SyncOnDrop<'s>>)> {
        Some((self.0.address, None))
    }
    fn host(&mut self) -> Option<HostMut<'_>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(len: usize, shape: &[usize], strides: &[usize]) -> Result<View, Error> {
        // SAFETY: nothing is launched.
        unsafe { RawTensor::new(Dtype::F16, 64, len, shape, strides) }.map(|raw| Input::view(&raw))
    }

    #[test]
    fn the_view_is_what_was_given() {
        let view = made(12, &[3, 4], &[4, 1]).expect("it fits");
        assert_eq!(
            (view.rank, &view.shape[..2], &view.strides[..2]),
            (2, &[3, 4][..], &[4, 1][..])
        );
        assert_eq!((view.address, view.len, view.place), (64, 12, Place::Raw));
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        assert!(matches!(made(11, &[3, 4], &[4, 1]), Err(Error::OutOfBounds { .. })));
        assert!(matches!(made(11, &[3, 4], &[1]), Err(Error::Rank { given: 1, .. })));
        assert!(matches!(made(1, &[1; 9], &[1; 9]), Err(Error::Limit { given: 9, .. })));
    }
}
