//! Images, splits and data sets in memory.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Attributes, DataError};

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

/// What the pixels of a data set are, so that a program can choose a likelihood for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PixelKind {
    /// Ink on a ground: most levels are near 0 or 255, and all may be taken as probabilities of ink. Made for Bernoulli
    /// likelihoods.
    #[default]
    Ink,
    /// Brightness in 256 levels, one channel.
    Grey,
    /// Red, green and blue, in 256 levels each.
    Colour,
}

impl fmt::Display for PixelKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PixelKind::Ink => "ink",
            PixelKind::Grey => "grey",
            PixelKind::Colour => "colour",
        })
    }
}

/// Images of one size, with or without labels and attributes.
///
/// Pixels are bytes, row-major `[count, height, width, channels]`: the channels of a pixel stand beside each other.
/// Grey images have one channel, in which 255 is ink (bright) and 0 is background; colours have three: red, green and
/// blue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    count: usize,
    height: usize,
    width: usize,
    channels: usize,
    pixels: Vec<u8>,
    labels: Option<Vec<u16>>,
    attributes: Option<Attributes>,
}

impl Images {
    /// Grey images from `pixels` `[count, height, width]` and, where known, `labels` `[count]`.
    ///
    /// # Errors
    /// Those of [`Images::with_channels`].
    ///
    /// ```
    /// let two = gumbel_data::Images::new(2, 3, vec![0; 12], None)?;
    /// assert_eq!((two.count(), two.dim(), two.channels()), (2, 6, 1));
    /// # Ok::<(), gumbel_data::DataError>(())
    /// ```
    pub fn new(height: usize, width: usize, pixels: Vec<u8>, labels: Option<Vec<u16>>) -> Result<Images, DataError> {
        Images::with_channels(height, width, 1, pixels, labels)
    }

    /// Images from `pixels` `[count, height, width, channels]` and, where known, `labels` `[count]`.
    ///
    /// # Errors
    /// [`DataError::Argument`] if an image would be empty, the pixels are not a whole number of images, or the number
    /// of labels differs from the number of images.
    ///
    /// ```
    /// let red_and_blue = vec![255, 0, 0, 0, 0, 255];
    /// let image = gumbel_data::Images::with_channels(1, 2, 3, red_and_blue, None)?;
    /// assert_eq!((image.count(), image.dim(), image.channels()), (1, 6, 3));
    /// # Ok::<(), gumbel_data::DataError>(())
    /// ```
    pub fn with_channels(
        height: usize,
        width: usize,
        channels: usize,
        pixels: Vec<u8>,
        labels: Option<Vec<u16>>,
    ) -> Result<Images, DataError> {
        let dim = height.checked_mul(width).and_then(|area| area.checked_mul(channels)).filter(|dim| *dim > 0);
        let dim = dim.ok_or_else(|| {
            let found = format!("{height}x{width}x{channels}");
            DataError::argument("image size", "height, width and channels of at least 1", found)
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
        Ok(Images { count, height, width, channels, pixels, labels, attributes: None })
    }

    /// The same images with these attributes, or without any.
    ///
    /// # Errors
    /// [`DataError::Argument`] if they have another number of rows than there are images.
    ///
    /// ```
    /// use gumbel_data::{Attributes, Images};
    ///
    /// let round = Attributes::new(vec!["round".into()], vec![1, -1])?;
    /// let images = Images::new(1, 1, vec![0, 255], None)?.with_attributes(Some(round))?;
    /// assert_eq!(images.take(1).attributes().map(|a| a.count()), Some(1));
    /// # Ok::<(), gumbel_data::DataError>(())
    /// ```
    pub fn with_attributes(self, attributes: Option<Attributes>) -> Result<Images, DataError> {
        if let Some(rows) = attributes.as_ref().map(Attributes::count).filter(|rows| *rows != self.count) {
            let expected = format!("{} rows, one for each image", self.count);
            return Err(DataError::argument("attributes", expected, rows));
        }
        Ok(Images { attributes, ..self })
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

    /// Values of a pixel: 1 for grey, 3 for colours.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Values of an image: `height * width * channels`.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.height * self.width * self.channels
    }

    /// All pixels `[count, height, width, channels]`.
    #[must_use]
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// All labels `[count]`, if the source has them.
    #[must_use]
    pub fn labels(&self) -> Option<&[u16]> {
        self.labels.as_deref()
    }

    /// The attributes of all images, if the source has them.
    #[must_use]
    pub fn attributes(&self) -> Option<&Attributes> {
        self.attributes.as_ref()
    }

    /// The pixels `[height, width, channels]` of one image; `None` beyond the last.
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

    /// These images and then those of another split, of the same size. Labels and attributes stay where both have
    /// them.
    ///
    /// # Errors
    /// [`DataError::Argument`] for images of another size or with attributes of other names.
    pub fn followed_by(&self, others: &Images) -> Result<Images, DataError> {
        let [own, other] = [self, others].map(|i| [i.height, i.width, i.channels]);
        if own != other {
            let show = |size: [usize; 3]| size.map(|n| n.to_string()).join("x");
            return Err(DataError::argument("image size", show(own), show(other)));
        }
        let labels = self.labels.as_ref().zip(others.labels.as_ref()).map(|(a, b)| [&a[..], b].concat());
        let attributes = self.attributes.as_ref().zip(others.attributes.as_ref());
        let attributes = attributes.map(|(a, b)| a.followed_by(b)).transpose()?;
        let pixels = [&self.pixels[..], &others.pixels].concat();
        Images::with_channels(self.height, self.width, self.channels, pixels, labels)?.with_attributes(attributes)
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
        if let Some(attributes) = &mut self.attributes {
            attributes.truncate(count);
        }
        self.count = count;
        self
    }

    /// Splits after the first `count` images.
    pub(crate) fn split_off(mut self, count: usize) -> (Images, Images) {
        let count = count.min(self.count);
        let tail = Images {
            count: self.count - count,
            pixels: self.pixels.split_off(count * self.dim()),
            labels: self.labels.as_mut().map(|labels| labels.split_off(count)),
            attributes: self.attributes.as_mut().map(|attributes| attributes.split_off(count)),
            ..self
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
        let attributes = self.attributes.as_ref().map(|attributes| attributes.select(&order));
        Images { count: order.len(), pixels, labels, attributes, ..*self }
    }

    /// Share of values that are ink after rounding (`value >= 128`), in `[0, 1]`; 0 without images.
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
    pub name: String,
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
    /// A data set whose parts fit together.
    ///
    /// # Errors
    /// [`DataError::Argument`] if the splits have images of different sizes or different attributes, or a label is none
    /// of the classes.
    ///
    /// ```
    /// use gumbel_data::{Dataset, Images};
    ///
    /// let dots = |count| Images::new(1, 2, [255, 0].repeat(count), Some(vec![0; count]));
    /// let data = Dataset::new("dots", "made", vec!["left".into()], [dots(10)?, dots(2)?, dots(2)?])?;
    /// assert_eq!(data.train.count(), 10);
    /// # Ok::<(), gumbel_data::DataError>(())
    /// ```
    pub fn new(
        name: impl Into<String>,
        origin: impl Into<String>,
        classes: Vec<String>,
        [train, valid, test]: [Images; 3],
    ) -> Result<Dataset, DataError> {
        let data = Dataset { name: name.into(), origin: origin.into(), classes, train, valid, test };
        data.checked()
    }

    /// This, if its parts fit together.
    pub(crate) fn checked(self) -> Result<Dataset, DataError> {
        let size = |images: &Images| [images.height, images.width, images.channels];
        for split in Split::ALL {
            let images = self.split(split);
            if size(images) != size(&self.train) {
                let [expected, found] = [&self.train, images].map(|i| format!("{:?}", size(i)));
                return Err(DataError::argument("size of the images in each split", expected, found));
            }
            let names = |images: &Images| images.attributes.as_ref().map(|a| a.names().join(", ")).unwrap_or_default();
            if names(images) != names(&self.train) {
                return Err(DataError::argument("attributes of each split", names(&self.train), names(images)));
            }
            let classes = self.classes.len();
            if let Some(label) = images.labels.iter().flatten().find(|label| usize::from(**label) >= classes) {
                return Err(DataError::argument("label", format!("less than {classes}, the number of classes"), label));
            }
        }
        Ok(self)
    }

    /// The images of a split.
    #[must_use]
    pub fn split(&self, split: Split) -> &Images {
        match split {
            Split::Train => &self.train,
            Split::Valid => &self.valid,
            Split::Test => &self.test,
        }
    }

    /// The names of the attributes, in the order of their columns; none if the images have no attributes.
    #[must_use]
    pub fn attributes(&self) -> &[String] {
        self.train.attributes().map_or(&[], Attributes::names)
    }

    /// The same data set with only the attributes called `names`, in this order.
    ///
    /// # Errors
    /// [`DataError::Name`], listing the attributes, for one that is none of them; [`DataError::Argument`] if there are
    /// no attributes, no names, or a name is given twice.
    pub fn with_attributes(self, names: &[impl AsRef<str>]) -> Result<Dataset, DataError> {
        let choose = |images: Images| {
            let chosen = attributes_of(&self.name, &images)?.choose(names)?;
            images.with_attributes(Some(chosen))
        };
        let (train, valid, test) = (choose(self.train)?, choose(self.valid)?, choose(self.test)?);
        Ok(Dataset { train, valid, test, ..self })
    }

    /// The same data set with the combinations of the attributes called `names`, at most [`MAX_CLASS_ATTRIBUTES`], as
    /// its classes and labels.
    ///
    /// A label is a binary number with a digit for each name, 1 for yes, the first name's digit the highest: with
    /// `["Eyeglasses", "Smiling", "Male"]`, class 6 is 110, called `+Eyeglasses+Smiling-Male`. All `2^names` classes
    /// are there, whether or not an image is in them. Former classes and labels are replaced; the attributes stay.
    ///
    /// # Errors
    /// Those of [`with_attributes`](Dataset::with_attributes); [`DataError::Argument`] for too many names, and if a
    /// value is unknown.
    ///
    /// ```
    /// use gumbel_data::{Attributes, Dataset, Images};
    ///
    /// let images = |values: &[i8]| {
    ///     let attributes = Attributes::new(vec!["Male".into(), "Smiling".into()], values.to_vec())?;
    ///     Images::new(1, 1, vec![0; values.len() / 2], None)?.with_attributes(Some(attributes))
    /// };
    /// let faces = Dataset::new("faces", "made", vec![], [images(&[1, -1])?, images(&[-1, 1])?, images(&[])?])?;
    /// let faces = faces.with_attribute_classes(&["Smiling", "Male"])?;
    /// assert_eq!(faces.classes, ["-Smiling-Male", "-Smiling+Male", "+Smiling-Male", "+Smiling+Male"]);
    /// assert_eq!((faces.train.label(0), faces.valid.label(0)), (Some(1), Some(2)));
    /// # Ok::<(), gumbel_data::DataError>(())
    /// ```
    pub fn with_attribute_classes(self, names: &[impl AsRef<str>]) -> Result<Dataset, DataError> {
        let columns = attributes_of(&self.name, &self.train)?.positions(names)?;
        if columns.len() > MAX_CLASS_ATTRIBUTES {
            let expected = format!("at most {MAX_CLASS_ATTRIBUTES}");
            return Err(DataError::argument("attributes of classes", expected, columns.len()));
        }
        let names = self.attributes();
        let name = |class: usize| {
            let digits = (0..columns.len()).rev().map(|place| ["-", "+"][class >> place & 1]);
            digits.zip(&columns).flat_map(|(sign, column)| [sign, &names[*column]]).collect::<String>()
        };
        let classes = (0..1 << columns.len()).map(name).collect();
        let labelled = |images: &Images, split: Split| {
            let label = |(image, row): (usize, &[i8])| {
                columns.iter().try_fold(0u16, |label, column| match row[*column] {
                    0 => {
                        let expected = format!("a known value of {} in each image", names[*column]);
                        let found = format!("none in image {image} of {split}");
                        Err(DataError::argument("attributes of classes", expected, found))
                    }
                    value => Ok(label << 1 | u16::from(value > 0)),
                })
            };
            let rows = attributes_of(&self.name, images)?.values().chunks_exact(names.len());
            rows.enumerate().map(label).collect::<Result<Vec<_>, _>>()
        };
        let [train, valid, test] = Split::ALL.map(|split| labelled(self.split(split), split).map(Some));
        let (train, valid, test) = (train?, valid?, test?);
        Ok(Dataset {
            classes,
            train: Images { labels: train, ..self.train },
            valid: Images { labels: valid, ..self.valid },
            test: Images { labels: test, ..self.test },
            ..self
        })
    }

    /// Keeps the first `train` images of the training split and the first `eval` of the other two.
    #[must_use]
    pub fn limit(self, train: Option<usize>, eval: Option<usize>) -> Dataset {
        let (train, eval) = (train.unwrap_or(usize::MAX), eval.unwrap_or(usize::MAX));
        Dataset { train: self.train.take(train), valid: self.valid.take(eval), test: self.test.take(eval), ..self }
    }
}

/// Of so many attributes [`Dataset::with_attribute_classes`] makes classes: 4,096 classes.
pub const MAX_CLASS_ATTRIBUTES: usize = 12;

/// The attributes of images that must have some.
fn attributes_of<'a>(dataset: &str, images: &'a Images) -> Result<&'a Attributes, DataError> {
    let none = || DataError::argument("data set to choose attributes of", "one that has attributes", dataset);
    images.attributes().ok_or_else(none)
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
    fn channels_stand_beside_each_other() {
        assert!(Images::with_channels(2, 2, 0, vec![], None).is_err());
        assert!(Images::with_channels(2, usize::MAX, 3, vec![], None).is_err());
        assert!(Images::with_channels(1, 2, 3, vec![0; 8], None).is_err());
        let images = Images::with_channels(1, 2, 3, (0..18).collect(), Some(vec![4, 5, 6])).unwrap();
        assert_eq!((images.count(), images.dim(), images.channels()), (3, 6, 3));
        assert_eq!(images.image(1), Some(&[6, 7, 8, 9, 10, 11][..]));
        let (head, tail) = images.clone().split_off(1);
        assert_eq!((head.image(0), tail.image(1)), (images.image(0), images.image(2)));
        assert_eq!((tail.channels(), images.select(&[2, 0]).channels()), (3, 3));
        assert_eq!(images.select(&[2]).pixels(), [12, 13, 14, 15, 16, 17]);
        assert_eq!(Images::new(1, 2, vec![0; 4], None).unwrap().channels(), 1);
    }

    #[test]
    fn parts_of_a_data_set_fit_together() {
        let grey = |label| Images::new(1, 3, vec![0; 3], Some(vec![label])).unwrap();
        let make = |valid, test| Dataset::new("x", "made", vec!["a".into()], [grey(0), valid, test]);
        assert!(make(grey(0), grey(0)).is_ok());
        assert_eq!(
            make(grey(0), grey(1)).unwrap_err().to_string(),
            "label: expected less than 1, the number of classes, found 1"
        );
        let colour = Images::with_channels(1, 1, 3, vec![0; 3], None).unwrap();
        assert!(make(grey(0), colour).unwrap_err().to_string().contains("expected [1, 3, 1], found [1, 1, 3]"));
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

    /// Images with their number as pixel and two attributes that spell it.
    fn numbered(numbers: &[u8]) -> Images {
        let values = numbers.iter().flat_map(|n| [n >> 1 & 1, n & 1].map(|bit| 2 * bit as i8 - 1)).collect();
        let attributes = Attributes::new(vec!["two".into(), "one".into()], values).unwrap();
        Images::new(1, 1, numbers.to_vec(), None).unwrap().with_attributes(Some(attributes)).unwrap()
    }

    #[test]
    fn attributes_go_with_their_images() {
        let images = numbered(&[0, 1, 2, 3]);
        let sound = |images: &Images| *images == numbered(images.pixels());
        assert!(sound(&images.clone().take(3)) && sound(&images.clone().take(0)) && sound(&images.clone().take(9)));
        assert!(sound(&images.select(&[3, 1, 8, 2])));
        let (head, tail) = images.clone().split_off(1);
        assert!(sound(&head) && sound(&tail));
        let both = tail.followed_by(&head).unwrap();
        assert!(sound(&both) && both.pixels() == [1, 2, 3, 0]);
        // Where one has none, none are left.
        let bare = images.clone().with_attributes(None).unwrap();
        assert_eq!(bare.followed_by(&images).unwrap().attributes(), None);
        let other = Attributes::new(vec!["one".into(), "two".into()], vec![1; 8]).unwrap();
        let other = bare.clone().with_attributes(Some(other)).unwrap();
        assert!(other.followed_by(&images).unwrap_err().to_string().contains("expected one, two, found two, one"));
        let rows = Attributes::new(vec!["one".into()], vec![1; 3]).unwrap();
        let error = bare.with_attributes(Some(rows)).unwrap_err().to_string();
        assert_eq!(error, "attributes: expected 4 rows, one for each image, found 3");

        let data = |test| Dataset::new("x", "made", vec![], [images.clone(), images.clone(), test]);
        assert!(data(other).is_err());
        let limited = data(images.clone()).unwrap().limit(Some(2), Some(1));
        assert!(Split::ALL.iter().all(|split| sound(limited.split(*split))));
        assert_eq!(limited.attributes(), ["two", "one"]);
    }

    #[test]
    fn attributes_become_classes() {
        let data = || {
            let splits = [numbered(&[0, 1, 2, 3]), numbered(&[2]), numbered(&[])];
            Dataset::new("x", "made", vec![], splits).unwrap()
        };
        let classes = data().with_attribute_classes(&["Two", "one"]).unwrap();
        assert_eq!(classes.classes, ["-two-one", "-two+one", "+two-one", "+two+one"]);
        assert_eq!(Split::ALL.map(|s| classes.split(s).labels().unwrap()), [&[0, 1, 2, 3][..], &[2], &[]]);
        assert_eq!(classes.attributes(), ["two", "one"]);
        assert!(classes.checked().is_ok());
        let turned = data().with_attribute_classes(&["one", "two"]).unwrap();
        assert_eq!(turned.train.labels(), Some(&[0, 2, 1, 3][..]));
        let chosen = data().with_attributes(&["one"]).unwrap();
        assert_eq!(
            (chosen.attributes(), chosen.valid.attributes().unwrap().values()),
            (&["one".into()][..], &[-1][..])
        );

        let message = |names: &[&str]| data().with_attribute_classes(names).unwrap_err().to_string();
        assert!(message(&["one", "one"]).contains("one twice"));
        assert!(message(&["tow"]).contains("did you mean two?"));
        let mut bare = Dataset { name: "bare".into(), ..data() };
        bare.valid.attributes = None;
        let message = bare.with_attributes(&["one"]).unwrap_err().to_string();
        assert!(message.contains("one that has attributes, found bare"), "{message}");
        let mut unknown = data();
        unknown.valid.attributes = Some(Attributes::new(vec!["two".into(), "one".into()], vec![1, 0]).unwrap());
        assert_eq!(unknown.clone().with_attribute_classes(&["two"]).unwrap().valid.label(0), Some(1));
        assert_eq!(
            unknown.with_attribute_classes(&["two", "one"]).unwrap_err().to_string(),
            "attributes of classes: expected a known value of one in each image, found none in image 0 of valid"
        );
        let names: Vec<String> = (0..13).map(|i| i.to_string()).collect();
        let images = || {
            let attributes = Attributes::new(names.clone(), vec![1; 13]).unwrap();
            Images::new(1, 1, vec![0], None).unwrap().with_attributes(Some(attributes)).unwrap()
        };
        let many = Dataset::new("x", "made", vec![], [images(), images(), images()]).unwrap();
        assert!(many.clone().with_attribute_classes(&names).unwrap_err().to_string().contains("at most 12, found 13"));
        assert_eq!(many.with_attribute_classes(&names[..12]).unwrap().test.label(0), Some(4095));
    }
}
