//! What formatting keeps, and how its result looks.

use super::*;
use proptest::prelude::*;

fn formatted(text: &str) -> String {
    format("test", text).expect("tokens")
}

/// Tokens and comments in order, without their places.
fn content(text: &str) -> Vec<String> {
    let mut pieces = Vec::new();
    let tokens = lex(text, &mut Sink::default()).expect("tokens");
    let mut end = 0;
    for token in &tokens.tokens {
        comments(text, end, token.span.lo as usize, &mut pieces);
        let text = &text[token.span.lo as usize..token.span.hi as usize];
        pieces.push(Piece {
            text: if token.kind == Kind::End { "" } else { text.trim_end() },
            sort: Sort::Operand,
            newlines: 0,
            partner: 0,
        });
        end = token.span.hi as usize;
    }
    pieces.iter().map(|piece| piece.text.to_owned()).collect()
}

#[test]
fn a_spec_in_one_line_becomes_readable() {
    let text = "/// Causal.\npub(crate) attention a{type T in[f16,bf16];axis b,i:query(end),j:key,d in [64];\
                attend o over j in(k,v){score=-dot(q,k)*rsqrt(len(d))- -1;mask=!causal&&if i>j{true}else{j%2==0};\
                norm=softmax;}tile{sm_80.block_m=64;}}attention b{}";
    let wanted = "\
/// Causal.
pub(crate) attention a {
    type T in [f16, bf16];
    axis b, i: query(end), j: key, d in [64];
    attend o over j in (k, v) {
        score = -dot(q, k) * rsqrt(len(d)) - -1;
        mask = !causal && if i > j { true } else { j % 2 == 0 };
        norm = softmax;
    }
    tile {
        sm_80.block_m = 64;
    }
}

attention b {}
";
    assert_eq!(formatted(text), wanted);
}

#[test]
fn comments_stay_where_they_are() {
    let text = "\
// Of the file.

attention a { // of a
    axis b, // batch
        // own
        h; /* sizes */ // more


    // last
}
/* end */
";
    let wanted = "\
// Of the file.

attention a {
    // of a
    axis b, // batch
        // own
        h; /* sizes */ // more

    // last
}

/* end */
";
    assert_eq!(formatted(text), wanted);
    assert_eq!(formatted(wanted), wanted);
}

#[test]
fn long_statements_break_at_the_outermost_place() {
    let term = "window(left = 1024, right = 1024)";
    let text = format!("x {{ mask = ({term} || {term}) && ({term} || {term} || {term}); a = 1; }}");
    let wanted = format!(
        "x {{\n    mask = ({term} || {term})\n        && ({term}\n            || {term}\n            || {term});\n    a = 1;\n}}\n"
    );
    let found = formatted(&text);
    assert!(found.lines().all(|line| line.len() <= WIDTH), "{found}");
    assert_eq!(content(&found), content(&text));
    assert_eq!(formatted(&found), found);
    assert!(
        found.starts_with("x {\n    mask = (") && found.contains("\n        && ("),
        "{found}\n{wanted}"
    );
}

const PIECES: &[&str] = &[
    " ",
    "\n",
    "\n\n\n",
    "abc",
    "in",
    "if",
    "else",
    "1.5",
    "-",
    "!",
    "*",
    "&&",
    "||",
    "==",
    "=",
    ":",
    "::",
    ".",
    ",",
    ";",
    "(a)",
    "[1, b]",
    "{}",
    "{ a }",
    "{ a; }",
    "{ a; // c\n { b; } }",
    "((",
    "))",
    "{",
    "}",
    "// c\n",
    "/* c */",
    "/* c\n d */",
    "/// doc\n",
    "a_name_that_is_long_enough_to_break_a_line_after_a_few_of_them",
    "#",
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever has tokens keeps them, and its comments; and formatting again changes nothing.
    #[test]
    fn formatting_keeps_everything_and_settles(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..24)) {
        let text = pieces.join(" ");
        if let Ok(once) = format("test", &text) {
            prop_assert_eq!(content(&once), content(&text));
            prop_assert_eq!(&formatted(&once), &once);
        }
    }
}
