//! Rules about one file: how it begins, how long it is, what it may not say.

use super::Source;

/// Files of more than [`NEAR`] lines, each with the reason why it is one file.
const LONG: [(&str, &str); 2] = [
    (
        "compiler/kernel/src/ir.rs",
        "the whole tile program, types and meaning, is read in one place",
    ),
    ("compiler/nvptx/tests/operations.rs", "one table of every operation"),
];

/// Lines after which a Rust file needs a reason.
const NEAR: usize = 500;

/// Lines after which no reason helps.
const FAR: usize = 1000;

/// What is never left behind. Written in two parts so that this file does not hold them.
const LEFT: [&str; 6] = [
    concat!("to", "do!("),
    concat!("un", "implemented!("),
    concat!("#[", "ignore"),
    concat!("FIX", "ME"),
    concat!("TO", "DO"),
    concat!("d", "bg!("),
];

/// Paths that only one machine has.
const PLACES: [&str; 5] = [
    concat!("/", "home/"),
    concat!("/", "tmp/"),
    concat!("/", "work/"),
    concat!("/", "root/"),
    concat!("/", "Users/"),
];

/// Instructions of PTX, as they are spelled there and nowhere else.
const PTX: [&str; 10] = [
    concat!("mma.", "sync.aligned"),
    concat!("ld", "matrix.sync"),
    concat!("cp.", "async.c"),
    concat!("cp.", "async.bulk"),
    concat!("ld.", "global"),
    concat!("st.", "global"),
    concat!("ld.", "shared"),
    concat!("st.", "shared"),
    concat!("bar.", "sync"),
    concat!(".vis", "ible .entry"),
];

/// The one file that spells instructions.
const ASM: &str = "compiler/nvptx/src/asm.rs";

/// What is wrong with a file.
pub fn check(source: &Source) -> Vec<String> {
    let Source { path, text } = source;
    let mut complaints = Vec::new();
    let mut complain = |line: usize, what: &str| complaints.push(format!("{path}:{line}: {what}"));
    let rust = path.ends_with(".rs");
    let quoted = [".snap", ".stderr", ".lock"].iter().any(|end| path.ends_with(end))
        || (path.contains("/tests/") && path.ends_with(".txt"));

    if rust && !path.contains("/ui/") && !text.starts_with("//!") {
        complain(
            1,
            "a module begins with `//!`: what goes in, what comes out, why it stands there",
        );
    }
    let lines = text.lines().count();
    if rust && lines > FAR {
        complain(lines, &format!("{lines} lines, and {FAR} are the most"));
    } else if rust && lines > NEAR && !LONG.iter().any(|(long, _)| long == path) {
        complain(
            lines,
            &format!("{lines} lines: split it, or give the reason in `LONG` of xtask's tidy"),
        );
    }
    if LONG.iter().any(|(long, _)| long == path) && lines <= NEAR {
        complain(lines, "it is no longer long: take it out of `LONG` of xtask's tidy");
    }
    if !quoted && !text.is_empty() && !text.ends_with('\n') {
        complain(lines, "the last line does not end");
    }
    // The cases of the parser's errors are wrong in all ways.
    if path.ends_with(".attn")
        && !path.contains("/errors/")
        && drawloom_lang::format(path, text).ok().as_ref() != Some(text)
    {
        complain(1, "not formatted: run `drawloom fmt`");
    }
    for (number, line) in (1..).zip(text.lines()) {
        if !quoted && line.ends_with([' ', '\t']) {
            complain(number, "trailing space");
        }
        for left in LEFT {
            if (rust || path.ends_with(".toml") || path.ends_with(".md")) && line.contains(left) {
                complain(number, &format!("`{left}` is not left behind"));
            }
        }
        for place in PLACES {
            if !quoted && names_place(line, place) {
                complain(number, &format!("`{place}` is a path of one machine"));
            }
        }
        if rust && path != ASM && path.contains("/src/") {
            for instruction in PTX {
                if in_string(line, instruction) {
                    complain(number, &format!("`{instruction}` is spelled in {ASM} only"));
                }
            }
        }
    }
    complaints
}

/// Whether a line names an absolute path below `place`, and not a longer path or a web address with it inside.
fn names_place(line: &str, place: &str) -> bool {
    line.match_indices(place).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "._-/}".contains(c))
    })
}

/// Whether `word` stands in a line after an opening quote, outside a comment and not in the name of an LLVM intrinsic.
fn in_string(line: &str, word: &str) -> bool {
    let code = line.trim_start();
    let spelled = |text: &str| {
        text.match_indices(word)
            .any(|(at, _)| !text[..at].ends_with("llvm.nvvm."))
    };
    !code.starts_with("//") && code.split_once('"').is_some_and(|(_, rest)| spelled(rest))
}

#[cfg(test)]
mod tests {
    use super::{PLACES, PTX, Source, check};

    fn complaints(path: &str, text: &str) -> Vec<String> {
        check(&Source {
            path: path.to_owned(),
            text: text.to_owned(),
        })
    }

    #[test]
    fn a_clean_file_passes() {
        assert_eq!(complaints("a/src/b.rs", "//! Does b.\nfn b() {}\n"), [""; 0]);
    }

    #[test]
    fn each_rule_complains_on_its_line() {
        let place = PLACES[1];
        let instruction = PTX[0];
        let text = format!("//! B.\nlet a = 1; \nlet p = \"{place}x\";\nlet i = \"{instruction}\";\nlast");
        let found = complaints("a/src/b.rs", &text);
        for line in [
            "a/src/b.rs:2: trailing",
            "a/src/b.rs:3: `",
            "a/src/b.rs:4: `",
            "a/src/b.rs:5: the last",
        ] {
            assert!(
                found.iter().any(|c| c.starts_with(line)),
                "{line} is missing in {found:?}"
            );
        }
        assert_eq!(found.len(), 4, "{found:?}");
    }

    #[test]
    fn modules_need_a_beginning_and_an_end() {
        assert_eq!(complaints("a/src/b.rs", "fn b() {}\n").len(), 1);
        let long = "//! B.\n".to_owned() + &"\n".repeat(501);
        assert!(complaints("a/src/b.rs", &long)[0].contains("502 lines"));
    }

    #[test]
    fn addresses_are_no_paths_of_a_machine() {
        let line = format!("# see https://example.org{}x and target{}y\n", PLACES[1], PLACES[1]);
        assert_eq!(complaints("a.md", &line), [""; 0]);
    }
}
