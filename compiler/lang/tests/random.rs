//! Random specs: the canonical text parses back, layout and sugar mean nothing, and macros read what files do.

use drawloom_lang::{Spec, canonical, key, parse_str, parse_tokens};
use proptest::prelude::*;

/// An expression's text of one type, with all parentheses.
type Text = BoxedStrategy<String>;

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        (0..100i32).prop_map(|n| n.to_string()),
        (1..1000i32).prop_map(|n| format!("{n}_0"))
    ]
}

/// Integers, reals and truth values of some depth; reals use `dot` if they may.
fn expressions(depth: u32, dot: bool) -> (Text, Text, Text) {
    let index = [
        "i",
        "j",
        "b",
        "h",
        "g",
        "n",
        "len(j)",
        "len(i)",
        "len(d)",
        "doc[b, j]",
        "doc[b, i]",
        "-3",
    ];
    let real = if dot { "dot(q, k)" } else { "cap" };
    let reals = [real, "cap", "0.5", "1e-7", "-2.0", "slope[h]", "slope[(j % 4)]"];
    let truths = [
        "causal",
        "true",
        "false",
        "same(doc)",
        "sink(4)",
        "sink(n)",
        "window(left = 7)",
        "window(left = n, right = 3)",
    ];
    if depth == 0 {
        let ints = prop_oneof![
            prop::sample::select(index.to_vec()).prop_map(str::to_owned).boxed(),
            number().boxed()
        ];
        let reals = prop::sample::select(reals.to_vec()).prop_map(str::to_owned);
        let truths = prop::sample::select(truths.to_vec()).prop_map(str::to_owned);
        return (ints.boxed(), reals.boxed(), truths.boxed());
    }
    let (i, r, t) = expressions(depth - 1, dot);
    let arithmetic = prop::sample::select(vec!["+", "-", "*"]);
    let comparison = prop::sample::select(vec!["<", "<=", ">", ">=", "==", "!="]);
    let extreme = prop::sample::select(vec!["min", "max"]);
    let function = prop::sample::select(vec!["tanh", "exp", "log", "abs", "sqrt", "rsqrt", "-"]);
    let any =
        prop_oneof![3 => r.clone(), 1 => i.clone().prop_filter("a floored fraction", |t| !t.contains('/'))].boxed();
    let ints = prop_oneof![
        i.clone(),
        (i.clone(), arithmetic.clone(), i.clone()).prop_map(|(a, op, b)| format!("({a} {op} {b})")),
        (i.clone(), 1..9i32, prop::bool::ANY)
            .prop_map(|(a, n, d)| format!("(({a} + j) {} {n})", if d { "/" } else { "%" })),
        (extreme.clone(), i.clone(), i.clone()).prop_map(|(f, a, b)| format!("{f}({a}, {b})")),
        (t.clone(), i.clone(), i.clone()).prop_map(|(c, a, b)| format!("(if {c} {{ {a} }} else {{ {b} }})")),
        i.clone().prop_map(|a| format!("-({a})")),
    ];
    let reals = prop_oneof![
        r.clone(),
        (any.clone(), arithmetic, r.clone()).prop_map(|(a, op, b)| format!("({a} {op} {b})")),
        (r.clone(), r.clone()).prop_map(|(a, b)| format!("({a} / {b})")),
        (extreme, r.clone(), any).prop_map(|(f, a, b)| format!("{f}({a}, {b})")),
        (function, r.clone()).prop_map(|(f, a)| format!("{f}({a})")),
        (t.clone(), r.clone(), r.clone()).prop_map(|(c, a, b)| format!("(if {c} {{ {a} }} else {{ {b} }})")),
    ];
    let junction = prop::sample::select(vec!["&&", "||"]);
    let truths = prop_oneof![
        t.clone(),
        (t.clone(), junction, t.clone()).prop_map(|(a, op, b)| format!("({a} {op} {b})")),
        t.prop_map(|a| format!("!({a})")),
        (i.clone(), comparison.clone(), i).prop_map(|(a, op, b)| format!("({a} {op} {b})")),
        (r.clone(), comparison, r).prop_map(|(a, op, b)| format!("({a} {op} {b})")),
    ];
    (ints.boxed(), reals.boxed(), truths.boxed())
}

/// A spec around a score and a mask, with the declarations that they use.
fn spec() -> impl Strategy<Value = String> {
    let (_, score, _) = expressions(3, true);
    let (_, _, mask) = expressions(3, false);
    let sizes = prop::sample::subsequence(vec![32, 64, 80, 96, 128, 256], 1..4);
    (score, prop::option::of(mask), sizes, prop::bool::ANY, prop::bool::ANY).prop_map(
        |(score, mask, sizes, end, lse)| {
            let score = format!("dot(q, k) + {score}");
            let all = format!("{score} {}", mask.as_deref().unwrap_or(""));
            let used = |name: &str| all.split(|c: char| !c.is_alphanumeric()).any(|word| word == name);
            let mut text = String::from("attention random { type T in [f16, bf16]; axis b, h, g = h / [1, 5], j: key,");
            text += &format!("i: query({}), d in {sizes:?};", if end { "end" } else { "start" });
            text += "input q: T[b, h, i, d], k: T[b, g, j, d], v: T[b, g, j, d];";
            for (name, declaration) in [
                ("doc", "input doc: i32[b, j] sorted;"),
                ("slope", "input slope: f32[h];"),
                ("n", "scalar n: i32;"),
                ("cap", "scalar cap: f32;"),
            ] {
                text += if used(name) { declaration } else { "" };
            }
            let mask = mask.map(|m| format!("mask = {m};")).unwrap_or_default();
            text += &format!("attend o over j in (k, v) {{ score = {score}; {mask} norm = softmax; }}");
            text += "output o: T[b, h, i, d]";
            text += if lse { ", lse(o): f32[b, h, i]; }" } else { "; }" };
            text
        },
    )
}

fn parse(text: &str) -> Result<Spec, TestCaseError> {
    let specs = parse_str("random.attn", text).map_err(|e| TestCaseError::fail(e.to_string()))?;
    specs.into_iter().next().ok_or_else(|| TestCaseError::fail("no spec"))
}

proptest! {
    #[test]
    fn canonical_text_parses_back(text in spec()) {
        let spec = parse(&text)?;
        let printed = canonical(&spec);
        let again = parse(&printed)?;
        prop_assert_eq!(&again, &spec);
        prop_assert_eq!(canonical(&again), printed);
    }

    #[test]
    fn layout_means_nothing(text in spec()) {
        let spread = format!("/// Documented.\npub {}", text.replace(' ', "\n/* c */\t").replace(';', "; // c\n"));
        prop_assert_eq!(key(&parse(&spread)?), key(&parse(&text)?));
    }

    #[test]
    fn macros_read_what_files_do(text in spec()) {
        let stream: proc_macro2::TokenStream = text.parse().expect("Rust tokens");
        let call = parse_tokens(stream).map_err(|e| TestCaseError::fail(format!("{:?}", e.diagnostics)))?;
        prop_assert_eq!(&call.specs, &[parse(&text)?]);
    }
}
