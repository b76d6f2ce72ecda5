//! `JSON.md` and the command agree: every field that is printed is described, and every field that is described is
//! printed by one of the calls here.

mod common;

use common::{drawloom, spec, text, with_input};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const PAGE: &str = include_str!("../JSON.md");

/// The fields of a section of the page, with their types.
fn described(section: &str) -> BTreeMap<String, String> {
    let start = format!("\n## {section}\n");
    let (_, rest) = PAGE
        .split_once(&start)
        .unwrap_or_else(|| panic!("no section {section}"));
    let body = rest.split("\n## ").next().unwrap_or_default();
    let rows = body.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| {
        let (field, rest) = row.split_once("` | ")?;
        Some((field.to_owned(), rest.split(" |").next()?.to_owned()))
    })
    .collect()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// What is wrong with a value at a path; what was met is added to `seen`.
fn walk(value: &Value, path: &str, fields: &BTreeMap<String, String>, seen: &mut BTreeSet<String>) -> Vec<String> {
    seen.insert(path.to_owned());
    if value.is_null() {
        return Vec::new();
    }
    let below = fields.keys().any(|field| {
        field
            .strip_prefix(path)
            .is_some_and(|rest| rest.starts_with('.') || rest.starts_with("[]"))
    });
    match (fields.get(path), value) {
        (Some(ty), _) if !below => {
            let right = ty == kind(value) || ty == "any";
            match right {
                true => Vec::new(),
                false => vec![format!("{path} is {}, not {ty}", kind(value))],
            }
        }
        (_, Value::Array(items)) if below => items
            .iter()
            .flat_map(|item| walk(item, &format!("{path}[]"), fields, seen))
            .collect(),
        (_, Value::Object(members)) if below => {
            let any = format!("{path}.*");
            let inside = |name: &str| {
                if fields.contains_key(&any) {
                    any.clone()
                } else {
                    format!("{path}.{name}")
                }
            };
            members
                .iter()
                .flat_map(|(name, item)| walk(item, &inside(name), fields, seen))
                .collect()
        }
        _ => vec![format!("{path} is not described")],
    }
}

/// Calls of a command that together print all of its fields.
fn agree(command: &str, calls: &[&[&str]]) {
    let mut fields = described("Every command");
    fields.remove("result");
    let own = described(command);
    fields.extend(own.clone());
    let (mut seen, mut wrong) = (BTreeSet::new(), Vec::new());
    for call in calls {
        let output = drawloom(&[&[command], *call, &["--format", "json"]].concat());
        let printed: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("{command} {call:?}: {e}\n{}", text(&output.stderr)));
        assert_eq!(printed["command"], command);
        assert_eq!(printed["format"], 1);
        assert_eq!(printed["exit"].as_i64(), output.status.code().map(i64::from));
        for (name, value) in printed.as_object().expect("an object") {
            wrong.extend(walk(value, name, &fields, &mut seen));
        }
    }
    // What stands in lists that were empty cannot be met.
    let reached = |field: &String| {
        let parent = field.rsplit_once("[]").map_or("", |(list, _)| list);
        seen.contains(field) || (seen.contains(parent) && !seen.contains(&format!("{parent}[]")))
    };
    wrong.extend(
        own.keys()
            .filter(|f| !reached(f))
            .map(|f| format!("{f} is described, but never printed")),
    );
    assert!(wrong.is_empty(), "{command}: {wrong:#?}");
}

const SMALL: [&str; 4] = ["--type", "bf16", "--size", "d=64,h=2,i=40,j=70"];

#[test]
fn commands_without_kernels_print_what_is_described() {
    let causal = spec("causal.attn");
    agree("check", &[&[&causal]]);
    agree("doctor", &[&[]]);
    agree("explain-error", &[&["A0101"]]);
    agree("completions", &[&["bash"]]);
    let streaming = spec("streaming.attn");
    agree(
        "mask",
        &[&[&streaming, "--tile", "64x64"], &[&streaming, "--diff", &causal]],
    );
    let output = with_input(&["fmt", "-", "--format", "json"], "attention a{}");
    let printed: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(printed["result"][0]["text"], "attention a {}\n");
    agree("fmt", &[&["--check", &causal]]);
}

#[test]
fn commands_with_kernels_print_what_is_described() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().display().to_string();
    let dense = spec("dense.attn");
    let small = |more: &[&'static str]| [&[dense.as_str()], &SMALL[..], more].concat();
    let (written, emitted) = (["--size", "d=64"], ["--emit", "spec", "--size", "d=64"]);
    let compile = [&[dense.as_str(), "--type", "bf16", "--out", &out], &written[..]].concat();
    agree("compile", &[&compile, &[&[dense.as_str()], &emitted[..]].concat()]);
    let manifest = folder
        .path()
        .read_dir()
        .expect("artifacts")
        .map(|e| e.expect("an entry").path());
    let manifest = manifest.filter(|path| path.extension().is_some_and(|end| end == "json"));
    let manifest = manifest
        .map(|path| path.display().to_string())
        .next()
        .expect("a manifest");
    agree("inspect", &[&[&manifest, "--variant", "0", "--show", "ptx"]]);
    agree("explain", &[&small(&["--budget", "bytes=1"])]);
    agree("run", &[&small(&["--target", "sm_80"])]);
    agree("verify", &[&small(&["--target", "sm_80", "--cases", "1"])]);
}

/// An error in a spec has all the fields of an error.
#[test]
fn errors_print_what_is_described() {
    let fields = described("Every command");
    let twice = "attention a { axis b, b; }";
    let output = with_input(&["check", "-", "--format", "json"], twice);
    assert_eq!(output.status.code(), Some(1));
    let printed: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let mut seen = BTreeSet::new();
    let wrong = walk(&printed["errors"], "errors", &fields, &mut seen);
    assert!(wrong.is_empty(), "{wrong:?}");
    let mut errors = printed["errors"].as_array().expect("errors").iter();
    let repeated = errors.find(|error| error["code"] == "A0202").expect("a repeated name");
    assert_eq!(repeated["at"]["column"], 23, "{printed:#}");
    assert_eq!(repeated["related"]["at"]["column"], 20, "{printed:#}");
}

#[test]
fn exit_codes_are_those_of_help() {
    let help = text(&drawloom(&["--help"]).stdout);
    let (_, codes) = help.split_once("Exit codes:\n").expect("the codes");
    let codes: Vec<&str> = codes.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!(codes.len(), 6, "{help}");
    for code in codes {
        assert!(PAGE.contains(code), "{code} is not in JSON.md");
    }
}
