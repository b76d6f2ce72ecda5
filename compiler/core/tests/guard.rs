//! How often the guard of a reference that stays refuses rows of real tensors: `tests/data`, the queries, keys and values of
//! two layers of a sentence-embedding model.
//!
//! What a warp refuses is computed again, which reads the tiles a second time: the interpreter counts it.

use drawloom_compiler::compile::program_for;
use drawloom_compiler::cost;
use drawloom_compiler::device::{Device, H200};
use drawloom_compiler::lower::operator::recognise;
use drawloom_compiler::portfolio::inputs;
use drawloom_compiler::schedule::{Reference, Schedule, Staging};
use drawloom_compiler::simulate::{Call, simulate};
use drawloom_kernel::interp::{Elements, Tensor};
use drawloom_kernel::ir::Dtype as KernelDtype;
use drawloom_lang::spec::Dtype;
use half::f16;
use safetensors::SafeTensors;
use std::collections::BTreeMap;

const FILE: &[u8] = include_bytes!("../../../tests/data/minilm.safetensors");
/// Rows of text, tokens, heads, features: the order of the file's axes.
const SHAPE: [usize; 4] = [4, 128, 12, 32];
/// So few that CTAs stay.
const DEVICE: Device = Device { sms: 4, ..H200 };

/// A tensor of the file in a type, over the axes `b, h, n, d`.
fn tensor(name: &str, dtype: KernelDtype) -> Tensor {
    let file = SafeTensors::deserialize(FILE).expect("the file is embedded whole");
    let view = file.tensor(name).expect("the file has it");
    let (halves, _) = view.data().as_chunks::<2>();
    let values: Vec<f64> = halves.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f64()).collect();
    let [_, n, h, d] = SHAPE.map(|size| size as i64);
    Tensor {
        data: Elements::from_f64(dtype, &values).expect("a type of tensors"),
        offset: 0,
        strides: vec![n * h * d, d, h * d, 1],
    }
}

/// Query tiles of a launch that are computed again: how often the query is read beyond what the cost predicts.
fn again(spec: &str, text: &str, dtype: Dtype, layer: &str, schedule: &Schedule) -> u64 {
    let spec = drawloom_lang::parse_str(spec, text)
        .expect("the spec is right")
        .remove(0);
    let wanted = |b: &drawloom_lang::spec::Binding| b.types == [dtype] && b.sizes.contains(&Some(32));
    let bindings = drawloom_lang::bindings(&spec);
    let binding = bindings.iter().find(|b| wanted(b)).expect("heads of 32 are compiled");
    let program = program_for(&spec, binding, schedule).expect("it has a kernel");
    let graph = drawloom_graph::from_spec(&spec, binding);
    let operator = recognise(&spec, binding, &graph).expect("it has a kernel form");
    let kernel_dtype = operator.dtype(spec.inputs[0].ty);
    let [b, n, h, d] = SHAPE;
    let sizes: BTreeMap<String, u32> = [("b", b), ("h", h), ("i", n), ("j", n), ("d", d)]
        .map(|(axis, size)| (axis.to_owned(), size as u32))
        .into();
    let mut tensors: BTreeMap<String, Tensor> = ["q", "k", "v"]
        .map(|name| (name.to_owned(), tensor(&format!("{layer}.{name}"), kernel_dtype)))
        .into();
    let blank = |dtype, shape: &[usize]| {
        let poison = vec![f64::NAN; shape.iter().product()];
        Tensor::contiguous(Elements::from_f64(dtype, &poison).expect("a type of tensors"), shape)
    };
    tensors.insert("o".to_owned(), blank(kernel_dtype, &[b, h, n, d]));
    tensors.insert("lse".to_owned(), blank(KernelDtype::F32, &[b, h, n]));
    let mut call = Call {
        tensors,
        sizes: sizes.clone(),
        scalars: BTreeMap::new(),
        splits: None,
        seed: 1,
    };
    let counted = simulate(&program, &mut call, &DEVICE).expect("no fault");
    let step = &program.kernels[0];
    let (grid, inputs) = inputs(&operator, &program, step, &sizes, &DEVICE);
    let predicted = cost::count(&step.kernel, grid, &inputs)
        .expect("it can be counted")
        .total;
    assert!(call.tensors["o"].data.to_f64().iter().all(|x| x.is_finite()));
    let query = step.kernel.params.iter().position(|param| param.name == "q");
    let query = query.expect("the kernel reads the query");
    let tile = u64::from(schedule.block_m) * d as u64 * 2;
    (counted[0].read[query] - predicted.read[query]) / tile
}

/// The record of it: spec, type, layer, and how many of the 96 query tiles are computed again.
///
/// Few, and all of the first layer: most in `f16`, whose weights end at 2^16.
#[test]
fn tiles_of_the_real_tensors_are_computed_again_as_recorded() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/record/2026-11-25-guard.csv");
    let record = std::fs::read_to_string(path).expect("the record is there");
    let recorded: Vec<&str> = record.lines().filter(|line| !line.starts_with('#')).skip(1).collect();
    // Small tiles of keys, so that most are full and keep the reference of the first.
    let schedule = Schedule::with_producer(64, 32, 2, Reference::First, Staging::Own);
    let specs = [
        ("dense", include_str!("../../../specs/dense.attn")),
        ("causal", include_str!("../../../specs/causal.attn")),
    ];
    let mut found = Vec::new();
    for (spec, text) in specs {
        for dtype in [Dtype::F16, Dtype::Bf16] {
            for layer in ["layer0", "layer5"] {
                let again = again(spec, text, dtype, layer, &schedule);
                found.push(format!("{spec},{dtype},{layer},96,{again}"));
            }
        }
    }
    println!("{}", found.join("\n"));
    assert_eq!(found, recorded);
}
