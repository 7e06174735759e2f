//! Seeded, counter-based random numbers: uniform, Gumbel and normal.
//!
//! Every number is a function of (seed, purpose, index, position), never of the order in which numbers were drawn or of
//! the number of threads: what a training step draws depends on the step alone, so that a run resumed at step `t` draws
//! what an uninterrupted run would have drawn. The generator is ChaCha with 8 rounds; purpose and seed make its key,
//! the index its stream, the position its block counter.

use crate::math::ln_positive;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rayon::prelude::*;

/// The Euler-Mascheroni constant: the mean of a standard Gumbel variable.
pub const EULER_GAMMA: f32 = 0.577_215_7;

/// What random numbers are for. Different purposes never share a number, whatever the seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Initial network parameters.
    Init,
    /// Order of the training examples; the index is the epoch.
    Shuffle,
    /// Gumbel noise of training; the index is the step.
    Noise,
    /// Gumbel noise of evaluation.
    Evaluation,
    /// Pictures: samples and which examples to show.
    Picture,
    /// Gaussian codes of training; the index is the step.
    Gaussian,
    /// Units that dropout leaves out; the index is the step.
    Dropout,
    /// Which images have a label, and their order; the index is the pass.
    Labels,
    /// Gumbel noise, Gaussian codes and dropout of steps on labelled images; the index is the step, times three.
    Labelled,
    /// Draws that are compared with an exact gradient.
    Diagnosis,
    /// Anything a user of the library wants to draw.
    User(u32),
}

impl Purpose {
    fn code(self) -> u64 {
        match self {
            Purpose::Init => 1,
            Purpose::Shuffle => 2,
            Purpose::Noise => 3,
            Purpose::Evaluation => 4,
            Purpose::Picture => 5,
            Purpose::Gaussian => 6,
            Purpose::Dropout => 7,
            Purpose::Labels => 8,
            Purpose::Labelled => 9,
            Purpose::Diagnosis => 10,
            Purpose::User(n) => (1 << 32) | n as u64,
        }
    }
}

/// One stream of random numbers.
///
/// ```
/// use gumbel::noise::{Noise, Purpose};
/// let noise = Noise::new(7, Purpose::Noise, 42); // seed 7, training step 42
/// let (mut a, mut b) = ([0.0; 8], [0.0; 4]);
/// noise.gumbel(&mut a);
/// noise.gumbel(&mut b);
/// assert_eq!(a[..4], b); // a function of the position
/// ```
#[derive(Debug, Clone)]
pub struct Noise {
    generator: ChaCha8Rng,
    /// Position of the first number, in words.
    origin: u128,
}

/// Numbers in one piece of parallel work. A multiple of the 16 words of a ChaCha block.
const CHUNK: usize = 4096;

impl Noise {
    /// The stream of (seed, purpose, index).
    pub fn new(seed: u64, purpose: Purpose, index: u64) -> Self {
        let mut key = [0u8; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&purpose.code().to_le_bytes());
        key[16..22].copy_from_slice(b"gumbel");
        let mut generator = ChaCha8Rng::from_seed(key);
        generator.set_stream(index);
        Noise { generator, origin: 0 }
    }

    /// The part of this stream that belongs to one row of a batch: 2^32 numbers from position `row * 2^32` on.
    pub fn at_row(&self, row: usize) -> Noise {
        self.at((row as u64) << 32)
    }

    /// This stream from `position` (counted in 32-bit words) on.
    pub fn at(&self, position: u64) -> Noise {
        Noise { origin: self.origin + position as u128, generator: self.generator.clone() }
    }

    /// A generator whose next number is the one at `position` (counted in 32-bit words).
    pub fn generator_at(&self, position: u64) -> ChaCha8Rng {
        let mut generator = self.generator.clone();
        generator.set_word_pos(self.origin + position as u128);
        generator
    }

    /// Fills `out` with standard Gumbel variables of mean [`EULER_GAMMA`]; all are finite.
    #[inline(always)]
    pub fn gumbel(&self, out: &mut [f32]) {
        self.fill(out, gumbel_from_bits);
    }

    /// Fills `out` with Gumbel variables shifted to mean zero.
    pub fn zero_mean_gumbel(&self, out: &mut [f32]) {
        self.fill(out, |bits| gumbel_from_bits(bits) - EULER_GAMMA);
    }

    /// Fills `out` with uniform variables strictly between 0 and 1.
    pub fn uniform(&self, out: &mut [f32]) {
        self.fill(out, uniform_from_bits);
    }

    /// Fills `out` with standard normal variables, from two uniform ones each (Box and Muller, 1958).
    pub fn normal(&self, out: &mut [f32]) {
        for (c, chunk) in out.chunks_mut(CHUNK).enumerate() {
            let mut uniform = [0.0; 64];
            for (p, part) in chunk.chunks_mut(32).enumerate() {
                let uniform = &mut uniform[..2 * part.len()];
                self.at((2 * (c * CHUNK + p * 32)) as u64).uniform(uniform);
                for (x, pair) in part.iter_mut().zip(uniform.chunks_exact(2)) {
                    *x = (-2.0 * pair[0].ln()).sqrt() * (std::f32::consts::TAU * pair[1]).cos();
                }
            }
        }
    }

    /// A uniformly random permutation of `0..count` (Fisher-Yates).
    pub fn permutation(&self, count: usize) -> Vec<u32> {
        assert!(count <= u32::MAX as usize, "a permutation of {count} indices does not fit into 32 bits");
        let mut generator = self.generator_at(0);
        let mut order: Vec<u32> = (0..count as u32).collect();
        for i in (1..count).rev() {
            order.swap(i, below(&mut generator, i as u64 + 1) as usize);
        }
        order
    }

    #[inline(always)]
    fn fill(&self, out: &mut [f32], f: impl Fn(u32) -> f32 + Sync) {
        let fill_chunk = |(c, chunk): (usize, &mut [f32])| {
            let mut generator = self.generator_at((c * CHUNK) as u64);
            // First the bits, then the numbers: the second loop is vectorised.
            let mut bits = [0; 64];
            for part in chunk.chunks_mut(bits.len()) {
                let bits = &mut bits[..part.len()];
                bits.iter_mut().for_each(|b| *b = generator.next_u32());
                part.iter_mut().zip(bits).for_each(|(v, b)| *v = f(*b));
            }
        };
        if out.len() <= CHUNK {
            fill_chunk((0, out));
        } else {
            out.par_chunks_mut(CHUNK).enumerate().for_each(fill_chunk);
        }
    }
}

/// A uniform integer in `0..bound` without modulo bias (Lemire's multiplication method with rejection).
pub fn below(generator: &mut impl Rng, bound: u64) -> u64 {
    assert!(bound > 0, "the range 0..0 is empty");
    loop {
        let product = generator.next_u64() as u128 * bound as u128;
        let low = product as u64;
        if low >= bound || low >= bound.wrapping_neg() % bound {
            return (product >> 64) as u64;
        }
    }
}

/// A uniform number in `[0, 1)` of 53 random bits.
pub(crate) fn uniform_f64(generator: &mut impl Rng) -> f64 {
    (generator.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

/// Maps 32 random bits to a uniform variable in [2^-24, 1 - 2^-24]: never 0, never 1.
#[inline]
pub fn uniform_from_bits(bits: u32) -> f32 {
    // 23 bits and a half: both ends and every value between are exact in f32.
    ((bits >> 9) as i32 as f32 + 0.5) * (1.0 / (1 << 23) as f32)
}

/// Maps 32 random bits to a standard Gumbel variable `-ln(-ln U)`, in about [-2.82, 16.64]: always finite.
#[inline]
pub fn gumbel_from_bits(bits: u32) -> f32 {
    -ln_positive(-ln_positive(uniform_from_bits(bits)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_generator_output_gives_a_finite_gumbel() {
        // uniform_from_bits drops the low 9 bits, so these 2^23 cases are all that exist.
        for high in 0..1u32 << 23 {
            let u = uniform_from_bits(high << 9);
            assert!(u > 0.0 && u < 1.0);
            assert!(gumbel_from_bits(high << 9 | 0x1ff).is_finite());
        }
    }

    #[test]
    fn moments_are_those_of_the_gumbel_distribution() {
        let mut x = vec![0.0; 400_000];
        Noise::new(1, Purpose::Noise, 0).zero_mean_gumbel(&mut x);
        let n = x.len() as f64;
        let mean = x.iter().map(|v| *v as f64).sum::<f64>() / n;
        let variance = x.iter().map(|v| (*v as f64 - mean).powi(2)).sum::<f64>() / n;
        let expected = std::f64::consts::PI.powi(2) / 6.0;
        // Standard error of the mean: sqrt(1.645 / n); of the variance: sqrt((mu4 - var^2) / n), mu4 = 14.61.
        assert!(mean.abs() < 4.0 * (expected / n).sqrt(), "mean {mean}");
        assert!((variance - expected).abs() < 4.0 * ((14.61 - expected * expected) / n).sqrt(), "variance {variance}");
    }

    #[test]
    fn normal_variables_have_their_moments_and_places() {
        let mut x = vec![0.0; 400_000];
        let noise = Noise::new(2, Purpose::Gaussian, 0);
        noise.normal(&mut x);
        let n = x.len() as f64;
        let moment = |k: i32| x.iter().map(|v| (*v as f64).powi(k)).sum::<f64>() / n;
        // Variances of the powers: 1, 2, 15, 96.
        for (k, expected, variance) in [(1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)] {
            let found = moment(k);
            assert!((found - expected).abs() < 4.0 * (variance / n).sqrt(), "{k}: {found}");
        }
        let mut few = [0.0; 37];
        noise.normal(&mut few);
        assert_eq!(few, x[..37]);
    }

    #[test]
    fn numbers_do_not_depend_on_threads_or_length() {
        let noise = Noise::new(3, Purpose::Noise, 9);
        let draw = |threads, len| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut x = vec![0.0; len];
            pool.install(|| noise.gumbel(&mut x));
            x
        };
        let long = draw(1, 3 * CHUNK + 17);
        assert_eq!(long, draw(4, 3 * CHUNK + 17));
        assert_eq!(long[..CHUNK + 5], draw(2, CHUNK + 5));
        let (mut row, mut rest) = ([0.0; 4], [0.0; 4]);
        noise.at_row(3).gumbel(&mut row);
        let mut generator = noise.generator_at(3 << 32);
        rest.iter_mut().for_each(|v| *v = gumbel_from_bits(generator.next_u32()));
        assert_eq!(row, rest);
    }

    #[test]
    fn seed_purpose_and_index_all_matter() {
        let first = |seed, purpose, index| {
            let mut x = [0.0; 4];
            Noise::new(seed, purpose, index).uniform(&mut x);
            x
        };
        let base = first(0, Purpose::Noise, 0);
        assert_ne!(base, first(1, Purpose::Noise, 0));
        assert_ne!(base, first(0, Purpose::Shuffle, 0));
        assert_ne!(base, first(0, Purpose::Noise, 1));
        assert_ne!(first(0, Purpose::User(4), 0), first(0, Purpose::Evaluation, 0));
    }

    #[test]
    fn permutations_are_permutations_and_uniform() {
        let mut counts = [0usize; 24];
        for i in 0..24_000 {
            let p = Noise::new(5, Purpose::Shuffle, i).permutation(4);
            let mut sorted = p.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3]);
            let rank = p[0] * 6 + (1..4).filter(|&j| p[j] < p[1]).count() as u32 * 2 + (p[3] < p[2]) as u32;
            counts[rank as usize] += 1;
        }
        let chi2: f64 = counts.iter().map(|&c| (c as f64 - 1000.0).powi(2) / 1000.0).sum();
        assert!(chi2 < 49.7, "chi-square with 23 degrees of freedom is {chi2}"); // p = 0.001
        assert!(Noise::new(0, Purpose::Shuffle, 0).permutation(0).is_empty());
    }
}
