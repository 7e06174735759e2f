//! From grey levels to the zeros and ones that Bernoulli likelihoods are made for.

use std::fmt;
use std::str::FromStr;

use gumbel::registry::one_of;
use rayon::prelude::*;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::random::Key;
use crate::{DataError, Images, Split};

/// How grey levels become network inputs and targets.
///
/// Random modes draw each pixel from Bernoulli(pixel / 255) with a generator keyed by (seed, split, epoch) and with
/// one stream per image, so that the result depends neither on the batch an image is in nor on the number of threads.
/// Indices count from the start of the split: a limited split gives the same bits as the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binarization {
    /// No binarisation: `pixel / 255` in `[0, 1]`.
    Grey,
    /// 1 where `pixel / 255 >= 0.5`, that is `pixel >= 128`.
    Round,
    /// Drawn once: the same bits in each epoch.
    Static {
        /// Seed of the draws.
        seed: u64,
    },
    /// Drawn anew in each epoch.
    Stochastic {
        /// Seed of the draws.
        seed: u64,
    },
}

/// Below this many images a task is not worth handing to another thread.
const MIN_IMAGES_PER_TASK: usize = 8;

impl Binarization {
    /// The same mode with another seed; no change where there is none.
    #[must_use]
    pub fn with_seed(self, seed: u64) -> Binarization {
        match self {
            Binarization::Static { .. } => Binarization::Static { seed },
            Binarization::Stochastic { .. } => Binarization::Stochastic { seed },
            other => other,
        }
    }

    /// Are the values only 0 and 1?
    #[must_use]
    pub fn is_binary(self) -> bool {
        self != Binarization::Grey
    }

    /// Fills `out` `[indices.len(), images.dim()]` with the values of the images at `indices`.
    ///
    /// `split` is the split that `images` are (from the start); `epoch` matters to [`Binarization::Stochastic`] only.
    ///
    /// # Errors
    /// [`DataError::Argument`] if `out` has another length or an index is out of range; `out` is then unchanged.
    pub fn fill(
        self,
        images: &Images,
        split: Split,
        epoch: u64,
        indices: &[usize],
        out: &mut [f32],
    ) -> Result<(), DataError> {
        let dim = images.dim();
        if indices.len().checked_mul(dim) != Some(out.len()) {
            let expected = format!("{} x {dim} values", indices.len());
            return Err(DataError::argument("length of the batch", expected, out.len()));
        }
        if let Some(index) = indices.iter().find(|i| **i >= images.count()) {
            return Err(DataError::argument("image index", format!("less than {}", images.count()), index));
        }
        let pixels = images.pixels();
        out.par_chunks_mut(dim).with_min_len(MIN_IMAGES_PER_TASK).zip(indices).for_each(|(row, index)| {
            let image = &pixels[index * dim..(index + 1) * dim];
            match self.key(split, epoch) {
                None if self == Binarization::Grey => each(image, row, |level| f32::from(level) / 255.0),
                None => each(image, row, |level| f32::from(u8::from(level >= 128))),
                Some(key) => draw_row(key, *index, image, row),
            }
        });
        Ok(())
    }

    /// The bits of a whole split: 0 or 1, `[count, dim]`.
    ///
    /// # Errors
    /// [`DataError::Argument`] for [`Binarization::Grey`], which has no bits.
    pub fn binarize(self, images: &Images, split: Split, epoch: u64) -> Result<Vec<u8>, DataError> {
        if !self.is_binary() {
            return Err(DataError::argument("binarization", "round, static or stochastic", self));
        }
        let dim = images.dim();
        let mut out = vec![0; images.pixels().len()];
        out.par_chunks_mut(dim)
            .with_min_len(MIN_IMAGES_PER_TASK)
            .zip(images.pixels().par_chunks(dim))
            .enumerate()
            .for_each(|(index, (row, image))| match self.key(split, epoch) {
                None => each(image, row, |level| u8::from(level >= 128)),
                Some(key) => draw_row(key, index, image, row),
            });
        Ok(out)
    }

    /// The generator of the random modes.
    fn key(self, split: Split, epoch: u64) -> Option<Key> {
        match self {
            Binarization::Grey | Binarization::Round => None,
            Binarization::Static { seed } => Some(Key::new(b"bin-once", seed, split.number(), 0)),
            Binarization::Stochastic { seed } => Some(Key::new(b"bin-each", seed, split.number(), epoch)),
        }
    }
}

fn each<T>(image: &[u8], row: &mut [T], value: impl Fn(u8) -> T) {
    for (out, level) in row.iter_mut().zip(image) {
        *out = value(*level);
    }
}

/// Draws only where the level leaves a choice: most pixels are 0 or 255 and cost nothing.
fn draw_row<T: From<u8>>(key: Key, index: usize, image: &[u8], row: &mut [T]) {
    let mut draws = key.stream(index as u64);
    for (out, level) in row.iter_mut().zip(image) {
        *out = T::from(match level {
            0 => 0,
            255 => 1,
            level => u8::from(draws.ink(*level)),
        });
    }
}

/// Name, mode and help of each mode, in the order in which they are listed; seeds are 0.
const MODES: [(&str, Binarization, &str); 4] = [
    ("round", Binarization::Round, "1 where a level is at least one half"),
    ("static", Binarization::Static { seed: 0 }, "drawn once with the levels as probabilities"),
    ("stochastic", Binarization::Stochastic { seed: 0 }, "drawn anew in each epoch"),
    ("grey", Binarization::Grey, "the levels themselves, from 0 to 1"),
];

impl Binarization {
    /// The names of all modes, in the order in which they are listed.
    pub const NAMES: [&'static str; 4] = [MODES[0].0, MODES[1].0, MODES[2].0, MODES[3].0];

    /// The name, without the seed.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// One line of help.
    #[must_use]
    pub fn help(self) -> &'static str {
        self.row().2
    }

    fn row(self) -> (&'static str, Binarization, &'static str) {
        let unseeded = self.with_seed(0);
        MODES.into_iter().find(|(_, mode, _)| *mode == unseeded).expect("every mode has its row")
    }
}

impl fmt::Display for Binarization {
    /// The name, without the seed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Binarization {
    type Err = DataError;

    /// One of [`Binarization::NAMES`], in any case; the seed is 0.
    fn from_str(name: &str) -> Result<Binarization, DataError> {
        let wanted = name.trim().to_ascii_lowercase();
        let row = MODES.into_iter().find(|(name, ..)| *name == wanted);
        let error = || {
            let found: String = name.chars().take(60).collect();
            gumbel::Error::setting("binarization", format!("{found:?}"), one_of(&wanted, &Binarization::NAMES)).into()
        };
        row.map(|(_, mode, _)| mode).ok_or_else(error)
    }
}

impl Serialize for Binarization {
    /// As its name, without the seed.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Binarization {
    /// From its name; the seed is 0.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Binarization, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 40 images of 100 pixels with every grey level.
    fn ramp() -> Images {
        Images::new(10, 10, (0..4000).map(|i| (i % 256) as u8).collect(), None).unwrap()
    }

    #[test]
    fn names() {
        for ((name, mode, help), listed) in MODES.into_iter().zip(Binarization::NAMES) {
            assert_eq!(name.parse::<Binarization>().unwrap(), mode);
            assert_eq!((mode.with_seed(9).to_string().as_str(), mode.name(), mode.help()), (name, listed, help));
        }
        assert_eq!(" Stochastic".parse::<Binarization>().unwrap(), Binarization::Stochastic { seed: 0 });
        assert_eq!(
            "stocastic".parse::<Binarization>().unwrap_err().to_string(),
            "binarization = \"stocastic\": expected one of round, static, stochastic, grey (did you mean stochastic?)"
        );
        let error = "\n\u{1b}xyz".parse::<Binarization>().unwrap_err().to_string();
        assert!(!error.contains(char::is_control) && !error.contains("did you mean"), "{error}");
    }

    #[test]
    fn rounding_is_at_one_half() {
        let images = Images::new(1, 4, vec![0, 127, 128, 255], None).unwrap();
        assert_eq!(Binarization::Round.binarize(&images, Split::Test, 0).unwrap(), [0, 0, 1, 1]);
        let mut grey = [0.0; 4];
        Binarization::Grey.fill(&images, Split::Test, 0, &[0], &mut grey).unwrap();
        assert_eq!(grey, [0.0, 127.0 / 255.0, 128.0 / 255.0, 1.0]);
        assert!(Binarization::Grey.binarize(&images, Split::Test, 0).is_err());
    }

    #[test]
    fn colours_stay_beside_each_other() {
        let images = Images::with_channels(1, 2, 3, (0..18).map(|i| i * 15).collect(), None).unwrap();
        let mut batch = [9.0; 12];
        Binarization::Grey.fill(&images, Split::Test, 0, &[2, 0], &mut batch).unwrap();
        let levels: Vec<f32> = (12..18).chain(0..6).map(|i| i as f32 * 15.0 / 255.0).collect();
        assert_eq!(batch[..], levels);
    }

    #[test]
    fn batches_agree_with_the_whole_for_any_order_and_pool() {
        let images = ramp();
        for mode in [Binarization::Round, Binarization::Static { seed: 5 }, Binarization::Stochastic { seed: 5 }] {
            let whole = mode.binarize(&images, Split::Valid, 3).unwrap();
            let indices: Vec<usize> = (0..40).rev().chain([7, 7]).collect();
            for threads in [1, 3] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let mut batch = vec![9.0; indices.len() * 100];
                pool.install(|| mode.fill(&images, Split::Valid, 3, &indices, &mut batch)).unwrap();
                for (row, i) in batch.chunks(100).zip(&indices) {
                    let bits: Vec<f32> = whole[i * 100..(i + 1) * 100].iter().map(|b| f32::from(*b)).collect();
                    assert_eq!(row, bits);
                }
            }
            let limited = images.clone().take(10);
            assert_eq!(mode.binarize(&limited, Split::Valid, 3).unwrap(), whole[..1000]);
        }
    }

    #[test]
    fn keys_differ_where_they_should() {
        let images = ramp();
        let bits = |mode: Binarization, split, epoch| mode.binarize(&images, split, epoch).unwrap();
        let (fixed, fresh) = (Binarization::Static { seed: 1 }, Binarization::Stochastic { seed: 1 });
        assert_eq!(bits(fixed, Split::Train, 0), bits(fixed, Split::Train, 1));
        assert_ne!(bits(fresh, Split::Train, 0), bits(fresh, Split::Train, 1));
        assert_ne!(bits(fixed, Split::Train, 0), bits(fixed, Split::Test, 0));
        assert_ne!(bits(fixed, Split::Train, 0), bits(fixed.with_seed(2), Split::Train, 0));
        assert_ne!(bits(fixed, Split::Train, 0), bits(fresh, Split::Train, 0));
    }

    /// Pins the bits: stored runs must stay reproducible.
    #[test]
    fn bits_are_pinned() {
        let bits = Binarization::Static { seed: 1 }.binarize(&ramp(), Split::Train, 0).unwrap();
        let word = bits[100..].iter().take(64).fold(0u64, |word, bit| word << 1 | u64::from(*bit));
        assert_eq!(word, 3941457582738065);
    }

    #[test]
    fn means_match_the_levels() {
        let images = Images::new(100, 100, vec![64; 100_000], None).unwrap();
        let bits = Binarization::Stochastic { seed: 0 }.binarize(&images, Split::Train, 0).unwrap();
        let p = 64.0 / 255.0;
        let hits = bits.iter().map(|b| f64::from(*b)).sum::<f64>();
        assert!(((hits - p * 1e5) / (1e5 * p * (1.0 - p)).sqrt()).abs() < 4.0);
    }

    #[test]
    fn bad_arguments_are_errors() {
        let (images, mode) = (ramp(), Binarization::Round);
        assert!(mode.fill(&images, Split::Train, 0, &[0], &mut [0.0; 99]).is_err());
        assert!(mode.fill(&images, Split::Train, 0, &[40], &mut [0.0; 100]).is_err());
        assert!(mode.fill(&images, Split::Train, 0, &[], &mut []).is_ok());
        let empty = images.clone().take(0);
        assert_eq!(mode.binarize(&empty, Split::Train, 0).unwrap(), Vec::<u8>::new());
    }
}
