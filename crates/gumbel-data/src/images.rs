//! Images, splits and data sets in memory.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{DataError, DatasetName};

/// Which part of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// To fit parameters.
    Train,
    /// To choose hyper-parameters and the best epoch.
    Valid,
    /// To report.
    Test,
}

impl Split {
    /// All splits, in the order train, valid, test.
    pub const ALL: [Split; 3] = [Split::Train, Split::Valid, Split::Test];

    /// A stable number, part of the key of every generator that depends on the split.
    pub(crate) fn number(self) -> u64 {
        match self {
            Split::Train => 0,
            Split::Valid => 1,
            Split::Test => 2,
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Split::Train => "train",
            Split::Valid => "valid",
            Split::Test => "test",
        })
    }
}

/// Grey images of one size, with or without labels.
///
/// Pixels are bytes, row-major `[count, height * width]`; 255 is ink (bright), 0 is background.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    count: usize,
    height: usize,
    width: usize,
    pixels: Vec<u8>,
    labels: Option<Vec<u16>>,
}

impl Images {
    /// Images from `pixels` `[count, height * width]` and, where known, `labels` `[count]`.
    ///
    /// # Errors
    /// [`DataError::Argument`] if an image would be empty, the pixels are not a whole number of images, or the number
    /// of labels differs from the number of images.
    pub fn new(height: usize, width: usize, pixels: Vec<u8>, labels: Option<Vec<u16>>) -> Result<Images, DataError> {
        let dim = height.checked_mul(width).filter(|dim| *dim > 0).ok_or_else(|| {
            DataError::argument("image size", "height and width of at least 1", format!("{height}x{width}"))
        })?;
        if !pixels.len().is_multiple_of(dim) {
            return Err(DataError::argument("pixels", format!("a multiple of {dim}"), pixels.len()));
        }
        let count = pixels.len() / dim;
        if let Some(labels) = &labels
            && labels.len() != count
        {
            return Err(DataError::argument("labels", format!("{count}, one for each image"), labels.len()));
        }
        Ok(Images { count, height, width, pixels, labels })
    }

    /// Number of images.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Rows of an image.
    #[must_use]
    pub fn height(&self) -> usize {
        self.height
    }

    /// Columns of an image.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Pixels of an image: `height * width`.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.height * self.width
    }

    /// All pixels `[count, height * width]`.
    #[must_use]
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// All labels `[count]`, if the source has them.
    #[must_use]
    pub fn labels(&self) -> Option<&[u16]> {
        self.labels.as_deref()
    }

    /// The pixels `[height * width]` of one image; `None` beyond the last.
    #[must_use]
    pub fn image(&self, index: usize) -> Option<&[u8]> {
        let start = index.checked_mul(self.dim())?;
        self.pixels.get(start..start.checked_add(self.dim())?)
    }

    /// The label of one image; `None` beyond the last or without labels.
    #[must_use]
    pub fn label(&self, index: usize) -> Option<u16> {
        self.labels.as_ref()?.get(index).copied()
    }

    /// The first `count` images (all of them if there are fewer).
    #[must_use]
    pub fn take(mut self, count: usize) -> Images {
        let count = count.min(self.count);
        self.pixels.truncate(count * self.dim());
        self.pixels.shrink_to_fit();
        if let Some(labels) = &mut self.labels {
            labels.truncate(count);
        }
        self.count = count;
        self
    }

    /// Splits after the first `count` images.
    pub(crate) fn split_off(mut self, count: usize) -> (Images, Images) {
        let count = count.min(self.count);
        let tail = Images {
            count: self.count - count,
            height: self.height,
            width: self.width,
            pixels: self.pixels.split_off(count * self.dim()),
            labels: self.labels.as_mut().map(|labels| labels.split_off(count)),
        };
        (self.take(count), tail)
    }

    /// The images at `order`, in that order. Indices out of range are skipped.
    pub(crate) fn select(&self, order: &[usize]) -> Images {
        let order: Vec<usize> = order.iter().copied().filter(|i| *i < self.count).collect();
        let mut pixels = Vec::with_capacity(order.len() * self.dim());
        for image in order.iter().filter_map(|i| self.image(*i)) {
            pixels.extend_from_slice(image);
        }
        let labels = self.labels.as_ref().map(|labels| order.iter().map(|i| labels[*i]).collect());
        Images { count: order.len(), height: self.height, width: self.width, pixels, labels }
    }

    /// Share of pixels that are ink after rounding (`pixel >= 128`), in `[0, 1]`; 0 without images.
    #[must_use]
    pub fn mean_ink(&self) -> f64 {
        let ink = self.pixels.iter().filter(|p| **p >= 128).count();
        ink as f64 / self.pixels.len().max(1) as f64
    }
}

/// A named data set: three disjoint splits of images of the same size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    /// Which one.
    pub name: DatasetName,
    /// Where its images come from, in words, such as "chardata.mat".
    pub origin: String,
    /// Names of the classes; a label is an index into this list.
    pub classes: Vec<String>,
    /// Images to learn from.
    pub train: Images,
    /// Images to choose by.
    pub valid: Images,
    /// Images to report on.
    pub test: Images,
}

impl Dataset {
    /// The images of a split.
    #[must_use]
    pub fn split(&self, split: Split) -> &Images {
        match split {
            Split::Train => &self.train,
            Split::Valid => &self.valid,
            Split::Test => &self.test,
        }
    }

    /// Keeps the first `train` images of the training split and the first `eval` of the other two.
    #[must_use]
    pub fn limit(self, train: Option<usize>, eval: Option<usize>) -> Dataset {
        let (train, eval) = (train.unwrap_or(usize::MAX), eval.unwrap_or(usize::MAX));
        Dataset { train: self.train.take(train), valid: self.valid.take(eval), test: self.test.take(eval), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_checked() {
        assert!(Images::new(2, 2, vec![0; 7], None).is_err());
        assert!(Images::new(0, 2, vec![], None).is_err());
        assert!(Images::new(2, 2, vec![0; 8], Some(vec![1])).is_err());
        let images = Images::new(2, 2, (0..8).collect(), Some(vec![3, 4])).unwrap();
        assert_eq!(images.image(1), Some(&[4, 5, 6, 7][..]));
        assert_eq!(images.image(2), None);
        assert_eq!(images.image(usize::MAX), None);
        assert_eq!(images.label(1), Some(4));
        assert_eq!(images.label(2), None);
    }

    #[test]
    fn take_and_select_keep_labels() {
        let images = Images::new(1, 2, vec![0, 1, 200, 3, 4, 255], Some(vec![7, 8, 9])).unwrap();
        assert!((images.mean_ink() - 2.0 / 6.0).abs() < 1e-12);
        let picked = images.select(&[2, 0, 9]);
        assert_eq!((picked.pixels(), picked.labels()), (&[4, 255, 0, 1][..], Some(&[9, 7][..])));
        let (head, tail) = images.clone().split_off(1);
        assert_eq!((head.count(), tail.count(), tail.label(0)), (1, 2, Some(8)));
        assert_eq!(images.clone().take(10), images);
        assert_eq!(images.take(0).mean_ink(), 0.0);
    }
}
