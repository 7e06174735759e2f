//! Losses of images at every state: the decoder does not see the image, so its outputs for all states are computed once
//! and serve all images by a matrix product.
//!
//! `loss[b, s] = sum_d softplus(T[s, d]) - <x_b, T_s>` with the logits T. Where T is the product of `features[s]` and the
//! weight W of a last layer, `<x_b, T_s> = <W x_b, features_s> + <x_b, bias>`: T itself is needed for the sums only,
//! a block of states at a time, and the product is over the width of the layer instead of the pixels.

use crate::host;
use crate::likelihood::{self, exp_of_negative};
use crate::model::{Decoder, Head};
use burn::tensor::{Device, Tensor};
use gumbel::structure::{Code, Structure};
use gumbel::vectorised;
use rayon::prelude::*;

/// The largest |Z| of a table; a joint loss is computed for every image and state.
pub(crate) const MAX_STATES: usize = 1 << 16;

/// States decoded at a time.
const BLOCK: usize = 4096;

/// Decoder outputs for all states.
pub(crate) struct StateTable {
    read: Read,
    /// `sum_d softplus(T[s, d])`, `[states]`.
    sums: Vec<f32>,
    /// Statistics of all states `[states, P]` where scores are their product with the potentials.
    statistics: Option<Tensor<2>>,
}

struct Read {
    /// T, or what the last layer makes it of: `[states, pixels]` or `[states, features]`.
    features: Tensor<2>,
    /// The last layer: `[features, pixels]` and `[pixels]`.
    layer: Option<(Tensor<2>, Tensor<1>)>,
}

/// The number of states of a latent with a table: one variable with values, or as many states as are enumerated.
pub(crate) fn states<S: Structure>(structure: &S) -> Option<usize> {
    match is_single(structure) {
        true => Some(structure.unary()),
        false => structure.states().filter(|s| *s <= MAX_STATES),
    }
}

/// Whether a latent is one variable with values: its losses of neighbours are those of all states.
pub(crate) fn is_single<S: Structure>(structure: &S) -> bool {
    structure.variables() == 1 && structure.code() != Code::Indicators
}

/// Codes `[states, U]` of a range of states.
pub(crate) fn codes<S: Structure>(structure: &S, states: std::ops::Range<usize>) -> Vec<f32> {
    let (mut z, width) = (vec![0; structure.variables()], structure.unary());
    let mut codes = vec![0.0; states.len() * width];
    for (s, code) in states.zip(codes.chunks_exact_mut(width)) {
        structure.state(s, &mut z);
        structure.encode(&z, code);
    }
    codes
}

impl StateTable {
    /// Decodes all `states` with a decoder that records nothing.
    pub(crate) fn new<D: Decoder, S: Structure>(decoder: &D, structure: &S, states: usize, device: &Device) -> Self {
        let width = structure.unary();
        let mut sums = vec![0.0; states];
        let (mut parts, mut last) = (vec![], None);
        for (start, sums) in (0..states).step_by(BLOCK).zip(sums.chunks_mut(BLOCK)) {
            let codes = codes(structure, start..start + sums.len());
            let codes: Tensor<2> = host::tensor(codes, [sums.len(), width], device);
            let head = decoder.head(codes.clone());
            let logits = head.as_ref().map_or_else(|| decoder.logits(codes), Head::logits);
            let [_, pixels] = logits.dims();
            let values = host::read(logits.clone());
            likelihood::losses(&values, &vec![0.0; pixels], pixels, sums.len(), sums);
            parts.push(head.as_ref().map_or(logits, |h| h.features.clone()));
            last = head;
        }
        let read = Read { features: Tensor::cat(parts, 0), layer: last.map(|h| (h.weight, h.bias)) };
        // Indicators are their own statistics, and finding a state is dear: each is found once.
        let statistics = (structure.code() == Code::Indicators)
            .then(|| host::tensor(codes(structure, 0..states), [states, width], device));
        StateTable { read, sums, statistics }
    }

    /// Number of states.
    pub(crate) fn states(&self) -> usize {
        self.sums.len()
    }

    /// Losses `[batch, states]` of images `[batch, pixels]`.
    pub(crate) fn losses(&self, x: Tensor<2>) -> Vec<f32> {
        let states = self.states();
        let features = self.read.features.clone().transpose();
        let (products, constants) = match self.read.layer.clone() {
            None => (x.matmul(features), None),
            Some((weight, bias)) => {
                let constants = host::read(x.clone().matmul(bias.unsqueeze_dim(1)));
                (x.matmul(weight.transpose()).matmul(features), Some(constants))
            }
        };
        let mut losses = host::take(products);
        losses.par_chunks_mut(states).enumerate().for_each(|(b, row)| {
            let constant = constants.as_ref().map_or(0.0, |c| c[b]);
            row.iter_mut().zip(&self.sums).for_each(|(p, s)| *p = s - constant - *p);
        });
        losses
    }

    /// Scores `[batch, states]` of all states under potentials `[batch, P]`, where a product is the fastest way to them;
    /// elsewhere [`Structure::scores`] is.
    pub(crate) fn scores(&self, potentials: &[f32], device: &Device) -> Option<Vec<f32>> {
        let statistics = self.statistics.as_ref()?;
        let [_, p] = statistics.dims();
        let h: Tensor<2> = host::tensor(potentials.to_vec(), [potentials.len() / p, p], device);
        Some(host::take(h.matmul(statistics.clone().transpose())))
    }
}

/// Sums over all states of one image.
pub(crate) struct Expectations {
    /// `E_q[loss]` under q proportional to exp(score).
    pub(crate) loss: f64,
    /// `E_q[ln q]`, the negative entropy.
    pub(crate) ln_q: f64,
    /// `ln sum_s exp(-loss_s)`.
    pub(crate) ln_evidence: f64,
}

/// Width of the partial sums, and how many terms they take before they are added up in f64.
const LANES: usize = 16;
const PIECE: usize = 64 * LANES;

/// Sums over the states; replaces the scores by weights proportional to q, the largest of them 1.
pub(crate) fn expectations(scores: &mut [f32], losses: &[f32]) -> Expectations {
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
    let w = exp_of_negative(h);
    *score = w;
    lanes[0][l] += w;
    lanes[1][l] += w * d;
    lanes[2][l] += w * h;
    lanes[3][l] += exp_of_negative(-d);
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
pub(crate) struct Draws<'a> {
    weights: &'a [f32],
    sums: Vec<f64>,
    total: f64,
}

impl<'a> Draws<'a> {
    pub(crate) fn new(weights: &'a [f32]) -> Self {
        let sums: Vec<f64> = weights.chunks(PIECE).map(|piece| vectorised!(piece_sum(piece))).collect();
        let total = sums.iter().sum();
        Draws { weights, sums, total }
    }

    /// The state that a uniform number in (0, 1) draws.
    pub(crate) fn draw(&self, uniform: f32) -> usize {
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
    use crate::model::Mlp;
    use burn::module::Module;
    use gumbel::noise::{Noise, Purpose};
    use gumbel::structure::{AnyStructure, Categorical, Pairwise, Subset};

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

    #[test]
    fn losses_of_all_states_are_those_of_plain_decoding() {
        let device = Device::flex();
        let (batch, pixels) = (3, 29);
        let x: Vec<f32> = random(batch * pixels, 3).iter().map(|v| (*v > 0.0) as u8 as f32).collect();
        let structures: [AnyStructure; 4] = [
            Categorical::new(6).unwrap().into(),
            Pairwise::new(5).unwrap().into(),
            Subset::new(6, 2).unwrap().into(),
            Categorical::binary(13).unwrap().into(), // more than one block of states
        ];
        for structure in structures {
            for hidden in [&[][..], &[7], &[40, 31]] {
                let widths = [&[structure.unary()], hidden, &[pixels]].concat();
                let decoder = Mlp::new(&widths, 1, 1, &device).valid();
                let states = states(&structure).unwrap();
                let table = StateTable::new(&decoder, &structure, states, &device);
                let found = table.losses(host::tensor(x.clone(), [batch, pixels], &device));
                let all = codes(&structure, 0..states);
                let logits = decoder.logits(host::tensor(all, [states, structure.unary()], &device));
                let logits = host::read(logits);
                for (x, found) in x.chunks(pixels).zip(found.chunks(states)) {
                    let mut expected = vec![0.0; states];
                    likelihood::losses(&logits, x, pixels, states, &mut expected);
                    assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-4));
                }
                let h = random(2 * structure.potentials(), 4);
                if let Some(found) = table.scores(&h, &device) {
                    let mut expected = vec![0.0; states];
                    for (h, found) in h.chunks(structure.potentials()).zip(found.chunks(states)) {
                        structure.scores(h, &mut expected);
                        assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5));
                    }
                }
            }
        }
    }
}
