drawloom::attn! {
    attention causal {
        axis b, i: query(end), j: key, d = 64;
        input q: f16[b, i, e], k: f16[b, j, d], v: f16[b, j, d];
        attend o over j in (k, v) { score = dot(q, k) + z; mask = causl; norm = softmax; }
        output o: f16[b, i, d];
    }
}

fn main() {}
