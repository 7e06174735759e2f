//! The one error type of the crate.

use crate::digest::Digest;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// What can go wrong in runs: their settings, their folders, their training and what is drawn of them.
///
/// Messages are one line and speak of values; how another value is given (a flag, a key of a file) is for the program
/// to add.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is outside its range or contradicts another one. The program treats this as a usage error.
    #[error("{name} = {value}: expected {expected}")]
    Setting {
        /// The key, as in the configuration file.
        name: String,
        /// The value found.
        value: String,
        /// What is allowed.
        expected: String,
    },
    /// The configuration file cannot be read as one.
    #[error("{}: {detail}", shown(path))]
    ConfigFile {
        /// The file.
        path: PathBuf,
        /// Position and reason, on one line.
        detail: String,
    },
    /// A resumed run was asked to change what cannot be changed.
    #[error("{}: the run was started with {key} = {old}, found {key} = {new}", shown(path))]
    Changed {
        /// The run's config.toml.
        path: PathBuf,
        /// The key.
        key: String,
        /// Value in the run.
        old: String,
        /// Value asked for.
        new: String,
    },
    /// The name of a file says a format that cannot be written there.
    #[error("{}: expected a file name that ends in {expected}", shown(path))]
    Ending {
        /// The file.
        path: PathBuf,
        /// The endings that are possible, such as ".png or .svg".
        expected: &'static str,
    },
    /// Reading or writing failed.
    #[error("cannot {action} {}: {source}", shown(path))]
    Io {
        /// "read", "write", "create folder", ...
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// A file of a run is not what it should be.
    #[error("{}: expected {expected}, found {found}", shown(path))]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What belongs there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A file is whole, but of a run with other settings.
    #[error(
        "{}: expected a file of the run {expected:.12}, found one of the run {found:.12}, with other settings",
        shown(path)
    )]
    OtherRun {
        /// The file.
        path: PathBuf,
        /// The digest of the settings in use.
        expected: Digest,
        /// The digest in the file.
        found: Digest,
    },
    /// The folder holds a run already.
    #[error("{}: holds a run already", shown(path))]
    Occupied {
        /// The folder.
        path: PathBuf,
    },
    /// Another process is training in the folder.
    #[error("{}: another process is training in this folder", shown(path))]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// Parameters or losses are no longer finite.
    #[error("training diverged at step {step} of epoch {epoch}: {source}; try a smaller lr than {}", short(*lr))]
    Diverged {
        /// Step, counted from 0.
        step: u64,
        /// Epoch, counted from 1.
        epoch: usize,
        /// Learning rate in use.
        lr: f64,
        /// What was found.
        source: gumbel::Error,
    },
    /// An error of the discrete part.
    #[error(transparent)]
    Discrete(gumbel::Error),
    /// An error of the data.
    #[error(transparent)]
    Data(#[from] gumbel_data::DataError),
    /// A picture could not be drawn.
    #[error("cannot draw {}: {detail}", shown(path))]
    Picture {
        /// The file.
        path: PathBuf,
        /// The reason.
        detail: String,
    },
}

/// Short for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<gumbel::Error> for Error {
    fn from(error: gumbel::Error) -> Self {
        match error {
            // A setting is a setting, whoever checks it.
            gumbel::Error::Setting { name, value, expected } => Error::Setting { name, value, expected },
            other => Error::Discrete(other),
        }
    }
}

impl Error {
    /// A setting out of range.
    pub fn setting(name: impl Into<String>, value: impl ToString, expected: impl Into<String>) -> Self {
        Error::Setting { name: name.into(), value: value.to_string(), expected: expected.into() }
    }

    /// A file that is not what it should be.
    pub fn foreign(path: impl AsRef<Path>, expected: impl Into<String>, found: impl AsRef<str>) -> Self {
        let found = escaped(found.as_ref());
        Error::Foreign { path: path.as_ref().to_path_buf(), expected: expected.into(), found }
    }

    /// A file operation that the system refused.
    pub fn io(action: &'static str, path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Error::Io { action, path: path.as_ref().to_path_buf(), source }
    }

    /// A picture that cannot be drawn.
    pub(crate) fn picture(path: &Path, detail: impl Into<String>) -> Self {
        Error::Picture { path: path.to_path_buf(), detail: detail.into() }
    }

    /// Whether the user asked for something impossible (exit code 2), rather than something having failed (1).
    pub fn is_usage(&self) -> bool {
        matches!(self, Error::Setting { .. } | Error::ConfigFile { .. } | Error::Changed { .. } | Error::Ending { .. })
    }
}

/// A path on one line: a name may hold line breaks and sequences that command a terminal.
fn shown(path: &Path) -> String {
    escaped(&path.display().to_string())
}

/// Text with its control characters written out, as `\n` or `\u{1b}`.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            // The last two are no characters at all, and XML has no way to write them.
            c if c.is_control() => out.extend(c.escape_default()),
            '\u{fffe}' | '\u{ffff}' => write!(out, "\\u{{{:x}}}", c as u32).expect("a string takes all text"),
            c => out.push(c),
        }
    }
    out
}

/// A number without a row of zeros.
fn short(x: f64) -> String {
    if x.abs() < 1e16 { x.to_string() } else { format!("{x:e}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_a_usage_error_whoever_checks_it() {
        let error = Error::from(gumbel::Error::setting("epsilon", 0, "a number above 0"));
        assert!(error.is_usage());
        assert_eq!(error.to_string(), "epsilon = 0: expected a number above 0");
        let error = Error::from(gumbel::Error::NotANumber { what: "loss", index: 3 });
        assert!(!error.is_usage() && matches!(error, Error::Discrete(_)));
    }

    #[test]
    fn messages_stay_on_one_line_and_command_no_terminal() {
        let path = PathBuf::from("a\n\u{1b}[31mb/c");
        let messages = [
            Error::Occupied { path: path.clone() }.to_string(),
            Error::foreign(&path, "a run", "text\r\nof two lines").to_string(),
            Error::io("read", &path, std::io::Error::other("no")).to_string(),
        ];
        for message in messages {
            assert!(!message.chars().any(char::is_control), "{message:?}");
            assert!(message.contains(r"a\n\u{1b}[31mb/c"), "{message}");
        }
    }
}
