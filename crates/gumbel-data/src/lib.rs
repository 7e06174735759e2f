//! Image data sets for models with discrete latent variables: find, fetch, verify, read, split, binarise, synthesise.
//!
//! ```
//! use gumbel_data::{Binarization, Split};
//!
//! // Ten classes of generated figures, no files needed; `load` gives the whole set and the public ones.
//! let data = gumbel_data::glyphs(0, [200, 50, 50])?;
//! let batch_indices = [3, 1, 4];
//! let mut batch = vec![0.0; batch_indices.len() * data.train.dim()]; // [batch, 784]
//! Binarization::Static { seed: 0 }.fill(&data.train, Split::Train, 0, &batch_indices, &mut batch)?;
//! assert!(batch.iter().all(|x| *x == 0.0 || *x == 1.0));
//! # Ok::<(), gumbel_data::DataError>(())
//! ```
//!
//! # Data sets
//!
//! All but `celeba` are 28x28 grey images with 255 = ink; `celeba` has 64x64 pixels in red, green and blue, and forty
//! [`Attributes`] instead of classes.
//!
//! | name | train / valid / test | classes | source |
//! | --- | --- | --- | --- |
//! | `glyphs` | 50,000 / 10,000 / 10,000 | 10 | generated from a seed, see [`glyphs`](glyphs()) |
//! | `mnist` | 50,000 / 10,000 / 10,000 | 10 | four IDX files, see [`read_mnist`] |
//! | `fashion-mnist` | 50,000 / 10,000 / 10,000 | 10 | four IDX files, see [`read_fashion_mnist`] |
//! | `omniglot` | 23,000 / 1,345 / 8,070 | 50 | `chardata.mat`, see [`read_omniglot_chardata`] |
//! | `omniglot` | 23,000 / 1,345 / 8,115 | 50 | the original archives, see [`read_omniglot_zips`] |
//! | `celeba` | 162,770 / 19,867 / 19,962, or a part of them | | images and two lists, see [`read_celeba`] |
//!
//! # Overview
//!
//! - [`dataset()`] finds one by its name, [`datasets`] are all of them: a registry, to which a program adds its own
//!   [`DatasetEntry`].
//! - [`load`] gives the [`Dataset`] of an entry; a [`Source`] says where its files are and whether they may be fetched.
//!   [`list`], [`info`], [`verify`] and [`fetch()`] answer what is there and complete it.
//! - A [`Dataset`] has three [`Images`]; [`Binarization`] turns them into batches of `f32`.
//! - [`PixelKind`] says what the pixels of a data set are; its images may have [`Attributes`], of which
//!   [`Dataset::with_attribute_classes`] makes classes.
//! - [`idx`] and [`mat`] read the two array formats.
//!
//! Everything random is a function of a seed and an index, made of operations that are exact on every machine: the
//! same bits for any batch, any number of threads, any platform.
//!
//! Input is not trusted: sizes are checked before memory is reserved, and each error is one line that says what was
//! expected, what was found, and where.
//!
//! # Not here
//!
//! Image augmentation, data that do not fit into memory.

#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod attributes;
mod binarize;
mod cache;
mod dataset;
mod entry;
mod error;
mod fetch;
mod files;
pub mod idx;
mod images;
pub mod mat;
mod random;
mod report;
mod source;

pub use attributes::Attributes;
pub use binarize::Binarization;
pub use dataset::{
    GLYPH_CLASSES, dataset, datasets, glyphs, read_celeba, read_fashion_mnist, read_mnist, read_omniglot_chardata,
    read_omniglot_zips,
};
pub use entry::{DatasetEntry, FetchedFile, Form, fetch, load, load_first};
pub use error::{Cause, DataError, NotFetched, printable};
pub use fetch::{FetchOptions, Progress, fetch_file};
pub use files::{Check, Digest, FileSpec};
pub use images::{Dataset, Images, MAX_CLASS_ATTRIBUTES, PixelKind, Split};
pub use report::{FileCheck, FileStatus, Info, Listing, PerSplit, PresentFile, Verification, info, list, verify};
pub use source::{Limits, Source};
