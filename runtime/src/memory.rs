//! Borrowed memory without its shape: what tensors of fixed and of any rank are made of.

use crate::element::{Element, HostMut, HostRef};
use crate::tensor::Place;
use cudarc::driver::{CudaSlice, CudaStream, CudaView, CudaViewMut, DevicePtr, DevicePtrMut, DeviceSlice, SyncOnDrop};

/// Device memory that can be read through a view.
pub trait DeviceMemory<'a, T> {
    /// All of it.
    fn view(self) -> CudaView<'a, T>;
}

impl<'a, T> DeviceMemory<'a, T> for &'a CudaSlice<T> {
    fn view(self) -> CudaView<'a, T> {
        self.as_view()
    }
}

impl<'a, T> DeviceMemory<'a, T> for CudaView<'a, T> {
    fn view(self) -> CudaView<'a, T> {
        self
    }
}

/// Device memory that can be written through a view.
pub trait DeviceMemoryMut<'a, T> {
    /// All of it.
    fn view_mut(self) -> CudaViewMut<'a, T>;
}

impl<'a, T> DeviceMemoryMut<'a, T> for &'a mut CudaSlice<T> {
    fn view_mut(self) -> CudaViewMut<'a, T> {
        self.as_view_mut()
    }
}

impl<'a, T> DeviceMemoryMut<'a, T> for CudaViewMut<'a, T> {
    fn view_mut(self) -> CudaViewMut<'a, T> {
        self
    }
}

/// Memory to read.
pub(crate) enum Source<'a, T> {
    Host(&'a [T]),
    Device(CudaView<'a, T>),
    Raw(u64, usize),
}

/// Memory to write.
pub(crate) enum Sink<'a, T> {
    Host(&'a mut [T]),
    Device(CudaViewMut<'a, T>),
    Raw(u64, usize),
}

impl<T: Element> Source<'_, T> {
    /// Elements.
    pub(crate) fn len(&self) -> usize {
        match self {
            Source::Host(slice) => slice.len(),
            Source::Device(view) => view.len(),
            Source::Raw(_, len) => *len,
        }
    }

    /// The address, 0 where only a stream gives it, and the place.
    pub(crate) fn place(&self) -> (u64, Place) {
        match self {
            Source::Host(slice) => (slice.as_ptr() as u64, Place::Host),
            Source::Device(view) => (0, Place::of(view.stream().context())),
            Source::Raw(address, _) => (*address, Place::Raw),
        }
    }

    /// The device address and the guard that records the read.
    pub(crate) fn device<'s>(&'s self, stream: &'s CudaStream) -> Option<(u64, Option<SyncOnDrop<'s>>)> {
        match self {
            Source::Host(_) => None,
            Source::Device(view) => {
                let (address, guard) = view.device_ptr(stream);
                Some((address, Some(guard)))
            }
            Source::Raw(address, _) => Some((*address, None)),
        }
    }

    /// The host memory, if it is that.
    pub(crate) fn host(&self) -> Option<HostRef<'_>> {
        match self {
            Source::Host(slice) => Some(T::host(slice)),
            Source::Device(_) | Source::Raw(..) => None,
        }
    }
}

impl<T: Element> Sink<'_, T> {
    /// Elements.
    pub(crate) fn len(&self) -> usize {
        match self {
            Sink::Host(slice) => slice.len(),
            Sink::Device(view) => view.len(),
            Sink::Raw(_, len) => *len,
        }
    }

    /// The address, 0 where only a stream gives it, and the place.
    pub(crate) fn place(&self) -> (u64, Place) {
        match self {
            Sink::Host(slice) => (slice.as_ptr() as u64, Place::Host),
            Sink::Device(view) => (0, Place::of(view.stream().context())),
            Sink::Raw(address, _) => (*address, Place::Raw),
        }
    }

    /// The device address and the guard that records the write.
    pub(crate) fn device<'s>(&'s mut self, stream: &'s CudaStream) -> Option<(u64, Option<SyncOnDrop<'s>>)> {
        match self {
            Sink::Host(_) => None,
            Sink::Device(view) => {
                let (address, guard) = view.device_ptr_mut(stream);
                Some((address, Some(guard)))
            }
            Sink::Raw(address, _) => Some((*address, None)),
        }
    }

    /// The host memory, if it is that.
    pub(crate) fn host(&mut self) -> Option<HostMut<'_>> {
        match self {
            Sink::Host(slice) => Some(T::host_mut(slice)),
            Sink::Device(_) | Sink::Raw(..) => None,
        }
    }
}
