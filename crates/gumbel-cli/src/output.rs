//! What goes to stdout and stderr.

use std::io::{self, IsTerminal, Write};

/// Exit code of a training that a signal has stopped, as shells have it for Ctrl-C.
pub const STOPPED: u8 = 130;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// An error of training, evaluation or run folders.
    #[error(transparent)]
    Vae(#[from] gumbel_vae::Error),
    /// An error of the data.
    #[error(transparent)]
    Data(#[from] gumbel_data::DataError),
    /// Wrong usage that the parser cannot see.
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
            Failure::Vae(e) if e.is_usage() => 2,
            Failure::Usage(_) => 2,
            Failure::Stopped(_) => STOPPED,
            _ => 1,
        }
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
    let _ = writeln!(io::stderr(), "gumbel: {}", text.replace('\n', " "));
}

/// Prints a message for people on stderr.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Whether a person watches stderr.
pub fn watched() -> bool {
    io::stderr().is_terminal()
}
