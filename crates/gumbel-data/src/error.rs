//! The one error type of the crate.

use std::error::Error as StdError;
use std::io;
use std::path::{Path, PathBuf};

/// A cause of any type, kept for the source chain.
pub type Cause = Box<dyn StdError + Send + Sync>;

/// Everything that can go wrong while data are found, fetched, read or binarised.
///
/// The `Display` form of each variant is one complete line (it includes the cause's text where that matters), so
/// printing the error alone is enough; the cause is also available through [`std::error::Error::source`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The operating system refused a file operation.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The verb, as in "cannot open".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Files of a data set are not where they were looked for.
    #[error("{dataset} not found in {}: expected {expected}{hint}", folder.display())]
    Missing {
        /// Name of the data set.
        dataset: String,
        /// The folder that was searched.
        folder: PathBuf,
        /// The file names that were expected and are not there.
        expected: String,
        /// What to do about it, with its leading separator; may be empty.
        hint: &'static str,
    },
    /// A name is not one of the known ones.
    #[error("unknown {what} \"{given}\"{}; expected one of: {valid}", suggest(.suggestion))]
    UnknownName {
        /// What kind of thing was named.
        what: &'static str,
        /// The name as given.
        given: String,
        /// The closest valid name, if one is close.
        suggestion: Option<String>,
        /// All valid names, comma-separated.
        valid: String,
    },
    /// A file's content is not what its format or data set demands.
    #[error("{} ({format}, {location}): expected {expected}, found {found}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The format that was read, such as "IDX".
        format: &'static str,
        /// Where in the file: a byte offset, a field, an archive entry.
        location: String,
        /// What should stand there.
        expected: String,
        /// What does stand there.
        found: String,
        /// The decoder's own error, if there is one.
        source: Option<Cause>,
    },
    /// A file's digest is none of the published ones.
    #[error("{}: checksum mismatch: expected {expected}, found {found}", path.display())]
    Checksum {
        /// The file.
        path: PathBuf,
        /// The accepted digests.
        expected: String,
        /// The file's digest.
        found: String,
    },
    /// One download attempt failed.
    #[error("{url}: expected {expected}, found {found}")]
    Network {
        /// The address.
        url: String,
        /// What a good answer would have been.
        expected: String,
        /// What came instead.
        found: String,
        /// The HTTP client's error, if there is one.
        source: Option<Cause>,
    },
    /// All attempts to download a file failed.
    #[error("cannot fetch {file} after {attempts} attempts; the last: {source}")]
    Fetch {
        /// The file's name.
        file: String,
        /// How many requests were made.
        attempts: usize,
        /// The error of the last attempt.
        source: Box<DataError>,
    },
    /// No cache folder is known on this system and none was given.
    #[error("no cache folder: expected a home directory or an explicit cache folder, found neither")]
    NoCacheFolder,
    /// An argument is outside its domain.
    #[error("{what}: expected {expected}, found {found}")]
    Argument {
        /// Which argument.
        what: &'static str,
        /// Its domain.
        expected: String,
        /// Its value.
        found: String,
    },
}

fn suggest(name: &Option<String>) -> String {
    name.as_ref().map_or_else(String::new, |n| format!(" (did you mean \"{n}\"?)"))
}

impl DataError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DataError {
        let path = path.to_path_buf();
        move |source| DataError::Io { action, path, source }
    }

    pub(crate) fn argument(what: &'static str, expected: impl ToString, found: impl ToString) -> DataError {
        DataError::Argument { what, expected: expected.to_string(), found: found.to_string() }
    }

    /// Did the caller or the file system fail to provide the data (as opposed to providing broken data)?
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, DataError::Missing { .. } | DataError::NoCacheFolder)
    }
}

/// Names one file and format, to make [`DataError::Format`] values briefly.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At<'a> {
    pub path: &'a Path,
    pub format: &'static str,
}

impl At<'_> {
    pub fn bad(&self, location: impl ToString, expected: impl ToString, found: impl ToString) -> DataError {
        DataError::Format {
            path: self.path.to_path_buf(),
            format: self.format,
            location: one_line(location.to_string()),
            expected: one_line(expected.to_string()),
            found: one_line(found.to_string()),
            source: None,
        }
    }

    pub fn caused(&self, location: impl ToString, expected: impl ToString, cause: impl Into<Cause>) -> DataError {
        let cause = cause.into();
        let mut error = self.bad(location, expected, cause.to_string());
        if let DataError::Format { source, .. } = &mut error {
            *source = Some(cause);
        }
        error
    }
}

/// Text out of a file may hold anything: keep messages printable and on one line.
fn one_line(text: String) -> String {
    if text.chars().any(char::is_control) { text.escape_debug().to_string() } else { text }
}

/// Parses `given` as one of `names`; the error lists them and suggests the nearest.
pub(crate) fn lookup<T: Copy>(what: &'static str, given: &str, names: &[(&'static str, T)]) -> Result<T, DataError> {
    let wanted = given.trim().to_ascii_lowercase().replace('_', "-");
    if let Some((_, value)) = names.iter().find(|(name, _)| *name == wanted) {
        return Ok(*value);
    }
    let nearest = names
        .iter()
        .map(|(name, _)| (strsim::jaro_winkler(&wanted, name), *name))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(score, _)| *score > 0.7);
    Err(DataError::UnknownName {
        what,
        given: given.chars().take(60).collect::<String>().escape_debug().to_string(),
        suggestion: nearest.map(|(_, name)| name.to_string()),
        valid: names.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", "),
    })
}
