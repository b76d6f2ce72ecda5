//! A spec file that was compiled offline, used without the macro: names, types and shapes are checked at run time.
//!
//!     drawloom compile specs/streaming.attn --type f16 --size d=64 --out artifacts
//!     cargo run --package drawloom --example offline -- artifacts/streaming-*.json cpu
//!
//! The second argument says where it runs, `cpu` or `gpu`: neither is ever chosen silently.

use drawloom::cudarc::driver::CudaContext;
use drawloom::half::f16;
use drawloom::{Arguments, Artifact, Dtype, Input, Output, Tensor, TensorMut};
use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;

/// Batch, heads, queries and keys, features.
const SHAPE: [usize; 4] = [1, 2, 2048, 64];

const COUNT: usize = SHAPE[0] * SHAPE[1] * SHAPE[2] * SHAPE[3];

/// Axes of the spec with their sizes: how large a workspace has to be.
const SIZES: [(&str, usize); 5] = [
    ("b", SHAPE[0]),
    ("h", SHAPE[1]),
    ("i", SHAPE[2]),
    ("j", SHAPE[2]),
    ("d", SHAPE[3]),
];

fn main() -> ExitCode {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let [path, place] = given.as_slice() else {
        eprintln!("usage: offline ARTIFACT.json cpu|gpu");
        return ExitCode::FAILURE;
    };
    match offline(path, place) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn offline(path: &str, place: &str) -> Result<(), Box<dyn Error>> {
    let artifact = Artifact::open(path)?;
    println!(
        "{} by drawloom {}",
        artifact.manifest().name,
        artifact.manifest().provenance.compiler
    );
    let [q, k, v] = [1, 2, 3].map(random);
    let (o, lse) = match place {
        "cpu" => on_cpu(&artifact, &q, &k, &v)?,
        "gpu" => on_gpu(&artifact, &drawloom::context(0)?, &q, &k, &v)?,
        _ => return Err("the place is `cpu` or `gpu`".into()),
    };
    // The first query sees the first key only: its result is that key's value, and its log-sum-exp that score.
    let [_, heads, n, d] = SHAPE;
    for head in 0..heads {
        let (row, entry) = (head * n * d..head * n * d + d, head * n);
        let score: f32 = row.clone().map(|at| q[at].to_f32() * k[at].to_f32()).sum::<f32>() / (d as f32).sqrt();
        if o[row.clone()] != v[row] || (lse[entry] - score).abs() > 1e-3 {
            return Err(format!("head {head} of the result is wrong").into());
        }
    }
    if o.iter().any(|x| !x.is_finite()) {
        return Err("the result has elements that were not written".into());
    }
    println!("{heads} heads of {n} queries on the {place}: the first rows are those of the first keys");
    Ok(())
}

/// The CPU form, with arguments by name.
fn on_cpu(artifact: &Artifact, q: &[f16], k: &[f16], v: &[f16]) -> Result<(Vec<f16>, Vec<f32>), drawloom::Error> {
    let (mut o, mut lse) = (vec![f16::NAN; COUNT], vec![f32::NAN; COUNT / SHAPE[3]]);
    let (q, k, v) = (
        Tensor::host(q, SHAPE)?,
        Tensor::host(k, SHAPE)?,
        Tensor::host(v, SHAPE)?,
    );
    let inputs: [(&str, &dyn Input); 3] = [("q", &q), ("k", &k), ("v", &v)];
    let mut result = TensorMut::host(&mut o, SHAPE)?;
    let mut sums = TensorMut::host(&mut lse, [SHAPE[0], SHAPE[1], SHAPE[2]])?;
    let mut outputs: [(&str, &mut dyn Output); 2] = [("o", &mut result), ("lse", &mut sums)];
    artifact.cpu(&inputs, &[], &mut outputs)?;
    Ok((o, lse))
}

/// The kernels, on the first GPU.
fn on_gpu(
    artifact: &Artifact,
    context: &Arc<CudaContext>,
    q: &[f16],
    k: &[f16],
    v: &[f16],
) -> Result<(Vec<f16>, Vec<f32>), Box<dyn Error>> {
    let stream = context.default_stream();
    // SAFETY: the artifact is one that `drawloom compile` wrote.
    let operator = unsafe { artifact.load(context, &[Dtype::F16]) }?;
    let mut workspace = operator.workspace(&stream, &SIZES)?;
    let (q, k, v) = (stream.clone_htod(q)?, stream.clone_htod(k)?, stream.clone_htod(v)?);
    let mut o = stream.clone_htod(&vec![f16::NAN; COUNT])?;
    let mut lse = stream.clone_htod(&vec![f32::NAN; COUNT / SHAPE[3]])?;
    let (queries, keys, values) = (
        Tensor::new(&q, SHAPE)?,
        Tensor::new(&k, SHAPE)?,
        Tensor::new(&v, SHAPE)?,
    );
    let inputs: [(&str, &dyn Input); 3] = [("q", &queries), ("k", &keys), ("v", &values)];
    let mut result = TensorMut::new(&mut o, SHAPE)?;
    let mut sums = TensorMut::new(&mut lse, [SHAPE[0], SHAPE[1], SHAPE[2]])?;
    let mut outputs: [(&str, &mut dyn Output); 2] = [("o", &mut result), ("lse", &mut sums)];
    let arguments = Arguments::named(operator.operator(), &inputs, &[], &mut outputs)?;
    operator.launch(&stream, arguments, &mut workspace)?;
    Ok((stream.clone_dtoh(&o)?, stream.clone_dtoh(&lse)?))
}

/// Numbers between -1 and 1.
fn random(seed: u32) -> Vec<f16> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f16::from_f32((state >> 8) as f32 / (1 << 23) as f32 - 1.0)
    };
    (0..COUNT).map(|_| next()).collect()
}
