//! How tensors of a case lie in memory when nothing is left to chance: where each element is, canaries around, poison
//! between, and arguments of any rank and type over it.

use drawloom::{Error, RawTensor, Scalar};
use drawloom_tests::Tensor;
use drawloom_tests::tensor::{indices, width};

/// Bytes of canary before and after each tensor.
pub const CANARY: usize = 256;

/// What is poisoned: a NaN in every float type, -1 as an integer.
pub const POISON: u8 = 0xff;

/// How far a tensor is from dense and aligned, in elements.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// Of its base address.
    pub shift: usize,
    /// Between its rows.
    pub gap: usize,
}

impl Layout {
    /// Dense and aligned.
    pub const DENSE: Layout = Layout { shift: 0, gap: 0 };
}

/// A tensor in memory.
#[derive(Clone, Debug)]
pub struct Laid {
    /// All bytes: canary, tensor, canary.
    pub image: Vec<u8>,
    /// Byte where each element starts, in index order.
    places: Vec<usize>,
    width: usize,
    /// Byte of the tensor's base.
    base: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
    dtype: drawloom::Dtype,
}

impl Laid {
    /// Lays out a tensor in its memory order. Bytes that are no element's are `around`.
    pub fn new(tensor: &Tensor, layout: Layout, around: u8) -> Laid {
        let width = width(tensor.dtype);
        let mut strides = vec![0; tensor.shape.len()];
        let mut step = 1;
        for (n, &axis) in tensor.order.iter().rev().enumerate() {
            strides[axis] = step;
            step *= tensor.shape[axis];
            if n == 0 {
                step += layout.gap;
            }
        }
        let base = CANARY + layout.shift * width;
        let places: Vec<usize> = indices(&tensor.shape)
            .map(|at| base + width * at.iter().zip(&strides).map(|(x, s)| x * s).sum::<usize>())
            .collect();
        let end = places.iter().max().map_or(base, |last| last + width);
        let mut laid = Laid {
            image: vec![around; end + CANARY],
            places,
            width,
            base,
            shape: tensor.shape.clone(),
            strides,
            dtype: tensor.dtype,
        };
        let mut dense = tensor.clone();
        dense.order.sort_unstable();
        for (bytes, place) in dense.bytes().chunks(width).zip(&laid.places) {
            laid.image[*place..][..width].copy_from_slice(bytes);
        }
        laid
    }

    /// The same with every element's bytes poisoned.
    #[must_use]
    pub fn poisoned(mut self) -> Laid {
        for place in &self.places {
            self.image[*place..][..self.width].fill(POISON);
        }
        self
    }

    /// What a launch made of the memory: the elements' bytes in index order.
    ///
    /// # Errors
    /// The first byte beside the elements that is not what it was.
    pub fn elements(&self, after: &[u8]) -> Result<Vec<u8>, String> {
        let mut rest = self.image.clone();
        let mut elements = Vec::with_capacity(self.places.len() * self.width);
        for place in &self.places {
            let bytes = &after[*place..][..self.width];
            elements.extend_from_slice(bytes);
            rest[*place..][..self.width].copy_from_slice(bytes);
        }
        match rest.iter().zip(after).position(|(was, is)| was != is) {
            None => Ok(elements),
            Some(at) => Err(format!(
                "byte {} from the base is written, which is no element's",
                at as i64 - self.base as i64
            )),
        }
    }

    /// The tensor as an argument, its image at this device address.
    ///
    /// # Safety
    /// As for [`RawTensor::new`], of the whole image.
    ///
    /// # Errors
    /// As there: more axes than a tensor may have.
    pub unsafe fn raw(&self, address: u64) -> Result<RawTensor, Error> {
        let end = self.places.iter().max().map_or(self.base, |last| last + self.width);
        let (base, len) = (address + self.base as u64, (end - self.base) / self.width);
        // SAFETY: the tensor lies within the image, for which the caller promises.
        unsafe { RawTensor::new(self.dtype, base, len, &self.shape, &self.strides) }
    }
}

/// The scalars of a case as launchers take them.
pub fn scalars(case: &drawloom_tests::Case) -> Vec<Scalar> {
    let scalar = |scalar: &drawloom_tests::Scalar| match *scalar {
        drawloom_tests::Scalar::Real(x) => Scalar::F32(x),
        drawloom_tests::Scalar::Int(x) => Scalar::I32(x),
    };
    case.scalars.iter().map(scalar).collect()
}

#[cfg(test)]
mod tests {
    use super::{CANARY, Laid, Layout};
    use drawloom::Dtype;
    use drawloom_tests::Tensor;

    #[test]
    fn elements_come_back_and_canaries_are_seen() {
        let values = (0..24).map(f64::from);
        let mut tensor = Tensor::new("q", Dtype::F16, &[2, 3, 4], values);
        tensor.order = vec![1, 0, 2];
        let bytes = Tensor {
            order: vec![0, 1, 2],
            ..tensor.clone()
        }
        .bytes();
        for layout in [Layout::DENSE, Layout { shift: 1, gap: 0 }, Layout { shift: 0, gap: 3 }] {
            let laid = Laid::new(&tensor, layout, 0xa5);
            assert_eq!(laid.elements(&laid.image), Ok(bytes.clone()));
            for at in [CANARY - 1, laid.image.len() - CANARY] {
                let mut after = laid.image.clone();
                after[at] = 0;
                assert!(laid.elements(&after).is_err(), "{layout:?} {at}");
            }
        }
    }
}
