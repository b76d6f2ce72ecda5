#![forbid(unsafe_code)]
#![deny(warnings)]

use drawloom::half::f16;
use drawloom::{Tensor, TensorMut};

drawloom::attn! {
    attention causal {
        type T in [f16, bf16];
        axis b, i: query(end), j: key, d in [64, 128];
        input q: T[b, i, d], k: T[b, j, d], v: T[b, j, d];
        scalar cap: f32;
        attend o over j in (k, v) { score = cap * tanh(dot(q, k) / cap); mask = causal; norm = softmax; }
        output o: T[b, i, d], lse(o, nats): f32[b, i];
    }
}

fn main() -> Result<(), drawloom::Error> {
    let (x, mut o, mut lse) = ([f16::ONE; 128], [f16::ZERO; 128], [0.0f32; 2]);
    causal::cpu(causal::Args {
        q: Tensor::host(&x, [1, 2, 64])?,
        k: Tensor::host(&x, [1, 2, 64])?,
        v: Tensor::host(&x, [1, 2, 64])?,
        cap: 10.0,
        o: TensorMut::host(&mut o, [1, 2, 64])?,
        lse: TensorMut::host(&mut lse, [1, 2])?,
    })?;
    assert_eq!(o, [f16::ONE; 128]);
    assert!((lse[1] - lse[0] - 2.0f32.ln()).abs() < 1e-6);
    Ok(())
}
