//! The form of MNIST and of the data sets made like it: four IDX files of 28x28 grey images in ten classes.

use std::path::{Path, PathBuf};

use crate::error::At;
use crate::idx::{Idx, read_idx};
use crate::{DataError, Dataset, DatasetEntry, Digest, FileSpec, Form, Images};

const SIDE: usize = 28;
const CLASSES: usize = 10;
/// The last images of the training file are for validation.
const VALID: usize = 10_000;
const NAMES: [&str; 4] =
    ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"];

/// What sets such a data set apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct FourIdx {
    pub name: &'static str,
    pub classes: [&'static str; CLASSES],
    /// Addresses of folders.
    pub mirrors: [&'static str; 2],
    /// (bytes, SHA-256 of the .gz file, SHA-256 of the content) of each file, in the order of [`NAMES`].
    pub digests: [(u64, &'static str, &'static str); 4],
}

impl FourIdx {
    pub fn entry(self, help: &str) -> DatasetEntry {
        DatasetEntry::of_files(self.name, help, vec![Form::new("idx", self.files(), move |paths| self.read(paths))])
    }

    fn files(self) -> Vec<FileSpec> {
        let spec = |((bytes, packed, raw), name): ((u64, &str, &str), &str)| FileSpec {
            name: format!("{name}.gz"),
            digests: vec![Digest::Sha256(packed.into())],
            max_bytes: bytes,
            urls: self.mirrors.iter().map(|base| format!("{base}{name}.gz")).collect(),
            raw: Some((name.into(), Digest::Sha256(raw.into()))),
        };
        self.digests.into_iter().zip(NAMES).map(spec).collect()
    }

    fn read(self, paths: &[PathBuf]) -> Result<Dataset, DataError> {
        let [train_images, train_labels, test_images, test_labels] = paths else {
            return Err(DataError::argument("files of the data set", 4, paths.len()));
        };
        let (train, test) =
            rayon::join(|| read_pair(train_images, train_labels), || read_pair(test_images, test_labels));
        let (train, test) = (train?, test?);
        if train.count() <= VALID {
            let at = At { path: train_images, format: "IDX" };
            return Err(at.bad("offset 4, dimension 0", format!("more than {VALID} images"), train.count()));
        }
        let count = train.count() - VALID;
        let (train, valid) = train.split_off(count);
        Dataset::new(self.name, "IDX files", self.classes.map(String::from).to_vec(), [train, valid, test])
    }
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
