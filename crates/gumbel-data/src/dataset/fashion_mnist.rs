//! Fashion-MNIST: articles of clothing, in the form of MNIST.
//!
//! Xiao, Rasul and Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine learning algorithms", 2017.

use std::path::Path;

use crate::dataset::four_idx::FourIdx;
use crate::{DataError, Dataset, DatasetEntry};

const FILES: FourIdx = FourIdx {
    name: "fashion-mnist",
    classes: ["t-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"],
    mirrors: [
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    ],
    digests: [
        (
            26_421_880,
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        ),
        (
            29_515,
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        ),
        (
            4_422_102,
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        ),
        (
            5_148,
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    ],
};

pub(super) fn entry() -> DatasetEntry {
    FILES.entry("70,000 articles of clothing, 28x28 grey")
}

/// Reads Fashion-MNIST from its four IDX files in `folder`, each `NAME.gz` or `NAME`.
///
/// Split as [MNIST](crate::read_mnist). Labels are kinds of clothing.
///
/// # Errors
/// Those of [`read_mnist`](crate::read_mnist).
pub fn read_fashion_mnist(folder: &Path) -> Result<Dataset, DataError> {
    entry().read(folder)
}
