//! The Bernoulli likelihood of pixels, from logits, in a numerically stable form.
//!
//! For a pixel x in [0, 1] and a logit t, the loss is `-ln p(x | t) = softplus(t) - x t` with
//! `softplus(t) = max(t, 0) + ln(1 + exp(-|t|))`, its derivative at the logit `sigmoid(t) - x`. Losses of an image are
//! sums over its pixels, in nats.
//!
//! Because the derivative is known, no graph is recorded here: losses and derivatives are computed in one pass over the
//! logits in host memory, and the derivative is handed to automatic differentiation as a constant. The passes are
//! compiled for the vector instructions of the machine at run time. [`softplus`] and [`sigmoid`] are polynomial
//! approximations, accurate to a few units in the last place.

use super::{Likelihood, LikelihoodEntry, ROWS, sum};
use crate::math::{sigmoid, softplus};
use crate::vectorised;
use rayon::prelude::*;

/// The Bernoulli likelihood in the registry.
pub(super) fn entry() -> LikelihoodEntry {
    LikelihoodEntry::new(Bernoulli, "pixels of zeros and ones, or grey ones as probabilities; outputs are logits")
}

/// Bernoulli pixels, from logits.
///
/// ```
/// use gumbel::likelihood::{Bernoulli, Likelihood};
/// let mut losses = [0.0];
/// Bernoulli.losses(&[0.0, 0.0], &[1.0, 0.0], 1, &mut losses);
/// assert!((losses[0] - 2.0 * 2f32.ln()).abs() < 1e-6);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bernoulli;

/// The loss of one image.
#[inline(always)]
fn row(logits: &[f32], pixels: &[f32]) -> f32 {
    sum(
        logits.len(),
        #[inline(always)]
        |block, terms| {
            let inputs = logits[block.clone()].iter().zip(&pixels[block]);
            terms.iter_mut().zip(inputs).for_each(|(term, (t, x))| *term = softplus(*t) - x * t);
        },
    )
}

impl Likelihood for Bernoulli {
    fn name(&self) -> &'static str {
        "bernoulli"
    }

    fn is_linear(&self) -> bool {
        true
    }

    fn needs_binary(&self) -> bool {
        false
    }

    fn losses(&self, outputs: &[f32], images: &[f32], per_image: usize, losses: &mut [f32]) {
        let pixels = outputs.len() / losses.len().max(1);
        if pixels == 0 {
            return losses.fill(0.0);
        }
        let pieces = losses.par_chunks_mut(ROWS).zip(outputs.par_chunks(ROWS * pixels)).enumerate();
        pieces.for_each(|(c, (losses, outputs))| {
            vectorised!({
                for (i, (loss, t)) in losses.iter_mut().zip(outputs.chunks_exact(pixels)).enumerate() {
                    let x = &images[(c * ROWS + i) / per_image * pixels..][..pixels];
                    *loss = row(t, x);
                }
            });
        });
    }

    fn losses_and_slopes(
        &self,
        outputs: &[f32],
        images: &[f32],
        scales: &[f32],
        losses: &mut [f32],
        slopes: &mut [f32],
    ) {
        let pixels = outputs.len() / losses.len().max(1);
        if pixels == 0 {
            return losses.fill(0.0);
        }
        let rows = losses.par_chunks_mut(ROWS).zip(slopes.par_chunks_mut(ROWS * pixels));
        let inputs = outputs.par_chunks(ROWS * pixels).zip(images.par_chunks(ROWS * pixels));
        rows.zip(inputs).zip(scales.par_chunks(ROWS)).for_each(|(((losses, slopes), (outputs, images)), scales)| {
            vectorised!({
                let rows = outputs.chunks_exact(pixels).zip(images.chunks_exact(pixels)).zip(scales);
                let answers = losses.iter_mut().zip(slopes.chunks_exact_mut(pixels));
                for ((loss, g), ((t, x), scale)) in answers.zip(rows) {
                    *loss = row(t, x);
                    g.iter_mut().zip(t).zip(x).for_each(|((g, t), x)| *g = scale * (sigmoid(*t) - x));
                }
            });
        });
    }

    fn log_normalisers(&self, outputs: &[f32], sums: &mut [f32], slopes: &mut [f32]) {
        let pixels = outputs.len() / sums.len().max(1);
        if pixels == 0 {
            return sums.fill(0.0);
        }
        let pieces = sums.par_chunks_mut(ROWS).zip(slopes.par_chunks_mut(ROWS * pixels));
        pieces.zip(outputs.par_chunks(ROWS * pixels)).for_each(|((sums, slopes), outputs)| {
            vectorised!({
                let rows = slopes.chunks_exact_mut(pixels).zip(outputs.chunks_exact(pixels));
                for (total, (s, t)) in sums.iter_mut().zip(rows) {
                    *total = sum(
                        pixels,
                        #[inline(always)]
                        |block, terms| {
                            terms.iter_mut().zip(&t[block]).for_each(|(term, t)| *term = softplus(*t));
                        },
                    );
                    s.iter_mut().zip(t).for_each(|(s, t)| *s = sigmoid(*t));
                }
            });
        });
    }

    fn constants(&self, _: &[f32], constants: &mut [f32]) {
        constants.fill(0.0);
    }

    fn means(&self, outputs: &[f32], means: &mut [f32]) {
        means.iter_mut().zip(outputs).for_each(|(mean, t)| *mean = sigmoid(*t));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_agree_with_the_definition() {
        for (rows, pixels) in [(1, 1), (3, 15), (5, 16), (9, 37), (6, 784)] {
            let logits: Vec<f32> = (0..rows * pixels).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.2).collect();
            let images: Vec<f32> = (0..rows * pixels).map(|i| (i * 7 % 3 == 0) as u8 as f32).collect();
            let plain = |t: f32, x: f32| (t as f64).max(0.0) + (-(t as f64).abs()).exp().ln_1p() - (x * t) as f64;
            let expected: Vec<f64> = (0..rows)
                .map(|r| (0..pixels).map(|d| plain(logits[r * pixels + d], images[r * pixels + d])).sum())
                .collect();
            let (mut a, mut b, mut g) = (vec![0.0; rows], vec![0.0; rows], vec![0.0; rows * pixels]);
            Bernoulli.losses(&logits, &images, 1, &mut a);
            Bernoulli.losses_and_slopes(&logits, &images, &vec![0.5; rows], &mut b, &mut g);
            assert_eq!(a, b);
            for (a, e) in a.iter().zip(&expected) {
                assert!((*a as f64 - e).abs() < 1e-6 * e.abs().max(1.0) * (pixels as f64).sqrt(), "{a} {e}");
            }
            let (mut sums, mut s) = (vec![0.0; rows], vec![0.0; rows * pixels]);
            Bernoulli.log_normalisers(&logits, &mut sums, &mut s);
            for i in 0..rows * pixels {
                assert!((g[i] - 0.5 * (s[i] - images[i])).abs() < 1e-7);
            }
            let mut shared = vec![0.0; rows];
            Bernoulli.losses(&logits, &images[..pixels], rows, &mut shared);
            for (r, loss) in shared.iter().enumerate() {
                let dot: f32 = (0..pixels).map(|d| images[d] * logits[r * pixels + d]).sum();
                assert!((loss - (sums[r] - dot)).abs() < 1e-3);
            }
        }
    }
}
