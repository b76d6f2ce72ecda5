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
