//! What goes to stdout and stderr.

use gumbel_data::{DataError, NotFetched, printable};
use gumbel_run::Error;
use std::io::{self, IsTerminal, Write};

/// Exit code of a training that a signal has stopped, as shells have it for Ctrl-C.
pub const STOPPED: u8 = 130;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Wrong usage.
    #[error("{0}")]
    Usage(String),
    /// Stopped by a signal before the end.
    #[error("{0}")]
    Stopped(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl Failure {
    /// The exit code.
    pub fn code(&self) -> u8 {
        match self {
            Failure::Usage(_) => 2,
            Failure::Stopped(_) => STOPPED,
            Failure::Other(_) => 1,
        }
    }
}

/// An error of runs, with what the command line can do about it.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Data(error) => error.into(),
            Error::Occupied { .. } => Failure::Other(format!(
                "{error}: --resume continues it, --overwrite replaces it, --out chooses another"
            )),
            Error::Busy { .. } => Failure::Other(format!("{error}: --out chooses another")),
            Error::OtherRun { .. } => {
                Failure::Other(format!("{error}: --overwrite begins anew, --out chooses another folder"))
            }
            Error::Changed { ref key, .. } => {
                Failure::Usage(format!("{error}: start another run with --out, or leave --{key} out"))
            }
            _ if error.is_usage() => Failure::Usage(error.to_string()),
            _ => Failure::Other(error.to_string()),
        }
    }
}

/// An error of the data, with what the command line can do about it where data are missing.
impl From<DataError> for Failure {
    fn from(error: DataError) -> Self {
        match &error {
            DataError::Missing { dataset, why, .. } => {
                let other = format!("--data-dir DIR or GUMBEL_DATA name a folder that holds {dataset}/");
                Failure::Other(match why {
                    NotFetched::NotAsked => format!(
                        "{error}; {other}, without them `gumbel data fetch {dataset}` fetches it into the cache"
                    ),
                    NotFetched::Offline => format!("{error}; {other}, without --offline it is fetched"),
                    _ => format!("{error}; {other}"),
                })
            }
            DataError::NoCacheFolder => Failure::Other(format!("{error}; --data-dir DIR or GUMBEL_DATA name a folder")),
            DataError::Name(_) => Failure::Usage(error.to_string()),
            _ => Failure::Other(error.to_string()),
        }
    }
}

impl From<gumbel::Error> for Failure {
    fn from(error: gumbel::Error) -> Self {
        Error::from(error).into()
    }
}

/// Prints a line on stdout. A reader that has gone away is no error: nobody is left to tell.
pub fn line(text: &dyn std::fmt::Display) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|e| Failure::Other(format!("cannot write to standard output: {e}"))),
    }
}

/// Prints a value as one line of JSON.
pub fn json<T: serde::Serialize>(value: &T) -> Result<(), Failure> {
    line(&serde_json::to_string(value).expect("our records are plain data"))
}

/// Prints one line on stderr.
pub fn error(text: &str) {
    let _ = writeln!(io::stderr(), "gumbel: {}", printable(&text.replace('\n', " ")));
}

/// Prints a message for people on stderr, of some lines.
pub fn note(text: &str) {
    let mut out = io::stderr().lock();
    text.lines().for_each(|line| drop(writeln!(out, "{}", printable(line))));
}

/// Whether a person watches stderr.
pub fn watched() -> bool {
    io::stderr().is_terminal()
}
