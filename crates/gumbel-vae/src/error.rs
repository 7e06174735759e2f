//! The error type of the crate.

use std::path::{Path, PathBuf};

/// What can go wrong in training, evaluation and run folders.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is outside its range or contradicts another one. The program treats this as a usage error.
    #[error("{name} = {value}: expected {expected}")]
    Setting {
        /// The key, as in the configuration file.
        name: &'static str,
        /// The value found.
        value: String,
        /// What is allowed.
        expected: String,
    },
    /// The configuration file cannot be read as one.
    #[error("{}: {detail}", path.display())]
    ConfigFile {
        /// The file.
        path: PathBuf,
        /// Position and reason, on one line.
        detail: String,
    },
    /// Reading or writing failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// "read", "write", "create folder", ...
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// A file of a run is not what it should be.
    #[error("{}: expected {expected}, found {found}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What belongs there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A resumed run was asked to change what cannot be changed.
    #[error("{}: the run was started with {key} = {old}, found {key} = {new}: start another run with --out, or leave {key} out", path.display())]
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
    /// The folder holds a run already, or none.
    #[error("{}: {problem}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// Parameters or losses are no longer finite.
    #[error("training diverged at step {step} of epoch {epoch}: {source}; try a smaller lr than {lr}")]
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
    Discrete(#[from] gumbel::Error),
    /// An error of the data.
    #[error(transparent)]
    Data(#[from] gumbel_data::DataError),
    /// A picture could not be drawn.
    #[error("cannot draw {}: {detail}", path.display())]
    Picture {
        /// The file.
        path: PathBuf,
        /// The reason.
        detail: String,
    },
}

/// Short for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A setting out of range.
    pub fn setting(name: &'static str, value: impl ToString, expected: impl Into<String>) -> Self {
        Error::Setting { name, value: value.to_string(), expected: expected.into() }
    }

    pub(crate) fn io(action: &'static str, path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Error::Io { action, path: path.as_ref().to_path_buf(), source }
    }

    /// Whether the user asked for something impossible (exit code 2), rather than something having failed (1).
    pub fn is_usage(&self) -> bool {
        matches!(self, Error::Setting { .. } | Error::ConfigFile { .. } | Error::Changed { .. })
    }
}
