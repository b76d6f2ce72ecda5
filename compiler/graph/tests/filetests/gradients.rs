//! Gradients against central differences of the interpreted graphs.

use super::{Case, case, files, noise};
use drawloom_graph::interp::{Tensor, run};
use drawloom_graph::ir::{Graph, Op, Ty};
use drawloom_graph::{differentiate, text, verify};

/// Graph, and the outputs whose cotangents are given.
const CASES: [(&str, &[&str]); 12] = [
    ("attention", &["o"]),
    ("lightning_recurrent", &["o"]),
    ("lightning_chunked", &["o"]),
    ("delta_sequential", &["o"]),
    ("delta_affine", &["o"]),
    ("delta_chunked", &["o"]),
    ("agent", &["o"]),
    ("var", &["o"]),
    ("routing", &["o"]),
    ("third_order", &["o"]),
    ("combiner", &["o"]),
    ("landmark", &["o"]),
];

fn named(name: &str) -> (Graph, String) {
    let (_, text) = files("")
        .into_iter()
        .find(|(path, _)| path.file_stem().is_some_and(|s| s == name))
        .unwrap_or_else(|| panic!("no file `{name}`"));
    (text::parse(&text).expect("it parses").graph, text)
}

fn real_inputs(graph: &Graph) -> Vec<&str> {
    let real = graph.nodes.iter().filter(|n| n.ty == Ty::Real);
    real.filter_map(|n| match &n.op {
        Op::Input { name, .. } => Some(name.as_str()),
        _ => None,
    })
    .collect()
}

/// The outputs weighted with their cotangents.
fn loss(graph: &Graph, case: &Case, cotangents: &[(&str, Vec<f64>)]) -> f64 {
    let results = run(graph, &case.inputs).expect("it runs");
    cotangents
        .iter()
        .flat_map(|(name, d)| results[*name].data.iter().zip(d))
        .map(|(x, d)| x * d)
        .sum()
}

/// Cotangents for the outputs, put among the inputs.
fn cotangents<'n>(graph: &Graph, case: &mut Case, of: &[&'n str], seed: u64) -> Vec<(&'n str, Vec<f64>)> {
    let results = run(graph, &case.inputs).expect("it runs");
    let mut state = seed;
    of.iter()
        .map(|&name| {
            let data: Vec<f64> = results[name]
                .data
                .iter()
                .map(|_| 2.0 * noise(&mut state) - 1.0)
                .collect();
            let tensor = Tensor {
                data: data.clone(),
                ..results[name].clone()
            };
            case.inputs.tensors.insert(format!("d_{name}"), tensor);
            (name, data)
        })
        .collect()
}

fn compare(graph: &Graph, text: &str, of: &[&str], seed: u64) {
    let wrt = real_inputs(graph);
    let backward = differentiate(graph, &wrt, of).unwrap_or_else(|e| panic!("{}: {e}", graph.name));
    verify(&backward).expect("well-formed");
    assert_eq!(text::parse(&backward.to_string()).expect("it parses").graph, backward);
    let mut case = case(graph, text, seed);
    let weights = cotangents(graph, &mut case, of, seed + 100);
    let gradients = run(&backward, &case.inputs).unwrap_or_else(|e| panic!("{}: {e}", graph.name));
    for name in wrt {
        let gradient = &gradients[&format!("d_{name}")];
        assert_eq!(gradient.shape, case.inputs.tensors[name].shape);
        let scale = gradient.data.iter().fold(1.0_f64, |m, x| m.max(x.abs()));
        for (n, found) in gradient.data.iter().enumerate() {
            let mut at = |delta: f64| {
                let kept = case.inputs.tensors[name].data[n];
                let element = |case: &mut Case, x| {
                    case.inputs.tensors.get_mut(name).expect("an input").data[n] = x;
                };
                element(&mut case, kept + delta);
                let value = loss(graph, &case, &weights);
                element(&mut case, kept);
                value
            };
            let step = 1e-5;
            let expected = (at(step) - at(-step)) / (2.0 * step);
            let what = format!("{}: d_{name} at {n}: {found}, by differences {expected}", graph.name);
            assert!((found - expected).abs() <= 1e-7 * scale, "{what}");
        }
    }
}

#[test]
fn gradients_are_those_of_central_differences() {
    for (name, of) in CASES {
        let (graph, text) = named(name);
        for seed in 0..2 {
            compare(&graph, &text, of, seed);
        }
    }
}

#[test]
fn the_log_sum_exp_has_a_gradient_too() {
    let (graph, text) = named("attention");
    // Every row sees something: negative infinity has no differences.
    let text = text
        .replace("input own in int 0..4", "input own in int 0..1")
        .replace("int 0..3", "int 0..1");
    compare(&graph, &text, &["o", "lse"], 3);
}

#[test]
fn rows_that_see_nothing_have_zero_gradients() {
    let (graph, text) = named("attention");
    let text = text.replace("input own in int 0..4", "input own in int 3..4");
    let wrt = real_inputs(&graph);
    let backward = differentiate(&graph, &wrt, &["o", "lse"]).expect("a derivative");
    let mut case = case(&graph, &text, 5);
    cotangents(&graph, &mut case, &["o", "lse"], 6);
    for (name, gradient) in run(&backward, &case.inputs).expect("it runs") {
        assert!(gradient.data.iter().all(|&x| x == 0.0), "{name}: {:?}", gradient.data);
    }
}

#[test]
fn softmax_has_the_same_gradient_as_any_fold() {
    // A fold with a component too many is not recognised, and goes the way of all folds; its `m` alone is asked for too.
    let (graph, text) = named("attention");
    let other = text
        .replace(
            "    m = max",
            "    state n[i] = 0.0, lift 1.0\n        combine n = left(n) + right(n)\n        m = max",
        )
        .replace("output lse[i] =", "output m[i] = get(row.m)\n    output lse[i] =");
    let same = text.replace("output lse[i] =", "output m[i] = get(row.m)\n    output lse[i] =");
    assert_eq!(graph.folds.len(), 1);
    for text in [other, same] {
        let text = text
            .replace("input own in int 0..4", "input own in int 0..1")
            .replace("int 0..3", "int 0..1");
        let graph = text::parse(&text).expect("it parses").graph;
        compare(&graph, &text, &["o", "m", "lse"], 9);
    }
}

#[test]
fn folds_without_a_derivative_are_refused() {
    for (name, of, reason) in [("titans", "y", "lies in a region"), ("routing", "nothing", "no output")] {
        let (graph, _) = named(name);
        let error = differentiate(&graph, &["q", "k"], &[of])
            .expect_err("no derivative")
            .to_string();
        assert!(error.contains(reason), "{error}");
    }
}
