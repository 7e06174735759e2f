//! Sum-of-gamma noise (Niepert, Minervini, Franceschi, NeurIPS 2021, Theorem 1 and Section 5.2).
//!
//! ```text
//! noise_u = 1 / kappa (sum_{i = 1..s} Gamma(1 / kappa, kappa / i) - ln s)        independent for all u
//! ```
//!
//! with shape and scale of gamma variables. The sum of kappa of them is `sum_i E_i / i - ln s` with exponential E_i:
//! the largest of s exponential variables less ln s, which tends to a standard Gumbel variable as s grows. So the score
//! of an assignment whose code has kappa ones is perturbed by one Gumbel variable, as that of a state in Gumbel-Max;
//! but those of different assignments are not independent.
//!
//! The noise is a function of a key: whoever has the key has the noise. Gamma variables: Marsaglia, Tsang, "A simple
//! method for generating gamma variables", ACM TOMS 26, 2000.

use super::score;
use crate::Error;
use crate::noise::uniform_f64;
use crate::structure::{AnyStructure, Code, Structure};
use rand_chacha::rand_core::Rng;

/// Sum-of-gamma noise: of kappa of its variables the sum is nearly a standard Gumbel variable.
///
/// ```
/// use gumbel::estimator::SumOfGamma;
/// use gumbel::structure::Subset;
/// let kappa = SumOfGamma::ones(&Subset::new(10, 4)?.into())?;
/// let noise = SumOfGamma::new(kappa, 10)?;
/// let (mut once, mut again) = ([0.0; 10], [0.0; 10]);
/// let key = [0.3, -0.1, 0.7, 1.2, 0.0, 2.1, -0.8, 0.4]; // Gumbel variables of a piece
/// noise.fill(&key, &mut once);
/// noise.fill(&key, &mut again);
/// assert!(kappa == 4 && once == again && once[0] != once[1]);
/// # Ok::<(), gumbel::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SumOfGamma {
    kappa: u32,
    terms: u32,
}

/// The most kappa and terms.
pub(super) const MOST: u64 = 1_000_000;

impl SumOfGamma {
    /// Of `kappa` variables the sum is to be a Gumbel variable, but for the terms that are left out after `terms`.
    ///
    /// # Errors
    /// Numbers that are not from 1 to a million.
    pub fn new(kappa: u32, terms: u32) -> Result<Self, Error> {
        for (name, value) in [("kappa", kappa), ("terms", terms)] {
            if value == 0 || value as u64 > MOST {
                return Err(Error::range(name, value, format!("a whole number from 1 to {MOST}")));
            }
        }
        Ok(SumOfGamma { kappa, terms })
    }

    /// The number of ones of a code of the latent, where all have as many, else that of its variables; at least 1.
    ///
    /// # Errors
    /// Those of the arg max.
    pub fn ones(structure: &AnyStructure) -> Result<u32, Error> {
        let n = structure.variables();
        if structure.code() != Code::Indicators {
            return Ok(n.max(1) as u32);
        }
        // Indicators are all the potentials: the assignment with the most of them, and that with the fewest.
        let (mut z, mut code) = (vec![0; n], vec![0.0; structure.unary()]);
        let mut ones = [0; 2];
        for (ones, h) in ones.iter_mut().zip([1.0, -1.0]) {
            structure.argmax(&vec![h; structure.potentials()], &mut z, &mut structure.scratch())?;
            structure.encode(&z, &mut code);
            *ones = code.iter().filter(|c| **c != 0.0).count();
        }
        Ok(if ones[0] == ones[1] { ones[0] } else { n }.max(1) as u32)
    }

    /// Draws noise that is a function of the key, a few Gumbel variables, and of nothing else.
    pub fn fill(&self, key: &[f32], noise: &mut [f32]) {
        let mut generator = score::generator(key);
        let (kappa, gamma) = (self.kappa as f64, Gamma::new(1.0 / self.kappa as f64));
        for out in noise {
            // Largest terms last.
            let sum: f64 = (1..=self.terms).rev().map(|i| gamma.draw(&mut generator) * kappa / i as f64).sum();
            *out = ((sum - (self.terms as f64).ln()) / kappa) as f32;
        }
    }
}

/// Gamma variables of one shape, with scale 1.
struct Gamma {
    d: f64,
    c: f64,
    /// Of a shape below 1: that of shape + 1 times `U^boost`.
    boost: Option<f64>,
}

impl Gamma {
    fn new(shape: f64) -> Self {
        let boost = (shape < 1.0).then_some(1.0 / shape);
        let d = if boost.is_some() { shape + 1.0 } else { shape } - 1.0 / 3.0;
        Gamma { d, c: 1.0 / (9.0 * d).sqrt(), boost }
    }

    fn draw(&self, generator: &mut impl Rng) -> f64 {
        // In (0, 1]: it has a logarithm.
        let mut uniform = || 1.0 - uniform_f64(generator);
        let value = loop {
            let x = (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
            let v = (1.0 + self.c * x).powi(3);
            if v > 0.0 && uniform().ln() < 0.5 * x * x + self.d * (1.0 - v + v.ln()) {
                break self.d * v;
            }
        };
        self.boost.map_or(value, |boost| value * uniform().powf(boost))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::{Noise, Purpose};
    use crate::structure::{Arborescence, Categorical, Chain, Pairwise, Permutation, SpanningTree, Subset};

    #[test]
    fn gamma_variables_have_their_moments() {
        const DRAWS: usize = 200_000;
        let mut generator = Noise::new(3, Purpose::User(0), 0).generator_at(0);
        for shape in [0.05, 0.2, 0.5, 1.0, 1.7, 6.0] {
            let gamma = Gamma::new(shape);
            let mut sums = [0.0; 3];
            for _ in 0..DRAWS {
                let x = gamma.draw(&mut generator);
                assert!(x >= 0.0 && x.is_finite());
                (1..).zip(&mut sums).for_each(|(k, sum)| *sum += x.powi(k));
            }
            // E[X^k] = shape (shape + 1) ... (shape + k - 1)
            let moment = |k: i32| (0..k).map(|i| shape + i as f64).product::<f64>();
            for (k, sum) in (1..).zip(sums) {
                let (mean, error) = (moment(k), ((moment(2 * k) - moment(k).powi(2)) / DRAWS as f64).sqrt());
                assert!((sum / DRAWS as f64 - mean).abs() < 4.0 * error, "{shape}, {k}: {sum} {mean} {error}");
            }
        }
    }

    /// Kolmogorov and Smirnov's distance of a sample from a distribution.
    fn distance(mut x: Vec<f64>, distribution: impl Fn(f64) -> f64) -> f64 {
        x.sort_unstable_by(f64::total_cmp);
        let n = x.len() as f64;
        let at = |(i, x): (usize, &f64)| {
            let f = distribution(*x);
            (f - i as f64 / n).max((i + 1) as f64 / n - f)
        };
        x.iter().enumerate().map(at).fold(0.0, f64::max)
    }

    #[test]
    fn the_sum_of_kappa_of_them_is_the_largest_of_exponential_variables() {
        const SUMS: usize = 20_000;
        for (kappa, terms) in [(1, 10), (2, 1), (3, 10), (20, 10), (5, 100)] {
            let noise = SumOfGamma::new(kappa, terms).unwrap();
            let (mut key, mut x) = (vec![0.0; score::KEY], vec![0.0; kappa as usize]);
            let sums: Vec<f64> = (0..SUMS as u64)
                .map(|i| {
                    Noise::new(4, Purpose::User(kappa), i).gumbel(&mut key);
                    noise.fill(&key, &mut x);
                    x.iter().map(|x| *x as f64).sum()
                })
                .collect();
            let s = terms as f64;
            let largest = |x: f64| (1.0 - (-x).exp() / s).max(0.0).powf(s);
            // Beyond 1.95 / sqrt(n) with a probability of 0.001.
            let found = distance(sums.clone(), largest);
            assert!(found < 1.95 / (SUMS as f64).sqrt(), "{kappa}, {terms}: {found}");
            // A hundred terms are a Gumbel variable, as far as so many draws tell; ten are nearly one.
            let gumbel = distance(sums, |x| (-(-x).exp()).exp());
            assert_eq!(gumbel < 0.015, terms >= 100, "{kappa}, {terms}: {gumbel}");
        }
    }

    #[test]
    fn ones_are_those_of_a_code() {
        let all: [(AnyStructure, u32); 8] = [
            (Categorical::product(3, 4).unwrap().into(), 3),
            (Pairwise::new(5).unwrap().into(), 5),
            (Chain::new(4, 3).unwrap().into(), 4),
            (Subset::new(7, 3).unwrap().into(), 3),
            (Subset::new(7, 0).unwrap().into(), 1),
            (Permutation::new(4).unwrap().into(), 4),
            (SpanningTree::complete(5).unwrap().into(), 4),
            (Arborescence::new(5, 1).unwrap().into(), 4),
        ];
        for (structure, ones) in all {
            assert_eq!(SumOfGamma::ones(&structure).unwrap(), ones, "{structure:?}");
        }
        assert!(SumOfGamma::new(0, 10).is_err() && SumOfGamma::new(3, 0).is_err());
    }
}
