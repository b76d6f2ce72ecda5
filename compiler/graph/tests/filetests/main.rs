//! The graphs in `tests/filetests/graph`: interpreted and compared with independent formulas, wrong ones with the errors
//! that they expect, and all of them printed and parsed back.
//!
//! A header line is one of
//! `; test interpret FORMULA` (compare with that function of `formulas`),
//! `; test verify` (expect each `; error: TEXT` on its line and no other error),
//! `; size a = 3, b = 4` (run-time sizes) and
//! `; input x in LO..HI`, `; input x in int LO..HI` (values; otherwise reals in -1..1).

mod formulas;
mod gradients;

use drawloom_graph::interp::{Inputs, Tensor, check_associative, run};
use drawloom_graph::ir::{FoldId, Graph, Op, Size};
use drawloom_graph::{text, verify};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What a formula computes from.
pub struct Case {
    /// Inputs, and the sizes of all axes.
    pub inputs: Inputs,
}

impl Case {
    /// An element of an input.
    pub fn at(&self, name: &str, point: &[usize]) -> f64 {
        let tensor = &self.inputs.tensors[name];
        tensor.data[point.iter().zip(&tensor.shape).fold(0, |at, (p, n)| at * n + p)]
    }

    /// The size of a run-time axis.
    pub fn len(&self, axis: &str) -> usize {
        self.inputs.sizes[axis]
    }
}

fn files(folder: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/filetests/graph")
        .join(folder);
    let entries = std::fs::read_dir(&root).unwrap_or_else(|e| panic!("{}: {e}", root.display()));
    let mut files: Vec<(PathBuf, String)> = entries
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|e| e == "graph"))
        .map(|path| (path.clone(), std::fs::read_to_string(path).expect("a readable file")))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no graphs in {}", root.display());
    files
}

fn header<'t>(text: &'t str, word: &str) -> Vec<&'t str> {
    text.lines()
        .filter_map(|l| l.strip_prefix("; ")?.strip_prefix(word)?.strip_prefix(' '))
        .collect()
}

/// A reproducible number in [0, 1).
fn noise(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

fn case(graph: &Graph, text: &str, seed: u64) -> Case {
    let mut inputs = Inputs::default();
    for pair in header(text, "size").iter().flat_map(|l| l.split(',')) {
        let (name, size) = pair.split_once('=').expect("`axis = size`");
        inputs
            .sizes
            .insert(name.trim().to_owned(), size.trim().parse().expect("a size"));
    }
    let mut ranges = BTreeMap::new();
    for line in header(text, "input") {
        let (name, range) = line.split_once(" in ").expect("`input x in a..b`");
        let integer = range.starts_with("int ");
        let (lo, hi) = range.trim_start_matches("int ").split_once("..").expect("`a..b`");
        let number = |s: &str| s.parse::<f64>().expect("a number");
        ranges.insert(name, (integer, number(lo), number(hi)));
    }
    for axis in &graph.axes {
        let size = match axis.size {
            Size::Runtime => continue,
            Size::Const(n) => n as usize,
            Size::Same(of) => inputs.sizes[&graph.axes[of.index()].name],
            Size::CeilDiv { of, by } => inputs.sizes[&graph.axes[of.index()].name].div_ceil(by as usize),
        };
        inputs.sizes.insert(axis.name.clone(), size);
    }
    let mut state = seed;
    for node in &graph.nodes {
        let Op::Input { name, axes } = &node.op else { continue };
        let (integer, lo, hi) = ranges.get(name.as_str()).copied().unwrap_or((false, -1.0, 1.0));
        let axes: Vec<(&str, usize)> = axes
            .iter()
            .map(|a| graph.axes[a.index()].name.as_str())
            .map(|n| (n, inputs.sizes[n]))
            .collect();
        let tensor = Tensor::from_fn(&axes, |_| {
            let x = lo + (hi - lo) * noise(&mut state);
            if integer { x.floor() } else { x }
        });
        inputs.tensors.insert(name.clone(), tensor);
    }
    Case { inputs }
}

#[test]
fn graphs_compute_their_formulas() {
    let mut compared = 0;
    for (path, text) in files("") {
        let name = path.display();
        let graph = text::parse(&text).unwrap_or_else(|e| panic!("{name}: {e}")).graph;
        verify(&graph).unwrap_or_else(|e| panic!("{name}: {e}\n{graph}"));
        let tests = header(&text, "test");
        let formula = tests[0]
            .strip_prefix("interpret ")
            .unwrap_or_else(|| panic!("{name}: no formula"));
        for seed in 0..4 {
            let case = case(&graph, &text, seed);
            let results = run(&graph, &case.inputs).unwrap_or_else(|e| panic!("{name}: {e}"));
            for (output, expected) in formulas::formula(formula, &case) {
                let found = &results[output].data;
                assert_eq!(found.len(), expected.len(), "{name}: `{output}`");
                let scale = expected
                    .iter()
                    .filter(|x| x.is_finite())
                    .fold(1e-300_f64, |m, x| m.max(x.abs()));
                for (at, (x, y)) in found.iter().zip(&expected).enumerate() {
                    assert!(
                        x == y || (x - y).abs() <= 1e-9 * scale,
                        "{name}: `{output}` at {at}: {x} instead of {y}"
                    );
                }
                compared += 1;
            }
            for (n, fold) in graph.folds.iter().enumerate().filter(|(_, f)| f.associative) {
                let worst = check_associative(&graph, FoldId(n as u32), &case.inputs, 4, seed)
                    .unwrap_or_else(|e| panic!("{name}: {e}"));
                assert!(
                    worst < 1e-9,
                    "{name}: fold {n} over {:?} re-associates to {worst}",
                    fold.over
                );
            }
        }
    }
    assert!(compared >= 14 * 4, "{compared} comparisons");
}

#[test]
fn wrong_graphs_are_refused_where_they_are_wrong() {
    for (path, text) in files("errors") {
        let name = path.display();
        let parsed = text::parse(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        let errors = verify(&parsed.graph).expect_err("an error").0;
        let mut found: Vec<(u32, String)> = errors
            .into_iter()
            .map(|e| (parsed.lines.of(e.place).expect("a line"), e.message))
            .collect();
        found.sort();
        let expected: Vec<(u32, &str)> = text
            .lines()
            .enumerate()
            .filter_map(|(n, l)| Some((n as u32 + 1, l.split_once("; error: ")?.1)))
            .collect();
        assert_eq!(found.len(), expected.len(), "{name}: {found:?}");
        for ((line, message), (at, part)) in found.iter().zip(&expected) {
            assert!(line == at && message.contains(part), "{name}: line {line}: {message}");
        }
    }
}

#[test]
fn what_is_printed_parses_to_the_same_graph() {
    for (path, text) in files("").into_iter().chain(files("errors")) {
        let graph = text::parse(&text)
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
            .graph;
        let printed = graph.to_string();
        let again = text::parse(&printed)
            .unwrap_or_else(|e| panic!("{}: {e}\n{printed}", path.display()))
            .graph;
        assert!(again == graph, "{}:\n{printed}\n{again}", path.display());
    }
}

#[test]
fn what_is_no_graph_is_refused_with_its_line() {
    let deep = format!("graph g {{\n x = {}1{}\n}}", "(".repeat(500), ")".repeat(500));
    for (text, line, message) in [
        ("graph g {\n axis i\n x = input x[k]\n}", 3, "no axis `k`"),
        ("graph g {\n x = y + 1\n}", 2, "no value `y`"),
        ("graph g {\n x = 1.0 2\n}", 2, "expected the end of the line, found `2`"),
        ("graph g {\n x = frobnicate(1.0)\n}", 2, "no operation `frobnicate`"),
        ("graph g {\n x = left(m)\n}", 2, "no component `m` here"),
        (
            "graph g {\n axis i\n fold f over i {\n state s[] = 0.0, lift 1.0\n }\n}",
            5,
            "component `s` is not combined",
        ),
        ("graph g {", 1, "expected"),
        ("graph g {\n x = $\n}", 2, "unexpected `$`"),
        (deep.as_str(), 2, "nested too deeply"),
    ] {
        let error = text::parse(text).expect_err("no graph");
        assert!(error.message.contains(message), "{error}");
        assert_eq!(error.line, line, "{error}");
    }
}

#[test]
fn hostile_graphs_do_not_panic() {
    // A long chain of operations.
    let mut chain = "graph g {\n axis i\n v0 = input x[i]\n".to_owned();
    for n in 1..5000 {
        chain += &format!(" v{n} = exp(v{})\n", n - 1);
    }
    chain += " output y[i] = v4999\n}";
    let graph = text::parse(&chain).expect("it parses").graph;
    let mut inputs = Inputs::default();
    inputs
        .tensors
        .insert("x".to_owned(), Tensor::from_fn(&[("i", 2)], |_| 0.0));
    assert!(
        run(&graph, &inputs)
            .expect_err("too deep")
            .to_string()
            .contains("operations deep")
    );
    // Numbers that name nothing.
    for (_, text) in files("") {
        let good = text::parse(&text).expect("it parses").graph;
        for n in 0..good.nodes.len() {
            for wrong in [0, n as u32, 7, u32::MAX] {
                let mut bad = good.clone();
                for node in &mut bad.nodes[n..=n] {
                    match &mut node.op {
                        Op::Unary(_, a) | Op::Binary(_, a, _) | Op::Contract { a, .. } => a.0 = wrong,
                        Op::Gather { at, .. } => at.iter_mut().for_each(|p| p.0.0 = wrong),
                        Op::Hole { fold, .. } => fold.0 = wrong,
                        Op::Get { comp, .. } => *comp = wrong,
                        Op::Index(axis) => axis.0 = wrong,
                        _ => node.axes.clear(),
                    }
                }
                if let Some(fold) = bad.folds.first_mut() {
                    fold.comps[0].combine.0 = wrong;
                }
                // Either is right; neither may panic.
                let _ = (verify(&bad).is_ok(), bad.to_string());
            }
        }
    }
}
