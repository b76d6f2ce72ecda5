// In a module with a visibility, in a function, under another name of the crate, several at once.
mod inside {
    drawloom::attn! {
        pub(super) attention first {
            axis b, i: query(end), j: key, d = 64;
            input q: f16[b, i, d], k: f16[b, j, d], v: f16[b, j, d];
            attend o over j in (k, v) { score = dot(q, k); norm = softmax; }
            output o: f16[b, i, d];
        }
        pub(super) attention second {
            axis b, i: query(end), j: key, d = 64;
            input q: bf16[b, i, d], k: bf16[b, j, d], v: bf16[b, j, d];
            attend o over j in (k, v) { score = dot(q, k); norm = softmax; }
            output o: bf16[b, i, d];
        }
    }
}

extern crate drawloom as loom;

macro_rules! local {
    ($krate:ident) => {
        drawloom::attn! {
            crate = ::$krate;
            attention local {
                axis b, i: query(end), j: key, d = 64;
                input q: f16[b, i, d], k: f16[b, j, d], v: f16[b, j, d];
                attend o over j in (k, v) { score = dot(q, k); norm = softmax; }
                output o: f16[b, i, d];
            }
        }
    };
}

fn main() {
    local!(drawloom);
    let _: fn(local::Args<'_>) -> Result<(), loom::Error> = local::cpu;
    let _: fn(inside::first::Args<'_>) -> Result<(), loom::Error> = inside::first::cpu;
    let _ = inside::second::Max { b: 1, i: 2, j: 3 };
}
