//! A list of timed steps with one closing line.

use anyhow::{Result, bail};
use std::time::Instant;

/// How a step that did not fail ended.
pub enum Outcome {
    /// It did its work.
    Passed,
    /// It could not run here, and why.
    Skipped(String),
}

/// Steps run so far.
pub struct Steps<'a> {
    only: &'a [String],
    started: Instant,
    passed: usize,
    skipped: usize,
    failed: Vec<&'static str>,
}

impl<'a> Steps<'a> {
    /// Steps to come; where `only` is not empty, those whose name contains one of its words.
    pub fn new(only: &'a [String]) -> Self {
        Self {
            only,
            started: Instant::now(),
            passed: 0,
            skipped: 0,
            failed: Vec::new(),
        }
    }

    /// Runs a step, prints how it ended and how long it took, and goes on after a failure.
    pub fn step(&mut self, name: &'static str, work: impl FnOnce() -> Result<Outcome>) {
        if !self.only.is_empty() && !self.only.iter().any(|word| name.contains(word.as_str())) {
            return;
        }
        println!("\n== {name}");
        let started = Instant::now();
        let outcome = work();
        let seconds = started.elapsed().as_secs_f64();
        match outcome {
            Ok(Outcome::Passed) => {
                self.passed += 1;
                println!("[PASS] {name} ({seconds:.1} s)");
            }
            Ok(Outcome::Skipped(why)) => {
                self.skipped += 1;
                println!("[SKIP] {name}: {why}");
            }
            Err(error) => {
                self.failed.push(name);
                println!("[FAIL] {name} ({seconds:.1} s): {error:#}");
            }
        }
    }

    /// Prints the closing line; an error if a step failed or none was chosen.
    pub fn finish(self) -> Result<()> {
        let Self {
            started,
            passed,
            skipped,
            failed,
            ..
        } = self;
        println!();
        if skipped > 0 {
            println!("{skipped} skipped");
        }
        println!(
            "{passed} passed, {} failed ({:.0} s)",
            failed.len(),
            started.elapsed().as_secs_f64()
        );
        if !failed.is_empty() {
            bail!("failed: {}", failed.join(", "));
        }
        if passed + skipped == 0 {
            bail!("no step has such a name");
        }
        Ok(())
    }
}
