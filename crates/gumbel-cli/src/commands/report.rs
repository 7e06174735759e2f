//! `gumbel report`.

use super::stored::{expect_ending, written};
use crate::args::{Common, Report};
use crate::output::Failure;
use crate::registry;
use gumbel_run::folder::Files;
use gumbel_run::picture::REPORT_FORMATS;
use gumbel_run::report;
use std::path::{Path, PathBuf};

/// Writes a page about runs, event files, or both.
pub fn run(common: &Common, command: &Report) -> Result<(), Failure> {
    command.out.as_deref().map_or(Ok(()), |out| expect_ending(out, REPORT_FORMATS))?;
    let folders: Vec<&Path> = command.runs.iter().map(PathBuf::as_path).collect();
    let runs = report::open_all(registry(), &folders)?;
    let out = match (&command.out, &command.tensorboard, &folders[..]) {
        (Some(out), ..) => Some(out.clone()),
        (None, Some(_), _) => None,
        (None, None, [folder]) => Some(Files::new(folder).other(Files::REPORT)),
        (None, None, _) => Some(Files::REPORT.into()),
    };
    if let Some(out) = out {
        report::write(&out, &runs, command.title.as_deref())?;
        written(common, &out)?;
    }
    if let Some(folder) = &command.tensorboard {
        report::tensorboard(folder, &runs)?;
        written(common, folder)?;
    }
    Ok(())
}
