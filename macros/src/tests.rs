//! What the macro makes, as tokens.

use crate::attn_tokens;
use quote::quote;

fn items(tokens: proc_macro2::TokenStream) -> String {
    // Printed and read again, the trees are whole; whether they compile is the matter of `tests/ui`.
    let text = tokens.to_string();
    text.parse::<proc_macro2::TokenStream>()
        .expect("an expansion can be printed and read")
        .to_string()
}

fn causal() -> proc_macro2::TokenStream {
    quote! {
        pub(crate) attention causal {
            type T in [f16, bf16];
            axis b, h, g = h / [1, 4], i: query(end), j: key, d in [64, 128], e = 32;
            input q: T[b, h, i, d], k: T[b, g, j, d], v: T[b, g, j, e];
            scalar cap: f32;
            attend o over j in (k, v) { score = cap * tanh(dot(q, k) / cap); mask = causal; norm = softmax; }
            output o: T[b, h, i, e], lse(o, bits): f32[b, h, i];
        }
    }
}

#[test]
fn a_spec_without_an_artifact_is_one_error_and_the_whole_module() {
    let text = items(attn_tokens(causal()));
    assert_eq!(text.matches("compile_error").count(), 1);
    assert!(text.contains("run `drawloom prepare`"));
    assert!(text.contains("pub (crate) mod causal"));
    for part in [
        "struct Args",
        "struct Max",
        "struct Operator",
        "fn load <",
        "fn launch",
        "fn cpu <",
    ] {
        assert_eq!(text.matches(&format!("pub {part}")).count(), 1, "{part}");
    }
    assert!(text.contains(":: drawloom :: Tensor"));
    assert!(!text.contains("feature"));
}

#[test]
fn sizes_that_are_fixed_or_follow_are_no_fields() {
    let text = items(attn_tokens(causal()));
    let max = text
        .split("pub struct Max")
        .nth(1)
        .and_then(|rest| rest.split('}').next())
        .unwrap_or_default();
    for (axis, wanted) in [
        ("b", true),
        ("h", true),
        ("g", false),
        ("i", true),
        ("j", true),
        ("d", true),
        ("e", false),
    ] {
        assert_eq!(max.contains(&format!("pub {axis} :")), wanted, "{axis} in {max}");
    }
}

#[test]
fn the_crate_can_be_named() {
    let spec = causal();
    let text = items(attn_tokens(quote!(crate = crate::my::drawloom; #spec)));
    assert!(text.contains("crate :: my :: drawloom :: Tensor"));
    assert!(!text.contains(":: drawloom :: Tensor :: drawloom"));
}

#[test]
fn all_errors_of_a_spec_come_at_once() {
    let text = items(attn_tokens(quote! {
        attention bad {
            axis b, i: query(end), j: key, d = 64;
            input q: f16[b, i, d], k: f16[b, j, d], v: f16[b, j, d];
            attend o over j in (k, v) { score = dot(q, kk); mask = causl; norm = softmax; }
            output o: f16[b, i, d];
        }
    }));
    assert!(text.matches("compile_error").count() >= 2, "{text}");
    assert!(!text.contains("mod bad"));
}

#[test]
fn a_missing_file_is_one_error_that_names_it() {
    let text = items(attn_tokens(quote!(file = "specs/nowhere.attn")));
    assert_eq!(text.matches("compile_error").count(), 1);
    assert!(text.contains("specs/nowhere.attn"));
    let text = items(attn_tokens(quote!(file = 7)));
    assert!(text.contains("expected a path in quotes, found 7"));
}

#[test]
fn a_file_and_the_record_mode_are_tracked() {
    let text = items(attn_tokens(quote!(crate = ::other, file = "../specs/causal.attn",)));
    assert!(text.contains("include_str"), "{text}");
    assert!(text.contains("option_env ! (\"DRAWLOOM_RECORD\")"), "{text}");
    assert!(text.contains(":: other :: Embedded"));
}

#[test]
fn several_specs_are_several_modules() {
    let one = causal();
    let text = items(attn_tokens(quote! {
        #one
        attention other {
            axis b, i: query(end), j: key, d = 64;
            input q: f16[b, i, d], k: f16[b, j, d], v: f16[b, j, d];
            attend o over j in (k, v) { score = dot(q, k); norm = softmax; }
            output o: f16[b, i, d];
        }
    }));
    assert!(text.contains("mod causal") && text.contains("mod other"));
    assert_eq!(text.matches("compile_error").count(), 2);
}
