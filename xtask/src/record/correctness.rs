//! Records of errors instead of times: what the suite binary writes on a GPU.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// The name of the suite.
pub const SUITE: &str = "correctness";

/// One run of the suite on a GPU: every case through every variant that can run it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Correctness {
    pub date: String,
    machine: String,
    commit: String,
    pub suite: String,
    rows: Vec<Judged>,
}

/// One judged run.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Judged {
    spec: String,
    case: String,
    variant: String,
    /// Largest error of a row.
    error: f64,
    /// The naive implementation's error in the row that used most of its allowance.
    naive: f64,
    /// That part of the allowance.
    used: f64,
}

impl Correctness {
    /// Refuses a record of a run that failed: one is filed when all is well.
    pub fn check(&self) -> Result<()> {
        ensure!(!self.rows.is_empty(), "it holds no row");
        for row in &self.rows {
            let Judged {
                spec, case, variant, ..
            } = row;
            ensure!(
                row.used <= 1.0,
                "{spec}, {case}, {variant} uses {:.3} of its allowance",
                row.used
            );
        }
        Ok(())
    }

    /// The largest part of an allowance that a row uses.
    pub fn worst(&self) -> f64 {
        self.rows.iter().map(|row| row.used).fold(0.0, f64::max)
    }

    /// How many runs were judged.
    pub fn runs(&self) -> usize {
        self.rows.len()
    }
}

#[cfg(test)]
mod tests {
    use super::Correctness;

    fn record(used: &str) -> Correctness {
        let text = format!(
            "{{\"date\": \"2026-01-31\", \"machine\": \"m\", \"commit\": \"c\", \"suite\": \"correctness\", \"rows\": [\
             {{\"spec\": \"s\", \"case\": \"c\", \"variant\": \"v\", \"error\": 0.1, \"naive\": 0.1, \"used\": {used}}}]}}"
        );
        serde_json::from_str(&text).expect("a record")
    }

    #[test]
    fn a_failed_row_is_refused() {
        assert!(record("0.4").check().is_ok());
        assert!(record("1.5").check().is_err());
        let mut empty = record("0.4");
        empty.rows.clear();
        assert!(empty.check().is_err());
    }
}
