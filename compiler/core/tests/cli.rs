//! The `drawloom` command as a person meets it: what it prints, and how it exits.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn specs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../specs")
}

fn drawloom(args: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_drawloom")).args(args).output();
    output.expect("the command was built with the tests")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn spec(name: &str) -> String {
    specs().join(name).display().to_string()
}

#[test]
fn check_reports_every_spec() {
    let output = drawloom(&["check", &specs().display().to_string()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    for name in [
        "alibi",
        "causal",
        "dense",
        "document",
        "gqa_causal",
        "softcap",
        "streaming",
    ] {
        assert!(printed.contains(&format!("{name}: 12 bindings")), "{printed}");
    }
}

#[test]
fn a_wrong_spec_is_an_error_at_its_token() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("wrong.attn");
    let right = std::fs::read_to_string(spec("causal.attn")).expect("the spec is there");
    std::fs::write(&file, right.replace("dot(q, k)", "dot(q, kk)")).expect("a file");
    let output = drawloom(&["check", &file.display().to_string()]);
    assert_eq!(output.status.code(), Some(1));
    let printed = text(&output.stderr);
    assert!(printed.contains("kk") && printed.contains('^'), "{printed}");
}

#[test]
fn every_level_prints() {
    let spec = spec("streaming.attn");
    for (level, word) in [
        ("spec", "attention streaming"),
        ("graph", "fold"),
        ("ranges", "possible"),
        ("kernel", "stream"),
        ("passes", "wait_group"),
        ("llvm", "define ptx_kernel"),
        ("ptx", "mma.sync"),
    ] {
        let output = drawloom(&["compile", &spec, "--emit", level, "--type", "bf16", "--size", "d=64"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(text(&output.stdout).contains(word), "{level} holds no `{word}`");
    }
}

#[test]
fn the_same_spec_gives_the_same_bytes() {
    let folder = tempfile::tempdir().expect("a folder");
    let compile = |to: &str| -> Vec<(String, Vec<u8>)> {
        let out = folder.path().join(to);
        let out_text = out.display().to_string();
        let output = drawloom(&["compile", &spec("document.attn"), "--size", "d=64", "--out", &out_text]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let mut files: Vec<(String, Vec<u8>)> = (out.read_dir().expect("artifacts"))
            .map(|entry| {
                let path = entry.expect("an entry").path();
                let name = path
                    .file_name()
                    .map(|n| n.to_string_lossy().into_owned())
                    .unwrap_or_default();
                (name, std::fs::read(path).expect("a file"))
            })
            .collect();
        files.sort();
        files
    };
    let first = compile("first");
    assert_eq!(first.len(), 2);
    assert!(first == compile("second"), "two compilations differ");
}

#[test]
fn explain_gives_json_and_keeps_a_budget() {
    let spec = spec("causal.attn");
    let sized = [
        "explain",
        &spec,
        "--type",
        "bf16",
        "--size",
        "d=64,h=2,i=512,j=512",
        "--format",
        "json",
    ];
    let output = drawloom(&sized);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["spec"], "causal");
    assert!(report["bound_bytes"].as_u64().is_some_and(|bytes| bytes > 0));
    let mut tight = sized.to_vec();
    tight.extend(["--budget", "1"]);
    assert_eq!(drawloom(&tight).status.code(), Some(3));
}

#[test]
fn run_agrees_with_the_oracle() {
    let output = drawloom(&[
        "run",
        &spec("alibi.attn"),
        "--type",
        "bf16",
        "--size",
        "d=32,h=2,i=40,j=70",
    ]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    let errors = printed
        .split("o: ")
        .skip(1)
        .filter_map(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
    let errors: Vec<f64> = errors.collect();
    assert!(!errors.is_empty() && errors.iter().all(|e| *e < 4e-3), "{printed}");
}

#[test]
fn targets_are_chosen_by_name_and_the_first_must_have_kernels() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().display().to_string();
    let spec = spec("dense.attn");
    let compile = |targets: &str| {
        let choice = ["--type", "bf16", "--size", "d=64", "--target", targets];
        drawloom(&[&["compile", &spec, "--out", &out], &choice[..]].concat())
    };
    let portable = compile("sm_80");
    assert!(portable.status.success(), "{}", text(&portable.stderr));
    let both = compile("sm_80,sm_90a");
    assert!(both.status.success(), "{}", text(&both.stderr));
    let manifest = (folder.path().read_dir().expect("artifacts"))
        .map(|entry| entry.expect("an entry").path())
        .find(|path| path.extension().is_some_and(|end| end == "json"))
        .expect("a manifest");
    let text_of = std::fs::read_to_string(manifest).expect("a file");
    let manifest: serde_json::Value = serde_json::from_str(&text_of).expect("JSON");
    // Portable variants come first; every launch's module is for its variant's target.
    let variants = manifest["instances"][0]["variants"].as_array().expect("variants");
    let targets: Vec<&str> = variants.iter().filter_map(|v| v["target"].as_str()).collect();
    assert_eq!(targets[0], "sm_80");
    assert!(targets.is_sorted(), "{targets:?}");
    for variant in variants {
        for launch in variant["launches"].as_array().expect("launches") {
            let module = launch["module"].as_u64().expect("a number") as usize;
            assert_eq!(manifest["modules"][module]["target"], variant["target"]);
        }
    }
    // A target without kernels of its own is named with the reason.
    assert!(targets.contains(&"sm_90a") || text(&both.stdout).contains("none for sm_90a in 1 bindings: "));
    let unknown = compile("sm_7");
    assert!(!unknown.status.success());
    assert!(text(&unknown.stderr).contains("no target is called `sm_7`: sm_80, sm_90a"));
}
