//! The Bernoulli likelihood of pixels, from logits, in a numerically stable form.
//!
//! For a pixel x in [0, 1] and a logit t, the loss is `-ln p(x | t) = softplus(t) - x t` with
//! `softplus(t) = max(t, 0) + ln(1 + exp(-|t|))`, its derivative at the logit `sigmoid(t) - x`. Losses of an image are
//! sums over its pixels, in nats.
//!
//! Because the derivative is known, no graph is recorded here: losses and derivatives are computed in one pass over the
//! logits in host memory, and the derivative is handed to automatic differentiation as a constant. The passes are
//! compiled for the vector instructions of the machine at run time. [`softplus`] and [`sigmoid`] are polynomial
//! approximations, accurate to a few units in the last place (see the tests).

use gumbel::vectorised;
use rayon::prelude::*;

/// exp(x) for x <= 0, to about 1.5 units in the last place; exp(-87) = 1.6e-38 below -87.
///
/// Range reduction to |r| <= ln(2)/2 and a polynomial of degree 6 (Taylor, adjusted at the ends).
#[inline(always)]
pub(crate) fn exp_of_negative(x: f32) -> f32 {
    let x = x.max(-87.0);
    let n = (x * std::f32::consts::LOG2_E).round_ties_even();
    // ln 2 in two parts, so that the remainder keeps its digits.
    let r = (x - n * 0.693_359_4) - n * -2.121_944_4e-4;
    let mut p = 1.0 / 5040.0f32;
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = p * r + c;
    }
    p * f32::from_bits(((n as i32 + 127) as u32) << 23)
}

/// ln(1 + y) for 0 <= y <= 1, through the series of atanh: ln(1 + y) = 2 atanh(y / (2 + y)).
#[inline(always)]
fn ln_1p_of_fraction(y: f32) -> f32 {
    let s = y / (2.0 + y);
    let t = s * s;
    let mut p = 1.0 / 13.0f32;
    for c in [1.0 / 11.0, 1.0 / 9.0, 1.0 / 7.0, 1.0 / 5.0, 1.0 / 3.0, 1.0] {
        p = p * t + c;
    }
    2.0 * s * p
}

/// `ln(1 + exp(t))`, finite for every finite t.
#[inline(always)]
pub fn softplus(t: f32) -> f32 {
    t.max(0.0) + ln_1p_of_fraction(exp_of_negative(-t.abs()))
}

/// `1 / (1 + exp(-t))`.
#[inline(always)]
pub fn sigmoid(t: f32) -> f32 {
    let e = exp_of_negative(-t.abs());
    let r = 1.0 / (1.0 + e);
    if t >= 0.0 { r } else { e * r }
}

/// Width of the partial sums: fixed, so that the result is the same whatever the machine's vectors.
const LANES: usize = 16;

/// Sum over `i < len` of `f(i)`, in a fixed order that vectorises.
#[inline(always)]
fn sum(len: usize, f: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let whole = len / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        for (l, lane) in lanes.iter_mut().enumerate() {
            *lane += f(start + l);
        }
    }
    for i in whole..len {
        lanes[i - whole] += f(i);
    }
    let mut half = LANES / 2;
    while half > 0 {
        for l in 0..half {
            lanes[l] += lanes[l + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// Rows per piece of parallel work; fixed. One row is a few microseconds.
const ROWS: usize = 4;

/// `sums[r] = sum_d softplus(logits[r, d])` and `sigmoids = sigmoid(logits)`, for logits `[rows, pixels]`.
pub fn softplus_sums_and_sigmoids(logits: &[f32], pixels: usize, sums: &mut [f32], sigmoids: &mut [f32]) {
    let pieces = sums.par_chunks_mut(ROWS).zip(sigmoids.par_chunks_mut(ROWS * pixels));
    pieces.zip(logits.par_chunks(ROWS * pixels)).for_each(|((sums, sigmoids), logits)| {
        vectorised!({
            let rows = sigmoids.chunks_exact_mut(pixels).zip(logits.chunks_exact(pixels));
            for (total, (s, t)) in sums.iter_mut().zip(rows) {
                *total = sum(pixels, |d| softplus(t[d]));
                s.iter_mut().zip(t).for_each(|(s, t)| *s = sigmoid(*t));
            }
        });
    });
}

/// `losses[r] = -ln p(image | logits[r])` for logits `[rows, pixels]`; row r belongs to image `r / per_image` of
/// `images` `[rows / per_image, pixels]`.
pub fn losses(logits: &[f32], images: &[f32], pixels: usize, per_image: usize, losses: &mut [f32]) {
    losses.par_chunks_mut(ROWS).zip(logits.par_chunks(ROWS * pixels)).enumerate().for_each(|(c, (losses, logits))| {
        vectorised!({
            for (i, (loss, t)) in losses.iter_mut().zip(logits.chunks_exact(pixels)).enumerate() {
                let x = &images[(c * ROWS + i) / per_image * pixels..][..pixels];
                *loss = sum(pixels, |d| softplus(t[d]) - x[d] * t[d]);
            }
        });
    });
}

/// Writes `losses[r] = -ln p(image r | logits[r])` and `derivative = scale * (sigmoid(logits) - images)`.
pub fn losses_and_derivative(
    logits: &[f32],
    images: &[f32],
    pixels: usize,
    scale: f32,
    losses: &mut [f32],
    derivative: &mut [f32],
) {
    let rows = losses.par_chunks_mut(ROWS).zip(derivative.par_chunks_mut(ROWS * pixels));
    let inputs = logits.par_chunks(ROWS * pixels).zip(images.par_chunks(ROWS * pixels));
    rows.zip(inputs).for_each(|((losses, derivative), (logits, images))| {
        vectorised!({
            let rows = logits.chunks_exact(pixels).zip(images.chunks_exact(pixels));
            let outputs = losses.iter_mut().zip(derivative.chunks_exact_mut(pixels));
            for ((loss, g), (t, x)) in outputs.zip(rows) {
                *loss = sum(pixels, |d| softplus(t[d]) - x[d] * t[d]);
                for d in 0..pixels {
                    g[d] = scale * (sigmoid(t[d]) - x[d]);
                }
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> impl Iterator<Item = f32> {
        (-200_000..=200_000).map(|i| i as f32 * 5e-4).chain([0.0, -0.0, 1e-30, -1e-30, 1e4, -1e4, 3e38, -3e38])
    }

    #[test]
    fn approximations_are_accurate_everywhere() {
        for t in grid() {
            let exact = (t as f64).max(0.0) + (-(t as f64).abs()).exp().ln_1p();
            let error = (softplus(t) as f64 - exact).abs();
            assert!(error <= 4e-7 * exact + 1e-37, "softplus({t}) = {}, expected {exact}", softplus(t));
            let exact = 1.0 / (1.0 + (-(t as f64)).exp());
            let error = (sigmoid(t) as f64 - exact).abs();
            assert!(error <= 4e-7 * exact + 1e-37, "sigmoid({t}) = {}, expected {exact}", sigmoid(t));
        }
    }

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
            losses(&logits, &images, pixels, 1, &mut a);
            losses_and_derivative(&logits, &images, pixels, 0.5, &mut b, &mut g);
            assert_eq!(a, b);
            for (a, e) in a.iter().zip(&expected) {
                assert!((*a as f64 - e).abs() < 1e-6 * e.abs().max(1.0) * (pixels as f64).sqrt(), "{a} {e}");
            }
            let (mut sums, mut s) = (vec![0.0; rows], vec![0.0; rows * pixels]);
            softplus_sums_and_sigmoids(&logits, pixels, &mut sums, &mut s);
            for i in 0..rows * pixels {
                assert!((g[i] - 0.5 * (s[i] - images[i])).abs() < 1e-7);
            }
            let mut shared = vec![0.0; rows];
            losses(&logits, &images[..pixels], pixels, rows, &mut shared);
            for (r, loss) in shared.iter().enumerate() {
                let dot: f32 = (0..pixels).map(|d| images[d] * logits[r * pixels + d]).sum();
                assert!((loss - (sums[r] - dot)).abs() < 1e-3);
            }
        }
    }
}
