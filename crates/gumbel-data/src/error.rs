//! The one error type of the crate.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A cause of any type, kept for the source chain.
pub type Cause = Box<dyn StdError + Send + Sync>;

/// Everything that can go wrong while data are found, fetched, read or binarised.
///
/// The `Display` form of each variant is one complete line (it includes the cause's text where that matters), so
/// printing the error alone is enough; the cause is also available through [`std::error::Error::source`]. Fields hold
/// names and texts as they were found; in the line they are [printable], whatever a file or a server put into them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The operating system refused a file operation.
    #[error("cannot {action} {}: {source}", shown(path))]
    Io {
        /// The verb, as in "cannot open".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Files of a data set are not where they were looked for, and they were not fetched.
    #[error(
        "{} is not in {} (missing: {}{}){why}",
        printable(dataset), shown(folder), printable(&missing.join(", ")), instead_of(instead)
    )]
    Missing {
        /// Name of the data set.
        dataset: String,
        /// The folder that was searched.
        folder: PathBuf,
        /// The file names that were expected and are not there.
        missing: Vec<String>,
        /// What would do in their place, in words; may be empty.
        instead: String,
        /// Why nothing was fetched.
        why: NotFetched,
    },
    /// A name is not one of the known ones; the line lists them and suggests the nearest.
    #[error(transparent)]
    Name(#[from] gumbel::Error),
    /// A file's content is not what its format or data set demands.
    #[error(
        "{} ({format}, {}): expected {}, found {}",
        shown(path),
        printable(location),
        printable(expected),
        printable(found)
    )]
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
    #[error("{}: checksum mismatch: expected {expected}, found {found}", shown(path))]
    Checksum {
        /// The file.
        path: PathBuf,
        /// The accepted digests.
        expected: String,
        /// The file's digest.
        found: String,
    },
    /// One download attempt failed.
    #[error("{}: expected {}, found {}", printable(url), printable(expected), printable(found))]
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
    #[error("cannot fetch {} after {attempts} attempts; the last: {source}", printable(file))]
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
    #[error("{what}: expected {}, found {}", printable(expected), printable(found))]
    Argument {
        /// Which argument.
        what: &'static str,
        /// Its domain.
        expected: String,
        /// Its value.
        found: String,
    },
}

/// Why [missing](DataError::Missing) files were not fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotFetched {
    /// The question was only what is there.
    NotAsked,
    /// The folder is one of the user's, where nothing is written.
    DataFolder,
    /// The network may not be used.
    Offline,
    /// Nobody publishes the files with a digest: they can only be provided.
    NoPublicCopy,
}

impl fmt::Display for NotFetched {
    /// With its leading separator; nothing if there is nothing to say.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NotFetched::NotAsked => "",
            NotFetched::DataFolder => "; nothing is fetched into a folder that was given",
            NotFetched::Offline => "; nothing is fetched offline",
            NotFetched::NoPublicCopy => "; it cannot be fetched, only provided",
        })
    }
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

/// A text from outside (a file, a server, a folder's name) fit for one line of a terminal.
///
/// Control characters, line breaks, and what else a reader could not see are escaped as in Rust literals, for example
/// `\u{1b}`; all other text is unchanged.
///
/// ```
/// assert_eq!(gumbel_data::printable("Futurama"), "Futurama");
/// assert_eq!(gumbel_data::printable("\x1b[31mred\n"), "\\u{1b}[31mred\\n");
/// ```
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    // Quotes, backslashes and combining marks can be seen; of what Debug escapes otherwise, nothing can.
    let hidden = |c: &char| !c.is_ascii_graphic() && *c != ' ' && c.escape_debug().nth(1).is_some();
    if !text.contains(|c| hidden(&c)) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if hidden(&c) { line.extend(c.escape_debug()) } else { line.push(c) }
    }
    Cow::Owned(line)
}

fn shown(path: &Path) -> String {
    printable(&path.to_string_lossy()).into_owned()
}

fn instead_of(instead: &str) -> String {
    if instead.is_empty() { String::new() } else { format!("; {}", printable(instead)) }
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
            location: location.to_string(),
            expected: expected.to_string(),
            found: found.to_string(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_be_seen_is_escaped() {
        for text in ["", "plain \"quoted\" \\back", "Ωmega Ελληνικά 漢字", "J\u{301}"] {
            assert!(matches!(printable(text), Cow::Borrowed(t) if t == text) || text.contains('\u{301}'), "{text}");
        }
        assert_eq!(printable("a\x1b[2J\r\n\tb\u{9b}c\u{7f}"), "a\\u{1b}[2J\\r\\n\\tb\\u{9b}c\\u{7f}");
        // Right-to-left override: a name could pretend to be another.
        assert_eq!(printable("a\u{202e}b"), "a\\u{202e}b");
    }

    #[test]
    fn every_error_is_one_printable_line() {
        let (bad, path) = ("x\x1b[31m\ny".to_string(), PathBuf::from("/folder\x1b]0;title\x07\n"));
        let source = || Some(Cause::from(bad.clone()));
        let network =
            || DataError::Network { url: bad.clone(), expected: bad.clone(), found: bad.clone(), source: source() };
        let at = At { path: &path, format: "zip" };
        let errors = [
            DataError::io("open", &path)(io::Error::from(io::ErrorKind::NotFound)),
            DataError::Missing {
                dataset: bad.clone(),
                folder: path.clone(),
                missing: vec![bad.clone()],
                instead: bad.clone(),
                why: NotFetched::Offline,
            },
            at.bad(&bad, &bad, &bad),
            at.caused(&bad, &bad, bad.clone()),
            DataError::Checksum { path: path.clone(), expected: "a".into(), found: "b".into() },
            network(),
            DataError::Fetch { file: bad.clone(), attempts: 1, source: Box::new(network()) },
            DataError::argument("split", &bad, &bad),
        ];
        for error in errors {
            let message = error.to_string();
            assert!(!message.contains(char::is_control), "{message:?}");
            assert!(message.contains("\\u{1b}"), "{message}");
        }
    }
}
