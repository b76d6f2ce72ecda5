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
