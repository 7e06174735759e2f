//! Where data sets come from: a folder of the user's, or the cache, filled from public mirrors.

use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use serde::Serialize;

use crate::fetch::{FetchOptions, Progress, fetch_file};
use crate::files::{chardata_file, files_of, missing};
use crate::glyphs::WHOLE;
use crate::{DataError, Dataset, DatasetName, glyphs, read_mnist, read_omniglot_chardata, read_omniglot_zips};

/// Which form of Omniglot to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OmniglotSource {
    /// `chardata.mat` if it is there, otherwise the archives.
    #[default]
    Auto,
    /// Burda et al.'s split, `chardata.mat`; it is never fetched, because no digest of it is published.
    Chardata,
    /// The original archives.
    Zips,
}

/// Where to look for data, and whether to fetch what is missing. The default uses the cache and the public mirrors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Source {
    /// A folder with one folder for each data set, named like it. If given, it alone is used and nothing is fetched.
    pub data_dir: Option<PathBuf>,
    /// A folder of the same form, to fetch into. Default: `gumbel` in the user's cache folder.
    pub cache_dir: Option<PathBuf>,
    /// Use no network.
    pub offline: bool,
    /// Which form of Omniglot to read.
    pub omniglot: OmniglotSource,
    /// How to download.
    pub fetch: FetchOptions,
}

impl Source {
    /// A source that reads from `folder` only.
    #[must_use]
    pub fn local(folder: impl Into<PathBuf>) -> Source {
        Source { data_dir: Some(folder.into()), ..Source::default() }
    }

    /// The folder in which the files of `name` are, or would be.
    ///
    /// # Errors
    /// [`DataError::NoCacheFolder`] if neither folder is given and the user's cache folder is unknown.
    pub fn folder(&self, name: DatasetName) -> Result<PathBuf, DataError> {
        let root = match self.data_dir.as_ref().or(self.cache_dir.as_ref()) {
            Some(root) => root.clone(),
            None => etcetera::choose_base_strategy().map_err(|_| DataError::NoCacheFolder)?.cache_dir().join("gumbel"),
        };
        Ok(root.join(name.as_str()))
    }

    /// May files be fetched?
    pub(crate) fn can_fetch(&self) -> bool {
        self.data_dir.is_none() && !self.offline
    }

    /// Is Omniglot to be read from `chardata.mat`, given what is in `folder`?
    pub(crate) fn uses_chardata(&self, folder: &Path) -> bool {
        match self.omniglot {
            OmniglotSource::Auto => chardata_file().locate(folder).is_some(),
            OmniglotSource::Chardata => true,
            OmniglotSource::Zips => false,
        }
    }

    /// The error for files of `name` that are not in `folder` and cannot be fetched.
    fn missing(&self, name: DatasetName, folder: &Path) -> DataError {
        let hint = match (&self.data_dir, self.offline) {
            (Some(_), _) => "; with a data folder given nothing is fetched",
            (None, true) => "; fetching is switched off (offline)",
            (None, false) => "",
        };
        missing(name, folder, hint)
    }
}

/// One file, as [`fetch`] found or made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FetchedFile {
    /// Name of the file.
    pub file: String,
    /// Where it is.
    #[serde(serialize_with = "crate::files::path_text")]
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
}

/// Makes sure that good copies of all files of `name` are in the cache; damaged ones are replaced.
///
/// Where fetching is not allowed (a data folder is given, or offline), the files that are there are checked.
///
/// # Errors
/// [`DataError::Missing`] and [`DataError::Checksum`] if files that may not be fetched are missing or damaged, and those
/// of [`fetch_file`].
pub fn fetch(
    name: DatasetName,
    source: &Source,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Vec<FetchedFile>, DataError> {
    if name == DatasetName::Glyphs {
        return Ok(Vec::new());
    }
    let folder = source.folder(name)?;
    files_of(name)
        .into_iter()
        .map(|file| {
            let file = source.fetch.redirect(name, file);
            let path = if source.can_fetch() {
                fetch_file(&file, &folder, &source.fetch, progress)?
            } else {
                let path = file.locate(&folder).ok_or_else(|| source.missing(name, &folder))?;
                file.check(&path)?.into_result(&path)?;
                path
            };
            let bytes = path.metadata().map_err(DataError::io("read", &path))?.len();
            Ok(FetchedFile { file: file.name, path, bytes })
        })
        .collect()
}

/// Loads a data set: generates it, or reads it from where `source` says, fetching what is missing if it may.
///
/// `glyphs` is generated whole, with seed 0. Files that are present are read as they are (see [`verify`](crate::verify)
/// for their digests); fetched files are verified.
///
/// # Errors
/// [`DataError::Missing`], naming the folder and the files, if files are missing and may not be fetched; the errors of
/// [`fetch_file`], [`read_mnist`], [`read_omniglot_zips`] and [`read_omniglot_chardata`].
pub fn load(name: DatasetName, source: &Source, progress: &mut dyn FnMut(Progress<'_>)) -> Result<Dataset, DataError> {
    load_first(name, source, Limits::default(), progress)
}

/// How many images of a data set are wanted; `None`: all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Of the training split.
    pub train: Option<usize>,
    /// Of the validation and of the test split.
    pub eval: Option<usize>,
}

/// Like [`load`], but only the first images of each split; for `glyphs`, the others are not even generated.
///
/// # Errors
/// Those of [`load`].
pub fn load_first(
    name: DatasetName,
    source: &Source,
    limits: Limits,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Dataset, DataError> {
    if name == DatasetName::Glyphs {
        let [train, valid, test] = WHOLE;
        let first = |all: usize, limit: Option<usize>| limit.map_or(all, |l| l.min(all));
        return glyphs(0, [first(train, limits.train), first(valid, limits.eval), first(test, limits.eval)]);
    }
    Ok(read(name, source, progress)?.limit(limits.train, limits.eval))
}

fn read(name: DatasetName, source: &Source, progress: &mut dyn FnMut(Progress<'_>)) -> Result<Dataset, DataError> {
    let folder = source.folder(name)?;
    if name == DatasetName::Omniglot && source.uses_chardata(&folder) {
        if chardata_file().locate(&folder).is_none() {
            return Err(DataError::Missing {
                dataset: name.to_string(),
                folder,
                expected: chardata_file().name,
                hint: "; it cannot be fetched, only provided",
            });
        }
        return read_omniglot_chardata(&folder);
    }
    for file in files_of(name) {
        if file.locate(&folder).is_none() {
            if !source.can_fetch() {
                return Err(source.missing(name, &folder));
            }
            fetch_file(&source.fetch.redirect(name, file), &folder, &source.fetch, progress)?;
        }
    }
    match name {
        DatasetName::Omniglot => read_omniglot_zips(&folder),
        _ => read_mnist(name, &folder),
    }
}
