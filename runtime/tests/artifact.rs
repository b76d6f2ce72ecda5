//! Artifacts: what was packed opens, what was damaged does not, and a machine without a driver is an error value.

use drawloom::manifest::{Instance, Provenance};
use drawloom::{Artifact, ArtifactError, Embedded, Error};
use drawloom_lang::artifact::{Code, file_stem, module_code, open, pack, seal};
use drawloom_lang::spec::Binding;

const SPEC: &str = "attention causal {
    type T in [f16];
    axis b, i: query(end), j: key, d = 64;
    input q: T[b, i, d], k: T[b, j, d], v: T[b, j, d];
    attend o over j in (k, v) { score = dot(q, k); mask = causal; norm = softmax; }
    output o: T[b, i, d];
}";

fn packed() -> (String, Vec<u8>) {
    packed_as("second module")
}

fn packed_as(second: &str) -> (String, Vec<u8>) {
    let spec = drawloom_lang::parse_str("causal", SPEC)
        .unwrap_or_else(|errors| panic!("{errors}"))
        .remove(0);
    let code = |text: &str| Code {
        target: "sm_80".into(),
        form: "ptx".into(),
        bytes: text.repeat(50).into(),
        of: None,
    };
    let cubin = Code {
        target: "sm_86".into(),
        form: "cubin".into(),
        bytes: (0..=255).collect(),
        of: Some(1),
    };
    let types = vec![drawloom::Dtype::F16];
    pack(
        "causal",
        &drawloom_lang::canonical(&spec),
        &drawloom_lang::key(&spec),
        Provenance {
            compiler: "0".into(),
            llvm: "0".into(),
            ptxas: Some("13.5.37".into()),
        },
        &[code("first"), code(second), cubin],
        vec![Instance {
            binding: Binding {
                types,
                sizes: vec![None, None, None, Some(64)],
            },
            variants: vec![],
        }],
    )
    .unwrap()
}

#[test]
fn what_is_packed_opens_and_packing_repeats() {
    let (manifest, payload) = packed();
    assert_eq!((manifest.clone(), payload.clone()), packed());
    let opened = open(&manifest, &payload).unwrap();
    assert_eq!(
        module_code(&opened, &payload, 0).unwrap(),
        "first".repeat(50).into_bytes()
    );
    assert_eq!(
        module_code(&opened, &payload, 1).unwrap(),
        "second module".repeat(50).into_bytes()
    );
    assert_eq!(
        module_code(&opened, &payload, 2).unwrap(),
        (0..=255).collect::<Vec<u8>>()
    );
    assert_eq!((&opened.modules[2].of, &opened.modules[0].of), (&Some(1), &None));
    assert!(matches!(
        module_code(&opened, &payload, 3),
        Err(ArtifactError::Module { index: 3, .. })
    ));
    assert_eq!(file_stem("causal", &opened.key).len(), "causal-".len() + 16);
    assert!(Artifact::from_bytes(&manifest, &payload).is_ok());
}

#[test]
fn any_flipped_bit_and_any_missing_byte_is_refused() {
    let (manifest, payload) = packed();
    let flip = |bytes: &[u8], bit: usize| {
        let mut damaged = bytes.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        damaged
    };
    for bit in 0..payload.len() * 8 {
        let refused = open(&manifest, &flip(&payload, bit));
        assert!(
            matches!(refused, Err(ArtifactError::Payload { .. })),
            "bit {bit} of the payload"
        );
    }
    for at in 0..payload.len() {
        let refused = open(&manifest, &payload[..at]);
        assert!(
            matches!(refused, Err(ArtifactError::Payload { .. })),
            "{at} bytes of the payload"
        );
    }
    for bit in 0..manifest.len() * 8 {
        // What is no text any more cannot be given to `open`, nor read from a file.
        let damaged = String::from_utf8(flip(manifest.as_bytes(), bit));
        assert!(
            damaged.map_or(true, |text| open(&text, &payload).is_err()),
            "bit {bit} of the manifest"
        );
    }
    for at in 0..manifest.len() {
        assert!(open(&manifest[..at], &payload).is_err(), "{at} bytes of the manifest");
    }
    assert!(
        open(&manifest.replace('\n', "\r\n"), &payload).is_ok(),
        "a checkout may end lines otherwise"
    );
    // Hashes found at unpacking too: a module's bytes against its own hash.
    let opened = open(&manifest, &payload).unwrap();
    let mut damaged = payload.clone();
    damaged[1] ^= 1;
    assert!(matches!(
        module_code(&opened, &damaged, 0),
        Err(ArtifactError::Module { index: 0, .. })
    ));
}

#[test]
fn altered_manifests_are_refused_sealed_or_not() {
    let (manifest, payload) = packed();
    let refuse = |from: &str, to: &str| {
        assert!(manifest.contains(from), "{from}");
        let altered = manifest.replacen(from, to, 1);
        let refused = open(&altered, &payload);
        if let Ok(altered) = &refused {
            panic!("{altered:?}");
        }
        // Sealed again, it must be refused for what it says.
        open(&seal(&altered).expect("there is a place for the seal"), &payload)
            .map(|_| ())
            .unwrap_err()
    };
    assert_eq!(
        refuse("\"abi\": 1", "\"abi\": 999"),
        ArtifactError::Abi {
            expected: 1,
            given: 999
        }
    );
    assert!(matches!(
        refuse("score = ", "score = 2.0 * "),
        ArtifactError::Key { .. }
    ));
    assert!(matches!(
        refuse("\"name\": \"causal\"", "\"name\": \"other\""),
        ArtifactError::Inconsistent { .. }
    ));
    assert!(matches!(
        refuse("\"offset\": 0", "\"offset\": 1"),
        ArtifactError::Inconsistent { .. }
    ));
    assert!(matches!(
        refuse("\"form\": \"ptx\"", "\"form\": \"elf\""),
        ArtifactError::Inconsistent { .. }
    ));
    // A cubin is of PTX, and PTX of nothing.
    for (from, to) in [
        ("\"of\": 1", "\"of\": 2"),
        ("\"of\": 1", "\"of\": 3"),
        ("\"form\": \"cubin\"", "\"form\": \"ptx\""),
        ("\"form\": \"ptx\"", "\"form\": \"ptx\", \"of\": 1"),
    ] {
        assert!(matches!(refuse(from, to), ArtifactError::Inconsistent { .. }), "{to}");
    }
    assert!(matches!(
        refuse("\"length\": ", "\"length\": 9"),
        ArtifactError::Inconsistent { .. }
    ));
    assert!(matches!(
        refuse("\"code_length\": ", "\"code_length\": 99999999999"),
        ArtifactError::Inconsistent { .. }
    ));
    assert!(matches!(
        refuse("\"offset\": 0", "\"offset\": -1"),
        ArtifactError::Manifest(_)
    ));
    let deep = format!("{{\"abi\": {}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(matches!(open(&deep, &payload), Err(ArtifactError::Manifest(_))));
}

#[test]
fn a_manifest_of_another_binding_is_refused() {
    let (manifest, payload) = packed();
    let swapped = manifest.replacen("\"f16\"\n", "\"bf16\"\n", 1);
    assert_ne!(manifest, swapped);
    let swapped = seal(&swapped).expect("there is a place for the seal");
    let error = Artifact::from_bytes(&swapped, &payload).err().unwrap();
    assert!(
        matches!(error, Error::Artifact(ArtifactError::Inconsistent { .. })),
        "{error}"
    );
}

/// What was written before cubins were: without the field, it means what it meant.
#[test]
fn a_manifest_without_cubins_opens() {
    let (manifest, payload) = packed();
    let older = manifest.replacen(",\n      \"of\": 1", "", 1);
    assert_ne!(manifest, older);
    let older = seal(&older).unwrap();
    let opened = open(&older, &payload).unwrap();
    assert!(opened.modules.iter().all(|module| module.of.is_none()));
}

#[test]
fn halves_of_two_artifacts_are_refused() {
    let (manifest, payload) = packed();
    let (other, other_payload) = packed_as("first");
    assert!(open(&other, &other_payload).is_ok());
    assert!(matches!(
        open(&manifest, &other_payload),
        Err(ArtifactError::Payload { .. })
    ));
    assert!(matches!(open(&other, &payload), Err(ArtifactError::Payload { .. })));
}

#[test]
fn files_open_by_path_and_missing_ones_are_named() {
    let (manifest, payload) = packed();
    let folder = std::env::temp_dir().join(format!("drawloom-artifact-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("causal.json");
    std::fs::write(&path, &manifest).unwrap();
    let missing = Artifact::open(&path).err().unwrap();
    assert!(
        matches!(&missing, Error::File { path, .. } if path.ends_with("causal.bin")),
        "{missing}"
    );
    std::fs::write(path.with_extension("bin"), &payload).unwrap();
    assert_eq!(Artifact::open(&path).unwrap().manifest().name, "causal");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn without_a_driver_there_is_an_error_and_no_panic() {
    if drawloom::driver_is_present() {
        assert!(!matches!(drawloom::context(0), Err(Error::NoDriver)));
    } else {
        assert_eq!(drawloom::context(0).err(), Some(Error::NoDriver));
    }
}

#[test]
fn an_operator_that_was_not_prepared_still_has_its_spec() {
    let embedded = Embedded::new("causal", SPEC, None, "drawloom prepare");
    assert_eq!(embedded.operator().unwrap().spec().name, "causal");
    assert_eq!(embedded.operator().unwrap().find_tensor("o"), Some(3));
}
