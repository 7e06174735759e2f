//! One file per group of commands.

pub mod bench;
pub mod data;
pub mod list;
pub mod report;
pub mod reproduce;
pub mod show;
pub mod solve;
pub mod stored;
pub mod sweep;
pub mod train;

use crate::args::Common;
use crate::output::{self, Failure};
use crate::registry;
use gumbel_data::{Dataset, Progress};
use gumbel_run::stored::Stored;
use gumbel_run::{Config, Error};
use std::path::Path;

/// Opens the best model of a stored run.
pub fn open(run: &Path) -> Result<Stored, Failure> {
    gumbel_run::stored::open(registry(), run).map_err(|error| match error {
        // What `train` could do about it is no flag of the commands that look at a run.
        Error::OtherRun { .. } => Failure::Other(error.to_string()),
        other => other.into(),
    })
}

/// Loads the images that a configuration asks for, from the folder that is named now, or else the one that the run
/// remembers; on a terminal, says what is being downloaded.
pub fn load(common: &Common, config: &mut Config) -> Result<Dataset, Failure> {
    let mut source = common.source();
    if source.data_dir.is_some() {
        config.set_data_dir(source.data_dir.clone());
    }
    source.data_dir = config.data_dir().map(Into::into);
    Ok(config.load(&source, &mut |p| progress(common, &p))?)
}

/// Shows the progress of a download to a person.
pub fn progress(common: &Common, progress: &Progress<'_>) {
    if common.quiet || !output::watched() {
        return;
    }
    match progress {
        Progress::Waiting { folder } => eprint!("\r\x1b[Kwaiting for another download into {}", folder.display()),
        Progress::Requesting { url, .. } => eprint!("\r\x1b[Kfetching {url}"),
        Progress::Received { file, bytes, total } => {
            let share = total.map_or(String::new(), |t| format!(" of {:.1}", t as f64 / 1e6));
            eprint!("\r\x1b[K{file}: {:.1}{share} MB", *bytes as f64 / 1e6);
        }
        Progress::Failed { file, error } => eprintln!("\r\x1b[K{file}: {error}"),
        Progress::Done { path, .. } => eprintln!("\r\x1b[K{}", path.display()),
        _ => {}
    }
}
