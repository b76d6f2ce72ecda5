//! Inputs for the fuzz targets in `tests/`: good texts, damaged token by token as the fuzzer's bytes say.
//!
//! Random bytes rarely get past a first token; a good text with a few tokens gone, doubled, swapped or absurd gets
//! everywhere. `cargo test -p drawloom-fuzz` tries a few hundred inputs on each target, and more with `PROPTEST_CASES`; a
//! failure is shrunk to few bytes, and its text printed.

use proptest::test_runner::{Config, TestCaseError, TestRunner};
use std::path::{Path, PathBuf};

/// Runs `target` on damaged seeds.
///
/// # Panics
/// If `target` does, with the shortest text found that makes it.
pub fn fuzz(seeds: &[String], target: impl Fn(&str)) {
    let mut runner = TestRunner::new(Config {
        failure_persistence: None,
        ..Config::default()
    });
    let bytes = proptest::collection::vec(proptest::num::u8::ANY, 0..64);
    let outcome = runner.run(&bytes, |bytes| {
        let text = damage(seeds, &bytes);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| target(&text))).map_err(|_| {
            let shown: String = text.chars().take(2000).collect();
            TestCaseError::fail(format!("on this text:\n{shown}"))
        })
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

/// Tokens that are legal by themselves and hard on whoever reads them.
const ABSURD: [&str; 12] = [
    "0",
    "-1",
    "4294967295",
    "9223372036854775807",
    "18446744073709551616",
    "1e400",
    "0.0",
    "NaN",
    "\"",
    "§",
    "{",
    ";",
];

/// How many brackets are opened at once to try the reader's depth.
const DEEP: usize = 5000;

/// The texts of all files below folders of the workspace whose names end so, in the order of their paths.
///
/// # Panics
/// If there is none: a target without seeds tests nothing.
pub fn seeds(folders: &[&str], ending: &str) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut paths = Vec::new();
    for folder in folders {
        collect(&root.join(folder), ending, &mut paths);
    }
    paths.sort();
    let texts: Vec<String> = paths
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .collect();
    assert!(!texts.is_empty(), "no {ending} below {folders:?}");
    texts
}

fn collect(folder: &Path, ending: &str, paths: &mut Vec<PathBuf>) {
    for entry in folder.read_dir().into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, ending, paths);
        } else if path.to_string_lossy().ends_with(ending) {
            paths.push(path);
        }
    }
}

/// One of `seeds` with a few tokens changed, or once in a while the bytes themselves; the bytes decide.
pub fn damage(seeds: &[String], bytes: &[u8]) -> String {
    let mut rest = bytes.iter().map(|&byte| usize::from(byte));
    let mut next = || rest.next().unwrap_or(0);
    let first = next();
    if first % 16 == 0 {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let mut tokens: Vec<&str> = tokens(&seeds[first % seeds.len()]);
    let others = self::tokens(&seeds[next() % seeds.len()]);
    let mut deep = None;
    for _ in 0..=next() % 6 {
        let edit = next();
        let count = tokens.len();
        let at = (next() * 256 + next()) % count.max(1);
        let other = next() * 256 + next();
        match edit % 8 {
            _ if count == 0 => break,
            0 => drop(tokens.remove(at)),
            1 => tokens.insert(at, tokens[at]),
            2 => tokens.swap(at, other % count),
            3 => tokens[at] = others[other % others.len()],
            4 => tokens.insert(at, others[other % others.len()]),
            5 => tokens[at] = ABSURD[other % ABSURD.len()],
            6 => tokens.truncate(at),
            _ => deep = Some((at, ["(", "-", "!", "{", "["][other % 5])),
        }
    }
    // Opening brackets is rare, since what follows them is seldom read.
    if let Some((at, open)) = deep.filter(|_| first % 4 == 1) {
        tokens.splice(
            at.min(tokens.len())..at.min(tokens.len()),
            std::iter::repeat_n(open, DEEP),
        );
    }
    tokens.concat()
}

/// Words with digits and underscores, runs of space, and single other characters.
fn tokens(text: &str) -> Vec<&str> {
    let kind = |c: char| {
        if c.is_alphanumeric() || c == '_' {
            0
        } else {
            1 + usize::from(c.is_whitespace())
        }
    };
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let more = |c: char| kind(c) == kind(first) && kind(first) != 1;
        let end = rest
            .char_indices()
            .skip(1)
            .find(|&(_, c)| !more(c))
            .map_or(rest.len(), |(at, _)| at);
        tokens.push(&rest[..end]);
        rest = &rest[end..];
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::{damage, tokens};

    #[test]
    fn tokens_are_the_text() {
        let text = "axis b, d_1 in [64];\n";
        assert_eq!(tokens(text)[..6], ["axis", " ", "b", ",", " ", "d_1"]);
        assert_eq!(tokens(text).concat(), text);
    }

    #[test]
    fn bytes_decide_the_damage() {
        let seeds = ["a b c".to_owned()];
        assert_eq!(damage(&seeds, &[1, 0, 0, 0, 0, 2]), "a c".replace(' ', "  "));
        assert_eq!(damage(&seeds, &[]), "");
    }
}
