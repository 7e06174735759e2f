//! The discretised logistic likelihood of 8-bit numbers.
//!
//! A number x of an image is one of the levels v = 255 x, 0 to 255, the nearest where it is not whole. A decoder's
//! outputs for it are a location m and a log-scale l, in the unit in which the levels go from -1 to 1, so that an
//! output of zero is the middle grey. With the centre c = 127.5 (1 + m) and the scale s = 127.5 exp(l), both in levels,
//!
//! ```text
//! p(v) = sigmoid(a) - sigmoid(b),  a = (v + 1/2 - c) / s,  b = (v - 1/2 - c) / s,
//! ```
//!
//! with `sigmoid(b) = 0` at v = 0 and `sigmoid(a) = 1` at v = 255: the logistic distribution, whose tails beyond the
//! ends belong to the ends. The probabilities of all levels sum to one. l counts as -7 below and as 7 above, without
//! derivative: the least scale is an eighth of a level. Channels are independent given the outputs. In nats.
//!
//! In between, with the distance `u = |v - c| / s` and the width `w = 1 / s`, X = exp(-u) and H = exp(-w / 2),
//!
//! ```text
//! p(v) = (1 - H^2) X / ((H + X) (1 + X H)),
//! -ln p(v) = u + ln((H + X) (1 + X H) / (1 - H^2)),
//! d / du = H (1 - X^2) / ((H + X) (1 + X H)),
//! d / dw = -H (1 + 2 X H + X^2) / (2 (H + X) (1 + X H)) - H^2 / (1 - H^2).
//! ```
//!
//! As w is at most 8.7, H is not small: nothing overflows, nothing cancels, and it needs no other form in the tails.
//! At the ends `-ln p` is softplus(-a) and softplus(b).
//!
//! Kingma, Salimans, Jozefowicz, Chen, Sutskever, Welling, "Improving variational inference with inverse autoregressive
//! flow", NeurIPS 2016; units and the bound of l are those of Salimans, Karpathy, Chen, Kingma, "PixelCNN++", ICLR
//! 2017.

use super::located::{self, Block, Located, bounded, exp_and_less_one};
use super::{BLOCK, Likelihood, LikelihoodEntry};
use crate::math::{ln_positive, softplus};

/// The discretised logistic likelihood in the registry.
pub(super) fn entry() -> LikelihoodEntry {
    LikelihoodEntry::new(
        Logistic,
        "8-bit numbers, grey or coloured, by a discretised logistic distribution; outputs are locations and log-scales",
    )
}

/// Half of 255.
const HALF: f32 = 127.5;

/// The discretised logistic distribution of 8-bit numbers, from locations `[d]` and log-scales `[d]`; the
/// [module](self) has its equation.
///
/// ```
/// use gumbel::likelihood::{Likelihood, Logistic};
/// // One number whose location is the middle grey, with the scale of a hundred levels.
/// let (outputs, mut total) = ([0.0, (100.0f32 / 127.5).ln()], 0.0);
/// for level in 0..=255 {
///     let mut loss = [0.0];
///     Logistic.losses(&outputs, &[level as f32 / 255.0], 1, &mut loss);
///     total += (-loss[0]).exp();
/// }
/// assert!((total - 1.0).abs() < 1e-5);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Logistic;

/// What the losses and their derivatives are made of, as in the [module](self). It is computed in several short loops:
/// behind a long body a processor does not see the next one.
struct Terms {
    /// w, H and 1 - H^2.
    width: [f32; BLOCK],
    half: [f32; BLOCK],
    gap: [f32; BLOCK],
    /// (v - c) / s, at an end a or b; and X.
    distance: [f32; BLOCK],
    exp: [f32; BLOCK],
}

/// Whether the level of a number is an end, and on which side: -1 at 0, else 1.
#[inline(always)]
fn end(level: f32) -> (bool, f32) {
    let black = level <= 0.0;
    (black | (level >= 255.0), if black { -1.0 } else { 1.0 })
}

/// The level of a number.
#[inline(always)]
fn level(x: f32) -> f32 {
    (x * 255.0 + 12_582_912.0) - 12_582_912.0 // adding 1.5 * 2^23 rounds
}

impl Terms {
    #[inline(always)]
    fn new(Block { m, l, x }: Block<'_>) -> Self {
        let zeros = [0.0; BLOCK];
        let mut terms = Terms { width: zeros, half: zeros, gap: zeros, distance: zeros, exp: zeros };
        let Terms { width, half, gap, distance, exp } = &mut terms;
        width.iter_mut().zip(l).for_each(|(width, l)| *width = located::inverse_scale::<Logistic>(*l));
        for ((half, gap), width) in half.iter_mut().zip(gap).zip(&width[..l.len()]) {
            let (exp, less_one) = exp_and_less_one(-0.5 * width);
            (*half, *gap) = (exp, -less_one * (1.0 + exp));
        }
        for ((distance, exp), ((m, x), width)) in distance.iter_mut().zip(exp).zip(m.iter().zip(x).zip(width)) {
            let level = level(*x);
            let (end, side) = end(level);
            let inwards = if end { 0.5 * side } else { 0.0 };
            *distance = ((level - HALF) - inwards - HALF * m) * *width;
            *exp = exp_and_less_one(-distance.abs().min(80.0)).0; // as good as nothing from 80 on
        }
        terms
    }
}

/// One of the terms.
#[derive(Clone, Copy)]
struct Term {
    end: bool,
    side: f32,
    width: f32,
    half: f32,
    gap: f32,
    distance: f32,
    exp: f32,
}

impl Term {
    /// The loss as a term and the argument of a logarithm; (H + X) (1 + X H); and one over that and the gap, at an end
    /// over 1 + X. At the ends softplus(t) = max(t, 0) + ln(1 + X): one division, and one logarithm, for all.
    #[inline(always)]
    fn parts(self) -> (f32, f32, f32, f32) {
        let Term { end, side, half, gap, distance, exp, .. } = self;
        let product = (half + exp) * (1.0 + exp * half);
        let sum = 1.0 + exp;
        let inverse = 1.0 / if end { sum } else { product * gap };
        let away = distance.abs();
        let far = if end { 0.5 * (side * distance + away) } else { away };
        (far, if end { sum } else { product * product * inverse }, product, inverse)
    }

    /// Derivatives at m and l. The distance t = (v - c) / s has -exp(-l) at m and -t at l, and w has -w at l. At an end
    /// the derivative is sigmoid(-a) or sigmoid(b).
    #[inline(always)]
    fn slopes(self, product: f32, inverse: f32) -> (f32, f32) {
        let Term { end, side, width, half, gap, distance, exp } = self;
        let outwards = if side * distance >= 0.0 { 1.0 } else { exp };
        let steep = half * (gap * inverse);
        let between = if distance < 0.0 { -steep } else { steep } * (1.0 - exp * exp);
        let at_distance = if end { side * (outwards * inverse) } else { between };
        let of_width = 0.5 * steep * (1.0 + exp * (exp + 2.0 * half)) + half * half * (product * inverse);
        let of_width = if end { 0.0 } else { width * of_width };
        (-HALF * width * at_distance, of_width - distance * at_distance)
    }
}

/// The terms one by one.
#[inline(always)]
fn each<'a>(terms: &'a Terms, x: &'a [f32]) -> impl Iterator<Item = Term> + 'a {
    let scales = terms.width.iter().zip(&terms.half).zip(&terms.gap);
    let places = terms.distance.iter().zip(&terms.exp).zip(x);
    scales.zip(places).map(
        #[inline(always)]
        |(((width, half), gap), ((distance, exp), x))| {
            let (end, side) = end(level(*x));
            Term { end, side, width: *width, half: *half, gap: *gap, distance: *distance, exp: *exp }
        },
    )
}

/// Adds the logarithms.
#[inline(always)]
fn finish(losses: &mut [f32], arguments: &[f32; BLOCK]) {
    losses.iter_mut().zip(arguments).for_each(|(loss, argument)| *loss += ln_positive(*argument));
}

impl Located for Logistic {
    const LEAST: f32 = -7.0;
    const STEEPEST: f32 = 8.601_045; // exp(7) / 127.5

    #[inline(always)]
    fn losses(inputs: Block<'_>, losses: &mut [f32]) {
        let (terms, mut arguments) = (Terms::new(inputs), [0.0; BLOCK]);
        for ((loss, argument), term) in losses.iter_mut().zip(&mut arguments).zip(each(&terms, inputs.x)) {
            (*loss, *argument, ..) = term.parts();
        }
        finish(losses, &arguments);
    }

    #[inline(always)]
    fn losses_and_slopes(inputs: Block<'_>, scale: f32, losses: &mut [f32], at_m: &mut [f32], at_l: &mut [f32]) {
        let (terms, mut arguments) = (Terms::new(inputs), [0.0; BLOCK]);
        let answers = losses.iter_mut().zip(&mut arguments).zip(at_m.iter_mut().zip(at_l)).zip(inputs.l);
        for ((((loss, argument), (at_m, at_l)), l), term) in answers.zip(each(&terms, inputs.x)) {
            let (product, inverse);
            (*loss, *argument, product, inverse) = term.parts();
            let (slope_m, slope_l) = term.slopes(product, inverse);
            (*at_m, *at_l) = (scale * slope_m, scale * (bounded::<Self>(*l).1 * slope_l));
        }
        finish(losses, &arguments);
    }
}

impl Likelihood for Logistic {
    fn name(&self) -> &'static str {
        "logistic"
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

    fn has_bits(&self) -> bool {
        true
    }

    fn losses(&self, outputs: &[f32], images: &[f32], per_image: usize, losses: &mut [f32]) {
        located::losses::<Logistic>(outputs, images, per_image, losses);
    }

    fn losses_and_slopes(
        &self,
        outputs: &[f32],
        images: &[f32],
        scales: &[f32],
        losses: &mut [f32],
        slopes: &mut [f32],
    ) {
        located::losses_and_slopes::<Logistic>(outputs, images, scales, losses, slopes);
    }

    /// The means of the levels `sum_v v p(v) = sum_{v > 0} sigmoid((c - v + 1/2) / s)`, as an integral:
    /// `s (softplus(c / s) - softplus((c - 255) / s))`. Exact from scales of a level on, within half a level below.
    fn means(&self, outputs: &[f32], means: &mut [f32]) {
        let (locations, scales) = outputs.split_at(outputs.len() / 2);
        for (mean, (m, l)) in means.iter_mut().zip(locations.iter().zip(scales)) {
            let width = located::inverse_scale::<Logistic>(*l);
            let centre = HALF + HALF * m;
            let span = softplus(centre * width) - softplus((centre - 255.0) * width);
            *mean = (span / (255.0 * width)).clamp(0.0, 1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::likelihood::located::tests;

    fn softplus(t: f64) -> f64 {
        t.max(0.0) + (-t.abs()).exp().ln_1p()
    }

    /// `-ln p` as the definition has it, in f64.
    fn formula(m: f64, l: f64, x: f64) -> f64 {
        let (v, c, s) = ((255.0 * x).round(), 127.5 * (1.0 + m), 127.5 * l.exp());
        let (a, b) = ((v + 0.5 - c) / s, (v - 0.5 - c) / s);
        match v {
            0.0 => softplus(-a),
            255.0 => softplus(b),
            _ => softplus(-a) + softplus(b) - (-(-1.0 / s).exp_m1()).ln(),
        }
    }

    #[test]
    fn losses_and_slopes_are_those_of_the_definition() {
        tests::agrees(&Logistic, -7.0, formula);
        tests::rows_are_their_own(&Logistic);
    }

    /// Losses of all levels at the same outputs.
    fn of_levels(m: f32, l: f32) -> Vec<f32> {
        let x: Vec<f32> = (0..256).map(|level| level as f32 / 255.0).collect();
        let mut losses = vec![f32::NAN; 256];
        for (loss, x) in losses.iter_mut().zip(&x) {
            Logistic.losses(&[m, l], std::slice::from_ref(x), 1, std::slice::from_mut(loss));
        }
        losses
    }

    #[test]
    fn levels_have_probabilities_that_sum_to_one() {
        let edges = [0.0, 1.0, -1.0, 0.5, 3.0, -3.0, 1e3, -1e3, 127.0 / 255.0, 1e-30];
        let scales = [-50.0, -7.0, -6.5, -5.0, -3.0, -1.0, 0.0, 2.0, 7.0, 50.0];
        let extremes = edges.iter().flat_map(|m| scales.map(|l| (*m, l)));
        let random = (0..400).flat_map(|case| {
            let (outputs, _) = tests::instance(case, 4);
            (0..4).map(move |i| (outputs[i], outputs[4 + i])).collect::<Vec<_>>()
        });
        for (m, l) in extremes.chain(random) {
            let losses = of_levels(m, l);
            assert!(losses.iter().all(|loss| loss.is_finite() && *loss > -1e-5), "{m} {l}");
            let total: f64 = losses.iter().map(|loss| (-*loss as f64).exp()).sum();
            assert!((total - 1.0).abs() < 1e-4, "{m} {l}: {total}");
        }
    }

    #[test]
    fn means_are_those_of_the_levels() {
        for case in 0..400 {
            let (outputs, _) = tests::instance(case, 4);
            let mut means = [f32::NAN; 4];
            Logistic.means(&outputs, &mut means);
            for (i, mean) in means.iter().enumerate() {
                let (m, l) = (outputs[i] as f64, (outputs[4 + i] as f64).clamp(-7.0, 7.0));
                let expected: f64 = (1..256).map(|v| v as f64 / 255.0 * (-formula(m, l, v as f64 / 255.0)).exp()).sum();
                let tolerance = if 127.5 * l.exp() < 1.0 { 0.5 / 255.0 + 1e-5 } else { 2e-4 };
                assert!((*mean as f64 - expected).abs() < tolerance, "{m} {l}: {mean}, should be {expected}");
            }
        }
        let mut means = [f32::NAN; 6];
        Logistic.means(&[1e3, -1e3, 0.0, 1e3, -1e3, 0.0, -50.0, -50.0, -50.0, 50.0, 50.0, 50.0], &mut means);
        for (mean, expected) in means.iter().zip([1.0, 0.0, 0.5, 0.5, 0.5, 0.5]) {
            assert!((mean - expected).abs() < 0.3, "{means:?}");
        }
    }

    /// Grey levels of other depths count as the nearest of 8 bits.
    #[test]
    fn numbers_between_levels_are_rounded() {
        let (mut exact, mut near) = ([0.0], [0.0]);
        Logistic.losses(&[0.1, -2.0], &[100.0 / 255.0], 1, &mut exact);
        Logistic.losses(&[0.1, -2.0], &[100.4 / 255.0], 1, &mut near);
        assert_eq!(exact, near);
    }
}
