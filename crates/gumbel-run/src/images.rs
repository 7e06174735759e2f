//! A split of a data set as an engine reads it.

use gumbel::Error;
use gumbel::engine::{self, Shape};
use gumbel_data::{Binarization, DataError, Dataset, Images, Split};
use std::hash::{DefaultHasher, Hash, Hasher};

/// One split, made binary as one epoch sees it.
#[derive(Debug, Clone, Copy)]
pub struct SplitImages<'a> {
    images: &'a Images,
    binarization: Binarization,
    split: Split,
    epoch: u64,
}

impl<'a> SplitImages<'a> {
    /// The images of a split in an epoch from 1; in an evaluation, epoch 0.
    pub fn new(data: &'a Dataset, split: Split, binarization: Binarization, epoch: u64) -> Self {
        // Where nothing is drawn anew, all epochs are one.
        let epoch = if matches!(binarization, Binarization::Stochastic { .. }) { epoch } else { 0 };
        SplitImages { images: data.split(split), binarization, split, epoch }
    }

    /// Which split it is.
    pub fn split(&self) -> Split {
        self.split
    }
}

/// The size of a data set's images.
pub fn shape(data: &Dataset) -> Shape {
    let images = &data.train;
    Shape { height: images.height(), width: images.width(), channels: images.channels() }
}

fn failed(error: DataError) -> Error {
    Error::Failed { detail: error.to_string() }
}

impl engine::Images for SplitImages<'_> {
    fn count(&self) -> usize {
        self.images.count()
    }

    fn shape(&self) -> Shape {
        Shape { height: self.images.height(), width: self.images.width(), channels: self.images.channels() }
    }

    fn key(&self) -> u64 {
        let mut key = DefaultHasher::new();
        let pixels = self.images.pixels();
        // Where the pixels stand and some of them tell one data set from another, also where one takes the other's
        // place.
        (pixels.as_ptr() as usize, pixels.len(), self.split as u64, self.epoch).hash(&mut key);
        pixels.iter().step_by((pixels.len() / 64).max(1)).for_each(|pixel| pixel.hash(&mut key));
        match self.binarization {
            Binarization::Grey => 0,
            Binarization::Round => 1,
            Binarization::Static { seed } => seed.wrapping_mul(4).wrapping_add(2),
            Binarization::Stochastic { seed } => seed.wrapping_mul(4).wrapping_add(3),
        }
        .hash(&mut key);
        key.finish()
    }

    fn is_binary(&self) -> bool {
        self.binarization.is_binary()
    }

    fn fill(&self, indices: &[u32], out: &mut [f32]) -> Result<(), Error> {
        let indices: Vec<usize> = indices.iter().map(|i| *i as usize).collect();
        self.binarization.fill(self.images, self.split, self.epoch, &indices, out).map_err(failed)
    }

    fn bytes(&self) -> Result<Vec<u8>, Error> {
        self.binarization.binarize(self.images, self.split, self.epoch).map_err(failed)
    }
}
