//! The canonical form and the keys of the published specs are frozen.

use drawloom_lang::spec::Dtype::{Bf16, F16, F32};
use drawloom_lang::{Spec, bindings, canonical, key, parse_str};
use std::path::Path;

/// Every spec file of the repository, by name.
fn published() -> Vec<(String, Spec)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../specs");
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .expect("the folder of specs")
        .map(|e| e.expect("an entry").path())
        .filter(|p| p.extension().is_some_and(|e| e == "attn"))
        .collect();
    files.sort();
    files
        .iter()
        .flat_map(|path| {
            let text = std::fs::read_to_string(path).expect("a readable file");
            let specs = parse_str(&path.display().to_string(), &text).unwrap_or_else(|e| panic!("{e}"));
            specs.into_iter().map(|s| (s.name.clone(), s)).collect::<Vec<_>>()
        })
        .collect()
}

/// What the canonical form keeps of a spec.
fn bare(spec: &Spec) -> Spec {
    Spec {
        doc: String::new(),
        visibility: String::new(),
        ..spec.clone()
    }
}

#[test]
fn canonical_text_parses_back() {
    for (name, spec) in published() {
        let text = canonical(&spec);
        let again = parse_str(&name, &text).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(again, [bare(&spec)]);
        assert_eq!(canonical(&again[0]), text);
    }
}

/// A spec that says everything the language has, in no canonical way.
const EVERYTHING: &str = "
    /// Everything.
    pub(crate) attention all { // comment
        type T in [f16, bf16,]; type U in [f32];
        axis b, h, g = h / [4, 8]; axis i: query(start), j: key, d in [64, 128], e = 80, n = 3;
        input q: T[b, h, i, d], k: T[b, g, j, d], v: T[b, g, j, e], doc: i32[b, j] sorted;
        input bias: U[h, n];
        scalar w: i32, cap: f32;
        tile { stages = 2; sm_80.block_m = 128; }
        attend o over j in (k, v) {
            norm = softmax;
            mask = (!causal || ((window(left = w, right = 1_0)))) && same(doc) && ((j < 2) || sink(4)) ;
            score = if i - (j - 1) <= -3 { (cap * tanh((dot(q, k) / cap))) } else if g % 2 == 0 { 1e-3 } else { -(2) }
                + (bias[h, min(i, len(n) - 1) % 3] - 1) * abs(-j / 2) - (exp(log(2)) - sqrt(3.50));
        }
        output o: U[b, i, h, e], lse(o, bits): f32[i, b, h];
    }";

const CANONICAL: &str = "attention all {
type T in [f16, bf16];
type U in [f32];
axis b;
axis h;
axis g = h / [4, 8];
axis i: query(start);
axis j: key;
axis d in [64, 128];
axis e in [80];
axis n in [3];
input q: T[b, h, i, d];
input k: T[b, g, j, d];
input v: T[b, g, j, e];
input doc: i32[b, j] sorted;
input bias: U[h, n];
scalar w: i32;
scalar cap: f32;
attend o over j in (k, v) {
score = if i - (j - 1) <= -3 { cap * tanh(dot(q, k) / cap) } else if g % 2 == 0 { 0.001 } else { -2.0 } + (bias[h, min(i, len(n) - 1) % 3] - 1.0) * abs(-j / 2) - (exp(log(2.0)) - sqrt(3.5));
mask = (!(j <= i) || i - j <= w && j - i <= 10) && doc[b, i] == doc[b, j] && (j < 2 || j < 4);
norm = softmax;
}
output o: U[b, i, h, e];
output lse(o, bits): f32[i, b, h];
tile {
stages = 2;
sm_80.block_m = 128;
}
}
";

/// Frozen: whoever changes what this test says makes every published artifact unfindable. Make a version 2 instead.
#[test]
fn version_1_is_frozen() {
    let spec = &parse_str("all.attn", EVERYTHING).unwrap_or_else(|e| panic!("{e}"))[0];
    assert_eq!(canonical(spec), CANONICAL);
    assert_eq!(drawloom_lang::manifest::ABI, 1, "with a new ABI the key below changes");
    assert_eq!(
        key(spec),
        "614e8d07cf3e987673bdaa667da2131546c760485a44332de431a5fac28f7fbd"
    );
    assert_eq!(
        (spec.doc.as_str(), spec.visibility.as_str()),
        ("Everything.", "pub(crate)")
    );
}

#[test]
fn bindings_are_all_combinations() {
    let spec = &parse_str("all.attn", EVERYTHING).unwrap_or_else(|e| panic!("{e}"))[0];
    let all = bindings(spec);
    assert_eq!(all.len(), 4);
    assert!(
        all.iter()
            .all(|b| b.sizes[6..] == [Some(80), Some(3)] && b.sizes[..5].iter().all(Option::is_none))
    );
    let facts: Vec<_> = all.iter().map(|b| (b.types[0], b.types[1], b.sizes[5])).collect();
    let expected = [(F16, 64), (F16, 128), (Bf16, 64), (Bf16, 128)].map(|(t, d)| (t, F32, Some(d)));
    assert_eq!(facts, expected);
}

#[test]
fn specs_and_errors_go_anywhere() {
    fn anywhere<T: Send + Sync + 'static>() {}
    anywhere::<Spec>();
    anywhere::<drawloom_lang::Errors>();
}

/// What one text may say, its canonical form may say too: named patterns and `else if` must not carry it over a limit.
#[test]
fn whatever_parses_can_be_printed_and_parsed() {
    let spec = |score: &str, mask: &str| {
        let base = "attention a { axis i: query(end), j: key, d = 64; input q: f16[i, d], k: f16[j, d], v: f16[j, d];";
        let stage = format!("attend o over j in (k, v) {{ score = {score}; mask = {mask}; norm = softmax; }}");
        format!("{base} {stage} output o: f16[i, d]; }}")
    };
    let chain = |n: usize| format!("{}{{ dot(q, k) }}", "if i == 3 { 1 } else ".repeat(n));
    let not = |n: usize| format!("{}causal", "!".repeat(n));
    let balanced = |n: u32| (0..n).fold("window(left = 1)".to_owned(), |e, _| format!("({e} || {e})"));
    let mut refused = 0;
    for text in [chain(50), chain(60), chain(63), chain(64)]
        .map(|s| spec(&s, "true"))
        .into_iter()
        .chain([not(60), not(63), not(64), balanced(6), balanced(9), balanced(10)].map(|m| spec("dot(q, k)", &m)))
    {
        match parse_str("a.attn", &text) {
            Ok(specs) => assert!(parse_str("canonical", &canonical(&specs[0])).is_ok_and(|s| s == specs)),
            Err(e) => {
                refused += 1;
                assert!(e.diagnostics.iter().all(|d| d.code.starts_with("A05")), "{e}");
            }
        }
    }
    assert!((1..6).contains(&refused), "{refused} are refused");
}
