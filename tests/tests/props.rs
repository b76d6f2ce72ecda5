//! Properties over random specs and shapes, and the named cases, on the engines of this crate.

use drawloom_graph::ir::FoldId;
use drawloom_graph::ranges::{Context, Env, MAX_PIECES, Table, analyse, plan_tiles};
use drawloom_graph::rewrite::{simplify, split_kv};
use drawloom_graph::{from_spec, monoid};
use drawloom_lang::eval;
use drawloom_lang::spec::{AxisRole, Dtype};
use drawloom_tests::case::{Case, Engine, InputKind};
use drawloom_tests::graph::{GraphOracle, run_graph};
use drawloom_tests::naive::{Exact, SameDtype};
use drawloom_tests::random_spec::random_spec;
use drawloom_tests::{Scalar, criterion, suite, tensor};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

fn fail(case: &Case, error: impl std::fmt::Display) -> TestCaseError {
    TestCaseError::fail(format!(
        "{error}\n{}\nsizes {:?}",
        drawloom_lang::canonical(&case.spec),
        case.sizes
    ))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// The graph interpreter computes what the spec says, and so do the graph's rewrites.
    #[test]
    fn the_graph_agrees_with_the_spec(random in random_spec(11), splits in 1usize..4) {
        let case = random.case().map_err(TestCaseError::fail)?;
        let truth = Exact.run(&case).map_err(|e| fail(&case, e))?;
        let found = GraphOracle.run(&case).map_err(|e| fail(&case, e))?;
        criterion::agree(&found, &truth).map_err(|e| fail(&case, e))?;

        let graph = simplify(&from_spec(&case.spec, &case.binding));
        let found = run_graph(&graph, &case, &[]).map_err(|e| fail(&case, e))?;
        criterion::agree(&found, &truth).map_err(|e| fail(&case, format!("simplified: {e}")))?;

        let keys = graph.axis("j").ok_or_else(|| fail(&case, "no keys"))?;
        let split = split_kv(&graph, FoldId(0), keys, "split").map_err(|e| fail(&case, e))?;
        let found = run_graph(&split, &case, &[("split", splits)]).map_err(|e| fail(&case, e))?;
        criterion::agree(&found, &truth).map_err(|e| fail(&case, format!("split: {e}")))?;
    }

    /// Every key that a row sees lies in a tile that is visited; a full tile is seen whole by every row.
    #[test]
    fn ranges_of_random_specs_are_sound(random in random_spec(13), block in 1u32..6, rows in 1usize..6) {
        let case = random.case().map_err(TestCaseError::fail)?;
        check_ranges(&case, block, rows).map_err(|e| fail(&case, e))?;
    }

    /// A result is within the criterion of itself, and one that is moved by more is not.
    #[test]
    fn the_criterion_tells_results_apart(random in random_spec(9), place in any::<prop::sample::Index>()) {
        let case = random.case().map_err(TestCaseError::fail)?;
        let truth = Exact.run(&case).map_err(|e| fail(&case, e))?;
        let naive = SameDtype.run(&case).map_err(|e| fail(&case, e))?;
        criterion::judge(&naive, &truth, &naive).map_err(|e| fail(&case, e))?;
        let mut wrong = naive.clone();
        let values = &mut wrong[0].values;
        if !values.is_empty() {
            let n = place.index(values.len());
            values[n] += 1.0 + 0.5 * values[n].abs();
            prop_assert!(criterion::judge(&wrong, &truth, &naive).is_err());
        }
    }

    /// Bytes in memory hold every value once, whatever the order.
    #[test]
    fn bytes_keep_values(random in random_spec(7)) {
        let case = random.case().map_err(TestCaseError::fail)?;
        for input in &case.inputs {
            let mut read = input.clone();
            read.values.fill(f64::NAN);
            read.set_bytes(&input.bytes()).map_err(|e| fail(&case, e))?;
            prop_assert_eq!(&read.values, &input.values);
        }
    }
}

/// The ranges of the case's mask against the mask itself, for tiles of `height` rows and `block` keys.
fn check_ranges(case: &Case, block: u32, height: usize) -> Result<(), String> {
    let graph = from_spec(&case.spec, &case.binding);
    let fold = monoid::classify(&graph, FoldId(0)).ok_or("no softmax")?;
    let attend = case.attend();
    let AxisRole::Query(align) = case.spec.axes[attend.query.index()].role else {
        return Err("no query axis".into());
    };
    let axis = |name: &str| graph.axis(name).ok_or_else(|| format!("no axis `{name}`"));
    let sorted: BTreeSet<String> = case
        .spec
        .inputs
        .iter()
        .filter(|i| i.sorted)
        .map(|i| i.name.clone())
        .collect();
    let (query, key) = (axis("i")?, axis("j")?);
    let ranges = analyse(
        &graph,
        fold.mask,
        &Context {
            query,
            key,
            align,
            sorted: &sorted,
        },
    );
    if ranges.pieces.len() > MAX_PIECES {
        return Err(format!("{} pieces", ranges.pieces.len()));
    }
    let names = |n: usize| case.spec.axes[n].name.clone();
    let mut env = Env {
        lens: (0..case.sizes.len())
            .map(|n| (names(n), case.sizes[n] as i64))
            .collect(),
        ..Env::default()
    };
    for (decl, scalar) in case.spec.scalars.iter().zip(&case.scalars) {
        if let Scalar::Int(x) = scalar {
            env.scalars.insert(decl.name.clone(), i64::from(*x));
        }
    }
    for table in case.inputs.iter().filter(|t| t.dtype == Dtype::I32) {
        let data = table.values.iter().map(|x| *x as i64).collect();
        env.tables.insert(
            table.name.clone(),
            Table {
                shape: table.shape.clone(),
                data,
            },
        );
    }
    let size = |name: &str| env.lens[name];
    let (b, h, i, j) = (size("b"), size("h"), size("i"), size("j"));
    for (b, h) in (0..b).flat_map(|b| (0..h).map(move |h| (b, h))) {
        env.fixed = BTreeMap::from([("b".to_owned(), b), ("h".to_owned(), h)]);
        for first in (0..i).step_by(height) {
            let last = (first + height as i64).min(i) - 1;
            (env.row_lo, env.row_hi) = (first + case.offset(), last + case.offset());
            let missing = env.missing(&ranges);
            if !missing.is_empty() {
                return Err(format!("the ranges name {missing:?}"));
            }
            let plan = plan_tiles(&ranges.eval(&env), block);
            for key in 0..j {
                let tile = key / i64::from(block);
                let run = plan.iter().find(|r| (r.first..r.end).contains(&tile));
                let full = run.is_some_and(|r| (r.full_first..r.full_end).contains(&tile));
                for row in first..=last {
                    let visible = visible(case, b, h, row, key)?;
                    if visible && run.is_none() || full && !visible {
                        return Err(format!(
                            "b {b}, h {h}, row {row}, key {key}: visible {visible}, in {plan:?}\n{ranges}"
                        ));
                    }
                }
            }
            if plan
                .iter()
                .any(|r| r.full_first < r.full_end && r.full_end * i64::from(block) > j)
            {
                return Err(format!("a full tile reaches beyond the keys: {plan:?}"));
            }
        }
    }
    Ok(())
}

/// The mask at a point, by the language's own evaluator.
fn visible(case: &Case, b: i64, h: i64, row: i64, key: i64) -> Result<bool, String> {
    match case.attend().mask {
        Some(mask) => {
            let at = |name: &str| match name {
                "b" => b,
                "h" => h,
                "i" => row,
                _ => key,
            };
            let index = case
                .spec
                .axes
                .iter()
                .map(|a| usize::try_from(at(&a.name)).unwrap_or(0))
                .collect();
            let point = drawloom_tests::naive::Point::at_row(case, index);
            eval::eval(&case.spec, mask, &point)
                .and_then(eval::Value::truth)
                .map_err(|e| e.to_string())
        }
        None => Ok(true),
    }
}

#[test]
fn the_graph_agrees_on_the_named_cases() {
    for case in suite::cases().expect("a well-formed suite") {
        let truth = Exact.run(&case).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        let found = GraphOracle.run(&case).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        criterion::agree(&found, &truth).unwrap_or_else(|e| panic!("{}: {e}", case.name));
    }
}

#[test]
fn ranges_of_the_named_cases_are_sound() {
    for case in suite::cases().expect("a well-formed suite") {
        for (block, height) in [(16, 7), (64, 64)] {
            check_ranges(&case, block, height).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        }
    }
}

#[test]
fn masked_rows_are_zero_and_their_log_sum_is_negative_infinity() {
    let cases = suite::cases().expect("a well-formed suite");
    let case = cases
        .iter()
        .find(|c| c.name.starts_with("more queries than keys"))
        .expect("the case");
    for engine in [&Exact as &dyn Engine, &SameDtype, &GraphOracle] {
        let found = engine.run(case).expect("outputs");
        let rows = case.sizes[case.attend().query.index()] - case.sizes[case.attend().key.index()];
        for at in tensor::indices(&found[0].shape).filter(|at| at[2] < rows) {
            assert_eq!(found[0].get(&at), Some(0.0), "{}", engine.name());
            assert_eq!(found[1].get(&at[..3]), Some(f64::NEG_INFINITY), "{}", engine.name());
        }
    }
}

#[test]
fn a_case_that_the_spec_does_not_allow_is_refused() {
    let text = suite::SPECS
        .iter()
        .find(|(n, _)| *n == "gqa_causal")
        .expect("the spec")
        .1;
    let spec = &drawloom_lang::parse_str("gqa_causal", text).expect("a spec of this repository")[0];
    let sizes = |h: usize, g: usize, d: usize| {
        [("b", 1), ("h", h), ("g", g), ("i", 2), ("j", 2), ("d", d)]
            .map(|(n, s)| (n.to_owned(), s))
            .into()
    };
    let case = |dtype, sizes: BTreeMap<String, usize>| Case::new("case", spec, dtype, &sizes, InputKind::Gaussian, 1);
    assert!(case(Dtype::Bf16, sizes(8, 2, 64)).is_ok());
    assert_eq!(
        case(Dtype::Bf16, sizes(6, 2, 64)).map(|_| ()),
        Err("axis `g` cannot have size 2".to_owned())
    );
    assert_eq!(
        case(Dtype::Bf16, sizes(8, 2, 48)).map(|_| ()),
        Err("axis `d` cannot have size 48".to_owned())
    );
    assert_eq!(
        case(Dtype::F32, sizes(8, 2, 64)).map(|_| ()),
        Err("type `T` has no member f32".to_owned())
    );
    assert_eq!(
        case(Dtype::F16, BTreeMap::new()).map(|_| ()),
        Err("axis `b` has no size".to_owned())
    );
}
