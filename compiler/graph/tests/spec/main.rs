//! Specs to graphs: against direct loops, in text and back, and the recognition of their folds.

use drawloom_graph::interp::{Inputs, Tensor, check_associative, run};
use drawloom_graph::ir::FoldId;
use drawloom_graph::{from_spec, monoid, text, verify};

const SPEC: &str = "
attention streaming {
    type T in [f16, bf16];
    axis b, h, g = h / [1, 2], i: query(end), j: key, d in [8, 16], e in [8, 24];
    input q: T[b, h, i, d], k: T[b, g, j, d], v: T[b, g, j, e], slope: f32[h], doc: i32[b, j] sorted;
    scalar w: i32;
    attend o over j in (k, v) {
        score = dot(q, k) * rsqrt(len(d)) + slope[h] * (j - i);
        mask = causal && (i - j <= w || j < 1) && doc[b, i] == doc[b, j];
        norm = softmax;
    }
    output o: T[b, h, i, e], lse(o, nats): f32[b, h, i];
}";

/// A reproducible number in [-1, 1) for a point.
fn noise(seed: u64, at: &[usize]) -> f64 {
    let mut z = seed;
    for &n in at {
        z = (z ^ n as u64)
            .wrapping_add(0x9e37_79b9_7f4a_7c15)
            .wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z ^= z >> 29;
    }
    (z >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
}

struct Case {
    inputs: Inputs,
    rows: usize,
    keys: usize,
}

fn case(rows: usize, keys: usize, w: f64) -> Case {
    let mut inputs = Inputs::default();
    let mut add = |name: &str, tensor: Tensor| inputs.tensors.insert(name.to_owned(), tensor);
    add(
        "q",
        Tensor::from_fn(&[("b", 2), ("h", 4), ("i", rows), ("d", 8)], |p| noise(1, p)),
    );
    add(
        "k",
        Tensor::from_fn(&[("b", 2), ("g", 2), ("j", keys), ("d", 8)], |p| noise(2, p)),
    );
    add(
        "v",
        Tensor::from_fn(&[("b", 2), ("g", 2), ("j", keys), ("e", 8)], |p| noise(3, p)),
    );
    add("slope", Tensor::from_fn(&[("h", 4)], |p| noise(4, p)));
    add("doc", Tensor::from_fn(&[("b", 2), ("j", keys)], |p| (p[1] / 5) as f64));
    inputs.scalars.insert("w".to_owned(), w);
    Case { inputs, rows, keys }
}

/// Output and log-sum-exp by direct loops.
fn direct(case: &Case) -> (Vec<f64>, Vec<f64>) {
    let t = &case.inputs.tensors;
    let (rows, keys) = (case.rows, case.keys);
    let w = case.inputs.scalars["w"] as i64;
    let (mut out, mut lse) = (Vec::new(), Vec::new());
    for b in 0..2 {
        for h in 0..4 {
            for row in 0..rows {
                let i = row as i64 + keys as i64 - rows as i64;
                let doc = |j: i64| {
                    if j < 0 || j >= keys as i64 {
                        0.0
                    } else {
                        t["doc"].data[b * keys + j as usize]
                    }
                };
                let scores: Vec<Option<f64>> = (0..keys as i64)
                    .map(|j| {
                        let seen = j <= i && (i - j <= w || j < 1) && doc(i) == doc(j);
                        let dot: f64 = (0..8)
                            .map(|d| {
                                t["q"].data[((b * 4 + h) * rows + row) * 8 + d]
                                    * t["k"].data[((b * 2 + h / 2) * keys + j as usize) * 8 + d]
                            })
                            .sum();
                        seen.then_some(dot / 8.0_f64.sqrt() + t["slope"].data[h] * (j - i) as f64)
                    })
                    .collect();
                let sum: f64 = scores.iter().flatten().map(|s| s.exp()).sum();
                lse.push(sum.ln());
                for e in 0..8 {
                    let value = |j: usize| t["v"].data[((b * 2 + h / 2) * keys + j) * 8 + e];
                    let weighted = scores
                        .iter()
                        .enumerate()
                        .filter_map(|(j, s)| s.map(|s| s.exp() * value(j)));
                    out.push(if sum == 0.0 { 0.0 } else { weighted.sum::<f64>() / sum });
                }
            }
        }
    }
    (out, lse)
}

fn graph() -> drawloom_graph::Graph {
    let specs = drawloom_lang::parse_str("streaming.attn", SPEC).expect("the spec is right");
    let mut binding = drawloom_lang::bindings(&specs[0]).remove(0);
    binding.sizes[5] = Some(8);
    binding.sizes[6] = Some(8);
    from_spec(&specs[0], &binding)
}

fn close(a: &[f64], b: &[f64]) {
    assert_eq!(a.len(), b.len());
    for (n, (x, y)) in a.iter().zip(b).enumerate() {
        assert!(
            x == y || (x - y).abs() <= 1e-12 * y.abs().max(1.0),
            "at {n}: {x} instead of {y}"
        );
    }
}

#[test]
fn computes_what_direct_loops_compute() {
    let graph = graph();
    verify(&graph).expect("well-formed");
    // Decode, prefill, more rows than keys (empty rows), no keys at all.
    for (rows, keys, w) in [(1, 9, 3.0), (7, 7, 2.0), (6, 13, 100.0), (9, 4, 1.0), (3, 0, 1.0)] {
        let case = case(rows, keys, w);
        let (out, lse) = direct(&case);
        let results = run(&graph, &case.inputs).expect("it runs");
        close(&results["o"].data, &out);
        close(&results["lse"].data, &lse);
        assert_eq!(results["o"].axes, ["b", "h", "i", "e"]);
    }
}

#[test]
fn masked_keys_have_no_part_in_the_result() {
    let mut case = case(4, 6, 1.0);
    let (out, lse) = direct(&case);
    let graph = graph();
    // The last query sees keys 5 and 4 of document 1, and key 0 is in document 0: key 3's data may be anything to rows
    // that do not see it. Only rows at positions 3 and 4 do.
    for name in ["k", "v"] {
        let tensor = case.inputs.tensors.get_mut(name).expect("an input");
        let width = tensor.shape[3];
        for (n, x) in tensor.data.iter_mut().enumerate() {
            if n / width % 6 == 3 {
                *x = [f64::NAN, f64::INFINITY][n % 2];
            }
        }
    }
    let results = run(&graph, &case.inputs).expect("it runs");
    for row in (0..2 * 4 * 4).filter(|row| matches!(row % 4, 0 | 3)) {
        close(&results["o"].data[row * 8..row * 8 + 8], &out[row * 8..row * 8 + 8]);
        close(&results["lse"].data[row..=row], &lse[row..=row]);
    }
}

#[test]
fn prints_and_parses_back() {
    let graph = graph();
    let parsed = text::parse(&graph.to_string()).expect("what is printed parses");
    assert_eq!(parsed.graph, graph);
}

#[test]
fn its_fold_is_recognised_and_associative() {
    let graph = graph();
    let found = monoid::classify(&graph, FoldId(0)).expect("a softmax");
    assert_eq!((found.m, found.l, found.o), (0, 1, 2));
    assert!(found.mask.is_some());
    let worst = check_associative(&graph, FoldId(0), &case(3, 11, 4.0).inputs, 8, 7).expect("it runs");
    assert!(worst < 1e-12, "{worst}");
    // Another reference than the larger maximum is another fold.
    let printed = graph.to_string();
    let changed = text::parse(&printed.replacen(" = max(", " = min(", 1))
        .expect("it parses")
        .graph;
    assert_eq!(monoid::classify(&changed, FoldId(0)), None);
}

#[test]
fn an_attention_of_some_size_takes_well_under_a_second() {
    let text = "
graph plain {
    axis h, i, j, d
    q = input q[h, i, d]
    k = input k[h, j, d]
    v = input v[h, j, d]
    output s[h, i, j] = contract(q, k, [d])
    output v[h, j, d] = v
}";
    let mut b = drawloom_graph::build::Builder::from_graph(text::parse(text).expect("it parses").graph);
    let [h, i, j, d] = [0, 1, 2, 3].map(drawloom_graph::ir::Axis);
    let outputs = std::mem::take(&mut b.graph.outputs);
    let (row, column) = (b.index(i), b.index(j));
    let mask = b.binary(drawloom_graph::ir::Binary::Le, column, row);
    let keys = monoid::Keys {
        over: vec![j],
        score: outputs[0].value,
        mask: Some(mask),
        value: outputs[1].value,
    };
    let fold = monoid::log_sum_exp(&mut b, &[keys]);
    let o = monoid::normalised(&mut b, fold, 1, 2);
    b.output("o", o, &[h, i, d]);
    let graph = b.finish().expect("well-formed");
    let mut inputs = Inputs::default();
    for (seed, (name, axis)) in [("q", "i"), ("k", "j"), ("v", "j")].into_iter().enumerate() {
        let tensor = Tensor::from_fn(&[("h", 4), (axis, 300), ("d", 64)], |p| noise(seed as u64, p));
        inputs.tensors.insert(name.to_owned(), tensor);
    }
    let start = std::time::Instant::now();
    run(&graph, &inputs).expect("it runs");
    let took = start.elapsed();
    // A quarter of a second on two old cores that others use as well.
    assert!(took.as_secs() < 5, "{took:?}");
}
