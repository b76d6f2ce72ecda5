//! Running the CPU form on made-up input of any spec, and comparing every output with the plain loop.

use crate::naive::{Data, Naive, Random, round};
use drawloom::half::{bf16, f16};
use drawloom::{Arguments, Embedded, Input, Output, Scalar, Tensor, TensorMut};
use drawloom_lang::spec::{Dtype, ElemType, OutputValue, Spec};
use std::collections::BTreeMap;

/// Calls `$body` with a tensor of the right const rank.
macro_rules! by_rank {
    ($rank:expr, $n:ident => $body:expr) => {
        match $rank {
            1 => {
                const $n: usize = 1;
                $body
            }
            2 => {
                const $n: usize = 2;
                $body
            }
            3 => {
                const $n: usize = 3;
                $body
            }
            4 => {
                const $n: usize = 4;
                $body
            }
            rank => panic!("no test has rank {rank}"),
        }
    };
}

pub fn input<'a>(memory: &'a Memory, shape: &[usize]) -> Box<dyn Input + 'a> {
    by_rank!(shape.len(), N => {
        let shape: [usize; N] = shape.try_into().unwrap();
        match memory {
            Memory::F16(memory) => Box::new(Tensor::host(memory, shape).unwrap()) as Box<dyn Input + 'a>,
            Memory::Bf16(memory) => Box::new(Tensor::host(memory, shape).unwrap()),
            Memory::F32(memory) => Box::new(Tensor::host(memory, shape).unwrap()),
            Memory::I32(memory) => Box::new(Tensor::host(memory, shape).unwrap()),
        }
    })
}

pub fn output<'a>(memory: &'a mut Memory, shape: &[usize]) -> Box<dyn Output + 'a> {
    by_rank!(shape.len(), N => {
        let shape: [usize; N] = shape.try_into().unwrap();
        match memory {
            Memory::F16(memory) => Box::new(TensorMut::host(memory, shape).unwrap()) as Box<dyn Output + 'a>,
            Memory::Bf16(memory) => Box::new(TensorMut::host(memory, shape).unwrap()),
            Memory::F32(memory) => Box::new(TensorMut::host(memory, shape).unwrap()),
            Memory::I32(memory) => Box::new(TensorMut::host(memory, shape).unwrap()),
        }
    })
}

pub enum Memory {
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
    F32(Vec<f32>),
    I32(Vec<i32>),
}

impl Memory {
    fn of(data: &Data) -> Memory {
        match data.dtype {
            Dtype::F16 => Memory::F16(data.values.iter().map(|value| f16::from_f64(*value)).collect()),
            Dtype::Bf16 => Memory::Bf16(data.values.iter().map(|value| bf16::from_f64(*value)).collect()),
            Dtype::F32 => Memory::F32(data.values.iter().map(|value| *value as f32).collect()),
            Dtype::I32 => Memory::I32(data.values.iter().map(|value| *value as i32).collect()),
        }
    }

    fn values(&self) -> Vec<f64> {
        match self {
            Memory::F16(memory) => memory.iter().map(|value| value.to_f64()).collect(),
            Memory::Bf16(memory) => memory.iter().map(|value| value.to_f64()).collect(),
            Memory::F32(memory) => memory.iter().map(|value| f64::from(*value)).collect(),
            Memory::I32(memory) => memory.iter().map(|value| f64::from(*value)).collect(),
        }
    }
}

pub fn parse(text: &str) -> Spec {
    drawloom_lang::parse_str("test", text)
        .unwrap_or_else(|errors| panic!("{errors}"))
        .remove(0)
}

/// Runs a spec at these sizes (by axis name) and compares every output with the plain loop.
pub fn compare(spec: &Spec, types: &[Dtype], sizes: &BTreeMap<&str, usize>, scalars: &[f64], seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let by_axis: Vec<usize> = spec.axes.iter().map(|axis| sizes[axis.name.as_str()]).collect();
    let dtype = |ty: ElemType| match ty {
        ElemType::Fixed(dtype) => dtype,
        ElemType::Set(set) => types[set.index()],
    };
    let mut inputs = Vec::new();
    for declared in &spec.inputs {
        let shape: Vec<usize> = declared.axes.iter().map(|axis| by_axis[axis.index()]).collect();
        let count: usize = shape.iter().product();
        let dtype = dtype(declared.ty);
        let mut values: Vec<f64> = (0..count)
            .map(|_| match dtype {
                Dtype::I32 => (random.next() % 3) as f64,
                Dtype::F16 | Dtype::Bf16 | Dtype::F32 => round(dtype, 2.0 * random.unit()),
            })
            .collect();
        if declared.sorted {
            let row = shape.last().copied().unwrap_or(1).max(1);
            values.chunks_mut(row).for_each(|row| row.sort_by(f64::total_cmp));
        }
        inputs.push(Data { dtype, shape, values });
    }
    let naive = Naive {
        spec,
        sizes: &by_axis,
        inputs: &inputs,
        scalars,
    };
    let memories: Vec<Memory> = inputs.iter().map(Memory::of).collect();
    let boxes: Vec<Box<dyn Input + '_>> = memories
        .iter()
        .zip(&inputs)
        .map(|(memory, data)| input(memory, &data.shape))
        .collect();
    let given: Vec<&dyn Input> = boxes.iter().map(|input| &**input).collect();
    let shapes: Vec<Vec<usize>> = (spec.outputs.iter())
        .map(|output| output.axes.iter().map(|axis| by_axis[axis.index()]).collect())
        .collect();
    let mut results: Vec<Memory> = (spec.outputs.iter().zip(&shapes))
        .map(|(output, shape)| {
            let count = shape.iter().product();
            Memory::of(&Data {
                dtype: dtype(output.ty),
                shape: shape.clone(),
                values: vec![f64::NAN; count],
            })
        })
        .collect();
    let scalars: Vec<Scalar> = (spec.scalars.iter().zip(scalars))
        .map(|(scalar, value)| {
            if scalar.ty == Dtype::I32 {
                (*value as i32).into()
            } else {
                (*value as f32).into()
            }
        })
        .collect();
    let text: &'static str = Box::leak(drawloom_lang::canonical(spec).into_boxed_str());
    let embedded = Embedded::new("test", text, None, "drawloom prepare");
    {
        let mut boxes: Vec<Box<dyn Output + '_>> = results
            .iter_mut()
            .zip(&shapes)
            .map(|(memory, shape)| output(memory, shape))
            .collect();
        let outputs = boxes.iter_mut().map(|output| &mut **output as &mut dyn Output);
        let run = || embedded.cpu(Arguments::positional(embedded.operator()?, &given, &scalars, outputs)?);
        run().unwrap_or_else(|error| panic!("{}: {error}", spec.name));
    }
    for (number, result) in results.iter().enumerate() {
        let expected = naive.output(number);
        let given = result.values();
        assert_eq!(expected.len(), given.len());
        let row = match spec.outputs[number].value {
            OutputValue::Stage(_) => shapes[number].last().copied().unwrap_or(1).max(1),
            OutputValue::Lse { .. } => 1,
        };
        // Half a unit of the last place for the rounding of the output, and the same again for f32 arithmetic.
        let unit = match dtype(spec.outputs[number].ty) {
            Dtype::F16 => f64::powi(2.0, -10),
            Dtype::Bf16 => f64::powi(2.0, -7),
            Dtype::F32 | Dtype::I32 => f64::powi(2.0, -19),
        };
        for (index, (expected, given)) in expected.chunks(row).zip(given.chunks(row)).enumerate() {
            let norm = expected.iter().map(|value| value * value).sum::<f64>().sqrt();
            let error = expected
                .iter()
                .zip(given)
                .map(|(a, b)| (a - b) * (a - b))
                .sum::<f64>()
                .sqrt();
            let what = format!(
                "{} output {number} row {index} at {sizes:?}: {given:?} for {expected:?}",
                spec.name
            );
            // A log-sum-exp is a difference of numbers of the size of the scores, a few units.
            let scale = if row == 1 { norm.max(4.0) } else { norm };
            if norm == 0.0 || norm.is_infinite() {
                assert_eq!(expected, given, "{what}");
            } else {
                assert!(error <= unit * scale, "{what}");
            }
        }
    }
}
