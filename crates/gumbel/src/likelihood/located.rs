//! What likelihoods share that have a location and a log-scale for each number of an image.

#[cfg(doc)]
use super::BLOCK;
use super::{ROWS, sum};
use crate::vectorised;
use rayon::prelude::*;

/// The largest log-scale. A number is then as good as unknown.
pub(super) const MOST: f32 = 7.0;

/// The likelihood of numbers given their locations and log-scales, at most [`BLOCK`] of them at a time; to be inlined.
pub(super) trait Located {
    /// The least log-scale, and the inverse of its scale.
    const LEAST: f32;
    const STEEPEST: f32;

    /// Writes `-ln p(x)` in nats; NaN where an output is.
    fn losses(inputs: Block<'_>, losses: &mut [f32]);

    /// The same, to the bit, with `scale` times the derivatives at locations and log-scales.
    fn losses_and_slopes(inputs: Block<'_>, scale: f32, losses: &mut [f32], at_m: &mut [f32], at_l: &mut [f32]);
}

/// Locations, log-scales and numbers.
#[derive(Clone, Copy)]
pub(super) struct Block<'a> {
    pub m: &'a [f32],
    pub l: &'a [f32],
    pub x: &'a [f32],
}

/// The inverse of the scale.
#[inline(always)]
pub(super) fn inverse_scale<L: Located>(log_scale: f32) -> f32 {
    L::STEEPEST * exp_and_less_one(L::LEAST - bounded::<L>(log_scale).0).0
}

/// A log-scale between its bounds, and its derivative: 1 there, and 0 beyond.
#[inline(always)]
pub(super) fn bounded<L: Located>(log_scale: f32) -> (f32, f32) {
    let cut = log_scale.clamp(L::LEAST, MOST);
    (cut, if cut == log_scale { 1.0 } else { 0.0 })
}

/// `exp(x)` and `exp(x) - 1` for `-87 <= x <= 0`, each to the rounding of f32; NaN of NaN. Sooner than
/// [`exp_nonpositive`](crate::math::exp_nonpositive), which takes any number.
#[inline(always)]
pub(super) fn exp_and_less_one(x: f32) -> (f32, f32) {
    const LN_2_HIGH: f32 = 0.693_145_75; // 15 bits: its products with small integers are exact
    const LN_2_LOW: f32 = 1.428_606_8e-6;
    // Adding 1.5 * 2^23 rounds to an integer n, which then stands in the low bits.
    let shifted = x * std::f32::consts::LOG2_E + 12_582_912.0;
    let n = shifted - 12_582_912.0;
    let r = x - n * LN_2_HIGH - n * LN_2_LOW; // |r| <= ln 2 / 2
    // (exp(r) - 1) / r, by Taylor's series to the order 6: remainder under 2e-8. In pairs, of which none waits for
    // another.
    let square = r * r;
    let (low, middle) = (1.0 + 0.5 * r, 1.0 / 6.0 + 1.0 / 24.0 * r);
    let high = (1.0 / 120.0 + 1.0 / 720.0 * r) + 1.0 / 5040.0 * square;
    let sum = (low + middle * square) + high * (square * square);
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()));
    let scaled = sum * r * power;
    (scaled + power, scaled + (power - 1.0))
}

/// As [`Likelihood::losses`](super::Likelihood::losses).
pub(super) fn losses<L: Located>(outputs: &[f32], images: &[f32], per_image: usize, losses: &mut [f32]) {
    let d = outputs.len() / losses.len().max(1) / 2;
    if d == 0 {
        return losses.fill(0.0);
    }
    let pieces = losses.par_chunks_mut(ROWS).zip(outputs.par_chunks(ROWS * 2 * d)).enumerate();
    pieces.for_each(|(c, (losses, outputs))| {
        vectorised!({
            for (i, (loss, outputs)) in losses.iter_mut().zip(outputs.chunks_exact(2 * d)).enumerate() {
                let x = &images[(c * ROWS + i) / per_image * d..][..d];
                let (locations, scales) = outputs.split_at(d);
                *loss = sum(
                    d,
                    #[inline(always)]
                    |block, terms| {
                        let (m, l) = (&locations[block.clone()], &scales[block.clone()]);
                        L::losses(Block { m, l, x: &x[block] }, terms);
                    },
                );
            }
        });
    });
}

/// As [`Likelihood::losses_and_slopes`](super::Likelihood::losses_and_slopes).
pub(super) fn losses_and_slopes<L: Located>(
    outputs: &[f32],
    images: &[f32],
    scales: &[f32],
    losses: &mut [f32],
    slopes: &mut [f32],
) {
    let d = outputs.len() / losses.len().max(1) / 2;
    if d == 0 {
        return losses.fill(0.0);
    }
    let answers = losses.par_chunks_mut(ROWS).zip(slopes.par_chunks_mut(ROWS * 2 * d));
    let inputs = outputs.par_chunks(ROWS * 2 * d).zip(images.par_chunks(ROWS * d)).zip(scales.par_chunks(ROWS));
    answers.zip(inputs).for_each(|((losses, slopes), ((outputs, images), scales))| {
        vectorised!({
            let rows = outputs.chunks_exact(2 * d).zip(images.chunks_exact(d)).zip(scales);
            let answers = losses.iter_mut().zip(slopes.chunks_exact_mut(2 * d));
            for ((loss, slopes), ((outputs, x), scale)) in answers.zip(rows) {
                let (m, l) = outputs.split_at(d);
                let (at_m, at_l) = slopes.split_at_mut(d);
                *loss = sum(
                    d,
                    #[inline(always)]
                    |block, terms| {
                        let inputs = Block { m: &m[block.clone()], l: &l[block.clone()], x: &x[block.clone()] };
                        L::losses_and_slopes(inputs, *scale, terms, &mut at_m[block.clone()], &mut at_l[block]);
                    },
                );
            }
        });
    });
}

/// What the tests of such likelihoods share.
#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::likelihood::Likelihood;
    use crate::testing::Random;

    /// Outputs and numbers of 8 bits, of usual size or beyond all bounds.
    pub(crate) fn instance(case: u64, d: usize) -> (Vec<f32>, Vec<f32>) {
        let random = &mut Random::new(40, case);
        let mut outputs: Vec<f32> = (0..d).map(|_| random.normal()).collect();
        outputs.extend((0..d).map(|_| 1.5 * random.normal() - 2.0));
        for output in &mut outputs {
            match (case % 4, random.below(4)) {
                (2, 0) => *output = [1e3, -1e3, 50.0, -50.0, 1.0, -1.0, 0.0, 7.0, -7.0][random.below(9)],
                (3, _) => *output *= 30.0,
                _ => {}
            }
        }
        let level = |random: &mut Random| [0, 255, random.below(256), random.below(256)][random.below(4)];
        (outputs, (0..d).map(|_| level(random) as f32 / 255.0).collect())
    }

    /// A likelihood against a formula in f64 of `(location, log-scale, x)`, the log-scale being within the bounds from
    /// `least` on: losses, both ways to have them, and slopes, which are zero where the log-scale is cut off.
    pub(crate) fn agrees(likelihood: &dyn Likelihood, least: f64, formula: fn(f64, f64, f64) -> f64) {
        let cut = |l: f64| l.clamp(least, MOST as f64);
        for case in 0..400 {
            let d = [1, 3, 15, 16, 17, 300][case as usize % 6];
            let (outputs, x) = instance(case, d);
            let (mut loss, mut again, mut slopes) = ([f32::NAN], [f32::NAN], vec![f32::NAN; 2 * d]);
            likelihood.losses(&outputs, &x, 1, &mut loss);
            likelihood.losses_and_slopes(&outputs, &x, &[-0.5], &mut again, &mut slopes);
            assert_eq!(loss, again, "case {case}");
            let term = |i: usize, m: f64, l: f64| formula(m, cut(l), x[i] as f64);
            let each: Vec<f64> = (0..d).map(|i| term(i, outputs[i] as f64, outputs[d + i] as f64)).collect();
            let (sum, magnitude) = (each.iter().sum::<f64>(), each.iter().map(|e| e.abs() + 1.0).sum::<f64>());
            // The formula itself: of a location far away f32 has no more digits.
            assert!((loss[0] as f64 - sum).abs() <= 2e-5 * magnitude, "case {case}: {} {sum}", loss[0]);
            for i in 0..d {
                let (m, l) = (outputs[i] as f64, outputs[d + i] as f64);
                let inside = l > least && l < MOST as f64;
                let h = 1e-5 * cut(l).exp();
                let at_m = (term(i, m + h, l) - term(i, m - h, l)) / (2.0 * h);
                let at_l = if inside { (term(i, m, l + 1e-6) - term(i, m, l - 1e-6)) / 2e-6 } else { 0.0 };
                for (found, expected, unit) in [(slopes[i], at_m, 1.0 / cut(l).exp()), (slopes[d + i], at_l, 1.0)] {
                    assert!(found.is_finite(), "case {case}: {m} {l} {}: {found}", x[i]);
                    if l == least || l == MOST as f64 {
                        continue; // a kink
                    }
                    let tolerance = 1e-4 * (expected.abs() + unit) + 1e-6 * each[i].abs();
                    let expected = -0.5 * expected;
                    assert!(
                        (found as f64 - expected).abs() <= tolerance,
                        "case {case}: {m} {l} {}: {found} {expected}",
                        x[i]
                    );
                }
            }
        }
    }

    /// Many rows at once, and several for an image, give what each gives alone.
    pub(crate) fn rows_are_their_own(likelihood: &dyn Likelihood) {
        let (rows, d) = (9, 37);
        let mut images = vec![];
        let mut outputs = vec![];
        for case in 0..rows {
            let (row, x) = instance(4 * case, d);
            outputs.extend(row);
            images.extend(x);
        }
        let rows = rows as usize;
        let (mut all, mut slopes) = (vec![0.0; rows], vec![0.0; rows * 2 * d]);
        let mut shared = vec![0.0; rows];
        likelihood.losses_and_slopes(&outputs, &images, &vec![1.0; rows], &mut all, &mut slopes);
        likelihood.losses(&outputs, &images[..3 * d], 3, &mut shared);
        for r in 0..rows {
            let row = &outputs[r * 2 * d..][..2 * d];
            let (mut loss, mut slope) = ([0.0], vec![0.0; 2 * d]);
            likelihood.losses_and_slopes(row, &images[r * d..][..d], &[1.0], &mut loss, &mut slope);
            assert_eq!((loss[0], &slope[..]), (all[r], &slopes[r * 2 * d..][..2 * d]));
            likelihood.losses(row, &images[r / 3 * d..][..d], 1, &mut loss);
            assert_eq!(loss[0], shared[r]);
        }
        likelihood.losses(&[], &[], 1, &mut []);
        // What is no number comes out as none.
        for outputs in [[f32::NAN, 0.0], [0.0, f32::NAN]] {
            let (mut loss, mut slopes) = ([0.0], [0.0; 2]);
            likelihood.losses_and_slopes(&outputs, &[0.5], &[1.0], &mut loss, &mut slopes);
            assert!(loss[0].is_nan(), "{outputs:?}");
        }
    }

    #[test]
    fn exponentials_are_accurate() {
        for i in 0..800_000 {
            let x = i as f32 * -1e-4;
            let (exp, less) = exp_and_less_one(x);
            let exact = x as f64;
            assert!((exp as f64 - exact.exp()).abs() <= 1.8e-7 * exact.exp(), "{x}: {exp}");
            assert!((less as f64 - exact.exp_m1()).abs() <= 1.8e-7 * exact.exp_m1().abs(), "{x}: {less}");
        }
        assert_eq!(exp_and_less_one(-0.0), (1.0, 0.0));
        assert!((exp_and_less_one(-1e-30).1 + 1e-30).abs() < 1e-36);
        assert!(exp_and_less_one(f32::NAN).0.is_nan() && exp_and_less_one(f32::NAN).1.is_nan());
    }
}
