//! Damaged graphs: reading and verifying never panic, and what is read prints to a fixed point.

use drawloom_fuzz::{fuzz, seeds};
use drawloom_graph::text::parse;
use drawloom_graph::{from_spec, verify};

/// Every spec of the repository as a graph.
fn graphs() -> Vec<String> {
    let specs = seeds(&["specs"], ".attn");
    let specs = specs
        .iter()
        .flat_map(|text| drawloom_lang::parse_str("seed.attn", text).expect("the specs are good"));
    specs
        .map(|spec| from_spec(&spec, &drawloom_lang::bindings(&spec)[0]).to_string())
        .collect()
}

#[test]
fn graph_text() {
    fuzz(&graphs(), |text| {
        if let Ok(parsed) = parse(text) {
            let printed = parsed.graph.to_string();
            let again = parse(&printed).expect("printed text is read");
            assert_eq!(again.graph.to_string(), printed);
            let _ = verify(&parsed.graph);
        }
    });
}
