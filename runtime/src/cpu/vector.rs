//! The inner loops: products of blocks, weights of a row, and the functions that need many operations.
//!
//! Each is written once, as plain loops over arrays, and compiled twice: for what every machine of the architecture has,
//! and for AVX2 with fused multiply-adds, where the machine has them. A sum adds its terms in one order whatever block it
//! stands in, so that a row's result depends neither on the rows beside it nor on the number of threads.

/// Columns of a panel: two vectors of eight lanes.
pub(super) const PANEL: usize = 16;

/// Rows of a register tile: with two vectors each, and those of the operands, all sixteen registers of AVX2.
const TILE: usize = 6;

/// A row of a panel.
pub(super) type Lanes = [f32; PANEL];

/// Loops to be compiled for the vectors at hand. Everything that `run` calls must be inlined, or it is compiled for the
/// least machine. `FUSED` says whether a multiply-add is one instruction.
pub(super) trait Loops {
    /// What comes out.
    type Output;
    /// The loops.
    fn run<const FUSED: bool>(self) -> Self::Output;
}

/// Runs loops with the widest vectors that this machine has.
pub(super) fn vectorised<L: Loops>(loops: L) -> L::Output {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma")]
        fn wide<L: Loops>(loops: L) -> L::Output {
            loops.run::<true>()
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the machine has both features, as the line above asked.
            return unsafe { wide(loops) };
        }
    }
    loops.run::<{ cfg!(any(target_feature = "fma", target_arch = "aarch64")) }>()
}

/// `a * b + c`, rounded once if the machine can.
#[inline(always)]
fn multiply_add<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// `exp(x)` to about one unit in the last place, without branches; 0 and infinity where f32 ends, NaN for NaN.
///
/// # Source
/// Moshier, Cephes Math Library 2.2, `expf.c`: the split of ln 2 and the polynomial. Differs: the power of two is applied
/// in two halves, so that results below the normal range are rounded as well.
#[inline(always)]
pub(super) fn exp<const FUSED: bool>(x: f32) -> f32 {
    // Adding it rounds to an integer, which then stands in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Below is 0, above is infinity.
    let x = if x < -104.0 { -104.0 } else { x };
    let x = if x > 89.0 { 89.0 } else { x };
    let rounded = multiply_add::<FUSED>(x, std::f32::consts::LOG2_E, ROUND);
    let whole = rounded - ROUND;
    let rest = multiply_add::<FUSED>(whole, -LN2_HIGH, x);
    let rest = multiply_add::<FUSED>(whole, -LN2_LOW, rest);
    let mut sum = 1.987_569_2e-4;
    for term in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1] {
        sum = multiply_add::<FUSED>(sum, rest, term);
    }
    let sum = multiply_add::<FUSED>(sum, rest * rest, rest) + 1.0;
    let power = (rounded.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let half = power >> 1;
    let two_to = |power: i32| f32::from_bits((power.wrapping_add(127) as u32) << 23);
    sum * two_to(half) * two_to(power.wrapping_sub(half))
}

/// `tanh(x)` to about two units in the last place, without branches.
///
/// # Source
/// Moshier, Cephes Math Library 2.2, `tanhf.c`.
#[inline(always)]
pub(super) fn tanh<const FUSED: bool>(x: f32) -> f32 {
    let size = x.abs();
    let large = 1.0 - 2.0 / (exp::<FUSED>(2.0 * size) + 1.0);
    let square = x * x;
    let mut sum = -5.704_988_7e-3;
    for term in [2.063_909e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1] {
        sum = multiply_add::<FUSED>(sum, square, term);
    }
    let small = multiply_add::<FUSED>(sum * square, x, x);
    if size > 0.625 { large.copysign(x) } else { small }
}

/// `c[r][n] = Σ_k a[r][k] · b[k][n]`, or that added to `c`.
pub(super) struct Product<'p> {
    /// `rows x depth`, a row every `a_step` elements.
    pub(super) a: &'p [f32],
    pub(super) a_step: usize,
    pub(super) rows: usize,
    pub(super) depth: usize,
    /// One panel of columns after the other, each of `b_step >= depth` rows.
    pub(super) b: &'p [Lanes],
    pub(super) b_step: usize,
    /// `rows x all panels`, a row every `c_step` elements.
    pub(super) c: &'p mut [f32],
    pub(super) c_step: usize,
    pub(super) add: bool,
}

impl Loops for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FUSED: bool>(mut self) {
        for (number, panel) in self.b.chunks_exact(self.b_step.max(1)).enumerate() {
            let panel = &panel[..self.depth];
            for first in (0..self.rows).step_by(TILE) {
                let at = (first, number * PANEL);
                match self.rows - first {
                    1 => self.tile::<1, FUSED>(panel, at),
                    2 => self.tile::<2, FUSED>(panel, at),
                    3 => self.tile::<3, FUSED>(panel, at),
                    4 => self.tile::<4, FUSED>(panel, at),
                    5 => self.tile::<5, FUSED>(panel, at),
                    _ => self.tile::<TILE, FUSED>(panel, at),
                }
            }
        }
    }
}

impl Product<'_> {
    /// `R` rows of one panel, summed in registers.
    #[inline(always)]
    fn tile<const R: usize, const FUSED: bool>(&mut self, panel: &[Lanes], (row, column): (usize, usize)) {
        let depth = panel.len();
        let rows: [&[f32]; R] = std::array::from_fn(|r| &self.a[(row + r) * self.a_step..][..depth]);
        let place = |r: usize| (row + r) * self.c_step + column;
        let mut sums = [[0.0f32; PANEL]; R];
        if self.add {
            for (r, sums) in sums.iter_mut().enumerate() {
                sums.copy_from_slice(&self.c[place(r)..][..PANEL]);
            }
        }
        for k in 0..depth {
            let b = &panel[k];
            for r in 0..R {
                let a = rows[r][k];
                for lane in 0..PANEL {
                    sums[r][lane] = multiply_add::<FUSED>(a, b[lane], sums[r][lane]);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            self.c[place(r)..][..PANEL].copy_from_slice(sums);
        }
    }
}

/// The same for one row, of the visible keys alone: others have weight 0, which is nothing only where values are finite.
pub(super) struct VisibleProduct<'p> {
    pub(super) weights: &'p [f32],
    pub(super) visible: &'p [bool],
    /// As in [`Product`], a key a row.
    pub(super) b: &'p [Lanes],
    pub(super) b_step: usize,
    /// All panels.
    pub(super) c: &'p mut [f32],
}

impl Loops for VisibleProduct<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FUSED: bool>(self) {
        let panels = self.b.chunks_exact(self.b_step.max(1));
        for (panel, c) in panels.zip(self.c.as_chunks_mut::<PANEL>().0) {
            let keys = panel.iter().zip(self.weights).zip(self.visible);
            for ((b, weight), _) in keys.filter(|(_, visible)| **visible) {
                for lane in 0..PANEL {
                    c[lane] = multiply_add::<FUSED>(*weight, b[lane], c[lane]);
                }
            }
        }
    }
}

/// A row's scores of one block of keys as weights `exp(score - reference)`, where the reference is the largest score of
/// this block and those before.
pub(super) struct Weigh<'w> {
    /// Scores of the first keys of the block; what is missing has no influence.
    pub(super) scores: &'w [f32],
    /// Which of them count; `None`: all.
    pub(super) visible: Option<&'w [bool]>,
    /// The largest score before.
    pub(super) reference: f32,
    /// A weight for each key of the block, 0 for what is invisible or missing.
    pub(super) weights: &'w mut [f32],
}

impl Loops for Weigh<'_> {
    /// The new reference and the sum of the weights.
    type Output = (f32, f32);

    #[inline(always)]
    fn run<const FUSED: bool>(self) -> (f32, f32) {
        let (given, missing) = self.weights.split_at_mut(self.scores.len());
        match self.visible {
            None => given.copy_from_slice(self.scores),
            Some(visible) => {
                for ((weight, score), visible) in given.iter_mut().zip(self.scores).zip(visible) {
                    *weight = if *visible { *score } else { f32::NEG_INFINITY };
                }
            }
        }
        missing.fill(f32::NEG_INFINITY);
        let (blocks, _) = self.weights.as_chunks_mut::<PANEL>();
        let mut most = [self.reference; PANEL];
        for block in &*blocks {
            for lane in 0..PANEL {
                most[lane] = if block[lane] > most[lane] {
                    block[lane]
                } else {
                    most[lane]
                };
            }
        }
        let highest = most.into_iter().fold(self.reference, f32::max);
        // Every visible score so far is negative infinity, or not a number, which must show.
        let shift = if highest == f32::NEG_INFINITY { 0.0 } else { highest };
        let mut totals = [0.0f32; PANEL];
        for block in blocks {
            for lane in 0..PANEL {
                block[lane] = exp::<FUSED>(block[lane] - shift);
                totals[lane] += block[lane];
            }
        }
        (highest, totals.iter().sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest error of a function in units of the last place of f32.
    fn worst(f: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64, range: std::ops::Range<i32>) -> f64 {
        let mut worst = 0.0f64;
        for step in range {
            let x = step as f32 * 0.000_37;
            let expected = exact(x.into());
            let unit = f64::from(expected as f32).abs().log2().floor().max(-126.0) - 23.0;
            worst = worst.max((f64::from(f(x)) - expected).abs() / unit.exp2());
        }
        worst
    }

    #[test]
    fn exp_is_right_to_about_a_unit_everywhere() {
        for range in [-281_000..1, 0..239_000] {
            assert!(worst(exp::<true>, f64::exp, range.clone()) < 1.6);
            assert!(worst(exp::<false>, f64::exp, range) < 1.6);
        }
        assert_eq!(exp::<true>(0.0), 1.0);
        assert_eq!((exp::<true>(f32::NEG_INFINITY), exp::<true>(-200.0)), (0.0, 0.0));
        assert_eq!(
            (exp::<true>(f32::INFINITY), exp::<true>(89.0)),
            (f32::INFINITY, f32::INFINITY)
        );
        assert!(exp::<true>(f32::NAN).is_nan());
    }

    #[test]
    fn tanh_is_right_to_about_two_units_everywhere() {
        assert!(worst(tanh::<true>, f64::tanh, -50_000..50_000) < 2.5);
        assert_eq!((tanh::<true>(60.0), tanh::<true>(-60.0)), (1.0, -1.0));
        assert_eq!(
            (tanh::<true>(f32::INFINITY), tanh::<true>(f32::NEG_INFINITY)),
            (1.0, -1.0)
        );
        assert!(tanh::<true>(f32::NAN).is_nan());
    }

    #[test]
    fn a_product_does_not_depend_on_the_rows_beside_it() {
        let (rows, depth, panels) = (17, 40, 3);
        let value = |n: usize| ((n * 2_654_435_761) % 1000) as f32 / 500.0 - 1.0;
        let a: Vec<f32> = (0..rows * depth).map(value).collect();
        let b: Vec<Lanes> = (0..panels * depth)
            .map(|n| std::array::from_fn(|lane| value(7 + n * PANEL + lane)))
            .collect();
        let product = |first: usize, rows: usize| {
            let mut c = vec![1.0; rows * panels * PANEL];
            vectorised(Product {
                a: &a[first * depth..],
                a_step: depth,
                rows,
                depth,
                b: &b,
                b_step: depth,
                c: &mut c,
                c_step: panels * PANEL,
                add: true,
            });
            c
        };
        let together = product(0, rows);
        for row in 0..rows {
            let exact: f64 = 1.0
                + (0..depth)
                    .map(|k| f64::from(a[row * depth + k]) * f64::from(b[2 * depth + k][5]))
                    .sum::<f64>();
            assert!((f64::from(together[row * panels * PANEL + 2 * PANEL + 5]) - exact).abs() < 1e-5);
            assert_eq!(product(row, 1), together[row * panels * PANEL..][..panels * PANEL]);
        }
    }
}
