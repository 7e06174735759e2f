//! MNIST and Fashion-MNIST: four IDX files each.

use std::path::Path;

use crate::error::At;
use crate::idx::{Idx, read_idx};
use crate::{DataError, Dataset, DatasetName, Images, files};

const SIDE: usize = 28;
const CLASSES: usize = 10;
/// The last images of the training file are for validation.
const VALID: usize = 10_000;
const FASHION: [&str; CLASSES] =
    ["t-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"];

/// Reads MNIST or Fashion-MNIST from the four files in `folder`.
///
/// The first images of the training file are for training (50,000 of 60,000), its last 10,000 for validation, the
/// test file (10,000) for testing; all in the files' order. Labels are the classes 0 to 9.
///
/// # Errors
/// [`DataError::Missing`] if files are missing (each may be `NAME.gz` or `NAME`), and those of
/// [`read_idx`](crate::idx::read_idx); [`DataError::Format`] if there are no images or they are not 28x28, the numbers of images and
/// labels differ, or a label is above 9. [`DataError::Argument`] for names of other data sets.
pub fn read_mnist(name: DatasetName, folder: &Path) -> Result<Dataset, DataError> {
    let classes: Vec<String> = match name {
        DatasetName::Mnist => (0..CLASSES).map(|digit| digit.to_string()).collect(),
        DatasetName::FashionMnist => FASHION.map(String::from).to_vec(),
        other => return Err(DataError::argument("data set", "mnist or fashion-mnist", other)),
    };
    let paths = files::locate_all(name, folder)?;
    let [train_images, train_labels, test_images, test_labels] = &paths[..] else {
        return Err(DataError::argument("files of the data set", 4, paths.len()));
    };
    let (train, test) = rayon::join(|| read_pair(train_images, train_labels), || read_pair(test_images, test_labels));
    let (train, test) = (train?, test?);
    if train.count() <= VALID {
        let at = At { path: train_images, format: "IDX" };
        return Err(at.bad("offset 4, dimension 0", format!("more than {VALID} images"), train.count()));
    }
    let count = train.count() - VALID;
    let (train, valid) = train.split_off(count);
    Ok(Dataset { name, origin: "IDX files".into(), classes, train, valid, test })
}

fn read_pair(images: &Path, labels: &Path) -> Result<Images, DataError> {
    let Idx { dims, values } = read_idx(images)?;
    let at = At { path: images, format: "IDX" };
    let [count, SIDE, SIDE] = dims[..] else {
        return Err(at.bad("dimensions", format!("[count, {SIDE}, {SIDE}]"), format!("{dims:?}")));
    };
    if count == 0 {
        return Err(at.bad("offset 4, dimension 0", "at least 1 image", 0));
    }
    let Idx { dims, values: classes } = read_idx(labels)?;
    let at = At { path: labels, format: "IDX" };
    if dims != [count] {
        return Err(at.bad("dimensions", format!("[{count}], one label for each image"), format!("{dims:?}")));
    }
    if let Some((i, label)) = classes.iter().enumerate().find(|(_, label)| usize::from(**label) >= CLASSES) {
        return Err(at.bad(format!("offset {}, label {i}", 8 + i), "0 to 9", label));
    }
    Images::new(SIDE, SIDE, values, Some(classes.into_iter().map(u16::from).collect()))
}
