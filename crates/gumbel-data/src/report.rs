//! What is there: answers for people and programs, serialisable.

use std::path::{Path, PathBuf};

use gumbel::registry::{Entries, Entry};
use serde::Serialize;

use crate::entry::{Content, DatasetEntry, MadeCheck, load};
use crate::files::{Digest, FileSpec, digests_of};
use crate::source::Source;
use crate::{DataError, Dataset, Images, PixelKind};

/// A file that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PresentFile {
    /// Name of the file.
    pub file: String,
    /// Where it is.
    #[serde(serialize_with = "crate::files::path_text")]
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
}

/// One data set in [`list`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listing {
    /// Which data set.
    pub name: String,
    /// What it is, in a line.
    pub help: String,
    /// Can it be loaded without fetching anything?
    pub available: bool,
    /// The folder that was searched; `None` for generated data.
    #[serde(serialize_with = "crate::files::optional_path_text")]
    pub folder: Option<PathBuf>,
    /// The files that are there.
    pub files: Vec<PresentFile>,
    /// The names of the files that are not.
    pub missing: Vec<String>,
}

/// Says for each data set what is there. Reads no file's content and fetches nothing.
///
/// # Errors
/// [`DataError::NoCacheFolder`] if no folder is known.
pub fn list(registry: &Entries<DatasetEntry>, source: &Source) -> Result<Vec<Listing>, DataError> {
    registry.iter().map(|entry| listing(entry, source)).collect()
}

fn listing(entry: &DatasetEntry, source: &Source) -> Result<Listing, DataError> {
    let (name, help) = (entry.name().to_string(), entry.help().to_string());
    let Content::Files(_) = entry.content() else {
        return Ok(Listing { name, help, available: true, folder: None, files: vec![], missing: vec![] });
    };
    let folder = source.folder(entry.name())?;
    let (present, absent): (Vec<_>, Vec<_>) =
        wanted_files(entry, &folder).iter().partition(|file| file.locate(&folder).is_some());
    let files = present.into_iter().filter_map(|file| present_file(file, &folder)).collect();
    let missing: Vec<String> = absent.into_iter().map(|file| file.name.clone()).collect();
    Ok(Listing { name, help, available: missing.is_empty(), folder: Some(folder), files, missing })
}

fn present_file(file: &FileSpec, folder: &Path) -> Option<PresentFile> {
    let path = file.locate(folder)?;
    let bytes = path.metadata().map_or(0, |data| data.len());
    Some(PresentFile { file: path.file_name()?.to_string_lossy().into_owned(), path, bytes })
}

/// The files that [`load`] would read.
fn wanted_files<'a>(entry: &'a DatasetEntry, folder: &Path) -> &'a [FileSpec] {
    entry.form_in(folder).map_or(&[], |form| form.files())
}

/// A number for each split.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PerSplit<T> {
    /// Of the training images.
    pub train: T,
    /// Of the validation images.
    pub valid: T,
    /// Of the test images.
    pub test: T,
}

impl<T> PerSplit<T> {
    fn of(data: &Dataset, number: impl Fn(&Images) -> T) -> PerSplit<T> {
        PerSplit { train: number(&data.train), valid: number(&data.valid), test: number(&data.test) }
    }
}

/// What [`info`] says of a data set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Info {
    /// Which data set.
    pub name: String,
    /// Where its images come from, in words.
    pub origin: String,
    /// The folder of its files; `None` for generated data.
    #[serde(serialize_with = "crate::files::optional_path_text")]
    pub folder: Option<PathBuf>,
    /// Rows of an image.
    pub height: usize,
    /// Columns of an image.
    pub width: usize,
    /// Values of a pixel: 1 for grey, 3 for colours.
    pub channels: usize,
    /// What the pixels are.
    pub pixels: PixelKind,
    /// Names of the attributes; none for most data sets.
    pub attributes: Vec<String>,
    /// Share of the images that have each attribute, in `[0, 1]`, among those of which it is known; `null` where it is
    /// known of none.
    pub attribute_shares: PerSplit<Vec<Option<f64>>>,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Number of images.
    pub images: PerSplit<usize>,
    /// Share of ones after rounding, in `[0, 1]`.
    pub mean_ink: PerSplit<f64>,
}

/// Loads a data set that is there and describes it. Fetches nothing.
///
/// # Errors
/// [`DataError::Missing`] if it is not there, and those of [`load`] but for fetching.
pub fn info(entry: &DatasetEntry, source: &Source) -> Result<Info, DataError> {
    let (folder, data) = match entry.content() {
        Content::Made { .. } => (None, load(entry, source, &mut |_| {})?),
        Content::Files(_) => {
            let folder = source.folder(entry.name())?;
            let data = entry.read_cached(&folder, source.cache_folder(entry.name()).ok().as_deref())?;
            (Some(folder), data)
        }
    };
    Ok(Info {
        name: data.name.clone(),
        origin: data.origin.clone(),
        folder,
        height: data.train.height(),
        width: data.train.width(),
        channels: data.train.channels(),
        pixels: entry.pixels(),
        attributes: data.attributes().to_vec(),
        attribute_shares: PerSplit::of(&data, |images| {
            images.attributes().map_or(vec![], |a| (0..a.names().len()).map(|column| a.share(column)).collect())
        }),
        classes: data.classes.clone(),
        images: PerSplit::of(&data, Images::count),
        mean_ink: PerSplit::of(&data, Images::mean_ink),
    })
}

/// The outcome for one file in [`verify`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FileStatus {
    /// Its digest is a known one.
    Good,
    /// Its digest is none of the known ones.
    Bad,
    /// It is not there.
    Missing,
    /// It is there, but no digest of it is known.
    Unknown,
}

/// One file in [`verify`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileCheck {
    /// Name of the file.
    pub file: String,
    /// Where it is, or would be; `None` for generated data.
    #[serde(serialize_with = "crate::files::optional_path_text")]
    pub path: Option<PathBuf>,
    /// The outcome.
    pub status: FileStatus,
    /// Any of these is right.
    pub expected: Vec<Digest>,
    /// The file's own.
    pub found: Vec<Digest>,
}

/// What [`verify`] says of a data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// Which data set.
    pub name: String,
    /// No file is bad or missing.
    pub ok: bool,
    /// The folder; `None` for generated data.
    #[serde(serialize_with = "crate::files::optional_path_text")]
    pub folder: Option<PathBuf>,
    /// Each file.
    pub files: Vec<FileCheck>,
}

/// Compares the files of a data set with the published digests. Fetches nothing.
///
/// For a data set that is made, such as `glyphs`, some of its bytes are made and compared: that this machine makes the
/// same ones.
///
/// # Errors
/// [`DataError::NoCacheFolder`] if no folder is known, [`DataError::Io`] if a file cannot be read. Missing files and
/// wrong digests are no errors here, but part of the answer.
pub fn verify(entry: &DatasetEntry, source: &Source) -> Result<Verification, DataError> {
    let (folder, files) = match entry.content() {
        Content::Made { check, .. } => (None, check.iter().map(check_made).collect::<Result<Vec<_>, _>>()?),
        Content::Files(_) => {
            let folder = source.folder(entry.name())?;
            let files = wanted_files(entry, &folder);
            let files = files.iter().map(|file| check(file, &folder)).collect::<Result<Vec<_>, _>>()?;
            (Some(folder), files)
        }
    };
    let ok = files.iter().all(|file| matches!(file.status, FileStatus::Good | FileStatus::Unknown));
    Ok(Verification { name: entry.name().to_string(), ok, folder, files })
}

fn check_made(made: &MadeCheck) -> Result<FileCheck, DataError> {
    let found = digests_of(&(made.bytes)()?);
    let status = if found.contains(&made.expected) { FileStatus::Good } else { FileStatus::Bad };
    Ok(FileCheck { file: made.what.clone(), path: None, status, expected: vec![made.expected.clone()], found })
}

fn check(file: &FileSpec, folder: &Path) -> Result<FileCheck, DataError> {
    let Some(path) = file.locate(folder) else {
        return Ok(FileCheck {
            file: file.name.clone(),
            path: Some(folder.join(&file.name)),
            status: FileStatus::Missing,
            expected: file.digests.clone(),
            found: Vec::new(),
        });
    };
    let check = file.check(&path)?;
    let status = match check.matches {
        Some(true) => FileStatus::Good,
        Some(false) => FileStatus::Bad,
        None => FileStatus::Unknown,
    };
    let name = path.file_name().map_or_else(|| file.name.clone(), |n| n.to_string_lossy().into_owned());
    Ok(FileCheck { file: name, path: Some(path), status, expected: check.expected, found: check.found })
}
