//! What a finished run leaves: one small file.

use super::Step;
use crate::config::Given;
use crate::metrics::{Metrics, Summary};
use crate::report::command;
use crate::store::write_atomic;
use crate::stored::{check_summary, open_config, read_metrics, read_summary};
use crate::sweep::Cell;
use crate::{Config, Error, Registry, Result, labels};
use gumbel::diagnose::rows;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// About as many points of a curve are kept.
const POINTS: usize = 30;

/// A finished run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The name of its cell, with the seed.
    pub cell: String,
    /// The command that trains it.
    pub command: String,
    /// All its settings.
    pub settings: Given,
    /// What it has reached.
    pub summary: Summary,
    /// Some points on the way.
    pub curve: Curve,
    /// Whether it is of a quick look: its settings are those of its grid with `[quick]` over them. That is no part of
    /// the file, but said by [`results`](super::results).
    #[serde(skip)]
    pub is_quick: bool,
}

/// Figures of the test split at some epochs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Curve {
    /// Epochs, from 1.
    pub epoch: Vec<usize>,
    /// Seconds of training steps until then.
    pub train_seconds: Vec<f64>,
    /// Rows of the decoder for each training image until then, without and with gradient, if they are known: those of
    /// the estimator's questions and those that the decoder follows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub decoder_passes: Vec<f64>,
    /// Bound, nats.
    pub bound: Vec<f64>,
    /// -ln p(x), nats, if it is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nll: Vec<f64>,
    /// What the authors of the paper report, nats, if it is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paper_loss: Vec<f64>,
    /// Accuracy, of runs with labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accuracy: Vec<f64>,
    /// Bound of the validation split, nats; not where its images were trained on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub valid_bound: Vec<f64>,
}

impl Curve {
    /// The first and the last point, and others at about the same distance; `passes` are those of an epoch's image.
    fn of(metrics: &[Metrics], passes: &Passes) -> Self {
        let test: Vec<&Metrics> = metrics.iter().filter(|line| line.split == "test").collect();
        let every = test.len().div_ceil(POINTS).max(1);
        let last = test.len().saturating_sub(1);
        let kept: Vec<&Metrics> =
            (0..test.len()).filter(|i| *i == 0 || (last - i).is_multiple_of(every)).map(|i| test[i]).collect();
        let round = |x: f64, digits: i32| (x * 10f64.powi(digits)).round() / 10f64.powi(digits);
        // Of what some points have not, none is told.
        let all = |of: &dyn Fn(&Metrics) -> Option<f64>, digits: i32| -> Vec<f64> {
            let values: Option<Vec<f64>> = kept.iter().map(|line| of(line).map(|x| round(x, digits))).collect();
            values.unwrap_or_default()
        };
        let until = passes.until(metrics);
        let valid: BTreeMap<usize, f64> =
            metrics.iter().filter(|line| line.split == "valid").map(|line| (line.epoch, line.bound)).collect();
        Curve {
            epoch: kept.iter().map(|line| line.epoch).collect(),
            train_seconds: all(&|line| Some(line.train_seconds), 1),
            decoder_passes: all(&|line| until.get(&line.epoch).copied(), 1),
            bound: all(&|line| Some(line.bound), 3),
            nll: all(&|line| line.nll, 3),
            paper_loss: all(&|line| line.paper_loss, 3),
            accuracy: all(&|line| line.accuracy, 5),
            valid_bound: all(&|line| valid.get(&line.epoch).copied(), 3),
        }
    }

    /// The values of a figure, as many as there are epochs, or none.
    pub fn values(&self, field: &str) -> &[f64] {
        match field {
            "bound" => &self.bound,
            "nll" => &self.nll,
            "paper_loss" => &self.paper_loss,
            "accuracy" => &self.accuracy,
            "valid_bound" => &self.valid_bound,
            "decoder_passes" => &self.decoder_passes,
            _ => &self.train_seconds,
        }
    }

    fn is_whole(&self) -> bool {
        let n = self.epoch.len();
        let fits = |values: &Vec<f64>| values.is_empty() || values.len() == n;
        self.train_seconds.len() == n
            && self.bound.len() == n
            && [&self.nll, &self.paper_loss, &self.accuracy, &self.valid_bound, &self.decoder_passes]
                .into_iter()
                .all(fits)
    }
}

/// Rows of the decoder for an image in an epoch.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Passes {
    /// So many in every epoch.
    Same(f64),
    /// So many for each of so many samples, beside those that the estimator has counted.
    Beside(f64, f64),
    /// What is drawn decides, or labels.
    Unknown,
}

/// What a search has counted: the rows of its questions, for each sample.
const COUNTED: &str = "search_rows";

impl Passes {
    fn of(config: &Config) -> Self {
        let Ok(mut estimator) = config.estimator() else { return Passes::Unknown };
        // Images with labels have steps of their own.
        if config.labels() != labels::Count::Some(0) {
            return Passes::Unknown;
        }
        let (structure, samples) = (&config.latent().structure, config.count("samples"));
        if estimator.measures().iter().any(|measure| measure.name == COUNTED) {
            return Passes::Beside(estimator.rows(samples) as f64, samples as f64);
        }
        match rows(&mut *estimator, structure, samples) {
            Ok(Some([without, with])) => Passes::Same(without + with),
            _ => Passes::Unknown,
        }
    }

    /// The rows until the end of an epoch, for those epochs at whose end a run was evaluated.
    fn until(&self, metrics: &[Metrics]) -> BTreeMap<usize, f64> {
        let (mut sum, mut last, mut all) = (0.0, 0, BTreeMap::new());
        for line in metrics.iter().filter(|line| line.split == "train") {
            let rows = match self {
                Passes::Same(rows) => Some(*rows),
                // Of the epochs that are not evaluated, as many as of the next that is.
                Passes::Beside(rows, samples) => line.named(COUNTED).map(|counted| rows + samples * counted),
                Passes::Unknown => None,
            };
            let Some(rows) = rows else { return BTreeMap::new() };
            sum += line.epoch.saturating_sub(last) as f64 * rows;
            last = line.epoch;
            all.insert(line.epoch, sum);
        }
        all
    }
}

impl Record {
    /// The record of a finished run in its folder.
    ///
    /// # Errors
    /// A folder without a finished run; files that cannot be read or belong to another run.
    pub fn of(registry: &Registry, cell: &str, folder: &Path) -> Result<Self> {
        let config = open_config(registry, folder)?;
        let summary = read_summary(folder)?;
        check_summary(folder, &config, &summary)?;
        if summary.epochs as u64 != config.whole("epochs") {
            let expected = format!("a run of {} epochs that is finished", config.whole("epochs"));
            return Err(Error::foreign(folder, expected, format!("one of {}", summary.epochs)));
        }
        Ok(Record {
            cell: cell.into(),
            command: command(&config, cell),
            settings: config.settings().iter().map(|(key, value)| (key.into(), value.to_string())).collect(),
            summary,
            curve: Curve::of(&read_metrics(folder)?, &Passes::of(&config)),
            is_quick: false,
        })
    }

    /// Reads a file.
    ///
    /// # Errors
    /// A file that cannot be read, was cut short, or is something else.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
        let foreign = |found: String| Error::foreign(path, "the record of a run", found);
        let record: Record = serde_json::from_str(&text).map_err(|e| {
            foreign(if e.is_eof() { format!("one that was cut short ({e})") } else { format!("something else ({e})") })
        })?;
        if path.file_stem().is_none_or(|stem| stem != record.cell.as_str()) {
            return Err(foreign(format!("that of {}", record.cell)));
        }
        if !record.curve.is_whole() {
            return Err(foreign("a curve with figures of other numbers than epochs".into()));
        }
        Ok(record)
    }

    /// Writes it to `FOLDER/CELL.json`; a file that says the same is left as it is.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(format!("{}.json", self.cell));
        let text = serde_json::to_string(self).expect("our records are plain data") + "\n";
        if fs::read_to_string(&path).is_ok_and(|old| old == text) {
            return Ok(());
        }
        write_atomic(&path, text.as_bytes())
    }
}

/// The name of a cell without `-sSEED`.
pub(super) fn without_seed(cell: &str) -> &str {
    cell.rsplit_once("-s").filter(|(_, seed)| seed.bytes().all(|b| b.is_ascii_digit())).map_or(cell, |(name, _)| name)
}

/// Records of several experiments, and where they stand.
#[derive(Debug, Clone, Default)]
pub struct Results {
    /// For `EXPERIMENT/CELL` without the seed, the files with their records by seed.
    records: BTreeMap<String, Vec<(String, Record)>>,
    /// Pictures of steps: experiment, file, where.
    pictures: Vec<(String, String, PathBuf)>,
    /// What steps have printed: experiment, file, its lines.
    printed: Vec<(String, String, Vec<serde_json::Value>)>,
    /// The folder of the documentation, where pictures stand that were committed.
    docs: PathBuf,
    /// Records that are not shown: the file, and why.
    left_out: Vec<String>,
}

impl Results {
    /// Reads what stands in `FOLDER/EXPERIMENT/results` for the named experiments; what is not there is left out.
    /// Whether the records are runs of today's grids is not asked: [`results`](super::results) does.
    ///
    /// # Errors
    /// Files that cannot be read, or are no records.
    pub fn read<'a>(folder: &Path, experiments: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let mut all = Results { docs: folder.join("..").join("docs"), ..Results::default() };
        for experiment in experiments {
            let own = folder.join(experiment).join("results");
            let entries = match fs::read_dir(&own) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                other => other.map_err(|e| Error::io("read", &own, e))?,
            };
            for entry in entries {
                let path = entry.map_err(|e| Error::io("read", &own, e))?.path();
                let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                match path.extension().and_then(|ending| ending.to_str()) {
                    Some("json") => {
                        let record = Record::read(&path)?;
                        let cell = format!("{experiment}/{}", without_seed(&record.cell));
                        all.records.entry(cell).or_default().push((format!("{experiment}/results/{file}"), record));
                    }
                    Some("png" | "svg") => all.pictures.push((experiment.into(), file, path)),
                    Some("jsonl") => {
                        let text = fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))?;
                        let lines: std::result::Result<_, _> = text.lines().map(serde_json::from_str).collect();
                        let lines = lines.map_err(|e| {
                            Error::foreign(&path, "a JSON object on every line", format!("another ({e})"))
                        })?;
                        all.printed.push((experiment.into(), file, lines));
                    }
                    _ => {}
                }
            }
        }
        all.records.values_mut().for_each(|runs| runs.sort_by_key(|(_, record)| record.summary.seed));
        all.pictures.sort();
        Ok(all)
    }

    /// Compares the records of an experiment with its cells, whole and as a quick look has them: those with the
    /// settings of the latter are marked, and those with others than both are left out.
    pub(super) fn compare(&mut self, experiment: &str, whole: &[Cell], quick: &[Cell]) {
        let own = |name: &str| name.split_once('/').is_some_and(|(of, _)| of == experiment);
        for (_, runs) in self.records.iter_mut().filter(|(name, _)| own(name)) {
            runs.retain_mut(|(file, record)| {
                let differs = |cells: &[Cell]| {
                    let cell = cells.iter().find(|cell| cell.name == record.cell)?;
                    Some(cell.config.difference(&record.settings))
                };
                match (differs(whole), differs(quick)) {
                    (Some(None), _) => return true,
                    (_, Some(None)) => {
                        record.is_quick = true;
                        return true;
                    }
                    (Some(Some(what)), _) => {
                        self.left_out.push(format!("{file}: a run with {what} as the grid has it"));
                    }
                    (None, _) => self.left_out.push(format!("{file}: no cell of the grid of {experiment}")),
                }
                false
            });
        }
        self.records.retain(|_, runs| !runs.is_empty());
    }

    /// The records that are not shown, as they are no runs of their experiment's grid: each file, and why.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// Whether there is no record at all, not even one that is left out.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.left_out.is_empty()
    }

    /// Whether a run of an experiment is one of a quick look.
    pub fn is_quick(&self, experiment: &str) -> bool {
        self.of(experiment).any(|(_, record)| record.is_quick)
    }

    /// The runs of a cell, named as `EXPERIMENT/CELL` without the seed: files and records, in the order of the seeds.
    pub fn runs(&self, cell: &str) -> &[(String, Record)] {
        self.records.get(cell).map_or(&[], Vec::as_slice)
    }

    /// All runs of an experiment.
    pub fn of<'a>(&'a self, experiment: &'a str) -> impl Iterator<Item = &'a (String, Record)> {
        let own = move |cell: &str| cell.split_once('/').is_some_and(|(name, _)| name == experiment);
        self.records.iter().filter(move |(cell, _)| own(cell)).flat_map(|(_, runs)| runs)
    }

    /// Whether a step has left its picture here.
    pub(super) fn has_picture(&self, experiment: &str, file: &str) -> bool {
        self.pictures.iter().any(|(e, f, _)| e == experiment && f == file)
    }

    /// Where the picture of a step of an experiment stands; of the repository's records it may be the committed one.
    pub fn picture(&self, experiment: &str, step: &Step) -> Option<PathBuf> {
        let own = |(e, f, _): &&(String, String, PathBuf)| e == experiment && *f == step.picture;
        let committed = || Some(self.docs.join(step.committed.as_ref()?)).filter(|path| path.is_file());
        self.pictures.iter().find(own).map(|(_, _, path)| path.clone()).or_else(committed)
    }

    /// What a step has printed, line by line, and where: `EXPERIMENT/results/FILE`.
    pub(super) fn printed(&self, experiment: &str, file: &str) -> Option<(String, &[serde_json::Value])> {
        let (_, _, lines) = self.printed.iter().find(|(e, f, _)| e == experiment && f == file)?;
        Some((format!("{experiment}/results/{file}"), lines))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_number_at_the_end() {
        assert_eq!(without_seed("mnist-direct-s10"), "mnist-direct");
        assert_eq!(without_seed("mnist-self"), "mnist-self");
        assert_eq!(without_seed("a-s1-s2"), "a-s1");
    }

    #[test]
    fn few_points_of_a_long_curve_are_kept() {
        let line = |epoch: usize, split: &str| -> Metrics {
            let text = format!(
                r#"{{"epoch":{epoch},"step":1,"split":"{split}","images":1,"bound":{},"reconstruction":1,"kl":0,
                "seconds":0,"step_ms":0,"nll":null,"paper_loss":{epoch}}}"#,
                epoch as f64 / 3.0
            );
            serde_json::from_str(&text).unwrap()
        };
        let metrics: Vec<Metrics> = (1..=300).flat_map(|e| [line(e, "valid"), line(e, "test")]).collect();
        let curve = Curve::of(&metrics, &Passes::Unknown);
        assert!(curve.is_whole() && (POINTS..=POINTS + 1).contains(&curve.epoch.len()));
        assert_eq!((curve.epoch[0], curve.epoch.last()), (1, Some(&300)));
        assert_eq!((curve.bound[0], curve.valid_bound[0], curve.nll.len()), (0.333, 0.333, 0));
        assert_eq!((curve.values("paper_loss")[0], curve.paper_loss.last()), (1.0, Some(&300.0)));
        assert_eq!(Curve::of(&[], &Passes::Same(3.0)), Curve::default());
        assert_eq!(Curve::of(&metrics[..2], &Passes::Unknown).epoch, [1]);
    }
    #[test]
    fn decoder_passes_are_counted_or_unknown() {
        let of = |more: &[(&str, &str)]| {
            let given = [&[("latent", "binary:15")], more].concat();
            Passes::of(&Config::new(&Registry::standard(), &given).unwrap())
        };
        let same = |name: &str, samples: &str| of(&[("estimator", name), ("samples", samples)]);
        // As the registry says: z* with its changes, and what is followed.
        assert_eq!(same("local-expectation", "1"), Passes::Same(17.0));
        assert_eq!(same("gumbel-softmax", "1"), Passes::Same(1.0));
        assert_eq!(same("disarm", "1"), Passes::Same(4.0));
        assert_eq!(same("rloo", "4"), Passes::Same(8.0));
        assert_eq!(of(&[("joint", "search"), ("samples", "2")]), Passes::Beside(2.0, 2.0));
        assert_eq!(of(&[("estimator", "arsm"), ("latent", "categorical:3x5")]), Passes::Unknown);
        assert_eq!(of(&[("latent", "categorical:10"), ("labels", "100")]), Passes::Unknown);

        let line = |epoch: usize, split: &str, rows: &str| -> Metrics {
            let text = format!(
                r#"{{"epoch":{epoch},"step":1,"split":"{split}","images":1,"bound":1,"reconstruction":1,"kl":0,
                "seconds":0,"step_ms":0,"nll":null{rows}}}"#
            );
            serde_json::from_str(&text).unwrap()
        };
        let metrics: Vec<Metrics> = [(1, ",\"search_rows\":20"), (10, ",\"search_rows\":10.5")]
            .iter()
            .flat_map(|(epoch, rows)| {
                [line(*epoch, "train", rows), line(*epoch, "valid", ""), line(*epoch, "test", "")]
            })
            .collect();
        let passes = |passes: Passes| Curve::of(&metrics, &passes).decoder_passes;
        assert_eq!(passes(Passes::Same(17.0)), [17.0, 170.0]);
        assert_eq!(passes(Passes::Beside(1.0, 1.0)), [21.0, 21.0 + 9.0 * 11.5]);
        assert!(passes(Passes::Unknown).is_empty());
        // Without what a search has counted, nothing is said.
        assert!(Curve::of(&metrics[1..], &Passes::Beside(1.0, 1.0)).decoder_passes.is_empty());
    }
}
