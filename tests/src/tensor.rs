//! Tensors of a case: values in index order, and where they lie in memory.

use drawloom_lang::spec::Dtype;
use half::{bf16, f16};

/// A tensor on the host.
#[derive(Clone, PartialEq, Debug)]
pub struct Tensor {
    /// Name in the spec.
    pub name: String,
    /// Element type; every value is exactly representable in it.
    pub dtype: Dtype,
    /// Sizes, in the order of the declaration.
    pub shape: Vec<usize>,
    /// Values, the last axis fastest.
    pub values: Vec<f64>,
    /// Axis numbers from the slowest in memory to the fastest; the last axis stays last.
    pub order: Vec<usize>,
}

impl Tensor {
    /// A tensor of the given values, rounded to `dtype`, laid out in index order.
    pub fn new(name: &str, dtype: Dtype, shape: &[usize], values: impl IntoIterator<Item = f64>) -> Tensor {
        let count = shape.iter().product();
        let values: Vec<f64> = values.into_iter().take(count).map(|x| round(dtype, x)).collect();
        Tensor {
            name: name.to_owned(),
            dtype,
            shape: shape.to_vec(),
            values,
            order: (0..shape.len()).collect(),
        }
    }

    /// The value at an index; `None` where it is out of range.
    pub fn get(&self, at: &[usize]) -> Option<f64> {
        let mut offset = 0;
        for (&x, &n) in at.iter().zip(&self.shape) {
            if x >= n {
                return None;
            }
            offset = offset * n + x;
        }
        (at.len() == self.shape.len()).then(|| self.values[offset])
    }

    /// Elements between neighbours along each axis.
    pub fn strides(&self) -> Vec<usize> {
        let mut strides = vec![0; self.shape.len()];
        let mut step = 1;
        for &axis in self.order.iter().rev() {
            strides[axis] = step;
            step *= self.shape[axis];
        }
        strides
    }

    /// Offset in memory of each value, in index order.
    pub fn offsets(&self) -> Vec<usize> {
        let strides = self.strides();
        indices(&self.shape)
            .map(|at| at.iter().zip(&strides).map(|(x, s)| x * s).sum())
            .collect()
    }

    /// The bytes in memory, little-endian.
    pub fn bytes(&self) -> Vec<u8> {
        let width = width(self.dtype);
        let mut bytes = vec![0; self.values.len() * width];
        for (x, offset) in self.values.iter().zip(self.offsets()) {
            encode(self.dtype, *x, &mut bytes[offset * width..][..width]);
        }
        bytes
    }

    /// Takes the values from bytes in memory, as [`Tensor::bytes`] lays them out.
    ///
    /// # Errors
    /// The number of bytes, where it is wrong.
    pub fn set_bytes(&mut self, bytes: &[u8]) -> Result<(), String> {
        let width = width(self.dtype);
        let offsets = self.offsets();
        if bytes.len() != offsets.len() * width {
            return Err(format!(
                "`{}`: {} bytes for {} elements of {width}",
                self.name,
                bytes.len(),
                offsets.len()
            ));
        }
        self.values = offsets
            .iter()
            .map(|offset| decode(self.dtype, &bytes[offset * width..][..width]))
            .collect();
        Ok(())
    }
}

/// Every index of a shape, the last axis fastest.
pub fn indices(shape: &[usize]) -> impl Iterator<Item = Vec<usize>> + use<> {
    let shape = shape.to_vec();
    (0..shape.iter().product::<usize>()).map(move |mut n| {
        let mut at = vec![0; shape.len()];
        for (x, size) in at.iter_mut().zip(&shape).rev() {
            *x = n % size;
            n /= size;
        }
        at
    })
}

/// Bytes of an element.
pub fn width(dtype: Dtype) -> usize {
    match dtype {
        Dtype::F16 | Dtype::Bf16 => 2,
        Dtype::F32 | Dtype::I32 => 4,
    }
}

/// The nearest value of a type, ties to even; integers are taken as they are.
pub fn round(dtype: Dtype, x: f64) -> f64 {
    match dtype {
        Dtype::F16 => f16::from_f64(x).to_f64(),
        Dtype::Bf16 => bf16::from_f64(x).to_f64(),
        Dtype::F32 => f64::from(x as f32),
        Dtype::I32 => f64::from(x as i32),
    }
}

/// The distance from the magnitude of `x` to the next value of the type: one unit in the last place.
pub fn ulp(dtype: Dtype, x: f64) -> f64 {
    let (digits, least) = match dtype {
        Dtype::F16 => (10, -14),
        Dtype::Bf16 => (7, -126),
        Dtype::F32 => (23, -126),
        Dtype::I32 => return 1.0,
    };
    if !x.is_finite() {
        return 0.0;
    }
    let exponent = if x == 0.0 {
        least
    } else {
        (x.abs().log2().floor() as i32).max(least)
    };
    f64::from(exponent - digits).exp2()
}

fn encode(dtype: Dtype, x: f64, out: &mut [u8]) {
    match dtype {
        Dtype::F16 => out.copy_from_slice(&f16::from_f64(x).to_le_bytes()),
        Dtype::Bf16 => out.copy_from_slice(&bf16::from_f64(x).to_le_bytes()),
        Dtype::F32 => out.copy_from_slice(&(x as f32).to_le_bytes()),
        Dtype::I32 => out.copy_from_slice(&(x as i32).to_le_bytes()),
    }
}

fn decode(dtype: Dtype, b: &[u8]) -> f64 {
    match (dtype, b) {
        (Dtype::F16, &[x, y]) => f16::from_le_bytes([x, y]).to_f64(),
        (Dtype::Bf16, &[x, y]) => bf16::from_le_bytes([x, y]).to_f64(),
        (Dtype::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]).into(),
        (Dtype::I32, &[a, b, c, d]) => i32::from_le_bytes([a, b, c, d]).into(),
        (_, _) => f64::NAN,
    }
}
