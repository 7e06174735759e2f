//! Exact sums of a pairwise binary model by enumeration of its 2^n states, O(2^n) in time and memory.
//!
//! The states stand in the order of enumeration: the last variable is bit 0 of an index. Scores are built by doubling:
//! the states with `z_i = 1` are those without, plus the unary potential, plus a table of `sum_j w_ij z_j` that is
//! itself built by doubling, in the place of the states that it serves. Marginals are found by folding: the upper half
//! of the weights is the distribution of the others given `z_i = 1`, and adding it to the lower half sums `z_i` out.
//!
//! Weights `exp(h)` are built like scores, by products instead of sums, where no product can leave the range of f64.
//!
//! The loops over states are compiled for the vector instructions of the machine too, and chosen when they run.

use super::{Real, pair_index};
use crate::Error;
use crate::math::exp_nonpositive;
use crate::vectorised;
use rand_chacha::rand_core::Rng;
use std::ops::{Add, AddAssign};

/// The largest number of variables for sums.
pub(super) const MAX_VARIABLES: usize = 20;

/// Products of weights stay between `exp(-SAFE)` and `exp(SAFE)`, where f64 is normal.
const SAFE: f64 = 600.0;

/// Probabilities of all states.
pub(super) struct Gibbs<'a, T> {
    variables: usize,
    potentials: &'a [T],
    /// `q(z)`.
    probabilities: Vec<f64>,
    /// `ln sum_z exp(h(z))`.
    pub(super) log_partition: f64,
}

impl<'a, T: Real> Gibbs<'a, T> {
    /// Enumerates the model with `n` variables and potentials `[n, 2]` followed by the pairs.
    pub(super) fn new(n: usize, potentials: &'a [T]) -> Result<Self, Error> {
        vectorised!(Self::enumerate(n, potentials))
    }

    #[inline(always)]
    fn enumerate(n: usize, potentials: &'a [T]) -> Result<Self, Error> {
        if n > MAX_VARIABLES {
            return Err(Error::TooManyStates { states: format!("2^{n}"), limit: 1 << MAX_VARIABLES });
        }
        crate::structure::check_numbers("potential", potentials)?;
        let mut probabilities = vec![0.0; 1 << n];
        let (unary, pairs) = potentials.split_at(2 * n);
        let spread = unary.chunks_exact(2).map(|h| (h[1].wide() - h[0].wide()).abs()).sum::<f64>();
        let origin = if spread + pairs.iter().map(|w| w.wide().abs()).sum::<f64>() <= SAFE {
            fill_weights(n, potentials, &mut probabilities);
            unary.chunks_exact(2).map(|h| h[0].wide()).sum()
        } else {
            double_scores(n, potentials, &mut probabilities);
            let max = maximum(&probabilities);
            if max == f64::NEG_INFINITY {
                return Err(Error::Infeasible { detail: "every assignment has a potential of -inf".into() });
            }
            probabilities.iter_mut().for_each(|h| *h = exp_nonpositive((*h - max) as f32) as f64);
            max
        };
        let sum = total(&probabilities, |q| *q);
        let scale = 1.0 / sum;
        probabilities.iter_mut().for_each(|q| *q *= scale);
        Ok(Gibbs { variables: n, potentials, probabilities, log_partition: origin + sum.ln() })
    }

    /// Writes `E_q[s(z)]`.
    pub(super) fn marginals(&self, marginals: &mut [f32]) {
        let n = self.variables;
        fold_moments(n, &mut self.probabilities.clone(), &mut vec![0.0; 1 << n >> 1], |index, value: f64| {
            marginals[index] = value.clamp(0.0, 1.0) as f32
        });
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
                if possible[value] >> (n - 1 - i) & 1 == 0 {
                    (marginals[2 * i + value], marginals[2 * i + 1 - value]) = (0.0, 1.0);
                }
            }
        }
    }

    /// `KL(q || uniform)`; adds `scale` times its gradient, the covariance of the statistics with the score.
    pub(super) fn kl_to_uniform(self, scale: f32, gradient: &mut [f32]) -> f64 {
        vectorised!(self.fold_kl(scale, gradient))
    }

    #[inline(always)]
    fn fold_kl(mut self, scale: f32, gradient: &mut [f32]) -> f64 {
        let n = self.variables;
        let terms = &mut vec![0.0; 1 << n];
        double_scores(n, self.potentials, terms);
        // ln q is the score less the log-partition.
        let pairs = terms.iter_mut().zip(&self.probabilities);
        pairs.for_each(|(h, q)| *h = if *q > 0.0 { q * (*h - self.log_partition) } else { 0.0 });
        let ln_q = total(terms, |term| *term);
        if scale != 0.0 {
            // q (ln q - E[ln q]).
            self.fold_centred(terms, ln_q, scale, gradient);
        }
        (n as f64 * std::f64::consts::LN_2 + ln_q).max(0.0)
    }

    /// Adds `scale` times the covariance of the statistics with `<direction, s(z)>`.
    pub(super) fn covariance(self, direction: &[f32], scale: f32, out: &mut [f32]) {
        vectorised!(self.fold_covariance(direction, scale, out));
    }

    #[inline(always)]
    fn fold_covariance(mut self, direction: &[f32], scale: f32, out: &mut [f32]) {
        let terms = &mut vec![0.0; 1 << self.variables];
        double_scores(self.variables, direction, terms);
        terms.iter_mut().zip(&self.probabilities).for_each(|(t, q)| *t *= q);
        let mean = total(terms, |term| *term);
        self.fold_centred(terms, mean, scale, out);
    }

    /// Adds the sum of the statistics with the weights `terms - q mean`, where the mean is the sum of the terms. The
    /// probabilities are gone afterwards.
    #[inline(always)]
    fn fold_centred(&mut self, terms: &mut [f64], mean: f64, scale: f32, out: &mut [f32]) {
        let n = self.variables;
        terms.iter_mut().zip(&self.probabilities).for_each(|(t, q)| *t -= q * mean);
        fold_all(n, terms, &mut self.probabilities[..1 << n >> 1], |index, value| {
            let value = scale * value as f32;
            out[index] += value;
            if index < 2 * n {
                out[index - 1] -= value; // the weights sum to zero
            }
        });
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
        assignment.iter_mut().rev().enumerate().for_each(|(b, z)| *z = (state >> b & 1) as u32);
    }
}

/// The largest of the scores, in a loop that vectorises.
#[inline(always)]
fn maximum(scores: &[f64]) -> f64 {
    let mut lanes = [f64::NEG_INFINITY; 8];
    for chunk in scores.chunks(8) {
        lanes.iter_mut().zip(chunk).for_each(|(l, s)| *l = if *s > *l { *s } else { *l });
    }
    lanes.into_iter().fold(f64::NEG_INFINITY, f64::max)
}

/// The sum of `of(x)`, in a loop that vectorises.
#[inline(always)]
pub(super) fn total<T>(x: &[T], of: impl Fn(&T) -> f64) -> f64 {
    let mut lanes = [0.0; 8];
    for chunk in x.chunks(8) {
        lanes.iter_mut().zip(chunk).for_each(|(l, x)| *l += of(x));
    }
    lanes.iter().sum()
}

/// Writes the scores of all states.
pub(super) fn fill_scores(n: usize, potentials: &[f32], scores: &mut [f32]) {
    vectorised!(double_scores(n, potentials, scores));
}

#[inline(always)]
fn double_scores<P, T>(n: usize, potentials: &[P], scores: &mut [T])
where
    P: Copy + Into<T>,
    T: Copy + Default + Add<Output = T> + AddAssign,
{
    let (unary, pairs) = potentials.split_at(2 * n);
    scores[0] = T::default();
    for b in 0..n {
        let i = n - 1 - b;
        let (without, with) = scores[..2 << b].split_at_mut(1 << b);
        with[0] = unary[2 * i + 1].into();
        for j in 0..b {
            let w: T = pairs[pair_index(n, i, n - 1 - j)].into();
            let (from, to) = with[..2 << j].split_at_mut(1 << j);
            to.iter_mut().zip(from).for_each(|(t, f)| *t = *f + w);
        }
        let h0: T = unary[2 * i].into();
        for (a, b) in without.iter_mut().zip(with) {
            *b += *a;
            *a += h0;
        }
    }
}

/// Writes `exp(h(z) - h(0))` for all states, by products.
#[inline(always)]
fn fill_weights<T: Real>(n: usize, potentials: &[T], weights: &mut [f64]) {
    let (unary, pairs) = potentials.split_at(2 * n);
    weights[0] = 1.0;
    for b in 0..n {
        let i = n - 1 - b;
        let (without, with) = weights[..2 << b].split_at_mut(1 << b);
        with[0] = (unary[2 * i + 1].wide() - unary[2 * i].wide()).exp();
        for j in 0..b {
            let w = pairs[pair_index(n, i, n - 1 - j)].wide().exp();
            let (from, to) = with[..2 << j].split_at_mut(1 << j);
            to.iter_mut().zip(from).for_each(|(t, f)| *t = *f * w);
        }
        with.iter_mut().zip(without).for_each(|(b, a)| *b *= *a);
    }
}

/// Calls `each(index of a potential, sum of weights of the states where its statistic is 1)` for the unary potentials
/// of value 1 and for the pairs. Destroys the weights; `given` is working memory of half their number.
pub(super) fn fold_moments<T>(n: usize, weights: &mut [T], given: &mut [T], each: impl FnMut(usize, T))
where
    T: Copy + Default + Add<Output = T> + AddAssign,
{
    vectorised!(fold_all(n, weights, given, each));
}

#[inline(always)]
fn fold_all<T>(n: usize, weights: &mut [T], given: &mut [T], mut each: impl FnMut(usize, T))
where
    T: Copy + Default + Add<Output = T> + AddAssign,
{
    for b in (0..n).rev() {
        let i = n - 1 - b;
        let (rest, upper) = weights[..2 << b].split_at_mut(1 << b);
        let given = &mut given[..1 << b];
        given.copy_from_slice(upper);
        for j in (0..b).rev() {
            let (lower, upper) = given[..2 << j].split_at_mut(1 << j);
            each(2 * n + pair_index(n, i, n - 1 - j), fold(lower, upper));
        }
        each(2 * i + 1, given[0]);
        rest.iter_mut().zip(upper).for_each(|(a, b)| *a += *b);
    }
}

/// Adds the upper half to the lower; returns the sum of the upper.
#[inline(always)]
fn fold<T: Copy + Default + Add<Output = T> + AddAssign>(lower: &mut [T], upper: &[T]) -> T {
    const LANES: usize = 8;
    let mut sum = [T::default(); LANES];
    let (l, u) = (lower.chunks_exact_mut(LANES), upper.chunks_exact(LANES));
    for (a, b) in l.zip(u) {
        for lane in 0..LANES {
            a[lane] += b[lane];
            sum[lane] += b[lane];
        }
    }
    let tail = lower.len() / LANES * LANES;
    for (lane, (a, b)) in lower[tail..].iter_mut().zip(&upper[tail..]).enumerate() {
        *a += *b;
        sum[lane] += *b;
    }
    let [a, b, c, d, e, f, g, h] = sum;
    ((a + e) + (b + f)) + ((c + g) + (d + h))
}
