//! `gumbel data`.

use super::progress;
use crate::args::{Common, Data};
use crate::output::{self, Failure};
use gumbel_data::{DatasetName, FileStatus};

/// Looks at, fetches and verifies data sets.
pub fn run(common: &Common, command: &Data) -> Result<(), Failure> {
    match command {
        Data::List => list(common),
        Data::Info { name } => info(common, *name),
        Data::Fetch { name } => fetch(common, *name),
        Data::Verify { name } => verify(common, *name),
    }
}

fn list(common: &Common) -> Result<(), Failure> {
    for l in gumbel_data::list(&common.source())? {
        if common.json {
            output::json(&l)?;
            continue;
        }
        let place = match (&l.folder, l.available) {
            (None, _) => "generated".to_string(),
            (Some(folder), true) => format!("in {}", folder.display()),
            (Some(folder), false) => format!("not in {} (missing: {})", folder.display(), l.missing.join(", ")),
        };
        output::line(&format!("{:14} {place}", l.name.to_string()))?;
    }
    Ok(())
}

fn info(common: &Common, name: DatasetName) -> Result<(), Failure> {
    let i = gumbel_data::info(name, &common.source(), &mut |p| progress(common, &p))?;
    if common.json {
        output::json(&i)?;
        return Ok(());
    }
    output::line(&format!("{}: {}", i.name, i.origin))?;
    output::line(&format!("images   {} train, {} valid, {} test", i.images.train, i.images.valid, i.images.test))?;
    output::line(&format!("size     {} x {} pixels, grey", i.height, i.width))?;
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let (train, test) = (percent(i.mean_ink.train), percent(i.mean_ink.test));
    output::line(&format!("ink      {train} of the training pixels after rounding, {test} of the test pixels"))?;
    output::line(&format!("classes  {}: {}", i.classes.len(), i.classes.join(", ")))?;
    Ok(())
}

fn fetch(common: &Common, name: DatasetName) -> Result<(), Failure> {
    for f in gumbel_data::fetch(name, &common.source(), &mut |p| progress(common, &p))? {
        if common.json {
            output::json(&f)?;
        } else {
            output::line(&format!("{} ({} bytes)", f.path.display(), f.bytes))?;
        }
    }
    Ok(())
}

fn verify(common: &Common, name: DatasetName) -> Result<(), Failure> {
    let v = gumbel_data::verify(name, &common.source())?;
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
        "{name}: expected files with known checksums, found bad or missing: {}",
        names.join(", ")
    )))
}
