//! Counter-based random numbers: every purpose has its own key, every image its own stream.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A family of independent generators, keyed by a purpose and three numbers; its members are the streams.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key([u8; 32]);

impl Key {
    /// `purpose` must be unique in the crate.
    pub fn new(purpose: &[u8; 8], seed: u64, a: u64, b: u64) -> Key {
        let mut key = [0; 32];
        key[..8].copy_from_slice(purpose);
        key[8..16].copy_from_slice(&seed.to_le_bytes());
        key[16..24].copy_from_slice(&a.to_le_bytes());
        key[24..].copy_from_slice(&b.to_le_bytes());
        Key(key)
    }

    /// The generator number `index`.
    pub fn stream(self, index: u64) -> Draws {
        let mut rng = ChaCha8Rng::from_seed(self.0);
        rng.set_stream(index);
        Draws(rng)
    }
}

/// Draws with the same bits on every machine.
#[derive(Debug)]
pub(crate) struct Draws(ChaCha8Rng);

impl Draws {
    /// True with probability `level / 255`, to within 2^-32.
    pub fn ink(&mut self, level: u8) -> bool {
        u64::from(self.0.next_u32()) * 255 < u64::from(level) << 32
    }

    /// Uniform in `[low, high)`, on a grid of 2^24 values.
    pub fn between(&mut self, low: f32, high: f32) -> f32 {
        let unit = (self.0.next_u32() >> 8) as f32 / (1 << 24) as f32;
        low + (high - low) * unit
    }

    /// Uniform in `0..n` (bias below `n / 2^64`).
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.0.next_u64()) * n as u128) >> 64) as usize
    }

    /// A uniformly random order of `0..n` (Fisher-Yates).
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for last in (1..n).rev() {
            order.swap(last, self.below(last + 1));
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permutation_is_one_and_is_fixed() {
        let draw = |stream| Key::new(b"test    ", 1, 2, 3).stream(stream).permutation(100);
        let mut sorted = draw(0);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<_>>());
        assert_eq!(draw(0), draw(0));
        assert_ne!(draw(0), draw(1));
    }

    #[test]
    fn ink_has_its_probability() {
        let mut draws = Key::new(b"test    ", 0, 0, 0).stream(0);
        assert!((0..1000).all(|_| !draws.ink(0) && draws.ink(255)));
        let n = 100_000;
        let hits = (0..n).filter(|_| draws.ink(51)).count() as f64;
        let deviation = (hits - 0.2 * n as f64) / (n as f64 * 0.16).sqrt();
        assert!(deviation.abs() < 4.0, "{deviation} standard deviations");
    }
}
