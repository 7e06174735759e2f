//! The tables and figures of the paper, made again: what is trained, what was published, and how the two compare.
//!
//! An experiment is two files, `experiments/NAME/grid.toml`, a grid of runs (see [`sweep`]), and
//! `experiments/NAME/published.toml`: the tables and curves to make of them, the published figures with their source,
//! and what is known to differ. Both are part of the program. What a finished run leaves is a [`Record`], a small JSON
//! file: its settings, its command, its summary and some points of its curve. Tables, pages and verdicts are made of
//! records alone, so that every number in them can be traced to one:
//!
//! ```
//! use gumbel_run::reproduce::{self, Results};
//!
//! let table1 = reproduce::find("table1")?.remove(0);
//! let results = Results::default(); // nothing is trained yet
//! let tables = reproduce::tables(&table1, &results);
//! assert_eq!(tables[0].rows[4].cells[0].paper, Some(155.37)); // MNIST, K = 50, the exact gradient
//! assert_eq!(tables[0].rows[4].cells[0].ours, None);
//! # Ok::<(), gumbel_run::Error>(())
//! ```

mod claims;
mod markdown;
mod page;
mod published;
mod record;
mod table;

pub use claims::{Claim, Compared, Judged, Side, Stated, Verdict, claims, judged};
pub use markdown::markdown;
pub use page::html;
pub use published::{CURVED, Column, Curves, From, Measured, Published, Step};
pub use record::{Curve, Record, Results};
pub use table::{Cell, Row, Table, tables};

use crate::config::Given;
use crate::folder::fitting_name;
use crate::sweep::{self, Grid};
use crate::{Error, Registry, Result};
use gumbel::registry::did_you_mean;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The files of an experiment.
struct Files {
    name: &'static str,
    grid: Option<&'static str>,
    published: &'static str,
}

macro_rules! file {
    ($name:literal, $file:literal) => {
        include_str!(concat!("../../../../experiments/", $name, "/", $file))
    };
}

macro_rules! experiment {
    ($name:literal) => {
        Files { name: $name, grid: Some(file!($name, "grid.toml")), published: file!($name, "published.toml") }
    };
    ($name:literal, no runs of its own) => {
        Files { name: $name, grid: None, published: file!($name, "published.toml") }
    };
}

/// All experiments, in the order of the paper.
static ALL: [Files; 15] = [
    experiment!("table1"),
    experiment!("table1-bound"),
    experiment!("table1-kl"),
    experiment!("figure1"),
    experiment!("figure2", no runs of its own),
    experiment!("figure3a"),
    experiment!("figure3b"),
    experiment!("n200"),
    experiment!("epsilon-lr"),
    experiment!("table2"),
    experiment!("table2-long"),
    experiment!("labels-epsilon"),
    experiment!("labels-best"),
    experiment!("figure4"),
    experiment!("figure5"),
];

/// An experiment.
#[derive(Debug, Clone)]
pub struct Experiment {
    /// Its name: that of its folder.
    pub name: String,
    /// Its published.toml, for messages.
    pub file: PathBuf,
    /// What is trained; nothing where all runs are those of other experiments.
    pub grid: Option<Grid>,
    /// What it is compared with.
    pub published: Published,
}

impl Experiment {
    /// An experiment of one's own: a folder with `published.toml` and, if it has runs of its own, `grid.toml`.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::ConfigFile`].
    pub fn open(folder: &Path) -> Result<Self> {
        let read = |path: &Path| std::fs::read_to_string(path).map_err(|e| Error::io("read", path, e));
        let (published, grid) = (folder.join("published.toml"), folder.join("grid.toml"));
        let whole = std::fs::canonicalize(folder).map_err(|e| Error::io("find", folder, e))?;
        Ok(Experiment {
            name: fitting_name(&whole.file_name().unwrap_or_default().to_string_lossy()),
            published: Published::parse(&published, &read(&published)?)?,
            file: published,
            grid: match grid.exists() {
                true => Some(Grid::parse(&grid, &read(&grid)?)?),
                false => None,
            },
        })
    }

    fn read(files: &Files) -> Result<Self> {
        let path = |file: &str| Path::new("experiments").join(files.name).join(file);
        Ok(Experiment {
            name: files.name.into(),
            grid: files.grid.map(|text| Grid::parse(&path("grid.toml"), text)).transpose()?,
            published: Published::parse(&path("published.toml"), files.published)?,
            file: path("published.toml"),
        })
    }

    /// The experiments whose runs its tables and curves show, itself the first.
    pub fn sources(&self) -> Vec<String> {
        let mut all = vec![self.name.clone()];
        for cell in self.published.cells() {
            let name = cell.split_once('/').map_or("", |(name, _)| name);
            if !all.iter().any(|known| known == name) {
                all.push(name.into());
            }
        }
        all
    }

    /// The names of all cells of its grid, with their seeds.
    fn named(&self, registry: &Registry) -> Result<BTreeSet<String>> {
        let Some(grid) = &self.grid else { return Ok(BTreeSet::new()) };
        let cells = grid.cells_of_any_build(registry, &Given::new())?;
        Ok(cells.into_iter().map(|cell| cell.name).collect())
    }

    /// Refuses an experiment with cells that this build of the program cannot train.
    ///
    /// # Errors
    /// The first of them, as [`Grid::cells`] says it.
    pub fn check_build(&self, registry: &Registry) -> Result<()> {
        self.grid.as_ref().map_or(Ok(()), |grid| grid.cells(registry, &Given::new()).map(drop))
    }

    fn wrong(&self, detail: String) -> Error {
        Error::ConfigFile { path: self.file.clone(), detail }
    }

    /// The cells of its grid with the first seeds.
    fn cells(&self, registry: &Registry, seeds: Option<u64>, quick: bool) -> Result<Vec<sweep::Cell>> {
        let Some(grid) = &self.grid else { return Ok(vec![]) };
        let nothing = Given::new();
        let mut cells = grid.cells(registry, if quick { grid.quick() } else { &nothing })?;
        let seeds = if quick { 1 } else { seeds.unwrap_or(self.published.seeds) };
        cells.retain(|cell| cell.config.seed() < seeds);
        sweep::seed_by_seed(&mut cells);
        Ok(cells)
    }
}

/// Refuses names of cells that no grid has, in the tables, the curves and the steps of some experiments.
///
/// # Errors
/// [`Error::ConfigFile`] with the name and where it stands.
pub fn check_names(experiments: &[Experiment], registry: &Registry) -> Result<()> {
    let mut known: Vec<(String, BTreeSet<String>)> = vec![];
    for experiment in experiments {
        for cell in experiment.published.cells() {
            let wrong = |found: String| experiment.wrong(format!("expected cells as EXPERIMENT/CELL, found {found}"));
            let Some((name, own)) = cell.split_once('/') else { return Err(wrong(format!("{cell:?}"))) };
            if known.iter().all(|(known, _)| known != name) {
                let given = [experiment].into_iter().chain(experiments).find(|e| e.name == name);
                let named = match (given, ALL.iter().find(|files| files.name == name)) {
                    (Some(given), _) => given.named(registry)?,
                    (None, Some(files)) => Experiment::read(files)?.named(registry)?,
                    _ => {
                        let near = did_you_mean(name, &names());
                        return Err(wrong(format!("{cell:?} of no experiment that is known here{near}")));
                    }
                };
                known.push((name.into(), named.iter().map(|cell| record::without_seed(cell).into()).collect()));
            }
            let named = known.iter().find(|(known, _)| known == name).map(|(_, named)| named).expect("it was added");
            if !named.contains(own) {
                let near = did_you_mean(own, &named.iter().map(String::as_str).collect::<Vec<_>>());
                return Err(wrong(format!("{cell:?}, which the grid of {name} has not{near}")));
            }
        }
        let runs =
            experiment.published.steps.iter().flat_map(|step| step.runs().into_iter().map(move |run| (step, run)));
        let mut own = None;
        for (step, run) in runs {
            if own.is_none() {
                own = Some(experiment.named(registry)?);
            }
            let own = own.as_ref().expect("it was made");
            if !own.contains(run) {
                let near = did_you_mean(run, &own.iter().map(String::as_str).collect::<Vec<_>>());
                let place = format!("in the step {:?}", step.title);
                let expected = "expected {run:CELL} with a cell of its grid and the seed";
                return Err(experiment.wrong(format!("{expected}, found {run:?} {place}{near}")));
            }
        }
    }
    Ok(())
}

/// The records of some experiments in `FOLDER/EXPERIMENT/results`, with those of the experiments that they name: each
/// is compared with its grid. Those of quick looks are marked, those with other settings are left out and named.
///
/// # Errors
/// Files that cannot be read, or are no records; grids of one's own that are wrong.
pub fn results(experiments: &[Experiment], registry: &Registry, folder: &Path) -> Result<Results> {
    let mut named: Vec<String> = vec![];
    for name in experiments.iter().flat_map(Experiment::sources) {
        if !named.contains(&name) {
            named.push(name);
        }
    }
    let mut results = Results::read(folder, named.iter().map(String::as_str))?;
    for name in &named {
        if results.of(name).next().is_none() {
            continue;
        }
        let found = match experiments.iter().find(|e| e.name == *name) {
            Some(given) => Some(given.clone()),
            None => ALL.iter().find(|files| files.name == name).map(Experiment::read).transpose()?,
        };
        if let Some(grid) = found.and_then(|experiment| experiment.grid) {
            let whole = grid.cells_of_any_build(registry, &Given::new())?;
            let quick = grid.cells_of_any_build(registry, grid.quick())?;
            results.compare(name, &whole, &quick);
        }
    }
    Ok(results)
}

/// What is trained for some experiments: for each experiment with runs the cells, in the order in which they begin.
/// `seeds`: how many, or as many as each experiment has by itself; a quick look has one, and short runs.
///
/// # Errors
/// Cells that cannot be, as that of a model which this program was built without; names of runs that no grid has, or
/// that would not be trained.
pub fn plan(
    experiments: &[Experiment],
    registry: &Registry,
    seeds: Option<u64>,
    quick: bool,
) -> Result<Vec<(String, Vec<sweep::Cell>)>> {
    check_names(experiments, registry)?;
    let mut all: Vec<(String, Vec<sweep::Cell>)> = vec![];
    let mut add = |name: &str, mut cells: Vec<sweep::Cell>| match all.iter_mut().find(|(known, _)| known == name) {
        Some((_, known)) => {
            cells.retain(|cell| known.iter().all(|other| other.name != cell.name));
            known.append(&mut cells);
        }
        None if cells.is_empty() => {}
        None => all.push((name.into(), cells)),
    };
    for experiment in experiments {
        let cells = experiment.cells(registry, seeds, quick)?;
        for step in &experiment.published.steps {
            let lost = |run: &&str| cells.iter().all(|cell| cell.name != *run);
            if let Some(run) = step.runs().into_iter().find(lost) {
                let place = format!("in the step {:?}", step.title);
                return Err(experiment
                    .wrong(format!("expected runs that are trained, found {run:?}, whose seed is not, {place}")));
            }
        }
        add(&experiment.name, cells);
    }
    for experiment in experiments {
        for from in &experiment.published.from {
            for other in find(&from.experiment)? {
                let mut cells = other.cells(registry, seeds, quick)?;
                cells.retain(|cell| from.takes(&format!("{}/{}", other.name, cell.name)));
                if cells.is_empty() {
                    let expected = format!("only: expected parts of names of cells of {}", other.name);
                    return Err(experiment.wrong(format!("{expected}, found {}", from.only.join(", "))));
                }
                add(&other.name, cells);
            }
        }
    }
    Ok(all)
}

/// The names of all experiments.
pub fn names() -> Vec<&'static str> {
    ALL.iter().map(|files| files.name).collect()
}

/// The experiments of a name: `all`, one of [`names`], the beginning of some, as `figure3`, or the path of a folder,
/// for [`Experiment::open`].
///
/// # Errors
/// [`Error::Setting`]: no such experiment.
pub fn find(name: &str) -> Result<Vec<Experiment>> {
    let path = Path::new(name);
    if path.components().count() > 1 || path.join("published.toml").is_file() {
        return Ok(vec![Experiment::open(path)?]);
    }
    let exact = |files: &&Files| files.name == name;
    let begins = |files: &&Files| name == "all" || !name.is_empty() && files.name.starts_with(name);
    let found: Vec<&Files> = match ALL.iter().any(|files| files.name == name) {
        true => ALL.iter().filter(exact).collect(),
        false => ALL.iter().filter(begins).collect(),
    };
    if found.is_empty() {
        let near = did_you_mean(name, &names());
        return Err(Error::setting(
            "experiment",
            name,
            format!("all, {}, or a folder with a published.toml{near}", names().join(", ")),
        ));
    }
    found.into_iter().map(Experiment::read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::{Count, Schedule};

    /// The registry without Burn knows no convolutions.
    fn is_built(experiment: &Experiment) -> bool {
        cfg!(feature = "burn") || experiment.name != "figure5"
    }

    /// Training steps of a run, with as many images as most data sets have.
    fn steps(config: &crate::Config) -> u64 {
        let (batch, limit) = (config.whole("batch-size"), config.whole("train-limit"));
        let of = |images: u64| images.div_ceil(batch);
        let images = if limit == 0 { 50_000 } else { limit };
        let labelled = match (config.supervision_schedule(), config.labels()) {
            (Schedule::Phases(passes, _), Count::Some(labels)) => passes * of(labels as u64),
            (Schedule::Phases(passes, _), Count::All) => passes * of(images),
            _ => 0,
        };
        labelled + config.whole("epochs") * of(images)
    }

    #[test]
    fn every_experiment_can_be_and_every_run_that_is_named_is_trained() {
        let all = find("all").unwrap();
        let (registry, mut trained) = (Registry::standard(), BTreeSet::new());
        for experiment in all.iter().filter(|e| is_built(e)) {
            let Some(grid) = &experiment.grid else { continue };
            let cells = grid.cells(&registry, &Default::default()).unwrap();
            trained
                .extend(cells.iter().map(|cell| format!("{}/{}", experiment.name, record::without_seed(&cell.name))));
            // A quick look has the same names.
            assert!(!grid.quick().is_empty(), "{}", experiment.name);
            let quick = grid.cells(&registry, grid.quick()).unwrap();
            let names = |cells: &[sweep::Cell]| cells.iter().map(|c| c.name.clone()).collect::<Vec<_>>();
            assert_eq!(names(&cells), names(&quick), "{}", experiment.name);
            // As short as the help says.
            for (whole, quick) in cells.iter().zip(&quick) {
                let (whole, short) = (steps(&whole.config), steps(&quick.config));
                assert!(10 * short <= whole, "{}/{}: {short} steps of {whole}", experiment.name, quick.name);
            }
        }
        for experiment in all.iter().filter(|e| is_built(e)) {
            for cell in experiment.published.cells() {
                assert!(trained.contains(&cell), "{} names {cell}, which no grid has", experiment.name);
            }
            for from in &experiment.published.from {
                assert!(trained.iter().any(|cell| from.takes(cell)), "{}: {from:?}", experiment.name);
            }
        }
        for claim in claims().unwrap() {
            for cell in claim.cells() {
                assert!(trained.contains(&cell), "claim {:?} names {cell}, which no grid has", claim.sentence);
            }
        }
    }

    #[test]
    fn a_plan_has_the_runs_of_other_experiments_once() {
        let registry = Registry::standard();
        let count = |name: &str, seeds, quick| -> Vec<(String, usize)> {
            let plan = plan(&find(name).unwrap(), &registry, seeds, quick).unwrap();
            plan.into_iter().map(|(name, cells)| (name, cells.len())).collect()
        };
        let one = |name: &str, cells| vec![(name.to_string(), cells)];
        assert_eq!(count("table1", None, false), one("table1", 45));
        assert_eq!(count("table1", Some(3), false), one("table1", 135));
        assert_eq!(count("table1", Some(3), true), one("table1", 45));
        assert_eq!(count("table2", None, false), one("table2", 60));
        assert_eq!(count("figure2", None, false), one("table1", 18));
        let both: Vec<Experiment> = ["table1", "figure2"].iter().flat_map(|name| find(name).unwrap()).collect();
        assert_eq!(plan(&both, &registry, None, false).unwrap()[0].1.len(), 45);
        let seeds: Vec<u64> =
            plan(&both, &registry, Some(2), false).unwrap()[0].1.iter().map(|c| c.config.seed()).collect();
        assert!(seeds.is_sorted());
    }

    #[test]
    fn experiments_are_found_by_name() {
        let found = |name: &str| find(name).unwrap().into_iter().map(|e| e.name).collect::<Vec<_>>();
        assert_eq!(found("table1"), ["table1"]);
        assert_eq!(found("figure3"), ["figure3a", "figure3b"]);
        assert_eq!(found("all").len(), ALL.len());
        for wrong in ["", "tabel1", "figure9"] {
            let error = find(wrong).unwrap_err();
            assert!(error.is_usage() && error.to_string().contains("table1, "), "{error}");
        }
    }
}
