//! The rule by which results are judged.
//!
//! Per row (all indices but the last: the features of a result, the queries of a log-sum-exp), with Euclidean norms:
//! the error against the truth is at most twice the error of the naive same-dtype implementation plus two units in the
//! last place of the output. What is not finite in the truth must be exactly that: a fully masked row is exactly 0, its
//! log-sum-exp negative infinity.

use crate::case::Outputs;
use crate::tensor::{Tensor, indices, ulp};

/// A log-sum-exp is an exponent made of scores of at least about this size, even where it is close to 0.
const LSE_SCALE: f64 = 2.0;

/// Matrix units align the terms of a sum to its largest and cut what does not fit, which costs about two bits against
/// sums that are rounded. A result in 16 bits does not show it; a log-sum-exp in 32 does.
///
/// # Source
/// Fasi, Higham, Mikaitis, Pranesh 2021, Numerical behavior of NVIDIA tensor cores, PeerJ Computer Science 7:e330.
const LSE_UNITS: f64 = 4.0;

/// How close a result came to what is allowed.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The largest error of a row.
    pub error: f64,
    /// The naive implementation's error in that row.
    pub naive: f64,
    /// The largest part of its allowance that a row used: above 1 the result is wrong.
    pub used: f64,
    /// Where: output and row index.
    pub worst: String,
}

/// Judges the outputs of an engine.
///
/// # Errors
/// What is wrong with the row that is worst.
pub fn judge(found: &Outputs, truth: &Outputs, naive: &Outputs) -> Result<Verdict, String> {
    let mut verdict = Verdict {
        error: 0.0,
        naive: 0.0,
        used: 0.0,
        worst: "nowhere".to_owned(),
    };
    if found.len() != truth.len() {
        return Err(format!("{} outputs instead of {}", found.len(), truth.len()));
    }
    for ((found, truth), naive) in found.iter().zip(truth).zip(naive) {
        if found.shape != truth.shape || found.values.len() != truth.values.len() {
            return Err(format!(
                "`{}` has shape {:?} instead of {:?}",
                truth.name, found.shape, truth.shape
            ));
        }
        let width = truth.shape.last().copied().unwrap_or(1).max(1);
        for n in 0..truth.values.len() / width {
            let row = n * width..(n + 1) * width;
            let place = || format!("{} row {:?}", truth.name, row_index(truth, n * width));
            let judged = judge_row(
                &found.values[row.clone()],
                &truth.values[row.clone()],
                &naive.values[row],
                found,
            )
            .map_err(|e| format!("{}: {e}", place()))?;
            verdict.error = verdict.error.max(judged.error);
            if judged.used > verdict.used {
                (verdict.used, verdict.naive, verdict.worst) = (judged.used, judged.naive, place());
            }
        }
    }
    if verdict.used > 1.0 {
        return Err(format!(
            "{}: {:.2} times the allowed error (largest error of a row {:e}, naive {:e})",
            verdict.worst, verdict.used, verdict.error, verdict.naive
        ));
    }
    Ok(verdict)
}

struct Judged {
    error: f64,
    naive: f64,
    used: f64,
}

fn judge_row(found: &[f64], truth: &[f64], naive: &[f64], of: &Tensor) -> Result<Judged, String> {
    let (mut error, mut plain, mut unit) = (0.0, 0.0, 0.0);
    for ((f, t), n) in found.iter().zip(truth).zip(naive) {
        if !t.is_finite() || !f.is_finite() {
            if f != t {
                return Err(format!("{f} instead of {t}"));
            }
            continue;
        }
        error += (f - t).powi(2);
        plain += (n - t).powi(2);
        let unit_here = if of.name == "lse" {
            LSE_UNITS * ulp(of.dtype, t.abs().max(LSE_SCALE))
        } else {
            ulp(of.dtype, *t)
        };
        unit += unit_here.powi(2);
    }
    if truth.iter().all(|t| *t == 0.0) && found.iter().any(|f| *f != 0.0) && naive.iter().all(|n| *n == 0.0) {
        return Err(format!("a row that must be exactly 0 has norm {:e}", error.sqrt()));
    }
    let (error, naive, unit): (f64, f64, f64) = (error.sqrt(), plain.sqrt(), unit.sqrt());
    let allowed = 2.0 * naive + 2.0 * unit;
    Ok(Judged {
        error,
        naive,
        used: if error == 0.0 { 0.0 } else { error / allowed },
    })
}

fn row_index(of: &Tensor, offset: usize) -> Vec<usize> {
    let mut at = indices(&of.shape).nth(offset).unwrap_or_default();
    at.pop();
    at
}

/// Whether two exact engines agree: to `1e-9` of the row's largest value, infinities equal.
///
/// # Errors
/// The first difference.
pub fn agree(found: &Outputs, truth: &Outputs) -> Result<(), String> {
    if found.len() != truth.len() {
        return Err(format!("{} outputs instead of {}", found.len(), truth.len()));
    }
    for (found, truth) in found.iter().zip(truth) {
        if found.shape != truth.shape {
            return Err(format!(
                "`{}` has shape {:?} instead of {:?}",
                truth.name, found.shape, truth.shape
            ));
        }
        for ((f, t), at) in found.values.iter().zip(&truth.values).zip(indices(&truth.shape)) {
            let same = f == t || (f - t).abs() <= 1e-9 * t.abs().max(1.0);
            if !same {
                return Err(format!("{}{at:?} is {f} instead of {t}", truth.name));
            }
        }
    }
    Ok(())
}
