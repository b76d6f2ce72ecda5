//! A list of timed steps with one closing line.

use crate::table::aligned;
use anyhow::{Result, bail};
use std::time::{Duration, Instant};

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
    ended: Vec<Step>,
}

/// A step that has ended.
struct Step {
    name: &'static str,
    how: How,
    wall: Duration,
    /// Seconds of all processors that its processes took, where the system says.
    processor: Option<f64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Passed,
    Skipped,
    Failed,
}

impl How {
    fn word(self) -> &'static str {
        match self {
            How::Passed => "PASS",
            How::Skipped => "SKIP",
            How::Failed => "FAIL",
        }
    }
}

impl<'a> Steps<'a> {
    /// Steps to come; where `only` is not empty, those whose name contains one of its words.
    pub fn new(only: &'a [String]) -> Self {
        Self {
            only,
            started: Instant::now(),
            ended: Vec::new(),
        }
    }

    /// Runs a step, prints how it ended and how long it took, and goes on after a failure.
    pub fn step(&mut self, name: &'static str, work: impl FnOnce() -> Result<Outcome>) {
        if !self.only.is_empty() && !self.only.iter().any(|word| name.contains(word.as_str())) {
            return;
        }
        println!("\n== {name}");
        let (started, before) = (Instant::now(), processor_seconds());
        let outcome = work();
        let wall = started.elapsed();
        let processor = before.zip(processor_seconds()).map(|(before, after)| after - before);
        let (how, why) = match outcome {
            Ok(Outcome::Passed) => (How::Passed, String::new()),
            Ok(Outcome::Skipped(why)) => (How::Skipped, format!(": {why}")),
            Err(error) => (How::Failed, format!(": {error:#}")),
        };
        println!("[{}] {name} ({:.1} s){why}", how.word(), wall.as_secs_f64());
        self.ended.push(Step {
            name,
            how,
            wall,
            processor,
        });
    }

    /// Prints each step's time and the closing line; an error if a step failed or none was chosen.
    pub fn finish(self) -> Result<()> {
        let seconds = |seconds: f64| format!("{seconds:.1}");
        let row = |step: &Step| {
            vec![
                step.name.to_owned(),
                step.how.word().to_owned(),
                seconds(step.wall.as_secs_f64()),
                step.processor.map(seconds).unwrap_or_default(),
            ]
        };
        let rows: Vec<Vec<String>> = self.ended.iter().map(row).collect();
        println!("\n{}", aligned(&["step", "", "seconds", "of processors"], &rows));
        let count = |how: How| self.ended.iter().filter(|step| step.how == how).count();
        if count(How::Skipped) > 0 {
            println!("{} skipped", count(How::Skipped));
        }
        println!(
            "{} passed, {} failed ({:.0} s)",
            count(How::Passed),
            count(How::Failed),
            self.started.elapsed().as_secs_f64()
        );
        let failed: Vec<&str> = (self.ended.iter())
            .filter(|step| step.how == How::Failed)
            .map(|step| step.name)
            .collect();
        if !failed.is_empty() {
            bail!("failed: {}", failed.join(", "));
        }
        if self.ended.is_empty() {
            bail!("no step has such a name");
        }
        Ok(())
    }
}

/// Seconds of all processors that processes which we ran and waited for have taken so far.
fn processor_seconds() -> Option<f64> {
    // Field 16 and 17, in hundredths: user and system time of such children. The second field may hold spaces.
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let mut hundredths = fields.split_whitespace().skip(13).map(str::parse::<u64>);
    let (user, system) = (hundredths.next()?.ok()?, hundredths.next()?.ok()?);
    Some((user + system) as f64 / 100.0)
}
