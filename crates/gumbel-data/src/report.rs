//! What is there: answers for people and programs, serialisable.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::fetch::Progress;
use crate::files::{Digest, FileSpec, chardata_file, files_of, sha256_hex};
use crate::source::{Source, load};
use crate::{DataError, Dataset, DatasetName, Images, glyphs};

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
    pub name: DatasetName,
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
pub fn list(source: &Source) -> Result<Vec<Listing>, DataError> {
    DatasetName::ALL
        .into_iter()
        .map(|name| {
            if name == DatasetName::Glyphs {
                return Ok(Listing { name, available: true, folder: None, files: vec![], missing: vec![] });
            }
            let folder = source.folder(name)?;
            let (present, absent): (Vec<_>, Vec<_>) =
                wanted_files(name, source, &folder).into_iter().partition(|file| file.locate(&folder).is_some());
            let files = present.iter().filter_map(|file| present_file(file, &folder)).collect();
            let missing: Vec<String> = absent.into_iter().map(|file| file.name).collect();
            Ok(Listing { name, available: missing.is_empty(), folder: Some(folder), files, missing })
        })
        .collect()
}

fn present_file(file: &FileSpec, folder: &Path) -> Option<PresentFile> {
    let path = file.locate(folder)?;
    let bytes = path.metadata().map_or(0, |data| data.len());
    Some(PresentFile { file: path.file_name()?.to_string_lossy().into_owned(), path, bytes })
}

/// The files that [`load`] would read.
fn wanted_files(name: DatasetName, source: &Source, folder: &Path) -> Vec<FileSpec> {
    if name == DatasetName::Omniglot && source.uses_chardata(folder) { vec![chardata_file()] } else { files_of(name) }
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
    pub name: DatasetName,
    /// Where its images come from, in words.
    pub origin: String,
    /// The folder of its files; `None` for generated data.
    #[serde(serialize_with = "crate::files::optional_path_text")]
    pub folder: Option<PathBuf>,
    /// Rows of an image.
    pub height: usize,
    /// Columns of an image.
    pub width: usize,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Number of images.
    pub images: PerSplit<usize>,
    /// Share of ones after rounding, in `[0, 1]`.
    pub mean_ink: PerSplit<f64>,
}

/// Loads a data set and describes it.
///
/// # Errors
/// Those of [`load`].
pub fn info(name: DatasetName, source: &Source, progress: &mut dyn FnMut(Progress<'_>)) -> Result<Info, DataError> {
    let data = load(name, source, progress)?;
    Ok(Info {
        name,
        origin: data.origin.clone(),
        folder: if name == DatasetName::Glyphs { None } else { Some(source.folder(name)?) },
        height: data.train.height(),
        width: data.train.width(),
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
    pub name: DatasetName,
    /// No file is bad or missing.
    pub ok: bool,
    /// The folder; `None` for generated data.
    #[serde(serialize_with = "crate::files::optional_path_text")]
    pub folder: Option<PathBuf>,
    /// Each file.
    pub files: Vec<FileCheck>,
}

/// SHA-256 of the first 1000 training images of `glyphs` with seed 0.
const GLYPHS_SHA256: &str = "e95401f483213c5ab0913f8ab390a3a3a507c0b9e68ad9fbcddb97c14da019e1";

/// Compares the files of a data set with the published digests. Fetches nothing.
///
/// For `glyphs` the first 1000 images are generated and compared: that this machine makes the same bits.
///
/// # Errors
/// [`DataError::NoCacheFolder`] if no folder is known, [`DataError::Io`] if a file cannot be read. Missing files and
/// wrong digests are no errors here, but part of the answer.
pub fn verify(name: DatasetName, source: &Source) -> Result<Verification, DataError> {
    if name == DatasetName::Glyphs {
        let found = sha256_hex(glyphs(0, [1000, 0, 0])?.train.pixels());
        let ok = found == GLYPHS_SHA256;
        let file = FileCheck {
            file: "first 1000 generated images".into(),
            path: None,
            status: if ok { FileStatus::Good } else { FileStatus::Bad },
            expected: vec![Digest::Sha256(GLYPHS_SHA256.into())],
            found: vec![Digest::Sha256(found)],
        };
        return Ok(Verification { name, ok, folder: None, files: vec![file] });
    }
    let folder = source.folder(name)?;
    let files = wanted_files(name, source, &folder);
    let files = files.iter().map(|file| check(file, &folder)).collect::<Result<Vec<_>, _>>()?;
    let ok = files.iter().all(|file| matches!(file.status, FileStatus::Good | FileStatus::Unknown));
    Ok(Verification { name, ok, folder: Some(folder), files })
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
