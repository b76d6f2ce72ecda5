//! Real input through a generated launcher: on the GPU if there is one, else by name on the CPU form.

use drawloom::cudarc::driver::CudaStream;
use drawloom::{Tensor, TensorMut};
use drawloom_device::naive::{attend, judge};
use drawloom_device::real::{self, Layer, SHAPE};
use drawloom_lang::picture::picture;
use half::f16;
use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;

drawloom::attn! {
    /// Encoder attention over rows of text that are padded to one length.
    /// Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.2.1.
    attention padded {
        type T in [f16];
        axis b, h, i: query(start), j: key, d = 32;
        input q: T[b, h, i, d], k: T[b, h, j, d], v: T[b, h, j, d], valid: i32[b, j];
        attend o over j in (k, v) {
            score = dot(q, k) * rsqrt(len(d));
            mask = valid[b, j] == 1;
            norm = softmax;
        }
        output o: T[b, h, i, d];
    }
}

fn main() -> ExitCode {
    match demo() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs both layers; whether both pass.
fn demo() -> Result<bool, Box<dyn Error>> {
    let real = real::read()?;
    let [b, n, h, d] = SHAPE;
    println!("Real input: {b} rows of {n} word pieces, {h} heads of {d}, from two layers of all-MiniLM-L6-v2");
    let gpu = drawloom::context(0).map(|context| context.default_stream());
    match &gpu {
        Ok(stream) => println!("Device: {}", stream.context().name()?),
        Err(error) => println!("Device: the CPU form, asked for by name, since {error}"),
    }
    println!("\nIts mask, keys across, in a band for each row of text; padding is at the right:");
    let band = 16;
    print!(
        "{}",
        picture(b * band, n, None, |row, key| real.valid[row / band * n + key] == 1)
    );
    println!(
        "\n{:8}{:>12}{:>12}{:>22}",
        "", "error", "naive f16", "of what is allowed"
    );
    let mut passed = true;
    for layer in &real.layers {
        let ours = match &gpu {
            Ok(stream) => on_gpu(stream, layer, &real.valid)?,
            Err(_) => on_cpu(layer, &real.valid)?,
        };
        let exact = attend(layer, &real.valid, |x| x);
        let naive = attend(layer, &real.valid, |x| f16::from_f64(x).to_f64());
        let verdict = judge(&ours, &naive, &exact);
        println!(
            "{:8}{:>12.2e}{:>12.2e}{:>21.0}%",
            layer.name,
            verdict.ours,
            verdict.naive,
            100.0 * verdict.used
        );
        passed &= verdict.used <= 1.0;
    }
    println!(
        "Errors are against f64, of the worst row, over its norm: {}",
        if passed { "passed" } else { "FAILED" }
    );
    Ok(passed)
}

fn on_cpu(layer: &Layer, valid: &[i32]) -> Result<Vec<f16>, drawloom::Error> {
    let mut o = vec![f16::NAN; layer.q.len()];
    padded::cpu(padded::Args {
        q: Tensor::host(&layer.q, SHAPE)?.transpose(1, 2),
        k: Tensor::host(&layer.k, SHAPE)?.transpose(1, 2),
        v: Tensor::host(&layer.v, SHAPE)?.transpose(1, 2),
        valid: Tensor::host(valid, [SHAPE[0], SHAPE[1]])?,
        o: TensorMut::host(&mut o, SHAPE)?.transpose(1, 2),
    })?;
    Ok(o)
}

fn on_gpu(stream: &Arc<CudaStream>, layer: &Layer, valid: &[i32]) -> Result<Vec<f16>, Box<dyn Error>> {
    let [b, n, h, _] = SHAPE;
    let operator = padded::load::<f16>(stream.context())?;
    let mut workspace = operator.workspace(stream, padded::Max { b, h, i: n, j: n })?;
    let [q, k, v] = [&layer.q, &layer.k, &layer.v].map(|tensor| stream.clone_htod(tensor));
    let (q, k, v, valid) = (q?, k?, v?, stream.clone_htod(valid)?);
    let mut o = stream.clone_htod(&vec![f16::NAN; layer.q.len()])?;
    let args = padded::Args {
        q: Tensor::new(&q, SHAPE)?.transpose(1, 2),
        k: Tensor::new(&k, SHAPE)?.transpose(1, 2),
        v: Tensor::new(&v, SHAPE)?.transpose(1, 2),
        valid: Tensor::new(&valid, [b, n])?,
        o: TensorMut::new(&mut o, SHAPE)?.transpose(1, 2),
    };
    operator.launch(stream, args, &mut workspace)?;
    Ok(stream.clone_dtoh(&o)?)
}
