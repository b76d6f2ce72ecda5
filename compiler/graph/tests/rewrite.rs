//! Rewrites keep every output's value, refuse what they cannot keep, and yield well-formed graphs.

use drawloom_graph::build::{Builder, CompDef, FoldDef};
use drawloom_graph::interp::{Inputs, Tensor, run};
use drawloom_graph::ir::{Axis, Binary, Direction, FoldId, Graph, Mode, Op, Reduce, Side, Size, Ty, Unary, Val};
use drawloom_graph::rewrite::{Refused, simplify, split_kv};
use drawloom_graph::{from_spec, verify};
use proptest::prelude::*;

const SPECS: [(&str, &str); 7] = [
    ("alibi", include_str!("../../../specs/alibi.attn")),
    ("causal", include_str!("../../../specs/causal.attn")),
    ("dense", include_str!("../../../specs/dense.attn")),
    ("document", include_str!("../../../specs/document.attn")),
    ("gqa_causal", include_str!("../../../specs/gqa_causal.attn")),
    ("softcap", include_str!("../../../specs/softcap.attn")),
    ("streaming", include_str!("../../../specs/streaming.attn")),
];

/// Numbers that look random, from a seed: enough for tensors.
fn noise(seed: u64) -> impl FnMut() -> f64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}

/// Values for every input of a graph. Integer tables are sorted.
fn inputs(graph: &Graph, sizes: &[(&str, usize)], seed: u64) -> Inputs {
    let mut next = noise(seed);
    let mut found = Inputs::default();
    found.sizes.extend(sizes.iter().map(|(n, s)| ((*n).to_owned(), *s)));
    for node in &graph.nodes {
        match &node.op {
            Op::Input { name, axes } => {
                let size = |a: &Axis| {
                    let def = &graph.axes[a.index()];
                    let given = sizes.iter().find(|(n, _)| *n == def.name).map(|(_, s)| *s);
                    match def.size {
                        Size::Const(n) => n as usize,
                        _ => given.expect("a size for every run-time axis"),
                    }
                };
                let shape: Vec<(&str, usize)> = axes
                    .iter()
                    .map(|a| (graph.axes[a.index()].name.as_str(), size(a)))
                    .collect();
                let sorted = node.ty == Ty::Int;
                let tensor = Tensor::from_fn(&shape, |at| {
                    if sorted {
                        (at[at.len() - 1] / 3) as f64
                    } else {
                        2.0 * next()
                    }
                });
                found.tensors.insert(name.clone(), tensor);
            }
            Op::Scalar(name) => drop(found.scalars.insert(name.clone(), 0.5 + next().abs())),
            _ => {}
        }
    }
    found
}

fn assert_same(a: &Graph, b: &Graph, inputs: &Inputs) {
    verify(b).expect("a well-formed graph");
    let (x, y) = (run(a, inputs).expect("a value"), run(b, inputs).expect("a value"));
    assert_eq!(x.keys().collect::<Vec<_>>(), y.keys().collect::<Vec<_>>());
    for (name, x) in &x {
        let y = &y[name];
        assert_eq!((&x.axes, &x.shape), (&y.axes, &y.shape));
        for (n, (p, q)) in x.data.iter().zip(&y.data).enumerate() {
            assert!(
                p == q || (p - q).abs() <= 1e-11 * p.abs().max(1.0),
                "{name}[{n}]: {p} became {q}"
            );
        }
    }
}

fn spec_graph(name: &str) -> Graph {
    let text = SPECS.iter().find(|(n, _)| *n == name).expect("a spec").1;
    let spec = &drawloom_lang::parse_str(name, text).expect("a spec of this repository")[0];
    let mut bindings = drawloom_lang::bindings(spec);
    bindings.retain(|b| b.sizes.iter().flatten().all(|d| *d == 32));
    from_spec(spec, &bindings[0])
}

#[test]
fn every_spec_may_be_split() {
    for (name, _) in SPECS {
        let graph = spec_graph(name);
        let keys = graph.axis("j").expect("keys");
        let split = split_kv(&graph, FoldId(0), keys, "j_split").expect("an associative fold");
        for (i, j) in [(1, 1), (3, 7), (5, 3), (2, 0), (4, 4)] {
            for splits in 1..5 {
                let sizes = [("b", 2), ("h", 4), ("g", 1), ("i", i), ("j", j), ("j_split", splits)];
                let inputs = inputs(&graph, &sizes, i as u64);
                assert_same(&graph, &split, &inputs);
            }
        }
        assert_same(
            &split,
            &simplify(&split),
            &inputs(
                &graph,
                &[("b", 1), ("h", 4), ("g", 1), ("i", 3), ("j", 8), ("j_split", 3)],
                5,
            ),
        );
    }
}

/// `s -> a s + x` as an associative fold of affine maps, which do not commute.
fn affine(direction: Direction, mode: Mode, associative: bool) -> Graph {
    let mut b = Builder::new("affine");
    let (t, u, c) = (
        b.axis("t", Size::Runtime),
        b.axis("u", Size::Const(2)),
        b.axis("c", Size::Const(3)),
    );
    let (a, x) = (b.input("a", &[t, u], Ty::Real), b.input("x", &[t, u, c], Ty::Real));
    let (one, zero) = (b.real(1.0), b.real(0.0));
    let over = if mode == Mode::Reduce {
        vec![vec![t, u]]
    } else {
        vec![vec![t]]
    };
    let comp = |name: &str, axes: &[Axis], init, lift| CompDef {
        name: name.to_owned(),
        axes: axes.to_vec(),
        init,
        lift: vec![lift],
    };
    let own: &[Axis] = if mode == Mode::Reduce { &[] } else { &[u] };
    let comps = vec![comp("a", own, one, a), comp("s", &[own, &[c]].concat(), zero, x)];
    let fold = b.fold(
        FoldDef {
            over,
            direction,
            mode,
            associative,
        },
        comps,
    );
    let hole = |b: &mut Builder, n, side| b.hole(fold, n, side);
    let (al, ar) = (hole(&mut b, 0, Side::Left), hole(&mut b, 0, Side::Right));
    let (sl, sr) = (hole(&mut b, 1, Side::Left), hole(&mut b, 1, Side::Right));
    let product = b.binary(Binary::Mul, al, ar);
    let moved = b.binary(Binary::Mul, sl, ar);
    let sum = b.binary(Binary::Add, moved, sr);
    b.combine(fold, &[product, sum]);
    let (a, s) = (b.get(fold, 0), b.get(fold, 1));
    let twice = b.binary(Binary::Add, s, s);
    let axes = |b: &Builder, v: Val| b.axes(v).to_vec();
    let (of_a, of_s) = (axes(&b, a), axes(&b, twice));
    b.output("a", a, &of_a);
    b.output("s", twice, &of_s);
    b.finish().expect("a well-formed graph")
}

#[test]
fn splitting_keeps_the_order_of_maps_that_do_not_commute() {
    for direction in [Direction::Forward, Direction::Backward] {
        let graph = affine(direction, Mode::Reduce, true);
        let split = split_kv(&graph, FoldId(0), Axis(0), "split").expect("an associative fold");
        for t in 0..9 {
            for splits in 1..4 {
                assert_same(
                    &graph,
                    &split,
                    &inputs(&graph, &[("t", t), ("split", splits)], 3 + t as u64),
                );
            }
        }
    }
}

#[test]
fn what_cannot_be_split_is_refused() {
    let graph = affine(Direction::Forward, Mode::Reduce, true);
    assert_eq!(
        split_kv(&graph, FoldId(1), Axis(0), "split"),
        Err(Refused::NoFold(FoldId(1)))
    );
    assert_eq!(
        split_kv(&graph, FoldId(0), Axis(0), "c"),
        Err(Refused::Taken("c".to_owned()))
    );
    let range = |axis: &str| {
        Err(Refused::Range {
            fold: FoldId(0),
            axis: axis.to_owned(),
        })
    };
    assert_eq!(split_kv(&graph, FoldId(0), Axis(1), "split"), range("u"));
    assert_eq!(split_kv(&graph, FoldId(0), Axis(9), "split"), range("ax9"));
    let sequential = affine(Direction::Forward, Mode::Reduce, false);
    assert_eq!(
        split_kv(&sequential, FoldId(0), Axis(0), "split"),
        Err(Refused::NotAssociative(FoldId(0)))
    );
    let prefix = affine(Direction::Forward, Mode::Inclusive, true);
    assert_eq!(
        split_kv(&prefix, FoldId(0), Axis(0), "split"),
        Err(Refused::Prefix(FoldId(0)))
    );

    // A combine that reads the point is no combine of blocks, whatever it claims.
    let mut b = Builder::new("point");
    let t = b.axis("t", Size::Runtime);
    let (x, zero) = (b.input("x", &[t], Ty::Real), b.real(0.0));
    let def = FoldDef {
        over: vec![vec![t]],
        direction: Direction::Forward,
        mode: Mode::Reduce,
        associative: true,
    };
    let fold = b.fold(
        def,
        vec![CompDef {
            name: "s".to_owned(),
            axes: Vec::new(),
            init: zero,
            lift: vec![x],
        }],
    );
    let (l, r) = (b.hole(fold, 0, Side::Left), b.hole(fold, 0, Side::Right));
    let scaled = b.binary(Binary::Mul, l, x);
    let sum = b.binary(Binary::Add, scaled, r);
    b.combine(fold, &[sum]);
    let s = b.get(fold, 0);
    b.output("s", s, &[]);
    let graph = b.finish().expect("a well-formed graph");
    assert_eq!(
        split_kv(&graph, fold, t, "split"),
        Err(Refused::ReadsPoint { fold, value: x })
    );
}

#[test]
fn simplifying_the_specs_keeps_them() {
    for (name, _) in SPECS {
        let graph = spec_graph(name);
        let simple = simplify(&graph);
        let has_root = simple.nodes.iter().any(|n| matches!(n.op, Op::Unary(Unary::Rsqrt, _)));
        assert!(!has_root, "{name}: the size of `d` is a constant");
        let sizes = [("b", 2), ("h", 4), ("g", 2), ("i", 3), ("j", 5)];
        assert_same(&graph, &simple, &inputs(&graph, &sizes, 7));
        assert_eq!(simplify(&simple), simple, "{name}");
    }
}

#[test]
fn neutral_operations_vanish() {
    let mut b = Builder::new("neutral");
    let t = b.axis("t", Size::Runtime);
    let d = b.axis("d", Size::Const(64));
    let (x, n) = (b.input("x", &[t], Ty::Real), b.index(t));
    let (zero, one, len) = (b.int(0), b.real(1.0), b.len(d));
    let real = b.unary(Unary::ToReal, len);
    let root = b.unary(Unary::Sqrt, real);
    let eighth = b.binary(Binary::Div, x, root);
    let scaled = b.binary(Binary::Mul, eighth, one);
    let twice = b.unary(Unary::Neg, scaled);
    let twice = b.unary(Unary::Neg, twice);
    let (yes, no) = (b.op(Op::Bool(true)), b.op(Op::Bool(false)));
    let small = b.binary(Binary::Lt, n, len);
    let both = b.binary(Binary::And, small, yes);
    let either = b.binary(Binary::Or, no, both);
    let n0 = b.binary(Binary::Add, n, zero);
    let kept = b.select(either, twice, x);
    let unused = b.reduce(Reduce::Sum, x, &[t]);
    b.unary(Unary::Exp, unused);
    b.output("kept", kept, &[t]);
    b.output("n", n0, &[t]);
    let simple = simplify(&b.finish().expect("a well-formed graph"));
    // x, index, 64, 8.0, x / 8, n < 64, select
    assert_eq!(simple.nodes.len(), 7, "{simple:?}");
    assert!(simple.nodes.iter().any(|n| n.op == Op::Real(8.0)));
    assert!(matches!(simple.node(simple.outputs[1].value).op, Op::Index(_)));
}

#[test]
fn a_product_with_zero_stays() {
    let mut b = Builder::new("zero");
    let t = b.axis("t", Size::Runtime);
    let (x, zero) = (b.input("x", &[t], Ty::Real), b.real(0.0));
    let product = b.binary(Binary::Mul, x, zero);
    b.output("y", product, &[t]);
    let graph = b.finish().expect("a well-formed graph");
    let mut inputs = inputs(&graph, &[("t", 2)], 1);
    inputs.tensors.insert(
        "x".to_owned(),
        Tensor::from_fn(&[("t", 2)], |at| if at[0] == 0 { f64::NAN } else { 3.0 }),
    );
    let y = &run(&simplify(&graph), &inputs).expect("a value")["y"].data;
    assert!(y[0].is_nan() && y[1] == 0.0, "{y:?}");
}

/// A pointwise program: each step takes two of the values so far.
fn program(steps: &[(u8, u16, u16)]) -> Graph {
    let mut b = Builder::new("program");
    let (t, u) = (b.axis("t", Size::Runtime), b.axis("u", Size::Const(3)));
    let x = b.input("x", &[t], Ty::Real);
    let y = b.input("y", &[t, u], Ty::Real);
    let mut reals = vec![x, y, b.real(0.0), b.real(1.0), b.real(-2.5)];
    let (i, j) = (b.index(t), b.index(u));
    let mut ints = vec![i, j, b.int(0), b.int(1), b.int(3), b.len(u), b.len(t)];
    let mut bools = vec![b.op(Op::Bool(true)), b.op(Op::Bool(false))];
    let pick = |of: &[Val], n: u16| of[usize::from(n) % of.len()];
    for &(op, n, m) in steps {
        const ARITHMETIC: [Binary; 5] = [Binary::Add, Binary::Sub, Binary::Mul, Binary::Min, Binary::Max];
        const COMPARE: [Binary; 3] = [Binary::Lt, Binary::Le, Binary::Eq];
        let arithmetic = ARITHMETIC[usize::from(op) % 5];
        match op % 9 {
            0 | 1 => reals.push(b.binary(arithmetic, pick(&reals, n), pick(&reals, m))),
            2 | 3 => ints.push(b.binary(arithmetic, pick(&ints, n), pick(&ints, m))),
            4 => bools.push(b.binary(COMPARE[usize::from(op) % 3], pick(&ints, n), pick(&ints, m))),
            5 => bools.push(b.binary(
                if op % 2 == 0 { Binary::And } else { Binary::Or },
                pick(&bools, n),
                pick(&bools, m),
            )),
            6 => bools.push(b.unary(Unary::Not, pick(&bools, n))),
            7 => reals.push(b.select(pick(&bools, n), pick(&reals, m), pick(&reals, n))),
            _ => {
                const UNARY: [Unary; 4] = [Unary::Neg, Unary::Abs, Unary::Tanh, Unary::Neg];
                reals.push(b.unary(UNARY[usize::from(m) % 4], pick(&reals, n)));
                ints.push(b.binary(
                    if op % 2 == 0 { Binary::Div } else { Binary::Rem },
                    pick(&ints, n),
                    pick(&ints, m),
                ));
            }
        }
    }
    let last = [reals[reals.len() - 1], ints[ints.len() - 1], bools[bools.len() - 1]];
    for (name, v) in ["real", "int", "bool"].into_iter().zip(last) {
        let axes = b.axes(v).to_vec();
        b.output(name, v, &axes);
    }
    b.finish().expect("a well-formed graph")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn simplifying_keeps_random_programs(steps in prop::collection::vec(any::<(u8, u16, u16)>(), 1..24), t in 0usize..4) {
        let graph = program(&steps);
        let mut inputs = inputs(&graph, &[("t", t)], 11);
        for (name, shape) in [("x", vec![("t", t)]), ("y", vec![("t", t), ("u", 3)])] {
            let mut next = noise(t as u64 + 2);
            inputs.tensors.insert(name.to_owned(), Tensor::from_fn(&shape, |_| next()));
        }
        let simple = simplify(&graph);
        verify(&simple).expect("a well-formed graph");
        prop_assert_eq!(run(&graph, &inputs).expect("a value"), run(&simple, &inputs).expect("a value"));
    }
}
