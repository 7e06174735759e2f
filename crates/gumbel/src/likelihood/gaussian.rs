//! The Gaussian likelihood of numbers, with a scale of its own for each: a density.
//!
//! A decoder's outputs for a number x of an image are a mean m and a log-scale l, both in the unit of x, in which black
//! is 0 and white is 1. With s = exp(l),
//!
//! ```text
//! -ln N(x; m, s^2) = (x - m)^2 / (2 s^2) + l + ln(2 pi) / 2,
//! ```
//!
//! in nats. This is minus the logarithm of a *density*, not of a probability: it may be negative, changes with the unit
//! of x, and cannot be compared with the losses of other likelihoods. Of numbers that have few values, such as 8-bit
//! ones, a density grows without end as s falls: l counts as -ln 255, the distance of two levels, below, and as 7
//! above, there without derivative. Channels are independent given the outputs.

use super::located::{self, Block, Located, bounded, inverse_scale};
use super::{Likelihood, LikelihoodEntry};

/// The Gaussian likelihood in the registry.
pub(super) fn entry() -> LikelihoodEntry {
    LikelihoodEntry::new(
        Gaussian,
        "any numbers, by a Gaussian density: losses are not comparable with others; outputs are means and log-scales",
    )
}

/// ln(2 pi) / 2.
const HALF_LN_TAU: f32 = 0.918_938_5;

/// The Gaussian density of numbers, from means `[d]` and log-scales `[d]`; the [module](self) has its equation.
///
/// ```
/// use gumbel::likelihood::{Gaussian, Likelihood};
/// let mut losses = [0.0];
/// Gaussian.losses(&[0.25, 0.0], &[0.25], 1, &mut losses);
/// assert!((losses[0] - 0.5 * std::f32::consts::TAU.ln()).abs() < 1e-6);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Gaussian;

impl Located for Gaussian {
    const LEAST: f32 = -5.541_263_6; // -ln 255
    const STEEPEST: f32 = 255.0;

    #[inline(always)]
    fn losses(Block { m, l, x }: Block<'_>, losses: &mut [f32]) {
        for (loss, ((m, l), x)) in losses.iter_mut().zip(m.iter().zip(l).zip(x)) {
            *loss = of(*m, *l, *x).0;
        }
    }

    #[inline(always)]
    fn losses_and_slopes(
        Block { m, l, x }: Block<'_>,
        scale: f32,
        losses: &mut [f32],
        at_m: &mut [f32],
        at_l: &mut [f32],
    ) {
        let answers = losses.iter_mut().zip(at_m).zip(at_l);
        for (((loss, at_m), at_l), ((m, l), x)) in answers.zip(m.iter().zip(l).zip(x)) {
            let (value, slope_m, slope_l) = of(*m, *l, *x);
            (*loss, *at_m, *at_l) = (value, scale * slope_m, scale * slope_l);
        }
    }
}

/// The loss of a number, and its derivatives: with u = (x - m) / s, `-u / s` at m, `1 - u^2` at l.
#[inline(always)]
fn of(location: f32, log_scale: f32, x: f32) -> (f32, f32, f32) {
    let (cut, slope) = bounded::<Gaussian>(log_scale);
    let inverse = inverse_scale::<Gaussian>(log_scale);
    let u = (x - location) * inverse;
    (0.5 * u * u + cut + HALF_LN_TAU, -u * inverse, slope * (1.0 - u * u))
}

impl Likelihood for Gaussian {
    fn name(&self) -> &'static str {
        "gaussian"
    }

    fn outputs(&self) -> usize {
        2
    }

    fn is_linear(&self) -> bool {
        false
    }

    fn needs_binary(&self) -> bool {
        false
    }

    fn is_density(&self) -> bool {
        true
    }

    fn losses(&self, outputs: &[f32], images: &[f32], per_image: usize, losses: &mut [f32]) {
        located::losses::<Gaussian>(outputs, images, per_image, losses);
    }

    fn losses_and_slopes(
        &self,
        outputs: &[f32],
        images: &[f32],
        scales: &[f32],
        losses: &mut [f32],
        slopes: &mut [f32],
    ) {
        located::losses_and_slopes::<Gaussian>(outputs, images, scales, losses, slopes);
    }

    /// The means that are outputs, between black and white.
    fn means(&self, outputs: &[f32], means: &mut [f32]) {
        means.iter_mut().zip(outputs).for_each(|(mean, m)| *mean = m.clamp(0.0, 1.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::likelihood::located::tests;

    #[test]
    fn losses_and_slopes_are_those_of_the_formula() {
        tests::agrees(&Gaussian, -(255f64.ln()), |m, l, x| {
            let u = (x - m) / l.exp();
            0.5 * u * u + l + 0.5 * std::f64::consts::TAU.ln()
        });
        tests::rows_are_their_own(&Gaussian);
    }

    #[test]
    fn the_density_has_a_volume_of_one() {
        for outputs in [[0.3, -3.0], [0.9, -6.0], [0.5, -1.5]] {
            let steps = 200_000;
            let volume: f64 = (0..steps)
                .map(|i| {
                    let x = (i as f32 + 0.5) / steps as f32 * 4.0 - 2.0;
                    let mut loss = [0.0];
                    Gaussian.losses(&outputs, &[x], 1, &mut loss);
                    (-loss[0] as f64).exp() * 4.0 / steps as f64
                })
                .sum();
            assert!((volume - 1.0).abs() < 1e-3, "{outputs:?}: {volume}");
        }
    }

    #[test]
    fn means_are_between_black_and_white() {
        let mut means = [0.0; 3];
        Gaussian.means(&[0.25, -3.0, 7.0, 0.0, 0.0, 0.0], &mut means);
        assert_eq!(means, [0.25, 0.0, 1.0]);
    }
}
