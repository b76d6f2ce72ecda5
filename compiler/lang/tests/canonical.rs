//! The canonical form and the keys of the published specs are frozen.

use drawloom_lang::{Spec, canonical, parse_str};
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
