//! Tensors of more than 2^31 elements: addresses and strides reach kernels whole.

use drawloom_compiler::compile::{Options, compile};
use drawloom_compiler::target::{SM_80, SM_90A};
use drawloom_lang::spec::Dtype;
use drawloom_tests::suite;
use std::collections::BTreeSet;

/// Code that multiplied a stride in 32 bits would read the low half of its parameter, or cut the register.
#[test]
fn bases_are_computed_in_64_bits() {
    let text = suite::SPECS
        .iter()
        .find(|(name, _)| *name == "gqa_causal")
        .expect("the spec")
        .1;
    let spec = drawloom_lang::parse_str("gqa_causal", text)
        .expect("a spec of this repository")
        .remove(0);
    let mut bindings = drawloom_lang::bindings(&spec);
    bindings.retain(|binding| binding.types == [Dtype::Bf16] && binding.sizes.contains(&Some(64)));
    let options = Options {
        targets: vec![&SM_80, &SM_90A],
        bindings: Some(bindings),
        ..Options::default()
    };
    let compiled = compile(&spec, &options).expect("it compiles");
    let mut strides = 0;
    for (name, ptx) in &compiled.modules {
        let (mut wide, mut whole) = (BTreeSet::new(), BTreeSet::new());
        for line in ptx.lines().map(str::trim) {
            let words: Vec<&str> = line
                .split([' ', '\t', ',', ';', '[', ']'])
                .filter(|word| !word.is_empty())
                .collect();
            match words.as_slice() {
                [".param", ".u64" | ".b64", rest @ ..] => {
                    wide.extend(rest.last().copied());
                }
                [load, to, from, ..] if load.starts_with("ld.param") && wide.contains(from) => {
                    assert!(load.ends_with("64"), "{name}: `{line}` reads a part of {from}");
                    whole.extend(to.trim_matches(['{', '}']).split(','));
                    strides += 1;
                }
                [cut, _, from, ..] if cut.starts_with("cvt.") && cut.contains("32.") => {
                    assert!(!whole.contains(from), "{name}: `{line}` cuts a parameter");
                }
                _ => {}
            }
        }
        assert!(!wide.is_empty(), "{name} has no parameter of 64 bits");
    }
    assert!(strides > 0, "no kernel reads a parameter of 64 bits");
}
