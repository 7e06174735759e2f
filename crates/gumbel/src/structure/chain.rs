//! K-way variables in a row, each coupled with the next: the linear chain.
//!
//! ```text
//! h(z) = sum_t unary[t, z_t] + sum_t transition[t, z_t, z_{t+1}]
//! ```
//!
//! Potentials: `[T, K]` unary, then `[T - 1, K, K]` transitions with the earlier variable as the row. `-inf` is allowed
//! everywhere. A chain is the [`Tree`] with the edges (t, t + 1), and its algorithms are the tree's: max-product is
//! Viterbi's, sum-product is forward filtering with backward smoothing or sampling.
//!
//! Complexity of every operation: O(T K^2). Enumeration order: mixed radix with the last variable fastest.
//!
//! Reference: Rabiner, "A Tutorial on Hidden Markov Models and Selected Applications in Speech Recognition", 1989.

use super::latent::{self, LatentEntry};
use super::{Code, MaxMarginals, Maximum, Move, Precise, PreciseSums, Structure, Sums, Tree};
use crate::Error;
use rand_chacha::rand_core::Rng;
use std::ops::Range;

/// `T` variables of `K` values in a row.
///
/// ```
/// use gumbel::structure::{Chain, Structure, Sums};
/// let chain = Chain::new(3, 2)?; // three variables, two values
/// let change = [0.0, 1.0, 1.0, 0.0]; // rewards z_t != z_{t+1}
/// let potentials = [[0.5, 0.0, 0.0, 0.0, 0.5, 0.0].as_slice(), &change, &change].concat();
/// let (mut best, mut scratch) = ([0; 3], chain.scratch());
/// let maximum = chain.argmax(&potentials, &mut best, &mut scratch)?;
/// assert_eq!((best, maximum.value), ([0, 1, 0], 3.0));
/// assert!((chain.log_partition(&[0.0; 14])? - 8f64.ln()).abs() < 1e-6);
/// # Ok::<(), gumbel::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    tree: Tree,
}

impl Chain {
    /// The largest number of potentials.
    pub const MAX_POTENTIALS: usize = Tree::MAX_POTENTIALS;

    /// `variables` variables (the length T) with `values` >= 1 values each (K).
    ///
    /// # Errors
    ///
    /// No value, or more than [`MAX_POTENTIALS`](Chain::MAX_POTENTIALS).
    pub fn new(variables: usize, values: usize) -> Result<Self, Error> {
        if variables > Self::MAX_POTENTIALS {
            return Err(Error::range("variables", variables, format!("at most {}", Self::MAX_POTENTIALS)));
        }
        let edges: Vec<(usize, usize)> = (1..variables).map(|t| (t - 1, t)).collect();
        Ok(Chain { tree: Tree::new(variables, values, &edges)? })
    }

    /// Number of values of each variable, K.
    pub fn values(&self) -> usize {
        self.tree.values()
    }
}

impl Structure for Chain {
    type Scratch = <Tree as Structure>::Scratch;

    fn potentials(&self) -> usize {
        self.tree.potentials()
    }

    fn unary(&self) -> usize {
        self.tree.unary()
    }

    fn variables(&self) -> usize {
        self.tree.variables()
    }

    fn ln_states(&self) -> f64 {
        self.tree.ln_states()
    }

    fn states(&self) -> Option<usize> {
        self.tree.states()
    }

    fn state(&self, index: usize, assignment: &mut [u32]) {
        self.tree.state(index, assignment);
    }

    fn code(&self) -> Code {
        self.tree.code()
    }

    fn block(&self, variable: usize) -> Option<Range<usize>> {
        self.tree.block(variable)
    }

    fn scratch(&self) -> Self::Scratch {
        self.tree.scratch()
    }

    fn argmax(
        &self,
        potentials: &[f32],
        assignment: &mut [u32],
        scratch: &mut Self::Scratch,
    ) -> Result<Maximum, Error> {
        self.tree.argmax(potentials, assignment, scratch)
    }

    fn moves(&self, potentials: &[f32], assignment: &[u32], moves: &mut Vec<Move>) {
        self.tree.moves(potentials, assignment, moves);
    }

    fn max_marginals(
        &self,
        potentials: &[f32],
        assignment: &[u32],
        scratch: &mut Self::Scratch,
        found: &mut MaxMarginals,
    ) {
        self.tree.max_marginals(potentials, assignment, scratch, found);
    }

    fn add_statistics(&self, assignment: &[u32], scale: f32, out: &mut [f32]) {
        self.tree.add_statistics(assignment, scale, out);
    }

    fn scores(&self, potentials: &[f32], scores: &mut [f32]) {
        self.tree.scores(potentials, scores);
    }

    fn score(&self, potentials: &[f32], assignment: &[u32]) -> f64 {
        self.tree.score(potentials, assignment)
    }
}

impl Precise for Chain {
    fn argmax_precise(
        &self,
        potentials: &[f64],
        assignment: &mut [u32],
        scratch: &mut Self::Scratch,
    ) -> Result<Maximum, Error> {
        self.tree.argmax_precise(potentials, assignment, scratch)
    }
}

impl PreciseSums for Chain {
    fn marginals_precise(&self, potentials: &[f64], marginals: &mut [f32]) -> Result<f64, Error> {
        self.tree.marginals_precise(potentials, marginals)
    }
}

impl Sums for Chain {
    fn marginals(&self, potentials: &[f32], marginals: &mut [f32]) -> Result<f64, Error> {
        self.tree.marginals(potentials, marginals)
    }

    fn log_partition(&self, potentials: &[f32]) -> Result<f64, Error> {
        self.tree.log_partition(potentials)
    }

    fn kl_to_uniform(&self, potentials: &[f32], scale: f32, gradient: &mut [f32]) -> Result<f64, Error> {
        self.tree.kl_to_uniform(potentials, scale, gradient)
    }

    fn covariance(&self, potentials: &[f32], direction: &[f32], scale: f32, out: &mut [f32]) -> Result<(), Error> {
        self.tree.covariance(potentials, direction, scale, out)
    }

    fn sample<R: Rng>(&self, potentials: &[f32], generator: &mut R, assignment: &mut [u32]) -> Result<(), Error> {
        self.tree.sample(potentials, generator, assignment)
    }
}

/// `chain:TxK` in the registry.
pub(super) fn entry() -> LatentEntry {
    LatentEntry::new("chain", "TxK", "T variables with K values in a row", |sizes| {
        let (variables, values) = sizes.pair('x')?;
        sizes.informative(variables, values)?;
        sizes.at_most(latent::tables(variables, values))?;
        let structure = Chain::new(variables, values).map_err(|e| sizes.explain(e))?;
        Ok((structure.into(), format!("{variables}x{values}")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::structure::brute_force::{self, Random, Values};
    use crate::structure::{argmax_batch, perturbed_argmax};

    #[test]
    fn agrees_with_brute_force() {
        for case in 0..brute_force::cases() {
            let random = &mut Random::new(40, case);
            let length = random.below(6);
            let chain = Chain::new(length, 1 + random.below(if length > 3 { 3 } else { 5 })).unwrap();
            let values = Values::ALL[random.below(5)];
            let potentials = values.vector(chain.potentials(), random);
            let what = (case, values, length, chain.values());
            brute_force::check_argmax(&chain, &potentials, &mut chain.scratch(), &what);
            brute_force::check_sums(&chain, &potentials, &what);
            if values != Values::Extreme {
                brute_force::check_kl(&chain, &potentials, &what);
                brute_force::check_covariance(&chain, &potentials, &what);
            }
        }
    }

    /// Viterbi's algorithm as it is written in books, with back pointers, in f64.
    fn viterbi(length: usize, k: usize, h: &[f32]) -> f64 {
        let mut best: Vec<f64> = h[..k].iter().map(|v| *v as f64).collect();
        for t in 1..length {
            let transition = &h[length * k + (t - 1) * k * k..];
            let step =
                |b: usize| (0..k).map(|a| best[a] + transition[a * k + b] as f64).fold(f64::NEG_INFINITY, f64::max);
            best = (0..k).map(|b| step(b) + h[t * k + b] as f64).collect();
        }
        best.into_iter().fold(f64::NEG_INFINITY, f64::max)
    }

    #[test]
    fn long_chains_agree_with_plain_viterbi_and_with_a_reused_scratch() {
        let chain = Chain::new(20, 11).unwrap();
        let mut scratch = chain.scratch();
        for case in 0..500 {
            let random = &mut Random::new(41, case);
            let values = Values::ALL[random.below(5)];
            let h = values.vector(chain.potentials(), random);
            let mut z = vec![0; 20];
            let expected = viterbi(20, 11, &h);
            match chain.argmax(&h, &mut z, &mut scratch) {
                Ok(found) => brute_force::check_maximum(&chain, &h, &z, found, expected, &(case, values)),
                Err(_) => assert_eq!(expected, f64::NEG_INFINITY),
            }
        }
    }

    #[test]
    fn samples_follow_the_gibbs_distribution() {
        let chain = Chain::new(4, 3).unwrap();
        let mut h = Values::Normal.vector(chain.potentials(), &mut Random::new(42, 0));
        brute_force::check_samples(&chain, &h, 100_000, 43);
        [0, 7, 13, 20, 33].iter().for_each(|i| h[*i] = f32::NEG_INFINITY);
        brute_force::check_samples(&chain, &h, 100_000, 44);
    }

    #[test]
    fn a_uniform_chain_of_any_length_has_uniform_marginals() {
        // Products of K^T terms would leave every f64 behind.
        let chain = Chain::new(3000, 7).unwrap();
        let mut marginals = vec![0.0; chain.potentials()];
        let log_partition = chain.marginals(&vec![-2.0; chain.potentials()], &mut marginals).unwrap();
        let expected = chain.ln_states() - 2.0 * 5999.0;
        assert!((log_partition - expected).abs() < 1e-3, "{log_partition}, {expected}");
        let (unary, pairs) = marginals.split_at(chain.unary());
        assert!(unary.iter().all(|m| (m - 1.0 / 7.0).abs() < 1e-6));
        assert!(pairs.iter().all(|m| (m - 1.0 / 49.0).abs() < 1e-6));
    }

    #[test]
    fn batches_noise_and_bad_input() {
        let chain = Chain::new(2, 2).unwrap();
        let h = [0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 2.0];
        let mut z = [0; 4];
        argmax_batch(&chain, &[h, h].concat(), &mut z).unwrap();
        assert_eq!(z, [1; 4]);
        perturbed_argmax(&chain, &h, &[9.0, 0.0, 0.5, 0.0], &mut z[..2]).unwrap();
        assert_eq!(z[..2], [0, 0]);
        let nan = [h, [f32::NAN; 8]].concat();
        let message = argmax_batch(&chain, &nan, &mut z).unwrap_err().to_string();
        assert_eq!(message, "example 1 of the batch: potential 0 is NaN: expected a finite number");
        assert!(argmax_batch(&chain, &[f32::NEG_INFINITY; 16], &mut z).is_err());
        assert!(argmax_batch(&chain, &[0.0; 15], &mut z).is_err());
        argmax_batch(&Chain::new(0, 2).unwrap(), &[], &mut []).unwrap();
        for (variables, values) in [(0, 0), (2, 0), (usize::MAX, 2), (1 << 20, 1 << 20), (2, usize::MAX)] {
            assert!(Chain::new(variables, values).is_err());
        }
    }
}
