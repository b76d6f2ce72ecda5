//! Artifacts that carry what ptxas made; without a ptxas at hand there is nothing to carry.

use drawloom_compiler::compile::{Options, compile, few};
use drawloom_lang::artifact::{module_code, open};
use drawloom_lang::spec::{AxisSize, Binding, Dtype, Spec};
use drawloom_nvptx::ptxas::{find_ptxas, version};
use std::path::Path;

fn dense() -> Spec {
    let text = include_str!("../../../specs/dense.attn");
    let specs = drawloom_lang::parse_str("dense", text);
    specs.expect("the spec is right").remove(0)
}

fn small(spec: &Spec) -> Vec<Binding> {
    let mut bindings = few(spec);
    bindings.truncate(1);
    bindings
}

#[test]
fn few_bindings_are_of_one_type_and_each_class_of_sizes() {
    let spec = dense();
    let feature = spec
        .axes
        .iter()
        .position(|axis| matches!(axis.size, AxisSize::OneOf(_)));
    let feature = feature.expect("heads have compiled sizes");
    let few = few(&spec);
    let sizes: Vec<Option<u32>> = few.iter().map(|binding| binding.sizes[feature]).collect();
    assert_eq!(sizes, [Some(64), Some(128), Some(256)]);
    assert!(few.iter().all(|binding| binding.types == [Dtype::Bf16]));
}

#[test]
fn every_kernel_has_a_cubin_for_its_own_instruction_set() {
    let Some(ptxas) = find_ptxas(Path::new(env!("CARGO_MANIFEST_DIR"))) else {
        return;
    };
    let spec = dense();
    let options = Options {
        bindings: Some(small(&spec)),
        ptxas: Some(ptxas.clone()),
        assemble_for: vec!["sm_80".to_owned(), "sm_90a".to_owned()],
        assemble_once_for: vec!["sm_86".to_owned()],
        cubins: true,
        ..Options::default()
    };
    let compiled = compile(&spec, &options).expect("the spec compiles");
    let manifest = open(&compiled.manifest, &compiled.payload).expect("the artifact holds");
    assert_eq!(
        manifest.provenance.ptxas,
        Some(version(&ptxas).expect("it says its version"))
    );
    let text: Vec<usize> = (0..manifest.modules.len())
        .filter(|&index| manifest.modules[index].form == "ptx")
        .collect();
    assert_eq!(text.len(), compiled.modules.len());
    for &index in &text {
        let made: Vec<usize> = (0..manifest.modules.len())
            .filter(|&other| manifest.modules[other].of == Some(index))
            .collect();
        let [cubin] = made[..] else {
            panic!("module {index} has the cubins {made:?}")
        };
        assert_eq!(manifest.modules[cubin].target, manifest.modules[index].target);
        let code = module_code(&manifest, &compiled.payload, cubin).expect("it unpacks");
        assert!(code.starts_with(b"\x7fELF"), "module {cubin} is no ELF file");
    }
    // Launches name the PTX.
    let launches = manifest.instances.iter().flat_map(|instance| &instance.variants);
    assert!(
        launches
            .flat_map(|variant| &variant.launches)
            .all(|launch| text.contains(&launch.module))
    );
}
