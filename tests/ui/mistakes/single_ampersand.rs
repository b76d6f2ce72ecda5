drawloom::attn! {
    attention causal {
        axis b, i: query(end), j: key, d = 64;
        input q: f16[b, i, d], k: f16[b, j, d], v: f16[b, j, d];
        attend o over j in (k, v) { score = dot(q, k); mask = causal & i - j <= 64; norm = softmax; }
        output o: f16[b, i, d];
    }
}

fn main() {}
