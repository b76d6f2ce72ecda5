//! Inputs that nobody means well with: each is refused or read, without a panic, in less than a second.

use drawloom_lang::{canonical, format, key, mask_picture, parse_str, parse_tokens};
use proptest::prelude::*;
use std::time::{Duration, Instant};

const SPEC: &str = include_str!("../../../specs/streaming.attn");

/// Parses, formats, renders and, if it is a spec, prints.
fn survive(text: &str) -> Option<String> {
    drop(format("hostile.attn", text));
    match parse_str("hostile.attn", text) {
        Ok(specs) => {
            specs
                .iter()
                .for_each(|s| drop((canonical(s), key(s), mask_picture(s, 8, 8))));
            None
        }
        Err(errors) => {
            assert!(!errors.diagnostics.is_empty() && errors.diagnostics.len() <= 50);
            Some(errors.to_string())
        }
    }
}

fn with_score(score: &str) -> String {
    SPEC.replace("dot(q, k) * rsqrt(len(d))", score)
}

#[test]
fn large_inputs_are_refused_in_time() {
    let many = |n: usize, piece: fn(usize) -> String| (0..n).map(piece).collect::<String>();
    let cases = [
        ("open", "(".repeat(1_000_000)),
        ("closed", ")".repeat(1_000_000)),
        ("pairs", "(".repeat(300_000) + &")".repeat(300_000)),
        ("long", "x".repeat(2_000_000)),
        ("one word", "x".repeat(1_000_000)),
        ("one number", with_score(&"9".repeat(900_000))),
        ("tiny fraction", with_score(&format!("0.{}1", "0".repeat(900_000)))),
        ("bytes", "\u{0}\u{1f980}\u{fffd}".repeat(100_000)),
        ("quotes", "\"".repeat(1_000_001)),
        ("comment", "/*".repeat(500_000)),
        ("hashes", "#".repeat(150_000)),
        ("minus", with_score(&format!("{}1", "-".repeat(100_000)))),
        ("not", with_score(&format!("{}true", "!".repeat(100_000)))),
        ("sum", with_score(&format!("dot(q, k){}", "+1".repeat(90_000)))),
        (
            "else if",
            with_score(&format!("{}1", "if true { 1 } else ".repeat(20_000))),
        ),
        ("index", with_score(&format!("{}1", "slope[".repeat(60)))),
        (
            "calls",
            with_score(&format!("{}1{}", "abs(".repeat(60), ")".repeat(60))),
        ),
        ("arguments", with_score(&format!("dot({})", "q, ".repeat(4000)))),
        ("specs", many(40_000, |n| format!("attention a{n} {{}} "))),
        ("same specs", "attention a {} ".repeat(40_000)),
        (
            "axes",
            format!("attention a {{ {} }}", many(40_000, |n| format!("axis a{n}; "))),
        ),
        (
            "sizes",
            format!("attention a {{ axis d in [{}]; }}", many(90_000, |n| format!("{n},"))),
        ),
        (
            "ratios",
            format!(
                "attention a {{ axis h, g = h / [{}]; }}",
                many(90_000, |n| format!("{n},"))
            ),
        ),
        (
            "members",
            format!("attention a {{ type T in [{}]; }}", "f16, ".repeat(90_000)),
        ),
        (
            "fields",
            SPEC.replace("norm = softmax;", &"norm = softmax;".repeat(40_000)),
        ),
        (
            "pins",
            format!(
                "attention a {{ tile {{ {} }} }}",
                many(40_000, |n| format!("f{n} = 1;"))
            ),
        ),
        ("docs", "/// a\n".repeat(100_000)),
    ];
    for (name, text) in cases {
        let start = Instant::now();
        assert!(survive(&text).is_some(), "`{name}` is taken for a spec");
        assert!(
            start.elapsed() < Duration::from_secs(1),
            "`{name}` takes {:?}",
            start.elapsed()
        );
    }
}

#[test]
fn a_file_over_the_limit_says_so() {
    assert!(survive(&"x ".repeat(600_000)).is_some_and(|e| e.contains("error[A0504]: expected at most 1048576 bytes")));
    assert!(survive(&"x ".repeat(300_000)).is_some_and(|e| e.contains("error[A0504]: expected at most 200000 tokens")));
}

#[test]
fn a_deep_macro_call_is_refused() {
    let deep = "(".repeat(2_000) + &")".repeat(2_000);
    let errors = parse_tokens(deep.parse().expect("Rust tokens")).expect_err("not a spec");
    assert_eq!(errors.diagnostics[0].code, "A0501");
}

/// Pieces of specs, and what they are not made of.
const PIECES: &[&str] = &[
    "attention",
    "a",
    "pub",
    "type",
    "T",
    "in",
    "[",
    "]",
    "{",
    "}",
    "(",
    ")",
    "axis",
    "i",
    "j",
    ":",
    "query",
    "end",
    "key",
    "=",
    "/",
    "4",
    "0",
    "99999999999999999999",
    "1e999",
    "0x",
    "input",
    "q",
    "k",
    "v",
    "f16",
    ",",
    ";",
    "attend",
    "o",
    "over",
    "score",
    "mask",
    "norm",
    "softmax",
    "dot",
    "if",
    "else",
    "&&",
    "&",
    "|",
    "!",
    "-",
    "==",
    "<",
    "window",
    "left",
    "sink",
    "same",
    "len",
    "output",
    "lse",
    "nats",
    "tile",
    ".",
    "sm_80",
    "///d\n",
    "fold",
    "é",
    "🦀",
    "\"",
    "'",
    "\\",
];

proptest! {
    #[test]
    fn garbage_is_survived(text in ".{0,200}") {
        survive(&text);
    }

    #[test]
    fn words_in_any_order_are_survived(words in prop::collection::vec(prop::sample::select(PIECES), 0..80)) {
        survive(&words.join(" "));
        survive(&format!("attention a {{ {} }}", words.join(" ")));
        survive(&with_score(&words.join(" ")));
    }

    /// A spec with one stretch of it replaced.
    #[test]
    fn damage_is_survived(
        from in 0..SPEC.len(),
        length in 0..40usize,
        words in prop::collection::vec(prop::sample::select(PIECES), 0..4),
    ) {
        let near = |at: usize| (0..=at.min(SPEC.len())).rev().find(|at| SPEC.is_char_boundary(*at)).unwrap_or(0);
        let (from, to) = (near(from), near(from + length));
        let text = [&SPEC[..from.min(to)], &words.join(" "), &SPEC[to..]].concat();
        survive(&text);
        if let Ok(stream) = text.parse() {
            let file: Vec<_> = parse_str("", &text).err().map(|e| e.diagnostics).unwrap_or_default();
            let call: Vec<_> = parse_tokens(stream).err().map(|e| e.diagnostics).unwrap_or_default();
            prop_assert_eq!(file.len(), call.len());
        }
    }
}
