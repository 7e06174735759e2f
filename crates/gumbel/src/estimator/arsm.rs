//! ARSM: augment, REINFORCE, swap, merge (Yin, Yue and Zhou, ICML 2019), for independent K-way variables.
//!
//! ```text
//! pi_v ~ Dirichlet(1, ..., 1),   z_v = argmin_k pi_{v,k} exp(-h_{v,k})
//! z^{c,j}: the same with pi_{v,c} and pi_{v,j} exchanged, in all variables v at once
//! gradient at h_{v,c}  ~  sum_j (loss(z^{c,j}) - 1/K sum_m loss(z^{m,j})) (1/K - pi_{v,j})
//! ```
//!
//! Exponential variables `exp(-gamma)` divided by their sum are Dirichlet, so that z is the perturbed arg max, and an
//! exchange of pi is one of the Gumbel noise. A constant added to the noise of a variable cancels. For every c,
//! `loss(z) (1 - K pi_c)` is the estimate behind it (augment, REINFORCE); pi with two entries exchanged has the same
//! distribution (swap), and what is subtracted has the mean of the sum of the gradient over c, which is zero (merge).
//!
//! - Cost: the losses of z and of all swaps, at most `K (K - 1) / 2 + 1` without gradient, in one question; equal ones
//!   are asked about once, so that one variable costs at most K. One backward pass, for the decoder.
//! - No bias.
//! - Variance: of the order of the squared differences of the swaps' losses. Where no swap changes z, as for a q that
//!   is nearly one-hot, the gradient is zero.
//! - For K = 2 it is [ARM](super::Arm): z and the one swap are the antithetic pair, and `1/2 - pi_1 = u - 1/2`.
//! - The decoder follows z with a sample's weight. (Every swap is a sample of q too.)

use super::piece::{Memory, room};
use super::registry::{EstimatorEntry, PAPER};
use super::{Estimator, Piece, independent};
use crate::Error;
use crate::oracle::{Oracle, Questions};
use crate::structure::{Code, Structure, check_numbers};

/// The estimator's name, in messages too.
const NAME: &str = "arsm";
/// Most values of a variable: their swaps are about as many as the states that others enumerate.
const MAX_VALUES: usize = 256;

/// ARSM in the registry.
pub(super) fn entry() -> EstimatorEntry {
    EstimatorEntry::new(NAME, "swaps of the noise of two values: augment, REINFORCE, swap, merge", |_, z| {
        values(z)?;
        Ok(Box::new(Arsm))
    })
    .with_costs("up to K (K - 1) / 2 + 1; for one variable K", "1")
    .with_quality("none; for independent variables", "of the swaps' differences of losses, squared")
    .with_paper_samples(PAPER)
}

/// Values of each variable.
fn values<S: Structure>(structure: &S) -> Result<usize, Error> {
    independent(structure, NAME)?;
    match structure.code() {
        Code::OneHot { values } if values <= MAX_VALUES => Ok(values),
        Code::OneHot { values } => {
            let expected = format!("at most {MAX_VALUES} values of a variable: {NAME} compares all swaps of two");
            Err(Error::setting("latent", format!("{values} values"), expected))
        }
        _ => Err(Error::Coupled { estimator: NAME }),
    }
}

/// Augment, REINFORCE, swap, merge.
///
/// ```
/// use gumbel::estimator::{Arsm, estimate};
/// use gumbel::oracle::Closure;
/// use gumbel::structure::Categorical;
/// let latent = Categorical::new(3)?;
/// let mut oracle = Closure::new(&latent, |_, code| 9.0 * code[0] + code[1] + 5.0 * code[2]);
/// let ln = f32::ln;
/// // pi = (1/7, 2/7, 4/7): z = 0, and after a swap the value that has got 1/7.
/// let noise = [ln(4.0), ln(2.0), ln(1.0)];
/// let found = estimate(&Arsm, &latent, &[0.0; 3], &noise, &mut oracle)?.gradient;
/// let means = [(9.0 + 1.0 + 5.0) / 3.0, (1.0 + 9.0 + 9.0) / 3.0, (5.0 + 9.0 + 9.0) / 3.0];
/// let weights = [1, 2, 4].map(|pi| 1.0 / 3.0 - pi as f32 / 7.0);
/// let first = (9.0 - means[0]) * weights[0] + (1.0 - means[1]) * weights[1] + (5.0 - means[2]) * weights[2];
/// assert!((found[0] - first).abs() < 1e-5);
/// # Ok::<(), gumbel::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Arsm;

/// No value, where there are fewer than three.
const NONE: u32 = u32::MAX;

/// The three values of one variable with the largest `h + gamma`, best first, the first ones among equals: without any
/// two of its values, it is known which one is the best.
fn leaders(h: &[f32], gamma: &[f32], best: &mut [u32]) {
    best.fill(NONE);
    let value = |k: u32| h[k as usize] + gamma[k as usize];
    for k in 0..h.len() as u32 {
        let mut next = k;
        for place in best.iter_mut() {
            if *place == NONE || value(next) > value(*place) {
                std::mem::swap(place, &mut next);
            }
            if next == NONE {
                break;
            }
        }
    }
}

/// The arg max of `h + gamma` with the noise of c and j exchanged, c < j; the first one among equals.
fn swapped(h: &[f32], gamma: &[f32], leaders: &[u32], c: usize, j: usize) -> u32 {
    let (at_c, at_j) = (h[c] + gamma[j], h[j] + gamma[c]);
    let (mut best, mut most) = if at_j > at_c { (j, at_j) } else { (c, at_c) };
    let other = leaders.iter().copied().find(|k| *k as usize != c && *k as usize != j).filter(|k| *k != NONE);
    if let Some(k) = other.map(|k| k as usize) {
        let at_k = h[k] + gamma[k];
        if at_k > most || at_k == most && k < best {
            (best, most) = (k, at_k);
        }
    }
    debug_assert!(most > f32::NEG_INFINITY);
    best as u32
}

/// The place of a swap among those of an example; behind z, which is exchanged with nothing.
fn place(values: usize, c: usize, j: usize) -> usize {
    let (c, j) = (c.min(j), c.max(j));
    if c == j { 0 } else { c * (2 * values - c - 1) / 2 + j - c }
}

/// Asks about z of the last draw and its swaps: leaves the losses of the distinct ones in `memory.answers`, their
/// examples in `memory.active`, and where the answers of all swaps stand in `memory.moved`, `[examples, swaps + 1]`.
fn ask<S: Structure>(
    piece: &mut Piece<'_, S>,
    sample: usize,
    values: usize,
    oracle: &mut dyn Oracle,
) -> Result<(), Error> {
    let (count, n, u) = (piece.count(), piece.structure.variables(), piece.structure.unary());
    let swaps = values * (values - 1) / 2;
    let Memory { assignments, moved, active, compact, answers, .. } = &mut *piece.memory;
    // Room for as many as there may be, so that no later step needs more.
    let distinct = match n {
        1 => values.min(swaps + 1),
        _ => swaps + 1,
    };
    let rows = room(compact, (count * distinct + 1) * n);
    let answers = room(answers, count * distinct);
    let (places, best) = room(moved, count * (swaps + 1) + 3 * n).split_at_mut(count * (swaps + 1));
    active.clear();
    active.reserve(count * distinct);
    for (b, places) in places.chunks_exact_mut(swaps + 1).enumerate() {
        let (h, gamma, first) = (&piece.potentials[b * u..][..u], piece.noise.of(sample, b), active.len());
        let variables = || h.chunks_exact(values).zip(gamma.chunks_exact(values));
        variables().zip(best.chunks_exact_mut(3)).for_each(|((h, gamma), best)| leaders(h, gamma, best));
        rows[first * n..][..n].copy_from_slice(&assignments[b * n..][..n]);
        places[0] = first as u32;
        active.push(b as u32);
        let mut at = 1;
        for c in 0..values {
            for j in c + 1..values {
                let (known, next) = rows.split_at_mut(active.len() * n);
                let next = &mut next[..n];
                let row = next.iter_mut().zip(variables()).zip(best.chunks_exact(3));
                row.for_each(|((z, (h, gamma)), best)| *z = swapped(h, gamma, best, c, j));
                let same = known[first * n..].chunks_exact(n).position(|row| row == next);
                places[at] = (first + same.unwrap_or(active.len() - first)) as u32;
                if same.is_none() {
                    active.push(b as u32);
                }
                at += 1;
            }
        }
    }
    let answers = &mut answers[..active.len()];
    oracle.losses(active, &rows[..active.len() * n], answers)?;
    for (loss, b) in answers.iter().zip(&*active) {
        check_numbers("loss", &[*loss]).map_err(|e| e.in_example(piece.first + *b as usize))?;
    }
    Ok(())
}

impl<S: Structure> Estimator<S> for Arsm {
    fn questions(&self, _: &S) -> Questions {
        Questions::LOSSES
    }

    fn estimate(&self, piece: &mut Piece<'_, S>, oracle: &mut dyn Oracle) -> Result<(), Error> {
        let k = values(piece.structure)?;
        let (u, swaps, each) = (piece.structure.unary(), k * (k - 1) / 2, 1.0 / k as f64);
        for sample in 0..piece.samples {
            piece.draw(sample)?;
            piece.follow_sample(sample, oracle)?;
            ask(piece, sample, k, oracle)?;
            let Memory { moved, answers, gains, .. } = &mut *piece.memory;
            let (differences, weights) = room(gains, k * k + k).split_at_mut(k * k);
            let examples = piece.gradient.chunks_exact_mut(u).zip(moved.chunks_exact(swaps + 1)).enumerate();
            for (b, (gradient, places)) in examples.take(piece.of.len()) {
                let loss = |c: usize, j: usize| answers[places[place(k, c, j)] as usize] as f64;
                for j in 0..k {
                    let mean = (0..k).map(|m| loss(m, j)).sum::<f64>() * each;
                    (0..k).for_each(|c| differences[c * k + j] = loss(c, j) - mean);
                }
                let (h, gamma) = (&piece.potentials[b * u..][..u], piece.noise.of(sample, b));
                let variables = gradient.chunks_exact_mut(k).zip(h.chunks_exact(k)).zip(gamma.chunks_exact(k));
                for ((gradient, h), gamma) in variables {
                    // Of exponential variables, relative to the largest.
                    let least = gamma.iter().copied().fold(f32::INFINITY, f32::min);
                    weights.iter_mut().zip(gamma).for_each(|(w, g)| *w = ((least - g) as f64).exp());
                    let sum: f64 = weights.iter().sum();
                    weights.iter_mut().for_each(|w| *w = each - *w / sum);
                    let rows = gradient.iter_mut().zip(h).zip(differences.chunks_exact(k));
                    // The gradient at a forbidden value has the mean zero: that is known without a draw.
                    for ((g, _), row) in rows.filter(|((_, h), _)| **h > f32::NEG_INFINITY) {
                        let sum: f64 = row.iter().zip(&*weights).map(|(d, w)| d * w).sum();
                        *g += piece.scale * sum as f32;
                    }
                }
            }
        }
        Ok(())
    }
}
