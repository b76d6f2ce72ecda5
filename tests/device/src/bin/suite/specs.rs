//! The published specs and those of the suite, with their kernels.

#![allow(
    dead_code,
    reason = "the suite calls operators by name, not by their typed launchers"
)]

use drawloom::Embedded;

drawloom::attn!(file = "../../specs/alibi.attn");
drawloom::attn!(file = "../../specs/causal.attn");
drawloom::attn!(file = "../../specs/dense.attn");
drawloom::attn!(file = "../../specs/document.attn");
drawloom::attn!(file = "../../specs/gqa_causal.attn");
drawloom::attn!(file = "../../specs/softcap.attn");
drawloom::attn!(file = "../../specs/streaming.attn");
drawloom::attn!(file = "../suite/bugs.attn");

/// The operator of this name.
pub fn find(name: &str) -> Option<&'static Embedded> {
    let all = [
        &alibi::OPERATOR,
        &causal::OPERATOR,
        &dense::OPERATOR,
        &document::OPERATOR,
        &gqa_causal::OPERATOR,
        &softcap::OPERATOR,
        &streaming::OPERATOR,
        &windowed::OPERATOR,
        &cached::OPERATOR,
        &islands::OPERATOR,
    ];
    all.into_iter().find(|operator| operator.name == name)
}

#[cfg(test)]
mod tests {
    use super::find;
    use std::path::Path;

    /// So that what is prepared for this crate, and assembled then, is every published spec.
    #[test]
    fn every_published_spec_is_embedded() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../specs");
        let entries = folder.read_dir().expect("the folder is there");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        let mut specs = 0;
        for path in paths.filter(|path| path.extension().is_some_and(|end| end == "attn")) {
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            assert!(find(&name).is_some(), "{name} is not embedded");
            specs += 1;
        }
        assert!(specs >= 7);
    }
}
