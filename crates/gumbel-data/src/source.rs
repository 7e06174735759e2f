//! Where data sets come from: a folder of the user's, or the cache, filled from public mirrors.

use std::path::PathBuf;

use etcetera::BaseStrategy;

use crate::DataError;
use crate::fetch::FetchOptions;

/// Where to look for data, and whether to fetch what is missing. The default uses the cache and the public mirrors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Source {
    /// A folder with one folder for each data set, named like it. If given, it alone is used and nothing is fetched.
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
        let root = match self.data_dir.as_ref().or(self.cache_dir.as_ref()) {
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
