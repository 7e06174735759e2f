//! Commands that draw what a stored model makes: `sample`, `reconstruct`, `traverse`, `attributes`.

use super::open;
use super::stored::{expect_ending, matching, written};
use crate::args::{Attributes, Common, Look, Reconstruct, Sample, Traverse};
use crate::output::{self, Failure};
use gumbel_data::{Dataset, Source, Split};
use gumbel_run::folder::Files;
use gumbel_run::images::SplitImages;
use gumbel_run::labels::Count;
use gumbel_run::picture::{Format, GRID_FORMATS, SAMPLE_FORMATS, format};
use gumbel_run::show::Meaning;
use gumbel_run::stored::Stored;
use gumbel_run::{Config, show};
use serde::Serialize;
use std::path::{Path, PathBuf};

fn look(look: &Look) -> show::Look<'_> {
    show::Look { scale: look.scale, title: look.title.as_deref() }
}

/// A name that promises a picture or numbers; what belongs to pictures alone is refused of numbers.
fn expect_picture_or_numbers(out: &Path, look: &Look) -> Result<(), Failure> {
    expect_ending(out, SAMPLE_FORMATS)?;
    let numbers = format(out, SAMPLE_FORMATS)? == Format::Safetensors;
    let flags = [("--scale", look.scale.is_some()), ("--title", look.title.is_some())];
    match flags.iter().find(|(_, given)| numbers && *given) {
        Some((flag, _)) => Err(Failure::Usage(format!("{flag}: expected a PNG file, found --out {}", out.display()))),
        None => Ok(()),
    }
}

/// Draws the decoder's means.
pub fn sample(common: &Common, command: &Sample) -> Result<(), Failure> {
    expect_picture_or_numbers(&command.out, &command.look)?;
    let Stored { mut config, mut engine, card } = open(&command.run)?;
    let (order, meaning) = match command.sort {
        true => {
            let data = matching(common, &mut config, &card, &command.run)?;
            let images = SplitImages::new(&data, Split::Valid, config.binarization(), 0);
            (show::by_use(&mut *engine, &images)?, Meaning::of(&config, Some(&data)))
        }
        false => (None, Meaning::of(&config, class_names(common, &config).as_ref())),
    };
    let seed = command.seed.unwrap_or(config.seed());
    let which = show::Samples { seed, rows: command.rows, order, meaning, look: look(&command.look) };
    show::samples(&mut *engine, card.shape(), &which, &command.out)?;
    written(common, &command.out)
}

/// The data of a run whose classes have names, if they are at hand: samples are drawn without them too.
fn class_names(common: &Common, config: &Config) -> Option<Dataset> {
    if config.labels() == Count::Some(0) || !config.attributes().is_empty() {
        return None;
    }
    let source = common.source();
    let data_dir = source.data_dir.clone().or(config.data_dir().map(Into::into));
    config.load(&Source { data_dir, offline: true, ..source }, &mut |_| {}).ok()
}

/// Draws test images beside their reconstructions.
pub fn reconstruct(common: &Common, command: &Reconstruct) -> Result<(), Failure> {
    expect_ending(&command.out, GRID_FORMATS)?;
    let Stored { mut config, mut engine, card } = open(&command.run)?;
    let data = matching(common, &mut config, &card, &command.run)?;
    let images = SplitImages::new(&data, Split::Test, config.binarization(), 0);
    show::reconstructions(&mut *engine, &images, look(&command.look), &command.out)?;
    written(common, &command.out)
}

/// The file to write: in the run folder, if none is named.
fn place(out: &Option<PathBuf>, run: &Path, name: &str) -> PathBuf {
    out.clone().unwrap_or_else(|| Files::new(run).other(name))
}

/// What was drawn, and where.
#[derive(Serialize)]
struct Drawn<'a, T> {
    out: std::borrow::Cow<'a, str>,
    #[serde(flatten)]
    what: &'a T,
}

fn drawn(common: &Common, out: &Path, what: &impl Serialize) -> Result<(), Failure> {
    match common.json {
        true => output::json(&Drawn { out: out.to_string_lossy(), what }),
        false => written(common, out),
    }
}

/// Draws what coordinates of a Gaussian code do.
pub fn traverse(common: &Common, command: &Traverse) -> Result<(), Failure> {
    let out = place(&command.out, &command.run, "traverse.png");
    expect_picture_or_numbers(&out, &command.look)?;
    let Stored { mut config, mut engine, card } = open(&command.run)?;
    show::expect_codes(&config)?;
    let data = matching(common, &mut config, &card, &command.run)?;
    let images = SplitImages::new(&data, Split::Test, config.binarization(), 0);
    let which = show::Traverse {
        coordinates: command.coordinates.clone(),
        range: command.range,
        steps: command.steps,
        image: command.image,
        class: command.class.as_deref(),
        meaning: Meaning::of(&config, Some(&data)),
        look: look(&command.look),
    };
    let found = show::traverse(&mut *engine, &images, &which, &out)?;
    drawn(common, &out, &found)
}

/// Draws attributes on and off, or class by class.
pub fn attributes(common: &Common, command: &Attributes) -> Result<(), Failure> {
    let out = place(&command.out, &command.run, "attributes.png");
    expect_picture_or_numbers(&out, &command.look)?;
    let Stored { mut config, mut engine, card } = open(&command.run)?;
    show::expect_codes(&config)?;
    show::expect_labels(&config)?;
    let data = matching(common, &mut config, &card, &command.run)?;
    let images = SplitImages::new(&data, Split::Test, config.binarization(), 0);
    let meaning = Meaning::of(&config, Some(&data)).ok_or_else(|| {
        Failure::Usage(format!(
            "expected a run whose labels are classes or attributes, found the latent {}",
            config.latent().text
        ))
    })?;
    let seed = command.seed.unwrap_or(config.seed());
    let (rows, encoded) = (command.rows, command.encoded);
    let which = show::Attributes { meaning, rows, encoded, seed, look: look(&command.look) };
    let found = show::attributes(&mut *engine, &images, &which, &out)?;
    drawn(common, &out, &found)
}
