//! A user's program: it builds from packaged crates and a checked-in artifact alone, and checks what it computes.
//!
//! Where there is a driver the kernels run; where there is none that is an error value, never a panic, and the CPU form
//! computes the same.

use drawloom::half::f16;
use drawloom::{Tensor, TensorMut};
use std::error::Error;

drawloom::attn! {
    /// Causal attention.
    /// Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.2.3.
    pub attention causal {
        type T in [f16];
        axis b, h, i: query(end), j: key, d = 64;
        input q: T[b, h, i, d], k: T[b, h, j, d], v: T[b, h, j, d];
        attend o over j in (k, v) {
            score = dot(q, k) * rsqrt(len(d));
            mask = causal;
            norm = softmax;
        }
        output o: T[b, h, i, d];
    }
}

const SHAPE: [usize; 4] = [1, 2, 48, 64];

fn main() -> Result<(), Box<dyn Error>> {
    let [q, k, v] = [1, 2, 3].map(input);
    let mut o = vec![f16::NAN; q.len()];
    match drawloom::context(0) {
        Ok(context) => {
            let stream = context.default_stream();
            let copy = |host: &[f16]| stream.clone_htod(host);
            let (q, k, v, mut out) = (copy(&q)?, copy(&k)?, copy(&v)?, copy(&o)?);
            let operator = causal::load::<f16>(&context)?;
            let mut workspace = operator.workspace(
                &stream,
                causal::Max {
                    b: 1,
                    h: 2,
                    i: 48,
                    j: 48,
                },
            )?;
            let args = causal::Args {
                q: Tensor::new(&q, SHAPE)?,
                k: Tensor::new(&k, SHAPE)?,
                v: Tensor::new(&v, SHAPE)?,
                o: TensorMut::new(&mut out, SHAPE)?,
            };
            operator.launch(&stream, args, &mut workspace)?;
            o = stream.clone_dtoh(&out)?;
            println!("on the device:");
        }
        Err(drawloom::Error::NoDriver) => {
            causal::cpu(causal::Args {
                q: Tensor::host(&q, SHAPE)?,
                k: Tensor::host(&k, SHAPE)?,
                v: Tensor::host(&v, SHAPE)?,
                o: TensorMut::host(&mut o, SHAPE)?,
            })?;
            println!("no driver, so on the CPU:");
        }
        Err(error) => return Err(error.into()),
    }
    let error = largest_error(&q, &k, &v, &o);
    println!("largest error against f64: {error:.1e}");
    assert!(error < 2e-3, "the result is wrong");
    Ok(())
}

/// Numbers in -1..1 that differ from seed to seed.
fn input(seed: u32) -> Vec<f16> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f16::from_f32((state >> 8) as f32 / (1 << 23) as f32 - 1.0)
    };
    (0..SHAPE.iter().product()).map(|_| next()).collect()
}

fn largest_error(q: &[f16], k: &[f16], v: &[f16], o: &[f16]) -> f64 {
    let [_, heads, n, d] = SHAPE;
    let mut worst = 0.0;
    for (head, i) in (0..heads).flat_map(|head| (0..n).map(move |i| (head, i))) {
        let row =
            |t: &[f16], at: usize| -> Vec<f64> { t[(head * n + at) * d..][..d].iter().map(|x| x.to_f64()).collect() };
        let query = row(q, i);
        let score = |j: usize| query.iter().zip(row(k, j)).map(|(a, b)| a * b).sum::<f64>() / (d as f64).sqrt();
        let weights: Vec<f64> = (0..=i).map(|j| score(j).exp()).collect();
        let sum: f64 = weights.iter().sum();
        for (feature, ours) in row(o, i).into_iter().enumerate() {
            let exact: f64 = weights
                .iter()
                .enumerate()
                .map(|(j, w)| w / sum * row(v, j)[feature])
                .sum();
            let error = (ours - exact).abs();
            worst = if error > worst || error.is_nan() { error } else { worst };
        }
    }
    worst
}
