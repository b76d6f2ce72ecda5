//! What only macro calls have: a path in front, groups without delimiters, spans of the compiler.

use drawloom_lang::{parse_str, parse_tokens};
use proc_macro2::{Delimiter, Group, Ident, Literal, Span, TokenStream, TokenTree};

const SPEC: &str = include_str!("../../../specs/alibi.attn");

fn tokens(text: &str) -> TokenStream {
    text.parse().expect("Rust tokens")
}

#[test]
fn a_path_may_stand_in_front() {
    for (front, path) in [
        ("crate = my::drawloom;", "my :: drawloom"),
        ("crate = ::drawloom,", ":: drawloom"),
        ("crate = crate;", "crate"),
    ] {
        let call = parse_tokens(tokens(&format!("{front} {SPEC}"))).expect("a spec");
        assert_eq!(
            call.krate.expect("a path").to_string().replace(' ', ""),
            path.replace(' ', "")
        );
        assert_eq!(call.specs.len(), 1);
    }
    assert!(parse_tokens(tokens(SPEC)).expect("a spec").krate.is_none());
    for front in ["crate = ;", "crate = 3;", "crate = a", "crate;"] {
        let errors = parse_tokens(tokens(&format!("{front} {SPEC}"))).expect_err("no path");
        assert_eq!(errors.diagnostics[0].message, "expected `attention`, found `crate`");
    }
}

/// What a `macro_rules` macro passes on as `$x:expr` or `$x:literal` comes in a group without delimiters.
#[test]
fn groups_without_delimiters_are_seen_through() {
    fn insert(stream: TokenStream, inner: &TokenStream) -> TokenStream {
        let put = |tree| match tree {
            TokenTree::Ident(word) if word == "HERE" => TokenTree::Group(Group::new(Delimiter::None, inner.clone())),
            TokenTree::Group(group) => TokenTree::Group(Group::new(group.delimiter(), insert(group.stream(), inner))),
            tree => tree,
        };
        stream.into_iter().map(put).collect()
    }
    let negative: TokenStream = TokenTree::Literal(Literal::i32_unsuffixed(-7)).into();
    for (inner, text) in [
        (tokens("3"), "3"),
        (tokens("i - j"), "(i - j)"),
        (negative, "-7"),
        (TokenTree::Ident(Ident::new("j", Span::call_site())).into(), "j"),
    ] {
        let base = SPEC.replace("mask = causal", "mask = j < 2 * HERE");
        let call = parse_tokens(insert(tokens(&base), &inner)).expect("a spec");
        assert_eq!(call.specs, parse_str("a", &base.replace("HERE", text)).expect("a spec"));
    }
}

#[test]
fn every_error_is_a_compile_error() {
    let errors = parse_tokens(tokens(&SPEC.replace("causal;", "causl & 3;"))).expect_err("two mistakes");
    assert!(errors.diagnostics.len() >= 2);
    let text = errors.to_compile_error().to_string();
    assert_eq!(text.matches("compile_error").count(), errors.diagnostics.len());
    assert!(text.contains("error[A0105]: expected `&&`, found `&`"), "{text}");
}

#[test]
fn nothing_is_an_error_too() {
    let errors = parse_tokens(TokenStream::new()).expect_err("nothing");
    assert_eq!(errors.diagnostics.len(), 1);
    assert!(!errors.to_compile_error().is_empty());
}
