//! Values and pictures of masks, against what the words mean.

use drawloom_lang::eval::{Env, EvalError, Value, eval};
use drawloom_lang::picture::{Cover, Grid, LEGEND, Mask, picture};
use drawloom_lang::spec::{AxisId, ExprId, InputId, ScalarId, Spec, Stage};
use drawloom_lang::{mask_picture, parse_str, picture_size};

/// A point at axes `b, h, i, j` with a table of documents and a scalar.
struct Point {
    index: [i64; 4],
    len: [i64; 4],
    scalar: Value,
    doc: Vec<i64>,
}

impl Env for Point {
    fn index(&self, axis: AxisId) -> i64 {
        self.index[axis.index()]
    }
    fn len(&self, axis: AxisId) -> i64 {
        self.len.get(axis.index()).copied().unwrap_or(64)
    }
    fn scalar(&self, _: ScalarId) -> Value {
        self.scalar
    }
    fn load(&self, _: InputId, at: &[i64]) -> Option<Value> {
        self.doc
            .get(usize::try_from(*at.last()?).ok()?)
            .copied()
            .map(Value::Int)
    }
    fn dot(&self) -> f64 {
        2.0
    }
}

fn spec(score: &str, mask: &str, more: &str) -> Spec {
    let text = format!(
        "attention a {{ axis b, h, i: query(end), j: key, d = 64; {more}
        input q: f16[b, h, i, d], k: f16[b, h, j, d], v: f16[b, h, j, d];
        attend o over j in (k, v) {{ score = {score}; mask = {mask}; norm = softmax; }} output o: f16[b, h, i, d]; }}"
    );
    parse_str("a.attn", &text).unwrap_or_else(|e| panic!("{e}")).remove(0)
}

fn stage(spec: &Spec) -> (ExprId, ExprId) {
    let Stage::Attend(attend) = &spec.stages[0];
    (attend.score, attend.mask.expect("a mask"))
}

fn point(i: i64, j: i64) -> Point {
    Point {
        index: [0, 1, i, j],
        len: [1, 2, 8, 8],
        scalar: Value::Int(3),
        doc: vec![0, 0, 0, 1, 1, 2, 2, 2],
    }
}

#[test]
fn patterns_mean_what_they_say() {
    type Meaning = fn(i64, i64) -> bool;
    let cases: [(&str, &str, Meaning); 7] = [
        ("causal", "", |i, j| j <= i),
        ("window(left = 2)", "", |i, j| (0..=2).contains(&(i - j))),
        ("window(left = 2, right = 1)", "", |i, j| (-1..=2).contains(&(i - j))),
        ("window(left = n)", "scalar n: i32;", |i, j| (0..=3).contains(&(i - j))),
        ("sink(n)", "scalar n: i32;", |_, j| j < 3),
        ("same(doc)", "input doc: i32[b, j] sorted;", |i, j| {
            let doc = [0, 0, 0, 1, 1, 2, 2, 2];
            doc[i as usize] == doc[j as usize]
        }),
        ("(i - j - 8) / 3 == -3 || (j - 9) % 4 == 1", "", |i, j| {
            (i - j - 8).div_euclid(3) == -3 || (j - 9).rem_euclid(4) == 1
        }),
    ];
    for (mask, more, meaning) in cases {
        let spec = spec("dot(q, k)", mask, more);
        for (i, j) in (0..8).flat_map(|i| (0..8).map(move |j| (i, j))) {
            let value = eval(&spec, stage(&spec).1, &point(i, j));
            assert_eq!(value, Ok(Value::Bool(meaning(i, j))), "{mask} at {i}, {j}");
        }
    }
}

#[test]
fn scores_are_computed_in_order() {
    let spec = spec(
        "if h == 1 { 3 * tanh(dot(q, k) / 3) } else { 0 } - abs(i - j)",
        "true",
        "",
    );
    let value = eval(&spec, stage(&spec).0, &point(2, 5)).and_then(Value::real);
    assert_eq!(value, Ok(3.0 * (2.0f64 / 3.0).tanh() - 3.0));
}

#[test]
fn out_of_range_and_zero_divisors_give_zero() {
    let table = "input doc: i32[b, j];";
    for mask in ["doc[b, i + 8] == 0", "i / (j - j) == 0", "i % (j - j) == 0"] {
        let spec = spec("dot(q, k)", mask, if mask.contains("doc") { table } else { "" });
        assert_eq!(
            eval(&spec, stage(&spec).1, &point(2, 0)),
            Ok(Value::Bool(true)),
            "{mask}"
        );
    }
}

#[test]
fn what_has_no_value_is_an_error() {
    let huge = spec("dot(q, k)", "n * n > 0", "scalar n: i32;");
    let point = Point {
        scalar: Value::Int(i64::MAX),
        ..point(0, 0)
    };
    assert_eq!(eval(&huge, stage(&huge).1, &point), Err(EvalError::Overflow));
    let point = Point {
        scalar: Value::Real(0.5),
        ..point
    };
    assert!(matches!(eval(&huge, stage(&huge).1, &point), Ok(Value::Bool(true))));
    let point = Point {
        scalar: Value::Bool(true),
        ..point
    };
    assert!(matches!(
        eval(&huge, stage(&huge).1, &point),
        Err(EvalError::Type { .. })
    ));
}

#[test]
fn pictures_show_every_point() {
    let causal = spec("dot(q, k)", "causal", "");
    assert_eq!(mask_picture(&causal, 4, 4), "█▄··\n███▄\n");
    // The last query stands at the last key.
    assert_eq!(mask_picture(&causal, 2, 4), "███▄\n");
    assert_eq!(mask_picture(&causal, 3, 3), "█▄·\n▀▀▀\n");
    assert_eq!(mask_picture(&causal, 0, 4), "");
    let document = spec("dot(q, k)", "same(doc)", "input doc: i32[b, j] sorted;");
    assert_eq!(
        mask_picture(&document, 8, 8),
        "██······\n··██····\n····██··\n······██\n"
    );
    let streaming = spec("dot(q, k)", "causal && (window(left = 2) || sink(1))", "");
    assert_eq!(
        mask_picture(&streaming, 8, 8),
        "█▄······\n███▄····\n█·▀██▄··\n█···▀██▄\n"
    );
}

#[test]
fn large_pictures_are_bounded() {
    let lines: Vec<String> = picture(5000, 100_000, None, |row, col| col <= row)
        .lines()
        .map(str::to_owned)
        .collect();
    assert!(lines.len() <= 32 && lines.iter().all(|l| l.chars().count() <= 64));
    let causal = spec("dot(q, k)", "causal", "");
    let large = mask_picture(&causal, 4096, 4096);
    assert_eq!(large.lines().count(), 32);
    assert!(large.starts_with("▒") && large.lines().all(|l| l.contains('▒')));
    assert_eq!(picture_size(&causal), 32);
    assert_eq!(picture_size(&spec("dot(q, k)", "window(left = 1000)", "")), 2048);
}

#[test]
fn tiles_are_what_all_their_points_say() {
    let causal = spec("dot(q, k)", "causal", "");
    let mask = Mask::new(&causal, 8, 10).expect("a stage");
    let tiles = mask.tiles(4, 4);
    use Cover::{Empty, Full, Partial};
    // The first query stands at key 2.
    assert_eq!(tiles.blocks, [Partial, Partial, Empty, Full, Partial, Partial]);
    assert_eq!(
        (tiles.shape(), tiles.count(Full), tiles.around(7, 9)),
        ((2, 3), 1, Some(Partial))
    );
    assert_eq!(
        mask.picture(Some(&tiles)),
        "▓▓▓▓░░░░··\n▓▓▓▓▓▓░░··\n████▓▓▓▓░░\n████▓▓▓▓▓▓\n"
    );
    assert!("▓▓░░██··".chars().all(|c| LEGEND.contains(c)));
    assert_eq!(Grid::exact((0, 4), (2, 2), |_, _| true).blocks, []);
}

/// The area of the rectangles of a colour in an SVG.
fn area(svg: &str, colour: &str) -> usize {
    let path = svg.lines().find(|line| line.contains(&format!("fill=\"{colour}\" d=")));
    let rectangle = |text: &str| -> Option<usize> {
        let (_, size) = text.split_once('h')?;
        let (width, rest) = size.split_once('v')?;
        let (height, _) = rest.split_once('h')?;
        Some(width.parse::<usize>().ok()? * height.parse::<usize>().ok()?)
    };
    path.into_iter()
        .flat_map(|path| path.split('M'))
        .filter_map(rectangle)
        .sum()
}

#[test]
fn paintings_cover_what_is_visible() {
    let streaming = spec("dot(q, k)", "causal && (window(left = 20) || sink(3))", "");
    let mask = Mask::new(&streaming, 88, 96).expect("a stage");
    let seen = (0..88 * 96).filter(|n| mask.sees(n / 96, n % 96)).count();
    let svg = mask.paint(None).svg("a < b & c", 200);
    assert_eq!(area(&svg, "#2f5d8a"), seen);
    assert!(
        svg.contains("<title>a &lt; b &amp; c</title>") && svg.contains("viewBox=\"0 0 96 88\""),
        "{svg}"
    );
    let tiles = mask.tiles(8, 8);
    let tiled = mask.paint(Some(&tiles));
    let full = tiles.count(Cover::Full);
    assert!(full > 0);
    assert_eq!(area(&tiled.svg("", 200), "#2e7d4f"), full * 8 * 8);
    let (width, height, points) = tiled.points(2);
    assert_eq!((width, height, points.len()), (192, 176, 192 * 176));
    assert_eq!(
        points.iter().filter(|c| **c == [0x2e, 0x7d, 0x4f]).count(),
        full * 8 * 8 * 4
    );
    // However large, a painting has a bounded number of cells.
    let large = Mask::new(&streaming, 100_000, 50_000).expect("a stage").paint(None);
    assert_eq!((large.points(1).0, large.points(1).1), (64, 128));
}
