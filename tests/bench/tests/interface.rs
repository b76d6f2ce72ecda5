//! The C interface without a GPU: what can fail says why, and nothing panics.

use drawloom_bench::{
    drawloom_close, drawloom_error, drawloom_launch, drawloom_open, drawloom_prepare, drawloom_variants,
};
use drawloom_lang::artifact::pack;
use drawloom_lang::manifest::{Instance, Provenance};
use std::ffi::{CStr, CString};

const SPEC: &str = "attention causal {
    type T in [f16];
    axis b, i: query(end), j: key, d = 64;
    input q: T[b, i, d], k: T[b, j, d], v: T[b, j, d];
    attend o over j in (k, v) { score = dot(q, k); mask = causal; norm = softmax; }
    output o: T[b, i, d];
}";

fn error() -> String {
    // SAFETY: the text is the thread's own.
    unsafe { CStr::from_ptr(drawloom_error()) }
        .to_string_lossy()
        .into_owned()
}

/// An artifact without variants, in a folder of its own.
fn artifact(folder: &std::path::Path) -> CString {
    let spec = drawloom_lang::parse_str("causal", SPEC)
        .expect("the spec is right")
        .remove(0);
    let provenance = Provenance {
        compiler: "0".into(),
        llvm: "0".into(),
        ptxas: None,
    };
    let instances = drawloom_lang::bindings(&spec).into_iter().map(|binding| Instance {
        binding,
        variants: vec![],
    });
    let (text, key) = (drawloom_lang::canonical(&spec), drawloom_lang::key(&spec));
    let (manifest, payload) =
        pack("causal", &text, &key, provenance, &[], instances.collect()).expect("the parts make an artifact");
    std::fs::create_dir_all(folder).expect("a folder");
    std::fs::write(folder.join("causal.json"), manifest).expect("a file");
    std::fs::write(folder.join("causal.bin"), payload).expect("a file");
    let path = folder.join("causal.json").display().to_string();
    CString::new(path).expect("no zero byte")
}

#[test]
fn failures_are_null_with_a_reason() {
    let path = CString::new("no-such-artifact.json").expect("no zero byte");
    // SAFETY: the text ends with a zero byte; null handles are allowed.
    unsafe {
        assert!(drawloom_open(path.as_ptr()).is_null());
        assert!(
            error().contains("`no-such-artifact.json` cannot be read"),
            "{}",
            error()
        );
        assert!(drawloom_open(std::ptr::null()).is_null());
        assert_eq!(error(), "no text is given");
        assert!(drawloom_variants(std::ptr::null_mut(), path.as_ptr()).is_null());
        assert_eq!(error(), "a null handle is given");
        assert_eq!(drawloom_launch(std::ptr::null_mut(), std::ptr::null_mut()), 1);
    }
}

#[test]
fn calls_are_read_and_a_missing_driver_is_said() {
    let folder = std::env::temp_dir().join(format!("drawloom-bench-{}", std::process::id()));
    let path = artifact(&folder);
    let text = |json: &str| CString::new(json).expect("no zero byte");
    // SAFETY: the texts end with a zero byte, the handle is live until it is closed, and nothing is launched.
    unsafe {
        let opened = drawloom_open(path.as_ptr());
        assert!(!opened.is_null(), "{}", error());
        assert!(drawloom_prepare(opened, text("{").as_ptr()).is_null());
        assert!(error().starts_with("the call cannot be read"), "{}", error());
        assert!(drawloom_prepare(opened, text("{\"tensors\": {}}").as_ptr()).is_null());
        let expected = match drawloom::driver_is_present() {
            true => "tensor `q` is missing",
            false => "no CUDA driver was found",
        };
        // Where there is a driver but no device, the driver says so.
        assert!(
            error().contains(expected) || error().contains("opening the device"),
            "{}",
            error()
        );
        drawloom_close(opened);
    }
    std::fs::remove_dir_all(folder).expect("the folder is there");
}
