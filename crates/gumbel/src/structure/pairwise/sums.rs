//! Exact sums of a pairwise binary model by enumeration of its 2^n states, O(2^n) in time and memory.
//!
//! Bit i of an index is `z_i`. Scores are built by doubling: the states with `z_i = 1` are those without, plus the
//! unary potential, plus a table of `sum_j w_ij z_j` that is itself built by doubling. Marginals are found by folding:
//! the upper half of the weights is the distribution of the others given `z_i = 1`, and adding it to the lower half sums
//! `z_i` out.

use super::pair_index;
use crate::Error;
use rand_chacha::rand_core::Rng;

/// The largest number of variables for sums.
pub(super) const MAX_VARIABLES: usize = 20;

/// Probabilities of all states.
pub(super) struct Gibbs {
    variables: usize,
    /// `h(z)`.
    scores: Vec<f64>,
    /// `q(z)`.
    probabilities: Vec<f64>,
    /// `ln sum_z exp(h(z))`.
    pub(super) log_partition: f64,
}

impl Gibbs {
    /// Enumerates the model with `n` variables and potentials `[n, 2]` followed by the pairs.
    pub(super) fn new(n: usize, potentials: &[f32]) -> Result<Self, Error> {
        if n > MAX_VARIABLES {
            return Err(Error::TooManyStates { states: format!("2^{n}"), limit: 1 << MAX_VARIABLES });
        }
        crate::structure::check_numbers("potential", potentials)?;
        let scores = scores(n, potentials);
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if max == f64::NEG_INFINITY {
            return Err(Error::Infeasible { detail: "every assignment has a potential of -inf".into() });
        }
        let mut probabilities: Vec<f64> = scores.iter().map(|h| (h - max).exp()).collect();
        let sum: f64 = probabilities.iter().sum();
        let scale = 1.0 / sum;
        probabilities.iter_mut().for_each(|q| *q *= scale);
        Ok(Gibbs { variables: n, scores, probabilities, log_partition: max + sum.ln() })
    }

    /// Writes `E_q[s(z)]`.
    pub(super) fn marginals(&self, marginals: &mut [f32]) {
        let n = self.variables;
        moments(n, &mut self.probabilities.clone(), |index, value| marginals[index] = value.clamp(0.0, 1.0) as f32);
        for i in 0..n {
            marginals[2 * i] = 1.0 - marginals[2 * i + 1];
        }
        // A value of probability zero has exactly that, without the rounding of a sum.
        let mut possible = [0u32; 2];
        for (z, q) in self.probabilities.iter().enumerate().filter(|(_, q)| **q > 0.0) {
            debug_assert!(*q <= 1.0 + 1e-9);
            possible[0] |= !(z as u32);
            possible[1] |= z as u32;
        }
        for i in 0..n {
            for value in 0..2 {
                if possible[value] >> i & 1 == 0 {
                    (marginals[2 * i + value], marginals[2 * i + 1 - value]) = (0.0, 1.0);
                }
            }
        }
    }

    /// `KL(q || uniform)`; adds `scale` times its gradient, the covariance of the statistics with the score.
    pub(super) fn kl_to_uniform(&self, scale: f32, gradient: &mut [f32]) -> f64 {
        let n = self.variables;
        let weighted = |mean: f64| {
            let terms = self.probabilities.iter().zip(&self.scores);
            terms.map(move |(q, h)| if *q > 0.0 { q * (h - mean) } else { 0.0 })
        };
        let mean: f64 = weighted(0.0).sum();
        if scale != 0.0 {
            let mut weights: Vec<f64> = weighted(mean).collect();
            moments(n, &mut weights, |index, value| {
                let value = scale * value as f32;
                gradient[index] += value;
                if index < 2 * n {
                    gradient[index - 1] -= value; // the weights sum to zero
                }
            });
        }
        (n as f64 * std::f64::consts::LN_2 + mean - self.log_partition).max(0.0)
    }

    /// Draws a state.
    pub(super) fn sample<R: Rng>(&self, generator: &mut R, assignment: &mut [u32]) {
        let mut rest = (generator.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let mut state = 0;
        // Rounding may leave a little at the end: then it is the last possible state.
        for (z, q) in self.probabilities.iter().enumerate().filter(|(_, q)| **q > 0.0) {
            state = z;
            rest -= q;
            if rest < 0.0 {
                break;
            }
        }
        assignment.iter_mut().enumerate().for_each(|(i, z)| *z = (state >> i & 1) as u32);
    }
}

/// Scores of all states.
fn scores(n: usize, potentials: &[f32]) -> Vec<f64> {
    let (unary, pairs) = potentials.split_at(2 * n);
    let mut scores = vec![0.0; 1 << n];
    let mut linear = vec![0.0; 1 << n.saturating_sub(1)];
    for i in 0..n {
        linear[0] = 0.0;
        for j in 0..i {
            let w = pairs[pair_index(n, j, i)] as f64;
            let (from, to) = linear[..2 << j].split_at_mut(1 << j);
            to.iter_mut().zip(from).for_each(|(t, f)| *t = *f + w);
        }
        let (h0, h1) = (unary[2 * i] as f64, unary[2 * i + 1] as f64);
        let (without, with) = scores[..2 << i].split_at_mut(1 << i);
        for ((a, b), l) in without.iter_mut().zip(with).zip(&linear) {
            *b = *a + (h1 + l);
            *a += h0;
        }
    }
    scores
}

/// Calls `each(index of a potential, sum of weights of the states where its statistic is 1)` for the unary potentials of
/// value 1 and for the pairs. Destroys the weights.
fn moments(n: usize, weights: &mut [f64], mut each: impl FnMut(usize, f64)) {
    let mut given = vec![0.0; weights.len() / 2];
    for i in (0..n).rev() {
        let (rest, upper) = weights[..2 << i].split_at_mut(1 << i);
        let given = &mut given[..1 << i];
        given.copy_from_slice(upper);
        for j in (0..i).rev() {
            let (lower, upper) = given[..2 << j].split_at_mut(1 << j);
            each(2 * n + pair_index(n, j, i), fold(lower, upper));
        }
        each(2 * i + 1, given[0]);
        rest.iter_mut().zip(upper).for_each(|(a, b)| *a += *b);
    }
}

/// Adds the upper half to the lower; returns the sum of the upper.
#[inline]
fn fold(lower: &mut [f64], upper: &[f64]) -> f64 {
    let mut sum = [0.0; 4];
    let (l, u) = (lower.chunks_exact_mut(4), upper.chunks_exact(4));
    for (a, b) in l.zip(u) {
        for lane in 0..4 {
            a[lane] += b[lane];
            sum[lane] += b[lane];
        }
    }
    let tail = lower.len() / 4 * 4;
    let mut rest = 0.0;
    for (a, b) in lower[tail..].iter_mut().zip(&upper[tail..]) {
        *a += b;
        rest += b;
    }
    (sum[0] + sum[1]) + (sum[2] + sum[3]) + rest
}
