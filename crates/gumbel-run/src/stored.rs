//! Runs that are stored in folders: their configuration, their best model, their metrics, and where their data lay.

use crate::folder::Files;
use crate::metrics::{Metrics, Summary};
use crate::store::{self, write_atomic};
use crate::{Config, Error, Registry, Result};
use gumbel::engine::{Engine, Shape};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// What `best.safetensors` says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelCard {
    /// Epoch of these parameters.
    pub epoch: usize,
    /// Training steps done.
    pub step: u64,
    /// Image height in pixels.
    pub height: usize,
    /// Image width in pixels.
    pub width: usize,
    /// Numbers of a pixel.
    #[serde(default = "one")]
    pub channels: usize,
}

fn one() -> usize {
    1
}

impl ModelCard {
    pub(crate) fn new(epoch: usize, step: u64, shape: Shape) -> Self {
        ModelCard { epoch, step, height: shape.height, width: shape.width, channels: shape.channels }
    }

    /// The size of the images.
    pub fn shape(&self) -> Shape {
        Shape { height: self.height, width: self.width, channels: self.channels }
    }
}

/// The best model of a stored run, in the engine that its configuration asks for.
pub struct Stored {
    /// The run's configuration.
    pub config: Config,
    /// The engine with the model's parameters.
    pub engine: Box<dyn Engine>,
    /// What the model says of itself.
    pub card: ModelCard,
}

/// Opens the best model of a stored run.
///
/// # Errors
/// A folder without a run, or without a finished epoch; files that are damaged or belong to another run.
pub fn open(registry: &Registry, folder: &Path) -> Result<Stored> {
    let path = Files::new(folder).best();
    let config = open_config(registry, folder)?;
    if !path.exists() {
        return Err(Error::foreign(folder, "a run with at least one finished epoch", "no best.safetensors in it"));
    }
    let expected = || format!("a model of {}, {}", config.text("dataset"), config.latent().text);
    let foreign = |found: String| Error::foreign(&path, expected(), found);
    let (parameters, text) = store::read_model(&path, Some(&config.digest()))?;
    let card: ModelCard =
        serde_json::from_str(&text).map_err(|e| foreign(format!("a description like {text:?} ({e})")))?;
    let estimator = config.estimator()?;
    // The description must be possible before a network of its size is made.
    let pixels = card.height.checked_mul(card.width).and_then(|p| p.checked_mul(card.channels));
    let possible = pixels.is_some_and(|p| (1..=1 << 24).contains(&p))
        && config.model_entry().check(&config.model_options(&*estimator, card.shape())).is_ok();
    if !possible {
        return Err(foreign(format!("images of {}x{} pixels", card.height, card.width)));
    }
    let mut engine = config.engine(&*estimator, card.shape())?;
    let mut snapshot = engine.snapshot();
    (snapshot.parameters, snapshot.moments, snapshot.steps) = (parameters, vec![], card.step);
    engine.restore(&snapshot).map_err(|e| foreign(e.to_string()))?;
    Ok(Stored { config, engine, card })
}

/// The configuration of a stored run, with the folder in which its data lay.
///
/// # Errors
/// A folder without a run; a file with settings that cannot be.
pub fn open_config(registry: &Registry, folder: &Path) -> Result<Config> {
    let files = Files::new(folder);
    let path = files.config();
    if !path.exists() {
        return Err(Error::foreign(folder, "a run folder", "no config.toml in it"));
    }
    let mut config = Config::read(registry, &path)?;
    config.set_data_dir(data_dir(folder));
    Ok(config)
}

/// The metrics of a stored run.
///
/// # Errors
/// A file that cannot be read, or holds other lines.
pub fn read_metrics(folder: &Path) -> Result<Vec<Metrics>> {
    let path = Files::new(folder).metrics();
    let text = fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))?;
    let line = |(i, line): (usize, &str)| {
        let parsed = serde_json::from_str(line);
        parsed.map_err(|e| Error::foreign(&path, "lines of metrics", format!("line {}: {e}", i + 1)))
    };
    text.lines().enumerate().map(line).collect()
}

/// The summary of a finished run.
///
/// # Errors
/// A file that cannot be read, was cut short, or is something else.
pub fn read_summary(folder: &Path) -> Result<Summary> {
    let path = Files::new(folder).summary();
    let text = fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))?;
    serde_json::from_str(&text).map_err(|e| {
        let kind = if e.is_eof() { "one that was cut short" } else { "something else" };
        Error::foreign(&path, "the summary of a run", format!("{kind} ({e})"))
    })
}

/// Refuses the summary of a run with other settings.
pub(crate) fn check_summary(folder: &Path, config: &Config, summary: &Summary) -> Result<()> {
    let told = [&summary.dataset, &summary.latent, &summary.estimator, &summary.seed.to_string()];
    let settings = ["dataset", "latent", "estimator", "seed"];
    for (key, told) in settings.into_iter().zip(told) {
        let own = config.settings().get(key).map_or(String::new(), ToString::to_string);
        if own != *told {
            let expected = format!("the summary of its config.toml with {key} = {own}");
            return Err(Error::foreign(Files::new(folder).summary(), expected, format!("one of {key} = {told}")));
        }
    }
    Ok(())
}

/// The file that says where a run's data lay.
const DATA_DIR: &str = "data-dir";

/// Where the data of a stored run lay, if a folder was named.
pub fn data_dir(folder: &Path) -> Option<PathBuf> {
    let bytes = fs::read(Files::new(folder).other(DATA_DIR)).ok().filter(|b| !b.is_empty())?;
    #[cfg(unix)]
    let name = <OsString as std::os::unix::ffi::OsStringExt>::from_vec(bytes);
    #[cfg(not(unix))]
    let name = OsString::from(String::from_utf8(bytes).ok()?);
    Some(PathBuf::from(name))
}

/// Remembers where the data of a run lie.
pub(crate) fn remember_data_dir(files: &Files, folder: Option<&Path>) -> Result<()> {
    let path = files.other(DATA_DIR);
    match folder {
        Some(folder) => {
            let whole = std::path::absolute(folder).map_err(|e| Error::io("find", folder, e))?;
            write_atomic(&path, whole.as_os_str().as_encoded_bytes())
        }
        None => match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path, e)),
            _ => Ok(()),
        },
    }
}
