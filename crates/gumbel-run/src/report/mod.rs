//! A page about stored runs, in one file: what they have reached, their curves, pictures, settings and commands.
//!
//! The page needs nothing beside itself, neither a network nor other files, and is whole without its script. The same
//! runs give the same bytes. Every figure of a run has an attribute `data-value` with all digits, and `data-source`:
//! the file, for lines of metrics the number of the line, and the place in its JSON, such as `summary.json#/test/bound`
//! or `metrics.jsonl:9#/kl`. Tags, attributes and entities are those of XML too.
//!
//! ```no_run
//! use gumbel_run::{Registry, report};
//!
//! let runs = report::open_all(&Registry::standard(), &["runs/a".as_ref(), "runs/b".as_ref()])?;
//! report::write("report.html".as_ref(), &runs, None)?;
//! report::tensorboard("events".as_ref(), &runs)?;
//! # Ok::<(), gumbel_run::Error>(())
//! ```

mod command;
pub(crate) mod curves;
pub(crate) mod figures;
pub(crate) mod page;
mod tensorboard;

pub use command::{command, quoted};
pub use tensorboard::tensorboard;

use crate::folder::{Files, fitting_name};
use crate::metrics::{Metrics, Summary};
use crate::picture::{REPORT_FORMATS, format};
use crate::store::write_atomic;
use crate::stored::{check_summary, open_config, read_metrics, read_summary};
use crate::{Config, Error, Registry, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// What a page shows of a run.
#[derive(Debug, Clone)]
pub struct Run {
    /// Its name: that of its folder.
    pub name: String,
    /// Its settings.
    pub config: Config,
    /// Lines of metrics, of which there is at least one.
    pub metrics: Vec<Metrics>,
    /// What it has reached, if it is finished.
    pub summary: Option<Summary>,
    /// The pictures of its folder.
    pub pictures: Vec<Picture>,
}

/// A picture of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// The name of the file.
    pub file: String,
    /// Its content: a PNG picture, or by the ending of its name an SVG picture.
    pub bytes: Vec<u8>,
    /// Width and height in pixels, of PNG pictures.
    pub size: Option<(u32, u32)>,
}

/// Pictures that are looked for, with what they show.
const PICTURES: [(&str, &str); 5] = [
    (Files::PICTURES[0], "samples of the model"),
    (Files::PICTURES[1], "test images beside their reconstructions"),
    (Files::PICTURES[2], "bounds over the epochs"),
    (Files::TRAVERSE, "what coordinates of the Gaussian code do"),
    (Files::ATTRIBUTES, "attributes or classes at the same Gaussian code"),
];

impl Run {
    /// Reads a run, finished or not.
    ///
    /// # Errors
    /// A folder without a run; a file that cannot be read or is not what it should be; no metrics.
    pub fn open(registry: &Registry, folder: &Path) -> Result<Self> {
        let files = Files::new(folder);
        let config = open_config(registry, folder)?;
        let metrics = match read_metrics(folder)? {
            lines if lines.is_empty() => {
                return Err(Error::foreign(files.metrics(), "at least one line of metrics", "none"));
            }
            lines => lines,
        };
        let summary = match files.summary().exists() {
            true => Some(read_summary(folder)?),
            false => None,
        };
        if let Some(summary) = &summary {
            check_summary(folder, &config, summary)?;
        }
        // It was finished once, and goes on to more epochs.
        let summary = summary.filter(|summary| summary.epochs as u64 == config.whole("epochs"));
        let pictures = PICTURES.iter().filter_map(|(file, _)| Picture::read(&files.other(file), file).transpose());
        Ok(Run { name: name_of(folder)?, config, metrics, summary, pictures: pictures.collect::<Result<_>>()? })
    }

    /// The last epoch with metrics.
    pub fn epoch(&self) -> usize {
        self.metrics.iter().map(|line| line.epoch).max().unwrap_or(0)
    }
}

/// The name of a folder, also of one that is given as `.`.
fn name_of(folder: &Path) -> Result<String> {
    let whole: PathBuf = match folder.file_name() {
        Some(name) => name.into(),
        None => fs::canonicalize(folder).map_err(|e| Error::io("find", folder, e))?,
    };
    Ok(whole.file_name().unwrap_or(whole.as_os_str()).to_string_lossy().into_owned())
}

impl Picture {
    /// Reads a picture, if there is one.
    pub(crate) fn read(path: &Path, file: &str) -> Result<Option<Self>> {
        let name = file.to_string();
        let bytes = match fs::read(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|e| Error::io("read", path, e))?,
        };
        if file.ends_with(".svg") {
            return match bytes.starts_with(b"<svg") || bytes.starts_with(b"<?xml") {
                true => Ok(Some(Picture { file: name, bytes, size: None })),
                false => Err(Error::foreign(path, "an SVG picture", "something else")),
            };
        }
        // All of it: a picture that was cut short has a header too.
        let decoded = png::Decoder::new(std::io::Cursor::new(&bytes)).read_info().and_then(|mut reader| {
            while reader.next_row()?.is_some() {}
            Ok(reader.info().size())
        });
        let size = decoded.map_err(|e| Error::foreign(path, "a PNG picture", format!("another file ({e})")))?;
        Ok(Some(Picture { file: name, bytes, size: Some(size) }))
    }

    /// What it shows.
    fn shows(&self) -> &'static str {
        PICTURES.iter().find(|(file, _)| *file == self.file).map_or("a picture", |(_, shows)| shows)
    }
}

/// Reads several runs, in the order in which they are given.
///
/// # Errors
/// As [`Run::open`]; two runs of one name, which a page could not tell apart.
pub fn open_all(registry: &Registry, folders: &[&Path]) -> Result<Vec<Run>> {
    let mut runs: Vec<Run> = vec![];
    for (i, folder) in folders.iter().enumerate() {
        let run = Run::open(registry, folder)?;
        if let Some(twin) = runs.iter().position(|other| fitting_name(&other.name) == fitting_name(&run.name)) {
            let expected = format!("a run of another name than {}", folders[twin].display());
            return Err(Error::foreign(folders[i], crate::error::escaped(&expected), format!("{:?} twice", run.name)));
        }
        runs.push(run);
    }
    Ok(runs)
}

/// The page about some runs. Without a title, it has that of the run, or says how many there are.
///
/// # Errors
/// [`Error::Setting`] for no runs at all.
pub fn html(runs: &[Run], title: Option<&str>) -> Result<String> {
    match runs {
        [] => Err(Error::setting("runs", 0, "at least one run")),
        runs => Ok(page::page(runs, title)),
    }
}

/// Writes the page about some runs.
///
/// # Errors
/// As [`html()`]; [`Error::Ending`] for the name of another format; [`Error::Io`].
pub fn write(path: &Path, runs: &[Run], title: Option<&str>) -> Result<()> {
    format(path, REPORT_FORMATS)?;
    write_atomic(path, html(runs, title)?.as_bytes())
}
