//! MNIST: handwritten digits.
//!
//! LeCun, Cortes and Burges, "The MNIST database of handwritten digits", 1998.

use std::path::Path;

use crate::dataset::four_idx::FourIdx;
use crate::{DataError, Dataset, DatasetEntry};

const FILES: FourIdx = FourIdx {
    name: "mnist",
    classes: ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
    mirrors: ["https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"],
    digests: [
        (
            9_912_422,
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        ),
        (
            28_881,
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ),
        (
            1_648_877,
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        ),
        (
            4_542,
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ],
};

pub(super) fn entry() -> DatasetEntry {
    FILES.entry("70,000 handwritten digits, 28x28 grey")
}

/// Reads MNIST from its four IDX files in `folder`, each `NAME.gz` or `NAME`.
///
/// The first images of the training file are for training (50,000 of 60,000), its last 10,000 for validation, the
/// test file (10,000) for testing; all in the files' order. Labels are the digits.
///
/// # Errors
/// [`DataError::Missing`] if files are missing, and those of [`read_idx`](crate::idx::read_idx);
/// [`DataError::Format`] if there are no images or they are not 28x28, the numbers of images and labels differ, or a
/// label is above 9.
pub fn read_mnist(folder: &Path) -> Result<Dataset, DataError> {
    entry().read(folder)
}
