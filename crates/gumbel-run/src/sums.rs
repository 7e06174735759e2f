//! Sums over all states of an image, and states drawn by their weights, in loops that vectorise.

use gumbel::math::exp_nonpositive;
use gumbel::vectorised;

/// Sums over all states of one image.
pub struct Expectations {
    /// `E_q[loss]` under q proportional to exp(score).
    pub loss: f64,
    /// `E_q[ln q]`, the negative entropy.
    pub ln_q: f64,
    /// `ln sum_s exp(-loss_s)`.
    pub ln_evidence: f64,
}

/// Width of the partial sums, and how many terms they take before they are added up in f64.
const LANES: usize = 16;
const PIECE: usize = 64 * LANES;

/// Sums over the states; replaces the scores by weights proportional to q, the largest of them 1.
pub fn expectations(scores: &mut [f32], losses: &[f32]) -> Expectations {
    vectorised!({
        let max = extreme(scores, f32::max);
        let least = extreme(losses, f32::min);
        // Sums of w, w (loss - least), w (score - max) and exp(least - loss).
        let mut sums = [0.0f64; 4];
        for (scores, losses) in scores.chunks_mut(PIECE).zip(losses.chunks(PIECE)) {
            let mut lanes = [[0.0f32; LANES]; 4];
            let (whole, rest) = scores.as_chunks_mut::<LANES>();
            let (whole_losses, rest_losses) = losses.as_chunks::<LANES>();
            for (scores, losses) in whole.iter_mut().zip(whole_losses) {
                for l in 0..LANES {
                    add_state(&mut lanes, l, (max, least), &mut scores[l], losses[l]);
                }
            }
            for (l, (score, loss)) in rest.iter_mut().zip(rest_losses).enumerate() {
                add_state(&mut lanes, l, (max, least), score, *loss);
            }
            for (sum, lanes) in sums.iter_mut().zip(&lanes) {
                *sum += lanes.iter().map(|v| *v as f64).sum::<f64>();
            }
        }
        let [w, loss, score, evidence] = sums;
        Expectations {
            loss: least as f64 + loss / w,
            ln_q: score / w - w.ln(),
            ln_evidence: evidence.ln() - least as f64,
        }
    })
}

#[inline(always)]
fn add_state(lanes: &mut [[f32; LANES]; 4], l: usize, (max, least): (f32, f32), score: &mut f32, loss: f32) {
    let (h, d) = (*score - max, loss - least);
    let w = exp_nonpositive(h);
    *score = w;
    lanes[0][l] += w;
    lanes[1][l] += w * d;
    lanes[2][l] += w * h;
    lanes[3][l] += exp_nonpositive(-d);
}

/// The extreme value, in a loop that vectorises.
#[inline(always)]
fn extreme(x: &[f32], of: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [x[0]; LANES];
    let (whole, rest) = x.as_chunks::<LANES>();
    for chunk in whole {
        for l in 0..LANES {
            lanes[l] = of(lanes[l], chunk[l]);
        }
    }
    lanes.into_iter().chain(rest.iter().copied()).fold(x[0], of)
}

/// Draws states under weights: by sums of pieces, which vectorise and are taken once, and then one by one.
pub struct Draws<'a> {
    weights: &'a [f32],
    sums: Vec<f64>,
    total: f64,
}

impl<'a> Draws<'a> {
    /// Of weights that are not negative.
    pub fn new(weights: &'a [f32]) -> Self {
        let sums: Vec<f64> = weights.chunks(PIECE).map(|piece| vectorised!(piece_sum(piece))).collect();
        let total = sums.iter().sum();
        Draws { weights, sums, total }
    }

    /// The state that a uniform number in (0, 1) draws.
    pub fn draw(&self, uniform: f32) -> usize {
        let mut rest = uniform as f64 * self.total;
        let mut last = 0; // rounding may leave a little at the end: then it is the last possible state
        for (p, (piece, sum)) in self.weights.chunks(PIECE).zip(&self.sums).enumerate() {
            if rest >= *sum && p + 1 < self.sums.len() {
                rest -= sum;
                continue;
            }
            for (s, w) in piece.iter().enumerate().filter(|(_, w)| **w > 0.0) {
                last = p * PIECE + s;
                rest -= *w as f64;
                if rest < 0.0 {
                    return last;
                }
            }
        }
        last
    }
}

#[inline(always)]
fn piece_sum(piece: &[f32]) -> f64 {
    let mut lanes = [0.0f32; LANES];
    let (whole, rest) = piece.as_chunks::<LANES>();
    for chunk in whole {
        for l in 0..LANES {
            lanes[l] += chunk[l];
        }
    }
    lanes.iter().chain(rest).map(|v| *v as f64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gumbel::noise::{Noise, Purpose};

    fn random(len: usize, seed: u64) -> Vec<f32> {
        let mut x = vec![0.0; len];
        Noise::new(seed, Purpose::User(0), 0).zero_mean_gumbel(&mut x);
        x
    }

    #[test]
    fn expectations_are_those_of_their_definition() {
        for (states, spread) in [(1, 1.0), (5, 1.0), (16, 4.0), (1000, 8.0), (5000, 30.0)] {
            let (h, losses) = (random(states, 1), random(states, 2));
            let h: Vec<f32> = h.iter().map(|h| h * spread - 7.0).collect();
            let losses: Vec<f32> = losses.iter().map(|l| 200.0 + 5.0 * l).collect();
            let max = h.iter().copied().fold(f32::NEG_INFINITY, f32::max) as f64;
            let w: Vec<f64> = h.iter().map(|h| (*h as f64 - max).exp()).collect();
            let sum: f64 = w.iter().sum();
            let loss: f64 = w.iter().zip(&losses).map(|(w, l)| w / sum * *l as f64).sum();
            let ln_q: f64 = w.iter().filter(|w| **w > 0.0).map(|w| w / sum * (w / sum).ln()).sum();
            let evidence = losses.iter().map(|l| (200.0 - *l as f64).exp()).sum::<f64>().ln() - 200.0;
            let mut weights = h.clone();
            let found = expectations(&mut weights, &losses);
            assert!((found.loss - loss).abs() < 1e-4, "{} {loss}", found.loss);
            assert!((found.ln_q - ln_q).abs() < 1e-5 * spread as f64, "{} {ln_q}", found.ln_q);
            assert!((found.ln_evidence - evidence).abs() < 1e-4, "{} {evidence}", found.ln_evidence);
            assert!(weights.iter().zip(&w).all(|(a, b)| (*a as f64 - b).abs() < 1e-5));
        }
    }

    /// The state is that of the cumulative sums, and impossible ones are never drawn.
    #[test]
    fn draws_follow_the_cumulative_sums() {
        for states in [1, 3, 16, 1000, 1024, 5000] {
            let mut w: Vec<f32> = random(states, 5).iter().map(|v| v.exp()).collect();
            w.iter_mut().skip(1).step_by(3).for_each(|w| *w = 0.0);
            let mut cumulative = vec![0.0f64; states];
            let mut sum = 0.0;
            w.iter().zip(&mut cumulative).for_each(|(w, c)| {
                sum += *w as f64;
                *c = sum;
            });
            let draws = Draws::new(&w);
            for i in 0..400 {
                let u = (i as f32 + 0.5) / 400.0;
                let found = draws.draw(u);
                let before = if found == 0 { 0.0 } else { cumulative[found - 1] };
                let (at, slack) = (u as f64 * sum, 1e-5 * sum);
                assert!(w[found] > 0.0 && before - slack <= at && at <= cumulative[found] + slack, "{states} {u}");
            }
            assert!(w[draws.draw(1.0)] > 0.0);
        }
    }
}
