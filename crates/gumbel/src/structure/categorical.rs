//! One K-way variable, or a product of n independent ones.
//!
//! `h(z) = sum_i potentials[i, z_i]`: the potentials are `[n, K]`, all of them unary, the statistics are one-hot rows.
//! Everything splits into n softmaxes. Complexity of every operation: O(n K). Binary variables are K = 2. `-inf`
//! forbids a value; each variable needs one that is allowed.
//!
//! With a Gumbel variable added to each potential the arg max is an exact sample (Gumbel-Max).
//!
//! Reference: Maddison, Tarlow, Minka, "A* sampling", NeurIPS 2014 (Gumbel-Max and its history).
//!
//! Enumeration order: mixed radix with the last variable fastest, `index = ((z_1 K + z_2) K + ...) K + z_n`.

use super::latent::LatentEntry;
use super::moves;
use super::precise::{self, Real};
use super::{Code, Maximum, Move, Precise, PreciseSums, Structure, Sums, add, check_numbers};
use crate::Error;
use crate::math;
use rand_chacha::rand_core::Rng;
use std::ops::Range;

/// A product of `n` categorical variables with `K` values each.
///
/// ```
/// use gumbel::structure::{Categorical, Structure, Sums};
/// let z = Categorical::product(2, 3)?; // two variables, three values
/// let mut best = [0; 2];
/// let maximum = z.argmax(&[0.0, 1.0, 0.5, 2.0, -1.0, 0.0], &mut best, &mut ())?;
/// assert_eq!((best, maximum.value), ([1, 0], 3.0));
/// assert!((z.log_partition(&[0.0; 6])? - 9f64.ln()).abs() < 1e-6);
/// # Ok::<(), gumbel::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Categorical {
    variables: usize,
    values: usize,
}

impl Categorical {
    /// The largest `n * K`.
    pub const MAX_POTENTIALS: usize = 1 << 24;

    /// One variable with `values` >= 1 values.
    ///
    /// # Errors
    ///
    /// No value, or more than [`MAX_POTENTIALS`](Categorical::MAX_POTENTIALS).
    pub fn new(values: usize) -> Result<Self, Error> {
        Categorical::product(1, values)
    }

    /// `variables` >= 1 independent variables with `values` >= 1 values each.
    ///
    /// # Errors
    ///
    /// No variable, no value, or more than [`MAX_POTENTIALS`](Categorical::MAX_POTENTIALS) of both.
    pub fn product(variables: usize, values: usize) -> Result<Self, Error> {
        let expected = || format!("at least 1, and n * K at most {}", Self::MAX_POTENTIALS);
        if variables == 0 {
            return Err(Error::range("variables", variables, expected()));
        }
        if values == 0 || variables.checked_mul(values).is_none_or(|p| p > Self::MAX_POTENTIALS) {
            return Err(Error::range("values", values, expected()));
        }
        Ok(Categorical { variables, values })
    }

    /// `variables` independent binary variables.
    ///
    /// # Errors
    ///
    /// No variable, or too many.
    pub fn binary(variables: usize) -> Result<Self, Error> {
        Categorical::product(variables, 2)
    }

    /// Number of values of each variable, K.
    pub fn values(&self) -> usize {
        self.values
    }

    /// The potentials of a variable.
    fn range(&self, variable: usize) -> Range<usize> {
        variable * self.values..(variable + 1) * self.values
    }

    /// The softmax of one variable's potentials, in f64; returns its log-partition.
    fn softmax<T: Real>(
        &self,
        potentials: &[T],
        variable: usize,
        mut each: impl FnMut(usize, f64),
    ) -> Result<f64, Error> {
        let block = &potentials[self.range(variable)];
        let max = block.iter().fold(f64::NEG_INFINITY, |max, v| max.max(v.wide()));
        if max == f64::NEG_INFINITY {
            return Err(forbidden(variable));
        }
        let sum: f64 = block.iter().map(|v| (v.wide() - max).exp()).sum();
        block.iter().enumerate().for_each(|(k, v)| each(k, (v.wide() - max).exp() / sum));
        Ok(max + sum.ln())
    }

    fn marginals_of<T: Real>(&self, potentials: &[T], marginals: &mut [f32]) -> Result<f64, Error> {
        check_numbers("potential", potentials)?;
        let mut total = 0.0;
        for i in 0..self.variables {
            let start = self.range(i).start;
            total += self.softmax(potentials, i, |k, q| marginals[start + k] = q as f32)?;
        }
        Ok(total)
    }
}

fn forbidden(variable: usize) -> Error {
    Error::Infeasible { detail: format!("all potentials of variable {variable} are -inf") }
}

impl Structure for Categorical {
    type Scratch = ();

    fn potentials(&self) -> usize {
        self.variables * self.values
    }

    fn unary(&self) -> usize {
        self.potentials()
    }

    fn variables(&self) -> usize {
        self.variables
    }

    fn ln_states(&self) -> f64 {
        self.variables as f64 * (self.values as f64).ln()
    }

    fn states(&self) -> Option<usize> {
        self.values.checked_pow(u32::try_from(self.variables).ok()?)
    }

    fn state(&self, mut index: usize, assignment: &mut [u32]) {
        for z in assignment.iter_mut().rev() {
            *z = (index % self.values) as u32;
            index /= self.values;
        }
    }

    fn code(&self) -> Code {
        Code::OneHot { values: self.values }
    }

    fn block(&self, variable: usize) -> Option<Range<usize>> {
        Some(self.range(variable))
    }

    fn scratch(&self) {}

    fn argmax(&self, potentials: &[f32], assignment: &mut [u32], _: &mut ()) -> Result<Maximum, Error> {
        check_numbers("potential", potentials)?;
        let mut value = 0.0;
        for (i, (block, z)) in potentials.chunks_exact(self.values).zip(assignment.iter_mut()).enumerate() {
            let best = math::argmax(block).expect("a variable has at least one value");
            if block[best] == f32::NEG_INFINITY {
                return Err(forbidden(i));
            }
            *z = best as u32;
            value += block[best] as f64;
        }
        Ok(Maximum::proved(value))
    }

    fn moves(&self, potentials: &[f32], assignment: &[u32], moves: &mut Vec<Move>) {
        for (i, (block, z)) in potentials.chunks_exact(self.values).zip(assignment).enumerate() {
            let present = block[*z as usize] as f64;
            let others = block.iter().enumerate().filter(|(k, _)| *k != *z as usize);
            moves::best(moves, i, others.map(|(k, h)| (k, *h as f64 - present)));
        }
    }

    fn add_statistics(&self, assignment: &[u32], scale: f32, out: &mut [f32]) {
        for (block, z) in out.chunks_exact_mut(self.values).zip(assignment) {
            block[*z as usize] += scale;
        }
    }

    fn add_weighted_statistics(&self, weights: &[f32], out: &mut [f32], assignment: &mut [u32], _: &mut ()) {
        if self.variables == 1 {
            return add(out, weights, 1.0);
        }
        for (index, weight) in weights.iter().enumerate() {
            self.state(index, assignment);
            self.add_statistics(assignment, *weight, out);
        }
    }

    /// One variable after the other: O(|Z|).
    fn scores(&self, potentials: &[f32], scores: &mut [f32]) {
        // Beginning with the last variable, which changes fastest: the scores of those behind a variable, once for each
        // of its values.
        let mut filled = 1;
        scores[0] = 0.0;
        for block in potentials.chunks_exact(self.values).rev() {
            let (behind, others) = scores.split_at_mut(filled);
            for (out, h) in others.chunks_exact_mut(filled).zip(&block[1..]) {
                out.iter_mut().zip(&*behind).for_each(|(out, score)| *out = score + h);
            }
            behind.iter_mut().for_each(|score| *score += block[0]);
            filled *= self.values;
        }
    }

    fn score(&self, potentials: &[f32], assignment: &[u32]) -> f64 {
        let blocks = potentials.chunks_exact(self.values).zip(assignment);
        blocks.map(|(block, z)| block[*z as usize] as f64).sum()
    }
}

/// Comparisons only: always proved.
impl Precise for Categorical {
    fn argmax_precise(&self, potentials: &[f64], assignment: &mut [u32], _: &mut ()) -> Result<Maximum, Error> {
        check_numbers("potential", potentials)?;
        let mut value = 0.0;
        for (i, (block, z)) in potentials.chunks_exact(self.values).zip(assignment.iter_mut()).enumerate() {
            let max = block.iter().copied().fold(f64::NEG_INFINITY, |max, h| if h > max { h } else { max });
            if max == f64::NEG_INFINITY {
                return Err(forbidden(i));
            }
            *z = block.iter().position(|h| *h == max).expect("it is there") as u32;
            value += max;
        }
        if assignment.len() == 1 {
            return Ok(Maximum::proved(value));
        }
        let blocks = potentials.chunks_exact(self.values).zip(assignment);
        Ok(Maximum::proved(precise::careful(value, potentials, blocks.map(|(block, z)| block[*z as usize]))))
    }
}

impl PreciseSums for Categorical {
    fn marginals_precise(&self, potentials: &[f64], marginals: &mut [f32]) -> Result<f64, Error> {
        self.marginals_of(potentials, marginals)
    }
}

impl Sums for Categorical {
    fn marginals(&self, potentials: &[f32], marginals: &mut [f32]) -> Result<f64, Error> {
        self.marginals_of(potentials, marginals)
    }

    /// For one variable: `KL = sum_k q_k ln(K q_k)`, gradient `q_k (ln(K q_k) - KL)`.
    #[inline(always)]
    fn kl_to_uniform(&self, potentials: &[f32], scale: f32, gradient: &mut [f32]) -> Result<f64, Error> {
        check_numbers("potential", potentials)?;
        let ln_values = (self.values as f64).ln();
        let mut total = 0.0;
        for i in 0..self.variables {
            let block = &potentials[self.range(i)];
            let max = block.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            if max == f32::NEG_INFINITY {
                return Err(forbidden(i));
            }
            // With x_k = h_k - max: ln q_k = x_k - ln sum exp(x), so that KL = E[x] - ln sum exp(x) + ln K, and the
            // gradient is q_k (x_k - E[x]). A forbidden value has q = 0, which must not meet an infinite x.
            let x = |h: f32| (h - max).max(f32::MIN);
            let [mut sums, mut means] = [[0.0f64; 8]; 2];
            let each = |l: usize, h: f32, sums: &mut [f64; 8], means: &mut [f64; 8]| {
                let e = math::exp_nonpositive(x(h)) as f64;
                sums[l] += e;
                means[l] += e * x(h) as f64;
            };
            let (eights, rest) = block.as_chunks::<8>();
            for eight in eights {
                (0..8).for_each(|l| each(l, eight[l], &mut sums, &mut means));
            }
            rest.iter().enumerate().for_each(|(l, h)| each(l, *h, &mut sums, &mut means));
            let sum: f64 = sums.iter().sum();
            let mean = means.iter().sum::<f64>() / sum;
            if scale != 0.0 {
                let (scale, mean) = (scale / sum as f32, mean as f32);
                for (g, h) in gradient[self.range(i)].iter_mut().zip(block) {
                    *g += scale * math::exp_nonpositive(x(*h)) * (x(*h) - mean);
                }
            }
            total += mean - sum.ln() + ln_values;
        }
        Ok(total)
    }

    /// For one variable: `q_k (d_k - E[d])`, with d counted from that of the likeliest value: where q is nearly
    /// one-hot, a mean of d itself would drown what the others have.
    fn covariance(&self, potentials: &[f32], direction: &[f32], scale: f32, out: &mut [f32]) -> Result<(), Error> {
        check_numbers("potential", potentials)?;
        check_numbers("direction", direction)?;
        for i in 0..self.variables {
            let range = self.range(i);
            let (d, out) = (&direction[range.clone()], &mut out[range.clone()]);
            let origin = math::argmax(&potentials[range]).map_or(0.0, |likeliest| d[likeliest] as f64);
            let (mut mean, scale) = (0.0, scale as f64);
            self.softmax(potentials, i, |k, q| mean += q * (d[k] as f64 - origin))?;
            self.softmax(potentials, i, |k, q| out[k] += (scale * q * (d[k] as f64 - origin - mean)) as f32)?;
        }
        Ok(())
    }

    fn sample<R: Rng>(&self, potentials: &[f32], generator: &mut R, assignment: &mut [u32]) -> Result<(), Error> {
        check_numbers("potential", potentials)?;
        for (i, z) in assignment.iter_mut().enumerate() {
            // 53 random bits: uniform in [0, 1).
            let mut left = (generator.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64);
            let mut chosen = None;
            self.softmax(potentials, i, |k, q| {
                if q > 0.0 && left >= 0.0 {
                    chosen = Some(k as u32); // rounding may leave a rest: then the last possible value stands
                    left -= q;
                }
            })?;
            *z = chosen.ok_or_else(|| forbidden(i))?;
        }
        Ok(())
    }
}

/// `categorical:K` and `categorical:NxK` in the registry.
pub(super) fn entry() -> LatentEntry {
    LatentEntry::new("categorical", "K or NxK", "one variable with K values, or N independent ones", |sizes| {
        let (variables, values) = match sizes.as_str().contains('x') {
            true => sizes.pair('x')?,
            false => (1, sizes.whole(sizes.as_str())?),
        };
        sizes.informative(variables, values)?;
        sizes.at_most(variables.checked_mul(values))?;
        let text = if variables == 1 { values.to_string() } else { format!("{variables}x{values}") };
        Ok((Categorical::product(variables, values).map_err(|e| sizes.explain(e))?.into(), text))
    })
}

/// `binary:N` in the registry.
pub(super) fn binary_entry() -> LatentEntry {
    LatentEntry::new("binary", "N", "N independent variables with two values", |sizes| {
        let n = sizes.whole(sizes.as_str())?;
        sizes.informative(n, 2)?;
        sizes.at_most(n.checked_mul(2))?;
        Ok((Categorical::binary(n).map_err(|e| sizes.explain(e))?.into(), n.to_string()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::{Noise, Purpose};
    use crate::structure::brute_force::{self, Random, Values};
    use crate::structure::{argmax_batch, perturbed_argmax};

    #[test]
    fn agrees_with_brute_force() {
        for case in 0..brute_force::cases() {
            let random = &mut Random::new(0, case);
            let c = Categorical::product(1 + random.below(3), 1 + random.below(4)).unwrap();
            let values = Values::ALL[random.below(5)];
            let potentials = values.vector(c.potentials(), random);
            let what = (case, values, c);
            brute_force::check_argmax(&c, &potentials, &mut (), &what);
            brute_force::check_sums(&c, &potentials, &what);
            if values != Values::Extreme {
                brute_force::check_kl(&c, &potentials, &what);
                brute_force::check_covariance(&c, &potentials, &what);
            }
            let mut scores = vec![0.0; c.states().unwrap()];
            c.scores(&potentials, &mut scores);
            let best = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max) as f64;
            let max = brute_force::enumerate(&c, &potentials).max;
            // Sums in f32: large potentials that cancel leave an error of their own size.
            assert!(best == max || (best - max).abs() <= 1e-6 * brute_force::magnitude(&potentials), "{what:?}");
        }
    }

    #[test]
    fn entropy_and_kl_are_consistent_and_the_gradient_is_right() {
        let c = Categorical::product(3, 4).unwrap();
        let mut h = vec![0.0; 12];
        Noise::new(2, Purpose::User(0), 0).gumbel(&mut h);
        let mut gradient = vec![0.0; 12];
        let kl = c.kl_to_uniform(&h, 2.0, &mut gradient).unwrap();
        assert!((kl - (c.ln_states() - c.entropy(&h).unwrap())).abs() < 1e-5);
        for i in 0..12 {
            let at = |d: f32| {
                let mut x = h.clone();
                x[i] += d;
                c.kl_to_uniform(&x, 0.0, &mut []).unwrap()
            };
            let numeric = 2.0 * (at(1e-2) - at(-1e-2)) / 2e-2;
            assert!((numeric - gradient[i] as f64).abs() < 1e-3, "{i}: {numeric} {}", gradient[i]);
        }
        // A forbidden value has probability zero and takes no part.
        let kl = Categorical::new(2).unwrap().kl_to_uniform(&[0.0, f32::NEG_INFINITY], 1.0, &mut gradient[..2]);
        assert!((kl.unwrap() - 2f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn samples_and_perturbed_argmax_follow_the_softmax() {
        let c = Categorical::new(5).unwrap();
        let h = [0.3, -1.0, 1.2, f32::NEG_INFINITY, 0.0];
        let mut q = [0.0; 5];
        c.marginals(&h, &mut q).unwrap();
        let draws = 100_000;
        let chi2 = |counts: [usize; 5]| -> f64 {
            assert_eq!(counts[3], 0);
            let expected = q.map(|q| q as f64 * draws as f64);
            (0..5).filter(|k| *k != 3).map(|k| (counts[k] as f64 - expected[k]).powi(2) / expected[k]).sum()
        };

        let mut generator = Noise::new(11, Purpose::User(1), 0).generator_at(0);
        let mut counts = [0; 5];
        let mut z = [0];
        for _ in 0..draws {
            c.sample(&h, &mut generator, &mut z).unwrap();
            counts[z[0] as usize] += 1;
        }
        assert!(chi2(counts) < 16.27, "sampling: {counts:?}"); // p = 0.001, 3 degrees of freedom

        let mut noise = vec![0.0; 5 * draws];
        Noise::new(11, Purpose::User(2), 0).gumbel(&mut noise);
        let mut assignment = vec![0; draws];
        perturbed_argmax(&c, &h.repeat(draws), &noise, &mut assignment).unwrap();
        let mut counts = [0; 5];
        assignment.iter().for_each(|z| counts[*z as usize] += 1);
        assert!(chi2(counts) < 16.27, "Gumbel-Max: {counts:?}");
    }

    #[test]
    fn bad_input_is_an_error() {
        assert!(Categorical::new(0).is_err());
        assert!(Categorical::product(0, 2).is_err());
        assert!(Categorical::product(usize::MAX, 2).is_err());
        let c = Categorical::new(3).unwrap();
        let mut z = [0];
        let nan = c.argmax(&[0.0, f32::NAN, 1.0], &mut z, &mut ()).unwrap_err();
        assert_eq!(nan, Error::NotANumber { what: "potential", index: 1 });
        let inf = c.argmax(&[0.0, 0.0, f32::INFINITY], &mut z, &mut ()).unwrap_err();
        assert_eq!(inf, Error::PositiveInfinity { what: "potential", index: 2 });
        assert!(c.argmax(&[f32::NEG_INFINITY; 3], &mut z, &mut ()).is_err());
        let in_batch = argmax_batch(&c, &[0.0, 0.0, 0.0, f32::NAN, 0.0, 0.0], &mut [0, 0]).unwrap_err();
        assert_eq!(in_batch.to_string(), "example 1 of the batch: potential 0 is NaN: expected a finite number");
        assert!(argmax_batch(&c, &[0.0; 4], &mut [0, 0]).is_err());
        assert!(argmax_batch(&c, &[0.0; 6], &mut [0]).is_err());
    }

    #[test]
    fn a_single_value_and_huge_products_are_defined() {
        let one = Categorical::product(3, 1).unwrap();
        let mut z = [7; 3];
        assert_eq!(one.argmax(&[-1.0, 0.0, 2.0], &mut z, &mut ()).unwrap().value, 1.0);
        assert_eq!((z, one.states()), ([0; 3], Some(1)));
        assert_eq!(Categorical::binary(1000).unwrap().states(), None);
    }
}
