//! Tables of finished runs: what differs between their settings, and what they have reached, averaged over seeds.
//!
//! Rows are runs that differ in nothing but the seed; columns are the settings in which two rows that have them differ.
//! Of a figure, the mean, its standard error and the number of seeds. The best row of a data set and latent variable is
//! that with the least mean validation bound among those that can be compared; runs that have trained on the validation
//! images stand apart.

use crate::config::every_key;
use crate::evaluate::BoundKind;
use crate::folder::Files;
use crate::metrics::Summary;
use crate::stored::{check_summary, read_metrics, read_summary};
use crate::{Config, Error, Registry, Result};
use gumbel::registry::did_you_mean;
use serde::Serialize;
use serde_json::{Map, Value as Json, json};
use std::fs;
use std::path::{Path, PathBuf};

/// A finished run.
#[derive(Debug, Clone)]
pub struct Run {
    /// Its folder.
    pub folder: PathBuf,
    /// Its settings.
    pub config: Config,
    /// What it has reached.
    pub summary: Summary,
}

/// A run that is not finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// Its folder.
    pub folder: PathBuf,
    /// The last epoch with metrics.
    pub epoch: usize,
    /// The epochs that were asked for.
    pub epochs: u64,
}

/// All runs below a folder.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// The finished ones, in the order of their folders' names.
    pub runs: Vec<Run>,
    /// The others.
    pub unfinished: Vec<Unfinished>,
}

/// All runs below a folder: folders with `config.toml` and `summary.json`. Hidden folders and links are left out.
///
/// # Errors
/// [`Error::Foreign`] and [`Error::ConfigFile`] that name the file: a summary that is none or was cut short, one
/// without or beside another configuration, runs of several versions.
pub fn find(registry: &Registry, folder: &Path) -> Result<Found> {
    let mut found = Found::default();
    visit(registry, folder, &mut found)?;
    if let Some((first, other)) = found.runs.first().and_then(|first| {
        let version = |run: &&Run| run.summary.version != first.summary.version;
        Some((first, found.runs.iter().find(version)?))
    }) {
        let expected =
            format!("version {} as in {}", first.summary.version, Files::new(&first.folder).summary().display());
        let other_version = format!("version {}", other.summary.version);
        return Err(Error::foreign(Files::new(&other.folder).summary(), expected, other_version));
    }
    Ok(found)
}

fn visit(registry: &Registry, folder: &Path, found: &mut Found) -> Result<()> {
    let io = |e| Error::io("read", folder, e);
    let mut below = vec![];
    for entry in fs::read_dir(folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if !hidden && entry.file_type().map_err(io)?.is_dir() {
            below.push(entry.path());
        }
    }
    below.sort();
    let files = Files::new(folder);
    let (config, summary) = (files.config(), files.summary());
    match (config.is_file(), summary.is_file()) {
        (_, true) => return finished(registry, folder, found),
        // A killed run may not have come as far as its first metrics.
        (true, false) if files.other("checkpoint").is_dir() || files.metrics().is_file() => {
            let config = Config::read(registry, &config)?;
            let metrics = read_metrics(folder).unwrap_or_default();
            let epoch = metrics.last().map_or(0, |line| line.epoch);
            found.unfinished.push(Unfinished { folder: folder.into(), epoch, epochs: config.whole("epochs") });
            return Ok(());
        }
        _ => {}
    }
    below.iter().try_for_each(|folder| visit(registry, folder, found))
}

fn finished(registry: &Registry, folder: &Path, found: &mut Found) -> Result<()> {
    let files = Files::new(folder);
    let summary = read_summary(folder)?;
    if !files.config().is_file() {
        return Err(Error::foreign(folder, "a run folder with config.toml and summary.json", "no config.toml in it"));
    }
    let config = Config::read(registry, &files.config())?;
    check_summary(folder, &config, &summary)?;
    // It was finished once, and goes on to more epochs.
    if config.whole("epochs") != summary.epochs as u64 {
        let epoch = read_metrics(folder).ok().and_then(|m| m.last().map(|line| line.epoch)).unwrap_or(summary.epochs);
        found.unfinished.push(Unfinished { folder: folder.into(), epoch, epochs: config.whole("epochs") });
        return Ok(());
    }
    found.runs.push(Run { folder: folder.into(), config, summary });
    Ok(())
}

/// The mean of some seeds' figures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Mean {
    /// The mean.
    pub mean: f64,
    /// Its standard error; of one seed there is none.
    pub se: Option<f64>,
    /// The number of seeds.
    pub n: usize,
}

impl Mean {
    /// Of some numbers; nothing of none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let n = values.len();
        let mean = values.iter().sum::<f64>() / n as f64;
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        let se = (n > 1).then(|| (squares / (n - 1) as f64 / n as f64).sqrt());
        (n > 0).then_some(Mean { mean, se, n })
    }
}

/// A figure of a table: its name and how a run tells it.
pub(crate) struct Measure {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// Where it stands in the JSON of a summary.
    pub(crate) place: &'static str,
    pub(crate) of: Of,
    pub(crate) percent: bool,
}

impl Measure {
    /// What a value is multiplied by where people read it.
    pub(crate) fn scale(&self) -> f64 {
        if self.percent { 100.0 } else { 1.0 }
    }

    /// Digits after the point.
    pub(crate) fn digits(&self) -> usize {
        if self.name == "seconds" { 0 } else { 2 }
    }
}

/// A figure by its name.
pub(crate) fn measure_named(name: &str) -> Option<&'static Measure> {
    MEASURES.iter().find(|measure| measure.name == name)
}

/// The names of all figures.
pub(crate) fn measure_names() -> Vec<&'static str> {
    MEASURES.iter().map(|measure| measure.name).collect()
}

type Of = fn(&Summary) -> Option<f64>;

const fn measure(name: &'static str, title: &'static str, place: &'static str, of: Of) -> Measure {
    Measure { name, title, place, of, percent: false }
}

const fn share(name: &'static str, title: &'static str, place: &'static str, of: Of) -> Measure {
    Measure { name, title, place, of, percent: true }
}

/// All figures: test at the best validation epoch, and at the last one.
const MEASURES: [Measure; 13] = [
    measure("valid_bound", "valid bound", "valid/bound", |s| Some(s.valid.bound)),
    measure("bound", "test bound", "test/bound", |s| Some(s.test.bound)),
    measure("nll", "-ln p(x)", "test/nll", |s| s.test.nll),
    measure("paper_loss", "paper_loss", "test/paper_loss", |s| s.test.paper_loss),
    measure("kl", "KL", "test/kl", |s| Some(s.test.kl)),
    share("accuracy", "accuracy %", "test/accuracy", |s| s.test.accuracy),
    measure("bits_per_dimension", "bits per dimension", "test/bits_per_dimension", |s| s.test.bits_per_dimension),
    measure("final_bound", "final bound", "final_test/bound", |s| Some(s.final_test.bound)),
    measure("final_nll", "final -ln p(x)", "final_test/nll", |s| s.final_test.nll),
    measure("final_paper_loss", "final paper_loss", "final_test/paper_loss", |s| s.final_test.paper_loss),
    measure("final_kl", "final KL", "final_test/kl", |s| Some(s.final_test.kl)),
    share("final_accuracy", "final accuracy %", "final_test/accuracy", |s| s.final_test.accuracy),
    measure("seconds", "seconds", "seconds", |s| Some(s.seconds)),
];

/// Runs that differ in nothing but the seed.
#[derive(Debug, Clone)]
pub struct Row {
    /// Values of the settings of the table; nothing where the runs do not have it.
    pub settings: Vec<Option<String>>,
    /// Seeds.
    pub seeds: Vec<u64>,
    /// Folders.
    pub folders: Vec<PathBuf>,
    /// The figures of the table.
    pub figures: Vec<Option<Mean>>,
    /// Whether a bound of a test is an estimate.
    pub is_estimate: bool,
    /// Whether it has the least validation bound of several rows of its data set and latent that can be compared.
    pub is_best: bool,
}

/// A table.
pub struct Table {
    keys: Vec<String>,
    measures: Vec<&'static Measure>,
    /// Rows, in the order of the first folder of each.
    pub rows: Vec<Row>,
}

/// What runs must have in common for their bounds to be compared: the same images, seen in the same way, and bounds of
/// one kind.
pub(crate) fn comparable(config: &Config, kind: BoundKind) -> impl PartialEq + use<> {
    let named = |key| config.text(key).to_string();
    (named("dataset"), named("binarization"), named("likelihood"), config.whole("eval-limit"), kind)
}

/// Keys that stand in no row: of the seeds it is averaged, the other one changes nothing.
const APART: [&str; 2] = ["seed", "checkpoint-every"];

impl Table {
    /// The table of some runs, with columns that are chosen by name, or all that differ and all that is known.
    ///
    /// # Errors
    /// [`Error::Setting`]: a column that is neither a setting nor a figure; [`Error::Foreign`]: two runs with all
    /// settings the same, of which one would count twice.
    pub fn new(registry: &Registry, runs: &[Run], columns: Option<&[String]>) -> Result<Self> {
        let mut groups: Vec<Vec<&Run>> = vec![];
        let settings = |run: &Run| -> Vec<(String, String)> {
            let all = run.config.settings().iter().filter(|(key, _)| !APART.contains(key));
            all.map(|(key, value)| (key.to_string(), value.to_string())).collect()
        };
        let mut known: std::collections::HashMap<_, usize> = Default::default();
        for run in runs {
            let group = *known.entry(settings(run)).or_insert(groups.len());
            match groups.get_mut(group) {
                Some(same) => {
                    if let Some(twin) = same.iter().find(|other| other.config.seed() == run.config.seed()) {
                        let found = format!("the settings and the seed of {}", twin.folder.display());
                        return Err(Error::foreign(&run.folder, "a run unlike the others", found));
                    }
                    same.push(run);
                }
                None => groups.push(vec![run]),
            }
        }
        let firsts: Vec<&Config> = groups.iter().map(|group| &group[0].config).collect();
        let measured = |measure: &&Measure| runs.iter().any(|run| (measure.of)(&run.summary).is_some());
        let (keys, measures): (Vec<String>, Vec<&Measure>) = match columns {
            None => (differing(&firsts), MEASURES.iter().filter(measured).collect()),
            Some(names) => chosen(registry, names)?,
        };
        let mut rows: Vec<Row> = groups
            .iter()
            .map(|group| {
                let value = |key: &String| group[0].config.settings().get(key).map(ToString::to_string);
                let figure = |measure: &&Measure| {
                    let values = group.iter().filter_map(|run| (measure.of)(&run.summary));
                    Mean::of(&values.collect::<Vec<_>>())
                };
                Row {
                    settings: keys.iter().map(value).collect(),
                    seeds: group.iter().map(|run| run.config.seed()).collect(),
                    folders: group.iter().map(|run| run.folder.clone()).collect(),
                    figures: measures.iter().map(figure).collect(),
                    is_estimate: group.iter().any(|run| run.summary.test.bound_kind != BoundKind::Exact),
                    is_best: false,
                }
            })
            .collect();
        // A bound of images that were trained on is not one of images that were not.
        let place = |group: &[&Run]| {
            let (config, kind) = (&group[0].config, group[0].summary.valid.bound_kind);
            (comparable(config, kind), config.latent().text.clone(), config.text("train-on").to_string())
        };
        let valid = |group: &[&Run]| {
            Mean::of(&group.iter().map(|run| run.summary.valid.bound).collect::<Vec<_>>()).map_or(f64::NAN, |m| m.mean)
        };
        for (i, group) in groups.iter().enumerate() {
            let rivals = groups.iter().enumerate().filter(|(j, other)| *j != i && place(other) == place(group));
            let bounds: Vec<f64> = rivals.map(|(_, other)| valid(other)).collect();
            rows[i].is_best = !bounds.is_empty() && bounds.iter().all(|other| valid(group) <= *other);
        }
        Ok(Table { keys, measures, rows })
    }

    /// As a table in Markdown, the best rows in bold. Figures of estimates have `≈`.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        let mut line = |cells: Vec<String>| text += &format!("{}\n", markdown_row(&cells));
        let titles = self.measures.iter().map(|measure| measure.title.to_string());
        line(self.keys.iter().cloned().chain(["seeds".to_string()]).chain(titles).collect());
        let rules = self.keys.iter().map(|_| "---").chain(std::iter::once("---:"));
        line(rules.chain(self.measures.iter().map(|_| "---:")).map(String::from).collect());
        for row in &self.rows {
            let settings = row.settings.iter().map(|value| value.clone().unwrap_or("-".into()));
            let figures = self.measures.iter().zip(&row.figures).map(|(measure, figure)| {
                let Some(Mean { mean, se, .. }) = figure else { return "-".to_string() };
                let (scale, digits) = (measure.scale(), measure.digits());
                let error = se.map_or(String::new(), |se| format!(" ± {:.digits$}", scale * se));
                let about = if row.is_estimate && measure.name.ends_with("bound") { "≈ " } else { "" };
                format!("{about}{:.digits$}{error}", scale * mean)
            });
            let cells = settings.chain([row.seeds.len().to_string()]).chain(figures);
            let bold = |cell: String| if row.is_best { format!("**{cell}**") } else { cell };
            line(cells.map(bold).collect());
        }
        text
    }

    /// As comma-separated values: of every figure the mean, its standard error and the number of seeds.
    pub fn csv(&self) -> String {
        let quoted = |cell: &str| match cell.contains([',', '"', '\n', '\r']) {
            true => format!("\"{}\"", cell.replace('"', "\"\"")),
            false => cell.to_string(),
        };
        let mut text = String::new();
        let mut line = |cells: Vec<String>| {
            let cells: Vec<String> = cells.iter().map(|cell| quoted(cell)).collect();
            text += &(cells.join(",") + "\n");
        };
        let titles = self.measures.iter().flat_map(|m| ["", "_se", "_n"].map(|part| format!("{}{part}", m.name)));
        line(self.keys.iter().cloned().chain(["seeds", "best"].map(String::from)).chain(titles).collect());
        for row in &self.rows {
            let settings = row.settings.iter().map(|value| value.clone().unwrap_or_default());
            let figures = row.figures.iter().flat_map(|figure| match figure {
                Some(Mean { mean, se, n }) => {
                    [mean.to_string(), se.map_or(String::new(), |se| se.to_string()), n.to_string()]
                }
                None => [String::new(), String::new(), "0".into()],
            });
            line(settings.chain([row.seeds.len().to_string(), row.is_best.to_string()]).chain(figures).collect());
        }
        text
    }

    /// As JSON, one object for each row.
    pub fn json(&self) -> Vec<Json> {
        let row = |row: &Row| {
            let settings: Map<String, Json> =
                self.keys.iter().cloned().zip(row.settings.iter().map(|v| json!(v))).collect();
            let folders: Vec<String> = row.folders.iter().map(|f| f.to_string_lossy().into_owned()).collect();
            let mut all = Map::new();
            all.insert("settings".into(), settings.into());
            all.insert("seeds".into(), json!(row.seeds));
            all.insert("folders".into(), json!(folders));
            all.insert("best".into(), row.is_best.into());
            all.insert("estimate".into(), row.is_estimate.into());
            let figures = self.measures.iter().zip(&row.figures);
            all.extend(figures.map(|(measure, figure)| (measure.name.to_string(), json!(figure))));
            Json::Object(all)
        };
        self.rows.iter().map(row).collect()
    }
}

/// Settings of which two runs that have them have another value: first what is trained on what.
pub(crate) fn differing(configs: &[&Config]) -> Vec<String> {
    let mut keys: Vec<&str> = vec!["dataset", "latent", "estimator"];
    for key in configs.iter().flat_map(|config| config.keys()).map(|setting| setting.name) {
        if !keys.contains(&key) && !APART.contains(&key) {
            keys.push(key);
        }
    }
    let differs = |key: &&str| {
        let mut values = configs.iter().filter_map(|config| config.settings().get(key));
        values.next().is_some_and(|first| values.any(|other| other != first))
    };
    keys.into_iter().filter(differs).map(String::from).collect()
}

/// A row of a table in Markdown.
pub(crate) fn markdown_row(cells: &[impl AsRef<str>]) -> String {
    let cells: Vec<String> = cells.iter().map(|cell| cell.as_ref().replace('|', "\\|").replace('\n', " ")).collect();
    format!("| {} |", cells.join(" | "))
}

/// Settings and figures by name.
fn chosen(registry: &Registry, names: &[String]) -> Result<(Vec<String>, Vec<&'static Measure>)> {
    let (mut keys, mut measures) = (vec![], vec![]);
    for name in names {
        match measure_named(name) {
            Some(measure) => measures.push(measure),
            None if APART.contains(&name.as_str()) => {
                let expected = "settings in which rows may differ: their runs differ in this one";
                return Err(Error::setting("columns", name, expected));
            }
            None if every_key(registry).contains(&name.as_str()) => keys.push(name.clone()),
            None => {
                let figures = measure_names();
                let near = did_you_mean(name, &[every_key(registry), figures.clone()].concat());
                let expected = format!("settings, or figures: {}{near}", figures.join(", "));
                let shown = if name.trim().is_empty() { "(an empty name)" } else { name };
                return Err(Error::setting("columns", shown, expected));
            }
        }
    }
    Ok((keys, measures))
}
