//! `gumbel data`.

use super::progress;
use crate::args::{Common, Data};
use crate::output::{self, Failure};
use crate::registry;
use gumbel_data::{DatasetEntry, FileStatus, PixelKind, printable};

/// Looks at, fetches and verifies data sets.
pub fn run(common: &Common, command: &Data) -> Result<(), Failure> {
    match command {
        Data::List => list(common),
        Data::Info { name } => info(common, &named(name)?),
        Data::Fetch { name } => fetch(common, &named(name)?),
        Data::Verify { name } => verify(common, &named(name)?),
    }
}

/// The data set of a name; a name that is none is wrong usage.
fn named(name: &str) -> Result<DatasetEntry, Failure> {
    Ok(gumbel_data::dataset(name)?)
}

/// A path, fit for a line of a terminal.
fn shown(path: &std::path::Path) -> String {
    printable(&path.to_string_lossy()).into_owned()
}

fn list(common: &Common) -> Result<(), Failure> {
    for l in gumbel_data::list(&registry().datasets, &common.source())? {
        if common.json {
            output::json(&l)?;
            continue;
        }
        let place = match (&l.folder, l.available) {
            (None, _) => "generated".to_string(),
            (Some(folder), true) => format!("in {}", shown(folder)),
            (Some(folder), false) => format!("not in {} (missing: {})", shown(folder), l.missing.join(", ")),
        };
        output::line(&format!("{:14} {place}", l.name))?;
    }
    Ok(())
}

fn info(common: &Common, entry: &DatasetEntry) -> Result<(), Failure> {
    let i = gumbel_data::info(entry, &common.source())?;
    if common.json {
        output::json(&i)?;
        return Ok(());
    }
    output::line(&format!("{}: {}", i.name, i.origin))?;
    output::line(&format!("images   {} train, {} valid, {} test", i.images.train, i.images.valid, i.images.test))?;
    let pixels = match i.pixels {
        PixelKind::Ink => "ink on a ground: Bernoulli, rounded, where nothing else is said",
        PixelKind::Grey => "grey: 256 levels",
        PixelKind::Colour => "colour: red, green, blue, 256 levels each",
    };
    let channels = if i.channels == 1 { "1 channel".to_string() } else { format!("{} channels", i.channels) };
    output::line(&format!("size     {} x {} pixels, {channels}", i.height, i.width))?;
    output::line(&format!("pixels   {pixels}"))?;
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let (train, test) = (percent(i.mean_ink.train), percent(i.mean_ink.test));
    output::line(&format!("ink      {train} of the training pixels after rounding, {test} of the test pixels"))?;
    match i.classes.len() {
        0 => output::line(&"classes  none")?,
        count => output::line(&format!("classes  {count}: {}", printable(&i.classes.join(", "))))?,
    }
    if !i.attributes.is_empty() {
        let count = i.attributes.len();
        output::line(&format!("attributes {count}, with the share of the training and of the test images:"))?;
    }
    let share = |share: Option<f64>| share.map_or("-".into(), percent);
    for ((name, train), test) in i.attributes.iter().zip(i.attribute_shares.train).zip(i.attribute_shares.test) {
        output::line(&format!("  {:24} {:>7} {:>7}", printable(name), share(train), share(test)))?;
    }
    Ok(())
}

fn fetch(common: &Common, entry: &DatasetEntry) -> Result<(), Failure> {
    let files = gumbel_data::fetch(entry, &common.source(), &mut |p| progress(common, &p));
    for f in files? {
        if common.json {
            output::json(&f)?;
        } else {
            output::line(&format!("{} ({} bytes)", shown(&f.path), f.bytes))?;
        }
    }
    Ok(())
}

fn verify(common: &Common, entry: &DatasetEntry) -> Result<(), Failure> {
    let v = gumbel_data::verify(entry, &common.source())?;
    if common.json {
        output::json(&v)?;
    } else {
        for f in &v.files {
            let status = match f.status {
                FileStatus::Good => "good",
                FileStatus::Bad => "BAD: its checksum is none of the known ones",
                FileStatus::Missing => "missing",
                FileStatus::Unknown => "present, no checksum is known",
            };
            output::line(&format!("{:32} {status}", f.file))?;
        }
    }
    if v.ok {
        return Ok(());
    }
    let wrong = v.files.iter().filter(|f| matches!(f.status, FileStatus::Bad | FileStatus::Missing));
    let names: Vec<&str> = wrong.map(|f| f.file.as_str()).collect();
    Err(Failure::Other(format!(
        "{}: expected files with known checksums, found bad or missing: {}",
        v.name,
        names.join(", ")
    )))
}
