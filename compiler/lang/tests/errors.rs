//! Every file in `tests/errors` is wrong; beside each lies what is said about it, to the letter.
//!
//! After a change of messages, `DRAWLOOM_BLESS=1 cargo test -p drawloom-lang --test errors` writes the files anew.

use drawloom_lang::diag::pages::pages;
use drawloom_lang::{Errors, parse_str, parse_tokens};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn cases() -> Vec<(String, String, PathBuf)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/errors");
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .expect("the folder of cases")
        .map(|e| e.expect("an entry").path())
        .filter(|p| p.extension().is_some_and(|e| e == "attn"))
        .collect();
    files.sort();
    files
        .into_iter()
        .map(|path| {
            let name = path.file_name().expect("a file").to_string_lossy().into_owned();
            (
                name,
                fs::read_to_string(&path).expect("a readable case"),
                path.with_extension("txt"),
            )
        })
        .collect()
}

fn errors(name: &str, text: &str) -> Errors {
    parse_str(name, text)
        .err()
        .unwrap_or_else(|| panic!("{name} has no errors"))
}

#[test]
fn messages_are_as_written_down() {
    let bless = std::env::var_os("DRAWLOOM_BLESS").is_some();
    let mut failures = String::new();
    for (name, text, expected) in cases() {
        let found = errors(&name, &text).to_string();
        if bless {
            fs::write(&expected, &found).expect("a writable folder");
        } else if fs::read_to_string(&expected).ok().as_ref() != Some(&found) {
            failures.push_str(&format!("{name} says\n{found}\n"));
        }
    }
    assert!(
        failures.is_empty(),
        "{failures}to accept these, run with DRAWLOOM_BLESS=1"
    );
}

/// A macro reports what a file does, error by error, on tokens of the same text.
#[test]
fn macros_say_the_same() {
    let mut compared = 0;
    for (name, text, _) in cases() {
        // What is no Rust token does not reach a macro.
        let Ok(stream) = text.parse::<proc_macro2::TokenStream>() else {
            continue;
        };
        let from_file = errors(&name, &text).diagnostics;
        let from_macro = parse_tokens(stream)
            .err()
            .unwrap_or_else(|| panic!("{name} has no errors as a macro"));
        let facts = |d: &drawloom_lang::Diagnostic| (d.code, d.message.clone(), d.help.clone());
        assert_eq!(
            from_macro.diagnostics.iter().map(facts).collect::<Vec<_>>(),
            from_file.iter().map(facts).collect::<Vec<_>>(),
            "{name}"
        );
        for (tokens, bytes) in from_macro.diagnostics.iter().zip(&from_file) {
            let (first, _) = from_macro.spans.ends(tokens.span);
            let range = first.byte_range();
            let (lo, len) = (bytes.span.lo as usize, text.trim_end().len());
            assert!(range.start == lo || lo >= len, "{name}: {range:?} is not at {lo}");
        }
        compared += 1;
    }
    assert!(compared > 80, "only {compared} cases are made of Rust tokens");
}

/// Each function of `diag` that makes a diagnostic has a code of its own and a page with a spec that shows it, and a case
/// here.
#[test]
fn every_code_has_a_page_and_a_case() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/diag");
    let files = fs::read_dir(folder)
        .expect("the folder of diagnostics")
        .map(|e| e.expect("an entry").path());
    let sources: Vec<String> = files.map(|path| fs::read_to_string(path).expect("a source")).collect();
    // A code is quoted once, in the function that makes its error.
    let is_code =
        |text: &&str| text.len() == 5 && text.starts_with('A') && text[1..].bytes().all(|b| b.is_ascii_digit());
    let mut made: Vec<&str> = sources.iter().flat_map(|s| s.split('"')).filter(is_code).collect();
    made.sort_unstable();
    let codes: Vec<&str> = pages().iter().map(|page| page.code).collect();
    assert_eq!(codes, made, "a code is used twice, or has no page");
    let codes: BTreeSet<&str> = codes.into_iter().collect();
    let mut wrong = String::new();
    for page in pages() {
        let of = |errors: Errors| errors.diagnostics.iter().map(|d| d.code).collect::<BTreeSet<_>>();
        let found = parse_str(page.code, &page.example()).err().map(of).unwrap_or_default();
        if found != BTreeSet::from([page.code]) || page.text.is_empty() || page.title().len() > 400 {
            wrong.push_str(&format!("the example of {} has the errors {found:?}\n", page.code));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    let shown: BTreeSet<&str> = cases()
        .iter()
        .flat_map(|(n, t, _)| errors(n, t).diagnostics)
        .map(|d| d.code)
        .collect();
    // A file of this length is no case, but it is an example.
    let missing: Vec<&&str> = codes.difference(&shown).filter(|c| **c != "A0504").collect();
    assert!(missing.is_empty(), "no case shows {missing:?}");
}
