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
    let context = drawloom::context(0)?;
    causal::load::<f32>(&context)?;
    Ok(())
}
