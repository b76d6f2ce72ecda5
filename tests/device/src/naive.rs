//! Attention as the textbook writes it, with every intermediate value rounded as the caller says: exact with no
//! rounding, and what a naive implementation in some type would give with that type's.
//!
//! The error criterion: a row may be off by twice what the naive implementation in the same type is off, plus two units
//! in the last place of the output, in the Euclidean norm.

use crate::real::{Layer, SHAPE};
use half::f16;

/// Softmax attention over the valid keys, `[b, n, h, d]` in and out; `round` is applied to each score, probability and
/// output.
pub fn attend(layer: &Layer, valid: &[i32], round: impl Fn(f64) -> f64) -> Vec<f64> {
    let [b, n, h, d] = SHAPE;
    let row = |t: &[f16], b: usize, token: usize, head: usize| -> [f64; SHAPE[3]] {
        let at = ((b * n + token) * h + head) * d;
        std::array::from_fn(|feature| t[at + feature].to_f64())
    };
    let scale = (d as f64).sqrt().recip();
    let mut out = Vec::with_capacity(b * n * h * d);
    for (b, i, head) in (0..b).flat_map(|b| (0..n).flat_map(move |i| (0..h).map(move |head| (b, i, head)))) {
        let q = row(&layer.q, b, i, head);
        let keys: Vec<usize> = (0..n).filter(|j| valid[b * n + j] == 1).collect();
        let score = |j: &usize| {
            let k = row(&layer.k, b, *j, head);
            round(q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>() * scale)
        };
        let scores: Vec<f64> = keys.iter().map(score).collect();
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scores.iter().map(|s| (s - most).exp()).sum();
        let mut o = [0.0; SHAPE[3]];
        for (j, score) in keys.iter().zip(&scores) {
            let p = round((score - most).exp() / sum);
            for (o, v) in o.iter_mut().zip(row(&layer.v, b, *j, head)) {
                *o += p * v;
            }
        }
        out.extend(o.map(&round));
    }
    out
}

/// How far a result is off.
#[derive(Clone, Copy, Debug)]
pub struct Verdict {
    /// Largest error of a row, over its exact norm.
    pub ours: f64,
    /// The same of the naive implementation.
    pub naive: f64,
    /// Largest part of what the criterion allows that a row uses; up to 1 passes.
    pub used: f64,
}

/// Judges f16 rows of `SHAPE[3]` features.
pub fn judge(ours: &[f16], naive: &[f64], exact: &[f64]) -> Verdict {
    let norm = |row: &mut dyn Iterator<Item = f64>| row.map(|x| x * x).sum::<f64>().sqrt();
    let width = SHAPE[3];
    let mut verdict = Verdict {
        ours: 0.0,
        naive: 0.0,
        used: 0.0,
    };
    for ((ours, naive), exact) in ours.chunks(width).zip(naive.chunks(width)).zip(exact.chunks(width)) {
        let off = norm(&mut ours.iter().zip(exact).map(|(a, b)| a.to_f64() - b));
        let naive_off = norm(&mut naive.iter().zip(exact).map(|(a, b)| a - b));
        let unit = norm(&mut exact.iter().map(|x| last_place(*x)));
        let size = norm(&mut exact.iter().copied());
        // `max` would drop a NaN, which must fail.
        let worse = |most: f64, x: f64| if x > most || x.is_nan() { x } else { most };
        verdict.ours = worse(verdict.ours, off / size);
        verdict.naive = worse(verdict.naive, naive_off / size);
        verdict.used = worse(verdict.used, off / (2.0 * naive_off + 2.0 * unit));
    }
    verdict
}

/// The distance between the two f16 numbers around `x`.
fn last_place(x: f64) -> f64 {
    let exponent = x.abs().max(f16::MIN_POSITIVE.to_f64()).log2().floor();
    (exponent - 10.0).exp2()
}

#[cfg(test)]
mod tests {
    use super::{attend, judge};
    use crate::real::read;
    use half::f16;

    #[test]
    fn the_naive_result_passes_and_a_wrong_one_does_not() {
        let real = read().expect("the file is embedded whole");
        let round = |x: f64| f16::from_f64(x).to_f64();
        for layer in &real.layers {
            let exact = attend(layer, &real.valid, |x| x);
            let naive = attend(layer, &real.valid, round);
            let mut ours: Vec<f16> = naive.iter().map(|x| f16::from_f64(*x)).collect();
            assert!(judge(&ours, &naive, &exact).used <= 0.5);
            let unmasked = attend(layer, &vec![1; real.valid.len()], round);
            let wrong: Vec<f16> = unmasked.iter().map(|x| f16::from_f64(*x)).collect();
            assert!(judge(&wrong, &naive, &exact).used > 1.0);
            ours[7] = f16::NAN;
            assert!(judge(&ours, &naive, &exact).used.is_nan());
        }
    }
}
