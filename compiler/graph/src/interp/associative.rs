//! Whether a fold that claims to be associative is, numerically.

use super::dense::Dense;
use super::eval::Run;
use super::{Inputs, InterpError, sizes};
use crate::ir::{FoldId, Graph};
use crate::verify::{regions, verify};

/// Compares the fold with random re-associations of its lifts, and its init with an identity on either side.
///
/// Returns the largest difference found, relative to the largest value of the component (at least 1), over `trials` trees
/// drawn from `seed`.
///
/// # Errors
/// [`InterpError::Claim`] where the fold does not claim it, its combine reads the current point, or it lies in another
/// fold's region; else what [`super::run`] has.
pub fn check_associative(
    graph: &Graph,
    fold: FoldId,
    inputs: &Inputs,
    trials: usize,
    seed: u64,
) -> Result<f64, InterpError> {
    verify(graph).map_err(InterpError::Graph)?;
    let claim = |message: &str| Err(InterpError::Claim(fold, message.to_owned()));
    let Some(def) = graph.folds.get(fold.index()) else {
        return claim("is no fold");
    };
    if !def.associative {
        return claim("does not claim to be associative");
    }
    if !regions(graph).of_fold[fold.index()].is_empty() {
        return claim("lies in another fold's region");
    }
    if def
        .comps
        .iter()
        .any(|c| graph.node(c.combine).axes.iter().any(|&a| def.axes().any(|b| a == b)))
    {
        return claim("its combine reads the current point");
    }
    let mut run = Run::new(graph, inputs, sizes(graph, inputs)?);
    let identity = run.inits(fold)?;
    let lifts = run.all_lifts(fold)?;
    let mut random = seed;
    let mut worst = 0.0_f64;
    let combine = |run: &mut Run, a: &[Dense], b: &[Dense]| run.combined(fold, Vec::new(), a.to_vec(), b.to_vec());
    let mut expected = identity.clone();
    for lift in &lifts {
        for pair in [(&identity, lift), (lift, &identity)] {
            let same = combine(&mut run, pair.0, pair.1)?;
            worst = worst.max(difference(&same, lift));
        }
        expected = combine(&mut run, &expected, lift)?;
    }
    for _ in 0..trials {
        let mut states = lifts.clone();
        while states.len() > 1 {
            // splitmix64
            random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = random;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let at = ((z ^ (z >> 31)) % (states.len() as u64 - 1)) as usize;
            let right = states.remove(at + 1);
            states[at] = combine(&mut run, &states[at], &right)?;
        }
        if let Some(last) = states.pop() {
            worst = worst.max(difference(&last, &expected));
        }
    }
    Ok(worst)
}

fn difference(a: &[Dense], b: &[Dense]) -> f64 {
    let mut worst = 0.0_f64;
    for (a, b) in a.iter().zip(b) {
        let scale = b
            .data
            .iter()
            .filter(|x| x.is_finite())
            .fold(1.0_f64, |m, x| m.max(x.abs()));
        for (x, y) in a.data.iter().zip(b.data.iter()) {
            let same = x == y || (x.is_nan() && y.is_nan());
            let gap = if same { 0.0 } else { (x - y).abs() / scale };
            worst = if gap.is_nan() { f64::INFINITY } else { worst.max(gap) };
        }
    }
    worst
}
