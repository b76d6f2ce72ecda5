//! Damaged artifacts: opening one and unpacking its code never panic, and no byte of the payload can change unseen.

use drawloom_fuzz::fuzz;
use drawloom_lang::artifact::{Code, module_code, open, pack, seal};
use drawloom_lang::manifest::{Arg, Formula, Instance, Launch, Provenance, Report, Requires, Variant};

const SPEC: &str = "
    attention small {
        type T in [f16];
        axis b, h, i: query(end), j: key, d = 64;
        input q: T[b, h, i, d], k: T[b, h, j, d], v: T[b, h, j, d];
        attend o over j in (k, v) { score = dot(q, k); mask = causal; norm = softmax; }
        output o: T[b, h, i, d];
    }";

/// An artifact that opens: one variant of one kernel.
fn artifact() -> (String, Vec<u8>) {
    let specs = drawloom_lang::parse_str("small.attn", SPEC).expect("the spec is good");
    let size = |axis: &str| Formula::Size(axis.to_owned());
    let grid = Formula::CeilDiv(Box::new(size("i")), Box::new(Formula::Const(64)));
    let args = ["q", "k", "v", "o"].map(|name| Arg::Pointer(name.to_owned()));
    let launch = Launch {
        module: 0,
        kernel: "small_0".to_owned(),
        grid,
        threads: 128,
        shared: 1024,
        args: args.to_vec(),
    };
    let report = Report {
        schedule: vec!["block_m 64".to_owned()],
        registers: Some(96),
        shared: 1024,
        issued_bytes: 2,
        bound_bytes: 1,
        at: vec![("i".to_owned(), 64)],
        limit: "hbm".to_owned(),
    };
    let variant = Variant {
        name: "block_m 64".to_owned(),
        target: "sm_80".to_owned(),
        requires: Requires {
            align: 16,
            shared: 1024,
            when: Formula::Const(1),
        },
        splits: Formula::Const(1),
        workspace: Vec::new(),
        launches: vec![launch],
        time: size("j"),
        report,
    };
    let instances = drawloom_lang::bindings(&specs[0])
        .into_iter()
        .map(|binding| Instance {
            binding,
            variants: vec![variant.clone()],
        })
        .collect();
    let provenance = Provenance {
        compiler: "0.1.0".to_owned(),
        llvm: "22.1.0".to_owned(),
        ptxas: None,
    };
    let code = Code {
        target: "sm_80".to_owned(),
        form: "ptx".to_owned(),
        bytes: b"a module's text".repeat(20),
        of: None,
    };
    let cubin = Code {
        form: "cubin".to_owned(),
        of: Some(0),
        ..code.clone()
    };
    let (form, key) = (drawloom_lang::canonical(&specs[0]), drawloom_lang::key(&specs[0]));
    pack("small", &form, &key, provenance, &[code, cubin], instances).expect("the parts make an artifact")
}

#[test]
fn artifact_open() {
    let (manifest, payload) = artifact();
    fuzz(&[manifest], |text| {
        // Sealed again, so that what is behind the seal is tried too.
        if let Ok(manifest) = open(&seal(text).unwrap_or_default(), &payload) {
            for index in 0..=manifest.modules.len() {
                let _ = module_code(&manifest, &payload, index);
            }
        }
    });
}

#[test]
fn payload_is_what_was_packed() {
    let (manifest, payload) = artifact();
    assert!(open(&manifest, &payload).is_ok());
    for at in 0..payload.len() {
        let mut damaged = payload.clone();
        damaged[at] ^= 1;
        assert!(open(&manifest, &damaged).is_err(), "byte {at} is not covered");
    }
    // Not a number of the manifest either, in formulas, launches and parameters.
    for at in (0..manifest.len()).filter(|at| manifest.as_bytes()[*at].is_ascii_digit()) {
        let mut damaged = manifest.clone().into_bytes();
        damaged[at] ^= 1;
        let damaged = String::from_utf8(damaged).expect("it stays text");
        assert!(
            open(&damaged, &payload).is_err(),
            "byte {at} of the manifest is not covered"
        );
    }
}
