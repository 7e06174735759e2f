//! Runs: training from a configuration into a folder, resumable after kill -9 at any moment.
//!
//! The folder holds `config.toml` (resolved), `metrics.jsonl` (one line per evaluated epoch and split), `checkpoint/`
//! (the latest), `best.safetensors` (the epoch with the least validation bound), `summary.json`, `samples.png`,
//! `reconstructions.png`, `curves.svg`, `labels.json`, which images have a label, if any, and `data-dir`, where the
//! data lay if their folder was named. Every file is whole or absent.
//!
//! Nothing that a step computes depends on anything but the configuration and the step's number: the order of the
//! images is a permutation keyed by the epoch, the noise is keyed by the step, and what the estimator has learned is in
//! the checkpoint. So a run that continues from a checkpoint ends with the same bits as one that was never interrupted.
//!
//! The loop speaks to an [`Engine`](gumbel::engine::Engine) and an [`Estimator`](gumbel::estimator::Estimator), and
//! knows no name of either.

use crate::evaluate::{Protocol, evaluate};
use crate::folder::{Digest, Files, Start, prepare};
use crate::images::{SplitImages, shape};
use crate::metrics::{Metrics, Summary};
use crate::store::{self, Checkpoint, write_atomic};
use crate::stored::{ModelCard, remember_data_dir};
use crate::trainer::Trainer;
use crate::{Config, Error, Result, labels, plot, show};
use gumbel::estimator::{MEASURES, Tally};
use gumbel::noise::{Noise, Purpose};
use gumbel_data::{Dataset, Split};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::path::Path;
use std::time::Instant;

/// Watches a run.
pub trait Observer {
    /// After each training step (`done` of `total` in this process' view of the whole run).
    fn step(&mut self, _epoch: usize, _done: u64, _total: u64) {}
    /// A new line of metrics.
    fn metrics(&mut self, _metrics: &Metrics) {}
    /// Something a person may want to know.
    fn note(&mut self, _text: &str) {}
    /// Asked after each step: true saves a checkpoint and ends.
    fn stop(&mut self) -> bool {
        false
    }
}

/// An observer that says nothing.
pub struct Quiet;

impl Observer for Quiet {}

/// How a call of [`train`] ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The summary; `None` if the observer stopped the run before its end.
    pub summary: Option<Summary>,
    /// Steps done.
    pub steps: u64,
}

/// Images of the training split that are evaluated where no limit is given.
const TRAIN_EVALUATION: usize = 2_000;

/// What a checkpoint knows of its run, beside the parameters.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct State {
    /// What the estimator has measured in the running epoch: sums and numbers of values.
    tallies: [(f64, f64); MEASURES],
    seconds: f64,
    /// Time of all steps.
    train_seconds: f64,
    /// Time of the steps of the running epoch.
    step_seconds: f64,
    best_epoch: usize,
    /// What the steps were computed with, in order: more than one where the run was continued on another machine.
    #[serde(default)]
    arithmetic: Vec<String>,
    /// What it was trained and evaluated on, see [`fingerprint`].
    #[serde(default)]
    data: Option<String>,
    metrics: Vec<Metrics>,
}

/// Trains a run in `folder`; see the [module](self).
///
/// Runs on the current rayon pool (`pool.install(|| train(...))` chooses the number of threads).
///
/// # Errors
/// A folder that holds another run; settings that the data or the engine cannot have; numbers that are no longer
/// finite; files that cannot be written.
pub fn train(
    config: &Config,
    data: &Dataset,
    folder: &Path,
    start: Start,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    let count = match config.count("train-limit") {
        0 => data.train.count(),
        limit => limit.min(data.train.count()),
    };
    if count == 0 || data.valid.count() == 0 || data.test.count() == 0 {
        return Err(Error::setting("dataset", config.text("dataset"), "at least one image in each split"));
    }
    let labelled = labels::draw(config, data, count)?;
    let mut trainer = Trainer::new(config, shape(data))?.with_labels(labelled.clone())?;
    let steps_per_epoch = count.div_ceil(config.count("batch-size")) as u64;
    config.check_schedules(&mut *trainer.estimator, steps_per_epoch)?;
    let files = Files::new(folder);
    let lock = prepare(&files, start)?;
    let run = config.digest();
    let state = State { data: Some(fingerprint(data)), ..State::default() };
    let (step, began) = (0, Instant::now());
    let first = 0;
    let mut run = Run { config, data, files, run, trainer, state, first, step, count, steps_per_epoch, began };
    if start == Start::Resume {
        run.resume(observer)?;
    }
    lock.claim(&run.run, &config.to_toml())?;
    remember_data_dir(&run.files, config.data_dir())?;
    if let Some(labelled) = &labelled {
        let text = serde_json::to_string(labelled).expect("labels are numbers");
        write_atomic(&run.files.other("labels.json"), text.as_bytes())?;
    }
    run.go(observer)
}

/// What tells data apart: the number of images in each split, and a digest of some of them with their labels.
fn fingerprint(data: &Dataset) -> String {
    const LOOKED_AT: usize = 64;
    let mut hash = Sha256::new();
    for images in Split::ALL.map(|split| data.split(split)) {
        let places = (0..LOOKED_AT.min(images.count())).map(|i| i * images.count() / LOOKED_AT.min(images.count()));
        for i in places {
            hash.update(images.image(i).unwrap_or_default());
            hash.update(images.label(i).unwrap_or_default().to_le_bytes());
        }
    }
    let counts = Split::ALL.map(|split| data.split(split).count().to_string());
    format!("{} images of the digest {:.12}", counts.join(" + "), Digest::from_hash(hash))
}

struct Run<'a> {
    config: &'a Config,
    data: &'a Dataset,
    files: Files,
    run: Digest,
    trainer: Trainer,
    state: State,
    /// Steps on labelled images before the first epoch.
    first: u64,
    /// Steps since.
    step: u64,
    /// Training images.
    count: usize,
    steps_per_epoch: u64,
    began: Instant,
}

impl<'a> Run<'a> {
    fn total(&self) -> u64 {
        self.steps_per_epoch * self.config.whole("epochs")
    }

    fn seconds(&self) -> f64 {
        self.state.seconds + self.began.elapsed().as_secs_f64()
    }

    /// Checks what the folder holds of this run, and goes on from there; nothing is written.
    fn resume(&mut self, observer: &mut dyn Observer) -> Result<()> {
        let path = self.files.config();
        if path.exists() {
            Config::read(self.config.registry(), &path)?.check_resumable(self.config, &path)?;
        }
        let path = self.files.checkpoint();
        if !path.exists() {
            observer.note("no checkpoint in the folder: the run starts at its beginning");
            return Ok(());
        }
        let stored = store::read_checkpoint(&path, &self.run)?;
        let foreign = |found: String| Error::foreign(&path, "a checkpoint of this run", found);
        self.state =
            serde_json::from_str(&stored.state).map_err(|e| foreign(format!("a state that does not parse ({e})")))?;
        // Another number of images would make other epochs of its steps.
        let now = fingerprint(self.data);
        if let Some(before) = self.state.data.replace(now.clone()).filter(|before| *before != now) {
            return Err(Error::foreign(&path, format!("a checkpoint of a run on {now}"), format!("one on {before}")));
        }
        let steps = stored.snapshot.steps;
        self.first = steps.min(self.trainer.first_steps());
        self.step = (steps - self.first) / self.trainer.updates();
        if self.step > self.total() {
            let least = self.step.div_ceil(self.steps_per_epoch);
            let expected = format!("at least {least}: the run has come that far");
            return Err(Error::setting("epochs", self.config.whole("epochs"), expected));
        }
        self.check_best()?;
        self.trainer.engine.restore(&stored.snapshot).map_err(|e| foreign(e.to_string()))?;
        self.trainer.estimator.restore(&stored.learned).map_err(|e| foreign(e.to_string()))?;
        if let Some(before) = self.state.arithmetic.last() {
            let now = self.trainer.engine.arithmetic();
            if *before != now {
                observer
                    .note(&format!("computed with {before} before, with {now} from here: the last digits may differ"));
            }
        }
        observer.note(&format!("resumed at step {} of {}", self.step, self.total()));
        Ok(())
    }

    /// Checks that the best model is there and not older than the checkpoint says. Newer is fine: it is written first.
    fn check_best(&self) -> Result<()> {
        let (path, best) = (self.files.best(), self.state.best_epoch);
        if best == 0 {
            return Ok(());
        }
        let foreign = |found: String| Err(Error::foreign(&path, format!("the model of epoch {best}, the best"), found));
        if !path.exists() {
            return foreign("no such file".into());
        }
        let (_, card) = store::read_model(&path, Some(&self.run))?;
        match self.card(&card)? {
            card if card.epoch >= best => Ok(()),
            card => foreign(format!("that of epoch {}", card.epoch)),
        }
    }

    /// What the best model says of itself.
    fn card(&self, text: &str) -> Result<ModelCard> {
        let wrong = |e| Error::foreign(self.files.best(), "the description of a model", format!("another text ({e})"));
        serde_json::from_str(text).map_err(wrong)
    }

    fn save(&mut self) -> Result<()> {
        let now = self.trainer.engine.arithmetic();
        if self.state.arithmetic.last() != Some(&now) {
            self.state.arithmetic.push(now);
        }
        let state = State { seconds: self.seconds(), ..self.state.clone() };
        let checkpoint = Checkpoint {
            snapshot: self.trainer.engine.snapshot(),
            learned: self.trainer.estimator.state(),
            // JSON, whose numbers are read back to the same bits.
            state: serde_json::to_string(&state).expect("a state holds only numbers and text"),
        };
        store::write_checkpoint(&self.files.checkpoint(), &checkpoint, &self.run)
    }

    fn go(mut self, observer: &mut dyn Observer) -> Result<Outcome> {
        let steps_per_epoch = self.steps_per_epoch;
        let stopped = |run: &Self| Ok(Outcome { summary: None, steps: run.step });
        // The metrics file follows the checkpoint: lines after it will be written again.
        self.write_metrics()?;
        if self.step == 0 && observer.stop() {
            return stopped(&self);
        }
        // Killed between the last step of an epoch and its evaluation, or stopped there, or its last epoch was not to
        // be the last.
        if self.step > 0 && self.step.is_multiple_of(steps_per_epoch) {
            self.end_epoch(observer)?;
        }
        while self.first < self.trainer.first_steps() {
            self.first_step()?;
            observer.step(0, self.first, self.trainer.first_steps());
            let stop = observer.stop();
            let every = self.config.whole("checkpoint-every");
            if stop || every > 0 && self.first.is_multiple_of(every) {
                self.save()?;
            }
            if stop {
                return stopped(&self);
            }
        }
        if self.first > 0 && self.state.metrics.is_empty() {
            self.end_first(observer)?;
        }
        while self.step < self.total() {
            let epoch = self.step / steps_per_epoch + 1;
            let order = Noise::new(self.config.seed(), Purpose::Shuffle, epoch).permutation(self.count);
            while self.step < steps_per_epoch * epoch {
                self.train_step(epoch, &order)?;
                observer.step(epoch as usize, self.step, self.total());
                let stop = observer.stop();
                let every = self.config.whole("checkpoint-every");
                let ends_epoch = self.step.is_multiple_of(steps_per_epoch);
                if stop || every > 0 && self.step.is_multiple_of(every) && !ends_epoch {
                    self.save()?;
                }
                if stop {
                    return stopped(&self);
                }
            }
            self.end_epoch(observer)?;
        }
        self.finish()
    }

    /// The last epoch whose metrics are there.
    fn evaluated(&self) -> u64 {
        self.state.metrics.last().map_or(0, |m| m.epoch as u64)
    }

    /// The error of numbers that are no longer finite, wherever they are met first.
    fn diverged(&self, error: Error) -> Error {
        fn is_divergence(error: &gumbel::Error) -> bool {
            use gumbel::Error::*;
            match error {
                Example { source, .. } => is_divergence(source),
                NotANumber { .. }
                | NotFinite { .. }
                | PositiveInfinity { .. }
                | NegativeWeight { .. }
                | Infeasible { .. } => true,
                _ => false,
            }
        }
        let epoch = (self.step.saturating_sub(1) / self.steps_per_epoch) as usize + 1;
        match error {
            Error::Discrete(source) if is_divergence(&source) => {
                Error::Diverged { step: self.step, epoch, lr: self.config.real("lr"), source }
            }
            other => other,
        }
    }

    /// The training split as labelled steps see it.
    fn labelled_images(&self, epoch: u64) -> SplitImages<'a> {
        SplitImages::new(self.data, Split::Train, self.config.labels_binarization(), epoch)
    }

    /// A step on labelled images before the first epoch.
    fn first_step(&mut self) -> Result<()> {
        let began = Instant::now();
        let images = self.labelled_images(1);
        self.trainer.labelled_step(&images, self.first).map_err(|e| self.diverged(e))?;
        self.first += 1;
        self.state.train_seconds += began.elapsed().as_secs_f64();
        Ok(())
    }

    fn train_step(&mut self, epoch: u64, order: &[u32]) -> Result<()> {
        let began = Instant::now();
        let in_epoch = (self.step % self.steps_per_epoch) as usize;
        if in_epoch == 0 {
            self.state.tallies = Default::default();
            self.state.step_seconds = 0.0;
        }
        let size = self.config.count("batch-size");
        let first = in_epoch * size;
        let batch = &order[first..self.count.min(first + size)];
        let images = SplitImages::new(self.data, Split::Train, self.config.binarization(), epoch);
        let report = self.trainer.step(&images, batch, self.step, self.steps_per_epoch);
        let report = report.map_err(|e| self.diverged(e))?;
        let labelled = self.labelled_images(epoch);
        let beside = self.trainer.step_beside(&labelled, self.step, self.steps_per_epoch);
        beside.map_err(|e| self.diverged(e))?;
        self.step += 1;
        for ((sum, count), tally) in self.state.tallies.iter_mut().zip(&report.tallies) {
            (*sum, *count) = (*sum + tally.sum, *count + tally.count);
        }
        let seconds = began.elapsed().as_secs_f64();
        self.state.step_seconds += seconds;
        self.state.train_seconds += seconds;
        Ok(())
    }

    /// Whether an epoch is one of those that are evaluated: every so many, and the last.
    fn is_due(&self, epoch: u64) -> bool {
        epoch.is_multiple_of(self.config.whole("eval-every")) || epoch == self.config.whole("epochs")
    }

    /// Evaluates what the labelled images alone have taught, as epoch 0. It is the best only where no other is to come.
    fn end_first(&mut self, observer: &mut dyn Observer) -> Result<()> {
        let lines = self.evaluate(0).map_err(|e| self.diverged(e))?;
        if self.total() == 0 {
            self.write_best(0)?;
        }
        lines.iter().for_each(|l| observer.metrics(l));
        self.state.metrics.extend(lines);
        self.write_metrics()?;
        self.save()
    }

    /// Evaluates the epoch that has ended, if it is due and this has not been done, and saves.
    fn end_epoch(&mut self, observer: &mut dyn Observer) -> Result<()> {
        let epoch = self.step / self.steps_per_epoch;
        if self.evaluated() >= epoch {
            return Ok(());
        }
        if self.is_due(epoch) {
            let lines = self.evaluate(epoch as usize).map_err(|e| self.diverged(e))?;
            let best = self.state.metrics.iter().filter(|m| m.split == "valid" && m.epoch > 0).map(|m| m.bound);
            // Validation images that were trained on choose nothing.
            if self.config.trains_on_all() || lines[1].bound < best.fold(f64::INFINITY, f64::min) {
                self.state.best_epoch = epoch as usize;
                self.write_best(epoch as usize)?;
            }
            lines.iter().for_each(|l| observer.metrics(l));
            self.state.metrics.extend(lines);
            self.write_metrics()?;
        }
        self.save()
    }

    /// The lines of the three splits.
    fn evaluate(&mut self, epoch: usize) -> Result<Vec<Metrics>> {
        let config = self.config;
        let protocol = Protocol::new(config);
        let schedules: Vec<_> =
            config.scheduled(self.step.saturating_sub(1))?.into_iter().map(|(n, v)| (n, Some(v))).collect();
        let step_ms = self.state.step_seconds * 1e3 / self.steps_per_epoch as f64;
        let limit = config.count("eval-limit");
        let train_limit = if limit == 0 { TRAIN_EVALUATION } else { limit }.min(self.count);
        let mut lines = vec![];
        for (split, limit) in [(Split::Train, train_limit), (Split::Valid, limit), (Split::Test, limit)] {
            let images = SplitImages::new(self.data, split, config.binarization(), 0);
            let known = self.known(split);
            let e = evaluate(&mut *self.trainer.engine, &images, split, limit, known.as_deref(), &protocol)?;
            if !e.bound.is_finite() {
                return Err(gumbel::Error::NotFinite { what: "bound", value: e.bound }.into());
            }
            let named = schedules.iter().cloned().chain(self.measured(split));
            let mut line = Metrics::new(&e, epoch, self.step, split, named);
            (line.train_seconds, line.seconds, line.step_ms) = (self.state.train_seconds, self.seconds(), step_ms);
            lines.push(line);
        }
        Ok(lines)
    }

    /// What is known of the images of a split, where a run has labels: its accuracy is told.
    fn known(&self, split: Split) -> Option<Vec<u32>> {
        match self.config.labels() {
            labels::Count::Some(0) => None,
            _ => labels::known(self.config, self.data.split(split)),
        }
    }

    /// What the estimator has measured, for the training split; null elsewhere, and for what others measure.
    fn measured(&self, split: Split) -> Vec<(String, Option<f64>)> {
        let measures = self.trainer.measures();
        let always = self.config.registry().measured_always();
        let absent =
            always.into_iter().filter(|name| split != Split::Train || measures.iter().all(|m| m.name != *name));
        let mut named: Vec<(String, Option<f64>)> = absent.map(|name| (name.to_string(), None)).collect();
        if split == Split::Train {
            let values = measures.iter().zip(&self.state.tallies);
            let value = |(sum, count): (f64, f64)| (self.step > 0).then(|| Tally { sum, count }.mean());
            named.extend(values.map(|(measure, tally)| (measure.name.to_string(), value(*tally))));
        }
        named
    }

    fn write_best(&mut self, epoch: usize) -> Result<()> {
        let card = ModelCard::new(epoch, self.step, shape(self.data));
        let text = serde_json::to_string(&card).expect("a card holds only numbers");
        store::write_model(&self.files.best(), &self.trainer.engine.snapshot().parameters, &text, &self.run)
    }

    fn write_metrics(&self) -> Result<()> {
        let mut text = String::new();
        for line in &self.state.metrics {
            text.push_str(&serde_json::to_string(line).expect("metrics are finite"));
            text.push('\n');
        }
        write_atomic(&self.files.metrics(), text.as_bytes())
    }

    fn finish(mut self) -> Result<Outcome> {
        let config = self.config;
        let find = |split: &str, epoch: usize| {
            let line = self.state.metrics.iter().find(|m| m.split == split && m.epoch == epoch).cloned();
            line.ok_or_else(|| {
                let found = format!("{} lines without them", self.state.metrics.len());
                Error::foreign(self.files.checkpoint(), format!("metrics of epoch {epoch}, {split}"), found)
            })
        };
        let best = self.state.best_epoch;
        let last = self.evaluated() as usize;
        let [valid, test, final_test] = [find("valid", best)?, find("test", best)?, find("test", last)?];
        let (parameters, card) = store::read_model(&self.files.best(), Some(&self.run))?;
        let card = self.card(&card)?;
        if card.epoch != best {
            // Killed after it was written, and now asked for fewer epochs.
            let expected = format!("the model of epoch {best}, the best of {last}");
            let found = format!("that of epoch {}: as many epochs would finish it", card.epoch);
            return Err(Error::foreign(self.files.best(), expected, found));
        }
        let engine = &mut self.trainer.engine;
        let mut snapshot = engine.snapshot();
        let summary = Summary {
            dataset: config.text("dataset").into(),
            latent: config.latent().text.clone(),
            estimator: config.text("estimator").into(),
            kl: config.kl().to_string(),
            epochs: last,
            train_on: config.text("train-on").into(),
            best_epoch: best,
            valid,
            test,
            final_test,
            seconds: self.state.metrics.last().map_or(0.0, |m| m.seconds),
            steps: self.step,
            parameters: snapshot.parameters.count(),
            seed: config.seed(),
            threads: rayon::current_num_threads(),
            engine: engine.name().into(),
            arithmetic: match &self.state.arithmetic[..] {
                [] => engine.arithmetic(), // a checkpoint that does not say
                used => used.join(", then "),
            },
            device: config.text("device").into(),
            version: env!("CARGO_PKG_VERSION").into(),
            commit: option_env!("GUMBEL_COMMIT").unwrap_or("unknown").into(),
        };
        (snapshot.parameters, snapshot.moments, snapshot.steps) = (parameters, vec![], 0);
        engine
            .restore(&snapshot)
            .map_err(|e| Error::foreign(self.files.best(), "the model of this run", e.to_string()))?;
        let images = SplitImages::new(self.data, Split::Valid, config.binarization(), 0);
        let order = show::by_use(&mut **engine, &images)?;
        let meaning = show::Meaning::of(config, Some(self.data));
        let samples = show::Samples { seed: config.seed(), order, meaning, ..show::Samples::default() };
        show::samples(&mut **engine, shape(self.data), &samples, &self.files.other("samples.png"))?;
        let images = SplitImages::new(self.data, Split::Test, config.binarization(), 0);
        show::reconstructions(&mut **engine, &images, show::Look::default(), &self.files.other("reconstructions.png"))?;
        let title = format!(
            "{}, {}, {}, KL {}, seed {}",
            config.text("dataset"),
            config.latent().text,
            config.text("estimator"),
            config.kl(),
            config.seed()
        );
        plot::run(&self.files.other("curves.svg"), &title, &self.state.metrics)?;
        // Last: a run that has one is finished, with its pictures.
        let text = serde_json::to_string_pretty(&summary).expect("a summary is finite");
        write_atomic(&self.files.summary(), text.as_bytes())?;
        Ok(Outcome { summary: Some(summary), steps: self.step })
    }
}
