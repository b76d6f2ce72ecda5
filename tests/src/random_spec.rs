//! Random well-formed specs, as texts, with sizes: masks from the whole mask language, score modifications, captured
//! tensors, scalars, both alignments, grouped heads, types, orders in memory; lengths 0 and 1, lengths that divide
//! nothing, more queries than keys.
//!
//! A table over keys that is read at the query's position is in range only where every position is a key; specs that do
//! so come with at most as many queries as keys.

use crate::case::{Case, InputKind};
use drawloom_lang::spec::Dtype;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// A spec's text, and what a case of it needs.
#[derive(Clone, Debug)]
pub struct RandomSpec {
    /// The text.
    pub text: String,
    /// Member of the type set.
    pub dtype: Dtype,
    /// Every axis's size.
    pub sizes: BTreeMap<String, usize>,
    /// Queries and keys.
    pub kind: InputKind,
    /// For the inputs.
    pub seed: u64,
    /// Shuffles the axes of every tensor in memory.
    pub shuffle: u64,
}

impl RandomSpec {
    /// The case.
    ///
    /// # Errors
    /// What the language refuses: a fault of this module.
    pub fn case(&self) -> Result<Case, String> {
        let specs = drawloom_lang::parse_str("random", &self.text).map_err(|e| format!("{e}\n{}", self.text))?;
        let spec = specs.first().ok_or("no spec")?;
        let mut case = Case::new("random", spec, self.dtype, &self.sizes, self.kind, self.seed)?;
        let mut rng = fastrand::Rng::with_seed(self.shuffle);
        let orders = case
            .inputs
            .iter_mut()
            .map(|t| &mut t.order)
            .chain(&mut case.output_orders);
        for order in orders {
            let (_, outer) = order.split_last_mut().ok_or("a tensor without axes")?;
            rng.shuffle(outer);
        }
        Ok(case)
    }
}

/// What expressions may name.
#[derive(Clone, Copy, Debug)]
struct Names {
    /// Whether a table over keys may be read at the query's position.
    position: bool,
    /// Whether heads are grouped.
    grouped: bool,
}

/// Random specs whose lengths are at most `longest`.
pub fn random_spec(longest: usize) -> impl Strategy<Value = RandomSpec> {
    let names = (any::<bool>(), any::<bool>()).prop_map(|(position, grouped)| Names { position, grouped });
    names.prop_flat_map(move |names| {
        let parts = (
            mask(names),
            score(),
            lengths(longest, names.position),
            layout(names.grouped),
        );
        let rest = (
            1usize..3,
            any::<bool>(),
            any::<bool>(),
            any::<bool>(),
            kind(),
            any::<u64>(),
            any::<u64>(),
        );
        (parts, rest).prop_map(
            move |((mask, score, (i, j), layout), (b, end, half, bits, kind, seed, shuffle))| {
                let mut sizes = layout.sizes.clone();
                sizes.extend([("b", b), ("i", i), ("j", j)].map(|(n, s)| (n.to_owned(), s)));
                RandomSpec {
                    text: text(&layout, &mask, &score, end, bits),
                    dtype: if half { Dtype::F16 } else { Dtype::Bf16 },
                    sizes,
                    kind,
                    seed,
                    shuffle,
                }
            },
        )
    })
}

/// Heads and features, and the orders in which tensors declare their axes.
#[derive(Clone, Debug)]
struct Layout {
    grouped: Option<usize>,
    q: &'static str,
    kv: &'static str,
    values: &'static str,
    sizes: BTreeMap<String, usize>,
}

fn layout(grouped: bool) -> impl Strategy<Value = Layout> {
    let order = prop_oneof![
        Just(("b, h, i", "b, G, j")),
        Just(("b, i, h", "b, j, G")),
        Just(("i, b, h", "G, b, j"))
    ];
    (
        order,
        1usize..4,
        1usize..3,
        prop_oneof![Just(8usize), Just(16)],
        any::<bool>(),
    )
        .prop_map(move |((q, kv), ratio, groups, d, own)| {
            let ratio = if grouped { ratio } else { 1 };
            let values = if own { "e" } else { "d" };
            let mut sizes = BTreeMap::from([("h".to_owned(), ratio * groups), ("d".to_owned(), d)]);
            if own {
                sizes.insert("e".to_owned(), 24 - d);
            }
            if grouped {
                sizes.insert("g".to_owned(), groups);
            }
            Layout {
                grouped: grouped.then_some(ratio),
                q,
                kv,
                values,
                sizes,
            }
        })
}

fn text(layout: &Layout, mask: &str, score: &str, end: bool, bits: bool) -> String {
    let Layout {
        grouped,
        q,
        kv,
        values,
        sizes,
    } = layout;
    let group = grouped.map_or(String::new(), |ratio| format!(" g = h / [{ratio}],"));
    let kv = kv.replace('G', if grouped.is_some() { "g" } else { "h" });
    let own = if *values == "e" {
        format!(", e = {}", sizes["e"])
    } else {
        String::new()
    };
    let (align, base) = (if end { "end" } else { "start" }, if bits { "bits" } else { "nats" });
    // What is declared must be used.
    let words: BTreeSet<&str> = [mask, score]
        .into_iter()
        .flat_map(|e| e.split(|c: char| !c.is_alphanumeric()))
        .collect();
    let declare = |kind: &str, all: &[(&str, &str)]| {
        let used: Vec<String> = all
            .iter()
            .filter(|(n, _)| words.contains(n))
            .map(|(n, t)| format!("{n}: {t}"))
            .collect();
        if used.is_empty() {
            String::new()
        } else {
            format!("\n    {kind} {};", used.join(", "))
        }
    };
    let tables = [
        ("slope", "f32[h]"),
        ("bias", "f32[h, i, j]"),
        ("doc", "i32[b, j] sorted"),
        ("ids", "i32[j]"),
        ("rows", "i32[b, i]"),
    ];
    let (inputs, scalars) = (
        declare("input", &tables),
        declare("scalar", &[("w", "i32"), ("c", "f32")]),
    );
    format!(
        "attention random {{
    type T in [f16, bf16];
    axis b, h,{group} i: query({align}), j: key, d = {d}{own};
    input q: T[{q}, d], k: T[{kv}, d], v: T[{kv}, {values}];{inputs}{scalars}
    attend o over j in (k, v) {{
        score = {score};
        mask = {mask};
        norm = softmax;
    }}
    output o: T[{q}, {values}], lse(o, {base}): f32[{q}];
}}
",
        d = sizes["d"],
    )
}

fn kind() -> impl Strategy<Value = InputKind> {
    prop_oneof![
        Just(InputKind::Gaussian),
        Just(InputKind::Rising),
        Just(InputKind::Outliers),
        Just(InputKind::OneHot),
        Just(InputKind::Equal),
    ]
}

fn lengths(longest: usize, positions_are_keys: bool) -> impl Strategy<Value = (usize, usize)> {
    let len = prop_oneof![1 => 0usize..2, 4 => 2usize..=longest.max(2)];
    (len.clone(), len).prop_map(move |(i, j)| if positions_are_keys { (i.min(j), j) } else { (i, j) })
}

/// An integer expression in positions, keys, sizes, scalars and tables.
fn integer(names: Names) -> BoxedStrategy<String> {
    let word = |s: &str| Just(s.to_owned()).boxed();
    let mut leaves = vec![
        (-3i32..9).prop_map(|n| n.to_string()).boxed(),
        word("i"),
        word("i"),
        word("j"),
        word("j"),
        word("h"),
        word("w"),
        word("len(j)"),
        word("len(i)"),
        word("ids[j]"),
        word("doc[b, j]"),
        word("rows[b, i]"),
    ];
    if names.grouped {
        leaves.push(word("g"));
    }
    if names.position {
        leaves.extend([word("ids[i]"), word("doc[b, i]")]);
    }
    prop::strategy::Union::new(leaves)
        .prop_recursive(3, 10, 2, |e| {
            let pair = (e.clone(), prop_oneof![Just("+"), Just("-"), Just("-")], e.clone())
                .prop_map(|(a, op, b)| format!("({a} {op} {b})"));
            let scaled = (e.clone(), -2i32..4).prop_map(|(a, n)| format!("({a} * {n})"));
            let parts = (e.clone(), prop_oneof![Just("/"), Just("%")], prop_oneof![
                (1i32..6).prop_map(|n| n.to_string()),
                Just("max(w, 1)".to_owned())
            ])
                .prop_map(|(a, op, n)| format!("({a} {op} {n})"));
            let call = (prop_oneof![Just("min"), Just("max")], e.clone(), e.clone())
                .prop_map(|(f, a, b)| format!("{f}({a}, {b})"));
            let choice = (e.clone(), e.clone(), e.clone(), e.clone())
                .prop_map(|(a, b, x, y)| format!("(if {a} < {b} {{ {x} }} else {{ {y} }})"));
            prop_oneof![3 => pair, 1 => scaled, 2 => parts, 1 => call, 1 => e.prop_map(|a| format!("abs({a})")), 1 => choice]
        })
        .boxed()
}

fn mask(names: Names) -> BoxedStrategy<String> {
    let word = |s: &str| Just(s.to_owned()).boxed();
    let compared = (
        integer(names),
        prop_oneof![Just("<"), Just("<="), Just(">"), Just(">="), Just("=="), Just("!=")],
        integer(names),
    )
        .prop_map(|(a, op, b)| format!("{a} {op} {b}"))
        .boxed();
    let mut leaves = vec![
        word("causal"),
        word("causal"),
        word("true"),
        (0i32..6).prop_map(|n| format!("window(left = {n})")).boxed(),
        (0i32..4, 0i32..4)
            .prop_map(|(l, r)| format!("window(left = {l}, right = {r})"))
            .boxed(),
        word("window(left = w)"),
        (0i32..4).prop_map(|n| format!("sink({n})")).boxed(),
        (1i32..5).prop_map(|n| format!("i / {n} == j / {n}")).boxed(),
        (1i32..5).prop_map(|n| format!("(i - j) % {n} == 0")).boxed(),
        compared.clone(),
        compared,
    ];
    if names.position {
        leaves.extend([word("same(doc)"), word("same(doc)")]);
    }
    prop::strategy::Union::new(leaves)
        .prop_recursive(3, 8, 2, |m| {
            prop_oneof![
                3 => (m.clone(), m.clone()).prop_map(|(a, b)| format!("({a} && {b})")),
                2 => (m.clone(), m.clone()).prop_map(|(a, b)| format!("({a} || {b})")),
                1 => m.clone().prop_map(|a| format!("!({a})")),
                1 => (m.clone(), m.clone(), m).prop_map(|(c, a, b)| format!("(if {c} {{ {a} }} else {{ {b} }})")),
            ]
        })
        .boxed()
}

/// A score: the scaled product under some modifications. All keep it finite.
fn score() -> impl Strategy<Value = String> {
    let base = prop_oneof![
        Just("dot(q, k) * rsqrt(len(d))".to_owned()),
        Just("dot(q, k) / 8".to_owned()),
        Just("c * tanh(dot(q, k) * 0.25 / c)".to_owned()),
    ];
    let change = prop_oneof![
        Just("S + slope[h] * (j - i)"),
        Just("S + bias[h, i, j]"),
        Just("S - 0.125 * abs(i - j)"),
        Just("c * tanh((S) / c)"),
        Just("if (i + j) % 3 == 0 { S } else { 0.5 * (S) }"),
        Just("min(S, 4) + max(S, -1.5) * 0.25"),
        Just("S + log(1 + exp(-abs(S)))"),
        Just("-(S) + sqrt(abs(S) + 1)"),
        Just("S * (1 + ids[j]) / 4"),
    ];
    (base, prop::collection::vec(change, 0..3)).prop_map(|(base, changes)| {
        changes
            .iter()
            .fold(base, |score, change| change.replace('S', &format!("({score})")))
    })
}
