//! Where data sets come from: a folder of the user's, or the cache, filled from public mirrors.

use std::path::PathBuf;

use etcetera::BaseStrategy;

use crate::DataError;
use crate::fetch::FetchOptions;

/// Where to look for data, and whether to fetch what is missing. The default uses the cache and the public mirrors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Source {
    /// A folder with one folder for each data set, named like it. If given, it alone is read and nothing is fetched.
    /// Nothing is ever written there: what was slow to read is kept in the cache.
    pub data_dir: Option<PathBuf>,
    /// A folder of the same form, to fetch into. Default: `gumbel` in the user's cache folder.
    pub cache_dir: Option<PathBuf>,
    /// Use no network.
    pub offline: bool,
    /// How to download.
    pub fetch: FetchOptions,
}

impl Source {
    /// A source that reads from `folder` only.
    #[must_use]
    pub fn local(folder: impl Into<PathBuf>) -> Source {
        Source { data_dir: Some(folder.into()), ..Source::default() }
    }

    /// The folder in which the files of the data set `name` are, or would be.
    ///
    /// # Errors
    /// [`DataError::NoCacheFolder`] if neither folder is given and the user's cache folder is unknown.
    pub fn folder(&self, name: &str) -> Result<PathBuf, DataError> {
        self.data_dir.as_ref().map_or_else(|| self.cache_folder(name), |root| Ok(root.join(name)))
    }

    /// The folder of the cache in which what belongs to the data set `name` is kept, wherever its files are.
    ///
    /// # Errors
    /// [`DataError::NoCacheFolder`] if none is given and the user's cache folder is unknown.
    pub fn cache_folder(&self, name: &str) -> Result<PathBuf, DataError> {
        let root = match &self.cache_dir {
            Some(root) => root.clone(),
            None => etcetera::choose_base_strategy().map_err(|_| DataError::NoCacheFolder)?.cache_dir().join("gumbel"),
        };
        Ok(root.join(name))
    }
}

/// How many images of a data set are wanted; `None`: all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Of the training split.
    pub train: Option<usize>,
    /// Of the validation and of the test split.
    pub eval: Option<usize>,
}
