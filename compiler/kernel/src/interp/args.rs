//! What a launch is called with.

use half::{bf16, f16};

use crate::ir::Dtype;

/// Arguments, one per parameter of the kernel, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Args {
    /// The arguments.
    pub values: Vec<Arg>,
}

/// One argument.
#[derive(Clone, Debug, PartialEq)]
pub enum Arg {
    /// A scalar.
    I32(i32),
    /// A scalar.
    I64(i64),
    /// A scalar.
    F32(f32),
    /// A tensor.
    Tensor(Tensor),
}

/// A tensor argument. Element 0 of `data` lies at an address that is a multiple of 256 bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// The elements.
    pub data: Elements,
    /// The position in `data` of the element with all indices 0.
    pub offset: usize,
    /// The distance along each axis, in elements.
    pub strides: Vec<i64>,
}

/// Elements in their memory type.
#[derive(Clone, Debug, PartialEq)]
pub enum Elements {
    /// IEEE binary16.
    F16(Vec<f16>),
    /// bfloat16.
    Bf16(Vec<bf16>),
    /// IEEE binary32.
    F32(Vec<f32>),
    /// 32-bit integers.
    I32(Vec<i32>),
    /// 64-bit integers.
    I64(Vec<i64>),
}

impl Args {
    /// The tensor at this position.
    pub fn tensor(&self, index: usize) -> Option<&Tensor> {
        match self.values.get(index) {
            Some(Arg::Tensor(t)) => Some(t),
            Some(Arg::I32(_) | Arg::I64(_) | Arg::F32(_)) | None => None,
        }
    }
}

impl Tensor {
    /// A tensor whose axes of these sizes lie in order, the last one contiguous.
    pub fn contiguous(data: Elements, sizes: &[usize]) -> Tensor {
        let mut strides = vec![1i64; sizes.len()];
        for i in (1..sizes.len()).rev() {
            strides[i - 1] = strides[i] * sizes[i] as i64;
        }
        Tensor {
            data,
            offset: 0,
            strides,
        }
    }
}

impl Elements {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Elements::F16(v) => v.len(),
            Elements::Bf16(v) => v.len(),
            Elements::F32(v) => v.len(),
            Elements::I32(v) => v.len(),
            Elements::I64(v) => v.len(),
        }
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Element type.
    pub fn dtype(&self) -> Dtype {
        match self {
            Elements::F16(_) => Dtype::F16,
            Elements::Bf16(_) => Dtype::Bf16,
            Elements::F32(_) => Dtype::F32,
            Elements::I32(_) => Dtype::I32,
            Elements::I64(_) => Dtype::I64,
        }
    }
    /// Numbers rounded to a type (integers: towards zero). `None` for `bool`, which is not a memory type.
    pub fn from_f64(dtype: Dtype, values: &[f64]) -> Option<Elements> {
        Some(match dtype {
            Dtype::F16 => Elements::F16(values.iter().map(|&x| f16::from_f64(x)).collect()),
            Dtype::Bf16 => Elements::Bf16(values.iter().map(|&x| bf16::from_f64(x)).collect()),
            Dtype::F32 => Elements::F32(values.iter().map(|&x| x as f32).collect()),
            Dtype::I32 => Elements::I32(values.iter().map(|&x| x as i32).collect()),
            Dtype::I64 => Elements::I64(values.iter().map(|&x| x as i64).collect()),
            Dtype::Bool => return None,
        })
    }
    /// The numbers.
    pub fn to_f64(&self) -> Vec<f64> {
        match self {
            Elements::F16(v) => v.iter().map(|x| x.to_f64()).collect(),
            Elements::Bf16(v) => v.iter().map(|x| x.to_f64()).collect(),
            Elements::F32(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Elements::I32(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Elements::I64(v) => v.iter().map(|&x| x as f64).collect(),
        }
    }
}
