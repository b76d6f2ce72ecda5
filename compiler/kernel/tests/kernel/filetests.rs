//! Runs `tests/filetests/kernel/*.kir`.
//!
//! A file is a kernel with commands in the comments of its head:
//!
//! - `; test parse`: parsing what is printed gives the same kernel and the same text.
//! - `; test verify`: the verifier's errors are those of the `; error: TEXT` comments, each on its line.
//! - `; test interpret`: runs `; launch grid G seeds N` with the arguments `; arg NAME KIND …`, for every seed. A run
//!   either fulfils all `; expect …`, or, if the file has `; fault: TEXT` comments, stops on one of those lines with a
//!   fault whose kind and message contain the text (or one of several, with ` | ` between them); each line must be seen
//!   with some seed.
//! - `; base FILE`: the kernel and its arguments are those of another file, changed: a line `- TEXT` takes away the one
//!   line that reads so, the lines `+ TEXT` after it stand in its place, and `= TEXT ; fault: …` marks an unchanged line.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::launch::{Launch, apply_changes};
use drawloom_kernel::interp::{Options, run};
use drawloom_kernel::text::{parse, parse_with_lines, print};
use drawloom_kernel::verify::verify;

#[test]
fn filetests() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/filetests/kernel");
    let mut paths: Vec<_> = fs::read_dir(&dir)
        .expect("the folder of file tests is there")
        .map(|entry| entry.expect("its entries can be read").path())
        .filter(|p| p.extension().is_some_and(|e| e == "kir"))
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "no file tests in {}", dir.display());
    let mut failures = Vec::new();
    for path in paths {
        if let Err(message) = file(&path) {
            failures.push(format!("{}: {message}", path.file_name().unwrap_or_default().display()));
        }
    }
    assert!(
        failures.is_empty(),
        "{} failed\n\n{}",
        failures.len(),
        failures.join("\n\n")
    );
}

fn file(path: &Path) -> Result<(), String> {
    let own = fs::read_to_string(path).map_err(|e| e.to_string())?;
    let text = match command(&own, "base").next() {
        Some(base) => {
            let base = fs::read_to_string(path.with_file_name(base)).map_err(|e| format!("{base}: {e}"))?;
            apply_changes(&base, &own)?
        }
        None => own.clone(),
    };
    let mut commands = 0;
    for test in command(&own, "test") {
        commands += 1;
        match test {
            "parse" => round_trip(&text)?,
            "verify" => verifies(&text)?,
            "interpret" => interprets(&text)?,
            _ => return Err(format!("there is no test command `{test}`")),
        }
    }
    if commands == 0 {
        Err("no `; test` command".to_string())
    } else {
        Ok(())
    }
}

/// What follows `; name ` on lines of their own.
fn command<'t>(text: &'t str, name: &'t str) -> impl Iterator<Item = &'t str> {
    let rest = move |line: &'t str| line.strip_prefix("; ")?.strip_prefix(name)?.strip_prefix(' ');
    text.lines().filter_map(rest).map(str::trim)
}

/// The marks `; key: TEXT` with their lines.
fn marks(text: &str, key: &str) -> BTreeSet<(u32, String)> {
    let key = format!("; {key}: ");
    let mark = |(n, line): (usize, &str)| Some((n as u32 + 1, line.split_once(&key)?.1.trim().to_string()));
    text.lines().enumerate().filter_map(mark).collect()
}

fn round_trip(text: &str) -> Result<(), String> {
    let kernel = parse(text).map_err(|e| e.to_string())?;
    let printed = print(&kernel);
    let again = parse(&printed).map_err(|e| format!("what is printed does not parse: {e}\n{printed}"))?;
    if again != kernel {
        return Err(format!("what is printed parses to another kernel:\n{printed}"));
    }
    if print(&again) != printed {
        return Err("the text is not a fixed point".to_string());
    }
    Ok(())
}

fn verifies(text: &str) -> Result<(), String> {
    let expected = marks(text, "error");
    let (kernel, lines) = match parse_with_lines(text) {
        Ok(parsed) => parsed,
        Err(e)
            if expected
                .iter()
                .any(|(line, t)| *line == e.line && e.message.contains(t)) =>
        {
            return Ok(());
        }
        Err(e) => return Err(e.to_string()),
    };
    let mut missing = expected;
    for e in verify(&kernel) {
        // Errors of declarations are marked on the line of the kernel.
        let kernel_line = text
            .lines()
            .position(|l| l.starts_with("kernel"))
            .map_or(0, |n| n as u32 + 1);
        let line = e.stmt.map_or(kernel_line, |n| lines[n as usize]);
        let found = missing
            .iter()
            .find(|(l, t)| *l == line && e.to_string().contains(t))
            .cloned();
        match found {
            Some(mark) => missing.remove(&mark),
            None => return Err(format!("line {line}: unexpected error: {e}")),
        };
    }
    match missing.first() {
        Some((line, text)) => Err(format!("line {line}: no error: {text}")),
        None => Ok(()),
    }
}

fn interprets(text: &str) -> Result<(), String> {
    let (kernel, lines) = parse_with_lines(text).map_err(|e| e.to_string())?;
    let launch = Launch::read(text)?;
    let expected = marks(text, "fault");
    let mut seen = BTreeSet::new();
    for seed in 0..launch.seeds {
        let mut args = launch.args.clone();
        let result = run(&kernel, launch.grid, &mut args, &Options::seed(seed));
        match result {
            Ok(counts) if expected.is_empty() => {
                launch
                    .check(&kernel, &args, &counts)
                    .map_err(|e| format!("seed {seed}: {e}"))?;
            }
            Ok(_) => return Err(format!("seed {seed}: no fault")),
            Err(fault) => {
                let line = fault.stmt.map_or(0, |n| lines[n as usize]);
                let said = format!("{:?}: {}", fault.kind, fault.message);
                match expected
                    .iter()
                    .find(|(l, t)| *l == line && t.split(" | ").any(|t| said.contains(t)))
                {
                    Some(mark) => seen.insert(mark.clone()),
                    None => return Err(format!("seed {seed}, line {line}: {}", fault.render(&kernel))),
                };
            }
        }
    }
    match expected.difference(&seen).next() {
        Some((line, text)) => Err(format!("line {line}: no seed has the fault: {text}")),
        None => Ok(()),
    }
}
